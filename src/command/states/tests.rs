//! Transcripts of the state cells. Tokens have names: `$a` is bound where it is first expected,
//! must then be higher than every token before it, and stands for that number from there on.

use std::collections::BTreeMap;

use crate::command::transcript::Transcript;
use crate::keyspace::tokens;
use crate::keyspace::tokens::TOKEN_END;

const WRONG_TYPE: &str =
    "(error) WRONGTYPE Operation against a key holding the wrong kind of value";

/// A transcript whose tokens have names.
struct Story<'t> {
    t: &'t mut Transcript,
    tokens: BTreeMap<String, u64>,
    highest: u64,
}

impl Story<'_> {
    /// Tells it as it is, recovering after every command, and in RESP3.
    fn tell(story: impl Fn(&mut Story<'_>)) {
        let told = |t: &mut Transcript| {
            story(&mut Story {
                t,
                tokens: BTreeMap::new(),
                highest: 0,
            });
        };
        Transcript::in_both_modes(told);
        told(&mut Transcript::new().resp3());
    }

    /// Runs a line and compares the members of the reply, written in one line.
    #[track_caller]
    fn check(&mut self, line: &str, expected: &str) {
        let line: Vec<String> = line.split(' ').map(|word| self.named(word)).collect();
        let line = line.join(" ");
        let reply = self.t.run(&line);
        let members: Vec<&str> = reply.lines().map(member).collect();
        let members = members.join(" ");
        let words: Vec<&str> = members.split(' ').collect();
        for (word, expected) in words.iter().zip(expected.split(' ')) {
            if expected.starts_with('$') && !self.tokens.contains_key(expected) {
                let token: u64 = word.parse().expect("a token");
                assert!(token > self.highest && token < TOKEN_END, "{line}: {token}");
                self.highest = token;
                self.tokens.insert(expected.to_owned(), token);
            }
        }
        let expected: Vec<String> = expected.split(' ').map(|word| self.named(word)).collect();
        assert_eq!(members, expected.join(" "), "reply to: {line}");
    }

    fn named(&self, word: &str) -> String {
        let token = self.tokens.get(word);
        token.map_or(word.to_owned(), |token| token.to_string())
    }

    fn pass_ms(&mut self, milliseconds: u64) {
        self.t.advance_ms(milliseconds);
    }
}

/// A line of a printed reply without its number and the name of its type.
fn member(line: &str) -> &str {
    let line = match line.split_once(") ") {
        Some((number, rest)) if number.bytes().all(|byte| byte.is_ascii_digit()) => rest,
        _ => line,
    };
    line.strip_prefix("(integer) ").unwrap_or(line)
}

#[test]
fn the_second_request_is_dropped_and_a_late_worker_is_refused() {
    Story::tell(|s| {
        s.check(
            "SETIFIDLE user:1 processing PX 60000",
            "\"STARTED\" $first 60000 \"processing\"",
        );
        s.pass_ms(10);
        s.check(
            "SETIFIDLE user:1 processing PX 60000",
            "\"BUSY\" $first 59990 \"processing\"",
        );
        s.check("SETIDLE user:1 $first", "1 $first");
        s.check("SETIDLE user:1 $first", "0 0");
        s.check(
            "SETIFIDLE user:1 processing PX 50",
            "\"STARTED\" $dead 50 \"processing\"",
        );
        // The worker dies, the lease runs out, the next one starts.
        s.pass_ms(50);
        s.check("GETSTATE user:1", "(nil)");
        s.check("SETIDLE user:1 $dead", "0 0");
        s.check(
            "SETIFIDLE user:1 processing PX 50",
            "\"STARTED\" $next 50 \"processing\"",
        );
        s.check("SETIDLE user:1 $dead", "0 $next");
        s.check("SETIDLE user:1 $dead RESULT late", "0 $next");
        s.check("RENEW user:1 $dead EX 10", "0");
        s.check("RENEW user:1 $next EX 10", "1");
        s.check("GETSTATE user:1", "\"processing\" $next (nil) 10000");
        s.check("SETIDLE user:1 $next", "1 $next");
        s.check("EXISTS user:1", "0");
    });
}

