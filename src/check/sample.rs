//! A small data folder with a bit of everything, made by hand, for the tests of the check.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use bytes::Bytes;

use crate::keyspace::codec::{BatchBuilder, put_field, put_value};
use crate::keyspace::key::field_hash32;
use crate::keyspace::{Cell, FieldValue, Hash, Key, ValueRef};
use crate::limits::LOG_WITNESS_AFTER_US;
use crate::log::disk::RealDisk;
use crate::log::{self, Batch, Log, Manual, Position};
use crate::store::row::{DeadlineOf, KeyOf, RowKey};
use crate::store::{Finish, FjallStore, Folder, Identity, Meta, Store, StoreOptions};

pub const IDENTITY: Identity = Identity {
    folder_id: 0x0123_4567_89ab_cdef,
    hash_seed: 9,
};
/// When the store's checkpoint was made.
const NOW_MS: u64 = 1_000_000;
/// Deadline of some keys and fields.
const LATER_MS: u64 = 2_000_000;

/// The folder goes with this.
pub struct Sample {
    folder: tempfile::TempDir,
}

type RowList = Vec<(Vec<u8>, Option<Vec<u8>>)>;

impl Sample {
    /// With the witness of the last record, or as a kill left it.
    pub fn new(witness: bool) -> Sample {
        Sample::swept(witness, false)
    }

    /// As a kill left it; the store was still being written when the last batch was queued, and
    /// has its effect.
    pub fn swept_late() -> Sample {
        Sample::swept(false, true)
    }

    fn swept(witness: bool, late: bool) -> Sample {
        let folder = memory();
        let path = folder.path().join("data");
        let meta = |position: Position, rows_lsn| Meta {
            format: 1,
            lsn: position.lsn,
            rows_lsn,
            chain: position.chain,
            time_ms: NOW_MS,
            token_ceiling: 100,
            databases: vec![0, 2],
            next_database_id: 3,
            dead_databases: true,
        };
        let mut fill = |place: &Path, _: &Identity| {
            let options = StoreOptions::default();
            let first = meta(Position::default(), 0);
            drop(FjallStore::create(&place.join("store"), options, &first).unwrap());
            fs::create_dir(place.join("log")).map_err(|error| error.to_string())
        };
        let opened = Folder::open(&path, IDENTITY, 1, &mut fill).unwrap();
        let clock = Arc::new(AtomicU64::new(1));
        let (log, mut manual) = log_at(&opened.log_path(), &clock);
        for number in 0..3_u8 {
            commit(&log, &mut manual, |batch| batch.delete(0, &[number]));
        }
        let store = FjallStore::look(&opened.store_path(), StoreOptions::default()).unwrap();
        ingest(&store, first_rows(), None);
        let position = log.position();
        if late {
            tail(&log, &mut manual);
            let newer = [last_rows(), second_rows()].concat();
            ingest(&store, newer, Some(meta(position, log.last_lsn())));
        } else {
            ingest(&store, second_rows(), Some(meta(position, position.lsn)));
            tail(&log, &mut manual);
        }
        if witness {
            clock.fetch_add(2 * LOG_WITNESS_AFTER_US, SeqCst);
            manual.run().unwrap();
        }
        drop((store, opened, log, manual));
        let sample = Sample { folder };
        // The journal is 64 MiB of zeros; a little of it will do.
        for entry in fs::read_dir(sample.path().join("store")).unwrap() {
            let file = entry.unwrap().path();
            if file.extension().is_some_and(|extension| extension == "jnl") {
                fs::File::options()
                    .write(true)
                    .open(file)
                    .unwrap()
                    .set_len(512)
                    .unwrap();
            }
        }
        sample
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A copy in a folder of its own.
    pub fn copy(&self) -> Sample {
        let folder = memory();
        copy_tree(&self.path(), &folder.path().join("data"));
        Sample { folder }
    }

    /// Writes rows over the sample's with a position of their own, as a checkpoint would.
    pub fn change(&self, rows: RowList) {
        let path = self.path().join("store");
        let store = FjallStore::look(&path, StoreOptions::default()).unwrap();
        ingest(&store, rows, None);
    }

    /// Every file: its name below the folder, and its bytes.
    pub fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = Vec::new();
        collect(&self.path(), Path::new(""), &mut files);
        files.sort();
        files
    }
}

/// A temporary folder in memory where there is one: many small syncs.
fn memory() -> tempfile::TempDir {
    let place = Path::new("/dev/shm");
    match tempfile::tempdir_in(place) {
        Ok(folder) => folder,
        Err(_) => tempfile::tempdir().unwrap(),
    }
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn collect(root: &Path, below: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in fs::read_dir(root.join(below)).unwrap() {
        let entry = entry.unwrap();
        let name = below.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            collect(root, &name, files);
        } else {
            files.push((name, fs::read(entry.path()).unwrap()));
        }
    }
}

fn log_at(path: &Path, clock: &Arc<AtomicU64>) -> (Log, Manual) {
    let now = clock.clone();
    let mut options = log::Options::new(IDENTITY.folder_id, Arc::new(move || now.load(SeqCst)));
    options.segment_bytes = 32 * 1024;
    options.set_aside_bytes = 4096;
    options.spare_segments_max = 0;
    Log::manual(Arc::new(RealDisk::new(false)), path, options).unwrap()
}

