//! Damaged, cut and crafted files: no panic, no wrong value, no loss except of the damaged parts,
//! and no more memory than the file's own size (plus the needs of the fake disk).

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use crate::alone;
use crate::sample::{
    Entry, assert_holds_with_eager, deadlines, eager_entries, entries, file, find, open, options_of, random,
    read_all, read_eager, save_with_eager,
};
use async_cache_disk::fake::FakeDisk;
use async_cache_disk::{DiskErrorKind, FindingKind, Scratch, Snapshot, Vfs};

/// The test's own needs, far below the size that a damaged length would claim.
const SLACK_BYTES: usize = 256 << 10;
const COUNT: u32 = 300;
const EAGER: u32 = 20;
const HEADER: usize = 4096;
const PAGE: usize = 512;

/// Runs with the memory permitted for a file of the given size.
fn limited<T>(file_bytes: usize, run: impl FnOnce() -> T) -> T {
    crate::limited(file_bytes + SLACK_BYTES, run)
}

fn path() -> &'static Path {
    Path::new("/cache/pages.cache")
}

/// A sound file, its entries, and the positions of its parts.
struct Sound {
    entries: Vec<Entry>,
    eager: Vec<Entry>,
    bytes: Vec<u8>,
    /// The start of each record, and the end of the last one.
    records: Vec<usize>,
    index: usize,
    deadlines: usize,
    /// The start of each eager record, and the end of the last one, which is the end of the file.
    eager_records: Vec<usize>,
}

fn sound() -> Sound {
    let disk = FakeDisk::new();
    let (entries, eager) = (entries(COUNT, 1), eager_entries(EAGER, 1));
    save_with_eager(&disk.as_vfs(), path(), &entries, &eager, options_of(1)).unwrap();
    let bytes = disk.bytes(path()).unwrap();
    let records = places(HEADER, &entries);
    let index = records.last().unwrap().next_multiple_of(4096);
    let deadlines = index + 10 * PAGE;
    let eager_records = places(deadlines + 200usize.div_ceil(42) * PAGE, &eager);
    assert_eq!(bytes.len(), *eager_records.last().unwrap());
    Sound { entries, eager, bytes, records, index, deadlines, eager_records }
}

/// The start of each record of these entries, from `start` on, and the end of the last one.
fn places(start: usize, entries: &[Entry]) -> Vec<usize> {
    let mut places = vec![start];
    for entry in entries {
        // checksum, flags, two lengths of one byte each
        let head = 7 + if entry.deadline.is_some() { 8 } else { 0 };
        places.push(places.last().unwrap() + head + entry.key.len() + entry.value.len());
    }
    places
}

fn disk_with(bytes: &[u8]) -> (FakeDisk, Arc<dyn Vfs>) {
    let disk = FakeDisk::new();
    disk.put(path(), bytes);
    disk.keep_no_log();
    let vfs = disk.as_vfs();
    (disk, vfs)
}

/// The ranks that look-ups do not find.
fn missing(sound: &Sound, snapshot: &Snapshot) -> BTreeSet<u32> {
    let mut scratch = Scratch::new();
    let mut missing = BTreeSet::new();
    for (entry, rank) in sound.entries.iter().zip(0..) {
        match find(snapshot, entry, &mut scratch) {
            Some(found) => assert_eq!(found, rank),
            None => assert!(missing.insert(rank)),
        }
    }
    missing
}

/// The ranks that are missing when all entries are read; the others must be right.
fn unread(sound: &Sound, snapshot: &Snapshot) -> BTreeSet<u32> {
    let read = read_all(snapshot).into_iter().zip(&sound.entries).zip(0..);
    let lost = read.filter_map(|((read, entry), rank)| match read {
        Some(read) => {
            assert_eq!(&read, entry);
            None
        }
        None => Some(rank),
    });
    lost.collect()
}

/// The number of readable eager entries, from the front; they must be right, and the rest reported
/// as lost.
fn readable_eager(sound: &Sound, snapshot: &Snapshot) -> usize {
    let (read, lost) = read_eager(snapshot);
    assert_eq!(read, sound.eager[..read.len()]);
    assert_eq!(lost, (sound.bytes.len() - sound.eager_records[read.len()]) as u64);
    read.len()
}

