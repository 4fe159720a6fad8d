//! The cache without its file: sizes, time to live, counters, `Send` and `Sync`, and the use of a
//! cache by dropped values.

use std::convert::Infallible;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::stage::{Loads, one_thread, poll_once, until, within_limit};
use async_cache::{
    AsyncCache, BackupError, BuildError, Builder, Clock, DiskBackend, Eviction, LoadError, ManualClock,
    Metrics, Opening, Saved, Stats,
};
use async_cache_disk::fake::FakeDisk;

type Cache = AsyncCache<u64, u64>;

fn builder() -> (Builder<u64, u64>, ManualClock) {
    let (clock, hands) = Clock::manual();
    (AsyncCache::builder().clock(clock), hands)
}

fn cache() -> Cache {
    AsyncCache::builder().build().unwrap()
}

async fn loaded(cache: &Cache, key: u64, value: Result<u64, ()>) -> Result<u64, LoadError<()>> {
    cache.get_or_load(&key, move || async move { value }).await
}

// Sizes

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

// Counters

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

// `Send` and `Sync`

fn goes_anywhere<T: Send + Sync + 'static>() {}
fn may_be_sent(_: &(impl Send + 'static)) {}

#[test]
fn caches_results_and_futures_may_cross_threads() {
    goes_anywhere::<Cache>();
    goes_anywhere::<AsyncCache<String, Arc<str>>>();
    goes_anywhere::<Builder<u64, u64>>();
    goes_anywhere::<LoadError<String>>();
    goes_anywhere::<(BackupError, BuildError, Stats, Metrics, Saved, Opening, DiskBackend, Clock, ManualClock)>(
    );

    let cache: AsyncCache<String, u64> = AsyncCache::builder().build().unwrap();
    let handle = cache.clone();
    may_be_sent(&async move {
        handle.get_or_load("key", || async { Ok::<_, Infallible>(1) }).await.unwrap();
        handle.save_to_backup_async().await.unwrap();
    });
    // The loader's future need not be `Sync`, nor the loader callable twice.
    let handle = cache.clone();
    let (once, cell) = (String::new(), std::cell::Cell::new(1_u64));
    may_be_sent(&async move {
        let load = move || {
            drop(once);
            async move { Ok::<_, Infallible>(cell.get()) }
        };
        handle.get_or_load("key", load).await.unwrap();
    });
}

#[test]
fn a_future_of_a_hit_is_small() {
    let cache = cache();
    let future = cache.get_or_load(&1, || async { Ok::<_, Infallible>(1) });
    assert!(size_of_val(&future) <= 256, "{}", size_of_val(&future));
    drop(future);
}

#[test]
fn errors_are_errors_whatever_the_loader_fails_with() {
    fn is_error<E: std::error::Error + Send + Sync + 'static>() {}
    is_error::<LoadError<std::io::Error>>();
    is_error::<LoadError<Box<dyn std::error::Error + Send + Sync>>>();
    is_error::<BackupError>();
    is_error::<BuildError>();
    let error: LoadError<String> = LoadError::Recursive { key: "7".into() };
    assert_eq!(error.clone().to_string(), error.to_string());
    assert!(error.loader_error().is_none());
}

#[test]
fn debug_of_a_cache_tells_how_it_was_made_and_not_what_is_in_it() {
    let secret: AsyncCache<String, String> = AsyncCache::builder()
        .maxsize(77)
        .backup(DiskBackend::new("/cache").vfs(FakeDisk::new().as_vfs()).version("v9"))
        .build()
        .unwrap();
    secret.set("the key".into(), "the value".into());
    let text = format!("{secret:?}");
    assert!(text.contains("77") && text.contains("/cache") && text.contains("v9"), "{text}");
    assert!(!text.contains("the key") && !text.contains("the value"), "{text}");
    let text = format!("{:?}", AsyncCache::<u64, u64>::builder().maxsize(77));
    assert!(text.contains("77"), "{text}");
    assert!(!format!("{:?}", LoadError::<String>::NoRuntime).is_empty());
}

#[test]
fn clones_are_the_same_cache() {
    let cache = cache();
    let other = cache.clone();
    cache.set(1, 1);
    assert_eq!(other.get(&1), Some(1));
    drop(cache);
    assert_eq!((other.get(&1), other.metrics().hits), (Some(1), 2));
}

// A dropped value may use the cache, so values are dropped with no lock held

/// Reads from the cache when it is dropped.
#[derive(Clone)]
struct Looks(u64, Arc<Mutex<Option<AsyncCache<Looks, Looks>>>>);

impl PartialEq for Looks {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Looks {}

impl Hash for Looks {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl std::fmt::Debug for Looks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Drop for Looks {
    fn drop(&mut self) {
        // Taken out for the duration, so that a nested drop does not read.
        let Some(cache) = self.1.try_lock().ok().and_then(|mut cache| cache.take()) else { return };
        cache.len();
        *self.1.lock().unwrap() = Some(cache);
    }
}

#[test]
fn keys_and_values_and_loads_may_use_the_cache_when_they_are_dropped() {
    within_limit(|| {
        let slot = Arc::new(Mutex::new(None));
        let looks = |number| Looks(number, Arc::clone(&slot));
        let (clock, hands) = Clock::manual();
        let cache = AsyncCache::builder().clock(clock).maxsize(3).shards(1).build().unwrap();
        *slot.lock().unwrap() = Some(cache.clone());
        for key in [1, 1, 2, 3, 4, 5] {
            cache.set(looks(key), looks(key)); // replaces, evicts
        }
        cache.set_with_ttl(looks(6), looks(6), Some(Duration::ZERO));
        cache.set_with_ttl(looks(7), looks(7), Some(Duration::from_secs(1)));
        hands.advance(Duration::from_secs(2));
        cache.delete(&looks(5));
        cache.delete(&looks(8));
        one_thread().block_on(async {
            let loads = Loads::new();
            let call = |key: u64| {
                let (cache, captured, load) =
                    (cache.clone(), looks(key), loads.load(Ok::<_, ()>(looks(key))));
                let load = move || {
                    let loading = load();
                    async move {
                        let _captured = captured;
                        loading.await
                    }
                };
                let key = looks(key);
                Box::pin(async move { cache.get_or_load(&key, load).await })
            };
            // Four callers: a leader, a joiner, an overtaken caller, a stopped caller.
            let (mut leader, mut joiner, mut fenced, mut stopped) = (call(10), call(10), call(11), call(12));
            assert!(poll_once(&mut leader).is_pending() && poll_once(&mut joiner).is_pending());
            assert!(poll_once(&mut fenced).is_pending() && poll_once(&mut stopped).is_pending());
            until(|| loads.started() == 3).await;
            cache.delete(&looks(11));
            drop(stopped);
            loads.let_end(2);
            let (leader, joiner, fenced) = tokio::join!(leader, joiner, fenced);
            assert_eq!((leader.unwrap().0, joiner.unwrap().0, fenced.unwrap().0), (10, 10, 11));
            assert_eq!(loads.running(), 0);
        });
        cache.clear();
        assert!(cache.is_empty());
        slot.lock().unwrap().take();
    });
}
