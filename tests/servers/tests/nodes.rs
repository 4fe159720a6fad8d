//! The sentinel promotes, and the nodes of a cluster redirect.

use servers::{Cluster, Failover, Reply, all, eventually};

#[test]
fn a_sentinel_promotes_the_replica_of_a_master_that_is_gone() {
    for program in all() {
        let nodes = Failover::start(program);
        let mut client = nodes.master.connect().unwrap();
        client.call(&["SET", "key", "value"]).unwrap();
        // Waits for the writes of its own connection only.
        assert_eq!(client.call(&["WAIT", "1", "5000"]).unwrap(), Reply::Number(1), "{program}");
        assert_eq!(nodes.master_port(), nodes.master.port());
        let refused = nodes.replica.call(&["SET", "key", "other"]);
        assert!(matches!(&refused, Reply::Error(text) if text.starts_with("READONLY")), "{refused:?}");
        nodes.master.kill();
        eventually("the replica is the master", || {
            (nodes.master_port() == nodes.replica.port()).then_some(())
        });
        assert_eq!(nodes.replica.call(&["GET", "key"]).text(), "value");
        assert_eq!(nodes.replica.call(&["SET", "key", "other"]), Reply::ok());
    }
}

#[test]
fn the_nodes_of_a_cluster_serve_their_slots_and_redirect_for_others() {
    for program in all() {
        let Cluster { nodes } = Cluster::start(program);
        for (name, slot, owner) in [("b", 3300, 0), ("c", 7365, 1), ("a", 15495, 2)] {
            assert!((Cluster::SLOTS[owner].0..=Cluster::SLOTS[owner].1).contains(&slot));
            for (number, node) in nodes.iter().enumerate() {
                let reply = node.call(&["SET", name, "value"]);
                if number == owner {
                    assert_eq!(reply, Reply::ok(), "{program}");
                } else {
                    let moved = format!("MOVED {slot} 127.0.0.1:{}", nodes[owner].port());
                    assert_eq!(reply, Reply::Error(moved), "{program}");
                }
            }
        }
    }
}