#[test]
fn every_flipped_byte_costs_what_it_is_in_and_verify_finds_it() {
    let _alone = alone();
    let sound = sound();
    let mut random = random();
    let (disk, vfs) = disk_with(&sound.bytes);
    let mut bucket_keys = vec![BTreeSet::new(); 10];
    for place in 0..sound.bytes.len() {
        let mut bytes = sound.bytes.clone();
        bytes[place] ^= random.u8(1..);
        disk.overwrite(path(), &bytes);
        limited(bytes.len(), || match place {
            _ if place < HEADER => {
                let error = file(&vfs, path()).open().unwrap_err();
                let kind = if place < 8 { DiskErrorKind::Foreign } else { DiskErrorKind::Damaged };
                assert_eq!(error.kind(), &kind);
                assert!(file(&vfs, path()).any_version().verify().is_err());
            }
            _ if place < *sound.records.last().unwrap() => flipped_record(&sound, &vfs, place),
            _ if place < sound.index => flipped_elsewhere(&sound, &vfs, FindingKind::Gap),
            _ if place < sound.deadlines => {
                let keys = flipped_bucket(&sound, &vfs);
                let bucket = &mut bucket_keys[(place - sound.index) / PAGE];
                assert!(bucket.is_empty() || *bucket == keys);
                *bucket = keys;
            }
            _ if place < sound.eager_records[0] => {
                flipped_elsewhere(&sound, &vfs, FindingKind::DeadlinePage);
            }
            _ => flipped_eager_record(&sound, &vfs, place),
        });
    }
    let all: Vec<u32> = bucket_keys.iter().flatten().copied().collect();
    assert_eq!(all.len(), COUNT as usize, "every key was lost with one bucket, and with no other");
}

fn flipped_record(sound: &Sound, vfs: &Arc<dyn Vfs>, place: usize) {
    let rank = u32::try_from(sound.records.partition_point(|start| *start <= place) - 1).unwrap();
    let snapshot = open(vfs, path());
    assert_eq!(unread(sound, &snapshot), BTreeSet::from([rank]));
    let mut scratch = Scratch::new();
    for near in rank.saturating_sub(2)..(rank + 3).min(COUNT) {
        let found = find(&snapshot, &sound.entries[near as usize], &mut scratch);
        assert_eq!(found, (near != rank).then_some(near));
        assert!(!scratch.may_have_missed());
        assert!(scratch.lost().iter().eq((near == rank).then_some(&rank)));
    }
    let report = file(vfs, path()).any_version().verify().unwrap();
    let finding = report.findings.first().unwrap();
    assert_eq!((finding.kind, finding.offset), (FindingKind::Record, sound.records[rank as usize] as u64));
    assert_eq!((report.sound_entries, report.finding_count), (COUNT - 1, 1), "{report:?}");
}

fn flipped_bucket(sound: &Sound, vfs: &Arc<dyn Vfs>) -> BTreeSet<u32> {
    let snapshot = open(vfs, path());
    // Before the first look-up all records are present; afterwards missed entries stay missing.
    assert_eq!(unread(sound, &snapshot), BTreeSet::new());
    let missing = missing(sound, &snapshot);
    assert!(missing.len() <= 42);
    assert_eq!(unread(sound, &snapshot), missing);
    assert_eq!(snapshot.damage().buckets, u64::from(!missing.is_empty()));
    let report = file(vfs, path()).any_version().verify().unwrap();
    assert_eq!(report.findings.first().unwrap().kind, FindingKind::Bucket);
    assert_eq!(report.sound_entries as usize, COUNT as usize - missing.len());
    missing
}

fn flipped_eager_record(sound: &Sound, vfs: &Arc<dyn Vfs>, place: usize) {
    let hit = sound.eager_records.partition_point(|start| *start <= place) - 1;
    assert_eq!(readable_eager(sound, &open(vfs, path())), hit);
    let report = file(vfs, path()).any_version().verify().unwrap();
    let finding = report.findings.first().unwrap();
    assert_eq!((finding.kind, finding.offset), (FindingKind::Eager, sound.eager_records[hit] as u64));
    assert_eq!((report.sound_eager, report.finding_count), (hit as u64, 1), "{report:?}");
    flipped_elsewhere(sound, vfs, FindingKind::Eager);
}

fn flipped_elsewhere(sound: &Sound, vfs: &Arc<dyn Vfs>, kind: FindingKind) {
    let snapshot = open(vfs, path());
    let mut scratch = Scratch::new();
    assert!(find(&snapshot, &sound.entries[7], &mut scratch).is_some());
    assert_eq!(unread(sound, &snapshot), BTreeSet::new());
    let expected = if kind == FindingKind::DeadlinePage { 200 - 42..200 } else { 200..201 };
    assert!(expected.contains(&deadlines(&snapshot).len()), "at most one page is lost");
    assert!(kind == FindingKind::Eager || readable_eager(sound, &snapshot) == sound.eager.len());
    let report = file(vfs, path()).any_version().verify().unwrap();
    assert_eq!(report.findings.first().unwrap().kind, kind);
    assert_eq!(report.sound_entries, COUNT);
}

