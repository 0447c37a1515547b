//! The disk as the log sees it: a few calls, so that a double can lose, tear and refuse what it likes.

use std::io;
use std::path::Path;
use std::sync::Arc;

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
    /// Writes and makes this range durable (not what `write_at` wrote elsewhere). Fastest when buffer
    /// address, length and offset are multiples of 4096.
    fn write_durable_at(&self, buffer: &[u8], offset: u64) -> io::Result<()>;
    /// Makes everything written so far durable.
    fn sync(&self) -> io::Result<()>;
}
