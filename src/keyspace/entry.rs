//! An entry as commands and the checkpoint see it.

use super::{Kind, Value, ValueRef};

/// How an entry stands to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryState {
    /// The store has this value.
    Clean,
    /// Changed since the last sweep took it.
    Dirty,
    /// Taken by the running sweep and unchanged since.
    InFlight,
    /// Taken by the running sweep and changed again.
    InFlightDirty,
}

/// One live entry of the table.
#[derive(Clone, Copy)]
pub struct EntryRef<'a> {
    todo: &'a (),
}

impl<'a> EntryRef<'a> {
    /// The key.
    pub fn key(&self) -> &'a [u8] {
        todo!()
    }
    /// The stored 32-bit hash of the key.
    pub fn hash32(&self) -> u32 {
        todo!()
    }
    /// The value where it lies.
    pub fn value(&self) -> ValueRef<'a> {
        todo!()
    }
    /// The value as an owned one: a large string is shared, everything else is copied.
    pub fn to_value(&self) -> Value {
        todo!()
    }
    /// Which form the value has.
    pub fn kind(&self) -> Kind {
        todo!()
    }
    /// When the key expires, in milliseconds since the Unix epoch; 0: never.
    pub fn deadline_ms(&self) -> u64 {
        todo!()
    }
    /// How the entry stands to the store (exact while no sweep is paused inside its segment).
    pub fn state(&self) -> EntryState {
        todo!()
    }
    /// The coarse clock at the last use, as given to `Tables::set_stamp`.
    pub fn stamp(&self) -> u8 {
        todo!()
    }
    /// Bytes of memory behind this entry, for MEMORY USAGE.
    pub fn memory_bytes(&self) -> usize {
        todo!()
    }
}
