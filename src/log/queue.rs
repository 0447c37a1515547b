//! The commit queue, and all that the log's threads and its handles share.
//!
//! Always true here: an lsn is given out under the queue's lock together with the place in the
//! queue, so queue order is lsn order; `durable_lsn` is published after the disk confirmed it, with
//! its position.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::record::batch_bytes;
use super::space::Space;
use super::stats::Counters;
use super::wait::Waiters;
use super::{Batch, Fatal, Lsn, Options, Position, SyncMode, lock};
use crate::limits::{LOG_GROUP_BATCHES_MAX, LOG_QUEUE_BATCHES_MAX, LOG_QUEUE_BYTES_MAX};
use crate::sim::{self, Fault};

pub(super) struct Shared {
    queue: Mutex<Queue>,
    /// The committer waits here.
    work: Condvar,
    queued_bytes: AtomicU64,
    queued_batches: AtomicUsize,
    /// The queue was at its bound and somebody may wait for room.
    was_full: AtomicBool,
    last_lsn: AtomicU64,
    durable_lsn: AtomicU64,
    durable: Mutex<Position>,
    durable_changed: Condvar,
    sync_mode: AtomicU8,
    sync_wanted_lsn: AtomicU64,
    failed: OnceLock<Fatal>,
    pub waiters: Waiters,
    pub counters: Counters,
    pub space: Space,
    pub options: Options,
    pub has_head: bool,
}

struct Queue {
    batches: VecDeque<Batch>,
    bytes: u64,
    last_lsn: Lsn,
    closing: bool,
    /// The committer sleeps and is to be woken at this many bytes.
    wake_at_bytes: Option<u64>,
}

impl Shared {
    /// `durable` is the end of what recovery found.
    pub fn new(
        options: Options,
        space: Space,
        counters: Counters,
        durable: Position,
        has_head: bool,
    ) -> Shared {
        Shared {
            queue: Mutex::new(Queue {
                batches: VecDeque::new(),
                bytes: 0,
                last_lsn: durable.lsn,
                closing: false,
                wake_at_bytes: None,
            }),
            work: Condvar::new(),
            queued_bytes: AtomicU64::new(0),
            queued_batches: AtomicUsize::new(0),
            was_full: AtomicBool::new(false),
            last_lsn: AtomicU64::new(durable.lsn),
            durable_lsn: AtomicU64::new(durable.lsn),
            durable: Mutex::new(durable),
            durable_changed: Condvar::new(),
            sync_mode: AtomicU8::new(options.sync as u8),
            sync_wanted_lsn: AtomicU64::new(0),
            failed: OnceLock::new(),
            waiters: Waiters::default(),
            counters,
            space,
            options,
            has_head,
        }
    }

    pub fn append(&self, batch: Batch) -> Lsn {
        let bytes = batch_bytes(&batch);
        self.space.queue(bytes, batch.reserved_bytes);
        let mut queue = lock(&self.queue);
        queue.last_lsn += 1;
        let lsn = queue.last_lsn;
        self.last_lsn.store(lsn, SeqCst);
        queue.bytes += bytes;
        queue.batches.push_back(batch);
        self.count(&queue);
        let wake = queue.wake_at_bytes.is_some_and(|at| queue.bytes >= at);
        if wake {
            queue.wake_at_bytes = None;
        }
        drop(queue);
        if wake {
            self.work.notify_one();
        }
        lsn
    }

    fn count(&self, queue: &Queue) {
        self.queued_bytes.store(queue.bytes, SeqCst);
        self.queued_batches.store(queue.batches.len(), SeqCst);
    }

    pub fn queue_full(&self) -> bool {
        let full = self.queued_bytes.load(SeqCst) >= LOG_QUEUE_BYTES_MAX
            || self.queued_batches.load(SeqCst) >= LOG_QUEUE_BATCHES_MAX
            || self.failed.get().is_some();
        if full {
            self.was_full.store(true, SeqCst);
        }
        full
    }

    pub fn queued(&self) -> (usize, u64) {
        (
            self.queued_batches.load(SeqCst),
            self.queued_bytes.load(SeqCst),
        )
    }

    /// Takes the next group: batches of together at most `bytes_max`, but at least one. With the
    /// lsn of the first.
    pub fn take_group(&self, bytes_max: u64) -> Option<(Lsn, Vec<Batch>)> {
        let mut queue = lock(&self.queue);
        let first_lsn = queue.last_lsn - queue.batches.len() as u64 + 1;
        let mut group = Vec::new();
        let mut group_bytes = 0;
        while let Some(batch) = queue.batches.front()
            && group.len() < LOG_GROUP_BATCHES_MAX
        {
            let bytes = batch_bytes(batch);
            if !group.is_empty() && group_bytes + bytes > bytes_max {
                break;
            }
            group_bytes += bytes;
            group.extend(queue.batches.pop_front());
        }
        queue.bytes -= group_bytes;
        self.count(&queue);
        drop(queue);
        if self.was_full.load(SeqCst) && self.queue_has_room() {
            self.was_full.store(false, SeqCst);
            self.waiters.space_changed();
        }
        (!group.is_empty()).then_some((first_lsn, group))
    }

