//! Setting a whole string: SET and its older forms.

use crate::command::KeyCommand;
use crate::command::expiry::{Expiry, ExpiryArgs, HasExpiry, put_until};
use crate::command::spec::{Access, Arg, Group, Spec, Word, flag};
use crate::command::strings::condition::{Condition, ConditionArgs, HasCondition};
use crate::command::strings::get::reply_string;
use crate::keyspace::Txn;
use crate::reply::{Reject, Reply};
use crate::resp::decode::Args;

/// Sets a string.
#[derive(Default)]
pub struct Set {
    key: Word,
    value: Word,
    condition: Condition,
    get: bool,
    expiry: Expiry,
}

impl HasExpiry for Set {
    fn expiry(&mut self) -> &mut Expiry {
        &mut self.expiry
    }
}

impl HasCondition for Set {
    fn condition(&mut self) -> &mut Condition {
        &mut self.condition
    }
}

impl KeyCommand for Set {
    const SPEC: Spec = Spec::write(
        "set",
        Group::String,
        "Sets the string at a key, whatever was there.",
    )
    .with(flag::DENYOOM)
    .access_of(|args| {
        let get = args
            .iter()
            .skip(3)
            .any(|word| word.eq_ignore_ascii_case(b"GET"));
        if get {
            Access::ReadUpdate
        } else {
            Access::Overwrite
        }
    })
    .reply(
        "OK; null if the condition is not met. With GET: the string before, or null, whether or \
         not the condition is met.",
    )
    .notes(
        "Without an expiration option the deadline is cleared. A missing key does not meet IFEQ \
         and IFDEQ, and meets IFNE and IFDNE. A deadline that has passed deletes the key.",
    );
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the key", |c, word| c.key = word),
        Arg::text("value", "the string", |c, word| c.value = word),
        Arg::one_of(
            "condition",
            "when it is set",
            &[
                ConditionArgs::<Set>::NX,
                ConditionArgs::<Set>::XX,
                ConditionArgs::<Set>::IFEQ,
                ConditionArgs::<Set>::IFNE,
                ConditionArgs::<Set>::IFDEQ,
                ConditionArgs::<Set>::IFDNE,
            ],
        ),
        Arg::flag("GET", "return the string before", |c| c.get = true),
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
        let given_ms = self.expiry.deadline_ms(txn.now_ms(), "set")?;
        if self.get {
            reply_string(txn, &key, reply)?;
        }
        if !self.condition.is_met(txn, &key, args)? {
            if !self.get {
                reply.null();
            }
            return Ok(());
        }
        let deadline_ms = match self.expiry {
            Expiry::Keep => txn.deadline_ms(&key).unwrap_or(0),
            _ => given_ms.unwrap_or(0),
        };
        put_until(txn, &key, args.word(self.value), deadline_ms);
        if !self.get {
            reply.ok();
        }
        Ok(())
    }
}

/// Sets a string where there is none.
#[derive(Default)]
pub struct SetNx {
    key: Word,
    value: Word,
}

impl KeyCommand for SetNx {
    const SPEC: Spec = Spec::write(
        "setnx",
        Group::String,
        "Sets the string at a key if there is no key.",
    )
    .with(flag::FAST | flag::DENYOOM)
    .access(Access::Insert)
    .reply("Integer: 1 if it was set, 0 if not.");
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the key", |c, word| c.key = word),
        Arg::text("value", "the string", |c, word| c.value = word),
    ];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        let missing = !txn.exists(&key);
        if missing {
            txn.put_text(&key, args.word(self.value), 0);
        }
        reply.integer(i64::from(missing));
        Ok(())
    }
}

/// Sets a string with a lifetime in seconds.
#[derive(Default)]
pub struct SetEx {
    key: Word,
    seconds: i64,
    value: Word,
}

impl KeyCommand for SetEx {
    const SPEC: Spec = Spec::write(
        "setex",
        Group::String,
        "Sets the string at a key and its lifetime in seconds.",
    )
    .since("2.0.0")
    .with(flag::DENYOOM)
    .access(Access::Overwrite)
    .reply("OK");
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the key", |c, word| c.key = word),
        Arg::integer("seconds", "lifetime in seconds", |c, seconds| {
            c.seconds = seconds
        }),
        Arg::text("value", "the string", |c, word| c.value = word),
    ];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        let deadline_ms = Expiry::Seconds(self.seconds).deadline_ms(txn.now_ms(), "setex")?;
        txn.put_text(&key, args.word(self.value), deadline_ms.unwrap_or(0));
        reply.ok();
        Ok(())
    }
}

/// Sets a string with a lifetime in milliseconds.
#[derive(Default)]
pub struct PSetEx {
    key: Word,
    milliseconds: i64,
    value: Word,
}

