//! Servers that come back, empty or with an older dump, and connections that are lost with writes
//! on their way.

use std::time::Duration;

use futures_util::future::join_all;
use servers::Direction::{ToClient, ToServer};
use servers::{Reply, Server};
use tracing::Level;

use crate::support::{
    Cache, Origin, cache, connected, each, hears, keep_log, logged, proxy, shows, soon, through, within,
};

const NOW: Duration = Duration::ZERO;

/// Restarts the server, and returns when so many caches are connected again.
async fn restart(server: &Server, caches: usize) {
    let before =
        logged(server.port(), Level::INFO).iter().filter(|line| line.contains("is connected")).count();
    tokio::task::block_in_place(|| server.restart());
    within(Duration::from_secs(6), "all are connected", || {
        let lines = logged(server.port(), Level::INFO);
        lines.iter().filter(|line| line.contains("is connected")).count() >= before + caches
    })
    .await;
}

async fn set(cache: &Cache, key: &str, value: &str) {
    cache.set(key.into(), value.into());
    hears(cache).await;
}

#[test]
fn a_server_that_is_killed_costs_no_call_an_error_and_each_key_one_load_afterwards() {
    keep_log();
    each(async |server| {
        let caches = join_all((0..4).map(|_| cache(&server))).await;
        let origin = Origin::default();
        for key in 0..10 {
            for cache in &caches {
                origin.get(cache, &format!("key {key}"), NOW).await;
            }
        }
        assert_eq!(origin.loads(), 10);
        server.kill();
        for number in 0..200 {
            origin.get(&caches[number % 4], &format!("down {number}"), NOW).await;
        }
        assert_eq!(origin.loads(), 210);
        restart(&server, 4).await;
        let before = origin.loads();
        let takes = Duration::from_millis(20);
        let calls = (0..400).map(|number| {
            let (cache, origin) = (caches[number % 4].clone(), origin.clone());
            tokio::spawn(async move { origin.get(&cache, &format!("key {}", number % 10), takes).await })
        });
        for call in join_all(calls).await {
            call.unwrap();
        }
        assert_eq!(origin.loads() - before, 10, "one load for each key");
    });
}

#[test]
fn an_older_dump_does_not_bring_back_what_was_invalidated_just_before() {
    keep_log();
    each(async |server| {
        let (one, two) = (cache(&server).await, cache(&server).await);
        for key in ["deleted", "set"] {
            set(&one, key, "old").await;
        }
        assert_eq!(Origin::default().get(&one, "untouched", NOW).await, "0");
        hears(&one).await;
        assert_eq!(server.call(&["SAVE"]), Reply::ok());
        one.delete("deleted");
        set(&one, "set", "new").await;
        restart(&server, 2).await;
        hears(&one).await;
        hears(&two).await;
        assert_eq!(two.fetch("deleted").await, None);
        assert_ne!(two.fetch("set").await.as_deref(), Some("old"));
        assert_eq!(one.fetch("deleted").await, None);
        assert_ne!(one.fetch("set").await.as_deref(), Some("old"));
        assert_eq!(two.fetch("untouched").await.as_deref(), Some("0"));
    });
}

#[test]
fn an_older_dump_does_not_bring_back_what_was_cleared_just_before() {
    keep_log();
    each(async |server| {
        let (one, two) = (cache(&server).await, cache(&server).await);
        set(&one, "key", "old").await;
        assert_eq!(server.call(&["SAVE"]), Reply::ok());
        one.clear();
        hears(&one).await;
        assert_eq!(one.fetch("key").await, None);
        restart(&server, 2).await;
        hears(&one).await;
        for cache in [&one, &two] {
            hears(cache).await;
            hears(cache).await;
            assert_eq!(cache.fetch("key").await, None);
        }
    });
}

