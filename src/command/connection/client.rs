//! CLIENT and its subcommands: what a connection is called, who else is connected, and how others
//! are stopped.

use std::sync::atomic::Ordering::Relaxed;

use crate::command::SessionCommand;
use crate::command::connection::filter::{Filter, client_line, client_type};
use crate::command::connection::{check_name, is_plain};
use crate::command::docs::Container;
use crate::command::spec::{Arg, Group, Spec, Type, Word, flag};
use crate::number::parse_i64;
use crate::reply::{Reject, Reply};
use crate::resp::decode::Args;
use crate::session::{Next, ReplyMode, SessionCall};

/// Flags of the subcommands about the own connection.
const OWN: u32 = flag::NOSCRIPT | flag::LOADING | flag::STALE;
/// Flags of the subcommands about others.
const OTHERS: u32 = OWN | flag::ADMIN;

/// The container.
pub(super) const CLIENT: Spec = Spec::container(
    "client",
    Group::Connection,
    "Looks after connections: names, lists, kills, pauses.",
)
.since("2.4.0");

/// CLIENT HELP.
pub(super) struct ClientHelp;

impl Container for ClientHelp {
    const HELP: Spec = Spec::help("client|help", Group::Connection);
}

pub(super) const fn own(name: &'static str, summary: &'static str) -> Spec {
    Spec::session(name, Group::Connection, summary).with(OWN)
}

const fn others(name: &'static str, summary: &'static str) -> Spec {
    Spec::session(name, Group::Connection, summary).with(OTHERS)
}

/// CLIENT ID
#[derive(Default)]
pub(super) struct Id;

impl SessionCommand for Id {
    const SPEC: Spec = own("client|id", "Tells the connection's number.")
        .since("5.0.0")
        .reply("Integer; no two connections of a server's life have the same.");
    const GRAMMAR: &'static [Arg<Self>] = &[];

    fn run(
        &self,
        call: &mut SessionCall<'_>,
        _args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        reply.integer(call.session.client.id as i64);
        Ok(Next::Done)
    }
}

/// CLIENT GETNAME
#[derive(Default)]
pub(super) struct GetName;

impl SessionCommand for GetName {
    const SPEC: Spec = own("client|getname", "Tells the connection's name.")
        .since("2.6.9")
        .reply("Bulk string, or null without a name.");
    const GRAMMAR: &'static [Arg<Self>] = &[];

    fn run(
        &self,
        call: &mut SessionCall<'_>,
        _args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        let names = call.session.client.names();
        reply.bulk_or_null((!names.name.is_empty()).then_some(names.name.as_bytes()));
        Ok(Next::Done)
    }
}

/// CLIENT SETNAME
#[derive(Default)]
pub(super) struct SetName {
    name: Word,
}

impl SessionCommand for SetName {
    const SPEC: Spec = own("client|setname", "Names the connection.")
        .since("2.6.9")
        .reply("OK.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::text(
        "connection-name",
        "printable, no blanks; empty for none",
        |set, word| set.name = word,
    )];

    fn run(
        &self,
        call: &mut SessionCall<'_>,
        args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        let name = check_name(args.word(self.name))?;
        call.session.client.change_names(|names| names.name = name);
        reply.ok();
        Ok(Next::Done)
    }
}

/// CLIENT SETINFO
#[derive(Default)]
pub(super) struct SetInfo {
    attribute: Word,
    value: Word,
}

impl SessionCommand for SetInfo {
    const SPEC: Spec = own(
        "client|setinfo",
        "Tells the server which client library this is.",
    )
    .since("7.2.0")
    .reply("OK.");
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::text("attribute", "LIB-NAME or LIB-VER", |set, word| {
            set.attribute = word
        }),
        Arg::text("value", "printable, no blanks", |set, word| {
            set.value = word
        }),
    ];

    fn run(
        &self,
        call: &mut SessionCall<'_>,
        args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        let attribute = args.word(self.attribute);
        let value = args.word(self.value);
        let name = String::from_utf8_lossy(attribute);
        let is_name = attribute.eq_ignore_ascii_case(b"lib-name");
        if !is_name && !attribute.eq_ignore_ascii_case(b"lib-ver") {
            return Err(Reject::err(format!("Unrecognized option '{name}'")));
        }
        if !is_plain(value) {
            return Err(Reject::err(format!(
                "{name} cannot contain spaces, newlines or special characters."
            )));
        }
        let value = String::from_utf8_lossy(value).into_owned();
        call.session.client.change_names(|names| match is_name {
            true => names.lib_name = value,
            false => names.lib_version = value,
        });
        reply.ok();
        Ok(Next::Done)
    }
}

