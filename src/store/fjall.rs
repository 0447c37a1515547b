//! The store on disk: one fjall database with one keyspace. The only file that names fjall.
//!
//! Always true here:
//! - Nothing goes through fjall's journal. Rows enter by `start_ingestion`, whose `finish` returns
//!   after it synced each table and the tables' folder, then the new version file and its folder,
//!   then replaced and synced the pointer `current` and its folder (read in lsm-tree 3.1.10:
//!   `table/writer`, `version/persist`, `file::rewrite_atomic`). So it is durable, and no `persist`
//!   of the journal adds anything.
//! - An ingestion or compaction that did not finish leaves tables that no version names; opening
//!   removes them. After one the store wants to be reopened, because a version that was half
//!   written must not be written over while `current` may already point to it.
//! - Before fjall opens a folder we check what it does not: a lost `current` would make it delete
//!   the keyspace as uninitialized, and a flipped bit in the version file would make it delete the
//!   tables it no longer finds named there.
//! - fjall runs no threads of its own; a thread of ours compacts ([`Running`]). Its workers get one
//!   request per ingestion and drop it when the level is busy, spin on their queue meanwhile (seen
//!   once: 4.3 s of CPU with two of them, 2.9 s with three, same work), and end at an error. From
//!   opening to the first ingestion they compact with a watermark that keeps every shadowed row.
//! - A scan holds its [`Open`] alive, and reopening waits for it: a table that compaction removed
//!   deletes its file when the last reader is gone, by a name that the next open may give again.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ::fjall::config::{
    BlockSizePolicy, BloomConstructionPolicy, CompressionPolicy, FilterPolicy, FilterPolicyEntry,
    PartitioningPolicy, RestartIntervalPolicy,
};
use ::fjall::{
    AbstractTree, CompressionType, Database, Error, Keyspace, KeyspaceCreateOptions, LsmError,
};
use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use super::{Ascending, Fill, Finish, Ingestion, Meta, Rows, Store, StoreError, files, row};
use crate::limits::{
    BACKGROUND_NICE, STORE_BLOCK_BYTES, STORE_CACHE_BYTES_DEFAULT, STORE_FILTER_BITS_PER_ROW,
    STORE_OPEN_FILES_MAX, STORE_REOPEN_WAIT_MS_MAX, STORE_TABLE_BYTES,
};

/// The name of the keyspace that holds all rows.
const KEYSPACE: &str = "rows";
const REOPEN_STEP_MS: u64 = 5;

/// What may differ from one start to the next. Everything else is frozen when a store is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// Memory for blocks read from disk, in bytes.
    pub cache_bytes: u64,
    /// Most table files that are kept open.
    pub open_files_max: usize,
}

impl Default for StoreOptions {
    fn default() -> Self {
        StoreOptions {
            cache_bytes: STORE_CACHE_BYTES_DEFAULT,
            open_files_max: STORE_OPEN_FILES_MAX,
        }
    }
}

/// The store on disk.
pub struct FjallStore {
    path: PathBuf,
    options: StoreOptions,
    running: RwLock<Result<Running, StoreError>>,
    /// Compaction may not begin by itself.
    still: AtomicBool,
}

impl FjallStore {
    /// Creates a store in the folder `path`, which must not exist, with `meta` as its first meta
    /// row. A crash on the way leaves a folder that cannot be opened: create it under a temporary
    /// name. Files and folders inside are synced by [`super::folder`].
    pub fn create(path: &Path, options: StoreOptions, meta: &Meta) -> Result<Self, StoreError> {
        fs::create_dir(path).map_err(|error| StoreError::from_io(path, &error))?;
        let store = FjallStore::new(path, options, Open::create(path, options)?)?;
        let finished = store.ingest(&mut |_| Ok(Finish::With(meta.clone())))?;
        assert!(finished);
        Ok(store)
    }

    /// Opens the store in the folder `path`. Refuses one that is incomplete or damaged as far as
    /// this can be seen without reading every row.
    pub fn open(path: &Path, options: StoreOptions) -> Result<Self, StoreError> {
        let store = FjallStore::new(path, options, Open::existing(path, options)?)?;
        match store.meta()? {
            Some(_) => Ok(store),
            None => Err(StoreError::damaged(path, "the meta row is missing")),
        }
    }

