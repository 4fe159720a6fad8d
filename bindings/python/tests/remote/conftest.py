"""Fixtures of the tests with a remote tier."""

from __future__ import annotations

import pytest
from servers import Server

from cache import RedisBackend


@pytest.fixture
def backend(server: Server) -> RedisBackend:
    """The tier on a started server, of each kind on this machine."""
    return RedisBackend(*server.address)
