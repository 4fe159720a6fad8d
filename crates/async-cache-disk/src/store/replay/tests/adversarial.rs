#![allow(clippy::arithmetic_side_effects)] // of tests

use super::*;
use crate::format::store::digest::digest_key;

fn read_of(bytes: Vec<u8>, row: &SegmentRow, mode: ReplayMode) -> (Replayed, u64) {
    let (length, file) = (bytes.len() as u64, MemoryFile::holding(bytes));
    let segment = segment_on(Box::new(file.clone()), seals()[0]);
    segment.set_end(row.end);
    let of = ReplayOf { row, is_same_boot: mode != ReplayMode::OtherBoot, now: NOW };
    (replay(&segment, length, of, &mut ReplaySeen::default()), file.bytes_read())
}

/// A file without any valid record ends within the search, and a file of the same system loses
/// everything.
fn assert_bounded(bytes: &[u8]) {
    let length = bytes.len() as u64;
    for mode in MODES {
        let mut row = log(seals()[0], 1, None, None).sealed;
        row.is_sealed = mode == ReplayMode::Sealed;
        row.end = if row.is_sealed { u32::try_from(length).unwrap() } else { FIRST_RECORD };
        let (replayed, read) = read_of(bytes.to_vec(), &row, mode);
        // The search's windows, heads of candidates (36 bytes for each of five), and rule 3.
        let most = length * (MOST_SEARCHED + 40) + (1 << 16);
        assert!(read <= most, "{read} of {length}");
        let floor = if mode == ReplayMode::SameBoot { NOW } else { 1000 };
        assert!(replayed.floor == floor || mode == ReplayMode::OtherBoot, "{mode:?} {replayed:?}");
    }
}

fn filled(pattern: &[u8]) -> Vec<u8> {
    let pattern = pattern.iter().copied().cycle().take(300_001);
    std::iter::repeat_n(0, FIRST_RECORD as usize).chain(pattern).collect()
}

#[test]
fn needles_and_long_heads_end_within_the_bounded_search() {
    assert_bounded(&filled(&digest_key(&FILE_ID)));
    // Heads of digests with a key, each as long as it may be: 200,008 bytes, and the longest.
    for length in [&[0xC8, 0x9A, 0x0C][..], &[0x80, 0x80, 0x04], &[0xF8, 0xFF, 0xFF, 0xFF, 0x0F]] {
        let head = [&[0; 4][..], &[0x72, 8], length, &[9; 8], &digest_key(&FILE_ID)].concat();
        assert_bounded(&filled(&head));
    }
    // Heads of entries that claim 100,000 bytes.
    assert_bounded(&filled(&[0, 0, 0, 0, 2, 1, 0xA0, 0x8D, 6, 1, 2, 3, 4, 5, 6, 7, 8]));
    assert_bounded(&filled(&[2, 1, 0xA0, 0x8D, 6]));
    assert_bounded(&filled(&[2]));
    assert_bounded(&filled(&[0]));
    assert_bounded(&filled(&[0xFF]));
}

#[test]
fn valid_digests_between_long_heads_do_not_make_the_search_begin_anew_each_time() {
    let seal = seals()[0];
    let file = MemoryFile::holding(vec![0; FIRST_RECORD as usize]);
    let mut bytes = file.content();
    // An invalid head that claims 30,000 bytes, and a digest that does not list it.
    while bytes.len() < 200_000 {
        bytes.extend_from_slice(&[0, 0, 0, 0, 2, 1, 0xB0, 0xEA, 1, 1, 2, 3, 4, 5, 6, 7, 8]);
        let at = u32::try_from(bytes.len()).unwrap();
        let digest = SegmentDigest { base: at, synced: FIRST_RECORD, rows: Vec::new() };
        digest.append(&mut bytes, seal, &FILE_ID, at, 77).unwrap();
    }
    let row = log(seal, 1, None, None).open;
    let length = bytes.len() as u64;
    let (replayed, read) = read_of(bytes, &row, ReplayMode::SameBoot);
    assert_eq!(replayed.floor, NOW);
    assert!(read < length * (MOST_SEARCHED * 2) + 64 * (1 << 16) * 8, "{read} of {length}");
}

#[test]
fn half_a_record_at_the_end_of_a_page_is_the_end_and_elsewhere_is_damage() {
    let log = log(seals()[0], 40, None, None);
    let head = [0, 0, 0, 0, 2, 1, 0xA0, 0x8D, 6, 1, 1, 1, 1, 1, 1, 1, 1];
    let entry = [&head[..], &vec![7; 30_000]].concat();
    let bytes = log.content(ReplayMode::SameBoot);
    for left in 1..=100 {
        // Half of the record, so that the file ends with a page.
        let room = 4096 - bytes.len() % 4096;
        let aligned = [&bytes[..], &entry[..room]].concat();
        let (replayed, seen) = run(aligned.clone(), log.seal, &log.open, ReplayMode::SameBoot);
        assert_eq!((seen.shown.len(), replayed.floor, replayed.end), (40, 0, log.open_end));
        let off = [&bytes[..], &entry[..room + left]].concat();
        assert_eq!(run(off, log.seal, &log.open, ReplayMode::SameBoot).0.floor, NOW);
        // No head at all: damage.
        let mut other = aligned;
        other[log.open_end as usize + 4] = 0;
        assert_eq!(run(other, log.seal, &log.open, ReplayMode::SameBoot).0.floor, NOW);
    }
}

