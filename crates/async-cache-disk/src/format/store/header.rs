//! The header pages of a store's files (file format, section 13, and the fields of sections 15 and
//! 16). A [`StoreHeader`] exists only if every field of the page was checked. The length of the
//! file is not checked here, because a segment grows: [`StoreHeader::end`] is the least length.

use super::super::checksum::Seal;
use super::super::header::Section;
use super::super::header_page::{
    DraftPage, FEATURE_COMPRESSION, FEATURE_MAC, HEADER_BYTES, HeaderFault, HeaderPage, KIND_FIELDS_OFFSET,
};
use super::super::page::{PAGE_BYTES, page_items};
use super::super::record::RecordForm;
use super::bucket::EagerPlaces;
use super::is_file_number;
use crate::secret::Secret;

const STORE_FORMAT_VERSION: u32 = 2;
const KNOWN_REQUIRED_FEATURES: u64 = FEATURE_MAC | FEATURE_COMPRESSION;
const KIND_MANIFEST: u32 = 1;
const KIND_SEGMENT: u32 = 2;
const KIND_RUN: u32 = 3;
const NUMBER_OFFSET: usize = 72;
const STORE_ID_OFFSET: usize = 104;

/// The kind of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoreFileKind {
    Manifest,
    Segment,
    Run,
}

/// The fields that depend on the kind of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KindFields {
    Manifest {
        /// The length of the body, checksum and tag included.
        body_bytes: u64,
    },
    Segment,
    Run(RunCounts),
}

/// The size of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RunCounts {
    pub(crate) slots: u32,
    pub(crate) buckets: u32,
    /// Records in the list of eager records.
    pub(crate) eager: u32,
}

impl RunCounts {
    /// The buckets.
    pub(crate) fn bucket_section(self) -> Section {
        let bytes = u64::from(self.buckets).saturating_mul(PAGE_BYTES as u64);
        Section { offset: HEADER_BYTES as u64, bytes }
    }

    /// The list of eager records; empty if there are none.
    pub(crate) fn eager_section(self, tag_bytes: usize) -> Section {
        let bytes = EagerPlaces::unit_bytes(self.eager, tag_bytes);
        Section { offset: self.bucket_section().end(), bytes }
    }
}

/// The content of a header page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoreHeader {
    pub(crate) file_id: [u8; 16],
    /// The same in all files of a store.
    pub(crate) hash_seed: [u8; 16],
    pub(crate) created_at: u64,
    /// 0 in a manifest.
    pub(crate) number: u32,
    /// The same in all files of a store.
    pub(crate) store_id: [u8; 16],
    /// Names the run of the system that created the file; zero if unknown.
    pub(crate) boot_id: [u8; 16],
    /// With a tag or not, with compressed values or not.
    pub(crate) form: RecordForm,
    pub(crate) version: String,
    pub(crate) producer: String,
    pub(crate) fields: KindFields,
}

impl StoreHeader {
    /// Decodes and checks the first bytes (up to 4096) of a file. A file has a MAC if and only if a
    /// secret is given for it. Version tag, store id and hash seed are to be compared with those of
    /// the store by the caller.
    pub(crate) fn decode(page: &[u8], secret: Option<&Secret>) -> Result<Self, HeaderFault> {
        let page = HeaderPage::open(page, STORE_FORMAT_VERSION, KNOWN_REQUIRED_FEATURES, secret)?;
        Self::decode_fields(&page).map_err(HeaderFault::Damaged)
    }

    fn decode_fields(page: &HeaderPage<'_>) -> Result<Self, &'static str> {
        const SHORT: &str = "it ends early"; // cannot happen: the page is long enough
        let mut own = page.fields_at(KIND_FIELDS_OFFSET);
        let fields = match page.second {
            KIND_MANIFEST => KindFields::Manifest { body_bytes: own.u64().ok_or(SHORT)? },
            KIND_SEGMENT => KindFields::Segment,
            KIND_RUN => KindFields::Run(RunCounts {
                slots: own.u32().ok_or(SHORT)?,
                buckets: own.u32().ok_or(SHORT)?,
                eager: own.u32().ok_or(SHORT)?,
            }),
            _ => return Err("its kind is unknown"),
        };
        let mut ids = page.fields_at(STORE_ID_OFFSET);
        let [version, producer] = page.labels()?;
        let header = Self {
            file_id: page.file_id,
            hash_seed: page.hash_seed,
            created_at: page.time,
            number: page.fields_at(NUMBER_OFFSET).u32().ok_or(SHORT)?,
            store_id: ids.array().ok_or(SHORT)?,
            boot_id: ids.array().ok_or(SHORT)?,
            form: page.form(),
            version,
            producer,
            fields,
        };
        header.check().map(|()| header)
    }

    fn check(&self) -> Result<(), &'static str> {
        let has_number = match self.fields {
            KindFields::Manifest { .. } => self.number == 0,
            _ => is_file_number(self.number),
        };
        if !has_number {
            return Err("no file of its kind has its number");
        }
        if let KindFields::Run(counts) = self.fields {
            let room = u64::from(counts.buckets).saturating_mul(page_items(self.form.has_tag).into());
            if u64::from(counts.slots) > room {
                return Err("its slots do not fit its buckets");
            }
        }
        Ok(())
    }

