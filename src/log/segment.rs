//! Segments: files of fixed size that hold the records one after the other, and the aligned buffer
//! through which they are written.
//!
//! Always true here: a segment's file is fully allocated (real zeros, synced) before its first
//! valid header is written, and its header is durable before its first record; what a file is is
//! said by its header alone, never by its name. Number 0 marks a prepared segment that was never
//! used.
//!
//! Header, little-endian, in a block of its own: magic (8), version (4), checksum of the rest (4),
//! folder id (8), number (8), bytes of the segment (8), first lsn (8), incarnation (8), chain at
//! the start (4), zeros.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Buf;

use super::disk::DiskFile;
use super::{Fatal, Lsn};
use crate::limits::LOG_BLOCK_BYTES;

const MAGIC: [u8; 8] = *b"tallylog";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub folder_id: u64,
    pub number: u64,
    pub bytes: u64,
    pub first_lsn: Lsn,
    pub incarnation: u64,
    pub chain: u32,
}

/// What the first block of a file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SegmentKind {
    /// A header of this format; the folder id is not checked yet.
    Ours(SegmentHeader),
    /// Whole, but written by a program with another format.
    OtherVersion(u32),
    /// No valid header: never finished, torn, or damaged.
    Unknown,
}

impl SegmentHeader {
    pub fn block(&self) -> AlignedBuffer {
        let mut block = AlignedBuffer::default();
        block.extend(&MAGIC);
        block.extend(&VERSION.to_le_bytes());
        block.extend(&[0; 4]);
        for number in [
            self.folder_id,
            self.number,
            self.bytes,
            self.first_lsn,
            self.incarnation,
        ] {
            block.extend(&number.to_le_bytes());
        }
        block.extend(&self.chain.to_le_bytes());
        block.pad();
        let crc = crc_of_header(block.bytes());
        block.bytes_mut()[12..16].copy_from_slice(&crc.to_le_bytes());
        block
    }

    /// Reads the first bytes of a file, at least 64.
    pub fn decode(block: &[u8]) -> SegmentKind {
        if block.len() < HEADER_BYTES || block[0..8] != MAGIC {
            return SegmentKind::Unknown;
        }
        let mut rest = &block[8..];
        let version = rest.get_u32_le();
        if rest.get_u32_le() != crc_of_header(block) {
            return SegmentKind::Unknown;
        }
        if version != VERSION {
            return SegmentKind::OtherVersion(version);
        }
        SegmentKind::Ours(SegmentHeader {
            folder_id: rest.get_u64_le(),
            number: rest.get_u64_le(),
            bytes: rest.get_u64_le(),
            first_lsn: rest.get_u64_le(),
            incarnation: rest.get_u64_le(),
            chain: rest.get_u32_le(),
        })
    }
}

fn crc_of_header(block: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&block[0..12]), &block[16..HEADER_BYTES])
}

/// A file of the log.
#[derive(Clone)]
pub(super) struct Segment {
    pub path: PathBuf,
    pub file: Arc<dyn DiskFile>,
    pub bytes: u64,
}

impl Segment {
    /// Bytes for records.
    pub fn room(&self) -> u64 {
        self.bytes - LOG_BLOCK_BYTES
    }

    /// Makes `header` this segment's, durably.
    pub fn write_header(&self, header: &SegmentHeader) -> Result<(), Fatal> {
        assert_eq!(header.bytes, self.bytes);
        self.file
            .write_durable_at(header.block().bytes(), 0)
            .map_err(|error| Fatal::io("cannot write the segment header", &self.path, error))
    }
}

/// Bytes at a block-aligned address, as direct I/O wants them: a slice of a larger allocation.
#[derive(Default)]
pub(super) struct AlignedBuffer {
    memory: Vec<u8>,
    start: usize,
    used: usize,
}

impl AlignedBuffer {
    pub fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.used]
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.used]
    }

    pub fn clear(&mut self) {
        self.used = 0;
    }

    /// Makes room for `bytes` in all, keeping what is there.
    pub fn reserve(&mut self, bytes: usize) {
        if bytes <= self.memory.len().saturating_sub(self.start) {
            return;
        }
        let block = LOG_BLOCK_BYTES as usize;
        let memory = vec![0; bytes.next_power_of_two().max(block) + block];
        let start = memory.as_ptr().align_offset(block);
        let mut grown = AlignedBuffer {
            memory,
            start,
            used: self.used,
        };
        grown.bytes_mut().copy_from_slice(self.bytes());
        *self = grown;
    }

    pub fn extend(&mut self, bytes: &[u8]) {
        self.reserve(self.used + bytes.len());
        let end = self.start + self.used;
        self.memory[end..end + bytes.len()].copy_from_slice(bytes);
        self.used += bytes.len();
    }

    /// Zeros up to the next block boundary.
    pub fn pad(&mut self) {
        let padded = self.used.next_multiple_of(LOG_BLOCK_BYTES as usize);
        self.reserve(padded);
        let end = self.start + self.used;
        self.memory[end..self.start + padded].fill(0);
        self.used = padded;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_header_reads_back_and_every_flipped_bit_is_seen() {
        let header = SegmentHeader {
            folder_id: 1,
            number: 2,
            bytes: 3,
            first_lsn: 4,
            incarnation: 5,
            chain: 6,
        };
        let mut block = header.block();
        assert_eq!(block.bytes().len(), LOG_BLOCK_BYTES as usize);
        assert_eq!(
            block
                .bytes()
                .as_ptr()
                .align_offset(LOG_BLOCK_BYTES as usize),
            0
        );
        assert_eq!(
            SegmentHeader::decode(block.bytes()),
            SegmentKind::Ours(header)
        );
        for bit in 0..HEADER_BYTES * 8 {
            block.bytes_mut()[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                SegmentHeader::decode(block.bytes()),
                SegmentKind::Unknown,
                "bit {bit}"
            );
            block.bytes_mut()[bit / 8] ^= 1 << (bit % 8);
        }
        block.bytes_mut()[8] = 2;
        let crc = crc_of_header(block.bytes());
        block.bytes_mut()[12..16].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(
            SegmentHeader::decode(block.bytes()),
            SegmentKind::OtherVersion(2)
        );
    }

    #[test]
    fn an_aligned_buffer_keeps_its_bytes_when_it_grows() {
        let mut buffer = AlignedBuffer::default();
        for number in 0..100_000u32 {
            buffer.extend(&number.to_le_bytes());
        }
        buffer.pad();
        assert_eq!(buffer.bytes().as_ptr().align_offset(4096), 0);
        assert_eq!(buffer.bytes().len() % 4096, 0);
        assert!(
            (0..100_000u32).all(|n| { buffer.bytes()[n as usize * 4..][..4] == n.to_le_bytes() })
        );
    }
}
