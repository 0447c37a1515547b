//! DUMP and RESTORE: a value as bytes, in Redis's form, and back.
//!
//! Always true: RESTORE writes ordinary values; what it cannot read changes nothing.

use bytes::Bytes;

use super::payload::{self, Object, Unreadable};
use crate::command::KeyCommand;
use crate::command::spec::{Access, Arg, Group, Needs, Spec, Type, Word, flag};
use crate::keyspace::txn::Text;
use crate::keyspace::{Field, FieldValue, Hash, Key, Txn, Value, ValueRef};
use crate::limits::{FIELD_BYTES_MAX, STRING_BYTES_MAX};
use crate::number::parse_i64;
use crate::reply::{Reject, Reply};
use crate::resp::decode::Args;

const INVALID_TTL: Reject = Reject::fixed("ERR Invalid TTL value, must be >= 0");

/// Takes a value out.
#[derive(Default)]
pub struct Dump {
    key: Word,
}

impl KeyCommand for Dump {
    const SPEC: Spec = Spec::read(
        "dump",
        Group::Generic,
        "Returns a key's value in the form that RESTORE reads, here and in Redis.",
    )
    .since("2.6.0")
    .complexity("O(N) for N bytes")
    .reply("Bulk string: the payload; null if there is no key.")
    .notes(
        "The form is that of Redis 7.0 (RDB version 10), which later versions read as well. It \
         has no place for the deadlines of hash fields: such a hash is refused. Holds of credits \
         and their kept ends are left out.",
    );
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::key("key", "the key", |c, word| c.key = word)];

    fn needs(&self) -> Needs {
        Needs::AllFields
    }

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        match txn.whole_entry(&key).map(|entry| entry.value()) {
            None => reply.null(),
            Some(ValueRef::Hash(hash)) => match dump_hash(hash)? {
                Some(payload) => reply.bulk(&payload),
                None => reply.null(),
            },
            Some(value) => {
                let text = Text::of(value).ok_or(Reject::wrong_type())?;
                reply.bulk(&payload::of_string(text));
            }
        }
        Ok(())
    }
}

/// The payload of a hash without its holds of credits, which are nothing without their owner's
/// timer: none if nothing else is there.
fn dump_hash(hash: &Hash) -> Result<Option<Vec<u8>>, Reject> {
    let plain = |field: &&Field| field.value.hold().is_none();
    if hash
        .iter()
        .filter(plain)
        .any(|field| field.expires_at_ms != 0)
    {
        return Err(Reject::fixed(
            "ERR the payload has no place for the deadlines of hash fields; HPERSIST removes them",
        ));
    }
    let field_bytes = hash
        .iter()
        .map(|field| field.name().len() + field.value.text().map_or(0, <[u8]>::len));
    if field_bytes.sum::<usize>() > STRING_BYTES_MAX {
        return Err(Reject::string_too_long());
    }
    if hash.iter().all(|field| plain(&field)) {
        return Ok(Some(payload::of_hash(hash)));
    }
    let mut rest = Hash::new(hash.generation());
    for field in hash.iter().filter(plain) {
        rest.insert(field.hash, field.name(), field.value.clone(), 0);
    }
    Ok((!rest.is_empty()).then(|| payload::of_hash(&rest)))
}

/// Puts a value back.
#[derive(Default)]
pub struct Restore {
    key: Word,
    ttl: Word,
    payload: Word,
    replace: bool,
    absolute: bool,
}

