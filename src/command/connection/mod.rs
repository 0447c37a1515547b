//! The connection's own commands: HELLO, AUTH, PING, SELECT and what belongs to them; CLIENT is in
//! `client.rs`.
//!
//! Always true: nothing here touches a key. What a command changes of its session takes effect with
//! the next command; only HELLO answers in the protocol that it has just chosen.

mod client;
mod filter;
mod tracking;

use crate::command::docs::Help;
use crate::command::spec::{Arg, Group, Spec, Type, Word, flag};
use crate::command::{Row, SessionCommand};
use crate::number::parse_i64;
use crate::reply::{Reject, Reply};
use crate::resp::Protocol;
use crate::resp::decode::Args;
use crate::session::{Next, REDIS_VERSION, ReplyMode, SessionCall};

/// The family's commands.
pub const COMMANDS: &[Row] = &[
    Row::session::<Hello>(),
    Row::session::<Auth>(),
    Row::session::<Ping>(),
    Row::session::<Echo>(),
    Row::session::<Select>(),
    Row::session::<Quit>(),
    Row::session::<Reset>(),
    Row::container(&client::CLIENT),
    Row::session::<client::Id>(),
    Row::session::<client::GetName>(),
    Row::session::<client::SetName>(),
    Row::session::<client::SetInfo>(),
    Row::session::<client::Info>(),
    Row::session::<client::List>(),
    Row::session::<client::Kill>(),
    Row::session::<client::NoEvict>(),
    Row::session::<client::NoTouch>(),
    Row::session::<client::ReplyOf>(),
    Row::session::<client::Pause>(),
    Row::session::<client::Unpause>(),
    Row::session::<client::Unblock>(),
    Row::session::<tracking::GetRedir>(),
    Row::session::<tracking::TrackingInfo>(),
    Row::session::<tracking::Tracking>(),
    Row::session::<tracking::Caching>(),
    Row::session::<Help<client::ClientHelp>>(),
];

/// Flags of the commands that a client may send before anything else.
const FIRST: u32 =
    flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::FAST | flag::NO_AUTH | flag::ALLOW_BUSY;

/// Whether a client may have this name or tell this about its library: printable, no blanks.
fn is_plain(text: &[u8]) -> bool {
    text.iter().all(|byte| (b'!'..=b'~').contains(byte))
}

/// Checks a name for CLIENT SETNAME and HELLO.
fn check_name(name: &[u8]) -> Result<String, Reject> {
    if is_plain(name) {
        Ok(String::from_utf8_lossy(name).into_owned())
    } else {
        Err(Reject::fixed(
            "ERR Client names cannot contain spaces, newlines or special characters.",
        ))
    }
}

/// Whether this is the default user with its password, or with any where none is set.
fn is_allowed(call: &SessionCall<'_>, user: &[u8], password: &[u8]) -> bool {
    let settings = call.shared.settings.settings();
    let required = settings.requirepass.as_bytes();
    user == b"default" && (required.is_empty() || same_bytes(required, password))
}

/// Compares in a time that does not tell where the first difference is.
fn same_bytes(one: &[u8], other: &[u8]) -> bool {
    let differences = one.iter().zip(other).fold(0, |sum, (a, b)| sum | (a ^ b));
    one.len() == other.len() && differences == 0
}

/// Logs a client in, or counts the failure.
fn log_in(call: &mut SessionCall<'_>, user: &[u8], password: &[u8]) -> Result<(), Reject> {
    if is_allowed(call, user, password) {
        call.session.authenticated = true;
        return Ok(());
    }
    if let Some(shard) = call
        .shared
        .metrics
        .shards()
        .get(call.session.client.shard as usize)
    {
        shard.auth_failures.add(1);
    }
    Err(Reject::wrong_password())
}

/// Chooses the protocol.
#[derive(Default)]
struct Hello {
    protocol: Option<Protocol>,
    auth: Option<(Word, Word)>,
    name: Option<Word>,
}

