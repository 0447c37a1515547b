//! The input gate of a keyspace: keys that are being read from the store, and keys that were read
//! for somebody who has not used them yet.
//!
//! A command that may wait does not read the store. It is told that the key is asleep, names what
//! it wants, and is taken back; somebody else reads, and the command runs again.
//!
//! Always true: a key in the gate stays in memory, or stays known to be missing, until nobody needs
//! it there any more. What a read brings is used only if nobody has looked for the key in another
//! way meanwhile, and its database still lives.

use hashbrown::hash_map::Entry;
use hashbrown::{Equivalent, HashMap};

use super::cold::{Cold, Sleeper, Unreadable};
use super::deadlines::Hint;
use super::owned::Keyspace;
use super::slot::Presence;
use super::{DatabaseId, Key, Value};
use crate::sim::{self, Fault};

/// A key of a database, by its bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// Id of the database.
    pub database: DatabaseId,
    /// The key.
    pub key: Box<[u8]>,
}

/// The same, borrowed: found in a map of names.
#[derive(Hash)]
struct NameRef<'a> {
    database: DatabaseId,
    key: &'a [u8],
}

impl Equivalent<Name> for NameRef<'_> {
    fn equivalent(&self, name: &Name) -> bool {
        self.database == name.database && *self.key == *name.key
    }
}

/// A read that somebody else is to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// A key. The ticket tells it from other reads of the same key.
    Key(u64, Name),
    /// The keys that a deadline may mean.
    Due(Hint),
}

/// What a read found.
#[derive(Debug)]
pub enum Rows {
    /// Value and deadline (0: none), if there is the key.
    Key(u64, Name, Result<Option<(Value, u64)>, Unreadable>),
    /// The keys with the hash of the hint.
    Due(Hint, Result<Vec<Sleeper>, Unreadable>),
}

impl Read {
    /// Reads; `seed` is the folder's.
    pub fn perform(self, cold: &dyn Cold, seed: u64) -> Rows {
        match self {
            Read::Key(ticket, name) => {
                let key = Key::of_database(name.database, &name.key, seed);
                let found = cold.find(name.database, &key, true);
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// It is here, or known to be missing.
    Here,
    /// It is being read: the ticket.
    Reading(u64),
    /// It has to be read, with the ticket that was given.
    Read,
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
        self.gate.is_some() && self.tables.any_asleep()
    }

    /// Whether the running command has found a key that it has to wait for.
    pub(super) fn is_put_off(&self) -> bool {
        self.unreadable == Some(Unreadable::Asleep)
    }

    /// What the gate says of a key that the tables do not know: true if the store has to be read
    /// right now. `patient`: it can be read later as well, and is wanted then.
    pub(super) fn ask_gate(&mut self, database: DatabaseId, key: &Key<'_>, patient: bool) -> bool {
        let Some(gate) = &mut self.gate else {
            return true;
        };
        if sim::fault(Fault::SleeperMissing) {
            return false;
        }
        let name = NameRef {
            database,
            key: key.bytes,
        };
        match gate.keys.get(&name).map(|gated| &gated.state) {
            Some(State::Known) => return false,
            Some(State::Failed(error)) if patient => {
                self.unreadable.get_or_insert_with(|| error.clone());
                return false;
            }
            _ if !patient => return true,
            _ => {}
        }
        if self.unreadable != Some(Unreadable::Asleep) {
            // Nobody took what an earlier command wanted.
            gate.wanted.clear();
            self.unreadable = Some(Unreadable::Asleep);
        }
        gate.wanted.push(Name {
            database,
            key: key.bytes.into(),
        });
        false
    }

    /// The store was read right now: what somebody else finds there later is old.
    pub(super) fn tell_gate(&mut self, database: DatabaseId, key: &Key<'_>) {
        let name = NameRef {
            database,
            key: key.bytes,
        };
        if let Some(gated) = self.gate.as_mut().and_then(|gate| gate.keys.get_mut(&name)) {
            gated.state = State::Known;
        }
    }

    /// What the last command wanted, each key once.
    pub fn take_wanted(&mut self) -> Vec<Name> {
        let wanted = self.gate.as_mut().map(|gate| &mut gate.wanted);
        let mut wanted = wanted.map(std::mem::take).unwrap_or_default();
        wanted.sort_unstable();
        wanted.dedup();
        wanted
    }

    /// Whether a key has to be read, or is kept already by somebody who may let it go.
    pub fn needs_hold(&self, name: &Name) -> bool {
        let key = Key::of_database(name.database, &name.key, self.seed);
        let Some(gate) = &self.gate else {
            return false;
        };
        let absent = || matches!(self.tables.presence(name.database, &key), Presence::Absent);
        gate.keys.contains_key(name) || self.tables.sleeps(name.database, key.slot) && absent()
    }

    /// Somebody needs a key from now on. `ticket` is for its read, if it has to be read.
    pub fn hold(&mut self, name: &Name, ticket: u64) -> Hold {
        let key = Key::of_database(name.database, &name.key, self.seed);
        let asleep = self.tables.sleeps(name.database, key.slot)
            && matches!(self.tables.presence(name.database, &key), Presence::Absent);
        let Some(gate) = &mut self.gate else {
            return Hold::Here;
        };
        match gate.keys.entry(name.clone()) {
            Entry::Occupied(mut entry) => {
                let gated = entry.get_mut();
                gated.users += 1;
                match gated.state {
                    State::Reading => Hold::Reading(gated.ticket),
                    State::Known | State::Failed(_) => Hold::Here,
                }
            }
            Entry::Vacant(entry) => {
                let state = if asleep { State::Reading } else { State::Known };
                entry.insert(Gated {
                    ticket,
                    state,
                    users: 1,
                });
                self.tables.pin(name.database, &key);
                if asleep { Hold::Read } else { Hold::Here }
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
            self.tables.unpin(name.database, &key);
        }
    }

    /// What a read found is here.
    pub fn came(
        &mut self,
        ticket: u64,
        name: &Name,
        found: Result<Option<(Value, u64)>, Unreadable>,
    ) {
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
        if used {
            gated.state = match &found {
                Ok(_) => State::Known,
                Err(error) => State::Failed(error.clone()),
            };
        }
        if gated.users == 0 {
            entry.remove();
            self.tables.unpin(name.database, &key);
        }
        if let Ok(Some((value, deadline_ms))) = found
            && used
            && self.databases.is_live(name.database)
        {
            self.stats.woken += 1;
            self.tables.load(name.database, &key, value, deadline_ms);
        }
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
