//! The header page (file format, section 3). A [`Header`] exists only if every field of the page
//! was checked, against the length of the file too; so its fields may be used without further
//! checks. If there is a secret, the page's tag was checked before all other fields except format
//! version, features and file id.

use super::checksum::Seal;
use super::header_page::{
    DraftPage, FEATURE_COMPRESSION, FEATURE_MAC, HEADER_BYTES, HeaderFault, HeaderPage, KIND_FIELDS_OFFSET,
};
use super::page::{PAGE_BYTES, page_items};
use super::record::{MIN_RECORD_BYTES, RecordForm};
use crate::secret::Secret;

/// Two values of a rank stay free, as marks for users of ranks.
pub(crate) const MAX_RECORDS: u32 = u32::MAX - 1;
/// Offsets have 48 bits in the index.
pub(crate) const MAX_FILE_BYTES: u64 = 1 << 48;

const FORMAT_VERSION: u32 = 1;
/// Set if and only if there is an eager section.
const FEATURE_EAGER: u64 = 1 << 2;
const KNOWN_REQUIRED_FEATURES: u64 = FEATURE_MAC | FEATURE_COMPRESSION | FEATURE_EAGER;
/// The longest dictionary section, checksum and tag included, so that opening stays cheap.
pub(crate) const MAX_DICTIONARY_BYTES: u64 = 1 << 18;
const MAX_SECTIONS: u32 = 64;
const COUNTS_OFFSET: usize = 72;
const WRITTEN_UNTIL_OFFSET: usize = 104;
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

impl Header {
    /// Decodes and checks the first bytes (up to 4096) of a file of `file_bytes` bytes. A file has
    /// a MAC if and only if a secret is given for it.
    pub(crate) fn decode(page: &[u8], file_bytes: u64, secret: Option<&Secret>) -> Result<Self, HeaderFault> {
        let page = HeaderPage::open(page, FORMAT_VERSION, KNOWN_REQUIRED_FEATURES, secret)?;
        let mut header = Self::decode_counts(&page).ok_or(HeaderFault::Damaged("it ends early"))?;
        header.read_rest(&page, file_bytes).map_err(HeaderFault::Damaged)?;
        Ok(header)
    }

    /// `None` cannot happen: the page is long enough for every field.
    fn decode_counts(page: &HeaderPage<'_>) -> Option<Self> {
        let mut counts = page.fields_at(COUNTS_OFFSET);
        Some(Self {
            file_id: page.file_id,
            hash_seed: page.hash_seed,
            saved_at: page.time,
            records: counts.u32()?,
            entries: counts.u32()?,
            deadlines: counts.u32()?,
            buckets: counts.u32()?,
            form: page.form(),
            written_until: page.fields_at(WRITTEN_UNTIL_OFFSET).u64()?,
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
        })
    }

    fn read_rest(&mut self, page: &HeaderPage<'_>, file_bytes: u64) -> Result<(), &'static str> {
        [self.version, self.producer] = page.labels()?;
        self.read_sections(page, file_bytes)?;
        if self.eager_section.is_some() != (page.required & FEATURE_EAGER != 0) {
            return Err("its eager records and its features contradict each other");
        }
        if self.dictionary_section.is_some() && !self.form.may_compress {
            return Err("its dictionary and its features contradict each other");
        }
        self.check_counts()
    }

    fn read_sections(&mut self, page: &HeaderPage<'_>, file_bytes: u64) -> Result<(), &'static str> {
        if page.second > MAX_SECTIONS {
            return Err("it claims too many sections");
        }
        let mut fields = page.fields_at(KIND_FIELDS_OFFSET);
        let mut seen = [false; 6];
        let (mut eager, mut dictionary, mut tombstones) =
            (Section::default(), Section::default(), Section::default());
        self.end = HEADER_BYTES as u64;
        for _ in 0..page.second {
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

    /// Encodes the page. Labels that are longer than 255 bytes are truncated.
    pub(crate) fn encode(&self, seal: Seal) -> [u8; HEADER_BYTES] {
        let table = [
            Some((KIND_RECORDS, self.record_section)),
            Some((KIND_INDEX, self.index_section)),
            Some((KIND_DEADLINES, self.deadline_section)),
            self.eager_section.map(|section| (KIND_EAGER, section)),
            self.dictionary_section.map(|section| (KIND_DICTIONARY, section)),
            self.tombstone_section.map(|section| (KIND_TOMBSTONES, section)),
        ];
        let sections = u32::try_from(table.iter().flatten().count()).unwrap_or(0);
        let required = self.required_features();
        let mut page =
            DraftPage::new(FORMAT_VERSION, sections, required, &self.file_id, &self.hash_seed, self.saved_at);
        for count in [self.records, self.entries, self.deadlines, self.buckets] {
            page.put(&count.to_le_bytes());
        }
        page.skip_to(WRITTEN_UNTIL_OFFSET);
        page.put(&self.written_until.to_le_bytes());
        page.put_labels(&self.version, &self.producer);
        for (kind, section) in table.into_iter().flatten() {
            page.put(&kind.to_le_bytes());
            page.put(&0u32.to_le_bytes());
            page.put(&section.offset.to_le_bytes());
            page.put(&section.bytes.to_le_bytes());
        }
        page.close(seal)
    }
}
