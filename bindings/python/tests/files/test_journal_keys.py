"""Keys and values of a journal: objects as keys, secrets, compression, versions, functions."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path
from typing import Any

import pytest
from journals import NEVER, folder_of, found, killed, opened, value_of
from loops import Run, returns
from object_keys import Alike, Point

from agent_cache import AgentCache, AgentCacheSession
from cache import AsyncCache, AsyncLRU, AsyncTTL, CacheWarning, DiskBackend

# Keys that are objects


def test_objects_as_keys_survive_a_kill(run: Run, path: Path) -> None:
    cache = opened(path)
    for number in range(6):
        cache.set(Point(number, 0), number + 1)
    cache.set(Point(1, 0), 11)
    cache.delete(Point(2, 0))
    assert run(cache.get(Point(9, 9), loader=returns("loaded"))) == "loaded"
    cache.set(Point(4, 0), 5, ttl=0)
    expected = {Point(0, 0): 1, Point(1, 0): 11, Point(3, 0): 4, Point(5, 0): 6, Point(9, 9): "loaded"}
    reborn = opened(killed(path))
    points = [*(Point(number, 0) for number in range(6)), Point(9, 9)]
    assert (reborn.size(), found(reborn, points)) == (5, expected)
    reborn.delete(Point(0, 0))
    reborn.set(Point(2, 0), "again")
    del expected[Point(0, 0)]
    expected[Point(2, 0)] = "again"
    backend = reborn.backup
    assert isinstance(backend, DiskBackend)
    third = opened(killed(Path(backend.path)))
    assert found(third, points) == expected
    third.clear()
    assert isinstance(third.backup, DiskBackend)
    assert found(opened(killed(Path(third.backup.path))), points) == {}


def test_an_opening_does_not_write_the_keys_that_are_objects_again(path: Path) -> None:
    cache = opened(path)
    cache.set(Point(1, 2), "x" * 10_000)
    sizes = []
    for _ in range(3):
        path = killed(path)
        reborn = opened(path)
        assert value_of(reborn, Point(1, 2)) == "x" * 10_000
        sizes.append(reborn.stats()["disk_bytes"])
        del reborn
    assert sizes[2] < sizes[0] + 5_000


def test_an_evicted_key_that_is_an_object_is_gone(path: Path) -> None:
    cache = opened(path, maxsize=3)
    for number in range(6):
        cache.set(Point(number, 0), number + 1)
    points = [Point(number, 0) for number in range(6)]
    expected = {Point(number, 0): number + 1 for number in range(3, 6)}
    assert found(cache, points) == expected
    assert found(opened(killed(path), maxsize=3), points) == expected


def test_equal_keys_of_which_only_one_has_canonical_bytes_are_one_entry(path: Path) -> None:
    cache = opened(path)
    cache.set(1, "number")
    cache.set(Alike(1), "object")  # written over
    cache.set(Alike(2), "object")
    cache.set(2, "number")
    cache.set(3, "number")
    cache.delete(Alike(3))
    cache.set(Alike(4), "object")
    cache.delete(4)
    assert cache.size() == 2
    reborn = opened(killed(path))
    assert found(reborn, [1, 2, 3, 4]) == {1: "object", 2: "number"}
    assert found(reborn, [Alike(number) for number in range(1, 5)]) == {
        Alike(1): "object",
        Alike(2): "number",
    }
    reborn.delete(1)
    reborn.delete(2)
    assert isinstance(reborn.backup, DiskBackend)
    assert opened(killed(Path(reborn.backup.path))).size() == 0


def test_a_key_whose_class_is_gone_is_a_warning_in_the_log(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = opened(path)
    cache.set(Point(1, 2), 1)
    cache.set("plain", 2)
    copy = killed(path)
    monkeypatch.delattr("object_keys.Point")
    reborn = opened(copy)
    assert found(reborn, ["plain"]) == {"plain": 2}
    assert "keys are objects cannot be read" in caplog.text


def test_without_pickle_keys_that_are_objects_stay_in_memory(path: Path) -> None:
    cache = opened(path, pickle=False)
    cache.set(Point(1, 2), 1)
    cache.set("plain", 2)
    assert cache.stats()["unjournaled"] == 1
    assert found(cache, [Point(1, 2), "plain"]) == {Point(1, 2): 1, "plain": 2}
    assert found(opened(killed(path), pickle=False), [Point(1, 2), "plain"]) == {"plain": 2}


# Protection


def test_a_journal_with_a_secret_is_read_with_the_secret_only(path: Path) -> None:
    cache = opened(path, secret=b"0123456789abcdef")
    cache.set("card", "1234-5678")
    cache.set(Point(1, 2), 3)
    copy = killed(path)
    assert found(opened(copy, secret=b"0123456789abcdef"), ["card", Point(1, 2)]) == {
        "card": "1234-5678",
        Point(1, 2): 3,
    }
    assert found(opened(killed(copy), secret=b"another secret, as long"), ["card"]) == {}
    assert found(opened(killed(copy)), ["card"]) == {}


def test_compressed_caches_survive(path: Path) -> None:
    cache = opened(path, compression="zstd")
    cache.set("page", "text " * 10_000)
    assert found(opened(killed(path), compression="zstd"), ["page"]) == {"page": "text " * 10_000}
    assert found(opened(killed(path)), ["page"]) == {"page": "text " * 10_000}


def test_another_version_starts_empty(path: Path) -> None:
    cache = opened(path, version="1")
    cache.set("a", 1)
    copy = killed(path)
    assert found(opened(copy, version="2"), ["a"]) == {}
    assert found(opened(killed(copy), version="1"), ["a"]) == {"a": 1}


@pytest.mark.parametrize("how", ["file", "folder", "file, read-only folder"])
def test_what_cannot_be_a_journal_leaves_a_cache_without_one(path: Path, how: str) -> None:
    if how == "file":
        folder_of(path).write_text("not a folder")
    elif how == "folder":
        path.mkdir()
    else:
        folder_of(path).mkdir(mode=0o777)
        folder_of(path).chmod(0o777)
    with pytest.warns(CacheWarning):
        cache = AsyncCache(backup=DiskBackend(path, journal=True))
    assert not cache.is_journaled()
    cache.set("a", 1)
    assert value_of(cache, "a") == 1


# Decorated functions, and tools of agents


def double(folder: Path, decorator: Any = AsyncLRU, **options: Any) -> Any:
    """A decorated function with a journal: always the same function, as in another process."""
    calls = []

    async def twice(number: int) -> Any:
        calls.append(number)
        return {"twice": number * 2}

    backend = DiskBackend(folder / "f.cache", journal=True, flush=NEVER)
    decorated = decorator(backup=backend, **options)(twice)
    decorated.calls = calls
    return decorated


@pytest.mark.parametrize(
    ("decorator", "options"), [(AsyncLRU, {"maxsize": 50}), (AsyncTTL, {"time_to_live": 3600})]
)
def test_results_of_functions_survive_a_kill(
    run: Run, tmp_path: Path, decorator: Any, options: dict[str, Any]
) -> None:
    function = double(tmp_path, decorator, **options)
    for number in range(5):
        run(function(number))
    function.invalidate_cache(2)
    run(function(1, use_cache=False))
    assert function.calls == [0, 1, 2, 3, 4, 1]
    copy = killed(tmp_path / "f.cache")
    reborn = double(copy.parent, decorator, **options)
    for number in range(5):
        assert run(reborn(number)) == {"twice": number * 2}
    assert reborn.calls == [2]
    reborn.clear_cache()
    again = double(killed(copy).parent, decorator, **options)
    assert again.stats()["size"] == 0


def test_another_function_has_a_journal_of_its_own(run: Run, tmp_path: Path) -> None:
    function = double(tmp_path)
    run(function(1))
    copy = killed(tmp_path / "f.cache")

    @AsyncLRU(backup=DiskBackend(copy, journal=True, flush=NEVER))
    async def other(number: int) -> int:
        return number

    assert run(other(1)) == 1
    assert run(double(killed(copy).parent)(1)) == {"twice": 2}


def test_a_function_that_is_defined_again_takes_the_journal_over(run: Run, tmp_path: Path) -> None:
    source = """
