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
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Buf;
use xxhash_rust::xxh3::{Xxh3Default, xxh3_128};

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
/// Sections of a table that hold something else than blocks.
const NOT_BLOCKS: &[&[u8]] = &[b"table_version", b"linked_blob_files"];
/// How the end of a file with sections begins: magic, version 1, checksums by XXH3.
const TRAILER_HEAD: &[u8] = b"SFA!\x01\x00";
const TRAILER_BYTES: usize = TRAILER_HEAD.len() + 16 + 8 + 8;
/// Longer than any list of sections.
const LIST_BYTES_MAX: usize = 64 * 1024;

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
        check_list(&table.path)?;
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
pub fn check_table(table: &TableFile, progress: &mut dyn FnMut(u64)) -> Result<u64, StoreError> {
    let failed = |error: io::Error| missing_or(&table.path, &error);
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
    let offset = first_fault(&fs::read(&table.path).map_err(failed)?);
    let what = format!("what is at offset {offset} is not what was written");
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
                let what = format!(
                    "at offset {} there is a byte that nobody wrote",
                    offset + at
                );
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
        let file = File::open(&table.path);
        let file = file.map_err(|error| missing_or(&table.path, &error))?;
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
    // An empty journal, or the database makes one of 64 MiB.
    for empty in ["lock", "0.jnl"] {
        fs::write(to.join(empty), b"").map_err(failed)?;
    }
    fs::write(to.join(MARKER), MARKER_BYTES).map_err(failed)
}

fn below<'a>(folder: &Path, path: &'a Path) -> Result<&'a Path, StoreError> {
    path.strip_prefix(folder)
        .map_err(|_| StoreError::io(path, "it is not where it should be"))
}

