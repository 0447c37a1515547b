//! Parts of a string: APPEND, SETRANGE, GETRANGE.

use std::ops::Range;

use crate::command::KeyCommand;
use crate::command::spec::{Access, Arg, Group, Spec, Word, flag};
use crate::keyspace::Txn;
use crate::reply::{Reject, Reply};
use crate::resp::decode::Args;

/// The bytes from `first` to `last`, both included and counted from the end where negative, of a
/// string of `len` bytes. Never outside of it; empty as Redis has it empty.
pub fn byte_range(first: i64, last: i64, len: usize) -> Range<usize> {
    if first < 0 && last < 0 && first > last {
        return 0..0;
    }
    let len = len as i64;
    let from_end = |index: i64| {
        if index < 0 {
            (len + index).max(0)
        } else {
            index
        }
    };
    let first = from_end(first);
    let last = from_end(last).min(len - 1);
    if first > last {
        return 0..0;
    }
    first as usize..last as usize + 1
}

/// Writes behind the end of a string.
#[derive(Default)]
pub struct Append {
    key: Word,
    value: Word,
}

impl KeyCommand for Append {
    const SPEC: Spec = Spec::write(
        "append",
        Group::String,
        "Writes behind the end of the string at a key; a missing key counts as empty.",
    )
    .since("2.0.0")
    .with(flag::FAST | flag::DENYOOM)
    .reply("Integer: the length afterwards, in bytes.");
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the key", |c, word| c.key = word),
        Arg::text("value", "what is written", |c, word| c.value = word),
    ];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        let len = txn.string(&key)?.map_or(0, |text| text.len());
        reply.count(txn.write_part(&key, len, args.word(self.value))?);
        Ok(())
    }
}

/// Overwrites a part of a string.
#[derive(Default)]
pub struct SetRange {
    key: Word,
    offset: i64,
    value: Word,
}

impl KeyCommand for SetRange {
    const SPEC: Spec = Spec::write(
        "setrange",
        Group::String,
        "Overwrites the string at a key from an offset on; a gap is filled with zero bytes.",
    )
    .since("2.2.0")
    .with(flag::DENYOOM)
    .access(Access::Update)
    .reply("Integer: the length afterwards, in bytes.")
    .notes("An empty value changes nothing and makes no key.");
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the key", |c, word| c.key = word),
        Arg::integer(
            "offset",
            "where, in bytes from the beginning",
            |c, offset| {
                c.offset = offset;
            },
        ),
        Arg::text("value", "what is written", |c, word| c.value = word),
    ];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let key = txn.key(args.word(self.key));
        let offset = usize::try_from(self.offset).map_err(|_| Reject::offset_out_of_range())?;
        let value = args.word(self.value);
        let len = if value.is_empty() {
            txn.string(&key)?.map_or(0, |text| text.len())
        } else {
            txn.write_part(&key, offset, value)?
        };
        reply.count(len);
        Ok(())
    }
}

/// Reads a part of a string.
#[derive(Default)]
pub struct GetRange {
    key: Word,
    first: i64,
    last: i64,
}

impl KeyCommand for GetRange {
    const SPEC: Spec = Spec::read("getrange", Group::String, "Returns a part of a string.")
        .since("2.4.0")
        .complexity("O(N) where N is the length of the part")
        .reply("Bulk string: the part; empty if nothing is there.");
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the key", |c, word| c.key = word),
        Arg::integer("start", "first byte; negative: from the end", |c, first| {
            c.first = first
        }),
        Arg::integer("end", "last byte; negative: from the end", |c, last| {
            c.last = last
        }),
    ];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        reply_part(txn, args.word(self.key), (self.first, self.last), reply)
    }
}

/// GETRANGE's old name.
#[derive(Default)]
pub struct SubStr {
    key: Word,
    first: i64,
    last: i64,
}

impl KeyCommand for SubStr {
    const SPEC: Spec = Spec::read("substr", Group::String, "Returns a part of a string.")
        .complexity("O(N) where N is the length of the part")
        .reply("Bulk string: the part; empty if nothing is there.")
        .notes("The old name of GETRANGE.");
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the key", |c, word| c.key = word),
        Arg::integer("start", "first byte; negative: from the end", |c, first| {
            c.first = first
        }),
        Arg::integer("end", "last byte; negative: from the end", |c, last| {
            c.last = last
        }),
    ];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        reply_part(txn, args.word(self.key), (self.first, self.last), reply)
    }
}

