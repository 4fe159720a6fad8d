//! The header page (file format, section 3). A [`Header`] exists only if every field of the page
//! was checked, against the length of the file too; so its fields may be used without further
//! checks. If there is a secret, the page's tag was checked before all other fields except format
//! version, features and file id.

use constant_time_eq::constant_time_eq_16;

use super::Fields;
use super::checksum::{Seal, TAG_BYTES};
use super::page::{PAGE_BYTES, page_items};
use super::record::{MIN_RECORD_BYTES, RecordForm};
use crate::secret::Secret;

pub(crate) const HEADER_BYTES: usize = 4096;
pub(crate) const MAX_LABEL_BYTES: usize = 255;
/// Two values of a rank stay free, as marks for users of ranks.
pub(crate) const MAX_RECORDS: u32 = u32::MAX - 1;
/// Offsets have 48 bits in the index.
pub(crate) const MAX_FILE_BYTES: u64 = 1 << 48;

/// How every cache file begins.
pub(crate) const MAGIC: [u8; 8] = *b"\x89ACF\r\n\x1a\n";
const FORMAT_VERSION: u32 = 1;
/// Set if and only if records, pages, dictionary and header have tags.
const FEATURE_MAC: u64 = 1 << 0;
/// Set if records may hold their values compressed.
const FEATURE_COMPRESSION: u64 = 1 << 1;
/// Set if and only if there is an eager section.
const FEATURE_EAGER: u64 = 1 << 2;
const KNOWN_REQUIRED_FEATURES: u64 = FEATURE_MAC | FEATURE_COMPRESSION | FEATURE_EAGER;
/// The longest dictionary section, checksum and tag included, so that opening stays cheap.
pub(crate) const MAX_DICTIONARY_BYTES: u64 = 1 << 18;
const MAX_SECTIONS: u32 = 64;
const CHECKED_BYTES: usize = 4092;
const TAG_OFFSET: usize = 88;
const WRITTEN_UNTIL_OFFSET: usize = 104;
const VERSION_OFFSET: usize = 256;
const PRODUCER_OFFSET: usize = 512;
const TABLE_OFFSET: usize = 768;
const KIND_RECORDS: u32 = 1;
const KIND_INDEX: u32 = 2;
const KIND_DEADLINES: u32 = 3;
const KIND_EAGER: u32 = 4;
const KIND_DICTIONARY: u32 = 5;
const KIND_TOMBSTONES: u32 = 7;

/// A part of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Section {
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

impl Section {
    /// The first offset behind the section. Checked together with the header.
    pub(crate) fn end(self) -> u64 {
        self.offset.saturating_add(self.bytes)
    }

    /// The number of bytes from an offset to the section's end; `None` if the offset is outside.
    pub(crate) fn left_from(self, offset: u64) -> Option<usize> {
        if offset < self.offset {
            return None;
        }
        usize::try_from(self.end().checked_sub(offset)?).ok()
    }
}

/// The content of the header page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) file_id: [u8; 16],
    pub(crate) hash_seed: [u8; 16],
    pub(crate) saved_at: u64,
    pub(crate) records: u32,
    pub(crate) entries: u32,
    pub(crate) deadlines: u32,
    pub(crate) buckets: u32,
    /// The form of its records, and of its pages: with a tag or not, with compressed values or not.
    pub(crate) form: RecordForm,
    /// The latest time of writing or deleting in the file; 0 if the file has none.
    pub(crate) written_until: u64,
    pub(crate) version: String,
    pub(crate) producer: String,
    pub(crate) record_section: Section,
    pub(crate) index_section: Section,
    pub(crate) deadline_section: Section,
    /// Present only if the section holds at least one record.
    pub(crate) eager_section: Option<Section>,
    /// There only if values may be compressed.
    pub(crate) dictionary_section: Option<Section>,
    /// Present only if the section is not empty.
    pub(crate) tombstone_section: Option<Section>,
    /// The ranges between the header and the last section that no section covers.
    pub(crate) gaps: Vec<Section>,
    /// The end of the last section, of any kind.
    pub(crate) end: u64,
}

