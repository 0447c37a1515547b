//! COMMAND: the command table, as clients read it.

use crate::command::docs::{self, Container};
use crate::command::spec::{Access, Arg, Group, Spec, Word, Words, flag};
use crate::command::{Row, RowId, SessionCommand, table};
use crate::glob::glob_matches;
use crate::reply::{Reject, Reply};
use crate::resp::decode::Args;
use crate::session::{Next, SessionCall};

/// COMMAND HELP.
pub(super) struct CommandHelp;

impl Container for CommandHelp {
    const HELP: Spec = Spec::help("command|help", Group::Server).categories(&["connection"]);
}

const fn about(name: &'static str, summary: &'static str) -> Spec {
    Spec::session(name, Group::Server, summary)
        .since("2.8.13")
        .with(flag::LOADING | flag::STALE)
        .categories(&["connection"])
}

const fn listing(name: &'static str, summary: &'static str) -> Spec {
    about(name, summary)
        .complexity("O(N) where N is the number of commands")
        .tips(&["nondeterministic_output_order"])
}

/// COMMAND
#[derive(Default)]
pub(super) struct Command;

impl SessionCommand for Command {
    const SPEC: Spec = listing("command", "Describes all commands.")
        .reply("Array: what COMMAND INFO tells of each command.");
    const GRAMMAR: &'static [Arg<Self>] =
        &[Arg::own("subcommand", "", &[], |_, _, _| Ok(())).optional()];

    fn run(
        &self,
        _call: &mut SessionCall<'_>,
        _args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        write_all(reply);
        Ok(Next::Done)
    }
}

fn write_all(reply: &mut Reply<'_>) {
    reply.array(docs::top_level().count());
    docs::top_level().for_each(|row| docs::write_info(row, reply));
}

/// COMMAND COUNT
#[derive(Default)]
pub(super) struct Count;

impl SessionCommand for Count {
    const SPEC: Spec = about("command|count", "Counts the commands.").reply("Integer.");
    const GRAMMAR: &'static [Arg<Self>] = &[];

    fn run(
        &self,
        _call: &mut SessionCall<'_>,
        _args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        reply.count(docs::top_level().count());
        Ok(Next::Done)
    }
}

/// COMMAND DOCS
#[derive(Default)]
pub(super) struct Docs {
    names: Option<Words>,
}

impl SessionCommand for Docs {
    const SPEC: Spec = listing("command|docs", "Documents commands.")
        .since("7.0.0")
        .reply("Map: for each command a map with summary, group, arguments and more.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::rest(
        "command-name",
        "these; all if none is given",
        &[],
        |docs: &mut Self, words| docs.names = Some(words),
    )
    .optional()];

    fn run(
        &self,
        _call: &mut SessionCall<'_>,
        args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        let rows: Vec<&Row> = match self.names {
            None => docs::top_level().collect(),
            Some(words) => words.each(args, 0).filter_map(row_named).collect(),
        };
        reply.map(rows.len());
        rows.iter().for_each(|row| docs::write_docs(row, reply));
        Ok(Next::Done)
    }
}

fn row_named(name: &[u8]) -> Option<&'static Row> {
    table().named(name).map(|id| table().row(id))
}

/// COMMAND INFO
#[derive(Default)]
pub(super) struct Info {
    names: Option<Words>,
}

impl SessionCommand for Info {
    const SPEC: Spec = listing("command|info", "Describes commands.")
        .reply("Array: for each name a description, or null for a name that is unknown.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::rest(
        "command-name",
        "these; all if none is given",
        &[],
        |info: &mut Self, words| info.names = Some(words),
    )
    .optional()];

    fn run(
        &self,
        _call: &mut SessionCall<'_>,
        args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        let Some(words) = self.names else {
            write_all(reply);
            return Ok(Next::Done);
        };
        reply.array(words.groups() as usize);
        for name in words.each(args, 0) {
            match row_named(name) {
                Some(row) => docs::write_info(row, reply),
                None => reply.null(),
            }
        }
        Ok(Next::Done)
    }
}

/// COMMAND LIST
#[derive(Default)]
pub(super) struct List {
    module: Option<Word>,
    category: Option<Word>,
    pattern: Option<Word>,
}

