//! The log on a disk that fails: what was acknowledged is there, or the start is refused.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::segment::{SegmentHeader, SegmentKind};
use super::sim_disk::{Call, Keep, SimDisk};
use super::*;
use crate::limits::{LOG_EVERYSEC_US, LOG_WITNESS_AFTER_US};

mod copy;
mod model;

const SEGMENT_BYTES: u64 = 64 * 1024;
const BLOCK: u64 = 4096;

fn dir() -> &'static Path {
    Path::new("/data/log")
}

fn file(number: u64) -> PathBuf {
    dir().join(format!("segment-{number:08}"))
}

/// A log on a `SimDisk`, driven by hand, with what it was given and what it acknowledged.
struct Rig {
    disk: Arc<SimDisk>,
    clock: Arc<AtomicU64>,
    options: Options,
    fatals: Arc<AtomicUsize>,
    log: Log,
    manual: Manual,
}

fn options(clock: &Arc<AtomicU64>, fatals: &Arc<AtomicUsize>) -> Options {
    let (clock, fatals) = (clock.clone(), fatals.clone());
    let mut options = Options::new(0x5eed, Arc::new(move || clock.load(SeqCst)));
    options.segment_bytes = SEGMENT_BYTES;
    options.set_aside_bytes = SEGMENT_BYTES / 4;
    options.on_fatal = Arc::new(move |_| {
        fatals.fetch_add(1, SeqCst);
    });
    options
}

impl Rig {
    fn new() -> Rig {
        Rig::on(&SimDisk::new(1), SyncMode::Always).unwrap().0
    }

    fn on(disk: &Arc<SimDisk>, sync: SyncMode) -> Result<(Rig, Vec<Replayed>), Fatal> {
        Rig::from(disk, sync, Position::default())
    }

    fn from(
        disk: &Arc<SimDisk>,
        sync: SyncMode,
        known: impl Into<Known>,
    ) -> Result<(Rig, Vec<Replayed>), Fatal> {
        let (clock, fatals) = (Arc::new(AtomicU64::new(1)), Arc::new(AtomicUsize::new(0)));
        let options = Options {
            sync,
            ..options(&clock, &fatals)
        };
        let mut recovery = open(disk.disk(), dir(), options.clone(), known)?;
        let replayed = drain(&mut recovery)?;
        let (log, manual) = recovery.finish_manual()?;
        Ok((
            Rig {
                disk: disk.clone(),
                clock,
                options,
                fatals,
                log,
                manual,
            },
            replayed,
        ))
    }

    fn append(&self, text: &str) -> Lsn {
        self.log.append(batch(text.as_bytes()))
    }

    /// Appends and makes durable, each in a record of its own.
    fn commit(&mut self, texts: &[&str]) {
        for text in texts {
            let lsn = self.append(text);
            self.manual.run().unwrap();
            assert_eq!(self.log.durable_lsn(), lsn);
        }
    }

    fn advance_us(&self, us: u64) {
        self.clock.fetch_add(us, SeqCst);
    }
}

fn batch(payload: &[u8]) -> Batch {
    let middle = payload.len() / 2;
    let parts = [&payload[..middle], &payload[middle..]].map(Bytes::copy_from_slice);
    Batch {
        parts: parts.to_vec(),
        time_ms: 1_000,
        reserved_bytes: 0,
    }
}

fn drain(recovery: &mut Recovery) -> Result<Vec<Replayed>, Fatal> {
    let mut replayed = Vec::new();
    while let Some(batch) = recovery.next()? {
        replayed.push(batch);
    }
    Ok(replayed)
}

fn texts(replayed: &[Replayed]) -> Vec<String> {
    replayed
        .iter()
        .map(|r| String::from_utf8_lossy(&r.payload).into_owned())
        .collect()
}

/// What a start on this disk would replay.
fn reopened(disk: &Arc<SimDisk>) -> Result<Vec<String>, String> {
    match Rig::on(disk, SyncMode::Always) {
        Ok((_, replayed)) => Ok(texts(&replayed)),
        Err(fatal) => Err(fatal.to_string()),
    }
}

#[test]
fn batches_that_queue_together_become_one_record_with_one_sync_in_order() {
    let mut rig = Rig::new();
    rig.manual.run().unwrap();
    let (syncs, writes) = (rig.disk.calls(Call::Sync), rig.disk.calls(Call::Write));
    let lsns: Vec<Lsn> = (0..100)
        .map(|n| rig.append(&format!("batch {n}")))
        .collect();
    assert_eq!(lsns, (1..=100).collect::<Vec<_>>());
    assert_eq!((rig.log.durable_lsn(), rig.log.last_lsn()), (0, 100));
    assert!(rig.manual.step().unwrap());
    assert_eq!((rig.log.durable_lsn(), rig.log.position().lsn), (100, 100));
    assert_eq!(rig.disk.calls(Call::Sync), syncs + 1);
    assert_eq!(rig.disk.calls(Call::Write), writes + 1);
    assert!(!rig.manual.step().unwrap());
    let stats = rig.log.stats();
    assert_eq!(
        (stats.groups, stats.batches, stats.batches_per_group[7]),
        (1, 100, 1)
    );

    rig.disk.crash(Keep::Nothing);
    let (_, replayed) = Rig::on(&rig.disk, SyncMode::Always).unwrap();
    assert_eq!(replayed.iter().map(|r| r.lsn).collect::<Vec<_>>(), lsns);
    assert_eq!(replayed[41].payload, "batch 41");
    assert_eq!(replayed[41].time_ms, 1_000);
}

