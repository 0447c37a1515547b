//! The settings: one row each, in the order of `--help` and the README.
//!
//! Always true: every default is an allowed value, names are unique, and each row of kind other
//! than `Fact` has a field of its own in `Settings`.

use super::{
    kind::{At, Change, Group, Kind, Row},
    settings::{AppendFsync, DebugCommand, LogFormat, LogLevel, parse_bind},
};
use crate::limits::{
    CLIENTS_MAX, DATABASES_MAX, PASSWORD_BYTES_MAX, SHARDS_MAX, SLOWLOG_ENTRIES_MAX,
    STRING_BYTES_MAX,
};

const MB: usize = 1 << 20;
const GB: usize = 1 << 30;

/// The row with this name, in any case.
pub fn row(name: &[u8]) -> Option<&'static Row> {
    ROWS.iter()
        .find(|row| row.name.as_bytes().eq_ignore_ascii_case(name))
}

/// All settings.
pub const ROWS: &[Row] = &[
    setting(
        Change::AtStart,
        "bind",
        Group::Network,
        "127.0.0.1",
        BIND,
        "Addresses to listen on, separated by blanks; * is all of IPv4, and one with - in front \
         may be missing on this machine.",
    ),
    setting(
        Change::AtStart,
        "port",
        Group::Network,
        "6379",
        Kind::Port(|s| &mut s.port),
        "TCP port; 0 takes a free one and prints it.",
    ),
    setting(
        Change::AtStart,
        "unixsocket",
        Group::Network,
        "",
        text("a path, or empty for none", any_text, |s| &mut s.unixsocket),
        "Path of a Unix socket to listen on as well; empty for none.",
    ),
    setting(
        Change::AtStart,
        "unixsocketperm",
        Group::Network,
        "0",
        Kind::Mode(|s| &mut s.unixsocketperm),
        "Mode of the Unix socket in octal; 0 leaves what the umask gives.",
    ),
    setting(
        Change::AtStart,
        "tcp-backlog",
        Group::Network,
        "511",
        integer(1, 65_535, |s| &mut s.tcp_backlog),
        "Connections that may wait to be accepted.",
    ),
    setting(
        Change::Live,
        "maxclients",
        Group::Network,
        "10000",
        integer(1, CLIENTS_MAX, |s| &mut s.maxclients),
        "Most connections at a time; further ones get an error and are closed.",
    ),
    setting(
        Change::Live,
        "timeout",
        Group::Network,
        "0",
        integer(0, 2_147_483_647, |s| &mut s.timeout_seconds),
        "Seconds after which an idle connection is closed; 0 for never.",
    ),
    setting(
        Change::Live,
        "tcp-keepalive",
        Group::Network,
        "300",
        integer(0, 32_767, |s| &mut s.tcp_keepalive_seconds),
        "Seconds of silence before a TCP keepalive probe; 0 sends none.",
    ),
    setting(
        Change::Live,
        "protected-mode",
        Group::Access,
        "yes",
        Kind::YesNo(|s| &mut s.protected_mode),
        "Whether connections from other machines are refused while there is no password.",
    ),
    setting(
        Change::Live,
        "requirepass",
        Group::Access,
        "",
        text("at most 512 bytes", password, |s| &mut s.requirepass),
        "Password that AUTH and HELLO ask for; empty for none.",
    ),
    setting(
        Change::AtStart,
        "enable-debug-command",
        Group::Access,
        "no",
        Kind::Choice {
            words: DebugCommand::WORDS,
            read: |s| s.enable_debug_command as usize,
            write: |s, index| s.enable_debug_command = DebugCommand::ALL[index],
        },
        "Who may use DEBUG; local means connections from this machine.",
    ),
    setting(
        Change::AtStart,
        "dir",
        Group::Data,
        "./tallyman-data",
        text("a path", some_text, |s| &mut s.dir),
        "Folder that holds the data; it is created if it is missing.",
    ),
    setting(
        Change::AtStart,
        "backup-dir",
        Group::Data,
        "",
        text("a path, or empty for none", any_text, |s| &mut s.backup_dir),
        "Folder in which BACKUP may make copies of the data folder; empty refuses BACKUP.",
    ),
    setting(
        Change::AtStart,
        "shards",
        Group::Data,
        "0",
        integer(0, SHARDS_MAX, |s| &mut s.shards),
        "Threads that own keys and serve connections; 0 for one per core but one, \
         which the log needs. May be another number at each start.",
    ),
    setting(
        Change::AtStart,
        "databases",
        Group::Data,
        "16",
        integer(1, DATABASES_MAX, |s| &mut s.databases),
        "Numbered databases that SELECT can choose from.",
    ),
    setting(
        Change::Live,
        "appendfsync",
        Group::Data,
        "always",
        Kind::Choice {
            words: AppendFsync::WORDS,
            read: |s| s.appendfsync as usize,
            write: |s, index| s.appendfsync = AppendFsync::ALL[index],
        },
        "When a write is on disk: always, before anybody sees it; everysec, within about a \
         second after it was answered; no, when the operating system likes.",
    ),
    setting(
        Change::AtStart,
        "log-segment-size",
        Group::Data,
        "64mb",
        bytes(MB, 4 * GB, |s| &mut s.log_segment_bytes),
        "Bytes of one file of the commit log; files are allocated whole and used again.",
    ),
    setting(
        Change::Live,
        "checkpoint-size",
        Group::Data,
        "512mb",
        bytes(MB, 64 * GB, |s| &mut s.checkpoint_bytes),
        "Bytes of log after which a checkpoint moves them to the store.",
    ),
    setting(
        Change::Live,
        "proto-max-bulk-len",
        Group::Limits,
        "512mb",
        bytes(MB, STRING_BYTES_MAX, |s| &mut s.proto_max_bulk_bytes),
        "Bytes of the largest argument and the largest string value.",
    ),
    setting(
        Change::Live,
        "client-query-buffer-limit",
        Group::Limits,
        "1gb",
        bytes(MB, 64 * GB, |s| &mut s.client_query_buffer_bytes),
        "Bytes of requests that one connection may have unanswered in memory; above them it is \
         closed.",
    ),
    setting(
        Change::Live,
        "client-output-buffer-limit",
        Group::Limits,
        "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60",
        Kind::OutputBuffers(|s| &mut s.client_output_buffer),
        "Bytes of released replies that a client may leave unread before it is disconnected, per \
         class: at once above the hard limit, above the soft limit after so many seconds. 0 is \
         the server's own limit of 1gb.",
    ),
    setting(
        Change::Live,
        "arguments-max",
        Group::Limits,
        "1048576",
        integer(64, 16 * MB, |s| &mut s.arguments_max),
        "Most arguments of one command.",
    ),
    setting(
        Change::AtStart,
        "mailbox-max",
        Group::Limits,
        "1024",
        integer(16, MB, |s| &mut s.mailbox_calls_max),
        "Messages from other shards that may wait for one shard; then their connections are not \
         read from until there is room.",
    ),
    setting(
        Change::Live,
        "multi-commands-max",
        Group::Limits,
        "65536",
        integer(1, 16 * MB, |s| &mut s.multi_commands_max),
        "Most commands that one MULTI block may queue.",
    ),
    setting(
        Change::Live,
        "multi-bytes-max",
        Group::Limits,
        "1gb",
        bytes(MB, 4 * GB, |s| &mut s.multi_bytes_max),
        "Most bytes of commands that one MULTI block may queue.",
    ),
    setting(
        Change::Live,
        "maxmemory",
        Group::Memory,
        "0",
        bytes(0, 1 << 50, |s| &mut s.maxmemory_bytes),
        "Most memory for keys; 0: no bound. Beyond it, keys that were not used for long hibernate \
         on disk. The process takes up to 128 MiB more.",
    ),
    setting(
        Change::Never,
        "maxmemory-policy",
        Group::Memory,
        "noeviction",
        Kind::Fact("noeviction"),
        "No key is ever deleted to free memory: eviction here means that it hibernates on disk.",
    ),
    setting(
        Change::Live,
        "hash-max-listpack-entries",
        Group::Memory,
        "128",
        integer(0, 1 << 30, |s| &mut s.hash_max_listpack_entries),
        "Most fields of a hash that OBJECT ENCODING calls a listpack.",
    ),
    setting(
        Change::Live,
        "hash-max-listpack-value",
        Group::Memory,
        "64",
        integer(0, 1 << 30, |s| &mut s.hash_max_listpack_value_bytes),
        "Bytes of the longest field or value of a hash that OBJECT ENCODING calls a listpack.",
    ),
    setting(
        Change::Live,
        "loglevel",
        Group::Observing,
        "notice",
        Kind::Choice {
            words: LogLevel::WORDS,
            read: |s| s.loglevel as usize,
            write: |s, index| s.loglevel = LogLevel::ALL[index],
        },
        "Least severe lines that are logged, on standard error.",
    ),
    setting(
        Change::AtStart,
        "logformat",
        Group::Observing,
        "text",
        Kind::Choice {
            words: LogFormat::WORDS,
            read: |s| s.logformat as usize,
            write: |s, index| s.logformat = LogFormat::ALL[index],
        },
        "Whether a log line is text or a JSON object.",
    ),
    setting(
        Change::Live,
        "slowlog-log-slower-than",
        Group::Observing,
        "10000",
        Kind::Signed {
            min: -1,
            max: i64::MAX,
            at: |s| &mut s.slowlog_slower_than_us,
        },
        "Microseconds from which a command enters SLOWLOG; 0 for all, -1 for none.",
    ),
    setting(
        Change::Live,
        "slowlog-max-len",
        Group::Observing,
        "128",
        integer(0, SLOWLOG_ENTRIES_MAX, |s| &mut s.slowlog_entries_max),
        "Entries that SLOWLOG keeps.",
    ),
    setting(
        Change::Live,
        "latency-monitor-threshold",
        Group::Observing,
        "0",
        integer(0, 1 << 40, |s| &mut s.latency_monitor_threshold_ms),
        "Milliseconds from which LATENCY keeps an event; 0 keeps none.",
    ),
    setting(
        Change::Live,
        "latency-tracking",
        Group::Observing,
        "yes",
        Kind::YesNo(|s| &mut s.latency_tracking),
        "Whether the latency of every command is counted for INFO and LATENCY HISTOGRAM.",
    ),
    fact("appendonly", "yes", "The commit log is always on."),
    fact(
        "save",
        "",
        "There are no snapshots by time: every write is logged.",
    ),
    fact("cluster-enabled", "no", "This is one node."),
    fact(
        "notify-keyspace-events",
        "",
        "Keyspace notifications are not there yet.",
    ),
    fact("maxmemory-samples", "5", "What Redis says."),
    fact(
        "hz",
        "10",
        "What Redis says; timers here run when they are due.",
    ),
    fact("daemonize", "no", "The server stays in the foreground."),
    fact("replicaof", "", "There is no replication."),
];

