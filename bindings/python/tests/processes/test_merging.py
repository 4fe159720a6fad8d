"""Saves of several caches to one path. Each cache here has its own process, because a process may
have only one cache per path; tests that need eight processes, kills and randomness are in
``workers``.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from cache import AsyncCache, BackupError, CacheWarning, DiskBackend

LIMIT = 60

KEY = """
class Key:
    \"\"\"Compared by value, without a canonical encoding: so it is pickled.\"\"\"

    def __init__(self, number, how="here"):
        self.number = number
        self.how = how

    def __eq__(self, other):
        return self.number == other.number

    def __hash__(self):
        return hash(self.number)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "keys.py").write_text(KEY)
    return tmp_path / "shared.cache"


def elsewhere(path: Path, program: str, options: str = "") -> None:
    """Runs a program in another process. The program has a cache on the same path; `options` are
    for its backend.
    """
    head = f"""
        import sys
        sys.path.insert(0, {str(path.parent)!r})
        from keys import Key
        from cache import AsyncCache, DiskBackend
        cache = AsyncCache(maxsize=None, backup=DiskBackend({str(path)!r}, {options}))
    """
    source = textwrap.dedent(head) + textwrap.dedent(program)
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert done.returncode == 0, done.stderr


def content(path: Path) -> dict[Any, Any]:
    return {key: value for key, (value, _) in DiskBackend(path).load().items()}


@pytest.fixture
def keys(path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(path.parent))
    monkeypatch.delitem(sys.modules, "keys", raising=False)
    import keys  # type: ignore[import-not-found]

    return keys


def test_what_another_process_saved_stays(path: Path) -> None:
    cache = AsyncCache(backup=DiskBackend(path))
    cache.set("ours", 1)
    elsewhere(path, "cache.set('theirs', 2); cache.save_to_backup()")
    cache.save_to_backup()
    assert content(path) == {"ours": 1, "theirs": 2}
    cache.save_to_backup()
    assert content(path) == {"ours": 1, "theirs": 2}, "though this cache does not have it"
    assert "theirs" not in cache.cache


def test_the_later_write_wins_whoever_saves_later(path: Path) -> None:
    cache = AsyncCache(backup=DiskBackend(path))
    cache.set("a", "old")
    elsewhere(path, "cache.set('a', 'new'); cache.set('b', 'old'); cache.save_to_backup()")
    cache.set("b", "new")
    cache.save_to_backup()
    assert content(path) == {"a": "new", "b": "new"}


def test_what_was_deleted_stays_gone_though_another_process_has_it(path: Path) -> None:
    cache = AsyncCache(backup=DiskBackend(path))
    cache.set("a", 1)
    cache.set("b", 2)
    cache.save_to_backup()
    elsewhere(path, "cache.delete('a'); cache.save_to_backup()")
    cache.save_to_backup()
    assert content(path) == {"b": 2}
    cache.set("a", 3)
    cache.save_to_backup()
    assert content(path) == {"a": 3, "b": 2}


def test_what_was_cleared_stays_gone_but_for_what_was_written_later(path: Path) -> None:
    cache = AsyncCache(backup=DiskBackend(path))
    cache.set("a", 1)
    cache.save_to_backup()
    elsewhere(path, "cache.clear(); cache.save_to_backup()")
    cache.set("b", 2)
    cache.save_to_backup()
    assert content(path) == {"b": 2}


def test_without_merging_the_last_save_wins(path: Path) -> None:
    cache = AsyncCache(backup=DiskBackend(path, merge=False))
    cache.set("ours", 1)
    elsewhere(path, "cache.set('theirs', 2); cache.save_to_backup()")
    cache.save_to_backup()
    assert content(path) == {"ours": 1}


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


def test_what_is_cold_keeps_its_time_of_writing_when_another_file_is_taken_in(path: Path) -> None:
    first = AsyncCache(backup=DiskBackend(path))
    for key in ("deleted", "kept"):
        first.set(key, "old")
    first.save_to_backup()
    del first
    cache = AsyncCache(backup=DiskBackend(path))
    assert cache.stats()["cold"] == 2
    elsewhere(
        path,
        """
        cache.delete("deleted")
        cache.set("theirs", 1)
        cache.save_to_backup()
        """,
    )
    cache.load_from_backup()
    assert len(cache.cache) == 3
    cache.set("mine", 2)
    cache.save_to_backup()
    assert content(path) == {"kept": "old", "theirs": 1, "mine": 2}


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


