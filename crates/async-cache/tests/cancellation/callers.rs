//! Callers and handles that are dropped, in every order.

use std::future::pending;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};

use super::{Call, WhenDropped, cache, call, started, waiting};
use crate::stage::{
    Loads, Running, on_both_runtimes, one_thread, poll_once, several_threads, until, within_limit,
};
use async_cache::{AsyncCache, LoadError};

on_both_runtimes! {
    async fn a_cancelled_caller_leaves_the_load_to_the_others() {
        let (cache, loads) = (cache(), Loads::new());
        let leader = waiting(&cache, "key", &loads, Ok(1));
        let joiners = [2, 3].map(|other| waiting(&cache, "key", &loads, Ok(other)));
        let [cancelled, other] = joiners;
        started(&loads, 1).await;
        drop(cancelled);
        loads.let_end(1);
        assert_eq!((leader.await.unwrap(), other.await.unwrap()), (1, 1));
        assert_eq!((loads.started(), cache.get("key")), (1, Some(1)));
    }

    async fn a_cancelled_leader_does_not_cancel_the_load() {
        let (cache, loads) = (cache(), Loads::new());
        let leader = waiting(&cache, "key", &loads, Ok(1));
        let joiner = waiting(&cache, "key", &loads, Ok(2));
        drop(leader);
        started(&loads, 1).await;
        assert_eq!(loads.running(), 1);
        loads.let_end(1);
        assert_eq!(joiner.await.unwrap(), 1);
        assert_eq!((loads.started(), cache.get("key")), (1, Some(1)), "it ran once, and was stored");
    }

    async fn an_aborted_task_is_a_cancelled_caller() {
        let (cache, loads) = (cache(), Loads::new());
        let leader = tokio::spawn(call(&cache, "key", &loads, Ok(1)));
        started(&loads, 1).await;
        let joiner = tokio::spawn(call(&cache, "key", &loads, Ok(2)));
        until(|| cache.stats().joined == 1).await;
        leader.abort();
        assert!(leader.await.unwrap_err().is_cancelled());
        loads.let_end(1);
        assert_eq!(joiner.await.unwrap().unwrap(), 1);
    }

    async fn when_the_last_caller_is_cancelled_the_load_is_dropped_and_the_next_get_loads_anew() {
        let (cache, loads) = (cache(), Loads::new());
        let leader = waiting(&cache, "key", &loads, Ok(1));
        let joiner = waiting(&cache, "key", &loads, Ok(2));
        started(&loads, 1).await;
        drop(leader);
        assert_eq!(loads.running(), 1, "one still waits");
        drop(joiner);
        until(|| loads.running() == 0).await;
        loads.let_end(1);
        assert_eq!(call(&cache, "key", &loads, Ok(3)).await.unwrap(), 3);
        assert_eq!((loads.started(), loads.peak()), (2, 1));
    }

    async fn a_load_whose_callers_left_stores_nothing() {
        let (cache, loads) = (cache(), Loads::new());
        let leader = waiting(&cache, "key", &loads, Ok(1));
        started(&loads, 1).await;
        drop(leader);
        loads.let_end(1);
        until(|| cache.stats().load_errors == 1).await;
        assert_eq!((cache.get("key"), cache.len()), (None, 0));
    }

    /// The caller leaves a mark for the polling task, since it cannot take the load away from that
    /// task.
    async fn the_last_caller_may_be_dropped_by_the_load_itself() {
        let (cache, loads) = (cache(), Loads::new());
        let last: Arc<Mutex<Option<Call>>> = Arc::default();
        let (running, its_caller) = (Arc::clone(&loads), Arc::clone(&last));
        let load = move || async move {
            let _running = Running::begin(&running);
            drop(its_caller.lock().unwrap().take());
            pending::<()>().await;
            Ok(1)
        };
        let leader = { let cache = cache.clone(); async move { cache.get_or_load("key", load).await } };
        let mut leader: Call = Box::pin(leader);
        {
            let mut last = last.lock().unwrap();
            assert!(poll_once(&mut leader).is_pending());
            *last = Some(leader);
        }
        until(|| cache.stats().load_errors == 1).await;
        assert_eq!((loads.started(), loads.running()), (1, 0));
        loads.let_end(1);
        assert_eq!(call(&cache, "key", &loads, Ok(2)).await.unwrap(), 2);
    }
}

