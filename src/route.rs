//! From keys to shards: which shard owns a slot, which shards a call needs, and how the parts of a
//! fan-out become one reply.
//!
//! Always true: a shard owns a contiguous range of slots; every slot has one owner.

use std::ops::Range;

use crate::command::Row;
use crate::command::spec::{Across, Keys};
use crate::keyspace::key_slot;
use crate::limits::{KEY_BYTES_MAX, SLOTS};
use crate::number::parse_u64;
use crate::reply::Reject;
use crate::resp::Protocol;
use crate::resp::decode::{Args, OwnedArgs};

/// The division of slots among shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Routes {
    shards: usize,
}

/// A set of shards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardSet {
    /// Ascending, each once.
    ids: Vec<usize>,
}

impl ShardSet {
    /// Adds a shard.
    pub fn add(&mut self, id: usize) {
        if let Err(place) = self.ids.binary_search(&id) {
            self.ids.insert(place, id);
        }
    }

    /// The shards, ascending.
    pub fn ids(&self) -> &[usize] {
        &self.ids
    }
}

/// What a call needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// No shard in particular.
    Nothing,
    /// This shard.
    One(usize),
    /// Several shards.
    Several(ShardSet),
}

impl Routes {
    /// Slots divided among `shards` shards.
    pub fn new(shards: usize) -> Routes {
        assert!(
            shards > 0 && shards <= SLOTS as usize,
            "between 1 and {SLOTS} shards"
        );
        Routes { shards }
    }

    /// Number of shards.
    pub fn shards(self) -> usize {
        self.shards
    }

    /// The owner of a slot.
    pub fn of_slot(self, slot: u16) -> usize {
        slot as usize * self.shards / SLOTS as usize
    }

    /// The owner of a key.
    pub fn of_key(self, key: &[u8]) -> usize {
        if self.shards == 1 {
            0
        } else {
            self.of_slot(key_slot(key))
        }
    }

    /// The slots of a shard.
    pub fn slots(self, shard: usize) -> Range<u16> {
        let bound = |shard: usize| (shard * SLOTS as usize).div_ceil(self.shards) as u16;
        bound(shard)..bound(shard + 1)
    }

    /// All shards.
    pub fn all(self) -> ShardSet {
        ShardSet {
            ids: (0..self.shards).collect(),
        }
    }

    /// Which shards a call needs.
    ///
    /// # Errors
    /// A key that is too long, a wrong number of keys, a cursor that is no number.
    pub fn need(self, row: &Row, args: Args<'_>) -> Result<Need, Reject> {
        match row.spec.keys {
            Keys::None => return Ok(Need::Nothing),
            Keys::All => {
                return Ok(if self.shards == 1 {
                    Need::One(0)
                } else {
                    Need::Several(self.all())
                });
            }
            Keys::Cursor(place) => {
                let cursor = parse_u64(args.get(place as usize)).ok_or(Reject::invalid_cursor())?;
                let slot = ((cursor >> 32) as u16).min(SLOTS - 1);
                return Ok(Need::One(self.of_slot(slot)));
            }
            Keys::Range { first, last, .. } if last == first as i32 => {
                // One key, as most commands have; a row is chosen by its arity.
                return match args.try_get(first as usize) {
                    None => Ok(Need::Nothing),
                    Some(key) if key.len() > KEY_BYTES_MAX => Err(Reject::key_too_long()),
                    Some(key) => Ok(Need::One(self.of_key(key))),
                };
            }
            Keys::Range { .. } | Keys::Counted { .. } => {}
        }
        let places = row.key_places(args)?;
        let mut first = None;
        let mut several: Option<ShardSet> = None;
        for key in places.each(args) {
            if key.len() > KEY_BYTES_MAX {
                return Err(Reject::key_too_long());
            }
            let shard = self.of_key(key);
            match (first, &mut several) {
                (None, _) => first = Some(shard),
                (Some(_), Some(set)) => set.add(shard),
                (Some(known), None) if known != shard => {
                    let mut set = ShardSet::default();
                    set.add(known);
                    set.add(shard);
                    several = Some(set);
                }
                _ => {}
            }
        }
        Ok(match (first, several) {
            (_, Some(set)) => Need::Several(set),
            (Some(shard), None) => Need::One(shard),
            (None, None) => Need::Nothing,
        })
    }

