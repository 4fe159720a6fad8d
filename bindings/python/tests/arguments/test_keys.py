"""Keys by value: equal arguments, different arguments, and the functions of `cache.key`."""

from __future__ import annotations

import collections
import dataclasses
from typing import Any

import pytest
from key_classes import Colour, Point
from loops import Run
from naming import stable_name

from cache import AsyncLRU
from cache.key import KEY, _to_hashable, make_key

Size = collections.namedtuple("Size", "x y")


class Thing:
    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


class Slots:
    __slots__ = ("shown",)

    def __init__(self, shown: str) -> None:
        self.shown = shown

    def __repr__(self) -> str:
        return f"Slots({self.shown})"


@dataclasses.dataclass
class Order:
    number: int
    lines: list[str]


def same_name(marker: int) -> type:
    class Same:
        def __init__(self) -> None:
            self.marker = marker

    return Same


# cache.key


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([1, 2], (1, 2)),
        ([1, [2, 3]], (1, (2, 3))),
        ({"a": 1, "b": [2]}, {"b": [2], "a": 1}),
        ({1, 2, 3}, {3, 2, 1}),
        (frozenset({1, 2}), frozenset({2, 1})),
        (Thing(a=1, b=2), Thing(b=2, a=1)),
        (Order(1, ["a"]), Order(1, ["a"])),
        (Slots("a"), Slots("a")),
        (Point(1, 2), Point(1, 2)),
        (Colour.RED, Colour.RED),
        ({1: "a", "1": "b"}, {"1": "b", 1: "a"}),
        (1, 1.0),
        (True, 1),
    ],
    ids=stable_name,
)
def test_equal_by_value(run: Run, a: Any, b: Any) -> None:
    assert KEY((a,), {}) == KEY((b,), {})
    assert hash(KEY((a,), {})) == hash(KEY((b,), {}))
    assert hash(_to_hashable(a)) == hash(_to_hashable(b))
    assert calls_of(run, (a,), (b,)) == 1


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([1, 2], [2, 1]),
        ([[1], 2], [1, [2]]),
        ({"a": 1}, {"a": 2}),
        ({1, 2}, {1, 3}),
        (Thing(a=1), Thing(a=2)),
        (Order(1, ["a"]), Order(1, ["b"])),
        (Slots("a"), Slots("b")),
        (Point(1, 2), Size(1, 2)),
        (Point(1, 2), (1, 2)),
        (Colour.RED, Colour.BLUE),
        ("1", 1),
        (b"a", "a"),
        (None, 0),
        (None, "None"),
        ("", ()),
        (10**30, 10**30 + 1),
        (0.1, 0.2),
    ],
    ids=stable_name,
)
def test_different_by_value(run: Run, a: Any, b: Any) -> None:
    assert KEY((a,), {}) != KEY((b,), {})
    assert calls_of(run, (a,), (b,)) == 2


def test_two_classes_of_one_name_are_different_keys(run: Run) -> None:
    one, two = same_name(1), same_name(1)
    assert one.__qualname__ == two.__qualname__
    assert KEY((one(),), {}) != KEY((two(),), {})
    assert KEY((one(),), {}) == KEY((one(),), {})
    assert calls_of(run, (one(),), (two(),)) == 2
    assert calls_of(run, (one(),), (one(),)) == 1
    assert calls_of(run, (one,), (two,)) == 2


def test_key_keeps_no_use_cache_and_changes_no_argument() -> None:
    options = {"b": [1], "use_cache": False, "a": {"x": 1}}
    key = KEY(([1],), options)
    assert options == {"b": [1], "use_cache": False, "a": {"x": 1}}
    assert key == KEY(([1],), {"a": {"x": 1}, "b": [1]})
    assert "use_cache" not in repr(key)
    assert key != "another type"
    assert (key == "another type") is False


def test_make_key_tells_functions_and_skips_arguments() -> None:
    async def f() -> None: ...

    async def g() -> None: ...

    assert make_key(f, (1,), {"a": 1}) == make_key(f, (1,), {"a": 1, "use_cache": False})
    assert make_key(f, (1,), {}) != make_key(g, (1,), {})
    assert make_key(f, (1, 2), {}, 1) == make_key(f, (3, 2), {}, skip_args=1)
    assert make_key(f, (1, 2), {}) != make_key(f, (3, 2), {})
    assert f.__qualname__ in repr(make_key(f, (), {}))
    assert {make_key(f, ([1],), {"b": {}}): 1}[make_key(f, ([1],), {"b": {}})] == 1


def test_to_hashable_leaves_plain_values_as_they_are() -> None:
    for value in (1, 1.5, "a", b"a", None, True, 10**50):
        assert _to_hashable(value) is value
    assert _to_hashable([1, [2]]) == (1, (2,))


def calls_of(run: Run, *arguments: tuple[Any, ...]) -> int:
    """The number of loads for calls with these arguments, by position; by keyword the number is the
    same.
    """

    async def main() -> int:
        by_position, by_keyword = 0, 0

        @AsyncLRU()
        async def f(*args: Any) -> None:
            nonlocal by_position
            by_position += 1

        @AsyncLRU()
        async def g(**options: Any) -> None:
            nonlocal by_keyword
            by_keyword += 1

        for args in arguments:
            await f(*args)
            await g(args=args)
        assert by_position == by_keyword
        return by_position

    return run(main())
