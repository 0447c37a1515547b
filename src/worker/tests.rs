//! The whole server on one thread, over a disk that can lose, hold and run out: workers, mailboxes,
//! lending, gate and log, driven by hand.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use hashbrown::HashMap;
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::clock::ManualClock;
use crate::command::transcript::store_all;
use crate::config::Settings;
use crate::keyspace::codec::BatchBuilder;
use crate::keyspace::input_gate::Read;
use crate::log::sim_disk::{Keep, SimDisk};
use crate::log::{self, Batch, Log, Manual, Options, Position};
use crate::recovery::{Plan, recover};
use crate::residency::StoredKeys;
use crate::route::Routes;
use crate::session::{Address, Client, Shared};
use crate::shard::mailbox::{ConnId, Message};
use crate::store::{MapStore, Meta, Store};
use crate::worker::{Parts, Worker};

/// A client: a connection of one of the threads.
#[derive(Clone, Copy)]
pub(super) struct Peer {
    pub(super) shard: usize,
    pub(super) id: ConnId,
}

/// A server on one thread.
pub(super) struct Village {
    disk: Arc<SimDisk>,
    pub(super) store: Arc<MapStore>,
    pub(super) clock: ManualClock,
    /// Reads that nobody has made yet.
    pub(super) reads: Arc<Mutex<Vec<(usize, Read)>>>,
    log: Log,
    manual: Manual,
    pub(super) workers: Vec<Worker>,
    clients: u64,
}

const SEED: u64 = 11;

impl Village {
    /// Starts on what the disk has.
    pub(super) fn start(disk: &Arc<SimDisk>, shards: usize) -> Village {
        Village::start_with(disk, shards, 256 * 1024)
    }

    pub(super) fn start_with(disk: &Arc<SimDisk>, shards: usize, segment_bytes: u64) -> Village {
        let time_us = Arc::new(AtomicU64::new(0));
        let mut options = Options::new(SEED, {
            Arc::new(move || time_us.fetch_add(10, Ordering::Relaxed))
        });
        options.segment_bytes = segment_bytes;
        options.set_aside_bytes = 64 * 1024;
        options.writers = shards;
        let mut recovery =
            log::open(disk.disk(), Path::new("log"), options, Position::default()).unwrap();
        let plan = Plan {
            routes: Routes::new(shards),
            seed: SEED,
            databases: 2,
            random_seed: 5,
            // Several parts per shard, or by itself.
            threads: (shards % 3) * 3,
        };
        let meta = Meta {
            databases: vec![0, 1],
            next_database_id: 2,
            ..Meta::default()
        };
        let map = Arc::new(MapStore::new());
        let store: Arc<dyn Store> = map.clone();
        let recovered = recover(&store, &meta, &mut recovery, plan, &mut |_| {})
            .expect("what was written can be read");
        let (log, mut manual) = recovery.finish_manual().expect("the log starts");
        manual.run().expect("the disk works");
        let settings = Settings {
            databases: 2,
            ..Settings::default()
        };
        let shared = Shared::alone(settings, shards);
        let manual_clock = ManualClock::new(1_700_000_000_000);
        let clock = manual_clock.clock(recovered.time_ms);
        first_ceiling(&log, recovered.tokens.ceiling(), clock.now_ms());
        manual.run().expect("the disk works");
        let reads: Arc<Mutex<Vec<(usize, Read)>>> = Arc::default();
        let keyspaces = recovered.keyspaces.into_iter().enumerate();
        let workers = keyspaces
            .map(|(id, keyspace)| {
                Worker::new(Parts {
                    id,
                    routes: plan.routes,
                    shared: shared.clone(),
                    log: log.clone(),
                    clock: clock.clone(),
                    keyspace,
                    control: Arc::new(|_| {}),
                    reads: Some({
                        let reads = reads.clone();
                        let add = move |read| reads.lock().expect("one thread").push(read);
                        Arc::new(move |shard, read| add((shard, read)))
                    }),
                    seed: SEED + id as u64,
                })
            })
            .collect();
        Village {
            disk: disk.clone(),
            store: map,
            clock: manual_clock,
            reads,
            log,
            manual,
            workers,
            clients: 0,
        }
    }

