"""Forks while other threads save, make caches and fork too: no lock is left that no thread will
release.
"""

from __future__ import annotations

import gc
import os
import textwrap
from pathlib import Path

import pytest
from programs import LIMIT, run
from stores import MemoryBackend

from cache import AsyncCache, _forks
from cache._forks import ForkLock

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here"),
    pytest.mark.timeout(2 * LIMIT),
]

# The beginning of all programs.
HEAD = """
import os, signal, sys, threading, time
from cache import AsyncCache, CacheBackend, DiskBackend, _forks, _persistence

class Backend(CacheBackend):
    def load(self): return {}
    def save(self, entries): pass
    def clear(self): pass

def complain(about):
    print("raised in a hook:", about.exc_value)

sys.unraisablehook = complain

def forked(child=lambda: None):
    '''Forks; whether the child came to a good end within the limit.'''
    pid = os.fork()
    if not pid:
        try:
            child()
            os._exit(0)
        finally:
            os._exit(1)
    limit = time.monotonic() + 20
    while time.monotonic() < limit:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status == 0
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    return False

def holding(lock):
    '''A thread that has a lock until the event is set.'''
    has, end = threading.Event(), threading.Event()
    def hold():
        def wait():
            has.set()
            end.wait()
        lock.run(wait)
    threading.Thread(target=hold, daemon=True).start()
    has.wait()
    return end

def is_free(lock):
    '''For a thread that has nothing.'''
    answers = []
    def ask():
        answers.append(lock.acquire(0))
        if answers == [True]:
            lock.release()
    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    return answers == [True]
"""


def forking(program: str, *arguments: str) -> str:
    return run(HEAD + textwrap.dedent(program), *arguments)


def test_threads_that_fork_at_the_same_time_leave_no_backup_locked() -> None:
    """The threads shared one list of taken locks, and released each other's: the error ended the
    release.
    """
    program = """
        sys.setswitchinterval(1e-6)
        caches = [AsyncCache(backup=Backend()) for _ in range(3)]
        def fork():
            for _ in range(300):
                pid = os.fork()
                if not pid:
                    os._exit(0)
                os.waitpid(pid, 0)
        threads = [threading.Thread(target=fork) for _ in range(3)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        print([is_free(lock) for lock in _forks._all()].count(False))
        for cache in caches: cache.save_to_backup()
    """
    assert forking(program) == "0\n"


def test_a_fork_while_caches_are_made_and_dropped_raises_nothing() -> None:
    """The set of backups changed while a fork iterated over it."""
    program = """
        caches = [AsyncCache(backup=Backend()) for _ in range(300)]
        sys.setswitchinterval(1e-5)
        stop = False
        def make():
            while not stop:
                caches.append(AsyncCache(backup=Backend()))
                caches.pop(0)
        thread = threading.Thread(target=make)
        thread.start()
        for _ in range(500):
            pid = os.fork()
            if not pid:
                os._exit(0)
            os.waitpid(pid, 0)
        stop = True
        thread.join()
    """
    assert forking(program) == ""


@pytest.mark.parametrize(
    "lock",
    ["_persistence._users_lock", "backend._lock", "cache._persistence._turn"],
    ids=["users", "file", "turn"],
)
def test_a_child_can_use_what_another_thread_was_in_the_middle_of(lock: str, tmp_path: Path) -> None:
    """The child of the fork waited for ever, to make a cache with a file, or for the file
    itself.
    """
    program = f"""
        _forks.PATIENCE = 0.01
        backend = DiskBackend(sys.argv[1])
        cache = AsyncCache(backup=backend)
        cache.set("k", 1)
        end = holding({lock})
        def child():
            AsyncCache(backup=DiskBackend(sys.argv[1] + " of the child")).save_to_backup()
            cache.save_to_backup()
            assert "k" in backend.load()
        print(forked(child))
        end.set()
        child()
    """
    assert forking(program, str(tmp_path / "file")) == "True\n"


def test_a_child_saves_and_loads_a_cache_that_another_thread_was_saving(tmp_path: Path) -> None:
    """The native part of the cache was in the middle of a save for ever, in the child."""
    program = """
        _forks.PATIENCE = 0.01
        cache = AsyncCache(backup=DiskBackend(sys.argv[1], merge=False))
        began, may_end, parent = threading.Event(), threading.Event(), os.getpid()

        class Slow:
            def __reduce__(self):
                if os.getpid() == parent:
                    began.set()
                    may_end.wait()
                return Slow, ()

        cache.set("slow", Slow())
        cache.set("k", 1)
        saving = threading.Thread(target=cache.save_to_backup)
        saving.start()
        began.wait()

        def child():
            cache.save_to_backup()
            cache.load_from_backup()
            assert cache.stats()["saves"] == 1

        print(forked(child))
        may_end.set()
        saving.join()
        cache.save_to_backup()
        print(cache.stats()["saves"])
    """
    assert forking(program, str(tmp_path / "file")) == "True\n2\n"


