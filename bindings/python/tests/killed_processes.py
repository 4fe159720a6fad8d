"""Processes with a journal, killed at random moments under load: every write that had returned is
there, and no deleted or older value returns.

Each child writes on two threads. Before an operation, and after its return, the thread appends a
line to a *side channel*: a file of its own, which survives the kill. The next child begins by
reading every key, and the parent compares: a key has the state of its last operation that returned,
or of the operation that was running.

As a program (`make kill-python`): ``python killed_processes.py KILLS`` kills so many children of
each mode.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

KEYS = 60
THREADS = 2
LONGEST_LIFE = 0.04  # seconds

MODES: dict[str, dict[str, Any]] = {
    "everything stays": {"maxsize": None},
    "most entries leave memory, and stay on the disk": {"maxsize": KEYS // 4, "disk_bytes": 1 << 30},
    "entries leave memory and disk": {"maxsize": KEYS // 4},
    "keys are objects": {"maxsize": None},
}
EVICTING = "entries leave memory and disk"
OBJECTS = "keys are objects"

# The number in the value of a key; ``None`` without an entry.
State = int | None


# The child


class _Channel:
    """A file to which lines are appended, each with one system call."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def say(self, line: str) -> None:
        os.write(self._file, f"{line}\n".encode())


def child(folder: Path, mode: str, seed: int) -> None:
    """Reads every key, and then writes until it is killed."""
    import threading
    import warnings

    from object_keys import Point

    from cache import AsyncCache, DiskBackend

    warnings.simplefilter("error")
    options = dict(MODES[mode])
    limit = options.pop("disk_bytes", None)
    backup = DiskBackend(folder / "a.cache", journal=True, flush=0.003, disk_bytes=limit)
    cache = AsyncCache(**options, backup=backup)

    def key_of(number: int) -> Any:
        return Point(number, 0) if mode == OBJECTS else number

    async def read(number: int) -> State:
        value = await cache.get(key_of(number))
        if value is None:
            return None
        assert set(value["filler"]) <= {chr(65 + value["number"] % 26)}, "a mixed value"
        found: int = value["number"]
        return found

    states = _Channel(folder / "states")
    for number in range(KEYS):
        states.say(f"{number} {asyncio.run(read(number))}")
    print("ready", flush=True)

    async def write(thread: int) -> None:
        chance = random.Random(seed * THREADS + thread)
        channel = _Channel(folder / f"thread {thread}")
        number = seed * 1_000_000
        while True:
            number += 1
            key = chance.randrange(KEYS // THREADS) * THREADS + thread
            length = 20_000 if chance.randrange(50) == 0 else chance.randrange(300)
            value = {"number": number, "filler": chr(65 + number % 26) * length}
            match chance.randrange(10):
                case 0 | 1 | 2 | 3 | 4 | 5:
                    channel.say(f"begin {key} {number}")
                    cache.set(key_of(key), value)
                    channel.say("done")
                case 6 | 7:
                    channel.say(f"begin {key} None")
                    cache.delete(key_of(key))
                    channel.say("done")
                case _:

                    async def load(value: Any = value) -> Any:
                        return value

                    channel.say(f"begin {key} {number}")
                    found = (await cache.get(key_of(key), loader=load))["number"]
                    channel.say(f"found {key} {found}")

    for thread in range(THREADS):
        threading.Thread(target=lambda thread=thread: asyncio.run(write(thread)), daemon=True).start()
    time.sleep(60)


# The parent


class Possible(NamedTuple):
    """The states that a key may have."""

    sure: State
    """After the last operation that has returned."""
    running: tuple[State] | None
    """After the operation that was running."""


def _state(text: str) -> State:
    return None if text == "None" else int(text)


def _follow(folder: Path, states: dict[int, Possible]) -> int:
    """Takes the lines of all threads into account. Returns how many operations have returned."""
    done = 0
    for thread in range(THREADS):
        path = folder / f"thread {thread}"
        running: tuple[int, State] | None = None
        for line in path.read_text().splitlines() if path.exists() else []:
            match line.split():
                case ["begin", key, state]:
                    running = (int(key), _state(state))
                case ["done"]:
                    assert running is not None
                    states[running[0]] = Possible(running[1], None)
                    running, done = None, done + 1
                case ["found", key, state]:
                    states[int(key)] = Possible(_state(state), None)
                    running, done = None, done + 1
                case _:
                    raise AssertionError(line)
        if running is not None:
            before = states.get(running[0], Possible(None, None))
            states[running[0]] = Possible(before.sure, (running[1],))
        path.unlink(missing_ok=True)
    return done


def _compare(folder: Path, mode: str, states: dict[int, Possible]) -> None:
    """Compares the states that a child has found with the states that are possible."""
    path = folder / "states"
    lines = path.read_text().splitlines()
    assert len(lines) == KEYS, "the child read every key"
    for line in lines:
        key, found = int(line.split()[0]), _state(line.split()[1])
        sure, running = states.get(key, Possible(None, None))
        was_evicted = mode == EVICTING and found is None
        assert found == sure or (found,) == running or was_evicted, (
            f"{mode}, key {key}: found {found}; the last one that returned is {sure}, running was {running}"
        )
        states[key] = Possible(found, None)
    path.unlink()


def kill_many(folder: Path, mode: str, kills: int) -> int:
    """Kills children one after the other. Returns how many operations had returned."""
    states: dict[int, Possible] = {}
    returned = 0
    for seed in range(1, kills + 2):
        command = [sys.executable, __file__, "--child", str(folder), mode, str(seed)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                said = process.stdout.readline()
                assert said == "ready\n", f"{mode}: the child ended: {said}"
                _compare(folder, mode, states)
                # Waits for no event: its length is the random moment of the kill.
                time.sleep(random.random() * LONGEST_LIFE)
            finally:
                process.kill()
        returned += _follow(folder, states)
    return returned


def main() -> None:
    if sys.argv[1] == "--child":
        child(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
        return
    kills = int(sys.argv[1])
    for mode in MODES:
        with tempfile.TemporaryDirectory() as folder:
            returned = kill_many(Path(folder), mode, kills)
            print(f"{mode}: {kills} kills, {returned} operations had returned, none is lost", flush=True)


if __name__ == "__main__":
    main()
