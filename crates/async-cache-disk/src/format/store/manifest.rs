//! The body of a manifest (file format, section 16).
//!
//! Rules, checked on both sides:
//! 1. numbers are at least 1 and below the next number, and no two files have the same;
//! 2. segments ascend by number, runs by range; ranges do not overlap;
//! 3. the segments in the range of a run are sealed; in a clean manifest, all are;
//! 4. a sealed segment is at least as long as its header and its entries, and its times, like
//!    those of a run, are not later than *written until*;
//! 5. flags are known, and the counts fit the length exactly.

use super::super::Fields;
use super::super::checksum::{CHECKSUM_BYTES, Seal};
use super::super::header_page::HEADER_BYTES;
use super::record::MIN_SEGMENT_RECORD_BYTES;
use super::{FILE_NUMBERS, MIN_SEGMENT_BYTES, is_file_number};

/// Where the body begins.
const BODY_OFFSET: u64 = HEADER_BYTES as u64;
const FIXED_BYTES: usize = 80;
const SEGMENT_ROW_BYTES: usize = 64;
const RUN_ROW_BYTES: usize = 48;
const CLEAN: u32 = 1;
const SEALED: u32 = 1;

/// A segment, as the manifest describes it. The counts and times of an open segment are those
/// known when the manifest was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentRow {
    pub(crate) number: u32,
    pub(crate) is_sealed: bool,
    pub(crate) file_id: [u8; 16],
    /// The length of a sealed segment; of an open segment, a length that is durable.
    pub(crate) end: u32,
    /// Records that are entries.
    pub(crate) entries: u32,
    /// 0 without records.
    pub(crate) earliest: u64,
    /// 0 without records.
    pub(crate) latest: u64,
    /// The latest deadline; `u64::MAX` if an entry has none.
    pub(crate) last_deadline: u64,
    /// Bytes of records that are known to be replaced, deleted or expired.
    pub(crate) dead_bytes: u32,
}

impl SegmentRow {
    fn decode(row: &[u8; SEGMENT_ROW_BYTES]) -> Option<Self> {
        let mut fields = Fields(row);
        let (number, flags) = (fields.u32()?, fields.u32()?);
        let row = Self {
            number,
            is_sealed: flags == SEALED,
            file_id: fields.array()?,
            end: fields.u32()?,
            entries: fields.u32()?,
            earliest: fields.u64()?,
            latest: fields.u64()?,
            last_deadline: fields.u64()?,
            dead_bytes: fields.u32()?,
        };
        (flags & !SEALED == 0).then_some(row)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_u32s(out, &[self.number, u32::from(self.is_sealed)]);
        out.extend_from_slice(&self.file_id);
        put_u32s(out, &[self.end, self.entries]);
        put_u64s(out, &[self.earliest, self.latest, self.last_deadline]);
        put_u32s(out, &[self.dead_bytes, 0]);
    }

    /// Rule 4.
    fn is_possible(&self, written_until: u64) -> bool {
        let records = self.end.checked_sub(MIN_SEGMENT_BYTES);
        let is_long_enough = records.is_some_and(|bytes| {
            let least = u64::from(self.entries).saturating_mul(MIN_SEGMENT_RECORD_BYTES.into());
            least <= u64::from(bytes) && self.dead_bytes <= bytes
        });
        self.earliest <= self.latest && (!self.is_sealed || is_long_enough && self.latest <= written_until)
    }
}

/// A run, as the manifest describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RunRow {
    pub(crate) number: u32,
    pub(crate) level: u32,
    pub(crate) file_id: [u8; 16],
    pub(crate) first_segment: u32,
    pub(crate) last_segment: u32,
    pub(crate) earliest: u64,
    pub(crate) latest: u64,
}

impl RunRow {
    fn decode(row: &[u8; RUN_ROW_BYTES]) -> Option<Self> {
        let mut fields = Fields(row);
        Some(Self {
            number: fields.u32()?,
            level: fields.u32()?,
            file_id: fields.array()?,
            first_segment: fields.u32()?,
            last_segment: fields.u32()?,
            earliest: fields.u64()?,
            latest: fields.u64()?,
        })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_u32s(out, &[self.number, self.level]);
        out.extend_from_slice(&self.file_id);
        put_u32s(out, &[self.first_segment, self.last_segment]);
        put_u64s(out, &[self.earliest, self.latest]);
    }

    /// Whether the run indexes the segment with this number, if there is such a segment.
    pub(crate) fn covers(&self, segment: u32) -> bool {
        (self.first_segment..=self.last_segment).contains(&segment)
    }
}

/// The content of a manifest behind its header page.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ManifestBody {
    /// All segments are sealed, all files durable, and no process writes to the store.
    pub(crate) is_clean: bool,
    pub(crate) sequence: u64,
    /// The latest *clear* in a sealed segment; 0: none.
    pub(crate) cleared_at: u64,
    /// Entries not later than this time do not exist; 0: none.
    pub(crate) floor: u64,
    /// Entries of a base that are not later than this time do not exist; 0: none.
    pub(crate) dropped_until: u64,
    /// No time in a sealed segment or in an earlier segment is later.
    pub(crate) written_until: u64,
    /// The number of the next file; at most 2²⁴, and then there can be no further file.
    pub(crate) next_number: u32,
    /// The file id of the base, if there was a base.
    pub(crate) base: Option<[u8; 16]>,
    pub(crate) segments: Vec<SegmentRow>,
    pub(crate) runs: Vec<RunRow>,
}