    pub(super) fn connect(&mut self, shard: usize) -> Peer {
        self.clients += 1;
        let addresses = (Address::loopback(1), Address::loopback(2));
        let client = Client::new(self.clients, shard, addresses, 0, 0);
        let id = self.workers[shard].connect(Arc::new(client));
        Peer { shard, id }
    }

    pub(super) fn send(&mut self, peer: Peer, lines: &str) {
        self.workers[peer.shard].begin_turn();
        self.workers[peer.shard].receive(peer.id, lines.replace('\n', "\r\n").as_bytes());
        self.deliver();
    }

    /// Passes messages on until there are none, and lets connections go on.
    pub(super) fn deliver(&mut self) {
        loop {
            let mut any = false;
            for shard in 0..self.workers.len() {
                for (to, message) in self.workers[shard].take_outbox() {
                    any = true;
                    self.workers[to].message(message);
                }
                for id in self.workers[shard].take_attention() {
                    let waits = self.workers[shard]
                        .conn(id)
                        .is_some_and(|conn| conn.has_input());
                    if waits {
                        any = true;
                        self.workers[shard].resume(id);
                    }
                }
            }
            if !any {
                return;
            }
        }
    }

    /// Ends the turn of one thread.
    pub(super) fn seal(&mut self, shard: usize) {
        if self.workers[shard].wants_seal() {
            self.workers[shard].seal();
        }
        self.deliver();
    }

    /// Ends every turn, until nobody has anything to hand over.
    pub(super) fn seal_all(&mut self) {
        while self.workers.iter().any(Worker::wants_seal) {
            for shard in 0..self.workers.len() {
                self.seal(shard);
            }
        }
    }

    /// The disk takes what is queued.
    pub(super) fn sync(&mut self) {
        self.manual.run().expect("the disk works");
        self.durable();
        self.deliver();
    }

    /// The disk takes one thing of what is queued.
    pub(super) fn disk_step(&mut self) -> bool {
        self.manual.step().is_ok()
    }

    /// Threads are told what is durable, and nothing else happens.
    pub(super) fn durable(&mut self) {
        for worker in &mut self.workers {
            worker.begin_turn();
            worker.durable();
            if worker.wants_space() {
                worker.space_changed();
            }
        }
    }

    /// Position of the last batch.
    pub(super) fn last_lsn(&self) -> u64 {
        self.log.last_lsn()
    }

    pub(super) fn settle(&mut self) {
        for _ in 0..3 {
            self.seal_all();
            self.sync();
        }
    }

    /// What may be sent to a client by now.
    pub(super) fn output(&mut self, peer: Peer) -> String {
        let worker = &mut self.workers[peer.shard];
        let Some(released) = worker.output(peer.id) else {
            return String::new();
        };
        let bytes = released.bytes().to_vec();
        worker.sent(peer.id, bytes.len());
        worker.hold_watch(peer.id);
        String::from_utf8(bytes).expect("test data is text")
    }

    /// Sends a request and waits for everything.
    pub(super) fn call(&mut self, peer: Peer, lines: &str) -> String {
        self.send(peer, lines);
        self.settle();
        self.output(peer)
    }

    // ---- keys that hibernate -----------------------------------------------------------------

    /// Everything is stored and leaves memory.
    pub(super) fn hibernate(&mut self) {
        self.settle();
        (0..self.workers.len()).for_each(|shard| self.hibernate_shard(shard));
    }

    /// The same for one shard, if it is at home.
    pub(super) fn hibernate_shard(&mut self, shard: usize) {
        if self.workers[shard].keyspace().is_none() {
            return;
        }
        self.workers[shard].seal();
        if let Some(keyspace) = self.workers[shard].keyspace() {
            store_all(keyspace, &self.store);
            keyspace.evict(0, usize::MAX, true);
        }
    }

    /// How many reads were asked for and not made.
    pub(super) fn reads_left(&self) -> usize {
        self.reads.lock().expect("one thread").len()
    }

    /// Makes one read; nothing else happens.
    pub(super) fn make_read(&mut self, place: usize) -> (usize, Message) {
        let (shard, read) = self.reads.lock().expect("one thread").remove(place);
        let cold = StoredKeys::new(self.store.clone());
        (shard, Message::Rows(read.perform(&cold, SEED)))
    }

