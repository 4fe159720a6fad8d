"""Backends: where the entries of a cache persist."""

from __future__ import annotations

import os
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import _native
from ._forks import ForkLock
from .errors import BackupError, CacheWarning

# File systems take names up to this length. The names of the lock and of temporary files are made shorter if need be.
_MOST_NAME_BYTES = 255

Entries = dict[Any, tuple[Any, float | None]]


class CacheBackend(ABC):
    """Where the entries of a cache persist. To keep them elsewhere than in a file, subclass it.

    A backend that raises in `load` leaves an empty cache and a `CacheWarning`; one that raises in `save` raises to
    whoever saves. **A save replaces all that the backend has, so after a load that failed it replaces what could not be
    read.** If that must not be lost, let `save` raise until a `load` has succeeded, or merge. An entry that is not as
    `load` says is left out with a warning, and the others are taken in.

    With a decorator the keys are tuples of the function's name and a `cache.key.KEY`; they can be compared, hashed
    and pickled. Results for arguments that no other process would know again (a lambda, say) are not handed to `save`.
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

    Values that MessagePack cannot represent exactly are pickled, and **unpickling runs code that the file names**. So a
    file that another user owns or can write to, or that is a symlink in a folder that everybody can write to, is an
    empty cache and a `CacheWarning`, too. Where that is not enough:

    - `secret`, at least 16 bytes, random best: every part of the file carries a tag that nobody can make without it,
      checked before anything is decoded. A file of another secret, or of none, is an empty cache. Give every cache a
      secret of its own.
    - `pickle=False` neither writes nor reads pickles: what would need one is left out of a save, with a warning that
      names the key, and a miss when it is asked for.

    A file that is refused is renamed to ``<path>.aside`` by the next save; of cache files one such copy is kept. With a
    secret, a file that its group can write to is read.

    `version` names the shape of your data: a file of another version is an empty cache. `compression` is ``None``,
    ``"zstd"``, or ``"zstd:LEVEL"`` or ``("zstd", level)`` with a level from 1 to 22; files are read however they are
    compressed. Parent folders are created; the file can be read by its owner only. ``~`` at the beginning of the path is
    the home directory, and a relative path stays where the working directory was when the backend was made.

    Several processes of one host, such as the workers of gunicorn or uvicorn, may name one path: the save of a cache
    takes a lock beside the file (``<path>.lock``), waits `lock_timeout` seconds for it at most, and merges. What another
    process has saved stays; for every key the later write wins; what a process deleted stays gone unless somebody wrote
    it later.
    With ``merge=False`` a save replaces the file, and takes no lock. The methods below are for a backend without a cache:
    they read, replace or remove the whole file, and merge nothing. What other processes have in memory comes back to the
    file with their next save.
    """

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
        self._options = self._make_options(_secret_bytes(secret))
        self._has_secret = secret is not None
        self._lock = ForkLock()

    def _make_options(self, secret: bytes | None) -> _native.FileOptions:
        merge = self.lock_timeout if self.merge else None
        return _native.FileOptions(self.pickle, secret, _level(self.compression), merge)

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
        return f"DiskBackend({self.path!r})"

    def load(self) -> Entries:
        """All entries of the file; none if there is no file, or none that can be read."""
        entries, why_not = self._lock.run(self._read)
        if why_not is not None:
            warnings.warn(CacheWarning(f"{why_not}; starting empty"), stacklevel=2)
        now = time.monotonic()
        return {key: (value, None if left is None else now + left) for key, value, left in entries}

    def _read(self) -> tuple[list[tuple[Any, Any, float | None]], str | None]:
        """The entries, and why there are none if they cannot be read."""
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
        """Writes these entries to a new file and puts it in the place of the old one, under the lock."""
        path, entries = Path(self._file), _triples(data)
        self._lock.run(lambda: _native.write_file(path, self.version, self._options, entries))

    def clear(self) -> None:
        """Removes the file, under the lock, so that no save that runs puts back what was in it."""
        self._lock.run(lambda: _native.remove_file(Path(self._file), self._options))


def _place(path: str) -> str:
    """The absolute path of the file, so that it stays the same one when the working directory changes."""
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
    """Key, value and seconds left of all entries, one after the other: to drop a list of a million
    tuples at once takes longer than an event loop beside it should wait.
    """
    for key in list(data):
        try:
            value, left = data[key]
        except KeyError:  # another thread has removed it since
            continue
        yield key, value, left


def _secret_bytes(secret: str | bytes | None) -> bytes | None:
    if isinstance(secret, str):
        return secret.encode()
    if secret is None or isinstance(secret, bytes):
        return secret
    raise TypeError(f"secret is a str or bytes, not {type(secret).__qualname__}")


def _level(compression: str | tuple[str, int] | None) -> int | None:
    """The level of zstd; ``None`` if nothing is compressed."""
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
