//! Records of segments (file format, section 14): the length of a record, the positions of its
//! parts, and the whole record as it is appended. The caller checks checksum and tag on reading.
//!
//! Invariant: [`SegmentRecord::parse`] and [`NewRecord::append`] apply the same rules
//! ([`is_allowed`]), so no record is written that could not be read.

use std::ops::Range;

use super::super::Fields;
use super::super::checksum::{CHECKSUM_BYTES, Seal};
use super::super::head_bytes::{HeadBytes, take_length};
use super::super::header_page::HEADER_BYTES;
use super::super::record::{HAS_DEADLINE, HAS_TAG, HAS_WRITTEN_AT, IS_COMPRESSED, RecordForm, Times};

/// The longest head: checksum, flags, three lengths, two times.
pub(crate) const MAX_SEGMENT_HEAD_BYTES: usize = 4 + 1 + 3 * 5 + 2 * 8;
/// The shortest record: checksum, flags, two lengths of zero, a time.
pub(crate) const MIN_SEGMENT_RECORD_BYTES: u32 = 4 + 1 + 2 + 8;
/// A segment is shorter than 2³² bytes, and begins with a header page.
const MAX_SEGMENT_RECORD_BYTES: usize = u32::MAX as usize - HEADER_BYTES;
const FLAG_BITS: u8 = 0x0F;
const KIND_SHIFT: u32 = 4;
/// A digest's base and synced.
const MIN_DIGEST_VALUE_BYTES: u32 = 16;

/// The statement made by a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum RecordKind {
    Entry,
    EntryWithAttributes,
    Delete,
    EagerEntry,
    EagerEntryWithAttributes,
    EagerDelete,
    Clear,
    Digest,
    Use,
    Tag,
    Lead,
    /// A delete for lack of room: the entry was valid.
    Eviction,
    /// A kind of a later version, 12 to 15: counts as a delete of the key.
    Unknown(u8),
}

impl RecordKind {
    /// The kind with this number; only the low four bits count.
    pub(crate) fn from_number(number: u8) -> Self {
        match number & FLAG_BITS {
            0 => Self::Entry,
            1 => Self::EntryWithAttributes,
            2 => Self::Delete,
            3 => Self::EagerEntry,
            4 => Self::EagerEntryWithAttributes,
            5 => Self::EagerDelete,
            6 => Self::Clear,
            7 => Self::Digest,
            8 => Self::Use,
            9 => Self::Tag,
            10 => Self::Lead,
            11 => Self::Eviction,
            unknown => Self::Unknown(unknown),
        }
    }

    /// The number, at most 15.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Entry => 0,
            Self::EntryWithAttributes => 1,
            Self::Delete => 2,
            Self::EagerEntry => 3,
            Self::EagerEntryWithAttributes => 4,
            Self::EagerDelete => 5,
            Self::Clear => 6,
            Self::Digest => 7,
            Self::Use => 8,
            Self::Tag => 9,
            Self::Lead => 10,
            Self::Eviction => 11,
            Self::Unknown(unknown) => unknown & FLAG_BITS,
        }
    }

    /// An entry: has a value, and may have a deadline.
    pub(crate) fn is_entry(self) -> bool {
        matches!(
            self,
            Self::Entry | Self::EntryWithAttributes | Self::EagerEntry | Self::EagerEntryWithAttributes
        )
    }

    /// An entry or a delete whose key has no canonical encoding.
    pub(crate) fn is_eager(self) -> bool {
        matches!(self, Self::EagerEntry | Self::EagerEntryWithAttributes | Self::EagerDelete)
    }

    /// Found by its key: has a slot in a run.
    pub(crate) fn has_slot(self) -> bool {
        matches!(
            self,
            Self::Entry | Self::EntryWithAttributes | Self::Delete | Self::Eviction | Self::Unknown(_)
        )
    }

    pub(crate) fn has_attributes(self) -> bool {
        matches!(self, Self::EntryWithAttributes | Self::EagerEntryWithAttributes)
    }

    /// Has a key, so that a digest has its hash.
    pub(crate) fn has_key(self) -> bool {
        !matches!(self, Self::Clear | Self::Use)
    }
}

