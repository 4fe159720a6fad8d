//! Loaders that fail, panic or ask for their own keys, and writes that overtake a batch.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::{Cache, LONG, Loader, Table, at_once, cache, value, waiting};
use crate::stage::{on_both_runtimes, until};
use async_cache::{AsyncCache, BatchLoader, LoadError};

on_both_runtimes! {
    async fn every_caller_of_the_batch_gets_the_same_error_and_the_next_call_asks_anew() {
        let (cache, calls) = (cache(), Arc::new(AtomicUsize::new(0)));
        let counts = Arc::clone(&calls);
        let loader = at_once(&cache, move |keys| match counts.fetch_add(1, SeqCst) {
            0 => Err("no".to_owned()),
            _ => Ok(keys.iter().map(ToString::to_string).collect::<Vec<_>>()),
        });
        let each = loader.get_each(&[1, 2]).await;
        let [Err(LoadError::Failed(first)), Err(LoadError::Failed(second))] = &each[..] else { panic!("{each:?}") };
        assert!(Arc::ptr_eq(first, second), "shared, not cloned");
        assert_eq!((first.as_str(), cache.len(), cache.stats().load_errors), ("no", 0, 2));
        assert_eq!(loader.get(&1).await.unwrap(), value("1"));
    }

    async fn a_batch_that_fails_leaves_other_batches_alone() {
        let (cache, table) = (cache(), Table::new());
        let slow = table.loader(&cache, LONG, 1);
        let other = waiting(&slow, 2);
        let fails = at_once(&cache, |_| Err::<Vec<String>, _>("no".to_owned()));
        fails.get(&1).await.unwrap_err();
        table.let_end(1);
        assert_eq!(other.await.unwrap(), value("2 of 1"));
    }

    async fn every_caller_hears_of_a_panic_at_once() {
        let cache = cache();
        let loader: Loader = at_once(&cache, |keys| -> Result<Vec<String>, _> { panic!("{} keys are too many", keys.len()) });
        for (at, outcome) in loader.get_each(&[1, 2]).await.into_iter().enumerate() {
            let error = outcome.unwrap_err();
            let LoadError::Panicked { key, message } = &error else { panic!("{error:?}") };
            assert_eq!((key, message.as_str()), (&(at + 1).to_string(), "2 keys are too many"));
        }
        assert_eq!((cache.len(), cache.stats().load_errors), (0, 2));
    }

    async fn every_caller_hears_of_a_panic_after_a_wait() {
        let (cache, table) = (cache(), Table::new());
        let inner = table.loader(&cache, LONG, 1);
        let loader: Loader = BatchLoader::builder(&cache).max_size(1).build(move |_| {
            let inner = inner.clone();
            async move {
                inner.get(&9).await.unwrap();
                panic!("after a wait");
                #[allow(unreachable_code)]
                Ok(Vec::<String>::new())
            }
        });
        let callers = [waiting(&loader, 1), waiting(&loader, 1)];
        table.let_end(1);
        for caller in callers {
            assert!(caller.await.unwrap_err().to_string().ends_with("after a wait"));
        }
    }

    async fn a_batch_whose_loader_panics_when_it_is_dropped_still_answers() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                assert!(std::thread::panicking(), "in the destructor");
            }
        }
        let cache = cache();
        let loader: Loader = BatchLoader::builder(&cache).max_size(1).build(|_| {
            let bomb = Bomb;
            async move {
                let _bomb = bomb;
                Ok(vec!["value".to_owned()])
            }
        });
        let error = loader.get(&1).await.unwrap_err();
        assert!(error.to_string().contains("in the destructor"), "{error}");
    }
}

// The loader asks for a key of its own batch

/// A loader that first asks itself for `asks`, unless it already loads that key.
fn asking(cache: &Cache, max_size: usize, asks: fn(u32) -> Option<u32>) -> Loader {
    let itself: Arc<OnceLock<Loader>> = Arc::default();
    let knows = Arc::clone(&itself);
    let loader =
        BatchLoader::builder(cache).window(Duration::ZERO).max_size(max_size).build(move |keys: Vec<u32>| {
            let loader = knows.get().unwrap().clone();
            async move {
                for &key in &keys {
                    if let Some(other) = asks(key) {
                        loader.get(&other).await.map_err(|error| error.to_string())?;
                    }
                }
                Ok(keys.iter().map(ToString::to_string).collect::<Vec<_>>())
            }
        });
    itself.set(loader.clone()).unwrap();
    loader
}