#[test]
fn an_idempotency_key_keeps_the_answer() {
    Story::tell(|s| {
        s.check(
            "SETIFIDLE pay:7 started PX 60000 FP body-1",
            "\"STARTED\" $a 60000 \"started\"",
        );
        s.check(
            "SETIFIDLE pay:7 started PX 60000 FP body-1",
            "\"BUSY\" $a 60000 \"started\"",
        );
        s.check(
            "SETIFIDLE pay:7 started PX 60000 FP body-2",
            "\"MISMATCH\" $a 60000 \"started\"",
        );
        s.check("SETIDLE pay:7 $a RESULT ok:1 PX 86400000", "1 $a");
        s.pass_ms(400);
        // A retried finish changes nothing, whatever it brings.
        s.check("SETIDLE pay:7 $a RESULT other PX 5", "1 $a");
        s.check("SETIDLE pay:7 $a", "1 $a");
        s.check("RENEW pay:7 $a EX 5", "0");
        s.check("SETIDLE pay:7 12345678", "0 $a");
        let done = "\"DONE\" $a 86399600 \"ok:1\"";
        s.check("SETIFIDLE pay:7 started PX 60000 FP body-1", done);
        s.check("SETIFIDLE pay:7 started PX 60000", done);
        s.check(
            "SETIFIDLE pay:7 started FP body-2",
            "\"MISMATCH\" $a 86399600 \"ok:1\"",
        );
        s.check("GET pay:7", "\"ok:1\"");
        s.pass_ms(86_399_600);
        s.check(
            "SETIFIDLE pay:7 again FP body-2",
            "\"STARTED\" $b -1 \"again\"",
        );
    });
}

#[test]
fn a_cancel_and_an_upgrade_in_flight_never_lose_one_another() {
    Story::tell(|s| {
        // The cancel comes first: the late worker is told.
        s.check("SETSTATE sub:42 upgrading", "1 \"upgrading\" $a");
        s.check(
            "SETSTATE sub:42 cancelled FROM 2 active upgrading",
            "1 \"cancelled\" $b",
        );
        s.check("SETSTATE sub:42 active IFTOKEN $a", "0 \"cancelled\" $b");
        // The worker comes first: the cancel takes the upgraded subscription.
        s.check("SETSTATE sub:42 upgrading IFTOKEN $b", "1 \"upgrading\" $c");
        s.check("SETSTATE sub:42 active IFTOKEN $c", "1 \"active\" $d");
        s.check(
            "SETSTATE sub:42 cancelled FROM 2 active upgrading",
            "1 \"cancelled\" $e",
        );
        s.check("SETSTATE sub:42 active IFTOKEN $c", "0 \"cancelled\" $e");
        s.check("GETSTATE sub:42", "\"cancelled\" $e (nil) -1");
    });
}

#[test]
fn the_same_owner_renews() {
    Story::tell(|s| {
        s.check(
            "SETIFIDLE k a PX 100 OWNER r1 FP f",
            "\"STARTED\" $a 100 \"a\"",
        );
        s.pass_ms(40);
        s.check("SETIFIDLE k b OWNER r1", "\"RENEWED\" $a 60 \"b\"");
        s.check(
            "SETIFIDLE k c PX 200 OWNER r1 FP f",
            "\"RENEWED\" $a 200 \"c\"",
        );
        s.check("SETIFIDLE k d OWNER r1 FP g", "\"MISMATCH\" $a 200 \"c\"");
        s.check("SETIFIDLE k d OWNER r2 FP f", "\"BUSY\" $a 200 \"c\"");
        s.check("SETIFIDLE k d FP f", "\"BUSY\" $a 200 \"c\"");
        s.check(
            "SETIFIDLE k 41 PX 200 FP f OWNER r1",
            "\"RENEWED\" $a 200 \"41\"",
        );
        s.check("GETSTATE k", "\"41\" $a \"r1\" 200");
        s.check("SETIDLE k $a RESULT x", "1 $a");
        s.check("GETSTATE k", "\"x\" $a \"r1\" -1");
        s.check("SETIFIDLE k d OWNER r1 FP f", "\"DONE\" $a -1 \"x\"");
        // Held without an owner: nobody is the same one.
        s.check("SETIFIDLE k2 a", "\"STARTED\" $b -1 \"a\"");
        s.check("SETIFIDLE k2 a OWNER r1", "\"BUSY\" $b -1 \"a\"");
        // Without a fingerprint of its own nothing mismatches.
        s.check("SETIFIDLE k2 a FP f", "\"BUSY\" $b -1 \"a\"");
    });
}

