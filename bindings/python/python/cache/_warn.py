"""Warnings, issued at the responsible line of the user's code, and descriptions of exceptions."""

from __future__ import annotations

import os
import sys
import warnings

from .errors import CacheWarning

_PACKAGE = os.path.dirname(__file__) + os.sep


def warn(message: str) -> None:
    """Issues a `CacheWarning` at the nearest caller outside of the package."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    warnings.warn(CacheWarning(message), stacklevel=level)


def in_words(error: BaseException) -> str:
    """An exception's class and message, whatever its own `__str__` does."""
    kind = type(error).__qualname__
    try:
        return f"{kind}: {error}"
    except Exception:
        return f"{kind}, which cannot say more"
