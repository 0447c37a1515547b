//! A hash value: fields in the order of (field hash, field bytes), which is the store's order.
//!
//! The fields lie in sorted leaves; none is empty, none holds more than `LEAF_FIELDS_MAX`. A hash
//! knows which fields changed since the last sweep took them, removed ones included, so that one
//! HINCRBY on a large hash is one row.
//!
//! A large hash that comes from the store may be here in part: the fields that somebody asked for,
//! and how many more there are. Always true of those that are not here: each is as the store has
//! it, and none has a deadline or is a hold. So a field is *known* if it is here, or if what was
//! changed says that it was removed; any other one has to be looked for in the store.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};

use smallvec::SmallVec;

use super::field::{Field, FieldValue};
use super::key::field_hash32;

const LEAF_FIELDS_MAX: usize = 128;
/// Estimated heap bytes of an element of a B-tree, without what it points to.
const TREE_ELEMENT_BYTES: usize = 40;

/// Fields and their values.
#[derive(Clone, Debug, Default)]
pub struct Hash {
    generation: u64,
    leaves: Vec<Vec<Field>>,
    len: usize,
    /// Bytes of the leaves and of what the fields point to.
    field_bytes: usize,
    /// How many fields of a hash are due at a time, in the order of the times.
    deadlines: BTreeMap<(u64, u32), u32>,
    /// Open holds of credits, and their sum.
    holds: u32,
    held: i128,
    changed: Changes,
    in_flight: Changes,
    /// Fields that are in the store alone.
    asleep: usize,
    /// While all fields are being read: those that were removed, and that the store has no more.
    removed: Option<Box<Changes>>,
}

