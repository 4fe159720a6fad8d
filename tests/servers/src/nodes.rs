//! Servers that work together: a master with a replica and a sentinel, and a cluster.

use crate::client::Reply;
use crate::program::Program;
use crate::server::{Server, eventually, free_port};

/// A master, its replica, and a sentinel that promotes the replica about a second after the master
/// is gone.
#[derive(Debug)]
pub struct Failover {
    /// The master at the start.
    pub master: Server,
    /// Its replica at the start.
    pub replica: Server,
    /// The sentinel, which knows the master as [`Self::NAME`].
    pub sentinel: Server,
}

impl Failover {
    /// The name of the master at the sentinel.
    pub const NAME: &str = "main";

    /// Starts the three; returns when the replica is complete and the sentinel knows both.
    pub fn start(program: &Program) -> Self {
        let master = program.start_with(&["repl-diskless-sync yes", "repl-diskless-sync-delay 0"]);
        let replica = program.start_with(&[&format!("replicaof 127.0.0.1 {}", master.port())]);
        let sentinel = program.start_sentinel(&[
            &format!("sentinel monitor {} 127.0.0.1 {} 1", Self::NAME, master.port()),
            &format!("sentinel down-after-milliseconds {} 500", Self::NAME),
            &format!("sentinel failover-timeout {} 3000", Self::NAME),
        ]);
        eventually("the replica is complete", || {
            let info = replica.call(&["INFO", "replication"]);
            (info.field("master_link_status")? == "up").then_some(())
        });
        eventually("the sentinel knows the replica", || {
            let replicas = sentinel.call(&["SENTINEL", "REPLICAS", Self::NAME]);
            let known = replicas.list().first()?;
            let up = known.field("flags")? == "slave" && known.field("master-link-status")? == "ok";
            (up && known.field("port")? == replica.port().to_string()).then_some(())
        });
        Self { master, replica, sentinel }
    }

    /// The port of the master, as the sentinel says it now.
    ///
    /// # Panics
    /// If the sentinel says something else.
    pub fn master_port(&self) -> u16 {
        let address = self.sentinel.call(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", Self::NAME]);
        address.list()[1].text().parse().expect("a port is a number")
    }
}

/// A cluster of three masters without replicas. Each has a third of the 16384 slots, in the order
/// of the nodes.
#[derive(Debug)]
pub struct Cluster {
    /// The nodes.
    pub nodes: Vec<Server>,
}

impl Cluster {
    /// The slots of each node at the start: the first and the last.
    pub const SLOTS: [(u16, u16); 3] = [(0, 5460), (5461, 10922), (10923, 16383)];

    /// Starts three nodes; returns when each knows the others and all slots are served.
    pub fn start(program: &Program) -> Self {
        let nodes = Self::SLOTS.map(|_| {
            let bus = format!("cluster-port {}", free_port());
            program.start_with(&["cluster-enabled yes", "cluster-node-timeout 2000", &bus])
        });
        for (number, (node, (first, last))) in nodes.iter().zip(Self::SLOTS).enumerate() {
            let done = |command: &[&str]| assert_eq!(node.call(command), Reply::ok(), "{command:?}");
            done(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
            // Without numbers of their own, the nodes first have to settle them.
            done(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]);
        }
        for other in &nodes[1..] {
            let bus = other.call(&["CONFIG", "GET", "cluster-port"]).field("cluster-port");
            let bus = bus.expect("the port of the bus was set");
            let met = nodes[0].call(&["CLUSTER", "MEET", "127.0.0.1", &other.port().to_string(), &bus]);
            assert_eq!(met, Reply::ok());
        }
        for node in &nodes {
            eventually("the node serves all slots", || {
                let info = node.call(&["CLUSTER", "INFO"]);
                let whole =
                    info.field("cluster_state")? == "ok" && info.field("cluster_slots_ok")? == "16384";
                (whole && info.field("cluster_known_nodes")? == "3").then_some(())
            });
        }
        Self { nodes: nodes.into() }
    }
}
