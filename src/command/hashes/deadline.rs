//! Deadlines of fields: HEXPIRE and its kin set them, HTTL and its kin read them, HPERSIST removes
//! them.

use std::marker::PhantomData;

use super::clause::{Clause, ClauseArgs, Form, deadline_ms};
use crate::command::KeyCommand;
use crate::command::expiry::Expiry;
use crate::command::spec::{Access, Arg, Group, Needs, Spec, Word, flag};
use crate::keyspace::Txn;
use crate::reply::{Reject, Reply};
use crate::resp::decode::Args;

/// There is no such field, or no such key.
const NO_FIELD: i64 = -2;
/// The field has no deadline.
const NO_DEADLINE: i64 = -1;

// ---- setting ---------------------------------------------------------------------------------

/// In which unit and from when on a deadline is given; one command each.
pub(super) trait When: Default + 'static {
    const NAME: &'static str;
    const SUMMARY: &'static str;
    const AMOUNT: &'static str;

    fn expiry(amount: i64) -> Expiry;
}

/// HEXPIRE.
#[derive(Default)]
pub(super) struct InSeconds;
/// HPEXPIRE.
#[derive(Default)]
pub(super) struct InMilliseconds;
/// HEXPIREAT.
#[derive(Default)]
pub(super) struct AtSeconds;
/// HPEXPIREAT.
#[derive(Default)]
pub(super) struct AtMilliseconds;

impl When for InSeconds {
    const NAME: &'static str = "hexpire";
    const SUMMARY: &'static str = "Sets how many seconds fields live from now on.";
    const AMOUNT: &'static str = "seconds";

    fn expiry(amount: i64) -> Expiry {
        Expiry::Seconds(amount)
    }
}

impl When for InMilliseconds {
    const NAME: &'static str = "hpexpire";
    const SUMMARY: &'static str = "Sets how many milliseconds fields live from now on.";
    const AMOUNT: &'static str = "milliseconds";

    fn expiry(amount: i64) -> Expiry {
        Expiry::Milliseconds(amount)
    }
}

impl When for AtSeconds {
    const NAME: &'static str = "hexpireat";
    const SUMMARY: &'static str = "Sets the deadline of fields as Unix time in seconds.";
    const AMOUNT: &'static str = "unix-time-seconds";

    fn expiry(amount: i64) -> Expiry {
        Expiry::AtSeconds(amount)
    }
}

impl When for AtMilliseconds {
    const NAME: &'static str = "hpexpireat";
    const SUMMARY: &'static str = "Sets the deadline of fields as Unix time in milliseconds.";
    const AMOUNT: &'static str = "unix-time-milliseconds";

    fn expiry(amount: i64) -> Expiry {
        Expiry::AtMilliseconds(amount)
    }
}

/// Sets deadlines.
#[derive(Default)]
pub(super) struct HExpire<W: When> {
    key: Word,
    amount: i64,
    clause: Clause,
    when: PhantomData<W>,
}

impl<W: When> KeyCommand for HExpire<W> {
    const SPEC: Spec = Spec::write(W::NAME, Group::Hash, W::SUMMARY)
        .since("7.4.0")
        .complexity("O(log N) for each field")
        .with(flag::FAST | flag::DENYOOM)
        .access(Access::Update)
        .reply(
            "Array of an integer for each field: 1 the deadline is set; 0 the condition is not \
             met; 2 the deadline has passed, so the field was deleted; -2 there is no such field.",
        )
        .notes("A field without a deadline counts as one that never expires for GT and LT.");
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the hash", |c, word| c.key = word),
        Arg::integer(W::AMOUNT, "when the fields expire", |c, amount| {
            c.amount = amount
        }),
        Arg::own(
            "fields",
            "a condition, and the fields",
            ClauseArgs::<Self>::EXPIRE,
            |c, args, at| {
                c.clause = Form::Expire.parse(args, at)?;
                Ok(())
            },
        ),
    ];

    fn needs(&self) -> Needs {
        Needs::AllFields
    }

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        let now_ms = txn.now_ms();
        let at_ms = deadline_ms(W::expiry(self.amount), now_ms, W::NAME)?.unwrap_or(0);
        reply.array(self.clause.fields.groups() as usize);
        for name in self.clause.fields.each(args, 0) {
            let before_ms = txn.field(&key, name)?.map(|field| field.expires_at_ms);
            let outcome = match before_ms {
                None => NO_FIELD,
                Some(before_ms) if !self.clause.condition.allows(before_ms, at_ms) => 0,
                Some(_) if at_ms <= now_ms => {
                    txn.delete_field(&key, name)?;
                    2
                }
                Some(_) => {
                    txn.set_field_deadline(&key, name, at_ms)?;
                    1
                }
            };
            reply.integer(outcome);
        }
        Ok(())
    }
}