    /// Makes one read, and lets go on who waited for it.
    pub(super) fn read(&mut self, place: usize) {
        let (shard, rows) = self.make_read(place);
        self.workers[shard].message(rows);
        self.deliver();
    }

    /// Makes all reads, and those that follow from them.
    pub(super) fn read_all(&mut self) {
        self.settle();
        while self.reads_left() > 0 {
            self.read(0);
            self.settle();
        }
    }

    /// The power goes; what the disk had not synced is kept as `keep` says.
    pub(super) fn crash(self, keep: Keep) -> Arc<SimDisk> {
        self.disk.crash(keep);
        self.disk.clone()
    }
}

fn first_ceiling(log: &Log, ceiling: u64, time_ms: u64) {
    let mut batch = BatchBuilder::default();
    batch.token_ceiling(ceiling);
    assert!(log.reserve_urgent(4096));
    log.append(Batch {
        parts: batch.finish(),
        time_ms,
        reserved_bytes: 4096,
    });
}

/// A key for each shard.
pub(super) fn keys(shards: usize) -> Vec<String> {
    let routes = Routes::new(shards);
    (0..shards)
        .map(|shard| {
            let mut names = (0..).map(|number| format!("key{number}"));
            names
                .find(|name| routes.of_key(name.as_bytes()) == shard)
                .unwrap_or_default()
        })
        .collect()
}

#[test]
fn replies_wait_for_their_keys_last_write_and_for_nothing_else() {
    for shards in [1, 3] {
        // Room in the log for all of it, so that nothing waits for room.
        let mut village = Village::start_with(&SimDisk::new(1), shards, 8 << 20);
        let (writer, reader) = (village.connect(0), village.connect(shards - 1));
        for key in keys(shards) {
            village.send(writer, &format!("SET {key} 1\n"));
            village.send(reader, &format!("GET {key}\n"));
            village.seal_all();
            assert_eq!(village.output(writer), "", "the write is not on disk");
            assert_eq!(village.output(reader), "", "and nobody sees it");
            let other = village.connect(0);
            village.send(other, "GET other\n");
            village.seal_all();
            assert_eq!(
                village.output(other),
                "$-1\r\n",
                "another key does not wait"
            );
            village.sync();
            assert_eq!(village.output(writer), "+OK\r\n");
            assert_eq!(village.output(reader), "$1\r\n1\r\n");

            village.send(writer, &format!("DEL {key}\n"));
            village.seal_all();
            village.send(reader, &format!("GET {key}\n"));
            village.seal_all();
            assert_eq!(
                village.output(reader),
                "",
                "the null of a deleted key waits as well"
            );
            village.sync();
            assert_eq!(village.output(writer), ":1\r\n");
            assert_eq!(village.output(reader), "$-1\r\n");
        }
    }
}

#[test]
fn the_first_write_after_always_was_set_waits() {
    for from in ["no", "everysec"] {
        let mut village = Village::start(&SimDisk::new(1), 2);
        let (peer, other) = (village.connect(0), village.connect(1));
        let key = &keys(2)[1];
        village.call(peer, &format!("CONFIG SET appendfsync {from}\n"));
        village.send(other, &format!("SET {key} 1\n"));
        assert_eq!(village.output(other), "+OK\r\n", "{from} waits for nothing");
        village.send(peer, "CONFIG SET appendfsync always\n");
        assert_eq!(village.output(peer), "+OK\r\n");
        village.send(other, &format!("SET {key} 2\n"));
        assert_eq!(village.output(other), "", "after {from}");
        village.settle();
        assert_eq!(village.output(other), "+OK\r\n");
    }
}

