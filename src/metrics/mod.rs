//! What the server counts about itself: for INFO, SLOWLOG, LATENCY and the metrics page.
//!
//! Always true: counting takes no lock and no locked instruction. A [`Counter`] has one writer, the
//! thread that owns the struct it is in; everybody may read. SLOWLOG and the latency monitor lock,
//! for slow events alone.

mod counter;
mod histogram;
mod latency;
mod rate;
mod slowlog;

use std::sync::{Arc, OnceLock};

pub use counter::{Counter, Gauge};
pub use histogram::{Histogram, HistogramSnapshot};
pub use latency::{LatencyEvent, LatencyMonitor, LatencySample, events};
pub use rate::Rate;
pub use slowlog::{SlowEntry, SlowLog, is_slow};

/// Everything that is counted. Shared in an `Arc`.
#[derive(Debug)]
pub struct Metrics {
    shards: Box<[Arc<ShardMetrics>]>,
    pub log: LogMetrics,
    pub slow_log: SlowLog,
    pub latency: LatencyMonitor,
    /// Of the last seconds; [`Metrics::sample`] feeds them.
    pub commands_per_second: Rate,
    pub net_input_bytes_per_second: Rate,
    pub net_output_bytes_per_second: Rate,
    pub log_groups_per_second: Rate,
    /// Bytes that the process takes besides keys, beyond what it is given for that.
    pub memory_besides_bytes: Gauge,
}

impl Metrics {
    /// For so many shards and rows of the command table.
    pub fn new(shards: usize, commands: usize) -> Metrics {
        Metrics {
            shards: (0..shards)
                .map(|_| Arc::new(ShardMetrics::new(commands)))
                .collect(),
            log: LogMetrics::default(),
            slow_log: SlowLog::default(),
            latency: LatencyMonitor::default(),
            commands_per_second: Rate::default(),
            net_input_bytes_per_second: Rate::default(),
            net_output_bytes_per_second: Rate::default(),
            log_groups_per_second: Rate::default(),
            memory_besides_bytes: Gauge::default(),
        }
    }

    /// One struct per shard thread, in the shards' order.
    pub fn shards(&self) -> &[Arc<ShardMetrics>] {
        &self.shards
    }

    /// The sum of one counter over the shards: `metrics.total(|s| &s.commands_processed)`.
    pub fn total(&self, counter: impl Fn(&ShardMetrics) -> &Counter) -> u64 {
        self.shards.iter().map(|shard| counter(shard).count()).sum()
    }

    /// The sum of one gauge over the shards.
    pub fn level(&self, gauge: impl Fn(&ShardMetrics) -> &Gauge) -> u64 {
        self.shards.iter().map(|shard| gauge(shard).level()).sum()
    }

    /// One histogram over all shards.
    pub fn merged(&self, histogram: impl Fn(&ShardMetrics) -> &Histogram) -> HistogramSnapshot {
        let mut merged = HistogramSnapshot::default();
        for shard in &self.shards {
            merged.add(histogram(shard));
        }
        merged
    }

    /// What a row of the command table has cost so far; zeros for a row that is not there.
    pub fn command(&self, row: usize) -> CommandTotals {
        let mut totals = CommandTotals::default();
        for command in self
            .shards
            .iter()
            .filter_map(|shard| shard.commands.get(row))
        {
            totals.calls += command.calls.count();
            totals.nanoseconds += command.nanoseconds.count();
            totals.rejected += command.rejected.count();
            totals.failed += command.failed.count();
        }
        totals
    }

    /// The latencies of a row of the command table, in nanoseconds.
    pub fn command_latency(&self, row: usize) -> HistogramSnapshot {
        let mut merged = HistogramSnapshot::default();
        let commands = self
            .shards
            .iter()
            .filter_map(|shard| shard.commands.get(row));
        for latency in commands.filter_map(|command| command.latency.get()) {
            merged.add(latency);
        }
        merged
    }

    /// Error replies by their first word, those that occurred: for INFO errorstats.
    pub fn errors(&self) -> Vec<(&'static str, u64)> {
        let count = |index: usize| self.total(|shard| &shard.errors[index]);
        let counts = ERROR_CODES
            .iter()
            .enumerate()
            .map(|(index, code)| (*code, count(index)));
        counts.filter(|(_, count)| *count > 0).collect()
    }

