"""Invalidations that are called through an object, a class or a bound method."""

from __future__ import annotations

import copy
import functools
import inspect
import pickle
import weakref
from collections.abc import Callable
from types import MethodType
from typing import Any
from unittest.mock import Mock

import pytest
from loops import Run
from signatures import Repository

from cache import AsyncLRU


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
        assert method.__module__ == Repository.__module__
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
