//! Numbers that one thread counts and all may read.
//!
//! Always true: nothing here waits, and what is read is some value that was true a moment ago.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts events. One thread adds, all may read and reset.
///
/// Adding is a load and a store, not a locked instruction: it is on the path of every command.
#[derive(Debug, Default)]
pub struct Counter {
    value: AtomicU64,
    /// The value at the last reset. The writer never writes here, so that a reset is not lost.
    base: AtomicU64,
}

impl Counter {
    /// Counts `more` events. Only the thread that owns the counter may call this.
    #[inline]
    pub fn add(&self, more: u64) {
        self.value
            .store(self.value.load(Relaxed).wrapping_add(more), Relaxed);
    }

    /// Events since the last reset.
    pub fn count(&self) -> u64 {
        let base = self.base.load(Relaxed);
        self.value.load(Relaxed).saturating_sub(base)
    }

    /// Starts from zero.
    pub fn reset(&self) {
        self.base.store(self.value.load(Relaxed), Relaxed);
    }
}

/// A level that rises and falls. Any thread may change it.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    pub fn raise(&self, by: u64) {
        self.0.fetch_add(by, Relaxed);
    }

    pub fn lower(&self, by: u64) {
        self.0.fetch_sub(by, Relaxed);
    }

    pub fn set(&self, level: u64) {
        self.0.store(level, Relaxed);
    }

    /// The level now. Raised and lowered by different threads it may be seen below zero: that is 0.
    pub fn level(&self) -> u64 {
        let level = self.0.load(Relaxed);
        if level > u64::MAX / 2 { 0 } else { level }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_starts_from_zero_after_a_reset() {
        let counter = Counter::default();
        counter.add(3);
        counter.reset();
        assert_eq!(counter.count(), 0);
        counter.add(2);
        assert_eq!(counter.count(), 2);
    }

    #[test]
    fn a_gauge_is_never_below_zero() {
        let gauge = Gauge::default();
        gauge.lower(1);
        assert_eq!(gauge.level(), 0);
        gauge.raise(2);
        assert_eq!(gauge.level(), 1);
    }
}