// ---- reading ---------------------------------------------------------------------------------

/// How a deadline is told; one command each.
pub(super) trait Told: Default + 'static {
    const NAME: &'static str;
    const SUMMARY: &'static str;

    /// What is told of the deadline `at_ms`, which is later than `now_ms`.
    fn told(at_ms: u64, now_ms: u64) -> u64;
}

/// HTTL.
#[derive(Default)]
pub(super) struct SecondsLeft;
/// HPTTL.
#[derive(Default)]
pub(super) struct MillisecondsLeft;
/// HEXPIRETIME.
#[derive(Default)]
pub(super) struct UnixSeconds;
/// HPEXPIRETIME.
#[derive(Default)]
pub(super) struct UnixMilliseconds;

impl Told for SecondsLeft {
    const NAME: &'static str = "httl";
    const SUMMARY: &'static str = "Returns how many seconds fields have left, rounded up.";

    fn told(at_ms: u64, now_ms: u64) -> u64 {
        (at_ms - now_ms).div_ceil(1000)
    }
}

impl Told for MillisecondsLeft {
    const NAME: &'static str = "hpttl";
    const SUMMARY: &'static str = "Returns how many milliseconds fields have left.";

    fn told(at_ms: u64, now_ms: u64) -> u64 {
        at_ms - now_ms
    }
}

impl Told for UnixSeconds {
    const NAME: &'static str = "hexpiretime";
    const SUMMARY: &'static str =
        "Returns the deadline of fields as Unix time in seconds, rounded up.";

    fn told(at_ms: u64, _: u64) -> u64 {
        at_ms.div_ceil(1000)
    }
}

impl Told for UnixMilliseconds {
    const NAME: &'static str = "hpexpiretime";
    const SUMMARY: &'static str = "Returns the deadline of fields as Unix time in milliseconds.";

    fn told(at_ms: u64, _: u64) -> u64 {
        at_ms
    }
}

/// Reads deadlines.
#[derive(Default)]
pub(super) struct HTtl<T: Told> {
    key: Word,
    clause: Clause,
    told: PhantomData<T>,
}

impl<T: Told> KeyCommand for HTtl<T> {
    const SPEC: Spec = Spec::read(T::NAME, Group::Hash, T::SUMMARY)
        .since("7.4.0")
        .complexity("O(log N) for each field")
        .with(flag::FAST)
        .reply(
            "Array of an integer for each field: -1 if it has no deadline, -2 if there is no such \
             field.",
        );
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the hash", |c, word| c.key = word),
        Arg::own(
            "fields",
            "the fields",
            ClauseArgs::<Self>::FIELDS,
            |c, args, at| {
                c.clause = Form::Fields.parse(args, at)?;
                Ok(())
            },
        ),
    ];

    fn needs(&self) -> Needs {
        Needs::Fields(self.clause.fields)
    }

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        let now_ms = txn.now_ms();
        let fields = txn.fields(&key, self.clause.fields.each(args, 0))?;
        reply.array(self.clause.fields.groups() as usize);
        for name in self.clause.fields.each(args, 0) {
            let field = fields.and_then(|fields| fields.get(name));
            reply.integer(match field.map(|field| field.expires_at_ms) {
                None => NO_FIELD,
                Some(0) => NO_DEADLINE,
                Some(at_ms) => T::told(at_ms, now_ms) as i64,
            });
        }
        Ok(())
    }
}

// ---- removing --------------------------------------------------------------------------------

/// Removes deadlines.
#[derive(Default)]
pub(super) struct HPersist {
    key: Word,
    clause: Clause,
}

