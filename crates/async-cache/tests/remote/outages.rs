//! Servers that stand still, and connections whose bytes pass nowhere.

use std::time::{Duration, Instant};

use servers::Direction::{ToClient, ToServer};
use tracing::Level;

use crate::support::{
    Origin, cache, connected, each, hears, keep_log, keeps, logged, proxy, redis_at, shows, soon, timed,
    within,
};

const NOW: Duration = Duration::ZERO;

/// Calls for some time; nobody waits. The machine is shared, so single calls may be held up.
async fn nobody_waits(origin: &Origin, cache: &crate::support::Cache, time: Duration) {
    let (begun, mut took, mut number) = (Instant::now(), Vec::new(), 0);
    while begun.elapsed() < time {
        number += 1;
        took.push(timed(origin.get(cache, &format!("{time:?} {number}"), NOW)).await.1);
        assert_eq!(cache.get("hot").as_deref(), Some("0"), "hits go on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    took.sort();
    let (median, longest) = (took[took.len() / 2], took[took.len() - 1]);
    assert!(median < Duration::from_millis(5), "the median is {median:?}");
    assert!(longest < Duration::from_millis(120), "the longest is {longest:?}");
}

#[test]
fn a_server_that_stands_still_costs_one_call_a_quarter_of_a_second() {
    keep_log();
    each(async |server| {
        let proxy = proxy(&server); // has a place of its own in the log
        let port = proxy.address().port();
        let (other, cache) = (cache(&server).await, connected(redis_at(port)).await);
        let origin = Origin::default();
        other.set("hot".into(), "0".into());
        hears(&other).await;
        keeps(&cache, "hot", "0").await;
        server.pause();
        let (_, took) = timed(origin.get(&cache, "first", NOW)).await;
        assert!(took <= Duration::from_millis(300), "the first call took {took:?}");
        // Longer than it takes to give the connection up, and to try others.
        nobody_waits(&origin, &cache, Duration::from_millis(3500)).await;
        let lines = logged(port, Level::INFO);
        assert_eq!(lines.len(), 2, "up and down: {lines:?}");
        server.resume();
        within(Duration::from_secs(3), "it is up", || logged(port, Level::INFO).len() == 3).await;
        other.set("new".into(), "value".into());
        shows(&cache, "new", Some("value")).await;
        let lines = logged(port, Level::WARN);
        assert_eq!(lines.len(), 1, "{lines:?}");
    });
}

#[test]
fn a_pause_that_is_shorter_than_a_lost_connection_loses_no_news() {
    keep_log();
    each(async |server| {
        let proxy = proxy(&server);
        let (near, far) = (cache(&server).await, connected(redis_at(proxy.address().port())).await);
        near.set("key".into(), "old".into());
        keeps(&far, "key", "old").await;
        proxy.hold(ToClient);
        assert_eq!(far.fetch("other").await, None, "it waits for the timeout");
        near.set("key".into(), "new".into());
        hears(&near).await;
        proxy.release(ToClient);
        soon("the news arrive", || far.get("key").is_none()).await;
        shows(&far, "key", Some("new")).await;
        let lines = logged(proxy.address().port(), Level::INFO);
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert_eq!(proxy.accepted(), 1, "the connection was kept");
    });
}

#[test]
fn a_half_open_connection_is_noticed_within_two_seconds_and_makes_memory_suspect() {
    keep_log();
    each(async |server| {
        let proxy = proxy(&server);
        let port = proxy.address().port();
        let (near, far) = (cache(&server).await, connected(redis_at(proxy.address().port())).await);
        near.set("key".into(), "old".into());
        keeps(&far, "key", "old").await;
        proxy.hold(ToServer);
        proxy.hold(ToClient);
        near.set("key".into(), "new".into());
        hears(&near).await;
        within(Duration::from_secs(2), "it is down", || logged(port, Level::WARN).len() == 1).await;
        assert_eq!(far.get("key").as_deref(), Some("old"), "served while it is away");
        within(Duration::from_secs(2), "it tries again", || proxy.accepted() >= 2).await;
        proxy.cut();
        proxy.release(ToServer);
        proxy.release(ToClient);
        within(Duration::from_secs(4), "it is up", || logged(port, Level::INFO).len() == 3).await;
        soon("it is suspect", || far.get("key").is_none()).await;
        assert_eq!(far.fetch("key").await.as_deref(), Some("new"));
    });
}

#[test]
fn a_server_that_was_never_there_costs_the_first_call_only() {
    keep_log();
    each(async |server| {
        server.kill();
        let (cache, origin) = (crate::support::over(redis_at(server.port())), Origin::default());
        let (value, took) = timed(origin.get(&cache, "hot", NOW)).await;
        assert_eq!(value, "0");
        assert!(took <= Duration::from_millis(300), "the first call took {took:?}");
        nobody_waits(&origin, &cache, Duration::from_millis(700)).await;
        assert_eq!(logged(server.port(), Level::INFO).len(), 1);
        server.restart();
        within(Duration::from_secs(5), "it is up", || logged(server.port(), Level::INFO).len() == 2).await;
    });
}
