//! The settings as a plain typed struct: what the rest of the server reads.
//!
//! Always true: [`Settings::default`] is what the table's default texts parse to.

use std::net::IpAddr;

use super::table::ROWS;

/// All settings. Meaning, unit, default and range of each are in its row in `table.rs`.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub bind: String,
    pub port: u16,
    pub unixsocket: String,
    /// Mode of the socket file; 0 leaves what the umask gives.
    pub unixsocketperm: u32,
    pub tcp_backlog: usize,
    pub maxclients: usize,
    /// 0: idle connections stay.
    pub timeout_seconds: usize,
    /// 0: no keepalive probes.
    pub tcp_keepalive_seconds: usize,
    pub protected_mode: bool,
    pub requirepass: String,
    pub enable_debug_command: DebugCommand,
    pub dir: String,
    /// Empty: BACKUP is refused.
    pub backup_dir: String,
    /// 0: one per core but one; see [`Settings::shard_count`].
    pub shards: usize,
    pub databases: usize,
    pub appendfsync: AppendFsync,
    pub log_segment_bytes: usize,
    pub checkpoint_bytes: usize,
    pub proto_max_bulk_bytes: usize,
    pub client_query_buffer_bytes: usize,
    pub client_output_buffer: OutputBufferLimits,
    pub arguments_max: usize,
    pub mailbox_calls_max: usize,
    pub multi_commands_max: usize,
    pub multi_bytes_max: usize,
    /// 0: no limit.
    pub maxmemory_bytes: usize,
    pub hash_max_listpack_entries: usize,
    pub hash_max_listpack_value_bytes: usize,
    pub loglevel: LogLevel,
    pub logformat: LogFormat,
    /// Microseconds; 0 logs every command, -1 none.
    pub slowlog_slower_than_us: i64,
    pub slowlog_entries_max: usize,
    /// Milliseconds; 0 switches the monitor off.
    pub latency_monitor_threshold_ms: usize,
    pub latency_tracking: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        let mut settings = Settings::blank();
        for row in ROWS {
            row.kind
                .set(&mut settings, row.default)
                .expect("the table's defaults are allowed values");
        }
        settings
    }
}

impl Settings {
    /// How many shard threads to run: `shards`, or one per core but one where that is 0.
    pub fn shard_count(&self) -> usize {
        if self.shards > 0 {
            return self.shards;
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        // The log's thread and compaction need a core as well: measured on two cores, one shard
        // beats two at every pipeline depth.
        (cores - 1).clamp(1, crate::limits::SHARDS_MAX)
    }

    /// The addresses to listen on, in the order of `bind`; none if it is empty.
    pub fn bind_addresses(&self) -> Vec<BindAddress> {
        parse_bind(&self.bind).unwrap_or_default()
    }

    /// The two settings of which one cannot be what it is while the other is what it is.
    ///
    /// # Errors
    /// The name of the setting to change and why.
    pub(super) fn check_relations(&self) -> Result<(), (&'static str, String)> {
        if self.bind.trim().is_empty() && self.unixsocket.is_empty() {
            let text = "must name an address when there is no unixsocket";
            return Err(("bind", text.to_owned()));
        }
        Ok(())
    }

    /// What the defaults are written over.
    fn blank() -> Settings {
        Settings {
            bind: String::new(),
            port: 0,
            unixsocket: String::new(),
            unixsocketperm: 0,
            tcp_backlog: 0,
            maxclients: 0,
            timeout_seconds: 0,
            tcp_keepalive_seconds: 0,
            protected_mode: true,
            requirepass: String::new(),
            enable_debug_command: DebugCommand::No,
            dir: String::new(),
            backup_dir: String::new(),
            shards: 0,
            databases: 0,
            appendfsync: AppendFsync::Always,
            log_segment_bytes: 0,
            checkpoint_bytes: 0,
            proto_max_bulk_bytes: 0,
            client_query_buffer_bytes: 0,
            client_output_buffer: OutputBufferLimits::default(),
            arguments_max: 0,
            mailbox_calls_max: 0,
            multi_commands_max: 0,
            multi_bytes_max: 0,
            maxmemory_bytes: 0,
            hash_max_listpack_entries: 0,
            hash_max_listpack_value_bytes: 0,
            loglevel: LogLevel::Notice,
            logformat: LogFormat::Text,
            slowlog_slower_than_us: 0,
            slowlog_entries_max: 0,
            latency_monitor_threshold_ms: 0,
            latency_tracking: true,
        }
    }
}

/// When the commit log is synced, in Redis's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendFsync {
    /// Once per second, in the background.
    Everysec,
    /// Before any reply that depends on the write.
    Always,
    /// When the operating system likes.
    No,
}

