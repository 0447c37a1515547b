//! BITFIELD: integers of 1 to 64 bits at any bit of a string.
//!
//! Always true: all operations are parsed before the first one runs; each writes the bytes that its
//! integer touches, at most nine, and nothing else.

use crate::command::KeyCommand;
use crate::command::spec::{Access, Arg, Group, Spec, Word, flag};
use crate::command::strings::bits::checked_bit_offset;
use crate::keyspace::Txn;
use crate::keyspace::key::Key;
use crate::number::parse_i64;
use crate::reply::{Reject, Reply};
use crate::resp::decode::Args;

const INVALID_TYPE: Reject = Reject::fixed(
    "ERR Invalid bitfield type. Use something like i16 u8. \
     Note that u64 is not supported but i64 is.",
);
const INVALID_OVERFLOW: Reject = Reject::fixed("ERR Invalid OVERFLOW type specified");
const ONLY_GET: Reject = Reject::fixed("ERR BITFIELD_RO only supports the GET subcommand");

/// An integer's place in a string and its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Field {
    signed: bool,
    /// 1 to 64, to 63 if unsigned.
    bits: u32,
    /// Its highest bit, from the beginning of the string.
    offset: u64,
}

/// What happens to a number that its field cannot hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Overflow {
    /// The low bits are kept.
    #[default]
    Wrap,
    /// The nearest number is taken.
    Saturate,
    /// Nothing is written, null is replied.
    Fail,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Get,
    Set(i64),
    Add(i64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Operation {
    field: Field,
    action: Action,
    overflow: Overflow,
}

impl Field {
    fn parse(kind: &[u8], offset: &[u8]) -> Result<Field, Reject> {
        let (signed, bits) = match kind {
            [b'i', bits @ ..] => (true, bits),
            [b'u', bits @ ..] => (false, bits),
            _ => return Err(INVALID_TYPE),
        };
        let bits_max = if signed { 64 } else { 63 };
        let bits = parse_i64(bits).filter(|bits| (1..=bits_max).contains(bits));
        let bits = bits.ok_or(INVALID_TYPE)?;
        let offset = match offset {
            [b'#', index @ ..] => parse_i64(index).and_then(|index| index.checked_mul(bits)),
            offset => parse_i64(offset),
        };
        let offset = offset.and_then(checked_bit_offset);
        Ok(Field {
            signed,
            bits: bits as u32,
            offset: offset.ok_or(Reject::bit_offset())?,
        })
    }

    fn first_byte(self) -> usize {
        (self.offset / 8) as usize
    }

    /// One behind the last byte that it touches.
    fn end_byte(self) -> usize {
        ((self.offset + u64::from(self.bits)).div_ceil(8)) as usize
    }

    /// The bytes that it touches as one number, highest byte first; behind the end they are zero.
    fn window(self, bytes: &[u8]) -> u128 {
        (self.first_byte()..self.end_byte()).fold(0, |window, index| {
            window << 8 | u128::from(bytes.get(index).copied().unwrap_or(0))
        })
    }

    /// Bits of the window behind the field.
    fn shift(self) -> u32 {
        (self.end_byte() as u64 * 8 - self.offset) as u32 - self.bits
    }

    fn mask(self) -> u128 {
        (1 << self.bits) - 1
    }

    /// The integer in a window.
    fn read(self, window: u128) -> i128 {
        let low = ((window >> self.shift()) & self.mask()) as i128;
        self.signed_if_so(low)
    }

    /// The low bits of a number as an integer of this kind.
    fn wrapped(self, number: i128) -> i128 {
        self.signed_if_so(number & self.mask() as i128)
    }

    fn signed_if_so(self, low: i128) -> i128 {
        if self.signed && low >> (self.bits - 1) != 0 {
            low - (1 << self.bits)
        } else {
            low
        }
    }

    /// The smallest and the largest integer of this kind.
    fn bounds(self) -> (i128, i128) {
        if self.signed {
            (-(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1)
        } else {
            (0, (1 << self.bits) - 1)
        }
    }

    /// What is written for a number; nothing if it does not fit and must.
    fn fit(self, number: i128, overflow: Overflow) -> Option<i128> {
        let (least, most) = self.bounds();
        match overflow {
            Overflow::Wrap => Some(self.wrapped(number)),
            Overflow::Saturate => Some(number.clamp(least, most)),
            Overflow::Fail => (least..=most).contains(&number).then_some(number),
        }
    }

    /// The window with the integer in the place of what was there.
    fn write(self, window: u128, number: i128) -> u128 {
        let bits = (number as u128 & self.mask()) << self.shift();
        window & !(self.mask() << self.shift()) | bits
    }
}

impl Operation {
    /// What it replies and what it writes, given the window: nothing for FAIL.
    fn run(self, window: u128) -> Option<(i128, i128)> {
        let before = self.field.read(window);
        match self.action {
            Action::Get => Some((before, before)),
            Action::Set(number) => {
                // To an unsigned field a negative number is a very large one, as in Redis.
                let number = if self.field.signed {
                    i128::from(number)
                } else {
                    i128::from(number as u64)
                };
                let after = self.field.fit(number, self.overflow)?;
                Some((before, after))
            }
            Action::Add(amount) => {
                let after = self.field.fit(before + i128::from(amount), self.overflow)?;
                Some((after, after))
            }
        }
    }
}

/// Takes the operations from a request, one after the other.
struct Operations<'a> {
    args: Args<'a>,
    at: usize,
    overflow: Overflow,
}

impl<'a> Operations<'a> {
    fn from(args: Args<'a>, at: u32) -> Operations<'a> {
        Operations {
            args,
            at: at as usize,
            overflow: Overflow::Wrap,
        }
    }

    /// The next words, if there are so many.
    fn take<const COUNT: usize>(&mut self) -> Result<[&'a [u8]; COUNT], Reject> {
        if self.args.len() - self.at < COUNT {
            return Err(Reject::syntax());
        }
        let words = std::array::from_fn(|index| self.args.get(self.at + index));
        self.at += COUNT;
        Ok(words)
    }

    fn number(text: &[u8]) -> Result<i64, Reject> {
        parse_i64(text).ok_or(Reject::not_an_integer())
    }

    fn parse_next(&mut self) -> Result<Option<Operation>, Reject> {
        while self.at < self.args.len() {
            let [name] = self.take()?;
            let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
            let (field, action) = if is("GET") {
                let [kind, offset] = self.take()?;
                (Field::parse(kind, offset)?, Action::Get)
            } else if is("SET") {
                let [kind, offset, value] = self.take()?;
                (
                    Field::parse(kind, offset)?,
                    Action::Set(Self::number(value)?),
                )
            } else if is("INCRBY") {
                let [kind, offset, amount] = self.take()?;
                (
                    Field::parse(kind, offset)?,
                    Action::Add(Self::number(amount)?),
                )
            } else if is("OVERFLOW") {
                let [how] = self.take()?;
                self.overflow = parse_overflow(how)?;
                continue;
            } else {
                return Err(Reject::syntax());
            };
            return Ok(Some(Operation {
                field,
                action,
                overflow: self.overflow,
            }));
        }
        Ok(None)
    }
}

impl Iterator for Operations<'_> {
    type Item = Result<Operation, Reject>;

    fn next(&mut self) -> Option<Self::Item> {
        self.parse_next().transpose()
    }
}

fn parse_overflow(text: &[u8]) -> Result<Overflow, Reject> {
    let kinds = [
        ("WRAP", Overflow::Wrap),
        ("SAT", Overflow::Saturate),
        ("FAIL", Overflow::Fail),
    ];
    let named = kinds
        .iter()
        .find(|(name, _)| text.eq_ignore_ascii_case(name.as_bytes()));
    Ok(named.ok_or(INVALID_OVERFLOW)?.1)
}

/// Reads and writes integers in a string.
#[derive(Default)]
pub struct BitField {
    key: Word,
    operations: Place,
}

/// Where the operations are, and what they come to.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    at: u32,
    count: usize,
    /// Length that the writes need, in bytes; 0 without a write.
    bytes: usize,
}

