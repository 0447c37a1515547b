//! Keys that hibernate, read by others: what waits, what goes on, and in which order.

use crate::command::table;
use crate::command::transcript::words;
use crate::keyspace::input_gate::Read;
use crate::limits::KEY_BYTES_MAX;
use crate::log::sim_disk::SimDisk;
use crate::route::Routes;
use crate::shard::mailbox::Message;
use crate::store::row::{KeyOf, RowKey};
use crate::worker::tests::{Village, keys};

/// Room in the log for all of it.
pub(super) fn village(shards: usize) -> Village {
    Village::start_with(&SimDisk::new(1), shards, 8 << 20)
}

/// Nothing is kept for anybody.
pub(super) fn assert_gates_empty(village: &mut Village) {
    for worker in &mut village.workers {
        assert!(worker.is_quiet(), "something waits still");
        let keyspace = worker.keyspace().expect("at home");
        assert_eq!(keyspace.gated(), 0, "keys are still in the gate");
    }
}

/// A second key of the same shard.
pub(super) fn neighbour(key: &str, shards: usize) -> String {
    let routes = Routes::new(shards);
    let names = (0..).map(|number| format!("neighbour{number}"));
    let shard = routes.of_key(key.as_bytes());
    let mut names = names.filter(|name| routes.of_key(name.as_bytes()) == shard);
    names.next().unwrap_or_default()
}

#[test]
fn other_keys_go_on_while_one_is_read() {
    for shards in [1, 3] {
        let mut village = village(shards);
        let (one, other) = (village.connect(0), village.connect(shards - 1));
        for cold in keys(shards) {
            let warm = neighbour(&cold, shards);
            village.call(one, &format!("SET {cold} 1\nSET {warm} 2\n"));
            village.hibernate();
            village.send(one, &format!("GET {warm}\n"));
            village.read_all();
            assert_eq!(village.output(one), "$1\r\n2\r\n");

            assert_eq!(village.call(one, &format!("INCR {cold}\n")), "");
            assert_eq!(village.reads_left(), 1);
            let quiet = |village: &Village| village.workers.iter().all(|w| w.is_quiet());
            let may_end = |village: &Village| village.workers.iter().all(|w| w.may_end());
            assert!(!quiet(&village) && may_end(&village), "it has not begun");
            assert_eq!(village.call(other, &format!("INCR {warm}\n")), ":3\r\n");
            assert_eq!(village.call(other, &format!("GET {cold}\n")), "");
            assert_eq!(village.reads_left(), 1, "one read serves both");
            village.read(0);
            village.settle();
            assert_eq!(village.output(one), ":2\r\n");
            assert_eq!(village.output(other), "$1\r\n2\r\n");
            assert_gates_empty(&mut village);
        }
    }
}

#[test]
fn a_pipeline_keeps_its_order_where_some_keys_are_asleep() {
    for shards in [1, 3] {
        let mut village = village(shards);
        let (one, other) = (village.connect(0), village.connect(shards - 1));
        for cold in keys(shards) {
            let warm = neighbour(&cold, shards);
            for peer in [one, other] {
                village.call(one, &format!("SET {cold} 1\nSET {warm} 5\n"));
                village.hibernate();
                let lines = format!(
                    "SET {warm} 2\nGET {cold}\nINCR {warm}\nINCR {cold}\nDEL {cold}\nGET {cold}\n\
                     GET {warm}\n"
                );
                village.send(peer, &lines);
                village.read_all();
                let wanted = "+OK\r\n$1\r\n1\r\n:3\r\n:2\r\n:1\r\n$-1\r\n$1\r\n3\r\n";
                assert_eq!(village.output(peer), wanted);
                assert_gates_empty(&mut village);
            }
        }
    }
}

#[test]
fn what_a_pipeline_needs_is_read_at_once() {
    for shards in [1, 3] {
        let mut village = village(shards);
        let peer = village.connect(0);
        for shard in 0..shards {
            let key = &keys(shards)[shard];
            let lines: Vec<[String; 2]> = (0..5)
                .map(|number| format!("{{{key}}}{number}"))
                .map(|key| [format!("SET {key} 1\n"), format!("INCR {key}\n")])
                .collect();
            let [set, add] = [0, 1].map(|way| {
                let lines = lines.iter().map(|line| line[way].clone());
                lines.collect::<String>()
            });
            village.call(peer, &set);
            village.hibernate();
            village.send(peer, &add);
            assert_eq!(village.reads_left(), 5);
            // The last first: none of them runs before the first one.
            (0..4).rev().for_each(|place| village.read(place + 1));
            village.settle();
            assert_eq!(village.output(peer), "");
            village.read_all();
            assert_eq!(village.output(peer), ":2\r\n".repeat(5));
            assert_gates_empty(&mut village);
        }
    }
}