#[test]
fn a_connection_that_rests_is_what_it_was() {
    let mut village = Village::start(&SimDisk::new(1), 2);
    let peer = village.connect(0);
    let key = &keys(2)[0];
    let rests = |village: &mut Village| {
        village.clock.advance_ms(2_500);
        village.workers[0].begin_turn();
        while !village.workers[0].tick(100) {}
        village.workers[0].rests(peer.id)
    };
    assert!(rests(&mut village), "fresh");
    village.call(
        peer,
        &format!("HELLO 3\nSELECT 1\nSET {key} 5\nCLIENT SETNAME me\n"),
    );
    assert!(!village.workers[0].rests(peer.id), "in use");
    assert!(rests(&mut village));
    assert_eq!(village.call(peer, "GET nothing\n"), "_\r\n", "RESP3 still");
    assert_eq!(
        village.call(peer, &format!("GET {key}\n")),
        "$1\r\n5\r\n",
        "database 1 still"
    );
    assert_eq!(village.call(peer, "CLIENT GETNAME\n"), "$2\r\nme\r\n");
    // What it has to remember keeps it up.
    for (busy, done) in [
        ("MULTI\nPING\n", "DISCARD\n"),
        ("WATCH a\n", "UNWATCH\n"),
        ("CLIENT REPLY OFF\n", "CLIENT REPLY ON\n"),
        ("*1\n$4\nPI", "NG\n"),
    ] {
        village.call(peer, busy);
        assert!(!rests(&mut village), "{busy}");
        village.call(peer, done);
        assert!(rests(&mut village), "{done}");
    }
}

#[test]
fn a_refusal_waits_for_what_it_tells() {
    let mut village = Village::start(&SimDisk::new(1), 1);
    let (writer, reader) = (village.connect(0), village.connect(0));
    village.send(writer, "SET a text\n");
    village.send(reader, "INCR a\n");
    village.seal_all();
    assert_eq!(village.output(reader), "");
    village.sync();
    assert!(
        village
            .output(reader)
            .starts_with("-ERR value is not an integer")
    );
}

#[test]
fn pipelines_over_shards_keep_their_order() {
    let mut village = Village::start(&SimDisk::new(1), 3);
    let peer = village.connect(1);
    let keys = keys(3);
    let (a, b, c) = (&keys[0], &keys[1], &keys[2]);
    let lines = format!(
        "INCR {a}\nINCR {b}\nMSET {a} 5 {b} 6 {c} 7\nINCR {c}\nMGET {c} {a} {b}\nMULTI\nINCR {a}\n\
         INCR {b}\nEXEC\nGET {a}\nDEL {a} {b} {c}\nDBSIZE\nINFO nosuch\nPING\n"
    );
    let reply = village.call(peer, &lines);
    let expected = "1|1|OK|8|[8|5|6]|OK|QUEUED|QUEUED|[6|7]|6|3|0|";
    let mut told = String::new();
    for line in reply
        .split("\r\n")
        .filter(|line| !line.is_empty() && !line.starts_with('$'))
    {
        told.push_str(line.trim_start_matches([':', '+']));
        told.push(' ');
    }
    let wanted = "1 1 OK 8 *3 8 5 6 OK QUEUED QUEUED *2 6 7 6 3 0 ";
    assert!(told.starts_with(wanted), "{told}\nwanted {expected}");
    assert!(told.ends_with("PONG "), "{told}");
}

/// What a pipeline's requests need is looked for before they run: in the plain form, and in
/// others; where the second word is a key, or none; over what one reading takes.
#[test]
fn a_long_pipeline_answers_what_its_requests_would_answer_one_by_one() {
    let mut lines = Vec::new();
    for number in 0..70 {
        let key = format!("k{}", number % 7);
        lines.push(match number % 11 {
            0 => format!("SET {key} {number}"),
            1 => format!("MSET {key} x k{} {number}", number % 3),
            2 => format!("GET k{}", (number - 1) % 3),
            10 => "PING".to_owned(),
            3 => format!("ECHO {key}"),
            4 => "SELECT 1".to_owned(),
            5 => format!("SET {key} of-another-database"),
            6 => "SELECT 0".to_owned(),
            7 => format!("DEL {key}"),
            8 => format!("GET k{}", number % 3),
            _ => format!("INCR counter{}", number % 4),
        });
    }
    for shards in 1..=3 {
        let start = || Village::start(&SimDisk::new(1), shards);
        let (mut plain, mut single) = (start(), start());
        let (peer, other) = (plain.connect(0), single.connect(0));
        let encoded: Vec<u8> = lines.iter().flat_map(|line| encoded(line)).collect();
        plain.workers[0].begin_turn();
        plain.workers[0].receive(peer.id, &encoded);
        plain.settle();
        let lines = lines.iter().map(|line| format!("{line}\n"));
        let expected: String = lines.map(|line| single.call(other, &line)).collect();
        assert_eq!(plain.output(peer), expected, "{shards} shards");
    }
}

