//! `load_from_backup`: what it adds, keeps and joins, also after a file that could not be read.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{PATH, life, open, saved_numbers, seconds, there};
use crate::stage::within_limit;
use async_cache::{AsyncCache, BackupError, DiskBackend, DiskErrorKind, Eviction};
use async_cache_disk::fake::FakeDisk;

#[test]
fn an_empty_cache_opens_the_snapshot_when_it_loads_again() {
    let disk = saved_numbers(10);
    let cache: AsyncCache<u64, u64> = open(&disk);
    cache.clear();
    let opening = cache.load_from_backup().unwrap();
    assert_eq!((opening.entries, cache.len(), cache.stats().cold), (10, 10, 10));
    assert_eq!(cache.get(&3), Some(30));
}

#[test]
fn what_is_in_memory_stays_when_the_backup_is_loaded_and_is_newer() {
    let disk = saved_numbers(4);
    let cache: AsyncCache<u64, u64> =
        life(&disk, 0).0.maxsize(5).shards(1).eviction(Eviction::Lru).build().unwrap();
    cache.clear();
    cache.set(0, 1);
    cache.set(100, 2);
    let opening = cache.load_from_backup().unwrap();
    assert_eq!((opening.entries, cache.len(), cache.stats().cold), (3, 5, 3));
    assert_eq!((cache.get(&0), cache.get(&3)), (Some(1), Some(30)));
    // 1, 2 came from the backup and were not used: they are the first to leave, in their order.
    cache.set(101, 0);
    assert_eq!((cache.contains(&1), cache.contains(&2)), (false, true));
    cache.set(102, 0);
    assert_eq!((cache.contains(&2), cache.contains(&100)), (false, true));
}

#[test]
fn what_does_not_fit_is_not_loaded_and_nothing_in_memory_makes_room() {
    let disk = saved_numbers(10);
    let cache: AsyncCache<u64, u64> =
        life(&disk, 0).0.maxsize(4).shards(1).eviction(Eviction::Lru).build().unwrap();
    cache.clear();
    (100..103).for_each(|key| cache.set(key, key));
    assert_eq!(cache.load_from_backup().unwrap().entries, 1);
    assert_eq!((there(&cache, 200), cache.len()), (vec![9, 100, 101, 102], 4));
}

#[test]
fn a_backup_that_cannot_be_loaded_leaves_the_cache_as_it_was() {
    let disk = saved_numbers(3);
    let cache: AsyncCache<u64, u64> = open(&disk);
    cache.set(100, 1);
    disk.put(Path::new(PATH), b"something else altogether");
    let error = cache.load_from_backup().unwrap_err();
    assert!(matches!(&error, BackupError::Disk(error) if *error.kind() == DiskErrorKind::Foreign), "{error}");
    assert_eq!((cache.len(), cache.get(&100), cache.get(&2)), (4, Some(1), Some(20)));
}

/// A cold entry is replaced by the file's entry for its key; it stayed, and the other process's
/// later write was not visible.
#[test]
fn what_is_saved_by_others_is_found_when_the_backup_is_loaded() {
    let disk = saved_numbers(2);
    let cache: AsyncCache<u64, u64> = open(&disk);
    cache.delete(&0);
    let other: AsyncCache<u64, u64> = open(&disk);
    other.set(5, 50);
    other.set(1, 11);
    other.save_to_backup().unwrap();
    cache.set(100, 0);
    cache.load_from_backup().unwrap();
    assert_eq!([0, 1, 5].map(|key| cache.get(&key)), [Some(0), Some(11), Some(50)]);
    assert_eq!(cache.get(&100), Some(0), "what is in memory stays");
}

/// The expired entry was still in memory, and prevented the load.
#[test]
fn what_expired_in_memory_is_loaded_from_the_backup() {
    let disk = saved_numbers(3);
    let (builder, hands) = life(&disk, 0);
    let cache: AsyncCache<u64, u64> = builder.build().unwrap();
    cache.set_with_ttl(1, 11, Some(seconds(1)));
    cache.set(7, 70);
    hands.advance(seconds(2));
    assert_eq!(cache.get(&1), None);
    // The two cold entries are read anew.
    assert_eq!(cache.load_from_backup().unwrap().entries, 3);
    assert_eq!((cache.get(&1), cache.len()), (Some(10), 4));
}