impl KeyCommand for PSetEx {
    const SPEC: Spec = Spec::write(
        "psetex",
        Group::String,
        "Sets the string at a key and its lifetime in milliseconds.",
    )
    .since("2.6.0")
    .with(flag::DENYOOM)
    .access(Access::Overwrite)
    .reply("OK");
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the key", |c, word| c.key = word),
        Arg::integer(
            "milliseconds",
            "lifetime in milliseconds",
            |c, milliseconds| {
                c.milliseconds = milliseconds;
            },
        ),
        Arg::text("value", "the string", |c, word| c.value = word),
    ];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        let expiry = Expiry::Milliseconds(self.milliseconds);
        let deadline_ms = expiry.deadline_ms(txn.now_ms(), "psetex")?;
        txn.put_text(&key, args.word(self.value), deadline_ms.unwrap_or(0));
        reply.ok();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::command::transcript::Transcript;

    const WRONG_TYPE: &str =
        "(error) WRONGTYPE Operation against a key holding the wrong kind of value";

    #[test]
    fn set_keeps_to_its_condition() {
        Transcript::in_both_modes(|t| {
            t.check("SET a 1 XX", "(nil)");
            t.check("SET a 1 NX", "OK");
            t.check("SET a 2 NX", "(nil)");
            t.check("SET a 2 nx get", "\"1\"");
            t.check("SET a 3 XX GET", "\"1\"");
            t.check("GET a", "\"3\"");
            t.check("SET b 1 NX GET", "(nil)");
            t.check("GET b", "\"1\"");
            t.check("SET a 4 NX XX", "(error) ERR syntax error");
            t.check("SET a 4 IFEQ 3 XX", "(error) ERR syntax error");
            t.check("SETNX a 9", "(integer) 0");
            t.check("SETNX c 9", "(integer) 1");
            t.check("GET c", "\"9\"");
        });
    }

    #[test]
    fn set_compares_values_and_digests() {
        Transcript::in_both_modes(|t| {
            t.check("SET a new IFEQ x", "(nil)");
            t.check("SET a new IFDEQ b6acb9d84a38ff74 GET", "(nil)");
            t.check("GET a", "(nil)");
            t.check("SET a \"Hello world\" IFNE x", "OK");
            t.check("SET a new IFDNE B6ACB9D84A38FF74", "(nil)");
            t.check("SET a new IFDNE b6acb9d84a38ff74 GET", "\"Hello world\"");
            t.check("SET a 12 IFDEQ B6acb9d84a38ff74", "OK");
            t.check("SET a 13 IFEQ 012", "(nil)");
            t.check("SET a 13 IFEQ 12 GET", "\"12\"");
            t.check("SET a 14 IFNE 13", "(nil)");
            t.check("SET a 14 IFNE 12", "OK");
            t.check("SET b 1 IFDNE 0000000000000000", "OK");
            for digest in [
                "b6",
                "b6acb9d84a38ff7g",
                "+6acb9d84a38ff74",
                "b6acb9d84a38ff740",
            ] {
                t.check(
                    &format!("SET a x IFDEQ {digest}"),
                    "(error) ERR digest must be exactly 16 hexadecimal characters",
                );
            }
            t.check("SET a x IFEQ", "(error) ERR syntax error");
            t.check("SET a x IFEQ 1 IFEQ 2", "(error) ERR syntax error");
        });
    }

    #[test]
    fn set_gives_keeps_and_clears_deadlines() {
        Transcript::in_both_modes(|t| {
            t.check("SET a 1 EX 10", "OK");
            t.check("SET a 2 KEEPTTL", "OK");
            t.advance_ms(9_999);
            t.check("GET a", "\"2\"");
            t.advance_ms(1);
            t.check("GET a", "(nil)");
            t.check("SET a 1 PX 10", "OK");
            t.check("SET a 2", "OK");
            t.advance_ms(100);
            t.check("GET a", "\"2\"");
            t.check("SET a 3 PXAT 1", "OK");
            t.check("GET a", "(nil)");
            t.check("SET a 3 EX 5 EX 100", "OK");
            t.advance_ms(99_000);
            t.check("GET a", "\"3\"");
            t.check("SETEX a 1 x", "OK");
            t.check("PSETEX b 1500 y", "OK");
            t.advance_ms(1_000);
            t.check("GET a", "(nil)");
            t.check("GET b", "\"y\"");
            t.advance_ms(500);
            t.check("GET b", "(nil)");
        });
    }

    #[test]
    fn set_refuses_what_redis_refuses() {
        let mut t = Transcript::new();
        t.check("SET a 1", "OK");
        t.check(
            "SET a 2 EX 0",
            "(error) ERR invalid expire time in 'set' command",
        );
        t.check(
            "SET a 2 PX -1",
            "(error) ERR invalid expire time in 'set' command",
        );
        t.check(
            "SET a 2 EX 9223372036854775807",
            "(error) ERR invalid expire time in 'set' command",
        );
        t.check(
            "SET a 2 PX 9223372036854775807",
            "(error) ERR invalid expire time in 'set' command",
        );
        t.check("SET a 2 EX 1 PX 1", "(error) ERR syntax error");
        t.check("SET a 2 EX 1 KEEPTTL", "(error) ERR syntax error");
        t.check("SET a 2 EX", "(error) ERR syntax error");
        t.check(
            "SET a 2 EX x",
            "(error) ERR value is not an integer or out of range",
        );
        t.check("SET a 2 PERSIST", "(error) ERR syntax error");
        t.check(
            "SET a",
            "(error) ERR wrong number of arguments for 'set' command",
        );
        t.check(
            "SETEX a 0 2",
            "(error) ERR invalid expire time in 'setex' command",
        );
        t.check(
            "PSETEX a -5 2",
            "(error) ERR invalid expire time in 'psetex' command",
        );
        t.check("GET a", "\"1\"");
        t.make_hash("h");
        t.check("GET h", WRONG_TYPE);
        t.check("SET h x GET", WRONG_TYPE);
        t.check("SET h x IFEQ y", WRONG_TYPE);
        t.check("SET h x NX", "(nil)");
        t.check("SET h x", "OK");
    }
}
