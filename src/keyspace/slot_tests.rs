//! The tables of keys: room, places, scans.

use std::collections::HashMap;

use super::*;

fn forged(bytes: &[u8], hash32: u32, low: u32) -> Key<'_> {
    Key {
        bytes,
        slot: 0,
        hash: u64::from(hash32) << 32 | u64::from(low),
    }
}

fn fill(tables: &mut Tables, numbers: Range<u32>) {
    for number in numbers {
        let text = format!("{{tag}}:{number:014}");
        let key = Key {
            slot: 0,
            ..Key::new(text.as_bytes(), 3)
        };
        tables.put(0, &key, Value::Counter(number.into()), 0);
    }
}

#[test]
fn one_slot_holds_200_000_keys() {
    let mut tables = Tables::new(0..1);
    fill(&mut tables, 0..200_000);
    assert_eq!((tables.count(0, 0), tables.count_db(0)), (200_000, 200_000));
    for number in 0..200_000u32 {
        let text = format!("{{tag}}:{number:014}");
        let key = Key {
            slot: 0,
            ..Key::new(text.as_bytes(), 3)
        };
        let counter = tables.update_counter(0, &key, |counter, _| *counter);
        assert_eq!(counter, Some(number.into()));
    }
    let per_entry = tables.bytes() as f64 / 200_000.0;
    assert!(per_entry < 44.0, "{per_entry} bytes per entry");
}

#[test]
fn a_counter_with_a_20_byte_key_takes_at_most_44_bytes() {
    // As dense as 10 M keys over 16,384 slots: 610 keys in each.
    let (slots, count) = (256, 256 * 610);
    let mut tables = Tables::new(0..slots);
    for number in 0..count {
        let text = format!("counter:{number:012}");
        let key = Key::new(text.as_bytes(), 3);
        let key = Key {
            slot: key.slot % slots,
            ..key
        };
        tables.put(0, &key, Value::Counter(i64::from(number) * 977), 0);
    }
    let per_entry = tables.bytes() as f64 / f64::from(count);
    assert!(per_entry < 44.0, "{per_entry} bytes per entry");
    println!("{per_entry:.1} bytes per entry");
}

#[test]
fn keys_that_share_their_hash_are_told_apart() {
    let mut tables = Tables::new(0..1);
    let keys: Vec<String> = (0..5_000).map(|number| format!("key:{number}")).collect();
    let of = |number: usize| forged(keys[number].as_bytes(), 0xDEAD_BEEF, number as u32 % 3);
    for number in 0..keys.len() {
        tables.put(0, &of(number), Value::Counter(number as i64), 0);
    }
    for number in (0..keys.len()).step_by(2) {
        assert!(tables.delete(0, &of(number)));
    }
    for number in 0..keys.len() {
        let there = tables.get(0, &of(number)).is_some();
        assert_eq!(there, number % 2 == 1);
    }
    let mut visited = 0;
    let next = tables.scan(0, 0, 0, 10, |_| visited += 1);
    assert_eq!((visited, next), (2_500, Some((0, 0xDEAD_BEF0))));
    assert_eq!(
        tables.scan(0, 0, 0xDEAD_BEF0, 10, |_| panic!("none is left")),
        None
    );
}

#[test]
fn an_entry_that_has_moved_is_not_taken_for_another_one() {
    let mut tables = Tables::new(0..1);
    let names: Vec<String> = (0..3_000).map(|number| format!("key:{number}")).collect();
    let key = |number: usize| Key {
        slot: 0,
        ..Key::new(names[number].as_bytes(), 3)
    };
    let mut spots = Vec::new();
    for number in 0..names.len() {
        tables.put(0, &key(number), Value::Counter(number as i64), 0);
        spots.push(tables.spot(0, &key(number)).expect("it was put"));
    }
    let still = |tables: &Tables, at: usize, number: usize| {
        let entry = tables.still_at(spots[at], 0, &key(number));
        entry.map(|entry| entry.key().to_vec())
    };
    let here = |tables: &Tables| {
        let mut there = 0;
        for number in 0..names.len() {
            for at in [
                number,
                (number * 7 + 1) % names.len(),
                names.len() - 1 - number,
            ] {
                let found = still(tables, at, number);
                let right = found
                    .as_deref()
                    .is_none_or(|name| name == key(number).bytes);
                assert!(right, "{found:?} for {}", names[number]);
                there += usize::from(at == number && found.is_some());
            }
        }
        there
    };
    let split = here(&tables);
    assert!(
        split > 0 && split < names.len(),
        "{split} stay as buckets split"
    );
    let last = names.len() - 1;
    assert_eq!(still(&tables, last, last).as_deref(), Some(key(last).bytes));
    assert!(tables.still_at(spots[last], 1, &key(last)).is_none());
    tables.delete(0, &key(last));
    assert_eq!(still(&tables, last, last), None, "a tombstone");
    for number in 0..last {
        tables.set_deadline(0, &key(number), 7);
    }
    assert_eq!(
        here(&tables),
        split - 1,
        "an entry that grows stays in its cell"
    );
    tables.drop_database(0);
    assert_eq!(here(&tables), 0);
}

