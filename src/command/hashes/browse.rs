//! Fields looked at a few at a time: HRANDFIELD, HSCAN.
//!
//! HSCAN's cursor is the hash of the next field's name, so it stays valid whatever is written in
//! between, and over a restart: a field that is there all the time is given, and given once.

use std::collections::BTreeSet;

use rand::RngExt;

use super::reply_value;
use crate::command::KeyCommand;
use crate::command::spec::{Arg, Group, Needs, Spec, Type, Word};
use crate::glob::glob_matches;
use crate::keyspace::{Field, Hash, Key, Txn};
use crate::limits::{RANDOM_REPLY_BYTES_MAX, SCAN_WHOLE_FIELDS_MAX};
use crate::number::{parse_i64, parse_u64};
use crate::reply::{Reject, Reply};
use crate::resp::Protocol;
use crate::resp::decode::Args;

/// Fields that are visited when COUNT is not given.
const SCAN_COUNT_DEFAULT: u64 = 10;
/// Random draws that are looked up in one pass over the hash.
const DRAWS_PER_PASS: usize = 8192;

/// Random fields.
#[derive(Default)]
pub(super) struct HRandField {
    key: Word,
    count: Option<i64>,
    with_values: bool,
}

impl KeyCommand for HRandField {
    const SPEC: Spec = Spec::read(
        "hrandfield",
        Group::Hash,
        "Returns random fields of a hash.",
    )
    .since("6.2.0")
    .complexity("O(N)")
    .reply(
        "Without a count a name, or null if there is no key. With a count an array of names; \
             WITHVALUES adds the values, in RESP3 as pairs.",
    )
    .notes(
        "A negative count draws so often, and a field may come again. Such a reply is at most \
             64 MiB long.",
    );
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the hash", |c, word| c.key = word),
        Arg::block(
            "options",
            "how many",
            &[
                Arg::parsed(
                    "count",
                    "how many",
                    Type::Integer,
                    |c: &mut Self, text, _| {
                        c.count = Some(count(text)?);
                        Ok(())
                    },
                ),
                Arg::flag("WITHVALUES", "with their values", |c| c.with_values = true),
            ],
        )
        .optional(),
    ];

    fn needs(&self) -> Needs {
        Needs::AllFields
    }

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        let len = txn.hash(&key)?.map_or(0, Hash::len);
        let Some(count) = self.count else {
            return one(txn, &key, len, reply);
        };
        if self.with_values && count.unsigned_abs() > i64::MAX as u64 / 2 {
            return Err(Reject::out_of_range());
        }
        if len == 0 || count == 0 {
            reply.array(0);
        } else if count > 0 {
            let count = usize::try_from(count).unwrap_or(usize::MAX).min(len);
            self.distinct(txn, &key, (count, len), reply)?;
        } else {
            let count = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
            self.drawn(txn, &key, (count, len), reply)?;
        }
        Ok(())
    }
}

/// A count of fields, as Redis bounds it.
///
/// # Errors
/// No integer, or the smallest one.
fn count(text: &[u8]) -> Result<i64, Reject> {
    match parse_i64(text) {
        None => Err(Reject::not_an_integer()),
        Some(i64::MIN) => Err(Reject::fixed(
            "ERR value is out of range, value must between -9223372036854775807 and \
             9223372036854775807",
        )),
        Some(count) => Ok(count),
    }
}

fn one(txn: &mut Txn<'_>, key: &Key<'_>, len: usize, reply: &mut Reply<'_>) -> Result<(), Reject> {
    if len == 0 {
        reply.null();
        return Ok(());
    }
    let place = txn.rng().random_range(0..len);
    let field = txn.hash(key)?.and_then(|hash| hash.nth(place));
    reply.bulk_or_null(field.map(Field::name));
    Ok(())
}

