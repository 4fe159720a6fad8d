//! Disks that fail: memory is right, and nothing older returns.

use std::io;

use super::{immortal, journal, killed, life, open, there};
use async_cache::AsyncCache;
use async_cache_disk::fake::FakeDisk;

#[test]
fn a_write_that_does_not_reach_the_disk_is_in_memory_and_counted() {
    let disk = FakeDisk::new();
    let cache = immortal(open(&disk));
    (0..5).for_each(|key| cache.set(key, key));
    disk.fail_every("write_at", io::ErrorKind::StorageFull);
    disk.fail_every("create_new", io::ErrorKind::StorageFull);
    cache.set(1, 11);
    cache.set(9, 9);
    cache.delete(&2);
    assert_eq!(there(&cache, 0..10), [(0, 0), (1, 11), (3, 3), (4, 4), (9, 9)]);
    assert!(cache.stats().write_errors >= 3, "{:?}", cache.stats());
    assert!(cache.save_to_backup().is_err() || cache.stats().write_errors > 0);
    let died = killed(&disk);
    died.repair();
    let reborn = open(&died);
    assert!(!matches!(reborn.get(&1), Some(1)) && reborn.get(&2).is_none(), "an older value returned");
    drop(reborn);
    disk.repair();
    cache.set(1, 12);
    cache.set(6, 6);
    let reborn = open(&killed(&disk));
    assert_eq!((reborn.get(&1), reborn.get(&2), reborn.get(&6)), (Some(12), None, Some(6)));
}

#[test]
fn a_full_disk_costs_only_what_it_could_not_take() {
    let disk = FakeDisk::new();
    let cache = immortal(open(&disk));
    (0..5).for_each(|key| cache.set(key, key));
    disk.fail_every("write_at", io::ErrorKind::StorageFull);
    disk.fail_every("create_new", io::ErrorKind::StorageFull);
    (10..20).for_each(|key| cache.set(key, key));
    assert_eq!((cache.len(), cache.stats().write_errors), (15, 10));
    let died = killed(&disk);
    died.repair();
    assert_eq!(there(&open(&died), 0..30), [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4)]);
}

#[test]
fn a_store_that_cannot_be_opened_leaves_a_cache_with_a_snapshot() {
    let disk = FakeDisk::new();
    disk.fail_every("create_dir", io::ErrorKind::PermissionDenied);
    let cache: AsyncCache<u64, u64> = life(&disk, journal()).0.build().unwrap();
    cache.set(1, 1);
    assert_eq!(cache.get(&1), Some(1));
    drop(cache);
}
