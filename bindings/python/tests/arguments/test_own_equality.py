"""Objects of classes that write their own `__eq__` and `__hash__`, as arguments.

The bug's story: two objects that were equal by their class, but differed in a counter, a cache or a
lock, were two calls, and an invalidation with the first did not reach the second. Now a class whose
`__eq__` only compares attributes is represented by the compared attributes, in files too; another
class is asked, in memory only.

The worst possible fault: an object changed after a call gets the result loaded for its former
value.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from own_equality import (
    EQUAL,
    Id,
    Point,
    Slotted,
    Spelling,
    cached,
    run,
    shares,
)

from cache import _equality


@EQUAL
def test_equal_objects_are_one_call(one: Any, other: Any) -> None:
    assert one == other
    assert shares(one, other)
    assert shares(other, one)


@EQUAL
def test_equal_objects_inside_of_others_are_one_call(one: Any, other: Any) -> None:
    class Holder:
        def __init__(self, held: Any) -> None:
            self.held = held

    assert shares([one, {"a": (one,)}], [other, {"a": (other,)}])
    assert shares(Holder([one]), Holder([other]))
    assert shares({one: 1}, {other: 1})
    assert shares({one}, {other})
    deep: Any = (one,), (other,)
    for _ in range(100):
        deep = (deep[0],), (deep[1],)
    assert shares(*deep)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Id(1), Id(2)),
        (Spelling("a"), Spelling("b")),
        (Slotted("a"), Slotted("b")),
        (Point(1, 2), Point(2, 1)),
    ],
)
def test_unequal_objects_never_share(one: Any, other: Any) -> None:
    assert not shares(one, other)
    assert not shares([one], [other])


def test_equal_hashes_alone_do_not_make_objects_one_call() -> None:
    class Constant(Spelling):
        pass

    class Same:
        def __init__(self, text: str) -> None:
            self.text = text

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Same) and self.text.lower() == other.text.lower()

        def __hash__(self) -> int:
            return 7

    read, loads = cached()

    async def all_of_them() -> list[int]:
        return [await read(Same(text)) for text in ("a", "b", "c", "A", "B", "C")]

    assert run(all_of_them()) == [1, 2, 3, 1, 2, 3]
    assert len(loads) == 3
    assert not shares(Constant("a"), Spelling("a"))


def test_objects_of_two_classes_are_two_calls_though_they_are_equal() -> None:
    class Other(Id):
        pass

    assert Other(1) == Id(1)
    assert not shares(Other(1), Id(1))
    assert shares(Other(1), Other(1, seen=3))


class _Pattern:
    """Equals every object that it matches, but the matched objects do not equal it."""

    def __init__(self, name: str, length: int) -> None:
        self.name, self.length = name, length

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Pattern) and (self.name == "*" or self.name.lower() == other.name.lower())

    def __hash__(self) -> int:
        return 1


class _AtMost(_Pattern):
    def __eq__(self, other: object) -> bool:
        return isinstance(other, _AtMost) and self.length <= other.length

    def __hash__(self) -> int:
        return 1


@pytest.mark.parametrize("cls", [_Pattern, _AtMost])
def test_a_comparison_that_holds_in_one_direction_lets_no_object_speak_for_others(cls: Any) -> None:
    """All objects equal to a wildcard would have got its result."""
    objects = [cls("*", 1), cls("a", 2), cls("b", 3)]
    for one in objects:
        for other in objects:
            assert shares(one, other) == (one == other and other == one)
    read, loads = cached()

    async def all_in_order() -> None:
        for value in (*objects, *reversed(objects)):
            await read(value)

    run(all_in_order())
    assert loads == objects


def _changed(cls: Any, change: Callable[[Any], None]) -> tuple[int, int]:
    value = cls()
    read, _ = cached()

    async def before_and_after() -> Any:
        before = await read(value)
        assert await read(value) == before
        change(value)
        return before, await read(value)

    before, after = run(before_and_after())
    return before, after


def test_an_object_that_is_changed_in_place_is_another_call() -> None:
    class User:
        def __init__(self) -> None:
            self.name, self.tags, self.profile = "a", ["x"], {"city": "b"}

        def all_of_it(self) -> Any:
            return (self.name, self.tags, self.profile)

        def __eq__(self, other: object) -> bool:
            return isinstance(other, User) and self.all_of_it() == other.all_of_it()

        def __hash__(self) -> int:
            return id(self)

    def rename(user: Any) -> None:
        user.name = "other"

    def add(user: Any) -> None:
        # A snapshot shares the list.
        user.tags.append("y")

    def nested(user: Any) -> None:
        user.profile["city"] = "c"

    for change in (rename, add, nested):
        before, after = _changed(User, change)
        assert before != after, change


def test_an_object_known_by_fields_that_is_changed_in_place_is_another_call() -> None:
    class Tagged:
        def __init__(self) -> None:
            self.tags = ["x"]
            self.seen = 0

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Tagged) and self.tags == other.tags

        def __hash__(self) -> int:
            return id(self)

    before, after = _changed(Tagged, lambda tagged: tagged.tags.append("y"))
    assert before != after
    before, after = _changed(Tagged, lambda tagged: setattr(tagged, "seen", 1))
    assert before == after


def test_a_class_that_adds_state_below_the_comparison_is_known_by_all_it_holds() -> None:
    class Stored(Id):
        def __init__(self, number: int, tenant: str) -> None:
            super().__init__(number)
            self.lock = self.cache = None  # type: ignore[assignment]
            self.tenant = tenant

    class Annotated(Id):
        tenant: str

    class Mixin:
        def set_tenant(self, tenant: str) -> None:
            self.tenant = tenant

    class Mixed(Id, Mixin):
        pass

    class Slots(Slotted):
        __slots__ = ("tenant",)

    class Outside(Id):
        """Its attribute is visible at the object only."""

    def of(cls: type, tenant: str) -> Any:
        made: Any = object.__new__(cls)
        made.number, made.text, made.tenant = 1, "a", tenant
        return made

    for cls in (Annotated, Mixed, Outside, Stored):
        assert of(cls, "a") == of(cls, "b")
        assert not shares(of(cls, "a"), of(cls, "b")), cls
        assert shares(of(cls, "a"), of(cls, "a")), cls
    one, other = Slots("a"), Slots("a")
    one.tenant, other.tenant = "a", "b"  # type: ignore[attr-defined]
    assert not shares(one, other)


def test_fields_of_generated_classes_go_before_and_comparisons_written_by_hand_count() -> None:
    @dataclasses.dataclass(frozen=True)
    class Generated:
        number: int
        seen: int = dataclasses.field(default=0, compare=False)

    @dataclasses.dataclass(eq=False)
    class ByHand:
        number: int
        seen: int = 0

        def __eq__(self, other: object) -> bool:
            return isinstance(other, ByHand) and self.number == other.number

        def __hash__(self) -> int:
            return hash(self.number)

    @attrs.define(eq=False)
    class Attrs:
        number: int
        seen: int = 0

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Attrs) and self.number % 10 == other.number % 10

        def __hash__(self) -> int:
            return hash(self.number % 10)

    assert _equality.of(Generated) is None
    assert shares(Generated(1, 2), Generated(1, 3))
    assert shares(ByHand(1, 2), ByHand(1, 3))
    assert not shares(ByHand(1), ByHand(2))
    assert shares(Attrs(1, 2), Attrs(11, 3))
    assert not shares(Attrs(1), Attrs(2))


def test_classes_that_say_something_else_of_themselves_are_not_asked() -> None:
    def refuse(*_: Any) -> Any:
        raise AssertionError("it was asked")

    def made(name: str) -> Any:
        space = {"__eq__": lambda a, b: refuse(), "__hash__": lambda a: refuse(), name: refuse}
        if name == "__del__":
            space[name] = lambda _: None
        if name in ("__reduce__", "__getstate__"):
            space[name] = lambda _: (tuple, ())
        if name == "__reduce_ex__":
            space[name] = lambda *_: (tuple, ())
        if name == "__getattribute__":
            space[name] = object.__getattribute__
        cls = type("Odd", (), space)
        return cls()

    names = ("__del__", "__getattr__", "__getattribute__", "__reduce__", "__reduce_ex__", "__getstate__")
    for name in (*names, "__getnewargs__"):
        value = made(name)
        assert shares(value, value), name

    class Text(str):
        def __eq__(self, other: object) -> bool:
            raise AssertionError("it was asked")

        def __hash__(self) -> int:
            raise AssertionError("it was asked")

    assert shares(Text("a"), Text("a"))
