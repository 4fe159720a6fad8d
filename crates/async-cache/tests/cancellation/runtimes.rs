//! Runtimes that shut down, or that are missing.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use super::{Cache, Call, WhenDropped, cache, call, started, waiting};
use crate::stage::{Loads, one_thread, poll_once, several_threads, until, within_limit};
use async_cache::{AsyncCache, LoadError};

/// A leader on a runtime of its own, not polled any more, whose load runs.
fn leader_on(runtime: &tokio::runtime::Runtime, cache: &Cache, loads: &Arc<Loads>) -> Call {
    runtime.block_on(async {
        let leader = waiting(cache, "key", loads, Ok(1));
        started(loads, 1).await;
        leader
    })
}

fn others_load_anew_when_the_runtime_goes(
    runtime: tokio::runtime::Runtime,
    go: impl FnOnce(tokio::runtime::Runtime),
) {
    let (cache, loads) = (cache(), Loads::new());
    let leader = leader_on(&runtime, &cache, &loads);
    let elsewhere = several_threads();
    let joined = elsewhere.spawn(call(&cache, "key", &loads, Ok(2)));
    elsewhere.block_on(until(|| cache.stats().joined == 1));
    go(runtime);
    elsewhere.block_on(until(|| loads.started() == 2));
    loads.let_end(1);
    assert_eq!(elsewhere.block_on(joined).unwrap().unwrap(), 2, "loaded anew, with his own loader");
    let abandoned = elsewhere.block_on(leader).unwrap_err();
    assert!(matches!(&abandoned, LoadError::Abandoned { key } if key == "\"key\""), "{abandoned:?}");
    assert_eq!((loads.peak(), loads.running(), cache.get("key")), (1, 0, Some(2)));
}

#[test]
fn when_a_runtime_of_one_thread_is_dropped_callers_elsewhere_load_anew() {
    within_limit(|| others_load_anew_when_the_runtime_goes(one_thread(), drop));
}

#[test]
fn when_a_runtime_of_several_threads_is_dropped_callers_elsewhere_load_anew() {
    within_limit(|| others_load_anew_when_the_runtime_goes(several_threads(), drop));
}

#[test]
fn when_a_runtime_is_shut_down_in_the_background_callers_elsewhere_load_anew() {
    within_limit(|| {
        others_load_anew_when_the_runtime_goes(
            several_threads(),
            tokio::runtime::Runtime::shutdown_background,
        );
    });
}

#[test]
fn a_load_on_a_runtime_that_is_gone_is_an_error() {
    within_limit(|| {
        let (cache, loads, gone) = (cache(), Loads::new(), one_thread());
        let handle = gone.handle().clone();
        drop(gone);
        let mut leader = call(&cache, "key", &loads, Ok(1));
        let entered = handle.enter();
        let Poll::Ready(outcome) = poll_once(&mut leader) else { panic!("it waits for a task that is gone") };
        drop(entered);
        assert!(matches!(outcome, Err(LoadError::Abandoned { .. })), "{outcome:?}");
        loads.let_end(1);
        assert_eq!(one_thread().block_on(call(&cache, "key", &loads, Ok(2))).unwrap(), 2);
    });
}

#[test]
fn a_runtime_that_is_dropped_with_callers_and_loads_keeps_nothing() {
    within_limit(|| {
        let value = Arc::new(());
        let cache: AsyncCache<u32, Arc<()>> = AsyncCache::builder().build().unwrap();
        let (runtime, loads) = (several_threads(), Loads::new());
        for key in 0..20 {
            let (cache, load) = (cache.clone(), loads.load(Ok::<_, Infallible>(Arc::clone(&value))));
            runtime.spawn(async move { cache.get_or_load(&(key / 2), load).await });
        }
        runtime.block_on(until(|| loads.running() == 10 && cache.stats().joined == 10));
        drop(runtime);
        assert_eq!((loads.running(), cache.len()), (0, 0));
        assert_eq!(Arc::strong_count(&value), 1, "loads and their captures are gone");
    });
}

/// The caller gives up at once, but its load was already announced; a caller that joined must not
/// wait for it.
#[test]
fn who_joins_a_caller_without_a_runtime_loads_anew() {
    within_limit(|| {
        let (cache, loads, runtime) = (cache(), Loads::new(), several_threads());
        let joiner: Arc<Mutex<Option<Call>>> = Arc::default();
        let (joining, handle) = (Arc::clone(&joiner), runtime.handle().clone());
        let (of_joiner, its_loads) = (cache.clone(), Arc::clone(&loads));
        let join = move || {
            let _entered = handle.enter();
            *joining.lock().unwrap() = Some(waiting(&of_joiner, "key", &its_loads, Ok(2)));
        };
        let guard = WhenDropped(Box::new(join));
        let load = move || async move {
            let _guard = guard;
            Ok::<_, String>(1)
        };
        let Poll::Ready(outcome) = poll_once(&mut Box::pin(cache.get_or_load("key", load))) else {
            panic!("it waits without a runtime")
        };
        assert!(matches!(outcome, Err(LoadError::NoRuntime)), "{outcome:?}");
        assert_eq!(cache.stats().joined, 1);
        loads.let_end(1);
        let joiner = joiner.lock().unwrap().take().unwrap();
        assert_eq!(runtime.block_on(joiner).unwrap(), 2);
    });
}

#[test]
fn outside_of_a_runtime_a_miss_is_an_error_and_a_hit_is_served() {
    let (cache, loads) = (cache(), Loads::new());
    let Poll::Ready(outcome) = poll_once(&mut call(&cache, "key", &loads, Ok(1))) else { panic!("it waits") };
    assert!(matches!(outcome, Err(LoadError::NoRuntime)), "{outcome:?}");
    cache.set("key".into(), 2);
    let Poll::Ready(outcome) = poll_once(&mut call(&cache, "key", &loads, Ok(1))) else { panic!("it waits") };
    assert_eq!(outcome.unwrap(), 2);
    cache.delete("key");
    within_limit(move || {
        loads.let_end(1);
        assert_eq!(one_thread().block_on(call(&cache, "key", &loads, Ok(3))).unwrap(), 3);
        assert_eq!(loads.started(), 1);
    });
}
