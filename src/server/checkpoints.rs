//! The checkpoint thread: one checkpoint at a time, asked for by size, by command, or at the stop.
//!
//! Always true: the position is read before any shard begins its sweep; the log is trimmed only
//! behind a position that the store has. When a checkpoint finds the disk full, the ballast is
//! given up for it, and the log leaves the disk's space alone until the ballast is back.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::clock::Clock;
use crate::keyspace::Databases;
use crate::keyspace::deadlines::Hint;
use crate::keyspace::key::key_hash32;
use crate::keyspace::tokens::TokenSource;
use crate::limits::{BACKGROUND_NICE, BALLAST_BYTES_MAX};
use crate::log::Log;
use crate::server::dead::Dead;
use crate::shard::mailbox::{ConnId, Message, ShardId, SweepSlice, SweepStep};
use crate::sim::{self, Fault};
use crate::store::checkpoint::{self, CheckpointError, Deep, Slice, Stale, Sweep};
use crate::store::row::RowKey;
use crate::store::{Ballast, Meta, ROWS_FORMAT, Store, StoreError};
use crate::worker::runner::{Envelope, Mailbox};

/// What the thread is asked for.
pub enum Request {
    /// A checkpoint; then tell these connections.
    Checkpoint(Vec<(ShardId, ConnId)>),
    /// None until the other end of the second is gone; what was begun is done then.
    Hold(Sender<()>, Receiver<()>),
    /// See whether the ballast can be had again.
    Room,
    /// A checkpoint now; the answer goes here.
    Now(Sender<Result<(), String>>),
    /// End.
    End,
}

/// What others may read of checkpoints.
#[derive(Debug, Default)]
pub struct Progress {
    /// One is running.
    pub running: AtomicBool,
    /// The last one failed.
    pub failed: AtomicBool,
    /// When the last one ended well, ms since the Unix epoch.
    pub finished_ms: AtomicU64,
    /// How many ended well.
    pub count: AtomicU64,
    /// How long the last one took, ms.
    pub took_ms: AtomicU64,
    /// Rows that the last one wrote.
    pub rows: AtomicU64,
    /// Position of the store.
    pub lsn: AtomicU64,
    /// The ballast was given up and could not be taken back.
    pub ballast_missing: AtomicBool,
}

/// Handle of the checkpoint thread.
pub struct Checkpoints {
    requests: Sender<Request>,
    /// A checkpoint by size was asked for and has not begun.
    asked: Arc<AtomicBool>,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The shards as a checkpoint reaches them.
pub trait Shards {
    /// How many there are.
    fn count(&self) -> usize;

    /// Lets a shard take a step, and waits for its answer.
    ///
    /// # Errors
    /// It has ended.
    fn ask(&self, shard: ShardId, step: SweepStep) -> Result<SweepSlice, String>;

    /// Tells a connection how its checkpoint ended.
    fn tell(&self, shard: ShardId, conn: ConnId, result: Result<(), String>);

    /// Waits until the log is durable up to `lsn`.
    ///
    /// # Errors
    /// The log has failed.
    fn wait_durable(&self, log: &Log, lsn: u64) -> Result<(), String> {
        log.wait_durable(lsn).map_err(|fatal| fatal.to_string())
    }
}

impl Shards for Vec<Mailbox> {
    fn count(&self) -> usize {
        self.len()
    }

    fn ask(&self, shard: ShardId, step: SweepStep) -> Result<SweepSlice, String> {
        let (answer, answered) = channel();
        let message = Message::Sweep(step, answer);
        let gone = || "a shard thread has ended".to_owned();
        self[shard]
            .send(Envelope::Message(message))
            .map_err(|_| gone())?;
        answered.recv().map_err(|_| gone())
    }

    fn tell(&self, shard: ShardId, conn: ConnId, result: Result<(), String>) {
        let message = Message::Done(conn, result);
        let _ = self[shard].send(Envelope::Message(message));
    }
}

/// What the thread works with.
pub struct Tools<S> {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The log.
    pub log: Log,
    /// The clock.
    pub clock: Clock,
    /// The shards.
    pub shards: S,
    /// The server's tokens.
    pub tokens: TokenSource,
    /// Rows that nobody can reach any more, and the map of databases.
    pub dead: Dead,
    /// Deadline rows from the first to the second time, in ms, are to be removed: all of that had
    /// expired when the last checkpoint began, and what was due before is removed already.
    pub past_ms: Range<u64>,
    /// But not those of these keys (slot, database, hash), which could not be read.
    pub stuck: BTreeSet<(u16, u32, u32)>,
    /// Hash seed of the data folder.
    pub seed: u64,
    /// What others may read.
    pub progress: Arc<Progress>,
    /// Space for a checkpoint when nothing else is left.
    pub ballast: Ballast,
    /// The store got rows since it was last written anew for want of room.
    pub may_shrink: bool,
    /// The server ends: what need not be done is left.
    pub ending: Arc<AtomicBool>,
}

impl Checkpoints {
    /// Starts the thread.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start<S: Shards + Send + 'static>(mut tools: Tools<S>) -> io::Result<Checkpoints> {
        let (requests, received) = channel();
        let asked = Arc::new(AtomicBool::new(false));
        let flag = asked.clone();
        tools.note_ballast();
        let ending = tools.ending.clone();
        let thread = std::thread::Builder::new()
            .name("checkpoint".into())
            .spawn(move || {
                // Of this thread alone; where it may not, nothing is lost.
                let _ = rustix::process::nice(BACKGROUND_NICE);
                serve(tools, &received, &flag);
            })?;
        Ok(Checkpoints {
            requests,
            asked,
            ending,
            thread: Some(thread),
        })
    }

