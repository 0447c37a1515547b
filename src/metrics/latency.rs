//! The latency monitor: what took longer than `latency-monitor-threshold`, as LATENCY tells it.
//!
//! Always true: a bounded number of events with a bounded number of samples, one per second each;
//! only what was slow takes the lock.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::limits::{LATENCY_EVENTS_MAX, LATENCY_SAMPLES_MAX};

/// The names of events, so that they are spelled the same everywhere.
pub mod events {
    /// A command that ran for long.
    pub const COMMAND: &str = "command";
    /// A command of constant or logarithmic cost that ran for long.
    pub const FAST_COMMAND: &str = "fast-command";
    /// Keys that were deleted at their deadlines in one turn.
    pub const EXPIRE_CYCLE: &str = "expire-cycle";
    /// A sync of the commit log, which replies wait for.
    pub const AOF_FSYNC_ALWAYS: &str = "aof-fsync-always";
    /// A checkpoint, from its first key to the end of its ingestion.
    pub const CHECKPOINT: &str = "checkpoint";
    /// A slice of a checkpoint that a shard took between two turns.
    pub const CHECKPOINT_SLICE: &str = "checkpoint-slice";
}

/// Columns of LATENCY GRAPH, as in Redis.
const GRAPH_COLUMNS: usize = 80;
const GRAPH_ROWS: usize = 4;
const GRAPH_FILL: &[u8; 3] = b"_o#";

/// The longest time that an event took within one second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LatencySample {
    /// Seconds since the Unix epoch.
    pub at_s: u64,
    pub milliseconds: u64,
}

/// One line of LATENCY LATEST.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LatencyEvent {
    pub name: &'static str,
    pub latest: LatencySample,
    /// The longest of all times, forgotten samples included.
    pub max_milliseconds: u64,
}

