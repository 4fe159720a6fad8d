"""Objects of classes that write their own `__eq__` and `__hash__`, as arguments.

The bug's story: two objects that were equal by their class, but differed in a counter, a cache or a
lock, were two calls, and an invalidation with the first did not reach the second. Now a class whose
`__eq__` only compares attributes is represented by the compared attributes, in files too; another
class is asked, in memory only.

The worst possible fault: an object changed after a call gets the result loaded for its former
value.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import gc
import os
import threading
import types
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import httpx
import packaging.version
import programs
import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.datastructures import URL
from stores import MemoryBackend

from agent_cache import AgentCache, AgentCacheInvalidator
from cache import AsyncLRU, AsyncLRUInvalidator, AsyncTTL, DiskBackend, _equality, _native
from cache import key as key_module
from cache.errors import CacheWarning


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


# Proven comparisons.


def _with(eq: Any, **space: Any) -> Any:
    return type("Made", (), {"__eq__": eq, "__hash__": lambda self: 1, **space})


def _same_class(a: Any, b: Any) -> Any:
    return a.__class__ is b.__class__ and a.x == b.x


def _types(a: Any, b: Any) -> Any:
    return type(a) is type(b) and a.x == b.x and a.y == b.y


def _early(a: Any, b: Any) -> Any:
    if a is b:
        return True
    if b is None or not isinstance(b, type(a)):
        return NotImplemented
    if a.x != b.x:
        return False
    return not (a.y != b.y)  # noqa: SIM202


def _tuples(a: Any, b: Any) -> Any:
    return (a.x, (a.y, a.z)) == (b.x, (b.y, b.z))


def _any(a: Any, b: Any) -> Any:
    return a.x == b.x or a.y == b.y


def _crossed(a: Any, b: Any) -> Any:
    return a.x == b.y


def _identical(a: Any, b: Any) -> Any:
    return a.x is b.x


def _none_first(a: Any, b: Any) -> Any:
    return a.x is None or a.x == b.x


def _constant(a: Any, b: Any) -> Any:
    return a.x == b.x and a.y == 5


def _truth(a: Any, b: Any) -> Any:
    return a.x and a.x == b.x


def _deeper(a: Any, b: Any) -> Any:
    return a.x.y == b.x.y


def _inverted(a: Any, b: Any) -> Any:
    return (a.x, a.y) != (b.x, b.y)


def _both_or_neither(a: Any, b: Any) -> Any:
    return (a.x == b.x) == (a.y == b.y)


def _called(a: Any, b: Any) -> Any:
    return a.key() == b.key()


def _length(a: Any, b: Any) -> Any:
    return len(a.x) == len(b.x)


def _sum(a: Any, b: Any) -> Any:
    return a.x + a.y == b.x + b.y


def _guarded(a: Any, b: Any) -> Any:
    try:
        return a.x == b.x
    except AttributeError:
        return False


def _whole(a: Any, b: Any) -> Any:
    return a.__dict__ == b.__dict__


def _whole_vars(a: Any, b: Any) -> Any:
    return type(a) == type(b) and vars(a) == vars(b)  # noqa: E721


def _nothing(a: Any, b: Any) -> Any:
    return isinstance(b, a.__class__)


def _less(a: Any, b: Any) -> Any:
    return a.x <= b.x


def test_what_is_proven_of_a_comparison() -> None:
    proven = [
        (_same_class, ("x",)),
        (_types, ("x", "y")),
        (_early, ("x", "y")),
        (_tuples, ("x", "y", "z")),
        (_nothing, ()),
    ]
    for eq, names in proven:
        assert _equality.of(_with(eq)) == (names, None), eq
    for eq in (_whole, _whole_vars):
        assert _equality.of(_with(eq)) is None, eq
    in_doubt = [
        *(_any, _crossed, _identical, _none_first, _constant, _truth, _deeper, _inverted, _both_or_neither),
        *(_called, _length, _sum, _guarded, _less),
    ]
    for eq in in_doubt:
        assert _equality.of(_with(eq)) == (None, None), eq
    # An attribute that is not data proves nothing.
    for attribute in (property(lambda self: 1), functools.cached_property(lambda self: 1), len):
        assert _equality.of(_with(_same_class, x=attribute)) in ((None, None), (("x",), None))
    assert _equality.of(_with(_same_class, x=property(lambda self: 1))) == (None, None)
    assert _equality.of(_with(_same_class, x=functools.cached_property(lambda self: 1))) == (None, None)
    assert _equality.of(_with(_same_class, x=5)) == (("x",), None)


def test_names_that_pass_for_builtins_prove_nothing() -> None:
    def eq(a: Any, b: Any) -> Any:
        return isinstance(b, object) and a.x == b.x  # type: ignore[attr-defined]

    fake = types.FunctionType(eq.__code__, {"isinstance": lambda *_: False, "object": object})
    assert _equality.of(_with(fake)) == (None, None)
    assert _equality.of(_with(eq)) == (("x",), None)


def test_data_of_the_class_is_what_an_object_without_its_own_is_compared_by() -> None:
    cls = _with(_same_class, x=5)
    one, other, third = (cls() for _ in range(3))
    other.x, third.x = 5, 6
    assert one == other
    assert shares(one, other)
    assert not shares(one, third)


def test_an_object_that_lacks_a_compared_attribute_is_known_by_all_it_holds() -> None:
    cls = _with(_same_class)
    one, other = (cls() for _ in range(2))
    one.y, other.y = 1, 2
    assert not shares(one, other)
    assert shares(one, one)


# Failing comparisons.


class Array:
    """The result of a comparison in numpy."""

    def __bool__(self) -> bool:
        raise ValueError("the truth value of an array is ambiguous")


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


# The reach of invalidations.


@EQUAL
def test_an_invalidation_with_an_equal_object_reaches_the_entry(one: Any, other: Any) -> None:
    read, loads = cached()

    @AsyncLRUInvalidator(read)
    async def write(value: Any) -> None:
        pass

    async def calls() -> None:
        assert await read(one) == 1
        read.invalidate_cache(other)
        assert await read(one) == 2
        await write(other)
        assert await read(one) == 3

    run(calls())


def test_the_object_of_a_method_is_known_by_its_equality() -> None:
    loads: list[Any] = []

    class Service(Spelling):
        @AsyncTTL(time_to_live=None)
        async def read(self, number: int) -> int:
            loads.append(self)
            return len(loads)

        @AsyncLRU(per_instance=True)
        async def own(self, number: int) -> int:
            loads.append(self)
            return len(loads)

    one, other = Service("a"), Service("A")

    async def calls() -> None:
        assert await one.read(1) == await other.read(1) == 1
        other.read.invalidate_cache(1)
        assert await one.read(1) == 2
        # By identity, whatever the class defines.
        assert await one.own(1) != await other.own(1)

    run(calls())


def test_tools_of_agents_know_objects_by_their_equality() -> None:
    loads: list[Any] = []

    @AgentCache(resource="spellings")
    async def read(value: Any) -> int:
        loads.append(value)
        return len(loads)

    @AgentCacheInvalidator(resource="spellings")
    async def write() -> None:
        pass

    async def calls() -> None:
        assert await read(Spelling("a")) == await read(Spelling("A")) == 1
        read.invalidate_cache(Spelling("A"))
        assert await read(Spelling("a")) == 2
        await write()
        assert await read(Spelling("A")) == 3

    run(calls())


def test_an_invalidation_fences_the_load_of_an_equal_object() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()
    loads = 0

    @AsyncLRU()
    async def read(value: Any) -> int:
        nonlocal loads
        loads += 1
        begun.set()
        await go_on.wait()
        return loads

    async def calls() -> None:
        first = asyncio.ensure_future(read(Spelling("a")))
        await begun.wait()
        read.invalidate_cache(Spelling("A"))
        go_on.set()
        await first
        assert await read(Spelling("a")) == 2

    run(calls())


# Objects kept alive.


class Part:
    pass


class Held:
    def __init__(self, name: str, part: Any = None) -> None:
        self.name, self.part = name, part

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Held) and self.name.lower() == other.name.lower()

    def __hash__(self) -> int:
        return hash(self.name.lower())


class Reader(Held):
    async def read(self, number: int) -> str:
        return str(self.name)


def test_a_twin_goes_with_the_entry() -> None:
    read, _ = cached()
    gc.collect()
    before = _native._count_twins()
    held = Held("a", Part())
    part = weakref.ref(held.part)
    own = weakref.ref(held)

    async def call(value: Any) -> int:
        return int(await read(value))

    run(call(held))
    assert _native._count_twins() == before + 1
    _.clear()
    del held
    gc.collect()
    # The object is gone; the snapshot lives as long as the entry.
    assert own() is None
    assert part() is not None
    read.invalidate_cache(Held("A"))
    gc.collect()
    assert part() is None
    assert _native._count_twins() == before


def test_a_twin_that_leads_to_its_own_cache_is_collected() -> None:
    class Owner:
        def __init__(self) -> None:
            self.read, self.loads = cached()
            self.held = Held("a", self)

    owner = Owner()
    gone = weakref.ref(owner)
    before = _native._count_twins()

    async def call() -> None:
        await owner.read(owner.held)

    run(call())
    del owner
    gc.collect()
    assert gone() is None
    assert _native._count_twins() <= before


def test_nothing_grows_over_many_objects() -> None:
    read, loads = cached(maxsize=10)
    gc.collect()
    before = _native._count_twins()

    async def calls() -> None:
        for number in range(10_000):
            await read(Held(f"a{number}"))
            loads.clear()

    run(calls())
    gc.collect()
    assert _native._count_twins() - before <= 10
    read.clear_cache()
    gc.collect()
    assert _native._count_twins() == before


def test_classes_are_not_kept_alive() -> None:
    odd = _odd(lambda a, b: bool(a.content == b.content))
    gone = weakref.ref(odd)
    assert shares(odd(1), odd(1))
    del odd
    gc.collect()
    assert gone() is None


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
