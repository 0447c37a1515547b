//! The keyspace of one shard: its keys, what was written in the running turn, and all that the
//! rules of keys need (time, tokens, deadlines, watches). A plain struct: no I/O, no clock, no
//! lock.
//!
//! Always true: every change of a key goes through this file's few writing methods, which keep key
//! counts, deadline hints, watches and the turn's touches in step with the tables.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;
use rand::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::keyspace::codec::BatchBuilder;
use crate::keyspace::cold::{Cold, Unreadable};
use crate::keyspace::databases::{Databases, is_shadow, shadow_of};
use crate::keyspace::deadlines::{Deadlines, Hint};
use crate::keyspace::due::Pump;
use crate::keyspace::field::Field;
use crate::keyspace::hash::Hash;
use crate::keyspace::hold::end_at_deadline;
use crate::keyspace::input_gate::InputGate;
use crate::keyspace::key::{Key, field_hash32};
use crate::keyspace::moved::Moved;
use crate::keyspace::slot::{Database, Spot, Tables};
use crate::keyspace::tokens::{TokenSource, Tokens};
use crate::keyspace::turn::{Touch, Touched, Turn, What};
use crate::keyspace::undo::Undo;
use crate::keyspace::value::{Value, ValueRef};
use crate::keyspace::warm::Warmed;
use crate::keyspace::watched::Watched;
use crate::sim::{self, Fault};

/// What a keyspace is made from.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The slots that it owns.
    pub slots: Range<u16>,
    /// Hash seed of the data folder.
    pub seed: u64,
    /// The databases.
    pub databases: Databases,
    /// The server's tokens.
    pub tokens: TokenSource,
    /// Seed of the random choices that commands make.
    pub random_seed: u64,
}

/// What happened in a keyspace since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyspaceStats {
    /// Reads that found their key.
    pub hits: u64,
    /// Reads that did not.
    pub misses: u64,
    /// Keys deleted at their deadline.
    pub expired: u64,
    /// Hash fields deleted at their deadline.
    pub expired_fields: u64,
    /// Keys that left memory; the store has them.
    pub evicted: u64,
    /// Keys that were read from the store.
    pub woken: u64,
    /// Fields that were read by themselves, or for the rest of a hash that was here in part.
    pub woken_fields: u64,
}

/// The keys of a shard.
pub struct Keyspace {
    pub(super) tables: Tables,
    pub(super) turn: Turn,
    pub(super) deadlines: Deadlines,
    /// Deadlines that keys do not have any more.
    pub(super) moved: Moved,
    pub(super) tokens: Tokens,
    pub(super) watched: Watched,
    pub(super) databases: Databases,
    pub(super) databases_changed: bool,
    pub(super) rng: Xoshiro256PlusPlus,
    pub(super) seed: u64,
    pub(super) now_ms: u64,
    pub(super) undo: Undo,
    /// The running command's key, if slot and hash are known already.
    pub(super) warmed: Option<Warmed>,
    pub(super) stats: KeyspaceStats,
    pub(super) active_expiry: bool,
    pub(super) listpack_limits: (usize, usize),
    /// Tables of flushed databases, to be freed by whoever has time.
    pub(super) dropped: Vec<Database>,
    /// Hashes that are gone, and whose field rows the store may still have.
    pub(super) retired: Vec<Retired>,
    /// Hashes that went in the running turn, which still has to log that.
    pub(super) retiring: Vec<Retired>,
    /// Where keys lie that are not in memory.
    pub(super) cold: Option<Arc<dyn Cold>>,
    /// Something could not be read from there.
    pub(super) unreadable: Option<Unreadable>,
    /// Commands can wait for what is read; none: they read it themselves.
    pub(super) gate: Option<Box<InputGate>>,
    /// During replay: how many keys the slots of each database have.
    pub(super) totals: Option<HashMap<(u32, u16), u64>>,
    pub(super) pump: Pump,
    /// During replay: hashes that the store has and the log took away, by generation.
    pub(super) parked: HashMap<u64, Box<Hash>>,
}

/// A hash that is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retired {
    /// Slot of its key.
    pub slot: u16,
    /// Database id.
    pub database: u32,
    /// Upper half of the key's hash.
    pub hash32: u32,
    /// The key.
    pub key: Box<[u8]>,
    /// Generation of the hash.
    pub generation: u64,
}

