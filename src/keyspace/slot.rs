//! The tables of a shard: one directory of segments per (database id, slot).
//!
//! Always true: what a database counts is the sum over its slots: the keys that are here, and those
//! that are asleep, in the store alone. A deleted key stays as a tombstone, invisible to `get`,
//! scans and counts, until the store has seen its deletion. So a key that the table does not know
//! is as the store has it, and where nothing is asleep there is no such key.

use std::ops::Range;

use bytes::BytesMut;
use rand::Rng;

use super::directory::{Place, SlotTable};
use super::entry::{DIRTY, INLINE_TEXT_BYTES_MAX, TOMBSTONE};
use super::evict::{Hand, Pinned};
use super::segment::{Given, Segment, ShortText, Tally};
use super::{EntryRef, EntryState, HashMut, Key, Value, ValueRef, parse_counter};

/// The logged identity of a database; SELECT's numbers are mapped to it elsewhere.
pub type DatabaseId = u32;

/// A string may have this share of its length as room behind its end.
const STRING_SPARE_SHARE: usize = 8;

/// What the table knows about a key.
pub enum Presence<'a> {
    /// It is here.
    Live(EntryRef<'a>),
    /// It was deleted, and the store may still have it.
    Tombstone,
    /// The table does not know it.
    Absent,
}

/// The place of a live entry, until something is put, removed or evicted.
#[derive(Clone, Copy, Debug)]
pub struct Spot {
    database: u32,
    slot_index: u32,
    place: Place,
}

/// What a draw of a key gives.
pub enum Drawn<'a> {
    /// An entry that is here.
    Here(EntryRef<'a>),
    /// Some key of this slot that is not here.
    Asleep(u16),
}

/// The tables of one database. A dropped one is handed out, and freed where it is dropped.
pub struct Database {
    pub(super) id: DatabaseId,
    pub(super) tables: Box<[Option<Box<SlotTable>>]>,
    pub(super) tally: Tally,
    /// Bytes that stay when everything else is evicted.
    skeleton_bytes: usize,
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
    /// Where a sweep took tombstones or hashes that have to be tidied up: database id, slot, and
    /// the bucket to go on from.
    pub(super) unsettled: Vec<(DatabaseId, u16, u32)>,
    /// The same for the sweep that runs.
    pub(super) unsettled_by_sweep: Vec<(DatabaseId, u16, u32)>,
    /// Nobody knows yet what is asleep: any key that is not here may be.
    uncounted: bool,
    pub(super) has_parts: bool,
    pub(super) hand: Hand,
    /// What has to stay, however often it was asked for.
    pub(super) pinned: Pinned,
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
            uncounted: false,
            has_parts: false,
            hand: Hand::default(),
            pinned: Pinned::default(),
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

    /// Where the live entry of a key is. Looking for it is what costs: whoever uses an entry more
    /// than once asks for its place.
    #[inline]
    pub(super) fn spot(&self, database: DatabaseId, key: &Key) -> Option<Spot> {
        self.seek(database, key).map(|(spot, _)| spot)
    }

    /// The live entry of a key, and where it is.
    #[inline]
    pub(super) fn seek(&self, database: DatabaseId, key: &Key) -> Option<(Spot, EntryRef<'_>)> {
        let (database, slot_index) = (
            self.database_place(database).ok()?,
            self.slot_index(key.slot),
        );
        let table = self.databases[database]
            .tables
            .get(slot_index)?
            .as_deref()?;
        let (place, entry) = table.seek(key, self.running_sweep())?;
        let spot = Spot {
            database: database as u32,
            slot_index: slot_index as u32,
            place,
        };
        (entry.raw.kind() != TOMBSTONE).then_some((spot, entry))
    }

