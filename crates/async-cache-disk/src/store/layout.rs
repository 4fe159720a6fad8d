//! The files of a store that count.

use std::sync::Arc;

use super::run::IndexRun;
use super::segment::SegmentFile;
use crate::snapshot::Snapshot;

/// The files that count, for look-ups.
#[derive(Debug)]
pub(super) struct StoreLayout {
    /// Ascending by number.
    pub(super) segments: Vec<Arc<SegmentFile>>,
    /// The latest first.
    pub(super) runs: Vec<PlacedRun>,
    pub(super) base: Option<Arc<Snapshot>>,
    /// The manifest names the base: every record is later than its entries. Else another program
    /// has replaced the base, and times decide.
    pub(super) is_base_ours: bool,
    /// Entries that are not later than this time do not exist: the floor, and the latest clear.
    pub(super) cleared_at: u64,
    /// The same for entries of the base.
    pub(super) dropped_until: u64,
}

/// A run, and the first segment of its range.
#[derive(Debug, Clone)]
pub(super) struct PlacedRun {
    pub(super) first_segment: u32,
    pub(super) run: Arc<IndexRun>,
}

impl StoreLayout {
    /// The segment with this number, unless it is lost or was collected.
    pub(super) fn segment(&self, number: u32) -> Option<&Arc<SegmentFile>> {
        let index = self.segments.binary_search_by_key(&number, |segment| segment.number).ok()?;
        self.segments.get(index)
    }

    /// How many reads have failed with an error of the system.
    pub(super) fn io_errors(&self) -> u64 {
        let segments = self.segments.iter().map(|segment| segment.io_errors());
        let runs = self.runs.iter().map(|placed| placed.run.io_errors());
        let base = self.base.as_ref().map_or(0, |base| base.damage().io_errors);
        segments.chain(runs).fold(base, |sum, errors| sum.saturating_add(errors.into()))
    }

    /// The run with this number.
    pub(super) fn run(&self, number: u32) -> Option<&Arc<IndexRun>> {
        self.runs.iter().map(|placed| &placed.run).find(|run| run.number == number)
    }
}
