//! Writes that are waited for.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use async_cache::AsyncCache;
use servers::Direction::{ToClient, ToServer};

use crate::support::{cache, connected, each, hears, over, proxy, redis_at, through};

/// Far less than the timeout, also on a busy machine.
const AT_ONCE: Duration = Duration::from_millis(600);

#[test]
fn an_acknowledged_write_is_on_the_server() {
    each(async |server| {
        let cache_with_writes = cache(&server).await;
        let other = cache(&server).await;
        for number in 0..50 {
            cache_with_writes.set("key".into(), number.to_string());
            assert!(cache_with_writes.acknowledged().await);
        }
        assert_eq!(other.fetch("key").await.as_deref(), Some("49"));
        cache_with_writes.delete("key");
        assert!(cache_with_writes.acknowledged().await);
        assert_eq!(cache(&server).await.fetch("key").await, None);
    });
}

#[test]
fn a_write_into_a_generation_that_was_replaced_is_acknowledged_when_nobody_has_an_older_value() {
    each(async |server| {
        let proxy = proxy(&server);
        let (writer, other) = (connected(through(&proxy)).await, cache(&server).await);
        for number in 0..10 {
            let key = format!("key {number}");
            // The writer hears late that everything was cleared, and that its own write has run.
            proxy.delay(ToClient, Duration::from_millis(50));
            other.clear();
            assert!(other.acknowledged().await);
            let value = other.get_or_load(&key, || async { Ok::<_, Infallible>("old".to_owned()) }).await;
            assert_eq!(value.unwrap(), "old");
            hears(&other).await; // Redis tells it of its own load, too.
            assert_eq!(other.fetch(&key).await.as_deref(), Some("old"));
            // The origin has a new value now.
            writer.delete(&key);
            assert!(writer.acknowledged().await);
            hears(&other).await;
            assert_eq!(other.get(&key), None, "{number}");
            proxy.delay(ToClient, Duration::ZERO);
        }
    });
}

#[test]
fn a_write_that_a_full_server_refuses_is_acknowledged_when_nobody_has_an_older_value() {
    each(async |server| {
        let proxy = proxy(&server);
        let (writer, other) = (connected(through(&proxy)).await, cache(&server).await);
        writer.set("key".into(), "old".into());
        assert!(writer.acknowledged().await);
        assert_eq!(other.fetch("key").await.as_deref(), Some("old"));
        server.call(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
        server.call(&["CONFIG", "SET", "maxmemory", "1"]);
        proxy.delay(ToServer, Duration::from_millis(50));
        writer.set("key".into(), "new".into());
        assert!(writer.acknowledged().await);
        hears(&other).await;
        assert_eq!(other.get("key"), None);
        assert_eq!(cache(&server).await.fetch("key").await, None);
    });
}

#[test]
fn a_write_of_a_lost_connection_does_not_arrive_after_those_of_the_next() {
    each(async |server| {
        let proxy = proxy(&server);
        let writer = connected(redis_at(proxy.address().port())).await;
        let other = cache(&server).await;
        proxy.delay(ToServer, Duration::from_secs(3));
        writer.set("key".into(), "old".into());
        tokio::time::sleep(Duration::from_millis(100)).await;
        proxy.delay(ToServer, Duration::ZERO);
        // The silent connection is given up, and there is another.
        let begun = Instant::now();
        while proxy.accepted() < 2 || !writer.acknowledged().await {
            assert!(begun.elapsed() < Duration::from_secs(10), "no second connection");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        writer.set("key".into(), "new".into());
        assert!(writer.acknowledged().await);
        tokio::time::sleep(Duration::from_millis(2500)).await;
        for cache in [&other, &writer] {
            hears(cache).await;
            assert_eq!(cache.fetch("key").await.as_deref(), Some("new"));
        }
    });
}

#[test]
fn a_read_after_an_acknowledged_write_is_not_answered_from_a_generation_before() {
    each(async |server| {
        let proxy = proxy(&server);
        let (writer, third) = (cache(&server).await, cache(&server).await);
        writer.set("key".into(), "old".into());
        assert!(writer.acknowledged().await);
        let reader = connected(through(&proxy)).await;
        proxy.delay(ToClient, Duration::from_millis(50));
        third.clear();
        assert!(third.acknowledged().await);
        hears(&writer).await;
        hears(&writer).await; // the new generation
        writer.set("key".into(), "new".into());
        assert!(writer.acknowledged().await);
        assert_eq!(reader.fetch("key").await.as_deref(), Some("new"));
    });
}

#[test]
fn a_load_that_meets_a_clear_of_its_own_process_leaves_no_lease() {
    each(async |server| {
        let proxy = proxy(&server);
        let (first, other) = (connected(through(&proxy)).await, cache(&server).await);
        proxy.delay(ToServer, Duration::from_millis(50));
        let load = |value: &'static str| move || async move { Ok::<_, Infallible>(value.to_owned()) };
        let clears = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            first.clear();
        };
        let (value, ()) = tokio::join!(first.get_or_load("key", load("first")), clears);
        assert_eq!(value.unwrap(), "first");
        assert!(first.acknowledged().await);
        hears(&other).await;
        hears(&other).await;
        let begun = Instant::now();
        other.get_or_load("key", load("second")).await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(2), "a dead owner's lease takes three");
    });
}

#[test]
fn the_first_write_of_a_cache_is_waited_for() {
    each(async |server| {
        let first = over(redis_at(server.port()));
        first.set("key".into(), "value".into());
        assert!(first.acknowledged().await);
        assert_eq!(cache(&server).await.fetch("key").await.as_deref(), Some("value"));
        let without: AsyncCache<String, String> = AsyncCache::builder().build().unwrap();
        without.set("key".into(), "value".into());
        assert!(without.acknowledged().await);
    });
}

#[test]
fn a_silent_server_costs_the_timeout_once_and_one_that_is_away_nothing() {
    each(async |server| {
        let timeout = Duration::from_secs(1);
        let cache = connected(redis_at(server.port()).timeout(timeout)).await;
        server.pause();
        cache.set("key".into(), "value".into());
        let begun = Instant::now();
        assert!(!cache.acknowledged().await);
        let waited = begun.elapsed();
        assert!(waited >= timeout * 9 / 10 && waited < timeout + AT_ONCE, "{waited:?}");
        cache.delete("key");
        let begun = Instant::now();
        assert!(!cache.acknowledged().await);
        assert!(begun.elapsed() < AT_ONCE);
        server.resume();
        let begun = Instant::now();
        while !cache.acknowledged().await {
            assert!(begun.elapsed() < Duration::from_secs(5), "the server is back");
        }
        server.kill();
        while {
            cache.set("key".into(), "value".into());
            cache.acknowledged().await
        } {
            assert!(begun.elapsed() < Duration::from_secs(10), "the server is gone");
        }
        let begun = Instant::now();
        assert!(!cache.acknowledged().await);
        assert!(begun.elapsed() < AT_ONCE);
    });
}

#[test]
fn a_write_of_another_runtime_that_has_ended_is_waited_for() {
    for program in servers::all() {
        let server = program.start();
        let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let first = runtime().unwrap();
        let cache = first.block_on(connected(redis_at(server.port())));
        drop(first);
        cache.set("key".into(), "value".into());
        let second = runtime().unwrap();
        assert!(second.block_on(cache.acknowledged()));
        drop(second);
        cache.delete("key");
        std::thread::sleep(Duration::from_millis(300)); // longer than the timeout
        assert!(runtime().unwrap().block_on(cache.acknowledged()));
    }
}
