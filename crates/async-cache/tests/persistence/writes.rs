//! Writes to entries that are still in the file, and saves that copy untouched entries.

use std::fmt::Debug;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use super::{PATH, life, open, saved_numbers};
use crate::stage::one_thread;
use async_cache::{AsyncCache, Eviction};
use serde::{Deserialize, Deserializer, Serialize};

#[test]
fn what_was_set_deleted_or_loaded_over_a_cold_entry_stays_so() {
    let disk = saved_numbers(5);
    for saves in 0..3 {
        let cache: AsyncCache<u64, u64> = open(&disk);
        if saves == 0 {
            cache.set(0, 1);
            cache.delete(&1);
            cache.delete(&2);
            let load = || async { Ok::<_, ()>(22) };
            assert_eq!(one_thread().block_on(cache.get_or_load(&2, load)).unwrap(), 22);
        }
        assert_eq!([0, 1, 2, 3].map(|key| cache.get(&key)), [Some(1), None, Some(22), Some(30)]);
        assert_eq!((cache.len(), cache.contains(&1), cache.contains(&4)), (4, false, true));
        assert_eq!(cache.save_to_backup().unwrap().entries, 4);
    }
}

#[test]
fn what_is_not_saved_is_found_as_it_was() {
    let disk = saved_numbers(3);
    let cache: AsyncCache<u64, u64> = open(&disk);
    cache.set(0, 1);
    cache.delete(&1);
    cache.clear();
    drop(cache);
    let cache: AsyncCache<u64, u64> = open(&disk);
    assert_eq!([0, 1, 2].map(|key| cache.get(&key)), [Some(0), Some(10), Some(20)]);
}

#[test]
fn a_cleared_cache_is_empty_in_the_next_life_too() {
    let disk = saved_numbers(100);
    let cache: AsyncCache<u64, u64> = open(&disk);
    assert_eq!(cache.get(&1), Some(10));
    cache.clear();
    assert_eq!((cache.len(), cache.get(&1), cache.get(&2), cache.contains(&3)), (0, None, None, false));
    cache.set(2, 21);
    assert_eq!(cache.save_to_backup().unwrap().entries, 1);
    let cache: AsyncCache<u64, u64> = open(&disk);
    assert_eq!((cache.len(), cache.get(&2)), (1, Some(21)));
}

#[test]
fn a_cold_entry_does_not_come_back_when_its_hot_version_is_evicted() {
    for replaced in [true, false] {
        let disk = saved_numbers(2);
        let small = || life::<u64, u64>(&disk, 0).0.maxsize(2).shards(1).eviction(Eviction::Lru);
        let cache = small().build().unwrap();
        if replaced {
            cache.set(1, 11);
        } else {
            assert_eq!(cache.get(&1), Some(10));
        }
        cache.set(100, 0);
        cache.set(101, 0);
        assert_eq!((cache.get(&1), cache.contains(&1), cache.len()), (None, false, 2));
        cache.save_to_backup().unwrap();
        let cache = small().build().unwrap();
        assert_eq!((cache.get(&1), cache.len()), (None, 2));
    }
}

/// Counts how often a value is read from a file.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Counted(u64);

static DECODED: AtomicUsize = AtomicUsize::new(0);

impl<'de> Deserialize<'de> for Counted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        DECODED.fetch_add(1, SeqCst);
        u64::deserialize(deserializer).map(Self)
    }
}

#[test]
fn what_is_not_touched_is_copied_and_never_decoded() {
    let disk = saved_numbers(300);
    let before = disk.bytes(Path::new(PATH)).unwrap().len();
    for _ in 0..2 {
        let cache: AsyncCache<u64, Counted> = open(&disk);
        let saved = cache.save_to_backup().unwrap();
        assert_eq!((saved.entries, saved.bytes, cache.stats().cold), (300, before as u64, 300));
        assert_eq!(DECODED.load(SeqCst), 0);
    }
    assert_eq!(open(&disk).get(&299_u64), Some(Counted(2990)));
    assert_eq!(DECODED.load(SeqCst), 1);
}
