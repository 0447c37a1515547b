//! The input gate of a keyspace: keys that are being read from the store, and keys that were read
//! for somebody who has not used them yet. Of a large hash that is here in part, each field is read
//! by itself, or all of them are.
//!
//! A command that may wait does not read the store. It is told that the key is asleep, names what
//! it wants, and is taken back; somebody else reads, and the command runs again.
//!
//! Always true: a key in the gate stays in memory, or stays known to be missing, until nobody needs
//! it there any more. Whoever finds asleep what it was told is here finds out something new when it
//! looks again: so nothing waits for ever. What a read brings is used only if nobody has looked for
//! the key in another way meanwhile, and its database still lives. The same is true of fields:
//! whoever needs one keeps it in memory, and the hash, but not the hash's other fields.

use hashbrown::hash_map::Entry;
use hashbrown::{Equivalent, HashMap};

use super::cold::{Cold, Sleeper, Unreadable};
use super::deadlines::Hint;
use super::evict::Stays;
use super::key::field_hash32;
use super::lazy::Lies;
use super::owned::Keyspace;
use super::{DatabaseId, FieldValue, Hash, Key, Value};
use crate::limits::FIELDS_READ_SINGLY_MAX;
use crate::sim::{self, Fault};

/// A key of a database, by its bytes, or fields of the hash there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// Id of the database.
    pub database: DatabaseId,
    /// The key.
    pub key: Box<[u8]>,
    /// What of it.
    pub part: Part,
}

/// What of a key is meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The key, with its value; of a large hash how many fields it has.
    Key,
    /// One field of a hash.
    Field(Box<[u8]>),
    /// All fields of a hash.
    Fields,
}

/// A name, borrowed: found in a map of names.
#[derive(Hash)]
struct NameRef<'a> {
    database: DatabaseId,
    key: &'a [u8],
    part: &'a Part,
}

impl Equivalent<Name> for NameRef<'_> {
    fn equivalent(&self, name: &Name) -> bool {
        self.database == name.database && *self.key == *name.key && *self.part == name.part
    }
}

/// What of a key has to stay while somebody needs a part of it.
fn stays(part: &Part, seed: u64) -> Stays {
    match part {
        Part::Key => Stays::Key,
        Part::Field(name) => Stays::Field(field_hash32(name, seed)),
        Part::Fields => Stays::Fields,
    }
}

/// A read that somebody else is to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// A key, or fields of the hash of this generation that is there. The ticket tells it from
    /// other reads of the same.
    Key(u64, Name, u64),
    /// The keys that a deadline may mean.
    Due(Hint),
}

/// What a read found.
#[derive(Debug)]
pub enum Rows {
    /// What there is of a key.
    Key(u64, Name, Result<Found, Unreadable>),
    /// The keys with the hash of the hint.
    Due(Hint, Result<Vec<Sleeper>, Unreadable>),
}

/// What there is under a name.
#[derive(Debug)]
pub enum Found {
    /// Value and deadline (0: none), if there is the key.
    Key(Option<(Value, u64)>),
    /// Generation of the hash; value and deadline (0: none), if it has the field.
    Field(u64, Option<(FieldValue, u64)>),
    /// All fields.
    Fields(Box<Hash>),
}

impl Read {
    /// Reads; `seed` is the folder's.
    pub fn perform(self, cold: &dyn Cold, seed: u64) -> Rows {
        match self {
            Read::Key(ticket, name, generation) => {
                let database = name.database;
                let key = Key::of_database(database, &name.key, seed);
                let found = match &name.part {
                    Part::Key => cold.find(database, &key, true).map(Found::Key),
                    Part::Field(field) => {
                        let place = (field_hash32(field, seed), &field[..]);
                        let found = cold.field(database, &key, generation, place);
                        found.map(|field| Found::Field(generation, field))
                    }
                    Part::Fields => cold.fields(database, &key, generation).map(Found::Fields),
                };
                Rows::Key(ticket, name, found)
            }
            Read::Due(hint) => {
                let page = cold.page(hint.database, hint.slot, hint.hash32, 1);
                let found = page.map(|mut page| {
                    page.keys.retain(|sleeper| sleeper.hash32 == hint.hash32);
                    page.keys
                });
                Rows::Due(hint, found)
            }
        }
    }
}

/// What became of a key that somebody needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    /// It is here, or known to be missing.
    Here,
    /// It is being read: the ticket.
    Reading(u64),
    /// It has to be read: this, with the ticket that was given.
    Read(Read),
}

/// Keys that are read by somebody else, and what is known of them.
#[derive(Default)]
pub(super) struct InputGate {
    keys: HashMap<Name, Gated>,
    /// What the command that runs would have needed.
    wanted: Vec<Name>,
}