/// All events. Shared by all threads.
#[derive(Debug, Default)]
pub struct LatencyMonitor(Mutex<BTreeMap<&'static str, History>>);

#[derive(Debug, Default)]
struct History {
    /// The newest last.
    samples: VecDeque<LatencySample>,
    max_milliseconds: u64,
}

impl LatencyMonitor {
    /// Keeps what ended at `now_ms` and took so long, if it reached the setting
    /// `latency-monitor-threshold`, in milliseconds (0: keeps nothing).
    pub fn record(&self, event: &'static str, now_ms: u64, nanoseconds: u64, threshold_ms: usize) {
        let milliseconds = nanoseconds / 1_000_000;
        if threshold_ms == 0 || milliseconds < threshold_ms as u64 {
            return;
        }
        let mut events = self.lock();
        if events.len() >= LATENCY_EVENTS_MAX && !events.contains_key(event) {
            return;
        }
        let history = events.entry(event).or_default();
        history.max_milliseconds = history.max_milliseconds.max(milliseconds);
        let at_s = now_ms / 1_000;
        match history.samples.back_mut() {
            Some(last) if last.at_s == at_s => {
                last.milliseconds = last.milliseconds.max(milliseconds);
            }
            _ => {
                if history.samples.len() == LATENCY_SAMPLES_MAX {
                    history.samples.pop_front();
                }
                history
                    .samples
                    .push_back(LatencySample { at_s, milliseconds });
            }
        }
    }

    /// LATENCY LATEST: every event, by name.
    pub fn latest(&self) -> Vec<LatencyEvent> {
        let line = |(name, history): (&&'static str, &History)| {
            let latest = *history.samples.back()?;
            Some(LatencyEvent {
                name,
                latest,
                max_milliseconds: history.max_milliseconds,
            })
        };
        self.lock().iter().filter_map(line).collect()
    }

    /// LATENCY HISTORY: the samples of an event, the oldest first; none if it is not known.
    pub fn history(&self, event: &[u8]) -> Vec<LatencySample> {
        let events = self.lock();
        let found = std::str::from_utf8(event)
            .ok()
            .and_then(|name| events.get(name));
        found
            .map(|history| history.samples.iter().copied().collect())
            .unwrap_or_default()
    }

    /// LATENCY RESET: forgets these events, or all where none is named. How many it forgot.
    pub fn reset(&self, names: &[&[u8]]) -> usize {
        let mut events = self.lock();
        let before = events.len();
        events.retain(|name, _| !names.is_empty() && !names.contains(&name.as_bytes()));
        before - events.len()
    }

    /// LATENCY GRAPH: the samples of an event as bars, with their age below; none if it is unknown.
    pub fn graph(&self, event: &[u8], now_ms: u64) -> Option<String> {
        let events = self.lock();
        let (name, history) = events.get_key_value(std::str::from_utf8(event).ok()?)?;
        let skipped = history.samples.len().saturating_sub(GRAPH_COLUMNS);
        let samples: Vec<LatencySample> = history.samples.iter().skip(skipped).copied().collect();
        let (low, high) = range(&samples);
        let mut text = format!(
            "{name} - high {high} ms, low {low} ms (all time high {} ms)\n{}\n",
            history.max_milliseconds,
            "-".repeat(GRAPH_COLUMNS)
        );
        draw(&mut text, &samples, now_ms / 1_000);
        Some(text)
    }

    /// LATENCY DOCTOR: what happened and what may help, for people. `threshold_ms` is the setting.
    pub fn doctor(&self, threshold_ms: usize) -> String {
        if threshold_ms == 0 {
            return "The latency monitor is off. CONFIG SET latency-monitor-threshold \
                    <milliseconds> switches it on.\n"
                .to_owned();
        }
        let events = self.lock();
        if events.is_empty() {
            return format!("Nothing took {threshold_ms} ms or longer.\n");
        }
        let mut text = format!("These took {threshold_ms} ms or longer:\n\n");
        for (index, (name, history)) in events.iter().enumerate() {
            let line = diagnosis(history);
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{}. {name}: {line}", index + 1);
        }
        let advice: Vec<&str> = events.keys().filter_map(|name| advice(name)).collect();
        if !advice.is_empty() {
            text.push_str("\nWhat may help:\n\n");
            advice
                .iter()
                .for_each(|line| text.push_str(&format!("- {line}\n")));
        }
        text
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, History>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn range(samples: &[LatencySample]) -> (u64, u64) {
    let times = samples.iter().map(|sample| sample.milliseconds);
    (times.clone().min().unwrap_or(0), times.max().unwrap_or(0))
}

/// One event in LATENCY DOCTOR: mean, spread and period as Redis computes them.
fn diagnosis(history: &History) -> String {
    let count = history.samples.len().max(1) as u64;
    let sum: u64 = history
        .samples
        .iter()
        .map(|sample| sample.milliseconds)
        .sum();
    let mean = sum / count;
    let deviations = history
        .samples
        .iter()
        .map(|sample| sample.milliseconds.abs_diff(mean));
    let deviation = deviations.sum::<u64>() / count;
    let ends = history.samples.front().zip(history.samples.back());
    let span_s = ends.map_or(0, |(first, last)| last.at_s.saturating_sub(first.at_s));
    let period_s = span_s as f64 / count.saturating_sub(1).max(1) as f64;
    let worst = history.max_milliseconds;
    format!(
        "{count} latency spikes (average {mean}ms, mean deviation {deviation}ms, period \
         {period_s:.2} sec). Worst all time event {worst}ms."
    )
}

fn advice(event: &str) -> Option<&'static str> {
    match event {
        events::COMMAND | events::FAST_COMMAND => Some(
            "SLOWLOG GET shows which commands were slow; KEYS, long ranges and large values \
             hold up the other keys of their shard.",
        ),
        events::AOF_FSYNC_ALWAYS => Some(
            "The disk took long to sync the commit log: see what else writes to it, and the \
             sync percentiles in INFO. With appendfsync everysec replies do not wait for it.",
        ),
        events::EXPIRE_CYCLE => {
            Some("Many keys had the same deadline: spread their expiry times a little.")
        }
        events::CHECKPOINT => {
            Some("The disk is slow for what is written, or checkpoint-size is large.")
        }
        _ => None,
    }
}

/// Draws bars of up to four characters, and below each the age of its sample from top to bottom.
fn draw(text: &mut String, samples: &[LatencySample], now_s: u64) {
    let (low, high) = range(samples);
    let steps = GRAPH_FILL.len() * GRAPH_ROWS;
    let spread = (high - low).max(1);
    let step_of = |sample: &LatencySample| {
        let step = (u128::from(sample.milliseconds - low) * steps as u128) / u128::from(spread);
        (step as usize).min(steps - 1)
    };
    for row in 0..GRAPH_ROWS {
        let below = (GRAPH_ROWS - row - 1) * GRAPH_FILL.len();
        let character = |sample: &LatencySample| match step_of(sample).checked_sub(below) {
            None => ' ',
            Some(step) => GRAPH_FILL.get(step).map_or('|', |fill| char::from(*fill)),
        };
        text.extend(samples.iter().map(character));
        text.push('\n');
    }
    let ages: Vec<String> = samples
        .iter()
        .map(|sample| age(now_s.saturating_sub(sample.at_s)))
        .collect();
    let longest = ages.iter().map(String::len).max().unwrap_or(0);
    text.push('\n');
    for place in 0..longest {
        let character = |age: &String| age.as_bytes().get(place).map_or(' ', |b| char::from(*b));
        text.extend(ages.iter().map(character));
        text.push('\n');
    }
}

fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn sample(at_s: u64, milliseconds: u64) -> LatencySample {
        LatencySample { at_s, milliseconds }
    }

    #[test]
    fn only_what_reaches_the_threshold_is_kept() {
        let monitor = LatencyMonitor::default();
        monitor.record(events::COMMAND, 1_000, 500 * MS, 0);
        monitor.record(events::COMMAND, 1_000, 99 * MS, 100);
        assert!(monitor.latest().is_empty());
        monitor.record(events::COMMAND, 1_000, 100 * MS, 100);
        assert_eq!(monitor.history(b"command"), [sample(1, 100)]);
    }

    #[test]
    fn a_second_has_one_sample_the_longest() {
        let monitor = LatencyMonitor::default();
        for (now_ms, ms) in [(1_000, 20), (1_500, 50), (1_900, 30), (2_100, 10)] {
            monitor.record(events::COMMAND, now_ms, ms * MS, 10);
        }
        assert_eq!(monitor.history(b"command"), [sample(1, 50), sample(2, 10)]);
        let latest = LatencyEvent {
            name: "command",
            latest: sample(2, 10),
            max_milliseconds: 50,
        };
        assert_eq!(monitor.latest(), [latest]);
        assert!(monitor.history(b"nonsense").is_empty() && monitor.history(b"\xff").is_empty());
    }

    #[test]
    fn the_oldest_samples_go_and_the_maximum_stays() {
        let monitor = LatencyMonitor::default();
        monitor.record(events::CHECKPOINT, 0, 900 * MS, 1);
        for second in 1..=LATENCY_SAMPLES_MAX as u64 {
            monitor.record(events::CHECKPOINT, second * 1_000, 5 * MS, 1);
        }
        let history = monitor.history(b"checkpoint");
        assert_eq!(
            (history.len(), history[0]),
            (LATENCY_SAMPLES_MAX, sample(1, 5))
        );
        assert_eq!(monitor.latest()[0].max_milliseconds, 900);
    }

    #[test]
    fn reset_forgets_the_named_events_or_all() {
        let monitor = LatencyMonitor::default();
        for event in [events::COMMAND, events::CHECKPOINT, events::EXPIRE_CYCLE] {
            monitor.record(event, 1_000, 5 * MS, 1);
        }
        assert_eq!(monitor.reset(&[b"command", b"nonsense"]), 1);
        assert_eq!(monitor.reset(&[]), 2);
        assert_eq!(monitor.reset(&[]), 0);
    }

    #[test]
    fn the_doctor_says_what_happened() {
        let monitor = LatencyMonitor::default();
        assert!(monitor.doctor(0).contains("latency-monitor-threshold"));
        assert!(monitor.doctor(10).starts_with("Nothing took 10 ms"));
        monitor.record(events::AOF_FSYNC_ALWAYS, 1_000, 100 * MS, 10);
        monitor.record(events::AOF_FSYNC_ALWAYS, 11_000, 300 * MS, 10);
        let text = monitor.doctor(10);
        let line = "1. aof-fsync-always: 2 latency spikes (average 200ms, mean deviation 100ms, \
                    period 10.00 sec). Worst all time event 300ms.\n";
        assert!(text.contains(line), "{text}");
        assert!(text.contains("- The disk took long"), "{text}");
    }

    #[test]
    fn the_graph_has_a_bar_per_second() {
        let monitor = LatencyMonitor::default();
        assert_eq!(monitor.graph(b"command", 0), None);
        for (at_s, ms) in [(1, 10), (2, 20), (50, 40)] {
            monitor.record(events::COMMAND, at_s * 1_000, ms * MS, 1);
        }
        let text = monitor.graph(b"command", 61_000).unwrap();
        let (head, bars) = text.split_once(&format!("{}\n", "-".repeat(80))).unwrap();
        assert_eq!(
            head,
            "command - high 40 ms, low 10 ms (all time high 40 ms)\n"
        );
        assert_eq!(bars, "  #\n  |\n o|\n_||\n\n151\nm91\n ss\n");
    }
}
