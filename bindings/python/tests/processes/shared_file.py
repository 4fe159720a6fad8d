"""Programs in other processes that save to a shared file, and a class of keys that they share."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

from cache import AsyncCache, DiskBackend

LIMIT = 60

KEY = """
class Key:
    \"\"\"Compared by value, without a canonical encoding: so it is pickled.\"\"\"

    def __init__(self, number, how="here"):
        self.number = number
        self.how = how

    def __eq__(self, other):
        return self.number == other.number

    def __hash__(self):
        return hash(self.number)
"""


def write_keys(folder: Path) -> None:
    """Writes the module `keys`, which has the class `Key`."""
    (folder / "keys.py").write_text(KEY)


def elsewhere(path: Path, program: str, options: str = "") -> None:
    """Runs a program in another process. The program has a cache on the same path; `options` are
    for its backend.
    """
    write_keys(path.parent)
    head = f"""
        import sys
        sys.path.insert(0, {str(path.parent)!r})
        from keys import Key
        from cache import AsyncCache, DiskBackend
        cache = AsyncCache(maxsize=None, backup=DiskBackend({str(path)!r}, {options}))
    """
    source = textwrap.dedent(head) + textwrap.dedent(program)
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert done.returncode == 0, done.stderr


def content(path: Path) -> dict[Any, Any]:
    return {key: value for key, (value, _) in DiskBackend(path).load().items()}


async def served(cache: AsyncCache, key: Any) -> Any:
    return await cache.get(key)