#[test]
fn a_changed_byte_at_the_end_of_a_page_is_damage_unless_it_made_the_record_longer() {
    for pad in 0..60 {
        // The last record ends with the page, and is 21 to 80 bytes long.
        TEST_SPACING.set(DIGEST_SPACING);
        let file = MemoryFile::holding(vec![0; FIRST_RECORD as usize]);
        let segment = segment_on(Box::new(file.clone()), seals()[0]);
        let mut end = SegmentEnd::new(Arc::clone(&segment), 1 << 24);
        let open = end.row();
        let (kind, hash) = (RecordKind::Entry, Some(hash_of(b"k")));
        let last = 15 + 1 + pad;
        let first = 4096 - last - 17;
        end.append(&new_record(kind, b"k", &vec![5; first], 1), hash).unwrap();
        let at = end.append(&new_record(kind, b"k", &vec![6; pad], 2), hash).unwrap().offset as usize;
        assert_eq!(segment.end(), 8192);
        for place in (at..at + last).filter(|place| !(at + 5..at + 7).contains(place)) {
            for bit in 0..8 {
                let mut bytes = file.content();
                bytes[place] ^= 1 << bit;
                let (replayed, seen) = run(bytes, seals()[0], &open, ReplayMode::SameBoot);
                let is_other_length = place == at + 4; // The kind decides about the lengths, too.
                assert!(is_other_length || replayed.floor == NOW, "{pad} {place} {bit}");
                assert_eq!(seen.shown.len(), 1);
            }
        }
    }
}

#[test]
fn a_tail_of_zeros_is_the_end_after_a_power_loss_and_else_damage() {
    let log = log(seals()[0], 40, None, None);
    for zeros in [1, 14, 15, 36, 4096, 100_000] {
        let mut bytes = log.content(ReplayMode::OtherBoot);
        bytes.resize(bytes.len() + zeros, 0);
        let (replayed, seen) = run(bytes.clone(), log.seal, &log.open, ReplayMode::OtherBoot);
        assert_eq!((seen.shown.len(), replayed.floor, replayed.end), (40, 0, log.open_end));
        assert_eq!(run(bytes, log.seal, &log.open, ReplayMode::SameBoot).0.floor, NOW);
    }
}

#[test]
fn the_last_record_of_a_sealed_segment_without_a_digest_is_not_taken_for_one() {
    // The last record is exactly as long as a digest of the records before it would be.
    TEST_SPACING.set(DIGEST_SPACING);
    let file = MemoryFile::holding(vec![0; FIRST_RECORD as usize]);
    let segment = segment_on(Box::new(file.clone()), seals()[0]);
    let mut end = SegmentEnd::new(Arc::clone(&segment), 1 << 24);
    end.append(&new_record(RecordKind::EagerEntry, b"12345678", b"", 1), None).unwrap();
    let value = [0; 24];
    let record = new_record(RecordKind::EagerEntry, b"12345678", &value, 2);
    let at = end.append(&record, Some(hash_of(b"12345678"))).unwrap().offset;
    assert_eq!(Some(segment.end() - at), digest_bytes(1, seals()[0]));
    let row = SegmentRow { is_sealed: true, end: segment.end(), latest: 2, ..end.row() };
    for place in at..segment.end() {
        for bit in 0..8 {
            let mut bytes = file.content();
            bytes[place as usize] ^= 1 << bit;
            assert_eq!(run(bytes, seals()[0], &row, ReplayMode::Sealed).0.floor, 2, "{place} {bit}");
        }
    }
}

#[test]
fn lengths_beyond_any_segment_are_read_as_far_as_there_are_bytes() {
    let log = log(seals()[0], 40, None, None);
    for length in [1 << 31, u64::from(u32::MAX), 1 << 32, u64::MAX] {
        for is_same_boot in [false, true] {
            let mut file = MemoryFile::holding(log.content(ReplayMode::SameBoot));
            file.length = length;
            let segment = segment_on(Box::new(file.clone()), log.seal);
            let mut seen = ReplaySeen::default();
            let of = ReplayOf { row: &log.open, is_same_boot, now: NOW };
            let replayed = replay(&segment, length, of, &mut seen);
            assert_eq!((seen.shown.len(), replayed.floor), (40, if is_same_boot { NOW } else { 0 }));
            // The hole is not read.
            assert_eq!((replayed.end, file.bytes_read() < 1 << 20), (log.open_end, true));
        }
    }
    // A row from a manifest that calls more durable than there is.
    for end in [log.open_end + 1, u32::MAX] {
        let row = SegmentRow { end, dead_bytes: u32::MAX, ..log.open };
        for mode in [ReplayMode::SameBoot, ReplayMode::OtherBoot] {
            let (replayed, _) = run(log.content(mode), log.seal, &row, mode);
            assert_eq!((replayed.floor, replayed.summary.dead_bytes), (NOW, log.open_end - FIRST_RECORD));
        }
    }
}