    fn queue_has_room(&self) -> bool {
        self.queued_bytes.load(SeqCst) <= LOG_QUEUE_BYTES_MAX / 2
            && self.queued_batches.load(SeqCst) <= LOG_QUEUE_BATCHES_MAX / 2
    }

    /// An lsn for an empty record, if nothing is queued that would come before it.
    pub fn take_lsn(&self) -> Option<Lsn> {
        let mut queue = lock(&self.queue);
        if !queue.batches.is_empty() {
            return None;
        }
        queue.last_lsn += 1;
        self.last_lsn.store(queue.last_lsn, SeqCst);
        Some(queue.last_lsn)
    }

    pub fn last_lsn(&self) -> Lsn {
        self.last_lsn.load(SeqCst)
    }

    pub fn durable_lsn(&self) -> Lsn {
        self.durable_lsn.load(SeqCst)
    }

    pub fn released_lsn(&self) -> Lsn {
        match self.sync_mode() {
            SyncMode::Always if sim::fault(Fault::ReplyBeforeSync) => self.last_lsn(),
            SyncMode::Always => self.durable_lsn(),
            SyncMode::EverySec | SyncMode::No => Lsn::MAX,
        }
    }

    pub fn position(&self) -> Position {
        *lock(&self.durable)
    }

    /// Everything up to `position` is on disk. Refused when something else failed meanwhile: then
    /// nothing becomes durable any more.
    pub fn publish(&self, position: Position) -> Result<(), Fatal> {
        let mut durable = lock(&self.durable);
        assert!(
            position.lsn >= durable.lsn,
            "durable lsn falls: {durable:?} to {position:?}"
        );
        if let Some(fatal) = self.failed.get() {
            return Err(fatal.clone());
        }
        *durable = position;
        self.durable_lsn.store(position.lsn, SeqCst);
        drop(durable);
        self.durable_changed.notify_all();
        self.waiters.released(self.released_lsn());
        Ok(())
    }

    pub fn wait_durable(&self, lsn: Lsn) -> Result<(), Fatal> {
        assert!(
            lsn <= self.last_lsn(),
            "waiting for lsn {lsn}, which was not given out"
        );
        if self.sync_mode() != SyncMode::Always {
            self.request_sync();
        }
        let mut durable = lock(&self.durable);
        while durable.lsn < lsn {
            if let Some(fatal) = self.failed.get() {
                return Err(fatal.clone());
            }
            durable = self
                .durable_changed
                .wait(durable)
                .unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    pub fn sync_mode(&self) -> SyncMode {
        match self.sync_mode.load(SeqCst) {
            mode if mode == SyncMode::Always as u8 => SyncMode::Always,
            mode if mode == SyncMode::EverySec as u8 => SyncMode::EverySec,
            _ => SyncMode::No,
        }
    }

    pub fn set_sync(&self, mode: SyncMode) {
        self.sync_mode.store(mode as u8, SeqCst);
        self.request_sync();
        self.waiters.released(self.released_lsn());
    }

    pub fn request_sync(&self) {
        self.sync_wanted_lsn.fetch_max(self.last_lsn(), SeqCst);
        // Under the lock, so that a committer about to sleep either sees the wish or the wake-up.
        lock(&self.queue).wake_at_bytes = None;
        self.work.notify_one();
    }

    pub fn sync_is_wanted(&self) -> bool {
        self.sync_wanted_lsn.load(SeqCst) > self.durable_lsn()
    }

    /// Blocks the committer until there is something to do: this many bytes queued, a sync wanted,
    /// the time over, the log closing. False when it is closed and drained.
    pub fn wait_for_work(&self, wake_at_bytes: u64, timeout: Option<Duration>) -> bool {
        let mut queue = lock(&self.queue);
        if queue.closing {
            return !queue.batches.is_empty();
        }
        if queue.bytes >= wake_at_bytes || self.sync_is_wanted() {
            return true;
        }
        queue.wake_at_bytes = Some(wake_at_bytes);
        let mut queue = match timeout {
            Some(timeout) => {
                let result = self.work.wait_timeout(queue, timeout);
                result.unwrap_or_else(PoisonError::into_inner).0
            }
            None => self
                .work
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner),
        };
        queue.wake_at_bytes = None;
        true
    }

    pub fn is_closing(&self) -> bool {
        lock(&self.queue).closing
    }

    pub fn begin_close(&self) {
        lock(&self.queue).closing = true;
        self.work.notify_one();
        self.space.close();
    }

    /// Nothing becomes durable any more. Only the first failure counts.
    pub fn fail(&self, fatal: Fatal) {
        if self.failed.set(fatal.clone()).is_ok() {
            drop(lock(&self.durable));
            self.durable_changed.notify_all();
            (self.options.on_fatal)(&fatal);
        }
    }

    pub fn failed(&self) -> Option<&Fatal> {
        self.failed.get()
    }

    pub fn now_us(&self) -> u64 {
        (self.options.clock_us)()
    }
}
