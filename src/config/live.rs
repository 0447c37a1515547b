//! The settings of a running server: read by every shard, changed by CONFIG SET.
//!
//! Always true: a change is seen whole or not at all, and readers take no lock.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arc_swap::{ArcSwap, cache::Cache};

use super::{
    file,
    kind::{Change, Row},
    settings::Settings,
    table::{ROWS, row},
};

/// The settings of the running server. Shared in an `Arc`; threads read through [`Reader`].
pub struct Live {
    current: Arc<ArcSwap<Settings>>,
    /// One CONFIG SET or REWRITE at a time; what to call after a change.
    watchers: Mutex<Vec<Watcher>>,
    file: Option<PathBuf>,
}

type Watcher = Box<dyn Fn(&Settings) + Send>;

/// Why CONFIG SET or CONFIG REWRITE did nothing: the error's text, `ERR` included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetError(pub String);

impl Live {
    /// `file` is what `--config` named.
    pub fn new(settings: Settings, file: Option<PathBuf>) -> Live {
        let current = Arc::new(ArcSwap::from_pointee(settings));
        Live {
            current,
            watchers: Mutex::new(Vec::new()),
            file,
        }
    }

    /// The settings now.
    pub fn settings(&self) -> Arc<Settings> {
        self.current.load_full()
    }

    /// A reader for one thread.
    pub fn reader(&self) -> Reader {
        Reader(Cache::new(self.current.clone()))
    }

    /// The settings file, if there is one.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Calls `watcher` after every change, on the thread that made it. It must be quick.
    pub fn watch(&self, watcher: impl Fn(&Settings) + Send + 'static) {
        self.lock().push(Box::new(watcher));
    }

    /// CONFIG GET: names and values of the settings that any of the patterns matches, each once, in
    /// the table's order. `glob(pattern, name)` is Redis's matcher; both sides come in lower case.
    pub fn config_get(
        &self,
        patterns: &[&[u8]],
        glob: impl Fn(&[u8], &[u8]) -> bool,
    ) -> Vec<(&'static str, String)> {
        let settings = self.settings();
        let patterns: Vec<Vec<u8>> = patterns.iter().map(|p| p.to_ascii_lowercase()).collect();
        let wanted = |row: &&Row| patterns.iter().any(|p| glob(p, row.name.as_bytes()));
        ROWS.iter()
            .filter(wanted)
            .map(|row| (row.name, row.kind.text(&settings)))
            .collect()
    }

    /// CONFIG SET: all pairs or none.
    ///
    /// # Errors
    /// Redis's text, for the first pair that cannot be set.
    pub fn config_set(&self, pairs: &[(&[u8], &[u8])]) -> Result<(), SetError> {
        let watchers = self.lock();
        let mut settings = Settings::clone(&self.settings());
        let rows = settable(pairs)?;
        for (row, (_, value)) in rows.iter().zip(pairs) {
            let set = match std::str::from_utf8(value) {
                Ok(text) => row.kind.set(&mut settings, text),
                Err(_) => Err("argument must be UTF-8 text".to_owned()),
            };
            set.map_err(|error| failed(row.name, &error))?;
        }
        settings
            .check_relations()
            .map_err(|(name, error)| failed(name, &error))?;
        let settings = Arc::new(settings);
        self.current.store(settings.clone());
        for watcher in watchers.iter() {
            watcher(&settings);
        }
        Ok(())
    }

