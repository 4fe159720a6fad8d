"""The name of a function in a file. The name leads another process to the same entries, and to no
others.

The name of a plain function is its module and qualified name. A function that carries values of its
own (a bound method its object, a partial its arguments, a callable object itself) has the values in
its name, as a digest of their encoding by value. A function that no other process could recognise
has no name.
"""

from __future__ import annotations

import functools
import hashlib
from types import MethodType
from typing import Any

from . import _native


def scope_of(function: Any) -> str:
    """The name of a function whose results are kept in a backup. `TypeError` if the function has no
    name.
    """
    if isinstance(function, functools.partial):
        return f"{scope_of(function.func)}({_digest(function, (function.args, function.keywords))})"
    if isinstance(function, MethodType):
        return f"{scope_of(function.__func__)}@{_digest(function, function.__self__)}"
    if isinstance(getattr(function, "__qualname__", None), str):
        return _name(function)
    kind = type(function)
    return f"{_name(kind)}@{_digest(function, function)}"


def _name(function: Any) -> str:
    return f"{getattr(function, '__module__', None) or '?'}.{function.__qualname__}"


def _digest(function: Any, value: Any) -> str:
    data, _, is_stable = _native._encode_by_value(value, by_content=True)
    if not is_stable:
        raise TypeError(
            f"the results of {function!r} cannot be kept in a backup: it holds an object that another process could not "
            "tell from others. Decorate the function itself (a method where its class defines it, with skip_args=1), "
            "or give it no backup"
        )
    return hashlib.sha256(data).hexdigest()[:16]
