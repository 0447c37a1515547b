//! The values that a key can have, owned and borrowed. A string that is the canonical decimal of
//! an i64 is always a `Counter`, so that one string has one form in memory, log and store.

use bytes::Bytes;

use super::{Cell, Hash};

/// Most bytes of a canonical decimal: "-9223372036854775808".
const COUNTER_TEXT_BYTES_MAX: usize = 20;

/// An owned value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A string that is the canonical decimal of an i64.
    Counter(i64),
    /// Any other string; shared, not copied, when it is large.
    String(Bytes),
    /// A string with a token.
    Cell(Box<Cell>),
    /// Fields and their values; never empty in the table.
    Hash(Box<Hash>),
}

/// A value as it lies in the table.
#[derive(Clone, Copy, Debug)]
pub enum ValueRef<'a> {
    /// A string that is the canonical decimal of an i64.
    Counter(i64),
    /// Any other string.
    String(&'a [u8]),
    /// A string with a token.
    Cell(&'a Cell),
    /// Fields and their values.
    Hash(&'a Hash),
}

/// Which form a value has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// See [`Value::Counter`].
    Counter,
    /// See [`Value::String`].
    String,
    /// See [`Value::Cell`].
    Cell,
    /// See [`Value::Hash`].
    Hash,
}

impl Value {
    /// The string `bytes` as a value: a counter if it is canonical, otherwise a copy.
    pub fn from_bytes(bytes: &[u8]) -> Value {
        match parse_counter(bytes) {
            Some(counter) => Value::Counter(counter),
            None => Value::String(Bytes::copy_from_slice(bytes)),
        }
    }

    /// The string `bytes` as a value, without copying it.
    pub fn from_shared(bytes: Bytes) -> Value {
        match parse_counter(&bytes) {
            Some(counter) => Value::Counter(counter),
            None => Value::String(bytes),
        }
    }

    /// The value, borrowed.
    pub fn borrow(&self) -> ValueRef<'_> {
        match self {
            Value::Counter(counter) => ValueRef::Counter(*counter),
            Value::String(bytes) => ValueRef::String(bytes),
            Value::Cell(cell) => ValueRef::Cell(cell),
            Value::Hash(hash) => ValueRef::Hash(hash),
        }
    }

    /// Which form it has.
    pub fn kind(&self) -> Kind {
        self.borrow().kind()
    }

    /// Heap bytes behind the value, without the `Value` itself.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Value::Counter(_) => 0,
            Value::String(bytes) => bytes.len(),
            Value::Cell(cell) => size_of::<Cell>() + cell.heap_bytes(),
            Value::Hash(hash) => size_of::<Hash>() + hash.heap_bytes(),
        }
    }
}

impl ValueRef<'_> {
    /// Which form it has.
    pub fn kind(&self) -> Kind {
        match self {
            ValueRef::Counter(_) => Kind::Counter,
            ValueRef::String(_) => Kind::String,
            ValueRef::Cell(_) => Kind::Cell,
            ValueRef::Hash(_) => Kind::Hash,
        }
    }
}

/// The i64 whose canonical decimal `text` is (Redis's `string2ll`): no plus, no leading zero, no
/// "-0", no space.
pub fn parse_counter(text: &[u8]) -> Option<i64> {
    if text.is_empty() || text.len() > COUNTER_TEXT_BYTES_MAX {
        return None;
    }
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [] => return None,
        [b'0'] => return (!negative).then_some(0),
        [b'1'..=b'9', ..] => {}
        _ => return None,
    }
    // Summed below zero, because i64::MIN has no positive counterpart.
    let mut sum: i64 = 0;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        sum = sum.checked_mul(10)?.checked_sub(i64::from(digit - b'0'))?;
    }
    if negative {
        Some(sum)
    } else {
        sum.checked_neg()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_decimals_are_counters() {
        for text in [
            "0",
            "1",
            "-1",
            "10",
            "9223372036854775807",
            "-9223372036854775808",
        ] {
            assert_eq!(parse_counter(text.as_bytes()), text.parse().ok(), "{text}");
        }
        let others = [
            "",
            "-",
            "-0",
            "+1",
            "01",
            "-01",
            " 1",
            "1 ",
            "1a",
            "9223372036854775808",
        ];
        for text in others
            .iter()
            .chain(&["-9223372036854775809", "100000000000000000000"])
        {
            assert_eq!(parse_counter(text.as_bytes()), None, "{text}");
        }
    }
}
