//! The log's two threads, and the same by hand: the committer, and the one that prepares segments.

use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use super::committer::Committer;
use super::queue::Shared;
use super::space::Prepared;
use super::{Fatal, SyncMode};
use crate::limits::{LOG_GATHER_BYTES, LOG_GATHER_US};

/// Starts both threads.
pub(super) fn start(committer: Committer) -> Result<Vec<JoinHandle<()>>, Fatal> {
    let shared = committer.shared().clone();
    let failed = |error| Fatal::io("cannot start a thread", std::path::Path::new("log"), error);
    let preparing = shared.clone();
    let prepare = Builder::new()
        .name("log-prepare".to_owned())
        .spawn(move || prepare(&preparing))
        .map_err(failed)?;
    let commit = Builder::new()
        .name("log-commit".to_owned())
        .spawn(move || {
            if let Err(fatal) = commit(committer) {
                shared.fail(fatal);
            }
        })
        .map_err(failed)?;
    Ok(vec![commit, prepare])
}

fn commit(mut committer: Committer) -> Result<(), Fatal> {
    let shared = committer.shared().clone();
    loop {
        let worked = committer.round()?;
        let go_on = if !worked {
            shared.wait_for_work(1, committer.due_us().map(|due_us| until(&shared, due_us)))
        } else if shared.sync_mode() != SyncMode::Always {
            // Nobody waits for this sync, so small groups would only cost a block each.
            shared.wait_for_work(LOG_GATHER_BYTES, Some(Duration::from_micros(LOG_GATHER_US)))
        } else {
            true
        };
        if !go_on {
            return finish(&mut committer);
        }
    }
}

fn until(shared: &Shared, due_us: u64) -> Duration {
    Duration::from_micros(due_us.saturating_sub(shared.now_us()).max(1))
}

/// The last act of a log that closes: everything written becomes durable.
fn finish(committer: &mut Committer) -> Result<(), Fatal> {
    if committer.is_dirty() {
        committer.sync()?;
    }
    Ok(())
}

fn prepare(shared: &Arc<Shared>) {
    loop {
        match prepare_once(shared) {
            Ok(prepared) if shared.space.wait_for_work(prepared) => {}
            Ok(_) => return,
            Err(fatal) => return shared.fail(fatal),
        }
    }
}

fn prepare_once(shared: &Shared) -> Result<Prepared, Fatal> {
    let was_full = shared.space.is_full();
    let prepared = shared.space.prepare()?;
    if prepared == Prepared::Made || was_full != shared.space.is_full() {
        shared.waiters.space_changed();
    }
    Ok(prepared)
}

/// Drives a log that has no threads.
pub struct Manual {
    committer: Committer,
}

impl Manual {
    pub(super) fn new(committer: Committer) -> Manual {
        Manual { committer }
    }

    /// One round: prepares at most one segment, then writes (and, if the mode asks for it, syncs)
    /// one group, or does what is due when idle. True if it did anything. An error is final, as in
    /// a thread.
    pub fn step(&mut self) -> Result<bool, Fatal> {
        let shared = self.committer.shared().clone();
        let result = self.try_step(&shared);
        if let Err(fatal) = &result {
            shared.fail(fatal.clone());
        }
        result
    }

    /// Steps until there is nothing to do.
    pub fn run(&mut self) -> Result<(), Fatal> {
        while self.step()? {}
        Ok(())
    }

    fn try_step(&mut self, shared: &Shared) -> Result<bool, Fatal> {
        if let Some(fatal) = shared.failed() {
            return Err(fatal.clone());
        }
        let prepared = prepare_once(shared)? == Prepared::Made;
        let worked = self.committer.round()?;
        let finishing = !worked && shared.is_closing() && self.committer.is_dirty();
        if finishing {
            finish(&mut self.committer)?;
        }
        Ok(prepared || worked || finishing)
    }
}