impl AppendFsync {
    pub(super) const WORDS: &[&str] = &["everysec", "always", "no"];
    pub(super) const ALL: [AppendFsync; 3] =
        [AppendFsync::Everysec, AppendFsync::Always, AppendFsync::No];
}

/// Who may use DEBUG.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DebugCommand {
    No,
    Yes,
    /// Connections from this machine alone.
    Local,
}

impl DebugCommand {
    pub(super) const WORDS: &[&str] = &["no", "yes", "local"];
    pub(super) const ALL: [DebugCommand; 3] =
        [DebugCommand::No, DebugCommand::Yes, DebugCommand::Local];
}

/// The least severe line that is logged: Redis's words and those of `tracing`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    Debug,
    Verbose,
    Notice,
    Warning,
    Nothing,
    Trace,
    Info,
    Warn,
    Error,
}

impl LogLevel {
    pub(super) const WORDS: &[&str] = &[
        "debug", "verbose", "notice", "warning", "nothing", "trace", "info", "warn", "error",
    ];
    pub(super) const ALL: [LogLevel; 9] = [
        LogLevel::Debug,
        LogLevel::Verbose,
        LogLevel::Notice,
        LogLevel::Warning,
        LogLevel::Nothing,
        LogLevel::Trace,
        LogLevel::Info,
        LogLevel::Warn,
        LogLevel::Error,
    ];
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    /// One JSON object per line.
    Json,
}

impl LogFormat {
    pub(super) const WORDS: &[&str] = &["text", "json"];
    pub(super) const ALL: [LogFormat; 2] = [LogFormat::Text, LogFormat::Json];
}

/// An address to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BindAddress {
    pub ip: IpAddr,
    /// Written with a `-` in front: the start goes on if the machine has no such address.
    pub optional: bool,
}

/// Parses the `bind` setting: addresses separated by blanks, `*` for all IPv4, `-` in front of
/// those that may be missing.
pub(super) fn parse_bind(text: &str) -> Result<Vec<BindAddress>, String> {
    let address = |word: &str| {
        let optional = word.starts_with('-');
        let bare = word.strip_prefix('-').unwrap_or(word);
        let ip = match bare {
            "*" => Ok(IpAddr::from([0, 0, 0, 0])),
            "localhost" => Ok(IpAddr::from([127, 0, 0, 1])),
            _ => bare.trim_start_matches('[').trim_end_matches(']').parse(),
        };
        let ip = ip.map_err(|_| format!("'{word}' is not an IP address"))?;
        Ok(BindAddress { ip, optional })
    };
    text.split_whitespace().map(address).collect()
}

/// Bounds of the bytes that were released to a client and that it does not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OutputBufferLimit {
    /// Above this the client is disconnected; 0: no limit but the server's own.
    pub hard_bytes: u64,
    /// Above this for longer than `soft_seconds` the client is disconnected; 0: none.
    pub soft_bytes: u64,
    pub soft_seconds: u64,
}

impl OutputBufferLimit {
    /// The bound that applies: `hard_bytes`, or the server's own where that is 0 or more.
    pub fn hard_bytes_effective(&self) -> u64 {
        let own = crate::limits::OUTPUT_BYTES_MAX;
        if self.hard_bytes == 0 {
            own
        } else {
            self.hard_bytes.min(own)
        }
    }
}

/// One bound per class of clients, as in Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OutputBufferLimits {
    pub normal: OutputBufferLimit,
    pub replica: OutputBufferLimit,
    pub pubsub: OutputBufferLimit,
}
