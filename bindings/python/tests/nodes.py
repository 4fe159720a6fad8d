"""Servers that work together: a master with a replica and a sentinel, and a cluster."""

from __future__ import annotations

import itertools
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
def failover(program: Program, listener: str = "port") -> Iterator[Failover]:
    """Starts the three; continues when the replica is complete and the sentinel knows both. With
    the listener ``tls``, all of their connections are encrypted.
    """
    common = ["tls-replication yes"] if listener == "tls" else []
    with ExitStack() as stack:
        config = [*common, "repl-diskless-sync yes", "repl-diskless-sync-delay 0"]
        master = stack.enter_context(Server(program, config, listener))
        config = [*common, f"replicaof 127.0.0.1 {master.port}"]
        replica = stack.enter_context(Server(program, config, listener))
        config = [
            *common,
            f"sentinel monitor {NAME} 127.0.0.1 {master.port} 1",
            f"sentinel down-after-milliseconds {NAME} 500",
            f"sentinel failover-timeout {NAME} 3000",
        ]
        sentinel = stack.enter_context(Server(program, config, listener, role="sentinel"))

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
def cluster(program: Program, listener: str = "port") -> Iterator[list[Server]]:
    """Starts three masters without replicas, each with a third of the slots; continues when each
    knows the others and all slots are served. With the listener ``tls``, all of their connections
    are encrypted.
    """
    with ExitStack() as stack:
        buses = [free_port() for _ in SLOTS]
        config = ["cluster-enabled yes", "cluster-node-timeout 2000"]
        if listener == "tls":
            config.append("tls-cluster yes")
        nodes = [
            stack.enter_context(Server(program, [*config, f"cluster-port {bus}"], listener)) for bus in buses
        ]
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


def namespace_on(nodes: list[Server], owner: int) -> tuple[str, int]:
    """A namespace whose slot is on a node of a new cluster, and the slot."""
    first, last = SLOTS[owner]
    for number in itertools.count():
        namespace = f"n{number}"
        slot = nodes[0].call("CLUSTER", "KEYSLOT", f"ac:{{{namespace}:}}:g")
        if first <= slot <= last:
            return namespace, slot
    raise AssertionError


def node_id(node: Server) -> str:
    """The name of a node in its cluster."""
    return str(node.call("CLUSTER", "MYID").decode())


def begin_migration(slot: int, source: Server, target: Server) -> None:
    """Lets two nodes answer for a slot: the source for its keys, the target after ASKING."""
    target.call("CLUSTER", "SETSLOT", slot, "IMPORTING", node_id(source))
    source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", node_id(target))


def migrate_keys(slot: int, source: Server, target: Server) -> int:
    """Moves the keys of a slot, and returns how many there were."""
    keys = source.call("CLUSTER", "GETKEYSINSLOT", slot, 1000)
    if keys:
        source.call("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
    return len(keys)


def end_migration(slot: int, target: Server, others: list[Server]) -> None:
    """Makes the target the owner of a slot, for all nodes."""
    for node in (target, *others):
        node.call("CLUSTER", "SETSLOT", slot, "NODE", node_id(target))
