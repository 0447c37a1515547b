//! Keys of any type: whether they exist, when they expire, where they go, and how they are walked
//! through, taken out and put back.
//!
//! Always true: what is only about a key's existence or deadline does not count as a use of it; a
//! value that comes under another key or into another database is an ordinary one (a state cell
//! becomes a string, a hash gets a new generation).

mod copy;
mod dump;
mod expire;
mod listpack;
mod payload;
mod scan;
mod ziplist;

use crate::command::spec::{Access, Across, Arg, Group, Spec, Word, Words, flag};
use crate::command::{KeyCommand, Row};
use crate::keyspace::{Kind, Txn};
use crate::reply::{Reject, Reply};
use crate::resp::decode::Args;

/// The family's commands.
pub const COMMANDS: &[Row] = &[
    Row::keys::<Del>(),
    Row::keys::<Unlink>(),
    Row::keys::<Exists>(),
    Row::keys::<Touch>(),
    Row::keys::<TypeOf>(),
    Row::keys::<expire::Expire>(),
    Row::keys::<expire::PExpire>(),
    Row::keys::<expire::ExpireAt>(),
    Row::keys::<expire::PExpireAt>(),
    Row::keys::<expire::Ttl>(),
    Row::keys::<expire::PTtl>(),
    Row::keys::<expire::ExpireTime>(),
    Row::keys::<expire::PExpireTime>(),
    Row::keys::<expire::Persist>(),
    Row::keys::<copy::Rename>(),
    Row::keys::<copy::RenameNx>(),
    Row::keys::<copy::Copy>(),
    Row::keys::<copy::Move>(),
    Row::keys::<scan::KeysMatching>(),
    Row::keys::<scan::Scan>(),
    Row::keys::<scan::RandomKey>(),
    Row::keys::<dump::Dump>(),
    Row::keys::<dump::Restore>(),
];

/// What TYPE calls a value, and what SCAN's TYPE compares with.
fn type_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter | Kind::String | Kind::Cell => "string",
        Kind::Hash => "hash",
    }
}

/// Counts the keys of which `f` is true; a key that is named twice is asked twice.
fn count_keys(
    txn: &mut Txn<'_>,
    args: Args<'_>,
    keys: Words,
    mut f: impl FnMut(&mut Txn<'_>, &crate::keyspace::Key<'_>) -> bool,
) -> usize {
    let mut count = 0;
    for key in txn.keys(keys.each(args, 0)) {
        count += usize::from(f(txn, &key));
    }
    count
}

/// Deletes keys.
#[derive(Default)]
struct Del {
    keys: Words,
}

impl KeyCommand for Del {
    const SPEC: Spec = Spec::write("del", Group::Generic, "Deletes keys.")
        .complexity("O(N) for N keys, and the fields of those that are hashes")
        .with(flag::FREES)
        .keys(1, -1, 1)
        .access(Access::Remove)
        .across(Across::Sum)
        .reply("Integer: how many keys there were.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::rest(
        "key",
        "the keys",
        &[Arg::key("key", "a key", |_, _| {})],
        |c, words| c.keys = words,
    )];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        reply.count(count_keys(txn, args, self.keys, |txn, key| txn.delete(key)));
        Ok(())
    }
}

/// Deletes keys; here the same as DEL.
#[derive(Default)]
struct Unlink {
    keys: Words,
}

impl KeyCommand for Unlink {
    const SPEC: Spec = Spec::write("unlink", Group::Generic, "Deletes keys.")
        .since("4.0.0")
        .complexity("O(N) for N keys, and the fields of those that are hashes")
        .with(flag::FAST | flag::FREES)
        .keys(1, -1, 1)
        .access(Access::Remove)
        .across(Across::Sum)
        .reply("Integer: how many keys there were.")
        .notes("The same as DEL: rows on disk always go in the background.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::rest(
        "key",
        "the keys",
        &[Arg::key("key", "a key", |_, _| {})],
        |c, words| c.keys = words,
    )];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        reply.count(count_keys(txn, args, self.keys, |txn, key| txn.delete(key)));
        Ok(())
    }
}

/// Counts keys that exist.
#[derive(Default)]
struct Exists {
    keys: Words,
}

impl KeyCommand for Exists {
    const SPEC: Spec = Spec::read(
        "exists",
        Group::Generic,
        "Counts the given keys that exist.",
    )
    .complexity("O(N) for N keys")
    .with(flag::FAST)
    .keys(1, -1, 1)
    .access(Access::Look)
    .across(Across::Sum)
    .reply("Integer: how many exist; a key that is named twice counts twice.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::rest(
        "key",
        "the keys",
        &[Arg::key("key", "a key", |_, _| {})],
        |c, words| c.keys = words,
    )];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        reply.count(count_keys(txn, args, self.keys, |txn, key| txn.exists(key)));
        Ok(())
    }
}

