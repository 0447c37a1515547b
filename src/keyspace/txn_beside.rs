//! A command's view of what is kept beside keys: the part of [`Txn`] that reads and writes records.
//!
//! A record belongs to a key, and is one whether there is the key or not. It is an entry of the
//! database's *shadow*: a database of its own, that no number leads to, so no command lists or
//! counts it. Always true: a record lives in the slot of its key; it goes with the database that
//! it is the shadow of, and at its own deadline.

use bytes::Bytes;

use crate::keyspace::databases::shadow_of;
use crate::keyspace::key::{Key, record_key};
use crate::keyspace::txn::{Text, Txn};
use crate::keyspace::value::Value;

impl Txn<'_> {
    /// The record beside `key` that is called `id`.
    pub fn record(&mut self, key: &Key<'_>, id: &[u8]) -> Option<Vec<u8>> {
        let name = record_key(key.bytes, id);
        self.in_shadow(|txn| {
            let key = txn.key_in(&name);
            let text = txn.peek(&key).and_then(|entry| Text::of(entry.value()));
            text.map(|text| text.to_vec())
        })
    }

    /// Keeps a record beside `key` until its deadline (0: for ever).
    pub fn put_record(&mut self, key: &Key<'_>, id: &[u8], record: Bytes, deadline_ms: u64) {
        let name = record_key(key.bytes, id);
        self.in_shadow(|txn| {
            let key = txn.key_in(&name);
            txn.put(&key, Value::from_shared(record), deadline_ms);
        });
    }

    /// Looks at the shadow of the database while `f` runs.
    fn in_shadow<R>(&mut self, f: impl FnOnce(&mut Self) -> R) -> R {
        let database = self.database;
        self.database = shadow_of(database);
        let result = f(self);
        self.database = database;
        result
    }

    /// The key of the database that is looked at.
    fn key_in<'k>(&self, bytes: &'k [u8]) -> Key<'k> {
        Key::of_database(self.database, bytes, self.owners.first_ref().seed)
    }
}
