//! Server commands without a file of their own: whole databases, time, saving and stopping.
//!
//! Always true: what waits or ends the server is only asked for with [`Next`]; the connection does
//! it. Commands on whole databases run on all shards at once.

mod acl;
mod backup;
mod config;
mod debug;
mod info;
mod latency;
mod memory;
mod object;
pub mod process;
mod slowlog;
mod stats;
mod table;

use crate::command::docs::Help;
use crate::command::spec::{Access, Across, Arg, Group, Keys, Spec, Type, flag};
use crate::command::{KeyCommand, Row, SessionCommand};
use crate::keyspace::Txn;
use crate::number::parse_i64;
use crate::reply::{Reject, Reply};
use crate::resp::decode::Args;
use crate::session::{Next, SessionCall};

/// The family's commands.
pub const COMMANDS: &[Row] = &[
    Row::session_container::<table::Command>(),
    Row::session::<table::Count>(),
    Row::session::<table::Docs>(),
    Row::session::<table::Info>(),
    Row::session::<table::List>(),
    Row::session::<table::GetKeys>(),
    Row::session::<table::GetKeysAndFlags>(),
    Row::session::<Help<table::CommandHelp>>(),
    Row::session::<info::Info>(),
    Row::container(&config::CONFIG),
    Row::session::<config::Get>(),
    Row::session::<config::Set>(),
    Row::session::<config::ResetStat>(),
    Row::session::<config::Rewrite>(),
    Row::session::<Help<config::ConfigHelp>>(),
    Row::keys::<DbSize>(),
    Row::keys::<FlushDb>(),
    Row::keys::<FlushAll>(),
    Row::keys::<SwapDb>(),
    Row::session::<Time>(),
    Row::session::<Shutdown>(),
    Row::session::<Save>(),
    Row::session::<BgSave>(),
    Row::session::<LastSave>(),
    Row::session::<BgRewriteAof>(),
    Row::session::<backup::Backup>(),
    Row::session::<Wait>(),
    Row::session::<WaitAof>(),
    Row::container(&slowlog::SLOWLOG),
    Row::session::<slowlog::Get>(),
    Row::session::<slowlog::Len>(),
    Row::session::<slowlog::Reset>(),
    Row::session::<Help<slowlog::SlowlogHelp>>(),
    Row::container(&latency::LATENCY),
    Row::session::<latency::Latest>(),
    Row::session::<latency::History>(),
    Row::session::<latency::Reset>(),
    Row::session::<latency::Doctor>(),
    Row::session::<latency::Graph>(),
    Row::session::<latency::Histogram>(),
    Row::session::<Help<latency::LatencyHelp>>(),
    Row::container(&memory::MEMORY),
    Row::keys::<memory::Usage>(),
    Row::session::<memory::Stats>(),
    Row::session::<memory::Doctor>(),
    Row::session::<memory::Purge>(),
    Row::session::<memory::MallocStats>(),
    Row::session::<Help<memory::MemoryHelp>>(),
    Row::container(&object::OBJECT),
    Row::keys::<object::Encoding>(),
    Row::keys::<object::Freq>(),
    Row::keys::<object::IdleTime>(),
    Row::keys::<object::RefCount>(),
    Row::session::<Help<object::ObjectHelp>>(),
    Row::container(&debug::DEBUG),
    Row::session::<debug::Sleep>(),
    Row::keys::<debug::SetActiveExpire>(),
    Row::session::<debug::Reload>(),
    Row::session::<debug::LoadAof>(),
    Row::keys::<debug::Object>(),
    Row::session::<debug::Jmap>(),
    Row::session::<Help<debug::DebugHelp>>(),
    Row::session::<Lolwut>(),
    Row::session::<Monitor>(),
    Row::session::<Role>(),
    Row::container(&acl::ACL),
    Row::session::<acl::WhoAmI>(),
    Row::session::<acl::Users>(),
    Row::session::<acl::Cat>(),
    Row::session::<Help<acl::AclHelp>>(),
];

