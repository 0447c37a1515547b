//! Copies of a log, taken while it is written, trimmed, or damaged.

use super::*;

fn copied() -> &'static Path {
    Path::new("/copy/log")
}

fn opened(disk: &Arc<SimDisk>, from: Position) -> Result<Vec<String>, String> {
    let (clock, fatals) = (Arc::new(AtomicU64::new(1)), Arc::new(AtomicUsize::new(0)));
    let options = options(&clock, &fatals);
    let recovery = open(disk.disk(), copied(), options, from);
    let mut recovery = recovery.map_err(|fatal| fatal.to_string())?;
    let replayed = drain(&mut recovery).map_err(|fatal| fatal.to_string())?;
    let (log, mut manual) = recovery
        .finish_manual()
        .map_err(|fatal| fatal.to_string())?;
    // It can be written on.
    log.reserve(100);
    log.append(batch(b"later"));
    manual.run().unwrap();
    assert!(log.failed().is_none(), "{:?}", log.failed());
    Ok(texts(&replayed))
}

#[test]
fn a_copy_has_everything_that_was_durable_and_can_be_written_on() {
    let mut rig = Rig::new();
    let mut expected = Vec::new();
    for number in 0..60 {
        let text = format!("number {number}");
        rig.commit(&[&text]);
        expected.push(text);
    }
    let mut position = copy(
        &*rig.disk.disk(),
        dir(),
        0x5eed,
        Position::default(),
        copied(),
    )
    .unwrap();
    assert_eq!(position, rig.log.position());
    assert_eq!(opened(&rig.disk, Position::default()).unwrap(), expected);
    // From a later position on, behind a trim.
    rig.log.trim(position.lsn);
    rig.commit(&["after"]);
    let to = Path::new("/second");
    let from = position;
    position = copy(&*rig.disk.disk(), dir(), 0x5eed, from, to).unwrap();
    assert_eq!(position, rig.log.position());
    let report = verify(&*rig.disk.disk(), to, 0x5eed, from);
    assert!(report.fault.is_none(), "{:?}", report.fault);
    assert_eq!((report.batches, report.last), (1, position));
}

#[test]
fn a_copy_of_a_damaged_log_is_refused_with_its_place() {
    let mut rig = Rig::new();
    for number in 0..10 {
        rig.commit(&[&format!("number {number}")]);
    }
    rig.disk.flip_bit(&file(1), 3 * BLOCK + 70, 1);
    let failed = copy(
        &*rig.disk.disk(),
        dir(),
        0x5eed,
        Position::default(),
        copied(),
    );
    let text = failed.unwrap_err().to_string();
    assert!(text.contains("damaged at offset 12288"), "{text}");
}

#[test]
fn a_copy_from_a_position_that_was_trimmed_is_refused() {
    let mut rig = Rig::new();
    rig.commit(&["first"]);
    let old = rig.log.position();
    for number in 0..100 {
        rig.commit(&[&format!("number {number}")]);
        rig.log.trim(rig.log.durable_lsn());
    }
    let failed = copy(&*rig.disk.disk(), dir(), 0x5eed, old, copied());
    let text = failed.unwrap_err().to_string();
    assert!(text.contains("does not join"), "{text}");
}

#[test]
fn copies_of_a_log_under_load_hold_what_was_durable_when_they_began() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("log");
    let disk: Arc<dyn disk::Disk> = Arc::new(disk::RealDisk::new(true));
    let clock = Arc::new(AtomicU64::new(1));
    let mut options = options(&clock, &Arc::new(AtomicUsize::new(0)));
    options.segment_bytes = 1 << 20;
    let recovery = open(disk.clone(), &source, options, Position::default()).unwrap();
    let log = recovery.finish().unwrap();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writer = std::thread::spawn({
        let (log, stop) = (log.clone(), stop.clone());
        move || {
            let mut number = 0_u64;
            while !stop.load(SeqCst) {
                if !log.queue_full() && log.reserve(1000) {
                    number += 1;
                    log.append(Batch {
                        reserved_bytes: 1000,
                        ..batch(&number.to_le_bytes())
                    });
                }
            }
        }
    });
    for round in 0..5 {
        let to = folder.path().join(format!("copy-{round}"));
        let durable_lsn = log.durable_lsn();
        let last = copy(&*disk, &source, 0x5eed, Position::default(), &to).unwrap();
        assert!(last.lsn >= durable_lsn, "{last:?} behind {durable_lsn}");
        let mut seen = 0;
        let report = visit(&*disk, &to, 0x5eed, Position::default(), &mut |batch| {
            seen += 1;
            let number = u64::from_le_bytes(batch.payload[..].try_into().unwrap());
            assert_eq!(number, seen);
            Ok(())
        });
        assert!(report.fault.is_none(), "{:?}", report.fault);
        assert_eq!(report.last, last);
    }
    stop.store(true, SeqCst);
    writer.join().unwrap();
    log.close().unwrap();
}
