//! Callers, handles and values that go before or after a batch has left.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::Poll;
use std::time::Duration;

use super::{LONG, Table, cache, value, waiting};
use crate::stage::{on_both_runtimes, one_thread, poll_once, several_threads, until, within_limit};
use async_cache::{AsyncCache, BatchLoader};

on_both_runtimes! {
    async fn a_cancelled_caller_leaves_the_key_to_the_others() {
        let (cache, table) = (cache(), Table::new());
        let loader = table.loader(&cache, LONG, 2);
        let first = waiting(&loader, 1);
        let second = waiting(&loader, 1);
        drop(second);
        let full = waiting(&loader, 2);
        table.let_end(1);
        assert_eq!((first.await.unwrap(), full.await.unwrap()), (value("1 of 1"), value("2 of 1")));
        assert_eq!(table.asked(), [[1, 2]]);
    }

    async fn a_cancelled_first_caller_leaves_the_key_to_the_others() {
        let (cache, table) = (cache(), Table::new());
        let loader = table.loader(&cache, LONG, 2);
        let first = waiting(&loader, 1);
        let second = waiting(&loader, 1);
        drop(first);
        let full = waiting(&loader, 2);
        table.let_end(1);
        assert_eq!((second.await.unwrap(), full.await.unwrap()), (value("1 of 1"), value("2 of 1")));
        assert_eq!(table.asked(), [[1, 2]]);
    }

    async fn the_key_of_the_last_caller_is_dropped_and_takes_no_room() {
        let (cache, table) = (cache(), Table::new());
        let loader = table.loader(&cache, LONG, 3);
        let gone = waiting(&loader, 1);
        let first = waiting(&loader, 2);
        drop(gone);
        assert_eq!(cache.stats().load_errors, 1, "its flight has ended");
        let second = waiting(&loader, 3);
        let full = waiting(&loader, 4);
        table.let_end(1);
        assert_eq!((first.await.unwrap(), second.await.unwrap()), (value("2 of 1"), value("3 of 1")));
        assert_eq!((full.await.unwrap(), cache.get(&1)), (value("4 of 1"), None));
        assert_eq!(table.asked(), [[2, 3, 4]]);
    }

    async fn a_key_that_was_dropped_is_asked_for_anew() {
        let (cache, table) = (cache(), Table::new());
        let loader = table.loader(&cache, LONG, 2);
        drop(waiting(&loader, 1));
        let again = waiting(&loader, 1);
        let full = waiting(&loader, 2);
        table.let_end(1);
        assert_eq!((again.await.unwrap(), full.await.unwrap()), (value("1 of 1"), value("2 of 1")));
        assert_eq!(table.asked(), [[1, 2]]);
    }

    async fn a_batch_whose_keys_were_all_dropped_is_never_loaded() {
        let (cache, table) = (cache(), Table::new());
        let loader = table.loader(&cache, Duration::ZERO, 100);
        let calls = [1, 2].map(|key| waiting(&loader, key));
        drop(calls);
        table.let_end(1);
        assert!(loader.get(&3).await.unwrap().is_some());
        // On several threads the first batch may have left before its callers were dropped.
        assert!(table.asked().iter().flatten().any(|&key| key == 3));
        assert_eq!(table.asked().len() as u64, cache.stats().batches);
    }

    async fn many_keys_that_are_cancelled_are_all_dropped() {
        let (cache, table) = (cache(), Table::new());
        let loader = table.loader(&cache, LONG, 4);
        let mut many = Box::pin(loader.get_many(&[1, 2, 3]));
        assert!(poll_once(&mut many).is_pending());
        let other = waiting(&loader, 3);
        drop(many);
        let mut rest = Box::pin(loader.get_many(&[4, 5, 6]));
        table.let_end(1);
        assert_eq!(poll_once(&mut rest).map(drop), Poll::Pending);
        assert_eq!((rest.await.unwrap().len(), other.await.unwrap()), (3, value("3 of 1")));
        assert_eq!(table.asked(), [[3, 4, 5, 6]]);
    }
}

// A caller is dropped after its batch has left

