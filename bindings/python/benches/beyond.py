"""Entries shared beyond one host, beside the Python clients and caches of Redis, on one server.

    python beyond.py [--smoke] [--save]

A get of one key after the other, a thousand at once, a hundred keys in one call, a hit in memory
with and without the tier, and calls while the server is frozen. Values have 100 bytes. Every
contender runs in the same process, in turns, under uvloop.

``--save`` writes ``benches/results/python-<version of Python>-beyond.md``.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.util
import logging
import statistics
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from report import PYTHON, Report, digits

from cache import AsyncCache, RedisBackend

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import servers

KEYS = [f"key {number}" for number in range(1000)]
VALUE = "v" * 100


def module(name: str) -> Any:
    """A peer's module; ``None`` if the peer is not installed: it is left out of the tables."""
    return importlib.import_module(name) if importlib.util.find_spec(name.partition(".")[0]) else None


class Contender:
    """A way to read from the server."""

    title = ""

    async def start(self, port: int) -> None:
        """Connects."""

    async def get(self, key: str) -> Any:
        """Reads a key."""
        raise NotImplementedError

    async def get_many(self, keys: list[str]) -> Any:
        """Reads many keys."""
        raise NotImplementedError

    async def close(self) -> None:
        """Disconnects."""


class Ours(Contender):
    """A cache that keeps nothing in memory, so that every call asks the server."""

    title = "async-cache (decoded)"

    async def start(self, port: int) -> None:
        backend = RedisBackend("127.0.0.1", port, namespace="bench")
        self.cache = AsyncCache(maxsize=0, remote_cache=backend)
        for key in KEYS:
            self.cache.set(key, VALUE)
        while await self.cache.get(KEYS[-1]) is None:
            self.cache.set(KEYS[-1], VALUE)
            await asyncio.sleep(0.01)
        for key in KEYS:
            if await self.cache.get(key) is None:
                self.cache.set(key, VALUE)

    async def get(self, key: str) -> Any:
        return await self.cache.get(key)

    async def get_many(self, keys: list[str]) -> Any:
        return await self.cache.get_many(keys)


class Bare(Contender):
    """hiredis's parser in a protocol of a dozen lines: what a client cannot be faster than."""

    title = "hiredis, bare (bytes)"

    async def start(self, port: int) -> None:
        hiredis = module("hiredis")

        class Pipe(asyncio.Protocol):
            def __init__(self) -> None:
                self.reader = hiredis.Reader()
                self.waiting: deque[asyncio.Future[Any]] = deque()

            def connection_made(self, transport: Any) -> None:
                self.transport = transport

            def data_received(self, data: bytes) -> None:
                self.reader.feed(data)
                while (reply := self.reader.gets()) is not False:
                    self.waiting.popleft().set_result(reply)

        self.loop = asyncio.get_running_loop()
        _, self.pipe = await self.loop.create_connection(Pipe, "127.0.0.1", port)
        for key in KEYS:
            await self.call(b"SET", f"raw:{key}".encode(), VALUE.encode())

    def call(self, *words: bytes) -> asyncio.Future[Any]:
        """Sends a command; the future of its reply."""
        parts = [b"*%d\r\n" % len(words), *(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)]
        future = self.loop.create_future()
        self.pipe.waiting.append(future)
        self.pipe.transport.write(b"".join(parts))
        return future

    async def get(self, key: str) -> Any:
        return await self.call(b"GET", f"raw:{key}".encode())

    async def get_many(self, keys: list[str]) -> Any:
        return await self.call(b"MGET", *(f"raw:{key}".encode() for key in keys))

    async def close(self) -> None:
        self.pipe.transport.close()


class RedisPy(Contender):
    """redis-py, one connection."""

    title = "redis-py (bytes)"

    async def start(self, port: int) -> None:
        redis = module("redis.asyncio")
        self.client = redis.Redis(host="127.0.0.1", port=port, single_connection_client=True)
        for key in KEYS:
            await self.client.set(f"raw:{key}", VALUE)

    async def get(self, key: str) -> Any:
        return await self.client.get(f"raw:{key}")

    async def get_many(self, keys: list[str]) -> Any:
        return await self.client.mget([f"raw:{key}" for key in keys])

    async def close(self) -> None:
        await self.client.aclose()


