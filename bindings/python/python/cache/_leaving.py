"""How a save at the end of a ``with`` block, and a save in a thread, treat exceptions.

Rules:

1. When the body of the block raised, the body's exception leaves the block. If the save fails too,
   its failure is issued as a `CacheWarning`; if a filter turns warnings into errors, the failure is
   logged. Only an exception that is not an `Exception`, such as a cancellation or Ctrl-C during the
   save, replaces the body's exception.
2. When the body did not raise, a failed save raises.
3. A save in a thread continues when the awaiting caller is cancelled. If the save fails then, the
   failure is logged, because no caller is left to receive the exception.
4. Remarks of a save in a thread are issued as warnings at the awaiting line.
"""

from __future__ import annotations

import asyncio
import logging
from types import TracebackType
from typing import TYPE_CHECKING

from ._warn import in_words, warn
from .errors import CacheError

if TYPE_CHECKING:
    from ._native import Cache
    from ._persistence import Persistence

_log = logging.getLogger("cache")


class giving_way_to:  # noqa: N801 # it is used as a function
    """Runs the save at the end of a block. `error` is the exception of the block's body, if it
    raised.
    """

    def __init__(self, error: BaseException | None) -> None:
        self._error = error

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        # Rules 1 and 2.
        if self._error is None or not isinstance(failure, Exception):
            return False
        said = str(failure) if isinstance(failure, CacheError) else in_words(failure)
        message = (
            f"a cache could not be saved on leaving its block by {type(self._error).__qualname__}: {said}"
        )
        try:
            warn(message)
        except Exception:
            _log.warning("%s", message)
        return True


async def save_in_thread(cache: Cache, persistence: Persistence) -> None:
    """Saves in a thread of the event loop. Exceptions of the save are raised."""
    remarks: list[str] = []
    is_awaited = True

    def save() -> None:
        try:
            persistence.save(cache, remarks.append)
        except BaseException as error:
            if is_awaited:
                if isinstance(error, StopIteration):
                    # A future does not accept `StopIteration`, and the caller would wait for ever.
                    raise RuntimeError("the save raised StopIteration") from error
                raise
            # Rule 3.
            _log.warning("a cache could not be saved, and nobody waits for the save: %s", in_words(error))
        if not is_awaited:
            for remark in remarks:
                _log.warning("%s", remark)

    saving = asyncio.get_running_loop().run_in_executor(None, save)
    try:
        await asyncio.shield(saving)
    finally:
        is_awaited = False
    # Rule 4.
    for remark in remarks:
        warn(remark)
