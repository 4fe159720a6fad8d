//! The fate of a load and its waiting callers when a caller is dropped, fails or interferes: every
//! row of the table of cancellation, on a single-threaded and on a multi-threaded runtime. A hang
//! is a failure.
#![allow(clippy::async_yields_async)] // calls are deliberately returned unawaited

use std::convert::Infallible;
use std::future::{Future, pending, poll_fn};
use std::panic::panic_any;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::task::Poll;

use crate::stage::{
    Loads, Running, on_both_runtimes, one_thread, poll_once, several_threads, until, within_limit,
};
use async_cache::{AsyncCache, LoadError};

type Cache = AsyncCache<String, u32>;
type Outcome = Result<u32, LoadError<String>>;
type Call = Pin<Box<dyn Future<Output = Outcome> + Send>>;

fn cache() -> Cache {
    AsyncCache::builder().build().unwrap()
}

/// A call that has not begun.
fn call(cache: &Cache, key: &'static str, loads: &Arc<Loads>, result: Result<u32, &str>) -> Call {
    let (cache, load) = (cache.clone(), loads.load(result.map_err(str::to_owned)));
    Box::pin(async move { cache.get_or_load(key, load).await })
}

/// A call that leads or has joined, and is not polled any more.
fn waiting(cache: &Cache, key: &'static str, loads: &Arc<Loads>, result: Result<u32, &str>) -> Call {
    let mut call = call(cache, key, loads, result);
    assert!(poll_once(&mut call).is_pending(), "it has to wait");
    call
}

async fn started(loads: &Loads, count: usize) {
    until(|| loads.started() == count).await;
}

// A caller is dropped

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

/// Calls a function when it is dropped.
struct WhenDropped(Box<dyn Fn() + Send>);

