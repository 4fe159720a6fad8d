"""Saves of several caches to one path. Each cache here has its own process, because a process may
have only one cache per path; tests that need eight processes, kills and randomness are in
``workers``.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from pathlib import Path

import pytest
from shared_file import LIMIT, content, elsewhere, served

from cache import AsyncCache, BackupError, CacheWarning, DiskBackend


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
    assert list(path.parent.iterdir()) == []


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


def test_what_was_lost_is_kept_alive_until_a_save_and_no_longer(path: Path) -> None:
    cache = AsyncCache(maxsize=1, backup=DiskBackend(path))
    key = ("a tuple of its own", str(path))
    before = sys.getrefcount(key)
    cache.set(key, 1)
    cache.set("other", 1)
    assert sys.getrefcount(key) == before + 1
    cache.save_to_backup()
    assert sys.getrefcount(key) == before


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


def test_a_large_cache_loads_while_other_threads_write(path: Path) -> None:
    # A load takes much longer than the pause of a writer, and the test much less than its limit.
    size = 20_000
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
