//! Walking through the keyspace: KEYS, SCAN, RANDOMKEY.
//!
//! Always true: a cursor is a place in the order of slot and hash, so it stays valid whatever
//! happens to keys, shards or the process; a key that exists during a whole SCAN is returned.

use crate::command::KeyCommand;
use crate::command::spec::{Across, Arg, Group, Keys, Spec, Type, Word, flag};
use crate::glob::glob_matches;
use crate::keyspace::Txn;
use crate::limits::SLOTS;
use crate::number::{parse_i64, parse_u64};
use crate::reply::{Reject, Reply};
use crate::resp::decode::Args;

/// Keys that SCAN looks at if it is not told, as in Redis.
const SCAN_COUNT_DEFAULT: usize = 10;

/// The place that a cursor names: slot and hash. Slots above the last are the end.
fn place_of(cursor: u64) -> (u16, u32) {
    let slot = u16::try_from(cursor >> 32).unwrap_or(SLOTS);
    (slot.min(SLOTS), cursor as u32)
}

/// The cursor of a place; the end is 0, and so is the beginning.
fn cursor_of((slot, hash32): (u16, u32)) -> u64 {
    if slot >= SLOTS {
        return 0;
    }
    u64::from(slot) << 32 | u64::from(hash32)
}

/// All keys that match.
#[derive(Default)]
pub struct KeysMatching {
    pattern: Word,
}

impl KeyCommand for KeysMatching {
    const SPEC: Spec = Spec::read(
        "keys",
        Group::Generic,
        "Returns the keys that match a pattern.",
    )
    .complexity("O(N) for N keys of the database; nothing else runs meanwhile")
    .with(flag::DANGEROUS)
    .keys_by(Keys::All)
    .across(Across::Concat)
    .reply("Array of keys.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::pattern(
        "pattern",
        "a glob pattern: * ? [a-z] [^a] and \\ before a byte that stands for itself",
        |c, word| c.pattern = word,
    )];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let pattern = args.word(self.pattern);
        let keys = reply.deferred_array();
        let mut count = 0;
        txn.scan((0, 0), usize::MAX, |key, _| {
            if glob_matches(pattern, key, false) {
                reply.bulk(key);
                count += 1;
            }
        });
        reply.finish(keys, count);
        Ok(())
    }
}

/// Some keys, and where to go on.
#[derive(Default)]
pub struct Scan {
    from: (u16, u32),
    pattern: Option<Word>,
    count: Option<usize>,
    of_type: Option<Word>,
}

impl KeyCommand for Scan {
    const SPEC: Spec = Spec::read(
        "scan",
        Group::Generic,
        "Walks through the keys of the database, some at a time.",
    )
    .since("2.8.0")
    .complexity("O(N) for N keys that are looked at")
    .keys_by(Keys::Cursor(1))
    .reply("Array: the cursor to go on from, 0 at the end; and an array of keys.")
    .notes(
        "A cursor is a slot and a hash. It stays valid for ever, over restarts and another number \
         of shards. Keys of one hash are returned together, so a reply may be longer than COUNT.",
    );
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::parsed(
            "cursor",
            "0, or what the last call returned",
            Type::Integer,
            |c: &mut Scan, text, _| {
                c.from = place_of(parse_u64(text).ok_or(Reject::invalid_cursor())?);
                Ok(())
            },
        ),
        Arg::pattern("pattern", "only keys that match", |c: &mut Scan, word| {
            c.pattern = Some(word);
        })
        .after("MATCH")
        .optional(),
        Arg::parsed(
            "count",
            "how many keys are looked at; 10 if not given",
            Type::Integer,
            |c: &mut Scan, text, _| {
                let count = parse_i64(text).ok_or(Reject::not_an_integer())?;
                if count < 1 {
                    return Err(Reject::syntax());
                }
                c.count = Some(usize::try_from(count).unwrap_or(usize::MAX));
                Ok(())
            },
        )
        .after("COUNT")
        .optional(),
        Arg::text("type", "only keys of this type", |c: &mut Scan, word| {
            c.of_type = Some(word);
        })
        .after("TYPE")
        .optional(),
    ];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let pattern = self.pattern.map(|word| args.word(word));
        let of_type = self.of_type.map(|word| args.word(word));
        let budget = self.count.unwrap_or(SCAN_COUNT_DEFAULT);
        let mut encoded = Vec::new();
        let mut keys = Reply::new(&mut encoded, reply.protocol());
        let mut count = 0;
        let next = txn.scan(self.from, budget, |key, kind| {
            let name = super::type_name(kind).as_bytes();
            let typed = of_type.is_none_or(|of_type| of_type.eq_ignore_ascii_case(name));
            if typed && pattern.is_none_or(|pattern| glob_matches(pattern, key, false)) {
                keys.bulk(key);
                count += 1;
            }
        });
        reply.array(2);
        let mut buffer = itoa::Buffer::new();
        reply.bulk(buffer.format(cursor_of(next)).as_bytes());
        reply.array(count);
        reply.raw(&encoded);
        Ok(())
    }
}

