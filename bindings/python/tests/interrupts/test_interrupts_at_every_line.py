"""Ctrl-C at every line of a save, a load, an autosave, an exit, a fork; and at random moments.

The bug's story: a Ctrl-C between the line that took the turn to save and the `try` after it left
the turn taken. From then on every save of the cache was a `BackupError` in the interrupted thread,
and hung for ever in all other threads; an autosave never ended, and a fork waited its ten seconds.

Each operation is repeated, interrupted one line later each time, until it ends without an
interrupt. The following must hold after each interrupt:

1. every lock can be taken by another thread;
2. the file, if there is one, is whole: all of the old entries or all of the new ones;
3. the cache is saved and loaded as if nothing had happened, by hand and automatically.
"""

from __future__ import annotations

import os
import random
import signal
import textwrap

import pytest
from programs import LIMIT, complete

pytestmark = pytest.mark.timeout(3 * LIMIT)

HEAD = """
import asyncio, contextlib, logging, os, random, signal, sys, tempfile, threading, time, warnings
import cache as package
from cache import AsyncCache, AsyncLRU, AsyncLRUInvalidator, CacheBackend, DiskBackend, _autosave, _forks

FOLDER = os.path.dirname(package.__file__) + os.sep
sys.unraisablehook = lambda about: None  # an interrupt of a fork's hook is reported by the interpreter
warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)
place = tempfile.mkdtemp()
made = 0

class Interrupt:
    '''Raises KeyboardInterrupt at the nth line of the package in this thread.'''

    def __init__(self, after):
        self.left, self.where = after, None

    def __enter__(self):
        sys.settrace(self.trace)

    def trace(self, frame, event, argument):
        if not frame.f_code.co_filename.startswith(FOLDER):
            return None
        if event == "line" and self.where is None:
            self.left -= 1
            if self.left < 0:
                self.where = f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"
                sys.settrace(None)
                raise KeyboardInterrupt
        return self.trace

    def __exit__(self, *_):
        sys.settrace(None)

class Own(CacheBackend):
    '''A backend written in Python, whose lines count as well.'''

    def __init__(self, path):
        self.path, self.kept = path, {}

    def load(self):
        return dict(self.kept)

    def save(self, data):
        self.kept = {key: (value, None) for key, (value, _) in data.items()}

    def clear(self):
        self.kept = {}

def new_path():
    global made
    made += 1
    return os.path.join(place, f"{made}.cache")

def elsewhere(work, limit=20):
    '''Does something in another thread; what stands still there has failed.'''
    done, result = threading.Event(), []
    def run():
        result.append(work())
        done.set()
    threading.Thread(target=run, daemon=True).start()
    assert done.wait(limit), "it stands still in another thread"
    return result[0]

def are_free():
    def ask():
        for lock in _forks._all():
            if not lock.acquire(5):
                return False
            lock.release()
        if not _autosave._saver._lock.acquire(timeout=5):
            return False
        _autosave._saver._lock.release()
        return True
    return elsewhere(ask)

def is_usable(kept):
    '''Saves and loads by hand, here and in another thread.'''
    for save in (kept.save_to_backup, lambda: elsewhere(kept.save_to_backup)):
        kept.set("again", object)
        save()
        kept.load_from_backup()
    elsewhere(kept.load_from_backup)

def until(happened, limit=20):
    deadline = time.monotonic() + limit
    while not happened():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.002)

def each_line(prepare, operate, check, first=0):
    '''Interrupts an operation at each of its lines; how many there are.'''
    count = first
    while True:
        state = prepare()
        interrupt = Interrupt(count)
        try:
            with interrupt:
                operate(state)
        except KeyboardInterrupt:
            pass
        try:
            assert are_free(), "a lock is not free"
            check(state)
        except BaseException:
            print("interrupted at", interrupt.where, "after", count, file=sys.stderr)
            raise
        if interrupt.where is None:
            return count
        count += 1
"""


def lines(program: str) -> int:
    """The number of interrupted lines."""
    return int(complete(HEAD + textwrap.dedent(program)).stdout)


BACKENDS = pytest.mark.parametrize("backend", ["DiskBackend", "Own"])


