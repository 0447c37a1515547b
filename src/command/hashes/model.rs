//! Property test: random commands on hashes, time steps and restarts, against a map of maps.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::select;

use crate::command::transcript::{Transcript, cases};

/// A call, or what happens to the server between calls.
#[derive(Clone, Debug)]
enum Step {
    HSet(u8, Vec<(u8, Text)>),
    HSetNx(u8, u8, Text),
    HDel(u8, Vec<u8>),
    HGet(u8, u8),
    HLen(u8),
    HIncrBy(u8, u8, i64),
    HGetDel(u8, Vec<u8>),
    HGetEx(u8, Option<Expiry>, Vec<u8>),
    HSetEx(u8, Option<bool>, Option<Expiry>, Vec<(u8, Text)>),
    HExpire(u8, &'static str, i64, Vec<u8>),
    HPersist(u8, Vec<u8>),
    HPTtl(u8, Vec<u8>),
    Set(u8),
    Advance(u64),
    Recover,
}

/// Keep stands for KEEPTTL in HSETEX and for PERSIST in HGETEX.
#[derive(Clone, Copy, Debug)]
enum Expiry {
    In(u64),
    Keep,
}

/// A value: integers, and strings of several lengths.
type Text = String;

/// Value and deadline (0: none) by name.
type Fields = BTreeMap<u8, (Text, u64)>;

/// What the keyspace should hold. A key in `strings` is no hash.
#[derive(Default)]
struct Model {
    hashes: BTreeMap<u8, Fields>,
    strings: BTreeMap<u8, ()>,
    now_ms: u64,
}

const WRONG_TYPE: &str =
    "(error) WRONGTYPE Operation against a key holding the wrong kind of value";

fn integer(number: i64) -> String {
    format!("(integer) {number}")
}

fn bulk(text: Option<&Text>) -> String {
    text.map_or("(nil)".to_owned(), |text| format!("\"{text}\""))
}

fn array(members: Vec<String>) -> String {
    let width = members.len().to_string().len();
    let lines: Vec<String> = members
        .iter()
        .enumerate()
        .map(|(index, member)| format!("{:>width$}) {member}", index + 1))
        .collect();
    lines.join("\n")
}

impl Model {
    fn expire(&mut self) {
        let now_ms = self.now_ms;
        for fields in self.hashes.values_mut() {
            fields.retain(|_, (_, at_ms)| *at_ms == 0 || *at_ms > now_ms);
        }
        self.drop_empty();
    }

    fn drop_empty(&mut self) {
        self.hashes.retain(|_, fields| !fields.is_empty());
    }

    fn get(&self, key: u8, name: u8) -> Option<&(Text, u64)> {
        self.hashes.get(&key)?.get(&name)
    }

    fn put(&mut self, key: u8, name: u8, text: &Text, at_ms: u64) -> bool {
        let fields = self.hashes.entry(key).or_default();
        let old = fields.insert(name, (text.clone(), at_ms));
        old.is_none()
    }

    fn remove(&mut self, key: u8, name: u8) -> Option<Text> {
        let old = self.hashes.get_mut(&key)?.remove(&name);
        self.drop_empty();
        old.map(|(text, _)| text)
    }

    /// Sets the deadline; one that has passed deletes.
    fn set_deadline(&mut self, key: u8, name: u8, at_ms: u64) -> bool {
        if at_ms != 0 && at_ms <= self.now_ms {
            self.remove(key, name);
            return true;
        }
        if let Some(field) = self.hashes.get_mut(&key).and_then(|it| it.get_mut(&name)) {
            field.1 = at_ms;
        }
        false
    }

