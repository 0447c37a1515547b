//! Large hashes that hibernate, read by others: which of their fields are read, and who waits.

use crate::limits::{FIELD_BYTES_MAX, FIELDS_READ_SINGLY_MAX};
use crate::route::Routes;
use crate::store::Store;
use crate::store::row::{RowKind, kind_in_slot};
use crate::worker::input_gate_tests::{assert_gates_empty, neighbour, village};
use crate::worker::tests::{Peer, Village, keys};

/// Sets so many fields `f0`, `f1` … of a hash to their numbers.
fn set_fields(village: &mut Village, peer: Peer, key: &str, fields: usize) {
    for from in (0..fields).step_by(1_000) {
        let pairs = (from..fields.min(from + 1_000)).map(|number| format!(" f{number} {number}"));
        let pairs: String = pairs.collect();
        village.call(peer, &format!("HSET {key}{pairs}\n"));
    }
}

/// What is in memory of the keys of all shards, in bytes.
fn resident_bytes(village: &mut Village) -> usize {
    let keyspaces = village.workers.iter_mut().map(|worker| worker.keyspace());
    let tables = keyspaces.map(|keyspace| keyspace.expect("at home").tables());
    tables
        .map(|tables| tables.bytes() - tables.skeleton_bytes())
        .sum()
}

#[test]
fn one_field_of_a_large_hash_is_read_and_no_other() {
    const FIELDS: usize = 100_000;
    for shards in [1, 3] {
        let mut village = village(shards);
        let peer = village.connect(0);
        let key = &keys(shards)[shards - 1];
        set_fields(&mut village, peer, key, FIELDS);
        village.hibernate();
        let (before, bytes) = (village.store.rows_read(), resident_bytes(&mut village));
        let calls = [
            ("HINCRBY {} f7 1", ":8"),
            ("HGET {} f99999", "$5\r\n99999"),
            ("HGET {} none", "$-1"),
            ("HSETNX {} new x", ":1"),
            ("HMGET {} new f7 f8", "*3\r\n$1\r\nx\r\n$1\r\n8\r\n$1\r\n8"),
            ("HDEL {} f8 f8 none", ":1"),
            ("HEXISTS {} f8", ":0"),
            ("HLEN {}", ":100000"),
            ("TYPE {}", "+hash"),
            ("EXPIRE {} 1000", ":1"),
            ("OBJECT ENCODING {}", "$9\r\nhashtable"),
        ];
        for round in 0..2 {
            for (call, wanted) in &calls[round * 6..] {
                let call = call.replace("{}", key);
                village.send(peer, &format!("{call}\n"));
                village.read_all();
                let told = village.output(peer);
                assert_eq!(told, format!("{wanted}\r\n"), "{call}");
            }
            village.hibernate();
        }
        let rows = village.store.rows_read() - before;
        assert!(rows <= 20, "{rows} rows were read");
        let more = resident_bytes(&mut village).saturating_sub(bytes);
        assert!(more < 4_096, "{more} bytes are in memory");
        village.send(peer, &format!("HKEYS {key}\n"));
        village.read_all();
        assert_eq!(village.output(peer).matches('f').count(), FIELDS - 1);
        village.send(peer, &format!("DEL {key}\nHLEN {key}\nHGET {key} f1\n"));
        village.read_all();
        assert_eq!(village.output(peer), ":1\r\n:0\r\n$-1\r\n");
        assert_gates_empty(&mut village);
    }
}

#[test]
fn the_fields_that_a_pipeline_names_are_read_at_once() {
    for shards in [1, 3] {
        let mut village = village(shards);
        let peer = village.connect(0);
        for key in keys(shards) {
            set_fields(&mut village, peer, &key, 9);
            village.hibernate();
            let line = |number| format!("HINCRBY {key} f{number} 1\n");
            let lines: String = (0..5).map(line).collect();
            village.send(peer, &format!("{lines}HLEN {key}\n"));
            assert_eq!(village.reads_left(), 1, "the head");
            village.read(0);
            assert_eq!(village.reads_left(), 5, "the fields");
            // The last first: none of them runs before the first one.
            (0..4).rev().for_each(|place| village.read(place + 1));
            village.settle();
            assert_eq!(village.output(peer), "");
            village.read_all();
            assert_eq!(village.output(peer), ":1\r\n:2\r\n:3\r\n:4\r\n:5\r\n:9\r\n");
            // Who wants many of them has all of them read at once.
            village.hibernate();
            let names: String = (0..9).map(|number| format!(" f{number}")).collect();
            village.send(peer, &format!("HMGET {key}{names}\n"));
            village.read(0);
            assert_eq!(village.reads_left(), 1, "all fields");
            village.read_all();
            let told = village.output(peer);
            assert!(told.starts_with("*9\r\n$1\r\n1\r\n$1\r\n2\r\n"), "{told}");
            assert_gates_empty(&mut village);
        }
    }
}

