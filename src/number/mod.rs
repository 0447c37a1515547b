//! Numbers as Redis reads and prints them: integers, doubles, and the 80-bit floats of INCRBYFLOAT.
//!
//! Always true here: what is printed is read back as the same number, and a text that is accepted
//! as an integer is the only text of that integer, so a counter may be kept as a number.

mod double;
mod long_double;

pub use double::{DoubleText, format_double, parse_double};
pub use long_double::LongDouble;

/// Reads a decimal `i64` as strictly as Redis's `string2ll`: no space, no `+`, no leading zero, no
/// `-0`.
#[inline]
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    let magnitude = parse_u64(digits)?;
    if negative {
        if magnitude == 0 {
            None
        } else {
            0i64.checked_sub_unsigned(magnitude)
        }
    } else {
        i64::try_from(magnitude).ok()
    }
}

/// Reads a decimal `u64`: no space, no sign, no leading zero.
#[inline]
pub fn parse_u64(text: &[u8]) -> Option<u64> {
    let (&first, rest) = text.split_first()?;
    if first == b'0' {
        return rest.is_empty().then_some(0);
    }
    if !first.is_ascii_digit() || text.len() > 20 {
        return None;
    }
    let mut value = (first - b'0') as u64;
    for &byte in rest {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(digit as u64)?;
    }
    Some(value)
}

/// Appends a decimal integer.
#[inline]
pub fn append_i64(value: i64, out: &mut Vec<u8>) {
    let mut buffer = itoa::Buffer::new();
    out.extend_from_slice(buffer.format(value).as_bytes());
}

/// How many bytes `value` takes as decimal text (STRLEN of a counter).
#[inline]
pub fn decimal_bytes(value: i64) -> usize {
    let digits = value
        .unsigned_abs()
        .checked_ilog10()
        .map_or(1, |power| power as usize + 1);
    digits + usize::from(value < 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn integers_are_read_as_strictly_as_redis_does() {
        assert_eq!(parse_i64(b"0"), Some(0));
        assert_eq!(parse_i64(b"-1"), Some(-1));
        assert_eq!(parse_i64(b"9223372036854775807"), Some(i64::MAX));
        assert_eq!(parse_i64(b"-9223372036854775808"), Some(i64::MIN));
        let refused: [&[u8]; 18] = [
            b"",
            b"-",
            b"+1",
            b"01",
            b"-0",
            b"-01",
            b" 1",
            b"1 ",
            b"1.0",
            b"1e3",
            b"0x1",
            b"a",
            b"9223372036854775808",
            b"-9223372036854775809",
            b"18446744073709551616",
            b"1\0",
            b"99999999999999999999999999999",
            b"--1",
        ];
        for text in refused {
            assert_eq!(parse_i64(text), None, "{}", text.escape_ascii());
        }
        assert_eq!(parse_u64(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(parse_u64(b"18446744073709551616"), None);
        assert_eq!(parse_u64(b"-1"), None);
    }

    proptest! {
        #[test]
        fn an_integer_is_read_back_from_its_text(value: i64) {
            let mut text = Vec::new();
            append_i64(value, &mut text);
            prop_assert_eq!(parse_i64(&text), Some(value));
            prop_assert_eq!(decimal_bytes(value), text.len());
        }

        #[test]
        fn a_text_that_is_read_is_the_only_one_of_its_number(text in "[-+0-9 ]{0,21}") {
            if let Some(value) = parse_i64(text.as_bytes()) {
                prop_assert_eq!(value.to_string(), text);
            }
        }
    }

    #[test]
    fn decimal_bytes_counts_the_sign() {
        for value in [0, 9, 10, 99, 100, -1, -10, i64::MAX, i64::MIN] {
            assert_eq!(decimal_bytes(value), value.to_string().len(), "{value}");
        }
    }
}
