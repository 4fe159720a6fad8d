"""Backends: where the entries of a cache persist."""

from __future__ import annotations

import os
import threading
import time
import warnings
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from . import _native
from .errors import BackupError, CacheWarning

Entries = dict[Any, tuple[Any, float | None]]


class CacheBackend(ABC):
    """Where the entries of a cache persist. To keep them elsewhere than in a file, subclass it.

    A backend that raises in `load` leaves an empty cache and a `CacheWarning`; one that raises in `save` raises to
    whoever saves.
    """

    @abstractmethod
    def load(self) -> Entries:
        """All entries: key to (value, deadline on `time.monotonic`, or ``None``). Expired ones may be among them."""

    @abstractmethod
    def save(self, data: Entries) -> None:
        """Keeps these entries and no others: key to (value, seconds left to live, or ``None``)."""

    @abstractmethod
    def clear(self) -> None:
        """Removes everything."""


class DiskBackend(CacheBackend):
    """Keeps a cache in one file.

    Opening costs the same for a thousand entries and for ten million: they are found through an index and decoded
    when they are first asked for. A save is atomic, whatever happens to the process; what an entry has left to live
    goes on while no process runs. A file that is damaged or not a cache is an empty cache and a `CacheWarning`, and
    the next save sets it aside instead of destroying it.

    Values that MessagePack cannot represent exactly are pickled. **Unpickling runs code that the file names: give
    a path that nobody else can write to.**

    `version` names the shape of your data: a file of another version is an empty cache. Parent folders are created;
    the file can be read by its owner only.

    Several processes of one host, such as the workers of gunicorn or uvicorn, may name one path: the save of a cache
    takes a lock beside the file (``<path>.lock``), waits `lock_timeout` seconds for it at most, and merges. What another
    process has saved stays; for every key the later write wins; what a process deleted stays gone unless somebody wrote
    it later.
    With ``merge=False`` a save replaces the file.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        version: str = "",
        merge: bool = True,
        lock_timeout: float = 10.0,
    ) -> None:
        path = os.fspath(path)
        if not isinstance(path, str) or not path:
            raise TypeError(f"the path of a DiskBackend is a non-empty str or a Path, not {path!r}")
        if not isinstance(version, str):
            raise TypeError(f"version is a str, not {type(version).__qualname__}")
        if len(version.encode()) > 100 or "\x1f" in version:
            raise ValueError("version is at most 100 bytes of text, without control characters")
        if not 0 <= lock_timeout < 1e9:
            raise ValueError(f"lock_timeout is a number of seconds, 0 or more, not {lock_timeout}")
        self.path = path
        self.version = version
        self.merge = bool(merge)
        self.lock_timeout = float(lock_timeout)
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"DiskBackend({self.path!r})"

    def load(self) -> Entries:
        """All entries of the file; none if there is no file, or none that can be read."""
        with self._lock:
            try:
                entries = _native.read_file(Path(self.path), self.version, True)
            except BackupError as error:
                warnings.warn(CacheWarning(f"{error}; starting empty"), stacklevel=2)
                return {}
        now = time.monotonic()
        return {key: (value, None if left is None else now + left) for key, value, left in entries or ()}

    def save(self, data: Entries) -> None:
        """Writes these entries to a new file and puts it in the place of the old one."""
        entries = [(key, value, ttl) for key, (value, ttl) in data.items()]
        with self._lock:
            _native.write_file(Path(self.path), self.version, True, entries)

    def clear(self) -> None:
        """Removes the file."""
        with self._lock:
            _native.remove_file(Path(self.path))