/// The times of a record, in nanoseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordTimes {
    pub(crate) deadline: Option<u64>,
    pub(crate) written_at: u64,
}

impl From<RecordTimes> for Times {
    fn from(times: RecordTimes) -> Self {
        Self { deadline: times.deadline, written_at: Some(times.written_at) }
    }
}

/// The rules for the fields of a record by its kind.
fn is_allowed(kind: RecordKind, flags: u8, key_len: u32, value_len: u32) -> bool {
    let is_plain = flags & (HAS_DEADLINE | IS_COMPRESSED) == 0;
    let is_valid = match kind {
        RecordKind::Delete | RecordKind::EagerDelete | RecordKind::Eviction | RecordKind::Tag => {
            value_len == 0
        }
        RecordKind::Clear => key_len == 0 && value_len == 0,
        RecordKind::Digest => {
            key_len == 8 && value_len >= MIN_DIGEST_VALUE_BYTES && value_len.is_multiple_of(8)
        }
        RecordKind::Use => key_len == 0 && value_len.is_multiple_of(8),
        _ => true,
    };
    flags & HAS_WRITTEN_AT != 0 && (is_plain || kind.is_entry()) && is_valid
}

/// The positions of a record's parts, counted from its first byte. Not to be trusted before the
/// checksum has matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SegmentRecord {
    pub(crate) kind: RecordKind,
    pub(crate) times: RecordTimes,
    pub(crate) attributes: Range<usize>,
    pub(crate) key: Range<usize>,
    /// The value as stored, possibly compressed.
    pub(crate) value: Range<usize>,
    pub(crate) is_compressed: bool,
    total: usize,
}

impl SegmentRecord {
    /// Reads the head of a record. `None` if the bytes do not begin with a head that may be in a
    /// segment of this form. Give at least [`MAX_SEGMENT_HEAD_BYTES`], or the whole rest of the
    /// segment.
    pub(crate) fn parse(bytes: &[u8], form: RecordForm) -> Option<Self> {
        let mut fields = Fields(bytes);
        let (_checksum, flags) = (fields.u32()?, fields.u8()?);
        let kind = RecordKind::from_number(flags >> KIND_SHIFT);
        let (key_len, value_len) = (take_length(&mut fields)?, take_length(&mut fields)?);
        if !form.fits(flags & FLAG_BITS) || !is_allowed(kind, flags, key_len, value_len) {
            return None;
        }
        let attributes_len = if kind.has_attributes() { take_length(&mut fields)? } else { 0 };
        let deadline = if flags & HAS_DEADLINE != 0 { Some(fields.u64()?) } else { None };
        let written_at = fields.u64()?;
        let head_end = bytes.len().checked_sub(fields.0.len())?;
        let attributes_end = head_end.checked_add(usize::try_from(attributes_len).ok()?)?;
        let key_end = attributes_end.checked_add(usize::try_from(key_len).ok()?)?;
        let value_end = key_end.checked_add(usize::try_from(value_len).ok()?)?;
        let total = value_end.checked_add(form.tag_bytes())?;
        (total <= MAX_SEGMENT_RECORD_BYTES).then_some(Self {
            kind,
            times: RecordTimes { deadline, written_at },
            attributes: head_end..attributes_end,
            key: attributes_end..key_end,
            value: key_end..value_end,
            is_compressed: flags & IS_COMPRESSED != 0,
            total,
        })
    }

    /// The length of the whole record.
    pub(crate) fn total(&self) -> usize {
        self.total
    }
}

/// The bytes of a record between its checksum and its attributes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SegmentHead(HeadBytes);

