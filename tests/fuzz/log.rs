//! The log reader: a log with any damage is read up to a point or refused, never otherwise than it
//! was written.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tallyman::log::sim_disk::SimDisk;
use tallyman::log::{self, Batch, Log, Options, Position};

use crate::{Outcome, kind_of};

const FOLDER_ID: u64 = 77;
const BATCHES: u64 = 60;

fn options() -> Options {
    let time_us = Arc::new(AtomicU64::new(0));
    let clock = Arc::new(move || time_us.fetch_add(1_000_000, Ordering::Relaxed));
    let mut options = Options::new(FOLDER_ID, clock);
    options.segment_bytes = 32 * 1024;
    options.set_aside_bytes = 8 * 1024;
    options
}

fn payload(number: u64) -> Bytes {
    let length = [10, 100, 5_000, 0][number as usize % 4] + number as usize;
    Bytes::from(vec![number as u8; length])
}

/// A disk with a log of several segments, and their paths.
fn written() -> &'static (Arc<SimDisk>, Vec<std::path::PathBuf>) {
    static WRITTEN: OnceLock<(Arc<SimDisk>, Vec<std::path::PathBuf>)> = OnceLock::new();
    WRITTEN.get_or_init(|| {
        let disk = SimDisk::new(1);
        let dir = Path::new("log");
        let (log, mut manual) = Log::manual(disk.disk(), dir, options()).expect("a log");
        for number in 0..BATCHES {
            manual.run().expect("it works");
            assert!(log.reserve(6_000));
            log.append(Batch {
                parts: vec![payload(number)],
                time_ms: number,
                reserved_bytes: 6_000,
            });
            manual.run().expect("it works");
        }
        disk.kill();
        let names = disk.disk().list(dir).expect("files");
        let paths = names.iter().map(|name| dir.join(name)).collect();
        (disk, paths)
    })
}

/// An input is a list of changes of ten bytes: file, offset (3), how, what (5).
pub fn seeds() -> Vec<Vec<u8>> {
    (0..40_u8)
        .map(|number| {
            vec![
                number,
                0,
                number.wrapping_mul(37),
                number,
                number % 4,
                1,
                2,
                3,
                4,
                5,
            ]
        })
        .collect()
}

pub fn act(input: &[u8]) -> Outcome {
    let (original, paths) = written();
    let disk = original.fork(1);
    for change in input.chunks_exact(10).take(8) {
        let path = &paths[change[0] as usize % paths.len()];
        let length = disk.contents(path).len() as u64;
        let offset = u64::from_be_bytes([0, 0, 0, 0, 0, change[1], change[2], change[3]]);
        let offset = offset % length.max(1);
        match change[4] % 4 {
            0 => disk.flip_bit(path, offset, u32::from(change[5])),
            1 if offset + 5 <= length => disk.overwrite(path, offset, &change[5..]),
            2 => disk.truncate(path, offset),
            // A block of another file, or of another place.
            3 => {
                let from = disk.contents(&paths[change[5] as usize % paths.len()]);
                let at = change[6] as usize * 4096 % from.len().max(1) / 4096 * 4096;
                let block = &from[at..from.len().min(at + 4096)];
                let to = offset / 4096 * 4096;
                if to + block.len() as u64 <= length {
                    disk.overwrite(path, to, block);
                }
            }
            _ => {}
        }
    }
    disk.kill();
    let (read, ended) = read(&disk);
    for (number, payload_read) in read.iter().enumerate() {
        assert_eq!(*payload_read, payload(number as u64), "batch {number}");
    }
    kind_of(&ended) ^ (read.len() as u64 / 20) << 8
}

/// The payloads that are read back, and how it ended.
fn read(disk: &Arc<SimDisk>) -> (Vec<Bytes>, String) {
    let mut batches = Vec::new();
    let opened = log::open(
        disk.disk(),
        Path::new("log"),
        options(),
        Position::default(),
    );
    let mut recovery = match opened {
        Ok(recovery) => recovery,
        Err(fatal) => return (batches, fatal.message),
    };
    loop {
        match recovery.next() {
            Ok(Some(batch)) => batches.push(batch.payload),
            Ok(None) => break,
            Err(fatal) => return (batches, fatal.message),
        }
    }
    // A log that was read to its end can be written again, and then holds the same.
    match recovery.finish_manual() {
        Ok((_, mut manual)) => {
            let ended = manual
                .run()
                .map_or_else(|fatal| fatal.message, |()| String::new());
            (batches, ended)
        }
        Err(fatal) => (batches, fatal.message),
    }
}
