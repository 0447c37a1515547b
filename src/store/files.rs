//! The store's files as we read them ourselves: which tables there are, whether each byte of them
//! is what was written, and how to look at a store, or to copy it, without touching it.
//!
//! Always true here: nothing is written into the folder that is looked at. Tables never change
//! once a version names them, so they may be linked; everything else is small and is copied.
//!
//! ```text
//! version              marks the folder; 4 bytes that are always the same
//! lock                 held while open; empty
//! N.jnl                the journal that we never write: zeros
//! keyspaces/0, 1       the database's own settings; the rows. In each:
//!   current            number and checksum of the version file in force
//!   vN                 the tables in force, each with its checksum
//!   tables/N           sorted rows, in blocks with checksums
//! ```

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::Buf;
use xxhash_rust::xxh3::{Xxh3Default, xxh3_64, xxh3_128};

use super::StoreError;
use crate::limits::STORE_PIECE_BYTES;

const MARKER: &str = "version";
const MARKER_BYTES: &[u8] = b"FJL\x03";
const CURRENT: &str = "current";
const TABLES: &str = "tables";
const KEYSPACES: &str = "keyspaces";
/// The database's own settings, and the rows.
const KEYSPACE_NAMES: [&str; 2] = ["0", "1"];
const BLOCK_MAGIC: &[u8] = b"LSM\x03";
const BLOCK_HEADER_BYTES: usize = 33;

/// A table that is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableFile {
    /// The file.
    pub path: PathBuf,
    /// XXH3-128 over all of it.
    pub sum: u128,
    /// It holds the database's own settings, not rows.
    pub is_settings: bool,
}

/// What a version says.
struct Version {
    /// The files that say it, and what is in them.
    files: [(PathBuf, Vec<u8>); 2],
    tables: Vec<TableFile>,
}

/// Checks what is small enough to be checked at each start: the files by which the rows are found,
/// and the database's own settings.
pub(super) fn check_small(store: &Path) -> Result<(), StoreError> {
    check_marker(store)?;
    for table in tables(store)? {
        if table.is_settings {
            check_table(&table, &mut |_| {})?;
        }
    }
    Ok(())
}

/// The tables in force, as the checked version files name them.
pub fn tables(store: &Path) -> Result<Vec<TableFile>, StoreError> {
    let mut tables = Vec::new();
    for version in versions(store)? {
        tables.extend(version.tables);
    }
    Ok(tables)
}

/// Reads all of a table, compares its checksum, and answers its length; `progress` is told the
/// bytes of each piece. The error names the first damaged block.
pub fn check_table(
    table: &TableFile,
    progress: &mut dyn FnMut(u64),
) -> Result<u64, StoreError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => StoreError::damaged(&table.path, "the table is missing"),
        _ => StoreError::from_io(&table.path, &error),
    };
    let mut file = File::open(&table.path).map_err(failed)?;
    let mut piece = vec![0; STORE_PIECE_BYTES];
    let (mut hasher, mut bytes) = (Xxh3Default::new(), 0);
    loop {
        let read = file.read(&mut piece).map_err(failed)?;
        if read == 0 {
            break;
        }
        hasher.update(&piece[..read]);
        bytes += read as u64;
        progress(read as u64);
    }
    if hasher.digest128() == table.sum {
        return Ok(bytes);
    }
    let what = match first_bad_block(&table.path).map_err(failed)? {
        Some(offset) => format!("the checksum of the block at offset {offset} is wrong"),
        None => "its checksum is wrong, and that of each block is right".into(),
    };
    Err(StoreError::damaged(&table.path, what))
}

/// The journal holds zeros: rows never go through it. Anything else is damage, though harmless.
pub fn check_journals(store: &Path) -> Result<(), StoreError> {
    for path in journals(store)? {
        let failed = |error: io::Error| StoreError::from_io(&path, &error);
        let mut file = File::open(&path).map_err(failed)?;
        let (mut piece, mut offset) = (vec![0; STORE_PIECE_BYTES], 0);
        loop {
            let read = file.read(&mut piece).map_err(failed)?;
            if read == 0 {
                break;
            }
            if let Some(at) = piece[..read].iter().position(|&byte| byte != 0) {
                let what = format!("at offset {} there is a byte that nobody wrote", offset + at);
                return Err(StoreError::damaged(&path, what));
            }
            offset += read;
        }
    }
    Ok(())
}

