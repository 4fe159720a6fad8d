"""Tools of agents: the rows of the table in docs/agent.md about `AgentCache`."""

from __future__ import annotations

import asyncio
import gc
import inspect
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from agent_tools import Tool
from agent_tools import no_session_is_left_behind as no_session_is_left_behind
from loops import Load, Run, cancel, outcome, task, turns, until

from agent_cache import (
    AgentCache,
    AgentCacheSession,
)
from cache import DiskBackend, RecursiveLoadError

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
module_tool.__module__, module_tool.__qualname__ = __name__, "module_tool"


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
