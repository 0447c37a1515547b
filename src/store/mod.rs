//! The store: every row that a checkpoint wrote, sorted by row key, on disk.
//!
//! Always true here:
//! - Rows change by sorted ingestion alone, and only the checkpoint ingests. An ingestion is seen
//!   and survives whole or not at all; the meta row, the log position it belongs to, is part of it.
//! - A store that exists has a meta row: creating one ingests the first.
//! - What the disk holds is never trusted: damage is a [`StoreError::Damaged`], not a panic and not
//!   a missing row.
//!
//! [`FjallStore`] keeps rows on disk, [`MapStore`] in memory for tests and the simulator.

pub mod ballast;
pub mod checkpoint;
pub mod deadlines;
pub mod files;
pub mod folder;
pub mod meta;
pub mod row;

mod fjall;
mod map;

use std::fmt;
use std::path::PathBuf;

use bytes::Bytes;

pub use self::ballast::Ballast;
pub use self::checkpoint::{CheckpointError, Deep, Depth, Outcome, RowChange, Slice, Stale, Sweep};
pub use self::deadlines::DeadlineRows;
pub use self::fjall::{FjallStore, StoreOptions};
pub use self::folder::{Draft, Folder, FolderError, Identity, Look};
pub use self::map::{Fault, MapStore};
pub use self::meta::{Meta, MetaError, ROWS_FORMAT};
pub use self::row::{DeadlineOf, KeyOf, RowError, RowKey, RowKind};

/// Rows of a scan: key and value, ascending by key, read as they are asked for. It sees the store
/// as it was when the scan began.
pub type Rows = Box<dyn Iterator<Item = Result<(Bytes, Bytes), StoreError>> + Send>;

/// What a filler of an ingestion decides when it has given its last row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finish {
    /// Publish the rows together with this meta row.
    With(Meta),
    /// Publish the rows and leave the meta row as it is.
    Rows,
    /// Drop everything.
    Abandon,
}

/// The rows of one ingestion. Keys must be given strictly ascending, and all sort before the meta
/// row; both are asserted.
pub trait Ingestion {
    /// Sets a row. Errors of the disk end the ingestion: the filler must return them.
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError>;

    /// Removes a row, whether or not it exists.
    fn delete(&mut self, key: &[u8]) -> Result<(), StoreError>;
}

/// Gives an ingestion its rows; see [`Store::ingest`].
pub type Fill<'a> = dyn FnMut(&mut dyn Ingestion) -> Result<Finish, StoreError> + 'a;

/// Sorted rows on disk. All calls may come from many threads at once, cold reads in parallel.
pub trait Store: Send + Sync {
    /// The value of a row; `None` when there is none.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// The rows from `from` to `to` (exclusive). Keep a scan short: while one is open the space of
    /// compacted tables is not given back, and [`Store::reopen`] waits for it.
    fn scan(&self, from: &[u8], to: &[u8]) -> Rows;

    /// Whether the first row from `from` on, before `to`, is damaged. A scan says it too, and
    /// looks for the file.
    fn is_damaged(&self, from: &[u8], to: &[u8]) -> bool {
        let first = self.scan(from, to).next();
        matches!(first, Some(Err(StoreError::Damaged { .. })))
    }

