//! Rows that nobody can reach any more: those of dead database ids, and those of hashes that are
//! gone. They are looked for part by part, and each checkpoint removes what was found before it.
//!
//! Always true: what is dead stays dead, because ids and generations are never used again. To
//! remove dead rows is not necessary: where rows cannot be read, they stay.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::keyspace::Databases;
use crate::keyspace::codec;
use crate::limits::{DEAD_ROWS_LOOKS_MAX, DEAD_ROWS_MAX, SLOTS};
use crate::store::row::{DEADLINE_MS_END, DeadlineOf, KeyOf, META_KEY, RowKey, RowKind};
use crate::store::row::{fields, kind_in_slot, slots};
use crate::store::{Store, StoreError};

/// Which rows may be dead, and where the search for them goes on.
#[derive(Debug)]
pub struct Dead {
    /// The map of databases as of the last sweep's beginning: what it calls dead is in no later
    /// sweep.
    databases: Databases,
    /// For rows of databases that are dead: the row from which to look on.
    flushed: Round<Vec<u8>>,
    /// Such rows could not be read, and stay.
    left_behind: bool,
    /// For hashes that are gone: the slot from which to look on.
    retired: Round<u16>,
}

/// A round over the store, in parts.
#[derive(Debug, Default)]
struct Round<P> {
    /// Where the one that has begun goes on.
    at: Option<P>,
    /// Another one has to begin behind it.
    wanted: bool,
}

impl<P: Default + Clone> Round<P> {
    fn wanted() -> Round<P> {
        Round {
            at: None,
            wanted: true,
        }
    }

    /// Where to look now, if there is anything to look for.
    fn place(&mut self) -> Option<P> {
        if self.at.is_none() && std::mem::take(&mut self.wanted) {
            self.at = Some(P::default());
        }
        self.at.clone()
    }

    fn is_over(&self) -> bool {
        self.at.is_none() && !self.wanted
    }
}

/// What one look at the store found.
#[derive(Debug, Default)]
pub struct Found {
    /// Keys of dead rows, ascending.
    pub rows: Vec<Vec<u8>>,
    /// Where the rounds go on when these are removed; of those that got on.
    flushed: Option<Option<Vec<u8>>>,
    retired: Option<Option<u16>>,
    left_behind: bool,
}

impl Dead {
    /// For a store that was just opened. `flushed`: it may have rows of databases that are dead.
    pub fn new(databases: Databases, flushed: bool) -> Dead {
        Dead {
            databases,
            flushed: Round {
                at: None,
                wanted: flushed,
            },
            left_behind: false,
            // Nothing says whether hashes were gone already.
            retired: Round::wanted(),
        }
    }

    /// The map of databases.
    pub fn databases(&self) -> &Databases {
        &self.databases
    }

    /// The store may have rows of databases that are dead.
    pub fn has_flushed(&self) -> bool {
        self.left_behind || !self.flushed.is_over()
    }

    /// A sweep begins, and this is the map of databases now.
    pub fn follow(&mut self, databases: Databases) {
        // Each flush takes a new id.
        self.flushed.wanted |= databases.next() != self.databases.next();
        self.databases = databases;
    }

    /// The store got rows of hashes that are gone.
    pub fn retire(&mut self) {
        self.retired.wanted = true;
    }

    /// Looks for some dead rows, until `ending` is set.
    pub fn look(&mut self, store: &dyn Store, ending: &AtomicBool) -> Found {
        if ending.load(Ordering::Relaxed) {
            return Found::default();
        }
        let mut look = Look {
            store,
            ending,
            found: Found::default(),
        };
        if let Some(from) = self.retired.place() {
            look.found.retired = Some(look.retired(from));
        }
        if let Some(from) = self.flushed.place() {
            look.found.flushed = Some(look.flushed(from, &self.databases));
        }
        let mut found = look.found;
        found.rows.sort_unstable();
        found.rows.dedup();
        found
    }

