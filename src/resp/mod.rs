//! The Redis protocol: requests in (`decode`), replies as bytes out (`encode`, and `crate::reply`
//! for commands). This module knows bytes and framing, and no command.
//!
//! Always true here: nothing that arrives can panic, and no length that a client claims is
//! believed before the bytes are there.

mod args;
pub mod decode;
pub mod encode;
mod inline;
pub mod pipeline;
pub mod value;

/// The version of the protocol that a connection chose with `HELLO`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// The default of a new connection.
    #[default]
    Resp2,
    /// Maps, sets, doubles, booleans and one null have types of their own.
    Resp3,
}

impl Protocol {
    /// 2 or 3.
    pub fn version(self) -> i64 {
        match self {
            Protocol::Resp2 => 2,
            Protocol::Resp3 => 3,
        }
    }
}