impl Hello {
    /// `protover [AUTH user password] [SETNAME name]`, with errors that name the option.
    fn parse(&mut self, args: Args<'_>, at: u32) -> Result<(), Reject> {
        let version = parse_i64(args.get(at as usize)).ok_or(Reject::fixed(
            "ERR Protocol version is not an integer or out of range",
        ))?;
        self.protocol = Some(match version {
            2 => Protocol::Resp2,
            3 => Protocol::Resp3,
            _ => return Err(Reject::unsupported_protocol()),
        });
        let mut at = at + 1;
        while let Some(option) = args.try_get(at as usize) {
            let more = args.len() as u32 - at - 1;
            if option.eq_ignore_ascii_case(b"AUTH") && more >= 2 {
                self.auth = Some((Word(at + 1), Word(at + 2)));
                at += 3;
            } else if option.eq_ignore_ascii_case(b"SETNAME") && more >= 1 {
                check_name(args.get(at as usize + 1))?;
                self.name = Some(Word(at + 1));
                at += 2;
            } else {
                let option = String::from_utf8_lossy(option);
                return Err(Reject::err(format!(
                    "Syntax error in HELLO option '{option}'"
                )));
            }
        }
        Ok(())
    }
}

impl SessionCommand for Hello {
    const SPEC: Spec = Spec::session(
        "hello",
        Group::Connection,
        "Chooses the protocol, optionally logs in and names the connection.",
    )
    .since("6.0.0")
    .with(FIRST | flag::SECRET)
    .reply("Map: what the server is.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::own(
        "arguments",
        "the protocol and what goes with it",
        &[
            Arg::integer("protover", "2 or 3", |_, _| ()),
            Arg::block(
                "auth",
                "log in",
                &[
                    Arg::text("username", "the user", |_, _| ()),
                    Arg::text("password", "the password", |_, _| ()),
                ],
            )
            .after("AUTH")
            .optional(),
            Arg::text("clientname", "the connection's name", |_, _| ())
                .after("SETNAME")
                .optional(),
        ],
        Hello::parse,
    )
    .optional()];

    fn run(
        &self,
        call: &mut SessionCall<'_>,
        args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        if let Some((user, password)) = self.auth {
            log_in(call, args.word(user), args.word(password))?;
        }
        if !call.session.authenticated {
            return Err(Reject::fixed(
                "NOAUTH HELLO must be called with the client already authenticated, otherwise \
                 the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the \
                 client and select the RESP protocol version at the same time",
            ));
        }
        if let Some(name) = self.name {
            let name = check_name(args.word(name))?;
            call.session.client.change_names(|names| names.name = name);
        }
        if let Some(protocol) = self.protocol {
            call.session.protocol = protocol;
            reply.set_protocol(protocol);
        }
        reply.map(7);
        reply.bulk(b"server");
        reply.bulk(b"redis");
        reply.bulk(b"version");
        reply.bulk(REDIS_VERSION.as_bytes());
        reply.bulk(b"proto");
        reply.integer(call.session.protocol.version());
        reply.bulk(b"id");
        reply.integer(call.session.client.id as i64);
        reply.bulk(b"mode");
        reply.bulk(b"standalone");
        reply.bulk(b"role");
        reply.bulk(b"master");
        reply.bulk(b"modules");
        reply.array(0);
        Ok(Next::Done)
    }
}

/// Logs in.
#[derive(Default)]
struct Auth {
    user: Option<Word>,
    password: Word,
}

impl SessionCommand for Auth {
    const SPEC: Spec = Spec::session("auth", Group::Connection, "Logs the connection in.")
        .with(FIRST | flag::SECRET)
        .reply("OK, or an error.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::own(
        "credentials",
        "user and password",
        &[
            Arg::text("username", "the user; `default` if left out", |_, _| ()).optional(),
            Arg::text("password", "the password", |_, _| ()),
        ],
        |auth, args, at| {
            (auth.user, auth.password) = match args.len() as u32 - at {
                1 => (None, Word(at)),
                2 => (Some(Word(at)), Word(at + 1)),
                _ => return Err(Reject::syntax()),
            };
            Ok(())
        },
    )];

    fn run(
        &self,
        call: &mut SessionCall<'_>,
        args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        if self.user.is_none() && call.shared.settings.settings().requirepass.is_empty() {
            return Err(Reject::fixed(
                "ERR AUTH <password> called without any password configured for the default \
                 user. Are you sure your configuration is correct?",
            ));
        }
        let user = self.user.map_or(&b"default"[..], |user| args.word(user));
        log_in(call, user, args.word(self.password))?;
        reply.ok();
        Ok(Next::Done)
    }
}