impl Place {
    fn check(args: Args<'_>, at: u32) -> Result<Place, Reject> {
        let mut place = Place {
            at,
            ..Place::default()
        };
        for operation in Operations::from(args, at) {
            let operation = operation?;
            place.count += 1;
            if operation.action != Action::Get {
                place.bytes = place.bytes.max(operation.field.end_byte());
            }
        }
        Ok(place)
    }
}

impl KeyCommand for BitField {
    const SPEC: Spec = Spec::write(
        "bitfield",
        Group::Bitmap,
        "Reads and writes integers of any width at any bit of a string.",
    )
    .since("3.2.0")
    .complexity("O(1) for each operation")
    .with(flag::DENYOOM)
    .access_of(|args| {
        let writes =
            |word: &[u8]| word.eq_ignore_ascii_case(b"SET") || word.eq_ignore_ascii_case(b"INCRBY");
        if args.iter().skip(2).any(writes) {
            Access::ReadUpdate
        } else {
            Access::Read
        }
    })
    .reply(
        "Array: for each GET the integer, for each SET the integer before, for each INCRBY the \
         integer afterwards, or null where it did not fit and OVERFLOW is FAIL.",
    )
    .notes(
        "A type is `i` or `u` and a number of bits, up to i64 and u63. An offset is in bits, with \
         `#` in integers of the type. OVERFLOW is for the operations behind it. SAT takes the \
         smallest integer for numbers below it, also where Redis's own arithmetic overflows.",
    );
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the key", |c, word| c.key = word),
        Arg::own(
            "operation",
            "what is done, in order",
            OPERATIONS,
            |c, args, at| {
                c.operations = Place::check(args, at)?;
                Ok(())
            },
        )
        .optional(),
    ];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        let len = txn.string(&key)?.map_or(0, |text| text.len());
        if self.operations.bytes > len {
            // The string grows even if nothing is written in the end, as in Redis.
            txn.write_part(&key, self.operations.bytes, b"")?;
        }
        reply.array(self.operations.count);
        if self.operations.count == 0 {
            return Ok(());
        }
        for operation in Operations::from(args, self.operations.at) {
            run_operation(operation?, txn, &key, reply)?;
        }
        Ok(())
    }
}

