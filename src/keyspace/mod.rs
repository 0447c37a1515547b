//! The keyspace: the in-memory table of a shard, and what a command sees of it.

pub mod cell;
pub mod entry;
pub mod field;
pub mod hash;
pub mod key;
pub mod segment;
pub mod slot;
pub mod sweep;
pub mod value;

mod arena;
mod boxes;
mod directory;
mod scan;

#[cfg(test)]
mod model;

pub use cell::Cell;
pub use entry::{EntryRef, EntryState};
pub use field::{Field, FieldValue};
pub use hash::{Hash, HashMut};
pub use key::Key;
pub use slot::{Database, DatabaseId, Presence, Tables};
pub use sweep::{SweepCursor, Swept};
pub use value::{Kind, Value, ValueRef, parse_counter};
