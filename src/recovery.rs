//! From the data folder to keyspaces: reads how many keys the store has, and replays what the log
//! holds behind the store's position. Keys are read when they are first used.
//!
//! Always true: a row or record that cannot be read stops the start with its place; nothing is
//! passed over.

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use crate::keyspace::codec::{Mutation, Mutations, Undecodable};
use crate::keyspace::databases::Databases;
use crate::keyspace::owned::Origin;
use crate::keyspace::tokens::TokenSource;
use crate::keyspace::{Cold, Key, Keyspace};
use crate::limits::{REPLAY_PIECE_BYTES, REPLAY_PIECES_WAITING_MAX, SHARDS_MAX, SLOTS};
use crate::log::{Fatal, Recovery, Replayed as Batch};
use crate::residency::{self, StoredKeys};
use crate::route::Routes;
use crate::sim::{self, Fault};
use crate::store::{Meta, Store};

/// What the disk had.
pub struct Recovered {
    /// One keyspace per shard.
    pub keyspaces: Vec<Box<Keyspace>>,
    /// Tokens continue above all that were ever handed out.
    pub tokens: TokenSource,
    /// Where they continue.
    pub token_ceiling: u64,
    /// Keys that are there.
    pub keys: u64,
    /// Batches that were replayed.
    pub batches: u64,
    /// Time of the last record, ms since the Unix epoch.
    pub time_ms: u64,
    /// Database ids that are dead and whose rows may still be in the store.
    pub dead_databases: Vec<u32>,
}

/// How keyspaces are to be made.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Division of slots.
    pub routes: Routes,
    /// Hash seed of the data folder.
    pub seed: u64,
    /// Database numbers.
    pub databases: usize,
    /// Seed of random choices.
    pub random_seed: u64,
    /// Threads that apply the log; 0: the one that reads it.
    pub threads: usize,
}

impl Plan {
    /// The same with shards divided further, where there are fewer than threads.
    fn parts(self) -> Plan {
        let shards = self.routes.shards();
        Plan {
            routes: Routes::new(shards * (self.threads.min(SHARDS_MAX) / shards).max(1)),
            ..self
        }
    }
}

/// Reads the counts of the store, and the log. `progress` is told now and then how far it is, in
/// words.
///
/// # Errors
/// Damage, with its place.
pub fn recover(
    store: &Arc<dyn Store>,
    meta: &Meta,
    log: &mut Recovery,
    plan: Plan,
    progress: &mut dyn FnMut(String),
) -> Result<Recovered, Fatal> {
    let parts = plan.parts();
    let mut keyspaces = sleeping(store, meta, parts, &TokenSource::above(meta.token_ceiling))?;
    let replayed = replay(&mut keyspaces, log, parts, progress)?;
    let batches = replayed.batches;
    let mut token_ceiling = replayed.token_ceiling.max(meta.token_ceiling);
    if sim::fault(Fault::TokenReused) {
        token_ceiling = 0;
    }
    let tokens = TokenSource::above(token_ceiling);
    let time_ms = log.last_time_ms().max(meta.time_ms);
    for keyspace in &mut keyspaces {
        keyspace.set_now_ms(time_ms);
        keyspace.set_tokens(tokens.clone());
    }
    let keys = end_replay(&mut keyspaces)?;
    let keyspaces = joined(keyspaces, plan);
    let mut dead = meta.dead_databases.clone();
    dead.extend(replayed.dead);
    dead.sort_unstable();
    dead.dedup();
    dead.retain(|id| !keyspaces[0].databases().is_live(*id));
    Ok(Recovered {
        keyspaces,
        tokens,
        token_ceiling,
        keys,
        batches,
        time_ms,
        dead_databases: dead,
    })
}

/// Keyspaces as the store alone has them, for a log with nothing behind it.
///
/// # Errors
/// Damage, with its place.
pub fn load(
    store: &Arc<dyn Store>,
    meta: &Meta,
    plan: Plan,
    tokens: TokenSource,
) -> Result<Vec<Box<Keyspace>>, Fatal> {
    let mut keyspaces = sleeping(store, meta, plan, &tokens)?;
    end_replay(&mut keyspaces)?;
    for keyspace in &mut keyspaces {
        keyspace.set_now_ms(meta.time_ms);
    }
    Ok(keyspaces)
}

