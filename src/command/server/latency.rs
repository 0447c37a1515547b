//! LATENCY: the latency monitor, and the distribution of each command's times.

use crate::command::docs::Container;
use crate::command::spec::{Arg, Group, Spec, Word, Words, flag};
use crate::command::{SessionCommand, table};
use crate::reply::{Reject, Reply};
use crate::resp::decode::Args;
use crate::session::{Next, SessionCall};

/// The container.
pub(super) const LATENCY: Spec = Spec::container(
    "latency",
    Group::Server,
    "Shows what took long, and how long.",
)
.since("2.8.13");

/// LATENCY HELP.
pub(super) struct LatencyHelp;

impl Container for LatencyHelp {
    const HELP: Spec = Spec::help("latency|help", Group::Server);
}

const fn admin(name: &'static str, summary: &'static str) -> Spec {
    Spec::session(name, Group::Server, summary)
        .since("2.8.13")
        .with(flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE)
        .tips(&[
            "nondeterministic_output",
            "request_policy:all_nodes",
            "response_policy:special",
        ])
}

/// LATENCY LATEST
#[derive(Default)]
pub(super) struct Latest;

impl SessionCommand for Latest {
    const SPEC: Spec = admin("latency|latest", "Shows the latest sample of every event.")
        .reply("Array: name, Unix time, milliseconds, and the longest ever of each.");
    const GRAMMAR: &'static [Arg<Self>] = &[];

    fn run(
        &self,
        call: &mut SessionCall<'_>,
        _args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        let events = call.shared.metrics.latency.latest();
        reply.array(events.len());
        for event in events {
            reply.array(4);
            reply.bulk(event.name.as_bytes());
            reply.integer(event.latest.at_s as i64);
            reply.integer(event.latest.milliseconds as i64);
            reply.integer(event.max_milliseconds as i64);
        }
        Ok(Next::Done)
    }
}

/// LATENCY HISTORY
#[derive(Default)]
pub(super) struct History {
    event: Word,
}

impl SessionCommand for History {
    const SPEC: Spec = admin("latency|history", "Shows the samples of an event.")
        .reply("Array: Unix time and milliseconds of each.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::text(
        "event",
        "its name",
        |history: &mut Self, word| history.event = word,
    )];

    fn run(
        &self,
        call: &mut SessionCall<'_>,
        args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        let samples = call.shared.metrics.latency.history(args.word(self.event));
        reply.array(samples.len());
        for sample in samples {
            reply.array(2);
            reply.integer(sample.at_s as i64);
            reply.integer(sample.milliseconds as i64);
        }
        Ok(Next::Done)
    }
}

/// LATENCY RESET
#[derive(Default)]
pub(super) struct Reset {
    events: Words,
}

impl SessionCommand for Reset {
    const SPEC: Spec = admin("latency|reset", "Forgets the samples of events.")
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .reply("Integer: how many events were forgotten.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::rest(
        "event",
        "their names; all if none is given",
        &[],
        |reset: &mut Self, words| reset.events = words,
    )
    .optional()];

    fn run(
        &self,
        call: &mut SessionCall<'_>,
        args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        let names: Vec<&[u8]> = self.events.each(args, 0).collect();
        reply.count(call.shared.metrics.latency.reset(&names));
        Ok(Next::Done)
    }
}

/// LATENCY DOCTOR
#[derive(Default)]
pub(super) struct Doctor;

impl SessionCommand for Doctor {
    const SPEC: Spec =
        admin("latency|doctor", "Says what took long and what may help.").reply("Text.");
    const GRAMMAR: &'static [Arg<Self>] = &[];

    fn run(
        &self,
        call: &mut SessionCall<'_>,
        _args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        let threshold_ms = call.shared.settings.settings().latency_monitor_threshold_ms;
        let text = call.shared.metrics.latency.doctor(threshold_ms);
        reply.verbatim(*b"txt", text.as_bytes());
        Ok(Next::Done)
    }
}

/// LATENCY GRAPH
#[derive(Default)]
pub(super) struct Graph {
    event: Word,
}

impl SessionCommand for Graph {
    const SPEC: Spec = admin("latency|graph", "Draws the samples of an event.").reply("Text.");
    const GRAMMAR: &'static [Arg<Self>] =
        &[Arg::text("event", "its name", |graph: &mut Self, word| {
            graph.event = word
        })];

    fn run(
        &self,
        call: &mut SessionCall<'_>,
        args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        let event = args.word(self.event);
        let drawn = call.shared.metrics.latency.graph(event, call.now_ms);
        let Some(text) = drawn else {
            let event = String::from_utf8_lossy(event);
            return Err(Reject::err(format!(
                "No samples available for event '{event}'"
            )));
        };
        reply.verbatim(*b"txt", text.as_bytes());
        Ok(Next::Done)
    }
}

/// LATENCY HISTOGRAM
#[derive(Default)]
pub(super) struct Histogram {
    commands: Option<Words>,
}

impl Histogram {
    /// The rows asked for; of a container its subcommands as well.
    fn rows(&self, args: Args<'_>) -> Vec<usize> {
        let rows = table().rows();
        let Some(words) = self.commands else {
            return (0..rows.len()).collect();
        };
        let mut found = Vec::new();
        for id in words.each(args, 0).filter_map(|name| table().named(name)) {
            let name = table().row(id).spec.name;
            let asked = |row: &&crate::command::Row| {
                let rest = row.spec.name.strip_prefix(name);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('|'))
            };
            let places = rows.iter().enumerate().filter(|(_, row)| asked(row));
            found.extend(places.map(|(place, _)| place));
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

impl SessionCommand for Histogram {
    const SPEC: Spec = admin(
        "latency|histogram",
        "Shows how the times of commands are spread.",
    )
    .since("7.0.0")
    .complexity("O(N) where N is the number of commands with times")
    .reply("Map: for each command how often it ran, and how many took at most so many us.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::rest(
        "command",
        "names; all that ran if none is given",
        &[],
        |histogram: &mut Self, words| histogram.commands = Some(words),
    )
    .optional()];

    fn run(
        &self,
        call: &mut SessionCall<'_>,
        args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        let metrics = &call.shared.metrics;
        let mut shown = 0;
        let outer = reply.deferred_map();
        for row in self.rows(args) {
            let times = metrics.command_latency(row);
            if times.count() == 0 {
                continue;
            }
            shown += 1;
            reply.bulk(table().rows()[row].spec.name.as_bytes());
            reply.map(2);
            reply.bulk(b"calls");
            reply.integer(times.count() as i64);
            reply.bulk(b"histogram_usec");
            let pairs = times.powers_of_two_us();
            reply.map(pairs.len());
            for (microseconds, calls) in pairs {
                reply.integer(microseconds as i64);
                reply.integer(calls as i64);
            }
        }
        reply.finish(outer, shown);
        Ok(Next::Done)
    }
}
