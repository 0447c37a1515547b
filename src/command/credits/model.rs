//! Property test: accounts and their holds against a plain model, with users who write into the
//! fields, time steps and restarts in between. The model takes a new token from the reply and wants
//! it to be higher than every token before it.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::command::transcript::{Transcript, cases};

const KEYS: u8 = 2;
const DAY_MS: u64 = 86_400_000;

/// A call, or what happens to the server between calls. Keys and ids are numbers.
#[derive(Clone, Debug)]
enum Step {
    Reserve(u8, u8, Reserve),
    Settle(u8, u8, Which, i64, Overdraft),
    Balance(u8, i64),
    Add(u8, i64),
    Text(u8, Place),
    Delete(u8, Place),
    ExpireHold(u8, u8, u8),
    Len(u8),
    Del(u8),
    Rename(u8),
    Copy(u8),
    FlushAll,
    Advance(u8),
    Recover,
}

#[derive(Clone, Debug)]
struct Reserve {
    amount: i64,
    ms: u8,
    lower_bound: Option<i64>,
    charge: bool,
    keep: Option<u8>,
}

/// A token that a client may come with.
#[derive(Clone, Copy, Debug)]
enum Which {
    Open,
    Ended,
    Zero,
    Future,
}

#[derive(Clone, Copy, Debug)]
enum Overdraft {
    Reject,
    Clamp,
    Allow,
}

/// A field of an account.
#[derive(Clone, Copy, Debug)]
enum Place {
    Balance,
    Hold(u8),
    Settled(u8),
}

impl Place {
    fn name(self) -> String {
        match self {
            Place::Balance => "balance".to_owned(),
            Place::Hold(id) => format!("hold:{id}"),
            Place::Settled(id) => format!("settled:{id}"),
        }
    }
}

#[derive(Clone, Debug)]
struct Held {
    token: u64,
    amount: i64,
    sheet: (i64, i64),
    deadline_ms: u64,
    charge: bool,
    keep_ms: u64,
}

#[derive(Clone, Debug)]
enum Value {
    Text,
    Number(i64),
    Open(Held),
    Ended(Held, i64, (i64, i64)),
}

/// Value and deadline (0: none) by name.
type Account = BTreeMap<String, (Value, u64)>;

#[derive(Default)]
struct Model {
    accounts: BTreeMap<u8, Account>,
    tokens: Vec<u64>,
    now_ms: u64,
}

fn four(status: i64, number: i64, (available, held): (i64, i64)) -> String {
    format!(
        "1) (integer) {status}\n2) (integer) {number}\n3) (integer) {available}\n4) (integer) {held}"
    )
}

fn integer(value: impl std::fmt::Display) -> String {
    format!("(integer) {value}")
}

fn due_ms((value, expires_at_ms): &(Value, u64)) -> u64 {
    let hold_ms = match value {
        Value::Open(held) => held.deadline_ms,
        _ => u64::MAX,
    };
    match *expires_at_ms {
        0 => hold_ms,
        expires_at_ms => hold_ms.min(expires_at_ms),
    }
}

fn held(account: &Account) -> i64 {
    let amounts = account.values().map(|(value, _)| match value {
        Value::Open(held) => held.amount,
        _ => 0,
    });
    amounts.sum()
}

/// Nothing if the balance is no integer.
fn balance(account: &Account) -> Option<i64> {
    match account.get("balance") {
        None => Some(0),
        Some((Value::Number(balance), _)) => Some(*balance),
        Some(_) => None,
    }
}

fn sheet(account: &Account) -> (i64, i64) {
    let held = held(account);
    (balance(account).unwrap_or(0) - held, held)
}

/// Ends what is due first, if it is due at all.
fn end_first(account: &mut Account, now_ms: u64) -> bool {
    let first = account.iter().min_by_key(|(_, field)| due_ms(field));
    let Some((name, field)) = first else {
        return false;
    };
    let at_ms = due_ms(field);
    if at_ms > now_ms {
        return false;
    }
    let name = name.clone();
    let Some((value, expires_at_ms)) = account.remove(&name) else {
        return false;
    };
    let Value::Open(hold) = value else {
        return true;
    };
    if expires_at_ms == at_ms || !hold.charge {
        return true;
    }
    let charged = match balance(account) {
        None => 0,
        Some(balance) => {
            let after = Value::Number(balance - hold.amount);
            account.insert("balance".to_owned(), (after, 0));
            hold.amount
        }
    };
    let record = (name.replacen("hold", "settled", 1), at_ms + hold.keep_ms);
    let sheet = match charged {
        0 => (-held(account), held(account)),
        _ => sheet(account),
    };
    account.insert(record.0, (Value::Ended(hold, charged, sheet), record.1));
    true
}

