//! The bytes of values and effects, as the commit log and the store keep them.
//!
//! Numbers are LEB128 varints (signed ones zigzag), byte strings are length-prefixed. A value is
//! kind, deadline, payload; a *mutation* is one effect of a sealed turn, absolute and idempotent
//! over a newer row. What does not decode is damage with a name, never a panic.

use bytes::{Bytes, BytesMut};

use crate::keyspace::FieldValue;
use crate::keyspace::cell::Cell;
use crate::keyspace::databases::is_shadow;
use crate::keyspace::hold::{End, Hold, Sheet};
use crate::keyspace::value::{Value, ValueRef};
use crate::limits::STRING_BYTES_MAX;

/// Bytes that do not decode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecodable(pub &'static str);

impl std::fmt::Display for Undecodable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot be decoded: {}", self.0)
    }
}

impl std::error::Error for Undecodable {}

/// Strings from this size on travel as shared buffers instead of being copied into the batch.
const SHARED_BYTES_MIN: usize = 16 * 1024;

const KIND_COUNTER: u8 = 1;
const KIND_STRING: u8 = 2;
const KIND_CELL: u8 = 3;
const KIND_HASH: u8 = 4;
const KIND_HOLD: u8 = 5;
/// A hash of which no field has a deadline or is an open hold.
const KIND_PLAIN_HASH: u8 = 6;

const PUT: u8 = 1;
const DELETE: u8 = 2;
const DEADLINE: u8 = 3;
const PART: u8 = 4;
const FIELDS: u8 = 5;
const COUNT: u8 = 6;
const DATABASES: u8 = 7;
const TOKEN_CEILING: u8 = 8;
const RETIRED: u8 = 16;

const FIELD_PUT: u8 = 1;
const FIELD_DELETE: u8 = 2;

/// A stored value: a hash gives only its head, its fields are rows of their own.
#[derive(Clone, Debug, PartialEq)]
pub enum Stored {
    /// A counter, string or state cell; never a hash.
    Value(Value),
    /// The head of a hash.
    Hash {
        /// Part of the field rows' keys.
        generation: u64,
        /// Number of fields.
        length: u64,
        /// No field has a deadline or is an open hold. Older servers never said so.
        plain: bool,
    },
}

/// One effect of a turn, as it lies in a batch.
#[derive(Clone, Debug, PartialEq)]
pub enum Mutation<'a> {
    /// The key has this value and deadline (0: none).
    Put {
        /// Database id.
        database: u32,
        /// The key.
        key: &'a [u8],
        /// Deadline in ms since the Unix epoch; 0: none.
        deadline_ms: u64,
        /// The value; of a hash only the head.
        stored: Stored,
    },
    /// The key is gone.
    Delete {
        /// Database id.
        database: u32,
        /// The key.
        key: &'a [u8],
    },
    /// The key has this deadline (0: none).
    Deadline {
        /// Database id.
        database: u32,
        /// The key.
        key: &'a [u8],
        /// Deadline in ms since the Unix epoch; 0: none.
        deadline_ms: u64,
    },
    /// Bytes at an offset of the string at key, whose length afterwards is `total`.
    Part {
        /// Database id.
        database: u32,
        /// The key.
        key: &'a [u8],
        /// Offset in bytes.
        offset: u64,
        /// The bytes there.
        bytes: &'a [u8],
        /// Length of the whole string.
        total: u64,
    },
    /// These fields of the hash; a hash of another generation is replaced by it.
    Fields {
        /// Database id.
        database: u32,
        /// The key.
        key: &'a [u8],
        /// Deadline of the key in ms since the Unix epoch; 0: none.
        deadline_ms: u64,
        /// Generation of the hash.
        generation: u64,
        /// Number of fields afterwards.
        length: u64,
        /// The changed fields; `None`: removed.
        fields: Vec<ChangedField<'a>>,
    },
    /// A slot holds so many keys of a database.
    Count {
        /// The slot.
        slot: u16,
        /// Database id.
        database: u32,
        /// Keys.
        keys: u64,
    },
    /// The key's hash of this generation is gone for good: nobody reads its field rows any more.
    Retired {
        /// Database id.
        database: u32,
        /// The key.
        key: &'a [u8],
        /// Generation of the hash.
        generation: u64,
    },
    /// The map of databases.
    Databases {
        /// Ids by number.
        ids: Vec<u32>,
        /// The next unused id.
        next: u32,
    },
    /// No token at or above it was handed out before this was durable.
    TokenCeiling(u64),
}

