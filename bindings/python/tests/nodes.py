"""Servers that work together: a master with a replica and a sentinel, and a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

from servers import Program, Server, eventually, fields, free_port

NAME = "main"
"""The name of the master at the sentinel."""

SLOTS = [(0, 5460), (5461, 10922), (10923, 16383)]
"""The slots of each node of a cluster at its start: the first and the last."""


@dataclass
class Failover:
    """A master, its replica, and a sentinel that promotes the replica about a second after the
    master is gone.
    """

    master: Server
    replica: Server
    sentinel: Server

    def master_port(self) -> int:
        """The port of the master, as the sentinel says it now."""
        return int(self.sentinel.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)[1])


@contextmanager
def failover(program: Program) -> Iterator[Failover]:
    """Starts the three; continues when the replica is complete and the sentinel knows both."""
    with ExitStack() as stack:
        master = stack.enter_context(program.start("repl-diskless-sync yes", "repl-diskless-sync-delay 0"))
        replica = stack.enter_context(program.start(f"replicaof 127.0.0.1 {master.port}"))
        config = [
            f"sentinel monitor {NAME} 127.0.0.1 {master.port} 1",
            f"sentinel down-after-milliseconds {NAME} 500",
            f"sentinel failover-timeout {NAME} 3000",
        ]
        sentinel = stack.enter_context(Server(program, config, role="sentinel"))

        def complete() -> bool:
            return fields(replica.call("INFO", "replication"))["master_link_status"] == "up"

        def known() -> bool:
            replicas = [fields(known) for known in sentinel.call("SENTINEL", "REPLICAS", NAME)]
            return [(known["port"], known["flags"], known["master-link-status"]) for known in replicas] == [
                (str(replica.port), "slave", "ok")
            ]

        eventually("the replica is complete", complete)
        eventually("the sentinel knows the replica", known)
        yield Failover(master, replica, sentinel)


@contextmanager
def cluster(program: Program) -> Iterator[list[Server]]:
    """Starts three masters without replicas, each with a third of the slots; continues when each
    knows the others and all slots are served.
    """
    with ExitStack() as stack:
        buses = [free_port() for _ in SLOTS]
        config = ("cluster-enabled yes", "cluster-node-timeout 2000")
        nodes = [stack.enter_context(program.start(*config, f"cluster-port {bus}")) for bus in buses]
        for number, (node, slots) in enumerate(zip(nodes, SLOTS, strict=True), 1):
            node.call("CLUSTER", "ADDSLOTSRANGE", *slots)
            # Without numbers of their own, the nodes first have to settle them.
            node.call("CLUSTER", "SET-CONFIG-EPOCH", number)
        for node, bus in list(zip(nodes, buses, strict=True))[1:]:
            nodes[0].call("CLUSTER", "MEET", "127.0.0.1", node.port, bus)

        def whole(node: Server) -> bool:
            info = fields(node.call("CLUSTER", "INFO"))
            return (info["cluster_state"], info["cluster_slots_ok"], info["cluster_known_nodes"]) == (
                "ok",
                "16384",
                "3",
            )

        for node in nodes:
            eventually("the node serves all slots", partial(whole, node))
        yield nodes
