//! Digests: the list of the records since the previous digest of a segment (file format, section
//! 14). A digest is a record; this file has its value.
//!
//! Invariant of a decoded digest: its rows ascend, begin at its base, and end before the digest,
//! with room for a record each.

use super::super::Fields;
use super::super::checksum::{CHECKSUM_BYTES, Seal};
use super::record::{MIN_SEGMENT_RECORD_BYTES, NewRecord, RecordKind, RecordTimes, SegmentHead};
use super::{Hash40, MIN_SEGMENT_BYTES};

const OFFSET_BITS: u32 = 20;
const KIND_BITS: u32 = 4;
/// A record that would begin this far behind the end of the previous digest follows a new digest.
pub(crate) const DIGEST_SPACING: u32 = 32 << 10;

/// The key of all digests of a segment; a reader searches for these bytes.
pub(crate) fn digest_key(file_id: &[u8; 16]) -> [u8; 8] {
    file_id.first_chunk().copied().unwrap_or_default()
}

/// A record in a digest: hash, kind, and the offset from the digest's base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DigestRow(u64);

impl DigestRow {
    /// `None` if the offset from the base does not fit.
    pub(crate) fn new(hash: Hash40, kind: RecordKind, distance: u32) -> Option<Self> {
        if distance >> OFFSET_BITS != 0 {
            return None;
        }
        let upper = hash.bits() << KIND_BITS | u64::from(kind.number());
        Some(Self(upper << OFFSET_BITS | u64::from(distance)))
    }

    pub(crate) fn hash(self) -> Hash40 {
        Hash40(self.0 >> (OFFSET_BITS + KIND_BITS))
    }

    #[allow(clippy::cast_possible_truncation)] // the low four bits are meant
    pub(crate) fn kind(self) -> RecordKind {
        RecordKind::from_number((self.0 >> OFFSET_BITS) as u8)
    }

    #[allow(clippy::cast_possible_truncation)] // 20 bits
    /// The offset from the digest's base.
    pub(crate) fn distance(self) -> u32 {
        (self.0 & ((1 << OFFSET_BITS) - 1)) as u32
    }
}

/// The value of a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SegmentDigest {
    /// Offset of the first listed record; without rows, the offset of the digest.
    pub(crate) base: u32,
    /// Every byte before this offset was durable when the digest was written.
    pub(crate) synced: u32,
    pub(crate) rows: Vec<DigestRow>,
}

impl SegmentDigest {
    /// Decodes the value of the digest that begins at `offset` in its segment.
    pub(crate) fn decode(value: &[u8], offset: u32) -> Option<Self> {
        let mut fields = Fields(value);
        let base = u32::try_from(fields.u64()?).ok()?;
        let synced = u32::try_from(fields.u64()?).ok()?;
        let (rows, rest) = fields.0.as_chunks();
        let rows = rows.iter().map(|row| DigestRow(u64::from_le_bytes(*row))).collect();
        let digest = Self { base, synced, rows };
        (rest.is_empty() && digest.is_valid_at(offset)).then_some(digest)
    }

    /// Whether the invariant holds for a digest that begins at `offset`.
    fn is_valid_at(&self, offset: u32) -> bool {
        let Some(covered) = offset.checked_sub(self.base) else { return false };
        let begins = self.rows.iter().map(|row| row.distance());
        let ends = begins.clone().skip(1).chain([covered]);
        self.base >= MIN_SEGMENT_BYTES
            && self.synced <= offset
            && self.rows.first().map_or(covered, |row| row.distance()) == 0
            && begins
                .zip(ends)
                .all(|(begin, end)| end.checked_sub(begin).is_some_and(|len| len >= MIN_SEGMENT_RECORD_BYTES))
            && self.rows.iter().all(|row| row.kind() != RecordKind::Digest)
    }

    /// Appends the value, for a digest that begins at `offset`; `None`, and nothing is appended, if
    /// the digest would not decode there.
    pub(crate) fn encode(&self, out: &mut Vec<u8>, offset: u32) -> Option<()> {
        if !self.is_valid_at(offset) {
            return None;
        }
        out.reserve(self.rows.len().checked_add(2)?.checked_mul(8)?);
        out.extend_from_slice(&u64::from(self.base).to_le_bytes());
        out.extend_from_slice(&u64::from(self.synced).to_le_bytes());
        for row in &self.rows {
            out.extend_from_slice(&row.0.to_le_bytes());
        }
        Some(())
    }

    /// Appends the whole record of the digest, closed for `offset`, and returns its length.
    pub(crate) fn append(
        &self,
        out: &mut Vec<u8>,
        seal: Seal,
        file_id: &[u8; 16],
        offset: u32,
        written_at: u64,
    ) -> Option<u32> {
        let mut value = Vec::new();
        self.encode(&mut value, offset)?;
        let times = RecordTimes { deadline: None, written_at };
        let (kind, key) = (RecordKind::Digest, &digest_key(file_id));
        let record = NewRecord { kind, times, is_compressed: false, attributes: &[], key, value: &value };
        record.append(out, seal, offset)
    }

    /// The length of the record of a digest with this many rows, without a tag.
    pub(crate) fn record_bytes(rows: u32) -> Option<u32> {
        let value = rows.checked_add(2)?.checked_mul(8)?;
        let times = RecordTimes { deadline: None, written_at: 0 };
        let head = SegmentHead::new(RecordKind::Digest, 8, value, 0, times);
        let ends = u32::try_from(CHECKSUM_BYTES.checked_add(head.as_bytes().len())?).ok()?;
        ends.checked_add(8)?.checked_add(value)
    }

