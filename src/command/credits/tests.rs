//! What the credits commands answer, in a user's words.

use crate::command::transcript::Transcript;

/// The integers of an array.
fn integers(reply: &str) -> Vec<i64> {
    let parse = |line: &str| line.rsplit(' ').next().and_then(|text| text.parse().ok());
    let numbers: Option<Vec<i64>> = reply.trim_end().lines().map(parse).collect();
    numbers.unwrap_or_else(|| panic!("an array of integers: {reply}"))
}

#[track_caller]
fn check(t: &mut Transcript, line: &str, expected: [i64; 4]) {
    let reply = t.run(line);
    assert_eq!(integers(&reply), expected, "reply to: {line}");
}

/// Reserves and checks all but the token, which is returned.
#[track_caller]
fn reserve(t: &mut Transcript, line: &str, available: i64, held: i64) -> i64 {
    let reply = t.run(line);
    let numbers = integers(&reply);
    assert_eq!(
        (numbers[0], &numbers[2..]),
        (1, &[available, held][..]),
        "{line}"
    );
    assert!(numbers[1] > 0);
    numbers[1]
}

#[test]
fn what_is_held_is_not_available_and_what_is_settled_is_gone() {
    Transcript::in_both_modes(|t| {
        t.check("HSET acc balance 100", "(integer) 1");
        let a = reserve(t, "RESERVE acc a 30 EX 60", 70, 30);
        let b = reserve(t, "RESERVE acc b 20 EX 60", 50, 50);
        assert!(b > a);
        check(t, "RESERVE acc a 30 EX 9", [1, a, 70, 30]);
        check(t, "RESERVE acc a 31 EX 60", [-1, 0, 50, 50]);
        check(t, "RESERVE acc c 51 EX 60", [0, 0, 50, 50]);
        check(t, &format!("SETTLE acc a {b} 1"), [0, 0, 50, 50]);
        check(t, "SETTLE acc a 0 1", [0, 0, 50, 50]);
        check(t, &format!("SETTLE acc a {a} 31"), [-1, 0, 50, 50]);
        check(t, &format!("SETTLE acc a {a} 10"), [1, 10, 70, 20]);
        t.check("HGET acc balance", "\"90\"");
        check(t, &format!("SETTLE acc b {b} 20"), [1, 20, 70, 0]);
        check(t, &format!("SETTLE acc a {a} 30"), [1, 10, 70, 20]);
        check(t, "RESERVE acc a 30 EX 60", [1, a, 70, 30]);
        check(t, "RESERVE acc a 29 EX 60", [-1, 0, 70, 0]);
        t.check("HLEN acc", "(integer) 3");
    });
}

#[test]
fn more_than_was_held_is_refused_cut_or_charged() {
    Transcript::in_both_modes(|t| {
        t.check("HSET acc balance 100", "(integer) 1");
        let a = reserve(t, "RESERVE acc a 30 EX 60", 70, 30);
        let line = format!("SETTLE acc a {a} 40 OVERDRAFT reject");
        check(t, &line, [-1, 0, 70, 30]);
        let line = format!("SETTLE acc a {a} 40 overdraft CLAMP");
        check(t, &line, [1, 30, 70, 0]);
        let b = reserve(t, "RESERVE acc b 30 EX 60", 40, 30);
        let line = format!("SETTLE acc b {b} 100 OVERDRAFT ALLOW");
        check(t, &line, [1, 100, -30, 0]);
        t.check("HGET acc balance", "\"-30\"");
        check(t, "RESERVE acc c 1 EX 60", [0, 0, -30, 0]);
        reserve(t, "RESERVE acc c 1 EX 60 LBOUND -31", -31, 1);
    });
}

