//! Several requests at once: a fast reader of those that lie whole in a buffer.
//!
//! A pipeline's requests are known before the first of them runs, so that what they need can be
//! brought near while they wait. Whatever is not of the plainest form is left to [`Decoder`]:
//! inline commands, long numbers, incomplete requests, errors.
//!
//! Always true here: what is read is what `Decoder` would read.
//!
//! [`Decoder`]: super::decode::Decoder

use super::args::{Args, Range32};
use super::decode::DecodeLimits;
use crate::limits::{PIPELINED_ARGS_MAX, PIPELINED_MAX, REQUEST_BYTES_MAX};

/// Requests that were read and not yet run.
#[derive(Debug, Default)]
pub struct Pipeline {
    ranges: Vec<Range32>,
    /// Behind each request: its last range and its last byte.
    ends: Vec<(u32, u32)>,
    /// Requests that were taken.
    taken: usize,
}

impl Pipeline {
    /// Forgets everything.
    pub fn clear(&mut self) {
        self.ranges.clear();
        self.ends.clear();
        self.taken = 0;
    }

    /// Reads the requests at the beginning of `buffer`, in place of what was read before. The
    /// connection is authenticated.
    pub fn read(&mut self, buffer: &[u8], limits: &DecodeLimits) {
        self.clear();
        let mut at = 0;
        while self.ends.len() < PIPELINED_MAX {
            let known = self.ranges.len();
            let Some(end) = self.request(buffer, at, limits) else {
                self.ranges.truncate(known);
                break;
            };
            self.ends.push((self.ranges.len() as u32, end as u32));
            at = end;
        }
    }

    /// How many requests were read.
    #[inline]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether none was.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// How many were taken.
    #[inline]
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// Whether all that were read were taken.
    #[inline]
    pub fn is_used_up(&self) -> bool {
        self.taken == self.ends.len()
    }

    /// The next request, and where it ends. `buffer` is the one that was read.
    #[inline]
    pub fn take<'a>(&'a mut self, buffer: &'a [u8]) -> Option<(Args<'a>, usize)> {
        let (_, end) = *self.ends.get(self.taken)?;
        self.taken += 1;
        Some((self.args(self.taken - 1, buffer), end as usize))
    }

    /// All that were read.
    pub fn requests<'a>(&'a self, buffer: &'a [u8]) -> impl Iterator<Item = Args<'a>> {
        (0..self.ends.len()).map(move |number| self.args(number, buffer))
    }

    #[inline]
    fn args<'a>(&'a self, number: usize, buffer: &'a [u8]) -> Args<'a> {
        let begin = match number {
            0 => 0,
            number => self.ends[number - 1].0,
        };
        let ranges = &self.ranges[begin as usize..self.ends[number].0 as usize];
        Args::new(buffer, ranges)
    }

    /// Reads the request at `at`; where it ends.
    #[inline]
    fn request(&mut self, buffer: &[u8], at: usize, limits: &DecodeLimits) -> Option<usize> {
        let (count, mut next) = number(buffer, at, b'*')?;
        if count == 0 || count > limits.args_max.min(PIPELINED_ARGS_MAX) {
            return None;
        }
        for _ in 0..count {
            let (length, start) = number(buffer, next, b'$')?;
            let end = start + length;
            if length > limits.bulk_bytes_max || buffer.get(end..end + 2)? != b"\r\n" {
                return None;
            }
            self.ranges.push(Range32 {
                start: start as u32,
                end: end as u32,
            });
            next = end + 2;
        }
        let bytes_max = limits.request_bytes_max.min(REQUEST_BYTES_MAX);
        (next - at <= bytes_max).then_some(next)
    }
}

/// The number of the line at `at`, which begins with `mark`, and where the next line begins. At
/// most five digits, no sign, no leading zero.
#[inline]
fn number(buffer: &[u8], at: usize, mark: u8) -> Option<(usize, usize)> {
    let line = buffer.get(at..)?;
    let &[first, tens, ones, end] = line.first_chunk()?;
    let digit = |byte: u8| usize::from(byte.wrapping_sub(b'0'));
    if first != mark || digit(tens) > 9 {
        return None;
    }
    if [ones, end] == *b"\r\n" {
        return Some((digit(tens), at + 4));
    }
    if tens == b'0' || digit(ones) > 9 {
        return None;
    }
    if end == b'\r' {
        return (*line.get(4)? == b'\n').then_some((digit(tens) * 10 + digit(ones), at + 5));
    }
    long_number(line).map(|(value, length)| (value, at + length))
}

