//! Reading the log: along the chain of records, and what lies behind its end.
//!
//! Always true here: a record is believed only if its checksum is right and it continues the chain;
//! the end of the chain is taken for the end of the log only if nothing behind it says that more
//! had been synced. Nothing is written here.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::disk::Disk;
use super::head::Head;
use super::record::{RECORD_HEADER_BYTES, RecordHeader, record_bytes};
use super::segment::{Segment, SegmentHeader, SegmentKind};
use super::space::file_number;
use super::{Fatal, Known, Lsn, Position};
use crate::limits::{LOG_BLOCK_BYTES, LOG_PIECE_BYTES};
use crate::sim::{self, Fault};

/// A segment with a valid header.
pub(super) struct Found {
    pub segment: Segment,
    pub header: SegmentHeader,
}

/// The files of a log folder.
pub(super) struct Files {
    /// In the order of their numbers, from the first that is read.
    pub live: Vec<Found>,
    /// Retired, or prepared and never used.
    pub spare: Vec<Found>,
    /// Without a valid header.
    pub unknown: Vec<Segment>,
    pub last_file: u64,
}

/// A record on the chain.
pub(super) struct Record {
    pub header: RecordHeader,
    pub payload: Bytes,
    pub place: Place,
}

/// Where a record lies: index into `Files::live`, offset, length on disk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub index: usize,
    pub offset: u64,
    pub bytes: u64,
}

/// What was found behind the end of the chain, when it proves no damage.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Leftover {
    /// Records that were written but never acknowledged, and the highest lsn among them.
    pub records: u64,
    pub last_lsn: Lsn,
}

pub(super) struct Walker {
    dir: PathBuf,
    folder_id: u64,
    known: Known,
    pub files: Files,
    /// Where the next record should be.
    pub index: usize,
    pub offset: u64,
    /// The last record on the chain.
    pub position: Position,
    pub incarnation: u64,
    /// The highest seen anywhere.
    pub incarnation_max: u64,
    /// What the records on the chain say was synced.
    pub synced_lsn: Lsn,
    pub time_ms: u64,
    window: Window,
}

impl Files {
    /// Refuses a log without its last segment. Those before it are missed by who walks.
    fn refuse_missing(&self, dir: &Path, head: Option<u64>, known: Known) -> Result<(), Fatal> {
        if sim::fault(Fault::HeadIgnored) {
            return Ok(());
        }
        let last = self.live.last().map_or(0, |found| found.header.number);
        let what = match head {
            None if known.has_head => "its head, the file HEAD, is missing or damaged".to_owned(),
            Some(number) if number > last => {
                format!("segment {number}, its last one, is missing or damaged")
            }
            _ => return Ok(()),
        };
        let message = format!(
            "the commit log is not whole: {what}; acknowledged writes may be lost: put back the \
             missing file, or restore the data folder from a backup"
        );
        Err(Fatal::new(message, dir))
    }

    /// Refuses a segment that is shorter than it was made.
    fn refuse_cut(&self) -> Result<(), Fatal> {
        let cut = |found: &&Found| found.segment.bytes < found.header.bytes;
        let Some(Found { segment, header }) = self.live.iter().find(cut) else {
            return Ok(());
        };
        if sim::fault(Fault::CutSegmentAccepted) {
            return Ok(());
        }
        let message = format!(
            "this log segment is cut short: it has {} bytes, and had {} before the first record \
             was written to it; acknowledged writes may be lost: copy the data folder away, check \
             the disk, and restore the folder from a backup",
            segment.bytes, header.bytes
        );
        Err(Fatal::new(message, &segment.path))
    }
}