#[test]
fn a_released_id_may_be_reserved_again() {
    Transcript::in_both_modes(|t| {
        t.check("HSET acc balance 10", "(integer) 1");
        let first = reserve(t, "RESERVE acc a 10 EX 60 KEEP 1000", 0, 10);
        let release = format!("SETTLE acc a {first} 0");
        check(t, &release, [1, 0, 10, 0]);
        check(t, &release, [1, 0, 10, 0]);
        let again = reserve(t, "RESERVE acc a 9 EX 60 KEEP 1000", 1, 9);
        assert!(again > first);
        // The first holder is told what it was told, and moves nothing.
        check(t, &release, [1, 0, 10, 0]);
        t.advance_ms(1_000);
        check(t, &release, [0, 0, 1, 9]);
        check(t, &format!("SETTLE acc a {again} 9"), [1, 9, 1, 0]);
        check(t, "RESERVE acc a 9 EX 60", [1, again, 1, 9]);
        t.advance_ms(1_000);
        t.check("HKEYS acc", "1) \"balance\"");
        check(t, "RESERVE acc a 9 EX 60", [0, 0, 1, 0]);
    });
}

#[test]
fn a_hold_ends_at_its_deadline_with_and_without_the_timer() {
    for timer in [true, false] {
        Transcript::in_both_modes(|t| {
            t.keyspace().set_active_expiry(timer);
            t.check("HSET acc balance 10", "(integer) 1");
            let back = reserve(t, "RESERVE acc back 4 PX 100", 6, 4);
            let charged = reserve(t, "RESERVE acc charged 3 PX 100 ONEXPIRE CHARGE", 3, 7);
            t.advance_ms(99);
            t.check("HLEN acc", "(integer) 3");
            t.check("HTTL acc FIELDS 1 hold:back", "1) (integer) -1");
            t.advance_ms(1);
            t.check("HGET acc balance", "\"7\"");
            t.check("HLEN acc", "(integer) 2");
            check(t, &format!("SETTLE acc back {back} 4"), [0, 0, 7, 0]);
            let line = format!("SETTLE acc charged {charged} 1");
            let answer = integers(&t.run(&line));
            assert_eq!(answer[..2], [1, 3]);
            check(t, &line, [1, 3, answer[2], answer[3]]);
            check(t, "RESERVE acc charged 3 EX 1", [1, charged, 3, 7]);
            assert!(reserve(t, "RESERVE acc back 4 EX 1", 3, 4) > charged);
            t.check(
                "HPTTL acc FIELDS 1 settled:charged",
                "1) (integer) 86400000",
            );
            t.advance_ms(86_400_000);
            t.check("HGETALL acc", "1) \"balance\"\n2) \"7\"");
        });
    }
}

#[test]
fn a_restart_after_the_deadline_ends_the_hold() {
    let mut t = Transcript::new();
    t.check("HSET acc balance 10", "(integer) 1");
    reserve(&mut t, "RESERVE acc a 4 PX 100 ONEXPIRE CHARGE", 6, 4);
    t.recover();
    let batches = t.batches();
    t.advance_ms(100);
    assert_eq!(t.batches(), batches + 1, "the end is logged");
    t.recover();
    t.check("HGET acc balance", "\"6\"");
    t.check("HEXISTS acc settled:a", "(integer) 1");
    t.check("HEXISTS acc hold:a", "(integer) 0");
}

#[test]
fn an_account_needs_no_balance_and_goes_with_its_last_field() {
    Transcript::in_both_modes(|t| {
        check(t, "RESERVE acc a 5 EX 1", [0, 0, 0, 0]);
        check(t, "SETTLE acc a 5 5", [0, 0, 0, 0]);
        t.check("EXISTS acc", "(integer) 0");
        let a = reserve(t, "RESERVE acc a 5 PX 100 LBOUND -5", -5, 5);
        t.advance_ms(100);
        t.check("EXISTS acc", "(integer) 0");
        let line = "RESERVE acc a 5 PX 100 LBOUND -5 KEEP 10";
        let again = reserve(t, line, -5, 5);
        assert!(again > a);
        check(t, &format!("SETTLE acc a {again} 0"), [1, 0, 0, 0]);
        t.check("HKEYS acc", "1) \"settled:a\"");
        t.advance_ms(10);
        t.check("EXISTS acc", "(integer) 0");
        reserve(t, "RESERVE acc a 5 PX 100 LBOUND -5 ONEXPIRE CHARGE", -5, 5);
        t.advance_ms(100);
        t.check("HGET acc balance", "\"-5\"");
    });
}

