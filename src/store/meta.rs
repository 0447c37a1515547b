//! The meta row: which position of the commit log the rows of the store stand for.
//!
//! Always true here: the first two bytes are the version and the last four the CRC32C of all before
//! them, in every version there will be, so that damage and a newer server can be told apart.
//! Numbers between are LEB128. Older versions are read; a checkpoint writes the newest.

use std::fmt;

use crate::limits::META_DATABASES_MAX;
use crate::log::{Known, Position};

/// The newest version of the meta row that this server reads, and the one it writes.
pub const META_VERSION: u16 = 3;

/// The newest version of what rows hold, and the one that is written.
pub const ROWS_FORMAT: u32 = 1;

/// The first version did not say how far rows reach.
const WITHOUT_ROWS_LSN: u16 = 1;
/// Up to this one it listed the ids of dead databases.
const WITH_DEAD_IDS: u16 = 2;
// The second one had no rows that say of a hash that its fields have no deadlines.

/// The position of a checkpoint and the state that belongs to it as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// The version of what rows hold, for a change of their values that old servers cannot read.
    pub format: u32,
    /// The last log record whose effects are all in the rows; 0 before the first.
    pub lsn: u64,
    /// That record's chain value: the record behind it must continue it.
    pub chain: u32,
    /// No row has an effect behind this lsn. At or above `lsn`, because shards go on while they are
    /// swept; durable in the log before the rows were, so a log that ends before it has lost
    /// something.
    pub rows_lsn: u64,
    /// That record's time, in milliseconds since the Unix epoch: the clock never goes behind it.
    pub time_ms: u64,
    /// No token at or above this was handed out.
    pub token_ceiling: u64,
    /// The database id of each number.
    pub databases: Vec<u32>,
    /// The next database id that was never used.
    pub next_database_id: u32,
    /// There may be rows of ids below that one that no number leads to any more.
    pub dead_databases: bool,
}

impl Meta {
    /// What this says of the log: where to read on, and that it reaches as far as the rows; and
    /// what the folder says, that it has a head.
    pub fn known(&self, has_head: bool) -> Known {
        let from = Position {
            lsn: self.lsn,
            chain: self.chain,
        };
        Known {
            from,
            durable_lsn: self.rows_lsn,
            has_head,
        }
    }

    /// The row's value.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = META_VERSION.to_le_bytes().to_vec();
        put_number(&mut out, u64::from(self.format));
        put_number(&mut out, self.lsn);
        put_number(&mut out, self.rows_lsn);
        out.extend_from_slice(&self.chain.to_le_bytes());
        put_number(&mut out, self.time_ms);
        put_number(&mut out, self.token_ceiling);
        put_list(&mut out, &self.databases);
        put_number(&mut out, u64::from(self.next_database_id));
        out.push(u8::from(self.dead_databases));
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads the row's value. A wrong CRC is damage; a newer version is refused as such.
    pub fn decode(bytes: &[u8]) -> Result<Meta, MetaError> {
        let (head, crc) = bytes.split_last_chunk::<4>().ok_or(MetaError::Damaged)?;
        if crc32c::crc32c(head) != u32::from_le_bytes(*crc) {
            return Err(MetaError::Damaged);
        }
        let (version, mut rest) = head.split_first_chunk::<2>().ok_or(MetaError::Damaged)?;
        let version = u16::from_le_bytes(*version);
        if !(WITHOUT_ROWS_LSN..=META_VERSION).contains(&version) {
            return Err(MetaError::Version(version));
        }
        let format = number_u32(&mut rest)?;
        if format > ROWS_FORMAT {
            return Err(MetaError::Rows(format));
        }
        let lsn = number(&mut rest)?;
        let rows_lsn = match version {
            WITHOUT_ROWS_LSN => lsn,
            _ => number(&mut rest)?,
        };
        let meta = Meta {
            format,
            lsn,
            rows_lsn,
            chain: fixed_u32(&mut rest)?,
            time_ms: number(&mut rest)?,
            token_ceiling: number(&mut rest)?,
            databases: list(&mut rest)?,
            next_database_id: number_u32(&mut rest)?,
            dead_databases: match version {
                ..=WITH_DEAD_IDS => !list(&mut rest)?.is_empty(),
                _ => flag(&mut rest)?,
            },
        };
        if rest.is_empty() && meta.rows_lsn >= meta.lsn {
            Ok(meta)
        } else {
            Err(MetaError::Damaged)
        }
    }
}

/// Why a meta row cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetaError {
    /// The bytes are not what was written.
    Damaged,
    /// A version that this server does not read.
    Version(u16),
    /// The same of the rows themselves.
    Rows(u32),
}

impl fmt::Display for MetaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MetaError::Damaged => write!(f, "its checksum or shape is wrong"),
            MetaError::Version(version) => write!(
                f,
                "it has version {version} and this server reads versions {WITHOUT_ROWS_LSN} to \
                 {META_VERSION}; start the newer server that wrote it"
            ),
            MetaError::Rows(format) => write!(
                f,
                "the rows have format {format} and this server reads formats up to {ROWS_FORMAT}; \
                 start the newer server that wrote them"
            ),
        }
    }
}

impl std::error::Error for MetaError {}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_list(out: &mut Vec<u8>, list: &[u32]) {
    assert!(
        list.len() <= META_DATABASES_MAX,
        "too many databases for the meta row"
    );
    put_number(out, list.len() as u64);
    for &item in list {
        put_number(out, u64::from(item));
    }
}

