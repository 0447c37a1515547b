//! Replaying the log: one thread reads and sorts it, several apply it.
//!
//! Always true: effects on one key are applied in the log's order. Keys of different slots have
//! nothing in common, so their effects are applied in the order that is cheapest: slot by slot
//! within a piece of the log, and slots of different keyspaces at the same time.

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use super::Plan;
use crate::keyspace::codec::{Mutation, Mutations, Undecodable};
use crate::keyspace::databases::Databases;
use crate::keyspace::{Key, Keyspace};
use crate::limits::{REPLAY_PIECE_BYTES, REPLAY_PIECES_WAITING_MAX, SLOTS};
use crate::log::{Fatal, Recovery, Replayed as Batch};

/// What the log says besides keys.
#[derive(Default)]
pub(super) struct Replayed {
    /// Batches that were read.
    pub batches: u64,
    /// The highest ceiling of tokens.
    pub token_ceiling: u64,
}

/// Applies what the log holds to `keyspaces`, which are divided as `plan` says.
pub(super) fn replay(
    keyspaces: &mut [Box<Keyspace>],
    log: &mut Recovery,
    plan: Plan,
    progress: &mut dyn FnMut(String),
) -> Result<Replayed, Fatal> {
    let each = keyspaces.len().div_ceil(plan.threads.max(1));
    let owners = keyspaces.chunks_mut(each).enumerate();
    let mut owners: Vec<Owners<'_>> = owners
        .map(|(place, keyspaces)| Owners::new(keyspaces, place * each, plan))
        .collect();
    let mut reader = Reader {
        log,
        plan,
        slots: owners.iter().map(|owners| owners.slots.clone()).collect(),
        rest: None,
        bytes: 0,
        replayed: Replayed::default(),
    };
    if plan.threads == 0 {
        while let Some(piece) = reader.next(progress)? {
            owners[0].apply(&piece, 0)?;
        }
        return Ok(reader.replayed);
    }
    std::thread::scope(|scope| {
        let (mut inboxes, mut threads) = (Vec::new(), Vec::new());
        for (place, mut owners) in owners.into_iter().enumerate() {
            let (inbox, pieces) = sync_channel::<Arc<Piece>>(REPLAY_PIECES_WAITING_MAX);
            inboxes.push(inbox);
            threads.push(scope.spawn(move || {
                for piece in pieces {
                    owners.apply(&piece, place)?;
                }
                Ok(())
            }));
        }
        let read = reader.give_to(&inboxes, progress);
        drop(inboxes);
        for thread in threads {
            // A thread that panicked has ended the process.
            thread.join().unwrap_or(Ok(()))?;
        }
        read.map(|()| reader.replayed)
    })
}

/// A part of the log, sorted by who applies it.
#[derive(Default)]
struct Piece {
    batches: Vec<Batch>,
    shares: Vec<Share>,
    /// What the map of databases is behind it, if it changed.
    databases: Option<Databases>,
}

/// What one thread applies of a piece.
#[derive(Default)]
struct Share {
    /// Effects on keys, in order.
    found: Vec<Found>,
    /// Slots, database ids and how many keys there are.
    counts: Vec<(u16, u32, u64)>,
}

/// Where an effect on a key lies.
#[derive(Clone, Copy)]
struct Found {
    /// Of the key.
    hash: u64,
    /// Where the effect begins in its batch.
    at: usize,
    /// Place of the batch in the piece.
    batch: u32,
    slot: u16,
}

/// Reads the log piece by piece.
struct Reader<'a> {
    log: &'a mut Recovery,
    plan: Plan,
    /// Who applies which slots.
    slots: Vec<Range<u16>>,
    /// A batch that goes on behind the piece before, and where.
    rest: Option<(Batch, usize)>,
    bytes: u64,
    replayed: Replayed,
}

