"""`load_from_backup` in a cache that already has an open file.

The bug's story: a cache with a hundred entries in its file, none of them read so far, loaded a file
with which another process had replaced it. All hundred were lost: they were only in the old file,
which was closed. The next save made the loss permanent.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from complaints import no_warning
from loops import Run

from cache import AsyncCache, AsyncLRU, DiskBackend


def cache_on(path: Path, **options: Any) -> AsyncCache:
    return AsyncCache(**{"maxsize": None, **options}, backup=DiskBackend(path))


def written(path: Path, *entries: tuple[Any, Any]) -> None:
    """Replaces the file, as another process would."""
    backend = DiskBackend(path)
    backend.save({key: (value, None) for key, value in entries})


def hundred(path: Path, **options: Any) -> AsyncCache:
    cache = cache_on(path)
    for number in range(100):
        cache.set(number, f"old {number}")
    cache.save_to_backup()
    return cache_on(path, **options)


def test_what_is_cold_stays_when_a_file_without_it_is_loaded(run: Run, path: Path) -> None:
    async def main() -> None:
        cache = hundred(path)
        assert cache.stats()["cold"] == 100
        written(path, ("b", 1), (5, "new 5"))
        with no_warning():
            cache.load_from_backup()
        assert cache.stats()["cold"] == len(cache.cache) == 101
        assert [await cache.get(key) for key in (4, 5, 6, "b")] == ["old 4", "new 5", "old 6", 1]
        cache.save_to_backup()
        again = cache_on(path)
        assert len(again.cache) == 101
        assert [await again.get(key) for key in (4, 5, 6, "b")] == ["old 4", "new 5", "old 6", 1]

    run(main())
    assert sorted(os.listdir(path.parent)) == [path.name, f"{path.name}.lock"]


def test_what_was_deleted_or_replaced_in_memory_does_not_come_back_with_it(run: Run, path: Path) -> None:
    async def main() -> None:
        cache = hundred(path)
        cache.delete(1)
        cache.set(2, "newest 2")
        assert await cache.get(3) == "old 3"
        written(path, (2, "new 2"), (3, "new 3"))
        cache.load_from_backup()
        assert [await cache.get(key) for key in (1, 2, 3, 4)] == [None, "newest 2", "old 3", "old 4"]
        assert len(cache.cache) == 99
        cache.clear()
        assert len(cache.cache) == 0
        cache.load_from_backup()
        assert len(cache.cache) == 2

    run(main())


def test_the_old_files_entries_make_room_first(run: Run, path: Path) -> None:
    async def main() -> None:
        cache = hundred(path, maxsize=100)
        written(path, *((f"new {number}", number) for number in range(40)))
        cache.load_from_backup()
        assert len(cache.cache) == 100
        assert await cache.get("new 0") == 0
        assert [await cache.get(39), await cache.get(40)] == [None, "old 40"]

    run(main())


def test_cold_results_of_a_function_stay_too(run: Run, path: Path) -> None:
    """Their keys are compared, and cannot be turned into objects."""
    loads: list[Any] = []

    async def function(*args: Any) -> Any:
        loads.append(args)
        return args

    def cached() -> Any:
        return AsyncLRU(maxsize=None, backup=DiskBackend(path))(function)

    async def main() -> None:
        first = cached()
        await first([1], {"a": 2})
        first.save_to_backup()
        kept = cached()
        other = cached()
        other.clear_cache()
        await other("other")
        other.save_to_backup()
        kept.load_from_backup()
        assert kept.stats()["cold"] == 2
        before = len(loads)
        assert await kept([1], {"a": 2}) == ([1], {"a": 2})
        assert await kept("other") == ("other",)
        assert len(loads) == before

    run(main())


def test_loading_the_same_file_again_changes_nothing(run: Run, path: Path) -> None:
    async def main() -> None:
        cache = hundred(path)
        for _ in range(3):
            cache.load_from_backup()
            assert cache.stats()["cold"] == 100
        assert await cache.get(5) == "old 5"
        cache.load_from_backup()
        assert len(cache.cache) == 100

    run(main())
