//! A hold of credits in an account, and what is left of it once it ended. RESERVE and SETTLE make
//! the rules; here are the record, and what the owner's timer does at the deadline.
//!
//! An account is a hash. Always true: an open hold is the value of a field `hold:<id>`, an ended
//! one that of `settled:<id>`; whoever reads the field sees a text, and whoever writes over it has
//! an ordinary field. An open hold's deadline takes part in the hash's next deadline, but is none
//! of the field: at that time the hold is given back or charged.

use crate::keyspace::field::{Field, FieldValue};
use crate::keyspace::hash::Hash;
use crate::keyspace::key::field_hash32;
use crate::limits::FIELD_DEADLINE_MS_MAX;

/// The field with what an account has; held credits are still in it.
pub const BALANCE: &[u8] = b"balance";
const HOLD_PREFIX: &[u8] = b"hold:";
const SETTLED_PREFIX: &[u8] = b"settled:";
/// Longer than both prefixes of field names.
pub const PREFIX_BYTES_MAX: usize = SETTLED_PREFIX.len();

/// What the account had when an answer was given: available, and held by all open holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sheet {
    /// The balance less all open holds.
    pub available: i64,
    /// The sum of all open holds.
    pub held: i64,
}

/// A hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Who settles it must know it: positive, below 2^53, never used twice.
    pub token: u64,
    /// Credits that are held, above zero.
    pub amount: i64,
    /// What RESERVE answered.
    pub reserved: Sheet,
    /// When it ends by itself, ms since the Unix epoch.
    pub deadline_ms: u64,
    /// It is charged then; otherwise given back.
    pub charge: bool,
    /// How long its end is remembered, ms.
    pub keep_ms: u64,
    /// How it ended; `None` while it is open.
    pub end: Option<End>,
}

/// How a hold ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Credits that were taken from the balance; 0: it was released.
    pub charged: i64,
    /// What SETTLE answered.
    pub settled: Sheet,
}

impl Sheet {
    /// The sheet of a balance under so many held credits; what 64 bits cannot hold is cut off.
    pub fn new(balance: i64, held: i128) -> Sheet {
        Sheet {
            available: saturated(i128::from(balance) - held),
            held: saturated(held),
        }
    }
}

fn saturated(credits: i128) -> i64 {
    credits.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

impl Hold {
    /// What a reader of its field sees.
    pub(super) fn text(&self) -> String {
        let Hold { amount, token, .. } = self;
        match self.end {
            None => {
                let deadline_ms = self.deadline_ms;
                let onexpire = if self.charge { "charge" } else { "refund" };
                format!(
                    "{{\"amount\":{amount},\"token\":{token},\"until\":{deadline_ms},\
                     \"onexpire\":\"{onexpire}\"}}"
                )
            }
            Some(End { charged, .. }) => {
                format!("{{\"amount\":{amount},\"token\":{token},\"charged\":{charged}}}")
            }
        }
    }

    /// When the record of its end is forgotten, if it ends at `end_ms`.
    pub fn kept_until_ms(&self, end_ms: u64) -> u64 {
        end_ms
            .saturating_add(self.keep_ms)
            .min(FIELD_DEADLINE_MS_MAX)
    }
}

/// The field of the open hold with an id.
pub fn hold_field(id: &[u8]) -> Vec<u8> {
    [HOLD_PREFIX, id].concat()
}

/// The field that remembers how the hold with an id ended.
pub fn settled_field(id: &[u8]) -> Vec<u8> {
    [SETTLED_PREFIX, id].concat()
}

/// What a hold that was removed from `hash` at its deadline leaves behind: nothing if it is given
/// back; if it is charged, a lower balance and a record. Returns the names of what it wrote. A
/// balance that is no integer cannot be charged, one that is missing is 0.
pub(super) fn end_at_deadline(
    hash: &mut Hash,
    seed: u64,
    field: &Field,
    now_ms: u64,
) -> Vec<Box<[u8]>> {
    let mut written: Vec<Box<[u8]>> = Vec::new();
    let hold = field.value.open_hold().filter(|hold| hold.charge);
    let id = field.name().strip_prefix(HOLD_PREFIX);
    let (Some(hold), Some(id)) = (hold, id) else {
        return written;
    };
    let balance_hash = field_hash32(BALANCE, seed);
    let (balance, balance_until_ms) = match hash.get(balance_hash, BALANCE) {
        None => (Some(0), 0),
        Some(field) => (field.value.counter(), field.expires_at_ms),
    };
    let after = balance.map(|balance| balance.saturating_sub(hold.amount));
    if let Some(after) = after {
        let value = FieldValue::from_counter(after);
        hash.insert(balance_hash, BALANCE, value, balance_until_ms);
        written.push(BALANCE.into());
    }
    let mut ended = hold.clone();
    ended.end = Some(End {
        // Less than the amount only at the end of 64 bits.
        charged: balance
            .zip(after)
            .map_or(0, |(balance, after)| balance - after),
        settled: Sheet::new(after.unwrap_or(0), hash.held()),
    });
    let name = settled_field(id);
    // As of the deadline, however late it is noticed: after a long stop nothing may be left.
    let kept_until_ms = hold.kept_until_ms(hold.deadline_ms);
    let name_hash = field_hash32(&name, seed);
    if kept_until_ms > now_ms {
        let value = FieldValue::from_hold(ended);
        hash.insert(name_hash, &name, value, kept_until_ms);
    } else {
        hash.remove(name_hash, &name);
    }
    written.push(name.into());
    written
}
