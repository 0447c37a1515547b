//! The table against a plain model: random changes, sweeps that reach a pretended store or fail,
//! evictions and loads, also of hashes without their fields, must leave table and store with what
//! the model says.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::*;

type Id = (DatabaseId, Vec<u8>);
/// Key and generation, name, and value and deadline unless it was removed.
type FieldRow = ((Id, u64), Vec<u8>, Option<(FieldValue, u64)>);
type Fields = BTreeMap<Vec<u8>, (FieldValue, u64)>;

/// Changes that a sweep gave out.
#[derive(Default)]
struct Taken {
    rows: HashMap<Id, Option<(Value, u64)>>,
    fields: Vec<FieldRow>,
}

struct World {
    rng: Xoshiro256PlusPlus,
    keys: u64,
    hash_mask: u64,
    tables: Tables,
    model: HashMap<Id, (Value, u64)>,
    store: HashMap<Id, (Value, u64)>,
    store_fields: HashMap<(Id, u64), Fields>,
    sweep: Option<(SweepCursor, Taken)>,
    /// All fields of a hash as they were when somebody began to read them.
    reading: Option<(Id, Hash)>,
    generation: u64,
}

impl World {
    fn new(seed: u64, keys: u64, hash_mask: u64) -> World {
        World {
            rng: Xoshiro256PlusPlus::seed_from_u64(seed),
            keys,
            hash_mask,
            tables: Tables::new(100..103),
            model: HashMap::new(),
            store: HashMap::new(),
            store_fields: HashMap::new(),
            sweep: None,
            reading: None,
            generation: 0,
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.rng.next_u64() % bound
    }

    fn id(&mut self) -> Id {
        let number = self.below(self.keys);
        let mut key = format!("key:{number}").into_bytes();
        if number.is_multiple_of(13) {
            key.resize(300 + number as usize % 100, b'x');
        }
        (self.below(2) as u32 * 7, key)
    }

    fn step(&mut self) {
        let id = self.id();
        let owned = id.clone();
        let key = key(&owned.1, self.hash_mask);
        let deadline_ms = self.below(3) * (1000 + self.below(1 << 40));
        match self.below(100) {
            0..25 => {
                let value = self.value();
                self.model.insert(id, (value.clone(), deadline_ms));
                self.tables.put(owned.0, &key, value, deadline_ms);
            }
            25..35 => {
                let value = self.value();
                let was = self.model.insert(id, (value.clone(), deadline_ms));
                let before = self.tables.set(owned.0, &key, value, deadline_ms);
                assert_eq!(self.filled(&owned, before), was);
            }
            35..50 => {
                let before = self.tables.remove(owned.0, &key);
                assert_eq!(self.filled(&owned, before), self.model.remove(&id));
            }
            50..60 => self.count(id, &key),
            60..68 => {
                let there = self.model.get_mut(&id).map(|entry| entry.1 = deadline_ms);
                let set = self.tables.set_deadline(owned.0, &key, deadline_ms);
                assert_eq!(set, there.is_some());
            }
            68..74 => self.append(id, &key),
            74..85 => self.change_hash(id, &key),
            85..87 => self.read_fields(id, &key),
            87..94 => self.evict(id, &key),
            _ => self.advance_sweep(),
        }
        let found = self.tables.get(owned.0, &key).map(of_entry);
        if let Some((Value::Hash(hash), _)) = &found {
            let model = self.model.get(&owned);
            assert!(matches!(model, Some((Value::Hash(model), _)) if model.len() == hash.len()));
        }
        let filled = self.filled(&owned, found);
        assert_eq!(filled, self.model.get(&owned).cloned());
    }

    /// With the fields that the store has alone.
    fn filled(&self, id: &Id, mut found: Option<(Value, u64)>) -> Option<(Value, u64)> {
        if let Some((Value::Hash(hash), _)) = &mut found
            && !hash.is_whole()
        {
            let stored = self.stored_fields(id, hash.generation());
            assert!(hash.complete(stored, true), "as many as the head says");
        }
        found
    }

    /// All fields of a hash that is here in part are read; other things happen before they come.
    fn read_fields(&mut self, id: Id, key: &Key) {
        if let Some((id, stored)) = self.reading.take() {
            let key = self::key(&id.1, self.hash_mask);
            if let Some(mut hash) = self.tables.hash_quietly(id.0, &key) {
                if !hash.is_whole() && hash.generation() == stored.generation() {
                    assert!(hash.complete(stored, true), "as many as the head says");
                }
                hash.await_no_more();
            }
            return;
        }
        let generation = match self.tables.hash_quietly(id.0, key) {
            Some(hash) if !hash.is_whole() => hash.generation(),
            _ => return,
        };
        self.tables.await_fields(id.0, key);
        let stored = self.stored_fields(&id, generation);
        self.reading = Some((id, stored));
    }

    fn value(&mut self) -> Value {
        let number = self.below(1 << 62) as i64;
        match self.below(6) {
            0..3 => Value::Counter(number),
            3 => Value::from_bytes(&vec![b'v'; number as usize % 100]),
            4 => Value::Cell(Box::new(Cell {
                token: number as u64,
                owner: None,
                fingerprint: Some("fp".into()),
                done: false,
                state: "working".into(),
            })),
            _ => {
                self.generation += 1;
                let mut hash = Hash::new(self.generation);
                let count = if self.below(50) == 0 {
                    3000
                } else {
                    1 + self.below(5)
                };
                for field in 0..count {
                    let (field_hash, name) = field_of(field);
                    hash.insert(field_hash, &name, FieldValue::from_counter(number), 0);
                }
                Value::Hash(Box::new(hash))
            }
        }
    }

    fn count(&mut self, id: Id, key: &Key) {
        let was = self
            .tables
            .update_counter(id.0, key, |counter, deadline_ms| {
                *counter = counter.wrapping_add(1);
                (*counter - 1, deadline_ms)
            });
        match self.model.get_mut(&id) {
            Some((Value::Counter(counter), deadline_ms)) => {
                assert_eq!(was, Some((*counter, *deadline_ms)));
                *counter += 1;
            }
            _ => assert_eq!(was, None),
        }
    }

    fn append(&mut self, id: Id, key: &Key) {
        let edited = self
            .tables
            .edit_string(id.0, key, |text| text.extend_from_slice(b"4"));
        let entry = self.model.get_mut(&id);
        let text = match &entry {
            Some((Value::Counter(counter), _)) => counter.to_string().into_bytes(),
            Some((Value::String(text), _)) => text.to_vec(),
            Some((Value::Cell(cell), _)) => cell.state.to_vec(),
            _ => return assert!(edited.is_none()),
        };
        if let Some(entry) = entry {
            entry.0 = Value::from_bytes(&[&text[..], b"4"].concat());
        }
        assert!(edited.is_some());
    }

    fn change_hash(&mut self, id: Id, key: &Key) {
        let (field_hash, name) = field_of(self.below(8));
        let (remove, number) = (self.below(3) == 0, self.below(99));
        let ms = self.below(2) * self.below(2) * 77;
        self.know(&id, key, (field_hash, &name), ms == 0);
        let Some(mut hash) = self.tables.hash_mut(id.0, key) else {
            assert!(!matches!(self.model.get(&id), Some((Value::Hash(_), _))));
            return;
        };
        let Some((Value::Hash(model), _)) = self.model.get_mut(&id) else {
            panic!("no hash")
        };
        for hash in [&mut *hash, &mut **model] {
            if remove && hash.len() > 1 {
                hash.remove(field_hash, &name);
            } else {
                hash.insert(
                    field_hash,
                    &name,
                    FieldValue::from_counter(number as i64),
                    ms,
                );
            }
        }
    }

    /// Reads a field that is not known, or all where something is going to be due.
    fn know(&mut self, id: &Id, key: &Key, (hash, name): (u32, &[u8]), plain: bool) {
        let generation = match self.tables.hash_quietly(id.0, key) {
            Some(fields) if fields.is_whole() || plain && fields.knows(hash, name) => return,
            Some(fields) => fields.generation(),
            None => return,
        };
        let stored = self.stored_fields(id, generation);
        let Some(mut fields) = self.tables.hash_quietly(id.0, key) else {
            panic!("it was there")
        };
        if !plain {
            assert!(fields.complete(stored, true), "as many as the head says");
        } else if let Some(field) = stored.get(hash, name) {
            fields.wake(hash, name, field.value.clone(), field.expires_at_ms);
        }
    }

    /// A clean entry is what the store has; it may go and come back, a hash without its fields, and
    /// fields may go by themselves.
    fn evict(&mut self, id: Id, key: &Key) {
        if self.reading.as_ref().is_some_and(|reading| reading.0 == id) {
            return;
        }
        let state = self.tables.get(id.0, key).map(|entry| entry.state());
        let (alone, needed) = (self.below(3) == 0, field_of(self.below(8)).0);
        if alone
            && state == Some(EntryState::Clean)
            && let Some(mut hash) = self.tables.hash_quietly(id.0, key)
            && hash.is_plain()
        {
            hash.fall_asleep(|field| field == needed);
            return;
        }
        let forgotten = self.tables.forget(id.0, key);
        assert_eq!(forgotten, state == Some(EntryState::Clean));
        if forgotten {
            let (mut value, deadline_ms) = self.stored(&id).expect("a clean entry is in the store");
            if let Value::Hash(hash) = &mut value
                && hash.is_plain()
                && self.below(4) > 0
            {
                **hash = Hash::sleeping(hash.generation(), hash.len());
            }
            assert!(self.tables.load(id.0, key, value, deadline_ms));
        } else if let Presence::Absent = self.tables.presence(id.0, key) {
            assert_eq!(self.store.get(&id), None, "the table forgot a deletion");
        }
    }

    fn stored(&self, id: &Id) -> Option<(Value, u64)> {
        let (mut value, deadline_ms) = self.store.get(id)?.clone();
        if let Value::Hash(hash) = &mut value {
            let (fields, plain) = (hash.len(), hash.is_plain());
            **hash = self.stored_fields(id, hash.generation());
            assert_eq!(
                (hash.len(), hash.is_plain()),
                (fields, plain),
                "as the head says"
            );
        }
        Some((value, deadline_ms))
    }

    fn stored_fields(&self, id: &Id, generation: u64) -> Hash {
        let mut whole = Hash::stored(generation);
        let fields = self.store_fields.get(&(id.clone(), generation));
        for (name, (value, ms)) in fields.into_iter().flatten() {
            whole.load(name_hash(name), name, value.clone(), *ms);
        }
        whole
    }

    fn advance_sweep(&mut self) {
        self.tables.reclaim(1);
        let Some((mut cursor, mut taken)) = self.sweep.take() else {
            self.sweep = Some((self.tables.sweep_begin(), Taken::default()));
            return;
        };
        let mut steps = 1 + self.below(1600) as usize;
        let pause = self
            .tables
            .sweep(&mut cursor, &mut steps, |swept| taken.add(&swept));
        if pause != SweepPause::End {
            self.sweep = (self.below(40) != 0).then_some((cursor, taken));
            if self.sweep.is_none() {
                self.tables.sweep_finished(false);
            }
            return;
        }
        let stored = self.below(3) != 0;
        self.tables.sweep_finished(stored);
        if stored {
            self.store(taken);
        }
    }

    fn store(&mut self, taken: Taken) {
        for (id, row) in taken.rows {
            match row {
                Some(row) => self.store.insert(id, row),
                None => self.store.remove(&id),
            };
        }
        for (id, name, field) in taken.fields {
            let fields = self.store_fields.entry(id).or_default();
            match field {
                Some(field) => fields.insert(name, field),
                None => fields.remove(&name),
            };
        }
    }

    fn finish(&mut self) {
        while self.sweep.is_some() {
            self.advance_sweep();
        }
        let (mut cursor, mut taken) = (self.tables.sweep_begin(), Taken::default());
        let mut last = None;
        let mut sweep = || {
            self.tables.sweep(&mut cursor, &mut 800, |swept| {
                let Swept {
                    slot,
                    database,
                    hash32,
                    key,
                    ..
                } = swept;
                let place = (
                    slot,
                    swept.is_fields(),
                    database,
                    hash32,
                    key.len(),
                    key.to_vec(),
                );
                assert!(last <= Some(place.clone()), "in the store's order");
                last = Some(place);
                taken.add(&swept);
            })
        };
        while sweep() != SweepPause::End {}
        self.tables.sweep_finished(true);
        self.store(taken);
        assert_eq!(self.tables.dirty_entries(), 0);
        while !self.tables.reclaim(1) {}
        for id in self.model.keys().chain(self.store.keys()) {
            assert_eq!(self.stored(id), self.model.get(id).cloned());
        }
        let mut scanned = BTreeSet::new();
        for database in [0, 7] {
            let live = self.model.keys().filter(|id| id.0 == database).count();
            assert_eq!(self.tables.count_db(database), live as u64);
            let mut from = Some((0, 0));
            while let Some((slot, hash32)) = from {
                from = self.tables.scan(database, slot, hash32, 7, |entry| {
                    assert!(
                        scanned.insert((database, entry.key().to_vec())),
                        "given twice"
                    );
                });
            }
        }
        assert!(
            scanned
                .iter()
                .eq(self.model.keys().collect::<BTreeSet<_>>())
        );
        self.check_sums();
    }

    fn check_sums(&self) {
        for database in &self.tables.databases {
            let bytes = database.tables.len() * 8;
            let mut sum = super::segment::Tally {
                bytes,
                ..Default::default()
            };
            for table in database.tables.iter().flatten() {
                sum.bytes += table.own_bytes();
                for bucket in &table.buckets {
                    sum.add(bucket.tally());
                    let tombs = bucket.segments().map(|s| s.len() - s.live()).sum::<usize>();
                    assert_eq!(tombs, 0, "tombstones are reclaimed");
                }
            }
            assert_eq!(sum, database.tally);
        }
    }
}

impl Taken {
    fn add(&mut self, swept: &Swept<'_>) {
        let id = (swept.database, swept.key.to_vec());
        if !swept.is_fields() {
            self.rows.insert(id.clone(), swept.entry.map(of_entry));
        }
        if let Some(Value::Hash(hash)) = swept.entry.map(|entry| entry.to_value()) {
            let id = (id, hash.generation());
            swept.for_each_field(|_, name, field, _| {
                let field = field.map(|field| (field.value.clone(), field.expires_at_ms));
                self.fields.push((id.clone(), name.to_vec(), field));
            });
        }
    }
}

fn of_entry(entry: EntryRef<'_>) -> (Value, u64) {
    (entry.to_value(), entry.deadline_ms())
}

fn key(bytes: &[u8], hash_mask: u64) -> Key<'_> {
    let key = Key::new(bytes, 5);
    Key {
        slot: 100 + key.slot % 3,
        hash: key.hash & hash_mask,
        ..key
    }
}

fn name_hash(name: &[u8]) -> u32 {
    // Few hashes, so that fields share them.
    key::field_hash32(name, 9) % 2000
}

fn field_of(number: u64) -> (u32, Vec<u8>) {
    let name = format!("field:{number}").into_bytes();
    (name_hash(&name), name)
}

#[test]
fn table_and_store_agree_with_the_model() {
    for seed in 0..40 {
        let mut world = World::new(seed, 60, u64::MAX);
        (0..2000).for_each(|_| world.step());
        world.finish();
    }
}

#[test]
fn table_and_store_agree_with_the_model_when_keys_share_hashes() {
    for seed in 0..10 {
        let mut world = World::new(seed, 300, 0x8000_0001_0000_0003);
        (0..4000).for_each(|_| world.step());
        world.finish();
    }
}

#[test]
fn table_and_store_agree_with_the_model_across_splits() {
    for (seed, mask) in [(1, u64::MAX), (2, 0xF000_0000_0000_000F)] {
        let mut world = World::new(seed, 12_000, mask);
        (0..60_000).for_each(|_| world.step());
        world.finish();
    }
}
