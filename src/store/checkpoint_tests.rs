//! Tests of the checkpoint against the store in memory, with a sweep that writes down what happens.

use super::*;
use crate::store::{DeadlineOf, Fault, KeyOf, MapStore, RowKey};

#[derive(Default)]
struct TestSweep {
    slices: Vec<Slice>,
    fail_at: Option<usize>,
    log_ends: bool,
    begun: usize,
    waited: usize,
    finished: Vec<bool>,
}

impl Sweep for TestSweep {
    fn begin(&mut self) -> Result<Meta, String> {
        self.begun += 1;
        Ok(Meta {
            lsn: 42,
            rows_lsn: 42,
            ..Meta::default()
        })
    }

    fn next(&mut self) -> Result<Option<Slice>, String> {
        if self.fail_at == Some(self.slices.len()) {
            return Err("a shard ended".into());
        }
        Ok((!self.slices.is_empty()).then(|| self.slices.remove(0)))
    }

    fn wait_durable(&mut self) -> Result<u64, String> {
        self.waited += 1;
        if self.log_ends {
            Err("the log ended".into())
        } else {
            // Shards went on meanwhile.
            Ok(42 + self.waited as u64)
        }
    }

    fn finished(&mut self, ok: bool) {
        self.finished.push(ok);
    }
}

fn main_row(slot: u16, key: &[u8]) -> Vec<u8> {
    RowKey::Main(KeyOf {
        slot,
        database: 0,
        hash: 7,
        key,
    })
    .encode()
}

fn deadline(at_ms: u64, key: &[u8]) -> Vec<u8> {
    RowKey::Deadline {
        at_ms,
        slot: 1,
        database: 0,
        key,
        of: DeadlineOf::Key,
    }
    .encode()
}

fn set(key: Vec<u8>) -> RowChange {
    let value = if key.as_slice() < row::DEADLINES_BEGIN {
        "v"
    } else {
        ""
    };
    RowChange {
        key,
        value: Some(Bytes::from_static(value.as_bytes())),
    }
}

fn remove(key: Vec<u8>) -> RowChange {
    RowChange { key, value: None }
}

fn count_row(slot: u16) -> Vec<u8> {
    RowKey::Count { slot, database: 0 }.encode()
}

fn two_slices() -> Vec<Slice> {
    vec![
        Slice {
            rows: vec![set(main_row(1, b"a")), set(main_row(1, b"b"))],
            deadlines: vec![set(deadline(9, b"b")), remove(deadline(3, b"b"))],
            counts: vec![set(count_row(1))],
        },
        Slice {
            rows: vec![remove(main_row(2, b"c"))],
            deadlines: vec![remove(deadline(5, b"x")), set(deadline(5, b"x"))],
            counts: vec![set(count_row(2))],
        },
    ]
}

fn no_wait(_: Depth) -> Deep {
    panic!("the store is not deep")
}

fn keys(store: &MapStore) -> Vec<Vec<u8>> {
    let (from, to) = row::everything();
    store
        .scan(&from, &to)
        .map(|row| row.unwrap().0.to_vec())
        .collect()
}

#[test]
fn rows_and_deadlines_arrive_with_their_position() {
    let store = MapStore::new();
    let old = [set(main_row(2, b"c")), set(deadline(3, b"b"))].to_vec();
    let (rows, deadlines) = (old[..1].to_vec(), old[1..].to_vec());
    let mut sweep = TestSweep {
        slices: vec![Slice {
            rows,
            deadlines,
            counts: Vec::new(),
        }],
        ..TestSweep::default()
    };
    run(&store, &mut sweep, Stale::default(), &mut no_wait).unwrap();
    assert_eq!(keys(&store), [main_row(2, b"c"), deadline(3, b"b")]);

    let mut sweep = TestSweep {
        slices: two_slices(),
        ..TestSweep::default()
    };
    let outcome = run(&store, &mut sweep, Stale::default(), &mut no_wait).unwrap();
    let expected = [
        main_row(1, b"a"),
        main_row(1, b"b"),
        count_row(1),
        count_row(2),
        deadline(5, b"x"),
        deadline(9, b"b"),
    ];
    assert_eq!(keys(&store), expected);
    let meta = store.meta().unwrap().unwrap();
    assert_eq!((meta.lsn, meta.rows_lsn), (42, 43));
    assert_eq!((outcome.rows_put, outcome.rows_deleted), (6, 2));
    assert_eq!(
        (sweep.begun, sweep.waited, sweep.finished),
        (1, 1, vec![true])
    );
}

