use std::sync::atomic::Ordering::Relaxed;

use crate::command::session_transcript::SessionTranscript;
use crate::command::table;
use crate::command::transcript::words;
use crate::resp::Protocol;
use crate::session::{Next, ReplyMode, redacted};

#[test]
fn hello_chooses_the_protocol_and_tells_what_the_server_is() {
    let mut t = SessionTranscript::new();
    for (line, error) in [
        ("HELLO 4", "NOPROTO unsupported protocol version"),
        (
            "HELLO abc",
            "ERR Protocol version is not an integer or out of range",
        ),
        ("HELLO 3 FOO", "ERR Syntax error in HELLO option 'FOO'"),
        (
            "HELLO 3 AUTH default",
            "ERR Syntax error in HELLO option 'AUTH'",
        ),
        (
            "HELLO 3 setname",
            "ERR Syntax error in HELLO option 'setname'",
        ),
        (
            "HELLO 3 SETNAME \"bad name\"",
            "ERR Client names cannot contain spaces, newlines or special characters.",
        ),
        (
            "HELLO 3 AUTH foo bar",
            "WRONGPASS invalid username-password pair or user is disabled.",
        ),
    ] {
        t.check(line, &format!("(error) {error}"));
        assert_eq!(t.session.protocol, Protocol::Resp2, "{line}");
    }
    let reply = t.run("HELLO 3 AUTH default any SETNAME me");
    assert!(reply.contains("\"proto\" => (integer) 3"), "{reply}");
    assert!(reply.contains("\"version\" => \"7.2.0\""), "{reply}");
    t.check("CLIENT GETNAME", "\"me\"");
    assert!(t.run("HELLO").contains("\"proto\" => (integer) 3"));
    assert!(t.run("HELLO 2").contains("\"proto\"\n 6) (integer) 2"));
}

#[test]
fn a_password_is_asked_for() {
    let mut t = SessionTranscript::with(|settings| settings.requirepass = "secret".into());
    t.check("PING", "(error) NOAUTH Authentication required.");
    let refused = "(error) WRONGPASS invalid username-password pair or user is disabled.";
    t.check("AUTH wrong", refused);
    t.check("AUTH other secret", refused);
    t.check("AUTH a b c", "(error) ERR syntax error");
    assert!(
        t.run("HELLO 3")
            .starts_with("(error) NOAUTH HELLO must be called")
    );
    assert_eq!(t.shared.metrics.total(|shard| &shard.auth_failures), 2);
    t.check("AUTH default secret", "OK");
    t.check("PING", "PONG");
    t.check_next("RESET", Next::Reset);
    t.check("PING", "(error) NOAUTH Authentication required.");
    assert!(t.run("HELLO 2 AUTH default secret").contains("redis"));
    t.check("PING", "PONG");
    let mut open = SessionTranscript::new();
    assert!(
        open.run("AUTH pw")
            .starts_with("(error) ERR AUTH <password> called without")
    );
    open.check("AUTH default pw", "OK");
    open.check(
        "AUTH",
        "(error) ERR wrong number of arguments for 'auth' command",
    );
}

#[test]
fn small_commands() {
    let mut t = SessionTranscript::new();
    t.check("PING", "PONG");
    t.check("PING hello", "\"hello\"");
    t.check(
        "PING a b",
        "(error) ERR wrong number of arguments for 'ping' command",
    );
    t.check("ECHO hi", "\"hi\"");
    t.check("SELECT 3", "OK");
    assert_eq!(t.session.database, 3);
    t.check("SELECT 16", "(error) ERR DB index is out of range");
    t.check("SELECT -1", "(error) ERR DB index is out of range");
    t.check(
        "SELECT x",
        "(error) ERR value is not an integer or out of range",
    );
    t.check("QUIT", "OK");
    assert_eq!(t.next, Next::Close);
    t.check("RESET", "RESET");
    assert_eq!(t.session.database, 0);
}

