//! A hash value: fields in the order of (field hash, field bytes), which is the store's order.

use std::ops::{Deref, DerefMut};

use bytes::Bytes;

/// The value of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldValue {
    todo: (),
}

impl FieldValue {
    /// The string `bytes`: a counter if it is a canonical decimal.
    pub fn from_bytes(_bytes: &[u8]) -> FieldValue {
        todo!()
    }
    /// The string `bytes`, without copying a large one.
    pub fn from_shared(_bytes: Bytes) -> FieldValue {
        todo!()
    }
    /// A counter.
    pub fn from_counter(_counter: i64) -> FieldValue {
        todo!()
    }
    /// The integer, if the value is the canonical decimal of one.
    pub fn counter(&self) -> Option<i64> {
        todo!()
    }
    /// The string, unless it is a counter.
    pub fn text(&self) -> Option<&[u8]> {
        todo!()
    }
    /// The value as a string.
    pub fn to_bytes(&self) -> Bytes {
        todo!()
    }
}

/// One field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its hash (`key::field_hash32`).
    pub hash: u32,
    /// When it expires, in milliseconds since the Unix epoch; 0: never.
    pub expires_at_ms: u64,
    /// Its value.
    pub value: FieldValue,
}

impl Field {
    /// Its name.
    pub fn name(&self) -> &[u8] {
        todo!()
    }
}

/// Fields and their values.
#[derive(Clone, Debug, PartialEq)]
pub struct Hash {
    generation: u64,
}

impl Hash {
    /// An empty hash of a new generation: all that is put into it is dirty.
    pub fn new(_generation: u64) -> Hash {
        todo!()
    }
    /// An empty hash of a generation that the store has; `load` fills it.
    pub fn stored(_generation: u64) -> Hash {
        todo!()
    }
    /// The generation: drawn once per hash, part of its fields' row keys.
    pub fn generation(&self) -> u64 {
        self.generation
    }
    /// Number of fields, expired ones that were not yet removed included.
    pub fn len(&self) -> usize {
        todo!()
    }
    /// True without fields.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The field of this name.
    pub fn get(&self, _hash: u32, _name: &[u8]) -> Option<&Field> {
        todo!()
    }
    /// Sets value and deadline (0: none); returns the field that was there.
    pub fn insert(
        &mut self,
        _hash: u32,
        _name: &[u8],
        _value: FieldValue,
        _ms: u64,
    ) -> Option<Field> {
        todo!()
    }
    /// Puts a field that the store has already: it does not become dirty.
    pub fn load(&mut self, _hash: u32, _name: &[u8], _value: FieldValue, _ms: u64) {
        todo!()
    }
    /// Sets the value of a field in place, keeping its deadline; false when there is none.
    pub fn set_value(&mut self, _hash: u32, _name: &[u8], _value: FieldValue) -> bool {
        todo!()
    }
    /// Sets the deadline of a field (0: none); false when there is none.
    pub fn set_deadline(&mut self, _hash: u32, _name: &[u8], _expires_at_ms: u64) -> bool {
        todo!()
    }
    /// Removes the field.
    pub fn remove(&mut self, _hash: u32, _name: &[u8]) -> Option<Field> {
        todo!()
    }
    /// The fields in order, from field hash `from` on.
    pub fn iter_from(&self, _from: u32) -> impl Iterator<Item = &Field> {
        std::iter::empty()
    }
    /// The fields in order.
    pub fn iter(&self) -> impl Iterator<Item = &Field> {
        self.iter_from(0)
    }
    /// The field at a position in the order, 0 <= position < len: a uniform draw gives a uniform
    /// field.
    pub fn nth(&self, _position: usize) -> Option<&Field> {
        todo!()
    }
    /// The earliest deadline of a field; 0: none has one.
    pub fn next_deadline_ms(&self) -> u64 {
        todo!()
    }
    /// Hash and name of at most `limit` fields whose deadline is at or before `now_ms`.
    pub fn expired(&self, _now_ms: u64, _limit: usize) -> Vec<(u32, Box<[u8]>)> {
        todo!()
    }
    /// Heap bytes behind the hash, estimated.
    pub fn heap_bytes(&self) -> usize {
        todo!()
    }
    /// True when the running sweep took every field: the generation is new to the store.
    pub fn in_flight_whole(&self) -> bool {
        todo!()
    }
    /// What the running sweep took, in order: a field, or `None` where it was removed. `f` gets
    /// field hash, name and field. Whole generations give every field.
    pub fn for_each_in_flight(&self, _f: impl FnMut(u32, &[u8], Option<&Field>)) {
        todo!()
    }
}

/// A hash that is being changed; its memory is counted when this is dropped.
pub struct HashMut<'a> {
    hash: &'a mut Hash,
}

impl Deref for HashMut<'_> {
    type Target = Hash;
    fn deref(&self) -> &Hash {
        self.hash
    }
}

impl DerefMut for HashMut<'_> {
    fn deref_mut(&mut self) -> &mut Hash {
        self.hash
    }
}