#[test]
fn what_borrows_shards_does_not_overtake_calls_that_wait() {
    let shards = 3;
    let mut village = village(shards);
    let (peer, other) = (village.connect(0), village.connect(1));
    let names = keys(shards);
    let (here, away) = (&names[0], &names[2]);
    village.call(peer, &format!("MSET {here} 5 {away} 5\n"));
    let text = format!(
        "INCR {away}\nMULTI\nINCR {here}\nINCR {away}\nEXEC\nINCR {away}\nMSET {here} 1 {away} 1\n\
         WATCH {away} {here}\nDECR {away}\n"
    );
    village.hibernate();
    village.send(other, &format!("GET {here}\n"));
    village.read_all();
    village.output(other);
    village.send(peer, &text);
    village.settle();
    assert_eq!(village.call(other, &format!("GET {here}\n")), "$1\r\n5\r\n");
    village.read_all();
    let told = village.output(peer);
    let wanted = ":6|+OK|+QUEUED|+QUEUED|*2|:6|:7|:8|+OK|+OK|:0|".replace('|', "\r\n");
    assert_eq!(told, wanted);
    assert_gates_empty(&mut village);
    // What is awake stands behind what is not.
    let warm = neighbour(away, shards);
    village.call(peer, &format!("UNWATCH\nMSET {here} 1 {away} 1 {warm} 1\n"));
    village.hibernate();
    village.send(other, &format!("GET {here}\nGET {warm}\n"));
    village.read_all();
    village.output(other);
    village.send(
        peer,
        &format!("INCR {away}\nINCR {warm}\nMULTI\nINCR {here}\nINCR {warm}\nEXEC\nINCR {warm}\n"),
    );
    village.settle();
    assert_eq!(village.reads_left(), 1);
    village.read_all();
    let wanted = ":2|:2|+OK|+QUEUED|+QUEUED|*2|:2|:3|:4|".replace('|', "\r\n");
    assert_eq!(village.output(peer), wanted);
    village.call(peer, &format!("SET {away} 0\nSET {here} 1\n"));
    // A client that leaves before it takes along what it had not begun.
    village.hibernate();
    village.send(peer, &text);
    village.settle();
    village.workers[0].disconnect(peer.id);
    village.settle();
    village.read_all();
    assert_gates_empty(&mut village);
    village.send(other, &format!("GET {away}\nGET {here}\n"));
    village.read_all();
    assert_eq!(village.output(other), "$1\r\n1\r\n$1\r\n1\r\n");
}

#[test]
fn all_keys_of_a_command_are_read_at_once_and_stay_until_it_runs() {
    for shards in [1, 3] {
        let mut village = village(shards);
        let peer = village.connect(0);
        let names = keys(shards);
        let all: Vec<String> = names
            .iter()
            .flat_map(|key| [key.clone(), neighbour(key, shards)])
            .collect();
        let pairs: Vec<String> = all.iter().map(|key| format!("{key} 7")).collect();
        village.call(peer, &format!("MSET {}\n", pairs.join(" ")));
        for command in ["MGET", "TOUCH", "MSETNX"] {
            village.hibernate();
            let list = if command == "MSETNX" { &pairs } else { &all };
            village.call(peer, &format!("{command} {}\n", list.join(" ")));
            assert!(village.reads_left() >= 2, "{command}");
            while village.reads_left() > 0 {
                // The last first, and nothing stays that may go.
                village.read(village.reads_left() - 1);
                for worker in &mut village.workers {
                    worker.seal();
                    let keyspace = worker.keyspace().expect("at home");
                    keyspace.evict(0, usize::MAX, true);
                }
                village.settle();
            }
            let wanted = match command {
                "MGET" => format!("*{}\r\n{}", all.len(), "$1\r\n7\r\n".repeat(all.len())),
                "TOUCH" => format!(":{}\r\n", all.len()),
                _ => ":0\r\n".to_owned(),
            };
            assert_eq!(village.output(peer), wanted, "{command}");
            assert_gates_empty(&mut village);
        }
    }
}

