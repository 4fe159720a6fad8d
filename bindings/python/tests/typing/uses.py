"""Right and wrong uses of decorated functions: a line that ends with ``# wrong`` is an error, all
others are valid.

`check.py` compares mypy and pyright with this file. Nothing here runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from agent_cache import AgentCache, AgentCacheInvalidator
from cache import AsyncCache, AsyncLRU, AsyncLRUInvalidator, AsyncTTL, AsyncTTLInvalidator


@AsyncLRU(maxsize=10, exclude={"height"})
async def area(width: int, height: int = 1) -> int:
    return width * height


class Repository:
    @AsyncTTL(time_to_live=5)
    async def name(self, key: int) -> str:
        return str(key)

    @classmethod
    @AsyncLRU()
    async def of_class(cls, key: int) -> str:
        return str(key)

    @staticmethod
    @AsyncLRU()
    async def static(key: int) -> str:
        return str(key)

    @staticmethod
    @AsyncLRU()
    async def nothing() -> str:
        return ""

    @AsyncTTL(per_instance=True)
    async def of_object(self, key: int) -> str:
        return str(key)

    @AsyncTTLInvalidator(name)
    async def rename(self, key: int, text: str) -> bool:
        return bool(text)


@AsyncLRUInvalidator(area)
async def change(width: int, height: int) -> None: ...


@AgentCache(resource="answers", per_instance=False)
async def ask(question: str) -> list[str]:
    return [question]


@AgentCacheInvalidator(resource="answers")
async def tell(question: str, answer: str) -> int:
    return len(question + answer)


async def number() -> int:
    return 1


def plain(key: int) -> int:
    return key


async def functions() -> None:
    good: int = await area(1, height=2)
    good = await area(1)
    good = await area(1, 2, use_cache=False)
    good = await asyncio.create_task(area(1, 2))
    good, _ = await asyncio.gather(area(1), ask("q"))
    function: Callable[[int, int], Coroutine[Any, Any, int]] = area
    await function(1, good)
    undecorated: Callable[[int, int], Awaitable[int]] = area.__wrapped__
    await undecorated(1, 2)
    area.invalidate_cache(1, 2)
    area.invalidate_cache(width=1)
    area.clear_cache()
    area.save_to_backup()
    await area.save_to_backup_async()
    area.load_from_backup()
    hits = area.get_metrics()["hits"] + area.stats()["loads"]
    print(hits, area.__name__, area.__qualname__, area.skip_args)
    await area("1", 2)  # wrong
    await area()  # wrong
    await area(1, depth=2)  # wrong
    text: str = await area(1, 2)  # wrong
    area.invalidate_cache("1")  # wrong
    area.invalidate_cache(1, 2, 3)  # wrong
    area.no_such_method()  # wrong
    wrong: Callable[[str], Coroutine[Any, Any, int]] = area  # wrong
    AsyncLRU()(plain)  # wrong
    AsyncLRU(exclude=5)  # wrong
    AsyncLRU(per_instance="yes")  # wrong
    AsyncLRU(maxsize="10")  # wrong
    print(text, wrong)


async def methods() -> None:
    repository = Repository()
    text: str = await repository.name(1)
    text = await repository.name(key=1, use_cache=False)
    text = await Repository.name(repository, 1)
    text = await repository.of_object(1)
    repository.of_object.invalidate_cache(1)
    Repository.of_object.invalidate_cache(repository, key=1)
    await repository.of_object("1", 2)  # wrong
    text = await repository.of_class(1)
    text = await Repository.of_class(1)
    text = await repository.static(1)
    text = await Repository.static(1)
    text = await Repository.nothing()
    bound: Callable[[int], Coroutine[Any, Any, str]] = repository.name
    text = await asyncio.create_task(bound(1))
    repository.name.invalidate_cache(1)
    Repository.name.invalidate_cache(repository, 1)
    Repository.of_class.invalidate_cache(1)
    repository.static.invalidate_cache(1)
    repository.name.clear_cache()
    done: bool = await repository.rename(1, "new")
    await repository.name("1")  # wrong
    await repository.name(1, 2)  # wrong
    other: int = await repository.name(1)  # wrong
    repository.name.invalidate_cache("1")  # wrong
    await repository.of_class("1")  # wrong
    await Repository.of_class("1")  # wrong
    await repository.static("1")  # wrong
    await Repository.nothing(1)  # wrong
    repository.name.no_such_method()  # wrong
    await repository.rename("1", "new")  # wrong
    other = await repository.rename(1)  # wrong
    print(text, done, other)


async def writes_and_tools() -> None:
    await change(1, 2)
    await asyncio.create_task(change(1, height=2))
    answers: list[str] = await ask("q")
    answers = await ask("q", use_cache=False)
    ask.invalidate_cache("q")
    print(ask.resource, ask.scope, answers)
    length: int = await asyncio.create_task(tell("q", "a"))
    await change("1", 2)  # wrong
    await ask(5)  # wrong
    length = await ask("q")  # wrong
    ask.invalidate_cache(5)  # wrong
    await tell("q", 5)  # wrong
    length = await change(1, 2)  # wrong
    print(length)


async def caches() -> None:
    cache = AsyncCache(maxsize=None, default_ttl=1.5)
    cache.set("a", 1, ttl=None)
    await cache.delete("a")
    value = await cache.get("a", loader=number)
    await asyncio.create_task(cache.get("a"))
    print(value)
    cache.set("a")  # wrong
    await cache.get("a", loader=number())  # wrong
    await cache.get("a", ttl="1")  # wrong
