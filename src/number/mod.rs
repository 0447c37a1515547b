//! Numbers as Redis reads and prints them: integers, doubles, and the 80-bit floats of INCRBYFLOAT.
//!
//! Always true here: what is printed is read back as the same number, and a text that is accepted
//! as an integer is the only text of that integer, so a counter may be kept as a number.

mod double;
mod long_double;

pub use double::{DoubleBuffer, parse_double};
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
