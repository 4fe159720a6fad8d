"""Caches that save themselves: when, how often, with errors, forks and the end of the
interpreter.
"""

from __future__ import annotations

import gc
import logging
import os
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from programs import complete, run

from cache import AsyncCache, AsyncLRU, AsyncTTL, BackupError, CacheBackend, DiskBackend, _autosave

LIMIT = 60  # seconds; a test that waits longer has failed


class Memory(CacheBackend):
    """A backend that fails on request, and reports its saves."""

    def __init__(self) -> None:
        self.saved: list[dict[Any, Any]] = []
        self.error: BaseException | None = None
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
    """A cache whose plan is checked by the test, on the test's clock."""

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
        it.plan.exit(0)
        assert it.backend.saved == [], "nothing had changed"
        it.cache.set("k", 1)
        it.plan.exit(0)
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


def test_a_save_that_hangs_keeps_an_exit_for_its_limit_and_others_are_saved_all_the_same() -> None:
    """The exit waited for ever for the lock of a save that did not end."""
    program = """
        import threading
        from cache import AsyncCache, CacheBackend, _autosave
        _autosave._PATIENCE = 0.1
        began = threading.Event()
        class Backend(CacheBackend):
            def load(self): return {}
            def clear(self): pass
        class Hangs(Backend):
            def save(self, entries):
                began.set()
                threading.Event().wait()
        class Fails(Backend):
            def save(self, entries): raise SystemExit("an exit within the exit")
        class Saves(Backend):
            def save(self, entries): print("saved", dict(entries))
        hangs = AsyncCache(backup=Hangs(), autosave=0.001, save_at_exit=True)
        others = [AsyncCache(backup=backend, save_at_exit=True) for backend in (Fails(), Saves())]
        for cache in (hangs, *others):
            cache.set("k", 1)
        assert began.wait(30)
    """
    done = complete(program)
    assert done.stdout == "saved {'k': (1, None)}\n"
    assert "Hangs: the process ends while a save to it has not" in done.stderr
    assert "could not be saved at exit: SystemExit: an exit within the exit" in done.stderr


def test_a_save_by_hand_that_hangs_in_a_thread_does_not_keep_an_exit_for_ever() -> None:
    program = """
        import threading
        from cache import AsyncCache, CacheBackend, _autosave
        _autosave._PATIENCE = 0.1
        began = threading.Event()
        class Hangs(CacheBackend):
            def load(self): return {}
            def clear(self): pass
            def save(self, entries):
                began.set()
                threading.Event().wait()
        cache = AsyncCache(backup=Hangs(), save_at_exit=True)
        cache.set("k", 1)
        threading.Thread(target=cache.save_to_backup, daemon=True).start()
        assert began.wait(30)
    """
    assert "Hangs: the process ends while a save to it has not" in complete(program).stderr


def test_after_a_save_that_failed_nothing_is_looked_at_all_the_time() -> None:
    """The cache was saved by hand in the meantime. Nothing needed saving, but the time for it
    stayed in the past.
    """
    it = Planned(every=10)
    it.cache.set("k", 1)
    it.backend.error = OSError("no")
    assert it.plan.look(10) == 11
    it.backend.error = None
    it.cache.save_to_backup()
    assert it.plan.look(12) == 20
    assert it.plan.look(20) == 30
    it.cache.set("k", 2)
    it.backend.error = OSError("no")
    assert it.plan.look(30) == 31, "the pauses begin anew"


class Raises(logging.Filter):
    """A filter that a program may have added to its log."""

    def filter(self, _: logging.LogRecord) -> bool:
        raise SystemExit("the log is broken, too")


@pytest.fixture
def broken_log() -> Iterator[None]:
    log, broken = logging.getLogger("cache"), Raises()
    log.addFilter(broken)
    yield
    log.removeFilter(broken)


class Wordless(BaseException):
    def __str__(self) -> str:
        raise ValueError("it has no words")


@pytest.mark.usefixtures("broken_log")
@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, Wordless, GeneratorExit])
def test_whatever_the_save_of_one_cache_raises_others_are_saved(error: type[BaseException]) -> None:
    fails, saves = Memory(), Memory()
    fails.error = error()
    failing = AsyncCache(backup=fails, autosave=0.001)
    failing.set("k", 1)
    assert fails.was_called.wait(LIMIT)
    cache = AsyncCache(backup=saves, autosave=0.001)
    for number in range(2):
        saves.was_called.clear()
        cache.set("k", number)
        assert saves.was_called.wait(LIMIT)
    last_error = failing.stats()["last_save_error"]
    assert last_error is not None
    assert last_error.startswith(error.__name__)
    # Its traceback holds the cache, which would continue to fail until the next garbage collection.
    fails.error = None


@pytest.fixture
def saver(monkeypatch: pytest.MonkeyPatch) -> _autosave.Saver:
    """A saver whose thread has not started yet."""
    saver = _autosave.Saver()
    monkeypatch.setattr(_autosave, "_saver", saver)
    return saver


def test_a_cache_that_is_made_while_another_is_saved_is_not_overlooked(saver: _autosave.Saver) -> None:
    """The thread slept until the next save of the other caches, at most a minute, and did not know
    of the new cache.
    """
    inner, caches = Memory(), []

    class Makes(Memory):
        def save(self, data: dict[Any, Any]) -> None:
            saver._plans[0]._due = 1e9
            caches.append(AsyncCache(backup=inner, autosave=0.001))
            caches[0].set("k", 1)

    outer = AsyncCache(backup=Makes(), autosave=0.001)
    outer.set("k", 1)
    assert inner.was_called.wait(20)


def refuse(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize("by", ["another cache", "a save by hand"])
def test_a_thread_that_cannot_start_is_started_later(
    by: str, saver: _autosave.Saver, caplog: pytest.LogCaptureFixture
) -> None:
    """The cache could not be made; and a cache made in spite of this was saved only after the next
    one was made.
    """
    backend = Memory()
    with pytest.MonkeyPatch.context() as patch, caplog.at_level(logging.WARNING, "cache"):
        patch.setattr(threading.Thread, "start", refuse)
        cache = AsyncCache(backup=backend, autosave=0.001)
        more = [AsyncCache(backup=Memory(), autosave=1000) for _ in range(3)]
    assert [record.getMessage() for record in caplog.records] == [
        "caches are not saved unasked until a thread can be started for it: can't start new thread"
    ]
    cache.set("k", 1)
    if by == "another cache":
        more.append(AsyncCache(backup=Memory(), save_at_exit=True))
    else:
        more[0].save_to_backup()
    assert backend.was_called.wait(LIMIT)
    saver.exit()
    assert {"k": 1} in backend.saved


def test_at_exit_what_had_no_thread_is_saved_too(saver: _autosave.Saver) -> None:
    """An interpreter that is about to end starts no threads any more."""
    backend = Memory()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        cache = AsyncCache(backup=backend, autosave=0.001, save_at_exit=True)
        cache.set("k", 1)
        saver.exit()
        cache.set("k", 2)
        cache.save_to_backup()
    assert backend.saved == [{"k": 1}, {"k": 2}]


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