#[test]
fn nothing_is_durable_before_its_sync_and_the_waiter_is_woken_after() {
    let disk = SimDisk::new(2);
    let (clock, fatals) = (Arc::new(AtomicU64::new(1)), Arc::new(AtomicUsize::new(0)));
    let options = options(&clock, &fatals);
    let log = open(disk.disk(), dir(), options, Position::default())
        .unwrap()
        .finish()
        .unwrap();
    let woken = Arc::new(Mutex::new(0));
    let wake = woken.clone();
    let subscription = log.subscribe(Arc::new(move || *wake.lock().unwrap() += 1));
    disk.hold_syncs(true);
    let lsn = log.append(batch(b"held"));
    subscription.want(lsn);
    disk.wait_until_held();
    assert_eq!(
        (
            log.durable_lsn(),
            log.released_lsn(),
            *woken.lock().unwrap()
        ),
        (0, 0, 0)
    );
    disk.fork(1).crash(Keep::Nothing);
    disk.hold_syncs(false);
    log.wait_durable(lsn).unwrap();
    log.close().unwrap();
    assert_eq!((log.durable_lsn(), *woken.lock().unwrap()), (lsn, 1));
    subscription.want(lsn);
    assert_eq!(*woken.lock().unwrap(), 2, "already durable: at once");
}

#[test]
fn threads_commit_what_many_writers_append() {
    let folder = tempfile::tempdir().unwrap();
    let began = std::time::Instant::now();
    let mut options = Options::new(9, Arc::new(move || began.elapsed().as_micros() as u64));
    options.segment_bytes = 1024 * 1024;
    options.set_aside_bytes = 64 * 1024;
    let dir = folder.path().join("log");
    for (round, mode) in [SyncMode::Always, SyncMode::EverySec, SyncMode::No]
        .iter()
        .enumerate()
    {
        let disk = Arc::new(disk::RealDisk::default());
        let mut options = options.clone();
        options.sync = *mode;
        let mut recovery = open(disk, &dir, options, Position::default()).unwrap();
        assert_eq!(drain(&mut recovery).unwrap().len(), round * 400);
        let log = recovery.finish().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let lsns: Vec<Lsn> = (0..100).map(|_| log.append(batch(&[7; 3000]))).collect();
                    log.wait_durable(lsns[99]).unwrap();
                });
            }
        });
        assert_eq!(log.durable_lsn(), log.last_lsn());
        assert!(log.stats().sync_max_us > 0);
        log.close().unwrap();
    }
}

#[test]
fn a_last_record_flipped_or_cut_anywhere_is_cut_when_it_has_no_witness() {
    let mut rig = Rig::new();
    rig.commit(&["one", "two"]);
    let place = rig.log.stats().bytes + BLOCK;
    rig.commit(&["the last record"]);
    let record = 64 + 16 + "the last record".len() as u64;
    for at in 0..record {
        let disk = rig.disk.fork(at);
        disk.flip_bit(&file(1), place + at, at as u32);
        assert_eq!(reopened(&disk).unwrap(), ["one", "two"], "flipped at {at}");

        let disk = rig.disk.fork(at);
        disk.overwrite(&file(1), place + at, &vec![0; (BLOCK - at) as usize]);
        assert_eq!(reopened(&disk).unwrap(), ["one", "two"], "zeros from {at}");

        let (mut again, replayed) = Rig::on(&disk, SyncMode::Always).unwrap();
        assert_eq!(texts(&replayed), ["one", "two"]);
        again.commit(&["three"]);
        disk.crash(Keep::Nothing);
        assert_eq!(reopened(&disk).unwrap(), ["one", "two", "three"]);
    }
}

/// What a start and a check say of a log that is known to have been begun.
fn begun(disk: &Arc<SimDisk>, from: Position) -> Result<Vec<String>, String> {
    let known = Known {
        has_head: true,
        ..from.into()
    };
    let report = verify(&*disk.disk(), dir(), 0x5eed, known);
    match Rig::from(disk, SyncMode::Always, known) {
        Ok((_, replayed)) => {
            assert!(report.fault.is_none(), "{report:?}");
            Ok(texts(&replayed))
        }
        Err(fatal) => {
            let text = fatal.to_string();
            assert_eq!(report.fault.unwrap().to_string(), text);
            assert!(text.contains("restore the"), "{text}");
            Err(text)
        }
    }
}

fn remove(disk: &Arc<SimDisk>, path: &Path) {
    disk.disk().remove(path).unwrap();
    disk.disk().sync_dir(dir()).unwrap();
}

/// The files of the segments in use, in the order of their numbers.
fn live_files(disk: &Arc<SimDisk>) -> Vec<PathBuf> {
    let names = disk.disk().list(dir()).unwrap();
    let segments = names.iter().filter(|name| name.starts_with("segment"));
    let number = |path: &PathBuf| match SegmentHeader::decode(&disk.contents(path)) {
        SegmentKind::Ours(header) => header.number,
        _ => 0,
    };
    let paths = segments.map(|name| dir().join(name));
    let mut live: Vec<PathBuf> = paths.filter(|path| number(path) > 0).collect();
    live.sort_by_key(number);
    live
}

