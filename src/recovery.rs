//! From the data folder to keyspaces: reads how many keys the store has, and replays what the log
//! holds behind the store's position. Keys are read when they are first used.
//!
//! Always true: a row or record that cannot be read stops the start with its place; nothing is
//! passed over.

use std::sync::Arc;

use crate::keyspace::databases::Databases;
use crate::keyspace::owned::Origin;
use crate::keyspace::tokens::TokenSource;
use crate::keyspace::{Cold, Keyspace};
use crate::limits::SHARDS_MAX;
use crate::log::{Fatal, Recovery};
use crate::residency::{self, StoredKeys};
use crate::route::Routes;
use crate::sim::{self, Fault};
use crate::store::{Meta, Store};

#[cfg(test)]
mod in_part_tests;
mod replay;

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
    /// The store may have rows of database ids that are dead.
    pub dead_databases: bool,
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
    let replayed = replay::replay(&mut keyspaces, log, parts, progress)?;
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
    // Each flush took a new id.
    let flushed = keyspaces[0].databases().next() != meta.next_database_id;
    Ok(Recovered {
        keyspaces,
        tokens,
        token_ceiling,
        keys,
        batches,
        time_ms,
        dead_databases: meta.dead_databases || flushed,
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
    let tokens = match sim::fault(Fault::ReloadReusesTokens) {
        true => TokenSource::above(1),
        false => tokens,
    };
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
