"""An invalidation reaches every way to write a call, and every way to access the function, or is
refused.

The story: parameters have defaults that some callers write out, so ``read(1)``, ``read(1, False)``
and ``read(1, verbose=False)`` were three entries, of which a write of 1 removed one. And
``repository.get.invalidate_cache(7)`` looked the attribute up on the function, which did not know
the object, and removed an unrelated entry. Both were silently accepted, and the old row was
returned.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import itertools
import pickle
import random
import weakref
from collections.abc import Callable, Iterator
from types import MethodType
from typing import Any
from unittest.mock import Mock

import pytest
from loops import Run, turns
from stores import MemoryBackend

from agent_cache import AgentCache, AgentCacheInvalidator
from agent_cache import AgentCacheSession as in_session
from cache import AsyncLRU, AsyncLRUInvalidator, AsyncTTL
from cache._ways import MOST

Call = tuple[tuple[Any, ...], dict[str, Any]]


def counted(source: str, **names: Any) -> tuple[Any, list[Any]]:
    """An async function with the given parameter list, which records its runs."""
    runs: list[Any] = []
    space: dict[str, Any] = {"runs": runs, **names}
    exec(f"async def read({source}):\n    runs.append(1)\n    return len(runs)", space)
    return space["read"], runs


def all_calls(
    function: Any, values: dict[str, Any], left_out: frozenset[str] = frozenset()
) -> Iterator[Call]:
    """Every way to call a function with these values, found by trying; left-out arguments may have
    any value.
    """
    parameters = list(inspect.signature(function).parameters.values())
    plain = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    more = values.get("*", ())
    takes_any_name = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for how in itertools.product(("position", "name", "nothing"), repeat=len(plain)):
        args: list[Any] = []
        kwargs: dict[str, Any] = dict(values.get("**", {}))
        for p, way in zip(plain, how, strict=True):
            value = values.get(p.name, p.default)
            if way == "position":
                args.append(value)
            elif way == "name":
                kwargs[p.name] = value
        # Python 3.13.0 binds these arguments.
        refused = set() if takes_any_name else {p.name for p in plain if p.kind is p.POSITIONAL_ONLY}
        if not refused.isdisjoint(kwargs):
            continue
        try:
            bound = inspect.signature(function).bind(*args, *more, **kwargs)
        except TypeError:
            continue
        bound.apply_defaults()
        wanted = {p.name: values.get(p.name, p.default) for p in plain}
        taken = next((bound.arguments[p.name] for p in parameters if p.kind is p.VAR_POSITIONAL), ())
        if taken != tuple(more):
            continue
        given = {name: bound.arguments[name] for name in wanted if name not in left_out}
        if all(value is wanted[name] or value == wanted[name] for name, value in given.items()):
            yield (*args, *more), kwargs


SIGNATURES: list[tuple[str, list[dict[str, Any]]]] = [
    ("number", [{"number": 1}]),
    ("number, verbose=False", [{"number": 1}, {"number": 1, "verbose": True}]),
    ("number, verbose=0, *, deep=None", [{"number": 1}, {"number": 1, "deep": 5}]),
    ("number, /, verbose=False", [{"number": 1}]),
    ("number=1, verbose=False, /", [{}, {"verbose": True}]),
    ("a, /, b=2, *, c=3", [{"a": 1}, {"a": 1, "b": 5}]),
    ("a=1, b=[], c={}", [{}, {"b": [1]}]),
    ("a, b=float('nan')", [{"a": 1}]),
    ("*, a=1, b=2", [{}, {"b": 3}]),
    ("a, *args, k=1", [{"a": 1}, {"a": 1, "*": (2, 3)}]),
    ("a, b=2, *args", [{"a": 1}, {"a": 1, "*": (2, 3)}]),
    ("a, b=2, **others", [{"a": 1}, {"a": 1, "**": {"z": 1}}]),
]


@pytest.mark.parametrize(("source", "all_values"), SIGNATURES)
@pytest.mark.parametrize("typed", [False, True])
def test_an_invalidation_by_any_way_to_write_a_call_reaches_all_ways(
    run: Run, source: str, all_values: list[dict[str, Any]], typed: bool
) -> None:
    async def main() -> None:
        for values in all_values:
            function, runs = counted(source)
            ways = list(all_calls(function, values))
            assert ways
            read = AsyncLRU(maxsize=None, typed=typed)(function)
            for args, kwargs in ways:
                for a, k in ways:
                    await read(*a, **k)
                before = len(runs)
                read.invalidate_cache(*args, **kwargs)
                assert read.get_metrics()["size"] == 0, f"{args} {kwargs}"
                for a, k in ways:
                    await read(*a, **k)
                assert len(runs) > before

    run(main())


def test_only_calls_with_these_arguments_are_invalidated(run: Run) -> None:
    async def main() -> None:
        function, runs = counted("number, verbose=False")
        read = AsyncLRU()(function)
        for call in (read(1), read(1, True), read(2), read(2, verbose=False)):
            await call
        read.invalidate_cache(1)
        assert read.get_metrics()["size"] == 3
        read.invalidate_cache(2)
        assert read.get_metrics()["size"] == 1

    run(main())


def test_a_value_that_is_equal_to_the_default_is_the_default(run: Run) -> None:
    class Unit:
        def __init__(self, name: str) -> None:
            self.name = name

    async def main() -> None:
        default = Unit("metre")
        function, runs = counted("number, unit=default, sizes=(1, 2)", default=default)
        read = AsyncLRU()(function)
        await read(1)
        await read(1, Unit("metre"), [1, 2])
        read.invalidate_cache(1, Unit("metre"))
        assert read.get_metrics()["size"] == 0

    run(main())


def test_typed_functions_do_not_take_zero_for_false(run: Run) -> None:
    async def main() -> None:
        function, _ = counted("number, verbose=False")
        read = AsyncLRU(typed=True)(function)
        await read(1)
        await read(1, 0)
        read.invalidate_cache(1, 0)
        assert read.get_metrics()["size"] == 1, "read(1) is another call"

    run(main())


def test_too_many_ways_clear_the_function_and_keep_its_metrics(run: Run) -> None:
    async def main() -> None:
        function, _ = counted(", ".join(f"p{n}=None" for n in range(30)))
        read = AsyncLRU()(function)
        await read(p29=1, p3=None)
        await read(p29=2)
        read.invalidate_cache(p29=1)
        assert MOST < 2**29
        assert read.get_metrics() == {"hits": 0, "misses": 2, "size": 0, "hit_rate": 0.0}

    run(main())


def test_arguments_that_no_call_could_have_are_refused() -> None:
    function, _ = counted("number, verbose=False")
    read = AsyncLRU()(function)
    for args, kwargs, told in (
        ((), {}, "number"),
        ((1, 2, 3), {}, "3 were given"),
        ((1,), {"number": 1}, "two values"),
        ((1,), {"colour": 1}, "colour"),
    ):
        with pytest.raises(TypeError, match=told):
            read.invalidate_cache(*args, **kwargs)
    read.invalidate_cache(1, use_cache=False)


def test_a_function_whose_signature_is_not_known_or_not_its_own_is_cleared(run: Run) -> None:
    """A decorator that adds a session shows the signature of the wrapped function, which includes
    the session.
    """

    async def inner(session: str, number: int) -> int:
        return number

    @functools.wraps(inner)
    async def with_session(*args: Any) -> int:
        return await inner("a session", *args)

    class Unknown:
        __signature__ = "none"

        async def __call__(self, number: int) -> int:
            return number

    async def main() -> None:
        for function in (with_session, Unknown()):
            read = AsyncLRU()(function)
            await read(1)
            read.invalidate_cache(1)
            assert read.get_metrics()["size"] == 0

    run(main())


def test_an_argument_that_has_no_key_is_the_callers_error(run: Run) -> None:
    class NoKey:
        def __eq__(self, other: object) -> bool:
            raise ValueError("not comparable")

        def __reduce_ex__(self, protocol: Any) -> Any:
            raise ValueError("no key")

    function, _ = counted("number, verbose=False")
    read = AsyncLRU()(function)
    read.invalidate_cache(1)
    keyed = AgentCache(resource="r", key=lambda number: 1 // number)(function)
    with pytest.raises(ZeroDivisionError):
        keyed.invalidate_cache(0)
    keyed.invalidate_cache(1)  # though the function of the key does not take `verbose`


def test_an_invalidation_fences_the_loads_of_all_ways(run: Run) -> None:
    async def main() -> None:
        gate = asyncio.Event()
        row = "old"

        @AsyncLRU()
        async def read(number: int, verbose: bool = False) -> str:
            found = row
            await gate.wait()
            return found

        loads = [asyncio.ensure_future(call) for call in (read(1), read(1, False), read(number=1))]
        await turns(5)
        row = "new"
        read.invalidate_cache(1)
        gate.set()
        assert await asyncio.gather(*loads) == ["old"] * 3
        assert [await read(1), await read(1, False), await read(number=1)] == ["new"] * 3

    run(main())


def test_defaults_that_were_replaced_are_those_of_the_next_invalidation(run: Run) -> None:
    runs = []

    async def row(number: int, verbose: bool = False, *, depth: int = 1) -> int:
        runs.append(number)
        return len(runs)

    read = AsyncLRU()(row)

    async def main() -> None:
        assert await read(1, False) == 1
        read.invalidate_cache(1)  # inspects the signature
        row.__defaults__ = (True,)
        assert await read(1, True) == 2
        read.invalidate_cache(1)
        assert await read(1, True) == 3
        assert row.__kwdefaults__ is not None
        row.__kwdefaults__["depth"] = 2
        assert await read(1, depth=2) == 4
        read.invalidate_cache(1)
        assert await read(1, depth=2) == 5

    run(main())


def passed_on(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def between(*args: Any, **kwargs: Any) -> Any:
        return await function(*args, **kwargs)

    return between


def without_first(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def between(first: str, *args: Any) -> Any:
        return await function(*args)

    between.__signature__ = inspect.signature(lambda first, number: None)  # type: ignore[attr-defined]
    return between


@pytest.mark.parametrize("outer", [AsyncLRU(), AgentCache(resource="twice")], ids=["AsyncLRU", "AgentCache"])
@pytest.mark.parametrize(
    "between", [lambda f: f, passed_on, without_first], ids=["", "a wrapper", "fewer arguments"]
)
def test_a_function_that_is_cached_twice_is_invalidated_in_both_caches(
    run: Run, outer: Any, between: Callable[..., Any]
) -> None:
    # The outer cache's entry was removed, and the next call got the old value from the inner cache.
    runs = []

    @AsyncTTL(time_to_live=60)
    async def row(number: int, verbose: bool = False) -> int:
        runs.append(number)
        return len(runs)

    read = outer(between(row))
    args = ("first", 1) if between is without_first else (1,)

    @AsyncLRUInvalidator(read, clear_all=True)
    async def write() -> None:
        pass

    async def main() -> None:
        assert [await read(*args), await read(*args)] == [1, 1]
        read.invalidate_cache(*args)
        assert await read(*args) == 2
        await write()
        assert await read(*args) == 3

    run(main())


def test_a_write_tool_reaches_what_its_read_tools_have_cached_inside(run: Run) -> None:
    runs = []

    @AgentCache(resource="twice-written")
    @AsyncLRU()
    async def read(number: int) -> int:
        runs.append(number)
        return len(runs)

    @AgentCacheInvalidator(resource="twice-written")
    async def write() -> None:
        pass

    async def main() -> None:
        assert [await read(1), await read(1)] == [1, 1]
        await write()
        assert await read(1) == 2

    run(main())


def test_a_method_that_is_cached_twice_is_invalidated_for_its_object(run: Run) -> None:
    class Repository:
        def __init__(self, name: str) -> None:
            self.name = name
            self.runs = 0

        @AsyncLRU(per_instance=True)
        async def read(self, number: int) -> int:
            self.runs += 1
            return self.runs

    one, two = Repository("one"), Repository("two")
    read_one: Any = AsyncLRU()(one.read)
    read_two: Any = AsyncLRU()(two.read)

    async def main() -> None:
        assert [await read_one(1), await read_two(1)] == [1, 1]
        read_one.invalidate_cache(1)
        assert [await read_one(1), await read_two(1), await two.read(1)] == [2, 1, 1]

    run(main())


def test_a_backend_of_the_users_own_is_invalidated_alike(run: Run) -> None:
    async def main() -> None:
        function, _ = counted("number, verbose=False")
        read = AsyncLRU(backup=MemoryBackend())(function)
        for call in (read(1), read(1, False), read(number=1, verbose=False)):
            await call
        read.invalidate_cache(1)
        assert read.get_metrics()["size"] == 0

    run(main())


# Through objects and classes


class Repository:
    def __init__(self, table: str) -> None:
        self.table = table

    @AsyncLRU()
    async def row(self, number: int = 0) -> object:
        return object()

    @AsyncLRU(skip_args=1)
    async def shared(self, number: int = 0) -> object:
        return object()

    @classmethod
    @AsyncTTL(60)
    async def of_class(cls, number: int = 0) -> object:
        return object()

    @staticmethod
    @AsyncTTL(60)
    async def static(number: int = 0) -> object:
        return object()

    @AgentCache(resource="rows")
    async def tool(self, number: int = 0) -> object:
        return object()


class Derived(Repository):
    pass


METHODS = ["row", "shared", "of_class", "static", "tool"]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("number", [(7,), ()])
def test_asked_through_an_object_it_is_for_that_object(run: Run, name: str, number: tuple[int, ...]) -> None:
    async def main() -> None:
        for owner in (Repository("users"), Derived("orders")):
            method = getattr(owner, name)
            before, other = await method(*number), await method(8)
            method.invalidate_cache(*number)
            after = await method(*number)
            assert after is not before
            assert await method(8) is other
            getattr(owner, name).invalidate_cache(number=number[0] if number else 0)
            assert await method(*number) is not after

    run(main())


def test_the_object_may_be_given_once_more_as_the_original_wanted_it(run: Run) -> None:
    async def main() -> None:
        owner = Repository("users")
        before = await owner.row(7)
        owner.row.invalidate_cache(owner, 7)
        after = await owner.row(7)
        assert after is not before
        Repository.row.invalidate_cache(owner, 7)
        assert await owner.row(7) is not after

    run(main())


def test_an_invalidation_may_name_another_object_than_the_one_it_is_asked_through(run: Run) -> None:
    """`self.row.invalidate_cache(other, 7)`, as in the library that this package replaces.

    The additional argument made it a call for this object, with the other object as the number:
    nothing was removed, silently, and the other object's row was returned for ever.
    """

    class Rows:
        def __init__(self, table: str) -> None:
            self.table = table

        @AsyncLRU()
        async def row(self, number: int) -> object:
            return object()

        @AsyncLRU()
        async def told(self, number: int, verbose: bool = False) -> object:
            return object()

    async def main() -> None:
        wrong: Any = object()
        one, other = Rows("one"), Rows("other")
        for name in ("row", "told"):
            ask, ask_other = getattr(one, name), getattr(other, name)
            kept, stale, else_kept = await ask(7), await ask_other(7), await ask_other(8)
            ask.invalidate_cache(other, 7)
            assert await ask_other(7) is not stale
            assert [await ask(7), await ask_other(8)] == [kept, else_kept]
        with pytest.raises(TypeError):
            one.row.invalidate_cache(wrong, 7)

    run(main())


def test_asked_through_the_class_a_class_method_is_for_that_class(run: Run) -> None:
    async def main() -> None:
        for cls in (Repository, Derived):
            before = await cls.of_class(7)
            cls.of_class.invalidate_cache(7)
            assert await cls.of_class(7) is not before

    run(main())


def test_without_an_object_what_could_be_taken_for_it_is_refused() -> None:
    with pytest.raises(TypeError, match="object"):
        Repository.row.invalidate_cache(7)
    Repository.row.invalidate_cache(Repository("users"))
    Repository.shared.invalidate_cache(7)
    Repository.static.invalidate_cache(7)
    Repository.row.invalidate_cache(Mock(spec=Repository))


def test_skipped_arguments_may_be_given_or_left_out(run: Run) -> None:
    async def main() -> None:
        owner = Repository("users")
        nobody: Any = None
        invalidations: list[Callable[[], Any]] = [
            lambda: Repository.shared.invalidate_cache(7),
            lambda: Repository.shared.invalidate_cache(nobody, 7),
            lambda: Repository.shared.invalidate_cache(owner, number=7),
            lambda: Repository.shared.invalidate_cache(number=7),
        ]
        for invalidate in invalidations:
            before = await owner.shared(7)
            by_name = await owner.shared(number=7)
            invalidate()
            assert await owner.shared(7) is not before
            assert await owner.shared(number=7) is not by_name

    run(main())


def test_a_bound_method_passes_for_one(run: Run) -> None:
    async def main() -> None:
        owner: Any = Repository("users")
        other: Any = Repository("users")
        method = owner.row
        assert inspect.ismethod(method)
        assert isinstance(method, MethodType)
        method = owner.row  # not narrowed
        assert inspect.iscoroutinefunction(method)
        assert (method.__self__, method.__func__) == (owner, Repository.row)
        assert (method.__name__, method.__qualname__) == ("row", "Repository.row")
        assert method.__module__ == __name__
        assert list(inspect.signature(method).parameters) == ["number"]
        assert method == owner.row and hash(method) == hash(owner.row)
        assert method != other.row and method != Repository.row and method != 5
        assert repr(method).startswith("<bound method Repository.row of <")
        assert method.__get__(other) is method
        assert method.get_metrics is not None and method.skip_args == 0
        with pytest.raises(AttributeError, match="no_such_attribute"):
            method.no_such_attribute
        assert weakref.WeakMethod(method)() == method
        assert pickle.loads(pickle.dumps(method)).__self__.table == "users"
        assert copy.copy(method) == method
        assert copy.deepcopy(method).__self__ is not owner
        for args, kwargs in (((1,), {}), ((), {"number": 1}), (tuple(range(1)), {})):
            assert await method(*args, **kwargs) is await functools.partial(method, *args, **kwargs)()
        with pytest.raises(TypeError, match="takes"):
            await method(*range(20))
        with pytest.raises(TypeError, match="p0"):
            await method(**{f"p{n}": n for n in range(20)})
        with pytest.raises(TypeError, match="decorated function"):
            bound_class: Any = type(method)
            bound_class(len, owner)

    run(main())


def test_a_bound_method_keeps_its_object_and_no_longer() -> None:
    owner: Any = Repository("users")
    owner.kept = owner.row
    seen = weakref.ref(owner)
    del owner
    import gc

    gc.collect()
    assert seen() is None


def test_many_arguments_arrive_in_their_places(run: Run) -> None:
    class Sum:
        @AsyncLRU()
        async def of(self, *args: int, **kwargs: int) -> tuple[Any, Any]:
            return args, kwargs

    async def main() -> None:
        of: Any = Sum().of
        for count in range(12):
            args = tuple(range(count))
            kwargs = {f"p{n}": n for n in range(count)}
            assert await of(*args) == (args, {})
            assert await of(**kwargs) == ((), kwargs)
            assert await of(*args, **kwargs) == (args, kwargs)
            assert await functools.partial(of, *args, **kwargs)() == (args, kwargs)
            # Called from C, and through `map`, there is no place before the first argument.
            assert await next(map(of, [count])) == ((count,), {})

    run(main())


# Through writes


WRITES: list[tuple[str, str, Callable[[Any], Any]]] = [
    ("number, verbose=False", "number", lambda write: write(1)),
    ("number, verbose=False", "number, text='new'", lambda write: write(1, "new")),
    ("number, verbose=False", "number, text='new'", lambda write: write(text="new", number=1)),
    ("number, verbose=False", "id, text", lambda write: write(id=1, text="new")),
    ("number, verbose=False", "id, text", lambda write: write(text="new", id=1)),
    ("number, verbose=False", "text, number", lambda write: write("new", 1)),
    ("number, verbose=False", "text, *, number", lambda write: write("new", number=1)),
    ("number, verbose=False", "number=1", lambda write: write()),
    ("number, verbose=False", "number, notify=True", lambda write: write(1)),
    ("number, verbose=False", "*args", lambda write: write(1, "new")),
    ("number, verbose=False", "**kwargs", lambda write: write(number=1, text="new")),
    ("number, *, verbose=False", "number, row=None", lambda write: write(1)),
]


@pytest.mark.parametrize(("read_source", "write_source", "call"), WRITES)
def test_a_write_reaches_every_way_to_write_the_read(
    run: Run, read_source: str, write_source: str, call: Callable[[Any], Any]
) -> None:
    async def main() -> None:
        function, runs = counted(read_source)
        read = AsyncLRU()(function)
        write = AsyncLRUInvalidator(read)(counted(write_source)[0])
        ways = list(all_calls(function, {"number": 1}))
        assert len(ways) > 2
        for args, kwargs in ways:
            await read(*args, **kwargs)
        await read(2)
        await call(write)
        assert read.get_metrics()["size"] == 1

    run(main())


def test_a_write_that_lacks_an_argument_of_the_read_is_refused(run: Run) -> None:
    function, _ = counted("tenant, number")
    read = AsyncLRU()(function)
    with pytest.raises(TypeError, match="key_fn"):
        AsyncLRUInvalidator(read)(counted("number")[0])
    for written in ("tenant, id", "*args", "number, *, tenant", "**kwargs"):
        AsyncLRUInvalidator(read)(counted(written)[0])
    runs: list[Any]
    function, runs = counted("*args")

    async def main() -> None:
        with pytest.raises(TypeError, match="key_fn"):
            await AsyncLRUInvalidator(read)(function)(1)
        assert runs == [], "the write did not run"
        await AsyncLRUInvalidator(read)(function)(1, 2)

    run(main())


def test_a_write_may_invalidate_a_method_of_one_object(run: Run) -> None:
    async def main() -> None:
        owner, other = Repository("users"), Repository("orders")
        kept, before = await other.row(7), await owner.row(7)

        @AsyncLRUInvalidator(owner.row)
        async def write(number: int, text: str) -> None: ...

        await write(7, "new")
        assert await owner.row(7) is not before
        assert await other.row(7) is kept

    run(main())


def test_a_write_may_invalidate_what_only_has_the_methods_of_a_cached_function(run: Run) -> None:
    class Read:
        def __init__(self) -> None:
            self.told: list[Any] = []

        async def __call__(self, number: int, verbose: bool = False) -> None: ...

        def invalidate_cache(self, *args: Any, **kwargs: Any) -> None:
            self.told.append((args, kwargs))

        def clear_cache(self) -> None: ...

    async def main() -> None:
        read = Read()
        calls: list[Call] = [((1,), {}), ((), {"number": 1}), ((1, False), {}), ((1,), {"verbose": False})]

        @AsyncLRUInvalidator(read)
        async def write(number: int) -> None: ...

        await write(1)
        for call in calls:
            assert call in read.told

    run(main())


# Arguments left out of the key by name


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


def test_a_decorator_says_where_it_goes_among_others() -> None:
    others: list[Any] = [classmethod, staticmethod]
    for other in others:
        with pytest.raises(TypeError, match=f"@{other.__name__} above @AsyncLRU"):
            AsyncLRU()(other(counted("a")[0]))