fn number(bytes: &mut &[u8]) -> Result<u64, MetaError> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(MetaError::Damaged)?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7F);
        if shift == 63 && bits > 1 {
            return Err(MetaError::Damaged);
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(MetaError::Damaged)
}

fn number_u32(bytes: &mut &[u8]) -> Result<u32, MetaError> {
    u32::try_from(number(bytes)?).map_err(|_| MetaError::Damaged)
}

fn fixed_u32(bytes: &mut &[u8]) -> Result<u32, MetaError> {
    let (head, rest) = bytes.split_first_chunk::<4>().ok_or(MetaError::Damaged)?;
    *bytes = rest;
    Ok(u32::from_le_bytes(*head))
}

fn flag(bytes: &mut &[u8]) -> Result<bool, MetaError> {
    let (&byte, rest) = bytes.split_first().ok_or(MetaError::Damaged)?;
    *bytes = rest;
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(MetaError::Damaged),
    }
}

fn list(bytes: &mut &[u8]) -> Result<Vec<u32>, MetaError> {
    let length = number(bytes)?;
    // Each item has a byte at least: no memory for a length that cannot be true.
    if length > META_DATABASES_MAX as u64 || length > bytes.len() as u64 {
        return Err(MetaError::Damaged);
    }
    (0..length).map(|_| number_u32(bytes)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn meta() -> impl Strategy<Value = Meta> {
        let head = (
            0..=ROWS_FORMAT,
            any::<(u64, u64)>(),
            any::<u32>(),
            any::<u64>(),
            any::<u64>(),
        );
        let databases = (vec(any::<u32>(), 0..40), any::<u32>(), any::<bool>());
        (head, databases).prop_map(|(head, databases)| Meta {
            format: head.0,
            lsn: head.1.0.min(head.1.1),
            rows_lsn: head.1.0.max(head.1.1),
            chain: head.2,
            time_ms: head.3,
            token_ceiling: head.4,
            databases: databases.0,
            next_database_id: databases.1,
            dead_databases: databases.2,
        })
    }

    proptest! {
        #[test]
        fn a_meta_row_decodes_to_what_was_encoded(meta in meta()) {
            prop_assert_eq!(Meta::decode(&meta.encode()), Ok(meta));
        }

        #[test]
        fn a_flipped_bit_is_damage(
            meta in meta(),
            at in any::<prop::sample::Index>(),
            bit in 0u32..8,
        ) {
            let mut bytes = meta.encode();
            let at = at.index(bytes.len());
            bytes[at] ^= 1u8 << bit;
            prop_assert_eq!(Meta::decode(&bytes), Err(MetaError::Damaged));
        }

        #[test]
        fn any_body_with_a_right_checksum_is_read_or_refused(body in vec(any::<u8>(), 0..60)) {
            let mut bytes = META_VERSION.to_le_bytes().to_vec();
            bytes.extend_from_slice(&body);
            let crc = crc32c::crc32c(&bytes);
            bytes.extend_from_slice(&crc.to_le_bytes());
            let _ = Meta::decode(&bytes);
        }
    }

    #[test]
    fn a_newer_version_is_refused_as_newer() {
        let bytes = sealed(META_VERSION + 1, b"whatever the future holds");
        assert_eq!(
            Meta::decode(&bytes),
            Err(MetaError::Version(META_VERSION + 1))
        );
        assert!(
            MetaError::Version(META_VERSION + 1)
                .to_string()
                .contains("newer server")
        );
    }

    #[test]
    fn rows_of_a_newer_format_are_refused() {
        let meta = Meta {
            format: ROWS_FORMAT + 1,
            ..Meta::default()
        };
        let error = Meta::decode(&meta.encode()).unwrap_err();
        assert_eq!(error, MetaError::Rows(2));
        let text = error.to_string();
        assert!(
            text.contains("format 2") && text.contains("newer server"),
            "{text}"
        );
    }

    #[test]
    fn the_first_version_is_read_as_if_rows_ended_at_its_position() {
        // Format 1, lsn 300, chain, time 5, ceiling 100, databases 0 and 1, next 2, none dead.
        let body = [1, 0xAC, 2, 4, 3, 2, 1, 5, 100, 2, 0, 1, 2, 0];
        let meta = Meta::decode(&sealed(1, &body)).unwrap();
        let expected = Meta {
            format: 1,
            lsn: 300,
            rows_lsn: 300,
            chain: 0x0102_0304,
            time_ms: 5,
            token_ceiling: 100,
            databases: vec![0, 1],
            next_database_id: 2,
            dead_databases: false,
        };
        assert_eq!(meta, expected);
        assert_eq!(meta.encode()[..2], META_VERSION.to_le_bytes());
    }

    #[test]
    fn the_second_version_listed_the_ids_of_dead_databases() {
        // Format 1, lsn 7, rows up to 9, chain, time 5, ceiling 100, databases 3 and 1, next 4.
        let head = [1, 7, 9, 4, 3, 2, 1, 5, 100, 2, 3, 1, 4];
        for (dead, expected) in [(&[0][..], false), (&[2, 0, 2], true)] {
            let meta = Meta::decode(&sealed(2, &[&head, dead].concat())).unwrap();
            assert_eq!((meta.rows_lsn, meta.next_database_id), (9, 4));
            assert_eq!(meta.dead_databases, expected);
        }
    }

    #[test]
    fn rows_that_end_before_their_position_are_damage() {
        let meta = Meta {
            lsn: 7,
            rows_lsn: 6,
            ..Meta::default()
        };
        assert_eq!(Meta::decode(&meta.encode()), Err(MetaError::Damaged));
    }

    fn sealed(version: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = [&version.to_le_bytes(), body].concat();
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }
}