fn encoded(line: &str) -> Vec<u8> {
    let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    let mut bytes = Vec::new();
    crate::resp::encode::encode_command(&words, &mut bytes);
    bytes
}

#[test]
fn a_watched_key_that_was_written_stops_the_block() {
    for shards in [1, 3] {
        let mut village = Village::start(&SimDisk::new(1), shards);
        let (one, other) = (village.connect(0), village.connect(shards - 1));
        for key in keys(shards) {
            village.call(
                one,
                &format!("SET {key} 1\nWATCH {key}\nMULTI\nINCR {key}\n"),
            );
            village.call(other, &format!("SET {key} 10\n"));
            assert_eq!(village.call(one, "EXEC\n"), "*-1\r\n");
            village.call(one, &format!("WATCH {key}\nMULTI\nINCR {key}\n"));
            assert_eq!(village.call(one, "EXEC\n"), "*1\r\n:11\r\n");
            village.call(one, &format!("WATCH {key}\nMULTI\nINCR {key}\n"));
            village.call(other, "FLUSHALL\n");
            assert_eq!(village.call(one, "EXEC\n"), "*-1\r\n");
        }
    }
}

#[test]
fn a_watch_sees_what_came_and_went_with_a_database() {
    for shards in [1, 3] {
        let mut village = Village::start(&SimDisk::new(1), shards);
        let (one, other) = (village.connect(0), village.connect(shards - 1));
        for key in keys(shards) {
            let begin = format!("WATCH {key}\nMULTI\nPING\n");
            village.call(one, &begin);
            village.call(other, &format!("SET {key} 1\nFLUSHDB\n"));
            assert_eq!(village.call(one, "EXEC\n"), "*-1\r\n", "set, and flushed");
            village.call(other, &format!("SET {key} 1\n"));
            village.call(one, &begin);
            village.call(other, "SWAPDB 0 1\nSWAPDB 0 1\n");
            assert_eq!(village.call(one, "EXEC\n"), "*-1\r\n", "there and back");
            village.call(other, &format!("DEL {key}\n"));
            village.call(one, &begin);
            village.call(other, "SWAPDB 0 1\nFLUSHDB\n");
            let reply = village.call(one, "EXEC\n");
            assert_eq!(reply, "*1\r\n+PONG\r\n", "missing all the time");
        }
    }
}

#[test]
fn a_scan_in_a_block_passes_over_no_shard() {
    let mut village = Village::start_with(&SimDisk::new(1), 3, 8 << 20);
    let peer = village.connect(0);
    let keys = keys(3);
    for key in &keys {
        village.call(peer, &format!("SET {key} 1\n"));
    }
    let block = format!("MULTI\nSCAN 0 COUNT 1000\nGET {}\nEXEC\n", keys[2]);
    let reply = village.call(peer, &block);
    let cursor = reply
        .split("\r\n")
        .find(|line| line.len() > 4 && line.parse::<u64>().is_ok());
    let cursor = cursor.expect("the shard in the middle was not here");
    let rest = village.call(peer, &format!("SCAN {cursor} COUNT 1000\n"));
    assert!(
        reply.contains(&keys[0]) && rest.contains(&keys[1]),
        "{reply}\n{rest}"
    );
}