    /// Writes rows by sorted ingestion: `fill` gives them in order and decides with [`Finish`].
    ///
    /// Returns true once everything given is durable and visible, false when `fill` abandoned.
    /// After an error or an abandoned ingestion nothing of it is visible; the exception is an error
    /// of the very last step, after which it is either all there or not, and reopening tells.
    /// Either way [`Store::needs_reopen`] is then true.
    fn ingest(&self, fill: &mut Fill<'_>) -> Result<bool, StoreError>;

    /// Sorted runs in the first level: what each read has to look through.
    fn depth(&self) -> usize;

    /// Bytes on disk in tables, with what compaction has not yet removed.
    fn disk_bytes(&self) -> u64;

    /// Does one step of compaction on the calling thread, if one is due; it may take seconds. False
    /// when nothing was done, because nothing is due or because another thread is at it. The store
    /// compacts by itself after each ingestion; this is for a caller that waits for it.
    fn relieve(&self) -> Result<bool, StoreError>;

    /// Writes the whole store anew, without what was removed: it takes as much space as what is
    /// left, and then gives back what was there before.
    fn shrink(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// True when the store must be reopened before the next ingestion.
    fn needs_reopen(&self) -> bool;

    /// What it has to be reopened for is that the disk was full.
    fn is_full(&self) -> bool {
        false
    }

    /// The store compacts itself just now, and so takes space and will give some back.
    fn is_compacting(&self) -> bool {
        false
    }

    /// Whether compaction may begin a step of its own accord; a step that has begun goes on.
    fn let_compact(&self, _may: bool) {}

    /// Closes and opens the store again, which removes what unfinished ingestions and compactions
    /// left; compaction goes on after the next ingestion. It waits for the step that compaction is
    /// at and for scans, and reads wait for it. When it fails every call fails with its error until
    /// a later `reopen` succeeds.
    fn reopen(&self) -> Result<(), StoreError>;

    /// The meta row: which position of the log the rows stand for. `None` only in a store that
    /// never had one, which [`FjallStore`] refuses to open.
    fn meta(&self) -> Result<Option<Meta>, StoreError> {
        let Some(value) = self.get(&row::META_KEY)? else {
            return Ok(None);
        };
        Meta::decode(&value).map(Some).map_err(|error| match error {
            MetaError::Damaged => StoreError::damaged("the meta row", error.to_string()),
            newer => StoreError::io("the meta row", newer.to_string()),
        })
    }
}

/// Why the store could not do something. Cheap to clone: one error may answer many keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// Bytes on disk are not what was written.
    Damaged {
        /// The damaged file, or the store's folder when it is not known more exactly.
        file: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The disk (or its quota) is full.
    Full,
    /// Any other failure of the disk or of the store's threads.
    Io {
        /// The file or folder.
        file: PathBuf,
        /// The cause, in the system's words.
        what: String,
    },
}

impl StoreError {
    pub(crate) fn damaged(file: impl Into<PathBuf>, what: impl Into<String>) -> Self {
        StoreError::Damaged {
            file: file.into(),
            what: what.into(),
        }
    }

    pub(crate) fn io(file: impl Into<PathBuf>, what: impl Into<String>) -> Self {
        StoreError::Io {
            file: file.into(),
            what: what.into(),
        }
    }

    /// Sorts an error of the operating system: a full disk, or a failure with its place.
    pub(crate) fn from_io(file: impl Into<PathBuf>, error: &std::io::Error) -> Self {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull, UnexpectedEof};
        match error.kind() {
            StorageFull | QuotaExceeded => StoreError::Full,
            UnexpectedEof => StoreError::damaged(file, format!("cut short ({error})")),
            _ => StoreError::io(file, error.to_string()),
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Damaged { file, what } => {
                write!(f, "{} is damaged: {what}", file.display())
            }
            StoreError::Full => write!(f, "no space left for the store"),
            StoreError::Io { file, what } => write!(f, "{}: {what}", file.display()),
        }
    }
}

impl std::error::Error for StoreError {}

/// Asserts the order of an ingestion's rows, the same way for every store.
#[derive(Debug, Default)]
struct Ascending {
    last: Vec<u8>,
}

impl Ascending {
    fn check(&mut self, key: &[u8]) {
        assert!(
            !key.is_empty() && key < row::META_KEY.as_slice(),
            "row outside the key space"
        );
        assert!(
            self.last.as_slice() < key,
            "rows of an ingestion must ascend: {} after {}",
            key.escape_ascii(),
            self.last.escape_ascii()
        );
        assert!(
            key.len() <= crate::limits::ROW_KEY_BYTES_MAX,
            "row key too long"
        );
        self.last.clear();
        self.last.extend_from_slice(key);
    }
}

#[cfg(test)]
mod tests;
