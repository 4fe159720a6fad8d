"""Reads of cold entries during which callers, loops, threads, journals or processes end."""

from __future__ import annotations

import asyncio
import gc
import os
import textwrap
import threading
from pathlib import Path
from typing import Any

import programs
import pytest
from cold_reads import ReadThreads, begun, cold, never, waiting
from journals import attempts, files_of, forget, value_of
from loops import Run, new_loop, outcome, returns, turns

from cache import AsyncCache


def test_cancelled_callers_leave_and_the_read_ends(run: Run, path: Path, threads: ReadThreads) -> None:
    cache = cold(path)

    async def main() -> None:
        first, second, third = [await waiting(path, lambda: cache.get(3)) for _ in range(3)]
        first.cancel()
        assert isinstance(await first, asyncio.CancelledError)
        threads.read()
        assert (await second, await third) == ("3", "3")
        calls = [await waiting(path, lambda: cache.get(4)) for _ in range(3)]
        for call in calls:
            call.cancel()
        answers = await asyncio.gather(*calls)
        assert all(isinstance(answer, asyncio.CancelledError) for answer in answers)
        joins = await waiting(path, lambda: cache.get(4))
        assert threads.count == 2
        threads.read()
        assert await joins == "4"

    run(main())
    assert cache.stats()["misses"] == 0


def test_a_call_that_is_closed_or_dropped_leaves_its_read(path: Path, threads: ReadThreads) -> None:
    cache = cold(path)

    def waits() -> Any:
        for _ in attempts(path):
            call: Any = cache.get(3)
            try:
                call.send(None)
            except StopIteration:
                continue
            return call
        return None

    async def main() -> None:
        closed, dropped, thrown = waits(), waits(), waits()
        closed.close()
        with pytest.raises(KeyError):
            thrown.throw(KeyError(3))
        del dropped
        threads.read()
        await turns()
        assert await cache.get(3) == "3"

    asyncio.run(main())
    assert threads.count == 1


def test_callers_on_several_event_loops_share_a_read(path: Path, threads: ReadThreads) -> None:
    cache = cold(path)
    closed = new_loop("asyncio")
    closed.set_exception_handler(lambda *_: None)  # a task is destroyed while it waits
    lost = closed.run_until_complete(waiting(path, lambda: cache.get(3)))
    has_begun = threading.Event()

    async def elsewhere() -> Any:
        try:
            call = await waiting(path, lambda: cache.get(3))
        finally:
            has_begun.set()
        return await call

    async def main() -> None:
        call = await waiting(path, lambda: cache.get(3))
        other = asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(elsewhere())))
        await asyncio.to_thread(has_begun.wait)
        closed.close()
        threads.read()
        assert (await call, await other) == ("3", "3")

    asyncio.run(main())
    assert (threads.count, lost.done()) == (1, False)
    del lost
    gc.collect()


def test_without_an_event_loop_or_a_thread_a_call_waits_in_place(
    run: Run, path: Path, threads: ReadThreads
) -> None:
    cache = cold(path)
    assert value_of(cache, 3) == "3"
    threads.refuses = RuntimeError("cannot schedule new futures after interpreter shutdown")

    async def main() -> None:
        for _ in attempts(path):
            assert await cache.get(3, loader=never) == "3"
            if threads.refused:
                break
        threads.refuses = KeyboardInterrupt()
        for _ in attempts(path):
            answer = await outcome(cache.get(3))
            if answer != "3":
                break
        assert isinstance(answer, KeyboardInterrupt)
        threads.refuses = None
        call = await waiting(path, lambda: cache.get(3))
        threads.read()
        assert await call == "3"

    run(main())
    assert threads.count == 1


def test_a_call_awaits_two_reads_at_most(run: Run, path: Path, threads: ReadThreads) -> None:
    cache = cold(path)

    async def reads_of_a_call() -> int:
        before = threads.count
        call = await waiting(path, lambda: cache.get(3))
        while threads.held:
            assert not call.done()
            threads.read()
            forget(path)
            await turns()
        assert await call == "3"
        return threads.count - before

    async def main() -> None:
        for _ in attempts(path):
            reads = await reads_of_a_call()
            if reads > 1:  # else the look-up after the first read was served in place
                break
        assert reads == 2

    run(main())


def test_a_journal_may_be_closed_during_a_read(run: Run, path: Path, threads: ReadThreads) -> None:
    cache = cold(path)

    async def main() -> None:
        calls = [
            await waiting(path, lambda: cache.get(3)),
            await waiting(path, lambda: cache.get(4, loader=returns("loaded"))),
        ]
        assert cache.close_journal(1.0)
        threads.read()
        assert await asyncio.gather(*calls) == [None, "loaded"]

    run(main())