/// What BITFIELD's operations look like; they are parsed by [`Operations`].
const OPERATIONS: &[Arg<BitField>] = &[
    Arg::block(
        "get",
        "read an integer",
        &[
            Arg::text("encoding", "its type, such as u8 or i16", |_, _| {}),
            Arg::text("offset", "where, in bits or with # in integers", |_, _| {}),
        ],
    )
    .after("GET")
    .optional(),
    Arg::flag(
        "OVERFLOW WRAP|SAT|FAIL",
        "what is done with numbers that do not fit",
        |_| {},
    ),
    Arg::block(
        "set",
        "write an integer",
        &[
            Arg::text("encoding", "its type, such as u8 or i16", |_, _| {}),
            Arg::text("offset", "where, in bits or with # in integers", |_, _| {}),
            Arg::integer("value", "the integer", |_, _| {}),
        ],
    )
    .after("SET")
    .optional(),
    Arg::block(
        "incrby",
        "add to an integer",
        &[
            Arg::text("encoding", "its type, such as u8 or i16", |_, _| {}),
            Arg::text("offset", "where, in bits or with # in integers", |_, _| {}),
            Arg::integer("increment", "what is added", |_, _| {}),
        ],
    )
    .after("INCRBY")
    .optional(),
];

fn run_operation(
    operation: Operation,
    txn: &mut Txn<'_>,
    key: &Key<'_>,
    reply: &mut Reply<'_>,
) -> Result<(), Reject> {
    let field = operation.field;
    let window = txn
        .string(key)?
        .map_or(0, |text| text.with(|bytes| field.window(bytes)));
    let Some((answer, after)) = operation.run(window) else {
        reply.null();
        return Ok(());
    };
    let written = field.write(window, after);
    if written != window {
        let bytes = written.to_be_bytes();
        let width = field.end_byte() - field.first_byte();
        txn.write_part(key, field.first_byte(), &bytes[bytes.len() - width..])?;
    }
    // Every field's integers fit: u64 is not a type.
    reply.integer(answer as i64);
    Ok(())
}

/// Reads integers in a string.
#[derive(Default)]
pub struct BitFieldRo {
    key: Word,
    operations: Place,
}

