//! The entries of one slot in one database: extendible hashing over buckets of segments.
//!
//! The high `depth` bits of a key's stored hash choose a bucket; a full bucket splits by its next
//! bit. So buckets are in hash order, and nothing is ever rehashed as a whole. Where splitting
//! does not help (keys forged to share their hash), a bucket takes more segments instead; the
//! directory stays in proportion to the entries.

use smallvec::SmallVec;

use super::Key;
use super::entry::{DIRTY, EntryRef, IN_FLIGHT, Raw, TOMBSTONE};
use super::segment::{Given, Segment, Tally};

/// Directory words that are always allowed, and entries per further word.
const DIRECTORY_WORDS_FREE: usize = 16;
const DIRECTORY_ENTRIES_PER_WORD: usize = 64;

/// Entries that share the high `depth` bits of their hash.
#[derive(Default)]
pub(super) struct Bucket {
    first: Segment,
    more: Vec<Segment>,
    pub(super) depth: u8,
    /// The last sweep that took something here: its in-flight marks are the valid ones.
    pub(super) swept: u32,
    /// True when that sweep took tombstones or hashes, which have to be tidied up after it.
    pub(super) unsettled: bool,
}

/// An entry's place: segment of the bucket, and offset in it.
#[derive(Clone, Copy)]
pub(super) struct Found {
    pub(super) hash32: u32,
    pub(super) segment: u32,
    pub(super) offset: u32,
}

/// The entries of one slot in one database.
pub(super) struct SlotTable {
    depth: u8,
    directory: Vec<u32>,
    /// The first one lies in the table itself: most slots have no other, and each memory that a
    /// look-up goes through costs as much as all its computing.
    pub(super) buckets: SmallVec<[Bucket; 1]>,
    pub(super) tally: Tally,
}

/// A cell in a slot's table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    bucket: u32,
    segment: u32,
    pub(super) cell: u32,
}

impl Bucket {
    pub(super) fn segment(&self, number: u32) -> &Segment {
        match number {
            0 => &self.first,
            number => &self.more[number as usize - 1],
        }
    }

    pub(super) fn segment_mut(&mut self, number: u32) -> &mut Segment {
        match number {
            0 => &mut self.first,
            number => &mut self.more[number as usize - 1],
        }
    }

    pub(super) fn segments(&self) -> impl Iterator<Item = &Segment> {
        std::iter::once(&self.first).chain(&self.more)
    }

    pub(super) fn segment_numbers(&self) -> std::ops::RangeInclusive<u32> {
        0..=self.more.len() as u32
    }

    pub(super) fn live(&self) -> usize {
        self.segments().map(Segment::live).sum()
    }

    pub(super) fn dirty(&self) -> usize {
        self.segments().map(Segment::dirty).sum()
    }

    pub(super) fn tally(&self) -> Tally {
        let bytes = size_of::<Bucket>() + self.more.capacity() * size_of::<Segment>();
        let mut sum = Tally {
            bytes,
            ..Tally::default()
        };
        for segment in self.segments() {
            sum.add(segment.tally());
        }
        sum
    }

    /// The entries for which `wanted` is true.
    pub(super) fn collect(&self, wanted: impl Fn(Raw<'_>) -> bool) -> Vec<Found> {
        let mut found = Vec::new();
        for number in self.segment_numbers() {
            let segment = self.segment(number);
            for offset in segment.places() {
                let raw = segment.raw_at(offset);
                if wanted(raw) {
                    found.push(Found {
                        hash32: raw.hash32(),
                        segment: number,
                        offset,
                    });
                }
            }
        }
        found
    }

    /// Sorts into the store's order: hash, key length, key.
    pub(super) fn sort(&self, found: &mut [Found]) {
        found.sort_unstable_by(|a, b| {
            a.hash32.cmp(&b.hash32).then_with(|| {
                let (a, b) = (self.key_of(a), self.key_of(b));
                a.len().cmp(&b.len()).then_with(|| a.cmp(b))
            })
        });
    }

    fn key_of(&self, found: &Found) -> &[u8] {
        let segment = self.segment(found.segment);
        segment.key(segment.raw_at(found.offset))
    }

    /// The entry of a key: number of its segment, this, and its cell.
    #[inline]
    fn seek(&self, key: &Key) -> Option<(u32, &Segment, (usize, Raw<'_>))> {
        if let Some(found) = self.first.seek(key) {
            return Some((0, &self.first, found));
        }
        self.more
            .iter()
            .zip(1..)
            .find_map(|(segment, number)| Some((number, segment, segment.seek(key)?)))
    }

    /// An entry of one of its segments.
    #[inline]
    pub(super) fn entry_in<'a>(
        &self,
        segment: &'a Segment,
        raw: Raw<'a>,
        running_sweep: u32,
    ) -> EntryRef<'a> {
        EntryRef {
            segment,
            raw,
            in_running_sweep: self.swept == running_sweep && running_sweep != 0,
        }
    }