/// Equal fields, values and deadlines; generation and changes do not matter.
impl PartialEq for Hash {
    fn eq(&self, other: &Hash) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl Hash {
    /// An empty hash of a new generation: all that is put into it is dirty.
    pub fn new(generation: u64) -> Hash {
        let changed = Changes {
            whole: true,
            ..Changes::default()
        };
        Hash {
            generation,
            changed,
            ..Hash::default()
        }
    }

    /// An empty hash of a generation that the store has; `load` fills it.
    pub fn stored(generation: u64) -> Hash {
        Hash {
            generation,
            ..Hash::default()
        }
    }

    /// A hash that the store has, with so many fields, none of which is here.
    pub fn sleeping(generation: u64, fields: usize) -> Hash {
        Hash {
            generation,
            asleep: fields,
            ..Hash::default()
        }
    }

    /// The generation: drawn once per hash, part of its fields' row keys.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The same fields as a hash of a new generation, all of them dirty: for a copy, and for a
    /// hash that moves to another key.
    pub fn with_generation(mut self, generation: u64) -> Hash {
        assert!(self.is_whole(), "what is not here cannot move");
        self.generation = generation;
        self.changed = Changes {
            whole: true,
            ..Changes::default()
        };
        self.in_flight = Changes::default();
        self
    }

    /// Number of fields, those that are asleep and expired ones that were not yet removed included.
    pub fn len(&self) -> usize {
        self.len + self.asleep
    }

    /// True without fields.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether all its fields are here.
    pub fn is_whole(&self) -> bool {
        self.asleep == 0
    }

    /// Number of fields that are here.
    pub(super) fn fields_here(&self) -> usize {
        self.len
    }

    /// Whether no field has a deadline or is an open hold, be it here or asleep.
    pub fn is_plain(&self) -> bool {
        self.deadlines.is_empty() && self.holds == 0
    }

    /// Whether the field of this name is here, or known to be missing.
    pub fn knows(&self, hash: u32, name: &[u8]) -> bool {
        self.is_whole() || self.get(hash, name).is_some() || self.has_removed(hash, name)
    }

    /// The field of this name, if it is here; `hash` is `field_hash32` of it, here and below.
    pub fn get(&self, hash: u32, name: &[u8]) -> Option<&Field> {
        let (leaf, place) = self.locate(hash, name);
        place.ok().map(|place| &self.leaves[leaf][place])
    }

    /// Sets value and deadline (0: none); returns the field that was there.
    pub fn insert(
        &mut self,
        hash: u32,
        name: &[u8],
        value: FieldValue,
        expires_at_ms: u64,
    ) -> Option<Field> {
        let old = self.place(Field::new(hash, name, value, expires_at_ms));
        let stored_ms = old.as_ref().map_or(0, Field::due_ms);
        self.changed.add(hash, name, stored_ms);
        old
    }

    /// Puts a field that the store has already: it does not become dirty.
    pub fn load(&mut self, hash: u32, name: &[u8], value: FieldValue, expires_at_ms: u64) {
        self.place(Field::new(hash, name, value, expires_at_ms));
    }

    /// Sets the value of a field, keeping its deadline; false when there is none.
    pub fn set_value(&mut self, hash: u32, name: &[u8], value: FieldValue) -> bool {
        let Some(expires_at_ms) = self.get(hash, name).map(|field| field.expires_at_ms) else {
            return false;
        };
        self.insert(hash, name, value, expires_at_ms);
        true
    }

    /// Sets the deadline of a field (0: none); false when there is none.
    pub fn set_deadline(&mut self, hash: u32, name: &[u8], expires_at_ms: u64) -> bool {
        let Some(value) = self.get(hash, name).map(|field| field.value.clone()) else {
            return false;
        };
        self.insert(hash, name, value, expires_at_ms);
        true
    }

    /// Removes the field. What is not here and may be asleep is removed unseen (a replay does that,
    /// which then says how many fields are left).
    pub fn remove(&mut self, hash: u32, name: &[u8]) -> Option<Field> {
        let (leaf, Ok(place)) = self.locate(hash, name) else {
            if !self.is_whole() {
                self.changed.add(hash, name, 0);
            }
            return None;
        };
        let field = self.take(leaf, place);
        self.changed.add(hash, name, field.due_ms());
        Some(field)
    }

    fn take(&mut self, leaf: usize, place: usize) -> Field {
        self.field_bytes -= self.leaf_bytes(leaf);
        let field = self.leaves[leaf].remove(place);
        self.field_bytes += self.leaf_bytes(leaf);
        self.field_bytes -= field.heap_bytes();
        self.len -= 1;
        self.count(&field, false);
        self.shrink(leaf);
        field
    }

    /// The fields that are here in order, from field hash `from` on: that is HSCAN's cursor.
    pub fn iter_from(&self, from: u32) -> impl Iterator<Item = &Field> {
        let first = self
            .leaves
            .partition_point(|leaf| leaf[leaf.len() - 1].hash < from);
        self.leaves[first..]
            .iter()
            .flatten()
            .skip_while(move |field| field.hash < from)
    }

    /// The fields that are here, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Field> {
        self.leaves.iter().flatten()
    }

    /// The field at a place in the order, below `len`: a uniform draw gives a uniform field.
    pub fn nth(&self, mut place: usize) -> Option<&Field> {
        for leaf in &self.leaves {
            match leaf.get(place) {
                Some(field) => return Some(field),
                None => place -= leaf.len(),
            }
        }
        None
    }

    /// The fields at these places in the order, each below `len`; the places ascend and may repeat.
    /// One pass over the leaves, for however many places.
    pub fn at_places(&self, places: impl Iterator<Item = usize>) -> impl Iterator<Item = &Field> {
        let (mut leaf, mut before) = (0, 0);
        places.map_while(move |place| {
            while place - before >= self.leaves.get(leaf)?.len() {
                before += self.leaves[leaf].len();
                leaf += 1;
            }
            self.leaves[leaf].get(place - before)
        })
    }

    /// Number of open holds of credits.
    pub fn holds(&self) -> usize {
        self.holds as usize
    }

