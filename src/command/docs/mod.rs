//! What the table's rows say about themselves, in the forms that users read: `COMMAND INFO`,
//! `COMMAND DOCS`, HELP, the README's table, and random calls for tests.
//!
//! Always true: everything here is derived from a row; no command is named in this folder.

mod help;
mod random;
mod readme;

use crate::command::spec::{Access, Across, ArgDoc, Group, Keys, Type, flag};
use crate::command::{Row, Run, table};
use crate::reply::Reply;

pub use help::{Container, Help, usage};
pub use random::random_call;
pub use readme::markdown;

/// All ACL categories in Redis's order, without `@`.
pub const CATEGORIES: &[&str] = &[
    "keyspace",
    "read",
    "write",
    "set",
    "sortedset",
    "list",
    "hash",
    "string",
    "bitmap",
    "hyperloglog",
    "geo",
    "stream",
    "pubsub",
    "admin",
    "fast",
    "slow",
    "blocking",
    "dangerous",
    "connection",
    "transaction",
    "scripting",
];

/// The ACL categories of a command, in Redis's order, without `@`.
pub fn categories(row: &Row) -> Vec<&'static str> {
    let of_group: &[&str] = match (row.spec.categories, row.run) {
        (Some(categories), _) => categories,
        (None, Run::Container) => &[],
        (None, _) => match row.spec.group {
            Group::Connection => &["connection"],
            Group::Server => &[],
            Group::Generic | Group::Once => &["keyspace"],
            Group::String | Group::States | Group::Limits => &["string"],
            Group::Bitmap => &["bitmap"],
            Group::Hash | Group::Credits => &["hash"],
            Group::Transactions => &["transaction"],
        },
    };
    let has = |category: &str| match category {
        "write" => row.has(flag::WRITE),
        "read" => row.has(flag::READONLY),
        "admin" => row.has(flag::ADMIN),
        "dangerous" => row.has(flag::ADMIN) || row.has(flag::DANGEROUS),
        "fast" => row.has(flag::FAST),
        "slow" => !row.has(flag::FAST),
        "blocking" => row.has(flag::BLOCKING),
        _ => false,
    };
    let all = CATEGORIES.iter().copied();
    all.filter(|category| of_group.contains(category) || has(category))
        .collect()
}

/// The flags of a command as `COMMAND INFO` names them.
pub fn flags(row: &Row) -> Vec<&'static str> {
    let mut flags: Vec<&str> = flag::NAMES
        .iter()
        .filter(|(bit, _)| row.has(*bit))
        .map(|(_, name)| *name)
        .collect();
    if matches!(row.spec.keys, Keys::Counted { .. }) && !row.has(flag::MOVABLE_KEYS) {
        flags.push("movablekeys");
    }
    flags
}

/// The names of what a command does to a key.
pub fn access(access: Access) -> &'static [&'static str] {
    match access {
        Access::Read => &["RO", "access"],
        Access::Update => &["RW", "update"],
        Access::ReadUpdate => &["RW", "access", "update"],
        Access::Overwrite => &["OW", "update"],
        Access::Remove => &["RM", "delete"],
        Access::ReadRemove => &["RW", "access", "delete"],
        Access::Look => &["RO"],
        Access::Insert => &["OW", "insert"],
    }
}

/// The hints for cluster clients and tests.
pub fn tips(row: &Row) -> &'static [&'static str] {
    if !row.spec.tips.is_empty() {
        return row.spec.tips;
    }
    let keyed = matches!(row.spec.keys, Keys::Range { .. });
    match row.spec.across {
        Across::Sum if keyed => &["request_policy:multi_shard", "response_policy:agg_sum"],
        Across::Interleave => &["request_policy:multi_shard"],
        Across::Sum => &["request_policy:all_shards", "response_policy:agg_sum"],
        Across::Concat => &["request_policy:all_shards", "nondeterministic_output_order"],
        Across::AnyOne => &["request_policy:all_shards", "nondeterministic_output"],
        Across::Atomic => &[],
    }
}

/// The subcommands of a row; none for a row that has none.
pub fn subcommands(row: &Row) -> Vec<&'static Row> {
    match row.container {
        true => table().subcommands(row.spec.name).collect(),
        false => Vec::new(),
    }
}

/// The rows that are no subcommands.
pub fn top_level() -> impl Iterator<Item = &'static Row> {
    let rows = table().rows().iter();
    rows.filter(|row| !row.spec.name.contains('|'))
}

fn statuses(reply: &mut Reply<'_>, texts: &[&str]) {
    reply.set(texts.len());
    texts.iter().for_each(|text| reply.simple(text));
}

