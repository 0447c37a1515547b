//! Property test: ONCE against a plain model that remembers commands and replies, with ordinary
//! writes, exchanged and emptied databases, time steps and restarts in between.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::command::transcript::{Transcript, cases};

const KEYS: u8 = 2;

/// A call, or what happens to the server between calls. Keys and ids are numbers.
#[derive(Clone, Debug)]
enum Step {
    Once(u8, u8, u8, Write),
    Plain(u8, Write),
    Rename(u8),
    Move(u8),
    Select(u8),
    Swap,
    Flush(u8),
    Advance(u8),
    Recover,
}

/// A write of one key.
#[derive(Clone, Debug, PartialEq)]
enum Write {
    Add(i64),
    SetIfMissing(String),
    Append(String),
    Del,
    /// Always of another type.
    HSet,
}

impl Write {
    fn line(&self, key: u8) -> String {
        match self {
            Write::Add(by) => format!("INCRBY {{t}}{key} {by}"),
            Write::SetIfMissing(text) => format!("SET {{t}}{key} {text} NX"),
            Write::Append(text) => format!("APPEND {{t}}{key} {text}"),
            Write::Del => format!("DEL {{t}}{key}"),
            Write::HSet => format!("HSET {{t}}{key} f v"),
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Database {
    texts: BTreeMap<u8, String>,
    /// Command, reply and deadline by key and id.
    records: BTreeMap<(u8, u8), (Write, String, u64)>,
}

impl Database {
    /// The reply, or the error.
    fn write(&mut self, key: u8, write: &Write) -> Result<String, String> {
        let before = self.texts.get(&key).cloned();
        Ok(match write {
            Write::Add(by) => {
                let error = || "(error) ERR value is not an integer or out of range".to_owned();
                let text = before.unwrap_or("0".to_owned());
                let number: i64 = text.parse().map_err(|_| error())?;
                // What SET and APPEND made may be no canonical number.
                if number.to_string() != text {
                    return Err(error());
                }
                self.texts.insert(key, (number + by).to_string());
                format!("(integer) {}", number + by)
            }
            Write::SetIfMissing(_) if before.is_some() => "(nil)".to_owned(),
            Write::SetIfMissing(text) => {
                self.texts.insert(key, text.clone());
                "OK".to_owned()
            }
            Write::Append(text) => {
                let after = before.unwrap_or_default() + text;
                let bytes = after.len();
                self.texts.insert(key, after);
                format!("(integer) {bytes}")
            }
            Write::Del => {
                let gone = self.texts.remove(&key).is_some();
                format!("(integer) {}", u8::from(gone))
            }
            Write::HSet if before.is_none() => {
                return Err("(error) ERR not in this model".to_owned());
            }
            Write::HSet => {
                let text = "WRONGTYPE Operation against a key holding the wrong kind of value";
                return Err(format!("(error) {text}"));
            }
        })
    }

    fn once(&mut self, key: u8, id: u8, until_ms: u64, write: &Write) -> String {
        let array = |status: i8, reply: &str| format!("1) (integer) {status}\n2) {reply}");
        match self.records.get(&(key, id)) {
            Some((known, reply, _)) if known == write => return array(0, reply),
            Some(_) => return array(-1, "(nil)"),
            None => {}
        }
        match self.write(key, write) {
            Err(error) => error,
            Ok(reply) => {
                let answer = array(1, &reply);
                let record = (write.clone(), reply, until_ms);
                self.records.insert((key, id), record);
                answer
            }
        }
    }
}

#[derive(Default)]
struct Model {
    databases: [Database; 2],
    selected: usize,
    now_ms: u64,
}

impl Model {
    fn expire(&mut self) {
        for database in &mut self.databases {
            database
                .records
                .retain(|_, (.., until_ms)| *until_ms > self.now_ms);
        }
    }

    fn call(&mut self, step: &Step) -> (String, String) {
        let other = 1 - self.selected;
        let database = &mut self.databases[self.selected];
        match step {
            Step::Once(key, id, ms, write) => {
                let ms = u64::from(*ms) + 1;
                let line = format!("ONCE {{t}}{key} {id} PX {ms} {}", write.line(*key));
                (line, database.once(*key, *id, self.now_ms + ms, write))
            }
            Step::Plain(key, write) => {
                let reply = database.write(*key, write);
                (write.line(*key), reply.unwrap_or_else(|error| error))
            }
            Step::Rename(key) => {
                let to = (key + 1) % KEYS;
                let line = format!("RENAME {{t}}{key} {{t}}{to}");
                match database.texts.remove(key) {
                    None => (line, "(error) ERR no such key".to_owned()),
                    Some(text) => {
                        database.texts.insert(to, text);
                        (line, "OK".to_owned())
                    }
                }
            }
            Step::Move(key) => {
                let there = self.databases[other].texts.contains_key(key);
                let text = self.databases[self.selected].texts.get(key).cloned();
                let moved = text.filter(|_| !there);
                let answer = format!("(integer) {}", u8::from(moved.is_some()));
                if let Some(text) = moved {
                    self.databases[self.selected].texts.remove(key);
                    self.databases[other].texts.insert(*key, text);
                }
                (format!("MOVE {{t}}{key} {other}"), answer)
            }
            _ => (String::new(), String::new()),
        }
    }
}

/// Few keys, ids and texts, so that steps meet.
fn step() -> impl Strategy<Value = Step> {
    let key = || 0..KEYS;
    let text = || prop::sample::select(vec!["1".to_owned(), "2".to_owned(), "x".to_owned()]);
    let write = || {
        prop_oneof![
            3 => (1..3i64).prop_map(Write::Add),
            2 => text().prop_map(Write::SetIfMissing),
            2 => text().prop_map(Write::Append),
            2 => Just(Write::Del),
        ]
    };
    let once = prop_oneof![9 => write(), 1 => Just(Write::HSet)];
    prop_oneof![
        12 => (key(), 0..3u8, 0..60u8, once)
            .prop_map(|(key, id, ms, write)| Step::Once(key, id, ms, write)),
        4 => (key(), write()).prop_map(|(key, write)| Step::Plain(key, write)),
        1 => key().prop_map(Step::Rename),
        1 => key().prop_map(Step::Move),
        2 => (0..2u8).prop_map(Step::Select),
        1 => Just(Step::Swap),
        1 => (0..2u8).prop_map(Step::Flush),
        3 => (1..40u8).prop_map(Step::Advance),
        2 => Just(Step::Recover),
    ]
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn writes_happen_as_often_as_the_model_says(
        steps in prop::collection::vec(step(), 1..30),
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
                Step::Advance(milliseconds) => {
                    t.advance_ms(u64::from(*milliseconds));
                    model.now_ms += u64::from(*milliseconds);
                    model.expire();
                }
                Step::Select(number) => {
                    model.selected = usize::from(*number);
                    t.select(model.selected);
                }
                Step::Swap => {
                    t.write(|txn| txn.swap(0, 1));
                    model.databases.swap(0, 1);
                }
                Step::Flush(number) => {
                    t.write(|txn| txn.flush(usize::from(*number)));
                    model.databases[usize::from(*number)] = Database::default();
                }
                // A hash would need a model of its own: only its refusal is of interest.
                Step::Once(key, _, _, Write::HSet)
                    if !model.databases[model.selected].texts.contains_key(key) => {}
                call => {
                    let (line, expected) = model.call(call);
                    let reply = t.run(&line);
                    prop_assert_eq!(reply.trim_end(), expected, "reply to: {}", line);
                }
            }
        }
        for number in 0..2 {
            t.select(number);
            let keys = model.databases[number].texts.len();
            let reply = t.run("DBSIZE");
            prop_assert_eq!(reply.trim_end(), format!("(integer) {keys}"));
            for (key, text) in &model.databases[number].texts {
                let reply = t.run(&format!("GET {{t}}{key}"));
                prop_assert_eq!(reply.trim_end(), format!("\"{text}\""));
            }
        }
    }
}