fn check_marker(store: &Path) -> Result<(), StoreError> {
    let marker = store.join(MARKER);
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
        let bytes = read(&pointer)?;
        let Some((id, sum)) = split_pointer(&bytes) else {
            let what = format!("{} bytes long", bytes.len());
            return Err(StoreError::damaged(pointer, what));
        };
        let file = folder.join(format!("v{id}"));
        let version = read(&file)?;
        if xxh3_128(&version) != sum {
            return Err(StoreError::damaged(file, "its checksum is wrong"));
        }
        let mut tables = Vec::new();
        for (id, sum) in named_tables(&file, &version)? {
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
fn named_tables(file: &Path, version: &[u8]) -> Result<Vec<(u64, u128)>, StoreError> {
    let damaged = |what: &str| StoreError::damaged(file, what);
    let sections = sections(version).ok_or_else(|| damaged("its sections cannot be read"))?;
    let list = sections
        .iter()
        .find(|section| section.name == b"tables")
        .and_then(|section| version.get(section.place.clone()))
        .ok_or_else(|| damaged("it names no tables"))?;
    list_of_tables(list).ok_or_else(|| damaged("its list of tables is cut short"))
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

/// A part of a table or version file.
struct Section {
    name: Vec<u8>,
    place: Range<usize>,
}

/// The sections of a file, as the list at its end has them; `None` when that cannot be read. The
/// list's checksum is compared before anything in it is believed: its lengths ask for memory.
fn sections(bytes: &[u8]) -> Option<Vec<Section>> {
    let list = list_of_sections(bytes)?;
    if xxh3_128(bytes.get(list.place.clone())?) != list.sum {
        return None;
    }
    let sections = sfa::Reader::from_reader(&mut io::Cursor::new(bytes)).ok()?;
    let section = |entry: &sfa::TocEntry| {
        let begin = usize::try_from(entry.pos()).ok()?;
        let end = begin.checked_add(usize::try_from(entry.len()).ok()?)?;
        (end <= list.place.start).then(|| Section {
            name: entry.name().to_vec(),
            place: begin..end,
        })
    };
    sections.toc().iter().map(section).collect()
}

struct ListOfSections {
    place: Range<usize>,
    sum: u128,
}

/// Where the list of sections is, by the end of a file: magic (4 bytes), version (1), kind of the
/// checksum (1), the list's checksum (16), its place (8), its length (8).
fn list_of_sections(end_of_file: &[u8]) -> Option<ListOfSections> {
    let (_, trailer) = end_of_file.split_last_chunk::<TRAILER_BYTES>()?;
    let mut rest = trailer.strip_prefix(TRAILER_HEAD)?;
    let sum = rest.get_u128_le();
    let begin = usize::try_from(rest.get_u64_le()).ok()?;
    let end = begin.checked_add(usize::try_from(rest.get_u64_le()).ok()?)?;
    Some(ListOfSections {
        place: begin..end,
        sum,
    })
}

/// Checks the list of sections of a table, which opening the table reads: its lengths ask for
/// memory before the database compares the checksum.
fn check_list(table: &Path) -> Result<(), StoreError> {
    let failed = |error: io::Error| missing_or(table, &error);
    let damaged = |offset: u64| {
        let what = format!("its list of sections at offset {offset} is not what was written");
        StoreError::damaged(table, what)
    };
    let file = File::open(table).map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len();
    let trailer_at = bytes.saturating_sub(TRAILER_BYTES as u64);
    let mut trailer = [0; TRAILER_BYTES];
    file.read_exact_at(&mut trailer, trailer_at)
        .map_err(failed)?;
    let list = list_of_sections(&trailer).ok_or_else(|| damaged(trailer_at))?;
    let begin = list.place.start as u64;
    if list.place.end as u64 != trailer_at || list.place.len() > LIST_BYTES_MAX {
        return Err(damaged(trailer_at));
    }
    let mut text = vec![0; list.place.len()];
    file.read_exact_at(&mut text, begin).map_err(failed)?;
    match xxh3_128(&text) == list.sum {
        true => Ok(()),
        false => Err(damaged(begin)),
    }
}

/// Where the first block lies whose checksum is wrong, or what else is wrong first. A block: magic
/// (4 bytes), kind (1), checksum of the data (16), its length (4), its unpacked length (4),
/// checksum of all that (4), data.
fn first_fault(bytes: &[u8]) -> usize {
    let Some(sections) = sections(bytes) else {
        return bytes.len().saturating_sub(TRAILER_BYTES);
    };
    let (blocks, others): (Vec<_>, Vec<_>) = sections
        .into_iter()
        .partition(|section| !NOT_BLOCKS.contains(&section.name.as_slice()));
    for section in blocks {
        let mut rest = &bytes[section.place.clone()];
        while !rest.is_empty() {
            let Some(length) = good_block(rest) else {
                return section.place.end - rest.len();
            };
            rest = &rest[length..];
        }
    }
    others.first().map_or(0, |section| section.place.start)
}

/// The length of the block at the beginning, header included, if it is what was written.
fn good_block(bytes: &[u8]) -> Option<usize> {
    let (header, rest) = bytes.split_at_checked(BLOCK_HEADER_BYTES)?;
    let (head, mut sum) = header.split_at(BLOCK_HEADER_BYTES - 4);
    let (mut data_sum, mut length) = (&head[5..21], &head[21..25]);
    let data = rest.get(..length.get_u32_le() as usize)?;
    let good = head.starts_with(BLOCK_MAGIC)
        && xxh3_128(head) as u32 == sum.get_u32_le()
        && xxh3_128(data) == data_sum.get_u128_le();
    good.then_some(BLOCK_HEADER_BYTES + data.len())
}

fn missing_or(file: &Path, error: &io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::NotFound => StoreError::damaged(file, "the file is missing"),
        _ => StoreError::from_io(file, error),
    }
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

fn read(file: &Path) -> Result<Vec<u8>, StoreError> {
    fs::read(file).map_err(|error| missing_or(file, &error))
}
