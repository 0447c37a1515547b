//! Connections that wait for positions of the log.
//!
//! Always true: they are in the order of their positions. Those of a turn come with one position,
//! and turns come one after the other, so that most are added behind all others.

use std::collections::VecDeque;

use crate::shard::mailbox::ConnId;

/// Who waits for what.
#[derive(Debug, Default)]
pub(super) struct Waits(VecDeque<(u64, ConnId)>);

impl Waits {
    /// A connection waits for a position.
    pub(super) fn add(&mut self, lsn: u64, id: ConnId) {
        match self.0.back() {
            Some((last, _)) if *last > lsn => {
                let place = self.0.partition_point(|(other, _)| *other <= lsn);
                self.0.insert(place, (lsn, id));
            }
            _ => self.0.push_back((lsn, id)),
        }
    }

    /// The first position that somebody waits for.
    pub(super) fn first(&self) -> Option<u64> {
        self.0.front().map(|(lsn, _)| *lsn)
    }

    /// One that waits for a position up to this; it waits no more.
    pub(super) fn take(&mut self, until: u64) -> Option<ConnId> {
        if self.first()? > until {
            return None;
        }
        self.0.pop_front().map(|(_, id)| id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_less_comes_first() {
        let mut waits = Waits::default();
        let id = |index| ConnId { index, client: 7 };
        for (index, lsn) in [(1, 5), (2, 5), (3, 9), (4, 3), (5, 5), (6, 9)] {
            waits.add(lsn, id(index));
        }
        assert_eq!(waits.first(), Some(3));
        let mut taken = Vec::new();
        for until in [2, 4, 5, 8, 9] {
            while let Some(id) = waits.take(until) {
                taken.push((until, id.index));
            }
        }
        assert_eq!(taken, [(4, 4), (5, 1), (5, 2), (5, 5), (9, 3), (9, 6)]);
        assert_eq!(waits.first(), None);
    }
}
