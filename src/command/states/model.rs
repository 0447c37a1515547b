//! Property test: the state cells against a plain model, with ordinary writes, time steps and
//! restarts in between. The model takes a new token from the reply and wants it to be higher than
//! every token before it.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::command::transcript::{Transcript, cases};
use crate::keyspace::tokens::TOKEN_END;

const KEYS: u8 = 2;
/// States, results and ordinary strings; the last one only where it may be.
const TEXTS: [&str; 5] = ["a", "b", "41", "long-state", "idle"];
const STATES: u8 = 4;

/// A call, or what happens to the server between calls. Texts, owners and fingerprints are numbers.
#[derive(Clone, Debug)]
enum Step {
    SetIfIdle(u8, u8, Expiry, Option<u8>, Option<u8>),
    SetIdle(u8, Which, Option<(u8, Expiry)>),
    Renew(u8, Which, u8),
    SetState(u8, u8, Vec<u8>, Option<Which>, Expiry),
    GetState(u8),
    Set(u8, u8, Expiry),
    Append(u8),
    Incr(u8),
    PExpire(u8, u8),
    Persist(u8),
    Del(u8),
    Rename(u8),
    Copy(u8),
    FlushAll,
    Advance(u8),
    Recover,
}

#[derive(Clone, Copy, Debug)]
enum Expiry {
    None,
    /// Milliseconds from now, less one.
    In(u8),
    /// As a point in time.
    At(u8),
    /// Where a command has it; otherwise as `None`.
    Keep,
}

/// A token that a client may come with.
#[derive(Clone, Copy, Debug)]
enum Which {
    Current,
    Earlier,
    Zero,
    Future,
}

#[derive(Clone, Debug)]
struct Entry {
    text: String,
    token: u64,
    owner: Option<u8>,
    fingerprint: Option<u8>,
    done: bool,
    deadline_ms: u64,
}

#[derive(Default)]
struct Model {
    entries: BTreeMap<u8, Entry>,
    tokens: Vec<u64>,
    grew: bool,
    now_ms: u64,
}

impl Entry {
    fn ordinary(text: String, deadline_ms: u64) -> Entry {
        Entry {
            text,
            token: 0,
            owner: None,
            fingerprint: None,
            done: false,
            deadline_ms,
        }
    }

    fn is_idle(&self) -> bool {
        !self.done && self.text == "idle"
    }
}

fn array(members: &[String]) -> String {
    let lines = members.iter().enumerate();
    let lines: Vec<String> = lines.map(|(at, it)| format!("{}) {it}", at + 1)).collect();
    lines.join("\n")
}

fn integer(value: impl std::fmt::Display) -> String {
    format!("(integer) {value}")
}

fn bulk(text: &str) -> String {
    format!("\"{text}\"")
}

fn text(index: u8) -> String {
    TEXTS[usize::from(index)].to_owned()
}

impl Model {
    fn expire(&mut self) {
        let now_ms = self.now_ms;
        self.entries
            .retain(|_, entry| entry.deadline_ms == 0 || entry.deadline_ms > now_ms);
    }

    fn token(&self, key: u8) -> u64 {
        self.entries.get(&key).map_or(0, |entry| entry.token)
    }

    fn which(&self, key: u8, which: Which) -> u64 {
        match which {
            Which::Current => self.token(key),
            Which::Earlier => self.tokens.iter().rev().nth(1).copied().unwrap_or(1),
            Which::Zero => 0,
            Which::Future => self.tokens.last().map_or(2, |token| token + 1),
        }
    }

    fn left_ms(&self, entry: &Entry) -> i64 {
        match entry.deadline_ms {
            0 => -1,
            deadline_ms => (deadline_ms - self.now_ms) as i64,
        }
    }

    /// The new token that the reply gives in this line; it must be higher than all before.
    fn new_token(&mut self, reply: &str, line: usize) -> u64 {
        let line = reply.lines().nth(line).unwrap_or_default();
        let digits = line.rsplit(' ').next().unwrap_or_default();
        let token = digits.parse().unwrap_or(0);
        let last = self.tokens.last().copied().unwrap_or(0);
        self.grew &= token > last && token < TOKEN_END;
        self.tokens.push(token);
        token
    }

    fn deadline_ms(&self, expiry: Expiry) -> u64 {
        match expiry {
            Expiry::None | Expiry::Keep => 0,
            Expiry::In(ms) | Expiry::At(ms) => self.now_ms + u64::from(ms) + 1,
        }
    }

