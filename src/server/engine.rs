//! What the engine room tells INFO and the like.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::log::Log;
use crate::metrics::Metrics;
use crate::server::checkpoints::Progress;
use crate::session::Engine;
use crate::store::Store;

/// The parts that INFO shows.
pub struct Room {
    /// The log.
    pub log: Log,
    /// The store.
    pub store: Arc<dyn Store>,
    /// Checkpoints.
    pub progress: Arc<Progress>,
    /// When the server started, s since the Unix epoch.
    pub started_s: u64,
}

fn histogram(counts: &[u64]) -> String {
    let used = counts.iter().enumerate().filter(|(_, count)| **count > 0);
    let texts: Vec<String> = used
        .map(|(power, count)| format!("{}={count}", 1_u64 << power))
        .collect();
    texts.join(",")
}

impl Room {
    fn checkpoints(&self, metrics: &Metrics, add: &mut impl FnMut(&str, String)) {
        let progress = &*self.progress;
        for (name, figure) in [
            ("checkpoint_lsn", &progress.lsn),
            ("checkpoints", &progress.count),
            ("checkpoint_last_msec", &progress.took_ms),
            ("checkpoint_last_rows", &progress.rows),
        ] {
            add(name, figure.load(Ordering::Relaxed).to_string());
        }
        let slices = metrics.merged(|shard| &shard.sweep_slice_ns);
        let us = |percent: f64| (slices.percentile(percent) / 1_000).to_string();
        add("checkpoint_slices", slices.count().to_string());
        add("checkpoint_slice_usec_p50", us(50.0));
        add("checkpoint_slice_usec_p99.9", us(99.9));
        add("checkpoint_slice_usec_max", us(100.0));
    }
}

impl Engine for Room {
    fn info(&self, metrics: &Metrics) -> Vec<(String, String)> {
        let stats = self.log.stats();
        let position = self.log.position();
        let mut fields: Vec<(String, String)> = Vec::new();
        let mut add = |name: &str, value: String| fields.push((name.to_owned(), value));
        for (shard, metrics) in metrics.shards().iter().enumerate() {
            let text = format!(
                "keys={},mailbox_depth={},commands={},connections={},hops={},turns={}",
                metrics.keys.level(),
                metrics.mailbox_depth.level(),
                metrics.commands_processed.count(),
                metrics.connections.level(),
                metrics.hops.count(),
                metrics.turns.count(),
            );
            add(&format!("shard_{shard}"), text);
        }
        add("log_groups_per_second", stats.groups_per_second.to_string());
        add("log_groups", stats.groups.to_string());
        add("log_batches", stats.batches.to_string());
        add("log_bytes", stats.bytes.to_string());
        add("log_batches_per_group", histogram(&stats.batches_per_group));
        add("log_bytes_per_group", histogram(&stats.bytes_per_group));
        add("log_syncs", stats.syncs.to_string());
        add("log_sync_usec_p50", stats.sync_p50_us.to_string());
        add("log_sync_usec_p99", stats.sync_p99_us.to_string());
        add("log_sync_usec_p99.9", stats.sync_p999_us.to_string());
        add("log_sync_usec_max", stats.sync_max_us.to_string());
        add("log_queue_batches", stats.queue_batches.to_string());
        add("log_queue_bytes", stats.queue_bytes.to_string());
        add("log_segments", stats.segments_in_use.to_string());
        add("log_segments_spare", stats.segments_spare.to_string());
        add("log_disk_full", u8::from(stats.disk_full).to_string());
        add("durable_lsn", self.log.durable_lsn().to_string());
        add("last_lsn", self.log.last_lsn().to_string());
        add("durable_record_lsn", position.lsn.to_string());
        add(
            "bytes_since_checkpoint",
            self.log.bytes_since_trim().to_string(),
        );
        self.checkpoints(metrics, &mut add);
        add("store_bytes", self.store.disk_bytes().to_string());
        add("store_runs", self.store.depth().to_string());
        let woken_keys = metrics.total(|shard| &shard.woken_keys);
        let woken_fields = metrics.total(|shard| &shard.woken_fields);
        add("woken_keys", woken_keys.to_string());
        add("woken_fields", woken_fields.to_string());
        add(
            "gate_replies_waiting",
            metrics.level(|shard| &shard.gate_replies).to_string(),
        );
        add(
            "gate_waits",
            metrics.total(|shard| &shard.gate_waits).to_string(),
        );
        let gate = metrics.merged(|shard| &shard.gate_wait_ns);
        let us = |percent: f64| (gate.percentile(percent) / 1_000).to_string();
        add("gate_wait_usec_p50", us(50.0));
        add("gate_wait_usec_p99", us(99.0));
        add("gate_wait_usec_p99.9", us(99.9));
        fields
    }

    fn last_checkpoint_s(&self) -> u64 {
        match self.progress.finished_ms.load(Ordering::Relaxed) {
            0 => self.started_s,
            ms => ms / 1_000,
        }
    }

    fn checkpoint_runs(&self) -> bool {
        self.progress.running.load(Ordering::Relaxed)
    }

    fn last_checkpoint_ok(&self) -> bool {
        !self.progress.failed.load(Ordering::Relaxed)
    }

    fn changes_since_checkpoint(&self) -> u64 {
        let stored = self.progress.lsn.load(Ordering::Relaxed);
        self.log.last_lsn().saturating_sub(stored)
    }

    fn log_bytes(&self) -> u64 {
        self.log.bytes_since_trim()
    }
}