    /// Takes a sample for the rates. One thread calls it, ten times a second.
    pub fn sample(&self, now_ns: u64) {
        self.commands_per_second
            .sample(now_ns, self.total(|s| &s.commands_processed));
        self.net_input_bytes_per_second
            .sample(now_ns, self.total(|s| &s.net_input_bytes));
        self.net_output_bytes_per_second
            .sample(now_ns, self.total(|s| &s.net_output_bytes));
        self.log_groups_per_second
            .sample(now_ns, self.log.groups.count());
    }

    /// CONFIG RESETSTAT: counters and histograms start from zero; gauges, SLOWLOG and the latency
    /// monitor stay.
    pub fn reset(&self) {
        self.shards.iter().for_each(|shard| shard.reset());
        self.log.reset();
    }
}

/// What one shard thread counts; it alone writes the counters.
#[derive(Debug)]
#[repr(align(128))]
pub struct ShardMetrics {
    pub commands_processed: Counter,
    pub keyspace_hits: Counter,
    pub keyspace_misses: Counter,
    pub expired_keys: Counter,
    /// Keys that left memory and stayed on disk.
    pub hibernated_keys: Counter,
    /// Keys that were read back from disk.
    pub loaded_keys: Counter,
    /// Calls that this thread sent to another shard.
    pub hops: Counter,
    /// Turns of the shard, and batches that they sealed.
    pub turns: Counter,
    pub batches: Counter,
    pub net_input_bytes: Counter,
    pub net_output_bytes: Counter,
    pub connections_accepted: Counter,
    /// Refused because of `maxclients`.
    pub connections_rejected: Counter,
    /// Closed because the client left released replies unread.
    pub output_buffer_disconnections: Counter,
    /// Closed because the client's requests grew too large.
    pub query_buffer_disconnections: Counter,
    pub protocol_errors: Counter,
    pub auth_failures: Counter,
    /// All error replies; which ones is in [`Metrics::errors`].
    pub error_replies: Counter,
    errors: [Counter; ERROR_CODES.len()],
    /// Connections that this thread serves now.
    pub connections: Gauge,
    /// Messages in the shard's mailbox now. Senders raise it, the shard lowers it.
    pub mailbox_depth: Gauge,
    /// Keys of the shard now, hibernating ones included.
    pub keys: Gauge,
    /// Keys of the shard in memory now, and their bytes.
    pub resident_keys: Gauge,
    pub resident_bytes: Gauge,
    /// 1 while writes wait because nothing can be evicted.
    pub memory_short: Gauge,
    /// Keys that left memory, keys that were read from the store, and fields that were read from it
    /// because their hash was in memory without them.
    pub evicted_keys: Counter,
    pub woken_keys: Counter,
    pub woken_fields: Counter,
    /// Replies that the output gate holds now.
    pub gate_replies: Gauge,
    /// Replies that the output gate held, and for how many nanoseconds each.
    pub gate_waits: Counter,
    pub gate_wait_ns: Histogram,
    /// CPU time of the slices that the shard gave to checkpoints.
    pub sweep_slice_ns: Histogram,
    commands: Box<[CommandMetrics]>,
}

impl ShardMetrics {
    /// For so many rows of the command table.
    pub fn new(commands: usize) -> ShardMetrics {
        ShardMetrics {
            commands_processed: Counter::default(),
            keyspace_hits: Counter::default(),
            keyspace_misses: Counter::default(),
            expired_keys: Counter::default(),
            hibernated_keys: Counter::default(),
            loaded_keys: Counter::default(),
            hops: Counter::default(),
            turns: Counter::default(),
            batches: Counter::default(),
            net_input_bytes: Counter::default(),
            net_output_bytes: Counter::default(),
            connections_accepted: Counter::default(),
            connections_rejected: Counter::default(),
            output_buffer_disconnections: Counter::default(),
            query_buffer_disconnections: Counter::default(),
            protocol_errors: Counter::default(),
            auth_failures: Counter::default(),
            error_replies: Counter::default(),
            errors: Default::default(),
            connections: Gauge::default(),
            mailbox_depth: Gauge::default(),
            keys: Gauge::default(),
            resident_keys: Gauge::default(),
            resident_bytes: Gauge::default(),
            memory_short: Gauge::default(),
            evicted_keys: Counter::default(),
            woken_keys: Counter::default(),
            woken_fields: Counter::default(),
            gate_replies: Gauge::default(),
            gate_waits: Counter::default(),
            gate_wait_ns: Histogram::default(),
            sweep_slice_ns: Histogram::default(),
            commands: (0..commands).map(|_| CommandMetrics::default()).collect(),
        }
    }

