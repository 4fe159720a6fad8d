"""Measures the original library, in a separate process, because its modules have our names.

Started by `bench.py`, with the original's folder on ``PYTHONPATH``.
"""

from __future__ import annotations

import contenders
import remote

if __name__ == "__main__":
    remote.serve(contenders.of_cache("the original"))