#[test]
fn all_fields_of_a_command_stay_until_it_runs() {
    for shards in [1, 3] {
        let mut village = village(shards);
        let peer = village.connect(0);
        let key = &keys(shards)[0];
        set_fields(&mut village, peer, key, 9);
        for call in [
            "HMGET {} f1 none f2 f3",
            "HGETALL {}",
            "HSET {} f1 1 f2 2 f3 3",
        ] {
            village.hibernate();
            village.send(peer, &format!("{}\n", call.replace("{}", key)));
            while village.reads_left() > 0 {
                // The last first, and nothing stays that may go.
                village.read(village.reads_left() - 1);
                for shard in 0..shards {
                    village.hibernate_shard(shard);
                }
                village.settle();
            }
            let told = village.output(peer);
            let wanted = match call.split(' ').next() {
                Some("HMGET") => "*4\r\n$1\r\n1\r\n$-1\r\n$1\r\n2\r\n$1\r\n3\r\n",
                Some("HGETALL") => "*18\r\n",
                _ => ":0\r\n",
            };
            assert!(told.starts_with(wanted), "{call}: {told}");
            assert_gates_empty(&mut village);
        }
    }
}

#[test]
fn blocks_wait_for_the_fields_that_they_name() {
    for shards in [1, 3] {
        let mut village = village(shards);
        let (one, other) = (village.connect(0), village.connect(shards - 1));
        let names = keys(shards);
        let (a, b) = (&names[0], &names[shards - 1]);
        let (a, b) = (&format!("{{{a}}}a"), &format!("{{{b}}}b"));
        let warm = neighbour(a, shards);
        village.call(one, &format!("SET {warm} 1\n"));
        set_fields(&mut village, one, a, 9);
        set_fields(&mut village, one, b, 9);
        village.hibernate();
        let block =
            format!("MULTI\nHINCRBY {a} f1 1\nHSET {b} f2 5 new 1\nHGETALL {b}\nEXEC\nHLEN {b}\n");
        village.send(one, &block);
        village.send(other, &format!("GET {warm}\n"));
        village.settle();
        let mut rows = village.store.rows_read();
        while village.reads_left() > 0 {
            village.read(0);
            let more = village.store.rows_read() - rows;
            assert!(
                more == 1 || more == 9,
                "{more}: only what was asked for is read"
            );
            rows += more;
            village.settle();
        }
        let told = village.output(one);
        assert!(told.contains("*3\r\n:2\r\n:1\r\n*20\r\n"), "{told}");
        assert!(told.ends_with(":10\r\n"), "{told}");
        assert_eq!(village.output(other), "$1\r\n1\r\n");
        assert_gates_empty(&mut village);
    }
}

#[test]
fn what_was_read_of_a_hash_is_old_when_it_was_changed_in_another_way() {
    for (call, wanted) in [
        ("HGET cold f1", "$-1\r\n"),
        ("HMGET cold f0 f1", "*2\r\n$1\r\n0\r\n$-1\r\n"),
        ("HVALS cold", "*1\r\n$1\r\n0\r\n"),
    ] {
        let mut village = village(1);
        let (one, other) = (village.connect(0), village.connect(0));
        village.call(one, "SELECT 1\nHSET cold f0 0 f1 1 f2 2\nSELECT 0\n");
        village.hibernate();
        village.call(other, "SELECT 1\n");
        village.send(other, &format!("{call}\n"));
        village.read(0);
        let count = village.reads_left();
        let old: Vec<_> = (0..count).map(|_| village.make_read(0)).collect();
        // The block reads the store itself: it named no key of that database.
        let replies = village.call(one, "MULTI\nSELECT 1\nHDEL cold f1 f2\nEXEC\n");
        assert!(replies.ends_with(":2\r\n"), "{replies}");
        village.hibernate();
        for (shard, old) in old {
            village.workers[shard].message(old);
        }
        village.settle();
        village.read_all();
        assert_eq!(village.output(other), wanted, "the deletion stays");
        village.send(other, "HLEN cold\n");
        village.read_all();
        assert_eq!(village.output(other), ":1\r\n");
        assert_gates_empty(&mut village);
    }
}

