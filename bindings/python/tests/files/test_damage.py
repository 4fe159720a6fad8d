"""Damaged and foreign files."""

from __future__ import annotations

import os
import pickle
import stat
import warnings
from pathlib import Path
from typing import Any

import pytest
from complaints import no_warning
from loops import Run, returns

from cache import AsyncCache, CacheWarning, DiskBackend

FOREIGN: dict[str, bytes] = {
    "text": b"this is somebody's diary\n" * 100,
    "pickle": pickle.dumps({"k": ("v", None)}),
    "zeros": bytes(10_000),
}


@pytest.mark.parametrize("name", list(FOREIGN))
def test_a_foreign_file_is_empty_with_a_warning_and_set_aside_by_the_save(path: Path, name: str) -> None:
    path.write_bytes(FOREIGN[name])
    with pytest.warns(CacheWarning, match=str(path)):
        cache = AsyncCache(backup=DiskBackend(path))
    assert len(cache.cache) == 0
    assert path.read_bytes() == FOREIGN[name]
    cache.set("k", "v")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheWarning)
        cache.save_to_backup()
    others = [other.read_bytes() for other in path.parent.iterdir() if other != path]
    assert FOREIGN[name] in others
    with no_warning():
        assert "k" in AsyncCache(backup=DiskBackend(path)).cache


def test_a_file_of_no_bytes_counts_as_no_file(path: Path) -> None:
    path.touch()
    with no_warning():
        cache = AsyncCache(backup=DiskBackend(path))
        cache.set("k", "v")
        cache.save_to_backup()
        assert "k" in AsyncCache(backup=DiskBackend(path)).cache
    assert sorted(other.name for other in path.parent.iterdir()) == [path.name, f"{path.name}.lock"]


def test_a_pickle_that_would_run_code_is_not_run(path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(path.parent / "attacked"),))

    path.write_bytes(pickle.dumps({"k": (Attack(), None)}))
    with pytest.warns(CacheWarning):
        AsyncCache(backup=DiskBackend(path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheWarning)
        assert DiskBackend(path).load() == {}
    assert not (path.parent / "attacked").exists()


def test_a_file_that_is_cut_or_changed_anywhere_never_gives_a_wrong_value(run: Run, path: Path) -> None:
    cache = AsyncCache(backup=DiskBackend(path))
    for number in range(5):
        cache.set(f"key {number}", [f"value {number}"])
    cache.save_to_backup()
    good = path.read_bytes()
    # About four hundred places of the file; the crate's own tests cover all of them.
    places = range(0, len(good), max(1, len(good) // 400) | 1)
    damaged = [good[:length] for length in places]
    damaged += [good[:at] + bytes([good[at] ^ 0x41]) + good[at + 1 :] for at in places]

    async def main() -> None:
        for content in damaged:
            path.write_bytes(content)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", CacheWarning)
                again = AsyncCache(backup=DiskBackend(path))
                for number in range(5):
                    assert await again.get(f"key {number}") in (None, [f"value {number}"])

    run(main())


def test_a_file_that_is_cut_under_a_running_cache_is_misses(run: Run, path: Path) -> None:
    async def main() -> None:
        with AsyncCache(maxsize=None, backup=DiskBackend(path)) as cache:
            for number in range(2_000):
                cache.set(number, "v" * 100)
        again = AsyncCache(maxsize=None, backup=DiskBackend(path))
        os.truncate(path, 4_096)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CacheWarning)
            found = [await again.get(number, returns("loaded")) for number in range(2_000)]
        assert set(found) <= {"v" * 100, "loaded"}
        assert "loaded" in found

    run(main())


def test_a_new_file_is_readable_by_its_owner_only(path: Path) -> None:
    AsyncCache(backup=DiskBackend(path)).save_to_backup()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_no_temporary_file_is_left(path: Path) -> None:
    cache = AsyncCache(backup=DiskBackend(path))
    for number in range(10):
        cache.set(number, number)
        cache.save_to_backup()
    unexpected = [other.name for other in path.parent.iterdir() if other != path and "lock" not in other.name]
    assert unexpected == []
