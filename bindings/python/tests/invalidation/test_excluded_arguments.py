"""Arguments that `exclude` leaves out of the key, by name."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from typing import Any

import pytest
from loops import Run
from signatures import all_calls, counted

from agent_cache import AgentCache
from agent_cache import AgentCacheSession as in_session
from cache import AsyncLRU, AsyncLRUInvalidator, AsyncTTL


def test_excluded_arguments_are_no_part_of_the_key_however_they_are_given(run: Run) -> None:
    async def main() -> None:
        function, runs = counted("session, number, user=None")
        for decorator in (AsyncLRU, AsyncTTL, functools.partial(AgentCache, "excluded")):
            runs.clear()
            read = decorator(exclude={"session"})(function)
            for call in (read(object(), 1), read(object(), 1)):
                await call
            assert len(runs) == 1
            for call in (read(session=1, number=1), read(number=1, session=2)):
                await call
            assert len(runs) == 2
            await read(5, 1, "somebody")
            await read(6, 1, user="somebody")
            assert len(runs) == 4
            await read(5, 1, "somebody else")
            await read(1, 5)
            assert len(runs) == 6, "what is not excluded tells calls apart"

    run(main())


@pytest.mark.parametrize("seed", range(20))
def test_calls_share_an_entry_if_and_only_if_they_differ_in_excluded_arguments(run: Run, seed: int) -> None:
    chosen = random.Random(seed)
    source = chosen.choice(
        ["a, b, c", "a, b=0, c=0", "a, /, b, c=0", "a, *, b=0, c=0", "a, b=0, *args, c=0", "a, b=0, c=0, **o"]
    )
    exclude = frozenset(chosen.sample("abc", chosen.choice([1, 2])))

    async def main() -> None:
        function, _ = counted(source)
        read = AsyncLRU(maxsize=None, exclude=exclude)(function)
        known: dict[Any, Any] = {}
        for _ in range(200):
            values = {name: chosen.randrange(3) for name in "abc"}
            args, kwargs = chosen.choice(list(all_calls(function, values)) or [((), {})])
            if not args and not kwargs:
                continue
            got = await read(*args, **kwargs)
            names = [n for n in function.__code__.co_varnames[: len(args)] if n in "abc"]
            positional = tuple(v for n, v in zip(names, args, strict=False) if n not in exclude)
            named = tuple(sorted((n, v) for n, v in kwargs.items() if n not in exclude))
            assert known.setdefault((positional, named), got) == got
        assert len(set(known.values())) == len(known)

    run(main())


@pytest.mark.parametrize("exclude", [{"session"}, {"session", "user"}])
def test_excluded_arguments_may_be_given_to_an_invalidation_or_left_out(run: Run, exclude: set[str]) -> None:
    async def main() -> None:
        function, _ = counted("session, number, user=None")
        values = {"session": "a session", "number": 1}
        for args, kwargs in [*all_calls(function, values), ((1,), {}), ((), {"number": 1})]:
            read = AsyncLRU(exclude=exclude)(function)
            for a, k in all_calls(function, values):
                await read(*a, **k)
            await read("a session", 2)
            read.invalidate_cache(*args, **kwargs)
            assert read.get_metrics()["size"] == 1, f"{args} {kwargs}"

    run(main())


def test_a_write_of_a_read_with_excluded_arguments_needs_the_others(run: Run) -> None:
    async def main() -> None:
        function, _ = counted("session, number")
        read = AsyncLRU(exclude={"session"})(function)
        writes: list[tuple[str, Callable[[Any], Any]]] = [
            ("session, number", lambda write: write("a session", 1)),
            ("number", lambda write: write(1)),
            ("id, text", lambda write: write(1, "new")),
            ("text, number", lambda write: write("new", number=1)),
        ]
        for source, call in writes:
            write = AsyncLRUInvalidator(read)(counted(source)[0])
            await read("s", 1)
            await read("s", number=1)
            await call(write)
            assert read.get_metrics()["size"] == 0, source
        with pytest.raises(TypeError, match="key_fn"):
            AsyncLRUInvalidator(read)(counted("*, text")[0])

    run(main())


def test_exclude_is_a_set_of_names_that_the_function_has() -> None:
    function, _ = counted("session, number, *args, **kwargs")
    for exclude, error, told in (
        ("session", TypeError, "set of names"),
        (5, TypeError, "set of names"),
        ({1}, TypeError, "int"),
        ({"sesion"}, ValueError, "'session', 'number'"),
        ({"args"}, ValueError, "args"),
    ):
        wrong: Any = exclude
        with pytest.raises(error, match=told):
            AsyncLRU(exclude=wrong)(function)
        with pytest.raises(error, match=told):
            AgentCache("r", exclude=wrong)(function)
    with pytest.raises(TypeError, match="key"):
        AgentCache("r", exclude={"session"}, key=lambda *args: args)


def test_exclude_holds_in_sessions_of_agents(run: Run) -> None:
    async def main() -> None:
        function, runs = counted("client, question")
        tool = AgentCache("r", scope="session", exclude={"client"})(function)
        async with in_session():
            await tool(object(), "q")
            await tool(object(), "q")
            assert len(runs) == 1
            tool.invalidate_cache("q")
            await tool(object(), "q")
            assert len(runs) == 2

    run(main())


def test_excluded_arguments_are_not_in_files(run: Run, path: Any) -> None:
    from cache import DiskBackend

    async def main() -> None:
        async def load(session: Any, number: int) -> int:
            return number

        for _ in range(2):
            read = AsyncLRU(exclude={"session"}, backup=DiskBackend(path))(load)
            misses = read.get_metrics()["misses"]
            assert await read(object(), 1) == 1
            assert await read(session=object(), number=1) == 1
            read.save_to_backup()
        assert read.get_metrics()["misses"] == misses == 0
        assert read.get_metrics()["hits"] == 2

    run(main())
