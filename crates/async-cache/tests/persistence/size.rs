//! The order of use and the size of a cache whose entries are still in the file.

use super::{life, open, saved_numbers, there};
use async_cache::{AsyncCache, Eviction};
use async_cache_disk::fake::FakeDisk;

#[test]
fn the_most_recently_used_remain_in_a_smaller_cache() {
    let disk = FakeDisk::new();
    let exact = |maxsize| life::<u64, u64>(&disk, 0).0.maxsize(maxsize).shards(1).eviction(Eviction::Lru);
    let cache = exact(10).build().unwrap();
    (0..10).for_each(|key| cache.set(key, key));
    assert_eq!((cache.get(&2), cache.get(&0)), (Some(2), Some(0)));
    cache.save_to_backup().unwrap();

    let cache = exact(4).build().unwrap();
    assert_eq!((there(&cache, 10), cache.len(), cache.opening().entries), (vec![0, 2, 8, 9], 4, 4));
    // The coldest first: 8, 9, 2, 0; but then 9 is used.
    assert_eq!(cache.get(&9), Some(9));
    for (new, left) in [(10, vec![0, 2, 9, 10]), (11, vec![0, 9, 10, 11]), (12, vec![9, 10, 11, 12])] {
        cache.set(new, new);
        assert_eq!((there(&cache, 20), cache.len()), (left, 4));
    }
    cache.set(13, 13);
    assert_eq!(there(&cache, 20), [10, 11, 12, 13], "now that none is cold, hot ones go");
    assert_eq!(cache.stats().evictions, 4);
}

#[test]
fn order_survives_several_lives_of_hot_and_cold_entries() {
    let disk = saved_numbers(8);
    let exact = |maxsize| life::<u64, u64>(&disk, 0).0.maxsize(maxsize).shards(1).eviction(Eviction::Lru);
    for used in [3, 0, 5] {
        let cache = exact(8).build().unwrap();
        assert_eq!(cache.get(&used), Some(used * 10));
        assert_eq!(cache.save_to_backup().unwrap().entries, 8);
    }
    // 1 2 4 6 7 3 0 5
    assert_eq!(there(&exact(5).build().unwrap(), 8), [0, 3, 5, 6, 7]);
    assert_eq!(there(&exact(2).build().unwrap(), 8), [0, 5]);
}

#[test]
fn by_default_what_was_used_remains_in_a_smaller_cache() {
    let disk = FakeDisk::new();
    let cache = life(&disk, 0).0.maxsize(1000).shards(4).build().unwrap();
    (0..200_u64).for_each(|key| cache.set(key, key));
    for key in (0..200).step_by(10) {
        assert_eq!((cache.get(&key), cache.get(&key)), (Some(key), Some(key)));
    }
    cache.save_to_backup().unwrap();
    let cache: AsyncCache<u64, u64> = life(&disk, 0).0.maxsize(80).build().unwrap();
    assert_eq!(cache.len(), 80);
    assert!((0..200).step_by(10).all(|key| cache.contains(&key)), "{:?}", there(&cache, 200));
}

#[test]
fn sizes_count_cold_entries() {
    let disk = saved_numbers(50);
    let cache: AsyncCache<u64, u64> = open(&disk);
    assert_eq!((cache.len(), cache.metrics().size, cache.stats().cold), (50, 50, 50));
    assert_eq!(cache.get(&7), Some(70));
    cache.set(8, 0);
    cache.set(100, 0);
    assert_eq!((cache.len(), cache.metrics().size, cache.stats().cold), (51, 51, 48));
}

#[test]
fn a_cache_of_size_zero_opens_nothing_and_saves_nothing() {
    let disk = saved_numbers(3);
    let cache: AsyncCache<u64, u64> = life(&disk, 0).0.maxsize(0).build().unwrap();
    assert_eq!((cache.get(&1), cache.contains(&1), cache.len()), (None, false, 0));
    assert_eq!(cache.save_to_backup().unwrap().entries, 0);
}

#[test]
fn with_several_shards_maxsize_counts_what_is_hot_and_cold_in_all_of_them() {
    let disk = saved_numbers(64);
    let cache: AsyncCache<u64, u64> = life(&disk, 0).0.maxsize(64).shards(8).build().unwrap();
    for key in 1000..1032 {
        cache.set(key, key);
        assert_eq!(cache.len(), 64);
    }
    assert_eq!(there(&cache, 64), (32..64).collect::<Vec<_>>(), "the coldest made room");
    // By now shards hold more or less than their shares. They shrink when the last cold entry has
    // left.
    for key in 2000..3000 {
        cache.set(key, key);
        assert!(cache.len() <= 64, "{}", cache.len());
    }
}
