//! The deadline rows, as far as they can be read.
//!
//! A deadline row only says where to look: the key has its deadline itself, and whoever uses the
//! key sees it. So rows that are damaged are passed over with a warning, and those behind them
//! are served as ever.

use bytes::Bytes;

use super::row::{DEADLINES_BEGIN, RowKey, deadlines};
use super::{Rows, Store, StoreError};

/// Keys of deadline rows, ascending.
pub struct DeadlineRows<'a> {
    store: &'a dyn Store,
    rows: Rows,
    /// Where all this ends: the row, exclusive, and its time.
    to: Vec<u8>,
    to_ms: u64,
    /// The time of the last row, or that which all this began with.
    at_ms: u64,
    /// The first step over damage: twice as far each time until a row is read again, so that all
    /// this ends whatever the store says.
    step_ms: u64,
    warned: bool,
}

impl<'a> DeadlineRows<'a> {
    /// The rows from the row `from` on, of what is due before `to_ms`.
    pub fn new(store: &'a dyn Store, from: &[u8], to_ms: u64) -> DeadlineRows<'a> {
        let (_, to) = deadlines(0, to_ms);
        DeadlineRows {
            rows: store.scan(from, &to),
            at_ms: time(from),
            store,
            to,
            to_ms,
            step_ms: 1,
            warned: false,
        }
    }

    /// The rows of what is due from `from_ms` on and before `to_ms`.
    pub fn between(store: &'a dyn Store, from_ms: u64, to_ms: u64) -> DeadlineRows<'a> {
        DeadlineRows::new(store, &deadlines(from_ms, to_ms).0, to_ms)
    }

    fn warn(&mut self, what: &dyn std::fmt::Display) {
        if !std::mem::replace(&mut self.warned, true) {
            tracing::warn!("deadlines cannot all be read, some keys expire late: {what}");
        }
    }

    /// Goes on at the first time behind the damage that can be read: tries times that are ever
    /// further away, then halves the way back. What lies between damage in two places may be passed
    /// over with both.
    fn pass_over_damage(&mut self) {
        let mut step_ms = self.step_ms;
        self.step_ms = step_ms.saturating_mul(2);
        let mut bad_ms = self.at_ms;
        let mut good_ms = self.to_ms;
        while let Some(probe_ms) = bad_ms.checked_add(step_ms).filter(|ms| *ms < good_ms) {
            if self.can_read_at(probe_ms) {
                good_ms = probe_ms;
                break;
            }
            bad_ms = probe_ms;
            step_ms = step_ms.saturating_mul(2);
        }
        while good_ms.saturating_sub(bad_ms) > self.step_ms / 2 {
            let probe_ms = bad_ms.midpoint(good_ms);
            if self.can_read_at(probe_ms) {
                good_ms = probe_ms;
            } else {
                bad_ms = probe_ms;
            }
        }
        self.at_ms = good_ms;
        let (from, _) = deadlines(good_ms, good_ms);
        self.rows = self.store.scan(&from, &self.to);
    }

    fn can_read_at(&self, ms: u64) -> bool {
        let (from, _) = deadlines(ms, ms);
        !self.store.is_damaged(&from, &self.to)
    }
}

/// The time of a deadline row, which may be cut short; 0 when it has none.
fn time(row: &[u8]) -> u64 {
    row.strip_prefix(DEADLINES_BEGIN)
        .and_then(|rest| rest.first_chunk())
        .map_or(0, |ms| u64::from_be_bytes(*ms))
}

impl Iterator for DeadlineRows<'_> {
    type Item = Result<Bytes, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.rows.next()? {
                Ok((row, _)) => match RowKey::decode(&row) {
                    Ok(RowKey::Deadline { at_ms, .. }) => {
                        (self.at_ms, self.step_ms) = (at_ms, 1);
                        return Some(Ok(row));
                    }
                    _ => self.warn(&format!("no deadline: {}", row.escape_ascii())),
                },
                Err(error @ StoreError::Damaged { .. }) if self.at_ms < self.to_ms => {
                    self.warn(&error);
                    self.pass_over_damage();
                }
                // Damage at the very end is passed over by ending.
                Err(StoreError::Damaged { .. }) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use proptest::collection::btree_set;
    use proptest::prelude::*;

    use super::*;
    use crate::store::{DeadlineOf, Fill, Finish, MapStore};

    /// A disk that reads something else each time: a scan is damaged, and a look is not.
    #[derive(Default)]
    struct Fickle {
        scans: AtomicUsize,
    }

    impl Store for Fickle {
        fn get(&self, _: &[u8]) -> Result<Option<Bytes>, StoreError> {
            Ok(None)
        }

        fn scan(&self, _: &[u8], _: &[u8]) -> Rows {
            let scans = self.scans.fetch_add(1, Ordering::Relaxed);
            assert!(scans < 1_000, "asked for ever");
            Box::new(std::iter::once(Err(StoreError::damaged("disk", "now"))))
        }

        fn is_damaged(&self, _: &[u8], _: &[u8]) -> bool {
            false
        }

        fn ingest(&self, _: &mut Fill<'_>) -> Result<bool, StoreError> {
            Ok(false)
        }

        fn depth(&self) -> usize {
            0
        }

        fn disk_bytes(&self) -> u64 {
            0
        }

        fn relieve(&self) -> Result<bool, StoreError> {
            Ok(false)
        }

        fn needs_reopen(&self) -> bool {
            false
        }

        fn reopen(&self) -> Result<(), StoreError> {
            Ok(())
        }
    }

    #[test]
    fn it_ends_whatever_the_store_says() {
        assert_eq!(
            DeadlineRows::between(&Fickle::default(), 0, u64::MAX).count(),
            0
        );
    }

    fn row(at_ms: u64) -> Vec<u8> {
        RowKey::Deadline {
            at_ms,
            slot: 1,
            database: 0,
            key: b"key",
            of: DeadlineOf::Key,
        }
        .encode()
    }

    fn filled(times: &BTreeSet<u64>) -> MapStore {
        let store = MapStore::new();
        let filled = store.ingest(&mut |ingestion| {
            for at_ms in times {
                ingestion.put(&row(*at_ms), &[])?;
            }
            Ok(Finish::Rows)
        });
        assert_eq!(filled, Ok(true));
        store
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn damage_in_one_place_hides_nothing_else(
            times in btree_set(0..3_000_000_000_000_u64, 1..60),
            first in any::<prop::sample::Index>(),
            count in 1..20_usize,
            to_ms in 2_000_000_000_000..4_000_000_000_000_u64,
        ) {
            let store = filled(&times);
            let first = first.index(times.len());
            let damaged: BTreeSet<u64> = times.iter().copied().skip(first).take(count).collect();
            for at_ms in &damaged {
                store.damage(&row(*at_ms));
            }
            let reads = store.reads();
            let found: Result<Vec<_>, _> = DeadlineRows::between(&store, 0, to_ms).collect();
            let all = times.difference(&damaged).filter(|at_ms| **at_ms < to_ms);
            prop_assert_eq!(found.unwrap(), all.map(|at_ms| row(*at_ms)).collect::<Vec<_>>());
            prop_assert!(store.reads() - reads < 100, "few looks pass over it");
        }
    }
}
