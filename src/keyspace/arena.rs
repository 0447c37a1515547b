//! The packed memory of a segment: entries lie one behind another in chunks of at most
//! `CHUNK_BYTES`, none crosses a chunk's end. Only the last chunk grows, in steps that are the
//! allocator's own size classes, so that growth neither copies much nor rounds up unseen.
//! Entries are never freed one by one: the segment counts garbage and copies into a new arena.

use smallvec::SmallVec;

/// Size of a full chunk. An entry's offset is chunk number and place in the chunk.
const CHUNK_BYTES: usize = 1 << CHUNK_BITS;
const CHUNK_BITS: u32 = 11;
/// First size of a chunk behind a full one.
const CHUNK_BYTES_NEXT: usize = 512;
/// First size of a segment's first chunk.
const CHUNK_BYTES_FIRST: usize = 48;
/// Offsets are below this: they share a word with a tag, and all ones means "no cell".
pub(super) const OFFSET_LIMIT: u32 = (1 << 24) - 1;

/// Chunks of packed entries.
#[derive(Default)]
pub(super) struct Arena {
    /// The first one is found without another step.
    chunks: SmallVec<[Box<[u8]>; 1]>,
    /// Bytes used in the last chunk.
    tail: u32,
    /// Bytes given out, garbage included.
    given: u32,
    /// Bytes of all chunks.
    chunk_bytes: u32,
}

impl Arena {
    /// The bytes from `offset` to the end of its chunk.
    #[inline]
    pub(super) fn at(&self, offset: u32) -> &[u8] {
        let chunk = &self.chunks[(offset >> CHUNK_BITS) as usize];
        &chunk[offset as usize % CHUNK_BYTES..]
    }

    /// Like `at`, to be written.
    #[inline]
    pub(super) fn at_mut(&mut self, offset: u32) -> &mut [u8] {
        let chunk = &mut self.chunks[(offset >> CHUNK_BITS) as usize];
        &mut chunk[offset as usize % CHUNK_BYTES..]
    }

    /// Room for an entry of `bytes` (1 to 2,048).
    pub(super) fn allocate(&mut self, bytes: usize) -> u32 {
        assert!(bytes > 0 && bytes <= CHUNK_BYTES, "entry of {bytes} bytes");
        let used = self.tail as usize;
        let last_bytes = self.chunks.last().map_or(0, |chunk| chunk.len());
        if self.chunks.is_empty() || used + bytes > CHUNK_BYTES {
            self.add_chunk(bytes);
        } else if used + bytes > last_bytes {
            self.grow_last(size_class((used + bytes).max(last_bytes + 1)).min(CHUNK_BYTES));
        }
        let chunk = self.chunks.len() as u32 - 1;
        let offset = (chunk << CHUNK_BITS) | self.tail;
        assert!(offset < OFFSET_LIMIT, "arena is full");
        self.tail += bytes as u32;
        self.given += bytes as u32;
        offset
    }

    /// Bytes given out, garbage included.
    pub(super) fn given_bytes(&self) -> usize {
        self.given as usize
    }

    /// Bytes of memory.
    pub(super) fn heap_bytes(&self) -> usize {
        let list = if self.chunks.spilled() {
            self.chunks.capacity() * size_of::<Box<[u8]>>()
        } else {
            0
        };
        self.chunk_bytes as usize + list
    }

    fn add_chunk(&mut self, bytes: usize) {
        let first = if self.chunks.is_empty() {
            CHUNK_BYTES_FIRST
        } else {
            CHUNK_BYTES_NEXT
        };
        let size = size_class(bytes.max(first)).min(CHUNK_BYTES);
        self.chunks.reserve_exact(1);
        self.chunks.push(vec![0; size].into_boxed_slice());
        self.chunk_bytes += size as u32;
        self.tail = 0;
    }

    fn grow_last(&mut self, size: usize) {
        if let Some(last) = self.chunks.last_mut() {
            let mut bytes = std::mem::take(last).into_vec();
            self.chunk_bytes += (size - bytes.len()) as u32;
            bytes.reserve_exact(size - bytes.len());
            bytes.resize(size, 0);
            *last = bytes.into_boxed_slice();
        }
    }
}

/// The size that an allocation of `bytes` takes: multiples of 16 up to 64, then four steps per
/// doubling (mimalloc's and jemalloc's classes).
pub(super) fn size_class(bytes: usize) -> usize {
    let step = if bytes <= 64 {
        16
    } else {
        1 << ((bytes - 1).ilog2() - 2)
    };
    bytes.next_multiple_of(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_round_up_to_classes() {
        let classes = [
            (1, 16),
            (64, 64),
            (65, 80),
            (129, 160),
            (2047, 2048),
            (2870, 3072),
        ];
        for (bytes, class) in classes {
            assert_eq!(size_class(bytes), class);
        }
    }

    #[test]
    fn entries_stay_where_they_are_while_the_arena_grows() {
        let mut arena = Arena::default();
        let offsets: Vec<u32> = (0..1000)
            .map(|i| {
                let offset = arena.allocate(30 + i % 50);
                arena.at_mut(offset)[..4].copy_from_slice(&(i as u32).to_le_bytes());
                offset
            })
            .collect();
        for (i, offset) in offsets.into_iter().enumerate() {
            assert_eq!(arena.at(offset)[..4], (i as u32).to_le_bytes());
        }
        assert!(arena.heap_bytes() < arena.given_bytes() * 105 / 100);
    }
}
