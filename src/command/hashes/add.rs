//! Numbers in fields that are added to in place: HINCRBY, HINCRBYFLOAT.

use crate::command::KeyCommand;
use crate::command::spec::{Arg, Group, Needs, Spec, Type, Word, flag};
use crate::keyspace::{FieldValue, Txn};
use crate::number::LongDouble;
use crate::reply::{Reject, Reply};
use crate::resp::decode::Args;

/// Adds an integer.
#[derive(Default)]
pub(super) struct HIncrBy {
    key: Word,
    field: Word,
    by: i64,
}

impl KeyCommand for HIncrBy {
    const SPEC: Spec = Spec::write(
        "hincrby",
        Group::Hash,
        "Adds an amount to the integer in a field; a missing field counts as 0.",
    )
    .since("2.0.0")
    .complexity("O(log N)")
    .with(flag::FAST | flag::DENYOOM)
    .reply("Integer: the value after the addition.")
    .notes("The field keeps its deadline.");
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the hash", |c, word| c.key = word),
        Arg::text("field", "a name", |c, word| c.field = word),
        Arg::integer("increment", "what is added", |c, by| c.by = by),
    ];

    fn needs(&self) -> Needs {
        self.field.into()
    }

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        reply.integer(txn.add_field(&key, args.word(self.field), self.by)?);
        Ok(())
    }
}

/// Adds a decimal number.
#[derive(Default)]
pub(super) struct HIncrByFloat {
    key: Word,
    field: Word,
    by: Option<LongDouble>,
}

impl KeyCommand for HIncrByFloat {
    const SPEC: Spec = Spec::write(
        "hincrbyfloat",
        Group::Hash,
        "Adds a decimal number to the number in a field; a missing field counts as 0.",
    )
    .since("2.6.0")
    .complexity("O(log N)")
    .with(flag::FAST | flag::DENYOOM)
    .reply("Bulk string: the value after the addition.")
    .notes(
        "Calculated with 64 bits of mantissa; at most 17 decimals and no exponent are kept. The \
         field keeps its deadline.",
    );
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the hash", |c, word| c.key = word),
        Arg::text("field", "a name", |c, word| c.field = word),
        Arg::parsed("increment", "what is added", Type::Double, |c, text, _| {
            let by = LongDouble::parse(text).ok_or(Reject::not_a_float())?;
            if !by.is_finite() {
                return Err(Reject::fixed("ERR value is NaN or Infinity"));
            }
            c.by = Some(by);
            Ok(())
        }),
    ];

    fn needs(&self) -> Needs {
        self.field.into()
    }

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        let name = args.word(self.field);
        let (before, expires_at_ms) = match txn.field(&key, name)? {
            None => (LongDouble::from_i64(0), 0),
            Some(field) => (long_double(&field.value)?, field.expires_at_ms),
        };
        let after = before + self.by.unwrap_or(LongDouble::from_i64(0));
        if !after.is_finite() {
            return Err(Reject::nan_or_infinity());
        }
        let mut text = Vec::new();
        after.append_human(&mut text);
        txn.put_field(&key, name, FieldValue::from_bytes(&text), expires_at_ms)?;
        reply.bulk(&text);
        Ok(())
    }
}

/// The number that a value is.
///
/// # Errors
/// No number.
fn long_double(value: &FieldValue) -> Result<LongDouble, Reject> {
    match value.counter() {
        Some(number) => Ok(LongDouble::from_i64(number)),
        None => LongDouble::parse(value.text().unwrap_or_default())
            .ok_or(Reject::fixed("ERR hash value is not a float")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use crate::command::transcript::Transcript;

    #[test]
    fn integers_in_fields_are_added_to() {
        Transcript::in_both_modes(|t| {
            t.check("HINCRBY h a 5", "(integer) 5");
            t.check("HINCRBY h a -7", "(integer) -2");
            t.check(
                "HSET h max 9223372036854775807 text x zero 01",
                "(integer) 3",
            );
            let overflow = "(error) ERR increment or decrement would overflow";
            t.check("HINCRBY h max 1", overflow);
            t.check("HINCRBY h a -9223372036854775807", overflow);
            t.check(
                "HINCRBY h text 1",
                "(error) ERR hash value is not an integer",
            );
            t.check(
                "HINCRBY h zero 1",
                "(error) ERR hash value is not an integer",
            );
            let refused = "(error) ERR value is not an integer or out of range";
            t.check("HINCRBY h a 1.5", refused);
            t.check("HINCRBY none a x", refused);
            t.check("HGET h a", "\"-2\"");
            t.check("HLEN none", "(integer) 0");
        });
    }

    #[test]
    fn decimal_numbers_in_fields_are_added_to() {
        Transcript::in_both_modes(|t| {
            t.check("HINCRBYFLOAT h a 10.50", "\"10.5\"");
            t.check("HINCRBYFLOAT h a 0.1", "\"10.6\"");
            t.check("HINCRBYFLOAT h a -10.6", "\"0\"");
            t.check("HINCRBYFLOAT h b 5.0e3", "\"5000\"");
            t.check("HINCRBY h b 1", "(integer) 5001");
            t.check("HSET h text x", "(integer) 1");
            t.check(
                "HINCRBYFLOAT h text 1",
                "(error) ERR hash value is not a float",
            );
            t.check(
                "HINCRBYFLOAT h a x",
                "(error) ERR value is not a valid float",
            );
            t.check(
                "HINCRBYFLOAT h a inf",
                "(error) ERR value is NaN or Infinity",
            );
            t.check("HSET h big 1.1e4932", "(integer) 1");
            t.check(
                "HINCRBYFLOAT h big 1.1e4932",
                "(error) ERR increment would produce NaN or Infinity",
            );
            t.check("HGET h big", "\"1.1e4932\"");
        });
    }

    #[test]
    fn one_field_of_a_large_hash_costs_little_and_logs_little() {
        let mut t = Transcript::new();
        // Of one that hibernates a field is read, and each command is followed by a checkpoint.
        let hibernates = t.hibernates();
        const FIELDS: usize = 100_000;
        let names: Vec<Vec<u8>> = (0..FIELDS)
            .map(|n| format!("field:{n}").into_bytes())
            .collect();
        let mut call: Vec<&[u8]> = vec![b"HSET", b"h"];
        for name in &names {
            call.extend([&name[..], b"0"]);
        }
        let begin = Instant::now();
        assert_eq!(t.run_bytes(&call).trim_end(), "(integer) 100000");
        let set = begin.elapsed();
        let begin = Instant::now();
        let changed = if hibernates { 10 } else { FIELDS };
        for name in &names[..changed] {
            assert_eq!(
                t.run_bytes(&[b"HINCRBY", b"h", name, b"1"]).trim_end(),
                "(integer) 1"
            );
            assert!(t.last_batch_bytes() < 64, "{} bytes", t.last_batch_bytes());
        }
        let each = begin.elapsed() / changed as u32;
        println!("HSET of {FIELDS} fields: {set:?}; HINCRBY: {each:?} each");
        // Far above what it takes, far below what a walk over the fields would take.
        assert!(
            hibernates || each.as_micros() < 200,
            "{each:?} for each HINCRBY"
        );
        t.check("HLEN h", "(integer) 100000");
    }
}
