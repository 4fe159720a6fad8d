//! All entries of a view, in the order of their places: base first.

use std::ops::{ControlFlow, Range};

use super::StoreView;
use crate::format::store::manifest::SegmentRow;
use crate::format::store::record::{RecordKind, SegmentRecord};
use crate::format::store::{Hash40, StorePlace};
use crate::snapshot::{Item, Source};
use crate::store::replay::{ReplayOf, ReplayVisitor, Replayed, Unreadable, replay};
use crate::store::segment::SegmentFile;
use crate::store::{EntryPlace, StoreAnswer, StoreScratch};

/// An entry that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredEntry<'e> {
    /// The key's bytes.
    pub key: &'e [u8],
    /// The value.
    pub value: &'e [u8],
    /// When the entry expires, in nanoseconds since the Unix epoch. `None`: never.
    pub deadline: Option<u64>,
    /// When the entry was written. `None`: unknown, for an old entry of the base.
    pub written_at: Option<u64>,
    /// Where the entry stands.
    pub place: EntryPlace,
    /// The rank in the base; `None`: the entry is in a segment.
    pub rank: Option<u32>,
}

/// A step of [`StoreView::each`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreItem<'e> {
    /// An entry. It may have expired.
    Entry(StoredEntry<'e>),
    /// An entry that is not served, because a part of the store that cannot be read may hold a
    /// later record of the key.
    Hidden,
    /// A record, or a range of records, that cannot be read.
    Damaged,
    /// Entries of the base that cannot be read.
    LostInBase(u32),
}

/// A step of a walk over everything that may be an entry.
pub(super) enum Candidate<'c> {
    /// A record of an entry, the latest of its key or not; and its rank, if it is in the base.
    Record(&'c [u8], EntryPlace, Option<u32>),
    Damaged,
    LostInBase(u32),
}

