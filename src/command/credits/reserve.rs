//! RESERVE: holds an amount of an account until it is settled.

use crate::command::KeyCommand;
use crate::command::credits::{Account, answer, check_id, settled};
use crate::command::expiry::{Expiry, HasExpiry, OwnExpiryArgs};
use crate::command::spec::{Arg, Group, Needs, Spec, Type, Word, flag};
use crate::keyspace::hold::{Sheet, hold_field};
use crate::keyspace::{FieldValue, Hold, Key, Txn};
use crate::limits::{FIELD_DEADLINE_MS_MAX, HOLDS_MAX, SETTLED_KEEP_MS_DEFAULT};
use crate::number::parse_i64;
use crate::reply::{Reject, Reply};
use crate::resp::decode::Args;

/// Holds an amount.
#[derive(Default)]
pub(super) struct Reserve {
    key: Word,
    id: Word,
    amount: i64,
    expiry: Expiry,
    lower_bound: i64,
    charge: bool,
    keep_ms: Option<u64>,
}

impl HasExpiry for Reserve {
    fn expiry(&mut self) -> &mut Expiry {
        &mut self.expiry
    }
}

const AMOUNT: Reject =
    Reject::fixed("ERR RESERVE: amount must be an integer from 1 to 9223372036854775807");
const KEEP: Reject =
    Reject::fixed("ERR RESERVE: KEEP must be an integer of at least 1 millisecond");
const TOO_LATE: Reject =
    Reject::fixed("ERR RESERVE: the deadline and KEEP must end before the year 4199");
const NOT_A_HOLD: Reject =
    Reject::fixed("ERR RESERVE: the field of this id exists and is not a hold");
const HELD_OVERFLOW: Reject =
    Reject::fixed("ERR RESERVE: amount would overflow the sum of the open holds");