#[test]
fn too_many_deadlines_go_by_themselves_once_the_log_is_durable() {
    let store = MapStore::new();
    let mut sweep = TestSweep {
        slices: two_slices(),
        ..TestSweep::default()
    };
    let outcome = run_bounded(&store, &mut sweep, Stale::default(), &mut no_wait, 1).unwrap();
    assert_eq!((outcome.deadline_ingestions, sweep.waited), (2, 3));
    let expected = [
        main_row(1, b"a"),
        main_row(1, b"b"),
        count_row(1),
        count_row(2),
        deadline(5, b"x"),
        deadline(9, b"b"),
    ];
    assert_eq!(keys(&store), expected);
}

#[test]
fn deadlines_that_went_by_themselves_raise_what_the_meta_row_says_of_rows() {
    let store = MapStore::new();
    let first = Meta {
        lsn: 40,
        rows_lsn: 41,
        ..Meta::default()
    };
    let made = store.ingest(&mut |_| Ok(Finish::With(first.clone())));
    assert_eq!(made, Ok(true));
    let mut sweep = TestSweep {
        slices: two_slices(),
        fail_at: Some(1),
        ..TestSweep::default()
    };
    run_bounded(&store, &mut sweep, Stale::default(), &mut no_wait, 1).unwrap_err();
    assert_eq!(keys(&store), [deadline(9, b"b")]);
    let raised = Meta {
        rows_lsn: 43,
        ..first
    };
    assert_eq!(store.meta().unwrap(), Some(raised));
}

#[test]
fn dead_rows_are_removed_between_the_others_and_give_way_to_them() {
    let store = MapStore::new();
    let all = [
        main_row(0, b"x"),
        main_row(1, b"a"),
        main_row(3, b"x"),
        main_row(4, b"y"),
    ];
    let rows = all.iter().cloned().map(set).collect();
    let slices = vec![Slice {
        rows,
        deadlines: vec![set(deadline(1, b"x"))],
        counts: Vec::new(),
    }];
    let mut sweep = TestSweep {
        slices,
        ..TestSweep::default()
    };
    run(&store, &mut sweep, Stale::default(), &mut no_wait).unwrap();

    let rows = vec![
        main_row(0, b"x"),
        main_row(1, b"a"),
        main_row(3, b"x"),
        deadline(1, b"x"),
    ];
    let stale = Stale {
        rows,
        ..Stale::default()
    };
    let mut sweep = TestSweep {
        slices: two_slices(),
        ..TestSweep::default()
    };
    run(&store, &mut sweep, stale, &mut no_wait).unwrap();
    let expected = [
        main_row(1, b"a"),
        main_row(1, b"b"),
        main_row(4, b"y"),
        count_row(1),
        count_row(2),
        deadline(5, b"x"),
        deadline(9, b"b"),
    ];
    assert_eq!(keys(&store), expected);
}

#[test]
fn a_failure_leaves_everything_dirty_and_the_next_checkpoint_repairs_it() {
    let faults = [
        Fault::FullAfter(0),
        Fault::FullAfter(3),
        Fault::FullAtFinish,
        Fault::CrashBeforeFinish,
        Fault::CrashAfterFinish,
    ];
    for fault in faults {
        let store = MapStore::new();
        store.fail_next(fault);
        let mut sweep = TestSweep {
            slices: two_slices(),
            ..TestSweep::default()
        };
        let error = run(&store, &mut sweep, Stale::default(), &mut no_wait).unwrap_err();
        assert!(matches!(error, CheckpointError::Store(_)), "{error}");
        assert_eq!(sweep.finished, [false]);
        let position = store.meta().unwrap().map(|meta| meta.lsn);
        let visible = fault == Fault::CrashAfterFinish;
        assert_eq!(
            (position, keys(&store).len()),
            if visible { (Some(42), 6) } else { (None, 0) }
        );

        let mut sweep = TestSweep {
            slices: two_slices(),
            ..TestSweep::default()
        };
        run(&store, &mut sweep, Stale::default(), &mut no_wait).unwrap();
        assert_eq!((keys(&store).len(), sweep.finished), (6, vec![true]));
    }
}