/// A number of three to five digits, and the length of its line.
fn long_number(line: &[u8]) -> Option<(usize, usize)> {
    let digits = line[1..].iter().take(5);
    let digits = digits.take_while(|digit| digit.is_ascii_digit()).count();
    let value = line[1..=digits]
        .iter()
        .fold(0, |value, digit| value * 10 + usize::from(digit - b'0'));
    (line.get(digits + 1..digits + 3)? == b"\r\n").then_some((value, digits + 3))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limits::ARGS_MAX;
    use crate::resp::decode::{Decoded, Decoder};
    use crate::resp::encode::encode_command;

    const LIMITS: DecodeLimits = DecodeLimits {
        args_max: ARGS_MAX,
        bulk_bytes_max: 200,
        request_bytes_max: 400,
        authenticated: true,
    };

    /// Requests, as lists of words.
    type Requests = Vec<Vec<Vec<u8>>>;

    fn owned(args: Args<'_>) -> Vec<Vec<u8>> {
        args.iter().map(<[u8]>::to_vec).collect()
    }

    /// What the pipeline reads, and what the decoder reads of the same bytes.
    fn both(bytes: &[u8]) -> (Requests, Requests) {
        let mut pipeline = Pipeline::default();
        pipeline.read(bytes, &LIMITS);
        let (mut decoder, mut at, mut decoded) = (Decoder::new(), 0, Vec::new());
        let mut taken = Vec::new();
        while decoded.len() < pipeline.len() {
            match decoder.decode(&bytes[at..], &LIMITS) {
                Ok(Decoded::Request { consumed }) => {
                    decoded.push(owned(decoder.args(&bytes[at..])));
                    at += consumed;
                    let (args, end) = pipeline.take(bytes).expect("as many as it says");
                    assert_eq!(end, at, "where request {} ends", decoded.len());
                    taken.push(owned(args));
                }
                other => panic!("the pipeline read on behind {other:?}"),
            }
        }
        assert!(pipeline.take(bytes).is_none());
        (taken, decoded)
    }

    proptest! {
        #[test]
        fn it_reads_what_the_decoder_reads(
            requests in prop::collection::vec(
                prop::collection::vec(prop::collection::vec(any::<u8>(), 0..130), 1..14), 0..24),
            cut in 0usize..40, flipped in prop::option::of((any::<usize>(), any::<u8>())),
        ) {
            let mut bytes = Vec::new();
            for request in &requests {
                let words: Vec<&[u8]> = request.iter().map(Vec::as_slice).collect();
                encode_command(&words, &mut bytes);
            }
            bytes.truncate(bytes.len().saturating_sub(cut));
            if let Some((place, byte)) = flipped && !bytes.is_empty() {
                let place = place % bytes.len();
                bytes[place] = byte;
            }
            let (taken, decoded) = both(&bytes);
            prop_assert_eq!(taken, decoded);
        }

        #[test]
        fn it_reads_no_more_than_the_decoder_of_any_bytes(
            bytes in prop::collection::vec(
                prop::sample::select(b"*$0123459+- \r\n\r\n\r\naPING".to_vec()), 0..60),
        ) {
            let (taken, decoded) = both(&bytes);
            prop_assert_eq!(taken, decoded);
        }
    }

    #[test]
    fn a_plain_pipeline_is_read_whole() {
        let one = b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n*3\r\n$3\r\nSET\r\n$1\r\na\r\n$120\r\n".to_vec();
        let bytes = [
            &one[..],
            &[b'x'; 120],
            b"\r\n*1\r\n$4\r\nPING\r\nINLINE\r\n",
        ]
        .concat();
        let (taken, decoded) = both(&bytes);
        assert_eq!(taken.len(), 3);
        assert_eq!(taken, decoded);
        let many = b"*1\r\n$4\r\nPING\r\n".repeat(PIPELINED_MAX + 1);
        assert_eq!(both(&many).0.len(), PIPELINED_MAX);
    }
}