impl<'a> Mutation<'a> {
    /// The key that it changes, with its database id.
    #[inline]
    pub fn key(&self) -> Option<(u32, &'a [u8])> {
        match self {
            Mutation::Put { database, key, .. }
            | Mutation::Delete { database, key }
            | Mutation::Deadline { database, key, .. }
            | Mutation::Part { database, key, .. }
            | Mutation::Fields { database, key, .. }
            | Mutation::Retired { database, key, .. } => Some((*database, key)),
            Mutation::Count { .. } | Mutation::Databases { .. } | Mutation::TokenCeiling(_) => None,
        }
    }
}

/// A field that changed: its name, and its value and deadline or `None` where it was removed.
pub type ChangedField<'a> = (&'a [u8], Option<(FieldValue, u64)>);

// ---- writing ---------------------------------------------------------------------------------

/// A batch in the making: bytes, with large strings in between that are shared, not copied.
#[derive(Debug, Default)]
pub struct BatchBuilder {
    parts: Vec<Bytes>,
    tail: Vec<u8>,
}

impl BatchBuilder {
    /// Room for so many bytes, where it is known about how many there will be.
    pub fn with_room(bytes: usize) -> BatchBuilder {
        BatchBuilder {
            parts: Vec::new(),
            tail: Vec::with_capacity(bytes),
        }
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty() && self.tail.is_empty()
    }

    /// The finished parts.
    pub fn finish(mut self) -> Vec<Bytes> {
        if !self.tail.is_empty() {
            self.parts.push(Bytes::from(self.tail));
        }
        self.parts
    }

    #[inline]
    fn head(&mut self, tag: u8, database: u32, key: &[u8]) {
        if database < 0x80 && key.len() < 0x80 {
            // As below, where each number is one byte.
            self.tail
                .extend_from_slice(&[tag, database as u8, key.len() as u8]);
            self.tail.extend_from_slice(key);
            return;
        }
        self.tail.push(tag);
        put_u64(&mut self.tail, u64::from(database));
        put_bytes(&mut self.tail, key);
    }

    fn shared(&mut self, bytes: Bytes) {
        if bytes.len() < SHARED_BYTES_MIN {
            self.tail.extend_from_slice(&bytes);
            return;
        }
        self.parts.push(Bytes::from(std::mem::take(&mut self.tail)));
        self.parts.push(bytes);
    }

    /// The key has this value; `shared` is its buffer where it is a large string.
    pub fn put(
        &mut self,
        database: u32,
        key: &[u8],
        value: ValueRef<'_>,
        deadline_ms: u64,
        shared: Option<Bytes>,
    ) {
        self.head(PUT, database, key);
        match (value, shared) {
            (ValueRef::String(_), Some(bytes)) if bytes.len() >= SHARED_BYTES_MIN => {
                self.tail.push(KIND_STRING);
                put_u64(&mut self.tail, deadline_ms);
                put_u64(&mut self.tail, bytes.len() as u64);
                self.shared(bytes);
            }
            _ => put_value(&mut self.tail, value, deadline_ms),
        }
    }

    /// The key is gone.
    pub fn delete(&mut self, database: u32, key: &[u8]) {
        self.head(DELETE, database, key);
    }

    /// The key has this deadline.
    pub fn deadline(&mut self, database: u32, key: &[u8], deadline_ms: u64) {
        self.head(DEADLINE, database, key);
        put_u64(&mut self.tail, deadline_ms);
    }

    /// A part of a string.
    pub fn part(&mut self, database: u32, key: &[u8], offset: u64, bytes: Bytes, total: u64) {
        self.head(PART, database, key);
        put_u64(&mut self.tail, offset);
        put_u64(&mut self.tail, total);
        put_u64(&mut self.tail, bytes.len() as u64);
        self.shared(bytes);
    }

    /// Begins the changed fields of a hash; as many `field` calls as `count` follow.
    pub fn fields(
        &mut self,
        database: u32,
        key: &[u8],
        (deadline_ms, generation, length): (u64, u64, u64),
        count: usize,
    ) {
        self.head(FIELDS, database, key);
        for number in [deadline_ms, generation, length, count as u64] {
            put_u64(&mut self.tail, number);
        }
    }

    /// One changed field; `None`: removed.
    pub fn field(&mut self, name: &[u8], value: Option<(&FieldValue, u64)>) {
        match value {
            Some((value, expires_at_ms)) => {
                self.tail.push(FIELD_PUT);
                put_bytes(&mut self.tail, name);
                put_field(&mut self.tail, value, expires_at_ms);
            }
            None => {
                self.tail.push(FIELD_DELETE);
                put_bytes(&mut self.tail, name);
            }
        }
    }