    /// Opens a store to look at it: nothing compacts it by itself.
    pub fn look(path: &Path, options: StoreOptions) -> Result<Self, StoreError> {
        let running = Running::start(Arc::new(Open::existing(path, options)?))?;
        Ok(FjallStore {
            path: path.to_path_buf(),
            options,
            running: RwLock::new(Ok(running)),
            still: AtomicBool::new(false),
        })
    }

    fn new(path: &Path, options: StoreOptions, open: Open) -> Result<Self, StoreError> {
        let running = Running::start(Arc::new(open))?;
        running.nudge();
        Ok(FjallStore {
            path: path.to_path_buf(),
            options,
            running: RwLock::new(Ok(running)),
            still: AtomicBool::new(false),
        })
    }

    fn current(&self) -> Result<Arc<Open>, StoreError> {
        match &*self.running.read().unwrap_or_else(PoisonError::into_inner) {
            Ok(running) => Ok(Arc::clone(&running.open)),
            Err(error) => Err(error.clone()),
        }
    }

    fn nudge_compactor(&self) {
        if self.still.load(Ordering::Acquire) {
            return;
        }
        if let Ok(running) = &*self.running.read().unwrap_or_else(PoisonError::into_inner) {
            running.nudge();
        }
    }
}

impl Store for FjallStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let open = self.current()?;
        match open.keyspace.get(key) {
            Ok(value) => Ok(value.map(|value| Bytes::copy_from_slice(&value))),
            Err(error) => Err(open.read_error(error, key, key)),
        }
    }

    fn scan(&self, from: &[u8], to: &[u8]) -> Rows {
        let open = match self.current() {
            Ok(open) => open,
            Err(error) => return Box::new(std::iter::once(Err(error))),
        };
        if from >= to {
            return Box::new(std::iter::empty());
        }
        let rows = open.keyspace.range::<&[u8], _>(from..to);
        Box::new(Scan {
            rows,
            at: from.to_vec(),
            to: to.to_vec(),
            open,
        })
    }

    fn is_damaged(&self, from: &[u8], to: &[u8]) -> bool {
        let Ok(open) = self.current() else {
            return false;
        };
        if from >= to {
            return false;
        }
        let first = open.keyspace.range::<&[u8], _>(from..to).next();
        let first = first.map(|row| row.into_inner().map_err(|e| store_error(e, &open.path)));
        matches!(first, Some(Err(StoreError::Damaged { .. })))
    }

    fn ingest(&self, fill: &mut Fill<'_>) -> Result<bool, StoreError> {
        let open = self.current()?;
        if open.is_failed() {
            return Err(StoreError::io(
                &self.path,
                "the store must be reopened first",
            ));
        }
        let finished = open.ingest(fill);
        match &finished {
            Ok(true) => self.nudge_compactor(),
            Ok(false) => open.fail(None),
            Err(error) => open.fail(Some(error)),
        }
        finished
    }

    fn depth(&self) -> usize {
        self.current()
            .map_or(0, |open| open.keyspace.tree.l0_run_count())
    }

    fn disk_bytes(&self) -> u64 {
        self.current().map_or(0, |open| open.keyspace.disk_space())
    }

    fn relieve(&self) -> Result<bool, StoreError> {
        self.current()?.compact()
    }

    fn shrink(&self) -> Result<(), StoreError> {
        self.current()?.compact_all()
    }

    fn needs_reopen(&self) -> bool {
        self.current().map_or(true, |open| open.is_failed())
    }

    fn is_full(&self) -> bool {
        self.current()
            .is_ok_and(|open| open.full.load(Ordering::Acquire))
    }

    fn is_compacting(&self) -> bool {
        self.current()
            .is_ok_and(|open| open.compacting.load(Ordering::Acquire))
    }

    fn let_compact(&self, may: bool) {
        self.still.store(!may, Ordering::Release);
        if let Ok(open) = self.current() {
            open.closing.store(!may, Ordering::Release);
        }
    }

    fn reopen(&self) -> Result<(), StoreError> {
        let mut slot = self.running.write().unwrap_or_else(PoisonError::into_inner);
        let closed = Err(StoreError::io(&self.path, "the store is being reopened"));
        if let Ok(running) = std::mem::replace(&mut *slot, closed) {
            let open = Arc::clone(&running.open);
            drop(running);
            if let Err(open) = drop_when_alone(open) {
                *slot = Running::start(open);
                return Err(StoreError::io(
                    &self.path,
                    "a scan kept the store from reopening",
                ));
            }
        }
        // Not nudged: on a full disk the compactor would take the space that the next ingestion
        // needs, and that one may be the one that frees some.
        *slot = Open::existing(&self.path, self.options)
            .and_then(|open| Running::start(Arc::new(open)));
        slot.as_ref().map(|_| ()).map_err(StoreError::clone)
    }
}