class Coredis(Contender):
    """coredis with its pool."""

    title = "coredis (bytes)"

    async def start(self, port: int) -> None:
        self.client = module("coredis").Redis(host="127.0.0.1", port=port)
        if hasattr(self.client, "__aenter__"):
            await self.client.__aenter__()

    async def get(self, key: str) -> Any:
        return await self.client.get(f"raw:{key}")

    async def get_many(self, keys: list[str]) -> Any:
        return await self.client.mget([f"raw:{key}" for key in keys])

    async def close(self) -> None:
        if hasattr(self.client, "__aexit__"):
            await self.client.__aexit__(None, None, None)


class Glide(Contender):
    """valkey-glide."""

    title = "valkey-glide (bytes)"

    async def start(self, port: int) -> None:
        glide = module("glide")
        config = glide.GlideClientConfiguration([glide.NodeAddress("127.0.0.1", port)])
        self.client = await glide.GlideClient.create(config)

    async def get(self, key: str) -> Any:
        return await self.client.get(f"raw:{key}")

    async def get_many(self, keys: list[str]) -> Any:
        return await self.client.mget([f"raw:{key}" for key in keys])

    async def close(self) -> None:
        await self.client.close()


class Aiocache(Contender):
    """aiocache's RedisCache."""

    title = "aiocache (decoded)"

    async def start(self, port: int) -> None:
        aiocache = module("aiocache")
        self.cache = aiocache.Cache(aiocache.Cache.REDIS, endpoint="127.0.0.1", port=port, namespace="aio:")
        for key in KEYS:
            await self.cache.set(key, VALUE)

    async def get(self, key: str) -> Any:
        return await self.cache.get(key)

    async def get_many(self, keys: list[str]) -> Any:
        return await self.cache.multi_get(keys)

    async def close(self) -> None:
        await self.cache.close()


class Cashews(Contender):
    """cashews on Redis."""

    title = "cashews (decoded)"

    async def start(self, port: int) -> None:
        self.cache = module("cashews").Cache()
        self.cache.setup(f"redis://127.0.0.1:{port}")
        for key in KEYS:
            await self.cache.set(f"cashews:{key}", VALUE)

    async def get(self, key: str) -> Any:
        return await self.cache.get(f"cashews:{key}")

    async def get_many(self, keys: list[str]) -> Any:
        return await self.cache.get_many(*(f"cashews:{key}" for key in keys))

    async def close(self) -> None:
        await self.cache.close()


PEERS: list[tuple[type[Contender], str]] = [
    (Ours, "cache"),
    (Bare, "hiredis"),
    (RedisPy, "redis"),
    (Coredis, "coredis"),
    (Glide, "glide"),
    (Aiocache, "aiocache"),
    (Cashews, "cashews"),
]


async def one_by_one(contender: Contender, calls: int) -> float:
    """The median microseconds of a get."""
    times = []
    for number in range(calls):
        started = time.perf_counter()
        value = await contender.get(KEYS[number % len(KEYS)])
        times.append(time.perf_counter() - started)
        assert value is not None, contender.title
    return statistics.median(times) * 1e6


async def at_once(contender: Contender) -> float:
    """The microseconds of each of a thousand gets at once."""
    started = time.perf_counter()
    values = await asyncio.gather(*(contender.get(key) for key in KEYS))
    took = time.perf_counter() - started
    assert None not in values, contender.title
    return took * 1e6 / len(KEYS)


async def in_one_call(contender: Contender, calls: int) -> float:
    """The median microseconds of a call for a hundred keys."""
    times = []
    for _ in range(calls):
        started = time.perf_counter()
        values = await contender.get_many(KEYS[:100])
        times.append(time.perf_counter() - started)
        assert len(values) == 100, contender.title
    return statistics.median(times) * 1e6


