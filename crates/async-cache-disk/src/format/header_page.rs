//! The fields shared by the header pages of all files (file format, sections 3 and 13), and the
//! checks that come before all others.
//!
//! Invariant: a [`HeaderPage`] exists only if magic, checksum, format version, features and tag
//! were checked, in this order.

use constant_time_eq::constant_time_eq_16;

use super::Fields;
use super::checksum::{Seal, TAG_BYTES};
use super::record::RecordForm;
use crate::secret::Secret;

pub(crate) const HEADER_BYTES: usize = 4096;
pub(crate) const MAX_LABEL_BYTES: usize = 255;
/// How every cache file begins.
pub(crate) const MAGIC: [u8; 8] = *b"\x89ACF\r\n\x1a\n";
/// Required feature: every unit has a tag.
pub(crate) const FEATURE_MAC: u64 = 1 << 0;
/// Required feature: records may hold their values compressed.
pub(crate) const FEATURE_COMPRESSION: u64 = 1 << 1;
/// Where the fields begin that depend on the kind of the file.
pub(crate) const KIND_FIELDS_OFFSET: usize = 768;
const CHECKED_BYTES: usize = 4092;
const TAG_OFFSET: usize = 88;
const VERSION_OFFSET: usize = 256;
const PRODUCER_OFFSET: usize = 512;
const TOO_SHORT: HeaderFault = HeaderFault::Damaged("the file is shorter than its header");

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

/// A checked page, and its first fields.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeaderPage<'b> {
    /// All bytes before the checksum.
    page: &'b [u8],
    /// The field behind the format version: a number of sections or a kind.
    pub(crate) second: u32,
    pub(crate) required: u64,
    pub(crate) file_id: [u8; 16],
    pub(crate) hash_seed: [u8; 16],
    pub(crate) time: u64,
}

impl<'b> HeaderPage<'b> {
    /// Checks the first bytes (up to 4096) of a file. The format version must be `format`, and the
    /// required features among `known`. A file has a MAC if and only if a secret is given for it.
    pub(crate) fn open(
        page: &'b [u8],
        format: u32,
        known: u64,
        secret: Option<&Secret>,
    ) -> Result<Self, HeaderFault> {
        if !page.starts_with(&MAGIC) {
            return Err(HeaderFault::Foreign);
        }
        let (checked, checksum) = page.split_at_checked(CHECKED_BYTES).ok_or(TOO_SHORT)?;
        let stored = Fields(checksum).u32().ok_or(TOO_SHORT)?;
        if stored != crc32c::crc32c(checked) {
            return Err(HeaderFault::Damaged("the header's checksum does not match"));
        }
        // The page is long enough for every field.
        Self::open_checked(checked, format, known, secret).ok_or(TOO_SHORT)?
    }

    fn open_checked(
        page: &'b [u8],
        format: u32,
        known: u64,
        secret: Option<&Secret>,
    ) -> Option<Result<Self, HeaderFault>> {
        let mut fields = Fields(page.get(MAGIC.len()..)?);
        let (version, second) = (fields.u32()?, fields.u32()?);
        let (required, _optional) = (fields.u64()?, fields.u64()?);
        if version != format {
            return Some(Err(HeaderFault::NewerVersion(version)));
        }
        if required & !known != 0 {
            return Some(Err(HeaderFault::UnknownFeatures(required & !known)));
        }
        let file_id = fields.array()?;
        match (required & FEATURE_MAC != 0, secret) {
            (false, None) => {}
            (false, Some(_)) => return Some(Err(HeaderFault::NoMac)),
            (true, None) => return Some(Err(HeaderFault::NeedsSecret)),
            (true, Some(secret)) if has_right_tag(page, Seal::new(&file_id, Some(secret)))? => {}
            (true, Some(_)) => return Some(Err(HeaderFault::WrongTag)),
        }
        let (hash_seed, time) = (fields.array()?, fields.u64()?);
        Some(Ok(Self { page, second, required, file_id, hash_seed, time }))
    }

