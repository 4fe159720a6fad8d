//! What is behind an invalid record. Nothing here changes what was found, but for what is known of
//! digests and for the bytes that may still be verified (rule 3 at the head of the module above).

use super::{DigestBehind, NextDigest, Walking};
use crate::format::checksum::CHECKSUM_BYTES;
use crate::format::store::digest::{SegmentDigest, digest_key};
use crate::format::store::record::{
    MAX_SEGMENT_HEAD_BYTES, MIN_SEGMENT_RECORD_BYTES, NewRecord, RecordKind, RecordTimes, SegmentRecord,
};
use crate::vfs::read_exact_at;

/// A killed process leaves half a record at the end of a page only.
const PAGE: u32 = 4096;
/// A search reads this many bytes at once.
const WINDOW: u32 = 1 << 16;
/// From the first byte of a digest's record to its key: checksum, flags, length of the key, 1 to 5
/// bytes of the length of the value, time.
const KEY_AT: std::ops::RangeInclusive<u32> = 15..=19;

impl Walking<'_> {
    /// Finds out about the next valid digest behind `at`.
    pub(super) fn find_digest(&mut self, at: u32) {
        let is_known = match &self.next {
            NextDigest::Unknown => false,
            NextDigest::At(behind) => behind.offset > at,
            NextDigest::None => true,
        };
        if !is_known {
            self.next = self.search_digest(at).map_or(NextDigest::None, NextDigest::At);
        }
    }

    /// Rule 1: the end of what the manifest or any digest behind `at` calls durable.
    pub(super) fn durable(&mut self, at: u32) -> u32 {
        if let Some(durable) = self.durable {
            return durable;
        }
        let (mut durable, mut from) = (self.of.row.end, at);
        while let Some(behind) = self.search_digest(from) {
            durable = durable.max(behind.digest.synced);
            from = behind.offset;
        }
        self.durable = Some(durable);
        durable
    }

    fn search_digest(&mut self, at: u32) -> Option<DigestBehind> {
        let needle = digest_key(&self.segment.file_id);
        let overlap = u32::try_from(needle.len()).unwrap_or(0);
        let (mut from, mut window) = (at, Vec::new());
        while let Some(start) = self.window(from, &mut window) {
            let keys = (start..).zip(window.windows(needle.len())).filter(|(_, bytes)| *bytes == needle);
            for (key_at, _) in keys {
                let offsets = KEY_AT.filter_map(|before| key_at.checked_sub(before));
                let found = offsets.filter(|offset| *offset > at).find_map(|offset| self.digest_at(offset));
                if found.is_some() {
                    return found;
                }
            }
            from = start.saturating_add(WINDOW).saturating_sub(overlap);
            if start.saturating_add(WINDOW) >= self.bytes {
                break;
            }
        }
        None
    }

    /// Reads the next bytes from `from` on, passing holes. Returns the offset of the first; `None`
    /// at the end, and if they cannot be read.
    fn window(&self, from: u32, window: &mut Vec<u8>) -> Option<u32> {
        let data = self.segment.file.data_from(from.into()).unwrap_or(from.into());
        // A key or a head may begin in a hole.
        let start = u32::try_from(data).ok()?.saturating_sub(PAGE).max(from);
        let count = self.bytes.checked_sub(start).filter(|left| *left > 0)?.min(WINDOW);
        window.resize(usize::try_from(count).ok()?, 0);
        read_exact_at(&*self.segment.file, window, start.into()).ok()?;
        Some(start)
    }

    fn digest_at(&mut self, offset: u32) -> Option<DigestBehind> {
        let head = self.head(offset, self.bytes).filter(|head| head.kind == RecordKind::Digest);
        if head.is_none() || !self.charge(head) {
            return None;
        }
        let mut bytes = Vec::new();
        let record = self.segment.read(offset, &mut bytes)?;
        let digest = SegmentDigest::decode(bytes.get(record.value.clone())?, offset)?;
        Some(DigestBehind { offset, written_at: record.times.written_at, digest })
    }

    /// The head at an offset, if it is one and the record would end before `end`.
    pub(super) fn head(&self, at: u32, end: u32) -> Option<SegmentRecord> {
        let left = usize::try_from(end.checked_sub(at)?).ok()?;
        let mut head = vec![0; left.min(MAX_SEGMENT_HEAD_BYTES)];
        read_exact_at(&*self.segment.file, &mut head, at.into()).ok()?;
        SegmentRecord::parse(&head, self.segment.form).filter(|record| record.total() <= left)
    }

    /// Rule 3: notes that a record is verified. `false` if it may not be.
    pub(super) fn charge(&mut self, record: Option<SegmentRecord>) -> bool {
        let bytes = record.map_or(0, |record| record.total() as u64);
        let left = self.left.checked_sub(bytes);
        self.left = left.unwrap_or(0);
        left.is_some()
    }

    /// Whether the record at `at` may be half of a record that a killed process was writing.
    pub(super) fn is_torn(&self, at: u32) -> bool {
        let left = self.bytes.saturating_sub(at);
        if !self.bytes.is_multiple_of(PAGE) {
            return false;
        }
        if left < MIN_SEGMENT_RECORD_BYTES {
            return true;
        }
        // In place of missing bytes of the head, any that complete the lengths.
        let mut head = [1; MAX_SEGMENT_HEAD_BYTES];
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        let Some(known) = head.get_mut(..left.min(MAX_SEGMENT_HEAD_BYTES)) else { return false };
        read_exact_at(&*self.segment.file, known, at.into()).is_ok()
            && SegmentRecord::parse(&head, self.segment.form).is_some_and(|record| record.total() > left)
    }

    /// Whether there is a valid record behind `at`, at any offset.
    pub(super) fn is_record_behind(&mut self, at: u32) -> bool {
        let (mut from, mut window) = (at.saturating_add(1), Vec::new());
        while let Some(start) = self.window(from, &mut window) {
            for offset in (start..).take(window.len()) {
                let head = usize::try_from(offset.saturating_sub(start)).ok().and_then(|at| window.get(at..));
                let head = head.and_then(|head| SegmentRecord::parse(head, self.segment.form));
                let left = u64::from(self.bytes.saturating_sub(offset));
                let head = head.filter(|head| head.total() as u64 <= left);
                if head.is_none() {
                    continue;
                }
                if !self.charge(head) {
                    // Behind a damaged record of moderate length, one would have been found.
                    return false;
                }
                if self.segment.read(offset, &mut self.buffer).is_some() {
                    return true;
                }
            }
            if start.saturating_add(WINDOW) >= self.bytes {
                break;
            }
            let overlap = u32::try_from(MAX_SEGMENT_HEAD_BYTES).unwrap_or(0);
            from = start.saturating_add(WINDOW).saturating_sub(overlap);
        }
        false
    }

    /// Whether the head at `at` is that of a digest of the records since the previous one, but for
    /// one byte outside of checksum and time.
    pub(super) fn has_digest_head(&self, at: u32) -> bool {
        let Some(count) = usize::try_from(self.since.records).ok() else { return false };
        let (key, value) =
            (digest_key(&self.segment.file_id), vec![0; count.saturating_add(2).saturating_mul(8)]);
        let times = RecordTimes { deadline: None, written_at: 0 };
        let (kind, attributes) = (RecordKind::Digest, &[][..]);
        let digest = NewRecord { kind, times, is_compressed: false, attributes, key: &key, value: &value };
        let Some((head, _)) = digest.measure(self.segment.seal) else { return false };
        let Some((lengths, time)) = head.as_bytes().split_last_chunk::<8>() else { return false };
        let expected = [lengths, time, &key].concat();
        let mut found = vec![0; expected.len()];
        let start = u64::from(at).saturating_add(CHECKSUM_BYTES as u64);
        if read_exact_at(&*self.segment.file, &mut found, start).is_err() {
            return false;
        }
        let time = lengths.len()..lengths.len().saturating_add(time.len());
        let pairs = expected.iter().zip(&found).enumerate().filter(|(index, _)| !time.contains(index));
        pairs.filter(|(_, (expected, found))| expected != found).count() <= 1
    }
}