/// Damages a field of a hash that hibernates.
fn damage_field(village: &mut Village, key: &str, field: &str) {
    let shard = Routes::new(village.workers.len()).of_key(key.as_bytes());
    let keyspace = village.workers[shard].keyspace().expect("at home");
    let slot = keyspace.key(key.as_bytes()).slot;
    let (from, to) = kind_in_slot(slot, RowKind::Field);
    let rows = village.store.scan(&from, &to);
    let row = rows
        .filter_map(Result::ok)
        .find(|(row, _)| row.ends_with(field.as_bytes()));
    village.store.damage(&row.expect("it is stored").0);
}

#[test]
fn a_field_that_cannot_be_read_says_so_and_is_not_written_over() {
    let mut village = village(1);
    let peer = village.connect(0);
    set_fields(&mut village, peer, "cold", 9);
    village.hibernate();
    damage_field(&mut village, "cold", "f3");
    for call in [
        "HGET cold f3",
        "HSET cold f1 1 f3 5",
        "HDEL cold f3",
        "HGETALL cold",
    ] {
        village.send(peer, &format!("{call}\nHGET cold f1\n"));
        village.read_all();
        let told = village.output(peer);
        assert!(told.starts_with("-DAMAGED"), "{call}: {told}");
        assert!(told.ends_with("$1\r\n1\r\n"), "{call}: {told}");
        let block = "MULTI\nHINCRBY cold f1 0\nHINCRBY cold f3 1\nEXEC\nHLEN cold\n";
        village.send(peer, block);
        village.read_all();
        let told = village.output(peer);
        assert!(told.contains("*2\r\n:1\r\n-DAMAGED"), "{call}: {told}");
        assert!(told.ends_with(":9\r\n"), "{call}: {told}");
        village.hibernate();
    }
    assert_gates_empty(&mut village);
}

#[test]
fn a_field_that_was_deleted_while_it_was_read_does_not_come_back() {
    let mut village = village(1);
    let (peer, other) = (village.connect(0), village.connect(0));
    set_fields(&mut village, peer, "cold", 12);
    village.hibernate();
    village.call(peer, "HLEN cold\n");
    village.read_all();
    village.send(peer, "HGET cold f3\n");
    let (shard, read) = village.make_read(0);
    // Meanwhile all fields are read, that one goes, and so does the rest from memory.
    village.send(other, "HGETALL cold\nHDEL cold f3\n");
    village.read_all();
    assert!(village.output(other).ends_with(":1\r\n"));
    let bytes = resident_bytes(&mut village);
    village.hibernate();
    assert!(resident_bytes(&mut village) < bytes, "fields have gone");
    village.workers[shard].message(read);
    village.deliver();
    village.read_all();
    assert_eq!(village.output(peer), ":12\r\n$-1\r\n");
    village.send(peer, "HGETALL cold\nHLEN cold\n");
    village.read_all();
    let told = village.output(peer);
    assert!(told.starts_with("*22\r\n") && told.ends_with(":11\r\n"));
    assert_gates_empty(&mut village);
}

