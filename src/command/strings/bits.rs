//! Single bits of a string, counted from the highest bit of the first byte: SETBIT, GETBIT,
//! BITCOUNT, BITPOS.

use std::ops::RangeInclusive;

use crate::command::KeyCommand;
use crate::command::spec::{Arg, Group, Spec, Type, Word, flag};
use crate::keyspace::txn::Text;
use crate::keyspace::{Txn, ValueRef};
use crate::limits::STRING_BYTES_MAX;
use crate::number::parse_i64;
use crate::reply::{Reject, Reply};
use crate::resp::decode::Args;

/// Reads the offset of a bit.
///
/// # Errors
/// What is no integer, negative, or in no string that could exist.
pub fn parse_bit_offset(text: &[u8]) -> Result<u64, Reject> {
    parse_i64(text)
        .and_then(checked_bit_offset)
        .ok_or(Reject::bit_offset())
}

/// The offset, if a string can have that bit.
pub fn checked_bit_offset(offset: i64) -> Option<u64> {
    let offset = u64::try_from(offset).ok()?;
    (offset / 8 < STRING_BYTES_MAX as u64).then_some(offset)
}

/// Sets a bit.
#[derive(Default)]
pub struct SetBit {
    key: Word,
    offset: u64,
    on: bool,
}

impl KeyCommand for SetBit {
    const SPEC: Spec = Spec::write(
        "setbit",
        Group::Bitmap,
        "Sets or clears a bit of the string at a key, which grows as needed.",
    )
    .since("2.2.0")
    .with(flag::DENYOOM)
    .reply("Integer: the bit before.");
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the key", |c, word| c.key = word),
        Arg::parsed(
            "offset",
            "which bit; 0 is the highest of the first byte",
            Type::Integer,
            |c, text, _| {
                c.offset = parse_bit_offset(text)?;
                Ok(())
            },
        ),
        Arg::parsed("value", "0 or 1", Type::Integer, |c, text, _| {
            c.on = match text {
                b"0" => false,
                b"1" => true,
                _ => return Err(Reject::bit_not_an_integer()),
            };
            Ok(())
        }),
    ];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        let index = (self.offset / 8) as usize;
        let mask = 0x80 >> (self.offset % 8);
        let is_cell = matches!(txn.value(&key), Some(ValueRef::Cell(_)));
        let byte = txn
            .string(&key)?
            .and_then(|text| text.with(|bytes| bytes.get(index).copied()));
        let before = byte.unwrap_or(0);
        let after = if self.on {
            before | mask
        } else {
            before & !mask
        };
        if byte != Some(after) || is_cell {
            txn.write_part(&key, index, &[after])?;
        }
        reply.integer(i64::from(before & mask != 0));
        Ok(())
    }
}

/// Reads a bit.
#[derive(Default)]
pub struct GetBit {
    key: Word,
    offset: u64,
}

impl KeyCommand for GetBit {
    const SPEC: Spec = Spec::read("getbit", Group::Bitmap, "Returns a bit of a string.")
        .since("2.2.0")
        .with(flag::FAST)
        .reply("Integer: the bit; 0 behind the end of the string.");
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the key", |c, word| c.key = word),
        Arg::parsed(
            "offset",
            "which bit; 0 is the highest of the first byte",
            Type::Integer,
            |c, text, _| {
                c.offset = parse_bit_offset(text)?;
                Ok(())
            },
        ),
    ];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        let index = (self.offset / 8) as usize;
        let mask = 0x80 >> (self.offset % 8);
        let byte = txn
            .string(&key)?
            .and_then(|text| text.with(|bytes| bytes.get(index).copied()));
        reply.integer(i64::from(byte.unwrap_or(0) & mask != 0));
        Ok(())
    }
}

/// A range of bytes or bits as the client gave it.
#[derive(Clone, Copy, Debug, Default)]
struct BitRange {
    first: Option<i64>,
    last: Option<i64>,
    in_bits: bool,
}

