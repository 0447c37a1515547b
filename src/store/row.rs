//! Row keys: where in the store each thing lives.
//!
//! Numbers are big-endian, so that the order of the bytes is the order of the fields:
//!
//! ```text
//! main      slot(2) 1(1) database(4) hash(4) length(2) key
//! field     slot(2) 2(1) database(4) hash(4) length(2) key generation(8) hash(4) field
//! retired   slot(2) 3(1) database(4) hash(4) length(2) key generation(8)
//! count     FFFE(2) slot(2) database(4)
//! deadline  FFFF(2) ms(8) slot(2) database(4) of(1) length(2) key [generation(8) field]
//! meta      FF × 10
//! ```
//!
//! Always true here: slots are below 16,384, so counts and deadline rows sort after every slot;
//! deadlines are below 2^63 ms, so the meta row sorts last. All counts lie together: a start reads
//! them and nothing else. Encoding asserts its lengths (they were checked at the edge), decoding
//! trusts nothing.

use std::fmt;

use crate::limits::{FIELD_BYTES_MAX, KEY_BYTES_MAX, SLOTS};

/// The one meta row; it sorts after every other row.
pub const META_KEY: [u8; 10] = [0xFF; 10];
/// Deadlines are below this, in milliseconds since the Unix epoch.
pub const DEADLINE_MS_END: u64 = 1 << 63;

/// Every count row sorts at or after this, every slot's row before.
pub const COUNTS_BEGIN: &[u8] = &COUNT_PREFIX;
/// Every deadline row sorts at or after this, every slot's row and every count before.
pub const DEADLINES_BEGIN: &[u8] = &DEADLINE_PREFIX;

const COUNT_PREFIX: [u8; 2] = [0xFF, 0xFE];
const DEADLINE_PREFIX: [u8; 2] = [0xFF, 0xFF];

/// What a slot's row holds, in the order in which the kinds sort within the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum RowKind {
    /// A key: its value, or what describes it when its parts are rows of their own.
    Main = 1,
    /// One field of a hash.
    Field = 2,
    /// A hash generation that is dead and whose fields are still to be removed.
    Retired = 3,
}

impl RowKind {
    /// All kinds in their order.
    pub const ALL: [RowKind; 3] = [RowKind::Main, RowKind::Field, RowKind::Retired];

    fn from_byte(byte: u8) -> Option<RowKind> {
        let place = usize::from(byte).checked_sub(1)?;
        RowKind::ALL.get(place).copied()
    }
}

/// The key that a row belongs to. The order of the fields is the order of the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyOf<'a> {
    /// Hash slot, below [`SLOTS`].
    pub slot: u16,
    /// Database id (not its number).
    pub database: u32,
    /// The stored hash: the high 32 bits of the key's seeded hash.
    pub hash: u32,
    /// The key, at most [`KEY_BYTES_MAX`] bytes.
    pub key: &'a [u8],
}

/// What a deadline row reminds of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeadlineOf<'a> {
    /// The key itself.
    Key,
    /// One field of a hash of this generation.
    Field {
        /// The hash's generation.
        generation: u64,
        /// The field.
        field: &'a [u8],
    },
}

/// A row's key, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RowKey<'a> {
    /// The number of keys of one database in a slot.
    Count {
        /// Hash slot.
        slot: u16,
        /// Database id.
        database: u32,
    },
    /// See [`RowKind::Main`].
    Main(KeyOf<'a>),
    /// See [`RowKind::Field`].
    Field {
        /// The hash's key.
        of: KeyOf<'a>,
        /// The hash's generation: a new one each time the hash is created.
        generation: u64,
        /// The stored hash of the field.
        hash: u32,
        /// The field, at most [`FIELD_BYTES_MAX`] bytes.
        field: &'a [u8],
    },
    /// See [`RowKind::Retired`].
    Retired {
        /// The hash's key.
        of: KeyOf<'a>,
        /// The dead generation.
        generation: u64,
    },
    /// A hint that something expires; its value is empty and firing verifies the main row.
    Deadline {
        /// Milliseconds since the Unix epoch, below [`DEADLINE_MS_END`].
        at_ms: u64,
        /// Hash slot.
        slot: u16,
        /// Database id.
        database: u32,
        /// The key.
        key: &'a [u8],
        /// What of it expires.
        of: DeadlineOf<'a>,
    },
    /// The meta row.
    Meta,
}

