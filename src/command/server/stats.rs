//! The sections of INFO: Redis's field names wherever a client or an exporter reads them. What does
//! not exist here (replicas, forks, Lua) has the value of a Redis without it.

use std::fmt::{Display, Write};
use std::sync::atomic::Ordering::Relaxed;

use crate::command::server::process::Usage;
use crate::command::table;
use crate::session::{REDIS_VERSION, SessionCall};

/// Lines under headings.
#[derive(Default)]
pub(super) struct Lines(String);

impl Lines {
    /// Begins a section.
    pub(super) fn title(&mut self, title: &str) {
        let between = if self.0.is_empty() { "" } else { "\r\n" };
        // Writing to a String cannot fail.
        let _ = write!(self.0, "{between}# {title}\r\n");
    }

    /// A field.
    pub(super) fn add(&mut self, name: &str, value: impl Display) {
        let _ = write!(self.0, "{name}:{value}\r\n");
    }

    /// Fields that are always 0 here.
    fn zeros(&mut self, names: &[&str]) {
        names.iter().for_each(|name| self.add(name, 0));
    }

    /// Bytes, and the same for people.
    fn bytes(&mut self, name: &str, bytes: u64) {
        self.add(name, bytes);
        self.add(&format!("{name}_human"), human(bytes));
    }

    /// All of it.
    pub(super) fn text(&self) -> &str {
        &self.0
    }
}

/// Bytes with two decimals and a unit, as Redis writes them.
fn human(bytes: u64) -> String {
    let units = ["K", "M", "G", "T", "P"];
    let mut amount = bytes as f64;
    let mut unit = "B";
    for larger in units {
        if amount < 1024.0 {
            break;
        }
        amount /= 1024.0;
        unit = larger;
    }
    match unit {
        "B" => format!("{bytes}B"),
        _ => format!("{amount:.2}{unit}"),
    }
}

fn uptime_s(call: &SessionCall<'_>) -> u64 {
    call.now_ms.saturating_sub(call.shared.started_ms) / 1000
}

pub(super) fn server(call: &SessionCall<'_>, lines: &mut Lines) {
    let shared = call.shared;
    let config_file = shared
        .settings
        .file()
        .map(|path| path.display().to_string());
    let executable = std::env::current_exe().map(|path| path.display().to_string());
    lines.add("redis_version", REDIS_VERSION);
    lines.add("redis_git_sha1", "00000000");
    lines.add("redis_git_dirty", 0);
    lines.add("redis_build_id", "0");
    lines.add("redis_mode", "standalone");
    lines.add("tallyman_version", env!("CARGO_PKG_VERSION"));
    lines.add(
        "os",
        format_args!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
    );
    lines.add("arch_bits", usize::BITS);
    lines.add("monotonic_clock", "POSIX clock_gettime");
    lines.add("multiplexing_api", "tokio");
    lines.add("process_id", std::process::id());
    lines.add("process_supervised", "no");
    lines.add("run_id", &shared.run_id);
    lines.add("tcp_port", shared.port.load(Relaxed));
    lines.add("server_time_usec", call.clock.now_epoch_ns() / 1000);
    lines.add("uptime_in_seconds", uptime_s(call));
    lines.add("uptime_in_days", uptime_s(call) / 86_400);
    lines.add("hz", 10);
    lines.add("configured_hz", 10);
    lines.add("lru_clock", (call.now_ms / 1000) & 0xff_ffff);
    lines.add("executable", executable.unwrap_or_default());
    lines.add("config_file", config_file.unwrap_or_default());
    lines.add("io_threads_active", i32::from(shared.shards > 1));
}