impl BitRange {
    /// Both ends count from the end of the string, and the first one is behind the last one.
    /// BITCOUNT then counts nothing; BITPOS moves both into the string first, as Redis does.
    fn is_crossed_from_end(self) -> bool {
        match (self.first, self.last) {
            (Some(first), Some(last)) => first < 0 && last < 0 && first > last,
            _ => false,
        }
    }

    /// The bits that it names in a string of so many bytes; nothing if there is none.
    fn bits(self, bytes: usize) -> Option<RangeInclusive<u64>> {
        let (first, last) = (self.first.unwrap_or(0), self.last.unwrap_or(-1));
        let unit_bits = if self.in_bits { 1 } else { 8 };
        let len = bytes as i64 * 8 / unit_bits;
        let from_end = |index: i64| {
            if index < 0 {
                (len + index).max(0)
            } else {
                index
            }
        };
        let first = from_end(first);
        let last = from_end(last).min(len - 1);
        if first > last {
            return None;
        }
        Some((first * unit_bits) as u64..=(last * unit_bits + unit_bits - 1) as u64)
    }
}

/// Counts the bits that are set.
#[derive(Default)]
pub struct BitCount {
    key: Word,
    range: BitRange,
}

impl KeyCommand for BitCount {
    const SPEC: Spec = Spec::read(
        "bitcount",
        Group::Bitmap,
        "Counts the bits of a string that are set.",
    )
    .since("2.6.0")
    .complexity("O(N) where N is the number of bytes in the range")
    .reply("Integer: how many are set.");
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the key", |c, word| c.key = word),
        Arg::block(
            "range",
            "where they are counted",
            &[
                Arg::integer(
                    "start",
                    "first byte or bit; negative: from the end",
                    |c: &mut BitCount, first| {
                        c.range.first = Some(first);
                    },
                ),
                Arg::integer(
                    "end",
                    "last byte or bit; negative: from the end",
                    |c: &mut BitCount, last| {
                        c.range.last = Some(last);
                    },
                ),
                Arg::one_of(
                    "unit",
                    "what the range counts",
                    &[
                        Arg::flag("BYTE", "bytes", |c: &mut BitCount| c.range.in_bits = false),
                        Arg::flag("BIT", "bits", |c: &mut BitCount| c.range.in_bits = true),
                    ],
                ),
            ],
        )
        .optional(),
    ];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        let count = txn.string(&key)?.map_or(0, |text| {
            text.with(|bytes| {
                let bits = self.range.bits(bytes.len());
                let bits = bits.filter(|_| !self.range.is_crossed_from_end());
                bits.map_or(0, |bits| count_ones(bytes, bits))
            })
        });
        reply.integer(count as i64);
        Ok(())
    }
}

/// The number of set bits in a range that lies in the string.
fn count_ones(bytes: &[u8], bits: RangeInclusive<u64>) -> u64 {
    let (first, last) = ((bits.start() / 8) as usize, (bits.end() / 8) as usize);
    let whole: u64 = bytes[first..=last]
        .chunks(8)
        .map(|chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from(u64::from_le_bytes(word).count_ones())
        })
        .sum();
    let before = bytes[first] & !first_mask(*bits.start());
    let behind = bytes[last] & !last_mask(*bits.end());
    whole - u64::from(before.count_ones()) - u64::from(behind.count_ones())
}

/// The bits of a byte from bit `offset` of the string on.
fn first_mask(offset: u64) -> u8 {
    0xff >> (offset % 8)
}

/// The bits of a byte up to bit `offset` of the string.
fn last_mask(offset: u64) -> u8 {
    0xff << (7 - offset % 8)
}

/// Finds the first bit that is set or clear.
#[derive(Default)]
pub struct BitPos {
    key: Word,
    on: bool,
    range: BitRange,
}

