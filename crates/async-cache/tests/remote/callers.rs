//! Callers that leave, runtimes that end or stand still, and clocks.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use async_cache::{AsyncCache, Clock};
use servers::Direction::{ToClient, ToServer};
use tokio::sync::Semaphore;
use tracing::Level;

use crate::support::{
    Cache, Origin, cache, connected, each, hears, keep_log, keeps, logged, over, proxy, redis, redis_at,
    shows, soon, through, timed,
};

const NOW: Duration = Duration::ZERO;

fn current_thread() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn call(cache: &Cache, origin: &Origin, key: &str, takes: Duration) -> tokio::task::JoinHandle<String> {
    let (cache, origin, key) = (cache.clone(), origin.clone(), key.to_owned());
    tokio::spawn(async move { origin.get(&cache, &key, takes).await })
}

#[test]
fn a_caller_that_leaves_at_any_moment_holds_nobody_up() {
    each(async |server| {
        let proxy = proxy(&server);
        let (near, far) = (cache(&server).await, connected(through(&proxy)).await);
        // Each answer takes 20 ms and the load as well: it reads, acquires, leads and stores.
        proxy.delay(ToClient, Duration::from_millis(20));
        for moment in (0..90).step_by(6) {
            let (key, origin) = (format!("key {moment}"), Origin::default());
            let leaving = call(&far, &origin, &key, Duration::from_millis(20));
            tokio::time::sleep(Duration::from_millis(moment)).await;
            leaving.abort();
            let (_, took) = timed(origin.get(&near, &key, NOW)).await;
            assert!(took < Duration::from_millis(300), "{moment}: another host waits for {took:?}");
            let (_, took) = timed(origin.get(&far, &key, NOW)).await;
            assert!(took < Duration::from_millis(300), "{moment}: the next call waits for {took:?}");
            assert!(origin.loads() <= 2, "{moment}");
        }
    });
}

#[test]
fn a_caller_that_leaves_before_the_connection_is_made_holds_nobody_up() {
    each(async |server| {
        let proxy = proxy(&server);
        proxy.hold(ToServer);
        let (far, origin) = (over(through(&proxy)), Origin::default());
        let leaving = call(&far, &origin, "key", NOW);
        tokio::task::block_in_place(|| proxy.wait_until_held(ToServer));
        leaving.abort();
        leaving.await.unwrap_err();
        proxy.release(ToServer);
        let (_, took) = timed(origin.get(&far, "key", NOW)).await;
        assert!(took < Duration::from_millis(300), "{took:?}");
        hears(&far).await;
        assert_eq!(cache(&server).await.fetch("key").await.as_deref(), Some("0"));
    });
}

#[test]
fn callers_that_wait_and_leave_take_no_lease_with_them() {
    each(async |server| {
        let (one, two, origin) = (cache(&server).await, cache(&server).await, Origin::default());
        let leads = call(&one, &origin, "key", Duration::from_secs(30));
        soon("it loads", || origin.loads() == 1).await;
        let waits = call(&two, &origin, "key", NOW);
        let leaves = call(&two, &origin, "key", NOW);
        hears(&two).await;
        leaves.abort();
        leads.abort();
        let (value, took) = timed(waits).await;
        assert_eq!(value.unwrap(), "1");
        assert!(took < Duration::from_millis(300), "{took:?}");
        // All waiting callers leave; the next call works.
        let leads = call(&one, &origin, "other", Duration::from_secs(30));
        soon("it loads", || origin.loads() == 3).await;
        let waits = call(&two, &origin, "other", NOW);
        hears(&two).await;
        waits.abort();
        leads.abort();
        let (value, took) = timed(origin.get(&two, "other", NOW)).await;
        assert_eq!(value, "3");
        assert!(took < Duration::from_millis(300), "{took:?}");
    });
}

#[test]
fn a_fetch_that_is_dropped_holds_nobody_up() {
    each(async |server| {
        let proxy = proxy(&server);
        let (near, far) = (cache(&server).await, connected(through(&proxy)).await);
        near.set("a".into(), "value".into());
        hears(&near).await;
        proxy.hold(ToClient);
        let leaving = {
            let far = far.clone();
            tokio::spawn(async move { far.get_many(["a", "b"]).await })
        };
        tokio::task::block_in_place(|| proxy.wait_until_held(ToClient));
        leaving.abort();
        leaving.await.unwrap_err();
        proxy.release(ToClient);
        let (values, took) = timed(far.get_many(["a", "b"])).await;
        assert_eq!(values, [Some("value".to_owned()), None]);
        assert!(took < Duration::from_millis(300), "{took:?}");
    });
}

