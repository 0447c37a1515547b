//! HELP of containers, and the usage line of a command.

use std::marker::PhantomData;

use crate::command::docs::arguments;
use crate::command::spec::{Arg, ArgDoc, Spec, Type};
use crate::command::{Row, SessionCommand, table};
use crate::reply::{Reject, Reply};
use crate::resp::decode::Args;
use crate::session::{Next, SessionCall};

/// A container whose HELP is derived from its subcommands.
pub trait Container: 'static {
    /// What `container|help` says about itself.
    const HELP: Spec;
}

/// The HELP of a container.
pub struct Help<C>(PhantomData<C>);

impl<C> Default for Help<C> {
    fn default() -> Help<C> {
        Help(PhantomData)
    }
}

impl<C: Container> SessionCommand for Help<C> {
    const SPEC: Spec = C::HELP;
    const GRAMMAR: &'static [Arg<Self>] = &[];

    fn run(
        &self,
        _call: &mut SessionCall<'_>,
        _args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        let container = C::HELP.name.split('|').next().unwrap_or_default();
        let lines = lines(container);
        reply.array(lines.len());
        lines.iter().for_each(|line| reply.simple(line));
        Ok(Next::Done)
    }
}

fn lines(container: &str) -> Vec<String> {
    let upper = container.to_uppercase();
    let title = format!("{upper} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:");
    let mut lines = vec![title];
    let itself = table()
        .named(container.as_bytes())
        .map(|id| table().row(id));
    if let Some(row) = itself.filter(|row| !matches!(row.run, crate::command::Run::Container)) {
        lines.push("(no subcommand)".to_owned());
        lines.push(format!("    {}", row.spec.summary));
    }
    for row in table().subcommands(container) {
        let usage = usage(row);
        lines.push(usage[upper.len() + 1..].to_owned());
        lines.push(format!("    {}", row.spec.summary));
    }
    lines
}

/// How a command is called: `SET key value [NX | XX] …`.
pub fn usage(row: &Row) -> String {
    let mut usage = row.spec.name.replace('|', " ").to_uppercase();
    for argument in arguments(&(row.docs)()) {
        usage.push(' ');
        usage.push_str(&syntax(&argument));
    }
    usage
}

fn syntax(doc: &ArgDoc) -> String {
    let value = match doc.kind {
        Type::Token => String::new(),
        Type::OneOf => parts(doc, " | "),
        Type::Block if is_any_of(doc) && doc.parts.len() > 1 => {
            format!("{} ...", parts(doc, " | "))
        }
        Type::Block => parts(doc, " "),
        _ => doc.name.to_ascii_lowercase(),
    };
    let value = match doc.multiple {
        true => format!("{value} [{value} ...]"),
        false => value,
    };
    let whole = match (doc.token, value.is_empty()) {
        (Some(token), true) => token.to_owned(),
        (Some(token), false) if doc.kind == Type::OneOf => format!("{token} <{value}>"),
        (Some(token), false) => format!("{token} {value}"),
        (None, _) => value,
    };
    match (doc.optional, doc.kind) {
        (true, _) => format!("[{whole}]"),
        (false, Type::OneOf) => format!("<{whole}>"),
        _ => whole,
    }
}

/// Whether this stands for any number of its parts: each begins with its own word, and all of it
/// may be left out.
fn is_any_of(doc: &ArgDoc) -> bool {
    doc.kind == Type::Block
        && doc.optional
        && doc.token.is_none()
        && doc.parts.iter().all(|part| part.token.is_some())
}

fn parts(doc: &ArgDoc, between: &str) -> String {
    let alternatives = doc.kind == Type::OneOf || is_any_of(doc);
    let part = |part: &ArgDoc| {
        let mut part = part.clone();
        part.optional &= !alternatives;
        syntax(&part)
    };
    doc.parts.iter().map(part).collect::<Vec<_>>().join(between)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_lines_read_like_rediss() {
        let of = |name: &str| usage(table().row(table().named(name.as_bytes()).expect(name)));
        assert_eq!(of("incrby"), "INCRBY key increment");
        assert_eq!(of("ping"), "PING [message]");
        assert_eq!(of("client|no-evict"), "CLIENT NO-EVICT <ON | OFF>");
        assert_eq!(of("config|get"), "CONFIG GET parameter [parameter ...]");
        assert_eq!(of("httl"), "HTTL key FIELDS numfields field [field ...]");
        assert_eq!(
            of("exec"),
            "EXEC [IFEQ key value | IFNE key value | NX key | XX key ...]"
        );
        assert_eq!(
            of("hello"),
            "HELLO [protover [AUTH username password] [SETNAME clientname]]"
        );
    }
}
