"""Ends of processes with `save_at_exit=True`: every end that leaves time saves, and none hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from loops import LOOPS
from programs import LIMIT

from cache import DiskBackend

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="these signals and forks are not there"),
    pytest.mark.timeout(3 * LIMIT),
]

HEAD = """
import asyncio, concurrent.futures, multiprocessing, os, signal, sys, threading
from cache import AsyncCache, AsyncLRU, CacheBackend, DiskBackend, _autosave, _signals

cache = AsyncCache(backup=DiskBackend("x.cache"), autosave=60, save_at_exit=True)
cache.set("a", 1)

def by_signal(how=signal.SIGTERM):
    os.kill(os.getpid(), how)

async def load():
    started.set()
    await asyncio.Event().wait()

started = threading.Event()
if "uvloop" in sys.argv:
    import uvloop
    uvloop.install()
"""


def ended(program: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end, of any kind."""
    (folder / "program.py").write_text(HEAD + textwrap.dedent(program))
    return subprocess.run(
        [sys.executable, "-B", "-W", "ignore::DeprecationWarning", "program.py", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
        # If the tests run in the background of a shell, SIGINT would be ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def saved(folder: Path) -> dict[str, Any] | None:
    """The entries in the file; ``None`` if there is no file."""
    path = folder / "x.cache"
    if not path.exists():
        return None
    return {key: value for key, (value, _) in DiskBackend(path).load().items()}


# The program, its exit code, and the last line of its error output; ``None`` if that line is not
# checked.
ENDS: dict[str, tuple[str, int, str | None]] = {
    "it returns": ("", 0, ""),
    "sys.exit": ("sys.exit(3)", 3, ""),
    "an exception": ("raise KeyError('mine')", 1, "KeyError: 'mine'"),
    "a thread goes on, and writes": (
        """
        ends = threading.Event()
        def write():
            threading.main_thread().join()
            cache.set("b", 2)
        threading.Thread(target=write).start()
        """,
        0,
        "",
    ),
    "a daemon thread writes all the time": (
        """
        def write():
            while True:
                cache.set("c", 1)
                started.set()
        threading.Thread(target=write, daemon=True).start()
        started.wait()
        """,
        0,
        "",
    ),
    "a load is under way": (
        """
        async def main():
            asyncio.ensure_future(awaited())
            while not started.is_set(): await asyncio.sleep(0)
        async def awaited(): await cache.get("k", loader=load)
        asyncio.run(main())
        """,
        0,
        "",
    ),
    "a load is under way in a daemon thread": (
        """
        async def awaited(): await cache.get("k", loader=load)
        threading.Thread(target=lambda: asyncio.run(awaited()), daemon=True).start()
        started.wait()
        """,
        0,
        "",
    ),
    "Ctrl-C": ("by_signal(signal.SIGINT)", -signal.SIGINT, "KeyboardInterrupt"),
    "Ctrl-C during a load": (
        """
        async def main():
            asyncio.get_running_loop().call_later(0, by_signal, signal.SIGINT)
            await cache.get("k", loader=load)
        asyncio.run(main())
        """,
        -signal.SIGINT,
        "KeyboardInterrupt",
    ),
    "sys.exit in a task": (
        """
        async def main():
            async def leave(): sys.exit(4)
            async def awaited(): await cache.get("k", loader=load)
            waits = asyncio.ensure_future(awaited())
            await asyncio.create_task(leave())
        asyncio.run(main())
        """,
        4,
        "",
    ),
    "sys.exit in a loader": (
        """
        async def leave(): sys.exit(5)
        async def main(): await cache.get("k", loader=leave)
        asyncio.run(main())
        """,
        5,
        None,
    ),
    "the loop is stopped for SIGTERM": (
        """
        async def main():
            loop, done = asyncio.get_running_loop(), asyncio.Event()
            loop.add_signal_handler(signal.SIGTERM, done.set)
            by_signal()
            await done.wait()
        asyncio.run(main())
        """,
        0,
        "",
    ),
    "in a cycle": ("class A: pass\na = A(); a.self = a; a.cache = cache; del cache", 0, ""),
    "SIGTERM": ("by_signal()", -signal.SIGTERM, ""),
    "SIGTERM while the loop waits": (
        """
        async def main():
            asyncio.get_running_loop().call_later(0.001, by_signal)
            await cache.get("k", loader=load)
        asyncio.run(main())
        """,
        -signal.SIGTERM,
        "",
    ),
    "SIGTERM while the main thread waits": (
        """
        threading.Timer(0.001, by_signal).start()
        threading.Event().wait()
        """,
        -signal.SIGTERM,
        "",
    ),
    "SIGINT with its default action": (
        """
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        more = AsyncCache(backup=DiskBackend("more.cache"), save_at_exit=True)
        by_signal(signal.SIGINT)
        """,
        -signal.SIGINT,
        "",
    ),
}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("end", ENDS)
def test_a_process_that_ends_in_any_of_these_ways_has_saved(end: str, loop: str, tmp_path: Path) -> None:
    program, code, complaint = ENDS[end]
    if loop not in ("asyncio", "uvloop"):
        pytest.skip(loop)
    if loop == "uvloop" and "asyncio" not in program:
        pytest.skip("there is no loop in it")
    done = ended(program, tmp_path, loop)
    assert done.returncode == code, done.stderr
    if complaint is not None:
        assert (done.stderr.strip().splitlines()[-1:] or [""]) == [complaint]
        assert ("Traceback" in done.stderr) == bool(complaint), done.stderr
    entries = saved(tmp_path)
    assert entries is not None
    assert entries["a"] == 1
    assert end != "a thread goes on, and writes" or entries["b"] == 2


@pytest.mark.parametrize("end", ["os._exit(0)", "by_signal(signal.SIGKILL)"])
def test_a_process_that_has_no_time_saves_nothing(end: str, tmp_path: Path) -> None:
    ended(end, tmp_path)
    assert saved(tmp_path) is None


def test_a_signal_s_handler_of_the_program_is_left_alone_made_before_or_after(tmp_path: Path) -> None:
    program = """
        del cache
        for when in ("before", "after"):
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            def handler(*_): print("handled", when)
            if when == "before": signal.signal(signal.SIGTERM, handler)
            cache = AsyncCache(backup=DiskBackend(when), save_at_exit=True)
            if when == "after": signal.signal(signal.SIGTERM, handler)
            by_signal()
            assert signal.getsignal(signal.SIGTERM) is handler
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        more = AsyncCache(backup=DiskBackend("more"), save_at_exit=True)
        by_signal()
        without = AsyncCache(backup=DiskBackend("without"), autosave=60)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    """
    done = ended(program, tmp_path)
    assert (done.returncode, done.stdout) == (0, "handled before\nhandled after\n"), done.stderr


def test_a_cache_that_is_not_saved_at_exit_installs_no_handler(tmp_path: Path) -> None:
    program = """
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        others = [AsyncCache(), AsyncCache(backup=DiskBackend("y"), autosave=60, autosave_changes=5)]
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    """
    done = ended(program, tmp_path)
    assert done.returncode == 0, done.stderr


BACKEND = """
class Backend(CacheBackend):
    def load(self): return {}
    def clear(self): pass
    def save(self, entries): print("saved", sorted(entries), flush=True)
"""


def test_a_signal_in_the_middle_of_a_save_waits_for_its_end(tmp_path: Path) -> None:
    """Dying at once would abort the save, and no other thread could save in the meantime."""
    program = f"""{BACKEND}
class Slow(Backend):
    def save(self, entries):
        if threading.current_thread() is threading.main_thread():
            by_signal()
            print("goes on")
        super().save(entries)
slow, other = (AsyncCache(backup=kind(), save_at_exit=True) for kind in (Slow, Backend))
slow.set("slow", 1)
other.set("other", 1)
slow.save_to_backup()
print("never", flush=True)
"""
    done = ended(program, tmp_path)
    assert done.returncode == -signal.SIGTERM, done.stderr
    assert done.stdout == "goes on\nsaved ['slow']\nsaved ['other']\n"


def test_a_signal_in_the_middle_of_a_load_or_of_an_exit_waits_for_its_end(tmp_path: Path) -> None:
    program = f"""{BACKEND}
class Slow(Backend):
    def load(self):
        if "loads" in sys.argv:
            by_signal()
        return {{"loaded": (1, None)}}
    def save(self, entries):
        if "loads" not in sys.argv:
            by_signal()
        super().save(entries)
slow = AsyncCache(backup=Slow(), save_at_exit=True)
slow.set("slow", 1)
slow.load_from_backup()
"""
    done = ended(program, tmp_path)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "saved ['loaded', 'slow']\n"), done.stderr
    done = ended(program.replace("save_at_exit=True)", "save_at_exit=True, maxsize=5)"), tmp_path, "loads")
    # The first load was made before the cache was registered for a save at exit.
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, ""), done.stderr