/// Why a page is not a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    Foreign,
    Damaged(&'static str),
    NewerVersion(u32),
    UnknownFeatures(u64),
    /// There is no MAC, and a secret was given.
    NoMac,
    /// There is a MAC, and no secret was given.
    NeedsSecret,
    /// The header's tag was not made with the given secret.
    WrongTag,
}

impl Header {
    /// Decodes and checks the first bytes (up to 4096) of a file of `file_bytes` bytes. A file has
    /// a MAC if and only if a secret is given for it.
    pub(crate) fn decode(page: &[u8], file_bytes: u64, secret: Option<&Secret>) -> Result<Self, HeaderFault> {
        const SHORT: HeaderFault = HeaderFault::Damaged("the file is shorter than its header");
        if !page.starts_with(&MAGIC) {
            return Err(HeaderFault::Foreign);
        }
        let (checked, checksum) = page.split_at_checked(CHECKED_BYTES).ok_or(SHORT)?;
        let stored = Fields(checksum).u32().ok_or(SHORT)?;
        if stored != crc32c::crc32c(checked) {
            return Err(HeaderFault::Damaged("the header's checksum does not match"));
        }
        Self::decode_checked(checked, file_bytes, secret).ok_or(SHORT)?
    }

    /// `None` cannot happen: the page is long enough for every field.
    fn decode_checked(
        page: &[u8],
        file_bytes: u64,
        secret: Option<&Secret>,
    ) -> Option<Result<Self, HeaderFault>> {
        let mut fields = Fields(page.get(MAGIC.len()..)?);
        let (version, sections) = (fields.u32()?, fields.u32()?);
        let (required, _optional) = (fields.u64()?, fields.u64()?);
        if version != FORMAT_VERSION {
            return Some(Err(HeaderFault::NewerVersion(version)));
        }
        if required & !KNOWN_REQUIRED_FEATURES != 0 {
            return Some(Err(HeaderFault::UnknownFeatures(required & !KNOWN_REQUIRED_FEATURES)));
        }
        let file_id = fields.array()?;
        match (required & FEATURE_MAC != 0, secret) {
            (false, None) => {}
            (false, Some(_)) => return Some(Err(HeaderFault::NoMac)),
            (true, None) => return Some(Err(HeaderFault::NeedsSecret)),
            (true, Some(secret)) if has_right_tag(page, Seal::new(&file_id, Some(secret)))? => {}
            (true, Some(_)) => return Some(Err(HeaderFault::WrongTag)),
        }
        let mut header = Self {
            file_id,
            hash_seed: fields.array()?,
            saved_at: fields.u64()?,
            records: fields.u32()?,
            entries: fields.u32()?,
            deadlines: fields.u32()?,
            buckets: fields.u32()?,
            form: RecordForm {
                has_tag: required & FEATURE_MAC != 0,
                may_compress: required & FEATURE_COMPRESSION != 0,
            },
            written_until: Fields(page.get(WRITTEN_UNTIL_OFFSET..)?).u64()?,
            version: String::new(),
            producer: String::new(),
            record_section: Section::default(),
            index_section: Section::default(),
            deadline_section: Section::default(),
            eager_section: None,
            dictionary_section: None,
            tombstone_section: None,
            gaps: Vec::new(),
            end: 0,
        };
        let rest = header.read_rest(page, sections, required, file_bytes);
        Some(rest.map_err(HeaderFault::Damaged).map(|()| header))
    }

