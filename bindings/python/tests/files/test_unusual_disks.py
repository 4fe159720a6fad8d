"""File systems without locks, modes or descriptors. A save works without them, or fails at once
with a reason.
"""

from __future__ import annotations

import gc
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from loops import Run

from cache import AsyncCache, BackupError, CacheWarning, DiskBackend
from cache._persistence import Persistence

resource = pytest.importorskip("resource", reason="Windows has no limits of descriptors, and no modes")

SECRET = "correct horse battery staple"


@contextmanager
def no_descriptors() -> Iterator[None]:
    """No file can be opened, as in a process with too many open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def names(path: Path) -> list[str]:
    return sorted(file.name for file in path.parent.iterdir())


def test_a_symlink_to_nothing_where_the_lock_is_to_be_is_an_error_at_once(path: Path) -> None:
    """Saves, `clear` and autosaves looped for ever: the lock was searched at the target of the
    link, but created at the link itself.
    """
    cache = AsyncCache(backup=DiskBackend(path))
    cache.set("key", 1)
    Path(f"{path}.lock").symlink_to("nowhere")
    began = time.monotonic()
    with pytest.raises(BackupError, match="symlink where the lock"):
        cache.save_to_backup()
    with pytest.raises(BackupError, match="symlink where the lock"):
        DiskBackend(path).save({})
    assert time.monotonic() - began < 5
    AsyncCache(backup=DiskBackend(path, merge=False)).save_to_backup()  # needs no lock


@pytest.mark.parametrize("starts", [1, 3])
def test_a_start_without_descriptors_costs_the_start_and_not_the_file(
    run: Run, path: Path, starts: int
) -> None:
    """The next save set aside a good file that could not be opened, and left a further copy at
    every start.
    """
    first = AsyncCache(backup=DiskBackend(path))
    for number in range(100):
        first.set(number, number)
    first.save_to_backup()
    for start in range(starts):
        with no_descriptors(), pytest.warns(CacheWarning, match="Too many open files"):
            cache = AsyncCache(backup=DiskBackend(path))
        assert run(cache.get(7)) is None
        cache.set("new", start)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            cache.save_to_backup()
        assert names(path) == ["test.cache", "test.cache.lock"]
        again = AsyncCache(backup=DiskBackend(path))
        assert run(again.get(7)) == 7
        assert run(again.get("new")) == start


def test_where_saves_do_not_merge_such_a_start_leaves_one_copy_of_the_file(path: Path) -> None:
    for start in range(4):
        cache = AsyncCache(backup=DiskBackend(path, merge=False))
        cache.set("key", start)
        cache.save_to_backup()
        with no_descriptors(), pytest.warns(CacheWarning, match="Too many open files"):
            cache = AsyncCache(backup=DiskBackend(path, merge=False))
        content = path.read_bytes()
        with pytest.warns(CacheWarning, match="aside"):
            cache.save_to_backup()
        assert names(path) == ["test.cache", "test.cache.aside"]
        assert path.with_name("test.cache.aside").read_bytes() == content


@pytest.mark.parametrize("secret", [None, SECRET])
def test_a_volume_that_makes_files_writable_to_a_group_never_fills_up(
    run: Run, path: Path, secret: str | None
) -> None:
    """As in Kubernetes with `fsGroup`. Each start was cold, and left a further copy behind."""
    warm = 0
    for life in range(6):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CacheWarning)
            cache = AsyncCache(backup=DiskBackend(path, secret=secret))
            warm += run(cache.get("key")) == life - 1
            cache.set("key", life)
            cache.save_to_backup()
        path.chmod(0o660)
    if secret is None:
        assert (warm, names(path)) == (0, ["test.cache", "test.cache.aside", "test.cache.lock"])
    else:
        assert (warm, names(path)) == (5, ["test.cache", "test.cache.lock"])


def test_a_file_that_everybody_can_write_to_is_refused_with_a_secret_too(run: Run, path: Path) -> None:
    cache = AsyncCache(backup=DiskBackend(path, secret=SECRET))
    cache.set("key", 1)
    cache.save_to_backup()
    path.chmod(0o666)
    with pytest.warns(CacheWarning, match="others can write to it"):
        cache = AsyncCache(backup=DiskBackend(path, secret=SECRET))
    assert run(cache.get("key")) is None


class WithoutLocks:
    """A cache whose native half reports a file system without locks."""

    def __init__(self, cache: Any) -> None:
        self.cache = cache

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cache, name)

    def save_to_file(self, *arguments: Any) -> dict[str, Any]:
        report: dict[str, Any] = self.cache.save_to_file(*arguments)
        assert report["without_locks"] is None
        return {**report, "without_locks": "No locks available (os error 37)"}


@pytest.mark.parametrize(("merge", "expected"), [(True, 1), (False, 0)])
def test_that_there_are_no_locks_is_said_once_and_only_where_saves_want_one(
    path: Path, merge: bool, expected: int
) -> None:
    from cache import _native

    persistence = Persistence(
        DiskBackend(path, merge=merge), collect=gc.collect, after_turn=lambda: None, after_save=lambda: None
    )
    told: list[str] = []
    cache: Any = WithoutLocks(_native.Cache())
    for _ in range(3):
        persistence.save(cache, told.append)
    assert len(told) == expected
    for message in told:
        assert str(path) in message
        assert "No locks available" in message


if sys.platform == "linux":

    def test_a_folder_that_is_a_symlink_to_nothing_is_a_clear_error(tmp_path: Path) -> None:
        (tmp_path / "data").symlink_to("not mounted")
        cache = AsyncCache(backup=DiskBackend(tmp_path / "data/test.cache"))
        cache.set("key", 1)
        with pytest.raises(BackupError, match="a symlink to not mounted, where there is nothing"):
            cache.save_to_backup()