    /// The live entry of a key, if it is where it once was.
    #[inline]
    pub(super) fn still_at(
        &self,
        spot: Spot,
        database: DatabaseId,
        key: &Key,
    ) -> Option<EntryRef<'_>> {
        let known = self.databases.get(spot.database as usize)?;
        let table = known.tables.get(self.slot_index(key.slot))?.as_deref()?;
        let entry = table.still_at(spot.place, key, self.running_sweep())?;
        (known.id == database && entry.raw.kind() != TOMBSTONE).then_some(entry)
    }

    /// The entry at a place.
    #[inline]
    pub(super) fn at(&self, spot: Spot) -> Option<EntryRef<'_>> {
        let database = self.databases.get(spot.database as usize)?;
        let table = database.tables[spot.slot_index as usize].as_deref()?;
        Some(table.entry(spot.place, self.running_sweep()))
    }

    /// Like `at`, and stamps the entry as used.
    #[inline]
    pub(super) fn at_touched(&mut self, spot: Spot) -> Option<EntryRef<'_>> {
        let (stamp, running) = (self.stamp, self.running_sweep());
        let database = self.databases.get_mut(spot.database as usize)?;
        let table = database.tables[spot.slot_index as usize].as_deref_mut()?;
        let segment = table.segment_mut(spot.place).0;
        segment.touch(spot.place.cell(), stamp);
        Some(table.entry(spot.place, running))
    }

    /// Like `get`, and tells a deleted key from one that the table does not know.
    #[inline]
    pub fn presence(&self, database: DatabaseId, key: &Key) -> Presence<'_> {
        let table = self.table(database, key.slot);
        let found = table.and_then(|table| table.seek(key, self.running_sweep()));
        match found {
            None => Presence::Absent,
            Some((_, entry)) if entry.raw.kind() == TOMBSTONE => Presence::Tombstone,
            Some((_, entry)) => Presence::Live(entry),
        }
    }

    /// Keys of a slot in a database, here or asleep.
    pub fn count(&self, slot: u16, database: DatabaseId) -> u64 {
        self.table(database, slot)
            .map_or(0, |table| table.tally.live as u64 + table.tally.asleep)
    }

    /// Keys of a database, here or asleep.
    pub fn count_db(&self, database: DatabaseId) -> u64 {
        self.database(database).map_or(0, |database| {
            database.tally.live as u64 + database.tally.asleep
        })
    }

    /// Live entries of a slot in a database that are here.
    pub(super) fn live_in_slot(&self, slot: u16, database: DatabaseId) -> u64 {
        self.table(database, slot)
            .map_or(0, |table| table.tally.live as u64)
    }

    /// Live entries that are here, of all databases.
    pub fn live(&self) -> u64 {
        self.databases
            .iter()
            .map(|database| database.tally.live as u64)
            .sum()
    }

    // ---- what is asleep ----------------------------------------------------------------------

    /// Whether a key of this slot that is not here may be in the store.
    #[inline]
    pub fn sleeps(&self, database: DatabaseId, slot: u16) -> bool {
        self.uncounted
            || self
                .table(database, slot)
                .is_some_and(|table| table.tally.asleep > 0)
    }

    /// Whether any key that is not here may be in the store.
    pub(super) fn any_asleep(&self) -> bool {
        let mut databases = self.databases.iter();
        self.uncounted || databases.any(|database| database.tally.asleep > 0)
    }

    /// From now on nobody knows what is asleep.
    pub(super) fn begin_uncounted(&mut self) {
        self.uncounted = true;
    }

    /// From now on exactly what `set_count` says is asleep.
    pub(super) fn end_uncounted(&mut self) {
        self.uncounted = false;
    }

    /// A slot has so many keys of a database, here or asleep; false if more than that are here.
    pub(super) fn set_count(&mut self, database: DatabaseId, slot: u16, keys: u64) -> bool {
        let live = self.live_in_slot(slot, database);
        let Some(asleep) = keys.checked_sub(live) else {
            return false;
        };
        if keys > 0 {
            self.with_table(database, slot, |table| table.tally.asleep = asleep);
        }
        true
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

    /// A key of the database, each with the same probability: an entry that is here, or the slot
    /// of one that is asleep.
    pub fn random<R: Rng + ?Sized>(&self, database: DatabaseId, rng: &mut R) -> Option<Drawn<'_>> {
        let database = self.database(database)?;
        let keys = database.tally.live as u64 + database.tally.asleep;
        if keys == 0 {
            return None;
        }
        let mut place = ((u128::from(rng.next_u64()) * u128::from(keys)) >> 64) as u64;
        for (slot, table) in self.slots.clone().zip(&database.tables) {
            let Some(table) = table else {
                continue;
            };
            let live = table.tally.live as u64;
            if place < live {
                let entry = table.nth(place as usize, self.running_sweep())?;
                return Some(Drawn::Here(entry));
            }
            if place < live + table.tally.asleep {
                return Some(Drawn::Asleep(slot));
            }
            place -= live + table.tally.asleep;
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

    /// What of them stays when everything is evicted, in bytes.
    pub fn skeleton_bytes(&self) -> usize {
        self.databases
            .iter()
            .map(|database| database.skeleton_bytes)
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
        let spot = self.spot(database, key)?;
        self.update_counter_at(spot, f)
    }

    /// The same for an entry whose place is known.
    #[inline]
    pub(super) fn update_counter_at<R>(
        &mut self,
        spot: Spot,
        f: impl FnOnce(&mut i64, u64) -> R,
    ) -> Option<R> {
        self.in_place(spot, |segment, cell, stamp| {
            segment.update_counter(cell, stamp, f)
        })
    }

    /// Overwrites a short string at a place with one of the same length; returns what was there.
    /// `None`, and no change, for any other entry.
    #[inline]
    pub(super) fn replace_text_at(&mut self, spot: Spot, text: &[u8]) -> Option<ShortText> {
        self.in_place(spot, |segment, cell, stamp| {
            segment.replace_text(cell, stamp, text)
        })
    }

    /// Changes an entry at a place, of which nothing but the dirty mark is counted.
    #[inline]
    fn in_place<R>(
        &mut self,
        spot: Spot,
        f: impl FnOnce(&mut Segment, usize, u8) -> Option<R>,
    ) -> Option<R> {
        let stamp = self.stamp;
        let database = self.databases.get_mut(spot.database as usize)?;
        let table = database.tables[spot.slot_index as usize].as_deref_mut()?;
        let (segment, tally) = table.segment_mut(spot.place);
        let before = segment.dirty();
        let result = f(segment, spot.place.cell(), stamp)?;
        let more = segment.dirty() - before;
        tally.dirty += more;
        database.tally.dirty += more;
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
        if let Some(spot) = self.spot(database, key) {
            return Some(self.set_at(spot, key, value, deadline_ms));
        }
        self.write(database, key, Given::from(value), deadline_ms);
        None
    }

    /// The same for an entry whose place is known.
    pub(super) fn set_at(
        &mut self,
        spot: Spot,
        key: &Key,
        value: Value,
        deadline_ms: u64,
    ) -> (Value, u64) {
        let stamp = self.stamp;
        let database = &mut self.databases[spot.database as usize];
        let table = database.tables[spot.slot_index as usize]
            .as_deref_mut()
            .expect("a place in a table that is there");
        let before = table.tally;
        let previous = table.change(spot.place, |segment, cell| {
            let deadline_before_ms = segment.raw(cell).deadline_ms();
            let previous = (segment.take_value(cell), deadline_before_ms);
            segment.overwrite(cell, key, Given::from(value), deadline_ms, stamp);
            previous
        });
        database.tally.replace(before, table.tally);
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
        self.has_parts |= matches!(&value, Value::Hash(hash) if !hash.is_whole());
        self.with_table(database, key.slot, |table| {
            table.insert(key, Given::from(value), deadline_ms, 0, stamp);
            table.tally.asleep = table.tally.asleep.saturating_sub(1);
        });
        true
    }

    /// Whether a hash may be here in part: one was, once.
    #[inline]
    pub(super) fn has_parts(&self) -> bool {
        self.has_parts
    }

    /// Whether the entry at a place is a hash that is here in part.
    #[inline]
    pub(super) fn is_in_part(&self, spot: Spot) -> bool {
        let value = |spot| self.at(spot).map(|entry| entry.value());
        self.has_parts && matches!(value(spot), Some(ValueRef::Hash(hash)) if !hash.is_whole())
    }

    /// The hash, to learn what the store has of it: that is no change. `None`: missing or not a
    /// hash.
    pub(super) fn hash_quietly(&mut self, database: DatabaseId, key: &Key) -> Option<HashMut<'_>> {
        self.hash_at(self.spot(database, key)?, false)
    }

    /// The fields of the hash at a key are going to be read.
    pub(super) fn await_fields(&mut self, database: DatabaseId, key: &Key) {
        if let Some(mut hash) = self.hash_quietly(database, key) {
            hash.await_all();
        }
    }

    /// Nobody reads the fields of the hash at a key any more.
    pub(super) fn await_fields_no_more(&mut self, database: DatabaseId, key: &Key) {
        if let Some(mut hash) = self.hash_quietly(database, key) {
            hash.await_no_more();
        }
    }

    /// The hash, to be changed; the entry becomes dirty. `None`: missing or not a hash.
    pub fn hash_mut(&mut self, database: DatabaseId, key: &Key) -> Option<HashMut<'_>> {
        self.hash_mut_at(self.spot(database, key)?)
    }

    /// The same for an entry whose place is known.
    pub(super) fn hash_mut_at(&mut self, spot: Spot) -> Option<HashMut<'_>> {
        self.hash_at(spot, true)
    }

    fn hash_at(&mut self, spot: Spot, changes: bool) -> Option<HashMut<'_>> {
        let (stamp, place) = (self.stamp, spot.place);
        let database = self.databases.get_mut(spot.database as usize)?;
        let table = database.tables[spot.slot_index as usize].as_deref_mut()?;
        let (segment, tally) = table.segment_mut(place);
        segment.hash_at(place.cell())?;
        if changes {
            let before = segment.dirty();
            segment.mark_dirty(place.cell());
            segment.touch(place.cell(), stamp);
            let more = segment.dirty() - before;
            tally.dirty += more;
            database.tally.dirty += more;
        }
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
        let text = fitted(text).freeze();
        self.put(database, key, Value::from_shared(text), deadline_ms);
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
        if self.change_live(database, key, Segment::erase).is_none() {
            return false;
        }
        self.with_table(database, key.slot, |table| table.tally.asleep += 1);
        true
    }

    /// Takes over the entries of the slots behind its own, where no sweep has begun.
    pub(super) fn append(&mut self, behind: Tables) {
        assert_eq!(self.slots.end, behind.slots.start, "neighbouring slots");
        let (before, more) = (self.slots.len(), behind.slots.len());
        self.has_parts |= behind.has_parts;
        self.slots.end = behind.slots.end;
        let mut behind = behind.databases;
        for id in behind
            .iter()
            .map(|database| database.id)
            .collect::<Vec<_>>()
        {
            if let Err(place) = self.database_place(id) {
                self.databases.insert(place, Database::new(id, before));
            }
        }
        for database in &mut self.databases {
            let place = behind.iter().position(|other| other.id == database.id);
            let other = match place {
                Some(place) => behind.swap_remove(place),
                None => Database::new(database.id, more),
            };
            database.append(other);
        }
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
            database.skeleton_bytes += table.tally.bytes;
            table
        });
        let before = table.tally;
        f(table);
        database.tally.replace(before, table.tally);
    }

    pub(super) fn database(&self, database: DatabaseId) -> Option<&Database> {
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
            skeleton_bytes: bytes,
            tally: Tally {
                bytes,
                ..Tally::default()
            },
        }
    }

    fn append(&mut self, behind: Database) {
        let mut tables = std::mem::take(&mut self.tables).into_vec();
        tables.extend(behind.tables);
        self.tables = tables.into_boxed_slice();
        self.tally.add(behind.tally);
        self.skeleton_bytes += behind.skeleton_bytes;
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

/// A string with little room behind its end, which nobody counts: as much as makes it cheap to
/// append again and again.
fn fitted(text: BytesMut) -> BytesMut {
    let spare_max = text.len() / STRING_SPARE_SHARE;
    // What is short lies in its entry anyway.
    if text.len() <= INLINE_TEXT_BYTES_MAX || text.capacity() - text.len() <= spare_max {
        return text;
    }
    let mut fitted = BytesMut::with_capacity(text.len() + spare_max);
    fitted.extend_from_slice(&text);
    fitted
}

#[cfg(test)]
#[path = "slot_tests.rs"]
mod tests;