#[test]
fn a_segment_that_is_cut_short_or_gone_is_missed() {
    let mut rig = Rig::new();
    let big = "x".repeat(20_000);
    let given: Vec<String> = (0..12).map(|number| format!("{number} {big}")).collect();
    for text in &given {
        rig.commit(&[text]);
    }
    let from = Position::default();
    assert_eq!(begun(&rig.disk.fork(1), from).unwrap(), given);
    let live = live_files(&rig.disk);
    assert!(live.len() >= 4);
    for path in &live {
        for bytes in (0..SEGMENT_BYTES).step_by(1_000) {
            let disk = rig.disk.fork(bytes);
            disk.truncate(path, bytes);
            let text = begun(&disk, from).unwrap_err();
            let whole_header = bytes >= BLOCK;
            assert!(
                !whole_header || text.contains("cut short"),
                "{bytes}: {text}"
            );
        }
    }
    // Any of them; the last few; all.
    for first in 0..live.len() {
        for end in first + 1..=live.len() {
            let disk = rig.disk.fork(1);
            live[first..end].iter().for_each(|path| remove(&disk, path));
            let text = begun(&disk, from).unwrap_err();
            let last = format!("segment {}, its last one, is missing", live.len());
            assert!(end < live.len() || text.contains(&last), "{text}");
            assert_eq!(begun(&disk, from).unwrap_err(), text, "it stays as it is");
        }
    }
}

#[test]
fn a_segment_behind_the_stores_position_is_missed() {
    let mut rig = Rig::new();
    let big = "x".repeat(50_000);
    rig.commit(&[&big, &big]);
    let from = rig.log.position();
    rig.log.trim(from.lsn);
    // The next one begins exactly behind the position.
    rig.commit(&[&big]);
    let live = live_files(&rig.disk);
    assert_eq!(begun(&rig.disk.fork(1), from).unwrap(), [&*big]);
    let disk = rig.disk.fork(1);
    remove(&disk, live.last().unwrap());
    assert!(begun(&disk, from).unwrap_err().contains("is missing"));
}

#[test]
fn a_log_without_its_head_is_refused_unless_it_may_have_none() {
    let mut rig = Rig::new();
    rig.commit(&["one"]);
    let head = dir().join(head::NAME);
    let empty = SimDisk::new(1);
    assert!(begun(&empty, Position::default()).is_err());
    remove(&rig.disk, &head);
    let text = begun(&rig.disk.fork(1), Position::default()).unwrap_err();
    assert!(text.contains("HEAD"), "{text}");
    // The first servers made none: it gets one.
    assert_eq!(reopened(&rig.disk).unwrap(), ["one"]);
    rig.disk.crash(Keep::Nothing);
    assert_eq!(begun(&rig.disk, Position::default()).unwrap(), ["one"]);
    // An empty log that was begun.
    begin(empty.disk(), dir(), &rig.options).unwrap();
    empty.crash(Keep::Nothing);
    assert!(begun(&empty, Position::default()).unwrap().is_empty());
    remove(&empty, &file(1));
    assert!(begun(&empty, Position::default()).is_err());
}

#[test]
fn a_full_disk_starts_without_a_head_where_there_was_none() {
    let big = "x".repeat(20_000);
    for used_blocks in 0..2 {
        let mut rig = Rig::new();
        rig.commit(&["one"]);
        // Segments for the next ones.
        rig.manual.run().unwrap();
        assert!(rig.log.has_head());
        remove(&rig.disk, &dir().join(head::NAME));
        // A part of the head may still fit.
        let bytes = rig.disk.used_bytes() + used_blocks * BLOCK;
        rig.disk.set_space(Some(bytes));
        let (mut full, replayed) = Rig::on(&rig.disk, SyncMode::Always).unwrap();
        assert_eq!(texts(&replayed), ["one"]);
        assert!(!full.log.has_head(), "nobody may note that there is one");
        let before = live_files(&rig.disk).len();
        full.commit(&[&big, &big, &big]);
        assert!(live_files(&rig.disk).len() > before, "no new segment");
        rig.disk.crash(Keep::Nothing);
        rig.disk.set_space(None);
        let (again, replayed) = Rig::on(&rig.disk, SyncMode::Always).unwrap();
        assert_eq!(texts(&replayed), ["one", &big, &big, &big]);
        assert!(again.log.has_head());
        rig.disk.crash(Keep::Nothing);
        assert_eq!(begun(&rig.disk, Position::default()).unwrap().len(), 4);
    }
}

