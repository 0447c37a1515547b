//! A command's view of single fields of hashes: the part of [`Txn`] that reads and writes them.
//!
//! Always true: a write of a field costs a search, whatever the size of the hash, and the turn logs
//! only this field. A hash is made by its first field and goes with its last one.

use crate::keyspace::key::{Key, field_hash32};
use crate::keyspace::slot::Spot;
use crate::keyspace::txn::Txn;
use crate::keyspace::undo::Before;
use crate::keyspace::{Field, FieldValue, Hash, HashRef, Value, ValueRef};
use crate::limits::FIELD_BYTES_MAX;
use crate::reply::Reject;

impl Txn<'_> {
    /// The hash at a key, to find these fields by name; expired fields are gone.
    ///
    /// # Errors
    /// WRONGTYPE for anything else.
    pub fn fields<'n>(
        &mut self,
        key: &Key<'_>,
        names: impl Iterator<Item = &'n [u8]>,
    ) -> Result<Option<HashRef<'_>>, Reject> {
        match self.read(key) {
            Some(spot) => self.fields_at(key, spot, names).map(Some),
            None => Ok(None),
        }
    }

    /// The same of a key whose place is known.
    fn fields_at<'n>(
        &mut self,
        key: &Key<'_>,
        spot: Spot,
        names: impl Iterator<Item = &'n [u8]>,
    ) -> Result<HashRef<'_>, Reject> {
        let (database, patient) = (self.database, self.patient);
        let owner = self.owners.of(key.slot);
        let seed = owner.seed;
        if owner.tables.is_in_part(spot) {
            for name in names {
                let field = (field_hash32(name, seed), name);
                owner.wake_field(database, key, field, patient);
            }
        }
        match owner.tables.at_touched(spot).map(|entry| entry.value()) {
            Some(ValueRef::Hash(hash)) => Ok(HashRef::new(hash, seed)),
            _ => Err(Reject::wrong_type()),
        }
    }

    /// A field, if there is the hash and it has the field.
    ///
    /// # Errors
    /// WRONGTYPE for a key that is no hash.
    pub fn field(&mut self, key: &Key<'_>, name: &[u8]) -> Result<Option<&Field>, Reject> {
        let fields = self.fields(key, std::iter::once(name))?;
        Ok(fields.and_then(|fields| fields.get(name)))
    }

    /// Whether a field (its hash and name) of a hash that is here in part may be written: it must
    /// be known, and a hash with something that is due must be whole.
    fn may_write(&mut self, key: &Key<'_>, field: (u32, &[u8]), plain: bool) -> bool {
        let (database, patient) = (self.database, self.patient);
        let owner = self.owners.of(key.slot);
        match plain {
            true => owner.wake_field(database, key, field, patient),
            false => owner.wake_fields(database, key, patient),
        }
    }

    /// Sets value and deadline (0: none) of a field; makes the hash if there is none. Whether the
    /// field is new.
    ///
    /// # Errors
    /// WRONGTYPE for a key that is no hash; a field name that is too long.
    pub fn put_field(
        &mut self,
        key: &Key<'_>,
        name: &[u8],
        value: FieldValue,
        expires_at_ms: u64,
    ) -> Result<bool, Reject> {
        if name.len() > FIELD_BYTES_MAX {
            return Err(Reject::err(format!(
                "a field name is longer than {FIELD_BYTES_MAX} bytes"
            )));
        }
        let spot = match self.look(key) {
            Some(spot) => spot,
            None => {
                let generation = self.token(key)?;
                // The turn logs it whole, with the fields that it gets.
                self.put(key, Value::Hash(Box::new(Hash::new(generation))), 0);
                let spot = self.find(key);
                // Nothing is put where something is that cannot be read.
                spot.ok_or(Reject::wrong_type())?
            }
        };
        self.put_field_at(key, spot, name, value, expires_at_ms)
    }

    /// The same of a key whose place is known, and a name that is short enough.
    fn put_field_at(
        &mut self,
        key: &Key<'_>,
        spot: Spot,
        name: &[u8],
        value: FieldValue,
        expires_at_ms: u64,
    ) -> Result<bool, Reject> {
        let entry = self.owners.of(key.slot).tables.at(spot);
        let in_part = match entry.map(|entry| entry.value()) {
            Some(ValueRef::Hash(hash)) => !hash.is_whole(),
            _ => return Err(Reject::wrong_type()),
        };
        let field_hash = self.field_hash(name);
        let plain = expires_at_ms == 0 && value.open_hold().is_none();
        if in_part && !self.may_write(key, (field_hash, name), plain) {
            // It is going to be taken back.
            return Ok(true);
        }
        let value_bytes = value.logged_bytes();
        let database = self.database;
        let owner = self.owners.of(key.slot);
        let Some(mut hash) = owner.tables.hash_mut_at(spot) else {
            return Err(Reject::wrong_type());
        };
        let before_ms = hash.next_deadline_ms();
        let before = hash.insert(field_hash, name, value, expires_at_ms);
        let due_ms = hash.next_deadline_ms();
        drop(hash);
        owner.hint(database, key, before_ms, due_ms);
        owner.written(database, key);
        let touched = owner.turn.touch_field(database, key, name);
        owner.turn.lies_at(touched, spot);
        let new = before.is_none();
        let before = match before {
            Some(field) => Before::Field(field),
            None => Before::NoField(field_hash, name.into()),
        };
        owner.undo.push(touched, before);
        self.wrote(key, name.len() + value_bytes);
        Ok(new)
    }

    /// Adds to the integer in a field (missing: 0), keeping its deadline. Returns the sum.
    ///
    /// # Errors
    /// WRONGTYPE, not an integer, or overflow; nothing changes.
    pub fn add_field(&mut self, key: &Key<'_>, name: &[u8], by: i64) -> Result<i64, Reject> {
        let Some(spot) = self.read(key) else {
            self.put_field(key, name, FieldValue::from_counter(by), 0)?;
            return Ok(by);
        };
        let fields = self.fields_at(key, spot, std::iter::once(name))?;
        let (before, expires_at_ms) = match fields.get(name) {
            None => {
                self.put_field(key, name, FieldValue::from_counter(by), 0)?;
                return Ok(by);
            }
            Some(field) => {
                let before = field.value.counter();
                let before = before.ok_or(Reject::fixed("ERR hash value is not an integer"))?;
                (before, field.expires_at_ms)
            }
        };
        let after = before.checked_add(by).ok_or(Reject::overflow())?;
        let value = FieldValue::from_counter(after);
        self.put_field_at(key, spot, name, value, expires_at_ms)?;
        Ok(after)
    }

    /// Removes a field, and the hash with its last one. What was there.
    ///
    /// # Errors
    /// WRONGTYPE for a key that is no hash.
    pub fn delete_field(&mut self, key: &Key<'_>, name: &[u8]) -> Result<Option<Field>, Reject> {
        // Looked for first: what is not there is not written either.
        if self.field(key, name)?.is_none() {
            return Ok(None);
        }
        let field_hash = self.field_hash(name);
        let database = self.database;
        let owner = self.owners.of(key.slot);
        let Some(mut hash) = owner.tables.hash_mut(database, key) else {
            return Ok(None);
        };
        let Some(field) = hash.remove(field_hash, name) else {
            return Ok(None);
        };
        let empty = hash.is_empty();
        drop(hash);
        owner.written(database, key);
        let touched = owner.turn.touch_field(database, key, name);
        owner.undo.push(touched, Before::Field(field.clone()));
        self.wrote(key, name.len());
        if empty {
            self.delete(key);
        }
        Ok(Some(field))
    }

    /// Sets the deadline of a field (0: none); whether there is the field.
    ///
    /// # Errors
    /// WRONGTYPE for a key that is no hash.
    pub fn set_field_deadline(
        &mut self,
        key: &Key<'_>,
        name: &[u8],
        expires_at_ms: u64,
    ) -> Result<bool, Reject> {
        let Some(field) = self.field(key, name)? else {
            return Ok(false);
        };
        // A long value is shared, not copied.
        let value = field.value.clone();
        self.put_field(key, name, value, expires_at_ms)?;
        Ok(true)
    }
}
