//! What stays in memory, over a store: a server on one thread whose checkpoints are made by hand.

use std::sync::mpsc::channel;

use crate::keyspace::Tables;
use crate::log::sim_disk::SimDisk;
use crate::shard::mailbox::{Message, SweepSlice, SweepStep};
use crate::store::checkpoint::{self, Deep, Slice, Stale, Sweep};
use crate::store::row::{DEADLINE_MS_END, deadlines};
use crate::store::{Meta, Store};
use crate::worker::Worker;
use crate::worker::tests::{Peer, Village};

/// The sweep of a checkpoint by hand.
struct Swept<'a> {
    workers: &'a mut [Worker],
    shard: usize,
    /// Rows of the largest slice.
    rows_max: usize,
}

impl Swept<'_> {
    fn ask(&mut self, shard: usize, step: SweepStep) -> SweepSlice {
        let (answer, answered) = channel();
        self.workers[shard].message(Message::Sweep(step, answer));
        answered.try_recv().expect("the shard is at home")
    }
}

impl Sweep for Swept<'_> {
    fn begin(&mut self) -> Result<Meta, String> {
        for shard in 0..self.workers.len() {
            self.ask(shard, SweepStep::Begin);
        }
        Ok(Meta::default())
    }

    fn next(&mut self) -> Result<Option<Slice>, String> {
        if self.shard == self.workers.len() {
            return Ok(None);
        }
        let SweepSlice {
            slice, complete, ..
        } = self.ask(self.shard, SweepStep::Next);
        self.shard += usize::from(complete);
        self.rows_max = self.rows_max.max(slice.rows.len());
        Ok(Some(slice))
    }

    fn wait_durable(&mut self) -> Result<u64, String> {
        Ok(0)
    }

    fn finished(&mut self, ok: bool) {
        for shard in 0..self.workers.len() {
            self.ask(shard, SweepStep::Finished(ok));
        }
    }
}

/// Stores what is dirty. Returns the rows of the largest slice.
fn store(village: &mut Village) -> usize {
    village.settle();
    let rows = village.store.clone();
    let mut sweep = Swept {
        workers: &mut village.workers,
        shard: 0,
        rows_max: 0,
    };
    let done = checkpoint::run(&*rows, &mut sweep, Stale::default(), &mut |_| Deep::Proceed);
    done.expect("memory is never full");
    let rows_max = sweep.rows_max;
    village.deliver();
    rows_max
}

fn tables(village: &mut Village) -> &Tables {
    let keyspace = village.workers[0].keyspace();
    keyspace.expect("the shard is at home").tables()
}

/// What the keys take beside the skeleton, in bytes.
fn bytes_of_keys(village: &mut Village) -> usize {
    let tables = tables(village);
    tables.bytes() - tables.skeleton_bytes()
}

fn tick(village: &mut Village) {
    village.workers[0].begin_turn();
    village.workers[0].tick(100);
    village.deliver();
}

const VALUE_BYTES: usize = 1000;

/// Sends a request and waits for everything, reads of what hibernates included.
fn call(village: &mut Village, peer: Peer, lines: &str) -> String {
    village.send(peer, lines);
    village.read_all();
    village.output(peer)
}

/// Commands on keys of one slot, as one pipeline.
fn pipeline(command: &str, numbers: std::ops::Range<usize>, value: &str) -> String {
    numbers
        .map(|number| format!("{command} {{tag}}{number} {value}\n"))
        .collect()
}

/// A server with so many keys of a kilobyte that hibernate, and a bound of `maxmemory`.
fn asleep(keys: usize, maxmemory: &str) -> (Village, Peer) {
    let mut village = Village::start_with(&SimDisk::new(1), 1, 8 << 20);
    let peer = village.connect(0);
    let value = "v".repeat(VALUE_BYTES);
    for from in (0..keys).step_by(100) {
        call(
            &mut village,
            peer,
            &pipeline("SET", from..from + 100, &value),
        );
    }
    hibernate(village, peer, maxmemory)
}

/// Everything is stored, and a bound makes it leave.
fn hibernate(mut village: Village, peer: Peer, maxmemory: &str) -> (Village, Peer) {
    store(&mut village);
    let line = format!("CONFIG SET maxmemory {maxmemory}\n");
    call(&mut village, peer, &line);
    for _ in 0..10 {
        tick(&mut village);
    }
    (village, peer)
}

