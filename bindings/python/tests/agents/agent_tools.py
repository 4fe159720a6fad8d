"""Tools of the tests of the agent cache."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from agent_cache import (
    AgentCache,
)
from agent_cache._registry import registry


@pytest.fixture(autouse=True)
def no_session_is_left_behind() -> Iterator[None]:
    yield
    assert registry.sessions() == []


class Tool:
    """A tool that counts its calls and returns a given result, or a new result each time."""

    def __init__(self, **options: Any) -> None:
        self.calls: list[Any] = []
        self.result: Any = None

        @AgentCache(**{"resource": f"resource {id(self)}", **options})
        async def tool(argument: Any = None, *, option: Any = None) -> Any:
            self.calls.append(argument)
            return f"{argument} {len(self.calls)}" if self.result is None else self.result

        self.tool = tool
        self.resource = tool.resource

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.tool(*args, **kwargs)
