"""The examples of caches that share a server run, and show their subjects."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from servers import Kind, Program, Server, eventually

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
LIMIT = 60  # seconds; a program that runs longer has failed
ROW = re.compile(r"^  worker (\d) +(\d+) +(\d+) +(\d+) +[\d.]+ ms$", re.MULTILINE)


def environment(program: Program, folder: Path) -> dict[str, str]:
    """An environment whose first server on the `PATH` is this one."""
    (folder / "redis-server").symlink_to(program.path)
    return {**os.environ, "PATH": os.pathsep.join([str(folder), os.environ["PATH"]])}


def rows(part: str) -> list[tuple[int, int, int]]:
    """The rows of a table: keys out of memory, out of the server, loaded."""
    return [(int(memory), int(server), int(loaded)) for _, memory, server, loaded in ROW.findall(part)]


def is_open(port: int) -> bool:
    with contextlib.suppress(OSError), contextlib.closing(__import__("socket").create_connection(("127.0.0.1", port))):
        return True
    return False


@pytest.mark.timeout(2 * LIMIT)
def test_workers_share_loads_and_writes_and_live_without_their_server(program: Program, tmp_path: Path) -> None:
    begun = time.monotonic()
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

    # One load for each key, by one of the workers.
    for part in (cold, back):
        assert len(rows(part)) == 3, ran.stdout
        assert [sum(column) for column in zip(*rows(part), strict=True)] == [0, 12, 6], ran.stdout
    assert rows(warm) == [(6, 0, 0)] * 3
    assert re.findall(r"worker (\d) sees it after", written) == ["2", "3"]
    assert rows(again) == [(0, 6, 0)]
    # Memory goes on, and each loads the new key for itself.
    assert rows(down) == [(6, 0, 1)] * 3
    assert down.count("is away") == 3
    assert back.count("is connected") == 3
    assert "is away" not in head + cold + warm + written + again + back
    assert time.monotonic() - begun < LIMIT