/// Hints are weeded out when there are more than so many, and than twice the last time.
const DEADLINE_HINTS_WEED_MIN: usize = 1 << 16;

/// Redis's defaults for OBJECT ENCODING: fields of a listpack, and bytes of each part.
const LISTPACK_LIMITS_DEFAULT: (usize, usize) = (128, 64);

impl Keyspace {
    /// An empty keyspace.
    pub fn new(origin: Origin) -> Keyspace {
        Keyspace {
            tables: Tables::new(origin.slots),
            turn: Turn::default(),
            deadlines: Deadlines::default(),
            moved: Moved::default(),
            tokens: Tokens::new(origin.tokens),
            watched: Watched::default(),
            databases: origin.databases,
            databases_changed: false,
            rng: Xoshiro256PlusPlus::seed_from_u64(origin.random_seed),
            seed: origin.seed,
            now_ms: 0,
            undo: Undo::default(),
            warmed: None,
            stats: KeyspaceStats::default(),
            active_expiry: true,
            listpack_limits: LISTPACK_LIMITS_DEFAULT,
            dropped: Vec::new(),
            retired: Vec::new(),
            retiring: Vec::new(),
            cold: None,
            unreadable: None,
            gate: None,
            totals: None,
            pump: Pump::default(),
            parked: HashMap::new(),
        }
    }

    /// The slots that are owned here.
    pub fn slots(&self) -> Range<u16> {
        self.tables.slots()
    }

