//! Two steps in one: HGETDEL, HGETEX, HSETEX.

use super::clause::{Clause, ClauseArgs, Condition, Form, deadline_ms};
use super::{reply_value, reply_value_or_null};
use crate::command::KeyCommand;
use crate::command::expiry::Expiry;
use crate::command::spec::{Access, Arg, Group, Needs, Spec, Word, flag};
use crate::keyspace::{FieldValue, Txn};
use crate::reply::{Reject, Reply};
use crate::resp::decode::Args;

/// Reads and deletes.
#[derive(Default)]
pub(super) struct HGetDel {
    key: Word,
    clause: Clause,
}

impl KeyCommand for HGetDel {
    const SPEC: Spec = Spec::write(
        "hgetdel",
        Group::Hash,
        "Returns the values of fields and deletes the fields, and the hash with its last one.",
    )
    .since("8.0.0")
    .complexity("O(log N) for each field")
    .with(flag::FAST | flag::FREES)
    .access(Access::ReadRemove)
    .reply("Array: each field's value, or null.");
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
            reply_value_or_null(txn.delete_field(&key, name)?.as_ref(), reply);
        }
        Ok(())
    }
}

/// Reads and changes deadlines.
#[derive(Default)]
pub(super) struct HGetEx {
    key: Word,
    clause: Clause,
}

impl KeyCommand for HGetEx {
    const SPEC: Spec = Spec::write(
        "hgetex",
        Group::Hash,
        "Returns the values of fields, and sets or removes their deadlines.",
    )
    .since("8.0.0")
    .complexity("O(log N) for each field")
    .with(flag::FAST)
    .reply("Array: each field's value, or null.")
    .notes("A deadline that has passed deletes the fields. Without an option it only reads.");
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the hash", |c, word| c.key = word),
        Arg::own(
            "fields",
            "an expiry option, and the fields",
            ClauseArgs::<Self>::GET_EX,
            |c, args, at| {
                c.clause = Form::GetEx.parse(args, at)?;
                Ok(())
            },
        ),
    ];

    fn needs(&self) -> Needs {
        self.clause.needs()
    }

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        let now_ms = txn.now_ms();
        let at_ms = match self.clause.expiry {
            Expiry::Persist => Some(0),
            expiry => deadline_ms(expiry, now_ms, "hgetex")?,
        };
        reply.array(self.clause.fields.groups() as usize);
        for name in self.clause.fields.each(args, 0) {
            let Some(field) = txn.field(&key, name)? else {
                reply.null();
                continue;
            };
            reply_value(&field.value, reply);
            let before_ms = field.expires_at_ms;
            match at_ms {
                None => {}
                // Nothing changes, so nothing is logged.
                Some(at_ms) if at_ms == before_ms => {}
                Some(at_ms) if at_ms != 0 && at_ms <= now_ms => {
                    txn.delete_field(&key, name)?;
                }
                Some(at_ms) => {
                    txn.set_field_deadline(&key, name, at_ms)?;
                }
            }
        }
        Ok(())
    }
}

/// Sets fields with a deadline.
#[derive(Default)]
pub(super) struct HSetEx {
    key: Word,
    clause: Clause,
}

