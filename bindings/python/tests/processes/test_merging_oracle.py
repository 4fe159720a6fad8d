"""Random histories of three caches on one path, against a naive model of the promises of
docs/semantics.md ("Several processes"): after every save the file holds exactly the expected
entries, the save counts exactly the dropped entries and warns of them once, and each cache serves
only entries that it wrote or opened.

`crates/async-cache/tests/merging_oracle.rs` is the same test for the Rust front, with a manual
clock, forgotten deletes and failing saves. The tests here cover parts that only Python has: keys
that are objects, which only Python can compare, and several spellings of equal keys. Three
`AsyncCache`s of one process behave to each other like processes.

The histories contain: sets, deletes, clears, reads of hot and cold entries, times to live, eviction
with a `maxsize` for each cache, writes lost before a save, files taken in by a running cache, and
restarts. Nothing sleeps.

A failing history prints its seed: `ASYNC_CACHE_SEED=...` replays the history, and with
`ASYNC_CACHE_TRACE=1` prints each step; `ASYNC_CACHE_ROUNDS=...` sets the number of histories.
"""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
import warnings
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from merging_model import File, Key, Process, Time

from cache import AsyncCache, CacheWarning, DiskBackend

IS_REPLAY = "ASYNC_CACHE_SEED" in os.environ
SEED = int(os.environ.get("ASYNC_CACHE_SEED", 0))
ROUNDS = int(os.environ.get("ASYNC_CACHE_ROUNDS", 1 if IS_REPLAY else 100))
IS_TRACED = "ASYNC_CACHE_TRACE" in os.environ
STEPS = 60
PLAIN_KEYS = 4
OBJECT_KEYS = 3
LONG_SECONDS = 1e6


class Object:
    """Compared by its number, without a canonical encoding; equal objects may be pickled as
    different bytes.
    """

    def __init__(self, number: int, spelling: int = 0) -> None:
        self.number = number
        self.spelling = spelling

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Object) and self.number == other.number

    def __hash__(self) -> int:
        return hash(("object", self.number))

    def __repr__(self) -> str:
        return f"Object({self.number})"


KEYS: list[Key] = [*range(PLAIN_KEYS), *(Object(number) for number in range(OBJECT_KEYS))]


class Running:
    """A cache and its model."""

    def __init__(self, path: Path, model: Process) -> None:
        self.cache = AsyncCache(maxsize=model.maxsize, backup=DiskBackend(path))
        self.model = model
        self.has_warned = False


