//! The sweep: hands dirty entries to the checkpoint, slice by slice, in the store's order.
//!
//! A sweep has a number. A bucket remembers the last sweep that took something from it, and only
//! then its in-flight marks mean anything: so the end of a sweep needs no walk over what was taken.

use super::directory::{Bucket, Found, SlotTable};
use super::entry::{DIRTY, EntryRef, HASH, IN_FLIGHT, TOMBSTONE};
use super::{DatabaseId, Field, Key, Tables, ValueRef};

/// Most fields of one hash that are given out in one piece.
const FIELDS_PER_PIECE_MAX: usize = 1024;

/// A step over a clean slot costs so much less than an entry.
const STEPS_PER_ENTRY: usize = 16;

/// Where a sweep goes on.
#[derive(Debug)]
pub struct SweepCursor {
    slot: u16,
    database: DatabaseId,
    /// The next hash; 2^32 behind the last.
    hash: u64,
    /// Hashes whose fields were not all given out yet.
    pieces: Vec<Piece>,
}

#[derive(Debug)]
struct Piece {
    slot: u16,
    database: DatabaseId,
    key: Box<[u8]>,
    /// The stored hash and the tag, as `Key::hash` has them.
    hash: u64,
    generation: u64,
    from: u32,
}

/// One entry that the sweep gives out, or one more piece of a large hash.
pub struct Swept<'a> {
    /// Its slot.
    pub slot: u16,
    /// Its database id.
    pub database: DatabaseId,
    /// Its stored hash.
    pub hash32: u32,
    /// Its key.
    pub key: &'a [u8],
    /// The entry, or `None` for a deleted key.
    pub entry: Option<EntryRef<'a>>,
    /// True for the second and later pieces of a large hash: only its fields are to be written.
    pub continued: bool,
    fields_from: u32,
}

impl Swept<'_> {
    /// The fields of a hash that are to be written, in order: field hash, name, and the field or
    /// `None` where it was removed.
    pub fn for_each_field(&self, f: impl FnMut(u32, &[u8], Option<&Field>)) {
        if let Some(ValueRef::Hash(hash)) = self.entry.map(|entry| entry.value()) {
            hash.for_each_in_flight(self.fields_from, FIELDS_PER_PIECE_MAX, f);
        }
    }
}

impl Tables {
    /// Entries that a sweep would take now.
    pub fn dirty_entries(&self) -> u64 {
        self.databases
            .iter()
            .map(|database| database.tally.dirty as u64)
            .sum()
    }

    /// Begins a sweep: everything dirty now will be given out. One sweep at a time.
    pub fn sweep_begin(&mut self) -> SweepCursor {
        assert!(!self.sweep_runs, "a sweep begins while another one runs");
        self.sweep += 1;
        self.sweep_runs = true;
        SweepCursor {
            slot: self.slots().start,
            database: 0,
            hash: 0,
            pieces: Vec::new(),
        }
    }

