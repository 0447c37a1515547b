//! Fields set and deleted: HSET, HSETNX, HMSET, HDEL.

use crate::command::KeyCommand;
use crate::command::spec::{Access, Arg, Group, Needs, Spec, Word, Words, flag};
use crate::keyspace::{FieldValue, Txn};
use crate::reply::{Reject, Reply};
use crate::resp::decode::Args;

/// Sets fields and clears their deadlines; how many are new.
///
/// # Errors
/// WRONGTYPE, or a name that is too long.
fn set_fields(txn: &mut Txn<'_>, key: Word, pairs: Words, args: Args<'_>) -> Result<i64, Reject> {
    let key = txn.key(args.word(key));
    let mut new = 0;
    for (name, value) in pairs.each(args, 0).zip(pairs.each(args, 1)) {
        let value = FieldValue::from_bytes(value);
        new += i64::from(txn.put_field(&key, name, value, 0)?);
    }
    Ok(new)
}

/// Sets fields.
#[derive(Default)]
pub(super) struct HSet {
    key: Word,
    pairs: Words,
}

impl KeyCommand for HSet {
    const SPEC: Spec = Spec::write("hset", Group::Hash, "Sets fields of a hash.")
        .since("2.0.0")
        .complexity("O(log N) for each field")
        .with(flag::FAST | flag::DENYOOM)
        .access(Access::Update)
        .reply("Integer: how many of the fields are new.")
        .notes("A field that is set has no deadline any more.");
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the hash", |c, word| c.key = word),
        Arg::rest(
            "data",
            "what is set",
            &[
                Arg::text("field", "a name", |_, _| {}),
                Arg::text("value", "its value", |_, _| {}),
            ],
            |c, words| c.pairs = words,
        ),
    ];

    fn needs(&self) -> Needs {
        Needs::Fields(self.pairs)
    }

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        reply.integer(set_fields(txn, self.key, self.pairs, args)?);
        Ok(())
    }
}

/// Sets fields; HSET in older words.
#[derive(Default)]
pub(super) struct HMSet {
    key: Word,
    pairs: Words,
}

impl KeyCommand for HMSet {
    const SPEC: Spec = Spec::write("hmset", Group::Hash, "Sets fields of a hash; use HSET.")
        .since("2.0.0")
        .complexity("O(log N) for each field")
        .with(flag::FAST | flag::DENYOOM)
        .access(Access::Update)
        .reply("OK.");
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the hash", |c, word| c.key = word),
        Arg::rest(
            "data",
            "what is set",
            &[
                Arg::text("field", "a name", |_, _| {}),
                Arg::text("value", "its value", |_, _| {}),
            ],
            |c, words| c.pairs = words,
        ),
    ];

    fn needs(&self) -> Needs {
        Needs::Fields(self.pairs)
    }

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        set_fields(txn, self.key, self.pairs, args)?;
        reply.ok();
        Ok(())
    }
}

/// Sets a field that is missing.
#[derive(Default)]
pub(super) struct HSetNx {
    key: Word,
    field: Word,
    value: Word,
}

impl KeyCommand for HSetNx {
    const SPEC: Spec = Spec::write(
        "hsetnx",
        Group::Hash,
        "Sets a field of a hash unless the hash has it.",
    )
    .since("2.0.0")
    .complexity("O(log N)")
    .with(flag::FAST | flag::DENYOOM)
    .access(Access::Update)
    .reply("Integer: 1 if it was set, 0 if the field is there.");
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the hash", |c, word| c.key = word),
        Arg::text("field", "a name", |c, word| c.field = word),
        Arg::text("value", "its value", |c, word| c.value = word),
    ];

    fn needs(&self) -> Needs {
        self.field.into()
    }

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        let name = args.word(self.field);
        let missing = txn.field(&key, name)?.is_none();
        if missing {
            let value = FieldValue::from_bytes(args.word(self.value));
            txn.put_field(&key, name, value, 0)?;
        }
        reply.integer(missing.into());
        Ok(())
    }
}

/// Deletes fields.
#[derive(Default)]
pub(super) struct HDel {
    key: Word,
    fields: Words,
}