pub(super) fn clients(call: &SessionCall<'_>, lines: &mut Lines) {
    let clients = call.shared.clients.list();
    let largest = |bytes: fn(&crate::session::Client) -> usize| {
        clients
            .iter()
            .map(|client| bytes(client))
            .max()
            .unwrap_or(0)
    };
    let count = |is: fn(&crate::session::Client) -> bool| {
        clients.iter().filter(|client| is(client)).count()
    };
    lines.add("connected_clients", clients.len());
    lines.add("cluster_connections", 0);
    lines.add("maxclients", call.shared.settings.settings().maxclients);
    lines.add(
        "client_recent_max_input_buffer",
        largest(|client| client.query_bytes.load(Relaxed)),
    );
    lines.add(
        "client_recent_max_output_buffer",
        largest(|client| client.output_bytes.load(Relaxed)),
    );
    lines.add(
        "blocked_clients",
        count(|client| client.blocked.load(Relaxed)),
    );
    lines.add("tracking_clients", 0);
    lines.add("pubsub_clients", 0);
    lines.add(
        "watching_clients",
        count(|client| client.watching.load(Relaxed) > 0),
    );
    lines.add("clients_in_timeout_table", 0);
    lines.add(
        "total_watched_keys",
        clients
            .iter()
            .map(|client| u64::from(client.watching.load(Relaxed)))
            .sum::<u64>(),
    );
    lines.add("total_blocking_keys", 0);
    lines.add("total_blocking_keys_on_nokey", 0);
}

pub(super) fn memory(call: &SessionCall<'_>, lines: &mut Lines) {
    let usage = Usage::now();
    let used = call.shared.metrics.level(|shard| &shard.resident_bytes);
    // What is counted never exceeds what the process holds, whichever was read first.
    let used_total = usage.resident_bytes.max(used);
    let peak = usage.resident_peak_bytes.max(used_total);
    let percent = |part: u64, whole: u64| part as f64 * 100.0 / whole.max(1) as f64;
    lines.bytes("used_memory", used_total);
    lines.bytes("used_memory_rss", usage.resident_bytes);
    lines.bytes("used_memory_peak", peak);
    lines.add(
        "used_memory_peak_perc",
        format_args!("{:.2}%", percent(used_total, peak)),
    );
    lines.add("used_memory_overhead", used_total - used);
    lines.add("used_memory_startup", 0);
    lines.add("used_memory_dataset", used);
    lines.add(
        "used_memory_dataset_perc",
        format_args!("{:.2}%", percent(used, used_total)),
    );
    lines.add("allocator_allocated", used_total);
    lines.add("allocator_active", usage.resident_bytes);
    lines.add("allocator_resident", usage.resident_bytes);
    lines.bytes("total_system_memory", usage.machine_bytes);
    lines.bytes("used_memory_lua", 0);
    lines.bytes("used_memory_scripts", 0);
    lines.zeros(&[
        "number_of_cached_scripts",
        "number_of_functions",
        "number_of_libraries",
    ]);
    let maxmemory = call.shared.settings.settings().maxmemory_bytes as u64;
    lines.bytes("maxmemory", maxmemory);
    lines.add("maxmemory_policy", "noeviction");
    lines.add("allocator_frag_ratio", "1.00");
    lines.add("allocator_frag_bytes", 0);
    lines.add("allocator_rss_ratio", "1.00");
    lines.add("allocator_rss_bytes", 0);
    lines.add("rss_overhead_ratio", "1.00");
    lines.add("rss_overhead_bytes", 0);
    lines.add("mem_fragmentation_ratio", "1.00");
    lines.zeros(&[
        "mem_fragmentation_bytes",
        "mem_not_counted_for_evict",
        "mem_replication_backlog",
        "mem_total_replication_buffers",
        "mem_clients_slaves",
    ]);
    let clients = call.shared.clients.list();
    let buffers = clients
        .iter()
        .map(|client| client.query_bytes.load(Relaxed) + client.output_bytes.load(Relaxed));
    lines.add("mem_clients_normal", buffers.sum::<usize>());
    lines.zeros(&["mem_cluster_links", "mem_aof_buffer"]);
    lines.add("mem_allocator", "mimalloc");
    lines.zeros(&[
        "active_defrag_running",
        "lazyfree_pending_objects",
        "lazyfreed_objects",
    ]);
}

