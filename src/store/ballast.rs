//! The ballast: a file that holds nothing, and with it space on the disk that nobody else can take.
//! When a checkpoint or a compaction finds the disk full, the file gives its space up; they make
//! the store smaller (what was deleted goes) and the log shorter, and then the ballast is taken
//! back. It is as large as what the store may need to be written anew, up to a bound.
//!
//! Always true: what the file has is real space, and is never read; no failure of it stops
//! anything.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::StoreError;
use crate::limits::{BALLAST_BYTES_MAX, STORE_PIECE_BYTES};

const NAME: &str = "BALLAST";

/// The file, and how much space it has.
#[derive(Debug)]
pub struct Ballast {
    file: PathBuf,
    /// Never wanted less; 0: there is none at all.
    least_bytes: u64,
    wanted_bytes: u64,
    held_bytes: u64,
}

impl Ballast {
    /// Takes space in the data folder, for a store of `store_bytes`, and `least_bytes` at least
    /// ([`BALLAST_BYTES_MAX`] at most). Where that is not there it is
    /// [missing](Ballast::is_missing).
    pub fn take(folder: &Path, least_bytes: u64, store_bytes: u64) -> Ballast {
        let mut ballast = Ballast {
            file: folder.join(NAME),
            least_bytes: least_bytes.clamp(1, BALLAST_BYTES_MAX),
            wanted_bytes: u64::MAX,
            held_bytes: 0,
        };
        ballast.fit(store_bytes);
        ballast
    }

    /// Gives up what the file in this folder has, before anybody took it. False if there was none.
    pub fn release(folder: &Path) -> bool {
        let file = folder.join(NAME);
        let held = file.metadata().map_or(0, |found| found.len());
        held > 0 && resize(&file, 0).is_ok()
    }

    /// For a server without a disk of its own.
    pub fn none() -> Ballast {
        Ballast {
            file: PathBuf::new(),
            least_bytes: 0,
            wanted_bytes: 0,
            held_bytes: 0,
        }
    }

    /// What it holds, in bytes.
    pub fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// It has not what it should have.
    pub fn is_missing(&self) -> bool {
        self.held_bytes < self.wanted_bytes
    }

    /// Gives all space up. False if there was none to give.
    pub fn give_up(&mut self) -> bool {
        let held = std::mem::take(&mut self.held_bytes) > 0;
        if held && let Err(error) = resize(&self.file, 0) {
            self.do_without(&error);
        }
        held
    }

    /// Takes what a store of this size needs, if that much is there; gives back what is far more.
    /// True if nothing is missing then.
    pub fn fit(&mut self, store_bytes: u64) -> bool {
        if self.least_bytes == 0 {
            return true;
        }
        let wanted = store_bytes.clamp(self.least_bytes, BALLAST_BYTES_MAX);
        // Not for every table that comes and goes.
        if self.held_bytes >= wanted && self.held_bytes <= 2 * wanted {
            self.wanted_bytes = self.held_bytes;
            return true;
        }
        self.wanted_bytes = wanted;
        let Err(error) = resize(&self.file, wanted) else {
            self.held_bytes = wanted;
            return true;
        };
        // A part of what was wanted would only be in the way.
        let _ = resize(&self.file, self.held_bytes);
        if StoreError::from_io(&self.file, &error) == StoreError::Full {
            return false;
        }
        self.do_without(&error);
        true
    }

    fn do_without(&mut self, error: &io::Error) {
        let file = self.file.display();
        tracing::warn!("no space is kept back for a disk that is full: {file}: {error}");
        *self = Ballast::none();
    }
}

fn resize(path: &Path, bytes: u64) -> io::Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    if file.metadata()?.len() > bytes {
        file.set_len(bytes)?;
    }
    if bytes > 0 {
        match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => fill(&file, bytes)?,
            result => result?,
        }
    }
    file.sync_all()
}

/// For file systems that cannot set space aside.
fn fill(file: &File, bytes: u64) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    let zeros = vec![0; STORE_PIECE_BYTES];
    let mut at = 0;
    while at < bytes {
        let piece = (bytes - at).min(zeros.len() as u64);
        file.write_all_at(&zeros[..piece as usize], at)?;
        at += piece;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn blocks(folder: &Path) -> (u64, u64) {
        let found = folder.join(NAME).metadata().unwrap();
        (found.len(), found.blocks() * 512)
    }

    const MB: u64 = 1 << 20;

    #[test]
    fn space_is_taken_given_up_and_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut ballast = Ballast::take(folder.path(), MB, 0);
        assert!(!ballast.is_missing());
        assert_eq!(blocks(folder.path()), (MB, MB));
        assert!(ballast.give_up());
        assert!(ballast.is_missing() && !ballast.give_up());
        assert_eq!(blocks(folder.path()), (0, 0));
        assert!(ballast.fit(0) && !ballast.is_missing());
        // Another server takes over what is there, with another size.
        let ballast = Ballast::take(folder.path(), MB / 2, 0);
        assert_eq!(
            (ballast.held_bytes(), blocks(folder.path()).0),
            (MB / 2, MB / 2)
        );
    }

    #[test]
    fn what_an_earlier_server_kept_back_can_be_given_up_before_it_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!Ballast::release(folder.path()));
        drop(Ballast::take(folder.path(), MB, 0));
        assert_eq!(blocks(folder.path()), (MB, MB));
        assert!(Ballast::release(folder.path()));
        assert_eq!(blocks(folder.path()), (0, 0));
        assert!(!Ballast::release(folder.path()));
    }

    #[test]
    fn it_follows_the_store() {
        let folder = tempfile::tempdir().unwrap();
        let mut ballast = Ballast::take(folder.path(), MB, 3 * MB);
        for (store, held) in [
            (3 * MB, 3 * MB),
            (5 * MB, 5 * MB),
            (3 * MB, 5 * MB),
            (2 * MB, 2 * MB),
            (0, 2 * MB),
        ] {
            assert!(ballast.fit(store) && !ballast.is_missing());
            assert_eq!(ballast.held_bytes(), held, "for {store}");
            assert_eq!(blocks(folder.path()), (held, held));
        }
        assert_eq!(Ballast::take(folder.path(), MB, 0).held_bytes(), MB);
    }

    #[test]
    fn a_file_that_lost_its_space_gets_it_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = File::create(folder.path().join(NAME)).unwrap();
        file.set_len(MB).unwrap();
        assert_eq!(blocks(folder.path()), (MB, 0));
        assert!(!Ballast::take(folder.path(), MB, 0).is_missing());
        assert_eq!(blocks(folder.path()), (MB, MB));
    }

    #[test]
    fn without_a_place_for_it_the_server_does_without() {
        let folder = tempfile::tempdir().unwrap();
        let mut ballast = Ballast::take(&folder.path().join("none"), MB, 0);
        assert!(!ballast.is_missing() && !ballast.give_up() && ballast.held_bytes() == 0);
        assert!(ballast.fit(u64::MAX) && !ballast.is_missing());
        let huge = Ballast::take(folder.path(), u64::MAX, u64::MAX);
        assert_eq!(huge.held_bytes(), BALLAST_BYTES_MAX);
    }

    #[test]
    fn zeros_do_where_space_cannot_be_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let file = File::create(folder.path().join(NAME)).unwrap();
        let bytes = STORE_PIECE_BYTES as u64 + 4096;
        fill(&file, bytes).unwrap();
        assert_eq!(blocks(folder.path()).0, bytes);
    }
}
