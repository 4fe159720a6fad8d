//! Caches on a cluster: each namespace on the node that has its slot, while slots and nodes go.

use std::time::{Duration, Instant};

use async_cache::remote::{Redis, RedisBuilder};
use servers::{Cluster, Reply, Server};

use crate::programs::{each_program, until};
use crate::support::{Cache, Origin, connected, shows, soon};

/// Beyond the time in which a connection asks the server for a sign of life.
const NOTICED: Duration = Duration::from_secs(5);

/// A namespace on a node, and its slot.
fn namespace_on(cluster: &Cluster, node: usize) -> (String, String) {
    let (first, last) = Cluster::SLOTS[node];
    (0..)
        .find_map(|number| {
            let name = format!("n{number}");
            match cluster.nodes[0].call(&["CLUSTER", "KEYSLOT", &format!("ac:{{{name}:}}:g")]) {
                Reply::Number(slot) if (i64::from(first)..=i64::from(last)).contains(&slot) => {
                    Some((name, slot.to_string()))
                }
                Reply::Number(_) => None,
                other => panic!("{other:?}"),
            }
        })
        .unwrap()
}

fn on(node: &Server, namespace: &str) -> RedisBuilder {
    Redis::builder(&format!("redis+cluster://127.0.0.1:{}", node.port())).namespace(namespace)
}

fn id(node: &Server) -> String {
    node.call(&["CLUSTER", "MYID"]).text()
}

fn done(node: &Server, command: &[&str]) {
    assert_eq!(node.call(command), Reply::ok(), "{command:?}");
}

/// Returns when a node knows that it does not have the slot of a namespace.
async fn knows(node: &Server, namespace: &str) {
    until(Duration::from_secs(10), "the old node redirects", async || {
        let reply = node.call(&["EXISTS", &format!("ac:{{{namespace}:}}:p")]);
        matches!(&reply, Reply::Error(text) if text.starts_with("MOVED"))
    })
    .await;
}

/// A key in the memory of two caches, written by none of them: neither writes it once more.
async fn hot(cluster: &Cluster, namespace: &str) -> (Cache, Cache) {
    let writer = connected(on(&cluster.nodes[0], namespace)).await;
    writer.set("key".into(), "old".into());
    let (one, two) = (
        connected(on(&cluster.nodes[1], namespace)).await,
        connected(on(&cluster.nodes[2], namespace)).await,
    );
    for cache in [&one, &two] {
        holds(cache, "old").await;
    }
    (one, two)
}

/// Returns when a cache has a value of the key in memory.
async fn holds(cache: &Cache, value: &str) {
    until(NOTICED, value, async || {
        cache.fetch("key").await;
        cache.get("key").as_deref() == Some(value)
    })
    .await;
}

#[test]
fn namespaces_are_on_the_nodes_of_their_slots_and_shared_from_every_node() {
    each_program(async |program| {
        let cluster = Cluster::start(program);
        for (number, owner) in cluster.nodes.iter().enumerate() {
            let (namespace, _) = namespace_on(&cluster, number);
            let one = connected(on(&cluster.nodes[0], &namespace)).await;
            // A URL of a single server leads to the node of the slot too.
            let single = format!("redis://127.0.0.1:{}", cluster.nodes[2].port());
            let two = connected(Redis::builder(&single).namespace(&*namespace)).await;
            one.set("key".into(), "a".into());
            holds(&two, "a").await;
            one.set("key".into(), "b".into());
            soon("the old value leaves", || two.get("key").is_none()).await;
            shows(&two, "key", Some("b")).await;
            let keys = owner.call(&["KEYS", &format!("ac:{{{namespace}:}}:*:skey")]);
            assert_eq!(keys.list().len(), 1, "{namespace} on node {number}");
        }
    });
}

#[test]
fn a_slot_that_moves_without_its_keys_leaves_no_stale_hit() {
    each_program(async |program| {
        let cluster = Cluster::start(program);
        let (namespace, slot) = namespace_on(&cluster, 0);
        let (one, two) = hot(&cluster, &namespace).await;
        let (from, to) = (&cluster.nodes[0], &cluster.nodes[1]);
        // The old node hears of it from the new one, and throws its keys away.
        done(to, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &id(from)]);
        done(to, &["CLUSTER", "SETSLOT", &slot, "NODE", &id(to)]);
        knows(from, &namespace).await;
        let writer = connected(on(to, &namespace)).await;
        writer.set("key".into(), "new".into());
        for cache in [&one, &two] {
            holds(cache, "new").await;
        }
        // Changes on the new node are heard.
        writer.delete("key");
        for cache in [&one, &two] {
            soon("the value leaves", || cache.get("key").is_none()).await;
        }
    });
}

#[test]
fn a_delete_while_a_slot_is_migrated_holds_and_callers_go_on() {
    each_program(async |program| {
        let cluster = Cluster::start(program);
        let (namespace, slot) = namespace_on(&cluster, 0);
        let (one, two) = hot(&cluster, &namespace).await;
        let (from, to) = (&cluster.nodes[0], &cluster.nodes[1]);
        done(to, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &id(from)]);
        done(from, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &id(to)]);
        let keys = from.call(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"]);
        let keys: Vec<_> = keys.list().iter().map(Reply::text).collect();
        assert!(keys.len() >= 2, "an entry and the generation: {keys:?}");
        let port = to.port().to_string();
        let mut migrate = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
        migrate.extend(keys.iter().map(String::as_str));
        done(from, &migrate);
        // The old node has the slot still, and none of its keys.
        one.delete("key");
        let origin = Origin::default();
        let begun = Instant::now();
        for number in 0..20 {
            origin.get(&two, &format!("during {number}"), Duration::ZERO).await;
        }
        assert_eq!(origin.loads(), 20, "each caller was answered");
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        for node in [to, from, &cluster.nodes[2]] {
            done(node, &["CLUSTER", "SETSLOT", &slot, "NODE", &id(to)]);
        }
        until(Duration::from_secs(15), "the delete reaches the new node", async || {
            to.call(&["KEYS", "*:skey"]).list().is_empty()
        })
        .await;
        until(NOTICED, "not served any more", async || two.fetch("key").await.is_none()).await;
        // Shared again.
        until(Duration::from_secs(15), "shared again", async || {
            one.set("after".into(), "x".into());
            two.fetch("after").await.as_deref() == Some("x")
        })
        .await;
        assert_eq!((one.fetch("key").await, two.fetch("key").await), (None, None));
    });
}

#[test]
fn a_lost_node_is_missed_by_no_caller_and_found_again() {
    each_program(async |program| {
        let cluster = Cluster::start(program);
        let (namespace, _) = namespace_on(&cluster, 1);
        let (one, two) = hot(&cluster, &namespace).await;
        cluster.nodes[1].kill();
        let origin = Origin::default();
        for number in 0..20 {
            origin.get(&one, &format!("during {number}"), Duration::ZERO).await;
        }
        assert_eq!(origin.loads(), 20, "each caller was answered");
        cluster.nodes[1].restart();
        until(Duration::from_secs(30), "shared again", async || {
            one.set("after".into(), "x".into());
            two.fetch("after").await.as_deref() == Some("x")
        })
        .await;
        // The node came back without its keys.
        assert_eq!((one.fetch("key").await, two.fetch("key").await), (None, None));
    });
}
