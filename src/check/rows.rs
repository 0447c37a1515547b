//! Every row of the store: that it decodes, lies where it belongs, and fits the other rows and the
//! log.

use std::collections::HashSet;

use bytes::Bytes;
use hashbrown::HashMap;
use xxhash_rust::xxh3::xxh3_64;

use super::tail::{Tail, digest};
use super::{Counts, Fault, Parts, Progress, Step};
use crate::keyspace::codec::{self, Stored};
use crate::keyspace::databases::{is_shadow, visible};
use crate::keyspace::key::{Key, field_hash32, slot_of as key_slot_of};
use crate::limits::{CHECK_DEADLINES_MAX, SLOTS};
use crate::store::row::{DEADLINE_MS_END, DeadlineOf, KeyOf, RowKey, deadlines, everything};
use crate::store::{Meta, Store};

/// A hash of the slot that is being read.
struct Head {
    generation: u64,
    length: u64,
    found: u64,
    /// No field may be due.
    plain: bool,
    /// The log changes it: it need not be whole yet.
    touched: bool,
}

pub(super) struct Rows<'a> {
    parts: &'a Parts<'a>,
    store: &'a dyn Store,
    meta: &'a Meta,
    tail: Tail,
    /// Keys found, and what the store's rows say that there are, by slot and database id.
    found: HashMap<(u16, u32), u64>,
    said: HashMap<(u16, u32), u64>,
    slot: u16,
    heads: HashMap<(u32, Box<[u8]>), Head>,
    /// Hashes of deadline rows that must be there.
    due: HashSet<u64>,
}

impl<'a> Rows<'a> {
    pub fn new(parts: &'a Parts<'a>, store: &'a dyn Store, meta: &'a Meta, tail: Tail) -> Self {
        Rows {
            parts,
            store,
            meta,
            tail,
            found: HashMap::new(),
            said: HashMap::new(),
            slot: 0,
            heads: HashMap::new(),
            due: HashSet::new(),
        }
    }

    pub fn check(mut self, counts: &mut Counts, progress: &mut Progress<'_>) -> Result<(), Fault> {
        let (from, to) = everything();
        for next in self.store.scan(&from, &to) {
            let (key, value) = next.map_err(|error| self.parts.store_fault(error))?;
            let row = RowKey::decode(&key).map_err(|error| self.bad_row(&key, error))?;
            if let Some(slot) = slot_of(&row)
                && slot != self.slot
            {
                self.end_slot()?;
                self.slot = slot;
                progress(Step::Rows, u64::from(slot), u64::from(SLOTS));
            }
            self.row(&key, &row, value, counts)?;
        }
        self.end_slot()?;
        self.expect_deadlines()?;
        self.compare_counts(counts)?;
        if self.tail.token_max >= self.tail.token_ceiling.max(1) {
            let (token, ceiling) = (self.tail.token_max, self.tail.token_ceiling);
            let what = format!("token {token} was handed out, and the ceiling is {ceiling}");
            return Err(Fault::new(self.parts.store, what));
        }
        Ok(())
    }

    fn row(
        &mut self,
        key: &[u8],
        row: &RowKey<'_>,
        value: Bytes,
        counts: &mut Counts,
    ) -> Result<(), Fault> {
        if let Some(id) = row.database() {
            if visible(id) >= self.tail.databases.next() {
                let what = format!("database id {id} was never given out");
                return Err(self.bad_row(key, what));
            }
            if !self.tail.databases.is_live(id) {
                counts.dead_rows += 1;
                return Ok(());
            }
        }
        counts.rows += 1;
        match *row {
            RowKey::Count { slot, database } => {
                let keys: [u8; 8] = value[..]
                    .try_into()
                    .map_err(|_| self.bad_row(key, "it is no number"))?;
                self.said.insert((slot, database), u64::from_le_bytes(keys));
            }
            RowKey::Main(of) => {
                counts.stored_keys += 1;
                self.main(key, of, value)?;
            }
            RowKey::Field {
                of,
                generation,
                hash,
                field,
            } => {
                self.check_place(key, &of)?;
                if hash != field_hash32(field, self.parts.identity.hash_seed) {
                    return Err(self.bad_row(key, "the field has another hash"));
                }
                let due_ms = self.field(key, &of, generation, value, counts)?;
                if let Some(due_ms) = due_ms {
                    self.expect(due_ms, &of, DeadlineOf::Field { generation, field })?;
                }
            }
            RowKey::Retired { of, .. } => {
                counts.dead_rows += 1;
                self.check_place(key, &of)?;
            }
            RowKey::Deadline {
                key: of,
                slot,
                database,
                ..
            } => {
                counts.deadlines += 1;
                if key_slot_of(database, of) != slot {
                    return Err(self.bad_row(key, "the key belongs to another slot"));
                }
            }
            RowKey::Meta => {}
        }
        Ok(())
    }

    fn main(&mut self, key: &[u8], of: KeyOf<'_>, value: Bytes) -> Result<(), Fault> {
        self.check_place(key, &of)?;
        let (stored, due_ms) = self.whole(key, value, codec::stored)?;
        self.tail.see(&stored);
        let touched = self.tail.touched.remove(&digest(of.database, of.key));
        if touched.is_none_or(|touched| touched.is_there) {
            *self.found.entry((of.slot, of.database)).or_default() += 1;
        }
        if touched.is_none() {
            self.expect(due_ms, &of, DeadlineOf::Key)?;
        }
        if let Stored::Hash {
            generation,
            length,
            plain,
        } = stored
        {
            let head = Head {
                generation,
                length,
                plain,
                found: 0,
                touched: touched.is_some(),
            };
            self.heads.insert((of.database, of.key.into()), head);
        }
        Ok(())
    }