    pub(crate) fn kind(&self) -> StoreFileKind {
        match self.fields {
            KindFields::Manifest { .. } => StoreFileKind::Manifest,
            KindFields::Segment => StoreFileKind::Segment,
            KindFields::Run(_) => StoreFileKind::Run,
        }
    }

    /// The length that the file has at least, by its header.
    pub(crate) fn end(&self) -> u64 {
        match self.fields {
            KindFields::Manifest { body_bytes } => (HEADER_BYTES as u64).saturating_add(body_bytes),
            KindFields::Segment => HEADER_BYTES as u64,
            KindFields::Run(counts) => counts.eager_section(self.form.tag_bytes()).end(),
        }
    }

    /// The seal of the file's units.
    pub(crate) fn seal(&self, secret: Option<&Secret>) -> Seal {
        Seal::new(&self.file_id, secret)
    }

    /// Encodes the page. Labels that are longer than 255 bytes are truncated.
    pub(crate) fn encode(&self, seal: Seal) -> [u8; HEADER_BYTES] {
        let mac = if self.form.has_tag { FEATURE_MAC } else { 0 };
        let compression = if self.form.may_compress { FEATURE_COMPRESSION } else { 0 };
        let kind = match self.kind() {
            StoreFileKind::Manifest => KIND_MANIFEST,
            StoreFileKind::Segment => KIND_SEGMENT,
            StoreFileKind::Run => KIND_RUN,
        };
        let mut page = DraftPage::new(
            STORE_FORMAT_VERSION,
            kind,
            mac | compression,
            &self.file_id,
            &self.hash_seed,
            self.created_at,
        );
        page.put(&self.number.to_le_bytes());
        page.skip_to(STORE_ID_OFFSET);
        page.put(&self.store_id);
        page.put(&self.boot_id);
        page.put_labels(&self.version, &self.producer);
        match self.fields {
            KindFields::Manifest { body_bytes } => page.put(&body_bytes.to_le_bytes()),
            KindFields::Segment => {}
            KindFields::Run(RunCounts { slots, buckets, eager }) => {
                for count in [slots, buckets, eager] {
                    page.put(&count.to_le_bytes());
                }
            }
        }
        page.close(seal)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::header_page::close_header;
    use super::super::testing::{FILE_ID, seals, secret};
    use super::*;

    fn header(fields: KindFields, has_tag: bool) -> StoreHeader {
        StoreHeader {
            file_id: FILE_ID,
            hash_seed: [2; 16],
            created_at: 0x0102_0304_0506_0708,
            number: if matches!(fields, KindFields::Manifest { .. }) { 0 } else { 0x00C0_B0A0 },
            store_id: [3; 16],
            boot_id: [4; 16],
            form: RecordForm { has_tag, may_compress: true },
            version: "v1".to_owned(),
            producer: "by hand".to_owned(),
            fields,
        }
    }

    fn all() -> [KindFields; 3] {
        let counts = RunCounts { slots: 80, buckets: 2, eager: 3 };
        [KindFields::Manifest { body_bytes: 500 }, KindFields::Segment, KindFields::Run(counts)]
    }

    #[test]
    fn a_page_has_the_bytes_of_the_format() {
        let [seal, _] = seals();
        let page = header(all()[2], false).encode(seal);
        let mut expected = [0; HEADER_BYTES];
        #[rustfmt::skip]
        let parts: [(usize, &[u8]); 9] = [
            (0, &[0x89, b'A', b'C', b'F', 0x0D, 0x0A, 0x1A, 0x0A, 2, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0]),
            (32, b"0123456789abcdef"),
            (48, &[2; 16]),
            (64, &[8, 7, 6, 5, 4, 3, 2, 1, 0xA0, 0xB0, 0xC0, 0]),
            (104, &[3; 16]),
            (120, &[4; 16]),
            (256, b"\x02v1"),
            (512, b"\x07by hand"),
            (768, &[80, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0]),
        ];
        for (offset, bytes) in parts {
            expected[offset..offset + bytes.len()].copy_from_slice(bytes);
        }
        expected[4092..].copy_from_slice(&[0xB9, 0xA3, 0x54, 0x0B]);
        assert_eq!(page, expected);
        let page = header(all()[0], false).encode(seal);
        assert_eq!((page[12], page[768..776].to_vec()), (1, vec![0xF4, 1, 0, 0, 0, 0, 0, 0]));
    }

    #[test]
    fn headers_come_back_and_no_bit_of_them_can_change() {
        let secret = secret();
        for (seal, secret) in seals().into_iter().zip([None, Some(&secret)]) {
            for (fields, end) in all().into_iter().zip([4096 + 500, 4096, 4096 + 2 * 512 + 4 + 3 * 8]) {
                let header = header(fields, seal.has_mac());
                let page = header.encode(seal);
                assert_eq!(StoreHeader::decode(&page, secret).as_ref(), Ok(&header));
                let tag = if header.kind() == StoreFileKind::Run { seal.tag_bytes() as u64 } else { 0 };
                assert_eq!(header.end(), end + tag);
                for place in (0..130).chain(250..300).chain(760..790).chain(4080..HEADER_BYTES) {
                    assert!(StoreHeader::decode(&page[..place], secret).is_err());
                    for bit in 0..8 {
                        let mut changed = page;
                        changed[place] ^= 1 << bit;
                        assert!(StoreHeader::decode(&changed, secret).is_err());
                    }
                }
            }
        }
    }

    #[test]
    fn a_fault_is_the_first_in_the_order_of_the_format() {
        let [seal, sealed] = seals();
        let secret = secret();
        let page = header(KindFields::Segment, false).encode(seal);
        let changed = |offset: usize, bytes: &[u8]| {
            let mut page = page;
            page[offset..offset + bytes.len()].copy_from_slice(bytes);
            close_header(&mut page, seal);
            StoreHeader::decode(&page, None).unwrap_err()
        };
        assert_eq!(changed(0, b"x"), HeaderFault::Foreign);
        assert_eq!(changed(8, &[1]), HeaderFault::NewerVersion(1));
        assert_eq!(changed(16, &[6]), HeaderFault::UnknownFeatures(4));
        assert_eq!(changed(16, &[1]), HeaderFault::NeedsSecret);
        for (offset, bytes) in [(12, [0; 3]), (12, [4, 0, 0]), (72, [0; 3]), (256, [1, 0xFF, 0])] {
            assert!(matches!(changed(offset, &bytes), HeaderFault::Damaged(_)));
        }
        assert!(matches!(changed(75, &[1]), HeaderFault::Damaged(_))); // number 2²⁴ and more
        assert_eq!(StoreHeader::decode(&page, Some(&secret)), Err(HeaderFault::NoMac));
        let with_mac = header(KindFields::Segment, true);
        assert_eq!(StoreHeader::decode(&with_mac.encode(sealed), None), Err(HeaderFault::NeedsSecret));
        let page = with_mac.encode(seal);
        assert_eq!(StoreHeader::decode(&page, Some(&secret)), Err(HeaderFault::WrongTag));
    }

    #[test]
    fn a_manifest_has_no_number_and_the_slots_of_a_run_fit_its_buckets() {
        let secret = secret();
        for (seal, secret) in seals().into_iter().zip([None, Some(&secret)]) {
            let decode = |header: StoreHeader| StoreHeader::decode(&header.encode(seal), secret);
            let good = |fields| header(fields, seal.has_mac());
            assert!(decode(StoreHeader { number: 1, ..good(all()[0]) }).is_err());
            assert!(decode(StoreHeader { number: (1 << 24) - 1, ..good(all()[1]) }).is_ok());
            assert!(decode(StoreHeader { number: 1 << 24, ..good(all()[1]) }).is_err());
            let capacity = page_items(seal.has_mac()) * 3;
            for (slots, is_right) in [(0, true), (capacity, true), (capacity + 1, false)] {
                let counts = RunCounts { slots, buckets: 3, eager: u32::MAX };
                assert_eq!(decode(good(KindFields::Run(counts))).is_ok(), is_right);
            }
        }
    }
}
