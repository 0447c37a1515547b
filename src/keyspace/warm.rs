//! Bringing entries near before they are used. A look-up goes through four places in memory, each
//! of which says where the next one is; of a table that is larger than the processor's caches each
//! is a wait. The look-ups of a pipeline are done step by step for all its keys together, so that
//! the waits of one step overlap.
//!
//! Always true: nothing is changed, and nothing depends on what was read.

use std::hint::black_box;

use smallvec::SmallVec;

use super::directory::SlotTable;
use super::{Key, Keyspace, Tables};
use crate::limits::{PIPELINED_MAX, WARMED_KEY_BYTES_MAX, WARMED_KEYS_MAX};

/// Slot and hash of a key that was computed ahead of its command.
#[derive(Clone, Copy, Debug)]
pub struct Warmed {
    /// Where the key's bytes lie. They are the key's as long as the buffer that they are in is
    /// borrowed.
    at: usize,
    length: usize,
    slot: u16,
    hash: u64,
}

impl Warmed {
    fn of(key: &Key<'_>) -> Warmed {
        Warmed {
            at: key.bytes.as_ptr() as usize,
            length: key.bytes.len(),
            slot: key.slot,
            hash: key.hash,
        }
    }

    /// The key, if these are its very bytes.
    #[inline]
    pub(super) fn key<'k>(&self, bytes: &'k [u8]) -> Option<Key<'k>> {
        let same = bytes.as_ptr() as usize == self.at && bytes.len() == self.length;
        same.then_some(Key {
            bytes,
            slot: self.slot,
            hash: self.hash,
        })
    }
}

impl Keyspace {
    /// Brings near what commands on these keys will look at; `number` is the database's. Puts what
    /// was computed of each key into `warmed`.
    pub fn warm<'k>(
        &self,
        number: usize,
        keys: impl Iterator<Item = Option<&'k [u8]>>,
        warmed: &mut Vec<Option<Warmed>>,
    ) {
        let mut near: SmallVec<[Key<'k>; PIPELINED_MAX]> = SmallVec::new();
        warmed.extend(keys.map(|key| {
            let key = self.key(key.filter(|key| key.len() <= WARMED_KEY_BYTES_MAX)?);
            near.push(key);
            Some(Warmed::of(&key))
        }));
        self.tables().warm(self.databases().id(number), &near);
    }

    /// Brings near what a command looks at that has several keys.
    pub(super) fn warm_keys(&self, database: u32, keys: &[Key<'_>]) {
        if keys.len() > 1 {
            let keys = &keys[..keys.len().min(WARMED_KEYS_MAX)];
            for some in keys.chunks(PIPELINED_MAX) {
                self.tables().warm(database, some);
            }
        }
    }

    /// The running command's key, if it was warmed: to be forgotten again before the bytes of the
    /// request are let go.
    #[inline]
    pub fn set_warmed(&mut self, warmed: Option<Warmed>) {
        self.warmed = warmed;
    }
}

impl Tables {
    fn warm(&self, database: u32, keys: &[Key<'_>]) {
        let Some(database) = self.database(database) else {
            return;
        };
        // Each loop reads what the one before has found out; its reads do not wait for each other.
        let tables = keys.iter().filter_map(|key| {
            let table = database.tables.get(self.slot_index(key.slot))?;
            Some((key, table.as_deref()?))
        });
        let tables: SmallVec<[(&Key<'_>, &SlotTable); PIPELINED_MAX]> = tables.collect();
        let cells = tables
            .iter()
            .map(|(key, table)| (*table, table.first_cell(key)));
        let cells: SmallVec<[_; PIPELINED_MAX]> = cells.collect();
        let glanced = cells.iter().map(|(table, cell)| table.glance(*cell));
        black_box(glanced.fold(0, u8::wrapping_add));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_a_key_is_known_of_its_very_bytes_alone() {
        let request = b"one two one".to_vec();
        let key = Key::new(&request[..3], 7);
        let warmed = Warmed::of(&key);
        assert_eq!(warmed.key(&request[..3]), Some(key));
        assert_eq!(warmed.key(&request[..2]), None);
        assert_eq!(warmed.key(&request[4..7]), None);
        assert_eq!(warmed.key(&request[8..]), None, "the same text elsewhere");
    }
}
