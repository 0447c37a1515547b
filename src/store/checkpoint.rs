//! A checkpoint: what shards changed since the last one, streamed into the store in one ingestion
//! together with the log position it belongs to. A plain function; its thread lives elsewhere
//! and steers it through [`Sweep`] and [`Deep`].
//!
//! Always true here:
//! - The position is read before any shard begins its sweep, so every effect up to it is in the
//!   rows; later effects may be too, and replaying them again changes nothing. The meta row says
//!   how far they reach, so that a log which lost them is not taken for a whole one.
//! - Nothing becomes visible in the store before the log holds it durably: the ingestion finishes
//!   after [`Sweep::wait_durable`].
//! - Rows arrive ascending (asserted). Deadline rows sort after all slots but come with their keys,
//!   so they are gathered, at most [`CHECKPOINT_DEADLINE_BYTES_MAX`] of them: beyond that they get
//!   an ingestion of their own, before the rows they belong to. That is right because they are
//!   hints: one too many is found wrong when it fires, and one that is removed early belongs to a
//!   key whose change is durable in the log and so comes back to memory after a crash.
//! - [`Sweep::finished`] is called exactly once per begun sweep. After `false` the shards count
//!   everything they gave as dirty again.

use std::fmt;
use std::iter::Peekable;
use std::ops::Range;
use std::vec;

use bytes::Bytes;

use super::{DeadlineRows, Finish, Ingestion, Meta, Store, StoreError, row};
use crate::limits::{CHECKPOINT_DEADLINE_BYTES_MAX, STORE_DEPTH_MAX};

/// One changed row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowChange {
    /// The row's key.
    pub key: Vec<u8>,
    /// The row's new value; `None` removes it.
    pub value: Option<Bytes>,
}

/// What a shard gives between two turns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// Rows of slots, ascending, and all behind those of earlier slices.
    pub rows: Vec<RowChange>,
    /// Deadline rows, in any order; where one is both set and removed, it is set.
    pub deadlines: Vec<RowChange>,
    /// Counts, ascending, and all behind those of earlier slices. There are at most as many as
    /// slots and databases.
    pub counts: Vec<RowChange>,
}

/// Rows to be removed with a checkpoint. A row that the sweep gives itself wins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stale {
    /// Their keys, ascending.
    pub rows: Vec<Vec<u8>>,
    /// And all deadline rows from one moment to another, in milliseconds: as many as there are.
    pub deadlines_ms: Range<u64>,
}

/// The shards' side of a checkpoint.
pub trait Sweep {
    /// Reads the position (the last durable record) and what belongs to it, then lets the shards
    /// begin. An error leaves nothing begun.
    fn begin(&mut self) -> Result<Meta, String>;

    /// The next slice, in slot order; `None` when all shards are through. May block.
    fn next(&mut self) -> Result<Option<Slice>, String>;

    /// Waits until the log holds durably everything that was given so far; up to which lsn that is.
    fn wait_durable(&mut self) -> Result<u64, String>;

    /// The sweep is over: with true everything given is in the store and clean unless changed
    /// since, and the log up to the position may be recycled; with false it is dirty again.
    fn finished(&mut self, ok: bool);

    /// Nobody has time to remove what is stale.
    fn hurries(&self) -> bool {
        false
    }

    /// Whether this row, of a deadline that is over, is still needed.
    fn stays(&self, _deadline: &[u8]) -> bool {
        false
    }
}

/// The store as [`run`] finds it while its first level is deep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth {
    /// Sorted runs in the first level.
    pub runs: usize,
    /// The last [`Deep::Relieve`] found nothing to do: the store's own thread is at it, so wait a
    /// moment before answering.
    pub busy: bool,
}

/// What to do while the store's first level is deep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deep {
    /// Do one step of compaction here and ask again.
    Relieve,
    /// Ask again; the caller has waited. Not for ever: only `Relieve` is sure to get on.
    Again,
    /// Begin the checkpoint all the same.
    Proceed,
    /// Give up.
    Stop,
}

