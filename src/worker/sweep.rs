//! The shard's side of a checkpoint: hands over dirty entries as rows, slice by slice, between
//! turns.
//!
//! Always true: rows come out in ascending order, each as of a sealed turn: of a slot first the
//! keys, then the fields, then the hashes that are gone. Nothing but the databases of a slot is
//! kept from one slice to the next, so a slice is small however many keys one slot has.

use std::sync::mpsc::Sender;

use bytes::Bytes;

use crate::keyspace::codec::{put_field, put_value};
use crate::keyspace::owned::Retired;
use crate::keyspace::sweep::STEPS_PER_ENTRY;
use crate::keyspace::{Keyspace, SweepCursor, SweepPause, Swept, ValueRef};
use crate::shard::mailbox::{SweepSlice, SweepStep};
use crate::sim::{self, Fault};
use crate::store::checkpoint::{RowChange, Slice};
use crate::store::row::{DeadlineOf, KeyOf, RowKey};
use crate::worker::Worker;

/// A sweep under way.
pub(crate) struct Sweeping {
    cursor: SweepCursor,
    /// The cursor has come to its end.
    swept: bool,
    /// Hashes that are gone, whose rows were not given yet; ascending.
    retired: std::iter::Peekable<std::vec::IntoIter<Retired>>,
    /// The same, to be given back if the checkpoint fails.
    retired_all: Vec<Retired>,
    /// Rows of hashes that are gone may be given up to here.
    retired_to: Option<u16>,
    /// Databases of which keys of the cursor's slot were given.
    databases: Vec<u32>,
    /// Where values are made.
    value: Vec<u8>,
}

/// Steps per slice, as of 128 entries: a fraction of a millisecond. What a bucket has is not
/// divided, so most slices of a large table are a bucket.
const SWEEP_STEPS: usize = 128 * STEPS_PER_ENTRY;

/// A value of fewer bytes is copied out of the buffer in which it is made.
const COPIED_BYTES_MAX: usize = 4096;

impl Worker {
    /// Takes one step of a checkpoint; the shard is at home.
    pub(super) fn sweep(&mut self, step: SweepStep, reply: &Sender<SweepSlice>) {
        self.seal();
        let Some(keyspace) = &mut self.keyspace else {
            return;
        };
        let began_ns = self.clock.cpu_ns();
        let mut slice = SweepSlice::default();
        match step {
            SweepStep::Begin => {
                slice.expired_until_ms = keyspace.expired_until_ms();
                slice.stuck = keyspace.stuck();
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
                self.evicted_in_vain = 0;
                if let Some(sweeping) = self.sweeping.take() {
                    let clean = stored || sim::fault(Fault::SweepForgotten);
                    sweeping.finish(keyspace, clean);
                }
            }
        }
        let spent_ns = self.clock.cpu_ns().saturating_sub(began_ns);
        self.metrics.sweep_slice_ns.record(spent_ns);
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
            swept: false,
            retired: retired_all.clone().into_iter().peekable(),
            retired_all,
            retired_to: None,
            databases: Vec::new(),
            value: Vec::new(),
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
        let mut steps = SWEEP_STEPS;
        while steps > 0 {
            // Before the next slot's rows come those of hashes that are gone from earlier ones.
            self.give_retired(keyspace, &mut steps, &mut slice.slice);
            if steps > 0 && self.swept {
                slice.complete = true;
                return;
            }
            if steps > 0 {
                self.give_entries(keyspace, &mut steps, &mut slice.slice);
            }
        }
    }

