//! The tables of a shard: one directory of segments per (database id, slot).
//!
//! Always true: what a database counts is the sum over its slots. A deleted key stays as a
//! tombstone, invisible to `get`, scans and counts, until the store has seen its deletion.

use std::ops::Range;

use bytes::BytesMut;
use rand::Rng;

use super::directory::{Place, SlotTable};
use super::entry::{DIRTY, TOMBSTONE};
use super::segment::{Given, Segment, Tally};
use super::{EntryRef, EntryState, HashMut, Key, Value, parse_counter};

/// The logged identity of a database; SELECT's numbers are mapped to it elsewhere.
pub type DatabaseId = u32;

/// What the table knows about a key.
pub enum Presence<'a> {
    /// It is here.
    Live(EntryRef<'a>),
    /// It was deleted, and the store may still have it.
    Tombstone,
    /// The table does not know it.
    Absent,
}

/// The tables of one database. A dropped one is handed out, and freed where it is dropped.
pub struct Database {
    pub(super) id: DatabaseId,
    pub(super) tables: Box<[Option<Box<SlotTable>>]>,
    pub(super) tally: Tally,
}

/// All entries of a contiguous range of slots.
pub struct Tables {
    slots: Range<u16>,
    /// In the order of their ids.
    pub(super) databases: Vec<Database>,
    stamp: u8,
    /// The number of the last sweep that began; 0: none did.
    pub(super) sweep: u32,
    pub(super) sweep_runs: bool,
    /// Where a sweep took tombstones or hashes that have to be tidied up.
    pub(super) unsettled: Vec<(DatabaseId, u16)>,
    /// The same for the sweep that runs.
    pub(super) unsettled_by_sweep: Vec<(DatabaseId, u16)>,
}

impl Tables {
    /// Empty tables for `slots`.
    pub fn new(slots: Range<u16>) -> Tables {
        Tables {
            slots,
            databases: Vec::new(),
            stamp: 0,
            sweep: 0,
            sweep_runs: false,
            unsettled: Vec::new(),
            unsettled_by_sweep: Vec::new(),
        }
    }

    /// The slots that are owned here.
    pub fn slots(&self) -> Range<u16> {
        self.slots.clone()
    }

    /// Sets the coarse clock (of any unit, wrapping) that uses are stamped with from now on.
    pub fn set_stamp(&mut self, stamp: u8) {
        self.stamp = stamp;
    }

    // ---- reads -------------------------------------------------------------------------------

