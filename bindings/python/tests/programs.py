"""Programs in a separate interpreter, which may end, fork or hang without affecting the tests."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import cache

PACKAGE_ROOT = Path(cache.__file__).parent.parent
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


def start(program: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    """Starts a Python program that can import the package."""
    paths = [str(PACKAGE_ROOT), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def output_of(program: str, *arguments: object, **environment: str) -> str:
    """Runs a Python program to its end and returns what it prints."""
    process = start(program, *arguments, **environment)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    return output