#[test]
fn what_users_write_into_an_account_is_theirs() {
    Transcript::in_both_modes(|t| {
        t.check("HSET acc balance 10", "(integer) 1");
        let a = reserve(t, "RESERVE acc a 4 EX 60", 6, 4);
        let shown = t.run("HGET acc hold:a");
        assert!(shown.contains("amount\\\":4,"), "{shown}");
        t.check("HSET acc hold:a 4", "(integer) 0");
        check(t, &format!("SETTLE acc a {a} 4"), [0, 0, 10, 0]);
        t.check(
            "RESERVE acc a 4 EX 60",
            "(error) ERR RESERVE: the field of this id exists and is not a hold",
        );
        t.check("HDEL acc hold:a", "(integer) 1");
        let b = reserve(t, "RESERVE acc a 10 PX 50 ONEXPIRE CHARGE", 0, 10);
        t.check("HSET acc balance 3", "(integer) 0");
        check(t, "RESERVE acc b 1 EX 60", [0, 0, -7, 10]);
        t.check("HSET acc balance text", "(integer) 0");
        let error = "(error) ERR SETTLE: balance is not an integer";
        t.check(&format!("SETTLE acc a {b} 1"), error);
        let error = "(error) ERR RESERVE: balance is not an integer";
        t.check("RESERVE acc b 1 EX 60", error);
        t.advance_ms(50);
        t.check("HGET acc balance", "\"text\"");
        t.check("HSET acc balance 3 settled:a x settled:b y", "(integer) 1");
        let c = reserve(t, "RESERVE acc b 3 PX 50 ONEXPIRE CHARGE", 0, 3);
        t.check("HSET acc balance -9223372036854775808", "(integer) 0");
        check(t, "RESERVE acc c 1 EX 60", [0, 0, i64::MIN, 3]);
        let error = "(error) ERR SETTLE: amount would overflow the balance";
        t.check(&format!("SETTLE acc b {c} 3"), error);
        t.advance_ms(50);
        t.check("HGET acc balance", "\"-9223372036854775808\"");
        t.check("DEL acc", "(integer) 1");
        check(t, &format!("SETTLE acc b {c} 3"), [0, 0, 0, 0]);
    });
}

#[test]
fn a_hold_whose_field_expires_first_is_given_back() {
    Transcript::in_both_modes(|t| {
        t.check("HSET acc balance 10", "(integer) 1");
        reserve(t, "RESERVE acc a 4 PX 100 ONEXPIRE CHARGE", 6, 4);
        reserve(t, "RESERVE acc b 4 PX 100 ONEXPIRE CHARGE", 2, 8);
        t.check("HPEXPIRE acc 50 FIELDS 1 hold:a", "1) (integer) 1");
        t.check("HPEXPIRE acc 150 FIELDS 1 hold:b", "1) (integer) 1");
        t.advance_ms(50);
        check(t, "RESERVE acc c 7 EX 60", [0, 0, 6, 4]);
        t.advance_ms(50);
        t.check("HGET acc balance", "\"6\"");
        t.advance_ms(100);
        check(t, "RESERVE acc c 7 EX 60", [0, 0, 6, 0]);
        t.check("HEXISTS acc settled:b", "(integer) 1");
        t.check("HEXISTS acc settled:a", "(integer) 0");
    });
}

#[test]
fn holds_move_with_their_account() {
    Transcript::in_both_modes(|t| {
        t.check("HSET acc balance 10", "(integer) 1");
        let a = reserve(t, "RESERVE acc a 4 PX 100 ONEXPIRE CHARGE", 6, 4);
        t.check("RENAME acc other", "OK");
        t.check("COPY other copy", "(integer) 1");
        check(t, "RESERVE copy b 7 EX 60", [0, 0, 6, 4]);
        check(t, &format!("SETTLE other a {a} 1"), [1, 1, 9, 0]);
        t.advance_ms(100);
        t.check("HGET other balance", "\"9\"");
        t.check("HGET copy balance", "\"6\"");
        t.check("MOVE other 1", "(integer) 1");
        t.select(1);
        check(t, &format!("SETTLE other a {a} 1"), [1, 1, 9, 0]);
    });
}