    fn read_rest(
        &mut self,
        page: &[u8],
        sections: u32,
        required: u64,
        file_bytes: u64,
    ) -> Result<(), &'static str> {
        self.version = read_label(page, VERSION_OFFSET).ok_or("its version tag is not text")?;
        self.producer = read_label(page, PRODUCER_OFFSET).ok_or("its producer is not text")?;
        self.read_sections(page, sections, file_bytes)?;
        if self.eager_section.is_some() != (required & FEATURE_EAGER != 0) {
            return Err("its eager records and its features contradict each other");
        }
        if self.dictionary_section.is_some() && !self.form.may_compress {
            return Err("its dictionary and its features contradict each other");
        }
        self.check_counts()
    }

    fn read_sections(&mut self, page: &[u8], count: u32, file_bytes: u64) -> Result<(), &'static str> {
        if count > MAX_SECTIONS {
            return Err("it claims too many sections");
        }
        let mut fields = Fields(page.get(TABLE_OFFSET..).unwrap_or_default());
        let mut seen = [false; 6];
        let (mut eager, mut dictionary, mut tombstones) =
            (Section::default(), Section::default(), Section::default());
        self.end = HEADER_BYTES as u64;
        for _ in 0..count {
            let row = (fields.u32(), fields.u32(), fields.u64(), fields.u64());
            let (Some(kind), Some(_flags), Some(offset), Some(bytes)) = row else {
                return Err("its section table is cut off");
            };
            let end = offset.checked_add(bytes).ok_or("a section's end does not fit in 64 bits")?;
            let gap = offset.checked_sub(self.end).ok_or("its sections overlap")?;
            if gap > 0 {
                self.gaps.push(Section { offset: self.end, bytes: gap });
            }
            if end > file_bytes || end > MAX_FILE_BYTES {
                return Err("a section reaches beyond the end of the file: the file was cut off");
            }
            self.end = end;
            let section = Section { offset, bytes };
            let [records, index, deadlines, has_eager, has_dictionary, has_tombstones] = &mut seen;
            let (seen, place) = match kind {
                KIND_RECORDS => (records, &mut self.record_section),
                KIND_INDEX => (index, &mut self.index_section),
                KIND_DEADLINES => (deadlines, &mut self.deadline_section),
                KIND_EAGER => (has_eager, &mut eager),
                KIND_DICTIONARY => (has_dictionary, &mut dictionary),
                KIND_TOMBSTONES => (has_tombstones, &mut tombstones),
                _ => continue,
            };
            if std::mem::replace(seen, true) {
                return Err("it names a section twice");
            }
            *place = section;
        }
        let [records, index, _, has_eager, has_dictionary, has_tombstones] = seen;
        self.eager_section = has_eager.then_some(eager);
        self.dictionary_section = has_dictionary.then_some(dictionary);
        self.tombstone_section = has_tombstones.then_some(tombstones);
        if records && index { Ok(()) } else { Err("it names no records or no index") }
    }

    fn check_counts(&self) -> Result<(), &'static str> {
        let pages = |count: u32| u64::from(count).saturating_mul(PAGE_BYTES as u64);
        let items = page_items(self.form.has_tag);
        let slots = u64::from(self.buckets).saturating_mul(u64::from(items));
        let rules = [
            self.records <= MAX_RECORDS,
            u64::from(self.records).saturating_mul(MIN_RECORD_BYTES) <= self.record_section.bytes,
            self.entries <= self.records,
            u64::from(self.entries) <= slots,
            self.index_section.bytes == pages(self.buckets),
            self.deadlines <= self.entries,
            self.deadline_section.bytes == pages(self.deadlines.div_ceil(items)),
            self.eager_section.is_none_or(|section| section.bytes >= MIN_RECORD_BYTES),
            self.dictionary_section.is_none_or(|section| section.bytes <= MAX_DICTIONARY_BYTES),
        ];
        if rules.contains(&false) { Err("its counts do not fit its sections") } else { Ok(()) }
    }

    /// Which features a reader must know.
    fn required_features(&self) -> u64 {
        let features = [
            (FEATURE_MAC, self.form.has_tag),
            (FEATURE_COMPRESSION, self.form.may_compress),
            (FEATURE_EAGER, self.eager_section.is_some()),
        ];
        features.into_iter().filter(|(_, is_set)| *is_set).fold(0, |all, (bit, _)| all | bit)
    }

    /// Encodes the page. The labels are at most [`MAX_LABEL_BYTES`] long; longer labels are
    /// truncated.
    pub(crate) fn encode(&self, seal: Seal) -> [u8; HEADER_BYTES] {
        let mut page = Vec::with_capacity(HEADER_BYTES);
        page.extend_from_slice(&MAGIC);
        page.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        let table = [
            Some((KIND_RECORDS, self.record_section)),
            Some((KIND_INDEX, self.index_section)),
            Some((KIND_DEADLINES, self.deadline_section)),
            self.eager_section.map(|section| (KIND_EAGER, section)),
            self.dictionary_section.map(|section| (KIND_DICTIONARY, section)),
            self.tombstone_section.map(|section| (KIND_TOMBSTONES, section)),
        ];
        let sections = u32::try_from(table.iter().flatten().count()).unwrap_or(0);
        page.extend_from_slice(&sections.to_le_bytes());
        page.extend_from_slice(&self.required_features().to_le_bytes());
        page.extend_from_slice(&0u64.to_le_bytes()); // optional features
        page.extend_from_slice(&self.file_id);
        page.extend_from_slice(&self.hash_seed);
        page.extend_from_slice(&self.saved_at.to_le_bytes());
        for count in [self.records, self.entries, self.deadlines, self.buckets] {
            page.extend_from_slice(&count.to_le_bytes());
        }
        page.resize(WRITTEN_UNTIL_OFFSET, 0);
        page.extend_from_slice(&self.written_until.to_le_bytes());
        page.resize(VERSION_OFFSET, 0);
        write_label(&mut page, &self.version);
        page.resize(PRODUCER_OFFSET, 0);
        write_label(&mut page, &self.producer);
        page.resize(TABLE_OFFSET, 0);
        for (kind, section) in table.into_iter().flatten() {
            page.extend_from_slice(&kind.to_le_bytes());
            page.extend_from_slice(&0u32.to_le_bytes());
            page.extend_from_slice(&section.offset.to_le_bytes());
            page.extend_from_slice(&section.bytes.to_le_bytes());
        }
        page.resize(HEADER_BYTES, 0);
        let mut page = page.first_chunk().copied().unwrap_or([0; HEADER_BYTES]);
        Self::close(&mut page, seal);
        page
    }

    /// Fills in the tag, if the file has a MAC, and the checksum of an otherwise complete page.
    pub(crate) fn close(page: &mut [u8; HEADER_BYTES], seal: Seal) {
        let Some((checked, checksum)) = page.split_at_mut_checked(CHECKED_BYTES) else { return };
        if let Some(tag) = around_tag(checked).and_then(|parts| seal.header_tag(&parts))
            && let Some(place) = checked.get_mut(TAG_OFFSET..).and_then(|rest| rest.first_chunk_mut())
        {
            *place = tag;
        }
        checksum.copy_from_slice(&crc32c::crc32c(checked).to_le_bytes());
    }
}

/// The bytes covered by the header's tag: the checked bytes before and behind it.
fn around_tag(page: &[u8]) -> Option<[&[u8]; 2]> {
    let (before, rest) = page.split_at_checked(TAG_OFFSET)?;
    Some([before, rest.get(TAG_BYTES..)?])
}

/// `None` cannot happen: the page is long enough.
fn has_right_tag(page: &[u8], seal: Seal) -> Option<bool> {
    let tag = page.get(TAG_OFFSET..)?.first_chunk()?;
    let right = seal.header_tag(&around_tag(page)?)?;
    Some(constant_time_eq_16(tag, &right))
}

fn read_label(page: &[u8], offset: usize) -> Option<String> {
    let mut fields = Fields(page.get(offset..)?);
    let len = fields.u8()?;
    String::from_utf8(fields.bytes(usize::from(len))?.to_vec()).ok()
}

fn write_label(page: &mut Vec<u8>, label: &str) {
    let bytes = label.as_bytes().get(..MAX_LABEL_BYTES).unwrap_or(label.as_bytes());
    page.push(u8::try_from(bytes.len()).unwrap_or(u8::MAX));
    page.extend_from_slice(bytes);
}
