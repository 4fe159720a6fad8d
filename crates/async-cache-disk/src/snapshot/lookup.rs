//! Finding an entry: read its bucket, then the record named by the bucket. For a small record, this
//! takes two positioned reads and, with a used [`Scratch`], no allocation.

use super::opened::Snapshot;
use super::source::Record;
use super::unpack::unpack;
use crate::compress::Decompressor;
use crate::format::address::chain;
use crate::format::page::{BucketEntry, PAGE_BYTES, Page};
use crate::format::record::RecordLayout;
use crate::tombstones::{KeyKind, Tombstones};
use crate::vfs::Patience;

/// The bytes of a record in the first read; most records fit.
const GUESS_BYTES: usize = 512;
/// If a large record made a buffer larger than this, the buffer is freed at the next look-up.
const KEPT_BYTES: usize = 1 << 20;

/// The buffers of a look-up, and its further results. Keep one per thread.
#[derive(Debug)]
pub struct Scratch {
    page: [u8; PAGE_BYTES],
    record: Vec<u8>,
    decompressor: Decompressor,
    lost: Vec<u32>,
    may_have_missed: bool,
}

impl Scratch {
    /// New buffers; the first look-up allocates.
    pub fn new() -> Self {
        Self {
            page: [0; PAGE_BYTES],
            record: Vec::new(),
            decompressor: Decompressor::default(),
            lost: Vec::new(),
            may_have_missed: false,
        }
    }

    /// Ranks of records that the last look-up should have compared with the key and could not read
    /// or verify. Each of them may have held the key: a caller that looked in order to replace or
    /// delete the key marks all of them as gone.
    pub fn lost(&self) -> &[u32] {
        &self.lost
    }

    /// Whether the last look-up found nothing and met a dead bucket: the key may have been there.
    /// It will not be found through this snapshot again.
    pub fn may_have_missed(&self) -> bool {
        self.may_have_missed
    }