#[test]
fn whatever_fails_while_segments_follow_each_other_the_next_start_has_everything() {
    let keeps = [Keep::Nothing, Keep::Everything, Keep::Some, Keep::Torn];
    let calls = [Call::Write, Call::Sync, Call::Create, Call::SyncDir];
    let big = "x".repeat(50_000);
    for (round, keep) in (0..16).flat_map(|round| keeps.map(|keep| (round, keep))) {
        for call in calls {
            let mut rig = Rig::on(&SimDisk::new(round), SyncMode::Always).unwrap().0;
            rig.manual.run().unwrap();
            rig.disk
                .fail_nth(call, round + 1, std::io::ErrorKind::Other);
            let mut last = 0;
            for _ in 0..6 {
                let lsn = rig.append(&big);
                if rig.manual.run().is_err() {
                    break;
                }
                last = lsn;
            }
            rig.disk.crash(keep);
            let found = begun(&rig.disk, Position::default()).unwrap();
            assert!(found.len() as u64 >= last, "{call:?} {round} {keep:?}");
        }
    }
}

#[test]
fn a_last_record_with_its_witness_is_damage_wherever_it_is_flipped() {
    let mut rig = Rig::new();
    rig.commit(&["one", "two"]);
    let place = rig.log.stats().bytes + BLOCK;
    rig.commit(&["last"]);
    assert!(!rig.manual.step().unwrap());
    rig.advance_us(LOG_WITNESS_AFTER_US);
    assert!(
        rig.manual.step().unwrap(),
        "an idle log writes an empty record"
    );
    rig.advance_us(LOG_WITNESS_AFTER_US);
    assert!(!rig.manual.step().unwrap(), "which needs no witness itself");
    assert_eq!(reopened(&rig.disk.fork(1)).unwrap(), ["one", "two", "last"]);
    for at in 0..64 + 16 + 4 {
        let disk = rig.disk.fork(at);
        disk.flip_bit(&file(1), place + at, 3);
        let error = reopened(&disk).unwrap_err();
        let found = [
            &format!("offset {place}"),
            "segment-00000001",
            "lsn 3 is not readable",
        ];
        assert!(found.iter().all(|part| error.contains(part)), "{error}");
        assert_eq!(
            reopened(&disk).unwrap_err(),
            error,
            "a refused log is not changed"
        );
    }
    let disk = rig.disk.fork(1);
    disk.flip_bit(&file(1), place + BLOCK, 0);
    assert_eq!(
        reopened(&disk).unwrap(),
        ["one", "two", "last"],
        "a lost witness loses nothing"
    );
}

#[test]
fn a_middle_record_flipped_anywhere_is_refused() {
    let mut rig = Rig::new();
    rig.commit(&["one", "two"]);
    let place = rig.log.stats().bytes + BLOCK;
    let long = "middle ".repeat(120);
    rig.commit(&[&long, "four", "five"]);
    for at in 0..64 + 16 + long.len() as u64 {
        let disk = rig.disk.fork(at);
        disk.flip_bit(&file(1), place + at, at as u32);
        let error = reopened(&disk).unwrap_err();
        assert!(
            error.contains("acknowledged writes would be lost"),
            "{at}: {error}"
        );
        let report = verify(
            &*disk.disk(),
            dir(),
            rig.options.folder_id,
            Position::default(),
        );
        assert_eq!((report.records, report.last.lsn), (2, 2));
        assert_eq!(report.fault.unwrap().to_string(), error);
    }
}

#[test]
fn a_damaged_segment_header_is_refused_when_records_are_behind_it() {
    let mut rig = Rig::new();
    let big = "x".repeat(20_000);
    rig.commit(&[&big, &big, &big, &big, &big, &big, &big, &big, &big]);
    assert!(rig.log.stats().segments_in_use >= 3);
    let used: Vec<u64> = (1..10)
        .filter(|n| rig.disk.contents(&file(*n)).len() > 16)
        .collect();
    let mut refused = 0;
    for number in used {
        let disk = rig.disk.fork(number);
        disk.flip_bit(&file(number), 20, 1);
        match reopened(&disk) {
            Ok(replayed) => assert_eq!(replayed.len(), 9, "a spare segment's header is not missed"),
            Err(_) => refused += 1,
        }
    }
    assert!(refused >= 3, "{refused}");
}

#[test]
fn trimmed_segments_are_used_again_and_their_stale_records_never_fit() {
    let mut rig = Rig::new();
    let mut from = Position::default();
    for round in 0..40 {
        let text = format!("round {round} {}", "y".repeat(9_000));
        rig.commit(&[&text, &text, &text]);
        from = rig.log.position();
        rig.log.trim(from.lsn);
        assert_eq!(rig.log.bytes_since_trim(), 0);
    }
    let (in_use, spare) = (
        rig.log.stats().segments_in_use,
        rig.log.stats().segments_spare,
    );
    assert_eq!(in_use, 1);
    assert!(
        rig.disk.used_bytes() == (in_use + spare) as u64 * SEGMENT_BYTES + 2 * BLOCK && spare < 4
    );
    rig.commit(&["behind the checkpoint"]);
    rig.disk.crash(Keep::Nothing);
    let (mut rig, replayed) = Rig::from(&rig.disk, SyncMode::Always, from).unwrap();
    assert_eq!(texts(&replayed), ["behind the checkpoint"]);
    rig.commit(&["and on"]);
    let (_, replayed) = Rig::from(&rig.disk, SyncMode::Always, from).unwrap();
    assert_eq!(texts(&replayed), ["behind the checkpoint", "and on"]);
}