#[test]
fn blocks_and_watches_wait_for_their_keys_and_borrow_nothing_meanwhile() {
    for shards in [1, 3] {
        let mut village = village(shards);
        let (one, other) = (village.connect(0), village.connect(shards - 1));
        let names = keys(shards);
        let (a, b) = (&names[0], &names[shards - 1]);
        let warm = neighbour(a, shards);
        village.call(one, &format!("MSET {a} 1 {b} 1 {warm} 1\n"));
        village.hibernate();
        village.send(other, &format!("GET {warm}\n"));
        village.read_all();
        village.output(other);
        village.send(one, &format!("WATCH {a} {b}\n"));
        village.settle();
        assert!(village.reads_left() > 0);
        assert_eq!(village.call(other, &format!("INCR {warm}\n")), ":2\r\n");
        village.read_all();
        assert_eq!(village.output(one), "+OK\r\n");
        village.hibernate();
        let block =
            format!("MULTI\nINCR {a}\nSELECT 1\nINCR {b}\nSELECT 0\nINCR {b}\nEXEC XX {a}\n");
        village.call(one, &block);
        assert!(village.output(one).is_empty() && village.reads_left() > 0);
        assert_eq!(
            village.call(other, &format!("INCR {warm}\n")),
            "",
            "asleep as well"
        );
        village.read_all();
        assert_eq!(village.output(other), ":3\r\n");
        let told = village.output(one);
        let sums = if shards == 1 {
            ":2|+OK|:1|+OK|:3"
        } else {
            ":2|+OK|:1|+OK|:2"
        };
        let wanted = format!("*5|{sums}|").replace('|', "\r\n");
        assert!(told.ends_with(&wanted), "{told}");
        village.hibernate();
        village.send(one, &format!("WATCH {b}\nMULTI\nINCR {b}\n"));
        village.read_all();
        village.hibernate();
        village.send(other, &format!("INCR {b}\n"));
        village.read_all();
        village.output(one);
        village.hibernate();
        village.send(one, "EXEC\n");
        village.read_all();
        assert_eq!(
            village.output(one),
            "*-1\r\n",
            "the watched key was written"
        );
        assert_gates_empty(&mut village);
    }
}

#[test]
fn what_was_read_for_a_database_that_is_gone_is_dropped() {
    for shards in [1, 3] {
        for flush in [
            "FLUSHALL",
            "FLUSHDB",
            "SWAPDB 0 1",
            "SWAPDB 0 1\nSWAPDB 0 1",
        ] {
            let mut village = village(shards);
            let (one, other) = (village.connect(0), village.connect(shards - 1));
            for cold in keys(shards) {
                village.call(one, &format!("FLUSHALL\nSET {cold} 1\n"));
                village.hibernate();
                village.send(one, &format!("GET {cold}\nEXISTS {cold}\n"));
                village.settle();
                assert_eq!(village.reads_left(), 1);
                let replies = village.call(other, &format!("{flush}\nDBSIZE\n"));
                village.read_all();
                let there = flush.matches("SWAP").count() == 2;
                let wanted = if there { ":1\r\n" } else { ":0\r\n" };
                assert!(replies.ends_with(wanted), "{flush}: {replies}");
                let wanted = if there {
                    "$1\r\n1\r\n:1\r\n"
                } else {
                    "$-1\r\n:0\r\n"
                };
                assert_eq!(village.output(one), wanted, "{flush}");
                assert_gates_empty(&mut village);
                let replies = village.call(other, "DBSIZE\n");
                assert_eq!(replies, if there { ":1\r\n" } else { ":0\r\n" });
            }
        }
    }
}

