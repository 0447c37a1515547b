//! Eviction: entries that the store has as well leave memory, the least recently used first.
//!
//! A hand goes round the tables, bucket by bucket. It takes the mark of use from what it passes,
//! and drops what was not used since it came by the last time: the clock algorithm, so what is hot
//! stays, however finely. Always true: only clean entries go, and each is counted as asleep from
//! then on. Who needs one keeps it; of a large hash that is kept, the fields go that nobody needs.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included};

use super::directory::{Bucket, SlotTable};
use super::entry::{DIRTY, HASH, IN_FLIGHT, REFERENCED, Raw, TOMBSTONE};
use super::{DatabaseId, Hash, Key, Tables};
use crate::limits::ASLEEP_FIELDS_MIN;
use crate::sim::{self, Fault};

/// Where eviction goes on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hand {
    database: DatabaseId,
    slot: u16,
    /// The next hash; 2^32 behind the last.
    hash: u64,
}

/// What of a key has to stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stays {
    /// The key; of a large hash how many fields it has.
    Key,
    /// The fields of a hash with this hash of their names, and the key.
    Field(u32),
    /// All fields of a hash, and the key.
    Fields,
}

/// What has to stay, by the stored part of its key's hash, and for how many reasons each.
#[derive(Clone, Debug, Default)]
pub(super) struct Pinned(BTreeMap<(DatabaseId, u16, u32, Stays), u32>);

impl Pinned {
    /// Those of a slot from one hash up to another, or to 2^32, ascending.
    fn between(
        &self,
        database: DatabaseId,
        slot: u16,
        (from, to): (u32, u64),
    ) -> Vec<(u32, Stays)> {
        let from = (database, slot, from, Stays::Key);
        let to = match u32::try_from(to) {
            Ok(to) => Excluded((database, slot, to, Stays::Key)),
            Err(_) => Included((database, slot, u32::MAX, Stays::Fields)),
        };
        let pinned = self.0.range((Included(from), to));
        pinned
            .map(|((_, _, hash32, stays), _)| (*hash32, *stays))
            .collect()
    }
}

/// What of `pinned` is of keys with a hash.
fn of_hash(pinned: &[(u32, Stays)], hash32: u32) -> &[(u32, Stays)] {
    let from = pinned.partition_point(|(other, _)| *other < hash32);
    let end = pinned.partition_point(|(other, _)| *other <= hash32);
    &pinned[from..end]
}

/// What a piece of eviction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evicted {
    /// Entries that left.
    pub entries: u64,
    /// Fields that left, of hashes that stayed.
    pub fields: u64,
    /// The hand went all the way round, and nothing can leave any more.
    pub exhausted: bool,
}

/// Once round to take marks of use away, once for what has none, and once for the way to the end
/// that the hand began in the middle of.
const ROUNDS_MAX: usize = 3;

impl Evicted {
    /// Whether something left.
    pub fn any(&self) -> bool {
        self.entries + self.fields > 0
    }
}

impl Tables {
    /// A key, if it is or comes here, stays until it is unpinned as often as it was pinned.
    pub(super) fn pin(&mut self, database: DatabaseId, key: &Key<'_>, stays: Stays) {
        let place = (database, key.slot, key.hash32(), stays);
        *self.pinned.0.entry(place).or_insert(0) += 1;
    }

    /// Takes back one `pin`.
    pub(super) fn unpin(&mut self, database: DatabaseId, key: &Key<'_>, stays: Stays) {
        let place = (database, key.slot, key.hash32(), stays);
        if let Some(reasons) = self.pinned.0.get_mut(&place) {
            *reasons -= 1;
            if *reasons == 0 {
                self.pinned.0.remove(&place);
            }
        }
    }

