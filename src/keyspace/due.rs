//! Expiry in the background, of keys in memory and of keys that hibernate.
//!
//! Always true: what is due is among the hints, among those whose keys are being read, or in a row
//! of the store that is still to be read.

use bytes::Bytes;

use super::cold::{Sleeper, Unreadable};
use super::deadlines::Hint;
use super::input_gate::{Name, Part};
use super::owned::{Keyspace, due_ms};
use super::slot::Presence;
use super::{Key, Kind};
use crate::limits::{DUE_READS_MAX, FIELDS_EXPIRED_AT_ONCE_MAX};
use crate::sim::{self, Fault};

/// How far the store's deadline rows have been read, and what they lead to.
#[derive(Debug, Default)]
pub(super) struct Pump {
    /// What is due before this may have been read: hints before it are kept, whatever they lead to.
    pub(super) horizon_ms: u64,
    /// What is due before this was read, and is among the hints.
    read_ms: u64,
    /// Due, but the store could not be read.
    stuck: Vec<Hint>,
    /// When to try them again.
    retry_ms: u64,
    /// Due, and somebody else reads which keys that may mean, and then the keys.
    asked: Vec<Asked>,
    /// Those of them that nobody has been told yet.
    fresh: Vec<Hint>,
    /// Due, and their keys are here; what the fetch is called that keeps them.
    awake: Vec<(Hint, u64)>,
    /// Fetches whose keys have expired.
    done: Vec<u64>,
    /// Hints are weeded out when there are so many.
    pub(super) weed_at: usize,
}

/// A hint whose keys are being read.
#[derive(Debug)]
struct Asked {
    hint: Hint,
    /// Keys that it meant in memory then: they have been dealt with.
    seen: Vec<Bytes>,
}

/// Up to so many of what is stuck are named one by one.
const STUCK_NAMED_MAX: usize = 1024;
/// What is stuck is tried again after so long.
const STUCK_RETRY_MS: u64 = 1_000;

impl Pump {
    /// What is under way begins again: these are due.
    pub(super) fn begin_again(&mut self) -> Vec<Hint> {
        self.fresh.clear();
        self.done.clear();
        let asked = self.asked.drain(..).map(|asked| asked.hint);
        let awake = self.awake.drain(..).map(|(hint, _)| hint);
        asked.chain(awake).collect()
    }

    /// Takes a hint from those that are being read, if it is among them.
    fn take_asked(&mut self, hint: &Hint) -> Option<Asked> {
        let place = self.asked.iter().position(|asked| asked.hint == *hint);
        place.map(|place| self.asked.swap_remove(place))
    }

    /// The earliest of what is under way, besides the hints.
    fn oldest_ms(&self) -> Option<u64> {
        let asked = self.asked.iter().map(|asked| asked.hint.at_ms);
        let awake = self.awake.iter().map(|(hint, _)| hint.at_ms);
        asked.chain(awake).min()
    }
}

