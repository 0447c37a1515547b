//! INFO: which sections are asked for, and how they are written.
//!
//! Always true: a section is a headline and lines of `name:value`, each ended by CR LF, with an
//! empty line between sections: what redis-cli, client libraries and exporters read.

use crate::command::SessionCommand;
use crate::command::server::stats::{self, Lines};
use crate::command::spec::{Arg, Group, Spec, Words, flag};
use crate::reply::{Reject, Reply};
use crate::resp::decode::Args;
use crate::session::{Next, SessionCall};

/// A section of INFO.
struct Section {
    /// As it is asked for.
    name: &'static str,
    /// As it is headed.
    title: &'static str,
    /// Shown when nothing in particular is asked for.
    default: bool,
    write: fn(&SessionCall<'_>, &mut Lines),
}

const fn section(
    name: &'static str,
    title: &'static str,
    default: bool,
    write: fn(&SessionCall<'_>, &mut Lines),
) -> Section {
    Section {
        name,
        title,
        default,
        write,
    }
}

/// All sections, in their order.
const SECTIONS: &[Section] = &[
    section("server", "Server", true, stats::server),
    section("clients", "Clients", true, stats::clients),
    section("memory", "Memory", true, stats::memory),
    section("persistence", "Persistence", true, stats::persistence),
    section("stats", "Stats", true, stats::stats),
    section("replication", "Replication", true, stats::replication),
    section("cpu", "CPU", true, stats::cpu),
    section("modules", "Modules", true, |_, _| ()),
    section("commandstats", "Commandstats", false, stats::commands),
    section("errorstats", "Errorstats", true, stats::errors),
    section("latencystats", "Latencystats", false, stats::latencies),
    section("cluster", "Cluster", true, |_, lines| {
        lines.add("cluster_enabled", 0)
    }),
    section("tallyman", "Tallyman", true, stats::tallyman),
    section("keyspace", "Keyspace", true, stats::keyspace),
];

/// INFO
#[derive(Default)]
pub(super) struct Info {
    sections: Option<Words>,
}

impl Info {
    fn wants(&self, section: &Section, args: Args<'_>) -> bool {
        let Some(words) = self.sections else {
            return section.default;
        };
        words.each(args, 0).any(|word| {
            let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
            is(section.name) || is("all") || is("everything") || (section.default && is("default"))
        })
    }
}

impl SessionCommand for Info {
    const SPEC: Spec = Spec::session("info", Group::Server, "Tells what the server does.")
        .with(flag::LOADING | flag::STALE | flag::DANGEROUS)
        .tips(&[
            "nondeterministic_output",
            "request_policy:all_shards",
            "response_policy:special",
        ])
        .reply("Text: sections of name:value lines.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::rest(
        "section",
        "names, or default, all, everything",
        &[],
        |info: &mut Self, words| info.sections = Some(words),
    )
    .optional()];

    fn run(
        &self,
        call: &mut SessionCall<'_>,
        args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        let mut lines = Lines::default();
        let mut next = Next::Done;
        for section in SECTIONS.iter().filter(|section| self.wants(section, args)) {
            lines.title(section.title);
            (section.write)(call, &mut lines);
            if section.name == "keyspace" {
                // It counts keys that may not be on disk yet.
                next = Next::WhenQueued;
            }
        }
        reply.verbatim(*b"txt", lines.text().as_bytes());
        Ok(next)
    }
}
