//! What the log says behind the store's position, as far as the check needs it.
//!
//! Always true: later effects win over earlier ones, and all of them over the store.

use bytes::Bytes;
use hashbrown::HashMap;
use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::keyspace::codec::{Mutation, Mutations, Stored, Undecodable};
use crate::keyspace::databases::Databases;
use crate::keyspace::key::slot_of;
use crate::keyspace::{FieldValue, Value};
use crate::store::Meta;

/// A key that the log touches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Touched {
    pub slot: u16,
    pub database: u32,
    /// It is there after the last effect on it.
    pub is_there: bool,
}

/// The log's tail.
pub(super) struct Tail {
    /// By a hash of 128 bits over database and key: wide enough that no two keys share one.
    pub touched: HashMap<u128, Touched>,
    /// The last count of each slot and database id.
    pub counts: HashMap<(u16, u32), u64>,
    pub databases: Databases,
    pub token_ceiling: u64,
    /// The highest token of a state cell.
    pub token_max: u64,
}

/// Names a key over all databases.
pub(super) fn digest(database: u32, key: &[u8]) -> u128 {
    xxh3_128_with_seed(key, u64::from(database))
}

impl Tail {
    pub fn new(meta: &Meta) -> Tail {
        Tail {
            touched: HashMap::new(),
            counts: HashMap::new(),
            databases: super::databases_of(meta),
            token_ceiling: meta.token_ceiling,
            token_max: 0,
        }
    }

    /// Takes one batch.
    pub fn add(&mut self, payload: Bytes) -> Result<(), Undecodable> {
        for mutation in Mutations::of(&payload) {
            match mutation? {
                Mutation::Put {
                    database,
                    key,
                    stored,
                    ..
                } => {
                    self.see(&stored);
                    self.touch(database, key, true);
                }
                Mutation::Part { database, key, .. } => self.touch(database, key, true),
                Mutation::Fields {
                    database,
                    key,
                    fields,
                    ..
                } => {
                    let values = fields.iter().filter_map(|(_, field)| field.as_ref());
                    values.for_each(|(value, _)| self.see_field(value));
                    self.touch(database, key, true);
                }
                Mutation::Delete { database, key } => self.touch(database, key, false),
                // Of a key that may not be there: it changes no key's presence.
                Mutation::Deadline { .. } | Mutation::Retired { .. } => {}
                Mutation::Count {
                    slot,
                    database,
                    keys,
                } => {
                    self.counts.insert((slot, database), keys);
                }
                Mutation::Databases { ids, next } => {
                    let numbers = ids.len();
                    self.databases = Databases::restored(ids, next, numbers);
                }
                Mutation::TokenCeiling(ceiling) => {
                    self.token_ceiling = self.token_ceiling.max(ceiling);
                }
            }
        }
        Ok(())
    }

    /// Notes the token of a state cell.
    pub fn see(&mut self, stored: &Stored) {
        if let Stored::Value(Value::Cell(cell)) = stored {
            self.token_max = self.token_max.max(cell.token);
        }
    }

    /// Notes the token of a hold.
    pub fn see_field(&mut self, field: &FieldValue) {
        if let Some(hold) = field.hold() {
            self.token_max = self.token_max.max(hold.token);
        }
    }

    fn touch(&mut self, database: u32, key: &[u8], is_there: bool) {
        let touched = Touched {
            // The seed only makes the stored hash, which is not asked for.
            slot: slot_of(database, key),
            database,
            is_there,
        };
        self.touched.insert(digest(database, key), touched);
    }
}
