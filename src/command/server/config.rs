//! CONFIG: the settings of the running server. What may be set, and to what, is in the settings'
//! own table.

use crate::command::SessionCommand;
use crate::command::docs::Container;
use crate::command::spec::{Arg, Group, Spec, Words, flag};
use crate::glob::glob_matches;
use crate::reply::{Reject, Reply};
use crate::resp::decode::Args;
use crate::session::{Next, SessionCall};

/// The container.
pub(super) const CONFIG: Spec =
    Spec::container("config", Group::Server, "Shows and changes settings.").since("2.0.0");

/// CONFIG HELP.
pub(super) struct ConfigHelp;

impl Container for ConfigHelp {
    const HELP: Spec = Spec::help("config|help", Group::Server);
}

const fn admin(name: &'static str, summary: &'static str) -> Spec {
    Spec::session(name, Group::Server, summary)
        .since("2.0.0")
        .with(flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE)
}

/// CONFIG GET
#[derive(Default)]
pub(super) struct Get {
    patterns: Words,
}

impl SessionCommand for Get {
    const SPEC: Spec = admin("config|get", "Shows the settings that match.")
        .complexity("O(N) where N is the number of settings")
        .reply("Map: names and values.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::rest(
        "parameter",
        "names or patterns",
        &[],
        |get: &mut Self, words| get.patterns = words,
    )];

    fn run(
        &self,
        call: &mut SessionCall<'_>,
        args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        let patterns: Vec<&[u8]> = self.patterns.each(args, 0).collect();
        let matches = |pattern: &[u8], name: &[u8]| glob_matches(pattern, name, false);
        let found = call.shared.settings.config_get(&patterns, matches);
        reply.map(found.len());
        for (name, value) in found {
            // A name without wildcards is repeated as it was written.
            let mut patterns = patterns.iter();
            let written = patterns.find(|pattern| pattern.eq_ignore_ascii_case(name.as_bytes()));
            reply.bulk(written.map_or(name.as_bytes(), |written| written));
            reply.bulk(value.as_bytes());
        }
        Ok(Next::Done)
    }
}

/// CONFIG SET
#[derive(Default)]
pub(super) struct Set {
    pairs: Words,
}

impl SessionCommand for Set {
    const SPEC: Spec = admin("config|set", "Changes settings, all of them or none.")
        .with(flag::SECRET)
        .complexity("O(N) where N is the number of settings")
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .reply("OK.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::rest(
        "data",
        "names and values",
        &[
            Arg::text("parameter", "a name", |_, _| ()),
            Arg::text("value", "what it is from now on", |_, _| ()),
        ],
        |set: &mut Self, words| set.pairs = words,
    )];

    fn run(
        &self,
        call: &mut SessionCall<'_>,
        args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        let values = self.pairs.each(args, 1);
        let pairs: Vec<(&[u8], &[u8])> = self.pairs.each(args, 0).zip(values).collect();
        let set = call.shared.settings.config_set(&pairs);
        set.map_err(|error| Reject::new(error.0))?;
        reply.ok();
        Ok(Next::Done)
    }
}

/// CONFIG RESETSTAT
#[derive(Default)]
pub(super) struct ResetStat;

impl SessionCommand for ResetStat {
    const SPEC: Spec = admin("config|resetstat", "Sets the statistics of INFO to zero.")
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .reply("OK.");
    const GRAMMAR: &'static [Arg<Self>] = &[];

    fn run(
        &self,
        call: &mut SessionCall<'_>,
        _args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        call.shared.metrics.reset();
        reply.ok();
        Ok(Next::Done)
    }
}

/// CONFIG REWRITE
#[derive(Default)]
pub(super) struct Rewrite;

impl SessionCommand for Rewrite {
    const SPEC: Spec = admin(
        "config|rewrite",
        "Writes the settings into the settings file.",
    )
    .since("2.8.0")
    .reply("OK.");
    const GRAMMAR: &'static [Arg<Self>] = &[];

    fn run(
        &self,
        call: &mut SessionCall<'_>,
        _args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        let written = call.shared.settings.config_rewrite();
        written.map_err(|error| Reject::new(error.0))?;
        reply.ok();
        Ok(Next::Done)
    }
}
