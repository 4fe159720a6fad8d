//! The entries of a store that count, from the coldest place to the latest: for collections, for
//! evictions, for the count of cold entries, and for folding.
//!
//! The order is the base by rank, then the segments by number and offset. The walk shows the store
//! as it is at each step, and not as of one moment: [`LiveRecord::seen`] tells whether an entry is
//! still the latest of its key when something is done with it.
//!
//! Rules:
//! 1. An entry is shown if a look-up of its key ends at its record: it is the latest by place, and
//!    neither hidden by damage, nor cleared, nor below the floor or *dropped until*. If another
//!    program has replaced the base, times decide between the base and the segments, as in a
//!    look-up.
//! 2. Expired entries are shown: the caller knows the time. [`LiveRecord::has_expired`] tells.
//! 3. Eager records are not judged, and only shown if asked for: only the front knows which of
//!    them count (`eager`).
//! 4. An invalid record in a segment costs only itself, as far as the digests tell the records
//!    behind it.
//! 5. A walk keeps its place between calls. It goes on behind records that were appended, and
//!    passes segments that were collected, in the meantime.

use std::collections::VecDeque;
use std::sync::Arc;

use super::answer::StoreScratch;
use super::guards::read;
use super::layout::StoreLayout;
use super::look_up::{Located, LookUp, locate};
use super::replay::{ReplayVisitor, replay_sealed};
use super::segment::{FIRST_RECORD, SegmentFile};
use super::tails::SlotSeen;
use super::write::EntryPlace;
use crate::compress::Decompressor;
use crate::format::store::manifest::SegmentRow;
use crate::format::store::record::{NewRecord, RecordKind, RecordTimes, SegmentRecord};
use crate::format::store::{Hash40, StorePlace};
use crate::snapshot::{Item, Records, Source};
use crate::vfs::Patience;

/// An entry that counts, or an eager record.
#[derive(Debug)]
pub(super) struct LiveRecord {
    pub(super) place: EntryPlace,
    pub(super) kind: RecordKind,
    /// An entry of the base without a time of writing has the time of the base.
    pub(super) times: RecordTimes,
    pub(super) key: Vec<u8>,
    /// As stored.
    pub(super) value: Vec<u8>,
    pub(super) is_compressed: bool,
    pub(super) attributes: Vec<u8>,
    /// The slot of the key when the entry was judged. While the slot stays, the entry is the
    /// latest.
    pub(super) seen: SlotSeen,
    /// An entry of a base that another program has written, which hides an earlier record of the
    /// store: the record would return without the entry.
    pub(super) hides_a_record: bool,
}

impl LiveRecord {
    fn new() -> Self {
        Self {
            place: EntryPlace::NONE,
            kind: RecordKind::Delete,
            times: RecordTimes { deadline: None, written_at: 0 },
            key: Vec::new(),
            value: Vec::new(),
            is_compressed: false,
            attributes: Vec::new(),
            seen: SlotSeen::default(),
            hides_a_record: false,
        }
    }

    /// Rule 2.
    pub(super) fn has_expired(&self, now: u64) -> bool {
        self.times.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// The value; `None` if it does not decompress.
    #[allow(dead_code)]
    pub(super) fn plain_value<'v>(&'v self, decompressor: &'v mut Decompressor) -> Option<&'v [u8]> {
        if self.is_compressed { decompressor.decompress(&self.value, None) } else { Some(&self.value) }
    }

    /// The record to be written elsewhere, with its times.
    pub(super) fn copy(&self) -> NewRecord<'_> {
        NewRecord {
            kind: self.kind,
            times: self.times,
            is_compressed: self.is_compressed,
            attributes: &self.attributes,
            key: &self.key,
            value: &self.value,
        }
    }

    fn set_key_and_value(&mut self, key: &[u8], value: &[u8], attributes: &[u8]) {
        for (to, from) in [(&mut self.key, key), (&mut self.value, value), (&mut self.attributes, attributes)]
        {
            to.clear();
            to.extend_from_slice(from);
        }
    }
}

/// A walk (rule 5).
#[derive(Debug)]
pub(super) struct LiveCursor {
    base: BaseWalk,
    /// The segment that is being walked, or was walked last.
    scan: Option<SegmentScan>,
    /// Segments up to this number are passed.
    passed: u32,
    shows_eager: bool,
    record: LiveRecord,
    is_again: bool,
    scratch: StoreScratch,
}

