//! DEBUG: what tests and operators need. Refused unless the setting enable-debug-command allows it;
//! the connection asks before it runs one of these.

use crate::command::docs::Container;
use crate::command::server::object;
use crate::command::spec::{Access, Arg, Group, Keys, Spec, Type, Word, flag};
use crate::command::{KeyCommand, SessionCommand};
use crate::keyspace::Txn;
use crate::number::parse_double;
use crate::reply::{Reject, Reply};
use crate::resp::decode::Args;
use crate::session::{Next, SessionCall};

const FLAGS: u32 = flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::PROTECTED;
/// Longest DEBUG SLEEP, in seconds.
const SLEEP_SECONDS_MAX: f64 = 3_600.0;

/// The container.
pub(super) const DEBUG: Spec =
    Spec::container("debug", Group::Server, "For tests and operators.").with(FLAGS);

/// DEBUG HELP.
pub(super) struct DebugHelp;

impl Container for DebugHelp {
    const HELP: Spec = Spec::help("debug|help", Group::Server).with(FLAGS);
}

const fn debug(name: &'static str, summary: &'static str) -> Spec {
    Spec::session(name, Group::Server, summary).with(FLAGS)
}

/// DEBUG SLEEP
#[derive(Default)]
pub(super) struct Sleep {
    microseconds: u64,
}

impl SessionCommand for Sleep {
    const SPEC: Spec = debug(
        "debug|sleep",
        "Blocks the connection's thread for so many seconds.",
    )
    .reply("OK.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::parsed(
        "seconds",
        "may be a fraction",
        Type::Double,
        |sleep: &mut Self, text, _| {
            let seconds = parse_double(text).ok_or(Reject::not_a_float())?;
            let seconds = seconds.clamp(0.0, SLEEP_SECONDS_MAX);
            sleep.microseconds = (seconds * 1e6) as u64;
            Ok(())
        },
    )];

    fn run(
        &self,
        _call: &mut SessionCall<'_>,
        _args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        reply.ok();
        Ok(Next::Sleep(self.microseconds))
    }
}

/// DEBUG SET-ACTIVE-EXPIRE
#[derive(Default)]
pub(super) struct SetActiveExpire {
    active: bool,
}

impl KeyCommand for SetActiveExpire {
    const SPEC: Spec = Spec::read(
        "debug|set-active-expire",
        Group::Server,
        "Switches the expiry of keys that nobody looks at off (0) or on (1).",
    )
    .with(FLAGS)
    .keys_by(Keys::All)
    .reply("OK.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::integer("active", "0 or 1", |set, active| {
        set.active = active != 0
    })];

    fn run(&self, txn: &mut Txn<'_>, _args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        txn.set_active_expiry(self.active);
        reply.ok();
        Ok(())
    }
}

/// DEBUG RELOAD
#[derive(Default)]
pub(super) struct Reload;

impl SessionCommand for Reload {
    const SPEC: Spec = debug("debug|reload", "Recovers everything from disk, in place.")
        .complexity("O(N) where N is the number of keys")
        .reply("OK.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::own(
        "option",
        "NOSAVE, NOFLUSH or MERGE: for compatibility",
        &[],
        |_, _, _| Ok(()),
    )
    .optional()];

    fn run(
        &self,
        _call: &mut SessionCall<'_>,
        _args: Args<'_>,
        _reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        Ok(Next::Reload)
    }
}

/// DEBUG LOADAOF
#[derive(Default)]
pub(super) struct LoadAof;

impl SessionCommand for LoadAof {
    const SPEC: Spec = debug("debug|loadaof", "Recovers everything from disk, in place.")
        .complexity("O(N) where N is the number of keys")
        .reply("OK.");
    const GRAMMAR: &'static [Arg<Self>] = &[];

    fn run(
        &self,
        _call: &mut SessionCall<'_>,
        _args: Args<'_>,
        _reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        Ok(Next::Reload)
    }
}

/// DEBUG OBJECT
#[derive(Default)]
pub(super) struct Object {
    key: Word,
}

impl KeyCommand for Object {
    const SPEC: Spec = Spec::read("debug|object", Group::Server, "Tells how a value is kept.")
        .with(FLAGS)
        .keys(2, 2, 1)
        .access(Access::Look)
        .reply("Status: pairs of name and value.");
    const GRAMMAR: &'static [Arg<Self>] =
        &[Arg::key("key", "the key", |object, word| object.key = word)];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        let limits = txn.listpack_limits();
        let now_ms = txn.now_ms();
        let entry = txn.peek_whole(&key).ok_or(Reject::no_such_key())?;
        let idle_seconds = object::idle_seconds(entry.stamp(), now_ms);
        reply.simple(&format!(
            "Value at:0x0 refcount:{} encoding:{} serializedlength:{} lru:{} lru_seconds_idle:{}",
            object::references(entry.value()),
            object::encoding(entry.value(), limits),
            entry.memory_bytes(),
            now_ms / 1000 - idle_seconds,
            idle_seconds
        ));
        Ok(())
    }
}

/// DEBUG JMAP
#[derive(Default)]
pub(super) struct Jmap;

impl SessionCommand for Jmap {
    const SPEC: Spec = debug("debug|jmap", "For compatibility: does nothing.").reply("OK.");
    const GRAMMAR: &'static [Arg<Self>] = &[];

    fn run(
        &self,
        _call: &mut SessionCall<'_>,
        _args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        reply.ok();
        Ok(Next::Done)
    }
}