/// What a checkpoint did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The meta row it wrote: the log before its position may be recycled.
    pub meta: Meta,
    /// Rows set, deadline rows included.
    pub rows_put: u64,
    /// Rows removed, deadline rows and dead rows included.
    pub rows_deleted: u64,
    /// Bytes of keys and values given to the store.
    pub bytes: u64,
    /// Ingestions of deadline rows by themselves.
    pub deadline_ingestions: u64,
    /// All stale deadline rows were removed, but for what damage hides.
    pub deadlines_removed: bool,
}

/// Why a checkpoint did not happen. Nothing was lost: it may be tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckpointError {
    /// The store failed; it was reopened if that was needed and possible.
    Store(StoreError),
    /// The shards or the log ended it.
    Sweep(String),
    /// The caller gave up while the store was deep.
    Stopped,
}

impl fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CheckpointError::Store(error) => write!(f, "checkpoint failed: {error}"),
            CheckpointError::Sweep(error) => write!(f, "checkpoint ended: {error}"),
            CheckpointError::Stopped => write!(f, "checkpoint stopped before it began"),
        }
    }
}

impl std::error::Error for CheckpointError {}

impl From<StoreError> for CheckpointError {
    fn from(error: StoreError) -> Self {
        CheckpointError::Store(error)
    }
}

/// Runs one checkpoint.
///
/// `stale` is removed besides. `deep` is asked while more than [`STORE_DEPTH_MAX`] runs are in the
/// first level.
pub fn run(
    store: &dyn Store,
    sweep: &mut dyn Sweep,
    stale: Stale,
    deep: &mut dyn FnMut(Depth) -> Deep,
) -> Result<Outcome, CheckpointError> {
    run_bounded(store, sweep, stale, deep, CHECKPOINT_DEADLINE_BYTES_MAX)
}

fn run_bounded(
    store: &dyn Store,
    sweep: &mut dyn Sweep,
    stale: Stale,
    deep: &mut dyn FnMut(Depth) -> Deep,
    deadline_bytes_max: usize,
) -> Result<Outcome, CheckpointError> {
    if store.needs_reopen() {
        store.reopen()?;
    }
    wait_for_depth(store, deep)?;
    let meta = sweep.begin().map_err(CheckpointError::Sweep)?;
    let mut checkpoint = Checkpoint {
        store,
        sweep,
        dead: stale.rows.into_iter().peekable(),
        deadlines_ms: Some(stale.deadlines_ms),
        past: None,
        deadlines: Deadlines {
            bytes_max: deadline_bytes_max,
            ..Deadlines::default()
        },
        counts: Vec::new(),
        outcome: Outcome {
            meta,
            ..Outcome::default()
        },
    };
    let result = checkpoint.ingest();
    let outcome = checkpoint.outcome;
    sweep.finished(result.is_ok());
    if result.is_err() && store.needs_reopen() {
        // At once, because it gives back the space of what was half written. If it fails, the next
        // checkpoint tries again, and the first error is the one that matters.
        let _ = store.reopen();
    }
    result.map(|()| outcome)
}

fn wait_for_depth(
    store: &dyn Store,
    deep: &mut dyn FnMut(Depth) -> Deep,
) -> Result<(), CheckpointError> {
    let mut busy = false;
    loop {
        let runs = store.depth();
        if runs <= STORE_DEPTH_MAX {
            return Ok(());
        }
        match deep(Depth { runs, busy }) {
            Deep::Relieve => match store.relieve() {
                Ok(done) => busy = !done,
                Err(StoreError::Full) => return Err(StoreError::Full.into()),
                Err(error) => {
                    // What compaction cannot read may still be added to.
                    tracing::warn!("compaction of the store failed: {error}");
                    if store.needs_reopen() {
                        store.reopen()?;
                    }
                    return Ok(());
                }
            },
            Deep::Again => busy = false,
            Deep::Proceed => return Ok(()),
            Deep::Stop => return Err(CheckpointError::Stopped),
        }
    }
}

