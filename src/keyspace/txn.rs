//! A command's view of the keyspace: reads, and writes that are dropped whole when the command
//! answers with a Reject.
//!
//! Always true: a Txn remembers what its reply has to wait for: the last unsynced write of every
//! key that it looked at, found or not, and the running turn once it wrote. A key past its deadline
//! is never seen. Time does not move while a Txn lives.

use bytes::BytesMut;
use rand_xoshiro::Xoshiro256PlusPlus;
use smallvec::SmallVec;

use crate::keyspace::Hash;
use crate::keyspace::codec::write_part;
use crate::keyspace::cold::Unreadable;
use crate::keyspace::databases::{Databases, visible};
use crate::keyspace::entry::EntryRef;
use crate::keyspace::key::{self, Key, field_hash32};
use crate::keyspace::owned::{Keyspace, entry_due_ms};
use crate::keyspace::slot::{Spot, Tables};
use crate::keyspace::turn::Wait;
use crate::keyspace::undo::Before;
use crate::keyspace::value::{Kind, Value, ValueRef, parse_counter};
use crate::limits::{PIPELINED_MAX, STRING_BYTES_MAX};
use crate::number;
use crate::reply::{Reject, Reply};
use crate::sim::{self, Fault};

/// The keyspaces that a command may touch.
pub enum Owners<'a> {
    /// One shard: all keys of the command live in it.
    One(&'a mut Keyspace),
    /// Several shards, lent to one place, in ascending order of their slots.
    Several(&'a mut [Box<Keyspace>]),
}

/// A string as it lies in the table.
#[derive(Clone, Copy, Debug)]
pub enum Text<'a> {
    /// Its canonical decimal is the string.
    Integer(i64),
    /// The bytes.
    Bytes(&'a [u8]),
}

impl<'a> Text<'a> {
    /// Length in bytes.
    pub fn len(&self) -> usize {
        match self {
            Text::Integer(value) => number::decimal_bytes(*value),
            Text::Bytes(bytes) => bytes.len(),
        }
    }

    /// Whether it is the empty string.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A copy of the bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        match self {
            Text::Integer(value) => value.to_string().into_bytes(),
            Text::Bytes(bytes) => bytes.to_vec(),
        }
    }

    /// Gives the bytes to `f`, without a copy on the heap.
    pub fn with<R>(&self, f: impl FnOnce(&[u8]) -> R) -> R {
        match self {
            Text::Integer(value) => f(itoa::Buffer::new().format(*value).as_bytes()),
            Text::Bytes(bytes) => f(bytes),
        }
    }

    /// The integer that the string is, strictly.
    pub fn integer(&self) -> Option<i64> {
        match self {
            Text::Integer(value) => Some(*value),
            Text::Bytes(bytes) => number::parse_i64(bytes),
        }
    }

    /// Writes it as a bulk string.
    pub fn reply(&self, reply: &mut Reply<'_>) {
        match self {
            Text::Integer(value) => reply.bulk_integer(*value),
            Text::Bytes(bytes) => reply.bulk(bytes),
        }
    }

    /// A value as a string; `None` for a hash.
    pub fn of(value: ValueRef<'a>) -> Option<Text<'a>> {
        match value {
            ValueRef::Counter(number) => Some(Text::Integer(number)),
            ValueRef::String(bytes) => Some(Text::Bytes(bytes)),
            ValueRef::Cell(cell) => Some(match crate::keyspace::parse_counter(&cell.state) {
                Some(number) => Text::Integer(number),
                None => Text::Bytes(&cell.state),
            }),
            ValueRef::Hash(_) => None,
        }
    }
}

/// What WATCH has to remember of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchedKey {
    /// Database number.
    pub number: usize,
    /// Database id when the watch began.
    pub database: u32,
    /// The key.
    pub key: Box<[u8]>,
    /// Its version when the watch began.
    pub version: u64,
    /// Whether it existed when the watch began.
    pub existed: bool,
}

