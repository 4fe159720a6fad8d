"""The examples of caches that share a server run, and show their subjects."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from servers import Program, Server, eventually

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
LIMIT = 60  # seconds; a program that runs longer has failed
ROW = re.compile(r"^  worker \d +(\d+) +(\d+) +(\d+) +[\d.]+ ms$", re.MULTILINE)

pytestmark = pytest.mark.timeout(2 * LIMIT)


def environment(program: Program, folder: Path) -> dict[str, str]:
    """An environment in which this program is the first `redis-server` on the `PATH`, with a folder
    for temporary files: a killed program leaves its own behind.
    """
    (folder / "redis-server").symlink_to(program.path)
    path = os.pathsep.join([str(folder), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "TMPDIR": str(folder)}


def shows(client: httpx.Client, product: dict[str, object]) -> bool:
    """Whether a service shows a product as it was written."""
    return bool(client.get("/products/7").json() == product)


def rows(part: str) -> list[tuple[int, ...]]:
    """The rows of a table: how many keys were in memory, on the server, and loaded."""
    return [tuple(map(int, row)) for row in ROW.findall(part)]


def is_open(port: int) -> bool:
    """Whether a program listens on the port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_workers_share_loads_and_writes_and_go_on_without_their_server(
    program: Program, tmp_path: Path
) -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / "shared.py")],
        env=environment(program, tmp_path),
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
    )
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout
    head, cold, warm, written, again, down, back = ran.stdout.split("\n\n")
    assert str(tmp_path) in head
    for part in (cold, back):
        counts = rows(part)
        assert len(counts) == 3, ran.stdout
        assert [sum(column) for column in zip(*counts, strict=True)] == [0, 12, 6], ran.stdout
    assert rows(warm) == [(6, 0, 0)] * 3, ran.stdout
    assert re.findall(r"worker (\d) sees it after", written) == ["2", "3"]
    assert rows(again) == [(0, 6, 0)], ran.stdout
    # Memory goes on, and each worker loads the new key for itself.
    assert rows(down) == [(6, 0, 1)] * 3, ran.stdout
    assert [part.count("is away") for part in (cold, warm, written, again, down, back)] == [0, 0, 0, 0, 3, 0]
    assert back.count("is connected") == 3


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_no_process_of_the_workers_is_left_behind(
    how: signal.Signals, program: Program, tmp_path: Path
) -> None:
    with subprocess.Popen(
        [sys.executable, "-u", str(EXAMPLES / "shared.py")],
        env=environment(program, tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # If the tests run in the background of a shell, SIGINT would be ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as running:
        assert running.stdout is not None
        said = ""
        while "the same keys" not in said:
            line = running.stdout.readline()
            assert line, said
            said += line
        [port] = map(int, re.findall(r"on port (\d+)$", said, re.MULTILINE))
        assert is_open(port)
        # To all that a terminal would tell.
        (os.killpg if how == signal.SIGINT else os.kill)(running.pid, how)
        # The output ends when the last process has ended that could write to it.
        running.stdout.read()
    assert running.returncode != 0
    eventually("the server ends", lambda: not is_open(port))


def test_without_a_program_of_a_server_the_workers_are_not_started(tmp_path: Path) -> None:
    # The package is there, and an empty folder for what else is installed.
    package = Path(sys.modules["cache"].__file__ or "").parent.parent
    ran = subprocess.run(
        [
            sys.executable,
            "-I",
            "-c",
            "import runpy, sys, sysconfig; sys.path.insert(0, sys.argv[1]); "
            "sysconfig.get_path = lambda _: sys.argv[2]; runpy.run_path(sys.argv[3], run_name='__main__')",
            str(package),
            str(tmp_path),
            str(EXAMPLES / "shared.py"),
        ],
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
    )
    assert ran.returncode == 1
    assert ran.stdout == ""
    assert ran.stderr.startswith("There is no server on this machine: install Redis or Valkey")


@contextmanager
def service(server: Server, products: Path, *command: str) -> Iterator[httpx.Client]:
    """A client of a service, which is started, and stopped at the end."""
    with subprocess.Popen(
        command,
        cwd=EXAMPLES,
        env={
            **os.environ,
            "REDIS_URL": f"redis://127.0.0.1:{server.port}",
            "PRODUCTS": str(products),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as running:
        try:
            assert running.stdout is not None
            said = ""
            while not (found := re.search(r"http://[\d.]+:\d+", said)):
                line = running.stdout.readline()
                assert line, said
                said += line
            with httpx.Client(base_url=found[0], timeout=LIMIT) as client:
                yield client
        finally:
            running.kill()


UVICORN = [sys.executable, "-m", "uvicorn", "shared_service:app", "--port", "0", "--no-access-log"]
TEA = {"name": "tea", "price": 3.5}


@pytest.mark.parametrize("first", ["python", "rust"])
def test_services_in_both_languages_read_each_others_loads_and_see_each_others_writes(
    first: str, server: Server, tmp_path: Path
) -> None:
    program = os.environ.get("ASYNC_CACHE_SHARED_SERVICE")
    assert program, (
        "ASYNC_CACHE_SHARED_SERVICE is the Rust example shared_service, built; `make test-python` sees to that"
    )

    def queries(client: httpx.Client) -> Any:
        return client.get("/metrics").json()["queries"]

    with (
        service(server, tmp_path, *UVICORN) as python,
        service(server, tmp_path, program, "127.0.0.1:0") as rust,
    ):
        one, other = (python, rust) if first == "python" else (rust, python)
        assert one.put("/products/7", json=TEA).json() == TEA
        assert one.get("/products/7").json() == TEA
        assert queries(one) == 1

        # It reads what the first has loaded.
        assert other.get("/products/7").json() == TEA
        assert queries(other) == 0

        # A write to either is seen by both, out of memory, too.
        for writer, reader in ((one, other), (other, one)):
            new = {"name": "green tea", "price": 4.0 + queries(writer)}
            assert reader.get("/products/7").json() != new
            assert writer.put("/products/7", json=new).json() == new
            assert writer.get("/products/7").json() == new
            seen = partial(shows, reader, new)
            eventually("the write is seen", seen)
        assert queries(one) + queries(other) == 3

        # Errors are not shared, and there is no entry for them.
        assert [client.get("/products/8").status_code for client in (one, other)] == [404, 404]
        assert queries(one) + queries(other) == 5
