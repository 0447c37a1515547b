//! The 80-bit arithmetic of INCRBYFLOAT and HINCRBYFLOAT: read as strtold reads, added with 64 bits
//! of mantissa, printed as Redis's `ld2string` with `LD_STR_HUMAN`.
//!
//! Always true here: parsing, adding and printing are each rounded once, to nearest, ties to even,
//! as the C library does on x86-64, so that results are Redis's to the last digit.

use num_bigint::BigUint;
use rustc_apfloat::ieee::X87DoubleExtended;
use rustc_apfloat::{Float, Round};

use super::double::is_zero;
use crate::limits::NUMBER_BYTES_MAX;

/// A C `long double` of x86-64.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct LongDouble(X87DoubleExtended);

impl LongDouble {
    /// Reads a number: decimal, with or without exponent, or `inf`/`infinity`. Refused: space
    /// around it, NaN, what is too large or too small, `NUMBER_BYTES_MAX` bytes and more (as Redis
    /// does), and hexadecimal (which Redis takes).
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() >= NUMBER_BYTES_MAX {
            return None;
        }
        let (negative, unsigned) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        let value = if is_infinity(unsigned) {
            X87DoubleExtended::INFINITY
        } else {
            parse_decimal(unsigned)?
        };
        Some(LongDouble(if negative { -value } else { value }))
    }

    /// An integer, exactly.
    pub fn from_i64(value: i64) -> Self {
        LongDouble(X87DoubleExtended::from_i128(value.into()).value)
    }

    /// The largest finite number.
    pub fn largest() -> Self {
        LongDouble(X87DoubleExtended::largest())
    }

    /// Whether it is neither infinite nor NaN.
    pub fn is_finite(self) -> bool {
        self.0.is_finite()
    }

    /// As Redis prints the result of INCRBYFLOAT: at most 17 decimals, no exponent, trailing zeros
    /// cut, no negative zero. At most 4,951 bytes.
    pub fn append_human(self, out: &mut Vec<u8>) {
        if !self.0.is_finite() {
            let text: &[u8] = match (self.0.is_nan(), self.0.is_negative()) {
                (true, _) => b"nan",
                (false, true) => b"-inf",
                (false, false) => b"inf",
            };
            out.extend_from_slice(text);
            return;
        }
        // The value is mantissa * 2^exponent.
        let bits = self.0.to_bits();
        let mantissa = bits as u64;
        let exponent = ((bits >> 64) as i32 & 0x7fff).max(1) - 16_383 - 63;
        let out_start = out.len();
        if self.0.is_negative() {
            out.push(b'-');
        }
        if exponent >= 0 {
            let integer = BigUint::from(mantissa) << exponent as u32;
            out.extend_from_slice(integer.to_string().as_bytes());
        } else {
            append_fraction(mantissa, exponent.unsigned_abs(), out);
        }
        if &out[out_start..] == b"-0" {
            out.remove(out_start);
        }
    }
}

impl std::ops::Add for LongDouble {
    type Output = Self;

    /// The sum. Infinite above the range; NaN for `inf` and `-inf`.
    fn add(self, other: Self) -> Self {
        LongDouble((self.0 + other.0).value)
    }
}

impl std::ops::Sub for LongDouble {
    type Output = Self;

    /// The difference. Infinite above the range; NaN for `inf` and `inf`.
    fn sub(self, other: Self) -> Self {
        LongDouble((self.0 - other.0).value)
    }
}

impl std::ops::Neg for LongDouble {
    type Output = Self;

    fn neg(self) -> Self {
        LongDouble(-self.0)
    }
}

/// Appends `mantissa / 2^halvings` with 17 decimals, trailing zeros cut.
fn append_fraction(mantissa: u64, halvings: u32, out: &mut Vec<u8>) {
    const UNIT: u128 = 100_000_000_000_000_000;
    // Below 2^64 * 10^17 < 2^121: from 122 halvings on the result rounds to zero.
    let scaled = u128::from(mantissa) * UNIT;
    let rounded = if halvings > 122 {
        0
    } else {
        let quotient = scaled >> halvings;
        let remainder = scaled & ((1 << halvings) - 1);
        let half = 1u128 << (halvings - 1);
        let up = remainder > half || remainder == half && quotient & 1 == 1;
        quotient + u128::from(up)
    };
    let mut buffer = itoa::Buffer::new();
    out.extend_from_slice(buffer.format(rounded / UNIT).as_bytes());
    let fraction = (rounded % UNIT) as u64;
    if fraction != 0 {
        let digits = format!("{fraction:017}");
        out.push(b'.');
        out.extend_from_slice(digits.trim_end_matches('0').as_bytes());
    }
}

fn is_infinity(unsigned: &[u8]) -> bool {
    unsigned.eq_ignore_ascii_case(b"inf") || unsigned.eq_ignore_ascii_case(b"infinity")
}

