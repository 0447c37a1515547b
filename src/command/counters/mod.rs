//! Counters: strings that are integers (or decimal numbers) and are added to in place.
//!
//! Always true: an addition that would overflow changes nothing.

use crate::command::spec::{Arg, Group, Spec, Type, Word, flag};
use crate::command::{KeyCommand, Row};
use crate::keyspace::Txn;
use crate::keyspace::txn::Text;
use crate::number::LongDouble;
use crate::reply::{Reject, Reply};
use crate::resp::decode::Args;

mod increx;
#[cfg(test)]
mod model;

/// The family's commands.
pub const COMMANDS: &[Row] = &[
    Row::keys::<Incr>(),
    Row::keys::<Decr>(),
    Row::keys::<IncrBy>(),
    Row::keys::<DecrBy>(),
    Row::keys::<IncrByFloat>(),
    Row::keys::<increx::IncrEx>(),
];

/// Adds 1.
#[derive(Default)]
struct Incr {
    key: Word,
}

impl KeyCommand for Incr {
    const SPEC: Spec = Spec::write(
        "incr",
        Group::String,
        "Adds 1 to the integer at a key; a missing key counts as 0.",
    )
    .with(flag::FAST | flag::DENYOOM)
    .reply("Integer: the value after the addition.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::key("key", "the counter", |c, word| c.key = word)];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        reply.integer(txn.add(&key, 1)?);
        Ok(())
    }
}

/// Subtracts 1.
#[derive(Default)]
struct Decr {
    key: Word,
}

impl KeyCommand for Decr {
    const SPEC: Spec = Spec::write(
        "decr",
        Group::String,
        "Subtracts 1 from the integer at a key; a missing key counts as 0.",
    )
    .with(flag::FAST | flag::DENYOOM)
    .reply("Integer: the value after the subtraction.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::key("key", "the counter", |c, word| c.key = word)];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        reply.integer(txn.add(&key, -1)?);
        Ok(())
    }
}

/// Adds an amount.
#[derive(Default)]
struct IncrBy {
    key: Word,
    by: i64,
}

impl KeyCommand for IncrBy {
    const SPEC: Spec = Spec::write(
        "incrby",
        Group::String,
        "Adds an amount to the integer at a key; a missing key counts as 0.",
    )
    .with(flag::FAST | flag::DENYOOM)
    .reply("Integer: the value after the addition.");
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the counter", |c, word| c.key = word),
        Arg::integer("increment", "what is added", |c, by| c.by = by),
    ];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        reply.integer(txn.add(&key, self.by)?);
        Ok(())
    }
}

/// Subtracts an amount.
#[derive(Default)]
struct DecrBy {
    key: Word,
    by: i64,
}

impl KeyCommand for DecrBy {
    const SPEC: Spec = Spec::write(
        "decrby",
        Group::String,
        "Subtracts an amount from the integer at a key; a missing key counts as 0.",
    )
    .with(flag::FAST | flag::DENYOOM)
    .reply("Integer: the value after the subtraction.");
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the counter", |c, word| c.key = word),
        Arg::integer("decrement", "what is subtracted", |c, by| c.by = by),
    ];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        let by = self.by.checked_neg();
        let by = by.ok_or(Reject::fixed("ERR decrement would overflow"))?;
        reply.integer(txn.add(&key, by)?);
        Ok(())
    }
}

/// Adds a decimal number.
#[derive(Default)]
struct IncrByFloat {
    key: Word,
    by: Option<LongDouble>,
}

impl KeyCommand for IncrByFloat {
    const SPEC: Spec = Spec::write(
        "incrbyfloat",
        Group::String,
        "Adds a decimal number to the number at a key; a missing key counts as 0.",
    )
    .since("2.6.0")
    .with(flag::FAST | flag::DENYOOM)
    .reply("Bulk string: the value after the addition.")
    .notes("Calculated with 64 bits of mantissa; at most 17 decimals and no exponent are kept.");
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the counter", |c, word| c.key = word),
        Arg::parsed("increment", "what is added", Type::Double, |c, text, _| {
            c.by = Some(LongDouble::parse(text).ok_or(Reject::not_a_float())?);
            Ok(())
        }),
    ];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        let deadline_ms = txn.deadline_ms(&key).unwrap_or(0);
        let before = long_double(txn.string(&key)?)?;
        let after = before + self.by.unwrap_or(LongDouble::from_i64(0));
        if !after.is_finite() {
            return Err(Reject::nan_or_infinity());
        }
        let mut text = Vec::new();
        after.append_human(&mut text);
        txn.put_text(&key, &text, deadline_ms);
        reply.bulk(&text);
        Ok(())
    }
}

/// The number that a string is; 0 if there is none.
///
/// # Errors
/// No number.
fn long_double(text: Option<Text<'_>>) -> Result<LongDouble, Reject> {
    match text {
        None => Ok(LongDouble::from_i64(0)),
        Some(Text::Integer(value)) => Ok(LongDouble::from_i64(value)),
        Some(Text::Bytes(bytes)) => LongDouble::parse(bytes).ok_or(Reject::not_a_float()),
    }
}

