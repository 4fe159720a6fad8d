//! Reads a file in every possible way, and asserts the properties of every file.

use std::path::Path;

use async_cache_disk::fake::FakeDisk;
use async_cache_disk::{CacheFile, Compression, Item, Scratch, Secret, Snapshot, Source, WriteOptions};

/// Reads all of a file that claims to have been written with the secret, or without one; then saves
/// the intact parts.
pub fn read_all(bytes: &[u8], secret: Option<Secret>) {
    let disk = FakeDisk::new();
    disk.keep_no_log();
    let path = Path::new("/fuzzed.cache");
    disk.put(path, bytes);
    let file = CacheFile::new(disk.as_vfs(), path).secret(secret);
    let report = file.verify();
    let Ok(Some(snapshot)) = file.open() else { return };
    let report = report.expect("what can be opened can be walked");
    assert!(report.sound_entries <= report.entries);
    assert_eq!(snapshot.has_mac(), secret.is_some());

    let mut scratch = Scratch::new();
    let (mut records, mut read) = (snapshot.records(), 0u32);
    while let Some(item) = records.next() {
        if let Item::Entry(record) = item {
            read += 1;
            let found = snapshot.find(record.key, &mut scratch);
            if report.is_clean() {
                let found = found.expect("nothing is wrong with the file");
                assert_eq!((Some(found.rank), found.value), (record.rank, record.value));
            }
        }
    }
    assert!(read <= snapshot.len());
    if report.is_clean() {
        assert_eq!(read, snapshot.len());
    }
    let mut deadlines = snapshot.deadlines();
    let mut calls = 0;
    while !deadlines.is_finished() {
        let _ = deadlines.next_due(u64::MAX);
        calls += 1;
        assert!(calls <= bytes.len(), "the deadlines do not end");
    }
    for place in snapshot.places() {
        let _ = snapshot.read_place(&place, &mut scratch);
    }
    let tombstones = snapshot.tombstones();
    assert!(tombstones.len() <= bytes.len());

    let copy = file.at("/copy.cache");
    save_again(&snapshot, &copy, WriteOptions::new(0));
    // As by a cache with compression: frames made with this dictionary are copied unchanged.
    if snapshot.is_compressed() {
        let options = WriteOptions::new(0).dictionary_of(&snapshot);
        save_again(&snapshot, &copy.compression(Compression::ZSTD), options);
    }
}

/// Salvaged entries can be saved, and the saved file is sound, unless two records have the same
/// key.
fn save_again(snapshot: &Snapshot, copy: &CacheFile, options: WriteOptions) {
    let mut writer = copy.write(options).expect("the disk is sound");
    let mut salvage = snapshot.salvage();
    while let Some(item) = salvage.next() {
        if let Item::Entry(record) = item {
            writer.copy(&record).expect("it was in a file before");
        }
    }
    let mut eager = snapshot.eager();
    while let Some(item) = eager.next() {
        if let Item::Entry(record) = item {
            writer.copy_eager(&record).expect("it was in a file before");
        }
    }
    writer.set_tombstones(snapshot.tombstones());
    // The index accepts at most a few hundred equal keys.
    if let Ok(saved) = writer.finish() {
        let report = copy.verify().expect("it was just saved");
        assert_eq!((report.entries, report.sound_eager), (saved.entries, u64::from(saved.eager)));
    }
}
