"""An event loop continues to run beside saves and loads in threads.

A load of 300,000 entries in a thread blocked the event loop beside it for 290 ms, and for a second
if the keys were objects, though it released the interpreter's lock every half millisecond: the load
took the lock again before any other thread could, and each release restarted the waiting time of
the other threads. The same happened with saves of pickled keys.

The delay of a loop depends on the machine, so the best of a few tries is compared with a plain
thread of Python code beside the same loop. Without `pace.rs`, each test takes far longer.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from stores import MemoryBackend

from cache import AsyncCache, DiskBackend

TRIES = 4


class Id(NamedTuple):
    """Part of a key."""

    number: int


class Key:
    """A key without canonical bytes: it is pickled."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and self.number == other.number

    def __hash__(self) -> int:
        return self.number


@pytest.fixture(autouse=True)
def no_collections() -> Iterator[None]:
    """The garbage collector also stops all threads; its pauses are not ours to measure."""
    gc.disable()
    yield
    gc.enable()


async def worst_delay(work: Callable[[], object]) -> float:
    """The greatest delay of a loop that sleeps for a millisecond, while a thread works."""
    delays = [0.0]
    is_over = False

    async def tick() -> None:
        while not is_over:
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            delays.append(time.perf_counter() - began - 0.001)

    ticking = asyncio.get_running_loop().create_task(tick())
    await asyncio.sleep(0)
    kept = await asyncio.to_thread(work)
    is_over = True
    await ticking
    del kept
    return max(delays)


def best(work: Callable[[], object]) -> float:
    return min(asyncio.run(worst_delay(work)) for _ in range(TRIES))


def counts() -> object:
    return sum(1 for _ in range(3_000_000))


def full(backup: Any, entries: int, make: Callable[[int], Any]) -> AsyncCache:
    cache = AsyncCache(maxsize=None, backup=backup)
    for number in range(entries):
        cache.set(make(number), number)
    return cache


def loads_again(path: Path, make: Callable[[int], Any], entries: int) -> Callable[[], object]:
    cache = full(DiskBackend(path), entries, make)
    cache.save_to_backup()
    return cache.load_from_backup


def opens(path: Path, make: Callable[[int], Any], entries: int) -> Callable[[], object]:
    full(DiskBackend(path), entries, make).save_to_backup()
    return lambda: AsyncCache(maxsize=None, backup=DiskBackend(path))


def saves(path: Path, make: Callable[[int], Any], entries: int) -> Callable[[], object]:
    return full(DiskBackend(path), entries, make).save_to_backup


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("prepare", "make", "entries"),
    [
        pytest.param(loads_again, str, 200_000, id="a load of plain keys"),
        pytest.param(loads_again, Key, 50_000, id="a load of objects as keys"),
        pytest.param(opens, Key, 50_000, id="a construction with objects as keys"),
        pytest.param(saves, Key, 50_000, id="a save of objects as keys"),
        pytest.param(saves, str, 200_000, id="a save of plain keys"),
    ],
)
def test_an_event_loop_goes_on_beside(
    path: Path, prepare: Callable[..., Callable[[], object]], make: Callable[[int], Any], entries: int
) -> None:
    work = prepare(path, make, entries)
    ours, plain = best(work), best(counts)
    assert ours <= max(0.05, 5 * plain), (
        f"{ours * 1e3:.0f} ms late, beside a thread that counts {plain * 1e3:.0f} ms"
    )


def test_a_backend_without_a_cache_loads_and_saves_beside_an_event_loop(path: Path) -> None:
    backend = DiskBackend(path)
    entries: dict[Any, Any] = {str(number): (Id(number), None) for number in range(60_000)}
    plain = best(counts)
    assert best(lambda: backend.save(entries)) <= max(0.05, 5 * plain)
    assert best(backend.load) <= max(0.05, 5 * plain)
    assert backend.load() == entries


def test_a_backend_of_ones_own_is_given_all_entries_in_their_order() -> None:
    backend = MemoryBackend()
    cache = full(backend, 1_000, str)
    asyncio.run(_get(cache, "7"))
    cache.save_to_backup()
    (saved,) = backend.saved
    assert list(saved) == [str(number) for number in range(1_000) if number != 7] + ["7"]
    again = AsyncCache(maxsize=10, backup=backend)
    assert [str(number) in again.cache for number in (7, 999, 1)] == [True, True, False]


async def _get(cache: AsyncCache, key: str) -> Any:
    return await cache.get(key)


def test_what_a_cleared_cache_held_is_dropped_when_clear_returns() -> None:
    dropped = []

    class Dropped:
        def __del__(self) -> None:
            dropped.append(len(cache.cache))

    cache = AsyncCache(maxsize=None)
    for number in range(1_000):
        cache.set(number, Dropped())
    cache.clear()
    assert dropped == [0] * 1_000
