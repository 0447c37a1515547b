//! Transcripts of session commands: a user who types into one connection of a server whose engine
//! room is a fake, at a time that the test moves. Only for tests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use crate::clock::{Clock, ManualClock};
use crate::command::spec::flag;
use crate::command::transcript::{rendered, words};
use crate::command::{Run, table};
use crate::config::{DebugCommand, Live, Settings};
use crate::metrics::Metrics;
use crate::reply::{Reject, Reply};
use crate::session::{
    Address, Client, Clients, Engine, KeyCounts, Next, Session, SessionCall, Shared, permitted,
};

/// The time at which a transcript begins, ms since the Unix epoch.
const START_MS: u64 = 1_700_000_000_000;

/// An engine room with fixed answers, except whether a checkpoint runs.
struct FakeEngine {
    checkpoint_runs: Arc<AtomicBool>,
}

impl Engine for FakeEngine {
    fn info(&self, _metrics: &Metrics) -> Vec<(String, String)> {
        vec![("durable_lsn".to_owned(), "7".to_owned())]
    }

    fn last_checkpoint_s(&self) -> u64 {
        START_MS / 1000 - 10
    }

    fn checkpoint_runs(&self) -> bool {
        self.checkpoint_runs.load(Ordering::Relaxed)
    }

    fn last_checkpoint_ok(&self) -> bool {
        true
    }

    fn changes_since_checkpoint(&self) -> u64 {
        3
    }

    fn log_bytes(&self) -> u64 {
        4_096
    }
}

/// A server without keys, and a user who types commands.
pub struct SessionTranscript {
    /// What all connections share.
    pub shared: Arc<Shared>,
    /// The user's connection.
    pub session: Session,
    /// What the last command asked the connection to do.
    pub next: Next,
    /// Whether the fake's checkpoint runs.
    pub checkpoint_runs: Arc<AtomicBool>,
    manual: ManualClock,
    clock: Clock,
}

impl SessionTranscript {
    /// A new connection to a server with default settings.
    pub fn new() -> SessionTranscript {
        SessionTranscript::with(|_| ())
    }

    /// A new connection to a server with these settings.
    pub fn with(change: impl FnOnce(&mut Settings)) -> SessionTranscript {
        let mut settings = Settings::default();
        change(&mut settings);
        let authenticated = settings.requirepass.is_empty();
        let checkpoint_runs = Arc::new(AtomicBool::new(false));
        let keyspace = KeyCounts::new(1, settings.databases);
        keyspace.set(0, 0, 5, 2);
        keyspace.set(0, 3, 1, 0);
        let shared = Arc::new(Shared {
            settings: Live::new(settings, None),
            clients: Clients::default(),
            metrics: Metrics::new(1, table().rows().len()),
            engine: Box::new(FakeEngine {
                checkpoint_runs: checkpoint_runs.clone(),
            }),
            started_ms: START_MS - 60_000,
            run_id: "0123456789".repeat(4),
            port: AtomicU32::new(6379),
            dir: "/data".to_owned(),
            shards: 1,
            keyspace,
            monitors: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
        });
        let manual = ManualClock::new(START_MS);
        let clock = manual.clock(0);
        let client = connected(&shared, "127.0.0.1:50000");
        SessionTranscript {
            session: Session::new(client, authenticated),
            shared,
            next: Next::Done,
            checkpoint_runs,
            manual,
            clock,
        }
    }

    /// Somebody else connects.
    pub fn other_client(&self, address: &str) -> Arc<Client> {
        connected(&self.shared, address)
    }

    /// Time passes.
    pub fn advance_ms(&self, milliseconds: u64) {
        self.manual.advance_ms(milliseconds);
    }

    /// The reply to a command line, as redis-cli prints it; empty if there is none.
    pub fn run(&mut self, line: &str) -> String {
        let args = words(line);
        let mut out = Vec::new();
        self.next = Next::Done;
        let mut reply = Reply::new(&mut out, self.session.protocol);
        if let Err(reject) = self.call(args.args(), &mut reply) {
            out.clear();
            Reply::new(&mut out, self.session.protocol).error(&reject);
        }
        match out.is_empty() {
            true => String::new(),
            false => rendered(&out),
        }
    }

    fn call(
        &mut self,
        args: crate::resp::decode::Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<(), Reject> {
        let id = table().find(args)?;
        let row = table().row(id);
        if !self.session.authenticated && !row.has(flag::NO_AUTH) {
            return Err(Reject::authentication_required());
        }
        let debug: DebugCommand = self.shared.settings.settings().enable_debug_command;
        permitted(row, &self.session.client, debug)?;
        self.session
            .client
            .last_row
            .store(u32::from(id.0), Ordering::Relaxed);
        let Run::Session(run) = row.run else {
            panic!("a session's transcript runs session commands");
        };
        let mut call = SessionCall {
            session: &mut self.session,
            shared: &self.shared,
            in_block: false,
            now_ms: self.clock.now_ms(),
            clock: &self.clock,
        };
        self.next = run(&mut call, args, reply)?;
        Ok(())
    }

    /// Runs a command line and compares the reply with what redis-cli would print.
    #[track_caller]
    pub fn check(&mut self, line: &str, expected: &str) {
        let reply = self.run(line);
        assert_eq!(reply.trim_end(), expected.trim_end(), "reply to: {line}");
    }

    /// Runs a command line and compares what the connection has to do next.
    #[track_caller]
    pub fn check_next(&mut self, line: &str, expected: Next) {
        self.run(line);
        assert_eq!(self.next, expected, "after: {line}");
    }
}

impl Default for SessionTranscript {
    fn default() -> SessionTranscript {
        SessionTranscript::new()
    }
}

fn connected(shared: &Shared, address: &str) -> Arc<Client> {
    let address: SocketAddr = address.parse().expect("an address and port");
    let addresses = (address.into(), Address::loopback(6379));
    let id = shared.clients.next_id();
    let client = Arc::new(Client::new(id, 0, addresses, 9, START_MS));
    shared.clients.add(client.clone());
    client
}