#[test]
fn a_file_that_was_taken_in_only_in_part_is_joined_by_the_next_save() {
    let disk = FakeDisk::new();
    let (builder, hands) = life(&disk, 0);
    let cache: AsyncCache<u64, u64> = builder.build().unwrap();
    cache.set(1, 10);
    hands.advance(seconds(1));
    let (builder, _) = life(&disk, 1);
    let other: AsyncCache<u64, u64> = builder.build().unwrap();
    other.set(1, 11);
    other.set(2, 20);
    other.save_to_backup().unwrap();
    hands.advance(seconds(1));
    // Entries in memory stay, though the file has a newer one.
    cache.load_from_backup().unwrap();
    assert_eq!((cache.get(&1), cache.get(&2)), (Some(10), Some(20)));
    cache.save_to_backup().unwrap();
    let later = open(&disk);
    assert_eq!((later.get(&1), later.get(&2)), (Some(11), Some(20)));
}

// A file that could not be read

/// A cache that started empty because of a passing error once replaced a file full of entries;
/// later it set the file aside, with a further copy for every such start.
#[test]
fn a_file_that_could_not_be_opened_is_joined_by_the_save_once_it_can_be_read() {
    let disk = saved_numbers(100);
    for start in 1..=3 {
        disk.fail_every("open", io::ErrorKind::PermissionDenied);
        // Later than all times in the file.
        let (builder, _hands) = life::<u64, u64>(&disk, start * 10);
        let cache = builder.build().unwrap();
        let warning = cache.opening().warning.as_ref().expect("it says why").to_string();
        assert!(warning.contains(PATH), "{warning}");
        cache.set(1, start);
        assert!(cache.save_to_backup().is_err(), "what cannot be read is not replaced");
        disk.repair();
        let saved = cache.save_to_backup().unwrap();
        assert_eq!((saved.entries, saved.set_aside), (100, None));
        let again: AsyncCache<u64, u64> = open(&disk);
        assert_eq!((again.len(), again.get(&1), again.get(&2)), (100, Some(start), Some(20)));
    }
}

#[test]
fn where_saves_do_not_merge_a_file_that_could_not_be_opened_is_set_aside_and_not_replaced() {
    let disk = saved_numbers(100);
    let old = disk.bytes(Path::new(PATH)).unwrap();
    let backend = || DiskBackend::new(PATH).vfs(disk.as_vfs()).without_merging();
    disk.fail_every("open", io::ErrorKind::PermissionDenied);
    let cache: AsyncCache<u64, u64> = AsyncCache::builder().backup(backend()).build().unwrap();
    disk.repair();
    cache.set(1, 11);
    let saved = cache.save_to_backup().unwrap();
    assert_eq!(saved.entries, 1);
    assert_eq!(disk.bytes(&saved.set_aside.expect("the old file is somewhere")).unwrap(), old);
    assert_eq!(cache.save_to_backup().unwrap().set_aside, None, "its own file it replaces");
}

#[test]
fn the_entries_that_came_in_are_counted_without_those_that_were_cold_before() {
    let disk = saved_numbers(8);
    let cache: AsyncCache<u64, u64> =
        life(&disk, 0).0.maxsize(10).shards(1).eviction(Eviction::Lru).build().unwrap();
    disk.as_vfs().remove(Path::new(PATH)).unwrap();
    let other: AsyncCache<u64, u64> = open(&disk);
    (100..106).for_each(|key| other.set(key, key));
    other.save_to_backup().unwrap();
    // Of the eight cold entries only four have room beside the six that come in.
    let opening = cache.load_from_backup().unwrap();
    assert_eq!((there(&cache, 200), cache.len()), ([4..8, 100..106].into_iter().flatten().collect(), 10));
    assert_eq!(opening.entries, 6);
}

/// Nothing was written meanwhile, and yet the opened snapshot served nothing for a moment.
#[test]
fn a_cold_entry_is_there_all_the_time_while_the_backup_is_loaded_again() {
    // The more shards there are, the longer it takes to unlock them all.
    let cache: AsyncCache<u64, u64> = life(&saved_numbers(1000), 0).0.shards(1024).build().unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let mut misses = 0;
            while !is_over.load(Ordering::Relaxed) {
                misses += (0..1000).filter(|key| !cache.contains(key)).count();
            }
            misses
        });
        for _ in 0..200 {
            cache.load_from_backup().unwrap();
        }
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(reading.join().unwrap(), 0);
    });
}

// Drop

