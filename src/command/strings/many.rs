//! Several strings at once: MGET, and the writes that happen whole or not at all.

use crate::command::KeyCommand;
use crate::command::expiry::{Expiry, ExpiryArgs, HasExpiry, put_until};
use crate::command::spec::{Access, Across, Arg, Group, Keys, Spec, Words, flag};
use crate::command::strings::condition::{Condition, ConditionArgs, HasCondition};
use crate::keyspace::txn::Text;
use crate::keyspace::{Key, Txn};
use crate::reply::{Reject, Reply};
use crate::resp::decode::Args;

/// Reads several strings.
#[derive(Default)]
pub struct MGet {
    keys: Words,
}

impl KeyCommand for MGet {
    const SPEC: Spec = Spec::read(
        "mget",
        Group::String,
        "Returns the strings at several keys.",
    )
    .complexity("O(N) where N is the number of keys")
    .with(flag::FAST)
    .keys(1, -1, 1)
    .across(Across::Interleave)
    .reply("Array: for each key its string, or null if there is no string.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::rest(
        "key",
        "the keys",
        &[Arg::key("key", "a key", |_, _| {})],
        |c, words| c.keys = words,
    )];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        reply.array(self.keys.groups() as usize);
        for key in txn.keys(self.keys.each(args, 0)) {
            match txn.value(&key).and_then(Text::of) {
                Some(text) => text.reply(reply),
                None => reply.null(),
            }
        }
        Ok(())
    }
}

/// Sets several strings.
#[derive(Default)]
pub struct MSet {
    pairs: Words,
}

impl KeyCommand for MSet {
    const SPEC: Spec = Spec::write("mset", Group::String, "Sets the strings at several keys.")
        .since("1.0.1")
        .complexity("O(N) where N is the number of keys")
        .with(flag::DENYOOM)
        .keys(1, -1, 2)
        .access(Access::Overwrite)
        .reply("OK");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::rest(
        "data",
        "keys and their strings",
        &[
            Arg::key("key", "a key", |_, _| {}),
            Arg::text("value", "its string", |_, _| {}),
        ],
        |c, words| c.pairs = words,
    )];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        put_all(self.pairs, txn, args);
        reply.ok();
        Ok(())
    }
}

/// Sets several strings if none of the keys exists.
#[derive(Default)]
pub struct MSetNx {
    pairs: Words,
}

impl KeyCommand for MSetNx {
    const SPEC: Spec = Spec::write(
        "msetnx",
        Group::String,
        "Sets the strings at several keys if none of the keys exists.",
    )
    .since("1.0.1")
    .complexity("O(N) where N is the number of keys")
    .with(flag::DENYOOM)
    .keys(1, -1, 2)
    .access(Access::Insert)
    .reply("Integer: 1 if all were set, 0 if none was.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::rest(
        "data",
        "keys and their strings",
        &[
            Arg::key("key", "a key", |_, _| {}),
            Arg::text("value", "its string", |_, _| {}),
        ],
        |c, words| c.pairs = words,
    )];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let met = all_meet(Condition::Missing, self.pairs, txn, args)?;
        if met {
            put_all(self.pairs, txn, args);
        }
        reply.integer(i64::from(met));
        Ok(())
    }
}

/// Sets several strings under a condition, with one deadline.
#[derive(Default)]
pub struct MSetEx {
    pairs: Words,
    condition: Condition,
    expiry: Expiry,
}

impl HasExpiry for MSetEx {
    fn expiry(&mut self) -> &mut Expiry {
        &mut self.expiry
    }
}

impl HasCondition for MSetEx {
    fn condition(&mut self) -> &mut Condition {
        &mut self.condition
    }
}

