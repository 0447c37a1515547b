//! Fields read: HGET, HMGET, HGETALL, HKEYS, HVALS, HLEN, HSTRLEN, HEXISTS.

use super::{reply_value, reply_value_or_null, value_bytes};
use crate::command::KeyCommand;
use crate::command::spec::{Access, Arg, Group, Needs, Spec, Word, Words, flag};
use crate::keyspace::Txn;
use crate::reply::{Reject, Reply};
use crate::resp::decode::Args;

/// Reads a field.
#[derive(Default)]
pub(super) struct HGet {
    key: Word,
    field: Word,
}

impl KeyCommand for HGet {
    const SPEC: Spec = Spec::read("hget", Group::Hash, "Returns the value of a field.")
        .since("2.0.0")
        .complexity("O(log N)")
        .with(flag::FAST)
        .reply("Bulk string, or null if there is no such field.");
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the hash", |c, word| c.key = word),
        Arg::text("field", "a name", |c, word| c.field = word),
    ];

    fn needs(&self) -> Needs {
        self.field.into()
    }

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        reply_value_or_null(txn.field(&key, args.word(self.field))?, reply);
        Ok(())
    }
}

/// Reads fields.
#[derive(Default)]
pub(super) struct HMGet {
    key: Word,
    fields: Words,
}

impl KeyCommand for HMGet {
    const SPEC: Spec = Spec::read("hmget", Group::Hash, "Returns the values of fields.")
        .since("2.0.0")
        .complexity("O(log N) for each field")
        .with(flag::FAST)
        .reply("Array: each field's value, or null.");
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the hash", |c, word| c.key = word),
        Arg::rest(
            "field",
            "what is read",
            &[Arg::text("field", "a name", |_, _| {})],
            |c, words| c.fields = words,
        ),
    ];

    fn needs(&self) -> Needs {
        Needs::Fields(self.fields)
    }

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        let fields = txn.fields(&key, self.fields.each(args, 0))?;
        reply.array(self.fields.groups() as usize);
        for name in self.fields.each(args, 0) {
            reply_value_or_null(fields.and_then(|fields| fields.get(name)), reply);
        }
        Ok(())
    }
}

/// Reads all fields.
#[derive(Default)]
pub(super) struct HGetAll {
    key: Word,
}

impl KeyCommand for HGetAll {
    const SPEC: Spec = Spec::read(
        "hgetall",
        Group::Hash,
        "Returns all fields with their values.",
    )
    .since("2.0.0")
    .complexity("O(N)")
    .reply("Map of names and values; empty if there is no key.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::key("key", "the hash", |c, word| c.key = word)];

    fn needs(&self) -> Needs {
        Needs::AllFields
    }

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        let hash = txn.hash(&key)?;
        reply.map(hash.map_or(0, |hash| hash.len()));
        for field in hash.into_iter().flat_map(|hash| hash.iter()) {
            reply.bulk(field.name());
            reply_value(&field.value, reply);
        }
        Ok(())
    }
}

/// Reads all names.
#[derive(Default)]
pub(super) struct HKeys {
    key: Word,
}

impl KeyCommand for HKeys {
    const SPEC: Spec = Spec::read("hkeys", Group::Hash, "Returns the names of all fields.")
        .since("2.0.0")
        .complexity("O(N)")
        .reply("Array of names; empty if there is no key.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::key("key", "the hash", |c, word| c.key = word)];

    fn needs(&self) -> Needs {
        Needs::AllFields
    }

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        let hash = txn.hash(&key)?;
        reply.array(hash.map_or(0, |hash| hash.len()));
        for field in hash.into_iter().flat_map(|hash| hash.iter()) {
            reply.bulk(field.name());
        }
        Ok(())
    }
}

/// Reads all values.
#[derive(Default)]
pub(super) struct HVals {
    key: Word,
}

impl KeyCommand for HVals {
    const SPEC: Spec = Spec::read("hvals", Group::Hash, "Returns the values of all fields.")
        .since("2.0.0")
        .complexity("O(N)")
        .reply("Array of values; empty if there is no key.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::key("key", "the hash", |c, word| c.key = word)];

    fn needs(&self) -> Needs {
        Needs::AllFields
    }

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        let hash = txn.hash(&key)?;
        reply.array(hash.map_or(0, |hash| hash.len()));
        for field in hash.into_iter().flat_map(|hash| hash.iter()) {
            reply_value(&field.value, reply);
        }
        Ok(())
    }
}