struct Checkpoint<'a> {
    store: &'a dyn Store,
    sweep: &'a mut dyn Sweep,
    dead: Peekable<vec::IntoIter<Vec<u8>>>,
    /// The times of stale deadline rows, until they are looked for.
    deadlines_ms: Option<Range<u64>>,
    /// Stale deadline rows that are left to be removed.
    past: Option<Peekable<DeadlineRows<'a>>>,
    deadlines: Deadlines,
    counts: Vec<RowChange>,
    outcome: Outcome,
}

impl Checkpoint<'_> {
    fn ingest(&mut self) -> Result<(), CheckpointError> {
        let mut ended = None;
        let store = self.store;
        let finished = store.ingest(&mut |rows| match self.fill(rows) {
            Ok(()) => Ok(Finish::With(self.outcome.meta.clone())),
            Err(CheckpointError::Store(error)) => Err(error),
            Err(error) => {
                ended = Some(error);
                Ok(Finish::Abandon)
            }
        })?;
        match ended {
            Some(error) => Err(error),
            None => {
                assert!(finished, "an ingestion is abandoned for a reason");
                Ok(())
            }
        }
    }

    fn fill(&mut self, rows: &mut dyn Ingestion) -> Result<(), CheckpointError> {
        while let Some(slice) = self.sweep.next().map_err(CheckpointError::Sweep)? {
            for change in slice.rows {
                assert!(
                    change.key.as_slice() < row::COUNTS_BEGIN,
                    "a count or deadline row among a slot's rows"
                );
                self.give_dead_before(rows, &change.key)?;
                self.give(rows, &change.key, change.value.as_deref())?;
            }
            for change in slice.deadlines {
                self.deadlines.push(&change);
            }
            self.counts.extend(slice.counts);
            if self.deadlines.is_full() {
                self.ingest_deadlines_alone()?;
            }
        }
        for change in std::mem::take(&mut self.counts) {
            self.give_dead_before(rows, &change.key)?;
            self.give(rows, &change.key, change.value.as_deref())?;
        }
        let mut deadlines = std::mem::take(&mut self.deadlines);
        self.open_past();
        for (key, set) in deadlines.sorted() {
            self.give_dead_before(rows, key)?;
            self.give(rows, key, set.then_some(&[]))?;
        }
        self.give_dead_before(rows, &row::META_KEY)?;
        self.outcome.meta.rows_lsn = self.wait_durable()?;
        Ok(())
    }

    fn wait_durable(&mut self) -> Result<u64, CheckpointError> {
        let rows_lsn = self.sweep.wait_durable().map_err(CheckpointError::Sweep)?;
        let lsn = self.outcome.meta.lsn;
        assert!(rows_lsn >= lsn, "rows end at {rows_lsn}, before {lsn}");
        Ok(rows_lsn)
    }

    /// Removes the dead rows before `key`; a dead row at `key` itself gives way to it.
    fn give_dead_before(&mut self, rows: &mut dyn Ingestion, key: &[u8]) -> Result<(), StoreError> {
        while let Some(dead) = self.dead.next_if(|dead| dead.as_slice() <= key) {
            self.give_past_before(rows, &dead)?;
            if dead != key {
                self.give(rows, &dead, None)?;
            }
        }
        self.give_past_before(rows, key)
    }

    /// Removes the stale deadline rows before `key`, likewise.
    fn give_past_before(&mut self, rows: &mut dyn Ingestion, key: &[u8]) -> Result<(), StoreError> {
        while let Some(past) = &mut self.past {
            if self.sweep.hurries() {
                self.past = None;
                break;
            }
            match past.next_if(|row| row.as_ref().map_or(true, |past| &past[..] <= key)) {
                Some(Ok(past)) if &past[..] == key || self.sweep.stays(&past) => {}
                Some(Ok(past)) => self.give(rows, &past, None)?,
                Some(Err(error)) => {
                    tracing::warn!("deadlines that are over cannot all be removed: {error}");
                    self.past = None;
                }
                None if past.peek().is_none() => {
                    self.outcome.deadlines_removed = true;
                    self.past = None;
                }
                None => break,
            }
        }
        Ok(())
    }

    /// Deadline rows are about to be given. Those that are stale go with the first of them.
    fn open_past(&mut self) {
        if let Some(Range { start, end }) = self.deadlines_ms.take()
            && !self.sweep.hurries()
        {
            self.past = Some(DeadlineRows::between(self.store, start, end).peekable());
        }
    }

    fn give(
        &mut self,
        rows: &mut dyn Ingestion,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), StoreError> {
        match value {
            Some(value) => {
                rows.put(key, value)?;
                self.outcome.rows_put += 1;
            }
            None => {
                rows.delete(key)?;
                self.outcome.rows_deleted += 1;
            }
        }
        self.outcome.bytes += (key.len() + value.map_or(0, <[u8]>::len)) as u64;
        Ok(())
    }

    fn ingest_deadlines_alone(&mut self) -> Result<(), CheckpointError> {
        let rows_lsn = self.wait_durable()?;
        // The position stays: the rows that these belong to are not there yet.
        let finish = self
            .store
            .meta()?
            .map_or(Finish::Rows, |meta| Finish::With(Meta { rows_lsn, ..meta }));
        let bytes_max = self.deadlines.bytes_max;
        let fresh = Deadlines {
            bytes_max,
            ..Deadlines::default()
        };
        let mut deadlines = std::mem::replace(&mut self.deadlines, fresh);
        let store = self.store;
        store.ingest(&mut |rows| {
            self.open_past();
            for (key, set) in deadlines.sorted() {
                self.give_past_before(rows, key)?;
                self.give(rows, key, set.then_some(&[]))?;
            }
            self.give_past_before(rows, &row::META_KEY)?;
            Ok(finish.clone())
        })?;
        self.outcome.deadline_ingestions += 1;
        Ok(())
    }
}

