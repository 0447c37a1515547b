//! Writes that happen at most once: ONCE runs a write and keeps its reply for who repeats it.
//!
//! Always true: the record is written in the same step as the write that it guards, so both are
//! there or none; a call that is refused, or whose command fails with an error, leaves neither.

use bytes::Bytes;

use crate::command::expiry::{Expiry, HasExpiry, OwnExpiryArgs};
use crate::command::spec::{Arg, Group, Spec, Type, Word, Words, flag};
use crate::command::{KeyCommand, Row, Run, table};
use crate::keyspace::{Key, Txn};
use crate::limits::{KEY_BYTES_MAX, ONCE_REPLY_BYTES_MAX};
use crate::reply::{Reject, Reply};
use crate::resp::Protocol;
use crate::resp::decode::Args;
use crate::resp::encode::transcode_to_resp2;

/// The family's commands.
pub const COMMANDS: &[Row] = &[Row::keys::<Once>()];

/// Longest key and id together, in bytes: the record's own key has both, and the key's length.
const NAME_BYTES_MAX: usize = KEY_BYTES_MAX - 2;
/// A record: the command's digest in so many bytes, then its reply in RESP3.
const DIGEST_BYTES: usize = size_of::<u128>();

/// Runs a write at most once.
#[derive(Default)]
struct Once {
    key: Word,
    id: Word,
    expiry: Expiry,
    command: Words,
}

impl HasExpiry for Once {
    fn expiry(&mut self) -> &mut Expiry {
        &mut self.expiry
    }
}

impl KeyCommand for Once {
    const SPEC: Spec = Spec::write(
        "once",
        Group::Once,
        "Runs a write of a key at most once per id, and repeats its reply.",
    )
    .since("tallyman")
    .complexity("That of the command.")
    .with(flag::DENYOOM)
    .reply(
        "Array: 1 and the command's reply the first time; 0 and the same reply on a repeat; -1 and \
         null when the id was used for another command.",
    )
    .notes(
        "The command must be a write whose one key is the key that ONCE names; it does not nest. A \
         repeat has the same command, in any case, and the same arguments, byte by byte; its \
         expiration option changes nothing. A refusal that is a value, as null from SET NX, is \
         kept and repeated; a command that fails with an error is not, and may be tried again. A \
         reply of more than 65536 bytes is an error, and then the command has not run. Records are \
         kept beside the key: they show up in no SCAN and no DBSIZE, survive the deletion of the \
         key, stay behind at RENAME and MOVE, follow their database at SWAPDB and go with FLUSHDB. \
         A record is durable together with the write.",
    );
    const GRAMMAR: &'static [Arg<Self>] = &[
        Arg::key("key", "the one key that the command writes", |c, word| {
            c.key = word;
        }),
        Arg::parsed(
            "id",
            "names the write, as the id of an event",
            Type::Text,
            |c: &mut Once, text, word| {
                c.id = word;
                match text.is_empty() {
                    true => Err(Reject::fixed("ERR ONCE: id must not be empty")),
                    false => Ok(()),
                }
            },
        ),
        Arg::one_of(
            "expiration",
            "how long a repeat is recognized",
            &[OwnExpiryArgs::<Once>::EX, OwnExpiryArgs::<Once>::PX],
        )
        .required(),
        Arg::rest(
            "command",
            "the write with its arguments",
            &[Arg::text("command", "a word of the write", |_, _| {})],
            |c, words| c.command = words,
        ),
    ];

    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let deadline_ms = self.expiry.deadline_ms(txn.now_ms(), "ONCE")?;
        let (key, id) = (txn.key(args.word(self.key)), args.word(self.id));
        if key.bytes.len() + id.len() > NAME_BYTES_MAX {
            let text = format!("ONCE: key and id are longer than {NAME_BYTES_MAX} bytes together");
            return Err(Reject::err(text));
        }
        let call = args.slice(self.command.first as usize..);
        let (row, run) = write_of(&key, call)?;
        let words = call.slice(1..);
        let digest = txn.digest([row.spec.name.as_bytes()].into_iter().chain(words.iter()));
        let digest = digest.to_le_bytes();
        reply.array(2);
        if let Some(record) = txn.record(&key, id) {
            return match record.split_at_checked(DIGEST_BYTES) {
                Some((known, kept)) if known == digest => {
                    reply.integer(0);
                    repeat(kept, reply)
                }
                _ => {
                    reply.integer(-1);
                    reply.null();
                    Ok(())
                }
            };
        }
        let mut record = digest.to_vec();
        run(txn, call, &mut Reply::new(&mut record, Protocol::Resp3))?;
        let kept = &record[DIGEST_BYTES..];
        if kept.len() > ONCE_REPLY_BYTES_MAX {
            let text = format!("ONCE: the reply is longer than {ONCE_REPLY_BYTES_MAX} bytes");
            return Err(Reject::err(text));
        }
        reply.integer(1);
        repeat(kept, reply)?;
        txn.put_record(&key, id, Bytes::from(record), deadline_ms.unwrap_or(0));
        Ok(())
    }
}