#[test]
fn unsynced_records_kept_out_of_order_by_a_power_cut_start_normally_in_all_modes() {
    let mut lost = 0;
    for (mode, seed) in [SyncMode::EverySec, SyncMode::No]
        .into_iter()
        .flat_map(|mode| (0..150).map(move |seed| (mode, seed)))
    {
        let disk = SimDisk::new(seed);
        let (mut rig, _) = Rig::on(&disk, mode).unwrap();
        let mut given = vec!["synced".to_owned()];
        rig.append("synced");
        rig.log.request_sync();
        rig.manual.run().unwrap();
        assert_eq!(rig.log.durable_lsn(), 1);
        for number in 0..6 {
            given.push(format!("{number} {}", "z".repeat(seed as usize * 60)));
            rig.append(given.last().unwrap());
            rig.manual.run().unwrap();
        }
        assert_eq!(rig.log.released_lsn(), Lsn::MAX);
        let durable = rig.log.durable_lsn() as usize;
        disk.crash(if seed % 2 == 0 {
            Keep::Some
        } else {
            Keep::Torn
        });
        let replayed = reopened(&disk).unwrap();
        assert!(replayed.len() >= durable, "seed {seed}");
        assert_eq!(replayed, given[..replayed.len()], "seed {seed}");
        lost += given.len() - replayed.len();
        assert_eq!(
            reopened(&disk).unwrap(),
            replayed,
            "the cut stays where it is"
        );
    }
    assert!(lost > 0);
}

#[test]
fn a_record_in_flight_when_the_power_fails_is_there_whole_or_not_at_all() {
    for seed in 0..40 {
        let disk = SimDisk::new(seed);
        let (clock, fatals) = (Arc::new(AtomicU64::new(1)), Arc::new(AtomicUsize::new(0)));
        let options = options(&clock, &fatals);
        let recovery = open(disk.disk(), dir(), options, Position::default()).unwrap();
        let log = recovery.finish().unwrap();
        let lsn = log.append(batch(b"acknowledged"));
        log.wait_durable(lsn).unwrap();
        disk.hold_syncs(true);
        log.append(batch(&[b'w'; 6_000]));
        disk.wait_until_held();
        disk.crash(if seed % 2 == 0 {
            Keep::Some
        } else {
            Keep::Torn
        });
        assert!(log.wait_durable(2).is_err());
        assert!(log.close().is_err());
        assert_eq!((log.durable_lsn(), fatals.load(SeqCst)), (1, 1));
        let replayed = reopened(&disk).unwrap();
        assert_eq!(replayed[0], "acknowledged");
        assert!(replayed.len() == 1 || replayed[1].len() == 6_000);
    }
}

#[test]
fn what_recovery_hands_out_is_durable_even_after_a_failed_sync_and_a_kill() {
    let disk = SimDisk::new(5);
    let (mut rig, _) = Rig::on(&disk, SyncMode::EverySec).unwrap();
    rig.manual.run().unwrap();
    rig.append("in the page cache");
    rig.advance_us(LOG_EVERYSEC_US);
    disk.fail_nth(Call::Sync, 1, std::io::ErrorKind::Other);
    assert!(rig.manual.run().is_err(), "a second is over");
    disk.kill();
    let (_rig, replayed) = Rig::on(&disk, SyncMode::Always).unwrap();
    assert_eq!(texts(&replayed), ["in the page cache"]);
    disk.crash(Keep::Nothing);
    assert_eq!(reopened(&disk).unwrap(), ["in the page cache"]);
}

#[test]
fn a_record_that_changes_while_it_is_written_again_is_refused() {
    for bytes in [10, 3_000_000] {
        let mut rig = Rig::new();
        rig.commit(&["one", &"x".repeat(bytes)]);
        let recovered = |damage: &dyn Fn()| {
            rig.disk.kill();
            let mut recovery = open(
                rig.disk.disk(),
                dir(),
                rig.options.clone(),
                Position::default(),
            )?;
            assert_eq!(drain(&mut recovery)?.len(), 2);
            damage();
            recovery.finish_manual().map(drop)
        };
        let last = live_files(&rig.disk).pop().unwrap();
        let offset = [BLOCK, 2 * BLOCK][usize::from(last == file(1))] + 80;
        for place in [offset, offset + bytes as u64 - 20] {
            let flip = || rig.disk.flip_bit(&last, place, 0);
            let text = recovered(&flip).unwrap_err().to_string();
            assert!(text.contains("and is not now"), "{text}");
            flip();
        }
        recovered(&|| {}).unwrap();
    }
}

#[test]
fn a_failed_write_or_sync_is_final() {
    for call in [Call::Write, Call::Sync] {
        let mut rig = Rig::new();
        rig.manual.run().unwrap();
        rig.commit(&["before"]);
        rig.disk.fail_nth(call, 1, std::io::ErrorKind::Other);
        rig.append("lost");
        assert!(rig.manual.step().is_err());
        rig.append("after");
        assert!(rig.manual.step().is_err(), "no retry");
        assert_eq!((rig.log.durable_lsn(), rig.fatals.load(SeqCst)), (1, 1));
        assert!(rig.log.wait_durable(2).is_err());
        assert!(rig.log.queue_full());
        let text = rig.log.failed().unwrap().to_string();
        assert!(
            text.contains("segment-00000001: cannot write to the log"),
            "{text}"
        );
        rig.disk.crash(Keep::Nothing);
        assert_eq!(reopened(&rig.disk).unwrap(), ["before"]);
    }
}

