//! The data folder: whose it is, who has it open, and that it is whole.
//!
//! ```text
//! FORMAT     version, identity and hash seed, as text with a checksum
//! LOCK       held while a process has the folder open; says which
//! store/     the rows
//! log/       the commit log, with its head if FORMAT says so (the first servers made none)
//! BALLAST    space that is kept back for a disk that is full ([`super::ballast`])
//! CREATING   only while the folder is being made
//! ```
//!
//! Always true here:
//! - A folder is whole or says that it is not: CREATING is there before anything else and goes away
//!   after FORMAT and everything that FORMAT promises are synced. A folder that does not exist is
//!   made beside its place under a temporary name and renamed; one that exists and is empty (a
//!   mount point, say) is made in place.
//! - Nothing is deleted but what a CREATING marks as unfinished: there is no data in it yet.
//! - The lock is the system's: it ends with the process. What LOCK says is for people.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// The version of the folder that this server makes, and the newest one that it opens.
pub const FOLDER_VERSION: u32 = 1;

const FORMAT: &str = "FORMAT";
const LOCK: &str = "LOCK";
const CREATING: &str = "CREATING";
/// How the names of folders end that are not in their places yet.
const DRAFT_END: &str = ".creating";
const STORE: &str = "store";
const LOG: &str = "log";
const FIRST_LINE: &str = "tallyman data folder";
/// A line that servers do not mind which do not know it.
const LOG_HAS_HEAD: &str = "log-has-head yes";
/// What a fresh file system may hold and we do not mind.
const HARMLESS: &[&str] = &[LOCK, "lost+found"];
/// More than any FORMAT or LOCK needs.
const TEXT_BYTES_MAX: u64 = 4096;

/// What makes a folder this folder. Fixed when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// A random number: each segment of the log carries it, so that segments of another folder are
    /// not taken for ours.
    pub folder_id: u64,
    /// The seed of all stored key hashes.
    pub hash_seed: u64,
}

/// What FORMAT says.
#[derive(Clone, Copy, Debug)]
struct Format {
    identity: Identity,
    /// The log has a head: one without is not whole.
    log_has_head: bool,
}

/// Makes what a new folder holds besides FORMAT: `store` and `log` inside of the given folder. It
/// must leave nothing open; everything it leaves is synced before the folder counts.
pub type Fill<'a> = dyn FnMut(&Path, &Identity) -> Result<(), String> + 'a;

/// An open data folder. Dropping it gives the folder free.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    format: Format,
    created: bool,
    // Held for its lock.
    _lock: File,
}

impl Folder {
    /// Opens the folder at `path`, or makes one there with `fresh` as its identity if there is
    /// nothing or an empty folder. `now_ms` (Unix epoch) goes into LOCK.
    pub fn open(
        path: &Path,
        fresh: Identity,
        now_ms: u64,
        fill: &mut Fill<'_>,
    ) -> Result<Folder, FolderError> {
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => Folder::open_here(path, path, fresh, now_ms, fill),
            Ok(_) => Err(FolderError::NotOurs {
                file: path.to_path_buf(),
                what: "it is not a folder".into(),
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Folder::open_new(path, fresh, now_ms, fill)
            }
            Err(error) => Err(FolderError::io(path, &error)),
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its identity.
    pub fn identity(&self) -> Identity {
        self.format.identity
    }

    /// Its log has a head.
    pub fn log_has_head(&self) -> bool {
        self.format.log_has_head
    }

    /// Notes that its log has a head now, durably.
    pub fn note_log_head(&mut self) -> Result<(), FolderError> {
        if self.format.log_has_head {
            return Ok(());
        }
        write_format(&self.path, &self.format.identity)?;
        self.format.log_has_head = true;
        Ok(())
    }

    /// True when this call of [`Folder::open`] made it.
    pub fn is_new(&self) -> bool {
        self.created
    }

    /// Where the rows are.
    pub fn store_path(&self) -> PathBuf {
        self.path.join(STORE)
    }

    /// Where the commit log is.
    pub fn log_path(&self) -> PathBuf {
        self.path.join(LOG)
    }

    /// Makes a folder under a temporary name beside `path` and renames it when it is whole.
    fn open_new(
        path: &Path,
        fresh: Identity,
        now_ms: u64,
        fill: &mut Fill<'_>,
    ) -> Result<Folder, FolderError> {
        let parent = parent_of(path);
        create_parents(&parent)?;
        let draft = draft_of(path)?;
        match fs::create_dir(&draft) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(FolderError::io(&draft, &error));
            }
            _ => {}
        }
        let mut folder = Folder::open_here(&draft, path, fresh, now_ms, fill)?;
        folder.path = path.to_path_buf();
        fs::rename(&draft, path).map_err(|error| FolderError::io(path, &error))?;
        sync_folder(&parent)?;
        Ok(folder)
    }

