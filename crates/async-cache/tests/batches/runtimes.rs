//! Runtimes that shut down, or that are missing.

use std::task::Poll;

use super::{Call, LONG, Loader, Outcome, Table, cache, call, value, waiting};
use crate::stage::{one_thread, poll_once, several_threads, until, within_limit};
use async_cache::LoadError;

/// A call that gathers on a runtime of its own.
fn gathering_on(runtime: &tokio::runtime::Runtime, loader: &Loader, key: u32) -> Call {
    let _entered = runtime.enter();
    waiting(loader, key)
}

fn abandoned(outcome: &Outcome) -> bool {
    matches!(outcome, Err(LoadError::Abandoned { .. }))
}

#[test]
fn when_the_runtime_of_a_window_goes_callers_elsewhere_ask_anew() {
    for shut_down in [drop, tokio::runtime::Runtime::shutdown_background] {
        within_limit(move || {
            let (cache, table) = (cache(), Table::new());
            let loader = table.loader(&cache, LONG, 2);
            let (gone, here) = (several_threads(), one_thread());
            let first = gathering_on(&gone, &loader, 1);
            let elsewhere = gathering_on(&here, &loader, 1);
            shut_down(gone);
            assert!(abandoned(&here.block_on(first)), "it was to be loaded there");
            here.block_on(async {
                let mut elsewhere = elsewhere;
                until(|| poll_once(&mut elsewhere).is_pending() && cache.stats().loads == 2).await;
                let full = waiting(&loader, 2);
                table.let_end(1);
                assert_eq!(
                    (elsewhere.await.unwrap(), full.await.unwrap()),
                    (value("1 of 1"), value("2 of 1"))
                );
            });
            assert_eq!(table.asked(), [[1, 2]]);
        });
    }
}

#[test]
fn when_the_runtime_of_a_load_goes_callers_elsewhere_ask_anew() {
    within_limit(|| {
        let (cache, table) = (cache(), Table::new());
        let loader = table.loader(&cache, LONG, 1);
        let (gone, here) = (several_threads(), one_thread());
        let first = gathering_on(&gone, &loader, 1);
        let elsewhere = gathering_on(&here, &loader, 1);
        here.block_on(until(|| table.loads.running() == 1));
        drop(gone);
        assert_eq!(table.loads.running(), 0);
        assert!(abandoned(&here.block_on(first)));
        table.let_end(1);
        assert_eq!(here.block_on(elsewhere).unwrap(), value("1 of 2"));
    });
}

#[test]
fn batches_of_different_runtimes_do_not_mix() {
    within_limit(|| {
        let (cache, table) = (cache(), Table::new());
        let loader = table.loader(&cache, LONG, 2);
        let (gone, here) = (one_thread(), one_thread());
        let first = gathering_on(&gone, &loader, 1);
        let stays = gathering_on(&here, &loader, 2);
        drop(gone);
        here.block_on(async {
            assert!(abandoned(&first.await));
            let full = waiting(&loader, 3);
            table.let_end(1);
            assert_eq!((stays.await.unwrap(), full.await.unwrap()), (value("2 of 1"), value("3 of 1")));
        });
        assert_eq!(table.asked(), [[2, 3]]);
    });
}

#[test]
fn on_a_runtime_that_is_gone_a_key_is_an_error() {
    within_limit(|| {
        let (cache, table) = (cache(), Table::new());
        let runtime = one_thread();
        let handle = runtime.handle().clone();
        drop(runtime);
        let _entered = handle.enter();
        for max_size in [1, 2] {
            let loader = table.loader(&cache, LONG, max_size);
            let mut call = call(&loader, 1);
            let Poll::Ready(outcome) = poll_once(&mut call) else { panic!("it waits for ever") };
            assert!(abandoned(&outcome), "{outcome:?}");
        }
        assert_eq!((cache.stats().loads, cache.stats().load_errors), (2, 2));
    });
}

#[test]
fn outside_of_a_runtime_a_miss_is_an_error_and_a_hit_is_served() {
    let (cache, table) = (cache(), Table::new());
    let loader = table.loader(&cache, LONG, 2);
    cache.set(2, "known".to_owned());
    let outcomes = [1, 2].map(|key| poll_once(&mut call(&loader, key)));
    let [Poll::Ready(Err(LoadError::NoRuntime)), Poll::Ready(Ok(hit))] = outcomes else {
        panic!("{outcomes:?}")
    };
    assert_eq!((hit, cache.stats().load_errors), (value("known"), 1));
    // Nothing of the batch is left behind.
    let full = one_thread().block_on(async {
        table.let_end(1);
        let one = waiting(&loader, 1);
        let three = waiting(&loader, 3);
        (one.await.unwrap(), three.await.unwrap())
    });
    assert_eq!(full, (value("1 of 1"), value("3 of 1")));
}
