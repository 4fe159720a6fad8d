//! For the fuzzers in `fuzz/`, which cannot reach the decoders from outside: each function gives
//! arbitrary bytes to a decoder and asserts the properties that hold for all bytes. Panics are the
//! findings.
// A panic is the finding.
#![allow(clippy::indexing_slicing, clippy::expect_used, clippy::arithmetic_side_effects)]

use std::ops::Range;

use crate::format::address::KeyHasher;
use crate::format::checksum::Seal;
use crate::format::header::{Header, Section};
use crate::format::header_page::{HEADER_BYTES, close_header};
use crate::format::page::{PAGE_BYTES, Page, page_items};
use crate::format::record::{MAX_HEAD_BYTES, MIN_RECORD_BYTES, RecordForm, RecordHead, RecordLayout, Times};
use crate::format::store::attributes::{AttributeFields, EntryAttributes};
use crate::format::store::bucket::{EagerPlaces, RunBucket};
use crate::format::store::digest::SegmentDigest;
use crate::format::store::header::{KindFields, StoreHeader};
use crate::format::store::manifest::ManifestBody;
use crate::format::store::record::{MAX_SEGMENT_HEAD_BYTES, NewRecord, SegmentHead, SegmentRecord};
use crate::secret::Secret;
use crate::tombstones::{KeyKind, Tombstones};

/// Where the file id stands in the header.
const FILE_ID: Range<usize> = 32..48;

/// A header page, with a matching checksum, of a file of this many bytes.
pub fn header(bytes: &[u8], file_bytes: u64) {
    let _ = Header::decode(bytes, file_bytes, None);
    let mut page = [0; HEADER_BYTES];
    let len = bytes.len().min(HEADER_BYTES);
    page[..len].copy_from_slice(&bytes[..len]);
    page[..12].copy_from_slice(b"\x89ACF\r\n\x1a\n\x01\0\0\0");
    close_header(&mut page, Seal::new(&[0; 16], None));
    let Ok(header) = Header::decode(&page, file_bytes, None) else { return };
    assert!(header.entries <= header.records && header.deadlines <= header.entries);
    assert!(header.end <= file_bytes);
    for section in [header.record_section, header.index_section, header.deadline_section] {
        assert!(section.bytes == 0 || section.offset >= HEADER_BYTES as u64);
        assert!(section.end() <= file_bytes);
    }
    // The encoded header decodes to the same header, except for sections of unknown kinds.
    let again = Header::decode(&header.encode(Seal::new(&header.file_id, None)), file_bytes, None);
    if let Ok(again) = again {
        assert_eq!((&again.version, again.entries), (&header.version, header.entries));
    }
}

/// A bucket, unchanged and with a matching checksum; and a look-up in it.
pub fn bucket(bytes: &[u8], key: &[u8]) {
    let Some(page) = page(bytes, |page| assert!(page.slots().count() <= page_items(false) as usize)) else {
        return;
    };
    let hash = KeyHasher::new(&[7; 16]).hash(key);
    let page = Page::reopen(&page).expect("it was opened before");
    assert!(page.tagged(hash).all(|slot| slot.tag == hash.tag() && slot.offset < 1 << 48));
    assert!(page.tagged(hash).eq(page.slots().filter(|slot| slot.tag == hash.tag())));
}

/// A page of deadlines, unchanged and with a matching checksum.
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
    // A head has a single encoding, so the bytes read equal the bytes that would be written.
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

/// Tombstones, in two halves: each half is written as it was read, and the union has exactly the
/// tombstones of both.
pub fn tombstones(left: &[u8], right: &[u8]) {
    let [left, right] = [left, right].map(|bytes| {
        let read = Tombstones::decode(bytes)?;
        let seal = Seal::new(&[3; 16], None);
        let written = read.clone().encode(seal, 512);
        let body = seal.open(512, &written).expect("it was just closed");
        assert!(body.len() <= bytes.len());
        assert_eq!(Tombstones::decode(body).as_ref(), Some(&read));
        Some(read)
    });
    let Some(left) = left else { return };
    let right = right.unwrap_or_default();
    let mut joined = left.clone();
    joined.join(&right);
    let mut turned = right.clone();
    turned.join(&left);
    assert_eq!(joined, turned);
    assert_eq!(joined.floor(), left.floor().max(right.floor()));
    let kinds = [KeyKind::Canonical, KeyKind::Eager];
    let keys =
        || kinds.into_iter().flat_map(|kind| left.keys(kind).map(move |(key, time)| (kind, key, time)));
    for (kind, key, _) in keys() {
        assert_eq!(joined.deleted_at(kind, key), left.deleted_at(kind, key).max(right.deleted_at(kind, key)));
    }
    // A forgotten delete is still known to have happened, by the floor.
    let mut later = left.clone();
    later.forget_old(joined.latest());
    let deleted =
        kinds.into_iter().flat_map(|kind| left.deleted_keys(kind).map(move |it| (kind, it.0, it.1)));
    for (kind, key, time) in deleted {
        assert!(time == 0 || later.covers(kind, key, time) || later.may_cover(time));
    }
}

