"""Code of one session that ended up in the frame of another, or in its errors. Each test is a
former bug.
"""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from loops import Run, outcome, task, turns

from agent_cache import AgentCache, AgentCacheSession, AgentLoopDetectedError
from agent_cache._registry import active_session


def _session_id() -> str | None:
    session = active_session()
    return None if session is None else session.session_id


def test_a_tool_that_the_collector_closes_leaves_others_in_their_session(run: Run) -> None:
    """The collector closes a suspended tool in any task; the tool then set its own frame there."""
    lost: list[Any] = []

    @AgentCache("numbers", scope="session")
    async def tool() -> int:
        await asyncio.get_running_loop().create_future()
        return 1

    async def strays() -> None:
        async with AgentCacheSession("A"):
            call = tool()
            call.send(None)
            lost.append(call)

    async def main() -> None:
        await asyncio.create_task(strays())
        async with AgentCacheSession("B"):
            lost.clear()
            gc.collect()
            await turns()
            gc.collect()
            assert _session_id() == "B"
        assert _session_id() is None

    run(main())


@pytest.mark.parametrize("limits", [{"max_execution_depth": 1}, {"max_tool_repeats": 1}])
def test_what_is_short_circuited_inside_of_a_tool_is_not_cached_as_its_result(run: Run, limits: Any) -> None:
    """The outer tool computed with the invented ``None``, and its result was served to all
    callers.
    """

    @AgentCache("inner")
    async def inner(n: int) -> str:
        raise ValueError("it is asked for again and again")

    @AgentCache("outer")
    async def outer() -> str:
        for _ in range(3):
            error = await outcome(inner(1))
            if isinstance(error, AgentLoopDetectedError):
                raise error
            assert error is not None
        return "summary"

    async def main() -> None:
        async with AgentCacheSession("A", loop_detection=True, on_loop="short_circuit", **limits):
            assert isinstance(await outcome(outer()), AgentLoopDetectedError)
        assert await outer() == "summary"

    run(main())


def test_a_cached_none_short_circuits_inside_of_a_tool_as_outside(run: Run) -> None:
    """The ``None`` was treated as missing; for a missing result a tool inside a tool gets the
    alarm.
    """

    @AgentCache("log")
    async def log(message: str) -> str | None:
        return None

    @AgentCache("outer", maxsize=0)
    async def outer() -> str:
        for _ in range(8):
            assert await log("x") is None
        return "done"

    async def main() -> None:
        async with AgentCacheSession(loop_detection=True, on_loop="short_circuit"):
            assert await outer() == "done"

    run(main())


def test_who_waits_for_a_call_does_not_get_the_loop_of_who_made_it(run: Run) -> None:
    """A load runs under the guard of the session that began it. Its alarm also went to callers of
    other sessions.
    """
    go = asyncio.Event()

    @AgentCache("inner")
    async def inner() -> str:
        return "inner"

    @AgentCache("outer")
    async def outer() -> Any:
        await go.wait()
        return await inner()

    async def in_session(session: AgentCacheSession) -> Any:
        async with session:
            return await outcome(outer())

    async def main() -> None:
        strict = task(in_session(AgentCacheSession("A", loop_detection=True, max_execution_depth=1)))
        await turns()
        others = [task(in_session(AgentCacheSession("B"))), task(outcome(outer()))]
        await turns()
        go.set()
        assert isinstance(await strict, AgentLoopDetectedError)
        assert [await one for one in others] == ["inner", "inner"]

    run(main())


def test_sessions_may_be_left_in_any_order(run: Run) -> None:
    """Code that left the outer session first stayed in it for ever, though the session had
    ended.
    """

    async def main() -> None:
        first, second, around = AgentCacheSession("A"), AgentCacheSession("B"), AgentCacheSession("O")
        async with around:
            await first.__aenter__()
            await second.__aenter__()
            await first.__aexit__(None, None, None)
            assert _session_id() == "B"
            await second.__aexit__(None, None, None)
            assert _session_id() == "O"
        assert _session_id() is None
        with pytest.raises(RuntimeError, match="was left already"):
            await first.__aexit__(None, None, None)

    run(main())


def test_what_was_asked_in_a_session_is_gone_with_it_whatever_tasks_live_on(run: Run) -> None:
    """The history of calls, with arguments and results, lived as long as any task made in the
    session.
    """

    class Result:
        pass

    @AgentCache("results", scope="session")
    async def tool() -> Result:
        return Result()

    async def main() -> None:
        gate = asyncio.Event()
        async with AgentCacheSession("A", loop_detection=True):
            await tool()
            lives_on = task(gate.wait())
            await turns()
        await turns()
        gc.collect()
        assert not [one for one in gc.get_objects() if isinstance(one, Result)]
        gate.set()
        await lives_on

    run(main())


def test_sessions_that_are_entered_one_out_of_another_for_ever_do_not_pile_up(run: Run) -> None:
    """After a frame was left, it still held the surrounding frame, which held the frame before.
    Dropping a long chain of frames overflowed the stack.
    """

    async def main() -> None:
        end = asyncio.get_running_loop().create_future()

        async def turn(left: int) -> None:
            async with AgentCacheSession():
                if left:
                    task(turn(left - 1))
                else:
                    gc.collect()
                    end.set_result(sum(type(one).__name__ == "AgentFrame" for one in gc.get_objects()))

        task(turn(100))
        assert await end < 10

    run(main())


@pytest.mark.parametrize("numbers", [(-1, -2), (-1.0, -2.0)])
def test_calls_with_minus_one_and_minus_two_are_two_calls(run: Run, numbers: tuple[float, float]) -> None:
    """Python gives both the same hash, so the second call was treated as a repetition of the
    first.
    """
    calls: list[float] = []

    @AgentCache("lines", scope="session")
    async def last_lines(n: float) -> str:
        calls.append(n)
        return "same"

    async def main() -> None:
        async with AgentCacheSession("A", loop_detection=True, max_tool_repeats=1):
            for number in numbers:
                assert await last_lines(number) == "same"
        assert calls == list(numbers)

    run(main())