    /// The index of the row of the record that begins at `offset` in the segment.
    pub(crate) fn row_at(&self, offset: u32) -> Option<usize> {
        let distance = offset.checked_sub(self.base)?;
        self.rows.binary_search_by_key(&distance, |row| row.distance()).ok()
    }

    /// Where the record of a row begins in the segment.
    pub(crate) fn offset_of(&self, row: DigestRow) -> u32 {
        self.base.saturating_add(row.distance())
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::address::KeyHash;
    use super::super::super::record::RecordForm;
    use super::super::record::SegmentRecord;
    use super::super::testing::{FILE_ID, assert_refuses_changes, seals};
    use super::*;

    fn row(hash: u64, kind: RecordKind, distance: u32) -> DigestRow {
        DigestRow::new(Hash40::of(KeyHash(hash)), kind, distance).unwrap()
    }

    fn digest() -> SegmentDigest {
        let rows = vec![
            row(0xFFFF_FF98_7654_3210, RecordKind::Delete, 0),
            row(0, RecordKind::Clear, 19),
            row(u64::MAX, RecordKind::Unknown(15), 0x7FFF),
        ];
        SegmentDigest { base: 4096, synced: 4100, rows }
    }

    #[test]
    fn a_digest_has_the_bytes_of_the_format() {
        let mut value = Vec::new();
        digest().encode(&mut value, 40960).unwrap();
        #[rustfmt::skip]
        let expected = [
            0x00, 0x10, 0, 0, 0, 0, 0, 0,
            0x04, 0x10, 0, 0, 0, 0, 0, 0,
            0x00, 0x00, 0x20, 0x10, 0x32, 0x54, 0x76, 0x98,
            0x13, 0x00, 0x60, 0, 0, 0, 0, 0,
            0xFF, 0x7F, 0xF0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF,
        ];
        assert_eq!(value, expected);
        let read = SegmentDigest::decode(&value, 40960).unwrap();
        assert_eq!(read, digest());
        assert_eq!((read.row_at(4096), read.row_at(4115), read.row_at(36863)), (Some(0), Some(1), Some(2)));
        assert_eq!((read.row_at(0), read.row_at(4097), read.row_at(40960)), (None, None, None));
        assert_eq!(read.offset_of(read.rows[2]), 36863);
        assert_eq!(read.rows[2].hash().bits(), 0xFF_FFFF_FFFF);
        for cut in 0..value.len() {
            // The rows that remain end before the digest as well.
            let is_whole = cut >= 24 && cut % 8 == 0;
            assert_eq!(SegmentDigest::decode(&value[..cut], 40960).is_some(), is_whole, "{cut}");
        }
    }

    #[test]
    fn a_digest_is_a_record_with_the_key_of_its_segment() {
        for seal in seals() {
            let mut bytes = Vec::new();
            let total = digest().append(&mut bytes, seal, &FILE_ID, 40960, 77).unwrap();
            let form = RecordForm { has_tag: seal.has_mac(), may_compress: false };
            let read = SegmentRecord::parse(&bytes, form).unwrap();
            assert_eq!((read.total(), read.times.written_at), (total as usize, 77));
            assert_eq!((read.kind, &bytes[read.key]), (RecordKind::Digest, &b"01234567"[..]));
            assert_eq!(SegmentDigest::decode(&bytes[read.value], 40960), Some(digest()));
            assert_refuses_changes(&bytes, |bytes| seal.open(40960, bytes).is_some());
        }
    }

    #[test]
    fn a_digest_without_rows_stands_at_its_base() {
        let empty = SegmentDigest { base: 5000, synced: 0, rows: Vec::new() };
        let mut value = Vec::new();
        empty.encode(&mut value, 5000).unwrap();
        assert_eq!(SegmentDigest::decode(&value, 5000), Some(empty.clone()));
        assert_eq!(SegmentDigest::decode(&value, 5001), None);
        assert_eq!(empty.encode(&mut value, 4999), None);
    }

    #[test]
    fn neither_side_accepts_a_digest_that_breaks_a_rule() {
        let entry = |distance| row(1, RecordKind::Entry, distance);
        let (good, base, synced) = (vec![entry(0), entry(15)], 4096, 0);
        let cases = [
            (base, synced, good.clone(), true),
            (base, 4126, good.clone(), true),
            (base, 4127, good.clone(), false),   // synced behind the digest
            (4095, synced, good.clone(), false), // in the header page
            (4097, synced, good, false),         // no room for the last record
            (base, synced, vec![entry(1), entry(15)], false), // not from the base on
            (base, synced, vec![entry(0), entry(14)], false), // no room for a record
            (base, synced, vec![entry(0), entry(0)], false), // not ascending
            (base, synced, vec![entry(0), entry(16)], false), // no room before the digest
            (base, synced, vec![entry(0), entry(0xF_FFFF)], false), // behind the digest
            (base, synced, vec![row(1, RecordKind::Digest, 0)], false),
        ];
        for (base, synced, rows, is_right) in cases {
            let digest = SegmentDigest { base, synced, rows };
            let mut bytes = Vec::new();
            assert_eq!(digest.encode(&mut bytes, 4126).is_some(), is_right, "{digest:?}");
            assert_eq!(bytes.is_empty(), !is_right);
            let rows = digest.rows.iter().map(|row| row.0);
            let value: Vec<u8> = [u64::from(base), u64::from(synced)]
                .into_iter()
                .chain(rows)
                .flat_map(u64::to_le_bytes)
                .collect();
            assert_eq!(SegmentDigest::decode(&value, 4126).is_some(), is_right, "{digest:?}");
        }
        assert!(SegmentDigest::decode(&[0xFF; 16], u32::MAX).is_none());
        assert!(DigestRow::new(Hash40::default(), RecordKind::Entry, 1 << 20).is_none());
    }
}
