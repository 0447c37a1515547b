//! SETTLE: charges what a hold came to and frees the rest.

use crate::command::KeyCommand;
use crate::command::credits::{Account, answer, check_id, settled};
use crate::command::spec::{Arg, Group, Needs, Spec, Type, Word, flag};
use crate::keyspace::hold::{BALANCE, End, Sheet, hold_field, settled_field};
use crate::keyspace::{FieldValue, Hold, Txn, tokens};
use crate::number::parse_i64;
use crate::reply::{Reject, Reply};
use crate::resp::decode::Args;

/// Charges a hold.
#[derive(Default)]
pub(super) struct Settle {
    key: Word,
    id: Word,
    token: u64,
    amount: i64,
    overdraft: Overdraft,
}

/// What happens when more is to be charged than was held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Overdraft {
    /// Nothing.
    #[default]
    Reject,
    /// What was held is charged.
    Clamp,
    /// All is charged.
    Allow,
}

const TOKEN: Reject =
    Reject::fixed("ERR SETTLE: token must be an integer from 0 to 9007199254740991");
const AMOUNT: Reject =
    Reject::fixed("ERR SETTLE: amount must be an integer from 0 to 9223372036854775807");
const BALANCE_OVERFLOW: Reject = Reject::fixed("ERR SETTLE: amount would overflow the balance");

impl KeyCommand for Settle {
    const SPEC: Spec = Spec::write(
        "settle",
        Group::Credits,
        "Charges what a hold came to and frees the rest of it.",
    )
    .since("tallyman")
    .complexity("O(log N), where N is the number of fields.")
    .with(flag::FAST | flag::DENYOOM)
    .reply(
        "Array of four integers: status, charged, available, held. Status 1: settled; 0: the token \
         is not that hold's; -1: the amount is more than was held, and OVERDRAFT is REJECT. With 0 \
         and -1 nothing is charged and nothing changes. Available is the balance less all open \
         holds, held is their sum.",
    )
    .notes(
        "Amount 0 releases the whole hold. The field settled:<id> remembers the end for the time \
         that RESERVE's KEEP gave, as a field with that TTL: while it is there, repeating SETTLE \
         with the same token returns the first answer, whatever amount it brings. A hold that was \
         charged at its deadline answers like one that was settled; one that was given back then \
         answers 0, as does one that a user deleted. CLAMP charges what was held; ALLOW charges \
         all of it, and the balance may go below zero; an amount that would take it below -2^63 \
         is an error. Token 0 is never that of a hold.",
    );
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the account", |c, word| c.key = word),
        Arg::parsed("id", "names the hold", Type::Text, |c, text, word| {
            c.id = word;
            check_id(text, "SETTLE")
        }),
        Arg::parsed(
            "token",
            "the token that RESERVE gave",
            Type::Integer,
            |c: &mut Settle, text, _| {
                c.token = tokens::parse(text).ok_or(TOKEN)?;
                Ok(())
            },
        ),
        Arg::parsed(
            "amount",
            "how much is charged; 0 releases the hold",
            Type::Integer,
            |c: &mut Settle, text, _| {
                let amount = parse_i64(text).filter(|amount| *amount >= 0);
                c.amount = amount.ok_or(AMOUNT)?;
                Ok(())
            },
        ),
        Arg::word(
            "overdraft",
            "what happens if the amount is more than was held",
            &[
                Arg::flag("REJECT", "nothing; the default", |_| {}),
                Arg::flag("CLAMP", "what was held is charged", |_| {}),
                Arg::flag("ALLOW", "all of it is charged", |_| {}),
            ],
            |c: &mut Settle, text, _| {
                c.overdraft = match text.to_ascii_uppercase().as_slice() {
                    b"REJECT" => Overdraft::Reject,
                    b"CLAMP" => Overdraft::Clamp,
                    b"ALLOW" => Overdraft::Allow,
                    _ => {
                        let text = "ERR SETTLE: OVERDRAFT must be REJECT, CLAMP or ALLOW";
                        return Err(Reject::fixed(text));
                    }
                };
                Ok(())
            },
        )
        .after("OVERDRAFT")
        .optional()
        .once(),
    ];

    fn needs(&self) -> Needs {
        Needs::AllFields
    }

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let (key, id) = (txn.key(args.word(self.key)), args.word(self.id));
        let ours = |hold: &Hold| hold.token == self.token;
        let open = txn.field(&key, &hold_field(id))?;
        let open = open.and_then(|field| field.value.open_hold().cloned());
        let Some(mut hold) = open.filter(ours) else {
            match settled(txn, &key, id)?.filter(ours).and_then(|it| it.end) {
                Some(end) => answer(reply, 1, end.charged, end.settled),
                None => answer(reply, 0, 0, Account::at(txn, &key, "SETTLE")?.sheet()),
            }
            return Ok(());
        };
        let account = Account::at(txn, &key, "SETTLE")?;
        let charged = match self.overdraft {
            Overdraft::Reject if self.amount > hold.amount => {
                answer(reply, -1, 0, account.sheet());
                return Ok(());
            }
            Overdraft::Clamp => self.amount.min(hold.amount),
            _ => self.amount,
        };
        let balance = account.balance.checked_sub(charged);
        let balance = balance.ok_or(BALANCE_OVERFLOW)?;
        let sheet = Sheet::new(balance, account.held - i128::from(hold.amount));
        hold.end = Some(End {
            charged,
            settled: sheet,
        });
        // The record first: the hash would go with its last field.
        let kept_until_ms = hold.kept_until_ms(txn.now_ms());
        let record = FieldValue::from_hold(hold);
        txn.put_field(&key, &settled_field(id), record, kept_until_ms)?;
        txn.delete_field(&key, &hold_field(id))?;
        if charged > 0 {
            txn.add_field(&key, BALANCE, -charged)?;
        }
        answer(reply, 1, charged, sheet);
        Ok(())
    }
}
