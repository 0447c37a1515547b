//! A segment: at most `ENTRIES_MAX` packed entries and the cells that find them.
//!
//! A cell is a word: 8 bits of the key's hash that are stored nowhere else, and the entry's place
//! in the arena. Cells are probed linearly and moved back on deletion, so there are no marks of
//! deleted ones. Always true: `len`, `live` and `dirty` count the entries, those that are no
//! tombstones, and those with the dirty flag; at least every seventh cell is empty.

use bytes::Bytes;
use smallvec::SmallVec;

use super::arena::{Arena, OFFSET_LIMIT, size_class};
use super::boxes::{Boxed, Boxes};
use super::entry::{
    BOXED, Body, CELL, COUNTER, DIRTY, HASH, IN_FLIGHT, INLINE_KEY_BYTES_MAX,
    INLINE_TEXT_BYTES_MAX, REFERENCED, Raw, STRING, Shape, TOMBSTONE, set_deadline, set_flags,
    set_stamp,
};
use super::{Hash, Key, Value, ValueRef};

/// Most entries of a segment, tombstones included.
pub(super) const ENTRIES_MAX: usize = 1024;

const EMPTY: u32 = u32::MAX;
const TAG_SHIFT: u32 = 24;
/// Garbage that is always tolerated, in bytes; beyond it, an eighth of what is used.
const GARBAGE_BYTES: usize = 256;

/// A string that lies in its entry.
pub(super) type ShortText = SmallVec<[u8; INLINE_TEXT_BYTES_MAX]>;

/// What to put into an entry.
pub(super) enum Given<'a> {
    Tombstone,
    Counter(i64),
    /// A string that is no canonical decimal.
    Text(&'a [u8]),
    Owned(Value),
}

impl From<Value> for Given<'_> {
    fn from(value: Value) -> Self {
        match value {
            Value::Counter(counter) => Given::Counter(counter),
            value => Given::Owned(value),
        }
    }
}

/// What a segment contains and takes, for the sums above it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) len: usize,
    pub(super) live: usize,
    pub(super) dirty: usize,
    pub(super) bytes: usize,
    /// Keys that exist in the store alone; only tables know, segments have none.
    pub(super) asleep: u64,
}

#[derive(Default)]
pub(super) struct Segment {
    cells: Box<[u32]>,
    arena: Arena,
    boxes: Boxes,
    /// Bytes of the arena that entries use.
    used_bytes: u32,
    len: u16,
    live: u16,
    dirty: u16,
}

impl Segment {
    pub(super) fn tally(&self) -> Tally {
        Tally {
            len: self.len.into(),
            live: self.live.into(),
            dirty: self.dirty.into(),
            bytes: self.cells.len() * size_of::<u32>()
                + self.arena.heap_bytes()
                + self.boxes.heap_bytes(),
            asleep: 0,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.len as usize >= ENTRIES_MAX
    }

    pub(super) fn len(&self) -> usize {
        self.len.into()
    }

    pub(super) fn live(&self) -> usize {
        self.live.into()
    }

    pub(super) fn dirty(&self) -> usize {
        self.dirty.into()
    }

    /// The cell of a key's entry; a tombstone is an entry.
    #[inline]
    pub(super) fn find(&self, key: &Key) -> Option<usize> {
        self.seek(key).map(|(cell, _)| cell)
    }

    /// The cell of a key's entry, and the entry.
    #[inline]
    pub(super) fn seek(&self, key: &Key) -> Option<(usize, Raw<'_>)> {
        if self.cells.is_empty() {
            return None;
        }
        let mut at = home(key.hash32(), key.tag(), self.cells.len());
        loop {
            let cell = *self.cells.get(at)?;
            if cell == EMPTY {
                return None;
            }
            if let Some(raw) = self.entry_of(cell, key) {
                return Some((at, raw));
            }
            at = if at + 1 == self.cells.len() {
                0
            } else {
                at + 1
            };
        }
    }

    /// The entry of a key, if it is behind this cell.
    #[inline]
    pub(super) fn still_at(&self, cell: usize, key: &Key) -> Option<Raw<'_>> {
        let cell = self.cells.get(cell).filter(|cell| **cell != EMPTY)?;
        self.entry_of(*cell, key)
    }

