"""Backends: where the entries of a cache persist."""

from __future__ import annotations

import os
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from . import _native
from ._forks import ForkLock
from .errors import BackupError, CacheWarning

# File systems accept names up to this length. Longer names of locks and temporary files are
# shortened.
_MOST_NAME_BYTES = 255

Entries = dict[Any, tuple[Any, float | None]]


class _Default(float):
    """The value of an argument that was not given."""


_EVERY_SECOND = _Default(1.0)


class CacheBackend(ABC):
    """Where the entries of a cache persist. Subclass it to keep entries elsewhere than in a file.

    If `load` raises, the cache starts empty and a `CacheWarning` is issued. If `save` raises, the
    exception reaches the code that saves. **A save replaces everything in the backend, so a save
    after a failed load replaces the entries that could not be read.** If those entries must not be
    lost, let `save` raise until a `load` has succeeded, or merge. An entry that does not have the
    form described at `load` is left out with a warning; the other entries are added.

    With a decorator the keys are tuples of the function's name and a `cache.key.KEY`; the keys can
    be compared, hashed and pickled. Results for arguments that no other process could recognise
    (for example a lambda) are not passed to `save`.
    """

    @abstractmethod
    def load(self) -> Entries:
        """All entries: key to (value, deadline on `time.monotonic`, or ``None``). Expired entries
        may be included.
        """

    @abstractmethod
    def save(self, data: Entries) -> None:
        """Stores these entries and removes all others: key to (value, seconds left to live, or
        ``None``).
        """

    @abstractmethod
    def clear(self) -> None:
        """Removes everything."""