impl KeyCommand for Reserve {
    const SPEC: Spec = Spec::write(
        "reserve",
        Group::Credits,
        "Holds an amount of an account until it is settled or its time is up.",
    )
    .since("tallyman")
    .complexity("O(log N), where N is the number of fields.")
    .with(flag::FAST | flag::DENYOOM)
    .reply(
        "Array of four integers: status, token, available, held. Status 1: the amount is held; 0: \
         not enough, available would fall below LBOUND; -1: the id is in use with another amount. \
         The token is 0 unless the status is 1. Available is the balance less all open holds, held \
         is their sum.",
    )
    .notes(
        "The account is a hash: field balance, an integer, 0 if it is missing. An open hold is the \
         field hold:<id>, which HGET shows as JSON; available is never counted from its text. \
         Repeating an id that is open or was charged returns the first answer with the same token, \
         whatever options it brings, and changes nothing; after a release, or once KEEP is over, \
         the id may be reserved again and gets a new token. At the deadline the hold is given back \
         and leaves nothing, or is charged with ONEXPIRE CHARGE and then counts as settled, also \
         when the balance has become less than the hold; a balance that is no integer by then \
         cannot be charged. A hold has no field TTL: HTTL answers -1. HDEL of the field, or \
         writing over it, gives the hold back without a record; where a user has written the \
         field, RESERVE of that id is an error. RENAME, MOVE and COPY take holds along, DUMP \
         leaves open holds and kept ends out. At most 1024 open holds per account: one more is an \
         error. A deadline that has passed (unless the call repeats one), an empty id and a sum of \
         holds beyond 64 bits are errors.",
    );
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the account", |c, word| c.key = word),
        Arg::parsed(
            "id",
            "names the hold, as the id of the job",
            Type::Text,
            |c, text, word| {
                c.id = word;
                check_id(text, "RESERVE")
            },
        ),
        Arg::parsed(
            "amount",
            "how much is held, at least 1",
            Type::Integer,
            |c: &mut Reserve, text, _| {
                c.amount = parse_i64(text).filter(|amount| *amount > 0).ok_or(AMOUNT)?;
                Ok(())
            },
        ),
        Arg::one_of(
            "expiration",
            "when the hold ends by itself",
            &[
                OwnExpiryArgs::<Reserve>::EX,
                OwnExpiryArgs::<Reserve>::PX,
                OwnExpiryArgs::<Reserve>::EXAT,
                OwnExpiryArgs::<Reserve>::PXAT,
            ],
        )
        .required(),
        Arg::parsed(
            "lower-bound",
            "what is available may not fall below it; 0 without it",
            Type::Integer,
            |c: &mut Reserve, text, _| {
                c.lower_bound = parse_i64(text)
                    .ok_or(Reject::fixed("ERR RESERVE: LBOUND must be an integer"))?;
                Ok(())
            },
        )
        .after("LBOUND")
        .optional()
        .once(),
        Arg::word(
            "on-expire",
            "what happens to the hold at its deadline",
            &[
                Arg::flag("REFUND", "it is given back; the default", |_| {}),
                Arg::flag("CHARGE", "it is charged", |_| {}),
            ],
            |c: &mut Reserve, text, _| {
                c.charge = text.eq_ignore_ascii_case(b"CHARGE");
                match c.charge || text.eq_ignore_ascii_case(b"REFUND") {
                    true => Ok(()),
                    false => Err(Reject::fixed(
                        "ERR RESERVE: ONEXPIRE must be REFUND or CHARGE",
                    )),
                }
            },
        )
        .after("ONEXPIRE")
        .optional()
        .once(),
        Arg::parsed(
            "keep-milliseconds",
            "how long the end of the hold is remembered; a day without it",
            Type::Integer,
            |c: &mut Reserve, text, _| {
                let keep_ms = parse_i64(text).filter(|keep_ms| *keep_ms > 0).ok_or(KEEP)?;
                c.keep_ms = Some(keep_ms as u64);
                Ok(())
            },
        )
        .after("KEEP")
        .optional()
        .once(),
    ];

    fn needs(&self) -> Needs {
        Needs::AllFields
    }

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        // What is no time at all is an error on a repeat too; that it has passed is none there.
        let deadline_ms = self.expiry.deadline_ms(txn.now_ms(), "RESERVE")?;
        let (key, id) = (txn.key(args.word(self.key)), args.word(self.id));
        let known = earlier(txn, &key, id)?;
        if let Some(hold) = known.as_ref().filter(|hold| hold.amount == self.amount) {
            answer(reply, 1, hold.token as i64, hold.reserved);
            return Ok(());
        }
        let account = Account::at(txn, &key, "RESERVE")?;
        if known.is_some() {
            answer(reply, -1, 0, account.sheet());
            return Ok(());
        }
        self.expiry.future_ms(txn.now_ms(), "RESERVE")?;
        let deadline_ms = deadline_ms.unwrap_or(0);
        let keep_ms = self.keep_ms.unwrap_or(SETTLED_KEEP_MS_DEFAULT);
        if deadline_ms.saturating_add(keep_ms) > FIELD_DEADLINE_MS_MAX {
            return Err(TOO_LATE);
        }
        if account.available() - i128::from(self.amount) < i128::from(self.lower_bound) {
            answer(reply, 0, 0, account.sheet());
            return Ok(());
        }
        if account.holds >= HOLDS_MAX {
            let text = format!("RESERVE: the account has {HOLDS_MAX} open holds already");
            return Err(Reject::err(text));
        }
        let held = account.held + i128::from(self.amount);
        if held > i128::from(i64::MAX) {
            return Err(HELD_OVERFLOW);
        }
        let hold = Hold {
            token: txn.token(&key)?,
            amount: self.amount,
            reserved: Sheet::new(account.balance, held),
            deadline_ms,
            charge: self.charge,
            keep_ms,
            end: None,
        };
        answer(reply, 1, hold.token as i64, hold.reserved);
        txn.put_field(&key, &hold_field(id), FieldValue::from_hold(hold), 0)?;
        Ok(())
    }
}

/// The hold that uses this id: open, or charged and remembered. A released one does not.
fn earlier(txn: &mut Txn<'_>, key: &Key<'_>, id: &[u8]) -> Result<Option<Hold>, Reject> {
    if let Some(field) = txn.field(key, &hold_field(id))? {
        return match field.value.open_hold() {
            Some(hold) => Ok(Some(hold.clone())),
            None => Err(NOT_A_HOLD),
        };
    }
    let charged = |hold: &Hold| hold.end.is_some_and(|end| end.charged > 0);
    Ok(settled(txn, key, id)?.filter(charged))
}
