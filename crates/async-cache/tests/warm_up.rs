//! Warming up: which keys are loaded, how many at a time, and the state after a cancellation.

use std::future::{Future, IntoFuture};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use crate::stage::{Loads, on_both_runtimes, poll_once, until};
use async_cache::{AsyncCache, Clock, DiskBackend, LoadError};

type Cache = AsyncCache<u32, u32>;

fn cache() -> Cache {
    AsyncCache::builder().build().unwrap()
}

/// Ten times the key, when the test says.
fn tenfold(
    loads: &Arc<Loads>,
) -> impl Fn(u32) -> std::pin::Pin<Box<dyn Future<Output = Result<u32, String>> + Send>> + Send + Sync + 'static
{
    let loads = Arc::clone(loads);
    move |key| loads.load(Ok(key * 10))()
}

on_both_runtimes! {
    async fn what_is_missing_is_loaded_and_what_is_there_is_left_alone() {
        let (cache, loads) = (cache(), Loads::new());
        cache.set(2, 2);
        loads.let_end(3);
        let report = cache.warm_up([1, 2, 3, 4], tenfold(&loads)).await;
        assert_eq!((report.loaded, report.already_there, report.errors.len()), (3, 1, 0));
        assert_eq!([1, 2, 3, 4].map(|key| cache.get(&key).unwrap()), [10, 2, 30, 40]);
        assert_eq!((loads.started(), cache.stats().hits), (3, 4), "looking is no use and no hit");
    }

    async fn errors_and_panics_are_collected_and_stop_nothing() {
        let cache = cache();
        let load = |key: u32| async move {
            assert_ne!(key, 3, "three is too many");
            if key == 2 { Err("no 2".to_owned()) } else { Ok(key) }
        };
        let report = cache.warm_up(1..=4, load).concurrency(1).await;
        assert_eq!((report.loaded, cache.len()), (2, 2));
        let errors: Vec<_> = report.errors.iter().map(|(key, error)| (*key, error.to_string())).collect();
        assert_eq!(errors[0], (2, "no 2".to_owned()));
        assert_eq!(errors[1].0, 3);
        assert!(errors[1].1.contains("three is too many"), "{errors:?}");
    }

    async fn no_more_loads_run_at_once_than_asked_for_and_as_many() {
        let (cache, loads) = (cache(), Loads::new());
        let mut warming = cache.warm_up(0..10, tenfold(&loads)).concurrency(3).into_future();
        assert!(poll_once(&mut warming).is_pending());
        until(|| loads.running() == 3).await;
        loads.let_end(10);
        assert_eq!((warming.await.loaded, loads.started(), loads.peak()), (10, 10, 3));
    }

    async fn a_concurrency_of_zero_loads_one_after_another() {
        let (cache, loads) = (cache(), Loads::new());
        loads.let_end(3);
        assert_eq!(cache.warm_up(0..3, tenfold(&loads)).concurrency(0).await.loaded, 3);
        assert_eq!(loads.peak(), 1);
    }

    async fn progress_counts_every_key_once() {
        let (cache, loads, seen) = (cache(), Loads::new(), Mutex::new(Vec::new()));
        cache.set(1, 1);
        loads.let_end(2);
        cache.warm_up(0..3, tenfold(&loads)).on_progress(|done, total| seen.lock().unwrap().push((done, total))).await;
        assert_eq!(*seen.lock().unwrap(), [(1, 3), (2, 3), (3, 3)]);
    }

    async fn it_may_go_on_in_a_task_of_its_own() {
        let (cache, loads) = (cache(), Loads::new());
        loads.let_end(2);
        let warms = cache.clone();
        let load = tenfold(&loads);
        let warming = tokio::spawn(async move { warms.warm_up(0..2, load).await.loaded });
        assert_eq!((warming.await.unwrap(), cache.len()), (2, 2));
    }

    async fn no_keys_are_done_at_once() {
        let report = cache().warm_up([], tenfold(&Loads::new())).await;
        assert_eq!((report.loaded, report.already_there, report.errors.len()), (0, 0, 0));
    }

    async fn a_key_that_is_there_twice_is_loaded_once() {
        let (cache, loads) = (cache(), Loads::new());
        loads.let_end(1);
        let report = cache.warm_up([1, 1], tenfold(&loads)).await;
        assert_eq!((report.loaded + report.already_there, loads.started()), (2, 1));
    }

    async fn it_shares_the_load_of_who_asks_meanwhile() {
        let (cache, loads, others) = (cache(), Loads::new(), Loads::new());
        let mut other = Box::pin(cache.get_or_load(&1, others.load(Ok::<_, String>(7))));
        assert!(poll_once(&mut other).is_pending());
        let mut warming = cache.warm_up([1], tenfold(&loads)).into_future();
        assert!(poll_once(&mut warming).is_pending());
        others.let_end(1);
        assert_eq!((other.await.unwrap(), warming.await.loaded, loads.started()), (7, 1, 0));
    }

    async fn cancelled_it_leaves_what_was_loaded_and_drops_what_was_being_loaded() {
        let (cache, loads) = (cache(), Loads::new());
        let mut warming = cache.warm_up(0..4, tenfold(&loads)).concurrency(2).into_future();
        assert!(poll_once(&mut warming).is_pending());
        loads.let_end(1);
        until(|| cache.len() == 1).await;
        assert!(poll_once(&mut warming).is_pending());
        until(|| loads.started() == 3).await;
        drop(warming);
        until(|| loads.running() == 0).await;
        assert_eq!((loads.started(), cache.len()), (3, 1));
    }

    async fn a_loader_that_warms_up_its_own_key_gets_an_error_that_names_it() {
        let cache = cache();
        let again = cache.clone();
        let load = move || async move {
            let mut report = again.warm_up([1], |_| async { Ok::<u32, String>(7) }).await;
            Err::<u32, _>(report.errors.remove(0).1.to_string())
        };
        let error = cache.get_or_load(&1, load).await.unwrap_err();
        assert!(error.to_string().contains("the loader of key 1 asked for the key that it is loading"), "{error}");
    }

    async fn what_is_loaded_lives_as_long_as_it_says() {
        let (clock, hands) = Clock::manual();
        let cache: Cache = AsyncCache::builder().clock(clock).build().unwrap();
        let loads = Loads::new();
        loads.let_end(1);
        cache.warm_up([1], tenfold(&loads)).ttl(Some(Duration::from_secs(1))).await;
        assert!(cache.contains(&1));
        hands.advance(Duration::from_secs(1));
        assert!(!cache.contains(&1));
    }

    async fn cold_entries_are_there_and_stay_cold() {
        let folder = tempfile::tempdir().unwrap();
        let disk = DiskBackend::new(folder.path().join("it.cache"));
        let first: Cache = AsyncCache::builder().backup(disk.clone()).build().unwrap();
        first.set(1, 1);
        first.save_to_backup().unwrap();
        let (cache, loads): (Cache, _) = (AsyncCache::builder().backup(disk).build().unwrap(), Loads::new());
        loads.let_end(1);
        let report = cache.warm_up([1, 2], tenfold(&loads)).await;
        assert_eq!((report.already_there, report.loaded, cache.stats().cold), (1, 1, 1));
    }
}

#[test]
fn outside_of_a_runtime_every_missing_key_is_an_error() {
    let (cache, loads) = (cache(), Loads::new());
    cache.set(2, 2);
    let mut warming = cache.warm_up([1, 2], tenfold(&loads)).into_future();
    let Poll::Ready(report) = poll_once(&mut warming) else { panic!("it waits for ever") };
    assert_eq!((report.loaded, report.already_there), (0, 1));
    assert!(matches!(report.errors[..], [(1, LoadError::NoRuntime)]), "{report:?}");
}