#[test]
fn a_sweep_or_a_log_that_ends_abandons_the_checkpoint() {
    for (fail_at, log_ends) in [(Some(1), false), (None, true)] {
        let store = MapStore::new();
        let mut sweep = TestSweep {
            slices: two_slices(),
            fail_at,
            log_ends,
            ..TestSweep::default()
        };
        let error = run(&store, &mut sweep, Stale::default(), &mut no_wait).unwrap_err();
        assert!(matches!(error, CheckpointError::Sweep(_)), "{error}");
        assert!(store.is_empty() && !store.needs_reopen());
        assert_eq!(sweep.finished, [false]);
    }
}

#[test]
fn a_deep_store_is_relieved_before_the_sweep_begins() {
    let store = MapStore::new();
    store.set_depth(STORE_DEPTH_MAX + 2);
    let mut asked = Vec::new();
    let mut sweep = TestSweep::default();
    run(&store, &mut sweep, Stale::default(), &mut |depth| {
        asked.push(depth.runs);
        Deep::Relieve
    })
    .unwrap();
    assert_eq!(asked, [STORE_DEPTH_MAX + 2, STORE_DEPTH_MAX + 1]);

    store.set_depth(STORE_DEPTH_MAX + 1);
    let mut sweep = TestSweep::default();
    let stopped = run(&store, &mut sweep, Stale::default(), &mut |_| Deep::Stop);
    assert_eq!(stopped, Err(CheckpointError::Stopped));
    assert_eq!((sweep.begun, sweep.finished.len()), (0, 0));
    run(&store, &mut sweep, Stale::default(), &mut |_| Deep::Proceed).unwrap();
}

#[test]
fn compaction_that_meets_damage_does_not_end_checkpoints() {
    let store = MapStore::new();
    store.set_depth(STORE_DEPTH_MAX + 2);
    store.damage_relief();
    let mut sweep = TestSweep {
        slices: two_slices(),
        ..TestSweep::default()
    };
    run(&store, &mut sweep, Stale::default(), &mut |_| Deep::Relieve).unwrap();
    assert_eq!((keys(&store).len(), sweep.finished), (6, vec![true]));
}

/// A store with deadline rows from 0 to `end_ms`, two for each ms.
fn due_until(end_ms: u64) -> MapStore {
    let store = MapStore::new();
    let rows = (0..end_ms).flat_map(|at_ms| [deadline(at_ms, b"a"), deadline(at_ms, b"b")]);
    let mut sweep = TestSweep {
        slices: vec![Slice {
            deadlines: rows.map(set).collect(),
            ..Slice::default()
        }],
        ..TestSweep::default()
    };
    run(&store, &mut sweep, Stale::default(), &mut no_wait).unwrap();
    store
}

#[test]
fn all_deadline_rows_that_are_over_are_removed_however_many() {
    for bytes_max in [1, CHECKPOINT_DEADLINE_BYTES_MAX] {
        let store = due_until(110_000);
        let stale = Stale {
            rows: vec![deadline(5, b"a"), deadline(109_999, b"b")],
            deadlines_ms: 0..109_998,
        };
        let mut sweep = TestSweep {
            slices: two_slices(),
            ..TestSweep::default()
        };
        let outcome = run_bounded(&store, &mut sweep, stale, &mut no_wait, bytes_max).unwrap();
        assert!(outcome.deadlines_removed);
        let expected = [
            main_row(1, b"a"),
            main_row(1, b"b"),
            count_row(1),
            count_row(2),
            deadline(5, b"x"),
            deadline(9, b"b"),
            deadline(109_998, b"a"),
            deadline(109_998, b"b"),
            deadline(109_999, b"a"),
        ];
        assert_eq!(keys(&store), expected);
    }
}

#[test]
fn deadline_rows_that_cannot_be_read_stay() {
    let store = due_until(100);
    store.damage(&deadline(50, b"a"));
    let stale = Stale {
        rows: Vec::new(),
        deadlines_ms: 0..80,
    };
    let mut sweep = TestSweep::default();
    let outcome = run(&store, &mut sweep, stale, &mut no_wait).unwrap();
    assert!(
        outcome.deadlines_removed,
        "the others are not looked at again"
    );
    // Also the other one of that time.
    assert_eq!((store.len(), outcome.rows_deleted), (43, 158));
}
