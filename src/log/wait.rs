//! Waiting: who wants to know that something became durable, and how it is told.
//!
//! Always true here: a wish stored before the durable lsn passes it is always seen, by the
//! committer or by the wisher itself (each stores, then looks: sequentially consistent), and is
//! fulfilled by exactly one of them (compare-and-swap).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, Weak};

use super::{Lsn, Shared, lock};

/// A function that wakes a thread.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

const NOTHING: Lsn = Lsn::MAX;

struct Waiter {
    /// Smallest lsn wanted; `NOTHING` if none.
    wanted_lsn: AtomicU64,
    wants_space: AtomicBool,
    wake: Wake,
}

impl Waiter {
    fn fulfil(&self, up_to_lsn: Lsn) {
        let wanted = self.wanted_lsn.load(SeqCst);
        if wanted != NOTHING
            && wanted <= up_to_lsn
            && self
                .wanted_lsn
                .compare_exchange(wanted, NOTHING, SeqCst, SeqCst)
                .is_ok()
        {
            (self.wake)();
        }
    }
}

/// A wake-up of one waiting thread. Dropping it ends it.
pub struct Subscription {
    waiter: Arc<Waiter>,
    shared: Arc<Shared>,
}

impl Subscription {
    /// Wake me once when `lsn` may be released: when `durable_lsn() >= lsn`, or when the mode does
    /// not make replies wait. At once, on this thread, if that is so already. Of several calls
    /// before the wake-up the smallest lsn counts.
    pub fn want(&self, lsn: Lsn) {
        self.waiter.wanted_lsn.fetch_min(lsn, SeqCst);
        self.waiter.fulfil(self.shared.released_lsn());
    }

    /// Wake me once when there is more space or room in the queue, or when space is found to be
    /// used up.
    pub fn want_space(&self) {
        self.waiter.wants_space.store(true, SeqCst);
    }
}

/// All waiters. The lock is taken by the committer once per group and by subscribing, never by
/// `want`.
#[derive(Default)]
pub(super) struct Waiters {
    list: Mutex<Vec<Weak<Waiter>>>,
}

impl Waiters {
    pub fn subscribe(&self, shared: &Arc<Shared>, wake: Wake) -> Subscription {
        let waiter = Arc::new(Waiter {
            wanted_lsn: AtomicU64::new(NOTHING),
            wants_space: AtomicBool::new(false),
            wake,
        });
        let mut list = lock(&self.list);
        list.retain(|waiter| waiter.strong_count() > 0);
        list.push(Arc::downgrade(&waiter));
        Subscription {
            waiter,
            shared: shared.clone(),
        }
    }

    pub fn released(&self, lsn: Lsn) {
        for waiter in lock(&self.list).iter().filter_map(Weak::upgrade) {
            waiter.fulfil(lsn);
        }
    }

    pub fn space_changed(&self) {
        for waiter in lock(&self.list).iter().filter_map(Weak::upgrade) {
            if waiter.wants_space.swap(false, SeqCst) {
                (waiter.wake)();
            }
        }
    }
}