/// CLIENT INFO
#[derive(Default)]
pub(super) struct Info;

impl SessionCommand for Info {
    const SPEC: Spec = own("client|info", "Describes the own connection.")
        .since("6.2.0")
        .tips(&["nondeterministic_output"])
        .reply("Text: the line that CLIENT LIST has for it.");
    const GRAMMAR: &'static [Arg<Self>] = &[];

    fn run(
        &self,
        call: &mut SessionCall<'_>,
        _args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        let line = client_line(&call.session.client, call.now_ms);
        reply.verbatim(*b"txt", format!("{line}\n").as_bytes());
        Ok(Next::Done)
    }
}

/// CLIENT LIST
#[derive(Default)]
pub(super) struct List {
    ids: Option<Vec<u64>>,
    nobody: bool,
}

impl List {
    fn parse(&mut self, args: Args<'_>, at: u32) -> Result<(), Reject> {
        let option = args.get(at as usize);
        let values = args.slice(at as usize + 1..);
        if option.eq_ignore_ascii_case(b"TYPE") && values.len() == 1 {
            self.nobody = !client_type(values.get(0))?;
            return Ok(());
        }
        if !option.eq_ignore_ascii_case(b"ID") || values.is_empty() {
            return Err(Reject::syntax());
        }
        let id = |value: &[u8]| {
            let id = parse_i64(value).ok_or(Reject::fixed("ERR Invalid client ID"))?;
            Ok(u64::try_from(id).unwrap_or(0))
        };
        self.ids = Some(values.iter().map(id).collect::<Result<_, Reject>>()?);
        Ok(())
    }
}

impl SessionCommand for List {
    const SPEC: Spec = others("client|list", "Lists the connections.")
        .since("2.4.0")
        .complexity("O(N) where N is the number of connections")
        .tips(&["nondeterministic_output"])
        .reply("Text: a line per connection.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::own(
        "selection",
        "only these",
        &[
            Arg::text("type", "normal, master, replica or pubsub", |_, _| ())
                .after("TYPE")
                .optional(),
            Arg::rest(
                "client-id",
                "connections with these numbers",
                &[],
                |_, _| (),
            )
            .of(Type::Integer)
            .after("ID")
            .optional(),
        ],
        List::parse,
    )
    .of(Type::OneOf)
    .optional()];

    fn run(
        &self,
        call: &mut SessionCall<'_>,
        _args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        let clients = match &self.ids {
            _ if self.nobody => Vec::new(),
            None => call.shared.clients.list(),
            Some(ids) => ids
                .iter()
                .filter_map(|id| call.shared.clients.get(*id))
                .collect(),
        };
        let mut text = String::new();
        for client in &clients {
            text.push_str(&client_line(client, call.now_ms));
            text.push('\n');
        }
        reply.verbatim(*b"txt", text.as_bytes());
        Ok(Next::Done)
    }
}

/// CLIENT KILL
#[derive(Default)]
pub(super) struct Kill {
    filter: Filter,
    /// The old form: one address, and an error if nobody has it.
    one: bool,
}