    /// The live entry of a key. Does not check the deadline, does not stamp.
    #[inline]
    pub fn get(&self, database: DatabaseId, key: &Key) -> Option<EntryRef<'_>> {
        match self.presence(database, key) {
            Presence::Live(entry) => Some(entry),
            _ => None,
        }
    }

    /// Like `get`, and stamps the entry as used.
    pub fn get_touched(&mut self, database: DatabaseId, key: &Key) -> Option<EntryRef<'_>> {
        let (stamp, running) = (self.stamp, self.running_sweep());
        let table = self.table_mut(database, key.slot)?;
        let place = table.find(key)?;
        table.segment_mut(place).0.touch(place.cell(), stamp);
        let table = &*table;
        (table.raw(place).kind() != TOMBSTONE).then(|| table.entry(place, running))
    }

    /// Like `get`, and tells a deleted key from one that the table does not know.
    #[inline]
    pub fn presence(&self, database: DatabaseId, key: &Key) -> Presence<'_> {
        let table = self.table(database, key.slot);
        let Some((table, place)) = table.and_then(|table| Some((table, table.find(key)?))) else {
            return Presence::Absent;
        };
        match table.raw(place).kind() {
            TOMBSTONE => Presence::Tombstone,
            _ => Presence::Live(table.entry(place, self.running_sweep())),
        }
    }

    /// Live entries of a slot in a database.
    pub fn count(&self, slot: u16, database: DatabaseId) -> u64 {
        self.table(database, slot)
            .map_or(0, |table| table.tally.live as u64)
    }

    /// Live entries of a database.
    pub fn count_db(&self, database: DatabaseId) -> u64 {
        self.database(database)
            .map_or(0, |database| database.tally.live as u64)
    }

    /// The ids that have entries or tombstones (or had some since they were last dropped),
    /// ascending.
    pub fn databases(&self) -> impl Iterator<Item = DatabaseId> {
        self.databases.iter().map(|database| database.id)
    }

    /// Visits live entries of `slot` in hash order from `from_hash32` on, until at least `budget`
    /// were visited; entries of one hash are visited together. Returns the hash to go on from, or
    /// `None` at the end of the slot. A key that stays is visited, whatever happens in between.
    pub fn scan_slot(
        &self,
        database: DatabaseId,
        slot: u16,
        from_hash32: u32,
        budget: usize,
        mut f: impl FnMut(EntryRef<'_>),
    ) -> Option<u32> {
        let table = self.table(database, slot)?;
        table
            .scan(from_hash32, budget, self.running_sweep(), &mut f)
            .1
    }

    /// Like `scan_slot`, going on into the next slots. Returns the next (slot, hash) or `None` at
    /// the end of the last slot that is owned here.
    pub fn scan(
        &self,
        database: DatabaseId,
        slot: u16,
        from_hash32: u32,
        budget: usize,
        mut f: impl FnMut(EntryRef<'_>),
    ) -> Option<(u16, u32)> {
        let (mut visited, mut from) = (0, from_hash32);
        for slot in slot.max(self.slots.start)..self.slots.end {
            if visited >= budget.max(1) {
                return Some((slot, from));
            }
            if let Some(table) = self.table(database, slot) {
                let rest = budget.max(1) - visited;
                let (more, next) = table.scan(from, rest, self.running_sweep(), &mut f);
                if let Some(next) = next {
                    return Some((slot, next));
                }
                visited += more;
            }
            from = 0;
        }
        None
    }

    /// A live entry of the database, each with the same probability.
    pub fn random<R: Rng + ?Sized>(
        &self,
        database: DatabaseId,
        rng: &mut R,
    ) -> Option<EntryRef<'_>> {
        let database = self.database(database)?;
        let live = database.tally.live as u64;
        if live == 0 {
            return None;
        }
        let mut place = ((u128::from(rng.next_u64()) * u128::from(live)) >> 64) as usize;
        for table in database.tables.iter().flatten() {
            if place < table.tally.live {
                return table.nth(place, self.running_sweep());
            }
            place -= table.tally.live;
        }
        None
    }

    /// Memory of all tables, in bytes.
    pub fn bytes(&self) -> usize {
        self.databases
            .iter()
            .map(|database| database.tally.bytes)
            .sum()
    }

    // ---- writes ------------------------------------------------------------------------------

    /// Gives a counter's value and deadline to `f`; `None` when the key is missing or not a
    /// counter. The entry becomes dirty if `f` changes the value.
    #[inline]
    pub fn update_counter<R>(
        &mut self,
        database: DatabaseId,
        key: &Key,
        f: impl FnOnce(&mut i64, u64) -> R,
    ) -> Option<R> {
        let (stamp, index) = (self.stamp, self.slot_index(key.slot));
        let database = self.database_mut(database)?;
        let table = database.tables.get_mut(index)?.as_deref_mut()?;
        let place = table.find(key)?;
        let (segment, tally) = table.segment_mut(place);
        let old = segment.counter_at(place.cell())?;
        let mut new = old;
        let result = f(&mut new, segment.raw(place.cell()).deadline_ms());
        segment.touch(place.cell(), stamp);
        if new != old {
            let before = segment.dirty();
            segment.write_counter(place.cell(), new);
            let more = segment.dirty() - before;
            tally.dirty += more;
            database.tally.dirty += more;
        }
        Some(result)
    }

    /// Sets value and deadline (0: none); returns what was there. A hash has to be new or to come
    /// from this very key (`Hash::with_generation` otherwise); a `Bytes` should not keep a larger
    /// buffer alive.
    pub fn set(
        &mut self,
        database: DatabaseId,
        key: &Key,
        value: Value,
        deadline_ms: u64,
    ) -> Option<(Value, u64)> {
        let previous = self.take(database, key);
        self.write(database, key, Given::from(value), deadline_ms);
        previous
    }

    /// Like `set`, without returning (and building) what was there.
    pub fn put(&mut self, database: DatabaseId, key: &Key, value: Value, deadline_ms: u64) {
        self.write(database, key, Given::from(value), deadline_ms);
    }

    /// Like `put` for a string (or its counter), copied from `bytes`.
    pub fn put_bytes(&mut self, database: DatabaseId, key: &Key, bytes: &[u8], deadline_ms: u64) {
        let given = parse_counter(bytes).map_or(Given::Text(bytes), Given::Counter);
        self.write(database, key, given, deadline_ms);
    }

    /// Puts what the store has: the entry is clean. False, and no change, where the table knows
    /// the key already, as live or deleted.
    pub fn load(
        &mut self,
        database: DatabaseId,
        key: &Key,
        value: Value,
        deadline_ms: u64,
    ) -> bool {
        if !matches!(self.presence(database, key), Presence::Absent) {
            return false;
        }
        let stamp = self.stamp;
        self.with_table(database, key.slot, |table| {
            table.insert(key, Given::from(value), deadline_ms, 0, stamp);
        });
        true
    }

    /// The hash, to be changed; the entry becomes dirty. `None`: missing or not a hash.
    pub fn hash_mut(&mut self, database: DatabaseId, key: &Key) -> Option<HashMut<'_>> {
        let (stamp, index) = (self.stamp, self.slot_index(key.slot));
        let database = self.database_mut(database)?;
        let table = database.tables.get_mut(index)?.as_deref_mut()?;
        let place = table.find(key)?;
        let (segment, tally) = table.segment_mut(place);
        segment.hash_at(place.cell())?;
        let before = segment.dirty();
        segment.mark_dirty(place.cell());
        segment.touch(place.cell(), stamp);
        let more = segment.dirty() - before;
        tally.dirty += more;
        database.tally.dirty += more;
        let (hash, bytes) = segment.hash_at(place.cell())?;
        Some(HashMut::new(
            hash,
            [bytes, &mut tally.bytes, &mut database.tally.bytes],
        ))
    }

    /// Gives a string (a counter's or a cell's as well) to `f` to change in place; it is copied
    /// only when somebody shares it, and is an ordinary string afterwards. The deadline stays.
    /// `None`: missing or a hash.
    pub fn edit_string<R>(
        &mut self,
        database: DatabaseId,
        key: &Key,
        f: impl FnOnce(&mut BytesMut) -> R,
    ) -> Option<R> {
        if matches!(self.get(database, key)?.kind(), super::Kind::Hash) {
            return None;
        }
        let (value, deadline_ms) = self.take(database, key)?;
        let mut text = match value {
            Value::Counter(counter) => {
                BytesMut::from(itoa::Buffer::new().format(counter).as_bytes())
            }
            Value::String(bytes) => bytes.into(),
            Value::Cell(cell) => cell.state.into(),
            Value::Hash(_) => unreachable!("checked above"),
        };
        let result = f(&mut text);
        self.put(
            database,
            key,
            Value::from_shared(text.freeze()),
            deadline_ms,
        );
        Some(result)
    }

    /// Sets the deadline alone (0: none); false when the key is missing.
    pub fn set_deadline(&mut self, database: DatabaseId, key: &Key, deadline_ms: u64) -> bool {
        let stamp = self.stamp;
        self.change_live(database, key, |segment, cell| {
            segment.set_deadline(cell, deadline_ms, stamp);
        })
        .is_some()
    }

    /// Deletes the key, leaving a tombstone; returns what was there.
    pub fn remove(&mut self, database: DatabaseId, key: &Key) -> Option<(Value, u64)> {
        let previous = self.take(database, key)?;
        self.delete(database, key);
        Some(previous)
    }

    /// Like `remove`, without returning what was there.
    pub fn delete(&mut self, database: DatabaseId, key: &Key) -> bool {
        let stamp = self.stamp;
        self.change_live(database, key, |segment, cell| {
            segment.overwrite(cell, key, Given::Tombstone, 0, stamp);
        })
        .is_some()
    }

    /// Leaves a tombstone where the table does not know the key, for a deletion whose key is in
    /// the store alone; a live key is deleted.
    pub fn bury(&mut self, database: DatabaseId, key: &Key) {
        match self.presence(database, key) {
            Presence::Live(_) => {
                self.delete(database, key);
            }
            Presence::Tombstone => {}
            Presence::Absent => self.write(database, key, Given::Tombstone, 0),
        }
    }

    /// Drops a clean entry without a trace (it stays in the store); false when it is not clean.
    pub fn forget(&mut self, database: DatabaseId, key: &Key) -> bool {
        match self.get(database, key) {
            Some(entry) if entry.state() == EntryState::Clean => {}
            _ => return false,
        }
        self.change_live(database, key, Segment::erase).is_some()
    }

    /// Takes a database out, for the caller to free where it does not disturb.
    pub fn drop_database(&mut self, database: DatabaseId) -> Option<Database> {
        let place = self.database_place(database).ok()?;
        Some(self.databases.remove(place))
    }

    // ---- inside ------------------------------------------------------------------------------

    /// Moves the value out of a live entry; the caller overwrites the entry next.
    fn take(&mut self, database: DatabaseId, key: &Key) -> Option<(Value, u64)> {
        self.change_live(database, key, |segment, cell| {
            let deadline_ms = segment.raw(cell).deadline_ms();
            (segment.take_value(cell), deadline_ms)
        })
    }

    fn write(&mut self, database: DatabaseId, key: &Key, given: Given<'_>, deadline_ms: u64) {
        let stamp = self.stamp;
        self.with_table(database, key.slot, |table| match table.find(key) {
            Some(place) => table.change(place, |segment, cell| {
                segment.overwrite(cell, key, given, deadline_ms, stamp);
            }),
            None => table.insert(key, given, deadline_ms, DIRTY, stamp),
        });
    }

    fn change_live<R>(
        &mut self,
        database: DatabaseId,
        key: &Key,
        f: impl FnOnce(&mut Segment, usize) -> R,
    ) -> Option<R> {
        let index = self.slot_index(key.slot);
        let database = self.database_mut(database)?;
        let table = database.tables.get_mut(index)?.as_deref_mut()?;
        let place = table.find(key)?;
        if table.raw(place).kind() == TOMBSTONE {
            return None;
        }
        let before = table.tally;
        let result = table.change(place, f);
        database.tally.replace(before, table.tally);
        Some(result)
    }

    /// Gives the table of a slot to `f`, made if it does not exist.
    fn with_table(&mut self, database: DatabaseId, slot: u16, f: impl FnOnce(&mut SlotTable)) {
        assert!(
            self.slots.contains(&slot),
            "slot {slot} belongs to another shard"
        );
        let (index, count) = (self.slot_index(slot), self.slots.len());
        let place = self.database_place(database).unwrap_or_else(|place| {
            self.databases.insert(place, Database::new(database, count));
            place
        });
        let database = &mut self.databases[place];
        let table = database.tables[index].get_or_insert_with(|| {
            let table = Box::new(SlotTable::new());
            database.tally.add(table.tally);
            table
        });
        let before = table.tally;
        f(table);
        database.tally.replace(before, table.tally);
    }

    fn database(&self, database: DatabaseId) -> Option<&Database> {
        self.databases.get(self.database_place(database).ok()?)
    }

    fn database_mut(&mut self, database: DatabaseId) -> Option<&mut Database> {
        let place = self.database_place(database).ok()?;
        self.databases.get_mut(place)
    }

    /// Where a database is, or would be. Most often it is the first.
    #[inline]
    fn database_place(&self, database: DatabaseId) -> Result<usize, usize> {
        match self.databases.first() {
            Some(first) if first.id == database => Ok(0),
            _ => self
                .databases
                .binary_search_by_key(&database, |database| database.id),
        }
    }

    #[inline]
    fn table(&self, database: DatabaseId, slot: u16) -> Option<&SlotTable> {
        self.database(database)?
            .tables
            .get(self.slot_index(slot))?
            .as_deref()
    }

    fn table_mut(&mut self, database: DatabaseId, slot: u16) -> Option<&mut SlotTable> {
        let index = self.slot_index(slot);
        self.database_mut(database)?
            .tables
            .get_mut(index)?
            .as_deref_mut()
    }

    /// The place of a slot in `Database::tables`; out of range for a slot that is not owned here.
    #[inline]
    pub(super) fn slot_index(&self, slot: u16) -> usize {
        usize::from(slot).wrapping_sub(self.slots.start.into())
    }

    /// The number of the sweep that runs; 0: none.
    pub(super) fn running_sweep(&self) -> u32 {
        if self.sweep_runs { self.sweep } else { 0 }
    }
}

impl Database {
    fn new(id: DatabaseId, slots: usize) -> Database {
        let bytes = slots * size_of::<Option<Box<SlotTable>>>();
        let tables = (0..slots).map(|_| None).collect();
        Database {
            id,
            tables,
            tally: Tally {
                bytes,
                ..Tally::default()
            },
        }
    }

    /// The id under which it was logged.
    pub fn id(&self) -> DatabaseId {
        self.id
    }
}

impl Place {
    #[inline]
    fn cell(self) -> usize {
        self.cell as usize
    }
}
