//! Space: segments that are ready before they are needed, and the promise that what was reserved
//! fits.
//!
//! Always true here: twice the bytes promised (reserved, or queued and not yet written), with some
//! slack, fit into what is allocated on disk: twice, because a batch that does not fit into the
//! rest of a segment leaves less than its own size unused there. `at_hand` falls before a promise
//! is fulfilled and rises only after space exists, so a race can refuse but never promise too much.
//! While space is withheld, no segment is allocated ahead, and only what frees space is promised
//! any.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::disk::{Disk, is_full, is_too_many};
use super::segment::{AlignedBuffer, Segment, SegmentHeader};
use super::{Fatal, Lsn, Options, Reserve, lock};
use crate::limits::{LOG_BLOCK_BYTES, LOG_PIECE_BYTES, LOG_SPACE_RETRY_MS};

pub(super) struct Space {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    folder_id: u64,
    segment_bytes: u64,
    spare_segments_max: usize,
    set_aside_bytes: u64,
    slack_bytes: u64,
    /// Room for records in the current segment and in the spare ones.
    at_hand: AtomicU64,
    promised: AtomicU64,
    /// What the largest refused reservation would have needed at hand.
    wanted: AtomicU64,
    full: AtomicBool,
    withheld: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    spares: Vec<Segment>,
    /// Segments behind the current one, with the lsn of their last record, oldest first.
    used: VecDeque<(Segment, Lsn)>,
    next_file: u64,
    poked: bool,
    closing: bool,
}

/// What one round of preparing did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Prepared {
    Nothing,
    Made,
    Full,
}

/// What recovery found and hands over.
#[derive(Default)]
pub(super) struct Stock {
    pub spares: Vec<Segment>,
    pub used: VecDeque<(Segment, Lsn)>,
    pub next_file: u64,
}

impl Space {
    pub fn new(disk: Arc<dyn Disk>, dir: &Path, options: &Options, stock: Stock) -> Space {
        let at_hand = stock.spares.iter().map(Segment::room).sum();
        Space {
            disk,
            dir: dir.to_owned(),
            folder_id: options.folder_id,
            segment_bytes: options.segment_bytes,
            spare_segments_max: options.spare_segments_max,
            set_aside_bytes: options.set_aside_bytes,
            slack_bytes: (options.writers as u64 + 2) * 2 * LOG_BLOCK_BYTES,
            at_hand: AtomicU64::new(at_hand),
            promised: AtomicU64::new(0),
            wanted: AtomicU64::new(0),
            full: AtomicBool::new(false),
            withheld: AtomicBool::new(false),
            state: Mutex::new(State {
                spares: stock.spares,
                used: stock.used,
                next_file: stock.next_file,
                ..State::default()
            }),
            changed: Condvar::new(),
        }
    }

    pub fn reserve(&self, bytes: u64, urgent: bool) -> Reserve {
        let promised = self.promised.fetch_add(bytes, SeqCst).saturating_add(bytes);
        let aside = if urgent { 0 } else { self.set_aside_bytes };
        let need = promised
            .saturating_mul(2)
            .saturating_add(self.slack_bytes + aside);
        let allowed = urgent || !self.withheld.load(SeqCst);
        if allowed && need <= self.at_hand.load(SeqCst) {
            return Reserve::Granted;
        }
        self.unpromise(bytes);
        if !allowed || self.full.load(SeqCst) {
            return Reserve::Full;
        }
        self.wanted.fetch_max(need, SeqCst);
        self.poke();
        Reserve::Busy
    }

    /// A batch of `bytes` takes the place of what was reserved for it.
    pub fn queue(&self, bytes: u64, reserved_bytes: u64) {
        self.promised.fetch_add(bytes, SeqCst);
        self.unpromise(reserved_bytes);
    }

    pub fn unpromise(&self, bytes: u64) {
        let less = |promised: u64| Some(promised.saturating_sub(bytes));
        let _ = self.promised.fetch_update(SeqCst, SeqCst, less);
    }

    /// The current segment's room became smaller: `record_bytes` written for `queued_bytes` queued.
    pub fn written(&self, record_bytes: u64, queued_bytes: u64) {
        self.use_up(record_bytes);
        self.unpromise(queued_bytes);
        if self.at_hand.load(SeqCst) < self.target() && !self.full.load(SeqCst) {
            self.poke();
        }
    }

    /// Room in the current segment that will not be used (or was).
    pub fn use_up(&self, bytes: u64) {
        let before = self.at_hand.fetch_sub(bytes, SeqCst);
        assert!(before >= bytes, "log space: {bytes} used of {before}");
    }

