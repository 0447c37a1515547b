//! Tests of checkpoints with shards that say what they are told to say, over the store in memory.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;

use super::*;
use crate::clock::ManualClock;
use crate::log::sim_disk::SimDisk;
use crate::log::{Manual, Options};
use crate::store::checkpoint::RowChange;
use crate::store::row::{DeadlineOf, KeyOf, RowKey, everything};
use crate::store::{Finish, MapStore};

const START_MS: u64 = 1_800_000_000_000;
const SEED: u64 = 5;

/// One shard.
#[derive(Default)]
struct Shard {
    databases: (Vec<u32>, u32),
    expired_until_ms: u64,
    slices: Vec<Slice>,
    /// How sweeps ended.
    finished: Vec<bool>,
    /// A second shard, which has ended, is asked as well.
    with_dead_peer: bool,
    /// Who was told how a checkpoint ended.
    told: Vec<(ConnId, Result<(), String>)>,
}

impl Shards for Arc<Mutex<Shard>> {
    fn count(&self) -> usize {
        1 + usize::from(self.lock().unwrap().with_dead_peer)
    }

    fn ask(&self, id: ShardId, step: SweepStep) -> Result<SweepSlice, String> {
        let mut shard = self.lock().unwrap();
        if id > 0 {
            return Err("it has ended".to_owned());
        }
        let mut slice = SweepSlice::default();
        match step {
            SweepStep::Begin => {
                slice.databases = Some(shard.databases.clone());
                slice.expired_until_ms = shard.expired_until_ms;
            }
            SweepStep::Next => {
                slice.slice = shard.slices.pop().unwrap_or_default();
                slice.complete = shard.slices.is_empty();
            }
            SweepStep::Finished(stored) => shard.finished.push(stored),
        }
        Ok(slice)
    }

    fn tell(&self, _: ShardId, conn: ConnId, result: Result<(), String>) {
        self.lock().unwrap().told.push((conn, result));
    }
}

struct Rig {
    store: Arc<MapStore>,
    shard: Arc<Mutex<Shard>>,
    tools: Tools<Arc<Mutex<Shard>>>,
    _manual: Manual,
}

impl Rig {
    fn new(store: Arc<MapStore>) -> Rig {
        let mut options = Options::new(1, Arc::new(|| 0));
        options.segment_bytes = 256 * 1024;
        let (log, manual) = Log::manual(SimDisk::new(1).disk(), Path::new("log"), options).unwrap();
        let shard = Shard {
            databases: (vec![0, 1], 2),
            ..Shard::default()
        };
        let shard = Arc::new(Mutex::new(shard));
        let tools = Tools {
            store: store.clone(),
            log,
            clock: ManualClock::new(START_MS).clock(0),
            shards: shard.clone(),
            tokens: TokenSource::above(0),
            dead: Dead::new(Databases::new(2), false),
            past_ms: 0..0,
            stuck: BTreeSet::new(),
            seed: SEED,
            progress: Arc::default(),
            ballast: Ballast::none(),
            may_shrink: false,
            ending: Arc::default(),
        };
        Rig {
            store,
            shard,
            tools,
            _manual: manual,
        }
    }

    fn rows(&self) -> Vec<Vec<u8>> {
        let (from, to) = everything();
        let rows = self.store.scan(&from, &to);
        rows.map(|row| row.unwrap().0.to_vec()).collect()
    }
}

fn filled(rows: &[Vec<u8>]) -> Arc<MapStore> {
    let store = MapStore::new();
    let filled = store.ingest(&mut |ingestion| {
        for row in rows {
            ingestion.put(row, b"v")?;
        }
        Ok(Finish::Rows)
    });
    assert_eq!(filled, Ok(true));
    Arc::new(store)
}

fn of(slot: u16, database: u32, key: &[u8]) -> KeyOf<'_> {
    KeyOf {
        slot,
        database,
        hash: 7,
        key,
    }
}

fn main_row(slot: u16, database: u32, key: &[u8]) -> Vec<u8> {
    RowKey::Main(of(slot, database, key)).encode()
}

fn deadline_row(at_ms: u64, database: u32, key: &[u8]) -> Vec<u8> {
    RowKey::Deadline {
        at_ms,
        slot: 1,
        database,
        key,
        of: DeadlineOf::Key,
    }
    .encode()
}

#[test]
fn a_million_flushes_between_two_checkpoints_are_one_look_for_dead_rows() {
    let rows = [
        main_row(1, 0, b"flushed"),
        main_row(2, 1, b"lives"),
        main_row(3, 1_500_000, b"flushed"),
        main_row(4, 2_000_000, b"lives"),
        deadline_row(START_MS + 1, 0, b"flushed"),
        deadline_row(START_MS + 1, 1, b"lives"),
    ];
    let mut rig = Rig::new(filled(&rows));
    rig.shard.lock().unwrap().databases = (vec![2_000_000, 1], 2_000_001);
    rig.tools.run(true).unwrap();
    let meta = rig.store.meta().unwrap().unwrap();
    assert_eq!(meta.next_database_id, 2_000_001);
    assert!(meta.dead_databases, "their rows are still there");
    assert_eq!(rig.rows(), rows);
    rig.tools.run(true).unwrap();
    assert_eq!(rig.rows(), [1, 3, 5].map(|row: usize| rows[row].clone()));
    rig.tools.run(true).unwrap();
    let meta = rig.store.meta().unwrap().unwrap();
    assert!(!meta.dead_databases, "nothing is left to be removed");
}

