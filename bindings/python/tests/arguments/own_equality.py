"""Classes with their own `__eq__`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from cache import AsyncLRU


def run(awaitable: Any) -> Any:
    async def limited() -> Any:
        return await asyncio.wait_for(awaitable, 30)

    return asyncio.run(limited())


def cached(**options: Any) -> tuple[Any, list[Any]]:
    """A cached function of one argument, and the arguments of its loads."""
    loads: list[Any] = []

    @AsyncLRU(**{"maxsize": None, **options})
    async def read(value: Any) -> int:
        loads.append(value)
        return len(loads)

    return read, loads


def shares(one: Any, other: Any) -> bool:
    read, _ = cached()

    async def both() -> bool:
        return bool(await read(one) == await read(other))

    return bool(run(both()))


class Id:
    """By fields: its comparison reads one attribute."""

    def __init__(self, number: int, seen: int = 0) -> None:
        self.number, self.seen = number, seen
        self.lock = threading.Lock()
        self.cache: dict[str, int] = {}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Id):
            return NotImplemented
        return self.number == other.number

    def __hash__(self) -> int:
        return hash(self.number)


class Spelling:
    """Asked: its comparison calls a function."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.asked = 0
        self.lock = threading.Lock()
        self._hash: int | None = None

    def key(self) -> str:
        self.asked += 1
        return self.text.casefold()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spelling) and self.key() == other.key()

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(self.key())
        return self._hash


class Slotted:
    __slots__ = ("_hash", "text")

    def __init__(self, text: str) -> None:
        self.text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Slotted) and self.text.lower() == other.text.lower()

    def __hash__(self) -> int:
        self._hash = hash(self.text.lower())
        return self._hash


class Point:
    def __init__(self, x: int, y: int) -> None:
        self.x, self.y = x, y

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and (self.x, self.y) == (other.x, other.y)

    def __hash__(self) -> int:
        return hash((self.x, self.y))


def _equal_pairs() -> list[tuple[Any, Any]]:
    counted, hashed = Id(1, seen=9), Spelling("A")
    counted.cache["x"] = 1
    hash(hashed)
    slotted = Slotted("a")
    hash(slotted)
    return [(Id(1), counted), (Spelling("a"), hashed), (Slotted("A"), slotted), (Point(1, 2), Point(1, 2))]


EQUAL = pytest.mark.parametrize(
    ("one", "other"), _equal_pairs(), ids=["fields", "asked", "asked slots", "all fields"]
)


def _odd(eq: Callable[[Any, Any], Any], hashed: Callable[[Any], Any] = lambda _: 1) -> Any:
    class Odd:
        def __init__(self, content: int) -> None:
            self.content = content

        def __eq__(self, other: object) -> Any:
            return eq(self, other)

        def __hash__(self) -> int:
            return hashed(self)  # type: ignore[no-any-return]

    return Odd


def _raise(error: BaseException) -> Any:
    raise error


class Held:
    def __init__(self, name: str, part: Any = None) -> None:
        self.name, self.part = name, part

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Held) and self.name.lower() == other.name.lower()

    def __hash__(self) -> int:
        return hash(self.name.lower())