/// How the tables of a copy come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tables {
    /// Symbolic links: to look at a store that stands still.
    Pointed,
    /// Hard links, or copies where the file system has no links from one folder to the other.
    Kept,
}

/// Makes the new folder `to` a store with the rows that the one at `from` has at this moment. That
/// one may be written meanwhile; when a table goes away before it is linked, this begins again.
pub fn replicate(from: &Path, to: &Path, how: Tables) -> Result<(), StoreError> {
    let mut tries = 0;
    loop {
        match replicate_once(from, to, how) {
            Err(StoreError::Damaged { .. }) if tries < REPLICATE_TRIES_MAX => tries += 1,
            result => return result,
        }
        match fs::remove_dir_all(to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(StoreError::from_io(to, &error));
            }
            _ => {}
        }
    }
}

/// A compaction step takes longer than one try, so a second one nearly always does.
const REPLICATE_TRIES_MAX: usize = 100;

fn replicate_once(from: &Path, to: &Path, how: Tables) -> Result<(), StoreError> {
    let failed = |error: io::Error| StoreError::from_io(to, &error);
    check_marker(from)?;
    let versions = versions(from)?;
    // Open files stay readable when compaction removes them.
    let mut open = Vec::new();
    for table in versions.iter().flat_map(|version| &version.tables) {
        let file = File::open(&table.path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => StoreError::damaged(&table.path, "the table is missing"),
            _ => StoreError::from_io(&table.path, &error),
        })?;
        open.push((table, file));
    }
    fs::create_dir_all(to).map_err(failed)?;
    for name in KEYSPACE_NAMES {
        fs::create_dir_all(to.join(KEYSPACES).join(name).join(TABLES)).map_err(failed)?;
    }
    for (table, file) in &mut open {
        let copy = to.join(below(from, &table.path)?);
        match how {
            Tables::Pointed => {
                let whole = std::path::absolute(&table.path).map_err(failed)?;
                std::os::unix::fs::symlink(whole, copy).map_err(failed)?;
            }
            Tables::Kept if fs::hard_link(&table.path, &copy).is_ok() => {}
            Tables::Kept => {
                let mut copy = File::create(&copy).map_err(failed)?;
                io::copy(file, &mut copy).map_err(failed)?;
            }
        }
    }
    for (path, bytes) in versions.iter().flat_map(|version| &version.files) {
        fs::write(to.join(below(from, path)?), bytes).map_err(failed)?;
    }
    fs::write(to.join("lock"), b"").map_err(failed)?;
    fs::write(to.join(MARKER), MARKER_BYTES).map_err(failed)
}

fn below<'a>(folder: &Path, path: &'a Path) -> Result<&'a Path, StoreError> {
    path.strip_prefix(folder)
        .map_err(|_| StoreError::io(path, "it is not where it should be"))
}

fn check_marker(store: &Path) -> Result<(), StoreError> {
    let marker = store.join(MARKER);
    require(&marker)?;
    if read(&marker)? == MARKER_BYTES {
        return Ok(());
    }
    Err(StoreError::damaged(marker, "it is not what was written"))
}

/// Reads and checks the files by which everything else is found. (The checksum of the version file
/// is written by the database, but not compared when it opens.)
fn versions(store: &Path) -> Result<Vec<Version>, StoreError> {
    let mut versions = Vec::new();
    for name in KEYSPACE_NAMES {
        let folder = store.join(KEYSPACES).join(name);
        let pointer = folder.join(CURRENT);
        require(&pointer)?;
        let bytes = read(&pointer)?;
        let Some((id, sum)) = split_pointer(&bytes) else {
            let what = format!("{} bytes long", bytes.len());
            return Err(StoreError::damaged(pointer, what));
        };
        let file = folder.join(format!("v{id}"));
        require(&file)?;
        let version = read(&file)?;
        if xxh3_128(&version) != sum {
            return Err(StoreError::damaged(file, "its checksum is wrong"));
        }
        let mut tables = Vec::new();
        for (id, sum) in named_tables(&file)? {
            tables.push(TableFile {
                path: folder.join(TABLES).join(id.to_string()),
                sum,
                is_settings: name == KEYSPACE_NAMES[0],
            });
        }
        versions.push(Version {
            files: [(file, version), (pointer, bytes)],
            tables,
        });
    }
    Ok(versions)
}

