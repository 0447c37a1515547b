//! How to take back what a command wrote before it answered with a Reject.
//!
//! Always true: steps are undone in the reverse order of the writes. Each names the touch of its
//! write, which knows the key; so touches stay until all is undone. Then the turn drops those that
//! the command made (`Turn::rolled_back`).

use bytes::BytesMut;

use crate::keyspace::Field;
use crate::keyspace::key::Key;
use crate::keyspace::owned::Keyspace;
use crate::keyspace::segment::ShortText;
use crate::keyspace::turn::Touched;
use crate::keyspace::value::Value;

/// What was there before a write.
#[derive(Debug)]
pub enum Before {
    /// The whole entry, or none, with its deadline.
    Entry(Option<(Value, u64)>),
    /// The counter's number.
    Counter(i64),
    /// A short string, as long as what was written.
    Text(ShortText),
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
    /// A field of a hash.
    Field(Field),
    /// No field of this name and stored hash.
    NoField(u32, Box<[u8]>),
}

#[derive(Debug)]
struct Step {
    touched: Touched,
    before: Before,
}

/// The steps of one command in one keyspace.
#[derive(Debug, Default)]
pub struct Undo {
    steps: Vec<Step>,
}

/// Steps whose memory stays allocated between commands.
const STEPS_KEPT_MAX: usize = 1024;

impl Undo {
    /// Notes what was there before a write.
    pub fn push(&mut self, touched: Touched, before: Before) {
        self.steps.push(Step { touched, before });
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Memory, in bytes.
    pub fn bytes(&self) -> usize {
        self.steps.capacity() * size_of::<Step>()
    }

    /// The writes stay.
    pub fn clear(&mut self) {
        self.steps.clear();
        self.steps.shrink_to(STEPS_KEPT_MAX);
    }

    /// Takes every write back; `keyspace` is the one that they were made in.
    pub fn undo(&mut self, keyspace: &mut Keyspace) {
        while let Some(step) = self.steps.pop() {
            let (database, key) = keyspace.turn.touched(step.touched);
            let bytes = key.bytes.to_vec();
            let key = Key {
                bytes: &bytes,
                ..key
            };
            step.before.restore(keyspace, database, &key);
        }
    }
}

impl Before {
    fn restore(self, keyspace: &mut Keyspace, database: u32, key: &Key<'_>) {
        match self {
            Before::Entry(Some((value, deadline_ms))) => {
                let generation = match &value {
                    Value::Hash(hash) => Some(hash.generation()),
                    _ => None,
                };
                let (gone, _) = keyspace.put(database, key, None, value, deadline_ms);
                never_was(keyspace, gone, generation);
                if let Some(generation) = generation {
                    keyspace.unretire(generation);
                }
            }
            Before::Entry(None) => {
                let gone = keyspace.remove(database, key);
                never_was(keyspace, gone.map(|(gone, _)| gone), None);
            }
            Before::Counter(number) => {
                keyspace
                    .tables
                    .update_counter(database, key, |value, _| *value = number);
            }
            Before::Text(text) => {
                if let Some(spot) = keyspace.tables.spot(database, key) {
                    keyspace.tables.replace_text_at(spot, &text);
                }
            }
            Before::Deadline(deadline_ms) => {
                keyspace.set_deadline(database, key, deadline_ms);
            }
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
            Before::Field(field) => {
                if let Some(mut fields) = keyspace.tables.hash_mut(database, key) {
                    let (value, expires_at_ms) = (field.value.clone(), field.expires_at_ms);
                    fields.insert(field.hash, field.name(), value, expires_at_ms);
                }
            }
            Before::NoField(hash, name) => {
                if let Some(mut fields) = keyspace.tables.hash_mut(database, key) {
                    fields.remove(hash, &name);
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
    fn what_was_overwritten_in_place_comes_back() {
        let mut t = Transcript::new();
        t.check("SET text abc EX 100", "OK");
        t.check("SET number 7", "OK");
        let mut txn = Txn::new(Owners::One(t.keyspace()), 0);
        let (text, number) = (txn.key(b"text"), txn.key(b"number"));
        let deadline_ms = txn.deadline_ms(&text).expect("it was set");
        txn.put_text(&text, b"def", deadline_ms);
        txn.put_text(&number, b"8", 0);
        txn.put_text(&text, b"ghi", deadline_ms);
        txn.roll_back();
        t.check("GET text", "\"abc\"");
        t.check("TTL text", "(integer) 100");
        t.check("GET number", "\"7\"");
    }

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
