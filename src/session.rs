//! What a connection is, and what it shares with the others: the state that session commands see.
//!
//! Always true: a [`Session`] belongs to one connection and is touched by its thread only; what
//! others may read of it is in its [`Client`] record. Nothing here does I/O: commands say what the
//! connection has to do next with [`Next`].

mod address;
mod alone;

use std::collections::BTreeMap;
use std::sync::atomic::{
    AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering,
};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::command::Row;
use crate::command::spec::flag;
use crate::config::{DebugCommand, Live};
use crate::keyspace::txn::WatchedKey;
use crate::reply::Reject;
use crate::resp::Protocol;
use crate::resp::decode::{Args, OwnedArgs};

pub use address::Address;

/// The version of Redis that clients are told: they switch features on it.
pub const REDIS_VERSION: &str = "7.2.0";

/// What the connection does after a session command.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// The reply is written; go on.
    Done,
    /// Send what is released, then close.
    Close,
    /// Block this connection's shard for so many microseconds (DEBUG SLEEP), then send the reply.
    Sleep(u64),
    /// Send the reply when everything queued in the log up to now is in this state.
    WhenQueued,
    /// WAITAOF: wait until everything before it on this connection is durable, or for the timeout
    /// (ms; 0: for ever), then reply `[local, 0]`.
    WaitDurable {
        /// 1 to wait for this server's disk.
        local: i64,
        /// More than there are: waits out the timeout.
        replicas: i64,
        /// Milliseconds; 0: no timeout.
        timeout_ms: u64,
    },
    /// WAIT: no replica will ever answer; wait out the timeout unless none is asked for.
    WaitReplicas {
        /// Replicas asked for.
        replicas: i64,
        /// Milliseconds; 0: no timeout.
        timeout_ms: u64,
    },
    /// Start a checkpoint; `wait`: reply +OK when it has finished.
    Checkpoint {
        /// SAVE waits, BGSAVE and BGREWRITEAOF do not.
        wait: bool,
    },
    /// Copy the data folder to this new one, then +OK.
    Backup(std::path::PathBuf),
    /// Stop the server; the reply is written only if it fails.
    Shutdown {
        /// Without a last checkpoint; the log is kept and has everything.
        no_save: bool,
    },
    /// Every later command of every client is copied to this connection.
    Monitor,
    /// DEBUG RELOAD and LOADAOF: recovery in place, then +OK.
    Reload,
    /// MULTI was accepted; later commands are queued.
    Multi,
    /// Run the queued block, under these conditions.
    Exec(Vec<Condition>),
    /// Throw the queued block away.
    Discard,
    /// Watch these keys (places in the request), then +OK.
    Watch(crate::command::spec::Words),
    /// Forget all watches.
    Unwatch,
    /// Forget watches and block, become like new; the reply is written.
    Reset,
}

/// A condition of EXEC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The key holds this string.
    Equal(Vec<u8>, Vec<u8>),
    /// The key holds no string like this (a missing key counts).
    NotEqual(Vec<u8>, Vec<u8>),
    /// The key is missing.
    Missing(Vec<u8>),
    /// The key exists.
    Exists(Vec<u8>),
}

impl Condition {
    /// The key that it looks at.
    pub fn key(&self) -> &[u8] {
        match self {
            Condition::Equal(key, _)
            | Condition::NotEqual(key, _)
            | Condition::Missing(key)
            | Condition::Exists(key) => key,
        }
    }
}

/// CLIENT REPLY: whether replies are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplyMode {
    /// They are.
    #[default]
    On,
    /// None is.
    Off,
    /// The one of CLIENT REPLY SKIP itself is not, nor the next one.
    SkipNext,
    /// The current one is not.
    Skip,
}

/// A block of commands between MULTI and EXEC.
#[derive(Clone, Debug, Default)]
pub struct Block {
    /// Queued commands with their rows.
    pub calls: Vec<(crate::command::RowId, OwnedArgs)>,
    /// Bytes that they hold.
    pub bytes: usize,
    /// A command was refused when it was queued: EXEC will refuse the block.
    pub aborted: bool,
}

