//! Entries to save, and checks of the entries that come back.
#![allow(dead_code)] // every test binary uses a part of this module

use std::path::Path;
use std::sync::Arc;

use async_cache_disk::{
    CacheFile, DiskError, Item, Loss, Ours, SavedFile, Scratch, Secret, Snapshot, Source, Vfs, WriteOptions,
    Writer,
};

pub(crate) const VERSION: &str = "v1";
pub(crate) const SAVED_AT: u64 = 1_700_000_000_000_000_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
    pub(crate) deadline: Option<u64>,
}

/// Entries whose values differ for every `generation`; every third entry has no deadline.
pub(crate) fn entries(count: u32, generation: u32) -> Vec<Entry> {
    let entry = |i: u32| Entry {
        key: format!("key {i}").into_bytes(),
        value: format!("generation {generation} value {i} {}", "x".repeat((i % 60) as usize)).into_bytes(),
        deadline: (!i.is_multiple_of(3)).then(|| SAVED_AT + u64::from(i.wrapping_mul(0x9E37_79B9))),
    };
    (0..count).map(entry).collect()
}

/// Entries for the eager section, which differ for every `generation`. Some have equal keys, which
/// the format leaves to the reader.
pub(crate) fn eager_entries(count: u32, generation: u32) -> Vec<Entry> {
    let entry = |(i, mut entry): (u32, Entry)| {
        entry.key = format!("pickled {}", i % 8).into_bytes();
        entry
    };
    (0..).zip(entries(count, generation)).map(entry).collect()
}

pub(crate) fn options() -> WriteOptions {
    WriteOptions::new(SAVED_AT)
}

/// The secret of the permitted writers, and the secret of another writer.
pub(crate) fn secret() -> Secret {
    Secret::new("correct horse battery staple").unwrap()
}

pub(crate) fn another_secret() -> Secret {
    Secret::new("incorrect horse battery staple").unwrap()
}

/// A file of the samples' version.
pub(crate) fn file(vfs: &Arc<dyn Vfs>, path: impl AsRef<Path>) -> CacheFile {
    CacheFile::new(Arc::clone(vfs), path.as_ref()).version(VERSION)
}

/// A file of the samples' version, with the secret.
pub(crate) fn with_secret(vfs: &Arc<dyn Vfs>, path: impl AsRef<Path>) -> CacheFile {
    file(vfs, path).secret(secret())
}

/// A process without entries that allows all values, for saves that merge.
pub(crate) fn nothing() -> Ours<'static> {
    Ours { maxsize: None, eager: None, cold: None, allows: &|_| true }
}

/// Fixed file id and hash seed, so that a failure can be reproduced.
pub(crate) fn options_of(generation: u8) -> WriteOptions {
    options().identity([generation; 16], [generation ^ 0x5A; 16])
}

pub(crate) fn save(
    vfs: &Arc<dyn Vfs>,
    path: &Path,
    entries: &[Entry],
    options: WriteOptions,
) -> Result<SavedFile, DiskError> {
    save_to(&file(vfs, path), entries, &[], options)
}

pub(crate) fn save_with_eager(
    vfs: &Arc<dyn Vfs>,
    path: &Path,
    entries: &[Entry],
    eager: &[Entry],
    options: WriteOptions,
) -> Result<SavedFile, DiskError> {
    save_to(&file(vfs, path), entries, eager, options)
}

/// Pushes eager entries between the others, as if they came as they were used.
pub(crate) fn save_to(
    file: &CacheFile,
    entries: &[Entry],
    eager: &[Entry],
    options: WriteOptions,
) -> Result<SavedFile, DiskError> {
    let mut writer = file.write(options)?;
    let mut eager = eager.iter();
    let mut push_eager = |writer: &mut Writer| {
        eager.next().map(|entry| writer.push_eager(&entry.key, &entry.value, entry.deadline)).transpose()
    };
    for entry in entries {
        push_eager(&mut writer)?;
        writer.push(&entry.key, &entry.value, entry.deadline)?;
    }
    while push_eager(&mut writer)?.is_some() {}
    writer.finish()
}

pub(crate) fn open(vfs: &Arc<dyn Vfs>, path: &Path) -> Snapshot {
    file(vfs, path).open().unwrap().expect("there is a snapshot")
}