/// One element of `COMMAND INFO`.
pub fn write_info(row: &Row, reply: &mut Reply<'_>) {
    reply.array(10);
    reply.bulk(row.spec.name.as_bytes());
    reply.integer(i64::from(row.arity));
    statuses(reply, &flags(row));
    let (first, last, step) = match row.spec.keys {
        Keys::Range { first, last, step } => (i64::from(first), i64::from(last), i64::from(step)),
        _ => (0, 0, 0),
    };
    reply.integer(first);
    reply.integer(last);
    reply.integer(step);
    let categories = categories(row);
    reply.set(categories.len());
    for category in categories {
        reply.simple(&format!("@{category}"));
    }
    let tips = tips(row);
    reply.set(tips.len());
    tips.iter().for_each(|tip| reply.bulk(tip.as_bytes()));
    write_key_specs(row, reply);
    let subcommands = subcommands(row);
    reply.set(subcommands.len());
    for subcommand in subcommands {
        write_info(subcommand, reply);
    }
}

/// Where one key specification finds its keys: place of the first, last from there, step.
enum Found {
    Range(u32, i32, u32),
    Counted(u32, u32),
}

fn key_specs(row: &Row) -> Vec<(Access, Found)> {
    let spec = row.spec;
    match (spec.keys, spec.access_rest) {
        (Keys::None | Keys::All | Keys::Cursor(_), _) => Vec::new(),
        (Keys::Counted { count_at, step }, _) => {
            vec![(spec.access, Found::Counted(count_at, step))]
        }
        (Keys::Range { first, last, step }, None) => {
            let last = if last < 0 { last } else { last - first as i32 };
            vec![(spec.access, Found::Range(first, last, step))]
        }
        (Keys::Range { first, last, step }, Some(rest)) => {
            let second = first + step;
            let last = if last < 0 { last } else { last - second as i32 };
            vec![
                (spec.access, Found::Range(first, 0, step)),
                (rest, Found::Range(second, last, step)),
            ]
        }
    }
}

fn write_key_specs(row: &Row, reply: &mut Reply<'_>) {
    let specs = key_specs(row);
    reply.set(specs.len());
    for (key_access, found) in specs {
        reply.map(3);
        reply.bulk(b"flags");
        statuses(reply, access(key_access));
        let begin = match found {
            Found::Range(first, ..) | Found::Counted(first, _) => first,
        };
        reply.bulk(b"begin_search");
        write_search(reply, "index", &[("index", i64::from(begin))]);
        reply.bulk(b"find_keys");
        match found {
            Found::Range(_, last, step) => {
                let pairs = [
                    ("lastkey", i64::from(last)),
                    ("keystep", i64::from(step)),
                    ("limit", 0),
                ];
                write_search(reply, "range", &pairs);
            }
            Found::Counted(_, step) => {
                let pairs = [
                    ("keynumidx", 0),
                    ("firstkey", 1),
                    ("keystep", i64::from(step)),
                ];
                write_search(reply, "keynum", &pairs);
            }
        }
    }
}

fn write_search(reply: &mut Reply<'_>, kind: &str, pairs: &[(&str, i64)]) {
    reply.map(2);
    reply.bulk(b"type");
    reply.bulk(kind.as_bytes());
    reply.bulk(b"spec");
    reply.map(pairs.len());
    for (name, value) in pairs {
        reply.bulk(name.as_bytes());
        reply.integer(*value);
    }
}

/// One element of `COMMAND DOCS`: the name and the map behind it.
pub fn write_docs(row: &Row, reply: &mut Reply<'_>) {
    let spec = row.spec;
    reply.bulk(spec.name.as_bytes());
    let arguments = arguments(&(row.docs)());
    let subcommands = subcommands(row);
    reply.map(4 + usize::from(!arguments.is_empty()) + usize::from(!subcommands.is_empty()));
    for (name, text) in [
        ("summary", spec.summary),
        ("since", spec.since),
        ("group", spec.group.name()),
        ("complexity", spec.complexity),
    ] {
        reply.bulk(name.as_bytes());
        reply.bulk(text.as_bytes());
    }
    if !arguments.is_empty() {
        reply.bulk(b"arguments");
        write_arguments(&arguments, &mut 0, reply);
    }
    if !subcommands.is_empty() {
        reply.bulk(b"subcommands");
        reply.map(subcommands.len());
        subcommands.iter().for_each(|row| write_docs(row, reply));
    }
}