    /// Opens or makes a folder in place. `shown` is the name that people know it by.
    fn open_here(
        path: &Path,
        shown: &Path,
        fresh: Identity,
        now_ms: u64,
        fill: &mut Fill<'_>,
    ) -> Result<Folder, FolderError> {
        // Before anything is written, so that a folder of somebody else stays as it is.
        refuse_foreign(path)?;
        let lock = take_lock(path, shown, now_ms)?;
        refuse_foreign(path)?;
        let format = path.join(FORMAT);
        let created = !exists(&format)?;
        if created {
            create(path, fresh, fill)?;
        } else {
            remove_file_if_any(&path.join(CREATING))?;
            // Whoever was here before may have been killed between a change and its sync.
            let parent = sync_folder(&parent_of(path));
            // We may use the folder and not be allowed to look into the one above.
            if !matches!(parent, Err(FolderError::Io { denied: true, .. })) {
                parent?;
            }
            sync_folders(path).map_err(|error| FolderError::io(path, &error))?;
        }
        let format = parse_format(&format, &read_text(&format)?)?;
        for part in [STORE, LOG] {
            let part = path.join(part);
            if !part.is_dir() {
                return Err(FolderError::Incomplete {
                    file: part,
                    what: "it is missing".into(),
                });
            }
        }
        Ok(Folder {
            path: path.to_path_buf(),
            format,
            created,
            _lock: lock,
        })
    }
}

/// A data folder that is looked at and stays as it is. While this lives no server can start on it.
#[derive(Debug)]
pub struct Look {
    path: PathBuf,
    format: Format,
    // Held for its lock; none where no server was ever started, or one is running.
    _lock: Option<File>,
    holder: Option<String>,
}

impl Look {
    /// Looks at the data folder at `path`, which a server may be using.
    pub fn at(path: &Path) -> Result<Look, FolderError> {
        let format = path.join(FORMAT);
        if !exists(path)? {
            return Err(FolderError::Incomplete {
                file: path.to_path_buf(),
                what: "there is no such folder".into(),
            });
        }
        refuse_foreign(path)?;
        if !exists(&format)? {
            return Err(FolderError::Incomplete {
                file: path.to_path_buf(),
                what: "there is nothing in it yet".into(),
            });
        }
        let file = path.join(LOCK);
        let (lock, holder) = match File::open(&file) {
            Ok(lock) => match lock.try_lock_shared() {
                Ok(()) => (Some(lock), None),
                Err(TryLockError::WouldBlock) => (None, Some(holder(lock))),
                Err(TryLockError::Error(error)) => return Err(FolderError::io(&file, &error)),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => (None, None),
            Err(error) => return Err(FolderError::io(&file, &error)),
        };
        Ok(Look {
            path: path.to_path_buf(),
            format: parse_format(&format, &read_text(&format)?)?,
            _lock: lock,
            holder,
        })
    }

    /// Its identity.
    pub fn identity(&self) -> Identity {
        self.format.identity
    }

    /// Its log has a head.
    pub fn log_has_head(&self) -> bool {
        self.format.log_has_head
    }

    /// The process that uses it, in LOCK's words.
    pub fn holder(&self) -> Option<&str> {
        self.holder.as_deref()
    }

    /// The refusal for who needs a folder that stands still.
    pub fn refuse_if_used(&self) -> Result<(), FolderError> {
        match &self.holder {
            None => Ok(()),
            Some(holder) => Err(FolderError::InUse {
                folder: self.path.clone(),
                holder: holder.clone(),
            }),
        }
    }

    /// Where the rows are.
    pub fn store_path(&self) -> PathBuf {
        self.path.join(STORE)
    }

    /// Where the commit log is.
    pub fn log_path(&self) -> PathBuf {
        self.path.join(LOG)
    }
}

/// A data folder in the making, beside its place under a temporary name. Dropping it before
/// [`Draft::finish`] removes it; what a crash leaves, the next draft in the same folder removes.
/// But a crash right before the renaming leaves it whole, without CREATING: it stays until a draft
/// for the same place makes it anew, or a server that is started there takes it.
#[derive(Debug)]
pub struct Draft {
    path: PathBuf,
    target: PathBuf,
    // Held until the draft is gone or in its place.
    _lock: File,
}

impl Drop for Draft {
    fn drop(&mut self) {
        // In its place already, or as far as the disk lets us: the next draft tries again.
        let _ = fs::remove_dir_all(&self.path);
    }
}

impl Draft {
    /// Begins a folder that is to be at `target`, where nothing may be yet.
    pub fn begin(target: &Path, now_ms: u64) -> Result<Draft, FolderError> {
        if fs::symlink_metadata(target).is_ok() {
            return Err(FolderError::NotOurs {
                file: target.to_path_buf(),
                what: "there is something already".into(),
            });
        }
        create_parents(&parent_of(target))?;
        remove_abandoned(&parent_of(target));
        let path = draft_of(target)?;
        match fs::create_dir(&path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(FolderError::io(&path, &error));
            }
            _ => {}
        }
        refuse_foreign(&path)?;
        let lock = take_lock(&path, target, now_ms)?;
        let draft = Draft {
            path,
            target: target.to_path_buf(),
            _lock: lock,
        };
        write_synced(&draft.path.join(CREATING), b"an unfinished copy\n")?;
        remove_file_if_any(&draft.path.join(FORMAT))?;
        draft.clear()?;
        Ok(draft)
    }