struct Gated {
    ticket: u64,
    state: State,
    /// So many need it.
    users: u32,
}

enum State {
    /// A field of a key that was not here: nobody can say.
    Unknown,
    Reading,
    /// In memory, or in the store nowhere.
    Known,
    Failed(Unreadable),
}

impl Keyspace {
    /// From now on a command that may wait does not read the store, but says what it wants.
    pub fn set_gated(&mut self) {
        self.gate = Some(Box::default());
    }

    /// Whether a command may have to wait for a key.
    pub fn may_want(&self) -> bool {
        self.gate.is_some() && (self.tables.any_asleep() || self.tables.has_parts())
    }

    /// Whether the running command has found a key that it has to wait for.
    pub(super) fn is_put_off(&self) -> bool {
        self.unreadable == Some(Unreadable::Asleep)
    }

    /// What the gate says of something that the tables do not know: true if the store has to be
    /// read right now. `patient`: it can be read later as well, and is wanted then.
    pub(super) fn ask_gate(
        &mut self,
        database: DatabaseId,
        key: &Key<'_>,
        part: &Part,
        patient: bool,
    ) -> bool {
        let Some(gate) = &mut self.gate else {
            return true;
        };
        if sim::fault(Fault::SleeperMissing) {
            return false;
        }
        let key_bytes = key.bytes;
        let state = |part| {
            let name = NameRef {
                database,
                key: key_bytes,
                part,
            };
            gate.keys.get(&name).map(|gated| &gated.state)
        };
        let failed = match (state(part), part) {
            (Some(State::Known), _) => return false,
            _ if !patient => return true,
            (Some(State::Failed(error)), _) => Some(error),
            // Who wants many fields waits for all, and learns here why they did not come.
            (_, Part::Field(_)) => match state(&Part::Fields) {
                Some(State::Failed(error)) => Some(error),
                _ => None,
            },
            _ => None,
        };
        if let Some(error) = failed {
            self.unreadable.get_or_insert_with(|| error.clone());
            return false;
        }
        if self.unreadable != Some(Unreadable::Asleep) {
            // Nobody took what an earlier command wanted.
            gate.wanted.clear();
            self.unreadable = Some(Unreadable::Asleep);
        }
        gate.wanted.push(Name {
            database,
            key: key.bytes.into(),
            part: part.clone(),
        });
        false
    }

    /// Whether somebody needs it, and it is here or known to be missing.
    pub(super) fn is_known_to_gate(
        &self,
        database: DatabaseId,
        key: &Key<'_>,
        part: &Part,
    ) -> bool {
        let name = NameRef {
            database,
            key: key.bytes,
            part,
        };
        let gated = self.gate.as_ref().and_then(|gate| gate.keys.get(&name));
        gated.is_some_and(|gated| matches!(gated.state, State::Known))
    }

    /// The store was read right now: what somebody else finds there later is old.
    pub(super) fn tell_gate(&mut self, database: DatabaseId, key: &Key<'_>, part: &Part) {
        let name = NameRef {
            database,
            key: key.bytes,
            part,
        };
        if let Some(gated) = self.gate.as_mut().and_then(|gate| gate.keys.get_mut(&name)) {
            gated.state = State::Known;
        }
    }

    /// All fields of a hash are here: what is found of single ones later is old.
    pub(super) fn tell_gate_of_fields(&mut self, database: DatabaseId, key: &Key<'_>) {
        let gated = self.gate.iter_mut().flat_map(|gate| gate.keys.iter_mut());
        for (name, gated) in gated {
            let same = (name.database, &*name.key) == (database, key.bytes);
            if same && matches!(name.part, Part::Field(_)) {
                gated.state = State::Known;
            }
        }
    }

    /// What the last command wanted, each key once. Who wants many fields of a hash gets all.
    pub fn take_wanted(&mut self) -> Vec<Name> {
        let wanted = self.gate.as_mut().map(|gate| &mut gate.wanted);
        let mut wanted = wanted.map(std::mem::take).unwrap_or_default();
        wanted.sort_unstable();
        wanted.dedup();
        // Fields of one hash stand together.
        let same = |a: &Name, b: &Name| (a.database, &a.key) == (b.database, &b.key);
        let many = |names: &&[Name]| names.len() > FIELDS_READ_SINGLY_MAX;
        let many = wanted.chunk_by(same).filter(many);
        let many: Vec<Name> = many.filter_map(|names| names.first().cloned()).collect();
        for mut name in many {
            name.part = Part::Fields;
            wanted.retain(|other| !same(other, &name));
            wanted.push(name);
        }
        wanted
    }

