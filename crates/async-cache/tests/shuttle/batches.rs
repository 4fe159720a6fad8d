//! Batches.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::{Cache, Origin, Outcome, cache, call, check, give_up_after};
use async_cache::BatchLoader;
use shuttle::future::{block_on, spawn};
use shuttle::sync::atomic::Ordering::SeqCst;
use shuttle::thread;

type Loader = BatchLoader<u32, usize, &'static str>;

/// A batch loader over the origin: each key's value is its version. Batches leave when they have
/// `max_size` keys, or when all other tasks had a turn.
fn batches(cache: &Cache, origin: &Arc<Origin>, max_size: usize) -> Loader {
    let origin = Arc::clone(origin);
    BatchLoader::builder(cache).window(Duration::ZERO).max_size(max_size).build(move |keys: Vec<u32>| {
        let origin = Arc::clone(&origin);
        async move {
            let version = origin.load().await?;
            Ok(keys.into_iter().map(|key| (key, version)).collect::<BTreeMap<_, _>>())
        }
    })
}

type BatchCall = Pin<Box<dyn Future<Output = Outcome> + Send>>;

fn call_batch(loader: &Loader, key: u32) -> BatchCall {
    let loader = loader.clone();
    Box::pin(async move { loader.get(&key).await.map(Option::unwrap) })
}

#[test]
fn callers_of_a_batch_are_all_answered_and_each_key_is_asked_for_once() {
    fn scene() {
        let (cache, origin) = (cache(), Arc::new(Origin::default()));
        let loader = batches(&cache, &origin, 2);
        let others = [1, 2].map(|key| spawn(call_batch(&loader, key)));
        let single = spawn(call(&cache, &origin));
        assert_eq!(block_on(call_batch(&loader, 1)).unwrap(), 0);
        for other in others {
            assert_eq!(block_on(other).unwrap().unwrap(), 0);
        }
        assert_eq!(block_on(single).unwrap().unwrap(), 0);
        assert_eq!((cache.stats().loads, cache.len()), (2, 2));
    }
    check(scene);
}

/// A scene that ends earlier drops tasks in the middle of their work, and a dropped task may hold a
/// lock that another task's destructor needs. For scenes in which every key is stored at most once.
fn until_every_flight_has_ended(cache: &Cache) {
    let is_over = || {
        let stats = cache.stats();
        stats.load_errors + cache.len() as u64 == stats.loads
    };
    while !is_over() {
        thread::yield_now();
    }
}

/// The last caller leaves, another caller arrives, and the batch leaves: in any order.
#[test]
fn whoever_stays_is_answered_whether_the_others_leave_before_the_batch_or_after() {
    fn scene() {
        let (cache, origin) = (cache(), Arc::new(Origin::default()));
        let loader = batches(&cache, &origin, 2);
        let leaving = [(1, 1), (1, 2), (2, 1)]
            .map(|(key, polls)| spawn(give_up_after(call_batch(&loader, key), polls)));
        let stays = spawn(call_batch(&loader, 1));
        assert_eq!(block_on(stays).unwrap().unwrap(), 0);
        for leaver in leaving {
            block_on(leaver).unwrap();
        }
        assert_eq!(cache.get(&1), Some(0));
        until_every_flight_has_ended(&cache);
    }
    check(scene);
}

/// Keys that had left are stored, others are dropped: in either case their flights end.
#[test]
fn when_all_leave_every_flight_of_a_batch_ends() {
    fn scene() {
        let (cache, origin) = (cache(), Arc::new(Origin::default()));
        let loader = batches(&cache, &origin, 3);
        let leaving =
            [(1, 1), (2, 2)].map(|(key, polls)| spawn(give_up_after(call_batch(&loader, key), polls)));
        for leaver in leaving {
            block_on(leaver).unwrap();
        }
        // A batch that has left continues.
        until_every_flight_has_ended(&cache);
        assert_eq!(block_on(call_batch(&loader, 1)).unwrap(), 0);
    }
    check(scene);
}

#[test]
fn a_batch_that_began_before_a_delete_never_lands_after_it() {
    fn scene() {
        let (cache, origin) = (cache(), Arc::new(Origin::default()));
        let loader = batches(&cache, &origin, 2);
        let callers = [1, 2].map(|key| spawn(call_batch(&loader, key)));
        let quits = spawn(give_up_after(call_batch(&loader, 1), 2));
        let (written, writing, asks) = (cache.clone(), Arc::clone(&origin), loader.clone());
        let writer = thread::spawn(move || {
            writing.version.store(1, SeqCst);
            written.delete(&1);
            assert_ne!(written.get(&1), Some(0), "stored after it was overtaken");
            assert_eq!(block_on(call_batch(&asks, 1)).unwrap(), 1, "joined a batch that was overtaken");
        });
        for caller in callers {
            block_on(caller).unwrap().unwrap();
        }
        block_on(quits).unwrap();
        writer.join().unwrap();
        assert_eq!(cache.get(&1), Some(1), "an older batch landed last");
    }
    check(scene);
}
