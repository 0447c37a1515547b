//! The keyspace: the in-memory table of a shard, and what a command sees of it.

pub mod cell;
pub mod codec;
pub mod cold;
pub mod databases;
pub mod deadlines;
pub mod entry;
pub mod field;
pub mod hash;
pub mod hold;
pub mod input_gate;
pub mod key;
pub mod moved;
pub mod owned;
pub mod segment;
pub mod slot;
pub mod sweep;
pub mod tokens;
pub mod turn;
pub mod txn;
mod txn_beside;
mod txn_fields;
pub mod undo;
pub mod value;
pub mod watched;

mod arena;
mod boxes;
mod directory;
mod due;
mod evict;
mod lazy;
mod replay;
mod scan;
mod walk;
mod warm;

#[cfg(test)]
mod model;

pub use cell::Cell;
pub use cold::Cold;
pub use databases::Databases;
pub use entry::{EntryRef, EntryState};
pub use evict::Evicted;
pub use field::{Field, FieldValue};
pub use hash::{Hash, HashMut, HashRef};
pub use hold::Hold;
pub use key::{Key, key_slot};
pub use owned::Keyspace;
pub use slot::{Database, DatabaseId, Presence, Tables};
pub use sweep::{SweepCursor, SweepPause, Swept};
pub use turn::Wait;
pub use txn::Txn;
pub use value::{Kind, Value, ValueRef, parse_counter};
pub use warm::Warmed;
