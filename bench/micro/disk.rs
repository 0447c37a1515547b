//! The parts at the disk: log, checkpoint, cold reads.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use tallyman::keyspace::codec::put_value;
use tallyman::keyspace::{Cold, Key, ValueRef};
use tallyman::log::disk::RealDisk;
use tallyman::log::{Batch, Log, Manual, Options, alone_bytes};
use tallyman::residency::StoredKeys;
use tallyman::shard::mailbox::{Message, SweepSlice, SweepStep};
use tallyman::store::checkpoint;
use tallyman::store::{
    Deep, FjallStore, KeyOf, Meta, RowChange, RowKey, Slice, Store, StoreOptions, Sweep,
};

use crate::folder;
use crate::single::{Numbers, Single};

/// Payload of a turn with one INCR, about.
const PAYLOAD_BYTES: usize = 40;
const APPENDS: u64 = 256;
const SEED: u64 = 7;
/// Counters in the store.
const STORED: u64 = 200_000;
/// Changed counters per checkpoint.
const CHANGED: u64 = 20_000;
/// Commands per connection in a turn that makes keys dirty.
const PIPELINE: usize = 256;

/// A log that is driven by hand.
fn log(place: &Path) -> (Log, Manual) {
    let time_us = AtomicU64::new(0);
    let clock = Arc::new(move || time_us.fetch_add(1, Ordering::Relaxed));
    let disk = Arc::new(RealDisk::default());
    Log::manual(disk, place, Options::new(SEED, clock)).expect("an empty log opens")
}

/// Reserves the space of a batch, which is prepared if it is not there.
fn batch(log: &Log, manual: &mut Manual, payload: &Bytes) -> Batch {
    let reserved_bytes = alone_bytes(payload.len() as u64);
    while !log.reserve(reserved_bytes) {
        manual.step().expect("the disk works");
    }
    Batch {
        parts: vec![payload.clone()],
        time_ms: 1,
        reserved_bytes,
    }
}

/// What a shard's thread does: the batch goes into the queue.
pub fn log_append(criterion: &mut Criterion) {
    let place = folder();
    let (log, mut manual) = log(&place.path().join("log"));
    let payload = Bytes::from(vec![b'x'; PAYLOAD_BYTES]);
    let mut group = criterion.benchmark_group("log append");
    group.throughput(Throughput::Elements(APPENDS));
    group.bench_function("batch of 40 bytes", |bencher| {
        bencher.iter_custom(|iterations| {
            let mut total = Duration::ZERO;
            for _ in 0..iterations {
                let batches: Vec<Batch> = (0..APPENDS)
                    .map(|_| batch(&log, &mut manual, &payload))
                    .collect();
                let began = Instant::now();
                for batch in batches {
                    black_box(log.append(batch));
                }
                total += began.elapsed();
                manual.run().expect("the disk works");
                log.trim(log.durable_lsn());
            }
            total
        });
    });
    group.finish();
}

/// What the log's thread does: one record and one sync for all batches that queued.
pub fn group_commit(criterion: &mut Criterion) {
    let place = folder();
    let (log, mut manual) = log(&place.path().join("log"));
    let payload = Bytes::from(vec![b'x'; PAYLOAD_BYTES]);
    let mut group = criterion.benchmark_group("group commit");
    for size in [1_u64, 4, 16, 64, 256, 1024] {
        group.throughput(Throughput::Elements(size));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter_custom(|iterations| {
                let mut total = Duration::ZERO;
                for _ in 0..iterations {
                    for _ in 0..size {
                        let batch = batch(&log, &mut manual, &payload);
                        log.append(batch);
                    }
                    let last = log.last_lsn();
                    let began = Instant::now();
                    while log.durable_lsn() < last {
                        manual.step().expect("the disk works");
                    }
                    total += began.elapsed();
                    log.trim(last);
                }
                total
            });
        });
    }
    group.finish();
}

/// The shard's side of a checkpoint, per changed key: rows of all that is dirty.
pub fn checkpoint_of_a_shard(criterion: &mut Criterion) {
    let place = folder();
    let mut single = Single::start(&place.path().join("log"));
    let requests = single.turns("INCR counter:#", 1, PIPELINE).swap_remove(0);
    let rows = sweep(&mut single);
    let mut group = criterion.benchmark_group("checkpoint");
    group.throughput(Throughput::Elements(rows));
    group.bench_function("rows of a shard", |bencher| {
        bencher.iter_custom(|iterations| {
            let mut total = Duration::ZERO;
            for _ in 0..iterations {
                single.turn(&requests);
                single.trim();
                let began = Instant::now();
                assert_eq!(sweep(&mut single), rows);
                total += began.elapsed();
            }
            total
        });
    });
    group.finish();
}

