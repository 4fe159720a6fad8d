"""A TCP proxy that harms connections as the test says: delays, holds, splits and cuts them. The
same as `Proxy` of `tests/servers`, in threads of its own, for any event loop.

Each connection has two ways, to the server and to the client. In each, a reader stamps the bytes
with their time of arrival, and a writer passes them on.

1. The bytes of a way keep their order, whatever the test sets and resets.
2. A delay is a latency: bytes that arrive together leave together, that much later.
3. Held bytes are kept, and are passed on after the release. The end of a connection is held, too.
   So a hold of one way is a half-open connection.
4. A cut closes both sides, and drops the bytes that are on their way.
"""

from __future__ import annotations

import contextlib
import enum
import queue
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from servers import free_port

LIMIT = 10  # seconds; waiting for longer has failed
CHUNK_BYTES = 1 << 16
MOST_CHUNKS = 64


class Direction(enum.Enum):
    """A direction in which bytes pass."""

    TO_SERVER = 0
    TO_CLIENT = 1


@dataclass
class Way:
    """The settings of a direction, and its counts."""

    delay: float = 0.0  # seconds
    allowed: int | None = None
    """How many bytes may still pass; `None`: all."""
    cuts: bool = False
    """Whether the connections are cut after the allowed bytes. They are held otherwise."""
    splits: bool = False
    """Whether each byte is written alone."""
    passed: int = 0
    """Bytes passed on. Counted before they are written: a test that has received bytes finds them
    counted.
    """
    holding: int = 0
    """Writers that have something and may not write it."""


