use super::super::testing::{assert_refuses_changes, seals};
use super::*;

const AT: RecordTimes = RecordTimes { deadline: None, written_at: 0x0102_0304_0506_0708 };
const OFFSET: u32 = 4096;

fn form(seal: Seal) -> RecordForm {
    RecordForm { has_tag: seal.has_mac(), may_compress: true }
}

fn record<'b>(kind: RecordKind, key: &'b [u8], value: &'b [u8]) -> NewRecord<'b> {
    NewRecord { kind, times: AT, is_compressed: false, attributes: &[], key, value }
}

fn kinds() -> impl Iterator<Item = RecordKind> {
    (0..16).map(RecordKind::from_number)
}

/// A key and a value that the kind may have.
fn parts(kind: RecordKind) -> (&'static [u8], &'static [u8]) {
    match kind {
        RecordKind::Delete | RecordKind::EagerDelete | RecordKind::Eviction | RecordKind::Tag => {
            (b"key", b"")
        }
        RecordKind::Clear => (b"", b""),
        RecordKind::Digest => (b"01234567", &[0; 24]),
        RecordKind::Use => (b"", &[1; 16]),
        _ => (b"key", b"value"),
    }
}

#[test]
fn the_numbers_of_the_kinds_are_those_of_the_format() {
    assert!(kinds().map(RecordKind::number).eq(0..16));
    let numbers = |is: fn(RecordKind) -> bool| kinds().filter(move |kind| is(*kind)).map(RecordKind::number);
    assert!(numbers(RecordKind::is_entry).eq([0, 1, 3, 4]));
    assert!(numbers(RecordKind::is_eager).eq([3, 4, 5]));
    assert!(numbers(RecordKind::has_slot).eq([0, 1, 2, 11, 12, 13, 14, 15]));
    assert!(numbers(RecordKind::has_attributes).eq([1, 4]));
    assert!(kinds().filter(|kind| !kind.has_key()).map(RecordKind::number).eq([6, 8]));
}

#[test]
fn an_entry_with_attributes_has_the_bytes_of_the_format() {
    let times = RecordTimes { deadline: Some(9), ..AT };
    let attributes = &[2, 1, 5];
    let entry = NewRecord { times, attributes, ..record(RecordKind::EntryWithAttributes, b"key", b"value") };
    let mut bytes = vec![0xEE];
    assert_eq!(entry.append(&mut bytes, seals()[0], 4096), Some(35));
    #[rustfmt::skip]
    let expected = [
        0xEE,
        0x5B, 0x47, 0x63, 0x02, // checksum
        0x13, 3, 5, 3, // kind 1, time of writing and deadline; lengths
        9, 0, 0, 0, 0, 0, 0, 0, // deadline
        8, 7, 6, 5, 4, 3, 2, 1, // time of writing
        2, 1, 5, b'k', b'e', b'y', b'v', b'a', b'l', b'u', b'e',
    ];
    assert_eq!(bytes, expected);
}

#[test]
fn records_of_every_kind_come_back_and_no_bit_of_them_can_change() {
    for seal in seals() {
        for kind in kinds() {
            let (key, value) = parts(kind);
            let mut bytes = Vec::new();
            let new = record(kind, key, value);
            let total = new.append(&mut bytes, seal, OFFSET).unwrap();
            assert_eq!((total as usize, new.measure(seal).unwrap().1), (bytes.len(), total));
            let read = SegmentRecord::parse(&bytes, form(seal)).unwrap();
            assert_eq!((read.kind, read.times, read.total()), (kind, AT, bytes.len()));
            assert_eq!((&bytes[read.key.clone()], &bytes[read.value.clone()]), (key, value));
            assert!(read.attributes.is_empty() && !read.is_compressed);
            let head = read.attributes.start;
            assert!((0..head).all(|cut| SegmentRecord::parse(&bytes[..cut], form(seal)).is_none()));
            assert_eq!(SegmentRecord::parse(&bytes[..head], form(seal)).as_ref(), Some(&read));
            assert_refuses_changes(&bytes, |bytes| seal.open(u64::from(OFFSET), bytes).is_some());
            assert!(seal.open(u64::from(OFFSET) + 1, &bytes).is_none());
        }
    }
}

