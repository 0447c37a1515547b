//! What every store promises, asked of each of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// One ingestion: the rows it sets (`Some`) and removes (`None`).
type Changes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

fn meta_at(lsn: u64) -> Meta {
    Meta {
        lsn,
        rows_lsn: lsn,
        databases: vec![0, 1],
        next_database_id: 2,
        ..Meta::default()
    }
}

fn give(rows: &mut dyn Ingestion, changes: &Changes) -> Result<(), StoreError> {
    for (key, value) in changes {
        match value {
            Some(value) => rows.put(key, value)?,
            None => rows.delete(key)?,
        }
    }
    Ok(())
}

fn ingest(store: &dyn Store, lsn: u64, changes: &Changes) -> Result<bool, StoreError> {
    store.ingest(&mut |rows| {
        give(rows, changes)?;
        Ok(Finish::With(meta_at(lsn)))
    })
}

fn put(key: &[u8], value: &[u8]) -> Changes {
    Changes::from([(key.to_vec(), Some(value.to_vec()))])
}

fn all(store: &dyn Store) -> Vec<(Bytes, Bytes)> {
    let (from, to) = row::everything();
    store.scan(&from, &to).map(|row| row.unwrap()).collect()
}

fn disk() -> (TempDir, FjallStore) {
    let place = tempfile::tempdir().unwrap();
    let options = StoreOptions::default();
    let store = FjallStore::create(&place.path().join("store"), options, &meta_at(0)).unwrap();
    (place, store)
}

fn open(place: &TempDir) -> Result<FjallStore, StoreError> {
    FjallStore::open(&place.path().join("store"), StoreOptions::default())
}

fn open_error(place: &TempDir) -> String {
    match open(place) {
        Ok(_) => panic!("a damaged store opened"),
        Err(error) => error.to_string(),
    }
}

fn tables(place: &TempDir) -> Vec<std::path::PathBuf> {
    let folder = place.path().join("store/keyspaces/1/tables");
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect()
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    vec(prop::sample::select(vec![0u8, 1, b'a', 0xFE]), 1..6)
}

fn changes() -> impl Strategy<Value = Changes> {
    btree_map(
        key(),
        prop::option::weighted(0.7, vec(any::<u8>(), 0..20)),
        0..40,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn disk_and_memory_give_the_same_answers(
        ingestions in vec((changes(), 0u8..6), 1..10),
        spans in vec((key(), key()), 1..6),
    ) {
        let (place, mut disk) = disk();
        let memory = MapStore::new();
        ingest(&memory, 0, &Changes::new()).unwrap();
        for (lsn, (changes, action)) in ingestions.iter().enumerate() {
            for store in [&disk as &dyn Store, &memory] {
                prop_assert_eq!(ingest(store, lsn as u64, changes), Ok(true));
            }
            match action {
                0 => disk.reopen().unwrap(),
                1 => {
                    drop(disk);
                    disk = open(&place).unwrap();
                }
                2 => while disk.relieve().unwrap() {},
                _ => {}
            }
            prop_assert_eq!(disk.meta().unwrap(), memory.meta().unwrap());
            prop_assert_eq!(all(&disk), all(&memory));
            for (from, to) in &spans {
                let [a, b] = [&disk as &dyn Store, &memory]
                    .map(|store| store.scan(from, to).collect::<Vec<_>>());
                prop_assert_eq!(a, b);
                prop_assert_eq!(disk.get(from).unwrap(), memory.get(from).unwrap());
            }
        }
    }
}

#[test]
fn an_unfinished_ingestion_leaves_nothing() {
    let (place, disk) = disk();
    ingest(&disk, 1, &put(b"a", b"1")).unwrap();
    let files = tables(&place).len();
    let before = all(&disk);
    let abandoned = disk.ingest(&mut |rows| {
        give(rows, &put(b"a", b"2"))?;
        Ok(Finish::Abandon)
    });
    assert_eq!(abandoned, Ok(false));
    assert!(disk.needs_reopen());
    assert!(
        ingest(&disk, 2, &put(b"a", b"2"))
            .unwrap_err()
            .to_string()
            .contains("reopened")
    );
    disk.reopen().unwrap();
    let failed = disk.ingest(&mut |rows| {
        give(rows, &put(b"a", b"3"))?;
        Err(StoreError::Full)
    });
    assert_eq!(failed, Err(StoreError::Full));
    assert_eq!(all(&disk), before);
    assert!(tables(&place).len() > files);
    drop(disk);
    let disk = open(&place).unwrap();
    assert_eq!(
        (all(&disk), disk.meta().unwrap()),
        (before, Some(meta_at(1)))
    );
    assert_eq!(tables(&place).len(), files);
}

/// What a killed process leaves: the files as they are at this moment.
fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), &to).unwrap();
        }
    }
}

