"""The arguments of a `DiskBackend` with a journal, and its methods without a cache."""

from __future__ import annotations

import copy
import pickle
import time
from pathlib import Path
from typing import Any

import pytest
from journals import folder_of, found, killed, opened

from cache import AsyncCache, BackupError, DiskBackend


@pytest.mark.parametrize(
    ("options", "journal", "disk_bytes"),
    [
        ({}, False, None),
        ({"journal": False}, False, None),
        ({"journal": None}, False, None),
        ({"journal": True}, True, None),
        ({"journal": "file"}, True, None),
        ({"disk_bytes": 1 << 30}, True, 1 << 30),
        ({"journal": True, "disk_bytes": 1}, True, 1),
        ({"flush": 1, "journal": True}, True, None),
        ({"flush": 1, "disk_bytes": 5}, True, 5),
    ],
)
def test_the_journal_is_off_unless_asked_for(
    path: Path, options: dict[str, Any], journal: bool, disk_bytes: int | None
) -> None:
    backend = DiskBackend(path, **options)
    assert (backend.journal, backend.flush, backend.disk_bytes) == (journal, 1.0, disk_bytes)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"journal": "wal"}, ValueError, 'journal is True, False or "file"'),
        ({"journal": 1}, ValueError, "not 1"),
        ({"disk_bytes": 10, "journal": False}, ValueError, "leave one of the two out"),
        ({"disk_bytes": 0}, ValueError, "1 or more"),
        ({"disk_bytes": -5}, ValueError, "not -5"),
        ({"disk_bytes": 1 << 70}, ValueError, "number of bytes"),
        ({"disk_bytes": "2G"}, TypeError, "not str"),
        ({"disk_bytes": 1.5}, TypeError, "not float"),
        ({"disk_bytes": True}, TypeError, "not bool"),
        ({"flush": 0}, ValueError, "above 0"),
        ({"flush": -1.0}, ValueError, "above 0"),
        ({"flush": float("nan")}, ValueError, "above 0"),
        ({"flush": float("inf")}, ValueError, "above 0"),
        ({"flush": "1s"}, TypeError, "not str"),
        ({"flush": None}, TypeError, "not NoneType"),
        ({"flush": True}, TypeError, "not bool"),
        ({"flush": 1.0}, ValueError, "add journal=True, or leave flush out"),
        ({"flush": 5, "journal": False}, ValueError, "there is no journal"),
        ({"flush": 5, "journal": None}, ValueError, "there is no journal"),
        ({"flush": -1, "journal": False}, ValueError, "above 0"),
    ],
)
def test_a_wrong_option_is_an_error_that_says_what_is_right(
    path: Path, options: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        DiskBackend(path, **options)


def test_the_repr_shows_the_journal(path: Path) -> None:
    assert repr(DiskBackend("/x.cache")) == "DiskBackend('/x.cache')"
    assert repr(DiskBackend("/x.cache", journal="file")) == "DiskBackend('/x.cache', journal=True)"
    limited = DiskBackend("/x.cache", disk_bytes=5)
    assert repr(limited) == "DiskBackend('/x.cache', journal=True, disk_bytes=5)"


def test_copies_and_pickles_keep_the_journal(path: Path) -> None:
    backend = DiskBackend(path, disk_bytes=1 << 20, flush=2)
    for again in (copy.copy(backend), copy.deepcopy(backend), pickle.loads(pickle.dumps(backend))):
        assert (again.journal, again.flush, again.disk_bytes) == (True, 2.0, 1 << 20)
        cache = AsyncCache(backup=again)
        assert cache.is_journaled()
        del cache


def test_a_backend_pickled_by_an_earlier_version_has_no_journal(path: Path) -> None:
    state = DiskBackend(path).__getstate__()
    for name in ("journal", "flush", "disk_bytes"):
        del state[name]
    backend = object.__new__(DiskBackend)
    backend.__setstate__(state)
    assert AsyncCache(backup=backend).is_journaled() is False


# Without a cache


def written(path: Path) -> Path:
    """The files of a killed process, with a base and a journal."""
    cache = AsyncCache(backup=DiskBackend(path))
    for key in range(3):
        cache.set(key, key + 1)
    cache.save_to_backup()
    journaled = opened(path)
    journaled.delete(0)
    journaled.set(1, 11)
    journaled.set("new", {"a": [1]})
    journaled.set("short", 1, ttl=3600)
    journaled.set("gone", 1, ttl=0)
    return killed(path)


def test_load_returns_the_entries_of_file_and_journal(path: Path) -> None:
    path = written(path)
    entries = DiskBackend(path, journal=True).load()
    assert {key: value for key, (value, _) in entries.items()} == {
        1: 11,
        2: 3,
        "new": {"a": [1]},
        "short": 1,
    }
    deadline = entries["short"][1]
    assert deadline is not None and 3500 < deadline - time.monotonic() <= 3600
    assert entries["new"][1] is None


def test_load_reads_the_journal_while_a_cache_has_it(path: Path) -> None:
    cache = opened(path)
    cache.set(1, 1)
    assert DiskBackend(path, journal=True).load() == {1: (1, None)}
    cache.set(2, 2)
    assert set(DiskBackend(path, journal=True).load()) == {1, 2}


def test_load_of_nothing_is_empty_and_creates_nothing(path: Path) -> None:
    assert DiskBackend(path, journal=True).load() == {}
    assert list(path.parent.iterdir()) == []


def test_save_replaces_file_and_journal(path: Path) -> None:
    path = written(path)
    DiskBackend(path, journal=True).save({"only": (1, None), 1: (5, 3600.0)})
    assert found(opened(killed(path)), [0, 1, 2, "new", "short", "only"]) == {"only": 1, 1: 5}
    assert found(AsyncCache(backup=DiskBackend(path)), [1, 2, "only"]) == {"only": 1, 1: 5}


def test_clear_removes_file_and_journal(path: Path) -> None:
    path = written(path)
    DiskBackend(path, journal=True).clear()
    assert not path.exists()
    assert not folder_of(path).exists()
    assert DiskBackend(path, journal=True).load() == {}
    DiskBackend(path, journal=True).clear()


def test_save_and_clear_are_refused_while_a_cache_has_the_journal(path: Path) -> None:
    cache = opened(path)
    cache.set(1, 1)
    with pytest.raises(BackupError, match="has the store open|writes to the store"):
        DiskBackend(path, journal=True).save({})
    with pytest.raises(BackupError, match="has the store open|writes to the store"):
        DiskBackend(path, journal=True).clear()
    assert found(opened(killed(path)), [1]) == {1: 1}