/// Drops `open` once nobody else holds it, or gives it back after a while.
fn drop_when_alone(mut open: Arc<Open>) -> Result<(), Arc<Open>> {
    for _ in 0..STORE_REOPEN_WAIT_MS_MAX / REOPEN_STEP_MS {
        match Arc::try_unwrap(open) {
            Ok(_alone) => return Ok(()),
            Err(shared) => open = shared,
        }
        thread::sleep(Duration::from_millis(REOPEN_STEP_MS));
    }
    Err(open)
}

/// An open database and the thread that compacts it when nudged, until nothing is due. The thread
/// ends at its first error, which the next reopening answers. Dropping this waits for its step.
struct Running {
    open: Arc<Open>,
    nudge: Option<SyncSender<()>>,
    compactor: Option<JoinHandle<()>>,
}

impl Running {
    fn start(open: Arc<Open>) -> Result<Running, StoreError> {
        let (nudge, nudges) = mpsc::sync_channel(1);
        let compactor = thread::Builder::new()
            .name("compaction".into())
            .spawn({
                let open = Arc::clone(&open);
                move || {
                    // Of this thread alone; where it may not, nothing is lost.
                    let _ = rustix::process::nice(BACKGROUND_NICE);
                    compact_when_nudged(&open, &nudges);
                }
            })
            .map_err(|error| StoreError::from_io(&open.path, &error))?;
        Ok(Running {
            open,
            nudge: Some(nudge),
            compactor: Some(compactor),
        })
    }

    /// Never waits: a nudge that is already pending will do.
    fn nudge(&self) {
        let _ = self.nudge.as_ref().map(|nudge| nudge.try_send(()));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.open.closing.store(true, Ordering::Release);
        self.nudge = None;
        if let Some(compactor) = self.compactor.take() {
            let _ = compactor.join();
        }
        self.open.closing.store(false, Ordering::Release);
    }
}

fn compact_when_nudged(open: &Open, nudges: &Receiver<()>) {
    while nudges.recv().is_ok() {
        open.compacting.store(true, Ordering::Release);
        while !open.closing.load(Ordering::Acquire) && !open.is_failed() {
            match open.compact() {
                Ok(true) => {}
                Ok(false) => break,
                // Counts as failed now, so this loop ends.
                Err(StoreError::Full) => {}
                Err(error) => tracing::error!("compaction of the store failed: {error}"),
            }
        }
        open.compacting.store(false, Ordering::Release);
    }
}

/// An open database. Dropping it gives up its lock.
struct Open {
    path: PathBuf,
    keyspace: Keyspace,
    database: Database,
    /// Something was left half written: no more writing before it is opened again.
    failed: AtomicBool,
    /// That is because the disk was full.
    full: AtomicBool,
    /// The compactor is at it.
    compacting: AtomicBool,
    /// The compactor is to end.
    closing: AtomicBool,
    /// How often the file of some damage was looked for.
    #[cfg(test)]
    searches: std::sync::atomic::AtomicUsize,
}

impl Open {
    fn create(path: &Path, options: StoreOptions) -> Result<Open, StoreError> {
        Open::with_database(path, options)
    }

    fn existing(path: &Path, options: StoreOptions) -> Result<Open, StoreError> {
        files::check_small(path)?;
        Open::with_database(path, options)
    }

