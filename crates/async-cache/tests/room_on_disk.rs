//! A disk with room for two files suffices for ever.
//!
//! While one entry was cold, the cache kept its initial file open. A save replaced the file, but
//! its bytes stayed on the disk; so from the second save on there were three files, and on a disk
//! with room for two no save ever succeeded again.

use std::path::Path;

use async_cache::{AsyncCache, DiskBackend};
use async_cache_disk::fake::FakeDisk;

const PATH: &str = "/var/cache/app.cache";
const COUNT: u64 = 2000;
const MAXSIZE: usize = 2000;

type Cache = AsyncCache<u64, String>;

fn value(key: u64) -> String {
    format!("the value of {key}")
}

fn open(disk: &FakeDisk, merges: bool) -> Cache {
    let backend = DiskBackend::new(PATH).vfs(disk.as_vfs());
    let backend = if merges { backend } else { backend.without_merging() };
    AsyncCache::builder().backup(backend).build().unwrap()
}

/// A disk with a saved cache, and room for twice its file and a little more.
fn tight_disk() -> FakeDisk {
    let disk = FakeDisk::new();
    disk.keep_no_log();
    let cache = open(&disk, true);
    (0..COUNT).for_each(|key| cache.set(key, value(key)));
    let bytes = cache.save_to_backup().unwrap().bytes;
    disk.set_capacity(bytes * 21 / 10);
    disk
}

#[test]
fn saves_beside_cold_entries_need_room_for_two_files() {
    for merges in [true, false] {
        let disk = tight_disk();
        for _life in 0..3 {
            let cache = open(&disk, merges);
            for save in 0..10 {
                assert_eq!(cache.get(&(save * 7)), Some(value(save * 7)), "it turns hot");
                cache.set(save * 11, value(save * 11));
                assert_eq!(cache.save_to_backup().unwrap().entries, COUNT);
                let file = disk.bytes(Path::new(PATH)).unwrap().len() as u64;
                assert_eq!(disk.bytes_in_use(), file, "the file before is closed");
            }
            assert!(cache.stats().cold > MAXSIZE / 2, "{:?}", cache.stats());
        }
        let cache = open(&disk, merges);
        assert!((0..COUNT).all(|key| cache.get(&key) == Some(value(key))));
    }
}

#[test]
fn what_is_cold_in_the_new_file_is_served_deleted_evicted_and_expires_as_in_the_old_one() {
    let disk = FakeDisk::new();
    let backend = || DiskBackend::new(PATH).vfs(disk.as_vfs());
    let first: Cache = AsyncCache::builder().backup(backend()).build().unwrap();
    (0..COUNT).for_each(|key| first.set(key, value(key)));
    first.save_to_backup().unwrap();
    drop(first);

    let cache: Cache = AsyncCache::builder().maxsize(MAXSIZE).backup(backend()).build().unwrap();
    cache.delete(&3);
    assert_eq!(cache.get(&4), Some(value(4)));
    cache.save_to_backup().unwrap();
    cache.save_to_backup().unwrap();
    assert_eq!((cache.get(&3), cache.get(&5)), (None, Some(value(5))));
    cache.delete(&6);
    assert!(!cache.contains(&6) && cache.contains(&7));
    cache.set(8, "new".to_owned());
    cache.save_to_backup().unwrap();
    assert_eq!((cache.get(&6), cache.get(&8).as_deref()), (None, Some("new")));
    assert_eq!(cache.len() as u64, COUNT - 2);
    // New entries evict cold ones, and none of the evicted entries comes back.
    (COUNT..COUNT + 500).for_each(|key| cache.set(key, value(key)));
    cache.save_to_backup().unwrap();
    assert_eq!(cache.len() as u64, COUNT);
    let there = |cache: &Cache| (0..COUNT + 500).filter(|key| cache.contains(key)).collect::<Vec<_>>();
    let before = there(&cache);
    assert_eq!(before.len() as u64, COUNT);
    drop(cache);
    let cache: Cache = AsyncCache::builder().maxsize(MAXSIZE).backup(backend()).build().unwrap();
    assert_eq!(there(&cache), before);
}

/// Another process deletes and overwrites entries that are cold here.
#[test]
fn a_cold_entry_that_another_process_deleted_or_overwrote_is_a_miss_after_a_save() {
    let disk = FakeDisk::new();
    let cache = open(&disk, true);
    (0..COUNT).for_each(|key| cache.set(key, value(key)));
    cache.save_to_backup().unwrap();
    let (ours, theirs) = (open(&disk, true), open(&disk, true));
    theirs.delete(&1);
    theirs.set(2, "theirs".to_owned());
    theirs.save_to_backup().unwrap();
    assert_eq!(ours.save_to_backup().unwrap().entries, COUNT - 1);
    assert_eq!((ours.get(&1), ours.get(&2), ours.get(&3)), (None, None, Some(value(3))));
    assert_eq!(ours.save_to_backup().unwrap().entries, COUNT - 1);
    let again = open(&disk, true);
    assert_eq!((again.get(&1), again.get(&2).as_deref()), (None, Some("theirs")));
}
