//! Inline commands: one line of words, for people with telnet. The rules are those of Redis's
//! `sdssplitargs`, except that a NUL byte is an ordinary byte and does not end the line.
//!
//! Always true here: a line without quotes is only split, not copied.

use memchr::memchr2;

use crate::resp::decode::{ProtocolError, Range32};

/// Splits `line`, which has no line feed and is not longer than `INLINE_BYTES_MAX`. Returns whether
/// the ranges point into `unquoted` (else they point into `line`).
pub(super) fn split(
    line: &[u8],
    ranges: &mut Vec<Range32>,
    unquoted: &mut Vec<u8>,
) -> Result<bool, ProtocolError> {
    let quoted = memchr2(b'"', b'\'', line).is_some();
    let mut at = 0;
    loop {
        while line.get(at).copied().is_some_and(is_blank) {
            at += 1;
        }
        if at == line.len() {
            return Ok(quoted);
        }
        if quoted {
            let start = unquoted.len();
            at = unquote_word(line, at, unquoted).ok_or(UNBALANCED)?;
            ranges.push(range(start, unquoted.len()));
        } else {
            let start = at;
            while line.get(at).is_some_and(|&byte| !ends_word(byte)) {
                at += 1;
            }
            ranges.push(range(start, at));
        }
    }
}

const UNBALANCED: ProtocolError =
    ProtocolError::new("Protocol error: unbalanced quotes in request");

/// Appends the word that begins at `at` and returns where it ends; `None` when a quote is not
/// closed, or closed within a word.
fn unquote_word(line: &[u8], mut at: usize, out: &mut Vec<u8>) -> Option<usize> {
    loop {
        match line.get(at) {
            Some(b'"') => return unquote_double(line, at + 1, out),
            Some(b'\'') => return unquote_single(line, at + 1, out),
            Some(&byte) if !ends_word(byte) => out.push(byte),
            _ => return Some(at),
        }
        at += 1;
    }
}

fn unquote_double(line: &[u8], mut at: usize, out: &mut Vec<u8>) -> Option<usize> {
    loop {
        match &line[at..] {
            [b'\\', b'x', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                out.push(hex_digit(*high) << 4 | hex_digit(*low));
                at += 4;
            }
            [b'\\', escaped, ..] => {
                out.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => *other,
                });
                at += 2;
            }
            [b'"', ..] => return word_end(line, at + 1),
            [byte, ..] => {
                out.push(*byte);
                at += 1;
            }
            [] => return None,
        }
    }
}

fn unquote_single(line: &[u8], mut at: usize, out: &mut Vec<u8>) -> Option<usize> {
    loop {
        match &line[at..] {
            [b'\\', b'\'', ..] => {
                out.push(b'\'');
                at += 2;
            }
            [b'\'', ..] => return word_end(line, at + 1),
            [byte, ..] => {
                out.push(*byte);
                at += 1;
            }
            [] => return None,
        }
    }
}

/// A closing quote must end the word.
fn word_end(line: &[u8], at: usize) -> Option<usize> {
    line.get(at)
        .is_none_or(|&byte| is_blank(byte))
        .then_some(at)
}

fn hex_digit(digit: u8) -> u8 {
    (digit as char).to_digit(16).map_or(0, |value| value as u8)
}

/// C's `isspace`.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

/// Vertical tab and form feed are skipped before a word, but do not end one (as in Redis).
fn ends_word(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
}

fn range(start: usize, end: usize) -> Range32 {
    Range32 {
        start: start as u32,
        end: end as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<Vec<String>, ProtocolError> {
        let (mut ranges, mut unquoted) = (Vec::new(), Vec::new());
        let in_unquoted = split(line.as_bytes(), &mut ranges, &mut unquoted)?;
        let bytes = if in_unquoted {
            &unquoted[..]
        } else {
            line.as_bytes()
        };
        let word = |range: &Range32| bytes[range.start as usize..range.end as usize].escape_ascii();
        Ok(ranges.iter().map(|range| word(range).to_string()).collect())
    }

    #[test]
    fn a_line_is_split_at_blanks() {
        assert_eq!(words("SET a 1").unwrap(), ["SET", "a", "1"]);
        assert_eq!(words("  SET\t a   1 \r").unwrap(), ["SET", "a", "1"]);
        assert_eq!(words(" \u{b}a\u{b}b \u{c}").unwrap(), ["a\\x0bb"]);
        assert!(words(" \t ").unwrap().is_empty());
    }

    #[test]
    fn quotes_keep_blanks_and_read_escapes() {
        assert_eq!(words(r#"SET "a b" 'c d'"#).unwrap(), ["SET", "a b", "c d"]);
        assert_eq!(
            words(r#""\x41\n\r\t\b\a\"\\\q""#).unwrap(),
            [r#"A\n\r\t\x08\x07\"\\q"#]
        );
        assert_eq!(words(r#""\xg1""#).unwrap(), ["xg1"]);
        assert_eq!(words(r#"'a\'b\n'"#).unwrap(), [r#"a\'b\\n"#]);
        assert_eq!(words(r#"ab"cd" """#).unwrap(), ["abcd", ""]);
    }

    #[test]
    fn an_open_quote_or_one_within_a_word_is_refused() {
        for line in [
            r#""a"#, "'a", r#""a"b"#, "'a'b", r#"""#, r#""\"#, r#""a\""#, "'a\\'",
        ] {
            assert_eq!(words(line), Err(UNBALANCED), "{line}");
        }
    }
}
