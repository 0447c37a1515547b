//! From rows to keys: how keys that hibernate are read from the store.
//!
//! Always true: a row that cannot be read is an error with its place, never a missing key.

use std::sync::Arc;

use bytes::Bytes;

use crate::keyspace::codec::{self, Stored, Undecodable};
use crate::keyspace::cold::{Cold, Page, Sleeper, Unreadable};
use crate::keyspace::deadlines::Hint;
use crate::keyspace::key::key_hash32;
use crate::keyspace::{DatabaseId, FieldValue, Hash, Key, Kind, Value};
use crate::limits::{ASLEEP_FIELDS_MIN, FIELD_BYTES_MAX, KEY_BYTES_MAX};
use crate::store::row::{self, KeyOf, RowKey};
use crate::store::{DeadlineRows, Store, StoreError};

/// The keys of a store.
pub struct StoredKeys {
    store: Arc<dyn Store>,
}

impl StoredKeys {
    /// The keys of `store`.
    pub fn new(store: Arc<dyn Store>) -> StoredKeys {
        StoredKeys { store }
    }

    /// The fields of a hash.
    fn hash(&self, of: KeyOf<'_>, generation: u64) -> Found<Box<Hash>> {
        let mut hash = Hash::stored(generation);
        let (from, to) = row::fields(of, generation);
        for next in self.store.scan(&from, &to) {
            let (key, value) = next?;
            let RowKey::Field {
                hash: field_hash,
                field,
                ..
            } = decoded(&key)?
            else {
                return Err(damaged(&key, "no field's row").into());
            };
            let (value, expires_at_ms) = codec::field(&mut &value[..])
                .map_err(|error: Undecodable| damaged(&key, &error.to_string()))?;
            hash.load(field_hash, field, value, expires_at_ms);
        }
        Ok(Box::new(hash))
    }
}

type Found<T> = Result<T, Unreadable>;

impl Cold for StoredKeys {
    fn find(
        &self,
        database: DatabaseId,
        key: &Key<'_>,
        exact: bool,
    ) -> Found<Option<(Value, u64)>> {
        if key.bytes.len() > KEY_BYTES_MAX {
            // No row can have it.
            return Ok(None);
        }
        let of = key_of(database, key);
        let row = RowKey::Main(of).encode();
        let Some(value) = self.store.get(&row)? else {
            return Ok(None);
        };
        let (stored, deadline_ms) =
            codec::stored(&mut &value[..]).map_err(|error| damaged(&row, &error.to_string()))?;
        let value = match stored {
            Stored::Value(value) => value,
            Stored::Hash {
                generation,
                length,
                plain: true,
            } if length >= ASLEEP_FIELDS_MIN => {
                Value::Hash(Box::new(Hash::sleeping(generation, length as usize)))
            }
            Stored::Hash {
                generation, length, ..
            } => {
                let hash = self.hash(of, generation)?;
                if exact && hash.len() as u64 != length {
                    let what = format!("it has {length} fields, {} were found", hash.len());
                    return Err(damaged(key.bytes, &what).into());
                }
                Value::Hash(hash)
            }
        };
        Ok(Some((value, deadline_ms)))
    }

    fn field(
        &self,
        database: DatabaseId,
        key: &Key<'_>,
        generation: u64,
        (hash, field): (u32, &[u8]),
    ) -> Found<Option<(FieldValue, u64)>> {
        if field.len() > FIELD_BYTES_MAX {
            // No row can have it.
            return Ok(None);
        }
        let row = RowKey::Field {
            of: key_of(database, key),
            generation,
            hash,
            field,
        }
        .encode();
        let Some(value) = self.store.get(&row)? else {
            return Ok(None);
        };
        let field = codec::field(&mut &value[..]);
        Ok(Some(
            field.map_err(|error| damaged(&row, &error.to_string()))?,
        ))
    }

    fn fields(&self, database: DatabaseId, key: &Key<'_>, generation: u64) -> Found<Box<Hash>> {
        self.hash(key_of(database, key), generation)
    }