    /// The sum of all open holds.
    pub fn held(&self) -> i128 {
        self.held
    }

    /// The earliest time at which a field is due; 0: none is.
    pub fn next_deadline_ms(&self) -> u64 {
        self.deadlines
            .first_key_value()
            .map_or(0, |((ms, _), _)| *ms)
    }

    /// Hash and name of the fields that are due at or before `now_ms`, earliest first; stops
    /// after `limit`, give or take fields of one hash.
    pub fn expired(&self, now_ms: u64, limit: usize) -> Vec<(u32, Box<[u8]>)> {
        let mut expired = Vec::new();
        for ((ms, hash), _) in self.deadlines.range(..=(now_ms, u32::MAX)) {
            if expired.len() >= limit {
                break;
            }
            let of_hash = self
                .iter_from(*hash)
                .take_while(|field| field.hash == *hash);
            for field in of_hash.filter(|field| field.due_ms() == *ms) {
                expired.push((*hash, field.name().into()));
            }
        }
        expired
    }

    /// Heap bytes behind the hash, estimated.
    pub fn heap_bytes(&self) -> usize {
        self.leaves.capacity() * size_of::<Vec<Field>>()
            + self.field_bytes
            + self.deadlines.len() * TREE_ELEMENT_BYTES
            + self.changed.bytes
            + self.in_flight.bytes
            + self.removed.as_ref().map_or(0, |removed| removed.bytes)
    }

    // ---- what is asleep ----------------------------------------------------------------------

    /// What the store has under a name that is not known here: the field comes in.
    pub(super) fn wake(&mut self, hash: u32, name: &[u8], value: FieldValue, expires_at_ms: u64) {
        if !self.knows(hash, name) {
            self.place(Field::new(hash, name, value, expires_at_ms));
            self.asleep -= 1;
        }
    }

    /// The store has a plain hash as it was when the last sweep took it, so the fields may go that
    /// did not change since, but for those whose hash somebody needs. Returns how many went.
    pub(super) fn fall_asleep(&mut self, needed: impl Fn(u32) -> bool) -> usize {
        assert!(self.is_plain(), "what is due or held has to be here");
        // Nobody has tidied up behind that sweep, perhaps.
        self.end_flight();
        let changed = &self.changed;
        let stays = |field: &Field| {
            needed(field.hash) || changed.whole || changed.has(field.hash, field.name())
        };
        if self.iter().all(stays) {
            return 0;
        }
        let (leaves, before) = (std::mem::take(&mut self.leaves), self.len);
        let staying: Vec<Field> = leaves.into_iter().flatten().filter(stays).collect();
        (self.len, self.field_bytes) = (0, 0);
        for field in staying {
            self.place(field);
        }
        let gone = before - self.len;
        self.asleep += gone;
        gone
    }

    /// All fields are going to be read: until they are here, what is removed is remembered.
    pub(super) fn await_all(&mut self) {
        self.removed.get_or_insert_default();
    }

    /// Nobody reads all fields any more.
    pub(super) fn await_no_more(&mut self) {
        self.removed = None;
    }

    /// All fields as the store has them, read since `await_all`: what is known here is newer.
    /// `exact`: there have to be as many as this hash has; otherwise the log will say. False, and
    /// no change, where there are not.
    pub(super) fn complete(&mut self, mut stored: Hash, exact: bool) -> bool {
        let removed = self.removed.as_deref();
        for changes in [Some(&self.changed), Some(&self.in_flight), removed] {
            for (hash, name) in changes.into_iter().flat_map(Changes::iter) {
                if let (leaf, Ok(place)) = stored.locate(hash, name) {
                    stored.take(leaf, place);
                }
            }
        }
        for field in self.iter() {
            stored.place(field.clone());
        }
        if exact && stored.len != self.len() {
            return false;
        }
        stored.changed = std::mem::take(&mut self.changed);
        stored.in_flight = std::mem::take(&mut self.in_flight);
        *self = stored;
        true
    }

