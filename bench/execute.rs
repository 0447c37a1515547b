//! What a command costs on its way through a shard thread, without sockets and threads: reading the
//! request, running it, sealing, the log's record, and the reply at the gate.
//!
//! Run: `cargo run --release --example execute -- WORKLOAD PIPELINE COMMANDS`, where the workload is
//! one of `incr`, `get`, `set`, `setidle`, `ping`. Prints nanoseconds per command. `bench/instructions`
//! runs it under callgrind: counts of instructions show a regression on a noisy machine as well.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use tallyman::clock::Clock;
use tallyman::config::{Live, Settings};
use tallyman::keyspace::codec::BatchBuilder;
use tallyman::log::disk::RealDisk;
use tallyman::log::{self, Batch, Manual, Options, Position};
use tallyman::metrics::Metrics;
use tallyman::recovery::{Plan, recover};
use tallyman::route::Routes;
use tallyman::session::{Client, Clients, Engine, KeyCounts, Shared};
use tallyman::shard::mailbox::ConnId;
use tallyman::store::{MapStore, Meta, Store};
use tallyman::worker::{Parts, Worker};

const CLIENTS: usize = 50;
const KEYS: u64 = 100_000;
const FOLDER_SEED: u64 = 7;

struct NoEngine;

impl Engine for NoEngine {
    fn info(&self, _metrics: &Metrics) -> Vec<(String, String)> {
        Vec::new()
    }

    fn last_checkpoint_s(&self) -> u64 {
        0
    }

    fn checkpoint_runs(&self) -> bool {
        false
    }

    fn last_checkpoint_ok(&self) -> bool {
        true
    }

    fn changes_since_checkpoint(&self) -> u64 {
        0
    }

    fn log_bytes(&self) -> u64 {
        0
    }
}

fn shared() -> Arc<Shared> {
    Arc::new(Shared {
        settings: Live::new(Settings::default(), None),
        clients: Clients::default(),
        metrics: Metrics::new(1, tallyman::command::table().rows().len()),
        engine: Box::new(NoEngine),
        started_ms: 0,
        run_id: String::new(),
        port: AtomicU32::new(0),
        dir: String::new(),
        shards: 1,
        keyspace: KeyCounts::new(1, 2),
        monitors: AtomicUsize::new(0),
        stopping: AtomicBool::new(false),
    })
}

/// One shard with its log in a folder, and its connections.
struct Bench {
    worker: Worker,
    manual: Manual,
    conns: Vec<ConnId>,
    random: u64,
}

impl Bench {
    fn start(folder: &std::path::Path) -> Bench {
        let time_us = AtomicU64::new(0);
        let options = Options::new(
            FOLDER_SEED,
            Arc::new(move || time_us.fetch_add(1, Ordering::Relaxed)),
        );
        let disk = Arc::new(RealDisk::new(false));
        let mut recovery =
            log::open(disk, folder, options, Position::default()).expect("the log opens");
        let meta = Meta {
            databases: vec![0, 1],
            next_database_id: 2,
            ..Meta::default()
        };
        let plan = Plan {
            routes: Routes::new(1),
            seed: FOLDER_SEED,
            databases: 2,
            random_seed: 5,
        };
        let store: Arc<dyn Store> = Arc::new(MapStore::new());
        let recovered = recover(&store, &meta, &mut recovery, plan, &mut |_| {})
            .expect("an empty folder can be read");
        let (log, mut manual) = recovery.finish_manual().expect("the log starts");
        manual.run().expect("the disk works");
        let clock = Clock::start(0);
        let mut batch = BatchBuilder::default();
        batch.token_ceiling(recovered.tokens.ceiling());
        assert!(log.reserve_urgent(4096));
        log.append(Batch {
            parts: batch.finish(),
            time_ms: clock.now_ms(),
            reserved_bytes: 4096,
        });
        manual.run().expect("the disk works");
        let keyspace = recovered.keyspaces.into_iter().next().expect("one shard");
        let mut worker = Worker::new(Parts {
            id: 0,
            routes: plan.routes,
            shared: shared(),
            log,
            clock,
            keyspace,
            control: Arc::new(|_| {}),
            reads: None,
            seed: FOLDER_SEED,
        });
        let conns = (1..=CLIENTS as u64)
            .map(|id| {
                let names = ("127.0.0.1:1".to_owned(), "127.0.0.1:2".to_owned());
                worker.connect(Arc::new(Client::new(id, 0, names, 0, false, 0)))
            })
            .collect();
        Bench {
            worker,
            manual,
            conns,
            random: 1,
        }
    }

    fn key(&mut self) -> u64 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % KEYS
    }

    fn request(&mut self, workload: &str, out: &mut Vec<u8>) {
        let key = format!("key:{:012}", self.key());
        let words: Vec<&str> = match workload {
            "incr" => vec!["INCR", &key],
            "get" => vec!["GET", &key],
            "set" => vec!["SET", &key, "xxx"],
            "setidle" => vec!["SETIFIDLE", &key, "busy", "PX", "60000", "OWNER", "me"],
            "ping" => vec!["PING"],
            other => panic!("no workload {other}"),
        };
        out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
        for word in words {
            out.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
        }
    }

    /// One turn: a pipeline from each connection, one record, all replies. What is measured.
    #[inline(never)]
    fn turn(&mut self, requests: &[Vec<u8>]) {
        for (conn, request) in self.conns.iter().zip(requests) {
            self.worker.begin_turn();
            self.worker.receive(*conn, request);
            pass_on(&mut self.worker, *conn);
        }
        if self.worker.wants_seal() {
            self.worker.seal();
        }
        self.manual.run().expect("the disk works");
        self.worker.begin_turn();
        self.worker.durable();
        for id in self.worker.take_attention() {
            pass_on(&mut self.worker, id);
        }
    }
}

fn pass_on(worker: &mut Worker, id: ConnId) {
    let released = worker
        .output(id)
        .map_or(0, |released| black_box(released.bytes()).len());
    if released > 0 {
        worker.sent(id, released);
    }
    worker.hold_watch(id);
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, workload, pipeline, commands] = arguments.as_slice() else {
        panic!("usage: execute WORKLOAD PIPELINE COMMANDS");
    };
    let pipeline: usize = pipeline.parse().expect("a number of commands");
    let commands: usize = commands.parse().expect("a number of commands");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut bench = Bench::start(&folder.path().join("log"));
    let turns = commands.div_ceil(pipeline * CLIENTS).max(1);
    let requests: Vec<Vec<Vec<u8>>> = (0..turns.min(256))
        .map(|_| {
            let one = |bench: &mut Bench| {
                let mut out = Vec::new();
                for _ in 0..pipeline {
                    bench.request(workload, &mut out);
                }
                out
            };
            (0..CLIENTS).map(|_| one(&mut bench)).collect()
        })
        .collect();
    // Keys exist before they are counted on.
    for requests in requests.iter().take(turns) {
        bench.turn(requests);
    }
    let started = Instant::now();
    measured(&mut bench, &requests, turns);
    let ns = started.elapsed().as_nanos() as f64 / (turns * pipeline * CLIENTS) as f64;
    println!("{workload} pipeline {pipeline}: {ns:.0} ns per command");
}

#[inline(never)]
fn measured(bench: &mut Bench, requests: &[Vec<Vec<u8>>], turns: usize) {
    for turn in 0..turns {
        bench.turn(&requests[turn % requests.len()]);
    }
}