fn commit(log: &Log, manual: &mut Manual, fill: impl FnOnce(&mut BatchBuilder)) {
    let mut batch = BatchBuilder::default();
    fill(&mut batch);
    log.append(Batch {
        parts: batch.finish(),
        time_ms: NOW_MS,
        reserved_bytes: 0,
    });
    manual.run().unwrap();
}

fn ingest(store: &FjallStore, mut rows: RowList, meta: Option<Meta>) {
    rows.sort();
    let finished = store.ingest(&mut |ingestion| {
        for (key, value) in &rows {
            match value {
                Some(value) => ingestion.put(key, value)?,
                None => ingestion.delete(key)?,
            }
        }
        Ok(meta.clone().map_or(Finish::Rows, Finish::With))
    });
    assert!(finished.unwrap());
}

/// Where a key's rows lie.
pub fn of(database: u32, key: &[u8]) -> KeyOf<'_> {
    let found = Key::new(key, IDENTITY.hash_seed);
    KeyOf {
        slot: found.slot,
        database,
        hash: found.hash32(),
        key,
    }
}

pub fn main_row(of: KeyOf<'_>, value: ValueRef<'_>, due_ms: u64) -> (Vec<u8>, Option<Vec<u8>>) {
    let mut bytes = Vec::new();
    put_value(&mut bytes, value, due_ms);
    (RowKey::Main(of).encode(), Some(bytes))
}

pub fn count_row(slot: u16, database: u32, keys: u64) -> (Vec<u8>, Option<Vec<u8>>) {
    let value = (keys > 0).then(|| keys.to_le_bytes().to_vec());
    (RowKey::Count { slot, database }.encode(), value)
}

pub fn deadline_row(of: KeyOf<'_>, what: DeadlineOf<'_>) -> (Vec<u8>, Option<Vec<u8>>) {
    let row = RowKey::Deadline {
        at_ms: LATER_MS,
        slot: of.slot,
        database: of.database,
        key: of.key,
        of: what,
    };
    (row.encode(), Some(Vec::new()))
}

/// A state cell with this token.
pub fn cell(token: u64) -> Cell {
    Cell {
        token,
        owner: Some(Bytes::from_static(b"request-1")),
        fingerprint: None,
        done: false,
        state: Bytes::from_static(b"busy"),
    }
}

/// Thirty counters that share a hash tag, and older values of what comes later.
fn first_rows() -> RowList {
    let mut rows = RowList::new();
    for number in 0..30_i64 {
        let key = format!("{{tag}}counter:{number:03}");
        rows.push(main_row(
            of(0, key.as_bytes()),
            ValueRef::Counter(number),
            0,
        ));
    }
    rows.push(count_row(of(0, b"{tag}").slot, 0, 30));
    rows.push(main_row(of(0, b"string"), ValueRef::String(b"old"), 0));
    rows.push(main_row(of(1, b"dead"), ValueRef::String(b"flushed"), 0));
    rows
}

fn second_rows() -> RowList {
    let seed = IDENTITY.hash_seed;
    let (string, hash, state) = (of(0, b"string"), of(2, b"hash"), of(0, b"state"));
    let mut fields = Hash::new(5);
    let mut rows = RowList::new();
    for (name, due_ms) in [("one", 0), ("two", LATER_MS)] {
        let value = FieldValue::from_bytes(name.as_bytes());
        let field_hash = field_hash32(name.as_bytes(), seed);
        fields.insert(field_hash, name.as_bytes(), value.clone(), due_ms);
        let row = RowKey::Field {
            of: hash,
            generation: 5,
            hash: field_hash,
            field: name.as_bytes(),
        };
        let mut bytes = Vec::new();
        put_field(&mut bytes, &value, due_ms);
        rows.push((row.encode(), Some(bytes)));
    }
    let field = DeadlineOf::Field {
        generation: 5,
        field: b"two",
    };
    rows.push(deadline_row(hash, field));
    rows.push(main_row(hash, ValueRef::Hash(&fields), 0));
    rows.push(main_row(
        string,
        ValueRef::String(b"a string of some length"),
        LATER_MS,
    ));
    rows.push(deadline_row(string, DeadlineOf::Key));
    rows.push(main_row(state, ValueRef::Cell(&cell(99)), 0));
    for of in [string, hash, state] {
        rows.push(count_row(of.slot, of.database, 1));
    }
    rows
}

/// The effect of the tail's last batch.
fn last_rows() -> RowList {
    let last = of(0, b"last");
    vec![
        main_row(last, ValueRef::Counter(1), 0),
        count_row(last.slot, 0, 1),
    ]
}

/// What the log has behind the store: a new key, a changed one, a removed one, one more cell.
fn tail(log: &Log, manual: &mut Manual) {
    let slot = |key: &[u8]| of(0, key).slot;
    commit(log, manual, |batch| {
        batch.put(0, b"new", ValueRef::Counter(7), 0, None);
        batch.count(slot(b"new"), 0, 1);
    });
    commit(log, manual, |batch| {
        batch.put(0, b"{tag}counter:003", ValueRef::Counter(4), 0, None);
        batch.delete(0, b"{tag}counter:004");
        batch.count(slot(b"{tag}"), 0, 29);
    });
    commit(log, manual, |batch| batch.token_ceiling(200));
    commit(log, manual, |batch| {
        batch.put(0, b"state", ValueRef::Cell(&cell(150)), 0, None);
    });
    commit(log, manual, |batch| {
        batch.put(0, b"last", ValueRef::Counter(1), 0, None);
        batch.count(slot(b"last"), 0, 1);
    });
}
