//! The shard's side of a checkpoint: hands over dirty entries as rows, slice by slice, between
//! turns.
//!
//! Always true: rows come out in ascending order, each as of a sealed turn. The rows of one slot
//! are gathered and sorted, because a sweep gives entries and the store sorts kinds of rows apart.

use std::sync::mpsc::Sender;

use bytes::Bytes;

use crate::keyspace::codec::{put_field, put_value};
use crate::keyspace::owned::Retired;
use crate::keyspace::sweep::{SweepCursor, Swept};
use crate::keyspace::{Field, Keyspace, ValueRef};
use crate::shard::mailbox::{SweepSlice, SweepStep};
use crate::sim::{self, Fault};
use crate::store::checkpoint::{RowChange, Slice};
use crate::store::row::{DeadlineOf, KeyOf, RowKey};
use crate::worker::Worker;

/// A sweep under way.
pub(crate) struct Sweeping {
    cursor: SweepCursor,
    /// Hashes that are gone, whose rows were not given yet; ascending.
    retired: std::iter::Peekable<std::vec::IntoIter<Retired>>,
    /// The same, to be given back if the checkpoint fails.
    retired_all: Vec<Retired>,
    /// Rows of the slot that the cursor stands in.
    gathered: Gathered,
}

#[derive(Default)]
struct Gathered {
    slot: u16,
    rows: Vec<RowChange>,
    databases: Vec<u32>,
    deadlines: Vec<RowChange>,
}

/// Entries per slice: a fraction of a millisecond.
const SWEEP_ENTRIES: usize = 256;

impl Worker {
    /// Takes one step of a checkpoint; the shard is at home.
    pub(super) fn sweep(&mut self, step: SweepStep, reply: &Sender<SweepSlice>) {
        self.seal();
        let Some(keyspace) = &mut self.keyspace else {
            return;
        };
        let mut slice = SweepSlice::default();
        match step {
            SweepStep::Begin => {
                slice.expired_until_ms = keyspace.expired_until_ms();
                let map = keyspace.databases();
                slice.databases = Some((map.ids().to_vec(), map.next()));
                self.sweeping = Some(Sweeping::begin(keyspace));
            }
            SweepStep::Next => match &mut self.sweeping {
                Some(sweeping) => {
                    slice.retired = !sweeping.retired_all.is_empty();
                    sweeping.next(keyspace, &mut slice);
                }
                None => slice.complete = true,
            },
            SweepStep::Finished(stored) => {
                if let Some(sweeping) = self.sweeping.take() {
                    let clean = stored || sim::fault(Fault::SweepForgotten);
                    sweeping.finish(keyspace, clean);
                }
            }
        }
        // A checkpoint that was given up does not listen any more.
        let _ = reply.send(slice);
    }
}

impl Sweeping {
    /// A sweep of all that is dirty now; the running turn was sealed.
    pub(crate) fn begin(keyspace: &mut Keyspace) -> Sweeping {
        let retired_all = keyspace.take_retired();
        Sweeping {
            cursor: keyspace.tables_mut().sweep_begin(),
            retired: retired_all.clone().into_iter().peekable(),
            retired_all,
            gathered: Gathered::default(),
        }
    }

    /// The sweep is over; `stored`: the store has everything.
    pub(crate) fn finish(self, keyspace: &mut Keyspace, stored: bool) {
        keyspace.tables_mut().sweep_finished(stored);
        if !stored {
            keyspace.give_back_retired(self.retired_all);
        }
    }

    /// Gives the next slice.
    pub(crate) fn next(&mut self, keyspace: &mut Keyspace, slice: &mut SweepSlice) {
        let mut swept = Vec::new();
        let gathered = &mut self.gathered;
        let complete = keyspace
            .tables_mut()
            .sweep(&mut self.cursor, SWEEP_ENTRIES, |entry| {
                if entry.slot != gathered.slot {
                    swept.push(std::mem::take(gathered));
                    gathered.slot = entry.slot;
                }
                gathered.add(&entry);
            });
        if complete {
            swept.push(std::mem::take(gathered));
        }
        for slot in swept {
            self.give_retired(keyspace, slot.slot, slice);
            let retired = self.retired_of(slot.slot);
            slot.give(keyspace, retired, slice);
        }
        if complete {
            self.give_retired(keyspace, u16::MAX, slice);
        }
        slice.complete = complete;
    }

