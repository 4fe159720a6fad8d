//! Caches with a file: promotions, saves and loads beside writes.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Cache, check};
use async_cache::{AsyncCache, CacheBackend, DiskBackend, SavedEntry};
use async_cache_disk::fake::FakeDisk;
use shuttle::thread;

const VALUES: [(u32, usize); 3] = [(1, 10), (2, 20), (3, 30)];

/// A cache of two shards over a snapshot, and the snapshot.
fn opened() -> (Cache, DiskBackend) {
    let disk = DiskBackend::new(Path::new("/cache")).vfs(FakeDisk::new().as_vfs());
    disk.save(&mut VALUES.map(|(key, value)| SavedEntry { key, value, ttl: None }).into_iter()).unwrap();
    (AsyncCache::builder().shards(2).backup(disk.clone()).build().unwrap(), disk)
}

/// The entries in the file, each key once.
fn saved(disk: &DiskBackend) -> BTreeMap<u32, usize> {
    let entries: Vec<SavedEntry<u32, usize>> = disk.load().unwrap();
    let count = entries.len();
    let map: BTreeMap<_, _> = entries.into_iter().map(|entry| (entry.key, entry.value)).collect();
    assert_eq!(map.len(), count, "a key was saved twice");
    map
}

#[test]
fn a_save_beside_a_promotion_a_set_and_a_delete_keeps_each_entry_as_it_was_at_some_time() {
    fn scene() {
        let (cache, disk) = opened();
        let clones = [(); 3].map(|()| cache.clone());
        let [promotes, sets, deletes] = clones;
        let threads = [
            thread::spawn(move || assert_eq!(promotes.get(&1), Some(10))),
            thread::spawn(move || sets.set(2, 21)),
            thread::spawn(move || deletes.delete(&3)),
        ];
        let during = cache.save_to_backup().unwrap();
        let map = saved(&disk);
        assert_eq!(map.len() as u64, during.entries);
        assert_eq!(map.get(&1), Some(&10));
        assert!(matches!(map.get(&2), Some(20 | 21)), "{map:?}");
        assert!(matches!(map.get(&3), None | Some(30)), "{map:?}");
        for thread in threads {
            thread.join().unwrap();
        }
        cache.save_to_backup().unwrap();
        assert_eq!(saved(&disk), BTreeMap::from([(1, 10), (2, 21)]));
    }
    check(scene);
}

/// A new entry does not know that its key is in a closed snapshot.
#[test]
fn a_save_beside_a_clear_and_new_entries_keeps_no_key_twice_and_nothing_old_later() {
    fn scene() {
        let (cache, disk) = opened();
        cache.set(4, 40);
        assert_eq!(cache.get(&3), Some(30));
        let clears = cache.clone();
        let clearing = thread::spawn(move || {
            clears.clear();
            clears.set(1, 11);
            clears.set(2, 21);
        });
        cache.save_to_backup().unwrap();
        for (key, value) in saved(&disk) {
            let before = VALUES.contains(&(key, value)) || (key, value) == (4, 40);
            assert!(before || value == 11 || value == 21, "{key} was never {value}");
        }
        clearing.join().unwrap();
        cache.save_to_backup().unwrap();
        assert_eq!(saved(&disk), BTreeMap::from([(1, 11), (2, 21)]));
    }
    check(scene);
}

#[test]
fn a_cold_entry_is_served_before_a_clear_or_not_at_all() {
    fn scene() {
        let (cache, _) = opened();
        let clears = cache.clone();
        let clearing = thread::spawn(move || {
            clears.clear();
            assert_eq!((clears.get(&1), clears.contains(&2)), (None, false));
        });
        assert!(matches!(cache.get(&1), None | Some(10)));
        clearing.join().unwrap();
        assert_eq!((cache.get(&1), cache.len()), (None, 0));
    }
    check(scene);
}

#[test]
fn two_readers_of_a_cold_entry_both_get_it() {
    fn scene() {
        let (cache, _) = opened();
        let other = cache.clone();
        let reading = thread::spawn(move || assert_eq!(other.get(&1), Some(10)));
        assert_eq!(cache.get(&1), Some(10));
        reading.join().unwrap();
        let stats = cache.stats();
        assert_eq!((stats.hits, stats.misses, stats.cold_hits, stats.size), (2, 0, 1, 3));
    }
    check(scene);
    shuttle::check_dfs(scene, Some(20_000));
}

