"""Objects with their own `__eq__`: saved keys, well-known classes, and classes at random."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import packaging.version
import programs
import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from own_equality import (
    Held,
    Point,
    Spelling,
    _odd,
    _raise,
    cached,
    run,
    shares,
)
from starlette.datastructures import URL
from stores import MemoryBackend

from cache import AsyncLRU, DiskBackend, _native
from cache import key as key_module
from cache.errors import CacheWarning


class Reader(Held):
    async def read(self, number: int) -> str:
        return str(self.name)


# Saved keys.


def test_objects_known_by_fields_are_found_in_a_file(tmp_path: Path) -> None:
    program = """
        import asyncio, sys, warnings
        warnings.simplefilter("error")
        from cache import AsyncLRU, DiskBackend

        class Point:
            def __init__(self, x, y):
                self.x, self.y = x, y

            def __eq__(self, other):
                return isinstance(other, Point) and self.x == other.x and self.y == other.y

            def __hash__(self):
                return hash((self.x, self.y))

        class Id:
            def __init__(self, number, seen):
                self.number, self.seen = number, seen

            def __eq__(self, other):
                return isinstance(other, Id) and self.number == other.number

            def __hash__(self):
                return hash(self.number)

        @AsyncLRU(backup=DiskBackend(sys.argv[1]))
        async def read(value):
            return sys.argv[2]

        async def main():
            print(await read(Point(1, 2)), await read(Id(1, sys.argv[2])), await read(Point(1, int(sys.argv[2]))))

        asyncio.run(main())
        read.save_to_backup()
    """
    path = str(tmp_path / "points.cache")
    assert programs.run(program, path, "3").split() == ["3", "3", "3"]
    assert programs.run(program, path, "4").split() == ["3", "3", "4"]


def test_all_fields_are_encoded_as_without_a_comparison() -> None:
    # Otherwise files written by earlier versions would not be found.
    point = Point(1, 2)
    assert _native._encode_by_value(point) == _native._encode_by_value(point, by_content=True)


def test_objects_whose_class_is_asked_are_left_out_of_the_file_with_advice(tmp_path: Path) -> None:
    read, _ = cached(backup=DiskBackend(tmp_path / "a.cache"))

    async def calls() -> None:
        await read(Spelling("a"))
        await read(1)

    run(calls())
    with pytest.warns(CacheWarning) as told:
        read.save_to_backup()
    message = str(told[0].message)
    assert "1 entries were not saved" in message
    assert "cache.key.register(Spelling, function)" in message
    assert "tenant" in message


def test_a_backend_of_ones_own_is_told_the_same() -> None:
    backend = MemoryBackend()
    read, _ = cached(backup=backend)

    async def calls() -> None:
        await read([Spelling("a")])

    run(calls())
    with pytest.warns(CacheWarning, match=r"cache\.key\.register\(Spelling, function\)"):
        read.save_to_backup()


def test_what_is_registered_goes_before_a_comparison(tmp_path: Path) -> None:
    odd = _odd(lambda a, b: _raise(AssertionError("it was asked")))
    read, loads = cached()

    async def calls() -> None:
        key_module.register(odd, lambda value: value.content % 10)
        assert await read(odd(1)) == await read(odd(11))

    run(calls())
    assert len(loads) == 1


def test_a_bound_method_of_such_an_object_is_a_function_of_a_file(tmp_path: Path) -> None:
    # The file belongs to the function, whose name contains a digest of the object's whole content.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = AsyncLRU(backup=DiskBackend(tmp_path / "a.cache"))(Reader("a").read)

    async def call() -> str:
        return str(await read(1))

    assert run(call()) == "a"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_of_a_fork_goes_on_with_the_twins_of_its_parent() -> None:
    printed = programs.run(
        """
        import asyncio, os
        from cache import AsyncLRU, _native

        class Held:
            def __init__(self, name):
                self.name = name

            def __eq__(self, other):
                return isinstance(other, Held) and self.name.lower() == other.name.lower()

            def __hash__(self):
                return hash(self.name.lower())

        loads = 0

        @AsyncLRU()
        async def read(value):
            global loads
            loads += 1
            return loads

        async def call(*names):
            return [await read(Held(name)) for name in names]

        assert asyncio.run(call("a")) == [1]
        pid = os.fork()
        assert asyncio.run(call("A", "b", "B")) == [1, 2, 2]
        read.clear_cache()
        assert _native._count_twins() == 0
        if pid:
            _, status = os.waitpid(pid, 0)
            assert status == 0
            print("well")
        """
    )
    assert printed == "well\n"


# Well-known classes.


def test_values_of_libraries_are_compared_as_they_compare() -> None:
    version = packaging.version.Version
    assert shares(version("1.0"), version("1.0.0"))
    assert not shares(version("1.0"), version("1.0a1"))
    asked = URL("http://a/b")
    assert asked.hostname == "a"
    assert shares(asked, URL("http://a/b"))
    assert not shares(asked, URL("http://a/c"))
    assert shares(httpx.URL("http://a/b"), httpx.URL("HTTP://a/b"))
    assert not shares(httpx.URL("http://a:1/b"), httpx.URL("http://a/b"))
    for value in (version("1.0+x"), asked, httpx.URL("http://a"), pydantic.SecretStr("x")):
        assert _native._encode_by_value(value)[2], value


# Classes at random.

NAMES = ("a", "b", "c")


def _class_of(compared: frozenset[str], form: str) -> type:
    """A class that compares some of its attributes, in one of several forms."""
    names = sorted(compared)
    sides = [" and ".join([f"self.{name} == other.{name}" for name in names]) or "True"]
    if form == "tuple" and names:
        pair = [f"({' '.join(f'{side}.{name},' for name in names)})" for side in ("self", "other")]
        sides = [" == ".join(pair)]
    if form == "function":
        pair = [f"[{', '.join(f'{side}.{name}' for name in names)}]" for side in ("self", "other")]
        sides = [f"bool({' == '.join(pair)})"]
    if form == "modulo":
        sides = [" and ".join([f"self.{name} % 2 == other.{name} % 2" for name in names]) or "True"]
    source = (
        f"class Made:\n"
        f"    def __init__(self, a, b, c): self.a, self.b, self.c = a, b, c\n"
        f"    def __eq__(self, other): return isinstance(other, Made) and {sides[0]}\n"
        f"    def __hash__(self): return 1\n"
    )
    space: dict[str, Any] = {"__name__": "made"}
    exec(source, space)  # noqa: S102
    return space["Made"]  # type: ignore[no-any-return]


VALUES = st.integers(0, 3)


OBJECTS = st.tuples(VALUES, VALUES, VALUES)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.frozensets(st.sampled_from(NAMES)),
    st.sampled_from(["and", "tuple", "function", "modulo"]),
    st.lists(OBJECTS, min_size=2, max_size=6),
)
def test_two_calls_share_if_and_only_if_the_class_calls_their_objects_equal(
    compared: frozenset[str], form: str, contents: list[tuple[int, int, int]]
) -> None:
    cls = _class_of(compared, form)
    values = [cls(*content) for content in contents]
    read, _ = cached()

    async def all_of_them() -> list[int]:
        return [await read(value) for value in values]

    results = run(all_of_them())
    for one, first in zip(values, results, strict=True):
        for other, second in zip(values, results, strict=True):
            assert (one == other) == (first == second)


class Basket:
    """Asked, with a hash that does not depend on its content."""

    def __init__(self) -> None:
        self.name = "a"
        self.items: list[int] = []
        self.by_name: dict[str, list[int]] = {"x": []}

    def content(self) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
        return (self.name, tuple(sorted(self.items)), tuple(self.by_name["x"]))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Basket) and self.content() == other.content()

    def __hash__(self) -> int:
        return 1


CHANGES: list[Callable[[Basket], Any]] = [
    lambda basket: setattr(basket, "name", "b"),
    lambda basket: setattr(basket, "name", "a"),
    lambda basket: basket.items.append(1),
    lambda basket: basket.items.insert(0, 2),
    lambda basket: basket.items.clear(),
    lambda basket: setattr(basket, "items", [1]),
    lambda basket: basket.by_name["x"].append(1),
    lambda basket: setattr(basket, "by_name", {"x": []}),
]


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.integers(0, 1), st.sampled_from(range(len(CHANGES)))), max_size=20))
def test_objects_that_change_between_calls_get_what_was_loaded_for_what_they_are(
    steps: list[tuple[int, int]],
) -> None:
    baskets = [Basket(), Basket()]

    @AsyncLRU(maxsize=None)
    async def read(basket: Basket) -> Any:
        return basket.content()

    async def calls() -> None:
        for which, change in steps:
            CHANGES[change](baskets[which])
            for basket in baskets:
                assert await read(basket) == basket.content()

    run(calls())