    /// Removes what was made so far.
    pub fn clear(&self) -> Result<(), FolderError> {
        for part in [self.store_path(), self.log_path()] {
            match fs::remove_dir_all(&part) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(FolderError::io(&part, &error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Where the rows belong.
    pub fn store_path(&self) -> PathBuf {
        self.path.join(STORE)
    }

    /// Where the commit log belongs.
    pub fn log_path(&self) -> PathBuf {
        self.path.join(LOG)
    }

    /// Gives it its identity, makes everything durable, and puts it in its place.
    pub fn finish(self, identity: &Identity) -> Result<(), FolderError> {
        for part in [self.store_path(), self.log_path()] {
            sync_tree(&part).map_err(|error| FolderError::io(&part, &error))?;
        }
        write_synced(&self.path.join(FORMAT), format_text(identity).as_bytes())?;
        sync_folder(&self.path)?;
        remove_file_if_any(&self.path.join(CREATING))?;
        sync_folder(&self.path)?;
        fs::rename(&self.path, &self.target)
            .map_err(|error| FolderError::io(&self.target, &error))?;
        sync_folder(&parent_of(&self.target))
    }
}

/// Why a folder cannot be opened. The text says which file, what is wrong and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FolderError {
    /// Another process has it open.
    InUse {
        /// The folder.
        folder: PathBuf,
        /// What LOCK says about that process.
        holder: String,
    },
    /// There is something else at this place.
    NotOurs {
        /// The file or folder.
        file: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A newer server made it.
    Newer {
        /// The file that says so.
        file: PathBuf,
        /// Its version.
        version: u32,
    },
    /// FORMAT is not what was written.
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A part is missing.
    Incomplete {
        /// The part.
        file: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The system refused to read or write.
    Io {
        /// The file or folder.
        file: PathBuf,
        /// Permission, rather than the disk, is the cause.
        denied: bool,
        /// The system's words.
        what: String,
    },
    /// The store or the log could not be made.
    Create {
        /// The folder.
        folder: PathBuf,
        /// What they said.
        what: String,
    },
}

impl FolderError {
    fn io(file: &Path, error: &io::Error) -> Self {
        let denied = matches!(
            error.kind(),
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
        );
        FolderError::Io {
            file: file.to_path_buf(),
            denied,
            what: error.to_string(),
        }
    }
}

impl fmt::Display for FolderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FolderError::InUse { folder, holder } => write!(
                f,
                "data folder {} is in use by {holder}; stop it or choose another folder",
                folder.display()
            ),
            FolderError::NotOurs { file, what } => write!(
                f,
                "{}: {what}, so this is not a data folder; choose an empty or a new one",
                file.display()
            ),
            FolderError::Newer { file, version } => write!(
                f,
                "{}: version {version} is newer than this server's {FOLDER_VERSION}; start the \
                 newer server that made it",
                file.display()
            ),
            FolderError::Damaged { file, what } => write!(
                f,
                "{} is damaged: {what}; restore the file from a backup of this folder",
                file.display()
            ),
            FolderError::Incomplete { file, what } => write!(
                f,
                "{}: {what}; restore the whole folder from a backup, or choose another one",
                file.display()
            ),
            FolderError::Io {
                file,
                denied: true,
                what,
            } => write!(
                f,
                "{}: {what}; give the server's user the right to read and write it, or choose \
                 another folder",
                file.display()
            ),
            FolderError::Io {
                file,
                denied: false,
                what,
            } => {
                write!(
                    f,
                    "{}: {what}; check the disk and its mount",
                    file.display()
                )
            }
            FolderError::Create { folder, what } => {
                write!(f, "data folder {} cannot be made: {what}", folder.display())
            }
        }
    }
}

impl std::error::Error for FolderError {}

/// Refuses a folder that is neither ours, nor empty, nor left by an unfinished creation.
fn refuse_foreign(path: &Path) -> Result<(), FolderError> {
    if exists(&path.join(FORMAT))? || exists(&path.join(CREATING))? {
        return Ok(());
    }
    let entries = fs::read_dir(path).map_err(|error| FolderError::io(path, &error))?;
    for entry in entries {
        let name = entry
            .map_err(|error| FolderError::io(path, &error))?
            .file_name();
        if HARMLESS.iter().any(|harmless| name == *harmless) {
            continue;
        }
        let file = path.join(FORMAT);
        if path.join(STORE).is_dir() && path.join(LOG).is_dir() {
            return Err(FolderError::Incomplete {
                file,
                what: "it is missing".into(),
            });
        }
        let what = format!(
            "it is missing, and there is {} beside it",
            name.to_string_lossy()
        );
        return Err(FolderError::NotOurs { file, what });
    }
    Ok(())
}

/// Fills an empty or half-made folder. FORMAT comes last but for the removal of CREATING.
fn create(path: &Path, fresh: Identity, fill: &mut Fill<'_>) -> Result<(), FolderError> {
    let creating = path.join(CREATING);
    write_synced(
        &creating,
        b"unfinished: the server makes it again when it starts\n",
    )?;
    sync_folder(path)?;
    for part in [STORE, LOG] {
        let part = path.join(part);
        match fs::remove_dir_all(&part) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(FolderError::io(&part, &error));
            }
            _ => {}
        }
    }
    fill(path, &fresh).map_err(|what| FolderError::Create {
        folder: path.to_path_buf(),
        what,
    })?;
    for part in [STORE, LOG] {
        let part = path.join(part);
        sync_tree(&part).map_err(|error| FolderError::io(&part, &error))?;
    }
    write_format(path, &fresh)?;
    remove_file_if_any(&creating)
}