    /// Room of a current segment that recovery found.
    pub fn add(&self, bytes: u64) {
        self.at_hand.fetch_add(bytes, SeqCst);
    }

    /// A segment with room for a record of `record_bytes`. Its room stays counted as at hand.
    pub fn take(&self, record_bytes: u64) -> Result<Segment, Fatal> {
        let spare = {
            let mut state = lock(&self.state);
            let fits = state
                .spares
                .iter()
                .position(|spare| spare.room() >= record_bytes);
            fits.map(|index| state.spares.swap_remove(index))
        };
        self.poke();
        if let Some(segment) = spare {
            return Ok(segment);
        }
        let bytes = self.segment_bytes.max(record_bytes + LOG_BLOCK_BYTES);
        loop {
            if let Some(segment) = self.make(bytes)? {
                self.add(segment.room());
                return Ok(segment);
            }
            // What was reserved for a record larger than a segment is held by spare segments: trade
            // them.
            let Some(spare) = lock(&self.state).spares.pop() else {
                let message = format!("no space for a log segment of {bytes} bytes");
                return Err(Fatal::new(message, &self.dir));
            };
            self.use_up(spare.room());
            self.remove(&spare)?;
        }
    }

    /// The segment is full; `last_lsn` is its last record's.
    pub fn retire(&self, segment: Segment, last_lsn: Lsn) {
        lock(&self.state).used.push_back((segment, last_lsn));
    }

    /// Segments wholly at or below `lsn` become spare, or are removed.
    pub fn trim(&self, lsn: Lsn) -> Result<(), Fatal> {
        let mut removed = Vec::new();
        {
            let mut state = lock(&self.state);
            while state
                .used
                .front()
                .is_some_and(|(_, last_lsn)| *last_lsn <= lsn)
            {
                let Some((segment, _)) = state.used.pop_front() else {
                    break;
                };
                let enough = self.withheld.load(SeqCst) && self.has_enough();
                let room_for_more = state.spares.len() < self.spare_segments_max && !enough;
                if segment.bytes == self.segment_bytes && room_for_more {
                    self.add(segment.room());
                    state.spares.push(segment);
                } else {
                    removed.push(segment);
                }
            }
        }
        removed
            .iter()
            .try_for_each(|segment| self.remove(segment))?;
        if self.has_enough() && !self.withheld.load(SeqCst) {
            self.full.store(false, SeqCst);
        }
        Ok(())
    }

    /// One round of the preparing thread: at most one segment.
    pub fn prepare(&self) -> Result<Prepared, Fatal> {
        if self.withheld.load(SeqCst) {
            return Ok(Prepared::Full);
        }
        let spares = lock(&self.state).spares.len();
        if spares > 0 && self.at_hand.load(SeqCst) >= self.target().max(self.wanted.load(SeqCst)) {
            self.wanted.store(0, SeqCst);
            self.full.store(false, SeqCst);
            return Ok(Prepared::Nothing);
        }
        if let Some(segment) = self.make(self.segment_bytes)? {
            self.add(segment.room());
            lock(&self.state).spares.push(segment);
            self.full.store(false, SeqCst);
            return Ok(Prepared::Made);
        }
        self.full.store(true, SeqCst);
        self.wanted.store(0, SeqCst);
        self.shed(self.target())?;
        Ok(Prepared::Full)
    }

    /// Blocks the preparing thread until there may be something to do; false when closing.
    pub fn wait_for_work(&self, last: Prepared) -> bool {
        let mut state = lock(&self.state);
        let poked = std::mem::take(&mut state.poked) && last != Prepared::Full;
        if state.closing || poked || last == Prepared::Made {
            return !state.closing;
        }
        let wait = Duration::from_millis(LOG_SPACE_RETRY_MS);
        let state = self.changed.wait_timeout(state, wait);
        !state.unwrap_or_else(PoisonError::into_inner).0.closing
    }

    pub fn close(&self) {
        lock(&self.state).closing = true;
        self.changed.notify_all();
    }

    /// Segments in use behind the current one, and spare.
    pub fn counts(&self) -> (usize, usize) {
        let state = lock(&self.state);
        (state.used.len(), state.spares.len())
    }

    /// Leaves the disk's space to somebody else: gives back what is not promised, allocates nothing
    /// ahead, and counts as full; or ends that.
    pub fn withhold(&self, withheld: bool) -> Result<(), Fatal> {
        self.withheld.store(withheld, SeqCst);
        if !withheld {
            self.poke();
            return Ok(());
        }
        self.wanted.store(0, SeqCst);
        self.shed(self.slack_bytes + self.set_aside_bytes)
    }

