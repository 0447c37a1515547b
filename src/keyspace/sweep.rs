//! The sweep: hands dirty entries to the checkpoint, slice by slice.

use super::{DatabaseId, EntryRef};

/// Where a sweep goes on.
#[derive(Debug)]
pub struct SweepCursor {
    slot: u16,
}

/// One entry that the sweep gives out.
pub struct Swept<'a> {
    /// Its slot.
    pub slot: u16,
    /// Its database id.
    pub database: DatabaseId,
    /// Its stored hash.
    pub hash32: u32,
    /// Its key.
    pub key: &'a [u8],
    /// The entry, or `None` for a deleted key. Of a hash, only `for_each_in_flight` is to be
    /// written.
    pub entry: Option<EntryRef<'a>>,
}
