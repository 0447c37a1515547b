//! What the log counts about itself. Written by the committer, once per group.

use std::collections::VecDeque;
use std::sync::Mutex;

use hdrhistogram::Histogram;

use super::{Lsn, Stats, lock};
use crate::limits::{LOG_MARK_BYTES, LOG_MARKS_MAX};

const BUCKETS: usize = 32;
const SECOND_US: u64 = 1_000_000;

#[derive(Default)]
pub(super) struct Counters {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    groups: u64,
    batches: u64,
    bytes: u64,
    batches_per_group: [u64; BUCKETS],
    bytes_per_group: [u64; BUCKETS],
    /// None until the first sync.
    sync_us: Option<Histogram<u64>>,
    second: u64,
    groups_this_second: u64,
    groups_last_second: u64,
    last_lsn: Lsn,
    /// (lsn, bytes up to and with its record), rising.
    marks: VecDeque<(Lsn, u64)>,
    trimmed: (Lsn, u64),
}

impl Counters {
    /// A record that recovery found.
    pub fn found(&self, lsn: Lsn, bytes: u64) {
        lock(&self.inner).add_bytes(lsn, bytes);
    }

    pub fn wrote(&self, lsn: Lsn, batches: usize, bytes: u64, now_us: u64) {
        let mut inner = lock(&self.inner);
        inner.roll(now_us);
        inner.groups += 1;
        inner.groups_this_second += 1;
        inner.batches += batches as u64;
        inner.batches_per_group[bucket(batches as u64)] += 1;
        inner.bytes_per_group[bucket(bytes)] += 1;
        inner.add_bytes(lsn, bytes);
    }

    pub fn synced(&self, us: u64) {
        let mut inner = lock(&self.inner);
        if inner.sync_us.is_none() {
            inner.sync_us = Histogram::new_with_bounds(1, 60 * SECOND_US, 2).ok();
        }
        if let Some(histogram) = &mut inner.sync_us {
            histogram.saturating_record(us.max(1));
        }
    }

    pub fn trimmed(&self, lsn: Lsn) {
        let mut inner = lock(&self.inner);
        let bytes = inner.bytes_up_to(lsn);
        inner.trimmed = (lsn, bytes);
        while inner.marks.get(1).is_some_and(|mark| mark.0 <= lsn) {
            inner.marks.pop_front();
        }
    }

    pub fn bytes_since(&self, lsn: Lsn) -> u64 {
        let inner = lock(&self.inner);
        inner.bytes - inner.bytes_up_to(lsn)
    }

    pub fn bytes_since_trim(&self) -> u64 {
        let inner = lock(&self.inner);
        inner.bytes - inner.trimmed.1
    }

    /// Fills in what is counted here.
    pub fn snapshot(&self, stats: &mut Stats, now_us: u64) {
        let mut inner = lock(&self.inner);
        inner.roll(now_us);
        stats.groups = inner.groups;
        stats.batches = inner.batches;
        stats.bytes = inner.bytes;
        stats.batches_per_group = inner.batches_per_group.to_vec();
        stats.bytes_per_group = inner.bytes_per_group.to_vec();
        stats.groups_per_second = inner.groups_last_second;
        if let Some(histogram) = &inner.sync_us {
            stats.syncs = histogram.len();
            stats.sync_p50_us = histogram.value_at_quantile(0.5);
            stats.sync_p99_us = histogram.value_at_quantile(0.99);
            stats.sync_p999_us = histogram.value_at_quantile(0.999);
            stats.sync_max_us = histogram.max();
        }
    }
}

impl Inner {
    fn add_bytes(&mut self, lsn: Lsn, bytes: u64) {
        self.bytes += bytes;
        self.last_lsn = lsn;
        let last = self.marks.back().map_or(0, |mark| mark.1);
        if self.bytes - last >= LOG_MARK_BYTES && self.marks.len() < LOG_MARKS_MAX {
            self.marks.push_back((lsn, self.bytes));
        }
    }

    /// Bytes up to `lsn`, rounded down to the mark before it.
    fn bytes_up_to(&self, lsn: Lsn) -> u64 {
        if lsn >= self.last_lsn {
            return self.bytes;
        }
        let index = self.marks.partition_point(|mark| mark.0 <= lsn);
        let marked = index.checked_sub(1).map_or(0, |index| self.marks[index].1);
        if lsn >= self.trimmed.0 {
            marked.max(self.trimmed.1)
        } else {
            marked
        }
    }

    fn roll(&mut self, now_us: u64) {
        let second = now_us / SECOND_US;
        if second == self.second {
            return;
        }
        let followed = second == self.second + 1;
        self.groups_last_second = if followed { self.groups_this_second } else { 0 };
        self.groups_this_second = 0;
        self.second = second;
    }
}

/// The smallest i with `value <= 2^i`.
fn bucket(value: u64) -> usize {
    let bits = u64::BITS - value.saturating_sub(1).leading_zeros();
    (bits as usize).min(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_answer_bytes_since_an_lsn_and_the_rate_of_the_last_second() {
        assert_eq!(
            [0, 1, 2, 3, 4, 5, u64::MAX].map(bucket),
            [0, 0, 1, 2, 2, 3, 31]
        );
        let counters = Counters::default();
        for lsn in 1..=10 {
            counters.wrote(lsn, 3, LOG_MARK_BYTES, SECOND_US * lsn / 5);
        }
        assert_eq!(counters.bytes_since(0), 10 * LOG_MARK_BYTES);
        assert_eq!(counters.bytes_since(4), 6 * LOG_MARK_BYTES);
        counters.trimmed(7);
        assert_eq!(counters.bytes_since_trim(), 3 * LOG_MARK_BYTES);
        let mut stats = Stats::default();
        counters.snapshot(&mut stats, SECOND_US * 2);
        assert_eq!(
            (stats.groups, stats.batches, stats.groups_per_second),
            (10, 30, 5)
        );
    }
}
