"""Services stopped like containers: results cached with `save_at_exit` are in the file.

Nothing was saved under uvicorn: after serving, uvicorn restores the previous handler of SIGTERM,
which is the default action, and raises the signal again. The process died of the signal, and
`atexit` did not run.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from loops import LOOPS

from cache import DiskBackend

LIMIT = 60  # seconds; a server that runs longer has failed

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="these servers and signals are not there"),
    pytest.mark.timeout(2 * LIMIT),
]

# Caches at its start, during a request, and at its shutdown.
APP = """
import os
from cache import AsyncCache, DiskBackend

def make():
    return AsyncCache(backup=DiskBackend("x.cache"), save_at_exit=os.environ["SAVES"] == "yes")

def tell():
    with open("ready", "wb") as ready:
        ready.write(b".")

cache = make() if os.environ["MADE"] == "on import" else None
if os.environ["IS_WSGI"] == "yes":
    tell()

async def app(scope, receive, send):
    global cache
    if scope["type"] == "lifespan":
        await receive()
        cache = cache or make()
        cache.set(f"started {os.getpid()}", 1)
        tell()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        cache.set(f"stopped {os.getpid()}", 1)
        await send({"type": "lifespan.shutdown.complete"})
        return
    async def load():
        return "loaded"
    body = await cache.get("asked", loader=load)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6")]})
    await send({"type": "http.response.body", "body": body.encode()})

def wsgi(environ, start_response):
    cache.set("asked", 1)
    start_response("200 OK", [("content-length", "6")])
    return [b"loaded"]
"""

UVICORN = ["-m", "uvicorn", "app:app", "--uds", "socket"]
GUNICORN = ["-m", "gunicorn", "-b", "unix:socket", "--graceful-timeout", "20"]
WORKER = [*GUNICORN, "-k", "uvicorn_worker.UvicornWorker", "app:app"]
SERVE = """
import asyncio, uvicorn
async def main():
    await uvicorn.Server(uvicorn.Config("app:app", uds="socket")).serve()
asyncio.run(main())
"""


class Server:
    """A server in a separate folder, which has answered one request."""

    def __init__(self, folder: Path, arguments: list[str], made: str, saves: str, workers: int) -> None:
        folder.mkdir()
        self._folder = folder
        (folder / "app.py").write_text(APP)
        os.mkfifo(folder / "ready")
        is_wsgi = "no" if workers else "yes"
        environment = {**os.environ, "MADE": made, "SAVES": saves, "IS_WSGI": is_wsgi}
        with (folder / "log").open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-B", *arguments],
                cwd=folder,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
                # If the tests run in the background of a shell, SIGINT would be ignored.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )
        ready = os.open(folder / "ready", os.O_RDWR)
        try:
            for _ in range(workers or 1):
                assert select.select([ready], [], [], LIMIT)[0], self.log()
                os.read(ready, 1)
        finally:
            os.close(ready)
        self._request()

    def _request(self) -> None:
        while True:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(LIMIT)
                try:
                    client.connect(os.path.relpath(self._folder / "socket"))
                except (FileNotFoundError, ConnectionRefusedError):
                    # The server listens right after its start.
                    assert self._process.poll() is None, self.log()
                    continue
                client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                answer = b""
                while not answer.endswith(b"loaded"):
                    part = client.recv(1000)
                    assert part, self.log()
                    answer += part
                return

    def log(self) -> str:
        return (self._folder / "log").read_text()

    def stop(self, how: signal.Signals) -> int:
        """Sends a signal: SIGTERM to the server, as an orchestrator does, or SIGINT to all of its
        processes, as a terminal does. Returns the exit code of the server.
        """
        if how == signal.SIGINT:
            os.killpg(self._process.pid, how)
        else:
            self._process.send_signal(how)
        return self._process.wait(LIMIT)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(LIMIT)

    def saved(self) -> dict[str, Any]:
        return {key: value for key, (value, _) in DiskBackend(self._folder / "x.cache").load().items()}


@contextmanager
def serving(
    folder: Path, arguments: list[str], made: str = "on import", saves: str = "yes", workers: int = 0
) -> Iterator[Server]:
    server = Server(folder, arguments, made, saves, workers)
    try:
        yield server
    finally:
        server.kill()


CASES = {
    "uvicorn": (UVICORN, "on import", 1),
    "uvicorn on uvloop": ([*UVICORN, "--loop", "uvloop"], "on import", 1),
    "uvicorn, cache made in the lifespan": (UVICORN, "in the lifespan", 1),
    "uvicorn with 2 workers": ([*UVICORN, "--workers", "2"], "on import", 2),
    "uvicorn in a program": (["-c", SERVE], "on import", 1),
    "gunicorn with uvicorn's worker": (WORKER, "on import", 1),
    "gunicorn with 2 of uvicorn's workers": ([*WORKER, "--workers", "2"], "on import", 2),
    "gunicorn with uvicorn's worker, cache made in the lifespan": (WORKER, "in the lifespan", 1),
}


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("case", CASES)
def test_a_service_that_is_stopped_has_saved_what_it_cached(
    case: str, how: signal.Signals, tmp_path: Path
) -> None:
    arguments, made, workers = CASES[case]
    if "uvloop" in case and "uvloop" not in LOOPS:
        pytest.skip("uvloop cannot be installed on this Python")
    with serving(tmp_path / "saves", arguments, made, "yes", workers) as server:
        code = server.stop(how)
        saved = server.saved()
    assert "asked" in saved, server.log()
    pids = {key.split()[1] for key in saved if key != "asked"}
    assert len(pids) == workers
    assert set(saved) == {"asked", *(f"{when} {pid}" for when in ("started", "stopped") for pid in pids)}
    with serving(tmp_path / "does not", arguments, made, "no", workers) as other:
        assert other.stop(how) == code, "the server ends as it does without"


def test_a_worker_of_gunicorn_that_was_forked_with_its_caches_saves_them(tmp_path: Path) -> None:
    """`--preload`: the cache is made in the parent, and the forked worker resets all signals."""
    with serving(tmp_path / "preload", [*WORKER, "--preload"], workers=1) as server:
        assert server.stop(signal.SIGTERM) == 0
        assert "asked" in server.saved(), server.log()


@pytest.mark.parametrize("preload", [[], ["--preload"]], ids=["loaded in the worker", "preloaded"])
@pytest.mark.parametrize("worker", ["sync", "gthread"])
def test_workers_of_gunicorn_s_own_save_when_they_are_stopped(
    worker: str, preload: list[str], tmp_path: Path
) -> None:
    with serving(tmp_path / "wsgi", [*GUNICORN, "-k", worker, *preload, "app:wsgi"]) as server:
        assert server.stop(signal.SIGTERM) == 0
        assert set(server.saved()) == {"asked"}, server.log()


def test_what_is_written_while_the_server_shuts_down_is_saved_though_the_first_worker_has_saved(
    tmp_path: Path,
) -> None:
    with serving(tmp_path / "workers", [*UVICORN, "--workers", "3"], workers=3) as server:
        server.stop(signal.SIGTERM)
        assert len(server.saved()) == 1 + 2 * 3, server.log()
