//! The log's effects on their way back into a keyspace, over what the store has.
//!
//! Always true: an effect may be older than what the store has of its key, and is applied all the
//! same: what follows in the log leads to the same end. Whole values replace what the tables know
//! without a look at the store; effects on a part of a value read the rest from there.

use bytes::BytesMut;
use hashbrown::HashMap;

use crate::keyspace::codec::{ChangedField, Mutation, Stored, write_part};
use crate::keyspace::cold::Unreadable;
use crate::keyspace::databases::Databases;
use crate::keyspace::entry::EntryRef;
use crate::keyspace::hash::Hash;
use crate::keyspace::key::{Key, field_hash32};
use crate::keyspace::owned::{Keyspace, Retired};
use crate::keyspace::tokens::{TokenSource, Tokens};
use crate::keyspace::turn::Turn;
use crate::keyspace::value::{Kind, Value, ValueRef};

impl Keyspace {
    /// A replay over a store begins: these slots and databases have so many keys there.
    pub fn begin_replay(&mut self, counts: impl Iterator<Item = (u16, u32, u64)>) {
        let totals = counts.map(|(slot, database, keys)| ((database, slot), keys));
        self.totals = Some(totals.collect());
        self.tables.begin_uncounted();
    }

    /// The replay is over: what is not in memory is asleep.
    ///
    /// # Errors
    /// More keys were replayed than there are, or something could not be read.
    pub fn end_replay(&mut self) -> Result<(), Unreadable> {
        self.tables.end_uncounted();
        for ((database, slot), keys) in self.totals.take().unwrap_or_default() {
            if self.databases.is_live(database) && !self.tables.set_count(database, slot, keys) {
                return Err(Unreadable::Failed(format!(
                    "slot {slot} of database {database} should have {keys} keys and has more"
                )));
            }
        }
        self.forget_turn();
        self.take_unreadable().map_or(Ok(()), Err)
    }

    /// Takes over the keys of the slots behind its own, which were replayed apart.
    pub fn append(&mut self, mut behind: Keyspace) {
        self.tables.append(behind.tables);
        self.deadlines.append(behind.deadlines);
        self.retired.append(&mut behind.retired);
        self.dropped.append(&mut behind.dropped);
        self.stats.woken += behind.stats.woken;
    }

    /// The server's tokens, once they are known.
    pub fn set_tokens(&mut self, tokens: TokenSource) {
        self.tokens = Tokens::new(tokens);
    }

    /// The databases as they were logged.
    pub fn set_databases(&mut self, databases: Databases) {
        for id in self.tables.databases().collect::<Vec<_>>() {
            if databases.is_dead(id) {
                self.dropped.extend(self.tables.drop_database(id));
            }
        }
        self.databases = databases;
    }

    /// After replay: what was read back needs no logging.
    pub fn forget_turn(&mut self) {
        self.turn = Turn::default();
        self.retired.append(&mut self.retiring);
        self.parked = HashMap::new();
        self.databases_changed = false;
    }

    /// Applies an effect that was read back from the log; the entry is dirty afterwards.
    /// Effects on other shards' slots are ignored, as are database map and ceilings.
    pub fn apply(&mut self, mutation: Mutation<'_>) {
        match (mutation.key(), mutation) {
            (Some((database, bytes)), mutation) => {
                let key = self.key_of(database, bytes);
                if self.tables.slots().contains(&key.slot) {
                    self.apply_to(database, &key, mutation);
                }
            }
            (
                None,
                Mutation::Count {
                    slot,
                    database,
                    keys,
                },
            ) => self.apply_count(slot, database, keys),
            _ => {}
        }
    }

    /// A slot that is owned here has so many keys of a database.
    pub fn apply_count(&mut self, slot: u16, database: u32, keys: u64) {
        let own = self.tables.slots().contains(&slot);
        if let Some(totals) = self.totals.as_mut().filter(|_| own) {
            totals.insert((database, slot), keys);
        }
    }

    /// Applies an effect on `key`, which is owned here.
    pub fn apply_to(&mut self, database: u32, key: &Key<'_>, mutation: Mutation<'_>) {
        match mutation {
            Mutation::Put {
                deadline_ms,
                stored,
                ..
            } => self.apply_put(database, key, deadline_ms, stored),
            Mutation::Delete { .. } => {
                self.take_away(database, key, None);
                if self.tables.sleeps(database, key.slot) {
                    self.tables.bury(database, key);
                }
            }
            Mutation::Deadline { deadline_ms, .. } => {
                self.wake(database, key);
                self.tables.set_deadline(database, key, deadline_ms);
                self.hint(database, key, 0, deadline_ms);
            }
            Mutation::Part {
                offset,
                bytes,
                total,
                ..
            } => self.apply_part(database, key, offset as usize, bytes, total as usize),
            Mutation::Fields {
                deadline_ms,
                generation,
                length,
                fields,
                ..
            } => self.apply_fields(database, key, (deadline_ms, generation, length), fields),
            Mutation::Retired { generation, .. } => self.retired.push(Retired {
                slot: key.slot,
                database,
                hash32: key.hash32(),
                key: key.bytes.into(),
                generation,
            }),
            Mutation::Count { .. } | Mutation::Databases { .. } | Mutation::TokenCeiling(_) => {}
        }
    }

    /// Removes a key during replay. A hash that the store has is kept aside: an older effect may
    /// lead back to its generation, and then the removal of its fields has to be remembered.
    fn take_away(&mut self, database: u32, key: &Key<'_>, fresh: Option<u64>) {
        let before = self.tables.remove(database, key);
        self.retire(database, key, before.as_ref(), fresh);
        if let Some((Value::Hash(hash), _)) = before
            && !hash.is_new()
        {
            self.parked.insert(hash.generation(), hash);
        }
    }

