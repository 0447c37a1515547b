use std::sync::atomic::Ordering::Relaxed;

use crate::command::session_transcript::SessionTranscript;
use crate::command::table;
use crate::command::transcript::Transcript;
use crate::config::DebugCommand;
use crate::metrics::{SlowEntry, events};
use crate::session::Next;

#[test]
fn databases_are_counted_emptied_and_exchanged() {
    for recovering in [false, true] {
        let mut t = match recovering {
            false => Transcript::new(),
            true => Transcript::new().recovering(),
        };
        t.check("DBSIZE", "(integer) 0");
        t.check("SET a 1", "OK");
        t.select(1);
        t.check("SET b 2", "OK");
        t.check("SET c 3", "OK");
        t.check("DBSIZE", "(integer) 2");
        t.check("SWAPDB 0 1", "OK");
        t.check("DBSIZE", "(integer) 1");
        t.check("GET a", "\"1\"");
        t.check("FLUSHDB ASYNC", "OK");
        t.check("DBSIZE", "(integer) 0");
        t.select(0);
        t.check("DBSIZE", "(integer) 2");
        t.check("FLUSHALL sync", "OK");
        t.check("DBSIZE", "(integer) 0");
        t.check("SWAPDB 0 0", "OK");
        for (line, error) in [
            ("FLUSHDB FOO", "syntax error"),
            ("FLUSHALL SYNC ASYNC", "syntax error"),
            ("SWAPDB x 1", "invalid first DB index"),
            ("SWAPDB 1 x", "invalid second DB index"),
            ("SWAPDB 1 100", "DB index is out of range"),
            ("DBSIZE x", "wrong number of arguments for 'dbsize' command"),
        ] {
            t.check(line, &format!("(error) ERR {error}"));
        }
    }
}

#[test]
fn values_have_rediss_encodings() {
    let mut t = Transcript::new();
    t.check("SET i 5", "OK");
    t.check("SET big 123456", "OK");
    t.check("SET e hello", "OK");
    let long = "x".repeat(45);
    t.check(&format!("SET r {long}"), "OK");
    t.check("OBJECT ENCODING i", "\"int\"");
    t.check("OBJECT ENCODING e", "\"embstr\"");
    t.check("OBJECT ENCODING r", "\"raw\"");
    t.check("OBJECT ENCODING none", "(nil)");
    t.check("OBJECT REFCOUNT i", "(integer) 2147483647");
    t.check("OBJECT REFCOUNT big", "(integer) 1");
    t.check("OBJECT REFCOUNT none", "(nil)");
    t.check("OBJECT FREQ none", "(nil)");
    assert!(
        t.run("OBJECT FREQ i")
            .contains("An LFU maxmemory policy is not selected")
    );
    t.advance_ms(90_000);
    // How long a key was not used is known in memory alone: it begins again with a read from disk.
    let idle_s = if t.hibernates() { 0 } else { 90 };
    t.check("OBJECT IDLETIME e", &format!("(integer) {idle_s}"));
    t.check("GET e", "\"hello\"");
    t.check("OBJECT IDLETIME e", "(integer) 0");
    t.check("OBJECT IDLETIME none", "(nil)");
    t.check(
        "OBJECT FOO",
        "(error) ERR unknown subcommand 'FOO'. Try OBJECT HELP.",
    );
    assert!(t.run("MEMORY USAGE e SAMPLES 0").starts_with("(integer) "));
    t.check("MEMORY USAGE none", "(nil)");
    t.check("MEMORY USAGE none SAMPLES -1", "(error) ERR syntax error");
    t.check("MEMORY USAGE none FOO", "(error) ERR syntax error");
    assert!(t.run("DEBUG OBJECT i").contains("encoding:int"));
    t.check("DEBUG OBJECT none", "(error) ERR no such key");
}

#[test]
fn hashes_are_listpacks_while_they_are_small() {
    let mut t = Transcript::new();
    let write = |t: &mut Transcript, fields: usize, value: &str| {
        for field in 0..fields {
            let line = format!("HSET h f{field} {value}");
            t.check(&line, "(integer) 1");
        }
    };
    if table().named(b"hset").is_none() {
        return;
    }
    write(&mut t, 3, "v");
    t.check("OBJECT ENCODING h", "\"listpack\"");
    t.keyspace().set_listpack_limits(2, 64);
    t.check("OBJECT ENCODING h", "\"hashtable\"");
    t.keyspace().set_listpack_limits(128, 64);
    t.run(&format!("HSET h long {}", "x".repeat(65)));
    t.check("OBJECT ENCODING h", "\"hashtable\"");
}