/// A value that saves its former cache when it is dropped.
#[derive(Clone)]
struct Saver(Arc<std::sync::Mutex<Option<AsyncCache<u64, Saver>>>>);

impl Drop for Saver {
    fn drop(&mut self) {
        let cache = self.0.try_lock().ok().and_then(|mut cache| cache.take());
        if let Some(cache) = cache {
            cache.save_to_backup().unwrap();
        }
    }
}

struct OneSaver(Arc<std::sync::Mutex<Option<AsyncCache<u64, Saver>>>>);

impl async_cache::CacheBackend<u64, Saver> for OneSaver {
    fn load(&self) -> Result<Vec<async_cache::SavedEntry<u64, Saver>>, async_cache::BackendError> {
        Ok(vec![async_cache::SavedEntry { key: 1, value: Saver(Arc::clone(&self.0)), ttl: None }])
    }

    fn save(
        &self,
        entries: &mut dyn Iterator<Item = async_cache::SavedEntry<u64, Saver>>,
    ) -> Result<(), async_cache::BackendError> {
        entries.for_each(drop);
        Ok(())
    }

    fn clear(&self) -> Result<(), async_cache::BackendError> {
        Ok(())
    }
}

/// Entries refused by a load from the backup were dropped while the save lock was held, and waited
/// for the lock.
#[test]
fn what_a_backup_brings_in_vain_may_save_the_cache_when_it_is_dropped() {
    within_limit(|| {
        let slot = Arc::default();
        let cache = AsyncCache::builder().backup(OneSaver(Arc::clone(&slot))).build().unwrap();
        *slot.lock().unwrap() = Some(cache.clone());
        cache.load_from_backup().unwrap();
        assert!(slot.lock().unwrap().is_none(), "it was dropped, and saved");
        assert_eq!(cache.stats().saves, 1);
    });
}

thread_local! {
    static CACHE: RefCell<Option<AsyncCache<Busy, u64>>> = const { RefCell::new(None) };
    /// How many of the next calls of `Serialize` write another key.
    static WRITES: Cell<u64> = const { Cell::new(0) };
    /// How many keys that were lost have saved the cache.
    static SAVES: Cell<u64> = const { Cell::new(0) };
}

/// A key that writes to its cache whenever it is encoded, and, unless it is a clone, saves the
/// cache when it is dropped.
#[derive(PartialEq, Eq, Hash, serde::Deserialize)]
struct Busy(u64, #[serde(skip)] IsFirst);

/// Equal to all others.
#[derive(Default)]
struct IsFirst(bool);

impl PartialEq for IsFirst {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for IsFirst {}

impl std::hash::Hash for IsFirst {
    fn hash<H: std::hash::Hasher>(&self, _: &mut H) {}
}

impl Clone for Busy {
    fn clone(&self) -> Self {
        Self(self.0, IsFirst(false))
    }
}

impl serde::Serialize for Busy {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let left = WRITES.get();
        if left > 0 {
            WRITES.set(left - 1);
            let cache = CACHE.with_borrow(Clone::clone).unwrap();
            cache.set(Self(1000 + left, IsFirst(true)), 0);
        }
        serde::Serialize::serialize(&(self.0,), serializer)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let cache = CACHE.try_with(|cache| cache.borrow().clone()).ok().flatten();
        if let Some(cache) = cache.filter(|_| self.1.0 && SAVES.get() < 5) {
            SAVES.set(SAVES.get() + 1);
            cache.save_to_backup().unwrap();
        }
    }
}

/// Writes that were lost just before the snapshot was put under the shards were dropped while the
/// load had the turn, and waited for it.
#[test]
fn what_is_lost_while_the_backup_is_loaded_may_save_the_cache_when_it_is_dropped() {
    within_limit(|| {
        let disk = FakeDisk::new();
        let cache: AsyncCache<Busy, u64> =
            life(&disk, 0).0.maxsize(2).shards(1).eviction(Eviction::Lru).build().unwrap();
        let other: AsyncCache<Busy, u64> = open(&disk);
        other.set(Busy(7, IsFirst(false)), 70);
        other.save_to_backup().unwrap();
        (1..=2).for_each(|key| cache.set(Busy(key, IsFirst(true)), key));
        CACHE.set(Some(cache.clone()));
        WRITES.set(6);
        cache.load_from_backup().unwrap();
        CACHE.set(None);
        assert_eq!(WRITES.get(), 0);
        assert!(SAVES.get() > 2, "{} saves", SAVES.get());
    });
}