async def f(number):
    return (number, {marker})
"""
    versions = []
    for marker in range(3):
        scope: dict[str, Any] = {"__name__": "notebook"}
        exec(source.format(marker=marker), scope)
        backend = DiskBackend(tmp_path / "n.cache", journal=True, flush=NEVER)
        versions.append(AsyncLRU(backup=backend)(scope["f"]))
        assert run(versions[-1](marker)) == (marker, marker)
        assert versions[-1].stats()["disk_bytes"] > 0
    assert run(versions[0](7)) == (7, 0)
    gc.collect()
    assert run(versions[2](0)) == (0, 0), "the results are those of the function, as in a file"


def test_a_tool_of_agents_survives_a_kill(run: Run, tmp_path: Path) -> None:
    def make(folder: Path) -> tuple[Any, list[int]]:
        calls: list[int] = []

        async def embed(text: str) -> list[int]:
            calls.append(1)
            return [len(text)]

        backup = DiskBackend(folder / "tool.cache", journal=True, flush=NEVER)
        return AgentCache(resource="embeddings", scope="global", backup=backup)(embed), calls

    async def use(tool: Any) -> Any:
        async with AgentCacheSession("one"):
            return await tool("hello")

    tool, calls = make(tmp_path)
    assert (run(use(tool)), len(calls)) == ([5], 1)
    reborn, calls = make(killed(tmp_path / "tool.cache").parent)
    assert (run(use(reborn)), len(calls)) == ([5], 0)


# Code that runs in between


def test_a_value_whose_pickling_uses_the_cache(path: Path) -> None:
    cache = opened(path)

    class_of_value = Nested
    class_of_value.cache = cache
    cache.set("outer", Nested())
    assert value_of(cache, "inner") == 1
    Nested.cache = None
    assert found(opened(killed(path)), ["inner"]) == {"inner": 1}


class Nested:
    """Writes to a cache while it is pickled."""

    cache: AsyncCache | None = None

    def __reduce__(self) -> Any:
        if self.cache is not None:
            self.cache.set("inner", 1)
            self.cache.set("outer", "replaced in between")
        return (Nested, ())


def test_an_interrupt_while_a_value_is_encoded_leaves_everything_as_it_was(path: Path) -> None:
    cache = opened(path)
    cache.set("a", 1)
    Interrupting.raises = KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        cache.set("a", Interrupting())
    assert value_of(cache, "a") == 1
    assert found(opened(killed(path)), ["a"]) == {"a": 1}


class Interrupting:
    """Raises when it is pickled."""

    raises: type[BaseException] = ValueError

    def __reduce__(self) -> Any:
        raise self.raises


def test_threads_write_all_at_once_and_nothing_is_lost(path: Path) -> None:
    cache = opened(path, flush=0.001)

    def write(thread: int) -> None:
        for number in range(300):
            cache.set((thread, number % 20), number)
            if number % 7 == 0:
                cache.delete((thread, (number + 3) % 20))

    async def main() -> None:
        await asyncio.gather(*[asyncio.to_thread(write, thread) for thread in range(6)])

    asyncio.run(main())
    keys = [(thread, number) for thread in range(6) for number in range(20)]
    assert found(opened(killed(path)), keys) == found(cache, keys)