pub(super) fn persistence(call: &SessionCall<'_>, lines: &mut Lines) {
    let engine = &call.shared.engine;
    let runs = i32::from(engine.checkpoint_runs());
    let status = if engine.last_checkpoint_ok() {
        "ok"
    } else {
        "err"
    };
    lines.zeros(&[
        "loading",
        "async_loading",
        "current_cow_peak",
        "current_cow_size",
        "current_cow_size_age",
    ]);
    lines.add("current_fork_perc", "0.00");
    lines.zeros(&["current_save_keys_processed", "current_save_keys_total"]);
    lines.add(
        "rdb_changes_since_last_save",
        engine.changes_since_checkpoint(),
    );
    lines.add("rdb_bgsave_in_progress", runs);
    lines.add("rdb_last_save_time", engine.last_checkpoint_s());
    lines.add("rdb_last_bgsave_status", status);
    lines.add("rdb_last_bgsave_time_sec", -1);
    lines.add("rdb_current_bgsave_time_sec", -1);
    lines.zeros(&[
        "rdb_saves",
        "rdb_last_cow_size",
        "rdb_last_load_keys_expired",
        "rdb_last_load_keys_loaded",
    ]);
    lines.add("aof_enabled", 1);
    lines.add("aof_rewrite_in_progress", runs);
    lines.add("aof_rewrite_scheduled", 0);
    lines.add("aof_last_rewrite_time_sec", -1);
    lines.add("aof_current_rewrite_time_sec", -1);
    lines.add("aof_last_bgrewrite_status", status);
    lines.zeros(&["aof_rewrites", "aof_rewrites_consecutive_failures"]);
    // A failed write ends the process.
    lines.add("aof_last_write_status", "ok");
    lines.zeros(&[
        "aof_last_cow_size",
        "module_fork_in_progress",
        "module_fork_last_cow_size",
    ]);
    lines.add("aof_current_size", engine.log_bytes());
    lines.zeros(&[
        "aof_base_size",
        "aof_pending_rewrite",
        "aof_buffer_length",
        "aof_pending_bio_fsync",
        "aof_delayed_fsync",
    ]);
}

pub(super) fn stats(call: &SessionCall<'_>, lines: &mut Lines) {
    let shared = call.shared;
    let metrics = &shared.metrics;
    let kilobytes = |bytes: u64| format!("{:.2}", bytes as f64 / 1024.0);
    lines.add(
        "total_connections_received",
        shared.clients.accepted.load(Relaxed),
    );
    lines.add(
        "total_commands_processed",
        metrics.total(|s| &s.commands_processed),
    );
    lines.add(
        "instantaneous_ops_per_sec",
        metrics.commands_per_second.per_second(),
    );
    lines.add(
        "total_net_input_bytes",
        metrics.total(|s| &s.net_input_bytes),
    );
    lines.add(
        "total_net_output_bytes",
        metrics.total(|s| &s.net_output_bytes),
    );
    lines.zeros(&["total_net_repl_input_bytes", "total_net_repl_output_bytes"]);
    let input = metrics.net_input_bytes_per_second.per_second();
    let output = metrics.net_output_bytes_per_second.per_second();
    lines.add("instantaneous_input_kbps", kilobytes(input));
    lines.add("instantaneous_output_kbps", kilobytes(output));
    lines.add("instantaneous_input_repl_kbps", "0.00");
    lines.add("instantaneous_output_repl_kbps", "0.00");
    lines.add("rejected_connections", shared.clients.refused.load(Relaxed));
    lines.zeros(&["sync_full", "sync_partial_ok", "sync_partial_err"]);
    lines.add("expired_keys", metrics.total(|s| &s.expired_keys));
    lines.add("expired_stale_perc", "0.00");
    lines.zeros(&[
        "expired_time_cap_reached_count",
        "expire_cycle_cpu_milliseconds",
        "evicted_keys",
        "evicted_clients",
        "total_eviction_exceeded_time",
        "current_eviction_exceeded_time",
    ]);
    lines.add("keyspace_hits", metrics.total(|s| &s.keyspace_hits));
    lines.add("keyspace_misses", metrics.total(|s| &s.keyspace_misses));
    lines.zeros(&[
        "pubsub_channels",
        "pubsub_patterns",
        "pubsubshard_channels",
        "latest_fork_usec",
        "total_forks",
        "migrate_cached_sockets",
        "slave_expires_tracked_keys",
        "active_defrag_hits",
        "active_defrag_misses",
        "active_defrag_key_hits",
        "active_defrag_key_misses",
        "total_active_defrag_time",
        "current_active_defrag_time",
        "tracking_total_keys",
        "tracking_total_items",
        "tracking_total_prefixes",
        "unexpected_error_replies",
    ]);
    lines.add("total_error_replies", metrics.total(|s| &s.error_replies));
    lines.zeros(&["dump_payload_sanitizations"]);
    lines.zeros(&[
        "io_threaded_reads_processed",
        "io_threaded_writes_processed",
    ]);
    lines.add(
        "acl_access_denied_auth",
        metrics.total(|s| &s.auth_failures),
    );
    lines.add(
        "client_query_buffer_limit_disconnections",
        metrics.total(|s| &s.query_buffer_disconnections),
    );
    lines.add(
        "client_output_buffer_limit_disconnections",
        metrics.total(|s| &s.output_buffer_disconnections),
    );
}

