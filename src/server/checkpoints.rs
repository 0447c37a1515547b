//! The checkpoint thread: one checkpoint at a time, asked for by size, by command, or at the stop.
//!
//! Always true: the position is read before any shard begins its sweep; the log is trimmed only
//! behind a position that the store has. When a checkpoint finds the disk full, the ballast is
//! given up for it, and the log leaves the disk's space alone until the ballast is back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::clock::Clock;
use crate::keyspace::databases::visible;
use crate::keyspace::deadlines::Hint;
use crate::keyspace::key::key_hash32;
use crate::keyspace::tokens::TokenSource;
use crate::limits::{BALLAST_BYTES_MAX, SLOTS};
use crate::log::Log;
use crate::shard::mailbox::{ConnId, Message, ShardId, SweepSlice, SweepStep};
use crate::sim::{self, Fault};
use crate::store::checkpoint::{self, CheckpointError, Deep, Slice, Sweep};
use crate::store::janitor::dead_rows;
use crate::store::row::{KeyOf, RowKey, RowKind, counts, deadlines, fields, kind_in_slot, slots};
use crate::store::{Ballast, Meta, Store, StoreError};
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
    /// Database ids, as of the last sweep's beginning.
    pub databases: DatabaseMap,
    /// The store may have rows of hashes that are gone.
    pub retired: bool,
    /// What was due before this had expired when the last checkpoint began.
    pub expired_until_ms: u64,
    /// But for this, which could not be read.
    pub stuck: Vec<Hint>,
    /// Hash seed of the data folder.
    pub seed: u64,
    /// What others may read.
    pub progress: Arc<Progress>,
    /// Space for a checkpoint when nothing else is left.
    pub ballast: Ballast,
    /// The store got rows since it was last written anew for want of room.
    pub may_shrink: bool,
}

/// The map of databases, and the ids whose rows are to be removed.
#[derive(Clone, Debug, Default)]
pub struct DatabaseMap {
    /// Ids by number.
    pub ids: Vec<u32>,
    /// The next unused id.
    pub next: u32,
    /// Dead ids with rows in the store.
    pub dead: Vec<u32>,
}

impl DatabaseMap {
    /// The map is this now: ids that it does not name any more are dead.
    fn follow(&mut self, ids: Vec<u32>, next: u32) {
        let gone = self.ids.iter().copied().chain(self.next..next);
        self.dead.extend(gone.filter(|id| !ids.contains(id)));
        self.dead.sort_unstable();
        self.dead.dedup();
        (self.ids, self.next) = (ids, next);
    }
}