const BIND: Kind = text("IP addresses, *, or empty for none", bind, |s| &mut s.bind);

const fn setting(
    change: Change,
    name: &'static str,
    group: Group,
    default: &'static str,
    kind: Kind,
    doc: &'static str,
) -> Row {
    Row {
        name,
        group,
        default,
        change,
        kind,
        doc,
    }
}

const fn fact(name: &'static str, value: &'static str, doc: &'static str) -> Row {
    setting(
        Change::Never,
        name,
        Group::Compatibility,
        value,
        Kind::Fact(value),
        doc,
    )
}

const fn integer(min: usize, max: usize, at: At<usize>) -> Kind {
    Kind::Integer { min, max, at }
}

const fn bytes(min: usize, max: usize, at: At<usize>) -> Kind {
    Kind::Bytes { min, max, at }
}

const fn text(
    allowed: &'static str,
    check: fn(&str) -> Result<(), String>,
    at: At<String>,
) -> Kind {
    Kind::Text { allowed, check, at }
}

fn any_text(text: &str) -> Result<(), String> {
    if text.contains('\0') {
        return Err("argument must not contain a NUL byte".to_owned());
    }
    Ok(())
}

fn some_text(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("argument must not be empty".to_owned());
    }
    any_text(text)
}

fn password(text: &str) -> Result<(), String> {
    if text.len() > PASSWORD_BYTES_MAX {
        return Err(format!(
            "argument must be at most {PASSWORD_BYTES_MAX} bytes long"
        ));
    }
    Ok(())
}