    /// Asks for a checkpoint; several asked for by size are one.
    pub fn ask(&self, request: Request) {
        if let Request::Checkpoint(askers) = &request
            && askers.is_empty()
            && self.asked.swap(true, Ordering::SeqCst)
        {
            return;
        }
        let _ = self.requests.send(request);
    }

    /// Runs a checkpoint and waits for it.
    ///
    /// # Errors
    /// Why it failed; nothing is lost.
    pub fn run_now(&self) -> Result<(), String> {
        let (answer, answered) = channel();
        let _ = self.requests.send(Request::Now(answer));
        answered
            .recv()
            .map_err(|_| "the checkpoint thread has ended".to_owned())?
    }

    /// The last checkpoint is near: from now on nothing is done, or waited for, that could be left.
    /// `false`: the server goes on after all, and so does what was left.
    pub fn hurry(&self, ending: bool) {
        let before = self.ending.swap(ending, Ordering::SeqCst);
        if before && !ending {
            self.ask(Request::Checkpoint(Vec::new()));
        }
    }

    /// For who wants no checkpoint to run for a moment.
    pub fn holder(&self) -> Holder {
        Holder(self.requests.clone())
    }

    /// Ends the thread.
    pub fn end(&mut self) {
        let _ = self.requests.send(Request::End);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Holds checkpoints up.
pub struct Holder(Sender<Request>);

impl Holder {
    /// Waits until no checkpoint runs, and lets none begin until what is returned is dropped.
    pub fn hold(&self) -> Sender<()> {
        let (held, wait) = channel();
        let (until, end) = channel();
        let _ = self.0.send(Request::Hold(held, end));
        // A thread that has ended makes no checkpoint.
        let _ = wait.recv();
        until
    }
}

/// After a failure the next try waits so long.
const RETRY: Duration = Duration::from_secs(1);
/// A backup holds checkpoints up so long at most; then it may have to begin again.
const HOLD_MAX: Duration = Duration::from_secs(60);
const HOLD_STEP: Duration = Duration::from_millis(20);
/// A checkpoint waits so many times (10 ms each) for compaction to catch up.
const DEEP_WAITS_MAX: usize = 500;

fn serve<S: Shards>(mut tools: Tools<S>, requests: &Receiver<Request>, asked: &AtomicBool) {
    // Who asked while the server was to end.
    let mut late = Vec::new();
    while let Ok(mut request) = requests.recv() {
        let result = match &mut request {
            Request::End => return,
            Request::Hold(held, until) => {
                let _ = held.send(());
                tools.hold(until);
                continue;
            }
            Request::Room => {
                if !tools.is_ending() {
                    tools.seek_room();
                }
                continue;
            }
            Request::Checkpoint(askers) => {
                if askers.is_empty() {
                    asked.store(false, Ordering::SeqCst);
                }
                if tools.is_ending() {
                    // The last one does for all.
                    late.append(askers);
                    continue;
                }
                askers.append(&mut late);
                tools.run(false)
            }
            Request::Now(_) => tools.run(true),
        };
        if let Err(text) = &result {
            tracing::warn!("{text}; nothing is lost, the log keeps what it would have stored");
        }
        match request {
            Request::Checkpoint(askers) => {
                if result.is_err() && askers.is_empty() && !tools.is_ending() {
                    std::thread::park_timeout(RETRY);
                }
                for (shard, conn) in askers {
                    tools.shards.tell(shard, conn, result.clone());
                }
            }
            Request::Now(answer) => {
                for (shard, conn) in late.drain(..) {
                    tools.shards.tell(shard, conn, result.clone());
                }
                let _ = answer.send(result);
            }
            Request::End | Request::Hold(..) | Request::Room => {}
        }
    }
}

impl<S: Shards> Tools<S> {
    fn is_ending(&self) -> bool {
        self.ending.load(Ordering::SeqCst)
    }

    /// Waits until the other end is gone, but not for ever.
    fn hold(&self, until: &Receiver<()>) {
        let mut waited = Duration::ZERO;
        // Ends with a disconnect, as nothing is ever sent.
        while waited < HOLD_MAX
            && !self.is_ending()
            && until.recv_timeout(HOLD_STEP) == Err(RecvTimeoutError::Timeout)
        {
            waited += HOLD_STEP;
        }
    }

    /// Runs a checkpoint; `now`: whatever the store's compaction does.
    ///
    /// # Errors
    /// Why it failed; nothing is lost.
    pub fn run(&mut self, now: bool) -> Result<(), String> {
        let began_ms = self.clock.now_ms();
        self.progress.running.store(true, Ordering::Relaxed);
        if self.store.is_full() {
            // Compaction had no room.
            self.give_ballast_up();
        } else {
            self.fit_ballast();
        }
        let mut result = self.checkpoint(now);
        let full = CheckpointError::Store(StoreError::Full);
        if result.as_ref().err() == Some(&full) && self.give_ballast_up() {
            result = self.checkpoint(true);
        }
        // Before anybody asks whether the next one is due.
        if let Ok(outcome) = &result {
            self.log.trim(match sim::fault(Fault::TrimTooEarly) {
                true => self.log.durable_lsn(),
                false => outcome.meta.lsn,
            });
        }
        self.progress.running.store(false, Ordering::Relaxed);
        self.progress
            .failed
            .store(result.is_err(), Ordering::Relaxed);
        let outcome = result.map_err(|error| error.to_string())?;
        let took_ms = self.clock.now_ms() - began_ms;
        self.progress
            .finished_ms
            .store(self.clock.now_ms(), Ordering::Relaxed);
        self.progress.took_ms.store(took_ms, Ordering::Relaxed);
        let rows = outcome.rows_put + outcome.rows_deleted;
        self.may_shrink |= rows > 0;
        self.progress.rows.store(rows, Ordering::Relaxed);
        self.progress.lsn.store(outcome.meta.lsn, Ordering::Relaxed);
        self.progress.count.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(
            "checkpoint at {} wrote {rows} rows in {took_ms} ms",
            outcome.meta.lsn
        );
        Ok(())
    }

    /// Makes room for a checkpoint and for compaction; writes are refused until it is taken back.
    /// False without any to make.
    fn give_ballast_up(&mut self) -> bool {
        let mib = self.ballast.held_bytes() >> 20;
        if !self.ballast.give_up() {
            return false;
        }
        tracing::warn!(
            "the disk is full: {mib} MiB that were kept back are given up for a checkpoint; writes \
             are refused until there is room again"
        );
        self.note_ballast();
        true
    }

    /// Lets the ballast be as large as the store asks for, if there is room.
    fn fit_ballast(&mut self) {
        // What compaction is about to give back, it needs before.
        let missing = self.ballast.is_missing();
        if missing && self.store.is_compacting() {
            return;
        }
        let fits = self.ballast.fit(self.store.disk_bytes());
        match (missing, fits) {
            (true, true) => tracing::info!("there is room on the disk again"),
            (false, false) => tracing::warn!(
                "the disk is nearly full: writes are refused until the store has room to be \
                 written anew"
            ),
            _ => return,
        }
        self.note_ballast();
    }

    /// The ballast is missing: lets the store give back what was deleted, which it would not do by
    /// itself before it got much more.
    fn seek_room(&mut self) {
        self.fit_ballast();
        if !self.ballast.is_missing() || self.store.is_compacting() || !self.may_shrink {
            return;
        }
        if self.store.disk_bytes() > BALLAST_BYTES_MAX {
            // Too much at once; more runs let it compact piece by piece.
            if let Err(text) = self.run(true) {
                tracing::warn!("{text}");
            }
            return;
        }
        self.may_shrink = false;
        match self.store.shrink() {
            Ok(()) => self.fit_ballast(),
            // Again, if there is something left to give up for it.
            Err(StoreError::Full) => self.may_shrink = self.give_ballast_up(),
            Err(error) => tracing::error!("compaction of the store failed: {error}"),
        }
    }

    /// Tells the log and everybody else whether the ballast is missing.
    fn note_ballast(&mut self) {
        let missing = self.ballast.is_missing();
        self.log.withhold_space(missing);
        self.progress
            .ballast_missing
            .store(missing, Ordering::Relaxed);
    }

    fn checkpoint(&mut self, now: bool) -> Result<checkpoint::Outcome, CheckpointError> {
        self.store.let_compact(!self.is_ending());
        let mut found = self.dead.look(&*self.store, &self.ending);
        let stale = Stale {
            rows: std::mem::take(&mut found.rows),
            deadlines_ms: self.past_ms.clone(),
        };
        let mut waits = 0;
        let ending = self.ending.clone();
        let mut deep = |_depth| {
            waits += 1;
            if now || ending.load(Ordering::SeqCst) || waits > DEEP_WAITS_MAX {
                return Deep::Proceed;
            }
            std::thread::park_timeout(Duration::from_millis(10));
            if waits % 2 == 0 {
                Deep::Relieve
            } else {
                Deep::Again
            }
        };
        let mut sweep = Sweeper {
            tools: self,
            shard: 0,
            retired: false,
            expired_until_ms: u64::MAX,
            stuck: BTreeSet::new(),
        };
        let store = sweep.tools.store.clone();
        let outcome = checkpoint::run(&*store, &mut sweep, stale, &mut deep);
        let Sweeper {
            retired,
            expired_until_ms,
            stuck,
            ..
        } = sweep;
        let outcome = outcome?;
        self.dead.removed(found);
        if retired {
            self.dead.retire();
        }
        if outcome.deadlines_removed {
            self.past_ms.start = self.past_ms.end;
        }
        // A hint may be older than what was removed long ago.
        self.past_ms.end = self.past_ms.start.max(expired_until_ms);
        self.stuck = stuck;
        Ok(outcome)
    }
}

struct Sweeper<'a, S> {
    tools: &'a mut Tools<S>,
    shard: usize,
    /// Rows of hashes that are gone were given.
    retired: bool,
    /// What is due before this has expired in all shards.
    expired_until_ms: u64,
    /// But for these keys.
    stuck: BTreeSet<(u16, u32, u32)>,
}

impl<S: Shards> Sweeper<'_, S> {
    fn finish(&self, shards: Range<ShardId>, ok: bool) {
        for shard in shards {
            let _ = self.tools.shards.ask(shard, SweepStep::Finished(ok));
        }
    }
}

