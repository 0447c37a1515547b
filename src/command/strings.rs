//! Strings: set, get, change in place.

use crate::command::expiry::{Expiry, ExpiryArgs, HasExpiry};
use crate::command::spec::{Access, Arg, Group, Spec, Word, flag};
use crate::command::{KeyCommand, Row};
use crate::keyspace::Txn;
use crate::reply::{Reject, Reply};
use crate::resp::decode::Args;

/// The family's commands.
pub const COMMANDS: &[Row] = &[Row::keys::<Get>(), Row::keys::<Set>()];

/// Reads a string.
#[derive(Default)]
struct Get {
    key: Word,
}

impl KeyCommand for Get {
    const SPEC: Spec = Spec::read("get", Group::String, "Returns the string at a key.")
        .with(flag::FAST)
        .reply("Bulk string, or null if there is no key.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::key("key", "the key", |c, word| c.key = word)];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        match txn.string(&key)? {
            Some(text) => text.reply(reply),
            None => reply.null(),
        }
        Ok(())
    }
}

/// Sets a string.
#[derive(Default)]
struct Set {
    key: Word,
    value: Word,
    expiry: Expiry,
}

impl HasExpiry for Set {
    fn expiry(&mut self) -> &mut Expiry {
        &mut self.expiry
    }
}

impl KeyCommand for Set {
    const SPEC: Spec = Spec::write(
        "set",
        Group::String,
        "Sets the string at a key, whatever was there.",
    )
    .with(flag::DENYOOM)
    .access(Access::Overwrite);
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the key", |c, word| c.key = word),
        Arg::text("value", "the string", |c, word| c.value = word),
        Arg::one_of(
            "expiration",
            "when the key expires",
            &[
                ExpiryArgs::<Set>::EX,
                ExpiryArgs::<Set>::PX,
                ExpiryArgs::<Set>::EXAT,
                ExpiryArgs::<Set>::PXAT,
                ExpiryArgs::<Set>::KEEPTTL,
            ],
        ),
    ];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        let deadline_ms = match self.expiry {
            Expiry::Keep => txn.deadline_ms(&key).unwrap_or(0),
            expiry => expiry.deadline_ms(txn.now_ms(), "set")?.unwrap_or(0),
        };
        txn.put_text(&key, args.word(self.value), deadline_ms);
        reply.ok();
        Ok(())
    }
}
