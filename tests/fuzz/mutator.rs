//! Changes to bytes: flips, cuts, repeats, splices, numbers and words of the protocol.

use rand::RngExt;
use rand_xoshiro::Xoshiro256PlusPlus;

const WORDS: &[&str] = &[
    "\r\n",
    "*",
    "$",
    "*1\r\n",
    "*-1\r\n",
    "$-1\r\n",
    "$0\r\n\r\n",
    "*0\r\n",
    "\"",
    "\\x00",
    "\\",
    "'",
    "-0",
    "-1",
    "0",
    "1",
    "9223372036854775807",
    "-9223372036854775808",
    "1e308",
    "nan",
    "inf",
    "0.1",
    "18446744073709551616",
    "idle",
    "EX",
    "PX",
    "PXAT",
    "KEEPTTL",
    "NX",
    "XX",
    "GT",
    "IFEQ",
    "GET",
    "SET",
    "FIELDS",
    "FNX",
    "COUNT",
    "MATCH",
    "LIMIT",
    "BYINT",
    "BYFLOAT",
    "UBOUND",
    "OWNER",
    "RESULT",
    "FROM",
    "IFTOKEN",
    "MULTI\r\n",
    "EXEC\r\n",
    "DISCARD\r\n",
    "WATCH a\r\n",
    "HELLO 3\r\n",
    "RESET\r\n",
    "SELECT 1\r\n",
    "CLIENT REPLY OFF\r\n",
    "MONITOR\r\n",
    "{",
    "}",
];

/// One to a few changes; `other` is another input to take from.
pub fn mutate(input: &mut Vec<u8>, other: &[u8], random: &mut Xoshiro256PlusPlus) {
    for _ in 0..1 << random.random_range(0..4) {
        change(input, other, random);
    }
}

fn change(input: &mut Vec<u8>, other: &[u8], random: &mut Xoshiro256PlusPlus) {
    let at = random.random_range(0..=input.len());
    let length = random.random_range(0..=32.min(input.len() - at));
    match random.random_range(0..9) {
        0 if at < input.len() => input[at] ^= 1 << random.random_range(0..8),
        1 if at < input.len() => input[at] = random.random_range(0..=255),
        2 => drop(input.drain(at..at + length)),
        3 => {
            let copy = input[at..at + length].to_vec();
            let to = random.random_range(0..=input.len());
            input.splice(to..to, copy);
        }
        4 => {
            let from = random.random_range(0..=other.len());
            let length = random.random_range(0..=other.len() - from);
            input.splice(at..at, other[from..from + length].iter().copied());
        }
        5 => {
            let word = WORDS[random.random_range(0..WORDS.len())];
            input.splice(at..at, word.bytes());
        }
        6 => input.truncate(at),
        7 => {
            let bytes: Vec<u8> = (0..length).map(|_| random.random_range(0..=255)).collect();
            input.splice(at..at, bytes);
        }
        _ => number(input, at, random),
    }
}

/// Changes the first number behind `at`.
fn number(input: &mut Vec<u8>, at: usize, random: &mut Xoshiro256PlusPlus) {
    let Some(start) = (at..input.len()).find(|at| input[*at].is_ascii_digit()) else {
        return;
    };
    let digits = input[start..].iter().take_while(|b| b.is_ascii_digit());
    let end = start + digits.count();
    let number = match random.random_range(0..4) {
        0 => random.random_range(0..20_u64),
        1 => 1 << random.random_range(0..64),
        2 => (1 << random.random_range(1..64)) - 1,
        _ => random.random_range(0..100_000),
    };
    input.splice(start..end, number.to_string().into_bytes());
}