    /// The number of keys of a slot and database.
    pub fn count(&mut self, slot: u16, database: u32, keys: u64) {
        self.tail.push(COUNT);
        put_u64(&mut self.tail, u64::from(slot));
        put_u64(&mut self.tail, u64::from(database));
        put_u64(&mut self.tail, keys);
    }

    /// A hash is gone for good.
    pub fn retired(&mut self, database: u32, key: &[u8], generation: u64) {
        self.head(RETIRED, database, key);
        put_u64(&mut self.tail, generation);
    }

    /// The map of databases.
    pub fn databases(&mut self, ids: &[u32], next: u32) {
        self.tail.push(DATABASES);
        put_u64(&mut self.tail, u64::from(next));
        put_u64(&mut self.tail, ids.len() as u64);
        for &id in ids {
            put_u64(&mut self.tail, u64::from(id));
        }
    }

    /// A ceiling of tokens.
    pub fn token_ceiling(&mut self, ceiling: u64) {
        self.tail.push(TOKEN_CEILING);
        put_u64(&mut self.tail, ceiling);
    }
}

/// Appends kind, deadline and payload of a value; of a hash its head.
pub fn put_value(out: &mut Vec<u8>, value: ValueRef<'_>, deadline_ms: u64) {
    let kind = match value {
        ValueRef::Counter(_) => KIND_COUNTER,
        ValueRef::String(_) => KIND_STRING,
        ValueRef::Cell(_) => KIND_CELL,
        ValueRef::Hash(hash) if hash.is_plain() => KIND_PLAIN_HASH,
        ValueRef::Hash(_) => KIND_HASH,
    };
    out.push(kind);
    put_u64(out, deadline_ms);
    match value {
        ValueRef::Counter(number) => put_i64(out, number),
        ValueRef::String(bytes) => put_bytes(out, bytes),
        ValueRef::Cell(cell) => {
            put_u64(out, cell.token);
            let flags = u8::from(cell.done)
                | u8::from(cell.owner.is_some()) << 1
                | u8::from(cell.fingerprint.is_some()) << 2;
            out.push(flags);
            for text in [&cell.owner, &cell.fingerprint].into_iter().flatten() {
                put_bytes(out, text);
            }
            put_bytes(out, &cell.state);
        }
        ValueRef::Hash(hash) => {
            put_u64(out, hash.generation());
            put_u64(out, hash.len() as u64);
        }
    }
}

/// Appends the value and deadline of a hash field.
pub fn put_field(out: &mut Vec<u8>, value: &FieldValue, expires_at_ms: u64) {
    match (value.hold(), value.counter()) {
        (Some(hold), _) => {
            out.push(KIND_HOLD);
            put_u64(out, expires_at_ms);
            put_hold(out, hold);
        }
        (None, Some(number)) => {
            out.push(KIND_COUNTER);
            put_u64(out, expires_at_ms);
            put_i64(out, number);
        }
        (None, None) => {
            out.push(KIND_STRING);
            put_u64(out, expires_at_ms);
            put_bytes(out, value.text().unwrap_or_default());
        }
    }
}

fn put_hold(out: &mut Vec<u8>, hold: &Hold) {
    out.push(u8::from(hold.charge) | u8::from(hold.end.is_some()) << 1);
    for number in [hold.token, hold.deadline_ms, hold.keep_ms] {
        put_u64(out, number);
    }
    put_i64(out, hold.amount);
    put_sheet(out, hold.reserved);
    if let Some(end) = hold.end {
        put_i64(out, end.charged);
        put_sheet(out, end.settled);
    }
}

fn put_sheet(out: &mut Vec<u8>, sheet: Sheet) {
    put_i64(out, sheet.available);
    put_i64(out, sheet.held);
}

fn put_u64(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_i64(out: &mut Vec<u8>, number: i64) {
    put_u64(out, ((number << 1) ^ (number >> 63)) as u64);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u64(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

// ---- reading ---------------------------------------------------------------------------------

/// Reads the mutations of a batch in order.
pub struct Mutations<'a> {
    rest: &'a [u8],
}

impl Mutations<'_> {
    /// The mutations of a batch's payload.
    pub fn of(payload: &[u8]) -> Mutations<'_> {
        Mutations { rest: payload }
    }

    /// Bytes that were not read yet.
    pub fn left(&self) -> usize {
        self.rest.len()
    }
}

