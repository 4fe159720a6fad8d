"""`maxsize` of caches with a journal, with and without a limit for the disk."""

from __future__ import annotations

from pathlib import Path

from journals import found, killed, opened, value_of
from loops import Run, returns

from cache import AsyncCache, DiskBackend


def larger_than_memory(path: Path, maxsize: int) -> AsyncCache:
    return opened(path, maxsize=maxsize, disk_bytes=1 << 20)


def test_without_a_limit_for_the_disk_an_evicted_entry_is_gone(path: Path) -> None:
    cache = opened(path, maxsize=10)
    for key in range(100):
        cache.set(key, key + 1)
    last = {key: key + 1 for key in range(90, 100)}
    assert (cache.size(), found(cache, range(100))) == (10, last)
    reborn = opened(killed(path), maxsize=10)
    assert (reborn.size(), found(reborn, range(100))) == (10, last)


def test_cold_entries_leave_first_one_by_one_the_oldest_first(path: Path) -> None:
    cache = opened(path, maxsize=10)
    for key in range(10):
        cache.set(key, key + 1)
    path = killed(path)
    cache = opened(path, maxsize=10)
    assert value_of(cache, 0) == 1  # in memory from now on
    for more in range(9):
        cache.set(100 + more, 0)
        assert (cache.size(), cache.contains(0)) == (10, True), more
        assert [key for key in range(1, 10) if cache.contains(key)] == list(range(2 + more, 10))
    reborn = opened(killed(path), maxsize=10)
    assert (reborn.size(), found(reborn, range(10))) == (10, {0: 1})


def test_a_smaller_cache_has_at_most_its_entries_after_a_while(path: Path) -> None:
    cache = opened(path, maxsize=100)
    for key in range(100):
        cache.set(key, key + 1)
    smaller = opened(killed(path), maxsize=10)
    smaller.set(200, 200)
    assert smaller.size() <= 100
    for key in range(200):
        smaller.set(1000 + key, 0)
    assert smaller.size() == 10


def test_with_a_limit_for_the_disk_memory_is_a_part_of_the_cache(run: Run, path: Path) -> None:
    cache = larger_than_memory(path, 10)
    for key in range(1000):
        cache.set(key, key + 1)
    assert found(cache, range(1000)) == {key: key + 1 for key in range(1000)}
    stats = cache.stats()
    assert stats["cold_hits"] >= 990
    assert (stats["size"], stats["cold"], stats["misses"]) == (1000, 990, 0)
    for key in range(0, 1000, 2):
        cache.delete(key)
    assert run(cache.get(1, loader=returns("from the origin"))) == 2
    assert len(found(cache, range(1000))) == 500
    reborn = larger_than_memory(killed(path), 10)
    assert len(found(reborn, range(1000))) == 500
    reborn.clear()
    assert (reborn.size(), found(reborn, range(1000))) == (0, {})


def test_a_cache_that_stores_nothing_has_no_journal_and_one_on_disk_only_has(path: Path) -> None:
    cache = AsyncCache(maxsize=0, backup=DiskBackend(path, journal=True))
    cache.set(1, 1)
    assert (value_of(cache, 1), cache.size(), cache.is_journaled()) == (None, 0, False)
    del cache
    cache = larger_than_memory(path, 0)
    cache.set(1, 1)
    assert (value_of(cache, 1), cache.contains(1)) == (1, True)


def test_an_evicted_key_that_is_an_object_is_gone(path: Path) -> None:
    keys = [frozenset({number, str(number)}) | {(1.5, number)} for number in range(6)]
    cache = opened(path, maxsize=3)
    for number, key in enumerate(keys):
        cache.set(key, number + 1)
    reborn = opened(killed(path), maxsize=3)
    assert found(reborn, keys) == {key: number + 1 for number, key in enumerate(keys) if number >= 3}