    /// A command of this row ran for so long. `failed`: it answered with an error. `track`: the
    /// setting `latency-tracking`.
    pub fn record_call(&self, row: usize, nanoseconds: u64, failed: bool, track: bool) {
        self.commands_processed.add(1);
        let Some(command) = self.commands.get(row) else {
            return;
        };
        command.calls.add(1);
        command.nanoseconds.add(nanoseconds);
        if failed {
            command.failed.add(1);
        }
        if track {
            command
                .latency
                .get_or_init(Box::default)
                .record(nanoseconds);
        }
    }

    /// A part of a command of this row ran for so long; the command is counted by itself.
    pub fn record_part(&self, row: usize, nanoseconds: u64) {
        if let Some(command) = self.commands.get(row) {
            command.nanoseconds.add(nanoseconds);
        }
    }

    /// A command of this row that was counted answered with an error after all.
    pub fn record_failed(&self, row: usize) {
        if let Some(command) = self.commands.get(row) {
            command.failed.add(1);
        }
    }

    /// A command of this row was refused before it ran (arity, authentication, memory).
    pub fn record_rejected(&self, row: usize) {
        if let Some(command) = self.commands.get(row) {
            command.rejected.add(1);
        }
    }

    /// An error reply went to a client; `text` is its line without the leading `-`.
    pub fn record_error(&self, text: &[u8]) {
        self.error_replies.add(1);
        let code = text.split(|byte| *byte == b' ').next().unwrap_or_default();
        let index = ERROR_CODES
            .iter()
            .position(|known| known.as_bytes() == code);
        self.errors[index.unwrap_or(ERROR_CODES.len() - 1)].add(1);
    }

    /// The output gate let a reply go that it had held for so long.
    pub fn record_gate_wait(&self, nanoseconds: u64) {
        self.gate_waits.add(1);
        self.gate_wait_ns.record(nanoseconds);
    }

    fn reset(&self) {
        for counter in [
            &self.commands_processed,
            &self.keyspace_hits,
            &self.keyspace_misses,
            &self.expired_keys,
            &self.hibernated_keys,
            &self.loaded_keys,
            &self.hops,
            &self.turns,
            &self.batches,
            &self.net_input_bytes,
            &self.net_output_bytes,
            &self.connections_accepted,
            &self.connections_rejected,
            &self.output_buffer_disconnections,
            &self.query_buffer_disconnections,
            &self.protocol_errors,
            &self.auth_failures,
            &self.error_replies,
            &self.gate_waits,
        ] {
            counter.reset();
        }
        self.errors.iter().for_each(Counter::reset);
        self.gate_wait_ns.reset();
        self.sweep_slice_ns.reset();
        self.commands.iter().for_each(CommandMetrics::reset);
    }
}

/// The first words of error replies that are counted apart; the last one stands for all others.
const ERROR_CODES: [&str; 20] = [
    "ERR",
    "WRONGTYPE",
    "NOAUTH",
    "WRONGPASS",
    "NOPERM",
    "NOPROTO",
    "DENIED",
    "NOSPACE",
    "DAMAGED",
    "OOM",
    "BUSY",
    "BUSYKEY",
    "EXECABORT",
    "CROSSSLOT",
    "MOVED",
    "LOADING",
    "READONLY",
    "NOSCRIPT",
    "UNBLOCKED",
    "OTHER",
];

#[derive(Debug, Default)]
struct CommandMetrics {
    calls: Counter,
    nanoseconds: Counter,
    rejected: Counter,
    failed: Counter,
    /// Most commands are never called: their histograms take no memory.
    latency: OnceLock<Box<Histogram>>,
}