impl Reader<'_> {
    /// Hands all pieces to every thread; stops when one has given up.
    fn give_to(
        &mut self,
        inboxes: &[SyncSender<Arc<Piece>>],
        progress: &mut dyn FnMut(String),
    ) -> Result<(), Fatal> {
        while let Some(piece) = self.next(progress)? {
            let piece = Arc::new(piece);
            for inbox in inboxes {
                if inbox.send(piece.clone()).is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The next piece; `None` at the end of the log.
    fn next(&mut self, progress: &mut dyn FnMut(String)) -> Result<Option<Piece>, Fatal> {
        let mut piece = Piece::default();
        piece.shares.resize_with(self.slots.len(), Share::default);
        let mut bytes = 0;
        while bytes < REPLAY_PIECE_BYTES && piece.databases.is_none() {
            let (batch, from) = match self.rest.take() {
                Some(rest) => rest,
                None => match self.log.next()? {
                    Some(batch) => {
                        self.replayed.batches += 1;
                        (batch, 0)
                    }
                    None => break,
                },
            };
            let end = self.sort(&batch, from, &mut piece)?;
            bytes += end - from;
            if end < batch.payload.len() {
                self.rest = Some((batch.clone(), end));
            }
            piece.batches.push(batch);
        }
        self.bytes += bytes as u64;
        let (batches, mib) = (self.replayed.batches, self.bytes >> 20);
        progress(format!("replayed {batches} batches of the log, {mib} MiB"));
        Ok((!piece.batches.is_empty()).then_some(piece))
    }

    /// Adds what a batch has from a place on to a piece, up to where the map of databases changes.
    /// Returns the end.
    fn sort(&mut self, batch: &Batch, from: usize, piece: &mut Piece) -> Result<usize, Fatal> {
        let place = piece.batches.len() as u32;
        let mut mutations = Mutations::of(&batch.payload[from..]);
        let mut at = from;
        while let Some(mutation) = mutations.next() {
            let mutation = mutation.map_err(|error| undecodable(batch, &error))?;
            let end = batch.payload.len() - mutations.left();
            match (mutation.key(), mutation) {
                (Some((database, bytes)), _) => {
                    let key = Key::of_database(database, bytes, self.plan.seed);
                    self.share(key.slot, piece).found.push(Found {
                        hash: key.hash,
                        at,
                        batch: place,
                        slot: key.slot,
                    });
                }
                (_, Mutation::Count { slot, .. }) if slot >= SLOTS => {
                    return Err(undecodable(batch, &Undecodable("a slot")));
                }
                (
                    _,
                    Mutation::Count {
                        slot,
                        database,
                        keys,
                    },
                ) => self.share(slot, piece).counts.push((slot, database, keys)),
                (_, Mutation::Databases { ids, next }) => {
                    let map = Databases::restored(ids, next, self.plan.databases);
                    // What came before may be of databases that end here.
                    piece.databases = Some(map);
                    return Ok(end);
                }
                (_, Mutation::TokenCeiling(ceiling)) => {
                    self.replayed.token_ceiling = self.replayed.token_ceiling.max(ceiling);
                }
                _ => {}
            }
            at = end;
        }
        Ok(at)
    }

    /// Of whoever applies what belongs to a slot.
    fn share<'p>(&self, slot: u16, piece: &'p mut Piece) -> &'p mut Share {
        let place = self.slots.partition_point(|slots| slots.end <= slot);
        &mut piece.shares[place]
    }
}

/// Neighbouring keyspaces whose effects one thread applies.
struct Owners<'a> {
    keyspaces: &'a mut [Box<Keyspace>],
    /// Number of the first.
    first: usize,
    slots: Range<u16>,
    plan: Plan,
}

impl<'a> Owners<'a> {
    fn new(keyspaces: &'a mut [Box<Keyspace>], first: usize, plan: Plan) -> Owners<'a> {
        let last = first + keyspaces.len() - 1;
        Owners {
            keyspaces,
            first,
            slots: plan.routes.slots(first).start..plan.routes.slots(last).end,
            plan,
        }
    }

    /// Applies its share of a piece slot by slot: what a slot has in memory is fetched once for all
    /// its effects (applied one by one, each of them waits for memory several times). Those of one
    /// slot stay in order.
    fn apply(&mut self, piece: &Piece, place: usize) -> Result<(), Fatal> {
        let Share { found, counts } = &piece.shares[place];
        for places in by_slot(found, &self.slots).chunks(AHEAD) {
            // Effects of one slot lie far apart: the processor fetches some at the same time.
            let look = |place: &u32| {
                let Found { batch, at, .. } = found[*place as usize];
                let payload = &piece.batches[batch as usize].payload;
                payload[at] ^ payload[(at + EFFECT_BYTES).min(payload.len() - 1)]
            };
            std::hint::black_box(places.iter().map(look).fold(0, u8::wrapping_add));
            for place in places {
                let found = &found[*place as usize];
                self.apply_one(&piece.batches[found.batch as usize], found)?;
            }
        }
        for &(slot, database, keys) in counts {
            self.owner(slot).apply_count(slot, database, keys);
        }
        if let Some(databases) = &piece.databases {
            for keyspace in self.keyspaces.iter_mut() {
                keyspace.set_databases(databases.clone());
            }
        }
        Ok(())
    }

    fn apply_one(&mut self, batch: &Batch, found: &Found) -> Result<(), Fatal> {
        let effect = Mutations::of(&batch.payload[found.at..]).next();
        let effect = effect.unwrap_or(Err(Undecodable("it ends early")));
        let effect = effect.map_err(|error| undecodable(batch, &error))?;
        if let Some((database, bytes)) = effect.key() {
            let (slot, hash) = (found.slot, found.hash);
            let key = Key { bytes, slot, hash };
            self.owner(slot).apply_to(database, &key, effect);
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

fn undecodable(batch: &Batch, error: &Undecodable) -> Fatal {
    let lsn = batch.lsn;
    let text = format!("batch {lsn} of the commit log {error}; restore the folder from a backup");
    Fatal::new(text, std::path::Path::new("log"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effects_of_one_slot_stay_in_order() {
        let found: Vec<Found> = (0..5_000)
            .map(|number: usize| Found {
                hash: 0,
                at: number,
                batch: 0,
                slot: 100 + (number * 7 % 13) as u16,
            })
            .collect();
        let order = by_slot(&found, &(100..120));
        let key = |place: &u32| (found[*place as usize].slot, *place);
        assert_eq!(order.len(), found.len());
        assert!(order.windows(2).all(|pair| key(&pair[0]) < key(&pair[1])));
    }
}
