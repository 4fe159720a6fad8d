"""The agent cache: every row of the table in docs/agent.md."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import json
import logging
import pickle
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loops import Load, Run, cancel, outcome, task, turns, until

import agent_cache
from agent_cache import (
    AgentCache,
    AgentCacheInvalidator,
    AgentCacheSession,
    AgentLoopDetectedError,
    get_metrics,
)
from agent_cache._registry import registry
from cache import CacheError, DiskBackend, RecursiveLoadError


@pytest.fixture(autouse=True)
def no_session_is_left_behind() -> Iterator[None]:
    yield
    assert registry.sessions() == []


class Tool:
    """A tool that counts its calls and returns a given result, or a new result each time."""

    def __init__(self, **options: Any) -> None:
        self.calls: list[Any] = []
        self.result: Any = None

        @AgentCache(**{"resource": f"resource {id(self)}", **options})
        async def tool(argument: Any = None, *, option: Any = None) -> Any:
            self.calls.append(argument)
            return f"{argument} {len(self.calls)}" if self.result is None else self.result

        self.tool = tool
        self.resource = tool.resource

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.tool(*args, **kwargs)


# The acceptance example.

EMBEDDINGS = """
import asyncio, json, sys
class Model:
    async def embed(self, text):
        return [float(len(text)), 0.5]
ml_model = Model()

from agent_cache import AgentCache
from cache import DiskBackend

@AgentCache(resource="embeddings", scope="global", backup=DiskBackend(PATH))
async def get_embedding(text):
    return await ml_model.embed(text)

async def main():
    return [await get_embedding(text) for text in ("a", "bc", "a")]