on_both_runtimes! {
    async fn a_loader_that_asks_for_a_key_of_its_batch_gets_an_error_that_names_it() {
        let cache = cache();
        let loader = asking(&cache, 2, |key| (key == 1).then_some(2));
        for outcome in loader.get_each(&[1, 2]).await {
            let error = outcome.unwrap_err().to_string();
            assert!(error.contains("the loader of key 2 asked for the key that it is loading"), "{error}");
        }
    }

    async fn batches_that_ask_for_each_other_all_end() {
        let cache = cache();
        let loader = asking(&cache, 1, |key| Some(3 - key));
        let outcomes = loader.get_each(&[1, 2]).await;
        assert!(outcomes.iter().any(Result::is_err), "{outcomes:?}");
        for error in outcomes.into_iter().filter_map(Result::err) {
            assert!(error.to_string().contains("asked for the key that it is loading"), "{error}");
        }
    }

    async fn a_batch_and_a_single_load_that_ask_for_each_other_both_end() {
        let cache = cache();
        let of_loader = cache.clone();
        let loader: Loader = BatchLoader::builder(&cache).window(Duration::ZERO).build(move |_| {
            let cache = of_loader.clone();
            async move {
                let nothing = || async { Ok::<_, String>("single".to_owned()) };
                let other = cache.get_or_load(&1, nothing).await;
                other.map(|other| vec![other]).map_err(|error| error.to_string())
            }
        });
        let asks = loader.clone();
        let single = cache.get_or_load(&1, move || async move {
            asks.get(&2).await.map(Option::unwrap).map_err(|error| error.to_string())
        });
        let error = single.await.unwrap_err().to_string();
        assert!(error.contains("asked for the key that it is loading"), "{error}");
    }

    async fn a_loader_may_ask_for_keys_of_other_batches() {
        let cache = cache();
        let loader = asking(&cache, 2, |key| (key < 10).then_some(key + 10));
        assert_eq!(loader.get_many(&[1, 2]).await.unwrap(), [value("1"), value("2")]);
        assert_eq!(cache.len(), 4);
    }
}

// A write overtakes the load

fn writes() -> [fn(&Cache); 3] {
    [|cache| cache.set(1, "written".to_owned()), |cache| cache.delete(&1), AsyncCache::clear]
}

on_both_runtimes! {
    async fn a_key_that_is_written_before_its_batch_has_left_is_loaded_for_who_waits_and_not_stored() {
        for write in writes() {
            let (cache, table) = (cache(), Table::new());
            let loader = table.loader(&cache, LONG, 2);
            let early = waiting(&loader, 1);
            write(&cache);
            let written = cache.get(&1);
            let full = waiting(&loader, 2);
            table.let_end(1);
            assert_eq!((early.await.unwrap(), full.await.unwrap()), (value("1 of 1"), value("2 of 1")));
            assert_eq!(cache.get(&1), written);
        }
    }

    async fn a_key_that_is_written_after_its_batch_has_left_answers_who_waits_and_is_not_stored() {
        for write in writes() {
            let (cache, table) = (cache(), Table::new());
            let loader = table.loader(&cache, LONG, 1);
            let early = waiting(&loader, 1);
            until(|| table.loads.running() == 1).await;
            write(&cache);
            let written = cache.get(&1);
            table.let_end(1);
            assert_eq!((early.await.unwrap(), cache.get(&1)), (value("1 of 1"), written));
        }
    }

    async fn who_asks_after_an_invalidation_is_not_answered_by_a_batch_that_left_before() {
        for write in &writes()[1..] {
            let (cache, table) = (cache(), Table::new());
            let loader = table.loader(&cache, LONG, 1);
            let early = waiting(&loader, 1);
            until(|| table.loads.running() == 1).await;
            write(&cache);
            let late = waiting(&loader, 1);
            until(|| table.loads.running() == 2).await;
            table.let_end(2);
            assert_eq!((early.await.unwrap(), late.await.unwrap()), (value("1 of 1"), value("1 of 2")));
            assert_eq!(cache.get(&1), value("1 of 2"));
        }
    }

    /// Two flights of one key, then: the first answers callers from before the write, the second is
    /// stored.
    async fn a_key_that_is_asked_for_again_in_the_same_batch_is_asked_for_once() {
        let (cache, table) = (cache(), Table::new());
        let loader = table.loader(&cache, LONG, 3);
        let early = waiting(&loader, 1);
        cache.delete(&1);
        let late = waiting(&loader, 1);
        let full = waiting(&loader, 2);
        table.let_end(1);
        assert_eq!((early.await.unwrap(), late.await.unwrap()), (value("1 of 1"), value("1 of 1")));
        assert_eq!(full.await.unwrap(), value("2 of 1"));
        assert_eq!((table.asked(), cache.get(&1)), (vec![vec![1, 2]], value("1 of 1")));
        assert_eq!((cache.stats().batched_keys, cache.stats().fenced), (2, 1));
    }
}
