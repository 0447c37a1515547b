//! Reading a slot's table in hash order, and drawing from it.

use super::directory::{Bucket, Found, SlotTable};
use super::entry::{EntryRef, TOMBSTONE};

impl SlotTable {
    /// Visits live entries in hash order from `from` on, until `budget` (at least one) were
    /// visited, all of one hash together. Returns how many, and the hash to go on from.
    pub(super) fn scan(
        &self,
        from: u32,
        budget: usize,
        running_sweep: u32,
        f: &mut impl FnMut(EntryRef<'_>),
    ) -> (usize, Option<u32>) {
        let mut visited = 0;
        let mut from = u64::from(from);
        while let Ok(hash32) = u32::try_from(from) {
            if visited >= budget.max(1) {
                return (visited, Some(hash32));
            }
            let (number, end) = self.bucket_range(hash32);
            let bucket = &self.buckets[number as usize];
            let wanted = budget.max(1) - visited;
            let (found, next) = bucket.first_from(hash32, wanted);
            for found in &found {
                f(bucket.entry(found, running_sweep));
            }
            visited += found.len();
            from = next.unwrap_or(end);
        }
        (visited, None)
    }

    /// The live entry at a place in some fixed order, below the number of live ones.
    pub(super) fn nth(&self, mut place: usize, running_sweep: u32) -> Option<EntryRef<'_>> {
        for bucket in &self.buckets {
            if place < bucket.live() {
                let found = bucket.collect(|raw| raw.kind() != TOMBSTONE);
                return Some(bucket.entry(found.get(place)?, running_sweep));
            }
            place -= bucket.live();
        }
        None
    }
}

impl Bucket {
    pub(super) fn entry(&self, found: &Found, running_sweep: u32) -> EntryRef<'_> {
        let segment = self.segment(found.segment);
        self.entry_in(segment, segment.raw_at(found.offset), running_sweep)
    }

    /// The first `wanted` live entries from a hash on, in order, and those that share the last
    /// one's hash; the next hash, if there may be more.
    fn first_from(&self, hash32: u32, wanted: usize) -> (Vec<Found>, Option<u64>) {
        if self.live() == 0 {
            return (Vec::new(), None);
        }
        let mut found = self.collect(|raw| raw.kind() != TOMBSTONE && raw.hash32() >= hash32);
        let mut next = None;
        if found.len() > wanted {
            found.select_nth_unstable_by_key(wanted - 1, |found| found.hash32);
            let last = found[wanted - 1].hash32;
            found.retain(|found| found.hash32 <= last);
            next = Some(u64::from(last) + 1);
        }
        self.sort(&mut found);
        (found, next)
    }
}