impl<'a> RowKey<'a> {
    /// The row's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        self.encode_to(&mut out);
        out
    }

    /// Appends the row's bytes.
    pub fn encode_to(&self, out: &mut Vec<u8>) {
        match *self {
            RowKey::Count { slot, database } => {
                assert!(slot < SLOTS, "no such slot");
                out.extend_from_slice(&COUNT_PREFIX);
                out.extend_from_slice(&slot.to_be_bytes());
                out.extend_from_slice(&database.to_be_bytes());
            }
            RowKey::Main(of) => put_key(out, RowKind::Main, of),
            RowKey::Field {
                of,
                generation,
                hash,
                field,
            } => {
                put_key(out, RowKind::Field, of);
                out.extend_from_slice(&generation.to_be_bytes());
                out.extend_from_slice(&hash.to_be_bytes());
                put_part(out, field);
            }
            RowKey::Retired { of, generation } => {
                put_key(out, RowKind::Retired, of);
                out.extend_from_slice(&generation.to_be_bytes());
            }
            RowKey::Deadline {
                at_ms,
                slot,
                database,
                key,
                of,
            } => {
                put_deadline(out, at_ms, slot, database, key, of);
            }
            RowKey::Meta => out.extend_from_slice(&META_KEY),
        }
    }

    /// Takes a row's bytes apart. Errors name the first thing that is wrong.
    pub fn decode(bytes: &'a [u8]) -> Result<RowKey<'a>, RowError> {
        if bytes == META_KEY {
            return Ok(RowKey::Meta);
        }
        let mut reader = Reader { bytes };
        let slot = u16::from_be_bytes(reader.array()?);
        if slot.to_be_bytes() == DEADLINE_PREFIX {
            return decode_deadline(reader);
        }
        if slot.to_be_bytes() == COUNT_PREFIX {
            let slot = checked_slot(u16::from_be_bytes(reader.array()?))?;
            let database = u32::from_be_bytes(reader.array()?);
            reader.end()?;
            return Ok(RowKey::Count { slot, database });
        }
        let slot = checked_slot(slot)?;
        let [kind] = reader.array()?;
        let kind = RowKind::from_byte(kind).ok_or(RowError::Kind(kind))?;
        let database = u32::from_be_bytes(reader.array()?);
        let hash = u32::from_be_bytes(reader.array()?);
        let key = reader.key()?;
        let of = KeyOf {
            slot,
            database,
            hash,
            key,
        };
        match kind {
            RowKind::Main => {
                reader.end()?;
                Ok(RowKey::Main(of))
            }
            RowKind::Field => Ok(RowKey::Field {
                of,
                generation: u64::from_be_bytes(reader.array()?),
                hash: u32::from_be_bytes(reader.array()?),
                field: reader.part()?,
            }),
            RowKind::Retired => {
                let generation = u64::from_be_bytes(reader.array()?);
                reader.end()?;
                Ok(RowKey::Retired { of, generation })
            }
        }
    }

    /// The kind of a slot's row; `None` for counts, deadline rows and the meta row.
    pub fn kind(&self) -> Option<RowKind> {
        match self {
            RowKey::Main(_) => Some(RowKind::Main),
            RowKey::Field { .. } => Some(RowKind::Field),
            RowKey::Retired { .. } => Some(RowKind::Retired),
            RowKey::Count { .. } | RowKey::Deadline { .. } | RowKey::Meta => None,
        }
    }

    /// The database id that the row belongs to; `None` for the meta row.
    pub fn database(&self) -> Option<u32> {
        match self {
            RowKey::Count { database, .. } | RowKey::Deadline { database, .. } => Some(*database),
            RowKey::Main(of) | RowKey::Field { of, .. } | RowKey::Retired { of, .. } => {
                Some(of.database)
            }
            RowKey::Meta => None,
        }
    }
}

/// A span of row keys: from (inclusive) and to (exclusive), as [`super::Store::scan`] takes them.
pub type Span = (Vec<u8>, Vec<u8>);