impl SessionCommand for Kill {
    const SPEC: Spec = others("client|kill", "Closes connections.")
        .since("2.4.0")
        .complexity("O(N) where N is the number of connections")
        .reply("OK for an address alone; otherwise an integer: how many were closed.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::own(
        "filter",
        "an address alone, or any of the options, all of which must fit",
        Filter::ARGS,
        |kill, args, at| {
            kill.one = args.len() as u32 == at + 1;
            kill.filter = match kill.one {
                true => Filter::address(args.get(at as usize)),
                false => Filter::parse(args.slice(at as usize..))?,
            };
            Ok(())
        },
    )];

    fn run(
        &self,
        call: &mut SessionCall<'_>,
        _args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        let own_id = call.session.client.id;
        let mut killed = 0;
        let mut next = Next::Done;
        for client in call.shared.clients.list() {
            if !self.filter.fits(&client, own_id, call.now_ms) {
                continue;
            }
            killed += 1;
            if client.id == own_id {
                // The reply goes out first.
                next = Next::Close;
            } else {
                client.kill();
            }
        }
        match (self.one, killed) {
            (true, 0) => return Err(Reject::fixed("ERR No such client")),
            (true, _) => reply.ok(),
            (false, killed) => reply.integer(killed),
        }
        Ok(next)
    }
}

/// A command that switches something on or off.
trait Switch: 'static {
    fn switch(&mut self, on: bool);
}

/// The argument of such a command.
struct OnOff<C>(std::marker::PhantomData<C>);

impl<C: Switch> OnOff<C> {
    const WORDS: &'static [Arg<C>] = &[
        Arg::flag("ON", "from now on", |command: &mut C| command.switch(true)),
        Arg::flag("OFF", "no longer", |command: &mut C| command.switch(false)),
    ];
    const ARG: Arg<C> = Arg::one_of("enabled", "whether it is on", Self::WORDS).required();
}

/// CLIENT NO-EVICT
#[derive(Default)]
pub(super) struct NoEvict {
    on: bool,
}

impl Switch for NoEvict {
    fn switch(&mut self, on: bool) {
        self.on = on;
    }
}

impl SessionCommand for NoEvict {
    const SPEC: Spec = others(
        "client|no-evict",
        "Keeps the connection when others are closed to free memory.",
    )
    .since("7.0.0")
    .reply("OK.");
    const GRAMMAR: &'static [Arg<Self>] = &[OnOff::<Self>::ARG];

    fn run(
        &self,
        call: &mut SessionCall<'_>,
        _args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        call.session.client.no_evict.store(self.on, Relaxed);
        reply.ok();
        Ok(Next::Done)
    }
}

/// CLIENT NO-TOUCH
#[derive(Default)]
pub(super) struct NoTouch {
    on: bool,
}

impl Switch for NoTouch {
    fn switch(&mut self, on: bool) {
        self.on = on;
    }
}

impl SessionCommand for NoTouch {
    const SPEC: Spec = own(
        "client|no-touch",
        "Lets this connection's reads not count as uses of keys.",
    )
    .since("7.2.0")
    .reply("OK.");
    const GRAMMAR: &'static [Arg<Self>] = &[OnOff::<Self>::ARG];

    fn run(
        &self,
        call: &mut SessionCall<'_>,
        _args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        call.session.client.no_touch.store(self.on, Relaxed);
        reply.ok();
        Ok(Next::Done)
    }
}

/// CLIENT REPLY
#[derive(Default)]
pub(super) struct ReplyOf {
    mode: ReplyMode,
}

impl SessionCommand for ReplyOf {
    const SPEC: Spec = own("client|reply", "Says whether replies are sent.")
        .since("3.2.0")
        .reply("OK for ON; nothing for OFF and SKIP.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::one_of(
        "action",
        "which replies are sent",
        &[
            Arg::flag("ON", "all", |reply: &mut ReplyOf| {
                reply.mode = ReplyMode::On
            }),
            Arg::flag("OFF", "none", |reply: &mut ReplyOf| {
                reply.mode = ReplyMode::Off
            }),
            Arg::flag("SKIP", "not the next one", |reply: &mut ReplyOf| {
                reply.mode = ReplyMode::SkipNext
            }),
        ],
    )
    .required()];

    fn run(
        &self,
        call: &mut SessionCall<'_>,
        _args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        let off = call.session.reply_mode == ReplyMode::Off;
        if !(off && self.mode == ReplyMode::SkipNext) {
            call.session.reply_mode = self.mode;
        }
        if self.mode == ReplyMode::On {
            reply.ok();
        }
        Ok(Next::Done)
    }
}