impl Drop for WhenDropped {
    fn drop(&mut self) {
        self.0();
    }
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

// The load fails

on_both_runtimes! {
    async fn every_caller_gets_the_same_error_and_the_next_call_loads_anew() {
        let (cache, loads) = (cache(), Loads::new());
        let leader = waiting(&cache, "key", &loads, Err("no"));
        let joiner = waiting(&cache, "key", &loads, Ok(2));
        loads.let_end(1);
        let errors = [leader.await.unwrap_err(), joiner.await.unwrap_err()];
        let [LoadError::Failed(first), LoadError::Failed(second)] = &errors else { panic!("{errors:?}") };
        assert!(Arc::ptr_eq(first, second), "shared, not cloned");
        assert_eq!((first.as_str(), errors[0].to_string().as_str()), ("no", "no"));
        assert_eq!(errors[0].loader_error().map(String::as_str), Some("no"));
        assert!(!cache.contains("key"));
        loads.let_end(1);
        assert_eq!(call(&cache, "key", &loads, Ok(3)).await.unwrap(), 3);
        assert_eq!(loads.started(), 2);
    }

    async fn a_failed_load_leaves_what_was_stored_under_other_keys() {
        let (cache, loads) = (cache(), Loads::new());
        cache.set("other".into(), 7);
        loads.let_end(1);
        call(&cache, "key", &loads, Err("no")).await.unwrap_err();
        assert_eq!((cache.get("other"), cache.len()), (Some(7), 1));
    }

    /// The caller cannot be given an error of an unknown type, so its own loader decides.
    async fn a_caller_with_another_error_type_loads_with_his_own_loader() {
        let (cache, loads) = (cache(), Loads::new());
        let leader = waiting(&cache, "key", &loads, Err("no"));
        let mut joiner = Box::pin(cache.get_or_load("key", loads.load(Err::<u32, u8>(7))));
        assert!(poll_once(&mut joiner).is_pending());
        loads.let_end(2);
        assert_eq!(leader.await.unwrap_err().to_string(), "no");
        assert_eq!(joiner.await.unwrap_err().loader_error(), Some(&7));
        assert_eq!((loads.started(), loads.peak()), (2, 1));
    }

    async fn a_caller_with_another_error_type_gets_the_value() {
        let (cache, loads) = (cache(), Loads::new());
        let leader = waiting(&cache, "key", &loads, Ok(1));
        let mut joiner = Box::pin(cache.get_or_load("key", loads.load(Ok::<u32, Infallible>(2))));
        assert!(poll_once(&mut joiner).is_pending());
        loads.let_end(1);
        assert_eq!((leader.await.unwrap(), joiner.await.unwrap(), loads.started()), (1, 1, 1));
    }
}

// The load panics

/// The payload of a loader's panic, and its place.
enum Panics {
    InTheClosure,
    AtOnce,
    AfterAWait,
    WithAString,
    WithoutAMessage,
}

async fn callers_of_a_loader_that(panics: Panics) -> [String; 2] {
    let cache = cache();
    let (may_go, go) = tokio::sync::oneshot::channel::<()>();
    let load = move || {
        assert!(!matches!(panics, Panics::InTheClosure), "in the closure");
        async move {
            match panics {
                Panics::InTheClosure => unreachable!(),
                Panics::AtOnce => panic!("at once"),
                Panics::AfterAWait => {
                    go.await.unwrap();
                    panic!("after a wait")
                }
                Panics::WithAString => panic_any("a string".to_owned()),
                Panics::WithoutAMessage => panic_any(7),
            }
        }
    };
    let leader = {
        let cache = cache.clone();
        async move { cache.get_or_load("key", load).await }
    };
    let mut leader: Call = Box::pin(leader);
    // On several threads the load may have ended before the other caller arrives; then that caller
    // loads, and the test does not cover it.
    assert!(poll_once(&mut leader).is_pending());
    let loads = Loads::new();
    loads.let_end(1);
    let joiner = call(&cache, "key", &loads, Err("loaded anew"));
    let _ = may_go.send(()); // received by the one waiting loader
    let outcomes = <[Outcome; 2]>::from(tokio::join!(leader, joiner));
    let next = cache.get_or_load("key", loads.load(Ok::<_, String>(3)));
    loads.let_end(1);
    assert_eq!(next.await.unwrap(), 3, "the next call loads anew");
    outcomes.map(|outcome| match outcome {
        Err(LoadError::Panicked { key, message }) => {
            assert_eq!(key, "\"key\"");
            message
        }
        Err(LoadError::Failed(error)) => error.to_string(),
        other => panic!("{other:?}"),
    })
}

async fn both_callers_hear(panics: Panics, message: &str) {
    let [led, joined] = callers_of_a_loader_that(panics).await;
    assert_eq!(led, message);
    assert!(joined == message || joined == "loaded anew", "{joined}");
}

on_both_runtimes! {
    async fn a_panic_in_the_closure_is_an_error_for_every_caller() {
        both_callers_hear(Panics::InTheClosure, "in the closure").await;
    }

    async fn a_panic_in_the_future_is_an_error_for_every_caller() {
        both_callers_hear(Panics::AtOnce, "at once").await;
    }

    async fn a_panic_with_a_string_keeps_its_message() {
        both_callers_hear(Panics::WithAString, "a string").await;
    }

    async fn a_panic_without_a_message_says_so() {
        both_callers_hear(Panics::WithoutAMessage, "a panic without a message").await;
    }

    async fn a_panic_after_a_wait_is_an_error_for_every_caller() {
        both_callers_hear(Panics::AfterAWait, "after a wait").await;
    }

    async fn a_panic_reaches_those_who_joined() {
        let (cache, loads) = (cache(), Loads::new());
        let gated = loads.load(());
        let load = move || async move {
            gated().await;
            panic!("after the gate")
        };
        let leader = { let cache = cache.clone(); async move { cache.get_or_load("key", load).await } };
        let mut leader: Call = Box::pin(leader);
        assert!(poll_once(&mut leader).is_pending());
        let joiner = waiting(&cache, "key", &loads, Ok(2));
        loads.let_end(1);
        for outcome in [leader.await, joiner.await] {
            let Err(LoadError::Panicked { message, .. }) = outcome else { panic!("{outcome:?}") };
            assert_eq!(message, "after the gate");
        }
        assert_eq!((cache.stats().load_errors, cache.len()), (1, 0));
    }

    async fn a_load_that_panics_when_it_is_dropped_still_answers() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("in its drop");
            }
        }
        /// Drops the bomb after the answer, when the load that holds it is dropped.
        struct Answers(Option<u32>, Bomb);
        impl Future for Answers {
            type Output = Result<u32, String>;
            fn poll(mut self: Pin<&mut Self>, _: &mut std::task::Context<'_>) -> Poll<Self::Output> {
                Poll::Ready(self.0.take().ok_or_else(String::new))
            }
        }
        let cache = cache();
        let answer = cache.get_or_load("key", || Answers(Some(1), Bomb)).await;
        // An `async` block drops the awaited future within its poll, so the load has panicked here.
        assert!(matches!(answer, Err(LoadError::Panicked { .. })), "{answer:?}");

        let waits = || {
            let bomb = Bomb;
            poll_fn(move |_| { let _ = &bomb; Poll::<Result<u32, String>>::Pending })
        };
        let mut last = Box::pin(cache.get_or_load("key", waits));
        assert!(poll_once(&mut last).is_pending());
        tokio::task::yield_now().await;
        drop(last); // The last caller is dropped, and the panic is not raised in it.
        until(|| cache.stats().load_errors == 2).await;

        let loads = Loads::new();
        loads.let_end(1);
        assert_eq!(call(&cache, "key", &loads, Ok(2)).await.unwrap(), 2);
    }
}

