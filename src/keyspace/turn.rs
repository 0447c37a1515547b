//! What a shard has written and not yet got on disk: the keys touched in the running turn, and the
//! positions of the keys whose last write may not be durable.
//!
//! Always true: a touch says only *what to log*; values are read when the turn is sealed, so ten
//! thousand writes of one key in a turn are one mutation. Positions are a superset of the keys with
//! unsynced writes, deleted keys included.
//!
//! Touches are numbered, and the number of one that stays is never used again. A key's position is
//! the number of its last touch, and each turn that was queued knows where its numbers end: so
//! nothing has to be written for each key when a turn gets its place in the log.

use std::collections::VecDeque;
use std::hash::{BuildHasherDefault, Hasher};

use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::keyspace::key::Key;
use crate::keyspace::slot::Spot;

/// What a reply has to wait for: nothing, a log position, or the running turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wait(u64);

impl Wait {
    /// Nothing unsynced was looked at.
    pub const NONE: Wait = Wait(0);
    /// A write of the running turn; its position is not known before the turn is sealed.
    pub const TURN: Wait = Wait(u64::MAX);

    /// Everything up to `lsn`.
    pub fn lsn(lsn: u64) -> Wait {
        assert!(lsn != u64::MAX, "a log position");
        Wait(lsn)
    }

    /// The position, once it is known.
    pub fn position(self) -> Option<u64> {
        (self != Wait::TURN).then_some(self.0)
    }

    /// The position, where the running turn got `lsn`.
    pub fn sealed_at(self, lsn: u64) -> u64 {
        if self == Wait::TURN { lsn } else { self.0 }
    }
}

/// What of a key is logged at the end of the turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The whole value, or that it is gone.
    Whole,
    /// Its deadline alone.
    Deadline,
    /// These ranges (offset, length) of a string.
    Parts(SmallVec<[(u32, u32); 2]>),
    /// These fields of a hash.
    Fields(Fields),
    /// Nothing yet: it was not written.
    Nothing,
}

/// Field names, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    names: SmallVec<[Box<[u8]>; 1]>,
    /// The same, where they are many.
    index: Option<Box<hashbrown::HashSet<Box<[u8]>>>>,
}

/// Up to so many fields are searched one by one.
const FIELDS_SCANNED_MAX: usize = 8;

impl Fields {
    /// Adds a name unless it is there.
    pub fn add(&mut self, name: &[u8]) {
        if self.names.last().is_some_and(|last| **last == *name) {
            return;
        }
        let known = match &mut self.index {
            None => self.names.iter().any(|known| **known == *name),
            Some(index) => !index.insert(name.into()),
        };
        if known {
            return;
        }
        self.names.push(name.into());
        if self.names.len() > FIELDS_SCANNED_MAX && self.index.is_none() {
            self.index = Some(Box::new(self.names.iter().cloned().collect()));
        }
    }

    /// The names in the order of their first touch.
    pub fn names(&self) -> &[Box<[u8]>] {
        &self.names
    }
}

/// A key that was written in the running turn.
#[derive(Clone, Debug)]
pub struct Touch {
    /// Database id.
    pub database: u32,
    /// Slot of the key.
    pub slot: u16,
    /// Hash of the key.
    pub hash: u64,
    /// What to log.
    pub what: What,
    /// Where the entry was when it was written. It may have moved since, or be another one.
    pub(super) spot: Option<Spot>,
    key: (u32, u32),
    /// What the key's position was before; 0: it had none.
    before: u64,
}

/// A touch of the running turn, by its place.
#[derive(Clone, Copy, Debug)]
pub struct Touched(u32);

/// A turn that was queued in the log and may not be durable.
#[derive(Clone, Copy, Debug)]
struct Queued {
    /// The number behind its last touch.
    end: u64,
    lsn: u64,
}

/// Above so many queued turns, each two become one: their keys wait for the later one.
const QUEUED_MAX: usize = 4096;
/// Above so many positions the older half is put aside, to be dropped at once when durable.
const POSITIONS_YOUNG_MAX: usize = 4096;
/// Above so many more, where the disk does not follow, what was put aside is forgotten: any key may
/// be among them.
const POSITIONS_MAX: usize = 64 * 1024;

/// Passes a hash through: keys are hashed already.
#[derive(Clone, Copy, Default)]
pub struct Passed(u64);

impl Hasher for Passed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