impl Model {
    fn expire(&mut self) {
        for account in self.accounts.values_mut() {
            while end_first(account, self.now_ms) {}
        }
        self.accounts.retain(|_, account| !account.is_empty());
    }

    fn account(&self, key: u8) -> Account {
        self.accounts.get(&key).cloned().unwrap_or_default()
    }

    fn which(&self, key: u8, id: u8, which: Which) -> u64 {
        let token = |place: Place| match self.accounts.get(&key)?.get(&place.name())? {
            (Value::Open(held) | Value::Ended(held, ..), _) => Some(held.token),
            _ => None,
        };
        match which {
            Which::Open => token(Place::Hold(id)).unwrap_or(7),
            Which::Ended => token(Place::Settled(id)).unwrap_or(7),
            Which::Zero => 0,
            Which::Future => self.tokens.last().map_or(2, |token| token + 1),
        }
    }

    /// The deadline of a new hold: no two of an account end together, so that their order is known.
    fn deadline_ms(&self, key: u8, ms: u8) -> u64 {
        let account = self.account(key);
        let mut deadline_ms = self.now_ms + u64::from(ms) + 1;
        while account.values().any(|field| due_ms(field) == deadline_ms) {
            deadline_ms += 1;
        }
        deadline_ms
    }

    /// The new token in a reply; it must be higher than all before.
    fn new_token(&mut self, reply: &str) -> u64 {
        let line = reply.lines().nth(1).unwrap_or_default();
        let digits = line.rsplit(' ').next().unwrap_or_default();
        let token = digits.parse().unwrap_or(0);
        assert!(token > self.tokens.last().copied().unwrap_or(0), "{reply}");
        self.tokens.push(token);
        token
    }

    fn reserve(&mut self, key: u8, id: u8, how: &Reserve, reply: &str) -> String {
        let account = self.account(key);
        let earlier = match account.get(&Place::Hold(id).name()) {
            Some((Value::Open(held), _)) => Some(held),
            Some(_) => {
                let text = "(error) ERR RESERVE: the field of this id exists and is not a hold";
                return text.to_owned();
            }
            None => match account.get(&Place::Settled(id).name()) {
                Some((Value::Ended(held, charged, _), _)) if *charged > 0 => Some(held),
                _ => None,
            },
        };
        if let Some(earlier) = earlier.filter(|earlier| earlier.amount == how.amount) {
            return four(1, earlier.token as i64, earlier.sheet);
        }
        if balance(&account).is_none() {
            return "(error) ERR RESERVE: balance is not an integer".to_owned();
        }
        let (available, held) = sheet(&account);
        if earlier.is_some() {
            return four(-1, 0, (available, held));
        }
        if available - how.amount < how.lower_bound.unwrap_or(0) {
            return four(0, 0, (available, held));
        }
        let hold = Held {
            token: self.new_token(reply),
            amount: how.amount,
            sheet: (available - how.amount, held + how.amount),
            deadline_ms: self.deadline_ms(key, how.ms),
            charge: how.charge,
            keep_ms: how.keep.map_or(DAY_MS, |keep| u64::from(keep) + 1),
        };
        let answer = four(1, hold.token as i64, hold.sheet);
        let account = self.accounts.entry(key).or_default();
        account.insert(Place::Hold(id).name(), (Value::Open(hold), 0));
        answer
    }

    fn settle(&mut self, key: u8, id: u8, token: u64, amount: i64, over: Overdraft) -> String {
        let mut account = self.account(key);
        let no_integer = || "(error) ERR SETTLE: balance is not an integer".to_owned();
        let before = balance(&account);
        let hold = match account.get(&Place::Hold(id).name()) {
            Some((Value::Open(held), _)) if held.token == token => held.clone(),
            _ => match account.get(&Place::Settled(id).name()) {
                Some((Value::Ended(held, charged, sheet), _)) if held.token == token => {
                    return four(1, *charged, *sheet);
                }
                _ if before.is_none() => return no_integer(),
                _ => return four(0, 0, sheet(&account)),
            },
        };
        let Some(before) = before else {
            return no_integer();
        };
        let charged = match over {
            Overdraft::Reject if amount > hold.amount => return four(-1, 0, sheet(&account)),
            Overdraft::Clamp => amount.min(hold.amount),
            _ => amount,
        };
        account.remove(&Place::Hold(id).name());
        if charged > 0 {
            let until_ms = account.get("balance").map_or(0, |field| field.1);
            let after = Value::Number(before - charged);
            account.insert("balance".to_owned(), (after, until_ms));
        }
        let sheet = sheet(&account);
        let until_ms = self.now_ms + hold.keep_ms;
        let record = Value::Ended(hold, charged, sheet);
        account.insert(Place::Settled(id).name(), (record, until_ms));
        self.accounts.insert(key, account);
        four(1, charged, sheet)
    }

