"""One of several processes that keep caches in one file. Executes the commands on its standard
input, one per line, and answers each with a line.
"""

from __future__ import annotations

import sys

from cache import AsyncCache, DiskBackend


def main() -> None:
    cache = AsyncCache(maxsize=None)
    for line in sys.stdin:
        match line.split():
            case ["open", path]:
                del cache
                cache = AsyncCache(maxsize=None, backup=DiskBackend(path, lock_timeout=100))
            case ["set", key, value]:
                cache.set(key, int(value))
            case ["delete", key]:
                cache.delete(key)
            case ["clear"]:
                cache.clear()
            case ["save"]:
                cache.save_to_backup()
            case command:
                raise ValueError(f"no such command: {command}")
        print("done", flush=True)


main()
