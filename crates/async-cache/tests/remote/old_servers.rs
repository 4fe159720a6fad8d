//! Servers that cannot do everything: of RESP2 only, or a replica after a change of roles.

use std::time::Duration;

use tracing::Level;

use crate::programs::{each_program, until};
use crate::support::{
    Origin, connected, each, hears, keep_log, logged, over, redis, redis_at, shows, within,
};

const NOW: Duration = Duration::ZERO;

#[test]
fn a_server_of_resp2_only_shares_entries_for_a_short_time() {
    keep_log();
    each_program(async |program| {
        let server = program.start_with(&["rename-command HELLO \"\""]);
        let ttl = Duration::from_millis(150);
        let (one, two) = (
            connected(redis(&server).uncovered_ttl(ttl)).await,
            connected(redis(&server).uncovered_ttl(ttl)).await,
        );
        let origin = Origin::default();
        assert_eq!(origin.get(&one, "key", NOW).await, "0");
        hears(&one).await;
        assert_eq!(origin.get(&two, "key", NOW).await, "0");
        one.set("key".into(), "new".into());
        hears(&one).await;
        within(ttl + Duration::from_millis(100), "it ends", || two.get("key").is_none()).await;
        shows(&two, "key", Some("new")).await;
        let lines = logged(server.port(), Level::WARN);
        assert_eq!(lines.len(), 2, "one for each cache: {lines:?}");
        assert!(lines[0].contains("speaks RESP2 only, or forbids HELLO"), "{lines:?}");
    });
}

#[test]
fn a_replica_is_refused_with_the_remedy_and_callers_go_on() {
    keep_log();
    each_program(async |program| {
        let primary = program.start();
        let replica = program.start_with(&[&format!("replicaof 127.0.0.1 {}", primary.port())]);
        let (cache, origin) = (over(redis_at(replica.port())), Origin::default());
        assert_eq!(origin.get(&cache, "key", NOW).await, "0");
        assert_eq!(origin.get(&cache, "key", NOW).await, "0");
        within(Duration::from_secs(5), "the log says why", || {
            let lines = logged(replica.port(), Level::WARN);
            lines.iter().any(|line| line.contains("the server is a replica; connect to the primary"))
        })
        .await;
    });
}

#[test]
fn a_primary_that_becomes_a_replica_is_left_until_it_is_primary_again() {
    keep_log();
    each(async |server| {
        let (cache, origin) = (connected(redis_at(server.port())).await, Origin::default());
        let primary = server.program().start();
        cache.set("before".into(), "value".into());
        hears(&cache).await;
        server.call(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()]);
        cache.delete("before");
        within(Duration::from_secs(5), "the cache leaves", || {
            logged(server.port(), Level::WARN).iter().any(|line| line.contains("the server is a replica"))
        })
        .await;
        for number in 0..3 {
            assert_eq!(origin.get(&cache, &format!("during {number}"), NOW).await, number.to_string());
        }
        server.call(&["REPLICAOF", "NO", "ONE"]);
        until(Duration::from_secs(10), "the delete arrives", async || {
            cache.set("after".into(), "value".into());
            server.call(&["KEYS", "*:safter"]).list().len() == 1
        })
        .await;
        assert!(server.call(&["KEYS", "*:sbefore"]).list().is_empty());
        assert_eq!(cache.fetch("before").await, None);
    });
}
