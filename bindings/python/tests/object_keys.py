"""Keys that are objects: only Python can compare them, so a file has them pickled."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Point:
    """Equal by value."""

    x: int
    y: int


class Alike:
    """Equal to the number in it, and without canonical bytes."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        return other == self.number if not isinstance(other, Alike) else other.number == self.number

    def __hash__(self) -> int:
        return hash(self.number)
