//! Deadlines of which the store reminds although they are over: their keys have another one by
//! now, or none, or are gone. The sweep that takes such a key lets the reminder be removed.
//!
//! Always true: what is noted of a key is the first deadline that it lost since a sweep took it,
//! because the store knows no later one. A note may be of a deadline that never came to the store:
//! then nothing is removed. One that is close is not noted: its reminder goes when its time comes.

use hashbrown::HashMap;

use crate::limits::DEADLINE_CLOSE_MS;

/// Database id, slot, and upper half of the hash: of two keys with the same, one is noted.
type Place = (u32, u16, u32);

/// The notes of a shard.
#[derive(Debug, Default)]
pub struct Moved {
    notes: HashMap<u32, HashMap<(u16, u32), u64>>,
    /// What the running sweep took.
    taken: HashMap<Place, u64>,
}

impl Moved {
    /// Whether it is worth a note that the deadline `before_ms` became `after_ms`.
    pub fn concerns(before_ms: u64, after_ms: u64, now_ms: u64) -> bool {
        before_ms != after_ms && before_ms > now_ms.saturating_add(DEADLINE_CLOSE_MS)
    }

    /// A key lost the deadline `at_ms`.
    pub fn note(&mut self, (database, slot, hash32): Place, at_ms: u64) {
        let notes = self.notes.entry(database).or_default();
        notes.entry((slot, hash32)).or_insert(at_ms);
    }

    /// The sweep takes a key: of which deadline the store may have a reminder.
    pub fn take(&mut self, place: Place) -> Option<u64> {
        let (database, slot, hash32) = place;
        let at_ms = self.notes.get_mut(&database)?.remove(&(slot, hash32))?;
        self.taken.insert(place, at_ms);
        Some(at_ms)
    }

    /// The sweep is over; `stored`: the reminders that it took are removed.
    pub fn finish(&mut self, stored: bool) {
        let taken = std::mem::take(&mut self.taken);
        if stored {
            return;
        }
        for ((database, slot, hash32), at_ms) in taken {
            // The store has not heard of what was noted meanwhile.
            let notes = self.notes.entry(database).or_default();
            notes.insert((slot, hash32), at_ms);
        }
    }

    /// A database is gone, and with it all that reminds of its keys.
    pub fn forget(&mut self, database: u32) {
        self.notes.remove(&database);
        self.taken.retain(|(of, ..), _| *of != database);
    }

    /// Memory, in bytes.
    pub fn bytes(&self) -> usize {
        let notes: usize = self.notes.values().map(HashMap::capacity).sum();
        (notes + self.taken.capacity()) * (size_of::<(Place, u64)>() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = (0, 5, 7);

    #[test]
    fn the_first_deadline_that_is_lost_is_the_one_that_the_store_has() {
        let mut moved = Moved::default();
        moved.note(PLACE, 10);
        moved.note(PLACE, 20);
        assert_eq!((moved.take(PLACE), moved.take(PLACE)), (Some(10), None));
        moved.finish(true);
        assert_eq!(moved.take(PLACE), None);
    }

    #[test]
    fn a_sweep_that_failed_takes_the_same_again() {
        let mut moved = Moved::default();
        moved.note(PLACE, 10);
        assert_eq!(moved.take(PLACE), Some(10));
        moved.note(PLACE, 20);
        moved.finish(false);
        assert_eq!(moved.take(PLACE), Some(10));
        moved.finish(false);
        moved.forget(0);
        assert_eq!(moved.take(PLACE), None);
    }

    #[test]
    fn a_database_that_is_gone_is_not_reminded_of_by_a_sweep_that_fails() {
        let mut moved = Moved::default();
        let of_another = (1, 5, 7);
        for (place, at_ms) in [(PLACE, 10), (of_another, 20)] {
            moved.note(place, at_ms);
            assert_eq!(moved.take(place), Some(at_ms));
        }
        moved.forget(0);
        moved.finish(false);
        assert_eq!(
            (moved.take(PLACE), moved.take(of_another)),
            (None, Some(20))
        );
    }

    #[test]
    fn what_is_close_is_not_worth_a_note() {
        let close = 1_000 + DEADLINE_CLOSE_MS;
        assert!(!Moved::concerns(close, 0, 1_000));
        assert!(Moved::concerns(close + 1, 0, 1_000));
        assert!(!Moved::concerns(close + 1, close + 1, 1_000));
    }
}