/// Writes FORMAT, whole or not at all, durably.
fn write_format(path: &Path, identity: &Identity) -> Result<(), FolderError> {
    let draft = path.join("FORMAT.new");
    write_synced(&draft, format_text(identity).as_bytes())?;
    let format = path.join(FORMAT);
    fs::rename(&draft, &format).map_err(|error| FolderError::io(&format, &error))?;
    sync_folder(path)
}

fn take_lock(path: &Path, shown: &Path, now_ms: u64) -> Result<File, FolderError> {
    let file = path.join(LOCK);
    let failed = |error: &io::Error| FolderError::io(&file, error);
    let mut lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&file)
        .map_err(|error| failed(&error))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(FolderError::InUse {
                folder: shown.to_path_buf(),
                holder: holder(lock),
            });
        }
        Err(TryLockError::Error(error)) => return Err(failed(&error)),
    }
    let text = format!("process {} (started at {now_ms} ms)\n", std::process::id());
    lock.set_len(0)
        .and_then(|()| lock.rewind())
        .and_then(|()| lock.write_all(text.as_bytes()))
        .map_err(|error| failed(&error))?;
    Ok(lock)
}

/// What LOCK says about who holds it.
fn holder(lock: File) -> String {
    let mut text = String::new();
    // Only for people: what cannot be read is left out.
    let _ = lock.take(TEXT_BYTES_MAX).read_to_string(&mut text);
    match text.trim() {
        "" => "another process".to_string(),
        text => text.to_string(),
    }
}

fn format_text(identity: &Identity) -> String {
    let Identity {
        folder_id,
        hash_seed,
    } = identity;
    let text = format!(
        "{FIRST_LINE}\nversion {FOLDER_VERSION}\nfolder-id {folder_id:016x}\n\
         hash-seed {hash_seed:016x}\n{LOG_HAS_HEAD}\n"
    );
    let crc = crc32c::crc32c(text.as_bytes());
    format!("{text}crc32c {crc:08x}\n")
}