#[test]
fn a_killed_process_leaves_all_of_an_ingestion_or_nothing() {
    let (place, disk) = disk();
    let path = place.path().join("store");
    let killed = |name: &str| {
        let copy = place.path().join(name);
        copy_folder(&path, &copy);
        FjallStore::open(&copy, StoreOptions::default()).unwrap()
    };
    ingest(&disk, 1, &put(b"a", b"1")).unwrap();
    let rows: Changes = (0..5_000u32).map(|i| (be(i), Some(vec![7; 100]))).collect();
    let finished = disk.ingest(&mut |ingestion| {
        give(ingestion, &rows)?;
        let in_the_middle = killed("middle");
        assert_eq!(in_the_middle.meta()?, Some(meta_at(1)));
        assert_eq!(all(&in_the_middle).len(), 1);
        Ok(Finish::With(meta_at(2)))
    });
    assert_eq!(finished, Ok(true));
    let after = killed("after");
    assert_eq!(
        (after.meta().unwrap(), all(&after).len()),
        (Some(meta_at(2)), 5_001)
    );
}

#[test]
fn rows_without_a_position_leave_the_position() {
    let (_place, disk) = disk();
    for store in [&disk as &dyn Store, &MapStore::new()] {
        ingest(store, 7, &put(b"a", b"1")).unwrap();
        let hints = store.ingest(&mut |rows| {
            give(rows, &put(b"b", b""))?;
            Ok(Finish::Rows)
        });
        assert_eq!(hints, Ok(true));
        assert_eq!(store.meta().unwrap(), Some(meta_at(7)));
        assert_eq!(store.get(b"b").unwrap().as_deref(), Some(b"".as_slice()));
    }
}

#[test]
fn an_ingestion_may_run_inside_another() {
    let (place, disk) = disk();
    let finished = disk.ingest(&mut |rows| {
        give(rows, &put(b"a", b"outer"))?;
        let inner = disk.ingest(&mut |rows| {
            give(rows, &put(b"z", b"inner"))?;
            Ok(Finish::Rows)
        });
        assert_eq!(inner, Ok(true));
        Ok(Finish::With(meta_at(1)))
    });
    assert_eq!(finished, Ok(true));
    drop(disk);
    let disk = open(&place).unwrap();
    assert_eq!(
        disk.get(b"a").unwrap().as_deref(),
        Some(b"outer".as_slice())
    );
    assert_eq!(
        disk.get(b"z").unwrap().as_deref(),
        Some(b"inner".as_slice())
    );
}