#[test]
fn a_client_that_leaves_takes_its_place_along_and_no_write() {
    for shards in [1, 3] {
        let mut village = village(shards);
        let (one, other) = (village.connect(0), village.connect(0));
        for cold in keys(shards) {
            village.call(one, &format!("SET {cold} 1\n"));
            village.hibernate();
            let leaves = village.connect(0);
            village.send(leaves, &format!("INCR {cold}\n"));
            village.send(one, &format!("INCRBY {cold} 10\n"));
            village.settle();
            village.workers[0].disconnect(leaves.id);
            village.deliver();
            village.read_all();
            // A call that is on its way runs; a request that has not begun does not.
            let here = Routes::new(shards).of_key(cold.as_bytes()) == 0;
            let wanted = if here { ":11\r\n" } else { ":12\r\n" };
            assert_eq!(village.output(one), wanted);
            assert_eq!(village.call(other, "PING\n"), "+PONG\r\n");
            assert_gates_empty(&mut village);
        }
    }
}

#[test]
fn a_key_that_cannot_be_read_says_so_and_is_not_written_over() {
    for shards in [1, 3] {
        let mut village = village(shards);
        let (one, other) = (village.connect(0), village.connect(shards - 1));
        for cold in keys(shards) {
            let warm = neighbour(&cold, shards);
            village.call(one, &format!("SET {cold} 1\nSET {warm} 2\n"));
            village.hibernate();
            let keyspace = village.workers[Routes::new(shards).of_key(cold.as_bytes())].keyspace();
            let key = keyspace.expect("at home").key(cold.as_bytes());
            let of = KeyOf {
                slot: key.slot,
                database: 0,
                hash: key.hash32(),
                key: cold.as_bytes(),
            };
            village.store.damage(&RowKey::Main(of).encode());
            for command in ["GET", "INCR", "DEL", "SET", "WATCH"] {
                let value = if command == "SET" { " 5" } else { "" };
                village.send(one, &format!("{command} {cold}{value}\n"));
                village.send(other, &format!("MULTI\nGET {cold}\nEXEC\n"));
                village.read_all();
                let told = village.output(one);
                let fine = told.starts_with("-DAMAGED") || command == "WATCH";
                assert!(fine, "{command}: {told}");
                let told = village.output(other);
                assert!(told.contains("-DAMAGED"), "{told}");
            }
            village.send(other, &format!("UNWATCH\nGET {warm}\n"));
            village.read_all();
            assert_eq!(village.output(other), "+OK\r\n$1\r\n2\r\n");
            assert_gates_empty(&mut village);
        }
    }
}

#[test]
fn what_was_read_is_old_when_the_key_was_used_in_another_way() {
    let mut village = village(1);
    let (one, other) = (village.connect(0), village.connect(0));
    village.call(one, "SELECT 1\nSET cold 1\nSELECT 0\n");
    village.hibernate();
    village.call(other, "SELECT 1\n");
    village.send(other, "GET cold\n");
    assert_eq!(village.reads_left(), 1);
    let (_, old) = village.make_read(0);
    // The block reads the store itself: it named no key of that database.
    let replies = village.call(one, "MULTI\nSELECT 1\nDEL cold\nEXEC\n");
    assert!(replies.ends_with(":1\r\n"), "{replies}");
    village.hibernate();
    village.workers[0].message(old);
    village.settle();
    village.read_all();
    assert_eq!(village.output(other), "$-1\r\n", "the deletion stays");
    assert_eq!(village.call(other, "DBSIZE\n"), ":0\r\n");
    assert_gates_empty(&mut village);
}

#[test]
fn a_missing_key_among_sleeping_ones_is_made_once_the_store_was_asked() {
    let mut village = village(1);
    let peer = village.connect(0);
    village.call(peer, "SET {tag}a 1\n");
    village.hibernate();
    village.send(
        peer,
        "INCR {tag}b\nHSET {tag}h f v\nSETNX {tag}a 5\nDBSIZE\n",
    );
    village.read_all();
    assert_eq!(village.output(peer), ":1\r\n:1\r\n:0\r\n:3\r\n");
    assert_gates_empty(&mut village);
}