#[test]
fn what_waits_or_stops_is_asked_of_the_connection() {
    let mut t = SessionTranscript::new();
    let shutdown = |no_save| Next::Shutdown { no_save };
    t.check_next("SHUTDOWN", shutdown(false));
    t.check_next("SHUTDOWN NOSAVE NOW FORCE", shutdown(true));
    t.check("SHUTDOWN NOSAVE SAVE", "(error) ERR syntax error");
    t.check("SHUTDOWN SAVE ABORT", "(error) ERR syntax error");
    t.check("SHUTDOWN ABORT", "(error) ERR No shutdown in progress.");
    t.check_next("SAVE", Next::Checkpoint { wait: true });
    t.check("BGSAVE", "Background saving started");
    assert_eq!(t.next, Next::Checkpoint { wait: false });
    t.check(
        "BGREWRITEAOF",
        "Background append only file rewriting started",
    );
    t.check("BGSAVE foo", "(error) ERR syntax error");
    t.checkpoint_runs.store(true, Relaxed);
    t.check("BGSAVE", "(error) ERR Background save already in progress");
    t.check("BGSAVE SCHEDULE", "Background saving scheduled");
    t.check("LASTSAVE", "(integer) 1699999990");
    t.check_next("MONITOR", Next::Monitor);
    let wait = |replicas, timeout_ms| Next::WaitReplicas {
        replicas,
        timeout_ms,
    };
    t.check_next("WAIT 1 10", wait(1, 10));
    t.check("WAIT 0 -1", "(error) ERR timeout is negative");
    t.check(
        "WAIT 0 abc",
        "(error) ERR timeout is not an integer or out of range",
    );
    let durable = Next::WaitDurable {
        local: 1,
        replicas: 0,
        timeout_ms: 5,
    };
    t.check_next("WAITAOF 1 0 5", durable);
    t.check(
        "WAITAOF 2 0 5",
        "(error) ERR value is out of range, value must between 0 and 1",
    );
    t.check(
        "WAITAOF 1 -1 5",
        "(error) ERR value is out of range, must be positive",
    );
}

#[test]
fn time_role_and_users() {
    let mut t = SessionTranscript::new();
    t.advance_ms(250);
    t.check("TIME", "1) \"1700000000\"\n2) \"250000\"");
    t.check("ROLE", "1) \"master\"\n2) (integer) 0\n3) (empty array)");
    t.check("ACL WHOAMI", "\"default\"");
    t.check("ACL USERS", "1) \"default\"");
    assert!(t.run("ACL CAT connection").contains("\"client|kill\""));
    t.check("ACL CAT foo", "(error) ERR Unknown category 'foo'");
    assert!(t.run("LOLWUT VERSION 5 1").contains("tallyman ver."));
    t.check(
        "LOLWUT VERSION x",
        "(error) ERR value is not an integer or out of range",
    );
}

#[test]
fn settings_are_shown_and_changed() {
    let mut t = SessionTranscript::new();
    t.check("CONFIG GET databases", "1) \"databases\"\n2) \"16\"");
    t.check("CONFIG GET DATABASES nosuch", "1) \"DATABASES\"\n2) \"16\"");
    t.check("CONFIG GET nosuch", "(empty array)");
    t.check("CONFIG SET timeout 5 maxmemory 1mb", "OK");
    t.check("CONFIG GET timeou?", "1) \"timeout\"\n2) \"5\"");
    for (line, error) in [
        (
            "CONFIG SET nosuch 1",
            "ERR Unknown option or number of arguments for CONFIG SET - 'nosuch'",
        ),
        (
            "CONFIG SET timeout",
            "ERR wrong number of arguments for 'config|set' command",
        ),
        (
            "CONFIG SET databases 5",
            "ERR CONFIG SET failed (possibly related to argument 'databases') - can't set \
             immutable config",
        ),
        (
            "CONFIG REWRITE",
            "ERR The server is running without a config file",
        ),
    ] {
        t.check(line, &format!("(error) {error}"));
    }
    t.shared.metrics.shards()[0].record_error(b"ERR x");
    t.check("CONFIG RESETSTAT", "OK");
    assert_eq!(t.shared.metrics.total(|shard| &shard.error_replies), 0);
}

