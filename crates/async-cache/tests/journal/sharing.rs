//! Two processes on one path: the second one has the file without the journal.

use std::time::Duration;

use super::{PATH, killed, life, open, there};
use async_cache::{AsyncCache, DiskBackend, Journal};
use async_cache_disk::fake::FakeDisk;
use async_cache_disk::store::{EagerWrite, StoreOptions, StoreWrite};
use async_cache_disk::{CacheFile, Item, Source};

#[test]
fn the_second_process_saves_snapshots_that_merge_and_nobody_loses_entries() {
    let disk = FakeDisk::new();
    let first = open(&disk);
    (0..5).for_each(|key| first.set(key, key));
    let second = open(&disk);
    assert_eq!(second.len(), 0, "it sees the file, not the journal");
    (10..15).for_each(|key| second.set(key, key));
    assert_eq!(second.save_to_backup().unwrap().entries, 5);
    assert_eq!(there(&first, 0..20).len(), 5);
    drop(second);
    drop(first);
    let all: Vec<_> = (0..5).chain(10..15).map(|key| (key, key)).collect();
    assert_eq!(there(&open(&disk), 0..20), all);
}

/// The eager entries of the file: their keys.
fn eager_keys(disk: &FakeDisk) -> Vec<Vec<u8>> {
    let file = CacheFile::new(disk.as_vfs(), PATH).version("");
    let snapshot = file.open().unwrap().unwrap();
    let (mut records, mut keys) = (snapshot.eager(), Vec::new());
    while let Some(item) = records.next() {
        if let Item::Entry(record) = item {
            keys.push(record.key.to_vec());
        }
    }
    keys
}

/// Objects as keys of a Python process: this front cannot compare them.
fn put_objects(disk: &FakeDisk, keys: &[&[u8]], deletes: &[&[u8]]) {
    let file = CacheFile::new(disk.as_vfs(), PATH).version("");
    let store = file.store(StoreOptions::default(), 1).unwrap();
    for key in keys {
        store.put_eager(&StoreWrite { key, value: b"v", deadline: None, replaces: None }, 1).unwrap();
    }
    for key in deletes {
        store.delete_eager(key, 1).unwrap();
    }
    store.close(1).unwrap();
}

#[test]
fn entries_that_only_another_front_can_read_stay_through_closes_and_leave_with_a_clear() {
    let disk = FakeDisk::new();
    put_objects(&disk, &[b"a", b"b", b"a"], &[]);
    let cache = open(&disk);
    cache.set(1, 1);
    assert_eq!(cache.len(), 1);
    drop(cache);
    for _ in 0..2 {
        assert_eq!(eager_keys(&disk), [b"b", b"a"]);
        open(&disk).set(2, 2);
    }
    put_objects(&disk, &[b"c"], &[b"c"]);
    put_objects(&disk, &[b"d"], &[]);
    drop(open(&disk));
    assert_eq!(eager_keys(&disk), [b"d"], "a delete may mean any earlier one");
    let cache = open(&disk);
    cache.clear();
    cache.set(3, 3);
    drop(cache);
    assert!(eager_keys(&disk).is_empty());
}

#[test]
fn entries_that_only_another_front_can_read_stay_through_collections() {
    let disk = FakeDisk::new();
    disk.keep_no_log();
    put_objects(&disk, &[b"a", b"b"], &[]);
    let has_first = |disk: &FakeDisk| disk.files().iter().any(|path| path.ends_with("s000001"));
    assert!(has_first(&disk));
    let journal = Journal::new().flush_every(Duration::from_millis(1)).disk_bytes(1 << 20);
    let cache = life::<u64, String>(&disk, journal).0.maxsize(10).build().unwrap();
    let mut key = 0;
    // Twice over the limit: copies are collected as well.
    while has_first(&disk) || key < 1500 {
        assert!(key < 100_000, "nothing is collected: {:?}", disk.files());
        cache.set(key, "x".repeat(2000));
        key += 1;
        std::thread::sleep(Duration::from_micros(100));
    }
    std::mem::forget(cache);
    let file = CacheFile::new(killed(&disk).as_vfs(), PATH).version("");
    let keys = file.store_view(1).unwrap().unwrap().eager().into_iter().map(|write| match write {
        EagerWrite::Entry { key, .. } => key,
        EagerWrite::Delete { .. } => panic!("nobody has deleted an object"),
    });
    assert_eq!(keys.collect::<Vec<_>>(), [b"a", b"b"]);
}

#[test]
fn the_path_can_be_opened_again_as_soon_as_the_last_handle_is_dropped() {
    let disk = FakeDisk::new();
    for life in 0..20 {
        let cache = open(&disk);
        assert_eq!(there(&cache, 0..30).len(), life);
        cache.set(life as u64, 0);
    }
    let plain = DiskBackend::new(PATH).vfs(disk.as_vfs());
    let cache: AsyncCache<u64, u64> = AsyncCache::builder().backup(plain).build().unwrap();
    assert_eq!(cache.len(), 20);
}
