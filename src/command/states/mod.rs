//! State cells: who may work on this now, and did the world move on. SETIFIDLE, SETIDLE and RENEW
//! are a lease with a kept result; SETSTATE and GETSTATE are guarded changes of a state.
//!
//! A state cell is a string with a token: TYPE, GET and TTL see the string. Always true: a token is
//! above zero and never used twice; every transition of a key takes a new, higher one; a write by
//! any other command leaves an ordinary string, whose token is 0. A call that is refused changes
//! nothing.

mod lease;
mod machine;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use bytes::Bytes;

use crate::command::Row;
use crate::keyspace::{Cell, Key, Txn, Value, ValueRef};
use crate::reply::Reject;

/// The family's commands.
pub const COMMANDS: &[Row] = &[
    Row::keys::<lease::SetIfIdle>(),
    Row::keys::<lease::SetIdle>(),
    Row::keys::<lease::Renew>(),
    Row::keys::<machine::SetState>(),
    Row::keys::<machine::GetState>(),
];

/// The state of a key that nobody holds.
const IDLE: &[u8] = b"idle";

/// What a key holds, as these commands see it: an ordinary string is a cell whose token is 0.
struct Current {
    cell: Cell,
    /// 0: none.
    deadline_ms: u64,
}

impl Current {
    /// What is at a key, if there is one.
    ///
    /// # Errors
    /// WRONGTYPE for a hash.
    fn at(txn: &mut Txn<'_>, key: &Key<'_>) -> Result<Option<Current>, Reject> {
        let Some(entry) = txn.entry(key) else {
            return Ok(None);
        };
        let cell = match entry.value() {
            ValueRef::Hash(_) => return Err(Reject::wrong_type()),
            ValueRef::Cell(cell) => cell.clone(),
            ValueRef::String(bytes) => ordinary(Bytes::copy_from_slice(bytes)),
            ValueRef::Counter(number) => ordinary(number.to_string().into()),
        };
        Ok(Some(Current {
            cell,
            deadline_ms: entry.deadline_ms(),
        }))
    }

    /// Free to be taken. A kept result never is, whatever its text.
    fn is_idle(&self) -> bool {
        !self.cell.done && self.cell.state == IDLE
    }

    /// Milliseconds to the deadline, -1 without one.
    fn left_ms(&self, now_ms: u64) -> i64 {
        match self.deadline_ms {
            0 => -1,
            deadline_ms => deadline_ms.saturating_sub(now_ms) as i64,
        }
    }

    /// Makes it what the key holds.
    fn put(&self, txn: &mut Txn<'_>, key: &Key<'_>) {
        let value = Value::Cell(Box::new(self.cell.clone()));
        txn.put(key, value, self.deadline_ms);
    }
}

fn ordinary(state: Bytes) -> Cell {
    Cell {
        token: 0,
        owner: None,
        fingerprint: None,
        done: false,
        state,
    }
}

/// Whether a state may be set: an empty one is a forgotten argument, `idle` is what SETIDLE does.
fn may_be_set(state: &[u8]) -> bool {
    !state.is_empty() && state != IDLE
}