impl KeyCommand for BitPos {
    const SPEC: Spec = Spec::read(
        "bitpos",
        Group::Bitmap,
        "Finds the first bit of a string that is set, or clear.",
    )
    .since("2.8.7")
    .complexity("O(N) where N is the number of bytes in the range")
    .reply("Integer: the bit's offset from the beginning of the string, or -1.")
    .notes("Without an end, a string counts as followed by zero bits.");
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the key", |c, word| c.key = word),
        Arg::parsed("bit", "0 or 1", Type::Integer, |c, text, _| {
            c.on = match parse_i64(text).ok_or(Reject::not_an_integer())? {
                0 => false,
                1 => true,
                _ => return Err(Reject::fixed("ERR The bit argument must be 1 or 0.")),
            };
            Ok(())
        }),
        Arg::block(
            "range",
            "where it is searched",
            &[
                Arg::integer(
                    "start",
                    "first byte or bit; negative: from the end",
                    |c: &mut BitPos, first| {
                        c.range.first = Some(first);
                    },
                ),
                Arg::block(
                    "end-unit",
                    "the end of the range",
                    &[
                        Arg::integer(
                            "end",
                            "last byte or bit; negative: from the end",
                            |c: &mut BitPos, last| {
                                c.range.last = Some(last);
                            },
                        ),
                        Arg::one_of(
                            "unit",
                            "what the range counts",
                            &[
                                Arg::flag("BYTE", "bytes", |c: &mut BitPos| {
                                    c.range.in_bits = false
                                }),
                                Arg::flag("BIT", "bits", |c: &mut BitPos| c.range.in_bits = true),
                            ],
                        ),
                    ],
                )
                .optional(),
            ],
        )
        .optional(),
    ];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        let place = match txn.string(&key)? {
            // As an endless row of zero bits.
            None => (!self.on).then_some(0),
            Some(text) => self.find(text),
        };
        reply.integer(place.map_or(-1, |place| place as i64));
        Ok(())
    }
}

impl BitPos {
    fn find(&self, text: Text<'_>) -> Option<u64> {
        text.with(|bytes| {
            let bits = self.range.bits(bytes.len())?;
            let behind = bits.end() + 1;
            let zeros_follow = !self.on && self.range.last.is_none();
            first_bit(bytes, self.on, bits).or(zeros_follow.then_some(behind))
        })
    }
}

/// The first bit like `on` in a range that lies in the string.
fn first_bit(bytes: &[u8], on: bool, bits: RangeInclusive<u64>) -> Option<u64> {
    let (first, last) = ((bits.start() / 8) as usize, (bits.end() / 8) as usize);
    let other = if on { 0x00 } else { 0xff };
    let found = |index: usize, mask: u8| {
        let wanted = (bytes[index] ^ other) & mask;
        (wanted != 0).then(|| index as u64 * 8 + u64::from(wanted.leading_zeros()))
    };
    if first == last {
        return found(first, first_mask(*bits.start()) & last_mask(*bits.end()));
    }
    found(first, first_mask(*bits.start())).or_else(|| {
        let between = bytes[first + 1..last]
            .iter()
            .position(|byte| *byte != other);
        match between {
            Some(index) => found(first + 1 + index, 0xff),
            None => found(last, last_mask(*bits.end())),
        }
    })
}

#[cfg(test)]
mod tests {
    use crate::command::transcript::Transcript;

    #[test]
    fn bits_are_set_and_read() {
        Transcript::in_both_modes(|t| {
            t.check("SETBIT a 7 1", "(integer) 0");
            t.check("GET a", "\"\\x01\"");
            t.check("SETBIT a 7 0", "(integer) 1");
            t.check("SETBIT a 17 1", "(integer) 0");
            t.check("STRLEN a", "(integer) 3");
            t.check("GETBIT a 17", "(integer) 1");
            t.check("GETBIT a 16", "(integer) 0");
            t.check("GETBIT a 4000000000", "(integer) 0");
            t.check("SET n 1", "OK");
            t.check("GETBIT n 7", "(integer) 1");
            t.check("SETBIT n 6 1", "(integer) 0");
            t.check("INCR n", "(integer) 4");
            t.check("SETBIT b 23 0", "(integer) 0");
            t.check("STRLEN b", "(integer) 3");
        });
    }