/// Counts fields.
#[derive(Default)]
pub(super) struct HLen {
    key: Word,
}

impl KeyCommand for HLen {
    const SPEC: Spec = Spec::read("hlen", Group::Hash, "Returns the number of fields.")
        .since("2.0.0")
        .with(flag::FAST)
        .access(Access::Look)
        .reply("Integer: 0 if there is no key.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::key("key", "the hash", |c, word| c.key = word)];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        reply.count(txn.hash_in_part(&key)?.map_or(0, |hash| hash.len()));
        Ok(())
    }
}

/// Length of a value.
#[derive(Default)]
pub(super) struct HStrLen {
    key: Word,
    field: Word,
}

impl KeyCommand for HStrLen {
    const SPEC: Spec = Spec::read(
        "hstrlen",
        Group::Hash,
        "Returns the length of a field's value in bytes.",
    )
    .since("3.2.0")
    .complexity("O(log N)")
    .with(flag::FAST)
    .access(Access::Look)
    .reply("Integer: 0 if there is no such field.");
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the hash", |c, word| c.key = word),
        Arg::text("field", "a name", |c, word| c.field = word),
    ];

    fn needs(&self) -> Needs {
        self.field.into()
    }

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        let field = txn.field(&key, args.word(self.field))?;
        reply.count(field.map_or(0, |field| value_bytes(&field.value)));
        Ok(())
    }
}

/// Whether there is a field.
#[derive(Default)]
pub(super) struct HExists {
    key: Word,
    field: Word,
}

impl KeyCommand for HExists {
    const SPEC: Spec = Spec::read("hexists", Group::Hash, "Tells whether a hash has a field.")
        .since("2.0.0")
        .complexity("O(log N)")
        .with(flag::FAST)
        .access(Access::Look)
        .reply("Integer: 1 or 0.");
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the hash", |c, word| c.key = word),
        Arg::text("field", "a name", |c, word| c.field = word),
    ];

    fn needs(&self) -> Needs {
        self.field.into()
    }

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        let there = txn.field(&key, args.word(self.field))?.is_some();
        reply.integer(there.into());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::command::transcript::Transcript;

    #[test]
    fn fields_are_read() {
        Transcript::in_both_modes(|t| {
            t.check("HSET h a 12 b text c -7", "(integer) 3");
            t.check("HGET h a", "\"12\"");
            t.check("HGET h x", "(nil)");
            t.check("HMGET h b x a", "1) \"text\"\n2) (nil)\n3) \"12\"");
            t.check("HMGET none x", "1) (nil)");
            t.check("HLEN h", "(integer) 3");
            t.check("HSTRLEN h b", "(integer) 4");
            t.check("HSTRLEN h c", "(integer) 2");
            t.check("HSTRLEN h x", "(integer) 0");
            t.check("HEXISTS h a", "(integer) 1");
            t.check("HEXISTS h x", "(integer) 0");
            t.check("HEXISTS none x", "(integer) 0");
        });
    }

    #[test]
    fn all_fields_are_a_map_in_resp3_and_a_flat_array_in_resp2() {
        let mut t = Transcript::new();
        t.check("HSET h a 1", "(integer) 1");
        t.check("HGETALL h", "1) \"a\"\n2) \"1\"");
        t.check("HKEYS h", "1) \"a\"");
        t.check("HVALS h", "1) \"1\"");
        t.check("HGETALL none", "(empty array)");
        t.check("HKEYS none", "(empty array)");
        let mut t = t.resp3();
        t.check("HGETALL h", "1# \"a\" => \"1\"");
        t.check("HGETALL none", "(empty hash)");
        t.check("HVALS none", "(empty array)");
    }

    #[test]
    fn binary_names_and_values_are_kept() {
        let mut t = Transcript::new().recovering();
        let long = vec![b'v'; 100_000];
        t.run_bytes(&[b"HSET", b"h", b"", b"", b"\0\xff", &long, b"n", b"007"]);
        t.check("HLEN h", "(integer) 3");
        t.check("HGET h \"\"", "\"\"");
        t.check("HGET h n", "\"007\"");
        t.check("HSTRLEN h \"\\x00\\xff\"", "(integer) 100000");
    }
}