impl Keyspace {
    /// When something is due next, ms since the Unix epoch.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        if !self.active_expiry {
            return None;
        }
        let retry_ms = (!self.pump.stuck.is_empty()).then_some(self.pump.retry_ms);
        let awake_ms = self.pump.awake.first().map(|(hint, _)| hint.at_ms);
        [self.deadlines.next_ms(), retry_ms, awake_ms]
            .into_iter()
            .flatten()
            .min()
    }

    /// By how many ms the expiry in the background is behind. What cannot be read is left out: it
    /// may stay so for ever.
    pub fn expiry_late_ms(&self) -> u64 {
        if !self.active_expiry {
            return 0;
        }
        let next_ms = [self.deadlines.next_ms(), self.pump.oldest_ms()];
        let next_ms = next_ms.into_iter().flatten().min();
        self.now_ms.saturating_sub(next_ms.unwrap_or(u64::MAX))
    }

    /// Deletes what is past its deadline, at most `budget` hints; true when nothing due is left
    /// that could be deleted now.
    pub fn expire(&mut self, budget: usize) -> bool {
        if !self.active_expiry {
            return true;
        }
        if self.pump.retry_ms <= self.now_ms {
            for hint in std::mem::take(&mut self.pump.stuck) {
                self.deadlines.add(hint);
            }
        }
        for _ in 0..budget {
            if let Some((hint, fetch)) = self.pump.awake.pop() {
                self.expire_here(&hint);
                self.pump.done.push(fetch);
                continue;
            }
            let Some(hint) = self.deadlines.due(self.now_ms) else {
                return true;
            };
            if self.gate.is_some() && self.tables.sleeps(hint.database, hint.slot) {
                if self.pump.asked.len() >= DUE_READS_MAX {
                    self.deadlines.add(hint);
                    return true;
                }
                let seen = self.expire_here(&hint);
                self.pump.asked.push(Asked { hint, seen });
                self.pump.fresh.push(hint);
                continue;
            }
            if !self.wake_due(&hint) {
                self.get_stuck(hint);
            }
            self.expire_here(&hint);
        }
        false
    }

    /// Nothing is deleted for now: what was fetched for that may go.
    pub(super) fn put_expiry_off(&mut self) {
        for (hint, fetch) in self.pump.awake.drain(..) {
            self.deadlines.add(hint);
            self.pump.done.push(fetch);
        }
    }

    fn get_stuck(&mut self, hint: Hint) {
        self.pump.retry_ms = self.now_ms + STUCK_RETRY_MS;
        self.pump.stuck.push(hint);
    }

    /// Deletes what a hint means of what is in memory; what is due later gets a hint. Returns the
    /// keys.
    fn expire_here(&mut self, hint: &Hint) -> Vec<Bytes> {
        let mut keys: Vec<(Bytes, u64)> = Vec::new();
        self.tables
            .scan_slot(hint.database, hint.slot, hint.hash32, 1, |entry| {
                if entry.hash32() == hint.hash32 {
                    let due_ms = due_ms(&entry.value(), entry.deadline_ms());
                    if due_ms != 0 {
                        keys.push((Bytes::copy_from_slice(entry.key()), due_ms));
                    }
                }
            });
        for (key, due_ms) in &keys {
            let key = Key::of_database(hint.database, key, self.seed);
            if *due_ms > self.now_ms {
                self.hint(hint.database, &key, 0, *due_ms);
            } else {
                sim::expired(self.slots(), self.now_ms, hint.database, key.bytes);
                self.expire_key(hint.database, &key, FIELDS_EXPIRED_AT_ONCE_MAX);
            }
        }
        keys.into_iter().map(|(key, _)| key).collect()
    }

    /// Wakes the keys that a due hint may mean; false if they could not be read.
    fn wake_due(&mut self, hint: &Hint) -> bool {
        let page = self.sleepers(hint.database, hint.slot, hint.hash32, 1);
        for sleeper in page.keys {
            if self.may_be_due(hint, &sleeper) {
                let key = Key::of_database(hint.database, &sleeper.key, self.seed);
                self.wake(hint.database, &key);
            }
        }
        self.take_unreadable().is_none()
    }

    /// Whether a key of the store may be due now. What is due later gets a hint.
    fn may_be_due(&mut self, hint: &Hint, sleeper: &Sleeper) -> bool {
        if sleeper.hash32 != hint.hash32 {
            return false;
        }
        let due = sleeper.deadline_ms != 0 && sleeper.deadline_ms <= self.now_ms;
        if due || sleeper.kind == Kind::Hash {
            return true;
        }
        let key = Key::of_database(hint.database, &sleeper.key, self.seed);
        if !matches!(self.tables.presence(hint.database, &key), Presence::Live(_))
            && sleeper.deadline_ms < self.pump.horizon_ms
        {
            // Its row was read before it was written, perhaps.
            self.hint(hint.database, &key, 0, sleeper.deadline_ms);
        }
        false
    }

    // ---- what somebody else reads ------------------------------------------------------------

    /// Hints whose keys have to be looked for in the store, since the last call.
    pub fn take_due(&mut self) -> Vec<Hint> {
        std::mem::take(&mut self.pump.fresh)
    }

    /// Fetches that are not needed any more, since the last call.
    pub fn take_done(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.pump.done)
    }

    /// What the store has where a hint leads. Returns the keys that have to be fetched.
    pub fn due_came(&mut self, hint: Hint, found: Result<Vec<Sleeper>, Unreadable>) -> Vec<Name> {
        let Some(asked) = self.pump.take_asked(&hint) else {
            return Vec::new();
        };
        if !self.active_expiry {
            self.deadlines.add(hint);
            return Vec::new();
        }
        let Ok(sleepers) = found else {
            self.get_stuck(hint);
            return Vec::new();
        };
        let mut names = Vec::new();
        for sleeper in sleepers {
            let key = Key::of_database(hint.database, &sleeper.key, self.seed);
            let (absent, live) = match self.tables.presence(hint.database, &key) {
                Presence::Absent => (true, false),
                Presence::Live(_) => (false, true),
                Presence::Tombstone => (false, false),
            };
            if live && !asked.seen.contains(&sleeper.key) {
                // It was read for somebody else meanwhile, who had no eye for deadlines.
                self.hint_loaded(hint.database, &key);
            } else if absent && self.may_be_due(&hint, &sleeper) {
                names.push(Name {
                    database: hint.database,
                    key: sleeper.key[..].into(),
                    part: Part::Key,
                });
            }
        }
        if !names.is_empty() {
            self.pump.asked.push(asked);
        }
        names
    }

    /// The keys that a hint means are here, kept by a fetch; or some could not be read. False if
    /// nobody waits for them.
    pub fn due_fetched(&mut self, hint: Hint, names: &[Name], fetch: u64) -> bool {
        if self.pump.take_asked(&hint).is_none() {
            return false;
        }
        if !self.active_expiry {
            self.deadlines.add(hint);
            return false;
        }
        if names.iter().any(|name| self.has_failed(name)) {
            self.get_stuck(hint);
            return false;
        }
        self.pump.awake.push((hint, fetch));
        true
    }

    // ---- the store's deadline rows -----------------------------------------------------------

    /// The rows of what is due before `horizon_ms` are going to be read: from now on no hint
    /// before it is dropped.
    pub fn set_horizon_ms(&mut self, horizon_ms: u64) {
        self.pump.horizon_ms = self.pump.horizon_ms.max(horizon_ms);
    }

    /// Hints from the store's rows; all that is due before `read_ms` was given by now.
    pub fn take_hints(&mut self, hints: &[Hint], read_ms: u64) {
        let slots = self.tables.slots();
        let known = |hint: &&Hint| slots.contains(&hint.slot);
        let lost = sim::fault(Fault::DeadlineRowsIgnored);
        for hint in hints.iter().filter(|hint| known(hint) && !lost) {
            self.deadlines.add(*hint);
        }
        self.pump.read_ms = self.pump.read_ms.max(read_ms);
    }

    /// Forgets all hints: the store's rows must do.
    #[cfg(test)]
    pub(crate) fn forget_hints(&mut self) {
        self.deadlines = super::deadlines::Deadlines::default();
    }

    /// Everything that was due before this has expired, besides what is [stuck](Self::stuck).
    pub fn expired_until_ms(&self) -> u64 {
        let stuck = &self.pump.stuck;
        let unnamed = stuck.iter().filter(|_| stuck.len() > STUCK_NAMED_MAX);
        let unnamed_ms = unnamed.map(|hint| hint.at_ms).min();
        [self.deadlines.next_ms(), self.pump.oldest_ms(), unnamed_ms]
            .into_iter()
            .flatten()
            .fold(self.pump.read_ms.min(self.now_ms), u64::min)
    }

    /// What was due before that and could not be read: its rows have to stay.
    pub fn stuck(&self) -> Vec<Hint> {
        let stuck = &self.pump.stuck;
        let named = stuck.iter().filter(|_| stuck.len() <= STUCK_NAMED_MAX);
        named.copied().collect()
    }
}
