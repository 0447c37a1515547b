//! When keys expire next: a heap of hints, the earliest first.
//!
//! Always true: every key with a deadline has a hint at or before it. A hint proves nothing: who
//! takes one looks at the keys with that hash, and puts a later hint back where one is due.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Where to look for expired keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hint {
    /// Deadline in ms since the Unix epoch.
    pub at_ms: u64,
    /// Database id.
    pub database: u32,
    /// Upper half of the key's hash.
    pub hash32: u32,
    /// Slot of the key.
    pub slot: u16,
}

/// All hints of a shard.
#[derive(Default)]
pub struct Deadlines {
    heap: BinaryHeap<Reverse<Hint>>,
}

impl Deadlines {
    /// Adds a hint.
    pub fn add(&mut self, hint: Hint) {
        self.heap.push(Reverse(hint));
    }

    /// Adds all of another heap.
    pub fn append(&mut self, mut more: Deadlines) {
        self.heap.append(&mut more.heap);
    }

    /// The earliest deadline that may be due.
    pub fn next_ms(&self) -> Option<u64> {
        self.heap.peek().map(|hint| hint.0.at_ms)
    }

    /// Takes a hint that is due at `now_ms`.
    pub fn due(&mut self, now_ms: u64) -> Option<Hint> {
        let due = self.next_ms().is_some_and(|at_ms| at_ms <= now_ms);
        due.then(|| self.heap.pop().map(|hint| hint.0)).flatten()
    }

    /// Number of hints.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// Forgets hints that `keep` refuses, and doubles: for when many were left behind.
    pub fn retain(&mut self, mut keep: impl FnMut(&Hint) -> bool) {
        let mut hints: Vec<Reverse<Hint>> = std::mem::take(&mut self.heap).into_vec();
        hints.sort_unstable();
        hints.dedup();
        hints.retain(|hint| keep(&hint.0));
        self.heap = hints.into();
    }
}
