//! Values that come under another key or into another database: RENAME, RENAMENX, COPY, MOVE.
//!
//! Always true: the deadline comes along, a state cell arrives as an ordinary string, a hash with
//! a new generation; the Txn looks at the same database afterwards as before.

use crate::command::KeyCommand;
use crate::command::spec::{Access, Arg, Group, Needs, Spec, Type, Word, flag};
use crate::keyspace::{Key, Txn, Value};
use crate::number::parse_i64;
use crate::reply::{Reject, Reply};
use crate::resp::decode::Args;

/// What a value is at its new place.
///
/// # Errors
/// A hash needs a generation, and the next block of tokens is not durable yet.
fn settled(txn: &mut Txn<'_>, to: &Key<'_>, value: Value) -> Result<Value, Reject> {
    Ok(match value {
        Value::Cell(cell) => Value::from_shared(cell.state),
        Value::Hash(hash) => Value::Hash(Box::new(hash.with_generation(txn.token(to)?))),
        value => value,
    })
}

/// A database's number, as COPY and MOVE read it; whether there is such a one shows later.
fn database_number(text: &[u8]) -> Result<i64, Reject> {
    let number = parse_i64(text).ok_or(Reject::not_an_integer())?;
    match i32::try_from(number) {
        Ok(_) => Ok(number),
        Err(_) => Err(Reject::fixed(
            "ERR value is out of range, value must between -2147483648 and 2147483647",
        )),
    }
}

/// Renames a key; `replace`: also when there is one of the new name. Whether it did.
fn rename(txn: &mut Txn<'_>, from: &[u8], to: &[u8], replace: bool) -> Result<bool, Reject> {
    let (from, to) = (txn.key(from), txn.key(to));
    txn.peek(&from).ok_or(Reject::no_such_key())?;
    if from.bytes == to.bytes {
        return Ok(replace);
    }
    let entry = txn.peek_whole(&from).ok_or(Reject::no_such_key())?;
    let (value, deadline_ms) = (entry.to_value(), entry.deadline_ms());
    if !replace && txn.exists(&to) {
        return Ok(false);
    }
    let value = settled(txn, &to, value)?;
    txn.delete(&from);
    txn.put(&to, value, deadline_ms);
    Ok(true)
}

/// Renames a key.
#[derive(Default)]
pub struct Rename {
    from: Word,
    to: Word,
}

impl KeyCommand for Rename {
    const SPEC: Spec = Spec::write(
        "rename",
        Group::Generic,
        "Renames a key, in the place of a key that already has the new name.",
    )
    .complexity("O(1); O(N) for a hash of N fields")
    .keys(1, 2, 1)
    .access(Access::ReadRemove)
    .access_rest(Access::Overwrite)
    .reply("OK, or an error if there is no key.")
    .notes("The deadline comes along. A state cell becomes an ordinary string.");
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the key", |c, word| c.from = word),
        Arg::key("newkey", "its new name", |c, word| c.to = word),
    ];

    fn needs(&self) -> Needs {
        Needs::AllFields
    }

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        rename(txn, args.word(self.from), args.word(self.to), true)?;
        reply.ok();
        Ok(())
    }
}

/// Renames a key to a name that is free.
#[derive(Default)]
pub struct RenameNx {
    from: Word,
    to: Word,
}

impl KeyCommand for RenameNx {
    const SPEC: Spec = Spec::write(
        "renamenx",
        Group::Generic,
        "Renames a key if there is none of the new name.",
    )
    .complexity("O(1); O(N) for a hash of N fields")
    .with(flag::FAST)
    .keys(1, 2, 1)
    .access(Access::ReadRemove)
    .access_rest(Access::Overwrite)
    .reply("Integer: 1, or 0 if there is a key of the new name; an error if there is no key.")
    .notes("The deadline comes along. A state cell becomes an ordinary string.");
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the key", |c, word| c.from = word),
        Arg::key("newkey", "its new name", |c, word| c.to = word),
    ];

    fn needs(&self) -> Needs {
        Needs::AllFields
    }

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let renamed = rename(txn, args.word(self.from), args.word(self.to), false)?;
        reply.integer(i64::from(renamed));
        Ok(())
    }
}

