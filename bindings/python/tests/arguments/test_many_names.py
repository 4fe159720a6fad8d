"""Arguments that hold very many classes and functions, each represented by its name.

The story: to find out whether a name had already occurred in an argument, all earlier names were
compared, so an argument with twenty thousand functions took two hundred million comparisons for
each key. Now the names are hashed if there are more than a few; these tests check that their number
changes nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from loops import Run

from cache import AsyncLRU


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module with functions f0, f1, ... that can be found by their names."""
    made = ModuleType("many_names")
    exec("\n".join(f"def f{number}(): pass" for number in range(20_000)), made.__dict__)
    monkeypatch.setitem(sys.modules, "many_names", made)
    yield made


def functions(module: ModuleType, count: int) -> list[Any]:
    return [getattr(module, f"f{number}") for number in range(count)]


@pytest.mark.parametrize("count", [1, 15, 16, 17, 18, 40, 20_000])
def test_one_function_among_many_tells_arguments_apart(run: Run, module: ModuleType, count: int) -> None:
    async def main() -> None:
        @AsyncLRU(maxsize=None)
        async def called(given: list[Any]) -> object:
            return object()

        first = await called(functions(module, count))
        assert await called(functions(module, count)) is first
        for other in {0, count // 2, count - 1}:
            given = functions(module, count)
            given[other] = print
            assert await called(given) is not first
        assert await called(functions(module, count)) is first

    run(main())


@pytest.mark.parametrize("count", [1, 15, 16, 17, 18, 40, 20_000])
def test_a_name_that_leads_to_another_function_now_is_another_argument(
    run: Run, module: ModuleType, count: int
) -> None:
    """From then on the former function is represented by identity, even beside the function that
    has its name.
    """

    async def main() -> None:
        @AsyncLRU(maxsize=None)
        async def called(given: list[Any]) -> object:
            return object()

        before = functions(module, count)
        first = await called(before)
        exec(f"def f{count - 1}(): return 1", module.__dict__)
        after = functions(module, count)
        second = await called(after)
        assert second is not first
        assert await called(after) is second
        both = [*after, before[-1]]
        third = await called(both)
        assert await called([*after, before[-1]]) is third
        assert await called([*after, after[-1]]) is not third

    run(main())
