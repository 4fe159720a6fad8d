"""A user's own backend: its calls, and what happens if it raises, hangs, or lies."""

from __future__ import annotations

import asyncio
import logging
import statistics
from typing import Any

import pytest
from loops import Run
from shared_caches import Counted, acknowledged, connected, soon, timed

from cache import AsyncCache, AsyncLRU, RemoteCacheBackend


class Memory(RemoteCacheBackend):
    """A backend in a dict, which notes its calls."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.calls: list[tuple[Any, ...]] = []
        self.running = 0
        self.most_running = 0

    async def _turn(self) -> None:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        await asyncio.sleep(0.001)
        self.running -= 1

    async def get(self, key: str) -> Any:
        self.calls.append(("get", key))
        await self._turn()
        return self.values.get(key)

    async def set(self, key: str, value: Any, ttl: float | None = None) -> None:
        self.calls.append(("set", key, ttl))
        await self._turn()
        self.values[key] = value

    async def delete(self, key: str) -> None:
        self.calls.append(("delete", key))
        await self._turn()
        self.values.pop(key, None)

    async def clear(self) -> None:
        self.calls.append(("clear",))
        await self._turn()
        self.values.clear()

    async def close(self) -> None:
        pass


def test_entries_go_to_the_backend_and_come_back(run: Run) -> None:
    backend = Memory()

    async def main() -> None:
        first, second = AsyncCache(remote_cache=backend), AsyncCache(remote_cache=backend)
        load = Counted({"a": 1})
        assert await first.get("k", load) == {"a": 1}
        await soon(lambda: "k" in backend.values)
        assert await second.get("k", load) is backend.values["k"], "an object, not a copy"
        assert load.calls == 1
        await first.set("k", 2, ttl=5)
        await acknowledged(first)
        assert backend.values["k"] == 2
        assert 4 < backend.calls[-1][2] <= 5
        first.delete("k")
        await acknowledged(first)
        assert backend.values == {}
        await first.set(("a", 1), 3)
        await acknowledged(first)
        ((key, value),) = backend.values.items()
        assert (key[:2], value) == ("k:", 3)
        first.clear()
        await acknowledged(first)
        await soon(lambda: not backend.values)

    run(main())


def test_calls_of_one_key_are_in_order_and_others_at_the_same_time(run: Run) -> None:
    backend = Memory()

    async def main() -> None:
        cache = AsyncCache(remote_cache=backend)
        await connected(cache)
        backend.calls.clear()
        for number in range(5):
            await cache.set("k", number)
            cache.set(("other", number), number)
        await acknowledged(cache)
        assert backend.values["k"] == 4
        assert backend.most_running > 1

    run(main())


def test_a_decorated_function_has_keys_of_its_own(run: Run) -> None:
    backend = Memory()

    @AsyncLRU(remote_cache=backend)
    async def double(number: int) -> int:
        return number * 2

    async def main() -> None:
        assert await double(2) == 4
        await soon(lambda: len(backend.values) == 1)
        (key,) = backend.values
        assert key.startswith("remote.test_own_backend.") or "double" in key

    run(main())


def test_a_backend_that_raises_costs_no_caller_anything(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    class Raises(Memory):
        async def get(self, key: str) -> Any:
            raise OSError("as a test")

        set = delete = get  # type: ignore[assignment]

        async def clear(self) -> None:
            raise OSError("as a test")

    async def main() -> None:
        cache = AsyncCache(remote_cache=Raises())
        load = Counted()
        assert await cache.get("k", load) == 1
        assert await cache.get("none") is None
        cache.set("k", 2)
        assert await cache.get("k") == 2, "before the backend has said anything"
        await cache.set("k", 3)
        assert await cache.get("k") is None, "nothing stands there, so changes could not be heard"
        cache.delete("k")
        cache.clear()
        assert await cache.get("k", load) == 2

    with caplog.at_level(logging.WARNING, "async_cache.remote"):
        run(main())
    assert any("as a test" in record.getMessage() for record in caplog.records)


def test_a_backend_that_hangs_costs_one_timeout(run: Run) -> None:
    class Hangs(Memory):
        cancelled = 0

        async def get(self, key: str) -> Any:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                Hangs.cancelled += 1
                raise

    async def main() -> None:
        cache = AsyncCache(remote_cache=Hangs())
        value, seconds = await timed(cache.get("first", Counted("value")))
        assert (value, seconds < 0.6) == ("value", True)
        later = []
        for number in range(9):
            value, seconds = await timed(cache.get(number, Counted("value")))
            assert value == "value"
            later.append(seconds)
        assert statistics.median(later) < 0.15, later
        await soon(lambda: Hangs.cancelled > 0)

    run(main())


def test_what_a_backend_returns_is_the_value(run: Run) -> None:
    class Lies(Memory):
        async def get(self, key: str) -> Any:
            return NotImplemented

    async def main() -> None:
        cache = AsyncCache(remote_cache=Lies())
        assert await cache.get("k", Counted()) is NotImplemented

    run(main())
