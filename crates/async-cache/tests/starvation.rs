//! A caller whose loader would succeed is answered, even if many loads of its key do not help it.
//!
//! The story: a task asked again and again for a key, with a loader that failed with another type
//! of error, or with a batch loader without a value. On a single-threaded runtime the task was
//! woken first after each load and began the next one, and a caller with its own loader joined that
//! load, and the next, for ever. Now a caller for which a load had no result joins only loads of
//! its own kind, and fences others to load with its own loader.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use crate::stage::{Loads, on_both_runtimes, poll_once, until};
use async_cache::{AsyncCache, BatchLoader, LoadError};
use tokio::task::JoinHandle;

type Cache = AsyncCache<u32, u32>;

#[derive(Debug, PartialEq)]
struct OtherError;

fn cache() -> Cache {
    AsyncCache::builder().build().unwrap()
}

/// A task that never stops asking for key 1 with a failing loader; and the number of its loads.
fn fails_for_ever(cache: &Cache) -> (JoinHandle<()>, Arc<AtomicUsize>) {
    let (cache, begun) = (cache.clone(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&begun);
    let asks = async move {
        loop {
            let count = Arc::clone(&count);
            let fails = move || async move {
                count.fetch_add(1, SeqCst);
                tokio::task::yield_now().await;
                Err::<u32, _>(OtherError)
            };
            if cache.get_or_load(&1, fails).await.is_ok() {
                tokio::task::yield_now().await;
            }
        }
    };
    (tokio::spawn(asks), begun)
}

/// The same with a batch loader that has no value.
fn has_nothing_for_ever(cache: &Cache) -> (JoinHandle<()>, Arc<AtomicUsize>) {
    let begun = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&begun);
    let nothing = move |_: Vec<u32>| {
        count.fetch_add(1, SeqCst);
        async { Ok::<_, OtherError>(HashMap::<u32, u32>::new()) }
    };
    let batch = BatchLoader::builder(cache).window(Duration::ZERO).build(nothing);
    let asks = async move {
        loop {
            if batch.get(&1).await.is_ok_and(|value| value.is_some()) {
                tokio::task::yield_now().await;
            }
        }
    };
    (tokio::spawn(asks), begun)
}

/// The number of callers in a test that could starve, all with the same kind of loader.
const CALLERS: usize = 20;

/// Checks that callers are answered beside the task; returns the number of the task's loads in the
/// meantime.
async fn are_answered(cache: &Cache, (others, begun): (JoinHandle<()>, Arc<AtomicUsize>)) -> usize {
    until(|| begun.load(SeqCst) > 0).await;
    let loads = Loads::new();
    loads.let_end(CALLERS);
    let call = |_| {
        let (cache, load) = (cache.clone(), loads.load(Ok::<_, String>(7)));
        tokio::spawn(async move { cache.get_or_load(&1, load).await })
    };
    let callers: Vec<_> = (0..CALLERS).map(call).collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap(), 7);
    }
    others.abort();
    assert_eq!(cache.get(&1), Some(7), "and it is stored");
    loads.started()
}

on_both_runtimes! {
    async fn beside_a_loader_that_fails_with_another_type_for_ever() {
        let cache = cache();
        assert_eq!(are_answered(&cache, fails_for_ever(&cache)).await, 1);
    }

    async fn beside_a_batch_loader_that_never_has_a_value() {
        let cache = cache();
        assert_eq!(are_answered(&cache, has_nothing_for_ever(&cache)).await, 1);
    }

    async fn a_batch_loader_beside_a_loader_that_fails_with_another_type_for_ever() {
        let cache = cache();
        let (others, begun) = fails_for_ever(&cache);
        until(|| begun.load(SeqCst) > 0).await;
        let all = |keys: Vec<u32>| async { Ok::<_, String>(keys.into_iter().map(|key| (key, key + 6)).collect::<HashMap<_, _>>()) };
        let batch = BatchLoader::builder(&cache).window(Duration::ZERO).build(all);
        let (one, many, each) = tokio::join!(batch.get(&1), batch.get_many(&[2, 1]), batch.get_each(&[1]));
        assert_eq!((one.unwrap(), many.unwrap()), (Some(7), vec![Some(8), Some(7)]));
        assert_eq!(each[0].as_ref().unwrap(), &Some(7));
        others.abort();
    }

    /// The caller fences a load that it cannot use. The fenced load continues for its own callers,
    /// and does not overwrite the value loaded by the caller.
    async fn a_load_that_is_fenced_for_another_answers_its_own_callers() {
        let (cache, first, second, own) = (cache(), Loads::new(), Loads::new(), Loads::new());
        let mut leader = Box::pin(cache.get_or_load(&1, first.load(Err::<u32, _>(OtherError))));
        assert!(poll_once(&mut leader).is_pending());
        let mut caller = Box::pin(cache.get_or_load(&1, own.load(Ok::<_, String>(7))));
        assert!(poll_once(&mut caller).is_pending());
        first.let_end(1);
        assert!(matches!(leader.await, Err(LoadError::Failed(error)) if *error == OtherError));

        // Another caller leads the next load before the caller runs.
        let mut leader = Box::pin(cache.get_or_load(&1, second.load(Ok::<_, OtherError>(9))));
        assert!(poll_once(&mut leader).is_pending());
        assert!(poll_once(&mut caller).is_pending());
        until(|| second.started() == 1 && own.started() == 1).await;
        assert_eq!(cache.stats().fenced, 1);
        // A later caller joins the caller's load.
        let mut later = Box::pin(cache.get_or_load(&1, second.load(Ok::<_, OtherError>(10))));
        assert!(poll_once(&mut later).is_pending());
        own.let_end(1);
        assert_eq!((caller.await.unwrap(), later.await.unwrap()), (7, 7));
        second.let_end(1);
        assert_eq!(leader.await.unwrap(), 9);
        assert_eq!(cache.get(&1), Some(7));
        assert_eq!((first.started(), second.started(), own.started()), (1, 1, 1));
    }

    /// Both sides may have failing loaders, each with its own type: each call loads once, and no
    /// side fences for ever.
    async fn two_kinds_of_callers_that_all_fail_load_once_a_call_at_most() {
        let (cache, loads) = (cache(), Loads::new());
        loads.let_end(2 * CALLERS);
        let ours = |_| {
            let (cache, load) = (cache.clone(), loads.load(Err::<u32, _>("ours".to_owned())));
            tokio::spawn(async move { cache.get_or_load(&1, load).await.unwrap_err().to_string() })
        };
        let theirs = |_| {
            let (cache, load) = (cache.clone(), loads.load(Err::<u32, _>(7_u8)));
            tokio::spawn(async move { cache.get_or_load(&1, load).await.unwrap_err().to_string() })
        };
        let calls: Vec<_> = (0..CALLERS).flat_map(|call| [(ours(call), "ours"), (theirs(call), "7")]).collect();
        for (call, error) in calls {
            assert_eq!(call.await.unwrap(), error);
        }
        assert!(loads.started() <= 2 * CALLERS, "{} loads", loads.started());
    }
}