def test_a_save_that_hangs_keeps_a_signal_for_its_limit_and_a_second_one_ends_it_at_once(
    tmp_path: Path,
) -> None:
    program = f"""{BACKEND}
class Hangs(Backend):
    def save(self, entries):
        print("hangs", flush=True)
        if "again" in sys.argv: by_signal()
        threading.Event().wait()
hangs = AsyncCache(backup=Hangs(), save_at_exit=True)
hangs.set("k", 1)
_signals.PATIENCE = 1000 if "again" in sys.argv else 0.1
by_signal()
threading.Event().wait()
"""
    for arguments in ((), ("again",)):
        done = ended(program, tmp_path, *arguments)
        assert (done.returncode, done.stdout) == (-signal.SIGTERM, "hangs\n"), done.stderr
        assert ("could not be saved within 0.1 s" in done.stderr) == (not arguments)


def test_a_lock_that_the_interrupted_code_holds_does_not_hang_the_process(tmp_path: Path) -> None:
    program = f"""{BACKEND}
lock = threading.Lock()
class Locked(Backend):
    def save(self, entries):
        with lock: super().save(entries)
locked, other = (AsyncCache(backup=kind(), save_at_exit=True) for kind in (Locked, Backend))
for one in (locked, other): one.set("k", 1)
_signals.PATIENCE = 0.1
with lock, _autosave._saver._lock:
    by_signal()
"""
    done = ended(program, tmp_path)
    assert done.returncode == -signal.SIGTERM, done.stderr


