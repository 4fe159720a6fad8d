"""Results that can be read only once are refused, or returned to one caller only.

The story: a cached function returned a generator, and its second caller got an exhausted one; a
cached route returned a StreamingResponse, and the second client got an empty page with status 200.
There was no error.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import gc
import io
import itertools
import mmap
import sqlite3
import tempfile
import urllib.response
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from email.message import Message
from typing import Any
from unittest.mock import MagicMock

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from loops import Run, outcome, turns
from stores import MemoryBackend

from agent_cache import AgentCache, AgentCacheSession
from cache import AsyncCache, AsyncLRU, CacheWarning


def generator() -> Iterator[str]:
    yield "a"


async def async_generator() -> AsyncIterator[str]:
    yield "a"


async def coroutine() -> str:
    return "a"


class Rows:
    """A Python iterator, for example a cursor."""

    def __iter__(self) -> Rows:
        return self

    def __next__(self) -> int:
        raise StopIteration


class AsyncRows:
    def __aiter__(self) -> AsyncRows:
        return self

    async def __anext__(self) -> int:
        raise StopAsyncIteration


class AsyncFile:
    """Like files of `aiofiles`."""

    async def read(self) -> bytes:
        return b""

    async def readline(self) -> bytes:
        return b""

    async def close(self) -> None:
        pass


READ_ONCE: dict[str, Callable[[], Any]] = {
    "generator": generator,
    "async generator": async_generator,
    "coroutine": coroutine,
    "call of ours": lambda: AsyncCache().get(1),
    "map": lambda: map(str, [1]),
    "zip": lambda: zip([1], [2], strict=True),
    "chain": lambda: itertools.chain([1], [2]),
    "list iterator": lambda: iter([1]),
    "file": lambda: open(__file__),  # noqa: SIM115
    "BytesIO": lambda: io.BytesIO(b"a"),
    "temporary file": lambda: tempfile.NamedTemporaryFile(),  # noqa: SIM115
    "spooled file": lambda: tempfile.SpooledTemporaryFile(),  # noqa: SIM115
    "response of urllib": lambda: urllib.response.addinfourl(io.BytesIO(b"a"), Message(), ""),
    "async file": AsyncFile,
    "context manager": contextlib.contextmanager(generator),
    "async context manager": contextlib.asynccontextmanager(async_generator),
    "csv reader": lambda: csv.reader(["a"]),
    "cursor": lambda: sqlite3.connect(":memory:").execute("select 1"),
    "iterator of Python's": Rows,
    "async iterator of Python's": AsyncRows,
    "tuple": lambda: (1, generator()),
    "list": lambda: [generator()],
    "dict": lambda: {"rows": generator()},
}


class Pool:
    """Like connection pools: awaited once until ready, and then used for a long time."""

    def __await__(self) -> Any:
        yield


class Reusable:
    def __iter__(self) -> Iterator[int]:
        return iter([1])


class Decorating(contextlib.ContextDecorator):
    """A context manager that can be entered any number of times."""

    gen = "a name like another"

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


class Vague:
    """Has every attribute, and raises."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __iter__(self) -> Any:
        raise RuntimeError

    def __next__(self) -> Any:
        raise RuntimeError


STORED: dict[str, Callable[[], Any]] = {
    "list": lambda: [1],
    "range": lambda: range(5),
    "dict view": lambda: {1: 2}.keys(),
    "pool": Pool,
    "reusable": Reusable,
    "vague": Vague,
    "mock": MagicMock,
    "memory map": lambda: mmap.mmap(-1, 1),
    "context manager": Decorating,
    "null context": contextlib.nullcontext,
    "class": lambda: Rows,
    "function": lambda: generator,
}


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", READ_ONCE)
def test_what_is_read_once_is_refused_for_all_callers(run: Run, kind: str) -> None:
    async def main() -> None:
        runs = 0

        @AsyncLRU()
        async def stream() -> Any:
            nonlocal runs
            runs += 1
            await turns(1)
            return READ_ONCE[kind]()

        for told in await asyncio.gather(stream(), stream(), return_exceptions=True):
            assert isinstance(told, TypeError)
            assert "stream() returned a" in str(told) and "return" in str(told)
        assert runs == 1
        assert stream.get_metrics()["size"] == 0
        told = await outcome(AsyncCache().get("key", loader=stream.__wrapped__))
        assert isinstance(told, TypeError)

    run(main())


@pytest.mark.parametrize("kind", STORED)
def test_what_can_be_used_again_is_stored(run: Run, kind: str) -> None:
    async def main() -> None:
        @AsyncLRU()
        async def make() -> Any:
            return STORED[kind]()

        first: Any = await make()
        assert await make() is first

    run(main())