/// All rows of the slots `from..to`, of every kind.
pub fn slots(from: u16, to: u16) -> Span {
    assert!(from <= to && to <= SLOTS, "not a range of slots");
    (from.to_be_bytes().to_vec(), to.to_be_bytes().to_vec())
}

/// All rows of one kind in a slot.
pub fn kind_in_slot(slot: u16, kind: RowKind) -> Span {
    let mut prefix = Vec::with_capacity(3);
    put_slot(&mut prefix, slot, kind);
    span_of(prefix)
}

/// All rows of one kind and one database in a slot.
pub fn database_in_slot(slot: u16, kind: RowKind, database: u32) -> Span {
    let mut prefix = Vec::with_capacity(7);
    put_slot(&mut prefix, slot, kind);
    prefix.extend_from_slice(&database.to_be_bytes());
    span_of(prefix)
}

/// The main rows of a slot and database whose stored hash is at least `hash`: where a SCAN goes on.
pub fn main_from_hash(slot: u16, database: u32, hash: u32) -> Span {
    let (mut from, to) = database_in_slot(slot, RowKind::Main, database);
    from.extend_from_slice(&hash.to_be_bytes());
    (from, to)
}

/// All fields of one generation of a hash.
pub fn fields(of: KeyOf<'_>, generation: u64) -> Span {
    let mut prefix = Vec::with_capacity(64);
    put_key(&mut prefix, RowKind::Field, of);
    prefix.extend_from_slice(&generation.to_be_bytes());
    span_of(prefix)
}

/// The fields of one generation whose stored hash is at least `hash`: where an HSCAN goes on.
pub fn fields_from_hash(of: KeyOf<'_>, generation: u64, hash: u32) -> Span {
    let (mut from, to) = fields(of, generation);
    from.extend_from_slice(&hash.to_be_bytes());
    (from, to)
}

/// The counts of all slots.
pub fn counts() -> Span {
    (COUNTS_BEGIN.to_vec(), DEADLINES_BEGIN.to_vec())
}

/// The deadline rows from one moment (inclusive) to another (exclusive), in milliseconds.
pub fn deadlines(from_ms: u64, to_ms: u64) -> Span {
    let at = |ms: u64| {
        let mut bytes = DEADLINE_PREFIX.to_vec();
        bytes.extend_from_slice(&ms.min(DEADLINE_MS_END).to_be_bytes());
        bytes
    };
    (at(from_ms), at(to_ms))
}

/// Every row but the meta row.
pub fn everything() -> Span {
    (vec![0], META_KEY.to_vec())
}

/// What is wrong with a row key found on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowError {
    /// It ends too early.
    Short,
    /// It goes on after its end; by so many bytes.
    Long(usize),
    /// No such slot.
    Slot(u16),
    /// No such kind of row.
    Kind(u8),
    /// No such kind of deadline.
    Deadline(u8),
    /// A deadline beyond the end of time, in milliseconds.
    Time(u64),
    /// A key or field longer than allowed, in bytes.
    Length(usize),
}

impl fmt::Display for RowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RowError::Short => write!(f, "row key is cut short"),
            RowError::Long(bytes) => write!(f, "row key has {bytes} bytes too many"),
            RowError::Slot(slot) => write!(f, "row key of slot {slot}"),
            RowError::Kind(kind) => write!(f, "row key of unknown kind {kind}"),
            RowError::Deadline(kind) => write!(f, "deadline row of unknown kind {kind}"),
            RowError::Time(ms) => write!(f, "deadline row at {ms} ms"),
            RowError::Length(bytes) => write!(f, "row key with a part of {bytes} bytes"),
        }
    }
}

impl std::error::Error for RowError {}

fn put_slot(out: &mut Vec<u8>, slot: u16, kind: RowKind) {
    assert!(slot < SLOTS, "no such slot");
    out.extend_from_slice(&slot.to_be_bytes());
    out.push(kind as u8);
}

fn put_key(out: &mut Vec<u8>, kind: RowKind, of: KeyOf<'_>) {
    put_slot(out, of.slot, kind);
    out.extend_from_slice(&of.database.to_be_bytes());
    out.extend_from_slice(&of.hash.to_be_bytes());
    put_key_bytes(out, of.key);
}