#[test]
fn a_file_that_was_cut_is_refused() {
    let _alone = alone();
    let sound = sound();
    let (disk, vfs) = disk_with(&sound.bytes);
    for len in 0..sound.bytes.len() {
        disk.overwrite(path(), &sound.bytes[..len]);
        let opened = limited(len, || file(&vfs, path()).open());
        match opened {
            Ok(snapshot) => assert!(len == 0 && snapshot.is_none()),
            Err(error) if len < 8 => assert_eq!(error.kind(), &DiskErrorKind::Foreign),
            Err(error) => assert_eq!(error.kind(), &DiskErrorKind::Damaged),
        }
    }
    disk.overwrite(path(), &[&sound.bytes[..], b"tail"].concat());
    assert_eq!(file(&vfs, path()).any_version().verify().unwrap().findings[0].kind, FindingKind::Trailing);
    assert_eq!(unread(&sound, &open(&vfs, path())), BTreeSet::new());
}

#[test]
fn a_file_that_is_cut_while_open_is_misses() {
    let _alone = alone();
    let sound = sound();
    let (disk, vfs) = disk_with(&sound.bytes);
    for len in (0..sound.bytes.len()).step_by(61) {
        disk.overwrite(path(), &sound.bytes);
        disk.repair();
        let snapshot = open(&vfs, path());
        disk.overwrite(path(), &sound.bytes[..len]);
        limited(sound.bytes.len(), || {
            let eager = readable_eager(&sound, &snapshot);
            assert_eq!(eager, sound.eager_records.partition_point(|start| *start <= len).saturating_sub(1));
            let before = unread(&sound, &snapshot);
            let missing = missing(&sound, &snapshot);
            assert!(before.is_subset(&missing));
            assert_eq!(len < sound.index + PAGE, missing.len() == COUNT as usize);
            while_open_again(&sound, &snapshot, &missing, &disk);
        });
    }
}

/// The file is as before, but entries missed once stay missing.
fn while_open_again(sound: &Sound, snapshot: &Snapshot, missed: &BTreeSet<u32>, disk: &FakeDisk) {
    let eager = readable_eager(sound, snapshot);
    disk.overwrite(path(), &sound.bytes);
    assert_eq!(readable_eager(sound, snapshot), eager);
    if snapshot.damage().buckets > 0 {
        assert_eq!(&missing(sound, snapshot), missed);
        assert_eq!(&unread(sound, snapshot), missed);
    }
}

#[test]
fn a_file_that_is_overwritten_while_open_is_misses_and_never_the_other_files_values() {
    let _alone = alone();
    let sound = sound();
    let (disk, vfs) = disk_with(&sound.bytes);
    // The same keys, seeds and places; different values and another file id. An older file of the
    // same cache looks like this.
    let other = FakeDisk::new();
    let mut entries = entries(COUNT, 2);
    for entry in &mut entries {
        entry.value.reverse();
    }
    let options = options_of(1).identity([2; 16], [1 ^ 0x5A; 16]);
    save_with_eager(&other.as_vfs(), path(), &entries, &eager_entries(EAGER, 2), options).unwrap();
    let other = other.bytes(path()).unwrap();
    assert_eq!(other.len(), sound.bytes.len());
    for replacement in [other, vec![0; sound.bytes.len()], vec![0xA5; sound.bytes.len()]] {
        for upto in [sound.bytes.len(), sound.index, sound.index + 5 * PAGE, HEADER + 1000] {
            for front in [true, false] {
                disk.overwrite(path(), &sound.bytes);
                let snapshot = open(&vfs, path());
                let mut mixed = if front { sound.bytes.clone() } else { replacement.clone() };
                let source = if front { &replacement } else { &sound.bytes };
                mixed[..upto].copy_from_slice(&source[..upto]);
                disk.overwrite(path(), &mixed);
                let eager = readable_eager(&sound, &snapshot);
                assert_eq!(eager, if front == (upto < sound.bytes.len()) { sound.eager.len() } else { 0 });
                let missing = missing(&sound, &snapshot);
                assert!(unread(&sound, &snapshot).is_subset(&missing));
                assert!(!front || upto < sound.index || missing.len() == COUNT as usize);
                assert!(deadlines(&snapshot).len() <= 200);
            }
        }
    }
}

