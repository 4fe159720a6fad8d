//! Keys that are gathered into batches, the window, and the permitted results of a loader.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use super::{Cache, LONG, Loader, Table, at_once, cache, call, value, waiting};
use crate::stage::{Loads, on_both_runtimes, one_thread, poll_once, until, within_limit};
use async_cache::{AsyncCache, BatchLoader, Clock, LoadError};
use tokio::sync::Semaphore;

on_both_runtimes! {
    async fn keys_of_several_callers_are_asked_for_in_one_call_each_once() {
        let (cache, table) = (cache(), Table::new());
        let loader = table.loader(&cache, LONG, 3);
        let calls = [1, 2, 1, 3].map(|key| waiting(&loader, key));
        table.let_end(1);
        let mut values = Vec::new();
        for call in calls {
            values.push(call.await.unwrap().unwrap());
        }
        assert_eq!(values, ["1 of 1", "2 of 1", "1 of 1", "3 of 1"]);
        assert_eq!(table.asked(), [[1, 2, 3]]);
        let stats = cache.stats();
        assert_eq!((stats.batches, stats.batched_keys, stats.loads, stats.joined), (1, 3, 3, 1));
        assert_eq!((stats.misses, stats.load_errors, cache.get(&2)), (4, 0, value("2 of 1")));
    }

    async fn seven_keys_in_batches_of_three_leave_as_three_and_three_and_one() {
        let (cache, table) = (cache(), Table::new());
        let loader = table.loader(&cache, Duration::ZERO, 3);
        table.let_end(3);
        let values = loader.get_many(&[1, 2, 3, 4, 5, 6, 7]).await.unwrap();
        assert_eq!(values.iter().flatten().count(), 7);
        let mut asked = table.asked();
        asked.sort();
        assert_eq!(asked, [vec![1, 2, 3], vec![4, 5, 6], vec![7]]);
    }

    async fn a_size_of_one_gathers_nothing() {
        let (cache, table) = (cache(), Table::new());
        let loader = table.loader(&cache, LONG, 0); // equivalent to 1
        table.let_end(2);
        let (one, two) = tokio::join!(loader.get(&1), loader.get(&2));
        assert!(one.unwrap().is_some() && two.unwrap().is_some());
        assert_eq!(table.asked().len(), 2);
    }

    async fn a_slow_batch_delays_no_other_one() {
        let (cache, table) = (cache(), Table::new());
        let loader = table.loader(&cache, LONG, 1);
        let slow = waiting(&loader, 1);
        until(|| table.loads.running() == 1).await;
        let quick = at_once(&cache, |keys| Ok(keys.iter().map(ToString::to_string).collect::<Vec<_>>()));
        assert_eq!(quick.get(&2).await.unwrap(), value("2"));
        let second = waiting(&loader, 3);
        until(|| table.loads.running() == 2).await;
        table.let_end(2);
        assert!(slow.await.unwrap().is_some() && second.await.unwrap().is_some());
    }

    async fn different_loaders_do_not_mix() {
        let (cache, tables) = (cache(), [Table::new(), Table::new()]);
        let loaders = [0, 1].map(|at: usize| tables[at].loader(&cache, Duration::ZERO, 100));
        for table in &tables {
            table.let_end(1);
        }
        let (one, two) = tokio::join!(loaders[0].get(&1), loaders[1].get(&2));
        assert!(one.unwrap().is_some() && two.unwrap().is_some());
        assert_eq!((tables[0].asked(), tables[1].asked()), (vec![vec![1]], vec![vec![2]]));
    }

    async fn a_key_that_another_loader_loads_is_joined() {
        let (cache, tables) = (cache(), [Table::new(), Table::new()]);
        let loaders = [0, 1].map(|at: usize| tables[at].loader(&cache, LONG, 1));
        let first = waiting(&loaders[0], 1);
        let second = waiting(&loaders[1], 1);
        tables[0].let_end(1);
        assert_eq!((first.await.unwrap(), second.await.unwrap()), (value("1 of 1"), value("1 of 1")));
        assert!(tables[1].asked().is_empty());
    }
}