@BACKENDS
def test_a_save_can_be_interrupted_at_every_line(backend: str) -> None:
    program = f"""
        OLD, NEW = {{1: "old"}}, {{1: "new", 2: "new"}}
        def prepare():
            kept = AsyncCache(backup={backend}(new_path()))
            kept.set(1, "old")
            kept.save_to_backup()
            kept.set(1, "new")
            kept.set(2, "new")
            return kept
        def check(kept):
            found = {{key: value for key, (value, _) in kept.backup.load().items()}}
            assert found in (OLD, NEW), found
            kept.save_to_backup()
            assert {{key: value for key, (value, _) in kept.backup.load().items()}} == NEW
            is_usable(kept)
        print(each_line(prepare, AsyncCache.save_to_backup, check))
    """
    assert lines(program) > 10


@BACKENDS
def test_a_load_can_be_interrupted_at_every_line(backend: str) -> None:
    program = f"""
        def prepare():
            backup = {backend}(new_path())
            first = AsyncCache(backup=backup)
            first.set(1, "value")
            first.save_to_backup()
            del first
            return [backup]
        def operate(state):
            state.append(AsyncCache(backup=state[0]))
            state[1].load_from_backup()
        def check(state):
            kept = state[1] if len(state) > 1 else AsyncCache(backup=state[0])
            kept.load_from_backup()
            assert asyncio.run(kept.get(1)) == "value"
            is_usable(kept)
        print(each_line(prepare, operate, check))
    """
    assert lines(program) > 20


def test_a_backend_alone_can_be_interrupted_at_every_line() -> None:
    program = """
        def prepare():
            backup = DiskBackend(new_path())
            backup.save({1: ("old", None)})
            return backup
        def operate(backup):
            backup.save({1: ("new", None)})
            backup.load()
            backup.clear()
        def check(backup):
            found = backup.load()
            assert found in ({}, {1: ("old", None)}, {1: ("new", None)}), found
            elsewhere(lambda: backup.save({2: ("again", None)}))
            assert elsewhere(backup.load) == {2: ("again", None)}
        print(each_line(prepare, operate, check))
    """
    assert lines(program) > 10


def test_a_cache_with_autosave_can_be_interrupted_while_it_is_made() -> None:
    program = """
        def prepare():
            return []
        def operate(made):
            made.append(AsyncCache(backup=DiskBackend(new_path()), autosave=0.01, save_at_exit=True))
        def check(made):
            kept = made[0] if made else AsyncCache(backup=DiskBackend(new_path()), autosave=0.01)
            saves = kept.stats()["saves"]
            kept.set(1, "value")
            until(lambda: kept.stats()["saves"] > saves)
            is_usable(kept)
        print(each_line(prepare, operate, check))
    """
    assert lines(program) > 30


def test_an_autosave_can_be_interrupted_at_every_line() -> None:
    """In the saving thread, which receives no signals; but a lack of memory may interrupt it."""
    program = """
        from cache._autosave import Plan
        def prepare():
            kept = AsyncCache(backup=DiskBackend(new_path()))
            kept.set(1, "value")
            return kept, Plan(kept, kept._persistence, 1.0, 1, True, 0.0)
        def check(state):
            kept, plan = state
            now = 1000.0
            until(lambda: plan.look(now) and not kept._persistence.unsaved_changes(kept))
            plan.exit(1.0)
            is_usable(kept)
        print(each_line(prepare, lambda state: state[1].look(10.0), check))
    """
    assert lines(program) > 20


def test_the_thread_that_saves_goes_on_whatever_is_raised_in_it() -> None:
    program = """
        from cache._autosave import Saver
        kept = AsyncCache(backup=DiskBackend(new_path()), autosave=0.005)
        look, raised = Saver._look, []
        def look_and_raise(saver):
            if len(raised) < 5:
                raised.append(1)
                raise MemoryError
            look(saver)
        Saver._look = look_and_raise
        other = AsyncCache(backup=DiskBackend(new_path()), autosave=0.005)  # wakes the thread
        until(lambda: len(raised) == 5)
        thread = _autosave._saver._thread
        for one in (kept, other):
            one.set(1, "value")
            until(lambda: one.stats()["autosaves"])
        assert _autosave._saver._thread is thread and thread.is_alive()
        print(1)
    """
    assert lines(program) == 1


