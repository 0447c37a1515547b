//! Reads everything that a data folder holds and says whether it is what was written and fits
//! together: for `tallyman check`, and for backups.
//!
//! Always true here: nothing in the folder is changed (the rows are read through a temporary store
//! of symbolic links); memory stays bounded by what the log's tail changed, by one slot, and by
//! [`CHECK_DEADLINES_MAX`]; the first fault ends the check, with its place.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::keyspace::codec::Undecodable;
use crate::keyspace::databases::Databases;
use crate::log;
use crate::log::disk::RealDisk;
use crate::store::files::{self, Tables};
use crate::store::{
    FjallStore, FolderError, Identity, Look, Meta, Store, StoreError, StoreOptions,
};

mod rows;
mod tail;

#[cfg(test)]
mod rot_tests;
#[cfg(test)]
mod sample;
#[cfg(test)]
mod tests;

use self::rows::Rows;
use self::tail::Tail;

/// What was found in a folder in which nothing is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tables of the store in force, and their bytes.
    pub tables: u64,
    /// See `tables`.
    pub table_bytes: u64,
    /// Rows of live databases and deadline rows.
    pub rows: u64,
    /// Main rows: keys in the store.
    pub stored_keys: u64,
    /// Fields of hashes in the store.
    pub fields: u64,
    /// Deadline rows.
    pub deadlines: u64,
    /// Rows that nobody can reach any more and that a later checkpoint removes.
    pub dead_rows: u64,
    /// Position of the store.
    pub store_lsn: u64,
    /// What the log holds behind it.
    pub log_records: u64,
    /// See `log_records`.
    pub log_batches: u64,
    /// See `log_records`.
    pub log_bytes: u64,
    /// Last position of the log.
    pub last_lsn: u64,
    /// Records that were written and never acknowledged: a start cuts them.
    pub unacknowledged_records: u64,
    /// Keys after replaying the log, expired ones that are still there included.
    pub keys: u64,
}

/// The first thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file, or the folder when it is not known more exactly.
    pub file: PathBuf,
    /// What is wrong, with the offset where it is known.
    pub what: String,
}

impl Fault {
    fn new(file: &Path, what: impl fmt::Display) -> Fault {
        Fault {
            file: file.to_path_buf(),
            what: what.to_string(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.what)
    }
}

impl std::error::Error for Fault {}

impl From<log::Fatal> for Fault {
    fn from(fatal: log::Fatal) -> Fault {
        let source = fatal.source.map(|source| format!(": {source}"));
        let what = format!("{}{}", fatal.message, source.unwrap_or_default());
        Fault::new(&fatal.path, what)
    }
}

/// Why a check did not find everything right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The folder cannot be looked at: in use, none of ours, newer, or damaged itself.
    Folder(FolderError),
    /// Something in it is wrong.
    Fault(Fault),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Folder(error) => error.fmt(f),
            Failure::Fault(fault) => fault.fmt(f),
        }
    }
}

impl std::error::Error for Failure {}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Failure {
        Failure::Fault(fault)
    }
}

impl From<FolderError> for Failure {
    fn from(error: FolderError) -> Failure {
        Failure::Folder(error)
    }
}

/// What is being done, for who watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Making the copy (of a backup).
    Copy,
    /// Comparing the checksums of tables; the unit is bytes.
    Tables,
    /// Reading the log; the unit is bytes.
    Log,
    /// Reading all rows; the unit is slots.
    Rows,
}

/// Told now and then: the step, how much of it is done, and how much it is in all.
pub type Progress<'a> = dyn FnMut(Step, u64, u64) + 'a;

/// Checks the data folder at `path`, which no server may be using.
pub fn check(path: &Path, progress: &mut Progress<'_>) -> Result<Counts, Failure> {
    let look = Look::at(path)?;
    look.refuse_if_used()?;
    let parts = Parts {
        store: &look.store_path(),
        log: &look.log_path(),
        identity: look.identity(),
        log_has_head: look.log_has_head(),
    };
    Ok(parts.check(progress)?)
}

/// The parts of a folder that stands still.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// The folder of the rows.
    pub store: &'a Path,
    /// The folder of the commit log.
    pub log: &'a Path,
    /// The folder's identity.
    pub identity: Identity,
    /// See [`Look::log_has_head`].
    pub log_has_head: bool,
}

