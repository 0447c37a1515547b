//! The commit log: what is acknowledged is here first, on disk, in one order.
//!
//! Always true here: lsns are given out under the queue's lock, in the order in which batches are
//! written; `durable_lsn` only rises, and only after the disk confirmed everything up to it; after
//! a `Fatal` nothing becomes durable any more. The log knows nothing of keys and values: payloads
//! are opaque.
//!
//! The way of a batch: `append` (queue) → committer (one record, one sync per group) →
//! `durable_lsn`, which wakes who waits → `trim`, once the store has it. At a start: `open` →
//! `Recovery::next` … → `finish`.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;

use crate::limits::{LOG_SEGMENT_BYTES_DEFAULT, LOG_SPARE_SEGMENTS_MAX};

mod committer;
mod copy;
pub mod disk;
mod head;
mod queue;
mod record;
mod recover;
mod runner;
mod segment;
pub mod sim_disk;
mod space;
mod stats;
#[cfg(test)]
mod tests;
mod verify;
mod wait;
mod walk;

pub use self::copy::copy;
pub use self::recover::{Recovery, begin, open};
pub use self::runner::Manual;
pub use self::verify::{Report, Visit, verify, visit};
pub use self::wait::{Subscription, Wake};

use self::committer::Committer;
use self::disk::Disk;
use self::queue::Shared;

/// Position of a batch in the log: 1 is the first batch, 0 is "nothing". Rising; not without gaps
/// for the users of the log, because an empty record (the witness of an idle log, the first of a
/// start) takes one.
pub type Lsn = u64;

/// What one shard turn hands to the log. Applied whole or not at all.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Payload, opaque to the log; the parts are concatenated.
    pub parts: Vec<Bytes>,
    /// Time of the turn, milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// What this turn obtained from `reserve` or `reserve_urgent` in all, in bytes; `append` gives
    /// it back.
    pub reserved_bytes: u64,
}

/// Most bytes of the log that a batch with this payload takes, if it gets a record of its own.
pub fn alone_bytes(payload_bytes: u64) -> u64 {
    record::record_bytes(payload_bytes.saturating_add(record::BATCH_HEADER_BYTES))
}

/// A durable place in the log: the lsn of a record's last batch and that record's checksum. The
/// default is the beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Position {
    pub lsn: Lsn,
    pub chain: u32,
}

/// What is known of a log before it is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Known {
    /// Where to read on: everything up to here is kept elsewhere.
    pub from: Position,
    /// It was durable up to here at least, because something later than `from` was made of it.
    pub durable_lsn: Lsn,
    /// It has a head: without one that is whole, something is missing.
    pub has_head: bool,
}

impl From<Position> for Known {
    fn from(from: Position) -> Known {
        Known {
            from,
            durable_lsn: from.lsn,
            has_head: false,
        }
    }
}

/// When written records are forced to disk (`appendfsync`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncMode {
    Always,
    EverySec,
    No,
}

/// A batch read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    pub lsn: Lsn,
    pub time_ms: u64,
    pub payload: Bytes,
}

/// What ends the process: a failed disk, or a data folder that must not be served.
#[derive(Debug, Clone)]
pub struct Fatal {
    /// What is wrong and, where it is known, what to do.
    pub message: String,
    pub path: PathBuf,
    pub source: Option<Arc<io::Error>>,
}

impl Fatal {
    pub fn new(message: String, path: &Path) -> Fatal {
        Fatal {
            message,
            path: path.to_owned(),
            source: None,
        }
    }

    pub fn io(what: &str, path: &Path, error: io::Error) -> Fatal {
        Fatal {
            message: what.to_owned(),
            path: path.to_owned(),
            source: Some(Arc::new(error)),
        }
    }

