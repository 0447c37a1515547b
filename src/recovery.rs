//! From the data folder to keyspaces in memory: reads every row of the store, then replays what the
//! log holds behind the store's position.
//!
//! Always true: a row or record that cannot be read stops the start with its place; nothing is
//! passed over.

use bytes::Bytes;
use hashbrown::HashMap;

use crate::keyspace::codec::{self, Mutation, Mutations, Stored};
use crate::keyspace::databases::Databases;
use crate::keyspace::key::slot_of;
use crate::keyspace::owned::{Keyspace, Origin};
use crate::keyspace::tokens::TokenSource;
use crate::keyspace::{Hash, Key, Value};
use crate::log::{Fatal, Recovery};
use crate::route::Routes;
use crate::sim::{self, Fault};
use crate::store::row::{self, RowKey};
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
}

/// Reads the store and the log. `progress` is told now and then how far it is, in words.
///
/// # Errors
/// Damage, with its place.
pub fn recover(
    store: &dyn Store,
    meta: &Meta,
    log: &mut Recovery,
    plan: Plan,
    progress: &mut dyn FnMut(String),
) -> Result<Recovered, Fatal> {
    let databases = Databases::restored(
        meta.databases.clone(),
        meta.next_database_id,
        plan.databases,
    );
    let replay = read_log(log, progress)?;
    let mut ceiling = meta.token_ceiling.max(replay.token_ceiling);
    if sim::fault(Fault::TokenReused) {
        ceiling = 0;
    }
    let tokens = TokenSource::above(ceiling);
    let mut keyspaces = empty(plan, &databases, &tokens);
    let time_ms = log.last_time_ms().max(meta.time_ms);
    // With batches to replay, a hash may be between two states: the log leads it to one.
    let exact = replay.batches.is_empty();
    load_rows(store, &mut keyspaces, plan, (&databases, exact), progress)?;
    let batches = replay.batches.len() as u64;
    let mut dead: Vec<u32> = meta.dead_databases.clone();
    for batch in replay.batches {
        apply_batch(&mut keyspaces, plan, &mut dead, batch)?;
    }
    for keyspace in &mut keyspaces {
        keyspace.set_now_ms(time_ms);
        keyspace.forget_turn();
    }
    let ids = keyspaces[0].databases().ids().to_vec();
    let keys = keyspaces.iter().map(|keyspace| {
        ids.iter()
            .map(|&id| keyspace.tables().count_db(id))
            .sum::<u64>()
    });
    let keys = keys.sum();
    dead.sort_unstable();
    dead.dedup();
    dead.retain(|id| !ids.contains(id));
    Ok(Recovered {
        keyspaces,
        tokens,
        token_ceiling: ceiling,
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
    store: &dyn Store,
    meta: &Meta,
    plan: Plan,
    tokens: TokenSource,
) -> Result<Vec<Box<Keyspace>>, Fatal> {
    let databases = Databases::restored(
        meta.databases.clone(),
        meta.next_database_id,
        plan.databases,
    );
    let mut keyspaces = empty(plan, &databases, &tokens);
    load_rows(
        store,
        &mut keyspaces,
        plan,
        (&databases, false),
        &mut |_| {},
    )?;
    for keyspace in &mut keyspaces {
        keyspace.set_now_ms(meta.time_ms);
    }
    Ok(keyspaces)
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

#[derive(Default)]
struct Replay {
    batches: Vec<Bytes>,
    token_ceiling: u64,
}

/// Reads the log's batches; what concerns all shards is taken out on the way.
fn read_log(log: &mut Recovery, progress: &mut dyn FnMut(String)) -> Result<Replay, Fatal> {
    let mut replay = Replay::default();
    while let Some(batch) = log.next()? {
        for mutation in Mutations::of(batch.payload.clone()) {
            let mutation = mutation.map_err(|error| undecodable(batch.lsn, &error))?;
            if let Mutation::TokenCeiling(ceiling) = mutation {
                replay.token_ceiling = replay.token_ceiling.max(ceiling);
            }
        }
        replay.batches.push(batch.payload);
        if replay.batches.len().is_multiple_of(100_000) {
            progress(format!("read {} batches of the log", replay.batches.len()));
        }
    }
    Ok(replay)
}

fn undecodable(lsn: u64, error: &codec::Undecodable) -> Fatal {
    let text = format!("batch {lsn} of the commit log {error}; restore the folder from a backup");
    Fatal::new(text, std::path::Path::new("log"))
}

fn damaged_row(key: &[u8], what: &str) -> Fatal {
    let text = format!(
        "row {} of the store is damaged: {what}; restore the folder from a backup",
        key.escape_ascii()
    );
    Fatal::new(text, std::path::Path::new("store"))
}

fn apply_batch(
    keyspaces: &mut [Box<Keyspace>],
    plan: Plan,
    dead: &mut Vec<u32>,
    batch: Bytes,
) -> Result<(), Fatal> {
    for mutation in Mutations::of(batch) {
        let mutation = mutation.map_err(|error| undecodable(0, &error))?;
        let shard = match &mutation {
            Mutation::Put { database, key, .. }
            | Mutation::Delete { database, key }
            | Mutation::Deadline { database, key, .. }
            | Mutation::Part { database, key, .. }
            | Mutation::Fields { database, key, .. } => {
                plan.routes.of_slot(slot_of(*database, key))
            }
            Mutation::Databases { ids, next } => {
                let map = Databases::restored(ids.clone(), *next, plan.databases);
                for keyspace in keyspaces.iter_mut() {
                    let gone = keyspace.databases().ids().iter().copied();
                    dead.extend(gone.filter(|id| !map.ids().contains(id)));
                    keyspace.set_databases(map.clone());
                }
                continue;
            }
            Mutation::Count { .. } | Mutation::TokenCeiling(_) => continue,
        };
        keyspaces[shard].apply(mutation);
    }
    Ok(())
}

/// Hashes that are being read, by database id and key: fields so far, deadline, length.
type Hashes = HashMap<(u32, Box<[u8]>), (Hash, u64, u64)>;

/// Puts every live row of the store into memory.
fn load_rows(
    store: &dyn Store,
    keyspaces: &mut [Box<Keyspace>],
    plan: Plan,
    (databases, exact): (&Databases, bool),
    progress: &mut dyn FnMut(String),
) -> Result<(), Fatal> {
    let mut rows = 0_u64;
    // Keys of hashes of the slot that is being read: head first, fields behind.
    let mut hashes = Hashes::new();
    let mut slot_of_hashes = 0;
    let (from, to) = row::slots(0, crate::limits::SLOTS);
    for next in store.scan(&from, &to) {
        let (key, value) = next.map_err(|error| damaged_row(&[], &error.to_string()))?;
        let row = RowKey::decode(&key).map_err(|error| damaged_row(&key, &error.to_string()))?;
        rows += 1;
        if rows.is_multiple_of(1_000_000) {
            progress(format!("read {rows} rows of the store"));
        }
        if row.database().is_some_and(|id| databases.is_dead(id)) {
            continue;
        }
        let mut value = value;
        match row {
            RowKey::Main(of) => {
                if of.slot != slot_of_hashes {
                    finish_hashes(keyspaces, plan, &mut hashes, exact)?;
                    slot_of_hashes = of.slot;
                }
                let (stored, deadline_ms) = codec::stored(&mut value)
                    .map_err(|error| damaged_row(&key, &error.to_string()))?;
                match stored {
                    Stored::Value(found) => {
                        let keyspace = &mut keyspaces[plan.routes.of_slot(of.slot)];
                        let found_key = Key::of_database(of.database, of.key, plan.seed);
                        keyspace.load(of.database, &found_key, found, deadline_ms);
                    }
                    Stored::Hash { generation, length } => {
                        let name = (of.database, Box::from(of.key));
                        let head = (Hash::stored(generation), deadline_ms, length);
                        hashes.insert(name, head);
                    }
                }
            }
            RowKey::Field {
                of,
                generation,
                hash,
                field,
            } => {
                let name = (of.database, Box::from(of.key));
                if let Some((into, ..)) = hashes.get_mut(&name)
                    && into.generation() == generation
                {
                    let (value, expires_at_ms) = codec::field(&mut value)
                        .map_err(|error| damaged_row(&key, &error.to_string()))?;
                    into.load(hash, field, value, expires_at_ms);
                }
            }
            _ => {}
        }
    }
    finish_hashes(keyspaces, plan, &mut hashes, exact)
}

fn finish_hashes(
    keyspaces: &mut [Box<Keyspace>],
    plan: Plan,
    hashes: &mut Hashes,
    exact: bool,
) -> Result<(), Fatal> {
    for ((database, key), (hash, deadline_ms, length)) in hashes.drain() {
        if exact && hash.len() as u64 != length {
            let what = format!("it has {length} fields, {} were found", hash.len());
            return Err(damaged_row(&key, &what));
        }
        let key = Key::of_database(database, &key, plan.seed);
        let keyspace = &mut keyspaces[plan.routes.of_slot(key.slot)];
        keyspace.load(database, &key, Value::Hash(Box::new(hash)), deadline_ms);
    }
    Ok(())
}