    /// Entries, tombstones included.
    pub(super) fn len(&self) -> usize {
        self.segments().map(Segment::len).sum()
    }

    /// Drops the further segments that are empty.
    pub(super) fn drop_empty(&mut self) {
        self.more.retain(|segment| segment.len() > 0);
        self.more.shrink_to_fit();
    }

    fn is_full(&self) -> bool {
        self.segments().all(Segment::is_full)
    }

    /// The segment for a new entry.
    fn room(&mut self) -> &mut Segment {
        let open = self
            .segment_numbers()
            .find(|number| !self.segment(*number).is_full());
        let number = open.unwrap_or_else(|| {
            self.more.push(Segment::default());
            self.more.len() as u32
        });
        self.segment_mut(number)
    }

    /// Splits by the bit behind the common ones; returns the upper half.
    fn split(&mut self) -> Bucket {
        let bit = 1u32 << (31 - u32::from(self.depth));
        let empty = |bucket: &Bucket| Bucket {
            depth: bucket.depth + 1,
            swept: bucket.swept,
            unsettled: bucket.unsettled,
            ..Bucket::default()
        };
        let (mut lower, mut upper) = (empty(self), empty(self));
        let segments =
            std::iter::once(std::mem::take(&mut self.first)).chain(std::mem::take(&mut self.more));
        for segment in segments {
            segment.distribute(|hash32, adopt| {
                let half = if hash32 & bit == 0 {
                    &mut lower
                } else {
                    &mut upper
                };
                adopt(half.room());
            });
        }
        *self = lower;
        upper
    }
}

impl SlotTable {
    pub(super) fn new() -> SlotTable {
        let mut table = SlotTable {
            depth: 0,
            directory: vec![0],
            buckets: SmallVec::new(),
            tally: Tally::default(),
        };
        table.buckets.push(Bucket::default());
        table.tally = table.buckets[0].tally();
        table.tally.bytes += table.own_bytes();
        table
    }

    #[inline]
    pub(super) fn find(&self, key: &Key) -> Option<Place> {
        self.seek(key, 0).map(|(place, _)| place)
    }

    /// The entry of a key, a tombstone as well, and its place.
    #[inline]
    pub(super) fn seek(&self, key: &Key, running_sweep: u32) -> Option<(Place, EntryRef<'_>)> {
        let number = self.bucket_number(key.hash32());
        let bucket = &self.buckets[number as usize];
        let (segment_number, segment, (cell, raw)) = bucket.seek(key)?;
        let place = Place {
            bucket: number,
            segment: segment_number,
            cell: cell as u32,
        };
        Some((place, bucket.entry_in(segment, raw, running_sweep)))
    }

