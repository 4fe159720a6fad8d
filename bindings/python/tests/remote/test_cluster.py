"""Caches on a cluster: each namespace on the node that has its slot, while slots and nodes go."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from typing import Any

import pytest
from loops import LOOPS, Run
from nodes import (
    begin_migration,
    cluster,
    end_migration,
    migrate_keys,
    namespace_on,
    node_id,
)
from programs import start
from servers import AUTHORITY, Program, Server, ServerError, eventually
from shared_caches import Counted, acknowledged, connected, soon, within

from cache import AsyncCache, RedisBackend

NOTICED = 5  # seconds; beyond the time in which a connection asks the server for a sign of life


def on(node: Server, namespace: str) -> AsyncCache:
    """A cache that knows one node of the cluster."""
    url = f"redis+cluster://127.0.0.1:{node.port}"
    return AsyncCache(remote_cache=RedisBackend(url=url, namespace=namespace))


async def holds(cache: AsyncCache, value: str) -> None:
    """Waits until a cache has a value of the key in memory."""

    async def has_it() -> bool:
        return bool(await cache.get("key") == value and "key" in cache.cache)

    await within(NOTICED, has_it)


async def hot(nodes: list[Server], namespace: str) -> list[AsyncCache]:
    """Two caches with a key in memory that neither has written: neither writes it once more."""
    writer = on(nodes[0], namespace)
    await writer.set("key", "old")
    await acknowledged(writer)
    caches = [on(node, namespace) for node in nodes[1:]]
    for cache in caches:
        await holds(cache, "old")
    return caches


async def is_shared_again(one: AsyncCache, two: AsyncCache) -> bool:
    await one.set("after", "x")
    return bool(await two.get("after") == "x")


def knows_that_it_moved(node: Server, namespace: str) -> bool:
    try:
        node.call("EXISTS", f"ac:{{{namespace}:}}:p")
    except ServerError as error:
        return str(error).startswith("MOVED")
    return False


@pytest.mark.parametrize("listener", ["port", "tls"])
def test_namespaces_are_on_the_nodes_of_their_slots_and_shared_from_every_node(
    run: Run, program: Program, listener: str
) -> None:
    if listener == "tls" and not program.speaks_tls():
        pytest.skip(f"built without TLS: {program}")
    context = ssl.create_default_context(cafile=str(AUTHORITY)) if listener == "tls" else None

    async def main(nodes: list[Server]) -> None:
        for number, owner in enumerate(nodes):
            namespace, _ = namespace_on(nodes, number)
            # The first node in the URL is not there.
            url = f"redis+cluster://127.0.0.1:1,127.0.0.1:{nodes[0].port}"
            options: Any = {"ssl": context, "namespace": namespace, "timeout": 5}
            one = AsyncCache(remote_cache=RedisBackend(url=url, **options))
            # A single server leads to the node of the slot, too.
            two = AsyncCache(remote_cache=RedisBackend(*nodes[2].address, **options))
            await connected(one, two)
            await one.set("key", "a")
            await holds(two, "a")
            await one.set("key", "b")
            await soon(lambda two=two: "key" not in two.cache)  # type: ignore[misc]
            await holds(two, "b")
            assert len(owner.call("KEYS", f"ac:{{{namespace}:}}:*:skey")) == 1

    with cluster(program, listener) as nodes:
        run(main(nodes))


def test_a_slot_that_moves_without_its_keys_leaves_no_stale_hit(run: Run, program: Program) -> None:
    async def main(nodes: list[Server]) -> None:
        namespace, slot = namespace_on(nodes, 0)
        caches = await hot(nodes, namespace)
        old, new = nodes[0], nodes[1]
        # The old node hears of it from the new one, and throws its keys away.
        new.call("CLUSTER", "SETSLOT", slot, "IMPORTING", node_id(old))
        new.call("CLUSTER", "SETSLOT", slot, "NODE", node_id(new))
        await asyncio.to_thread(
            eventually, "the old node redirects", lambda: knows_that_it_moved(old, namespace)
        )
        writer = on(new, namespace)
        await writer.set("key", "new")
        await acknowledged(writer)
        for cache in caches:
            await holds(cache, "new")
        # Changes on the new node are heard.
        writer.delete("key")
        for cache in caches:
            await soon(lambda cache=cache: "key" not in cache.cache)  # type: ignore[misc]

    with cluster(program) as nodes:
        run(main(nodes))


def test_a_delete_while_a_slot_is_migrated_holds_and_callers_go_on(run: Run, program: Program) -> None:
    async def main(nodes: list[Server]) -> None:
        namespace, slot = namespace_on(nodes, 0)
        one, two = await hot(nodes, namespace)
        old, new = nodes[0], nodes[1]
        begin_migration(slot, old, new)
        assert migrate_keys(slot, old, new) >= 2, "an entry and the generation"
        # The old node has the slot still, and none of its keys: it answers with ASK.
        one.delete("key")
        load, begun = Counted(), time.monotonic()
        for number in range(20):
            assert await two.get(("during", number), load) == number + 1
        assert time.monotonic() - begun < NOTICED
        end_migration(slot, new, [old, nodes[2]])

        async def is_deleted() -> bool:
            return not await asyncio.to_thread(new.call, "KEYS", "*:skey")

        await within(15, is_deleted)

        async def is_not_served() -> bool:
            return await two.get("key") is None

        await within(NOTICED, is_not_served)
        await within(15, lambda: is_shared_again(one, two))
        assert (await one.get("key"), await two.get("key")) == (None, None)

    with cluster(program) as nodes:
        run(main(nodes))


def test_a_lost_node_is_missed_by_no_caller_and_found_again(run: Run, program: Program) -> None:
    async def main(nodes: list[Server]) -> None:
        namespace, _ = namespace_on(nodes, 1)
        one, two = await hot(nodes, namespace)
        nodes[1].kill()
        load = Counted()
        for number in range(20):
            assert await one.get(("during", number), load) == number + 1
        await asyncio.to_thread(nodes[1].restart)
        await within(20, lambda: is_shared_again(one, two))
        # The node came back without its keys.
        assert (await one.get("key"), await two.get("key")) == (None, None)

    with cluster(program) as nodes:
        run(main(nodes))


PROCESS = """
import asyncio, sys
from cache import AsyncCache, RedisBackend