/// Keyspaces with nothing in memory, in which a replay has begun.
fn sleeping(
    store: &Arc<dyn Store>,
    meta: &Meta,
    plan: Plan,
    tokens: &TokenSource,
) -> Result<Vec<Box<Keyspace>>, Fatal> {
    let ids = meta.databases.clone();
    let databases = Databases::restored(ids, meta.next_database_id, plan.databases);
    let mut keyspaces = empty(plan, &databases, tokens);
    let unreadable = |error: &dyn std::fmt::Display| {
        Fatal::new(error.to_string(), std::path::Path::new("store"))
    };
    let counts = residency::counts(&**store).map_err(|error| unreadable(&error))?;
    let cold: Arc<dyn Cold> = Arc::new(StoredKeys::new(store.clone()));
    for keyspace in &mut keyspaces {
        let slots = keyspace.slots();
        keyspace.set_cold(cold.clone());
        let own = counts.iter().filter(|(slot, ..)| slots.contains(slot));
        keyspace.begin_replay(own.copied());
    }
    Ok(keyspaces)
}

/// The replay is over. Returns how many keys there are.
fn end_replay(keyspaces: &mut [Box<Keyspace>]) -> Result<u64, Fatal> {
    let mut keys = 0;
    for keyspace in keyspaces {
        keyspace.end_replay().map_err(|error| {
            let text = format!("{error}; restore the folder from a backup");
            Fatal::new(text, std::path::Path::new("store"))
        })?;
        let ids = keyspace.databases().ids();
        keys += ids
            .iter()
            .map(|&id| keyspace.tables().count_db(id))
            .sum::<u64>();
    }
    Ok(keys)
}

fn empty(plan: Plan, databases: &Databases, tokens: &TokenSource) -> Vec<Box<Keyspace>> {
    let origin = |shard: usize| Origin {
        slots: plan.routes.slots(shard),
        seed: plan.seed,
        databases: databases.clone(),
        tokens: tokens.clone(),
        random_seed: plan.random_seed.wrapping_add(shard as u64),
    };
    (0..plan.routes.shards())
        .map(|shard| Box::new(Keyspace::new(origin(shard))))
        .collect()
}

/// Shards from their parts.
fn joined(parts: Vec<Box<Keyspace>>, plan: Plan) -> Vec<Box<Keyspace>> {
    let mut shards: Vec<Box<Keyspace>> = Vec::new();
    for part in parts {
        let shard = plan.routes.of_slot(part.slots().start);
        match shards.get_mut(shard) {
            Some(begun) => begun.append(*part),
            None => shards.push(part),
        }
    }
    shards
}

/// What the log says besides keys.
#[derive(Default)]
struct Replayed {
    batches: u64,
    /// Ids of databases that died on the way.
    dead: Vec<u32>,
    token_ceiling: u64,
}

/// Applies what the log holds: read here, in pieces, which several threads apply, each to the keys
/// of its own slots. They have no key in common, so they need not keep step.
fn replay(
    keyspaces: &mut [Box<Keyspace>],
    log: &mut Recovery,
    plan: Plan,
    progress: &mut dyn FnMut(String),
) -> Result<Replayed, Fatal> {
    let each = match plan.threads {
        0 => keyspaces.len(),
        threads => keyspaces.len().div_ceil(threads),
    };
    let owners = keyspaces.chunks_mut(each).enumerate();
    let mut owners = owners.map(|(place, keyspaces)| Owners::new(keyspaces, place * each, plan));
    let mut pieces = Pieces::new(log, progress);
    if plan.threads == 0 {
        let Some(mut all) = owners.next() else {
            return Ok(Replayed::default());
        };
        while let Some(piece) = pieces.next()? {
            all.apply(&piece)?;
        }
        return Ok(Replayed {
            batches: pieces.batches,
            ..all.replayed
        });
    }
    std::thread::scope(|scope| {
        let (mut inboxes, mut threads) = (Vec::new(), Vec::new());
        for mut owners in owners {
            let (inbox, pieces) = sync_channel::<Arc<Vec<Batch>>>(REPLAY_PIECES_WAITING_MAX);
            inboxes.push(inbox);
            threads.push(scope.spawn(move || {
                for piece in pieces {
                    owners.apply(&piece)?;
                }
                Ok(owners.replayed)
            }));
        }
        let read = pieces.give_to(&inboxes);
        drop(inboxes);
        let mut all = Replayed::default();
        for thread in threads {
            // A thread that panicked has ended the process.
            let replayed = thread.join().unwrap_or_else(|_| Ok(Replayed::default()))?;
            all.dead.extend(replayed.dead);
            all.token_ceiling = all.token_ceiling.max(replayed.token_ceiling);
        }
        read?;
        all.batches = pieces.batches;
        Ok(all)
    })
}

