//! Replies as a tree, for tests and tools.

use crate::resp::encode::Malformed;

/// A reply.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Simple(Vec<u8>),
    Error(Vec<u8>),
    Integer(i64),
    Bulk(Vec<u8>),
    Null,
    Array(Vec<Value>),
    Map(Vec<(Value, Value)>),
    Set(Vec<Value>),
    Push(Vec<Value>),
    /// The text behind the `,`.
    Double(String),
    Boolean(bool),
    Verbatim([u8; 3], Vec<u8>),
    BigNumber(String),
}

impl Value {
    /// Reads one reply; `Ok(None)` if it is not complete, else the value and its length in bytes.
    pub fn parse(buffer: &[u8]) -> Result<Option<(Value, usize)>, Malformed> {
        let _ = buffer;
        todo!()
    }

    /// As `redis-cli --no-raw` prints it, the last line feed included.
    pub fn render(&self) -> String {
        todo!()
    }
}