/// Counts keys.
#[derive(Default)]
struct DbSize;

impl KeyCommand for DbSize {
    const SPEC: Spec = Spec::read("dbsize", Group::Server, "Counts the keys of the database.")
        .with(flag::FAST)
        .keys_by(Keys::All)
        .across(Across::Sum)
        .categories(&["keyspace"])
        .reply("Integer: how many keys there are.");
    const GRAMMAR: &'static [Arg<Self>] = &[];

    fn run(&self, txn: &mut Txn<'_>, _args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        reply.integer(txn.count() as i64);
        Ok(())
    }
}

const fn flushes(name: &'static str, summary: &'static str) -> Spec {
    Spec::write(name, Group::Server, summary)
        .with(flag::FREES | flag::DANGEROUS)
        .keys_by(Keys::All)
        .access(Access::Remove)
        .categories(&["keyspace"])
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .notes("ASYNC and SYNC mean the same: the memory is freed in the background.")
        .reply("OK.")
}

/// How a flush frees memory: it makes no difference here.
struct FlushMode<C>(std::marker::PhantomData<C>);

impl<C: 'static> FlushMode<C> {
    const ARG: Arg<C> = Arg::one_of(
        "flush-type",
        "for compatibility",
        &[
            Arg::flag("ASYNC", "free memory in the background", |_| ()),
            Arg::flag("SYNC", "the same", |_| ()),
        ],
    );
}

/// Empties a database.
#[derive(Default)]
struct FlushDb;

impl KeyCommand for FlushDb {
    const SPEC: Spec = flushes("flushdb", "Deletes all keys of the database.");
    const GRAMMAR: &'static [Arg<Self>] = &[FlushMode::<Self>::ARG];

    fn run(&self, txn: &mut Txn<'_>, _args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        check_ids(txn, 1)?;
        txn.flush(txn.database());
        reply.ok();
        Ok(())
    }
}

/// Empties all databases.
#[derive(Default)]
struct FlushAll;

impl KeyCommand for FlushAll {
    const SPEC: Spec = flushes("flushall", "Deletes all keys of all databases.");
    const GRAMMAR: &'static [Arg<Self>] = &[FlushMode::<Self>::ARG];

    fn run(&self, txn: &mut Txn<'_>, _args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        check_ids(txn, txn.databases().len())?;
        for number in 0..txn.databases().len() {
            txn.flush(number);
        }
        reply.ok();
        Ok(())
    }
}

/// So many databases can be emptied: each takes a new id, and none is used again.
fn check_ids(txn: &Txn<'_>, flushes: usize) -> Result<(), Reject> {
    const USED_UP: Reject = Reject::fixed(
        "ERR the ids of databases are used up, nothing can be flushed any more: delete the keys, \
         or begin with a new data folder",
    );
    match txn.databases().has_ids_for(flushes) {
        true => Ok(()),
        false => Err(USED_UP),
    }
}

/// Exchanges two databases.
#[derive(Default)]
struct SwapDb {
    first: i64,
    second: i64,
}

impl KeyCommand for SwapDb {
    const SPEC: Spec = Spec::write("swapdb", Group::Server, "Exchanges two databases.")
        .since("4.0.0")
        .with(flag::FAST | flag::DANGEROUS)
        .keys_by(Keys::All)
        .access(Access::Update)
        .categories(&["keyspace"])
        .reply("OK.");
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::parsed(
            "index1",
            "a database",
            Type::Integer,
            |swap: &mut Self, text, _| {
                let invalid = Reject::fixed("ERR invalid first DB index");
                swap.first = parse_i64(text).ok_or(invalid)?;
                Ok(())
            },
        ),
        Arg::parsed(
            "index2",
            "another one",
            Type::Integer,
            |swap: &mut Self, text, _| {
                let invalid = Reject::fixed("ERR invalid second DB index");
                swap.second = parse_i64(text).ok_or(invalid)?;
                Ok(())
            },
        ),
    ];

    fn run(&self, txn: &mut Txn<'_>, _args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let number = |number: i64| {
            let number = usize::try_from(number).ok();
            let number = number.filter(|number| *number < txn.databases().len());
            number.ok_or(Reject::db_index_out_of_range())
        };
        let (first, second) = (number(self.first)?, number(self.second)?);
        if first != second {
            txn.swap(first, second);
        }
        reply.ok();
        Ok(())
    }
}

