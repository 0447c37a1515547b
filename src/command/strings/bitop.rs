//! BITOP: bitwise operations over whole strings into another one.

use crate::command::KeyCommand;
use crate::command::spec::{Access, Arg, Group, Spec, Type, Word, Words, flag};
use crate::keyspace::{Txn, Value};
use crate::reply::{Reject, Reply};
use crate::resp::decode::Args;

/// What is done with the bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Operation {
    #[default]
    And,
    Or,
    Xor,
    Not,
}

/// Combines strings bit by bit.
#[derive(Default)]
pub struct BitOp {
    operation: Operation,
    destination: Word,
    sources: Words,
}

impl KeyCommand for BitOp {
    const SPEC: Spec = Spec::write(
        "bitop",
        Group::Bitmap,
        "Combines strings bit by bit and sets the result at another key.",
    )
    .since("2.6.0")
    .complexity("O(N) where N is the length of all strings together")
    .with(flag::DENYOOM)
    .keys(2, -1, 1)
    .access(Access::Overwrite)
    .access_rest(Access::Read)
    .reply("Integer: the length of the result, in bytes: that of the longest string.")
    .notes("Shorter strings count as filled with zero bytes. An empty result deletes the key.");
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::parsed(
            "operation",
            "AND, OR, XOR or NOT",
            Type::OneOf,
            |c, text, _| {
                let operations = [
                    ("AND", Operation::And),
                    ("OR", Operation::Or),
                    ("XOR", Operation::Xor),
                    ("NOT", Operation::Not),
                ];
                let named = operations
                    .iter()
                    .find(|(name, _)| text.eq_ignore_ascii_case(name.as_bytes()));
                c.operation = named.ok_or(Reject::syntax())?.1;
                Ok(())
            },
        ),
        Arg::key("destkey", "where the result is set", |c, word| {
            c.destination = word
        }),
        Arg::rest(
            "key",
            "the strings",
            &[Arg::key("key", "a string", |_, _| {})],
            |c, words| c.sources = words,
        ),
    ];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        if self.operation == Operation::Not && self.sources.groups() != 1 {
            return Err(Reject::fixed(
                "ERR BITOP NOT must be called with a single source key.",
            ));
        }
        let mut result: Option<Vec<u8>> = None;
        for source in self.sources.each(args, 0) {
            let source = txn.key(source);
            match (txn.string(&source)?, &mut result) {
                (text, None) => result = Some(text.map_or(Vec::new(), |text| text.to_vec())),
                (None, Some(result)) => self.combine(result, b""),
                (Some(text), Some(result)) => text.with(|bytes| self.combine(result, bytes)),
            }
        }
        let mut result = result.unwrap_or_default();
        if self.operation == Operation::Not {
            result.iter_mut().for_each(|byte| *byte = !*byte);
        }
        let destination = txn.key(args.word(self.destination));
        reply.count(result.len());
        if result.is_empty() {
            txn.delete(&destination);
        } else {
            txn.put(&destination, Value::from_shared(result.into()), 0);
        }
        Ok(())
    }
}

impl BitOp {
    /// Combines a further string into the result, which grows to its length.
    fn combine(&self, result: &mut Vec<u8>, bytes: &[u8]) {
        if result.len() < bytes.len() {
            result.resize(bytes.len(), 0);
        }
        let (shared, behind) = result.split_at_mut(bytes.len());
        let pairs = shared.iter_mut().zip(bytes);
        match self.operation {
            Operation::And => {
                pairs.for_each(|(byte, other)| *byte &= other);
                behind.fill(0);
            }
            Operation::Or => pairs.for_each(|(byte, other)| *byte |= other),
            Operation::Xor => pairs.for_each(|(byte, other)| *byte ^= other),
            Operation::Not => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::command::transcript::Transcript;

    #[test]
    fn strings_are_combined() {
        Transcript::in_both_modes(|t| {
            t.check("SET a \"\\xff\\x0f\\xaa\"", "OK");
            t.check("SET b \"\\xf0\\xff\"", "OK");
            t.check("BITOP AND d a b", "(integer) 3");
            t.check("GET d", "\"\\xf0\\x0f\\x00\"");
            t.check("BITOP or d b a missing", "(integer) 3");
            t.check("GET d", "\"\\xff\\xff\\xaa\"");
            t.check("BITOP XOR d a b a", "(integer) 3");
            t.check("GET d", "\"\\xf0\\xff\\x00\"");
            t.check("BITOP NOT d b", "(integer) 2");
            t.check("GET d", "\"\\x0f\\x00\"");
            t.check("BITOP AND d a missing", "(integer) 3");
            t.check("GET d", "\"\\x00\\x00\\x00\"");
            t.check("BITOP NOT b b", "(integer) 2");
            t.check("GET b", "\"\\x0f\\x00\"");
            t.check("SET n 1 EX 10", "OK");
            t.check("BITOP OR n n n", "(integer) 1");
            t.check("INCR n", "(integer) 2");
            t.advance_ms(10_000);
            t.check("GET n", "\"2\"");
            t.check("BITOP OR d missing none", "(integer) 0");
            t.check("GET d", "(nil)");
        });
    }

    #[test]
    fn bitop_refuses_what_redis_refuses() {
        let mut t = Transcript::new();
        t.make_hash("h");
        t.check("BITOP FOO d a", "(error) ERR syntax error");
        t.check(
            "BITOP NOT d a b",
            "(error) ERR BITOP NOT must be called with a single source key.",
        );
        t.check(
            "BITOP AND d a h",
            "(error) WRONGTYPE Operation against a key holding the wrong kind of value",
        );
        t.check("BITOP AND h missing", "(integer) 0");
        t.check("GET h", "(nil)");
    }
}
