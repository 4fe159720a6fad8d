"""The servers of the tests start, answer, stop, and never outlive their test."""

from __future__ import annotations

import contextlib
import socket
import sys
from pathlib import Path

import pytest
import servers
from nodes import NAME, SLOTS, cluster, failover
from programs import start
from servers import AUTHORITY, Client, EndedError, Program, Server, ServerError, eventually, fields

LIMIT = 20  # seconds; a hang is a failure

HOLDER = """
import sys
sys.path.insert(0, sys.argv[1])
import servers
started = [program.start() for program in servers.everyone()]
print(*(server.port for server in started), flush=True)
sys.stdin.read()
"""


def assert_ends(connection: socket.socket) -> None:
    """Fails on a connection that is open; waits for the end of one that is about to end."""
    with connection:
        connection.settimeout(LIMIT)
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""


def test_every_kind_answers_and_says_its_version(server: Server) -> None:
    assert server.call("PING") == b"PONG"
    info = fields(server.call("INFO", "server"))
    assert info[f"{server.program.kind.value}_version"] == server.program.version
    assert info["process_id"] == str(server.pid)


def test_servers_of_a_test_are_independent(program: Program) -> None:
    with program.start() as first, program.start() as second:
        first.call("SET", "key", "first")
        assert first.port != second.port
        assert second.call("GET", "key") is None


def test_lines_of_configuration_count(program: Program) -> None:
    with program.start("maxmemory 1mb", "maxmemory-policy allkeys-lru") as server:
        found = fields(server.call("CONFIG", "GET", "maxmemory*"))
        assert (found["maxmemory"], found["maxmemory-policy"]) == ("1048576", "allkeys-lru")


def test_a_server_that_refuses_its_configuration_fails_the_test_with_its_words(program: Program) -> None:
    with pytest.raises(EndedError, match="Bad directive"):
        program.start("no-such-directive 1")


def test_errors_of_a_server_are_raised(server: Server) -> None:
    with pytest.raises(ServerError, match="unknown command"):
        server.call("NO-SUCH-COMMAND")


def test_a_server_listens_on_a_socket_alone(program: Program) -> None:
    with program.start_on_socket() as server:
        assert server.socket is not None and server.socket.is_socket()
        assert server.call("PING") == b"PONG"


def test_a_server_with_tls_refuses_plain_text(program: Program) -> None:
    server = program.start_with_tls()
    if server is None:
        return  # Debian's Redis has TLS, the Valkey of PyPI has none: both outcomes are right
    with server:
        connection = socket.create_connection(server.address)
        connection.sendall(b"PING\r\n")
        assert_ends(connection)
        assert AUTHORITY.is_file()
        assert "Error accepting a client connection" in server.log()


def test_a_paused_server_keeps_its_connections_and_answers_when_it_is_resumed(server: Server) -> None:
    with server.connect() as client:
        server.pause()
        client.send("SET", "key", "value")
        if sys.platform == "linux":
            assert ") T " in Path(f"/proc/{server.pid}/stat").read_text()
        server.resume()
        assert client.receive() == b"OK"


def test_a_killed_server_ends_its_connections_and_comes_back_empty_on_the_same_port(
    server: Server,
) -> None:
    address = server.address
    server.call("SET", "key", "value")
    connection = socket.create_connection(address)
    server.kill()
    assert_ends(connection)
    assert server.pid is None
    with pytest.raises(ConnectionRefusedError):
        server.connect()
    server.restart()
    assert server.address == address
    assert server.call("GET", "key") is None


def test_a_restarted_server_has_the_data_that_it_saved(server: Server) -> None:
    server.call("SET", "key", "saved")
    assert server.call("SAVE") == b"OK"
    server.call("SET", "key", "not saved")
    server.restart()
    assert server.call("GET", "key") == b"saved"


def test_a_stopped_server_ends_even_if_it_is_paused_and_leaves_no_folder(program: Program) -> None:
    with program.start() as server:
        connection = socket.create_connection(server.address)
        server.pause()
    assert_ends(connection)
    assert not server.folder.exists()


def test_servers_end_with_a_process_that_is_killed() -> None:
    process = start(HOLDER, Path(servers.__file__).parent)
    assert process.stdout is not None
    ports = [int(port) for port in process.stdout.readline().split()]
    assert len(ports) == len(servers.everyone())
    connections = []
    for port in ports:
        with Client(("127.0.0.1", port)) as client:
            assert client.call("PING") == b"PONG"
        connections.append(socket.create_connection(("127.0.0.1", port)))
    process.kill()
    process.communicate()
    for connection in connections:
        assert_ends(connection)


def test_tests_fail_where_no_server_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "found", list)
    with pytest.raises(AssertionError, match=r"make \.venv/ready"):
        servers.everyone()


def test_a_sentinel_promotes_the_replica_of_a_master_that_is_gone(program: Program) -> None:
    with failover(program) as nodes:
        with nodes.master.connect() as client:
            client.call("SET", "key", "value")
            # Waits for the writes of its own connection only.
            assert client.call("WAIT", 1, 5000) == 1
        assert nodes.master_port() == nodes.master.port
        with pytest.raises(ServerError, match="READONLY"):
            nodes.replica.call("SET", "key", "other")
        nodes.master.kill()
        eventually("the replica is the master", lambda: nodes.master_port() == nodes.replica.port)
        assert nodes.replica.call("GET", "key") == b"value"
        assert nodes.replica.call("SET", "key", "other") == b"OK"
        with pytest.raises(ServerError, match="No such master"):
            nodes.sentinel.call("SENTINEL", "MASTER", NAME + "s")


def test_the_nodes_of_a_cluster_serve_their_slots_and_redirect_for_others(program: Program) -> None:
    with cluster(program) as nodes:
        for name, slot, owner in [("b", 3300, 0), ("c", 7365, 1), ("a", 15495, 2)]:
            first, last = SLOTS[owner]
            assert first <= slot <= last
            for number, node in enumerate(nodes):
                if number == owner:
                    assert node.call("SET", name, "value") == b"OK"
                    continue
                with pytest.raises(ServerError) as raised:
                    node.call("SET", name, "value")
                assert str(raised.value) == f"MOVED {slot} 127.0.0.1:{nodes[owner].port}"
