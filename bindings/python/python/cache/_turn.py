"""The right to save or load a cache, which one thread has at a time."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable

from ._forks import ForkLock, run_holding
from .errors import BackupError


class Turn(ForkLock):
    """The right to save or load one cache."""

    def __init__(self) -> None:
        super().__init__()
        # Held while a save or load has the turn. (Otherwise a fork, or an exit about to save, has
        # it.) A lock and not a flag, so that an interrupt does not leave it set: see `run_holding`.
        self._taken = threading.Lock()

    def take(self, work: Callable[[], None]) -> None:
        """Runs a save or load; `BackupError` if this thread is already in the middle of a save or
        load.
        """
        self.run(functools.partial(self._take, work))

    def _take(self, work: Callable[[], None]) -> None:
        if self._taken.locked():
            raise BackupError("this thread is in the middle of a save or load of this very cache")
        run_holding(self._taken, work)

    def keep(self, work: Callable[[], None], patience: float) -> bool:
        """Runs a function while no other thread saves or loads. Returns ``False`` without running
        the function if another thread does not finish within `patience` seconds.
        """
        if self.is_mine():
            work()
            return True
        is_kept = False
        try:
            try:
                # No `return` here: an interrupt of a `return` is raised outside of the `try`.
                if is_kept := self.acquire(patience):
                    work()
            finally:
                self._give_back()
        finally:
            # Once more, for an interrupt of the line above.
            self._give_back()
        return is_kept

    def _give_back(self) -> None:
        if self.is_mine():
            self.release()

    def renew(self) -> None:
        super().renew()
        self._taken = threading.Lock()