def test_a_load_undoes_a_delete_that_was_not_saved(path: Path) -> None:
    cache = AsyncCache(backup=DiskBackend(path))
    cache.set("a", 1)
    cache.save_to_backup()
    cache.delete("a")
    cache.load_from_backup()
    cache.set("b", 2)
    cache.save_to_backup()
    assert content(path) == {"a": 1, "b": 2}


def test_who_waits_too_long_for_another_process_gets_an_error_and_nothing_has_changed(path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    cache = AsyncCache(backup=DiskBackend(path, lock_timeout=0.01))
    cache.set("a", 1)
    with open(f"{path}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(BackupError, match=r"another process.*try again"):
            cache.save_to_backup()
        assert not path.exists()
    cache.save_to_backup()
    assert content(path) == {"a": 1}


class Slow:
    """A value whose pickling waits for the test."""

    is_pickled = threading.Event()
    may_go_on = threading.Event()

    def __reduce__(self) -> tuple[type[Slow], tuple[()]]:
        self.is_pickled.set()
        assert self.may_go_on.wait(LIMIT)
        return Slow, ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Slow)

    __hash__ = None  # type: ignore[assignment]


def test_a_backend_without_a_cache_keeps_out_of_a_save_that_runs(path: Path) -> None:
    """The backend took no lock. A save that had read the file restored cleared entries, or lost
    saved entries.
    """
    cache = AsyncCache(backup=DiskBackend(path))
    cache.set("before", 0)
    cache.save_to_backup()
    cache.set("slow", Slow())
    saving = threading.Thread(target=cache.save_to_backup)
    saving.start()
    assert Slow.is_pickled.wait(LIMIT)
    alone = DiskBackend(path, lock_timeout=0.01)
    for write in (alone.clear, lambda: alone.save({"alone": (1, None)})):
        with pytest.raises(BackupError, match=r"another process.*nothing was saved or removed; try again"):
            write()
    assert content(path) == {"before": 0}
    Slow.may_go_on.set()
    saving.join(LIMIT)
    assert content(path) == {"before": 0, "slow": Slow()}
    alone.clear()
    assert not path.exists()
    alone.save({"alone": (1, None)})
    assert content(path) == {"alone": 1}, "it replaces the file"
    cache.save_to_backup()
    assert content(path) == {"alone": 1, "before": 0, "slow": Slow()}, "what a cache has in memory comes back"


def test_without_merging_a_backend_without_a_cache_takes_no_lock(path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    alone = DiskBackend(path, lock_timeout=0.01, merge=False)
    with open(f"{path}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        alone.save({"alone": (1, None)})
        assert content(path) == {"alone": 1}
        alone.clear()
        assert not path.exists()


def test_where_nothing_was_saved_a_clear_makes_no_files(path: Path) -> None:
    DiskBackend(path).clear()
    DiskBackend(path.parent / "no" / "folder").clear()
    assert [other.name for other in path.parent.iterdir()] == ["keys.py"]


@pytest.mark.parametrize("limit", [-1, float("nan"), float("inf")])
def test_a_limit_that_is_none_is_refused(path: Path, limit: float) -> None:
    with pytest.raises(ValueError, match="lock_timeout"):
        DiskBackend(path, lock_timeout=limit)


@pytest.mark.parametrize("write", ["cache.delete('k')", "cache.set('k', 'new')"])
def test_a_load_that_began_before_a_write_elsewhere_does_not_undo_it(path: Path, write: str) -> None:
    """A load counted as written when it ended. So a value read before another process's write won
    over the write.
    """
    cache = AsyncCache(backup=DiskBackend(path))

    async def load() -> str:
        await asyncio.to_thread(elsewhere, path, f"{write}; cache.save_to_backup()")
        return "old"

    assert asyncio.run(cache.get("k", load)) == "old"
    cache.save_to_backup()
    assert content(path).get("k") in (None, "new")


def test_a_save_after_taking_in_a_file_does_not_undo_what_is_newer_in_it(path: Path) -> None:
    """Entries in memory stay when a file is taken in. The next save then assumed that the cache had
    the whole file.
    """
    cache = AsyncCache(backup=DiskBackend(path))
    cache.set("k", 1)
    elsewhere(path, "cache.set('k', 2); cache.save_to_backup()")
    cache.load_from_backup()
    cache.save_to_backup()
    assert content(path) == {"k": 2}


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


def test_what_was_lost_is_kept_alive_until_a_save_and_no_longer(path: Path) -> None:
    cache = AsyncCache(maxsize=1, backup=DiskBackend(path))
    key = ("a tuple of its own", str(path))
    before = sys.getrefcount(key)
    cache.set(key, 1)
    cache.set("other", 1)
    assert sys.getrefcount(key) == before + 1
    cache.save_to_backup()
    assert sys.getrefcount(key) == before


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


@pytest.mark.parametrize("is_evicted", [True, False])
def test_however_much_one_process_loses_what_others_have_stays(path: Path, is_evicted: bool) -> None:
    cache = AsyncCache(maxsize=2, backup=DiskBackend(path))
    elsewhere(path, "cache.set('theirs', 2); cache.save_to_backup()")
    for number in range(70_000):
        if is_evicted:
            cache.set(number, 0)
        else:
            cache.set(7, 0, ttl=0)
    cache.delete(69_999)
    cache.delete(69_998)
    cache.save_to_backup()
    assert content(path) == {"theirs": 2}


def test_a_value_that_cannot_be_saved_was_written_all_the_same(path: Path) -> None:
    cache = AsyncCache(backup=DiskBackend(path))
    elsewhere(path, "cache.set('a', 'old'); cache.save_to_backup()")
    cache.set("a", lambda: None)
    with pytest.warns(UserWarning, match="1 entries were not saved"):
        cache.save_to_backup()
    assert content(path) == {}
    elsewhere(path, "assert not cache.contains('a'); cache.save_to_backup()")
    assert content(path) == {}


def test_a_cache_that_met_a_foreign_file_shares_the_path_once_that_is_set_aside(path: Path) -> None:
    elsewhere(
        path,
        f"""
        from cache import AsyncLRU
        del cache
        @AsyncLRU(backup=DiskBackend({str(path)!r}))
        async def function(number):
            return number
        function.save_to_backup()
        """,
    )
    with pytest.warns(CacheWarning, match="sets it aside"):
        cache = AsyncCache(backup=DiskBackend(path))
    cache.set("a", 1)
    cache.set("b", 1)
    with pytest.warns(CacheWarning, match="aside"):
        cache.save_to_backup()
    elsewhere(path, "cache.set('a', 2); cache.set('c', 2); cache.save_to_backup()")
    cache.set("a", 3)
    cache.delete("b")
    cache.delete("c")
    cache.save_to_backup()
    assert content(path) == {"a": 3}


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
    assert sorted(file.name for file in path.parent.glob("shared*")) == ["shared.cache", "shared.cache.lock"]


def test_a_large_cache_loads_while_other_threads_write(path: Path) -> None:
    size = 200_000
    cache = AsyncCache(maxsize=None, backup=DiskBackend(path))
    for number in range(size):
        cache.set(number, 0)
    cache.save_to_backup()
    cache.clear()
    for number in range(size):
        cache.set(f"here {number}", 0)
    is_over = threading.Event()

    def write(me: int) -> None:
        count = 0
        while not is_over.is_set():
            cache.set(f"{me} {count}", count)
            count += 1
            if count % 20 == 0:
                is_over.wait(0.0005)

    threads = [threading.Thread(target=write, args=(me,)) for me in range(8)]
    for thread in threads:
        thread.start()
    try:
        cache.load_from_backup()  # or a warning, which is an error here
    finally:
        is_over.set()
        for thread in threads:
            thread.join(LIMIT)
    assert asyncio.run(served(cache, size - 1)) == 0


async def served(cache: AsyncCache, key: Any) -> Any:
    return await cache.get(key)
