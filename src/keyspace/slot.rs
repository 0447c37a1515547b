//! The tables of a shard: one directory of segments per (database id, slot).

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use rand::Rng;

use super::{EntryRef, HashMut, Key, SweepCursor, Swept, Value};

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

/// The tables of a database that was dropped; dropping this frees them.
pub struct Database {
    todo: (),
}

/// All entries of a contiguous range of slots.
pub struct Tables {
    slots: Range<u16>,
}

#[allow(unused_variables)]
impl Tables {
    /// Empty tables for `slots`.
    pub fn new(slots: Range<u16>) -> Tables {
        todo!()
    }
    /// The slots that are owned here.
    pub fn slots(&self) -> Range<u16> {
        self.slots.clone()
    }
    /// Sets the coarse clock that uses are stamped with from now on.
    pub fn set_stamp(&mut self, stamp: u8) {}
    /// The live entry of a key. Does not check the deadline, does not stamp.
    pub fn get(&self, database: DatabaseId, key: &Key) -> Option<EntryRef<'_>> {
        todo!()
    }
    /// Like `get`, and stamps the entry as used.
    pub fn get_touched(&mut self, database: DatabaseId, key: &Key) -> Option<EntryRef<'_>> {
        todo!()
    }
    /// Like `get`, and tells a deleted key from one that the table does not know.
    pub fn presence(&self, database: DatabaseId, key: &Key) -> Presence<'_> {
        todo!()
    }
    /// Gives a counter's value and deadline to `f`; `None` when the key is missing or not a
    /// counter. The entry becomes dirty if `f` changes the value.
    pub fn update_counter<R>(
        &mut self,
        database: DatabaseId,
        key: &Key,
        f: impl FnOnce(&mut i64, u64) -> R,
    ) -> Option<R> {
        todo!()
    }
    /// Sets value and deadline (0: none); returns what was there.
    pub fn set(
        &mut self,
        database: DatabaseId,
        key: &Key,
        value: Value,
        deadline_ms: u64,
    ) -> Option<(Value, u64)> {
        todo!()
    }
    /// Like `set`, without returning (and building) what was there.
    pub fn put(&mut self, database: DatabaseId, key: &Key, value: Value, deadline_ms: u64) {
        todo!()
    }
    /// Like `put` for a string (or its counter), copied from `bytes`.
    pub fn put_bytes(&mut self, database: DatabaseId, key: &Key, bytes: &[u8], deadline_ms: u64) {
        todo!()
    }
    /// Puts what the store has: the entry is clean. No change where the table knows the key.
    pub fn load(
        &mut self,
        database: DatabaseId,
        key: &Key,
        value: Value,
        deadline_ms: u64,
    ) -> bool {
        todo!()
    }
    /// The hash, to be changed; the entry becomes dirty. `None`: missing or not a hash.
    pub fn hash_mut(&mut self, database: DatabaseId, key: &Key) -> Option<HashMut<'_>> {
        todo!()
    }
    /// Gives a string (a counter's or a cell's as well) to `f` to change in place; it is copied
    /// only when somebody shares it, and is an ordinary string afterwards. The deadline stays.
    pub fn edit_string<R>(
        &mut self,
        database: DatabaseId,
        key: &Key,
        f: impl FnOnce(&mut BytesMut) -> R,
    ) -> Option<R> {
        todo!()
    }
    /// The string of a key, shared when it is large. `None`: missing or a hash.
    pub fn string(&self, database: DatabaseId, key: &Key) -> Option<Bytes> {
        todo!()
    }
    /// Sets the deadline alone (0: none); false when the key is missing.
    pub fn set_deadline(&mut self, database: DatabaseId, key: &Key, deadline_ms: u64) -> bool {
        todo!()
    }
    /// Deletes the key, leaving a tombstone; returns what was there.
    pub fn remove(&mut self, database: DatabaseId, key: &Key) -> Option<(Value, u64)> {
        todo!()
    }
    /// Like `remove`, without returning what was there.
    pub fn delete(&mut self, database: DatabaseId, key: &Key) -> bool {
        todo!()
    }
    /// Drops a clean entry without a trace (it stays in the store); false when it is not clean.
    pub fn forget(&mut self, database: DatabaseId, key: &Key) -> bool {
        todo!()
    }
    /// Live entries of a slot in a database.
    pub fn count(&self, slot: u16, database: DatabaseId) -> u64 {
        todo!()
    }
    /// Live entries of a database.
    pub fn count_db(&self, database: DatabaseId) -> u64 {
        todo!()
    }
    /// The ids that have entries or tombstones, ascending.
    pub fn databases(&self) -> impl Iterator<Item = DatabaseId> {
        std::iter::empty()
    }
    /// Takes a database out, for the caller to free where it does not disturb.
    pub fn drop_database(&mut self, database: DatabaseId) -> Option<Box<Database>> {
        todo!()
    }
    /// Visits live entries of `slot` in hash order from `from_hash32` on, until at least `budget`
    /// were visited; entries of one hash are visited together. Returns the hash to go on from, or
    /// `None` at the end of the slot.
    pub fn scan_slot(
        &self,
        database: DatabaseId,
        slot: u16,
        from_hash32: u32,
        budget: usize,
        f: impl FnMut(EntryRef<'_>),
    ) -> Option<u32> {
        todo!()
    }
    /// Like `scan_slot`, going on into the next slots. Returns the next (slot, hash) or `None` at
    /// the end of the shard's last slot.
    pub fn scan(
        &self,
        database: DatabaseId,
        slot: u16,
        from_hash32: u32,
        budget: usize,
        f: impl FnMut(EntryRef<'_>),
    ) -> Option<(u16, u32)> {
        todo!()
    }
    /// A live entry of the database, each with the same probability.
    pub fn random<R: Rng + ?Sized>(
        &self,
        database: DatabaseId,
        rng: &mut R,
    ) -> Option<EntryRef<'_>> {
        todo!()
    }
    /// Memory of all tables, in bytes.
    pub fn bytes(&self) -> usize {
        todo!()
    }
    /// Entries that the next sweep would take now.
    pub fn dirty_entries(&self) -> u64 {
        todo!()
    }
    /// Begins a sweep: everything dirty now will be given out. One sweep at a time.
    pub fn sweep_begin(&mut self) -> SweepCursor {
        todo!()
    }
    /// Gives out dirty entries in the order of slot, database id, hash, until about `budget` were
    /// given; they are in flight afterwards. True when the sweep is complete.
    pub fn sweep(
        &mut self,
        cursor: &mut SweepCursor,
        budget: usize,
        f: impl FnMut(Swept<'_>),
    ) -> bool {
        todo!()
    }
    /// Ends the sweep. `stored`: what was in flight is clean, and tombstones may go (`reclaim`).
    /// Otherwise it is dirty again.
    pub fn sweep_finished(&mut self, stored: bool) {
        todo!()
    }
    /// Frees tombstones that the store has seen, a slice of about `budget` slots; true when done.
    pub fn reclaim(&mut self, budget: usize) -> bool {
        todo!()
    }
}