    /// The empty hash of a generation, as it was before the effects that follow in the log.
    fn revived(&mut self, database: u32, key: &Key<'_>, generation: u64) -> Box<Hash> {
        if let Some(mut hash) = self.parked.remove(&generation) {
            self.complete(database, key, &mut hash);
            hash.clear();
            self.unretire(generation);
            return hash;
        }
        // The store may be ahead of the log, and have fields that the log takes away again.
        let stored = match self.totals {
            Some(_) => self.look_up(database, key),
            None => Ok(None),
        };
        match stored {
            Ok(Some((Value::Hash(mut hash), _))) if hash.generation() == generation => {
                self.complete(database, key, &mut hash);
                hash.clear();
                hash
            }
            _ => Box::new(Hash::new(generation)),
        }
    }

    /// Reads what a hash that is not in the tables has in the store alone.
    fn complete(&mut self, database: u32, key: &Key<'_>, hash: &mut Hash) {
        if hash.is_whole() {
            return;
        }
        // What cannot be read ends the replay with an error.
        let stored = self.stored_fields(database, key, hash.generation());
        hash.complete(stored.unwrap_or(Hash::stored(hash.generation())), false);
    }

    fn apply_put(&mut self, database: u32, key: &Key<'_>, deadline_ms: u64, stored: Stored) {
        let value = match stored {
            Stored::Value(value) => value,
            Stored::Hash { generation, .. } => {
                self.take_away(database, key, Some(generation));
                Value::Hash(self.revived(database, key, generation))
            }
        };
        // Counters change most often: one look-up is enough for those that are here.
        let counted = |counter: &mut i64, at_ms: u64| match value {
            Value::Counter(new) if at_ms == deadline_ms => {
                *counter = new;
                true
            }
            _ => false,
        };
        if self.tables.update_counter(database, key, counted) == Some(true) {
            return;
        }
        let is_hash = |entry: EntryRef<'_>| entry.kind() == Kind::Hash;
        if self.tables.get(database, key).is_some_and(is_hash) {
            let before = self.tables.set(database, key, value, deadline_ms);
            self.retire(database, key, before.as_ref(), None);
        } else {
            self.tables.put(database, key, value, deadline_ms);
        }
        self.hint(database, key, 0, deadline_ms);
    }

    fn apply_part(
        &mut self,
        database: u32,
        key: &Key<'_>,
        offset: usize,
        bytes: &[u8],
        total: usize,
    ) {
        self.wake(database, key);
        let edited = self.tables.edit_string(database, key, |string| {
            write_part(string, offset, bytes, total);
        });
        if edited.is_none() {
            self.take_away(database, key, None);
            let mut string = BytesMut::new();
            write_part(&mut string, offset, bytes, total);
            let value = Value::from_shared(string.freeze());
            self.tables.put(database, key, value, 0);
        }
    }

    fn apply_fields(
        &mut self,
        database: u32,
        key: &Key<'_>,
        (deadline_ms, generation, length): (u64, u64, u64),
        fields: Vec<ChangedField<'_>>,
    ) {
        self.wake(database, key);
        let present = match self.tables.get(database, key).map(|entry| entry.value()) {
            Some(ValueRef::Hash(hash)) => Some(hash.generation()),
            _ => None,
        };
        // A newer generation is here already: what follows in the log leads to it.
        if present.is_some_and(|present| present > generation) {
            return;
        }
        if present != Some(generation) {
            self.take_away(database, key, Some(generation));
            let hash = Value::Hash(self.revived(database, key, generation));
            self.tables.put(database, key, hash, deadline_ms);
        }
        let plain = |(_, change): &ChangedField<'_>| match change {
            Some((value, expires_at_ms)) => *expires_at_ms == 0 && value.open_hold().is_none(),
            None => true,
        };
        if !fields.iter().all(plain) {
            self.wake_fields(database, key, false);
        }
        let (seed, mut fits) = (self.seed, true);
        if let Some(mut hash) = self.tables.hash_mut(database, key) {
            for (name, change) in fields {
                let field_hash = field_hash32(name, seed);
                match change {
                    Some((value, expires_at_ms)) => {
                        hash.insert(field_hash, name, value, expires_at_ms);
                    }
                    None => {
                        hash.remove(field_hash, name);
                    }
                }
            }
            fits = hash.set_len(length as usize);
        }
        if !fits {
            let key = key.bytes.escape_ascii();
            self.unreadable.get_or_insert(Unreadable::Failed(format!(
                "the log says that the hash {key} has {length} fields, and it has more"
            )));
        }
        self.tables.set_deadline(database, key, deadline_ms);
        self.hint_loaded(database, key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::owned::Origin;

    #[test]
    fn a_hash_that_replay_takes_away_twice_is_retired_once() {
        let mut keyspace = Keyspace::new(Origin {
            slots: 0..crate::limits::SLOTS,
            seed: 7,
            databases: Databases::new(1),
            tokens: TokenSource::above(0),
            random_seed: 0,
        });
        let put = |stored: Stored| Mutation::Put {
            database: 0,
            key: b"h",
            deadline_ms: 0,
            stored,
        };
        // As after a crash behind a checkpoint whose rows are newer than its position.
        for _ in 0..2 {
            let (generation, length) = (3, 0);
            keyspace.apply(put(Stored::Hash {
                generation,
                length,
                plain: true,
            }));
            keyspace.apply(put(Stored::Value(Value::Counter(1))));
        }
        assert_eq!(keyspace.take_retired().len(), 1);
    }
}