def test_a_fork_waits_for_what_other_threads_do(tmp_path: Path) -> None:
    program = """
        began, may_end, ended = threading.Event(), threading.Event(), threading.Event()
        class Slow(Backend):
            def save(self, entries):
                began.set()
                may_end.wait()
                ended.set()
        cache = AsyncCache(backup=Slow())
        threading.Thread(target=cache.save_to_backup).start()
        began.wait()
        acquire = _forks.ForkLock.acquire
        def acquire_and_tell(lock, patience=-1):
            may_end.set()
            return acquire(lock, patience)
        _forks.ForkLock.acquire = acquire_and_tell
        def child():
            assert ended.is_set()
        print(forked(child))
    """
    assert forking(program) == "True\n"


def test_many_saves_that_hang_delay_a_fork_by_one_limit_altogether() -> None:
    """The fork waited for each save in turn, ten seconds each."""
    program = """
        _forks.PATIENCE = 1.0
        ends = []
        caches = [AsyncCache(backup=Backend()) for _ in range(20)]
        ends = [holding(cache._persistence._turn) for cache in caches]
        free = AsyncCache(backup=Backend())
        started = time.monotonic()
        pid = os.fork()
        if not pid:
            for cache in [free, *caches]:
                cache.save_to_backup()
            os._exit(0)
        print(time.monotonic() - started < 10, os.waitpid(pid, 0)[1])
        for end in ends: end.set()
        print(is_free(free._persistence._turn))
    """
    assert forking(program) == "True 0\nTrue\n"


def test_a_fork_gives_way_to_a_save_that_saves_another_cache() -> None:
    """The fork holds the first lock and waits for the second; the save holds the second and waits
    for the first.
    """
    program = """
        _forks.PATIENCE = 1000.0
        saving, go_on = threading.Event(), threading.Event()
        class Outer(Backend):
            def save(self, entries):
                saving.set()
                go_on.wait()
                inner.save_to_backup()
        inner = AsyncCache(backup=Backend())
        outer = AsyncCache(backup=Outer())
        inner_first = _forks._all().index(inner._persistence._turn) < _forks._all().index(outer._persistence._turn)
        assert inner_first, "as locks are in the order of their making, the fork has the inner one first"
        thread = threading.Thread(target=outer.save_to_backup)
        thread.start()
        saving.wait()
        acquire = _forks.ForkLock.acquire
        def acquire_and_tell(lock, patience=-1):
            if lock is outer._persistence._turn:
                go_on.set()
            return acquire(lock, patience)
        _forks.ForkLock.acquire = acquire_and_tell
        print(forked())
        thread.join()
    """
    assert forking(program) == "True\n"


def test_who_forks_in_the_middle_of_a_save_of_its_own_goes_on_on_both_sides() -> None:
    program = """
        class Forks(Backend):
            def save(self, entries):
                pid = os.fork()
                self.is_child = not pid
                if pid:
                    assert os.waitpid(pid, 0)[1] == 0
        backend = Forks()
        cache = AsyncCache(backup=backend)
        cache.save_to_backup()
        assert is_free(cache._persistence._turn)
        if backend.is_child:
            os._exit(0)
        print("both")
    """
    assert forking(program) == "both\n"


@pytest.mark.parametrize("hook", ["_before", "_take", "_release", "_after", "_over"])
def test_an_interrupt_at_any_moment_of_a_fork_leaves_no_lock_behind(hook: str) -> None:
    """An interrupt at the start of the release ended the release, and the locks stayed taken for
    ever.
    """
    program = f"""
        caches = [AsyncCache(backup=Backend()) for _ in range(3)]
        hook, count, at = {hook!r}, 0, 0
        def interrupt(frame, event, _):
            # As a signal does: where the interpreter looks for signals, once.
            global count
            if frame.f_code.co_name == hook and frame.f_code.co_filename == _forks.__file__:
                frame.f_trace_opcodes = True
                count += 1
                if count == at:
                    raise KeyboardInterrupt
                return interrupt
        rounds = 0
        while count >= at:
            at, count = at + 1, 0
            sys.settrace(interrupt)
            pid = os.fork()
            if not pid:
                os._exit(0)
            sys.settrace(None)
            os.waitpid(pid, 0)
            assert all(is_free(lock) for lock in _forks._all()), at
            rounds += 1
        assert not any(_forks._forks.taken), _forks._forks.taken
        print(rounds > 5)
    """
    assert forking(program).endswith("True\n")


def test_a_lock_that_is_gone_is_forgotten() -> None:
    before = len(_forks._locks)
    caches = [AsyncCache(backup=MemoryBackend()) for _ in range(10)]
    assert len(_forks._locks) == before + 10
    del caches
    gc.collect()
    assert len(_forks._locks) <= before


def test_a_lock_is_renewed_only_if_somebody_else_has_it() -> None:
    lock = ForkLock()
    inner = lock._lock

    def renew() -> None:
        assert lock.is_mine()
        _forks._renew()
        assert lock._lock is inner

    lock.run(renew)
    _forks._renew()
    assert lock._lock is inner
    assert not lock.is_mine()