impl KeyCommand for Restore {
    const SPEC: Spec = Spec::write(
        "restore",
        Group::Generic,
        "Sets a key to a value that DUMP returned, here or in Redis.",
    )
    .since("2.6.0")
    .complexity("O(N) for N bytes")
    .with(flag::DENYOOM | flag::DANGEROUS)
    .access(Access::Overwrite)
    .reply("OK; an error if there is the key and no REPLACE, or the payload cannot be read.")
    .notes(
        "Reads strings and hashes of RDB versions up to 11 (Redis 7.2). A deadline that has passed \
         creates no key; a lifetime that overflows is refused. IDLETIME and FREQ are \
         checked and not kept.",
    );
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the key", |c, word| c.key = word),
        // Redis looks at the key before it looks at these two.
        Arg::text(
            "ttl",
            "lifetime in milliseconds, 0: none",
            |c: &mut Restore, word| {
                c.ttl = word;
            },
        )
        .of(Type::Integer),
        Arg::text("serialized-value", "what DUMP returned", |c, word| {
            c.payload = word;
        }),
        Arg::flag("REPLACE", "also if there is the key", |c| c.replace = true),
        Arg::flag("ABSTTL", "the time is a Unix time", |c| c.absolute = true),
        Arg::one_of("eviction", "how much the key was used", Restore::USE),
    ];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        if !self.replace && txn.exists(&key) {
            return Err(Reject::busy_key());
        }
        let deadline_ms = self.deadline_ms(args.word(self.ttl), txn.now_ms())?;
        let value = restored(txn, &key, args.word(self.payload))?;
        if deadline_ms != 0 && deadline_ms <= txn.now_ms() {
            txn.delete(&key);
        } else {
            txn.put(&key, value, deadline_ms);
        }
        reply.ok();
        Ok(())
    }
}

impl Restore {
    const USE: &'static [Arg<Self>] = &[
        Arg::parsed(
            "seconds",
            "time since the last use; not kept",
            Type::Integer,
            |_, text, _| match parse_i64(text).ok_or(Reject::not_an_integer())? {
                0.. => Ok(()),
                _ => Err(Reject::fixed("ERR Invalid IDLETIME value, must be >= 0")),
            },
        )
        .after("IDLETIME"),
        Arg::parsed(
            "frequency",
            "how often it is used; not kept",
            Type::Integer,
            |_, text, _| match parse_i64(text).ok_or(Reject::not_an_integer())? {
                0..=255 => Ok(()),
                _ => Err(Reject::fixed(
                    "ERR Invalid FREQ value, must be >= 0 and <= 255",
                )),
            },
        )
        .after("FREQ"),
    ];

    /// The deadline, 0 for none.
    fn deadline_ms(&self, ttl: &[u8], now_ms: u64) -> Result<u64, Reject> {
        let ttl = parse_i64(ttl).ok_or(Reject::not_an_integer())?;
        let ttl_ms = u64::try_from(ttl).map_err(|_| INVALID_TTL)?;
        if ttl_ms == 0 || self.absolute {
            return Ok(ttl_ms);
        }
        let deadline_ms = ttl_ms.saturating_add(now_ms);
        // Other commands count in i64.
        i64::try_from(deadline_ms).map_err(|_| INVALID_TTL)?;
        Ok(deadline_ms)
    }
}

/// The value of a payload, for a key.
fn restored(txn: &mut Txn<'_>, key: &Key<'_>, bytes: &[u8]) -> Result<Value, Reject> {
    let mut hash = Hash::new(0);
    let object = payload::read(bytes, &mut |name, value| {
        if name.len() > FIELD_BYTES_MAX {
            return Err(Unreadable::FieldName);
        }
        let before = hash.insert(txn.field_hash(name), name, FieldValue::from_bytes(value), 0);
        match before {
            None => Ok(()),
            Some(_) => Err(Unreadable::Damaged),
        }
    });
    match object.map_err(reject_of)? {
        Object::String(text) if text.len() > STRING_BYTES_MAX => Err(Reject::string_too_long()),
        Object::String(text) => Ok(Value::from_shared(Bytes::from(text.into_owned()))),
        Object::Hash => {
            let generation = txn.token(key)?;
            Ok(Value::Hash(Box::new(hash.with_generation(generation))))
        }
    }
}

