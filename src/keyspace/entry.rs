//! An entry: its packed form, and how commands and the checkpoint see it.
//!
//! Packed: hash (4 bytes, little-endian), meta (1), stamp (1), key length (1), deadline (8, if
//! there is one), key, body. The body is 8 bytes of a counter, or a length byte and a short
//! string, or the 4-byte number of a boxed value. A key too long for the length byte lies in the
//! box as well. The layout can be read from the entry alone.

use bytes::Bytes;

use super::segment::Segment;
use super::{Kind, Value, ValueRef};

/// How an entry stands to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryState {
    /// The store has this value.
    Clean,
    /// Changed since the last sweep took it.
    Dirty,
    /// Taken by the running sweep and unchanged since.
    InFlight,
    /// Taken by the running sweep and changed again.
    InFlightDirty,
}

/// One live entry of the table.
#[derive(Clone, Copy)]
pub struct EntryRef<'a> {
    pub(super) segment: &'a Segment,
    pub(super) raw: Raw<'a>,
    /// False when in-flight marks in the entry's segment are those of an older sweep.
    pub(super) in_running_sweep: bool,
}

impl<'a> EntryRef<'a> {
    /// The key.
    pub fn key(&self) -> &'a [u8] {
        self.segment.key(self.raw)
    }

    /// The stored 32-bit hash of the key.
    pub fn hash32(&self) -> u32 {
        self.raw.hash32()
    }

    /// The value where it lies.
    #[inline]
    pub fn value(&self) -> ValueRef<'a> {
        self.segment.value(self.raw)
    }

    /// The value as an owned one: a large string is shared, everything else is copied.
    pub fn to_value(&self) -> Value {
        self.segment.to_value(self.raw)
    }

    /// Whether the value is a hash.
    #[inline]
    pub(super) fn is_hash(&self) -> bool {
        self.raw.kind() == HASH
    }

    /// Which form the value has.
    pub fn kind(&self) -> Kind {
        self.value().kind()
    }

    /// The value as a string, shared when it is large; `None` for a hash.
    pub fn to_string_bytes(&self) -> Option<Bytes> {
        if self.raw.kind() == HASH {
            return None;
        }
        match self.to_value() {
            Value::Counter(counter) => Some(Bytes::copy_from_slice(
                itoa::Buffer::new().format(counter).as_bytes(),
            )),
            Value::String(bytes) => Some(bytes),
            Value::Cell(cell) => Some(cell.state),
            Value::Hash(_) => None,
        }
    }

    /// When the key expires, in milliseconds since the Unix epoch; 0: never.
    #[inline]
    pub fn deadline_ms(&self) -> u64 {
        self.raw.deadline_ms()
    }

    /// How the entry stands to the store.
    pub fn state(&self) -> EntryState {
        let in_flight = self.in_running_sweep && self.raw.meta() & IN_FLIGHT != 0;
        match (in_flight, self.raw.meta() & DIRTY != 0) {
            (false, false) => EntryState::Clean,
            (false, true) => EntryState::Dirty,
            (true, false) => EntryState::InFlight,
            (true, true) => EntryState::InFlightDirty,
        }
    }

    /// The coarse clock at the last use, as given to `Tables::set_stamp`.
    pub fn stamp(&self) -> u8 {
        self.raw.0[STAMP]
    }

    /// Bytes of memory behind this entry, for MEMORY USAGE.
    pub fn memory_bytes(&self) -> usize {
        self.segment.entry_bytes(self.raw)
    }
}

// ---- packed form -----------------------------------------------------------------------------

const META: usize = 4;
const STAMP: usize = 5;
const KEY_LEN: usize = 6;
const HEADER_BYTES: usize = 7;
const DEADLINE_BYTES: usize = 8;

/// The low bits of meta: which form the value has.
const KIND_MASK: u8 = 0x07;
pub(super) const TOMBSTONE: u8 = 0;
pub(super) const COUNTER: u8 = 1;
pub(super) const STRING: u8 = 2;
pub(super) const CELL: u8 = 3;
pub(super) const HASH: u8 = 4;
/// Flags of meta.
pub(super) const DIRTY: u8 = 0x08;
pub(super) const IN_FLIGHT: u8 = 0x10;
const DEADLINE: u8 = 0x20;
pub(super) const BOXED: u8 = 0x40;
/// Used since eviction came by.
pub(super) const REFERENCED: u8 = 0x80;

/// Key length of an entry whose key lies in its box.
const KEY_LEN_BOXED: u8 = u8::MAX;
/// Longest key that lies in the entry.
pub(super) const INLINE_KEY_BYTES_MAX: usize = KEY_LEN_BOXED as usize - 1;
/// Longest string that lies in the entry.
pub(super) const INLINE_TEXT_BYTES_MAX: usize = 64;

/// A packed entry: the bytes from its begin to some place behind its end.
#[derive(Clone, Copy)]
pub(super) struct Raw<'a>(pub(super) &'a [u8]);

impl<'a> Raw<'a> {
    #[inline]
    pub(super) fn hash32(self) -> u32 {
        u32::from_le_bytes(array(&self.0[..META]))
    }

    #[inline]
    pub(super) fn meta(self) -> u8 {
        self.0[META]
    }

    #[inline]
    pub(super) fn kind(self) -> u8 {
        self.meta() & KIND_MASK
    }

    #[inline]
    pub(super) fn is_boxed(self) -> bool {
        self.meta() & BOXED != 0
    }

