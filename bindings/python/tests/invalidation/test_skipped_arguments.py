"""An argument in `skip_args` is left out of the key in every way of passing it, so an invalidation
reaches the entry.

The story: ``skip_args=1`` left the first argument out of the key only if it was given by position.
Given by name, it was part of the key, so ``rows(session=session, table="users")`` was another entry
than ``rows(session, "users")``, and an invalidation without the session, or with another session,
did not remove it: the old rows were returned. For ``*args`` the skipped arguments were part of the
keys that an invalidation removed, but not of the keys made by calls.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from loops import Run
from signatures import all_calls, counted
from stores import MemoryBackend

from agent_cache import AgentCache
from agent_cache import AgentCacheSession as in_session
from cache import AsyncLRU, AsyncTTL, DiskBackend

DECORATORS: list[Any] = [AsyncLRU, AsyncTTL, functools.partial(AgentCache, "skipped")]


@pytest.mark.parametrize("decorator", DECORATORS)
def test_an_invalidation_reaches_every_way_to_give_a_skipped_argument(run: Run, decorator: Any) -> None:
    async def main() -> None:
        for source, skip in (("session, number, user=None", 1), ("session, tenant, number, user=None", 2)):
            function, _ = counted(source)
            values = {"session": "a session", "tenant": "a tenant", "number": 1}
            others = {**values, "session": "another session", "tenant": "another tenant"}
            calls = [*all_calls(function, values), *all_calls(function, others)]
            left_out: list[Any] = [((1,), {}), ((), {"number": 1}), ((1, None), {}), ((1,), {"user": None})]
            for args, kwargs in [*calls, *left_out]:
                read = decorator(skip_args=skip)(function)
                for a, k in calls:
                    await read(*a, **k)
                await read(*range(skip), 2)
                read.invalidate_cache(*args, **kwargs)
                assert read.get_metrics()["size"] == 1, f"{source}: {args} {kwargs}"

    run(main())


@pytest.mark.parametrize("decorator", DECORATORS)
def test_calls_share_a_result_if_they_differ_in_skipped_arguments_only(run: Run, decorator: Any) -> None:
    async def main() -> None:
        function, runs = counted("session, number, *, user=None")
        read = decorator(skip_args=1)(function)
        assert await read(number=1, session="a") == await read(session="b", number=1)
        assert len(runs) == 1
        assert await read("a", 1) == await read("b", 1) == await read("c", 1)
        await read("a", number=1)
        assert len(runs) == 2
        for call in (read("a", 2), read("a", 1, user=1), read(session="a", number=2)):
            await call
        assert len(runs) == 5, "what is not skipped tells calls apart"

    run(main())


def test_a_skipped_argument_that_takes_a_position_only_may_share_its_name_with_another(run: Run) -> None:
    async def main() -> None:
        function, runs = counted("session, /, **options")
        read = AsyncLRU(skip_args=1)(function)
        await read("a", session=1)
        await read("a", session=2)
        await read("b", session=2)
        assert len(runs) == 2, "the one by name is no parameter that is skipped"
        read.invalidate_cache("c", session=1)
        assert read.get_metrics()["size"] == 1

    run(main())


@pytest.mark.parametrize("source", ["*args", "session, *args", "session=None, *args"])
@pytest.mark.parametrize("skip", [1, 2, 3])
def test_skipped_arguments_of_a_star_may_be_given_to_an_invalidation_or_left_out(
    run: Run, source: str, skip: int
) -> None:
    async def main() -> None:
        function, _ = counted(source)
        for given in (("a", "b", "c")[:skip], ("x", "y", "z")[:skip], ()):
            read = AsyncLRU(skip_args=skip)(function)
            first = await read(*("a", "b", "c")[:skip], 1, 2)
            assert await read(*("d", "e", "f")[:skip], 1, 2) == first
            read.invalidate_cache(*given, 1, 2)
            assert read.get_metrics()["size"] == 0, given

    run(main())


@pytest.mark.parametrize("exclude", [frozenset(), frozenset({"user"})])
def test_skip_args_and_exclude_go_together(run: Run, exclude: frozenset[str]) -> None:
    async def main() -> None:
        function, runs = counted("session, number, user=None, *, verbose=False")
        read = AsyncLRU(skip_args=1, exclude=exclude | {"session", "verbose"})(function)
        values = {"session": "a", "number": 1, "user": "b", "verbose": True}
        for args, kwargs in all_calls(function, values):
            await read(*args, **kwargs)
        for args, kwargs in all_calls(function, {**values, "session": "c", "verbose": False}):
            before = len(runs)
            await read(*args, **kwargs)
            assert len(runs) == before, f"{args} {kwargs}"
        read.invalidate_cache(1, "b")
        assert read.get_metrics()["size"] == 0

    run(main())


def test_a_method_is_reached_by_its_object_and_without(run: Run) -> None:
    class Repository:
        @AsyncLRU(skip_args=1)
        async def row(self, number: int) -> object:
            return object()

    one, two = Repository(), Repository()

    async def main() -> None:
        forget: list[Callable[[], None]] = [
            lambda: Repository.row.invalidate_cache(7),
            lambda: Repository.row.invalidate_cache(one, 7),
            lambda: Repository.row.invalidate_cache(self=two, number=7),
            lambda: one.row.invalidate_cache(7),
        ]
        for invalidate in forget:
            ask: list[Callable[[], Awaitable[object]]] = [
                lambda: one.row(7),
                lambda: two.row(number=7),
                lambda: Repository.row(self=one, number=7),
            ]
            before = [await call() for call in ask]
            invalidate()
            after = [await call() for call in ask]
            assert all(new is not old for new in after for old in before)
            Repository.row.clear_cache()

    run(main())


def test_a_function_inside_of_one_that_takes_other_arguments_is_invalidated_whole(run: Run) -> None:
    """`functools.wraps` shows the inner parameters, but the outer function has a different first
    argument.
    """

    async def main() -> None:
        inner, _ = counted("session, number")

        @functools.wraps(inner)
        async def outer(number: int, *, session: str = "a") -> object:
            return object()

        read: Any = AsyncLRU(skip_args=1)(outer)
        one, two = await read(1, session="a"), await read(1, session="b")
        assert one is not two, "the name is not one of the skipped argument"
        read.invalidate_cache(1)
        assert read.get_metrics()["size"] == 0

        kept: Any = AsyncLRU(exclude={"session"})(outer)
        assert await kept(1) is not await kept(2), (
            "the position of `session` inside is that of `number` outside"
        )
        assert await kept(1) is await kept(1, session="b")
        kept.invalidate_cache(1)
        assert kept.get_metrics()["size"] == 1

    run(main())


def test_a_function_that_passes_everything_on_has_the_parameters_of_the_one_inside(run: Run) -> None:
    async def main() -> None:
        inner, runs = counted("session, number")

        @functools.wraps(inner)
        async def outer(*args: Any, **kwargs: Any) -> object:
            return await inner(*args, **kwargs)

        read = AsyncLRU(skip_args=1)(outer)
        await read(session="a", number=1)
        await read(session="b", number=1)
        assert len(runs) == 1
        read.invalidate_cache(1)
        assert read.get_metrics()["size"] == 0

    run(main())


def test_a_function_whose_signature_is_not_known_is_invalidated_whole(run: Run) -> None:
    async def main() -> None:
        function, _ = counted("session, number")

        class Odd:
            __signature__ = "no signature"

            async def __call__(self, session: str, number: int) -> object:
                return await function(session, number)

        odd = Odd()
        with pytest.raises((TypeError, ValueError)):
            inspect.signature(odd)
        read: Any = AsyncLRU(skip_args=1)(odd)
        assert await read(session="a", number=1) != await read(session="b", number=1)
        read.invalidate_cache(1)
        assert read.get_metrics()["size"] == 0

    run(main())


@pytest.mark.parametrize("has_disk", [True, False])
def test_skipped_arguments_are_not_in_backups(run: Run, path: Path, has_disk: bool) -> None:
    async def load(session: Any, number: int) -> int:
        return number

    async def main() -> None:
        backend: Any = DiskBackend(path) if has_disk else MemoryBackend()
        for _ in range(2):
            read: Any = AsyncLRU(skip_args=1, backup=backend)(load)
            assert await read(object(), 1) == 1
            assert await read(session=object(), number=1) == 1
            read.save_to_backup()
        assert read.get_metrics()["misses"] == 0
        read.invalidate_cache(1)
        assert read.get_metrics()["size"] == 0

    run(main())


def test_a_tool_within_a_session_leaves_a_skipped_argument_out_by_name(run: Run) -> None:
    async def main() -> None:
        function, runs = counted("client, question")
        tool = AgentCache("r", scope="session", skip_args=1)(function)
        async with in_session():
            await tool(client=object(), question="q")
            await tool(client=object(), question="q")
            assert len(runs) == 1
            tool.invalidate_cache("q")
            await tool(client=object(), question="q")
            assert len(runs) == 2

    run(main())


def test_each_argument_that_is_left_out_may_be_given_or_not(run: Run) -> None:
    """Only all or none of them were assumed to be given: ``(1, "b")`` was read as a session and a
    number.
    """

    async def main() -> None:
        function, _ = counted("session, number, user, text")
        for args in ((1, "t"), ("s", 1, "t"), (1, "u", "t"), ("s", 1, "u", "t")):
            read = AsyncLRU(exclude={"session", "user"})(function)
            await read("a", 1, "b", "t")
            await read("a", 5, "b", "t")
            read.invalidate_cache(*args)
            assert read.get_metrics()["size"] == 1, args

    run(main())


def test_with_very_many_arguments_left_out_all_results_go(run: Run) -> None:
    async def main() -> None:
        function, _ = counted(", ".join(f"a{at}" for at in range(40)) + ", number")
        for options in ({"skip_args": 40}, {"exclude": {f"a{at}" for at in range(40)}}):
            read = AsyncLRU(**options)(function)
            await read(*range(40), 1)
            await read(*range(40), 2)
            read.invalidate_cache(1)
            assert read.get_metrics()["size"] == 0

    run(main())