impl KeyCommand for BitFieldRo {
    const SPEC: Spec = Spec::read(
        "bitfield_ro",
        Group::Bitmap,
        "Reads integers of any width at any bit of a string.",
    )
    .since("6.0.0")
    .complexity("O(1) for each operation")
    .with(flag::FAST)
    .reply("Array: for each GET the integer.");
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the key", |c, word| c.key = word),
        Arg::own(
            "operation",
            "what is read, in order",
            &[Arg::block(
                "get",
                "read an integer",
                &[
                    Arg::text(
                        "encoding",
                        "its type, such as u8 or i16",
                        |_: &mut BitFieldRo, _| {},
                    ),
                    Arg::text(
                        "offset",
                        "where, in bits or with # in integers",
                        |_: &mut BitFieldRo, _| {},
                    ),
                ],
            )
            .after("GET")
            .optional()],
            |c, args, at| {
                c.operations = Place::check(args, at)?;
                if c.operations.bytes > 0 {
                    return Err(ONLY_GET);
                }
                Ok(())
            },
        )
        .optional(),
    ];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        txn.string(&key)?;
        reply.array(self.operations.count);
        if self.operations.count == 0 {
            return Ok(());
        }
        for operation in Operations::from(args, self.operations.at) {
            run_operation(operation?, txn, &key, reply)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::command::transcript::Transcript;

    fn check_all(t: &mut Transcript, line: &str, expected: &[&str]) {
        let numbered: Vec<String> = expected
            .iter()
            .enumerate()
            .map(|(index, item)| match *item {
                "nil" => format!("{}) (nil)", index + 1),
                item => format!("{}) (integer) {item}", index + 1),
            })
            .collect();
        t.check(line, &numbered.join("\n"));
    }

    #[test]
    fn integers_are_written_and_read() {
        Transcript::in_both_modes(|t| {
            check_all(
                t,
                "BITFIELD a SET i8 0 -100 SET i8 8 101 GET i8 0",
                &["0", "0", "-100"],
            );
            check_all(
                t,
                "BITFIELD a SET u8 #0 255 GET u8 0 GET i8 0",
                &["156", "255", "-1"],
            );
            check_all(t, "BITFIELD a INCRBY u2 100 1 GET u4 0", &["1", "15"]);
            t.check("STRLEN a", "(integer) 13");
            check_all(
                t,
                "BITFIELD a SET i64 5 -9223372036854775808 GET i64 5",
                &["-1396115884484853760", "-9223372036854775808"],
            );
            check_all(t, "BITFIELD a GET u63 1000", &["0"]);
            t.check("BITFIELD a", "(empty array)");
            check_all(t, "BITFIELD_RO a GET u4 0", &["15"]);
            check_all(t, "BITFIELD_RO missing GET u4 0", &["0"]);
            t.check("GET missing", "(nil)");
        });
    }

    #[test]
    fn overflow_wraps_saturates_or_fails() {
        Transcript::in_both_modes(|t| {
            check_all(t, "BITFIELD a SET u8 0 250 INCRBY u8 0 10", &["0", "4"]);
            check_all(
                t,
                "BITFIELD a OVERFLOW SAT INCRBY u8 0 -10 INCRBY u8 0 300 \
                 OVERFLOW FAIL INCRBY u8 0 1",
                &["0", "255", "nil"],
            );
            check_all(
                t,
                "BITFIELD a OVERFLOW SAT SET u8 0 -1 SET u8 0 256",
                &["255", "255"],
            );
            check_all(
                t,
                "BITFIELD a SET u8 0 -1 SET u8 0 256 GET u8 0",
                &["255", "255", "0"],
            );
            check_all(
                t,
                "BITFIELD a OVERFLOW FAIL SET u8 0 -1 SET i8 0 128",
                &["nil", "nil"],
            );
            check_all(
                t,
                "BITFIELD b SET i64 0 9223372036854775807 INCRBY i64 0 1 \
                 OVERFLOW SAT INCRBY i64 0 -1",
                &["0", "-9223372036854775808", "-9223372036854775808"],
            );
            check_all(t, "BITFIELD c OVERFLOW FAIL INCRBY u2 0 5", &["nil"]);
            t.check("STRLEN c", "(integer) 1");
        });
    }

    #[test]
    fn bitfield_refuses_what_redis_refuses() {
        let mut t = Transcript::new();
        let wrong = "(error) ERR Invalid bitfield type. Use something like i16 u8. \
                     Note that u64 is not supported but i64 is.";
        for kind in ["u64", "i65", "u0", "x8", "U8", "i", "i08"] {
            t.check(&format!("BITFIELD a GET {kind} 0"), wrong);
        }
        let wrong = "(error) ERR bit offset is not an integer or out of range";
        for offset in ["-1", "x", "#", "#-1", "4294967296", "#536870912"] {
            t.check(&format!("BITFIELD a SET u8 {offset} 1"), wrong);
        }
        t.check(
            "BITFIELD a SET u8 4294967290 1",
            "(error) ERR string exceeds maximum allowed size (proto-max-bulk-len)",
        );
        check_all(&mut t, "BITFIELD a GET u8 4294967290", &["0"]);
        t.check("BITFIELD a SET u8 0", "(error) ERR syntax error");
        t.check("BITFIELD a FOO", "(error) ERR syntax error");
        t.check(
            "BITFIELD a SET u8 0 x",
            "(error) ERR value is not an integer or out of range",
        );
        t.check(
            "BITFIELD a SET u8 0 1 OVERFLOW BAR GET u8 0",
            "(error) ERR Invalid OVERFLOW type specified",
        );
        t.check(
            "BITFIELD_RO a SET u8 0 1",
            "(error) ERR BITFIELD_RO only supports the GET subcommand",
        );
        t.check("GET a", "(nil)");
        t.make_hash("h");
        let wrong = "(error) WRONGTYPE Operation against a key holding the wrong kind of value";
        t.check("BITFIELD h", wrong);
        t.check("BITFIELD h SET u8 0 1", wrong);
        t.check("BITFIELD_RO h", wrong);
    }

    #[test]
    fn an_integer_is_logged_as_the_bytes_that_it_touches() {
        let mut t = Transcript::new();
        t.check("SETRANGE a 100000 x", "(integer) 100001");
        check_all(&mut t, "BITFIELD a SET i64 4 -1", &["0"]);
        assert!(t.last_batch_bytes() < 200, "{} bytes", t.last_batch_bytes());
        t.recover();
        check_all(
            &mut t,
            "BITFIELD a GET i64 4 GET u4 0 GET u4 68",
            &["-1", "0", "0"],
        );
    }
}
