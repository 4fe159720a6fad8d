"""Several processes share loads through a server."""

from __future__ import annotations

import pytest
from programs import start
from servers import Server

PROGRAM = """
import asyncio, sys
from cache import AsyncCache, RedisBackend

loads = 0

async def load():
    global loads
    loads += 1
    await asyncio.sleep(0.2)
    return "value"

async def main():
    backend = RedisBackend("127.0.0.1", int(sys.argv[1]))
    caches = [AsyncCache(remote_cache=backend) for _ in range(int(sys.argv[2]))]
    for cache in caches:
        await cache.get("another key")
    print("ready", flush=True)
    sys.stdin.readline()
    values = await asyncio.gather(*[cache.get("k", load) for cache in caches for _ in range(100)])
    assert values == ["value"] * len(caches) * 100
    print(loads, flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize(("processes", "caches"), [(2, 4), (8, 1)])
def test_processes_and_caches_load_a_key_once(server: Server, processes: int, caches: int) -> None:
    programs = [start(PROGRAM, server.port, caches) for _ in range(processes)]
    for program in programs:
        assert program.stdout is not None and program.stdout.readline() == "ready\n"
    outputs = []
    for program in programs:
        assert program.stdin is not None
        program.stdin.write("go\n")
        program.stdin.flush()
    for program in programs:
        output, _ = program.communicate(timeout=20)
        assert program.returncode == 0
        outputs.append(int(output))
    assert sum(outputs) == 1