async def measure(report: Report, server: Any, rounds: int, calls: int) -> None:
    """All tables of a server."""
    contenders: list[Contender] = []
    for peer, name in PEERS:
        if module(name) is None:
            report.line(f"({peer.title} is not installed)\n")
            continue
        contenders.append(peer())
        await contenders[-1].start(server.port)
    tables: list[tuple[str, Callable[[Contender], Awaitable[float]]]] = [
        ("A get, one after the other: microseconds", lambda it: one_by_one(it, calls)),
        ("A thousand gets at once: microseconds for each", at_once),
        ("A hundred keys in one call: microseconds", lambda it: in_one_call(it, calls // 10 + 1)),
    ]
    for title, run in tables:
        figures: dict[str, list[float]] = {contender.title: [] for contender in contenders}
        failed: dict[str, str] = {}
        for number in range(rounds + 1):
            for contender in contenders:
                if contender.title in failed:
                    continue
                try:
                    figure = await run(contender)
                except Exception as error:  # noqa: BLE001 # a peer's, and part of the result
                    failed[contender.title] = f"{type(error).__name__}: {error}"
                    continue
                if number:  # the first round warms up
                    figures[contender.title].append(figure)
        ours = statistics.median(figures[contenders[0].title] or [float("nan")])
        report.line(f"### {title}\n")
        report.line("| contender | median | least | ratio to async-cache |\n|---|---:|---:|---:|")
        for title_of, times in figures.items():
            if title_of in failed:
                report.line(f"| {title_of} | failed: {failed[title_of]} | | |")
                continue
            middle = statistics.median(times)
            report.line(f"| {title_of} | {digits(middle)} | {digits(min(times))} | {middle / ours:.2f} |")
        report.line("")
    await hits(report, server, rounds, 50 * calls)
    await frozen(report, server)
    for contender in contenders:
        await contender.close()


async def hits(report: Report, server: Any, rounds: int, calls: int) -> None:
    """A hit in memory with and without the tier."""
    alone: AsyncCache = AsyncCache(maxsize=None)
    shared: AsyncCache = AsyncCache(
        maxsize=None, remote_cache=RedisBackend("127.0.0.1", server.port, namespace="hits")
    )
    caches = {"without a tier": alone, "with the tier": shared}
    for cache in caches.values():
        await cache.get("nothing")
        cache.set("key", VALUE)
        await cache.get("key")
    figures: dict[str, list[float]] = {name: [] for name in caches}
    for _ in range(3 * rounds):
        for name, cache in caches.items():
            get = cache.get
            started = time.perf_counter()
            for _ in range(calls):
                await get("key")
            figures[name].append((time.perf_counter() - started) / calls * 1e9)
    report.line("### A hit in memory: nanoseconds\n")
    report.line("| cache | median | ratio |\n|---|---:|---:|")
    first = statistics.median(figures["without a tier"])
    for name, times in figures.items():
        middle = statistics.median(times)
        report.line(f"| {name} | {digits(middle)} | {middle / first:.3f} |")
    report.line("")


async def frozen(report: Report, server: Any) -> None:
    """Calls while the server is stopped by a signal."""
    logging.getLogger("async_cache.remote").setLevel(logging.CRITICAL)
    backend = RedisBackend("127.0.0.1", server.port, namespace="frozen")
    cache: AsyncCache = AsyncCache(maxsize=None, remote_cache=backend)
    await cache.get("nothing")

    async def load() -> str:
        return VALUE

    server.pause()
    times = []
    for number in range(100):
        started = time.perf_counter()
        await cache.get(f"key {number}", loader=load)
        times.append(time.perf_counter() - started)
    server.resume()
    report.line("### Misses while the server is frozen: milliseconds\n")
    report.line("| first | second | most of the next 98 |\n|---:|---:|---:|")
    first, second, *rest = (1000 * it for it in times)
    report.line(f"| {first:.1f} | {second:.3f} | {max(rest):.3f} |\n")


def main() -> None:
    """Measures on every server that is there."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--smoke", action="store_true", help="only show that everything runs")
    parser.add_argument("--save", action="store_true", help="write the results file")
    options = parser.parse_args()
    rounds, calls = (1, 20) if options.smoke else (7, 2000)
    peers = ["redis", "hiredis", "coredis", "valkey-glide", "aiocache", "cashews"]
    report = Report("Entries beyond one host, Python", peers)
    uvloop = module("uvloop")
    for program in servers.everyone():
        report.line(f"## {program}\n")
        with program.start() as server:
            runner = uvloop.run if uvloop else asyncio.run
            runner(measure(report, server, rounds, calls))
    if options.save:
        report.save(f"python-{PYTHON}-beyond")


if __name__ == "__main__":
    main()