/// The arguments as Redis describes them: what only swallows words is left out, a count stands
/// beside what it counts, and a group of one is that one.
fn arguments(docs: &[ArgDoc]) -> Vec<ArgDoc> {
    let mut shown = Vec::new();
    for doc in docs.iter().filter(|doc| !doc.doc.is_empty()) {
        let mut arg = doc.clone();
        arg.parts = arguments(&doc.parts);
        // Behind a word of its own, a count counts something else than keys.
        let word = if arg.counted { arg.token.take() } else { None };
        let count = arg.counted.then(|| count_of(word));
        if word.is_none() {
            shown.extend(count.clone());
        }
        if matches!(arg.kind, Type::Block | Type::OneOf) && arg.parts.is_empty() {
            arg.kind = Type::Text;
        } else if arg.kind == Type::Block && arg.multiple && arg.parts.len() == 1 {
            let only = arg.parts.remove(0);
            arg.kind = only.kind;
            arg.name = only.name;
            arg.parts = only.parts;
        }
        // The word, the count and what it counts are left out together or not at all.
        arg.optional &= word.is_none();
        shown.push(match (word, count) {
            (Some(_), Some(count)) => ArgDoc {
                name: doc.name,
                doc: doc.doc,
                token: word,
                kind: Type::Block,
                optional: doc.optional,
                multiple: false,
                counted: false,
                parts: vec![count, arg],
            },
            _ => arg,
        });
    }
    shown
}

/// The count before what it counts.
fn count_of(word: Option<&str>) -> ArgDoc {
    ArgDoc {
        name: match word {
            None => "numkeys",
            Some("FIELDS") => "numfields",
            Some(_) => "count",
        },
        doc: "how many follow",
        token: None,
        kind: Type::Integer,
        optional: false,
        multiple: false,
        counted: false,
        parts: Vec::new(),
    }
}

fn write_arguments(arguments: &[ArgDoc], keys: &mut i64, reply: &mut Reply<'_>) {
    reply.array(arguments.len());
    for arg in arguments {
        let kind = match arg.kind {
            Type::Key => "key",
            Type::Text => "string",
            Type::Integer => "integer",
            Type::Double => "double",
            Type::UnixTime => "unix-time",
            Type::Pattern => "pattern",
            Type::Token => "pure-token",
            Type::OneOf => "oneof",
            Type::Block => "block",
        };
        let is_key = arg.kind == Type::Key;
        let mut flags = Vec::new();
        if arg.optional {
            flags.push("optional");
        }
        if arg.multiple {
            flags.push("multiple");
        }
        let pairs = 2 + [
            is_key,
            arg.token.is_some(),
            !flags.is_empty(),
            !arg.parts.is_empty(),
        ]
        .iter()
        .filter(|there| **there)
        .count();
        reply.map(pairs);
        reply.bulk(b"name");
        let name = arg.name.to_ascii_lowercase();
        reply.bulk(name.as_bytes());
        reply.bulk(b"type");
        reply.bulk(kind.as_bytes());
        if is_key {
            reply.bulk(b"key_spec_index");
            reply.integer(*keys);
            *keys += 1;
        }
        if let Some(token) = arg.token {
            reply.bulk(b"token");
            reply.bulk(token.as_bytes());
        }
        if !flags.is_empty() {
            reply.bulk(b"flags");
            statuses(reply, &flags);
        }
        if !arg.parts.is_empty() {
            reply.bulk(b"arguments");
            write_arguments(&arg.parts, keys, reply);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_can_be_described() {
        for row in table().rows() {
            for protocol in [crate::resp::Protocol::Resp2, crate::resp::Protocol::Resp3] {
                let mut out = Vec::new();
                let mut reply = Reply::new(&mut out, protocol);
                reply.array(3);
                write_info(row, &mut reply);
                write_docs(row, &mut reply);
                let whole = crate::resp::value::Value::parse(&out).expect("well-formed");
                assert_eq!(
                    whole.map(|(_, len)| len),
                    Some(out.len()),
                    "{}",
                    row.spec.name
                );
            }
            assert!(
                !row.spec.summary.is_empty(),
                "{} has no summary",
                row.spec.name
            );
            assert_eq!(row.spec.name, row.spec.name.to_lowercase());
            let container = row.spec.name.split('|').next().expect("a first part");
            let container = table().named(container.as_bytes()).expect("its container");
            assert!(
                !row.spec.name.contains('|') || table().row(container).container,
                "{} is in no container",
                row.spec.name
            );
        }
    }

    #[test]
    fn what_a_row_says_becomes_flags_categories_and_key_specs() {
        let row = |name: &str| table().row(table().named(name.as_bytes()).expect(name));
        assert_eq!(flags(row("incr")), ["write", "denyoom", "fast"]);
        assert_eq!(categories(row("incr")), ["write", "string", "fast"]);
        assert_eq!(categories(row("config")), ["slow"]);
        assert_eq!(
            categories(row("config|get")),
            ["admin", "slow", "dangerous"]
        );
        assert_eq!(categories(row("dbsize")), ["keyspace", "read", "fast"]);
        assert_eq!(row("client|no-evict").arity, 3);
        assert_eq!(row("client|kill").arity, -3);
        assert_eq!(row("hello").arity, -1);
    }
}