    /// Drops clean entries until the tables take at most `bytes_max`, or about `budget` entries
    /// were passed, and at most a bucket more. `used_too`: also those that were just used.
    pub fn evict(&mut self, bytes_max: usize, budget: usize, used_too: bool) -> Evicted {
        let mut evicted = Evicted::default();
        let (mut passed, mut idle_rounds) = (0, 0);
        while passed < budget && idle_rounds < ROUNDS_MAX {
            let bytes = self.bytes();
            if bytes <= bytes_max || self.live() == 0 {
                evicted.exhausted = bytes > bytes_max;
                return evicted;
            }
            match self.evict_next(bytes - bytes_max, used_too) {
                Some((gone, steps)) => {
                    evicted.entries += gone.entries;
                    evicted.fields += gone.fields;
                    passed += steps;
                    if gone.any() {
                        idle_rounds = 0;
                    }
                }
                None => idle_rounds += 1,
            }
        }
        evicted.exhausted = idle_rounds == ROUNDS_MAX;
        evicted
    }

    /// Goes over the hand's next bucket and moves the hand on. Returns what left and how many
    /// entries it passed; nothing at the end of a round.
    fn evict_next(&mut self, bytes_wanted: usize, used_too: bool) -> Option<(Evicted, usize)> {
        let running_sweep = self.running_sweep();
        let Some((place, index)) = self.hand_place() else {
            self.hand = Hand::default();
            return None;
        };
        let slot = self.slots().start + index as u16;
        let database = &mut self.databases[place];
        let table = database.tables[index].as_deref_mut()?;
        let hash32 = u32::try_from(self.hand.hash).unwrap_or(u32::MAX);
        let before = table.tally;
        let (number, end) = table.bucket_range(hash32);
        let bounds = (table.bucket_start(hash32), end);
        let pinned = self.pinned.between(database.id, slot, bounds);
        let passed = table.buckets[number as usize].len();
        let gone = table.change_bucket(number, |bucket| {
            let in_flight = bucket.swept == running_sweep && running_sweep != 0;
            let may_go = |raw: Raw<'_>| used_too || raw.meta() & REFERENCED == 0;
            evict_from(bucket, in_flight, may_go, &pinned, bytes_wanted)
        });
        table.tally.asleep += gone.entries;
        self.has_parts |= gone.fields > 0;
        table.shed();
        database.tally.replace(before, table.tally);
        let (slot, hash) = match u32::try_from(end) {
            Ok(_) => (slot, end),
            Err(_) => (slot + 1, 0),
        };
        self.hand = Hand {
            database: database.id,
            slot,
            hash,
        };
        Some((gone, passed.max(1)))
    }

    /// The database and table, by place, that the hand has next; moves it there.
    fn hand_place(&mut self) -> Option<(usize, usize)> {
        let start = self.slots().start;
        let first = self
            .databases
            .partition_point(|database| database.id < self.hand.database);
        for (place, database) in self.databases.iter().enumerate().skip(first) {
            if database.id != self.hand.database {
                self.hand = Hand {
                    database: database.id,
                    ..Hand::default()
                };
            }
            let from = usize::from(self.hand.slot.saturating_sub(start));
            let used = |table: &Option<Box<SlotTable>>| {
                table.as_ref().is_some_and(|table| table.tally.len > 0)
            };
            let tables = database.tables.iter().enumerate().skip(from);
            if let Some((index, _)) = tables.into_iter().find(|(_, table)| used(table)) {
                if index != from {
                    self.hand.hash = 0;
                }
                return Some((place, index));
            }
        }
        None
    }
}

impl SlotTable {
    /// An empty table gives its directory and buckets back.
    pub(super) fn shed(&mut self) {
        if self.tally.len > 0 || self.buckets.len() == 1 {
            return;
        }
        let asleep = self.tally.asleep;
        *self = SlotTable::new();
        self.tally.asleep = asleep;
    }
}