    /// During replay: the hash has so many fields, as the log says.
    pub(super) fn set_len(&mut self, fields: usize) -> bool {
        if !self.is_whole() {
            let Some(asleep) = fields.checked_sub(self.len) else {
                return false;
            };
            self.asleep = asleep;
        }
        true
    }

    fn has_removed(&self, hash: u32, name: &[u8]) -> bool {
        let removed = self.removed.as_deref();
        let mut all = [Some(&self.changed), Some(&self.in_flight), removed].into_iter();
        all.any(|changes| changes.is_some_and(|changes| changes.has(hash, name)))
    }

    // ---- the sweep's side --------------------------------------------------------------------

    /// True while the store has nothing of this generation.
    pub(super) fn is_new(&self) -> bool {
        self.changed.whole
    }

    /// What changed since the last sweep took something, in order: name, and the field or `None`
    /// where it was removed.
    pub(super) fn changed(&self) -> impl Iterator<Item = (&[u8], Option<&Field>)> {
        self.changed
            .iter()
            .map(|(hash, name)| (name, self.get(hash, name)))
    }

    /// Removes every field, each of which is remembered as changed.
    pub(super) fn clear(&mut self) {
        assert!(self.is_whole(), "what is not here cannot be named");
        let all: Vec<(u32, Box<[u8]>)> = self
            .iter()
            .map(|field| (field.hash, field.name().into()))
            .collect();
        for (hash, name) in all {
            self.remove(hash, &name);
        }
    }

    /// True when the running sweep took every field: the generation is new to the store.
    pub fn in_flight_whole(&self) -> bool {
        self.in_flight.whole
    }

    /// What the running sweep took, in order, from field hash `from` on: hash, name, the field or
    /// `None` where it was removed, and when it was due as far as the store knows (0: never).
    /// Stops after `limit`, but not inside of one hash; returns the hash to go on from.
    pub fn for_each_in_flight(
        &self,
        from: u32,
        limit: usize,
        mut f: impl FnMut(u32, &[u8], Option<&Field>, u64),
    ) -> Option<u32> {
        let (mut given, mut last) = (0, None);
        if self.in_flight.whole {
            for field in self.iter_from(from) {
                if given >= limit && last != Some(field.hash) {
                    return Some(field.hash);
                }
                f(field.hash, field.name(), Some(field), 0);
                (given, last) = (given + 1, Some(field.hash));
            }
            return None;
        }
        for (&hash, names) in self.in_flight.names.range(from..) {
            if given >= limit {
                return Some(hash);
            }
            for Changed { name, stored_ms } in names {
                f(hash, name, self.get(hash, name), *stored_ms);
                given += 1;
            }
        }
        None
    }

    /// A sweep takes what changed.
    pub(super) fn begin_flight(&mut self) {
        // Nobody has tidied up behind the last one, perhaps.
        self.end_flight();
        self.in_flight = std::mem::take(&mut self.changed);
    }

    /// The store has what was in flight.
    pub(super) fn end_flight(&mut self) {
        let stored = std::mem::take(&mut self.in_flight);
        if let Some(mut removed) = self.removed.take() {
            let gone = |(hash, name): &(u32, &[u8])| self.get(*hash, name).is_none();
            stored
                .iter()
                .filter(gone)
                .for_each(|(hash, name)| removed.add(hash, name, 0));
            self.removed = Some(removed);
        }
    }

    /// What was in flight did not reach the store, or perhaps it did: it counts as changed again.
    /// By name, also what was taken as a whole: the removal of a field that the store may have has
    /// to be known.
    pub(super) fn fail_flight(&mut self) {
        let failed = std::mem::take(&mut self.in_flight);
        if failed.whole {
            let changed = &mut self.changed;
            for field in self.leaves.iter().flatten() {
                changed.add(field.hash, field.name(), field.due_ms());
            }
        }
        for (hash, names) in failed.names {
            for Changed { name, stored_ms } in names {
                // The store has not heard of what changed meanwhile.
                self.changed.set(hash, name, stored_ms);
            }
        }
    }

