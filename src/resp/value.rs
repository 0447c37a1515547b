//! Replies as a tree, for tests and tools; commands write with `crate::reply` and never build one.
//!
//! Always true here: nesting is bounded by `REPLY_DEPTH_MAX`, and memory by the bytes that arrived.

use crate::limits::REPLY_DEPTH_MAX;
use crate::resp::encode::{Malformed, Token};

/// A reply of either protocol.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A status.
    Simple(Vec<u8>),
    /// Code word and text.
    Error(Vec<u8>),
    /// An integer.
    Integer(i64),
    /// A binary-safe string.
    Bulk(Vec<u8>),
    /// Any null: of RESP3, of a string, of an array.
    Null,
    /// Members in order.
    Array(Vec<Value>),
    /// Pairs in order.
    Map(Vec<(Value, Value)>),
    /// Members in order.
    Set(Vec<Value>),
    /// An out-of-band message.
    Push(Vec<Value>),
    /// The text behind the `,`.
    Double(String),
    /// True or false.
    Boolean(bool),
    /// Format and text.
    Verbatim([u8; 3], Vec<u8>),
    /// Decimal digits.
    BigNumber(String),
}

impl Value {
    /// Reads one reply; `Ok(None)` if it is not complete, else the value and its length in bytes.
    pub fn parse(buffer: &[u8]) -> Result<Option<(Value, usize)>, Malformed> {
        let mut rest = buffer;
        let value = parse_nested(&mut rest, 0)?;
        Ok(value.map(|value| (value, buffer.len() - rest.len())))
    }

    /// As `redis-cli --no-raw` prints it, the last line feed included.
    pub fn render(&self) -> String {
        let mut out = String::new();
        self.render_nested("", &mut out);
        out
    }

    fn render_nested(&self, prefix: &str, out: &mut String) {
        match self {
            Value::Error(text) => *out += &format!("(error) {}\n", lossy(text)),
            Value::Simple(text) => *out += &format!("{}\n", lossy(text)),
            Value::Integer(value) => *out += &format!("(integer) {value}\n"),
            Value::Double(text) => *out += &format!("(double) {text}\n"),
            Value::BigNumber(digits) => *out += &format!("{digits}\n"),
            Value::Bulk(bytes) => {
                quote(bytes, out);
                out.push('\n');
            }
            Value::Verbatim(_, text) => *out += &format!("{}\n", lossy(text)),
            Value::Null => *out += "(nil)\n",
            Value::Boolean(value) => *out += if *value { "(true)\n" } else { "(false)\n" },
            Value::Array(members) => render_members(members, "array", ')', prefix, out),
            Value::Set(members) => render_members(members, "set", '~', prefix, out),
            Value::Push(members) => render_members(members, "push", ')', prefix, out),
            Value::Map(pairs) => render_pairs(pairs, prefix, out),
        }
    }
}

fn parse_nested(rest: &mut &[u8], depth: usize) -> Result<Option<Value>, Malformed> {
    if depth > REPLY_DEPTH_MAX {
        return Err(Malformed);
    }
    let Some((token, token_bytes)) = Token::read(rest)? else {
        return Ok(None);
    };
    *rest = &rest[token_bytes..];
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| Malformed);
    Ok(Some(match token {
        Token::Simple(line) => Value::Simple(line.to_vec()),
        Token::Error(line) | Token::BulkError(line) => Value::Error(line.to_vec()),
        Token::Integer(value) => Value::Integer(value),
        Token::Bulk(bytes) => Value::Bulk(bytes.to_vec()),
        Token::Null => Value::Null,
        Token::Double(line) => Value::Double(text(line)?),
        Token::BigNumber(line) => Value::BigNumber(text(line)?),
        Token::Boolean(value) => Value::Boolean(value),
        Token::Verbatim(format, bytes) => Value::Verbatim(format, bytes.to_vec()),
        Token::Array(len) => return Ok(parse_members(rest, len, depth)?.map(Value::Array)),
        Token::Set(len) => return Ok(parse_members(rest, len, depth)?.map(Value::Set)),
        Token::Push(len) => return Ok(parse_members(rest, len, depth)?.map(Value::Push)),
        Token::Map(len) => return Ok(parse_pairs(rest, len, depth)?.map(Value::Map)),
    }))
}

fn parse_members(
    rest: &mut &[u8],
    len: i64,
    depth: usize,
) -> Result<Option<Vec<Value>>, Malformed> {
    let mut members = Vec::new();
    for _ in 0..len {
        match parse_nested(rest, depth + 1)? {
            Some(member) => members.push(member),
            None => return Ok(None),
        }
    }
    Ok(Some(members))
}

type Pairs = Vec<(Value, Value)>;

fn parse_pairs(rest: &mut &[u8], len: i64, depth: usize) -> Result<Option<Pairs>, Malformed> {
    let mut pairs = Vec::new();
    for _ in 0..len {
        let Some(key) = parse_nested(rest, depth + 1)? else {
            return Ok(None);
        };
        let Some(value) = parse_nested(rest, depth + 1)? else {
            return Ok(None);
        };
        pairs.push((key, value));
    }
    Ok(Some(pairs))
}