def test_a_future_is_a_value(run: Run) -> None:
    async def main() -> None:
        @AsyncLRU()
        async def make() -> Any:
            return asyncio.get_running_loop().create_future()

        assert await make() is await make()
        (await make()).cancel()

    run(main())


def test_a_batch_refuses_the_keys_whose_values_are_read_once(run: Run) -> None:
    async def main() -> None:
        async def load(keys: list[int]) -> dict[int, Any]:
            return {1: "a value", 2: generator()}

        cache = AsyncCache()
        calls = (cache.get(key, batch_loader=load) for key in (1, 2))
        values: list[Any] = await asyncio.gather(*calls, return_exceptions=True)
        assert values[0] == "a value"
        assert isinstance(values[1], TypeError)

    run(main())


@pytest.mark.parametrize("decorator", [AsyncLRU(), AgentCache(resource="streams")])
def test_a_generator_function_is_refused_where_it_is_decorated(decorator: Any) -> None:
    for function in (generator, async_generator):
        with pytest.raises(TypeError, match=f"{function.__name__} is an? .*generator function"):
            decorator(function)


def test_a_loader_that_is_an_async_generator_function_is_told_so(run: Run) -> None:
    async def main() -> None:
        loader: Any = async_generator
        told = await outcome(AsyncCache().get("key", loader=loader))
        assert isinstance(told, TypeError) and "async generator function" in str(told)

    run(main())


def test_a_tool_that_is_not_cached_may_return_what_is_read_once(run: Run) -> None:
    async def main() -> None:
        @AgentCache(resource="streams", scope="session")
        async def stream() -> Any:
            return generator()

        assert list(await stream()) == ["a"]
        async with AgentCacheSession():
            assert isinstance(await outcome(stream()), TypeError)

    run(main())


def test_a_streaming_response_goes_to_each_caller_whole_and_a_warning_says_so(run: Run) -> None:
    app = FastAPI()
    runs = 0

    @app.get("/")
    @AsyncLRU()
    async def route() -> Any:
        nonlocal runs
        runs += 1
        await turns(1)
        return StreamingResponse(async_generator())

    async def main() -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            answers = await asyncio.gather(*(client.get("/") for _ in range(3)))
            answers.append(await client.get("/"))
        assert [(answer.status_code, answer.text) for answer in answers] == [(200, "a")] * 4
        assert runs == 4

    with pytest.warns(CacheWarning, match="route.*StreamingResponse"):
        run(main())
    assert route.get_metrics()["size"] == 0


# Values given to `set` are refused like results of loads


def given(name: str) -> Any:
    """A value that is read once, without the warning for a coroutine that was never awaited."""
    value = READ_ONCE[name]()
    for item in value if isinstance(value, tuple | list) else [value]:
        if hasattr(item, "send") and hasattr(item, "__await__"):
            item.close()
    return value


@pytest.mark.parametrize("name", READ_ONCE)
@pytest.mark.parametrize("ttl", [{}, {"ttl": 5}, {"ttl": 0}, {"ttl": None}])
def test_what_can_be_read_once_is_not_set_and_the_value_before_stays(name: str, ttl: dict[str, Any]) -> None:
    """The story: results of loads were refused, but `set` stored a generator that was empty at the
    second get.
    """
    cache = AsyncCache()
    for key in ("key", (1, "of a tuple")):
        cache.set(key, "before")
        value = given(name)
        with pytest.raises(TypeError, match=r"^set\(\) was given .*, so it cannot be cached: "):
            cache.set(key, value, **ttl)
        if name in ("file", "temporary file", "spooled file"):
            value.close()
        assert asyncio.run(_get(cache, key)) == "before"


async def _get(cache: AsyncCache, key: Any) -> Any:
    return await cache.get(key)


def test_a_refused_set_says_what_to_give_instead() -> None:
    cache = AsyncCache()
    for value, told in (
        (
            generator(),
            r"a generator, which can be read once, so it cannot be cached: give a list\(...\) of what",
        ),
        ([generator()], "a list with a generator, which can be read once"),
        (
            io.StringIO("text"),
            "an open file, which can be read once, so it cannot be cached: give its content",
        ),
        (StreamingResponse(generator()), "a StreamingResponse, which can be read once"),
    ):
        with pytest.raises(TypeError, match=told):
            cache.set("key", value)
    assert len(cache.cache) == 0


def test_a_coroutine_that_is_refused_can_still_be_awaited(run: Run) -> None:
    """The coroutine belongs to the caller, who may have forgotten an `await`."""

    async def main() -> None:
        cache = AsyncCache()
        fetched = coroutine()
        with pytest.raises(
            TypeError, match="a coroutine, which can be awaited once.*: await it, and give what it"
        ):
            cache.set("key", fetched)
        cache.set("key", await fetched)
        assert await cache.get("key") == "a"

    run(main())


