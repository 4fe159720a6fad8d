//! Sizes, the order of eviction, and times to live.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use super::{Cache, builder, cache, loaded};
use crate::stage::{Loads, one_thread, within_limit};
use async_cache::{AsyncCache, Clock, Eviction};

#[test]
fn a_cache_of_size_zero_stores_nothing_and_shares_loads_all_the_same() {
    within_limit(|| {
        one_thread().block_on(async {
            let (cache, loads): (Cache, _) =
                (AsyncCache::builder().maxsize(0).build().unwrap(), Loads::new());
            cache.set(1, 1);
            assert_eq!((cache.get(&1), cache.contains(&1), cache.len()), (None, false, 0));
            let (first, second) = (loads.load(Ok::<_, Infallible>(1)), loads.load(Ok::<_, Infallible>(2)));
            loads.let_end(2);
            let (first, second) = tokio::join!(cache.get_or_load(&1, first), cache.get_or_load(&1, second));
            assert_eq!((first.unwrap(), second.unwrap(), loads.started()), (1, 1, 1));
            assert_eq!((cache.get(&1), cache.len(), cache.stats().evictions), (None, 0, 0));
        });
    });
}

#[test]
fn a_cache_of_size_one_keeps_the_last_one() {
    for eviction in [Eviction::Lru, Eviction::Adaptive] {
        let cache: Cache = AsyncCache::builder().maxsize(1).shards(8).eviction(eviction).build().unwrap();
        for key in 0..5 {
            cache.set(key, key);
            assert_eq!((cache.get(&key), cache.len()), (Some(key), 1));
        }
        assert_eq!(cache.stats().evictions, 4);
    }
}

#[test]
fn an_unlimited_cache_evicts_nothing() {
    let cache = cache();
    (0..20_000).for_each(|key| cache.set(key, key));
    assert!((0..20_000).all(|key| cache.get(&key) == Some(key)));
    assert_eq!((cache.len(), cache.stats().evictions), (20_000, 0));
}

#[test]
fn the_shards_of_a_cache_hold_maxsize_together() {
    for (maxsize, shards) in [(10, 3), (100, 7), (5, 100), (1000, 1)] {
        let cache: Cache = AsyncCache::builder().maxsize(maxsize).shards(shards).build().unwrap();
        (0..20 * maxsize as u64).for_each(|key| cache.set(key, key));
        assert_eq!(cache.len(), maxsize, "{shards} shards");
        assert_eq!(cache.stats().evictions, 19 * maxsize as u64);
    }
}

#[test]
fn least_recently_used_is_exact_with_one_shard() {
    let cache: Cache = AsyncCache::builder().maxsize(3).shards(1).eviction(Eviction::Lru).build().unwrap();
    (0..3).for_each(|key| cache.set(key, key));
    assert_eq!(cache.get(&0), Some(0));
    cache.set(1, 11); // a write counts as a use
    assert!(cache.contains(&2), "and this is none");
    cache.set(3, 3);
    assert_eq!([0, 1, 2, 3].map(|key| cache.contains(&key)), [true, true, false, true]);
    cache.set(4, 4);
    assert_eq!([0, 1, 3, 4].map(|key| cache.contains(&key)), [false, true, true, true]);
}

#[test]
fn contains_is_no_use_of_an_entry_and_counts_nothing() {
    for eviction in [Eviction::Lru, Eviction::Adaptive] {
        let cache: Cache = AsyncCache::builder().maxsize(2).shards(1).eviction(eviction).build().unwrap();
        cache.set(1, 1);
        cache.set(2, 2);
        for _ in 0..10 {
            assert!(cache.contains(&1) && !cache.contains(&3));
        }
        cache.set(3, 3);
        assert_eq!([1, 2, 3].map(|key| cache.contains(&key)), [false, true, true]);
        assert_eq!((cache.metrics().hits, cache.metrics().misses), (0, 0));
    }
}

#[test]
fn an_entry_that_is_used_outlives_those_that_are_not() {
    let cache: Cache = AsyncCache::builder().maxsize(20).shards(1).build().unwrap();
    cache.set(1, 1);
    for key in 100..1000 {
        assert_eq!(cache.get(&1), Some(1), "pushed out by {key}");
        cache.set(key, key);
    }
}

// Time to live

