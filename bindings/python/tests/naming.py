"""Names of test cases: the same in every process that collects the tests."""

from __future__ import annotations

import re

_BRACES = re.compile(r"\{([^{}]*)\}")


def stable_name(value: object) -> str:
    """The representation of a value, without the addresses of objects and the order of sets."""
    name = re.sub(r" at 0x[0-9a-f]+", "", repr(value))
    while "{" in name:
        inner = _BRACES.sub(lambda braces: f"[{', '.join(sorted(braces[1].split(', ')))}]", name)
        if inner == name:
            break
        name = inner
    return name