#[test]
fn the_last_hash_ends_the_slot() {
    let mut tables = Tables::new(0..2);
    tables.put(0, &forged(b"a", u32::MAX, 0), Value::Counter(1), 0);
    tables.put(
        0,
        &Key {
            slot: 1,
            ..forged(b"b", 0, 0)
        },
        Value::Counter(2),
        0,
    );
    let mut keys = Vec::new();
    let next = tables.scan(0, 0, 0, 1, |entry| keys.push(entry.key().to_vec()));
    assert_eq!(next, Some((1, 0)));
    assert_eq!(
        tables.scan(0, 1, 0, 1, |entry| keys.push(entry.key().to_vec())),
        None
    );
    assert_eq!(keys, [b"a", b"b"]);
}

#[test]
fn a_scan_returns_every_key_that_stays_once_and_in_order() {
    let mut tables = Tables::new(0..1);
    fill(&mut tables, 0..3_000);
    let (mut seen, mut last, mut added) = (HashMap::new(), 0, 3_000u32);
    let mut from = Some(0);
    while let Some(hash32) = from {
        from = tables.scan_slot(0, 0, hash32, 10, |entry| {
            assert!(entry.hash32() >= last);
            last = entry.hash32();
            *seen.entry(entry.key().to_vec()).or_insert(0) += 1;
        });
        // The buckets split while the scan goes on.
        fill(&mut tables, added..added + 20);
        added += 20;
    }
    for number in 0..3_000 {
        let text = format!("{{tag}}:{number:014}");
        assert_eq!(seen.get(text.as_bytes()), Some(&1), "{text}");
    }
}

#[test]
fn a_string_is_edited_in_place_unless_it_is_shared() {
    let mut tables = Tables::new(0..16_384);
    let key = Key::new(b"text", 1);
    tables.put_bytes(0, &key, &[b'a'; 1000], 77);
    let first = |tables: &Tables| match tables.get(0, &key).map(|entry| entry.value()) {
        Some(super::super::ValueRef::String(text)) => text.as_ptr() as usize,
        _ => panic!("no string"),
    };
    let place = first(&tables);
    tables.edit_string(0, &key, |text| text[3] = b'b');
    assert_eq!(first(&tables), place);
    let shared = tables
        .get(0, &key)
        .and_then(|entry| entry.to_string_bytes());
    tables.edit_string(0, &key, |text| text[4] = b'c');
    assert_ne!(first(&tables), place);
    assert_eq!(shared.map(|text| text[4]), Some(b'a'));
    assert_eq!(
        tables.get(0, &key).map(|entry| entry.deadline_ms()),
        Some(77)
    );
}

#[test]
fn a_string_that_was_appended_to_takes_about_what_is_counted() {
    let mut tables = Tables::new(0..16_384);
    let key = Key::new(b"text", 1);
    tables.put_bytes(0, &key, &[b'a'; 1000], 0);
    let (mut moved, mut place) = (0, std::ptr::null());
    for _ in 0..10_000 {
        tables.edit_string(0, &key, |text| {
            let spare = text.capacity() - text.len();
            assert!(spare <= text.len() / STRING_SPARE_SHARE, "{spare}");
            moved += usize::from(std::mem::replace(&mut place, text.as_ptr()) != place);
            text.extend_from_slice(b"more");
        });
    }
    assert!(moved < 100, "it was copied {moved} times");
    tables.edit_string(0, &key, |text| text.truncate(100));
    tables.edit_string(0, &key, |text| assert!(text.capacity() < 120));
}

#[test]
fn each_key_is_drawn_about_as_often() {
    use rand::SeedableRng;
    let mut rng = rand_xoshiro::Xoshiro256PlusPlus::seed_from_u64(1);
    let mut tables = Tables::new(0..16_384);
    for number in 0..10 {
        let text = format!("key:{number}");
        tables.put(0, &Key::new(text.as_bytes(), 1), Value::Counter(number), 0);
    }
    let mut drawn = HashMap::new();
    for _ in 0..10_000 {
        let key = match tables.random(0, &mut rng) {
            Some(Drawn::Here(entry)) => Some(entry.key().to_vec()),
            _ => None,
        };
        *drawn.entry(key).or_insert(0) += 1;
    }
    assert!(drawn.len() == 10 && drawn.values().all(|count| (800..1200).contains(count)));
}

#[test]
fn a_dropped_database_takes_its_memory_along() {
    let mut tables = Tables::new(0..16_384);
    tables.put(3, &Key::new(b"a", 1), Value::Counter(1), 0);
    tables.put(5, &Key::new(b"a", 1), Value::Counter(1), 0);
    let before = tables.bytes();
    assert_eq!(
        tables.drop_database(3).map(|database| database.id()),
        Some(3)
    );
    assert!(tables.bytes() <= before / 2 && tables.count_db(3) == 0);
    assert_eq!((tables.count_db(5), tables.dirty_entries()), (1, 1));
}
