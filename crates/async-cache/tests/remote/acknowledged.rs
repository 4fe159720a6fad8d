//! Writes that are waited for.

use std::time::{Duration, Instant};

use async_cache::AsyncCache;

use crate::support::{cache, connected, each, over, redis_at};

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