    /// Whether a key has to be read, or is kept already by somebody who may let it go.
    pub fn needs_hold(&self, name: &Name) -> bool {
        let key = Key::of_database(name.database, &name.key, self.seed);
        let Some(gate) = &self.gate else {
            return false;
        };
        gate.keys.contains_key(name) || matches!(self.lies(&key, name), Lies::Asleep(_))
    }

    /// Somebody needs a key from now on. `ticket` is for its read, if it has to be read.
    pub fn hold(&mut self, name: &Name, ticket: u64) -> Hold {
        let key = Key::of_database(name.database, &name.key, self.seed);
        let lies = self.lies(&key, name);
        let Some(gate) = &mut self.gate else {
            return Hold::Here;
        };
        let gated = match gate.keys.entry(name.clone()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let stays = stays(&name.part, self.seed);
                self.tables.pin(name.database, &key, stays);
                entry.insert(Gated {
                    ticket,
                    state: State::Unknown,
                    users: 0,
                })
            }
        };
        gated.users += 1;
        match (&gated.state, lies) {
            (State::Reading, _) => Hold::Reading(gated.ticket),
            (State::Known | State::Failed(_), _) => Hold::Here,
            (State::Unknown, Lies::Nowhere) => Hold::Here,
            (State::Unknown, Lies::Here) => {
                gated.state = State::Known;
                Hold::Here
            }
            (State::Unknown, Lies::Asleep(generation)) => {
                (gated.state, gated.ticket) = (State::Reading, ticket);
                if name.part == Part::Fields {
                    self.tables.await_fields(name.database, &key);
                }
                Hold::Read(Read::Key(ticket, name.clone(), generation))
            }
        }
    }

    /// Somebody does not need a key any more.
    pub fn let_go(&mut self, name: &Name) {
        let Some(gate) = &mut self.gate else {
            return;
        };
        let Entry::Occupied(mut entry) = gate.keys.entry(name.clone()) else {
            return;
        };
        entry.get_mut().users -= 1;
        // What is being read is used all the same: somebody may ask again.
        if entry.get().users == 0 && !matches!(entry.get().state, State::Reading) {
            entry.remove();
            let key = Key::of_database(name.database, &name.key, self.seed);
            let stays = stays(&name.part, self.seed);
            self.tables.unpin(name.database, &key, stays);
        }
    }

    /// What a read found is here.
    pub fn came(&mut self, ticket: u64, name: &Name, found: Result<Found, Unreadable>) {
        let Some(gate) = &mut self.gate else {
            return;
        };
        let Entry::Occupied(mut entry) = gate.keys.entry(name.clone()) else {
            return;
        };
        let gated = entry.get_mut();
        if gated.ticket != ticket {
            return;
        }
        let key = Key::of_database(name.database, &name.key, self.seed);
        // Otherwise it was looked for in another way, and is newer here.
        let used = matches!(gated.state, State::Reading);
        let users = gated.users;
        if used {
            gated.state = State::Known;
        }
        if users == 0 {
            entry.remove();
            let stays = stays(&name.part, self.seed);
            self.tables.unpin(name.database, &key, stays);
        }
        let live = self.databases.is_live(name.database);
        let taken = match found {
            Ok(found) if used && live => self.take_in(name.database, &key, &name.part, found),
            found => found.map(drop),
        };
        if name.part == Part::Fields {
            self.tables.await_fields_no_more(name.database, &key);
        }
        if let Err(error) = taken
            && used
            && let Some(gated) = self.gate.as_mut().and_then(|gate| gate.keys.get_mut(name))
        {
            gated.state = State::Failed(error);
        }
    }

    /// What a read found comes into the tables.
    fn take_in(
        &mut self,
        database: DatabaseId,
        key: &Key<'_>,
        part: &Part,
        found: Found,
    ) -> Result<(), Unreadable> {
        match (found, part) {
            (Found::Key(Some((value, deadline_ms))), _) => {
                self.stats.woken += 1;
                self.tables.load(database, key, value, deadline_ms);
            }
            (Found::Field(generation, Some((value, expires_at_ms))), Part::Field(name)) => {
                let field = (field_hash32(name, self.seed), &name[..]);
                self.field_woke(database, key, generation, field, (value, expires_at_ms));
            }
            (Found::Fields(stored), _) => self.fields_woke(database, key, *stored)?,
            _ => {}
        }
        Ok(())
    }

    /// Whether a key that is held could not be read.
    pub(super) fn has_failed(&self, name: &Name) -> bool {
        let gated = self.gate.as_ref().and_then(|gate| gate.keys.get(name));
        gated.is_some_and(|gated| matches!(gated.state, State::Failed(_)))
    }

    /// How many keys are in the gate.
    #[cfg(test)]
    pub(crate) fn gated(&self) -> usize {
        self.gate.as_ref().map_or(0, |gate| gate.keys.len())
    }
}
