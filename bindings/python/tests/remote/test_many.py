"""Many keys in one call, and loads that ask the server before a task runs their loader."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import Any

import pytest
from cold_reads import KEYS, cold
from loops import Load, Run, new_loop, task, turns
from proxy import Direction, Proxy
from servers import Server, fields
from shared_caches import SOON, Counted, acknowledged, connected, pair, soon

from cache import AsyncCache, DiskBackend, RedisBackend


def commands(server: Server) -> dict[str, int]:
    """How often the server has carried out commands that read."""
    stats = fields(server.call("INFO", "commandstats"))
    names = ("get", "mget", "pttl")
    calls = {name: stats.get(f"cmdstat_{name}", "calls=0,").partition(",")[0] for name in names}
    return {name: int(text.removeprefix("calls=")) for name, text in calls.items()}


async def filled(cache: AsyncCache, keys: str) -> None:
    for key in keys:
        await cache.set(key, key.upper())
    await acknowledged(cache)


def test_the_values_come_in_the_order_of_the_keys_wherever_they_are(
    run: Run, server: Server, backend: RedisBackend
) -> None:
    async def main() -> None:
        first, second = pair(backend)
        await filled(first, "abcd")
        await connected(second)
        assert await second.get("b") == "B"
        assert await second.get("d") == "D"
        server.call("CONFIG", "RESETSTAT")
        found = await second.get_many(["d", "c", "absent", "b", "a", "c", "d"])
        assert list(found.items()) == [("d", "D"), ("c", "C"), ("b", "B"), ("a", "A")]
        assert commands(server) == {"get": 0, "mget": 1, "pttl": 3}
        stats = second.stats()
        assert (stats["hits"], stats["misses"]) == (2, 6), "five of them before this call"
        assert await second.get_many(["a"]) == {"a": "A"}
        assert await second.get_many([]) == {}

    run(main())


def test_calls_at_the_same_time_ask_for_each_key_once(
    run: Run, server: Server, backend: RedisBackend
) -> None:
    async def main() -> None:
        first, second = pair(backend)
        await filled(first, "abcd")
        await connected(second)
        server.call("CONFIG", "RESETSTAT")
        found = await asyncio.gather(
            second.get("a"),
            second.get_many("abc"),
            second.get_many("bcd"),
            second.get("d"),
            second.get("c", Counted()),
        )
        assert found == [
            "A",
            {"a": "A", "b": "B", "c": "C"},
            {"b": "B", "c": "C", "d": "D"},
            "D",
            "C",
        ]
        assert commands(server) == {"get": 2, "mget": 1, "pttl": 4}, "a, then b with c, then d"

    run(main())


def test_a_cancelled_call_leaves_and_its_values_come_into_memory(run: Run, server: Server) -> None:
    async def main() -> None:
        with Proxy(server.address) as proxy:
            first = AsyncCache(remote_cache=RedisBackend(*server.address))
            second = AsyncCache(remote_cache=RedisBackend(*proxy.address, timeout=10))
            await filled(first, "abc")
            await connected(second)
            proxy.hold(Direction.TO_CLIENT)
            single = task(second.get("a"))
            await turns()
            many = task(second.get_many("abc"))
            other = task(second.get_many("cb"))
            await turns()
            many.cancel()
            with pytest.raises(asyncio.CancelledError):
                await many
            proxy.release(Direction.TO_CLIENT)
            assert await single == "A"
            assert await other == {"c": "C", "b": "B"}
            assert second.stats()["running_loads"] == 0
            hits = second.hits
            assert await second.get_many("abc") == {"a": "A", "b": "B", "c": "C"}
            assert second.hits == hits + 3

    run(main())


def test_calls_that_nobody_awaits_any_more_leave_nothing_behind(run: Run, server: Server) -> None:
    async def main() -> None:
        with Proxy(server.address) as proxy:
            cache = AsyncCache(remote_cache=RedisBackend(*proxy.address, timeout=10))
            await connected(cache)
            proxy.hold(Direction.TO_CLIENT)
            calls = [task(cache.get_many("a")), task(cache.get_many("bc")), task(cache.get("d"))]
            await turns()
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)
            # The look-ups of several keys go on.
            assert cache.stats()["running_loads"] == 2
            proxy.release(Direction.TO_CLIENT)
            await soon(lambda: cache.stats()["running_loads"] == 0)
            assert await cache.get_many("abcd") == {}

    run(main())


def test_a_key_that_is_being_loaded_is_left_out(run: Run, backend: RedisBackend) -> None:
    async def main() -> None:
        first, second = pair(backend)
        await filled(first, "a")
        load = Load()
        loading = task(second.get("k", load))
        await load.called()
        assert await second.get_many(["k", "a"]) == {"a": "A"}
        load.answer("value")
        assert await loading == "value"
        assert await second.get_many(["k", "a"]) == {"k": "value", "a": "A"}

    run(main())


def test_a_value_that_was_deleted_meanwhile_does_not_stay(run: Run, server: Server) -> None:
    async def main() -> None:
        with Proxy(server.address) as proxy:
            first = AsyncCache(remote_cache=RedisBackend(*server.address))
            second = AsyncCache(remote_cache=RedisBackend(*proxy.address, timeout=10))
            await filled(first, "ab")
            await connected(second)
            proxy.hold(Direction.TO_CLIENT)
            many = task(second.get_many("ab"))
            await turns()
            await soon(lambda: commands(server)["mget"] == 1)
            first.delete("a")
            await acknowledged(first)
            second.delete("b")
            proxy.release(Direction.TO_CLIENT)
            assert await many == {"a": "A", "b": "B"}, "as of the time of the call"
            await soon(lambda: "a" not in second.cache)
            assert await second.get_many("ab") == {}

    run(main())


@pytest.mark.parametrize("fault", ["silence", "cut"])
def test_a_server_that_leaves_during_a_call_costs_a_timeout_at_most(
    run: Run, server: Server, fault: str
) -> None:
    async def main() -> None:
        with Proxy(server.address) as proxy:
            first = AsyncCache(remote_cache=RedisBackend(*server.address))
            second = AsyncCache(remote_cache=RedisBackend(*proxy.address))
            await filled(first, "abc")
            await connected(second)
            assert await second.get("a") == "A"
            proxy.hold(Direction.TO_CLIENT)
            many = task(second.get_many("abc"))
            await turns()
            if fault == "cut":
                proxy.refuse()
                proxy.cut()
            assert await asyncio.wait_for(many, SOON) == {"a": "A"}, "from memory"
            proxy.accept()
            proxy.release(Direction.TO_CLIENT)
            await soon(lambda: second.stats()["remote_up"])
            assert await second.get_many("abc") == {"a": "A", "b": "B", "c": "C"}

    run(main())


def test_no_server_at_all_means_no_values(run: Run, server: Server, backend: RedisBackend) -> None:
    async def main() -> None:
        cache = AsyncCache(remote_cache=backend)
        await cache.set("a", "A")
        assert await asyncio.wait_for(cache.get_many("abc"), SOON) == {"a": "A"}
        assert await asyncio.wait_for(cache.get_many("abc"), SOON) == {"a": "A"}

    server.kill()
    run(main())


def test_calls_on_two_event_loops_share_the_read(run: Run, server: Server) -> None:
    with Proxy(server.address) as proxy:
        backend = RedisBackend(*proxy.address, timeout=10)
        cache = AsyncCache(remote_cache=backend)
        seen: list[Any] = []

        def guest() -> None:
            loop = new_loop(run.kind)
            try:
                seen.append(loop.run_until_complete(cache.get_many("abc")))
            finally:
                loop.close()

        async def main() -> None:
            await filled(AsyncCache(remote_cache=RedisBackend(*server.address)), "abc")
            await connected(cache)
            proxy.hold(Direction.TO_CLIENT)
            here = task(cache.get_many("ab"))
            await turns()
            thread = threading.Thread(target=guest)
            thread.start()
            await soon(lambda: cache.stats()["running_loads"] == 3)
            proxy.release(Direction.TO_CLIENT)
            assert await here == {"a": "A", "b": "B"}
            await soon(lambda: not thread.is_alive())
            assert seen == [{"a": "A", "b": "B", "c": "C"}]

        run(main())


def test_a_key_that_cannot_be_hashed_is_an_error_and_ends_what_has_begun(
    run: Run, backend: RedisBackend
) -> None:
    class Odd:
        """Its hash fails at the second call."""

        def __init__(self) -> None:
            self.calls = 0

        def __hash__(self) -> int:
            self.calls += 1
            if self.calls > 1:
                raise ValueError("no hash")
            return 1

    async def main() -> None:
        first, second = pair(backend)
        await filled(first, "ab")
        with pytest.raises(TypeError):
            await second.get_many(["a", []])
        with pytest.raises(ValueError, match="no hash"):
            await second.get_many(["a", Odd(), "b"])
        assert second.stats()["running_loads"] == 0
        assert await second.get_many("ab") == {"a": "A", "b": "B"}

    run(main())


def test_without_a_server_the_values_of_memory_and_backup_are_returned(run: Run, tmp_path: Any) -> None:
    async def main() -> None:
        backend = DiskBackend(tmp_path / "cache")
        with AsyncCache(backup=backend) as before:
            for key in "abc":
                await before.set(key, key.upper())
        cache = AsyncCache(backup=backend)
        await cache.set("b", "new")
        assert list((await cache.get_many("cxba")).items()) == [("c", "C"), ("b", "new"), ("a", "A")]
        assert (cache.hits, cache.misses) == (3, 1)

    async def with_journal() -> None:
        cache = cold(tmp_path / "journal")
        wanted = {key: str(key) for key in reversed(range(KEYS))}
        found = await cache.get_many(reversed(range(-3, KEYS)))
        assert list(found.items()) == list(wanted.items())

    run(main())
    run(with_journal())


class Unreadable:
    """Shared as a pickle that no process can read."""

    def __reduce__(self) -> Any:
        return int, ("not a number",)


def test_a_value_that_cannot_be_decoded_is_none_for_callers_without_a_loader(
    run: Run, server: Server
) -> None:
    async def main() -> None:
        first, second = pair(RedisBackend(*server.address, secret=b"a secret of enough length 123456"))
        await first.set("k", Unreadable())
        await first.set("a", "A")
        await acknowledged(first)
        assert await second.get("k") is None
        assert await second.get_many(["k", "a"]) == {"a": "A"}
        assert await second.get("k", Counted("loaded")) == "loaded"
        assert second.stats()["remote_undecodable"] == 3

    run(main())


def test_a_loader_runs_in_the_context_of_the_call_that_leads(run: Run, backend: RedisBackend) -> None:
    variable = contextvars.ContextVar("variable", default="none")

    async def main() -> None:
        cache, other = pair(backend)
        await connected(cache, other)
        seen: list[str] = []

        async def load() -> str:
            seen.append(variable.get())
            variable.set("changed by the loader")
            return "value"

        async def load_all(keys: list[str]) -> dict[str, str]:
            seen.append(variable.get())
            return dict.fromkeys(keys, "value")

        variable.set("the caller's")
        assert await cache.get("k", load) == "value"
        assert await cache.get("b", batch_loader=load_all) == "value"
        assert seen == ["the caller's"] * 2
        assert variable.get() == "the caller's"

    run(main())
