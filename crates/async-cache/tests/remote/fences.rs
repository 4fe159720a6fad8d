//! Loads that are older than an invalidation are stored nowhere.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::support::{Cache, Origin, cache, each, hears, soon};

const NOW: Duration = Duration::ZERO;

/// Begins a load that ends when the test says.
async fn begin(cache: &Cache, value: &str) -> (tokio::task::JoinHandle<String>, Arc<Semaphore>) {
    let (end, begun) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicU64::new(0)));
    let load = {
        let (end, begun, value) = (Arc::clone(&end), Arc::clone(&begun), value.to_owned());
        move || async move {
            begun.fetch_add(1, SeqCst);
            end.acquire().await.unwrap().forget();
            Ok::<_, Infallible>(value)
        }
    };
    let cache = cache.clone();
    let call = tokio::spawn(async move { cache.get_or_load("key", load).await.unwrap() });
    soon("it loads", || begun.load(SeqCst) == 1).await;
    (call, end)
}

#[test]
fn of_two_loads_of_a_process_the_one_before_the_invalidation_is_not_stored() {
    each(async |server| {
        let (one, two) = (cache(&server).await, cache(&server).await);
        let (old, end_old) = begin(&one, "old").await;
        one.delete("key");
        let (new, end_new) = begin(&one, "new").await;
        end_old.add_permits(1);
        assert_eq!(old.await.unwrap(), "old");
        hears(&one).await;
        assert_eq!((one.get("key"), two.fetch("key").await), (None, None));
        end_new.add_permits(1);
        assert_eq!(new.await.unwrap(), "new");
        hears(&one).await;
        assert_eq!(two.fetch("key").await.as_deref(), Some("new"));
        assert_eq!(one.fetch("key").await.as_deref(), Some("new"));
    });
}

#[test]
fn a_load_before_an_invalidation_elsewhere_does_not_follow_a_newer_one() {
    each(async |server| {
        let (one, two) = (cache(&server).await, cache(&server).await);
        let (old, end_old) = begin(&one, "old").await;
        two.delete("key");
        hears(&two).await;
        hears(&one).await;
        let (new, end_new) = begin(&two, "new").await;
        end_new.add_permits(1);
        assert_eq!(new.await.unwrap(), "new");
        end_old.add_permits(1);
        assert_eq!(old.await.unwrap(), "old");
        hears(&one).await;
        assert_eq!(one.fetch("key").await.as_deref(), Some("new"));
        assert_eq!(two.fetch("key").await.as_deref(), Some("new"));
    });
}

#[test]
fn a_load_before_a_clear_is_stored_nowhere() {
    each(async |server| {
        let (one, two) = (cache(&server).await, cache(&server).await);
        for clears in [&one, &two] {
            let (old, end_old) = begin(&one, "old").await;
            clears.clear();
            hears(clears).await;
            // The second answer comes after the answer about the generation.
            hears(&one).await;
            hears(&one).await;
            end_old.add_permits(1);
            assert_eq!(old.await.unwrap(), "old");
            hears(&one).await;
            assert_eq!((one.get("key"), two.fetch("key").await), (None, None));
            let origin = Origin::default();
            assert_eq!(origin.get(&one, "key", NOW).await, "0");
            hears(&one).await;
            assert_eq!(two.fetch("key").await.as_deref(), Some("0"));
            one.delete("key");
        }
    });
}

#[test]
fn a_set_elsewhere_wins_over_a_load() {
    each(async |server| {
        let (one, two) = (cache(&server).await, cache(&server).await);
        let (old, end_old) = begin(&one, "old").await;
        two.set("key".into(), "set".into());
        hears(&two).await;
        end_old.add_permits(1);
        assert_eq!(old.await.unwrap(), "old");
        hears(&one).await;
        assert_eq!(one.fetch("key").await.as_deref(), Some("set"));
        assert_eq!(two.get("key").as_deref(), Some("set"));
    });
}

#[test]
fn a_loader_that_fails_leaves_the_load_to_a_caller_elsewhere_at_once() {
    each(async |server| {
        let (one, two, origin) = (cache(&server).await, cache(&server).await, Origin::default());
        let (end, begun) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicU64::new(0)));
        let failing = {
            let (end, begun, one) = (Arc::clone(&end), Arc::clone(&begun), one.clone());
            let load = move || async move {
                begun.fetch_add(1, SeqCst);
                end.acquire().await.unwrap().forget();
                Err::<String, _>("broken")
            };
            tokio::spawn(async move { one.get_or_load("key", load).await })
        };
        soon("it loads", || begun.load(SeqCst) == 1).await;
        let waiting = {
            let (two, origin) = (two.clone(), origin.clone());
            tokio::spawn(async move { origin.get(&two, "key", NOW).await })
        };
        hears(&two).await;
        assert_eq!(origin.loads(), 0, "it waits");
        end.add_permits(1);
        failing.await.unwrap().unwrap_err();
        let value = tokio::time::timeout(Duration::from_millis(500), waiting).await;
        assert_eq!(value.expect("the lease is released").unwrap(), "0");
    });
}

#[test]
fn a_loader_that_asks_for_its_own_key_is_not_waited_for_by_itself() {
    each(async |server| {
        let cache = cache(&server).await;
        let inner = cache.clone();
        let load = move || async move { Ok::<_, Infallible>(format!("{:?}", inner.fetch("key").await)) };
        let call = tokio::time::timeout(Duration::from_secs(5), cache.get_or_load("key", load));
        assert_eq!(call.await.expect("it ends").unwrap(), "None");
    });
}
