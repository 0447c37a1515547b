//! Property tests: the commands on strings and counters against a map of byte vectors, and BITFIELD
//! against a row of single bits, with restarts in between.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::command::transcript::{Transcript, cases};
use crate::resp::value::Value;

/// A call, or what happens to the server between calls.
#[derive(Clone, Debug)]
enum Step {
    Set(u8, Vec<u8>, Expiry),
    SetIfEqual(u8, Vec<u8>, Vec<u8>),
    SetNx(u8, Vec<u8>),
    MSetNx(u8, u8, Vec<u8>),
    Get(u8),
    GetDel(u8),
    DelIfEqual(u8, Vec<u8>),
    StrLen(u8),
    Append(u8, Vec<u8>),
    SetRange(u8, u8, Vec<u8>),
    GetRange(u8, i8, i8),
    SetBit(u8, u8, bool),
    GetBit(u8, u8),
    BitCount(u8),
    BitPos(u8, bool),
    BitOp(&'static str, u8, u8, u8),
    BitField(u8, Field, Change),
    Incr(u8, i64),
    IncrEx(u8, i8, i8, bool),
    Advance(u8),
    Recover,
}

#[derive(Clone, Copy, Debug)]
enum Expiry {
    None,
    Milliseconds(u8),
    Keep,
}

#[derive(Clone, Copy, Debug)]
struct Field {
    signed: bool,
    bits: u8,
    offset: u8,
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Get,
    Set(&'static str, i64),
    Add(&'static str, i64),
}

/// What the keyspace should hold: text and deadline (0: none) by key.
#[derive(Default)]
struct Model {
    strings: BTreeMap<u8, (Vec<u8>, u64)>,
    now_ms: u64,
}

fn ok() -> Value {
    Value::Simple(b"OK".to_vec())
}

fn error(text: &str) -> Value {
    Value::Error(text.as_bytes().to_vec())
}

fn integer(text: &[u8]) -> Option<i64> {
    let number: i64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (number.to_string().as_bytes() == text).then_some(number)
}

fn bit(text: &[u8], place: usize) -> bool {
    text.get(place / 8)
        .is_some_and(|byte| byte >> (7 - place % 8) & 1 == 1)
}

fn put_bit(text: &mut [u8], place: usize, on: bool) {
    let mask = 1 << (7 - place % 8);
    if on {
        text[place / 8] |= mask;
    } else {
        text[place / 8] &= !mask;
    }
}

impl Model {
    fn text(&self, key: u8) -> Option<&Vec<u8>> {
        self.strings.get(&key).map(|(text, _)| text)
    }

    fn or_empty(&self, key: u8) -> Vec<u8> {
        self.text(key).cloned().unwrap_or_default()
    }

    fn deadline(&self, key: u8) -> u64 {
        self.strings.get(&key).map_or(0, |(_, deadline)| *deadline)
    }

    /// Changes the text alone.
    fn write(&mut self, key: u8, text: Vec<u8>) {
        let deadline = self.deadline(key);
        self.strings.insert(key, (text, deadline));
    }

    fn bulk(&self, key: u8) -> Value {
        self.text(key)
            .map_or(Value::Null, |text| Value::Bulk(text.clone()))
    }

    fn advance(&mut self, milliseconds: u64) {
        self.now_ms += milliseconds;
        let now_ms = self.now_ms;
        self.strings
            .retain(|_, (_, deadline)| *deadline == 0 || *deadline > now_ms);
    }

    fn run(&mut self, step: &Step) -> Value {
        match step.clone() {
            Step::Set(key, text, expiry) => {
                let deadline = match expiry {
                    Expiry::None => 0,
                    Expiry::Milliseconds(amount) => self.now_ms + u64::from(amount) + 1,
                    Expiry::Keep => self.deadline(key),
                };
                self.strings.insert(key, (text, deadline));
                ok()
            }
            Step::SetIfEqual(key, text, expected) => {
                if self.text(key) != Some(&expected) {
                    return Value::Null;
                }
                self.strings.insert(key, (text, 0));
                ok()
            }
            Step::SetNx(key, text) => self.set_all_new(&[key], text),
            Step::MSetNx(first, second, text) => self.set_all_new(&[first, second], text),
            Step::Get(key) => self.bulk(key),
            Step::GetDel(key) => {
                let before = self.bulk(key);
                self.strings.remove(&key);
                before
            }
            Step::DelIfEqual(key, expected) => {
                let equal = self.text(key) == Some(&expected);
                if equal {
                    self.strings.remove(&key);
                }
                Value::Integer(i64::from(equal))
            }
            Step::Incr(key, by) => self.add(key, by),
            Step::IncrEx(key, by, most, saturate) => self.add_below(key, by, most, saturate),
            step => self.run_on_parts(step),
        }
    }

    fn run_on_parts(&mut self, step: Step) -> Value {
        match step {
            Step::StrLen(key) => Value::Integer(self.or_empty(key).len() as i64),
            Step::Append(key, more) => {
                let text = [self.or_empty(key), more].concat();
                let len = text.len();
                self.write(key, text);
                Value::Integer(len as i64)
            }
            Step::SetRange(key, offset, part) => {
                let mut text = self.or_empty(key);
                if !part.is_empty() {
                    let end = offset as usize + part.len();
                    text.resize(text.len().max(end), 0);
                    text[offset as usize..end].copy_from_slice(&part);
                    self.write(key, text.clone());
                }
                Value::Integer(text.len() as i64)
            }
            Step::GetRange(key, first, last) => {
                let text = self.or_empty(key);
                let len = text.len() as i64;
                let place = |index: i8| match i64::from(index) {
                    index if index < 0 => (index + len).max(0),
                    index => index,
                };
                let wanted = place(first)..=place(last).min(len - 1);
                let crossed = first < 0 && last < 0 && first > last;
                let part = (0..len).filter(|index| !crossed && wanted.contains(index));
                Value::Bulk(part.map(|index| text[index as usize]).collect())
            }
            Step::SetBit(key, place, on) => {
                let mut text = self.or_empty(key);
                let before = bit(&text, place as usize);
                text.resize(text.len().max(place as usize / 8 + 1), 0);
                put_bit(&mut text, place as usize, on);
                self.write(key, text);
                Value::Integer(i64::from(before))
            }
            Step::GetBit(key, place) => {
                Value::Integer(i64::from(bit(&self.or_empty(key), place as usize)))
            }
            Step::BitCount(key) => {
                let text = self.or_empty(key);
                let count = (0..text.len() * 8)
                    .filter(|place| bit(&text, *place))
                    .count();
                Value::Integer(count as i64)
            }
            Step::BitPos(key, on) => Value::Integer(self.find_bit(key, on)),
            Step::BitOp(name, destination, first, second) => {
                self.combine(name, destination, first, second)
            }
            Step::BitField(key, field, change) => self.bitfield(key, field, change),
            _ => unreachable!("every other step is a call on a whole string"),
        }
    }

    fn set_all_new(&mut self, keys: &[u8], text: Vec<u8>) -> Value {
        let new = keys.iter().all(|key| self.text(*key).is_none());
        if new {
            for key in keys {
                self.strings.insert(*key, (text.clone(), 0));
            }
        }
        Value::Integer(i64::from(new))
    }

    fn add(&mut self, key: u8, by: i64) -> Value {
        let before = self.text(key).map_or(Some(0), |text| integer(text));
        let Some(before) = before else {
            return error("ERR value is not an integer or out of range");
        };
        let Some(after) = before.checked_add(by) else {
            return error("ERR increment or decrement would overflow");
        };
        self.write(key, after.to_string().into_bytes());
        Value::Integer(after)
    }

    fn add_below(&mut self, key: u8, by: i8, most: i8, saturate: bool) -> Value {
        let before = self.text(key).map_or(Some(0), |text| integer(text));
        let Some(before) = before else {
            return error("ERR value is not an integer or out of range");
        };
        let sum = i128::from(before) + i128::from(by);
        let after = sum.clamp(i64::MIN.into(), most.into());
        if after != sum && !saturate {
            return Value::Array(vec![Value::Integer(before), Value::Integer(0)]);
        }
        let Ok(applied) = i64::try_from(after - i128::from(before)) else {
            return error("ERR applied increment would overflow");
        };
        self.write(key, after.to_string().into_bytes());
        Value::Array(vec![Value::Integer(after as i64), Value::Integer(applied)])
    }

    fn find_bit(&self, key: u8, on: bool) -> i64 {
        let Some(text) = self.text(key) else {
            return if on { -1 } else { 0 };
        };
        let found = (0..text.len() * 8).find(|place| bit(text, *place) == on);
        match found {
            Some(place) => place as i64,
            None if on || text.is_empty() => -1,
            None => text.len() as i64 * 8,
        }
    }

    fn combine(&mut self, name: &str, destination: u8, first: u8, second: u8) -> Value {
        let (first, second) = (self.or_empty(first), self.or_empty(second));
        let len = first.len().max(second.len());
        let byte = |text: &[u8], index: usize| text.get(index).copied().unwrap_or(0);
        let result: Vec<u8> = (0..len)
            .map(|index| (byte(&first, index), byte(&second, index)))
            .map(|(one, other)| match name {
                "AND" => one & other,
                "OR" => one | other,
                _ => one ^ other,
            })
            .collect();
        if result.is_empty() {
            self.strings.remove(&destination);
        } else {
            self.strings.insert(destination, (result, 0));
        }
        Value::Integer(len as i64)
    }

    /// Bit by bit: slow, but plain to see.
    fn bitfield(&mut self, key: u8, field: Field, change: Change) -> Value {
        let places = field.offset as usize..field.offset as usize + field.bits as usize;
        let mut text = self.or_empty(key);
        let range = 1i128 << field.bits;
        let (least, most) = if field.signed {
            (-range / 2, range / 2 - 1)
        } else {
            (0, range - 1)
        };
        let mut before = places
            .clone()
            .fold(0, |sum, place| sum * 2 + i128::from(bit(&text, place)));
        if before > most {
            before -= range;
        }
        let (how, wanted) = match change {
            Change::Get => return Value::Array(vec![Value::Integer(before as i64)]),
            Change::Set(how, value) if field.signed => (how, i128::from(value)),
            Change::Set(how, value) => (how, i128::from(value as u64)),
            Change::Add(how, amount) => (how, before + i128::from(amount)),
        };
        text.resize(text.len().max(places.end.div_ceil(8)), 0);
        let fits = (least..=most).contains(&wanted);
        let after = match how {
            "SAT" => wanted.clamp(least, most),
            "WRAP" => (wanted - least).rem_euclid(range) + least,
            _ if !fits => before,
            _ => wanted,
        };
        for (place, power) in places.clone().zip((0..field.bits).rev()) {
            put_bit(&mut text, place, after.rem_euclid(range) >> power & 1 == 1);
        }
        self.write(key, text);
        let answer = match change {
            Change::Add(..) => after,
            _ => before,
        };
        Value::Array(vec![if how == "FAIL" && !fits {
            Value::Null
        } else {
            Value::Integer(answer as i64)
        }])
    }
}

impl Step {
    /// The call as a client sends it; nothing for what is no call.
    fn args(&self) -> Vec<Vec<u8>> {
        let words = |line: String| -> Vec<Vec<u8>> {
            line.split(' ')
                .map(|word| word.as_bytes().to_vec())
                .collect()
        };
        let with = |line: String, texts: &[&Vec<u8>]| {
            let mut args = words(line);
            args.extend(texts.iter().map(|text| text.to_vec()));
            args
        };
        match self {
            Step::Set(key, text, expiry) => {
                let mut args = with(format!("SET {{t}}{key}"), &[text]);
                match expiry {
                    Expiry::None => {}
                    Expiry::Milliseconds(ms) => {
                        args.extend(words(format!("PX {}", *ms as u64 + 1)))
                    }
                    Expiry::Keep => args.push(b"KEEPTTL".to_vec()),
                }
                args
            }
            Step::SetIfEqual(key, text, expected) => with(
                format!("SET {{t}}{key}"),
                &[text, &b"IFEQ".to_vec(), expected],
            ),
            Step::SetNx(key, text) => with(format!("SETNX {{t}}{key}"), &[text]),
            Step::MSetNx(first, second, text) => {
                let second = format!("{{t}}{second}").into_bytes();
                with(format!("MSETNX {{t}}{first}"), &[text, &second, text])
            }
            Step::Get(key) => words(format!("GET {{t}}{key}")),
            Step::GetDel(key) => words(format!("GETDEL {{t}}{key}")),
            Step::DelIfEqual(key, expected) => with(format!("DELIFEQ {{t}}{key}"), &[expected]),
            Step::StrLen(key) => words(format!("STRLEN {{t}}{key}")),
            Step::Append(key, more) => with(format!("APPEND {{t}}{key}"), &[more]),
            Step::SetRange(key, offset, part) => {
                with(format!("SETRANGE {{t}}{key} {offset}"), &[part])
            }
            Step::GetRange(key, first, last) => {
                words(format!("GETRANGE {{t}}{key} {first} {last}"))
            }
            Step::SetBit(key, place, on) => {
                words(format!("SETBIT {{t}}{key} {place} {}", u8::from(*on)))
            }
            Step::GetBit(key, place) => words(format!("GETBIT {{t}}{key} {place}")),
            Step::BitCount(key) => words(format!("BITCOUNT {{t}}{key}")),
            Step::BitPos(key, on) => words(format!("BITPOS {{t}}{key} {}", u8::from(*on))),
            Step::BitOp(name, destination, first, second) => words(format!(
                "BITOP {name} {{t}}{destination} {{t}}{first} {{t}}{second}"
            )),
            Step::BitField(key, field, change) => words(bitfield(*key, *field, *change)),
            Step::Incr(key, by) => words(format!("INCRBY {{t}}{key} {by}")),
            Step::IncrEx(key, by, most, saturate) => {
                let saturate = if *saturate { " SATURATE" } else { "" };
                words(format!(
                    "INCREX {{t}}{key} BYINT {by} UBOUND {most}{saturate}"
                ))
            }
            Step::Advance(_) | Step::Recover => Vec::new(),
        }
    }
}

/// BITFIELD as a client types it.
fn bitfield(key: u8, field: Field, change: Change) -> String {
    let kind = if field.signed { 'i' } else { 'u' };
    let place = format!("{kind}{} {}", field.bits, field.offset);
    let call = match change {
        Change::Get => format!("GET {place}"),
        Change::Set(how, value) => format!("OVERFLOW {how} SET {place} {value}"),
        Change::Add(how, amount) => format!("OVERFLOW {how} INCRBY {place} {amount}"),
    };
    format!("BITFIELD {{t}}{key} {call}")
}

/// Few keys and short texts, many of them numbers, so that steps meet.
fn step() -> impl Strategy<Value = Step> {
    let key = 0..3u8;
    let text = || {
        prop_oneof![
            "-?[0-9]{0,3}".prop_map(String::into_bytes),
            prop::collection::vec(any::<u8>(), 0..5),
            Just(b"9223372036854775807".to_vec()),
        ]
    };
    let expiry = prop_oneof![
        3 => Just(Expiry::None),
        2 => any::<u8>().prop_map(Expiry::Milliseconds),
        1 => Just(Expiry::Keep),
    ];
    let key2 = (key.clone(), key.clone());
    let operation = prop_oneof![Just("AND"), Just("OR"), Just("XOR")];
    prop_oneof![
        (key.clone(), text(), expiry).prop_map(|(key, text, expiry)| Step::Set(key, text, expiry)),
        (key.clone(), text(), text()).prop_map(|(key, text, old)| Step::SetIfEqual(key, text, old)),
        (key.clone(), text()).prop_map(|(key, text)| Step::SetNx(key, text)),
        (key2.clone(), text()).prop_map(|((a, b), text)| Step::MSetNx(a, b, text)),
        key.clone().prop_map(Step::Get),
        key.clone().prop_map(Step::GetDel),
        (key.clone(), text()).prop_map(|(key, text)| Step::DelIfEqual(key, text)),
        key.clone().prop_map(Step::StrLen),
        (key.clone(), text()).prop_map(|(key, text)| Step::Append(key, text)),
        (key.clone(), 0..8u8, text()).prop_map(|(key, at, text)| Step::SetRange(key, at, text)),
        (key.clone(), -9..9i8, -9..9i8).prop_map(|(key, a, b)| Step::GetRange(key, a, b)),
        (key.clone(), 0..99u8, any::<bool>()).prop_map(|(key, at, on)| Step::SetBit(key, at, on)),
        (key.clone(), 0..99u8).prop_map(|(key, at)| Step::GetBit(key, at)),
        key.clone().prop_map(Step::BitCount),
        (key.clone(), any::<bool>()).prop_map(|(key, on)| Step::BitPos(key, on)),
        (operation, key.clone(), key2).prop_map(|(name, key, (a, b))| Step::BitOp(name, key, a, b)),
        (key.clone(), field(), change()).prop_map(|(key, f, c)| Step::BitField(key, f, c)),
        (key.clone(), number()).prop_map(|(key, by)| Step::Incr(key, by)),
        (key.clone(), any::<i8>(), any::<i8>(), any::<bool>())
            .prop_map(|(key, by, most, saturate)| Step::IncrEx(key, by, most, saturate)),
        any::<u8>().prop_map(Step::Advance),
        Just(Step::Recover),
    ]
}

fn number() -> impl Strategy<Value = i64> {
    prop_oneof![-300..300i64, any::<i64>()]
}

fn field() -> impl Strategy<Value = Field> {
    (any::<bool>(), 1..=64u8, 0..80u8).prop_map(|(signed, bits, offset)| Field {
        signed: signed || bits == 64,
        bits,
        offset,
    })
}

fn change() -> impl Strategy<Value = Change> {
    let how = || prop_oneof![Just("WRAP"), Just("SAT"), Just("FAIL")];
    prop_oneof![
        Just(Change::Get),
        (how(), number()).prop_map(|(how, value)| Change::Set(how, value)),
        (how(), number()).prop_map(|(how, amount)| Change::Add(how, amount)),
    ]
}

/// Runs the steps on a server and on the model, and compares every reply and the end.
fn compare(steps: &[Step]) -> Result<(), TestCaseError> {
    let mut server = Transcript::of_tag();
    let mut model = Model {
        now_ms: server.now_ms(),
        ..Model::default()
    };
    for step in steps {
        match step {
            Step::Recover => server.recover(),
            Step::Advance(milliseconds) => {
                server.advance_ms(u64::from(*milliseconds));
                model.advance(u64::from(*milliseconds));
            }
            call => {
                let args = call.args();
                let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
                let expected = model.run(call).render();
                prop_assert_eq!(server.run_bytes(&args), expected, "reply to {:?}", call);
            }
        }
    }
    server.recover();
    for key in 0..3u8 {
        let expected = model.bulk(key).render();
        prop_assert_eq!(
            server.run(&format!("GET {{t}}{key}")),
            expected,
            "key {}",
            key
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn strings_are_as_in_a_map(steps in prop::collection::vec(step(), 1..30)) {
        compare(&steps)?;
    }

    #[test]
    fn bitfields_are_as_in_a_row_of_bits(
        steps in prop::collection::vec(
            (field(), change()).prop_map(|(field, change)| Step::BitField(0, field, change)),
            1..20,
        ),
    ) {
        compare(&steps)?;
    }
}