impl Walker {
    /// Finds the segment in which the log goes on behind `known.from`. Without any (`live` is
    /// empty) the log is new.
    pub fn open(
        disk: &dyn Disk,
        dir: &Path,
        folder_id: u64,
        known: Known,
        writable: bool,
    ) -> Result<Walker, Fatal> {
        let from = known.from;
        // The head first: a server that goes on meanwhile makes numbers rise, never fall.
        let head = Head::read(disk, dir, folder_id)?;
        let mut files = list(disk, dir, folder_id, writable)?;
        files.live.sort_by_key(|found| found.header.number);
        files.refuse_missing(dir, head, known)?;
        let start = files.live.iter().rposition(|found| {
            found.header.number > 0 && found.header.first_lsn <= from.lsn.saturating_add(1)
        });
        let mut walker = Walker {
            dir: dir.to_owned(),
            folder_id,
            known,
            incarnation_max: files
                .live
                .iter()
                .map(|f| f.header.incarnation)
                .max()
                .unwrap_or(0),
            index: 0,
            offset: LOG_BLOCK_BYTES,
            position: Position::default(),
            incarnation: 0,
            synced_lsn: 0,
            time_ms: 0,
            window: Window::default(),
            files,
        };
        match start {
            Some(start) => {
                walker.files.spare = walker.files.live.drain(..start).collect();
                walker.files.refuse_cut()?;
                let header = walker.files.live[0].header;
                walker.position = Position {
                    lsn: header.first_lsn - 1,
                    chain: header.chain,
                };
                walker.incarnation = header.incarnation;
            }
            None => {
                let files = &mut walker.files;
                let used = files.live.partition_point(|found| found.header.number == 0);
                files.spare = files.live.drain(..used).collect();
                if from.lsn > 0 || !files.live.is_empty() {
                    return Err(walker.does_not_join(from));
                }
            }
        }
        Ok(walker)
    }

    /// The next record on the chain; None at its end.
    pub fn next(&mut self) -> Result<Option<Record>, Fatal> {
        loop {
            let Some(found) = self.files.live.get(self.index) else {
                return Ok(None);
            };
            let segment = found.segment.clone();
            if let Some((header, payload)) = self.record_at(&segment)? {
                let bytes = record_bytes(header.payload_bytes);
                let place = Place {
                    index: self.index,
                    offset: self.offset,
                    bytes,
                };
                self.offset += bytes;
                self.position = Position {
                    lsn: header.lsn,
                    chain: header.crc,
                };
                self.incarnation = header.incarnation;
                self.incarnation_max = self.incarnation_max.max(header.incarnation);
                self.synced_lsn = self.synced_lsn.max(header.synced_lsn);
                self.time_ms = self.time_ms.max(header.time_ms);
                return Ok(Some(Record {
                    header,
                    payload,
                    place,
                }));
            }
            let number = self.files.live[self.index].header.number;
            let Some(next) = self.files.live.get(self.index + 1) else {
                return Ok(None);
            };
            let joins = next.header.number == number + 1
                && next.header.first_lsn == self.position.lsn + 1
                && next.header.chain == self.position.chain
                && next.header.incarnation >= self.incarnation;
            if !joins {
                return Ok(None);
            }
            self.incarnation = next.header.incarnation;
            // Its header was written after everything before it had been synced.
            self.synced_lsn = self.synced_lsn.max(self.position.lsn);
            self.index += 1;
            self.offset = LOG_BLOCK_BYTES;
        }
    }

    /// The log is known to have a head.
    pub fn has_head(&self) -> bool {
        self.known.has_head
    }

    /// Forgets what was read ahead, so that what was written since is seen.
    pub fn read_afresh(&mut self) {
        self.window = Window::default();
    }

    fn record_at(&mut self, segment: &Segment) -> Result<Option<(RecordHeader, Bytes)>, Fatal> {
        let head = self
            .window
            .read(segment, self.offset, RECORD_HEADER_BYTES as usize)?;
        let Some(header) = RecordHeader::decode(self.folder_id, head) else {
            return Ok(None);
        };
        let continues = self.continues(&header);
        let start = self.offset + RECORD_HEADER_BYTES;
        // The bounds come before the memory: a record never reaches over the end of its segment,
        // its padding included.
        if !continues
            || header.payload_bytes > segment.bytes.saturating_sub(start)
            || record_bytes(header.payload_bytes) > segment.bytes.saturating_sub(self.offset)
        {
            return Ok(None);
        }
        let payload = self
            .window
            .take(segment, start, header.payload_bytes as usize)?;
        let whole = payload.len() as u64 == header.payload_bytes;
        let valid =
            header.is_valid(self.folder_id, &payload) || sim::fault(Fault::TornRecordAccepted);
        if !whole || !valid {
            return Ok(None);
        }
        Ok(Some((header, payload)))
    }