/// Tells the time.
#[derive(Default)]
struct Time;

impl SessionCommand for Time {
    const SPEC: Spec = Spec::session("time", Group::Server, "Tells the server's time.")
        .since("2.6.0")
        .with(flag::LOADING | flag::STALE | flag::FAST)
        .tips(&["nondeterministic_output"])
        .reply("Array: Unix time in seconds, and the microseconds in the second.");
    const GRAMMAR: &'static [Arg<Self>] = &[];

    fn run(
        &self,
        call: &mut SessionCall<'_>,
        _args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        let microseconds = call.clock.now_epoch_ns() / 1000;
        reply.array(2);
        reply.bulk_integer((microseconds / 1_000_000) as i64);
        reply.bulk_integer((microseconds % 1_000_000) as i64);
        Ok(Next::Done)
    }
}

/// Stops the server.
#[derive(Default)]
struct Shutdown {
    save: bool,
    no_save: bool,
    other: bool,
    abort: bool,
}

impl SessionCommand for Shutdown {
    const SPEC: Spec = Spec::session(
        "shutdown",
        Group::Server,
        "Stops the server: no new commands, the log drained, a last checkpoint.",
    )
    .with(
        flag::ADMIN
            | flag::NOSCRIPT
            | flag::LOADING
            | flag::STALE
            | flag::NO_MULTI
            | flag::ALLOW_BUSY,
    )
    .complexity("O(N) where N is the number of keys changed since the last checkpoint")
    .notes("NOSAVE leaves out the checkpoint alone: the log has everything. A stop is final.")
    .reply("Nothing: the connection is closed.");
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::one_of(
            "save-selector",
            "whether a last checkpoint is made",
            &[
                Arg::flag("NOSAVE", "no", |stop: &mut Self| stop.no_save = true),
                Arg::flag("SAVE", "yes, the default", |stop: &mut Self| {
                    stop.save = true
                }),
            ],
        ),
        Arg::flag(
            "NOW",
            "for compatibility: no replica is waited for",
            |stop: &mut Self| stop.other = true,
        ),
        Arg::flag("FORCE", "for compatibility", |stop: &mut Self| {
            stop.other = true
        }),
        Arg::flag("ABORT", "call a stop off", |stop: &mut Self| {
            stop.abort = true
        }),
    ];

    fn run(
        &self,
        _call: &mut SessionCall<'_>,
        _args: Args<'_>,
        _reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        match self.abort {
            true if self.save || self.no_save || self.other => Err(Reject::syntax()),
            true => Err(Reject::fixed("ERR No shutdown in progress.")),
            false => Ok(Next::Shutdown {
                no_save: self.no_save,
            }),
        }
    }
}

const fn saves(name: &'static str, summary: &'static str) -> Spec {
    Spec::session(name, Group::Server, summary)
        .with(flag::ADMIN | flag::NOSCRIPT | flag::NO_ASYNC_LOADING)
        .complexity("O(N) where N is the number of keys changed since the last checkpoint")
        .notes("No write depends on it: the commit log has them all.")
}

/// Makes a checkpoint and waits.
#[derive(Default)]
struct Save;

impl SessionCommand for Save {
    const SPEC: Spec = saves("save", "Makes a checkpoint and waits until it is complete.")
        .with(flag::NO_MULTI)
        .reply("OK.");
    const GRAMMAR: &'static [Arg<Self>] = &[];

    fn run(
        &self,
        _call: &mut SessionCall<'_>,
        _args: Args<'_>,
        _reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        Ok(Next::Checkpoint { wait: true })
    }
}

/// Begins a checkpoint.
#[derive(Default)]
struct BgSave {
    schedule: bool,
}