// The loader asks for its own key

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

// A write overtakes the load

on_both_runtimes! {
    async fn a_load_that_a_set_overtakes_answers_its_callers_and_stores_nothing() {
        let (cache, loads) = (cache(), Loads::new());
        let leader = waiting(&cache, "key", &loads, Ok(1));
        started(&loads, 1).await;
        cache.set("key".into(), 2);
        assert_eq!(call(&cache, "key", &loads, Ok(3)).await.unwrap(), 2, "a new caller gets what was set");
        loads.let_end(1);
        assert_eq!(leader.await.unwrap(), 1);
        assert_eq!((cache.get("key"), loads.started(), cache.stats().fenced), (Some(2), 1, 1));
    }

    async fn a_load_that_a_delete_overtakes_answers_its_callers_and_stores_nothing() {
        let (cache, loads) = (cache(), Loads::new());
        let leader = waiting(&cache, "key", &loads, Ok(1));
        let joiner = waiting(&cache, "key", &loads, Ok(7));
        started(&loads, 1).await;
        cache.delete("key");
        let next = waiting(&cache, "key", &loads, Ok(2));
        started(&loads, 2).await;
        assert_eq!(loads.running(), 2, "the next one does not wait for the old load");
        loads.let_end(2);
        assert_eq!((leader.await.unwrap(), joiner.await.unwrap(), next.await.unwrap()), (1, 1, 2));
        assert_eq!((cache.get("key"), cache.stats().fenced), (Some(2), 1));
    }

    async fn a_load_that_a_clear_overtakes_answers_its_callers_and_stores_nothing() {
        let (cache, loads) = (cache(), Loads::new());
        let leader = waiting(&cache, "key", &loads, Ok(1));
        let other = waiting(&cache, "other", &loads, Ok(5));
        started(&loads, 2).await;
        cache.clear();
        let next = waiting(&cache, "key", &loads, Ok(2));
        started(&loads, 3).await;
        loads.let_end(3);
        assert_eq!((leader.await.unwrap(), other.await.unwrap(), next.await.unwrap()), (1, 5, 2));
        assert_eq!((cache.get("key"), cache.get("other"), cache.len()), (Some(2), None, 1));
    }

    async fn a_load_that_was_overtaken_and_ends_last_does_not_replace_the_newer_value() {
        let (cache, old, new) = (cache(), Loads::new(), Loads::new());
        let first = waiting(&cache, "key", &old, Ok(1));
        started(&old, 1).await;
        cache.delete("key");
        new.let_end(1);
        assert_eq!(call(&cache, "key", &new, Ok(2)).await.unwrap(), 2);
        old.let_end(1);
        assert_eq!((first.await.unwrap(), cache.get("key")), (1, Some(2)));
    }

    async fn a_load_that_was_overtaken_is_dropped_with_its_last_caller() {
        let (cache, old, new) = (cache(), Loads::new(), Loads::new());
        let first = waiting(&cache, "key", &old, Ok(1));
        started(&old, 1).await;
        cache.delete("key");
        let next = waiting(&cache, "key", &new, Ok(2));
        started(&new, 1).await;
        drop(first);
        until(|| old.running() == 0).await;
        assert_eq!(new.running(), 1, "the newer load is another one");
        new.let_end(1);
        assert_eq!(next.await.unwrap(), 2);
    }

    async fn a_loader_may_write_its_own_key() {
        let cache = cache();
        let inner = cache.clone();
        let load = move || async move {
            inner.set("key".into(), 2);
            Ok::<_, String>(1)
        };
        assert_eq!(cache.get_or_load("key", load).await.unwrap(), 1);
        assert_eq!(cache.get("key"), Some(2), "the loader set it before its own load ended");
    }
}

// A runtime shuts down

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