#[test]
fn an_account_has_a_bounded_number_of_open_holds() {
    let mut t = Transcript::new();
    t.check("HSET acc balance 2000", "(integer) 1");
    let first = reserve(&mut t, "RESERVE acc 0 1 EX 60", 1999, 1);
    for id in 1..1024 {
        let held = id + 1;
        reserve(
            &mut t,
            &format!("RESERVE acc {id} 1 EX 60"),
            2000 - held,
            held,
        );
    }
    let error = "(error) ERR RESERVE: the account has 1024 open holds already";
    t.check("RESERVE acc more 1 EX 60", error);
    check(&mut t, "RESERVE acc 0 1 EX 60", [1, first, 1999, 1]);
    check(&mut t, "RESERVE acc more 977 EX 60", [0, 0, 976, 1024]);
    check(
        &mut t,
        &format!("SETTLE acc 0 {first} 1"),
        [1, 1, 976, 1023],
    );
    t.recover();
    reserve(&mut t, "RESERVE acc more 1 EX 60", 975, 1024);
    t.advance_ms(60_000);
    check(&mut t, "RESERVE acc all 2000 EX 60", [0, 0, 1999, 0]);
}

#[test]
fn amounts_at_the_ends_of_64_bits() {
    Transcript::in_both_modes(|t| {
        t.check("HSET acc balance 9223372036854775807", "(integer) 1");
        let all = "RESERVE acc a 9223372036854775807 EX 60";
        let a = reserve(t, all, 0, i64::MAX);
        t.check(
            "RESERVE acc b 1 EX 60 LBOUND -9223372036854775808",
            "(error) ERR RESERVE: amount would overflow the sum of the open holds",
        );
        let line = format!("SETTLE acc a {a} 9223372036854775807");
        check(t, &line, [1, i64::MAX, 0, 0]);
        let lowest = "RESERVE low a 9223372036854775807 EX 60 LBOUND -9223372036854775808";
        let a = reserve(t, lowest, -i64::MAX, i64::MAX);
        let line = format!("SETTLE low a {a} 9223372036854775807");
        check(t, &line, [1, i64::MAX, -i64::MAX, 0]);
    });
}

/// Calls that are refused, and how the error begins.
const WRONG: &[(&str, &str)] = &[
    (
        "RESERVE acc a 0 EX 1",
        "ERR RESERVE: amount must be an integer from 1",
    ),
    ("RESERVE acc a -1 EX 1", "ERR RESERVE: amount must be"),
    ("RESERVE acc a 1.5 EX 1", "ERR RESERVE: amount must be"),
    (
        "RESERVE acc a 9223372036854775808 EX 1",
        "ERR RESERVE: amount must be",
    ),
    (
        "RESERVE acc \"\" 1 EX 1",
        "ERR RESERVE: id must not be empty",
    ),
    (
        "RESERVE acc a 1 EX 1 LBOUND x",
        "ERR RESERVE: LBOUND must be an integer",
    ),
    (
        "RESERVE acc a 1 EX 1 KEEP 0",
        "ERR RESERVE: KEEP must be an integer of",
    ),
    (
        "RESERVE acc a 1 EX 1 KEEP -5",
        "ERR RESERVE: KEEP must be an integer of",
    ),
    (
        "RESERVE acc a 1 EX 1 ONEXPIRE x",
        "ERR RESERVE: ONEXPIRE must be REFUND or",
    ),
    (
        "RESERVE acc a 1 PXAT 5",
        "ERR RESERVE: the deadline of EXAT or PXAT",
    ),
    (
        "RESERVE acc a 1 PXAT 70368744177664",
        "ERR RESERVE: the deadline and KEEP",
    ),
    (
        "RESERVE acc a 1 EX 1 KEEP 9223372036854775807",
        "ERR RESERVE: the deadline",
    ),
    (
        "RESERVE acc a 1 EX 0",
        "ERR invalid expire time in 'reserve' command",
    ),
    ("RESERVE acc a 1 EX x", "ERR RESERVE: EX must be an integer"),
    ("RESERVE acc a 1 LBOUND 1", "ERR syntax error"),
    ("RESERVE acc a 1 EX 1 PX 1", "ERR syntax error"),
    ("RESERVE acc a 1 EX 1 KEEP 1 KEEP 1", "ERR syntax error"),
    ("RESERVE acc a 1 EX 1 MORE", "ERR syntax error"),
    (
        "RESERVE acc a 1",
        "ERR wrong number of arguments for 'reserve' command",
    ),
    ("RESERVE s a 1 EX 1", "WRONGTYPE Operation"),
    (
        "SETTLE acc a -1 1",
        "ERR SETTLE: token must be an integer from 0",
    ),
    (
        "SETTLE acc a 9007199254740992 1",
        "ERR SETTLE: token must be an integer",
    ),
    (
        "SETTLE acc a 1 -1",
        "ERR SETTLE: amount must be an integer from 0",
    ),
    (
        "SETTLE acc a 1 x",
        "ERR SETTLE: amount must be an integer from 0",
    ),
    ("SETTLE acc \"\" 1 1", "ERR SETTLE: id must not be empty"),
    (
        "SETTLE acc a 1 1 OVERDRAFT x",
        "ERR SETTLE: OVERDRAFT must be REJECT, CLAMP",
    ),
    ("SETTLE acc a 1 1 OVERDRAFT", "ERR syntax error"),
    (
        "SETTLE acc a 1",
        "ERR wrong number of arguments for 'settle' command",
    ),
    ("SETTLE s a 1 1", "WRONGTYPE Operation"),
];