    /// What was found is removed.
    pub fn removed(&mut self, found: Found) {
        if let Some(next) = found.retired {
            self.retired.at = next;
        }
        if let Some(next) = found.flushed {
            self.flushed.at = next;
        }
        self.left_behind |= found.left_behind;
    }
}

struct Look<'a> {
    store: &'a dyn Store,
    ending: &'a AtomicBool,
    found: Found,
}

impl Look<'_> {
    fn is_enough(&self) -> bool {
        self.found.rows.len() >= DEAD_ROWS_MAX || self.ending.load(Ordering::Relaxed)
    }

    /// Finds the rows of hashes that are gone. Returns the slot to go on from.
    fn retired(&mut self, from: u16) -> Option<u16> {
        for slot in from..SLOTS {
            if let Err(error) = self.retired_in(slot) {
                warn(&error);
                return Some(slot + 1).filter(|next| *next < SLOTS);
            }
            if self.is_enough() {
                // There may be more of the same slot.
                return Some(slot);
            }
        }
        None
    }

    fn retired_in(&mut self, slot: u16) -> Result<(), StoreError> {
        let (from, to) = kind_in_slot(slot, RowKind::Retired);
        for next in self.store.scan(&from, &to) {
            let (key, _) = next?;
            if self.is_enough() {
                break;
            }
            if let Ok(RowKey::Retired { of, generation }) = RowKey::decode(&key) {
                self.fields(of, generation)?;
                if !self.is_enough() {
                    self.found.rows.push(key.to_vec());
                }
            }
        }
        Ok(())
    }

    /// Finds the fields of a hash that is gone, and the rows that remind of them.
    fn fields(&mut self, of: KeyOf<'_>, generation: u64) -> Result<(), StoreError> {
        let (from, to) = fields(of, generation);
        for next in self.store.scan(&from, &to) {
            let (key, value) = next?;
            if self.is_enough() {
                break;
            }
            if let Ok(RowKey::Field { field, .. }) = RowKey::decode(&key)
                && let Ok((value, expires_at_ms)) = codec::field(&mut &value[..])
            {
                let at_ms = value.due_ms(expires_at_ms);
                if at_ms != 0 && at_ms < DEADLINE_MS_END {
                    let reminder = RowKey::Deadline {
                        at_ms,
                        slot: of.slot,
                        database: of.database,
                        key: of.key,
                        of: DeadlineOf::Field { generation, field },
                    };
                    self.found.rows.push(reminder.encode());
                }
            }
            self.found.rows.push(key.to_vec());
        }
        Ok(())
    }

    /// Finds rows of databases that are dead. Returns the row to go on from.
    fn flushed(&mut self, from: Vec<u8>, databases: &Databases) -> Option<Vec<u8>> {
        let mut slot = from
            .first_chunk()
            .map_or(0, |slot| u16::from_be_bytes(*slot));
        for (look, next) in self.store.scan(&from, &META_KEY).enumerate() {
            let key = match next {
                Ok((key, _)) => key,
                Err(error) => {
                    warn(&error);
                    self.found.left_behind = true;
                    // Behind the slots come counts and deadlines, and then there is nothing.
                    return slot
                        .checked_add(1)
                        .filter(|next| *next < SLOTS)
                        .map(|next| slots(next, SLOTS).0);
                }
            };
            if look >= DEAD_ROWS_LOOKS_MAX || self.is_enough() {
                return Some(key.to_vec());
            }
            slot = key
                .first_chunk()
                .map_or(slot, |slot| u16::from_be_bytes(*slot));
            let id = RowKey::decode(&key).ok().and_then(|row| row.database());
            if id.is_some_and(|id| databases.is_dead(id)) {
                self.found.rows.push(key.to_vec());
            }
        }
        None
    }
}

fn warn(error: &StoreError) {
    tracing::warn!("rows that nobody needs any more cannot all be removed: {error}");
}