#[test]
fn a_load_is_dropped_on_the_thread_of_the_last_caller_at_once() {
    within_limit(|| {
        let (cache, loads, runtime) = (cache(), Loads::new(), one_thread());
        let leader = runtime.block_on(async {
            let leader = waiting(&cache, "key", &loads, Ok(1));
            started(&loads, 1).await;
            leader
        });
        // From here on the runtime stands still, and this thread is not within it.
        drop(leader);
        assert_eq!((loads.running(), cache.stats().load_errors), (0, 1));
    });
}

#[test]
fn a_load_whose_caller_leaves_before_it_began_is_never_called() {
    within_limit(|| {
        let (cache, loads) = (cache(), Loads::new());
        one_thread().block_on(async {
            drop(waiting(&cache, "key", &loads, Ok(1)));
            tokio::task::yield_now().await;
            loads.let_end(1);
            assert_eq!(call(&cache, "key", &loads, Ok(2)).await.unwrap(), 2);
        });
        assert_eq!((loads.started(), cache.stats().loads), (1, 2));
    });
}

#[test]
fn a_call_that_is_never_polled_does_nothing() {
    let (cache, loads) = (cache(), Loads::new());
    drop(call(&cache, "key", &loads, Ok(1)));
    assert_eq!((cache.stats().misses, cache.stats().loads), (0, 0));
}

/// A flight ends only after its load is dropped, so no second load runs beside a load being
/// dropped.
#[test]
fn who_comes_while_the_load_is_being_dropped_waits_for_that_and_loads_anew() {
    within_limit(|| {
        let (cache, loads, runtime) = (cache(), Loads::new(), one_thread());
        let comer: Arc<Mutex<Option<Call>>> = Arc::default();
        let (coming, handle) = (Arc::clone(&comer), runtime.handle().clone());
        let (of_comer, its_loads) = (cache.clone(), Arc::clone(&loads));
        let come = WhenDropped(Box::new(move || {
            let _entered = handle.enter();
            *coming.lock().unwrap() = Some(waiting(&of_comer, "key", &its_loads, Ok(2)));
        }));
        let load = move || async move {
            let _come = come;
            pending().await
        };
        let mut leader = Box::pin(cache.get_or_load::<_, _, _, String>("key", load));
        runtime.block_on(async {
            assert!(poll_once(&mut leader).is_pending());
            tokio::task::yield_now().await;
        });
        drop(leader);
        assert_eq!(
            (cache.stats().loads, cache.stats().joined),
            (1, 1),
            "he joined the flight that was ending"
        );
        loads.let_end(1);
        let comer = comer.lock().unwrap().take().unwrap();
        assert_eq!(runtime.block_on(comer).unwrap(), 2);
        assert_eq!((loads.started(), cache.stats().loads), (1, 2));
    });
}

