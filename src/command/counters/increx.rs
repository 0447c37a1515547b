//! INCREX: an addition within bounds, with a deadline.
//!
//! Always true: what is replied as applied is the difference between the new value and the old
//! one; an addition that is refused changes neither value nor deadline, and makes no key.

use crate::command::KeyCommand;
use crate::command::counters::long_double;
use crate::command::expiry::{Expiry, ExpiryArgs, HasExpiry, put_until};
use crate::command::spec::{Arg, Group, Spec, Word, flag};
use crate::keyspace::{Key, Txn};
use crate::number::{LongDouble, parse_i64};
use crate::reply::{Reject, Reply};
use crate::resp::Protocol;
use crate::resp::decode::Args;

const CROSSED_BOUNDS: Reject = Reject::fixed("ERR LBOUND can't be greater than UBOUND");

/// What is added, as it was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Increment {
    /// 1.
    #[default]
    One,
    Integer(Word),
    Float(Word),
}

/// Which keys are touched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Only {
    #[default]
    All,
    Missing,
    Existing,
}

/// Adds within bounds.
#[derive(Default)]
pub struct IncrEx {
    key: Word,
    only: Only,
    increment: Increment,
    least: Option<Word>,
    most: Option<Word>,
    saturate: bool,
    expiry: Expiry,
    only_first_expiry: bool,
}

impl HasExpiry for IncrEx {
    fn expiry(&mut self) -> &mut Expiry {
        &mut self.expiry
    }
}

impl KeyCommand for IncrEx {
    const SPEC: Spec = Spec::write(
        "increx",
        Group::String,
        "Adds to the number at a key within bounds, and sets or removes its deadline.",
    )
    .since("8.8.0")
    .with(flag::FAST | flag::DENYOOM)
    .reply(
        "Array of the new value and what was added in fact: integers, with BYFLOAT bulk strings \
         (RESP3: doubles). What is refused: the current value and 0.",
    )
    .notes(
        "Bounds are inclusive; without one it is that of the type. A value out of bounds is \
         refused, or set to the bound with SATURATE. A deadline that has passed deletes the key. \
         NX and XX are Valkey's.",
    );
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the counter", |c, word| c.key = word),
        Arg::one_of(
            "condition",
            "which keys are touched",
            &[
                Arg::flag("NX", "only a missing key", |c| c.only = Only::Missing),
                Arg::flag("XX", "only an existing key", |c| c.only = Only::Existing),
            ],
        ),
        Arg::one_of(
            "increment",
            "what is added; 1 without it",
            &[
                Arg::text("integer", "an integer", |c: &mut IncrEx, word| {
                    c.increment = Increment::Integer(word);
                })
                .after("BYINT")
                .once(),
                Arg::text("float", "a decimal number", |c: &mut IncrEx, word| {
                    c.increment = Increment::Float(word);
                })
                .after("BYFLOAT")
                .once(),
            ],
        ),
        Arg::text("lowerbound", "least new value", |c: &mut IncrEx, word| {
            c.least = Some(word)
        })
        .after("LBOUND")
        .optional()
        .once(),
        Arg::text("upperbound", "largest new value", |c: &mut IncrEx, word| {
            c.most = Some(word)
        })
        .after("UBOUND")
        .optional()
        .once(),
        Arg::flag(
            "SATURATE",
            "stop at the bound instead of refusing",
            |c: &mut IncrEx| {
                c.saturate = true;
            },
        )
        .once(),
        Arg::one_of(
            "expiration",
            "when the key expires",
            &[
                ExpiryArgs::<IncrEx>::EX.once(),
                ExpiryArgs::<IncrEx>::PX.once(),
                ExpiryArgs::<IncrEx>::EXAT.once(),
                ExpiryArgs::<IncrEx>::PXAT.once(),
                ExpiryArgs::<IncrEx>::PERSIST.once(),
            ],
        ),
        Arg::flag(
            "ENX",
            "set the deadline only if there is none",
            |c: &mut IncrEx| {
                c.only_first_expiry = true;
            },
        )
        .once(),
    ];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        if self.only_first_expiry {
            match self.expiry {
                Expiry::Persist => return Err(Reject::syntax()),
                Expiry::None => {
                    return Err(Reject::fixed("ERR ENX flag requires an expiration"));
                }
                _ => {}
            }
        }
        match self.increment {
            Increment::One => self.add_integer(1, &key, txn, args, reply),
            Increment::Integer(word) => {
                let by = parse_i64(args.word(word));
                let by = by.ok_or(Reject::fixed(
                    "ERR Increment is not an integer or out of range",
                ))?;
                self.add_integer(by, &key, txn, args, reply)
            }
            Increment::Float(word) => self.add_float(args.word(word), &key, txn, args, reply),
        }
    }
}

