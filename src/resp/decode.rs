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
    #[inline]
    pub fn decode(
        &mut self,
        buffer: &[u8],
        limits: &DecodeLimits,
    ) -> Result<Decoded, ProtocolError> {
        match self.progress {
            Progress::Start => self.start(buffer, limits),
            Progress::Inline { scanned } => self.inline(buffer, scanned),
            Progress::Count { scanned } => self.count(buffer, scanned, limits),
            Progress::Header {
                remaining,
                at,
                scanned,
            } => self.arguments(buffer, remaining, Next::Header { at, scanned }, limits),
            Progress::Body {
                remaining,
                start,
                len,
            } => self.arguments(buffer, remaining, Next::Body { start, len }, limits),
        }
    }

    fn start(&mut self, buffer: &[u8], limits: &DecodeLimits) -> Result<Decoded, ProtocolError> {
        self.ranges.clear();
        self.ranges.shrink_to(ARGS_KEPT_MAX);
        if self.in_unquoted {
            self.unquoted = Vec::new();
            self.in_unquoted = false;
        }
        match buffer.first() {
            None => Ok(Decoded::Incomplete { want: 1 }),
            Some(b'*') => self.count(buffer, 1, limits),
            Some(_) => self.inline(buffer, 0),
        }
    }

    fn inline(&mut self, buffer: &[u8], scanned: usize) -> Result<Decoded, ProtocolError> {
        let searched = buffer.len().min(INLINE_BYTES_MAX);
        let Some(found) = memchr(b'\n', &buffer[scanned..searched]) else {
            if searched == INLINE_BYTES_MAX {
                return Err(ProtocolError::new("Protocol error: too big inline request"));
            }
            self.progress = Progress::Inline { scanned: searched };
            return Ok(Decoded::Incomplete { want: 1 });
        };
        let line = &buffer[..scanned + found];
        let consumed = line.len() + 1;
        self.progress = Progress::Start;
        self.in_unquoted = inline::split(line, &mut self.ranges, &mut self.unquoted)?;
        Ok(if self.ranges.is_empty() {
            Decoded::Empty { consumed }
        } else {
            Decoded::Request { consumed }
        })
    }

    fn count(
        &mut self,
        buffer: &[u8],
        scanned: usize,
        limits: &DecodeLimits,
    ) -> Result<Decoded, ProtocolError> {
        let too_long = "Protocol error: too big mbulk count string";
        let (number, next) = match read_number(buffer, 1, scanned, too_long)? {
            Number::Incomplete { scanned } => {
                self.progress = Progress::Count { scanned };
                return Ok(Decoded::Incomplete { want: 1 });
            }
            Number::Found { value, next } => (value, next),
        };
        let invalid = ProtocolError::new("Protocol error: invalid multibulk length");
        let count = number
            .filter(|&count| count <= limits.args_max as i64)
            .ok_or(invalid)?;
        if count > UNAUTHENTICATED_ARGS_MAX as i64 && !limits.authenticated {
            return Err(ProtocolError::new(
                "Protocol error: unauthenticated multibulk length",
            ));
        }
        if count <= 0 {
            self.progress = Progress::Start;
            return Ok(Decoded::Empty { consumed: next });
        }
        let header = Next::Header {
            at: next,
            scanned: next + 1,
        };
        self.arguments(buffer, count as usize, header, limits)
    }

    fn arguments(
        &mut self,
        buffer: &[u8],
        mut remaining: usize,
        mut next: Next,
        limits: &DecodeLimits,
    ) -> Result<Decoded, ProtocolError> {
        loop {
            let (start, len) = match next {
                Next::Body { start, len } => (start, len),
                Next::Header { at, scanned } => match read_header(buffer, at, scanned, limits)? {
                    Header::Found { start, len } => (start, len),
                    Header::Incomplete { scanned } => {
                        self.progress = Progress::Header {
                            remaining,
                            at,
                            scanned,
                        };
                        return Ok(Decoded::Incomplete { want: 1 });
                    }
                },
            };
            let end = start + len;
            let Some(line_end) = buffer.get(end..end + 2) else {
                self.progress = Progress::Body {
                    remaining,
                    start,
                    len,
                };
                return Ok(Decoded::Incomplete {
                    want: end + 2 - buffer.len(),
                });
            };
            if line_end != b"\r\n" {
                return Err(ProtocolError::new(
                    "Protocol error: expected CRLF after bulk",
                ));
            }
            self.ranges.push(Range32 {
                start: start as u32,
                end: end as u32,
            });
            remaining -= 1;
            if remaining == 0 {
                self.progress = Progress::Start;
                return Ok(Decoded::Request { consumed: end + 2 });
            }
            next = Next::Header {
                at: end + 2,
                scanned: end + 3,
            };
        }
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

/// Where `Decoder::arguments` goes on; as in `Progress`.
#[derive(Clone, Copy)]
enum Next {
    Header { at: usize, scanned: usize },
    Body { start: usize, len: usize },
}

enum Header {
    Incomplete { scanned: usize },
    Found { start: usize, len: usize },
}

/// Reads the `$<length>` line at `at`. The argument that it announces ends, with its CRLF, within
/// `REQUEST_BYTES_MAX`.
#[inline]
fn read_header(
    buffer: &[u8],
    at: usize,
    scanned: usize,
    limits: &DecodeLimits,
) -> Result<Header, ProtocolError> {
    match buffer.get(at) {
        Some(b'$') => {}
        Some(&other) => return Err(expected_dollar(other)),
        None => return Ok(Header::Incomplete { scanned }),
    }
    let too_long = "Protocol error: too big bulk count string";
    let (value, start) = match read_number(buffer, at + 1, scanned, too_long)? {
        Number::Incomplete { scanned } => return Ok(Header::Incomplete { scanned }),
        Number::Found { value, next } => (value, next),
    };
    let len = value.and_then(|len| usize::try_from(len).ok());
    let Some(len) = len.filter(|&len| len <= limits.bulk_bytes_max) else {
        return Err(ProtocolError::new("Protocol error: invalid bulk length"));
    };
    if len > UNAUTHENTICATED_BULK_BYTES_MAX && !limits.authenticated {
        return Err(ProtocolError::new(
            "Protocol error: unauthenticated bulk length",
        ));
    }
    let request_bytes_max = limits.request_bytes_max.min(REQUEST_BYTES_MAX);
    if start.saturating_add(len).saturating_add(2) > request_bytes_max {
        return Err(ProtocolError::new("Protocol error: too big request"));
    }
    Ok(Header::Found { start, len })
}

#[cold]
fn expected_dollar(found: u8) -> ProtocolError {
    let found = found.escape_ascii();
    ProtocolError {
        text: Cow::Owned(format!("Protocol error: expected '$', got '{found}'")),
    }
}

enum Number {
    /// No carriage return before `scanned`.
    Incomplete { scanned: usize },
    /// `None` if the line is no number. `next` is the first byte behind the line.
    Found { value: Option<i64>, next: usize },
}

/// Reads the line at `at`. A line longer than `INLINE_BYTES_MAX` is an error with the text
/// `too_long`. `scanned` may lie behind the end of `buffer`.
#[inline]
fn read_number(
    buffer: &[u8],
    at: usize,
    scanned: usize,
    too_long: &'static str,
) -> Result<Number, ProtocolError> {
    match buffer.get(at..) {
        Some([digit @ b'0'..=b'9', b'\r', b'\n', ..]) => Ok(Number::Found {
            value: Some((digit - b'0') as i64),
            next: at + 3,
        }),
        Some([tens @ b'1'..=b'9', ones @ b'0'..=b'9', b'\r', b'\n', ..]) => {
            let value = (tens - b'0') * 10 + (ones - b'0');
            Ok(Number::Found {
                value: Some(value as i64),
                next: at + 4,
            })
        }
        _ => read_long_number(buffer, at, scanned, too_long),
    }
}

fn read_long_number(
    buffer: &[u8],
    at: usize,
    scanned: usize,
    too_long: &'static str,
) -> Result<Number, ProtocolError> {
    let searched = buffer.len().min(at + INLINE_BYTES_MAX);
    let scanned = scanned.max(at).min(searched);
    let Some(found) = memchr(b'\r', &buffer[scanned..searched]) else {
        if searched == at + INLINE_BYTES_MAX {
            return Err(ProtocolError::new(too_long));
        }
        return Ok(Number::Incomplete { scanned: searched });
    };
    let line_end = scanned + found;
    match buffer.get(line_end + 1) {
        None => Ok(Number::Incomplete { scanned: line_end }),
        Some(b'\n') => {
            let value = parse_i64(&buffer[at..line_end]);
            Ok(Number::Found {
                value,
                next: line_end + 2,
            })
        }
        Some(_) => Ok(Number::Found {
            value: None,
            next: line_end + 2,
        }),
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