    /// The disk has no room: nothing else is wrong with it.
    fn is_full(&self) -> bool {
        self.source.as_deref().is_some_and(disk::is_full)
    }
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

/// How a log is opened.
#[derive(Clone)]
pub struct Options {
    /// Identifies the data folder: random, drawn at its creation, not to be seen by clients (it
    /// keys the checksums, so that no payload can imitate a record).
    pub folder_id: u64,
    /// Size of a segment, a multiple of 4096.
    pub segment_bytes: u64,
    pub sync: SyncMode,
    /// Threads that append (shards): sizes the space kept for padding.
    pub writers: usize,
    /// Space kept for `reserve_urgent`, in bytes.
    pub set_aside_bytes: u64,
    /// Recycled segments kept for reuse.
    pub spare_segments_max: usize,
    /// Monotonic microseconds from any beginning: for intervals and latencies.
    pub clock_us: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Called once, with what failed. Production: log one line and exit.
    pub on_fatal: Arc<dyn Fn(&Fatal) + Send + Sync>,
}

impl Options {
    /// Defaults for all but the folder and the clock; a failure is only reported to waiters.
    pub fn new(folder_id: u64, clock_us: Arc<dyn Fn() -> u64 + Send + Sync>) -> Options {
        Options {
            folder_id,
            segment_bytes: LOG_SEGMENT_BYTES_DEFAULT,
            sync: SyncMode::Always,
            writers: 1,
            set_aside_bytes: LOG_SEGMENT_BYTES_DEFAULT / 4,
            spare_segments_max: LOG_SPARE_SEGMENTS_MAX,
            clock_us,
            on_fatal: Arc::new(|_| {}),
        }
    }
}

/// The answer to a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reserve {
    Granted,
    /// Not at hand yet, being prepared: like a full queue, ask again when woken (`want_space`).
    Busy,
    /// The disk is full: `-NOSPACE`.
    Full,
}

/// A snapshot of what the log does. Counts are since the start.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    pub groups: u64,
    pub batches: u64,
    /// On disk, padding included; also what was found behind the store's position at the start.
    pub bytes: u64,
    /// Entry i counts the groups of up to 2^i (and more than 2^(i-1)) batches, or bytes.
    pub batches_per_group: Vec<u64>,
    pub bytes_per_group: Vec<u64>,
    pub syncs: u64,
    pub sync_p50_us: u64,
    pub sync_p99_us: u64,
    pub sync_p999_us: u64,
    pub sync_max_us: u64,
    pub queue_batches: usize,
    pub queue_bytes: u64,
    pub segments_in_use: usize,
    pub segments_spare: usize,
    /// In the last full second.
    pub groups_per_second: u64,
    /// The last attempt to allocate a segment found the disk full.
    pub disk_full: bool,
}

/// The log's handle; clones are the same log. Dropping the last one closes it without waiting.
#[derive(Clone)]
pub struct Log {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.begin_close();
    }
}

impl Log {
    fn start(committer: Committer) -> Result<Log, Fatal> {
        let shared = committer.shared().clone();
        let threads = Mutex::new(runner::start(committer)?);
        Ok(Log {
            handle: Arc::new(Handle { shared, threads }),
        })
    }

    fn without_threads(shared: Arc<Shared>) -> Log {
        Log {
            handle: Arc::new(Handle {
                shared,
                threads: Mutex::new(Vec::new()),
            }),
        }
    }

    /// A log that is driven by hand, in `dir`; what it held is passed over.
    pub fn manual(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: Options,
    ) -> Result<(Log, Manual), Fatal> {
        open(disk, dir, options, Position::default())?.finish_manual()
    }

    fn shared(&self) -> &Shared {
        &self.handle.shared
    }

    /// It has a head, from now on: without one that is whole, something is missing.
    pub fn has_head(&self) -> bool {
        self.shared().has_head
    }

    /// Queues a batch and gives it its lsn; never waits for I/O. Its space was reserved before: a
    /// batch without a reservation ends the process when the disk is full.
    pub fn append(&self, batch: Batch) -> Lsn {
        self.shared().append(batch)
    }

    /// The queue is at its bound (or the log has failed): stop reading sockets until woken,
    /// `want_space`.
    pub fn queue_full(&self) -> bool {
        self.shared().queue_full()
    }

    /// Everything up to this lsn is on disk.
    pub fn durable_lsn(&self) -> Lsn {
        self.shared().durable_lsn()
    }

    /// Highest lsn given out.
    pub fn last_lsn(&self) -> Lsn {
        self.shared().last_lsn()
    }

    /// Up to where the output gate may release: `durable_lsn` in mode always, otherwise `Lsn::MAX`.
    pub fn released_lsn(&self) -> Lsn {
        self.shared().released_lsn()
    }

    /// The last durable record.
    pub fn position(&self) -> Position {
        self.shared().position()
    }