impl KeyCommand for HSetEx {
    const SPEC: Spec = Spec::write(
        "hsetex",
        Group::Hash,
        "Sets fields and their deadline, all of them or none.",
    )
    .since("8.0.0")
    .complexity("O(log N) for each field")
    .with(flag::FAST | flag::DENYOOM)
    .access(Access::Update)
    .reply("Integer: 1 if the fields were set, 0 if the condition is not met.")
    .notes("A deadline that has passed deletes the fields; the reply is 1 nevertheless.");
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the hash", |c, word| c.key = word),
        Arg::own(
            "fields",
            "options, and what is set",
            ClauseArgs::<Self>::SET_EX,
            |c, args, at| {
                c.clause = Form::SetEx.parse(args, at)?;
                Ok(())
            },
        ),
    ];

    fn needs(&self) -> Needs {
        self.clause.needs()
    }

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        let now_ms = txn.now_ms();
        let at_ms = deadline_ms(self.clause.expiry, now_ms, "hsetex")?;
        let pairs = self.clause.fields;
        let fields = txn.fields(&key, pairs.each(args, 0))?;
        let mut there = pairs
            .each(args, 0)
            .map(|name| fields.is_some_and(|fields| fields.get(name).is_some()));
        let met = match self.clause.condition {
            Condition::Fnx => !there.any(|there| there),
            Condition::Fxx => there.all(|there| there),
            _ => true,
        };
        if !met {
            reply.integer(0);
            return Ok(());
        }
        for (name, value) in pairs.each(args, 0).zip(pairs.each(args, 1)) {
            let field_at_ms = match self.clause.expiry {
                Expiry::Keep => txn
                    .field(&key, name)?
                    .map_or(0, |field| field.expires_at_ms),
                _ => at_ms.unwrap_or(0),
            };
            if at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
                txn.delete_field(&key, name)?;
            } else {
                txn.put_field(&key, name, FieldValue::from_bytes(value), field_at_ms)?;
            }
        }
        reply.integer(1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::command::transcript::Transcript;

    #[test]
    fn fields_are_read_and_deleted() {
        Transcript::in_both_modes(|t| {
            t.check("HSET h a 1 b text", "(integer) 2");
            t.check("HGETDEL h FIELDS 3 a a x", "1) \"1\"\n2) (nil)\n3) (nil)");
            t.check("HGETDEL h fields 1 b", "1) \"text\"");
            t.check("HGETDEL h FIELDS 1 b", "1) (nil)");
            assert_eq!(t.keyspace().tables().count_db(0), 0);
        });
    }

    #[test]
    fn fields_are_read_and_get_deadlines() {
        Transcript::in_both_modes(|t| {
            t.check("HSET h a 1 b 2", "(integer) 2");
            t.check("HGETEX h FIELDS 2 a x", "1) \"1\"\n2) (nil)");
            t.check("HTTL h FIELDS 1 a", "1) (integer) -1");
            t.check("HGETEX h EX 10 FIELDS 2 a x", "1) \"1\"\n2) (nil)");
            t.check("HPTTL h FIELDS 1 a", "1) (integer) 10000");
            t.check("HGETEX h PXAT 1700000000500 FIELDS 1 a", "1) \"1\"");
            t.check("HPTTL h FIELDS 1 a", "1) (integer) 500");
            t.check("HGETEX h PERSIST FIELDS 1 a", "1) \"1\"");
            t.check("HTTL h FIELDS 1 a", "1) (integer) -1");
            t.check("HGETEX h EXAT 1 FIELDS 2 a a", "1) \"1\"\n2) (nil)");
            t.check("HGETEX h PX 5 FIELDS 1 b", "1) \"2\"");
            t.advance_ms(5);
            t.check("HGETEX h FIELDS 1 b", "1) (nil)");
            assert_eq!(t.keyspace().tables().count_db(0), 0);
        });
    }

    #[test]
    fn fields_are_set_with_a_deadline_under_conditions() {
        Transcript::in_both_modes(|t| {
            t.check("HSETEX h FXX FIELDS 1 a 1", "(integer) 0");
            t.check("HSETEX h FNX EX 10 FIELDS 2 a 1 b 2", "(integer) 1");
            t.check("HSETEX h FNX FIELDS 2 b 5 c 5", "(integer) 0");
            t.check("HSETEX h FXX FIELDS 2 b 5 c 5", "(integer) 0");
            t.check(
                "HTTL h FIELDS 3 a b c",
                "1) (integer) 10\n2) (integer) 10\n3) (integer) -2",
            );
            t.check("HSETEX h KEEPTTL FXX FIELDS 1 a 3", "(integer) 1");
            t.check("HSETEX h FIELDS 1 b 3", "(integer) 1");
            t.check("HTTL h FIELDS 2 a b", "1) (integer) 10\n2) (integer) -1");
            t.check("HMGET h a b", "1) \"3\"\n2) \"3\"");
            t.check("HSETEX h PXAT 1 FIELDS 3 a 1 b 2 c 3", "(integer) 1");
            assert_eq!(t.keyspace().tables().count_db(0), 0);
            t.check("HSETEX h PX 0 FIELDS 1 a 1", "(integer) 1");
            t.check("HLEN h", "(integer) 0");
        });
    }

    #[test]
    fn mistakes_are_named_as_redis_names_them() {
        let mut t = Transcript::new();
        let missing =
            "(error) ERR Mandatory argument FIELDS is missing or not at the right position";
        let count = "(error) ERR The `numfields` parameter must match the number of arguments";
        let positive = "(error) ERR Number of fields must be a positive integer";
        t.check("HGETDEL h FIELD 1 a", missing);
        t.check("HGETDEL h FIELDS 2 a", count);
        t.check("HGETDEL h FIELDS 0 a", positive);
        t.check("HGETEX h KEEPTTL FIELDS 1 a", missing);
        t.check("HGETEX h EX 10 PERSIST FIELDS 1 a", missing);
        t.check(
            "HGETEX h EX -1 FIELDS 1 a",
            "(error) ERR invalid expire time, must be >= 0",
        );
        let integer = "(error) ERR value is not an integer or out of range";
        t.check("HGETEX h EX FIELDS 1 a", integer);
        let arity = "(error) ERR wrong number of arguments for 'hsetex' command";
        t.check("HSETEX h FIELDS 2 a 1", arity);
        t.check("HSETEX h FIELDS 1 a 1 b", arity);
        t.check(
            "HSETEX h FIELDS 0 a 1",
            "(error) ERR invalid number of fields",
        );
        t.check(
            "HSETEX h NX FIELDS 1 a 1",
            "(error) ERR unknown argument: NX",
        );
        t.check(
            "HSETEX h FNX FXX FIELDS 1 a 1",
            "(error) ERR Only one of FXX or FNX arguments can be specified",
        );
        t.check(
            "HSETEX h EX 1 KEEPTTL FIELDS 1 a 1",
            "(error) ERR Only one of EX, PX, EXAT, PXAT or KEEPTTL arguments can be specified",
        );
        t.check(
            "HSETEX h FNX KEEPTTL FNX EX",
            "(error) ERR Only one of FXX or FNX arguments can be specified",
        );
        t.check(
            "HSETEX h EX 99999999999999 FIELDS 1 a 1",
            "(error) ERR invalid expire time in 'hsetex' command",
        );
        t.check("HLEN h", "(integer) 0");
    }
}