    /// The same, if it is at this place. Segments may have come and gone since it was.
    #[inline]
    pub(super) fn still_at(
        &self,
        place: Place,
        key: &Key,
        running_sweep: u32,
    ) -> Option<EntryRef<'_>> {
        let bucket = self.buckets.get(place.bucket as usize)?;
        let segment = match place.segment {
            0 => &bucket.first,
            number => bucket.more.get(number as usize - 1)?,
        };
        let raw = segment.still_at(place.cell as usize, key)?;
        Some(bucket.entry_in(segment, raw, running_sweep))
    }

    /// The bucket of a key, and the cell where the search for it begins.
    #[inline]
    pub(super) fn first_cell(&self, key: &Key) -> (u32, u32) {
        let bucket = self.bucket_number(key.hash32());
        (bucket, self.buckets[bucket as usize].first.first_cell(key))
    }

    /// The first byte of the entry behind a cell that `first_cell` gave.
    #[inline]
    pub(super) fn glance(&self, (bucket, cell): (u32, u32)) -> u8 {
        self.buckets[bucket as usize].first.glance(cell)
    }

    #[inline]
    pub(super) fn raw(&self, place: Place) -> Raw<'_> {
        self.segment(place).raw(place.cell as usize)
    }

    /// The entry at a place; not for tombstones.
    #[inline]
    pub(super) fn entry(&self, place: Place, running_sweep: u32) -> EntryRef<'_> {
        let bucket = &self.buckets[place.bucket as usize];
        let segment = bucket.segment(place.segment);
        bucket.entry_in(segment, segment.raw(place.cell as usize), running_sweep)
    }

    #[inline]
    pub(super) fn segment(&self, place: Place) -> &Segment {
        self.buckets[place.bucket as usize].segment(place.segment)
    }

    /// Changes an entry; the sums follow.
    pub(super) fn change<R>(
        &mut self,
        place: Place,
        f: impl FnOnce(&mut Segment, usize) -> R,
    ) -> R {
        let bucket = &mut self.buckets[place.bucket as usize];
        let segment = bucket.segment_mut(place.segment);
        let before = segment.tally();
        let result = f(segment, place.cell as usize);
        self.tally.replace(before, segment.tally());
        result
    }

    /// The segment of a place for a change that touches only the dirty mark, and the sum of those.
    #[inline]
    pub(super) fn segment_mut(&mut self, place: Place) -> (&mut Segment, &mut Tally) {
        let bucket = &mut self.buckets[place.bucket as usize];
        (bucket.segment_mut(place.segment), &mut self.tally)
    }

    /// Adds an entry for a key that has none.
    pub(super) fn insert(
        &mut self,
        key: &Key,
        given: Given<'_>,
        deadline_ms: u64,
        flags: u8,
        stamp: u8,
    ) {
        self.make_room(key.hash32());
        let number = self.bucket_number(key.hash32());
        let bucket = &mut self.buckets[number as usize];
        let spare = bucket.more.capacity();
        let segment = bucket.room();
        let before = segment.tally();
        segment.insert(key, given, deadline_ms, flags, stamp);
        self.tally.replace(before, segment.tally());
        self.tally.bytes += (bucket.more.capacity() - spare) * size_of::<Segment>();
    }

    /// Applies `f` to a bucket; the sums follow.
    pub(super) fn change_bucket<R>(&mut self, number: u32, f: impl FnOnce(&mut Bucket) -> R) -> R {
        let bucket = &mut self.buckets[number as usize];
        let before = bucket.tally();
        let result = f(bucket);
        self.tally.replace(before, bucket.tally());
        result
    }

    /// The bucket that holds a hash.
    #[inline]
    pub(super) fn bucket_number(&self, hash32: u32) -> u32 {
        if self.depth == 0 {
            return 0;
        }
        let word = (u64::from(hash32) >> (32 - u32::from(self.depth))) as usize;
        self.directory[word]
    }

    /// The bucket that holds a hash and the first hash behind it (up to 2^32).
    pub(super) fn bucket_range(&self, hash32: u32) -> (u32, u64) {
        let number = self.bucket_number(hash32);
        let width = 1u64 << (32 - u32::from(self.buckets[number as usize].depth));
        (number, (u64::from(hash32) & !(width - 1)) + width)
    }

    /// The first hash of the bucket that holds a hash.
    pub(super) fn bucket_start(&self, hash32: u32) -> u32 {
        match self.buckets[self.bucket_number(hash32) as usize].depth {
            0 => 0,
            depth => hash32 & !(u32::MAX >> depth),
        }
    }

    /// Drops the tombstones that the store has seen, and what hashes kept for the sweep that took
    /// them, from bucket `from` on, until about `left` entries were passed. Nothing of the running
    /// sweep. Returns the bucket to go on from, unless that was all.
    pub(super) fn settle(
        &mut self,
        running_sweep: u32,
        from: u32,
        left: &mut usize,
    ) -> Option<u32> {
        *left = left.saturating_sub(1);
        for number in from..self.buckets.len() as u32 {
            let bucket = &self.buckets[number as usize];
            let running = bucket.swept == running_sweep && running_sweep != 0;
            if !bucket.unsettled || running {
                continue;
            }
            if *left == 0 && number > from {
                return Some(number);
            }
            *left = left.saturating_sub(bucket.len());
            self.change_bucket(number, settle_bucket);
        }
        self.shed();
        None
    }

    /// Makes what the failed sweep took dirty again.
    pub(super) fn fail_sweep(&mut self, failed_sweep: u32) {
        for number in 0..self.buckets.len() as u32 {
            if self.buckets[number as usize].swept == failed_sweep {
                self.change_bucket(number, fail_bucket);
            }
        }
    }

    // ---- growing -----------------------------------------------------------------------------

    fn make_room(&mut self, hash32: u32) {
        loop {
            let number = self.bucket_number(hash32);
            let bucket = &self.buckets[number as usize];
            if !bucket.is_full() || bucket.depth == 32 {
                return;
            }
            if bucket.depth == self.depth && !self.double() {
                return;
            }
            self.split(number, hash32);
        }
    }

    fn double(&mut self) -> bool {
        let words = self.directory.len() * 2;
        let words_max = DIRECTORY_WORDS_FREE + self.tally.len / DIRECTORY_ENTRIES_PER_WORD;
        if words > words_max {
            return false;
        }
        let before = self.own_bytes();
        let mut directory = Vec::with_capacity(words);
        directory.extend(self.directory.iter().flat_map(|number| [*number, *number]));
        self.directory = directory;
        self.depth += 1;
        self.tally.bytes = self.tally.bytes + self.own_bytes() - before;
        true
    }

    fn split(&mut self, number: u32, hash32: u32) {
        let (_, end) = self.bucket_range(hash32);
        let before = self.own_bytes();
        let upper_number = self.buckets.len() as u32;
        if self.buckets.len() == self.buckets.capacity() {
            self.buckets.reserve_exact(self.buckets.len() / 4 + 1);
        }
        let bucket = &mut self.buckets[number as usize];
        let bucket_before = bucket.tally();
        let upper = bucket.split();
        self.tally.replace(bucket_before, bucket.tally());
        self.tally.add(upper.tally());
        let shift = 32 - u32::from(self.depth);
        let half = 1u64 << (32 - u32::from(upper.depth));
        let upper_words = ((end - half) >> shift) as usize..(end >> shift) as usize;
        self.directory[upper_words].fill(upper_number);
        self.buckets.push(upper);
        self.tally.bytes = self.tally.bytes + self.own_bytes() - before;
    }

    /// Bytes of the table itself, buckets in use not included: their tally has them.
    pub(super) fn own_bytes(&self) -> usize {
        let spare = if self.buckets.spilled() {
            size_of::<Bucket>() * (1 + self.buckets.capacity() - self.buckets.len())
        } else {
            0
        };
        // The table's size has one bucket in it.
        size_of::<SlotTable>() - size_of::<Bucket>()
            + self.directory.capacity() * size_of::<u32>()
            + spare
    }
}

