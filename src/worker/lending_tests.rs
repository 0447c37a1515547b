//! Lending under orders of events that sockets and threads would hardly ever produce: messages that
//! arrive in any order that mailboxes allow, clients that leave at any moment.

use std::collections::VecDeque;

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::limits::LENT_COMMANDS_MAX;
use crate::log::sim_disk::{Keep, SimDisk};
use crate::shard::mailbox::Message;
use crate::worker::tests::{Peer, Village, keys};

const ACCOUNTS: usize = 9;
const BALANCE: i64 = 100;

/// Messages between threads that have not arrived yet: in order for each pair of threads, and in
/// no other.
struct Mail(Vec<Vec<VecDeque<Message>>>);

impl Mail {
    fn new(shards: usize) -> Mail {
        let row = || (0..shards).map(|_| VecDeque::new()).collect();
        Mail((0..shards).map(|_| row()).collect())
    }

    /// Takes what a thread sends; what it sends itself arrives at once.
    fn collect(&mut self, village: &mut Village, from: usize) {
        loop {
            let outbox = village.workers[from].take_outbox();
            if outbox.is_empty() {
                return;
            }
            for (to, message) in outbox {
                if to == from {
                    village.workers[from].message(message);
                } else {
                    self.0[from][to].push_back(message);
                }
            }
        }
    }

    /// One step of a thread that `random` picks; false: nothing is left to do.
    fn step(&mut self, village: &mut Village, random: &mut Xoshiro256PlusPlus) -> bool {
        let shards = village.workers.len();
        let start = random.random_range(0..shards * shards * 3);
        for offset in 0..shards * shards * 3 {
            let choice = (start + offset) % (shards * shards * 3);
            let (kind, from, to) = (choice % 3, choice / 3 % shards, choice / 3 / shards);
            let worker = &mut village.workers[to];
            let done = match kind {
                0 => match self.0[from][to].pop_front() {
                    Some(message) => {
                        worker.begin_turn();
                        worker.message(message);
                        true
                    }
                    None => false,
                },
                1 => {
                    let mut any = false;
                    for id in worker.take_attention() {
                        if worker.conn(id).is_some_and(|conn| conn.has_input()) {
                            worker.resume(id);
                            any = true;
                        }
                    }
                    any
                }
                _ if worker.wants_seal() => {
                    worker.seal();
                    true
                }
                _ => false,
            };
            self.collect(village, to);
            if done {
                return true;
            }
        }
        false
    }
}

fn send(village: &mut Village, mail: &mut Mail, peer: Peer, text: &str) {
    let worker = &mut village.workers[peer.shard];
    worker.begin_turn();
    worker.receive(peer.id, text.as_bytes());
    mail.collect(village, peer.shard);
}

fn transfer(random: &mut Xoshiro256PlusPlus) -> String {
    let (from, to) = (
        random.random_range(0..ACCOUNTS),
        random.random_range(0..ACCOUNTS),
    );
    let amount = random.random_range(1..9);
    match random.random_range(0..5) {
        0 => format!("GET a{from}\r\nINCRBY other{to} {amount}\r\nMGET a{from} a{to} x\r\n"),
        1 => format!(
            "WATCH a{from}\r\nMULTI\r\nDECRBY a{from} {amount}\r\nINCRBY a{to} {amount}\r\nEXEC\r\n"
        ),
        2 => format!(
            "MULTI\r\nDECRBY a{from} {amount}\r\nINCR text\r\nINCRBY a{to} {amount}\r\nEXEC\r\n"
        ),
        3 => format!(
            "MULTI\r\nDECRBY a{from} {amount}\r\nINCRBY a{to} {amount}\r\nEXEC XX a{to}\r\n"
        ),
        _ => format!("MSET x {amount} y {amount} z {amount}\r\nRENAME nothing{from} b{to}\r\n"),
    }
}

fn sum_block() -> String {
    let gets: String = (0..ACCOUNTS).map(|n| format!("GET a{n}\r\n")).collect();
    format!("MULTI\r\n{gets}EXEC\r\n")
}

/// Some of what is to be read from the store is read, in any order.
fn read_some(village: &mut Village, mail: &mut Mail, random: &mut Xoshiro256PlusPlus) {
    for _ in 0..random.random_range(1..8) {
        let left = village.reads_left();
        if left == 0 {
            return;
        }
        let (shard, rows) = village.make_read(random.random_range(0..left));
        village.workers[shard].begin_turn();
        village.workers[shard].message(rows);
        mail.collect(village, shard);
    }
}

/// The sums that replies to [`sum_block`]s tell.
fn sums(replies: &str) -> Vec<i64> {
    let head = format!("*{ACCOUNTS}\r\n");
    let blocks = replies.split(&head).skip(1);
    blocks
        .map(|block| {
            let lines = block.split("\r\n").filter(|line| !line.starts_with('$'));
            lines
                .take(ACCOUNTS)
                .map(|line| line.parse::<i64>().expect("an integer"))
                .sum()
        })
        .collect()
}

