"""Ends of processes with a journal: after each end nothing is lost, and after an orderly end there
is the single file.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path
from typing import Any

import pytest
from journals import NEVER, folder_of, found
from programs import LIMIT

from cache import AsyncCache, CacheWarning, DiskBackend

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="these signals and forks are not there"),
    pytest.mark.timeout(3 * LIMIT),
]

HEAD = """
import asyncio, logging, multiprocessing, os, signal, sys, threading, time
from cache import AsyncCache, AsyncLRU, BackupError, DiskBackend
logging.basicConfig(format="%(message)s")

def make(name="x.cache"):
    return AsyncCache(backup=DiskBackend(name, journal=True, flush=0.01))

def value_of(cache, key):
    return asyncio.run(cache.get(key))
"""
MADE = "cache = make()\ncache.set('a', 1)\n"


def ended(program: str, folder: Path, head: str = HEAD + MADE) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end, of any kind."""
    (folder / "program.py").write_text(head + textwrap.dedent(program))
    return subprocess.run(
        [sys.executable, "-B", "-W", "ignore::DeprecationWarning", "program.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
        # If the tests run in the background of a shell, SIGINT would be ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def left(folder: Path, keys: Any = "abcdef", name: str = "x.cache") -> dict[Any, Any]:
    """The entries after the end of a process, for a cache with a journal."""
    return found(AsyncCache(backup=DiskBackend(folder / name, journal=True, flush=NEVER)), keys)


# The program, its exit code, and whether the folder of the journal is gone.
ENDS: dict[str, tuple[str, int, bool]] = {
    "it returns": ("", 0, True),
    "sys.exit": ("sys.exit(3)", 3, True),
    "an exception": ("raise KeyError('mine')", 1, True),
    "Ctrl-C": ("os.kill(os.getpid(), signal.SIGINT); time.sleep(10)", -signal.SIGINT, True),
    "SIGTERM": ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(10)", -signal.SIGTERM, True),
    "SIGTERM in a load": (
        """
        async def load():
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(10)
        asyncio.run(cache.get("b", loader=load))
        """,
        -signal.SIGTERM,
        True,
    ),
    "SIGTERM with a handler of the program": (
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(4)); os.kill(os.getpid(), signal.SIGTERM)",
        4,
        True,
    ),
    "SIGKILL": ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, False),
    "os._exit": ("os._exit(5)", 5, False),
    "os.abort": ("os.abort()", -signal.SIGABRT, False),
    "a function that is decorated": (
        """
        @AsyncLRU(backup=DiskBackend("f.cache", journal=True))
        async def double(number):
            return number * 2
        asyncio.run(double(1))
        """,
        0,
        True,
    ),
    "a daemon thread writes all the time": (
        """
        def write():
            while True:
                cache.set("c", 1)
        threading.Thread(target=write, daemon=True).start()
        time.sleep(0.05)
        """,
        0,
        True,
    ),
    "a thread goes on, and writes": (
        """
        def write():
            threading.main_thread().join()
            cache.set("b", 2)
        threading.Thread(target=write).start()
        """,
        0,
        True,
    ),
    "an exit handler writes": ("import atexit; atexit.register(lambda: cache.set('b', 2))", 0, True),
    "a cache that was dropped": ("del cache", 0, False),
    "a cache in a circle": ("cache.circle = cache; del cache", 0, True),
}
WRITES_B = {"a thread goes on, and writes", "an exit handler writes"}


@pytest.mark.parametrize("end", ENDS)
def test_after_each_end_nothing_is_lost(tmp_path: Path, end: str) -> None:
    program, code, is_folded = ENDS[end]
    done = ended(program, tmp_path)
    assert done.returncode == code, done.stderr
    if code in (0, 3, 4):
        assert done.stderr == ""
    expected = {"a": 1} | ({"b": 2} if end in WRITES_B else {})
    assert folder_of(tmp_path / "x.cache").exists() is not is_folded
    if is_folded:
        plain = AsyncCache(backup=DiskBackend(tmp_path / "x.cache"))
        assert found(plain, "ab") == expected
    assert found_without_c(tmp_path) == expected
    if end == "a function that is decorated":
        assert (tmp_path / "f.cache").exists()


def found_without_c(folder: Path) -> dict[Any, Any]:
    return {key: value for key, value in left(folder).items() if key != "c"}


# Children of multiprocessing

CHILD = """
def work():
    global mine  # a cache that is dropped does not close its journal
    mine = make("child.cache")
    mine.set("a", 1)
    {body}

if __name__ == "__main__":
    multiprocessing.set_start_method("{how}")
    child = multiprocessing.Process(target=work)
    child.start()
    child.join()
    sys.exit(child.exitcode)
"""