impl<'a> Iterator for Mutations<'a> {
    type Item = Result<Mutation<'a>, Undecodable>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let mutation = mutation(&mut self.rest);
        if mutation.is_err() {
            self.rest = &[];
        }
        Some(mutation)
    }
}

fn count<'a>(rest: &mut &'a [u8]) -> Result<Mutation<'a>, Undecodable> {
    let slot = u16::try_from(take_u64(rest)?).map_err(|_| Undecodable("a slot"))?;
    Ok(Mutation::Count {
        slot,
        database: take_u32(rest)?,
        keys: take_u64(rest)?,
    })
}

fn mutation<'a>(rest: &mut &'a [u8]) -> Result<Mutation<'a>, Undecodable> {
    let tag = take_u8(rest)?;
    match tag {
        COUNT => return count(rest),
        DATABASES => {
            let next = take_u32(rest)?;
            let count = take_count(rest)?;
            let ids = (0..count)
                .map(|_| take_u32(rest))
                .collect::<Result<Vec<_>, _>>()?;
            if ids.iter().chain([&next]).any(|id| is_shadow(*id)) {
                return Err(Undecodable("a database id"));
            }
            return Ok(Mutation::Databases { ids, next });
        }
        TOKEN_CEILING => return Ok(Mutation::TokenCeiling(take_u64(rest)?)),
        _ => {}
    }
    let database = take_u32(rest)?;
    let key = take_bytes(rest)?;
    Ok(match tag {
        RETIRED => Mutation::Retired {
            database,
            key,
            generation: take_u64(rest)?,
        },
        PUT => {
            let (stored, deadline_ms) = stored(rest)?;
            Mutation::Put {
                database,
                key,
                deadline_ms,
                stored,
            }
        }
        DELETE => Mutation::Delete { database, key },
        DEADLINE => Mutation::Deadline {
            database,
            key,
            deadline_ms: take_u64(rest)?,
        },
        PART => {
            let (offset, total) = (take_u64(rest)?, take_u64(rest)?);
            let bytes = take_bytes(rest)?;
            let end = offset.saturating_add(bytes.len() as u64);
            // Before the memory.
            if end.max(total) > STRING_BYTES_MAX as u64 {
                return Err(Undecodable("a string that is too long"));
            }
            Mutation::Part {
                database,
                key,
                offset,
                bytes,
                total,
            }
        }
        FIELDS => {
            let (deadline_ms, generation) = (take_u64(rest)?, take_u64(rest)?);
            let (length, count) = (take_u64(rest)?, take_count(rest)?);
            let fields = (0..count)
                .map(|_| changed_field(rest))
                .collect::<Result<_, _>>()?;
            Mutation::Fields {
                database,
                key,
                deadline_ms,
                generation,
                length,
                fields,
            }
        }
        _ => return Err(Undecodable("an unknown kind of mutation")),
    })
}

fn changed_field<'a>(rest: &mut &'a [u8]) -> Result<ChangedField<'a>, Undecodable> {
    match take_u8(rest)? {
        FIELD_PUT => {
            let name = take_bytes(rest)?;
            Ok((name, Some(field(rest)?)))
        }
        FIELD_DELETE => Ok((take_bytes(rest)?, None)),
        _ => Err(Undecodable("an unknown kind of field change")),
    }
}

/// Reads a stored value and its deadline.
///
/// # Errors
/// Bytes that no value has.
pub fn stored(rest: &mut &[u8]) -> Result<(Stored, u64), Undecodable> {
    let kind = take_u8(rest)?;
    let deadline_ms = take_u64(rest)?;
    let stored = match kind {
        KIND_COUNTER => Stored::Value(Value::Counter(take_i64(rest)?)),
        KIND_STRING => Stored::Value(Value::from_bytes(take_bytes(rest)?)),
        KIND_CELL => {
            let token = take_u64(rest)?;
            let flags = take_u8(rest)?;
            let optional = |rest: &mut &[u8], bit: u8| {
                let bytes = (flags & bit != 0).then(|| take_bytes(rest)).transpose()?;
                Ok(bytes.map(Bytes::copy_from_slice))
            };
            let owner = optional(rest, 2)?;
            let fingerprint = optional(rest, 4)?;
            let state = Bytes::copy_from_slice(take_bytes(rest)?);
            let done = flags & 1 != 0;
            Stored::Value(Value::Cell(Box::new(Cell {
                token,
                owner,
                fingerprint,
                done,
                state,
            })))
        }
        KIND_HASH | KIND_PLAIN_HASH => Stored::Hash {
            generation: take_u64(rest)?,
            length: take_u64(rest)?,
            plain: kind == KIND_PLAIN_HASH,
        },
        _ => return Err(Undecodable("an unknown kind of value")),
    };
    Ok((stored, deadline_ms))
}