    /// The key with its slot and hash.
    #[inline]
    pub fn key<'a>(&self, bytes: &'a [u8]) -> Key<'a> {
        let warmed = self.warmed.and_then(|warmed| warmed.key(bytes));
        warmed.unwrap_or_else(|| Key::new(bytes, self.seed))
    }

    /// The same for a key that was stored.
    pub fn key_of<'a>(&self, database: u32, bytes: &'a [u8]) -> Key<'a> {
        Key::of_database(database, bytes, self.seed)
    }

    /// The turn's time, ms since the Unix epoch.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Begins to use a new time; it never falls.
    pub fn set_now_ms(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
        // Eight bits of half minutes: enough for idle times of two hours.
        self.tables.set_stamp((self.now_ms / 30_000) as u8);
    }

    /// Counters since the start.
    pub fn stats(&self) -> KeyspaceStats {
        self.stats
    }

    /// The databases.
    pub fn databases(&self) -> &Databases {
        &self.databases
    }

    /// The tables, to be read.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The tables, for the checkpoint's sweep; nothing else may change them from outside.
    pub fn tables_mut(&mut self) -> &mut Tables {
        &mut self.tables
    }

    /// The tables, and the deadlines that keys do not have any more, for the checkpoint's sweep.
    pub fn sweep_parts(&mut self) -> (&mut Tables, &mut Moved) {
        (&mut self.tables, &mut self.moved)
    }

    /// The turn and the positions of earlier ones.
    pub fn turn(&self) -> &Turn {
        &self.turn
    }

    /// Memory besides the tables, in bytes, roughly.
    pub fn bytes_besides_tables(&self) -> usize {
        let hints = self.deadlines.len() * size_of::<Hint>();
        hints + self.moved.bytes() + self.turn.bytes() + self.undo.bytes()
    }

    /// Keys with a deadline, roughly: the number of hints.
    pub fn deadline_hints(&self) -> usize {
        self.deadlines.len()
    }

    /// The largest hash that OBJECT ENCODING calls a listpack: fields, and bytes of each part
    /// (the settings hash-max-listpack-entries and -value).
    pub fn set_listpack_limits(&mut self, entries_max: usize, value_bytes_max: usize) {
        self.listpack_limits = (entries_max, value_bytes_max);
    }

    /// Whether keys are deleted at their deadline without being asked for.
    pub fn set_active_expiry(&mut self, active: bool) {
        self.active_expiry = active;
        if !active {
            self.put_expiry_off();
        }
    }

    // ---- the writing methods ---------------------------------------------------------------

    /// Sets value and deadline; returns what was there. `spot`: where the key is, if that is known.
    pub(super) fn put(
        &mut self,
        database: u32,
        key: &Key<'_>,
        spot: Option<Spot>,
        value: Value,
        deadline_ms: u64,
    ) -> (Option<(Value, u64)>, Touched) {
        let fields_ms = match &value {
            Value::Hash(hash) => hash.next_deadline_ms(),
            _ => 0,
        };
        let fresh = match &value {
            Value::Hash(hash) => Some(hash.generation()),
            _ => None,
        };
        let before = match spot {
            Some(spot) => Some(self.tables.set_at(spot, key, value, deadline_ms)),
            None => self.tables.set(database, key, value, deadline_ms),
        };
        self.retire(database, key, before.as_ref(), fresh);
        if before.is_none() {
            self.turn.count_changed(key.slot, database);
        }
        let before_ms = before.as_ref().map_or(0, |before| before.1);
        self.moved(database, key, before_ms, deadline_ms);
        self.hint(database, key, before_ms, deadline_ms);
        self.hint(database, key, 0, fields_ms);
        self.written(database, key);
        let touched = self.turn.touch_whole(database, key);
        if let Some(spot) = spot {
            self.turn.lies_at(touched, spot);
        }
        (before, touched)
    }

    /// Deletes a key; returns what was there.
    pub(super) fn remove(
        &mut self,
        database: u32,
        key: &Key<'_>,
    ) -> Option<((Value, u64), Touched)> {
        let before = self.tables.remove(database, key)?;
        self.retire(database, key, Some(&before), None);
        self.moved(database, key, before.1, 0);
        self.turn.count_changed(key.slot, database);
        self.written(database, key);
        let touched = self.turn.touch_whole(database, key);
        Some((before, touched))
    }

    /// Notes a hash that is gone, unless it is the one that is `fresh`ly put.
    pub(super) fn retire(
        &mut self,
        database: u32,
        key: &Key<'_>,
        before: Option<&(Value, u64)>,
        fresh: Option<u64>,
    ) {
        if let Some((Value::Hash(hash), _)) = before
            && fresh != Some(hash.generation())
        {
            self.retiring.push(Retired {
                slot: key.slot,
                database,
                hash32: key.hash32(),
                key: key.bytes.into(),
                generation: hash.generation(),
            });
        }
    }

    /// A deletion or replacement of a hash is taken back: it lives on.
    pub(super) fn unretire(&mut self, generation: u64) {
        for retired in [&mut self.retiring, &mut self.retired] {
            let place = retired
                .iter()
                .rposition(|retired| retired.generation == generation);
            if let Some(place) = place {
                retired.remove(place);
                return;
            }
        }
    }

    /// The hashes that are gone since the last call, in the order of their rows.
    pub fn take_retired(&mut self) -> Vec<Retired> {
        let mut retired = std::mem::take(&mut self.retired);
        retired.append(&mut self.retiring);
        retired.sort_unstable_by(|a, b| {
            let order = |retired: &Retired| {
                (
                    retired.slot,
                    retired.database,
                    retired.hash32,
                    retired.key.len(),
                )
            };
            (order(a), &a.key, a.generation).cmp(&(order(b), &b.key, b.generation))
        });
        // Replayed effects may take a hash away more than once.
        retired.dedup();
        retired
    }

    /// Gives back what `take_retired` took: it was not stored.
    pub fn give_back_retired(&mut self, retired: Vec<Retired>) {
        self.retired.extend(retired);
    }

    /// Sets the deadline of a key that exists (0: none).
    pub(super) fn set_deadline(
        &mut self,
        database: u32,
        key: &Key<'_>,
        deadline_ms: u64,
    ) -> Touched {
        let before_ms = self
            .tables
            .get(database, key)
            .map_or(0, |entry| entry.deadline_ms());
        self.tables.set_deadline(database, key, deadline_ms);
        self.moved(database, key, before_ms, deadline_ms);
        self.hint(database, key, before_ms, deadline_ms);
        self.written(database, key);
        self.turn.touch_deadline(database, key)
    }

    /// Notes that a key has lost a deadline.
    fn moved(&mut self, database: u32, key: &Key<'_>, before_ms: u64, after_ms: u64) {
        if Moved::concerns(before_ms, after_ms, self.now_ms) {
            let place = (database, key.slot, key.hash32());
            self.moved.note(place, before_ms);
        }
    }

    /// A key is about to be, or was, written: its watchers are told.
    pub(super) fn written(&mut self, database: u32, key: &Key<'_>) {
        if !self.watched.is_empty() {
            self.watched.written(database, key.bytes);
        }
    }

    /// Notes that something of a key is due at `after_ms`, where `before_ms` was noted already.
    pub(super) fn hint(&mut self, database: u32, key: &Key<'_>, before_ms: u64, after_ms: u64) {
        if after_ms == 0 || (before_ms != 0 && before_ms <= after_ms) {
            return;
        }
        if sim::fault(Fault::DeadlineNotNoted) {
            return;
        }
        let hint = Hint {
            at_ms: after_ms,
            database,
            hash32: key.hash32(),
            slot: key.slot,
        };
        self.deadlines.add(hint);
        if self.deadlines.len() >= self.pump.weed_at.max(DEADLINE_HINTS_WEED_MIN) {
            self.weed_hints();
            self.pump.weed_at = 2 * self.deadlines.len();
        }
    }

    /// Drops hints that lead to no deadline any more.
    fn weed_hints(&mut self) {
        let (tables, horizon_ms) = (&self.tables, self.pump.horizon_ms);
        let mut known = hashbrown::HashSet::new();
        self.deadlines.retain(|hint| {
            // What is due later and asleep has a row in the store that is still to be read.
            if hint.at_ms < horizon_ms && tables.sleeps(hint.database, hint.slot) {
                return true;
            }
            // They come in order: the first of a key is the one that counts.
            if !known.insert((hint.database, hint.slot, hint.hash32)) {
                return false;
            }
            let mut due = false;
            tables.scan_slot(hint.database, hint.slot, hint.hash32, 1, |entry| {
                due |= entry.hash32() == hint.hash32
                    && due_ms(&entry.value(), entry.deadline_ms()) != 0;
            });
            due
        });
    }

    /// Gives a database number a new, empty id.
    pub(super) fn flush(&mut self, number: usize) {
        let dead = self.databases.flush(number);
        sim::flushed(&self.databases);
        for key in self.watched.of(dead) {
            let key = Key::of_database(dead, &key, self.seed);
            if !self.tables.slots().contains(&key.slot) {
                continue;
            }
            self.wake(dead, &key);
            // What cannot be read was there, as far as its watcher is concerned.
            let unreadable = self.take_unreadable().is_some();
            if unreadable || self.tables.get(dead, &key).is_some() {
                self.watched.written(dead, key.bytes);
            }
        }
        for id in [dead, shadow_of(dead)] {
            self.dropped.extend(self.tables.drop_database(id));
            self.moved.forget(id);
        }
        self.databases_changed = true;
        self.turn.touch_other();
    }

    /// Exchanges two database numbers.
    pub(super) fn swap(&mut self, first: usize, second: usize) {
        let ids = [self.databases.id(first), self.databases.id(second)];
        if ids[0] != ids[1] {
            self.touch_watched_of(ids);
        }
        self.databases.swap(first, second);
        self.databases_changed = true;
        self.turn.touch_other();
    }

    /// The watchers of a key that is in either of two databases are told of their exchange.
    fn touch_watched_of(&mut self, ids: [u32; 2]) {
        for id in ids {
            for bytes in self.watched.of(id) {
                let key = Key::new(&bytes, self.seed);
                if !self.tables.slots().contains(&key.slot) {
                    continue;
                }
                let is_in = |keyspace: &mut Keyspace, id: u32| {
                    keyspace.wake(id, &key);
                    let unreadable = keyspace.take_unreadable().is_some();
                    unreadable || keyspace.tables.get(id, &key).is_some()
                };
                if is_in(self, ids[0]) || is_in(self, ids[1]) {
                    self.watched.written(id, key.bytes);
                }
            }
        }
    }

    /// Brings over what a recovery in place must not lose: watches and switches.
    pub fn inherit(&mut self, old: &mut Keyspace) {
        if !sim::fault(Fault::ReloadForgetsWatches) {
            self.watched = std::mem::take(&mut old.watched);
        }
        self.active_expiry = old.active_expiry;
        self.stats = old.stats;
        self.retired.append(&mut old.retired);
        self.retired.append(&mut old.retiring);
        // Hints prove nothing, and the rows that they were read from are not read again.
        self.deadlines = std::mem::take(&mut old.deadlines);
        self.pump = std::mem::take(&mut old.pump);
        for hint in self.pump.begin_again() {
            self.deadlines.add(hint);
        }
    }

    /// Tables of flushed databases, to be freed where it does not disturb.
    pub fn take_dropped(&mut self) -> Vec<Database> {
        std::mem::take(&mut self.dropped)
    }

    // ---- time --------------------------------------------------------------------------------

    /// Deletes a key that is past its deadline, or about `limit` fields of it that are past theirs.
    pub fn expire_key(&mut self, database: u32, key: &Key<'_>, limit: usize) {
        self.expire_now(database, key, limit);
        self.watched.keep(database, key.bytes);
    }

    fn expire_now(&mut self, database: u32, key: &Key<'_>, limit: usize) {
        let Some(entry) = self.tables.get(database, key) else {
            return;
        };
        let deadline_ms = entry.deadline_ms();
        if deadline_ms != 0 && deadline_ms <= self.now_ms {
            sim::overdue(database, key.bytes);
            self.stats.expired += u64::from(!is_shadow(database));
            self.turn.note_expiry();
            if sim::fault(Fault::ExpiryNotLogged) {
                self.tables.remove(database, key);
            } else if sim::fault(Fault::WatchMissesExpiry) {
                self.tables.remove(database, key);
                self.turn.count_changed(key.slot, database);
                self.turn.touch_whole(database, key);
            } else {
                self.remove(database, key);
            }
            return;
        }
        let ValueRef::Hash(hash) = entry.value() else {
            return;
        };
        let next_ms = hash.next_deadline_ms();
        if next_ms != 0 && next_ms <= self.now_ms {
            sim::overdue(database, key.bytes);
            self.expire_fields(database, key, limit);
        }
    }

    fn expire_fields(&mut self, database: u32, key: &Key<'_>, limit: usize) {
        let (now_ms, seed) = (self.now_ms, self.seed);
        self.turn.note_expiry();
        let Some(mut hash) = self.tables.hash_mut(database, key) else {
            return;
        };
        let (mut written, mut deleted) = (Vec::new(), 0);
        for (field_hash, name) in hash.expired(now_ms, limit) {
            // One that ended before it may have written this one anew.
            let due = |field: &Field| field.due_ms() <= now_ms;
            if !hash.get(field_hash, &name).is_some_and(due) {
                continue;
            }
            let Some(field) = hash.remove(field_hash, &name) else {
                continue;
            };
            written.push(name);
            // A field that is deleted no later than its hold ends takes the hold along.
            if field.expires_at_ms == field.due_ms() {
                deleted += 1;
            } else {
                written.extend(end_at_deadline(&mut hash, seed, &field, now_ms));
            }
        }
        let empty = hash.is_empty();
        drop(hash);
        for name in &written {
            self.turn.touch_field(database, key, name);
        }
        self.stats.expired_fields += deleted;
        self.written(database, key);
        if empty {
            self.remove(database, key);
        } else {
            // The key's own deadline as well: of several hints one may be all that was kept.
            self.hint_loaded(database, key);
        }
    }

    // ---- sealing -----------------------------------------------------------------------------

    /// Whether the turn has effects to log.
    pub fn has_effects(&self) -> bool {
        !self.turn.is_empty() || self.tokens.ceiling_to_log().is_some()
    }

    /// Writes the effects of the running turn; `sealed` must follow with their position.
    pub fn seal(&mut self, batch: &mut BatchBuilder) {
        if self.databases_changed && !sim::fault(Fault::DatabasesNotLogged) {
            batch.databases(self.databases.ids(), self.databases.next());
            self.databases_changed = false;
        }
        if let Some(ceiling) = self.tokens.ceiling_to_log() {
            batch.token_ceiling(ceiling);
        }
        for (touch, key) in self.turn.touches() {
            seal_touch(&self.tables, self.seed, batch, touch, &key);
        }
        for &(slot, database) in self.turn.counts() {
            if self.databases.is_live(database) && !sim::fault(Fault::CountMissing) {
                batch.count(slot, database, self.tables.count(slot, database));
            }
        }
        for retired in &self.retiring {
            if self.databases.is_live(retired.database) {
                batch.retired(retired.database, &retired.key, retired.generation);
            }
        }
        self.retired.append(&mut self.retiring);
    }

    /// The turn was queued at `lsn`.
    pub fn sealed(&mut self, lsn: u64) {
        sim::sealed(self.slots(), lsn);
        self.turn.sealed(lsn);
        self.tokens.sealed(lsn);
    }

    /// Everything up to `lsn` is durable.
    pub fn durable(&mut self, lsn: u64) {
        sim::durable(self.slots(), lsn);
        self.turn.durable(lsn);
        self.tokens.durable(lsn);
    }

    /// A ceiling of tokens waits for a sync that the mode would not make soon.
    pub fn sync_wanted(&self) -> bool {
        self.tokens.sync_wanted()
    }

    // ---- loading -----------------------------------------------------------------------------

    /// Puts a key that the store has; `deadline_ms` 0: none. Not dirty, and due in time.
    pub fn load(&mut self, database: u32, key: &Key<'_>, value: Value, deadline_ms: u64) {
        self.stats.woken += 1;
        self.tables.load(database, key, value, deadline_ms);
        self.hint_loaded(database, key);
    }

    pub(super) fn hint_loaded(&mut self, database: u32, key: &Key<'_>) {
        let due = self
            .tables
            .get(database, key)
            .map(|entry| due_ms(&entry.value(), entry.deadline_ms()));
        self.hint(database, key, 0, due.unwrap_or(0));
    }
}