#[test]
fn the_connection_outlives_the_runtime_that_made_it() {
    each(async |server| {
        let near = cache(&server).await;
        let shared = over(redis_at(server.port()));
        let first = shared.clone();
        std::thread::spawn(move || current_thread().block_on(hears(&first))).join().unwrap();
        // The first runtime is gone.
        let origin = Origin::default();
        let (value, took) = timed(origin.get(&shared, "key", NOW)).await;
        assert_eq!(value, "0");
        assert!(took < Duration::from_millis(700), "{took:?}");
        hears_again(&shared).await;
        near.set("other".into(), "value".into());
        shows(&shared, "other", Some("value")).await;
    });
}

/// Calls until the connection is made anew.
async fn hears_again(cache: &Cache) {
    for number in 0..200 {
        let key = format!("again {number}");
        cache.set(key.clone(), "value".into());
        cache.fetch("another").await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn callers_are_answered_though_the_runtime_of_the_connection_stands_still() {
    each(async |server| {
        let near = cache(&server).await;
        let shared = over(redis_at(server.port()));
        let first = shared.clone();
        // It is neither driven nor dropped until the end.
        let still = std::thread::spawn(move || {
            let runtime = current_thread();
            runtime.block_on(hears(&first));
            runtime
        });
        let still = still.join().unwrap();
        let origin = Origin::default();
        let (value, took) = timed(origin.get(&shared, "key", NOW)).await;
        assert_eq!(value, "0");
        assert!(took < Duration::from_millis(1500), "{took:?}");
        hears_again(&shared).await;
        near.set("other".into(), "value".into());
        shows(&shared, "other", Some("value")).await;
        near.set("other".into(), "newer".into());
        soon("the change is heard", || shared.get("other").as_deref() != Some("value")).await;
        still.shutdown_background();
    });
}

#[test]
fn a_clock_that_is_hours_ahead_changes_no_life() {
    each(async |server| {
        let hour = Duration::from_secs(3600);
        let (clock, hands) = Clock::manual();
        hands.advance(hour * 30);
        let ahead: Cache =
            AsyncCache::builder().clock(clock).remote(redis(&server).build().unwrap()).build().unwrap();
        let near = cache(&server).await;
        hears(&ahead).await;
        near.set_with_ttl("key".into(), "value".into(), Some(hour));
        keeps(&ahead, "key", "value").await;
        hands.advance(Duration::from_secs(3540));
        assert_eq!(ahead.get("key").as_deref(), Some("value"));
        hands.advance(Duration::from_secs(120));
        assert_eq!(ahead.get("key"), None);
        // For the server, the hour has just begun.
        assert_eq!(ahead.fetch("key").await.as_deref(), Some("value"));
        ahead.set_with_ttl("own".into(), "value".into(), Some(hour));
        shows(&near, "own", Some("value")).await;
        assert_eq!(ahead.get("own").as_deref(), Some("value"));
    });
}

#[test]
fn a_lease_outlives_its_time_while_the_loader_runs() {
    each(async |server| {
        let lease = Duration::from_millis(300);
        let (one, two) = (connected(redis(&server).lease(lease)).await, cache(&server).await);
        let (end, origin) = (Arc::new(Semaphore::new(0)), Origin::default());
        let loading = {
            let (one, end) = (one.clone(), Arc::clone(&end));
            let load = move || async move {
                end.acquire().await.unwrap().forget();
                Ok::<_, Infallible>("slow".to_owned())
            };
            tokio::spawn(async move { one.get_or_load("key", load).await })
        };
        soon("it has a lease", || crate::support::wire_key(&server, "key").is_some()).await;
        let waits = call(&two, &origin, "key", NOW);
        tokio::time::sleep(lease * 3).await;
        end.add_permits(1);
        assert_eq!(loading.await.unwrap().unwrap(), "slow");
        assert_eq!((waits.await.unwrap().as_str(), origin.loads()), ("slow", 0));
    });
}

/// The task of an idle connection runs once a second, and a waiting caller must not think that it
/// stands still.
#[test]
fn a_caller_that_waits_for_another_process_leaves_its_connection_alone() {
    keep_log();
    each(async |server| {
        let (one, two) = (cache(&server).await, connected(redis_at(server.port())).await);
        let origin = Origin::default();
        let loading = call(&one, &origin, "key", Duration::from_secs(3));
        soon("it loads", || origin.loads() == 1).await;
        assert_eq!(origin.get(&two, "key", Duration::ZERO).await, "0");
        assert_eq!((loading.await.unwrap(), origin.loads()), ("0".to_owned(), 1));
        let lines = logged(server.port(), Level::WARN);
        assert!(lines.iter().all(|line| !line.contains("stands still")), "{lines:?}");
    });
}
