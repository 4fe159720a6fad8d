"""The console script ``async-cache``: the same tool as the crate's binary, plus pickles on
request.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cache import AsyncCache, DiskBackend

GOLDEN = Path(__file__).parents[4] / "crates/async-cache-disk/tests/golden/v1-python.acf"


def tool(*args: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Runs the code of the console script, in a separate process."""
    command = [sys.executable, "-c", "import sys; from cache._tool import main; sys.exit(main())", *args]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    return subprocess.run(
        command, input=stdin, capture_output=True, text=True, timeout=60, env=environment, encoding="utf-8"
    )


class Planted(str):
    """Leaves a file behind when it is unpickled."""

    trace: Path

    def __setstate__(self, state: dict[str, Path]) -> None:
        state["trace"].write_bytes(b"it ran")


@pytest.fixture
def planted(tmp_path: Path) -> tuple[Path, Path]:
    """A file that contains a pickle, and the trace that the pickle would leave."""
    path, trace = tmp_path / "planted.cache", tmp_path / "trace"
    cache = AsyncCache(backup=DiskBackend(path))
    value = Planted("\x1b[31mwhat came out")
    value.trace = trace
    cache.set("planted", value)
    cache.save_to_backup()
    assert not trace.exists()
    return path, trace


def test_the_script_is_the_tool() -> None:
    ran = tool("get", GOLDEN, '["user", 7]')
    assert (ran.returncode, ran.stderr) == (0, "")
    assert json.loads(ran.stdout) == {"name": "Ada", "tags": ["admin", "staff"], "age": None}
    assert tool("verify", GOLDEN).returncode == 0
    assert tool("get", GOLDEN, "nobody").returncode == 1
    assert tool("verify", GOLDEN.parent / "no such file").returncode == 2
    assert tool("inspect", GOLDEN, "--json").stdout.count("\n") == 1


def test_no_command_runs_a_pickle_unasked(planted: tuple[Path, Path], tmp_path: Path) -> None:
    path, trace = planted
    commands: list[list[str | Path]] = [
        ["inspect", path, "--full"],
        ["ls", path],
        ["get", path, "planted"],
        ["verify", path],
        ["export", path],
        ["repair", path, tmp_path / "repaired.cache"],
        ["compact", path],
        ["diff", path, GOLDEN],
    ]
    for args in commands:
        ran = tool(*args)
        assert ran.returncode in (0, 1), ran.stderr
        assert not trace.exists(), args
    assert "test_tool" in tool("get", path, "planted").stdout


def test_a_pickle_runs_if_it_is_asked_for_and_its_repr_cannot_drive_the_terminal(
    planted: tuple[Path, Path],
) -> None:
    path, trace = planted
    ran = tool("get", path, "planted", "--allow-pickle")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == "'\\x1b[31mwhat came out'\n"
    assert trace.read_bytes() == b"it ran"


def test_what_python_exported_python_can_import_and_serve(tmp_path: Path) -> None:
    exported = tool("export", GOLDEN)
    path = tmp_path / "imported.cache"
    assert tool("import", path, stdin=exported.stdout).returncode == 0
    cache = AsyncCache(maxsize=None, backup=DiskBackend(path, version="v1"))
    original = AsyncCache(maxsize=None, backup=DiskBackend(GOLDEN, version="v1"))
    assert len(cache.cache) == len(original.cache) > 15


def test_other_programs_can_fill_a_cache(tmp_path: Path) -> None:
    path = tmp_path / "new.cache"
    lines = '{"key": "greeting", "value": "hello"}\n{"key": ["user", 7], "value": {"$tuple": [1, 2]}}\n'
    assert tool("import", path, stdin=lines).returncode == 0
    backend = DiskBackend(path)
    assert {key: value for key, (value, _) in backend.load().items()} == {
        "greeting": "hello",
        ("user", 7): (1, 2),
    }