/// Uses keys.
#[derive(Default)]
struct Touch {
    keys: Words,
}

impl KeyCommand for Touch {
    const SPEC: Spec = Spec::read(
        "touch",
        Group::Generic,
        "Marks keys as used now, and counts those that exist.",
    )
    .since("3.2.1")
    .complexity("O(N) for N keys")
    .with(flag::FAST)
    .keys(1, -1, 1)
    .access(Access::Look)
    .across(Across::Sum)
    .reply("Integer: how many exist; a key that is named twice counts twice.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::rest(
        "key",
        "the keys",
        &[Arg::key("key", "a key", |_, _| {})],
        |c, words| c.keys = words,
    )];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let touched = count_keys(txn, args, self.keys, |txn, key| txn.entry(key).is_some());
        reply.count(touched);
        Ok(())
    }
}

/// Names the type of a key's value.
#[derive(Default)]
struct TypeOf {
    key: Word,
}

impl KeyCommand for TypeOf {
    const SPEC: Spec = Spec::read("type", Group::Generic, "Names the type of a key's value.")
        .with(flag::FAST)
        .access(Access::Look)
        .reply("Status: string, hash, or none if there is no key.")
        .notes("A state cell is a string.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::key("key", "the key", |c, word| c.key = word)];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        let kind = txn.peek(&key).map(|entry| entry.kind());
        reply.simple(kind.map_or("none", type_name));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::command::transcript::Transcript;
    use crate::keyspace::txn::Owners;
    use crate::keyspace::{Cell, FieldValue, Txn, Value};

    /// Once plainly, once with a restart from the log after each command.
    pub(super) fn in_both_modes(test: impl Fn(&mut Transcript)) {
        test(&mut Transcript::new());
        test(&mut Transcript::new().recovering());
    }

    /// Writes what no command of this family writes.
    pub(super) fn write(t: &mut Transcript, write: impl FnOnce(&mut Txn<'_>)) {
        let mut txn = Txn::new(Owners::One(t.keyspace()), 0);
        write(&mut txn);
        txn.commit();
        // Any command seals the turn.
        t.check("EXISTS nothing-of-that-name", "(integer) 0");
    }

    pub(super) fn put_fields(t: &mut Transcript, key: &str, fields: &[(&str, &str)]) {
        write(t, |txn| {
            for (name, value) in fields {
                let key = txn.key(key.as_bytes());
                let value = FieldValue::from_bytes(value.as_bytes());
                let new = txn.put_field(&key, name.as_bytes(), value, 0);
                assert_eq!(new, Ok(true));
            }
        });
    }

    pub(super) fn put_cell(t: &mut Transcript, key: &str, state: &'static str, deadline_ms: u64) {
        write(t, |txn| {
            let key = txn.key(key.as_bytes());
            let token = txn.token(&key).expect("a token");
            let cell = Cell {
                token,
                owner: None,
                fingerprint: None,
                done: false,
                state: state.into(),
            };
            txn.put(&key, Value::Cell(Box::new(cell)), deadline_ms);
        });
    }

    #[test]
    fn keys_are_deleted_and_counted_each_time_they_are_named() {
        in_both_modes(|t| {
            for key in ["a", "b", "c"] {
                t.check(&format!("SET {key} 1"), "OK");
            }
            t.check("EXISTS a a no", "(integer) 2");
            t.check("TOUCH a a no b", "(integer) 3");
            t.check("DEL a a no", "(integer) 1");
            t.check("EXISTS a", "(integer) 0");
            t.check("UNLINK a b c c", "(integer) 2");
            t.check("DEL a", "(integer) 0");
            t.check(
                "DEL",
                "(error) ERR wrong number of arguments for 'del' command",
            );
            t.check("SET a 1 PX 10", "OK");
            t.advance_ms(10);
            t.check("EXISTS a", "(integer) 0");
            t.check("DEL a", "(integer) 0");
        });
    }

    #[test]
    fn a_type_is_string_or_hash_or_none() {
        in_both_modes(|t| {
            t.check("SET a 1", "OK");
            t.check("SET b text", "OK");
            put_fields(t, "h", &[("f", "1")]);
            put_cell(t, "cell", "busy", 0);
            t.check("TYPE a", "string");
            t.check("TYPE b", "string");
            t.check("TYPE cell", "string");
            t.check("TYPE h", "hash");
            t.check("TYPE no", "none");
        });
    }
}
