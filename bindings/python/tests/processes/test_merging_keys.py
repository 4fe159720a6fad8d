"""Saves of several caches to one path, with keys that are objects: such keys are compared by
equality, are pickled, and may interrupt a save or a load.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from shared_file import content, elsewhere, served, write_keys

from cache import AsyncCache, CacheWarning, DiskBackend


@pytest.fixture
def keys(path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module `keys`, imported into this process."""
    write_keys(path.parent)
    monkeypatch.syspath_prepend(str(path.parent))
    monkeypatch.delitem(sys.modules, "keys", raising=False)
    import keys  # type: ignore[import-not-found]

    return keys


def test_keys_that_are_objects_are_merged_by_equality(path: Path, keys: Any) -> None:
    cache = AsyncCache(backup=DiskBackend(path))
    for number in (1, 2, 3):
        cache.set(keys.Key(number), "old")
    cache.save_to_backup()
    elsewhere(
        path,
        """
        cache.set(Key(1, "there"), "new")
        cache.delete(Key(2, "there"))
        cache.set(Key(4), "theirs")
        cache.save_to_backup()
        """,
    )
    cache.set(keys.Key(5), "ours")
    cache.save_to_backup()
    expected = {keys.Key(1): "new", keys.Key(3): "old", keys.Key(4): "theirs", keys.Key(5): "ours"}
    assert content(path) == expected
    cache.delete(keys.Key(4, "again"))
    cache.set(keys.Key(1), "newer")
    cache.save_to_backup()
    del expected[keys.Key(4)]
    assert content(path) == {**expected, keys.Key(1): "newer"}


def test_without_pickle_no_pickle_of_others_is_read_or_copied(path: Path, keys: Any) -> None:
    cache = AsyncCache(backup=DiskBackend(path, pickle=False))
    elsewhere(
        path,
        """
        for number in range(3):
            cache.set(Key(number), "an eager one")
        cache.set("pickled", Key(7))
        cache.set("plain", 1)
        cache.save_to_backup()
        """,
    )
    cache.set("mine", 2)
    with pytest.warns(UserWarning, match="4 entries that other processes had saved there are pickled"):
        cache.save_to_backup()
    assert content(path) == {"plain": 1, "mine": 2}


def test_with_a_secret_and_compression_files_are_merged_as_without(path: Path, keys: Any) -> None:
    secret = "correct horse battery staple"
    backend = DiskBackend(path, secret=secret, compression="zstd")
    cache = AsyncCache(maxsize=None, backup=backend)
    for number in range(500):
        cache.set(number, f"page {number} of this process, page {number} of this process")
    cache.set(keys.Key(1001), "ours")
    cache.save_to_backup()
    elsewhere(
        path,
        """
        for number in range(250, 750):
            cache.set(number, f"page {number} of that process")
        cache.delete(0)
        cache.delete(Key(1001))
        cache.save_to_backup()
        """,
        f"secret={secret!r}",
    )
    cache.set(1, "since")
    cache.save_to_backup()
    loaded = {key: value for key, (value, _) in backend.load().items()}
    assert len(loaded) == 749
    assert (loaded[1], loaded[749]) == ("since", "page 749 of that process")
    assert loaded[249].startswith("page 249 of this process")
    assert loaded[250] == "page 250 of that process"