/// When something of an entry is due; 0: never.
#[inline]
pub(super) fn entry_due_ms(entry: &super::EntryRef<'_>) -> u64 {
    match entry.is_hash() {
        true => due_ms(&entry.value(), entry.deadline_ms()),
        false => entry.deadline_ms(),
    }
}

/// When something of a value is due: the key, or one of its fields. 0: never.
pub(super) fn due_ms(value: &ValueRef<'_>, deadline_ms: u64) -> u64 {
    let fields_ms = match value {
        ValueRef::Hash(hash) => hash.next_deadline_ms(),
        _ => 0,
    };
    match (deadline_ms, fields_ms) {
        (0, due_ms) | (due_ms, 0) => due_ms,
        (deadline_ms, fields_ms) => deadline_ms.min(fields_ms),
    }
}

fn seal_touch(tables: &Tables, seed: u64, batch: &mut BatchBuilder, touch: &Touch, key: &Key<'_>) {
    let database = touch.database;
    let found = touch
        .spot
        .and_then(|spot| tables.still_at(spot, database, key));
    let Some(entry) = found.or_else(|| tables.get(database, key)) else {
        if touch.what != What::Nothing {
            batch.delete(database, key.bytes);
        }
        return;
    };
    let deadline_ms = entry.deadline_ms();
    match (&touch.what, entry.value()) {
        (What::Nothing, _) => {}
        (What::Deadline, _) => batch.deadline(database, key.bytes, deadline_ms),
        (What::Fields(changed), ValueRef::Hash(hash)) => {
            let head = (deadline_ms, hash.generation(), hash.len() as u64);
            batch.fields(database, key.bytes, head, changed.names().len());
            for name in changed.names() {
                let field = hash.get(field_hash32(name, seed), name);
                batch.field(name, field.map(|field| (&field.value, field.expires_at_ms)));
            }
        }
        (_, ValueRef::Hash(hash)) if !hash.is_whole() => {
            // It was taken away and put back: what is asleep has not changed.
            let head = (deadline_ms, hash.generation(), hash.len() as u64);
            batch.fields(database, key.bytes, head, hash.changed().count());
            for (name, field) in hash.changed() {
                batch.field(name, field.map(|field| (&field.value, field.expires_at_ms)));
            }
        }
        (_, ValueRef::Hash(hash)) => {
            // Replaces whatever is there, then gives it all its fields.
            batch.put(database, key.bytes, entry.value(), deadline_ms, None);
            let head = (deadline_ms, hash.generation(), hash.len() as u64);
            batch.fields(database, key.bytes, head, hash.len());
            for field in hash.iter() {
                batch.field(field.name(), Some((&field.value, field.expires_at_ms)));
            }
        }
        (What::Parts(parts), ValueRef::String(string)) => {
            for &(offset, length) in parts {
                let (offset, length) = (offset as usize, length as usize);
                let end = (offset + length).min(string.len());
                // A part that was taken back may lie beyond the end.
                let offset = offset.min(end);
                let bytes = Bytes::copy_from_slice(&string[offset..end]);
                batch.part(
                    database,
                    key.bytes,
                    offset as u64,
                    bytes,
                    string.len() as u64,
                );
            }
        }
        (_, ValueRef::String(string)) if string.len() > 1024 => {
            let shared = entry.to_string_bytes();
            batch.put(database, key.bytes, entry.value(), deadline_ms, shared);
        }
        (_, value) => batch.put(database, key.bytes, value, deadline_ms, None),
    }
}
