//! Writes that are waited for.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use async_cache::AsyncCache;
use servers::Direction::{ToClient, ToServer};

use crate::support::{cache, connected, each, hears, over, proxy, redis_at, through};

const AT_ONCE: Duration = Duration::from_millis(150);

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
        let timeout = Duration::from_millis(250);
        let cache = connected(redis_at(server.port())).await;
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
