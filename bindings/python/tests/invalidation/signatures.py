"""Functions and calls of the tests of invalidation."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator
from typing import Any

from agent_cache import AgentCache
from cache import AsyncLRU, AsyncTTL

Call = tuple[tuple[Any, ...], dict[str, Any]]


def counted(source: str, **names: Any) -> tuple[Any, list[Any]]:
    """An async function with the given parameter list, which records its runs."""
    runs: list[Any] = []
    space: dict[str, Any] = {"runs": runs, **names}
    exec(f"async def read({source}):\n    runs.append(1)\n    return len(runs)", space)
    return space["read"], runs


def all_calls(
    function: Any, values: dict[str, Any], left_out: frozenset[str] = frozenset()
) -> Iterator[Call]:
    """Every way to call a function with these values, found by trying; left-out arguments may have
    any value.
    """
    parameters = list(inspect.signature(function).parameters.values())
    plain = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    more = values.get("*", ())
    takes_any_name = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for how in itertools.product(("position", "name", "nothing"), repeat=len(plain)):
        args: list[Any] = []
        kwargs: dict[str, Any] = dict(values.get("**", {}))
        for p, way in zip(plain, how, strict=True):
            value = values.get(p.name, p.default)
            if way == "position":
                args.append(value)
            elif way == "name":
                kwargs[p.name] = value
        # Python 3.13.0 binds these arguments.
        refused = set() if takes_any_name else {p.name for p in plain if p.kind is p.POSITIONAL_ONLY}
        if not refused.isdisjoint(kwargs):
            continue
        try:
            bound = inspect.signature(function).bind(*args, *more, **kwargs)
        except TypeError:
            continue
        bound.apply_defaults()
        wanted = {p.name: values.get(p.name, p.default) for p in plain}
        taken = next((bound.arguments[p.name] for p in parameters if p.kind is p.VAR_POSITIONAL), ())
        if taken != tuple(more):
            continue
        given = {name: bound.arguments[name] for name in wanted if name not in left_out}
        if all(value is wanted[name] or value == wanted[name] for name, value in given.items()):
            yield (*args, *more), kwargs


class Repository:
    def __init__(self, table: str) -> None:
        self.table = table

    @AsyncLRU()
    async def row(self, number: int = 0) -> object:
        return object()

    @AsyncLRU(skip_args=1)
    async def shared(self, number: int = 0) -> object:
        return object()

    @classmethod
    @AsyncTTL(60)
    async def of_class(cls, number: int = 0) -> object:
        return object()

    @staticmethod
    @AsyncTTL(60)
    async def static(number: int = 0) -> object:
        return object()

    @AgentCache(resource="rows")
    async def tool(self, number: int = 0) -> object:
        return object()
