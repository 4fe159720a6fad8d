"""`exclude`: arguments that are no part of the key, by their names."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

from ._function import name_of


def check_exclude(exclude: Any) -> frozenset[str]:
    """The names. `TypeError` if they are none."""
    if isinstance(exclude, str) or not isinstance(exclude, Iterable):
        raise TypeError(
            f'exclude is a set of names of arguments, such as {{"self", "session"}}, not {exclude!r}'
        )
    names = frozenset(exclude)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"exclude is a set of names (str) of arguments, not of {type(name).__qualname__}")
    return names


def places_of(function: Any, exclude: frozenset[str]) -> tuple[list[int], list[str]]:
    """The positions and the names by which the excluded arguments of a function may be given.

    `ValueError` if it has no such parameter.
    """
    if not exclude:
        return [], []
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        raise ValueError(
            f"the signature of {name_of(function)} is not known, so exclude={_shown(exclude)} cannot be resolved: "
            "wrap it in an async function that names its parameters"
        ) from None
    kinds = inspect.Parameter
    nameable = [p for p in parameters if p.kind not in (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD)]
    unknown = exclude.difference(p.name for p in nameable)
    if unknown:
        has = ", ".join(repr(p.name) for p in nameable) or "none"
        raise ValueError(
            f"exclude={_shown(unknown)} names no parameter of {name_of(function)}; its parameters are {has}"
        )
    positions = [
        at for at, p in enumerate(nameable) if p.name in exclude and p.kind is not kinds.KEYWORD_ONLY
    ]
    return positions, [p.name for p in nameable if p.name in exclude and p.kind is not kinds.POSITIONAL_ONLY]


def _shown(names: Iterable[str]) -> str:
    return "{" + ", ".join(map(repr, sorted(names))) + "}"
