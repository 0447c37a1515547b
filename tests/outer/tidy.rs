//! Style as a test: what the code promises about itself, checked on its text. What was longer than
//! allowed when a rule came may shrink, never grow.

use std::fs;
use std::path::{Path, PathBuf};

/// Columns of a line, at most.
const COLUMNS_MAX: usize = 100;
/// Lines of a function, at most.
const FUNCTION_LINES_MAX: usize = 70;

/// Longer functions that were there when the rule came: file, name, lines.
const LONG_FUNCTIONS: &[(&str, &str, usize)] = &[
    ("command/hashes/model.rs", "call", 72),
    ("command/server/memory.rs", "run", 73),
    ("command/server/stats.rs", "stats", 83),
    (
        "command/states/tests.rs",
        "bad_arguments_are_named_and_change_nothing",
        128,
    ),
    ("keyspace/codec.rs", "mutation", 81),
    ("number/long_double.rs", "sums_are_those_of_redis", 165),
    ("server/engine.rs", "info", 73),
    ("worker/tests.rs", "crash_once", 95),
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Every source file below `src`: its name there, and its text.
fn files() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    sources(&root, &mut paths);
    let read = |path: PathBuf| {
        let name = path
            .strip_prefix(&root)
            .expect("below src")
            .display()
            .to_string();
        let text = fs::read_to_string(&path).expect("readable text");
        (name, text)
    };
    paths.into_iter().map(read).collect()
}

/// A file's text without its tests.
fn production(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod ").next().unwrap_or(text)
}

fn is_test(name: &str) -> bool {
    ["tests", "model", "transcript"]
        .iter()
        .any(|word| name.contains(word))
}

#[test]
fn every_file_says_what_it_is_for() {
    for (name, text) in files() {
        assert!(
            text.starts_with("//!") || is_test(&name),
            "{name} has no header"
        );
    }
}

#[test]
fn lines_fit() {
    for (name, text) in files().into_iter().filter(|(name, _)| !is_test(name)) {
        for (index, line) in text.lines().enumerate() {
            let columns = line.chars().count();
            assert!(
                columns <= COLUMNS_MAX,
                "{name}:{}: {columns} columns",
                index + 1
            );
        }
    }
}

#[test]
fn functions_fit_on_a_screen() {
    let mut long: Vec<String> = Vec::new();
    for (name, text) in files() {
        let mut begun: Option<(usize, String, usize)> = None;
        for (index, line) in text.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let is_head = line
                .trim_start()
                .split(' ')
                .take(4)
                .any(|word| word == "fn");
            if is_head && line.trim_end().ends_with('{') | line.trim_end().ends_with('(') {
                let after = line.split("fn ").nth(1).unwrap_or_default();
                let function = after
                    .split(['(', '<'])
                    .next()
                    .unwrap_or_default()
                    .to_owned();
                begun = Some((index, function, indent));
            }
            let Some((start, function, depth)) = &begun else {
                continue;
            };
            if line.trim() == "}" && indent == *depth {
                let lines = index - start + 1;
                let known = LONG_FUNCTIONS
                    .iter()
                    .find(|(file, long, _)| file == &name && long == function);
                let allowed = known.map_or(FUNCTION_LINES_MAX, |(_, _, lines)| *lines);
                if lines > allowed {
                    long.push(format!("(\"{name}\", \"{function}\", {lines})"));
                }
                begun = None;
            }
        }
    }
    assert!(long.is_empty(), "too long: {}", long.join(", "));
}

#[test]
fn clocks_are_read_in_one_place() {
    for (name, text) in files() {
        if name == "clock.rs" || is_test(&name) {
            continue;
        }
        for call in ["Instant::now", "SystemTime::now"] {
            assert!(
                !production(&text).contains(call),
                "{name} reads a clock: {call}"
            );
        }
    }
}

#[test]
fn data_goes_one_way() {
    /// Who must not name whom.
    const NEVER: &[(&str, &[&str])] = &[
        (
            "resp/",
            &[
                "crate::command",
                "crate::keyspace",
                "crate::worker",
                "tokio",
            ],
        ),
        (
            "keyspace/",
            &[
                "crate::shard",
                "crate::conn",
                "crate::worker",
                "crate::log",
                "tokio",
            ],
        ),
        (
            "log/",
            &[
                "crate::keyspace",
                "crate::command",
                "crate::worker",
                "tokio",
            ],
        ),
        (
            "store/",
            &["crate::command", "crate::worker", "crate::conn", "tokio"],
        ),
        (
            "command/",
            &[
                "crate::conn",
                "crate::log",
                "crate::shard",
                "crate::worker",
                "tokio::",
            ],
        ),
        ("shard/", &["crate::worker", "crate::server", "tokio"]),
    ];
    for (name, text) in files() {
        for (folder, names) in NEVER {
            if name.starts_with(folder) && !is_test(&name) {
                for word in *names {
                    assert!(!production(&text).contains(word), "{name} names {word}");
                }
            }
        }
        if name.starts_with("store/") || is_test(&name) {
            continue;
        }
        assert!(!production(&text).contains("fjall::"), "{name} names fjall");
    }
}

#[test]
fn network_code_is_safe() {
    for (name, text) in files() {
        let lines = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        for line in lines {
            let unsafe_code = line.contains("unsafe {") || line.contains("unsafe fn");
            assert!(!unsafe_code, "{name} has unsafe code: {line}");
        }
    }
}
