"""The owner of a file: functions that share a name, methods, partials, redefined functions."""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import shutil
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from complaints import no_warning
from loops import Run
from programs import output_of

from cache import AsyncCache, AsyncLRU, CacheWarning, DiskBackend


class Api:
    def __init__(self, base: Any) -> None:
        self.base = base

    async def fetch(self, x: int) -> str:
        return f"{self.base}/{x}"

    async def __call__(self, x: int) -> str:
        return f"{self.base}({x})"


async def power(base: Any, exponent: int) -> int:
    return int(base**exponent)


def cached(path: Path, function: Callable[..., Awaitable[Any]]) -> Any:
    return AsyncLRU(backup=DiskBackend(path))(function)


@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [
        (Api("A").fetch, Api("B").fetch, "B/1"),
        (Api("A"), Api("B"), "B(1)"),
        (functools.partial(power, 2), functools.partial(power, 3), 3),
        (functools.partial(power, exponent=2), functools.partial(power, exponent=3), 1),
    ],
    ids=["method", "object", "partial", "partial by name"],
)
def test_what_carries_values_of_its_own_does_not_serve_those_of_another(
    run: Run, path: Path, one: Any, two: Any, expected: Any
) -> None:
    """The methods of two objects had one name, and so one file: `B.fetch(1)` was served `A/1`. A
    partial's name was its `repr`, with an address, so its file was never used again.
    """
    first = cached(path, one)
    value = run(first(1))
    first.save_to_backup()
    with pytest.raises(ValueError, match="file of its own"):
        cached(path, two)
    again = cached(path, one)
    assert again.stats()["cold"] == 1
    assert run(again(1)) == value
    assert again.get_metrics()["hits"] == 1
    del first, again
    gc.collect()
    with pytest.warns(CacheWarning, match="sets it aside"):
        other = cached(path, two)
    assert run(other(1)) == expected


PARTIAL = """
import asyncio, functools, sys
from cache import AsyncLRU, DiskBackend

async def power(base, exponent):
    return base ** exponent

f = AsyncLRU(backup=DiskBackend(sys.argv[1]))(functools.partial(power, 2))
print(asyncio.run(f(3)), f.get_metrics()["hits"])
f.save_to_backup()
"""


def test_a_partial_is_warm_in_the_next_process(path: Path) -> None:
    assert [output_of(PARTIAL, path).split() for _ in range(2)] == [["8", "0"], ["8", "1"]]


@pytest.mark.parametrize(
    "function",
    [Api(object()).fetch, Api(object()), functools.partial(power, object())],
    ids=["method", "object", "partial"],
)
def test_what_no_other_process_would_know_again_has_no_backup(path: Path, function: Any) -> None:
    with pytest.raises(TypeError, match="backup"):
        cached(path, function)
    AsyncLRU()(function)


CELL = """
@AsyncLRU(backup=DiskBackend(path))
async def get_product(i):
    return {}
"""


def test_a_function_that_is_defined_again_takes_over_the_file(path: Path) -> None:
    """An edited cell of a notebook could not be run again, and no module could be reloaded."""
    scope: dict[str, Any] = {"AsyncLRU": AsyncLRU, "DiskBackend": DiskBackend, "path": path, "__name__": "nb"}
    exec(CELL.format("i"), scope)
    first = scope["get_product"]
    assert asyncio.run(first(1)) == 1
    exec(CELL.format("i + 1"), scope)
    second = scope["get_product"]
    assert asyncio.run(second(1)) == 2
    second.save_to_backup()
    # The old function may still be registered with atexit.
    with pytest.warns(CacheWarning, match="defined again"):
        first.save_to_backup()
    del first, second, scope["get_product"]
    gc.collect()
    exec(CELL.format("i + 1"), scope)
    assert asyncio.run(scope["get_product"](1)) == 2
    assert scope["get_product"].get_metrics()["hits"] == 1


CLASS = """
class Api:
    @AsyncLRU(skip_args=1, backup=DiskBackend(path))
    async def fetch(self, x):
        return [super().__repr__(), {}][1]
"""


def test_a_class_that_is_defined_again_takes_over_the_file_of_its_method(path: Path) -> None:
    scope: dict[str, Any] = {"AsyncLRU": AsyncLRU, "DiskBackend": DiskBackend, "path": path, "__name__": "nb"}
    exec(CLASS.format(1), scope)
    kept = scope["Api"]
    exec(CLASS.format(2), scope)
    assert asyncio.run(scope["Api"]().fetch(0)) == 2
    assert asyncio.run(kept().fetch(0)) == 1


