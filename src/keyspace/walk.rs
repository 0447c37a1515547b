//! Walking over all keys of a shard, those in memory and those asleep: both lie in the order of
//! slot and hash, so a page of one is merged with the same span of the other.
//!
//! Always true: what memory knows wins, tombstones included; a page takes bounded memory.

use rand::RngExt;

use super::owned::Keyspace;
use super::slot::{Drawn, Presence};
use super::{DatabaseId, Key, Kind};
use crate::limits::WALK_PAGE_KEYS_MAX;

/// One behind the last hash.
const HASHES_END: u64 = 1 << 32;

impl Keyspace {
    /// Visits keys of these slots from (slot, hash) on, until `left` is used up; keys of one hash
    /// together. Returns where to go on; behind the last slot is the end. Keys past their deadline
    /// are not shown.
    pub(super) fn walk(
        &mut self,
        database: DatabaseId,
        from: (u16, u32),
        left: &mut usize,
        visit: &mut impl FnMut(&[u8], Kind),
    ) -> (u16, u32) {
        let mut at = from;
        while at.0 < self.slots().end && *left > 0 {
            let limit = (*left).min(WALK_PAGE_KEYS_MAX);
            let next = self.walk_page(database, at, limit, &mut |key, kind| {
                *left = left.saturating_sub(1);
                if let Some(kind) = kind {
                    visit(key, kind);
                }
            });
            at = match u32::try_from(next) {
                Ok(hash32) => (at.0, hash32),
                Err(_) => (at.0 + 1, 0),
            };
        }
        at
    }

    /// Visits a page of one slot; a key past its deadline has no kind. Returns the next hash.
    fn walk_page(
        &mut self,
        database: DatabaseId,
        (slot, from): (u16, u32),
        limit: usize,
        visit: &mut impl FnMut(&[u8], Option<Kind>),
    ) -> u64 {
        let now_ms = self.now_ms;
        let shown = |kind, deadline_ms| (deadline_ms == 0 || deadline_ms > now_ms).then_some(kind);
        let asleep = self.sleepers(database, slot, from, limit);
        let end = asleep.next.map_or(HASHES_END, u64::from);
        let here_end = match end {
            HASHES_END => None,
            _ => self.tables.scan_slot(database, slot, from, limit, |_| ()),
        };
        // Only where both are known to their end is it known what exists.
        let end = here_end.map_or(end, |here_end| end.min(here_end.into()));
        let next = self.tables.scan_slot(database, slot, from, limit, |entry| {
            if u64::from(entry.hash32()) < end {
                visit(entry.key(), shown(entry.kind(), entry.deadline_ms()));
            }
        });
        let end = next.map_or(end, |next| end.min(next.into()));
        for sleeper in &asleep.keys {
            let key = Key::of_database(database, &sleeper.key, self.seed);
            let absent = matches!(self.tables.presence(database, &key), Presence::Absent);
            if absent && u64::from(sleeper.hash32) < end {
                visit(&sleeper.key, shown(sleeper.kind, sleeper.deadline_ms));
            }
        }
        end
    }

    /// A random key of the database, here or asleep, that is not past its deadline.
    pub(super) fn random_key(&mut self, database: DatabaseId) -> Option<Vec<u8>> {
        let now_ms = self.now_ms;
        match self.tables.random(database, &mut self.rng)? {
            Drawn::Here(entry) => {
                let deadline_ms = entry.deadline_ms();
                (deadline_ms == 0 || deadline_ms > now_ms).then(|| entry.key().to_vec())
            }
            Drawn::Asleep(slot) => self.random_sleeper(database, slot),
        }
    }

    fn random_sleeper(&mut self, database: DatabaseId, slot: u16) -> Option<Vec<u8>> {
        let first: u32 = self.rng.random();
        let mut from = first;
        // From the first hash to the end, and from the beginning to the first.
        for round in 0..2 {
            loop {
                let page = self.sleepers(database, slot, from, WALK_PAGE_KEYS_MAX / 16);
                let awake = |key: &Key<'_>| {
                    !matches!(self.tables.presence(database, key), Presence::Absent)
                };
                let found = page.keys.iter().find(|sleeper| {
                    let key = Key::of_database(database, &sleeper.key, self.seed);
                    let late = sleeper.deadline_ms != 0 && sleeper.deadline_ms <= self.now_ms;
                    !late && !awake(&key)
                });
                if let Some(found) = found {
                    return Some(found.key.to_vec());
                }
                match page.next.filter(|next| round == 0 || *next < first) {
                    Some(next) => from = next,
                    None => break,
                }
            }
            from = 0;
        }
        None
    }
}