/// Looks up an entry and compares the result.
pub(crate) fn find(snapshot: &Snapshot, entry: &Entry, scratch: &mut Scratch) -> Option<u32> {
    let found = snapshot.find(&entry.key, scratch)?;
    assert_eq!((found.value, found.deadline), (&entry.value[..], entry.deadline), "a wrong value was found");
    let rank = found.rank;
    assert_eq!(snapshot.locate(&entry.key, scratch), Some(rank));
    Some(rank)
}

/// Reads all entries; `None` for a lost entry. Every rank must occur once.
pub(crate) fn read_all(snapshot: &Snapshot) -> Vec<Option<Entry>> {
    let mut all = Vec::new();
    let mut records = snapshot.records();
    while let Some(item) = records.next() {
        let (rank, entry) = match item {
            Item::Entry(record) => {
                let (key, value) = (record.key.to_vec(), record.value.to_vec());
                (record.rank.unwrap(), Some(Entry { key, value, deadline: record.deadline }))
            }
            Item::Lost(Loss::Entry { rank }) => (rank, None),
            Item::Lost(lost) => panic!("{lost:?}"),
        };
        assert_eq!(rank as usize, all.len());
        all.push(entry);
    }
    assert_eq!(all.len(), snapshot.len() as usize);
    all
}

/// Reads all eager entries that are not lost; returns the number of lost bytes too.
pub(crate) fn read_eager(snapshot: &Snapshot) -> (Vec<Entry>, u64) {
    let (mut all, mut lost) = (Vec::new(), 0);
    let mut records = snapshot.eager();
    while let Some(item) = records.next() {
        assert_eq!(lost, 0, "nothing comes behind what is lost");
        match item {
            Item::Entry(record) => {
                let (key, value) = (record.key.to_vec(), record.value.to_vec());
                all.push(Entry { key, value, deadline: record.deadline });
            }
            Item::Lost(Loss::Bytes { bytes, .. }) => lost = bytes,
            Item::Lost(lost) => panic!("{lost:?}"),
        }
    }
    assert_eq!(snapshot.damage().eager_bytes, lost);
    assert!(lost <= snapshot.eager_bytes());
    (all, lost)
}

/// All deadlines in order.
pub(crate) fn deadlines(snapshot: &Snapshot) -> Vec<(u64, u32)> {
    let mut deadlines = snapshot.deadlines();
    let mut all = Vec::new();
    while !deadlines.is_finished() {
        all.extend(deadlines.next_due(u64::MAX).map(|due| (due.deadline, due.rank)));
    }
    all
}

/// Asserts that a file holds exactly these entries, by every way of reading them.
pub(crate) fn assert_holds(vfs: &Arc<dyn Vfs>, path: &Path, entries: &[Entry]) {
    assert_holds_with_eager(vfs, path, entries, &[]);
}

pub(crate) fn assert_holds_with_eager(vfs: &Arc<dyn Vfs>, path: &Path, entries: &[Entry], eager: &[Entry]) {
    assert_holds_as(&file(vfs, path), entries, eager);
}

/// The same, for a file opened with options.
pub(crate) fn assert_holds_as(file: &CacheFile, entries: &[Entry], eager: &[Entry]) {
    let snapshot = file.open().unwrap().expect("there is a snapshot");
    assert_eq!(read_eager(&snapshot), (eager.to_vec(), 0));
    assert_eq!((snapshot.has_eager(), snapshot.eager_bytes() > 0), (!eager.is_empty(), !eager.is_empty()));
    let mut scratch = Scratch::new();
    assert!(read_all(&snapshot).into_iter().map(Option::unwrap).eq(entries.iter().cloned()));
    for (entry, rank) in entries.iter().zip(0..) {
        assert_eq!(find(&snapshot, entry, &mut scratch), Some(rank));
    }
    assert_eq!(snapshot.locate(b"no such key", &mut scratch), None);
    let ranked = entries.iter().zip(0..).filter_map(|(entry, rank)| Some((entry.deadline?, rank)));
    let mut expected: Vec<(u64, u32)> = ranked.collect();
    expected.sort_unstable();
    assert_eq!(deadlines(&snapshot), expected);
    let report = file.verify().unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((report.sound_entries as usize, report.sound_eager), (entries.len(), eager.len() as u64));
    assert_eq!(snapshot.damage(), async_cache_disk::Damage::default());
}

/// The seed of a random test: from the environment, or new; printed so that a failure can be
/// repeated.
#[allow(clippy::print_stderr)]
pub(crate) fn random() -> fastrand::Rng {
    let seed = std::env::var("ASYNC_CACHE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("run again with ASYNC_CACHE_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}