    // ---- leaves ------------------------------------------------------------------------------

    fn locate(&self, hash: u32, name: &[u8]) -> (usize, Result<usize, usize>) {
        let order = |field: &Field| (field.hash, field.name()).cmp(&(hash, name));
        let leaf = match self.leaves.len() {
            0 | 1 => 0,
            _ => {
                let behind = self.leaves.partition_point(|leaf| order(&leaf[0]).is_le());
                behind.saturating_sub(1)
            }
        };
        match self.leaves.get(leaf) {
            Some(fields) => (leaf, fields.binary_search_by(order)),
            None => (0, Err(0)),
        }
    }

    fn place(&mut self, field: Field) -> Option<Field> {
        let (leaf, place) = self.locate(field.hash, field.name());
        self.count(&field, true);
        self.field_bytes += field.heap_bytes();
        let place = match place {
            Ok(place) => {
                let old = std::mem::replace(&mut self.leaves[leaf][place], field);
                self.count(&old, false);
                self.field_bytes -= old.heap_bytes();
                return Some(old);
            }
            Err(place) => place,
        };
        self.len += 1;
        let (leaf, place) = self.make_room(leaf, place);
        self.field_bytes -= self.leaf_bytes(leaf);
        let fields = &mut self.leaves[leaf];
        if fields.len() == fields.capacity() {
            fields.reserve_exact(fields.len() / 4 + 1);
        }
        fields.insert(place, field);
        self.field_bytes += self.leaf_bytes(leaf);
        None
    }

    /// Splits a full leaf; behind the last field a new leaf begins, so that loading in order
    /// leaves full ones.
    fn make_room(&mut self, leaf: usize, place: usize) -> (usize, usize) {
        if self.leaves.is_empty() {
            self.leaves.reserve_exact(1);
            self.leaves.push(Vec::new());
            return (0, 0);
        }
        if self.leaves[leaf].len() < LEAF_FIELDS_MAX {
            return (leaf, place);
        }
        if leaf + 1 == self.leaves.len() && place == LEAF_FIELDS_MAX {
            self.leaves.push(Vec::new());
            return (leaf + 1, 0);
        }
        let half = LEAF_FIELDS_MAX / 2;
        self.field_bytes -= self.leaf_bytes(leaf);
        let upper = self.leaves[leaf].split_off(half);
        self.leaves[leaf].shrink_to_fit();
        self.leaves.insert(leaf + 1, upper);
        self.field_bytes += self.leaf_bytes(leaf) + self.leaf_bytes(leaf + 1);
        if place > half {
            (leaf + 1, place - half)
        } else {
            (leaf, place)
        }
    }

    /// Drops an empty leaf, joins a small one with the next.
    fn shrink(&mut self, leaf: usize) {
        if self.leaves[leaf].is_empty() {
            self.field_bytes -= self.leaf_bytes(leaf);
            self.leaves.remove(leaf);
            return;
        }
        let len = self.leaves[leaf].len();
        let joined = self
            .leaves
            .get(leaf + 1)
            .map_or(usize::MAX, |next| next.len() + len);
        self.field_bytes -= self.leaf_bytes(leaf);
        if len < LEAF_FIELDS_MAX / 4 && joined <= LEAF_FIELDS_MAX / 2 {
            self.field_bytes -= self.leaf_bytes(leaf + 1);
            let next = self.leaves.remove(leaf + 1);
            self.leaves[leaf].extend(next);
        }
        let fields = &mut self.leaves[leaf];
        if fields.capacity() > 2 * fields.len() + 4 {
            fields.shrink_to_fit();
        }
        self.field_bytes += self.leaf_bytes(leaf);
    }

