//! One shard with its log in a folder and its connections, on one thread and without sockets.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tallyman::clock::Clock;
use tallyman::config::Settings;
use tallyman::keyspace::codec::BatchBuilder;
use tallyman::log::disk::RealDisk;
use tallyman::log::{self, Batch, Log, Manual, Options, Position};
use tallyman::recovery::{Plan, recover};
use tallyman::resp::encode::encode_command;
use tallyman::route::Routes;
use tallyman::session::{Address, Client, Shared};
use tallyman::shard::mailbox::ConnId;
use tallyman::store::{MapStore, Meta, Store};
use tallyman::worker::{Parts, Worker};

/// Connections.
pub const CLIENTS: usize = 50;
const KEYS: u64 = 100_000;
const FOLDER_SEED: u64 = 7;
const DATABASES: usize = 2;
/// Templates that only read, and what makes their keys (with as many random keys in a unit).
const FILLING: &[(&str, &str)] = &[
    ("GET key:#", "SET key:# xxx"),
    ("HGET hash:# field", "HSET hash:# field 1"),
    (
        "GETSTATE state:#",
        "SETIFIDLE state:# busy PX 60000 OWNER me",
    ),
];

/// Numbers that look random, the same in each run.
#[derive(Clone, Copy)]
pub struct Numbers(pub u64);

impl Numbers {
    /// The next one.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// See above.
pub struct Single {
    /// The shard's thread.
    pub worker: Worker,
    log: Log,
    manual: Manual,
    conns: Vec<ConnId>,
    random: Numbers,
}

impl Single {
    /// Starts on an empty folder.
    pub fn start(folder: &Path) -> Single {
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
            databases: DATABASES,
            random_seed: 5,
            threads: 1,
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
        let settings = Settings {
            databases: DATABASES,
            ..Settings::default()
        };
        let mut worker = Worker::new(Parts {
            id: 0,
            routes: plan.routes,
            shared: Shared::alone(settings, 1),
            log: log.clone(),
            clock,
            keyspace,
            control: Arc::new(|_| {}),
            reads: None,
            seed: FOLDER_SEED,
        });
        let conns = (1..=CLIENTS as u64)
            .map(|id| {
                let addresses = (Address::loopback(1), Address::loopback(2));
                worker.connect(Arc::new(Client::new(id, 0, addresses, 0, 0)))
            })
            .collect();
        Single {
            worker,
            log,
            manual,
            conns,
            random: Numbers(1),
        }
    }

    fn key(&mut self) -> String {
        format!("{:012}", self.random.below(KEYS))
    }

    /// So many units of a template: ` | ` separates commands; `#` is a random key's number, `@` one
    /// that is the same in the whole unit.
    pub fn requests(&mut self, template: &str, units: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for _ in 0..units {
            let unit = self.key();
            for command in template.split(" | ") {
                let words: Vec<String> = command
                    .split_whitespace()
                    .map(|word| match word.contains('#') {
                        true => word.replace('#', &self.key()),
                        false => word.replace('@', &unit),
                    })
                    .collect();
                let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
                encode_command(&words, &mut out);
            }
        }
        out
    }

    /// So many turns of a template, from each connection so many units of it. They have been run
    /// once, so that the keys exist.
    pub fn turns(&mut self, template: &str, turns: usize, units: usize) -> Vec<Vec<Vec<u8>>> {
        let began = self.random;
        if let Some((_, filling)) = FILLING.iter().find(|(reads, _)| *reads == template) {
            self.made(filling, turns, units);
            self.random = began;
        }
        let turns = self.made(template, turns, units);
        self.trim();
        turns
    }

    fn made(&mut self, template: &str, turns: usize, units: usize) -> Vec<Vec<Vec<u8>>> {
        let turns: Vec<Vec<Vec<u8>>> = (0..turns)
            .map(|_| {
                (0..CLIENTS)
                    .map(|_| self.requests(template, units))
                    .collect()
            })
            .collect();
        for requests in &turns {
            self.turn(requests);
        }
        turns
    }

    /// One turn: what each connection sends, one record, all replies.
    #[inline(never)]
    pub fn turn(&mut self, requests: &[Vec<u8>]) {
        self.receive(requests);
        self.seal();
        self.commit();
        self.release();
    }

    /// Reads and runs what each connection sends; replies that wait for nothing leave.
    pub fn receive(&mut self, requests: &[Vec<u8>]) {
        for (conn, request) in self.conns.iter().zip(requests) {
            self.worker.begin_turn();
            self.worker.receive(*conn, request);
            pass_on(&mut self.worker, *conn);
        }
    }

    /// What was changed becomes a batch in the log's queue.
    pub fn seal(&mut self) {
        if self.worker.wants_seal() {
            self.worker.seal();
        }
    }

    /// The batch becomes a record on disk.
    pub fn commit(&mut self) {
        self.manual.run().expect("the disk works");
    }

    /// Replies that waited for it leave.
    pub fn release(&mut self) {
        self.worker.begin_turn();
        self.worker.durable();
        for id in self.worker.take_attention() {
            pass_on(&mut self.worker, id);
        }
    }

    /// Gives the log's space back, as a checkpoint would.
    pub fn trim(&self) {
        self.log.trim(self.log.durable_lsn());
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