    #[test]
    fn bit_offsets_have_limits() {
        let mut t = Transcript::new();
        let wrong = "(error) ERR bit offset is not an integer or out of range";
        t.check("SETBIT a -1 1", wrong);
        t.check("SETBIT a x 1", wrong);
        t.check("SETBIT a 4294967296 1", wrong);
        t.check("GETBIT a 4294967296", wrong);
        t.check("GETBIT a #1", wrong);
        let wrong = "(error) ERR bit is not an integer or out of range";
        t.check("SETBIT a 1 2", wrong);
        t.check("SETBIT a 1 x", wrong);
        t.check("GET a", "(nil)");
        t.make_hash("h");
        let wrong = "(error) WRONGTYPE Operation against a key holding the wrong kind of value";
        t.check("SETBIT h 1 1", wrong);
        t.check("GETBIT h 1", wrong);
        t.check("BITCOUNT h", wrong);
        t.check("BITPOS h 1", wrong);
    }

    #[test]
    fn set_bits_are_counted() {
        let mut t = Transcript::new();
        t.check("SET a foobar", "OK");
        t.check("BITCOUNT a", "(integer) 26");
        t.check("BITCOUNT a 0 0", "(integer) 4");
        t.check("BITCOUNT a 1 1 byte", "(integer) 6");
        t.check("BITCOUNT a 5 30 BIT", "(integer) 17");
        t.check("BITCOUNT a 5 5 BIT", "(integer) 1");
        t.check("BITCOUNT a -2 -1", "(integer) 7");
        t.check("BITCOUNT a 4 2", "(integer) 0");
        t.check("BITCOUNT a -1 -2", "(integer) 0");
        t.check("BITCOUNT a 100 200", "(integer) 0");
        t.check("BITCOUNT missing", "(integer) 0");
        t.check("BITCOUNT a 0", "(error) ERR syntax error");
        t.check("BITCOUNT a 0 1 HELLO", "(error) ERR syntax error");
        t.check("BITCOUNT a 0 1 BIT 2", "(error) ERR syntax error");
        t.check(
            "BITCOUNT a a b",
            "(error) ERR value is not an integer or out of range",
        );
    }

    #[test]
    fn the_first_bit_is_found() {
        let mut t = Transcript::new();
        t.check("SET a \"\\xff\\xf0\\x00\"", "OK");
        t.check("BITPOS a 0", "(integer) 12");
        t.check("BITPOS a 1", "(integer) 0");
        t.check("BITPOS a 1 2", "(integer) -1");
        t.check("BITPOS a 1 1", "(integer) 8");
        t.check("BITPOS a 0 2 -1", "(integer) 16");
        t.check("BITPOS a 1 7 15 BIT", "(integer) 7");
        t.check("BITPOS a 0 7 11 BIT", "(integer) -1");
        t.check("BITPOS a 0 13 14 BIT", "(integer) 13");
        t.check("BITPOS a 0 2 1", "(integer) -1");
        t.check("SET a \"\\xff\\xff\"", "OK");
        t.check("BITPOS a 0", "(integer) 16");
        t.check("BITPOS a 0 1", "(integer) 16");
        t.check("BITPOS a 0 0 -1", "(integer) -1");
        t.check("BITPOS a 0 5", "(integer) -1");
        t.check("BITPOS a 1 -8 -9", "(integer) 0");
        t.check("BITCOUNT a -8 -9", "(integer) 0");
        t.check("BITPOS missing 0", "(integer) 0");
        t.check("BITPOS missing 1", "(integer) -1");
        t.check("SET e \"\"", "OK");
        t.check("BITPOS e 0", "(integer) -1");
        t.check("BITPOS a 2", "(error) ERR The bit argument must be 1 or 0.");
        t.check(
            "BITPOS a x",
            "(error) ERR value is not an integer or out of range",
        );
        t.check("BITPOS a 0 0 1 FOO", "(error) ERR syntax error");
    }
}
