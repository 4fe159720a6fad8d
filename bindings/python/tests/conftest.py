"""Fixtures of all tests: event loops, caches over every kind of backend, servers, a time limit for
each test.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import servers
from cold_reads import ReadThreads
from loops import LOOPS, Run
from servers import Program, Server
from stores import MemoryBackend

from cache import AsyncCache, CacheBackend, DiskBackend, RedisBackend, _reads

TIME_LIMIT_SECONDS = 30

MakeCache = Callable[..., AsyncCache]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--million", action="store_true", help="memory tests with a million operations of each kind"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A hang is a failure: every test has a time limit."""
    for item in items:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TIME_LIMIT_SECONDS))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says which servers the tests have used."""
    terminalreporter.write_line(f"servers: {', '.join(map(str, servers.found())) or 'none'}")


@pytest.fixture(params=[program.kind.value for program in servers.found()] or ["none"])
def program(request: pytest.FixtureRequest) -> Program:
    """The program of a server, of each kind on this machine. Fails if there is none."""
    return next(program for program in servers.everyone() if program.kind.value == request.param)


@pytest.fixture
def server(program: Program) -> Iterator[Server]:
    """A started server, of each kind on this machine."""
    with program.start() as server:
        yield server


@pytest.fixture
def backend(server: Server) -> RedisBackend:
    """A remote tier on a started server, of each kind on this machine."""
    return RedisBackend(*server.address)


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Runs an awaitable on a new event loop; fails if the loop reports a problem at its end."""
    if request.param not in ("asyncio", "uvloop"):
        pytest.skip(request.param)
    runner = Run(request.param)
    yield runner
    gc.collect()
    assert runner.complaints == []


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of a test's file."""
    return tmp_path / "test.cache"


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[ReadThreads]:
    """The threads of reads of cold entries, held by the test."""
    threads = ReadThreads()
    monkeypatch.setattr(_reads, "_threads", [threads])
    yield threads
    threads.read()
    assert _reads._running == {}


@pytest.fixture(params=["no backup", "disk", "memory"])
def store(request: pytest.FixtureRequest, path: Path) -> MakeCache:
    """Makes caches: the promises for a cache in memory also hold over every backend."""
    backup: CacheBackend | None = None
    if request.param == "disk":
        backup = DiskBackend(path)
    elif request.param == "memory":
        backup = MemoryBackend()

    def make_cache(**options: Any) -> AsyncCache:
        return AsyncCache(backup=backup, **options)

    return make_cache
