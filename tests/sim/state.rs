//! What keys hold, as anybody could say it, and a second reader of the commit log.
//!
//! Always true: nothing here uses what the server uses to replay its log; a state is compared by
//! what a client could see of it, and by what must survive (token, generation, deadline).

use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use tallyman::keyspace::codec::{ChangedField, Mutation, Mutations, Stored};
use tallyman::keyspace::key::field_hash32;
use tallyman::keyspace::{Cell, EntryRef, FieldValue, Hash, Key, Keyspace, Value, ValueRef};

/// Database id and key.
pub type Name = (u32, Vec<u8>);
/// All keys.
pub type State = BTreeMap<Name, Rc<Logical>>;
/// Ids by number, and the next unused id.
pub type DatabaseMap = (Vec<u32>, u32);

/// Value and deadline (0: none) by field.
pub type Fields = BTreeMap<Vec<u8>, (FieldValue, u64)>;

/// A key's value and deadline (0: none).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logical {
    pub deadline_ms: u64,
    pub form: Form,
}

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    Text(Bytes),
    Cell(Cell),
    Hash {
        generation: u64,
        /// Value and deadline of each field.
        fields: Fields,
    },
}

impl Logical {
    fn text(bytes: Bytes, deadline_ms: u64) -> Logical {
        let form = Form::Text(bytes);
        Logical { deadline_ms, form }
    }

    fn of(value: ValueRef<'_>, deadline_ms: u64) -> Logical {
        let form = match value {
            ValueRef::Counter(number) => Form::Text(number.to_string().into()),
            ValueRef::String(bytes) => Form::Text(Bytes::copy_from_slice(bytes)),
            ValueRef::Cell(cell) => Form::Cell(cell.clone()),
            ValueRef::Hash(hash) => Form::Hash {
                generation: hash.generation(),
                fields: hash
                    .iter()
                    .map(|field| {
                        let value = (field.value.clone(), field.expires_at_ms);
                        (field.name().to_vec(), value)
                    })
                    .collect(),
            },
        };
        Logical { deadline_ms, form }
    }

    /// Whether something of it is past its deadline.
    pub fn is_overdue(&self, now_ms: u64) -> bool {
        let due = |at_ms: u64| at_ms != 0 && at_ms <= now_ms;
        let fields_due = match &self.form {
            // A hold that is open has a deadline of its own.
            Form::Hash { fields, .. } => fields
                .values()
                .any(|(value, at_ms)| due(value.due_ms(*at_ms))),
            _ => false,
        };
        due(self.deadline_ms) || fields_due
    }

    /// Whether a hold of credits in it is past its deadline.
    pub fn has_hold_due(&self, now_ms: u64) -> bool {
        let due = |value: &FieldValue| value.open_hold().is_some_and(|h| h.deadline_ms <= now_ms);
        match &self.form {
            Form::Hash { fields, .. } => fields.values().any(|(value, _)| due(value)),
            _ => false,
        }
    }

    /// Puts it into a keyspace, as if the store had had it.
    pub fn load_into(&self, keyspace: &mut Keyspace, name: &Name, seed: u64) {
        let value = match &self.form {
            Form::Text(bytes) => Value::from_bytes(bytes),
            Form::Cell(cell) => Value::Cell(Box::new(cell.clone())),
            Form::Hash { generation, fields } => {
                let mut hash = Hash::stored(*generation);
                for (field, (value, expires_at_ms)) in fields {
                    let hash32 = field_hash32(field, seed);
                    hash.load(hash32, field, value.clone(), *expires_at_ms);
                }
                Value::Hash(Box::new(hash))
            }
        };
        keyspace.load(name.0, &Key::new(&name.1, seed), value, self.deadline_ms);
    }
}

fn name_of(database: u32, entry: &EntryRef<'_>) -> (Name, Rc<Logical>) {
    let logical = Logical::of(entry.value(), entry.deadline_ms());
    ((database, entry.key().to_vec()), Rc::new(logical))
}

/// Everything in the tables of a keyspace, databases that are dead included.
pub fn everything(keyspace: &Keyspace) -> State {
    let tables = keyspace.tables();
    let mut state = State::new();
    for database in tables.databases().collect::<Vec<_>>() {
        tables.scan(database, 0, 0, usize::MAX, |entry| {
            state.extend([name_of(database, &entry)]);
        });
    }
    state
}

/// The named keys of a keyspace's live databases. What is unchanged is taken from `before`.
pub fn known(keyspace: &Keyspace, keys: &[Vec<u8>], seed: u64, before: &State) -> State {
    let mut state = State::new();
    for &database in keyspace.databases().ids() {
        for key in keys {
            let found = keyspace.tables().get(database, &Key::new(key, seed));
            if let Some(entry) = found {
                let (name, logical) = name_of(database, &entry);
                let same = before.get(&name).filter(|before| ***before == *logical);
                state.insert(name, same.cloned().unwrap_or(logical));
            }
        }
    }
    state
}