pub(super) fn replication(call: &SessionCall<'_>, lines: &mut Lines) {
    lines.add("role", "master");
    lines.add("connected_slaves", 0);
    lines.add("master_failover_state", "no-failover");
    lines.add("master_replid", &call.shared.run_id);
    lines.add("master_replid2", "0".repeat(40));
    lines.add("master_repl_offset", 0);
    lines.add("second_repl_offset", -1);
    lines.add("repl_backlog_active", 0);
    lines.add("repl_backlog_size", 1_048_576);
    lines.zeros(&["repl_backlog_first_byte_offset", "repl_backlog_histlen"]);
}

pub(super) fn cpu(_call: &SessionCall<'_>, lines: &mut Lines) {
    let usage = Usage::now();
    lines.add("used_cpu_sys", format_args!("{:.6}", usage.system_s));
    lines.add("used_cpu_user", format_args!("{:.6}", usage.user_s));
    lines.add("used_cpu_sys_children", "0.000000");
    lines.add("used_cpu_user_children", "0.000000");
}

pub(super) fn commands(call: &SessionCall<'_>, lines: &mut Lines) {
    for (place, row) in table().rows().iter().enumerate() {
        let totals = call.shared.metrics.command(place);
        if totals.calls == 0 && totals.rejected == 0 && totals.failed == 0 {
            continue;
        }
        let microseconds = totals.nanoseconds / 1000;
        let mean = totals.nanoseconds as f64 / 1000.0 / totals.calls.max(1) as f64;
        lines.add(
            &format!("cmdstat_{}", row.spec.name),
            format_args!(
                "calls={},usec={microseconds},usec_per_call={mean:.2},rejected_calls={},\
                 failed_calls={}",
                totals.calls, totals.rejected, totals.failed
            ),
        );
    }
}

pub(super) fn errors(call: &SessionCall<'_>, lines: &mut Lines) {
    for (code, count) in call.shared.metrics.errors() {
        lines.add(&format!("errorstat_{code}"), format_args!("count={count}"));
    }
}

pub(super) fn latencies(call: &SessionCall<'_>, lines: &mut Lines) {
    for (place, row) in table().rows().iter().enumerate() {
        let times = call.shared.metrics.command_latency(place);
        if times.count() == 0 {
            continue;
        }
        let at = |percent: f64| times.percentile(percent) as f64 / 1000.0;
        lines.add(
            &format!("latency_percentiles_usec_{}", row.spec.name),
            format_args!(
                "p50={:.3},p99={:.3},p99.9={:.3}",
                at(50.0),
                at(99.0),
                at(99.9)
            ),
        );
    }
}

pub(super) fn tallyman(call: &SessionCall<'_>, lines: &mut Lines) {
    for (name, value) in call.shared.engine.info(&call.shared.metrics) {
        lines.add(&name, value);
    }
}

pub(super) fn keyspace(call: &SessionCall<'_>, lines: &mut Lines) {
    for (number, keys, deadlines) in call.shared.keyspace.databases() {
        lines.add(
            &format!("db{number}"),
            format_args!("keys={keys},expires={deadlines},avg_ttl=0"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_read_like_rediss() {
        for (bytes, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1_163_136, "1.11M"),
            (32_768, "32.00K"),
        ] {
            assert_eq!(human(bytes), text);
        }
    }
}