    /// `wake` is called by the committer (or by `want`, on the caller's thread): it must not block.
    pub fn subscribe(&self, wake: Wake) -> Subscription {
        self.shared().waiters.subscribe(&self.handle.shared, wake)
    }

    /// Blocks until `lsn`, which was given out, is durable; asks for a sync in the modes that would
    /// not make one. An error if the log failed before that.
    pub fn wait_durable(&self, lsn: Lsn) -> Result<(), Fatal> {
        self.shared().wait_durable(lsn)
    }

    /// Segments wholly at or below `lsn` are recycled: the store has what they held, durably.
    pub fn trim(&self, lsn: Lsn) {
        assert!(
            lsn <= self.durable_lsn(),
            "trimming the log to lsn {lsn}, which is not durable"
        );
        match self.shared().space.trim(lsn) {
            Ok(()) => {
                self.shared().counters.trimmed(lsn);
                self.shared().waiters.space_changed();
            }
            Err(fatal) => self.shared().fail(fatal),
        }
    }

    /// Bytes on disk behind `lsn`, up to a mebibyte too many.
    pub fn bytes_since(&self, lsn: Lsn) -> u64 {
        self.shared().counters.bytes_since(lsn)
    }

    /// Bytes on disk behind the last trim, up to a mebibyte too many.
    pub fn bytes_since_trim(&self) -> u64 {
        self.shared().counters.bytes_since_trim()
    }

    pub fn sync_mode(&self) -> SyncMode {
        self.shared().sync_mode()
    }

    /// Takes effect at once; what was written so far is synced soon.
    pub fn set_sync(&self, mode: SyncMode) {
        self.shared().set_sync(mode);
    }

    /// Makes everything appended so far durable soon, in every mode.
    pub fn request_sync(&self) {
        self.shared().request_sync();
    }

    /// Space for `bytes` more of batches. Take a generous piece per turn rather than one per
    /// command.
    pub fn reserve(&self, bytes: u64) -> bool {
        self.try_reserve(bytes, false) == Reserve::Granted
    }

    /// The same for what frees space (DEL, UNLINK, FLUSH, expiry): may use what is set aside.
    pub fn reserve_urgent(&self, bytes: u64) -> bool {
        self.try_reserve(bytes, true) == Reserve::Granted
    }

    /// Tells "being prepared" (a large value, a burst) from "the disk is full".
    pub fn try_reserve(&self, bytes: u64, urgent: bool) -> Reserve {
        self.shared().space.reserve(bytes, urgent)
    }

    /// Makes space ready now, if little is at hand and the disk has some.
    pub fn prepare_space(&self) -> Result<(), Fatal> {
        self.shared().space.prepare().map(drop)
    }

    /// Gives back what was reserved and is not in the `reserved_bytes` of a batch.
    pub fn unreserve(&self, bytes: u64) {
        self.shared().space.unpromise(bytes);
    }

    /// The disk is full, or its space is withheld.
    pub fn is_full(&self) -> bool {
        self.shared().space.is_full()
    }

    /// Leaves the space of the disk to somebody else for a while: nothing but what frees space is
    /// granted any, and nothing is allocated ahead.
    pub fn withhold_space(&self, withheld: bool) {
        if let Err(fatal) = self.shared().space.withhold(withheld) {
            self.shared().fail(fatal);
        }
        self.shared().waiters.space_changed();
    }

    pub fn stats(&self) -> Stats {
        let shared = self.shared();
        let mut stats = Stats {
            disk_full: shared.space.is_full(),
            ..Stats::default()
        };
        shared.counters.snapshot(&mut stats, shared.now_us());
        (stats.queue_batches, stats.queue_bytes) = shared.queued();
        let (behind, spare) = shared.space.counts();
        stats.segments_in_use = behind + 1;
        stats.segments_spare = spare;
        stats
    }

    /// What the log failed of, if it did.
    pub fn failed(&self) -> Option<Fatal> {
        self.shared().failed().cloned()
    }

    /// Drains the queue, syncs, ends the threads. Nothing may be appended any more. A log driven by
    /// hand is drained by its next steps.
    pub fn close(&self) -> Result<(), Fatal> {
        self.shared().begin_close();
        for thread in std::mem::take(&mut *lock(&self.handle.threads)) {
            // A thread that panicked has ended the process.
            let _ = thread.join();
        }
        self.failed().map_or(Ok(()), Err)
    }
}

/// A lock is never poisoned here: a panic ends the process.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
