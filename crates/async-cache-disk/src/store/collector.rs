//! What is collected next: the state of collections, and its policy.
//!
//! Rules:
//! 1. The oldest is collected first: the base, then the segments by number. So nothing in the store
//!    is earlier than a record that goes.
//! 2. `Bytes`: a collection begins when the store exceeds its limit, and for the base while there
//!    is room for copies. Copies take at most seven eighths of the bytes that go, and only as much
//!    as fits below the limit and one segment. Copies that were made since the store exceeded its
//!    limit are not copied again. If nothing may be copied, everything goes.
//! 3. `Live`: passes over everything that was there when the pass began. A pass begins when the
//!    bytes exceed eight segments, and twice the bytes of the entries that the latest pass has
//!    kept.

use std::ops::RangeInclusive;

use super::live::LiveCursor;
use super::write::{EntryPlace, StoreLimit};

/// Rule 3.
const LEAST_SEGMENTS: u64 = 8;
/// A step of the base visits this many ranks.
const RANKS_OF_STEP: u32 = 1 << 12;
/// Rule 2: the share of the limit that is kept free for copies from the base.
const ROOM_FOR_BASE: u64 = 8;

/// A part of the store that is to be collected. Made by
/// [`next_collection`](super::DiskStore::next_collection).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collection {
    pub(super) first: EntryPlace,
    pub(super) last: EntryPlace,
    /// The number of the segment; 0: the base.
    pub(super) segment: u32,
    /// The eager records written so far.
    pub(super) eager_writes: u64,
}

impl Collection {
    /// The places of the records that are collected.
    pub fn places(&self) -> RangeInclusive<EntryPlace> {
        self.first..=self.last
    }
}

/// A copy of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Copied {
    pub(super) from: EntryPlace,
    pub(super) to: EntryPlace,
    /// The caller has said so.
    pub(super) is_in_memory: bool,
}

/// The state between collections.
#[derive(Debug)]
pub(super) struct Collector {
    limit: StoreLimit,
    segment_bytes: u64,
    /// The walk over the base.
    pub(super) base: LiveCursor,
    /// The first rank of the next step over the base.
    pub(super) next_rank: u32,
    /// Rule 2: the bytes that were copied from the base.
    pub(super) copied_of_base: u64,
    /// Rule 2: the last segment when the store exceeded its limit. Rule 3: that of the pass.
    pass_until: Option<u32>,
    /// The bytes that the pass has copied.
    copied_in_pass: u64,
    /// The bytes of the entries that the latest pass has kept. `None`: not known yet.
    live_bytes: Option<u64>,
    /// Copies that no result has named, after an error.
    pub(super) unreported: Vec<Copied>,
}

/// The store as a policy sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) bytes: u64,
    pub(super) base_bytes: u64,
    /// Entries of the base, if there is a base.
    pub(super) base_entries: Option<u32>,
    /// The first segment, and the last sealed one, if any is sealed.
    pub(super) sealed: Option<(u32, u32)>,
    /// The share of the entries of the opening that count, in 1,024; `None`: not counted.
    pub(super) live_share: Option<u64>,
}

impl Collector {
    pub(super) fn new(limit: StoreLimit, segment_bytes: u32) -> Self {
        Self {
            limit,
            segment_bytes: segment_bytes.into(),
            base: LiveCursor::new(),
            next_rank: 0,
            copied_of_base: 0,
            pass_until: None,
            copied_in_pass: 0,
            live_bytes: None,
            unreported: Vec::new(),
        }
    }

    /// The number of the segment to be collected next; 0: a step of the base.
    pub(super) fn next(&mut self, sizes: Sizes) -> Option<u32> {
        let oldest = if sizes.base_entries.is_some() { Some(0) } else { sizes.sealed.map(|sealed| sealed.0) };
        match self.limit {
            StoreLimit::Bytes(limit) => {
                let room = if self.next_rank > 0 {
                    u64::MAX // Goes on.
                } else {
                    sizes.base_bytes.min(limit / ROOM_FOR_BASE)
                };
                if sizes.bytes.saturating_add(room) <= limit {
                    self.pass_until = None;
                    return None;
                }
                let last = sizes.sealed.map_or(0, |sealed| sealed.1);
                self.pass_until.get_or_insert(last);
                oldest // Rule 1.
            }
            StoreLimit::Live => {
                let share = sizes.live_share?;
                let live = *self.live_bytes.get_or_insert(sizes.bytes.saturating_mul(share) / 1024);
                let least = self.segment_bytes.saturating_mul(LEAST_SEGMENTS);
                if self.pass_until.is_none() && sizes.bytes > least.max(live.saturating_mul(2)) {
                    self.pass_until = Some(sizes.sealed.map_or(0, |sealed| sealed.1));
                    self.copied_in_pass = 0;
                }
                let until = self.pass_until?;
                let next = oldest.filter(|segment| *segment <= until);
                if next.is_none() {
                    // Rule 3.
                    (self.pass_until, self.live_bytes) = (None, Some(self.copied_in_pass));
                }
                next
            }
        }
    }

    /// The ranks of the next step over a base: the first, and the first behind the step.
    pub(super) fn step(&self, entries: u32) -> (u32, u32) {
        (self.next_rank, self.next_rank.saturating_add(RANKS_OF_STEP).min(entries))
    }

    /// Rule 2: how many bytes a collection of a segment, or of the base as 0, may copy.
    /// `collected`: the bytes that go. `bytes`: all bytes.
    pub(super) fn room(&self, segment: u32, collected: u64, bytes: u64) -> u64 {
        match self.limit {
            StoreLimit::Live => u64::MAX,
            StoreLimit::Bytes(_) if self.pass_until.is_none_or(|until| segment > until) => 0,
            StoreLimit::Bytes(limit) => {
                let free = limit.saturating_add(self.segment_bytes).saturating_sub(bytes);
                free.min(collected.saturating_sub(collected / 8))
            }
        }
    }

    pub(super) fn copied(&mut self, bytes: u64) {
        self.copied_in_pass = self.copied_in_pass.saturating_add(bytes);
    }

    /// The next step over the base is the last one, and visits no rank.
    pub(super) fn pass_base(&mut self, entries: u32) {
        self.next_rank = entries;
        self.base.pass(0);
    }

    /// The base is gone.
    pub(super) fn end_base(&mut self) {
        (self.base, self.next_rank, self.copied_of_base) = (LiveCursor::new(), 0, 0);
    }
}
