//! How much of something happens per second, over the last second and a half, as INFO prints it.
//!
//! Always true: one thread samples, all may read, nobody waits.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// As many as in Redis.
const SAMPLES: usize = 16;

/// The mean of the last samples.
#[derive(Debug, Default)]
pub struct Rate {
    samples: [AtomicU64; SAMPLES],
    taken: AtomicUsize,
    last_ns: AtomicU64,
    last_total: AtomicU64,
}

impl Rate {
    /// Tells the total at a moment of the monotonic clock. One thread calls it, regularly.
    pub fn sample(&self, now_ns: u64, total: u64) {
        let taken = self.taken.load(Relaxed);
        let passed_ns = now_ns.saturating_sub(self.last_ns.load(Relaxed));
        // After a reset of the statistics the total starts again.
        let events = total.saturating_sub(self.last_total.load(Relaxed));
        self.last_ns.store(now_ns, Relaxed);
        self.last_total.store(total, Relaxed);
        if taken > 0 && passed_ns > 0 {
            let per_second = u128::from(events) * 1_000_000_000 / u128::from(passed_ns);
            let per_second = u64::try_from(per_second).unwrap_or(u64::MAX);
            self.samples[(taken - 1) % SAMPLES].store(per_second, Relaxed);
        }
        // The first call only sets the mark from which the second one counts.
        self.taken.store(taken.wrapping_add(1).max(1), Relaxed);
    }

    /// Events per second.
    pub fn per_second(&self) -> u64 {
        let taken = self.taken.load(Relaxed).saturating_sub(1).min(SAMPLES);
        let sum: u128 = self.samples[..taken]
            .iter()
            .map(|s| u128::from(s.load(Relaxed)))
            .sum();
        u64::try_from(sum / taken.max(1) as u128).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENTH_NS: u64 = 100_000_000;

    #[test]
    fn it_is_the_mean_of_the_last_samples() {
        let rate = Rate::default();
        assert_eq!(rate.per_second(), 0);
        rate.sample(TENTH_NS, 1_000_000);
        assert_eq!(
            rate.per_second(),
            0,
            "what was before the first sample does not count"
        );
        rate.sample(2 * TENTH_NS, 1_000_050);
        assert_eq!(rate.per_second(), 500);
        for tenth in 3..100 {
            rate.sample(tenth * TENTH_NS, 1_000_050);
        }
        assert_eq!(rate.per_second(), 0);
        rate.sample(100 * TENTH_NS, 0);
        assert_eq!(rate.per_second(), 0, "a reset is no negative rate");
    }
}
