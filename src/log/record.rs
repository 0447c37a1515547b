//! The record: what one group commit writes, and how it is known to be whole and in its place.
//!
//! Always true here: a record starts on a block boundary; its checksum covers the folder id (so
//! that a payload cannot imitate a record), the whole header and the payload; the header carries
//! the checksum of the record before it (the chain), so that a stale record in a recycled segment
//! never fits.
//!
//! Layout, little-endian, 64 bytes, then the payload, then zeros up to the next block:
//!
//! | bytes | field |
//! | --- | --- |
//! | 0..4 | magic |
//! | 4..8 | checksum (CRC32C of folder id, bytes 8..56, payload) |
//! | 8..12 | chain: the previous record's checksum, 0 for the first |
//! | 12..16 | number of batches; 0 is an empty record, which has an lsn of its own |
//! | 16..24 | payload length |
//! | 24..32 | lsn of the last batch |
//! | 32..40 | incarnation: one more per start |
//! | 40..48 | synced lsn: what was durable when this was written |
//! | 48..56 | time, milliseconds since the epoch |
//! | 56..60 | checksum of folder id and bytes 8..56: a header can be believed without its payload |
//! | 60..64 | zero, for later use |
//!
//! (A checksum must not run over another one of the same bytes: a CRC over a message and its CRC is
//! a constant.)
//!
//! Payload: each batch as length (8 bytes), time (8 bytes), bytes.

use bytes::{Buf, Bytes};

use super::{Batch, Lsn, Replayed};
use crate::limits::LOG_BLOCK_BYTES;

pub(super) const RECORD_HEADER_BYTES: u64 = 64;
pub(super) const BATCH_HEADER_BYTES: u64 = 16;
const MAGIC: [u8; 4] = *b"TLR1";

/// Bytes on disk of a record with this payload length.
pub(super) fn record_bytes(payload_bytes: u64) -> u64 {
    payload_bytes
        .saturating_add(RECORD_HEADER_BYTES)
        .next_multiple_of(LOG_BLOCK_BYTES)
}

/// Bytes of a batch within a payload.
pub(super) fn batch_bytes(batch: &Batch) -> u64 {
    BATCH_HEADER_BYTES
        + batch
            .parts
            .iter()
            .map(|part| part.len() as u64)
            .sum::<u64>()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub crc: u32,
    pub chain: u32,
    pub batches: u32,
    pub payload_bytes: u64,
    pub lsn: Lsn,
    pub incarnation: u64,
    pub synced_lsn: Lsn,
    pub time_ms: u64,
}

impl RecordHeader {
    /// The lsns of a record: its batches, or its own if it is empty.
    pub fn lsns(&self) -> u64 {
        u64::from(self.batches).max(1)
    }

    /// The header of these batches; sets `crc`.
    pub fn seal(&mut self, folder_id: u64, batches: &[Batch]) -> [u8; 64] {
        let mut bytes = self.bytes(folder_id);
        let mut crc = crc_of(folder_id, &bytes[8..56]);
        for_each_piece(batches, &mut |piece| {
            crc = crc32c::crc32c_append(crc, piece)
        });
        self.crc = crc;
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header as it is on disk.
    pub fn bytes(&self, folder_id: u64) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&self.crc.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.chain.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.batches.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.lsn.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.incarnation.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.synced_lsn.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.time_ms.to_le_bytes());
        let header_crc = crc_of(folder_id, &bytes[8..56]);
        bytes[56..60].copy_from_slice(&header_crc.to_le_bytes());
        bytes
    }

    /// Reads a header from the first 64 bytes; None if a record of this folder does not begin here.
    /// What is not yet known: whether the payload is whole.
    pub fn decode(folder_id: u64, bytes: &[u8]) -> Option<RecordHeader> {
        if bytes.len() < RECORD_HEADER_BYTES as usize || bytes[0..4] != MAGIC {
            return None;
        }
        if bytes[56..60] != crc_of(folder_id, &bytes[8..56]).to_le_bytes() {
            return None;
        }
        let mut rest = &bytes[4..];
        let header = RecordHeader {
            crc: rest.get_u32_le(),
            chain: rest.get_u32_le(),
            batches: rest.get_u32_le(),
            payload_bytes: rest.get_u64_le(),
            lsn: rest.get_u64_le(),
            incarnation: rest.get_u64_le(),
            synced_lsn: rest.get_u64_le(),
            time_ms: rest.get_u64_le(),
        };
        let whole = header.lsn >= header.lsns() && header.synced_lsn < header.lsn;
        (whole && bytes[60..64] == [0; 4]).then_some(header)
    }

    /// The checksum over header and payload is right.
    pub fn is_valid(&self, folder_id: u64, payload: &[u8]) -> bool {
        let crc = crc_of(folder_id, &self.bytes(folder_id)[8..56]);
        crc32c::crc32c_append(crc, payload) == self.crc
    }
}

