"""Forks while loads run: the loads are the parent's, and the child loads for itself.

The child had a copy of every running load, on a copy of an event loop that claimed to be running. A
call with the same key joined the load, and hung for ever: in workers of `ProcessPoolExecutor` and
multiprocessing, for decorated functions, loaders and batches alike.
"""

from __future__ import annotations

import os
import textwrap

import pytest
from loops import LOOPS
from programs import LIMIT, run

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here"),
    pytest.mark.timeout(2 * LIMIT),
]

# The beginning of all programs. A load returns the process in which it ran; in the parent it waits
# for the gate.
HEAD = """
import asyncio, concurrent.futures, gc, multiprocessing, os, signal, sys, threading
from agent_cache import AgentCache, AgentCacheSession
from cache import AsyncCache, AsyncLRU, AsyncTTL, RecursiveLoadError

parent = os.getpid()
cache = AsyncCache(batch_window_ms=0)
slow = AsyncCache(batch_window_ms=3_600_000)
gate = asyncio.Event()
started = 0

async def load():
    global started
    started += 1
    if os.getpid() == parent:
        await gate.wait()
    return os.getpid()

async def load_batch(keys):
    return dict.fromkeys(keys, await load())

@AsyncLRU()
async def lru(): return await load()

@AsyncTTL(60)
async def ttl(): return await load()

@AgentCache("rows", scope="session")
async def tool(): return await load()

def with_loader(): return cache.get("one", loader=load)
def with_batch_loader(): return cache.get("many", batch_loader=load_batch)
def before_the_batch_left():
    slow.batch_window_ms = 0 if os.getpid() != parent else slow.batch_window_ms
    return slow.get("gathered", batch_loader=load_batch)

def new_loop():
    if sys.argv[1] == "uvloop":
        import uvloop
        return uvloop.new_event_loop()
    return asyncio.new_event_loop()

def run_new(awaitable):
    async def awaited(): return await awaitable
    loop = new_loop()
    try:
        return loop.run_until_complete(awaited())
    finally:
        loop.close()

async def under_way(ask, is_gathered=False):
    '''A caller whose load runs.'''
    before = started
    async def awaited(): return await ask()
    task = asyncio.ensure_future(awaited())
    while started == before and not is_gathered:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    return task

def in_a_child(work):
    '''What `work` returned in a forked child, whatever it is that can be printed; the child is killed if it hangs.'''
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(30)
        try:
            answer = work()
        except BaseException as error:
            answer = repr(error)
        os.write(writer, repr(answer).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answers:
        answer = answers.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return answer.replace(str(child), "the child's").replace(str(parent), "the parent's") if status == 0 else status
"""


def forking(program: str, *arguments: str) -> str:
    return run(HEAD + textwrap.dedent(program), *arguments)


ASKS = ["lru", "ttl", "with_loader", "with_batch_loader", "before_the_batch_left"]


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("thread", ["the loop's", "another"])
def test_a_child_loads_for_itself_what_its_parent_was_loading(loop: str, thread: str) -> None:
    if loop not in ("asyncio", "uvloop"):
        pytest.skip(loop)
    program = f"""
        async def main(ask):
            task = await under_way(ask, ask is before_the_batch_left)
            def fork():
                return in_a_child(lambda: run_new(ask()))
            answer = fork() if {thread!r} == "the loop's" else await asyncio.to_thread(fork)
            gate.set()
            if ask is before_the_batch_left:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            else:
                assert await task == parent
            print(ask.__name__, answer)
            gate.clear()
        loop = new_loop()
        for ask in ({", ".join(ASKS)}):
            loop.run_until_complete(main(ask))
    """
    assert forking(program, loop).splitlines() == [f"{ask} the child's" for ask in ASKS]


def test_what_was_cached_is_served_in_the_child_and_no_error_is_counted() -> None:
    program = """
        async def main():
            cache.set("k", "kept")
            task = await under_way(with_loader)
            def work():
                assert run_new(with_loader()) == os.getpid()
                assert run_new(with_loader()) == os.getpid(), "from memory"
                return run_new(cache.get("k")), started, cache.stats()["load_errors"]
            print(in_a_child(work))
            gate.set()
            await task
            print(cache.stats()["load_errors"])
        asyncio.run(main())
    """
    assert forking(program, "asyncio") == "('kept', 2, 0)\n0\n"


