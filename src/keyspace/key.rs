//! A key on its way into the table: its bytes with the slot and the hash that were computed once.

use redis_protocol::redis_keyslot;
use xxhash_rust::xxh3::xxh3_64_with_seed;

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
            slot: redis_keyslot(bytes),
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

/// The stored 32-bit hash of a key; `seed` is the data folder's.
pub fn key_hash32(key: &[u8], seed: u64) -> u32 {
    (xxh3_64_with_seed(key, seed) >> 32) as u32
}

/// The stored 32-bit hash of a field name; `seed` is the data folder's.
pub fn field_hash32(field: &[u8], seed: u64) -> u32 {
    (xxh3_64_with_seed(field, seed) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_one_hash_tag_share_a_slot() {
        assert_eq!(Key::new(b"{user}a", 1).slot, Key::new(b"{user}b", 1).slot);
        assert_ne!(Key::new(b"{user}a", 1).hash, Key::new(b"{user}b", 1).hash);
        assert_ne!(Key::new(b"a", 1).hash, Key::new(b"a", 2).hash);
    }
}