#[test]
fn idle_is_missing_or_expired_or_the_string_idle() {
    Story::tell(|s| {
        s.check("SET k idle PX 500", "OK");
        s.check("GETSTATE k", "\"idle\" 0 (nil) 500");
        s.check("SETIFIDLE k s", "\"STARTED\" $a -1 \"s\"");
        s.check("SETIDLE k $a RESULT idle", "1 $a");
        s.check("SETIFIDLE k s", "\"DONE\" $a -1 \"idle\"");
        s.check("SETSTATE k s FROM 1 idle", "0 \"idle\" $a");
        s.check("SET k Idle", "OK");
        s.check("SETIFIDLE k s", "\"BUSY\" 0 -1 \"Idle\"");
        s.check("SET k 12 PX 9", "OK");
        s.check("SETIFIDLE k s FP f OWNER o", "\"BUSY\" 0 9 \"12\"");
        s.check("SETIDLE k 0", "0 0");
        s.check("RENEW k 0 EX 1", "0");
        s.check("RENEW missing 0 EX 1", "0");
        s.check("SETIDLE missing 0 RESULT x", "0 0");
        s.check("PTTL k", "9");
        s.check("EXISTS missing", "0");
    });
}

#[test]
fn a_state_changes_from_where_it_may() {
    Story::tell(|s| {
        s.check("SETSTATE k b FROM 1 a", "0 (nil) 0");
        s.check("SETSTATE k b FROM 2 a idle", "1 \"b\" $a");
        s.check("SETSTATE k b FROM 1 idle", "0 \"b\" $a");
        s.check("SETSTATE k c IFTOKEN 0", "0 \"b\" $a");
        s.check("SETSTATE k c FROM 1 b IFTOKEN $a PX 100", "1 \"c\" $b");
        s.check("SETSTATE k d FROM 1 b IFTOKEN $b", "0 \"c\" $b");
        s.check("SETSTATE k d FROM 1 c IFTOKEN $a", "0 \"c\" $b");
        s.check("SETSTATE k d KEEPTTL IFTOKEN $b FROM 1 c", "1 \"d\" $c");
        s.check("PTTL k", "100");
        s.check("SETSTATE k d", "1 \"d\" $d");
        s.check("PTTL k", "-1");
        s.check("SETSTATE k d EX 2", "1 \"d\" $e");
        s.check("SETSTATE k d PXAT 1700000000050", "1 \"d\" $f");
        s.check("GETSTATE k", "\"d\" $f (nil) 50");
        s.pass_ms(50);
        s.check("SETSTATE k e IFTOKEN $f", "0 (nil) 0");
        s.check("SETSTATE k e FROM 1 idle IFTOKEN 0 KEEPTTL", "1 \"e\" $g");
        s.check("PTTL k", "-1");
        // Ordinary strings, also empty ones and numbers.
        s.check("SET k 7", "OK");
        s.check("SETSTATE k f FROM 1 7 IFTOKEN 0", "1 \"f\" $h");
        s.check("SET k \"\"", "OK");
        s.check("SETSTATE k f FROM 1 idle", "0 \"\" 0");
        s.check("SETSTATE k f FROM 1 \"\"", "1 \"f\" $i");
        s.check("SET k idle", "OK");
        s.check("SETSTATE k f FROM 1 idle", "1 \"f\" $j");
    });
}