// Single loads and batches

on_both_runtimes! {
    async fn a_single_load_joins_the_batch_of_its_key() {
        let (cache, table) = (cache(), Table::new());
        let loader = table.loader(&cache, LONG, 2);
        let batched = waiting(&loader, 1);
        let never = || async { panic!("the batch has it") };
        let mut single = Box::pin(cache.get_or_load::<_, _, _, String>(&1, never));
        assert!(poll_once(&mut single).is_pending());
        let full = waiting(&loader, 2);
        table.let_end(1);
        assert_eq!(single.await.unwrap(), "1 of 1");
        assert_eq!((batched.await.unwrap(), full.await.unwrap()), (value("1 of 1"), value("2 of 1")));
    }

    async fn a_batch_caller_joins_the_single_load_of_his_key() {
        let (cache, table, loads) = (cache(), Table::new(), Loads::new());
        let loader = table.loader(&cache, LONG, 1);
        let mut single = Box::pin(cache.get_or_load(&1, loads.load(Ok::<_, String>("single".to_owned()))));
        assert!(poll_once(&mut single).is_pending());
        let batched = waiting(&loader, 1);
        loads.let_end(1);
        assert_eq!((single.await.unwrap().as_str(), batched.await.unwrap()), ("single", value("single")));
        assert!(table.asked().is_empty());
    }

    /// The batch loader does not know the key; the caller with a loader of its own loads the key.
    async fn a_single_load_that_joined_a_key_without_a_value_loads_with_its_own_loader() {
        let (cache, loads) = (cache(), Loads::new());
        let leave = Arc::new(Semaphore::new(0));
        let waits = Arc::clone(&leave);
        let loader: Loader = BatchLoader::builder(&cache).max_size(1).build(move |_| {
            let waits = Arc::clone(&waits);
            async move {
                waits.acquire().await.unwrap().forget();
                Ok(HashMap::<u32, String>::new())
            }
        });
        let batched = waiting(&loader, 1);
        let mut single = Box::pin(cache.get_or_load(&1, loads.load(Ok::<_, u8>("own".to_owned()))));
        assert!(poll_once(&mut single).is_pending());
        leave.add_permits(1);
        loads.let_end(1);
        assert_eq!((batched.await.unwrap(), single.await.unwrap().as_str()), (None, "own"));
    }

    async fn a_batch_caller_who_joined_a_loader_of_another_error_type_asks_in_a_batch() {
        let (cache, table, loads) = (cache(), Table::new(), Loads::new());
        let loader = table.loader(&cache, LONG, 1);
        let mut single = Box::pin(cache.get_or_load(&1, loads.load(Err::<String, u8>(7))));
        assert!(poll_once(&mut single).is_pending());
        let batched = waiting(&loader, 1);
        loads.let_end(1);
        table.let_end(1);
        assert_eq!(single.await.unwrap_err().loader_error(), Some(&7));
        assert_eq!(batched.await.unwrap(), value("1 of 1"));
    }
}

// Many keys at once

