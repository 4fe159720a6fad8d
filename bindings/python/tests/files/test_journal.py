"""Caches with a journal: every write is on file when its call returns."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
from journals import folder_of, found, killed, opened, value_of
from loops import Run, returns

from cache import AsyncCache, CacheWarning, DiskBackend
from cache.async_cache import persistence_of


def test_writes_loads_deletes_and_clears_survive_a_kill_without_a_save(run: Run, path: Path) -> None:
    cache = opened(path)
    for key in range(10):
        cache.set(key, {"number": key})
    cache.delete(3)
    cache.set(4, 44)
    assert run(cache.get(20, loader=returns(200))) == 200
    reborn = opened(killed(path))
    expected = {key: {"number": key} for key in range(10) if key != 3} | {4: 44, 20: 200}
    assert reborn.size() == 10
    assert found(reborn, range(30)) == expected
    assert (reborn.stats()["cold_hits"], reborn.stats()["cold"], reborn.size()) == (10, 0, 10)
    reborn.clear()
    reborn.set(1, 11)
    again = opened(killed(Path(reborn.backup.path)))  # type: ignore[union-attr]
    assert (again.size(), found(again, range(30))) == (1, {1: 11})


def test_a_cold_entry_that_was_written_over_or_deleted_never_returns(run: Run, path: Path) -> None:
    cache = opened(path)
    for key in range(6):
        cache.set(key, key + 1)
    path = killed(path)
    for life in range(3):
        cache = opened(path)
        if life == 0:
            cache.set(0, 100)
            cache.delete(1)
            assert value_of(cache, 2) == 3
            cache.delete(2)
            assert run(cache.get(1, loader=returns(111))) == 111
        assert cache.size() == 5
        assert found(cache, range(6)) == {0: 100, 1: 111, 3: 4, 4: 5, 5: 6}
        assert (cache.size(), cache.contains(2), cache.contains(5)) == (5, False, True)
        path = killed(path)


def test_contains_reads_no_value_and_counts_nothing(path: Path) -> None:
    cache = opened(path)
    cache.set("a", 1)
    cache.set("gone", 1, ttl=0)
    reborn = opened(killed(path))
    before = reborn.stats()
    assert ("a" in reborn.cache, "b" in reborn.cache, "gone" in reborn.cache) == (True, False, False)
    assert reborn.stats() == before


def test_time_runs_down_while_no_process_runs(path: Path) -> None:
    cache = opened(path, default_ttl=3600)
    cache.set(1, 1)
    cache.set(2, 2, ttl=None)
    cache.set(3, 3, ttl=0.01)
    cache.set(4, 4)
    cache.set(4, 44, ttl=0)
    time.sleep(0.02)
    assert cache.size() == 2
    reborn = opened(killed(path))
    assert found(reborn, range(5)) == {1: 1, 2: 2}
    assert not reborn.contains(3) and not reborn.contains(4)


def test_a_value_that_is_not_kept_leaves_no_older_value_behind(run: Run, path: Path) -> None:
    cache = opened(path)
    cache.set(1, 1)
    assert run(cache.get(2, loader=returns(2), ttl=0)) == 2
    cache.set(1, 2, ttl=0)
    assert found(cache, range(3)) == {}
    assert found(opened(killed(path)), range(3)) == {}


def test_a_value_that_cannot_be_written_stays_in_memory_and_hides_the_older_one(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = opened(path)
    cache.set("a", 1)
    value = threading.Lock()  # it cannot be pickled
    cache.set("a", value)
    cache.set("b", value)
    assert value_of(cache, "a") is value
    assert cache.stats()["unjournaled"] == 2
    assert [record.message for record in caplog.records if "'a'" in record.message]
    assert len(caplog.records) == 1, "the first one is logged"
    assert found(opened(killed(path)), "ab") == {}
    cache.set("a", 2)
    assert found(opened(killed(path)), "ab") == {"a": 2}


def test_a_load_that_was_overtaken_is_in_no_file(run: Run, path: Path) -> None:
    cache = opened(path)

    async def load() -> int:
        cache.set(1, 2)
        return 1

    assert run(cache.get(1, loader=load)) == 1
    assert value_of(cache, 1) == 2
    assert found(opened(killed(path)), [1]) == {1: 2}


def test_a_load_that_was_fenced_by_a_delete_or_a_clear_is_in_no_file(run: Run, path: Path) -> None:
    cache = opened(path)

    async def load(fence: Any) -> int:
        fence()
        return 1

    run(cache.get(1, loader=lambda: load(lambda: cache.delete(1))))
    run(cache.get(2, loader=lambda: load(cache.clear)))
    assert found(opened(killed(path)), range(3)) == {}


def test_a_batch_of_loads_survives(run: Run, path: Path) -> None:
    cache = opened(path, batch_window_ms=0)

    async def load(keys: list[int]) -> dict[int, Any]:
        return {key: key * 10 if key else threading.Lock() for key in keys}

    async def many() -> None:
        await asyncio.gather(*[cache.get(key, batch_loader=load) for key in range(10)])

    run(many())
    assert cache.stats()["unjournaled"] == 1
    assert found(opened(killed(path)), range(10)) == {key: key * 10 for key in range(1, 10)}


def test_large_and_empty_values(path: Path) -> None:
    values = {"big": b"x" * 5_000_000, "empty": "", "none": 0, "deep": [[[{"a": (1, 2)}]]], "": "no name"}
    cache = opened(path)
    for key, value in values.items():
        cache.set(key, value)
    assert {key: value_of(opened(killed(path)), key) for key in ["big"]} == {"big": values["big"]}
    reborn = opened(killed(path))
    assert {key: value_of(reborn, key) for key in values} == values


def test_a_snapshot_becomes_a_journal_and_back(path: Path) -> None:
    cache = AsyncCache(backup=DiskBackend(path))
    for key in range(5):
        cache.set(key, key + 1)
    cache.save_to_backup()
    del cache
    journaled = opened(path)
    assert (journaled.size(), value_of(journaled, 1)) == (5, 2)
    journaled.delete(1)
    journaled.set(2, 22)
    reborn = opened(killed(path))
    assert found(reborn, range(5)) == {0: 1, 2: 22, 3: 4, 4: 5}
    assert reborn.size() == 4
    journaled.close_journal(10)
    assert not folder_of(path).exists()
    assert found(AsyncCache(backup=DiskBackend(path)), range(5)) == {0: 1, 2: 22, 3: 4, 4: 5}


def test_entries_in_memory_when_the_journal_is_opened_are_written_to_it(path: Path) -> None:
    cache = AsyncCache(maxsize=10)
    cache.set("early", 1)
    cache.backup = DiskBackend(path, journal=True)
    cache._persist(persistence_of(cache.backup))
    assert cache.is_journaled()
    assert found(opened(killed(path)), ["early"]) == {"early": 1}


def test_the_path_can_be_opened_again_as_soon_as_a_cache_is_dropped(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for life in range(10):
            cache = opened(path, flush=0.001)
            assert found(cache, range(30)) == {key: key + 1 for key in range(life)}
            cache.set(life, life + 1)
            if life % 2:
                cache.circle = cache  # type: ignore[attr-defined] # found by the collector
            del cache
            if life % 3 == 0:
                gc.collect()


def test_a_second_cache_on_the_path_saves_snapshots_that_merge_and_nobody_loses_entries(path: Path) -> None:
    first = opened(path)
    for key in range(5):
        first.set(key, key + 1)
    with pytest.warns(CacheWarning, match="there is no journal"):
        second = AsyncCache(backup=DiskBackend(path, journal=True))
    assert (second.is_journaled(), second.size()) == (False, 0)
    for key in range(10, 15):
        second.set(key, key + 1)
    second.save_to_backup()
    assert len(found(first, range(20))) >= 5
    second.load_from_backup()  # without a second warning
    del second
    first.close_journal(10)
    del first
    expected = {key: key + 1 for key in [*range(5), *range(10, 15)]}
    assert found(opened(path), range(20)) == expected


def test_a_save_is_a_flush_and_the_block_of_a_cache_ends_with_one(path: Path) -> None:
    with opened(path) as cache:
        cache.set(1, 1)
        cache.save_to_backup()
        assert cache.stats()["saves"] == 1
        cache.set(2, 2)
    assert cache.stats()["saves"] == 2
    assert not path.exists(), "nothing is written but the journal"
    assert cache.stats()["disk_bytes"] > 0


def test_a_cache_in_use_takes_no_other_limits(path: Path) -> None:
    cache = opened(path)
    with pytest.raises(RuntimeError, match="in use"):
        cache.__init__(maxsize=1)  # type: ignore[misc]