impl<S: Shards> Sweep for Sweeper<'_, S> {
    fn begin(&mut self) -> Result<Meta, String> {
        // Read before any sweep begins: all effects up to it are in memory by then.
        let position = self.tools.log.position();
        let time_ms = self.tools.clock.now_ms();
        for shard in 0..self.tools.shards.count() {
            let slice = match self.tools.shards.ask(shard, SweepStep::Begin) {
                Ok(slice) => slice,
                Err(text) => {
                    self.finish(0..shard, false);
                    return Err(text);
                }
            };
            self.expired_until_ms = self.expired_until_ms.min(slice.expired_until_ms);
            let place = |hint: &Hint| (hint.slot, hint.database, hint.hash32);
            self.stuck.extend(slice.stuck.iter().map(place));
            if let Some((ids, next)) = slice.databases
                && shard == 0
            {
                let map = Databases::restored(ids, next, 0);
                self.tools.dead.follow(map);
            }
        }
        let dead = &self.tools.dead;
        Ok(Meta {
            format: ROWS_FORMAT,
            lsn: position.lsn,
            // Until it is known how far the rows reach.
            rows_lsn: position.lsn,
            chain: position.chain,
            time_ms,
            token_ceiling: self.tools.tokens.ceiling(),
            databases: dead.databases().ids().to_vec(),
            next_database_id: dead.databases().next(),
            dead_databases: dead.has_flushed(),
        })
    }

    fn next(&mut self) -> Result<Option<Slice>, String> {
        while self.shard < self.tools.shards.count() {
            let SweepSlice {
                slice,
                complete,
                retired,
                ..
            } = self.tools.shards.ask(self.shard, SweepStep::Next)?;
            self.retired |= retired;
            if complete {
                self.shard += 1;
            }
            let empty = slice.rows.is_empty() && slice.deadlines.is_empty();
            if !empty || !slice.counts.is_empty() {
                return Ok(Some(slice));
            }
        }
        Ok(None)
    }

    fn wait_durable(&mut self) -> Result<u64, String> {
        // Shards seal before they give rows, so nothing that was given is behind this.
        let end_lsn = self.tools.log.last_lsn();
        let log = &self.tools.log;
        self.tools.shards.wait_durable(log, end_lsn)?;
        Ok(end_lsn)
    }

    fn hurries(&self) -> bool {
        self.tools.is_ending()
    }

    fn stays(&self, deadline: &[u8]) -> bool {
        let Tools { stuck, seed, .. } = &*self.tools;
        match RowKey::decode(deadline) {
            Ok(RowKey::Deadline {
                slot,
                database,
                key,
                ..
            }) if !stuck.is_empty() => stuck.contains(&(slot, database, key_hash32(key, *seed))),
            _ => false,
        }
    }

    fn finished(&mut self, ok: bool) {
        self.finish(0..self.tools.shards.count(), ok);
    }
}

#[cfg(test)]
#[path = "checkpoints_tests.rs"]
mod tests;