#[test]
fn a_changed_state_is_nobodys() {
    Story::tell(|s| {
        s.check("SETIFIDLE k s OWNER r1 FP f", "\"STARTED\" $a -1 \"s\"");
        s.check("SETSTATE k cancelled", "1 \"cancelled\" $b");
        s.check(
            "SETIFIDLE k s OWNER r1 FP g",
            "\"BUSY\" $b -1 \"cancelled\"",
        );
        s.check("SETIDLE k $a", "0 $b");
        s.check("SETIDLE k $b RESULT kept", "1 $b");
        s.check("SETSTATE k s FROM 1 kept IFTOKEN $b", "1 \"s\" $c");
        s.check("SETIDLE k $b", "0 $c");
        s.check("SETIDLE k $c", "1 $c");
    });
}

#[test]
fn tokens_are_never_used_again() {
    Story::tell(|s| {
        s.check("SETIFIDLE k s", "\"STARTED\" $a -1 \"s\"");
        s.check("DEL k", "1");
        s.check("SETIFIDLE k s", "\"STARTED\" $b -1 \"s\"");
        s.t.write(|txn| txn.flush(0));
        s.check("SETIDLE k $b", "0 0");
        s.check("SETIFIDLE k s PX 5", "\"STARTED\" $c 5 \"s\"");
        s.pass_ms(5);
        s.t.recover();
        s.check("SETIFIDLE k s", "\"STARTED\" $d -1 \"s\"");
        s.check("SET k idle", "OK");
        s.check("SETIFIDLE k s", "\"STARTED\" $e -1 \"s\"");
        s.t.recover();
        s.check("SETIDLE k $d", "0 $e");
        s.check("SETIDLE k $e", "1 $e");
    });
}

#[test]
fn a_cell_is_a_string_to_other_commands() {
    Story::tell(|s| {
        s.check(
            "SETIFIDLE k working PX 100 OWNER o",
            "\"STARTED\" $a 100 \"working\"",
        );
        s.check("GET k", "\"working\"");
        s.check("TYPE k", "string");
        s.check("STRLEN k", "7");
        s.check("PTTL k", "100");
        let keeps = [
            ("PEXPIRE k 900", "1"),
            ("PERSIST k", "1"),
            ("GETEX k PX 50", "\"working\""),
            ("GETEX k PERSIST", "\"working\""),
            ("PEXPIREAT k 1700000000100", "1"),
            ("TOUCH k", "1"),
            ("SETNX k x", "0"),
            ("MSETNX k x j y", "0"),
            ("SET k x NX", "(nil)"),
            ("SET k x IFEQ other", "(nil)"),
            ("DELIFEQ k other", "0"),
            ("GETRANGE k 0 1", "\"wo\""),
            ("BITFIELD k GET u8 0", "119"),
            (
                "INCR k",
                "(error) ERR value is not an integer or out of range",
            ),
            ("HSET k f v", WRONG_TYPE),
            ("RENAME k k", "OK"),
            ("SET other x", "OK"),
            ("RENAMENX other k", "0"),
            ("COPY other k", "0"),
        ];
        for (line, reply) in keeps {
            s.check(line, reply);
        }
        s.check("GETSTATE k", "\"working\" $a \"o\" 100");
        s.check("GETDEL k", "\"working\"");
        s.check("SETIDLE k $a", "0 0");
        s.check("SETIFIDLE n 5", "\"STARTED\" $n -1 \"5\"");
        s.check("INCREX n BYINT 1 UBOUND 5", "5 0");
        s.check("GETSTATE n", "\"5\" $n (nil) -1");
    });
}