class History:
    def __init__(self, seed: int, path: Path) -> None:
        self.random = random.Random(seed)
        self.path = path
        self.file = File()
        self.saved_deletes: dict[Key, Time] = {}
        # Counts operations.
        self.time = 0
        self.processes: list[Running] = []
        for number in range(3):
            self.processes.append(self.open(self.random.choice([None, None, 1, 2, 3, 5]), number))

    def open(self, maxsize: int | None, who: int) -> Running:
        model = Process(maxsize)
        running = Running(self.path, model)
        self.trace(f"{who} opens the file, with room for {maxsize}")
        plain, objects = self.file.plain, self.file.objects
        # Objects are added first, the warmest before the others; then the warmest of the plain
        # keys.
        room = len(plain) + len(objects) if maxsize is None else maxsize
        read = objects[max(len(objects) - room, 0) :]
        cold = plain[max(len(plain) + len(read) - room, 0) :]
        model.memory = dict(cold + read)
        model.cold = {key for key, _ in cold}
        if self.file.number and len(model.memory) == len(plain) + len(objects):
            model.holds = self.file.number
        return running

    def trace(self, what: str) -> None:
        if IS_TRACED:
            print(f"{self.time:4}  {what}")

    async def step(self) -> None:
        self.time += 1
        who = self.random.randrange(3)
        key = self.random.choice(KEYS)
        if isinstance(key, Object):
            key = Object(key.number, self.random.randrange(2))
        steps: list[tuple[int, Callable[[int, Key], Awaitable[None]]]] = [
            (14, self.get),
            (32, self.set),
            (10, self.delete),
            (2, self.clear),
            (22, self.save),
            (7, self.reload),
            (5, self.restart),
        ]
        (step,) = self.random.choices([step for _, step in steps], [weight for weight, _ in steps])
        await step(who, key)
        self.look()

    async def get(self, who: int, key: Key) -> None:
        running = self.processes[who]
        got = await running.cache.get(key)
        self.trace(f"{who} gets {key}: {got}")
        assert got == running.model.memory.get(key), f"cache {who} serves {key}"
        running.model.cold.discard(key)

    async def set(self, who: int, key: Key) -> None:
        ttl = self.random.choice([None, None, LONG_SECONDS, 0])
        self.trace(f"{who} sets {key}, for {ttl} s")
        running = self.processes[who]
        running.cache.set(key, self.time, ttl=ttl)
        running.model.set(key, self.time, is_stored=ttl != 0)

    async def delete(self, who: int, key: Key) -> None:
        self.trace(f"{who} deletes {key}")
        running = self.processes[who]
        running.cache.delete(key)
        running.model.delete(key, self.time)

    async def clear(self, who: int, _: Key) -> None:
        self.trace(f"{who} clears")
        running = self.processes[who]
        running.cache.clear()
        running.model.clear(self.time)

    async def save(self, who: int, _: Key) -> None:
        running = self.processes[who]
        cache, model = running.cache, running.model
        count_found = len(self.file.plain) + len(self.file.objects)
        for key in KEYS:
            self.saved_deletes[key] = max(self.saved_deletes.get(key, 0), model.deletes.of(key))
        dropped_before = cache.stats()["dropped"]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            cache.save_to_backup()
        dropped = cache.stats()["dropped"] - dropped_before
        plain, objects = self.read()
        self.trace(f"{who} saves: {plain} {objects}, dropped {dropped}; before: {self.file}")
        expected = self.file.save(model)
        content = dict(plain + objects)
        assert len(content) == len(plain) + len(objects), "a key is in the file twice"
        assert content == expected.entries, "what is in the file"
        for key, time in content.items():
            assert time > self.saved_deletes[key], f"{key} of {time} was deleted"
        assert dropped == expected.dropped, "what the save counts"
        for found, theirs, is_known in zip(
            (plain, objects), expected.theirs, expected.is_room_known, strict=True
        ):
            first = [key for key, _ in found[: len(theirs)]]
            assert first == theirs or not is_known, "entries of others are colder, in their order"
        # The warning: once in the life of a cache, if other caches keep more entries.
        shrinks = dropped > 0 and model.maxsize is not None and count_found > model.maxsize
        texts = [str(warning.message) for warning in caught if warning.category is CacheWarning]
        assert len(texts) == len(caught), "other warnings"
        assert [f"dropped {dropped} entries" in text for text in texts] == (
            [True] if shrinks and not running.has_warned else []
        ), "warnings"
        running.has_warned |= shrinks
        # From now on cold entries are read from the new file, except entries missing from it.
        for key in list(model.cold):
            if content.get(key) != model.memory[key]:
                del model.memory[key]
                model.cold.discard(key)
        self.file.plain, self.file.objects = plain, objects

    def read(self) -> tuple[list[tuple[Key, Time]], list[tuple[Key, Time]]]:
        """The entries of the file: with plain keys, with objects as keys; the coldest first."""
        entries = [(key, value) for key, (value, _) in DiskBackend(self.path).load().items()]
        plain = [entry for entry in entries if isinstance(entry[0], int)]
        return plain, [entry for entry in entries if isinstance(entry[0], Object)]

    async def reload(self, who: int, _: Key) -> None:
        self.trace(f"{who} takes in the file")
        running = self.processes[who]
        cache, model = running.cache, running.model
        cache.load_from_backup()
        if self.file.number == 0:
            return
        model.reload()
        theirs = self.file.entries()
        before, cold = dict(model.memory), set(model.cold)
        model.memory, model.cold = {}, set()
        for key in KEYS:
            is_hot = key in before and key not in cold
            # A hot entry stays; for a cold entry the file's version is used, if the file has the
            # key.
            known = before.get(key) if is_hot or key not in theirs else theirs[key]
            if not cache.contains(key):
                is_full = model.maxsize is not None and cache.size() >= model.maxsize
                assert known is None or (is_full and not is_hot), f"cache {who}: {key} is not there"
                continue
            assert known is not None, f"cache {who} serves {key}, which it does not have"
            model.memory[key] = known
            if not is_hot and isinstance(key, int):
                model.cold.add(key)
        # All of the file was added, and no other entry with its keys, or cold entry, exists.
        hot = before.keys() - cold
        has_all = theirs.keys() <= model.memory.keys() and not theirs.keys() & hot and cold <= theirs.keys()
        model.holds = self.file.number if has_all else None

    async def restart(self, who: int, _: Key) -> None:
        self.trace(f"{who} starts anew")
        maxsize = self.processes[who].model.maxsize
        self.processes[who] = self.open(maxsize, who)

    def look(self) -> None:
        """Every cache has the entries of its model, except evicted entries."""
        for who, running in enumerate(self.processes):
            cache, model = running.cache, running.model
            for key in KEYS:
                is_there, is_known = cache.contains(key), key in model.memory
                assert is_known or not is_there, f"cache {who} has {key}, which it cannot have"
                if is_known and not is_there:
                    assert cache.size() == model.maxsize, f"cache {who} has lost {key}"
                    model.lose(key)
            assert cache.size() == len(model.memory)


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory, if possible: the histories save about a thousand times, and each save waits for
    the disk.
    """
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


@pytest.mark.timeout(30 + ROUNDS)
def test_the_file_holds_exactly_what_is_promised_after_every_save(folder: Path) -> None:
    async def run(seed: int) -> None:
        history = History(seed, folder / f"{seed}.cache")
        for _ in range(STEPS):
            await history.step()

    async def run_all() -> None:
        for seed in range(SEED, SEED + ROUNDS):
            try:
                await run(seed)
            except BaseException:
                print(f"run again with ASYNC_CACHE_SEED={seed}")
                raise

    asyncio.run(run_all())