impl SessionCommand for BgSave {
    const SPEC: Spec = saves("bgsave", "Begins a checkpoint.").reply("Background saving started.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::flag(
        "SCHEDULE",
        "afterwards, where one is under way",
        |save: &mut Self| save.schedule = true,
    )];

    fn run(
        &self,
        call: &mut SessionCall<'_>,
        _args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        match call.shared.engine.checkpoint_runs() {
            true if !self.schedule => {
                return Err(Reject::fixed("ERR Background save already in progress"));
            }
            true => reply.simple("Background saving scheduled"),
            false => reply.simple("Background saving started"),
        }
        Ok(Next::Checkpoint { wait: false })
    }
}

/// When the last checkpoint ended.
#[derive(Default)]
struct LastSave;

impl SessionCommand for LastSave {
    const SPEC: Spec = Spec::session(
        "lastsave",
        Group::Server,
        "Tells when the last checkpoint was complete.",
    )
    .with(flag::LOADING | flag::STALE | flag::FAST | flag::DANGEROUS)
    .categories(&["admin"])
    .tips(&["nondeterministic_output"])
    .reply("Integer: Unix time in seconds.");
    const GRAMMAR: &'static [Arg<Self>] = &[];

    fn run(
        &self,
        call: &mut SessionCall<'_>,
        _args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        reply.integer(call.shared.engine.last_checkpoint_s() as i64);
        Ok(Next::Done)
    }
}

/// Begins a checkpoint, which makes the log short.
#[derive(Default)]
struct BgRewriteAof;

impl SessionCommand for BgRewriteAof {
    const SPEC: Spec = saves(
        "bgrewriteaof",
        "Begins a checkpoint, after which the log is short.",
    )
    .reply("Background append only file rewriting started.");
    const GRAMMAR: &'static [Arg<Self>] = &[];

    fn run(
        &self,
        call: &mut SessionCall<'_>,
        _args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        if call.shared.engine.checkpoint_runs() {
            return Err(Reject::fixed(
                "ERR Background append only file rewriting already in progress",
            ));
        }
        reply.simple("Background append only file rewriting started");
        Ok(Next::Checkpoint { wait: false })
    }
}

/// A timeout in milliseconds, 0 for none.
fn timeout_ms(text: &[u8]) -> Result<u64, Reject> {
    let timeout = parse_i64(text).ok_or(Reject::timeout_not_a_number())?;
    u64::try_from(timeout).map_err(|_| Reject::timeout_negative())
}

/// Waits for replicas, of which there are none.
#[derive(Default)]
struct Wait {
    replicas: i64,
    timeout_ms: u64,
}

impl SessionCommand for Wait {
    const SPEC: Spec = Spec::session(
        "wait",
        Group::Generic,
        "Waits for replicas, of which there are none.",
    )
    .since("3.0.0")
    .with(flag::NOSCRIPT)
    .categories(&["connection"])
    .tips(&["request_policy:all_shards", "response_policy:agg_min"])
    .reply("0, at once if no replica is asked for, otherwise after the timeout.");
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::integer(
            "numreplicas",
            "how many to wait for",
            |wait: &mut Self, replicas| wait.replicas = replicas,
        ),
        Arg::parsed(
            "timeout",
            "milliseconds; 0: no limit",
            Type::Integer,
            |wait: &mut Self, text, _| {
                wait.timeout_ms = timeout_ms(text)?;
                Ok(())
            },
        ),
    ];

    fn run(
        &self,
        _call: &mut SessionCall<'_>,
        _args: Args<'_>,
        _reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        Ok(Next::WaitReplicas {
            replicas: self.replicas.max(0),
            timeout_ms: self.timeout_ms,
        })
    }
}

/// Waits for the disk.
#[derive(Default)]
struct WaitAof {
    local: i64,
    replicas: i64,
    timeout_ms: u64,
}

