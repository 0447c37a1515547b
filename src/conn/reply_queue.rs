//! Replies in request order, where some come from other shards.
//!
//! A reply that is made here goes straight into the gate; one that is still on its way has a
//! *place*, and whatever follows it waits behind it. Always true: bytes enter the gate in the order
//! of the requests, each with its own wait.

use std::collections::VecDeque;

use crate::conn::gate::Gate;
use crate::keyspace::Wait;
use crate::sim::{self, Fault};

/// The place of a reply that is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(u64);

enum Slot {
    /// The reply comes from elsewhere.
    Waiting,
    /// It is here.
    Ready(Vec<u8>, Wait),
}

/// Replies of one connection.
#[derive(Default)]
pub struct ReplyQueue {
    gate: Gate,
    slots: VecDeque<Slot>,
    /// Place of the first slot.
    first: u64,
}

impl ReplyQueue {
    /// Lets `write` append a reply; its wait is what `write` returns.
    pub fn reply<R>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> (Wait, R)) -> R {
        if self.slots.is_empty() {
            let (wait, result) = write(self.gate.buffer());
            self.gate.mark(wait);
            return result;
        }
        if let Some(Slot::Ready(bytes, wait)) = self.slots.back_mut() {
            let (more, result) = write(bytes);
            *wait = (*wait).max(more);
            return result;
        }
        let mut bytes = Vec::new();
        let (wait, result) = write(&mut bytes);
        self.slots.push_back(Slot::Ready(bytes, wait));
        result
    }

    /// Keeps a place for a reply that comes later.
    pub fn keep_place(&mut self) -> Place {
        self.slots.push_back(Slot::Waiting);
        Place(self.first + self.slots.len() as u64 - 1)
    }

    /// The reply for a place is here.
    pub fn fill(&mut self, place: Place, bytes: &[u8], wait: Wait) {
        let index = (place.0 - self.first) as usize;
        if index > 0 && sim::fault(Fault::ReplyOvertakes) {
            self.gate.buffer().extend_from_slice(bytes);
            self.gate.mark(wait);
            self.slots[index] = Slot::Ready(Vec::new(), Wait::NONE);
        } else if index == 0 {
            self.slots.pop_front();
            self.first += 1;
            self.gate.buffer().extend_from_slice(bytes);
            self.gate.mark(wait);
            self.advance();
        } else if let Some(slot) = self.slots.get_mut(index) {
            *slot = Slot::Ready(bytes.to_vec(), wait);
        }
    }

    fn advance(&mut self) {
        while let Some(Slot::Ready(..)) = self.slots.front() {
            if let Some(Slot::Ready(bytes, wait)) = self.slots.pop_front() {
                self.first += 1;
                self.gate.buffer().extend_from_slice(&bytes);
                self.gate.mark(wait);
            }
        }
    }

    /// The running turn was queued at `lsn`.
    pub fn sealed(&mut self, lsn: u64) {
        self.gate.sealed(lsn);
        for slot in &mut self.slots {
            if let Slot::Ready(_, wait) = slot {
                *wait = Wait::lsn(wait.sealed_at(lsn));
            }
        }
    }

    /// Whether something here waits for the running turn.
    pub fn waits_for_turn(&self) -> bool {
        let ready = self.slots.iter();
        self.gate.waits_for_turn()
            || ready
                .into_iter()
                .any(|slot| matches!(slot, Slot::Ready(_, Wait::TURN)))
    }

    /// Replies that are on their way or behind one.
    pub fn places(&self) -> usize {
        self.slots.len()
    }

    /// The gate.
    pub fn gate(&mut self) -> &mut Gate {
        &mut self.gate
    }

    /// Bytes held, by the disk or behind a reply that is on its way.
    pub fn held_bytes(&self) -> usize {
        let behind = self.slots.iter().map(|slot| match slot {
            Slot::Waiting => 0,
            Slot::Ready(bytes, _) => bytes.len(),
        });
        self.gate.held_bytes() + behind.sum::<usize>()
    }

    /// Bytes that wait for the client to read.
    pub fn unread_bytes(&self) -> usize {
        self.gate.unread_bytes()
    }

    /// Whether every reply was sent.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.gate.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_reply_holds_those_behind_it() {
        let mut queue = ReplyQueue::default();
        queue.reply(|out| {
            out.push(b'1');
            (Wait::NONE, ())
        });
        let second = queue.keep_place();
        queue.reply(|out| {
            out.push(b'3');
            (Wait::TURN, ())
        });
        let fourth = queue.keep_place();
        assert_eq!(queue.gate().release(0).bytes(), b"1");
        queue.fill(fourth, b"4", Wait::lsn(9));
        queue.sealed(7);
        queue.fill(second, b"2", Wait::NONE);
        assert_eq!(queue.gate().release(0).bytes(), b"12");
        assert_eq!(queue.gate().release(7).bytes(), b"123");
        assert_eq!(queue.gate().release(9).bytes(), b"1234");
        assert_eq!(queue.places(), 0);
    }
}