on_both_runtimes! {
    async fn many_keys_come_in_the_order_they_were_asked_for_and_as_often() {
        let (cache, table) = (cache(), Table::new());
        let loader = table.loader(&cache, Duration::ZERO, 100);
        table.let_end(1);
        let values = loader.get_many(&[3, 1, 3, 2, 1]).await.unwrap();
        let values: Vec<_> = values.into_iter().flatten().collect();
        assert_eq!(values, ["3 of 1", "1 of 1", "3 of 1", "2 of 1", "1 of 1"]);
        assert_eq!(table.asked(), [[3, 1, 2]]);
    }

    async fn of_many_keys_only_those_are_asked_for_that_are_not_cached() {
        let (cache, table) = (cache(), Table::new());
        let loader = table.loader(&cache, Duration::ZERO, 100);
        cache.set(2, "known".to_owned());
        table.let_end(1);
        let values = loader.get_many(&[1, 2, 3]).await.unwrap();
        assert_eq!(values, [value("1 of 1"), value("known"), value("3 of 1")]);
        assert_eq!((table.asked(), cache.stats().hits, cache.stats().misses), (vec![vec![1, 3]], 1, 2));
        assert_eq!(loader.get_many(&[3, 2, 1]).await.unwrap().iter().flatten().count(), 3);
        assert_eq!((table.asked().len(), cache.stats().hits), (1, 4), "all are cached now");
    }

    async fn many_keys_may_be_asked_for_in_a_task_of_their_own() {
        let (cache, table) = (cache(), Table::new());
        let loader = table.loader(&cache, Duration::ZERO, 100);
        table.let_end(1);
        let keys = vec![1, 2];
        let asking = tokio::spawn(async move { loader.get_many(&keys).await.unwrap().len() });
        assert_eq!(asking.await.unwrap(), 2);
    }

    async fn no_keys_are_no_batch() {
        let (cache, table) = (cache(), Table::new());
        assert!(table.loader(&cache, LONG, 1).get_many::<u32>([]).await.unwrap().is_empty());
        assert!(table.asked().is_empty());
    }

    async fn each_of_many_keys_has_its_own_error() {
        let cache = cache();
        let loader = at_once(&cache, |keys| {
            Ok(keys.into_iter().map(|key| match key {
                1 => Ok(None),
                2 => Err("no 2".to_owned()),
                key => Ok(value(&key.to_string())),
            }).collect::<Vec<Result<Option<String>, String>>>())
        });
        let each = loader.get_each(&[1, 2, 3]).await;
        assert_eq!(each[0].as_ref().unwrap(), &None);
        assert_eq!(each[1].as_ref().unwrap_err().loader_error().unwrap(), "no 2");
        assert_eq!(each[2].as_ref().unwrap(), &value("3"));
        let all = loader.get_many(&[1, 2, 3]).await;
        assert_eq!(all.unwrap_err().loader_error().unwrap(), "no 2");
        let stats = cache.stats();
        assert_eq!((cache.len(), stats.load_errors), (1, 2), "a key without a value is no error, and not stored");
    }

    async fn keys_are_asked_for_by_what_they_borrow_as() {
        let cache: AsyncCache<String, usize> = AsyncCache::builder().build().unwrap();
        let lengths = BatchLoader::builder(&cache).window(Duration::ZERO).build(|keys: Vec<String>| async move {
            Ok::<_, String>(keys.into_iter().map(|key| (key.clone(), key.len())).collect::<BTreeMap<_, _>>())
        });
        assert_eq!(lengths.get("four").await.unwrap(), Some(4));
        assert_eq!(lengths.get_many(["a", "four"]).await.unwrap(), [Some(1), Some(4)]);
    }
}

// Permitted results of a loader

