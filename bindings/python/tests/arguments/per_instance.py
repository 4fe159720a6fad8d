"""Classes whose methods are cached for each object."""

from __future__ import annotations

from typing import Any

import pytest
from loops import Run

from cache import AsyncLRU


def run(awaitable: Any) -> Any:
    return Run("asyncio")(awaitable)


class Base:
    """Its content must not be read."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.calls = 0

    def __getstate__(self) -> Any:
        raise AssertionError("the content was asked for")


class Repository(Base):
    @AsyncLRU(maxsize=None, per_instance=True)
    async def row(self, number: int, verbose: bool = False) -> tuple[str, int, int]:
        self.calls += 1
        return self.name, number, self.calls


@pytest.fixture(autouse=True)
def nothing_is_left() -> Any:
    yield
    Repository.row.clear_cache()