    /// The fields from an offset on; none behind the page.
    pub(crate) fn fields_at(&self, offset: usize) -> Fields<'b> {
        Fields(self.page.get(offset..).unwrap_or_default())
    }

    /// The form of the file's records.
    pub(crate) fn form(&self) -> RecordForm {
        RecordForm {
            has_tag: self.required & FEATURE_MAC != 0,
            may_compress: self.required & FEATURE_COMPRESSION != 0,
        }
    }

    /// The version tag and the producer.
    pub(crate) fn labels(&self) -> Result<[String; 2], &'static str> {
        let version = self.label(VERSION_OFFSET).ok_or("its version tag is not text")?;
        Ok([version, self.label(PRODUCER_OFFSET).ok_or("its producer is not text")?])
    }

    fn label(&self, offset: usize) -> Option<String> {
        let mut fields = self.fields_at(offset);
        let len = fields.u8()?;
        String::from_utf8(fields.bytes(usize::from(len))?.to_vec()).ok()
    }
}

/// A header page under construction, up to a field.
#[derive(Debug)]
pub(crate) struct DraftPage(Vec<u8>);

impl DraftPage {
    /// Begins with the fields up to offset 72.
    pub(crate) fn new(
        format: u32,
        second: u32,
        required: u64,
        file_id: &[u8; 16],
        hash_seed: &[u8; 16],
        time: u64,
    ) -> Self {
        let mut page = Vec::with_capacity(HEADER_BYTES);
        page.extend_from_slice(&MAGIC);
        page.extend_from_slice(&format.to_le_bytes());
        page.extend_from_slice(&second.to_le_bytes());
        page.extend_from_slice(&required.to_le_bytes());
        page.extend_from_slice(&0u64.to_le_bytes()); // optional features
        page.extend_from_slice(file_id);
        page.extend_from_slice(hash_seed);
        page.extend_from_slice(&time.to_le_bytes());
        Self(page)
    }

    pub(crate) fn put(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Fills with zeros up to an offset.
    pub(crate) fn skip_to(&mut self, offset: usize) {
        self.0.resize(offset, 0);
    }

    /// Puts the labels, at most [`MAX_LABEL_BYTES`] of each. [`KIND_FIELDS_OFFSET`] is next.
    pub(crate) fn put_labels(&mut self, version: &str, producer: &str) {
        for (offset, label) in [(VERSION_OFFSET, version), (PRODUCER_OFFSET, producer)] {
            self.skip_to(offset);
            let bytes = label.as_bytes().get(..MAX_LABEL_BYTES).unwrap_or(label.as_bytes());
            self.0.push(u8::try_from(bytes.len()).unwrap_or(u8::MAX));
            self.put(bytes);
        }
        self.skip_to(KIND_FIELDS_OFFSET);
    }

    /// The whole page, closed.
    pub(crate) fn close(mut self, seal: Seal) -> [u8; HEADER_BYTES] {
        self.skip_to(HEADER_BYTES);
        let mut page = self.0.first_chunk().copied().unwrap_or([0; HEADER_BYTES]);
        close_header(&mut page, seal);
        page
    }
}

/// Fills in the tag, if the file has a MAC, and the checksum of an otherwise complete page.
pub(crate) fn close_header(page: &mut [u8; HEADER_BYTES], seal: Seal) {
    let Some((checked, checksum)) = page.split_at_mut_checked(CHECKED_BYTES) else { return };
    if let Some(tag) = around_tag(checked).and_then(|parts| seal.header_tag(&parts))
        && let Some(place) = checked.get_mut(TAG_OFFSET..).and_then(|rest| rest.first_chunk_mut())
    {
        *place = tag;
    }
    checksum.copy_from_slice(&crc32c::crc32c(checked).to_le_bytes());
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