#[test]
fn what_hibernates_expires_without_being_asked_for() {
    let mut village = village(1);
    let peer = village.connect(0);
    village.call(
        peer,
        "SET a 1 PX 50\nSET b 1\nHSET h f 1 g 2\nHPEXPIRE h 50 FIELDS 1 f\n",
    );
    village.hibernate();
    village.clock.advance_ns(60_000_000);
    for _ in 0..3 {
        let worker = &mut village.workers[0];
        worker.begin_turn();
        worker.tick(100);
        let reads = village.reads.lock().expect("one thread").clone();
        let due = |read: &(usize, Read)| matches!(read.1, Read::Due(_));
        assert!(reads.is_empty() || reads.iter().any(due));
        village.read_all();
    }
    assert_eq!(village.reads_left(), 0);
    assert_gates_empty(&mut village);
    let keyspace = village.workers[0].keyspace().expect("at home");
    let stats = keyspace.stats();
    assert_eq!((stats.expired, stats.expired_fields), (1, 1));
    assert_eq!(village.call(peer, "DBSIZE\n"), ":2\r\n");
}

/// Time passes, and what it brings is deleted as far as it is here.
fn tick(village: &mut Village, ms: u64) {
    village.clock.advance_ns(ms * 1_000_000);
    let worker = &mut village.workers[0];
    worker.begin_turn();
    worker.tick(100);
}

#[test]
fn what_is_read_for_a_client_that_leaves_expires_all_the_same() {
    // Due already when it is read, or a while later.
    for later_ms in [0, 1_000] {
        let mut village = village(1);
        let (peer, leaves) = (village.connect(0), village.connect(0));
        village.call(peer, "SET {t}a 1 PX 50\n");
        if later_ms > 0 {
            village.call(peer, "PEXPIRE {t}a 1000\n");
        }
        village.hibernate();
        tick(&mut village, 49);
        village.send(leaves, "GET {t}a\n");
        tick(&mut village, 10);
        assert_eq!(village.reads_left(), 2, "the client's and the deadline's");
        village.workers[0].disconnect(leaves.id);
        village.read(0);
        village.read_all();
        for ms in [later_ms, 0, 0] {
            tick(&mut village, ms);
            village.read_all();
        }
        let keyspace = village.workers[0].keyspace().expect("at home");
        assert_eq!(
            (keyspace.stats().expired, keyspace.deadline_hints()),
            (1, 0)
        );
        assert_gates_empty(&mut village);
    }
}

#[test]
fn a_deadline_that_moves_on_is_looked_for_once_each_time() {
    let mut village = village(1);
    let peer = village.connect(0);
    village.call(peer, "SET {t}other 1\nSET {t}a 1\nHSET {t}h f 1\n");
    for _ in 0..20 {
        village.hibernate();
        village.send(peer, "PEXPIRE {t}a 100\nHPEXPIRE {t}h 100 FIELDS 1 f\n");
        village.read_all();
        tick(&mut village, 60);
        village.send(peer, "PEXPIRE {t}a 100\nHPEXPIRE {t}h 100 FIELDS 1 f\n");
        village.read_all();
        tick(&mut village, 60);
        village.read_all();
        let keyspace = village.workers[0].keyspace().expect("at home");
        assert!(keyspace.deadline_hints() <= 4);
    }
}

#[test]
fn what_cannot_be_read_does_not_hold_up_the_expiry_of_the_others() {
    let mut village = village(1);
    let peer = village.connect(0);
    village.call(peer, "SET bad 1 PX 50\nSET good 1 PX 20000\n");
    village.hibernate();
    let keyspace = village.workers[0].keyspace().expect("at home");
    let key = keyspace.key(b"bad");
    let of = KeyOf {
        slot: key.slot,
        database: 0,
        hash: key.hash32(),
        key: key.bytes,
    };
    village.store.damage(&RowKey::Main(of).encode());
    for _ in 0..20 {
        tick(&mut village, 500);
        village.read_all();
        let keyspace = village.workers[0].keyspace().expect("at home");
        assert_eq!(keyspace.expiry_late_ms(), 0);
        let stuck = keyspace.stuck();
        assert!(stuck.len() == 1 && stuck[0].hash32 == of.hash);
        let (now_ms, read_ms) = (keyspace.now_ms(), u64::MAX);
        keyspace.take_hints(&[], read_ms);
        assert_eq!(
            keyspace.expired_until_ms(),
            now_ms,
            "the others' rows may go"
        );
    }
    tick(&mut village, 15_000);
    village.read_all();
    tick(&mut village, 0);
    let keyspace = village.workers[0].keyspace().expect("at home");
    assert_eq!((keyspace.stats().expired, keyspace.stuck().len()), (1, 1));
    assert_gates_empty(&mut village);
}

