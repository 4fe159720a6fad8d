//! What is counted.

use std::time::Duration;

use super::{Cache, builder, loaded};
use crate::stage::{Loads, one_thread, poll_once, until, within_limit};
use async_cache::{AsyncCache, Clock, DiskBackend, Eviction, ManualClock, Metrics, Stats};
use async_cache_disk::fake::FakeDisk;

fn stats_after(work: impl AsyncFnOnce(&Cache, &ManualClock)) -> Stats {
    let (builder, hands) = builder();
    let cache = builder.maxsize(100).shards(1).build().unwrap();
    one_thread().block_on(work(&cache, &hands));
    cache.stats()
}

#[test]
fn hits_and_misses_and_their_share_are_counted() {
    let stats = stats_after(async |cache, _| {
        assert!(cache.metrics().hit_rate.abs() < f64::EPSILON);
        cache.set(1, 1);
        for key in [1, 1, 1, 2] {
            cache.get(&key);
        }
        let Metrics { hits, misses, size, hit_rate, .. } = cache.metrics();
        assert_eq!((hits, misses, size), (3, 1, 1));
        assert!((hit_rate - 0.75).abs() < f64::EPSILON);
        loaded(cache, 1, Err(())).await.unwrap();
        loaded(cache, 2, Ok(2)).await.unwrap();
    });
    assert_eq!((stats.hits, stats.misses, stats.size), (4, 2, 2));
    assert!((stats.hit_rate() - 4.0 / 6.0).abs() < 1e-9);
}

#[test]
fn hits_of_an_exact_order_and_of_many_threads_are_all_counted() {
    for eviction in [Eviction::Lru, Eviction::Adaptive] {
        let cache: Cache = AsyncCache::builder().eviction(eviction).build().unwrap();
        cache.set(1, 1);
        std::thread::scope(|scope| {
            for _ in 0..40 {
                scope.spawn(|| {
                    (0..500).for_each(|key| assert_eq!(cache.get(&(key % 2)).is_some(), key % 2 == 1));
                });
            }
        });
        assert_eq!((cache.metrics().hits, cache.metrics().misses), (10_000, 10_000));
    }
}

#[test]
fn loads_their_errors_and_their_time_are_counted() {
    let stats = stats_after(async |cache, hands| {
        let hands = hands.clone();
        let slow = move || async move {
            hands.advance(Duration::from_secs(3));
            Ok::<_, ()>(1)
        };
        cache.get_or_load(&1, slow.clone()).await.unwrap();
        loaded(cache, 2, Err(())).await.unwrap_err();
        let failing = move || async move { slow().await.and(Err::<u64, _>(())) };
        cache.get_or_load(&3, failing).await.unwrap_err();
        let panics = || async { std::panic::resume_unwind(Box::new("quietly")) };
        cache.get_or_load::<_, _, _, ()>(&4, panics).await.unwrap_err();
    });
    assert_eq!((stats.loads, stats.load_errors, stats.load_time), (4, 3, Duration::from_secs(6)));
}

#[test]
fn a_load_without_an_answer_is_an_error_that_is_counted() {
    let stats = stats_after(async |cache, _| {
        let mut call = Box::pin(loaded(cache, 1, Ok(1)));
        assert!(poll_once(&mut call).is_pending());
    });
    assert_eq!((stats.loads, stats.load_errors, stats.misses), (1, 1, 1));
}

#[test]
fn joined_callers_and_fenced_flights_are_counted() {
    within_limit(|| {
        let stats = stats_after(async |cache, _| {
            let loads = Loads::new();
            let call = |key| {
                let load = loads.load(Ok::<_, ()>(1));
                let mut call = Box::pin(async move { cache.get_or_load(&key, load).await });
                assert!(poll_once(&mut call).is_pending());
                call
            };
            let calls = [call(1), call(1), call(1), call(2)];
            until(|| loads.started() == 2).await;
            cache.set(1, 5);
            cache.delete(&2);
            cache.delete(&2);
            cache.delete(&3);
            loads.let_end(2);
            for call in calls {
                call.await.unwrap();
            }
        });
        assert_eq!((stats.loads, stats.joined, stats.fenced, stats.misses), (2, 2, 2, 4));
    });
}

#[test]
fn evictions_and_expirations_are_counted() {
    let stats = stats_after(async |cache, hands| {
        (0..110).for_each(|key| cache.set(key, key));
        cache.set_with_ttl(200, 1, Some(Duration::from_secs(1)));
        hands.advance(Duration::from_secs(2));
        cache.delete(&109);
    });
    assert_eq!((stats.evictions, stats.expirations, stats.size), (11, 1, 98));
}

#[test]
fn what_the_snapshot_gave_and_could_not_give_and_saves_are_counted() {
    let disk = FakeDisk::new();
    let backup = || DiskBackend::new("/cache").vfs(disk.as_vfs());
    let (clock, hands) = Clock::manual();
    let cache: Cache = AsyncCache::builder().clock(clock.clone()).backup(backup()).build().unwrap();
    (0..5).for_each(|key| cache.set(key, key));
    cache.set_with_ttl(5, 5, Some(Duration::from_secs(1)));
    cache.save_to_backup().unwrap();
    cache.save_to_backup().unwrap();
    assert_eq!((cache.stats().saves, cache.stats().cold), (2, 0));

    let cache: Cache = AsyncCache::builder().clock(clock.clone()).backup(backup()).build().unwrap();
    assert_eq!((cache.stats().size, cache.stats().cold), (6, 6));
    cache.get(&1);
    cache.get(&1);
    hands.advance(Duration::from_secs(1));
    let stats = cache.stats();
    assert_eq!((stats.hits, stats.cold_hits, stats.size, stats.cold, stats.expirations), (2, 1, 5, 4, 1));

    let cache: AsyncCache<u64, String> = AsyncCache::builder().clock(clock).backup(backup()).build().unwrap();
    cache.get(&1);
    cache.get(&2);
    let stats = cache.stats();
    assert_eq!((stats.undecodable, stats.misses, stats.cold_hits), (2, 2, 0));
    cache.clear();
    assert_eq!(cache.stats(), Stats::default());
}

#[test]
fn clear_sets_every_counter_to_zero() {
    let stats = stats_after(async |cache, _| {
        (0..110).for_each(|key| cache.set(key, key));
        cache.get(&109);
        cache.get(&1000);
        loaded(cache, 2000, Ok(1)).await.unwrap();
        loaded(cache, 2001, Err(())).await.unwrap_err();
        assert_ne!(cache.stats(), Stats::default());
        cache.clear();
    });
    assert_eq!(stats, Stats::default());
}

#[test]
fn a_write_is_neither_a_hit_nor_a_miss() {
    let stats = stats_after(async |cache, _| {
        cache.set(1, 1);
        cache.set(1, 2);
        cache.delete(&1);
        cache.delete(&1);
        assert!(cache.is_empty());
    });
    assert_eq!(stats, Stats::default());
}
