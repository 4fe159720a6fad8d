//! A primary that Sentinels watch is killed, and its replica takes over.

use std::time::Duration;

use async_cache::remote::Redis;
use servers::Failover;

use crate::programs::{each_program, until};
use crate::support::{Origin, connected, over, shows};

#[test]
fn writes_resume_after_a_promotion_and_no_caller_sees_an_error() {
    each_program(async |program| {
        let nodes = Failover::start(program);
        // The first Sentinel is not there.
        let url =
            format!("redis+sentinel://127.0.0.1:1,127.0.0.1:{}/{}", nodes.sentinel.port(), Failover::NAME);
        let writer = connected(Redis::builder(&url)).await;
        writer.set("kept".into(), "old".into());
        let (one, two) = (connected(Redis::builder(&url)).await, connected(Redis::builder(&url)).await);
        shows(&two, "kept", Some("old")).await;
        let entry = "*:skept";
        until(Duration::from_secs(5), "the replica has it", async || {
            !nodes.replica.call(&["KEYS", entry]).list().is_empty()
        })
        .await;
        // Without it, nobody who lives on writes this key once more.
        drop(writer);

        nodes.master.kill();
        let origin = Origin::default();
        let mut calls = 0;
        until(Duration::from_secs(20), "the replica is promoted", async || {
            calls += 1;
            origin.get(&one, &format!("during {calls}"), Duration::ZERO).await;
            nodes.master_port() == nodes.replica.port()
        })
        .await;
        assert_eq!(origin.loads(), calls, "each was answered");
        // Removed where the caches may not listen yet.
        for key in nodes.replica.call(&["KEYS", entry]).list() {
            nodes.replica.call(&["DEL", &key.text()]);
        }
        let mut number = 0;
        let resumed = until(Duration::from_secs(10), "a write reaches the other cache", async || {
            number += 1;
            let value = number.to_string();
            one.set("after".into(), value.clone());
            two.fetch("after").await == Some(value)
        })
        .await;
        assert!(resumed <= Duration::from_secs(5), "{resumed:?}");
        assert_eq!(two.fetch("kept").await, None, "memory was suspect");
        assert!(!nodes.replica.call(&["KEYS", "*:safter"]).list().is_empty(), "on the new primary");
    });
}

#[test]
fn a_primary_that_the_sentinel_does_not_know_leaves_the_callers_alone() {
    each_program(async |program| {
        let nodes = Failover::start(program);
        let cache =
            over(Redis::builder(&format!("redis+sentinel://127.0.0.1:{}/other", nodes.sentinel.port())));
        let origin = Origin::default();
        assert_eq!(origin.get(&cache, "key", Duration::ZERO).await, "0");
    });
}
