//! All entries of a view, in the order of their places: base first.

use std::ops::{ControlFlow, Range};

use super::StoreView;
use crate::format::store::manifest::{ManifestBody, SegmentRow};
use crate::format::store::record::{RecordKind, SegmentRecord};
use crate::format::store::{Hash40, StorePlace};
use crate::snapshot::{Item, Loss, Record, Source};
use crate::store::eager::writes_of;
use crate::store::replay::{ReplayOf, ReplayVisitor, Replayed, Unreadable, replay};
use crate::store::segment::SegmentFile;
use crate::store::tails::InTails;
use crate::store::{EagerWrite, EntryPlace, StoreAnswer, StoreEntry, StoreScratch};
use crate::vfs::Patience;

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
    LostInBase {
        /// Entries with a rank.
        entries: u64,
        /// Bytes of which it is unknown how many entries they had.
        bytes: u64,
    },
}

/// A step of a walk over everything that may be an entry.
pub(super) enum Candidate<'c> {
    /// A record of an entry, the latest of its key or not; and its rank, if it is in the base.
    Record(&'c [u8], EntryPlace, Option<u32>),
    Damaged,
    /// This many entries of the base.
    LostInBase(u64),
}

impl StoreView {
    /// Visits all entries with canonical keys, until the last entry or until the visitor stops.
    /// Reads all segments and the base, and looks up every key: takes a few microseconds for each
    /// record.
    pub fn each(&self, mut visit: impl FnMut(StoreItem<'_>) -> ControlFlow<()>) -> ControlFlow<()> {
        let mut scratch = StoreScratch::new();
        self.each_candidate(|candidate| self.show(None, &candidate, &mut scratch, &mut visit))
    }

    /// The same, with the entries that a damaged index hides: a run, if the segments show that
    /// nothing replaced the entry, or the index of the base. For tools that repair; a cache must
    /// not serve these. Takes 16 bytes of memory for each key.
    pub fn each_recovered(&self, mut visit: impl FnMut(StoreItem<'_>) -> ControlFlow<()>) -> ControlFlow<()> {
        let (alone, mut scratch) = (self.without_runs(), StoreScratch::new());
        if let Some(base) = self.base() {
            let mut records = base.salvage();
            while let Some(item) = records.next() {
                match item {
                    Item::Entry(record) => {
                        if alone.is_latest_of_base(&record, &mut scratch) {
                            let place = EntryPlace::in_base(record.rank.unwrap_or(0));
                            let Record { key, value, deadline, written_at, rank, .. } = record;
                            let entry = StoredEntry { key, value, deadline, written_at, place, rank };
                            visit(StoreItem::Entry(entry))?;
                        }
                    }
                    Item::Lost(Loss::Entry { .. }) => {
                        visit(StoreItem::LostInBase { entries: 1, bytes: 0 })?;
                    }
                    Item::Lost(Loss::Bytes { bytes, .. }) => {
                        visit(StoreItem::LostInBase { entries: 0, bytes })?;
                    }
                }
            }
        }
        self.each_in_segments(|candidate| self.show(Some(&alone), &candidate, &mut scratch, &mut visit))
    }

    /// The eager writes that count, in the order of writing: entries, and deletes of every earlier
    /// entry with an equal key. What cannot be read is left out, and what it may have deleted.
    pub fn eager(&self) -> Vec<EagerWrite> {
        let manifest = ManifestBody { segments: self.rows.clone(), ..self.manifest.clone() };
        writes_of(&self.layout, &manifest)
    }

    /// The same, with the entries that the damaged list of a run hides.
    pub fn recovered_eager(&self) -> Vec<EagerWrite> {
        self.without_runs().eager()
    }

    /// Whether there may be further eager entries, which cannot be read.
    pub fn hides_eager(&self) -> bool {
        let is_base_damaged = self.base().is_some_and(|base| base.damage().eager_bytes > 0);
        is_base_damaged || self.layout.runs.iter().any(|placed| placed.run.eager().is_none())
    }

    /// Shows a candidate, if it is an entry that counts. `alone`: a reader of the keys that this
    /// view hides.
    fn show(
        &self,
        alone: Option<&Self>,
        candidate: &Candidate<'_>,
        scratch: &mut StoreScratch,
        visit: &mut impl FnMut(StoreItem<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let (key, place, rank) = match *candidate {
            Candidate::Record(key, place, rank) => (key, place, rank),
            Candidate::Damaged => return visit(StoreItem::Damaged),
            Candidate::LostInBase(entries) => return visit(StoreItem::LostInBase { entries, bytes: 0 }),
        };
        let reader = match alone {
            Some(alone) if self.find(key, scratch) == StoreAnswer::Hidden => alone,
            _ => self,
        };
        match reader.find(key, scratch) {
            StoreAnswer::Entry(found) if found.sighting.place == place => {
                let StoreEntry { value, deadline, written_at, .. } = found;
                visit(StoreItem::Entry(StoredEntry { key, value, deadline, written_at, place, rank }))
            }
            StoreAnswer::Hidden => visit(StoreItem::Hidden),
            _ => ControlFlow::Continue(()),
        }
    }

    /// Whether an entry of the base counts, by the segments alone.
    fn is_latest_of_base(&self, record: &Record<'_>, scratch: &mut StoreScratch) -> bool {
        let gone_until = self.layout.cleared_at.max(self.layout.dropped_until);
        if gone_until > 0 && record.written_at.unwrap_or(0) <= gone_until {
            return false;
        }
        match self.tails.find(self.hasher.hash(record.key)) {
            InTails::Absent => true,
            InTails::Hidden => false,
            InTails::At(place) => {
                !self.layout.is_base_ours
                    && scratch.read(&Patience::unlimited(), &self.layout, place).is_some()
                    && record.written_at > scratch.written_at()
            }
        }
    }

    /// Visits every record of an entry, in the order of places.
    pub(super) fn each_candidate(
        &self,
        mut visit: impl FnMut(Candidate<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        if let Some(base) = self.base() {
            base.each_bucket(|_, _| {}); // Damage is known before the first entry is judged by it.
            let mut records = base.records();
            while let Some(item) = records.next() {
                match item {
                    Item::Entry(Record { key, rank: Some(rank), .. }) => {
                        visit(Candidate::Record(key, EntryPlace::in_base(rank), Some(rank)))?;
                    }
                    Item::Entry(_) => {} // has a rank
                    Item::Lost(_) => {
                        visit(Candidate::LostInBase(u64::from(records.skip_lost()).saturating_add(1)))?;
                    }
                }
            }
        }
        self.each_in_segments(visit)
    }

    fn each_in_segments(&self, mut visit: impl FnMut(Candidate<'_>) -> ControlFlow<()>) -> ControlFlow<()> {
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
