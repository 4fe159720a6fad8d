//! A whole file, opened and read in every way there is: as it is, and with its checksums made to match.
#![no_main]

use std::path::Path;

use async_cache_disk::fake::FakeDisk;
use async_cache_disk::{EagerStep, SalvageStep, Scratch, Snapshot, Step, WriteOptions, Writer, fuzzing, verify};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    read_all(bytes);
    let mut sealed = bytes.to_vec();
    fuzzing::reseal(&mut sealed);
    read_all(&sealed);
});

fn read_all(bytes: &[u8]) {
    let disk = FakeDisk::new();
    disk.keep_no_log();
    let (path, copy) = (Path::new("/fuzzed.cache"), Path::new("/copy.cache"));
    disk.put(path, bytes);
    let vfs = disk.as_vfs();
    let report = verify(&vfs, path);
    let Ok(Some(snapshot)) = Snapshot::open_any_version(&vfs, path) else { return };
    let report = report.expect("what can be opened can be walked");
    assert!(report.sound_entries <= report.entries);

    let mut scratch = Scratch::new();
    let (mut records, mut read) = (snapshot.records(), 0u32);
    while let Some(step) = records.next_step() {
        if let Step::Record(record) = step {
            read += 1;
            let found = snapshot.find(record.key, &mut scratch);
            if report.is_clean() {
                let found = found.expect("nothing is wrong with the file");
                assert_eq!((found.rank, found.value), (record.rank, record.value));
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

    // What is salvaged can be saved, and what was saved is sound, unless two records have the same key.
    let mut writer = Writer::create(&vfs, copy, WriteOptions::new("", 0)).expect("the disk is sound");
    let mut salvage = snapshot.salvage();
    while let Some(step) = salvage.next_step() {
        if let SalvageStep::Record(record) = step {
            writer.copy(&record).expect("it was in a file before");
        }
    }
    let mut eager = snapshot.eager();
    while let Some(step) = eager.next_step() {
        if let EagerStep::Record(record) = step {
            writer.copy_eager(&record).expect("it was in a file before");
        }
    }
    // The index takes no more than a few hundred equal keys.
    if let Ok(saved) = writer.finish() {
        let report = verify(&vfs, copy).expect("it was just saved");
        assert_eq!((report.entries, report.sound_eager), (saved.entries, u64::from(saved.eager)));
    }
}
