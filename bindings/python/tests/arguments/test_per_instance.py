"""`per_instance=True`: the results of a method are kept for each object, by identity."""

from __future__ import annotations

import asyncio
import copy
import pickle
import sys
from collections.abc import Callable
from typing import Any

import pytest
from per_instance import Base, Repository, run
from per_instance import nothing_is_left as nothing_is_left
from stores import MemoryBackend

from agent_cache import AgentCache, AgentCacheInvalidator, AgentCacheSession
from cache import AsyncLRU, AsyncLRUInvalidator, AsyncTTL

DECORATORS: list[Callable[..., Any]] = [
    AsyncLRU,
    AsyncTTL,
    lambda **given: AgentCache(resource="rows", **given),
]


all_decorators = pytest.mark.parametrize("decorator", DECORATORS, ids=["lru", "ttl", "agent"])


class Equal:
    """All objects are equal, and cannot be hashed."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __eq__(self, other: object) -> bool:
        raise AssertionError("compared")

    __hash__ = None  # type: ignore[assignment]

    @AsyncLRU(per_instance=True)
    async def get(self) -> str:
        return self.name


class Slotted:
    __slots__ = ("__weakref__", "name")

    def __init__(self, name: str) -> None:
        self.name = name

    @AsyncLRU(per_instance=True)
    async def get(self, *, more: list[int]) -> tuple[str, list[int]]:
        return self.name, more


class Unreferenced:
    __slots__ = ()

    @AsyncLRU(per_instance=True)
    async def get(self, number: int) -> int:
        return number


@all_decorators
def test_each_object_has_results_of_its_own_and_its_content_does_not_count(
    decorator: Callable[..., Any],
) -> None:
    class Counter(Base):
        @decorator(per_instance=True)  # type: ignore[untyped-decorator]
        async def next(self, step: int) -> int:
            self.calls += step
            return self.calls

    async def calls() -> None:
        one, two = Counter(), Counter()
        assert [await one.next(1), await one.next(1), await one.next(1)] == [1, 1, 1]
        one.name = "changed"
        assert await one.next(1) == 1
        assert await two.next(5) == 5
        assert await one.next(5) == 6
        assert await Counter.next(one, 1) == 1
        assert await one.next(1, use_cache=False) == 7
        assert await one.next(1) == 7
        assert await two.next(5) == 5

    run(calls())


def test_equal_unhashable_and_slotted_objects_are_told_apart() -> None:
    async def calls() -> None:
        for cls in (Equal, Slotted):
            objects: list[Any] = [cls("a"), cls("b")]
            for one in objects * 2:
                if cls is Equal:
                    assert await one.get() == one.name
                else:
                    assert await one.get(more=[1, 2]) == (one.name, [1, 2])
            assert cls.get.get_metrics()["hits"] == 2

    run(calls())


def test_copies_and_pickles_are_other_objects() -> None:
    class Plain(Repository):
        def __getstate__(self) -> Any:
            return self.__dict__

    async def calls() -> None:
        one = Plain("one")
        assert await one.row(1) == ("one", 1, 1)
        for other in (copy.copy(one), copy.deepcopy(one)):
            assert await other.row(1) == ("one", 1, 2)
        assert await one.row(1) == ("one", 1, 1)

    run(calls())
    assert pickle.loads(pickle.dumps(Repository.row)) is Repository.row


@all_decorators
def test_an_invalidation_is_for_one_object(decorator: Callable[..., Any]) -> None:
    class Counter(Base):
        @decorator(per_instance=True)  # type: ignore[untyped-decorator]
        async def row(self, number: int, verbose: bool = False) -> int:
            self.calls += 1
            return self.calls

    invalidations: list[Callable[[Any], None]] = [
        lambda one: one.row.invalidate_cache(7),
        lambda one: Counter.row.invalidate_cache(one, 7),
        lambda one: one.row.invalidate_cache(one, 7),
        lambda one: one.row.invalidate_cache(number=7, verbose=False),
    ]

    async def calls() -> None:
        for invalidate in invalidations:
            one, two = Counter(), Counter()
            ways: list[Callable[[Any], Any]] = [
                lambda it: it.row(7),
                lambda it: it.row(number=7),
                lambda it: it.row(7, False),
                lambda it: Counter.row(self=it, number=7),
            ]
            for _ in range(2):
                assert [await way(one) for way in ways] == [1, 2, 3, 4]
                assert [await way(two) for way in ways] == [1, 2, 3, 4]
            assert await one.row(8) == 5
            invalidate(one)
            assert [await way(one) for way in ways] == [6, 7, 8, 9]
            assert [await way(two) for way in ways] == [1, 2, 3, 4]
            assert await one.row(8) == 5
        Counter.row.clear_cache()
        assert await one.row(8) == 10

    run(calls())


def test_a_write_invalidates_its_own_object() -> None:
    class Store:
        def __init__(self) -> None:
            self.rows = {1: "old"}

        @AsyncLRU(per_instance=True)
        async def read(self, number: int) -> str:
            return self.rows[number]

        @AsyncLRUInvalidator(read)
        async def write(self, number: int, text: str) -> None:
            self.rows[number] = text

    async def calls() -> None:
        one, two = Store(), Store()
        assert [await one.read(1), await two.read(1)] == ["old", "old"]
        two.rows[1] = "not told"
        await one.write(1, "new")
        assert [await one.read(1), await two.read(1)] == ["new", "old"]
        with pytest.raises(TypeError, match="self.*read|takes the object|lacks the argument"):
            Store.read.invalidate_cache(1)

    run(calls())


def test_an_invalidation_fences_the_load_of_its_object() -> None:
    async def calls() -> None:
        gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        class Slow(Base):
            @AsyncLRU(per_instance=True)
            async def get(self, number: int) -> int:
                self.calls += 1
                mine = self.calls
                await gate
                return mine

        one = Slow()
        first = asyncio.ensure_future(one.get(1))
        await asyncio.sleep(0)
        one.get.invalidate_cache(1)
        gate.set_result(None)
        assert await first == 1
        assert await one.get(1) == 2
        assert await one.get(1) == 2

    run(calls())


def test_callers_of_one_object_share_a_load() -> None:
    async def calls() -> None:
        one, two = Repository("one"), Repository("two")
        results = await asyncio.gather(*(it.row(1) for it in (one, two) * 10))
        assert results == [("one", 1, 1), ("two", 1, 1)] * 10

    run(calls())


def test_objects_that_cannot_be_referenced_weakly_are_refused_with_what_to_do() -> None:
    async def calls() -> None:
        for _ in range(2):
            with pytest.raises(
                TypeError, match=r"Unreferenced\.get .*Unreferenced cannot be .*__weakref__.*exclude="
            ):
                await Unreferenced().get(1)
            with pytest.raises(TypeError, match="a int cannot be referenced weakly"):
                await Unreferenced.get(5, 1)  # type: ignore[call-overload]
        with pytest.raises(TypeError, match="__weakref__"):
            Unreferenced.get.invalidate_cache(Unreferenced(), 1)
        with pytest.raises(TypeError, match="lacks the argument 'self'"):
            await Repository.row(number=1)

    run(calls())


@all_decorators
def test_what_it_cannot_be_combined_with_is_refused_where_it_is_decorated(
    decorator: Callable[..., Any],
) -> None:
    async def method(self: Any, number: int) -> int:
        return number

    async def nothing() -> None: ...

    async def any_number(*args: Any) -> None: ...

    async def with_default(self: Any = None) -> None: ...

    with pytest.raises(ValueError, match="per_instance=True and a backup"):
        decorator(per_instance=True, backup=MemoryBackend())
    with pytest.raises(ValueError, match="per_instance=True and skip_args"):
        decorator(per_instance=True, skip_args=1)
    with pytest.raises(ValueError, match=r"per_instance=True and exclude=\{'self'\}"):
        decorator(per_instance=True, exclude={"self"})(method)
    with pytest.raises(TypeError, match="per_instance is True or False"):
        decorator(per_instance=1)
    for function in (nothing, any_number):
        with pytest.raises(ValueError, match="needs a first parameter"):
            decorator(per_instance=True)(function)
    with pytest.raises(ValueError, match="has a default"):
        decorator(per_instance=True)(with_default)


def test_a_key_function_of_a_tool_excludes_it() -> None:
    with pytest.raises(TypeError, match="leave per_instance out"):
        AgentCache(resource="rows", per_instance=True, key=lambda *args: args)


def test_other_arguments_can_be_left_out_and_types_told_apart() -> None:
    class Store(Base):
        @AsyncLRU(per_instance=True, exclude={"session"}, typed=True)
        async def get(self, session: object, number: float) -> int:
            self.calls += 1
            return self.calls

    async def calls() -> None:
        one, two = Store(), Store()
        assert [await one.get(object(), 1), await one.get(object(), 1), await one.get(object(), 1.0)] == [
            1,
            1,
            2,
        ]
        assert await one.get(session=object(), number=1) == 3
        assert await two.get(object(), 1) == 1
        one.get.invalidate_cache(None, 1)
        assert [await one.get(object(), 1), await one.get(object(), 1.0)] == [4, 2]
        assert await two.get(object(), 1) == 1
        del one
        assert Store.get.get_metrics()["size"] == 1

    run(calls())


class Store:
    @classmethod
    @AsyncLRU(per_instance=True)
    async def name(cls, number: int) -> str:
        return cls.__name__


class Other(Store):
    pass


def test_class_methods_and_functions_have_objects_too() -> None:
    @AsyncTTL(per_instance=True)
    async def name_of(client: Base, /, **more: Any) -> str:
        return client.name

    async def calls() -> None:
        for _ in range(2):
            assert [await Store.name(1), await Other.name(1)] == ["Store", "Other"]
            one, two = Base("one"), Base("two")
            assert [await name_of(one), await name_of(two, client=1)] == ["one", "two"]
        assert Store.name.get_metrics()["hits"] == 2
        Other.name.invalidate_cache(1)
        # From 3.13 on a class method does not know its class: the other classes' results are
        # removed too.
        assert Store.name.get_metrics()["size"] == (1 if sys.version_info < (3, 13) else 0)

    run(calls())


def test_tools_keep_results_of_each_object_in_each_session() -> None:
    class Files(Base):
        @AgentCache(resource="per instance", scope="session", per_instance=True)
        async def read(self, path: str) -> int:
            self.calls += 1
            return self.calls

        @AgentCacheInvalidator(resource="per instance", scope="session")
        async def write(self, path: str) -> None: ...

    async def calls() -> None:
        one, two = Files(), Files()
        assert [await one.read("a"), await one.read("a")] == [1, 2]
        async with AgentCacheSession(loop_detection=True) as session:
            assert [await one.read("a"), await one.read("a"), await two.read("a")] == [3, 3, 1]
            assert session.get_metrics()["hits"] == 1
            one.read.invalidate_cache("a")
            assert [await one.read("a"), await two.read("a")] == [4, 1]
            await one.write("a")
            assert [await one.read("a"), await two.read("a")] == [5, 2]
        async with AgentCacheSession():
            assert await two.read("a") == 3
            three = Files()
            await three.read("a")
            assert Files.read.get_metrics()["size"] == 2
            del three
            assert Files.read.get_metrics()["size"] == 1

    run(calls())
