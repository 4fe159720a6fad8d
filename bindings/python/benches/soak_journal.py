"""A cache of 10,000 entries in memory and 2 GB on the disk, under random traffic on an event loop:
reads by Zipf's law with loads, sets, deletes and times to live.

    ASYNC_CACHE_SOAK_MINUTES=10 python soak_journal.py [--smoke]

Ends with an error if a value is wrong, belongs to another key, or is older than the last write of
its key; if a write fails; if the files grow beyond the limit; or if the memory grows. ``--smoke``
takes five seconds, with a small cache.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from cache import AsyncCache, DiskBackend

SEGMENT = 8 << 20
RATE = 4000
TASKS = 8


class Model:
    """The versions of all keys, as an origin would have them.

    The writes of a key begin and return in one step of the loop. So a read must return a version
    that is at least the one at its beginning.
    """

    def __init__(self, keys: int) -> None:
        self.versions = [1] * keys

    def value(self, key: int, filler: int) -> dict[str, Any]:
        return {"key": key, "version": self.versions[key], "filler": chr(97 + key % 26) * filler}

    def check(self, key: int, oldest: int, value: dict[str, Any] | None) -> None:
        if value is None:
            return
        assert value["key"] == key, f"the value of another key: {value['key']}, not {key}"
        assert oldest <= value["version"] <= self.versions[key], (
            f"key {key}: version {value['version']}, where {oldest} had been written, and "
            f"{self.versions[key]} was the last"
        )
        assert value["filler"] == chr(97 + key % 26) * len(value["filler"]), f"key {key}: a mixed value"


class Soak:
    """The cache, the model, and the operations."""

    def __init__(self, path: Path, keys: int, in_memory: int, on_disk: int) -> None:
        self.model = Model(keys)
        self.on_disk = on_disk
        self.backend = DiskBackend(path, journal=True, disk_bytes=on_disk)
        self.cache = AsyncCache(maxsize=in_memory, backup=self.backend)
        self.random = random.Random(1)
        self.operations = 0
        self.hot: list[float] = []

    def key(self) -> int:
        """A rank by Zipf's law with the exponent 0.9, scattered over the keys."""
        keys = len(self.model.versions)
        rank = int((self.random.random() * (keys**0.1 - 1) + 1) ** 10)
        return rank * 2654435761 % keys

    def filler(self) -> int:
        return (
            self.random.randrange(2000, 12_000)
            if self.random.random() < 0.06
            else self.random.randrange(1200)
        )

    def ttl(self) -> float | None:
        return self.random.uniform(1, 60) if self.random.random() < 0.25 else None

    def set(self, key: int) -> None:
        self.model.versions[key] += 1
        self.cache.set(key, self.model.value(key, self.filler()), ttl=self.ttl())

    def fill(self) -> None:
        written = 0
        while written < self.on_disk * 1.1:
            key = self.random.randrange(len(self.model.versions))
            self.set(key)
            written += 600

    async def step(self) -> None:
        self.operations += 1
        key = self.key()
        oldest = self.model.versions[key]
        kind = self.random.random()
        if kind < 0.7:

            async def load() -> dict[str, Any]:
                value = self.model.value(key, self.filler())
                await asyncio.sleep(0)
                return value

            self.model.check(key, oldest, await self.cache.get(key, load))
            if self.operations % 8 == 0:
                oldest = self.model.versions[key]
                began = time.perf_counter()
                value = await self.cache.get(key)
                self.hot.append(time.perf_counter() - began)
                self.model.check(key, oldest, value)
        elif kind < 0.75:
            self.model.check(key, oldest, await self.cache.get(key))
        elif kind < 0.95:
            self.set(key)
        else:
            self.model.versions[key] += 1
            await self.cache.delete(key)

    async def run(self, until: float) -> None:
        began = time.perf_counter()
        count = 0
        while time.perf_counter() < until:
            count += 1
            await self.step()
            ahead = count * TASKS / RATE - (time.perf_counter() - began)
            if ahead > 0.001:
                await asyncio.sleep(ahead)


def bytes_on_disk(folder: Path) -> tuple[int, int]:
    """The bytes of all files, and of the indexes among them."""
    total = indexes = 0
    for path in folder.rglob("*"):
        try:
            size = path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue  # it was collected
        total += size
        indexes += size if path.name.startswith("i") else 0
    return total, indexes


def resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


async def soak(folder: Path, smoke: bool) -> None:
    minutes = float(os.environ.get("ASYNC_CACHE_SOAK_MINUTES", "10"))
    seconds = 5.0 if smoke else minutes * 60
    sizes = (20_000, 500, 24 << 20) if smoke else (2_000_000, 10_000, 2 << 30)
    running = Soak(folder / "a.cache", *sizes)
    running.fill()
    print(f"filled with {bytes_on_disk(folder)[0] >> 20} MiB", flush=True)
    until = time.perf_counter() + seconds
    tasks = [asyncio.create_task(running.run(until)) for _ in range(TASKS)]
    resident: list[float] = []
    print("second | resident (MiB) | on disk (MiB)")
    for number in range(40):
        await asyncio.sleep(seconds / 40)
        for task in tasks:
            if task.done() and (error := task.exception()) is not None:
                raise error
        total, indexes = bytes_on_disk(folder)
        resident.append(resident_mib())
        if number % 4 == 3:
            print(f"{seconds / 40 * (number + 1):.0f} | {resident[-1]:.0f} | {total >> 20}", flush=True)
        if number >= 10:
            # The new index of a merge stands beside the old ones.
            assert total <= running.on_disk + SEGMENT + indexes, f"{total} bytes on the disk"
    await asyncio.gather(*tasks)
    early, late = statistics.median(resident[8:16]), statistics.median(resident[-8:])
    assert smoke or late <= early * 1.1 + 16, f"the memory grew from {early} to {late} MiB"
    stats = running.cache.stats()
    assert stats["write_errors"] == 0, stats
    assert stats["cold_hits"] > 0, stats
    times = sorted(running.hot)
    shares = ", ".join(f"{times[int(len(times) * share)] * 1e6:.1f}" for share in (0.5, 0.99, 0.999))
    print(f"get in memory, median, p99, p99.9: {shares} µs")
    print(f"operations: {running.operations}; cold hits: {stats['cold_hits']}; write errors: 0")
    del running.cache  # the last reference: closes the journal
    await reopened(running)


async def reopened(running: Soak) -> None:
    """Everything that is still there after closing and opening is right."""
    cache = AsyncCache(maxsize=10_000, backup=running.backend)
    found = 0
    for key, version in enumerate(running.model.versions):
        value = await cache.get(key)
        running.model.check(key, version, value)
        found += value is not None
    print(f"after closing and opening, {found} entries are there, and each is right")
    assert found > 0


def main() -> None:
    """Soaks, and reports."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--smoke", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="async-cache-soak-") as folder:
        asyncio.run(soak(Path(folder), arguments.smoke))


if __name__ == "__main__":
    main()