/// The state of one connection that commands see and change.
pub struct Session {
    /// What others may read of it.
    pub client: Arc<Client>,
    /// RESP2 or RESP3.
    pub protocol: Protocol,
    /// Selected database number.
    pub database: usize,
    /// AUTH succeeded, or no password is needed.
    pub authenticated: bool,
    /// The block between MULTI and EXEC.
    pub block: Option<Block>,
    /// Watched keys.
    pub watched: Vec<WatchedKey>,
    /// CLIENT REPLY.
    pub reply_mode: ReplyMode,
    /// The connection is a monitor.
    pub monitor: bool,
}

impl Session {
    /// A new connection's state.
    pub fn new(client: Arc<Client>, authenticated: bool) -> Session {
        Session {
            client,
            protocol: Protocol::Resp2,
            database: 0,
            authenticated,
            block: None,
            watched: Vec::new(),
            reply_mode: ReplyMode::On,
            monitor: false,
        }
    }
}

/// What a session command sees.
pub struct SessionCall<'a> {
    /// Its connection.
    pub session: &'a mut Session,
    /// The server.
    pub shared: &'a Arc<Shared>,
    /// Inside a MULTI block that is being executed.
    pub in_block: bool,
    /// The turn's time, ms since the Unix epoch.
    pub now_ms: u64,
    /// The clock, for TIME and the like.
    pub clock: &'a crate::clock::Clock,
}

/// What others may read of a connection, and how they reach it. Small, for there may be very many.
pub struct Client {
    /// Never used twice.
    pub id: u64,
    /// Peer address.
    pub address: Address,
    /// Own address.
    pub local_address: Address,
    /// File descriptor.
    pub fd: i32,
    /// When it connected, ms since the Unix epoch.
    pub created_ms: u64,
    /// Shard thread that serves it.
    pub shard: u32,
    /// Last command, ms since the Unix epoch.
    pub active_ms: AtomicU64,
    /// Row of the last command; `u32::MAX`: none yet.
    pub last_row: AtomicU32,
    /// Selected database.
    pub database: AtomicU32,
    /// Commands queued in MULTI; -1: no MULTI.
    pub queued: AtomicI32,
    /// Watched keys.
    pub watching: AtomicU32,
    /// RESP version.
    pub resp: AtomicU8,
    /// Bytes in the query buffer.
    pub query_bytes: AtomicUsize,
    /// Bytes waiting to be sent.
    pub output_bytes: AtomicUsize,
    /// Bytes received.
    pub received_bytes: AtomicU64,
    /// Bytes sent.
    pub sent_bytes: AtomicU64,
    /// Commands run.
    pub commands: AtomicU64,
    /// CLIENT NO-EVICT.
    pub no_evict: AtomicBool,
    /// CLIENT NO-TOUCH.
    pub no_touch: AtomicBool,
    /// MONITOR.
    pub monitor: AtomicBool,
    /// Waits inside a blocking command (WAIT, WAITAOF).
    pub blocked: AtomicBool,
    /// It has to close: CLIENT KILL, or the output limit.
    pub killed: AtomicBool,
    /// CLIENT UNBLOCK: 0 no, 1 as a timeout, 2 with an error.
    pub unblock: AtomicU8,
    /// Its thread was told to look at it, and has not done so yet.
    called: AtomicBool,
    names: Mutex<Option<Box<Names>>>,
    wake: OnceLock<(Wake, u32)>,
}

/// Tells a thread to look at a connection: its place there, and the client's id.
pub type Wake = Arc<dyn Fn(u32, u64) + Send + Sync>;

/// The texts that a client gives about itself.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// CLIENT SETNAME.
    pub name: String,
    /// CLIENT SETINFO LIB-NAME.
    pub lib_name: String,
    /// CLIENT SETINFO LIB-VER.
    pub lib_version: String,
}

impl Client {
    /// The record of a new connection.
    pub fn new(
        id: u64,
        shard: usize,
        (address, local_address): (Address, Address),
        fd: i32,
        now_ms: u64,
    ) -> Client {
        Client {
            id,
            address,
            local_address,
            fd,
            created_ms: now_ms,
            shard: shard as u32,
            active_ms: AtomicU64::new(now_ms),
            last_row: AtomicU32::new(u32::MAX),
            database: AtomicU32::new(0),
            queued: AtomicI32::new(-1),
            watching: AtomicU32::new(0),
            resp: AtomicU8::new(2),
            query_bytes: AtomicUsize::new(0),
            output_bytes: AtomicUsize::new(0),
            received_bytes: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            commands: AtomicU64::new(0),
            no_evict: AtomicBool::new(false),
            no_touch: AtomicBool::new(false),
            monitor: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            killed: AtomicBool::new(false),
            unblock: AtomicU8::new(0),
            called: AtomicBool::new(false),
            names: Mutex::default(),
            wake: OnceLock::new(),
        }
    }