#[derive(Debug)]
enum BaseWalk {
    Before,
    At(Box<Records>),
    Passed,
}

impl LiveCursor {
    /// A walk over everything, without eager records.
    pub(super) fn new() -> Self {
        Self {
            base: BaseWalk::Before,
            scan: None,
            passed: 0,
            shows_eager: false,
            record: LiveRecord::new(),
            is_again: false,
            scratch: StoreScratch::new(),
        }
    }

    /// A walk over the segments from this number on, with eager records.
    pub(super) fn from_segment(number: u32) -> Self {
        let passed = number.saturating_sub(1);
        Self { base: BaseWalk::Passed, passed, shows_eager: true, ..Self::new() }
    }

    /// Shows the latest shown record once more, if it still counts: its slot has changed.
    pub(super) fn visit_again(&mut self) {
        self.is_again = true;
    }

    /// The next entry whose place is before `until`. At the end, the walk can go on later.
    pub(super) fn next(&mut self, store: LookUp<'_>, until: EntryPlace) -> Option<&LiveRecord> {
        if std::mem::take(&mut self.is_again) && self.is_live(store) {
            return Some(&self.record);
        }
        while self.read_next(store, until) {
            if self.record.kind.is_eager() && self.shows_eager || self.is_live(store) {
                return Some(&self.record);
            }
        }
        None
    }

    /// The number of the segment that is walked, or was passed last.
    pub(super) fn segment(&self) -> u32 {
        self.scan.as_ref().map_or(self.passed, |scan| scan.segment.number)
    }

    pub(super) fn has_passed_base(&self) -> bool {
        matches!(self.base, BaseWalk::Passed)
    }

    /// Passes the base, and the segments up to this number.
    pub(super) fn pass(&mut self, number: u32) {
        self.base = BaseWalk::Passed;
        self.passed = self.passed.max(number);
        self.scan = self.scan.take().filter(|scan| scan.segment.number > number);
    }

    fn read_next(&mut self, store: LookUp<'_>, until: EntryPlace) -> bool {
        let layout = Arc::clone(&read(store.layout));
        if let Some(found) = self.read_base(&layout, until) {
            return found;
        }
        loop {
            if let Some(scan) = &mut self.scan {
                if scan.is_in(&layout)
                    && let Some(place) = scan.next(until, &mut self.record, self.shows_eager)
                {
                    self.record.place = place;
                    return true;
                }
                if until <= scan.place() {
                    return false;
                }
            }
            let number = self.segment();
            let next = layout.segments.iter().find(|segment| segment.number > number);
            let Some(next) = next.filter(|next| EntryPlace::start_of(next.number) < until) else {
                return false;
            };
            self.passed = number;
            self.scan = Some(SegmentScan::new(Arc::clone(next)));
        }
    }

    /// `None` if the base is passed; else whether there is an entry.
    fn read_base(&mut self, layout: &StoreLayout, until: EntryPlace) -> Option<bool> {
        if let BaseWalk::Before = self.base {
            let base = layout.base.as_ref();
            self.base = base.map_or(BaseWalk::Passed, |base| BaseWalk::At(Box::new(base.records())));
        }
        let BaseWalk::At(records) = &mut self.base else { return None };
        let Some(base) = &layout.base else {
            self.base = BaseWalk::Passed;
            return None;
        };
        if EntryPlace::in_base(records.next_rank()) >= until {
            return Some(false);
        }
        loop {
            match records.next() {
                Some(Item::Entry(entry)) => {
                    let rank = entry.rank.unwrap_or(u32::MAX);
                    self.record.place = EntryPlace::in_base(rank);
                    self.record.kind = RecordKind::Entry;
                    let written_at = entry.written_at.unwrap_or(base.saved_at());
                    self.record.times = RecordTimes { deadline: entry.deadline, written_at };
                    self.record.is_compressed = false;
                    self.record.set_key_and_value(entry.key, entry.value, &[]);
                    let gone_until = layout.cleared_at.max(layout.dropped_until);
                    let is_gone = gone_until > 0 && entry.written_at.unwrap_or(0) <= gone_until;
                    if !is_gone {
                        return Some(true);
                    }
                    if EntryPlace::in_base(records.next_rank()) >= until {
                        return Some(false);
                    }
                }
                Some(Item::Lost(_)) => drop(records.skip_lost()),
                None => {
                    self.base = BaseWalk::Passed;
                    return None;
                }
            }
        }
    }

