"""The calls of a cached read that a write makes stale: calls with the write's own arguments.

Rules:

1. The write's arguments are matched to the read's arguments. By position: the first ones, as many
   as the read has, and any smaller number of them, because the following arguments may be the data
   to write. Beyond those: by name, or not at all. All combinations that are valid calls of the read
   are invalidated: too much is a miss, too little an old value.
2. Defaults of the write are treated like other arguments.
3. A write that can never give a required argument of the read is a `TypeError` where the write is
   decorated. If only a particular call of the write lacks a required argument, the call is a
   `TypeError` before the write runs.
"""

from __future__ import annotations

import inspect
from typing import Any

from ._function import name_of
from ._invalidation import invalidation_of
from ._ways import GivenCall, Parameters, Ways


class WrittenArguments:
    """Determines the calls of a read that one call of a write makes stale."""

    def __init__(self, cached: Any, function: Any) -> None:
        self._cached = cached
        self._function = function
        self._invalidation, self._instance = invalidation_of(cached.invalidate_cache)
        # For an object that is not one of our functions, but has the same methods.
        own = Ways(cached, (), 0, typed=False)
        self._ways = own if self._invalidation is None else self._invalidation.ways
        self._write = _parameters_of(function)
        read = self._ways.parameters
        if read is None or self._write is None:
            return
        positional, needed = self._taken(read)
        by_name = [*self._write.positional, *self._write.by_name]
        lacking = needed
        for count in range(len(positional if self._write.takes_more else self._write.positional) + 1):
            given = {
                *positional[:count],
                *(name for name in by_name if name not in self._write.positional[:count]),
            }
            left = [name for name in needed if name not in given]
            lacking = min(lacking, left, key=len)
        if lacking and not self._write.takes_any_name:  # Rule 3
            raise TypeError(
                f"the write {name_of(function)} does not have the argument {', '.join(map(repr, lacking))} of the read "
                f"{cached!r}: give key_fn=lambda args, kwargs: (args_of_the_read, kwargs_of_the_read), or clear_all=True"
            )

    def invalidate(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Removes the results that a call of the write makes stale."""
        readings = self._readings(args, kwargs)
        if self._invalidation is not None:
            self._invalidation.remove(readings)
            return
        ways = self._ways.all_ways(readings)
        if ways is None:
            self._cached.clear_cache()
            return
        for values, names in ways:
            count = len(values) - len(names)
            self._cached.invalidate_cache(*values[:count], **dict(zip(names, values[count:], strict=True)))

    def _taken(self, read: Parameters) -> tuple[list[str], list[str]]:
        """The read's parameters given by position, and its required parameters."""
        bound = read.positional[: len(self._instance)]
        others = read.positional[len(bound) :]
        kept = [name for name in others if read.is_part_of_the_key(name)]
        return kept, [name for name in read.required if name not in bound]

    def _readings(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[GivenCall]:
        """The calls of the read that a call of the write may stand for. Invalid calls are left
        out.
        """
        read = self._ways.parameters
        as_it_is: GivenCall = ((*self._instance, *args), kwargs)
        if read is None:
            return [as_it_is]
        values, named = args, kwargs
        names: list[str | None] = [None] * len(args)
        given = None if self._write is None else self._write.given(args, kwargs)
        if given is not None:
            values, named, names = given
        most = len(values) if read.takes_more else min(len(values), len(read.positional))
        readings: list[GivenCall] = [as_it_is]
        for count in range(most, -1, -1):
            by_position = (*self._instance, *values[:count])
            readings.append((by_position, {}))
            used = {*read.positional[: len(by_position)], *names[:count]}
            by_name = {
                name: value for name, value in named.items() if name in read.by_name and name not in used
            }
            readings.append((by_position, by_name))
            if read.takes_any_name:
                readings.append((by_position, {**by_name, **kwargs}))
                readings.append((by_position, {name: named[name] for name in named if name not in used}))
        calls = [reading for reading in readings if read.accepts(*reading)]
        if not calls:  # Rule 3
            raise TypeError(
                f"a call of the write {name_of(self._function)} does not give the arguments of the read "
                f"{self._cached!r} that it makes stale: give key_fn=, or clear_all=True"
            )
        return calls


def _parameters_of(function: Any) -> Parameters | None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return None
    return Parameters(signature, name_of(function), frozenset(), 0, typed=False)
