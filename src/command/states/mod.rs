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
use crate::command::expiry::Expiry;
use crate::keyspace::tokens::TOKEN_END;
use crate::keyspace::{Cell, Key, Txn, Value, ValueRef};
use crate::number::parse_i64;
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

/// A token as an argument; 0 is that of an ordinary string.
fn token(text: &[u8]) -> Option<u64> {
    let token = u64::try_from(parse_i64(text)?).ok()?;
    (token < TOKEN_END).then_some(token)
}

/// The absolute deadline in ms, if one was given to `command`.
///
/// # Errors
/// A time that is no time, or that has passed: a lease that ends before it begins helps nobody.
fn deadline_ms(expiry: Expiry, now_ms: u64, command: &str) -> Result<Option<u64>, Reject> {
    let deadline_ms = expiry.deadline_ms(now_ms, command)?;
    if deadline_ms.is_some_and(|deadline_ms| deadline_ms <= now_ms) {
        let text = format!("{command}: the deadline of EXAT or PXAT has passed");
        return Err(Reject::err(text));
    }
    Ok(deadline_ms)
}