print(json.dumps([asyncio.run(main()), get_embedding.stats(), get_embedding.get_metrics()]))
get_embedding.save_to_backup()
"""


def test_a_global_tool_with_a_backup_comes_back_warm_in_the_next_process(path: Path) -> None:
    def run() -> Any:
        program = EMBEDDINGS.replace("PATH", repr(str(path)))
        command = [sys.executable, "-W", "error", "-c", program]
        return json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)

    results, stats, metrics = run()
    assert results == [[1.0, 0.5], [2.0, 0.5], [1.0, 0.5]]
    assert (stats["cold_hits"], metrics["hits"], metrics["misses"]) == (0, 1, 2)
    again, stats, metrics = run()
    assert again == results
    assert (stats["cold_hits"], stats["loads"], metrics["hits"], metrics["misses"]) == (2, 0, 3, 0)


# AgentCache


def test_a_global_tool_is_cached_for_everybody(run: Run) -> None:
    tool = Tool(scope="global")

    async def main() -> None:
        assert await tool(1) == "1 1"
        async with AgentCacheSession():
            assert await tool(1) == "1 1"
            async with AgentCacheSession():
                assert await tool(1) == "1 1"
        assert await tool(argument=1) == "1 2", "by name it is another call, as for the other decorators"

    run(main())
    assert tool.tool.get_metrics() == {
        "hits": 2,
        "misses": 2,
        "invalidations": 0,
        "loop_detections": 0,
        "hit_rate": 0.5,
        "size": 2,
    }


def test_a_session_tool_is_cached_in_its_session_and_the_entries_end_with_it(run: Run) -> None:
    tool = Tool(scope="session")

    async def main() -> None:
        async with AgentCacheSession("a") as session:
            assert await tool(1) == "1 1"
            assert await tool(1) == "1 1"
            assert session.stats()["size"] == 1
        async with AgentCacheSession("a"):
            assert await tool(1) == "1 2"

    run(main())
    assert tool.tool.get_metrics()["size"] == 0


def test_a_session_tool_outside_of_sessions_runs_uncached(run: Run) -> None:
    tool = Tool(scope="session")

    async def main() -> None:
        assert [await tool(1), await tool(1)] == ["1 1", "1 2"]
        assert list(await asyncio.gather(tool(1), tool(1))) == ["1 3", "1 4"], "and no load is shared"

    run(main())
    metrics = tool.tool.get_metrics()
    assert (metrics["hits"], metrics["misses"], metrics["size"]) == (0, 4, 0)


def test_tools_of_one_resource_do_not_mix(run: Run) -> None:
    async def main(scope: str) -> None:
        one, other = (Tool(scope=scope, resource="shared") for _ in range(2))
        one.result, other.result = "one", "other"
        for _ in range(2):
            assert [await one(1), await other(1)] == ["one", "other"]
        assert len(one.calls) == len(other.calls) == 1

    async def in_session() -> None:
        async with AgentCacheSession():
            await main("session")

    run(main("global"))
    run(in_session())


def test_a_tool_keeps_maxsize_results_and_each_for_its_ttl(run: Run) -> None:
    small, never = Tool(maxsize=1), Tool(ttl=0, scope="session")

    async def main() -> None:
        for argument in (1, 2, 1):
            await small(argument)
        async with AgentCacheSession():
            await never(1)
            await never(1)

    run(main())
    assert small.calls == [1, 2, 1]
    assert never.calls == [1, 1]


def test_skip_args_leaves_self_out_of_the_key_and_a_tool_is_a_method(run: Run) -> None:
    class Files:
        @AgentCache(resource="files", skip_args=1)
        async def read(self, name: str) -> tuple[int, str]:
            return id(self), name

    async def main() -> None:
        one, other = Files(), Files()
        assert await one.read("a") == await other.read("a") == (id(one), "a")

    run(main())


def test_a_key_function_makes_the_key_also_in_a_file(run: Run, path: Path) -> None:
    def make() -> Any:
        @AgentCache(resource="pages", key=lambda url, **_: url.lower(), backup=DiskBackend(path))
        async def fetch(url: str, timeout: int = 1) -> str:
            return url

        return fetch

    fetch = make()
    assert run(fetch("A", timeout=3)) == run(fetch("a")) == "A"
    fetch.save_to_backup()
    fetch.clear_cache()
    fetch.load_from_backup()
    assert run(fetch("a")) == "A"
    assert fetch.stats()["cold_hits"] == 1


def test_use_cache_false_loads_anew_in_both_scopes(run: Run) -> None:
    async def main() -> None:
        for scope in ("global", "session"):
            async with AgentCacheSession():
                tool = Tool(scope=scope)
                await tool(1)
                assert await tool(1, use_cache=False) == "1 2"
                assert await tool(1) == "1 2"

    run(main())


def test_invalidate_cache_removes_one_call_and_clear_cache_all(run: Run) -> None:
    async def main(scope: str) -> None:
        async with AgentCacheSession():
            tool = Tool(scope=scope)
            await tool(1)
            await tool(2)
            tool.tool.invalidate_cache(1)
            await tool(1)
            await tool(2)
            assert tool.calls == [1, 2, 1]
            tool.tool.clear_cache()
            assert tool.tool.get_metrics() == {
                "hits": 0,
                "misses": 0,
                "invalidations": 0,
                "loop_detections": 0,
                "hit_rate": 0.0,
                "size": 0,
            }
            await tool(2)
            assert tool.calls == [1, 2, 1, 2]

    run(main("global"))
    run(main("session"))


@pytest.mark.parametrize("scope", ["global", "session"])
def test_callers_share_one_load_and_the_first_one_may_be_cancelled(run: Run, scope: str) -> None:
    load = Load()

    @AgentCache(resource="slow", scope=scope)
    async def slow(argument: int) -> Any:
        return await load()

    async def main() -> None:
        async with AgentCacheSession():
            first, second = task(slow(1)), task(slow(1))
            await load.called()
            await turns()
            await cancel(first)
            load.answer("value")
            assert await second == "value"
            assert len(load.calls) == 1
            last = task(slow(2))
            await load.called(2)
            await cancel(last)
            await until(lambda: load.cancelled == 1)

    run(main())


def test_an_error_of_a_tool_is_its_own_and_is_not_cached(run: Run) -> None:
    error = KeyError("gone")
    calls = []

    @AgentCache(resource="failing")
    async def failing() -> None:
        calls.append(1)
        raise error

    assert run(outcome(failing())) is error
    assert run(outcome(failing())) is error
    assert len(calls) == 2


def test_a_tool_that_asks_for_itself_with_the_same_arguments_is_an_error_and_no_deadlock(run: Run) -> None:
    @AgentCache(resource="circle")
    async def circle(argument: int) -> Any:
        return await circle(argument)

    assert isinstance(run(outcome(circle(1))), RecursiveLoadError)


def test_a_tool_passes_for_the_function_that_it_decorates() -> None:
    @AgentCache(resource="named")
    async def named(first: int, second: str = "x") -> int:
        """What it does."""
        return first

    assert inspect.iscoroutinefunction(named)
    assert str(inspect.signature(named)) == "(first: 'int', second: 'str' = 'x') -> 'int'"
    assert (named.__name__, named.__doc__) == ("named", "What it does.")
    assert inspect.iscoroutinefunction(named.__wrapped__)
    assert (named.resource, named.scope) == ("named", "global")


module_tool = Tool(resource="module").tool
module_tool.__qualname__ = "module_tool"


def test_a_tool_is_pickled_by_name() -> None:
    assert pickle.loads(pickle.dumps(module_tool)) is module_tool


@pytest.mark.filterwarnings("default")
def test_a_call_of_a_tool_that_is_never_awaited_is_told() -> None:
    tool = Tool()
    with pytest.warns(RuntimeWarning, match="never awaited"):
        tool(1)
        gc.collect()
    assert tool.calls == []


def test_a_call_is_a_coroutine_in_every_state(run: Run) -> None:
    tool = Tool()

    async def main() -> None:
        call = tool(1)
        with pytest.raises(TypeError, match="just-started"):
            call.send(1)
        assert await tool(1) == "1 1"
        with pytest.raises(RuntimeError, match="already awaited"):
            used = tool(1)
            await used
            await used
        closed = tool(2)
        closed.close()
        thrown = tool(3)
        with pytest.raises(KeyError):
            thrown.throw(KeyError("x"))
        assert await asyncio.wait_for(tool(1), 5) == "1 1"
        assert tool.calls == [1]
        call.close()

    run(main())


def test_arguments_that_cannot_be_are_told() -> None:
    def refused(error: type[Exception], match: str, **options: Any) -> None:
        with pytest.raises(error, match=match):
            AgentCache(**{"resource": "r", **options})

    refused(ValueError, 'scope is "global" or "session"', scope="agent")
    refused(TypeError, "name", resource=3)
    refused(ValueError, "not empty", resource="")
    refused(TypeError, "resource=", resource=lambda: None)
    refused(ValueError, "takes no backup", scope="session", backup=DiskBackend("x"))
    refused(TypeError, "two names", backup=DiskBackend("x"), backend=DiskBackend("y"))
    refused(ValueError, "skip_args", skip_args=-1)
    refused(TypeError, "key is a function", key=1)
    refused(ValueError, "maxsize", maxsize=-1)
    refused(TypeError, "^ttl is a number of seconds", ttl="soon")
    with pytest.raises(TypeError, match="decorated"):
        AgentCache("r")(1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="on_loop"):
        AgentCacheSession(on_loop="explode")
    with pytest.raises(ValueError, match="max_tool_repeats"):
        AgentCacheSession(max_tool_repeats=0)
    with pytest.raises(TypeError, match="session_id"):
        AgentCacheSession(7)  # type: ignore[arg-type]


def test_one_decorator_with_a_backup_is_for_one_tool(path: Path) -> None:
    decorator = AgentCache(resource="r", backup=DiskBackend(path))

    async def one() -> None: ...

    decorator(one)
    with pytest.raises(ValueError, match="a file of its own"):
        decorator(one)


# AgentCacheInvalidator


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


# Loop detection


def detecting(**options: Any) -> AgentCacheSession:
    return AgentCacheSession(loop_detection=True, **options)


def test_the_sixth_identical_call_is_the_alarm_and_does_not_run(run: Run) -> None:
    async def main() -> None:
        for tool in (Tool(), Tool(scope="session"), Tool(maxsize=0), Tool(key=lambda argument: argument)):
            tool.result = "same"
            async with detecting() as session:
                for _ in range(5):
                    assert await tool(1) == "same"
                made = len(tool.calls)
                with pytest.raises(AgentLoopDetectedError) as caught:
                    await tool(1)
                assert len(tool.calls) == made
                assert session.get_metrics()["loop_detections"] == 1
                assert tool.tool.get_metrics()["loop_detections"] == 1
                error = caught.value
                assert (error.kind, error.tool, error.arguments) == ("repeat", "tool", {"argument": 1})
                assert (error.count, error.limit) == (6, 5)
                assert error.cycle == [{"tool": "tool", "arguments": {"argument": 1}}]
                assert error.session_id == session.session_id
                await tool(2)
                await tool(1)

    run(main())


def test_without_loop_detection_or_a_session_nothing_is_watched(run: Run) -> None:
    tool = Tool()

    async def main() -> None:
        for _ in range(100):
            await tool(1)
        async with AgentCacheSession() as session:
            for _ in range(100):
                await tool(1)
        assert session.get_metrics()["loop_detections"] == 0

    run(main())


def test_a_b_a_b_is_the_alarm_after_three_rounds(run: Run) -> None:
    one, other = Tool(), Tool(scope="session")

    async def main() -> None:
        async with detecting():
            for _ in range(3):
                await one("a")
                await other("b", option=[1])
            with pytest.raises(AgentLoopDetectedError) as caught:
                await one("a")
        error = caught.value
        assert (error.kind, error.count, error.limit) == ("oscillation", 3, 3)
        assert error.cycle == [
            {"tool": "tool", "arguments": {"argument": "a"}},
            {"tool": "tool", "arguments": {"argument": "b", "option": [1]}},
        ]
        assert json.loads(error.to_json())["cycle"] == error.cycle

    run(main())


def test_a_cycle_of_three_is_the_alarm_after_three_rounds(run: Run) -> None:
    tool = Tool()

    async def main() -> None:
        async with detecting():
            for call in range(9):
                await tool(call % 3)
            error = await outcome(tool(0))
            assert isinstance(error, AgentLoopDetectedError)
            assert [one["arguments"]["argument"] for one in error.cycle] == [0, 1, 2]

    run(main())


def test_the_fifty_first_nested_call_is_the_alarm(run: Run) -> None:
    deepest = []

    @AgentCache(resource="nested", maxsize=None)
    async def nested(level: int) -> Any:
        deepest.append(level)
        return await nested(level + 1)

    async def main() -> None:
        async with detecting():
            error = await outcome(nested(1))
            assert isinstance(error, AgentLoopDetectedError)
            assert (error.kind, error.count, error.limit, error.arguments) == ("depth", 51, 50, {"level": 51})
            assert max(deepest) == 50

    run(main())


def test_depth_is_that_of_the_calls_and_not_their_number(run: Run) -> None:
    @AgentCache(resource="tree", scope="session")
    async def walk(node: int) -> int:
        if node >= 256:
            return 1
        return sum(await asyncio.gather(walk(2 * node), walk(2 * node + 1)))

    async def main() -> None:
        async with detecting(max_execution_depth=9):
            assert await walk(1) == 256
        async with detecting(max_execution_depth=8):
            assert isinstance(await outcome(walk(1)), AgentLoopDetectedError)

    run(main())


def test_another_result_is_progress_unless_results_are_not_considered(run: Run) -> None:
    polled = Tool(maxsize=0)

    async def main() -> None:
        async with detecting():
            for _ in range(30):
                await polled(1)
        async with detecting(consider_results=False):
            for _ in range(5):
                await polled(1)
            assert isinstance(await outcome(polled(1)), AgentLoopDetectedError)

    run(main())


@pytest.mark.parametrize(
    ("results", "are_the_same"),
    [
        ([{"a": [1, 2.0]}, {"a": [1, 2.0]}], True),
        ([{"a": [1]}, {"a": [2]}], False),
        ([[1, 2], (1, 2)], True),
        ([{1, 2}, {2, 1}], True),
        ([object(), object()], False),
        (["status: " + "x" * 10_000, "status: " + "x" * 10_000], True),
    ],
    ids=["equal", "unequal", "as arguments are compared", "sets", "objects that show nothing", "long"],
)
def test_results_are_compared_by_value(run: Run, results: list[Any], are_the_same: bool) -> None:
    answers: list[Any] = []

    @AgentCache(resource="polled", maxsize=0)
    async def poll() -> Any:
        answers.append(results[len(answers) % 2])
        return answers[-1]

    async def main() -> None:
        async with detecting():
            for _ in range(5):
                await poll()
            assert isinstance(await outcome(poll()), AgentLoopDetectedError) == are_the_same

    run(main())


def test_a_result_whose_comparison_raises_is_progress_and_what_it_does_is_harmless(run: Run) -> None:
    class Odd:
        __slots__ = ()

        def __repr__(self) -> str:
            for tool in registry.tools("odd"):
                tool.clear_cache()
            raise OSError("no repr")

    @AgentCache(resource="odd", maxsize=0)
    async def odd() -> Odd:
        return Odd()

    async def main() -> None:
        async with detecting():
            for _ in range(20):
                await odd()

    run(main())


def test_a_hit_that_is_reloaded_meanwhile_is_compared_and_returned(run: Run) -> None:
    tool = Tool()

    async def main() -> None:
        async with detecting():
            for _ in range(12):
                await tool(1)
                await tool(1)
                tool.tool.invalidate_cache(1)

    run(main())
    assert tool.tool.get_metrics()["hits"] == 12


def test_a_call_that_keeps_failing_is_the_alarm(run: Run) -> None:
    @AgentCache(resource="failing")
    async def failing(argument: int) -> None:
        raise (KeyError if argument < 100 else OSError)(argument)

    async def main() -> None:
        async with detecting():
            for _ in range(5):
                assert isinstance(await outcome(failing(1)), KeyError)
            assert isinstance(await outcome(failing(1)), AgentLoopDetectedError)
            assert isinstance(await outcome(failing(2)), KeyError)

    run(main())


def test_patterns_of_work_are_no_loops(run: Run) -> None:
    log = Tool(maxsize=0)
    page, read, edit = Tool(), Tool(resource="files"), Tool(maxsize=0)
    test = Tool(maxsize=0)
    test.result = "failed"

    async def main() -> None:
        async with detecting():
            for _ in range(40):
                await log("poll")
            for number in range(40):
                await page(number)
            for number in range(40):
                await read("the same")
                await page(number + 100)
            for number in range(40):
                await edit(number)
                await test("all")
            for number in range(4):
                for _ in range(5):
                    await page(f"retry {number}")

    run(main())


def test_warn_logs_and_goes_on(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    tool = Tool(maxsize=0)
    tool.result = "same"

    async def main() -> None:
        async with detecting(on_loop="warn", max_tool_repeats=2) as session:
            with caplog.at_level(logging.WARNING, "agent_cache"):
                for _ in range(4):
                    assert await tool(1) == "same"
            assert session.get_metrics()["loop_detections"] == 2

    run(main())
    assert len(tool.calls) == 4
    assert [record.name for record in caplog.records] == ["agent_cache"] * 2
    assert "tool(argument=1) would be the same call 3 times" in caplog.text


def test_short_circuit_returns_what_is_cached_or_none_without_running_the_tool(run: Run) -> None:
    cached, uncached = Tool(), Tool(maxsize=0)
    own = Tool(scope="session")
    uncached.result = "same"

    async def main() -> None:
        async with detecting(on_loop="short_circuit") as session:
            for tool in (cached, own):
                assert [await tool(1) for _ in range(9)] == ["1 1"] * 9
            assert [await uncached(1) for _ in range(7)] == ["same"] * 5 + [None] * 2
            assert session.get_metrics()["loop_detections"] == 10
        assert len(uncached.calls) == 5

    run(main())


def test_a_session_inside_keeps_the_guard_unless_it_has_its_own(run: Run) -> None:
    tool = Tool(scope="session")
    tool.result = "same"

    async def main() -> None:
        async with detecting(max_tool_repeats=2) as outer:
            async with AgentCacheSession() as inner:
                await tool(1)
                await tool(1)
                assert isinstance(await outcome(tool(1)), AgentLoopDetectedError)
                assert inner.get_metrics()["loop_detections"] == 0
            assert outer.get_metrics()["loop_detections"] == 1
            async with detecting(max_tool_repeats=7):
                for _ in range(7):
                    await tool(1)
                assert isinstance(await outcome(tool(1)), AgentLoopDetectedError)

    run(main())


def test_calls_inside_of_a_tool_are_compared_with_their_siblings_only(run: Run) -> None:
    inside = Tool(maxsize=0)
    inside.result = "same"

    @AgentCache(resource="outside")
    async def outside(argument: int) -> Any:
        return [await inside(1), await inside(1)]

    @AgentCache(resource="looping")
    async def looping() -> None:
        for _ in range(6):
            await inside(1)

    async def main() -> None:
        async with detecting():
            for argument in range(20):
                await outside(argument)
            error = await outcome(looping())
            assert isinstance(error, AgentLoopDetectedError)
            assert error.kind == "repeat"

    run(main())


def test_concurrent_branches_with_one_id_are_watched_apart(run: Run) -> None:
    tool = Tool()

    async def branch(number: int) -> None:
        async with AgentCacheSession("one", loop_detection=True):
            for call in range(5):
                await tool("the same")
                await asyncio.sleep(0)
                if call % 2:
                    await tool(number)

    async def main() -> None:
        await asyncio.gather(*(branch(number) for number in range(5)))

    run(main())


def test_the_error_is_of_the_caches_tree_and_survives_pickling() -> None:
    call = {"tool": "f", "arguments": {"x": float("nan"), "y": {1: object}, "z": (1, [None])}}
    error = AgentLoopDetectedError("repeat", "f", call["arguments"], 6, 5, [call], "s")  # type: ignore[arg-type]
    assert isinstance(error, CacheError)
    assert isinstance(error, RuntimeError)
    data = json.loads(error.to_json())
    assert data["arguments"] == {"x": "nan", "y": {"1": "<class 'object'>"}, "z": [1, [None]]}
    assert set(data) == {
        "error", "kind", "tool", "arguments", "count", "limit", "cycle", "session_id", "message",
    }  # fmt: skip
    again = pickle.loads(pickle.dumps(AgentLoopDetectedError("depth", "f", {"x": 1}, 51, 50, [], "s")))
    assert (str(again), again.count) == (
        "loop detected (depth): f(x=1) would be 51 calls of tools deep (limit 50); "
        "call fewer tools from within tools",
        51,
    )


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
