//! Opening a log: reading it back from behind the store's position, and making it ready to be
//! written.
//!
//! Always true here: before `finish` returns, everything that was handed out is durable (after a
//! `kill -9` it may have been in the page cache alone, perhaps after a sync that failed: so it is
//! written again, not only synced), and the new incarnation has written its first record.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::committer::{Committer, Tail};
use super::disk::Disk;
use super::head::Head;
use super::queue::Shared;
use super::record::{RECORD_HEADER_BYTES, RecordHeader, batches_of};
use super::runner::Manual;
use super::segment::{AlignedBuffer, Segment, SegmentHeader};
use super::space::{Prepared, Space, Stock};
use super::stats::Counters;
use super::walk::{Found, Leftover, Place, Record, Walker};
use super::{Fatal, Known, Log, Options, Position, Replayed};
use crate::limits::{
    LOG_BLOCK_BYTES, LOG_PIECE_BYTES, LOG_SEGMENT_BYTES_MAX, LOG_SEGMENT_BYTES_MIN,
};
use crate::sim::{self, Fault};

/// An opened log that is being read back.
pub struct Recovery {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    options: Options,
    from: Position,
    walker: Walker,
    counters: Counters,
    batches: VecDeque<Replayed>,
    /// Records of which nothing says yet that they were synced.
    unproven: VecDeque<(RecordHeader, Place)>,
    leftover: Option<Leftover>,
}

/// Opens the log in `dir` (created if missing), to be read from behind `known.from`. A log that
/// does not contain or join that is refused, and so is one that is missing although it is not the
/// beginning, or that ends before what is known to have been durable.
pub fn open(
    disk: Arc<dyn Disk>,
    dir: &Path,
    options: Options,
    known: impl Into<Known>,
) -> Result<Recovery, Fatal> {
    let known = known.into();
    check(&options, dir)?;
    disk.create_dir(dir)
        .map_err(|error| Fatal::io("cannot create the folder", dir, error))?;
    let walker = Walker::open(&*disk, dir, options.folder_id, known, true)?;
    let mut recovery = Recovery {
        disk,
        dir: dir.to_owned(),
        options,
        from: known.from,
        walker,
        counters: Counters::default(),
        batches: VecDeque::new(),
        unproven: VecDeque::new(),
        leftover: None,
    };
    recovery.join()?;
    Ok(recovery)
}

/// Makes an empty log in `dir`: a segment and the head, so that a folder without them is known to
/// have lost them.
pub fn begin(disk: Arc<dyn Disk>, dir: &Path, options: &Options) -> Result<(), Fatal> {
    check(options, dir)?;
    disk.create_dir(dir)
        .map_err(|error| Fatal::io("cannot create the folder", dir, error))?;
    let space = Space::new(disk.clone(), dir, options, Stock::default());
    first_tail(&*disk, dir, options, &space, 1).map(drop)
}

fn check(options: &Options, dir: &Path) -> Result<(), Fatal> {
    let bytes = options.segment_bytes;
    let range = LOG_SEGMENT_BYTES_MIN..=LOG_SEGMENT_BYTES_MAX;
    if range.contains(&bytes) && bytes.is_multiple_of(LOG_BLOCK_BYTES) {
        return Ok(());
    }
    let message = format!(
        "log segments of {bytes} bytes: must be a multiple of {LOG_BLOCK_BYTES} from \
         {LOG_SEGMENT_BYTES_MIN} to {LOG_SEGMENT_BYTES_MAX}"
    );
    Err(Fatal::new(message, dir))
}

impl Recovery {
    /// Walks up to `from`.
    fn join(&mut self) -> Result<(), Fatal> {
        while self.walker.position.lsn < self.from.lsn && self.record()?.is_some() {}
        match self.walker.position == self.from {
            true => Ok(()),
            false => Err(self.walker.does_not_join(self.from)),
        }
    }

    /// The next record on the chain; at its end, None once what lies behind it was looked at.
    fn record(&mut self) -> Result<Option<Record>, Fatal> {
        if self.leftover.is_some() {
            return Ok(None);
        }
        let Some(record) = self.walker.next()? else {
            self.leftover = Some(self.walker.inspect_leftover()?);
            return Ok(None);
        };
        self.unproven.push_back((record.header, record.place));
        while self
            .unproven
            .front()
            .is_some_and(|(header, _)| header.lsn <= self.walker.synced_lsn)
        {
            self.unproven.pop_front();
        }
        if record.header.lsn > self.from.lsn {
            self.counters.found(record.header.lsn, record.place.bytes);
        }
        Ok(Some(record))
    }

