//! Results as a table and as JSON.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::driver::Outcome;
use crate::record::Recorder;

/// What a group of clients did.
pub struct GroupResult {
    /// Its workload.
    pub name: String,
    /// Connections.
    pub clients: usize,
    /// Units in flight per connection.
    pub pipeline: usize,
    /// Units per second that were wanted: open loop.
    pub rate: Option<f64>,
    /// Units that ended in the measured time.
    pub units: u64,
    /// The measured time.
    pub seconds: f64,
    /// Error replies.
    pub errors: u64,
    /// The first of them.
    pub first_error: Option<String>,
    /// Units that ended before their last step.
    pub ended_early: u64,
    /// Units without a reply at the end.
    pub lost: u64,
    /// Latencies.
    pub recorder: Recorder,
}

impl GroupResult {
    fn per_second(&self) -> f64 {
        self.units as f64 / self.seconds.max(1e-9)
    }
}

const PERCENTILES: &[(&str, f64)] = &[("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];

fn ms(ns: u64) -> f64 {
    (ns as f64 / 1e3).round() / 1e3
}

/// Connections that did nothing.
pub struct Idle {
    /// How many.
    pub connections: usize,
    /// How many of them the server closed.
    pub lost: usize,
    /// What each of them takes of the server's memory.
    pub bytes: Option<f64>,
}

/// Prints a line per group, and the CPU time.
pub fn table(outcome: &Outcome) {
    println!(
        "{:>12} {:>9} {:>9} {:>9} {:>9} {:>9}  workload",
        "units/s", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms"
    );
    for result in &outcome.groups {
        let all = &result.recorder.all;
        print!("{:>12.0}", result.per_second());
        for (_, part) in PERCENTILES {
            print!(" {:>9.3}", ms(all.value_at_quantile(*part)));
        }
        let pace = match result.rate {
            Some(rate) => format!("{rate} per second"),
            None => format!("pipeline {}", result.pipeline),
        };
        println!(
            " {:>9.3}  {} ({} clients, {pace})",
            ms(all.max()),
            result.name,
            result.clients
        );
    }
    let units: u64 = outcome.groups.iter().map(|result| result.units).sum();
    let micros = |ms: u64| ms as f64 * 1e3 / units.max(1) as f64;
    print!(
        "CPU us per unit: client {:.2}",
        micros(outcome.cpu.client_ms)
    );
    if let Some(ms) = outcome.cpu.server_ms {
        print!(", server {:.2}", micros(ms));
    }
    println!();
}

fn percentiles(histogram: &Histogram<u64>) -> Value {
    let mut values = serde_json::Map::new();
    for (name, part) in PERCENTILES {
        values.insert(
            (*name).into(),
            ms(histogram.value_at_quantile(*part)).into(),
        );
    }
    values.insert("max".into(), ms(histogram.max()).into());
    values.insert("mean".into(), ms(histogram.mean() as u64).into());
    Value::Object(values)
}

/// Everything, as one value.
pub fn json(outcome: &Outcome, idle: &Idle) -> Value {
    let groups: Vec<Value> = outcome
        .groups
        .iter()
        .map(|result| {
            let line: Vec<Value> = result
                .recorder
                .intervals
                .iter()
                .map(|interval| {
                    json!({
                        "at_seconds": interval.at_ns as f64 / 1e9,
                        "units": interval.units,
                        "p50_ms": ms(interval.p50_ns),
                        "p99_ms": ms(interval.p99_ns),
                        "max_ms": ms(interval.max_ns),
                    })
                })
                .collect();
            json!({
                "workload": result.name,
                "clients": result.clients,
                "pipeline": result.pipeline,
                "rate": result.rate,
                "units": result.units,
                "seconds": result.seconds,
                "units_per_second": result.per_second(),
                "latency_ms": percentiles(&result.recorder.all),
                "client_lag_ms": result.rate.map(|_| percentiles(&result.recorder.lag)),
                "errors": result.errors,
                "first_error": result.first_error,
                "ended_early": result.ended_early,
                "lost": result.lost,
                "time_line": line,
            })
        })
        .collect();
    json!({
        "groups": groups,
        "server_cpu_ms": outcome.cpu.server_ms,
        "client_cpu_ms": outcome.cpu.client_ms,
        "idle": idle.connections,
        "idle_lost": idle.lost,
        "idle_bytes": idle.bytes,
    })
}