#[test]
fn a_wrong_argument_is_named_and_changes_nothing() {
    let mut t = Transcript::new();
    t.check("HSET acc balance 10", "(integer) 1");
    t.check("SET s text", "OK");
    let batches = t.batches();
    for (line, error) in WRONG {
        let reply = t.run(line);
        assert!(
            reply.starts_with(&format!("(error) {error}")),
            "{line}: {reply}"
        );
    }
    let long = vec![b'x'; crate::limits::FIELD_BYTES_MAX - 7];
    let reply = t.run_bytes(&[b"RESERVE", b"acc", &long, b"1", b"EX", b"1"]);
    let error = "(error) ERR RESERVE: id is longer than 32504 bytes";
    assert_eq!(reply.trim_end(), error);
    let reply = t.run_bytes(&[b"RESERVE", b"acc", &long[1..], b"1", b"EX", b"1"]);
    assert!(reply.starts_with("1) (integer) 1"), "{reply}");
    assert_eq!(t.batches(), batches + 1);
}

#[test]
fn dump_leaves_holds_out_and_keeps_the_balance() {
    let mut t = Transcript::new();
    t.check("HSET acc balance 10 plan gold", "(integer) 2");
    t.check("DUMP none", "(nil)");
    let before = t.run("DUMP acc");
    t.run("RESERVE acc a 3 EX 60");
    assert_eq!(t.run("DUMP acc"), before);
    t.check("HDEL acc balance plan", "(integer) 2");
    t.check("DUMP acc", "(nil)");
}

#[test]
fn a_repeat_is_answered_whatever_became_of_deadline_and_balance() {
    let mut t = Transcript::new();
    t.check("HSET acc balance 10", "(integer) 1");
    let at_ms = t.now_ms() + 100;
    let reserve = format!("RESERVE acc a 3 ONEXPIRE CHARGE PXAT {at_ms}");
    let first = t.run(&reserve);
    assert!(first.starts_with("1) (integer) 1"), "{first}");
    t.advance_ms(200);
    assert_eq!(t.run(&reserve), first);
    t.check("HGET acc balance", "\"7\"");
    t.check("HSET acc balance text", "(integer) 0");
    assert_eq!(t.run(&reserve), first);
    let error = "(error) ERR RESERVE: balance is not an integer";
    t.check(&reserve.replace(" 3 ", " 4 "), error);
}

#[test]
fn options_come_in_any_order() {
    let mut t = Transcript::new();
    t.check("HSET acc balance 10", "(integer) 1");
    for (id, options) in [
        ("a", "KEEP 5 LBOUND -5 EX 60 ONEXPIRE CHARGE"),
        ("b", "ONEXPIRE REFUND PX 60000"),
        ("c", "EX 60 LBOUND 0"),
    ] {
        let reply = t.run(&format!("RESERVE acc {id} 1 {options}"));
        assert!(reply.starts_with("1) (integer) 1"), "{options}: {reply}");
    }
    t.check(
        "RESERVE acc d 1 LBOUND 0 KEEP 5",
        "(error) ERR syntax error",
    );
    t.check(
        "RESERVE acc d 1 EX 5 LBOUND 0 PX 5",
        "(error) ERR syntax error",
    );
}
