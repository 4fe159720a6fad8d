//! Records (file format, section 5): the length of a record, and the positions of its parts. The
//! caller checks checksum and tag.

use std::ops::Range;

use super::Fields;
use super::checksum::TAG_BYTES;
use super::head_bytes::{HeadBytes, take_length};

/// The longest head: checksum, flags, two lengths, deadline, time of writing.
pub(crate) const MAX_HEAD_BYTES: usize = 4 + 1 + 5 + 5 + 8 + 8;
/// The shortest record: checksum, flags, two lengths of zero.
pub(crate) const MIN_RECORD_BYTES: u64 = 7;

pub(crate) const HAS_DEADLINE: u8 = 1;
pub(crate) const HAS_WRITTEN_AT: u8 = 1 << 1;
pub(crate) const IS_COMPRESSED: u8 = 1 << 2;
pub(crate) const HAS_TAG: u8 = 1 << 3;
const KNOWN_FLAGS: u8 = HAS_DEADLINE | HAS_WRITTEN_AT;

/// The time of an entry's writing, and its deadline, in nanoseconds since the Unix epoch. Converts
/// from an `Option<u64>`, the deadline, for an entry with an unknown time of writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Times {
    /// The deadline; `None`: never expires.
    pub deadline: Option<u64>,
    /// The time of writing, by the file's clock. `None` counts as older than everything.
    pub written_at: Option<u64>,
}

impl From<Option<u64>> for Times {
    fn from(deadline: Option<u64>) -> Self {
        Self { deadline, written_at: None }
    }
}

/// The form of the records of a file, by its required features (file format, section 8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RecordForm {
    /// Every record ends with a tag; otherwise none does.
    pub(crate) has_tag: bool,
    /// Records may hold their value compressed.
    pub(crate) may_compress: bool,
}

impl RecordForm {
    /// Whether a record with these flags may be in a file of this form.
    pub(crate) fn fits(self, flags: u8) -> bool {
        let known = KNOWN_FLAGS | if self.may_compress { IS_COMPRESSED } else { 0 };
        flags & !(known | HAS_TAG) == 0 && (flags & HAS_TAG != 0) == self.has_tag
    }

    pub(crate) fn tag_bytes(self) -> usize {
        if self.has_tag { TAG_BYTES } else { 0 }
    }
}

/// The positions of a record's parts, counted from its first byte. Not to be trusted before the
/// checksum has matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RecordLayout {
    pub(crate) deadline: Option<u64>,
    pub(crate) written_at: Option<u64>,
    /// Deadline and time of writing, as they stand.
    pub(crate) stamps: Range<usize>,
    pub(crate) key: Range<usize>,
    /// The value as stored, possibly compressed.
    pub(crate) value: Range<usize>,
    pub(crate) is_compressed: bool,
    total: usize,
}

impl RecordLayout {
    /// Reads the head of a record. `None` if the bytes do not begin with a head that this version
    /// can read in a file of this form. Give at least [`MAX_HEAD_BYTES`], or the whole rest of the
    /// section.
    pub(crate) fn parse(bytes: &[u8], form: RecordForm) -> Option<Self> {
        let mut fields = Fields(bytes);
        let (_checksum, flags) = (fields.u32()?, fields.u8()?);
        if !form.fits(flags) {
            return None;
        }
        let key_len = usize::try_from(take_length(&mut fields)?).ok()?;
        let value_len = usize::try_from(take_length(&mut fields)?).ok()?;
        let stamps_start = bytes.len().checked_sub(fields.0.len())?;
        let deadline = if flags & HAS_DEADLINE != 0 { Some(fields.u64()?) } else { None };
        let written_at = if flags & HAS_WRITTEN_AT != 0 { Some(fields.u64()?) } else { None };
        let key_start = bytes.len().checked_sub(fields.0.len())?;
        let key_end = key_start.checked_add(key_len)?;
        let value_end = key_end.checked_add(value_len)?;
        Some(Self {
            deadline,
            written_at,
            stamps: stamps_start..key_start,
            key: key_start..key_end,
            value: key_end..value_end,
            is_compressed: flags & IS_COMPRESSED != 0,
            total: value_end.checked_add(form.tag_bytes())?,
        })
    }

    /// The length of the whole record.
    pub(crate) fn total(&self) -> usize {
        self.total
    }
}

/// The bytes of a record between its checksum and its key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RecordHead(HeadBytes);