def test_a_damaged_record_is_a_miss_also_after_a_read(run: Run, path: Path, threads: ReadThreads) -> None:

    def damaged(place: Path) -> AsyncCache:
        cache = cold(place)
        for file in files_of(place):
            content = bytearray(file.read_bytes())
            at = content.find(b"\xa2" + b"33")  # the value "33"
            if at > 0:
                content[at + 1] ^= 1
                file.write_bytes(content)
        forget(place)
        return cache

    async def main() -> None:
        # A call that is served in place stores the loaded value, so each attempt has its own files.
        for number, _ in enumerate(attempts(path)):
            cache = damaged(path.with_name(f"damaged {number}"))
            calls = [await begun(cache.get(33, loader=returns("loaded"))) for _ in range(3)]
            has_read = threads.count > 0
            threads.read()
            assert await asyncio.gather(*calls) == ["loaded"] * 3
            if has_read:
                break

    run(main())
    assert threads.count > 0


HEAD = """
import asyncio, os, pathlib, pytest, signal, sys
sys.path.insert(0, sys.argv[2])
from cold_reads import begun, waiting
from journals import attempts, forget, opened
from cache import _reads
path = pathlib.Path(sys.argv[1])
cache = opened(path, maxsize=0, disk_bytes=1 << 30)
for key in range(40):
    cache.set(key, str(key))
class Held:
    def submit(self, *work): self.work = work
    def read(self): self.work[0](self.work[1])
try:
"""

TAIL = """
except pytest.skip.Exception as skipped:
    print("skipped:", skipped)
"""


def program(text: str, path: Path) -> str:
    """The output of a program. Skips the test where the program would skip it."""
    body = textwrap.indent(textwrap.dedent(text), "    ")
    output = programs.run(HEAD + body + TAIL, str(path), str(Path(__file__).parent.parent))
    if "skipped:" in output:
        pytest.skip(output)
    return output


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_in_a_forked_child_the_reads_of_the_parent_have_ended(path: Path) -> None:
    text = """
    held = Held()
    _reads._threads.append(held)
    loop = asyncio.new_event_loop()
    call = loop.run_until_complete(waiting(path, lambda: cache.get(3)))
    child = os.fork()
    if not child:
        signal.alarm(20)
        # The journal is the parent's.
        os._exit(0 if loop.run_until_complete(call) is None and not _reads._running else 1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    held.read()
    print(loop.run_until_complete(call))
    """
    assert program(text, path).split() == ["0", "3"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_parent_and_forked_child_read_with_threads_of_their_own(path: Path) -> None:
    text = """
    reads = []
    run = _reads._run
    def noted(read):
        reads.append(read)
        run(read)
    _reads._run = noted
    def reads_all(cache, path):
        async def main():
            for key in range(40):
                before = len(reads)
                for _ in attempts(path):
                    assert await cache.get(key) == str(key)
                    if len(reads) > before: break
        asyncio.run(main())
        return len(_reads._threads) == 1
    class Interrupted:
        def end(self): raise KeyboardInterrupt
    class Waiting:
        has_ended = False
        def end(self): self.has_ended = True
    assert reads_all(cache, path)
    of_parent, waiting = _reads._threads[0], Waiting()
    _reads._running.update({1: waiting, 2: Interrupted()})
    child = os.fork()
    if not child:
        signal.alarm(20)
        assert waiting.has_ended and not _reads._running
        place = path.with_name("child")
        own = opened(place, maxsize=0, disk_bytes=1 << 30)
        for key in range(40):
            own.set(key, str(key))
        assert reads_all(own, place) and _reads._threads[0] is not of_parent
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    _reads._running.clear()
    print(reads_all(cache, path) and _reads._threads[0] is of_parent)
    """
    assert program(text, path).split() == ["0", "True"]


def test_the_interpreter_ends_with_reads_under_way_and_reads_after_its_threads(path: Path) -> None:
    text = """
    import atexit, concurrent.futures
    class Threads(concurrent.futures.ThreadPoolExecutor):
        taken = refused = 0
        def submit(self, *work):
            try:
                super().submit(*work)
                self.taken += 1
            except RuntimeError:
                self.refused += 1
                raise
    threads = Threads(8)
    _reads._threads.append(threads)
    def last():
        async def main():
            for _ in attempts(path):
                value = await cache.get(7)
                if threads.refused: return value
        print(asyncio.run(main()))
    atexit.register(last)
    async def main():
        for _ in attempts(path):
            for key in range(40): await begun(cache.get(key))
            if threads.taken: return
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)
    loop.run_until_complete(main())
    forget(path)
    print("end")
    """
    assert program(text, path).split() == ["end", "7"]