/// Deadline rows packed into one buffer: there may be millions.
#[derive(Debug, Default)]
struct Deadlines {
    bytes: Vec<u8>,
    rows: Vec<DeadlineRow>,
    bytes_max: usize,
}

#[derive(Clone, Copy, Debug)]
struct DeadlineRow {
    from: u32,
    length: u16,
    set: bool,
}

impl Deadlines {
    fn push(&mut self, change: &RowChange) {
        let key = change.key.as_slice();
        assert!(
            key >= row::DEADLINES_BEGIN && key < row::META_KEY.as_slice(),
            "not a deadline row"
        );
        assert!(
            change.value.as_ref().is_none_or(Bytes::is_empty),
            "a deadline row has no value"
        );
        let from = u32::try_from(self.bytes.len()).expect("bounded by is_full");
        let length = u16::try_from(key.len()).expect("bounded by the row key");
        self.bytes.extend_from_slice(key);
        self.rows.push(DeadlineRow {
            from,
            length,
            set: change.value.is_some(),
        });
    }

    fn is_full(&self) -> bool {
        self.bytes.len() + self.rows.len() * size_of::<DeadlineRow>() >= self.bytes_max
    }

    /// Ascending, each key once, with whether it is set.
    fn sorted(&mut self) -> impl Iterator<Item = (&[u8], bool)> {
        let bytes = self.bytes.as_slice();
        let key = |row: &DeadlineRow| &bytes[row.from as usize..][..usize::from(row.length)];
        self.rows
            .sort_unstable_by(|a, b| (key(a), b.set).cmp(&(key(b), a.set)));
        // A set row sorts before the same row removed, and the first stays.
        self.rows.dedup_by(|later, first| key(later) == key(first));
        self.rows.iter().map(move |row| (key(row), row.set))
    }
}

#[cfg(test)]
#[path = "checkpoint_tests.rs"]
mod tests;
