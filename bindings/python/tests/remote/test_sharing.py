"""Several caches share entries, loads and invalidations through a server."""

from __future__ import annotations

import asyncio
import datetime
from typing import Any

import pytest
from loops import Load, Run, joined, task
from servers import Server, fields
from shared_caches import SOON, Counted, acknowledged, connected, pair, soon, timed

from agent_cache import AgentCache, AgentCacheInvalidator
from cache import AsyncCache, AsyncLRU, AsyncLRUInvalidator, AsyncTTL, RedisBackend


def test_a_value_loaded_in_one_cache_is_a_hit_in_another(run: Run, backend: RedisBackend) -> None:
    async def main() -> None:
        first, second = pair(backend)
        load = Counted({"name": "x", "when": datetime.date(2026, 1, 2), "parts": (1, 2)})
        assert await first.get("k", load) == load.value
        assert await second.get("k", load) == load.value
        assert load.calls == 1
        assert second.stats()["remote_hits"] == 1
        assert await second.get("k") == load.value
        assert list((await second.get_many(["k", "nowhere"])).values()) == [load.value]
        assert (first.stats()["loads"], second.stats()["loads"]) == (1, 0)
        assert second.hits == 2, "the second look is a hit in memory"

    run(main())


def test_a_get_without_a_loader_looks_beyond_the_host(run: Run, backend: RedisBackend) -> None:
    async def main() -> None:
        first, second = pair(backend)
        assert await first.get("k") is None
        await first.set("k", 1)
        await acknowledged(first)
        assert await asyncio.gather(*[second.get("k") for _ in range(3)]) == [1, 1, 1]

    run(main())


def test_none_is_a_value(run: Run, backend: RedisBackend) -> None:
    async def main() -> None:
        first, second = pair(backend)
        await first.set("k", None)
        await acknowledged(first)
        load = Counted()
        assert await second.get("k", load) is None
        assert load.calls == 0

    run(main())


@pytest.mark.parametrize("how", ["delete", "set", "clear"])
def test_a_write_reaches_the_memory_of_another_cache_within_50_ms(
    run: Run, backend: RedisBackend, how: str
) -> None:
    async def main() -> None:
        first, second = pair(backend)
        fastest = SOON
        for key in range(20):  # a busy system may stop a process for longer
            await first.set(key, "old")
            await acknowledged(first)
            assert await second.get(key) == "old"
            assert key in second.cache
            if how == "delete":
                first.delete(key)
            elif how == "set":
                first.set(key, "new")
            else:
                first.clear()
            fastest = min(fastest, await soon(lambda key=key: key not in second.cache))  # type: ignore[misc]
            assert await second.get(key) == ("new" if how == "set" else None)
            if fastest < 0.05:
                break
        assert fastest < 0.05

    run(main())


def test_one_load_serves_all_caches(run: Run, backend: RedisBackend) -> None:
    async def main() -> None:
        caches = [AsyncCache(remote_cache=backend) for _ in range(8)]
        load = Counted(seconds=0.05)
        gets = [cache.get("k", load) for cache in caches for _ in range(100)]
        assert await asyncio.gather(*gets) == [1] * 800
        assert load.calls == 1

    run(main())


def test_a_load_that_was_overtaken_by_a_delete_elsewhere_is_kept_nowhere(
    run: Run, backend: RedisBackend
) -> None:
    async def main() -> None:
        first, second = pair(backend)
        await connected(first, second)
        load = Load()
        call = task(first.get("k", load))
        await load.called()
        second.delete("k")
        await acknowledged(second)
        await soon(lambda: first.stats()["fenced"] == 1)
        load.answer("old")
        assert await call == "old", "its caller gets the value"
        assert "k" not in first.cache
        assert await second.get("k") is None
        assert await first.get("k", Counted("new")) == "new"

    run(main())


