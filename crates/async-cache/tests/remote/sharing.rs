//! What one process loads, sets and deletes, and what others see of it.

use std::time::Duration;

use futures_util::future::join_all;

use crate::support::{Origin, cache, connected, each, keeps, over, redis, shows, soon};

const NOW: Duration = Duration::ZERO;

#[test]
fn a_value_that_one_loads_is_there_for_all() {
    each(async |server| {
        let (one, two, origin) = (cache(&server).await, cache(&server).await, Origin::default());
        assert_eq!(origin.get(&one, "key", NOW).await, "0");
        assert_eq!(origin.get(&two, "key", NOW).await, "0");
        for cache in [one, two] {
            shows(&cache, "key", Some("0")).await;
            keeps(&cache, "key", "0").await;
        }
        assert_eq!(origin.loads(), 1);
    });
}

#[test]
fn a_load_that_the_server_answers_is_no_load() {
    each(async |server| {
        let (one, two, origin) = (cache(&server).await, cache(&server).await, Origin::default());
        origin.get(&one, "a", NOW).await;
        origin.get(&one, "b", NOW).await;
        assert!(one.acknowledged().await);
        let before = two.stats();
        origin.get(&two, "a", NOW).await;
        assert_eq!(two.get_many(["a", "b", "nowhere"]).await.iter().flatten().count(), 2);
        origin.get(&two, "c", NOW).await;
        let stats = two.stats();
        assert_eq!((stats.misses - before.misses, stats.remote_hits, stats.loads), (4, 2, 1));
        let stats = one.stats();
        assert_eq!((stats.remote_hits, stats.loads), (0, 2));
    });
}

#[test]
fn a_set_and_a_delete_reach_the_memory_of_others() {
    each(async |server| {
        let (one, two) = (cache(&server).await, cache(&server).await);
        one.set("key".into(), "a".into());
        shows(&two, "key", Some("a")).await;
        one.set("key".into(), "b".into());
        soon("the old value leaves", || two.get("key").is_none()).await;
        shows(&two, "key", Some("b")).await;
        two.delete("key");
        soon("the value leaves", || one.get("key").is_none()).await;
        shows(&one, "key", None).await;
    });
}

#[test]
fn a_clear_reaches_all() {
    each(async |server| {
        let (one, two) = (cache(&server).await, cache(&server).await);
        for key in ["a", "b"] {
            one.set(key.into(), "x".into());
            shows(&two, key, Some("x")).await;
        }
        one.clear();
        soon("empty", || two.is_empty()).await;
        for (cache, key) in [(&one, "a"), (&two, "b")] {
            shows(cache, key, None).await;
        }
        one.set("a".into(), "y".into());
        shows(&two, "a", Some("y")).await;
    });
}

#[test]
fn a_cold_key_is_loaded_once_by_eight_caches_with_a_hundred_callers_each() {
    each(async |server| {
        let caches: Vec<_> = join_all((0..8).map(|_| cache(&server))).await;
        let origin = Origin::default();
        let mut calls = tokio::task::JoinSet::new();
        for cache in caches.iter().cycle().take(800) {
            let (cache, origin) = (cache.clone(), origin.clone());
            calls.spawn(async move { origin.get(&cache, "key", Duration::from_millis(50)).await });
        }
        while let Some(value) = calls.join_next().await {
            assert_eq!(value.unwrap(), "0");
        }
        assert_eq!(origin.loads(), 1);
    });
}

#[test]
fn a_load_that_began_before_an_invalidation_elsewhere_is_stored_nowhere() {
    each(async |server| {
        let (one, two, origin) = (cache(&server).await, cache(&server).await, Origin::default());
        let loading = {
            let (one, origin) = (one.clone(), origin.clone());
            tokio::spawn(async move { origin.get(&one, "key", Duration::from_millis(100)).await })
        };
        soon("it loads", || origin.loads() == 1).await;
        two.delete("key");
        assert_eq!(loading.await.unwrap(), "0", "its callers get it");
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!((one.get("key"), two.fetch("key").await), (None, None));
        assert_eq!(origin.get(&one, "key", NOW).await, "1");
    });
}

#[test]
fn many_keys_are_fetched_at_once() {
    each(async |server| {
        let (one, two) = (cache(&server).await, cache(&server).await);
        for number in 0..100 {
            one.set(number.to_string(), format!("value {number}"));
        }
        shows(&two, "99", Some("value 99")).await;
        let keys: Vec<_> = (0..110).map(|number| number.to_string()).collect();
        let values = two.get_many(keys.iter().map(String::as_str)).await;
        for (number, value) in values.into_iter().enumerate() {
            assert_eq!(value, (number < 100).then(|| format!("value {number}")));
        }
        keeps(&two, "7", "value 7").await;
    });
}

#[test]
fn a_life_runs_on_elsewhere() {
    each(async |server| {
        let (one, two) = (cache(&server).await, cache(&server).await);
        one.set_with_ttl("key".into(), "a".into(), Some(Duration::from_millis(300)));
        shows(&two, "key", Some("a")).await;
        tokio::time::sleep(Duration::from_millis(310)).await;
        assert_eq!((one.get("key"), two.get("key"), two.fetch("key").await), (None, None, None));
    });
}

#[test]
fn namespaces_and_versions_share_nothing() {
    each(async |server| {
        let one = connected(redis(&server).namespace("one")).await;
        let two = over(redis(&server).namespace("two"));
        let later = over(redis(&server).namespace("one").version("2"));
        one.set("key".into(), "a".into());
        shows(&over(redis(&server).namespace("one")), "key", Some("a")).await;
        assert_eq!((two.fetch("key").await, later.fetch("key").await), (None, None));
    });
}

#[test]
fn what_is_set_while_the_connection_is_made_is_there_for_all() {
    each(async |server| {
        // A put is given up if the connection takes longer than the timeout.
        let patient = redis(&server).timeout(Duration::from_secs(10));
        let (one, two) = (over(patient), cache(&server).await);
        one.set("key".into(), "a".into());
        assert_eq!(one.get("key").as_deref(), Some("a"));
        assert_eq!(one.fetch("other").await, None);
        shows(&two, "key", Some("a")).await;
    });
}
