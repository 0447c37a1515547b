//! Log lines: to standard error, as text or JSON, through `tracing`; and the one line that says the
//! server is ready, to standard output.
//!
//! Always true: a broken standard error or output loses lines, and does nothing else to the server.

use std::{fmt::Display, io::Write, path::Path, time::Duration};

use tracing_log::AsLog;
use tracing_subscriber::{
    Layer, Registry,
    filter::{LevelFilter, Targets},
    layer::SubscriberExt,
    reload,
    util::SubscriberInitExt,
};

use crate::config::{LogFormat, LogLevel};

/// Crates below ours that report through `log`: their everyday lines are of no use to an operator.
const QUIET_TARGETS: [&str; 2] = ["fjall", "lsm_tree"];

/// Changes the level of a running server's log lines.
#[derive(Debug, Clone)]
pub struct LevelHandle(Option<reload::Handle<Targets, Registry>>);

impl LevelHandle {
    /// From now on the least severe line that is logged is of this level.
    pub fn set(&self, level: LogLevel) {
        if let Some(handle) = &self.0 {
            // Fails only when the subscriber is gone, at the very end of the process.
            let _ = handle.reload(filter(level));
            // The `log` crate has a level of its own in front, set once when logging started.
            tracing_log::log::set_max_level(level_filter(level).as_log());
        }
    }
}

/// Starts logging for the whole process, lines of the `log` crate included. Where something else
/// has started it before (a test), that stays, and the handle has no effect.
pub fn start(level: LogLevel, format: LogFormat) -> LevelHandle {
    let (filter, handle) = reload::Layer::new(filter(level));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_thread_names(true)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        // The layer would report a broken standard error by a print that panics there.
        .log_internal_errors(false);
    let lines = match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_ansi(false).boxed(),
    };
    let started = Registry::default()
        .with(lines.with_filter(filter))
        .try_init();
    LevelHandle(started.is_ok().then_some(handle))
}

fn filter(level: LogLevel) -> Targets {
    let level = level_filter(level);
    let quiet = if level >= LevelFilter::DEBUG {
        level
    } else {
        level.min(LevelFilter::WARN)
    };
    let targets = Targets::new().with_default(level);
    targets.with_targets(QUIET_TARGETS.map(|target| (target, quiet)))
}

fn level_filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Trace => LevelFilter::TRACE,
        LogLevel::Debug | LogLevel::Verbose => LevelFilter::DEBUG,
        LogLevel::Notice | LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warning | LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Nothing => LevelFilter::OFF,
    }
}

/// What the ready line tells.
#[derive(Debug, Clone, Copy)]
pub struct Ready<'a> {
    /// Where clients connect: `127.0.0.1:6379`, or the path of a Unix socket. With the real port.
    pub addresses: &'a [String],
    pub shards: usize,
    pub dir: &'a Path,
    /// Keys that the start found on disk.
    pub keys: u64,
    /// From the start of the process until now.
    pub took: Duration,
}

impl Display for Ready<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let addresses = self.addresses.join(", ");
        let (shards, keys) = (
            counted(self.shards as u64, "shard"),
            counted(self.keys, "key"),
        );
        let (dir, seconds) = (self.dir.display(), self.took.as_secs_f64());
        write!(
            formatter,
            "tallyman ready on {addresses}: {shards}, data in {dir}, {keys} recovered in \
             {seconds:.3} s"
        )
    }
}

/// Prints the one line that says the server is ready, on standard output.
pub fn announce(ready: &Ready<'_>) {
    // Nobody may be reading: the server is ready all the same.
    let mut stdout = std::io::stdout().lock();
    let line = ready.to_string().replace(['\n', '\r'], " ");
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_line_tells_all() {
        let addresses = ["127.0.0.1:6379".to_owned(), "/tmp/t.sock".to_owned()];
        let dir = Path::new("./tallyman-data");
        let took = Duration::from_millis(12);
        let ready = Ready {
            addresses: &addresses,
            shards: 1,
            dir,
            keys: 12_345,
            took,
        };
        let line = "tallyman ready on 127.0.0.1:6379, /tmp/t.sock: 1 shard, data in \
                    ./tallyman-data, 12345 keys recovered in 0.012 s";
        assert_eq!(ready.to_string(), line);
    }

    #[test]
    fn the_stores_everyday_lines_are_left_out() {
        let notice = filter(LogLevel::Notice);
        assert!(notice.would_enable("tallyman::server", &tracing::Level::INFO));
        assert!(!notice.would_enable("fjall::journal", &tracing::Level::INFO));
        assert!(notice.would_enable("fjall::journal", &tracing::Level::WARN));
        assert!(filter(LogLevel::Debug).would_enable("fjall", &tracing::Level::DEBUG));
        assert!(!filter(LogLevel::Nothing).would_enable("tallyman", &tracing::Level::ERROR));
        assert!(!filter(LogLevel::Error).would_enable("fjall", &tracing::Level::WARN));
    }
}
