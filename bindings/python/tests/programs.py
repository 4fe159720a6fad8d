"""Programs in an interpreter of their own: what ends, forks or hangs must not take the tests with it."""

from __future__ import annotations

import subprocess
import sys
import textwrap

LIMIT = 60  # seconds after which a program that hangs has failed


def run(program: str, *arguments: str) -> str:
    """Runs a program, and returns what it printed."""
    return complete(program, *arguments).stdout


def complete(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a program that ends well; what it printed and what it complained of."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(program), *arguments],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done