/// Copies a value to another key.
#[derive(Default)]
pub struct Copy {
    from: Word,
    to: Word,
    database: Option<i64>,
    replace: bool,
}

impl KeyCommand for Copy {
    const SPEC: Spec = Spec::write(
        "copy",
        Group::Generic,
        "Copies a key's value to another key.",
    )
    .since("6.2.0")
    .complexity("O(1); O(N) for a hash of N fields")
    .with(flag::DENYOOM)
    .keys(1, 2, 1)
    .access(Access::Read)
    .access_rest(Access::Overwrite)
    .reply("Integer: 1, or 0 if there is no key or the destination exists.")
    .notes("The deadline comes along. A state cell's copy is an ordinary string.");
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("source", "the key that is read", |c, word| c.from = word),
        Arg::key("destination", "the key that is written", |c, word| {
            c.to = word;
        }),
        Arg::parsed(
            "destination-db",
            "database of the destination",
            Type::Integer,
            |c: &mut Copy, text, _| {
                c.database = Some(database_number(text)?);
                Ok(())
            },
        )
        .after("DB")
        .optional(),
        Arg::flag("REPLACE", "also if the destination exists", |c| {
            c.replace = true;
        }),
    ];

    fn needs(&self) -> Needs {
        Needs::AllFields
    }

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let here = txn.database() as i64;
        let there = self.database.unwrap_or(here);
        let copied = self.copy(txn, args, (here, there));
        txn.select(here)?;
        reply.integer(i64::from(copied?));
        Ok(())
    }
}

impl Copy {
    fn copy(
        &self,
        txn: &mut Txn<'_>,
        args: Args<'_>,
        (here, there): (i64, i64),
    ) -> Result<bool, Reject> {
        txn.select(there)?;
        txn.select(here)?;
        let (from, to) = (txn.key(args.word(self.from)), txn.key(args.word(self.to)));
        if from.bytes == to.bytes && here == there {
            return Err(Reject::same_object());
        }
        let Some(entry) = txn.whole_entry(&from) else {
            return Ok(false);
        };
        let (value, deadline_ms) = (entry.to_value(), entry.deadline_ms());
        txn.select(there)?;
        if !self.replace && txn.exists(&to) {
            return Ok(false);
        }
        let value = settled(txn, &to, value)?;
        txn.put(&to, value, deadline_ms);
        Ok(true)
    }
}

/// Moves a key to another database.
#[derive(Default)]
pub struct Move {
    key: Word,
    database: i64,
}

impl KeyCommand for Move {
    const SPEC: Spec = Spec::write("move", Group::Generic, "Moves a key to another database.")
        .complexity("O(1); O(N) for a hash of N fields")
        .with(flag::FAST)
        .access(Access::ReadRemove)
        .reply("Integer: 1, or 0 if there is no key or the other database has it already.")
        .notes("The deadline comes along. A state cell becomes an ordinary string.");
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the key", |c, word| c.key = word),
        Arg::parsed(
            "db",
            "number of the other database",
            Type::Integer,
            |c: &mut Move, text, _| {
                c.database = database_number(text)?;
                Ok(())
            },
        ),
    ];

    fn needs(&self) -> Needs {
        Needs::AllFields
    }

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let here = txn.database() as i64;
        let moved = self.transfer(txn, &txn.key(args.word(self.key)), here);
        txn.select(here)?;
        reply.integer(i64::from(moved?));
        Ok(())
    }
}