#[test]
fn info_has_the_sections_that_are_asked_for() {
    let mut t = SessionTranscript::new();
    let get = table().named(b"get").expect("a command");
    t.shared.metrics.shards()[0].record_call(get.0 as usize, 3_000, false, true);
    let text = t.run("INFO");
    assert_eq!(
        t.next,
        Next::WhenQueued,
        "keys are counted when they are on disk"
    );
    for field in [
        "# Server\\r\\nredis_version:7.2.0\\r\\n",
        "tcp_port:6379",
        "uptime_in_seconds:60",
        "connected_clients:1",
        "maxmemory:0",
        "rdb_changes_since_last_save:3",
        "total_commands_processed:1",
        "role:master",
        "# Tallyman\\r\\ndurable_lsn:7",
        "# Keyspace\\r\\ndb0:keys=5,expires=2,avg_ttl=0\\r\\ndb3:keys=1,expires=0,avg_ttl=0",
    ] {
        assert!(text.contains(field), "{field} in {text}");
    }
    assert!(!text.contains("cmdstat_get"));
    let text = t.run("INFO everything");
    assert!(text.contains("cmdstat_get:calls=1,usec=3,usec_per_call=3.00"));
    assert!(text.contains("latency_percentiles_usec_get:p50=3."));
    t.check("INFO nosuch", "\"\"");
    assert_eq!(t.next, Next::Done);
    let text = t.run("INFO replication CLUSTER");
    assert_eq!(text.matches("# ").count(), 2, "{text}");
}

#[test]
fn slow_commands_are_shown() {
    let mut t = SessionTranscript::new();
    t.check("SLOWLOG GET", "(empty array)");
    let words: [&[u8]; 2] = [b"GET", b"a"];
    for _ in 0..12 {
        let entry = SlowEntry::new(1_500, 20, words.into_iter(), "1.2.3.4:5", b"me");
        t.shared.metrics.slow_log.record(entry, 128);
    }
    t.check("SLOWLOG LEN", "(integer) 12");
    let newest = t.run("SLOWLOG GET 1");
    assert!(
        newest.contains("(integer) 11") && newest.contains("\"1.2.3.4:5\""),
        "{newest}"
    );
    assert_eq!(t.run("SLOWLOG GET").matches("\"me\"").count(), 10);
    assert_eq!(t.run("SLOWLOG GET -1").matches("\"me\"").count(), 12);
    let error = "(error) ERR count should be greater than or equal to -1";
    t.check("SLOWLOG GET -2", error);
    t.check("SLOWLOG GET abc", error);
    t.check("SLOWLOG RESET", "OK");
    t.check("SLOWLOG LEN", "(integer) 0");
}

#[test]
fn latencies_are_shown() {
    let mut t = SessionTranscript::new();
    t.check("LATENCY LATEST", "(empty array)");
    t.check("LATENCY HISTORY nosuch", "(empty array)");
    t.check(
        "LATENCY GRAPH foo",
        "(error) ERR No samples available for event 'foo'",
    );
    let latency = &t.shared.metrics.latency;
    latency.record(events::COMMAND, 1_700_000_000_000, 20_000_000, 10);
    let sample = "1) 1) (integer) 1700000000\n   2) (integer) 20";
    t.check("LATENCY HISTORY command", sample);
    assert!(t.run("LATENCY LATEST").contains("\"command\""));
    assert!(
        t.run("LATENCY GRAPH command")
            .contains("command - high 20 ms")
    );
    t.check("LATENCY RESET nosuch", "(integer) 0");
    t.check("LATENCY RESET", "(integer) 1");
    assert!(t.run("LATENCY DOCTOR").contains("latency monitor is off"));
    let get = table().named(b"client|list").expect("a command");
    t.shared.metrics.shards()[0].record_call(get.0 as usize, 3_000, false, true);
    assert!(
        t.run("LATENCY HISTOGRAM client")
            .contains("\"client|list\"")
    );
    assert!(t.run("LATENCY HISTOGRAM").contains("\"histogram_usec\""));
    t.check("LATENCY HISTOGRAM get nosuch", "(empty array)");
}

