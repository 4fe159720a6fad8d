"""A user's own backends, and the disk backend by itself."""

from __future__ import annotations

import asyncio
import copy
import pickle
import time
from pathlib import Path
from typing import Any

import pytest
from complaints import no_warning
from loops import Run, outcome, returns, turns
from stores import LoadFails, MemoryBackend, SaveFails

import cache as package
from cache import AsyncCache, AsyncTTL, CacheBackend, CacheWarning, DiskBackend


def test_a_backend_that_raises_on_load_is_an_empty_cache_and_a_warning(run: Run) -> None:
    with pytest.warns(CacheWarning, match="the backend is away"):
        cache = AsyncCache(backup=LoadFails())
    assert len(cache.cache) == 0
    assert run(cache.get("k", returns(1))) == 1


def test_a_backend_that_raises_on_save_raises_to_the_caller(run: Run) -> None:
    cache = AsyncCache(backup=SaveFails())
    cache.set("k", 1)
    with pytest.raises((ConnectionError, package.BackupError)) as raised:
        cache.save_to_backup()
    causes = [raised.value, raised.value.__cause__]
    assert any(isinstance(cause, ConnectionError) for cause in causes)
    assert isinstance(run(outcome(cache.save_to_backup_async())), (ConnectionError, package.BackupError))
    assert run(cache.get("k")) == 1
    assert (cache.stats()["saves"], cache.stats()["save_errors"]) == (0, 2)


def test_a_backend_that_loads_something_else_is_an_empty_cache_and_a_warning() -> None:
    for nonsense in ([1, 2], {"k": "no tuple"}, {"k": (1, 2, 3)}, {"k": (1, "soon")}):
        backend = MemoryBackend()
        backend.load = lambda nonsense=nonsense: nonsense  # type: ignore[method-assign,misc]
        with pytest.warns(CacheWarning):
            cache = AsyncCache(backup=backend)
        assert len(cache.cache) == 0


def test_an_entry_that_is_malformed_is_left_out_alone(run: Run) -> None:
    """The load stopped at the first malformed entry, and the next save replaced all entries after
    it.
    """
    forever = float("inf")
    entries: Any = {
        "a": (1, None),
        "b": (2,),
        "c": (3, forever),
        "d": 4,
        "e": (5, "soon"),
        ("f", 1): [6, None],
    }
    entries["g"] = (7, time.monotonic() - 1)
    backend = MemoryBackend(entries)
    with pytest.warns(CacheWarning, match="3 of 7 entries could not be taken in; the first one is 'b'"):
        cache = AsyncCache(backup=backend)
    for key, value in (("a", 1), ("b", None), ("c", 3), ("d", None), ("e", None), (("f", 1), 6), ("g", None)):
        assert run(cache.get(key)) == value
    cache.save_to_backup()
    assert backend.data == {"a": (1, None), "c": (3, None), ("f", 1): (6, None)}


def test_a_backend_whose_load_returns_nothing_is_an_empty_cache(run: Run) -> None:
    class RedisBackend(CacheBackend):
        """The example of the documentation, unchanged except for the client."""

        def load(self) -> Any: ...
        def save(self, data: Any) -> None: ...
        def clear(self) -> None: ...

    with no_warning():
        cache = AsyncCache(backup=RedisBackend())
        cache.set("k", 1)
        cache.save_to_backup()
        cache.load_from_backup()
    assert run(cache.get("k")) == 1


def test_a_backend_of_the_users_own_serves_decorated_functions(run: Run) -> None:
    backend = MemoryBackend()

    def application() -> tuple[Any, list[Any]]:
        calls: list[Any] = []

        @AsyncTTL(time_to_live=100, backup=backend)
        async def f(*args: Any, **options: Any) -> str:
            calls.append(args)
            return "v"

        return f, calls

    async def use(f: Any) -> None:
        await f(1)
        await f([1, {"a": 2}], x="y")

    f, calls = application()
    run(use(f))
    assert len(calls) == 2
    f.save_to_backup()
    (saved,) = backend.saved
    assert [value for value, _ in saved.values()] == ["v", "v"]
    assert all(left is not None and 90 < left <= 100 for _, left in saved.values())
    # Entries passed to a backend can be pickled, as every Redis backend does.
    backend.data = pickle.loads(pickle.dumps(backend.data))
    again, calls = application()
    run(use(again))
    assert calls == []


def test_a_disk_backend_subclass_that_overrides_load_and_save_is_called(run: Run, path: Path) -> None:
    called: list[str] = []

    class Mine(DiskBackend):
        def load(self) -> dict[Any, tuple[Any, float | None]]:
            called.append("load")
            return {**super().load(), "extra": ("from load", None)}

        def save(self, data: dict[Any, tuple[Any, float | None]]) -> None:
            called.append("save")
            super().save({key: entry for key, entry in data.items() if key != "secret"})

    cache = AsyncCache(backup=Mine(path))
    assert called == ["load"]
    assert run(cache.get("extra")) == "from load"
    cache.set("secret", 1)
    cache.set("k", 2)
    cache.save_to_backup()
    run(cache.save_to_backup_async())
    assert called == ["load", "save", "save"]
    assert set(DiskBackend(path).load()) == {"k", "extra"}


def test_a_disk_backend_and_a_cache_agree_about_the_file(run: Run, path: Path) -> None:
    DiskBackend(path).save({"k": ("v", None), (1, "a"): ({"x": 1}, 100.0)})
    cache = AsyncCache(backup=DiskBackend(path))
    assert [run(cache.get("k")), run(cache.get((1, "a")))] == ["v", {"x": 1}]
    cache.set("l", "w")
    cache.save_to_backup()
    data = DiskBackend(path).load()
    assert {key: value for key, (value, _) in data.items()} == {"k": "v", (1, "a"): {"x": 1}, "l": "w"}


def test_a_disk_backend_is_thread_safe(run: Run, path: Path) -> None:
    async def main() -> None:
        backend = DiskBackend(path)
        entries: dict[Any, tuple[Any, float | None]] = {number: (number, None) for number in range(500)}
        backend.save(entries)
        await asyncio.gather(
            *(asyncio.to_thread(backend.save, entries) for _ in range(10)),
            *(asyncio.to_thread(_load_and_check, backend, entries) for _ in range(10)),
        )
        await turns()

    run(main())


def _load_and_check(backend: DiskBackend, entries: dict[Any, tuple[Any, float | None]]) -> None:
    assert backend.load() == entries


def test_a_disk_backend_can_be_copied_and_pickled(path: Path) -> None:
    backend = DiskBackend(path, version="v1")
    backend.save({"k": (1, None)})
    for again in (copy.copy(backend), copy.deepcopy(backend), pickle.loads(pickle.dumps(backend))):
        assert again.load() == {"k": (1, None)}
        assert (again.path, again.version, repr(again)) == (backend.path, "v1", repr(backend))
        again.save({"k": (1, None)})


def test_a_secret_is_copied_and_not_pickled(path: Path) -> None:
    backend = DiskBackend(path, secret="not for everybody's eyes", compression="zstd")
    backend.save({"k": (1, None)})
    assert copy.deepcopy(backend).load() == {"k": (1, None)}
    with pytest.raises(TypeError, match="secret"):
        pickle.dumps(backend)
