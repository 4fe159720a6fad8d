"""The promises of docs/semantics.md, "Several processes", as naively as possible: a dict for each
process, a list for the file, and all deletes ever made. The model shares no code with the tested
package.

Times count operations. A value is the time of its write, so it identifies the write. No history has
so many deletes that deletes are forgotten, and nothing expires: a time to live is either zero or
longer than every history.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Key = Any  # an int, or an object without canonical bytes
Time = int


@dataclass
class Deletes:
    """Deletes that the file contains, or will contain after the next save."""

    of_keys: dict[Key, Time] = field(default_factory=dict)
    cleared: Time = 0

    def delete(self, key: Key, time: Time) -> None:
        self.of_keys[key] = max(time, self.of_keys.get(key, 0))

    def clear(self, time: Time) -> None:
        self.cleared = time

    def join(self, other: Deletes) -> None:
        self.cleared = max(self.cleared, other.cleared)
        for key, time in other.of_keys.items():
            self.delete(key, time)

    def of(self, key: Key) -> Time:
        return max(self.of_keys.get(key, 0), self.cleared)


@dataclass
class Process:
    """The entries that a process serves, and the facts that its next save must record in the
    file.
    """

    maxsize: int | None
    memory: dict[Key, Time] = field(default_factory=dict)
    # Keys of `memory` that are in the opened file only (cold). The others are hot.
    cold: set[Key] = field(default_factory=set)
    # Writes in memory that no save has recorded in the file, and unrecorded writes that have left
    # memory.
    owed: dict[Key, Time] = field(default_factory=dict)
    lost: dict[Key, Time] = field(default_factory=dict)
    deletes: Deletes = field(default_factory=Deletes)
    # Entries refused by the last save.
    refused: set[tuple[Key, Time]] = field(default_factory=set)
    # The number of the file, if the process had all entries of the file.
    holds: int | None = None

    def set(self, key: Key, time: Time, *, is_stored: bool) -> None:
        self.owed[key] = time
        self.memory[key] = time
        self.cold.discard(key)
        if not is_stored:
            self.lose(key)

    def lose(self, key: Key) -> None:
        """The process's entry for the key has left memory."""
        self.memory.pop(key, None)
        self.cold.discard(key)
        time = self.owed.pop(key, None)
        if time is not None:
            self.lost[key] = max(time, self.lost.get(key, 0))

    def delete(self, key: Key, time: Time) -> None:
        self.memory.pop(key, None)
        self.cold.discard(key)
        self.owed.pop(key, None)
        self.deletes.delete(key, time)

    def clear(self, time: Time) -> None:
        self.memory.clear()
        self.cold.clear()
        self.owed.clear()
        self.lost.clear()
        self.deletes.clear(time)

    def reload(self) -> None:
        """Takes in a file: unsaved deletes are forgotten, and so are writes that have left
        memory.
        """
        self.deletes = Deletes()
        self.lost.clear()


@dataclass
class Expected:
    """The expected result of a save."""

    entries: dict[Key, Time]
    # Kept entries of other processes: with plain keys, with objects as keys; the coldest first.
    theirs: tuple[list[Key], list[Key]]
    dropped: int
    # Whether the room was known exactly before `theirs` were copied. If not, some of them are
    # warmer than ours for one save.
    is_room_known: tuple[bool, bool]


@dataclass
class File:
    """The file at the path: plain keys and objects, each the coldest first."""

    number: int = 0
    plain: list[tuple[Key, Time]] = field(default_factory=list)
    objects: list[tuple[Key, Time]] = field(default_factory=list)
    deletes: Deletes = field(default_factory=Deletes)
    # The time until which each key was overwritten by a write that is in no file.
    hidden: dict[Key, Time] = field(default_factory=dict)

    def entries(self) -> dict[Key, Time]:
        return dict(self.plain + self.objects)

    def _hide(self, key: Key, until: Time) -> None:
        self.hidden[key] = max(until, self.hidden.get(key, 0))

    def _is_gone(self, key: Key, time: Time) -> bool:
        return time <= max(self.deletes.of(key), self.hidden.get(key, 0))

    def save(self, process: Process) -> Expected:
        """The process saves."""
        for key, time in process.lost.items():
            self._hide(key, time - 1)
        process.lost, process.owed = {}, {}
        self.deletes.join(process.deletes)
        process.deletes = Deletes()

        ours = process.memory
        refused = set()
        theirs: tuple[list[tuple[Key, Time]], list[tuple[Key, Time]]] = ([], [])
        is_joined = process.holds != self.number
        for kept, entries in zip(theirs, (self.plain, self.objects), strict=True):
            for key, their in entries if is_joined else ():
                our = ours.get(key)
                if self._is_gone(key, their):
                    continue
                if our is None or our < their:
                    kept.append((key, their))
                    if our is not None:
                        refused.add((key, our))
                elif our > their and (key, our) in process.refused:
                    self._hide(key, our - 1)

        written = {}
        for key, our in ours.items():
            if (key, our) in process.refused or self._is_gone(key, our):
                refused.add((key, our))
            elif (key, our) not in refused:
                written[key] = our

        dropped = 0
        room = len(theirs[0]) + len(theirs[1])
        if process.maxsize is not None:
            room = max(process.maxsize - len(written), 0)
        for kept in theirs:
            too_many = max(len(kept) - room, 0)
            for key, their in kept[:too_many]:
                dropped += 1
                if key in ours:
                    self._hide(key, their - 1)
            del kept[:too_many]
            room -= len(kept)

        process.refused = refused
        self.number += 1
        copied = theirs[0] + theirs[1]
        process.holds = None if copied else self.number
        return Expected(
            entries={**written, **dict(copied)},
            theirs=([key for key, _ in theirs[0]], [key for key, _ in theirs[1]]),
            dropped=dropped,
            is_room_known=(all(isinstance(key, int) for key, _ in refused), not refused),
        )
