"""The proxy does to a connection exactly as the test says."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from proxy import Direction, Proxy
from servers import Client, Program, Server

TO_SERVER, TO_CLIENT = Direction.TO_SERVER, Direction.TO_CLIENT
LIMIT = 20  # seconds; a hang is a failure


class Ends:
    """A proxy before a listener, and both ends of each connection through it."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.proxy = stack.enter_context(Proxy(self._listener.getsockname()))

    def connection(self) -> tuple[socket.socket, socket.socket]:
        """A new connection: the side of the client, and that of the server."""
        client = self._stack.enter_context(socket.create_connection(self.proxy.address, LIMIT))
        server = self._stack.enter_context(self._listener.accept()[0])
        server.settimeout(LIMIT)
        return client, server


@pytest.fixture
def ends() -> Iterator[Ends]:
    with ExitStack() as stack:
        yield Ends(stack)


def read(side: socket.socket, count: int) -> bytes:
    """So many bytes."""
    data = b""
    while len(data) < count:
        more = side.recv(count - len(data))
        assert more, f"the connection ended after {data!r}"
        data += more
    return data


def rest(side: socket.socket) -> bytes:
    """Everything up to the end of the connection."""
    data = b""
    while more := side.recv(1 << 16):
        data += more
    return data


def assert_silent(side: socket.socket) -> None:
    """Fails if bytes, or the end of the connection, have arrived."""
    side.setblocking(False)
    with pytest.raises(BlockingIOError):
        side.recv(1)
    side.settimeout(LIMIT)


def test_a_server_answers_through_a_proxy_however_its_bytes_are_split(server: Server) -> None:
    with Proxy(server.address) as proxy, Client(proxy.address) as client:
        assert client.call("SET", "key", "value") == b"OK"
        proxy.split(TO_SERVER)
        proxy.split(TO_CLIENT)
        value = b"long" * 1000
        assert client.call("SET", "key", value) == b"OK"
        assert client.call("GET", "key") == value
        proxy.join(TO_SERVER)
        proxy.join(TO_CLIENT)
        assert client.call("STRLEN", "key") == 4000


def test_bytes_keep_their_order_and_none_is_lost(ends: Ends) -> None:
    client, server = ends.connection()
    sent = bytes(number % 251 for number in range(3_000_000))
    ends.proxy.hold_after(TO_SERVER, 1_000_003)
    writer = threading.Thread(target=client.sendall, args=(sent,))
    writer.start()
    received = read(server, 1_000_003)
    ends.proxy.wait_until_held(TO_SERVER)
    ends.proxy.release(TO_SERVER)
    received += read(server, 1_999_997)
    writer.join()
    client.shutdown(socket.SHUT_WR)
    assert received == sent
    assert rest(server) == b""
    assert ends.proxy.passed(TO_SERVER) == 3_000_000


def test_a_held_direction_passes_nothing_and_the_other_one_does(ends: Ends) -> None:
    client, server = ends.connection()
    ends.proxy.hold(TO_CLIENT)
    client.sendall(b"question")
    assert read(server, 8) == b"question"
    server.sendall(b"answer")
    ends.proxy.wait_until_held(TO_CLIENT)
    assert_silent(client)
    assert (ends.proxy.passed(TO_SERVER), ends.proxy.passed(TO_CLIENT)) == (8, 0)
    ends.proxy.release(TO_CLIENT)
    assert read(client, 6) == b"answer"


def test_the_end_of_a_connection_is_held_too(ends: Ends) -> None:
    client, server = ends.connection()
    ends.proxy.hold(TO_CLIENT)
    server.close()
    ends.proxy.wait_until_held(TO_CLIENT)
    assert_silent(client)
    ends.proxy.release(TO_CLIENT)
    assert rest(client) == b""


def test_bytes_up_to_a_limit_pass_before_a_hold_and_before_a_cut(ends: Ends) -> None:
    client, server = ends.connection()
    ends.proxy.hold_after(TO_CLIENT, 3)
    server.sendall(b"abcdef")
    assert read(client, 3) == b"abc"
    ends.proxy.wait_until_held(TO_CLIENT)
    assert ends.proxy.passed(TO_CLIENT) == 3
    ends.proxy.cut_after(TO_CLIENT, 2)
    assert rest(client) == b"de"
    assert rest(server) == b""
    # Later connections are not limited.
    client, server = ends.connection()
    server.sendall(b"abcdef")
    server.close()
    assert rest(client) == b"abcdef"


def test_a_cut_closes_both_sides_of_every_connection_even_while_bytes_are_held(ends: Ends) -> None:
    client, server = ends.connection()
    others = ends.connection()
    ends.proxy.hold(TO_CLIENT)
    server.sendall(b"lost")
    ends.proxy.wait_until_held(TO_CLIENT)
    ends.proxy.cut()
    for side in (client, server, *others):
        assert rest(side) == b""
    assert (ends.proxy.accepted(), ends.proxy.open()) == (2, 0)


def test_a_delay_is_a_latency_for_each_direction_and_keeps_the_order(ends: Ends) -> None:
    client, server = ends.connection()
    ends.proxy.delay(TO_CLIENT, 0.06)
    begun = time.monotonic()
    for word in (b"a", b"b", b"c"):
        server.sendall(word)
    assert read(client, 1) == b"a"
    assert time.monotonic() - begun >= 0.06
    # Later bytes do not overtake, although their own delay is none.
    ends.proxy.delay(TO_CLIENT, 0)
    server.sendall(b"d")
    assert read(client, 3) == b"bcd"
    # An hour in one direction does not delay the other.
    ends.proxy.delay(TO_CLIENT, 3600)
    client.sendall(b"question")
    assert read(server, 8) == b"question"


def test_a_proxy_refuses_and_accepts_connections_and_counts_them(ends: Ends) -> None:
    client, server = ends.connection()
    ends.proxy.refuse()
    with socket.create_connection(ends.proxy.address, LIMIT) as refused:
        assert rest(refused) == b""
    client.sendall(b"open")
    assert read(server, 4) == b"open"
    ends.proxy.accept()
    client, server = ends.connection()
    client.sendall(b"new")
    assert read(server, 3) == b"new"
    ends.proxy.wait_until_accepted(3)
    assert ends.proxy.accepted() == 3


def test_a_proxy_before_a_server_that_is_gone_closes_connections_until_it_is_back(
    program: Program,
) -> None:
    with program.start() as server, Proxy(server.address) as proxy:
        server.kill()
        with socket.create_connection(proxy.address, LIMIT) as connection:
            assert rest(connection) == b""
        server.restart()
        with Client(proxy.address) as client:
            assert client.call("PING") == b"PONG"


def test_a_stopped_proxy_closes_its_connections_and_its_port(ends: Ends) -> None:
    client, server = ends.connection()
    address = ends.proxy.address
    ends.proxy.stop()
    assert rest(client) == rest(server) == b""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, LIMIT)