fn reject_of(unreadable: Unreadable) -> Reject {
    match unreadable {
        Unreadable::Footer => Reject::fixed("ERR DUMP payload version or checksum are wrong"),
        Unreadable::Damaged => Reject::fixed("ERR Bad data format"),
        Unreadable::Type(name) => Reject::err(format!(
            "Bad data format: a {name}, and only strings and hashes can be restored here"
        )),
        Unreadable::TooLarge => Reject::fixed("ERR Bad data format: it unpacks to too many bytes"),
        Unreadable::FieldName => Reject::fixed("ERR field name is too long"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{in_both_modes, put_cell, put_fields, write};
    use crate::command::transcript::Transcript;
    use crate::keyspace::FieldValue;

    /// From redis-server 7.0.15: `SET s <"abc" 20 times>`, LZF.
    const PACKED: &str = r#""\x00\xc3\x0b<\x03abca\xe0-\x02\x01bc\n\x00o`)\xe4\xaf\xd7d\xac""#;

    fn dump(t: &mut Transcript, key: &str) -> String {
        t.run(&format!("DUMP {key}")).trim_end().to_owned()
    }

    #[test]
    fn what_was_dumped_can_be_restored() {
        in_both_modes(|t| {
            t.check("DUMP no", "(nil)");
            t.check("SET n 1", "OK");
            t.check(
                "DUMP n",
                r#""\x00\xc0\x01\n\x00&x\xe7\xb6\xd1\x01\x11\xfc""#,
            );
            t.check("SET s hello", "OK");
            t.check("DUMP s", r#""\x00\x05hello\n\x00cr\xdfve4 \n""#);
            put_fields(t, "h", &[("a", "1"), ("b", "hello"), ("c", "70000")]);
            put_cell(t, "cell", "busy", 0);
            for key in ["n", "s", "h", "cell"] {
                let payload = dump(t, key);
                t.check(&format!("RESTORE copy:{key} 0 {payload}"), "OK");
                assert_eq!(dump(t, &format!("copy:{key}")), payload);
            }
            t.check("INCR copy:n", "(integer) 2");
            t.check("GET copy:cell", "\"busy\"");
            t.check("TYPE copy:h", "hash");
        });
    }

    #[test]
    fn a_payload_of_redis_is_restored() {
        // Three fields, as a listpack.
        let hash = concat!(
            r#""\x10\x1e\x1e\x00\x00\x00\x06\x00\x81a\x02\x01\x01\x81b\x02\x85hello"#,
            r#"\x06\x81c\x02\xf2p\x11\x01\x04\xff\n\x00\xac\xae\xb3\x13\xa5\xc1a`""#
        );
        in_both_modes(|t| {
            t.check(&format!("RESTORE h 0 {hash}"), "OK");
            write(t, |txn| {
                let key = txn.key(b"h");
                let field = txn.field_hash(b"c");
                let hash = txn.hash(&key).expect("a hash").expect("a key");
                assert_eq!(hash.len(), 3);
                let value = hash.get(field, b"c").map(|field| field.value.clone());
                assert_eq!(value, Some(FieldValue::from_counter(70_000)));
            });
            t.check(&format!("RESTORE s 0 {PACKED}"), "OK");
            t.check("GET s", &format!("\"{}\"", "abc".repeat(20)));
        });
    }

    #[test]
    fn a_restored_key_has_the_deadline_that_was_asked_for() {
        in_both_modes(|t| {
            t.check("SET a 1", "OK");
            let payload = dump(t, "a");
            t.check(&format!("RESTORE b 1000 {payload}"), "OK");
            t.check("PTTL b", "(integer) 1000");
            t.check(
                &format!("RESTORE b 1700000005000 {payload} absttl replace"),
                "OK",
            );
            t.check("PTTL b", "(integer) 5000");
            t.check(&format!("RESTORE b 0 {payload} REPLACE ABSTTL"), "OK");
            t.check("PTTL b", "(integer) -1");
            t.check(&format!("RESTORE c 1700000000000 {payload} ABSTTL"), "OK");
            t.check("EXISTS c", "(integer) 0");
            t.check(&format!("RESTORE b 5 {payload} ABSTTL REPLACE"), "OK");
            t.check("EXISTS b", "(integer) 0");
            t.check(&format!("RESTORE b 10 {payload} IDLETIME 5"), "OK");
            t.check(&format!("RESTORE c 10 {payload} freq 255 replace"), "OK");
            t.advance_ms(10);
            t.check("EXISTS b c", "(integer) 0");
        });
    }

    #[test]
    fn restore_refuses_in_redis_words_and_order() {
        in_both_modes(|t| {
            t.check("SET a 1", "OK");
            let payload = dump(t, "a");
            let busy = "(error) BUSYKEY Target key name already exists.";
            let integer = "(error) ERR value is not an integer or out of range";
            let ttl = "(error) ERR Invalid TTL value, must be >= 0";
            let footer = "(error) ERR DUMP payload version or checksum are wrong";
            let syntax = "(error) ERR syntax error";
            for (line, error) in [
                ("RESTORE a 0 x".into(), busy),
                ("RESTORE a x x".into(), busy),
                ("RESTORE a 0 x freq x".into(), integer),
                ("RESTORE b x x".into(), integer),
                ("RESTORE b -1 x".into(), ttl),
                ("RESTORE a -1 x replace idletime 0".into(), ttl),
                (format!("RESTORE b 9223372036854775807 {payload}"), ttl),
                ("RESTORE b 0 x".into(), footer),
                ("RESTORE b 0 ''".into(), footer),
                ("RESTORE b 0 xxxxxxxxxxxx".into(), footer),
                ("RESTORE b 0 x foo".into(), syntax),
                ("RESTORE b 0 x idletime".into(), syntax),
                ("RESTORE b 0 x idletime 1 freq 2".into(), syntax),
                (
                    "RESTORE b 0 x idletime -1".into(),
                    "(error) ERR Invalid IDLETIME value, must be >= 0",
                ),
                (
                    "RESTORE b 0 x freq 256".into(),
                    "(error) ERR Invalid FREQ value, must be >= 0 and <= 255",
                ),
            ] {
                t.check(&line, error);
            }
            t.check("GET a", "\"1\"");
            t.check("EXISTS b", "(integer) 0");
        });
    }

    #[test]
    fn a_hash_with_field_deadlines_is_not_dumped_without_them() {
        let mut t = Transcript::new();
        put_fields(&mut t, "h", &[("a", "1")]);
        write(&mut t, |txn| {
            let key = txn.key(b"h");
            let at_ms = txn.now_ms() + 5;
            txn.put_field(&key, b"b", FieldValue::from_counter(7), at_ms)
                .expect("a hash");
        });
        let reply = t.run("DUMP h");
        assert!(
            reply.starts_with("(error) ERR the payload has no place"),
            "{reply}"
        );
        t.advance_ms(5);
        assert!(t.run("DUMP h").starts_with("\"\\x10"));
    }

    #[test]
    fn damage_and_other_types_are_refused() {
        in_both_modes(|t| {
            // From redis-server 7.0.15: `RPUSH l a`, `SADD s a`, `ZADD z 1 a`.
            for (payload, name) in FOREIGN {
                let error = format!(
                    "(error) ERR Bad data format: a {name}, and only strings and hashes can be \
                     restored here"
                );
                t.check(&format!("RESTORE x 0 {payload}"), &error);
            }
            t.check("EXISTS x", "(integer) 0");
        });
    }

    const FOREIGN: [(&str, &str); 3] = [
        (
            concat!(
                r#""\x12\x01\x02\n\n\x00\x00\x00\x01\x00\x81a"#,
                r#"\x02\xff\n\x00\t\xb9\xed\xf5\x94\xde\xd9\x95""#
            ),
            "list",
        ),
        (r#""\x02\x01\x01a\n\x00b\x96\xe9~D\xd2\x1am""#, "set"),
        (
            concat!(
                r#""\x11\x0c\x0c\x00\x00\x00\x02\x00\x81a\x02\x01"#,
                r#"\x01\xff\n\x00\xa8\x05\xce\xb8\xd7\xa93\x02""#
            ),
            "sorted set",
        ),
    ];
}
