//! The output gate of one connection: encoded replies, and what must be durable before their bytes
//! may leave.
//!
//! Always true: marks rise with the bytes, and bytes come out of here only as [`Released`], which
//! nothing else can make: what was not released cannot reach a socket.
#![forbid(unsafe_code)]

use std::collections::VecDeque;

use crate::keyspace::Wait;

/// Bytes that may be sent.
pub struct Released<'a>(&'a [u8]);

impl<'a> Released<'a> {
    /// The bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.0
    }
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    /// Position behind the last byte, counted from the connection's beginning.
    end: u64,
    wait: Wait,
}

/// Encoded replies in request order.
#[derive(Default)]
pub struct Gate {
    buffer: Vec<u8>,
    /// Position of the first byte of `buffer`.
    base: u64,
    /// Position behind the last byte that was sent.
    sent: u64,
    /// Position behind the last byte that was released.
    released: u64,
    marks: VecDeque<Mark>,
}

/// Room that an idle connection may keep, in bytes.
const KEPT_BYTES_MAX: usize = 512;

impl Gate {
    /// Where replies are appended; `mark` must follow.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// What was appended since the last mark waits for `wait`, and for whatever bytes before it do.
    pub fn mark(&mut self, wait: Wait) {
        let end = self.base + self.buffer.len() as u64;
        match self.marks.back_mut() {
            Some(last) if wait <= last.wait => last.end = end,
            None if wait == Wait::NONE => self.released = end,
            _ => self.marks.push_back(Mark { end, wait }),
        }
    }

    /// The running turn was queued at `lsn`.
    pub fn sealed(&mut self, lsn: u64) {
        for mark in self.marks.iter_mut().rev() {
            if mark.wait != Wait::TURN {
                break;
            }
            mark.wait = Wait::lsn(lsn);
        }
    }

    /// Whether bytes wait for the running turn.
    pub fn waits_for_turn(&self) -> bool {
        self.marks
            .back()
            .is_some_and(|mark| mark.wait == Wait::TURN)
    }

    /// The position that the first held bytes wait for.
    pub fn next_lsn(&self) -> Option<u64> {
        self.marks.front().and_then(|mark| mark.wait.position())
    }

    /// Everything up to `released_lsn` may leave; `u64::MAX`: everything.
    pub fn release(&mut self, released_lsn: u64) -> Released<'_> {
        while let Some(mark) = self.marks.front() {
            let open = match mark.wait.position() {
                Some(lsn) => lsn <= released_lsn,
                None => released_lsn == u64::MAX,
            };
            if !open {
                break;
            }
            self.released = mark.end;
            self.marks.pop_front();
        }
        let start = (self.sent - self.base) as usize;
        let end = (self.released - self.base) as usize;
        Released(&self.buffer[start..end])
    }

    /// So many released bytes were sent.
    pub fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
        assert!(self.sent <= self.released, "only released bytes are sent");
        let done = (self.sent - self.base) as usize;
        if done == self.buffer.len() {
            self.buffer.clear();
            self.buffer.shrink_to(KEPT_BYTES_MAX);
            self.base = self.sent;
        } else if done >= self.buffer.len() / 2 && done >= 64 * 1024 {
            self.buffer.drain(..done);
            self.base = self.sent;
        }
    }

    /// Bytes that wait for the disk.
    pub fn held_bytes(&self) -> usize {
        (self.base + self.buffer.len() as u64 - self.released) as usize
    }

    /// Bytes that wait for the client to read.
    pub fn unread_bytes(&self) -> usize {
        (self.released - self.sent) as usize
    }

    /// Whether nothing is left to send.
    pub fn is_empty(&self) -> bool {
        self.base + self.buffer.len() as u64 == self.sent
    }

    /// Memory in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.buffer.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(gate: &mut Gate, bytes: &[u8], wait: Wait) {
        gate.buffer().extend_from_slice(bytes);
        gate.mark(wait);
    }

    #[test]
    fn nothing_leaves_before_its_position_is_durable() {
        let mut gate = Gate::default();
        reply(&mut gate, b"a", Wait::NONE);
        reply(&mut gate, b"b", Wait::lsn(5));
        reply(&mut gate, b"c", Wait::NONE);
        reply(&mut gate, b"d", Wait::TURN);
        assert_eq!(gate.release(4).bytes(), b"a");
        gate.sent(1);
        assert_eq!(gate.release(5).bytes(), b"bc");
        gate.sealed(6);
        assert_eq!(gate.release(5).bytes(), b"bc");
        assert_eq!(gate.held_bytes(), 1);
        gate.sent(2);
        assert_eq!(gate.release(6).bytes(), b"d");
        gate.sent(1);
        assert!(gate.is_empty());
    }

    #[test]
    fn without_syncs_everything_leaves_at_once() {
        let mut gate = Gate::default();
        reply(&mut gate, b"a", Wait::TURN);
        assert_eq!(gate.release(u64::MAX).bytes(), b"a");
    }
}
