//! Large hashes that are here in part: their fields are read from the store when somebody asks for
//! them.
//!
//! Always true: what is written is known before, so that a hash always says how many fields it has.
//! Only hashes without deadlines of fields and without open holds are here in part: nothing in one
//! is due. A field that is here goes with its hash, or before it if others of its fields are needed
//! ([`super::evict`]); one that changed, or that somebody waits for, does not.

use super::cold::Unreadable;
use super::hash::Hash;
use super::input_gate::{Name, Part};
use super::key::field_hash32;
use super::owned::Keyspace;
use super::slot::Presence;
use super::{DatabaseId, FieldValue, Key, ValueRef};
use crate::sim::{self, Fault};

/// Where something is that somebody needs.
pub(super) enum Lies {
    /// In memory, or known to be missing.
    Here,
    /// In the store, perhaps; the generation of the hash that it is a field of.
    Asleep(u64),
    /// A field of a key that is not here: nobody can say.
    Nowhere,
}

impl Keyspace {
    /// Where a key is, or what of it is meant.
    pub(super) fn lies(&self, key: &Key<'_>, name: &Name) -> Lies {
        let hash = match (self.tables.presence(name.database, key), &name.part) {
            (Presence::Absent, Part::Key) if self.tables.sleeps(name.database, key.slot) => {
                return Lies::Asleep(0);
            }
            (_, Part::Key) | (Presence::Tombstone, _) => return Lies::Here,
            (Presence::Absent, _) => return Lies::Nowhere,
            (Presence::Live(entry), _) => match entry.value() {
                ValueRef::Hash(hash) => hash,
                _ => return Lies::Here,
            },
        };
        let known = match &name.part {
            Part::Field(field) => hash.knows(field_hash32(field, self.seed), field),
            _ => hash.is_whole(),
        };
        match known {
            true => Lies::Here,
            false => Lies::Asleep(hash.generation()),
        }
    }

    /// Makes sure that a field (its hash and name) is here if the hash at a key has it. Whether it
    /// is known now; `patient`: it may be waited for, and is wanted.
    pub(super) fn wake_field(
        &mut self,
        database: DatabaseId,
        key: &Key<'_>,
        (field_hash, name): (u32, &[u8]),
        patient: bool,
    ) -> bool {
        let generation = match self.hash_in_part(database, key) {
            Some(hash) if !hash.knows(field_hash, name) => hash.generation(),
            _ => return true,
        };
        if sim::fault(Fault::SleepingFieldMissing) {
            return true;
        }
        let part = Part::Field(name.into());
        if !self.ask_gate(database, key, &part, patient) {
            return self.is_known_to_gate(database, key, &part);
        }
        let Some(cold) = &self.cold else {
            return false;
        };
        match cold.field(database, key, generation, (field_hash, name)) {
            Ok(found) => {
                self.tell_gate(database, key, &part);
                if let Some(value) = found {
                    self.field_woke(database, key, generation, (field_hash, name), value);
                }
                true
            }
            Err(error) => {
                self.unreadable.get_or_insert(error);
                false
            }
        }
    }

    /// Makes sure that all fields of the hash at a key are here. Whether they are; `patient`: they
    /// may be waited for, and are wanted.
    pub(super) fn wake_fields(
        &mut self,
        database: DatabaseId,
        key: &Key<'_>,
        patient: bool,
    ) -> bool {
        let Some(hash) = self.hash_in_part(database, key) else {
            return true;
        };
        let generation = hash.generation();
        if !self.ask_gate(database, key, &Part::Fields, patient)
            && !self.is_known_to_gate(database, key, &Part::Fields)
        {
            return false;
        }
        let woke = match self.stored_fields(database, key, generation) {
            Some(stored) => {
                self.tell_gate(database, key, &Part::Fields);
                self.fields_woke(database, key, stored)
            }
            None => return false,
        };
        if let Err(error) = woke {
            self.unreadable.get_or_insert(error);
            return false;
        }
        true
    }

    /// All fields that the store has of a hash. Why not, if they cannot be read, is kept.
    pub(super) fn stored_fields(
        &mut self,
        database: DatabaseId,
        key: &Key<'_>,
        generation: u64,
    ) -> Option<Hash> {
        let stored = self.cold.as_ref()?.fields(database, key, generation);
        match stored {
            Ok(stored) => Some(*stored),
            Err(error) => {
                self.unreadable.get_or_insert(error);
                None
            }
        }
    }

    /// The store has this field (its hash and name) of the hash of a generation.
    pub(super) fn field_woke(
        &mut self,
        database: DatabaseId,
        key: &Key<'_>,
        generation: u64,
        (field_hash, name): (u32, &[u8]),
        (value, expires_at_ms): (FieldValue, u64),
    ) {
        let Some(mut hash) = self.tables.hash_quietly(database, key) else {
            return;
        };
        if hash.generation() != generation || hash.knows(field_hash, name) {
            return;
        }
        hash.wake(field_hash, name, value, expires_at_ms);
        let whole = hash.is_whole();
        drop(hash);
        self.stats.woken_fields += 1;
        if whole {
            self.tell_gate_of_fields(database, key);
        }
    }

    /// The store has these fields of the hash of a generation.
    pub(super) fn fields_woke(
        &mut self,
        database: DatabaseId,
        key: &Key<'_>,
        stored: Hash,
    ) -> Result<(), Unreadable> {
        // During replay the store may be newer.
        let exact = self.totals.is_none();
        let Some(mut hash) = self.tables.hash_quietly(database, key) else {
            return Ok(());
        };
        if hash.is_whole() || hash.generation() != stored.generation() {
            return Ok(());
        }
        let (fields, found) = (hash.len(), stored.len());
        let before = hash.fields_here();
        if !hash.complete(stored, exact) {
            let key = key.bytes.escape_ascii();
            return Err(Unreadable::Failed(format!(
                "DAMAGED the hash {key} has {fields} fields, and {found} were found in the store; \
                 restore it from a backup"
            )));
        }
        self.stats.woken_fields += hash.fields_here().saturating_sub(before) as u64;
        drop(hash);
        self.tell_gate_of_fields(database, key);
        Ok(())
    }

    /// Wakes all fields of the hashes of a slot.
    pub(super) fn wake_fields_of_slot(&mut self, database: DatabaseId, slot: u16) {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        self.tables
            .scan_slot(database, slot, 0, usize::MAX, |entry| {
                if matches!(entry.value(), ValueRef::Hash(hash) if !hash.is_whole()) {
                    keys.push(entry.key().to_vec());
                }
            });
        for key in keys {
            let key = Key::of_database(database, &key, self.seed);
            self.wake_fields(database, &key, false);
        }
    }

    /// The hash at a key, if it is here in part.
    fn hash_in_part(&self, database: DatabaseId, key: &Key<'_>) -> Option<&Hash> {
        match self.tables.get(database, key)?.value() {
            ValueRef::Hash(hash) if !hash.is_whole() => Some(hash),
            _ => None,
        }
    }
}
