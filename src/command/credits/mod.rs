//! Credits: RESERVE holds an amount before the work, SETTLE charges what it came to.
//!
//! An account is a hash: field `balance`, and one field per hold, open or settled. Always true: a
//! reservation never takes what is available below its bound; a hold ends once, by SETTLE, by the
//! owner's timer or by a user who deletes its field; a call that is refused changes nothing.

mod reserve;
mod settle;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use crate::command::Row;
use crate::keyspace::hold::{BALANCE, Hold, PREFIX_BYTES_MAX, Sheet, settled_field};
use crate::keyspace::{Field, Key, Txn};
use crate::limits::FIELD_BYTES_MAX;
use crate::reply::{Reject, Reply};

/// The family's commands.
pub const COMMANDS: &[Row] = &[
    Row::keys::<reserve::Reserve>(),
    Row::keys::<settle::Settle>(),
];

/// Longest id of a hold, in bytes: its field names must fit.
const ID_BYTES_MAX: usize = FIELD_BYTES_MAX - PREFIX_BYTES_MAX;

/// What an account has.
#[derive(Clone, Copy, Debug, Default)]
struct Account {
    balance: i64,
    /// The sum of all open holds, and their number.
    held: i128,
    holds: usize,
}

impl Account {
    /// The account at a key; a missing key or field is a balance of 0.
    ///
    /// # Errors
    /// WRONGTYPE; a balance that is no integer.
    fn at(txn: &mut Txn<'_>, key: &Key<'_>, command: &str) -> Result<Account, Reject> {
        let Some(hash) = txn.hash(key)? else {
            return Ok(Account::default());
        };
        let (held, holds) = (hash.held(), hash.holds());
        let balance = match txn.field(key, BALANCE)? {
            None => 0,
            Some(field) => field
                .value
                .counter()
                .ok_or_else(|| Reject::err(format!("{command}: balance is not an integer")))?,
        };
        Ok(Account {
            balance,
            held,
            holds,
        })
    }

    /// The balance less all open holds; 64 bits may not hold it.
    fn available(&self) -> i128 {
        i128::from(self.balance) - self.held
    }

    fn sheet(&self) -> Sheet {
        Sheet::new(self.balance, self.held)
    }
}

/// What is remembered of the hold with an id that ended.
///
/// # Errors
/// WRONGTYPE.
fn settled(txn: &mut Txn<'_>, key: &Key<'_>, id: &[u8]) -> Result<Option<Hold>, Reject> {
    let record = |field: &Field| field.value.hold().cloned();
    Ok(txn.field(key, &settled_field(id))?.and_then(record))
}

/// An id must name something, and its fields must be short enough.
fn check_id(id: &[u8], command: &str) -> Result<(), Reject> {
    match id.len() {
        0 => Err(Reject::err(format!("{command}: id must not be empty"))),
        1..=ID_BYTES_MAX => Ok(()),
        _ => Err(Reject::err(format!(
            "{command}: id is longer than {ID_BYTES_MAX} bytes"
        ))),
    }
}

/// Status, token or charged amount, and the sheet: what both commands answer.
fn answer(reply: &mut Reply<'_>, status: i64, number: i64, sheet: Sheet) {
    reply.array(4);
    for integer in [status, number, sheet.available, sheet.held] {
        reply.integer(integer);
    }
}