    /// Looks at everything behind the end of the chain, after `next` has answered None. An error if
    /// anything there, or what is known from elsewhere, proves that what is missing had been
    /// synced.
    ///
    /// A header is enough as a proof, whether its payload is whole or not: it has a checksum of its
    /// own, over the secret folder id, and was written when its synced lsn was already durable. A
    /// leftover of an earlier cut cannot prove anything: it was cut because its synced lsn was
    /// below the cut.
    pub fn inspect_leftover(&mut self) -> Result<Leftover, Fatal> {
        let mut leftover = Leftover::default();
        let live = self.files.live.iter().skip(self.index);
        let live = live.map(|found| (found.segment.clone(), true));
        let unknown = self.files.unknown.iter();
        let unknown = unknown.map(|segment| (segment.clone(), false));
        let mut from = self.offset;
        for (segment, has_header) in live.chain(unknown).collect::<Vec<_>>() {
            while from + RECORD_HEADER_BYTES <= segment.bytes {
                let head = self
                    .window
                    .read(&segment, from, RECORD_HEADER_BYTES as usize)?;
                if let Some(header) = RecordHeader::decode(self.folder_id, head) {
                    if !has_header {
                        self.refuse_next(&header, &segment, from)?;
                    }
                    self.weigh(&header, &segment, from, &mut leftover)?;
                }
                from += LOG_BLOCK_BYTES;
            }
            from = 0;
        }
        if let Some(next) = self.files.live.get(self.index + 1) {
            let header = next.header;
            let proof = format!(
                "segment {} of the log, {}, begins at lsn {}",
                header.number,
                next.segment.path.display(),
                header.first_lsn
            );
            return Err(self.damaged(&proof));
        }
        let Known {
            from, durable_lsn, ..
        } = self.known;
        let ends_early = (from.lsn..durable_lsn).contains(&self.position.lsn);
        if ends_early && !sim::fault(Fault::RowsBeyondLogIgnored) {
            let proof = format!("the store has rows that were made of it, up to lsn {durable_lsn}");
            return Err(self.damaged(&proof));
        }
        Ok(leftover)
    }

    /// A whole record that goes on where the chain ends, in a file without a valid header: that
    /// header was synced before the record was written, so it is damaged.
    fn refuse_next(
        &mut self,
        header: &RecordHeader,
        segment: &Segment,
        offset: u64,
    ) -> Result<(), Fatal> {
        let start = offset + RECORD_HEADER_BYTES;
        if !self.continues(header) || header.payload_bytes > segment.bytes.saturating_sub(start) {
            return Ok(());
        }
        let payload = self
            .window
            .take(segment, start, header.payload_bytes as usize)?;
        if !header.is_valid(self.folder_id, &payload) {
            return Ok(());
        }
        let message = format!(
            "the header of this log segment is damaged: at offset {offset} it has the record with \
             lsn {}, which was written after the header had been synced: copy the data folder \
             away, check the disk, and restore the folder from a backup",
            header.lsn
        );
        Err(Fatal::new(message, &segment.path))
    }

    fn continues(&self, header: &RecordHeader) -> bool {
        let chained = header.chain == self.position.chain && header.incarnation >= self.incarnation;
        (chained || sim::fault(Fault::ChainNotChecked))
            && header.lsn == self.position.lsn + header.lsns()
    }

    fn weigh(
        &mut self,
        header: &RecordHeader,
        segment: &Segment,
        offset: u64,
        leftover: &mut Leftover,
    ) -> Result<(), Fatal> {
        self.incarnation_max = self.incarnation_max.max(header.incarnation);
        if header.incarnation < self.incarnation {
            return Ok(());
        }
        if header.synced_lsn > self.position.lsn && !sim::fault(Fault::WitnessIgnored) {
            let proof = format!(
                "the record with lsn {} in {} at offset {offset} was written when lsn {} was \
                 durable",
                header.lsn,
                segment.path.display(),
                header.synced_lsn
            );
            return Err(self.damaged(&proof));
        }
        if header.lsn > self.position.lsn {
            leftover.records += 1;
            leftover.last_lsn = leftover.last_lsn.max(header.lsn);
        }
        Ok(())
    }

    /// The refusal of a log in which `from` is not to be found.
    pub fn does_not_join(&self, from: Position) -> Fatal {
        let found = match self.files.live.first() {
            None => "the log is missing".to_owned(),
            Some(found) if found.header.first_lsn > from.lsn + 1 => {
                format!("the log begins at lsn {}", found.header.first_lsn)
            }
            Some(_) if self.position.lsn < from.lsn => {
                format!("the log ends at lsn {}", self.position.lsn)
            }
            Some(_) => format!(
                "the log has another record there ({:08x})",
                self.position.chain
            ),
        };
        let message = format!(
            "the commit log does not join the store, which was written up to lsn {} ({:08x}): \
             {found}; store and log must be of the same moment: put back the log folder that \
             belongs to the store, or restore the whole data folder from a backup",
            from.lsn, from.chain
        );
        Fatal::new(message, &self.dir)
    }