fn render_members(members: &[Value], kind: &str, mark: char, prefix: &str, out: &mut String) {
    if members.is_empty() {
        *out += &format!("(empty {kind})\n");
    }
    let width = members.len().to_string().len();
    let inner = format!("{prefix}{}", " ".repeat(width + 2));
    for (index, member) in members.iter().enumerate() {
        // The first line's indent was printed by the container outside.
        let indent = if index == 0 { "" } else { prefix };
        *out += &format!("{indent}{:>width$}{mark} ", index + 1);
        member.render_nested(&inner, out);
    }
}

fn render_pairs(pairs: &[(Value, Value)], prefix: &str, out: &mut String) {
    if pairs.is_empty() {
        *out += "(empty hash)\n";
    }
    let width = pairs.len().to_string().len();
    let inner = format!("{prefix}{}", " ".repeat(width + 2));
    for (index, (key, value)) in pairs.iter().enumerate() {
        let indent = if index == 0 { "" } else { prefix };
        *out += &format!("{indent}{:>width$}# ", index + 1);
        key.render_nested(&inner, out);
        out.pop();
        *out += " => ";
        value.render_nested(&inner, out);
    }
}

/// In double quotes, with escapes as in Redis's `sdscatrepr`.
fn quote(bytes: &[u8], out: &mut String) {
    out.push('"');
    for &byte in bytes {
        match byte {
            b'\\' | b'"' => *out += &format!("\\{}", byte as char),
            b'\n' => *out += "\\n",
            b'\r' => *out += "\\r",
            b'\t' => *out += "\\t",
            0x07 => *out += "\\a",
            0x08 => *out += "\\b",
            b' '..=b'~' => out.push(byte as char),
            _ => *out += &format!("\\x{byte:02x}"),
        }
    }
    out.push('"');
}

fn lossy(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn render(encoded: &[u8]) -> String {
        let (value, bytes) = Value::parse(encoded).unwrap().unwrap();
        assert_eq!(bytes, encoded.len());
        value.render()
    }

    #[test]
    fn replies_are_printed_as_redis_cli_prints_them() {
        assert_eq!(render(b"+OK\r\n"), "OK\n");
        assert_eq!(render(b"-ERR no\r\n"), "(error) ERR no\n");
        assert_eq!(render(b":-5\r\n"), "(integer) -5\n");
        assert_eq!(render(b"$-1\r\n"), "(nil)\n");
        assert_eq!(render(b"*-1\r\n"), "(nil)\n");
        assert_eq!(render(b"_\r\n"), "(nil)\n");
        assert_eq!(render(b",1.5\r\n"), "(double) 1.5\n");
        assert_eq!(render(b"#t\r\n"), "(true)\n");
        assert_eq!(render(b"=5\r\ntxt:a\r\n"), "a\n");
        assert_eq!(
            render(b"$9\r\na\"\\\r\n\t\x07\x08\xff\r\n"),
            "\"a\\\"\\\\\\r\\n\\t\\a\\b\\xff\"\n"
        );
        assert_eq!(render(b"*0\r\n"), "(empty array)\n");
        assert_eq!(render(b"%0\r\n"), "(empty hash)\n");
        assert_eq!(render(b"~0\r\n"), "(empty set)\n");
        assert_eq!(render(b"~1\r\n:1\r\n"), "1~ (integer) 1\n");
        let pairs = b"%2\r\n+a\r\n:1\r\n+b\r\n*2\r\n:2\r\n:3\r\n";
        let printed = "1# a => (integer) 1\n2# b => 1) (integer) 2\n   2) (integer) 3\n";
        assert_eq!(render(pairs), printed);
    }

    #[test]
    fn nested_arrays_are_indented() {
        let mut encoded = b"*10\r\n*2\r\n:1\r\n*1\r\n:2\r\n".to_vec();
        encoded.extend(b"+x\r\n".repeat(9));
        let printed = render(&encoded);
        let mut lines = printed.lines();
        assert_eq!(lines.next(), Some(" 1) 1) (integer) 1"));
        assert_eq!(lines.next(), Some("    2) 1) (integer) 2"));
        assert_eq!(lines.next(), Some(" 2) x"));
        assert_eq!(lines.last(), Some("10) x"));
    }

    #[test]
    fn deep_nesting_and_huge_counts_are_refused() {
        assert_eq!(Value::parse(&b"*1\r\n".repeat(100_000)), Err(Malformed));
        let deepest = [&b"*1\r\n".repeat(REPLY_DEPTH_MAX)[..], b":1\r\n"].concat();
        assert!(Value::parse(&deepest).unwrap().is_some());
        assert_eq!(Value::parse(b"*9223372036854775807\r\n"), Ok(None));
        assert_eq!(Value::parse(b"*-5\r\n"), Err(Malformed));
    }

    proptest! {
        #[test]
        fn bytes_are_read_or_refused(bytes in "[-*$:+%~>,#_=0-3a\r\n]{0,60}") {
            if let Ok(Some((value, length))) = Value::parse(bytes.as_bytes()) {
                prop_assert!(length <= bytes.len());
                for end in 0..length {
                    prop_assert_eq!(Value::parse(&bytes.as_bytes()[..end]), Ok(None));
                }
                value.render();
            }
        }
    }
}
