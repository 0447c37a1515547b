//! The disk as the log sees it: a few calls, so that a double can lose, tear and refuse what it
//! likes.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::limits::LOG_BLOCK_BYTES;

/// A file system. Directory changes are durable only after `sync_dir`.
pub trait Disk: Send + Sync {
    /// Creates the directory and its parents; fine if it exists.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Names of the files in `dir`, sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Opens an existing file, `writable` or not.
    fn open(&self, path: &Path, writable: bool) -> io::Result<Arc<dyn DiskFile>>;
    /// Creates a file that must not exist.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// A file. A write happens whole or is an error; after an error its range holds anything.
pub trait DiskFile: Send + Sync {
    /// Length in bytes.
    fn bytes(&self) -> io::Result<u64>;
    /// Reads up to `buffer.len()` bytes; less only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes; durable only after `sync`.
    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<()>;
    /// Writes and makes this range durable (not what `write_at` wrote elsewhere). Fastest when
    /// buffer address, length and offset are multiples of 4096.
    fn write_durable_at(&self, buffer: &[u8], offset: u64) -> io::Result<()>;
    /// Makes everything written so far durable.
    fn sync(&self) -> io::Result<()>;
}

/// The machine's file system. A durable write goes through `O_DIRECT | O_DSYNC`, one call; where
/// the file system does not take that (some network and memory file systems), it is `pwrite` and
/// `fdatasync`.
#[derive(Default)]
pub struct RealDisk {
    direct_refused: Arc<AtomicBool>,
}

impl RealDisk {
    /// `direct` false never uses direct I/O.
    pub fn new(direct: bool) -> RealDisk {
        RealDisk {
            direct_refused: Arc::new(AtomicBool::new(!direct)),
        }
    }

    fn file(&self, path: &Path, buffered: File, writable: bool) -> Arc<dyn DiskFile> {
        let direct = (writable && !self.direct_refused.load(Ordering::Relaxed))
            .then(|| {
                OpenOptions::new()
                    .write(true)
                    .custom_flags(libc::O_DIRECT | libc::O_DSYNC)
                    .open(path)
                    .ok()
            })
            .flatten();
        Arc::new(RealFile {
            buffered,
            direct,
            direct_refused: self.direct_refused.clone(),
        })
    }
}

impl Disk for RealDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    fn open(&self, path: &Path, writable: bool) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(writable).open(path)?;
        Ok(self.file(path, file, writable))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)?;
        Ok(self.file(path, file, true))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }
}

struct RealFile {
    buffered: File,
    direct: Option<File>,
    direct_refused: Arc<AtomicBool>,
}

impl DiskFile for RealFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.buffered.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self
                .buffered
                .read_at(&mut buffer[done..], offset + done as u64)
            {
                Ok(0) => break,
                Ok(bytes) => done += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<()> {
        write_whole(&self.buffered, buffer, offset)
    }

    fn write_durable_at(&self, buffer: &[u8], offset: u64) -> io::Result<()> {
        let block = LOG_BLOCK_BYTES as usize;
        let aligned = buffer.as_ptr().align_offset(block) == 0
            && buffer.len().is_multiple_of(block)
            && offset.is_multiple_of(LOG_BLOCK_BYTES);
        if let (Some(direct), true) = (&self.direct, aligned)
            && !self.direct_refused.load(Ordering::Relaxed)
        {
            match write_whole(direct, buffer, offset) {
                // The file system took the flag but not the alignment: nothing was written.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    self.direct_refused.store(true, Ordering::Relaxed);
                }
                result => return result,
            }
        }
        self.write_at(buffer, offset)?;
        self.sync()
    }

    fn sync(&self) -> io::Result<()> {
        self.buffered.sync_data()
    }
}

/// One call writes all, or the write failed: a short write is not continued.
fn write_whole(file: &File, buffer: &[u8], offset: u64) -> io::Result<()> {
    loop {
        match file.write_at(buffer, offset) {
            Ok(bytes) if bytes == buffer.len() => return Ok(()),
            Ok(bytes) => {
                let text = format!("short write: {bytes} of {} bytes", buffer.len());
                return Err(io::Error::new(io::ErrorKind::WriteZero, text));
            }
            // Interrupted before anything was written.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The error says that there is no space (or no quota) left; a short write is how that shows first.
pub(super) fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull, WriteZero};
    matches!(error.kind(), StorageFull | QuotaExceeded | WriteZero)
}

/// The error says that too many files are open just now; nothing is wrong with the disk.
pub(super) fn is_too_many(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_real_disk_writes_aligned_and_unaligned_and_reads_back() {
        for direct in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let disk = RealDisk::new(direct);
            let dir = folder.path().join("log");
            disk.create_dir(&dir).unwrap();
            disk.create_dir(&dir).unwrap();
            let path = dir.join("a");
            let file = disk.create(&path).unwrap();
            assert!(disk.create(&path).is_err());
            file.write_at(&[7; 8192], 0).unwrap();
            file.sync().unwrap();
            let mut block = crate::log::segment::AlignedBuffer::default();
            block.extend(&[9; 4096]);
            file.write_durable_at(block.bytes(), 4096).unwrap();
            file.write_durable_at(b"odd", 1).unwrap();
            disk.sync_dir(&dir).unwrap();
            let mut read = [0; 9000];
            let file = disk.open(&path, false).unwrap();
            assert_eq!(file.read_at(&mut read, 0).unwrap(), 8192);
            assert_eq!((read[0], &read[1..4], read[4096]), (7, &b"odd"[..], 9));
            assert_eq!(disk.list(&dir).unwrap(), ["a"]);
            disk.remove(&path).unwrap();
        }
    }
}
