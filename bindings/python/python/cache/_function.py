"""The conditions that a function must meet to be decorated."""

from __future__ import annotations

import functools
import inspect
from types import MethodType
from typing import Any


def check_function(function: Any, decorator: str) -> None:
    """Raises `TypeError` if a function cannot be cached; the message says how to change the
    function.
    """
    if isinstance(function, classmethod | staticmethod):
        kind = type(function).__name__
        raise TypeError(
            f"write @{kind} above @{decorator}, not below it: {decorator} decorates the function itself"
        )
    if not callable(function):
        raise TypeError(f"an async function can be decorated, not {type(function).__qualname__}")
    inner = inner_function(function)
    if inspect.isasyncgenfunction(inner) or inspect.isgeneratorfunction(inner) and not _is_coroutine(inner):
        kind = "an async generator" if inspect.isasyncgenfunction(inner) else "a generator"
        raise TypeError(
            f"{name_of(function)} is {kind} function, whose results are read once and cannot be cached: have it return "
            "a list, or cache the functions that it calls"
        )


def _is_coroutine(function: Any) -> bool:
    """Whether a generator function was made a coroutine function by `types.coroutine`."""
    return bool(function.__code__.co_flags & inspect.CO_ITERABLE_COROUTINE)


def name_of(function: Any) -> str:
    """A function's name, for messages."""
    return f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', repr(function))}"


def inner_function(function: Any) -> Any:
    """The Python function inside a callable, if there is one: `inspect` needs its code."""
    for _ in range(100):
        if isinstance(function, functools.partial):
            function = function.func
        elif isinstance(function, MethodType):
            function = function.__func__
        elif hasattr(function, "__code__"):
            return function
        else:
            function = getattr(type(function), "__call__", None)  # noqa: B004 # the function itself is wanted
    return None