#[test]
fn crafted_headers_are_refused_or_harmless() {
    let _alone = alone();
    let sound = sound();
    let (disk, vfs) = disk_with(&sound.bytes);
    let extremes = [
        0,
        1,
        2,
        4,
        41,
        43,
        0x7FFF_FFFF,
        u64::from(u32::MAX) - 1,
        u64::from(u32::MAX),
        1 << 48,
        u64::MAX - 4095,
        u64::MAX,
    ];
    let fields = [(12, 4), (16, 8), (72, 4), (76, 4), (80, 4), (84, 4), (256, 1), (512, 1)];
    let table = (0..4).flat_map(|row| [(768 + row * 24, 4), (776 + row * 24, 8), (784 + row * 24, 8)]);
    for (place, len) in fields.into_iter().chain(table) {
        for extreme in extremes {
            let mut bytes = sound.bytes.clone();
            bytes[place..place + len].copy_from_slice(&extreme.to_le_bytes()[..len]);
            let checksum = crc32c::crc32c(&bytes[..4092]);
            bytes[4092..4096].copy_from_slice(&checksum.to_le_bytes());
            disk.overwrite(path(), &bytes);
            disk.repair();
            limited(bytes.len(), || read_everything(&sound, &vfs));
        }
    }
}

#[test]
fn crafted_records_and_buckets_with_matching_checksums_are_harmless() {
    let _alone = alone();
    let sound = sound();
    let mut random = random();
    let (disk, vfs) = disk_with(&sound.bytes);
    let records = sound.records.windows(2).chain(sound.eager_records.windows(2));
    let mut units: Vec<(usize, usize)> = records.map(|pair| (pair[0], pair[1] - pair[0])).collect();
    units.extend((sound.index..sound.eager_records[0]).step_by(PAGE).map(|page| (page, PAGE)));
    for _ in 0..2000 {
        let mut bytes = sound.bytes.clone();
        for _ in 0..random.usize(1..12) {
            let (start, len) = *random.choice(&units).unwrap();
            for _ in 0..random.usize(1..5) {
                let wild = [0, 1, 0x7F, 0x80, 0xFF, random.u8(..)];
                // Mostly the heads, which contain the lengths, flags and counts.
                let reach = if random.bool() { len.min(16) } else { len };
                bytes[start + random.usize(4..reach)] = *random.choice(&wild).unwrap();
            }
            let bound =
                [&[1; 16][..], &(start as u64).to_le_bytes(), &bytes[start + 4..start + len]].concat();
            bytes[start..start + 4].copy_from_slice(&crc32c::crc32c(&bound).to_le_bytes());
        }
        disk.overwrite(path(), &bytes);
        limited(bytes.len(), || read_everything(&sound, &vfs));
    }
}

/// Reads a file in every way. The values in a crafted file are arbitrary; the test only requires
/// that reading ends.
fn read_everything(sound: &Sound, vfs: &Arc<dyn Vfs>) {
    let Ok(Some(snapshot)) = file(vfs, path()).any_version().open() else {
        assert!(file(vfs, path()).any_version().verify().is_err());
        return;
    };
    let mut scratch = Scratch::new();
    for entry in sound.entries.iter().step_by(5) {
        if let Some(rank) = snapshot.locate(&entry.key, &mut scratch) {
            assert!(rank < snapshot.len());
        }
    }
    assert!(read_all(&snapshot).len() <= sound.bytes.len());
    assert!(deadlines(&snapshot).len() <= sound.bytes.len());
    assert!(read_eager(&snapshot).0.len() <= sound.bytes.len());
    file(vfs, path()).any_version().verify().unwrap();
}

#[test]
fn a_bucket_that_failed_once_is_dead_also_when_the_disk_recovers() {
    let _alone = alone();
    let sound = sound();
    let (disk, vfs) = disk_with(&sound.bytes);
    let snapshot = open(&vfs, path());
    let mut scratch = Scratch::new();
    disk.fail_every("read_at", std::io::ErrorKind::Other);
    assert_eq!(snapshot.locate(&sound.entries[9].key, &mut scratch), None);
    assert!(scratch.may_have_missed() && scratch.lost().is_empty());
    disk.repair();
    assert_eq!(snapshot.locate(&sound.entries[9].key, &mut scratch), None);
    let missing = missing(&sound, &snapshot);
    assert!(missing.contains(&9) && missing.len() < COUNT as usize);
    assert_eq!(unread(&sound, &snapshot), missing);
    assert!(snapshot.damage().io_errors > 0);
    // After reopening all entries are present.
    assert_holds_with_eager(&vfs, path(), &sound.entries, &sound.eager);
}

