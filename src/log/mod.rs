//! The commit log: what is acknowledged is here first, on disk, in one order.
//!
//! Always true here: lsns are given out without gaps, under the queue's lock, in the order in which batches
//! are written; `durable_lsn` only rises, and only after the disk confirmed everything up to it; after a
//! `Fatal` nothing becomes durable any more. The log knows nothing of keys and values: payloads are opaque.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

pub mod disk;

/// Position of a batch in the log: 1 is the first batch, 0 is "nothing".
pub type Lsn = u64;

/// What one shard turn hands to the log. Applied whole or not at all.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Payload, opaque to the log; the parts are concatenated.
    pub parts: Vec<Bytes>,
    /// Time of the turn, milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// What this turn obtained from `reserve`/`reserve_urgent`, in bytes; given back by `append`.
    pub reserved_bytes: u64,
}

/// A durable place in the log: the lsn of a record's last batch and that record's checksum. The default is
/// the beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Position {
    pub lsn: Lsn,
    pub chain: u32,
}

/// When written records are forced to disk (`appendfsync`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    Always,
    EverySec,
    No,
}

/// What ends the process: a failed disk, or a data folder that must not be served.
#[derive(Debug, Clone)]
pub struct Fatal {
    pub message: String,
    pub path: PathBuf,
    pub source: Option<Arc<io::Error>>,
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.message)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Fatal {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// Monotonic microseconds from any beginning.
pub type ClockUs = Arc<dyn Fn() -> u64 + Send + std::marker::Sync>;

/// How a log is opened. `Options::new` fills everything but the folder id and the clock with defaults.
#[derive(Clone)]
pub struct Options {
    /// Identifies the data folder: random, drawn at creation, kept secret (it seeds the checksums).
    pub folder_id: u64,
    pub segment_bytes: u64,
    pub sync: Sync,
    /// Threads that append (shards): sizes the space kept for padding.
    pub writers: usize,
    /// Space kept for `reserve_urgent`, in bytes.
    pub set_aside_bytes: u64,
    pub spare_segments_max: usize,
    pub clock_us: ClockUs,
    /// Called once, with what failed. Production: log one line and exit.
    pub on_fatal: Arc<dyn Fn(&Fatal) + Send + std::marker::Sync>,
}

impl Options {
    pub fn new(_folder_id: u64, _clock_us: ClockUs) -> Options {
        todo!()
    }
}

/// What `try_reserve` answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reserve {
    Granted,
    /// Not at hand, being prepared: treat like a full queue and ask again when woken (`want_space`).
    Busy,
    /// The disk is full: `-NOSPACE`.
    Full,
}

/// The log's handle; clones are the same log.
#[derive(Clone)]
pub struct Log {}

/// A wake-up of one waiting thread. Dropping it ends it.
pub struct Subscription {}

impl Subscription {
    /// Call me once when `durable_lsn() >= lsn` (at once, on this thread, if it already is), or when the
    /// mode no longer waits. Of several calls before the wake-up the smallest lsn counts.
    pub fn want(&self, _lsn: Lsn) {
        todo!()
    }

    /// Call me once when space was added, or found to be used up.
    pub fn want_space(&self) {
        todo!()
    }
}

/// A snapshot of what the log does.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    pub groups: u64,
    pub batches: u64,
    pub bytes: u64,
    /// Entry i counts the groups with up to 2^i batches (bytes).
    pub batches_per_group: Vec<u64>,
    pub bytes_per_group: Vec<u64>,
    pub sync_p50_us: u64,
    pub sync_p99_us: u64,
    pub sync_p999_us: u64,
    pub sync_max_us: u64,
    pub queue_batches: usize,
    pub queue_bytes: u64,
    pub segments_in_use: usize,
    pub segments_spare: usize,
    pub groups_per_second: u64,
}

