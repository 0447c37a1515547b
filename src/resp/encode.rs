//! Requests as a client sends them, and stored RESP3 replies for a RESP2 client.
//!
//! Always true here: encoded bytes are read token by token, without recursion, so their nesting
//! does not matter; a malformed input is an error and leaves the output as it was.

use memchr::memchr;

use crate::number::{append_i64, parse_i64};

/// Encoded bytes that are no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("malformed reply")
    }
}

impl std::error::Error for Malformed {}

/// Appends a request as a client sends it: an array of strings.
pub fn encode_command(args: &[&[u8]], out: &mut Vec<u8>) {
    append_header(b'*', args.len() as i64, out);
    for arg in args {
        append_bulk(arg, out);
    }
}

/// Appends the replies in `resp3` (any number, complete) as RESP2: maps as flat arrays, sets and
/// pushes as arrays, doubles, big numbers and verbatim texts as strings, booleans as integers.
pub fn transcode_to_resp2(resp3: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let out_start = out.len();
    let mut rest = resp3;
    while !rest.is_empty() {
        let transcoded = match Token::read(rest) {
            Ok(Some((token, token_bytes))) => {
                let encoded;
                (encoded, rest) = rest.split_at(token_bytes);
                append_as_resp2(token, encoded, out)
            }
            Ok(None) | Err(Malformed) => Err(Malformed),
        };
        if transcoded.is_err() {
            out.truncate(out_start);
            return Err(Malformed);
        }
    }
    Ok(())
}

fn append_as_resp2(token: Token<'_>, encoded: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    match token {
        Token::Null => out.extend_from_slice(b"$-1\r\n"),
        Token::Boolean(value) => append_header(b':', value.into(), out),
        Token::Double(text) | Token::BigNumber(text) => append_bulk(text, out),
        Token::Verbatim(_, text) => append_bulk(text, out),
        Token::Map(len) => append_header(b'*', len.checked_mul(2).ok_or(Malformed)?, out),
        Token::Set(len) | Token::Push(len) => append_header(b'*', len, out),
        Token::BulkError(text) => {
            out.push(b'-');
            out.extend(
                text.iter()
                    .map(|&b| if b == b'\r' || b == b'\n' { b' ' } else { b }),
            );
            out.extend_from_slice(b"\r\n");
        }
        Token::Simple(_) | Token::Error(_) | Token::Integer(_) => out.extend_from_slice(encoded),
        Token::Bulk(_) | Token::Array(_) => out.extend_from_slice(encoded),
    }
    Ok(())
}

fn append_header(kind: u8, value: i64, out: &mut Vec<u8>) {
    out.push(kind);
    append_i64(value, out);
    out.extend_from_slice(b"\r\n");
}

