"""Invalidators and sessions of agents: the rows of the table in docs/agent.md about them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import weakref
from pathlib import Path
from typing import Any

import pytest
from agent_tools import Tool
from agent_tools import no_session_is_left_behind as no_session_is_left_behind
from loops import Load, Run, cancel, outcome, task

import agent_cache
from agent_cache import (
    AgentCache,
    AgentCacheInvalidator,
    AgentCacheSession,
    get_metrics,
)
from agent_cache._registry import registry
from cache import DiskBackend


def test_a_write_invalidates_all_tools_of_its_resource_and_no_other(run: Run) -> None:
    one, other, unrelated = Tool(resource="files"), Tool(resource="files"), Tool(resource="rows")

    @AgentCacheInvalidator(resource="files")
    async def write(argument: int) -> int:
        """Writes."""
        return argument

    async def main() -> None:
        for tool in (one, other, unrelated):
            await tool(1)
        before = get_metrics()["invalidations"]
        assert await write(7) == 7
        assert get_metrics()["invalidations"] == before + 1
        for tool in (one, other, unrelated):
            await tool(1)

    run(main())
    assert (one.calls, other.calls, unrelated.calls) == ([1, 1], [1, 1], [1])
    metrics = one.tool.get_metrics()
    assert (metrics["misses"], metrics["invalidations"]) == (2, 1), "counted, and not reset"
    assert one.tool.stats()["loads"] == 2
    assert inspect.iscoroutinefunction(write)
    assert write.__doc__ == "Writes."


@pytest.mark.parametrize("end", ["returns", "raises", "is cancelled"])
def test_what_is_read_while_a_write_runs_does_not_stay_behind(run: Run, end: str) -> None:
    written = Load()
    shared, own = Tool(resource="files"), Tool(resource="files", scope="session")

    @AgentCacheInvalidator(resource="files")
    async def write() -> None:
        await written()

    async def main() -> None:
        async with AgentCacheSession():
            for tool in (shared, own):
                await tool(1)
            writing = task(write())
            await written.called()
            for tool in (shared, own):
                assert await tool(1) == "1 2", "gone before the write"
            if end == "returns":
                written.answer(None)
            elif end == "raises":
                written.fail(OSError())
            else:
                writing.cancel()
            await outcome(writing)
            for tool in (shared, own):
                assert await tool(1) == "1 3", "gone after the write"

    run(main())


def test_a_read_that_runs_during_a_write_is_fenced(run: Run) -> None:
    load = Load()

    @AgentCache(resource="files")
    async def read() -> Any:
        return await load()

    @AgentCacheInvalidator(resource="files")
    async def write() -> None: ...

    async def main() -> None:
        reading = task(read())
        await load.called()
        await write()
        again = task(read())
        await load.called(2)
        load.answer("new", 1)
        assert await again == "new"
        load.answer("old", 0)
        assert await reading == "old"
        assert await read() == "new"

    run(main())


def test_the_scope_of_a_write_says_what_it_invalidates(run: Run) -> None:
    shared, own = Tool(resource="files"), Tool(resource="files", scope="session")

    @AgentCacheInvalidator(resource="files", scope="session")
    async def write_in_session() -> None: ...

    @AgentCacheInvalidator(resource="files", scope="global")
    async def write_for_all() -> None: ...

    async def read() -> tuple[str, str]:
        return await shared(1), await own(1)

    async def main() -> None:
        async with AgentCacheSession("other"):
            assert await read() == ("1 1", "1 1")

            async def elsewhere() -> None:
                async with AgentCacheSession("mine") as mine:
                    assert await read() == ("1 1", "1 2")
                    await write_in_session()
                    assert await read() == ("1 1", "1 3")
                    await write_for_all()
                    assert await read() == ("1 2", "1 4")
                    assert mine.get_metrics()["invalidations"] == 2

            await elsewhere()
            assert await read() == ("1 2", "1 1"), "the entries of another session stay"

    run(main())


def test_a_tool_that_is_made_after_a_write_does_not_serve_its_file(run: Run, path: Path) -> None:
    def make(value: int) -> Any:
        @AgentCache(resource="late", backup=DiskBackend(path))
        async def read() -> int:
            return value

        return read

    @AgentCacheInvalidator(resource="late")
    async def write() -> None: ...

    first = make(1)
    run(first())
    first.save_to_backup()
    del first
    gc.collect()
    run(write())
    assert run(make(2)()) == 2


# AgentCacheSession


def test_sessions_nest_and_the_innermost_counts(run: Run) -> None:
    tool = Tool(scope="session")

    async def main() -> None:
        async with AgentCacheSession() as outer:
            assert await tool(1) == "1 1"
            async with AgentCacheSession() as inner:
                assert await tool(1) == "1 2"
                assert inner.session_id != outer.session_id
            assert await tool(1) == "1 1"
        assert inner.get_metrics()["misses"] == 1
        assert (outer.get_metrics()["hits"], outer.get_metrics()["misses"]) == (1, 1)

    run(main())


def test_one_id_in_several_places_is_one_session_until_the_last_one_leaves(run: Run) -> None:
    tool = Tool(scope="session")
    leave = Load()

    async def somewhere() -> None:
        async with AgentCacheSession("shared"):
            await leave()

    async def main() -> None:
        elsewhere = task(somewhere())
        await leave.called()
        async with AgentCacheSession("shared"):
            assert await tool(1) == "1 1"
            async with AgentCacheSession("shared") as nested:
                assert await tool(1) == "1 1"
                assert nested.get_metrics()["hits"] == 1
        async with AgentCacheSession("shared"):
            assert await tool(1) == "1 1", "it is still open elsewhere"
        leave.answer(None)
        await elsewhere
        async with AgentCacheSession("shared"):
            assert await tool(1) == "1 2"

    run(main())


def test_tasks_that_are_made_in_a_session_are_in_it_and_others_are_not(run: Run) -> None:
    tool = Tool(scope="session")
    go = Load()

    async def outside() -> Any:
        await go()
        return await tool(1)

    async def main() -> None:
        stranger = task(outside())
        await go.called()
        async with AgentCacheSession():
            assert list(await asyncio.gather(tool(1), tool(1))) == ["1 1", "1 1"]
            go.answer(None)
            assert await stranger == "1 2"

    run(main())


def test_leaving_waits_for_nothing_and_running_calls_get_their_answer(run: Run) -> None:
    load = Load()

    @AgentCache(resource="slow", scope="session")
    async def slow() -> Any:
        return await load()

    async def main() -> None:
        async with AgentCacheSession("a"):
            call = task(slow())
            await load.called()
        async with AgentCacheSession("a"):
            again = task(slow())
            await load.called(2)
            load.answer("old", 0)
            assert await call == "old"
            load.answer("new", 1)
            assert await again == "new"
            assert await slow() == "new"

    run(main())


def test_a_task_that_outlives_its_session_runs_uncached(run: Run) -> None:
    tool = Tool(scope="session")
    go = Load()

    async def late() -> list[Any]:
        await go()
        return [await tool(1), await tool(1)]

    async def main() -> None:
        async with AgentCacheSession():
            straggler = task(late())
            await go.called()
            await tool(1)
        go.answer(None)
        assert await straggler == ["1 2", "1 3"]

    run(main())


def test_what_a_global_tool_loads_holds_nothing_of_a_session(run: Run) -> None:
    own = Tool(scope="session")

    @AgentCache(resource="everybody")
    async def shared() -> Any:
        return await own(1)

    async def main() -> None:
        async with AgentCacheSession():
            assert await own(1) == "1 1"
            assert await shared() == "1 2", "asked anew, for it is for everybody"
            assert await own(1) == "1 1"

    run(main())


def test_sessions_leave_nothing_behind(run: Run) -> None:
    class Value:
        pass

    @AgentCache(resource="values", scope="session")
    async def make(number: int) -> Value:
        return Value()

    values: list[weakref.ref[Value]] = []

    async def one(number: int) -> None:
        async with AgentCacheSession(f"{number % 3}", loop_detection=True):
            for argument in range(20):
                values.append(weakref.ref(await make(argument)))
                await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(*(one(number) for number in range(9)))

    run(main())
    gc.collect()
    assert len(values) == 180
    assert all(value() is None for value in values)
    assert agent_cache.stats()["sessions"] == 0
    assert make.get_metrics()["size"] == 0


def test_a_tool_that_nobody_uses_any_more_is_forgotten(run: Run) -> None:
    tool = Tool(resource="of no use")
    run(tool(1))
    gone = weakref.ref(tool.tool)
    del tool
    gc.collect()
    assert gone() is None
    assert registry.tools("of no use") == []


def test_a_session_object_is_entered_once_at_a_time(run: Run) -> None:
    async def main() -> None:
        session = AgentCacheSession()
        async with session:
            with pytest.raises(RuntimeError, match="entered already"):
                await session.__aenter__()
        async with session:
            pass

    run(main())


def test_a_session_is_left_when_its_body_raises_or_is_cancelled(run: Run) -> None:
    forever = Load()

    async def body(error: BaseException | None) -> None:
        async with AgentCacheSession("a"):
            if error is not None:
                raise error
            await forever()

    async def main() -> None:
        assert isinstance(await outcome(body(KeyError())), KeyError)
        assert registry.sessions() == []
        inside = task(body(None))
        await forever.called()
        assert len(registry.sessions()) == 1
        await cancel(inside)
        assert registry.sessions() == []

    run(main())


def test_a_session_is_an_async_context_manager_only() -> None:
    with pytest.raises((TypeError, AttributeError)), AgentCacheSession():  # type: ignore[attr-defined]
        pass


def test_metrics_are_those_of_all_tools_and_sessions(run: Run) -> None:
    tool, own = Tool(), Tool(scope="session")

    async def main() -> None:
        before = get_metrics()
        async with AgentCacheSession():
            for _ in range(2):
                await tool(1)
                await own(1)
        await own(1)
        after = get_metrics()
        assert {name: after[name] - before[name] for name in ("hits", "misses")} == {"hits": 2, "misses": 3}
        assert set(after) == {"hits", "misses", "invalidations", "loop_detections", "hit_rate"}
        assert after["hit_rate"] == after["hits"] / (after["hits"] + after["misses"])
        assert agent_cache.stats()["loads"] >= 1

    run(main())


def test_threads_with_event_loops_of_their_own_have_sessions_of_their_own() -> None:
    import threading

    tool = Tool(scope="session")
    results: list[Any] = []

    def thread(number: int) -> None:
        async def main() -> None:
            async with AgentCacheSession(f"thread {number}"):
                for _ in range(50):
                    results.append((number, await tool(number)))

        asyncio.run(main())

    threads = [threading.Thread(target=thread, args=(number,)) for number in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(20)
    assert len(results) == 200
    assert len({result for _, result in results}) == 4


def test_contexts_are_left_in_any_order(run: Run) -> None:
    tool = Tool(scope="session")

    async def main() -> None:
        async with contextlib.AsyncExitStack() as stack:
            outer, inner = AgentCacheSession("outer"), AgentCacheSession("inner")
            await outer.__aenter__()
            await stack.enter_async_context(inner)
            await outer.__aexit__(None, None, None)
            assert await tool(1) == await tool(1) == "1 1"
        assert [await tool(1), await tool(1)] == ["1 2", "1 3"], "both have ended"

    run(main())