impl Move {
    fn transfer(&self, txn: &mut Txn<'_>, key: &Key<'_>, here: i64) -> Result<bool, Reject> {
        txn.select(self.database)?;
        if self.database == here {
            return Err(Reject::same_object());
        }
        let taken = txn.exists(key);
        txn.select(here)?;
        let Some(entry) = txn.peek_whole(key) else {
            return Ok(false);
        };
        let (value, deadline_ms) = (entry.to_value(), entry.deadline_ms());
        if taken {
            return Ok(false);
        }
        let value = settled(txn, key, value)?;
        txn.delete(key);
        txn.select(self.database)?;
        txn.put(key, value, deadline_ms);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{in_both_modes, put_cell, put_fields, write};
    use crate::command::transcript::Transcript;
    use crate::keyspace::{FieldValue, Kind, ValueRef};

    const SAME: &str = "(error) ERR source and destination objects are the same";
    const NO_DATABASE: &str = "(error) ERR DB index is out of range";

    /// Name, value and deadline of each field.
    type Fields = Vec<(Vec<u8>, Vec<u8>, u64)>;

    /// Generation and fields of a hash.
    fn hash_at(t: &mut Transcript, key: &str) -> (u64, Fields) {
        let mut found = None;
        write(t, |txn| {
            let key = txn.key(key.as_bytes());
            let hash = txn.hash(&key).expect("a hash").expect("a key");
            let fields = hash.iter().map(|field| {
                let value = field.value.to_bytes().to_vec();
                (field.name().to_vec(), value, field.expires_at_ms)
            });
            found = Some((hash.generation(), fields.collect()));
        });
        found.expect("written")
    }

    fn kind_at(t: &mut Transcript, key: &str) -> Option<Kind> {
        let mut kind = None;
        write(t, |txn| {
            let key = txn.key(key.as_bytes());
            kind = txn.peek(&key).map(|entry| entry.kind());
        });
        kind
    }

    #[test]
    fn a_renamed_key_keeps_value_and_deadline() {
        in_both_modes(|t| {
            t.check("RENAME no no", "(error) ERR no such key");
            t.check("RENAMENX no no", "(error) ERR no such key");
            t.check("SET a text PX 1000", "OK");
            t.check("SET b 5", "OK");
            t.check("RENAME a a", "OK");
            t.check("RENAMENX a a", "(integer) 0");
            t.check("RENAMENX a b", "(integer) 0");
            t.check("RENAME a b", "OK");
            t.check("GET b", "\"text\"");
            t.check("PTTL b", "(integer) 1000");
            t.check("EXISTS a", "(integer) 0");
            t.check("RENAMENX b c", "(integer) 1");
            t.check("PTTL c", "(integer) 1000");
            t.check("SET d 1", "OK");
            t.check("RENAME d c", "OK");
            t.check("PTTL c", "(integer) -1");
            t.check("SET gone 1 PX 5", "OK");
            t.advance_ms(5);
            t.check("RENAME gone c", "(error) ERR no such key");
            t.check("SET e 1", "OK");
            t.check("SET f 1 PX 5", "OK");
            t.advance_ms(5);
            t.check("RENAMENX e f", "(integer) 1");
            t.check("PTTL f", "(integer) -1");
        });
    }

    #[test]
    fn a_copy_is_a_value_of_its_own() {
        in_both_modes(|t| {
            t.check("SET a 1 PX 1000", "OK");
            t.check("COPY a b", "(integer) 1");
            t.check("COPY a b", "(integer) 0");
            t.check("INCR b", "(integer) 2");
            t.check("GET a", "\"1\"");
            t.check("PTTL b", "(integer) 1000");
            t.check("COPY a b REPLACE", "(integer) 1");
            t.check("GET b", "\"1\"");
            t.check("COPY no b REPLACE", "(integer) 0");
            t.check("COPY a b replace DB 3", "(integer) 1");
            t.check("COPY a a DB 3", "(integer) 1");
            t.select(3);
            t.check("EXISTS a b", "(integer) 2");
            t.check("PTTL a", "(integer) 1000");
            t.check("COPY a a db 0", "(integer) 0");
            t.select(0);
            t.check("EXISTS a b", "(integer) 2");
        });
    }

    #[test]
    fn a_moved_key_is_in_the_other_database_alone() {
        in_both_modes(|t| {
            t.check("SET a text PX 1000", "OK");
            t.check("MOVE a 2", "(integer) 1");
            t.check("EXISTS a", "(integer) 0");
            t.check("MOVE a 2", "(integer) 0");
            t.check("SET a other", "OK");
            t.check("MOVE a 2", "(integer) 0");
            t.check("GET a", "\"other\"");
            t.select(2);
            t.check("GET a", "\"text\"");
            t.check("PTTL a", "(integer) 1000");
            t.check("DEL a", "(integer) 1");
            t.select(0);
            t.check("MOVE a 2", "(integer) 1");
            t.select(2);
            t.check("GET a", "\"other\"");
            t.check("PTTL a", "(integer) -1");
        });
    }

    #[test]
    fn wrong_databases_are_refused_in_redis_words() {
        in_both_modes(|t| {
            let integer = "(error) ERR value is not an integer or out of range";
            let range = "(error) ERR value is out of range, value must between -2147483648 and \
                         2147483647";
            t.check("SET a 1", "OK");
            for number in ["16", "-1", "99"] {
                t.check(&format!("MOVE a {number}"), NO_DATABASE);
                t.check(&format!("COPY a b DB {number}"), NO_DATABASE);
            }
            t.check("MOVE a x", integer);
            t.check("COPY a b DB x", integer);
            t.check("MOVE a 99999999999", range);
            t.check("COPY a b DB 99999999999", range);
            t.check("MOVE a 0", SAME);
            t.check("MOVE no 0", SAME);
            t.check("MOVE no 1", "(integer) 0");
            t.check("COPY a a", SAME);
            t.check("COPY a a REPLACE DB 0", SAME);
            t.check("COPY no no", SAME);
            t.check("COPY a b DB", "(error) ERR syntax error");
            t.check("COPY a b foo", "(error) ERR syntax error");
            t.check("GET a", "\"1\"");
        });
    }

    #[test]
    fn a_hash_gets_a_new_generation_and_keeps_its_fields() {
        in_both_modes(|t| {
            put_fields(t, "h", &[("a", "1"), ("b", "text")]);
            write(t, |txn| {
                let key = txn.key(b"h");
                let at_ms = txn.now_ms() + 500;
                txn.put_field(&key, b"c", FieldValue::from_counter(7), at_ms)
                    .expect("a hash");
            });
            let (generation, fields) = hash_at(t, "h");
            t.check("COPY h copy", "(integer) 1");
            let (copied, copied_fields) = hash_at(t, "copy");
            assert!(copied > generation);
            assert_eq!(copied_fields, fields);
            t.check("RENAME h renamed", "OK");
            let (renamed, renamed_fields) = hash_at(t, "renamed");
            assert!(renamed > copied);
            assert_eq!(renamed_fields, fields);
            t.check("MOVE renamed 1", "(integer) 1");
            t.select(1);
            t.check("TYPE renamed", "hash");
            t.check("MOVE renamed 0", "(integer) 1");
            t.select(0);
            assert_eq!(hash_at(t, "renamed").1, fields);
            t.advance_ms(500);
            assert_eq!(hash_at(t, "renamed").1.len(), 2);
            assert_eq!(hash_at(t, "copy").1.len(), 2);
        });
    }

    #[test]
    fn a_state_cell_arrives_as_an_ordinary_string() {
        in_both_modes(|t| {
            put_cell(t, "cell", "busy", 1_700_000_000_500);
            t.check("COPY cell copy", "(integer) 1");
            t.check("RENAME cell cell", "OK");
            assert_eq!(kind_at(t, "cell"), Some(Kind::Cell));
            t.check("RENAME cell renamed", "OK");
            for key in ["copy", "renamed"] {
                assert_eq!(kind_at(t, key), Some(Kind::String));
                t.check(&format!("GET {key}"), "\"busy\"");
                t.check(&format!("PTTL {key}"), "(integer) 500");
            }
            put_cell(t, "cell", "12", 0);
            t.check("MOVE cell 1", "(integer) 1");
            t.check("COPY renamed cell DB 1", "(integer) 0");
            t.select(1);
            t.check("INCR cell", "(integer) 13");
        });
    }

    #[test]
    fn what_is_refused_changes_nothing() {
        let mut t = Transcript::new();
        put_fields(&mut t, "h", &[("a", "1")]);
        t.check("SET s 1", "OK");
        t.check("COPY h s", "(integer) 0");
        t.check("RENAMENX h s", "(integer) 0");
        write(&mut t, |txn| {
            let key = txn.key(b"s");
            assert!(matches!(txn.value(&key), Some(ValueRef::Counter(1))));
        });
        t.check("TYPE h", "hash");
    }
}