impl HRandField {
    /// `count` different fields of `len`, in the order of the hash.
    fn distinct(
        &self,
        txn: &mut Txn<'_>,
        key: &Key<'_>,
        (count, len): (usize, usize),
        reply: &mut Reply<'_>,
    ) -> Result<(), Reject> {
        // Floyd's sampling: as many draws as fields, each subset equally likely.
        let mut places = BTreeSet::new();
        if count < len {
            for last in len - count..len {
                let place = txn.rng().random_range(0..=last);
                if !places.insert(place) {
                    places.insert(last);
                }
            }
        }
        self.header(count, reply);
        let Some(hash) = txn.hash(key)? else {
            return Ok(());
        };
        if count == len {
            hash.iter().for_each(|field| self.field(field, reply));
        } else {
            hash.at_places(places.into_iter())
                .for_each(|field| self.field(field, reply));
        }
        Ok(())
    }

    /// `count` draws of `len` fields, in the order of the draws.
    fn drawn(
        &self,
        txn: &mut Txn<'_>,
        key: &Key<'_>,
        (count, len): (usize, usize),
        reply: &mut Reply<'_>,
    ) -> Result<(), Reject> {
        let begin = reply.mark();
        self.header(count, reply);
        let mut left = count;
        while left > 0 {
            let draws = left.min(DRAWS_PER_PASS);
            left -= draws;
            let mut places: Vec<(usize, usize)> = (0..draws)
                .map(|turn| (txn.rng().random_range(0..len), turn))
                .collect();
            places.sort_unstable();
            let Some(hash) = txn.hash(key)? else {
                return Ok(());
            };
            let found = hash.at_places(places.iter().map(|(place, _)| *place));
            let mut fields: Vec<(usize, &Field)> =
                places.iter().map(|(_, turn)| *turn).zip(found).collect();
            fields.sort_unstable_by_key(|(turn, _)| *turn);
            for (_, field) in fields {
                self.field(field, reply);
                if reply.written_since(begin).len() > RANDOM_REPLY_BYTES_MAX {
                    return Err(Reject::fixed(
                        "ERR count is out of range: the reply is too long",
                    ));
                }
            }
        }
        Ok(())
    }

    fn header(&self, count: usize, reply: &mut Reply<'_>) {
        let flat = self.with_values && reply.protocol() == Protocol::Resp2;
        reply.array(if flat { count * 2 } else { count });
    }

    fn field(&self, field: &Field, reply: &mut Reply<'_>) {
        if self.with_values && reply.protocol() == Protocol::Resp3 {
            reply.array(2);
        }
        reply.bulk(field.name());
        if self.with_values {
            reply_value(&field.value, reply);
        }
    }
}

/// Walks over the fields.
#[derive(Default)]
pub(super) struct HScan {
    key: Word,
    cursor: u64,
    pattern: Option<Word>,
    count: Option<u64>,
    no_values: bool,
}

impl KeyCommand for HScan {
    const SPEC: Spec = Spec::read("hscan", Group::Hash, "Walks over the fields of a hash.")
        .since("2.8.0")
        .complexity("O(log N + COUNT)")
        .reply(
            "Array of two: the cursor of the next call, 0 at the end; and an array of names and \
             values, or of names with NOVALUES.",
        )
        .notes("A hash of at most 128 fields is given whole by one call.");
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the hash", |c, word| c.key = word),
        Arg::parsed(
            "cursor",
            "0, or what the last call said",
            Type::Integer,
            |c, text, _| {
                c.cursor = parse_u64(text).ok_or(Reject::invalid_cursor())?;
                Ok(())
            },
        ),
        Arg::pattern("pattern", "only names that match", |c: &mut Self, word| {
            c.pattern = Some(word);
        })
        .after("MATCH")
        .optional(),
        Arg::parsed(
            "count",
            "fields to visit, roughly",
            Type::Integer,
            |c: &mut Self, text, _| {
                let count = parse_i64(text).ok_or(Reject::not_an_integer())?;
                c.count = Some(
                    u64::try_from(count)
                        .ok()
                        .filter(|count| *count > 0)
                        .ok_or(Reject::syntax())?,
                );
                Ok(())
            },
        )
        .after("COUNT")
        .optional(),
        Arg::flag("NOVALUES", "only the names", |c| c.no_values = true),
    ];

    fn needs(&self) -> Needs {
        Needs::AllFields
    }

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        let pattern = self.pattern.map(|word| args.word(word));
        let hash = txn.hash(&key)?;
        let (fields, next) = self.page(hash);
        let fields: Vec<&Field> = fields
            .into_iter()
            .filter(|field| pattern.is_none_or(|it| glob_matches(it, field.name(), false)))
            .collect();
        reply.array(2);
        let mut buffer = itoa::Buffer::new();
        reply.bulk(buffer.format(next).as_bytes());
        reply.array(fields.len() * if self.no_values { 1 } else { 2 });
        for field in fields {
            reply.bulk(field.name());
            if !self.no_values {
                reply_value(&field.value, reply);
            }
        }
        Ok(())
    }
}