#[test]
fn a_hundred_ingestions_back_to_back_stay_shallow_and_keep_the_last() {
    let (place, disk) = disk();
    let rounds = 100u64;
    for round in 1..=rounds {
        let changes = (0..200u32)
            .map(|i| {
                let key = [
                    &[1],
                    (i * 7919 + round as u32 * 31).to_be_bytes().as_slice(),
                ]
                .concat();
                (key, Some(round.to_le_bytes().to_vec()))
            })
            .chain([(b"hot".to_vec(), Some(round.to_le_bytes().to_vec()))])
            .chain([(b"gone".to_vec(), (round < rounds).then(Vec::new))])
            .collect();
        while disk.depth() > 4 {
            disk.relieve().unwrap();
        }
        assert_eq!(ingest(&disk, round, &changes), Ok(true));
        assert_eq!(
            disk.get(b"hot").unwrap().as_deref(),
            Some(round.to_le_bytes().as_slice())
        );
    }
    let rows = all(&disk);
    drop(disk);
    let disk = open(&place).unwrap();
    assert_eq!(all(&disk), rows);
    assert_eq!(disk.meta().unwrap(), Some(meta_at(rounds)));
    assert_eq!(disk.get(b"gone").unwrap(), None);
    assert_eq!(disk.get(b"never").unwrap(), None);
}

#[test]
fn a_scan_sees_one_moment_and_reopening_waits_for_it() {
    let (_place, disk) = disk();
    let rows: Changes = (0..2_000u32).map(|i| (be(i), Some(vec![0; 50]))).collect();
    ingest(&disk, 1, &rows).unwrap();
    let mut scan = disk.scan(&be(0), &be(2_000));
    let gone: Changes = (0..2_000u32).map(|i| (be(i), None)).collect();
    ingest(&disk, 2, &gone).unwrap();
    let scanned = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let scanned = &scanned;
        scope.spawn(move || {
            assert_eq!(scan.by_ref().filter(Result::is_ok).count(), 2_000);
            scanned.store(true, Ordering::SeqCst);
            drop(scan);
        });
        disk.reopen().unwrap();
        assert!(scanned.load(Ordering::SeqCst));
    });
    assert_eq!(all(&disk), []);
}

fn be(number: u32) -> Vec<u8> {
    [&[1], number.to_be_bytes().as_slice()].concat()
}

#[test]
#[should_panic(expected = "must ascend")]
fn rows_out_of_order_are_a_bug() {
    let _ = MapStore::new().ingest(&mut |rows| {
        rows.put(b"b", b"")?;
        rows.put(b"a", b"")?;
        Ok(Finish::Abandon)
    });
}

#[test]
fn a_store_is_made_once_and_opened_by_one() {
    let (place, disk) = disk();
    let path = place.path().join("store");
    assert!(FjallStore::create(&path, StoreOptions::default(), &meta_at(0)).is_err());
    assert!(open_error(&place).contains("another process"));
    drop(disk);
    open(&place).unwrap();
}

/// Flips a bit of the largest table, and returns the file.
fn flip(place: &TempDir, at: usize) -> std::path::PathBuf {
    let table = tables(place)
        .into_iter()
        .max_by_key(|file| file.metadata().unwrap().len());
    let table = table.unwrap().canonicalize().unwrap();
    let mut bytes = fs::read(&table).unwrap();
    bytes[at] ^= 0x10;
    fs::write(&table, bytes).unwrap();
    table
}

#[test]
fn a_flipped_bit_among_deadlines_hides_those_beside_it_alone() {
    let (place, disk) = disk();
    let deadline = |at_ms| {
        let of = DeadlineOf::Key;
        RowKey::Deadline {
            at_ms,
            slot: 1,
            database: 0,
            key: b"key",
            of,
        }
        .encode()
    };
    // The first of them long after the beginning of time, the others not one each ms.
    let times = (0..20_000_u64).map(|i| 1_700_000_000_000 + 10 * i);
    let rows: Changes = times
        .map(|at_ms| (deadline(at_ms), Some(Vec::new())))
        .collect();
    ingest(&disk, 1, &rows).unwrap();
    drop(disk);
    for at in [1_000, 30_000] {
        flip(&place, at);
        let disk = open(&place).unwrap();
        let found: Result<Vec<_>, _> = DeadlineRows::between(&disk, 0, u64::MAX).collect();
        let found = found.unwrap().len();
        assert!((19_000..20_000).contains(&found), "{found} of 20,000");
        drop(disk);
        flip(&place, at);
    }
}