    /// Checks a field; answers its deadline if it belongs to a hash that is there.
    fn field(
        &mut self,
        key: &[u8],
        of: &KeyOf<'_>,
        generation: u64,
        value: Bytes,
        counts: &mut Counts,
    ) -> Result<Option<u64>, Fault> {
        let (field, expires_at_ms) = self.whole(key, value, codec::field)?;
        let due_ms = field.due_ms(expires_at_ms);
        self.tail.see_field(&field);
        let head = self.heads.get_mut(&(of.database, of.key.into()));
        let Some(head) = head.filter(|head| head.generation == generation) else {
            counts.dead_rows += 1;
            return Ok(None);
        };
        if head.plain && !head.touched && due_ms != 0 {
            return Err(self.bad_row(key, "something of it is due, and its hash says otherwise"));
        }
        counts.fields += 1;
        head.found += 1;
        Ok((!head.touched).then_some(due_ms))
    }

    /// The row lies in the slot and under the hash that its key has.
    fn check_place(&self, row: &[u8], of: &KeyOf<'_>) -> Result<(), Fault> {
        let key = Key::of_database(of.database, of.key, self.parts.identity.hash_seed);
        if key.slot != of.slot {
            let what = format!("its key belongs to slot {}", key.slot);
            return Err(self.bad_row(row, what));
        }
        if key.hash32() != of.hash {
            return Err(self.bad_row(row, "its key has another hash"));
        }
        Ok(())
    }

    /// Decodes a value that must end where it ends.
    fn whole<T>(
        &self,
        key: &[u8],
        value: Bytes,
        decode: impl Fn(&mut &[u8]) -> Result<T, codec::Undecodable>,
    ) -> Result<T, Fault> {
        let mut rest = &value[..];
        let decoded = decode(&mut rest).map_err(|error| self.bad_row(key, error))?;
        match rest.len() {
            0 => Ok(decoded),
            more => Err(self.bad_row(key, format!("its value has {more} bytes too many"))),
        }
    }

    /// Hashes of the slot that was read have all their fields.
    fn end_slot(&mut self) -> Result<(), Fault> {
        let short = |head: &Head| !head.touched && head.found != head.length;
        let found = self.heads.iter().find(|(_, head)| short(head));
        if let Some(((_, key), head)) = found {
            let Head { length, found, .. } = head;
            let key = key.escape_ascii();
            let what = format!("the hash {key} has {length} fields, {found} were found");
            return Err(Fault::new(self.parts.store, what));
        }
        self.heads.clear();
        Ok(())
    }

    /// There must be a row that reminds of this deadline, unless it has passed already.
    fn expect(&mut self, due_ms: u64, of: &KeyOf<'_>, what: DeadlineOf<'_>) -> Result<(), Fault> {
        if due_ms <= self.meta.time_ms || due_ms >= DEADLINE_MS_END {
            return Ok(());
        }
        let row = RowKey::Deadline {
            at_ms: due_ms,
            slot: of.slot,
            database: of.database,
            key: of.key,
            of: what,
        };
        self.due.insert(xxh3_64(&row.encode()));
        if self.due.len() >= CHECK_DEADLINES_MAX {
            self.expect_deadlines()?;
        }
        Ok(())
    }

    /// Looks for the deadline rows that were asked for so far.
    fn expect_deadlines(&mut self) -> Result<(), Fault> {
        if self.due.is_empty() {
            return Ok(());
        }
        let (from, to) = deadlines(0, DEADLINE_MS_END);
        for next in self.store.scan(&from, &to) {
            let (key, _) = next.map_err(|error| self.parts.store_fault(error))?;
            self.due.remove(&xxh3_64(&key));
        }
        match self.due.len() {
            0 => Ok(()),
            missing => {
                let what = format!("{missing} deadlines have no row that reminds of them");
                Err(Fault::new(self.parts.store, what))
            }
        }
    }

    /// Each slot and database has as many keys as the last count says.
    fn compare_counts(&mut self, counts: &mut Counts) -> Result<(), Fault> {
        for touched in self
            .tail
            .touched
            .values()
            .filter(|touched| touched.is_there)
        {
            let place = (touched.slot, touched.database);
            *self.found.entry(place).or_default() += 1;
        }
        let mut said = std::mem::take(&mut self.said);
        said.extend(self.tail.counts.drain());
        let mut places: Vec<(u16, u32)> = said.keys().chain(self.found.keys()).copied().collect();
        places.retain(|(_, database)| self.tail.databases.is_live(*database));
        places.sort_unstable();
        places.dedup();
        for place in places {
            let found = self.found.get(&place).copied().unwrap_or(0);
            let said = said.get(&place).copied().unwrap_or(0);
            if found != said {
                let (slot, database) = place;
                let what = format!(
                    "slot {slot} has {found} keys of database id {database}, and its count says \
                     {said}"
                );
                return Err(Fault::new(self.parts.store, what));
            }
            if !is_shadow(place.1) {
                counts.keys += found;
            }
        }
        Ok(())
    }

    fn bad_row(&self, key: &[u8], what: impl std::fmt::Display) -> Fault {
        let key = key.escape_ascii();
        Fault::new(self.parts.store, format!("row {key} is damaged: {what}"))
    }
}

fn slot_of(row: &RowKey<'_>) -> Option<u16> {
    match row {
        RowKey::Main(of) | RowKey::Field { of, .. } | RowKey::Retired { of, .. } => Some(of.slot),
        RowKey::Count { .. } | RowKey::Deadline { .. } | RowKey::Meta => None,
    }
}