fn reply_part(
    txn: &mut Txn<'_>,
    key: &[u8],
    (first, last): (i64, i64),
    reply: &mut Reply<'_>,
) -> Result<(), Reject> {
    let key = txn.key(key);
    match txn.string(&key)? {
        Some(text) => {
            text.with(|bytes| reply.bulk(&bytes[byte_range(first, last, bytes.len())]));
        }
        None => reply.bulk(b""),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::command::transcript::Transcript;

    #[test]
    fn parts_are_appended_overwritten_and_read() {
        Transcript::in_both_modes(|t| {
            t.check("APPEND a 1", "(integer) 1");
            t.check("APPEND a 2", "(integer) 2");
            t.check("INCR a", "(integer) 13");
            t.check("APPEND a x", "(integer) 3");
            t.check("APPEND a \"\"", "(integer) 3");
            t.check("SETRANGE a 5 yz", "(integer) 7");
            t.check("GET a", "\"13x\\x00\\x00yz\"");
            t.check("SETRANGE a 2 456", "(integer) 7");
            t.check("GETRANGE a 0 -1", "\"13456yz\"");
            t.check("GETRANGE a -3 -2", "\"6y\"");
            t.check("GETRANGE a -2 -3", "\"\"");
            t.check("GETRANGE a 5 100", "\"yz\"");
            t.check("GETRANGE a 7 7", "\"\"");
            t.check("GETRANGE a -100 0", "\"1\"");
            t.check("GETRANGE a -100 -90", "\"1\"");
            t.check("SUBSTR a 1 2", "\"34\"");
            t.check("GETRANGE missing 0 -1", "\"\"");
            t.check("SETRANGE missing 5 \"\"", "(integer) 0");
            t.check("GET missing", "(nil)");
            t.check("SETRANGE a 500 \"\"", "(integer) 7");
            t.check("APPEND missing \"\"", "(integer) 0");
            t.check("GET missing", "\"\"");
        });
    }

    #[test]
    fn a_part_write_keeps_the_deadline_and_is_logged_as_a_part() {
        let mut t = Transcript::new();
        t.check("SET a begin EX 10", "OK");
        t.check("SETRANGE a 20000 x", "(integer) 20001");
        t.check("SETRANGE a 10000 yy", "(integer) 20001");
        assert!(t.last_batch_bytes() < 200, "{} bytes", t.last_batch_bytes());
        t.recover();
        t.check("GETRANGE a 9999 10002", "\"\\x00yy\\x00\"");
        t.advance_ms(10_000);
        t.check("STRLEN a", "(integer) 0");
    }

    #[test]
    fn offsets_have_limits() {
        let mut t = Transcript::new();
        t.check("SETRANGE a -1 x", "(error) ERR offset is out of range");
        t.check(
            "SETRANGE a x x",
            "(error) ERR value is not an integer or out of range",
        );
        t.check(
            "SETRANGE a 536870912 x",
            "(error) ERR string exceeds maximum allowed size (proto-max-bulk-len)",
        );
        t.check(
            "SETRANGE a 9223372036854775807 x",
            "(error) ERR string exceeds maximum allowed size (proto-max-bulk-len)",
        );
        t.check("GET a", "(nil)");
        t.make_hash("h");
        let wrong = "(error) WRONGTYPE Operation against a key holding the wrong kind of value";
        t.check("APPEND h x", wrong);
        t.check("SETRANGE h 0 x", wrong);
        t.check("SETRANGE h 0 \"\"", wrong);
        t.check("GETRANGE h 0 1", wrong);
    }

    #[test]
    fn a_state_cell_becomes_an_ordinary_string_when_it_is_written() {
        Transcript::in_both_modes(|t| {
            t.make_cell("a", "started");
            t.check("GETRANGE a 0 2", "\"sta\"");
            t.check("STRLEN a", "(integer) 7");
            assert!(t.is_cell("a"));
            t.check("APPEND a !", "(integer) 8");
            assert!(!t.is_cell("a"));
            t.check("GET a", "\"started!\"");
            t.make_cell("b", "41");
            t.check("INCR b", "(integer) 42");
            assert!(!t.is_cell("b"));
            t.make_cell("c", "x");
            t.check("SETBIT c 1 1", "(integer) 1");
            assert!(!t.is_cell("c"));
        });
    }
}
