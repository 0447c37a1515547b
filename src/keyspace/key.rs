//! A key on its way into the table: its bytes with the slot and the hash that were computed once.

use crc::{CRC_16_XMODEM, Crc, Table};
use memchr::memchr;
use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

use super::databases::is_shadow;
use crate::limits::SLOTS;

/// The checksum of slots, with tables for many bytes at once: every request computes it.
const SLOT_CRC: Crc<u16, Table<16>> = Crc::<u16, Table<16>>::new(&CRC_16_XMODEM);

/// The hash slot of a key, as in Redis Cluster: CRC16 of the key modulo 16,384; where it has a
/// non-empty `{hash tag}`, of the first such tag alone.
#[inline]
pub fn key_slot(key: &[u8]) -> u16 {
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
            slot: key_slot(bytes),
            hash: xxh3_64_with_seed(bytes, seed),
        }
    }

    /// The same for a key as it was logged or stored: in a shadow it is a record's, whose slot is
    /// that of the key it belongs to.
    pub fn of_database(database: u32, bytes: &'a [u8], seed: u64) -> Key<'a> {
        Key {
            bytes,
            slot: slot_of(database, bytes),
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

/// The slot of a key as it was logged or stored.
pub fn slot_of(database: u32, bytes: &[u8]) -> u16 {
    key_slot(match is_shadow(database) {
        true => owner_of(bytes),
        false => bytes,
    })
}

/// The key of a record in a shadow: length of the key that it belongs to, this key, the id.
pub(super) fn record_key(owner: &[u8], id: &[u8]) -> Vec<u8> {
    [&(owner.len() as u16).to_be_bytes(), owner, id].concat()
}

/// The key that a record belongs to; of bytes that are none, all of them.
fn owner_of(record: &[u8]) -> &[u8] {
    let owner = record.split_first_chunk().and_then(|(length, rest)| {
        let length = usize::from(u16::from_be_bytes(*length));
        rest.get(..length)
    });
    owner.unwrap_or(record)
}

/// 128 bits that tell one list of byte strings from another; `seed` is the data folder's.
pub fn digest<'a>(parts: impl Iterator<Item = &'a [u8]>, seed: u64) -> u128 {
    let mut hasher = Xxh3::with_seed(seed);
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.digest128()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::keyspace::databases::shadow_of;

    #[test]
    fn a_record_lives_in_the_slot_of_its_key() {
        for owner in [&b"a"[..], b"{user}a", b"a}b", b"", &[b'x'; 30_000]] {
            for id in [&b"1"[..], b"{other}", b"}", b"\0"] {
                let record = record_key(owner, id);
                let key = Key::of_database(shadow_of(3), &record, 1);
                assert_eq!(key.slot, Key::new(owner, 1).slot);
                assert_eq!(Key::of_database(3, &record, 1), Key::new(&record, 1));
            }
        }
        // Bytes that no record has: some slot, and no panic.
        for bytes in [&b""[..], b"a", b"\xff\xff", b"\x00\x05abcd"] {
            assert_eq!(slot_of(shadow_of(0), bytes), key_slot(bytes));
        }
    }

    #[test]
    fn a_digest_tells_where_one_part_ends() {
        let of = |parts: &[&'static str]| digest(parts.iter().map(|part| part.as_bytes()), 1);
        assert_eq!(of(&["ab", "c"]), of(&["ab", "c"]));
        assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
        assert_ne!(of(&["ab"]), of(&["ab", ""]));
    }

    proptest! {
        #[test]
        fn slots_are_those_of_redis_cluster(key in "[a-c{}]{0,40}") {
            let key = key.as_bytes();
            prop_assert_eq!(key_slot(key), redis_protocol::redis_keyslot(key));
        }
    }

    #[test]
    fn keys_of_one_hash_tag_share_a_slot() {
        assert_eq!(Key::new(b"{user}a", 1).slot, Key::new(b"{user}b", 1).slot);
        assert_ne!(Key::new(b"{user}a", 1).hash, Key::new(b"{user}b", 1).hash);
        assert_ne!(Key::new(b"a", 1).hash, Key::new(b"a", 2).hash);
    }
}
