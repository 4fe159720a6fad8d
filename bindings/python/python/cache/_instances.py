"""`per_instance`: results are kept for each object on which a method is called."""

from __future__ import annotations

import inspect
from typing import Any

from ._function import name_of


def check_per_instance(per_instance: Any, skip_args: int, has_backup: bool, has_remote: bool = False) -> bool:
    """Whether results are kept for each object. `ValueError` names an option that cannot be
    combined with it.
    """
    if not isinstance(per_instance, bool):
        raise TypeError(f"per_instance is True or False, not {type(per_instance).__qualname__}")
    if per_instance and has_backup:
        raise ValueError(
            "per_instance=True and a backup exclude each other: an object is known by identity, which no other process "
            "finds; leave one of them out"
        )
    if per_instance and has_remote:
        raise ValueError(
            "per_instance=True and a remote_cache exclude each other: an object is known by identity, which no other "
            "process finds; leave one of them out"
        )
    if per_instance and skip_args:
        raise ValueError(
            "per_instance=True and skip_args exclude each other: skip_args leaves the object out of the key; leave one "
            "of them out, and other arguments out of the key with exclude="
        )
    return per_instance


def instance_of(function: Any, per_instance: bool, exclude: frozenset[str]) -> str | None:
    """The name of the parameter for the object, empty if the parameter is positional-only; `None`
    without `per_instance`.

    `ValueError` if the function has no parameter for the object.
    """
    if not per_instance:
        return None
    try:
        first = next(iter(inspect.signature(function).parameters.values()), None)
    except (TypeError, ValueError):
        raise ValueError(
            f"the signature of {name_of(function)} is not known, so per_instance=True does not know the object: wrap "
            "it in an async function that names its parameters"
        ) from None
    kinds = inspect.Parameter
    if first is None or first.kind not in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD):
        raise ValueError(
            f"per_instance=True needs a first parameter, such as self, and {name_of(function)} has none"
        )
    if first.default is not kinds.empty:
        raise ValueError(
            f"per_instance=True needs an object in every call, and {first.name!r} of {name_of(function)} has a default"
        )
    if first.name in exclude:
        raise ValueError(
            f"per_instance=True and exclude={{{first.name!r}}} exclude each other: leave one of them out"
        )
    return "" if first.kind is kinds.POSITIONAL_ONLY else first.name