class DiskBackend(CacheBackend):
    """Keeps a cache in one file.

    Opening takes the same time for a thousand entries and for ten million: entries are found
    through an index and decoded at their first use. A save is atomic, even if the process is
    killed. The time to live of an entry continues to run while no process runs. If a file is
    damaged or is not a cache, the cache starts empty with a `CacheWarning`, and the next save sets
    the file aside instead of destroying it.

    Values that MessagePack cannot represent exactly are pickled, and **unpickling runs code named
    in the file**. If another user owns the file or can write to it, or if it is a symlink in a
    world-writable folder, the cache therefore also starts empty with a `CacheWarning`. Where more
    protection is needed:

    - `secret`, at least 16 bytes, preferably random: every part of the file carries a tag that can
      be made only with the secret and is checked before anything is decoded. If a file was written
      with another secret, or without a secret, the cache starts empty. Give every cache a secret of
      its own.
    - `pickle=False` neither writes nor reads pickles. A save leaves out entries that would need a
      pickle, with a warning that names the key; reading a pickled entry is a miss.

    The next save renames a refused file to ``<path>.aside``; of cache files only one copy is kept.
    With a secret, a file that its group can write to is read.

    `version` names the shape of your data: if a file has another version, the cache starts empty.
    `compression` is ``None``, ``"zstd"``, ``"zstd:LEVEL"`` or ``("zstd", level)`` with a level from
    1 to 22; a file is read whether or not it is compressed. Parent folders are created; only the
    owner can read the file. ``~`` at the beginning of the path is the home directory. A relative
    path is resolved once, when the backend is made.

    Several processes of one host, for example the workers of gunicorn or uvicorn, may share one
    path: the save of a cache takes a lock beside the file (``<path>.lock``), waits for the lock for
    at most `lock_timeout` seconds, and merges. Entries saved by other processes stay; for every key
    the later write wins; a key deleted by one process stays deleted unless a process wrote the key
    later. With ``merge=False`` a save replaces the file and takes no lock.

    With ``journal=True`` (or ``"file"``, the same) every write is in a journal beside the file, in
    the folder ``<path>.d``, when its call returns: `set`, the value of a load, `delete`, `clear`
    and invalidations. Without a journal, a crash loses the writes since the last save.

    - After a crash of the process, ``kill -9`` included, nothing is lost. After a power loss, at
      most the writes of the last `flush` seconds are; ``await cache.flush()`` and
      ``await cache.set(key, value, durable=True)`` wait until nothing can be lost. `flush` without
      a journal is an error.
    - A save is a flush: it takes as long as syncing the writes since the last one.
    - When the process ends in order, the entries of a cache of less than 64 MiB go back into the
      file, and the folder is removed.
    - `disk_bytes` gives the disk a limit of its own, and implies a journal. Then `maxsize` limits
      memory only: an entry that leaves memory stays on the disk, and its next request reads it
      back. When the disk is full, the oldest entries leave, except those used since they were
      written. The files may exceed the limit by a segment, 8 MiB. Without `disk_bytes`, `maxsize`
      limits memory and disk together.
    - A value that cannot be written (it cannot be pickled, the disk is full) stays in memory, and
      an older value does not return. ``stats()`` counts both cases in ``unjournaled`` and
      ``write_errors``; the first of each cache is logged.
    - One cache at a time has the journal. Another cache on the path, in this process or another,
      starts with a `CacheWarning` and the file without the journal, and its saves merge. So does a
      forked child: make the cache after the fork.

    The methods below are for use without a cache: they read, replace or remove the whole file, and
    do not merge. Entries that other processes hold in memory return to the file with the next save
    of those processes. With a journal, they read, replace or remove the journal's entries too;
    `save` and `clear` raise `BackupError` while a cache has the journal.
    """

    # For backends that were pickled by earlier versions.
    journal = False
    flush = 1.0
    disk_bytes: int | None = None

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        version: str = "",
        secret: str | bytes | None = None,
        pickle: bool = True,
        compression: str | tuple[str, int] | None = None,
        merge: bool = True,
        lock_timeout: float = 10.0,
        journal: bool | Literal["file"] | None = None,
        flush: float = _EVERY_SECOND,
        disk_bytes: int | None = None,
    ) -> None:
        path = os.fspath(path)
        if not isinstance(path, str) or not path:
            raise TypeError(f"the path of a DiskBackend is a non-empty str or a Path, not {path!r}")
        file = _place(path)
        if not isinstance(version, str):
            raise TypeError(f"version is a str, not {type(version).__qualname__}")
        if len(version.encode()) > 100 or "\x1f" in version:
            raise ValueError("version is at most 100 bytes of text, without control characters")
        for name, flag in (("pickle", pickle), ("merge", merge)):
            if not isinstance(flag, bool):
                raise TypeError(f"{name} is True or False, not {type(flag).__qualname__}")
        if not 0 <= lock_timeout < 1e9:
            raise ValueError(f"lock_timeout is a number of seconds, 0 or more, not {lock_timeout}")
        self.path = path
        self._file = file
        self.version = version
        self.pickle = pickle
        self.compression = compression
        self.merge = merge
        self.lock_timeout = float(lock_timeout)
        self.journal = _has_journal(journal, disk_bytes)
        self.flush = _flush_seconds(flush, self.journal)
        self.disk_bytes = disk_bytes
        self._options = self._make_options(_secret_bytes(secret))
        self._has_secret = secret is not None
        self._lock = ForkLock()

    def _make_options(self, secret: bytes | None) -> _native.FileOptions:
        merge = self.lock_timeout if self.merge else None
        return _native.FileOptions(
            self.pickle, secret, _level(self.compression), merge, self.journal, self.disk_bytes
        )

    def __copy__(self) -> DiskBackend:
        again = object.__new__(type(self))
        again.__dict__.update(self.__dict__)
        again._lock = ForkLock()
        return again

    def __deepcopy__(self, memo: dict[int, Any]) -> DiskBackend:
        return self.__copy__()

    def __getstate__(self) -> dict[str, Any]:
        if self._has_secret:
            raise TypeError(
                f"{self!r} has a secret, which does not belong into a pickle; make a DiskBackend with the secret where "
                "it is needed"
            )
        return {name: value for name, value in self.__dict__.items() if name not in ("_lock", "_options")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._options = self._make_options(None)
        self._lock = ForkLock()

    def __repr__(self) -> str:
        journal = ", journal=True" if self.journal else ""
        limit = "" if self.disk_bytes is None else f", disk_bytes={self.disk_bytes}"
        return f"DiskBackend({self.path!r}{journal}{limit})"

    def load(self) -> Entries:
        """All entries of the file. Empty if there is no file, or if the file cannot be read."""
        entries, why_not = self._lock.run(self._read)
        if why_not is not None:
            warnings.warn(CacheWarning(f"{why_not}; starting empty"), stacklevel=2)
        now = time.monotonic()
        return {key: (value, None if left is None else now + left) for key, value, left in entries}

    def _read(self) -> tuple[list[tuple[Any, Any, float | None]], str | None]:
        """The entries. If the file cannot be read: no entries, and the reason."""
        tag = _native.Cache().tag_of_file(Path(self._file), self._options)
        owner = tag.partition("\x1f")[2] if tag is not None else ""
        if owner:
            return (
                [],
                f"{self.path} keeps the results of the function {owner}, which only that function can read",
            )
        try:
            return _native.read_file(Path(self._file), self.version, self._options) or [], None
        except BackupError as error:
            return [], str(error)

    def save(self, data: Entries) -> None:
        """Writes these entries to a new file, which then replaces the old file. Holds the lock."""
        path, entries = Path(self._file), _triples(data)
        self._lock.run(lambda: _native.write_file(path, self.version, self._options, entries))

    def clear(self) -> None:
        """Removes the file. Holds the lock, so that a running save does not restore the removed
        entries.
        """
        self._lock.run(lambda: _native.remove_file(Path(self._file), self.version, self._options))


def _place(path: str) -> str:
    """The absolute path of the file, so that a later change of the working directory has no
    effect.
    """
    if "\0" in path:
        raise ValueError(
            f"the path of a DiskBackend has a zero byte in it, which no file system takes: {path!r}"
        )
    place = os.path.expanduser(path)
    if place == path and path.startswith("~") and any(mark in path for mark in (os.sep, os.altsep) if mark):
        home = path.partition(os.sep)[0]
        raise ValueError(
            f"the path {path!r} begins with a home directory that is not known: there is no user {home[1:]!r}, or "
            f"HOME is not set; for a folder of that name write './{path}'"
        )
    place = os.path.abspath(place)
    name = os.fsencode(os.path.basename(place))
    if len(name) > _MOST_NAME_BYTES and os.name != "nt":
        raise ValueError(
            f"the name of the file has {len(name)} bytes, and file systems take {_MOST_NAME_BYTES} at most: "
            f"{os.path.basename(place)[:40]!r}..."
        )
    return place


def _triples(data: Entries) -> Iterator[tuple[Any, Any, float | None]]:
    """Yields key, value and seconds left of all entries one by one: dropping a list of a million
    tuples at once would block an event loop for too long.
    """
    for key in list(data):
        try:
            value, left = data[key]
        except KeyError:  # another thread has removed it since
            continue
        yield key, value, left


def _has_journal(journal: Any, disk_bytes: Any) -> bool:
    """Whether there is a journal. Checks both arguments."""
    if journal is not None and not isinstance(journal, bool) and journal != "file":
        raise ValueError(f'journal is True, False or "file" (the same as True), not {journal!r:.100}')
    if disk_bytes is None:
        return bool(journal)
    if not isinstance(disk_bytes, int) or isinstance(disk_bytes, bool):
        raise TypeError(
            f"disk_bytes is a number of bytes (int), or None, not {type(disk_bytes).__qualname__}"
        )
    if not 0 < disk_bytes < 1 << 63:
        raise ValueError(f"disk_bytes is a number of bytes, 1 or more, or None, not {disk_bytes}")
    if journal is False:
        raise ValueError(
            "disk_bytes needs a journal, which journal=False turns off: leave one of the two out"
        )
    return True


def _flush_seconds(flush: Any, has_journal: bool) -> float:
    """How often the journal is synced, in seconds. Checks the argument."""
    if not isinstance(flush, int | float) or isinstance(flush, bool):
        raise TypeError(f"flush is a number of seconds above 0, not {type(flush).__qualname__}")
    if not 0 < flush < 1e9:
        raise ValueError(f"flush is a number of seconds above 0, not {flush}")
    if not has_journal and not isinstance(flush, _Default):
        raise ValueError(
            "flush is how often a journal is synced, and there is no journal: add journal=True, or leave flush out"
        )
    return float(flush)


def _secret_bytes(secret: str | bytes | None) -> bytes | None:
    if isinstance(secret, str):
        return secret.encode()
    if secret is None or isinstance(secret, bytes):
        return secret
    raise TypeError(f"secret is a str or bytes, not {type(secret).__qualname__}")


def _level(compression: str | tuple[str, int] | None) -> int | None:
    """The level of zstd; ``None`` without compression."""
    if compression is None:
        return None
    if isinstance(compression, str):
        name, colon, text = compression.partition(":")
        level = int(text) if text.isdecimal() else None if colon else 3
    elif isinstance(compression, tuple) and len(compression) == 2:
        name, level = compression
    else:
        name, level = "", None
    if name != "zstd" or not isinstance(level, int) or not 1 <= level <= 22:
        raise ValueError(
            f'compression is None, "zstd", "zstd:LEVEL" or ("zstd", level) with a level from 1 to 22, not {compression!r}'
        )
    return level