    /// The entry behind a used cell, if it is the key's.
    #[inline]
    fn entry_of(&self, cell: u32, key: &Key) -> Option<Raw<'_>> {
        if (cell >> TAG_SHIFT) as u8 != key.tag() {
            return None;
        }
        let raw = Raw(self.arena.at(cell & OFFSET_LIMIT));
        (raw.hash32() == key.hash32() && self.key(raw) == key.bytes).then_some(raw)
    }

    /// The cell where the search for a key begins; `EMPTY` or of another key, if it is not there.
    #[inline]
    pub(super) fn first_cell(&self, key: &Key) -> u32 {
        let home = home(key.hash32(), key.tag(), self.cells.len());
        self.cells.get(home).copied().unwrap_or(EMPTY)
    }

    /// The first byte of the entry behind a cell; 0 behind an empty one.
    #[inline]
    pub(super) fn glance(&self, cell: u32) -> u8 {
        match cell {
            EMPTY => 0,
            cell => self.arena.at(cell & OFFSET_LIMIT)[0],
        }
    }

    /// The entry of a used cell.
    #[inline]
    pub(super) fn raw(&self, cell: usize) -> Raw<'_> {
        self.raw_at(self.cells[cell] & OFFSET_LIMIT)
    }

    /// The entry at a place of the arena, as `places` gives it.
    #[inline]
    pub(super) fn raw_at(&self, offset: u32) -> Raw<'_> {
        Raw(self.arena.at(offset))
    }

    /// Places of all entries, in no order.
    pub(super) fn places(&self) -> impl Iterator<Item = u32> {
        let used = self.cells.iter().filter(|cell| **cell != EMPTY);
        used.map(|cell| cell & OFFSET_LIMIT)
    }

    #[inline]
    pub(super) fn key<'a>(&'a self, raw: Raw<'a>) -> &'a [u8] {
        match raw.inline_key() {
            Some(key) => key,
            None => self
                .boxes
                .at(raw.box_number())
                .key
                .as_deref()
                .unwrap_or_default(),
        }
    }

    /// The value of a live entry.
    #[inline]
    pub(super) fn value<'a>(&'a self, raw: Raw<'a>) -> ValueRef<'a> {
        if raw.is_boxed() {
            return self.boxes.at(raw.box_number()).value.borrow();
        }
        match raw.kind() {
            COUNTER => ValueRef::Counter(raw.counter()),
            STRING => ValueRef::String(raw.text()),
            kind => unreachable!("kind {kind} without a box"),
        }
    }

    /// The value of a live entry, owned; a boxed string is shared.
    pub(super) fn to_value(&self, raw: Raw<'_>) -> Value {
        if raw.is_boxed() {
            return self.boxes.at(raw.box_number()).value.clone();
        }
        owned(raw)
    }

    /// Memory behind one entry: itself, its share of the cells, its box.
    pub(super) fn entry_bytes(&self, raw: Raw<'_>) -> usize {
        let cells = self.cells.len() * size_of::<u32>() / usize::from(self.len.max(1));
        let boxed = match raw.is_boxed() {
            true => size_of::<Boxed>() + self.boxes.at(raw.box_number()).heap_bytes(),
            false => 0,
        };
        raw.size() + cells + boxed
    }

    // ---- changes -----------------------------------------------------------------------------

    /// Adds an entry for a key that has none. `flags`: `DIRTY` or 0. The segment is not full.
    pub(super) fn insert(
        &mut self,
        key: &Key,
        given: Given<'_>,
        deadline_ms: u64,
        flags: u8,
        stamp: u8,
    ) {
        debug_assert!(self.find(key).is_none());
        let live = !matches!(given, Given::Tombstone);
        let mut text = Bytes::new();
        let (inline_key, body) = self.pack(key.bytes, given, &mut text);
        let hash32 = key.hash32();
        let shape = Shape {
            hash32,
            flags,
            stamp,
            key: inline_key,
            deadline_ms,
            body,
        };
        let offset = self.store(&shape);
        self.add_cell(hash32, key.tag(), offset);
        self.live += u16::from(live);
        self.dirty += u16::from(flags & DIRTY != 0);
    }

    /// Replaces value and deadline of an entry, which becomes dirty.
    pub(super) fn overwrite(
        &mut self,
        cell: usize,
        key: &Key,
        given: Given<'_>,
        deadline_ms: u64,
        stamp: u8,
    ) {
        let old = self.raw(cell);
        let (old_size, old_meta, was_live) = (old.size(), old.meta(), old.kind() != TOMBSTONE);
        if let Given::Counter(counter) | Given::Owned(Value::Counter(counter)) = &given
            && old.kind() == COUNTER
            && old.deadline_ms() == deadline_ms
        {
            self.write_counter(cell, *counter);
            self.touch(cell, stamp);
            return;
        }
        if old_meta & BOXED != 0 {
            let number = old.box_number();
            drop(self.boxes.take(number));
        }
        let live = !matches!(given, Given::Tombstone);
        let mut text = Bytes::new();
        let (inline_key, body) = self.pack(key.bytes, given, &mut text);
        let flags = old_meta & IN_FLIGHT | DIRTY;
        let hash32 = key.hash32();
        let shape = Shape {
            hash32,
            flags,
            stamp,
            key: inline_key,
            deadline_ms,
            body,
        };
        self.rewrite(cell, old_size, &shape);
        self.live = self.live + u16::from(live) - u16::from(was_live);
        self.dirty += u16::from(old_meta & DIRTY == 0);
        self.collect_garbage();
    }

    /// Moves the value out of a live entry that the caller overwrites next.
    pub(super) fn take_value(&mut self, cell: usize) -> Value {
        let raw = self.raw(cell);
        if !raw.is_boxed() {
            return owned(raw);
        }
        let number = raw.box_number();
        let (boxed, bytes) = self.boxes.at_mut(number);
        *bytes -= boxed.value.heap_bytes();
        std::mem::replace(&mut boxed.value, Value::Counter(0))
    }

    /// Sets the deadline of a live entry (0: none), which becomes dirty.
    pub(super) fn set_deadline(&mut self, cell: usize, deadline_ms: u64, stamp: u8) {
        self.mark_dirty(cell);
        let offset = self.cells[cell] & OFFSET_LIMIT;
        let old = self.raw(cell);
        let (had, old_size) = (old.deadline_ms() != 0, old.size());
        if had == (deadline_ms != 0) {
            let raw = self.arena.at_mut(offset);
            set_stamp(raw, stamp);
            if had {
                set_deadline(raw, deadline_ms);
            }
            return;
        }
        let copy = old.0[..old_size].to_vec();
        let old = Raw(&copy);
        let body = match old.kind() {
            kind if old.is_boxed() => Body::Boxed(kind, old.box_number()),
            COUNTER => Body::Counter(old.counter()),
            STRING => Body::Text(old.text()),
            _ => Body::Tombstone,
        };
        let flags = old.meta() & (DIRTY | IN_FLIGHT);
        let (hash32, key) = (old.hash32(), old.inline_key());
        let shape = Shape {
            hash32,
            flags,
            stamp,
            key,
            deadline_ms,
            body,
        };
        self.rewrite(cell, old_size, &shape);
        self.collect_garbage();
    }

    /// Writes the value of an entry that is a counter; it becomes dirty.
    fn write_counter(&mut self, cell: usize, counter: i64) {
        self.mark_dirty(cell);
        let raw = self.raw(cell);
        if raw.is_boxed() {
            let number = raw.box_number();
            self.boxes.at_mut(number).0.value = Value::Counter(counter);
            return;
        }
        let start = raw.body_start();
        let raw = self.arena.at_mut(self.cells[cell] & OFFSET_LIMIT);
        raw[start..start + 8].copy_from_slice(&counter.to_le_bytes());
    }

    /// Gives value and deadline of a counter to `f`, and stamps it; it becomes dirty if the value
    /// changes. `None`: the entry is no counter.
    #[inline]
    pub(super) fn update_counter<R>(
        &mut self,
        cell: usize,
        stamp: u8,
        f: impl FnOnce(&mut i64, u64) -> R,
    ) -> Option<R> {
        let bytes = self.arena.at_mut(self.cells[cell] & OFFSET_LIMIT);
        let raw = Raw(bytes);
        if raw.kind() != COUNTER {
            return None;
        }
        let old = match raw.is_boxed() {
            false => raw.counter(),
            true => match self.boxes.at(raw.box_number()).value {
                Value::Counter(counter) => counter,
                _ => return None,
            },
        };
        let (start, boxed, clean) = (raw.body_start(), raw.is_boxed(), raw.meta() & DIRTY == 0);
        let mut new = old;
        let result = f(&mut new, raw.deadline_ms());
        set_stamp(bytes, stamp);
        if new == old {
            return Some(result);
        }
        if boxed {
            self.write_counter(cell, new);
            return Some(result);
        }
        bytes[start..start + 8].copy_from_slice(&new.to_le_bytes());
        if clean {
            set_flags(bytes, DIRTY, 0);
            self.dirty += 1;
        }
        Some(result)
    }

    /// Overwrites a short string with one of the same length, and stamps it; it becomes dirty.
    /// Returns what was there; `None`, and no change, for any other entry.
    #[inline]
    pub(super) fn replace_text(
        &mut self,
        cell: usize,
        stamp: u8,
        text: &[u8],
    ) -> Option<ShortText> {
        let bytes = self.arena.at_mut(self.cells[cell] & OFFSET_LIMIT);
        let raw = Raw(bytes);
        if raw.kind() != STRING || raw.is_boxed() || raw.text().len() != text.len() {
            return None;
        }
        let before = ShortText::from_slice(raw.text());
        let start = raw.body_start() + 1;
        bytes[start..start + text.len()].copy_from_slice(text);
        set_stamp(bytes, stamp);
        self.mark_dirty(cell);
        Some(before)
    }

    /// The hash of an entry and the counter of heap bytes that goes with it.
    pub(super) fn hash_at(&mut self, cell: usize) -> Option<(&mut Hash, &mut usize)> {
        let raw = self.raw(cell);
        if raw.kind() != HASH {
            return None;
        }
        let number = raw.box_number();
        match self.boxes.at_mut(number) {
            (
                Boxed {
                    value: Value::Hash(hash),
                    ..
                },
                bytes,
            ) => Some((hash, bytes)),
            _ => None,
        }
    }

    #[inline]
    pub(super) fn touch(&mut self, cell: usize, stamp: u8) {
        set_stamp(self.arena.at_mut(self.cells[cell] & OFFSET_LIMIT), stamp);
    }

    #[inline]
    pub(super) fn mark_dirty(&mut self, cell: usize) {
        let raw = self.arena.at_mut(self.cells[cell] & OFFSET_LIMIT);
        if Raw(raw).meta() & DIRTY == 0 {
            set_flags(raw, DIRTY, 0);
            self.dirty += 1;
        }
    }

    /// Sets and clears flags of the entry at a place of the arena.
    pub(super) fn change_flags(&mut self, offset: u32, set: u8, clear: u8) {
        let raw = self.arena.at_mut(offset);
        let was = Raw(raw).meta() & DIRTY != 0;
        set_flags(raw, set, clear);
        let is = Raw(raw).meta() & DIRTY != 0;
        self.dirty = self.dirty + u16::from(is) - u16::from(was);
    }

    /// Changes the hash of the entry at a place of the arena, if it is one.
    pub(super) fn change_hash(&mut self, offset: u32, f: impl FnOnce(&mut Hash)) {
        let raw = Raw(self.arena.at(offset));
        if raw.kind() != HASH {
            return;
        }
        if let (
            Boxed {
                value: Value::Hash(hash),
                ..
            },
            bytes,
        ) = self.boxes.at_mut(raw.box_number())
        {
            let before = hash.heap_bytes();
            f(hash);
            *bytes = *bytes + hash.heap_bytes() - before;
        }
    }

    /// Drops an entry without a trace.
    pub(super) fn erase(&mut self, cell: usize) {
        self.release(self.cells[cell] & OFFSET_LIMIT);
        self.close_gap(cell);
        self.len -= 1;
        if self.len == 0 {
            *self = Segment::default();
            return;
        }
        self.shrink();
        self.collect_garbage();
    }

    /// Drops the entries for which `keep` is false, without a trace.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(Raw<'_>) -> bool) {
        let going: Vec<u32> = self
            .places()
            .filter(|offset| !keep(self.raw_at(*offset)))
            .collect();
        if !going.is_empty() {
            self.drop_places(going);
        }
    }

    /// Drops the entries at these places of the arena, without a trace.
    pub(super) fn drop_places(&mut self, mut going: Vec<u32>) {
        going.sort_unstable();
        let cells = std::mem::take(&mut self.cells);
        let mut kept = Vec::with_capacity(cells.len() - going.len());
        for cell in cells.iter().copied().filter(|cell| *cell != EMPTY) {
            if going.binary_search(&(cell & OFFSET_LIMIT)).is_err() {
                kept.push(cell);
            } else {
                self.release(cell & OFFSET_LIMIT);
            }
        }
        self.len = kept.len() as u16;
        if kept.is_empty() {
            *self = Segment::default();
            return;
        }
        self.cells = kept.into_boxed_slice();
        self.rebuild_cells(cells_for(self.len.into()));
        self.collect_garbage();
    }

    /// Takes the mark of use from the entries for which `wanted` is true.
    pub(super) fn unmark_used(&mut self, wanted: impl Fn(Raw<'_>) -> bool) {
        for cell in self.cells.iter().copied().filter(|cell| *cell != EMPTY) {
            let raw = self.arena.at_mut(cell & OFFSET_LIMIT);
            if wanted(Raw(raw)) {
                set_flags(raw, 0, REFERENCED);
            }
        }
    }

    /// Moves every entry out: `target` gets an entry's hash and what moves it into a segment.
    pub(super) fn distribute(mut self, mut target: impl FnMut(u32, &mut dyn FnMut(&mut Segment))) {
        let cells = std::mem::take(&mut self.cells);
        for cell in cells.iter().copied().filter(|cell| *cell != EMPTY) {
            let raw = Raw(self.arena.at(cell & OFFSET_LIMIT));
            let mut boxed = raw.is_boxed().then(|| self.boxes.take(raw.box_number()));
            let tag = (cell >> TAG_SHIFT) as u8;
            target(raw.hash32(), &mut |segment| {
                segment.adopt(raw, tag, boxed.take())
            });
        }
    }

    // ---- inside ------------------------------------------------------------------------------

    fn adopt(&mut self, raw: Raw<'_>, tag: u8, boxed: Option<Boxed>) {
        let size = raw.size();
        let offset = self.arena.allocate(size);
        self.used_bytes += size as u32;
        let target = self.arena.at_mut(offset);
        target[..size].copy_from_slice(&raw.0[..size]);
        if let Some(boxed) = boxed {
            let number = self.boxes.insert(boxed);
            target[size - 4..size].copy_from_slice(&number.to_le_bytes());
        }
        self.live += u16::from(raw.kind() != TOMBSTONE);
        self.dirty += u16::from(raw.meta() & DIRTY != 0);
        self.add_cell(raw.hash32(), tag, offset);
    }

    /// Decides what lies in the entry and what in a box. `text` keeps an owned short string alive.
    fn pack<'a>(
        &mut self,
        key: &'a [u8],
        given: Given<'a>,
        text: &'a mut Bytes,
    ) -> (Option<&'a [u8]>, Body<'a>) {
        let long_key = key.len() > INLINE_KEY_BYTES_MAX;
        let (kind, value) = match given {
            Given::Tombstone if !long_key => return (Some(key), Body::Tombstone),
            Given::Tombstone => (TOMBSTONE, Value::Counter(0)),
            Given::Counter(counter) | Given::Owned(Value::Counter(counter)) => {
                if !long_key {
                    return (Some(key), Body::Counter(counter));
                }
                (COUNTER, Value::Counter(counter))
            }
            Given::Text(bytes) => {
                if !long_key && bytes.len() <= INLINE_TEXT_BYTES_MAX {
                    return (Some(key), Body::Text(bytes));
                }
                (STRING, Value::String(Bytes::copy_from_slice(bytes)))
            }
            Given::Owned(Value::String(bytes)) => {
                if !long_key && bytes.len() <= INLINE_TEXT_BYTES_MAX {
                    *text = bytes;
                    return (Some(key), Body::Text(text));
                }
                (STRING, Value::String(bytes))
            }
            Given::Owned(value @ Value::Cell(_)) => (CELL, value),
            Given::Owned(value @ Value::Hash(_)) => (HASH, value),
        };
        let boxed = Boxed {
            key: long_key.then(|| key.into()),
            value,
        };
        let number = self.boxes.insert(boxed);
        ((!long_key).then_some(key), Body::Boxed(kind, number))
    }

    fn store(&mut self, shape: &Shape<'_>) -> u32 {
        let size = shape.size();
        let offset = self.arena.allocate(size);
        shape.write(self.arena.at_mut(offset));
        self.used_bytes += size as u32;
        offset
    }

    /// Writes an entry anew: over itself if it does not grow.
    fn rewrite(&mut self, cell: usize, old_size: usize, shape: &Shape<'_>) {
        self.used_bytes -= old_size as u32;
        let size = shape.size();
        if size <= old_size {
            shape.write(self.arena.at_mut(self.cells[cell] & OFFSET_LIMIT));
            self.used_bytes += size as u32;
        } else {
            let offset = self.store(shape);
            self.cells[cell] = self.cells[cell] & !OFFSET_LIMIT | offset;
        }
    }

    /// Takes an entry out of all counts but `len`, and frees its box.
    fn release(&mut self, offset: u32) {
        let raw = Raw(self.arena.at(offset));
        self.live -= u16::from(raw.kind() != TOMBSTONE);
        self.dirty -= u16::from(raw.meta() & DIRTY != 0);
        self.used_bytes -= raw.size() as u32;
        if raw.is_boxed() {
            drop(self.boxes.take(raw.box_number()));
        }
    }

    fn add_cell(&mut self, hash32: u32, tag: u8, offset: u32) {
        let len = usize::from(self.len) + 1;
        if len * 20 > self.cells.len() * 17 {
            self.rebuild_cells(cells_for(len));
        }
        place(
            &mut self.cells,
            hash32,
            u32::from(tag) << TAG_SHIFT | offset,
        );
        self.len += 1;
    }

    fn rebuild_cells(&mut self, count: usize) {
        let old = std::mem::replace(&mut self.cells, vec![EMPTY; count].into_boxed_slice());
        for cell in old.iter().copied().filter(|cell| *cell != EMPTY) {
            let hash32 = Raw(self.arena.at(cell & OFFSET_LIMIT)).hash32();
            place(&mut self.cells, hash32, cell);
        }
    }

    /// Empties a cell and moves back those behind it that would not be found across the gap.
    fn close_gap(&mut self, mut gap: usize) {
        let count = self.cells.len();
        let mut at = gap;
        loop {
            at = if at + 1 == count { 0 } else { at + 1 };
            let cell = self.cells[at];
            if cell == EMPTY {
                break;
            }
            let hash32 = Raw(self.arena.at(cell & OFFSET_LIMIT)).hash32();
            let wanted = home(hash32, (cell >> TAG_SHIFT) as u8, count);
            let from_home = (at + count - wanted) % count;
            let from_gap = (at + count - gap) % count;
            if from_home >= from_gap {
                self.cells[gap] = cell;
                gap = at;
            }
        }
        self.cells[gap] = EMPTY;
    }

    fn shrink(&mut self) {
        if usize::from(self.len) * 2 < self.cells.len() {
            let count = cells_for(self.len.into());
            if count < self.cells.len() {
                self.rebuild_cells(count);
            }
        }
    }

    fn collect_garbage(&mut self) {
        let used = self.used_bytes as usize;
        let garbage = self.arena.given_bytes() - used;
        if garbage <= used / 8 + GARBAGE_BYTES {
            return;
        }
        let old = std::mem::take(&mut self.arena);
        for cell in self.cells.iter_mut().filter(|cell| **cell != EMPTY) {
            let raw = Raw(old.at(*cell & OFFSET_LIMIT));
            let size = raw.size();
            let offset = self.arena.allocate(size);
            self.arena.at_mut(offset)[..size].copy_from_slice(&raw.0[..size]);
            *cell = *cell & !OFFSET_LIMIT | offset;
        }
    }
}

/// An entry without a box as a value.
fn owned(raw: Raw<'_>) -> Value {
    match raw.kind() {
        COUNTER => Value::Counter(raw.counter()),
        STRING => Value::String(Bytes::copy_from_slice(raw.text())),
        kind => unreachable!("kind {kind} without a box"),
    }
}

/// Where probing begins. The high bits of the hash are the same in the whole segment, and the tag
/// spreads keys that share the stored hash.
#[inline]
fn home(hash32: u32, tag: u8, cells: usize) -> usize {
    let mixed = (hash32 ^ u32::from(tag) << TAG_SHIFT).wrapping_mul(0x9E37_79B1);
    ((u64::from(mixed) * cells as u64) >> 32) as usize
}

fn place(cells: &mut [u32], hash32: u32, cell: u32) {
    let mut at = home(hash32, (cell >> TAG_SHIFT) as u8, cells.len());
    while cells[at] != EMPTY {
        at = if at + 1 == cells.len() { 0 } else { at + 1 };
    }
    cells[at] = cell;
}

/// Cells for `len` entries: at most 0.85 full, and a whole size class of the allocator.
fn cells_for(len: usize) -> usize {
    size_class((len * 20).div_ceil(17) * size_of::<u32>()) / size_of::<u32>()
}
