//! Doubles: read as strtod reads them where Redis uses it, printed as Redis 7.2 and later print
//! them in replies (`d2string` and `fpconv_dtoa`: the shortest digits that are read back as the
//! same number).
//!
//! Always true here: `parse_double(format_double(x)) == x` for every `x` but NaN.

use smallvec::SmallVec;

/// The text of a double; 24 bytes at most, so it is never on the heap.
pub type DoubleText = SmallVec<[u8; 32]>;

/// From here on integers are printed with an exponent where that is shorter: `d2string` takes the
/// way through a 64-bit integer up to 2^62.
const INTEGER_MAX: f64 = 4_611_686_018_427_387_904.0;

/// The shortest text that is read back as `value`, without `.0`; `inf`, `-inf`, `nan`.
pub fn format_double(value: f64) -> DoubleText {
    if !value.is_finite() {
        let text: &[u8] = match value {
            f64::INFINITY => b"inf",
            f64::NEG_INFINITY => b"-inf",
            _ => b"nan",
        };
        return DoubleText::from_slice(text);
    }
    if value.trunc() == value && value.abs() <= INTEGER_MAX {
        if value == 0.0 && value.is_sign_negative() {
            return DoubleText::from_slice(b"-0");
        }
        let mut buffer = itoa::Buffer::new();
        return DoubleText::from_slice(buffer.format(value as i64).as_bytes());
    }
    let mut buffer = zmij::Buffer::new();
    let shortest = buffer.format_finite(value.abs());
    let (digits, exponent) = significant_digits(shortest.as_bytes());
    let mut out = DoubleText::new();
    if value < 0.0 {
        out.push(b'-');
    }
    lay_out(&digits, exponent, &mut out);
    out
}

/// Splits a positive number's text into its digits, without zeros at either end, and the power of
/// ten that the last digit stands for.
fn significant_digits(text: &[u8]) -> (DoubleText, i32) {
    let (mut digits, mut exponent) = (DoubleText::new(), 0);
    let mut behind_point = false;
    let mut bytes = text.iter();
    for &byte in bytes.by_ref() {
        match byte {
            b'.' => behind_point = true,
            b'e' => break,
            digit => {
                exponent -= i32::from(behind_point);
                if digit != b'0' || !digits.is_empty() {
                    digits.push(digit);
                }
            }
        }
    }
    let (mut written, mut negative) = (0, false);
    for &byte in bytes {
        match byte {
            b'-' => negative = true,
            b'+' => {}
            digit => written = written * 10 + i32::from(digit - b'0'),
        }
    }
    exponent += if negative { -written } else { written };
    while digits.last() == Some(&b'0') {
        digits.pop();
        exponent += 1;
    }
    (digits, exponent)
}

/// `emit_digits` of fpconv_dtoa.c: plain, with a point, or with an exponent.
fn lay_out(digits: &[u8], exponent: i32, out: &mut DoubleText) {
    let len = digits.len() as i32;
    let scientific = exponent + len - 1;
    if exponent >= 0 && scientific < len + 7 {
        out.extend_from_slice(digits);
        out.extend(std::iter::repeat_n(b'0', exponent as usize));
    } else if exponent < 0 && (exponent > -7 || scientific.abs() < 4) {
        let point = len + exponent;
        if point <= 0 {
            out.extend_from_slice(b"0.");
            out.extend(std::iter::repeat_n(b'0', -point as usize));
            out.extend_from_slice(digits);
        } else {
            let (whole, fraction) = digits.split_at(point as usize);
            out.extend_from_slice(whole);
            out.push(b'.');
            out.extend_from_slice(fraction);
        }
    } else {
        out.push(digits[0]);
        if digits.len() > 1 {
            out.push(b'.');
            out.extend_from_slice(&digits[1..]);
        }
        out.extend_from_slice(if scientific < 0 { b"e-" } else { b"e+" });
        let mut buffer = itoa::Buffer::new();
        out.extend_from_slice(buffer.format(scientific.unsigned_abs()).as_bytes());
    }
}

/// Reads a double: decimal, with or without exponent, or `inf`/`infinity`. Refused: space around
/// it, NaN, what is too large or too small for a double (as Redis does), and hexadecimal (which
/// Redis takes).
pub fn parse_double(text: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(text).ok()?;
    let value: f64 = text.parse().ok()?;
    let in_range = match value {
        _ if value.is_nan() => false,
        _ if value.is_infinite() => !text.contains(|c: char| c.is_ascii_digit()),
        0.0 => is_zero(text.as_bytes()),
        _ => true,
    };
    in_range.then_some(value)
}

/// Whether the decimal number has no digit but zeros before its exponent.
pub(super) fn is_zero(text: &[u8]) -> bool {
    let mantissa = text
        .split(|byte| matches!(byte, b'e' | b'E'))
        .next()
        .unwrap_or_default();
    !mantissa.iter().any(|byte| matches!(byte, b'1'..=b'9'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn doubles_are_printed_as_redis_prints_them() {
        let cases: &[(f64, &str)] = &[
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (-1.5, "-1.5"),
            (0.1, "0.1"),
            (0.1 + 0.2, "0.30000000000000004"),
            (3.0, "3"),
            (1e15, "1000000000000000"),
            (1e17, "100000000000000000"),
            (4611686018427387904.0, "4611686018427387904"),
            (1e19, "1e+19"),
            (1e20, "1e+20"),
            (1.5e20, "1.5e+20"),
            (12345678901234568000000.0, "12345678901234568000000"),
            (1.5e25, "1.5e+25"),
            (1e-5, "0.00001"),
            (1e-6, "0.000001"),
            (1e-7, "1e-7"),
            (1.5e-7, "1.5e-7"),
            (0.0001234567890123, "1.234567890123e-4"),
            (0.001234567890123, "0.001234567890123"),
            (1e100, "1e+100"),
            (1e-300, "1e-300"),
            (f64::MAX, "1.7976931348623157e+308"),
            (5e-324, "5e-324"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
        ];
        for (value, expected) in cases {
            let text = format_double(*value);
            assert_eq!(std::str::from_utf8(&text), Ok(*expected));
            assert!(!text.spilled());
        }
    }

    #[test]
    fn doubles_are_read_as_strtod_reads_them() {
        let read: &[(&str, f64)] = &[
            ("1", 1.0),
            ("+1", 1.0),
            ("-1.5e3", -1500.0),
            (".5", 0.5),
            ("5.", 5.0),
            ("1E5", 1e5),
            ("inf", f64::INFINITY),
            ("-INF", f64::NEG_INFINITY),
            ("+infinity", f64::INFINITY),
            ("0e999", 0.0),
            ("5e-324", 5e-324),
        ];
        for (text, expected) in read {
            assert_eq!(parse_double(text.as_bytes()), Some(*expected), "{text}");
        }
        let refused = [
            "", " 1", "1 ", "nan", "-nan", "1e400", "-1e400", "1e-400", "1e", "e5", ".", "+", "1x",
            "1_0", "0x10", "in", "infi", "1\0", "\u{ff}",
        ];
        for text in refused {
            assert_eq!(parse_double(text.as_bytes()), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_double_is_read_back_from_its_text(bits: u64) {
            let value = f64::from_bits(bits);
            if !value.is_nan() {
                let text = format_double(value);
                prop_assert!(!text.spilled());
                prop_assert_eq!(parse_double(&text).map(f64::to_bits), Some(bits));
            }
        }
    }
}