    /// The texts that it gave about itself.
    pub fn names(&self) -> Names {
        let names = lock(&self.names);
        names.as_deref().cloned().unwrap_or_default()
    }

    /// Changes the texts that it gave about itself.
    pub fn change_names(&self, change: impl FnOnce(&mut Names)) {
        // Most clients give none, and keep no place for them.
        change(lock(&self.names).get_or_insert_default());
    }

    /// A thread serves it from now on: how that is told to look at it, and its place there.
    pub fn set_wake(&self, wake: Wake, place: u32) {
        // Connections stay where they are.
        let _ = self.wake.set((wake, place));
    }

    /// Has its thread look at it: at its socket, and at its flags.
    pub fn wake(&self) {
        if let Some((wake, place)) = self.wake.get()
            && !self.called.swap(true, Ordering::AcqRel)
        {
            wake(*place, self.id);
        }
    }

    /// Its thread looks at it: what happens from now on has to wake it again.
    pub fn looked_at(&self) {
        self.called.swap(false, Ordering::AcqRel);
    }

    /// Makes it close.
    pub fn kill(&self) {
        self.killed.store(true, Ordering::SeqCst);
        self.wake();
    }
}

/// The record wakes its connection by itself: no task is kept for it.
impl std::task::Wake for Client {
    fn wake(self: Arc<Self>) {
        Client::wake(&self);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        Client::wake(self);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All connections, by id.
#[derive(Default)]
pub struct Clients {
    /// Ordered, and without large pieces that double.
    all: Mutex<BTreeMap<u64, Arc<Client>>>,
    next_id: AtomicU64,
    /// Accepted since the start.
    pub accepted: AtomicU64,
    /// Refused because of `maxclients`.
    pub refused: AtomicU64,
    /// CLIENT PAUSE: commands wait until then, ms since the Unix epoch.
    pub paused_until_ms: AtomicU64,
    /// CLIENT PAUSE … ALL: reads wait as well.
    pub paused_all: AtomicBool,
}

impl Clients {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Client>>> {
        lock(&self.all)
    }

    /// A new id.
    pub fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Adds a connection.
    pub fn add(&self, client: Arc<Client>) {
        self.lock().insert(client.id, client);
    }

    /// Removes a connection.
    pub fn remove(&self, id: u64) {
        self.lock().remove(&id);
    }

    /// All connections, by id.
    pub fn list(&self) -> Vec<Arc<Client>> {
        self.lock().values().cloned().collect()
    }

    /// The connection with this id.
    pub fn get(&self, id: u64) -> Option<Arc<Client>> {
        self.lock().get(&id).cloned()
    }

    /// Number of connections.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// Wakes every connection (after CLIENT UNPAUSE).
    pub fn wake_all(&self) {
        for client in self.list() {
            client.wake();
        }
    }
}

/// What the server's engine room tells and does for session commands.
pub trait Engine: Send + Sync {
    /// The `tallyman` section of INFO: names and values in order.
    fn info(&self, metrics: &crate::metrics::Metrics) -> Vec<(String, String)>;
    /// Seconds since the Unix epoch of the last finished checkpoint.
    fn last_checkpoint_s(&self) -> u64;
    /// Whether a checkpoint runs.
    fn checkpoint_runs(&self) -> bool;
    /// How the last checkpoint ended.
    fn last_checkpoint_ok(&self) -> bool;
    /// Effects logged since the last checkpoint.
    fn changes_since_checkpoint(&self) -> u64;
    /// Bytes of the commit log since the last checkpoint.
    fn log_bytes(&self) -> u64;
}

/// Keys and keys with a deadline, by shard and database number.
#[derive(Debug, Default)]
pub struct KeyCounts {
    shards: Vec<Vec<(AtomicU64, AtomicU64)>>,
}

impl KeyCounts {
    /// Room for so many shards and databases.
    pub fn new(shards: usize, databases: usize) -> KeyCounts {
        let database = || (0..databases).map(|_| Default::default()).collect();
        KeyCounts {
            shards: (0..shards).map(|_| database()).collect(),
        }
    }

    /// A shard has so many keys of a database, and so many of them with a deadline.
    pub fn set(&self, shard: usize, number: usize, keys: u64, deadlines: u64) {
        if let Some(place) = self.shards.get(shard).and_then(|shard| shard.get(number)) {
            place.0.store(keys, Ordering::Relaxed);
            place.1.store(deadlines, Ordering::Relaxed);
        }
    }

    /// Number, keys and deadlines of the databases that have any keys.
    pub fn databases(&self) -> Vec<(usize, u64, u64)> {
        let numbers = self.shards.first().map_or(0, Vec::len);
        let sums = (0..numbers).map(|number| {
            self.shards
                .iter()
                .fold((number, 0, 0), |(number, keys, deadlines), shard| {
                    let place = &shard[number];
                    let more = (
                        place.0.load(Ordering::Relaxed),
                        place.1.load(Ordering::Relaxed),
                    );
                    (number, keys + more.0, deadlines + more.1)
                })
        });
        sums.filter(|(_, keys, _)| *keys > 0).collect()
    }
}

/// What all connections share.
pub struct Shared {
    /// The settings.
    pub settings: Live,
    /// The connections.
    pub clients: Clients,
    /// Counters and histograms.
    pub metrics: crate::metrics::Metrics,
    /// The engine room.
    pub engine: Box<dyn Engine>,
    /// When the server started, ms since the Unix epoch.
    pub started_ms: u64,
    /// 40 hex digits, new at each start.
    pub run_id: String,
    /// Port that is really listened on; 0: none.
    pub port: AtomicU32,
    /// Data folder, as an absolute path.
    pub dir: String,
    /// Shards.
    pub shards: usize,
    /// Keys and keys with a deadline of each shard and database number; told when a turn is sealed.
    pub keyspace: KeyCounts,
    /// Connections in MONITOR mode.
    pub monitors: AtomicUsize,
    /// A stop was asked for.
    pub stopping: AtomicBool,
}

/// Refuses DEBUG unless the settings allow it to this client. To be asked before a command runs.
///
/// # Errors
/// In Redis's words.
pub fn permitted(row: &Row, client: &Client, allowed: DebugCommand) -> Result<(), Reject> {
    if !row.has(flag::PROTECTED) {
        return Ok(());
    }
    match allowed {
        DebugCommand::Yes => Ok(()),
        DebugCommand::Local if client.address.is_local() => Ok(()),
        _ => Err(Reject::fixed(
            "ERR DEBUG command not allowed. If the enable-debug-command option is set to \
             \"local\", you can run it from a local connection, otherwise you need to set this \
             option in the configuration file, and then restart the server.",
        )),
    }
}

/// The call as MONITOR and SLOWLOG show it, where that is not the call itself: without passwords.
pub fn redacted(row: &Row, args: Args<'_>) -> Option<OwnedArgs> {
    if !row.has(flag::SECRET) {
        return None;
    }
    // What follows AUTH (the command, or HELLO's option) and requirepass in CONFIG SET.
    let mut hidden = 0;
    let words = args.iter().map(move |word| {
        let shown = if hidden > 0 { &b"(redacted)"[..] } else { word };
        hidden = match word.to_ascii_lowercase().as_slice() {
            _ if hidden > 0 => hidden - 1,
            b"auth" => 2,
            b"requirepass" => 1,
            _ => 0,
        };
        shown
    });
    Some(OwnedArgs::from_slices(words))
}

/// The error for a command that a session must not run here.
pub fn not_in_block(name: &str) -> Reject {
    Reject::err(format!("{name} is not allowed inside MULTI"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_takes_little_memory() {
        assert!(size_of::<Client>() <= 176, "{}", size_of::<Client>());
    }

    #[test]
    fn a_client_is_called_once_until_it_was_looked_at() {
        let addresses = (Address::loopback(1), Address::loopback(2));
        let client = Client::new(7, 0, addresses, 9, 0);
        let calls = Arc::new(Mutex::new(Vec::new()));
        client.wake();
        client.set_wake(
            {
                let calls = calls.clone();
                Arc::new(move |place, id| lock(&calls).push((place, id)))
            },
            3,
        );
        assert!(lock(&calls).is_empty(), "nobody served it yet");
        client.wake();
        client.kill();
        assert_eq!(*lock(&calls), [(3, 7)]);
        client.looked_at();
        client.wake();
        assert_eq!(*lock(&calls), [(3, 7), (3, 7)]);
    }
}