/// Lets all that is under way come to its end; false if it does not.
fn come_to_rest(village: &mut Village, mail: &mut Mail, random: &mut Xoshiro256PlusPlus) -> bool {
    (0..100).any(|_| {
        while mail.step(village, random) {}
        while village.reads_left() > 0 {
            read_some(village, mail, random);
        }
        village.sync();
        (0..village.workers.len()).for_each(|shard| mail.collect(village, shard));
        let quiet = |village: &Village| village.workers.iter().all(|worker| worker.is_quiet());
        !mail.step(village, random) && quiet(village)
    })
}

/// Transfers, sums and everything else by clients that come and go; every sum is exact, and every
/// shard is at home in the end. Returns how many sums were seen.
fn campaign(seed: u64) -> usize {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let shards = random.random_range(2..5);
    let disk = SimDisk::new(seed);
    // Sometimes so little room that errands have to wait for more.
    let segment_bytes = [128 * 1024, 1 << 20][random.random_range(0..2)];
    let mut village = Village::start_with(&disk, shards, segment_bytes);
    let mut mail = Mail::new(shards);
    let first = village.connect(0);
    for account in 0..ACCOUNTS {
        village.call(first, &format!("SET a{account} {BALANCE}\n"));
    }
    village.call(first, "SET text text\n");
    let mut peers: Vec<Peer> = (0..shards * 3)
        .map(|n| village.connect(n % shards))
        .collect();
    let reader = village.connect(random.random_range(0..shards));
    let mut told = String::new();
    for _ in 0..random.random_range(50..300) {
        let who = random.random_range(0..peers.len());
        match random.random_range(0..15) {
            12 => (0..shards).for_each(|shard| {
                village.hibernate_shard(shard);
                mail.collect(&mut village, shard);
            }),
            13 | 14 => read_some(&mut village, &mut mail, &mut random),
            0..4 => {
                let pipeline = random.random_range(1..5);
                let text: String = (0..pipeline).map(|_| transfer(&mut random)).collect();
                send(&mut village, &mut mail, peers[who], &text);
            }
            4 => send(&mut village, &mut mail, reader, &sum_block()),
            5 => {
                let shard = peers[who].shard;
                village.workers[shard].disconnect(peers[who].id);
                mail.collect(&mut village, shard);
                peers[who] = village.connect(shard);
            }
            6 => {
                let _ = village.disk_step();
                village.durable();
                (0..shards).for_each(|shard| mail.collect(&mut village, shard));
            }
            _ => {
                for _ in 0..random.random_range(1..20) {
                    mail.step(&mut village, &mut random);
                }
            }
        }
        told += &village.output(reader);
    }
    let rests = come_to_rest(&mut village, &mut mail, &mut random);
    assert!(rests, "seed {seed}: a shard did not come home");
    told += &village.output(reader);
    let seen = sums(&told);
    assert!(
        seen.iter().all(|sum| *sum == ACCOUNTS as i64 * BALANCE),
        "seed {seed}: {seen:?}"
    );
    let disk = village.crash([Keep::Nothing, Keep::Torn][random.random_range(0..2)]);
    let mut village = Village::start(&disk, random.random_range(1..4));
    let peer = village.connect(0);
    let after = sums(&village.call(peer, &sum_block().replace("\r\n", "\n")));
    assert_eq!(after, [ACCOUNTS as i64 * BALANCE], "seed {seed}");
    seen.len()
}

#[test]
fn every_shard_comes_home_and_every_sum_is_exact_in_any_order_of_events() {
    let seen: usize = (0..100).map(campaign).sum();
    assert!(seen > 300, "{seen} sums were seen");
}

#[test]
fn a_client_may_leave_at_any_moment_of_a_lending() {
    let keys = keys(3);
    for moment in 0..40 {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(moment);
        let mut village = Village::start(&SimDisk::new(1), 3);
        let mut mail = Mail::new(3);
        let peer = village.connect(1);
        let text = format!("MULTI\r\nINCR {}\r\nINCR {}\r\nEXEC\r\n", keys[0], keys[2]);
        send(&mut village, &mut mail, peer, &text);
        for _ in 0..moment {
            mail.step(&mut village, &mut random);
        }
        village.workers[1].disconnect(peer.id);
        mail.collect(&mut village, 1);
        while mail.step(&mut village, &mut random) {}
        village.settle();
        assert!(village.workers.iter().all(|worker| worker.is_quiet()));
        // It was queued whole, so it runs whole: nobody else decides.
        let other = village.connect(0);
        let reply = village.call(other, &format!("MGET {} {}\n", keys[0], keys[2]));
        assert_eq!(reply, "*2\r\n$1\r\n1\r\n$1\r\n1\r\n", "at moment {moment}");
    }
}

