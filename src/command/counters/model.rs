//! Property test: the counters against a map of texts, with time steps and restarts in between.
//! Decimal numbers are quarters, so that every sum is exact.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::command::transcript::{Transcript, cases};

/// A call, or what happens to the server between calls. Keys are numbers.
#[derive(Clone, Debug)]
enum Step {
    Add(u8, &'static str, Option<i64>),
    AddFloat(u8, i64),
    IncrEx(u8, IncrEx),
    Set(u8, &'static str, Option<u8>),
    PTtl(u8),
    Advance(u8),
    Recover,
}

/// Numbers are integers, or quarters where `float` is set.
#[derive(Clone, Debug)]
struct IncrEx {
    float: bool,
    by: i64,
    least: Option<i64>,
    most: Option<i64>,
    saturate: bool,
    only: &'static str,
    expiry: Option<u8>,
    persist: bool,
    enx: bool,
}

#[derive(Default)]
struct Model {
    /// Text and deadline (0: none).
    keys: BTreeMap<u8, (String, u64)>,
    now_ms: u64,
}

const NOT_AN_INTEGER: &str = "(error) ERR value is not an integer or out of range";
const NOT_A_FLOAT: &str = "(error) ERR value is not a valid float";
const OVERFLOW: &str = "(error) ERR increment or decrement would overflow";

fn canonical(text: &str) -> Option<i64> {
    let number: i64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

/// A number of quarters, as it is written.
fn written(quarters: i128) -> String {
    let sign = if quarters < 0 { "-" } else { "" };
    let fraction = [".", ".25", ".5", ".75"][(quarters.abs() % 4) as usize];
    let text = format!("{sign}{}{fraction}", quarters.abs() / 4);
    text.trim_end_matches('.').to_owned()
}

fn quarters(text: &str) -> Option<i128> {
    let (digits, fraction) = text.split_once('.').unwrap_or((text, ""));
    let fraction = match fraction {
        "" => 0,
        "25" => 1,
        "5" => 2,
        "75" => 3,
        _ => return None,
    };
    let whole = digits.parse::<i64>().ok()?;
    let whole = i128::from(whole) * 4;
    Some(if digits.starts_with('-') {
        whole - fraction
    } else {
        whole + fraction
    })
}

impl Model {
    fn expire(&mut self) {
        let now_ms = self.now_ms;
        self.keys
            .retain(|_, (_, at_ms)| *at_ms == 0 || *at_ms > now_ms);
    }

    fn text(&self, key: u8) -> &str {
        self.keys.get(&key).map_or("0", |(text, _)| text)
    }

    fn deadline_ms(&self, key: u8) -> u64 {
        self.keys.get(&key).map_or(0, |(_, at_ms)| *at_ms)
    }

    fn add(&mut self, key: u8, by: Option<i64>) -> String {
        let Some(before) = canonical(self.text(key)) else {
            return NOT_AN_INTEGER.to_owned();
        };
        let Some(after) = by.and_then(|by| before.checked_add(by)) else {
            return OVERFLOW.to_owned();
        };
        let at_ms = self.deadline_ms(key);
        self.keys.insert(key, (after.to_string(), at_ms));
        format!("(integer) {after}")
    }

    fn add_float(&mut self, key: u8, by: i64) -> String {
        let Some(before) = quarters(self.text(key)) else {
            return NOT_A_FLOAT.to_owned();
        };
        let after = written(before + i128::from(by));
        let at_ms = self.deadline_ms(key);
        self.keys.insert(key, (after.clone(), at_ms));
        format!("\"{after}\"")
    }

    fn incr_ex(&mut self, key: u8, how: &IncrEx) -> String {
        let (lowest, highest) = match how.float {
            true => (i128::MIN, i128::MAX),
            false => (i64::MIN.into(), i64::MAX.into()),
        };
        let least = how.least.map_or(lowest, i128::from);
        let most = how.most.map_or(highest, i128::from);
        if least > most {
            return "(error) ERR LBOUND can't be greater than UBOUND".to_owned();
        }
        let text = self.text(key);
        let before = match how.float {
            true => quarters(text),
            false => canonical(text).map(i128::from),
        };
        let Some(before) = before else {
            let error = if how.float {
                NOT_A_FLOAT
            } else {
                NOT_AN_INTEGER
            };
            return error.to_owned();
        };
        let shown = |number: i128| match how.float {
            true => format!("\"{}\"", written(number)),
            false => format!("(integer) {number}"),
        };
        let existed = self.keys.contains_key(&key);
        let wanted = match how.only {
            "NX" => !existed,
            "XX" => existed,
            _ => true,
        };
        let sum = before + i128::from(how.by);
        let after = sum.clamp(least, most);
        if !wanted || (after != sum && !how.saturate) {
            return format!("1) {}\n2) {}", shown(before), shown(0));
        }
        if !how.float && i64::try_from(after - before).is_err() {
            return "(error) ERR applied increment would overflow".to_owned();
        }
        let current_ms = self.deadline_ms(key);
        let at_ms = match how.expiry {
            Some(_) if how.enx && current_ms != 0 => current_ms,
            Some(ms) => self.now_ms + u64::from(ms) + 1,
            None if how.persist => 0,
            None => current_ms,
        };
        let text = if how.float {
            written(after)
        } else {
            after.to_string()
        };
        self.keys.insert(key, (text, at_ms));
        format!("1) {}\n2) {}", shown(after), shown(after - before))
    }

    /// A decimal sum with more digits than it is computed with.
    fn is_inexact(&self, step: &Step) -> bool {
        let key = match step {
            Step::AddFloat(key, _) => key,
            Step::IncrEx(key, how) if how.float => key,
            _ => return false,
        };
        quarters(self.text(*key)).is_some_and(|number| number.abs() > 1 << 60)
    }

    fn call(&mut self, step: &Step) -> (String, String) {
        match step {
            Step::Add(key, name, by) => {
                let amount = by.map_or(String::new(), |by| format!(" {by}"));
                let by = match *name {
                    "INCR" | "INCRBY" => Some(by.unwrap_or(1)),
                    _ => by.unwrap_or(1).checked_neg(),
                };
                let line = format!("{name} {{t}}{key}{amount}");
                match by {
                    None => (line, "(error) ERR decrement would overflow".to_owned()),
                    by => (line, self.add(*key, by)),
                }
            }
            Step::AddFloat(key, by) => {
                let line = format!("INCRBYFLOAT {{t}}{key} {}", written(i128::from(*by)));
                (line, self.add_float(*key, *by))
            }
            Step::IncrEx(key, how) => (how.line(*key), self.incr_ex(*key, how)),
            Step::Set(key, text, ms) => {
                let at_ms = ms.map_or(0, |ms| self.now_ms + u64::from(ms) + 1);
                let px = ms.map_or(String::new(), |ms| format!(" PX {}", u64::from(ms) + 1));
                self.keys.insert(*key, ((*text).to_owned(), at_ms));
                (format!("SET {{t}}{key} {text}{px}"), "OK".to_owned())
            }
            Step::PTtl(key) => (format!("PTTL {{t}}{key}"), self.pttl(*key)),
            Step::Advance(_) | Step::Recover => (String::new(), String::new()),
        }
    }

    fn pttl(&self, key: u8) -> String {
        match self.keys.get(&key) {
            None => "(integer) -2".to_owned(),
            Some((_, 0)) => "(integer) -1".to_owned(),
            Some((_, at_ms)) => format!("(integer) {}", at_ms - self.now_ms),
        }
    }
}

impl IncrEx {
    fn line(&self, key: u8) -> String {
        let number = |number: i64| match self.float {
            true => written(i128::from(number)),
            false => number.to_string(),
        };
        let by = if self.float { "BYFLOAT" } else { "BYINT" };
        let mut line = format!("INCREX {{t}}{key} {by} {}", number(self.by));
        for (name, bound) in [("LBOUND", self.least), ("UBOUND", self.most)] {
            if let Some(bound) = bound {
                line += &format!(" {name} {}", number(bound));
            }
        }
        for (on, word) in [
            (self.saturate, "SATURATE"),
            (!self.only.is_empty(), self.only),
            (self.persist && self.expiry.is_none(), "PERSIST"),
            (self.enx && self.expiry.is_some(), "ENX"),
        ] {
            if on {
                line += &format!(" {word}");
            }
        }
        match self.expiry {
            Some(ms) => line + &format!(" PX {}", u64::from(ms) + 1),
            None => line,
        }
    }
}

fn incr_ex() -> impl Strategy<Value = IncrEx> {
    let number = || prop_oneof![9 => -20..20i64, 1 => prop::sample::select(EXTREMES.to_vec())];
    let switches = (any::<bool>(), any::<bool>(), any::<bool>());
    let only = prop_oneof![4 => Just(""), 1 => Just("NX"), 1 => Just("XX")];
    (
        any::<bool>(),
        number(),
        prop::option::of(-20..10i64),
        prop::option::of(-10..20i64),
        only,
        prop::option::of(0..60u8),
        switches,
    )
        .prop_map(
            |(float, by, least, most, only, expiry, (saturate, persist, enx))| IncrEx {
                float,
                by: if float { by.clamp(-99, 99) } else { by },
                least,
                most,
                saturate,
                only,
                expiry,
                persist,
                enx,
            },
        )
}

const EXTREMES: [i64; 4] = [i64::MIN, i64::MIN + 1, i64::MAX, i64::MAX - 1];

fn step() -> impl Strategy<Value = Step> {
    let key = || 0..2u8;
    let by = || prop_oneof![4 => -20..20i64, 1 => prop::sample::select(EXTREMES.to_vec())];
    let text = prop::sample::select(vec![
        "5",
        "-3",
        "1.25",
        "-0.5",
        "text",
        "9223372036854775807",
        "-9223372036854775808",
    ]);
    prop_oneof![
        1 => key().prop_map(|key| Step::Add(key, "INCR", None)),
        1 => key().prop_map(|key| Step::Add(key, "DECR", None)),
        2 => (key(), by()).prop_map(|(key, by)| Step::Add(key, "INCRBY", Some(by))),
        2 => (key(), by()).prop_map(|(key, by)| Step::Add(key, "DECRBY", Some(by))),
        2 => (key(), -20..20i64).prop_map(|(key, by)| Step::AddFloat(key, by)),
        8 => (key(), incr_ex()).prop_map(|(key, how)| Step::IncrEx(key, how)),
        2 => (key(), text, prop::option::of(0..60u8))
            .prop_map(|(key, text, ms)| Step::Set(key, text, ms)),
        2 => key().prop_map(Step::PTtl),
        3 => (1..40u8).prop_map(Step::Advance),
        1 => Just(Step::Recover),
    ]
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn counters_do_what_the_model_says(
        steps in prop::collection::vec(step(), 1..40),
        timer: bool,
    ) {
        let mut t = Transcript::of_tag();
        t.keyspace().set_active_expiry(timer);
        let mut model = Model { now_ms: t.now_ms(), ..Model::default() };
        for step in &steps {
            match step {
                Step::Recover => {
                    t.recover();
                    t.keyspace().set_active_expiry(timer);
                }
                Step::Advance(ms) => {
                    t.advance_ms(u64::from(*ms));
                    model.now_ms += u64::from(*ms);
                    model.expire();
                }
                call if model.is_inexact(call) => {}
                call => {
                    let (line, expected) = model.call(call);
                    let reply = t.run(&line);
                    prop_assert_eq!(reply.trim_end(), expected, "reply to: {}", line);
                }
            }
        }
        t.recover();
        for (key, (text, _)) in &model.keys {
            let reply = t.run(&format!("GET {{t}}{key}"));
            prop_assert_eq!(reply.trim_end(), format!("\"{text}\""));
            let reply = t.run(&format!("PTTL {{t}}{key}"));
            prop_assert_eq!(reply.trim_end(), model.pttl(*key));
        }
    }
}
