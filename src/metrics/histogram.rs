//! A histogram of fixed size: 16 steps to each power of two, so that a value is told within 6.25 %.
//!
//! Always true: recording takes constant time and no lock; one thread records, all may read.

use std::fmt::{Debug, Formatter};

use super::counter::Counter;

/// Steps to a power of two.
const STEPS: u64 = 16;
const STEPS_LOG2: u32 = STEPS.trailing_zeros();
/// Values from here on count as this: in nanoseconds, about 18 minutes.
const VALUE_MAX: u64 = (1 << 40) - 1;
const BUCKETS: usize = bucket_of(VALUE_MAX) + 1;

/// Counts values by size. About 10 kB: box it where there are many.
pub struct Histogram {
    buckets: [Counter; BUCKETS],
    sum: Counter,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram {
            buckets: std::array::from_fn(|_| Counter::default()),
            sum: Counter::default(),
        }
    }
}

impl Debug for Histogram {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        self.snapshot().fmt(formatter)
    }
}

impl Histogram {
    /// Counts a value. Only the thread that owns the histogram may call this.
    #[inline]
    pub fn record(&self, value: u64) {
        let value = value.min(VALUE_MAX);
        self.buckets[bucket_of(value)].add(1);
        self.sum.add(value);
    }

    /// The counts now.
    pub fn snapshot(&self) -> HistogramSnapshot {
        let mut snapshot = HistogramSnapshot::default();
        snapshot.add(self);
        snapshot
    }

    /// Starts from zero.
    pub fn reset(&self) {
        self.buckets.iter().for_each(Counter::reset);
        self.sum.reset();
    }
}

/// The counts of a histogram, or of several together, at one moment.
#[derive(Clone)]
pub struct HistogramSnapshot {
    buckets: Box<[u64; BUCKETS]>,
    count: u64,
    sum: u64,
}

impl Default for HistogramSnapshot {
    fn default() -> HistogramSnapshot {
        HistogramSnapshot {
            buckets: Box::new([0; BUCKETS]),
            count: 0,
            sum: 0,
        }
    }
}

impl Debug for HistogramSnapshot {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Histogram")
            .field("count", &self.count)
            .field("p50", &self.percentile(50.0))
            .field("p99", &self.percentile(99.0))
            .field("max", &self.percentile(100.0))
            .finish()
    }
}

impl HistogramSnapshot {
    /// Adds the counts of a histogram.
    pub fn add(&mut self, histogram: &Histogram) {
        for (sum, bucket) in self.buckets.iter_mut().zip(&histogram.buckets) {
            let count = bucket.count();
            *sum += count;
            self.count += count;
        }
        self.sum = self.sum.wrapping_add(histogram.sum.count());
    }

    /// Values counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The arithmetic mean; 0 if nothing was counted.
    pub fn mean(&self) -> u64 {
        self.sum.checked_div(self.count).unwrap_or(0)
    }

    /// The value that `percent` (0 to 100) of the values do not exceed, rounded up to its step. 100
    /// is the largest value; 0 if nothing was counted.
    pub fn percentile(&self, percent: f64) -> u64 {
        let rank = ((percent / 100.0) * self.count as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return last_of(index);
            }
        }
        0
    }

    /// How many values lie below each power of two, as LATENCY HISTOGRAM prints it: pairs of the
    /// power in **micro**seconds (of values in nanoseconds, from 1,024 up) and the count so far,
    /// for those powers between which there are values.
    pub fn powers_of_two_us(&self) -> Vec<(u64, u64)> {
        let mut pairs = Vec::new();
        let (mut seen, mut told) = (0, 0);
        let mut index = 0;
        for power in 10..=40 {
            let end = bucket_of((1 << power) - 1) + 1;
            seen += self.buckets[index..end].iter().sum::<u64>();
            index = end;
            if seen > told {
                pairs.push(((1 << power) / 1_000, seen));
                told = seen;
            }
        }
        pairs
    }
}

/// The bucket of a value, which is at most `VALUE_MAX`: values below `STEPS` have one each.
const fn bucket_of(value: u64) -> usize {
    if value < STEPS {
        return value as usize;
    }
    let power = 63 - value.leading_zeros();
    let step = (value >> (power - STEPS_LOG2)) & (STEPS - 1);
    (power - STEPS_LOG2 + 1) as usize * STEPS as usize + step as usize
}

/// The largest value of a bucket.
const fn last_of(bucket: usize) -> u64 {
    let (row, step) = (bucket as u64 / STEPS, bucket as u64 % STEPS);
    if row == 0 {
        return step;
    }
    ((STEPS + step + 1) << (row - 1)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_cover_all_values_without_a_gap() {
        let mut first = 0;
        for bucket in 0..BUCKETS {
            let last = last_of(bucket);
            assert_eq!((bucket_of(first), bucket_of(last)), (bucket, bucket));
            assert!(last - first <= first / STEPS, "no wider than a sixteenth");
            first = last + 1;
        }
        assert_eq!(first, VALUE_MAX + 1);
    }

    #[test]
    fn percentiles_are_right_within_a_sixteenth() {
        let histogram = Histogram::default();
        (1..=10_000).for_each(|value| histogram.record(value));
        let snapshot = histogram.snapshot();
        for (percent, exact) in [
            (0.0, 1),
            (50.0, 5_000),
            (99.0, 9_900),
            (99.9, 9_990),
            (100.0, 10_000),
        ] {
            let value = snapshot.percentile(percent);
            assert!(
                value >= exact && value <= exact + exact / 16,
                "{percent}: {value}"
            );
        }
        assert_eq!(snapshot.mean(), 5_000);
        assert_eq!(HistogramSnapshot::default().percentile(99.0), 0);
    }

    #[test]
    fn a_huge_value_is_counted_as_the_largest() {
        let histogram = Histogram::default();
        histogram.record(u64::MAX);
        assert_eq!(histogram.snapshot().percentile(50.0), VALUE_MAX);
        assert_eq!(
            histogram.snapshot().powers_of_two_us(),
            [((1 << 40) / 1_000, 1)]
        );
    }

    #[test]
    fn powers_of_two_are_cumulative_and_leave_out_empty_ones() {
        let histogram = Histogram::default();
        for value in [1, 1_000, 1_500, 40_000, 41_000] {
            histogram.record(value);
        }
        assert_eq!(
            histogram.snapshot().powers_of_two_us(),
            [(1, 2), (2, 3), (65, 5)]
        );
    }
}