/// The log's batches, gathered to pieces that are worth handing over.
struct Pieces<'a> {
    log: &'a mut Recovery,
    progress: &'a mut dyn FnMut(String),
    batches: u64,
    bytes: u64,
}

impl<'a> Pieces<'a> {
    fn new(log: &'a mut Recovery, progress: &'a mut dyn FnMut(String)) -> Pieces<'a> {
        Pieces {
            log,
            progress,
            batches: 0,
            bytes: 0,
        }
    }

    /// The next piece; `None` at the end of the log.
    fn next(&mut self) -> Result<Option<Vec<Batch>>, Fatal> {
        let (mut piece, mut bytes) = (Vec::new(), 0);
        while bytes < REPLAY_PIECE_BYTES
            && let Some(batch) = self.log.next()?
        {
            bytes += batch.payload.len();
            piece.push(batch);
        }
        self.batches += piece.len() as u64;
        self.bytes += bytes as u64;
        let (batches, mib) = (self.batches, self.bytes >> 20);
        (self.progress)(format!("replayed {batches} batches of the log, {mib} MiB"));
        Ok((!piece.is_empty()).then_some(piece))
    }

    /// Hands all pieces to every thread; stops when one has given up.
    fn give_to(&mut self, inboxes: &[SyncSender<Arc<Vec<Batch>>>]) -> Result<(), Fatal> {
        while let Some(piece) = self.next()? {
            let piece = Arc::new(piece);
            for inbox in inboxes {
                if inbox.send(piece.clone()).is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// Neighbouring keyspaces whose effects one thread applies.
struct Owners<'a> {
    keyspaces: &'a mut [Box<Keyspace>],
    /// Number of the first.
    first: usize,
    slots: Range<u16>,
    plan: Plan,
    replayed: Replayed,
    /// Effects on keys that were found in a piece and not applied yet.
    found: Vec<Found>,
}

/// Where an effect on a key lies.
#[derive(Clone, Copy)]
struct Found {
    /// Of the key.
    hash: u64,
    /// Place of the batch in the piece.
    batch: u32,
    /// Where the effect begins in the batch.
    at: usize,
    slot: u16,
}

impl<'a> Owners<'a> {
    fn new(keyspaces: &'a mut [Box<Keyspace>], first: usize, plan: Plan) -> Owners<'a> {
        let last = first + keyspaces.len() - 1;
        Owners {
            keyspaces,
            first,
            slots: plan.routes.slots(first).start..plan.routes.slots(last).end,
            plan,
            replayed: Replayed::default(),
            found: Vec::new(),
        }
    }

    /// Applies a piece slot by slot: what a slot has in memory is read once for all its effects
    /// (applied one by one, each of them waits for memory several times). Those of one slot stay
    /// in order.
    fn apply(&mut self, piece: &[Batch]) -> Result<(), Fatal> {
        for (place, batch) in piece.iter().enumerate() {
            let mut mutations = Mutations::of(&batch.payload);
            let mut at = 0;
            while let Some(mutation) = mutations.next() {
                let mutation = mutation.map_err(|error| undecodable(batch.lsn, &error))?;
                match mutation.key() {
                    Some((database, bytes)) => {
                        let key = Key::of_database(database, bytes, self.plan.seed);
                        if self.slots.contains(&key.slot) {
                            self.found.push(Found {
                                hash: key.hash,
                                batch: place as u32,
                                at,
                                slot: key.slot,
                            });
                        }
                    }
                    None => self.apply_besides_keys(piece, batch.lsn, mutation)?,
                }
                at = batch.payload.len() - mutations.left();
            }
        }
        self.apply_found(piece)
    }

    fn apply_found(&mut self, piece: &[Batch]) -> Result<(), Fatal> {
        let found = std::mem::take(&mut self.found);
        for places in by_slot(&found, &self.slots).chunks(AHEAD) {
            // Effects of one slot lie far apart: the processor fetches some at the same time.
            let look = |place: &u32| {
                let Found { batch, at, .. } = found[*place as usize];
                let payload = &piece[batch as usize].payload;
                payload[at] ^ payload[(at + EFFECT_BYTES).min(payload.len() - 1)]
            };
            std::hint::black_box(places.iter().map(look).fold(0, u8::wrapping_add));
            for place in places {
                self.apply_one(piece, &found[*place as usize])?;
            }
        }
        self.found = found;
        self.found.clear();
        Ok(())
    }

    fn apply_one(&mut self, piece: &[Batch], found: &Found) -> Result<(), Fatal> {
        let batch = &piece[found.batch as usize];
        let effect = Mutations::of(&batch.payload[found.at..]).next();
        let effect = effect.unwrap_or(Err(Undecodable("it ends early")));
        let effect = effect.map_err(|error| undecodable(batch.lsn, &error))?;
        if let Some((database, bytes)) = effect.key() {
            let (slot, hash) = (found.slot, found.hash);
            let key = Key { bytes, slot, hash };
            self.owner(slot).apply_to(database, &key, effect);
        }
        Ok(())
    }

    fn apply_besides_keys(
        &mut self,
        piece: &[Batch],
        lsn: u64,
        mutation: Mutation<'_>,
    ) -> Result<(), Fatal> {
        match mutation {
            Mutation::Count { slot, .. } if slot >= SLOTS => {
                return Err(undecodable(lsn, &Undecodable("a slot")));
            }
            Mutation::Count {
                slot,
                database,
                keys,
            } if self.slots.contains(&slot) => self.owner(slot).apply_count(slot, database, keys),
            Mutation::Databases { ids, next } => {
                // What came before may be of databases that end here.
                self.apply_found(piece)?;
                let map = Databases::restored(ids, next, self.plan.databases);
                for keyspace in self.keyspaces.iter_mut() {
                    let gone = keyspace.databases().ids().iter().copied();
                    let gone = gone.filter(|id| !map.is_live(*id));
                    self.replayed.dead.extend(gone);
                    keyspace.set_databases(map.clone());
                }
            }
            Mutation::TokenCeiling(ceiling) => {
                self.replayed.token_ceiling = self.replayed.token_ceiling.max(ceiling);
            }
            _ => {}
        }
        Ok(())
    }

    fn owner(&mut self, slot: u16) -> &mut Keyspace {
        &mut self.keyspaces[self.plan.routes.of_slot(slot) - self.first]
    }
}

/// Places of what was found, by slot; within a slot in order.
fn by_slot(found: &[Found], slots: &Range<u16>) -> Vec<u32> {
    let index = |found: &Found| usize::from(found.slot - slots.start);
    let mut starts = vec![0_u32; slots.len() + 1];
    for one in found {
        starts[index(one) + 1] += 1;
    }
    for slot in 1..starts.len() {
        starts[slot] += starts[slot - 1];
    }
    let mut order = vec![0; found.len()];
    for (place, one) in found.iter().enumerate() {
        let start = &mut starts[index(one)];
        order[*start as usize] = place as u32;
        *start += 1;
    }
    order
}

/// Effects that are looked at before the first of them is applied, and bytes of one that is small.
const AHEAD: usize = 32;
const EFFECT_BYTES: usize = 28;

fn undecodable(lsn: u64, error: &Undecodable) -> Fatal {
    let text = format!("batch {lsn} of the commit log {error}; restore the folder from a backup");
    Fatal::new(text, std::path::Path::new("log"))
}
