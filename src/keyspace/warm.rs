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
use crate::limits::{PIPELINED_MAX, WARMED_KEY_BYTES_MAX};

impl Keyspace {
    /// Brings near what commands on these keys will look at; `number` is the database's.
    pub fn warm<'k>(&self, number: usize, keys: impl Iterator<Item = &'k [u8]>) {
        let keys = keys.filter(|key| key.len() <= WARMED_KEY_BYTES_MAX);
        let keys: SmallVec<[Key<'k>; PIPELINED_MAX]> = keys.map(|key| self.key(key)).collect();
        self.tables().warm(self.databases().id(number), &keys);
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