    /// Gives entries until the steps are used up or the slot ends.
    fn give_entries(&mut self, keyspace: &mut Keyspace, steps: &mut usize, slice: &mut Slice) {
        if let Some(retired) = self.retired.peek() {
            self.cursor.pause_behind(retired.slot);
        }
        let (tables, databases) = (keyspace.tables_mut(), &mut self.databases);
        let value = &mut self.value;
        let pause = tables.sweep(&mut self.cursor, steps, |swept| {
            if databases.last() != Some(&swept.database) && !swept.is_fields() {
                databases.push(swept.database);
            }
            add(&swept, slice, value);
        });
        match pause {
            SweepPause::Budget => {}
            SweepPause::Slot(slot) => {
                self.give_counts(keyspace, slot, slice);
                self.retired_to = Some(slot);
            }
            SweepPause::End => (self.swept, self.retired_to) = (true, Some(u16::MAX)),
        }
    }

    /// Gives the counts of a slot that is complete.
    fn give_counts(&mut self, keyspace: &Keyspace, slot: u16, slice: &mut Slice) {
        for database in self.databases.drain(..) {
            let keys = keyspace.tables().count(slot, database);
            slice.counts.push(RowChange {
                key: RowKey::Count { slot, database }.encode(),
                value: (keys > 0).then(|| Bytes::copy_from_slice(&keys.to_le_bytes())),
            });
        }
    }

    /// Gives the retired hashes of slots that are complete.
    fn give_retired(&mut self, keyspace: &Keyspace, steps: &mut usize, slice: &mut Slice) {
        while *steps > 0
            && let Some(retired) = self
                .retired
                .next_if(|next| Some(next.slot) <= self.retired_to)
        {
            slice.rows.extend(retired_row(keyspace, &retired));
            *steps = steps.saturating_sub(STEPS_PER_ENTRY);
        }
    }
}

/// What was made in the buffer, which is empty afterwards.
fn made(buffer: &mut Vec<u8>) -> Bytes {
    if buffer.len() > COPIED_BYTES_MAX {
        return Bytes::from(std::mem::take(buffer));
    }
    let bytes = Bytes::copy_from_slice(buffer);
    buffer.clear();
    bytes
}

/// Adds the row of a key, or those of fields.
fn add(swept: &Swept<'_>, slice: &mut Slice, buffer: &mut Vec<u8>) {
    let of = KeyOf {
        slot: swept.slot,
        database: swept.database,
        hash: swept.hash32,
        key: swept.key,
    };
    if swept.is_fields() {
        return add_fields(swept, &of, slice, buffer);
    }
    let value = swept.entry.as_ref().map(|entry| {
        add_deadline(entry.deadline_ms(), &of, DeadlineOf::Key, slice);
        put_value(buffer, entry.value(), entry.deadline_ms());
        made(buffer)
    });
    slice.rows.push(RowChange {
        key: RowKey::Main(of).encode(),
        value,
    });
}

fn add_fields(swept: &Swept<'_>, of: &KeyOf<'_>, slice: &mut Slice, buffer: &mut Vec<u8>) {
    let Some(ValueRef::Hash(hash)) = swept.entry.as_ref().map(|entry| entry.value()) else {
        return;
    };
    let generation = hash.generation();
    swept.for_each_field(|hash, name, field| {
        let row = RowKey::Field {
            of: *of,
            generation,
            hash,
            field: name,
        };
        let value = field.map(|field| {
            let what = DeadlineOf::Field {
                generation,
                field: name,
            };
            add_deadline(field.due_ms(), of, what, slice);
            put_field(buffer, &field.value, field.expires_at_ms);
            made(buffer)
        });
        slice.rows.push(RowChange {
            key: row.encode(),
            value,
        });
    });
}

fn add_deadline(at_ms: u64, of: &KeyOf<'_>, what: DeadlineOf<'_>, slice: &mut Slice) {
    // A deadline beyond what a row key can hold never comes.
    if at_ms == 0 || at_ms >= crate::store::row::DEADLINE_MS_END {
        return;
    }
    let row = RowKey::Deadline {
        at_ms,
        slot: of.slot,
        database: of.database,
        key: of.key,
        of: what,
    };
    slice.deadlines.push(RowChange {
        key: row.encode(),
        value: Some(Bytes::new()),
    });
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
