//! Requests from bytes: a resumable decoder that copies nothing.
//!
//! A request is a flat list of byte ranges in the connection's read buffer. The decoder keeps its
//! place, so that a request that arrives in many reads is scanned once. Redis's protocol error
//! texts are used where Redis has one; where Redis is careless (it skips two bytes after an
//! argument without looking) the request is refused.
//!
//! Always true here: a range lies inside the bytes that were passed in; memory for ranges grows
//! with the bytes that arrived, not with the count that was claimed; the result does not depend on
//! where the reads split the bytes.

use std::borrow::Cow;
use std::ops::RangeFrom;

use memchr::memchr;
use smallvec::SmallVec;

use crate::limits::{
    ARGS_KEPT_MAX, INLINE_BYTES_MAX, REQUEST_BYTES_MAX, UNAUTHENTICATED_ARGS_MAX,
    UNAUTHENTICATED_BULK_BYTES_MAX,
};
use crate::number::parse_i64;
use crate::resp::inline;

/// What a request may ask for. Made anew when the configuration or the authentication changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Most arguments of a request, the command's name included.
    pub args_max: usize,
    /// Most bytes of one argument.
    pub bulk_bytes_max: usize,
    /// Most bytes of a request, framing included; at most `REQUEST_BYTES_MAX`.
    pub request_bytes_max: usize,
    /// False until a required authentication succeeded: then Redis's small limits hold.
    pub authenticated: bool,
}

/// Start (inclusive) and end (exclusive) of an argument, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range32 {
    /// First byte.
    pub start: u32,
    /// One behind the last byte.
    pub end: u32,
}

/// What `Decoder::decode` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// The request is not complete: call again with the same bytes and more behind them.
    Incomplete {
        /// At least so many more bytes are needed; never 0.
        want: usize,
    },
    /// A request with at least one argument; see `Decoder::args`.
    Request {
        /// Its length in bytes; the next request begins behind it.
        consumed: usize,
    },
    /// `*0`, `*-1` or an empty line: to be skipped, no reply.
    Empty {
        /// Bytes to skip.
        consumed: usize,
    },
}

/// The bytes are no request. The connection answers with `-ERR {text}` and closes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtocolError {
    text: Cow<'static, str>,
}

impl ProtocolError {
    pub(crate) const fn new(text: &'static str) -> Self {
        ProtocolError {
            text: Cow::Borrowed(text),
        }
    }

    /// The text without the code word, as in `Protocol error: invalid bulk length`. No CR or LF.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl std::fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for ProtocolError {}

/// Reads the requests of one connection.
#[derive(Debug, Default)]
pub struct Decoder {
    ranges: Vec<Range32>,
    /// Rewritten arguments of an inline command with quotes; the ranges then point here.
    unquoted: Vec<u8>,
    in_unquoted: bool,
    progress: Progress,
}

/// How far the request in progress was read. Positions count from its first byte.
#[derive(Clone, Copy, Debug, Default)]
enum Progress {
    /// Nothing was decided, not even which kind of request it is.
    #[default]
    Start,
    /// No line feed in the first `scanned` bytes.
    Inline { scanned: usize },
    /// No carriage return between the `*` and `scanned`.
    Count { scanned: usize },
    /// `remaining` arguments are missing; the next header starts at `at` and has no carriage
    /// return before `scanned`.
    Header {
        remaining: usize,
        at: usize,
        scanned: usize,
    },
    /// As above, but the header was read: the argument's bytes are `start..start + len`.
    Body {
        remaining: usize,
        start: usize,
        len: usize,
    },
}

impl Decoder {
    /// A decoder that stands before a request.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads one request. `buffer` begins with the first byte of the request: after `Incomplete`,
    /// the same bytes again with more behind them; otherwise what follows the consumed bytes.
    ///
    /// After an error the stream has no meaning any more, and the decoder must not be used again.
    pub fn decode(
        &mut self,
        buffer: &[u8],
        limits: &DecodeLimits,
    ) -> Result<Decoded, ProtocolError> {
        let _ = (buffer, limits);
        todo!()
    }