    fn set_if_idle(&mut self, step: (u8, u8, Expiry), who: [Option<u8>; 2], reply: &str) -> String {
        let (key, state, expiry) = step;
        let [owner, fingerprint] = who;
        let given_ms = self.deadline_ms(expiry);
        let entry = self.entries.get(&key).filter(|entry| !entry.is_idle());
        let (status, entry) = match entry.cloned() {
            None => {
                let mut entry = Entry::ordinary(text(state), given_ms);
                entry.token = self.new_token(reply, 1);
                (entry.owner, entry.fingerprint) = (owner, fingerprint);
                ("STARTED", entry)
            }
            Some(held) => {
                let both = |a: Option<u8>, b: Option<u8>| a.zip(b);
                let mismatch = both(held.fingerprint, fingerprint).is_some_and(|(a, b)| a != b);
                let same = both(held.owner, owner).is_some_and(|(a, b)| a == b);
                if mismatch {
                    ("MISMATCH", held)
                } else if held.done {
                    ("DONE", held)
                } else if same {
                    let mut renewed = held;
                    renewed.text = text(state);
                    if given_ms != 0 {
                        renewed.deadline_ms = given_ms;
                    }
                    ("RENEWED", renewed)
                } else {
                    ("BUSY", held)
                }
            }
        };
        let left_ms = self.left_ms(&entry);
        let answer = [
            bulk(status),
            integer(entry.token),
            integer(left_ms),
            bulk(&entry.text),
        ];
        self.entries.insert(key, entry);
        array(&answer)
    }

    fn set_idle(&mut self, key: u8, which: Which, result: Option<(u8, Expiry)>) -> String {
        let token = self.which(key, which);
        let current = self.token(key);
        if token == 0 || token != current {
            return array(&[integer(0), integer(current)]);
        }
        let kept_until = result.map(|(_, expiry)| self.deadline_ms(expiry));
        let entry = self.entries.get_mut(&key).expect("it has a token");
        match (result, kept_until) {
            _ if entry.done => {}
            (Some((result, _)), Some(deadline_ms)) => {
                entry.done = true;
                entry.text = text(result);
                entry.deadline_ms = deadline_ms;
            }
            _ => {
                self.entries.remove(&key);
            }
        }
        array(&[integer(1), integer(token)])
    }

    fn set_state(&mut self, step: &Step, reply: &str) -> String {
        let Step::SetState(key, state, from, if_token, expiry) = step else {
            return String::new();
        };
        let before = self.entries.get(key).cloned();
        let is_from = |from: &u8| match &before {
            None => text(*from) == "idle",
            Some(entry) if text(*from) == "idle" => entry.is_idle(),
            Some(entry) => entry.text == text(*from),
        };
        let from_fits = from.is_empty() || from.iter().any(is_from);
        let current = self.token(*key);
        if !from_fits || if_token.is_some_and(|which| self.which(*key, which) != current) {
            let state = before.map_or("(nil)".to_owned(), |entry| bulk(&entry.text));
            return array(&[integer(0), state, integer(current)]);
        }
        let deadline_ms = match expiry {
            Expiry::Keep => before.map_or(0, |entry| entry.deadline_ms),
            other => self.deadline_ms(*other),
        };
        let mut entry = Entry::ordinary(text(*state), deadline_ms);
        entry.token = self.new_token(reply, 2);
        let answer = [integer(1), bulk(&entry.text), integer(entry.token)];
        self.entries.insert(*key, entry);
        array(&answer)
    }

    fn state(&self, key: u8) -> String {
        let Some(entry) = self.entries.get(&key) else {
            return "(nil)".to_owned();
        };
        let owner = entry.owner.map(|owner| bulk(&format!("o{owner}")));
        array(&[
            bulk(&entry.text),
            integer(entry.token),
            owner.unwrap_or("(nil)".to_owned()),
            integer(self.left_ms(entry)),
        ])
    }

    /// An ordinary write that keeps the deadline.
    fn rewrite(&mut self, key: u8, text: String) {
        let deadline_ms = self.entries.get(&key).map_or(0, |entry| entry.deadline_ms);
        let entry = Entry::ordinary(text, deadline_ms);
        self.entries.insert(key, entry);
    }

    /// What the call answers; `reply` is what it did answer, for new tokens.
    fn answer(&mut self, step: &Step, reply: &str) -> String {
        match step {
            Step::SetIfIdle(key, state, expiry, owner, fingerprint) => {
                self.set_if_idle((*key, *state, *expiry), [*owner, *fingerprint], reply)
            }
            Step::SetIdle(key, which, result) => self.set_idle(*key, *which, *result),
            Step::Renew(key, which, ms) => {
                let token = self.which(*key, *which);
                let deadline_ms = self.deadline_ms(Expiry::In(*ms));
                let held = |entry: &&mut Entry| token != 0 && entry.token == token && !entry.done;
                match self.entries.get_mut(key).filter(held) {
                    None => integer(0),
                    Some(entry) => {
                        entry.deadline_ms = deadline_ms;
                        integer(1)
                    }
                }
            }
            Step::SetState(..) => self.set_state(step, reply),
            Step::GetState(key) => self.state(*key),
            other => self.ordinary(other),
        }
    }

