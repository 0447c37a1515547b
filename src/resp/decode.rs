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

use memchr::memchr;

use crate::limits::{
    ARGS_KEPT_MAX, INLINE_BYTES_MAX, REQUEST_BYTES_MAX, UNAUTHENTICATED_ARGS_MAX,
    UNAUTHENTICATED_BULK_BYTES_MAX,
};
use crate::number::parse_i64;
use crate::resp::inline;

pub use crate::resp::args::{Args, OwnedArgs, Range32};

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

    /// Whether it stands before a request, nothing of which was read.
    #[inline]
    pub fn is_at_start(&self) -> bool {
        matches!(self.progress, Progress::Start)
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
        Args::new(bytes, &self.ranges)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limits::ARGS_MAX;
    use crate::resp::encode::encode_command;

    const LIMITS: DecodeLimits = DecodeLimits {
        args_max: ARGS_MAX,
        bulk_bytes_max: 512 * 1024 * 1024,
        request_bytes_max: REQUEST_BYTES_MAX,
        authenticated: true,
    };

    /// The requests in `bytes`, which arrive in reads that end at `cuts`; an error is the last
    /// item. `None` stands for a request that is skipped.
    fn requests(
        bytes: &[u8],
        cuts: &[usize],
        limits: &DecodeLimits,
    ) -> Vec<Result<Option<Vec<Vec<u8>>>, String>> {
        let (mut decoder, mut found, mut start) = (Decoder::new(), Vec::new(), 0);
        for &arrived in cuts.iter().chain([&bytes.len()]) {
            loop {
                let buffer = &bytes[start..arrived];
                match decoder.decode(buffer, limits) {
                    Ok(Decoded::Incomplete { want }) => {
                        assert!(want > 0);
                        break;
                    }
                    Ok(Decoded::Request { consumed }) => {
                        let args = decoder.args(buffer);
                        found.push(Ok(Some(args.iter().map(<[u8]>::to_vec).collect())));
                        start += consumed;
                    }
                    Ok(Decoded::Empty { consumed }) => {
                        assert!(consumed > 0);
                        found.push(Ok(None));
                        start += consumed;
                    }
                    Err(error) => {
                        found.push(Err(error.text().to_owned()));
                        return found;
                    }
                }
            }
        }
        found
    }

    fn error_of(bytes: &[u8]) -> String {
        let last = requests(bytes, &[], &LIMITS).pop().expect("no result");
        last.expect_err("no error")
    }

    #[test]
    fn every_split_gives_the_same_requests() {
        let streams: [&[u8]; 6] = [
            b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$12\r\n0123456789\r\n\r\n*1\r\n$4\r\nPING\r\n",
            b"PING\r\n\r\nSET \"a b\" 'c'\n*0\r\n*-1\r\n*2\r\n$0\r\n\r\n$3\r\nabc\r\n",
            b"*2\r\n$4\r\nINCR\r\n$1\r\nab\r\n",
            b"*1\r\n:1\r\n",
            b"INCR \"a\r\n",
            b"*1a\r\n",
        ];
        for stream in streams {
            let whole = requests(stream, &[], &LIMITS);
            let bytewise: Vec<usize> = (0..stream.len()).collect();
            assert_eq!(requests(stream, &bytewise, &LIMITS), whole);
            for first in 0..stream.len() {
                assert_eq!(requests(stream, &[first], &LIMITS), whole, "cut at {first}");
                for second in first..stream.len() {
                    assert_eq!(requests(stream, &[first, second], &LIMITS), whole);
                }
            }
        }
    }

    #[test]
    fn protocol_errors_have_the_words_of_redis() {
        let cases: &[(&[u8], &str)] = &[
            (b"*a\r\n", "invalid multibulk length"),
            (b"*\r\n", "invalid multibulk length"),
            (b"*+1\r\n", "invalid multibulk length"),
            (b"*1\rx", "invalid multibulk length"),
            (b"*1048577\r\n", "invalid multibulk length"),
            (b"*2147483648\r\n", "invalid multibulk length"),
            (b"*99999999999999999999\r\n", "invalid multibulk length"),
            (b"*1\r\nx", "expected '$', got 'x'"),
            (b"*1\r\n*1\r\n", "expected '$', got '*'"),
            (b"*1\r\n\r\n", "expected '$', got '\\r'"),
            (b"*1\r\n$-1\r\n", "invalid bulk length"),
            (b"*1\r\n$a\r\n", "invalid bulk length"),
            (b"*1\r\n$\r\n", "invalid bulk length"),
            (b"*1\r\n$536870913\r\n", "invalid bulk length"),
            (b"*1\r\n$9223372036854775807\r\n", "invalid bulk length"),
            (b"*1\r\n$18446744073709551615\r\n", "invalid bulk length"),
            (b"*1\r\n$1\r\nabc", "expected CRLF after bulk"),
            (b"GET \"a\r\n", "unbalanced quotes in request"),
        ];
        for (bytes, text) in cases {
            let input = bytes.escape_ascii();
            assert_eq!(
                error_of(bytes),
                format!("Protocol error: {text}"),
                "{input}"
            );
        }
    }

    #[test]
    fn lines_without_an_end_are_refused() {
        let line = |start: &str| [start.as_bytes(), &vec![b'1'; INLINE_BYTES_MAX]].concat();
        assert_eq!(
            error_of(&line("P")),
            "Protocol error: too big inline request"
        );
        assert_eq!(
            error_of(&line("*")),
            "Protocol error: too big mbulk count string"
        );
        assert_eq!(
            error_of(&line("*1\r\n$")),
            "Protocol error: too big bulk count string"
        );
        let mut longest = vec![b'a'; INLINE_BYTES_MAX - 1];
        longest.push(b'\n');
        assert_eq!(requests(&longest, &[], &LIMITS).len(), 1);
    }

    #[test]
    fn before_authentication_requests_are_small() {
        let limits = DecodeLimits {
            authenticated: false,
            ..LIMITS
        };
        let refused = |bytes: &[u8]| requests(bytes, &[], &limits).pop().unwrap().unwrap_err();
        let text = refused(b"*11\r\n");
        assert_eq!(text, "Protocol error: unauthenticated multibulk length");
        let text = refused(b"*1\r\n$16385\r\n");
        assert_eq!(text, "Protocol error: unauthenticated bulk length");
        assert!(requests(b"*10\r\n$16384\r\n", &[], &limits).is_empty());
    }

    #[test]
    fn a_request_has_a_greatest_length() {
        let limits = DecodeLimits {
            request_bytes_max: 20,
            ..LIMITS
        };
        let mut bytes = Vec::new();
        encode_command(&[b"0123456789"], &mut bytes);
        assert_eq!(bytes.len(), 21);
        let found = requests(&bytes, &[], &limits);
        assert_eq!(found, [Err("Protocol error: too big request".to_owned())]);
        assert!(
            requests(
                &bytes,
                &[],
                &DecodeLimits {
                    request_bytes_max: 21,
                    ..LIMITS
                }
            )[0]
            .is_ok()
        );
        // Together above what 32-bit ranges can tell, each argument within its limit.
        let limits = DecodeLimits {
            request_bytes_max: usize::MAX,
            ..LIMITS
        };
        let header = Next::Header {
            at: REQUEST_BYTES_MAX - 8,
            scanned: 0,
        };
        let mut decoder = Decoder::new();
        let far = decoder.arguments(&[], 1, header, &limits);
        assert_eq!(far, Ok(Decoded::Incomplete { want: 1 }));
    }

    #[test]
    fn a_claimed_count_takes_no_memory_and_a_large_one_is_given_back() {
        let mut decoder = Decoder::new();
        decoder.decode(b"*1048576\r\n", &LIMITS).unwrap();
        assert!(decoder.ranges.capacity() <= ARGS_KEPT_MAX);

        let mut bytes = Vec::new();
        encode_command(&vec![&b"a"[..]; 5_000], &mut bytes);
        let mut decoder = Decoder::new();
        let consumed = bytes.len();
        assert_eq!(
            decoder.decode(&bytes, &LIMITS),
            Ok(Decoded::Request { consumed })
        );
        assert_eq!(decoder.args(&bytes).len(), 5_000);
        decoder.decode(b"PING\r\n", &LIMITS).unwrap();
        assert!(decoder.ranges.capacity() <= ARGS_KEPT_MAX);
    }

    #[test]
    fn a_long_argument_tells_how_much_is_missing() {
        let mut decoder = Decoder::new();
        let start = b"*1\r\n$1000\r\nabc";
        assert_eq!(
            decoder.decode(start, &LIMITS),
            Ok(Decoded::Incomplete { want: 999 })
        );
    }

    #[test]
    fn ten_megabytes_of_garbage_are_refused_or_read() {
        let mut state = 1u64;
        let mut garbage = Vec::new();
        while garbage.len() < 10 * 1024 * 1024 {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            garbage.extend_from_slice(&state.to_le_bytes());
        }
        // Whatever a protocol error ends, what follows is tried as a new connection.
        for chunk in garbage.chunks(10_007) {
            requests(chunk, &[chunk.len() / 2], &LIMITS);
        }
        assert!(error_of(&b"*1\r\n".repeat(2_500_000)).ends_with("got '*'"));
        assert!(error_of(&vec![0; 10 * 1024 * 1024]).ends_with("too big inline request"));
    }

    fn arguments() -> impl Strategy<Value = Vec<Vec<u8>>> {
        proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..12)
    }

    proptest! {
        #[test]
        fn an_encoded_request_is_decoded_as_another_decoder_does(
            args in arguments(),
            tail in 0..9usize,
        ) {
            let mut bytes = Vec::new();
            encode_command(&args.iter().map(|arg| &arg[..]).collect::<Vec<_>>(), &mut bytes);
            let consumed = bytes.len();
            bytes.extend(std::iter::repeat_n(b'x', tail));
            let mut decoder = Decoder::new();
            prop_assert_eq!(decoder.decode(&bytes, &LIMITS), Ok(Decoded::Request { consumed }));
            let decoded: Vec<_> = decoder.args(&bytes).iter().map(<[u8]>::to_vec).collect();
            prop_assert_eq!(&decoded, &args);

            use redis_protocol::resp2::{decode, types::OwnedFrame};
            let frames = args.into_iter().map(OwnedFrame::BulkString).collect();
            let oracle = decode::decode(&bytes).expect("refused by the other decoder");
            prop_assert_eq!(oracle, Some((OwnedFrame::Array(frames), consumed)));
        }

        #[test]
        fn a_split_makes_no_difference_to_damaged_requests(
            args in arguments(),
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..4),
        ) {
            let mut bytes = Vec::new();
            encode_command(&args.iter().map(|arg| &arg[..]).collect::<Vec<_>>(), &mut bytes);
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
            cuts.sort_unstable();
            prop_assert_eq!(requests(&bytes, &cuts, &LIMITS), requests(&bytes, &[], &LIMITS));
        }
    }
}
