//! Users of the server with few rights: the cache uses the rights it has, and logs the lack.

use std::time::Duration;

use async_cache::remote::RedisBuilder;
use servers::{Reply, Server};
use tracing::Level;

use crate::support::{Origin, connected, each, hears, keep_log, logged, over, redis, shows, timed, within};

const NOW: Duration = Duration::ZERO;

/// The tier for a user with these rules.
fn user(server: &Server, name: &str, rules: &str) -> RedisBuilder {
    let mut command = vec!["ACL", "SETUSER", name, "reset", "on", ">password", "~*", "&*"];
    command.extend(rules.split(' '));
    assert_eq!(server.call(&command), Reply::ok());
    redis(server).username(name).password("password")
}

#[test]
fn without_news_of_changes_memory_follows_after_the_time_that_was_set() {
    keep_log();
    each(async |server| {
        let ttl = Duration::from_millis(150);
        let weak = user(&server, "weak", "+@all -client|tracking").uncovered_ttl(ttl);
        let (one, two) = (connected(weak).await, connected(redis(&server)).await);
        let origin = Origin::default();
        assert_eq!(origin.get(&one, "key", NOW).await, "0");
        shows(&two, "key", Some("0")).await;
        two.delete("key");
        hears(&two).await;
        within(ttl + Duration::from_millis(100), "it ends", || one.get("key").is_none()).await;
        assert_eq!(origin.get(&one, "key", NOW).await, "1");
        let lines = logged(server.port(), Level::WARN);
        assert_eq!(lines.len(), 1, "{lines:?}");
    });
}

#[test]
fn without_scripts_entries_are_shared_all_the_same() {
    each(async |server| {
        let weak = || user(&server, "weak", "+@all -@scripting");
        let (one, two) = (connected(weak()).await, connected(weak()).await);
        let origin = Origin::default();
        assert_eq!(origin.get(&one, "key", NOW).await, "0");
        hears(&one).await;
        assert_eq!(origin.get(&two, "key", NOW).await, "0");
        two.delete("key");
        hears(&two).await;
        hears(&one).await;
        assert_eq!(origin.get(&one, "key", NOW).await, "1");
        hears(&one).await;
        assert_eq!(two.fetch("key").await.as_deref(), Some("1"));
    });
}

#[test]
fn a_wrong_password_costs_no_call_an_error_and_is_said_once() {
    keep_log();
    each(async |server| {
        let _ = user(&server, "known", "+@all");
        let cache = over(redis(&server).username("known").password("wrong"));
        let origin = Origin::default();
        for number in 0..20 {
            let (value, took) = timed(origin.get(&cache, &number.to_string(), NOW)).await;
            assert_eq!(value, number.to_string());
            assert!(took < Duration::from_millis(300), "{took:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let lines = logged(server.port(), Level::INFO);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains("WRONGPASS"), "{lines:?}");
    });
}

#[test]
fn a_user_who_may_not_write_or_remove_costs_no_storm_of_connections() {
    keep_log();
    each(async |server| {
        for (name, rules) in
            [("reader", "+@read +@connection +info +command"), ("keeper", "+@all -unlink -del -@scripting")]
        {
            let (cache, origin) = (connected(user(&server, name, rules)).await, Origin::default());
            let connections = |server: &Server| -> u64 {
                let stats = server.call(&["INFO", "stats"]);
                stats.field("total_connections_received").unwrap().parse().unwrap()
            };
            let before = connections(&server);
            for number in 0..100 {
                let key = number.to_string();
                assert_eq!(origin.get(&cache, &key, NOW).await, key);
                cache.delete(&key);
                assert_eq!(cache.get(&key), None);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let made = connections(&server) - before;
            assert!(made < 20, "{name}: {made} connections in a second");
            let lines = logged(server.port(), Level::WARN);
            assert!((1..40).contains(&lines.len()), "{name}: {lines:?}");
        }
    });
}

#[test]
fn a_server_without_room_costs_no_call_an_error() {
    keep_log();
    each(async |server| {
        let (one, two) = (connected(redis(&server)).await, connected(redis(&server)).await);
        let origin = Origin::default();
        one.set("key".into(), "old".into());
        shows(&two, "key", Some("old")).await;
        server.call(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
        server.call(&["CONFIG", "SET", "maxmemory", "1"]);
        for number in 0..20 {
            let key = number.to_string();
            assert_eq!(origin.get(&one, &key, NOW).await, key);
        }
        // A value that cannot be replaced is removed.
        one.set("key".into(), "new".into());
        hears(&one).await;
        hears(&one).await;
        hears(&two).await;
        assert_eq!(two.fetch("key").await, None);
        server.call(&["CONFIG", "SET", "maxmemory", "0"]);
        one.set("key".into(), "newer".into());
        shows(&two, "key", Some("newer")).await;
        let lines = logged(server.port(), Level::WARN);
        assert_eq!(lines.len(), 1, "{lines:?}");
    });
}
