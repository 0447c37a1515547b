//! The settings file: TOML, one `name = value` per setting.
//!
//! Always true: an error names file, line, setting and what is allowed, and a rewrite replaces the
//! file whole or leaves it as it was.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use toml_edit::{Array, Document, DocumentMut, Item, Value};

use super::{
    kind::{Change, Kind, Row},
    settings::Settings,
    table::{ROWS, row},
};
use crate::limits::CONFIG_FILE_BYTES_MAX;

/// Reads the file into `settings`.
///
/// # Errors
/// What is wrong, and where, for people.
pub(super) fn load(path: &Path, settings: &mut Settings) -> Result<(), String> {
    let text = read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    apply(&text, settings).map_err(|(line, error)| format!("{}:{line}: {error}", path.display()))
}

/// Writes the settings that differ from their defaults, and those that the file names already.
///
/// # Errors
/// The file is no longer in order, or the disk refused.
pub(super) fn rewrite(path: &Path, settings: &Settings) -> Result<(), String> {
    // A link stays a link: the file behind it is replaced.
    let path = path.canonicalize().map_err(|error| error.to_string())?;
    let before = read(&path).map_err(|error| error.to_string())?;
    apply(&before, &mut Settings::default()).map_err(|(line, e)| format!("line {line}: {e}"))?;
    let after = rewritten(&before, settings)?;
    replace(&path, after.as_bytes()).map_err(|error| error.to_string())
}

/// The file's text; a file above the limit is an error.
fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?
        .take(CONFIG_FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)?;
    if read as u64 > CONFIG_FILE_BYTES_MAX {
        let text = format!("larger than {CONFIG_FILE_BYTES_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(text)
}

/// Applies a file's text. An error comes with its line, from 1.
fn apply(text: &str, settings: &mut Settings) -> Result<(), (usize, String)> {
    let line_at = |offset: usize| {
        1 + text.as_bytes()[..offset]
            .iter()
            .filter(|b| **b == b'\n')
            .count()
    };
    let document = Document::parse(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start.min(text.len()));
        (line_at(offset), error.message().trim().replace('\n', "; "))
    })?;
    for (name, item) in document.iter() {
        let key = document.get_key_value(name).and_then(|(key, _)| key.span());
        let span = key.or_else(|| item.span());
        let line = line_at(span.map_or(0, |span| span.start));
        apply_one(name, item, settings).map_err(|error| (line, error))?;
    }
    Ok(())
}

fn apply_one(name: &str, item: &Item, settings: &mut Settings) -> Result<(), String> {
    let Some(row) = row(name.as_bytes()).filter(|row| row.name == name) else {
        let names: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
        return Err(format!(
            "unknown setting '{name}'; allowed are {}",
            names.join(", ")
        ));
    };
    let allowed = || format!("allowed: {}", row.kind.allowed());
    let text = text_of(item)
        .ok_or_else(|| format!("{name}: not a text, a number or a yes or no; {}", allowed()))?;
    row.kind.set(settings, &text).map_err(|error| {
        format!(
            "{name} = {}: {error}; {}",
            item.to_string().trim(),
            allowed()
        )
    })
}

/// The text of a TOML value: true and false are yes and no, a list is its members with blanks.
fn text_of(item: &Item) -> Option<String> {
    match item.as_value()? {
        Value::String(text) => Some(text.value().clone()),
        Value::Integer(number) => Some(number.value().to_string()),
        Value::Boolean(flag) => Some(if *flag.value() { "yes" } else { "no" }.to_owned()),
        Value::Array(array) => words_of(array),
        Value::Float(_) | Value::Datetime(_) | Value::InlineTable(_) => None,
    }
}

fn words_of(array: &Array) -> Option<String> {
    let words: Option<Vec<String>> = array
        .iter()
        .map(|value| match value {
            Value::String(text) => Some(text.value().clone()),
            Value::Integer(number) => Some(number.value().to_string()),
            _ => None,
        })
        .collect();
    Some(words?.join(" "))
}

/// The file's new text. Values that mean the same stay as they are written, and new ones follow at
/// the end, below any comment (there are no sections that they could fall into).
fn rewritten(before: &str, settings: &Settings) -> Result<String, String> {
    let mut document: DocumentMut = before.parse().map_err(|error| format!("{error}"))?;
    let defaults = Settings::default();
    let mut added = String::new();
    for row in ROWS.iter().filter(|row| row.change != Change::Never) {
        let text = row.kind.text(settings);
        match document.get_mut(row.name) {
            Some(Item::Value(old)) if !means(row, old, settings) => {
                let decor = old.decor().clone();
                *old = value_of(row, &text);
                *old.decor_mut() = decor;
            }
            Some(_) => {}
            None if text == row.kind.text(&defaults) => {}
            None => added.push_str(&format!("{} = {}\n", row.name, value_of(row, &text))),
        }
    }
    let mut after = document.to_string();
    if !added.is_empty() && !after.is_empty() && !after.ends_with('\n') {
        after.push('\n');
    }
    Ok(after + &added)
}

/// Whether a value that is written in the file is the setting's value now.
fn means(row: &Row, written: &Value, settings: &Settings) -> bool {
    let mut copy = settings.clone();
    let text = text_of(&Item::Value(written.clone()));
    text.is_some_and(|text| row.kind.set(&mut copy, &text).is_ok()) && copy == *settings
}

