//! The store in memory, for tests and the simulator. What is ingested counts as on disk: keep the
//! `Arc<MapStore>` over a simulated crash.
//!
//! Faults it injects ([`Fault`]): a disk that is full when an ingestion begins, after some rows or
//! at the end, because the checkpoint must then leave everything dirty and try again; a crash just
//! before and just after an ingestion becomes visible, because the position in the meta row must
//! move with the rows; a damaged row, because reading it must answer an error and not a null;
//! compaction that meets damage, because checkpoints must go on.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{Ascending, Fill, Finish, Ingestion, Rows, Store, StoreError, row};

/// A failure of the next ingestion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No space after so many rows.
    FullAfter(usize),
    /// No space when the last table is written.
    FullAtFinish,
    /// The process dies before the rows are visible: an error, and nothing was written.
    CrashBeforeFinish,
    /// The process dies after the rows are visible: an error, and everything was written.
    CrashAfterFinish,
}

/// The store in memory.
#[derive(Debug, Default)]
pub struct MapStore {
    state: Mutex<State>,
    rows_read: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct State {
    // Shared with scans: an ingestion copies the map only while a scan is open.
    rows: Arc<BTreeMap<Bytes, Bytes>>,
    fault: Option<Fault>,
    damaged: BTreeSet<Bytes>,
    depth: usize,
    relief_fails: bool,
    reads: u64,
    needs_reopen: bool,
}

impl MapStore {
    /// An empty store.
    pub fn new() -> Self {
        MapStore::default()
    }

    /// Lets the next ingestion fail.
    pub fn fail_next(&self, fault: Fault) {
        self.state().fault = Some(fault);
    }

    /// Lets reads of this row find damage.
    pub fn damage(&self, key: &[u8]) {
        self.state().damaged.insert(Bytes::copy_from_slice(key));
    }

    /// Pretends that the first level holds so many runs; each [`Store::relieve`] takes one away.
    pub fn set_depth(&self, depth: usize) {
        self.state().depth = depth;
    }

    /// Lets each [`Store::relieve`] find damage.
    pub fn damage_relief(&self) {
        self.state().relief_fails = true;
    }

    /// How often a row was read or a scan begun.
    pub fn reads(&self) -> u64 {
        self.state().reads
    }

    /// How many rows were asked for, those of scans included.
    pub fn rows_read(&self) -> u64 {
        self.rows_read.load(Ordering::Relaxed)
    }

    /// The number of rows, the meta row included.
    pub fn len(&self) -> usize {
        self.state().rows.len()
    }

    /// True when there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ingest_with(&self, fault: Option<Fault>, fill: &mut Fill<'_>) -> Result<bool, StoreError> {
        let mut given = Given {
            rows: Vec::new(),
            order: Ascending::default(),
            fault,
        };
        match fill(&mut given)? {
            Finish::With(meta) => {
                let meta = (
                    Bytes::from_static(&row::META_KEY),
                    Some(meta.encode().into()),
                );
                given.rows.push(meta);
            }
            Finish::Rows => {}
            Finish::Abandon => return Ok(false),
        }
        let crash = || StoreError::io("memory", "the process ended here");
        match fault {
            Some(Fault::FullAtFinish) => return Err(StoreError::Full),
            Some(Fault::CrashBeforeFinish) => return Err(crash()),
            _ => self.publish(given.rows),
        }
        if fault == Some(Fault::CrashAfterFinish) {
            Err(crash())
        } else {
            Ok(true)
        }
    }

    fn publish(&self, rows: Vec<(Bytes, Option<Bytes>)>) {
        let mut state = self.state();
        let map = Arc::make_mut(&mut state.rows);
        for (key, value) in rows {
            match value {
                Some(value) => map.insert(key, value),
                None => map.remove(&key),
            };
        }
    }
}

impl Store for MapStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let mut state = self.state();
        state.reads += 1;
        self.rows_read.fetch_add(1, Ordering::Relaxed);
        if state.damaged.contains(key) {
            return Err(StoreError::damaged(
                "memory",
                "the checksum of a block is wrong",
            ));
        }
        Ok(state.rows.get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8]) -> Rows {
        let mut state = self.state();
        state.reads += 1;
        Box::new(Scan {
            rows: Arc::clone(&state.rows),
            damaged: state.damaged.clone(),
            rows_read: Arc::clone(&self.rows_read),
            from: Bound::Included(Bytes::copy_from_slice(from)),
            to: Bytes::copy_from_slice(to),
        })
    }

    fn ingest(&self, fill: &mut Fill<'_>) -> Result<bool, StoreError> {
        let fault = {
            let mut state = self.state();
            if state.needs_reopen {
                return Err(StoreError::io("memory", "the store must be reopened first"));
            }
            state.fault.take()
        };
        let finished = self.ingest_with(fault, fill);
        if finished != Ok(true) {
            self.state().needs_reopen = true;
        }
        finished
    }

    fn depth(&self) -> usize {
        self.state().depth
    }

    fn disk_bytes(&self) -> u64 {
        self.state()
            .rows
            .iter()
            .map(|(key, value)| (key.len() + value.len()) as u64)
            .sum()
    }

    fn relieve(&self) -> Result<bool, StoreError> {
        let mut state = self.state();
        if state.relief_fails {
            state.needs_reopen = true;
            return Err(StoreError::damaged("memory", "a block cannot be merged"));
        }
        let was_deep = state.depth > 0;
        state.depth = state.depth.saturating_sub(1);
        Ok(was_deep)
    }

    fn needs_reopen(&self) -> bool {
        self.state().needs_reopen
    }

    fn reopen(&self) -> Result<(), StoreError> {
        self.state().needs_reopen = false;
        Ok(())
    }
}

struct Given {
    rows: Vec<(Bytes, Option<Bytes>)>,
    order: Ascending,
    fault: Option<Fault>,
}

impl Given {
    fn push(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), StoreError> {
        self.order.check(key);
        if self.fault == Some(Fault::FullAfter(self.rows.len())) {
            return Err(StoreError::Full);
        }
        self.rows.push((
            Bytes::copy_from_slice(key),
            value.map(Bytes::copy_from_slice),
        ));
        Ok(())
    }
}

impl Ingestion for Given {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.push(key, Some(value))
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), StoreError> {
        self.push(key, None)
    }
}

struct Scan {
    rows: Arc<BTreeMap<Bytes, Bytes>>,
    damaged: BTreeSet<Bytes>,
    rows_read: Arc<AtomicU64>,
    from: Bound<Bytes>,
    to: Bytes,
}

impl Iterator for Scan {
    type Item = Result<(Bytes, Bytes), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        // An empty span would make the map panic.
        let (Bound::Included(from) | Bound::Excluded(from)) = &self.from else {
            return None;
        };
        if *from >= self.to {
            return None;
        }
        let to = Bound::Excluded(self.to.clone());
        let (key, value) = self.rows.range((self.from.clone(), to)).next()?;
        self.from = Bound::Excluded(key.clone());
        self.rows_read.fetch_add(1, Ordering::Relaxed);
        if self.damaged.contains(key) {
            return Some(Err(StoreError::damaged(
                "memory",
                "the checksum of a block is wrong",
            )));
        }
        Some(Ok((key.clone(), value.clone())))
    }
}