    fn ordinary(&mut self, step: &Step) -> String {
        match step {
            Step::Set(key, to, expiry) => {
                let deadline_ms = match expiry {
                    Expiry::Keep => self.entries.get(key).map_or(0, |entry| entry.deadline_ms),
                    other => self.deadline_ms(*other),
                };
                let entry = Entry::ordinary(text(*to), deadline_ms);
                self.entries.insert(*key, entry);
                "OK".to_owned()
            }
            Step::Append(key) => {
                let before = self.entries.get(key).map(|entry| entry.text.clone());
                let after = before.unwrap_or_default() + "1";
                let bytes = after.len();
                self.rewrite(*key, after);
                integer(bytes)
            }
            Step::Incr(key) => {
                let before = self.entries.get(key).map_or("0", |entry| &entry.text);
                match before.parse::<i64>().ok().and_then(|it| it.checked_add(1)) {
                    None => "(error) ERR value is not an integer or out of range".to_owned(),
                    Some(after) => {
                        self.rewrite(*key, after.to_string());
                        integer(after)
                    }
                }
            }
            Step::PExpire(key, ms) => {
                let deadline_ms = self.deadline_ms(Expiry::In(*ms));
                let entry = self.entries.get_mut(key);
                let found = entry.map(|entry| entry.deadline_ms = deadline_ms);
                integer(u8::from(found.is_some()))
            }
            Step::Persist(key) => {
                let entry = self.entries.get_mut(key);
                let before_ms = entry.map_or(0, |entry| std::mem::take(&mut entry.deadline_ms));
                integer(u8::from(before_ms != 0))
            }
            Step::Del(key) => integer(u8::from(self.entries.remove(key).is_some())),
            Step::Rename(key) => match self.entries.remove(key) {
                None => "(error) ERR no such key".to_owned(),
                Some(entry) => {
                    let moved = Entry::ordinary(entry.text, entry.deadline_ms);
                    self.entries.insert((key + 1) % KEYS, moved);
                    "OK".to_owned()
                }
            },
            Step::Copy(key) => match self.entries.get(key).cloned() {
                None => integer(0),
                Some(entry) => {
                    let copied = Entry::ordinary(entry.text, entry.deadline_ms);
                    self.entries.insert((key + 1) % KEYS, copied);
                    integer(1)
                }
            },
            _ => String::new(),
        }
    }

    fn options(&self, expiry: Expiry) -> String {
        match expiry {
            Expiry::None => String::new(),
            Expiry::In(ms) => format!(" PX {}", u64::from(ms) + 1),
            Expiry::At(ms) => format!(" PXAT {}", self.now_ms + u64::from(ms) + 1),
            Expiry::Keep => " KEEPTTL".to_owned(),
        }
    }

    /// The call as a client types it.
    fn line(&self, step: &Step) -> String {
        match step {
            Step::SetIfIdle(key, state, expiry, owner, fingerprint) => {
                let owner = owner.map_or(String::new(), |owner| format!(" OWNER o{owner}"));
                let fp = fingerprint.map_or(String::new(), |fp| format!(" FP f{fp}"));
                let expiry = self.options(*expiry);
                format!("SETIFIDLE {{t}}{key} {}{owner}{expiry}{fp}", text(*state))
            }
            Step::SetIdle(key, which, result) => {
                let result = result.map(|(result, expiry)| {
                    format!(" RESULT {}{}", text(result), self.options(expiry))
                });
                let token = self.which(*key, *which);
                format!("SETIDLE {{t}}{key} {token}{}", result.unwrap_or_default())
            }
            Step::Renew(key, which, ms) => {
                let expiry = self.options(Expiry::In(*ms));
                format!("RENEW {{t}}{key} {}{expiry}", self.which(*key, *which))
            }
            Step::SetState(key, state, from, if_token, expiry) => {
                let mut line = format!("SETSTATE {{t}}{key} {}", text(*state));
                line += &self.options(*expiry);
                if !from.is_empty() {
                    let from: Vec<String> = from.iter().map(|index| text(*index)).collect();
                    line += &format!(" FROM {} {}", from.len(), from.join(" "));
                }
                if let Some(which) = if_token {
                    line += &format!(" IFTOKEN {}", self.which(*key, *which));
                }
                line
            }
            Step::GetState(key) => format!("GETSTATE {{t}}{key}"),
            Step::Set(key, to, expiry) => {
                format!("SET {{t}}{key} {}{}", text(*to), self.options(*expiry))
            }
            Step::Append(key) => format!("APPEND {{t}}{key} 1"),
            Step::Incr(key) => format!("INCR {{t}}{key}"),
            Step::PExpire(key, ms) => format!("PEXPIRE {{t}}{key} {}", u64::from(*ms) + 1),
            Step::Persist(key) => format!("PERSIST {{t}}{key}"),
            Step::Del(key) => format!("DEL {{t}}{key}"),
            Step::Rename(key) => format!("RENAME {{t}}{key} {{t}}{}", (key + 1) % KEYS),
            Step::Copy(key) => format!("COPY {{t}}{key} {{t}}{} REPLACE", (key + 1) % KEYS),
            Step::FlushAll | Step::Advance(_) | Step::Recover => String::new(),
        }
    }
}

