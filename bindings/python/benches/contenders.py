"""The contenders: for every table, how each library does the measured operation.

`of_cache` makes the cases of the package imported as ``cache``: ours here, the original's in
`original.py`, by exactly the same code.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import importlib
from collections.abc import Awaitable, Callable, Iterator
from types import ModuleType
from typing import Any

import shapes
from timing import LOOPS, Bench, Case

HIT = "hit, decorated, one argument"
TTL = "hit, decorated with a TTL, one argument"
GET = "hit, `await cache.get(key)`"
THREE = "hit, decorated, three arguments, one by keyword"
AGENT = "hit, tool of an agent, one argument"
SET = "`set` of a key that is there"
METHOD = "hit, through an object"
ARGUMENT = "hit, decorated, by argument"
KEY = "hit, `await cache.get(key)`, by key"
SET_OF = "`set`, by value"
HERD = "herd of 1,000, per caller"
BATCH = "batches of 100, per key"


def miss(load: Callable[..., Any], loop: str) -> str:
    """The table of misses with a loader on a loop."""
    return f"miss, the loader {'suspends once' if load is shapes.suspends else 'does not suspend'}, {loop}"


MISSES = [(miss(load, loop), load, loop) for load in (shapes.suspends, shapes.answers) for loop in LOOPS]
TABLES = [HIT, TTL, GET, THREE, AGENT, SET, *(table for table, _, _ in MISSES), HERD, BATCH]

# Our targets, as multiples of the first contender of the table.
TARGETS = {
    HIT: 0.8,
    TTL: 1.1,
    GET: 1.2,
    THREE: 2.5,
    AGENT: 3.0,
    SET: 1.2,
    **{table: 1.4 for table, _, _ in MISSES},
}

_ON_A_TASK = (
    "async-cache and async-lru load on a task of its own, which outlives a cancelled caller; the original "
    "does not."
)
_AT_ONCE = "All keys are new, and all callers are tasks of one gather."
_WATCHED = "Ratios are to the plain decorated function. All calls are the same, and the limit is too high for an alarm."
NOTES = {
    AGENT: _WATCHED,
    **{table: _ON_A_TASK for table, _, _ in MISSES},
    HERD: "One load for all of them.",
    BATCH: _AT_ONCE,
}

# Enough for every herd and batch, and full after the first misses, like a cache in service.
_SIZE = 1024


def of_cache(name: str) -> Iterator[Case]:
    """The cases of the package imported as ``cache``."""
    cache = importlib.import_module("cache")

    async def get() -> Bench:
        return shapes.awaiting_get(_filled(cache.AsyncCache()))

    async def set_() -> Bench:
        return shapes.calling_set(_filled(cache.AsyncCache()))

    async def herd() -> Bench:
        shared = cache.AsyncCache(maxsize=_SIZE)
        return shapes.herd(lambda key, load: shared.get(key, loader=load))

    async def batch() -> Bench:
        return shapes.batches(cache.AsyncCache(maxsize=_SIZE, max_batch_size=shapes.BATCH))

    def missing(load: shapes.Call) -> Callable[[], Awaitable[Bench]]:
        async def make() -> Bench:
            return shapes.missing(cache.AsyncCache(maxsize=_SIZE), load)

        return make

    yield Case(HIT, f"{name}, AsyncLRU", _hit(lambda: cache.AsyncLRU()))
    yield Case(TTL, f"{name}, AsyncTTL", _hit(lambda: cache.AsyncTTL(time_to_live=3600)))
    yield Case(GET, name, get)
    yield Case(THREE, f"{name}, AsyncLRU", _three(lambda: cache.AsyncLRU()))
    yield Case(SET, name, set_)
    for table, load, loop in MISSES:
        yield Case(table, name, missing(load), loop)
    yield Case(HERD, name, herd)
    yield Case(BATCH, name, batch)


def yardsticks() -> Iterator[Case]:
    """The first contender of every table, the base of all ratios; and the empty loop."""
    yield from (
        Case(table, "an empty `async def`, awaited", _just(shapes.awaiting_nothing))
        for table in (HIT, TTL, GET, THREE, SET)
    )
    for table, load, loop in MISSES:
        bare = _just(functools.partial(shapes.bare_task, load))
        yield Case(table, "`await loop.create_task(load())`", bare, loop)
    yield Case(HERD, "a gather of 1,000 tasks that wait for one event", _just(lambda: shapes.herd(None)))
    yield Case(BATCH, "a gather of 100 tasks that wait for one event", _just(shapes.bare_batch))
    yield Case(HIT, "the empty loop", _just(shapes.empty_loop))


def of_ways() -> Iterator[Case]:
    """Other ways to call and other arguments, for the comparison of two builds of this package."""
    cache = importlib.import_module("cache")

    class Service:
        def __init__(self) -> None:
            self.tenant = "a"

        async def read(self, number: int) -> int:
            return number

    def service(**options: Any) -> Any:
        return type("Cached", (Service,), {"read": cache.AsyncLRU(**options)(Service.read)})()

    def with_argument(make: Callable[[], Any]) -> Callable[[], Awaitable[Bench]]:
        return lambda: _warm(shapes.awaiting_with(cache.AsyncLRU()(shapes.one), make()))

    def key_of(make: Callable[[], Any]) -> Callable[[], Awaitable[Bench]]:
        return lambda: _warm(shapes.awaiting_get_of(cache.AsyncCache(), make()))

    yield Case(METHOD, "a method", lambda: _warm(shapes.awaiting_method(service())))
    yield Case(
        METHOD, "a method that skips `self`", lambda: _warm(shapes.awaiting_method(service(skip_args=1)))
    )
    yield Case(METHOD, "the same, bound once", lambda: _warm(shapes.awaiting_one(service(skip_args=1).read)))
    for name, make in _VALUES.items():
        yield Case(SET_OF, name, _just(functools.partial(shapes.calling_set_of, cache.AsyncCache(), make())))
    for name, make in _ARGUMENTS.items():
        yield Case(ARGUMENT, name, with_argument(make))
    for name, make in _KEYS.items():
        yield Case(KEY, name, key_of(make))


@dataclasses.dataclass(frozen=True)
class Query:
    """A plain value object."""

    text: str
    limit: int


_VALUES: dict[str, Callable[[], Any]] = {
    "a dict of ten": lambda: {f"name {number}": number for number in range(10)},
    "a frozen dataclass": lambda: Query("key", 1),
}
_KEYS: dict[str, Callable[[], Any]] = {
    "a str": lambda: "key",
    "a str of 10,000 characters": lambda: "k" * 10_000,
    "a float": lambda: 1.5,
    "a tuple of two": lambda: ("key", 1),
    "a datetime": lambda: datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc),
    "a frozen dataclass of two fields": lambda: Query("key", 1),
}
_ARGUMENTS: dict[str, Callable[[], Any]] = {
    **_KEYS,
    "a list of ten": lambda: list(range(10)),
    "a dict of ten": lambda: {f"name {number}": number for number in range(10)},
}


def of_agents() -> Iterator[Case]:
    """The cases of tools: only ours, because no other library has them."""
    agent_cache = importlib.import_module("agent_cache")
    cache = importlib.import_module("cache")
    watched = {"loop_detection": True, "max_tool_repeats": 2**31}

    def tool(scope: str, **options: Any) -> Callable[[], Awaitable[Bench]]:
        async def make() -> Bench:
            decorated = agent_cache.AgentCache(resource="one", scope=scope)(shapes.one)
            return shapes.awaiting_tool(decorated, lambda: agent_cache.AgentCacheSession(**options))

        return make

    yield Case(AGENT, "the same function with AsyncLRU", _hit(lambda: cache.AsyncLRU()))
    yield Case(
        AGENT, "async-cache, AgentCache outside of sessions", _hit(lambda: agent_cache.AgentCache("one"))
    )
    yield Case(AGENT, "async-cache, AgentCache in a session", tool("global"))
    yield Case(AGENT, "async-cache, AgentCache of a session", tool("session"))
    yield Case(AGENT, "async-cache, AgentCache in a session with loop detection", tool("global", **watched))
    yield Case(AGENT, "async-cache, AgentCache of a session with loop detection", tool("session", **watched))


def of_peers() -> Iterator[Case]:
    """The cases of all other installed libraries."""
    yield from _of_standard_library()
    for package, cases in _PEERS.items():
        try:
            module = importlib.import_module(package)
        except ImportError:
            continue
        yield from cases(module)


def _of_standard_library() -> Iterator[Case]:
    cached = functools.lru_cache(maxsize=128)
    yield Case(HIT, "functools.lru_cache, called", _just(lambda: shapes.calling(cached(lambda x: x))))
    yield Case(
        THREE, "functools.lru_cache, called", _just(lambda: shapes.calling_three(cached(lambda x, y, z: x)))
    )
    yield Case(SET, "a dict's item", _just(lambda: shapes.setting_item({"key": 0})))


def _of_async_lru(async_lru: ModuleType) -> Iterator[Case]:
    alru_cache = async_lru.alru_cache

    async def missing() -> Bench:
        return shapes.missing_call(alru_cache(maxsize=_SIZE)(_suspending))

    yield Case(HIT, "async-lru", _hit(lambda: alru_cache(maxsize=128)))
    yield Case(TTL, "async-lru", _hit(lambda: alru_cache(maxsize=1024, ttl=3600)))
    yield Case(THREE, "async-lru", _three(lambda: alru_cache(maxsize=128)))
    yield Case(miss(shapes.suspends, "asyncio"), "async-lru, decorated", missing)


def _of_cachebox(cachebox: ModuleType) -> Iterator[Case]:
    cached = cachebox.cached
    yield Case(HIT, "cachebox", _hit(lambda: cached(cachebox.LRUCache(128))))
    yield Case(TTL, "cachebox", _hit(lambda: cached(cachebox.TTLCache(1024, 3600))))
    yield Case(THREE, "cachebox", _three(lambda: cached(cachebox.LRUCache(128))))
    yield Case(SET, "cachebox, an item", _just(lambda: shapes.setting_item(cachebox.LRUCache(128))))


def _of_moka(moka: ModuleType) -> Iterator[Case]:
    yield Case(HIT, "moka-py", _hit(lambda: moka.cached(maxsize=128)))
    yield Case(TTL, "moka-py", _hit(lambda: moka.cached(maxsize=1024, ttl=3600)))
    yield Case(THREE, "moka-py", _three(lambda: moka.cached(maxsize=128)))
    yield Case(SET, "moka-py", _just(lambda: shapes.calling_set(moka.Moka(128))))


def _of_aiocache(aiocache: ModuleType) -> Iterator[Case]:
    async def filled() -> Any:
        memory = aiocache.SimpleMemoryCache()
        await memory.set("key", 1)
        return memory

    async def get() -> Bench:
        return shapes.awaiting_get(await filled())

    async def set_() -> Bench:
        return shapes.awaiting_set(await filled())

    yield Case(HIT, "aiocache", _hit(lambda: aiocache.cached()))
    yield Case(TTL, "aiocache", _hit(lambda: aiocache.cached(ttl=3600)))
    yield Case(GET, "aiocache", get)
    yield Case(THREE, "aiocache", _three(lambda: aiocache.cached()))
    yield Case(SET, "aiocache, awaited", set_)


def _of_cashews(cashews: ModuleType) -> Iterator[Case]:
    def memory() -> Any:
        cache = cashews.Cache()
        cache.setup("mem://", size=1024)
        return cache

    async def get() -> Bench:
        cache = memory()
        await cache.set("key", 1)
        return shapes.awaiting_get(cache)

    async def set_() -> Bench:
        return shapes.awaiting_set(memory())

    yield Case(TTL, "cashews", _hit(lambda: memory()(ttl=3600)))
    yield Case(GET, "cashews", get)
    yield Case(SET, "cashews, awaited", set_)


_PEERS: dict[str, Callable[[ModuleType], Iterator[Case]]] = {
    "async_lru": _of_async_lru,
    "cachebox": _of_cachebox,
    "moka_py": _of_moka,
    "aiocache": _of_aiocache,
    "cashews": _of_cashews,
}


async def _suspending(_: int) -> int:
    return await shapes.suspends()


def _filled(cache: Any) -> Any:
    cache.set("key", 1)
    return cache


def _just(make: Callable[[], Bench]) -> Callable[[], Awaitable[Bench]]:
    async def ready() -> Bench:
        return make()

    return ready


def _hit(decorator: Callable[[], Any]) -> Callable[[], Awaitable[Bench]]:
    async def make() -> Bench:
        return await _warm(shapes.awaiting_one(decorator()(shapes.one)))

    return make


def _three(decorator: Callable[[], Any]) -> Callable[[], Awaitable[Bench]]:
    async def make() -> Bench:
        return await _warm(shapes.awaiting_three(decorator()(shapes.three)))

    return make


async def _warm(bench: Bench) -> Bench:
    await bench(1)
    return bench
