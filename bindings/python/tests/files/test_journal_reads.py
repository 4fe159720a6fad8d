"""Cold entries outside of the system's page cache: a thread reads, and the event loop goes on."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cold_reads import KEYS, ReadThreads, begun, cold, never, waiting
from journals import attempts, files_of, forget
from loops import Run, turns

from agent_cache import AgentCache, AgentCacheSession
from cache import AsyncLRU, AsyncTTL, DiskBackend, _reads


def test_the_threads_of_the_package_read(run: Run, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    work = _reads._run

    def noted(read: Any) -> None:
        names.append(threading.current_thread().name)
        work(read)

    monkeypatch.setattr(_reads, "_run", noted)
    cache = cold(path)
    last = str(KEYS - 1)
    asked: list[str] = []

    async def reads(key: str, ask: Callable[[], Any]) -> None:
        before = len(names)
        for _ in attempts(path):
            asked.append(key)
            assert await ask() == key
            if len(names) > before:
                return

    async def main() -> None:
        await reads("5", lambda: cache.get(5))
        await reads(last, lambda: cache.get(KEYS - 1, loader=never))
        await reads("5", lambda: cache.get(5, batch_loader=never))

    run(main())
    assert len(names) >= 3 and all(name.startswith("cache read") for name in names)
    assert (cache.stats()["cold_hits"], cache.stats()["misses"]) == (len(asked), 0)


def test_the_event_loop_goes_on_while_a_thread_reads(run: Run, path: Path, threads: ReadThreads) -> None:
    cache = cold(path, maxsize=1)

    async def main() -> None:
        call = await waiting(path, lambda: cache.get(3, loader=never), evict=lambda: cache.set("other", 0))
        await turns()
        assert (call.done(), threads.count) == (False, 1)
        cache.set("other", 1)
        assert await cache.get("other") == 1
        assert await cache.get("not there") is None
        threads.read()
        assert await call == "3"
        assert (await cache.get(3), threads.count) == ("3", 1)

    run(main())


def test_what_is_in_the_page_cache_is_read_in_place(run: Run, path: Path, threads: ReadThreads) -> None:
    cache = cold(path)
    for file in files_of(path):
        file.read_bytes()

    async def main() -> list[Any]:
        return [await cache.get(key) for key in range(KEYS)]

    assert run(main()) == [str(key) for key in range(KEYS)]
    assert threads.count == 0


def test_a_hundred_callers_share_a_read(run: Run, path: Path, threads: ReadThreads) -> None:
    cache = cold(path)

    async def main() -> None:
        calls = [await waiting(path, lambda: cache.get(3, loader=never)) for _ in range(50)]
        calls += [await waiting(path, lambda: cache.get(3)) for _ in range(50)]
        assert threads.count == 1
        threads.read()
        assert await asyncio.gather(*calls) == ["3"] * 100

    run(main())
    assert (threads.count, cache.stats()["misses"], cache.stats()["loads"]) == (1, 0, 0)


def test_the_first_caller_of_a_read_brings_the_entry_into_memory(
    run: Run, path: Path, threads: ReadThreads
) -> None:
    cache = cold(path, maxsize=1)
    before: dict[str, Any] = {}

    def ask() -> Any:
        before.update(cache.stats())  # of the last call, which waits
        return cache.get(3)

    async def main() -> None:
        calls = [await waiting(path, ask, evict=lambda: cache.set("other", 0))]
        assert cache.stats()["hits"] == before["hits"]
        calls += [asyncio.ensure_future(cache.get(3)) for _ in range(9)]
        threads.read()
        assert await asyncio.gather(*calls) == ["3"] * 10
        assert await cache.get(3) == "3"

    run(main())
    after = cache.stats()
    assert (after["cold_hits"] - before["cold_hits"], after["hits"] - before["hits"]) == (1, 11)
    assert threads.count == 1


def test_each_key_is_read_by_itself(run: Run, path: Path, threads: ReadThreads) -> None:
    cache = cold(path)

    async def main() -> None:
        calls = []
        for key in (1, 2, 1.0, True):
            calls.append(await waiting(path, lambda key=key: cache.get(key)))  # type: ignore[misc]
        assert threads.count == 2
        threads.read()
        assert await asyncio.gather(*calls) == ["1", "2", "1", "1"]

    run(main())


@pytest.mark.parametrize("decorated", [AsyncLRU, functools.partial(AsyncTTL, 60)], ids=["LRU", "TTL"])
def test_decorated_functions_and_methods_await_a_read(
    run: Run, path: Path, threads: ReadThreads, decorated: Any
) -> None:
    loads: list[int] = []
    backend = DiskBackend(path, journal=True, disk_bytes=1 << 30)

    class Service:
        @decorated(maxsize=0, backup=backend, skip_args=1)  # type: ignore[untyped-decorator]
        async def page(self, number: int, *, size: int = 1) -> str:
            loads.append(number)
            return f"{number} {size}"

    service = Service()

    async def main() -> None:
        assert [await service.page(number, size=3) for number in range(4)][3] == "3 3"
        calls = [await waiting(path, lambda: service.page(1, size=3)) for _ in range(3)]
        assert threads.count == 1
        threads.read()
        assert await asyncio.gather(*calls) == ["1 3"] * 3

    run(main())
    assert loads == [0, 1, 2, 3]


def test_a_tool_counts_a_call_when_its_read_has_ended(run: Run, path: Path, threads: ReadThreads) -> None:
    @AgentCache("rows", maxsize=0, backup=DiskBackend(path, journal=True, disk_bytes=1 << 30))
    async def rows(number: int) -> int:
        return number + 1

    async def main() -> None:
        async with AgentCacheSession("one") as session:
            assert [await rows(number) for number in range(3)] == [1, 2, 3]
            asked = 0

            def ask() -> Any:
                nonlocal asked
                asked += 1
                return rows(1)

            call = await waiting(path, ask)
            assert (session.stats()["hits"], session.stats()["misses"]) == (asked - 1, 3)
            threads.read()
            assert await call == 2
            assert (session.stats()["hits"], session.stats()["misses"]) == (asked, 3)

    run(main())
    assert threads.count == 1


def test_a_call_that_loads_anew_does_so_once(run: Run, path: Path, threads: ReadThreads) -> None:
    loads: list[int] = []

    @AsyncLRU(maxsize=1, backup=DiskBackend(path, journal=True, disk_bytes=1 << 30))
    async def page(number: int) -> int:
        loads.append(number)
        return len(loads)

    async def main() -> None:
        assert [await page(number) for number in range(3)] == [1, 2, 3]
        forget(path)
        call = await begun(page(0, use_cache=False))
        threads.read()
        assert await call == 4
        assert await page(0) == 4

    run(main())
    assert loads == [0, 1, 2, 0]


def test_writes_and_loads_during_a_read_win(run: Run, path: Path, threads: ReadThreads) -> None:
    cache = cold(path)
    loads: list[str] = []

    async def load() -> str:
        loads.append("loaded")
        return "loaded"

    async def main() -> None:
        calls = []
        for key in (1, 2, 2, 3, 4):
            calls.append(await waiting(path, lambda key=key: cache.get(key, loader=load)))  # type: ignore[misc]
        calls.append(await waiting(path, lambda: cache.get(2)))
        assert threads.count == 4
        cache.set(1, "set")
        cache.delete(2)
        cache.set(3, "set")
        cache.delete(3)
        cache.set(3, "set again")
        cache.set(4, "expired", ttl=0)
        threads.read()
        answers = await asyncio.gather(*calls)
        assert answers[:5] == ["set", "loaded", "loaded", "set again", "loaded"]
        assert answers[5] in (None, "loaded")  # a call without a loader joins no load
        assert [await cache.get(key) for key in (1, 2, 3)] == ["set", "loaded", "set again"]

    run(main())
    assert loads == ["loaded", "loaded"]


def test_a_clear_during_a_read_wins_and_a_hundred_callers_share_the_load(
    run: Run, path: Path, threads: ReadThreads
) -> None:
    cache = cold(path)
    loads: list[int] = []

    async def load() -> int:
        loads.append(1)
        await turns(3)
        return 33

    async def main() -> None:
        calls = [await waiting(path, lambda: cache.get(3, loader=load)) for _ in range(100)]
        cache.clear()
        threads.read()
        assert await asyncio.gather(*calls) == [33] * 100

    run(main())
    assert (loads, cache.stats()["misses"], cache.stats()["loads"]) == ([1], 100, 1)