#[test]
fn space_that_is_there_again_is_made_ready_when_it_is_asked_for() {
    let rig = Rig::new();
    rig.disk.set_space(Some(rig.disk.used_bytes()));
    while rig.log.reserve_urgent(4096) {}
    rig.log.prepare_space().unwrap();
    assert_eq!(rig.log.try_reserve(4096, true), Reserve::Full);
    rig.disk.set_space(None);
    assert_eq!(rig.log.try_reserve(4096, true), Reserve::Full);
    rig.log.prepare_space().unwrap();
    assert_eq!(rig.log.try_reserve(4096, true), Reserve::Granted);
}

#[test]
fn what_fails_beside_a_write_ends_it_without_a_panic() {
    let disk = SimDisk::new(2);
    let (clock, fatals) = (Arc::new(AtomicU64::new(1)), Arc::new(AtomicUsize::new(0)));
    let options = options(&clock, &fatals);
    let recovery = open(disk.disk(), dir(), options, Position::default()).unwrap();
    let log = recovery.finish().unwrap();
    disk.hold_syncs(true);
    let lsn = log.append(batch(b"held"));
    disk.wait_until_held();
    let other = Fatal::new("cannot remove the segment".to_owned(), dir());
    log.shared().fail(other);
    let shared = log.shared();
    let position = Position { lsn, chain: 1 };
    assert!(shared.publish(position).is_err(), "nothing is durable now");
    disk.hold_syncs(false);
    let fatal = log.close().unwrap_err();
    assert_eq!(fatal.message, "cannot remove the segment");
    assert_eq!((log.durable_lsn(), fatals.load(SeqCst)), (0, 1));
}

#[test]
fn a_full_disk_refuses_reservations_keeps_its_promises_and_resumes_by_itself() {
    let mut rig = Rig::new();
    rig.manual.run().unwrap();
    let space = rig.disk.used_bytes() + SEGMENT_BYTES + 1000;
    rig.disk.set_space(Some(space));
    let woken = Arc::new(AtomicUsize::new(0));
    let wake = woken.clone();
    let subscription = rig.log.subscribe(Arc::new(move || {
        wake.fetch_add(1, SeqCst);
    }));
    subscription.want_space();
    let mut appended = 0;
    let refused = loop {
        match rig.log.try_reserve(5_000, false) {
            Reserve::Granted => {
                rig.log.append(Batch {
                    reserved_bytes: 5_000,
                    ..batch(&[b'f'; 4_900])
                });
                appended += 1;
                rig.manual.run().unwrap();
            }
            Reserve::Busy => drop(rig.manual.step().unwrap()),
            Reserve::Full => break rig.log.stats(),
        }
    };
    assert!(appended >= 10 && refused.disk_full, "{appended}");
    assert!(woken.load(SeqCst) > 0);
    assert!(!rig.log.reserve(5_000));
    assert!(
        rig.log.reserve_urgent(200),
        "what frees space has a reserve"
    );
    rig.log.append(Batch {
        reserved_bytes: 200,
        ..batch(b"DEL")
    });
    rig.manual.run().unwrap();

    rig.disk.set_space(None);
    rig.manual.run().unwrap();
    assert!(rig.log.reserve(5_000), "resumes by itself");
    rig.log.unreserve(5_000);
    let disk = rig.disk.clone();
    disk.set_space(Some(disk.used_bytes()));
    while rig.log.try_reserve(5_000, false) != Reserve::Full {
        rig.log.append(Batch {
            reserved_bytes: 5_000,
            ..batch(&[b'f'; 4_900])
        });
        rig.manual.run().unwrap();
    }
    rig.log.trim(rig.log.durable_lsn());
    assert!(rig.log.reserve(5_000), "a trim makes room too");
    assert_eq!(rig.fatals.load(SeqCst), 0);
}

#[test]
fn withheld_space_is_left_to_others_until_it_is_given_back() {
    let mut rig = Rig::new();
    let big = "x".repeat(30_000);
    rig.commit(&[&big, &big, &big, &big, &big, &big, &big, &big]);
    let segments = |rig: &Rig| rig.disk.used_bytes() / SEGMENT_BYTES;
    rig.log.withhold_space(true);
    let before = segments(&rig);
    assert!(before >= 5, "{before} segments");
    assert!(rig.log.is_full() && rig.log.stats().disk_full);
    assert_eq!(rig.log.try_reserve(100, false), Reserve::Full);
    assert!(rig.log.reserve_urgent(100), "what frees space goes on");
    rig.log.append(Batch {
        reserved_bytes: 100,
        ..batch(b"DEL")
    });
    rig.manual.run().unwrap();
    assert_eq!(segments(&rig), before, "nothing was allocated");
    rig.log.trim(rig.log.durable_lsn());
    let left = segments(&rig);
    assert!(left <= 3, "{left} segments are left of {before}");
    assert_eq!(rig.log.try_reserve(100, false), Reserve::Full);
    rig.log.withhold_space(false);
    rig.manual.run().unwrap();
    assert!(rig.log.reserve(5_000) && !rig.log.is_full());
}