/// A key by chance.
#[derive(Default)]
pub struct RandomKey;

impl KeyCommand for RandomKey {
    const SPEC: Spec = Spec::read(
        "randomkey",
        Group::Generic,
        "Returns a random key of the database.",
    )
    .keys_by(Keys::All)
    .across(Across::AnyOne)
    .reply("Bulk string: the key; null if there is none.");
    const GRAMMAR: &'static [Arg<Self>] = &[];

    fn run(&self, txn: &mut Txn<'_>, _: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        reply.bulk_or_null(txn.random_key().as_deref());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::tests::{in_both_modes, put_fields};
    use super::*;
    use crate::command::transcript::Transcript;
    use crate::command::{Run, table};
    use crate::keyspace::owned::{Keyspace, Origin};
    use crate::keyspace::tokens::TokenSource;
    use crate::keyspace::txn::Owners;
    use crate::keyspace::{Databases, Value};
    use crate::resp::Protocol;
    use crate::resp::decode::OwnedArgs;
    use crate::resp::value::Value as Parsed;

    /// Cursor and keys of a SCAN's reply.
    fn read_scan(reply: &[u8]) -> (u64, Vec<String>) {
        let text = |value: &Parsed| match value {
            Parsed::Bulk(bytes) => String::from_utf8(bytes.clone()).expect("text"),
            other => panic!("a bulk string, not {other:?}"),
        };
        let Ok(Some((Parsed::Array(members), _))) = Parsed::parse(reply) else {
            panic!("an array");
        };
        let [cursor, Parsed::Array(keys)] = &members[..] else {
            panic!("a cursor and keys");
        };
        let cursor = text(cursor).parse().expect("a number");
        (cursor, keys.iter().map(text).collect())
    }

    fn run_on(shard: &mut Keyspace, words: &[&str]) -> Vec<u8> {
        let args = OwnedArgs::from_slices(words.iter().map(|word| word.as_bytes()));
        let row = table().find(args.args()).expect("a command");
        let Run::Keys(run) = table().row(row).run else {
            panic!("a command on keys");
        };
        let mut out = Vec::new();
        let mut txn = Txn::new(Owners::One(shard), 0);
        let mut reply = Reply::new(&mut out, Protocol::Resp2);
        run(&mut txn, args.args(), &mut reply).expect("a reply");
        txn.commit();
        out
    }

    fn shards(count: u16) -> Vec<Keyspace> {
        let tokens = TokenSource::above(0);
        let width = SLOTS / count;
        let slots = |shard| {
            (shard * width)..if shard + 1 == count {
                SLOTS
            } else {
                (shard + 1) * width
            }
        };
        let shard = |shard| {
            let mut keyspace = Keyspace::new(Origin {
                slots: slots(shard),
                seed: 1,
                databases: Databases::new(16),
                tokens: tokens.clone(),
                random_seed: 1,
            });
            keyspace.set_now_ms(1_700_000_000_000);
            keyspace
        };
        (0..count).map(shard).collect()
    }

    fn owner(shards: &mut [Keyspace], slot: u16) -> &mut Keyspace {
        let owner = shards
            .iter_mut()
            .find(|shard| shard.slots().contains(&slot));
        owner.expect("every slot has an owner")
    }

    fn fill(shards: &mut [Keyspace], keys: usize) -> BTreeSet<String> {
        let names: BTreeSet<String> = (0..keys).map(|number| format!("key:{number}")).collect();
        for name in &names {
            let slot = shards[0].key(name.as_bytes()).slot;
            let mut txn = Txn::new(Owners::One(owner(shards, slot)), 0);
            let key = txn.key(name.as_bytes());
            txn.put(&key, Value::Counter(1), 0);
            txn.commit();
        }
        names
    }

    /// Follows the cursor to the shard that it names, as the router does.
    fn scan_all(shards: &mut [Keyspace], count: &str) -> Vec<String> {
        let mut cursor = 0;
        let mut found = Vec::new();
        loop {
            let slot = ((cursor >> 32) as u16).min(SLOTS - 1);
            let words = ["SCAN", &cursor.to_string(), "COUNT", count];
            let (next, keys) = read_scan(&run_on(owner(shards, slot), &words));
            found.extend(keys);
            if next == 0 {
                return found;
            }
            assert!(next > cursor, "{next} is behind {cursor}");
            cursor = next;
        }
    }

    #[test]
    fn a_scan_goes_from_shard_to_shard_and_returns_each_key_once() {
        for (count, keys) in [(1, 0), (1, 300), (2, 300), (3, 7), (16, 0), (16, 300)] {
            let mut shards = shards(count);
            let names = fill(&mut shards, keys);
            for count in ["1", "10", "1000"] {
                let found = scan_all(&mut shards, count);
                assert_eq!(found.len(), names.len());
                assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), names);
            }
        }
    }

    #[test]
    fn a_cursor_is_valid_with_another_number_of_shards() {
        let mut four = shards(4);
        let names = fill(&mut four, 200);
        let mut three = shards(3);
        fill(&mut three, 200);
        let (mut cursor, mut found, mut turn) = (0u64, BTreeSet::new(), 0);
        loop {
            let shards = if turn % 2 == 0 { &mut four } else { &mut three };
            let slot = ((cursor >> 32) as u16).min(SLOTS - 1);
            let reply = run_on(owner(shards, slot), &["SCAN", &cursor.to_string()]);
            let (next, keys) = read_scan(&reply);
            found.extend(keys);
            turn += 1;
            if next == 0 {
                break;
            }
            cursor = next;
        }
        assert_eq!(found, names);
    }

    #[test]
    fn places_and_cursors_fit_together() {
        assert_eq!(place_of(0), (0, 0));
        for place in [(0, 1), (1, 0), (SLOTS - 1, u32::MAX), (77, 1 << 31)] {
            assert_eq!(place_of(cursor_of(place)), place);
        }
        assert_eq!(cursor_of((SLOTS, 0)), 0);
        assert_eq!(place_of(u64::MAX).0, SLOTS);
        assert_eq!(place_of(u64::from(SLOTS) << 32).0, SLOTS);
        assert_eq!(place_of(65_536 << 32).0, SLOTS);
    }

    #[test]
    fn scan_filters_by_pattern_and_type() {
        in_both_modes(|t| {
            t.check("SCAN 0", "1) \"0\"\n2) (empty array)");
            t.check("SET a1 1", "OK");
            t.check("SET b1 text", "OK");
            put_fields(t, "a2", &[("f", "1")]);
            let all = "0 COUNT 1000";
            t.check(
                &format!("SCAN {all} MATCH a* TYPE string"),
                "1) \"0\"\n2) 1) \"a1\"",
            );
            t.check(&format!("scan {all} type HASH"), "1) \"0\"\n2) 1) \"a2\"");
            t.check(
                &format!("SCAN {all} TYPE string MATCH b?"),
                "1) \"0\"\n2) 1) \"b1\"",
            );
            for nothing in ["TYPE list", "TYPE foo", "MATCH c*", "MATCH ''"] {
                t.check(
                    &format!("SCAN {all} {nothing}"),
                    "1) \"0\"\n2) (empty array)",
                );
            }
            t.check("SCAN 70364449210368", "1) \"0\"\n2) (empty array)");
            t.check("SCAN 18446744073709551615", "1) \"0\"\n2) (empty array)");
            t.select(5);
            t.check(&format!("SCAN {all}"), "1) \"0\"\n2) (empty array)");
        });
    }

    #[test]
    fn scan_refuses_in_redis_words() {
        let mut t = Transcript::new();
        let cursor = "(error) ERR invalid cursor";
        let syntax = "(error) ERR syntax error";
        let integer = "(error) ERR value is not an integer or out of range";
        for (line, error) in [
            ("SCAN x", cursor),
            ("SCAN x COUNT 0", cursor),
            ("SCAN ' 0'", cursor),
            ("SCAN 18446744073709551616", cursor),
            ("SCAN 0 COUNT 0", syntax),
            ("SCAN 0 COUNT -5", syntax),
            ("SCAN 0 COUNT x", integer),
            ("SCAN 0 COUNT", syntax),
            ("SCAN 0 MATCH", syntax),
            ("SCAN 0 TYPE", syntax),
            ("SCAN 0 foo", syntax),
        ] {
            t.check(line, error);
        }
        t.check(
            "SCAN 0 COUNT 9223372036854775807",
            "1) \"0\"\n2) (empty array)",
        );
    }

    #[test]
    fn keys_that_expired_are_not_seen() {
        in_both_modes(|t| {
            t.check("SET a 1 PX 10", "OK");
            t.check("SET b 1", "OK");
            t.check("KEYS a", "1) \"a\"");
            t.keyspace().set_active_expiry(false);
            t.advance_ms(10);
            t.check("KEYS *", "1) \"b\"");
            t.check("SCAN 0 COUNT 100", "1) \"0\"\n2) 1) \"b\"");
            t.check("RANDOMKEY", "\"b\"");
        });
    }

    #[test]
    fn keys_match_a_pattern_and_a_random_key_is_one_of_them() {
        in_both_modes(|t| {
            t.check("RANDOMKEY", "(nil)");
            t.check("KEYS *", "(empty array)");
            t.check("SET user:1 1", "OK");
            t.check("RANDOMKEY", "\"user:1\"");
            t.check("SET user:2 1", "OK");
            t.check("SET \"with space\\x00\" 1", "OK");
            t.check("KEYS user:[2-9]", "1) \"user:2\"");
            t.check("KEYS with*", "1) \"with space\\x00\"");
            t.check("KEYS user", "(empty array)");
            let mut drawn = BTreeSet::new();
            for _ in 0..100 {
                drawn.insert(t.run("RANDOMKEY"));
            }
            assert_eq!(drawn.len(), 3);
            t.check(
                "KEYS",
                "(error) ERR wrong number of arguments for 'keys' command",
            );
        });
    }
}