#[test]
fn a_full_disk_refuses_writes_and_lets_space_be_freed() {
    let disk = SimDisk::new(1);
    let mut village = Village::start_with(&disk, 2, 256 * 1024);
    let peer = village.connect(0);
    let value = "x".repeat(20_000);
    disk.set_space(Some(disk.used_bytes() + 300_000));
    let mut refused = 0;
    for number in 0..200 {
        let reply = village.call(peer, &format!("SET key{number} {value}\n"));
        if reply.starts_with("-NOSPACE") {
            refused += 1;
        } else {
            assert_eq!(reply, "+OK\r\n");
            assert_eq!(refused, 0, "what was refused once does not fit later");
        }
    }
    assert!(refused > 50, "{refused} writes were refused");
    assert_eq!(
        village.call(peer, "STRLEN key0\n"),
        ":20000\r\n",
        "reads go on"
    );
    assert_eq!(
        village.call(peer, "DEL key0\n"),
        ":1\r\n",
        "space can be freed"
    );
    let block = |village: &mut Village, lines: &str| {
        let queued = "+QUEUED\r\n".repeat(lines.lines().count());
        let replies = village.call(peer, &format!("MULTI\n{lines}EXEC\n"));
        let begun = format!("+OK\r\n{queued}");
        let reply = replies.strip_prefix(&begun).expect("the block begins");
        reply.to_owned()
    };
    let mixed = format!("DEL key1\nSET key2 {value}\nDEL key3\n");
    let refused = block(&mut village, &mixed);
    assert!(refused.starts_with("-NOSPACE"), "not in part: {refused}");
    assert_eq!(village.call(peer, "EXISTS key1 key3\n"), ":2\r\n");
    let read = block(&mut village, "STRLEN key1\nSTRLEN key2\n");
    assert_eq!(read, "*2\r\n:20000\r\n:20000\r\n", "reads go on");
    let freed = block(&mut village, "DEL key1\nGET key1\nDEL key2\n");
    assert_eq!(freed, "*3\r\n:1\r\n$-1\r\n:1\r\n", "space can be freed");
    disk.set_space(None);
    // A refused write asks for room again.
    village.call(peer, "SET again 1\n");
    village.settle();
    assert_eq!(
        village.call(peer, "SET again 1\n"),
        "+OK\r\n",
        "writing resumes by itself"
    );
}

#[test]
fn small_writes_one_by_one_fill_the_disk_and_never_end_the_log() {
    for shards in [1, 3] {
        let disk = SimDisk::new(1);
        let mut village = Village::start_with(&disk, shards, 256 * 1024);
        let peer = village.connect(0);
        disk.set_space(Some(disk.used_bytes() + 300_000));
        // Each is a turn, and so a record, of its own.
        let write = |village: &mut Village, what: &str| {
            (0..2_000)
                .map(|number| village.call(peer, &what.replace('#', &number.to_string())))
                .take_while(|reply| !reply.starts_with("-NOSPACE"))
                .count()
        };
        let written = write(&mut village, "SET key# value\n");
        assert!((10..2_000).contains(&written), "{written} were written");
        let deleted = write(&mut village, "DEL key#\n");
        assert!(deleted >= 5, "{deleted} were deleted");
        assert!(deleted < written, "what is set aside has an end as well");
        disk.set_space(None);
        village.call(peer, "SET again 1\n");
        village.settle();
        assert_eq!(village.call(peer, "SET again 1\n"), "+OK\r\n");
        assert_eq!(write(&mut village, "SET key# value\n"), 2_000);
    }
}

