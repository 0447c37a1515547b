//! Transactions: MULTI, EXEC, DISCARD, WATCH, UNWATCH.
//!
//! The commands here only say what the connection has to do; a queued block runs whole on the
//! owners of its keys, which are borrowed if there are several.

use crate::command::spec::{Access, Arg, Group, Spec, Words, flag};
use crate::command::{Row, SessionCommand};
use crate::limits::KEY_BYTES_MAX;
use crate::reply::{Reject, Reply};
use crate::resp::decode::Args;
use crate::session::{Condition, Next, SessionCall};

/// The family's commands.
pub const COMMANDS: &[Row] = &[
    Row::session::<Multi>(),
    Row::session::<Exec>(),
    Row::session::<Discard>(),
    Row::session::<Watch>(),
    Row::session::<Unwatch>(),
];

/// Flags that all of them have.
const FLAGS: u32 = flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::FAST | flag::ALLOW_BUSY;

/// Begins a block.
#[derive(Default)]
struct Multi;

impl SessionCommand for Multi {
    const SPEC: Spec = Spec::session(
        "multi",
        Group::Transactions,
        "Begins a block: the commands up to EXEC are queued, and run whole and alone.",
    )
    .since("1.2.0")
    .with(FLAGS | flag::IMMEDIATE)
    .reply("Simple string: OK.");
    const GRAMMAR: &'static [Arg<Self>] = &[];

    fn run(
        &self,
        call: &mut SessionCall<'_>,
        _args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        if call.session.block.is_some() {
            return Err(Reject::fixed("ERR MULTI calls can not be nested"));
        }
        reply.ok();
        Ok(Next::Multi)
    }
}

/// Runs the queued block.
#[derive(Default)]
struct Exec {
    conditions: Vec<Condition>,
}

impl SessionCommand for Exec {
    const SPEC: Spec = Spec::session(
        "exec",
        Group::Transactions,
        "Runs the queued block, if no watched key was written and every condition holds.",
    )
    .since("1.2.0")
    .complexity("Depends on the queued commands")
    .with(flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::IMMEDIATE | flag::SKIP_SLOWLOG)
    .reply("Array of the commands' replies, or null if the block did not run.")
    .notes(
        "Conditions: IFEQ key value (the key holds this string), IFNE key value (it does not; a \
         missing key counts), NX key (it is missing), XX key (it exists); all must hold. An error \
         of one command does not undo the others.",
    );
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::own(
        "condition",
        "what must hold for the block to run",
        &[
            Arg::block("equal", "the key holds this string", KEY_AND_VALUE).after("IFEQ"),
            Arg::block(
                "not-equal",
                "the key does not hold this string",
                KEY_AND_VALUE,
            )
            .after("IFNE"),
            Arg::key("key", "the key is missing", |_, _| {}).after("NX"),
            Arg::key("key", "the key exists", |_, _| {}).after("XX"),
        ],
        |exec: &mut Exec, args, from| {
            exec.conditions = conditions(args, from as usize)?;
            Ok(())
        },
    )
    .optional()];

    fn run(
        &self,
        call: &mut SessionCall<'_>,
        _args: Args<'_>,
        _reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        if call.session.block.is_none() {
            return Err(Reject::fixed("ERR EXEC without MULTI"));
        }
        Ok(Next::Exec(self.conditions.clone()))
    }
}

const KEY_AND_VALUE: &[Arg<Exec>] = &[
    Arg::key("key", "the key", |_, _| {}),
    Arg::text("value", "the string to compare with", |_, _| {}),
];

fn conditions(args: Args<'_>, from: usize) -> Result<Vec<Condition>, Reject> {
    let mut conditions = Vec::new();
    let mut words = args.iter().skip(from);
    while let Some(word) = words.next() {
        let mut next = || words.next().map(<[u8]>::to_vec).ok_or(Reject::syntax());
        let condition = match word.to_ascii_uppercase().as_slice() {
            b"IFEQ" => Condition::Equal(next()?, next()?),
            b"IFNE" => Condition::NotEqual(next()?, next()?),
            b"NX" => Condition::Missing(next()?),
            b"XX" => Condition::Exists(next()?),
            _ => return Err(Reject::syntax()),
        };
        if condition.key().len() > KEY_BYTES_MAX {
            return Err(Reject::key_too_long());
        }
        conditions.push(condition);
    }
    Ok(conditions)
}

/// Throws the queued block away.
#[derive(Default)]
struct Discard;

impl SessionCommand for Discard {
    const SPEC: Spec = Spec::session(
        "discard",
        Group::Transactions,
        "Throws the queued block and all watches away.",
    )
    .since("2.0.0")
    .with(FLAGS | flag::IMMEDIATE)
    .reply("Simple string: OK.");
    const GRAMMAR: &'static [Arg<Self>] = &[];

    fn run(
        &self,
        call: &mut SessionCall<'_>,
        _args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        if call.session.block.is_none() {
            return Err(Reject::fixed("ERR DISCARD without MULTI"));
        }
        reply.ok();
        Ok(Next::Discard)
    }
}

/// Watches keys.
#[derive(Default)]
struct Watch {
    keys: Words,
}

impl SessionCommand for Watch {
    const SPEC: Spec = Spec::session(
        "watch",
        Group::Transactions,
        "Watches keys: the next EXEC runs nothing if one of them was written in between.",
    )
    .since("2.2.0")
    .complexity("O(1) for every key")
    .keys(1, -1, 1)
    .access(Access::Look)
    .with(FLAGS | flag::IMMEDIATE)
    .reply("Simple string: OK.")
    .notes("Expiry and FLUSHALL count as writes of the keys that they remove.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::rest(
        "key",
        "the keys",
        &[Arg::key("key", "a key", |_, _| {})],
        |watch: &mut Watch, keys| watch.keys = keys,
    )];

    fn run(
        &self,
        call: &mut SessionCall<'_>,
        args: Args<'_>,
        _reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        if call.session.block.is_some() {
            return Err(Reject::fixed("ERR WATCH inside MULTI is not allowed"));
        }
        if self.keys.each(args, 0).any(|key| key.len() > KEY_BYTES_MAX) {
            return Err(Reject::key_too_long());
        }
        Ok(Next::Watch(self.keys))
    }
}

/// Forgets all watches.
#[derive(Default)]
struct Unwatch;

impl SessionCommand for Unwatch {
    const SPEC: Spec = Spec::session(
        "unwatch",
        Group::Transactions,
        "Forgets all watches of the connection.",
    )
    .since("2.2.0")
    .with(FLAGS)
    .reply("Simple string: OK.");
    const GRAMMAR: &'static [Arg<Self>] = &[];

    fn run(
        &self,
        _call: &mut SessionCall<'_>,
        _args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        reply.ok();
        Ok(Next::Unwatch)
    }
}