impl Checkpoints {
    /// Starts the thread.
    pub fn start(mut tools: Tools<Vec<Mailbox>>) -> Checkpoints {
        let (requests, received) = channel();
        let asked = Arc::new(AtomicBool::new(false));
        let flag = asked.clone();
        tools.note_ballast();
        let thread = std::thread::Builder::new()
            .name("checkpoint".into())
            .spawn(move || serve(tools, &received, &flag))
            .ok();
        Checkpoints {
            requests,
            asked,
            thread,
        }
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
/// So many dead rows are removed with one checkpoint.
const DEAD_ROWS_MAX: usize = 200_000;
/// A checkpoint waits so many times (10 ms each) for compaction to catch up.
const DEEP_WAITS_MAX: usize = 500;

fn serve(mut tools: Tools<Vec<Mailbox>>, requests: &Receiver<Request>, asked: &AtomicBool) {
    while let Ok(request) = requests.recv() {
        let result = match request {
            Request::End => return,
            Request::Hold(held, until) => {
                let _ = held.send(());
                // Ends with a disconnect, as nothing is ever sent.
                let _ = until.recv_timeout(HOLD_MAX);
                continue;
            }
            Request::Room => {
                tools.seek_room();
                continue;
            }
            Request::Checkpoint(ref askers) => {
                if askers.is_empty() {
                    asked.store(false, Ordering::SeqCst);
                }
                tools.run(false)
            }
            Request::Now(_) => tools.run(true),
        };
        if let Err(text) = &result {
            tracing::warn!("{text}; nothing is lost, the log keeps what it would have stored");
        }
        match request {
            Request::Checkpoint(askers) => {
                if result.is_err() && askers.is_empty() {
                    std::thread::park_timeout(RETRY);
                }
                for (shard, conn) in askers {
                    tools.shards.tell(shard, conn, result.clone());
                }
            }
            Request::Now(answer) => {
                let _ = answer.send(result);
            }
            Request::End | Request::Hold(..) | Request::Room => {}
        }
    }
}

impl<S: Shards> Tools<S> {
    /// Runs a checkpoint; `now`: whatever the store's compaction does.
    ///
    /// # Errors
    /// Why it failed; nothing is lost.
    pub fn run(&mut self, now: bool) -> Result<(), String> {
        let began_ms = self.clock.now_ms();
        self.progress.running.store(true, Ordering::Relaxed);
        let looked_for = self.databases.dead.clone();
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
        if let Ok((outcome, _)) = &result {
            self.log.trim(match sim::fault(Fault::TrimTooEarly) {
                true => self.log.durable_lsn(),
                false => outcome.meta.lsn,
            });
        }
        self.progress.running.store(false, Ordering::Relaxed);
        self.progress
            .failed
            .store(result.is_err(), Ordering::Relaxed);
        let (outcome, more_dead) = result.map_err(|error| error.to_string())?;
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
        if !more_dead {
            self.databases.dead.retain(|id| !looked_for.contains(id));
        }
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

    fn checkpoint(&mut self, now: bool) -> Result<(checkpoint::Outcome, bool), CheckpointError> {
        let (dead, more) = self.dead_rows()?;
        let retired = dead.len() >= DEAD_ROWS_MAX;
        let mut waits = 0;
        let mut deep = |_depth| {
            waits += 1;
            if now || waits > DEEP_WAITS_MAX {
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
            retired,
            expired_until_ms: u64::MAX,
            stuck: Vec::new(),
        };
        let store = sweep.tools.store.clone();
        let outcome = checkpoint::run(&*store, &mut sweep, dead, &mut deep);
        let Sweeper {
            retired,
            expired_until_ms,
            stuck,
            ..
        } = sweep;
        let outcome = outcome?;
        self.retired = retired;
        self.expired_until_ms = expired_until_ms;
        self.stuck = stuck;
        Ok((outcome, more))
    }

    /// Rows that nobody can reach any more: of dead databases, and fields of hashes that are gone.
    fn dead_rows(&self) -> Result<(Vec<Vec<u8>>, bool), StoreError> {
        let dead_ids = &self.databases.dead;
        let mut keys = if self.retired {
            self.retired_rows()?
        } else {
            Vec::new()
        };
        let mut more = false;
        let left = DEAD_ROWS_MAX.saturating_sub(keys.len());
        let stuck = (&self.stuck[..], self.seed);
        keys.extend(past_deadlines(
            &*self.store,
            self.expired_until_ms,
            stuck,
            left,
        )?);
        if !dead_ids.is_empty() {
            let (from, to) = (slots(0, SLOTS).0, counts().1);
            let is_dead = |row: &RowKey<'_>| {
                row.database()
                    .is_some_and(|id| dead_ids.binary_search(&visible(id)).is_ok())
            };
            let mut from = Some(from);
            while let Some(at) = from.take() {
                let found = dead_rows(&*self.store, &is_dead, &at, &to, 100_000)?;
                keys.extend(found.keys);
                if keys.len() >= DEAD_ROWS_MAX && found.next.is_some() {
                    more = true;
                    break;
                }
                from = found.next;
            }
        }
        keys.sort_unstable();
        keys.dedup();
        Ok((keys, more))
    }

    fn retired_rows(&self) -> Result<Vec<Vec<u8>>, StoreError> {
        let mut keys = Vec::new();
        for slot in 0..SLOTS {
            let (from, to) = kind_in_slot(slot, RowKind::Retired);
            for next in self.store.scan(&from, &to) {
                let (key, _) = next?;
                if keys.len() >= DEAD_ROWS_MAX {
                    return Ok(keys);
                }
                if let Ok(RowKey::Retired { of, generation }) = RowKey::decode(&key) {
                    self.retired_fields(of, generation, &mut keys)?;
                    if keys.len() < DEAD_ROWS_MAX {
                        keys.push(key.to_vec());
                    }
                }
            }
        }
        Ok(keys)
    }

    fn retired_fields(
        &self,
        of: KeyOf<'_>,
        generation: u64,
        keys: &mut Vec<Vec<u8>>,
    ) -> Result<(), StoreError> {
        let (from, to) = fields(of, generation);
        for next in self.store.scan(&from, &to) {
            if keys.len() >= DEAD_ROWS_MAX {
                break;
            }
            keys.push(next?.0.to_vec());
        }
        Ok(())
    }
}

struct Sweeper<'a, S> {
    tools: &'a mut Tools<S>,
    shard: usize,
    /// Rows of hashes that are gone are left, or were given.
    retired: bool,
    /// What is due before this has expired in all shards.
    expired_until_ms: u64,
    /// But for this.
    stuck: Vec<Hint>,
}

impl<S: Shards> Sweep for Sweeper<'_, S> {
    fn begin(&mut self) -> Result<Meta, String> {
        // Read before any sweep begins: all effects up to it are in memory by then.
        let position = self.tools.log.position();
        let time_ms = self.tools.clock.now_ms();
        for shard in 0..self.tools.shards.count() {
            let slice = self.tools.shards.ask(shard, SweepStep::Begin)?;
            self.expired_until_ms = self.expired_until_ms.min(slice.expired_until_ms);
            self.stuck.extend(slice.stuck);
            if let Some((ids, next)) = slice.databases
                && shard == 0
            {
                self.tools.databases.follow(ids, next);
            }
        }
        let map = &self.tools.databases;
        Ok(Meta {
            format: 1,
            lsn: position.lsn,
            // Until it is known how far the rows reach.
            rows_lsn: position.lsn,
            chain: position.chain,
            time_ms,
            token_ceiling: self.tools.tokens.ceiling(),
            databases: map.ids.clone(),
            next_database_id: map.next,
            dead_databases: map.dead.clone(),
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

    fn finished(&mut self, ok: bool) {
        for shard in 0..self.tools.shards.count() {
            let _ = self.tools.shards.ask(shard, SweepStep::Finished(ok));
        }
    }
}

/// At most `limit` deadline rows whose time has come: their keys were deleted, or have a later row,
/// and the store knows that. Not those of keys that are stuck; the number is the folder's seed.
fn past_deadlines(
    store: &dyn Store,
    expired_until_ms: u64,
    (stuck, seed): (&[Hint], u64),
    limit: usize,
) -> Result<Vec<Vec<u8>>, StoreError> {
    let place = |hint: &Hint| (hint.slot, hint.database, hint.hash32);
    let stuck: BTreeSet<_> = stuck.iter().map(place).collect();
    let stays = |row: &[u8]| match RowKey::decode(row) {
        Ok(RowKey::Deadline {
            slot,
            database,
            key,
            ..
        }) => stuck.contains(&(slot, database, key_hash32(key, seed))),
        _ => false,
    };
    let (from, to) = deadlines(0, expired_until_ms);
    let mut past = Vec::new();
    for next in store.scan(&from, &to) {
        if past.len() >= limit {
            break;
        }
        let row = next?.0;
        if stuck.is_empty() || !stays(&row) {
            past.push(row.to_vec());
        }
    }
    Ok(past)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::key::key_slot;
    use crate::store::row::DeadlineOf;
    use crate::store::{Finish, MapStore};

    const SEED: u64 = 5;

    #[test]
    fn past_deadlines_go_but_for_those_of_keys_that_are_stuck() {
        let row = |at_ms: u64, key: &'static [u8]| {
            let deadline = RowKey::Deadline {
                at_ms,
                slot: key_slot(key),
                database: 0,
                key,
                of: DeadlineOf::Key,
            };
            deadline.encode()
        };
        let rows = [(10, b"a"), (20, b"b"), (30, b"a"), (40, b"c"), (50, b"d")];
        let rows = rows.map(|(at_ms, key)| row(at_ms, key));
        let store = MapStore::new();
        let filled = store.ingest(&mut |ingestion| {
            for row in &rows {
                ingestion.put(row, &[])?;
            }
            Ok(Finish::Rows)
        });
        assert_eq!(filled, Ok(true));
        let hint = |at_ms, key: &[u8]| Hint {
            at_ms,
            database: 0,
            hash32: key_hash32(key, SEED),
            slot: key_slot(key),
        };
        let past = |stuck: &[Hint], limit| {
            let past = past_deadlines(&store, 50, (stuck, SEED), limit);
            past.expect("the store can be read")
        };
        assert_eq!(past(&[], 9), rows[..4]);
        assert_eq!(past(&[hint(10, b"a")], 9), [&rows[1][..], &rows[3]]);
        assert_eq!(past(&[hint(10, b"a")], 1), [&rows[1][..]]);
        assert_eq!(past(&[hint(20, b"b"), hint(60, b"d")], 9).len(), 3);
    }
}
