"""Invalidators: a write removes the entries of the read, however the read was called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from loops import Run
from signatures import Call, Repository, all_calls, counted

from cache import AsyncLRU, AsyncLRUInvalidator

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