    fn with_database(path: &Path, options: StoreOptions) -> Result<Open, StoreError> {
        let failed = |error| store_error(error, path);
        let database = Database::builder(path)
            .worker_threads_unchecked(0)
            .cache_size(options.cache_bytes)
            .max_cached_files(Some(options.open_files_max))
            .open()
            .map_err(failed)?;
        let keyspace = database
            .keyspace(KEYSPACE, frozen_options)
            .map_err(failed)?;
        Ok(Open {
            path: path.to_path_buf(),
            keyspace,
            database,
            failed: AtomicBool::new(false),
            full: AtomicBool::new(false),
            compacting: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            #[cfg(test)]
            searches: Default::default(),
        })
    }

    fn ingest(&self, fill: &mut Fill<'_>) -> Result<bool, StoreError> {
        let failed = |error| store_error(error, &self.path);
        let mut ingestion = self.keyspace.start_ingestion().map_err(failed)?;
        let mut write = |key: &[u8], value: Option<&[u8]>| match value {
            Some(value) => ingestion.write(key, value).map_err(failed),
            None => ingestion.write_tombstone(key).map_err(failed),
        };
        let mut rows = IngestedRows {
            write: &mut write,
            order: Ascending::default(),
        };
        match fill(&mut rows)? {
            Finish::With(meta) => write(&row::META_KEY, Some(&meta.encode()))?,
            Finish::Rows => {}
            Finish::Abandon => return Ok(false),
        }
        ingestion.finish().map_err(failed)?;
        Ok(true)
    }

    /// One step of compaction; false when none was due or another thread is at it.
    fn compact(&self) -> Result<bool, StoreError> {
        let strategy = self.keyspace.config.compaction_strategy.clone();
        // Shadowed rows go whatever their age: nobody reads by sequence number here, and a scan
        // keeps the tables it began with.
        let watermark = self.database.visible_seqno();
        let before = self.keyspace.tree.current_version().id();
        let compacted = self.keyspace.tree.compact(strategy, watermark);
        self.look_at(compacted)?;
        Ok(self.keyspace.tree.current_version().id() != before)
    }

    /// Compacts everything there is, after what is under way.
    fn compact_all(&self) -> Result<(), StoreError> {
        let watermark = self.database.visible_seqno();
        let compacted = self
            .keyspace
            .tree
            .major_compact(STORE_TABLE_BYTES, watermark);
        self.look_at(compacted)
    }

    fn look_at(&self, compacted: Result<(), LsmError>) -> Result<(), StoreError> {
        compacted.map_err(|error| {
            let error = store_error(Error::Storage(error), &self.path);
            // Before the file is looked for, which takes as long as the store is large.
            self.fail(Some(&error));
            self.with_file(error, &[], &row::META_KEY)
        })
    }

    fn fail(&self, why: Option<&StoreError>) {
        if why == Some(&StoreError::Full) {
            self.full.store(true, Ordering::Release);
        }
        self.failed.store(true, Ordering::Release);
    }

    fn is_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// An error met while reading `from..=to`, with the file it comes from if it can be found.
    fn read_error(&self, error: Error, from: &[u8], to: &[u8]) -> StoreError {
        self.with_file(store_error(error, &self.path), from, to)
    }

    /// Damage in `from..=to` with the file that it is in, if that can be found.
    fn with_file(&self, found: StoreError, from: &[u8], to: &[u8]) -> StoreError {
        let StoreError::Damaged { file, what } = found else {
            return found;
        };
        let faulty = self.faulty_table(from, to);
        StoreError::damaged(faulty.unwrap_or(file), what)
    }

    /// The first table with a fault in `from..=to`, found by reading that span again; none if the
    /// compactor is to end meanwhile, and this is a long span.
    fn faulty_table(&self, from: &[u8], to: &[u8]) -> Option<PathBuf> {
        #[cfg(test)]
        self.searches.fetch_add(1, Ordering::Relaxed);
        let version = self.keyspace.tree.current_version();
        let single = (from == to).then(|| xxh3_64(from));
        let goes_on = |_: &_| single.is_some() || !self.closing.load(Ordering::Acquire);
        version.iter_tables().take_while(goes_on).find_map(|table| {
            let faulty = match single {
                Some(hash) => table.get(from, ::fjall::SeqNo::MAX, hash).is_err(),
                None => table
                    .range(::fjall::UserKey::from(from)..=::fjall::UserKey::from(to))
                    .any(|row| row.is_err()),
            };
            faulty.then(|| table.path.as_ref().clone())
        })
    }
}