#[test]
fn memory_is_described() {
    let mut t = SessionTranscript::new();
    let stats = t.run("MEMORY STATS");
    assert!(stats.contains("\"keys.count\"") && stats.contains("\"dataset.bytes\""));
    t.check("MEMORY PURGE", "OK");
    assert!(t.run("MEMORY DOCTOR").contains("maxmemory"));
    assert!(t.run("MEMORY MALLOC-STATS").contains("Stats not supported"));
}

#[test]
fn debug_is_for_those_who_may() {
    let mut t = SessionTranscript::new();
    assert!(
        t.run("DEBUG SLEEP 0")
            .starts_with("(error) ERR DEBUG command not allowed.")
    );
    t.session.client = t.other_client("10.0.0.1:7");
    let mut t = SessionTranscript::with(|s| s.enable_debug_command = DebugCommand::Local);
    t.check("DEBUG SLEEP 0.5", "OK");
    assert_eq!(t.next, Next::Sleep(500_000));
    t.session.client = t.other_client("10.0.0.1:7");
    assert!(
        t.run("DEBUG SLEEP 0")
            .starts_with("(error) ERR DEBUG command not allowed.")
    );
    let mut t = SessionTranscript::with(|s| s.enable_debug_command = DebugCommand::Yes);
    t.session.client = t.other_client("10.0.0.1:7");
    t.check_next("DEBUG RELOAD NOSAVE", Next::Reload);
    t.check_next("DEBUG LOADAOF", Next::Reload);
    t.check("DEBUG JMAP", "OK");
    t.check("DEBUG SLEEP x", "(error) ERR value is not a valid float");
    let mut keys = Transcript::new();
    keys.check("DEBUG SET-ACTIVE-EXPIRE 0", "OK");
}

#[test]
fn the_command_table_is_shown() {
    let mut t = SessionTranscript::new();
    let info = t.run("COMMAND INFO get nosuch");
    assert!(
        info.starts_with("1)  1) \"get\"\n    2) (integer) 2\n    3) 1) readonly"),
        "{info}"
    );
    assert!(info.trim_end().ends_with("2) (nil)"), "{info}");
    t.check("COMMAND DOCS nosuch", "(empty array)");
    assert!(t.run("COMMAND DOCS set").contains("\"summary\""));
    let count = table()
        .rows()
        .iter()
        .filter(|row| !row.spec.name.contains('|'))
        .count();
    t.check("COMMAND COUNT", &format!("(integer) {count}"));
    assert!(t.run("COMMAND").contains("\"incr\""));
    t.check("COMMAND LIST FILTERBY PATTERN ECH?", "1) \"echo\"");
    t.check("COMMAND LIST FILTERBY MODULE x", "(empty array)");
    assert!(
        t.run("COMMAND LIST FILTERBY ACLCAT admin")
            .contains("\"config|set\"")
    );
    assert!(t.run("COMMAND LIST").contains("\"config|set\""));
    for (line, error) in [
        ("COMMAND FOO", "unknown subcommand 'FOO'. Try COMMAND HELP."),
        ("COMMAND LIST FOO", "syntax error"),
        ("COMMAND LIST FILTERBY", "syntax error"),
        ("COMMAND LIST FILTERBY FOO x", "syntax error"),
        ("COMMAND GETKEYS PING", "The command has no key arguments"),
        ("COMMAND GETKEYS NOSUCH a", "Invalid command specified"),
        (
            "COMMAND GETKEYS GET",
            "Invalid number of arguments specified for command",
        ),
        (
            "COMMAND GETKEYS",
            "wrong number of arguments for 'command|getkeys' command",
        ),
    ] {
        t.check(line, &format!("(error) ERR {error}"));
    }
    t.check("COMMAND GETKEYS OBJECT ENCODING a", "1) \"a\"");
    t.check(
        "COMMAND GETKEYSANDFLAGS INCR a",
        "1) 1) \"a\"\n   2) 1) RW\n      2) access\n      3) update",
    );
    assert!(t.run("COMMAND HELP").contains("(no subcommand)"));
}
