"""The console script ``async-cache``: inspects, checks, repairs, exports, compares cache files."""

from __future__ import annotations

import signal
import sys

from cache._native import run_tool


def main() -> int:
    """Run the tool with the arguments of this process; return its exit code."""
    # The tool runs outside of the interpreter, which would notice an interrupt only after the tool
    # has ended.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return run_tool(sys.argv)
