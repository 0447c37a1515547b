//! The sweep: hands dirty entries to the checkpoint, slice by slice, in the store's order: slot by
//! slot, first the keys, then the fields of hashes.
//!
//! A sweep has a number. A bucket remembers the last sweep that took something from it, and only
//! then its in-flight marks mean anything: so the end of a sweep needs no walk over what was taken.
//! Always true: a slice may end within a slot, however many keys it has, and within a hash; it goes
//! on behind the last hash that it gave, whatever happened to the table in between.

use std::cmp::Ordering;

use super::directory::{Bucket, Found, SlotTable};
use super::entry::{DIRTY, EntryRef, HASH, IN_FLIGHT, TOMBSTONE};
use super::slot::Database;
use super::{DatabaseId, Field, Hash, Tables, ValueRef};

/// Most fields of one hash that are given out in one piece.
const FIELDS_PER_PIECE_MAX: usize = 256;

/// A look at a clean slot is one step; an entry that is given costs so much more.
pub const STEPS_PER_ENTRY: usize = 16;

/// Where a sweep goes on.
#[derive(Debug)]
pub struct SweepCursor {
    slot: u16,
    database: DatabaseId,
    /// The next hash; 2^32 behind the last.
    hash: u64,
    pass: Pass,
    /// A pause is wanted behind this slot, whatever is given of it.
    pause_behind: Option<u16>,
    /// Something of the slot was given, and a hash among it.
    given: bool,
    hashes: bool,
    /// The last hash whose fields were given.
    within: Option<Within>,
}

/// What of a slot is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    Keys,
    Fields,
}

/// A hash whose fields were given.
#[derive(Debug)]
struct Within {
    hash32: u32,
    key: Box<[u8]>,
    /// Generation and field hash to go on from; `None`: all were given.
    next: Option<(u64, u32)>,
}

/// Why a sweep paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SweepPause {
    /// The budget is used up.
    Budget,
    /// Everything of this slot was given, some or where a pause was wanted.
    Slot(u16),
    /// Everything was given.
    End,
}

/// One entry that the sweep gives out, or a piece of a hash's fields.
pub struct Swept<'a> {
    /// Its slot.
    pub slot: u16,
    /// Its database id.
    pub database: DatabaseId,
    /// Its stored hash.
    pub hash32: u32,
    /// Its key.
    pub key: &'a [u8],
    /// The entry, or `None` for a deleted key.
    pub entry: Option<EntryRef<'a>>,
    /// The field hash from which fields are to be written; `None`: the key alone.
    fields_from: Option<u32>,
}

impl Swept<'_> {
    /// Fields are given, not the key.
    pub fn is_fields(&self) -> bool {
        self.fields_from.is_some()
    }

    /// The fields of a hash that are to be written, in order: field hash, name, the field or `None`
    /// where it was removed, and when it was due as far as the store knows (0: never).
    pub fn for_each_field(&self, f: impl FnMut(u32, &[u8], Option<&Field>, u64)) {
        if let Some(ValueRef::Hash(hash)) = self.entry.map(|entry| entry.value())
            && let Some(from) = self.fields_from
        {
            hash.for_each_in_flight(from, FIELDS_PER_PIECE_MAX, f);
        }
    }
}

impl Tables {
    /// Entries that a sweep would take now.
    pub fn dirty_entries(&self) -> u64 {
        self.databases
            .iter()
            .map(|database| database.tally.dirty as u64)
            .sum()
    }

    /// Begins a sweep: everything dirty now will be given out. One sweep at a time.
    pub fn sweep_begin(&mut self) -> SweepCursor {
        assert!(!self.sweep_runs, "a sweep begins while another one runs");
        self.sweep += 1;
        self.sweep_runs = true;
        SweepCursor {
            slot: self.slots().start,
            database: 0,
            hash: 0,
            pass: Pass::Keys,
            pause_behind: None,
            given: false,
            hashes: false,
            within: None,
        }
    }

