//! Batches: which keys leave together, what the callers get, and every cell of the table of
//! batches: on a single-threaded and on a multi-threaded runtime. A hang is a failure.
#![allow(clippy::async_yields_async)] // calls are deliberately returned unawaited

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::Poll;
use std::time::Duration;

use crate::stage::{
    Loads, Running, on_both_runtimes, one_thread, poll_once, several_threads, until, within_limit,
};
use async_cache::{AsyncCache, BatchLoader, Clock, LoadError};
use tokio::sync::Semaphore;

type Cache = AsyncCache<u32, String>;
type Loader = BatchLoader<u32, String, String>;
type Outcome = Result<Option<String>, LoadError<String>>;
type Call = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// The window of a batch that leaves only when the test says: no test waits for real time.
const LONG: Duration = Duration::from_secs(100_000);

fn cache() -> Cache {
    AsyncCache::builder().build().unwrap()
}

/// A table queried in batches: its queries, and loads that end when the test says.
struct Table {
    asked: Mutex<Vec<Vec<u32>>>,
    loads: Arc<Loads>,
    leave: Semaphore,
}

impl Table {
    fn new() -> Arc<Self> {
        Arc::new(Self { asked: Mutex::default(), loads: Loads::new(), leave: Semaphore::new(0) })
    }

    fn asked(&self) -> Vec<Vec<u32>> {
        self.asked.lock().unwrap().clone()
    }

    fn let_end(&self, batches: usize) {
        self.leave.add_permits(batches);
    }

    /// A loader of at most `max_size` keys, whose results contain the number of the batch.
    fn loader(self: &Arc<Self>, cache: &Cache, window: Duration, max_size: usize) -> Loader {
        let table = Arc::clone(self);
        BatchLoader::builder(cache).window(window).max_size(max_size).build(move |keys| {
            let table = Arc::clone(&table);
            async move {
                let _running = Running::begin(&table.loads);
                let number = {
                    let mut asked = table.asked.lock().unwrap();
                    asked.push(keys.clone());
                    asked.len()
                };
                table.leave.acquire().await.unwrap().forget();
                Ok(keys.into_iter().map(|key| (key, format!("{key} of {number}"))).collect::<HashMap<_, _>>())
            }
        })
    }
}

fn call(loader: &Loader, key: u32) -> Call {
    let loader = loader.clone();
    Box::pin(async move { loader.get(&key).await })
}

/// A call that gathers, or has joined, and is not polled any more.
fn waiting(loader: &Loader, key: u32) -> Call {
    let mut call = call(loader, key);
    assert!(poll_once(&mut call).is_pending(), "it has to wait");
    call
}

#[allow(clippy::unnecessary_wraps)] // compared with the result of a call
fn value(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// A loader that does not wait, and returns `answer` of its keys.
fn at_once<A, F>(cache: &Cache, answer: F) -> Loader
where
    A: async_cache::BatchAnswer<u32, String, String> + Send + 'static,
    F: Fn(Vec<u32>) -> Result<A, String> + Send + Sync + 'static,
{
    BatchLoader::builder(cache).window(Duration::ZERO).build(move |keys| {
        let answer = answer(keys);
        async move { answer }
    })
}

// Keys that leave together

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

// A caller is dropped before its batch has left

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

// The loader fails

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

// A runtime shuts down

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