/// Names whose value differs.
pub fn differences(one: &State, other: &State) -> Vec<Name> {
    let mut names: Vec<Name> = Vec::new();
    for (name, logical) in one {
        let same = |found: &Rc<Logical>| Rc::ptr_eq(found, logical) || found == logical;
        if !other.get(name).is_some_and(same) {
            names.push(name.clone());
        }
    }
    names.extend(
        other
            .keys()
            .filter(|name| !one.contains_key(*name))
            .cloned(),
    );
    names
}

/// The state that the log alone leads to.
#[derive(Default)]
pub struct LogModel {
    pub state: State,
    pub map: DatabaseMap,
    pub counts: BTreeMap<(u16, u32), u64>,
    pub token_ceiling: u64,
}

impl LogModel {
    pub fn begin(state: &State, map: &DatabaseMap) -> LogModel {
        let mut counts = BTreeMap::new();
        for (database, key) in state.keys() {
            *counts
                .entry((Key::new(key, 0).slot, *database))
                .or_insert(0) += 1;
        }
        LogModel {
            state: state.clone(),
            map: map.clone(),
            counts,
            token_ceiling: 0,
        }
    }

    /// Applies a batch.
    pub fn apply(&mut self, payload: Bytes) {
        for mutation in Mutations::of(&payload) {
            self.mutate(mutation.expect("what was queued can be decoded"));
        }
    }

    fn mutate(&mut self, mutation: Mutation<'_>) {
        match mutation {
            Mutation::Put {
                database,
                key,
                deadline_ms,
                stored,
            } => {
                let form = match &stored {
                    Stored::Value(value) => Logical::of(value.borrow(), deadline_ms).form,
                    Stored::Hash { generation, .. } => Form::Hash {
                        generation: *generation,
                        fields: BTreeMap::new(),
                    },
                };
                let logical = Logical { deadline_ms, form };
                self.state
                    .insert((database, key.to_vec()), Rc::new(logical));
            }
            Mutation::Delete { database, key } => {
                self.state.remove(&(database, key.to_vec()));
            }
            Mutation::Deadline {
                database,
                key,
                deadline_ms,
            } => {
                if let Some(logical) = self.state.get_mut(&(database, key.to_vec())) {
                    Rc::make_mut(logical).deadline_ms = deadline_ms;
                }
            }
            Mutation::Part {
                database,
                key,
                offset,
                bytes,
                total,
            } => {
                let empty = || Rc::new(Logical::text(Bytes::new(), 0));
                let entry = self.state.entry((database, key.to_vec()));
                let logical = Rc::make_mut(entry.or_insert_with(empty));
                let mut text = match &logical.form {
                    Form::Text(text) => text.to_vec(),
                    other => panic!("a part of {other:?} in the log"),
                };
                text.resize(total as usize, 0);
                text[offset as usize..offset as usize + bytes.len()].copy_from_slice(bytes);
                logical.form = Form::Text(text.into());
            }
            Mutation::Fields {
                database,
                key,
                deadline_ms,
                generation,
                length,
                fields,
            } => self.fields(
                (database, key.to_vec()),
                (deadline_ms, generation, length),
                fields,
            ),
            Mutation::Count {
                slot,
                database,
                keys,
            } => {
                self.counts.insert((slot, database), keys);
            }
            Mutation::Databases { ids, next } => {
                self.state
                    .retain(|(id, _), _| *id >= next || ids.contains(id));
                self.map = (ids, next);
            }
            // Of field rows that nobody can see any more.
            Mutation::Retired { .. } => {}
            Mutation::TokenCeiling(ceiling) => {
                self.token_ceiling = self.token_ceiling.max(ceiling);
            }
        }
    }

    fn fields(
        &mut self,
        name: Name,
        (deadline_ms, generation, length): (u64, u64, u64),
        changes: Vec<ChangedField<'_>>,
    ) {
        let entry = self.state.remove(&name);
        let mut fields = match entry.as_deref().map(|logical| &logical.form) {
            Some(Form::Hash {
                generation: present,
                fields,
            }) if *present == generation => fields.clone(),
            _ => BTreeMap::new(),
        };
        for (field, change) in changes {
            match change {
                Some(value) => fields.insert(field.to_vec(), value),
                None => fields.remove(field),
            };
        }
        assert_eq!(fields.len() as u64, length, "fields of {name:?} in the log");
        let form = Form::Hash { generation, fields };
        self.state
            .insert(name, Rc::new(Logical { deadline_ms, form }));
    }
}