/// Answers.
#[derive(Default)]
struct Ping {
    message: Option<Word>,
}

impl SessionCommand for Ping {
    const SPEC: Spec = Spec::session("ping", Group::Connection, "Answers, to show that it can.")
        .with(flag::FAST)
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .reply("PONG, or the message.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::own(
        "message",
        "is sent back",
        &[],
        |ping: &mut Ping, args, at| {
            if args.len() as u32 > at + 1 {
                return Err(Reject::wrong_arity("ping"));
            }
            ping.message = Some(Word(at));
            Ok(())
        },
    )
    .optional()];

    fn run(
        &self,
        _call: &mut SessionCall<'_>,
        args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        match self.message {
            Some(message) => reply.bulk(args.word(message)),
            None => reply.simple("PONG"),
        }
        Ok(Next::Done)
    }
}

/// Sends back.
#[derive(Default)]
struct Echo {
    message: Word,
}

impl SessionCommand for Echo {
    const SPEC: Spec = Spec::session("echo", Group::Connection, "Sends the message back.")
        .with(flag::LOADING | flag::STALE | flag::FAST)
        .reply("Bulk string: the message.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::text("message", "is sent back", |echo, word| {
        echo.message = word
    })];

    fn run(
        &self,
        _call: &mut SessionCall<'_>,
        args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        reply.bulk(args.word(self.message));
        Ok(Next::Done)
    }
}

/// Chooses the database.
#[derive(Default)]
struct Select {
    number: i64,
}

impl SessionCommand for Select {
    const SPEC: Spec = Spec::session("select", Group::Connection, "Chooses the database.")
        .with(flag::LOADING | flag::STALE | flag::FAST)
        .reply("OK.");
    const GRAMMAR: &'static [Arg<Self>] =
        &[Arg::integer("index", "from 0 up", |select, number| {
            select.number = number
        })];

    fn run(
        &self,
        call: &mut SessionCall<'_>,
        _args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        let databases = call.shared.settings.settings().databases;
        let number = usize::try_from(self.number).ok();
        let number = number.filter(|number| *number < databases);
        call.session.database = number.ok_or(Reject::db_index_out_of_range())?;
        reply.ok();
        Ok(Next::Done)
    }
}

/// Closes the connection.
#[derive(Default)]
struct Quit;

impl SessionCommand for Quit {
    const SPEC: Spec = Spec::session("quit", Group::Connection, "Closes the connection.")
        .with(FIRST | flag::IMMEDIATE)
        .reply("OK.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::own("ignored", "", &[], |_, _, _| Ok(()))
        .of(Type::Text)
        .optional()];

    fn run(
        &self,
        _call: &mut SessionCall<'_>,
        _args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        reply.ok();
        Ok(Next::Close)
    }
}

/// Makes the connection like new.
#[derive(Default)]
struct Reset;

impl SessionCommand for Reset {
    const SPEC: Spec = Spec::session(
        "reset",
        Group::Connection,
        "Makes the connection like a new one.",
    )
    .since("6.2.0")
    .with(FIRST | flag::IMMEDIATE)
    .reply("RESET.");
    const GRAMMAR: &'static [Arg<Self>] = &[];

    fn run(
        &self,
        call: &mut SessionCall<'_>,
        _args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        let session = &mut *call.session;
        session.protocol = Protocol::Resp2;
        session.database = 0;
        session.reply_mode = ReplyMode::On;
        session.authenticated = call.shared.settings.settings().requirepass.is_empty();
        session.client.change_names(|names| names.name.clear());
        let relaxed = std::sync::atomic::Ordering::Relaxed;
        session.client.no_evict.store(false, relaxed);
        session.client.no_touch.store(false, relaxed);
        reply.set_protocol(Protocol::Resp2);
        reply.simple("RESET");
        Ok(Next::Reset)
    }
}

#[cfg(test)]
mod tests;
