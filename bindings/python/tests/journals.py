"""Caches with a journal, and the files that a killed process leaves."""

from __future__ import annotations

import functools
import itertools
import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from cache import AsyncCache, DiskBackend

# Syncs by itself only after longer than any test takes.
NEVER = 3600.0

_numbers = itertools.count()

_OF_BACKEND = ("journal", "flush", "disk_bytes", "version", "secret", "pickle", "compression", "merge")


def opened(path: Path, **options: Any) -> AsyncCache:
    """A cache with a journal; the options are those of the backend and of the cache."""
    of_backend = {name: options.pop(name) for name in _OF_BACKEND if name in options}
    backend = DiskBackend(path, **{"journal": True, "flush": NEVER, **of_backend})
    cache = AsyncCache(**{"maxsize": None, **options}, backup=backend)
    assert cache.is_journaled()
    return cache


def killed(path: Path) -> Path:
    """The path of a copy of the files as they are now: a process that is killed at this moment
    leaves them so.
    """
    folder = path.parent / f"killed {next(_numbers)}"
    folder.mkdir()
    copy = folder / path.name
    if path.exists():
        shutil.copy2(path, copy)
    journal = folder_of(path)
    if journal.exists():
        shutil.copytree(journal, folder_of(copy))
    return copy


def folder_of(path: Path) -> Path:
    """The folder of the journal."""
    return path.with_name(path.name + ".d")


def files_of(path: Path) -> list[Path]:
    """The files of the journal."""
    return [file for file in folder_of(path).rglob("*") if file.is_file()]


def value_of(cache: AsyncCache, key: Any) -> Any:
    """The value of a key that is not loaded; ``None`` on a miss."""
    call: Any = cache.get(key)
    try:
        call.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("a call without a loader does not wait")


def found(cache: AsyncCache, keys: Iterable[Any]) -> dict[Any, Any]:
    """The keys that are there, with their values."""
    values = {key: value_of(cache, key) for key in keys}
    return {key: value for key, value in values.items() if value is not None}


def forget(path: Path) -> None:
    """Drops the files of a journal from the system's page cache, so that reading them waits for the
    disk. Skips the test where this cannot be done.
    """
    if not _reads_wait(path.parent):
        pytest.skip("reads of this file system never wait, or it does not tell")
    for file in files_of(path):
        _drop(file)


@functools.cache
def _reads_wait(folder: Path) -> bool:
    """Whether a read of a file that was dropped from the page cache reports that it would wait. The
    file is one that no test reads, because the attempt to read makes the system read ahead.
    """
    if not hasattr(os, "posix_fadvise") or not hasattr(os, "RWF_NOWAIT"):
        return False
    # The system may keep a file for a moment, if it is busy.
    for attempt in range(10):
        file = folder / f"whether reads wait {attempt}"
        file.write_bytes(b"some content")
        _drop(file)
        with file.open("rb") as opened_file:
            try:
                os.preadv(opened_file.fileno(), [bytearray(1)], 0, os.RWF_NOWAIT)
            except BlockingIOError:
                return True
            except OSError:
                return False
        time.sleep(0.02)
    return False


def _drop(file: Path) -> None:
    with file.open("rb") as opened_file:
        os.fdatasync(opened_file.fileno())
        os.posix_fadvise(opened_file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