/// `digits[.digits][e[+-]digits]`, with at least one digit before the exponent.
fn parse_decimal(unsigned: &[u8]) -> Option<X87DoubleExtended> {
    let exponent_at = unsigned.iter().position(|byte| matches!(byte, b'e' | b'E'));
    let mantissa = &unsigned[..exponent_at.unwrap_or(unsigned.len())];
    let point_at = mantissa
        .iter()
        .position(|&byte| byte == b'.')
        .unwrap_or(mantissa.len());
    let whole = &mantissa[..point_at];
    let fraction = mantissa.get(point_at + 1..).unwrap_or_default();
    let are_digits = |text: &[u8]| text.iter().all(u8::is_ascii_digit);
    if !are_digits(whole) || !are_digits(fraction) || whole.len() + fraction.len() == 0 {
        return None;
    }
    if let Some(at) = exponent_at {
        let digits = match &unsigned[at + 1..] {
            [b'-' | b'+', digits @ ..] => digits,
            digits => digits,
        };
        if digits.is_empty() || !are_digits(digits) {
            return None;
        }
    }
    if is_zero(unsigned) {
        return Some(X87DoubleExtended::ZERO);
    }
    let text = std::str::from_utf8(unsigned).ok()?;
    let value = X87DoubleExtended::from_str_r(text, Round::NearestTiesToEven)
        .ok()?
        .value;
    (value.is_finite() && !value.is_zero()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What INCRBYFLOAT answers.
    fn sum(stored: &str, increment: &str) -> Option<String> {
        let sum = LongDouble::parse(stored.as_bytes())?;
        let sum = sum + LongDouble::parse(increment.as_bytes())?;
        let mut text = Vec::new();
        sum.append_human(&mut text);
        Some(String::from_utf8(text).expect("not ASCII"))
    }

    /// The answers of redis-server 7.0.15, which was asked 6,000 random pairs.
    #[test]
    fn sums_are_those_of_redis() {
        let cases: &[(&str, &str, &str)] = &[
            ("0.1", "0.2", "0.3"),
            ("10.50", "0.1", "10.6"),
            ("5.0e3", "200", "5200"),
            ("3.0", "1.000000000000000005", "4.00000000000000001"),
            ("1", "-0.99999999999999999", "0.00000000000000001"),
            ("-1e-18", "0", "0"),
            ("1e30", "1e-17", "1000000000000000000024696061952"),
            ("-0", "-0", "0"),
            ("1e40", "1", "9999999999999999999783686092270256259072"),
            ("3.6e-4951", "0", "0"),
            ("9223372036854775807", "1", "9223372036854775808"),
            ("18446744073709551616", "1", "18446744073709551616"),
            ("0.000000000000000005", "0", "0"),
            ("0.000000000000000015", "0", "0.00000000000000002"),
            (
                "0.00000000000000000500000000000000001",
                "0",
                "0.00000000000000001",
            ),
            (
                "1.2194273389463795e-194",
                "15.1172226187764257043865e-797",
                "0",
            ),
            ("-9.632727821343849e-145", "3.6e-4951", "0"),
            ("868939", "-649811012e20", "-64981101200000000001874853888"),
            (
                "-8049187906387502347.5269445268154895140",
                "980262438e20",
                "98026243791950812087408656384",
            ),
            (
                "659739625e29",
                "-117723",
                "65973962500000000002037059370415554560",
            ),
            (
                "-351593577e23",
                "319453729e14",
                "-35159357668054627101566719492096",
            ),
            ("-2.670040963064036", "5.5e-17", "-2.67004096306403594"),
            ("6.5e-17", "301775459e-15", "0.00000030177545907"),
            (
                "4.5e-17",
                "0.0000000000000001025925402733",
                "0.00000000000000015",
            ),
            ("1.5e-17", "-584.71898087", "-584.71898086999999999"),
            ("2.5e-17", "-752142650e-23", "-0.0000000000000075"),
            ("-109775033e5", "2.5e-17", "-10977503300000"),
            (
                "7.5e-17",
                "-929.482755695392597772",
                "-929.48275569539259772",
            ),
            ("1.5e-17", "-369107639e-5", "-3691.07638999999999996"),
            ("738626383e-9", "-1.5996996281939868", "-0.8610732451939868"),
            ("2.5e-17", "-882541056e-19", "-0.00000000008825408"),
            ("7.5e-17", "-461851555e-19", "-0.00000000004618508"),
            ("251039779e-20", "-363404657e-11", "-0.0036340465674896"),
            (
                "5.5e-17",
                "-1684591210361390593.15335019837265979532",
                "-1684591210361390593.125",
            ),
            (
                "110574385394029259",
                "1.9290679105408266",
                "110574385394029260.9296875",
            ),
            (
                "-874968384e-7",
                "-9208745876647375165.1136635125545660424",
                "-9208745876647375252.5",
            ),
            (
                "-525962189e-12",
                "-2815377355173869667.1899263714368043325",
                "-2815377355173869667.25",
            ),
            ("-54719", "-424889644e-7", "-54761.48896440000000041"),
            (
                "-612638227e-12",
                "-345.69779330558583297",
                "-345.69840594381283297",
            ),
            (
                "-349.1431",
                "824091434825429",
                "824091434825079.85687255859375",
            ),
            (
                "0.00000987855123700",
                "-611.9467066",
                "-611.94669672144876299",
            ),
            (
                "-800528892079687482.16524814816816261214",
                "-347371917e-15",
                "-800528892079687482.1875",
            ),
            (
                "4.075751105452278",
                "-357.332033165473490",
                "-353.25628206002121198",
            ),
            (
                "62.286502226340783100723e-2003",
                "-2664627905957226277.4377001645035191807",
                "-2664627905957226277.5",
            ),
            ("-712.7", "6.737365124032138", "-705.96263487596786201"),
            (
                "-373239056e-19",
                "-4027436714902310388.5422968567610015475",
                "-4027436714902310388.5",
            ),
            ("-569.604504570383", "251682", "251112.39549542961700013"),
            (
                "93.706287789011640962106e-3761",
                "0.23865661295098306",
                "0.23865661295098306",
            ),
            ("4.5e-17", "4.5e-17", "0.00000000000000009"),
            ("-8.487894740421222e-123", "4933", "4933"),
            ("718157335e-38", "779920652e-26", "0.00000000000000001"),
            ("1e0005", "5.803365196283553e-67", "100000"),
            ("00012", "51.283025412451417051424e-978", "12"),
            ("-.5", "93.501992067121516321163e-3205", "-0.5"),
            ("-.5", "759340", "759339.5"),
            (
                "1.",
                "-15453765397467547207.16238090835217118476",
                "-15453765397467547206",
            ),
            ("0.000646821576519", "+1", "1.000646821576519"),
            ("619.14", "3.5e-17", "619.14000000000000007"),
            (
                "0.000000000000000000000233954091783",
                "5.5e-17",
                "0.00000000000000006",
            ),
            ("0.0000000000000000774929273031", "-816990", "-816990"),
            (
                "5.513961043015087",
                "-13727610848504588800.12965720049155628376",
                "-13727610848504588794",
            ),
            (
                "8.5e-17",
                "-3506654361917357569.15521592085308911822",
                "-3506654361917357569.25",
            ),
        ];
        for (stored, increment, expected) in cases {
            assert_eq!(
                sum(stored, increment).as_deref(),
                Some(*expected),
                "{stored} {increment}"
            );
        }
    }

    #[test]
    fn what_redis_refuses_is_refused() {
        let refused = [
            "",
            ".",
            "-",
            "+",
            "nan",
            "-nan",
            "nan(1)",
            "1e",
            "1e+",
            "e1",
            "1..2",
            "1.2.3",
            "--1",
            "+-1",
            " 1",
            "1 ",
            "- 1",
            "1e5.5",
            "infx",
            "inf1",
            "1e99999",
            "-1e99999",
            "1.2e4932",
            "1e-99999",
            "1e99999999999999999999999",
            "1e-99999999999999999999999",
            "1\0",
            "0x10",
            "1_0",
        ];
        for text in refused {
            assert!(LongDouble::parse(text.as_bytes()).is_none(), "{text:?}");
        }
        let long = |digits: usize| LongDouble::parse(&vec![b'0'; digits]).is_some();
        assert!(long(NUMBER_BYTES_MAX - 1) && !long(NUMBER_BYTES_MAX));
        let trailing = [&b"1."[..], &[b'0'; 5_000], b"e2147483647"].concat();
        assert!(LongDouble::parse(&trailing).is_none());
        let leading = [&b"0."[..], &[b'0'; 5_000], b"1e5001"].concat();
        assert!(LongDouble::parse(&leading).is_some());
    }

    #[test]
    fn infinity_is_seen_by_the_caller() {
        let infinite = LongDouble::parse(b"Infinity").expect("infinity is a number");
        let opposite = LongDouble::parse(b"-INF").expect("infinity is a number");
        let one = LongDouble::from_i64(1);
        for value in [infinite, opposite, infinite + one, infinite + opposite] {
            assert!(!value.is_finite());
        }
        let largest = LongDouble::parse(b"1.18e4932").expect("below the maximum");
        assert!(largest.is_finite() && !(largest + largest).is_finite());
    }

    #[test]
    fn integers_are_exact() {
        for value in [0, 1, -1, i64::MAX, i64::MIN, 1 << 53, (1 << 53) + 1] {
            let mut text = Vec::new();
            LongDouble::from_i64(value).append_human(&mut text);
            assert_eq!(text, value.to_string().as_bytes());
        }
    }
}
