//! Two processes on one path: the second one has the file without the journal.

use super::{PATH, open, there};
use async_cache::{AsyncCache, DiskBackend};
use async_cache_disk::fake::FakeDisk;

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