    fn leaf_bytes(&self, leaf: usize) -> usize {
        self.leaves[leaf].capacity() * size_of::<Field>()
    }

    /// Counts a field that comes or goes: when it is due, and what it holds.
    fn count(&mut self, field: &Field, comes: bool) {
        if let Some(hold) = field.value.open_hold() {
            let amount = i128::from(hold.amount);
            if comes {
                self.holds += 1;
                self.held += amount;
            } else {
                self.holds -= 1;
                self.held -= amount;
            }
        }
        let due_ms = field.due_ms();
        if due_ms == 0 {
            return;
        }
        let place = (due_ms, field.hash);
        let count = self.deadlines.entry(place).or_insert(0);
        if comes {
            *count += 1;
        } else {
            *count -= 1;
            if *count == 0 {
                self.deadlines.remove(&place);
            }
        }
    }
}

/// Names of changed fields, in order.
#[derive(Clone, Debug, Default)]
struct Changes {
    /// Every field is meant, and `names` is empty.
    whole: bool,
    names: BTreeMap<u32, SmallVec<[Changed; 1]>>,
    bytes: usize,
}

/// A field that changed.
#[derive(Clone, Debug)]
struct Changed {
    name: Box<[u8]>,
    /// When it was due before the first change; 0: never.
    stored_ms: u64,
}

impl Changes {
    /// A field changes that is due at `stored_ms`; what was noted of it before stays.
    fn add(&mut self, hash: u32, name: &[u8], stored_ms: u64) {
        if self.whole {
            return;
        }
        let names = self.names.entry(hash).or_default();
        if let Err(place) = names.binary_search_by(|other| (*other.name).cmp(name)) {
            self.bytes += TREE_ELEMENT_BYTES + name.len();
            let name = name.into();
            names.insert(place, Changed { name, stored_ms });
        }
    }

    /// A field changed that was due at `stored_ms`, before all that was noted of it.
    fn set(&mut self, hash: u32, name: Box<[u8]>, stored_ms: u64) {
        self.add(hash, &name, stored_ms);
        let names = self.names.get_mut(&hash).into_iter().flatten();
        for changed in names.filter(|changed| changed.name == name) {
            changed.stored_ms = stored_ms;
        }
    }

    fn has(&self, hash: u32, name: &[u8]) -> bool {
        let names = self.names.get(&hash);
        names.is_some_and(|names| names.iter().any(|other| *other.name == *name))
    }

    fn iter(&self) -> impl Iterator<Item = (u32, &[u8])> {
        self.names
            .iter()
            .flat_map(|(hash, names)| names.iter().map(move |changed| (*hash, &*changed.name)))
    }
}

/// A hash whose fields are found by name.
#[derive(Clone, Copy)]
pub struct HashRef<'a> {
    hash: &'a Hash,
    seed: u64,
}

impl<'a> HashRef<'a> {
    pub(super) fn new(hash: &'a Hash, seed: u64) -> HashRef<'a> {
        HashRef { hash, seed }
    }

    /// The field of this name.
    pub fn get(&self, name: &[u8]) -> Option<&'a Field> {
        self.hash.get(field_hash32(name, self.seed), name)
    }
}

/// A hash that is being changed; its memory is counted when this is dropped.
pub struct HashMut<'a> {
    hash: &'a mut Hash,
    before: usize,
    counters: [&'a mut usize; 3],
}

impl<'a> HashMut<'a> {
    pub(super) fn new(hash: &'a mut Hash, counters: [&'a mut usize; 3]) -> HashMut<'a> {
        let before = hash.heap_bytes();
        HashMut {
            hash,
            before,
            counters,
        }
    }
}

impl Drop for HashMut<'_> {
    fn drop(&mut self) {
        let now = self.hash.heap_bytes();
        for counter in &mut self.counters {
            **counter = **counter + now - self.before;
        }
    }
}

