//! Reading a whole log without changing it: for `check` and for tests.

use std::path::Path;

use super::disk::Disk;
use super::record::batches_of;
use super::walk::Walker;
use super::{Fatal, Known, Replayed};

/// What a read-only walk over the log found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    pub segments: usize,
    pub records: u64,
    pub batches: u64,
    pub bytes: u64,
    pub first: super::Position,
    pub last: super::Position,
    /// Time of the latest record, milliseconds since the epoch; 0 if there was none.
    pub time_ms: u64,
    /// Written but never acknowledged: a start would cut these.
    pub unacknowledged_records: u64,
    /// Why a start would refuse this log.
    pub fault: Option<Fatal>,
}

/// What looks at each batch behind the position, in order; what it refuses is the log's fault.
pub type Visit<'a> = dyn FnMut(Replayed) -> Result<(), String> + 'a;

/// Reads the whole log behind `known.from` and changes nothing.
pub fn verify(disk: &dyn Disk, dir: &Path, folder_id: u64, known: impl Into<Known>) -> Report {
    visit(disk, dir, folder_id, known, &mut |_| Ok(()))
}

/// The same, and shows every batch.
pub fn visit(
    disk: &dyn Disk,
    dir: &Path,
    folder_id: u64,
    known: impl Into<Known>,
    see: &mut Visit<'_>,
) -> Report {
    let known = known.into();
    let mut report = Report {
        first: known.from,
        last: known.from,
        ..Report::default()
    };
    if let Err(fatal) = walk(disk, dir, (folder_id, known), &mut report, see) {
        report.fault = Some(fatal);
    }
    report
}

fn walk(
    disk: &dyn Disk,
    dir: &Path,
    (folder_id, known): (u64, Known),
    report: &mut Report,
    see: &mut Visit<'_>,
) -> Result<(), Fatal> {
    let from = known.from;
    let mut walker = Walker::open(disk, dir, folder_id, known, false)?;
    let mut joined = walker.position == from;
    while let Some(record) = walker.next()? {
        let lsn = record.header.lsn;
        if lsn > from.lsn && joined {
            report.records += 1;
            report.batches += u64::from(record.header.batches);
            report.bytes += record.place.bytes;
            let path = &walker.files.live[record.place.index].segment.path;
            let refused = |what: &str| {
                let offset = record.place.offset;
                let text = format!("the record with lsn {lsn} at offset {offset} {what}");
                Fatal::new(text, path)
            };
            let batches = batches_of(&record.header, record.payload.clone())
                .ok_or_else(|| refused("is whole, but its batches do not fill it"))?;
            for batch in batches {
                see(batch).map_err(|what| refused(&what))?;
            }
        }
        report.last = walker.position;
        report.time_ms = walker.time_ms;
        report.segments = walker.index + 1;
        joined |= walker.position == from;
    }
    report.unacknowledged_records = walker.inspect_leftover()?.records;
    if joined {
        Ok(())
    } else {
        Err(walker.does_not_join(from))
    }
}