/// A value as TOML, of the type that suits the setting.
fn value_of(row: &Row, text: &str) -> Value {
    match row.kind {
        Kind::Port(_) | Kind::Integer { .. } | Kind::Signed { .. } | Kind::Bytes { .. } => text
            .parse::<i64>()
            .map_or_else(|_| Value::from(text), Value::from),
        Kind::YesNo(_) => Value::from(text == "yes"),
        _ => Value::from(text),
    }
}

/// Replaces a file: written beside it, synced, renamed over it, and the folder synced.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let permissions = fs::metadata(path)?.permissions();
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let beside = PathBuf::from(name);
    let written = (|| {
        let mut file = File::create(&beside)?;
        file.set_permissions(permissions)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    })();
    if let Err(error) = written {
        // The first error is the one to tell; a file left behind does no harm.
        let _ = fs::remove_file(&beside);
        return Err(error);
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AppendFsync, Live};

    fn loaded(text: &str) -> Result<Settings, (usize, String)> {
        let mut settings = Settings::default();
        apply(text, &mut settings).map(|()| settings)
    }

    #[test]
    fn values_come_in_the_types_that_suit_them() {
        let text = "# a comment\nport = 7000\nbind = [\"127.0.0.1\", \"-::1\"]\n\
                    maxmemory = \"1gb\"\nprotected-mode = false\nlatency-tracking = \"yes\"\n\
                    appendfsync = \"no\"\nslowlog-log-slower-than = -1\nunixsocketperm = 700\n";
        let settings = loaded(text).unwrap();
        assert_eq!(settings.port, 7000);
        assert_eq!(settings.bind, "127.0.0.1 -::1");
        assert!(settings.bind_addresses()[1].optional);
        assert_eq!(settings.maxmemory_bytes, 1 << 30);
        assert!(!settings.protected_mode && settings.latency_tracking);
        assert_eq!(settings.appendfsync, AppendFsync::No);
        assert_eq!(settings.slowlog_slower_than_us, -1);
        assert_eq!(settings.unixsocketperm, 0o700);
    }

    #[test]
    fn errors_name_line_setting_and_what_is_allowed() {
        for (text, line, parts) in [
            (
                "port = 1\nprot = 2\n",
                2,
                ["unknown setting 'prot'", "port"],
            ),
            ("\n\nport = 70000\n", 3, ["port = 70000", "0 to 65535"]),
            (
                "appendfsync = \"often\"",
                1,
                ["appendfsync", "everysec, always, no"],
            ),
            ("port = 1.5", 1, ["port: not a text", "0 to 65535"]),
            (
                "[network]\nport = 1",
                1,
                ["unknown setting 'network'", "allowed"],
            ),
            (
                "port = 1\n[bind]\n",
                2,
                ["bind: not a text", "IP addresses"],
            ),
            ("port = 1\n\nport = 2\n", 3, ["duplicate", "key"]),
            ("port = 1\ndir = \"x\n", 2, ["", ""]),
            ("save = \"3600 1\"", 1, ["save", "empty"]),
        ] {
            let (at, error) = loaded(text).unwrap_err();
            assert_eq!(at, line, "{text:?}: {error}");
            assert!(!error.contains('\n'), "{error:?}");
            for part in parts {
                assert!(error.contains(part), "{text:?}: {error}");
            }
        }
    }

    #[test]
    fn a_rewrite_keeps_comments_and_what_means_the_same() {
        let before = "# mine\nport = 7000 # fixed\nmaxmemory = \"1gb\" # all of it\ntimeout = 5\n";
        let mut settings = loaded(before).unwrap();
        assert_eq!(rewritten(before, &settings).unwrap(), before);
        settings.maxmemory_bytes = 2 << 30;
        settings.timeout_seconds = 0;
        settings.requirepass = "se\"cret".to_owned();
        let after = rewritten(before, &settings).unwrap();
        let expected = "# mine\nport = 7000 # fixed\nmaxmemory = 2147483648 # all of it\n\
                        timeout = 0\nrequirepass = 'se\"cret'\n";
        assert_eq!(after, expected);
        assert_eq!(loaded(&after).unwrap(), settings);
    }

    #[test]
    fn a_rewritten_file_reads_back_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tallyman.toml");
        fs::write(&path, "# only this\n").unwrap();
        let mut settings = Settings::default();
        load(&path, &mut settings).unwrap();
        let live = Live::new(settings, Some(path.clone()));
        live.config_set(&[(b"maxclients", b"77"), (b"appendfsync", b"everysec")])
            .unwrap();
        live.config_rewrite().unwrap();
        let mut again = Settings::default();
        load(&path, &mut again).unwrap();
        assert_eq!(again, *live.settings());
        assert!(
            fs::read_to_string(&path)
                .unwrap()
                .starts_with("# only this\n")
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        fs::write(&path, "nonsense = 1\n").unwrap();
        assert!(
            live.config_rewrite()
                .unwrap_err()
                .0
                .contains("line 1: unknown setting")
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), "nonsense = 1\n");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = load(Path::new("/nonexistent/x.toml"), &mut Settings::default()).unwrap_err();
        assert!(error.starts_with("/nonexistent/x.toml: "), "{error}");
    }
}