impl Log {
    /// Queues a batch and gives it its lsn; never waits for I/O. Its space was reserved before.
    pub fn append(&self, _batch: Batch) -> Lsn {
        todo!()
    }
    /// The queue is at its bound: stop reading sockets until woken.
    pub fn queue_full(&self) -> bool {
        todo!()
    }
    pub fn durable_lsn(&self) -> Lsn {
        todo!()
    }
    /// Highest lsn given out.
    pub fn last_lsn(&self) -> Lsn {
        todo!()
    }
    /// Up to where the output gate may release: `durable_lsn` in mode always, else `u64::MAX`.
    pub fn released_lsn(&self) -> Lsn {
        todo!()
    }
    /// The last durable record.
    pub fn position(&self) -> Position {
        todo!()
    }
    pub fn subscribe(&self, _wake: Arc<dyn Fn() + Send + std::marker::Sync>) -> Subscription {
        todo!()
    }
    /// Blocks until `lsn` is durable (asks for a sync in the modes that would not make one).
    pub fn wait_durable(&self, _lsn: Lsn) -> Result<(), Fatal> {
        todo!()
    }
    /// Segments wholly at or below `lsn` are recycled.
    pub fn trim(&self, _lsn: Lsn) {
        todo!()
    }
    /// Bytes on disk behind `lsn`, to within about a mebibyte.
    pub fn bytes_since(&self, _lsn: Lsn) -> u64 {
        todo!()
    }
    pub fn bytes_since_trim(&self) -> u64 {
        todo!()
    }
    pub fn set_sync(&self, _sync: Sync) {
        todo!()
    }
    /// Makes everything appended so far durable soon, in every mode.
    pub fn request_sync(&self) {
        todo!()
    }
    pub fn reserve(&self, bytes: u64) -> bool {
        self.try_reserve(bytes, false) == Reserve::Granted
    }
    pub fn reserve_urgent(&self, bytes: u64) -> bool {
        self.try_reserve(bytes, true) == Reserve::Granted
    }
    pub fn try_reserve(&self, _bytes: u64, _urgent: bool) -> Reserve {
        todo!()
    }
    pub fn unreserve(&self, _bytes: u64) {
        todo!()
    }
    pub fn stats(&self) -> Stats {
        todo!()
    }
    /// Drains the queue, syncs, ends the threads.
    pub fn close(&self) -> Result<(), Fatal> {
        todo!()
    }
    /// A log without threads on a fresh or existing folder; what it held is passed over.
    pub fn manual(
        _disk: Arc<dyn disk::Disk>,
        _dir: &Path,
        _options: Options,
    ) -> Result<(Log, Manual), Fatal> {
        todo!()
    }
}

/// Drives a log that has no threads.
pub struct Manual {}

impl Manual {
    /// One round: prepares space, then writes (and, if the mode asks for it, syncs) one group, or does
    /// what is due when idle. True if it did anything.
    pub fn step(&mut self) -> Result<bool, Fatal> {
        todo!()
    }
}

/// A batch read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    pub lsn: Lsn,
    pub time_ms: u64,
    pub payload: Bytes,
}

/// An opened log that is being read back.
pub struct Recovery {}

impl Recovery {
    /// The next batch behind the position given to `open`, in order; None at the end of the log.
    pub fn next(&mut self) -> Result<Option<Replayed>, Fatal> {
        todo!()
    }
    /// Time of the latest record seen, milliseconds since the epoch.
    pub fn last_time_ms(&self) -> u64 {
        todo!()
    }
    /// Makes what was read durable, cuts what was never acknowledged, starts the threads.
    pub fn finish(self) -> Result<Log, Fatal> {
        todo!()
    }
    pub fn finish_manual(self) -> Result<(Log, Manual), Fatal> {
        todo!()
    }
}

/// Opens the log in `dir` (created if missing), to be read from behind `from`.
pub fn open(
    _disk: Arc<dyn disk::Disk>,
    _dir: &Path,
    _options: Options,
    _from: Position,
) -> Result<Recovery, Fatal> {
    todo!()
}