impl List {
    fn shows(&self, row: &Row, args: Args<'_>) -> bool {
        let in_category = |word| {
            let wanted = args.word(word);
            let names = docs::categories(row);
            let mut names = names.iter().map(|name| name.as_bytes());
            names.any(|name| name.eq_ignore_ascii_case(wanted))
        };
        let matches = |word| glob_matches(args.word(word), row.spec.name.as_bytes(), true);
        self.module.is_none()
            && self.category.is_none_or(in_category)
            && self.pattern.is_none_or(matches)
    }
}

impl SessionCommand for List {
    const SPEC: Spec = listing("command|list", "Lists the names of commands.")
        .since("7.0.0")
        .reply("Array of names.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::block(
        "filterby",
        "only these",
        &[Arg::one_of(
            "filter",
            "which ones",
            &[
                Arg::text(
                    "module-name",
                    "of a module; there is none",
                    |list: &mut Self, word| list.module = Some(word),
                )
                .after("MODULE"),
                Arg::text("category", "of an ACL category", |list: &mut Self, word| {
                    list.category = Some(word)
                })
                .after("ACLCAT"),
                Arg::pattern("pattern", "that match", |list: &mut Self, word| {
                    list.pattern = Some(word)
                })
                .after("PATTERN"),
            ],
        )
        .required()],
    )
    .after("FILTERBY")
    .optional()];

    fn run(
        &self,
        _call: &mut SessionCall<'_>,
        args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        let rows = table().rows().iter();
        let names: Vec<&str> = rows
            .filter(|row| self.shows(row, args))
            .map(|row| row.spec.name)
            .collect();
        reply.array(names.len());
        names.iter().for_each(|name| reply.bulk(name.as_bytes()));
        Ok(Next::Done)
    }
}

/// A call whose keys are asked for.
#[derive(Default)]
struct Called {
    at: u32,
}

impl Called {
    /// Row and keys of the call.
    fn keys<'a>(&self, args: Args<'a>) -> Result<(RowId, Vec<&'a [u8]>), Reject> {
        let call = args.slice(self.at as usize..);
        let id = table().find(call).map_err(|reject| {
            match reject.text().starts_with(b"ERR wrong number of arguments") {
                true => Reject::fixed("ERR Invalid number of arguments specified for command"),
                false => Reject::fixed("ERR Invalid command specified"),
            }
        })?;
        let places = table().row(id).key_places(call);
        let places =
            places.map_err(|_| Reject::fixed("ERR Invalid arguments specified for command"))?;
        if places.count == 0 {
            return Err(Reject::fixed("ERR The command has no key arguments"));
        }
        Ok((id, places.each(call).collect()))
    }
}

/// COMMAND GETKEYS
#[derive(Default)]
pub(super) struct GetKeys {
    called: Called,
}

impl SessionCommand for GetKeys {
    const SPEC: Spec = about("command|getkeys", "Finds the keys in a call.")
        .complexity("O(N) where N is the number of arguments")
        .reply("Array of keys.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::own(
        "command",
        "name and arguments",
        &[],
        |get: &mut Self, _, at| {
            get.called.at = at;
            Ok(())
        },
    )];

    fn run(
        &self,
        _call: &mut SessionCall<'_>,
        args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        let (_, keys) = self.called.keys(args)?;
        reply.array(keys.len());
        keys.iter().for_each(|key| reply.bulk(key));
        Ok(Next::Done)
    }
}

/// COMMAND GETKEYSANDFLAGS
#[derive(Default)]
pub(super) struct GetKeysAndFlags {
    called: Called,
}

impl SessionCommand for GetKeysAndFlags {
    const SPEC: Spec = about(
        "command|getkeysandflags",
        "Finds the keys in a call, and what is done to each.",
    )
    .since("7.0.0")
    .complexity("O(N) where N is the number of arguments")
    .reply("Array: key and flags of each.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::own(
        "command",
        "name and arguments",
        &[],
        |get: &mut Self, _, at| {
            get.called.at = at;
            Ok(())
        },
    )];

    fn run(
        &self,
        _call: &mut SessionCall<'_>,
        args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        let (id, keys) = self.called.keys(args)?;
        let spec = table().row(id).spec;
        let asked = args.slice(2..);
        reply.array(keys.len());
        for (place, key) in keys.iter().enumerate() {
            let access: Access = match spec.access_rest {
                Some(rest) if place > 0 => rest,
                _ => spec.access_of.map_or(spec.access, |of| of(asked)),
            };
            reply.array(2);
            reply.bulk(key);
            let flags = docs::access(access);
            reply.set(flags.len());
            flags.iter().for_each(|flag| reply.simple(flag));
        }
        Ok(Next::Done)
    }
}
