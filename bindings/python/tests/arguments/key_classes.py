"""Classes of the tests of keys."""

from __future__ import annotations

import collections
import enum

Point = collections.namedtuple("Point", "x y")


class Colour(enum.Enum):
    RED = 1
    BLUE = 2