def test_a_cache_that_another_thread_makes_is_saved_too(tmp_path: Path) -> None:
    program = """
        del cache
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        made = []
        def make():
            made.append(AsyncCache(backup=DiskBackend("x.cache"), save_at_exit=True))
            made[0].set("b", 1)
        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        while signal.getsignal(signal.SIGTERM) is signal.SIG_DFL: pass
        by_signal()
    """
    done = ended(program, tmp_path)
    assert done.returncode == -signal.SIGTERM, done.stderr
    assert saved(tmp_path) == {"b": 1}


def test_a_process_that_does_not_die_of_the_signal_goes_on_and_saves_at_the_next_one(tmp_path: Path) -> None:
    """The first process of a container is not killed by a signal with its default action."""
    program = f"""{BACKEND}
raised = []
_signals.signal = type("signal", (), {{**vars(signal), "raise_signal": staticmethod(raised.append)}})
other = AsyncCache(backup=Backend(), save_at_exit=True)
for key in "ab":
    other.set(key, 1)
    by_signal()
print(raised == [signal.SIGTERM] * 2)
"""
    done = ended(program, tmp_path)
    assert (done.returncode, done.stdout) == (0, "saved ['a']\nsaved ['a', 'b']\nTrue\n"), done.stderr


# A child that writes, a child that does not, and a child that writes late.
CHILD = """
def write(key="child"):
    cache.set(key, 1)
def do_nothing(): pass
def write_and_exit(): write(); sys.exit(0)
def write_and_raise(): write(); raise ValueError("the child's")
def be_killed(): write(); by_signal(signal.SIGKILL)
def be_terminated(): write(); by_signal()
def leave_at_once(): write(); os._exit(0)
def write_late():
    def late():
        threading.main_thread().join()
        write()
    threading.Thread(target=late).start()
    concurrent.futures.ThreadPoolExecutor().submit(do_nothing).result()
def write_in_a_fork():
    child = os.fork()
    if not child:
        write()
        sys.exit(0)
    os.waitpid(child, 0)
def write_in_a_child_s_child():
    child = multiprocessing.get_context(sys.argv[1]).Process(target=write)
    child.start()
    child.join()
if __name__ == "__main__":
    cache.save_to_backup()
    cache.set("the parent's", 1)
    child = multiprocessing.get_context(sys.argv[1]).Process(target=globals()[sys.argv[2]])
    child.start()
    child.join()
    os._exit(0)
"""
WRITES = [
    "write",
    "write_and_exit",
    "write_and_raise",
    "write_late",
    "be_terminated",
    "write_in_a_fork",
    "write_in_a_child_s_child",
]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("what", [*WRITES, "do_nothing", "be_killed", "leave_at_once"])
def test_a_child_of_multiprocessing_saves_what_it_has_changed(method: str, what: str, tmp_path: Path) -> None:
    """The child ends by `os._exit`, so nothing was saved and nothing was reported."""
    done = ended(CHILD, tmp_path, method, what)
    assert done.returncode == 0, done.stderr
    assert ("Traceback" in done.stderr) == (what == "write_and_raise"), done.stderr
    entries = saved(tmp_path)
    assert entries is not None
    assert ("child" in entries) == (what in WRITES), done.stderr
    # If the child writes nothing, it does not save the parent's unsaved entries.
    assert ("the parent's" in entries) == (method == "fork" and what in WRITES)


@pytest.mark.parametrize("pool", ["ProcessPoolExecutor", "Pool"])
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_of_a_pool_save_when_it_is_shut_down(pool: str, method: str, tmp_path: Path) -> None:
    program = """
def work(key):
    cache.set(key, 1)
if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    if sys.argv[2] == "Pool":
        with context.Pool(2) as pool:
            pool.map(work, range(20))
            pool.close()
            pool.join()
    else:
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
            list(pool.map(work, range(20)))
    os._exit(0)
"""
    done = ended(program, tmp_path, method, pool)
    assert done.returncode == 0, done.stderr
    entries = saved(tmp_path)
    assert entries is not None
    assert set(range(20)) <= set(entries)


def test_a_forked_child_that_ends_by_itself_saves_only_if_it_wrote(tmp_path: Path) -> None:
    program = """
        for writes in (False, True):
            child = os.fork()
            if not child:
                if writes: cache.set("child", 1)
                sys.exit(0)
            os.waitpid(child, 0)
            print(os.path.exists("x.cache"), flush=True)
        os._exit(0)
    """
    assert ended(program, tmp_path).stdout == "False\nTrue\n"
    assert saved(tmp_path) == {"a": 1, "child": 1}