url, namespace, own, other, kind = sys.argv[1:]
if kind == "uvloop":
    import uvloop

cache = AsyncCache(remote_cache=RedisBackend(url=url, namespace=namespace))
ends = False

async def load():
    return "loaded"

async def wait_for_a_line():
    global ends
    await asyncio.to_thread(sys.stdin.readline)
    ends = True

async def main():
    waiting = asyncio.ensure_future(wait_for_a_line())
    number = seen = 0
    while not ends:
        number += 1
        await cache.set(own, number)
        assert await cache.get((own, number), load) == "loaded"
        value = await cache.get(other)
        assert value is None or value >= seen, f"{value} after {seen}"
        if value is not None:
            if not seen:
                print("sees the other", flush=True)
            seen = value
        await asyncio.sleep(0.002)
    await waiting
    # While the server is away, a value stays here: it is set until the server has it.
    is_up = is_written = False
    while not is_written or await cache.get("end of " + other) is None:
        await cache.set("end of " + own, True)
        await asyncio.sleep(0.05)
        was_up, is_up = is_up, cache.stats()["remote_up"]
        is_written = was_up and is_up and cache.stats()["remote_pending"] == 0
    print(number, flush=True)

loop = uvloop.new_event_loop() if kind == "uvloop" else asyncio.new_event_loop()
loop.run_until_complete(main())
loop.run_until_complete(loop.shutdown_asyncgens())
loop.close()
"""


@pytest.mark.parametrize("kind", LOOPS)
def test_processes_work_on_while_their_slot_is_migrated_and_read_no_older_value(
    program: Program, kind: str
) -> None:
    if kind not in ("asyncio", "uvloop"):
        pytest.skip(kind)
    with cluster(program) as nodes, contextlib.ExitStack() as stack:
        namespace, slot = namespace_on(nodes, 0)
        old, new = nodes[0], nodes[1]
        processes = []
        for node, own, other in ((nodes[1], "a", "b"), (nodes[2], "b", "a")):
            url = f"redis://127.0.0.1:{node.port}"
            processes.append(stack.enter_context(start(PROCESS, url, namespace, own, other, kind)))
            stack.callback(processes[-1].kill)
        for process in processes:
            assert process.stdout is not None and process.stdout.readline() == "sees the other\n"
        begin_migration(slot, old, new)
        for _ in range(20):  # the processes write on
            migrate_keys(slot, old, new)
            time.sleep(0.01)
        while migrate_keys(slot, old, new):
            pass
        end_migration(slot, new, [old, nodes[2]])
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("end\n")
            process.stdin.flush()
        for process in processes:
            output, _ = process.communicate(timeout=20)
            assert process.returncode == 0
            assert int(output) > 20
        assert len(new.call("KEYS", f"ac:{{{namespace}:}}:*:send of *")) == 2
