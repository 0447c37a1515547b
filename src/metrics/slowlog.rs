//! SLOWLOG: the commands that took long.
//!
//! Always true: at most as many entries as the settings allow, each cut to a bounded size.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::limits::{SLOWLOG_ARG_BYTES_MAX, SLOWLOG_ARGS_MAX};

/// One slow command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlowEntry {
    /// Counts up over the server's life; the log sets it.
    pub id: u64,
    /// When it ran: seconds since the Unix epoch.
    pub at_s: u64,
    pub microseconds: u64,
    /// The command and its arguments, cut as Redis cuts them.
    pub arguments: Vec<Vec<u8>>,
    pub client_address: String,
    pub client_name: Vec<u8>,
}

impl SlowEntry {
    /// An entry of a command that ran at `at_ms` for so long. Keeps the first 32 arguments and 128
    /// bytes of each, and says how much is missing.
    pub fn new<'a>(
        at_ms: u64,
        microseconds: u64,
        arguments: impl ExactSizeIterator<Item = &'a [u8]>,
        client_address: &str,
        client_name: &[u8],
    ) -> SlowEntry {
        SlowEntry {
            id: 0,
            at_s: at_ms / 1_000,
            microseconds,
            arguments: cut_arguments(arguments),
            client_address: client_address.to_owned(),
            client_name: client_name.to_vec(),
        }
    }
}

fn cut_arguments<'a>(arguments: impl ExactSizeIterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
    let count = arguments.len();
    let kept = if count > SLOWLOG_ARGS_MAX {
        SLOWLOG_ARGS_MAX - 1
    } else {
        count
    };
    let mut cut: Vec<Vec<u8>> = arguments.take(kept).map(cut_argument).collect();
    if kept < count {
        cut.push(format!("... ({} more arguments)", count - kept).into_bytes());
    }
    cut
}

fn cut_argument(argument: &[u8]) -> Vec<u8> {
    let Some(missing) = argument
        .len()
        .checked_sub(SLOWLOG_ARG_BYTES_MAX)
        .filter(|m| *m > 0)
    else {
        return argument.to_vec();
    };
    let mut cut = argument[..SLOWLOG_ARG_BYTES_MAX].to_vec();
    cut.extend_from_slice(format!("... ({missing} more bytes)").as_bytes());
    cut
}

/// The log. All shards share it; only a slow command takes its lock.
#[derive(Debug, Default)]
pub struct SlowLog(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    /// The newest first.
    entries: VecDeque<SlowEntry>,
    next_id: u64,
}

impl SlowLog {
    /// Keeps an entry, and forgets the oldest above `entries_max` (the setting `slowlog-max-len`).
    pub fn record(&self, mut entry: SlowEntry, entries_max: usize) {
        let mut log = self.lock();
        entry.id = log.next_id;
        log.next_id += 1;
        log.entries.push_front(entry);
        log.entries.truncate(entries_max);
    }

    /// The newest entries, the newest first; at most `count`.
    pub fn newest(&self, count: usize) -> Vec<SlowEntry> {
        self.lock().entries.iter().take(count).cloned().collect()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.lock().entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all entries. Ids go on counting.
    pub fn reset(&self) {
        self.lock().entries.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a command that took so long is slow, with the setting `slowlog-log-slower-than`.
pub fn is_slow(nanoseconds: u64, slower_than_us: i64) -> bool {
    u64::try_from(slower_than_us).is_ok_and(|limit_us| nanoseconds / 1_000 >= limit_us)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(arguments: &[&[u8]]) -> SlowEntry {
        SlowEntry::new(
            1_500,
            20_000,
            arguments.iter().copied(),
            "127.0.0.1:5",
            b"me",
        )
    }

    #[test]
    fn it_keeps_the_newest() {
        let log = SlowLog::default();
        for _ in 0..5 {
            log.record(entry(&[b"GET", b"a"]), 3);
        }
        let ids: Vec<u64> = log.newest(10).iter().map(|entry| entry.id).collect();
        assert_eq!(ids, [4, 3, 2]);
        assert_eq!(log.newest(1)[0].at_s, 1);
        log.reset();
        assert!(log.is_empty());
        log.record(entry(&[b"GET", b"a"]), 3);
        assert_eq!(log.newest(10)[0].id, 5);
        log.record(entry(&[b"GET", b"a"]), 0);
        assert!(log.is_empty(), "a maximum of 0 keeps none");
    }

    #[test]
    fn entries_are_cut() {
        let long = vec![b'x'; 130];
        let cut = entry(&[&long, &long[..128]]).arguments;
        assert_eq!(cut[0], [&long[..128], b"... (2 more bytes)"].concat());
        assert_eq!(cut[1], &long[..128]);
        let many: Vec<&[u8]> = vec![b"a"; 40];
        let cut = entry(&many).arguments;
        assert_eq!(
            (cut.len(), cut[31].as_slice()),
            (32, &b"... (9 more arguments)"[..])
        );
        assert_eq!(entry(&many[..32]).arguments.len(), 32);
        assert_eq!(entry(&many[..32]).arguments[31], b"a");
    }

    #[test]
    fn slow_is_what_the_setting_says() {
        assert!(is_slow(10_000_000, 10_000) && !is_slow(9_999_999, 10_000));
        assert!(is_slow(0, 0) && !is_slow(u64::MAX, -1));
    }
}