/// Memory that stays allocated between turns: touches, counts, and bytes of keys. Of positions as
/// many as there may be where the disk does not follow.
const TOUCHES_KEPT_MAX: usize = 8 * 1024;
const KEY_BYTES_KEPT_MAX: usize = 1 << 20;

/// What a short value takes in a batch besides its key.
const EFFECT_BYTES: usize = 24;

/// A position's place in the map, with its share of what is empty.
const POSITION_BYTES: usize = 20;

type Positions = HashMap<u64, u64, BuildHasherDefault<Passed>>;

/// The touched keys of the running turn and the positions of earlier ones.
pub struct Turn {
    touches: Vec<Touch>,
    /// Number of the first touch of this turn.
    first: u64,
    queued: VecDeque<Queued>,
    /// Touches with lower numbers are durable.
    durable_end: u64,
    keys: Vec<u8>,
    young: Positions,
    young_lsn_max: u64,
    old: Positions,
    old_lsn_max: u64,
    /// Positions up to here were forgotten.
    forgotten_lsn: u64,
    durable_lsn: u64,
    last_lsn: u64,
    /// Slots and databases whose key count changed in this turn.
    counts: Vec<(u16, u32)>,
    /// Something of the turn is logged besides keys.
    other: bool,
    /// Touches and counts when the running command began.
    marks: (usize, usize),
    /// The running command found something expired.
    expired: bool,
}

impl Default for Turn {
    fn default() -> Turn {
        Turn {
            touches: Vec::new(),
            first: 1,
            queued: VecDeque::new(),
            durable_end: 0,
            keys: Vec::new(),
            young: Positions::default(),
            young_lsn_max: 0,
            old: Positions::default(),
            old_lsn_max: 0,
            forgotten_lsn: 0,
            durable_lsn: 0,
            last_lsn: 0,
            counts: Vec::new(),
            other: false,
            marks: (0, 0),
            expired: false,
        }
    }
}