impl KeyCommand for HDel {
    const SPEC: Spec = Spec::write(
        "hdel",
        Group::Hash,
        "Deletes fields of a hash, and the hash with its last field.",
    )
    .since("2.0.0")
    .complexity("O(log N) for each field")
    .with(flag::FAST | flag::FREES)
    .access(Access::ReadRemove)
    .reply("Integer: how many of the fields were there.");
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the hash", |c, word| c.key = word),
        Arg::rest(
            "field",
            "what is deleted",
            &[Arg::text("field", "a name", |_, _| {})],
            |c, words| c.fields = words,
        ),
    ];

    fn needs(&self) -> Needs {
        Needs::Fields(self.fields)
    }

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        let mut deleted = 0;
        for name in self.fields.each(args, 0) {
            deleted += i64::from(txn.delete_field(&key, name)?.is_some());
        }
        reply.integer(deleted);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::command::transcript::Transcript;
    use crate::keyspace::FieldValue;
    use crate::keyspace::txn::{Owners, Txn};

    const WRONG_TYPE: &str =
        "(error) WRONGTYPE Operation against a key holding the wrong kind of value";

    #[test]
    fn fields_are_set_and_deleted_and_the_hash_goes_with_the_last_one() {
        Transcript::in_both_modes(|t| {
            t.check("HSET h a 1 b two", "(integer) 2");
            t.check("HSET h a 2 c 3", "(integer) 1");
            t.check("HSET h d 1 d 2", "(integer) 1");
            t.check("HMSET h e 5", "OK");
            t.check("HSETNX h e 6", "(integer) 0");
            t.check("HSETNX h f 6", "(integer) 1");
            t.check(
                "HMGET h a b c d e f",
                &bulks(&["2", "two", "3", "2", "5", "6"]),
            );
            t.check("HDEL h a a x b", "(integer) 2");
            t.check("HLEN h", "(integer) 4");
            t.check("HDEL h c d e", "(integer) 3");
            t.check("HSETNX n a 1", "(integer) 1");
            t.check("HDEL h f a", "(integer) 1");
            t.check("HLEN h", "(integer) 0");
            t.check("HGET h f", "(nil)");
            t.check("HDEL h f", "(integer) 0");
            assert_eq!(t.keyspace().tables().count_db(0), 1);
        });
    }

    fn bulks(texts: &[&str]) -> String {
        let lines: Vec<String> = texts
            .iter()
            .enumerate()
            .map(|(index, text)| format!("{}) \"{text}\"", index + 1))
            .collect();
        lines.join("\n")
    }

    #[test]
    fn hashes_and_strings_refuse_each_others_commands() {
        Transcript::in_both_modes(|t| {
            t.check("SET s text", "OK");
            t.check("HSET h a 1", "(integer) 1");
            for line in [
                "HSET s a 1",
                "HSETNX s a 1",
                "HMSET s a 1",
                "HGET s a",
                "HMGET s a b",
                "HGETALL s",
                "HDEL s a",
                "HLEN s",
                "HSTRLEN s a",
                "HEXISTS s a",
                "HKEYS s",
                "HVALS s",
                "HINCRBY s a 1",
                "HINCRBYFLOAT s a 1",
                "HRANDFIELD s",
                "HRANDFIELD s 2",
                "HSCAN s 0",
                "HGETDEL s FIELDS 1 a",
                "HGETEX s FIELDS 1 a",
                "HSETEX s FIELDS 1 a 1",
                "HEXPIRE s 10 FIELDS 1 a",
                "HTTL s FIELDS 1 a",
                "HPERSIST s FIELDS 1 a",
                "GET h",
                "INCR h",
            ] {
                t.check(line, WRONG_TYPE);
            }
            t.check("SET h text", "OK");
            t.check("GET h", "\"text\"");
        });
    }

    #[test]
    fn a_hash_that_is_taken_away_and_put_back_keeps_the_fields_that_are_asleep() {
        let mut t = Transcript::new().hibernating();
        t.check("HSET h a 1 b 2 c 3 d 4", "(integer) 4");
        t.check("HINCRBY h b 5", "(integer) 7");
        t.keyspace().set_active_expiry(false);
        t.write(|txn| {
            let key = txn.key(b"e");
            txn.put_text(&key, b"x", txn.now_ms() + 10);
        });
        t.advance_ms(11);
        let mut txn = Txn::new(Owners::One(t.keyspace()), 0);
        let (key, other) = (txn.key(b"h"), txn.key(b"e"));
        let value = FieldValue::from_counter(9);
        assert_eq!(txn.put_field(&key, b"a", value, 0).ok(), Some(false));
        let here = txn.hash_in_part(&key).ok().flatten();
        assert_eq!(
            here.map(|hash| (hash.iter().count(), hash.len())),
            Some((1, 4))
        );
        assert!(txn.delete(&key));
        // What expires on the way stays away, and so the turn remembers what it touched.
        assert!(!txn.exists(&other));
        txn.roll_back();
        t.check("HLEN h", "(integer) 4");
        t.check("HMGET h a b c d", &bulks(&["1", "7", "3", "4"]));
        t.recover();
        t.check("HMGET h a b c d", &bulks(&["1", "7", "3", "4"]));
        t.check("EXISTS e", "(integer) 0");
        assert_eq!(t.run("HKEYS h").lines().count(), 4);
    }

    #[test]
    fn a_wrong_number_of_arguments_is_named() {
        let mut t = Transcript::new();
        for (line, name) in [
            ("HSET h", "hset"),
            ("HSET h a", "hset"),
            ("HSET h a 1 b", "hset"),
            ("HMSET h a 1 b", "hmset"),
            ("HSETNX h a", "hsetnx"),
            ("HSETNX h a 1 2", "hsetnx"),
            ("HDEL h", "hdel"),
            ("HGET h", "hget"),
            ("HMGET h", "hmget"),
            ("HINCRBY h a", "hincrby"),
            ("HEXPIRE h 10 FIELDS 1", "hexpire"),
            ("HTTL h FIELDS 1", "httl"),
            ("HGETDEL h FIELDS 1", "hgetdel"),
            ("HSETEX h FIELDS 1 a", "hsetex"),
        ] {
            let error = format!("(error) ERR wrong number of arguments for '{name}' command");
            t.check(line, &error);
        }
        t.check("HLEN h", "(integer) 0");
    }

    #[test]
    fn a_field_name_that_is_too_long_changes_nothing() {
        let mut t = Transcript::new();
        let name = vec![b'x'; crate::limits::FIELD_BYTES_MAX + 1];
        let reply = t.run_bytes(&[b"HSET", b"h", b"a", b"1", &name, b"2"]);
        let error = "(error) ERR a field name is longer than 32512 bytes";
        assert_eq!(reply.trim_end(), error);
        t.check("HLEN h", "(integer) 0");
        assert_eq!(
            t.run_bytes(&[b"HSET", b"h", &name[1..], b"2"]).trim_end(),
            "(integer) 1"
        );
        let mut t = t.recovering();
        t.recover();
        t.check("HLEN h", "(integer) 1");
    }
}
