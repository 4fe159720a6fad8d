"""The promises of the compatibility tables about backends, row by row."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from loops import Run
from stores import MemoryBackend

from cache import (
    AsyncCache,
    AsyncLRU,
    AsyncTTL,
    CacheBackend,
    DiskBackend,
)


def test_a_backend_needs_load_save_and_clear() -> None:
    class Half(CacheBackend):
        def load(self) -> dict[Any, tuple[Any, float | None]]:
            return {}

    with pytest.raises(TypeError, match="abstract"):
        Half()  # type: ignore[abstract]


def test_a_cache_loads_its_backup_on_construction_and_saves_seconds_left(run: Run) -> None:
    async def main() -> None:
        backend = MemoryBackend({"k": ("v", time.monotonic() + 100), "never": (1, None), "over": (2, 0.0)})
        cache = AsyncCache(backup=backend)
        assert [await cache.get(key) for key in ("k", "never", "over")] == ["v", 1, None]
        cache.save_to_backup()
        (saved,) = backend.saved
        assert set(saved) == {"k", "never"}
        assert saved["never"] == (1, None)
        left = saved["k"][1]
        assert left is not None
        assert 90 < left <= 100

    run(main())


def test_backend_is_another_name_of_backup(run: Run) -> None:
    backend = MemoryBackend({"k": ("v", None)})
    assert run(AsyncCache(backend=backend).get("k")) == "v"
    AsyncLRU(backend=backend)
    AsyncTTL(backend=backend)


def test_a_disk_backend_works_alone(tmp_path: Path) -> None:
    path = tmp_path / "a" / "folder" / "that is not there" / "x.cache"
    backend = DiskBackend(path)
    assert backend.load() == {}
    backend.save({"k": ("v", None), ("a", 1): ([1, {"b": {2, 3}}], 100), "over": (1, -1)})
    before = time.monotonic()
    data = DiskBackend(str(path)).load()
    assert data["k"] == ("v", None)
    value, deadline = data["a", 1]
    assert value == [1, {"b": {2, 3}}]
    assert deadline is not None
    assert before + 90 < deadline <= time.monotonic() + 100
    assert "over" not in data or (data["over"][1] or 0) <= time.monotonic()
    backend.clear()
    assert DiskBackend(path).load() == {}
    backend.clear()
