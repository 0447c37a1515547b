//! Counters: strings that are integers (or decimal numbers) and are added to in place.

use crate::command::spec::{Arg, Group, Spec, Word, flag};
use crate::command::{KeyCommand, Row};
use crate::keyspace::Txn;
use crate::reply::{Reject, Reply};
use crate::resp::decode::Args;

/// The family's commands.
pub const COMMANDS: &[Row] = &[Row::keys::<Incr>(), Row::keys::<IncrBy>()];

/// Adds 1.
#[derive(Default)]
struct Incr {
    key: Word,
}

impl KeyCommand for Incr {
    const SPEC: Spec = Spec::write(
        "incr",
        Group::String,
        "Adds 1 to the integer at a key; a missing key counts as 0.",
    )
    .with(flag::FAST | flag::DENYOOM)
    .reply("Integer: the value after the addition.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::key("key", "the counter", |c, word| c.key = word)];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        reply.integer(txn.add(&key, 1)?);
        Ok(())
    }
}

/// Adds an amount.
#[derive(Default)]
struct IncrBy {
    key: Word,
    by: i64,
}

impl KeyCommand for IncrBy {
    const SPEC: Spec = Spec::write(
        "incrby",
        Group::String,
        "Adds an amount to the integer at a key.",
    )
    .with(flag::FAST | flag::DENYOOM)
    .reply("Integer: the value after the addition.");
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the counter", |c, word| c.key = word),
        Arg::integer("increment", "what is added", |c, by| c.by = by),
    ];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        reply.integer(txn.add(&key, self.by)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::command::transcript::Transcript;

    #[test]
    fn a_counter_is_added_to_and_refuses_what_is_not_an_integer() {
        let mut t = Transcript::new();
        t.check("INCR a", "(integer) 1");
        t.check("INCRBY a 41", "(integer) 42");
        t.check(
            "INCRBY a 9223372036854775807",
            "(error) ERR increment or decrement would overflow",
        );
        t.check(
            "INCRBY a x",
            "(error) ERR value is not an integer or out of range",
        );
    }
}