    /// The next batch behind the position given to `open`, in order; None at the end of the log. An
    /// error if the log is damaged.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Replayed>, Fatal> {
        loop {
            if let Some(batch) = self.batches.pop_front() {
                return Ok(Some(batch));
            }
            let Some(record) = self.record()? else {
                return Ok(None);
            };
            let Some(batches) = batches_of(&record.header, record.payload) else {
                let message = format!(
                    "the record with lsn {} at offset {} is whole, but its batches do not fill it",
                    record.header.lsn, record.place.offset
                );
                let path = &self.walker.files.live[record.place.index].segment.path;
                return Err(Fatal::new(message, path));
            };
            self.batches.extend(batches);
        }
    }

    /// Time of the latest record seen, milliseconds since the epoch; 0 if none was.
    pub fn last_time_ms(&self) -> u64 {
        self.walker.time_ms
    }

    /// The last record seen.
    pub fn position(&self) -> Position {
        self.walker.position
    }

    /// Makes what was read durable, cuts what was never acknowledged, starts the threads.
    pub fn finish(self) -> Result<Log, Fatal> {
        Log::start(self.committer()?)
    }

    /// The same without threads: to be driven by hand.
    pub fn finish_manual(self) -> Result<(Log, Manual), Fatal> {
        let committer = self.committer()?;
        Ok((
            Log::without_threads(committer.shared().clone()),
            Manual::new(committer),
        ))
    }

    fn committer(mut self) -> Result<Committer, Fatal> {
        while self.next()?.is_some() {}
        self.say_what_is_cut();
        self.rewrite_unproven()?;
        let stock = self.sort_out()?;
        let fresh = self.walker.files.live.is_empty();
        let space = Space::new(self.disk.clone(), &self.dir, &self.options, stock);
        let tail = if fresh {
            let incarnation = self.walker.incarnation_max + 1;
            first_tail(&*self.disk, &self.dir, &self.options, &space, incarnation)?
        } else {
            self.tail(&space)?
        };
        let (durable, has_head) = (tail.position, tail.head.is_some());
        let shared = Shared::new(self.options, space, self.counters, durable, has_head);
        // What is needed at once; the rest comes later. A full disk refuses writes, not the start.
        while shared.space.is_low() && shared.space.prepare()? == Prepared::Made {}
        let mut committer = Committer::new(Arc::new(shared), tail);
        if !fresh && committer.commit_empty()? && committer.is_dirty() {
            committer.sync()?;
        }
        Ok(committer)
    }

    fn say_what_is_cut(&self) {
        let leftover = self.leftover.unwrap_or_default();
        if leftover.records == 0 {
            return;
        }
        let found = &self.walker.files.live.get(self.walker.index);
        tracing::warn!(
            file = %found.map_or(&self.dir, |found| &found.segment.path).display(),
            offset = self.walker.offset,
            "cut the commit log behind lsn {}: {} later record(s), up to lsn {}, were written but \
             never acknowledged",
            self.walker.position.lsn,
            leftover.records,
            leftover.last_lsn
        );
    }

    /// Writes what may be in the page cache alone to the disk: unproven records, the last segment's
    /// header.
    fn rewrite_unproven(&mut self) -> Result<(), Fatal> {
        let live = &self.walker.files.live;
        if sim::fault(Fault::UnprovenNotRewritten) {
            return Ok(());
        }
        let Some(last) = live.get(self.walker.index) else {
            return Ok(());
        };
        let header = SegmentHeader {
            bytes: last.segment.bytes,
            ..last.header
        };
        last.segment.write_header(&header)?;
        for (header, place) in &self.unproven {
            let segment = &live[place.index].segment;
            rewrite(segment, (self.options.folder_id, header), *place)?;
        }
        let sync = self.disk.sync_dir(&self.dir);
        sync.map_err(|error| Fatal::io("cannot sync the folder", &self.dir, error))
    }

    /// Keeps what can be used again, removes the rest.
    fn sort_out(&mut self) -> Result<Stock, Fatal> {
        let files = &mut self.walker.files;
        let mut stock = Stock {
            next_file: files.last_file,
            ..Stock::default()
        };
        let mut removed = std::mem::take(&mut files.unknown);
        for Found { segment, header } in std::mem::take(&mut files.spare) {
            let whole = segment.bytes == header.bytes;
            let kept = stock.spares.len() < self.options.spare_segments_max;
            if whole && kept && segment.bytes == self.options.segment_bytes {
                stock.spares.push(segment);
            } else {
                removed.push(segment);
            }
        }
        for index in 0..self.walker.index {
            let last_lsn = files.live[index + 1].header.first_lsn - 1;
            stock
                .used
                .push_back((files.live[index].segment.clone(), last_lsn));
        }
        for segment in removed {
            let result = self.disk.remove(&segment.path);
            result.map_err(|error| Fatal::io("cannot remove the file", &segment.path, error))?;
        }
        Ok(stock)
    }

    fn tail(&self, space: &Space) -> Result<Tail, Fatal> {
        let Found { segment, header } = &self.walker.files.live[self.walker.index];
        space.add(segment.bytes - self.walker.offset);
        let head = Head::open(
            &*self.disk,
            &self.dir,
            self.options.folder_id,
            header.number,
        );
        let head = match head {
            // The first servers made none. A full disk refuses writes, not the start: the next
            // start makes it.
            Err(fatal) if !self.walker.has_head() && fatal.is_full() => {
                tracing::warn!("nothing would tell if the end of the log were lost: {fatal}");
                None
            }
            head => Some(head?),
        };
        Ok(Tail {
            segment: segment.clone(),
            number: header.number,
            head,
            offset: self.walker.offset,
            position: self.walker.position,
            incarnation: self.walker.incarnation_max + 1,
            time_ms: self.walker.time_ms,
        })
    }
}

