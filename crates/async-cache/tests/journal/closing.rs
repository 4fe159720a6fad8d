//! The end of a journal: a small cache is one file afterwards.

use std::path::PathBuf;

use super::{PATH, immortal, journal, killed, life, open, there};
use async_cache::{AsyncCache, DiskBackend};
use async_cache_disk::fake::FakeDisk;

#[test]
fn the_last_handle_folds_everything_into_the_file_at_the_path() {
    let disk = FakeDisk::new();
    let cache = open(&disk);
    (0..100).for_each(|key| cache.set(key, key));
    cache.delete(&7);
    let other = cache.clone();
    drop(cache);
    assert!(disk.files().len() > 1, "a handle is left");
    drop(other);
    // And the lock of saves, as after any save.
    assert_eq!(disk.files(), [PathBuf::from(PATH), PathBuf::from(format!("{PATH}.lock"))]);
    // Without a journal, the file is a snapshot like any other.
    let plain = || DiskBackend::new(PATH).vfs(disk.as_vfs());
    let cache: AsyncCache<u64, u64> = AsyncCache::builder().backup(plain()).build().unwrap();
    assert_eq!((cache.len(), cache.get(&7), cache.get(&8)), (99, None, Some(8)));
    drop(cache);
    let cache = open(&disk);
    assert_eq!((cache.len(), cache.opening().entries), (99, 99));
    assert_eq!(there(&cache, 0..100).len(), 99);
}

#[test]
fn the_order_of_eviction_survives_a_close() {
    let disk = FakeDisk::new();
    let small = || life::<u64, u64>(&disk, journal()).0.maxsize(4).build().unwrap();
    let cache = small();
    (0..4).for_each(|key| cache.set(key, key));
    assert_eq!((cache.get(&0), cache.get(&2)), (Some(0), Some(2)));
    drop(cache);
    let cache = small();
    cache.set(10, 10);
    cache.set(11, 11);
    assert_eq!(cache.len(), 4);
    assert_eq!(there(&cache, 0..20), [(0, 0), (2, 2), (10, 10), (11, 11)]);
}

#[test]
fn a_snapshot_becomes_a_journal_and_back() {
    let disk = FakeDisk::new();
    let plain = || DiskBackend::new(PATH).vfs(disk.as_vfs());
    let cache: AsyncCache<u64, u64> = AsyncCache::builder().backup(plain()).build().unwrap();
    (0..5).for_each(|key| cache.set(key, key));
    cache.save_to_backup().unwrap();
    drop(cache);
    let cache = immortal(open(&disk));
    assert_eq!((cache.len(), cache.get(&1)), (5, Some(1)));
    cache.delete(&1);
    cache.set(2, 22);
    let disk = killed(&disk);
    let cache = open(&disk);
    assert_eq!(there(&cache, 0..5), [(0, 0), (2, 22), (3, 3), (4, 4)]);
    assert_eq!(cache.len(), 4);
}