def test_a_failed_load_lets_another_cache_load_at_once(run: Run, backend: RedisBackend) -> None:
    async def main() -> None:
        first, second = pair(backend)
        load = Load()
        failing = task(first.get("k", load))
        await load.called()
        waiting = task(second.get("k", Counted("value")))
        await soon(lambda: second.stats()["running_loads"] == 1)
        await asyncio.sleep(0.05)
        assert not waiting.done()
        load.fail(OSError("as a test"))
        with pytest.raises(OSError, match="as a test"):
            await failing
        value, seconds = await timed(waiting)
        assert value == "value"
        assert seconds < 1

    run(main())


def test_a_time_to_live_counts_in_all_caches(run: Run, backend: RedisBackend) -> None:
    async def main() -> None:
        first, second = pair(backend)
        await first.set("k", 1, ttl=0.2)
        await acknowledged(first)
        assert await second.get("k") == 1
        await soon(lambda: "k" not in second.cache)
        # Memory counts from before the question, so the server may have the value a moment longer.
        while await second.get("k") == 1:
            await asyncio.sleep(0.001)
        assert await second.get("k", Counted("new")) == "new"

    run(main())


def test_a_set_may_stay_in_memory(run: Run, backend: RedisBackend) -> None:
    async def main() -> None:
        first, second = pair(backend)
        await connected(first, second)
        await first.set("k", 1, write_remote=False)
        assert await first.get("k") == 1
        assert await second.get("k") is None

    run(main())


def test_a_key_without_canonical_bytes_stays_in_its_process(run: Run, backend: RedisBackend) -> None:
    class Key:
        pass

    async def main() -> None:
        first, second = pair(backend)
        key, load = Key(), Counted()
        assert [await first.get(key, load), await first.get(key, load)] == [1, 1]
        assert await second.get(key, load) == 2
        first.delete(key)
        assert await first.get(key) is None

    run(main())


def test_batches_load_only_what_nobody_has(run: Run, backend: RedisBackend) -> None:
    async def main() -> None:
        first, second = pair(backend)
        asked: list[list[int]] = []

        async def load(keys: list[int]) -> list[int]:
            asked.append(keys)
            return [key * 10 for key in keys]

        async def get(cache: AsyncCache, keys: range) -> list[Any]:
            return await asyncio.gather(*[cache.get(key, batch_loader=load) for key in keys])

        assert await get(first, range(4)) == [0, 10, 20, 30]
        assert await get(second, range(6)) == [0, 10, 20, 30, 40, 50]
        assert asked == [[0, 1, 2, 3], [4, 5]]

    run(main())


def test_in_a_batch_a_key_that_another_cache_loads_holds_up_no_other(run: Run, backend: RedisBackend) -> None:
    async def main() -> None:
        first, second = pair(backend, batch_window_ms=1)
        await connected(first, second)
        await first.set("there", "value")
        await acknowledged(first)
        slow = Load()
        loading = task(first.get("slow", slow))
        await slow.called()
        asked: list[list[str]] = []

        async def load(keys: list[str]) -> list[str]:
            asked.append(keys)
            return [key.upper() for key in keys]

        there, new, waiting = (task(second.get(key, batch_loader=load)) for key in ("there", "new", "slow"))
        assert [await there, await new] == ["value", "NEW"]
        await joined(waiting)
        assert not waiting.done()
        slow.answer("from the other")
        assert [await loading, await waiting] == ["from the other", "from the other"]
        assert asked == [["new"]]

    run(main())


def test_a_decorated_function_shares_its_results(run: Run, backend: RedisBackend) -> None:
    calls = 0

    def decorated() -> Any:
        @AsyncTTL(time_to_live=60, remote_cache=backend)
        async def double(number: int) -> int:
            nonlocal calls
            calls += 1
            return number * 2

        return double

    async def main() -> None:
        first, second = decorated(), decorated()
        assert [await first(2), await second(2), calls] == [4, 4, 1]
        first.invalidate_cache(2)
        await soon(lambda: second.stats()["size"] == 0)
        assert [await second(2), calls] == [4, 2]
        assert [await second(2, use_cache=False), calls] == [4, 3]
        assert [await second(3), await first(3), calls] == [6, 6, 4]

    run(main())