#[test]
fn what_was_fetched_to_expire_is_let_go_when_expiry_is_switched_off() {
    for switched_off in 0..3 {
        let mut village = village(1);
        let peer = village.connect(0);
        village.call(peer, "SET {t}a 1 PX 50\n");
        village.hibernate();
        tick(&mut village, 60);
        for step in 0..3 {
            if step == switched_off {
                let keyspace = village.workers[0].keyspace().expect("at home");
                keyspace.set_active_expiry(false);
            }
            if village.reads_left() > 0 {
                village.read(0);
            }
        }
        tick(&mut village, 0);
        assert_eq!(village.reads_left(), 0);
        assert_gates_empty(&mut village);
        let keyspace = village.workers[0].keyspace().expect("at home");
        keyspace.set_active_expiry(true);
        for _ in 0..2 {
            tick(&mut village, 0);
            village.read_all();
        }
        let keyspace = village.workers[0].keyspace().expect("at home");
        assert_eq!(keyspace.stats().expired, 1);
    }
}

#[test]
fn hits_and_misses_are_counted_once() {
    let mut village = village(1);
    let peer = village.connect(0);
    village.call(peer, "MSET {t}a 1 {t}b 2\n");
    village.hibernate();
    let before = village.workers[0].keyspace().expect("at home").stats();
    village.send(peer, "MGET {t}a {t}none {t}b\n");
    village.read_all();
    let after = village.workers[0].keyspace().expect("at home").stats();
    assert_eq!(village.output(peer), "*3\r\n$1\r\n1\r\n$-1\r\n$1\r\n2\r\n");
    assert_eq!(
        (after.hits - before.hits, after.misses - before.misses),
        (2, 1)
    );
}

#[test]
fn a_key_that_is_too_long_is_refused_behind_one_that_is_asleep() {
    for shards in [1, 3] {
        let mut village = village(shards);
        let peer = village.connect(0);
        for cold in keys(shards) {
            let long = format!("{{{cold}}}{}", "x".repeat(KEY_BYTES_MAX));
            village.call(peer, &format!("SET {cold} 1\n"));
            village.hibernate();
            village.send(peer, &format!("GET {cold}\nGET {long}\nGET {cold}\n"));
            assert_eq!(village.reads_left(), 1, "nobody asks for what cannot be");
            village.read_all();
            let told = village.output(peer);
            let lines: Vec<&str> = told.split("\r\n").collect();
            assert_eq!(lines[..2], ["$1", "1"]);
            assert!(lines[2].starts_with("-ERR key"), "{}", lines[2]);
            assert_eq!(lines[3..], ["$1", "1", ""]);
            assert_gates_empty(&mut village);
        }
    }
}

#[test]
fn a_condition_on_a_key_that_is_too_long_is_refused() {
    for shards in [1, 3] {
        let mut village = village(shards);
        let peer = village.connect(0);
        let cold = &keys(shards)[0];
        let long = format!("{{{cold}}}{}", "x".repeat(KEY_BYTES_MAX));
        village.call(peer, &format!("SET {cold} 1\n"));
        for condition in [
            format!("NX {long}"),
            format!("XX {cold} XX {long}"),
            format!("IFEQ {long} 1"),
            format!("IFNE {long} 1"),
        ] {
            village.hibernate();
            village.send(peer, &format!("MULTI\nINCR {cold}\nEXEC {condition}\n"));
            village.read_all();
            let told = village.output(peer);
            let refused = told.split("\r\n").nth(2).unwrap_or_default();
            assert!(refused.starts_with("-EXECABORT"), "{refused}");
            village.send(peer, &format!("GET {cold}\n"));
            village.read_all();
            assert_eq!(village.output(peer), "$1\r\n1\r\n", "the block did not run");
            assert_gates_empty(&mut village);
        }
    }
}