#[test]
fn what_a_turn_asks_for_shares_one_borrow_and_one_record() {
    let mut village = Village::start(&SimDisk::new(1), 2);
    let keys = keys(2);
    let peers: Vec<Peer> = (0..8).map(|_| village.connect(0)).collect();
    village.settle();
    let before = village.last_lsn();
    for (number, peer) in peers.iter().enumerate() {
        village.send(
            *peer,
            &format!("MSET {} {number} {} {number}\n", keys[0], keys[1]),
        );
    }
    village.settle();
    assert_eq!(village.last_lsn(), before + 1, "one record for all of them");
    for peer in &peers {
        assert_eq!(village.output(*peer), "+OK\r\n");
    }
}

#[test]
fn a_pipeline_goes_on_while_its_shards_are_there_but_not_for_ever() {
    let mut village = Village::start(&SimDisk::new(1), 2);
    let keys = keys(2);
    let peer = village.connect(0);
    village.settle();
    let before = village.last_lsn();
    let commands = LENT_COMMANDS_MAX * 3;
    let text = format!("MSET {} 1 {} 1\nINCR {}\n", keys[0], keys[1], keys[1]).repeat(commands / 2);
    let reply = village.call(peer, &text);
    assert_eq!(reply, "+OK\r\n:2\r\n".repeat(commands / 2));
    let records = village.last_lsn() - before;
    assert!((3..=8).contains(&records), "{records} records");
}

#[test]
fn a_pipeline_says_the_same_whatever_the_number_of_shards() {
    for seed in 0..60 {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
        let mut text = String::new();
        for _ in 0..random.random_range(1..30) {
            let key = |random: &mut Xoshiro256PlusPlus| format!("k{}", random.random_range(0..8));
            let (a, b) = (key(&mut random), key(&mut random));
            text += &match random.random_range(0..12) {
                0 => format!("INCR {a}\n"),
                1 => format!("MGET {a} {b}\n"),
                2 => format!("MSET {a} 1 {b} 2\n"),
                3 => format!("MULTI\nINCR {a}\nGET {b}\nEXEC\n"),
                4 => format!("MULTI\nSET {a} x\nINCR {a}\nSELECT 1\nINCR {b}\nSELECT 0\nEXEC\n"),
                5 => format!("WATCH {a}\nMULTI\nAPPEND {a} 1\nEXEC IFNE {b} 1\n"),
                6 => format!("RENAME {a} {b}\n"),
                7 => format!("DEL {a} {b}\nDBSIZE\n"),
                8 => format!("COPY {a} {b}\nSTRLEN {b}\n"),
                9 => format!("MULTI\nINCR {a}\nINCR {b}\nDISCARD\nPING\n"),
                10 => format!("MSETNX {a} 5 {b} 6\nEXISTS {a} {b}\n"),
                _ => format!("WATCH {a}\nUNWATCH\nMULTI\nNOSUCH\nEXEC\nSWAPDB 0 1\n"),
            };
        }
        let mut replies = (1..5).map(|shards| {
            let mut village = Village::start_with(&SimDisk::new(1), shards, 1 << 20);
            let peer = village.connect(shards / 2);
            village.call(peer, &text)
        });
        let first = replies.next().unwrap_or_default();
        for other in replies {
            assert_eq!(other, first, "seed {seed}: {text}");
        }
    }
}

#[test]
fn a_reply_waits_for_the_record_of_its_block_and_so_do_all_who_see_it() {
    let mut village = Village::start_with(&SimDisk::new(1), 3, 1 << 20);
    let keys = keys(3);
    let (peer, other) = (village.connect(2), village.connect(1));
    let text = format!("MSET {} 1 {} 1\nINCR {}\n", keys[0], keys[1], keys[0]);
    village.send(peer, &text);
    village.send(other, &format!("GET {}\n", keys[1]));
    village.seal_all();
    village.send(other, &format!("GET {}\n", keys[1]));
    village.seal_all();
    assert_eq!(village.output(peer), "");
    let seen = village.output(other);
    assert!(seen.is_empty() || seen == "$-1\r\n", "{seen}");
    village.sync();
    assert_eq!(village.output(peer), "+OK\r\n:2\r\n");
    assert!(village.output(other).ends_with("$1\r\n1\r\n"));
}

#[test]
fn errands_wait_for_room_in_the_log_and_then_go_on() {
    let mut village = Village::start_with(&SimDisk::new(1), 2, 256 * 1024);
    let keys = keys(2);
    let peers: Vec<Peer> = (0..20).map(|number| village.connect(number % 2)).collect();
    let value = "x".repeat(20_000);
    for peer in &peers {
        let text = format!("MSET {} {value} {} {value}\n", keys[0], keys[1]);
        village.send(*peer, &text);
    }
    // Nothing goes to the disk, so at some point there is no room.
    for _ in 0..5 {
        (0..2).for_each(|shard| village.seal(shard));
    }
    assert!(village.workers.iter().any(|worker| worker.wants_space()));
    for _ in 0..20 {
        village.settle();
    }
    for peer in &peers {
        assert_eq!(village.output(*peer), "+OK\r\n");
    }
    assert!(village.workers.iter().all(|worker| worker.is_quiet()));
}