#[test]
fn a_head_comes_back_with_lengths_of_every_size() {
    let seal = seals()[0];
    for len in [0, 1, 127, 128, 16383, 16384, 1 << 21, 1 << 28, u32::MAX - 8192] {
        for deadline in [None, Some(0), Some(u64::MAX)] {
            let times = RecordTimes { deadline, written_at: u64::MAX };
            let mut head = SegmentHead::new(RecordKind::EagerEntryWithAttributes, 2, len, 300, times);
            head.set_compressed();
            let bytes = [&[0; 4], head.as_bytes()].concat();
            let read = SegmentRecord::parse(&bytes, form(seal)).unwrap();
            assert_eq!((read.times, read.is_compressed), (times, true));
            assert_eq!(read.attributes, bytes.len()..bytes.len() + 300);
            assert_eq!(read.total(), bytes.len() + 302 + len as usize);
            assert!(bytes.len() <= MAX_SEGMENT_HEAD_BYTES);
        }
    }
    // Longer than a segment.
    let head = SegmentHead::new(RecordKind::Entry, 2, u32::MAX - 4096, 0, AT);
    assert!(SegmentRecord::parse(&[&[0; 4], head.as_bytes()].concat(), form(seal)).is_none());
}

#[test]
fn neither_side_accepts_a_record_that_breaks_a_rule() {
    for seal in seals() {
        for kind in kinds() {
            for (key_len, value_len, deadline, is_compressed) in [
                (0, 0, None, false),
                (3, 0, None, false),
                (0, 8, None, false),
                (8, 8, None, false),
                (8, 16, None, false),
                (8, 17, None, false),
                (3, 5, None, false),
                (3, 5, Some(1), false),
                (3, 5, None, true),
                (3, 0, Some(1), false),
                (8, 16, None, true),
            ] {
                let is_right = match kind.number() {
                    0 | 1 | 3 | 4 => true,
                    _ if deadline.is_some() || is_compressed => false,
                    2 | 5 | 9 | 11 => value_len == 0,
                    6 => key_len + value_len == 0,
                    7 => (key_len, value_len) == (8, 16),
                    8 => key_len == 0 && value_len % 8 == 0,
                    _ => true,
                };
                let (key, value) = (vec![0; key_len as usize], vec![0; value_len as usize]);
                let times = RecordTimes { deadline, ..AT };
                let new = NewRecord { times, is_compressed, ..record(kind, &key, &value) };
                let mut out = vec![7];
                assert_eq!(new.append(&mut out, seal, OFFSET).is_some(), is_right);
                assert!(is_right || out == [7]);
                let mut head = SegmentHead::new(kind, key_len, value_len, 0, times);
                if is_compressed {
                    head.set_compressed();
                }
                if seal.has_mac() {
                    head.set_tagged();
                }
                let bytes = [&[0; 4], head.as_bytes(), &[0; 8]].concat();
                assert_eq!(SegmentRecord::parse(&bytes, form(seal)).is_some(), is_right);
            }
        }
    }
}

#[test]
fn a_record_needs_a_time_the_right_tag_and_permission_to_be_compressed() {
    let head = |flags: u8| [&[0, 0, 0, 0, flags, 1, 2][..], &[9; 24]].concat();
    let plain = RecordForm { has_tag: false, may_compress: false };
    let accepted =
        |form: RecordForm| (0..16).filter(move |flags| SegmentRecord::parse(&head(*flags), form).is_some());
    assert!(accepted(plain).eq([2, 3]));
    assert!(accepted(RecordForm { may_compress: true, ..plain }).eq([2, 3, 6, 7]));
    assert!(accepted(RecordForm { has_tag: true, ..plain }).eq([10, 11]));
}

#[test]
fn attributes_need_a_kind_that_has_them_and_a_record_must_fit_into_its_segment() {
    let [seal, _] = seals();
    let mut out = Vec::new();
    let entry = NewRecord { attributes: b"abc", ..record(RecordKind::Entry, b"key", b"value") };
    assert_eq!(entry.append(&mut out, seal, OFFSET), None);
    let entry = record(RecordKind::Entry, b"key", b"value");
    assert_eq!(entry.append(&mut out, seal, u32::MAX - 22), None);
    assert!(out.is_empty());
    assert_eq!(entry.append(&mut out, seal, u32::MAX - 23), Some(23));
}

#[test]
fn appending_does_not_allocate_if_there_is_room() {
    let [seal, _] = seals();
    let mut out = Vec::with_capacity(256);
    let place = out.as_ptr();
    for _ in 0..2 {
        record(RecordKind::Entry, &[1; 16], &[2; 89]).append(&mut out, seal, OFFSET).unwrap();
    }
    assert_eq!((out.len(), out.as_ptr(), out.capacity()), (240, place, 256));
}