    /// The arguments of the request that `decode` found last, until it is called again. `buffer`
    /// is the one that `decode` was given (bytes may have been added behind it).
    #[inline]
    pub fn args<'a>(&'a self, buffer: &'a [u8]) -> Args<'a> {
        let bytes = if self.in_unquoted {
            &self.unquoted[..]
        } else {
            buffer
        };
        Args {
            bytes,
            ranges: &self.ranges,
        }
    }
}

/// The arguments of a request, borrowed: bytes and the ranges in them. The first is the name.
#[derive(Clone, Copy)]
pub struct Args<'a> {
    bytes: &'a [u8],
    ranges: &'a [Range32],
}

impl<'a> Args<'a> {
    /// How many there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Argument `index`. Panics if there are not so many: the table checks the arity before.
    #[inline]
    pub fn get(&self, index: usize) -> &'a [u8] {
        let range = self.ranges[index];
        &self.bytes[range.start as usize..range.end as usize]
    }

    /// Argument `index`, if there is one.
    #[inline]
    pub fn try_get(&self, index: usize) -> Option<&'a [u8]> {
        let range = self.ranges.get(index)?;
        Some(&self.bytes[range.start as usize..range.end as usize])
    }

    /// The arguments from `from.start` on; none if there are not so many.
    #[inline]
    pub fn slice(&self, from: RangeFrom<usize>) -> Args<'a> {
        let ranges = self.ranges.get(from).unwrap_or(&[]);
        Args {
            bytes: self.bytes,
            ranges,
        }
    }

    /// All arguments in order.
    #[inline]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + DoubleEndedIterator + use<'a> {
        let bytes = self.bytes;
        self.ranges
            .iter()
            .map(move |range| &bytes[range.start as usize..range.end as usize])
    }

    /// The sum of the arguments' lengths, in bytes.
    pub fn bytes_total(&self) -> usize {
        self.ranges
            .iter()
            .map(|range| (range.end - range.start) as usize)
            .sum()
    }
}

impl std::fmt::Debug for Args<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.iter().map(String::from_utf8_lossy))
            .finish()
    }
}

/// The arguments of a request that outlives its read buffer: queued by MULTI, or sent to another
/// shard. One buffer holds the bytes of all.
#[derive(Clone, Default)]
pub struct OwnedArgs {
    bytes: Box<[u8]>,
    ranges: SmallVec<[Range32; 4]>,
}

impl OwnedArgs {
    /// From any arguments in order. Panics above 4 GiB together: no request is so long.
    pub fn from_slices<'s>(arguments: impl IntoIterator<Item = &'s [u8]>) -> Self {
        let mut bytes = Vec::new();
        let mut ranges = SmallVec::new();
        for argument in arguments {
            let start = bytes.len();
            bytes.extend_from_slice(argument);
            assert!(
                bytes.len() <= u32::MAX as usize,
                "arguments of more than 4 GiB"
            );
            ranges.push(Range32 {
                start: start as u32,
                end: bytes.len() as u32,
            });
        }
        OwnedArgs {
            bytes: bytes.into_boxed_slice(),
            ranges,
        }
    }

    /// The arguments, borrowed.
    #[inline]
    pub fn args(&self) -> Args<'_> {
        Args {
            bytes: &self.bytes,
            ranges: &self.ranges,
        }
    }

    /// Bytes of memory outside the struct itself.
    pub fn heap_bytes(&self) -> usize {
        let spilled = if self.ranges.spilled() {
            self.ranges.capacity()
        } else {
            0
        };
        self.bytes.len() + spilled * size_of::<Range32>()
    }
}

impl From<Args<'_>> for OwnedArgs {
    fn from(args: Args<'_>) -> Self {
        let mut bytes = Vec::with_capacity(args.bytes_total());
        let mut ranges = SmallVec::with_capacity(args.len());
        for argument in args.iter() {
            let start = bytes.len() as u32;
            bytes.extend_from_slice(argument);
            ranges.push(Range32 {
                start,
                end: bytes.len() as u32,
            });
        }
        OwnedArgs {
            bytes: bytes.into_boxed_slice(),
            ranges,
        }
    }
}

impl std::fmt::Debug for OwnedArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.args().fmt(f)
    }
}