    /// Gives the retired hashes of slots before `slot`.
    fn give_retired(&mut self, keyspace: &Keyspace, slot: u16, slice: &mut SweepSlice) {
        while let Some(retired) = self.retired.next_if(|retired| retired.slot < slot) {
            slice.slice.rows.extend(retired_row(keyspace, &retired));
        }
    }

    fn retired_of(&mut self, slot: u16) -> Vec<Retired> {
        let mut of = Vec::new();
        while let Some(retired) = self.retired.next_if(|retired| retired.slot == slot) {
            of.push(retired);
        }
        of
    }
}

impl Gathered {
    fn add(&mut self, swept: &Swept<'_>) {
        if self.databases.last() != Some(&swept.database) {
            self.databases.push(swept.database);
        }
        let of = KeyOf {
            slot: swept.slot,
            database: swept.database,
            hash: swept.hash32,
            key: swept.key,
        };
        let Some(entry) = &swept.entry else {
            self.rows.push(RowChange {
                key: RowKey::Main(of).encode(),
                value: None,
            });
            return;
        };
        if !swept.continued {
            let mut value = Vec::new();
            put_value(&mut value, entry.value(), entry.deadline_ms());
            let key = RowKey::Main(of).encode();
            self.rows.push(RowChange {
                key,
                value: Some(Bytes::from(value)),
            });
            self.add_deadline(entry.deadline_ms(), &of, DeadlineOf::Key);
        }
        let ValueRef::Hash(hash) = entry.value() else {
            return;
        };
        let generation = hash.generation();
        swept.for_each_field(|hash, name, field| {
            let key = RowKey::Field {
                of,
                generation,
                hash,
                field: name,
            }
            .encode();
            let value = field.map(|field| {
                let mut value = Vec::new();
                put_field(&mut value, &field.value, field.expires_at_ms);
                Bytes::from(value)
            });
            self.rows.push(RowChange { key, value });
            let due_ms = field.map_or(0, Field::due_ms);
            self.add_deadline(
                due_ms,
                &of,
                DeadlineOf::Field {
                    generation,
                    field: name,
                },
            );
        });
    }

    fn add_deadline(&mut self, at_ms: u64, of: &KeyOf<'_>, what: DeadlineOf<'_>) {
        // A deadline beyond what a row key can hold never comes.
        if at_ms == 0 || at_ms >= crate::store::row::DEADLINE_MS_END {
            return;
        }
        let KeyOf {
            slot,
            database,
            key,
            ..
        } = *of;
        let key = RowKey::Deadline {
            at_ms,
            slot,
            database,
            key,
            of: what,
        }
        .encode();
        self.deadlines.push(RowChange {
            key,
            value: Some(Bytes::new()),
        });
    }

    /// Gives the rows of a slot that is complete.
    fn give(mut self, keyspace: &Keyspace, retired: Vec<Retired>, slice: &mut SweepSlice) {
        self.databases.sort_unstable();
        self.databases.dedup();
        for database in self.databases {
            let keys = keyspace.tables().count(self.slot, database);
            let value = (keys > 0).then(|| Bytes::copy_from_slice(&keys.to_le_bytes()));
            let key = RowKey::Count {
                slot: self.slot,
                database,
            }
            .encode();
            slice.slice.counts.push(RowChange { key, value });
        }
        self.rows.extend(
            retired
                .iter()
                .filter_map(|retired| retired_row(keyspace, retired)),
        );
        self.rows.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        self.rows.dedup_by(|later, first| later.key == first.key);
        let Slice {
            rows, deadlines, ..
        } = &mut slice.slice;
        rows.append(&mut self.rows);
        deadlines.append(&mut self.deadlines);
    }
}

/// The row of a hash that is gone, unless it lives after all.
fn retired_row(keyspace: &Keyspace, retired: &Retired) -> Option<RowChange> {
    let Retired {
        slot,
        database,
        hash32,
        key,
        generation,
    } = retired;
    let live = keyspace
        .tables()
        .get(*database, &keyspace.key_of(*database, key));
    if let Some(ValueRef::Hash(hash)) = live.map(|entry| entry.value())
        && hash.generation() == *generation
    {
        return None;
    }
    let of = KeyOf {
        slot: *slot,
        database: *database,
        hash: *hash32,
        key,
    };
    let key = RowKey::Retired {
        of,
        generation: *generation,
    }
    .encode();
    Some(RowChange {
        key,
        value: Some(Bytes::new()),
    })
}
