//! Rate limits: CL.THROTTLE, the generic cell rate algorithm as redis-cell has it.
//!
//! Always true: the key is a string with the theoretical arrival time (TAT), the Unix time in
//! nanoseconds at which the limit is full again; it expires then. A call that is refused writes
//! nothing.

use crate::command::spec::{Arg, Group, Spec, Word, flag};
use crate::command::{KeyCommand, Row};
use crate::keyspace::{Txn, Value};
use crate::reply::{Reject, Reply};
use crate::resp::decode::Args;

/// The family's commands.
pub const COMMANDS: &[Row] = &[Row::keys::<ClThrottle>()];

const NANOSECONDS_PER_MS: i128 = 1_000_000;
const NANOSECONDS_PER_SECOND: i128 = 1_000_000_000;
const TOO_LARGE: Reject = Reject::fixed("ERR max_burst, count, period or quantity is too large");

/// Takes from a rate limit.
#[derive(Default)]
struct ClThrottle {
    key: Word,
    max_burst: i64,
    count: i64,
    period: i64,
    quantity: Option<i64>,
}

impl KeyCommand for ClThrottle {
    const SPEC: Spec = Spec::write(
        "cl.throttle",
        Group::Limits,
        "Takes from a rate limit of count per period with a burst, and says when there is more.",
    )
    .since("tallyman")
    .with(flag::FAST | flag::DENYOOM)
    .reply(
        "Array of five integers: 1 if it was refused, else 0; the limit, which is max_burst + 1; \
         what remains; seconds until it can be retried (-1 if it was allowed or never fits); \
         seconds until the limit is full again.",
    )
    .notes("A quantity of 0 takes nothing, a negative one gives back, never above the limit.");
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the limit", |c, word| c.key = word),
        Arg::integer(
            "max_burst",
            "what may be taken at once beyond the first",
            |c, burst| {
                c.max_burst = burst;
            },
        ),
        Arg::integer("count", "how many come back in a period", |c, count| {
            c.count = count
        }),
        Arg::integer("period", "the period in seconds", |c, period| {
            c.period = period
        }),
        Arg::integer(
            "quantity",
            "how many are taken; 1 without it",
            |c: &mut ClThrottle, n| {
                c.quantity = Some(n);
            },
        )
        .optional(),
    ];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let rate = self.rate()?;
        let key = txn.key(args.word(self.key));
        let now = i128::from(txn.now_ms()) * NANOSECONDS_PER_MS;
        let tat = match txn.string(&key)? {
            None => now,
            Some(text) => i128::from(text.integer().ok_or(Reject::not_an_integer())?),
        };
        let outcome = rate.take(now, tat.max(now), self.quantity.unwrap_or(1))?;
        if let Some(new_tat) = outcome.new_tat.filter(|new_tat| *new_tat != tat) {
            if new_tat <= now {
                txn.delete(&key);
            } else {
                let new_tat = i64::try_from(new_tat).map_err(|_| TOO_LARGE)?;
                // Rounded up: a limit that expired early would be full early.
                let deadline_ms = (new_tat as u64).div_ceil(NANOSECONDS_PER_MS as u64);
                txn.put(&key, Value::Counter(new_tat), deadline_ms);
            }
        }
        reply.array(5);
        reply.integer(i64::from(outcome.new_tat.is_none()));
        reply.integer(rate.limit);
        reply.integer(outcome.remaining);
        reply.integer(outcome.retry_after.map_or(-1, seconds));
        reply.integer(seconds(outcome.reset_after));
        Ok(())
    }
}

impl ClThrottle {
    fn rate(&self) -> Result<Rate, Reject> {
        if self.max_burst < 0 {
            return Err(Reject::fixed("ERR max_burst must not be negative"));
        }
        if self.count <= 0 {
            return Err(Reject::fixed("ERR count must be positive"));
        }
        if self.period <= 0 {
            return Err(Reject::fixed("ERR period must be positive"));
        }
        let limit = self.max_burst.checked_add(1).ok_or(TOO_LARGE)?;
        let interval = i128::from(self.period) * NANOSECONDS_PER_SECOND / i128::from(self.count);
        if interval == 0 {
            return Err(Reject::fixed(
                "ERR count must not be more than one per nanosecond",
            ));
        }
        let tolerance = interval.checked_mul(i128::from(limit)).ok_or(TOO_LARGE)?;
        Ok(Rate {
            limit,
            interval,
            tolerance,
        })
    }
}

/// A rate limit; times in nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Rate {
    /// Most that can be taken at once.
    limit: i64,
    /// Between two units; above 0.
    interval: i128,
    /// How far TAT may be ahead of now.
    tolerance: i128,
}

/// What became of a call; times in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Outcome {
    /// Nothing if it was refused.
    new_tat: Option<i128>,
    remaining: i64,
    /// Until so much can be taken; nothing if it was taken or never can be.
    retry_after: Option<i128>,
    reset_after: i128,
}

impl Rate {
    /// Takes `quantity` at the time `now`; `tat` is not before it.
    fn take(self, now: i128, tat: i128, quantity: i64) -> Result<Outcome, Reject> {
        let increment = self
            .interval
            .checked_mul(i128::from(quantity))
            .ok_or(TOO_LARGE)?;
        let new_tat = tat.checked_add(increment).ok_or(TOO_LARGE)?.max(now);
        let allow_at = new_tat.checked_sub(self.tolerance).ok_or(TOO_LARGE)?;
        let allowed = now >= allow_at;
        let reset_after = if allowed { new_tat - now } else { tat - now };
        // Below the limit while the increments are positive; 0 where a smaller limit came later.
        let remaining = (self.tolerance - reset_after).max(0) / self.interval;
        Ok(Outcome {
            new_tat: allowed.then_some(new_tat),
            remaining: i64::try_from(remaining).map_err(|_| TOO_LARGE)?,
            retry_after: (!allowed && increment <= self.tolerance).then(|| allow_at - now),
            reset_after,
        })
    }
}

