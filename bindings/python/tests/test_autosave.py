"""Caches that save themselves: when, how often, what happens to errors, forks and the end of the interpreter."""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import pytest

from cache import AsyncCache, AsyncLRU, AsyncTTL, BackupError, CacheBackend, DiskBackend, _autosave

LIMIT = 60  # seconds after which a test that waits has failed


class Memory(CacheBackend):
    """A backend that can be told to fail, and says when it was saved to."""

    def __init__(self) -> None:
        self.saved: list[dict[Any, Any]] = []
        self.error: Exception | None = None
        self.was_called = threading.Event()

    def load(self) -> dict[Any, Any]:
        return {}

    def save(self, data: dict[Any, Any]) -> None:
        self.was_called.set()
        if self.error is not None:
            raise self.error
        self.saved.append({key: value for key, (value, _) in data.items()})

    def clear(self) -> None:
        self.saved.clear()


class Planned:
    """A cache whose plan is looked at by the test, on the test's clock."""

    def __init__(self, every: float | None = None, changes: int | None = None, at_exit: bool = False) -> None:
        self.backend = Memory()
        self.cache = AsyncCache(backup=self.backend)
        assert self.cache._persistence is not None
        self.plan = _autosave.Plan(self.cache, self.cache._persistence, every, changes, at_exit, 0.0)


def test_it_is_saved_when_its_time_has_come_and_not_before() -> None:
    it = Planned(every=10)
    it.cache.set("k", 1)
    assert it.plan.look(9.9) == 10
    assert it.backend.saved == []
    assert it.plan.look(10) == 20
    assert it.backend.saved == [{"k": 1}]
    assert it.cache.stats()["autosaves"] == it.cache.stats()["saves"] == 1


def test_what_has_not_changed_is_not_saved() -> None:
    it = Planned(every=10, changes=1)
    assert it.plan.look(10) == 10.5
    it.cache.set("k", 1)
    it.cache.save_to_backup()
    it.plan.look(20)
    assert "k" in it.cache.cache, "looking is no change"
    it.plan.look(30)
    assert len(it.backend.saved) == 1
    it.cache.delete("k")
    it.plan.look(40)
    assert it.backend.saved[1:] == [{}]


def test_it_is_saved_after_so_many_changes() -> None:
    it = Planned(changes=3)
    it.cache.set("a", 1)
    it.cache.set("b", 2)
    assert it.plan.look(1) == 1.5
    assert it.backend.saved == []
    it.cache.delete("a")
    it.plan.look(1.5)
    assert it.backend.saved == [{"b": 2}]
    assert it.plan.look(2) == 2.5
    assert len(it.backend.saved) == 1


def test_a_clear_is_a_change_though_the_metrics_begin_anew() -> None:
    it = Planned(every=1)
    it.cache.set("k", 1)
    it.plan.look(1)
    it.cache.clear()
    it.plan.look(2)
    assert it.backend.saved == [{"k": 1}, {}]


def test_a_save_that_fails_is_logged_and_tried_again_later_and_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    it = Planned(every=10)
    it.cache.set("k", 1)
    it.backend.error = OSError("the disk is on fire")
    with caplog.at_level(logging.WARNING, "cache"):
        assert it.plan.look(10) == 11
    assert "the disk is on fire" in caplog.text and "again in 1 s" in caplog.text
    assert it.plan.look(10.5) == 11, "not before"
    assert it.plan.look(11) == 13
    assert it.plan.look(13) == 17
    stats = it.cache.stats()
    assert (stats["autosaves"], stats["save_errors"]) == (0, 3)
    assert stats["last_save_error"] == "OSError: the disk is on fire"
    for _ in range(20):
        look = it.plan.look(1000)
    assert look <= 1060
    it.backend.error = None
    it.plan.look(2000)
    assert it.backend.saved == [{"k": 1}]
    assert it.cache.stats()["last_save_error"] is None
    assert it.plan.look(2000) == 2010


def test_a_cache_that_is_gone_is_not_kept_alive() -> None:
    it = Planned(every=10)
    it.cache.set("k", 1)
    gone = weakref.ref(it.cache)
    del it.cache
    gc.collect()
    assert gone() is None
    assert it.plan.is_dead()
    assert it.plan.look(100) > 100
    assert it.backend.saved == []


def test_at_exit_only_those_are_saved_that_asked_for_it() -> None:
    for at_exit in (False, True):
        it = Planned(every=10, at_exit=at_exit)
        it.plan.exit()
        assert it.backend.saved == [], "nothing had changed"
        it.cache.set("k", 1)
        it.plan.exit()
        assert len(it.backend.saved) == at_exit


