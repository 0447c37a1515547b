//! A copy of a data folder as it is at one moment, whether a server runs on it or not.
//!
//! Always true: everything that was acknowledged when the backup began is in it; it was checked as
//! `tallyman check` checks before it has its name; the source is not changed, and its server does
//! not wait for anything.
//!
//! How: the store's tables never change, so a list of them, links to them and the log from the
//! store's position on are one moment. While a server runs, compaction may remove a table and a
//! checkpoint may trim the log before they are copied: then the copy begins again.

use std::path::Path;

use crate::check::{Counts, Failure, Fault, Opened, Parts, Progress, Step};
use crate::limits::BACKUP_TRIES_MAX;
use crate::log::disk::RealDisk;
use crate::log::{self, Lsn};
use crate::store::files::{self, Tables};
use crate::store::{Draft, Look, Store, StoreError};

/// Copies the data folder `source` to `target`, where nothing may be yet. `now_ms` (Unix epoch)
/// names the draft; `durable_lsn` is what the copy must have at least, where that is known.
///
/// # Errors
/// Nothing is at `target` then, and what was made so far is removed; by the next backup beside it
/// if that cannot be done now.
pub fn backup(
    source: &Path,
    target: &Path,
    now_ms: u64,
    durable_lsn: Lsn,
    progress: &mut Progress<'_>,
) -> Result<Counts, Failure> {
    let look = Look::at(source)?;
    let draft = Draft::begin(target, now_ms)?;
    let tries = match look.holder() {
        Some(_) => BACKUP_TRIES_MAX,
        None => 1,
    };
    progress(Step::Copy, 0, 1);
    let mut tried = 1;
    while let Err(fault) = copy(&look, &draft, durable_lsn) {
        if tried >= tries {
            return Err(fault.into());
        }
        tried += 1;
        draft.clear()?;
    }
    progress(Step::Copy, 1, 1);
    let parts = Parts {
        store: &draft.store_path(),
        log: &draft.log_path(),
        identity: look.identity(),
        log_has_head: true,
    };
    let counts = parts.check(progress)?;
    draft.finish(&look.identity())?;
    Ok(counts)
}

/// One try: the store at one moment, then the log from that moment on.
fn copy(look: &Look, draft: &Draft, durable_lsn: Lsn) -> Result<(), Fault> {
    let store = draft.store_path();
    let failed = |error: StoreError| match error {
        StoreError::Damaged { file, what } | StoreError::Io { file, what } => Fault { file, what },
        StoreError::Full => Fault {
            file: store.clone(),
            what: error.to_string(),
        },
    };
    files::replicate(&look.store_path(), &store, Tables::Kept).map_err(failed)?;
    let meta = Opened::at(&store)?.store.meta().map_err(failed)?;
    let meta = meta.unwrap_or_default();
    let id = look.identity().folder_id;
    let (disk, to) = (RealDisk::new(false), draft.log_path());
    let known = meta.known(look.log_has_head());
    let last = log::copy(&disk, &look.log_path(), id, known, &to)?;
    if last.lsn < durable_lsn {
        let what = format!(
            "the log ends at lsn {} for who reads it, but {durable_lsn} is durable",
            last.lsn
        );
        return Err(Fault {
            file: look.log_path(),
            what,
        });
    }
    Ok(())
}
