//! The size of a store.

use super::layout::StoreLayout;

/// The bytes of a store, and its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct StoreStats {
    /// The bytes of all segments.
    pub segment_bytes: u64,
    /// The bytes of the runs, which index segments.
    pub run_bytes: u64,
    /// The bytes of the base; 0 without a base.
    pub base_bytes: u64,
    /// The number of segments.
    pub segments: u64,
    /// The number of runs.
    pub runs: u64,
    /// The bytes in memory that save look-ups the reads of runs without the key: at most a byte for
    /// each slot of a run, and 32 MiB in all.
    pub filter_bytes: u64,
}

impl StoreStats {
    pub(super) fn of(layout: &StoreLayout) -> Self {
        let segment_bytes = layout.segments.iter().map(|segment| u64::from(segment.end()));
        Self {
            segment_bytes: segment_bytes.sum(),
            run_bytes: layout.runs.iter().map(|placed| placed.run.bytes()).sum(),
            base_bytes: layout.base.as_ref().map_or(0, |base| base.file_bytes()),
            segments: layout.segments.len() as u64,
            runs: layout.runs.len() as u64,
            filter_bytes: 0,
        }
    }

    /// All bytes.
    pub fn bytes(&self) -> u64 {
        self.segment_bytes.saturating_add(self.run_bytes).saturating_add(self.base_bytes)
    }
}