fn put_key_bytes(out: &mut Vec<u8>, key: &[u8]) {
    assert!(key.len() <= KEY_BYTES_MAX, "key too long for a row");
    out.extend_from_slice(&(key.len() as u16).to_be_bytes());
    out.extend_from_slice(key);
}

fn put_part(out: &mut Vec<u8>, part: &[u8]) {
    assert!(part.len() <= FIELD_BYTES_MAX, "field too long for a row");
    out.extend_from_slice(part);
}

fn put_deadline(
    out: &mut Vec<u8>,
    at_ms: u64,
    slot: u16,
    database: u32,
    key: &[u8],
    of: DeadlineOf<'_>,
) {
    assert!(at_ms < DEADLINE_MS_END, "deadline beyond the end of time");
    assert!(slot < SLOTS, "no such slot");
    out.extend_from_slice(&DEADLINE_PREFIX);
    out.extend_from_slice(&at_ms.to_be_bytes());
    out.extend_from_slice(&slot.to_be_bytes());
    out.extend_from_slice(&database.to_be_bytes());
    out.push(match of {
        DeadlineOf::Key => 0,
        DeadlineOf::Field { .. } => 1,
    });
    put_key_bytes(out, key);
    match of {
        DeadlineOf::Key => {}
        DeadlineOf::Field { generation, field } => {
            out.extend_from_slice(&generation.to_be_bytes());
            put_part(out, field);
        }
    }
}

fn decode_deadline(mut reader: Reader<'_>) -> Result<RowKey<'_>, RowError> {
    let at_ms = u64::from_be_bytes(reader.array()?);
    if at_ms >= DEADLINE_MS_END {
        return Err(RowError::Time(at_ms));
    }
    let slot = checked_slot(u16::from_be_bytes(reader.array()?))?;
    let database = u32::from_be_bytes(reader.array()?);
    let [kind] = reader.array()?;
    let key = reader.key()?;
    let of = match kind {
        0 => {
            reader.end()?;
            DeadlineOf::Key
        }
        1 => DeadlineOf::Field {
            generation: u64::from_be_bytes(reader.array()?),
            field: reader.part()?,
        },
        other => return Err(RowError::Deadline(other)),
    };
    Ok(RowKey::Deadline {
        at_ms,
        slot,
        database,
        key,
        of,
    })
}

fn checked_slot(slot: u16) -> Result<u16, RowError> {
    if slot < SLOTS {
        Ok(slot)
    } else {
        Err(RowError::Slot(slot))
    }
}

/// The span of all keys that begin with `prefix`, which never consists of 0xFF bytes alone.
fn span_of(prefix: Vec<u8>) -> Span {
    let mut to = prefix.clone();
    while to.last() == Some(&0xFF) {
        to.pop();
    }
    *to.last_mut().expect("a slot is below 0xFFFF") += 1;
    (prefix, to)
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], RowError> {
        let (head, rest) = self.bytes.split_first_chunk::<N>().ok_or(RowError::Short)?;
        self.bytes = rest;
        Ok(*head)
    }

    fn key(&mut self) -> Result<&'a [u8], RowError> {
        let length = usize::from(u16::from_be_bytes(self.array()?));
        if length > KEY_BYTES_MAX {
            return Err(RowError::Length(length));
        }
        let (key, rest) = self.bytes.split_at_checked(length).ok_or(RowError::Short)?;
        self.bytes = rest;
        Ok(key)
    }

    /// The rest of the row: a field.
    fn part(&mut self) -> Result<&'a [u8], RowError> {
        if self.bytes.len() > FIELD_BYTES_MAX {
            return Err(RowError::Length(self.bytes.len()));
        }
        Ok(std::mem::take(&mut self.bytes))
    }

    fn end(&self) -> Result<(), RowError> {
        if self.bytes.is_empty() {
            Ok(())
        } else {
            Err(RowError::Long(self.bytes.len()))
        }
    }
}

#[cfg(test)]
#[path = "row_tests.rs"]
mod tests;