on_both_runtimes! {
    async fn the_load_goes_on_without_the_first_caller() {
        let (cache, table) = (cache(), Table::new());
        let loader = table.loader(&cache, LONG, 1);
        let first = waiting(&loader, 1);
        let second = waiting(&loader, 1);
        until(|| table.loads.running() == 1).await;
        drop(first);
        table.let_end(1);
        assert_eq!(second.await.unwrap(), value("1 of 1"));
    }

    async fn the_load_goes_on_without_any_caller_and_is_stored() {
        let (cache, table) = (cache(), Table::new());
        let loader = table.loader(&cache, LONG, 2);
        let calls = [1, 2].map(|key| waiting(&loader, key));
        until(|| table.loads.running() == 1).await;
        drop(calls);
        assert_eq!(table.loads.running(), 1);
        table.let_end(1);
        until(|| cache.contains(&1) && cache.contains(&2)).await;
        assert_eq!((cache.get(&2), table.loads.started()), (value("2 of 1"), 1));
    }

    async fn who_comes_after_all_have_left_joins_the_load_that_goes_on() {
        let (cache, table) = (cache(), Table::new());
        let loader = table.loader(&cache, LONG, 1);
        drop(waiting(&loader, 1));
        let comer = waiting(&loader, 1);
        table.let_end(1);
        assert_eq!((comer.await.unwrap(), table.asked().len()), (value("1 of 1"), 1));
    }
}

// The loader is dropped

on_both_runtimes! {
    async fn a_batch_outlives_every_handle_of_its_loader_and_of_the_cache() {
        let (cache, table) = (cache(), Table::new());
        let loader = table.loader(&cache, Duration::ZERO, 100);
        let call = waiting(&loader, 1);
        drop((loader, cache));
        table.let_end(1);
        assert_eq!(call.await.unwrap(), value("1 of 1"));
    }

    async fn a_loader_whose_callers_and_handles_are_gone_is_freed() {
        let (cache, table) = (cache(), Table::new());
        let loader = table.loader(&cache, LONG, 100);
        drop(waiting(&loader, 1));
        drop(loader);
        assert_eq!(Arc::strong_count(&table), 1, "its timer keeps nothing alive");
    }
}

// Values

/// Panics when it is cloned, from a given clone on.
#[derive(Debug)]
struct Grumpy(Arc<AtomicUsize>);

impl Clone for Grumpy {
    fn clone(&self) -> Self {
        assert_ne!(self.0.fetch_sub(1, SeqCst), 0, "no more clones");
        Self(Arc::clone(&self.0))
    }
}

#[test]
fn a_value_whose_clone_panics_hangs_nobody() {
    for patience in 0..6 {
        within_limit(move || {
            one_thread().block_on(async {
                let cache: AsyncCache<u32, Grumpy> = AsyncCache::builder().build().unwrap();
                let loader = BatchLoader::builder(&cache).window(Duration::ZERO).build(
                    move |keys: Vec<u32>| async move {
                        let left = Arc::new(AtomicUsize::new(patience));
                        Ok::<_, String>(keys.iter().map(|_| Grumpy(Arc::clone(&left))).collect::<Vec<_>>())
                    },
                );
                // Each in a task of its own: if the panic belongs to the caller, only that caller
                // panics.
                let callers = [1, 2].map(|key| {
                    let loader = loader.clone();
                    tokio::spawn(async move { loader.get(&key).await.map(drop) })
                });
                for caller in callers {
                    let _ = caller.await; // answered, with any result
                }
            });
        });
    }
}

#[test]
fn a_batch_of_a_hundred_thousand_keys_is_loaded() {
    within_limit(|| {
        several_threads().block_on(async {
            let cache: AsyncCache<u32, u32> = AsyncCache::builder().build().unwrap();
            let loader = BatchLoader::builder(&cache).window(Duration::ZERO).max_size(1000).build(
                |keys: Vec<u32>| async move {
                    Ok::<_, String>(keys.into_iter().map(|key| (key, key * 2)).collect::<HashMap<_, _>>())
                },
            );
            let keys: Vec<u32> = (0..100_000).collect();
            let values = loader.get_many(&keys).await.unwrap();
            assert!(keys.iter().zip(values).all(|(key, value)| value == Some(key * 2)));
            assert_eq!((cache.stats().batches, cache.stats().batched_keys), (100, 100_000));
        });
    });
}