def test_functions_of_one_name_that_close_over_different_things_are_refused(path: Path) -> None:
    def make(url: str) -> Any:
        async def fetch(x: int) -> str:
            return url

        return cached(path, fetch)

    kept = make("a")
    with pytest.raises(ValueError, match="another function with the name"):
        make("b")
    del kept


def test_a_function_that_was_dropped_does_not_keep_its_file(path: Path) -> None:
    """The function keeps itself alive until the next garbage collection."""

    async def one(x: int) -> int:
        return x

    async def another(x: int) -> int:
        return x

    gc.collect()
    gc.disable()
    try:
        kept = cached(path, one)
        del kept
        cached(path, another)
    finally:
        gc.enable()


def test_a_file_is_in_use_as_long_as_any_cache_uses_it(path: Path) -> None:
    """The second cache on a path took over the first cache's claim, and removed the claim when it
    died.
    """
    first = AsyncCache(backup=DiskBackend(path))
    second = AsyncCache(backup=DiskBackend(path))
    del second
    gc.collect()
    with pytest.raises(ValueError, match="an AsyncCache"):
        cached(path, power)
    del first


OTHER = """
import asyncio, sys
from cache import AsyncLRU, DiskBackend

@AsyncLRU(backup=DiskBackend(sys.argv[1]))
async def other(x):
    return "other"

asyncio.run(other(1))
other.save_to_backup()
"""


def test_a_file_of_another_function_that_came_since_the_load_is_set_aside(run: Run, path: Path) -> None:
    """The file was silently replaced."""
    function = cached(path, power)
    run(function(1, 2))
    output_of(OTHER, path)
    theirs = path.read_bytes()
    with pytest.warns(CacheWarning, match="aside"):
        function.save_to_backup()
    aside = [file for file in path.parent.iterdir() if file.read_bytes() == theirs]
    assert len(aside) == 1
    assert aside[0] != path
    with no_warning():
        assert cached(path, power).stats()["cold"] == 1


def test_a_file_that_is_ours_again_is_not_set_aside(run: Run, path: Path) -> None:
    """The fact that a file belonged to another function was remembered even after the file was
    corrected.
    """
    function = cached(path, power)
    run(function(1, 2))
    function.save_to_backup()
    good = path.with_name("good")
    shutil.copy(path, good)
    del function
    gc.collect()
    output_of(OTHER, path.with_name("other"))
    shutil.copy(path.with_name("other"), path)
    with pytest.warns(CacheWarning):
        function = cached(path, power)
    shutil.copy(good, path)
    with no_warning():
        function.load_from_backup()
        assert function.get_metrics()["size"] == 1
        function.save_to_backup()
    files = {file.name for file in path.parent.iterdir() if file.suffix != ".lock"}
    assert files == {path.name, "good", "other"}


def test_a_long_name_in_any_script_fits_into_the_file(run: Run, path: Path) -> None:
    name = "函数" * 60
    scope: dict[str, Any] = {"__name__": "m"}
    exec(f"async def {name}(x): return x", scope)
    function = AsyncLRU(backup=DiskBackend(path, version="v" * 100))(scope[name])
    run(function(1))
    function.save_to_backup()
    with no_warning():
        again = AsyncLRU(backup=DiskBackend(path, version="v" * 100))(scope[name])
    assert again.stats()["cold"] == 1


def test_a_backend_alone_says_whose_file_it_cannot_read(run: Run, path: Path) -> None:
    function = cached(path, power)
    run(function(1, 2))
    function.save_to_backup()
    with pytest.warns(CacheWarning, match="the function .*power"):
        assert DiskBackend(path).load() == {}


def test_a_relative_path_is_the_same_file_wherever_the_process_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    backend = DiskBackend("relative.cache")
    cache = AsyncCache(backup=backend)
    cache.set("k", 1)
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    cache.save_to_backup()
    assert os.listdir(tmp_path / "below") == []
    assert backend.load()["k"][0] == 1
    assert backend.path == "relative.cache"


def test_warnings_point_at_the_line_that_asked(path: Path) -> None:
    path.write_bytes(b"something else, and long enough for a header" * 20)

    def where(work: Callable[[], Any]) -> str:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            work()
        assert len(caught) == 1
        return caught[0].filename

    assert where(lambda: AsyncCache(backup=DiskBackend(path))) == __file__
    assert where(lambda: cached(path, power)) == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cache = AsyncCache(backup=DiskBackend(path))
    assert where(cache.load_from_backup) == __file__
    assert where(cache.save_to_backup) == __file__

    def leave() -> None:
        with cache:
            cache.set("l", lambda: 1)

    assert where(leave) == __file__
