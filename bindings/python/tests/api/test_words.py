"""Messages of the package: true and with the name of the argument; and the visible parts of a load.

A size of 2**64 was refused with "maxsize is a number of entries (int) or None, not int", and a
batch size of None with a message that permitted None. A service that hung in a cached function
showed a task called `AsyncCache.load` without a stack. The version tag of a function's file was
shown with its control character. Ctrl-C in a loader ended in "Task exception was never retrieved".
"""

from __future__ import annotations

import asyncio
import gc
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from loops import Load, Run, task, turns

from agent_cache import AgentCache
from cache import AsyncCache, AsyncLRU, AsyncTTL, CacheWarning, DiskBackend

MAKERS: list[Callable[..., Any]] = [AsyncCache, AsyncLRU, lambda maxsize: AsyncTTL(60, maxsize)]


@pytest.mark.parametrize("make", MAKERS, ids=["AsyncCache", "AsyncLRU", "AsyncTTL"])
@pytest.mark.parametrize(
    ("size", "error", "words"),
    [
        (-1, ValueError, "maxsize is a number of entries, 0 or more, or None for no limit, not -1"),
        (2**63, ValueError, "at most 9223372036854775807, not 9223372036854775808"),
        (10**30, ValueError, "at most 9223372036854775807, not 1000"),
        (2.0, TypeError, "maxsize is a number of entries, .* not float"),
        (math.nan, TypeError, "maxsize .* not float"),
        ("5", TypeError, "maxsize .* not str"),
        (True, TypeError, "maxsize .* not bool"),
    ],
)
def test_a_size_that_is_refused_is_refused_in_true_words(
    make: Callable[..., Any], size: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        make(maxsize=size)


@pytest.mark.parametrize(
    ("ttl", "error", "words"),
    [
        ("5", TypeError, "is a number of seconds .* not str"),
        (True, TypeError, "is a number of seconds .* not bool"),
        (math.nan, ValueError, "is a finite number of seconds, not NaN"),
    ],
)
def test_a_time_to_live_is_refused_under_the_name_of_its_argument(
    ttl: Any, error: type[Exception], words: str
) -> None:
    """`AsyncTTL` and `AgentCache` spoke of `default_ttl`, an argument that they do not have."""
    with pytest.raises(error, match=f"^default_ttl {words}"):
        AsyncCache(default_ttl=ttl)
    with pytest.raises(error, match=f"^time_to_live {words}"):
        AsyncTTL(time_to_live=ttl)
    with pytest.raises(error, match=f"^ttl {words}"):
        AgentCache("pages", ttl=ttl)


@pytest.mark.parametrize(
    ("size", "error", "words"),
    [
        (0, ValueError, "max_batch_size is a number of keys, 1 or more, not 0"),
        (-1, ValueError, "max_batch_size is a number of keys, 1 or more, not -1"),
        (None, TypeError, "max_batch_size is a number of keys, 1 or more, not NoneType"),
        (0.5, TypeError, "max_batch_size is a number of keys, 1 or more, not float"),
        (2**64, ValueError, "max_batch_size .* at most"),
    ],
)
def test_a_batch_size_that_is_refused_is_refused_in_true_words(
    size: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        AsyncCache(max_batch_size=size)
    cache = AsyncCache()
    with pytest.raises(error, match=words):
        cache.max_batch_size = size
    assert cache.max_batch_size == 100


@pytest.mark.parametrize("skip", [None, "1", 0.5])
def test_an_odd_skip_args_is_refused_by_its_name(skip: Any) -> None:
    with pytest.raises(TypeError, match="skip_args is a number of arguments, 0 or more, not"):
        AsyncLRU(skip_args=skip)


GATES: dict[str, asyncio.Event] = {}


async def deep_inside() -> None:
    await GATES["gate"].wait()


async def read_weather(city: str) -> str:
    await deep_inside()
    return city


cached_weather = AsyncLRU()(read_weather)


def seen() -> str:
    """The information shown by the loop about its tasks."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    text = io.StringIO()
    for one in tasks:
        text.write(f"{one!r}\n")
        one.print_stack(file=text)  # type: ignore[call-overload,unused-ignore]
    return text.getvalue()


@pytest.mark.parametrize("kind", ["decorated", "get", "lambda", "batch"])
def test_a_load_that_hangs_shows_the_loader(run: Run, kind: str) -> None:
    cache = AsyncCache(batch_window_ms=0)

    async def read_many(keys: list[Any]) -> list[Any]:
        await deep_inside()
        return keys

    async def load() -> Any:
        return await read_weather("oslo")

    ask: dict[str, Callable[[], Any]] = {
        "decorated": lambda: cached_weather("oslo"),
        "get": lambda: cache.get("oslo", load),
        "lambda": lambda: cache.get("oslo", lambda: read_weather("oslo")),
        "batch": lambda: cache.get("oslo", batch_loader=read_many),
    }
    name = {"decorated": "read_weather", "get": "load", "lambda": "read_weather", "batch": "read_many"}[kind]

    async def main() -> None:
        GATES["gate"] = asyncio.Event()
        caller = task(ask[kind]())
        await turns()
        while "AsyncCache.load of" not in seen():  # a timer starts a batch
            await asyncio.sleep(0)
        text = seen()
        assert "AsyncCache.load of" in text
        assert f"{name}() running at {__file__}" in text
        assert f'File "{__file__}"' in text
        assert f"in {name}" in text
        GATES["gate"].set()
        assert await caller == "oslo"
        cached_weather.clear_cache()

    run(main())


def test_the_task_of_a_load_has_the_name_of_its_function(run: Run) -> None:
    async def main() -> None:
        GATES["gate"] = asyncio.Event()
        caller = task(cached_weather("rome"))
        await turns()
        assert "read_weather" in {one.get_name() for one in asyncio.all_tasks()}
        GATES["gate"].set()
        await caller
        cached_weather.clear_cache()

    run(main())


def test_stats_tell_how_many_loads_run_and_for_how_long_the_oldest_has(run: Run) -> None:
    async def main() -> None:
        cache, load = AsyncCache(), Load()
        assert (cache.stats()["running_loads"], cache.stats()["oldest_load"]) == (0, None)
        callers = [task(cache.get(key, load)) for key in "ab"]
        await load.called(2)
        first = cache.stats()
        assert first["running_loads"] == 2
        assert 0 <= first["oldest_load"] <= cache.stats()["oldest_load"]
        for call in range(2):
            load.answer(1, call)
        await asyncio.gather(*callers)
        assert (cache.stats()["running_loads"], cache.stats()["oldest_load"]) == (0, None)

    run(main())


def test_the_stats_of_a_tool_tell_of_its_oldest_load(run: Run) -> None:
    async def main() -> None:
        GATES["gate"] = asyncio.Event()
        tool = AgentCache(resource="weather of test_words")(read_weather)
        assert (tool.stats()["running_loads"], tool.stats()["oldest_load"]) == (0, None)
        caller = task(tool("oslo"))
        await turns()
        assert tool.stats()["running_loads"] == 1
        assert tool.stats()["oldest_load"] >= 0
        GATES["gate"].set()
        await caller

    run(main())


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("callers", [1, 3])
def test_an_interrupt_in_a_loader_is_not_reported_once_more(error: type[BaseException], callers: int) -> None:
    complaints: list[Any] = []

    async def load() -> None:
        await asyncio.sleep(0)
        raise error

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        cache = AsyncCache()
        await asyncio.gather(*(cache.get("key", load) for _ in range(callers)))

    with pytest.raises(error):
        asyncio.run(main())
    gc.collect()
    assert complaints == []


def test_caches_and_calls_show_themselves(run: Run, path: Path) -> None:
    cache = AsyncCache(maxsize=7)
    cache.set(1, 1)
    assert repr(cache) == "<AsyncCache: 1 of 7 entries>"
    assert repr(cache.cache) == "<the entries of <AsyncCache: 1 of 7 entries>>"
    stored = AsyncCache(maxsize=None, backup=DiskBackend(path))
    assert repr(stored) == f"<AsyncCache: 0 entries, DiskBackend({str(path)!r})>"
    call = cached_weather("oslo")
    assert repr(call).startswith("<coroutine object read_weather at 0x")
    call.close()
    hit = cache.get(1)
    assert repr(hit).startswith("<coroutine object AsyncCache.get at 0x")
    assert run(hit) == 1
    assert repr(cache.set(2, 2)) == "<done; it may be awaited>"

    class Own(AsyncCache):
        def __init__(self) -> None:
            """Forgets its base."""

    assert repr(Own()) == "<Own: 0 entries>"


def test_dir_shows_what_is_public() -> None:
    public = [name for name in dir(AsyncCache()) if not name.startswith("_")]
    assert sorted(public) == [
        *("backup", "batch_window_ms", "cache", "clear", "default_ttl", "delete", "flush", "get"),
        *("get_many", "get_metrics", "hits", "load_from_backup", "max_batch_size", "maxsize", "misses"),
        *("remote_cache", "save_to_backup", "save_to_backup_async", "set", "stats", "warmup"),
    ]


def test_a_file_of_another_version_is_told_in_words_for_a_human(run: Run, path: Path) -> None:
    def define(version: str) -> Any:
        @AsyncLRU(backup=DiskBackend(path, version=version))
        async def area(x: int) -> int:
            return x

        return area

    run(define("")(3))
    first = define("")
    run(first(3))
    first.save_to_backup()
    del first
    with pytest.warns(CacheWarning) as issued:
        define("2")
    (said,) = [str(warning.message) for warning in issued]
    assert said.startswith(f'{path}: it holds data of version "" of the function {__name__}.')
    assert 'and version "2" of the function' in said
    assert said.count(str(path)) == 1
    assert said.count("the cache starts") == 1
    assert said.isprintable()


def test_a_path_is_in_a_message_once(path: Path) -> None:
    path.write_bytes(b"something else, and quite long, so that it is no empty file")
    with pytest.warns(CacheWarning) as issued:
        AsyncCache(backup=DiskBackend(path))
    assert [str(warning.message).count(str(path)) for warning in issued] == [1]


def test_values_are_shared_by_reference(run: Run) -> None:
    """As promised in docs/compatibility.md."""

    async def main() -> None:
        cache = AsyncCache()
        cache.set("key", [1])
        (await cache.get("key")).append(2)
        assert await cache.get("key") == [1, 2]
        assert await cache.get("key") is await cache.get("key")

    run(main())


def test_two_caches_of_one_path_are_to_each_other_what_processes_are(run: Run, path: Path) -> None:
    """As promised in docs/compatibility.md."""
    first, second = AsyncCache(backup=DiskBackend(path)), AsyncCache(backup=DiskBackend(path))
    first.set("a", 1)
    second.set("b", 2)
    first.save_to_backup()
    second.save_to_backup()
    assert run(first.get("b")) is None
    assert DiskBackend(path).load() == {"a": (1, None), "b": (2, None)}


def test_nothing_is_kept_where_maxsize_is_zero(run: Run) -> None:
    """As promised in docs/compatibility.md; in the original 0 means unlimited."""
    cache = AsyncCache(maxsize=0)
    cache.set("key", 1)
    assert (len(cache.cache), run(cache.get("key"))) == (0, None)


def test_a_relative_path_stays_when_the_working_directory_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As promised in docs/compatibility.md."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    cache = AsyncCache(backup=DiskBackend("app.cache"))
    monkeypatch.chdir(tmp_path / "elsewhere")
    cache.set("key", 1)
    cache.save_to_backup()
    assert (tmp_path / "app.cache").exists()
    assert not (tmp_path / "elsewhere" / "app.cache").exists()