/// Random increments by several clients over several shards, through a crash at a random moment.
/// Returns how many replies were seen.
fn crash_once(seed: u64) -> usize {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let disk = SimDisk::new(seed);
    let shards = random.random_range(1..4);
    let mut village = Village::start(&disk, shards);
    let peers: Vec<Peer> = (0..4)
        .map(|_| village.connect(random.random_range(0..shards)))
        .collect();
    let names: Vec<String> = (0..6).map(|number| format!("key{number}")).collect();
    // Per client: what its replies will be about.
    let mut asked: Vec<Vec<usize>> = vec![Vec::new(); peers.len()];
    let mut seen: Vec<i64> = vec![0; names.len()];
    let mut sent: Vec<i64> = vec![0; names.len()];
    let (mut pairs_sent, mut replies) = (0, 0);
    for _ in 0..random.random_range(20..200) {
        match random.random_range(0..10) {
            0..5 => {
                let (who, key) = (
                    random.random_range(0..peers.len()),
                    random.random_range(0..names.len()),
                );
                village.send(peers[who], &format!("INCR {}\n", names[key]));
                asked[who].push(key);
                sent[key] += 1;
            }
            5 => {
                // Both or none, wherever they live.
                let who = random.random_range(0..peers.len());
                village.send(peers[who], "MULTI\nINCR pair1\nINCR pair2\nEXEC\n");
                asked[who].push(usize::MAX);
                pairs_sent += 1;
            }
            6 | 7 => village.seal(random.random_range(0..shards)),
            8 => {
                let _ = village.manual.step();
            }
            _ => village.sync(),
        }
        for (who, peer) in peers.iter().enumerate() {
            for line in village.output(*peer).split("\r\n") {
                let Some(number) = line.strip_prefix(':') else {
                    continue;
                };
                let number: i64 = number.parse().expect("an integer");
                replies += 1;
                // A block answers with two integers, in their place.
                match asked[who].first().copied() {
                    Some(usize::MAX) => {
                        asked[who][0] = usize::MAX - 1;
                    }
                    Some(key) if key == usize::MAX - 1 => {
                        asked[who].remove(0);
                    }
                    Some(key) => {
                        asked[who].remove(0);
                        seen[key] = seen[key].max(number);
                    }
                    None => panic!("a reply that nobody asked for"),
                }
            }
        }
    }
    let keep = [Keep::Nothing, Keep::Some, Keep::Torn, Keep::Everything];
    let disk = village.crash(keep[random.random_range(0..keep.len())]);
    let mut village = Village::start(&disk, random.random_range(1..5));
    let peer = village.connect(0);
    let value = |village: &mut Village, name: &str| -> i64 {
        let reply = village.call(peer, &format!("GET {name}\n"));
        reply
            .split("\r\n")
            .nth(1)
            .and_then(|text| text.parse().ok())
            .unwrap_or(0)
    };
    for (key, name) in names.iter().enumerate() {
        let value = value(&mut village, name);
        assert!(
            value >= seen[key],
            "seed {seed}: {name} was seen as {}, is {value}",
            seen[key]
        );
        assert!(
            value <= sent[key],
            "seed {seed}: {name} was sent {} times, is {value}",
            sent[key]
        );
    }
    let pair = (value(&mut village, "pair1"), value(&mut village, "pair2"));
    assert_eq!(
        pair.0, pair.1,
        "seed {seed}: a block is whole or not at all"
    );
    assert!(pair.0 <= pairs_sent);
    replies
}

#[test]
fn nothing_seen_is_missing_after_a_power_cut() {
    let replies: usize = (0..400).map(crash_once).sum();
    assert!(replies > 4_000, "{replies} replies were seen");
}

#[test]
fn tokens_are_new_after_a_power_cut() {
    let mut disk = SimDisk::new(3);
    let mut tokens: HashMap<i64, usize> = HashMap::new();
    for start in 0..4 {
        let mut village = Village::start(&disk, 1 + start % 3);
        let peer = village.connect(0);
        for number in 0..20 {
            let reply = village.call(peer, &format!("SETSTATE cell{number} s{start}\n"));
            let token = reply
                .split(':')
                .next_back()
                .and_then(|text| text.trim().parse().ok());
            let earlier = tokens.insert(token.expect("a token"), start);
            assert_eq!(earlier, None, "a token was used twice");
        }
        disk = village.crash(Keep::Some);
    }
}

#[test]
fn a_monitor_that_does_not_read_has_the_bound_of_ordinary_clients() {
    let mut village = Village::start(&SimDisk::new(1), 1);
    let (monitor, writer) = (village.connect(0), village.connect(0));
    let limits = "normal 2000 0 0 slave 100 0 0";
    let set = format!("CONFIG SET client-output-buffer-limit \"{limits}\"\n");
    assert_eq!(village.call(writer, &set), "+OK\r\n");
    assert_eq!(village.call(monitor, "MONITOR\n"), "+OK\r\n");
    let fits = |village: &mut Village| {
        village.send(writer, &format!("SET a {}\n", "x".repeat(900)));
        village.settle();
        let released = village.workers[0].output(monitor.id);
        assert!(released.is_some_and(|released| !released.bytes().is_empty()));
        village.workers[0].check_unread(monitor.id).is_ok()
    };
    assert!(fits(&mut village), "more than replicas may have");
    assert!(fits(&mut village));
    assert!(!fits(&mut village), "more than anybody may have");
}