#[test]
fn an_entry_lives_for_the_default_or_its_own_time() {
    let (builder, hands) = builder();
    let cache = builder.default_ttl(Duration::from_secs(10)).build().unwrap();
    cache.set(1, 1);
    cache.set_with_ttl(2, 2, Some(Duration::from_secs(20)));
    cache.set_with_ttl(3, 3, None);
    let there = || [1, 2, 3].map(|key| cache.get(&key).is_some());
    hands.advance(Duration::new(9, 999_999_999));
    assert_eq!(there(), [true, true, true]);
    hands.advance(Duration::from_nanos(1));
    assert_eq!(there(), [false, true, true]);
    hands.advance(Duration::from_secs(10));
    assert_eq!(there(), [false, false, true]);
    hands.advance(Duration::from_secs(1 << 30));
    assert_eq!((there(), cache.len()), ([false, false, true], 1));
}

#[test]
fn a_time_to_live_of_a_load_counts_from_its_end() {
    within_limit(|| {
        let (builder, hands) = builder();
        let cache = builder.default_ttl(Duration::from_secs(5)).build().unwrap();
        one_thread().block_on(async {
            let at_load = hands.clone();
            let slow = move || async move {
                at_load.advance(Duration::from_secs(100));
                Ok::<_, ()>(1)
            };
            cache.get_or_load(&1, slow.clone()).await.unwrap();
            cache.get_or_load_with_ttl(&2, Some(Duration::from_secs(110)), slow.clone()).await.unwrap();
            cache.get_or_load_with_ttl(&3, None, slow).await.unwrap();
        });
        // The second load took longer than the life of the first entry.
        assert_eq!([1, 2, 3].map(|key| cache.contains(&key)), [false, true, true]);
        hands.advance(Duration::from_secs(10));
        assert_eq!([2, 3].map(|key| cache.contains(&key)), [false, true]);
    });
}

#[test]
fn a_time_to_live_of_zero_expires_at_once_and_takes_away_what_was_there() {
    let (builder, _) = builder();
    let cache = builder.build().unwrap();
    cache.set(1, 1);
    cache.set_with_ttl(1, 2, Some(Duration::ZERO));
    assert_eq!((cache.get(&1), cache.contains(&1), cache.len()), (None, false, 0));
    let cache: Cache = AsyncCache::builder().default_ttl(Duration::ZERO).build().unwrap();
    cache.set(1, 1);
    assert_eq!((cache.get(&1), cache.len()), (None, 0));
    within_limit(move || {
        assert_eq!(
            one_thread().block_on(loaded(&cache, 1, Ok(3))).unwrap(),
            3,
            "the caller gets it all the same"
        );
        assert_eq!(cache.get(&1), None);
    });
}

#[test]
fn a_time_to_live_beyond_the_clock_is_for_ever() {
    let (builder, hands) = builder();
    let cache = builder.default_ttl(Duration::MAX).build().unwrap();
    cache.set(1, 1);
    hands.advance(Duration::from_secs(1 << 33));
    assert_eq!(cache.get(&1), Some(1));
}

#[test]
fn setting_a_key_again_gives_it_a_new_life() {
    let (builder, hands) = builder();
    let cache = builder.default_ttl(Duration::from_secs(10)).build().unwrap();
    cache.set(1, 1);
    hands.advance(Duration::from_secs(9));
    cache.set(1, 2);
    hands.advance(Duration::from_secs(9));
    assert_eq!(cache.get(&1), Some(2));
    cache.set_with_ttl(1, 3, None);
    hands.advance(Duration::from_secs(1000));
    assert_eq!(cache.get(&1), Some(3));
}

#[test]
fn expired_entries_are_reclaimed_by_later_writes_though_nobody_asks_for_them() {
    let value = Arc::new(());
    let (clock, hands) = Clock::manual();
    let cache: AsyncCache<u64, Arc<()>> = AsyncCache::builder().clock(clock).shards(1).build().unwrap();
    for key in 0..1000 {
        cache.set_with_ttl(key, Arc::clone(&value), Some(Duration::from_secs(1)));
    }
    hands.advance(Duration::from_secs(2));
    let other = Arc::new(());
    (1000..2000).for_each(|key| cache.set(key, Arc::clone(&other)));
    assert_eq!(Arc::strong_count(&value), 1);
}