/// One number per database and key; two keys may share it, which only makes a reply wait longer.
fn identity(database: u32, hash: u64) -> u64 {
    hash ^ u64::from(database).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Turn {
    /// A command begins.
    pub fn begin(&mut self) {
        self.marks = (self.touches.len(), self.counts.len());
        self.expired = false;
    }

    /// The running command found something past its deadline, which is deleted for good.
    pub fn note_expiry(&mut self) {
        self.expired = true;
    }

    /// The running command's writes were taken back: what it touched first needs no logging. With
    /// an expiry among them everything stays: a value that is logged again does no harm.
    pub fn rolled_back(&mut self) {
        if self.expired {
            return;
        }
        self.counts.truncate(self.marks.1);
        while self.touches.len() > self.marks.0 {
            let Some(touch) = self.touches.pop() else {
                return;
            };
            self.keys.truncate(touch.key.0 as usize);
            let id = identity(touch.database, touch.hash);
            if touch.before == 0 {
                self.young.remove(&id);
            } else {
                self.young.insert(id, touch.before);
            }
        }
    }

    /// Whether there is something to seal.
    pub fn is_empty(&self) -> bool {
        self.touches.is_empty() && self.counts.is_empty() && !self.other
    }

    /// Marks that something besides keys has to be logged.
    pub fn touch_other(&mut self) {
        self.other = true;
    }

    /// Notes that the number of keys of a slot and database changed.
    pub fn count_changed(&mut self, slot: u16, database: u32) {
        if self.counts.last() != Some(&(slot, database)) {
            self.counts.push((slot, database));
        }
    }

    /// The touch of `key` in this turn; made if there is none.
    fn touch(&mut self, database: u32, key: &Key<'_>) -> (Touched, &mut Touch) {
        let id = identity(database, key.hash);
        let position = self.young.entry(id).or_insert(0);
        if *position >= self.first {
            let index = (*position - self.first) as usize;
            let touch = &self.touches[index];
            if touch.database == database && slice(&self.keys, touch.key) == key.bytes {
                return (Touched(index as u32), &mut self.touches[index]);
            }
        }
        let index = self.touches.len();
        let before = std::mem::replace(position, self.first + index as u64);
        let start = self.keys.len() as u32;
        self.keys.extend_from_slice(key.bytes);
        self.touches.push(Touch {
            database,
            slot: key.slot,
            hash: key.hash,
            what: What::Nothing,
            spot: None,
            key: (start, key.bytes.len() as u32),
            before,
        });
        (Touched(index as u32), &mut self.touches[index])
    }

    /// Notes where the entry of a touched key is.
    #[inline]
    pub(super) fn lies_at(&mut self, touched: Touched, spot: Spot) {
        self.touches[touched.0 as usize].spot = Some(spot);
    }

    /// Database and key of a touch.
    pub(super) fn touched(&self, touched: Touched) -> (u32, Key<'_>) {
        let touch = &self.touches[touched.0 as usize];
        (touch.database, self.key_of(touch))
    }

    fn key_of(&self, touch: &Touch) -> Key<'_> {
        Key {
            bytes: slice(&self.keys, touch.key),
            slot: touch.slot,
            hash: touch.hash,
        }
    }

    /// Logs the whole value of `key`.
    pub fn touch_whole(&mut self, database: u32, key: &Key<'_>) -> Touched {
        let (touched, touch) = self.touch(database, key);
        touch.what = What::Whole;
        touched
    }

    /// Logs the deadline of `key`.
    pub fn touch_deadline(&mut self, database: u32, key: &Key<'_>) -> Touched {
        let (touched, touch) = self.touch(database, key);
        touch.what = match std::mem::replace(&mut touch.what, What::Nothing) {
            What::Nothing | What::Deadline => What::Deadline,
            // The head of a hash is logged with its fields, the deadline in it.
            What::Fields(fields) => What::Fields(fields),
            What::Whole | What::Parts(_) => What::Whole,
        };
        touched
    }

    /// Logs `length` bytes at `offset` of the string at `key`.
    pub fn touch_part(
        &mut self,
        database: u32,
        key: &Key<'_>,
        offset: u32,
        length: u32,
    ) -> Touched {
        const PARTS_MAX: usize = 64;
        let (touched, touch) = self.touch(database, key);
        match &mut touch.what {
            What::Whole => {}
            What::Parts(parts) => {
                let many = parts.len() >= PARTS_MAX;
                match parts.last_mut() {
                    // Appending again and again, or the same place again.
                    Some(last) if offset >= last.0 && offset <= last.0 + last.1 => {
                        last.1 = last.1.max(offset + length - last.0);
                    }
                    _ if many => touch.what = What::Whole,
                    _ => parts.push((offset, length)),
                }
            }
            What::Nothing => touch.what = What::Parts(SmallVec::from_slice(&[(offset, length)])),
            What::Deadline | What::Fields(_) => touch.what = What::Whole,
        }
        touched
    }

    /// Logs `field` of the hash at `key`.
    pub fn touch_field(&mut self, database: u32, key: &Key<'_>, field: &[u8]) -> Touched {
        let (touched, touch) = self.touch(database, key);
        match &mut touch.what {
            What::Whole => {}
            What::Fields(fields) => fields.add(field),
            What::Nothing | What::Deadline => {
                let mut fields = Fields::default();
                fields.add(field);
                touch.what = What::Fields(fields);
            }
            What::Parts(_) => touch.what = What::Whole,
        }
        touched
    }

    /// What a reply that looked at `key` has to wait for.
    pub fn wait_for(&self, database: u32, hash: u64) -> Wait {
        if self.young.is_empty() && self.old.is_empty() && self.forgotten_lsn == 0 {
            return Wait::NONE;
        }
        let id = identity(database, hash);
        match self.young.get(&id).or_else(|| self.old.get(&id)) {
            Some(&number) if number >= self.first => Wait::TURN,
            Some(&number) if number < self.durable_end => Wait::NONE,
            Some(&number) => {
                let turn = self.queued.partition_point(|turn| turn.end <= number);
                self.queued
                    .get(turn)
                    .map_or(Wait::NONE, |turn| Wait(turn.lsn))
            }
            None if self.forgotten_lsn > self.durable_lsn => Wait(self.forgotten_lsn),
            None => Wait::NONE,
        }
    }

    /// What a reply about all keys has to wait for.
    pub fn wait_for_all(&self) -> Wait {
        if !self.is_empty() {
            Wait::TURN
        } else if self.last_lsn > self.durable_lsn {
            Wait(self.last_lsn)
        } else {
            Wait::NONE
        }
    }

    /// The touched keys, in the order of their first touch.
    pub fn touches(&self) -> impl Iterator<Item = (&Touch, Key<'_>)> {
        self.touches.iter().map(|touch| (touch, self.key_of(touch)))
    }

    /// About how many bytes the touches take in a batch, if they are short values.
    pub fn batch_bytes(&self) -> usize {
        self.keys.len() + self.touches.len() * EFFECT_BYTES
    }

    /// The slots and databases whose key count changed, each once.
    pub fn counts(&mut self) -> &[(u16, u32)] {
        self.counts.sort_unstable();
        self.counts.dedup();
        &self.counts
    }

    /// The turn was queued at `lsn`; the next one begins.
    pub fn sealed(&mut self, lsn: u64) {
        assert!(
            lsn > self.last_lsn && lsn != u64::MAX,
            "positions of a shard grow"
        );
        self.first += self.touches.len() as u64;
        self.queued.push_back(Queued {
            end: self.first,
            lsn,
        });
        if self.queued.len() >= QUEUED_MAX {
            let mut number = 0;
            self.queued.retain(|_| {
                number += 1;
                number % 2 == 0
            });
        }
        self.touches.clear();
        self.touches.shrink_to(TOUCHES_KEPT_MAX);
        self.keys.clear();
        self.keys.shrink_to(KEY_BYTES_KEPT_MAX);
        self.counts.clear();
        self.counts.shrink_to(TOUCHES_KEPT_MAX);
        self.other = false;
        self.last_lsn = lsn;
        self.young_lsn_max = lsn;
        if self.young.len() > POSITIONS_MAX && !self.old.is_empty() {
            self.forgotten_lsn = self.old_lsn_max;
            clear(&mut self.old);
        }
        if self.young.len() > POSITIONS_YOUNG_MAX && self.old.is_empty() {
            std::mem::swap(&mut self.young, &mut self.old);
            self.old_lsn_max = lsn;
        }
    }

    /// Everything up to `lsn` is durable: forgets what needs no waiting any more.
    pub fn durable(&mut self, lsn: u64) {
        self.durable_lsn = self.durable_lsn.max(lsn);
        while let Some(turn) = self.queued.front().filter(|turn| turn.lsn <= lsn) {
            self.durable_end = turn.end;
            self.queued.pop_front();
        }
        if self.forgotten_lsn <= lsn {
            self.forgotten_lsn = 0;
        }
        if self.old_lsn_max <= lsn && !self.old.is_empty() {
            clear(&mut self.old);
        }
        if self.touches.is_empty() && self.young_lsn_max <= lsn && !self.young.is_empty() {
            clear(&mut self.young);
        }
    }

    /// Memory, in bytes.
    pub fn bytes(&self) -> usize {
        let positions = self.young.capacity() + self.old.capacity();
        positions * POSITION_BYTES
            + self.touches.capacity() * size_of::<Touch>()
            + self.queued.capacity() * size_of::<Queued>()
            + self.keys.capacity()
            + self.counts.capacity() * size_of::<(u16, u32)>()
    }

    /// The last position that this shard was given.
    pub fn last_lsn(&self) -> u64 {
        self.last_lsn
    }
}

