//! A state cell: a string with a token, an owner and a fingerprint. The rules that change it are
//! the commands'; here it is a plain record. Its deadline is its entry's.

use bytes::Bytes;

/// What SETIFIDLE and SETSTATE leave behind in a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// The fencing token: positive, below 2^53, never used twice.
    pub token: u64,
    /// Who holds it (a request id), if the holder said so.
    pub owner: Option<Bytes>,
    /// What the holder works on, if the holder said so.
    pub fingerprint: Option<Bytes>,
    /// True once SETIDLE left a result: `state` is the result, and is never idle.
    pub done: bool,
    /// The state, or the kept result. What GET sees.
    pub state: Bytes,
}

impl Cell {
    /// Heap bytes behind the record, without the record itself.
    pub fn heap_bytes(&self) -> usize {
        let optional = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        self.state.len() + optional(&self.owner) + optional(&self.fingerprint)
    }
}