fn evict_from(
    bucket: &mut Bucket,
    in_flight: bool,
    may_go: impl Fn(Raw<'_>) -> bool,
    pinned: &[(u32, Stays)],
    bytes_wanted: usize,
) -> Evicted {
    let kept = match in_flight {
        _ if sim::fault(Fault::DirtyEvicted) => 0,
        true => DIRTY | IN_FLIGHT,
        false => DIRTY,
    };
    let clean = |raw: Raw<'_>| raw.meta() & kept == 0 && raw.kind() != TOMBSTONE;
    let (mut evicted, mut bytes) = (Evicted::default(), 0);
    for number in bucket.segment_numbers() {
        let segment = bucket.segment_mut(number);
        let (mut going, mut thinned) = (Vec::new(), Vec::new());
        for offset in segment.places() {
            let raw = segment.raw_at(offset);
            if bytes >= bytes_wanted || !clean(raw) || !may_go(raw) {
                continue;
            }
            let needed = of_hash(pinned, raw.hash32());
            if needed.is_empty() {
                bytes += segment.entry_bytes(raw);
                going.push(offset);
            } else if raw.kind() == HASH {
                thinned.push((offset, needed));
            }
        }
        for (offset, needed) in thinned {
            segment.change_hash(offset, |hash| {
                let before = hash.heap_bytes();
                evicted.fields += evict_fields(hash, needed);
                bytes += before.saturating_sub(hash.heap_bytes());
            });
        }
        if !going.is_empty() {
            evicted.entries += going.len() as u64;
            segment.drop_places(going);
        }
        segment.unmark_used(clean);
    }
    if bucket.segments().any(|segment| segment.len() == 0) {
        bucket.drop_empty();
    }
    evicted
}

/// Lets the fields of a clean hash go that nobody needs, if it may be here in part. Returns how
/// many.
fn evict_fields(hash: &mut Hash, needed: &[(u32, Stays)]) -> u64 {
    let large = hash.len() as u64 >= ASLEEP_FIELDS_MIN;
    if !large || !hash.is_plain() || needed.iter().any(|(_, stays)| *stays == Stays::Fields) {
        return 0;
    }
    let needed = |field: u32| {
        let place = needed.binary_search_by(|(_, stays)| stays.cmp(&Stays::Field(field)));
        place.is_ok()
    };
    hash.fall_asleep(needed) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::key::field_hash32;
    use crate::keyspace::{FieldValue, Key, Value};

    const KEYS: usize = 20_000;
    const HOT: usize = 200;

    fn with_key<R>(number: usize, f: impl FnOnce(&Key<'_>) -> R) -> R {
        let text = format!("counter:{number:012}");
        let key = Key::new(text.as_bytes(), 3);
        f(&Key {
            slot: key.slot % 4,
            ..key
        })
    }

    fn wake(tables: &mut Tables, number: usize) -> bool {
        with_key(number, |key| {
            tables.load(0, key, Value::Counter(number as i64), 0)
        })
    }

    fn use_key(tables: &mut Tables, number: usize) -> bool {
        with_key(number, |key| {
            let spot = tables.spot(0, key);
            spot.is_some_and(|spot| tables.at_touched(spot).is_some())
        })
    }

    #[test]
    fn what_is_hot_stays_while_cold_keys_come_and_go() {
        let mut tables = Tables::new(0..4);
        assert!((0..KEYS).all(|number| wake(&mut tables, number)));
        let bytes_max = tables.bytes() / 4;
        let (mut cold, mut missed) = (HOT, 0);
        for _ in 0..200 {
            for number in 0..HOT {
                if !use_key(&mut tables, number) {
                    missed += 1;
                    wake(&mut tables, number);
                    use_key(&mut tables, number);
                }
            }
            for _ in 0..500 {
                cold = HOT + (cold + 1 - HOT) % (KEYS - HOT);
                wake(&mut tables, cold);
                use_key(&mut tables, cold);
            }
            let evicted = tables.evict(bytes_max, usize::MAX, false);
            assert!(!evicted.exhausted && tables.bytes() <= bytes_max);
        }
        assert!(
            missed <= HOT,
            "hot keys were missed {missed} times of 40,000"
        );
        assert_eq!(
            tables.count_db(0),
            KEYS as u64,
            "who left is counted as asleep"
        );
    }

    #[test]
    fn what_is_dirty_stays_and_the_hand_says_so() {
        let mut tables = Tables::new(0..4);
        for number in 0..KEYS {
            wake(&mut tables, number);
        }
        for number in 0..HOT {
            with_key(number, |key| {
                tables.update_counter(0, key, |counter, _| *counter += 1)
            });
        }
        let evicted = tables.evict(0, usize::MAX, false);
        assert!(evicted.exhausted);
        assert_eq!(evicted.entries, (KEYS - HOT) as u64);
        assert!((0..HOT).all(|number| use_key(&mut tables, number)));
        // A small budget goes only so far, and goes on there the next time.
        for number in HOT..KEYS {
            wake(&mut tables, number);
        }
        let bytes = tables.bytes();
        let mut calls = 0;
        while !tables.evict(0, 1_000, true).exhausted {
            calls += 1;
            assert!(calls < 200);
        }
        assert!(calls > 10 && tables.bytes() < bytes / 2);
    }

    #[test]
    fn a_bucket_is_passed_beside_its_own_pinned_keys_alone() {
        let mut tables = Tables::new(0..4);
        let keys = 0..KEYS;
        for number in keys.clone() {
            wake(&mut tables, number);
            with_key(number, |key| tables.pin(0, key, Stays::Key));
        }
        assert_eq!(tables.evict(0, usize::MAX, true).entries, 0);
        let table = tables.databases[0].tables[1].as_deref();
        let table = table.expect("it has keys");
        let (mut from, mut found) = (0, 0);
        while let Ok(hash32) = u32::try_from(from) {
            let ((number, end), start) = (table.bucket_range(hash32), table.bucket_start(hash32));
            let pinned = tables.pinned.between(0, 1, (start, end));
            assert_eq!(pinned.len(), table.buckets[number as usize].len());
            assert!(u64::from(start) == from && pinned.is_sorted());
            (from, found) = (end, found + pinned.len());
        }
        assert_eq!((from, found), (1 << 32, table.tally.len));
        for number in keys.skip(1) {
            with_key(number, |key| tables.unpin(0, key, Stays::Key));
        }
        assert_eq!(tables.evict(0, usize::MAX, true).entries, KEYS as u64 - 1);
        assert!(use_key(&mut tables, 0));
    }

    #[test]
    fn of_a_hash_that_stays_only_those_fields_do_that_are_needed() {
        let name = |number: usize| format!("field:{number}").into_bytes();
        let place = |number: usize| field_hash32(&name(number), 0);
        let mut tables = Tables::new(0..4);
        let empty = tables.bytes();
        with_key(1, |key| {
            let mut hash = Hash::stored(7);
            for number in 0..1_000 {
                let value = FieldValue::from_bytes(&[b'v'; 100]);
                hash.load(place(number), &name(number), value, 0);
            }
            tables.load(0, key, Value::Hash(Box::new(hash)), 0);
            let state = |tables: &mut Tables| {
                let hash = tables.hash_quietly(0, key).expect("it stays");
                (hash.len(), hash.fields_here())
            };
            let full = tables.bytes();
            tables.pin(0, key, Stays::Field(place(1)));
            tables.pin(0, key, Stays::Fields);
            let evicted = tables.evict(0, usize::MAX, true);
            assert!(evicted.exhausted && !evicted.any());
            assert_eq!((state(&mut tables), tables.bytes()), ((1_000, 1_000), full));
            tables.unpin(0, key, Stays::Fields);
            // What changed is known here alone, and so is how many fields there are.
            let changes = |tables: &mut Tables| {
                let mut hash = tables.hash_mut(0, key).expect("it stays");
                hash.set_value(place(2), &name(2), FieldValue::from_counter(2));
                hash.remove(place(3), &name(3));
            };
            changes(&mut tables);
            assert!(!tables.evict(0, usize::MAX, true).any());
            let mut cursor = tables.sweep_begin();
            tables.sweep(&mut cursor, &mut usize::MAX.clone(), |_| ());
            tables.sweep(&mut cursor, &mut usize::MAX.clone(), |_| ());
            assert!(!tables.evict(0, usize::MAX, true).any());
            tables.sweep_finished(true);
            let evicted = tables.evict(0, usize::MAX, true);
            assert_eq!((evicted.entries, evicted.fields), (0, 998));
            assert_eq!(state(&mut tables), (999, 1));
            assert!(tables.has_parts() && tables.bytes() < full / 50);
            assert!(!tables.evict(0, usize::MAX, true).any(), "it goes once");
            tables.unpin(0, key, Stays::Field(place(1)));
            assert_eq!(tables.evict(0, usize::MAX, true).entries, 1);
        });
        assert_eq!(tables.bytes() - tables.skeleton_bytes(), 0, "of {empty}");
    }
}
