//! A copy of the log as it is at one moment, while it may be written and trimmed: for a backup.
//!
//! Always true here: what is written to the copy was read whole and on the chain, so nothing that
//! happens to the source meanwhile can make the copy wrong, only shorter than wanted; and that is
//! an error. Everything that was durable when `copy` was called is in the copy.

use std::path::Path;
use std::sync::Arc;

use super::disk::{Disk, DiskFile};
use super::head::Head;
use super::record::record_bytes;
use super::segment::SegmentHeader;
use super::space::file_name;
use super::walk::{Record, Walker};
use super::{Fatal, Known, Position};
use crate::limits::{LOG_BLOCK_BYTES, LOG_PIECE_BYTES};

/// Copies what the log in `dir` holds from `known.from` on into the new folder `to`, with the
/// segments that it lies in, and a head. Answers the copy's last position.
///
/// # Errors
/// Damage; also a log that was trimmed beyond that meanwhile. While a server runs on the log, try
/// again with the store's newer position.
pub fn copy(
    disk: &dyn Disk,
    dir: &Path,
    folder_id: u64,
    known: impl Into<Known>,
    to: &Path,
) -> Result<Position, Fatal> {
    let known = known.into();
    let from = known.from;
    disk.create_dir(to)
        .map_err(|error| Fatal::io("cannot create the folder", to, error))?;
    let mut walker = Walker::open(disk, dir, folder_id, known, false)?;
    let mut joined = walker.position == from;
    let mut writer = Writer {
        disk,
        to,
        folder_id,
        segment: None,
        written: 0,
    };
    let mut first_end = None;
    loop {
        while let Some(record) = walker.next()? {
            joined |= walker.position == from;
            writer.add(&walker, &record)?;
        }
        // Where the reader met the writer, the end of the chain is no end. If later records say
        // that what is missing here is durable, then it can be read by now, or it is damaged.
        let end = walker.position;
        match (walker.inspect_leftover(), first_end) {
            (Ok(_), _) => break,
            (Err(_), None) => first_end = Some(end),
            // What could not be read is there now: it was not durable when this began.
            (Err(_), Some(first_end)) if end != first_end => break,
            (Err(fatal), Some(_)) => return Err(fatal),
        }
        walker.read_afresh();
    }
    if !joined {
        return Err(walker.does_not_join(from));
    }
    let last = walker.position;
    writer.finish(&walker)?;
    still_there(disk, dir, folder_id, last)?;
    disk.sync_dir(to)
        .map_err(|error| Fatal::io("cannot sync the folder", to, error))?;
    Ok(last)
}

/// The log was not trimmed beyond `last` meanwhile: so the chain did not end there because its
/// segment was used again.
fn still_there(disk: &dyn Disk, dir: &Path, folder_id: u64, last: Position) -> Result<(), Fatal> {
    let mut walker = Walker::open(disk, dir, folder_id, last.into(), false)?;
    while walker.position.lsn < last.lsn && walker.next()?.is_some() {}
    match walker.position == last {
        true => Ok(()),
        false => Err(walker.does_not_join(last)),
    }
}

/// Writes the segments of the copy, one after the other.
struct Writer<'a> {
    disk: &'a dyn Disk,
    to: &'a Path,
    folder_id: u64,
    segment: Option<Copied>,
    written: u64,
}

/// The segment that is being written: as long as its records, so it is used up at a start.
struct Copied {
    index: usize,
    file: Arc<dyn DiskFile>,
    header: SegmentHeader,
    /// Bytes that wait to be written, and where.
    pending: Vec<u8>,
    offset: u64,
}

impl Writer<'_> {
    fn add(&mut self, walker: &Walker, record: &Record) -> Result<(), Fatal> {
        self.reach(walker, record.place.index)?;
        let Some(copied) = &mut self.segment else {
            return Ok(());
        };
        let begun = copied.pending.len();
        let header = record.header.bytes(self.folder_id);
        copied.pending.extend_from_slice(&header);
        copied.pending.extend_from_slice(&record.payload);
        let bytes = record_bytes(record.header.payload_bytes) as usize;
        copied.pending.resize(begun + bytes, 0);
        if copied.pending.len() >= LOG_PIECE_BYTES {
            copied.flush().map_err(|error| self.failed(error))?;
        }
        Ok(())
    }

    /// Begins the segments up to the one with this index among the walker's.
    fn reach(&mut self, walker: &Walker, index: usize) -> Result<(), Fatal> {
        let next = self.segment.as_ref().map_or(0, |copied| copied.index + 1);
        for index in next..=index {
            self.end_segment()?;
            self.begin(index, walker.files.live[index].header)?;
        }
        Ok(())
    }

    fn begin(&mut self, index: usize, header: SegmentHeader) -> Result<(), Fatal> {
        self.written += 1;
        let path = self.to.join(file_name(self.written));
        let file = self
            .disk
            .create(&path)
            .map_err(|error| self.failed(error))?;
        self.segment = Some(Copied {
            index,
            file,
            header,
            pending: Vec::new(),
            offset: LOG_BLOCK_BYTES,
        });
        Ok(())
    }

    fn finish(&mut self, walker: &Walker) -> Result<(), Fatal> {
        let mut last = SegmentHeader {
            folder_id: self.folder_id,
            number: 1,
            bytes: LOG_BLOCK_BYTES,
            first_lsn: 1,
            incarnation: 1,
            chain: 0,
        };
        if let Some(found) = walker.files.live.get(walker.index) {
            self.reach(walker, walker.index)?;
            last = found.header;
        } else {
            // Of a folder that no server ever ran on.
            self.begin(0, last)?;
        }
        self.end_segment()?;
        Head::open(self.disk, self.to, self.folder_id, last.number).map(drop)
    }

    fn end_segment(&mut self) -> Result<(), Fatal> {
        match self.segment.take() {
            Some(copied) => copied.end().map_err(|error| self.failed(error)),
            None => Ok(()),
        }
    }

    fn failed(&self, error: std::io::Error) -> Fatal {
        Fatal::io("cannot write the copy of the log", self.to, error)
    }
}

impl Copied {
    fn flush(&mut self) -> std::io::Result<()> {
        self.file.write_at(&self.pending, self.offset)?;
        self.offset += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }

    fn end(mut self) -> std::io::Result<()> {
        self.flush()?;
        let header = SegmentHeader {
            bytes: self.offset,
            ..self.header
        };
        self.file.write_at(header.block().bytes(), 0)?;
        self.file.sync()
    }
}