def test_an_invalidator_reaches_the_function_in_another_process(run: Run, backend: RedisBackend) -> None:
    async def main() -> None:
        loads = 0

        def reader() -> Any:
            @AsyncLRU(remote_cache=backend)
            async def read() -> int:
                nonlocal loads
                loads += 1
                return loads

            return read

        first, second = reader(), reader()

        @AsyncLRUInvalidator(first)
        async def write() -> None:
            pass

        assert [await first(), await second()] == [1, 1]
        await write()
        await soon(lambda: second.stats()["size"] == 0)
        assert await second() == 2

    run(main())


def test_tools_of_agents_share_their_results_and_never_mix_them(run: Run, backend: RedisBackend) -> None:
    runs: list[str] = []
    # Of its own: a tool of a resource that was written to before starts with nothing.
    resource = f"shop:users of {id(run)}"

    def tools() -> tuple[Any, Any]:
        @AgentCache(resource, remote_cache=backend)
        async def user(number: int) -> str:
            runs.append("user")
            return f"user {number}"

        @AgentCache(resource, remote_cache=backend)
        async def orders(number: int) -> str:
            runs.append("orders")
            return f"orders of {number}"

        return user, orders

    async def main() -> None:
        (user, orders), (other_user, other_orders) = tools(), tools()
        assert [await user(1), await orders(1), await other_user(1)] == ["user 1", "orders of 1", "user 1"]
        assert runs == ["user", "orders"]

        @AgentCacheInvalidator(resource)
        async def write() -> None:
            pass

        await write()
        await soon(lambda: other_user.stats()["size"] == 0)
        # Both caches were cleared, each with a generation of its own: the later one is for both.
        await acknowledged(user, orders, other_user, other_orders)
        await asyncio.sleep(0.1)  # the messages about it arrive
        assert [await other_user(1), await user(1)] == ["user 1", "user 1"]
        assert runs == ["user", "orders", "user"]

    run(main())


def test_a_tool_of_a_session_and_results_per_object_have_no_remote_cache() -> None:
    backend = RedisBackend()
    with pytest.raises(ValueError, match='scope="session" takes no remote_cache'):
        AgentCache("users", scope="session", remote_cache=backend)
    with pytest.raises(ValueError, match="per_instance=True and a remote_cache exclude each other"):
        AsyncLRU(per_instance=True, remote_cache=backend)
    lru = AsyncLRU(remote_cache=backend)

    @lru
    async def first() -> None: ...

    async def second() -> None: ...

    with pytest.raises(ValueError, match="has a remote_cache and decorates a function already"):
        lru(second)


def test_two_namespaces_share_nothing(run: Run, server: Server) -> None:
    async def main() -> None:
        one = AsyncCache(remote_cache=RedisBackend(*server.address, namespace="one"))
        two = AsyncCache(remote_cache=RedisBackend(*server.address, namespace="two"))
        await one.set("k", 1)
        await acknowledged(one)
        assert await two.get("k") is None
        two.clear()
        await acknowledged(two)
        assert await AsyncCache(remote_cache=one.remote_cache).get("k") == 1

    run(main())


def test_many_keys_are_looked_up_with_one_read(run: Run, server: Server, backend: RedisBackend) -> None:
    async def main() -> None:
        first, second = pair(backend, maxsize=1000)
        for number in range(100):
            await first.set(number, number * 10)
        await first.set("none", None)
        await acknowledged(first)
        await connected(second)
        server.call("CONFIG", "RESETSTAT")
        wanted: dict[Any, Any] = {number: number * 10 for number in range(100)}
        assert await second.get_many([*range(100), "absent", "none", "absent"]) == {**wanted, "none": None}
        calls = fields(server.call("INFO", "commandstats"))
        assert calls["cmdstat_mget"].startswith("calls=1,")
        assert "cmdstat_get" not in calls
        assert await second.get_many(range(100)) == wanted
        assert second.hits == 100, "from memory"
        assert await AsyncCache().get_many(["k"]) == {}

    run(main())