    /// Gives out dirty entries in the order of slot, database id, hash, then the changed fields of
    /// the slot's hashes in the same order, until about so many `steps` are used up (at most a
    /// segment more) or a slot is complete. They are in flight afterwards.
    pub fn sweep(
        &mut self,
        cursor: &mut SweepCursor,
        steps: &mut usize,
        mut f: impl FnMut(Swept<'_>),
    ) -> SweepPause {
        assert!(self.sweep_runs, "no sweep has begun");
        while cursor.slot < self.slots().end {
            if *steps == 0 {
                return SweepPause::Budget;
            }
            let given = match cursor.pass {
                Pass::Keys => self.sweep_keys(cursor, &mut f),
                Pass::Fields => {
                    let left = steps.div_ceil(STEPS_PER_ENTRY);
                    self.sweep_fields(cursor, left, &mut f)
                }
            };
            *steps = steps.saturating_sub(1 + STEPS_PER_ENTRY * given.unwrap_or(0));
            if given.is_none()
                && let Some(slot) = cursor.end_pass()
            {
                return SweepPause::Slot(slot);
            }
        }
        SweepPause::End
    }

    /// Ends the sweep, complete or not. `stored`: what was in flight is clean, and tombstones may
    /// go (`reclaim`). Otherwise it is dirty again.
    pub fn sweep_finished(&mut self, stored: bool) {
        assert!(self.sweep_runs, "a sweep ends that did not begin");
        self.sweep_runs = false;
        self.unsettled.append(&mut self.unsettled_by_sweep);
        if stored {
            return;
        }
        for database in &mut self.databases {
            for table in database.tables.iter_mut().flatten() {
                let before = table.tally;
                table.fail_sweep(self.sweep);
                database.tally.replace(before, table.tally);
            }
        }
    }

    /// Frees tombstones that the store has seen, passing about `budget` entries; true when none are
    /// left to free. May be called at any time; while a sweep runs, what it took stays.
    pub fn reclaim(&mut self, budget: usize) -> bool {
        let running_sweep = self.running_sweep();
        let mut left = budget.max(1);
        while left > 0 {
            let Some((id, slot, from)) = self.unsettled.pop() else {
                return true;
            };
            let index = self.slot_index(slot);
            let database = self
                .databases
                .binary_search_by_key(&id, |database| database.id);
            let Ok(database) = database.map(|place| &mut self.databases[place]) else {
                continue;
            };
            if let Some(table) = &mut database.tables[index] {
                let before = table.tally;
                let next = table.settle(running_sweep, from, &mut left);
                database.tally.replace(before, table.tally);
                self.unsettled.extend(next.map(|next| (id, slot, next)));
            }
        }
        self.unsettled.is_empty()
    }

    /// The database that the cursor has next, by place; the cursor is moved to it.
    fn sweep_database(&mut self, cursor: &mut SweepCursor) -> Option<&mut Database> {
        let next = self
            .databases
            .partition_point(|database| database.id < cursor.database);
        let database = self.databases.get_mut(next)?;
        if database.id != cursor.database {
            (cursor.database, cursor.hash, cursor.within) = (database.id, 0, None);
        }
        Some(database)
    }

    /// Takes the next dirty bucket, or moves the cursor on. Returns how much was given; `None` at
    /// the end of the slot.
    fn sweep_keys(
        &mut self,
        cursor: &mut SweepCursor,
        f: &mut impl FnMut(Swept<'_>),
    ) -> Option<usize> {
        let (sweep, index) = (self.sweep, self.slot_index(cursor.slot));
        let database = self.sweep_database(cursor)?;
        let table = database.tables[index]
            .as_deref_mut()
            .filter(|table| table.tally.dirty > 0);
        let dirty = table.and_then(|table| Some((table.next_dirty(cursor.hash)?, table)));
        let Some(((number, end), table)) = dirty else {
            return cursor.next_database();
        };
        let before = table.tally;
        let (slot, id) = (cursor.slot, cursor.database);
        let (taken, unsettled) = table.change_bucket(number, |bucket| {
            let taken = bucket.take_dirty(sweep);
            (taken, bucket.unsettled)
        });
        database.tally.replace(before, table.tally);
        cursor.hash = end;
        cursor.given |= !taken.is_empty();
        let bucket = &table.buckets[number as usize];
        for found in &taken {
            let entry = bucket.entry(found, sweep);
            let kind = entry.raw.kind();
            cursor.hashes |= kind == HASH;
            f(Swept {
                slot,
                database: id,
                hash32: found.hash32,
                key: entry.key(),
                entry: (kind != TOMBSTONE).then_some(entry),
                fields_from: None,
            });
        }
        if unsettled && self.unsettled_by_sweep.last() != Some(&(id, slot, 0)) {
            self.unsettled_by_sweep.push((id, slot, 0));
        }
        Some(taken.len())
    }

    /// Gives fields of the cursor's next bucket of hashes, or moves the cursor on. Returns how
    /// many; `None` at the end of the slot.
    fn sweep_fields(
        &mut self,
        cursor: &mut SweepCursor,
        budget: usize,
        f: &mut impl FnMut(Swept<'_>),
    ) -> Option<usize> {
        let (sweep, index) = (self.sweep, self.slot_index(cursor.slot));
        let database = self.sweep_database(cursor)?;
        let table = database.tables[index].as_deref();
        let (Some(table), Ok(hash32)) = (table, u32::try_from(cursor.hash)) else {
            return cursor.next_database();
        };
        let (number, end) = table.bucket_range(hash32);
        let bucket = &table.buckets[number as usize];
        let mut given = 0;
        if bucket.swept == sweep {
            for found in bucket.in_flight_hashes() {
                let entry = bucket.entry(&found, sweep);
                let left = budget.saturating_sub(given);
                let (more, paused) = cursor.give_fields(found.hash32, entry, left, f);
                given += more;
                if paused {
                    return Some(given);
                }
            }
        }
        (cursor.hash, cursor.within) = (end, None);
        Some(given)
    }
}

impl SweepCursor {
    /// The sweep is to pause behind this slot, whatever is given of it.
    pub fn pause_behind(&mut self, slot: u16) {
        self.pause_behind = Some(slot);
    }

    /// The database has nothing more to give in this pass.
    fn next_database(&mut self) -> Option<usize> {
        (self.hash, self.within) = (0, None);
        self.database = self.database.checked_add(1)?;
        Some(0)
    }

    /// The slot has nothing more to give in this pass. Returns the slot if it is complete, and some
    /// of it was given or a pause is wanted.
    fn end_pass(&mut self) -> Option<u16> {
        (self.database, self.hash, self.within) = (0, 0, None);
        if self.pass == Pass::Keys && self.hashes {
            self.pass = Pass::Fields;
            return None;
        }
        let slot = self.slot;
        (self.slot, self.pass, self.hashes) = (slot + 1, Pass::Keys, false);
        let given = std::mem::take(&mut self.given);
        (given || self.pause_behind == Some(slot)).then_some(slot)
    }

    /// Gives fields of a hash, unless all were given. Returns how many, and whether the slice ends
    /// here.
    fn give_fields(
        &mut self,
        hash32: u32,
        entry: EntryRef<'_>,
        budget: usize,
        f: &mut impl FnMut(Swept<'_>),
    ) -> (usize, bool) {
        let (key, value) = (entry.key(), entry.value());
        let ValueRef::Hash(hash) = value else {
            return (0, false);
        };
        let mut given = 0;
        let mut next = self.fields_from(hash32, key, hash);
        while let Some(from) = next {
            f(Swept {
                slot: self.slot,
                database: self.database,
                hash32,
                key,
                entry: Some(entry),
                fields_from: Some(from),
            });
            next = hash.for_each_in_flight(from, FIELDS_PER_PIECE_MAX, |_, _, _, _| given += 1);
            if given >= budget {
                self.within = Some(Within {
                    hash32,
                    key: key.into(),
                    next: next.map(|next| (hash.generation(), next)),
                });
                return (given, true);
            }
        }
        (given, false)
    }

    /// Where the fields of a hash go on; `None`: all were given.
    fn fields_from(&self, hash32: u32, key: &[u8], hash: &Hash) -> Option<u32> {
        let Some(within) = &self.within else {
            return Some(0);
        };
        let order = (hash32, key.len(), key).cmp(&(within.hash32, within.key.len(), &within.key));
        match (order, within.next) {
            (Ordering::Greater, _) => Some(0),
            (Ordering::Equal, Some((generation, next))) if generation == hash.generation() => {
                Some(next)
            }
            _ => None,
        }
    }
}

impl SlotTable {
    /// The first dirty bucket from a hash on, and the first hash behind it.
    fn next_dirty(&self, mut hash: u64) -> Option<(u32, u64)> {
        while let Ok(hash32) = u32::try_from(hash) {
            let (number, end) = self.bucket_range(hash32);
            if self.buckets[number as usize].dirty() > 0 {
                return Some((number, end));
            }
            hash = end;
        }
        None
    }
}

impl Bucket {
    /// Puts what is dirty in flight, in order. Older in-flight marks go.
    fn take_dirty(&mut self, sweep: u32) -> Vec<Found> {
        let mut taken = self.collect(|raw| raw.meta() & (DIRTY | IN_FLIGHT) != 0);
        taken.retain(|found| {
            let segment = self.segment_mut(found.segment);
            let (meta, kind) = {
                let raw = segment.raw_at(found.offset);
                (raw.meta(), raw.kind())
            };
            if meta & DIRTY == 0 {
                segment.change_flags(found.offset, 0, IN_FLIGHT);
                return false;
            }
            segment.change_flags(found.offset, IN_FLIGHT, DIRTY);
            segment.change_hash(found.offset, |hash| hash.begin_flight());
            self.unsettled |= kind == TOMBSTONE || kind == HASH;
            true
        });
        self.swept = sweep;
        self.sort(&mut taken);
        taken
    }

    /// The hashes that the sweep took, in order.
    fn in_flight_hashes(&self) -> Vec<Found> {
        let mut hashes = self.collect(|raw| raw.meta() & IN_FLIGHT != 0 && raw.kind() == HASH);
        self.sort(&mut hashes);
        hashes
    }
}