    fn begin(&mut self) {
        self.lost.clear();
        self.may_have_missed = false;
        if self.record.len() > KEPT_BYTES {
            self.record = Vec::new();
        }
        if self.record.len() < GUESS_BYTES {
            self.record.resize(GUESS_BYTES, 0);
        }
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

/// A found entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundEntry<'s> {
    /// Its place in the order of use; 0 is the coldest.
    pub rank: u32,
    /// The deadline, in nanoseconds since the Unix epoch by the clock that wrote the file; `None`:
    /// never expires.
    pub deadline: Option<u64>,
    /// The time of writing, by the same clock, if the file has it.
    pub written_at: Option<u64>,
    /// The value's bytes, in the scratch.
    pub value: &'s [u8],
}

/// A record in `Scratch::record` that verified and holds the key.
struct Hit {
    rank: u32,
    layout: RecordLayout,
}

enum RecordCheck {
    Hit(Hit),
    OtherKey,
    Lost,
}

impl Snapshot {
    /// Finds the entry with this key. Never fails: an entry that cannot be read or verified counts
    /// as absent, and [`Scratch::lost`] and [`Scratch::may_have_missed`] report it. Expired entries
    /// are found too.
    ///
    /// If the bucket that should name the key could not be read or verified once, it counts as
    /// damaged for the life of this snapshot, even if it could be read later: an entry that a
    /// `delete` could not see does not come back.
    pub fn find<'s>(&self, key: &[u8], scratch: &'s mut Scratch) -> Option<FoundEntry<'s>> {
        self.find_with(&Patience::unlimited(), key, scratch)
    }

    /// The same, with limited patience. If a read would wait, nothing is known, and nothing counts
    /// as damaged.
    pub(crate) fn find_with<'s>(
        &self,
        patience: &Patience,
        key: &[u8],
        scratch: &'s mut Scratch,
    ) -> Option<FoundEntry<'s>> {
        let Hit { rank, layout } = self.search_known(patience, key, scratch)?;
        let Scratch { record, decompressor, lost, .. } = scratch;
        let value = unpack(self, &layout, record, decompressor);
        if value.is_none() {
            self.damage_log().count_record();
            lost.push(rank);
        }
        let (deadline, written_at) = (layout.deadline, layout.written_at);
        Some(FoundEntry { rank, deadline, written_at, value: value? })
    }

    /// The rank of the entry with this key, as [`find`](Self::find) would return it; the record is
    /// verified here too, but its value is not decompressed.
    pub fn locate(&self, key: &[u8], scratch: &mut Scratch) -> Option<u32> {
        self.search_known(&Patience::unlimited(), key, scratch).map(|hit| hit.rank)
    }

    /// The ranks of the entries that were deleted or overwritten after their writing; all, if
    /// everything was deleted. For a cache that opens this snapshot, and wrote during the opening.
    pub fn ranks_of(&self, tombstones: &Tombstones) -> Vec<u32> {
        if tombstones.cleared_at() > 0 {
            return (0..self.len()).collect();
        }
        let mut scratch = Scratch::new();
        let older = tombstones.keys(KeyKind::Canonical).filter_map(|(key, time)| {
            let Hit { rank, layout } = self.search_known(&Patience::unlimited(), key, &mut scratch)?;
            (layout.written_at.unwrap_or(0) <= time).then_some(rank)
        });
        older.collect()
    }

    /// [`search`](Self::search) by the ranks known to the user. Entries outside this snapshot are
    /// not found.
    fn search_known(&self, patience: &Patience, key: &[u8], scratch: &mut Scratch) -> Option<Hit> {
        let hit = self.search(patience, key, scratch);
        if let Some(ranks) = self.ranks() {
            scratch.lost = scratch.lost.iter().filter_map(|here| self.known_rank(*here)).collect();
            if ranks.may_have_missed(key) {
                scratch.may_have_missed = true;
                return None;
            }
        }
        let hit = hit?;
        Some(Hit { rank: self.known_rank(hit.rank)?, ..hit })
    }

    /// By the file's own ranks.
    fn search(&self, patience: &Patience, key: &[u8], scratch: &mut Scratch) -> Option<Hit> {
        scratch.begin();
        let buckets = self.header().buckets;
        let hash = self.hasher().hash(key);
        let mut met_dead = false;
        for bucket in chain(hash.home(buckets), buckets) {
            let Scratch { page, record, lost, .. } = &mut *scratch;
            match self.bucket_with(patience, bucket, page) {
                Some(page) => {
                    for slot in page.tagged(hash) {
                        match self.candidate(patience, slot, key, record) {
                            RecordCheck::Hit(hit) => return Some(hit),
                            RecordCheck::OtherKey => {}
                            RecordCheck::Lost => lost.push(slot.rank),
                        }
                    }
                    if !page.overflowed() {
                        break;
                    }
                }
                None if patience.would_wait() => return None,
                // Whether the bucket overflowed is unknown, so the search continues.
                None => met_dead = true,
            }
        }
        scratch.may_have_missed = met_dead;
        None
    }

    /// Reads a bucket. `None` now is `None` for ever.
    pub(crate) fn bucket<'p>(&self, bucket: u32, page: &'p mut [u8; PAGE_BYTES]) -> Option<Page<'p>> {
        self.bucket_with(&Patience::unlimited(), bucket, page)
    }

    fn bucket_with<'p>(
        &self,
        patience: &Patience,
        bucket: u32,
        page: &'p mut [u8; PAGE_BYTES],
    ) -> Option<Page<'p>> {
        if self.damage_log().is_dead(bucket) {
            return None;
        }
        let offset = self.bucket_offset(bucket);
        let read = self.read_with(patience, page, offset);
        if patience.would_wait() {
            return None;
        }
        let opened = if read { Page::open(self.seal(), offset, page) } else { None };
        if opened.is_none() {
            self.damage_log().record_dead_buckets(bucket..bucket.saturating_add(1));
        }
        opened
    }

    /// Visits all buckets in order: each valid bucket, or the length of a run of invalid buckets.
    pub(crate) fn each_bucket(&self, mut visit: impl FnMut(u32, Result<Page<'_>, u32>)) {
        let (count, mut page) = (self.header().buckets, [0; PAGE_BYTES]);
        let mut bucket = 0;
        while bucket < count {
            let next = bucket.saturating_add(1);
            if let Some(page) = self.bucket(bucket, &mut page) {
                visit(bucket, Ok(page));
                bucket = next;
            } else {
                let end = self.skip_hole(self.header().index_section.offset, next, count);
                self.damage_log().record_dead_buckets(next..end);
                visit(bucket, Err(end.saturating_sub(bucket)));
                bucket = end;
            }
        }
    }

    fn candidate(
        &self,
        patience: &Patience,
        slot: BucketEntry,
        key: &[u8],
        buffer: &mut Vec<u8>,
    ) -> RecordCheck {
        let layout = match self.record_at(patience, slot, buffer) {
            Some(layout) => layout,
            None if patience.would_wait() => return RecordCheck::Lost,
            None if slot.rank >= self.header().entries => return RecordCheck::OtherKey,
            None => {
                self.damage_log().count_record();
                return RecordCheck::Lost;
            }
        };
        if buffer.get(layout.key.clone()) != Some(key) {
            return RecordCheck::OtherKey;
        }
        RecordCheck::Hit(Hit { rank: slot.rank, layout })
    }

    /// Reads and verifies the record named by a slot into the front of the buffer.
    fn record_at(
        &self,
        patience: &Patience,
        slot: BucketEntry,
        buffer: &mut Vec<u8>,
    ) -> Option<RecordLayout> {
        if slot.rank >= self.header().entries {
            return None;
        }
        let left = self.left_in_records(slot.offset)?;
        let guess = left.min(GUESS_BYTES);
        let first = buffer.get_mut(..guess)?;
        if !self.read_with(patience, first, slot.offset) {
            return None;
        }
        let layout = RecordLayout::parse(first, self.header().form)?;
        let total = layout.total();
        if total > left || !patience.allows(total) || !self.may_be_held(slot.offset, total) {
            return None;
        }
        if total > guess {
            if buffer.len() < total {
                buffer.resize(total, 0);
            }
            let rest = buffer.get_mut(guess..total)?;
            if !self.read_with(patience, rest, slot.offset.checked_add(guess as u64)?) {
                return None;
            }
        }
        self.seal().open(slot.offset, buffer.get(..total)?)?;
        Some(layout)
    }

    /// The entry whose record a slot names; the slot may be of any origin.
    pub(super) fn read_slot<'s>(&'s self, slot: BucketEntry, scratch: &'s mut Scratch) -> Option<Record<'s>> {
        scratch.begin();
        let layout = self.record_at(&Patience::unlimited(), slot, &mut scratch.record);
        let Scratch { record, decompressor, .. } = scratch;
        let record = layout.and_then(|layout| {
            Record::of(self, Some(slot.rank), &layout, record.get(..layout.total())?, decompressor)
        });
        if record.is_none() {
            self.damage_log().count_record();
        }
        record
    }

    /// The number of bytes from an offset to the end of the records; `None` if the offset is
    /// outside.
    pub(crate) fn left_in_records(&self, offset: u64) -> Option<usize> {
        self.header().record_section.left_from(offset)
    }

    /// Whether an entry that was read without its bucket is also visible through its bucket (rule 2
    /// of the module).
    pub(super) fn is_visible(&self, key: &[u8], rank: u32, scratch: &mut Scratch) -> bool {
        if self.ranks().is_some_and(|ranks| ranks.may_have_missed(key)) {
            return false;
        }
        !self.damage_log().any_dead()
            || !self.damage_log().may_have_held(self.hasher().hash(key), self.header().buckets)
            || self.locate_here(key, scratch) == Some(rank)
    }

    /// The rank in the file of the entry with this key.
    pub(crate) fn locate_here(&self, key: &[u8], scratch: &mut Scratch) -> Option<u32> {
        self.search(&Patience::unlimited(), key, scratch).map(|hit| hit.rank)
    }
}