#[test]
fn turns_of_reads_alone_make_room_too() {
    let (mut village, peer) = asleep(2_000, "256kb");
    let least = bytes_of_keys(&mut village);
    assert!(least < 200 * VALUE_BYTES, "{least}");
    for from in (0..2_000).step_by(100) {
        // No timer does anything.
        let replies = call(&mut village, peer, &pipeline("GET", from..from + 100, ""));
        assert_eq!(replies.matches("$1000").count(), 100);
        let bytes = bytes_of_keys(&mut village);
        assert!(bytes < 350 * VALUE_BYTES, "{bytes} behind key {from}");
    }
}

/// A server with a hash `h` of so many fields of a kilobyte that hibernates, and a bound of memory.
fn large_hash(fields: usize, maxmemory: &str) -> (Village, Peer) {
    let (mut village, peer) = asleep(0, "0");
    let value = "v".repeat(VALUE_BYTES);
    for from in (0..fields).step_by(50) {
        let pairs = (from..from + 50).map(|number| format!(" f{number} {value}"));
        let pairs: String = pairs.collect();
        call(&mut village, peer, &format!("HSET h{pairs}\n"));
    }
    hibernate(village, peer, maxmemory)
}

#[test]
fn turns_that_read_fields_alone_make_room_too() {
    let (mut village, peer) = large_hash(2_000, "256kb");
    let least = bytes_of_keys(&mut village);
    assert!(least < 200 * VALUE_BYTES, "{least}");
    for from in (0..2_000).step_by(100) {
        // No timer does anything.
        let lines = (from..from + 100).map(|number| format!("HGET h f{number}\n"));
        let replies = call(&mut village, peer, &lines.collect::<String>());
        assert_eq!(replies.matches("$1000").count(), 100);
        let bytes = bytes_of_keys(&mut village);
        assert!(bytes < 350 * VALUE_BYTES, "{bytes} behind field {from}");
    }
}

#[test]
fn a_hash_of_which_something_is_always_being_read_makes_room_too() {
    // Each by itself, or together with what is behind it.
    for lines in ["HGET h f{}\n", "HGET h f{}\nHLEN h\nHGET h none\n"] {
        let (mut village, one) = large_hash(1_000, "256kb");
        let mut peers = [one, village.connect(0)];
        let mut answered = 0;
        for number in 0..1_000 {
            village.send(peers[0], &lines.replace("{}", &number.to_string()));
            // The other one's read is over when this one's has begun.
            let reads = |village: &Village| number == 0 || village.reads_left() > 1;
            while village.reads_left() > 0 && reads(&village) {
                village.read(0);
            }
            village.settle();
            let told = peers.map(|peer| village.output(peer));
            answered += told.concat().matches("$1000").count();
            for _ in 0..3 {
                tick(&mut village);
            }
            let bytes = bytes_of_keys(&mut village);
            assert!(bytes < 350 * VALUE_BYTES, "{bytes} behind field {number}");
            peers.reverse();
        }
        assert!(village.reads_left() > 0 && answered > 990, "{answered}");
        // And whoever writes waits for nobody.
        village.send(peers[0], "SET x 1\n");
        village.settle();
        let told = village.output(peers[0]);
        assert!(told.ends_with("+OK\r\n"), "{told:?}");
    }
}

#[test]
fn writers_wait_before_memory_does_and_go_on_when_it_is_stored() {
    let (mut village, peer) = asleep(100, "256kb");
    let (reader, value) = (village.connect(0), "w".repeat(VALUE_BYTES));
    let mut written = 0;
    while village.workers[0].metrics.memory_short.level() == 0 {
        assert!(written < 2_000, "writers are never slowed");
        let lines = pipeline("SET", written..written + 10, &value);
        assert_eq!(call(&mut village, peer, &lines).matches("+OK").count(), 10);
        written += 10;
    }
    let full = bytes_of_keys(&mut village);
    assert!(full < 600 * VALUE_BYTES, "{full}");
    // Nothing that is dirty can leave: writers wait, readers and who frees memory do not.
    assert_eq!(
        call(&mut village, peer, &pipeline("SET", 5_000..5_100, &value)),
        ""
    );
    assert_eq!(bytes_of_keys(&mut village), full);
    assert_eq!(call(&mut village, reader, "STRLEN {tag}1\n"), ":1000\r\n");
    assert_eq!(call(&mut village, reader, "DEL {tag}1\n"), ":1\r\n");
    assert_eq!(
        call(&mut village, reader, "DBSIZE\n"),
        format!(":{}\r\n", written.max(100) - 1)
    );
    store(&mut village);
    for _ in 0..10 {
        tick(&mut village);
    }
    village.read_all();
    assert_eq!(village.output(peer).matches("+OK").count(), 100);
    assert_eq!(
        call(&mut village, reader, "STRLEN {tag}5099\n"),
        ":1000\r\n"
    );
}

