"""Names of test cases: the same in every process that collects the tests."""

from __future__ import annotations

import re


def without_addresses(value: object) -> str:
    """The representation of a value, without the addresses of objects."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))
