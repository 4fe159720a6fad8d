//! Batches: one read for all keys, one call of the loader for those that nobody has.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use async_cache::BatchLoader;
use parking_lot::Mutex;

use crate::support::{Cache, Origin, cache, each, shows, soon};

type Calls = Arc<Mutex<Vec<Vec<String>>>>;

/// A batch loader that notes the keys of its calls, and takes its time.
fn loader(cache: &Cache, takes: Duration) -> (BatchLoader<String, String, Infallible>, Calls) {
    let calls = Calls::default();
    let noted = Arc::clone(&calls);
    let loader = BatchLoader::builder(cache).window(Duration::ZERO).build(move |keys: Vec<String>| {
        noted.lock().push(keys.clone());
        async move {
            tokio::time::sleep(takes).await;
            Ok(keys.into_iter().map(|key| (key.clone(), format!("loaded {key}"))).collect::<HashMap<_, _>>())
        }
    });
    (loader, calls)
}

#[test]
fn the_loader_is_asked_for_what_nobody_has() {
    each(async |server| {
        let (one, two) = (cache(&server).await, cache(&server).await);
        one.set("a".into(), "set a".into());
        one.set("b".into(), "set b".into());
        shows(&two, "b", Some("set b")).await;
        let (loader, calls) = loader(&two, Duration::ZERO);
        let values = loader.get_many(["c", "a", "b", "d"]).await.unwrap();
        let values: Vec<_> = values.iter().map(Option::as_deref).collect();
        assert_eq!(values, [Some("loaded c"), Some("set a"), Some("set b"), Some("loaded d")]);
        assert_eq!(*calls.lock(), [["c", "d"]]);
        shows(&one, "c", Some("loaded c")).await;
        assert_eq!(two.stats().batched_keys, 2);
    });
}

#[test]
fn a_key_that_another_process_loads_holds_up_no_other() {
    each(async |server| {
        let (one, two, origin) = (cache(&server).await, cache(&server).await, Origin::default());
        let slow = {
            let (one, origin) = (one.clone(), origin.clone());
            tokio::spawn(async move { origin.get(&one, "slow", Duration::from_millis(300)).await })
        };
        soon("it loads", || origin.loads() == 1).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        let (loader, calls) = loader(&two, Duration::ZERO);
        let both = loader.get_many(["slow", "quick"]);
        let quick = async {
            shows(&two, "quick", Some("loaded quick")).await;
            assert!(!slow.is_finished(), "it waited for the other process");
        };
        let (both, ()) = tokio::join!(both, quick);
        assert_eq!(both.unwrap(), [Some("0".to_owned()), Some("loaded quick".to_owned())]);
        assert_eq!(*calls.lock(), [["quick"]]);
        assert_eq!(slow.await.unwrap(), "0");
    });
}

#[test]
fn two_processes_load_each_key_of_their_batches_once() {
    each(async |server| {
        let (one, two) = (cache(&server).await, cache(&server).await);
        let (first, first_calls) = loader(&one, Duration::from_millis(30));
        let (second, second_calls) = loader(&two, Duration::from_millis(30));
        let keys: Vec<_> = (0..50).map(|key| key.to_string()).collect();
        let keys = || keys.iter().map(String::as_str);
        let (one, two) = tokio::join!(first.get_many(keys()), second.get_many(keys()));
        assert_eq!(one.unwrap(), two.unwrap());
        let mut loaded: Vec<_> =
            first_calls.lock().iter().chain(&*second_calls.lock()).flatten().cloned().collect();
        let calls = loaded.len();
        loaded.sort();
        loaded.dedup();
        assert_eq!((calls, loaded.len()), (50, 50));
    });
}