    /// CONFIG REWRITE: writes what differs from the defaults into the settings file, whole and
    /// synced, and keeps its comments. Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// There is no file, it is no longer in order, or it cannot be written: it stays as it was.
    pub fn config_rewrite(&self) -> Result<(), SetError> {
        let _one_at_a_time = self.lock();
        let Some(path) = &self.file else {
            return Err(SetError(
                "ERR The server is running without a config file".to_owned(),
            ));
        };
        file::rewrite(path, &self.settings())
            .map_err(|error| SetError(format!("ERR Rewriting config file: {error}")))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Watcher>> {
        // A watcher that panicked left the settings whole.
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Live {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Live")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

/// The rows of a CONFIG SET whose names are all known, may change now, and come once.
fn settable(pairs: &[(&[u8], &[u8])]) -> Result<Vec<&'static Row>, SetError> {
    let mut rows: Vec<&'static Row> = Vec::with_capacity(pairs.len());
    for (name, value) in pairs {
        let Some(row) = row(name) else {
            let name = printable(name);
            let text =
                format!("ERR Unknown option or number of arguments for CONFIG SET - '{name}'");
            return Err(SetError(text));
        };
        // To repeat a fact is no change.
        let repeats =
            row.change == Change::Never && value.eq_ignore_ascii_case(row.default.as_bytes());
        if row.change != Change::Live && !repeats {
            return Err(failed(row.name, "can't set immutable config"));
        }
        if rows.iter().any(|other| other.name == row.name) {
            return Err(failed(row.name, "duplicate parameter"));
        }
        rows.push(row);
    }
    Ok(rows)
}

fn failed(name: &str, error: &str) -> SetError {
    let place = format!("(possibly related to argument '{name}')");
    SetError(format!("ERR CONFIG SET failed {place} - {error}"))
}

/// A client's name in an error line: no line breaks, not endless.
fn printable(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(&name[..name.len().min(128)]);
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// One thread's view of the settings: costs one atomic load while nothing changes.
#[derive(Clone)]
pub struct Reader(Cache<Arc<ArcSwap<Settings>>, Arc<Settings>>);

impl Reader {
    /// The settings now. Read once per turn.
    pub fn current(&mut self) -> &Arc<Settings> {
        self.0.load()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live() -> Live {
        Live::new(Settings::default(), None)
    }

    fn set(live: &Live, pairs: &[(&str, &str)]) -> Result<(), String> {
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(n, v)| (n.as_bytes(), v.as_bytes()))
            .collect();
        live.config_set(&pairs).map_err(|error| error.0)
    }

    fn get(live: &Live, patterns: &[&[u8]]) -> Vec<(&'static str, String)> {
        live.config_get(patterns, |pattern, name| match pattern.strip_suffix(b"*") {
            Some(prefix) => name.starts_with(prefix),
            None => name == pattern,
        })
    }

    #[test]
    fn get_answers_each_setting_once() {
        let live = live();
        assert_eq!(get(&live, &[b"port"]), [("port", "6379".to_owned())]);
        assert_eq!(get(&live, &[b"nonsense"]), []);
        let both = get(&live, &[b"SLOWLOG-*", b"slowlog-max-len", b"save"]);
        let names: Vec<_> = both.iter().map(|(name, _)| *name).collect();
        assert_eq!(
            names,
            ["slowlog-log-slower-than", "slowlog-max-len", "save"]
        );
        assert_eq!(get(&live, &[b"*"]).len(), ROWS.len());
        assert_eq!(get(&live, &[b"maxmemory"]), [("maxmemory", "0".to_owned())]);
    }

    #[test]
    fn set_changes_all_or_nothing() {
        let live = live();
        let mut reader = live.reader();
        set(&live, &[("TIMEOUT", "5"), ("maxmemory", "100mb")]).unwrap();
        assert_eq!(reader.current().timeout_seconds, 5);
        assert_eq!(reader.current().maxmemory_bytes, 100 << 20);
        let before = live.settings();
        assert!(set(&live, &[("timeout", "6"), ("maxmemory", "lots")]).is_err());
        assert_eq!(live.settings(), before);
    }

    #[test]
    fn errors_are_in_rediss_words() {
        let live = live();
        let failed = |name: &str, text: &str| {
            Err(format!(
                "ERR CONFIG SET failed (possibly related to argument '{name}') - {text}"
            ))
        };
        for (pairs, expected) in [
            (
                vec![("nonsense", "1")],
                Err("ERR Unknown option or number of arguments for CONFIG SET - 'nonsense'".into()),
            ),
            (
                vec![("port", "1")],
                failed("port", "can't set immutable config"),
            ),
            (
                vec![("timeout", "1"), ("Timeout", "2")],
                failed("timeout", "duplicate parameter"),
            ),
            (
                vec![("timeout", "x")],
                failed("timeout", "argument couldn't be parsed into an integer"),
            ),
            (
                vec![("maxclients", "0")],
                failed(
                    "maxclients",
                    "argument must be between 1 and 1000000 inclusive",
                ),
            ),
            (
                vec![("maxmemory", "x")],
                failed("maxmemory", "argument must be a memory value"),
            ),
            (
                vec![("latency-tracking", "1")],
                failed("latency-tracking", "argument must be 'yes' or 'no'"),
            ),
            (
                vec![("appendfsync", "x")],
                failed(
                    "appendfsync",
                    "argument(s) must be one of the following: everysec, always, no",
                ),
            ),
            (
                vec![("appendonly", "no")],
                failed("appendonly", "can't set immutable config"),
            ),
            (vec![("appendonly", "yes"), ("save", "")], Ok(())),
        ] {
            assert_eq!(set(&live, &pairs), expected);
        }
        let binary = live.config_set(&[(b"requirepass", b"\xff")]);
        assert!(
            binary
                .unwrap_err()
                .0
                .ends_with("argument must be UTF-8 text")
        );
        let hostile = live.config_set(&[(b"a\r\nb", b"")]).unwrap_err();
        assert!(hostile.0.ends_with("'a  b'"));
    }

    #[test]
    fn watchers_hear_of_changes() {
        let live = live();
        let (told, heard) = std::sync::mpsc::channel();
        live.watch(move |settings| told.send(settings.timeout_seconds).unwrap());
        set(&live, &[("timeout", "9")]).unwrap();
        assert_eq!(heard.try_recv(), Ok(9));
        assert!(set(&live, &[("timeout", "-9")]).is_err());
        assert!(heard.try_recv().is_err());
    }

    #[test]
    fn rewrite_needs_a_file() {
        let error = live().config_rewrite().unwrap_err();
        assert_eq!(error.0, "ERR The server is running without a config file");
    }
}