/// CLIENT PAUSE
#[derive(Default)]
pub(super) struct Pause {
    timeout_ms: u64,
    writes_only: bool,
}

impl Pause {
    fn timeout(&mut self, text: &[u8], _word: Word) -> Result<(), Reject> {
        let timeout = parse_i64(text).ok_or(Reject::timeout_not_a_number())?;
        self.timeout_ms = u64::try_from(timeout).map_err(|_| Reject::timeout_negative())?;
        Ok(())
    }

    fn mode(&mut self, text: &[u8], _word: Word) -> Result<(), Reject> {
        self.writes_only = text.eq_ignore_ascii_case(b"WRITE");
        if self.writes_only || text.eq_ignore_ascii_case(b"ALL") {
            Ok(())
        } else {
            Err(Reject::fixed("ERR CLIENT PAUSE mode must be WRITE or ALL"))
        }
    }
}

impl SessionCommand for Pause {
    const SPEC: Spec = others("client|pause", "Lets the commands of all clients wait.")
        .since("3.0.0")
        .reply("OK.");
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::parsed("timeout", "milliseconds", Type::Integer, Pause::timeout),
        Arg::parsed(
            "mode",
            "WRITE, or ALL (the default)",
            Type::Text,
            Pause::mode,
        )
        .optional(),
    ];

    fn run(
        &self,
        call: &mut SessionCall<'_>,
        args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        if args.len() > 4 {
            return Err(Reject::syntax());
        }
        let clients = &call.shared.clients;
        let until_ms = call.now_ms.saturating_add(self.timeout_ms);
        let earlier_ms = clients.paused_until_ms.fetch_max(until_ms, Relaxed);
        // A pause is never shortened or eased by a later one, as in Redis.
        let still_all = earlier_ms > call.now_ms && clients.paused_all.load(Relaxed);
        clients
            .paused_all
            .store(still_all || !self.writes_only, Relaxed);
        reply.ok();
        Ok(Next::Done)
    }
}

/// CLIENT UNPAUSE
#[derive(Default)]
pub(super) struct Unpause;

impl SessionCommand for Unpause {
    const SPEC: Spec = others("client|unpause", "Ends CLIENT PAUSE.")
        .since("6.2.0")
        .reply("OK.");
    const GRAMMAR: &'static [Arg<Self>] = &[];

    fn run(
        &self,
        call: &mut SessionCall<'_>,
        _args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        call.shared.clients.paused_until_ms.store(0, Relaxed);
        call.shared.clients.paused_all.store(false, Relaxed);
        call.shared.clients.wake_all();
        reply.ok();
        Ok(Next::Done)
    }
}

/// CLIENT UNBLOCK
#[derive(Default)]
pub(super) struct Unblock {
    id: i64,
    with_error: bool,
}

impl Unblock {
    fn reason(&mut self, text: &[u8], _word: Word) -> Result<(), Reject> {
        self.with_error = text.eq_ignore_ascii_case(b"ERROR");
        if self.with_error || text.eq_ignore_ascii_case(b"TIMEOUT") {
            Ok(())
        } else {
            Err(Reject::fixed(
                "ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR",
            ))
        }
    }
}

impl SessionCommand for Unblock {
    const SPEC: Spec = others("client|unblock", "Ends another client's wait.")
        .since("5.0.0")
        .reply("1, or 0 if that client does not wait.");
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::integer("client-id", "the connection", |unblock, id| unblock.id = id),
        Arg::parsed(
            "unblock-type",
            "TIMEOUT (the default): as if its time were over; ERROR: with an error",
            Type::Text,
            Unblock::reason,
        )
        .optional(),
    ];

    fn run(
        &self,
        call: &mut SessionCall<'_>,
        _args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        let id = u64::try_from(self.id).ok();
        let client = id.and_then(|id| call.shared.clients.get(id));
        let waiting = client.filter(|client| client.blocked.load(Relaxed));
        if let Some(client) = &waiting {
            client.unblock.store(1 + u8::from(self.with_error), Relaxed);
            client.wake();
        }
        reply.integer(i64::from(waiting.is_some()));
        Ok(Next::Done)
    }
}