class Proxy:
    """A proxy before a server. The settings of a direction count for all of its connections, open
    and new. `stop` cuts all connections.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._ways = {direction: Way() for direction in Direction}
        self._open: dict[int, tuple[socket.socket, socket.socket]] = {}
        self._accepted = 0
        self._cut = 0
        """How many of the accepted connections are cut, even if they are not open yet."""
        self._refuses = self._ended = False
        self._changed = threading.Condition()
        self._connections: list[threading.Thread] = []
        self._listener = self._bind()
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    @staticmethod
    def _bind() -> socket.socket:
        while True:
            with contextlib.suppress(OSError):
                return socket.create_server(("127.0.0.1", free_port()), backlog=128)

    @property
    def address(self) -> tuple[str, int]:
        """The address for clients."""
        host, port = self._listener.getsockname()
        return host, port

    def delay(self, direction: Direction, seconds: float) -> None:
        """Bytes that arrive from now on are passed on so much later."""
        self._set(direction, delay=seconds)

    def hold(self, direction: Direction) -> None:
        """Holds everything, until `release`."""
        self.hold_after(direction, 0)

    def hold_after(self, direction: Direction, count: int) -> None:
        """Lets so many further bytes through, of all connections together, and holds the rest."""
        self._set(direction, allowed=count, cuts=False)

    def cut_after(self, direction: Direction, count: int) -> None:
        """Lets so many further bytes through, and cuts all connections after the last of them.
        Later connections are not limited.
        """
        assert count > 0, "nothing passes before the cut"
        self._set(direction, allowed=count, cuts=True)

    def release(self, direction: Direction) -> None:
        """Ends a hold: passes on the held bytes, and all that follow."""
        self._set(direction, allowed=None, cuts=False)

    def split(self, direction: Direction) -> None:
        """Writes each byte alone from now on."""
        self._set(direction, splits=True)

    def join(self, direction: Direction) -> None:
        """Ends `split`."""
        self._set(direction, splits=False)

    def cut(self) -> None:
        """Closes all connections that clients have made. New ones are accepted."""
        with self._changed:
            self._cut_all()

    def refuse(self) -> None:
        """Closes new connections at once, until `accept`. Open ones stay."""
        with self._changed:
            self._refuses = True

    def accept(self) -> None:
        """Ends `refuse`."""
        with self._changed:
            self._refuses = False

    def accepted(self) -> int:
        """How many connections clients have made, with those that were refused."""
        with self._changed:
            return self._accepted

    def open(self) -> int:
        """How many connections are open."""
        with self._changed:
            return len(self._open)

    def passed(self, direction: Direction) -> int:
        """How many bytes have passed in a direction."""
        with self._changed:
            return self._ways[direction].passed

    def wait_until_held(self, direction: Direction) -> None:
        """Waits until bytes, or the end of a connection, are held in a direction."""
        self._wait("something is held", lambda: self._ways[direction].holding > 0)

    def wait_until_accepted(self, connections: int) -> None:
        """Waits until clients have made so many connections since the start."""
        self._wait("connections", lambda: self._accepted >= connections)

    def stop(self) -> None:
        """Cuts all connections, and closes the port. Again: does nothing."""
        with self._changed:
            if self._ended:
                return
            self._ended = True
            self._cut_all()
        with contextlib.suppress(OSError):
            socket.create_connection(self.address, timeout=LIMIT).close()  # wakes the acceptor
        self._acceptor.join()
        for connection in self._connections:
            connection.join()
        self._listener.close()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _set(self, direction: Direction, **settings: object) -> None:
        with self._changed:
            for name, value in settings.items():
                setattr(self._ways[direction], name, value)
            self._changed.notify_all()

    def _wait(self, wanted: str, met: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(met, LIMIT), f"not within {LIMIT} s: {wanted}"

    def _cut_all(self) -> None:
        """With the lock held."""
        self._cut = self._accepted
        for side in (side for sides in self._open.values() for side in sides):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
        self._open.clear()
        self._changed.notify_all()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            with self._changed:
                if self._ended:
                    client.close()
                    return
                self._accepted += 1
                self._changed.notify_all()
                number = self._accepted
                if self._refuses:
                    client.close()
                    continue
            connection = threading.Thread(target=self._connect, args=(number, client), daemon=True)
            self._connections.append(connection)
            connection.start()

    def _connect(self, number: int, client: socket.socket) -> None:
        """The life of a connection."""
        with client:
            try:
                server = socket.create_connection(self._target, timeout=LIMIT)
            except OSError:
                return
            with server:
                for side in (client, server):
                    side.settimeout(None)
                    side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self._changed:
                    if number <= self._cut:
                        return
                    self._open[number] = (client, server)
                ways = [
                    thread
                    for direction, source, sink in (
                        (Direction.TO_SERVER, client, server),
                        (Direction.TO_CLIENT, server, client),
                    )
                    for thread in self._way(number, direction, source, sink)
                ]
                for thread in ways:
                    thread.start()
                for thread in ways:
                    thread.join()
                with self._changed:
                    self._open.pop(number, None)

    def _way(
        self, number: int, direction: Direction, source: socket.socket, sink: socket.socket
    ) -> list[threading.Thread]:
        """The reader and the writer of a way."""
        chunks: queue.Queue[tuple[float, bytes]] = queue.Queue(MOST_CHUNKS)
        ended = threading.Event()
        read = threading.Thread(target=self._read, args=(direction, source, chunks, ended), daemon=True)
        write = threading.Thread(
            target=self._write, args=(number, direction, sink, chunks, ended), daemon=True
        )
        return [read, write]

    def _read(
        self,
        direction: Direction,
        source: socket.socket,
        chunks: queue.Queue[tuple[float, bytes]],
        ended: threading.Event,
    ) -> None:
        """Sends the bytes of one side, each chunk with the time at which it is due. The last chunk
        is empty.
        """
        data = b"more"
        while data and not ended.is_set():
            try:
                data = source.recv(CHUNK_BYTES)
            except OSError:
                data = b""
            with self._changed:
                due = time.monotonic() + self._ways[direction].delay
            chunks.put((due, data))

    def _write(
        self,
        number: int,
        direction: Direction,
        sink: socket.socket,
        chunks: queue.Queue[tuple[float, bytes]],
        ended: threading.Event,
    ) -> None:
        data = b"more"
        while data:
            due, data = chunks.get()
            if not self._pass(number, direction, sink, due, data):
                break
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
        ended.set()
        with contextlib.suppress(queue.Empty):  # the reader may wait for room
            while True:
                chunks.get_nowait()

    def _pass(self, number: int, direction: Direction, sink: socket.socket, due: float, data: bytes) -> bool:
        """Passes a chunk on, or the end of the connection if the chunk is empty. False: the
        connection was cut or is broken.
        """
        way = self._ways[direction]
        while True:
            allowed = self._allowed(number, way, due, len(data))
            if allowed is None:
                return False
            count, cuts = allowed
            try:
                sink.sendall(data[:count])
            except OSError:
                return False
            data = data[count:]
            if cuts:
                with self._changed:
                    way.allowed, way.cuts = None, False
                    self._cut_all()
                return False
            if not data:
                return True

    def _allowed(self, number: int, way: Way, due: float, wanted: int) -> tuple[int, bool] | None:
        """Waits until bytes may be written; returns how many, and whether a cut follows. `None`:
        the connection was cut.
        """
        with self._changed:
            while number in self._open:
                left = due - time.monotonic()
                if left > 0:
                    self._changed.wait(left)
                elif way.allowed == 0:
                    way.holding += 1
                    self._changed.notify_all()
                    self._changed.wait()
                    way.holding -= 1
                else:
                    count = min(wanted, 1) if way.splits else wanted
                    if way.allowed is not None:
                        count = min(count, way.allowed)
                        way.allowed -= count
                    way.passed += count
                    return count, way.allowed == 0 and way.cuts
            return None