impl CommandMetrics {
    fn reset(&self) {
        for counter in [&self.calls, &self.nanoseconds, &self.rejected, &self.failed] {
            counter.reset();
        }
        if let Some(latency) = self.latency.get() {
            latency.reset();
        }
    }
}

/// What a row of the command table has cost, over all shards: INFO commandstats.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CommandTotals {
    pub calls: u64,
    pub nanoseconds: u64,
    /// Refused before they ran.
    pub rejected: u64,
    /// Ran, and answered with an error.
    pub failed: u64,
}

/// What the commit log's thread counts; it alone writes.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct LogMetrics {
    /// Groups that were committed with one sync each, the batches in them, and their bytes on disk.
    pub groups: Counter,
    pub batches: Counter,
    pub bytes: Counter,
    /// Batches per group.
    pub group_batches: Histogram,
    /// Bytes per group.
    pub group_bytes: Histogram,
    /// Nanoseconds of a write with its sync.
    pub sync_ns: Histogram,
}

impl LogMetrics {
    /// A group of so many batches and bytes took so long to become durable.
    pub fn record_group(&self, batches: u64, bytes: u64, nanoseconds: u64) {
        self.groups.add(1);
        self.batches.add(batches);
        self.bytes.add(bytes);
        self.group_batches.record(batches);
        self.group_bytes.record(bytes);
        self.sync_ns.record(nanoseconds);
    }

    fn reset(&self) {
        [&self.groups, &self.batches, &self.bytes]
            .into_iter()
            .for_each(Counter::reset);
        for histogram in [&self.group_batches, &self.group_bytes, &self.sync_ns] {
            histogram.reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_summed() {
        let metrics = Metrics::new(2, 3);
        metrics.shards()[0].record_call(1, 2_000, false, true);
        metrics.shards()[1].record_call(1, 4_000, true, true);
        metrics.shards()[1].record_call(2, 5_000, false, false);
        metrics.shards()[1].record_rejected(2);
        metrics.shards()[1].record_call(99, 1, false, true);
        let expected = CommandTotals {
            calls: 2,
            nanoseconds: 6_000,
            rejected: 0,
            failed: 1,
        };
        assert_eq!(metrics.command(1), expected);
        assert_eq!(metrics.command(2).rejected, 1);
        assert_eq!(metrics.command(99), CommandTotals::default());
        assert_eq!(metrics.total(|s| &s.commands_processed), 4);
        assert_eq!(metrics.command_latency(1).count(), 2);
        assert_eq!(metrics.command_latency(2).count(), 0, "not tracked");
        metrics.shards()[0].connections.raise(3);
        metrics.shards()[1].connections.raise(1);
        assert_eq!(metrics.level(|s| &s.connections), 4);
    }

    #[test]
    fn errors_are_counted_by_their_first_word() {
        let metrics = Metrics::new(1, 0);
        for text in [
            "ERR syntax error",
            "ERR x",
            "WRONGTYPE Operation",
            "ODD thing",
            "",
        ] {
            metrics.shards()[0].record_error(text.as_bytes());
        }
        assert_eq!(
            metrics.errors(),
            [("ERR", 2), ("WRONGTYPE", 1), ("OTHER", 2)]
        );
        assert_eq!(metrics.total(|s| &s.error_replies), 5);
    }

    #[test]
    fn reset_leaves_levels_alone() {
        let metrics = Metrics::new(1, 1);
        let shard = &metrics.shards()[0];
        shard.record_call(0, 1_000, true, true);
        shard.record_gate_wait(5_000);
        shard.keys.set(7);
        metrics.log.record_group(3, 4_096, 120_000);
        metrics.reset();
        assert_eq!(metrics.command(0), CommandTotals::default());
        assert_eq!(metrics.command_latency(0).count(), 0);
        assert_eq!(metrics.merged(|s| &s.gate_wait_ns).count(), 0);
        assert_eq!(metrics.log.groups.count(), 0);
        assert_eq!(metrics.level(|s| &s.keys), 7);
        shard.record_call(0, 1_000, false, true);
        assert_eq!(metrics.command(0).calls, 1);
    }
}