/// The header page of a file of a store, with a matching checksum.
pub fn store_header(bytes: &[u8]) {
    let _ = StoreHeader::decode(bytes, None);
    let mut page = [0; HEADER_BYTES];
    let len = bytes.len().min(HEADER_BYTES);
    page[..len].copy_from_slice(&bytes[..len]);
    page[..12].copy_from_slice(b"\x89ACF\r\n\x1a\n\x02\0\0\0");
    close_header(&mut page, Seal::new(&[0; 16], None));
    let Ok(header) = StoreHeader::decode(&page, None) else { return };
    assert!(header.end() >= HEADER_BYTES as u64 && header.number < 1 << 24);
    if let KindFields::Run(counts) = header.fields {
        assert!(u64::from(counts.slots) <= u64::from(counts.buckets) * u64::from(page_items(false)));
    }
    let again = StoreHeader::decode(&header.encode(header.seal(None)), None);
    assert_eq!(again.as_ref(), Ok(&header));
}

/// A record of a segment, and its value as a digest that begins at `offset`.
pub fn segment_record(bytes: &[u8], offset: u32) {
    let form = RecordForm { has_tag: false, may_compress: true };
    let Some(record) = SegmentRecord::parse(bytes, form) else { return };
    let head = record.attributes.start;
    assert!(head <= MAX_SEGMENT_HEAD_BYTES && head <= bytes.len());
    assert!(record.attributes.end == record.key.start && record.key.end == record.value.start);
    assert_eq!(record.total(), record.value.end);
    // A head has a single encoding.
    let [key, value, attributes] = [&record.key, &record.value, &record.attributes]
        .map(|part| u32::try_from(part.len()).expect("it is shorter than a segment"));
    let mut again = SegmentHead::new(record.kind, key, value, attributes, record.times);
    if record.is_compressed {
        again.set_compressed();
    }
    assert_eq!(again.as_bytes(), &bytes[4..head]);
    // So has the whole record, and with a matching checksum.
    let Some(whole) = bytes.get(..record.total()) else { return };
    let seal = Seal::new(&[3; 16], None);
    let mut closed = whole.to_vec();
    seal.close(u64::from(offset), &mut closed);
    let new = NewRecord {
        kind: record.kind,
        times: record.times,
        is_compressed: record.is_compressed,
        attributes: &whole[record.attributes.clone()],
        key: &whole[record.key.clone()],
        value: &whole[record.value.clone()],
    };
    let mut out = Vec::new();
    let appended = new.append(&mut out, seal, offset);
    assert!(if appended.is_some() { out == closed } else { out.is_empty() });
    attributes_of(new.attributes);
    digest(new.value, offset);
}

/// The attributes of an entry.
fn attributes_of(bytes: &[u8]) {
    let Some(read) = EntryAttributes::decode(bytes) else { return };
    let ids = AttributeFields::new(bytes).map(|field| field.expect("they decode").0);
    assert!(ids.clone().is_sorted_by(|a, b| a < b));
    assert_eq!(read.needs_newer, ids.clone().any(|id| id >= 128));
    let known = EntryAttributes { needs_newer: false, ..read };
    let mut again = Vec::new();
    known.encode(&mut again).expect("they are few");
    assert!(again.len() <= bytes.len());
    assert_eq!(EntryAttributes::decode(&again), Some(known));
}

