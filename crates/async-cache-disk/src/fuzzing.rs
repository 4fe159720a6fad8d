//! For the fuzzers in `fuzz/`, which cannot reach the decoders from outside: each function gives arbitrary bytes to one of
//! them and asserts what holds of any bytes. Panics are the findings.

use crate::format::address::KeyHasher;
use crate::format::checksum::Seal;
use crate::format::header::{HEADER_BYTES, Header};
use crate::format::page::{PAGE_BYTES, Page, page_items};
use crate::format::record::{MAX_HEAD_BYTES, MIN_RECORD_BYTES, RecordForm, RecordHead, RecordLayout, Times};

/// A header page, with a checksum that matches, of a file of so many bytes.
pub fn header(bytes: &[u8], file_bytes: u64) {
    let _ = Header::decode(bytes, file_bytes, None);
    let mut page = [0; HEADER_BYTES];
    let len = bytes.len().min(HEADER_BYTES);
    page[..len].copy_from_slice(&bytes[..len]);
    page[..12].copy_from_slice(b"\x89ACF\r\n\x1a\n\x01\0\0\0");
    seal_header(&mut page);
    let Ok(header) = Header::decode(&page, file_bytes, None) else { return };
    assert!(header.entries <= header.records && header.deadlines <= header.entries);
    assert!(header.end <= file_bytes);
    for section in [header.record_section, header.index_section, header.deadline_section] {
        assert!(section.bytes == 0 || section.offset >= HEADER_BYTES as u64);
        assert!(section.end() <= file_bytes);
    }
    // What is written of it is read as the same, but for sections of kinds that nobody knows.
    let again = Header::decode(&header.encode(Seal::new(&header.file_id, None)), file_bytes, None);
    if let Ok(again) = again {
        assert_eq!((&again.version, again.entries), (&header.version, header.entries));
    }
}

/// A bucket, as it is and with a checksum that matches; and a look-up in it.
pub fn bucket(bytes: &[u8], key: &[u8]) {
    let Some(page) = page(bytes, |page| assert!(page.slots().count() <= page_items(false) as usize)) else {
        return;
    };
    let hash = KeyHasher::new(&[7; 16]).hash(key);
    let page = Page::reopen(&page).expect("it was opened before");
    assert!(page.tagged(hash).all(|slot| slot.tag == hash.tag() && slot.offset < 1 << 48));
    assert!(page.tagged(hash).eq(page.slots().filter(|slot| slot.tag == hash.tag())));
}

/// A page of deadlines, as it is and with a checksum that matches.
pub fn deadline_page(bytes: &[u8]) {
    page(bytes, |page| {
        let items = (0..page.len()).filter_map(|index| page.due(index)).count();
        assert_eq!(items, page.len());
        assert!(page.len() <= page_items(false) as usize && page.due(page.len()).is_none());
    });
}

/// The head of a record.
pub fn record(bytes: &[u8]) {
    let form = RecordForm { has_tag: false, may_compress: true };
    let Some(layout) = RecordLayout::parse(bytes, form) else { return };
    assert!(layout.key.start <= layout.key.end && layout.key.end == layout.value.start);
    assert!(layout.value.start <= layout.value.end && layout.total() as u64 >= MIN_RECORD_BYTES);
    assert!(layout.key.start <= MAX_HEAD_BYTES && layout.key.start <= bytes.len());
    // There is one way to write a head, so what was read is what would be written.
    let (key, value) = (layout.key.len(), layout.value.len());
    let (key, value) = (u32::try_from(key).expect("checked"), u32::try_from(value).expect("checked"));
    // With a deadline and a time of writing or without; not compressed.
    if bytes[4] & !0b11 == 0 {
        let times = Times { deadline: layout.deadline, written_at: layout.written_at };
        let head = RecordHead::new(key, value, times);
        assert_eq!(head.as_bytes(), &bytes[4..layout.key.start]);
    }
}

fn page(bytes: &[u8], check: impl Fn(Page<'_>)) -> Option<[u8; PAGE_BYTES]> {
    let mut page = [0; PAGE_BYTES];
    let len = bytes.len().min(PAGE_BYTES);
    page[..len].copy_from_slice(&bytes[..len]);
    let seal = Seal::new(&[3; 16], None);
    if let Some(opened) = Page::open(seal, 512, &page) {
        check(opened);
    }
    seal.close(512, &mut page);
    check(Page::open(seal, 512, &page)?);
    Some(page)
}

/// Makes the checksums of a damaged file match again wherever its header, index, deadlines and records can be
/// followed, so that a fuzzer gets behind them.
pub fn reseal(file: &mut [u8]) {
    let Some(page) = file.first_chunk_mut::<HEADER_BYTES>() else { return };
    seal_header(page);
    let page = *page;
    let Ok(header) = Header::decode(&page, file.len() as u64, None) else { return };
    let seal = Seal::new(&header.file_id, None);
    for section in [header.index_section, header.deadline_section] {
        let start = usize::try_from(section.offset).unwrap_or(0);
        let end = usize::try_from(section.end()).unwrap_or(0);
        for offset in (start..end).step_by(PAGE_BYTES) {
            if let Some(unit) = file.get_mut(offset..offset + PAGE_BYTES) {
                seal.close(offset as u64, unit);
            }
        }
    }
    if let Some(section) = header.dictionary_section {
        let place = usize::try_from(section.offset).unwrap_or(0)..usize::try_from(section.end()).unwrap_or(0);
        if let Some(unit) = file.get_mut(place) {
            seal.close(section.offset, unit);
        }
    }
    for section in [header.record_section, header.eager_section.unwrap_or_default()] {
        let mut offset = usize::try_from(section.offset).unwrap_or(0);
        let end = usize::try_from(section.end()).unwrap_or(0);
        while let Some(unit) = file.get_mut(offset..end) {
            let Some(total) = RecordLayout::parse(unit, header.form).map(|layout| layout.total()) else {
                break;
            };
            let Some(unit) = unit.get_mut(..total) else { break };
            seal.close(offset as u64, unit);
            offset += total;
        }
    }
}

fn seal_header(page: &mut [u8; HEADER_BYTES]) {
    let checksum = crc32c::crc32c(&page[..HEADER_BYTES - 4]).to_le_bytes();
    page[HEADER_BYTES - 4..].copy_from_slice(&checksum);
}