    #[inline]
    pub(super) fn deadline_ms(self) -> u64 {
        if self.meta() & DEADLINE == 0 {
            return 0;
        }
        u64::from_le_bytes(array(&self.0[HEADER_BYTES..HEADER_BYTES + DEADLINE_BYTES]))
    }

    /// The key, unless it lies in the box.
    #[inline]
    pub(super) fn inline_key(self) -> Option<&'a [u8]> {
        let start = self.key_start();
        match self.0[KEY_LEN] {
            KEY_LEN_BOXED => None,
            len => Some(&self.0[start..start + len as usize]),
        }
    }

    #[inline]
    pub(super) fn counter(self) -> i64 {
        let start = self.body_start();
        i64::from_le_bytes(array(&self.0[start..start + 8]))
    }

    pub(super) fn text(self) -> &'a [u8] {
        let start = self.body_start();
        let len = self.0[start] as usize;
        &self.0[start + 1..start + 1 + len]
    }

    pub(super) fn box_number(self) -> u32 {
        let start = self.body_start();
        u32::from_le_bytes(array(&self.0[start..start + 4]))
    }

    /// Bytes of the whole entry.
    pub(super) fn size(self) -> usize {
        let start = self.body_start();
        start
            + match self.kind() {
                _ if self.is_boxed() => 4,
                COUNTER => 8,
                STRING => 1 + self.0[start] as usize,
                _ => 0,
            }
    }

    #[inline]
    fn key_start(self) -> usize {
        HEADER_BYTES
            + if self.meta() & DEADLINE != 0 {
                DEADLINE_BYTES
            } else {
                0
            }
    }

    #[inline]
    pub(super) fn body_start(self) -> usize {
        let key_len = match self.0[KEY_LEN] {
            KEY_LEN_BOXED => 0,
            len => len as usize,
        };
        self.key_start() + key_len
    }
}

/// What an entry holds, as it is packed.
#[derive(Clone, Copy)]
pub(super) enum Body<'a> {
    Tombstone,
    Counter(i64),
    Text(&'a [u8]),
    /// Kind and number of a boxed value.
    Boxed(u8, u32),
}

/// All that is needed to pack an entry.
pub(super) struct Shape<'a> {
    pub(super) hash32: u32,
    /// `DIRTY` and `IN_FLIGHT` as wanted; the rest follows from the other members.
    pub(super) flags: u8,
    pub(super) stamp: u8,
    /// `None` when it lies in the box.
    pub(super) key: Option<&'a [u8]>,
    pub(super) deadline_ms: u64,
    pub(super) body: Body<'a>,
}

impl Shape<'_> {
    /// Bytes of the packed entry.
    pub(super) fn size(&self) -> usize {
        HEADER_BYTES
            + if self.deadline_ms != 0 {
                DEADLINE_BYTES
            } else {
                0
            }
            + self.key.map_or(0, <[u8]>::len)
            + match self.body {
                Body::Tombstone => 0,
                Body::Counter(_) => 8,
                Body::Text(text) => 1 + text.len(),
                Body::Boxed(..) => 4,
            }
    }

    /// Packs the entry at the begin of `target`.
    pub(super) fn write(&self, target: &mut [u8]) {
        let kind = match self.body {
            Body::Tombstone => TOMBSTONE,
            Body::Counter(_) => COUNTER,
            Body::Text(_) => STRING,
            Body::Boxed(kind, _) => kind | BOXED,
        };
        let deadline = if self.deadline_ms != 0 { DEADLINE } else { 0 };
        // What was written is in use; what was loaded is, once a command looks at it.
        let used = if self.flags & DIRTY != 0 {
            REFERENCED
        } else {
            0
        };
        target[..META].copy_from_slice(&self.hash32.to_le_bytes());
        target[META] = self.flags | kind | deadline | used;
        target[STAMP] = self.stamp;
        target[KEY_LEN] = self.key.map_or(KEY_LEN_BOXED, |key| key.len() as u8);
        let mut rest = &mut target[HEADER_BYTES..];
        if self.deadline_ms != 0 {
            put(&mut rest, &self.deadline_ms.to_le_bytes());
        }
        put(&mut rest, self.key.unwrap_or_default());
        match self.body {
            Body::Tombstone => {}
            Body::Counter(counter) => put(&mut rest, &counter.to_le_bytes()),
            Body::Text(text) => {
                put(&mut rest, &[text.len() as u8]);
                put(&mut rest, text);
            }
            Body::Boxed(_, number) => put(&mut rest, &number.to_le_bytes()),
        }
    }
}

/// Sets and clears meta flags of a packed entry.
pub(super) fn set_flags(raw: &mut [u8], set: u8, clear: u8) {
    raw[META] = raw[META] & !clear | set;
}

/// Stamps a packed entry as used.
#[inline]
pub(super) fn set_stamp(raw: &mut [u8], stamp: u8) {
    raw[STAMP] = stamp;
    raw[META] |= REFERENCED;
}

/// Overwrites the deadline of a packed entry that has one.
pub(super) fn set_deadline(raw: &mut [u8], deadline_ms: u64) {
    raw[HEADER_BYTES..HEADER_BYTES + DEADLINE_BYTES].copy_from_slice(&deadline_ms.to_le_bytes());
}

fn put(rest: &mut &mut [u8], bytes: &[u8]) {
    let (head, tail) = std::mem::take(rest).split_at_mut(bytes.len());
    head.copy_from_slice(bytes);
    *rest = tail;
}

/// A slice of exactly `N` bytes as an array.
#[inline]
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(bytes);
    array
}