#[test]
fn a_rotation_without_space_and_without_a_reservation_is_final_and_loses_nothing() {
    let mut rig = Rig::new();
    rig.manual.run().unwrap();
    rig.disk.set_space(Some(rig.disk.used_bytes()));
    let mut acknowledged = 0;
    while rig.fatals.load(SeqCst) == 0 {
        rig.append(&"r".repeat(10_000));
        if rig.manual.run().is_ok() {
            acknowledged += 1;
        }
    }
    assert!(acknowledged > 5);
    assert!(rig.log.failed().unwrap().message.contains("no space"));
    rig.disk.crash(Keep::Nothing);
    assert_eq!(
        reopened(&rig.disk).unwrap().len(),
        acknowledged,
        "a full disk starts"
    );
}

#[test]
fn a_record_larger_than_a_segment_gets_one_of_its_own_size() {
    let mut rig = Rig::new();
    let huge = "h".repeat(5 * SEGMENT_BYTES as usize + 77);
    let larger = "l".repeat(5 * 1024 * 1024);
    assert_eq!(rig.log.try_reserve(huge.len() as u64, false), Reserve::Busy);
    rig.manual.run().unwrap();
    assert_eq!(
        rig.log.try_reserve(huge.len() as u64, false),
        Reserve::Granted
    );
    rig.disk.set_space(Some(rig.disk.used_bytes()));
    rig.commit(&["small"]);
    rig.log.append(Batch {
        reserved_bytes: huge.len() as u64,
        ..batch(huge.as_bytes())
    });
    rig.manual.run().unwrap();
    assert_eq!(
        rig.log.durable_lsn(),
        2,
        "the reserved segments were traded for a large one"
    );
    rig.disk.set_space(None);
    rig.commit(&["after", &larger, "end"]);
    rig.disk.crash(Keep::Nothing);
    let (mut rig, replayed) = Rig::on(&rig.disk, SyncMode::Always).unwrap();
    assert_eq!(texts(&replayed), ["small", &huge, "after", &larger, "end"]);
    rig.commit(&["more"]);
    rig.log.trim(rig.log.durable_lsn());
    assert!(
        rig.disk.used_bytes() <= 9 * SEGMENT_BYTES,
        "an odd size is not kept"
    );
}

#[test]
fn a_log_reopens_many_times_after_kills_and_crashes() {
    let disk = SimDisk::new(3);
    let mut given: Vec<String> = Vec::new();
    for round in 0..60 {
        let mode = [SyncMode::Always, SyncMode::EverySec, SyncMode::No][round % 3];
        let (mut rig, replayed) = Rig::on(&disk, mode).unwrap();
        assert_eq!(texts(&replayed), given);
        for number in 0..round % 4 {
            given.push(format!("{round}-{number} {}", "q".repeat(round * 50)));
            rig.append(given.last().unwrap());
            rig.manual.run().unwrap();
        }
        rig.log.request_sync();
        rig.manual.run().unwrap();
        if round % 2 == 0 {
            disk.kill()
        } else {
            disk.crash(Keep::Some)
        }
    }
    assert!(given.len() > 80);
}

#[test]
fn a_log_that_does_not_join_the_store_is_refused() {
    let mut rig = Rig::new();
    rig.commit(&["one", "two"]);
    let two = rig.log.position();
    rig.commit(&["three"]);
    let refused = |disk: &Arc<SimDisk>, from| {
        Rig::from(disk, SyncMode::Always, from)
            .err()
            .map(|fatal| fatal.message)
    };
    let fork = || rig.disk.fork(1);
    assert!(refused(&fork(), two).is_none());
    let other = refused(
        &fork(),
        Position {
            chain: !two.chain,
            ..two
        },
    )
    .unwrap();
    assert!(other.contains("another record"), "{other}");
    let short = refused(&fork(), Position { lsn: 99, chain: 1 }).unwrap();
    assert!(short.contains("ends at lsn 3"), "{short}");
    let missing = refused(&SimDisk::new(1), two).unwrap();
    assert!(missing.contains("missing"), "{missing}");

    let big = "x".repeat(30_000);
    rig.commit(&[&big, &big, &big]);
    let trimmed = rig.log.position();
    rig.log.trim(trimmed.lsn);
    rig.commit(&["later", &big, &big, &big]);
    assert!(refused(&rig.disk.fork(1), trimmed).is_none());
    assert!(refused(&rig.disk.fork(1), two).is_some());
    let first = refused(&rig.disk.fork(1), Position::default());
    assert!(first.is_some_and(|text| text.contains("does not join")));
}