fn append_bulk(bytes: &[u8], out: &mut Vec<u8>) {
    append_header(b'$', bytes.len() as i64, out);
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// A scalar, or the header of a container whose members follow as tokens of their own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Token<'a> {
    Simple(&'a [u8]),
    Error(&'a [u8]),
    BulkError(&'a [u8]),
    Integer(i64),
    Bulk(&'a [u8]),
    Null,
    /// Number of members.
    Array(i64),
    /// Number of pairs.
    Map(i64),
    Set(i64),
    Push(i64),
    Double(&'a [u8]),
    Boolean(bool),
    Verbatim([u8; 3], &'a [u8]),
    BigNumber(&'a [u8]),
}

impl<'a> Token<'a> {
    /// Reads one token; `Ok(None)` if it is not complete, else the token and its length in bytes.
    /// A container's number of members is not negative.
    pub(super) fn read(buffer: &'a [u8]) -> Result<Option<(Token<'a>, usize)>, Malformed> {
        let Some(end) = memchr(b'\n', buffer) else {
            return Ok(None);
        };
        let [kind, line @ .., b'\r'] = &buffer[..end] else {
            return Err(Malformed);
        };
        let body = &buffer[end + 1..];
        let length = || parse_i64(line).ok_or(Malformed);
        let members = || length().and_then(|len| if len < 0 { Err(Malformed) } else { Ok(len) });
        let token = match kind {
            b'+' => Token::Simple(line),
            b'-' => Token::Error(line),
            b':' => Token::Integer(length()?),
            b'_' if line.is_empty() => Token::Null,
            b'#' if line == b"t" => Token::Boolean(true),
            b'#' if line == b"f" => Token::Boolean(false),
            b',' => Token::Double(line),
            b'(' => Token::BigNumber(line),
            b'$' | b'*' if line == b"-1" => Token::Null,
            b'*' => Token::Array(members()?),
            b'%' => Token::Map(members()?),
            b'~' => Token::Set(members()?),
            b'>' => Token::Push(members()?),
            b'$' | b'=' | b'!' => {
                let bulk = read_bulk(body, members()? as usize)?;
                return Ok(match bulk {
                    None => None,
                    Some(bytes) => {
                        Some((Token::from_bulk(*kind, bytes)?, end + 1 + bytes.len() + 2))
                    }
                });
            }
            _ => return Err(Malformed),
        };
        Ok(Some((token, end + 1)))
    }

    fn from_bulk(kind: u8, bytes: &'a [u8]) -> Result<Token<'a>, Malformed> {
        match (kind, bytes) {
            (b'$', _) => Ok(Token::Bulk(bytes)),
            (b'!', _) => Ok(Token::BulkError(bytes)),
            (_, [a, b, c, b':', text @ ..]) => Ok(Token::Verbatim([*a, *b, *c], text)),
            _ => Err(Malformed),
        }
    }
}

fn read_bulk(body: &[u8], len: usize) -> Result<Option<&[u8]>, Malformed> {
    let end = len.checked_add(2).ok_or(Malformed)?;
    match body.get(..end) {
        None => Ok(None),
        Some(framed) => framed.strip_suffix(b"\r\n").map(Some).ok_or(Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::Reply;
    use crate::resp::Protocol;

    fn write_all(reply: &mut Reply<'_>) {
        reply.map(2);
        reply.bulk(b"a\r\nb");
        reply.double(1.5);
        reply.bulk(b"");
        reply.set(1);
        reply.boolean(true);
        reply.push(2);
        reply.null();
        reply.boolean(false);
        reply.array(2);
        reply.verbatim(*b"txt", b"some text");
        reply.big_number("-123456789012345678901234567890");
        reply.integer(i64::MIN);
        reply.simple("OK");
        reply.error(&crate::reply::Reject::syntax());
    }

    #[test]
    fn a_transcoded_reply_is_the_one_written_in_resp2() {
        let (mut resp2, mut resp3, mut transcoded) = (Vec::new(), Vec::new(), b"+1\r\n".to_vec());
        write_all(&mut Reply::new(&mut resp2, Protocol::Resp2));
        write_all(&mut Reply::new(&mut resp3, Protocol::Resp3));
        transcode_to_resp2(&resp3, &mut transcoded).unwrap();
        assert_eq!(
            transcoded[4..].escape_ascii().to_string(),
            resp2.escape_ascii().to_string()
        );

        let mut again = Vec::new();
        transcode_to_resp2(&resp2, &mut again).unwrap();
        assert_eq!(again, resp2, "RESP2 is left as it is");
        again.clear();
        transcode_to_resp2(b"!7\r\nERR a\nb\r\n", &mut again).unwrap();
        assert_eq!(again, b"-ERR a b\r\n");
    }

    #[test]
    fn a_malformed_reply_leaves_the_output_alone() {
        let malformed: [&[u8]; 16] = [
            b"x\r\n",
            b"\r\n",
            b"\n",
            b"+OK\n",
            b"+OK",
            b":a\r\n",
            b"$3\r\nab\r\n",
            b"$-2\r\n",
            b"*-2\r\n",
            b"%9223372036854775807\r\n",
            b"$9223372036854775807\r\n",
            b"=3\r\ntxt\r\n",
            b"#x\r\n",
            b"_x\r\n",
            b"$1\r\naxx",
            b"+OK\r\n$5\r\n",
        ];
        for bytes in malformed {
            let mut out = b"before".to_vec();
            let input = bytes.escape_ascii();
            assert_eq!(
                transcode_to_resp2(bytes, &mut out),
                Err(Malformed),
                "{input}"
            );
            assert_eq!(out, b"before");
        }
    }
}