#[test]
fn a_cold_entry_that_was_set_or_deleted_never_comes_back() {
    fn scene() {
        let (cache, _) = opened();
        let writes = cache.clone();
        let writing = thread::spawn(move || {
            writes.set(1, 11);
            assert_eq!(writes.get(&1), Some(11));
            writes.delete(&2);
            assert_eq!((writes.get(&2), writes.contains(&2)), (None, false));
        });
        let reads = cache.clone();
        let reading = thread::spawn(move || (reads.get(&1), reads.get(&2)));
        let (one, two) = reading.join().unwrap();
        assert!(matches!(one, Some(10 | 11)) && matches!(two, None | Some(20)), "{one:?} {two:?}");
        writing.join().unwrap();
        assert_eq!((cache.get(&1), cache.get(&2), cache.len()), (Some(11), None, 2));
    }
    check(scene);
}

/// The snapshot is opened under an empty cache, or read as a whole into a filled one, while other
/// threads read and write.
#[test]
fn loading_from_the_backup_beside_reads_and_writes_keeps_what_was_written() {
    fn scene() {
        let (cache, disk) = opened();
        cache.clear();
        let (reads, writes) = (cache.clone(), cache.clone());
        let reading = thread::spawn(move || assert!(matches!(reads.get(&1), None | Some(10))));
        let writing = thread::spawn(move || {
            writes.set(2, 21);
            assert_eq!(writes.get(&2), Some(21));
        });
        cache.load_from_backup().unwrap();
        assert_eq!(cache.get(&1), Some(10));
        reading.join().unwrap();
        writing.join().unwrap();
        assert_eq!((cache.get(&2), cache.len()), (Some(21), 3));
        cache.save_to_backup().unwrap();
        assert_eq!(saved(&disk), BTreeMap::from([(1, 10), (2, 21), (3, 30)]));
    }
    check(scene);
}

/// All shards have the snapshot, or none: otherwise a key in the file could be counted, but not
/// found.
#[test]
fn loading_from_the_backup_beside_a_clear_leaves_everything_or_nothing() {
    fn scene() {
        let (cache, disk) = opened();
        let clears = cache.clone();
        let clearing = thread::spawn(move || clears.clear());
        cache.load_from_backup().unwrap();
        clearing.join().unwrap();
        let found = VALUES.iter().filter(|(key, _)| cache.contains(key)).count();
        assert!(found == 0 || found == VALUES.len(), "{found} of {}", VALUES.len());
        assert_eq!(cache.len(), found);
        for (key, _) in &VALUES {
            cache.delete(key);
        }
        cache.save_to_backup().unwrap();
        assert_eq!((cache.len(), saved(&disk)), (0, BTreeMap::new()));
    }
    check(scene);
}

/// The reader read the old file; when it stores the entry, a newer file is open.
#[test]
fn what_was_read_from_one_snapshot_is_not_kept_under_the_next() {
    fn scene() {
        let (cache, disk) = opened();
        let reads = cache.clone();
        let reading = thread::spawn(move || assert!(matches!(reads.get(&1), None | Some(10 | 11))));
        cache.clear();
        disk.save(&mut [SavedEntry { key: 1_u32, value: 11_usize, ttl: None }].into_iter()).unwrap();
        cache.load_from_backup().unwrap();
        assert_eq!(cache.get(&1), Some(11));
        reading.join().unwrap();
        assert_eq!((cache.get(&1), cache.len()), (Some(11), 1));
    }
    check(scene);
}

#[test]
fn two_saves_at_once_leave_one_whole_file() {
    fn scene() {
        let (cache, disk) = opened();
        cache.set(4, 40);
        let other = cache.clone();
        let saving = thread::spawn(move || other.save_to_backup().unwrap().entries);
        assert_eq!((cache.save_to_backup().unwrap().entries, saving.join().unwrap()), (4, 4));
        assert_eq!(saved(&disk), BTreeMap::from([(1, 10), (2, 20), (3, 30), (4, 40)]));
    }
    check(scene);
}