impl StoreView {
    /// Visits all entries with canonical keys, until the last entry or until the visitor stops.
    /// Reads all segments and the base, and looks up every key: takes a few microseconds for each
    /// record.
    pub fn each(&self, visit: impl FnMut(StoreItem<'_>) -> ControlFlow<()>) -> ControlFlow<()> {
        self.each_found(None, visit)
    }

    /// The same, with the entries that a damaged run hides, and the segments do not. Takes 16 bytes
    /// of memory for each key.
    pub fn each_recovered(&self, visit: impl FnMut(StoreItem<'_>) -> ControlFlow<()>) -> ControlFlow<()> {
        self.each_found(Some(&self.without_runs()), visit)
    }

    fn each_found(
        &self,
        alone: Option<&Self>,
        mut visit: impl FnMut(StoreItem<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut scratch = StoreScratch::new();
        self.each_candidate(|candidate| {
            let (key, place, rank) = match candidate {
                Candidate::Record(key, place, rank) => (key, place, rank),
                Candidate::Damaged => return visit(StoreItem::Damaged),
                Candidate::LostInBase(count) => return visit(StoreItem::LostInBase(count)),
            };
            let reader = match alone {
                Some(alone) if self.find(key, &mut scratch) == StoreAnswer::Hidden => alone,
                _ => self,
            };
            match reader.find(key, &mut scratch) {
                StoreAnswer::Entry(found) if found.sighting.place == place => {
                    visit(StoreItem::Entry(StoredEntry {
                        key,
                        value: found.value,
                        deadline: found.deadline,
                        written_at: found.written_at,
                        place,
                        rank,
                    }))
                }
                StoreAnswer::Hidden => visit(StoreItem::Hidden),
                _ => ControlFlow::Continue(()),
            }
        })
    }

    /// Visits every record of an entry, in the order of places.
    pub(super) fn each_candidate(
        &self,
        mut visit: impl FnMut(Candidate<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        if let Some(base) = self.base() {
            let mut records = base.records();
            while let Some(item) = records.next() {
                match item {
                    Item::Entry(record) => {
                        let Some(rank) = record.rank else { continue };
                        visit(Candidate::Record(record.key, EntryPlace::in_base(rank), Some(rank)))?;
                    }
                    Item::Lost(_) => visit(Candidate::LostInBase(records.skip_lost().saturating_add(1)))?,
                }
            }
        }
        for segment in &self.layout.segments {
            let flow = ControlFlow::Continue(());
            let mut candidates = Candidates { view: self, visit: &mut visit, flow };
            self.replay(segment, &mut candidates);
            candidates.flow?;
        }
        for _ in &self.unreadable {
            visit(Candidate::Damaged)?;
        }
        ControlFlow::Continue(())
    }

    /// Reads all segments up to their ends that count, in the order of places.
    pub(in crate::store) fn replay_all(&self, visitor: &mut impl ReplayVisitor) {
        for segment in &self.layout.segments {
            self.replay(segment, visitor);
        }
    }

    /// Reads a segment up to the end that counts.
    pub(super) fn replay(&self, segment: &SegmentFile, visitor: &mut impl ReplayVisitor) -> Option<Replayed> {
        let row: &SegmentRow = {
            let index = self.rows.binary_search_by_key(&segment.number, |row| row.number).ok()?;
            self.rows.get(index)?
        };
        let bytes = segment.file_bytes().unwrap_or(0).min(row.end.into());
        Some(replay(segment, bytes, ReplayOf { row, is_same_boot: true, now: self.now }, visitor))
    }

    /// The places in a range of a segment that a run names, in ascending order.
    fn named_in(&self, segment: u32, range: Range<u32>) -> Vec<StorePlace> {
        let is_over = |run: u32| self.manifest.run_over(segment).is_some_and(|row| row.number == run);
        let Some(named) = self.layout.runs.iter().find(|named| is_over(named.run.number)) else {
            return Vec::new();
        };
        let (mut slots, mut places) = (named.run.slots(), Vec::new());
        while let Some(bucket) = slots.next_bucket() {
            let found = bucket.into_iter().map(|slot| slot.place);
            places.extend(found.filter(|place| place.segment == segment && range.contains(&place.offset)));
        }
        places.sort_unstable();
        places
    }
}

/// Shows the records of entries in segments.
struct Candidates<'v, F> {
    view: &'v StoreView,
    visit: &'v mut F,
    flow: ControlFlow<()>,
}

impl<F: FnMut(Candidate<'_>) -> ControlFlow<()>> Candidates<'_, F> {
    fn show(&mut self, candidate: Candidate<'_>) {
        if self.flow.is_continue() {
            self.flow = (self.visit)(candidate);
        }
    }
}

impl<F: FnMut(Candidate<'_>) -> ControlFlow<()>> ReplayVisitor for Candidates<'_, F> {
    fn record(&mut self, place: StorePlace, record: &SegmentRecord, bytes: &[u8]) {
        if matches!(record.kind, RecordKind::Entry | RecordKind::EntryWithAttributes) {
            let key = bytes.get(record.key.clone()).unwrap_or_default();
            self.show(Candidate::Record(key, place.into(), None));
        }
    }

    fn damaged(&mut self, _place: StorePlace, _kind: RecordKind, _hash: Hash40) {
        self.show(Candidate::Damaged);
    }

    /// Nothing in the segment says where the records of a range begin. A run may.
    fn unreadable(&mut self, place: StorePlace, what: Unreadable) {
        let end = match what {
            Unreadable::Digest => return,
            Unreadable::Clear => return self.show(Candidate::Damaged),
            Unreadable::Until(end) => end,
            Unreadable::Rest => u32::MAX,
        };
        self.show(Candidate::Damaged);
        let mut bytes = Vec::new();
        for named in self.view.named_in(place.segment, place.offset..end) {
            let Some(segment) = self.view.layout.segment(named.segment) else { continue };
            if let Some(record) = segment.read(named.offset, &mut bytes) {
                self.record(named, &record, &bytes);
            }
        }
    }
}
