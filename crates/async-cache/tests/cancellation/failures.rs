//! Loads that fail or panic.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::panic::panic_any;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use super::{Call, Outcome, cache, call, waiting};
use crate::stage::{Loads, on_both_runtimes, poll_once, until};
use async_cache::LoadError;

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
