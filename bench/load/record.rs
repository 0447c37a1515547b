//! What was measured: a histogram of all latencies, and a time line of short ones.

use hdrhistogram::Histogram;

/// Two digits: within 1 %.
const DIGITS: u8 = 2;
const NS_MAX: u64 = 600 * 1_000_000_000;

/// Latencies in nanoseconds.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(NS_MAX, DIGITS).expect("bounds that a histogram can have")
}

/// One interval of the time line.
#[derive(Clone, Debug)]
pub struct Interval {
    /// When it began, from the start of the measured time.
    pub at_ns: u64,
    /// Units that were completed in it.
    pub units: u64,
    /// Median latency.
    pub p50_ns: u64,
    /// 99 of 100 are below.
    pub p99_ns: u64,
    /// The longest.
    pub max_ns: u64,
}

/// Takes the latencies of a group.
pub struct Recorder {
    /// All of them.
    pub all: Histogram<u64>,
    /// How much later than intended units were sent: the client's own lag, open loop only.
    pub lag: Histogram<u64>,
    /// The time line.
    pub intervals: Vec<Interval>,
    current: Histogram<u64>,
    began_ns: u64,
    interval_ns: u64,
    next_ns: u64,
}

impl Recorder {
    /// Nothing was measured yet.
    pub fn new(interval_ns: u64) -> Recorder {
        Recorder {
            all: histogram(),
            lag: histogram(),
            intervals: Vec::new(),
            current: histogram(),
            began_ns: 0,
            interval_ns,
            next_ns: interval_ns,
        }
    }

    /// The measured time begins; what came before is forgotten.
    pub fn begin(&mut self, now_ns: u64) {
        self.all.reset();
        self.lag.reset();
        self.current.reset();
        self.intervals.clear();
        self.began_ns = now_ns;
        self.next_ns = now_ns + self.interval_ns;
    }

    /// A unit ended at `now_ns` after `latency_ns`.
    pub fn record(&mut self, now_ns: u64, latency_ns: u64) {
        if now_ns >= self.next_ns {
            self.close_until(now_ns);
        }
        self.all.saturating_record(latency_ns);
        self.current.saturating_record(latency_ns);
    }

    /// Ends the intervals that are over.
    pub fn close_until(&mut self, now_ns: u64) {
        while now_ns >= self.next_ns {
            self.intervals.push(Interval {
                at_ns: self.next_ns - self.interval_ns - self.began_ns,
                units: self.current.len(),
                p50_ns: self.current.value_at_quantile(0.5),
                p99_ns: self.current.value_at_quantile(0.99),
                max_ns: self.current.max(),
            });
            self.current.reset();
            self.next_ns += self.interval_ns;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_line_has_an_interval_for_every_step_of_time() {
        let mut recorder = Recorder::new(100);
        recorder.record(5, 1);
        recorder.begin(1_000);
        recorder.record(1_010, 7);
        recorder.record(1_350, 9);
        recorder.close_until(1_400);
        let line: Vec<_> = recorder
            .intervals
            .iter()
            .map(|interval| (interval.at_ns, interval.units, interval.max_ns))
            .collect();
        assert_eq!(line, [(0, 1, 7), (100, 0, 0), (200, 0, 0), (300, 1, 9)]);
        assert_eq!(recorder.all.len(), 2);
    }
}
