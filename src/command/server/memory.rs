//! MEMORY: what keys and the server take up.

use crate::command::docs::Container;
use crate::command::server::process;
use crate::command::spec::{Access, Arg, Group, Needs, Spec, Type, Word};
use crate::command::{KeyCommand, SessionCommand};
use crate::keyspace::Txn;
use crate::number::parse_i64;
use crate::reply::{Reject, Reply};
use crate::resp::decode::Args;
use crate::session::{Next, SessionCall};

/// The container.
pub(super) const MEMORY: Spec = Spec::container(
    "memory",
    Group::Server,
    "Tells what keys and the server take up.",
)
.since("4.0.0");

/// MEMORY HELP.
pub(super) struct MemoryHelp;

impl Container for MemoryHelp {
    const HELP: Spec = Spec::help("memory|help", Group::Server);
}

const fn about(name: &'static str, summary: &'static str) -> Spec {
    Spec::session(name, Group::Server, summary)
        .since("4.0.0")
        .tips(&[
            "nondeterministic_output",
            "request_policy:all_shards",
            "response_policy:special",
        ])
}

/// MEMORY USAGE
#[derive(Default)]
pub(super) struct Usage {
    key: Word,
}

impl KeyCommand for Usage {
    const SPEC: Spec = Spec::read(
        "memory|usage",
        Group::Server,
        "Tells the bytes that a key and its value take up.",
    )
    .since("4.0.0")
    .keys(2, 2, 1)
    .access(Access::Look)
    .notes("Nothing is sampled: the bytes of a hash are counted as it changes.")
    .reply("Integer: bytes; null if there is no key.");
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the key", |usage, word| usage.key = word),
        Arg::parsed(
            "count",
            "for compatibility",
            Type::Integer,
            |_: &mut Self, text, _| {
                let count = parse_i64(text).ok_or(Reject::not_an_integer())?;
                if count < 0 {
                    return Err(Reject::syntax());
                }
                Ok(())
            },
        )
        .after("SAMPLES")
        .optional(),
    ];

    fn needs(&self) -> Needs {
        Needs::AllFields
    }

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        match txn.peek_whole(&key) {
            Some(entry) => reply.count(entry.memory_bytes()),
            None => reply.null(),
        }
        Ok(())
    }
}

/// A value of MEMORY STATS.
enum Figure {
    Count(u64),
    Share(f64),
}

/// MEMORY STATS
#[derive(Default)]
pub(super) struct Stats;

impl SessionCommand for Stats {
    const SPEC: Spec = about("memory|stats", "Tells what takes up the server's memory.")
        .reply("Map: names and numbers.");
    const GRAMMAR: &'static [Arg<Self>] = &[];

    fn run(
        &self,
        call: &mut SessionCall<'_>,
        _args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        use Figure::{Count, Share};
        let usage = process::Usage::now();
        let dataset = call.shared.metrics.level(|shard| &shard.resident_bytes);
        let keys: u64 = call
            .shared
            .keyspace
            .databases()
            .iter()
            .map(|(_, keys, _)| keys)
            .sum();
        let clients = call.shared.clients.list();
        let clients_bytes = clients.iter().map(|client| {
            let relaxed = std::sync::atomic::Ordering::Relaxed;
            (client.query_bytes.load(relaxed) + client.output_bytes.load(relaxed)) as u64
        });
        let percent = |part: u64, whole: u64| part as f64 * 100.0 / whole.max(1) as f64;
        let figures = [
            ("peak.allocated", Count(usage.resident_peak_bytes)),
            ("total.allocated", Count(usage.resident_bytes)),
            ("startup.allocated", Count(0)),
            ("replication.backlog", Count(0)),
            ("clients.slaves", Count(0)),
            ("clients.normal", Count(clients_bytes.sum())),
            ("cluster.links", Count(0)),
            ("aof.buffer", Count(0)),
            ("lua.caches", Count(0)),
            ("functions.caches", Count(0)),
            (
                "overhead.total",
                Count(usage.resident_bytes.saturating_sub(dataset)),
            ),
            ("keys.count", Count(keys)),
            (
                "keys.bytes-per-key",
                Count(dataset.checked_div(keys).unwrap_or(0)),
            ),
            ("dataset.bytes", Count(dataset)),
            (
                "dataset.percentage",
                Share(percent(dataset, usage.resident_bytes)),
            ),
            (
                "peak.percentage",
                Share(percent(usage.resident_bytes, usage.resident_peak_bytes)),
            ),
            ("allocator.allocated", Count(usage.resident_bytes)),
            ("allocator.active", Count(usage.resident_bytes)),
            ("allocator.resident", Count(usage.resident_bytes)),
            ("allocator-fragmentation.ratio", Share(1.0)),
            ("allocator-fragmentation.bytes", Count(0)),
            ("allocator-rss.ratio", Share(1.0)),
            ("allocator-rss.bytes", Count(0)),
            ("rss-overhead.ratio", Share(1.0)),
            ("rss-overhead.bytes", Count(0)),
            ("fragmentation", Share(1.0)),
            ("fragmentation.bytes", Count(0)),
        ];
        reply.map(figures.len());
        for (name, figure) in figures {
            reply.bulk(name.as_bytes());
            match figure {
                Count(count) => reply.integer(count as i64),
                Share(share) => reply.double(share),
            }
        }
        Ok(Next::Done)
    }
}

/// MEMORY DOCTOR
#[derive(Default)]
pub(super) struct Doctor;

impl SessionCommand for Doctor {
    const SPEC: Spec = about("memory|doctor", "Says what is wrong with memory.").reply("Text.");
    const GRAMMAR: &'static [Arg<Self>] = &[];

    fn run(
        &self,
        call: &mut SessionCall<'_>,
        _args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        let maxmemory = call.shared.settings.settings().maxmemory_bytes as u64;
        let keyspace = call.shared.metrics.level(|shard| &shard.resident_bytes);
        let text = match maxmemory {
            0 => "maxmemory is 0: keys stay in memory however many there are.\n",
            limit if keyspace > limit / 10 * 9 => {
                "Keys take up more than nine tenths of maxmemory: those that are least used are \
                 read from disk.\n"
            }
            _ => "Nothing is wrong.\n",
        };
        reply.verbatim(*b"txt", text.as_bytes());
        Ok(Next::Done)
    }
}

/// MEMORY PURGE
#[derive(Default)]
pub(super) struct Purge;

impl SessionCommand for Purge {
    const SPEC: Spec = about(
        "memory|purge",
        "For compatibility: memory is given back by itself.",
    )
    .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
    .reply("OK.");
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

/// MEMORY MALLOC-STATS
#[derive(Default)]
pub(super) struct MallocStats;

impl SessionCommand for MallocStats {
    const SPEC: Spec =
        about("memory|malloc-stats", "Tells what the allocator tells.").reply("Text.");
    const GRAMMAR: &'static [Arg<Self>] = &[];

    fn run(
        &self,
        _call: &mut SessionCall<'_>,
        _args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        reply.verbatim(*b"txt", b"Stats not supported for the current allocator");
        Ok(Next::Done)
    }
}
