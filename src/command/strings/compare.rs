//! Comparing a string before something is done: its digest, and deletions with a condition.

use crate::command::KeyCommand;
use crate::command::spec::{Access, Arg, Group, Spec, Word, flag};
use crate::command::strings::condition::{Condition, ConditionArgs, HasCondition, digest};
use crate::keyspace::{Kind, Txn};
use crate::reply::{Reject, Reply};
use crate::resp::decode::Args;

/// The digest of a string.
#[derive(Default)]
pub struct Digest {
    key: Word,
}

impl KeyCommand for Digest {
    const SPEC: Spec = Spec::read(
        "digest",
        Group::String,
        "Returns the digest of the string at a key, to compare with IFDEQ and IFDNE.",
    )
    .since("8.4.0")
    .complexity("O(N) where N is the length of the string")
    .with(flag::FAST)
    .reply("Bulk string: the XXH3-64 as 16 hexadecimal digits, or null if there is no key.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::key("key", "the key", |c, word| c.key = word)];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        match txn.string(&key)? {
            Some(text) => reply.bulk(format!("{:016x}", text.with(digest)).as_bytes()),
            None => reply.null(),
        }
        Ok(())
    }
}

/// Deletes a key under a condition.
#[derive(Default)]
pub struct DelEx {
    key: Word,
    condition: Condition,
}

impl HasCondition for DelEx {
    fn condition(&mut self) -> &mut Condition {
        &mut self.condition
    }
}

impl KeyCommand for DelEx {
    const SPEC: Spec = Spec::write(
        "delex",
        Group::String,
        "Deletes a key if its string, or its string's digest, is as expected.",
    )
    .since("8.4.0")
    .complexity("O(1) for IFEQ and IFNE, O(N) for digests where N is the length of the string")
    .with(flag::FAST | flag::FREES)
    .access(Access::ReadRemove)
    .reply("Integer: 1 if the key was deleted, 0 if not.")
    .notes("Without a condition it deletes a key of any type.");
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the key", |c, word| c.key = word),
        Arg::one_of(
            "condition",
            "when it is deleted",
            &[
                ConditionArgs::<DelEx>::IFEQ,
                ConditionArgs::<DelEx>::IFNE,
                ConditionArgs::<DelEx>::IFDEQ,
                ConditionArgs::<DelEx>::IFDNE,
            ],
        ),
    ];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        let kind = txn.value(&key).map(|value| value.kind());
        if kind == Some(Kind::Hash) && self.condition != Condition::Always {
            return Err(Reject::fixed(
                "ERR Key should be of string type if conditions are specified",
            ));
        }
        let deleted = self.condition.is_met(txn, &key, args)? && txn.delete(&key);
        reply.integer(i64::from(deleted));
        Ok(())
    }
}

/// Deletes a key if its string is as expected.
#[derive(Default)]
pub struct DelIfEq {
    key: Word,
    value: Word,
}

impl KeyCommand for DelIfEq {
    const SPEC: Spec = Spec::write(
        "delifeq",
        Group::String,
        "Deletes a key if its string is this one.",
    )
    .since("Valkey 9.0.0")
    .with(flag::FREES)
    .access(Access::ReadRemove)
    .reply("Integer: 1 if the key was deleted, 0 if not.");
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the key", |c, word| c.key = word),
        Arg::text("value", "the expected string", |c, word| c.value = word),
    ];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        let deleted = Condition::Equal(self.value).is_met(txn, &key, args)? && txn.delete(&key);
        reply.integer(i64::from(deleted));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::command::transcript::Transcript;

    #[test]
    fn a_digest_is_xxh3() {
        Transcript::in_both_modes(|t| {
            t.check("DIGEST a", "(nil)");
            t.check("SET a \"Hello world\"", "OK");
            t.check("DIGEST a", "\"b6acb9d84a38ff74\"");
            t.check("SET a \"\"", "OK");
            t.check("DIGEST a", "\"2d06800538d394c2\"");
            t.make_hash("h");
            t.check(
                "DIGEST h",
                "(error) WRONGTYPE Operation against a key holding the wrong kind of value",
            );
        });
    }

    #[test]
    fn a_key_is_deleted_under_a_condition() {
        Transcript::in_both_modes(|t| {
            t.check("DELEX a", "(integer) 0");
            t.check("DELEX a IFNE x", "(integer) 0");
            t.check("SET a 12", "OK");
            t.check("DELEX a IFEQ 13", "(integer) 0");
            t.check("DELEX a IFNE 12", "(integer) 0");
            t.check("DELEX a IFEQ 12", "(integer) 1");
            t.check("GET a", "(nil)");
            t.check("SET a \"Hello world\"", "OK");
            t.check("DELEX a IFDNE b6acb9d84a38ff74", "(integer) 0");
            t.check("DELEX a IFDEQ b6acb9d84a38ff74", "(integer) 1");
            t.check("SET a x", "OK");
            t.check("DELIFEQ a y", "(integer) 0");
            t.check("DELIFEQ a x", "(integer) 1");
            t.check("DELIFEQ a x", "(integer) 0");
        });
    }

    #[test]
    fn only_an_unconditional_deletion_takes_any_type() {
        let mut t = Transcript::new();
        t.make_hash("h");
        t.check(
            "DELEX h IFNE x",
            "(error) ERR Key should be of string type if conditions are specified",
        );
        t.check(
            "DELIFEQ h x",
            "(error) WRONGTYPE Operation against a key holding the wrong kind of value",
        );
        t.check("DELEX h IFEQ", "(error) ERR syntax error");
        t.check("DELEX h IFEQ a IFNE b", "(error) ERR syntax error");
        t.check("DELEX h", "(integer) 1");
    }
}