#[test]
fn a_flipped_bit_in_a_row_is_damage_with_its_file() {
    let (place, disk) = disk();
    let rows: Changes = (0..5_000u32)
        .map(|i| (be(i), Some(i.to_le_bytes().to_vec())))
        .collect();
    ingest(&disk, 1, &rows).unwrap();
    drop(disk);
    let table = flip(&place, 1_000);
    let disk = open(&place).unwrap();
    let error = disk.get(&be(5)).unwrap_err();
    assert!(
        matches!(&error, StoreError::Damaged { file, .. } if *file == table),
        "{error}"
    );
    let error = disk.scan(&be(0), &be(5_000)).find_map(Result::err).unwrap();
    assert!(
        matches!(&error, StoreError::Damaged { file, .. } if *file == table),
        "{error}"
    );
    assert!(disk.get(&be(4_999)).unwrap().is_some());
}

#[test]
fn a_damaged_or_lost_file_of_fjall_is_named_and_nothing_is_deleted() {
    let names = |path: &Path| {
        let mut names: Vec<_> = fs::read_dir(path)
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect();
        names.sort();
        names
    };
    let (place, disk) = disk();
    ingest(&disk, 1, &put(b"a", b"1")).unwrap();
    drop(disk);
    let rows = place.path().join("store/keyspaces/1");
    let current = rows.join("current");
    let pointer = fs::read(&current).unwrap();
    let version = rows.join(format!("v{}", pointer[0]));
    for file in [&place.path().join("store/version"), &current, &version] {
        let kept = fs::read(file).unwrap();
        fs::remove_file(file).unwrap();
        let before = names(&rows.join("tables"));
        assert!(open_error(&place).contains(&format!("{} is damaged", file.display())));
        assert_eq!(names(&rows.join("tables")), before);
        fs::write(file, kept).unwrap();
    }
    let kept = fs::read(&version).unwrap();
    for at in 0..kept.len() {
        let mut bytes = kept.clone();
        bytes[at] ^= 1;
        fs::write(&version, bytes).unwrap();
        assert!(open_error(&place).contains("its checksum is wrong"));
    }
    fs::write(&version, kept).unwrap();
    let table = tables(&place).pop().unwrap();
    let kept = fs::read(&table).unwrap();
    fs::remove_file(&table).unwrap();
    assert!(open_error(&place).contains("is damaged"));
    fs::write(&table, kept).unwrap();
    assert_eq!(all(&open(&place).unwrap()).len(), 1);
}

#[test]
fn a_store_that_is_written_anew_gives_back_what_was_removed() {
    let (place, store) = disk();
    let key = |number: u32| [&[0, 1, 1][..], &number.to_be_bytes()].concat();
    let value = |number: u32| {
        let bytes = (0..500).map(|at| (number.wrapping_mul(at + 7).wrapping_mul(at) >> 3) as u8);
        bytes.collect::<Vec<u8>>()
    };
    let rows: Changes = (0..2_000).map(|n| (key(n), Some(value(n)))).collect();
    let gone: Changes = (0..1_800).map(|n| (key(n), None)).collect();
    assert_eq!(ingest(&store, 1, &rows), Ok(true));
    assert_eq!(ingest(&store, 2, &gone), Ok(true));
    let before = store.disk_bytes();
    store.shrink().unwrap();
    assert!(
        store.disk_bytes() < before / 5,
        "{before}, {}",
        store.disk_bytes()
    );
    assert!(!store.needs_reopen() && !store.is_full());
    let left = |store: &FjallStore| {
        let rows = all(store);
        assert_eq!(store.meta().unwrap(), Some(meta_at(2)));
        rows.len()
    };
    assert_eq!(left(&store), 200);
    drop(store);
    assert_eq!(left(&open(&place).unwrap()), 200);
}