impl KeyCommand for MSetEx {
    const SPEC: Spec = Spec::write(
        "msetex",
        Group::String,
        "Sets the strings at several keys, with one condition and one deadline for all.",
    )
    .since("8.4.0")
    .complexity("O(N) where N is the number of keys")
    .with(flag::DENYOOM | flag::MOVABLE_KEYS)
    .keys_by(Keys::Counted {
        count_at: 1,
        step: 2,
    })
    .access(Access::Overwrite)
    .reply("Integer: 1 if all were set, 0 if none was.")
    .notes("Without an expiration option the deadlines are cleared.");
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::counted(
            "numkeys",
            "number of keys, then keys and their strings",
            &[
                Arg::key("key", "a key", |_, _| {}),
                Arg::text("value", "its string", |_, _| {}),
            ],
            |c, words| c.pairs = words,
        ),
        Arg::one_of(
            "condition",
            "when they are set: for all keys or for none",
            &[ConditionArgs::<MSetEx>::NX, ConditionArgs::<MSetEx>::XX],
        ),
        Arg::one_of(
            "expiration",
            "when the keys expire",
            &[
                ExpiryArgs::<MSetEx>::EX,
                ExpiryArgs::<MSetEx>::PX,
                ExpiryArgs::<MSetEx>::EXAT,
                ExpiryArgs::<MSetEx>::PXAT,
                ExpiryArgs::<MSetEx>::KEEPTTL,
            ],
        ),
    ];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let given_ms = self.expiry.deadline_ms(txn.now_ms(), "msetex")?;
        let met = all_meet(self.condition, self.pairs, txn, args)?;
        if met {
            for (key, value) in pairs(self.pairs, txn, args) {
                let deadline_ms = match self.expiry {
                    Expiry::Keep => txn.deadline_ms(&key).unwrap_or(0),
                    _ => given_ms.unwrap_or(0),
                };
                put_until(txn, &key, value, deadline_ms);
            }
        }
        reply.integer(i64::from(met));
        Ok(())
    }
}

fn pairs<'a>(
    words: Words,
    txn: &Txn<'_>,
    args: Args<'a>,
) -> impl Iterator<Item = (Key<'a>, &'a [u8])> + use<'a> {
    let keys = txn.keys(words.each(args, 0));
    keys.into_iter().zip(words.each(args, 1))
}

fn put_all(words: Words, txn: &mut Txn<'_>, args: Args<'_>) {
    for (key, value) in pairs(words, txn, args) {
        txn.put_text(&key, value, 0);
    }
}

fn all_meet(
    condition: Condition,
    words: Words,
    txn: &mut Txn<'_>,
    args: Args<'_>,
) -> Result<bool, Reject> {
    let mut met = true;
    // Every key is looked at, so that all that are asleep are read at once.
    for key in txn.keys(words.each(args, 0)) {
        met &= condition.is_met(txn, &key, args)?;
    }
    Ok(met)
}

#[cfg(test)]
mod tests {
    use crate::command::transcript::Transcript;

    #[test]
    fn several_strings_are_set_and_read() {
        Transcript::in_both_modes(|t| {
            t.make_hash("h");
            t.check("MSET a 1 b two a 3", "OK");
            t.check("MGET a b c h", "1) \"3\"\n2) \"two\"\n3) (nil)\n4) (nil)");
            t.check("MSETNX c 1 a 2", "(integer) 0");
            t.check("MSETNX c 1 d 2 c 3", "(integer) 1");
            t.check("MGET c d", "1) \"3\"\n2) \"2\"");
            t.check(
                "MSET a 1 b",
                "(error) ERR wrong number of arguments for 'mset' command",
            );
            t.check(
                "MSETNX a 1 b",
                "(error) ERR wrong number of arguments for 'msetnx' command",
            );
        });
    }

    #[test]
    fn msetex_sets_all_or_none() {
        Transcript::in_both_modes(|t| {
            t.check("MSETEX 2 a 1 b 2 XX", "(integer) 0");
            t.check("MSETEX 2 a 1 b 2 NX PX 100", "(integer) 1");
            t.check("MSETEX 2 b 3 c 4 NX", "(integer) 0");
            t.check("MSETEX 2 b 3 c 4 XX", "(integer) 0");
            t.check("MSETEX 2 a 5 c 6 KEEPTTL", "(integer) 1");
            t.check("MGET a b c", "1) \"5\"\n2) \"2\"\n3) \"6\"");
            t.advance_ms(100);
            t.check("MGET a b c", "1) (nil)\n2) (nil)\n3) \"6\"");
            t.check("MSETEX 1 c 7 EXAT 1", "(integer) 1");
            t.check("GET c", "(nil)");
        });
    }

    #[test]
    fn msetex_refuses_wrong_counts_and_times() {
        let mut t = Transcript::new();
        t.check(
            "MSETEX 0 a 1",
            "(error) ERR numkeys should be greater than 0",
        );
        t.check(
            "MSETEX x a 1",
            "(error) ERR value is not an integer or out of range",
        );
        t.check("MSETEX 2 a 1 b", "(error) ERR syntax error");
        t.check("MSETEX 1 a 1 b 2", "(error) ERR syntax error");
        t.check("MSETEX 1 a 1 NX XX", "(error) ERR syntax error");
        t.check(
            "MSETEX 1 a 1 EX 0",
            "(error) ERR invalid expire time in 'msetex' command",
        );
        t.check(
            "MSETEX 1 a",
            "(error) ERR wrong number of arguments for 'msetex' command",
        );
        t.check("GET a", "(nil)");
    }
}