#[test]
fn an_ordinary_write_makes_an_ordinary_string() {
    let writes = [
        "SET k 41",
        "SET k x KEEPTTL",
        "SET k x IFEQ 41",
        "SET k 41 XX GET",
        "GETSET k 41",
        "SETEX k 10 41",
        "PSETEX k 10 41",
        "MSET k 41 j 1",
        "MSETEX 1 k 41",
        "APPEND k x",
        "SETRANGE k 0 41",
        "SETRANGE k 9 x",
        "SETBIT k 7 0",
        "BITFIELD k SET u8 0 65",
        "BITOP NOT k k",
        "INCR k",
        "DECRBY k 3",
        "INCRBYFLOAT k 1.5",
        "INCREX k BYINT 1",
        "INCREX k BYFLOAT 1.5",
        "CL.THROTTLE k 4 1 1",
        "RENAME other k",
        "COPY other k REPLACE",
    ];
    for write in writes {
        Story::tell(|s| {
            s.check("SET other x", "OK");
            s.check("SETIFIDLE k 41 OWNER o FP f", "\"STARTED\" $a -1 \"41\"");
            let reply = s.t.run(write);
            assert!(!reply.starts_with("(error)"), "{write}: {reply}");
            let state = s.t.run("GETSTATE k");
            let members: Vec<&str> = state.lines().map(member).collect();
            assert_eq!(members[1..3], ["0", "(nil)"], "{write}");
            s.check("SETIDLE k $a", "0 0");
            s.check("RENEW k $a EX 9", "0");
        });
    }
}

#[test]
fn a_cell_that_moves_arrives_as_an_ordinary_string() {
    Story::tell(|s| {
        for (line, reply, place) in [
            ("RENAME k there", "OK", "there"),
            ("RENAMENX k there", "1", "there"),
            ("COPY k there", "1", "there"),
        ] {
            s.t.run("DEL there k");
            s.t.run("SETIFIDLE k s PX 70 OWNER o");
            s.check(line, reply);
            s.check(&format!("GETSTATE {place}"), "\"s\" 0 (nil) 70");
        }
        // The original of a copy is still held.
        assert!(s.t.is_cell("k"));
        s.check("MOVE k 1", "1");
        s.t.select(1);
        s.check("GETSTATE k", "\"s\" 0 (nil) 70");
        s.t.run("DEL k");
        s.t.run("SETIFIDLE k 41");
        let payload = s.t.run("DUMP k");
        let restore = format!("RESTORE k 0 {} REPLACE", payload.trim_end());
        s.check(&restore, "OK");
        s.check("GETSTATE k", "\"41\" 0 (nil) -1");
    });
}

