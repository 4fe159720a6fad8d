"""Comparisons that fail."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from own_equality import (
    _odd,
    _raise,
    cached,
    run,
    shares,
)

from cache import _native


class Array:
    """The result of a comparison in numpy."""

    def __bool__(self) -> bool:
        raise ValueError("the truth value of an array is ambiguous")


@pytest.mark.parametrize(
    "odd",
    [
        _odd(lambda a, b: _raise(ValueError())),
        _odd(lambda a, b: True, lambda a: _raise(TypeError())),
        _odd(lambda a, b: True, lambda a: "no number"),
        _odd(lambda a, b: Array()),
        _odd(lambda a, b: NotImplemented),
        _odd(lambda a, b: a is b),
        _odd(lambda a, b: False),
        _odd(lambda a, b: a == b),
    ],
    ids=["eq", "hash", "no hash", "array", "not implemented", "identity", "never", "endless"],
)
def test_a_comparison_that_goes_wrong_leaves_all_that_the_object_holds(odd: Any) -> None:
    assert shares(odd(1), odd(1))
    assert not shares(odd(1), odd(2))


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, asyncio.CancelledError, MemoryError])
def test_an_interrupt_in_a_comparison_reaches_the_caller(error: type[BaseException]) -> None:
    for odd in (_odd(lambda a, b: _raise(error())), _odd(lambda a, b: True, lambda a: _raise(error()))):
        with pytest.raises(error):
            _native._encode_by_value(odd(1))


def test_a_comparison_may_use_the_cache() -> None:
    read, loads = cached()
    depth = 0

    def again(one: Any, other: Any) -> bool:
        nonlocal depth
        if depth < 2:
            depth += 1
            read.invalidate_cache(one)
            read.invalidate_cache(other)
            depth -= 1
        return isinstance(other, odd) and one.content % 10 == other.content % 10

    odd = _odd(again)

    async def calls() -> list[int]:
        return [await read(odd(1)), await read(odd(2)), await read(odd(11))]

    first, second, third = run(calls())
    assert first != second
    assert len(loads) in (2, 3)
    assert (third == first) == (len(loads) == 2)


def test_two_threads_that_make_the_same_twin_get_one() -> None:
    together = threading.Barrier(2, timeout=20)
    waits = threading.local()

    def eq(one: Any, other: Any) -> bool:
        # The first comparison of each thread compares its object with the object's own snapshot.
        if not getattr(waits, "is_over", False):
            waits.is_over = True
            together.wait()
        return bool(one.content == other.content)

    odd = _odd(eq)
    found: list[Any] = []

    def look() -> None:
        found.append(_native._encode_by_value(odd(1)))

    threads = [threading.Thread(target=look, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(found) == 2
    assert found[0][0] == found[1][0]
    assert found[0][1][0] is found[1][1][0]