impl ManifestBody {
    /// Checks and decodes the whole unit, which stands behind the header page.
    pub(crate) fn decode(seal: Seal, unit: &[u8]) -> Result<Self, &'static str> {
        let body = seal.open(BODY_OFFSET, unit).ok_or("its checksum or its tag does not match")?;
        let body = Self::decode_fields(body).ok_or("its counts or flags are impossible")?;
        body.check().map(|()| body)
    }

    fn decode_fields(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let flags = fields.u32()?;
        let mut body = Self {
            is_clean: flags == CLEAN,
            sequence: fields.u64()?,
            cleared_at: fields.u64()?,
            floor: fields.u64()?,
            dropped_until: fields.u64()?,
            written_until: fields.u64()?,
            next_number: fields.u32()?,
            ..Self::default()
        };
        let (has_base, base) = (fields.u32()?, fields.array()?);
        body.base = (has_base == 1).then_some(base);
        let (segments, runs) = (fields.u32()?, fields.u32()?);
        let segments = fields.bytes(usize::try_from(segments).ok()?.checked_mul(SEGMENT_ROW_BYTES)?)?;
        let runs = fields.bytes(usize::try_from(runs).ok()?.checked_mul(RUN_ROW_BYTES)?)?;
        // Rule 5. The memory is not more than the rows have in the file.
        if flags & !CLEAN != 0 || has_base > 1 || !fields.0.is_empty() {
            return None;
        }
        body.segments = segments.as_chunks().0.iter().map(SegmentRow::decode).collect::<Option<_>>()?;
        body.runs = runs.as_chunks().0.iter().map(RunRow::decode).collect::<Option<_>>()?;
        Some(body)
    }

    /// Checks rules 1 to 4.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        if !self.has_valid_numbers() {
            return Err("its numbers of files are impossible");
        }
        let is_ascending = self.segments.is_sorted_by(|a, b| a.number < b.number)
            && self.runs.iter().all(|run| run.first_segment <= run.last_segment)
            && self.runs.is_sorted_by(|a, b| a.last_segment < b.first_segment);
        if !is_ascending {
            return Err("its segments or runs are not in order");
        }
        let are_segments_possible = self.segments.iter().all(|segment| {
            let must_be_sealed = self.is_clean || self.run_over(segment.number).is_some();
            segment.is_possible(self.written_until) && (segment.is_sealed || !must_be_sealed)
        });
        if !are_segments_possible {
            return Err("a segment's fields contradict each other");
        }
        let are_runs_possible =
            self.runs.iter().all(|run| run.earliest <= run.latest && run.latest <= self.written_until);
        if are_runs_possible { Ok(()) } else { Err("a run's times are impossible") }
    }

    /// Rule 1.
    fn has_valid_numbers(&self) -> bool {
        let is_valid = |number: u32| is_file_number(number) && number < self.next_number;
        let segments = self.segments.iter().map(|segment| segment.number);
        let mut numbers: Vec<u32> = segments.chain(self.runs.iter().map(|run| run.number)).collect();
        numbers.sort_unstable();
        self.next_number <= FILE_NUMBERS
            && numbers.is_sorted_by(|a, b| a < b)
            && numbers.into_iter().all(is_valid)
            && self.runs.iter().all(|run| is_valid(run.first_segment) && is_valid(run.last_segment))
    }

    /// The run that indexes a segment.
    pub(crate) fn run_over(&self, segment: u32) -> Option<&RunRow> {
        let index = self.runs.partition_point(|run| run.last_segment < segment);
        self.runs.get(index).filter(|run| run.covers(segment))
    }

    /// The segments that no run indexes.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn tails(&self) -> impl Iterator<Item = &SegmentRow> {
        self.segments.iter().filter(|segment| self.run_over(segment.number).is_none())
    }

    /// The whole unit, closed, to be written behind the header page. The error is a rule that is
    /// broken.
    pub(crate) fn encode(&self, seal: Seal) -> Result<Vec<u8>, &'static str> {
        const TOO_MANY: &str = "it has too many rows";
        self.check()?;
        let segments = u32::try_from(self.segments.len()).map_err(|_| TOO_MANY)?;
        let runs = u32::try_from(self.runs.len()).map_err(|_| TOO_MANY)?;
        let rows = self.segments.len().saturating_add(self.runs.len());
        let mut unit = Vec::with_capacity(rows.saturating_mul(SEGMENT_ROW_BYTES).saturating_add(128));
        unit.extend_from_slice(&[0; CHECKSUM_BYTES]);
        put_u32s(&mut unit, &[u32::from(self.is_clean)]);
        put_u64s(&mut unit, &[self.sequence, self.cleared_at, self.floor]);
        put_u64s(&mut unit, &[self.dropped_until, self.written_until]);
        put_u32s(&mut unit, &[self.next_number, u32::from(self.base.is_some())]);
        unit.extend_from_slice(&self.base.unwrap_or_default());
        put_u32s(&mut unit, &[segments, runs]);
        debug_assert_eq!(unit.len(), FIXED_BYTES);
        self.segments.iter().for_each(|segment| segment.encode(&mut unit));
        self.runs.iter().for_each(|run| run.encode(&mut unit));
        unit.resize(unit.len().saturating_add(seal.tag_bytes()), 0);
        seal.close(BODY_OFFSET, &mut unit);
        Ok(unit)
    }
}

fn put_u32s(out: &mut Vec<u8>, numbers: &[u32]) {
    out.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
}

fn put_u64s(out: &mut Vec<u8>, numbers: &[u64]) {
    out.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
}

#[cfg(test)]
mod tests;