/// No fields of it are asleep.
fn is_whole(entry: &EntryRef<'_>) -> bool {
    !matches!(entry.value(), ValueRef::Hash(hash) if !hash.is_whole())
}

/// Bytes of a mutation besides key and value, at most.
const EFFECT_HEAD_BYTES: u64 = 96;

/// Keys of one command.
pub type Keys<'k> = SmallVec<[Key<'k>; PIPELINED_MAX]>;

/// A command's view of the keyspace.
pub struct Txn<'a> {
    pub(super) owners: Owners<'a>,
    number: usize,
    pub(super) database: u32,
    wait: Wait,
    effect_bytes: u64,
    /// What is asleep can be waited for.
    pub(super) patient: bool,
    /// Reads that found their key, and reads that did not.
    hits: u64,
    misses: u64,
}

impl<'a> Txn<'a> {
    /// A view on database `number` of these keyspaces.
    pub fn new(mut owners: Owners<'a>, number: usize) -> Txn<'a> {
        sim::begins();
        let first = owners.first();
        let database = first.databases.id(number);
        owners.each(|owner| {
            owner.turn.begin();
            owner.watched.begin();
            owner.unreadable = None;
            debug_assert!(owner.undo.is_empty(), "neither kept nor taken back");
        });
        Txn {
            owners,
            number,
            database,
            wait: Wait::NONE,
            effect_bytes: 0,
            patient: false,
            hits: 0,
            misses: 0,
        }
    }

    /// The same for a command that can be taken back and run again: where the keyspaces let it, it
    /// does not read the store for a key that is asleep, but finds nothing there, and
    /// [`Txn::unreadable`] says so. It has to be [put off](Txn::put_off) then.
    pub fn patient(owners: Owners<'a>, number: usize) -> Txn<'a> {
        let mut txn = Txn::new(owners, number);
        txn.patient = true;
        txn
    }

    /// Bytes that logging the writes so far takes at most, roughly.
    pub fn effect_bytes(&self) -> u64 {
        self.effect_bytes
    }

    /// The writes stay. Returns what the reply has to wait for.
    pub fn commit(mut self) -> Wait {
        self.owners.each(|owner| owner.undo.clear());
        let first = self.owners.first();
        first.stats.hits += self.hits;
        first.stats.misses += self.misses;
        self.wait
    }

    /// Every write is taken back, because a key has to be waited for: nothing has happened.
    pub fn put_off(self) {
        sim::put_off(&self.owners);
        self.take_back();
    }

    /// Every write is taken back, and the command runs again: what it found is counted then.
    pub fn take_back(mut self) {
        (self.hits, self.misses) = (0, 0);
        self.roll_back();
    }

    /// Every write is taken back. Returns what the reply has to wait for.
    pub fn roll_back(mut self) -> Wait {
        self.owners.each(|owner| {
            let mut undo = std::mem::take(&mut owner.undo);
            if !undo.is_empty() && !sim::fault(Fault::UndoSkipped) {
                undo.undo(owner);
            }
            undo.clear();
            owner.undo = undo;
        });
        let first = self.owners.first();
        first.stats.hits += self.hits;
        first.stats.misses += self.misses;
        let mut latest = Wait::NONE;
        for index in 0..self.owners.count() {
            let owner = self.owners.nth(index);
            owner.turn.rolled_back();
            owner.watched.rolled_back();
            latest = latest.max(owner.turn.wait_for_all());
        }
        if sim::fault(Fault::GateOffForRefusals) {
            return Wait::NONE;
        }
        // What it waited for in this turn may be gone with its own writes.
        if self.wait == Wait::TURN {
            latest
        } else {
            self.wait
        }
    }

    /// Something that the command looked at could not be read from the store: it has to be taken
    /// back. What is asleep goes before what failed.
    pub fn unreadable(&mut self) -> Option<Unreadable> {
        let mut unreadable = None;
        self.owners.each(|owner| {
            let Some(error) = owner.take_unreadable() else {
                return;
            };
            if unreadable.is_none() || error == Unreadable::Asleep {
                unreadable = Some(error);
            }
        });
        unreadable
    }

    /// The keyspaces.
    pub fn owners(&self) -> &Owners<'a> {
        &self.owners
    }

    /// What the reply has to wait for so far.
    pub fn wait(&self) -> Wait {
        self.wait
    }

    /// The turn's time, ms since the Unix epoch.
    pub fn now_ms(&self) -> u64 {
        self.owners.first_ref().now_ms
    }

    /// The database's number.
    pub fn database(&self) -> usize {
        self.number
    }

    /// Looks at another database from now on.
    ///
    /// # Errors
    /// No database has that number.
    pub fn select(&mut self, number: i64) -> Result<(), Reject> {
        let databases = &self.owners.first_ref().databases;
        if number < 0 || number >= databases.len() as i64 {
            return Err(Reject::db_index_out_of_range());
        }
        self.number = number as usize;
        self.database = databases.id(self.number);
        Ok(())
    }

    /// The databases.
    pub fn databases(&self) -> &Databases {
        &self.owners.first_ref().databases
    }

    /// The key with its slot and hash.
    pub fn key<'k>(&self, bytes: &'k [u8]) -> Key<'k> {
        self.owners.first_ref().key(bytes)
    }

    /// Several keys with their slots and hashes, in order. What is going to be looked at is
    /// brought near for all of them together.
    pub fn keys<'k>(&self, words: impl Iterator<Item = &'k [u8]>) -> Keys<'k> {
        let keys: Keys<'k> = words.map(|bytes| self.key(bytes)).collect();
        if let Owners::One(keyspace) = &self.owners {
            keyspace.warm_keys(self.database, &keys);
        }
        keys
    }

    /// The stored hash of a field name.
    pub fn field_hash(&self, field: &[u8]) -> u32 {
        field_hash32(field, self.owners.first_ref().seed)
    }

    /// 128 bits that tell one list of byte strings from another, on this data folder.
    pub fn digest<'p>(&self, parts: impl Iterator<Item = &'p [u8]>) -> u128 {
        key::digest(parts, self.owners.first_ref().seed)
    }

    /// The shard's random numbers, replayable from its seed.
    pub fn rng(&mut self) -> &mut Xoshiro256PlusPlus {
        &mut self.owners.first().rng
    }

    /// A token that was never used before and never will be.
    ///
    /// # Errors
    /// The next block of tokens is not durable yet.
    pub fn token(&mut self, key: &Key<'_>) -> Result<u64, Reject> {
        if self.patient && self.owner(key).may_want() {
            // A command that is put off draws none.
            self.look(key);
            let mut owners = 0..self.owners.count();
            if owners.any(|index| self.owners.nth(index).is_put_off()) {
                return Err(Reject::fixed("ERR the key is being read"));
            }
        }
        let token = self.owner(key).tokens.take();
        sim::token(key.bytes, token);
        token.ok_or(Reject::fixed(
            "TRYAGAIN the next block of tokens is not on disk yet",
        ))
    }

    fn owner(&mut self, key: &Key<'_>) -> &mut Keyspace {
        self.owners.of(key.slot)
    }

    /// Notes that the reply depends on `key`, and deletes what of it is past its deadline. Says
    /// where it is.
    #[inline]
    pub(super) fn look(&mut self, key: &Key<'_>) -> Option<Spot> {
        self.depend_on(key);
        self.find(key)
    }

    /// Notes that the reply tells something of `key`, and so waits for its last write.
    #[inline]
    fn depend_on(&mut self, key: &Key<'_>) {
        if !sim::fault(Fault::GateOffForReads) {
            let wait = self
                .owners
                .of(key.slot)
                .turn
                .wait_for(self.database, key.hash);
            self.wait = self.wait.max(wait);
        }
    }

    /// Like `look`, for a write: its reply waits for the write, and thus for all before it.
    /// Whoever does not write after all has to `depend_on` the key.
    #[inline]
    pub(super) fn find(&mut self, key: &Key<'_>) -> Option<Spot> {
        let database = self.database;
        let owner = self.owners.of(key.slot);
        let mut found = owner.tables.seek(database, key);
        if found.is_none() && owner.tables.sleeps(database, key.slot) {
            owner.wake_for(database, key, self.patient);
            found = owner.tables.seek(database, key);
        }
        let (spot, entry) = found?;
        let due_ms = entry_due_ms(&entry);
        if due_ms != 0 && due_ms <= owner.now_ms {
            owner.expire_key(database, key, usize::MAX);
            self.wait = self.wait.max(owner.turn.wait_for(database, key.hash));
            return owner.tables.spot(database, key);
        }
        Some(spot)
    }

    /// A write of a key whose logged bytes besides the key are so many at most.
    pub(super) fn wrote(&mut self, key: &Key<'_>, bytes: usize) {
        self.wait = Wait::TURN;
        self.effect_bytes += (key.bytes.len() + bytes) as u64 + EFFECT_HEAD_BYTES;
    }

    // ---- reading -----------------------------------------------------------------------------

    /// The entry of a key; not counted as a use (TYPE, TTL, EXISTS …).
    pub fn peek(&mut self, key: &Key<'_>) -> Option<EntryRef<'_>> {
        let spot = self.look(key)?;
        self.owner(key).tables.at(spot)
    }

    /// The entry of a key, used now.
    pub fn entry(&mut self, key: &Key<'_>) -> Option<EntryRef<'_>> {
        let spot = self.read(key)?;
        self.owners.of(key.slot).tables.at_touched(spot)
    }

    /// Where a key is that is read, which is counted.
    #[inline]
    pub(super) fn read(&mut self, key: &Key<'_>) -> Option<Spot> {
        let spot = self.look(key);
        match spot {
            Some(_) => self.hits += 1,
            None => self.misses += 1,
        }
        spot
    }

    /// The entry of a key, used now, and all fields if it is a hash.
    pub fn whole_entry(&mut self, key: &Key<'_>) -> Option<EntryRef<'_>> {
        let spot = self.read(key)?;
        self.waking_fields(key, spot)
            .at_touched(spot)
            .filter(is_whole)
    }

    /// The same, not counted as a use.
    pub fn peek_whole(&mut self, key: &Key<'_>) -> Option<EntryRef<'_>> {
        let spot = self.look(key)?;
        self.waking_fields(key, spot).at(spot).filter(is_whole)
    }

    /// The tables where a key is, whose fields are here if it is a hash, or are wanted.
    fn waking_fields(&mut self, key: &Key<'_>, spot: Spot) -> &mut Tables {
        let (database, patient) = (self.database, self.patient);
        let owner = self.owners.of(key.slot);
        if owner.tables.is_in_part(spot) {
            owner.wake_fields(database, key, patient);
        }
        &mut owner.tables
    }

    /// The value of a key.
    pub fn value(&mut self, key: &Key<'_>) -> Option<ValueRef<'_>> {
        self.entry(key).map(|entry| entry.value())
    }

    /// Whether a key exists.
    pub fn exists(&mut self, key: &Key<'_>) -> bool {
        self.peek(key).is_some()
    }

    /// The deadline of a key (0: none), or nothing if there is no key.
    pub fn deadline_ms(&mut self, key: &Key<'_>) -> Option<u64> {
        self.peek(key).map(|entry| entry.deadline_ms())
    }

    /// The string at a key.
    ///
    /// # Errors
    /// WRONGTYPE for a hash.
    pub fn string(&mut self, key: &Key<'_>) -> Result<Option<Text<'_>>, Reject> {
        match self.value(key) {
            None => Ok(None),
            Some(value) => Text::of(value).map(Some).ok_or(Reject::wrong_type()),
        }
    }

    /// The hash at a key with all its fields; expired ones are gone.
    ///
    /// # Errors
    /// WRONGTYPE for anything else.
    pub fn hash(&mut self, key: &Key<'_>) -> Result<Option<&Hash>, Reject> {
        let Some(spot) = self.read(key) else {
            return Ok(None);
        };
        match self
            .waking_fields(key, spot)
            .at_touched(spot)
            .map(|it| it.value())
        {
            Some(ValueRef::Hash(hash)) => Ok(Some(hash).filter(|hash| hash.is_whole())),
            _ => Err(Reject::wrong_type()),
        }
    }

    /// The hash at a key with those of its fields that are here, and the number of all.
    ///
    /// # Errors
    /// WRONGTYPE for anything else.
    pub fn hash_in_part(&mut self, key: &Key<'_>) -> Result<Option<&Hash>, Reject> {
        match self.value(key) {
            None => Ok(None),
            Some(ValueRef::Hash(hash)) => Ok(Some(hash)),
            Some(_) => Err(Reject::wrong_type()),
        }
    }

    // ---- writing keys ------------------------------------------------------------------------

    /// Sets value and deadline (0: none) of a key, whatever it was.
    pub fn put(&mut self, key: &Key<'_>, value: Value, deadline_ms: u64) {
        let spot = self.find(key);
        self.put_at(key, spot, value, deadline_ms);
    }

    /// The same for a key that was looked for.
    fn put_at(&mut self, key: &Key<'_>, spot: Option<Spot>, value: Value, deadline_ms: u64) {
        let value_bytes = value.heap_bytes();
        let database = self.database;
        let owner = self.owners.of(key.slot);
        if owner.unreadable.is_some() {
            // The store has something there that nobody can read: it is not written over.
            self.depend_on(key);
            return;
        }
        let (before, touched) = owner.put(database, key, spot, value, deadline_ms);
        owner.undo.push(touched, Before::Entry(before));
        self.wrote(key, value_bytes);
    }

    /// Sets a string and deadline (0: none) of a key, whatever it was.
    pub fn put_text(&mut self, key: &Key<'_>, bytes: &[u8], deadline_ms: u64) {
        let spot = self.find(key);
        let overwritten = spot.is_some_and(|spot| self.overwrite(key, spot, bytes, deadline_ms));
        if !overwritten {
            self.put_at(key, spot, Value::from_bytes(bytes), deadline_ms);
        }
    }

    /// Puts a string where one of the same form, size and deadline is: nothing else has to be
    /// known of either. False, and no change, where there is none.
    fn overwrite(&mut self, key: &Key<'_>, spot: Spot, bytes: &[u8], deadline_ms: u64) -> bool {
        let owner = self.owners.of(key.slot);
        if owner.unreadable.is_some() {
            // All of the command is going to be taken back.
            return false;
        }
        let tables = &mut owner.tables;
        let known_ms = tables.at(spot).map(|entry| entry.deadline_ms());
        if known_ms != Some(deadline_ms) {
            return false;
        }
        let before = match parse_counter(bytes) {
            Some(number) => tables
                .update_counter_at(spot, |value, _| std::mem::replace(value, number))
                .map(Before::Counter),
            None => tables.replace_text_at(spot, bytes).map(Before::Text),
        };
        let Some(before) = before else {
            return false;
        };
        self.changed_at(key, spot, before);
        self.wrote(key, bytes.len());
        true
    }

    /// Notes a write that left an entry where it was.
    #[inline]
    fn changed_at(&mut self, key: &Key<'_>, spot: Spot, before: Before) {
        let database = self.database;
        let owner = self.owners.of(key.slot);
        owner.written(database, key);
        let touched = owner.turn.touch_whole(database, key);
        owner.turn.lies_at(touched, spot);
        owner.undo.push(touched, before);
    }

    /// Deletes a key; whether there was one.
    pub fn delete(&mut self, key: &Key<'_>) -> bool {
        self.find(key);
        let database = self.database;
        let owner = self.owners.of(key.slot);
        let Some((before, touched)) = owner.remove(database, key) else {
            self.depend_on(key);
            return false;
        };
        owner.undo.push(touched, Before::Entry(Some(before)));
        self.wrote(key, 0);
        true
    }

    /// Sets the deadline of a key (0: none); whether there is the key.
    pub fn set_deadline(&mut self, key: &Key<'_>, deadline_ms: u64) -> bool {
        let Some(before_ms) = self.deadline_ms(key) else {
            return false;
        };
        let database = self.database;
        let owner = self.owners.of(key.slot);
        let touched = owner.set_deadline(database, key, deadline_ms);
        owner.undo.push(touched, Before::Deadline(before_ms));
        self.wrote(key, 0);
        true
    }

    /// Adds to the counter at a key (missing: 0), keeping its deadline.
    ///
    /// # Errors
    /// WRONGTYPE, not an integer, or overflow; nothing changes.
    pub fn add(&mut self, key: &Key<'_>, by: i64) -> Result<i64, Reject> {
        let spot = self.find(key);
        let tables = &mut self.owners.of(key.slot).tables;
        let updated = spot.and_then(|spot| {
            tables.update_counter_at(spot, |value, _| {
                let before = *value;
                *value = before.checked_add(by)?;
                Some((spot, before, *value))
            })
        });
        match updated {
            Some(Some((spot, before, after))) => {
                self.changed_at(key, spot, Before::Counter(before));
                self.wrote(key, 0);
                Ok(after)
            }
            Some(None) => {
                self.depend_on(key);
                Err(Reject::overflow())
            }
            None => self.add_slowly(key, by),
        }
    }

    /// A key that is missing, or a string that is not a counter's canonical form, or not a string.
    fn add_slowly(&mut self, key: &Key<'_>, by: i64) -> Result<i64, Reject> {
        let deadline_ms = self.deadline_ms(key).unwrap_or(0);
        let before = match self.string(key)? {
            None => 0,
            Some(text) => text.integer().ok_or(Reject::not_an_integer())?,
        };
        let after = before.checked_add(by).ok_or(Reject::overflow())?;
        self.put(key, Value::Counter(after), deadline_ms);
        Ok(after)
    }

    /// Writes `bytes` at `offset` of the string at a key (missing: empty), filling a gap with
    /// zeros; the deadline stays. Returns the string's length afterwards, in bytes.
    ///
    /// # Errors
    /// WRONGTYPE for a hash; a string that would become too long.
    pub fn write_part(
        &mut self,
        key: &Key<'_>,
        offset: usize,
        bytes: &[u8],
    ) -> Result<usize, Reject> {
        let before = self.string(key)?.map(|text| text.len());
        let end = offset
            .checked_add(bytes.len())
            .filter(|end| *end <= STRING_BYTES_MAX);
        let end = end.ok_or(Reject::string_too_long())?;
        let total = end.max(before.unwrap_or(0));
        let Some(before_total) = before else {
            let mut string = BytesMut::new();
            write_part(&mut string, offset, bytes, total);
            self.put(key, Value::from_shared(string.freeze()), 0);
            return Ok(total);
        };
        let database = self.database;
        let owner = self.owners.of(key.slot);
        // A counter or cell becomes an ordinary string: logged whole.
        let ordinary = matches!(
            owner.tables.get(database, key).map(|entry| entry.value()),
            Some(ValueRef::String(_))
        );
        if !ordinary {
            let mut string =
                BytesMut::from(&*self.string(key)?.map_or(Vec::new(), |text| text.to_vec()));
            let deadline_ms = self.deadline_ms(key).unwrap_or(0);
            write_part(&mut string, offset, bytes, total);
            self.put(key, Value::from_bytes(&string), deadline_ms);
            return Ok(total);
        }
        let overwritten = owner.tables.edit_string(database, key, |string| {
            let until = end.min(string.len()).max(offset.min(string.len()));
            let overwritten: Box<[u8]> = string[offset.min(string.len())..until].into();
            write_part(string, offset, bytes, total);
            overwritten
        });
        owner.written(database, key);
        let touched = owner.turn.touch_part(
            database,
            key,
            before_total.min(offset) as u32,
            (end - before_total.min(offset)) as u32,
        );
        let part = Before::Part {
            offset: offset.min(before_total),
            bytes: overwritten.unwrap_or_default(),
            total: before_total,
        };
        owner.undo.push(touched, part);
        self.wrote(key, bytes.len());
        Ok(total)
    }

    // ---- the whole keyspace ------------------------------------------------------------------

    /// Notes that the reply depends on every key.
    fn look_at_all(&mut self) {
        for index in 0..self.owners.count() {
            let wait = self.owners.nth(index).turn.wait_for_all();
            self.wait = self.wait.max(wait);
        }
    }

    /// Number of keys of the database in these shards.
    pub fn count(&mut self) -> u64 {
        self.look_at_all();
        let database = self.database;
        (0..self.owners.count())
            .map(|index| self.owners.nth(index).tables.count_db(database))
            .sum()
    }

    /// Visits keys in the order of slot and hash, from (slot, hash) on, until at least `budget`
    /// were visited. Returns where to go on; slot 16,384 is the end. Keys past their deadline are
    /// not shown.
    pub fn scan(
        &mut self,
        (slot, hash32): (u16, u32),
        budget: usize,
        mut visit: impl FnMut(&[u8], Kind),
    ) -> (u16, u32) {
        self.look_at_all();
        let database = self.database;
        let mut at = (slot, hash32);
        let mut left = budget.max(1);
        let mut walked = false;
        for index in 0..self.owners.count() {
            let owner = self.owners.nth(index);
            let slots = owner.slots();
            if at.0 >= slots.end || left == 0 {
                continue;
            }
            // The shard between is not here: the cursor leads to it.
            if walked && at.0 < slots.start {
                break;
            }
            let from = at.max((slots.start, 0));
            at = owner.walk(database, from, &mut left, &mut visit);
            walked = true;
        }
        at
    }

    /// A random key of the database, from these shards.
    pub fn random_key(&mut self) -> Option<Vec<u8>> {
        self.look_at_all();
        let database = self.database;
        let counts: Vec<u64> = (0..self.owners.count())
            .map(|index| self.owners.nth(index).tables.count_db(database))
            .collect();
        let total: u64 = counts.iter().sum();
        if total == 0 {
            return None;
        }
        // Keys past their deadline are passed over, but not for ever.
        for _ in 0..100 {
            let mut place = rand::RngExt::random_range(self.rng(), 0..total);
            for (index, count) in counts.iter().enumerate() {
                if place >= *count {
                    place -= count;
                    continue;
                }
                let key = self.owners.nth(index).random_key(database);
                if key.is_some() {
                    return key;
                }
                break;
            }
        }
        None
    }

    /// Empties a database; all shards must be here.
    pub fn flush(&mut self, number: usize) {
        self.look_at_all();
        let id = self.owners.first().databases.id(number);
        let shards = 0..self.owners.count();
        let mut used = shards.map(|index| {
            self.owners
                .nth(index)
                .tables
                .databases()
                .any(|known| visible(known) == id)
        });
        if !used.any(|used| used) {
            return;
        }
        for index in 0..self.owners.count() {
            self.owners.nth(index).flush(number);
        }
        self.database = self.owners.first().databases.id(self.number);
        // Its few bytes come from what is set aside: it cannot be taken back.
        self.wait = Wait::TURN;
    }

    /// Exchanges two databases; all shards must be here.
    pub fn swap(&mut self, first: usize, second: usize) {
        for index in 0..self.owners.count() {
            self.owners.nth(index).swap(first, second);
        }
        self.database = self.owners.first().databases.id(self.number);
        // Its few bytes come from what is set aside: it cannot be taken back.
        self.wait = Wait::TURN;
    }

    /// Switches the expiry in the background on or off; no key past its deadline is seen either
    /// way.
    pub fn set_active_expiry(&mut self, active: bool) {
        for index in 0..self.owners.count() {
            self.owners.nth(index).set_active_expiry(active);
        }
    }

    /// The largest hash that OBJECT ENCODING calls a listpack: fields, and bytes of each part.
    pub fn listpack_limits(&self) -> (usize, usize) {
        self.owners.first_ref().listpack_limits
    }

    // ---- watches -----------------------------------------------------------------------------

    /// Watches a key of the database.
    pub fn watch(&mut self, key: &Key<'_>) -> WatchedKey {
        let existed = self.exists(key);
        let (number, database) = (self.number, self.database);
        let version = self.owner(key).watched.watch(database, key.bytes);
        WatchedKey {
            number,
            database,
            key: key.bytes.into(),
            version,
            existed,
        }
    }

    /// Ends a watch.
    pub fn unwatch(&mut self, watched: &WatchedKey) {
        let key = self.key(&watched.key);
        self.owner(&key)
            .watched
            .unwatch(watched.database, &watched.key);
    }

    /// Whether nobody wrote a watched key since. The reply depends on it.
    pub fn unchanged(&mut self, watched: &WatchedKey) -> bool {
        let here = self.number;
        let key = self.key(&watched.key);
        let now_id = self.owner(&key).databases.id(watched.number);
        self.number = watched.number;
        self.database = now_id;
        // Deletes it if it is past its deadline, which counts as a change.
        let exists = self.exists(&key);
        let unwritten =
            self.owner(&key)
                .watched
                .unchanged(watched.database, &watched.key, watched.version);
        let unchanged = if now_id == watched.database {
            unwritten
        } else {
            self.wait = self.wait.max(self.owners.of(key.slot).turn.wait_for_all());
            unwritten && !exists && !watched.existed
        };
        self.number = here;
        self.database = self.owner(&key).databases.id(here);
        unchanged
    }
}

impl<'a> Owners<'a> {
    /// The slots of each shard, and the time, as the simulator is told.
    #[cfg(feature = "simulation")]
    pub fn scene(&self) -> (Vec<std::ops::Range<u16>>, u64) {
        let slots = match self {
            Owners::One(keyspace) => vec![keyspace.slots()],
            Owners::Several(keyspaces) => {
                keyspaces.iter().map(|keyspace| keyspace.slots()).collect()
            }
        };
        (slots, self.first_ref().now_ms)
    }

    fn first(&mut self) -> &mut Keyspace {
        self.nth(0)
    }

    /// Gives each of them to `f`.
    #[inline]
    fn each(&mut self, mut f: impl FnMut(&mut Keyspace)) {
        match self {
            Owners::One(keyspace) => f(keyspace),
            Owners::Several(keyspaces) => keyspaces.iter_mut().for_each(|keyspace| f(keyspace)),
        }
    }

    pub(super) fn first_ref(&self) -> &Keyspace {
        match self {
            Owners::One(keyspace) => keyspace,
            Owners::Several(keyspaces) => &keyspaces[0],
        }
    }

    fn count(&self) -> usize {
        match self {
            Owners::One(_) => 1,
            Owners::Several(keyspaces) => keyspaces.len(),
        }
    }

    fn nth(&mut self, index: usize) -> &mut Keyspace {
        match self {
            Owners::One(keyspace) => keyspace,
            Owners::Several(keyspaces) => &mut keyspaces[index],
        }
    }

    /// The keyspace that owns a slot.
    pub(super) fn of(&mut self, slot: u16) -> &mut Keyspace {
        match self {
            Owners::One(keyspace) => keyspace,
            Owners::Several(keyspaces) => {
                let index = keyspaces
                    .iter()
                    .position(|keyspace| keyspace.slots().contains(&slot));
                &mut keyspaces
                    [index.expect("the router lends every shard that a command's keys live in")]
            }
        }
    }
}
