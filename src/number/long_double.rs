//! The 80-bit arithmetic of INCRBYFLOAT.

use rustc_apfloat::ieee::X87DoubleExtended;

/// A C `long double` as x86-64 has it, so that sums are those of Redis to the last digit.
#[derive(Clone, Copy, Debug)]
pub struct LongDouble(X87DoubleExtended);

impl LongDouble {
    /// Reads a number as Redis's `string2ld`; `inf` is read, NaN and out of range are refused.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let _ = text;
        todo!()
    }

    /// An integer, exactly.
    pub fn from_i64(value: i64) -> Self {
        let _ = value;
        todo!()
    }

    /// The sum, rounded to 64 bits of mantissa. May be infinite or NaN.
    pub fn add(self, other: Self) -> Self {
        let _ = other;
        todo!()
    }

    /// Whether it is neither infinite nor NaN.
    pub fn is_finite(self) -> bool {
        todo!()
    }

    /// As Redis prints the result of INCRBYFLOAT: 17 decimals, no exponent, trailing zeros cut.
    pub fn append_human(self, out: &mut Vec<u8>) {
        let _ = out;
        todo!()
    }
}