#[cfg(test)]
mod tests {
    use crate::command::transcript::Transcript;

    const OVERFLOW: &str = "(error) ERR increment or decrement would overflow";
    const NO_INTEGER: &str = "(error) ERR value is not an integer or out of range";
    const WRONG_TYPE: &str =
        "(error) WRONGTYPE Operation against a key holding the wrong kind of value";

    #[test]
    fn a_counter_is_added_to_and_refuses_what_is_not_an_integer() {
        Transcript::in_both_modes(|t| {
            t.check("INCR a", "(integer) 1");
            t.check("INCRBY a 41", "(integer) 42");
            t.check("INCRBY a 9223372036854775807", OVERFLOW);
            t.check("INCRBY a x", NO_INTEGER);
            t.check("DECR a", "(integer) 41");
            t.check("DECRBY a 50", "(integer) -9");
            t.check("DECRBY a -9", "(integer) 0");
            t.check("DECR b", "(integer) -1");
            t.check("GET a", "\"0\"");
            t.check(
                "DECRBY a -9223372036854775808",
                "(error) ERR decrement would overflow",
            );
            t.check(
                "INCRBY a -9223372036854775808",
                "(integer) -9223372036854775808",
            );
            t.check("DECR a", OVERFLOW);
            for text in ["01", "-0", " 1", "1.0", "+1", "\"\"", "9223372036854775808"] {
                t.run_bytes(&[b"SET", b"s", text.trim_matches('"').as_bytes()]);
                t.check("INCR s", NO_INTEGER);
            }
            t.make_hash("h");
            t.check("INCR h", WRONG_TYPE);
            t.check("DECRBY h 1", WRONG_TYPE);
        });
    }

    #[test]
    fn a_counter_keeps_its_deadline() {
        Transcript::in_both_modes(|t| {
            t.check("SET a 1 PX 100", "OK");
            t.check("INCR a", "(integer) 2");
            t.check("INCRBYFLOAT a 0.5", "\"2.5\"");
            t.advance_ms(99);
            t.check("GET a", "\"2.5\"");
            t.advance_ms(1);
            t.check("INCR a", "(integer) 1");
        });
    }

    #[test]
    fn decimal_numbers_are_printed_as_redis_prints_them() {
        Transcript::in_both_modes(|t| {
            t.check("INCRBYFLOAT a 10.50", "\"10.5\"");
            t.check("INCRBYFLOAT a 0.1", "\"10.6\"");
            t.check("INCRBYFLOAT a -5", "\"5.6\"");
            t.check("SET a 5.0e3", "OK");
            t.check("INCRBYFLOAT a 2.0e2", "\"5200\"");
            t.check("INCR a", "(integer) 5201");
            t.check("INCRBYFLOAT b 0.1", "\"0.1\"");
            t.check("INCRBYFLOAT b 0.2", "\"0.3\"");
            t.check("INCRBYFLOAT b -0.3", "\"0\"");
            t.check("INCRBYFLOAT c 1e-18", "\"0\"");
            t.check("INCRBYFLOAT c 3.0000000000000001", "\"3.0000000000000001\"");
            t.check(
                "INCRBYFLOAT d 1e40",
                "\"9999999999999999999783686092270256259072\"",
            );
        });
    }

    #[test]
    fn decimal_numbers_stay_finite() {
        let mut t = Transcript::new();
        let no_float = "(error) ERR value is not a valid float";
        let not_finite = "(error) ERR increment would produce NaN or Infinity";
        t.check("INCRBYFLOAT a x", no_float);
        t.check("INCRBYFLOAT a nan", no_float);
        t.check("INCRBYFLOAT a 1e5000", no_float);
        t.check("INCRBYFLOAT a inf", not_finite);
        t.check("INCRBYFLOAT a -inf", not_finite);
        t.check("GET a", "(nil)");
        t.check("SET a 1e4932", "OK");
        t.check("INCRBYFLOAT a 1e4932", not_finite);
        t.check("SET a \" 1\"", "OK");
        t.check("INCRBYFLOAT a 1", no_float);
        t.check("SET a \"\"", "OK");
        t.check("INCRBYFLOAT a 1", no_float);
        t.make_hash("h");
        t.check("INCRBYFLOAT h 1", WRONG_TYPE);
    }

    /// As `COMMAND INFO` of Redis.
    #[test]
    fn arities_are_those_of_redis() {
        let arities = [
            ("incr", 2),
            ("decr", 2),
            ("incrby", 3),
            ("decrby", 3),
            ("incrbyfloat", 3),
            ("increx", -2),
        ];
        let rows: Vec<(&str, i32)> = super::COMMANDS
            .iter()
            .map(|row| (row.spec.name, row.arity))
            .collect();
        assert_eq!(rows, arities);
    }
}