#[test]
fn rows_that_cannot_be_read_keep_no_checkpoint_from_being_made() {
    let retired = |slot, generation| {
        let of = of(slot, 1, b"hash");
        RowKey::Retired { of, generation }.encode()
    };
    let rows = [
        main_row(1, 0, b"flushed"),
        retired(2, 5),
        retired(2, 6),
        main_row(3, 0, b"flushed"),
        retired(3, 7),
        deadline_row(START_MS + 1, 1, b"lives"),
        deadline_row(START_MS + 2, 0, b"flushed"),
    ];
    let store = filled(&rows);
    store.damage(&rows[1]);
    // Behind a row that is no slot's.
    store.damage(&rows[6]);
    let mut rig = Rig::new(store);
    rig.tools.dead = Dead::new(Databases::new(2), true);
    rig.tools.dead.follow(Databases::restored(vec![1, 2], 3, 2));
    rig.shard.lock().unwrap().databases = (vec![1, 2], 3);
    for _ in 0..3 {
        rig.shard.lock().unwrap().slices = vec![Slice {
            rows: vec![RowChange {
                key: main_row(9, 1, b"written"),
                value: Some(bytes::Bytes::from_static(b"v")),
            }],
            ..Slice::default()
        }];
        assert_eq!(rig.tools.run(true), Ok(()));
    }
    let written = main_row(9, 1, b"written");
    let [_, stuck, behind, _, _, lives, late] = rows;
    let kept = [stuck, behind, written, lives, late];
    let (from, to) = everything();
    let rows: Vec<_> = rig.store.scan(&from, &to).collect();
    assert_eq!(rows.len(), kept.len());
    for (found, kept) in rows.into_iter().zip(&kept) {
        assert_eq!(found.map_or(kept.clone(), |(key, _)| key.to_vec()), *kept);
    }
    let meta = rig.store.meta().unwrap().unwrap();
    assert!(meta.dead_databases, "what was passed over may be dead");
}

#[test]
fn a_sweep_that_begins_in_some_shards_alone_ends_in_them() {
    let mut rig = Rig::new(filled(&[]));
    rig.shard.lock().unwrap().with_dead_peer = true;
    assert!(rig.tools.run(true).is_err());
    assert_eq!(rig.shard.lock().unwrap().finished, [false]);
    rig.shard.lock().unwrap().with_dead_peer = false;
    assert_eq!(rig.tools.run(true), Ok(()));
    assert_eq!(rig.shard.lock().unwrap().finished, [false, true]);
}

#[test]
fn deadlines_that_are_over_go_but_for_those_of_keys_that_are_stuck() {
    let over = |key| deadline_row(START_MS - 1, 1, key);
    let rows = [over(b"a"), over(b"b"), over(b"c")];
    let store = filled(&rows);
    let mut rig = Rig::new(store.clone());
    rig.tools.past_ms = 0..START_MS;
    rig.tools.stuck = BTreeSet::from([(1, 1, key_hash32(b"b", SEED))]);
    assert_eq!(rig.tools.run(true), Ok(()));
    let left = rows.each_ref().map(|row| store.get(row).unwrap().is_some());
    assert_eq!(left, [false, true, false]);
}

#[test]
fn deadlines_that_are_over_go_but_for_those_that_cannot_be_read() {
    let over = |before_ms| deadline_row(START_MS - before_ms, 1, b"key");
    let rows = [over(300), over(200), over(100)];
    let store = filled(&rows);
    store.damage(&rows[1]);
    let mut rig = Rig::new(store.clone());
    rig.tools.past_ms = 0..START_MS;
    assert_eq!(rig.tools.run(true), Ok(()));
    let left = rows.each_ref().map(|row| store.get(row) != Ok(None));
    assert_eq!(left, [false, true, false]);
}

#[test]
fn the_last_checkpoint_reads_nothing_that_it_need_not_have() {
    let rows = [
        main_row(1, 0, b"flushed"),
        deadline_row(START_MS - 1, 1, b"over"),
    ];
    let store = filled(&rows);
    let mut rig = Rig::new(store.clone());
    rig.tools.past_ms = 0..START_MS;
    rig.shard.lock().unwrap().databases = (vec![2, 1], 3);
    rig.tools.dead.follow(Databases::restored(vec![2, 1], 3, 2));
    rig.tools.ending.store(true, Ordering::SeqCst);
    store.damage(&rows[0]);
    store.damage(&rows[1]);
    store.set_depth(1_000);
    assert_eq!(rig.tools.run(false), Ok(()));
    assert_eq!(store.reads(), 0);
    assert_eq!(store.depth(), 1_000, "nor does it wait for compaction");
    assert!(rig.store.meta().unwrap().unwrap().dead_databases);
}

#[test]
fn who_asks_while_the_server_is_to_end_is_answered_when_it_goes_on_after_all() {
    let rig = Rig::new(filled(&[]));
    let mut checkpoints = Checkpoints::start(rig.tools).unwrap();
    let told = || rig.shard.lock().unwrap().told.clone();
    let askers = [7, 8].map(|client| ConnId { index: 0, client });
    checkpoints.hurry(true);
    for conn in askers {
        checkpoints.ask(Request::Checkpoint(vec![(0, conn)]));
    }
    // What was asked for before it has been looked at then.
    drop(checkpoints.holder().hold());
    assert_eq!(told(), [], "they wait for the last one");
    checkpoints.hurry(false);
    drop(checkpoints.holder().hold());
    assert_eq!(told(), askers.map(|conn| (conn, Ok(()))));
    // It was not to end any more: nothing was left.
    checkpoints.hurry(false);
    checkpoints.end();
    assert_eq!(rig.shard.lock().unwrap().finished, [true]);
}
