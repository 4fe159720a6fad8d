"""Backends for the tests: one in memory that follows the contract, and some that fail."""

from __future__ import annotations

import time
from typing import Any

from cache import CacheBackend


class MemoryBackend(CacheBackend):
    """A user's own backend: keeps the entries, with deadlines on the monotonic clock."""

    def __init__(self, data: dict[Any, tuple[Any, float | None]] | None = None) -> None:
        self.data: dict[Any, tuple[Any, float | None]] = data or {}
        self.saved: list[dict[Any, tuple[Any, float | None]]] = []
        self.loads = 0

    def load(self) -> dict[Any, tuple[Any, float | None]]:
        self.loads += 1
        return dict(self.data)

    def save(self, data: dict[Any, tuple[Any, float | None]]) -> None:
        now = time.monotonic()
        self.saved.append(dict(data))
        self.data = {
            key: (value, None if left is None else now + left) for key, (value, left) in data.items()
        }

    def clear(self) -> None:
        self.data = {}


class LoadFails(MemoryBackend):
    """Cannot be read."""

    def load(self) -> dict[Any, tuple[Any, float | None]]:
        raise ConnectionError("the backend is away")


class SaveFails(MemoryBackend):
    """Cannot be written."""

    def save(self, data: dict[Any, tuple[Any, float | None]]) -> None:
        raise ConnectionError("the backend is full")