/// The value of a digest.
fn digest(value: &[u8], offset: u32) {
    let Some(read) = SegmentDigest::decode(value, offset) else { return };
    assert!(read.base <= offset && read.synced <= offset && read.rows.len() * 8 + 16 == value.len());
    for (index, row) in read.rows.iter().enumerate() {
        let at = read.offset_of(*row);
        assert!(at < offset && read.row_at(at) == Some(index));
        assert!(row.hash().home(7) < 7);
    }
    let mut again = Vec::new();
    read.encode(&mut again, offset).expect("it decodes");
    assert_eq!(again, value);
}

/// A bucket of a run, unchanged and with a matching checksum, and a list of eager records.
pub fn run(bytes: &[u8]) {
    if let Some(page) = page(bytes, |_| {}) {
        let bucket = RunBucket::reopen(&page).expect("it was opened before");
        assert!(bucket.slots().count() <= page_items(false) as usize);
        for slot in bucket.slots() {
            assert!(slot.place.segment < 1 << 24 && slot.hash.bits() < 1 << 40);
            assert!(bucket.matching(slot.hash).any(|found| found == slot));
        }
    }
    let seal = Seal::new(&[3; 16], None);
    let mut unit = bytes.to_vec();
    seal.close(512, &mut unit);
    if let Some(list) = EagerPlaces::decode(seal, 512, &unit) {
        assert_eq!(list.encode(seal, 512), unit);
    }
}

/// The body of a manifest, unchanged and with a matching checksum.
pub fn manifest(bytes: &[u8]) {
    let seal = Seal::new(&[3; 16], None);
    let _ = ManifestBody::decode(seal, bytes);
    let mut unit = bytes.to_vec();
    seal.close(HEADER_BYTES as u64, &mut unit);
    let Ok(body) = ManifestBody::decode(seal, &unit) else { return };
    let covered = body.segments.iter().filter(|segment| body.run_over(segment.number).is_some());
    assert_eq!(covered.count() + body.tails().count(), body.segments.len());
    // Bytes specified as zero may differ.
    let again = body.encode(seal).expect("it decodes");
    assert_eq!((again.len(), ManifestBody::decode(seal, &again)), (unit.len(), Ok(body)));
}

/// Makes checksums, and with a secret tags, of a damaged file match again wherever its header and
/// its sections can be followed, so that a fuzzer gets behind them.
pub fn reseal(file: &mut [u8], secret: Option<&Secret>) {
    let Some(page) = file.first_chunk_mut::<HEADER_BYTES>() else { return };
    let file_id = page[FILE_ID].try_into().expect("it is as long");
    let seal = Seal::new(&file_id, secret);
    close_header(page, seal);
    close_units(file, secret, seal);
}

/// Makes the checksums match, as an attacker without the secret can.
pub fn reseal_checksums(file: &mut [u8], secret: &Secret) {
    let Some(page) = file.first_chunk_mut::<HEADER_BYTES>() else { return };
    let file_id = page[FILE_ID].try_into().expect("it is as long");
    let seal = Seal::new(&file_id, None);
    close_header(page, seal);
    close_units(file, Some(secret), seal);
}

fn close_units(file: &mut [u8], secret: Option<&Secret>, seal: Seal) {
    for unit in units(file, secret) {
        seal.close(unit.start as u64, &mut file[unit]);
    }
}

/// The positions of a file's units except its header, if the header is valid, as far as the lengths
/// of the units can be followed.
pub fn units(file: &[u8], secret: Option<&Secret>) -> Vec<Range<usize>> {
    let mut units = Vec::new();
    let page = &file[..file.len().min(HEADER_BYTES)];
    let Ok(header) = Header::decode(page, file.len() as u64, secret) else { return units };
    // The header was checked against the file's length, which fits.
    let place = |section: Section| {
        let [start, end] =
            [section.offset, section.end()].map(|at| usize::try_from(at).expect("it is in the file"));
        start..end
    };
    for section in [header.index_section, header.deadline_section] {
        let place = place(section);
        units.extend(place.step_by(PAGE_BYTES).map(|offset| offset..offset + PAGE_BYTES));
    }
    units.extend([header.dictionary_section, header.tombstone_section].into_iter().flatten().map(place));
    for section in [header.record_section, header.eager_section.unwrap_or_default()] {
        let mut rest = place(section);
        while let Some(layout) = RecordLayout::parse(&file[rest.clone()], header.form) {
            if layout.total() > rest.len() {
                break;
            }
            units.push(rest.start..rest.start + layout.total());
            rest.start += layout.total();
        }
    }
    units
}