    fn page(&self, database: DatabaseId, slot: u16, from_hash32: u32, limit: usize) -> Found<Page> {
        let (from, to) = row::main_from_hash(slot, database, from_hash32);
        let mut page = Page::default();
        for next in self.store.scan(&from, &to) {
            let (key, value) = next?;
            let RowKey::Main(of) = decoded(&key)? else {
                return Err(damaged(&key, "no key's row").into());
            };
            let last = page.keys.last().map(|last: &Sleeper| last.hash32);
            if page.keys.len() >= limit && last != Some(of.hash) {
                page.next = last.and_then(|last| last.checked_add(1));
                return Ok(page);
            }
            let (stored, deadline_ms) = codec::stored(&mut &value[..])
                .map_err(|error| damaged(&key, &error.to_string()))?;
            let kind = match &stored {
                Stored::Value(value) => value.kind(),
                Stored::Hash { .. } => Kind::Hash,
            };
            page.keys.push(Sleeper {
                hash32: of.hash,
                key: Bytes::copy_from_slice(of.key),
                kind,
                deadline_ms,
            });
        }
        Ok(page)
    }
}

/// How many keys each slot has of each database: slot, database id, keys.
///
/// # Errors
/// They cannot be read.
pub fn counts(store: &dyn Store) -> Result<Vec<(u16, u32, u64)>, StoreError> {
    let (from, to) = row::counts();
    let mut counts = Vec::new();
    for next in store.scan(&from, &to) {
        let (key, value) = next?;
        match (RowKey::decode(&key), <[u8; 8]>::try_from(&value[..])) {
            (Ok(RowKey::Count { slot, database }), Ok(keys)) => {
                counts.push((slot, database, u64::from_le_bytes(keys)));
            }
            _ => return Err(damaged(&key, "no count")),
        }
    }
    Ok(counts)
}

/// A look at the deadline rows.
#[derive(Debug, Default)]
pub struct DueRows {
    /// Where to look for what is due, in order.
    pub hints: Vec<Hint>,
    /// The row to go on from; `None` when all were read.
    pub next: Option<Vec<u8>>,
}

/// Reads at most `limit` deadline rows from the row `from` on, of what is due before `to_ms`.
/// `seed` is the folder's. Damaged rows are passed over.
///
/// # Errors
/// The disk fails.
pub fn due_rows(
    store: &dyn Store,
    from: &[u8],
    to_ms: u64,
    limit: usize,
    seed: u64,
) -> Result<DueRows, StoreError> {
    let mut due = DueRows::default();
    for next in DeadlineRows::new(store, from, to_ms) {
        let row = next?;
        if due.hints.len() >= limit {
            due.next = Some(row.to_vec());
            break;
        }
        let Ok(RowKey::Deadline {
            at_ms,
            slot,
            database,
            key,
            ..
        }) = RowKey::decode(&row)
        else {
            continue;
        };
        due.hints.push(Hint {
            at_ms,
            database,
            hash32: key_hash32(key, seed),
            slot,
        });
    }
    Ok(due)
}

fn key_of<'a>(database: DatabaseId, key: &Key<'a>) -> KeyOf<'a> {
    KeyOf {
        slot: key.slot,
        database,
        hash: key.hash32(),
        key: key.bytes,
    }
}

fn decoded(key: &[u8]) -> Result<RowKey<'_>, StoreError> {
    RowKey::decode(key).map_err(|error| damaged(key, &error.to_string()))
}

fn damaged(key: &[u8], what: &str) -> StoreError {
    StoreError::Damaged {
        file: "store".into(),
        what: format!("row {}: {what}", key.escape_ascii()),
    }
}

impl From<StoreError> for Unreadable {
    fn from(error: StoreError) -> Unreadable {
        Unreadable::Failed(match error {
            StoreError::Damaged { .. } => format!("DAMAGED {error}; restore it from a backup"),
            error => format!("ERR the store cannot be read: {error}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MapStore;

    #[test]
    fn no_key_is_found_that_is_too_long_for_a_row() {
        let keys = StoredKeys::new(Arc::new(MapStore::new()));
        for bytes in [KEY_BYTES_MAX, KEY_BYTES_MAX + 1, 100_000] {
            let bytes = vec![b'x'; bytes];
            let found = keys.find(0, &Key::new(&bytes, 7), true);
            assert!(matches!(found, Ok(None)));
        }
    }
}
