"""Arguments that are not part of the key: the arguments named in `exclude`, and the first
`skip_args`.

An excluded argument is left out of the key whether it is given by position or by name: otherwise an
invalidation that omits the argument, or gives it in the other way, would miss the entry.

A function wrapped by another function takes the wrapper's arguments. If the wrapper passes
everything on (``*args``, ``**kwargs``), the arguments are those of the wrapped function.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

from ._function import name_of


def check_exclude(exclude: Any) -> frozenset[str]:
    """The names in `exclude`. `TypeError` if it is not a set of names."""
    if isinstance(exclude, str) or not isinstance(exclude, Iterable):
        raise TypeError(
            f'exclude is a set of names of arguments, such as {{"self", "session"}}, not {exclude!r}'
        )
    names = frozenset(exclude)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"exclude is a set of names (str) of arguments, not of {type(name).__qualname__}")
    return names


def places_of(function: Any, exclude: frozenset[str], skip: int) -> tuple[list[int], list[str]]:
    """The positions of the excluded arguments, and the names under which they and the first `skip`
    arguments may be given.

    The native module leaves out the first `skip` positions itself. `ValueError` if `exclude` names
    a parameter that the function does not have.
    """
    skipped = skipped_names(function, skip)
    if not exclude:
        return [], skipped
    try:
        parameters = _parameters_of(function)
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
    named = [p.name for p in nameable if p.name in exclude and p.kind is not kinds.POSITIONAL_ONLY]
    return positions, list(dict.fromkeys([*skipped, *named]))


def skipped_names(function: Any, skip: int) -> list[str]:
    """The names under which the first `skip` arguments may be given; empty if the signature is not
    known.
    """
    if not skip:
        return []
    try:
        parameters = _parameters_of(function)
    except (TypeError, ValueError):
        return []
    kinds = inspect.Parameter
    by_position = [p for p in parameters if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]
    return [p.name for p in by_position[:skip] if p.kind is kinds.POSITIONAL_OR_KEYWORD]


def _parameters_of(function: Any) -> list[inspect.Parameter]:
    """The parameters for which a call gives arguments."""
    kinds = inspect.Parameter
    own = list(inspect.signature(function, follow_wrapped=False).parameters.values())
    if any(p.kind in (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD) for p in own):
        return list(inspect.signature(function).parameters.values())
    return own


def _shown(names: Iterable[str]) -> str:
    return "{" + ", ".join(map(repr, sorted(names))) + "}"