#[test]
fn a_log_that_ends_before_what_is_known_to_have_been_durable_is_refused() {
    let mut rig = Rig::new();
    rig.commit(&["one", "two"]);
    let from = rig.log.position();
    rig.commit(&["three", "four"]);
    let known = |durable_lsn| Known {
        from,
        durable_lsn,
        has_head: true,
    };
    let cut_behind = |lsn: Lsn| {
        let disk = rig.disk.fork(1);
        let rest = SEGMENT_BYTES - (lsn + 1) * BLOCK;
        disk.overwrite(&file(1), (lsn + 1) * BLOCK, &vec![0; rest as usize]);
        disk
    };
    for (ends_at, durable_lsn, whole) in [
        (4, 4, true),
        (3, 3, true),
        (3, 2, true),
        (2, 2, true),
        (3, 4, false),
        (2, 4, false),
        (2, 3, false),
    ] {
        let disk = cut_behind(ends_at);
        let report = verify(&*disk.disk(), dir(), 0x5eed, known(durable_lsn));
        let started = Rig::from(&disk, SyncMode::Always, known(durable_lsn));
        let Err(fatal) = started else {
            assert!(
                whole,
                "the end at {ends_at} of {durable_lsn} is passed over"
            );
            assert!(report.fault.is_none(), "{report:?}");
            continue;
        };
        let text = fatal.to_string();
        assert!(!whole, "{text}");
        assert_eq!(report.fault.unwrap().to_string(), text);
        let lost = format!("the record with lsn {} is not readable", ends_at + 1);
        let proof = format!("up to lsn {durable_lsn}");
        let told = [&lost, &proof, "segment-00000001", "restore the folder"];
        assert!(told.iter().all(|word| text.contains(*word)), "{text}");
    }
}

#[test]
fn a_segment_of_another_folder_or_format_is_refused_by_name() {
    let mut rig = Rig::new();
    rig.commit(&["one"]);
    let mut other = rig.options.clone();
    other.folder_id = 1;
    let open = |disk: &Arc<SimDisk>, options: &Options| {
        open(disk.disk(), dir(), options.clone(), Position::default())
            .err()
            .map(|f| f.to_string())
    };
    let error = open(&rig.disk.fork(1), &other).unwrap();
    assert!(
        error.contains("segment-00000001") && error.contains("another data folder"),
        "{error}"
    );

    let disk = rig.disk.fork(1);
    let mut block = disk.contents(&file(1))[..BLOCK as usize].to_vec();
    block[8] = 7;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&block[0..12]), &block[16..64]);
    block[12..16].copy_from_slice(&crc.to_le_bytes());
    disk.overwrite(&file(1), 0, &block);
    let error = open(&disk, &rig.options).unwrap();
    assert!(error.contains("format version 7"), "{error}");

    let mut odd = rig.options.clone();
    odd.segment_bytes = 70_000;
    assert!(
        open(&rig.disk.fork(1), &odd)
            .unwrap()
            .contains("multiple of 4096")
    );
}

#[test]
fn everysec_syncs_each_second_and_no_only_when_asked() {
    let (mut rig, _) = Rig::on(&SimDisk::new(1), SyncMode::EverySec).unwrap();
    rig.advance_us(LOG_EVERYSEC_US);
    rig.commit(&["the first is due"]);
    rig.append("waits");
    rig.manual.run().unwrap();
    rig.advance_us(LOG_EVERYSEC_US - 1);
    rig.manual.run().unwrap();
    assert_eq!(rig.log.durable_lsn(), 1);
    rig.advance_us(1);
    rig.manual.run().unwrap();
    assert_eq!(rig.log.durable_lsn(), 2);

    rig.log.set_sync(SyncMode::No);
    rig.manual.run().unwrap();
    let lsn = rig.append("nobody asks");
    rig.advance_us(10 * LOG_EVERYSEC_US);
    rig.manual.run().unwrap();
    assert!(rig.log.durable_lsn() < lsn);
    rig.log.request_sync();
    rig.manual.run().unwrap();
    assert!(rig.log.durable_lsn() >= lsn);

    let lsn = rig.append("unsynced when the mode changes");
    rig.manual.run().unwrap();
    assert!(rig.log.durable_lsn() < lsn);
    let lsn = rig.append("in mode always");
    rig.log.set_sync(SyncMode::Always);
    assert!(rig.log.released_lsn() < lsn - 1);
    rig.manual.run().unwrap();
    assert_eq!(rig.log.released_lsn(), lsn);
    rig.disk.crash(Keep::Nothing);
    assert_eq!(reopened(&rig.disk).unwrap().len(), 5);
}

#[test]
fn a_closed_log_has_drained_and_synced() {
    let (mut rig, _) = Rig::on(&SimDisk::new(1), SyncMode::No).unwrap();
    let lsn = rig.append("queued");
    rig.log.close().unwrap();
    rig.manual.run().unwrap();
    assert_eq!(rig.log.durable_lsn(), lsn);
}

#[test]
fn with_too_many_files_open_a_new_segment_comes_later() {
    for call in [Call::Create, Call::SyncDir] {
        let mut rig = Rig::new();
        rig.manual.run().unwrap();
        let mut written = 0;
        for _ in 0..100 {
            rig.disk.fail_nth_as(call, 1, libc::EMFILE);
            if rig.log.try_reserve(20_000, false) == Reserve::Granted {
                rig.log.append(Batch {
                    reserved_bytes: 20_000,
                    ..batch(&[b'f'; 19_000])
                });
                written += 1;
            }
            rig.manual.run().unwrap();
        }
        assert!(written > 40, "{written} were written");
        assert_eq!(rig.log.durable_lsn(), written);
        assert!(rig.log.stats().segments_in_use > 3);
        assert_eq!(rig.fatals.load(SeqCst), 0);
    }
}
