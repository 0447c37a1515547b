//! The core commands once more, over plain maps: what a reply and a key must be, given what was
//! there before. It shares no code with the commands, so a bug of theirs is not mirrored.

use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use tallyman::keyspace::FieldValue;
use tallyman::resp::Protocol;

use crate::state::{Form, Logical, Name, State};

/// A call as the model sees it.
pub struct Call<'a> {
    pub name: &'a str,
    /// Arguments behind the name.
    pub words: Vec<&'a [u8]>,
    pub database: u32,
    pub now_ms: u64,
    pub protocol: Protocol,
}

enum Answer {
    Integer(i64),
    Bulk(Option<Vec<u8>>),
    Simple(&'static str),
    Refused,
}

/// Stands for the generation of a hash that is new.
const ANY_GENERATION: u64 = u64::MAX;

/// Key by key: what it is afterwards.
type After = BTreeMap<Vec<u8>, Option<Logical>>;

/// Checks a call that the model knows; false if it does not.
pub fn check(call: &Call<'_>, reply: &[u8], before: &[State], after: &[State]) -> bool {
    let find = |states: &[State], key: &[u8]| -> Option<Rc<Logical>> {
        let name: Name = (call.database, key.to_vec());
        states.iter().find_map(|state| state.get(&name).cloned())
    };
    // What becomes of a hold whose time is up is another model's affair.
    let mut found = call.words.iter().filter_map(|key| find(before, key));
    if found.any(|logical| logical.has_hold_due(call.now_ms)) {
        return false;
    }
    let read = |key: &[u8]| live(find(before, key), call.now_ms);
    let mut expected_after = After::new();
    let Some(answer) = answer(call, &read, &mut expected_after) else {
        return false;
    };
    let wanted = match &answer {
        Answer::Integer(number) => format!(":{number}\r\n").into_bytes(),
        Answer::Simple(text) => format!("+{text}\r\n").into_bytes(),
        Answer::Bulk(None) if call.protocol == Protocol::Resp3 => b"_\r\n".to_vec(),
        Answer::Bulk(None) => b"$-1\r\n".to_vec(),
        Answer::Bulk(Some(text)) => [
            format!("${}\r\n", text.len()).as_bytes(),
            &text[..],
            &b"\r\n"[..],
        ]
        .concat(),
        Answer::Refused => reply.to_vec(),
    };
    let told = || {
        let words: Vec<_> = call
            .words
            .iter()
            .map(|word| word.escape_ascii().to_string())
            .collect();
        format!("the plain model of {} {}", call.name, words.join(" "))
    };
    if matches!(answer, Answer::Refused) {
        assert!(
            reply.starts_with(b"-"),
            "{}: a refusal, not {}",
            told(),
            reply.escape_ascii()
        );
    }
    assert_eq!(
        wanted.escape_ascii().to_string(),
        reply.escape_ascii().to_string(),
        "{}",
        told()
    );
    for (key, mut wanted) in expected_after {
        let found = find(after, &key);
        take_generation(&mut wanted, found.as_deref());
        assert_eq!(
            wanted.as_ref(),
            found.as_deref(),
            "{}: the key afterwards",
            told()
        );
    }
    true
}

/// A hash that is new may have any generation.
fn take_generation(wanted: &mut Option<Logical>, found: Option<&Logical>) {
    let (Some(wanted), Some(found)) = (wanted, found) else {
        return;
    };
    if let Form::Hash { generation, .. } = &mut wanted.form
        && *generation == ANY_GENERATION
        && let Form::Hash {
            generation: new, ..
        } = &found.form
    {
        *generation = *new;
    }
}

/// What of a key is not past its deadline.
fn live(found: Option<Rc<Logical>>, now_ms: u64) -> Option<Logical> {
    let mut logical = Logical::clone(&*found?);
    if logical.deadline_ms != 0 && logical.deadline_ms <= now_ms {
        return None;
    }
    if let Form::Hash { fields, .. } = &mut logical.form {
        fields.retain(|_, (_, at_ms)| *at_ms == 0 || *at_ms > now_ms);
        if fields.is_empty() {
            return None;
        }
    }
    Some(logical)
}

fn number(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let number: i64 = text.parse().ok()?;
    // What Redis takes for a number: no sign, zero or space more than needed.
    (number.to_string() == text).then_some(number)
}

fn text_of(logical: &Logical) -> Option<Bytes> {
    match &logical.form {
        Form::Text(text) => Some(text.clone()),
        Form::Cell(cell) => Some(cell.state.clone()),
        Form::Hash { .. } => None,
    }
}

fn text(bytes: Vec<u8>, deadline_ms: u64) -> Option<Logical> {
    let form = Form::Text(bytes.into());
    Some(Logical { deadline_ms, form })
}

type Read<'a> = &'a dyn Fn(&[u8]) -> Option<Logical>;

fn answer(call: &Call<'_>, read: Read<'_>, after: &mut After) -> Option<Answer> {
    let words = &call.words[..];
    match (call.name, words) {
        ("get", [key]) => Some(match read(key) {
            None => Answer::Bulk(None),
            Some(value) => match text_of(&value) {
                Some(text) => Answer::Bulk(Some(text.to_vec())),
                None => Answer::Refused,
            },
        }),
        ("set", [key, value]) => {
            after.insert(key.to_vec(), text(value.to_vec(), 0));
            Some(Answer::Simple("OK"))
        }
        ("set", [key, value, option]) if option.eq_ignore_ascii_case(b"nx") => {
            if read(key).is_some() {
                return Some(Answer::Bulk(None));
            }
            after.insert(key.to_vec(), text(value.to_vec(), 0));
            Some(Answer::Simple("OK"))
        }
        ("psetex", [key, ms, value]) => {
            let ms = number(ms).filter(|ms| (1..1 << 40).contains(ms))?;
            after.insert(key.to_vec(), text(value.to_vec(), call.now_ms + ms as u64));
            Some(Answer::Simple("OK"))
        }
        ("incr", [key]) => Some(add(key, 1, read, after)),
        ("decr", [key]) => Some(add(key, -1, read, after)),
        ("incrby", [key, by]) => Some(add(key, number(by)?, read, after)),
        ("decrby", [key, by]) => Some(add(key, number(by)?.checked_neg()?, read, after)),
        ("del" | "unlink" | "exists" | "touch", keys) if !keys.is_empty() => {
            Some(Answer::Integer(count(call.name, keys, read, after)))
        }
        ("append", [key, more]) => append(key, more, read, after),
        ("strlen", [key]) => Some(match read(key).map(|value| text_of(&value)) {
            None => Answer::Integer(0),
            Some(Some(text)) => Answer::Integer(text.len() as i64),
            Some(None) => Answer::Refused,
        }),
        ("persist" | "pexpiretime" | "type", [key]) => Some(deadline(call, key, read, after)),
        ("hset" | "hdel" | "hget" | "hlen" | "hexists", _) => hash(call, read, after),
        _ => None,
    }
}

fn add(key: &[u8], by: i64, read: Read<'_>, after: &mut After) -> Answer {
    let value = read(key);
    let before = match &value {
        None => Some(0),
        Some(value) => text_of(value).and_then(|text| number(&text)),
    };
    let Some(sum) = before.and_then(|before| before.checked_add(by)) else {
        after.insert(key.to_vec(), value);
        return Answer::Refused;
    };
    let deadline_ms = value.map_or(0, |value| value.deadline_ms);
    after.insert(
        key.to_vec(),
        text(sum.to_string().into_bytes(), deadline_ms),
    );
    Answer::Integer(sum)
}

fn count(name: &str, keys: &[&[u8]], read: Read<'_>, after: &mut After) -> i64 {
    let mut count = 0;
    for key in keys {
        let gone = after.contains_key(*key);
        if read(key).is_some() && !gone {
            count += 1;
        }
        if matches!(name, "del" | "unlink") {
            after.insert(key.to_vec(), None);
        }
    }
    count
}

fn append(key: &[u8], more: &[u8], read: Read<'_>, after: &mut After) -> Option<Answer> {
    let Some(value) = read(key) else {
        after.insert(key.to_vec(), text(more.to_vec(), 0));
        return Some(Answer::Integer(more.len() as i64));
    };
    let Some(before) = text_of(&value) else {
        return Some(Answer::Refused);
    };
    let joined = [&before[..], more].concat();
    let length = joined.len() as i64;
    if !more.is_empty() {
        after.insert(key.to_vec(), text(joined, value.deadline_ms));
    }
    Some(Answer::Integer(length))
}

fn deadline(call: &Call<'_>, key: &[u8], read: Read<'_>, after: &mut After) -> Answer {
    let value = read(key);
    match (call.name, value) {
        ("type", None) => Answer::Simple("none"),
        ("type", Some(value)) if text_of(&value).is_some() => Answer::Simple("string"),
        ("type", Some(_)) => Answer::Simple("hash"),
        ("persist", Some(mut value)) if value.deadline_ms != 0 => {
            value.deadline_ms = 0;
            after.insert(key.to_vec(), Some(value));
            Answer::Integer(1)
        }
        ("persist", _) => Answer::Integer(0),
        (_, None) => Answer::Integer(-2),
        (_, Some(value)) if value.deadline_ms == 0 => Answer::Integer(-1),
        (_, Some(value)) => Answer::Integer(value.deadline_ms as i64),
    }
}

fn hash(call: &Call<'_>, read: Read<'_>, after: &mut After) -> Option<Answer> {
    let (key, words) = call.words.split_first()?;
    let value = read(key);
    let fields = match value.as_ref().map(|value| &value.form) {
        None => BTreeMap::new(),
        Some(Form::Hash { fields, .. }) => fields.clone(),
        Some(_) => return Some(Answer::Refused),
    };
    Some(match (call.name, words) {
        ("hlen", []) => Answer::Integer(fields.len() as i64),
        ("hget", [field]) => Answer::Bulk(
            fields
                .get(*field)
                .map(|(value, _)| value.to_bytes().to_vec()),
        ),
        ("hexists", [field]) => Answer::Integer(i64::from(fields.contains_key(*field))),
        ("hset", [_, _, ..]) if words.len() % 2 == 0 => {
            let mut changed = fields.clone();
            for pair in words.chunks(2) {
                changed.insert(pair[0].to_vec(), (FieldValue::from_bytes(pair[1]), 0));
            }
            let added = changed.len() - fields.len();
            let mut value = value.unwrap_or(Logical {
                deadline_ms: 0,
                form: Form::Hash {
                    generation: ANY_GENERATION,
                    fields: BTreeMap::new(),
                },
            });
            if let Form::Hash { fields, .. } = &mut value.form {
                *fields = changed;
            }
            after.insert(key.to_vec(), Some(value));
            Answer::Integer(added as i64)
        }
        ("hdel", [_, ..]) => {
            let mut changed = fields.clone();
            words.iter().for_each(|field| drop(changed.remove(*field)));
            let removed = fields.len() - changed.len();
            let left = value.map(|mut value| {
                if let Form::Hash { fields, .. } = &mut value.form {
                    *fields = changed.clone();
                }
                value
            });
            after.insert(key.to_vec(), left.filter(|_| !changed.is_empty()));
            Answer::Integer(removed as i64)
        }
        _ => return None,
    })
}