    /// The parts of a fan-out: for each shard the call with its keys alone, and for each of those
    /// keys its place among all.
    pub fn parts(self, row: &Row, args: Args<'_>, shards: &ShardSet) -> Vec<Part> {
        let places = row.key_places(args).unwrap_or_default();
        if places.count == 0 {
            let whole = OwnedArgs::from_slices(args.iter());
            let part = |&shard: &usize| Part {
                shard,
                args: whole.clone(),
                keys: Vec::new(),
            };
            return shards.ids().iter().map(part).collect();
        }
        let head: Vec<&[u8]> = (0..places.first as usize)
            .map(|index| args.get(index))
            .collect();
        let ids = shards.ids().iter();
        let mut split: Vec<_> = ids
            .map(|&shard| (shard, head.clone(), Vec::new()))
            .collect();
        for (index, key) in places.each(args).enumerate() {
            let shard = self.of_key(key);
            if let Some((_, words, keys)) = split.iter_mut().find(|(id, ..)| *id == shard) {
                let first = (places.first + index as u32 * places.step) as usize;
                words.extend((first..first + places.step as usize).map(|place| args.get(place)));
                keys.push(index as u32);
            }
        }
        split
            .into_iter()
            .map(|(shard, words, keys)| Part {
                shard,
                args: OwnedArgs::from_slices(words),
                keys,
            })
            .collect()
    }
}

/// One shard's part of a fan-out.
#[derive(Clone, Debug)]
pub struct Part {
    /// The shard.
    pub shard: usize,
    /// The call with this shard's keys.
    pub args: OwnedArgs,
    /// Places of its keys among all.
    pub keys: Vec<u32>,
}

/// Joins the parts' replies into one. `parts`: places of the keys and reply of each; `choice` is a
/// random number.
pub fn merge(
    across: Across,
    parts: &[(Vec<u32>, Vec<u8>)],
    protocol: Protocol,
    choice: u64,
    out: &mut Vec<u8>,
) {
    // Any part that is an error is the reply.
    if let Some((_, error)) = parts.iter().find(|(_, reply)| reply.first() == Some(&b'-')) {
        out.extend_from_slice(error);
        return;
    }
    let mut reply = crate::reply::Reply::new(out, protocol);
    match across {
        Across::Sum => {
            let integers = parts.iter().filter_map(|(_, reply)| integer_line(reply));
            reply.integer(integers.sum());
        }
        Across::Concat => {
            let split: Vec<_> = parts.iter().map(|(_, reply)| elements(reply)).collect();
            reply.array(split.iter().map(Vec::len).sum());
            for element in split.iter().flatten() {
                reply.raw(element);
            }
        }
        Across::Interleave => {
            let mut placed: Vec<(u32, &[u8])> = Vec::new();
            for (keys, reply) in parts {
                placed.extend(keys.iter().copied().zip(elements(reply)));
            }
            placed.sort_unstable_by_key(|(place, _)| *place);
            reply.array(placed.len());
            for (_, element) in placed {
                reply.raw(element);
            }
        }
        Across::AnyOne | Across::Atomic => {
            let null = |reply: &[u8]| reply.starts_with(b"_") || reply.starts_with(b"$-1");
            let some: Vec<_> = parts.iter().filter(|(_, reply)| !null(reply)).collect();
            match some.get(choice as usize % some.len().max(1)) {
                Some((_, chosen)) => reply.raw(chosen),
                None => reply.null(),
            }
        }
    }
}

fn integer_line(reply: &[u8]) -> Option<i64> {
    let digits = reply.strip_prefix(b":")?.strip_suffix(b"\r\n")?;
    crate::number::parse_i64(digits)
}

/// The elements of an encoded array of bulk strings and nulls, each with its head.
fn elements(reply: &[u8]) -> Vec<&[u8]> {
    let mut elements = Vec::new();
    let Some(head) = memchr::memchr(b'\n', reply) else {
        return elements;
    };
    let mut rest = &reply[head + 1..];
    while let Some(line) = memchr::memchr(b'\n', rest) {
        let length = match rest.first() {
            Some(b'$') => {
                crate::number::parse_i64(&rest[1..line - 1]).filter(|length| *length >= 0)
            }
            _ => None,
        };
        let end = match length {
            Some(length) => line + 1 + length as usize + 2,
            None => line + 1,
        };
        elements.push(&rest[..end.min(rest.len())]);
        rest = &rest[end.min(rest.len())..];
    }
    elements
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_has_the_owner_whose_range_contains_it() {
        for shards in [1, 2, 3, 5, 7, 16, 255] {
            let routes = Routes::new(shards);
            for slot in 0..SLOTS {
                let owner = routes.of_slot(slot);
                assert!(
                    routes.slots(owner).contains(&slot),
                    "{shards} shards, slot {slot}"
                );
            }
            assert_eq!(routes.slots(0).start, 0);
            assert_eq!(routes.slots(shards - 1).end, SLOTS);
        }
    }

    #[test]
    fn interleaved_parts_go_back_to_their_places() {
        let parts = vec![
            (vec![0, 2], b"*2\r\n$1\r\na\r\n$-1\r\n".to_vec()),
            (vec![1], b"*1\r\n$3\r\nb\r\n\r\n".to_vec()),
        ];
        let mut out = Vec::new();
        merge(Across::Interleave, &parts, Protocol::Resp2, 0, &mut out);
        assert_eq!(out, b"*3\r\n$1\r\na\r\n$3\r\nb\r\n\r\n$-1\r\n");
    }
}