impl HScan {
    /// The visited fields and the next cursor. All fields of one hash come together, so that a
    /// cursor never stands between them.
    fn page<'h>(&self, hash: Option<&'h Hash>) -> (Vec<&'h Field>, u32) {
        let (Some(hash), Ok(from)) = (hash, u32::try_from(self.cursor)) else {
            return (Vec::new(), 0);
        };
        let count = match hash.len() {
            0..=SCAN_WHOLE_FIELDS_MAX => usize::MAX,
            _ => self
                .count
                .unwrap_or(SCAN_COUNT_DEFAULT)
                .try_into()
                .unwrap_or(usize::MAX),
        };
        let mut fields: Vec<&Field> = Vec::new();
        for field in hash.iter_from(from) {
            if fields.len() >= count && fields.last().is_none_or(|last| last.hash != field.hash) {
                return (fields, field.hash);
            }
            fields.push(field);
        }
        (fields, 0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::command::transcript::Transcript;

    /// Cursor and names of a HSCAN … NOVALUES.
    fn scanned(t: &mut Transcript, line: &str) -> (u64, Vec<String>) {
        let reply = t.run(line);
        let texts: Vec<&str> = reply.split('"').skip(1).step_by(2).collect();
        let cursor = texts[0].parse().expect("a cursor");
        (
            cursor,
            texts[1..].iter().map(|text| (*text).to_owned()).collect(),
        )
    }

    fn fill(t: &mut Transcript, fields: usize) {
        for number in 0..fields {
            t.check(&format!("HSET h f{number} {number}"), "(integer) 1");
        }
    }

    #[test]
    fn a_small_hash_is_scanned_at_once() {
        Transcript::in_both_modes(|t| {
            t.check("HSET h a 1", "(integer) 1");
            t.check("HSCAN h 0", "1) \"0\"\n2) 1) \"a\"\n   2) \"1\"");
            t.check("HSCAN h 0 NOVALUES COUNT 1", "1) \"0\"\n2) 1) \"a\"");
            t.check("HSCAN h 0 MATCH b* COUNT 5", "1) \"0\"\n2) (empty array)");
            t.check("HSCAN none 0", "1) \"0\"\n2) (empty array)");
            t.check("HSCAN h 18446744073709551615", "1) \"0\"\n2) (empty array)");
            t.check("HSCAN h x", "(error) ERR invalid cursor");
            t.check("HSCAN h 0 COUNT 0", "(error) ERR syntax error");
            t.check(
                "HSCAN h 0 COUNT x",
                "(error) ERR value is not an integer or out of range",
            );
            t.check("HSCAN h 0 TYPE hash", "(error) ERR syntax error");
        });
        let mut t = Transcript::new();
        fill(&mut t, 128);
        let (cursor, names) = scanned(&mut t, "HSCAN h 0 NOVALUES");
        assert_eq!((cursor, names.len()), (0, 128));
    }

    #[test]
    fn a_field_that_stays_is_scanned_once_whatever_happens_in_between() {
        let mut t = Transcript::new();
        fill(&mut t, 500);
        let (mut cursor, mut seen, mut calls) = (0, Vec::new(), 0);
        loop {
            let (next, names) = scanned(&mut t, &format!("HSCAN h {cursor} NOVALUES COUNT 7"));
            assert!(names.len() >= 7 || next == 0);
            seen.extend(names);
            // Fields below 100 stay.
            t.run(&format!("HDEL h f{} f{}", 100 + calls * 2, 499 - calls));
            t.run(&format!("HSET h new{calls} 1"));
            if calls % 10 == 0 {
                t.recover();
            }
            (cursor, calls) = (next, calls + 1);
            if cursor == 0 {
                break;
            }
        }
        let distinct: BTreeSet<&String> = seen.iter().collect();
        assert_eq!(distinct.len(), seen.len(), "given twice");
        assert!((0..100).all(|number| distinct.contains(&format!("f{number}"))));
    }

    #[test]
    fn random_fields_are_of_the_hash_and_as_many_as_asked_for() {
        let mut t = Transcript::new();
        t.check("HRANDFIELD h", "(nil)");
        t.check("HRANDFIELD h 3", "(empty array)");
        t.check("HSET h a 1", "(integer) 1");
        t.check("HRANDFIELD h", "\"a\"");
        t.check("HRANDFIELD h 0", "(empty array)");
        t.check("HRANDFIELD h 5 WITHVALUES", "1) \"a\"\n2) \"1\"");
        t.check("HRANDFIELD h -2", "1) \"a\"\n2) \"a\"");
        let mut t = t.resp3();
        t.check("HRANDFIELD h 5 WITHVALUES", "1) 1) \"a\"\n   2) \"1\"");
        let pair = "1) \"a\"\n   2) \"1\"";
        t.check(
            "HRANDFIELD h -2 WITHVALUES",
            &format!("1) {pair}\n2) {pair}"),
        );
        t.check(
            "HRANDFIELD h x",
            "(error) ERR value is not an integer or out of range",
        );
        t.check("HRANDFIELD h 1 VALUES", "(error) ERR syntax error");
        t.check("HRANDFIELD h 1 WITHVALUES x", "(error) ERR syntax error");
        let outside = "(error) ERR value is out of range, value must between \
                       -9223372036854775807 and 9223372036854775807";
        t.check("HRANDFIELD h -9223372036854775808", outside);
        t.check(
            "HRANDFIELD h -9223372036854775807 WITHVALUES",
            "(error) ERR value is out of range",
        );
        let long = "(error) ERR count is out of range: the reply is too long";
        t.check("HRANDFIELD h -9223372036854775807", long);
    }

    #[test]
    fn random_fields_are_different_with_a_count_and_all_come_up() {
        let mut t = Transcript::new();
        fill(&mut t, 300);
        let mut met = BTreeSet::new();
        for count in [1, 2, 7, 150, 299, 300, 301] {
            for _ in 0..20 {
                let reply = t.run(&format!("HRANDFIELD h {count}"));
                let names: Vec<String> = reply
                    .split('"')
                    .skip(1)
                    .step_by(2)
                    .map(str::to_owned)
                    .collect();
                let distinct: BTreeSet<String> = names.iter().cloned().collect();
                assert_eq!(
                    (names.len(), distinct.len()),
                    (count.min(300), count.min(300))
                );
                if count == 7 {
                    met.extend(distinct);
                }
            }
        }
        assert!(
            met.len() > 80,
            "140 draws of 300 meet about 112, not {}",
            met.len()
        );
        let reply = t.run("HRANDFIELD h -5000");
        let names: Vec<&str> = reply.split('"').skip(1).step_by(2).collect();
        assert_eq!(names.len(), 5000);
        assert_eq!(
            names.iter().collect::<BTreeSet<_>>().len(),
            300,
            "every field comes up"
        );
        assert!(names[..10].windows(2).any(|pair| pair[0] != pair[1]));
    }
}