def test_what_can_be_read_again_is_set() -> None:
    class Answer:
        """A callable object, like the responses of web frameworks."""

        def __call__(self) -> None:
            pass

    class Iterable:
        def __iter__(self) -> Iterator[int]:
            return iter([1])

    cache = AsyncCache()
    values = [
        range(3), {1: 2}.keys(), Answer(), Answer, len, Iterable(), MagicMock(), Pool(), object(), [Answer()],
        asyncio.Event(), ("a", [generator()]),
    ]  # fmt: skip
    for value in values:
        cache.set("key", value)
        assert asyncio.run(_get(cache, "key")) is value


def test_a_file_that_is_set_is_refused_and_stays_open() -> None:
    with open(__file__) as file:
        with pytest.raises(TypeError, match="an open file"):
            AsyncCache().set("key", file)
        assert not file.closed
        assert file.readline()


def test_what_a_backend_brings_and_can_be_read_once_is_left_out() -> None:
    backend = MemoryBackend({"a": (generator(), None), "b": ("value", None)})
    with pytest.warns(
        CacheWarning, match=r"1 of 2 entries .*'a': its value is a generator, which can be read once"
    ):
        cache = AsyncCache(backup=backend)
    assert ("a" in cache.cache, "b" in cache.cache) == (False, True)


@pytest.mark.parametrize("name", sorted(name for name in READ_ONCE if "file" not in name))
def test_what_a_batch_loader_returns_for_a_key_is_refused_and_the_other_keys_are_answered(
    run: Run, name: str
) -> None:
    async def main() -> None:
        async def batch(keys: list[Any]) -> dict[Any, Any]:
            return {key: READ_ONCE[name]() if key == "bad" else key for key in keys}

        cache = AsyncCache()
        good, bad = await asyncio.gather(
            outcome(cache.get("good", batch_loader=batch)), outcome(cache.get("bad", batch_loader=batch))
        )
        assert good == "good"
        assert isinstance(bad, TypeError)
        assert "cannot be cached" in str(bad)

    run(main())


def test_a_batch_loader_that_is_a_generator_function_or_returns_an_iterator_is_told_what_to_return(
    run: Run,
) -> None:
    async def main() -> None:
        async def iterator(keys: list[Any]) -> Any:
            return iter(keys)

        async def lazy(keys: list[Any]) -> Any:
            return (key for key in keys)

        for loader in (iterator, lazy):
            answer = await outcome(AsyncCache().get("key", batch_loader=loader))
            assert isinstance(answer, TypeError)
            assert "a mapping from keys to values, or a sequence as long as its keys, not" in str(answer)

    run(main())


def test_callers_of_a_streaming_response_load_beside_each_other(run: Run) -> None:
    # Each of the callers waited for the previous caller's load, and got nothing from it: a hundred
    # clients of a slow page were served one after another.
    everybody = 20
    arrived = 0
    all_there = asyncio.Event()

    @AsyncLRU()
    async def page() -> Any:
        nonlocal arrived
        arrived += 1
        # The first load is shared, because nothing is known of its result; all others run
        # concurrently.
        if arrived == everybody:
            all_there.set()
        if arrived > 1:
            await all_there.wait()
        await turns(1)
        return StreamingResponse(async_generator())

    async def main() -> None:
        calls = [page() for _ in range(everybody)]
        answers = await asyncio.wait_for(asyncio.gather(*calls), 30)
        assert len(set(map(id, answers))) == everybody == arrived

    with pytest.warns(CacheWarning, match="page.*StreamingResponse"):
        run(main())
    assert page.stats()["size"] == page.stats()["running_loads"] == 0


def test_a_class_that_is_stored_once_says_nothing_of_others_and_does_not_live_on() -> None:
    """A class without the marks of read-once results is remembered. More classes come and go than
    are remembered.
    """
    cache = AsyncCache(maxsize=None)
    references = []
    for number in range(3000):
        kept = type("Kept", (), {"number": number})
        read_once = type("ReadOnce", (kept,), {"__iter__": lambda self: self, "__next__": lambda self: 1})
        for _ in range(2):
            cache.set("kept", kept())
            cache.set("in a list", [kept()])
            for value in (read_once(), [kept(), read_once()], {"a": read_once()}):
                with pytest.raises(TypeError, match="iterator"):
                    cache.set("read once", value)
        references.append(weakref.ref(kept))
    cache.clear()
    del kept, read_once, value
    gc.collect()
    assert not any(reference() for reference in references)
