//! Deadlines of keys: setting, reading, removing.
//!
//! Always true: a deadline is absolute, in ms since the Unix epoch, and above the time at which it
//! was set; one that is not deletes the key instead.

use std::marker::PhantomData;

use crate::command::KeyCommand;
use crate::command::spec::{Access, Arg, Group, Spec, Type, Word, flag};
use crate::keyspace::Txn;
use crate::number::parse_i64;
use crate::reply::{Reject, Reply};
use crate::resp::decode::Args;

/// EXPIRE
pub type Expire = SetDeadline<InSeconds>;
/// PEXPIRE
pub type PExpire = SetDeadline<InMilliseconds>;
/// EXPIREAT
pub type ExpireAt = SetDeadline<AtSeconds>;
/// PEXPIREAT
pub type PExpireAt = SetDeadline<AtMilliseconds>;
/// TTL
pub type Ttl = ReadDeadline<InSeconds>;
/// PTTL
pub type PTtl = ReadDeadline<InMilliseconds>;
/// EXPIRETIME
pub type ExpireTime = ReadDeadline<AtSeconds>;
/// PEXPIRETIME
pub type PExpireTime = ReadDeadline<AtMilliseconds>;

/// How commands speak of a deadline, and what they are called.
pub trait Form: Default + 'static {
    /// Name, summary and first version of the command that sets it.
    const SET: [&'static str; 3];
    /// Name, summary and first version of the command that reads it.
    const READ: [&'static str; 3];
    /// Name and documentation of the argument.
    const AMOUNT: [&'static str; 2];
    /// What the argument looks like.
    const TYPE: Type;
    /// Milliseconds in the unit.
    const UNIT_MS: i64;
    /// Counted from now; else from the Unix epoch.
    const FROM_NOW: bool;
}

/// Seconds from now.
#[derive(Default)]
pub struct InSeconds;

impl Form for InSeconds {
    const SET: [&'static str; 3] = ["expire", "Sets the lifetime of a key in seconds.", "1.0.0"];
    const READ: [&'static str; 3] = [
        "ttl",
        "Returns how long a key will live, in seconds.",
        "1.0.0",
    ];
    const AMOUNT: [&'static str; 2] = ["seconds", "lifetime in seconds"];
    const TYPE: Type = Type::Integer;
    const UNIT_MS: i64 = 1000;
    const FROM_NOW: bool = true;
}

/// Milliseconds from now.
#[derive(Default)]
pub struct InMilliseconds;

impl Form for InMilliseconds {
    const SET: [&'static str; 3] = [
        "pexpire",
        "Sets the lifetime of a key in milliseconds.",
        "2.6.0",
    ];
    const READ: [&'static str; 3] = [
        "pttl",
        "Returns how long a key will live, in milliseconds.",
        "2.6.0",
    ];
    const AMOUNT: [&'static str; 2] = ["milliseconds", "lifetime in milliseconds"];
    const TYPE: Type = Type::Integer;
    const UNIT_MS: i64 = 1;
    const FROM_NOW: bool = true;
}

/// Unix time in seconds.
#[derive(Default)]
pub struct AtSeconds;

impl Form for AtSeconds {
    const SET: [&'static str; 3] = [
        "expireat",
        "Sets the deadline of a key as Unix time in seconds.",
        "1.2.0",
    ];
    const READ: [&'static str; 3] = [
        "expiretime",
        "Returns the deadline of a key as Unix time in seconds.",
        "7.0.0",
    ];
    const AMOUNT: [&'static str; 2] = ["unix-time-seconds", "deadline as Unix time in seconds"];
    const TYPE: Type = Type::UnixTime;
    const UNIT_MS: i64 = 1000;
    const FROM_NOW: bool = false;
}

/// Unix time in milliseconds.
#[derive(Default)]
pub struct AtMilliseconds;

impl Form for AtMilliseconds {
    const SET: [&'static str; 3] = [
        "pexpireat",
        "Sets the deadline of a key as Unix time in milliseconds.",
        "2.6.0",
    ];
    const READ: [&'static str; 3] = [
        "pexpiretime",
        "Returns the deadline of a key as Unix time in milliseconds.",
        "7.0.0",
    ];
    const AMOUNT: [&'static str; 2] = [
        "unix-time-milliseconds",
        "deadline as Unix time in milliseconds",
    ];
    const TYPE: Type = Type::UnixTime;
    const UNIT_MS: i64 = 1;
    const FROM_NOW: bool = false;
}

/// On which deadline that a key has now it gets the new one. All of them must hold.
#[derive(Clone, Copy, Debug, Default)]
struct Conditions {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
}

impl Conditions {
    /// The words behind the time, in any order, as often as one likes.
    fn parse(args: Args<'_>, from: u32) -> Result<Conditions, Reject> {
        let mut conditions = Conditions::default();
        for word in args.slice(from as usize..).iter() {
            let known = [
                ("NX", &mut conditions.nx),
                ("XX", &mut conditions.xx),
                ("GT", &mut conditions.gt),
                ("LT", &mut conditions.lt),
            ];
            let given = known
                .into_iter()
                .find(|(name, _)| word.eq_ignore_ascii_case(name.as_bytes()));
            match given {
                Some((_, given)) => *given = true,
                None => return Err(Reject::new([b"ERR Unsupported option ", word].concat())),
            }
        }
        let Conditions { nx, xx, gt, lt } = conditions;
        if nx && (xx || gt || lt) {
            return Err(Reject::fixed(
                "ERR NX and XX, GT or LT options at the same time are not compatible",
            ));
        }
        if gt && lt {
            return Err(Reject::fixed(
                "ERR GT and LT options at the same time are not compatible",
            ));
        }
        Ok(conditions)
    }

    /// `current_ms` is 0 without a deadline, which is later than any.
    fn hold(self, current_ms: u64, wanted_ms: i64) -> bool {
        let has = current_ms != 0;
        let current_ms = i64::try_from(current_ms).unwrap_or(i64::MAX);
        !(self.nx && has
            || self.xx && !has
            || self.gt && (!has || wanted_ms <= current_ms)
            || self.lt && has && wanted_ms >= current_ms)
    }
}

/// Sets the deadline of a key.
#[derive(Default)]
pub struct SetDeadline<F> {
    key: Word,
    amount: Word,
    conditions: Conditions,
    form: PhantomData<F>,
}

impl<F: Form> SetDeadline<F> {
    const CONDITIONS: &'static [Arg<Self>] = &[
        Arg::flag("NX", "only if the key has no deadline", |_| {}),
        Arg::flag("XX", "only if the key has a deadline", |_| {}),
        Arg::flag("GT", "only if it is later than the one that it has", |_| {}),
        Arg::flag(
            "LT",
            "only if it is earlier than the one that it has",
            |_| {},
        ),
    ];

    /// The deadline, at or before now too; nothing where it overflows.
    fn deadline_ms(amount: i64, now_ms: u64) -> Option<i64> {
        let base_ms = if F::FROM_NOW { now_ms as i64 } else { 0 };
        amount.checked_mul(F::UNIT_MS)?.checked_add(base_ms)
    }
}

impl<F: Form> KeyCommand for SetDeadline<F> {
    const SPEC: Spec = Spec::write(F::SET[0], Group::Generic, F::SET[1])
        .since(F::SET[2])
        .with(flag::FAST)
        .access(Access::Update)
        .reply("Integer: 1, or 0 if there is no key or a condition does not hold.")
        .notes("A deadline that is not in the future deletes the key, which is also a 1.");
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the key", |c, word| c.key = word),
        Arg::text(F::AMOUNT[0], F::AMOUNT[1], |c: &mut Self, word| {
            c.amount = word
        })
        .of(F::TYPE),
        // Redis looks at these before it looks at the time.
        Arg::own(
            "condition",
            "on which deadline that the key has now",
            Self::CONDITIONS,
            |c, args, from| {
                c.conditions = Conditions::parse(args, from)?;
                Ok(())
            },
        )
        .optional(),
    ];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let amount = parse_i64(args.word(self.amount)).ok_or(Reject::not_an_integer())?;
        let now_ms = txn.now_ms();
        let wanted_ms = Self::deadline_ms(amount, now_ms)
            .ok_or_else(|| Reject::invalid_expire(Self::SPEC.name))?;
        let key = txn.key(args.word(self.key));
        let current_ms = txn.deadline_ms(&key);
        if !current_ms.is_some_and(|current_ms| self.conditions.hold(current_ms, wanted_ms)) {
            reply.integer(0);
            return Ok(());
        }
        match u64::try_from(wanted_ms) {
            Ok(wanted_ms) if wanted_ms > now_ms => txn.set_deadline(&key, wanted_ms),
            _ => txn.delete(&key),
        };
        reply.integer(1);
        Ok(())
    }
}

/// Reads the deadline of a key.
#[derive(Default)]
pub struct ReadDeadline<F> {
    key: Word,
    form: PhantomData<F>,
}

impl<F: Form> ReadDeadline<F> {
    /// In the form's unit, rounded to the nearest.
    fn shown(deadline_ms: u64, now_ms: u64) -> i64 {
        let base_ms = if F::FROM_NOW { now_ms } else { 0 };
        let unit_ms = F::UNIT_MS as u64;
        let units = deadline_ms
            .saturating_sub(base_ms)
            .saturating_add(unit_ms / 2)
            / unit_ms;
        i64::try_from(units).unwrap_or(i64::MAX)
    }
}

impl<F: Form> KeyCommand for ReadDeadline<F> {
    const SPEC: Spec = Spec::read(F::READ[0], Group::Generic, F::READ[1])
        .since(F::READ[2])
        .with(flag::FAST)
        .reply("Integer: the time; -1 if the key has no deadline, -2 if there is no key.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::key("key", "the key", |c, word| c.key = word)];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        let now_ms = txn.now_ms();
        reply.integer(match txn.deadline_ms(&key) {
            None => -2,
            Some(0) => -1,
            Some(deadline_ms) => Self::shown(deadline_ms, now_ms),
        });
        Ok(())
    }
}

/// Removes the deadline of a key.
#[derive(Default)]
pub struct Persist {
    key: Word,
}

impl KeyCommand for Persist {
    const SPEC: Spec = Spec::write("persist", Group::Generic, "Removes the deadline of a key.")
        .since("2.2.0")
        .with(flag::FAST)
        .access(Access::Update)
        .reply("Integer: 1, or 0 if there is no key or it has no deadline.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::key("key", "the key", |c, word| c.key = word)];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        let had = txn.deadline_ms(&key).is_some_and(|ms| ms != 0);
        reply.integer(i64::from(had && txn.set_deadline(&key, 0)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::super::tests::{in_both_modes, put_cell, put_fields};
    use crate::command::transcript::Transcript;

    #[test]
    fn a_deadline_is_set_read_and_removed_in_four_forms() {
        in_both_modes(|t| {
            t.check("SET a 1", "OK");
            t.check("TTL a", "(integer) -1");
            t.check("EXPIRETIME a", "(integer) -1");
            t.check("PERSIST a", "(integer) 0");
            t.check("EXPIRE a 100", "(integer) 1");
            t.check("TTL a", "(integer) 100");
            t.check("PTTL a", "(integer) 100000");
            t.check("EXPIRETIME a", "(integer) 1700000100");
            t.check("PEXPIRETIME a", "(integer) 1700000100000");
            t.advance_ms(499);
            t.check("TTL a", "(integer) 100");
            t.check("PTTL a", "(integer) 99501");
            t.advance_ms(2);
            t.check("TTL a", "(integer) 99");
            t.check("PERSIST a", "(integer) 1");
            t.check("PTTL a", "(integer) -1");
            t.check("PEXPIRE a 1500", "(integer) 1");
            t.check("PTTL a", "(integer) 1500");
            t.check("EXPIREAT a 1700000200", "(integer) 1");
            t.check("PEXPIRETIME a", "(integer) 1700000200000");
            t.check("PEXPIREAT a 1700000200499", "(integer) 1");
            t.check("EXPIRETIME a", "(integer) 1700000200");
            t.check("PEXPIREAT a 1700000200500", "(integer) 1");
            t.check("EXPIRETIME a", "(integer) 1700000201");
            for line in ["TTL no", "PTTL no", "EXPIRETIME no", "PEXPIRETIME no"] {
                t.check(line, "(integer) -2");
            }
            t.check("EXPIRE no 10", "(integer) 0");
            t.check("PERSIST no", "(integer) 0");
        });
    }

    #[test]
    fn a_deadline_that_has_passed_deletes_the_key() {
        in_both_modes(|t| {
            for line in [
                "EXPIRE a 0",
                "EXPIRE a -1",
                "PEXPIRE a -9223372036854775808",
                "EXPIREAT a 0",
                "EXPIREAT a 1700000000",
                "PEXPIREAT a 1700000000000",
                "PEXPIREAT a -1",
                "EXPIRE a -9223372036854775 lt",
            ] {
                t.check("SET a 1", "OK");
                t.check(line, "(integer) 1");
                t.check("EXISTS a", "(integer) 0");
            }
            t.check("SET a 1", "OK");
            t.check("EXPIRE a 0 XX", "(integer) 0");
            t.check("EXPIRE a 0 GT", "(integer) 0");
            t.check("PEXPIREAT a 1700000000001", "(integer) 1");
            t.check("EXISTS a", "(integer) 1");
            t.advance_ms(1);
            t.check("EXISTS a", "(integer) 0");
        });
    }

    #[test]
    fn times_at_the_edge_of_64_bits() {
        in_both_modes(|t| {
            t.check("SET a 1", "OK");
            for (line, command) in [
                ("EXPIRE a 9223372036854775807", "expire"),
                ("EXPIRE a 9223372036854775", "expire"),
                ("EXPIRE a -9223372036854775808", "expire"),
                ("EXPIRE no 9223372036854775807", "expire"),
                ("EXPIRE a 9223372036854775807 NX", "expire"),
                ("PEXPIRE a 9223372036854775807", "pexpire"),
                ("EXPIREAT a 9223372036854776", "expireat"),
                ("EXPIREAT a -9223372036854775808", "expireat"),
            ] {
                let error = format!("(error) ERR invalid expire time in '{command}' command");
                t.check(line, &error);
            }
            t.check("PEXPIREAT a 9223372036854775807", "(integer) 1");
            t.check("PTTL a", "(integer) 9223370336854775807");
            t.check("TTL a", "(integer) 9223370336854776");
            t.check("EXPIRETIME a", "(integer) 9223372036854776");
            t.check("PEXPIRETIME a", "(integer) 9223372036854775807");
            t.check("EXPIREAT a 9223372036854775 GT", "(integer) 0");
            t.check("EXPIREAT a 9223372036854775", "(integer) 1");
            t.check("PEXPIRETIME a", "(integer) 9223372036854775000");
        });
    }

    #[test]
    fn conditions_look_at_the_deadline_that_there_is() {
        in_both_modes(|t| {
            t.check("SET a 1", "OK");
            t.check("EXPIRE a 100 XX", "(integer) 0");
            t.check("EXPIRE a 100 GT", "(integer) 0");
            t.check("EXPIRE a 100 xx gt", "(integer) 0");
            t.check("EXPIRE a 100 lt xx", "(integer) 0");
            t.check("EXPIRE a 100 LT", "(integer) 1");
            t.check("EXPIRE a 200 NX", "(integer) 0");
            t.check("EXPIRE a 100 GT", "(integer) 0");
            t.check("EXPIRE a 100 LT", "(integer) 0");
            t.check("EXPIRE a 101 GT GT gt", "(integer) 1");
            t.check("EXPIRE a 100 XX LT", "(integer) 1");
            t.check("EXPIRE a 50 GT XX", "(integer) 0");
            t.check("TTL a", "(integer) 100");
            t.check("PERSIST a", "(integer) 1");
            t.check("EXPIRE a 7 nx NX", "(integer) 1");
            t.check("TTL a", "(integer) 7");
        });
    }

    #[test]
    fn options_are_looked_at_before_the_time() {
        in_both_modes(|t| {
            let unsupported = "(error) ERR Unsupported option foo";
            t.check("EXPIRE a x foo", unsupported);
            t.check("EXPIRE a 10 nx gt foo", unsupported);
            let nx = "(error) ERR NX and XX, GT or LT options at the same time are not compatible";
            t.check("EXPIRE a x nx xx", nx);
            t.check("PEXPIRE a 10 gt nx", nx);
            t.check("EXPIREAT a 10 gt lt nx", nx);
            let gt = "(error) ERR GT and LT options at the same time are not compatible";
            t.check("PEXPIREAT a 10 lt gt", gt);
            t.check("PEXPIREAT a 10 xx lt gt", gt);
            let integer = "(error) ERR value is not an integer or out of range";
            t.check("EXPIRE a x", integer);
            t.check("EXPIRE a 1.5 NX", integer);
            t.check("EXPIRE a 9223372036854775808", integer);
            t.check("EXPIRE a ''", integer);
            t.check(
                "EXPIRE a",
                "(error) ERR wrong number of arguments for 'expire' command",
            );
            t.check(
                "TTL a b",
                "(error) ERR wrong number of arguments for 'ttl' command",
            );
        });
    }

    #[test]
    fn hashes_and_cells_have_deadlines_as_well() {
        in_both_modes(|t| {
            put_fields(t, "h", &[("f", "1")]);
            put_cell(t, "cell", "busy", 0);
            for key in ["h", "cell"] {
                t.check(&format!("PEXPIRE {key} 10"), "(integer) 1");
                t.check(&format!("PTTL {key}"), "(integer) 10");
            }
            t.advance_ms(9);
            t.check("EXISTS h cell", "(integer) 2");
            t.advance_ms(1);
            t.check("EXISTS h cell", "(integer) 0");
        });
    }

    /// Deadlines as one would keep them in one's head.
    #[derive(Default)]
    struct Model {
        keys: HashMap<u8, Option<i64>>,
        now_ms: i64,
    }

    #[derive(Clone, Debug)]
    enum Step {
        Set(u8),
        Expire(u8, usize, i64, usize),
        Read(u8, usize),
        Persist(u8),
        Pass(u16),
    }

    const SETTERS: [&str; 4] = ["EXPIRE", "PEXPIRE", "EXPIREAT", "PEXPIREAT"];
    const READERS: [&str; 4] = ["TTL", "PTTL", "EXPIRETIME", "PEXPIRETIME"];
    const OPTIONS: [&str; 8] = ["", "", "NX", "XX", "GT", "LT", "XX GT", "XX LT"];

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let key = 0..3u8;
        let step = prop_oneof![
            key.clone().prop_map(Step::Set),
            (key.clone(), 0..4usize, -300..3_000i64, 0..8usize)
                .prop_map(|(key, form, ms, option)| Step::Expire(key, form, ms, option)),
            (key.clone(), 0..4usize).prop_map(|(key, form)| Step::Read(key, form)),
            key.prop_map(Step::Persist),
            (0..1_500u16).prop_map(Step::Pass),
        ];
        prop::collection::vec(step, 1..60)
    }

    impl Model {
        fn expire(&mut self, key: u8, at_ms: i64, option: &str) -> i64 {
            let Some(deadline) = self.keys.get_mut(&key) else {
                return 0;
            };
            let current = deadline.unwrap_or(i64::MAX);
            for condition in option.split_whitespace() {
                let holds = match condition {
                    "NX" => deadline.is_none(),
                    "XX" => deadline.is_some(),
                    "GT" => at_ms > current,
                    _ => at_ms < current,
                };
                if !holds {
                    return 0;
                }
            }
            *deadline = Some(at_ms);
            self.pass(0);
            1
        }

        fn pass(&mut self, ms: i64) {
            self.now_ms += ms;
            let now_ms = self.now_ms;
            self.keys
                .retain(|_, deadline| deadline.is_none_or(|ms| ms > now_ms));
        }

        fn read(&self, key: u8, form: usize) -> i64 {
            match self.keys.get(&key) {
                None => -2,
                Some(None) => -1,
                Some(Some(ms)) => match form {
                    0 => (ms - self.now_ms + 500) / 1000,
                    1 => ms - self.now_ms,
                    2 => (ms + 500) / 1000,
                    _ => *ms,
                },
            }
        }

        fn persist(&mut self, key: u8) -> i64 {
            let deadline = self.keys.get_mut(&key).and_then(Option::take);
            i64::from(deadline.is_some())
        }
    }

    fn follow(t: &mut Transcript, model: &mut Model, step: Step) -> (String, i64, String) {
        let (line, expected) = match step {
            Step::Set(key) => {
                model.keys.insert(key, None);
                t.check(&format!("SET {key} 1"), "OK");
                (format!("EXISTS {key}"), 1)
            }
            Step::Expire(key, form, ms, option) => {
                let option = OPTIONS[option];
                let (amount, at_ms) = match form {
                    0 => (ms / 300, model.now_ms + ms / 300 * 1000),
                    1 => (ms, model.now_ms + ms),
                    2 => {
                        let at = model.now_ms / 1000 + ms / 300;
                        (at, at * 1000)
                    }
                    _ => (model.now_ms + ms, model.now_ms + ms),
                };
                let line = format!("{} {key} {amount} {option}", SETTERS[form]);
                (line, model.expire(key, at_ms, option))
            }
            Step::Read(key, form) => (format!("{} {key}", READERS[form]), model.read(key, form)),
            Step::Persist(key) => (format!("PERSIST {key}"), model.persist(key)),
            Step::Pass(ms) => {
                model.pass(ms.into());
                t.advance_ms(ms.into());
                ("EXISTS 0 1 2".into(), model.keys.len() as i64)
            }
        };
        let reply = t.run(&line);
        (line, expected, reply)
    }

    proptest! {
        #[test]
        fn deadlines_are_what_a_model_says(steps in steps(), recovering: bool) {
            let mut t = Transcript::new();
            if recovering {
                t = t.recovering();
            }
            let mut model = Model { now_ms: t.now_ms() as i64, ..Model::default() };
            for step in steps {
                let (line, expected, reply) = follow(&mut t, &mut model, step);
                prop_assert_eq!(reply.trim_end(), format!("(integer) {}", expected), "{}", line);
            }
        }
    }
}
