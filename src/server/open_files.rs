//! How many files the process may have open, and who gets how many of them.
//!
//! Always true: clients get no more than the log, the store and the threads leave. Those could not
//! go on without theirs.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::limits::{
    CLIENTS_MAX, OTHER_OPEN_FILES, STORE_OPEN_FILES_MAX, STORE_OPEN_FILES_MIN, THREAD_OPEN_FILES,
};
use crate::server::Fatal;

/// Who gets how many files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFiles {
    /// All of them.
    pub limit: usize,
    /// The store, for tables that it keeps open.
    pub store: usize,
    /// Clients.
    pub clients: usize,
}

impl OpenFiles {
    /// Lets the process have as many files open as it may, and divides them for so many shards.
    ///
    /// # Errors
    /// They are too few for a single client.
    pub fn divide(shards: usize) -> Result<OpenFiles, Fatal> {
        let wanted = others(shards, STORE_OPEN_FILES_MAX) + CLIENTS_MAX;
        OpenFiles::of(raise(wanted as u64), shards)
    }

    fn of(limit: usize, shards: usize) -> Result<OpenFiles, Fatal> {
        // A compaction opens tables for itself: the store has half of its share at hand for that.
        let store = (limit / 8).clamp(STORE_OPEN_FILES_MIN, STORE_OPEN_FILES_MAX);
        let clients = limit.saturating_sub(others(shards, store));
        if clients == 0 {
            let needed = others(shards, STORE_OPEN_FILES_MIN) + 1;
            return Err(Fatal::new(format!(
                "only {limit} files may be open, and the server needs {needed} at least: raise \
                 the limit (ulimit -n) or start with fewer shards"
            )));
        }
        Ok(OpenFiles {
            limit,
            store,
            clients,
        })
    }
}

/// Files that clients cannot have. The main thread has an event loop as well.
fn others(shards: usize, store: usize) -> usize {
    OTHER_OPEN_FILES + THREAD_OPEN_FILES * (shards + 1) + 2 * store
}

/// Raises the limit up to what is `wanted`, as far as this is permitted. Returns what it is then.
fn raise(wanted: u64) -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let before = current.unwrap_or(u64::MAX);
    let raised = wanted.min(maximum.unwrap_or(u64::MAX));
    let limit = Rlimit {
        current: Some(raised),
        maximum,
    };
    let now = match before < raised && setrlimit(Resource::Nofile, limit).is_ok() {
        true => raised,
        false => before,
    };
    usize::try_from(now).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_what_the_server_does_not_need_itself() {
        for limit in [128, 1_024, 20_000, 2_000_000] {
            for shards in [1, 2, 16] {
                let Ok(files) = OpenFiles::of(limit, shards) else {
                    assert!(limit == 128 && shards == 16);
                    continue;
                };
                assert!(files.clients + files.store < limit);
                assert!(files.store >= STORE_OPEN_FILES_MIN && files.store <= STORE_OPEN_FILES_MAX);
            }
        }
        let many = OpenFiles::of(1_000_000, 4).unwrap();
        assert_eq!(many.store, STORE_OPEN_FILES_MAX);
        let few = OpenFiles::of(128, 1).unwrap();
        assert_eq!((few.store, few.clients), (16, 56));
        let refused = OpenFiles::of(60, 1).unwrap_err();
        assert!(refused.text.contains("ulimit"), "{}", refused.text);
    }

    #[test]
    fn the_limit_is_raised_and_never_lowered() {
        let before = raise(0);
        assert!(before > 0);
        assert_eq!(raise(1), before);
        let wanted = before as u64;
        let less = Rlimit {
            current: Some(wanted - 1),
            ..getrlimit(Resource::Nofile)
        };
        setrlimit(Resource::Nofile, less).unwrap();
        assert_eq!(raise(wanted), before);
        assert_eq!(getrlimit(Resource::Nofile).current, Some(wanted));
    }
}