/// Whole seconds, and one more if at least a millisecond is left over.
fn seconds(nanoseconds: i128) -> i64 {
    let left_over = nanoseconds % NANOSECONDS_PER_SECOND >= NANOSECONDS_PER_MS;
    let seconds = nanoseconds / NANOSECONDS_PER_SECOND + i128::from(left_over);
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use crate::command::transcript::Transcript;

    #[track_caller]
    fn check(t: &mut Transcript, line: &str, expected: [i64; 5]) {
        let lines: Vec<String> = expected
            .iter()
            .enumerate()
            .map(|(index, value)| format!("{}) (integer) {value}", index + 1))
            .collect();
        t.check(line, &lines.join("\n"));
    }

    /// The table of redis-cell's own test: 5 at once, one per second.
    #[test]
    fn a_rate_is_limited_as_redis_cell_does() {
        Transcript::in_both_modes(|t| {
            check(t, "CL.THROTTLE a 4 1 1 6", [1, 5, 5, -1, 0]);
            t.check("GET a", "(nil)");
            check(t, "CL.THROTTLE a 4 1 1", [0, 5, 4, -1, 1]);
            check(t, "CL.THROTTLE a 4 1 1 1", [0, 5, 3, -1, 2]);
            check(t, "CL.THROTTLE a 4 1 1", [0, 5, 2, -1, 3]);
            check(t, "CL.THROTTLE a 4 1 1", [0, 5, 1, -1, 4]);
            check(t, "CL.THROTTLE a 4 1 1", [0, 5, 0, -1, 5]);
            check(t, "CL.THROTTLE a 4 1 1", [1, 5, 0, 1, 5]);
            t.advance_ms(3_000);
            check(t, "CL.THROTTLE a 4 1 1", [0, 5, 2, -1, 3]);
            t.advance_ms(100);
            check(t, "CL.THROTTLE a 4 1 1", [0, 5, 1, -1, 4]);
            t.advance_ms(900);
            check(t, "CL.THROTTLE a 4 1 1", [0, 5, 1, -1, 4]);
            t.advance_ms(4_000);
            check(t, "CL.THROTTLE a 4 1 1", [0, 5, 4, -1, 1]);
            t.advance_ms(1_500);
            check(t, "CL.THROTTLE a 4 1 1", [0, 5, 4, -1, 1]);
            check(t, "CL.THROTTLE a 4 1 1 0", [0, 5, 4, -1, 1]);
            check(t, "CL.THROTTLE a 4 1 1 2", [0, 5, 2, -1, 3]);
            check(t, "CL.THROTTLE a 4 1 1 5", [1, 5, 2, 3, 3]);
            t.advance_ms(3_000);
            t.check("GET a", "(nil)");
        });
    }

    #[test]
    fn a_refund_never_goes_above_the_limit() {
        Transcript::in_both_modes(|t| {
            check(t, "CL.THROTTLE a 4 1 1 3", [0, 5, 2, -1, 3]);
            check(t, "CL.THROTTLE a 4 1 1 -1", [0, 5, 3, -1, 2]);
            check(t, "CL.THROTTLE a 4 1 1 -10", [0, 5, 5, -1, 0]);
            t.check("GET a", "(nil)");
            check(t, "CL.THROTTLE a 4 1 1 0", [0, 5, 5, -1, 0]);
            check(t, "CL.THROTTLE a 4 1 1 -1", [0, 5, 5, -1, 0]);
            t.check("GET a", "(nil)");
        });
    }

    #[test]
    fn fractions_of_a_millisecond_are_kept() {
        Transcript::in_both_modes(|t| {
            // A third of a second each: 333,333,333 ns.
            check(t, "CL.THROTTLE a 2 3 1", [0, 3, 2, -1, 1]);
            t.check("GET a", "\"1700000000333333333\"");
            t.advance_ms(333);
            t.check("STRLEN a", "(integer) 19");
            check(t, "CL.THROTTLE a 2 3 1 0", [0, 3, 2, -1, 0]);
            t.advance_ms(1);
            t.check("STRLEN a", "(integer) 0");
        });
    }

    #[test]
    fn bad_limits_are_refused() {
        let mut t = Transcript::new();
        let cases = [
            ("1 0 1", "count must be positive"),
            ("1 -1 1", "count must be positive"),
            ("1 1 0", "period must be positive"),
            ("-1 1 1", "max_burst must not be negative"),
            (
                "1 1000000001 1",
                "count must not be more than one per nanosecond",
            ),
            ("x 1 1", "value is not an integer or out of range"),
            ("1 1 1 x", "value is not an integer or out of range"),
            (
                "9223372036854775807 1 1",
                "max_burst, count, period or quantity is too large",
            ),
            (
                "9223372036854775806 1 9223372036854775807",
                "max_burst, count, period or quantity is too large",
            ),
            (
                "9223372036854775806 1 1000 9223372036854775806",
                "max_burst, count, period or quantity is too large",
            ),
            ("1 1 1 1 1", "syntax error"),
        ];
        for (args, error) in cases {
            t.check(
                &format!("CL.THROTTLE a {args}"),
                &format!("(error) ERR {error}"),
            );
        }
        t.check("GET a", "(nil)");
        t.check("SET a x", "OK");
        t.check(
            "CL.THROTTLE a 1 1 1",
            "(error) ERR value is not an integer or out of range",
        );
        t.make_hash("h");
        t.check(
            "CL.THROTTLE h 1 1 1",
            "(error) WRONGTYPE Operation against a key holding the wrong kind of value",
        );
    }
}