#[test]
fn a_line_that_never_runs_empty_lets_go_what_it_has_used() {
    let shards = 2;
    let mut village = village(shards);
    let peer = village.connect(0);
    let tag = &keys(shards)[1];
    let key = |number: usize| format!("{{{tag}}}{number}");
    let all = 0..60;
    village.call(
        peer,
        &all.clone()
            .map(|n| format!("SET {} {n}\n", key(n)))
            .collect::<String>(),
    );
    village.hibernate();
    for number in all.clone() {
        // The next call stands in line before the one before it has its key.
        village.send(peer, &format!("GET {}\n", key(number)));
        if number > 0 {
            village.read(0);
        }
        let keyspace = village.workers[1].keyspace().expect("at home");
        assert!(keyspace.gated() <= 2, "{} are kept", keyspace.gated());
    }
    village.read_all();
    let wanted: String = all
        .map(|number| number.to_string())
        .map(|text| format!("${}\r\n{text}\r\n", text.len()))
        .collect();
    assert_eq!(village.output(peer), wanted);
    assert_gates_empty(&mut village);
}

#[test]
fn a_condition_on_several_keys_has_all_of_them_read_at_once() {
    let mut village = village(1);
    let peer = village.connect(0);
    for condition in ["XX", "NX"] {
        village.call(peer, "MSET {t}a 1 {t}b 2 {t}c 3\n");
        village.hibernate();
        village.send(
            peer,
            &format!("MSETEX 3 {{t}}a 4 {{t}}b 5 {{t}}c 6 {condition}\n"),
        );
        assert_eq!(village.reads_left(), 3, "{condition}");
        village.read_all();
        let wanted = if condition == "XX" {
            ":1\r\n"
        } else {
            ":0\r\n"
        };
        assert_eq!(village.output(peer), wanted);
        assert_gates_empty(&mut village);
    }
}

#[test]
fn a_command_over_several_shards_is_counted_once() {
    let shards = 3;
    let mut village = village(shards);
    let peer = village.connect(1);
    let names = keys(shards);
    let pairs: Vec<String> = names.iter().map(|key| format!("{key} 7")).collect();
    village.call(peer, &format!("MSET {}\n", pairs.join(" ")));
    let metrics = village.workers[0].shared.clone();
    let metrics = &metrics.metrics;
    let row = table().find(words("MGET a").args()).expect("it is known");
    let counted = || {
        let command = metrics.command(row.0 as usize);
        let all = metrics.total(|shard| &shard.commands_processed);
        let errors = metrics.total(|shard| &shard.error_replies);
        (command.calls, command.failed, all, errors)
    };
    let all = counted().2;
    let mget = format!("MGET {}\n", names.join(" "));
    village.call(peer, &mget);
    assert_eq!(counted(), (1, 0, all + 1, 0));
    // Of other shards alone, and with a part that fails in each.
    village.call(peer, &format!("MGET {} {}\n", names[0], names[2]));
    assert_eq!(counted(), (2, 0, all + 2, 0));
    village.hibernate();
    for (shard, name) in names.iter().enumerate() {
        let keyspace = village.workers[shard].keyspace().expect("at home");
        let key = keyspace.key(name.as_bytes());
        let of = KeyOf {
            slot: key.slot,
            database: 0,
            hash: key.hash32(),
            key: key.bytes,
        };
        village.store.damage(&RowKey::Main(of).encode());
    }
    village.send(peer, &mget);
    village.read_all();
    assert!(village.output(peer).contains("-DAMAGED"));
    assert_eq!(counted(), (3, 1, all + 3, 1));
}

/// A request that comes to wait although nothing is left to be read: no read will end its wait.
#[test]
fn who_waits_for_what_is_here_already_goes_on() {
    let mut village = village(2);
    let (own, other) = (village.connect(0), village.connect(1));
    let key = &keys(2)[0];
    let worker = &mut village.workers[0];
    let mut conn = worker.take(own.id).expect("it is connected");
    worker.fetch_for_request(&mut conn);
    assert!(conn.is_busy());
    worker.put_back(conn);
    assert_eq!(village.call(own, &format!("INCR {key}\n")), ":1\r\n");

    // The same of calls of another thread: they are stopped on their way.
    village.workers[1].receive(other.id, format!("INCR {key}\r\n").as_bytes());
    let outbox = village.workers[1].take_outbox();
    let calls = outbox.into_iter().find_map(|(_, message)| match message {
        Message::Calls(calls) => Some(calls),
        _ => None,
    });
    village.workers[0].fetch_for_line(calls.expect("the key is of shard 0"), None);
    village.settle();
    assert_eq!(village.output(other), ":2\r\n");
    assert_gates_empty(&mut village);
}