    /// The command line of a step and the reply that it should have.
    fn call(&mut self, step: &Step) -> (String, String) {
        let line = line(step);
        let key = key_of(step);
        if let Step::Set(key) = step {
            self.hashes.remove(key);
            self.strings.insert(*key, ());
            return (line, "OK".to_owned());
        }
        if self.strings.contains_key(&key) {
            return (line, WRONG_TYPE.to_owned());
        }
        let reply = match step {
            Step::HSet(key, pairs) => {
                let put = pairs
                    .iter()
                    .map(|(name, text)| self.put(*key, *name, text, 0));
                integer(put.map(i64::from).sum())
            }
            Step::HSetNx(key, name, text) => {
                let missing = self.get(*key, *name).is_none();
                if missing {
                    self.put(*key, *name, text, 0);
                }
                integer(missing.into())
            }
            Step::HDel(key, names) => {
                let removed = names.iter().map(|name| self.remove(*key, *name));
                integer(removed.map(|old| i64::from(old.is_some())).sum())
            }
            Step::HGet(key, name) => bulk(self.get(*key, *name).map(|(text, _)| text)),
            Step::HLen(key) => integer(self.hashes.get(key).map_or(0, |it| it.len() as i64)),
            Step::HIncrBy(key, name, by) => self.increment(*key, *name, *by),
            Step::HGetDel(key, names) => {
                let old = names
                    .iter()
                    .map(|name| bulk(self.remove(*key, *name).as_ref()));
                array(old.collect())
            }
            Step::HGetEx(key, expiry, names) => self.get_ex(*key, *expiry, names),
            Step::HSetEx(key, exist, expiry, pairs) => self.set_ex(*key, *exist, *expiry, pairs),
            Step::HExpire(key, condition, in_ms, names) => {
                let at_ms = self.now_ms + *in_ms as u64;
                let names = names.iter();
                array(
                    names
                        .map(|it| integer(self.expire_field(*key, condition, at_ms, *it)))
                        .collect(),
                )
            }
            Step::HPersist(key, names) => {
                let persist = names.iter().map(|name| match self.get(*key, *name) {
                    None => integer(-2),
                    Some((_, 0)) => integer(-1),
                    Some(_) => {
                        self.set_deadline(*key, *name, 0);
                        integer(1)
                    }
                });
                array(persist.collect())
            }
            Step::HPTtl(key, names) => {
                let left = names.iter().map(|name| match self.get(*key, *name) {
                    None => integer(-2),
                    Some((_, 0)) => integer(-1),
                    Some((_, at_ms)) => integer((at_ms - self.now_ms) as i64),
                });
                array(left.collect())
            }
            Step::Set(_) | Step::Advance(_) | Step::Recover => unreachable!("no call on a hash"),
        };
        (line, reply)
    }

    fn increment(&mut self, key: u8, name: u8, by: i64) -> String {
        let (text, at_ms) = self.get(key, name).cloned().unwrap_or(("0".to_owned(), 0));
        let canonical = |number: &i64| number.to_string() == text;
        let Some(before) = text.parse().ok().filter(canonical) else {
            return "(error) ERR hash value is not an integer".to_owned();
        };
        let Some(after) = before.checked_add(by) else {
            return "(error) ERR increment or decrement would overflow".to_owned();
        };
        self.put(key, name, &after.to_string(), at_ms);
        integer(after)
    }

    fn get_ex(&mut self, key: u8, expiry: Option<Expiry>, names: &[u8]) -> String {
        let mut members = Vec::new();
        for name in names {
            let text = self.get(key, *name).map(|(text, _)| text.clone());
            members.push(bulk(text.as_ref()));
            match expiry {
                _ if text.is_none() => {}
                None => {}
                Some(Expiry::Keep) => _ = self.set_deadline(key, *name, 0),
                Some(Expiry::In(ms)) => _ = self.set_deadline(key, *name, self.now_ms + ms),
            }
        }
        array(members)
    }

    fn set_ex(
        &mut self,
        key: u8,
        exist: Option<bool>,
        expiry: Option<Expiry>,
        pairs: &[(u8, Text)],
    ) -> String {
        let met = exist.is_none_or(|exist| {
            pairs
                .iter()
                .all(|(name, _)| self.get(key, *name).is_some() == exist)
        });
        if !met {
            return integer(0);
        }
        for (name, text) in pairs {
            let before_ms = self.get(key, *name).map_or(0, |(_, at_ms)| *at_ms);
            let at_ms = match expiry {
                None => 0,
                Some(Expiry::Keep) => before_ms,
                Some(Expiry::In(ms)) => self.now_ms + ms,
            };
            self.put(key, *name, text, 0);
            self.set_deadline(key, *name, at_ms);
        }
        integer(1)
    }