    /// Rule 1. For a record in the base, what depends on the layout alone was checked before.
    fn is_live(&mut self, store: LookUp<'_>) -> bool {
        let Self { record, scratch, .. } = self;
        record.hides_a_record = false;
        if !matches!(record.kind, RecordKind::Entry | RecordKind::EntryWithAttributes) {
            return false;
        }
        let hash = store.hasher.hash(&record.key);
        let (layout, in_tails, seen) = store.look(hash);
        record.seen = seen;
        let located = locate(&record.key, hash, in_tails, &layout, &Patience::unlimited(), scratch);
        let is_in_base = record.place < EntryPlace::start_of(1);
        match located {
            Located::Hidden => false,
            Located::Absent => is_in_base,
            Located::Read if is_in_base => {
                record.hides_a_record = !layout.is_base_ours
                    && scratch.read_at().is_some_and(|(_, time)| time < record.times.written_at);
                record.hides_a_record
            }
            Located::Read => {
                let is_latest = scratch.read_at().is_some_and(|(place, _)| record.place == place.into());
                let time = Some(record.times.written_at);
                is_latest
                    && record.times.written_at > layout.cleared_at
                    && (layout.is_base_ours || scratch.time_in_base(&layout, &record.key) <= time)
            }
        }
    }
}

/// Reads the records of a segment in order.
#[derive(Debug)]
struct SegmentScan {
    segment: Arc<SegmentFile>,
    at: u32,
    /// Rule 4: the records behind an invalid one.
    listed: Option<VecDeque<u32>>,
    bytes: Vec<u8>,
}

impl SegmentScan {
    fn new(segment: Arc<SegmentFile>) -> Self {
        Self { segment, at: FIRST_RECORD, listed: None, bytes: Vec::new() }
    }

    fn is_in(&self, layout: &StoreLayout) -> bool {
        layout.segment(self.segment.number).is_some()
    }

    fn place(&self) -> EntryPlace {
        StorePlace { segment: self.segment.number, offset: self.at }.into()
    }

    /// The next entry before a place.
    fn next(&mut self, until: EntryPlace, into: &mut LiveRecord, shows_eager: bool) -> Option<EntryPlace> {
        loop {
            if let Some(listed) = &mut self.listed {
                self.at = listed.pop_front()?;
            }
            let place = self.place();
            if self.at >= self.segment.end() || place >= until {
                if let Some(listed) = &mut self.listed {
                    listed.push_front(self.at);
                }
                return None;
            }
            let Some(record) = self.segment.read(self.at, &mut self.bytes) else {
                if self.listed.is_none() {
                    self.list();
                }
                continue;
            };
            self.at = self.at.saturating_add(u32::try_from(record.total()).unwrap_or(u32::MAX));
            let is_shown =
                record.kind.is_entry() && !record.kind.is_eager() || record.kind.is_eager() && shows_eager;
            if is_shown {
                let part = |range: &std::ops::Range<usize>| self.bytes.get(range.clone()).unwrap_or_default();
                into.set_key_and_value(part(&record.key), part(&record.value), part(&record.attributes));
                (into.kind, into.times) = (record.kind, record.times);
                into.is_compressed = record.is_compressed;
                return Some(place);
            }
        }
    }

    /// Rule 4: finds the valid records behind the invalid record at `at`.
    fn list(&mut self) {
        let segment = &self.segment;
        let mut listing = Listing { from: self.at, offsets: VecDeque::new() };
        let row = SegmentRow {
            number: segment.number,
            is_sealed: true, // Up to its end as it is now.
            file_id: segment.file_id,
            end: segment.end(),
            entries: 0,
            earliest: 0,
            latest: 0,
            last_deadline: 0,
            dead_bytes: 0,
        };
        replay_sealed(segment, &row, &mut listing);
        self.listed = Some(listing.offsets);
    }
}

struct Listing {
    from: u32,
    offsets: VecDeque<u32>,
}

impl ReplayVisitor for Listing {
    fn record(&mut self, place: StorePlace, _record: &SegmentRecord, _bytes: &[u8]) {
        if place.offset > self.from {
            self.offsets.push_back(place.offset);
        }
    }

    fn damaged(&mut self, _place: StorePlace, _kind: RecordKind, _hash: Hash40) {}
}
