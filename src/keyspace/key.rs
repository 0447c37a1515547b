//! A key on its way into the table: its bytes with the slot and the hash that were computed once.

use crc::{CRC_16_XMODEM, Crc, Table};
use memchr::memchr;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::limits::SLOTS;

/// The checksum of slots, with tables for many bytes at once: every request computes it.
const SLOT_CRC: Crc<u16, Table<16>> = Crc::<u16, Table<16>>::new(&CRC_16_XMODEM);

/// The hash slot of a key, as in Redis Cluster: CRC16 of the key modulo 16,384; where it has a
/// non-empty `{hash tag}`, of the first such tag alone.
#[inline]
pub fn slot_of(key: &[u8]) -> u16 {
    SLOT_CRC.checksum(hashed_part(key)) % SLOTS
}

fn hashed_part(key: &[u8]) -> &[u8] {
    let Some(open) = memchr(b'{', key) else {
        return key;
    };
    let behind = &key[open + 1..];
    match memchr(b'}', behind) {
        Some(length) if length > 0 => &behind[..length],
        _ => key,
    }
}

/// A key, its hash slot and its seeded hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key<'a> {
    /// The key as the client sent it.
    pub bytes: &'a [u8],
    /// CRC16 of the key or of its hash tag, modulo 16,384.
    pub slot: u16,
    /// XXH3-64 of the bytes with the folder's seed.
    pub hash: u64,
}

impl<'a> Key<'a> {
    /// Computes slot and hash; `seed` is the data folder's and never changes.
    pub fn new(bytes: &'a [u8], seed: u64) -> Key<'a> {
        Key {
            bytes,
            slot: slot_of(bytes),
            hash: xxh3_64_with_seed(bytes, seed),
        }
    }

    /// The stored part of the hash: its high 32 bits. Memory and store iterate in its order.
    pub fn hash32(&self) -> u32 {
        (self.hash >> 32) as u32
    }

    /// Eight bits of the hash that are not stored: they tell the entries of a segment apart.
    pub(super) fn tag(&self) -> u8 {
        self.hash as u8
    }
}

/// The stored 32-bit hash of a field name; `seed` is the data folder's.
pub fn field_hash32(field: &[u8], seed: u64) -> u32 {
    (xxh3_64_with_seed(field, seed) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn slots_are_those_of_redis_cluster(key in "[a-c{}]{0,40}") {
            prop_assert_eq!(slot_of(key.as_bytes()), redis_protocol::redis_keyslot(key.as_bytes()));
        }
    }

    #[test]
    fn keys_of_one_hash_tag_share_a_slot() {
        assert_eq!(Key::new(b"{user}a", 1).slot, Key::new(b"{user}b", 1).slot);
        assert_ne!(Key::new(b"{user}a", 1).hash, Key::new(b"{user}b", 1).hash);
        assert_ne!(Key::new(b"a", 1).hash, Key::new(b"a", 2).hash);
    }
}