    fn expire_field(&mut self, key: u8, condition: &str, at_ms: u64, name: u8) -> i64 {
        let Some(&(_, before_ms)) = self.get(key, name) else {
            return -2;
        };
        let never = if before_ms == 0 { u64::MAX } else { before_ms };
        let met = match condition {
            "NX" => before_ms == 0,
            "XX" => before_ms != 0,
            "GT" => at_ms > never,
            "LT" => at_ms < never,
            _ => true,
        };
        match met {
            false => 0,
            true if self.set_deadline(key, name, at_ms) => 2,
            true => 1,
        }
    }
}

fn key_of(step: &Step) -> u8 {
    match step {
        Step::HSet(key, ..)
        | Step::HSetNx(key, ..)
        | Step::HDel(key, ..)
        | Step::HGet(key, ..)
        | Step::HLen(key)
        | Step::HIncrBy(key, ..)
        | Step::HGetDel(key, ..)
        | Step::HGetEx(key, ..)
        | Step::HSetEx(key, ..)
        | Step::HExpire(key, ..)
        | Step::HPersist(key, ..)
        | Step::HPTtl(key, ..)
        | Step::Set(key) => *key,
        Step::Advance(_) | Step::Recover => 0,
    }
}

fn names(names: &[u8]) -> String {
    names.iter().map(|name| format!(" f{name}")).collect()
}

fn pairs(pairs: &[(u8, Text)]) -> String {
    pairs
        .iter()
        .map(|(name, text)| format!(" f{name} {text}"))
        .collect()
}

fn line(step: &Step) -> String {
    match step {
        Step::HSet(key, data) => format!("HSET {{t}}{key}{}", pairs(data)),
        Step::HSetNx(key, name, text) => format!("HSETNX {{t}}{key} f{name} {text}"),
        Step::HDel(key, fields) => format!("HDEL {{t}}{key}{}", names(fields)),
        Step::HGet(key, name) => format!("HGET {{t}}{key} f{name}"),
        Step::HLen(key) => format!("HLEN {{t}}{key}"),
        Step::HIncrBy(key, name, by) => format!("HINCRBY {{t}}{key} f{name} {by}"),
        Step::HGetDel(key, fields) => {
            format!(
                "HGETDEL {{t}}{key} FIELDS {}{}",
                fields.len(),
                names(fields)
            )
        }
        Step::HGetEx(key, expiry, fields) => {
            let expiry = match expiry {
                None => String::new(),
                Some(Expiry::In(ms)) => format!("PX {ms} "),
                Some(Expiry::Keep) => "PERSIST ".to_owned(),
            };
            format!(
                "HGETEX {{t}}{key} {expiry}FIELDS {}{}",
                fields.len(),
                names(fields)
            )
        }
        Step::HSetEx(key, exist, expiry, data) => {
            let exist = exist.map_or("", |exist| if exist { "FXX " } else { "FNX " });
            let expiry = match expiry {
                None => String::new(),
                Some(Expiry::In(ms)) => format!("PX {ms} "),
                Some(Expiry::Keep) => "KEEPTTL ".to_owned(),
            };
            format!(
                "HSETEX {{t}}{key} {exist}{expiry}FIELDS {}{}",
                data.len(),
                pairs(data)
            )
        }
        Step::HExpire(key, condition, in_ms, fields) => {
            format!(
                "HPEXPIRE {{t}}{key} {in_ms} {condition} FIELDS {}{}",
                fields.len(),
                names(fields)
            )
        }
        Step::HPersist(key, fields) => {
            format!(
                "HPERSIST {{t}}{key} FIELDS {}{}",
                fields.len(),
                names(fields)
            )
        }
        Step::HPTtl(key, fields) => {
            format!("HPTTL {{t}}{key} FIELDS {}{}", fields.len(), names(fields))
        }
        Step::Set(key) => format!("SET {{t}}{key} text"),
        Step::Advance(_) | Step::Recover => unreachable!("no command"),
    }
}

/// Few keys and fields, so that calls meet.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = || 0..3_u8;
    let name = || 0..6_u8;
    let some = || prop::collection::vec(name(), 1..5);
    let text = || {
        prop_oneof![
            (-9..99_i64).prop_map(|number| number.to_string()),
            Just(i64::MAX.to_string()),
            Just("007".to_owned()),
            "[a-z]{1,40}",
        ]
    };
    let data = || prop::collection::vec((name(), text()), 1..5);
    let ms = || prop_oneof![Just(0_u64), 1..60_u64];
    let expiry = || prop::option::of(prop_oneof![ms().prop_map(Expiry::In), Just(Expiry::Keep)]);
    let condition = || select(vec!["", "NX", "XX", "GT", "LT"]);
    let step = prop_oneof![
        4 => (key(), data()).prop_map(|(k, d)| Step::HSet(k, d)),
        1 => (key(), name(), text()).prop_map(|(k, n, t)| Step::HSetNx(k, n, t)),
        2 => (key(), some()).prop_map(|(k, n)| Step::HDel(k, n)),
        2 => (key(), name()).prop_map(|(k, n)| Step::HGet(k, n)),
        2 => key().prop_map(Step::HLen),
        2 => (key(), name(), -5..5_i64).prop_map(|(k, n, b)| Step::HIncrBy(k, n, b)),
        1 => (key(), some()).prop_map(|(k, n)| Step::HGetDel(k, n)),
        2 => (key(), expiry(), some()).prop_map(|(k, e, n)| Step::HGetEx(k, e, n)),
        3 => (key(), prop::option::of(any::<bool>()), expiry(), data())
            .prop_map(|(k, x, e, d)| Step::HSetEx(k, x, e, d)),
        4 => (key(), condition(), 0..60_i64, some())
            .prop_map(|(k, c, m, n)| Step::HExpire(k, c, m, n)),
        1 => (key(), some()).prop_map(|(k, n)| Step::HPersist(k, n)),
        2 => (key(), some()).prop_map(|(k, n)| Step::HPTtl(k, n)),
        1 => Just(Step::Set(0)),
        4 => (0..30_u64).prop_map(Step::Advance),
        2 => Just(Step::Recover),
    ];
    prop::collection::vec(step, 1..30)
}

