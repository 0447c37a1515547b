//! The head: a small file beside the segments that says which of them is the last, so that one that
//! is gone is missed. Nothing in the segments before it can tell.
//!
//! Always true here: the number never falls; it is durable before the first record of the segment
//! that it names is written, and after that segment's header is. So the last segment of a log has
//! this number, or (after a crash between the two) one more. What is being overwritten may be torn:
//! numbers take turns in two blocks.
//!
//! A block, little-endian: magic (8), version (4), checksum of the rest (4), folder id (8), number
//! (8), zeros.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Buf;

use super::Fatal;
use super::disk::{Disk, DiskFile};
use super::segment::AlignedBuffer;
use crate::limits::LOG_BLOCK_BYTES;

/// The file's name in the folder of the log.
pub(super) const NAME: &str = "HEAD";

const MAGIC: [u8; 8] = *b"tallyhed";
const VERSION: u32 = 1;
const USED_BYTES: usize = 32;

/// The file, to be written.
pub(super) struct Head {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    folder_id: u64,
}

impl Head {
    /// What the head in `dir` says; None if there is none, or none that is whole.
    pub fn read(disk: &dyn Disk, dir: &Path, folder_id: u64) -> Result<Option<u64>, Fatal> {
        let path = dir.join(NAME);
        let failed = |error| Fatal::io("cannot read the log's head", &path, error);
        let file = match disk.open(&path, false) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file.map_err(failed)?,
        };
        let mut last = None;
        for place in 0..2 {
            let mut block = [0; USED_BYTES];
            let read = file.read_at(&mut block, place * LOG_BLOCK_BYTES);
            let read = read.map_err(failed)?;
            last = last.max(decode(folder_id, &block[..read]));
        }
        Ok(last)
    }

    /// Opens the head in `dir`, or makes it, and writes this number.
    pub fn open(disk: &dyn Disk, dir: &Path, folder_id: u64, number: u64) -> Result<Head, Fatal> {
        let whole = Head::read(disk, dir, folder_id)?.is_some();
        let path = dir.join(NAME);
        let failed = |error| Fatal::io("cannot make the log's head", &path, error);
        let file = match disk.open(&path, true) {
            Err(error) if error.kind() == ErrorKind::NotFound => disk.create(&path),
            file => file,
        };
        let file = file.map_err(failed)?;
        let folder_id_and_number = (folder_id, number);
        if !whole {
            // Both blocks: what is written first is not to be the only one when it is next torn.
            let block = encode(folder_id_and_number);
            let other = (number + 1) % 2 * LOG_BLOCK_BYTES;
            file.write_durable_at(block.bytes(), other)
                .and_then(|()| file.sync())
                .map_err(failed)?;
        }
        let head = Head {
            file,
            path: path.clone(),
            folder_id,
        };
        head.write(number)?;
        // Its length too, and its name.
        head.file.sync().map_err(failed)?;
        disk.sync_dir(dir).map_err(failed)?;
        Ok(head)
    }

    /// The last segment has this number now: durable on return.
    pub fn write(&self, number: u64) -> Result<(), Fatal> {
        let block = encode((self.folder_id, number));
        self.file
            .write_durable_at(block.bytes(), number % 2 * LOG_BLOCK_BYTES)
            .map_err(|error| Fatal::io("cannot write the log's head", &self.path, error))
    }
}

fn encode((folder_id, number): (u64, u64)) -> AlignedBuffer {
    let mut block = AlignedBuffer::default();
    block.extend(&MAGIC);
    block.extend(&VERSION.to_le_bytes());
    block.extend(&[0; 4]);
    block.extend(&folder_id.to_le_bytes());
    block.extend(&number.to_le_bytes());
    block.pad();
    let crc = checksum(block.bytes());
    block.bytes_mut()[12..16].copy_from_slice(&crc.to_le_bytes());
    block
}

fn decode(folder_id: u64, block: &[u8]) -> Option<u64> {
    if block.len() < USED_BYTES || block[0..8] != MAGIC {
        return None;
    }
    let mut rest = &block[8..];
    let version = rest.get_u32_le();
    let whole = rest.get_u32_le() == checksum(block);
    let ours = version == VERSION && rest.get_u64_le() == folder_id;
    (whole && ours).then(|| rest.get_u64_le())
}

fn checksum(block: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&block[0..12]), &block[16..USED_BYTES])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::sim_disk::{Keep, SimDisk};

    fn dir() -> &'static Path {
        Path::new("/log")
    }

    #[test]
    fn a_head_says_the_last_number_and_a_torn_one_the_number_before() {
        let sim = SimDisk::new(1);
        let disk = sim.disk();
        assert_eq!(Head::read(&*disk, dir(), 7).unwrap(), None);
        let path = dir().join(NAME);
        for number in 1..10 {
            let head = Head::open(&*disk, dir(), 7, number).unwrap();
            sim.crash(Keep::Nothing);
            assert_eq!(Head::read(&*disk, dir(), 7).unwrap(), Some(number));
            assert_eq!(Head::read(&*disk, dir(), 8).unwrap(), None);
            drop(head);
            for bit in 0..USED_BYTES as u64 * 8 {
                let torn = sim.fork(1);
                let place = number % 2 * LOG_BLOCK_BYTES;
                torn.flip_bit(&path, place + bit / 8, bit as u32);
                let before = number.saturating_sub(1).max(1);
                let read = Head::read(&*torn.disk(), dir(), 7).unwrap();
                assert_eq!(read, Some(before), "bit {bit}");
            }
        }
        sim.truncate(&path, 0);
        assert_eq!(Head::read(&*disk, dir(), 7).unwrap(), None);
    }
}
