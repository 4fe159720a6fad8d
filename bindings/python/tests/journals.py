"""Caches with a journal, and the files that a killed process leaves."""

from __future__ import annotations

import functools
import itertools
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cache import AsyncCache, DiskBackend

# Syncs by itself only after longer than any test takes.
NEVER = 3600.0

# Limits below the time limit of a test: for all attempts of a test, and for the probe before them.
_ATTEMPTS_SECONDS = 15.0
_PROBE_SECONDS = 2.0

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
    disk. Not always: the system may keep a page, and a fast disk may have read it again before the
    attempt to read ends. `attempts` drops the files until a read has waited.

    Skips the test where a read never waits.
    """
    device = path.parent.stat().st_dev
    if device not in _reads_wait:
        _reads_wait[device] = _some_read_waits(path.parent)
    if not _reads_wait[device]:
        pytest.skip("reads of this file system never wait, or it does not tell")
    for file in files_of(path):
        _drop(file)


def attempts(path: Path) -> Iterator[None]:
    """Drops the files of a journal before each attempt to have a read that waits. The caller stops
    after the first attempt that was successful. All attempts of a test have one time limit. Then
    the test is skipped.
    """
    end = _first_attempt(path) + _ATTEMPTS_SECONDS
    while time.monotonic() < end:
        time.sleep(0.001)  # the system cannot drop what it is reading
        forget(path)
        yield
    pytest.skip(f"for {_ATTEMPTS_SECONDS} s, the system has served reads without waiting for the disk")


@functools.cache
def _first_attempt(_path: Path) -> float:
    """The time of a test's first attempt. Each test has a path of its own."""
    return time.monotonic()


# Whether reads wait, by the devices of the file systems.
_reads_wait: dict[int, bool] = {}


def _some_read_waits(folder: Path) -> bool:
    """Whether some read of a file that was dropped from the page cache reports that it would wait.
    Each attempt has a file of its own, because the attempt to read makes the system read ahead.
    """
    if not hasattr(os, "posix_fadvise") or not hasattr(os, "RWF_NOWAIT"):
        return False
    end = time.monotonic() + _PROBE_SECONDS
    while time.monotonic() < end:
        file = folder / f"whether reads wait {next(_numbers)}"
        file.write_bytes(b"some content")
        try:
            _drop(file)
            with file.open("rb") as opened_file:
                os.preadv(opened_file.fileno(), [bytearray(1)], 0, os.RWF_NOWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        finally:
            file.unlink()
        time.sleep(0.001)
    return False


# The states of files that were synced. To sync an unchanged file again takes milliseconds.
_synced: set[tuple[int, ...]] = set()


def _drop(file: Path) -> None:
    with file.open("rb") as opened_file:
        status = os.fstat(opened_file.fileno())
        state = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        if state not in _synced:
            os.fdatasync(opened_file.fileno())  # the system drops what is on the disk
            _synced.add(state)
        os.posix_fadvise(opened_file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
