//! OBJECT: how a value is kept. The answers are Redis's for the same value; memory here is laid out
//! in another way.

use crate::command::KeyCommand;
use crate::command::docs::Container;
use crate::command::spec::{Access, Arg, Group, Spec, Word};
use crate::keyspace::txn::Text;
use crate::keyspace::{Hash, Txn, ValueRef};
use crate::reply::{Reject, Reply};
use crate::resp::decode::Args;

/// Longest string that Redis keeps in one piece with its header, in bytes.
const EMBEDDED_BYTES_MAX: usize = 44;
/// Integers from 0 up to here are shared in Redis.
const SHARED_INTEGER_MAX: i64 = 9_999;
/// How often Redis says that a shared object is referred to.
const SHARED_REFERENCES: i64 = 2_147_483_647;
/// Seconds of one step of the clock that keys are stamped with.
const STAMP_SECONDS: u64 = 30;

/// The container.
pub(super) const OBJECT: Spec =
    Spec::container("object", Group::Generic, "Tells how values are kept.").since("2.2.3");

/// OBJECT HELP.
pub(super) struct ObjectHelp;

impl Container for ObjectHelp {
    const HELP: Spec = Spec::help("object|help", Group::Generic);
}

const fn about(name: &'static str, summary: &'static str) -> Spec {
    Spec::read(name, Group::Generic, summary)
        .since("2.2.3")
        .keys(2, 2, 1)
        .access(Access::Look)
        .tips(&["nondeterministic_output"])
}

/// What Redis calls the form of a value.
pub(super) fn encoding(value: ValueRef<'_>, listpack_limits: (usize, usize)) -> &'static str {
    let text = match (value, Text::of(value)) {
        (ValueRef::Hash(hash), _) => return hash_encoding(hash, listpack_limits),
        (_, Some(text)) => text,
        (_, None) => return "raw",
    };
    match text {
        Text::Integer(_) => "int",
        Text::Bytes(bytes) if bytes.len() <= EMBEDDED_BYTES_MAX => "embstr",
        Text::Bytes(_) => "raw",
    }
}

fn hash_encoding(hash: &Hash, (entries_max, bytes_max): (usize, usize)) -> &'static str {
    let small = hash.len() <= entries_max
        && hash.iter().all(|field| {
            let value_bytes = field.value.text().map_or(0, <[u8]>::len);
            field.name().len() <= bytes_max && value_bytes <= bytes_max
        });
    match small {
        true => "listpack",
        false => "hashtable",
    }
}

/// Seconds since a key was used, in steps of half a minute, up to two hours.
pub(super) fn idle_seconds(stamp: u8, now_ms: u64) -> u64 {
    let now = (now_ms / 1000 / STAMP_SECONDS) as u8;
    u64::from(now.wrapping_sub(stamp)) * STAMP_SECONDS
}

/// How often Redis would refer to the value.
pub(super) fn references(value: ValueRef<'_>) -> i64 {
    match Text::of(value) {
        Some(Text::Integer(0..=SHARED_INTEGER_MAX)) => SHARED_REFERENCES,
        _ => 1,
    }
}

/// OBJECT ENCODING
#[derive(Default)]
pub(super) struct Encoding {
    key: Word,
}

impl KeyCommand for Encoding {
    const SPEC: Spec = about("object|encoding", "Tells the form of a value.")
        .reply("Bulk string: int, embstr, raw, listpack or hashtable; null if there is no key.");
    const GRAMMAR: &'static [Arg<Self>] =
        &[Arg::key("key", "the key", |object, word| object.key = word)];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        let limits = txn.listpack_limits();
        // What is too large for a listpack is known without its fields.
        let large = |hash: &Hash| hash.len() > limits.0;
        let large = match txn.peek(&key).map(|entry| entry.value()) {
            Some(ValueRef::Hash(hash)) => large(hash),
            _ => true,
        };
        let entry = match large {
            true => txn.peek(&key),
            false => txn.peek_whole(&key),
        };
        match entry {
            Some(entry) => reply.bulk(encoding(entry.value(), limits).as_bytes()),
            None => reply.null(),
        }
        Ok(())
    }
}

/// OBJECT FREQ
#[derive(Default)]
pub(super) struct Freq {
    key: Word,
}

impl KeyCommand for Freq {
    const SPEC: Spec = about(
        "object|freq",
        "Tells how often a key is used, which is not counted here.",
    )
    .since("4.0.0")
    .reply("An error; null if there is no key.");
    const GRAMMAR: &'static [Arg<Self>] =
        &[Arg::key("key", "the key", |object, word| object.key = word)];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        if txn.exists(&key) {
            return Err(Reject::fixed(
                "ERR An LFU maxmemory policy is not selected, access frequency not tracked. \
                 Please note that when switching between policies at runtime LRU and LFU data \
                 will take some time to adjust.",
            ));
        }
        reply.null();
        Ok(())
    }
}

/// OBJECT IDLETIME
#[derive(Default)]
pub(super) struct IdleTime {
    key: Word,
}

impl KeyCommand for IdleTime {
    const SPEC: Spec = about("object|idletime", "Tells how long a key was not used.")
        .notes("Known to half a minute, and up to two hours.")
        .reply("Integer: seconds; null if there is no key.");
    const GRAMMAR: &'static [Arg<Self>] =
        &[Arg::key("key", "the key", |object, word| object.key = word)];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        let now_ms = txn.now_ms();
        match txn.peek(&key) {
            Some(entry) => reply.integer(idle_seconds(entry.stamp(), now_ms) as i64),
            None => reply.null(),
        }
        Ok(())
    }
}

/// OBJECT REFCOUNT
#[derive(Default)]
pub(super) struct RefCount {
    key: Word,
}

impl KeyCommand for RefCount {
    const SPEC: Spec = about("object|refcount", "Tells how often a value is referred to.")
        .reply("Integer, as Redis tells it for the same value; null if there is no key.");
    const GRAMMAR: &'static [Arg<Self>] =
        &[Arg::key("key", "the key", |object, word| object.key = word)];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        match txn.peek(&key) {
            Some(entry) => reply.integer(references(entry.value())),
            None => reply.null(),
        }
        Ok(())
    }
}
