"""Runs programs of cache operations, one a line of JSON, and answers each with a line of JSON.

Imports the first `cache` on the path: the same file runs against this package and against the
original.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from cache import AsyncCache, AsyncLRU, AsyncTTL

Loader = Callable[[], Awaitable[Any]]


class Program:
    """One program: a cache, two decorated functions, and a count of the loads that gives each value
    its name.
    """

    def __init__(self, maxsize: int | None, max_batch_size: int) -> None:
        self.cache = AsyncCache(maxsize=maxsize, batch_window_ms=0, max_batch_size=max_batch_size)
        self.loads = 0
        self.batches: list[list[Any]] = []
        self.functions: dict[str, Any] = {
            "lru": AsyncLRU(maxsize=maxsize)(self._function("lru")),
            "ttl": AsyncTTL(time_to_live=1000, maxsize=maxsize)(self._function("ttl")),
        }

    def _function(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def function(*args: Any, **options: Any) -> str:
            self.loads += 1
            await asyncio.sleep(0)
            if args and args[0] == "fails":
                raise KeyError(self.loads)
            return f"{name} {args} {sorted(options.items())} {self.loads}"

        function.__name__ = function.__qualname__ = name
        return function

    def loader(self, kind: str) -> Loader | None:
        """A loader that returns a value, a loader that fails, or none."""

        async def load() -> str:
            self.loads += 1
            number = self.loads
            await asyncio.sleep(0)
            if kind == "fails":
                raise ValueError(number)
            return f"loaded {number}"

        return None if kind == "none" else load

    async def batch_loader(self, keys: list[Any]) -> dict[Any, str]:
        """Returns values for keys of even length; fails if a key asks for a failure."""
        self.batches.append(list(keys))
        await asyncio.sleep(0)
        if "fails" in keys:
            raise LookupError(str(keys))
        return {key: f"batched {key}" for key in keys if len(str(key)) % 2 == 0}

    async def do(self, operation: list[Any]) -> Any:
        """Does one operation and returns its answer."""
        name, *rest = operation
        try:
            return await getattr(self, f"op_{name}")(*rest)
        except Exception as error:
            return ["raised", type(error).__name__, str(error)]

    async def op_get(self, key: Any, kind: str, ttl: float | None) -> Any:
        return await self.cache.get(key, self.loader(kind), ttl=ttl)

    async def op_herd(self, key: Any, kind: str, count: int) -> Any:
        loader = self.loader(kind)
        asked = (self.cache.get(key, loader) for _ in range(count))
        return [_shown(one) for one in await asyncio.gather(*asked, return_exceptions=True)]

    async def op_batch(self, keys: list[Any]) -> Any:
        asked = (self.cache.get(key, batch_loader=self.batch_loader) for key in keys)
        answers = [_shown(one) for one in await asyncio.gather(*asked, return_exceptions=True)]
        batches, self.batches = self.batches, []
        return [answers, batches]

    async def op_set(self, key: Any, value: Any, ttl: Any) -> Any:
        self.cache.set(key, value) if ttl == "default" else self.cache.set(key, value, ttl=ttl)

    async def op_set_anew(self, key: Any, value: Any, ttl: Any) -> Any:
        self.cache.delete(key)
        await self.op_set(key, value, ttl)

    async def op_delete(self, key: Any) -> Any:
        self.cache.delete(key)

    async def op_clear(self) -> Any:
        self.cache.clear()

    async def op_metrics(self) -> Any:
        return [self.cache.get_metrics(), self.cache.hits, self.cache.misses]

    async def op_in(self, key: Any) -> Any:
        return key in self.cache.cache

    async def op_len(self) -> Any:
        return len(self.cache.cache)

    async def op_warmup(self, keys: list[Any]) -> Any:
        # The loads overlap in one package and not in the other: the values are independent of their
        # order.
        async def load() -> str:
            return "warmed"

        await self.cache.warmup({key: load for key in keys})

    async def op_call(self, which: str, args: list[Any], options: dict[str, Any]) -> Any:
        return await self.functions[which](*args, **options)

    async def op_calls(self, which: str, args: list[Any], count: int) -> Any:
        asked = (self.functions[which](*args) for _ in range(count))
        return [_shown(one) for one in await asyncio.gather(*asked, return_exceptions=True)]

    async def op_invalidate(self, which: str, args: list[Any], options: dict[str, Any]) -> Any:
        self.functions[which].invalidate_cache(*args, **options)

    async def op_clear_cache(self, which: str) -> Any:
        self.functions[which].clear_cache()

    async def op_function_metrics(self, which: str) -> Any:
        return self.functions[which].get_metrics()


def _shown(answer: Any) -> Any:
    if isinstance(answer, BaseException):
        return ["raised", type(answer).__name__, str(answer)]
    return answer


async def _answers(program: dict[str, Any]) -> list[Any]:
    running = Program(program["maxsize"], program["max_batch_size"])
    return [await running.do(operation) for operation in program["operations"]]


def main() -> None:
    """Answers every line."""
    for line in sys.stdin:
        print(json.dumps(asyncio.run(_answers(json.loads(line)))), flush=True)


if __name__ == "__main__":
    main()