fn crc_of(folder_id: u64, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&folder_id.to_le_bytes()), bytes)
}

/// The payload of these batches, piece by piece.
pub(super) fn for_each_piece(batches: &[Batch], piece: &mut dyn FnMut(&[u8])) {
    for batch in batches {
        let mut header = [0; BATCH_HEADER_BYTES as usize];
        let bytes = batch_bytes(batch) - BATCH_HEADER_BYTES;
        header[0..8].copy_from_slice(&bytes.to_le_bytes());
        header[8..16].copy_from_slice(&batch.time_ms.to_le_bytes());
        piece(&header);
        batch.parts.iter().for_each(|part| piece(part));
    }
}

/// The batches of a valid record. None if they do not fill the payload, which no writer produces.
pub(super) fn batches_of(header: &RecordHeader, mut payload: Bytes) -> Option<Vec<Replayed>> {
    let mut batches = Vec::new();
    for lsn in header.lsn + 1 - u64::from(header.batches)..=header.lsn {
        if payload.len() < BATCH_HEADER_BYTES as usize {
            return None;
        }
        let bytes = payload.get_u64_le();
        let time_ms = payload.get_u64_le();
        if bytes > payload.len() as u64 {
            return None;
        }
        batches.push(Replayed {
            lsn,
            time_ms,
            payload: payload.split_to(bytes as usize),
        });
    }
    payload.is_empty().then_some(batches)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_and_every_flipped_bit_is_seen() {
        let batch = |text: &'static str| Batch {
            parts: vec![
                Bytes::from_static(text.as_bytes()),
                Bytes::from_static(b"!"),
            ],
            time_ms: 7,
            reserved_bytes: 0,
        };
        let batches = [batch("one"), batch(""), batch("three")];
        let mut payload = Vec::new();
        for_each_piece(&batches, &mut |piece| payload.extend_from_slice(piece));
        let mut header = RecordHeader {
            crc: 0,
            chain: 9,
            batches: 3,
            payload_bytes: payload.len() as u64,
            lsn: 12,
            incarnation: 2,
            synced_lsn: 9,
            time_ms: 7,
        };
        let bytes = header.seal(77, &batches);
        assert_eq!(RecordHeader::decode(77, &bytes), Some(header));
        assert!(header.is_valid(77, &payload));
        assert!(!header.is_valid(78, &payload), "another folder's record");
        assert_eq!(RecordHeader::decode(78, &bytes), None);
        let other = RecordHeader {
            chain: 10,
            ..header
        };
        assert!(
            !other.is_valid(77, &payload),
            "the checksum covers the chain"
        );
        let read = batches_of(&header, Bytes::from(payload.clone())).unwrap();
        assert_eq!(
            read.iter().map(|batch| batch.lsn).collect::<Vec<_>>(),
            [10, 11, 12]
        );
        assert_eq!(&read[2].payload[..], b"three!");
        for bit in 0..64 * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            let seen = RecordHeader::decode(77, &flipped);
            let seen = seen.is_none_or(|read| !read.is_valid(77, &payload));
            assert!(seen, "bit {bit}");
        }
        assert_eq!(batches_of(&header, Bytes::from_static(b"short")), None);
    }
}
