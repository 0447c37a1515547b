//! ACL, as far as there are users: one, called default.

use crate::command::docs::{CATEGORIES, Container, categories};
use crate::command::spec::{Arg, Group, Spec, Word, flag};
use crate::command::{Run, SessionCommand, table};
use crate::reply::{Reject, Reply};
use crate::resp::decode::Args;
use crate::session::{Next, SessionCall};

const ANYBODY: u32 = flag::NOSCRIPT | flag::LOADING | flag::STALE;

/// The container.
pub(super) const ACL: Spec =
    Spec::container("acl", Group::Server, "Tells about users; there is one.").since("6.0.0");

/// ACL HELP.
pub(super) struct AclHelp;

impl Container for AclHelp {
    const HELP: Spec = Spec::help("acl|help", Group::Server);
}

/// ACL WHOAMI
#[derive(Default)]
pub(super) struct WhoAmI;

impl SessionCommand for WhoAmI {
    const SPEC: Spec = Spec::session("acl|whoami", Group::Server, "Tells the own user.")
        .since("6.0.0")
        .with(ANYBODY)
        .reply("Bulk string: default.");
    const GRAMMAR: &'static [Arg<Self>] = &[];

    fn run(
        &self,
        _call: &mut SessionCall<'_>,
        _args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        reply.bulk(b"default");
        Ok(Next::Done)
    }
}

/// ACL USERS
#[derive(Default)]
pub(super) struct Users;

impl SessionCommand for Users {
    const SPEC: Spec = Spec::session("acl|users", Group::Server, "Lists the users.")
        .since("6.0.0")
        .with(ANYBODY | flag::ADMIN)
        .reply("Array: default.");
    const GRAMMAR: &'static [Arg<Self>] = &[];

    fn run(
        &self,
        _call: &mut SessionCall<'_>,
        _args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        reply.array(1);
        reply.bulk(b"default");
        Ok(Next::Done)
    }
}

/// ACL CAT
#[derive(Default)]
pub(super) struct Cat {
    category: Option<Word>,
}

impl SessionCommand for Cat {
    const SPEC: Spec = Spec::session(
        "acl|cat",
        Group::Server,
        "Lists the categories, or the commands of one.",
    )
    .since("6.0.0")
    .with(ANYBODY)
    .reply("Array of names.");
    const GRAMMAR: &'static [Arg<Self>] =
        &[
            Arg::text("category", "only this one", |cat: &mut Self, word| {
                cat.category = Some(word)
            })
            .optional(),
        ];

    fn run(
        &self,
        _call: &mut SessionCall<'_>,
        args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        let Some(word) = self.category else {
            reply.array(CATEGORIES.len());
            CATEGORIES
                .iter()
                .for_each(|name| reply.bulk(name.as_bytes()));
            return Ok(Next::Done);
        };
        let wanted = args.word(word).to_ascii_lowercase();
        if !CATEGORIES.iter().any(|name| name.as_bytes() == wanted) {
            let wanted = String::from_utf8_lossy(args.word(word));
            return Err(Reject::err(format!("Unknown category '{wanted}'")));
        }
        let rows = table().rows().iter();
        let names: Vec<&str> = rows
            .filter(|row| !matches!(row.run, Run::Container))
            .filter(|row| categories(row).iter().any(|name| name.as_bytes() == wanted))
            .map(|row| row.spec.name)
            .collect();
        reply.array(names.len());
        names.iter().for_each(|name| reply.bulk(name.as_bytes()));
        Ok(Next::Done)
    }
}