/// All names and values with their deadlines, as the server tells them.
fn check_whole(t: &mut Transcript, model: &Model) {
    let keys = model.hashes.len() + model.strings.len();
    assert_eq!(t.keyspace().tables().count_db(0), keys as u64);
    for (key, fields) in &model.hashes {
        assert_eq!(
            t.run(&format!("HLEN {{t}}{key}")).trim_end(),
            integer(fields.len() as i64)
        );
        for (name, (text, at_ms)) in fields {
            assert_eq!(
                t.run(&format!("HGET {{t}}{key} f{name}")).trim_end(),
                bulk(Some(text))
            );
            let told = if *at_ms == 0 { -1 } else { *at_ms as i64 };
            let reply = t.run(&format!("HPEXPIRETIME {{t}}{key} FIELDS 1 f{name}"));
            assert_eq!(reply.trim_end(), format!("1) (integer) {told}"));
        }
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn hashes_do_what_the_model_says(steps in steps(), timer: bool) {
        let mut t = Transcript::of_tag();
        t.keyspace().set_active_expiry(timer);
        let mut model = Model { now_ms: t.now_ms(), ..Model::default() };
        for step in &steps {
            match step {
                Step::Advance(ms) => {
                    model.now_ms += ms;
                    model.expire();
                    t.advance_ms(*ms);
                }
                Step::Recover => {
                    t.recover();
                    t.keyspace().set_active_expiry(timer);
                }
                call => {
                    let (line, expected) = model.call(call);
                    let reply = t.run(&line);
                    prop_assert_eq!(reply.trim_end(), expected, "reply to: {}", line);
                }
            }
        }
        t.keyspace().set_active_expiry(true);
        t.advance_ms(0);
        check_whole(&mut t, &model);
        t.recover();
        check_whole(&mut t, &model);
    }
}