#[test]
fn slices_of_one_slot_are_small() {
    let mut village = Village::start_with(&SimDisk::new(1), 1, 8 << 20);
    let peer = village.connect(0);
    for from in (0..20_000).step_by(500) {
        call(&mut village, peer, &pipeline("SET", from..from + 500, "1"));
    }
    let fields = |from: usize| (from..from + 500).map(|field| format!(" f{field} 1"));
    for from in (0..20_000).step_by(500) {
        let line: String = fields(from).collect();
        call(&mut village, peer, &format!("HSET {{tag}}large{line}\n"));
        let small = (from..from + 20).map(|number| format!("HSET {{tag}}small{number} a 1 b 2\n"));
        call(&mut village, peer, &small.collect::<String>());
        call(
            &mut village,
            peer,
            &format!("HSET {{tag}}gone{from} a 1\nDEL {{tag}}gone{from}\n"),
        );
    }
    let rows_max = store(&mut village);
    assert!(rows_max <= 256 + 1024, "{rows_max} rows in one slice");
    let stored = village.store.disk_bytes();
    assert!(stored > 40_000 * 20, "{stored} bytes");
    // A part of a large hash, and nothing else.
    call(&mut village, peer, "HSET {tag}large f7 2 new 3\n");
    assert!(store(&mut village) <= 3);
    call(&mut village, peer, "CONFIG SET maxmemory 1kb\n");
    for _ in 0..100 {
        tick(&mut village);
    }
    assert!(tables(&mut village).live() < 1_000, "they hibernate");
    assert_eq!(call(&mut village, peer, "GET {tag}19999\n"), "$1\r\n1\r\n");
    assert_eq!(call(&mut village, peer, "HLEN {tag}large\n"), ":20001\r\n");
    assert_eq!(
        call(&mut village, peer, "HGET {tag}large f7\n"),
        "$1\r\n2\r\n"
    );
    assert_eq!(call(&mut village, peer, "HLEN {tag}small519\n"), ":2\r\n");
}

/// Deadline rows of the store.
fn deadline_rows(village: &Village) -> usize {
    let (from, to) = deadlines(0, DEADLINE_MS_END);
    village.store.scan(&from, &to).count()
}

#[test]
fn a_deadline_that_was_moved_or_is_gone_leaves_no_row_behind() {
    let (mut village, peer) = asleep(0, "0");
    let far = 30 * 24 * 3600;
    call(
        &mut village,
        peer,
        &format!("SET a 1 EX {far}\nSET b 1 EX {far}\nHSET h f 1 g 1\n"),
    );
    call(
        &mut village,
        peer,
        &format!("HEXPIRE h {far} FIELDS 2 f g\n"),
    );
    store(&mut village);
    assert_eq!(deadline_rows(&village), 4);
    for later in 1..10 {
        // The first one never comes to the store.
        for at in [far + 5_000 + later, far + 1_000 * later] {
            let lines =
                format!("EXPIRE a {at}\nPERSIST b\nEXPIRE b {at}\nHEXPIRE h {at} FIELDS 2 f g\n");
            call(&mut village, peer, &lines);
        }
        store(&mut village);
        assert_eq!(deadline_rows(&village), 4, "after {later} checkpoints");
    }
    call(
        &mut village,
        peer,
        "PERSIST a\nDEL b\nHDEL h f\nHPERSIST h FIELDS 1 g\n",
    );
    store(&mut village);
    assert_eq!(deadline_rows(&village), 0);
}

#[test]
fn the_deadline_that_a_key_gets_back_keeps_its_row() {
    let (mut village, peer) = asleep(0, "0");
    let now_ms = village.workers[0].now_ms();
    let at = |seconds: u64| now_ms / 1_000 + seconds;
    let (first, second) = (at(100_000), at(200_000));
    call(&mut village, peer, &format!("SET a 1 EXAT {first}\n"));
    store(&mut village);
    call(
        &mut village,
        peer,
        &format!("EXPIREAT a {second}\nEXPIREAT a {first}\n"),
    );
    store(&mut village);
    let (from, to) = deadlines(first * 1_000, first * 1_000 + 1);
    assert_eq!(village.store.scan(&from, &to).count(), 1);
    assert_eq!(deadline_rows(&village), 1);
}