/// Few keys, texts and ids, so that steps meet.
fn step() -> impl Strategy<Value = Step> {
    let key = || 0..KEYS;
    let state = || 0..STATES;
    let any_text = || 0..TEXTS.len() as u8;
    let lease = || {
        prop_oneof![
            2 => Just(Expiry::None),
            2 => (0..60u8).prop_map(Expiry::In),
            1 => (0..60u8).prop_map(Expiry::At),
        ]
    };
    let expiry = || prop_oneof![3 => lease(), 1 => Just(Expiry::Keep)];
    let which = || {
        prop_oneof![
            5 => Just(Which::Current),
            1 => Just(Which::Earlier),
            1 => Just(Which::Zero),
            1 => Just(Which::Future),
        ]
    };
    let id = || prop::option::of(0..2u8);
    let result = prop::option::of((any_text(), lease()));
    let from = prop::collection::vec(any_text(), 0..4);
    prop_oneof![
        8 => (key(), state(), lease(), id(), id())
            .prop_map(|(key, state, lease, owner, fp)| Step::SetIfIdle(key, state, lease, owner, fp)),
        5 => (key(), which(), result).prop_map(|(key, which, it)| Step::SetIdle(key, which, it)),
        2 => (key(), which(), 0..60u8).prop_map(|(key, which, ms)| Step::Renew(key, which, ms)),
        5 => (key(), state(), from, prop::option::of(which()), expiry())
            .prop_map(|(key, to, from, which, expiry)| Step::SetState(key, to, from, which, expiry)),
        2 => key().prop_map(Step::GetState),
        2 => (key(), any_text(), expiry()).prop_map(|(key, to, how)| Step::Set(key, to, how)),
        1 => key().prop_map(Step::Append),
        1 => key().prop_map(Step::Incr),
        1 => (key(), 0..60u8).prop_map(|(key, ms)| Step::PExpire(key, ms)),
        1 => key().prop_map(Step::Persist),
        1 => key().prop_map(Step::Del),
        1 => key().prop_map(Step::Rename),
        1 => key().prop_map(Step::Copy),
        1 => Just(Step::FlushAll),
        3 => (1..40u8).prop_map(Step::Advance),
        1 => Just(Step::Recover),
    ]
}

fn compare(steps: &[Step], timer: bool) -> Result<(), TestCaseError> {
    let mut server = Transcript::of_tag();
    server.keyspace().set_active_expiry(timer);
    let mut model = Model {
        grew: true,
        now_ms: server.now_ms(),
        ..Model::default()
    };
    for step in steps {
        match step {
            Step::Recover => {
                server.recover();
                server.keyspace().set_active_expiry(timer);
            }
            Step::Advance(milliseconds) => {
                server.advance_ms(u64::from(*milliseconds));
                model.now_ms += u64::from(*milliseconds);
                model.expire();
            }
            Step::FlushAll => {
                server.write(|txn| txn.flush(0));
                model.entries.clear();
            }
            call => {
                let line = model.line(call);
                let reply = server.run(&line);
                let expected = model.answer(call, &reply);
                prop_assert_eq!(reply.trim_end(), expected, "reply to: {}", line);
                prop_assert!(model.grew, "the tokens do not grow: {:?}", model.tokens);
            }
        }
    }
    server.recover();
    for key in 0..KEYS {
        let reply = server.run(&format!("GETSTATE {{t}}{key}"));
        prop_assert_eq!(reply.trim_end(), model.state(key), "key {}", key);
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn cells_do_what_the_model_says(
        steps in prop::collection::vec(step(), 1..30),
        timer: bool,
    ) {
        compare(&steps, timer)?;
    }
}