def test_the_thread_saves() -> None:
    backend = Memory()
    cache = AsyncCache(backup=backend, autosave=0.001)
    cache.set("k", 1)
    assert backend.was_called.wait(LIMIT)
    [thread] = [thread for thread in threading.enumerate() if thread.name == "cache autosave"]
    assert thread.daemon


def test_decorators_have_it_too(tmp_path: Path) -> None:
    for number, decorator in enumerate((AsyncLRU, AsyncTTL)):
        backend = Memory()

        async def load(x: int) -> int:
            return x

        cached: Any = decorator(backup=backend, autosave=0.001)(load)
        import asyncio

        assert asyncio.run(cached(number)) == number
        assert backend.was_called.wait(LIMIT)
        assert "autosaves" in cached.stats()


@pytest.mark.parametrize(
    "arguments", [{"autosave": 0}, {"autosave": float("nan")}, {"autosave": "1"}, {"autosave_changes": 0}]
)
def test_nonsense_is_refused(arguments: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="autosave"):
        AsyncCache(backup=Memory(), **arguments)
    with pytest.raises(ValueError, match="autosave"):
        AsyncTTL(backup=Memory(), **arguments)


@pytest.mark.parametrize("arguments", [{"autosave": 1}, {"autosave_changes": 1}, {"save_at_exit": True}])
def test_without_a_backup_there_is_nothing_to_save_to(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="backup"):
        AsyncCache(**arguments)
    with pytest.raises(ValueError, match="backup"):
        AsyncLRU(**arguments)


def run(program: str, *arguments: str) -> str:
    """Runs a program in an interpreter of its own, and returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *arguments],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_interpreter_that_ends_saves_once_more_if_asked(tmp_path: Path) -> None:
    program = """
        import sys
        from cache import AsyncCache, DiskBackend
        cache = AsyncCache(backup=DiskBackend(sys.argv[1]), autosave=1000, save_at_exit=sys.argv[2] == "yes")
        cache.set("k", 1)
    """
    run(program, str(tmp_path / "no"), "no")
    run(program, str(tmp_path / "yes"), "yes")
    assert "k" not in AsyncCache(backup=DiskBackend(tmp_path / "no")).cache
    assert "k" in AsyncCache(backup=DiskBackend(tmp_path / "yes")).cache


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_that_was_forked_saves_by_itself_and_its_parent_goes_on(tmp_path: Path) -> None:
    program = """
        import os, sys, threading, time
        from cache import AsyncCache, DiskBackend, AsyncLRU
        cache = AsyncCache(backup=DiskBackend(sys.argv[1]), autosave=0.001)
        cache.set("before", 0)
        def saves_again(cache):
            limit = time.monotonic() + 30
            saves = cache.stats()["autosaves"]
            number = 0
            # The first one may have begun before.
            while cache.stats()["autosaves"] < saves + 2 and time.monotonic() < limit:
                number += 1
                cache.set("number", number)
            return time.monotonic() < limit
        for _ in range(5):
            child = os.fork()
            if not child:
                cache.set(os.getpid(), "child")
                os._exit(0 if saves_again(cache) else 1)
            assert saves_again(cache)
            assert os.waitpid(child, 0)[1] == 0
        cache.save_to_backup()
        print(len([key for key, *_ in cache.entries()]))
    """
    run(program, str(tmp_path / "forked"))
    keys = {key for key, *_ in _entries(tmp_path / "forked")}
    assert {"before", "number"} <= keys
    assert len(keys) == 2 + 5, "what the children saved was merged"


def _entries(path: Path) -> list[tuple[Any, ...]]:
    return [(key, value) for key, (value, _) in DiskBackend(path).load().items()]


def test_a_fork_waits_for_a_save_and_gives_up_on_one_of_its_own_thread() -> None:
    it = Planned()
    persistence = it.cache._persistence
    assert persistence is not None
    answers: list[bool] = []
    other = threading.Thread(target=lambda: answers.append(persistence.hold(0)))
    assert persistence.hold(0)
    other.start()
    other.join(LIMIT)
    assert answers == [False], "somebody saves"
    persistence.release()

    class Forks(Memory):
        def save(self, data: dict[Any, Any]) -> None:
            assert cache._persistence is not None
            assert not cache._persistence.hold(LIMIT)
            super().save(data)

    backend = Forks()
    cache = AsyncCache(backup=backend)
    started = time.monotonic()
    cache.save_to_backup()
    assert time.monotonic() - started < LIMIT
    assert len(backend.saved) == 1


def test_who_saves_within_a_save_gets_an_error_and_it_is_counted() -> None:
    class Again(Memory):
        def save(self, data: dict[Any, Any]) -> None:
            with pytest.raises(BackupError):
                cache.save_to_backup()
            super().save(data)

    backend = Again()
    cache = AsyncCache(backup=backend)
    cache.save_to_backup()
    assert len(backend.saved) == 1
