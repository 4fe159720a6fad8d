//! Changes on the server that no cache makes: memory follows within 50 ms.

use std::time::{Duration, Instant};

use servers::Server;

use crate::support::{Cache, Origin, cache, each, hears, keeps, shows, soon, wire_key};

const LIMIT: Duration = Duration::from_millis(50);

/// Does something to the server; then a key leaves the memory of a cache within the limit.
async fn leaves(cache: &Cache, key: &str, what: &str, work: impl FnOnce()) {
    keeps(cache, key, "value").await;
    work();
    let begun = Instant::now();
    soon(what, || cache.get(key).is_none()).await;
    assert!(begun.elapsed() < LIMIT, "{what}: after {:?}", begun.elapsed());
}

async fn put(cache: &Cache, server: &Server, key: &str) -> String {
    cache.set(key.into(), "value".into());
    hears(cache).await;
    wire_key(server, key).unwrap()
}

#[test]
fn memory_follows_removals_and_renames_from_outside() {
    each(async |server| {
        let (one, two) = (cache(&server).await, cache(&server).await);
        let name = put(&one, &server, "deleted").await;
        leaves(&two, "deleted", "DEL", || drop(server.call(&["DEL", &name]))).await;
        let name = put(&one, &server, "renamed").await;
        leaves(&two, "renamed", "RENAME", || drop(server.call(&["RENAME", &name, "elsewhere"]))).await;
        let name = put(&one, &server, "expired").await;
        leaves(&two, "expired", "PEXPIRE", || drop(server.call(&["PEXPIRE", &name, "1"]))).await;
        put(&one, &server, "flushed").await;
        leaves(&two, "flushed", "FLUSHALL", || drop(server.call(&["FLUSHALL"]))).await;
        soon("the writer follows, too", || one.get("flushed").is_none()).await;
        assert_eq!(two.fetch("flushed").await, None);
        hears(&one).await; // A write that meets the new generation on its way is lost.
        one.set("flushed".into(), "again".into());
        shows(&two, "flushed", Some("again")).await;
    });
}

#[test]
fn a_value_renamed_onto_another_key_is_not_read() {
    each(async |server| {
        let (one, two, origin) = (cache(&server).await, cache(&server).await, Origin::default());
        let a = put(&one, &server, "a").await;
        let b = put(&one, &server, "b").await;
        server.call(&["RENAME", &a, &b]);
        hears(&two).await;
        assert_eq!(two.fetch("b").await, None, "the value of a is no value of b");
        assert_eq!(origin.get(&two, "b", Duration::ZERO).await, "0");
        shows(&one, "b", Some("0")).await;
    });
}

#[test]
fn memory_follows_evictions() {
    each(async |server| {
        let (one, two) = (cache(&server).await, cache(&server).await);
        let value = "x".repeat(1000);
        for number in 0..500 {
            one.set(number.to_string(), value.clone());
        }
        hears(&one).await;
        let keys: Vec<_> = (0..500).map(|number| number.to_string()).collect();
        let values = two.get_many(keys.iter().map(String::as_str)).await;
        assert_eq!(values.iter().flatten().count(), 500);
        let used: u64 = server.call(&["INFO", "memory"]).field("used_memory").unwrap().parse().unwrap();
        let most = (used - 300_000).to_string();
        server.call(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
        server.call(&["CONFIG", "SET", "maxmemory", &most]);
        // A write makes room.
        server.call(&["SET", "foreign", "x"]);
        hears(&two).await;
        for key in &keys {
            // The questions of this test may evict keys, too.
            if wire_key(&server, key).is_none() {
                soon("an evicted key leaves memory", || two.get(key).is_none()).await;
            }
        }
        let left = keys.iter().filter(|key| wire_key(&server, key).is_some()).count();
        assert!(left < 500, "something was evicted");
    });
}
