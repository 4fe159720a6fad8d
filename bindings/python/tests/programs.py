"""Programs in a separate interpreter, which may end, fork or hang without affecting the tests."""

from __future__ import annotations

import subprocess
import sys
import textwrap

LIMIT = 60  # seconds; a program that runs longer has failed


def run(program: str, *arguments: str) -> str:
    """Runs a program, and returns its output."""
    return complete(program, *arguments).stdout


def complete(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a program that must succeed; returns its output and its error output."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(program), *arguments],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done
