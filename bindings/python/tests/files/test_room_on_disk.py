"""A disk with room for two files suffices: a save closes the replaced file, even while entries are
cold.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from loops import Run

from cache import AsyncCache, DiskBackend

COUNT = 3000
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc for files that are open")


def deleted_files(path: Path) -> list[str]:
    """The files in the path's folder that this process has open although their names are gone."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except OSError:  # the descriptor of the listing itself
            continue
        if target.startswith(str(path.parent)) and target.endswith(" (deleted)"):
            found.append(target)
    return found


def filled(path: Path, **options: Any) -> None:
    cache = AsyncCache(maxsize=None, backup=DiskBackend(path, **options))
    for number in range(COUNT):
        cache.set(number, f"value {number}")
    cache.set(range(5), "an eager key, for it has no canonical form")
    cache.save_to_backup()


@LINUX
@pytest.mark.parametrize(
    "options",
    [{}, {"merge": False}, {"secret": "correct horse battery staple", "compression": "zstd"}],
    ids=["merging", "alone", "secret and zstd"],
)
def test_the_file_that_a_save_replaced_is_closed_while_entries_are_cold(
    run: Run, path: Path, options: dict[str, Any]
) -> None:
    """The replaced file took space until its last cold entry was read: from the second save on, the
    disk held three files.
    """
    filled(path, **options)
    cache = AsyncCache(maxsize=None, backup=DiskBackend(path, **options))
    for save in range(5):
        assert run(cache.get(save * 7)) == f"value {save * 7}"
        cache.set(save * 11, f"value {save * 11}")
        cache.save_to_backup()
        assert deleted_files(path) == []
    assert cache.stats()["cold"] > COUNT // 2
    assert [run(cache.get(number)) for number in range(COUNT)] == [
        f"value {number}" for number in range(COUNT)
    ]
    again = AsyncCache(maxsize=None, backup=DiskBackend(path, **options))
    assert len(again.cache) == COUNT + 1
    assert run(again.get(range(5))) is not None


def test_what_is_cold_in_the_new_file_is_served_deleted_and_saved_as_in_the_old_one(
    run: Run, path: Path
) -> None:
    filled(path)
    cache = AsyncCache(maxsize=None, backup=DiskBackend(path))
    cache.delete(3)
    cache.save_to_backup()
    cache.save_to_backup()
    cache.delete(4)
    cache.set(5, "new")
    assert run(cache.get(3)) is None
    assert run(cache.get(4)) is None
    assert run(cache.get(6)) == "value 6"
    cache.save_to_backup()
    cache.load_from_backup()
    for current in (cache, AsyncCache(maxsize=None, backup=DiskBackend(path))):
        assert [run(current.get(key)) for key in (3, 4, 5, 6, 7)] == [None, None, "new", "value 6", "value 7"]
        assert len(current.cache) == COUNT - 1