/// The last caller leaves while the load is being polled, and another caller joins before the poll
/// has ended.
#[test]
fn a_load_that_was_about_to_be_stopped_goes_on_for_who_joins() {
    within_limit(|| {
        let (cache, runtime) = (cache(), several_threads());
        let starts = Arc::new(AtomicUsize::new(0));
        let (in_poll, is_in_poll) = mpsc::channel();
        let (let_go, may_go) = mpsc::channel::<()>();
        let starts_of_load = Arc::clone(&starts);
        let load = move || async move {
            starts_of_load.fetch_add(1, SeqCst);
            in_poll.send(()).unwrap();
            may_go.recv().unwrap();
            tokio::task::yield_now().await;
            Ok::<_, String>(1)
        };
        let entered = runtime.enter();
        let mut leader = Box::pin(cache.get_or_load("key", load));
        assert!(poll_once(&mut leader).is_pending());
        is_in_poll.recv().unwrap();
        drop(leader); // leaves a mark
        let loads = Loads::new();
        let joiner = waiting(&cache, "key", &loads, Ok(2));
        let_go.send(()).unwrap();
        drop(entered);
        assert_eq!(runtime.block_on(joiner).unwrap(), 1);
        assert_eq!((starts.load(SeqCst), loads.started(), cache.stats().loads), (1, 0, 1));
    });
}

// The cache is dropped

on_both_runtimes! {
    async fn a_load_outlives_every_handle_but_that_of_its_caller() {
        let (cache, loads) = (cache(), Loads::new());
        let leader = waiting(&cache, "key", &loads, Ok(1));
        drop(cache);
        started(&loads, 1).await;
        loads.let_end(1);
        assert_eq!(leader.await.unwrap(), 1);
    }

    async fn a_cache_whose_callers_and_handles_are_gone_is_freed() {
        let value = Arc::new(());
        let loads = Loads::new();
        let cache: AsyncCache<&str, Arc<()>> = AsyncCache::builder().build().unwrap();
        cache.set("kept", Arc::clone(&value));
        let caller = { let (cache, load) = (cache.clone(), loads.load(Ok::<_, String>(Arc::clone(&value))));
            async move { cache.get_or_load(&"key", load).await } };
        let mut caller = Box::pin(caller);
        assert!(poll_once(&mut caller).is_pending());
        started(&loads, 1).await;
        drop(cache);
        assert_eq!(Arc::strong_count(&value), 3);
        drop(caller);
        until(|| Arc::strong_count(&value) == 1).await;
        assert_eq!(loads.running(), 0);
    }
}

// The value's `Clone` panics

/// Panics on request when it is cloned.
struct Fragile(u32, Arc<AtomicBool>);

impl Clone for Fragile {
    fn clone(&self) -> Self {
        assert!(!self.1.load(SeqCst), "this cannot be cloned");
        Self(self.0, Arc::clone(&self.1))
    }
}

on_both_runtimes! {
    async fn a_value_whose_clone_panics_hangs_nobody() {
        let (breaks, loads) = (Arc::new(AtomicBool::new(false)), Loads::new());
        let cache: AsyncCache<u32, Fragile> = AsyncCache::builder().shards(1).build().unwrap();
        let call = |number: u32| {
            let (cache, load) = (cache.clone(), loads.load(Ok::<_, String>(Fragile(number, Arc::clone(&breaks)))));
            tokio::spawn(async move { cache.get_or_load(&7, load).await.map(|value| value.0) })
        };
        // In the load, before the value is stored; in the callers; on a hit.
        let callers = [call(1), call(2)];
        until(|| cache.stats().misses == 2 && loads.running() == 1).await;
        breaks.store(true, SeqCst);
        loads.let_end(100);
        for caller in callers {
            let outcome = caller.await.unwrap();
            assert!(matches!(outcome, Err(LoadError::Panicked { .. })), "{outcome:?}");
        }
        breaks.store(false, SeqCst);
        assert_eq!(call(3).await.unwrap().unwrap(), 3);
        breaks.store(true, SeqCst);
        assert!(call(4).await.unwrap_err().is_panic(), "the panic is that of whoever asked");
        breaks.store(false, SeqCst);
        // The shard was not left locked, and no flight was left unfinished.
        assert_eq!(call(5).await.unwrap().unwrap(), 3);
        cache.delete(&7);
        assert_eq!(call(6).await.unwrap().unwrap(), 6);
        assert_eq!((loads.running(), cache.len()), (0, 1));
    }
}