type RunKeys = fn(&mut Txn<'_>, Args<'_>, &mut Reply<'_>) -> Result<(), Reject>;

/// The command that `call` asks for, if it is a write of `key` alone.
///
/// # Errors
/// Why it is not.
fn write_of(key: &Key<'_>, call: Args<'_>) -> Result<(&'static Row, RunKeys), Reject> {
    let refuse = |reject: Reject| {
        let text = reject.text();
        let reason = text.strip_prefix(b"ERR ").unwrap_or(text);
        Reject::new([b"ERR ONCE: ".as_slice(), reason].concat())
    };
    let row = table().row(table().find(call).map_err(refuse)?);
    let name = row.spec.name.to_ascii_uppercase();
    if row.spec.name == Once::SPEC.name {
        return Err(Reject::fixed("ERR ONCE: ONCE does not nest"));
    }
    let Run::Keys(run) = row.run else {
        return Err(Reject::err(format!("ONCE: {name} is not a write of a key")));
    };
    if !row.has(flag::WRITE) {
        return Err(Reject::err(format!("ONCE: {name} is not a write")));
    }
    let places = row.key_places(call).map_err(refuse)?;
    let reason = match places.count {
        0 => "has no key",
        1 if places.each(call).any(|written| written == key.bytes) => return Ok((row, run)),
        1 => "has another key than ONCE",
        _ => "has more than one key",
    };
    Err(Reject::err(format!("ONCE: {name} {reason}")))
}

/// Writes a kept reply in the protocol of the asking connection.
fn repeat(kept: &[u8], reply: &mut Reply<'_>) -> Result<(), Reject> {
    if reply.protocol() == Protocol::Resp3 {
        reply.raw(kept);
        return Ok(());
    }
    let mut transcoded = Vec::with_capacity(kept.len());
    let damaged = Reject::fixed("ERR ONCE: the kept reply is damaged");
    transcode_to_resp2(kept, &mut transcoded).map_err(|_| damaged)?;
    reply.raw(&transcoded);
    Ok(())
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use crate::command::transcript::Transcript;

    #[test]
    fn a_write_runs_once_and_its_reply_is_repeated() {
        Transcript::in_both_modes(|t| {
            t.check("ONCE n a EX 60 INCR n", "1) (integer) 1\n2) (integer) 1");
            t.check("INCR n", "(integer) 2");
            t.check("ONCE n a EX 60 INCR n", "1) (integer) 0\n2) (integer) 1");
            t.check("ONCE n a PX 5 incr n", "1) (integer) 0\n2) (integer) 1");
            t.check("ONCE n a EX 60 INCRBY n 1", "1) (integer) -1\n2) (nil)");
            t.check(
                "ONCE n b EX 60 INCRBY n 1",
                "1) (integer) 1\n2) (integer) 3",
            );
            t.check("ONCE n b EX 60 INCRBY n 01", "1) (integer) -1\n2) (nil)");
            t.check("ONCE m a EX 60 INCR m", "1) (integer) 1\n2) (integer) 1");
            t.check("GET n", "\"3\"");
            t.check("DBSIZE", "(integer) 2");
            assert_eq!(t.run("KEYS *").lines().count(), 2);
            t.advance_ms(59_999);
            t.check(
                "ONCE n b EX 60 INCRBY n 1",
                "1) (integer) 0\n2) (integer) 3",
            );
            t.advance_ms(1);
            t.check(
                "ONCE n b EX 60 INCRBY n 1",
                "1) (integer) 1\n2) (integer) 4",
            );
        });
    }

    #[test]
    fn a_refusal_is_kept_and_an_error_is_not() {
        Transcript::in_both_modes(|t| {
            t.check("SET s text", "OK");
            t.check("ONCE s a EX 60 SET s other NX", "1) (integer) 1\n2) (nil)");
            t.check("DEL s", "(integer) 1");
            t.check("ONCE s a EX 60 SET s other NX", "1) (integer) 0\n2) (nil)");
            t.check("SET s text", "OK");
            let error = "(error) ERR value is not an integer or out of range";
            t.check("ONCE s b EX 60 INCR s", error);
            t.check("SET s 5", "OK");
            t.check("ONCE s b EX 60 INCR s", "1) (integer) 1\n2) (integer) 6");
        });
    }

    #[test]
    fn the_reply_is_that_of_the_command_in_both_protocols() {
        let lines = [
            ("HINCRBYFLOAT h f 1.5", "\"1.5\""),
            ("INCREX x BYFLOAT 1.5", "1) \"1.5\"\n   2) \"1.5\""),
            ("HGETDEL h FIELDS 1 f", "1) \"1.5\""),
            ("SET x v GET", "\"1.5\""),
            ("GETDEL x", "\"v\""),
            ("RESERVE h j 5 EX 1", ""),
        ];
        for resp3 in [false, true] {
            let mut t = Transcript::new();
            let mut plain = Transcript::new();
            if resp3 {
                (t, plain) = (t.resp3(), plain.resp3());
            }
            for (number, (line, resp2)) in lines.iter().enumerate() {
                let key = line.split(' ').nth(1).unwrap_or_default();
                let once = format!("ONCE {key} {number} EX 60 {line}");
                let first = t.run(&once);
                let reply = plain.run(line);
                let indented = reply.trim_end().replace('\n', "\n   ");
                assert_eq!(first.trim_end(), format!("1) (integer) 1\n2) {indented}"));
                assert_eq!(t.run(&once), first.replacen("1\n", "0\n", 1));
                if !resp3 && !resp2.is_empty() {
                    assert!(first.trim_end().ends_with(resp2), "{first}");
                }
            }
        }
    }

    #[test]
    fn records_survive_del_and_rename_and_go_with_the_database() {
        Transcript::in_both_modes(|t| {
            let first = "1) (integer) 1\n2) (integer) 1";
            let repeat = "1) (integer) 0\n2) (integer) 1";
            t.check("ONCE n a EX 60 INCR n", first);
            t.check("DEL n", "(integer) 1");
            t.check("ONCE n a EX 60 INCR n", repeat);
            t.check("DBSIZE", "(integer) 0");
            t.check("ONCE n b EX 60 INCR n", first);
            t.check("RENAME n m", "OK");
            t.check("ONCE n b EX 60 INCR n", repeat);
            t.check("ONCE m b EX 60 INCR m", "1) (integer) 1\n2) (integer) 2");
            t.select(1);
            t.check("ONCE n a EX 60 INCR n", first);
            t.write(|txn| txn.swap(0, 1));
            t.check("DEL n", "(integer) 0");
            t.check("ONCE n a EX 60 INCR n", repeat);
            t.write(|txn| txn.flush(1));
            t.check("ONCE n a EX 60 INCR n", first);
            t.select(0);
            t.check("GET n", "\"1\"");
            t.check("DEL n", "(integer) 1");
            t.check("ONCE n a EX 60 INCR n", repeat);
            // Nothing but records: it is emptied all the same.
            t.write(|txn| txn.flush(0));
            t.check("ONCE n a EX 60 INCR n", first);
        });
    }

    #[test]
    fn what_is_no_write_of_that_key_alone_is_refused_with_the_reason() {
        let mut t = Transcript::new();
        t.check("SET n text", "OK");
        let batches = t.batches();
        for (line, error) in [
            ("GET n", "ONCE: GET is not a write"),
            ("PING", "ONCE: PING is not a write of a key"),
            ("MULTI", "ONCE: MULTI is not a write of a key"),
            ("INCR m", "ONCE: INCR has another key than ONCE"),
            ("DEL n m", "ONCE: DEL has more than one key"),
            ("DEL n n", "ONCE: DEL has more than one key"),
            ("COPY n m", "ONCE: COPY has more than one key"),
            ("MSETEX 2 n 1 m 2", "ONCE: MSETEX has more than one key"),
            (
                "MSETEX x n 1 m 2",
                "ONCE: value is not an integer or out of range",
            ),
            ("FLUSHALL", "ONCE: FLUSHALL has no key"),
            ("ONCE n b EX 5 INCR n", "ONCE: ONCE does not nest"),
            (
                "NOSUCH n",
                "ONCE: unknown command 'NOSUCH', with args beginning with: 'n' ",
            ),
            (
                "CONFIG",
                "ONCE: wrong number of arguments for 'config' command",
            ),
            ("INCR", "ONCE: wrong number of arguments for 'incr' command"),
            ("INCR n", "value is not an integer or out of range"),
            ("SET n 1 NX XX", "syntax error"),
            ("HSET n a 1", ""),
        ] {
            let reply = t.run(&format!("ONCE n a EX 60 {line}"));
            let wanted = match error {
                "" => "(error) WRONGTYPE ".to_owned(),
                error => format!("(error) ERR {error}"),
            };
            assert!(reply.starts_with(&wanted), "{line}: {reply}");
        }
        for (line, error) in [
            ("ONCE n \"\" EX 60 INCR n", "ERR ONCE: id must not be empty"),
            (
                "ONCE n a EX 0 INCR n",
                "ERR invalid expire time in 'once' command",
            ),
            ("ONCE n a EX x INCR n", "ERR ONCE: EX must be an integer"),
            ("ONCE n a EXAT 5 INCR n", "ERR syntax error"),
            (
                "ONCE n a EX 60",
                "ERR wrong number of arguments for 'once' command",
            ),
        ] {
            t.check(line, &format!("(error) {error}"));
        }
        assert_eq!(t.batches(), batches);
    }

    #[test]
    fn a_reply_that_is_too_long_to_keep_leaves_nothing() {
        let mut t = Transcript::new();
        let text = vec![b'x'; crate::limits::ONCE_REPLY_BYTES_MAX];
        t.run_bytes(&[b"SET", b"s", &text]);
        let error = "(error) ERR ONCE: the reply is longer than 65536 bytes";
        t.check("ONCE s a EX 60 GETDEL s", error);
        t.check("STRLEN s", "(integer) 65536");
        t.run_bytes(&[b"SET", b"s", &text[..60_000]]);
        assert!(
            t.run("ONCE s a EX 60 GETDEL s")
                .starts_with("1) (integer) 1")
        );
        let mut t = t.recovering();
        t.recover();
        assert!(
            t.run("ONCE s a EX 60 GETDEL s")
                .starts_with("1) (integer) 0")
        );
    }

    #[test]
    fn records_of_all_keys_find_their_slot_again() {
        let long = vec![b'k'; 30_000];
        let keys: [&[u8]; 5] = [b"a}b", b"{tag}x", b"x{}y", b"\0\xff", &long];
        let mut t = Transcript::new();
        for key in keys {
            for id in [b"1".as_slice(), b"{other}", b"\0", &long[..2_000]] {
                let call: [&[u8]; 7] = [b"ONCE", key, id, b"EX", b"60", b"INCR", key];
                assert!(t.run_bytes(&call).starts_with("1) (integer) 1"));
                t.recover();
                assert!(t.run_bytes(&call).starts_with("1) (integer) 0"));
            }
        }
        let call: [&[u8]; 7] = [b"ONCE", &long, &long, b"EX", b"60", b"INCR", &long];
        let error = "(error) ERR ONCE: key and id are longer than 32766 bytes together";
        assert_eq!(t.run_bytes(&call).trim_end(), error);
        t.advance_ms(60_000);
        assert_eq!(t.keyspace().deadline_hints(), 0);
    }
}