    /// HSET of a field; how many are new.
    fn put(&mut self, key: u8, name: String, value: Value) -> String {
        let account = self.accounts.entry(key).or_default();
        integer(u8::from(account.insert(name, (value, 0)).is_none()))
    }

    /// What the call answers; `reply` is what it did answer, for new tokens.
    fn answer(&mut self, step: &Step, reply: &str) -> String {
        let answer = match step {
            Step::Reserve(key, id, how) => self.reserve(*key, *id, how, reply),
            Step::Settle(key, id, which, amount, over) => {
                let token = self.which(*key, *id, *which);
                self.settle(*key, *id, token, *amount, *over)
            }
            Step::Balance(key, to) => self.put(*key, "balance".to_owned(), Value::Number(*to)),
            Step::Text(key, place) => self.put(*key, place.name(), Value::Text),
            Step::Add(key, by) => match balance(&self.account(*key)) {
                None => "(error) ERR hash value is not an integer".to_owned(),
                Some(before) => {
                    self.put(*key, "balance".to_owned(), Value::Number(before + by));
                    integer(before + by)
                }
            },
            Step::Delete(key, place) => {
                let account = self.accounts.get_mut(key);
                let gone = account.and_then(|account| account.remove(&place.name()));
                integer(u8::from(gone.is_some()))
            }
            Step::ExpireHold(key, id, ms) => {
                let at_ms = self.now_ms + u64::from(*ms) + 1;
                let account = self.accounts.get_mut(key);
                match account.map(|account| account.get_mut(&Place::Hold(*id).name())) {
                    None => "1) (integer) -2".to_owned(),
                    Some(None) => "1) (integer) -2".to_owned(),
                    Some(Some(field)) => {
                        field.1 = at_ms;
                        "1) (integer) 1".to_owned()
                    }
                }
            }
            Step::Len(key) => integer(self.account(*key).len()),
            Step::Del(key) => integer(u8::from(self.accounts.remove(key).is_some())),
            Step::Rename(key) => match self.accounts.remove(key) {
                None => "(error) ERR no such key".to_owned(),
                Some(account) => {
                    self.accounts.insert((key + 1) % KEYS, account);
                    "OK".to_owned()
                }
            },
            Step::Copy(key) => match self.accounts.get(key).cloned() {
                None => integer(0),
                Some(account) => {
                    self.accounts.insert((key + 1) % KEYS, account);
                    integer(1)
                }
            },
            Step::FlushAll | Step::Advance(_) | Step::Recover => String::new(),
        };
        self.accounts.retain(|_, account| !account.is_empty());
        answer
    }

    /// The call as a client types it.
    fn line(&self, step: &Step) -> String {
        match step {
            Step::Reserve(key, id, how) => {
                let deadline_ms = self.deadline_ms(*key, how.ms);
                let mut line = format!("RESERVE {{t}}{key} {id} {} PXAT {deadline_ms}", how.amount);
                if let Some(bound) = how.lower_bound {
                    line += &format!(" LBOUND {bound}");
                }
                if let Some(keep) = how.keep {
                    line += &format!(" KEEP {}", u64::from(keep) + 1);
                }
                line + if how.charge { " ONEXPIRE CHARGE" } else { "" }
            }
            Step::Settle(key, id, which, amount, over) => {
                let token = self.which(*key, *id, *which);
                let over = match over {
                    Overdraft::Reject => "",
                    Overdraft::Clamp => " OVERDRAFT CLAMP",
                    Overdraft::Allow => " OVERDRAFT ALLOW",
                };
                format!("SETTLE {{t}}{key} {id} {token} {amount}{over}")
            }
            Step::Balance(key, to) => format!("HSET {{t}}{key} balance {to}"),
            Step::Add(key, by) => format!("HINCRBY {{t}}{key} balance {by}"),
            Step::Text(key, place) => format!("HSET {{t}}{key} {} text", place.name()),
            Step::Delete(key, place) => format!("HDEL {{t}}{key} {}", place.name()),
            Step::ExpireHold(key, id, ms) => {
                let ms = u64::from(*ms) + 1;
                format!("HPEXPIRE {{t}}{key} {ms} FIELDS 1 hold:{id}")
            }
            Step::Len(key) => format!("HLEN {{t}}{key}"),
            Step::Del(key) => format!("DEL {{t}}{key}"),
            Step::Rename(key) => format!("RENAME {{t}}{key} {{t}}{}", (key + 1) % KEYS),
            Step::Copy(key) => format!("COPY {{t}}{key} {{t}}{} REPLACE", (key + 1) % KEYS),
            Step::FlushAll | Step::Advance(_) | Step::Recover => String::new(),
        }
    }
}