/// Begins a log where there is none: its first segment, and its head.
fn first_tail(
    disk: &dyn Disk,
    dir: &Path,
    options: &Options,
    space: &Space,
    incarnation: u64,
) -> Result<Tail, Fatal> {
    let segment = space.take(LOG_BLOCK_BYTES)?;
    segment.write_header(&SegmentHeader {
        folder_id: options.folder_id,
        number: 1,
        bytes: segment.bytes,
        first_lsn: 1,
        incarnation,
        chain: 0,
    })?;
    Ok(Tail {
        segment,
        number: 1,
        head: Some(Head::open(disk, dir, options.folder_id, 1)?),
        offset: LOG_BLOCK_BYTES,
        position: Position::default(),
        incarnation,
        time_ms: 0,
    })
}

/// Writes a record again, which must still be the one that was read: what is on disk then would
/// pass for one that was never acknowledged.
fn rewrite(
    segment: &Segment,
    (folder_id, header): (u64, &RecordHeader),
    place: Place,
) -> Result<(), Fatal> {
    let failed = |error| Fatal::io("cannot write the log again", &segment.path, error);
    let mut buffer = AlignedBuffer::default();
    buffer.reserve(place.bytes as usize);
    while (buffer.bytes().len() as u64) < place.bytes {
        // Of whole blocks.
        buffer.extend(&[0; LOG_BLOCK_BYTES as usize]);
    }
    let read = segment.file.read_at(buffer.bytes_mut(), place.offset);
    let read = read.map_err(failed)?;
    let head = RECORD_HEADER_BYTES as usize;
    let end = head + header.payload_bytes as usize;
    let same = read == buffer.bytes().len()
        && RecordHeader::decode(folder_id, buffer.bytes()).as_ref() == Some(header)
        && header.is_valid(folder_id, &buffer.bytes()[head..end]);
    if !same {
        let message = format!(
            "the record with lsn {} at offset {} was whole when it was first read, and is not \
             now: check the disk and the memory of this machine, and start again",
            header.lsn, place.offset
        );
        return Err(Fatal::new(message, &segment.path));
    }
    let mut offset = place.offset;
    for piece in buffer.bytes().chunks(LOG_PIECE_BYTES) {
        segment
            .file
            .write_durable_at(piece, offset)
            .map_err(failed)?;
        offset += piece.len() as u64;
    }
    Ok(())
}