/// Reads the value and deadline of a hash field.
///
/// # Errors
/// Bytes that no field has.
pub fn field(rest: &mut &[u8]) -> Result<(FieldValue, u64), Undecodable> {
    let kind = take_u8(rest)?;
    let expires_at_ms = take_u64(rest)?;
    let value = match kind {
        KIND_COUNTER => FieldValue::from_counter(take_i64(rest)?),
        KIND_STRING => FieldValue::from_bytes(take_bytes(rest)?),
        KIND_HOLD => FieldValue::from_hold(hold(rest)?),
        _ => return Err(Undecodable("an unknown kind of field")),
    };
    Ok((value, expires_at_ms))
}

fn hold(rest: &mut &[u8]) -> Result<Hold, Undecodable> {
    let flags = take_u8(rest)?;
    let (token, deadline_ms, keep_ms) = (take_u64(rest)?, take_u64(rest)?, take_u64(rest)?);
    let (amount, reserved) = (take_i64(rest)?, sheet(rest)?);
    let end = match flags & 2 {
        0 => None,
        _ => Some(End {
            charged: take_i64(rest)?,
            settled: sheet(rest)?,
        }),
    };
    Ok(Hold {
        token,
        amount,
        reserved,
        deadline_ms,
        charge: flags & 1 != 0,
        keep_ms,
        end,
    })
}

fn sheet(rest: &mut &[u8]) -> Result<Sheet, Undecodable> {
    Ok(Sheet {
        available: take_i64(rest)?,
        held: take_i64(rest)?,
    })
}

#[inline]
fn take_u8(rest: &mut &[u8]) -> Result<u8, Undecodable> {
    let (&byte, behind) = rest.split_first().ok_or(Undecodable("it ends early"))?;
    *rest = behind;
    Ok(byte)
}

#[inline]
fn take_u64(rest: &mut &[u8]) -> Result<u64, Undecodable> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = take_u8(rest)?;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            break;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(Undecodable("a number of more than 64 bits"))
}

#[inline]
fn take_i64(rest: &mut &[u8]) -> Result<i64, Undecodable> {
    let zigzag = take_u64(rest)?;
    Ok((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
}

#[inline]
fn take_u32(rest: &mut &[u8]) -> Result<u32, Undecodable> {
    u32::try_from(take_u64(rest)?).map_err(|_| Undecodable("a number of more than 32 bits"))
}

/// A number of things that follow, each at least a byte long.
fn take_count(rest: &mut &[u8]) -> Result<usize, Undecodable> {
    let count = take_u64(rest)?;
    if count > rest.len() as u64 {
        return Err(Undecodable("a count beyond the end"));
    }
    Ok(count as usize)
}

#[inline]
fn take_bytes<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Undecodable> {
    let length = take_u64(rest)?;
    if length > rest.len() as u64 {
        return Err(Undecodable("a string beyond the end"));
    }
    let (bytes, behind) = rest.split_at(length as usize);
    *rest = behind;
    Ok(bytes)
}

/// Writes `bytes` at `offset` of a string that is `total` long afterwards; gaps are zeros.
pub fn write_part(string: &mut BytesMut, offset: usize, bytes: &[u8], total: usize) {
    let end = offset + bytes.len();
    if string.len() < end.max(total) {
        string.resize(end.max(total), 0);
    }
    string[offset..end].copy_from_slice(bytes);
    string.truncate(total.max(end));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_beyond_the_longest_string_is_not_decoded() {
        let max = STRING_BYTES_MAX as u64;
        let decoded = |offset, total| {
            let mut batch = BatchBuilder::default();
            batch.part(0, b"key", offset, Bytes::from_static(b"part"), total);
            let payload = batch.finish().concat();
            Mutations::of(&payload).all(|mutation| mutation.is_ok())
        };
        assert!(decoded(0, 4) && decoded(max - 4, max));
        for (offset, total) in [
            (max - 3, max),
            (0, max + 1),
            (u64::MAX, 4),
            (u64::MAX - 2, 0),
        ] {
            assert!(!decoded(offset, total), "{offset} of {total}");
        }
    }
}