@pytest.mark.parametrize("method", ["__eq__", "__setstate__"])
def test_an_interrupt_while_keys_of_others_are_read_or_compared_ends_the_save(
    path: Path, keys: Any, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere(path, "cache.set(Key(1), 1); cache.save_to_backup()")
    cache = AsyncCache(backup=DiskBackend(path))
    elsewhere(path, "cache.set(Key(2), 2); cache.save_to_backup()")
    before = path.read_bytes()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(keys.Key, method, interrupt, raising=False)
        with pytest.raises(KeyboardInterrupt):
            cache.save_to_backup()
    assert path.read_bytes() == before
    cache.save_to_backup()
    assert content(path) == {keys.Key(1): 1, keys.Key(2): 2}


def expire(cache: AsyncCache, key: Any) -> None:
    cache.set(key, "new", ttl=0.001)
    while cache.contains(key):
        time.sleep(0.001)


LEAVES: dict[str, Any] = {
    "evicted": lambda cache, key: [cache.set(key, "new"), cache.set("x", 0), cache.set("y", 0)],
    "used, then evicted": lambda cache, key: [
        asyncio.run(cache.get(key)),
        cache.set(key, "new"),
        cache.set("x", 0),
        cache.set("y", 0),
    ],
    "expired": expire,
    "never stored": lambda cache, key: cache.set(key, "new", ttl=0),
}


@pytest.mark.parametrize("leaves", LEAVES)
@pytest.mark.parametrize("key", ["a", ("a", 1), "Key(1)"])
def test_what_was_set_over_does_not_come_back_when_the_new_value_leaves_before_a_save(
    path: Path, keys: Any, leaves: str, key: Any
) -> None:
    """The file still had the old entry, and a save that joined the file treated the entry as
    another process's.
    """
    elsewhere(path, f"cache.set({key if key == 'Key(1)' else repr(key)}, 'old'); cache.save_to_backup()")
    key = keys.Key(1) if key == "Key(1)" else key
    cache = AsyncCache(maxsize=2, backup=DiskBackend(path))
    elsewhere(path, "cache.set('theirs', 2); cache.save_to_backup()")
    LEAVES[leaves](cache, key)
    assert not cache.contains(key)
    cache.save_to_backup()
    assert key not in content(path)


def test_an_interrupt_while_a_lost_key_is_encoded_forgets_nothing(
    path: Path, keys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere(path, "cache.set(Key(1), 'old'); cache.set('k', 'old'); cache.save_to_backup()")
    cache = AsyncCache(maxsize=2, backup=DiskBackend(path))
    elsewhere(path, "cache.set('theirs', 2); cache.save_to_backup()")
    for key in ("k", keys.Key(1), "x", "y"):
        cache.set(key, "new")

    def interrupt(self: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(keys.Key, "__getstate__", interrupt, raising=False)
        with pytest.raises(KeyboardInterrupt):
            cache.save_to_backup()
    with pytest.warns(CacheWarning, match="dropped 1 entries that were there, for maxsize is 2 here"):
        cache.save_to_backup()
    assert set(content(path)) == {"x", "y"}, "theirs is over maxsize"


class Hooked:
    """A key whose pickling runs code of the test."""

    hook: Any = None

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> Any:
        Hooked.hook(self.number)
        return Hooked, (0,)


def test_a_write_that_is_lost_while_others_are_noted_is_not_undone_by_a_load(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def hook(number: int) -> None:
        seen.append(number)
        if number == 1:
            cache.set(Hooked(2), 0, ttl=0)  # recorded already when the file is open
        else:
            cache.set("a", "new", ttl=0)

    monkeypatch.setattr(Hooked, "hook", hook)
    cache = AsyncCache(backup=DiskBackend(path))
    cache.set("a", "old")
    cache.set("b", "old")
    cache.save_to_backup()
    cache.delete("a")
    cache.set("c", "in memory")
    cache.set(Hooked(1), 0, ttl=0)
    cache.load_from_backup()
    assert seen == [1, 2]
    assert [asyncio.run(served(cache, key)) for key in "abc"] == [None, "old", "in memory"]


def test_a_load_that_is_interrupted_takes_nothing_from_others(path: Path, keys: Any) -> None:
    elsewhere(path, "cache.set('theirs', 2); cache.set(Key(1), 3); cache.save_to_backup()")
    cache = AsyncCache(backup=DiskBackend(path))
    cache.clear()
    cache.load_from_backup()

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    keys.Key.__setstate__ = interrupt
    with pytest.raises(KeyboardInterrupt):
        cache.load_from_backup()
    del keys.Key.__setstate__
    cache.set("ours", 1)
    cache.save_to_backup()
    assert content(path) == {"theirs": 2, keys.Key(1): 3, "ours": 1}
    left = sorted(file.name for file in path.parent.glob(f"{path.stem}*"))
    assert left == [path.name, f"{path.name}.lock"]


def test_a_delete_while_the_backup_is_loaded_stays(
    path: Path, keys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The load forgot the delete, as it forgets earlier deletes, and restored the entry."""
    elsewhere(path, "cache.set('a', 1); cache.set('b', 2); cache.set(Key(1), 3); cache.save_to_backup()")
    cache = AsyncCache(backup=DiskBackend(path))
    cache.clear()
    cache.delete("b")

    def setstate(self: Any, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        cache.delete("a")

    with monkeypatch.context() as patch:
        patch.setattr(keys.Key, "__setstate__", setstate, raising=False)
        cache.load_from_backup()
    assert [cache.contains(key) for key in ("a", "b", keys.Key(1))] == [False, True, True]
    cache.save_to_backup()
    assert content(path) == {"b": 2, keys.Key(1): 3}


def test_a_write_of_what_was_read_already_while_the_backup_is_loaded_is_not_undone(
    path: Path, keys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys that are objects are all decoded before the first entry is added, and were checked only
    then.
    """
    elsewhere(
        path,
        "for key in (Key(1), Key(2), 'a', 'b'): cache.set(key, 'old')\ncache.save_to_backup()",
    )
    cache = AsyncCache(backup=DiskBackend(path))
    cache.clear()
    cache.set("mine", 1)

    def setstate(self: Any, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.number == 2:
            cache.delete(keys.Key(1))
            cache.set("a", "new", ttl=0)

    with monkeypatch.context() as patch:
        patch.setattr(keys.Key, "__setstate__", setstate, raising=False)
        cache.load_from_backup()
    assert [cache.contains(key) for key in (keys.Key(1), keys.Key(2), "a", "b")] == [False, True, False, True]
    cache.save_to_backup()
    assert content(path) == {keys.Key(2): "old", "b": "old", "mine": 1}