#[test]
fn bad_arguments_are_named_and_change_nothing() {
    let token = "token must be an integer from 0 to 9007199254740991";
    let cases = [
        (
            "SETIFIDLE k \"\"",
            "SETIFIDLE: state must not be empty or \"idle\"",
        ),
        (
            "SETIFIDLE k idle EX 0",
            "SETIFIDLE: state must not be empty or \"idle\"",
        ),
        (
            "SETIFIDLE k s OWNER \"\"",
            "SETIFIDLE: OWNER must not be empty",
        ),
        ("SETIFIDLE k s FP \"\"", "SETIFIDLE: FP must not be empty"),
        (
            "SETIFIDLE k s EX 0",
            "invalid expire time in 'setifidle' command",
        ),
        (
            "SETIFIDLE k s PX -1",
            "invalid expire time in 'setifidle' command",
        ),
        (
            "SETIFIDLE k s EX 9223372036854775807",
            "invalid expire time in 'setifidle' command",
        ),
        (
            "SETIFIDLE k s PXAT 1700000000000",
            "SETIFIDLE: the deadline of EXAT or PXAT has passed",
        ),
        ("SETIFIDLE k s EX x", "SETIFIDLE: EX must be an integer"),
        ("SETIFIDLE k s EX 1 PX 1", "syntax error"),
        ("SETIFIDLE k s EX", "syntax error"),
        ("SETIFIDLE k s OWNER", "syntax error"),
        ("SETIFIDLE k s OWNER a OWNER b", "syntax error"),
        ("SETIFIDLE k s KEEPTTL", "syntax error"),
        (
            "SETIFIDLE k",
            "wrong number of arguments for 'setifidle' command",
        ),
        ("SETIDLE k x", &format!("SETIDLE: {token}")),
        ("SETIDLE k -1", &format!("SETIDLE: {token}")),
        ("SETIDLE k 9007199254740992", &format!("SETIDLE: {token}")),
        ("SETIDLE k 1 EX 5", "syntax error"),
        ("SETIDLE k 1 RESULT", "syntax error"),
        (
            "SETIDLE k 1 RESULT x EX 0",
            "invalid expire time in 'setidle' command",
        ),
        (
            "SETIDLE k 1 RESULT x EXAT 1",
            "SETIDLE: the deadline of EXAT or PXAT has passed",
        ),
        (
            "SETIDLE k",
            "wrong number of arguments for 'setidle' command",
        ),
        ("RENEW k 1", "wrong number of arguments for 'renew' command"),
        ("RENEW k 1 EX 0", "invalid expire time in 'renew' command"),
        ("RENEW k 1 XX 1", "syntax error"),
        ("RENEW k 1.0 EX 1", &format!("RENEW: {token}")),
        (
            "RENEW k 1 PXAT 1",
            "RENEW: the deadline of EXAT or PXAT has passed",
        ),
        (
            "SETSTATE k \"\"",
            "SETSTATE: state must not be empty or \"idle\"",
        ),
        (
            "SETSTATE k idle",
            "SETSTATE: state must not be empty or \"idle\"",
        ),
        (
            "SETSTATE k s FROM 0",
            "SETSTATE: FROM needs a number from 1 up and so many states",
        ),
        (
            "SETSTATE k s FROM 2 a",
            "SETSTATE: FROM needs a number from 1 up and so many states",
        ),
        (
            "SETSTATE k s FROM a b",
            "SETSTATE: FROM needs a number from 1 up and so many states",
        ),
        ("SETSTATE k s FROM", "syntax error"),
        ("SETSTATE k s FROM 1 a FROM 1 b", "syntax error"),
        (
            "SETSTATE k s IFTOKEN a",
            "SETSTATE: IFTOKEN must be an integer from 0 to 9007199254740991",
        ),
        ("SETSTATE k s EX 1 KEEPTTL", "syntax error"),
        (
            "SETSTATE k s EX 0",
            "invalid expire time in 'setstate' command",
        ),
        (
            "SETSTATE k s EXAT 1",
            "SETSTATE: the deadline of EXAT or PXAT has passed",
        ),
        (
            "GETSTATE k k",
            "wrong number of arguments for 'getstate' command",
        ),
    ];
    let mut t = Transcript::new();
    for (line, error) in cases {
        t.check(line, &format!("(error) ERR {error}"));
    }
    t.check("EXISTS k", "(integer) 0");
    t.make_hash("h");
    for line in [
        "SETIFIDLE h s",
        "SETIDLE h 1",
        "RENEW h 1 EX 1",
        "SETSTATE h s",
        "SETSTATE h s FROM 1 a IFTOKEN 9",
        "GETSTATE h",
    ] {
        t.check(line, WRONG_TYPE);
    }
    t.check("HLEN h", "(integer) 1");
}

#[test]
fn a_token_is_an_integer_that_javascript_reads_exactly() {
    assert_eq!(tokens::parse(b"0"), Some(0));
    assert_eq!(tokens::parse(b"9007199254740991"), Some(TOKEN_END - 1));
    for text in ["", "-1", "9007199254740992", "1.0", "+1", "01", "x"] {
        assert_eq!(tokens::parse(text.as_bytes()), None, "{text}");
    }
}

#[test]
fn a_refusal_and_a_repeated_finish_write_nothing() {
    let mut t = Transcript::new();
    t.run("SETIFIDLE k s OWNER o FP f");
    t.run("SETIDLE k 1 RESULT r");
    t.check(
        "GETSTATE k",
        "1) \"r\"\n2) (integer) 1\n3) \"o\"\n4) (integer) -1",
    );
    let batches = t.batches();
    for line in [
        "SETIFIDLE k s",
        "SETIFIDLE k s FP g",
        "SETIDLE k 1 RESULT other",
        "SETIDLE k 1",
        "SETIDLE k 2",
        "RENEW k 1 EX 5",
        "SETSTATE k s FROM 1 a",
        "GETSTATE k",
    ] {
        t.run(line);
        assert_eq!(t.batches(), batches, "{line}");
    }
}