impl Parts<'_> {
    /// Checks everything.
    pub fn check(&self, progress: &mut Progress<'_>) -> Result<Counts, Fault> {
        let mut counts = Counts::default();
        self.check_tables(&mut counts, progress)?;
        let opened = Opened::at(self.store)?;
        let meta = self.meta(&*opened.store)?;
        counts.store_lsn = meta.lsn;
        let tail = self.read_log(&meta, &mut counts, progress)?;
        Rows::new(self, &*opened.store, &meta, tail).check(&mut counts, progress)?;
        Ok(counts)
    }

    fn check_tables(&self, counts: &mut Counts, progress: &mut Progress<'_>) -> Result<(), Fault> {
        let wrong = |error| self.store_fault(error);
        files::check_journals(self.store).map_err(wrong)?;
        let tables = files::tables(self.store).map_err(wrong)?;
        let length = |table: &files::TableFile| table.path.metadata().map_or(0, |file| file.len());
        let total: u64 = tables.iter().map(length).sum();
        let mut done = 0;
        for table in &tables {
            let bytes = files::check_table(table, &mut |bytes| {
                done += bytes;
                progress(Step::Tables, done, total);
            });
            counts.table_bytes += bytes.map_err(wrong)?;
            counts.tables += 1;
        }
        Ok(())
    }

    fn meta(&self, store: &dyn Store) -> Result<Meta, Fault> {
        match store.meta() {
            Ok(Some(meta)) => Ok(meta),
            Ok(None) => Err(Fault::new(self.store, "the meta row is missing")),
            Err(error) => Err(self.store_fault(error)),
        }
    }

    fn read_log(
        &self,
        meta: &Meta,
        counts: &mut Counts,
        progress: &mut Progress<'_>,
    ) -> Result<Tail, Fault> {
        let total = folder_bytes(self.log);
        let mut tail = Tail::new(meta);
        let (disk, mut done) = (RealDisk::new(false), 0);
        let id = self.identity.folder_id;
        let known = meta.known(self.log_has_head);
        let report = log::visit(&disk, self.log, id, known, &mut |batch| {
            done += batch.payload.len() as u64;
            if batch.lsn.is_multiple_of(1024) {
                progress(Step::Log, done, total);
            }
            let added = tail.add(batch.payload);
            added.map_err(|Undecodable(what)| format!("cannot be decoded: {what}"))
        });
        if let Some(fatal) = report.fault {
            return Err(fatal.into());
        }
        counts.log_records = report.records;
        counts.log_batches = report.batches;
        counts.log_bytes = report.bytes;
        counts.last_lsn = report.last.lsn;
        counts.unacknowledged_records = report.unacknowledged_records;
        Ok(tail)
    }

    fn store_fault(&self, error: StoreError) -> Fault {
        match error {
            StoreError::Damaged { file, what } | StoreError::Io { file, what } => {
                Fault { file, what }
            }
            StoreError::Full => Fault::new(self.store, error),
        }
    }
}

fn folder_bytes(folder: &Path) -> u64 {
    // Only to show how far we are: what cannot be read is found by who reads it.
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.metadata().ok())
        .map(|file| file.len())
        .sum()
}

/// A store that is looked at through a temporary one, so that it stays as it is.
pub struct Opened {
    /// The rows.
    pub store: Box<FjallStore>,
    // Behind the store: removed when that is closed.
    _folder: tempfile::TempDir,
}

impl Opened {
    /// Opens the store in this folder, which must not be written meanwhile.
    pub fn at(store: &Path) -> Result<Opened, Fault> {
        let failed = |error: StoreError| match error {
            StoreError::Damaged { file, what } | StoreError::Io { file, what } => {
                Fault { file, what }
            }
            StoreError::Full => Fault::new(store, error),
        };
        let folder = tempfile::Builder::new()
            .prefix("tallyman-look-")
            .tempdir()
            .map_err(|error| Fault::new(&std::env::temp_dir(), error))?;
        let place = folder.path().join("store");
        files::replicate(store, &place, Tables::Pointed).map_err(failed)?;
        let opened = FjallStore::look(&place, StoreOptions::default()).map_err(failed)?;
        Ok(Opened {
            store: Box::new(opened),
            _folder: folder,
        })
    }
}

/// The map of databases that a meta row holds.
fn databases_of(meta: &Meta) -> Databases {
    let ids = meta.databases.clone();
    let numbers = ids.len();
    Databases::restored(ids, meta.next_database_id, numbers)
}
