//! Long values, many keys, many callers.

use std::time::Duration;

use crate::support::{Origin, cache, connected, each, hears, redis, redis_at, shows, soon, timed};

#[test]
fn a_value_that_is_too_long_for_the_server_stays_in_memory_and_its_changes_are_heard() {
    each(async |server| {
        let (one, two) = (cache(&server).await, cache(&server).await);
        let long = "x".repeat(10_000_000);
        one.set("key".into(), long.clone());
        hears(&one).await;
        assert_eq!(one.get("key").map(|value| value.len()), Some(long.len()));
        assert_eq!(two.fetch("key").await, None);
        let used: u64 = server.call(&["INFO", "memory"]).field("used_memory").unwrap().parse().unwrap();
        assert!(used < 9_000_000, "{used} bytes on the server");
        let load = {
            let long = long.clone();
            || async { Ok::<_, std::convert::Infallible>(long) }
        };
        assert_eq!(two.get_or_load("key", load).await.unwrap().len(), long.len());
        hears(&two).await;
        assert_eq!(two.get("key").map(|value| value.len()), Some(long.len()), "kept in memory");
        one.delete("key");
        soon("it leaves the memory of others", || two.get("key").is_none()).await;
        // As long as the server may keep.
        let two = connected(redis(&server).max_value(20_000_000)).await;
        let three = connected(redis(&server).max_value(20_000_000)).await;
        two.set("key".into(), long.clone());
        hears(&two).await;
        shows(&three, "key", Some(&long)).await;
    });
}

#[test]
fn ten_thousand_keys_are_fetched_with_one_connection() {
    each(async |server| {
        let (one, two) = (cache(&server).await, cache(&server).await);
        let keys: Vec<_> = (0..10_000).map(|number| number.to_string()).collect();
        for key in &keys {
            one.set(key.clone(), format!("value {key}"));
        }
        hears(&one).await;
        let (values, took) = timed(two.get_many(keys.iter().map(String::as_str))).await;
        for (key, value) in keys.iter().zip(values) {
            assert_eq!(value, Some(format!("value {key}")));
        }
        assert!(took < Duration::from_secs(5), "{took:?}");
        // While the server is away, the same keys are no burden.
        let third = connected(redis_at(server.port())).await;
        server.pause();
        assert_eq!(third.fetch("first").await, None);
        let (values, took) = timed(third.get_many(keys.iter().map(String::as_str))).await;
        server.resume();
        assert!(values.iter().all(Option::is_none));
        assert!(took < Duration::from_secs(2), "{took:?}");
    });
}

#[test]
fn a_thousand_concurrent_misses_use_one_connection() {
    each(async |server| {
        let (cache, origin) = (cache(&server).await, Origin::default());
        let clients = |server: &servers::Server| {
            let clients = server.call(&["INFO", "clients"]).field("connected_clients").unwrap();
            clients.parse::<u64>().unwrap() - 1 // the client that asks
        };
        let mut calls = tokio::task::JoinSet::new();
        for number in 0..1000 {
            let (cache, origin) = (cache.clone(), origin.clone());
            let takes = Duration::from_millis(100);
            calls.spawn(async move { origin.get(&cache, &number.to_string(), takes).await });
        }
        soon("they load", || origin.loads() == 1000).await;
        assert_eq!(clients(&server), 1);
        while let Some(value) = calls.join_next().await {
            value.unwrap();
        }
        hears(&cache).await;
        let stored = server.call(&["DBSIZE"]);
        assert!(matches!(stored, servers::Reply::Number(1001..=1003)), "{stored:?}");
    });
}