fn bind(text: &str) -> Result<(), String> {
    parse_bind(text).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    #[test]
    fn every_default_is_allowed_and_reads_back() {
        let settings = Settings::default();
        for row in ROWS {
            let text = row.kind.text(&settings);
            let mut copy = settings.clone();
            row.kind
                .set(&mut copy, &text)
                .unwrap_or_else(|error| panic!("{}: {error}", row.name));
            assert_eq!(copy, settings, "{}", row.name);
        }
    }

    #[test]
    fn names_are_unique_lower_case_and_documented() {
        for (index, one) in ROWS.iter().enumerate() {
            assert!(
                one.name
                    .bytes()
                    .all(|b| b == b'-' || b.is_ascii_lowercase()),
                "{}",
                one.name
            );
            assert!(
                one.doc.ends_with('.') && !one.doc.contains("  "),
                "{}",
                one.name
            );
            assert_eq!(
                row(one.name.to_uppercase().as_bytes()).map(|r| r.name),
                Some(one.name)
            );
            assert!(
                ROWS[..index].iter().all(|other| other.name != one.name),
                "{}",
                one.name
            );
        }
    }

    #[test]
    fn groups_stand_together() {
        let mut groups: Vec<Group> = ROWS.iter().map(|row| row.group).collect();
        groups.dedup();
        assert_eq!(groups, Group::ALL);
    }

    #[test]
    fn facts_and_only_facts_never_change() {
        for row in ROWS.iter().filter(|row| matches!(row.kind, Kind::Fact(_))) {
            assert_eq!(row.change, Change::Never, "{}", row.name);
        }
        for row in ROWS.iter().filter(|row| row.change == Change::Never) {
            assert!(matches!(row.kind, Kind::Fact(_)), "{}", row.name);
        }
    }

    #[test]
    fn every_word_of_a_choice_reads_back() {
        for row in ROWS {
            let Kind::Choice { words, .. } = row.kind else {
                continue;
            };
            for word in words {
                let mut settings = Settings::default();
                row.kind.set(&mut settings, word).unwrap();
                assert_eq!(row.kind.text(&settings), *word, "{}", row.name);
            }
        }
    }
}
