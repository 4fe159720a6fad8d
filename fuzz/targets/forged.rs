//! A file with a secret, changed by an attacker without the secret: every served entry was written
//! by a holder of the secret, under the same key, in the same file.
//!
//! The bytes are a script of changes to a small file. Units may be exchanged, or replaced by units
//! of another file with the same secret; checksums are corrected at the end. The file is changed
//! before it is opened, or while it is read.
#![no_main]

use std::cell::LazyCell;
use std::path::Path;

use async_cache_disk::fake::FakeDisk;
use async_cache_disk::{CacheFile, Item, Scratch, Snapshot, Source, Times, Tombstones, fuzzing};
use async_cache_fuzz::{Entry, Sample, Shape, sample, secret};

const SHAPES: [Shape; 3] = [Shape::Plain, Shape::Compressed, Shape::WithDictionary];
const MATCH_CHECKSUMS: u8 = 1;
const UNDER_THE_READER: u8 = 2;

thread_local! {
    /// For each shape the file to change, and another file.
    static FILES: LazyCell<[[Sample; 2]; 3]> =
        LazyCell::new(|| SHAPES.map(|shape| [1, 2].map(|generation| sample(shape, generation, Some(secret())))));
}

libfuzzer_sys::fuzz_target!(|script: &[u8]| {
    let Some(([shape, how], script)) = script.split_first_chunk::<2>() else { return };
    FILES.with(|files| forge(&files[usize::from(shape % 3)], *how, script));
});

fn forge(files: &[Sample; 2], how: u8, script: &[u8]) {
    let (disk, path) = (FakeDisk::new(), Path::new("/forged.cache"));
    disk.keep_no_log();
    let file = CacheFile::new(disk.as_vfs(), path).secret(secret());
    disk.put(path, &files[0].bytes);
    let early = file.open().expect("it is sound");

    let mut forged = files[0].bytes.clone();
    script.chunks_exact(8).for_each(|step| change(&mut forged, files, step));
    if how & MATCH_CHECKSUMS != 0 {
        fuzzing::reseal_checksums(&mut forged, &secret());
    }
    disk.overwrite(path, &forged);

    let snapshot = if how & UNDER_THE_READER != 0 {
        early
    } else {
        let Ok(late) = file.open() else { return };
        late
    };
    let Some(snapshot) = snapshot else { return };
    let genuine = files.iter().find(|file| file.file_id == snapshot.file_id());
    let genuine = genuine.expect("nobody else could have made the header");
    check(&snapshot, genuine);
    if let Ok(report) = file.verify()
        && report.is_clean()
    {
        assert!(files.iter().any(|file| file.bytes == forged), "a forgery that nobody notices");
    }
}

/// One step of the script: operation, target, and three numbers.
fn change(forged: &mut Vec<u8>, files: &[Sample; 2], step: &[u8]) {
    let number = |at: usize| usize::from(u16::from_le_bytes([step[at], step[at + 1]]));
    let (from, to, len) = (number(2), number(4), number(6));
    let source = &files[usize::from(step[1] & 1)];
    let unit = |file: &Sample, of: usize| file.units[of % file.units.len()].clone();
    match step[0] % 8 {
        0 => {
            if let Some(byte) = forged.get_mut(to) {
                *byte ^= step[6] | 1;
            }
        }
        1 => {
            if let Some(bytes) = forged.get_mut(to..to + usize::from(step[1] % 5)) {
                bytes.copy_from_slice(&[step[2], step[3], step[6], step[7]][..bytes.len()]);
            }
        }
        // A unit, in the place of another unit, or in its own place.
        2 => paste(forged, unit(&files[0], to).start, &source.bytes[unit(source, from)]),
        3 => paste(forged, unit(&files[0], to).start, &source.bytes[unit(source, to)]),
        4 => {
            let end = from.saturating_add(len).min(source.bytes.len());
            paste(forged, to, source.bytes.get(from..end).unwrap_or_default());
        }
        5 => {
            if let Some(bytes) = forged.get_mut(unit(&files[0], to)) {
                bytes.fill(0);
            }
        }
        6 => forged.truncate(to),
        _ => forged.extend_from_slice(&source.bytes[unit(source, from)]),
    }
}

fn paste(forged: &mut [u8], at: usize, bytes: &[u8]) {
    let Some(place) = forged.get_mut(at..) else { return };
    let len = place.len().min(bytes.len());
    place[..len].copy_from_slice(&bytes[..len]);
}

fn check(snapshot: &Snapshot, genuine: &Sample) {
    assert_eq!(snapshot.len() as usize, genuine.entries.len());
    let is_genuine = |rank: u32, key: &[u8], value: &[u8], times: Times| {
        let entry = Entry { key: key.to_vec(), value: value.to_vec(), times };
        assert_eq!(genuine.entries.get(rank as usize), Some(&entry), "a forgery is served");
    };
    let mut scratch = Scratch::new();
    let mut records = snapshot.records();
    while let Some(item) = records.next() {
        if let Item::Entry(record) = item {
            let times = Times { deadline: record.deadline, written_at: record.written_at };
            is_genuine(record.rank.expect("it has a rank"), record.key, record.value, times);
        }
    }
    for entry in &genuine.entries {
        if let Some(found) = snapshot.find(&entry.key, &mut scratch) {
            let times = Times { deadline: found.deadline, written_at: found.written_at };
            is_genuine(found.rank, &entry.key, found.value, times);
        }
    }
    for place in snapshot.places() {
        if let Some(record) = snapshot.read_place(&place, &mut scratch) {
            let times = Times { deadline: record.deadline, written_at: record.written_at };
            is_genuine(place.rank, record.key, record.value, times);
        }
    }
    let mut salvage = snapshot.salvage();
    while let Some(item) = salvage.next() {
        if let Item::Entry(record) = item {
            let times = Times { deadline: record.deadline, written_at: record.written_at };
            let rank = genuine.entries.iter().position(|entry| entry.key == record.key);
            let rank = u32::try_from(rank.expect("a key that was never written")).expect("few");
            is_genuine(rank, record.key, record.value, times);
        }
    }
    let (mut eager, mut next) = (snapshot.eager(), genuine.eager.iter());
    while let Some(item) = eager.next() {
        if let Item::Entry(record) = item {
            let times = Times { deadline: record.deadline, written_at: record.written_at };
            let entry = Entry { key: record.key.to_vec(), value: record.value.to_vec(), times };
            assert_eq!(next.next(), Some(&entry), "a forgery is served");
        }
    }
    let mut deadlines = snapshot.deadlines();
    while !deadlines.is_finished() {
        if let Some(due) = deadlines.next_due(u64::MAX) {
            assert_eq!(genuine.entries[due.rank as usize].times.deadline, Some(due.deadline));
        }
    }
    let mut unknown = Tombstones::default();
    unknown.record_unknown_delete(genuine.saved_at);
    assert!([&genuine.tombstones, &unknown].contains(&&snapshot.tombstones()), "deletes are forged");
}