def test_an_exit_can_be_interrupted_at_every_line() -> None:
    program = """
        from cache._autosave import Plan, Saver
        def prepare():
            saver, caches = Saver(), []
            for _ in range(2):
                kept = AsyncCache(backup=DiskBackend(new_path()))
                kept.set(1, "value")
                saver._plans.append(Plan(kept, kept._persistence, None, None, True, 0.0))
                caches.append(kept)
            return saver, caches
        def check(state):
            saver, caches = state
            saver.exit()
            for kept in caches:
                assert kept.stats()["saves"] > 0
                is_usable(kept)
        print(each_line(prepare, lambda state: state[0].exit(), check))
    """
    assert lines(program) > 20


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_a_fork_can_be_interrupted_at_every_line() -> None:
    program = """
        def prepare():
            kept = AsyncCache(backup=DiskBackend(new_path()), autosave_changes=1_000)
            kept.set(1, "value")
            kept.save_to_backup()
            return kept
        def operate(kept):
            parent = os.getpid()
            try:
                child = os.fork()
            finally:
                if os.getpid() != parent:
                    sys.settrace(None)
                    code = 1
                    try:
                        assert are_free()
                        is_usable(kept)
                        code = 0
                    finally:
                        os._exit(code)
            sys.settrace(None)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        def check(kept):
            began = time.monotonic()
            is_usable(kept)
            operate(kept)
            assert time.monotonic() - began < 5, "the next fork waits for a lock"
        print(each_line(prepare, operate, check))
    """
    assert lines(program) > 20


def test_a_write_that_is_interrupted_at_any_line_leaves_no_stale_value() -> None:
    program = """
        class State:
            value = 0
        def prepare():
            state = State()
            @AsyncLRU()
            async def read(key):
                return state.value
            @AsyncLRUInvalidator(read)
            async def write(key):
                await read(key)  # Somebody reads the old value meanwhile.
                state.value += 1
            asyncio.run(read(7))
            state.read, state.write = read, write
            return state
        def operate(state):
            loop = asyncio.new_event_loop()
            try:
                loop.run_until_complete(state.write(7))
            finally:
                loop.close()
        def check(state):
            assert asyncio.run(state.read(7)) == state.value
        print(each_line(prepare, operate, check))
    """
    assert lines(program) > 5


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there are no timers of signals here")
@BACKENDS
def test_signals_at_random_moments_leave_everything_usable(backend: str) -> None:
    """A real signal with a raising handler, during saves, loads and the making of caches."""
    seed = int(os.environ.get("ASYNC_CACHE_SEED", random.randrange(2**32)))
    print("ASYNC_CACHE_SEED =", seed)
    rounds = int(os.environ.get("ASYNC_CACHE_ROUNDS", "300"))
    program = f"""
        chosen = random.Random({seed})
        backup = {backend}(new_path())
        kept = AsyncCache(maxsize=None, backup=backup)
        for number in range(200):
            kept.set(number, "value")
        kept.save_to_backup()
        whole = {{number: "value" for number in range(200)}}
        def interrupt(*_):
            raise KeyboardInterrupt
        signal.signal(signal.SIGALRM, interrupt)
        def work():
            kept.set(0, "value")
            kept.save_to_backup()
            kept.load_from_backup()
            AsyncCache(backup=DiskBackend(new_path()), autosave=60, save_at_exit=True)
        began = time.perf_counter()
        work()
        took = time.perf_counter() - began
        hits = 0
        for _ in range({rounds}):
            try:
                try:
                    signal.setitimer(signal.ITIMER_REAL, chosen.uniform(1e-6, 1.2 * took))
                    work()
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                hits += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
            if hits % 20 == 1:
                assert are_free()
                found = {{key: value for key, (value, _) in backup.load().items()}}
                assert found == whole, len(found)
        assert are_free()
        is_usable(kept)
        print(hits)
    """
    assert lines(program) > 0
