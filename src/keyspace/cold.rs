//! Keys that hibernate: what a keyspace asks of the place where they lie, and how they wake.
//!
//! Always true: a key that the tables do not know is as the store has it. So it may be read at any
//! time, as long as it is read before anybody writes it.

use std::sync::Arc;

use bytes::Bytes;

use super::databases::shadow_of;
use super::input_gate::Part;
use super::owned::Keyspace;
use super::slot::Presence;
use super::{DatabaseId, FieldValue, Hash, Key, Kind, Value};

/// Why a key could not be read from the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// Whoever wants it can wait, and it is read meanwhile.
    Asleep,
    /// It cannot be read: the words of the error reply.
    Failed(String),
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Unreadable::Asleep => f.write_str("ERR the key is being read"),
            Unreadable::Failed(text) => f.write_str(text),
        }
    }
}

/// Where hibernating keys lie.
pub trait Cold: Send + Sync {
    /// Value and deadline (0: none) of a key; of a large hash no fields. `exact`: a hash that does
    /// not have the fields that it should have is damaged; otherwise the log will complete it.
    ///
    /// # Errors
    /// It cannot be read.
    fn find(
        &self,
        database: DatabaseId,
        key: &Key<'_>,
        exact: bool,
    ) -> Result<Option<(Value, u64)>, Unreadable>;

    /// Value and deadline (0: none) of a field (its hash and name) of a hash of this generation.
    ///
    /// # Errors
    /// It cannot be read.
    fn field(
        &self,
        database: DatabaseId,
        key: &Key<'_>,
        generation: u64,
        field: (u32, &[u8]),
    ) -> Result<Option<(FieldValue, u64)>, Unreadable>;

    /// All fields of a hash of this generation.
    ///
    /// # Errors
    /// They cannot be read.
    fn fields(
        &self,
        database: DatabaseId,
        key: &Key<'_>,
        generation: u64,
    ) -> Result<Box<Hash>, Unreadable>;

    /// The first keys of a slot from a hash on, in order of their hash: at least `limit` if there
    /// are so many, all of one hash together.
    ///
    /// # Errors
    /// They cannot be read.
    fn page(
        &self,
        database: DatabaseId,
        slot: u16,
        from_hash32: u32,
        limit: usize,
    ) -> Result<Page, Unreadable>;
}

/// Some keys as the store has them.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// In order of their hash.
    pub keys: Vec<Sleeper>,
    /// The hash to go on from; `None` at the end of the slot.
    pub next: Option<u32>,
}

/// A key as the store has it.
#[derive(Clone, Debug)]
pub struct Sleeper {
    /// Stored hash.
    pub hash32: u32,
    /// The key.
    pub key: Bytes,
    /// Which form its value has.
    pub kind: Kind,
    /// Its deadline, ms since the Unix epoch; 0: none.
    pub deadline_ms: u64,
}

/// Keys that are read at once where all are.
const SLEEPERS_AT_ONCE: usize = 256;

impl Keyspace {
    /// Keys that are not in memory are looked for there from now on.
    pub fn set_cold(&mut self, cold: Arc<dyn Cold>) {
        self.cold = Some(cold);
    }

    /// Makes sure that a key is in memory if there is one.
    #[inline]
    pub(super) fn wake(&mut self, database: DatabaseId, key: &Key<'_>) {
        if self.tables.sleeps(database, key.slot) {
            self.wake_slowly(database, key, false);
        }
    }

    /// The same for a command that can wait (`patient`): what is not here is wanted.
    #[inline]
    pub(super) fn wake_for(&mut self, database: DatabaseId, key: &Key<'_>, patient: bool) {
        if self.tables.sleeps(database, key.slot) {
            self.wake_slowly(database, key, patient);
        }
    }

    fn wake_slowly(&mut self, database: DatabaseId, key: &Key<'_>, patient: bool) {
        if !matches!(self.tables.presence(database, key), Presence::Absent)
            || !self.ask_gate(database, key, &Part::Key, patient)
        {
            return;
        }
        let Ok(found) = self.look_up(database, key) else {
            return;
        };
        self.tell_gate(database, key, &Part::Key);
        if let Some((value, deadline_ms)) = found {
            self.stats.woken += 1;
            self.tables.load(database, key, value, deadline_ms);
        }
    }

    /// What the store has of a key, whatever the tables know.
    /// Why not, if it cannot be read, is kept too.
    pub(super) fn look_up(
        &mut self,
        database: DatabaseId,
        key: &Key<'_>,
    ) -> Result<Option<(Value, u64)>, Unreadable> {
        let exact = self.totals.is_none();
        let Some(cold) = &self.cold else {
            return Ok(None);
        };
        let found = cold.find(database, key, exact);
        if let Err(error) = &found {
            self.unreadable.get_or_insert_with(|| error.clone());
        }
        found
    }

    /// Keys of a slot as the store has them, if any is asleep there.
    pub(super) fn sleepers(
        &mut self,
        database: DatabaseId,
        slot: u16,
        from_hash32: u32,
        limit: usize,
    ) -> Page {
        if !self.tables.sleeps(database, slot) {
            return Page::default();
        }
        let Some(cold) = &self.cold else {
            return Page::default();
        };
        match cold.page(database, slot, from_hash32, limit) {
            Ok(page) => page,
            Err(error) => {
                self.unreadable.get_or_insert(error);
                Page::default()
            }
        }
    }

    /// Wakes every key of the live databases, with all fields and with what is due: for whoever has
    /// no other means to look at all of them, or to hear of deadlines.
    ///
    /// # Errors
    /// Some could not be read.
    pub fn wake_everything(&mut self) -> Result<(), Unreadable> {
        let visible = self.databases.ids().to_vec();
        let all = visible.iter().flat_map(|&id| [id, shadow_of(id)]);
        for (database, slot) in all
            .flat_map(|id| self.slots().map(move |slot| (id, slot)))
            .collect::<Vec<_>>()
        {
            let mut from = Some(0);
            while let Some(from_hash32) = from {
                let page = self.sleepers(database, slot, from_hash32, SLEEPERS_AT_ONCE);
                for sleeper in &page.keys {
                    let key = Key::of_database(database, &sleeper.key, self.seed);
                    self.wake(database, &key);
                    self.hint_loaded(database, &key);
                }
                from = page.next;
            }
            self.wake_fields_of_slot(database, slot);
        }
        self.take_unreadable().map_or(Ok(()), Err)
    }

    /// Why something could not be read since the last call.
    pub fn take_unreadable(&mut self) -> Option<Unreadable> {
        self.unreadable.take()
    }

    /// Makes room: drops clean entries until the tables take at most `bytes_max`, as
    /// [`super::Tables::evict`] does. Nothing happens within a turn, whose effects are still to be
    /// read.
    pub fn evict(&mut self, bytes_max: usize, budget: usize, used_too: bool) -> super::Evicted {
        if self.cold.is_none() || !self.turn.is_empty() {
            return super::Evicted::default();
        }
        let evicted = self.tables.evict(bytes_max, budget, used_too);
        self.stats.evicted += evicted.entries;
        evicted
    }
}
