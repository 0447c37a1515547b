//! The committer: writes one group as one record with one sync, and says that it is durable.
//!
//! A plain struct, driven by a thread or by hand. Always true here: records follow each other in
//! lsn order and in one chain; only the current segment holds anything unsynced, because a rotation
//! syncs first (so the header of a segment proves that everything before it is on disk); after an
//! error nothing is written again.

use std::sync::Arc;

use super::head::Head;
use super::queue::Shared;
use super::record::{RecordHeader, batch_bytes, for_each_piece, record_bytes};
use super::segment::{AlignedBuffer, Segment, SegmentHeader};
use super::{Batch, Fatal, Lsn, Position, SyncMode};
use crate::limits::{
    LOG_BLOCK_BYTES, LOG_EVERYSEC_US, LOG_GROUP_BYTES_MAX, LOG_PIECE_BYTES, LOG_WITNESS_AFTER_US,
};
use crate::sim::{self, Fault};

/// Where the next record goes.
pub(super) struct Tail {
    pub segment: Segment,
    pub number: u64,
    /// None where there was no room to make the first one.
    pub head: Option<Head>,
    pub offset: u64,
    /// The last record.
    pub position: Position,
    /// Of this start.
    pub incarnation: u64,
    pub time_ms: u64,
}

pub(super) struct Committer {
    shared: Arc<Shared>,
    tail: Tail,
    /// The last record that held a batch.
    last_batch_lsn: Lsn,
    /// What the written headers say was synced.
    witnessed_lsn: Lsn,
    /// The current segment holds writes that were not synced.
    dirty: bool,
    last_write_us: u64,
    last_sync_us: u64,
    buffer: AlignedBuffer,
}

impl Committer {
    pub fn new(shared: Arc<Shared>, tail: Tail) -> Committer {
        let now_us = shared.now_us();
        Committer {
            shared,
            last_batch_lsn: tail.position.lsn,
            witnessed_lsn: tail.position.lsn,
            tail,
            dirty: false,
            last_write_us: now_us,
            last_sync_us: 0,
            buffer: AlignedBuffer::default(),
        }
    }

    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// One round: writes the next group if there is one, makes what the mode asks for durable, and
    /// writes the witness when it is due. True if it did anything.
    pub fn round(&mut self) -> Result<bool, Fatal> {
        if let Some(fatal) = self.shared.failed() {
            return Err(fatal.clone());
        }
        let bytes_max = LOG_GROUP_BYTES_MAX
            .min(self.room())
            .saturating_sub(LOG_BLOCK_BYTES);
        let group = self.shared.take_group(bytes_max);
        if let Some((first_lsn, batches)) = &group {
            assert_eq!(
                *first_lsn,
                self.tail.position.lsn + 1,
                "lsn given out and lsn written"
            );
            self.commit(batches)?;
        }
        let now_us = self.shared.now_us();
        let synced = self.dirty && self.sync_is_due(now_us);
        if synced {
            self.sync()?;
        }
        let idle = group.is_none() && self.witness_due_us().is_some_and(|due| due <= now_us);
        let witnessed = idle && self.commit_empty()?;
        Ok(group.is_some() || synced || witnessed)
    }

    /// Writes these batches as one record; durable on return in mode always.
    pub fn commit(&mut self, batches: &[Batch]) -> Result<(), Fatal> {
        let payload_bytes = batches.iter().map(batch_bytes).sum();
        let bytes = record_bytes(payload_bytes);
        if bytes > self.room() {
            self.rotate(bytes)?;
        }
        let times = batches.iter().map(|batch| batch.time_ms);
        let mut header = RecordHeader {
            crc: 0,
            chain: self.tail.position.chain,
            batches: batches.len() as u32,
            payload_bytes,
            lsn: self.tail.position.lsn + (batches.len() as u64).max(1),
            incarnation: self.tail.incarnation,
            synced_lsn: self.shared.durable_lsn(),
            time_ms: times.max().unwrap_or(0).max(self.tail.time_ms),
        };
        let header_bytes = header.seal(self.shared.options.folder_id, batches);
        let early = sim::fault(Fault::DurableBeforeSync);
        let durably = self.shared.sync_mode() == SyncMode::Always && !self.dirty && !early;
        let began_us = self.shared.now_us();
        let durably = self.write_record(&header_bytes, batches, bytes, durably)? || early;
        let now_us = self.shared.now_us();

        self.dirty = !durably;
        self.tail.offset += bytes;
        self.tail.time_ms = header.time_ms;
        self.tail.position = Position {
            lsn: header.lsn,
            chain: header.crc,
        };
        self.witnessed_lsn = header.synced_lsn;
        self.last_write_us = now_us;
        if !batches.is_empty() {
            self.last_batch_lsn = header.lsn;
        }
        self.shared.space.written(bytes, payload_bytes);
        self.shared
            .counters
            .wrote(header.lsn, batches.len(), bytes, now_us);
        if durably {
            self.shared.counters.synced(now_us.saturating_sub(began_us));
            self.shared.publish(self.tail.position)?;
        }
        Ok(())
    }

