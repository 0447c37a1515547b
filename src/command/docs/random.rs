//! Random calls of a command, made from its grammar: for the simulator and property tests.

use rand::{Rng, RngExt};

use crate::command::spec::{ArgDoc, Group, Keys, Type, flag};
use crate::command::{Row, table};

/// Groups of a repeated argument, at most.
const GROUPS_MAX: u32 = 3;

/// A call of `row`: its name and arguments that its grammar allows, most of the time. Keys are
/// drawn from `keys`, which must not be empty; times lie around `now_ms`.
pub fn random_call(row: &Row, keys: &[&[u8]], now_ms: u64, rng: &mut impl Rng) -> Vec<Vec<u8>> {
    let name = row.spec.name.split('|');
    let mut call = Call {
        words: name.map(|word| word.as_bytes().to_vec()).collect(),
        keys,
        now_ms,
    };
    call.arguments(&(row.docs)(), rng);
    if row.spec.group == Group::Once {
        guard_a_write(&mut call, rng);
    }
    call.words
}

/// Gives ONCE a write of its key in place of random words.
fn guard_a_write(call: &mut Call<'_>, rng: &mut impl Rng) {
    // ONCE key id EX seconds command ...
    const COMMAND: usize = 5;
    let key = call.words[1].clone();
    let writes_it = |row: &&Row| {
        let one = matches!(
            row.spec.keys,
            Keys::Range {
                first: 1,
                last: 1,
                ..
            }
        );
        one && row.has(flag::WRITE) && row.spec.group != Group::Once
    };
    let writes: Vec<&Row> = table().rows().iter().filter(writes_it).collect();
    let write = writes[rng.random_range(0..writes.len())];
    call.words.truncate(COMMAND);
    let guarded = random_call(write, &[&key], call.now_ms, rng);
    call.words.extend(guarded);
}

struct Call<'a> {
    words: Vec<Vec<u8>>,
    keys: &'a [&'a [u8]],
    now_ms: u64,
}

impl Call<'_> {
    fn arguments(&mut self, docs: &[ArgDoc], rng: &mut impl Rng) {
        for doc in docs {
            if !doc.optional || rng.random_range(0..3) == 0 {
                self.argument(doc, rng);
            }
        }
    }

    fn argument(&mut self, doc: &ArgDoc, rng: &mut impl Rng) {
        if let Some(token) = doc.token {
            self.words.push(token.as_bytes().to_vec());
        }
        let groups = match doc.multiple {
            true => rng.random_range(1..=GROUPS_MAX),
            false => 1,
        };
        if doc.counted {
            self.words.push(groups.to_string().into_bytes());
        }
        for _ in 0..groups {
            match doc.kind {
                Type::Token => {}
                Type::OneOf => {
                    let chosen = rng.random_range(0..doc.parts.len().max(1));
                    if let Some(part) = doc.parts.get(chosen) {
                        self.argument(part, rng);
                    }
                }
                Type::Block if !doc.parts.is_empty() => self.arguments(&doc.parts, rng),
                kind => {
                    let value = self.value(kind, rng);
                    self.words.push(value);
                }
            }
        }
    }

    fn value(&self, kind: Type, rng: &mut impl Rng) -> Vec<u8> {
        match kind {
            Type::Key => self.keys[rng.random_range(0..self.keys.len())].to_vec(),
            Type::Integer => integer(rng).to_string().into_bytes(),
            Type::Double => {
                let texts = ["0", "1.5", "-2.25", "3e2", "10"];
                texts[rng.random_range(0..texts.len())].into()
            }
            Type::UnixTime => {
                let offset_ms: i64 = rng.random_range(-2_000..20_000);
                let at_ms = self.now_ms.saturating_add_signed(offset_ms);
                let at = if rng.random() { at_ms } else { at_ms / 1000 };
                at.to_string().into_bytes()
            }
            Type::Pattern => {
                let patterns = ["*", "k*", "?", "[a-k]*", "nothing"];
                patterns[rng.random_range(0..patterns.len())].into()
            }
            _ => text(rng),
        }
    }
}

/// Mostly small; now and then an extreme.
fn integer(rng: &mut impl Rng) -> i64 {
    match rng.random_range(0..20) {
        0 => i64::MAX,
        1 => i64::MIN,
        2 => -1,
        3 => 0,
        4..8 => rng.random_range(1_000..100_000),
        _ => rng.random_range(1..100),
    }
}

/// Mostly short; numbers, text and binary.
fn text(rng: &mut impl Rng) -> Vec<u8> {
    match rng.random_range(0..8) {
        0..4 => integer(rng).to_string().into_bytes(),
        4 => Vec::new(),
        5 => vec![0, b'\r', b'\n', 0xff],
        6 => vec![b'x'; rng.random_range(1..200)],
        _ => b"value".to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_xoshiro::Xoshiro256PlusPlus;

    use super::*;
    use crate::resp::decode::OwnedArgs;

    #[test]
    fn a_seed_gives_the_same_calls_and_most_have_the_right_number_of_arguments() {
        let calls = |seed: u64| {
            let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
            let keys: [&[u8]; 2] = [b"a", b"b"];
            let rows = table().rows().iter().filter(|row| !row.container);
            rows.map(|row| random_call(row, &keys, 1_700_000_000_000, &mut rng))
                .collect::<Vec<_>>()
        };
        assert_eq!(calls(1), calls(1));
        let calls = calls(2);
        let found = calls.iter().filter(|call| {
            let args = OwnedArgs::from_slices(call.iter().map(Vec::as_slice));
            table().find(args.args()).is_ok()
        });
        assert!(found.count() * 10 >= calls.len() * 9);
        let once = calls.iter().find(|call| call[0] == b"once");
        let once = once.expect("a call of every command");
        let inner = OwnedArgs::from_slices(once[5..].iter().map(Vec::as_slice));
        let row = table().row(table().find(inner.args()).expect("a known command"));
        assert!(row.has(flag::WRITE) && once[6] == once[1]);
    }
}