/// Options that fjall writes into the keyspace when it is created and keeps for good.
///
/// Measured with a million counters of 20-byte keys (numbered, so they compress well), a cache of
/// 8 MiB and a busy machine: lz4 20.5 bytes per row, no compression 36.6, with about equal times;
/// blocks of 8 KiB save 0.7 bytes. A read of a random key takes 35 µs with index and filter in
/// pieces and 619 µs with both whole, a read of a missing key 6 and 701 µs.
fn frozen_options() -> KeyspaceCreateOptions {
    let filter = BloomConstructionPolicy::BitsPerKey(STORE_FILTER_BITS_PER_ROW);
    KeyspaceCreateOptions::default()
        .data_block_size_policy(BlockSizePolicy::all(STORE_BLOCK_BYTES))
        .data_block_restart_interval_policy(RestartIntervalPolicy::all(16))
        .data_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4))
        .index_block_compression_policy(CompressionPolicy::disabled())
        .filter_policy(FilterPolicy::all(FilterPolicyEntry::Bloom(filter)))
        // In pieces, or each cold read of a 64 MiB table loads its whole index and filter.
        .filter_block_partitioning_policy(PartitioningPolicy::all(true))
        .index_block_partitioning_policy(PartitioningPolicy::all(true))
        .expect_point_read_hits(false)
}

/// Gives fjall one row: its key and its value, or none to remove it.
type WriteRow<'a> = dyn FnMut(&[u8], Option<&[u8]>) -> Result<(), StoreError> + 'a;

struct IngestedRows<'a> {
    write: &'a mut WriteRow<'a>,
    order: Ascending,
}

impl Ingestion for IngestedRows<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.order.check(key);
        (self.write)(key, Some(value))
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), StoreError> {
        self.order.check(key);
        (self.write)(key, None)
    }
}

struct Scan {
    // Before `open`: fields drop in order, and the rows must be gone before their database.
    rows: ::fjall::Iter,
    at: Vec<u8>,
    to: Vec<u8>,
    open: Arc<Open>,
}

impl Iterator for Scan {
    type Item = Result<(Bytes, Bytes), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = self.rows.next()?;
        Some(match row.into_inner() {
            Ok((key, value)) => {
                self.at.clear();
                self.at.extend_from_slice(&key);
                Ok((Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value)))
            }
            Err(error) => Err(self.open.read_error(error, &self.at, &self.to)),
        })
    }
}

fn store_error(error: Error, path: &Path) -> StoreError {
    let damaged = |what: String| StoreError::damaged(path, what);
    match error {
        Error::Io(error) | Error::Storage(LsmError::Io(error)) => StoreError::from_io(path, &error),
        Error::Storage(LsmError::ChecksumMismatch { .. }) => {
            damaged("the checksum of a block is wrong".into())
        }
        Error::Unrecoverable | Error::Storage(LsmError::Unrecoverable) => {
            damaged("a table is missing or its footer cannot be read".into())
        }
        Error::Storage(error) => damaged(format!("{error:?}")),
        Error::Locked => StoreError::io(path, "another process has the store open"),
        error => damaged(format!("{error:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compaction_that_fails_stops_the_writing_and_reads_the_store_for_damage_alone() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("store");
        let store = FjallStore::create(&path, StoreOptions::default(), &Meta::default()).unwrap();
        let open = store.current().unwrap();
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let error = open.look_at(Err(LsmError::Io(full))).unwrap_err();
        assert_eq!(error, StoreError::Full);
        assert!(store.is_full() && store.needs_reopen());
        let broken = std::io::Error::other("broken");
        let error = open.look_at(Err(LsmError::Io(broken))).unwrap_err();
        assert!(matches!(error, StoreError::Io { .. }), "{error}");
        assert_eq!(open.searches.load(Ordering::Relaxed), 0);
        let error = open.look_at(Err(LsmError::Unrecoverable)).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        assert_eq!(open.searches.load(Ordering::Relaxed), 1);
    }
}