    /// Writes an empty record, if it fits and nothing is queued: the witness of what was synced
    /// before it. It has an lsn of its own. A full segment does without.
    pub fn commit_empty(&mut self) -> Result<bool, Fatal> {
        if self.room() < LOG_BLOCK_BYTES {
            return Ok(false);
        }
        let Some(lsn) = self.shared.take_lsn() else {
            return Ok(false);
        };
        assert_eq!(
            lsn,
            self.tail.position.lsn + 1,
            "lsn given out and lsn written"
        );
        self.commit(&[])?;
        Ok(true)
    }

    /// Makes everything written durable.
    pub fn sync(&mut self) -> Result<(), Fatal> {
        let began_us = self.shared.now_us();
        let synced = match self.tail.segment.file.sync() {
            Err(_) if sim::fault(Fault::FailedSyncIgnored) => Ok(()),
            synced => synced,
        };
        synced.map_err(|error| Fatal::io("cannot sync the log", &self.tail.segment.path, error))?;
        self.dirty = false;
        self.last_sync_us = self.shared.now_us();
        self.shared
            .counters
            .synced(self.last_sync_us.saturating_sub(began_us));
        self.shared.publish(self.tail.position)
    }

    pub fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// When `round` has something to do although nothing is queued, in microseconds of the clock.
    pub fn due_us(&self) -> Option<u64> {
        let every_second = self.dirty && self.shared.sync_mode() == SyncMode::EverySec;
        let sync = every_second.then_some(self.last_sync_us + LOG_EVERYSEC_US);
        [sync, self.witness_due_us()].into_iter().flatten().min()
    }

    fn sync_is_due(&self, now_us: u64) -> bool {
        self.shared.sync_is_wanted()
            || match self.shared.sync_mode() {
                SyncMode::Always => true,
                SyncMode::EverySec => now_us >= self.last_sync_us + LOG_EVERYSEC_US,
                SyncMode::No => false,
            }
    }

    fn witness_due_us(&self) -> Option<u64> {
        let unwitnessed = self.last_batch_lsn > self.witnessed_lsn
            && self.shared.durable_lsn() >= self.last_batch_lsn
            && self.room() >= LOG_BLOCK_BYTES;
        unwitnessed.then_some(self.last_write_us + LOG_WITNESS_AFTER_US)
    }

    fn room(&self) -> u64 {
        self.tail.segment.bytes - self.tail.offset
    }

    /// True if the record is durable already.
    fn write_record(
        &mut self,
        header: &[u8; 64],
        batches: &[Batch],
        bytes: u64,
        durably: bool,
    ) -> Result<bool, Fatal> {
        let Tail {
            segment, offset, ..
        } = &self.tail;
        let failed = |error| Fatal::io("cannot write to the log", &segment.path, error);
        let buffer = &mut self.buffer;
        buffer.clear();
        buffer.extend(header);
        if bytes <= LOG_GROUP_BYTES_MAX {
            for_each_piece(batches, &mut |piece| buffer.extend(piece));
            buffer.pad();
            assert_eq!(buffer.bytes().len() as u64, bytes);
            if durably {
                match segment.file.write_durable_at(buffer.bytes(), *offset) {
                    Err(_) if sim::fault(Fault::FailedSyncIgnored) => {}
                    written => written.map_err(failed)?,
                }
            } else {
                segment
                    .file
                    .write_at(buffer.bytes(), *offset)
                    .map_err(failed)?;
            }
            return Ok(durably);
        }
        let mut at = *offset;
        let mut result = Ok(());
        for_each_piece(batches, &mut |piece| {
            for part in piece.chunks(LOG_PIECE_BYTES) {
                buffer.extend(part);
                if result.is_ok() && buffer.bytes().len() >= LOG_PIECE_BYTES {
                    result = segment.file.write_at(buffer.bytes(), at);
                    at += buffer.bytes().len() as u64;
                    buffer.clear();
                }
            }
        });
        let unpadded = at + buffer.bytes().len() as u64;
        let padding = offset + bytes - unpadded;
        buffer.extend(&vec![0; padding as usize]);
        result
            .and_then(|()| segment.file.write_at(buffer.bytes(), at))
            .map_err(failed)?;
        Ok(false)
    }

    /// Goes on in another segment, one with room for a record of `record_bytes`. Header and head
    /// are durable before the first record is.
    fn rotate(&mut self, record_bytes: u64) -> Result<(), Fatal> {
        if self.dirty {
            self.sync()?;
        }
        self.shared.space.use_up(self.room());
        let segment = self.shared.space.take(record_bytes)?;
        let number = self.tail.number + 1;
        segment.write_header(&SegmentHeader {
            folder_id: self.shared.options.folder_id,
            number,
            bytes: segment.bytes,
            first_lsn: self.tail.position.lsn + 1,
            incarnation: self.tail.incarnation,
            chain: self.tail.position.chain,
        })?;
        if let Some(head) = &self.tail.head {
            head.write(number)?;
        }
        let full = std::mem::replace(&mut self.tail.segment, segment);
        self.shared.space.retire(full, self.tail.position.lsn);
        self.tail.number = number;
        self.tail.offset = LOG_BLOCK_BYTES;
        Ok(())
    }
}
