//! What a command costs on its way through a shard thread, without sockets and threads: reading the
//! request, running it, sealing, the log's record, and the reply at the gate.
//!
//! Run: `cargo run --release --example execute -- WORKLOAD PIPELINE UNITS`; `--list` shows the
//! workloads. A unit is one command; of a block, all of it. Prints nanoseconds per unit.
//! `bench/instructions` runs it under callgrind: counts of instructions show a regression on a
//! noisy machine as well.

mod single;

use std::time::Instant;

use single::{CLIENTS, Single};

/// Names, and templates: see [`Single::requests`].
const WORKLOADS: &[(&str, &str)] = &[
    ("ping", "PING"),
    ("get", "GET key:#"),
    ("set", "SET key:# xxx"),
    ("incr", "INCR counter:#"),
    ("hincrby", "HINCRBY hash:# field 1"),
    ("hget", "HGET hash:# field"),
    ("setifidle", "SETIFIDLE state:# busy PX 60000 OWNER me"),
    ("getstate", "GETSTATE state:#"),
    ("throttle", "CL.THROTTLE rate:# 999999 1000000 60"),
    (
        "block",
        "MULTI | INCR key:@ | INCR key:@ | INCR key:@ | INCR key:@ | INCR key:@ | EXEC",
    ),
    (
        "block-5-keys",
        "MULTI | INCR key:# | INCR key:# | INCR key:# | INCR key:# | INCR key:# | EXEC",
    ),
    (
        "mset-10",
        "MSET key:# x key:# x key:# x key:# x key:# x key:# x key:# x key:# x key:# x key:# x",
    ),
];
/// Different turns; then they come again.
const TURNS_MAX: usize = 256;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [workload, pipeline, units] = arguments.as_slice() else {
        for (name, _) in WORKLOADS {
            println!("{name}");
        }
        return;
    };
    let found = WORKLOADS.iter().find(|(name, _)| name == workload);
    let (_, template) = found.unwrap_or_else(|| panic!("there is no workload {workload:?}"));
    let pipeline: usize = pipeline.parse().expect("a number of units");
    let units: usize = units.parse().expect("a number of units");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut single = Single::start(&folder.path().join("log"));
    let turns = units.div_ceil(pipeline * CLIENTS).max(1);
    let requests = single.turns(template, turns.min(TURNS_MAX), pipeline);
    let started = Instant::now();
    measured(&mut single, &requests, turns);
    let ns = started.elapsed().as_nanos() as f64 / (turns * pipeline * CLIENTS) as f64;
    println!("{workload} pipeline {pipeline}: {ns:.0} ns per unit");
}

/// What callgrind counts.
#[inline(never)]
fn measured(single: &mut Single, requests: &[Vec<Vec<u8>>], turns: usize) {
    for turn in 0..turns {
        single.turn(&requests[turn % requests.len()]);
    }
}