impl IncrEx {
    fn add_integer(
        &self,
        by: i64,
        key: &Key<'_>,
        txn: &mut Txn<'_>,
        args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<(), Reject> {
        let bound = |word: Option<Word>, name, none| match word {
            None => Ok(none),
            Some(word) => parse_i64(args.word(word))
                .ok_or_else(|| Reject::err(format!("{name} is not an integer or out of range"))),
        };
        let least = i128::from(bound(self.least, "LBOUND", i64::MIN)?);
        let most = i128::from(bound(self.most, "UBOUND", i64::MAX)?);
        if least > most {
            return Err(CROSSED_BOUNDS);
        }
        let given_ms = self.expiry.deadline_ms(txn.now_ms(), "increx")?;
        let text = txn.string(key)?;
        let existed = text.is_some();
        let before = match text {
            None => 0,
            Some(text) => text.integer().ok_or(Reject::not_an_integer())?,
        };
        let sum = i128::from(before) + i128::from(by);
        let after = sum.clamp(least, most);
        reply.array(2);
        if !self.touches(existed) || (after != sum && !self.saturate) {
            reply.integer(before);
            reply.integer(0);
            return Ok(());
        }
        let applied = i64::try_from(after - i128::from(before));
        let applied = applied.map_err(|_| Reject::fixed("ERR applied increment would overflow"))?;
        // Between the bounds, so it is 64 bits wide.
        let after = after as i64;
        self.put(txn, key, after.to_string().as_bytes(), given_ms);
        reply.integer(after);
        reply.integer(applied);
        Ok(())
    }

    fn add_float(
        &self,
        by: &[u8],
        key: &Key<'_>,
        txn: &mut Txn<'_>,
        args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<(), Reject> {
        let by =
            LongDouble::parse(by).ok_or(Reject::fixed("ERR Increment is not a valid float"))?;
        if !by.is_finite() {
            return Err(Reject::fixed("ERR BYFLOAT increment cannot be Infinity"));
        }
        let bound = |word: Option<Word>, name, none| match word {
            None => Ok(none),
            Some(word) => LongDouble::parse(args.word(word))
                .ok_or_else(|| Reject::err(format!("{name} is not a valid float"))),
        };
        let least = bound(self.least, "LBOUND", -LongDouble::largest())?;
        let most = bound(self.most, "UBOUND", LongDouble::largest())?;
        if least > most {
            return Err(CROSSED_BOUNDS);
        }
        let given_ms = self.expiry.deadline_ms(txn.now_ms(), "increx")?;
        let text = txn.string(key)?;
        let existed = text.is_some();
        let before = long_double(text)?;
        if !before.is_finite() {
            return Err(Reject::fixed("ERR value cannot be Infinity"));
        }
        let sum = before + by;
        let after = if sum > most {
            most
        } else if sum < least {
            least
        } else {
            sum
        };
        let within = sum.is_finite() && sum == after;
        reply.array(2);
        if !self.touches(existed) || (!within && !self.saturate) {
            reply_float(before, reply);
            reply_float(LongDouble::from_i64(0), reply);
            return Ok(());
        }
        let applied = after - before;
        if !applied.is_finite() {
            return Err(Reject::fixed("ERR applied increment would be Infinity"));
        }
        let mut text = Vec::new();
        after.append_human(&mut text);
        self.put(txn, key, &text, given_ms);
        reply_float(after, reply);
        reply_float(applied, reply);
        Ok(())
    }

    fn touches(&self, existed: bool) -> bool {
        match self.only {
            Only::All => true,
            Only::Missing => !existed,
            Only::Existing => existed,
        }
    }

    fn put(&self, txn: &mut Txn<'_>, key: &Key<'_>, text: &[u8], given_ms: Option<u64>) {
        let current_ms = txn.deadline_ms(key).unwrap_or(0);
        let deadline_ms = match given_ms {
            Some(_) if self.only_first_expiry && current_ms != 0 => current_ms,
            Some(given_ms) => given_ms,
            None if self.expiry == Expiry::Persist => 0,
            None => current_ms,
        };
        put_until(txn, key, text, deadline_ms);
    }
}

/// Replies a number with all its digits, which a double need not have.
fn reply_float(value: LongDouble, reply: &mut Reply<'_>) {
    let mut text = Vec::new();
    value.append_human(&mut text);
    match reply.protocol() {
        Protocol::Resp2 => reply.bulk(&text),
        Protocol::Resp3 => {
            reply.raw(b",");
            reply.raw(&text);
            reply.raw(b"\r\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::command::transcript::Transcript;

    /// Checks an array of integers; `floats` of bulk strings.
    fn ints(t: &mut Transcript, line: &str, new: &str, applied: i64) {
        t.check(line, &format!("1) (integer) {new}\n2) (integer) {applied}"));
    }

    fn floats(t: &mut Transcript, line: &str, new: &str, applied: &str) {
        t.check(line, &format!("1) \"{new}\"\n2) \"{applied}\""));
    }

    #[test]
    fn integers_are_added_within_bounds() {
        Transcript::in_both_modes(|t| {
            ints(t, "INCREX a", "1", 1);
            ints(t, "INCREX a BYINT 9", "10", 9);
            ints(t, "INCREX a BYINT 10 UBOUND 15", "10", 0);
            ints(t, "INCREX a BYINT 5 UBOUND 15", "15", 5);
            ints(t, "INCREX a BYINT 100 LBOUND 0 UBOUND 20 SATURATE", "20", 5);
            ints(t, "INCREX a BYINT -100 LBOUND 5 SATURATE", "5", -15);
            ints(t, "INCREX a BYINT -100 LBOUND 5", "5", 0);
            ints(t, "INCREX a BYINT 5 UBOUND 3 SATURATE", "3", -2);
            ints(t, "INCREX a BYINT -1 LBOUND 20 SATURATE", "20", 17);
            ints(t, "INCREX m UBOUND 0", "0", 0);
            t.check("GET m", "(nil)");
            ints(t, "INCREX m UBOUND 0 SATURATE", "0", 0);
            t.check("GET m", "\"0\"");
            t.check("SET b 9223372036854775800", "OK");
            ints(t, "INCREX b BYINT 8", "9223372036854775800", 0);
            ints(t, "INCREX b BYINT 8 SATURATE", "9223372036854775807", 7);
            t.check(
                "INCREX b SATURATE UBOUND -9223372036854775808",
                "(error) ERR applied increment would overflow",
            );
        });
    }

    #[test]
    fn floats_are_added_within_bounds() {
        Transcript::in_both_modes(|t| {
            floats(t, "INCREX a BYFLOAT 0.1", "0.1", "0.1");
            floats(t, "INCREX a BYFLOAT 0.2", "0.3", "0.2");
            floats(t, "INCREX a BYFLOAT 5.5 UBOUND 2.5", "0.3", "0");
            t.check("SET a 10", "OK");
            floats(
                t,
                "INCREX a BYFLOAT 5.5 UBOUND 12.5 SATURATE",
                "12.5",
                "2.5",
            );
            floats(
                t,
                "INCREX a BYFLOAT -100 LBOUND -5.5 SATURATE",
                "-5.5",
                "-18",
            );
            floats(t, "INCREX a BYFLOAT 5.5 LBOUND 0 UBOUND 0", "0", "5.5");
            ints(t, "INCREX a BYINT 2", "2", 2);
            t.check("SET a 100000000000000000000", "OK");
            floats(t, "INCREX a BYFLOAT 1", "100000000000000000000", "0");
            t.check("SET a 1e4932", "OK");
            let big = t.run("INCREX a BYFLOAT 0");
            assert_eq!(t.run("INCREX a BYFLOAT 1e4932"), big);
            floats(t, "INCREX m BYFLOAT -0.5 UBOUND -1.5", "0", "0");
            t.check("GET m", "(nil)");
        });
        let mut t = Transcript::new().resp3();
        t.check("INCREX a BYFLOAT 2.5", "1) (double) 2.5\n2) (double) 2.5");
        t.check(
            "INCREX a XX BYFLOAT 1 UBOUND 3",
            "1) (double) 2.5\n2) (double) 0",
        );
        ints(&mut t, "INCREX b BYINT 2", "2", 2);
    }

    #[test]
    fn infinity_is_no_value() {
        let mut t = Transcript::new();
        t.check("SET a 10", "OK");
        for line in ["INCREX a BYFLOAT inf", "INCREX a BYFLOAT -inf"] {
            t.check(line, "(error) ERR BYFLOAT increment cannot be Infinity");
        }
        t.check(
            "INCREX a BYFLOAT nan",
            "(error) ERR Increment is not a valid float",
        );
        floats(
            &mut t,
            "INCREX a BYFLOAT 1 UBOUND inf LBOUND -inf",
            "11",
            "1",
        );
        floats(
            &mut t,
            "INCREX a BYFLOAT 1 UBOUND -inf LBOUND -inf",
            "11",
            "0",
        );
        t.check(
            "INCREX a BYFLOAT 1 LBOUND inf UBOUND inf SATURATE",
            "(error) ERR applied increment would be Infinity",
        );
        t.check(
            "INCREX a BYFLOAT 1 UBOUND -inf",
            "(error) ERR LBOUND can't be greater than UBOUND",
        );
        t.check("SET a inf", "OK");
        t.check("INCREX a BYFLOAT 1", "(error) ERR value cannot be Infinity");
        t.check(
            "INCREX a",
            "(error) ERR value is not an integer or out of range",
        );
        t.check("GET a", "\"inf\"");
    }

    #[test]
    fn nx_and_xx_choose_the_keys() {
        Transcript::in_both_modes(|t| {
            ints(t, "INCREX a XX", "0", 0);
            t.check("GET a", "(nil)");
            ints(t, "INCREX a NX EX 100 BYINT 3", "3", 3);
            ints(t, "INCREX a NX EX 1 BYINT 3", "3", 0);
            t.advance_ms(50_000);
            ints(t, "INCREX a XX", "4", 1);
            t.check("INCREX a NX XX", "(error) ERR syntax error");
        });
    }

    #[test]
    fn deadlines_are_set_kept_and_removed() {
        Transcript::in_both_modes(|t| {
            ints(t, "INCREX a EX 10 ENX", "1", 1);
            t.advance_ms(5_000);
            ints(t, "INCREX a EX 10 ENX", "2", 1);
            ints(t, "INCREX a EXAT 1 ENX", "3", 1);
            ints(t, "INCREX a", "4", 1);
            ints(t, "INCREX a UBOUND 4 EX 100", "4", 0);
            ints(t, "INCREX a UBOUND 4 PERSIST", "4", 0);
            t.advance_ms(5_000);
            t.check("GET a", "(nil)");
            ints(t, "INCREX a PX 10", "1", 1);
            ints(t, "INCREX a PERSIST", "2", 1);
            t.advance_ms(10);
            ints(t, "INCREX a EXAT 1", "3", 1);
            t.check("GET a", "(nil)");
            ints(t, "INCREX a PXAT 1", "1", 1);
            t.check("GET a", "(nil)");
        });
    }

    #[test]
    fn increx_refuses_what_redis_refuses() {
        let mut t = Transcript::new();
        let syntax = [
            "FOO",
            "BYINT",
            "LBOUND",
            "BYINT 1 BYINT 2",
            "BYINT 1 BYFLOAT 1",
            "BYFLOAT 1 BYFLOAT 1",
            "LBOUND 0 LBOUND 1",
            "UBOUND 9 UBOUND 8",
            "SATURATE SATURATE",
            "ENX ENX EX 10",
            "PERSIST PERSIST",
            "EX 10 EX 20",
            "EX 10 PX 20",
            "EX 10 PERSIST",
            "PERSIST ENX",
            "ENX PERSIST",
            "KEEPTTL",
        ];
        for options in syntax {
            t.check(&format!("INCREX a {options}"), "(error) ERR syntax error");
        }
        let errors = [
            ("ENX", "ENX flag requires an expiration"),
            ("BYINT 1.5", "Increment is not an integer or out of range"),
            ("BYFLOAT abc", "Increment is not a valid float"),
            ("UBOUND 12.5", "UBOUND is not an integer or out of range"),
            ("LBOUND inf", "LBOUND is not an integer or out of range"),
            ("BYFLOAT 1 UBOUND abc", "UBOUND is not a valid float"),
            ("LBOUND 10 UBOUND 5", "LBOUND can't be greater than UBOUND"),
            (
                "BYFLOAT 1 LBOUND 1.5 UBOUND 0.5",
                "LBOUND can't be greater than UBOUND",
            ),
            ("EX 0", "invalid expire time in 'increx' command"),
            ("PX -1", "invalid expire time in 'increx' command"),
            ("EX x", "value is not an integer or out of range"),
        ];
        for (options, error) in errors {
            t.check(
                &format!("INCREX a {options}"),
                &format!("(error) ERR {error}"),
            );
        }
        t.check("GET a", "(nil)");
        t.check("SET a hello", "OK");
        t.check(
            "INCREX a",
            "(error) ERR value is not an integer or out of range",
        );
        t.check(
            "INCREX a BYFLOAT 1",
            "(error) ERR value is not a valid float",
        );
        t.make_hash("h");
        let wrong = "(error) WRONGTYPE Operation against a key holding the wrong kind of value";
        t.check("INCREX h EXAT 1", wrong);
        t.check("INCREX h BYFLOAT 1", wrong);
    }
}
