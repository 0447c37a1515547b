//! Reading a whole string: GET and its relatives, which also replace it, delete it or change its
//! deadline.

use crate::command::KeyCommand;
use crate::command::expiry::{Expiry, ExpiryArgs, HasExpiry};
use crate::command::spec::{Access, Arg, Group, Spec, Word, flag};
use crate::keyspace::{Key, Txn};
use crate::reply::{Reject, Reply};
use crate::resp::decode::Args;

/// Writes the string at a key, or null. Whether there is one.
///
/// # Errors
/// WRONGTYPE for a key that is no string.
pub fn reply_string(
    txn: &mut Txn<'_>,
    key: &Key<'_>,
    reply: &mut Reply<'_>,
) -> Result<bool, Reject> {
    match txn.string(key)? {
        Some(text) => {
            text.reply(reply);
            Ok(true)
        }
        None => {
            reply.null();
            Ok(false)
        }
    }
}

/// Reads a string.
#[derive(Default)]
pub struct Get {
    key: Word,
}

impl KeyCommand for Get {
    const SPEC: Spec = Spec::read("get", Group::String, "Returns the string at a key.")
        .with(flag::FAST)
        .reply("Bulk string, or null if there is no key.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::key("key", "the key", |c, word| c.key = word)];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        reply_string(txn, &key, reply)?;
        Ok(())
    }
}

/// Replaces a string and returns the old one.
#[derive(Default)]
pub struct GetSet {
    key: Word,
    value: Word,
}

impl KeyCommand for GetSet {
    const SPEC: Spec = Spec::write(
        "getset",
        Group::String,
        "Sets the string at a key and returns the one before.",
    )
    .with(flag::FAST | flag::DENYOOM)
    .reply("Bulk string: the string before, or null.")
    .notes("The deadline is cleared. SET with GET does the same.");
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the key", |c, word| c.key = word),
        Arg::text("value", "the new string", |c, word| c.value = word),
    ];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        reply_string(txn, &key, reply)?;
        txn.put_text(&key, args.word(self.value), 0);
        Ok(())
    }
}

/// Deletes a string and returns it.
#[derive(Default)]
pub struct GetDel {
    key: Word,
}

impl KeyCommand for GetDel {
    const SPEC: Spec = Spec::write(
        "getdel",
        Group::String,
        "Returns the string at a key and deletes the key.",
    )
    .since("6.2.0")
    .with(flag::FAST | flag::FREES)
    .access(Access::ReadRemove)
    .reply("Bulk string: the deleted string, or null if there is no key.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::key("key", "the key", |c, word| c.key = word)];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        if reply_string(txn, &key, reply)? {
            txn.delete(&key);
        }
        Ok(())
    }
}

/// Reads a string and changes its deadline.
#[derive(Default)]
pub struct GetEx {
    key: Word,
    expiry: Expiry,
}

impl HasExpiry for GetEx {
    fn expiry(&mut self) -> &mut Expiry {
        &mut self.expiry
    }
}

impl KeyCommand for GetEx {
    const SPEC: Spec = Spec::write(
        "getex",
        Group::String,
        "Returns the string at a key and sets or removes its deadline.",
    )
    .since("6.2.0")
    .with(flag::FAST)
    .reply("Bulk string, or null if there is no key.")
    .notes("A deadline that has passed deletes the key. Without an option it is GET.");
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the key", |c, word| c.key = word),
        Arg::one_of(
            "expiration",
            "when the key expires",
            &[
                ExpiryArgs::<GetEx>::EX,
                ExpiryArgs::<GetEx>::PX,
                ExpiryArgs::<GetEx>::EXAT,
                ExpiryArgs::<GetEx>::PXAT,
                ExpiryArgs::<GetEx>::PERSIST,
            ],
        ),
    ];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        if !reply_string(txn, &key, reply)? {
            return Ok(());
        }
        let now_ms = txn.now_ms();
        match self.expiry.deadline_ms(now_ms, "getex")? {
            Some(deadline_ms) if deadline_ms <= now_ms => {
                txn.delete(&key);
            }
            Some(deadline_ms) => {
                txn.set_deadline(&key, deadline_ms);
            }
            None if self.expiry == Expiry::Persist && txn.deadline_ms(&key) != Some(0) => {
                txn.set_deadline(&key, 0);
            }
            None => {}
        }
        Ok(())
    }
}

/// The length of a string.
#[derive(Default)]
pub struct StrLen {
    key: Word,
}

impl KeyCommand for StrLen {
    const SPEC: Spec = Spec::read("strlen", Group::String, "Returns the length of a string.")
        .since("2.2.0")
        .with(flag::FAST)
        .access(Access::Look)
        .reply("Integer: bytes; 0 if there is no key.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::key("key", "the key", |c, word| c.key = word)];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        reply.count(txn.string(&key)?.map_or(0, |text| text.len()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::command::transcript::Transcript;

    #[test]
    fn a_string_is_read_replaced_and_deleted() {
        Transcript::in_both_modes(|t| {
            t.check("GET a", "(nil)");
            t.check("STRLEN a", "(integer) 0");
            t.check("GETSET a 1", "(nil)");
            t.check("GETSET a hello", "\"1\"");
            t.check("STRLEN a", "(integer) 5");
            t.check("SET a 12 EX 10", "OK");
            t.check("GETSET a -7", "\"12\"");
            t.check("GETEX a", "\"-7\"");
            t.advance_ms(20_000);
            t.check("STRLEN a", "(integer) 2");
            t.check("GETDEL a", "\"-7\"");
            t.check("GETDEL a", "(nil)");
            t.check("GET a", "(nil)");
        });
    }

    #[test]
    fn getex_sets_and_removes_the_deadline() {
        Transcript::in_both_modes(|t| {
            t.check("GETEX a EX 10", "(nil)");
            t.check("SET a x", "OK");
            t.check("GETEX a EX 10", "\"x\"");
            t.check("GETEX a persist", "\"x\"");
            t.advance_ms(11_000);
            t.check("GETEX a PX 5", "\"x\"");
            t.advance_ms(5);
            t.check("GET a", "(nil)");
            t.check("SET a y", "OK");
            t.check("GETEX a EXAT 1", "\"y\"");
            t.check("GET a", "(nil)");
            t.check("GETEX a PXAT 1 PERSIST", "(error) ERR syntax error");
            t.check("GETEX a KEEPTTL", "(error) ERR syntax error");
            t.check("SET a y", "OK");
            t.check(
                "GETEX a EX 0",
                "(error) ERR invalid expire time in 'getex' command",
            );
            t.check(
                "GETEX a EX 9223372036854775807",
                "(error) ERR invalid expire time in 'getex' command",
            );
        });
    }
}