/// One whole sweep; how many rows it gave.
fn sweep(single: &mut Single) -> u64 {
    let mut rows = 0;
    let mut step = |step: SweepStep| -> SweepSlice {
        let (sender, receiver) = channel();
        single.worker.message(Message::Sweep(step, sender));
        receiver.recv().expect("the shard answers")
    };
    step(SweepStep::Begin);
    loop {
        let slice = step(SweepStep::Next);
        rows += black_box(slice.slice.rows).len() as u64;
        if slice.complete {
            break;
        }
    }
    step(SweepStep::Finished(true));
    rows
}

/// The row of a counter.
fn row(number: u64, value: i64) -> RowChange {
    let name = format!("counter:{number:012}");
    let key = Key::new(name.as_bytes(), SEED);
    let mut bytes = Vec::new();
    put_value(&mut bytes, ValueRef::Counter(value), 0);
    RowChange {
        key: RowKey::Main(KeyOf {
            slot: key.slot,
            database: 0,
            hash: key.hash32(),
            key: key.bytes,
        })
        .encode(),
        value: Some(bytes.into()),
    }
}

/// Rows of these counters, in the store's order.
fn rows(numbers: impl Iterator<Item = u64>, value: i64) -> Slice {
    let mut rows: Vec<RowChange> = numbers.map(|number| row(number, value)).collect();
    rows.sort_unstable_by(|one, other| one.key.cmp(&other.key));
    rows.dedup_by(|one, other| one.key == other.key);
    Slice {
        rows,
        ..Slice::default()
    }
}

/// Gives one slice.
struct OneSlice(Option<Slice>);

impl Sweep for OneSlice {
    fn begin(&mut self) -> Result<Meta, String> {
        Ok(meta())
    }

    fn next(&mut self) -> Result<Option<Slice>, String> {
        Ok(self.0.take())
    }

    fn wait_durable(&mut self) -> Result<u64, String> {
        Ok(0)
    }

    fn finished(&mut self, ok: bool) {
        assert!(ok);
    }
}

fn meta() -> Meta {
    Meta {
        databases: vec![0],
        next_database_id: 1,
        ..Meta::default()
    }
}

/// A store with all counters.
fn store(place: &Path) -> FjallStore {
    let path = place.join("store");
    let store = FjallStore::create(&path, StoreOptions::default(), &meta()).expect("a new store");
    run(&store, rows(0..STORED, 1));
    store
}

fn run(store: &FjallStore, slice: Slice) {
    let deep = &mut |_| Deep::Proceed;
    checkpoint::run(store, &mut OneSlice(Some(slice)), Vec::new(), deep).expect("the disk works");
}

/// The store's side of a checkpoint, per row: sorted ingestion of random keys.
pub fn checkpoint_into_the_store(criterion: &mut Criterion) {
    let place = folder();
    let store = store(place.path());
    let mut numbers = Numbers(1);
    let mut value = 1;
    let mut group = criterion.benchmark_group("checkpoint");
    group.sample_size(10);
    group.throughput(Throughput::Elements(CHANGED));
    group.bench_function("rows into the store", |bencher| {
        bencher.iter_custom(|iterations| {
            let mut total = Duration::ZERO;
            for _ in 0..iterations {
                value += 1;
                let slice = rows((0..CHANGED).map(|_| numbers.below(STORED)), value);
                while store.relieve().expect("the disk works") {}
                let began = Instant::now();
                run(&store, slice);
                total += began.elapsed();
            }
            total
        });
    });
    group.finish();
}

/// A key that is not in memory; the table's blocks are in the page cache or in the store's own.
pub fn cold_read(criterion: &mut Criterion) {
    let place = folder();
    let store = store(place.path());
    while store.relieve().expect("the disk works") {}
    let keys = StoredKeys::new(Arc::new(store));
    let mut numbers = Numbers(1);
    let mut group = criterion.benchmark_group("cold read");
    group.throughput(Throughput::Elements(1));
    for (name, prefix) in [
        ("a counter", "counter"),
        ("a key that is not there", "nobody"),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let name = format!("{prefix}:{:012}", numbers.below(STORED));
                let found = keys.find(0, &Key::new(name.as_bytes(), SEED), true);
                let found = found.expect("the disk works");
                assert_eq!(found.is_some(), prefix == "counter");
                found
            });
        });
    }
    group.finish();
}