fn parse_format(file: &Path, text: &str) -> Result<Format, FolderError> {
    let damaged = |what: &str| FolderError::Damaged {
        file: file.to_path_buf(),
        what: what.into(),
    };
    if text.lines().next() != Some(FIRST_LINE) {
        let what = format!("it does not begin with \"{FIRST_LINE}\"");
        return Err(FolderError::NotOurs {
            file: file.to_path_buf(),
            what,
        });
    }
    let (body, crc) = text
        .rsplit_once("crc32c ")
        .ok_or_else(|| damaged("no checksum"))?;
    if u32::from_str_radix(crc.trim_end(), 16) != Ok(crc32c::crc32c(body.as_bytes())) {
        return Err(damaged("its checksum is wrong"));
    }
    let value = |name: &str| {
        body.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
            .ok_or_else(|| damaged(&format!("no line \"{name}\"")))
    };
    let version: u32 = value("version")?
        .parse()
        .map_err(|_| damaged("no valid version"))?;
    if version > FOLDER_VERSION {
        return Err(FolderError::Newer {
            file: file.to_path_buf(),
            version,
        });
    }
    let number = |name: &str| {
        u64::from_str_radix(value(name)?, 16).map_err(|_| damaged(&format!("no valid {name}")))
    };
    let identity = Identity {
        folder_id: number("folder-id")?,
        hash_seed: number("hash-seed")?,
    };
    Ok(Format {
        identity,
        log_has_head: body.lines().any(|line| line == LOG_HAS_HEAD),
    })
}

fn read_text(file: &Path) -> Result<String, FolderError> {
    let mut bytes = Vec::new();
    File::open(file)
        .and_then(|open| open.take(TEXT_BYTES_MAX).read_to_end(&mut bytes))
        .map_err(|error| FolderError::io(file, &error))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn parent_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// The temporary name beside `path`; always the same, so that a later start finds what is left.
fn draft_of(path: &Path) -> Result<PathBuf, FolderError> {
    let Some(name) = path.file_name() else {
        let what = "it has no name".into();
        return Err(FolderError::NotOurs {
            file: path.to_path_buf(),
            what,
        });
    };
    let mut draft = OsString::from(".");
    draft.push(name);
    draft.push(DRAFT_END);
    Ok(parent_of(path).join(draft))
}

/// Removes the drafts in `folder` that nobody works at any more, as far as the disk lets us.
fn remove_abandoned(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let draft = entry.path();
        let is_draft = name.starts_with('.') && name.ends_with(DRAFT_END);
        if !is_draft || !draft.join(CREATING).is_file() {
            continue;
        }
        // Held while it goes, so that nobody begins to work at it.
        let lock = File::open(draft.join(LOCK));
        if lock.is_ok_and(|lock| lock.try_lock().is_ok() && fs::remove_dir_all(&draft).is_ok()) {
            tracing::info!("removed what an unfinished copy left: {}", draft.display());
        }
    }
}

fn exists(file: &Path) -> Result<bool, FolderError> {
    file.try_exists()
        .map_err(|error| FolderError::io(file, &error))
}

fn remove_file_if_any(file: &Path) -> Result<(), FolderError> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(FolderError::io(file, &error)),
        _ => Ok(()),
    }
}

fn write_synced(file: &Path, bytes: &[u8]) -> Result<(), FolderError> {
    File::create(file)
        .and_then(|mut open| open.write_all(bytes).and_then(|()| open.sync_all()))
        .map_err(|error| FolderError::io(file, &error))
}

fn sync_folder(path: &Path) -> Result<(), FolderError> {
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| FolderError::io(path, &error))
}

/// Makes `path` and every folder above it that is missing, so that all of them survive a crash.
fn create_parents(path: &Path) -> Result<(), FolderError> {
    if path.as_os_str().is_empty() || exists(path)? {
        return Ok(());
    }
    let parent = parent_of(path);
    create_parents(&parent)?;
    match fs::create_dir(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(FolderError::io(path, &error))
        }
        _ => sync_folder(&parent),
    }
}

/// Makes the names in `path` and in the folders below it durable.
fn sync_folders(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() && entry.file_name() != "lost+found" {
            sync_folders(&entry.path())?;
        }
    }
    File::open(path)?.sync_all()
}

/// Syncs every file and folder below `path`, and `path` itself.
fn sync_tree(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        } else {
            File::open(entry.path())?.sync_all()?;
        }
    }
    File::open(path)?.sync_all()
}

#[cfg(test)]
#[path = "folder_tests.rs"]
mod tests;
