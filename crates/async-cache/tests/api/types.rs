//! What may be sent to other threads, what is printed, and what a dropped value may do.

use std::convert::Infallible;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Cache, cache};
use crate::stage::{Loads, one_thread, poll_once, until, within_limit};
use async_cache::{
    AsyncCache, BackupError, BuildError, Builder, Clock, DiskBackend, LoadError, ManualClock, Metrics,
    Opening, Saved, Stats,
};
use async_cache_disk::fake::FakeDisk;

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
