//! Finding rows that nobody can reach any more: those of dead database ids, and fields of retired
//! hash generations. A checkpoint removes them (its `dead` argument).
//!
//! Always true here: what is dead stays dead, because ids and generations are never used again. So
//! keys found here may be removed by any later ingestion, in any order with live writes.

use super::{Store, StoreError, row, row::RowKey};

/// What one look at the store found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadRows {
    /// Keys of dead rows, ascending.
    pub keys: Vec<Vec<u8>>,
    /// Where to go on; `None` when `to` was reached.
    pub next: Option<Vec<u8>>,
}

/// Looks at no more than `looks_max` rows from `from` (inclusive) to `to` (exclusive) and returns
/// the keys of those that `is_dead` names. A row key that cannot be read is damage.
pub fn dead_rows(
    store: &dyn Store,
    is_dead: &dyn Fn(&RowKey<'_>) -> bool,
    from: &[u8],
    to: &[u8],
    looks_max: usize,
) -> Result<DeadRows, StoreError> {
    let mut found = DeadRows::default();
    for (look, next) in store.scan(from, to.min(&row::META_KEY)).enumerate() {
        let (key, _) = next?;
        if look == looks_max {
            found.next = Some(key.to_vec());
            break;
        }
        let row = RowKey::decode(&key)
            .map_err(|error| StoreError::damaged("a row of the store", error.to_string()))?;
        if is_dead(&row) {
            found.keys.push(key.to_vec());
        }
    }
    Ok(found)
}