def test_the_child_calls_nothing_of_the_parent_s_event_loops() -> None:
    """Parent and child share the pipe that wakes the loop: a thread-safe call in the child would
    wake the parent's loop.
    """
    program = """
        called = []
        async def main():
            loop = asyncio.get_running_loop()
            tasks = [await under_way(ask) for ask in (lru, with_loader, with_batch_loader)]
            other = threading.Thread(target=lambda: called.append(asyncio.run(awaited(with_loader))))
            joined = cache.stats()["joined"]
            other.start()
            while cache.stats()["joined"] == joined:
                await asyncio.sleep(0)
            def work():
                asyncio.base_events.BaseEventLoop._write_to_self = lambda self: called.append("woken")
                asyncio.selector_events.BaseSelectorEventLoop._write_to_self = lambda self: called.append("woken")
                def quiet(*_): raise AssertionError("asked to run on a loop of the parent's")
                loop.call_soon_threadsafe = quiet
                sys.unraisablehook = lambda about: called.append(about.exc_value)
                for ask in (lru, with_loader, with_batch_loader):
                    assert run_new(ask()) == os.getpid()
                called.clear()  # a loop wakes itself when it shuts down
                # Everything that waited is dropped.
                for task in tasks:
                    coroutine = task.get_coro()
                    task._log_destroy_pending = False
                    del task
                    coroutine.close()
                cache.clear()
                gc.collect()
                return called
            print(in_a_child(work))
            gate.set()
            await asyncio.gather(*tasks)
            await asyncio.to_thread(other.join)
            print(called == [parent])
        async def awaited(ask): return await ask()
        asyncio.run(main())
    """
    assert forking(program, "asyncio") == "[]\nTrue\n"


def test_a_child_that_runs_the_parent_s_loop_on_has_its_callers_answered() -> None:
    """As in test runners that keep one event loop: the fork happens while the loop is not
    running.
    """
    program = """
        loop = asyncio.new_event_loop()
        task = loop.run_until_complete(under_way(with_loader))
        async def again():
            anew = await with_loader()
            gate.set()
            return anew == os.getpid(), await task == os.getpid(), started
        print(in_a_child(lambda: loop.run_until_complete(again())))
        loop.call_soon(gate.set)
        print(loop.run_until_complete(task) == parent)
    """
    assert forking(program, "asyncio") == "(True, True, 2)\nTrue\n"


def test_a_loader_may_ask_a_forked_process_for_its_own_key() -> None:
    """The child runs in a copy of the loader's context: it got the error for asking for its own
    key.
    """
    program = """
        async def forks():
            if os.getpid() != parent:
                return os.getpid()
            return in_a_child(lambda: run_new(cache.get("k", loader=forks)))
        async def asks(): return await cache.get("again", loader=asks)
        print(run_new(cache.get("k", loader=forks)))
        try:
            run_new(cache.get("again", loader=asks))
        except RecursiveLoadError:
            print("refused")
        def work():
            try:
                run_new(cache.get("again", loader=asks))
            except RecursiveLoadError:
                return "refused"
        print(in_a_child(work))
    """
    assert forking(program, "asyncio") == "the child's\nrefused\n'refused'\n"


@pytest.mark.parametrize("pool", ["ProcessPoolExecutor", "Pool"])
def test_workers_of_a_pool_that_is_started_in_a_loader_load_for_themselves(pool: str) -> None:
    program = f"""
        def work():
            signal.alarm(30)
            return run_new(with_loader()) == os.getpid()
        async def loader_with_a_pool():
            fork = multiprocessing.get_context("fork")
            if {pool!r} == "Pool":
                with fork.Pool(2) as workers:
                    return await asyncio.to_thread(workers.apply, work)
            with concurrent.futures.ProcessPoolExecutor(2, mp_context=fork) as workers:
                return await asyncio.get_running_loop().run_in_executor(workers, work)
        async def main():
            task = await under_way(with_loader)
            print(await cache.get("pool", loader=loader_with_a_pool))
            gate.set()
            print(await task == parent)
        asyncio.run(main())
    """
    assert forking(program, "asyncio") == "True\nTrue\n"


def test_tools_of_an_agent_s_session_load_anew_in_a_child() -> None:
    program = """
        async def main():
            async with AgentCacheSession("s", loop_detection=True, max_tool_repeats=3) as session:
                # The call that runs in the parent counts in the child, too: three in all.
                task = await under_way(tool)
                def work():
                    answers = [run_new(tool()) for _ in range(2)]
                    return [answer == os.getpid() for answer in answers], session.get_metrics()["loop_detections"]
                print(in_a_child(work))
                gate.set()
                print(await task == parent)
        asyncio.run(main())
    """
    assert forking(program, "asyncio") == "([True, True], 0)\nTrue\n"


def test_forks_of_forks_load_for_themselves() -> None:
    program = """
        async def main():
            task = await under_way(with_loader)
            def grandchild():
                # A load that this very process began runs, too.
                global parent
                parent, loop = os.getpid(), asyncio.new_event_loop()
                loop.run_until_complete(under_way(with_loader))
                return in_a_child(lambda: run_new(with_loader()) == os.getpid())
            print(in_a_child(grandchild))
            gate.set()
            await task
        asyncio.run(main())
    """
    assert forking(program, "asyncio") == "'True'\n"
