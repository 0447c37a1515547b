//! One field of a hash. Short names and values lie in the field itself, large values are shared.
//! A value that is the canonical decimal of an i64 is always a counter, as with keys.

use bytes::Bytes;

use super::hold::Hold;
use super::parse_counter;

/// Longest text that lies in a field.
const SHORT_BYTES_MAX: usize = 22;
/// Bytes of a counter, and of a hold with its ten numbers, in the log at most.
const COUNTER_LOGGED_BYTES: usize = 10;
const HOLD_LOGGED_BYTES: usize = 104;

/// The value of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldValue(ValueForm);

#[derive(Clone, Debug, PartialEq, Eq)]
enum ValueForm {
    Counter(i64),
    Short(Short),
    Long(Box<Bytes>),
    Hold(Box<Record>),
}

/// A hold of credits, and the text that its field shows.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    hold: Hold,
    text: Bytes,
}

/// One field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its hash (`key::field_hash32`).
    pub hash: u32,
    /// When it is deleted, in milliseconds since the Unix epoch; 0: never.
    pub expires_at_ms: u64,
    /// Its value.
    pub value: FieldValue,
    name: Name,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Name {
    Short(Short),
    Long(Box<[u8]>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Short {
    len: u8,
    bytes: [u8; SHORT_BYTES_MAX],
}

const _: () = assert!(size_of::<Field>() == 64, "a field is one cache line");

impl FieldValue {
    /// The string `bytes`: a counter if it is a canonical decimal, otherwise a copy.
    pub fn from_bytes(bytes: &[u8]) -> FieldValue {
        match (parse_counter(bytes), Short::new(bytes)) {
            (Some(counter), _) => FieldValue::from_counter(counter),
            (None, Some(short)) => FieldValue(ValueForm::Short(short)),
            (None, None) => FieldValue(ValueForm::Long(Box::new(Bytes::copy_from_slice(bytes)))),
        }
    }

    /// The string `bytes`, without copying a long one.
    pub fn from_shared(bytes: Bytes) -> FieldValue {
        match bytes.len() {
            0..=SHORT_BYTES_MAX => FieldValue::from_bytes(&bytes),
            _ => FieldValue(ValueForm::Long(Box::new(bytes))),
        }
    }

    /// A counter.
    pub fn from_counter(counter: i64) -> FieldValue {
        FieldValue(ValueForm::Counter(counter))
    }

    /// A hold of credits, open or ended.
    pub fn from_hold(hold: Hold) -> FieldValue {
        let text = Bytes::from(hold.text());
        FieldValue(ValueForm::Hold(Box::new(Record { hold, text })))
    }

    /// The hold of credits, if it is one, open or ended.
    pub fn hold(&self) -> Option<&Hold> {
        match &self.0 {
            ValueForm::Hold(record) => Some(&record.hold),
            _ => None,
        }
    }

    /// The hold of credits, if it is one and open.
    pub fn open_hold(&self) -> Option<&Hold> {
        self.hold().filter(|hold| hold.end.is_none())
    }

    /// When something has to happen to a field with this value that is deleted at
    /// `expires_at_ms` (0: never): that, or an open hold ends; 0: never.
    pub fn due_ms(&self, expires_at_ms: u64) -> u64 {
        let hold_ms = self.open_hold().map_or(0, |hold| hold.deadline_ms);
        match (expires_at_ms, hold_ms) {
            (0, due_ms) | (due_ms, 0) => due_ms,
            (expires_at_ms, hold_ms) => expires_at_ms.min(hold_ms),
        }
    }

    /// The integer, if the value is the canonical decimal of one.
    pub fn counter(&self) -> Option<i64> {
        match self.0 {
            ValueForm::Counter(counter) => Some(counter),
            _ => None,
        }
    }

    /// The string, unless it is a counter.
    pub fn text(&self) -> Option<&[u8]> {
        match &self.0 {
            ValueForm::Counter(_) => None,
            ValueForm::Short(short) => Some(short.get()),
            ValueForm::Long(bytes) => Some(bytes),
            ValueForm::Hold(record) => Some(&record.text),
        }
    }

    /// The value as a string, shared when it is long.
    pub fn to_bytes(&self) -> Bytes {
        match &self.0 {
            ValueForm::Counter(counter) => {
                Bytes::copy_from_slice(itoa::Buffer::new().format(*counter).as_bytes())
            }
            ValueForm::Short(short) => Bytes::copy_from_slice(short.get()),
            ValueForm::Long(bytes) => Bytes::clone(bytes),
            ValueForm::Hold(record) => record.text.clone(),
        }
    }

    /// Bytes that the value takes in the log at most.
    pub(super) fn logged_bytes(&self) -> usize {
        match &self.0 {
            ValueForm::Counter(_) => COUNTER_LOGGED_BYTES,
            ValueForm::Short(short) => short.get().len(),
            ValueForm::Long(bytes) => bytes.len(),
            ValueForm::Hold(_) => HOLD_LOGGED_BYTES,
        }
    }

    fn heap_bytes(&self) -> usize {
        match &self.0 {
            ValueForm::Long(bytes) => size_of::<Bytes>() + bytes.len(),
            ValueForm::Hold(record) => size_of::<Record>() + record.text.len(),
            _ => 0,
        }
    }
}

impl Field {
    /// A field; `hash` is that of `name`.
    pub(super) fn new(hash: u32, name: &[u8], value: FieldValue, expires_at_ms: u64) -> Field {
        let name = match Short::new(name) {
            Some(short) => Name::Short(short),
            None => Name::Long(name.into()),
        };
        Field {
            hash,
            expires_at_ms,
            value,
            name,
        }
    }

    /// Its name.
    pub fn name(&self) -> &[u8] {
        match &self.name {
            Name::Short(short) => short.get(),
            Name::Long(bytes) => bytes,
        }
    }

    /// When something has to happen to it; 0: never. The field is deleted or, earlier, an open hold
    /// ends.
    pub fn due_ms(&self) -> u64 {
        self.value.due_ms(self.expires_at_ms)
    }

    /// Heap bytes behind the field.
    pub(super) fn heap_bytes(&self) -> usize {
        let name = match &self.name {
            Name::Short(_) => 0,
            Name::Long(bytes) => bytes.len(),
        };
        name + self.value.heap_bytes()
    }
}

impl Short {
    fn new(text: &[u8]) -> Option<Short> {
        let mut bytes = [0; SHORT_BYTES_MAX];
        bytes.get_mut(..text.len())?.copy_from_slice(text);
        Some(Short {
            len: text.len() as u8,
            bytes,
        })
    }

    fn get(&self) -> &[u8] {
        &self.bytes[..self.len as usize]
    }
}