impl SegmentHead {
    /// The length of the attributes is left out if the kind has none.
    #[inline]
    pub(crate) fn new(
        kind: RecordKind,
        key_len: u32,
        value_len: u32,
        attributes_len: u32,
        times: RecordTimes,
    ) -> Self {
        let mut head = HeadBytes::default();
        let deadline = if times.deadline.is_some() { HAS_DEADLINE } else { 0 };
        head.put(&[kind.number() << KIND_SHIFT | HAS_WRITTEN_AT | deadline]);
        head.put_length(key_len);
        head.put_length(value_len);
        if kind.has_attributes() {
            head.put_length(attributes_len);
        }
        if let Some(deadline) = times.deadline {
            head.put(&deadline.to_le_bytes());
        }
        head.put(&times.written_at.to_le_bytes());
        Self(head)
    }

    /// Marks the value as compressed.
    pub(crate) fn set_compressed(&mut self) {
        self.0.set_flag(IS_COMPRESSED);
    }

    /// Marks the record as ending with a tag.
    pub(crate) fn set_tagged(&mut self) {
        self.0.set_flag(HAS_TAG);
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// A record to be written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewRecord<'b> {
    pub(crate) kind: RecordKind,
    pub(crate) times: RecordTimes,
    /// The value is compressed already.
    pub(crate) is_compressed: bool,
    /// Encoded; empty for kinds without attributes.
    pub(crate) attributes: &'b [u8],
    pub(crate) key: &'b [u8],
    pub(crate) value: &'b [u8],
}

impl NewRecord<'_> {
    /// The head of the record and the length of the whole record; `None` if the record breaks a
    /// rule or is longer than any segment.
    #[inline]
    pub(crate) fn measure(&self, seal: Seal) -> Option<(SegmentHead, u32)> {
        let key_len = u32::try_from(self.key.len()).ok()?;
        let value_len = u32::try_from(self.value.len()).ok()?;
        let attributes_len = u32::try_from(self.attributes.len()).ok()?;
        let mut head = SegmentHead::new(self.kind, key_len, value_len, attributes_len, self.times);
        if self.is_compressed {
            head.set_compressed();
        }
        if seal.has_mac() {
            head.set_tagged();
        }
        let flags = *head.as_bytes().first()?;
        if !is_allowed(self.kind, flags, key_len, value_len)
            || !(self.attributes.is_empty() || self.kind.has_attributes())
        {
            return None;
        }
        let ends = CHECKSUM_BYTES.checked_add(head.as_bytes().len())?.checked_add(seal.tag_bytes())?;
        let parts = self.attributes.len().checked_add(self.key.len())?.checked_add(self.value.len())?;
        let total = ends.checked_add(parts)?;
        if total > MAX_SEGMENT_RECORD_BYTES {
            return None;
        }
        Some((head, u32::try_from(total).ok()?))
    }

    /// Appends the whole record, closed for `offset` in the segment, and returns its length. `None`
    /// if the record breaks a rule or does not fit into the segment; then nothing is appended. Does
    /// not allocate if `out` has room.
    pub(crate) fn append(&self, out: &mut Vec<u8>, seal: Seal, offset: u32) -> Option<u32> {
        let (head, total) = self.measure(seal)?;
        offset.checked_add(total)?;
        let start = out.len();
        let end = start.checked_add(usize::try_from(total).ok()?)?;
        out.reserve(end.checked_sub(start)?);
        out.extend_from_slice(&[0; CHECKSUM_BYTES]);
        out.extend_from_slice(head.as_bytes());
        if !self.attributes.is_empty() {
            out.extend_from_slice(self.attributes);
        }
        out.extend_from_slice(self.key);
        out.extend_from_slice(self.value);
        if seal.has_mac() {
            out.resize(end, 0);
        }
        seal.close_at(u64::from(offset), out, start);
        Some(total)
    }
}

#[cfg(test)]
mod tests;