fn clear(positions: &mut Positions) {
    positions.clear();
    positions.shrink_to(POSITIONS_MAX);
}

fn slice(keys: &[u8], (start, length): (u32, u32)) -> &[u8] {
    &keys[start as usize..(start + length) as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(bytes: &[u8]) -> Key<'_> {
        Key::new(bytes, 7)
    }

    #[test]
    fn a_key_written_twice_in_a_turn_is_one_touch() {
        let mut turn = Turn::default();
        turn.touch_whole(0, &key(b"a"));
        turn.touch_whole(0, &key(b"a"));
        turn.touch_whole(1, &key(b"a"));
        assert_eq!(turn.touches().count(), 2);
        assert_eq!(turn.wait_for(0, key(b"a").hash), Wait::TURN);
        assert_eq!(turn.wait_for(0, key(b"b").hash), Wait::NONE);
        turn.sealed(5);
        assert_eq!(turn.wait_for(0, key(b"a").hash), Wait::lsn(5));
        turn.durable(5);
        assert_eq!(turn.wait_for(0, key(b"a").hash), Wait::NONE);
    }

    #[test]
    fn appends_in_a_row_are_one_part() {
        let mut turn = Turn::default();
        turn.touch_part(0, &key(b"a"), 10, 5);
        turn.touch_part(0, &key(b"a"), 15, 5);
        let (touch, _) = turn.touches().next().unwrap();
        assert_eq!(touch.what, What::Parts(SmallVec::from_slice(&[(10, 10)])));
    }

    #[test]
    fn positions_are_bounded_where_the_disk_does_not_follow() {
        let mut turn = Turn::default();
        for lsn in 1..=30_000_u64 {
            for number in 0..10 {
                turn.touch_whole(0, &key(format!("{lsn}:{number}").as_bytes()));
            }
            turn.sealed(lsn);
        }
        let positions = turn.young.len() + turn.old.len();
        assert!(positions <= 2 * (POSITIONS_MAX + 10), "{positions}");
        let wait_for = |turn: &Turn, text: &str| turn.wait_for(0, key(text.as_bytes()).hash);
        assert_eq!(wait_for(&turn, "30000:1"), Wait::lsn(30_000));
        // Nobody knows any more which keys were written first: all wait for the last of those.
        let forgotten_lsn = turn.forgotten_lsn;
        for text in ["1:1", "never written"] {
            assert_eq!(wait_for(&turn, text), Wait::lsn(forgotten_lsn));
        }
        turn.durable(forgotten_lsn);
        for text in ["1:1", "never written"] {
            assert_eq!(wait_for(&turn, text), Wait::NONE);
        }
        assert_eq!(wait_for(&turn, "30000:1"), Wait::lsn(30_000));
    }

    #[test]
    fn a_key_that_is_durable_waits_for_no_later_turn() {
        let mut turn = Turn::default();
        for (lsn, name) in [(1, b"a"), (2, b"b")] {
            turn.touch_whole(0, &key(name));
            turn.sealed(lsn);
        }
        turn.touch_whole(0, &key(b"c"));
        turn.durable(1);
        let waits = [b"a", b"b", b"c", b"d"].map(|name| turn.wait_for(0, key(name).hash));
        assert_eq!(waits, [Wait::NONE, Wait::lsn(2), Wait::TURN, Wait::NONE]);
    }

    #[test]
    fn many_queued_turns_become_fewer_and_no_key_waits_for_too_little() {
        let mut turn = Turn::default();
        let of = |lsn: u64| lsn.to_string().into_bytes();
        for lsn in 1..=3 * QUEUED_MAX as u64 {
            turn.touch_whole(0, &key(&of(lsn)));
            turn.sealed(lsn);
        }
        assert!(turn.queued.len() < QUEUED_MAX);
        let last_lsn = 3 * QUEUED_MAX as u64;
        turn.durable(QUEUED_MAX as u64);
        for lsn in 1..=last_lsn {
            let wait = turn.wait_for(0, key(&of(lsn)).hash);
            let right = match lsn <= QUEUED_MAX as u64 {
                true => wait == Wait::NONE,
                false => wait >= Wait::lsn(lsn) && wait <= Wait::lsn(last_lsn),
            };
            assert!(right, "{lsn} waits for {wait:?}");
        }
        assert_eq!(
            turn.wait_for(0, key(&of(last_lsn)).hash),
            Wait::lsn(last_lsn)
        );
        turn.durable(last_lsn);
        assert_eq!(turn.wait_for(0, key(&of(last_lsn)).hash), Wait::NONE);
    }

    #[test]
    fn positions_are_forgotten_under_endless_load() {
        let mut turn = Turn::default();
        for lsn in 1..2_000_u64 {
            for number in 0..10 {
                turn.touch_whole(0, &key(format!("{lsn}:{number}").as_bytes()));
            }
            turn.sealed(lsn);
            turn.durable(lsn.saturating_sub(3));
        }
        assert!(turn.young.len() + turn.old.len() < 3 * POSITIONS_YOUNG_MAX);
    }

    #[test]
    fn a_large_turn_takes_no_memory_away() {
        let large = |turn: &mut Turn, lsn: u64| {
            for number in 0..300_000_u32 {
                let name = format!("{lsn}:{number}");
                turn.touch_whole(0, &key(name.as_bytes()));
                turn.count_changed(number as u16, 0);
            }
            turn.sealed(lsn);
        };
        let bytes_max = 2 * 2 * POSITIONS_MAX * POSITION_BYTES
            + TOUCHES_KEPT_MAX * (size_of::<Touch>() + size_of::<(u16, u32)>())
            + 2 * QUEUED_MAX * size_of::<Queued>()
            + KEY_BYTES_KEPT_MAX;
        let mut turn = Turn::default();
        large(&mut turn, 1);
        assert!(turn.bytes() > bytes_max);
        turn.durable(1);
        assert!(turn.bytes() <= bytes_max, "{}", turn.bytes());
        // Where the disk does not follow.
        (2..5).for_each(|lsn| large(&mut turn, lsn));
        turn.durable(4);
        assert!(turn.bytes() <= bytes_max, "{}", turn.bytes());
    }
}