/// Few keys, ids and credits, so that steps meet.
fn step() -> impl Strategy<Value = Step> {
    let key = || 0..KEYS;
    let id = || 0..3u8;
    let how = (
        1..6i64,
        0..60u8,
        prop::option::of(-8..3i64),
        any::<bool>(),
        prop::option::of(0..60u8),
    );
    let how = how.prop_map(|(amount, ms, lower_bound, charge, keep)| Reserve {
        amount,
        ms,
        lower_bound,
        charge,
        keep,
    });
    let which = prop_oneof![
        5 => Just(Which::Open),
        2 => Just(Which::Ended),
        1 => Just(Which::Zero),
        1 => Just(Which::Future),
    ];
    let over = prop_oneof![
        2 => Just(Overdraft::Reject),
        1 => Just(Overdraft::Clamp),
        1 => Just(Overdraft::Allow),
    ];
    let place = || {
        prop_oneof![
            1 => Just(Place::Balance),
            2 => id().prop_map(Place::Hold),
            1 => id().prop_map(Place::Settled),
        ]
    };
    prop_oneof![
        10 => (key(), id(), how).prop_map(|(key, id, how)| Step::Reserve(key, id, how)),
        8 => (key(), id(), which, 0..8i64, over)
            .prop_map(|(key, id, which, amount, over)| Step::Settle(key, id, which, amount, over)),
        3 => (key(), -3..20i64).prop_map(|(key, to)| Step::Balance(key, to)),
        1 => (key(), -3..9i64).prop_map(|(key, by)| Step::Add(key, by)),
        1 => (key(), place()).prop_map(|(key, place)| Step::Text(key, place)),
        1 => (key(), place()).prop_map(|(key, place)| Step::Delete(key, place)),
        1 => (key(), id(), 0..60u8).prop_map(|(key, id, ms)| Step::ExpireHold(key, id, ms)),
        1 => key().prop_map(Step::Len),
        1 => key().prop_map(Step::Del),
        1 => key().prop_map(Step::Rename),
        1 => key().prop_map(Step::Copy),
        1 => Just(Step::FlushAll),
        4 => (1..40u8).prop_map(Step::Advance),
        1 => Just(Step::Recover),
    ]
}

/// Balance and number of fields of every account.
fn check_whole(t: &mut Transcript, model: &Model) -> Result<(), TestCaseError> {
    for key in 0..KEYS {
        let account = model.account(key);
        let reply = t.run(&format!("HLEN {{t}}{key}"));
        prop_assert_eq!(reply.trim_end(), integer(account.len()), "key {}", key);
        let expected = match account.get("balance") {
            None => "(nil)".to_owned(),
            Some((Value::Number(balance), _)) => format!("\"{balance}\""),
            Some(_) => "\"text\"".to_owned(),
        };
        let reply = t.run(&format!("HGET {{t}}{key} balance"));
        prop_assert_eq!(reply.trim_end(), expected, "balance of {}", key);
        let reply = t.run(&format!("RESERVE {{t}}{key} probe 1000 EX 1"));
        let expected = match balance(&account) {
            None => "(error) ERR RESERVE: balance is not an integer".to_owned(),
            Some(_) => four(0, 0, sheet(&account)),
        };
        prop_assert_eq!(reply.trim_end(), expected, "sheet of {}", key);
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn accounts_do_what_the_model_says(
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
                Step::FlushAll => {
                    t.write(|txn| txn.flush(0));
                    model.accounts.clear();
                }
                call => {
                    let line = model.line(call);
                    let reply = t.run(&line);
                    let expected = model.answer(call, &reply);
                    prop_assert_eq!(reply.trim_end(), expected, "reply to: {}", line);
                }
            }
        }
        check_whole(&mut t, &model)?;
        t.recover();
        check_whole(&mut t, &model)?;
    }
}