impl KeyCommand for HPersist {
    const SPEC: Spec = Spec::write("hpersist", Group::Hash, "Removes the deadline of fields.")
        .since("7.4.0")
        .complexity("O(log N) for each field")
        .with(flag::FAST)
        .access(Access::Update)
        .reply(
            "Array of an integer for each field: 1 if it had a deadline, -1 if not, -2 if there is \
             no such field.",
        );
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the hash", |c, word| c.key = word),
        Arg::own(
            "fields",
            "the fields",
            ClauseArgs::<Self>::FIELDS,
            |c, args, at| {
                c.clause = Form::Fields.parse(args, at)?;
                Ok(())
            },
        ),
    ];

    fn needs(&self) -> Needs {
        Needs::Fields(self.clause.fields)
    }

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        reply.array(self.clause.fields.groups() as usize);
        for name in self.clause.fields.each(args, 0) {
            let before_ms = txn.field(&key, name)?.map(|field| field.expires_at_ms);
            reply.integer(match before_ms {
                None => NO_FIELD,
                Some(0) => NO_DEADLINE,
                Some(_) => {
                    txn.set_field_deadline(&key, name, 0)?;
                    1
                }
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::command::transcript::Transcript;

    #[test]
    fn fields_expire_on_time_and_the_hash_with_the_last_one() {
        Transcript::in_both_modes(|t| {
            t.check("HSET h a 1 b 2 c 3", "(integer) 3");
            t.check(
                "HPEXPIRE h 100 FIELDS 2 a x",
                "1) (integer) 1\n2) (integer) -2",
            );
            t.check("HEXPIRE h 1 FIELDS 1 b", "1) (integer) 1");
            t.check("HPTTL h FIELDS 4 a b c x", &numbers(&[100, 1000, -1, -2]));
            t.check("HTTL h FIELDS 2 a b", &numbers(&[1, 1]));
            t.check("HEXPIRETIME h FIELDS 1 a", "1) (integer) 1700000001");
            t.check(
                "HPEXPIRETIME h FIELDS 2 a c",
                &numbers(&[1_700_000_000_100, -1]),
            );
            t.advance_ms(99);
            t.check("HGET h a", "\"1\"");
            t.advance_ms(1);
            t.check("HGET h a", "(nil)");
            t.check("HLEN h", "(integer) 2");
            t.check("HPERSIST h FIELDS 4 a b c x", &numbers(&[-2, 1, -1, -2]));
            t.advance_ms(5000);
            t.check("HLEN h", "(integer) 2");
            t.check("HPEXPIREAT h 1700000006000 FIELDS 2 b c", &numbers(&[1, 1]));
            t.advance_ms(900);
            assert_eq!(t.keyspace().tables().count_db(0), 0, "nobody looked");
            t.check("HGETALL h", "(empty array)");
            t.check("HTTL h FIELDS 1 b", "1) (integer) -2");
            t.check("HPERSIST h FIELDS 1 b", "1) (integer) -2");
            t.check("HEXPIRE h 10 FIELDS 1 b", "1) (integer) -2");
        });
    }

    fn numbers(numbers: &[i64]) -> String {
        let lines: Vec<String> = numbers
            .iter()
            .enumerate()
            .map(|(index, number)| format!("{}) (integer) {number}", index + 1))
            .collect();
        lines.join("\n")
    }

    #[test]
    fn expired_fields_are_never_seen_even_if_no_timer_runs() {
        let mut t = Transcript::new();
        t.keyspace().set_active_expiry(false);
        t.check("HSET h a 1 b 2", "(integer) 2");
        t.check("HPEXPIRE h 10 FIELDS 1 a", "1) (integer) 1");
        t.advance_ms(10);
        t.check("HLEN h", "(integer) 1");
        t.check("HSETNX h a 5", "(integer) 1");
        t.check("HTTL h FIELDS 1 a", "1) (integer) -1");
        t.check("HPEXPIRE h 10 FIELDS 2 a b", &numbers(&[1, 1]));
        t.advance_ms(11);
        t.check("HINCRBY h a 1", "(integer) 1");
        t.check("HGETALL h", "1) \"a\"\n2) \"1\"");
        t.recover();
        t.check("HGETALL h", "1) \"a\"\n2) \"1\"");
    }

    #[test]
    fn a_deadline_in_the_past_deletes() {
        Transcript::in_both_modes(|t| {
            t.check("HSET h a 1 b 2 c 3", "(integer) 3");
            t.check("HEXPIREAT h 1 FIELDS 2 a a", &numbers(&[2, -2]));
            t.check("HEXPIRE h 0 FIELDS 1 b", "1) (integer) 2");
            t.check("HPEXPIREAT h 1 XX FIELDS 1 c", "1) (integer) 0");
            t.check("HPEXPIREAT h 1700000000000 FIELDS 1 c", "1) (integer) 2");
            assert_eq!(t.keyspace().tables().count_db(0), 0);
        });
    }

    #[test]
    fn conditions_compare_deadlines() {
        Transcript::in_both_modes(|t| {
            t.check("HSET h a 1 b 2", "(integer) 2");
            t.check("HEXPIRE h 100 XX FIELDS 1 a", "1) (integer) 0");
            t.check("HEXPIRE h 100 GT FIELDS 1 a", "1) (integer) 0");
            t.check("HEXPIRE h 100 nx fields 1 a", "1) (integer) 1");
            t.check("HEXPIRE h 200 NX FIELDS 2 a b", &numbers(&[0, 1]));
            t.check("HEXPIRE h 150 GT FIELDS 2 a b", &numbers(&[1, 0]));
            t.check("HEXPIRE h 150 GT FIELDS 1 a", "1) (integer) 0");
            t.check("HEXPIRE h 150 LT FIELDS 2 a b", &numbers(&[0, 1]));
            t.check("HEXPIRE h 50 XX FIELDS 2 a b", &numbers(&[1, 1]));
            t.check("HTTL h FIELDS 2 a b", &numbers(&[50, 50]));
            t.check("HSET h c 3", "(integer) 1");
            t.check("HEXPIRE h 70 LT FIELDS 1 c", "1) (integer) 1");
        });
    }

    #[test]
    fn setting_clears_a_deadline_and_adding_keeps_it() {
        Transcript::in_both_modes(|t| {
            t.check("HSET h a 1 b 2 c 3", "(integer) 3");
            t.check("HEXPIRE h 100 FIELDS 3 a b c", &numbers(&[1, 1, 1]));
            t.check("HSET h a 5", "(integer) 0");
            t.check("HINCRBY h b 5", "(integer) 7");
            t.check("HINCRBYFLOAT h c 0.5", "\"3.5\"");
            t.check("HTTL h FIELDS 3 a b c", &numbers(&[-1, 100, 100]));
            t.advance_ms(100_000);
            t.check("HGETALL h", "1) \"a\"\n2) \"5\"");
        });
    }

    #[test]
    fn mistakes_are_named_as_redis_names_them() {
        let mut t = Transcript::new();
        t.check("HSET h a 1", "(integer) 1");
        let missing =
            "(error) ERR Mandatory argument FIELDS is missing or not at the right position";
        let count = "(error) ERR The `numfields` parameter must match the number of arguments";
        t.check("HEXPIRE h 10 FIELD 1 a", missing);
        t.check("HEXPIRE h 10 NX XX FIELDS 1 a", missing);
        t.check("HTTL h NX FIELDS 1 a", missing);
        t.check("HPERSIST h FIELD 1 a", missing);
        t.check("HEXPIRE h 10 FIELDS 2 a", count);
        t.check("HEXPIRE h 10 FIELDS 1 a NX", count);
        t.check("HTTL h FIELDS 1 a b", count);
        t.check(
            "HEXPIRE h 10 FIELDS 0 a",
            "(error) ERR Parameter `numFields` should be greater than 0",
        );
        let positive = "(error) ERR Number of fields must be a positive integer";
        t.check("HTTL h FIELDS 0 a", positive);
        t.check("HPERSIST h FIELDS x a", positive);
        t.check(
            "HEXPIRE h -1 FIELDS 1 a",
            "(error) ERR invalid expire time, must be >= 0",
        );
        let integer = "(error) ERR value is not an integer or out of range";
        t.check("HEXPIRE h 1.5 FIELDS 1 a", integer);
        let invalid = |name| format!("(error) ERR invalid expire time in '{name}' command");
        t.check(
            "HEXPIRE h 9223372036854775807 FIELDS 1 a",
            &invalid("hexpire"),
        );
        t.check(
            "HPEXPIREAT h 70368744177664 FIELDS 1 a",
            &invalid("hpexpireat"),
        );
        t.check("HPEXPIREAT h 70368744177663 FIELDS 1 a", "1) (integer) 1");
        t.check("HPEXPIRE h 70368744177663 FIELDS 1 a", &invalid("hpexpire"));
    }

    #[test]
    fn a_deadline_of_one_field_logs_one_field() {
        let mut t = Transcript::new();
        let values: Vec<String> = (0..1000).map(|n| format!("f{n} value{n}")).collect();
        t.run(&format!("HSET h {}", values.join(" ")));
        t.check("HEXPIRE h 10 FIELDS 1 f7", "1) (integer) 1");
        assert!(t.last_batch_bytes() < 64, "{} bytes", t.last_batch_bytes());
        t.advance_ms(10_000);
        assert!(t.last_batch_bytes() < 64, "{} bytes", t.last_batch_bytes());
        t.check("HLEN h", "(integer) 999");
    }

    #[test]
    fn many_fields_expire_together() {
        let mut t = Transcript::new();
        let values: Vec<String> = (0..5000).map(|n| format!("f{n} {n}")).collect();
        t.run(&format!("HSETEX h PX 50 FIELDS 5000 {}", values.join(" ")));
        t.check("HSET h stays 1", "(integer) 1");
        t.advance_ms(50);
        assert_eq!(t.keyspace().stats().expired_fields, 5000);
        t.recover();
        t.check("HGETALL h", "1) \"stays\"\n2) \"1\"");
    }
}
