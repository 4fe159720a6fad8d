//! Loaders that ask for their own key, and long chains of loads.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use super::{Cache, Call, cache, call, started};
use crate::stage::{Loads, on_both_runtimes, one_thread, poll_once, until};
use async_cache::{AsyncCache, LoadError};

/// Loads `keys[0]` with a loader that asks for `keys[1]` and so on; the last one asks for the
/// first.
fn circle(caches: Vec<Cache>, keys: Vec<&'static str>, at: usize) -> Call {
    let cache = caches[at % caches.len()].clone();
    let key = keys[at % keys.len()];
    Box::pin(async move {
        let load = move || async move {
            match circle(caches, keys, at + 1).await {
                Err(LoadError::Failed(error)) => Err((*error).clone()),
                Err(error) => Err(error.to_string()),
                Ok(value) => Ok(value),
            }
        };
        cache.get_or_load(key, load).await
    })
}

const SAYS_SO: &str = "the loader of key \"a\" asked for the key that it is loading";

on_both_runtimes! {
    async fn a_loader_that_asks_for_its_own_key_gets_an_error_that_names_it() {
        let error = circle(vec![cache()], vec!["a"], 0).await.unwrap_err().to_string();
        assert!(error.starts_with(SAYS_SO), "{error}");
    }

    async fn a_loader_that_asks_for_its_own_key_through_others_gets_an_error_that_names_it() {
        let error = circle(vec![cache()], vec!["a", "b", "c"], 0).await.unwrap_err().to_string();
        assert!(error.starts_with(SAYS_SO), "{error}");
    }

    async fn a_loader_that_asks_for_its_own_key_through_a_second_cache_gets_an_error_that_names_it() {
        let error = circle(vec![cache(), cache()], vec!["a", "a"], 0).await.unwrap_err().to_string();
        assert!(error.starts_with(SAYS_SO), "{error}");
    }

    async fn two_loads_that_ask_for_each_other_both_end() {
        let cache = cache();
        let both_run = Arc::new(tokio::sync::Barrier::new(2));
        let call = |mine: &'static str, other: &'static str| {
            let (cache, inner, both_run) = (cache.clone(), cache.clone(), Arc::clone(&both_run));
            let load = move || async move {
                both_run.wait().await;
                let unused = || async { Err::<u32, String>("never called: the other is loading".to_owned()) };
                match inner.get_or_load(other, unused).await {
                    Err(LoadError::Recursive { key }) => Ok(u32::from(key == format!("{other:?}"))),
                    Ok(value) => Ok(10 + value),
                    Err(error) => Err(error.to_string()),
                }
            };
            tokio::spawn(async move { cache.get_or_load(mine, load).await.unwrap() })
        };
        let (a, b) = (call("a", "b"), call("b", "a"));
        let mut values = [a.await.unwrap(), b.await.unwrap()];
        values.sort_unstable();
        assert_eq!(values, [1, 11], "one was refused, with the key he asked for; the other got his value");
    }

    async fn a_key_that_was_refused_can_be_loaded_afterwards() {
        let (cache, loads) = (cache(), Loads::new());
        circle(vec![cache.clone()], vec!["a", "b"], 0).await.unwrap_err();
        loads.let_end(2);
        assert_eq!(call(&cache, "a", &loads, Ok(1)).await.unwrap(), 1);
        assert_eq!(call(&cache, "b", &loads, Ok(2)).await.unwrap(), 2);
    }

    async fn loaders_may_ask_for_other_keys_and_for_several_at_once() {
        let (cache, loads) = (cache(), Loads::new());
        loads.let_end(2);
        let (inner, of_inner) = (cache.clone(), Arc::clone(&loads));
        let load = move || async move {
            let [left, right, again] =
                [("left", 1), ("right", 2), ("left", 1)].map(|(key, value)| call(&inner, key, &of_inner, Ok(value)));
            let (left, right, again) = tokio::join!(left, right, again);
            Ok::<_, String>(left.unwrap() + right.unwrap() + again.unwrap())
        };
        assert_eq!(cache.get_or_load("sum", load).await.unwrap(), 4);
        assert_eq!(loads.started(), 2);
    }

    /// "a" once waited for "b". The wait has ended, so "b" may wait for "a" now.
    async fn a_wait_that_is_over_refuses_nobody() {
        let (cache, loads, of_b) = (cache(), Loads::new(), Loads::new());
        of_b.let_end(1);
        let (inner, gate, b) = (cache.clone(), loads.load(()), Arc::clone(&of_b));
        let a = move || async move {
            call(&inner, "b", &b, Ok(1)).await.unwrap();
            gate().await;
            Ok::<_, String>(2)
        };
        let mut a = Box::pin(cache.get_or_load("a", a));
        assert!(poll_once(&mut a).is_pending());
        started(&loads, 1).await;
        cache.delete("b");
        let (inner, unused) = (cache.clone(), Loads::new());
        let b = move || async move { call(&inner, "a", &unused, Err("not loaded")).await.map_err(|e| e.to_string()) };
        let b = { let cache = cache.clone(); tokio::spawn(async move { cache.get_or_load("b", b).await }) };
        until(|| cache.stats().joined == 1).await;
        loads.let_end(1);
        assert_eq!((a.await.unwrap(), b.await.unwrap().unwrap()), (2, 2));
    }

    /// The refused caller leaves; as there are other callers, the load continues.
    async fn a_refused_caller_does_not_take_the_load_away_from_others() {
        let (cache, loads) = (cache(), Loads::new());
        let (inner, gate, refusals) = (cache.clone(), loads.load(()), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&refusals);
        let load = move || async move {
            let again = inner.get_or_load("a", || async { Ok::<_, String>(0) }).await;
            counted.fetch_add(usize::from(matches!(again, Err(LoadError::Recursive { .. }))), SeqCst);
            gate().await;
            Ok::<_, String>(5)
        };
        let mut leader = Box::pin(cache.get_or_load("a", load));
        assert!(poll_once(&mut leader).is_pending());
        started(&loads, 1).await;
        loads.let_end(1);
        assert_eq!((leader.await.unwrap(), refusals.load(SeqCst)), (5, 1));
    }
}

// Long chains

/// Loads waiting for loads were once dropped inside each other, and a long chain of them overflowed
/// the stack.
#[test]
fn a_long_chain_of_loads_can_be_cancelled() {
    fn nested(
        cache: AsyncCache<u32, u32>,
        number: u32,
        last: u32,
    ) -> Pin<Box<dyn Future<Output = u32> + Send>> {
        Box::pin(async move {
            if number == last {
                return pending().await;
            }
            let inner = cache.clone();
            let load = move || async move { Ok::<_, Infallible>(nested(inner, number + 1, last).await) };
            cache.get_or_load(&number, load).await.unwrap_or(0)
        })
    }
    const LAST: u32 = 20_000;
    one_thread().block_on(async {
        let cache: AsyncCache<u32, u32> = AsyncCache::builder().build().unwrap();
        let outer = tokio::spawn(nested(cache.clone(), 0, LAST));
        until(|| cache.stats().loads == u64::from(LAST)).await;
        outer.abort();
        assert!(outer.await.unwrap_err().is_cancelled());
        assert_eq!(cache.stats().load_errors, u64::from(LAST), "each of them has ended");
    });
}
