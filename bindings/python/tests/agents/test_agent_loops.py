"""The detection of loops of agents: the rows of the table in docs/agent.md about it."""

from __future__ import annotations

import asyncio
import json
import logging
import pickle
from typing import Any

import pytest
from agent_tools import Tool
from agent_tools import no_session_is_left_behind as no_session_is_left_behind
from loops import Run, outcome

from agent_cache import (
    AgentCache,
    AgentCacheSession,
    AgentLoopDetectedError,
)
from agent_cache._registry import registry
from cache import CacheError


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
