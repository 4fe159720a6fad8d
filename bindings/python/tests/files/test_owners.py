"""One file belongs to one function or cache, and to one version."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from loops import Run

from cache import AsyncCache, AsyncLRU, AsyncTTL, CacheWarning, DiskBackend


def test_two_functions_on_one_file_are_refused(path: Path) -> None:
    @AsyncLRU(backup=DiskBackend(path))
    async def one(x: int) -> int:
        return x

    async def another(x: int) -> int:
        return x

    with pytest.raises(ValueError) as refused:
        AsyncTTL(backup=DiskBackend(str(path)))(another)
    assert "one" in str(refused.value)
    assert "another" in str(refused.value)


def test_a_decorator_with_a_backup_decorates_one_function(path: Path) -> None:
    decorator = AsyncLRU(backup=DiskBackend(path))

    @decorator
    async def one(x: int) -> int:
        return x

    async def another(x: int) -> int:
        return x

    with pytest.raises(ValueError, match="another"):
        decorator(another)


def test_a_file_of_another_version_is_empty(run: Run, path: Path) -> None:
    cache = AsyncCache(backup=DiskBackend(path, version="v1"))
    cache.set("k", "v")
    cache.save_to_backup()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheWarning)
        assert run(AsyncCache(backup=DiskBackend(path, version="v2")).get("k")) is None
        assert run(AsyncCache(backup=DiskBackend(path)).get("k")) is None
        assert DiskBackend(path, version="v2").load() == {}
    assert run(AsyncCache(backup=DiskBackend(path, version="v1")).get("k")) == "v"


def test_version_is_given_by_name(path: Path) -> None:
    backend: Any = DiskBackend
    with pytest.raises(TypeError):
        backend(path, "v1")
