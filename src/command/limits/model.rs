//! Property test: CL.THROTTLE against a bucket that leaks: what was taken is a debt in nanoseconds,
//! which time pays off. Deadlines, deletions and restarts in between.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::command::transcript::{Transcript, cases};

const SECOND: i128 = 1_000_000_000;

/// A call, or what happens to the server between calls. Keys are numbers.
#[derive(Clone, Debug)]
enum Step {
    Throttle(u8, Limit, Option<i64>),
    Del(u8),
    PTtl(u8),
    Advance(u16),
    Recover,
}

#[derive(Clone, Copy, Debug)]
struct Limit {
    burst: i64,
    count: i64,
    period: i64,
}

#[derive(Default)]
struct Model {
    /// Debt above zero by key, as of now.
    debts: BTreeMap<u8, i128>,
}

fn integers(numbers: [i128; 5]) -> String {
    let line = |(at, number)| format!("{}) (integer) {number}", at + 1);
    let lines: Vec<String> = numbers.into_iter().enumerate().map(line).collect();
    lines.join("\n")
}

/// Seconds, and one more for at least a millisecond.
fn seconds(nanoseconds: i128) -> i128 {
    nanoseconds / SECOND + i128::from(nanoseconds % SECOND >= 1_000_000)
}

impl Model {
    fn advance(&mut self, ms: u16) {
        for debt in self.debts.values_mut() {
            *debt -= i128::from(ms) * 1_000_000;
        }
        self.debts.retain(|_, debt| *debt > 0);
    }

    fn throttle(&mut self, key: u8, limit: Limit, quantity: i64) -> String {
        let one = i128::from(limit.period) * SECOND / i128::from(limit.count);
        let most = one * i128::from(limit.burst + 1);
        let debt = self.debts.get(&key).copied().unwrap_or(0);
        let wanted = (debt + one * i128::from(quantity)).max(0);
        let allowed = wanted <= most;
        let after = if allowed { wanted } else { debt };
        self.debts.insert(key, after);
        self.debts.retain(|_, debt| *debt > 0);
        let retry = match allowed {
            false if one * i128::from(quantity) <= most => seconds(wanted - most),
            _ => -1,
        };
        integers([
            i128::from(!allowed),
            i128::from(limit.burst + 1),
            (most - after).max(0) / one,
            retry,
            seconds(after),
        ])
    }

    fn call(&mut self, step: &Step) -> (String, String) {
        match step {
            Step::Throttle(key, limit, quantity) => {
                let Limit {
                    burst,
                    count,
                    period,
                } = limit;
                let mut line = format!("CL.THROTTLE {{t}}{key} {burst} {count} {period}");
                if let Some(quantity) = quantity {
                    line += &format!(" {quantity}");
                }
                (line, self.throttle(*key, *limit, quantity.unwrap_or(1)))
            }
            Step::Del(key) => {
                let there = self.debts.remove(key).is_some();
                let answer = format!("(integer) {}", u8::from(there));
                (format!("DEL {{t}}{key}"), answer)
            }
            Step::PTtl(key) => {
                // Rounded up: the key lives until the whole debt is paid.
                let left = self.debts.get(key).map(|debt| (debt + 999_999) / 1_000_000);
                let answer = format!("(integer) {}", left.unwrap_or(-2));
                (format!("PTTL {{t}}{key}"), answer)
            }
            Step::Advance(_) | Step::Recover => (String::new(), String::new()),
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let key = || 0..2u8;
    let limit = (0..4i64, 1..5i64, 1..4i64).prop_map(|(burst, count, period)| Limit {
        burst,
        count,
        period,
    });
    prop_oneof![
        10 => (key(), limit, prop::option::of(-2..5i64))
            .prop_map(|(key, limit, quantity)| Step::Throttle(key, limit, quantity)),
        1 => key().prop_map(Step::Del),
        2 => key().prop_map(Step::PTtl),
        4 => (1..1_500u16).prop_map(Step::Advance),
        1 => Just(Step::Recover),
    ]
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn limits_do_what_the_model_says(
        steps in prop::collection::vec(step(), 1..40),
        timer: bool,
    ) {
        let mut t = Transcript::of_tag();
        t.keyspace().set_active_expiry(timer);
        let mut model = Model::default();
        for step in &steps {
            match step {
                Step::Recover => {
                    t.recover();
                    t.keyspace().set_active_expiry(timer);
                }
                Step::Advance(ms) => {
                    t.advance_ms(u64::from(*ms));
                    model.advance(*ms);
                }
                call => {
                    let (line, expected) = model.call(call);
                    let reply = t.run(&line);
                    prop_assert_eq!(reply.trim_end(), expected, "reply to: {}", line);
                }
            }
        }
        t.recover();
        for key in 0..2 {
            let (line, expected) = model.call(&Step::PTtl(key));
            let reply = t.run(&line);
            prop_assert_eq!(reply.trim_end(), expected, "at the end: {}", line);
        }
    }
}