impl Tally {
    pub(super) fn add(&mut self, other: Tally) {
        self.replace(Tally::default(), other);
    }

    /// Takes `before` out of the sums and `after` in.
    #[inline]
    pub(super) fn replace(&mut self, before: Tally, after: Tally) {
        self.len = self.len + after.len - before.len;
        self.live = self.live + after.live - before.live;
        self.dirty = self.dirty + after.dirty - before.dirty;
        self.bytes = self.bytes + after.bytes - before.bytes;
        self.asleep = self.asleep + after.asleep - before.asleep;
    }
}

fn settle_bucket(bucket: &mut Bucket) {
    bucket.unsettled = false;
    for number in bucket.segment_numbers() {
        let segment = bucket.segment_mut(number);
        segment.retain(|raw| raw.kind() != TOMBSTONE || raw.meta() & DIRTY != 0);
        let places: Vec<u32> = segment.places().collect();
        for offset in places {
            segment.change_hash(offset, |hash| hash.end_flight());
        }
    }
    bucket.drop_empty();
}

fn fail_bucket(bucket: &mut Bucket) {
    bucket.swept = 0;
    for found in bucket.collect(|raw| raw.meta() & IN_FLIGHT != 0) {
        let segment = bucket.segment_mut(found.segment);
        segment.change_flags(found.offset, DIRTY, IN_FLIGHT);
        segment.change_hash(found.offset, |hash| hash.fail_flight());
    }
}