impl SessionCommand for WaitAof {
    const SPEC: Spec = Spec::session(
        "waitaof",
        Group::Generic,
        "Waits until everything before it on this connection is on disk.",
    )
    .since("7.2.0")
    .with(flag::NOSCRIPT | flag::BLOCKING)
    .categories(&["connection"])
    .tips(&["request_policy:all_shards", "response_policy:agg_min"])
    .notes("There are no replicas: asking for some waits out the timeout.")
    .reply("Array of two integers: 1 if it is on this server's disk, and 0 replicas.");
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::integer(
            "numlocal",
            "1 to wait for this server's disk",
            |wait: &mut Self, local| wait.local = local,
        ),
        Arg::integer(
            "numreplicas",
            "how many to wait for",
            |wait: &mut Self, replicas| wait.replicas = replicas,
        ),
        Arg::parsed(
            "timeout",
            "milliseconds; 0: no limit",
            Type::Integer,
            |wait: &mut Self, text, _| {
                wait.timeout_ms = timeout_ms(text)?;
                Ok(())
            },
        ),
    ];

    fn run(
        &self,
        _call: &mut SessionCall<'_>,
        _args: Args<'_>,
        _reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        if !(0..=1).contains(&self.local) {
            return Err(Reject::fixed(
                "ERR value is out of range, value must between 0 and 1",
            ));
        }
        if self.replicas < 0 {
            return Err(Reject::not_positive());
        }
        Ok(Next::WaitDurable {
            local: self.local,
            replicas: self.replicas,
            timeout_ms: self.timeout_ms,
        })
    }
}

/// Draws.
#[derive(Default)]
struct Lolwut;

impl SessionCommand for Lolwut {
    const SPEC: Spec = Spec::session("lolwut", Group::Server, "Draws tally marks.")
        .since("5.0.0")
        .with(flag::READONLY | flag::FAST)
        .reply("Text.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::own(
        "version",
        "which picture; there is one",
        &[Arg::integer("version", "any", |_, _| ())
            .after("VERSION")
            .optional()],
        |_, args, at| {
            let version = args.try_get(at as usize + 1);
            let asked = args.get(at as usize).eq_ignore_ascii_case(b"VERSION");
            match version.filter(|_| asked) {
                Some(text) => parse_i64(text).map(|_| ()).ok_or(Reject::not_an_integer()),
                None => Ok(()),
            }
        },
    )
    .optional()];

    fn run(
        &self,
        _call: &mut SessionCall<'_>,
        _args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        let row = "||||\u{338}  ".repeat(8);
        let text = format!(
            "{row}\n{row}\n{row}\n\nNobody miscounts. tallyman ver. {}\n",
            env!("CARGO_PKG_VERSION")
        );
        reply.verbatim(*b"txt", text.as_bytes());
        Ok(Next::Done)
    }
}

/// Shows all commands.
#[derive(Default)]
struct Monitor;

impl SessionCommand for Monitor {
    const SPEC: Spec = Spec::session(
        "monitor",
        Group::Server,
        "Shows every command of every client on this connection.",
    )
    .with(flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE)
    .reply("OK, then a status reply per command, once what it did is on disk.");
    const GRAMMAR: &'static [Arg<Self>] = &[];

    fn run(
        &self,
        _call: &mut SessionCall<'_>,
        _args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        reply.ok();
        Ok(Next::Monitor)
    }
}

/// Tells the role.
#[derive(Default)]
struct Role;

impl SessionCommand for Role {
    const SPEC: Spec = Spec::session("role", Group::Server, "Tells the server's role.")
        .since("2.8.12")
        .with(flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::FAST | flag::DANGEROUS)
        .categories(&["admin"])
        .reply("Array: master, a replication offset of 0, no replicas.");
    const GRAMMAR: &'static [Arg<Self>] = &[];

    fn run(
        &self,
        _call: &mut SessionCall<'_>,
        _args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        reply.array(3);
        reply.bulk(b"master");
        reply.integer(0);
        reply.array(0);
        Ok(Next::Done)
    }
}

#[cfg(test)]
mod tests;