#[test]
fn a_field_that_came_and_went_while_it_was_read_does_not_come_back() {
    let mut village = village(1);
    let (peer, other) = (village.connect(0), village.connect(0));
    set_fields(&mut village, peer, "cold", 9);
    village.hibernate();
    village.call(peer, "HLEN cold\n");
    village.read_all();
    village.send(peer, "HGET cold new\n");
    assert_eq!(village.reads_left(), 1);
    // Meanwhile the others are read one by one: the hash is whole, and nobody asks the gate.
    for number in 0..9 {
        village.send(other, &format!("HGET cold f{number}\n"));
        village.read(1);
        village.settle();
    }
    village.call(other, "HSET cold new x\n");
    village.hibernate();
    let (shard, read) = village.make_read(0);
    village.call(other, "HDEL cold new\n");
    village.hibernate();
    village.workers[shard].message(read);
    village.deliver();
    village.read_all();
    assert_eq!(village.output(peer), ":9\r\n$-1\r\n");
    village.output(other);
    village.send(other, "HGETALL cold\nHLEN cold\n");
    village.read_all();
    let told = village.output(other);
    assert!(
        told.contains("*18\r\n") && told.ends_with(":9\r\n"),
        "{told:?}"
    );
    assert_gates_empty(&mut village);
}

#[test]
fn a_field_whose_name_is_too_long_is_missing_from_a_hash_in_part() {
    let mut village = village(1);
    let peer = village.connect(0);
    set_fields(&mut village, peer, "cold", 9);
    let long = "x".repeat(FIELD_BYTES_MAX + 1);
    for begin in ["", "MULTI\n"] {
        village.hibernate();
        let end = if begin.is_empty() { "" } else { "EXEC\n" };
        let calls = format!("HGET cold {long}\nHDEL cold {long}\nHEXISTS cold {long}\n");
        village.send(peer, &format!("{begin}{calls}{end}"));
        village.read_all();
        let told = village.output(peer);
        assert!(told.ends_with("$-1\r\n:0\r\n:0\r\n"), "{told}");
    }
    village.send(peer, &format!("HSET cold {long} 1\nHLEN cold\n"));
    village.read_all();
    let told = village.output(peer);
    assert!(
        told.starts_with("-ERR") && told.ends_with(":9\r\n"),
        "{told}"
    );
    assert_gates_empty(&mut village);
}

/// More fields than are read one by one, `f3` among them.
fn many_fields() -> String {
    let numbers = 0..=FIELDS_READ_SINGLY_MAX;
    numbers.map(|number| format!(" f{number}")).collect()
}

#[test]
fn many_fields_of_which_one_cannot_be_read_are_answered() {
    for shards in [1, 3] {
        let mut village = village(shards);
        let (peer, other) = (village.connect(0), village.connect(0));
        for key in keys(shards) {
            set_fields(&mut village, peer, &key, 12);
            village.hibernate();
            damage_field(&mut village, &key, "f3");
            // Also where one of them is being read by itself.
            village.send(
                other,
                &format!(
                    "HLEN {key}
"
                ),
            );
            village.read_all();
            village.send(
                other,
                &format!(
                    "HGET {key} f0
"
                ),
            );
            village.send(
                peer,
                &format!(
                    "HMGET {key}{}
PING
",
                    many_fields()
                ),
            );
            assert_eq!(village.reads_left(), 2);
            village.read(1);
            village.settle();
            let told = village.output(peer);
            assert!(told.starts_with("-DAMAGED"), "{shards} {key}: {told:?}");
            assert!(told.ends_with("+PONG\r\n"), "{shards} {key}: {told:?}");
            village.read_all();
            assert_eq!(village.output(other), ":12\r\n$1\r\n0\r\n");
        }
        assert_gates_empty(&mut village);
    }
}

#[test]
fn a_block_with_many_fields_of_which_one_cannot_be_read_is_answered() {
    for shards in [1, 3] {
        let mut village = village(shards);
        let peer = village.connect(0);
        for key in keys(shards) {
            set_fields(&mut village, peer, &key, 12);
            village.hibernate();
            damage_field(&mut village, &key, "f3");
            let lines = format!("MULTI\nHMGET {key}{}\nHLEN {key}\nEXEC\n", many_fields());
            village.send(peer, &lines);
            // Twice something is read: the key, and its fields.
            for _ in 0..2 {
                village.settle();
                assert_eq!(village.reads_left(), 1);
                village.read(0);
            }
            village.settle();
            let told = village.output(peer);
            let end = told.find("*2\r\n-DAMAGED").map(|at| &told[at..]);
            assert!(end.is_some_and(|end| end.ends_with(":12\r\n")), "{told:?}");
        }
        assert_gates_empty(&mut village);
    }
}