/// `current` holds the version's number (8 bytes), its checksum (16) and the checksum's kind (1).
fn split_pointer(bytes: &[u8]) -> Option<(u64, u128)> {
    let (id, rest) = bytes.split_first_chunk::<8>()?;
    let (sum, kind) = rest.split_first_chunk::<16>()?;
    (kind == [0]).then(|| (u64::from_le_bytes(*id), u128::from_le_bytes(*sum)))
}

/// The tables that a version file names: number and checksum.
fn named_tables(version: &Path) -> Result<Vec<(u64, u128)>, StoreError> {
    let damaged = |what: &str| StoreError::damaged(version, what);
    let reader = sfa::Reader::new(version)
        .map_err(|error| damaged(&format!("its sections cannot be read: {error:?}")))?;
    let section = reader
        .toc()
        .section(b"tables")
        .ok_or_else(|| damaged("it names no tables"))?;
    let mut bytes = Vec::new();
    section
        .buf_reader(version)
        .and_then(|mut section| section.read_to_end(&mut bytes))
        .map_err(|error| StoreError::from_io(version, &error))?;
    list_of_tables(&bytes).ok_or_else(|| damaged("its list of tables is cut short"))
}

/// Levels (1 byte), in each runs (1), in each tables (4): number (8), kind of the checksum (1), the
/// checksum (16), a sequence number (8).
fn list_of_tables(mut bytes: &[u8]) -> Option<Vec<(u64, u128)>> {
    let mut tables = Vec::new();
    for _ in 0..bytes.try_get_u8().ok()? {
        for _ in 0..bytes.try_get_u8().ok()? {
            for _ in 0..bytes.try_get_u32_le().ok()? {
                let id = bytes.try_get_u64_le().ok()?;
                let kind = bytes.try_get_u8().ok()?;
                let sum = bytes.try_get_u128_le().ok()?;
                bytes.try_get_u64_le().ok()?;
                (kind == 0).then_some(())?;
                tables.push((id, sum));
            }
        }
    }
    Some(tables)
}

/// Where the first block lies whose checksum is wrong. A block: magic (4 bytes), kind (1), checksum
/// of the data (16), its length (4), its unpacked length (4), checksum of all that (4), data. What
/// follows the last block has a checksum of its own, which opening the table compares.
fn first_bad_block(table: &Path) -> io::Result<Option<u64>> {
    let bytes = fs::read(table)?;
    let mut offset = 0;
    while let Some(header) = bytes.get(offset..offset + BLOCK_HEADER_BYTES) {
        let (head, sum) = header.split_at(BLOCK_HEADER_BYTES - 4);
        let right = head.starts_with(BLOCK_MAGIC) && xxh3_128(head) as u32 == { sum }.get_u32_le();
        if !right && is_end(&bytes[offset..]) {
            break;
        }
        let (mut data_sum, mut length) = (&head[5..21], &head[21..25]);
        let (data_sum, length) = (data_sum.get_u128_le(), length.get_u32_le() as usize);
        let begin = offset + BLOCK_HEADER_BYTES;
        let data = bytes.get(begin..begin.saturating_add(length));
        if !right || data.is_none_or(|data| xxh3_128(data) != data_sum) {
            return Ok(Some(offset as u64));
        }
        offset = begin + length;
    }
    Ok(None)
}

/// The table's list of sections begins here, behind the last block.
fn is_end(bytes: &[u8]) -> bool {
    !bytes.windows(BLOCK_MAGIC.len()).any(|part| part == BLOCK_MAGIC)
}

fn journals(store: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let failed = |error: io::Error| StoreError::from_io(store, &error);
    let mut journals = Vec::new();
    for entry in fs::read_dir(store).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "jnl") {
            journals.push(path);
        }
    }
    journals.sort();
    Ok(journals)
}

fn require(file: &Path) -> Result<(), StoreError> {
    match file.try_exists() {
        Ok(true) => Ok(()),
        Ok(false) => Err(StoreError::damaged(file, "the file is missing")),
        Err(error) => Err(StoreError::from_io(file, &error)),
    }
}

fn read(file: &Path) -> Result<Vec<u8>, StoreError> {
    match fs::read(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(StoreError::damaged(file, "the file is missing"))
        }
        result => result.map_err(|error| StoreError::from_io(file, &error)),
    }
}
