//! Which connections CLIENT KILL means, and the line that CLIENT LIST has for each.

use std::fmt::Write;
use std::sync::atomic::Ordering::Relaxed;

use crate::command::connection::client::Kill;
use crate::command::spec::{Arg, Type};
use crate::command::{RowId, table};
use crate::number::parse_i64;
use crate::reply::Reject;
use crate::resp::decode::Args;
use crate::session::{Address, Client};

/// The connections that CLIENT KILL means: all conditions must fit.
#[derive(Default)]
pub(super) struct Filter {
    id: Option<u64>,
    /// The type is one that no connection has.
    nobody: bool,
    address: Option<Vec<u8>>,
    local_address: Option<Vec<u8>>,
    skip_me: bool,
    max_age_s: Option<u64>,
}

impl Filter {
    /// The options, for the documentation.
    pub(super) const ARGS: &'static [Arg<Kill>] = &[
        Arg::text("ip:port", "the connection from this address", |_, _| ()).optional(),
        Arg::integer("client-id", "the connection's number", |_, _| ())
            .after("ID")
            .optional(),
        Arg::text("type", "normal, master, replica or pubsub", |_, _| ())
            .after("TYPE")
            .optional(),
        Arg::text("username", "logged in as", |_, _| ())
            .after("USER")
            .optional(),
        Arg::text("addr", "connected from", |_, _| ())
            .after("ADDR")
            .optional(),
        Arg::text("laddr", "connected to", |_, _| ())
            .after("LADDR")
            .optional(),
        Arg::text(
            "skipme",
            "YES (the default) or NO: also the own one",
            |_, _| (),
        )
        .after("SKIPME")
        .optional(),
        Arg::integer(
            "maxage",
            "connected for at least so many seconds",
            |_, _| (),
        )
        .after("MAXAGE")
        .optional()
        .of(Type::Integer),
    ];

    /// The connection from an address, whoever that is.
    pub(super) fn address(address: &[u8]) -> Filter {
        Filter {
            address: Some(address.to_vec()),
            ..Filter::default()
        }
    }

    /// Pairs of option and value.
    pub(super) fn parse(args: Args<'_>) -> Result<Filter, Reject> {
        let mut filter = Filter {
            skip_me: true,
            ..Filter::default()
        };
        let mut at = 0;
        while at < args.len() {
            let value = args.try_get(at + 1).ok_or(Reject::syntax())?;
            filter.option(args.get(at), value)?;
            at += 2;
        }
        Ok(filter)
    }

    fn option(&mut self, option: &[u8], value: &[u8]) -> Result<(), Reject> {
        let text = || String::from_utf8_lossy(value);
        match option.to_ascii_uppercase().as_slice() {
            b"ID" => {
                let id = parse_i64(value).and_then(|id| u64::try_from(id).ok());
                let id = id
                    .filter(|id| *id > 0)
                    .ok_or(Reject::fixed("ERR client-id should be greater than 0"))?;
                self.id = Some(id);
            }
            b"TYPE" => self.nobody = !client_type(value)?,
            b"ADDR" => self.address = Some(value.to_vec()),
            b"LADDR" => self.local_address = Some(value.to_vec()),
            b"USER" if value == b"default" => {}
            b"USER" => return Err(Reject::err(format!("No such user '{}'", text()))),
            b"SKIPME" if value.eq_ignore_ascii_case(b"YES") => self.skip_me = true,
            b"SKIPME" if value.eq_ignore_ascii_case(b"NO") => self.skip_me = false,
            b"MAXAGE" => {
                let age = parse_i64(value).ok_or(Reject::fixed(
                    "ERR maxage is not an integer or out of range",
                ))?;
                let age = u64::try_from(age).ok().filter(|age| *age > 0);
                self.max_age_s =
                    Some(age.ok_or(Reject::fixed("ERR maxage should be greater than 0"))?);
            }
            _ => return Err(Reject::syntax()),
        }
        Ok(())
    }

    /// Whether it means this connection.
    pub(super) fn fits(&self, client: &Client, own_id: u64, now_ms: u64) -> bool {
        let age_s = now_ms.saturating_sub(client.created_ms) / 1000;
        let same = |wanted: &Option<Vec<u8>>, has: &Address| {
            wanted
                .as_ref()
                .is_none_or(|wanted| wanted == has.to_string().as_bytes())
        };
        let spared = self.nobody || (self.skip_me && client.id == own_id);
        !spared
            && self.id.is_none_or(|id| id == client.id)
            && same(&self.address, &client.address)
            && same(&self.local_address, &client.local_address)
            && self.max_age_s.is_none_or(|max| age_s >= max)
    }
}

/// Whether connections of this type can exist here: all are normal ones.
///
/// # Errors
/// No such type.
pub(super) fn client_type(name: &[u8]) -> Result<bool, Reject> {
    match name.to_ascii_lowercase().as_slice() {
        b"normal" => Ok(true),
        b"master" | b"replica" | b"slave" | b"pubsub" => Ok(false),
        _ => Err(Reject::err(format!(
            "Unknown client type '{}'",
            String::from_utf8_lossy(name)
        ))),
    }
}

/// The line of a connection in CLIENT LIST, without its end.
pub(super) fn client_line(client: &Client, now_ms: u64) -> String {
    let seconds_since = |ms: u64| now_ms.saturating_sub(ms) / 1000;
    let last_row = client.last_row.load(Relaxed);
    let command = match u16::try_from(last_row) {
        Ok(row) if usize::from(row) < table().rows().len() => table().row(RowId(row)).spec.name,
        _ => "NULL",
    };
    let output_bytes = client.output_bytes.load(Relaxed);
    let query_bytes = client.query_bytes.load(Relaxed);
    let names = client.names();
    let mut line = format!(
        "id={} addr={} laddr={} fd={} name={} age={} idle={} flags={} db={} sub=0 psub=0 ssub=0",
        client.id,
        client.address,
        client.local_address,
        client.fd,
        names.name,
        seconds_since(client.created_ms),
        seconds_since(client.active_ms.load(Relaxed)),
        flags(client),
        client.database.load(Relaxed),
    );
    // Writing to a String cannot fail.
    let _ = write!(
        line,
        " multi={} watch={} qbuf={query_bytes} qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 \
         obl={output_bytes} oll=0 omem={output_bytes} tot-mem={} events={} cmd={command} \
         user=default redir=-1 resp={} lib-name={} lib-ver={} tot-net-in={} tot-net-out={} \
         tot-cmds={}",
        client.queued.load(Relaxed),
        client.watching.load(Relaxed),
        query_bytes + output_bytes,
        if output_bytes > 0 { "rw" } else { "r" },
        client.resp.load(Relaxed),
        names.lib_name,
        names.lib_version,
        client.received_bytes.load(Relaxed),
        client.sent_bytes.load(Relaxed),
        client.commands.load(Relaxed),
    );
    line
}

fn flags(client: &Client) -> String {
    let flags: String = [
        (client.monitor.load(Relaxed), 'O'),
        (client.blocked.load(Relaxed), 'b'),
        (client.queued.load(Relaxed) >= 0, 'x'),
        (client.killed.load(Relaxed), 'A'),
        (client.address.is_unix(), 'U'),
        (client.no_evict.load(Relaxed), 'e'),
        (client.no_touch.load(Relaxed), 'T'),
    ]
    .into_iter()
    .filter_map(|(set, letter)| set.then_some(letter))
    .collect();
    if flags.is_empty() {
        "N".to_owned()
    } else {
        flags
    }
}
