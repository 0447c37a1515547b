//! How to take back what a command wrote before it answered with a Reject.
//!
//! Always true: steps are undone in the reverse order of the writes. What the command touched first
//! in its turn is not logged then (`Turn::rolled_back`); other touches stay, for they only say where
//! to look.

use bytes::BytesMut;

use crate::keyspace::Field;
use crate::keyspace::key::Key;
use crate::keyspace::owned::Keyspace;
use crate::keyspace::txn::Owners;
use crate::keyspace::value::Value;

/// What was there before a write.
#[derive(Debug)]
pub enum Before {
    /// The whole entry, or none, with its deadline.
    Entry(Option<(Value, u64)>),
    /// The counter's number.
    Counter(i64),
    /// The deadline.
    Deadline(u64),
    /// The bytes of a string from an offset on, and its length.
    Part {
        /// Offset of the bytes.
        offset: usize,
        /// What was overwritten.
        bytes: Box<[u8]>,
        /// Length of the string.
        total: usize,
    },
    /// A field of a hash, or none.
    Field {
        /// Its name.
        name: Box<[u8]>,
        /// Its stored hash.
        hash: u32,
        /// What was there.
        field: Option<Field>,
    },
}

#[derive(Debug)]
struct Step {
    database: u32,
    slot: u16,
    hash: u64,
    key: (u32, u32),
    before: Before,
}

/// The steps of one command.
#[derive(Debug, Default)]
pub struct Undo {
    steps: Vec<Step>,
    keys: Vec<u8>,
}

/// Memory that stays allocated between commands: steps, and bytes of keys.
const STEPS_KEPT_MAX: usize = 1024;
const KEY_BYTES_KEPT_MAX: usize = 1 << 20;

impl Undo {
    /// Notes what was at `key` before a write.
    pub fn push(&mut self, database: u32, key: &Key<'_>, before: Before) {
        let last = self.steps.last().map(|step| step.key);
        let key_range = match last {
            // Many fields of one hash name it once.
            Some(range) if slice(&self.keys, range) == key.bytes => range,
            _ => {
                let start = self.keys.len() as u32;
                self.keys.extend_from_slice(key.bytes);
                (start, key.bytes.len() as u32)
            }
        };
        self.steps.push(Step {
            database,
            slot: key.slot,
            hash: key.hash,
            key: key_range,
            before,
        });
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Memory, in bytes.
    pub fn bytes(&self) -> usize {
        self.steps.capacity() * size_of::<Step>() + self.keys.capacity()
    }

    /// The writes stay.
    pub fn clear(&mut self) {
        self.steps.clear();
        self.steps.shrink_to(STEPS_KEPT_MAX);
        self.keys.clear();
        self.keys.shrink_to(KEY_BYTES_KEPT_MAX);
    }

    /// Takes every write back in `owners`.
    pub fn undo(&mut self, owners: &mut Owners<'_>) {
        while let Some(step) = self.steps.pop() {
            let bytes = slice(&self.keys, step.key);
            let key = Key {
                bytes,
                slot: step.slot,
                hash: step.hash,
            };
            step.before
                .restore(owners.of(step.slot), step.database, &key);
        }
        self.keys.clear();
    }
}

fn slice(keys: &[u8], (start, length): (u32, u32)) -> &[u8] {
    &keys[start as usize..(start + length) as usize]
}

impl Before {
    fn restore(self, keyspace: &mut Keyspace, database: u32, key: &Key<'_>) {
        match self {
            Before::Entry(Some((value, deadline_ms))) => {
                let generation = match &value {
                    Value::Hash(hash) => Some(hash.generation()),
                    _ => None,
                };
                let gone = keyspace.put(database, key, value, deadline_ms);
                never_was(keyspace, gone, generation);
                if let Some(generation) = generation {
                    keyspace.unretire(generation);
                }
            }
            Before::Entry(None) => {
                let gone = keyspace.remove(database, key);
                never_was(keyspace, gone, None);
            }
            Before::Counter(number) => {
                keyspace
                    .tables
                    .update_counter(database, key, |value, _| *value = number);
            }
            Before::Deadline(deadline_ms) => keyspace.set_deadline(database, key, deadline_ms),
            Before::Part {
                offset,
                bytes,
                total,
            } => {
                keyspace
                    .tables
                    .edit_string(database, key, |string: &mut BytesMut| {
                        string.truncate(total);
                        string[offset..offset + bytes.len()].copy_from_slice(&bytes);
                    });
            }
            Before::Field { name, hash, field } => {
                if let Some(mut fields) = keyspace.tables.hash_mut(database, key) {
                    match field {
                        Some(field) => {
                            fields.insert(hash, &name, field.value, field.expires_at_ms);
                        }
                        None => {
                            fields.remove(hash, &name);
                        }
                    }
                }
            }
        }
    }
}

/// A hash that the command made is gone again, unless it is the one that lives on: no store has
/// fields of it.
fn never_was(keyspace: &mut Keyspace, gone: Option<(Value, u64)>, lives_on: Option<u64>) {
    if let Some((Value::Hash(hash), _)) = gone
        && lives_on != Some(hash.generation())
    {
        keyspace.unretire(hash.generation());
    }
}

#[cfg(test)]
mod tests {
    use crate::command::transcript::Transcript;
    use crate::keyspace::txn::{Owners, Txn};
    use crate::keyspace::{FieldValue, Hash, Value};

    #[test]
    fn a_hash_that_never_was_leaves_nothing_to_tidy_up() {
        let mut t = Transcript::new();
        t.make_hash("old");
        t.check("SET text 1", "OK");
        t.keyspace().take_retired();
        let mut txn = Txn::new(Owners::One(t.keyspace()), 0);
        let (old, new) = (txn.key(b"old"), txn.key(b"new"));
        let value = || FieldValue::from_bytes(b"value");
        txn.put_text(&old, b"text", 0);
        for key in [&new, &old] {
            txn.delete(key);
            txn.put_field(key, b"field", value(), 0).expect("a hash");
            txn.delete(key);
            txn.put_field(key, b"field", value(), 0).expect("a hash");
        }
        let text = txn.key(b"text");
        let hash = Box::new(Hash::new(u64::MAX));
        txn.put(&text, Value::Hash(hash), 0);
        txn.roll_back();
        assert_eq!(t.keyspace().take_retired(), []);
        t.check("HGETALL old", "1) \"field\"\n2) \"value\"");
        t.check("DEL old new text", "(integer) 2");
        assert_eq!(t.keyspace().take_retired().len(), 1);
    }
}
