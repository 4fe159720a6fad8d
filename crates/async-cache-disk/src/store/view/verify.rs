//! Reads a whole store and lists every fault.
//!
//! The walk compares two views of the same moment: with the runs, as a cache reads the store, and
//! from the segments alone. An entry is sound if both find it.

use std::ops::ControlFlow;
use std::path::PathBuf;

use super::StoreView;
use super::entries::Candidate;
use crate::format::store::record::{RecordKind, SegmentRecord};
use crate::format::store::{Hash40, StorePlace};
use crate::store::replay::{ReplayVisitor, Unreadable};
use crate::store::{EntryPlace, StoreAnswer, StoreScratch};
use crate::verify::{self, Report};

/// Findings beyond this number are counted and not listed.
const MOST_LISTED: usize = 1000;

/// The kind of a fault in a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreFindingKind {
    /// A segment is missing, or is not the one that the manifest names: entries that are not later
    /// than its records are lost.
    Segment,
    /// A run is missing, or is not the one that the manifest names. Costs nothing but time.
    Run,
    /// A record does not verify: entries of its key are lost.
    Record,
    /// Records do not verify and nothing is known of them: all earlier entries are lost.
    Range,
    /// A digest does not verify. Costs nothing while the records that it lists are sound.
    Digest,
    /// A bucket of a run does not verify: its keys are misses, until the run is merged.
    Bucket,
    /// A list of eager records does not verify: eager entries that are not later are lost.
    EagerList,
    /// A run leads to no record, or does not lead to the latest record of a key.
    Unreachable,
}

/// A fault in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreFinding {
    /// The kind of the fault.
    pub kind: StoreFindingKind,
    /// The file.
    pub file: PathBuf,
    /// Where in the file, in bytes from its start.
    pub offset: u64,
    /// A description of the fault.
    pub what: String,
}

/// The result of [`StoreView::verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreReport {
    /// The faults of the base; `None` without a base.
    pub base: Option<Report>,
    /// The bytes of segments and runs.
    pub bytes: u64,
    /// How many entries the base and the segments hold, as far as they can be read.
    pub entries: u64,
    /// How many of them a look-up finds.
    pub sound_entries: u64,
    /// The faults of the store, in the order of segments and then of runs. At most the first
    /// thousand.
    pub findings: Vec<StoreFinding>,
    /// The number of faults, including those not listed.
    pub finding_count: u64,
}

impl StoreReport {
    /// Whether nothing is wrong, neither in the store nor in its base.
    pub fn is_clean(&self) -> bool {
        self.finding_count == 0 && self.base.as_ref().is_none_or(Report::is_clean)
    }

    fn add(&mut self, kind: StoreFindingKind, file: PathBuf, offset: u64, what: impl Into<String>) {
        self.finding_count = self.finding_count.saturating_add(1);
        if self.findings.len() < MOST_LISTED {
            self.findings.push(StoreFinding { kind, file, offset, what: what.into() });
        }
    }
}

impl StoreView {
    /// Reads the whole store and its base and lists every fault. Takes 16 bytes of memory for each
    /// key.
    pub fn verify(&self) -> StoreReport {
        let mut report = StoreReport {
            base: self.base().map(verify::walk),
            bytes: self.bytes(),
            entries: 0,
            sound_entries: 0,
            findings: Vec::new(),
            finding_count: 0,
        };
        self.verify_segments(&mut report);
        self.verify_runs(&mut report);
        self.verify_entries(&mut report);
        report
    }

    fn verify_segments(&self, report: &mut StoreReport) {
        for lost in self.segments().filter(|segment| segment.is_lost) {
            let what = "the file is missing, or is not the segment that the manifest names";
            report.add(StoreFindingKind::Segment, self.path_of('s', lost.number), 0, what);
        }
        for segment in &self.layout.segments {
            self.replay(segment, &mut VerifyOf { view: self, report });
        }
        for place in &self.unreadable {
            VerifyOf { view: self, report }.unreadable(*place, Unreadable::Rest);
        }
    }