on_both_runtimes! {
    async fn a_map_may_lack_keys_and_have_others() {
        let cache = cache();
        let loader = at_once(&cache, |_| Ok(BTreeMap::from([(2, "two".to_owned()), (9, "nine".to_owned())])));
        assert_eq!(loader.get_many(&[1, 2]).await.unwrap(), [None, value("two")]);
        assert_eq!((cache.len(), cache.get(&9)), (1, None), "what was not asked for is not stored");
    }

    async fn a_key_without_a_value_is_asked_for_again() {
        let (cache, asked) = (cache(), Arc::new(AtomicUsize::new(0)));
        let counts = Arc::clone(&asked);
        let loader = at_once(&cache, move |keys| {
            counts.fetch_add(keys.len(), SeqCst);
            Ok(HashMap::<u32, String>::new())
        });
        assert_eq!((loader.get(&1).await.unwrap(), loader.get(&1).await.unwrap()), (None, None));
        assert_eq!(asked.load(SeqCst), 2);
    }

    async fn a_cache_of_options_remembers_what_is_not_there() {
        let cache: AsyncCache<u32, Option<String>> = AsyncCache::builder().build().unwrap();
        let loader = BatchLoader::builder(&cache).window(Duration::ZERO).build(|keys: Vec<u32>| async move {
            Ok::<_, String>(keys.into_iter().map(|key| (key, None)).collect::<HashMap<u32, Option<String>>>())
        });
        assert_eq!((loader.get(&1).await.unwrap(), cache.get(&1)), (Some(None), Some(None)));
    }

    async fn a_list_of_another_length_is_an_error_that_says_both_numbers() {
        let cache = cache();
        let loader = at_once(&cache, |_| Ok(vec!["one".to_owned()]));
        let errors: Vec<_> = loader.get_each(&[1, 2, 3]).await.into_iter().map(Result::unwrap_err).collect();
        assert_eq!(errors.len(), 3);
        for error in errors {
            assert!(matches!(error, LoadError::WrongCount { asked: 3, returned: 1 }), "{error:?}");
            assert!(error.to_string().contains("asked for 3 keys and returned 1 values"), "{error}");
        }
        assert_eq!((cache.len(), cache.stats().load_errors), (0, 3));
    }

    async fn a_list_of_options_may_lack_keys() {
        let cache = cache();
        let loader = at_once(&cache, |keys| Ok(keys.iter().map(|&key| (key == 2).then(|| "two".to_owned())).collect::<Vec<_>>()));
        assert_eq!(loader.get_many(&[1, 2]).await.unwrap(), [None, value("two")]);
    }

    async fn what_is_loaded_lives_as_long_as_the_loader_says() {
        let (clock, hands) = Clock::manual();
        let cache: Cache = AsyncCache::builder().clock(clock).default_ttl(LONG).build().unwrap();
        let minute = Some(Duration::from_secs(60));
        let loader: Loader = BatchLoader::builder(&cache).window(Duration::ZERO).ttl(minute).build(|keys| async move {
            Ok(keys.iter().map(ToString::to_string).collect::<Vec<_>>())
        });
        loader.get(&1).await.unwrap();
        hands.advance(Duration::from_secs(59));
        assert_eq!(cache.get(&1), value("1"));
        hands.advance(Duration::from_secs(1));
        assert_eq!(cache.get(&1), None);
    }
}

// The window

#[test]
fn a_window_of_zero_gathers_what_is_asked_in_one_turn() {
    within_limit(|| {
        one_thread().block_on(async {
            let (cache, table) = (cache(), Table::new());
            let loader = table.loader(&cache, Duration::ZERO, 100);
            table.let_end(2);
            let other = tokio::spawn(call(&loader, 3));
            let (one, two) = tokio::join!(loader.get(&1), loader.get(&2));
            assert_eq!((one.unwrap(), two.unwrap()), (value("1 of 1"), value("2 of 1")));
            assert_eq!(other.await.unwrap().unwrap(), value("3 of 1"));
            assert_eq!(loader.get(&4).await.unwrap(), value("4 of 2"));
        });
    });
}

/// Tokio's time stands still until all tasks wait; then it advances to the next timer.
#[test]
fn a_batch_leaves_when_its_window_is_over() {
    within_limit(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let (cache, table) = (cache(), Table::new());
            let loader = table.loader(&cache, Duration::from_millis(50), 100);
            table.let_end(2);
            let first = waiting(&loader, 1);
            tokio::time::sleep(Duration::from_millis(49)).await;
            let second = waiting(&loader, 2);
            assert!(table.asked().is_empty(), "the window is not over");
            tokio::time::sleep(Duration::from_millis(2)).await;
            assert_eq!(table.asked(), [[1, 2]]);
            assert!(first.await.unwrap().is_some() && second.await.unwrap().is_some());
            assert!(loader.get(&3).await.unwrap().is_some());
            assert_eq!(table.asked(), [vec![1, 2], vec![3]]);
        });
    });
}

#[test]
fn a_runtime_without_a_timer_is_an_error_that_says_so_unless_the_window_is_zero() {
    within_limit(|| {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
            let (cache, table) = (cache(), Table::new());
            table.let_end(1);
            let error = table.loader(&cache, LONG, 100).get(&1).await.unwrap_err();
            assert!(error.to_string().contains("enable_time"), "{error}");
            assert!(table.asked().is_empty());
            let value = table.loader(&cache, Duration::ZERO, 100).get(&1).await;
            assert!(value.unwrap().is_some());
        });
    });
}