impl RecordHead {
    pub(crate) fn new(key_len: u32, value_len: u32, times: Times) -> Self {
        let mut head = HeadBytes::default();
        let flag = |time: Option<u64>, flag: u8| if time.is_some() { flag } else { 0 };
        head.put(&[flag(times.deadline, HAS_DEADLINE) | flag(times.written_at, HAS_WRITTEN_AT)]);
        head.put_length(key_len);
        head.put_length(value_len);
        for time in [times.deadline, times.written_at].into_iter().flatten() {
            head.put(&time.to_le_bytes());
        }
        Self(head)
    }

    /// The head of a record with the stamps (as in [`RecordLayout::stamps`]) of an existing record
    /// with these flags.
    pub(crate) fn with_stamps(flags: u8, stamps: &[u8], key_len: u32, value_len: u32) -> Self {
        let mut head = HeadBytes::default();
        head.put(&[flags & KNOWN_FLAGS]);
        head.put_length(key_len);
        head.put_length(value_len);
        head.put(stamps);
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

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: RecordForm = RecordForm { has_tag: false, may_compress: false };

    fn encoded(key_len: u32, value_len: u32, times: Times) -> Vec<u8> {
        let mut bytes = vec![0; 4];
        bytes.extend_from_slice(RecordHead::new(key_len, value_len, times).as_bytes());
        bytes
    }

    #[test]
    fn heads_come_back_as_they_were_written() {
        for key_len in [0, 1, 127, 128, 16383, 16384, 1 << 21, 1 << 28, u32::MAX] {
            let times = [None, Some(0), Some(u64::MAX)];
            for times in
                times.iter().flat_map(|&deadline| times.map(|written_at| Times { deadline, written_at }))
            {
                let head = encoded(key_len, 300, times);
                let layout = RecordLayout::parse(&head, PLAIN).unwrap();
                assert_eq!((layout.deadline, layout.written_at), (times.deadline, times.written_at));
                assert_eq!(layout.key, head.len()..head.len() + key_len as usize);
                assert_eq!(layout.total(), head.len() + key_len as usize + 300);
                assert!((0..head.len()).all(|cut| RecordLayout::parse(&head[..cut], PLAIN).is_none()));
            }
        }
    }

    #[test]
    fn lengths_that_are_not_shortest_or_do_not_fit_are_refused() {
        let parse = |length: &[u8]| RecordLayout::parse(&[&[0; 5], length, &[0; 20]].concat(), PLAIN);
        assert!(parse(&[0x7F]).is_some());
        assert!(parse(&[0xFF, 0xFF, 0xFF, 0xFF, 0x0F]).is_some());
        assert!(parse(&[0x80, 0x00]).is_none());
        assert!(parse(&[0xFF, 0x80, 0x00]).is_none());
        assert!(parse(&[0xFF, 0xFF, 0xFF, 0xFF, 0x10]).is_none());
        assert!(parse(&[0xFF, 0xFF, 0xFF, 0xFF, 0x8F, 0x00]).is_none());
    }

    #[test]
    fn a_time_of_writing_is_read_and_unknown_flags_are_refused() {
        let head = |flags: u8| [&[0, 0, 0, 0, flags, 1, 2][..], &[9; 24]].concat();
        assert_eq!(RecordLayout::parse(&head(2), PLAIN).unwrap().key, 15..16);
        assert_eq!(RecordLayout::parse(&head(3), PLAIN).unwrap().key, 23..24);
        assert!((4..=255).all(|flags| RecordLayout::parse(&head(flags), PLAIN).is_none()));
    }

    #[test]
    fn a_record_has_a_tag_if_and_only_if_its_file_has_a_mac() {
        let form = RecordForm { has_tag: true, may_compress: true };
        let mut head = RecordHead::new(3, 5, Some(7).into());
        let parse = |head: &RecordHead, form| RecordLayout::parse(&[&[0; 4], head.as_bytes()].concat(), form);
        assert!(parse(&head, form).is_none());
        head.set_tagged();
        assert!(parse(&head, PLAIN).is_none());
        let layout = parse(&head, form).unwrap();
        assert_eq!((layout.total(), layout.is_compressed), (layout.value.end + TAG_BYTES, false));
        head.set_compressed();
        assert!(parse(&head, form).unwrap().is_compressed);
        assert!(parse(&head, RecordForm { may_compress: false, ..form }).is_none());
        let again = RecordHead::with_stamps(head.as_bytes()[0], &7u64.to_le_bytes(), 3, 5);
        assert_eq!(again.as_bytes(), RecordHead::new(3, 5, Some(7).into()).as_bytes());
    }
}