    fn verify_runs(&self, report: &mut StoreReport) {
        for lost in self.runs().filter(|run| run.is_lost) {
            let what = "the file is missing, or is not the run that the manifest names: its segments are read \
                        instead";
            report.add(StoreFindingKind::Run, self.path_of('i', lost.number), 0, what);
        }
        let mut bytes = Vec::new();
        for placed in self.layout.runs.iter().rev() {
            let (run, path) = (&placed.run, || self.path_of('i', placed.run.number));
            let (mut slots, mut bucket, mut invalid) = (run.slots(), 0u32, 0);
            while let Some(found) = slots.next_bucket() {
                let offset = u64::from(bucket).saturating_mul(512).saturating_add(4096);
                if slots.invalid > invalid {
                    invalid = slots.invalid;
                    let what = format!("bucket {bucket} does not verify: its keys are misses");
                    report.add(StoreFindingKind::Bucket, path(), offset, what);
                }
                bucket = bucket.saturating_add(1);
                for slot in found {
                    if !self.leads_to_its_hash(slot.place, slot.hash, &mut bytes) {
                        let (segment, at) = (slot.place.segment, slot.place.offset);
                        let what =
                            format!("the run names s{segment:06x} at byte {at}, where its record is not");
                        report.add(StoreFindingKind::Unreachable, path(), offset, what);
                    }
                }
            }
            if run.eager().is_none() {
                let offset = run.counts.eager_section(run.seal.tag_bytes()).offset;
                let what = "the list of eager records does not verify";
                report.add(StoreFindingKind::EagerList, path(), offset, what);
            }
        }
    }

    /// Whether a slot leads to a record with its hash, or to a record or segment that is damaged or
    /// gone, which was reported with the segment.
    fn leads_to_its_hash(&self, place: StorePlace, hash: Hash40, bytes: &mut Vec<u8>) -> bool {
        let Some(segment) = self.layout.segment(place.segment) else { return true };
        let Some(record) = segment.read(place.offset, bytes) else { return place.offset < segment.end() };
        let key = bytes.get(record.key).unwrap_or_default();
        Hash40::of(self.hasher.hash(key)) == hash
    }

    fn verify_entries(&self, report: &mut StoreReport) {
        let (alone, mut scratch) = (self.without_runs(), StoreScratch::new());
        let _ = self.each_candidate(|candidate| {
            let Candidate::Record(key, place, _) = candidate else { return ControlFlow::Continue(()) };
            let is_found = self.found_at(key, place, &mut scratch);
            if is_found == Some(true) {
                report.sound_entries = report.sound_entries.saturating_add(1);
            } else if alone.found_at(key, place, &mut scratch) != Some(true) {
                return ControlFlow::Continue(());
            } else if is_found == Some(false) {
                let place = place.to_number();
                let segment = u32::try_from(place >> 32).unwrap_or(0);
                let what = "a look-up does not find this entry, the latest of its key";
                let file = self.path_of('s', segment);
                report.add(StoreFindingKind::Unreachable, file, place & u64::from(u32::MAX), what);
            }
            report.entries = report.entries.saturating_add(1);
            ControlFlow::Continue(())
        });
    }

    /// Whether a look-up finds the entry at a place; `None` if the key is hidden.
    fn found_at(&self, key: &[u8], place: EntryPlace, scratch: &mut StoreScratch) -> Option<bool> {
        match self.find(key, scratch) {
            StoreAnswer::Entry(found) => Some(found.sighting.place == place),
            StoreAnswer::Absent => Some(false),
            StoreAnswer::Hidden => None,
        }
    }
}

/// Lists the damage of a segment.
struct VerifyOf<'v> {
    view: &'v StoreView,
    report: &'v mut StoreReport,
}

impl ReplayVisitor for VerifyOf<'_> {
    fn record(&mut self, _place: StorePlace, _record: &SegmentRecord, _bytes: &[u8]) {}

    fn damaged(&mut self, place: StorePlace, _kind: RecordKind, _hash: Hash40) {
        let what = "a record does not verify: what it wrote or replaced is lost";
        self.add(StoreFindingKind::Record, place, what);
    }

    fn unreadable(&mut self, place: StorePlace, what: Unreadable) {
        let (kind, what) = match what {
            Unreadable::Digest => {
                (StoreFindingKind::Digest, "a digest does not verify; nothing is lost".to_owned())
            }
            Unreadable::Clear => (
                StoreFindingKind::Range,
                "the record of a clear does not verify: all earlier entries are lost".to_owned(),
            ),
            Unreadable::Until(end) => (
                StoreFindingKind::Range,
                format!("nothing is known of the records up to byte {end}: all earlier entries are lost"),
            ),
            Unreadable::Rest => (
                StoreFindingKind::Range,
                "nothing is known of the records up to the end: all earlier entries are lost".to_owned(),
            ),
        };
        self.add(kind, place, what);
    }
}

impl VerifyOf<'_> {
    fn add(&mut self, kind: StoreFindingKind, place: StorePlace, what: impl Into<String>) {
        let file = self.view.path_of('s', place.segment);
        self.report.add(kind, file, place.offset.into(), what);
    }
}