impl Deref for HashMut<'_> {
    type Target = Hash;
    fn deref(&self) -> &Hash {
        self.hash
    }
}

impl DerefMut for HashMut<'_> {
    fn deref_mut(&mut self) -> &mut Hash {
        self.hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::key::field_hash32;

    fn fields_in_flight(hash: &Hash) -> Vec<(Vec<u8>, bool)> {
        let mut fields = Vec::new();
        hash.for_each_in_flight(0, usize::MAX, |_, name, field, _| {
            fields.push((name.to_vec(), field.is_some()));
        });
        fields
    }

    fn large(count: u32) -> Hash {
        let mut hash = Hash::new(1);
        for number in 0..count {
            let name = format!("field:{number}");
            let value = FieldValue::from_counter(number.into());
            hash.insert(field_hash32(name.as_bytes(), 0), name.as_bytes(), value, 0);
        }
        hash
    }

    #[test]
    fn fields_are_found_and_iterated_in_order() {
        let mut hash = large(20_000);
        assert_eq!(hash.len(), 20_000);
        let order = |field: &Field| (field.hash, field.name().to_vec());
        assert!(hash.iter().map(order).is_sorted());
        let middle = hash.iter().nth(10_000).cloned();
        assert_eq!(hash.nth(10_000), middle.as_ref());
        let from = middle.map_or(0, |field| field.hash);
        assert_eq!(hash.iter_from(from).count(), 10_000);
        assert_eq!(hash.nth(20_000), None);
        for number in 0..20_000 {
            let name = format!("field:{number}");
            let removed = hash.remove(field_hash32(name.as_bytes(), 0), name.as_bytes());
            assert_eq!(
                removed.and_then(|field| field.value.counter()),
                Some(number)
            );
        }
        assert!(hash.is_empty() && hash.leaves.is_empty() && hash.field_bytes == 0);
    }

    #[test]
    fn one_change_of_a_large_hash_is_one_row() {
        let mut hash = large(5_000);
        hash.begin_flight();
        assert!(hash.in_flight_whole() && fields_in_flight(&hash).len() == 5_000);
        hash.end_flight();
        let [a, b] = ["field:7", "field:9"].map(|name| (field_hash32(name.as_bytes(), 0), name));
        hash.set_value(a.0, a.1.as_bytes(), FieldValue::from_counter(1));
        hash.begin_flight();
        assert_eq!(fields_in_flight(&hash), [(b"field:7".to_vec(), true)]);
        hash.remove(b.0, b.1.as_bytes());
        hash.fail_flight();
        hash.begin_flight();
        let mut fields = fields_in_flight(&hash);
        fields.sort();
        assert_eq!(
            fields,
            [(b"field:7".to_vec(), true), (b"field:9".to_vec(), false)]
        );
    }

    #[test]
    fn field_deadlines_are_found_in_their_order() {
        let mut hash = Hash::new(1);
        for (name, ms) in [("a", 30), ("b", 10), ("c", 0), ("d", 20)] {
            // One hash for all: names tell them apart.
            hash.insert(5, name.as_bytes(), FieldValue::from_bytes(b"x"), ms);
        }
        let names = |hash: &Hash, now_ms| -> Vec<u8> {
            hash.expired(now_ms, 10)
                .iter()
                .map(|(_, name)| name[0])
                .collect()
        };
        assert_eq!((hash.next_deadline_ms(), names(&hash, 9)), (10, vec![]));
        assert_eq!(names(&hash, 20), b"bd");
        hash.set_deadline(5, b"b", 0);
        hash.insert(5, b"d", FieldValue::from_bytes(b"y"), 40);
        assert_eq!(
            (hash.next_deadline_ms(), names(&hash, 40)),
            (30, b"ad".to_vec())
        );
        hash.remove(5, b"a");
        assert_eq!(hash.next_deadline_ms(), 40);
    }

    /// The hash as it comes from the store, and the store's fields.
    fn asleep(count: u32) -> (Hash, Hash) {
        let mut stored = Hash::stored(1);
        for field in large(count).iter() {
            stored.load(field.hash, field.name(), field.value.clone(), 0);
        }
        (Hash::sleeping(1, count as usize), stored)
    }

    #[test]
    fn a_hash_in_part_says_how_many_fields_it_has() {
        let (mut hash, stored) = asleep(1_000);
        let [a, b, c] = ["field:7", "field:9", "none"].map(|name| {
            let name = name.as_bytes();
            (field_hash32(name, 0), name)
        });
        assert!(!hash.is_whole() && hash.len() == 1_000 && hash.is_plain());
        assert!(!hash.knows(a.0, a.1) && hash.get(a.0, a.1).is_none());
        hash.wake(a.0, a.1, FieldValue::from_counter(7), 0);
        hash.wake(b.0, b.1, FieldValue::from_counter(9), 0);
        assert!(hash.knows(a.0, a.1) && hash.len() == 1_000 && hash.iter().count() == 2);
        hash.set_value(a.0, a.1, FieldValue::from_counter(70));
        hash.remove(b.0, b.1);
        hash.insert(c.0, c.1, FieldValue::from_counter(1), 0);
        assert_eq!((hash.len(), hash.iter().count()), (1_000, 2));
        assert!(hash.knows(b.0, b.1) && hash.get(b.0, b.1).is_none());
        // What was read before is older than what was removed, and does not come back.
        hash.wake(b.0, b.1, FieldValue::from_counter(9), 0);
        assert!(hash.get(b.0, b.1).is_none());
        let mut whole = hash.clone();
        assert!(whole.complete(stored.clone(), true));
        assert!(whole.is_whole() && whole.len() == 1_000 && whole.get(b.0, b.1).is_none());
        let value = |name: (u32, &[u8])| whole.get(name.0, name.1)?.value.counter();
        assert_eq!((value(a), value(c)), (Some(70), Some(1)));
        let mut damaged = stored.clone();
        damaged.remove(field_hash32(b"field:500", 0), b"field:500");
        assert!(!hash.complete(damaged, true) && hash.iter().count() == 2);
        // The sweep gives what changed, and nothing of what is asleep.
        hash.begin_flight();
        assert!(!hash.in_flight_whole());
        let mut swept = fields_in_flight(&hash);
        swept.sort();
        let name = |name: &[u8], there| (name.to_vec(), there);
        let wanted = [name(a.1, true), name(b.1, false), name(c.1, true)];
        assert_eq!(swept, wanted);
    }

    #[test]
    fn what_is_removed_while_all_fields_are_read_does_not_come_back() {
        let (mut hash, stored) = asleep(1_000);
        let name = (field_hash32(b"field:7", 0), b"field:7");
        hash.await_all();
        hash.wake(name.0, name.1, FieldValue::from_counter(7), 0);
        hash.remove(name.0, name.1);
        hash.begin_flight();
        hash.end_flight();
        assert!(
            hash.knows(name.0, name.1),
            "it is remembered while somebody reads"
        );
        assert!(hash.complete(stored, true));
        assert!(hash.get(name.0, name.1).is_none() && hash.len() == 999);
        let (mut hash, _) = asleep(1_000);
        hash.wake(name.0, name.1, FieldValue::from_counter(7), 0);
        hash.remove(name.0, name.1);
        hash.begin_flight();
        hash.end_flight();
        assert!(!hash.knows(name.0, name.1), "the store knows");
    }

    #[test]
    fn pieces_in_flight_cover_all_fields_once() {
        let mut hash = large(3_000);
        hash.begin_flight();
        let (mut from, mut count) = (Some(0), 0);
        while let Some(hash32) = from {
            from = hash.for_each_in_flight(hash32, 100, |_, _, _, _| count += 1);
        }
        assert_eq!(count, 3_000);
    }
}