    /// Gives out dirty entries in the order of slot, database id, hash (later pieces of a hash
    /// come behind their neighbours), until about `budget` entries and fields were given, and at
    /// most a segment more. They are in flight afterwards. True when the sweep is complete.
    pub fn sweep(
        &mut self,
        cursor: &mut SweepCursor,
        budget: usize,
        mut f: impl FnMut(Swept<'_>),
    ) -> bool {
        assert!(self.sweep_runs, "no sweep has begun");
        let mut spent = 0;
        loop {
            while let Some(piece) = cursor.pieces.pop() {
                spent += STEPS_PER_ENTRY * self.sweep_piece(piece, &mut cursor.pieces, &mut f);
                if spent >= STEPS_PER_ENTRY * budget {
                    return false;
                }
            }
            if cursor.slot >= self.slots().end {
                return true;
            }
            if spent >= STEPS_PER_ENTRY * budget {
                return false;
            }
            spent += 1 + STEPS_PER_ENTRY * self.sweep_bucket(cursor, &mut f);
        }
    }

    /// Ends the sweep, complete or not. `stored`: what was in flight is clean, and tombstones may
    /// go (`reclaim`). Otherwise it is dirty again.
    pub fn sweep_finished(&mut self, stored: bool) {
        assert!(self.sweep_runs, "a sweep ends that did not begin");
        self.sweep_runs = false;
        self.unsettled.append(&mut self.unsettled_by_sweep);
        if stored {
            return;
        }
        for database in &mut self.databases {
            for table in database.tables.iter_mut().flatten() {
                let before = table.tally;
                table.fail_sweep(self.sweep);
                database.tally.replace(before, table.tally);
            }
        }
    }

    /// Frees tombstones that the store has seen, about `budget` slots of them; true when none are
    /// left to free. May be called at any time; while a sweep runs, what it took stays.
    pub fn reclaim(&mut self, budget: usize) -> bool {
        let running_sweep = self.running_sweep();
        for _ in 0..budget {
            let Some((id, slot)) = self.unsettled.pop() else {
                return true;
            };
            let index = self.slot_index(slot);
            let database = self
                .databases
                .binary_search_by_key(&id, |database| database.id);
            let Ok(database) = database.map(|place| &mut self.databases[place]) else {
                continue;
            };
            if let Some(table) = &mut database.tables[index] {
                let before = table.tally;
                table.settle(running_sweep);
                database.tally.replace(before, table.tally);
            }
        }
        self.unsettled.is_empty()
    }

    /// Takes the next dirty bucket, or moves the cursor on. Returns how much was given.
    fn sweep_bucket(&mut self, cursor: &mut SweepCursor, f: &mut impl FnMut(Swept<'_>)) -> usize {
        let (sweep, index) = (self.sweep, self.slot_index(cursor.slot));
        let next = self
            .databases
            .partition_point(|database| database.id < cursor.database);
        let Some(database) = self.databases.get_mut(next) else {
            (cursor.slot, cursor.database, cursor.hash) = (cursor.slot + 1, 0, 0);
            return 0;
        };
        if database.id != cursor.database {
            (cursor.database, cursor.hash) = (database.id, 0);
        }
        let table = database.tables[index]
            .as_deref_mut()
            .filter(|table| table.tally.dirty > 0);
        let dirty = table.and_then(|table| Some((table.next_dirty(cursor.hash)?, table)));
        let Some(((number, end), table)) = dirty else {
            match cursor.database.checked_add(1) {
                Some(id) => (cursor.database, cursor.hash) = (id, 0),
                None => (cursor.slot, cursor.database, cursor.hash) = (cursor.slot + 1, 0, 0),
            }
            return 0;
        };
        let before = table.tally;
        let (slot, id) = (cursor.slot, cursor.database);
        let bucket = table.change_bucket(number, |bucket| {
            let taken = bucket.take_dirty(sweep);
            (taken, bucket.unsettled)
        });
        database.tally.replace(before, table.tally);
        let (taken, unsettled) = bucket;
        if unsettled && self.unsettled_by_sweep.last() != Some(&(id, slot)) {
            self.unsettled_by_sweep.push((id, slot));
        }
        cursor.hash = end;
        let bucket = &table.buckets[number as usize];
        let mut given = 0;
        for found in &taken {
            given += give(bucket, found, (slot, id, sweep), &mut cursor.pieces, f);
        }
        given
    }

    fn sweep_piece(
        &mut self,
        piece: Piece,
        pieces: &mut Vec<Piece>,
        f: &mut impl FnMut(Swept<'_>),
    ) -> usize {
        let key = Key {
            bytes: &piece.key,
            slot: piece.slot,
            hash: piece.hash,
        };
        let Some(entry) = self.get(piece.database, &key) else {
            return 0;
        };
        let ValueRef::Hash(hash) = entry.value() else {
            return 0;
        };
        if hash.generation() != piece.generation {
            return 0;
        }
        f(Swept {
            slot: piece.slot,
            database: piece.database,
            hash32: key.hash32(),
            key: &piece.key,
            entry: Some(entry),
            continued: true,
            fields_from: piece.from,
        });
        if let Some(from) = hash.for_each_in_flight(piece.from, FIELDS_PER_PIECE_MAX, |_, _, _| {})
        {
            pieces.push(Piece { from, ..piece });
        }
        FIELDS_PER_PIECE_MAX
    }
}

impl SlotTable {
    /// The first dirty bucket from a hash on, and the first hash behind it.
    fn next_dirty(&self, mut hash: u64) -> Option<(u32, u64)> {
        while let Ok(hash32) = u32::try_from(hash) {
            let (number, end) = self.bucket_range(hash32);
            if self.buckets[number as usize].dirty() > 0 {
                return Some((number, end));
            }
            hash = end;
        }
        None
    }
}

impl Bucket {
    /// Puts what is dirty in flight, in order. Older in-flight marks go.
    fn take_dirty(&mut self, sweep: u32) -> Vec<Found> {
        let mut taken = self.collect(|raw| raw.meta() & (DIRTY | IN_FLIGHT) != 0);
        taken.retain(|found| {
            let segment = self.segment_mut(found.segment);
            let (meta, kind) = {
                let raw = segment.raw_at(found.offset);
                (raw.meta(), raw.kind())
            };
            if meta & DIRTY == 0 {
                segment.change_flags(found.offset, 0, IN_FLIGHT);
                return false;
            }
            segment.change_flags(found.offset, IN_FLIGHT, DIRTY);
            segment.change_hash(found.offset, |hash| hash.begin_flight());
            self.unsettled |= kind == TOMBSTONE || kind == HASH;
            true
        });
        self.swept = sweep;
        self.sort(&mut taken);
        taken
    }
}

/// Gives out one entry; the rest of a large hash becomes a piece for later.
fn give(
    bucket: &Bucket,
    found: &Found,
    (slot, database, sweep): (u16, DatabaseId, u32),
    pieces: &mut Vec<Piece>,
    f: &mut impl FnMut(Swept<'_>),
) -> usize {
    let entry = bucket.entry(found, sweep);
    let (key, live) = (entry.key(), entry.raw.kind() != TOMBSTONE);
    f(Swept {
        slot,
        database,
        hash32: found.hash32,
        key,
        entry: live.then_some(entry),
        continued: false,
        fields_from: 0,
    });
    let hash = match live.then(|| entry.value()) {
        Some(ValueRef::Hash(hash)) => hash,
        _ => return 1,
    };
    let Some(from) = hash.for_each_in_flight(0, FIELDS_PER_PIECE_MAX, |_, _, _| {}) else {
        return 1 + hash.in_flight_len();
    };
    let hash64 = u64::from(found.hash32) << 32 | u64::from(found.tag);
    let generation = hash.generation();
    pieces.push(Piece {
        slot,
        database,
        key: key.into(),
        hash: hash64,
        generation,
        from,
    });
    1 + FIELDS_PER_PIECE_MAX
}