    pub fn is_full(&self) -> bool {
        self.full.load(SeqCst) || self.withheld.load(SeqCst)
    }

    /// Little enough at hand that the first writes after a start might be refused.
    pub fn is_low(&self) -> bool {
        let enough = self.slack_bytes + self.set_aside_bytes + self.segment_bytes / 4;
        self.at_hand.load(SeqCst) < enough
    }

    fn has_enough(&self) -> bool {
        self.at_hand.load(SeqCst) >= self.target()
    }

    /// What should be at hand when nothing special is asked for.
    fn target(&self) -> u64 {
        self.slack_bytes + self.set_aside_bytes + self.segment_bytes
    }

    fn poke(&self) {
        lock(&self.state).poked = true;
        self.changed.notify_all();
    }

    /// Gives back spare segments, as long as `target` and what is promised stay at hand, and a
    /// spare.
    fn shed(&self, target: u64) -> Result<(), Fatal> {
        loop {
            let spare = {
                let mut state = lock(&self.state);
                let room = state.spares.last().map_or(0, Segment::room);
                if state.spares.len() < 2 {
                    return Ok(());
                }
                // Taken first and looked at then: whoever reserves meanwhile sees it gone.
                self.use_up(room);
                let promised = self.promised.load(SeqCst).saturating_mul(2);
                if self.at_hand.load(SeqCst) < target.saturating_add(promised) {
                    self.add(room);
                    return Ok(());
                }
                state.spares.pop()
            };
            spare.iter().try_for_each(|spare| self.remove(spare))?;
        }
    }

    fn remove(&self, segment: &Segment) -> Result<(), Fatal> {
        self.disk
            .remove(&segment.path)
            .and_then(|()| self.disk.sync_dir(&self.dir))
            // Then it may be there again after a crash, as if that had come a little earlier.
            .or_else(|error| {
                if is_too_many(&error) {
                    Ok(())
                } else {
                    Err(error)
                }
            })
            .map_err(|error| Fatal::io("cannot remove the segment", &segment.path, error))
    }

    /// A new segment, allocated with real zeros; None when that cannot be had for now, because the
    /// disk is full or too many files are open.
    fn make(&self, bytes: u64) -> Result<Option<Segment>, Fatal> {
        let number = {
            let mut state = lock(&self.state);
            state.next_file += 1;
            state.next_file
        };
        let path = self.dir.join(file_name(number));
        let result = self.disk.create(&path).and_then(|file| {
            let segment = Segment {
                path: path.clone(),
                file,
                bytes,
            };
            fill(&segment)?;
            let header = SegmentHeader {
                folder_id: self.folder_id,
                number: 0,
                bytes,
                first_lsn: 0,
                incarnation: 0,
                chain: 0,
            };
            segment.file.write_durable_at(header.block().bytes(), 0)?;
            self.disk.sync_dir(&self.dir)?;
            Ok(segment)
        });
        match result {
            Ok(segment) => Ok(Some(segment)),
            Err(error) if is_full(&error) || is_too_many(&error) => {
                if is_too_many(&error) {
                    tracing::warn!("no new segment of the log yet: {error}");
                }
                // A file that could not even be created is not there to be removed.
                let _ = self.disk.remove(&path);
                Ok(None)
            }
            Err(error) => Err(Fatal::io("cannot prepare the segment", &path, error)),
        }
    }
}

/// Name of the `number`th segment file.
pub(super) fn file_name(number: u64) -> String {
    format!("segment-{number:08}")
}

/// The number in a segment file's name.
pub(super) fn file_number(name: &str) -> Option<u64> {
    name.strip_prefix("segment-")?.parse().ok()
}

fn fill(segment: &Segment) -> std::io::Result<()> {
    let mut zeros = AlignedBuffer::default();
    zeros.extend(&vec![
        0;
        (LOG_PIECE_BYTES as u64).min(segment.bytes) as usize
    ]);
    let mut offset = 0;
    while offset < segment.bytes {
        let piece = (zeros.bytes().len() as u64).min(segment.bytes - offset);
        segment
            .file
            .write_at(&zeros.bytes()[..piece as usize], offset)?;
        offset += piece;
        // In steps, so that a commit's sync never waits for a whole segment.
        if offset.is_multiple_of(8 * LOG_PIECE_BYTES as u64) || offset == segment.bytes {
            segment.file.sync()?;
        }
    }
    Ok(())
}
