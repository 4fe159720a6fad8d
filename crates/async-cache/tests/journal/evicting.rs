//! `maxsize`, with and without a limit for the disk.

use super::{immortal, journal, killed, life, there};
use async_cache::AsyncCache;
use async_cache_disk::fake::FakeDisk;

fn small(disk: &FakeDisk, maxsize: usize) -> AsyncCache<u64, u64> {
    life(disk, journal()).0.maxsize(maxsize).build().unwrap()
}

fn larger_than_memory(disk: &FakeDisk, maxsize: usize) -> AsyncCache<u64, u64> {
    life(disk, journal().disk_bytes(1 << 20)).0.maxsize(maxsize).build().unwrap()
}

#[test]
fn without_a_limit_for_the_disk_an_evicted_entry_is_gone() {
    let disk = FakeDisk::new();
    let cache = immortal(small(&disk, 10));
    (0..100).for_each(|key| cache.set(key, key));
    let last: Vec<_> = (90..100).map(|key| (key, key)).collect();
    assert_eq!((cache.len(), there(&cache, 0..100)), (10, last.clone()));
    let cache = small(&killed(&disk), 10);
    assert_eq!((cache.len(), there(&cache, 0..100)), (10, last));
}

#[test]
fn cold_entries_leave_first_one_by_one_the_oldest_first() {
    let disk = FakeDisk::new();
    let cache = immortal(small(&disk, 10));
    (0..10).for_each(|key| cache.set(key, key));
    let disk = killed(&disk);
    let cache = immortal(small(&disk, 10));
    assert_eq!(cache.get(&0), Some(0)); // In memory from now on.
    for more in 0..9 {
        cache.set(100 + more, 0);
        assert_eq!((cache.len(), cache.contains(&0)), (10, true), "{more}");
        let cold: Vec<u64> = (1..10).filter(|key| cache.contains(key)).collect();
        assert_eq!(cold, (2 + more..10).collect::<Vec<_>>());
    }
    let cache = small(&killed(&disk), 10);
    assert_eq!(there(&cache, 0..10), [(0, 0)]);
    assert_eq!(cache.len(), 10);
}

#[test]
fn a_smaller_cache_keeps_what_was_written_last() {
    let disk = FakeDisk::new();
    let cache = immortal(small(&disk, 100));
    (0..100).for_each(|key| cache.set(key, key));
    let cache = small(&killed(&disk), 10);
    cache.set(200, 200);
    assert!(cache.len() <= 100);
    (0..200).for_each(|key| cache.set(1000 + key, 0));
    assert_eq!(cache.len(), 10);
}

#[test]
fn with_a_limit_for_the_disk_memory_is_a_part_of_the_cache() {
    let disk = FakeDisk::new();
    let cache = immortal(larger_than_memory(&disk, 10));
    (0..1000).for_each(|key| cache.set(key, key + 1));
    assert!((0..1000).all(|key| cache.get(&key) == Some(key + 1)));
    let stats = cache.stats();
    assert!(stats.cold_hits >= 990, "{stats:?}");
    assert_eq!((stats.size, stats.cold, stats.misses), (1000, 990, 0));
    (0..1000).step_by(2).for_each(|key| cache.delete(&key));
    assert_eq!(there(&cache, 0..1000).len(), 500);
    let cache = larger_than_memory(&killed(&disk), 10);
    assert_eq!(there(&cache, 0..1000).len(), 500);
    cache.clear();
    assert_eq!((cache.len(), there(&cache, 0..1000).len()), (0, 0));
}

#[test]
fn a_cache_that_stores_nothing_has_no_journal_and_one_on_disk_only_has() {
    let disk = FakeDisk::new();
    let cache = small(&disk, 0);
    cache.set(1, 1);
    assert_eq!((cache.get(&1), cache.len()), (None, 0));
    drop(cache);
    let cache = larger_than_memory(&disk, 0);
    cache.set(1, 1);
    assert_eq!((cache.get(&1), cache.contains(&1)), (Some(1), true));
}