    fn damaged(&self, proof: &str) -> Fatal {
        let (path, offset) = match self.files.live.get(self.index) {
            Some(found) => (found.segment.path.clone(), self.offset),
            None => (self.dir.clone(), 0),
        };
        let message = format!(
            "the commit log is damaged at offset {offset}: the record with lsn {} is not readable, \
             but it had been synced: {proof}; acknowledged writes would be lost: copy the data \
             folder away, check the disk, and restore the folder from a backup",
            self.position.lsn + 1
        );
        Fatal::new(message, &path)
    }
}

fn list(disk: &dyn Disk, dir: &Path, folder_id: u64, writable: bool) -> Result<Files, Fatal> {
    let mut files = Files {
        live: Vec::new(),
        spare: Vec::new(),
        unknown: Vec::new(),
        last_file: 0,
    };
    let names = disk
        .list(dir)
        .map_err(|error| Fatal::io("cannot list the log", dir, error))?;
    for name in names {
        let Some(number) = file_number(&name) else {
            continue;
        };
        files.last_file = files.last_file.max(number);
        let path = dir.join(name);
        let failed = |error| Fatal::io("cannot read the log", &path, error);
        let file = disk.open(&path, writable).map_err(failed)?;
        let mut block = [0; LOG_BLOCK_BYTES as usize];
        let read = file.read_at(&mut block, 0).map_err(failed)?;
        // After the header: a file that is being made may grow meanwhile.
        let bytes = file.bytes().map_err(failed)?;
        let mut segment = Segment {
            path: path.clone(),
            file,
            bytes,
        };
        match SegmentHeader::decode(&block[..read]) {
            SegmentKind::Ours(header) if header.folder_id != folder_id => {
                let message = "this log segment belongs to another data folder: put back the \
                               log folder that belongs to this one";
                return Err(Fatal::new(message.to_owned(), &path));
            }
            SegmentKind::Ours(header) if bytes >= LOG_BLOCK_BYTES => {
                segment.bytes = header.bytes.min(bytes) / LOG_BLOCK_BYTES * LOG_BLOCK_BYTES;
                files.live.push(Found { segment, header });
            }
            SegmentKind::OtherVersion(version) => {
                let message = format!(
                    "this log segment has format version {version}, which this program does not \
                     know: \
                     start the version that wrote it"
                );
                return Err(Fatal::new(message, &path));
            }
            SegmentKind::Ours(_) | SegmentKind::Unknown => files.unknown.push(segment),
        }
    }
    Ok(files)
}

/// A piece of a file in memory, for reading along.
#[derive(Default)]
struct Window {
    path: PathBuf,
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// Bytes at `offset`; fewer only at the end of the file.
    fn read(&mut self, segment: &Segment, offset: u64, bytes: usize) -> Result<&[u8], Fatal> {
        let end = self.start + self.bytes.len() as u64;
        let here = self.path == segment.path && offset >= self.start;
        if !here || offset + bytes as u64 > end {
            // What was read already and is still wanted stays.
            let kept = match here && offset < end {
                true => (end - offset) as usize,
                false => 0,
            };
            let before = self.bytes.len() - kept;
            self.bytes.copy_within(before.., 0);
            let rest = segment.bytes.saturating_sub(offset);
            let wanted = (LOG_PIECE_BYTES as u64).min(rest).max(bytes as u64) as usize;
            self.bytes.resize(wanted.max(kept), 0);
            let place = offset + kept as u64;
            let read = read(segment, &mut self.bytes[kept..], place)?;
            self.bytes.truncate(kept + read);
            self.start = offset;
            self.path.clone_from(&segment.path);
        }
        let from = (offset - self.start) as usize;
        Ok(&self.bytes[from..self.bytes.len().min(from + bytes)])
    }

    fn take(&mut self, segment: &Segment, offset: u64, bytes: usize) -> Result<Bytes, Fatal> {
        if bytes <= LOG_PIECE_BYTES {
            return self
                .read(segment, offset, bytes)
                .map(Bytes::copy_from_slice);
        }
        let mut whole = vec![0; bytes];
        let read = read(segment, &mut whole, offset)?;
        whole.truncate(read);
        Ok(Bytes::from(whole))
    }
}

fn read(segment: &Segment, buffer: &mut [u8], offset: u64) -> Result<usize, Fatal> {
    segment
        .file
        .read_at(buffer, offset)
        .map_err(|error| Fatal::io("cannot read the log", &segment.path, error))
}
