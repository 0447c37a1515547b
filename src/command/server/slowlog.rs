//! SLOWLOG: the commands that took long.

use crate::command::SessionCommand;
use crate::command::docs::Container;
use crate::command::spec::{Arg, Group, Spec, Type, flag};
use crate::number::parse_i64;
use crate::reply::{Reject, Reply};
use crate::resp::decode::Args;
use crate::session::{Next, SessionCall};

/// Entries that SLOWLOG GET shows unless told otherwise.
const ENTRIES_SHOWN: usize = 10;

/// The container.
pub(super) const SLOWLOG: Spec = Spec::container(
    "slowlog",
    Group::Server,
    "Shows the commands that took long.",
)
.since("2.2.12");

/// SLOWLOG HELP.
pub(super) struct SlowlogHelp;

impl Container for SlowlogHelp {
    const HELP: Spec = Spec::help("slowlog|help", Group::Server);
}

const fn admin(name: &'static str, summary: &'static str) -> Spec {
    Spec::session(name, Group::Server, summary)
        .since("2.2.12")
        .with(flag::ADMIN | flag::LOADING | flag::STALE)
}

/// SLOWLOG GET
#[derive(Default)]
pub(super) struct Get {
    count: Option<usize>,
}

impl SessionCommand for Get {
    const SPEC: Spec = admin("slowlog|get", "Shows the newest entries.")
        .complexity("O(N) where N is the number of entries")
        .tips(&["request_policy:all_nodes", "nondeterministic_output"])
        .reply("Array: id, Unix time, microseconds, arguments, address and name of each.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::parsed(
        "count",
        "how many; -1 for all, 10 if left out",
        Type::Integer,
        |get: &mut Self, text, _| {
            let count = parse_i64(text)
                .filter(|count| *count >= -1)
                .ok_or(Reject::fixed(
                    "ERR count should be greater than or equal to -1",
                ))?;
            get.count = Some(usize::try_from(count).unwrap_or(usize::MAX));
            Ok(())
        },
    )
    .optional()];

    fn run(
        &self,
        call: &mut SessionCall<'_>,
        _args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        let count = self.count.unwrap_or(ENTRIES_SHOWN);
        let entries = call.shared.metrics.slow_log.newest(count);
        reply.array(entries.len());
        for entry in entries {
            reply.array(6);
            reply.integer(entry.id as i64);
            reply.integer(entry.at_s as i64);
            reply.integer(entry.microseconds as i64);
            reply.array(entry.arguments.len());
            entry.arguments.iter().for_each(|word| reply.bulk(word));
            reply.bulk(entry.client_address.as_bytes());
            reply.bulk(&entry.client_name);
        }
        Ok(Next::Done)
    }
}

/// SLOWLOG LEN
#[derive(Default)]
pub(super) struct Len;

impl SessionCommand for Len {
    const SPEC: Spec = admin("slowlog|len", "Counts the entries.")
        .tips(&[
            "request_policy:all_nodes",
            "response_policy:agg_sum",
            "nondeterministic_output",
        ])
        .reply("Integer.");
    const GRAMMAR: &'static [Arg<Self>] = &[];

    fn run(
        &self,
        call: &mut SessionCall<'_>,
        _args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        reply.count(call.shared.metrics.slow_log.len());
        Ok(Next::Done)
    }
}

/// SLOWLOG RESET
#[derive(Default)]
pub(super) struct Reset;

impl SessionCommand for Reset {
    const SPEC: Spec = admin("slowlog|reset", "Forgets all entries.")
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .reply("OK.");
    const GRAMMAR: &'static [Arg<Self>] = &[];

    fn run(
        &self,
        call: &mut SessionCall<'_>,
        _args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        call.shared.metrics.slow_log.reset();
        reply.ok();
        Ok(Next::Done)
    }
}