#[test]
fn a_client_tells_about_itself() {
    let mut t = SessionTranscript::new();
    t.check("CLIENT ID", "(integer) 1");
    t.check("CLIENT GETNAME", "(nil)");
    t.check("CLIENT SETNAME tester", "OK");
    t.check("CLIENT GETNAME", "\"tester\"");
    let bad = "(error) ERR Client names cannot contain spaces, newlines or special characters.";
    t.check("CLIENT SETNAME \"bad\\n\"", bad);
    t.check("CLIENT SETINFO LIB-NAME redis-py", "OK");
    t.check("CLIENT SETINFO lib-ver 5.0", "OK");
    t.check("CLIENT SETINFO x y", "(error) ERR Unrecognized option 'x'");
    t.advance_ms(2_000);
    let line = t.run("CLIENT INFO");
    for part in [
        "id=1 addr=127.0.0.1:50000 laddr=127.0.0.1:6379 fd=9 name=tester age=2",
        "flags=N db=0",
        "multi=-1",
        "cmd=client|info user=default",
        "resp=2 lib-name=redis-py lib-ver=5.0",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
    t.check("CLIENT SETNAME \"\"", "OK");
    t.check("CLIENT GETNAME", "(nil)");
    t.check("CLIENT GETREDIR", "(integer) -1");
    t.check("CLIENT NO-EVICT on", "OK");
    t.check("CLIENT NO-TOUCH on", "OK");
    t.check("CLIENT NO-EVICT foo", "(error) ERR syntax error");
    assert!(t.run("CLIENT INFO").contains("flags=eT "));
    assert!(t.run("CLIENT TRACKING ON").starts_with("(error) ERR"));
    t.check("CLIENT TRACKING OFF", "OK");
    assert!(
        t.run("CLIENT CACHING YES")
            .starts_with("(error) ERR CLIENT CACHING")
    );
}

#[test]
fn replies_are_switched_off_and_on() {
    let mut t = SessionTranscript::new();
    t.check("CLIENT REPLY FOO", "(error) ERR syntax error");
    t.check("CLIENT REPLY OFF", "");
    assert_eq!(t.session.reply_mode, ReplyMode::Off);
    t.check("CLIENT REPLY SKIP", "");
    assert_eq!(t.session.reply_mode, ReplyMode::Off);
    t.check("CLIENT REPLY ON", "OK");
    t.check("CLIENT REPLY SKIP", "");
    assert_eq!(t.session.reply_mode, ReplyMode::SkipNext);
}

#[test]
fn clients_are_listed_and_killed() {
    let mut t = SessionTranscript::new();
    let second = t.other_client("127.0.0.1:50001");
    let third = t.other_client("[::1]:50002");
    assert_eq!(t.run("CLIENT LIST").matches("id=").count(), 3);
    assert_eq!(t.run("CLIENT LIST ID 2 99 3").matches("id=").count(), 2);
    t.check("CLIENT LIST TYPE pubsub", "\"\"");
    for (line, error) in [
        ("CLIENT LIST TYPE foo", "Unknown client type 'foo'"),
        ("CLIENT LIST FOO", "syntax error"),
        ("CLIENT LIST ID abc", "Invalid client ID"),
        ("CLIENT LIST ID", "syntax error"),
        ("CLIENT KILL 1.2.3.4:5", "No such client"),
        ("CLIENT KILL ID abc", "client-id should be greater than 0"),
        ("CLIENT KILL ID 0", "client-id should be greater than 0"),
        ("CLIENT KILL TYPE foo", "Unknown client type 'foo'"),
        ("CLIENT KILL USER nobody", "No such user 'nobody'"),
        ("CLIENT KILL SKIPME foo", "syntax error"),
        ("CLIENT KILL FOO bar", "syntax error"),
        ("CLIENT KILL ID 5 TYPE", "syntax error"),
        (
            "CLIENT KILL",
            "wrong number of arguments for 'client|kill' command",
        ),
    ] {
        t.check(line, &format!("(error) ERR {error}"));
    }
    t.check("CLIENT KILL ID 99", "(integer) 0");
    t.check("CLIENT KILL ADDR 127.0.0.1:50001 ID 3", "(integer) 0");
    t.check("CLIENT KILL MAXAGE 5", "(integer) 0");
    assert!(!second.killed.load(Relaxed));
    t.check("CLIENT KILL 127.0.0.1:50001", "OK");
    assert!(second.killed.load(Relaxed) && !third.killed.load(Relaxed));
    t.shared.clients.remove(2);
    t.check("CLIENT KILL TYPE normal", "(integer) 1");
    assert!(third.killed.load(Relaxed));
    assert_eq!(t.next, Next::Done, "SKIPME is the default");
    t.check("CLIENT KILL LADDR 127.0.0.1:6379 SKIPME no", "(integer) 2");
    assert_eq!(t.next, Next::Close);
}

#[test]
fn clients_are_paused_and_unblocked() {
    let mut t = SessionTranscript::new();
    for (line, error) in [
        (
            "CLIENT PAUSE abc",
            "timeout is not an integer or out of range",
        ),
        ("CLIENT PAUSE -1", "timeout is negative"),
        (
            "CLIENT PAUSE 0 FOO",
            "CLIENT PAUSE mode must be WRITE or ALL",
        ),
        (
            "CLIENT UNBLOCK 1 FOO",
            "CLIENT UNBLOCK reason should be TIMEOUT or ERROR",
        ),
        (
            "CLIENT UNBLOCK abc",
            "value is not an integer or out of range",
        ),
    ] {
        t.check(line, &format!("(error) ERR {error}"));
    }
    t.check("CLIENT PAUSE 1000 WRITE", "OK");
    let clients = &t.shared.clients;
    assert_eq!(clients.paused_until_ms.load(Relaxed), 1_700_000_001_000);
    assert!(!clients.paused_all.load(Relaxed));
    t.check("CLIENT PAUSE 500", "OK");
    let clients = &t.shared.clients;
    assert_eq!(clients.paused_until_ms.load(Relaxed), 1_700_000_001_000);
    assert!(clients.paused_all.load(Relaxed));
    t.check("CLIENT UNPAUSE", "OK");
    assert_eq!(t.shared.clients.paused_until_ms.load(Relaxed), 0);
    let other = t.other_client("127.0.0.1:50001");
    t.check("CLIENT UNBLOCK 2", "(integer) 0");
    other.blocked.store(true, Relaxed);
    t.check("CLIENT UNBLOCK 2 ERROR", "(integer) 1");
    assert_eq!(other.unblock.load(Relaxed), 2);
}

#[test]
fn help_lists_the_subcommands() {
    let mut t = SessionTranscript::new();
    let help = t.run("CLIENT HELP");
    assert!(help.contains("CLIENT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"));
    assert!(help.contains("SETNAME connection-name"), "{help}");
    assert!(help.trim_end().ends_with("Prints this help."), "{help}");
    t.check(
        "CLIENT FOO",
        "(error) ERR unknown subcommand 'FOO'. Try CLIENT HELP.",
    );
    t.check(
        "CLIENT",
        "(error) ERR wrong number of arguments for 'client' command",
    );
}

#[test]
fn passwords_are_not_shown() {
    let shown = |line: &str| {
        let args = words(line);
        let id = table().find(args.args()).expect("a command");
        let args = redacted(table().row(id), args.args()).unwrap_or(args);
        let words: Vec<String> = args.args().iter().map(lossy).collect();
        words.join(" ")
    };
    assert_eq!(shown("AUTH pw"), "AUTH (redacted)");
    assert_eq!(shown("auth me pw"), "auth (redacted) (redacted)");
    assert_eq!(
        shown("HELLO 3 AUTH me pw SETNAME n"),
        "HELLO 3 AUTH (redacted) (redacted) SETNAME n"
    );
    assert_eq!(
        shown("CONFIG SET timeout 1 requirepass pw"),
        "CONFIG SET timeout 1 requirepass (redacted)"
    );
    assert_eq!(shown("SET auth pw"), "SET auth pw");
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