@pytest.mark.parametrize("how", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("pass", {"a": 1}),
        ("sys.exit(0)", {"a": 1}),
        ("threading.Timer(0.05, mine.set, ('b', 2)).start()", {"a": 1, "b": 2}),
    ],
)
def test_a_child_of_multiprocessing_closes_its_own_journal(
    tmp_path: Path, how: str, body: str, expected: dict[str, int]
) -> None:
    done = ended(CHILD.format(body=body, how=how), tmp_path, HEAD)
    assert (done.returncode, done.stderr) == (0, "")
    assert not folder_of(tmp_path / "child.cache").exists()
    assert left(tmp_path, name="child.cache") == expected


# Forks


def test_a_forked_child_is_in_memory_only_and_says_so_once(tmp_path: Path) -> None:
    done = ended(
        """
        child = os.fork()
        if child == 0:
            try:
                assert value_of(cache, "a") == 1
                assert not cache.is_journaled()
                sys.stderr.write("before\\n")
                cache.set("b", 2)
                cache.set("a", 3)
                cache.delete("a")
                assert (value_of(cache, "a"), value_of(cache, "b")) == (None, 2)
                try:
                    cache.set("c", 1, durable=True)
                except BackupError as error:
                    assert "forked" in str(error)
                else:
                    raise AssertionError
                os._exit(0)
            except BaseException as error:
                sys.stderr.write(repr(error))
                os._exit(9)
        _, status = os.waitpid(child, 0)
        assert status == 0, status
        cache.set("d", 4)
        assert value_of(cache, "a") == 1
        """,
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert lines[0] == "before"
    assert len(lines) == 2 and "make the cache after the fork" in lines[1]
    assert left(tmp_path) == {"a": 1, "d": 4}


def test_the_saves_of_a_forked_child_merge(tmp_path: Path) -> None:
    done = ended(
        """
        child = os.fork()
        if child == 0:
            cache.set("b", 2)
            cache.set("a", 3)
            cache.save_to_backup()
            os._exit(0)
        os.waitpid(child, 0)
        """,
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert left(tmp_path) == {"a": 3, "b": 2}


def test_a_forked_child_may_open_the_journal_when_its_parent_has_closed_it(tmp_path: Path) -> None:
    done = ended(
        """
        child = os.fork()
        if child == 0:
            del cache
            while os.path.exists("x.cache.d"):
                time.sleep(0.001)
            mine = make()
            assert mine.is_journaled() and value_of(mine, "a") == 1
            mine.set("b", 2)
            os.kill(os.getpid(), signal.SIGKILL)
        cache.close_journal(10)
        os.waitpid(child, 0)
        """,
        tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert left(tmp_path) == {"a": 1, "b": 2}


def test_forks_while_threads_write_and_sync_hang_nobody(tmp_path: Path) -> None:
    done = ended(
        """
        def write():
            number = 0
            while not over.is_set():
                number += 1
                cache.set(number % 50, "x" * 1000)
        over = threading.Event()
        threads = [threading.Thread(target=write) for _ in range(2)]
        for thread in threads:
            thread.start()
        for _ in range(20):
            child = os.fork()
            if child == 0:
                cache.set("b", 1)
                cache.clear()
                asyncio.run(cache.get("b", loader=lambda: asyncio.sleep(0, 2)))
                os._exit(0 if cache.size() == 1 else 8)
            assert os.waitpid(child, 0)[1] == 0
        over.set()
        """,
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert left(tmp_path) == {"a": 1}


# Two processes

FIRST = """
cache = make()
cache.set("a", 1)
print("open", flush=True)
sys.stdin.readline()
cache.set("c", 3)
"""


def test_a_second_process_warns_and_merges_and_nobody_loses_entries(tmp_path: Path) -> None:
    (tmp_path / "first.py").write_text(HEAD + FIRST)
    with subprocess.Popen(
        [sys.executable, "first.py"],
        cwd=tmp_path,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as first:
        assert first.stdout is not None and first.stdout.readline() == "open\n"
        with pytest.warns(CacheWarning, match="another process"):
            second = AsyncCache(backup=DiskBackend(tmp_path / "x.cache", journal=True))
        assert (second.is_journaled(), second.size()) == (False, 0)
        second.set("b", 2)
        second.save_to_backup()
        assert DiskBackend(tmp_path / "x.cache", journal=True).load() == {"a": (1, None), "b": (2, None)}
        first.communicate("\n", timeout=LIMIT)
    del second
    assert left(tmp_path) == {"a": 1, "b": 2, "c": 3}


def test_a_process_that_cannot_write_keeps_memory_right_and_returns_nothing_older(tmp_path: Path) -> None:
    done = ended(
        """
        import resource
        cache.set("b", "x" * 20_000)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, resource.RLIM_INFINITY))
        cache.set("a", "y" * 5_000)
        cache.delete("b")
        cache.set("c", 3)
        assert value_of(cache, "a") == "y" * 5_000 and value_of(cache, "b") is None
        assert cache.stats()["write_errors"] > 0, cache.stats()
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        tmp_path,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len([line for line in done.stderr.splitlines() if "not in the journal" in line]) == 1, done.stderr
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        after = left(tmp_path)
    assert "b" not in after and after.get("a") != 1