/// A delete of a cache whose connection is lost meanwhile, before or after the server has carried
/// it out. Another cache sets the key before the connection is made anew, if `newer`.
async fn lost_delete(server: &Server, is_carried_out: bool, newer: bool) {
    let proxy = proxy(server);
    let (near, far) = (cache(server).await, connected(through(&proxy)).await);
    set(&near, "key", "old").await;
    shows(&far, "key", Some("old")).await;
    let held = if is_carried_out { ToClient } else { ToServer };
    proxy.hold(held);
    far.delete("key");
    tokio::task::block_in_place(|| proxy.wait_until_held(held));
    if is_carried_out {
        soon("it is carried out", || near.get("key").is_none()).await;
    }
    proxy.refuse();
    proxy.cut();
    proxy.release(held);
    if newer {
        set(&near, "key", "newer").await;
    }
    assert_eq!(far.get("key"), None, "its own delete holds");
    proxy.accept();
    let port = proxy.address().port();
    within(Duration::from_secs(4), "it is up", || logged(port, Level::INFO).len() == 3).await;
    hears(&far).await;
    hears(&near).await;
    let (of_near, of_far) = (near.fetch("key").await, far.fetch("key").await);
    assert_eq!(of_near, of_far, "both have the same");
    assert_ne!(of_near.as_deref(), Some("old"));
    set(&far, "key", "last").await;
    shows(&near, "key", Some("last")).await;
}

#[test]
fn a_delete_that_the_server_did_not_get_is_carried_out_later() {
    keep_log();
    each(async |server| {
        lost_delete(&server, false, false).await;
        lost_delete(&server, false, true).await;
    });
}

#[test]
fn a_delete_whose_answer_was_lost_harms_no_newer_value_beyond_a_miss() {
    keep_log();
    each(async |server| {
        lost_delete(&server, true, false).await;
        lost_delete(&server, true, true).await;
    });
}

#[test]
fn more_deletes_than_are_kept_for_a_server_that_is_away_invalidate_everything() {
    keep_log();
    each(async |server| {
        let proxy = proxy(&server);
        let port = proxy.address().port();
        let (near, far) = (cache(&server).await, connected(through(&proxy)).await);
        set(&near, "first", "old").await;
        set(&near, "never deleted", "old").await;
        let keys = server.call(&["KEYS", "*:g"]);
        let name = keys.list()[0].text();
        let generation = server.call(&["GET", &name]);
        proxy.refuse();
        proxy.cut();
        within(Duration::from_secs(2), "it is down", || logged(port, Level::WARN).len() == 1).await;
        far.delete("first");
        for number in 0..10_001 {
            far.delete(&number.to_string());
        }
        proxy.accept();
        within(Duration::from_secs(6), "it is up", || logged(port, Level::INFO).len() == 3).await;
        hears(&far).await;
        hears(&near).await;
        hears(&near).await;
        assert_ne!(server.call(&["GET", &name]), generation);
        assert_eq!((near.fetch("first").await, near.fetch("never deleted").await), (None, None));
        set(&far, "key", "new").await;
        shows(&near, "key", Some("new")).await;
    });
}

/// Another cache clears, and loads a key; a delete of the key by a cache that has not heard of the
/// clear holds all the same. The delete is made while the connection is lost, or while the news are
/// on their way.
#[test]
fn a_delete_by_a_cache_that_has_not_heard_of_a_clear_holds() {
    keep_log();
    each(async |server| {
        for is_lost in [true, false] {
            let proxy = proxy(&server);
            let (near, far) = (cache(&server).await, connected(through(&proxy)).await);
            set(&near, "key", "old").await;
            shows(&far, "key", Some("old")).await;
            if is_lost {
                proxy.refuse();
                proxy.cut();
            } else {
                proxy.hold(ToClient);
            }
            near.clear();
            hears(&near).await;
            assert_eq!(Origin::default().get(&near, "key", NOW).await, "0");
            hears(&near).await;
            far.delete("key");
            if is_lost {
                proxy.accept();
                let port = proxy.address().port();
                within(Duration::from_secs(4), "it is up", || logged(port, Level::INFO).len() == 3).await;
            } else {
                proxy.release(ToClient);
            }
            hears(&far).await;
            hears(&far).await;
            hears(&near).await;
            assert_eq!((near.fetch("key").await, far.fetch("key").await), (None, None), "{is_lost}");
        }
    });
}