#[test]
fn an_eager_record_that_failed_once_takes_the_rest_with_it_also_when_the_disk_recovers() {
    let _alone = alone();
    let sound = sound();
    let (disk, vfs) = disk_with(&sound.bytes);
    let snapshot = open(&vfs, path());
    disk.fail_every("read_at", std::io::ErrorKind::Other);
    assert_eq!(readable_eager(&sound, &snapshot), 0);
    disk.repair();
    assert_eq!(readable_eager(&sound, &snapshot), 0);
    assert!(snapshot.damage().io_errors > 0);
    // After reopening all entries are present.
    assert_holds_with_eager(&vfs, path(), &sound.entries, &sound.eager);
}

#[test]
fn buckets_that_all_claim_to_overflow_end_after_eight() {
    let _alone = alone();
    let sound = sound();
    let mut bytes = sound.bytes.clone();
    for page in (sound.index..sound.deadlines).step_by(PAGE) {
        bytes[page + 5] = 1;
        let bound = [&[1; 16][..], &(page as u64).to_le_bytes(), &bytes[page + 4..page + PAGE]].concat();
        bytes[page..page + 4].copy_from_slice(&crc32c::crc32c(&bound).to_le_bytes());
    }
    let disk = FakeDisk::new();
    disk.put(path(), &bytes);
    let vfs = disk.as_vfs();
    let snapshot = open(&vfs, path());
    disk.repair();
    assert_eq!(snapshot.locate(b"no such key", &mut Scratch::new()), None);
    assert!((8..10).contains(&disk.calls().len()));
    assert_eq!(missing(&sound, &snapshot), BTreeSet::new());
    assert_eq!(file(&vfs, path()).any_version().verify().unwrap().findings[0].kind, FindingKind::Bucket);
}

/// The file with a changed slot for a rank, and a corrected checksum of the slot's bucket.
fn with_slot(sound: &Sound, rank: u32, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let record = sound.records[rank as usize] as u64;
    let named = [&[0; 2][..], &rank.to_le_bytes(), &record.to_le_bytes()[..6]].concat();
    let mut bytes = sound.bytes.clone();
    let mut slots = (sound.index..sound.deadlines)
        .step_by(PAGE)
        .flat_map(|page| (page + 8..page + PAGE - 12).step_by(12));
    let slot = slots.find(|slot| bytes[slot + 2..slot + 12] == named[2..]).unwrap();
    change(&mut bytes[slot..slot + 12]);
    let bucket = slot - (slot - sound.index) % PAGE;
    let whole = [&[1; 16][..], &(bucket as u64).to_le_bytes(), &bytes[bucket + 4..bucket + PAGE]].concat();
    bytes[bucket..bucket + 4].copy_from_slice(&crc32c::crc32c(&whole).to_le_bytes());
    bytes
}

/// Found by a fuzzer: a slot that points into the last record was not reported, because nothing
/// comes after the record; so a file with an entry that no look-up finds was called sound.
#[test]
fn verify_finds_a_slot_that_names_the_inside_of_any_record_the_last_one_too() {
    let _alone = alone();
    let sound = sound();
    for rank in [0, 7, COUNT - 1] {
        let (_disk, vfs) = disk_with(&with_slot(&sound, rank, |slot| slot[6] += 1));
        let report = file(&vfs, path()).any_version().verify().unwrap();
        let offsets: Vec<u64> = report.findings.iter().map(|finding| finding.offset).collect();
        let inside = sound.records[rank as usize] as u64 + 1;
        assert_eq!((report.sound_entries, offsets.first()), (COUNT - 1, Some(&inside)), "{report:?}");
        assert_eq!(report.findings[0].kind, FindingKind::Record);
    }
}

/// Found by a fuzzer: two records with one rank counted as two sound entries, and could outnumber
/// the entries.
#[test]
fn verify_counts_no_rank_twice() {
    let _alone = alone();
    let sound = sound();
    let (_disk, vfs) = disk_with(&with_slot(&sound, 7, |slot| slot[2] = 8));
    let report = file(&vfs, path()).any_version().verify().unwrap();
    assert_eq!(
        (report.sound_entries, report.findings[0].kind),
        (COUNT - 1, FindingKind::Bucket),
        "{report:?}"
    );
}
