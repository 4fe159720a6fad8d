"""Temporary files and removed objects in forked children.

The stories: the name of the temporary file that joins two snapshots came from a random state copied
into a forked child, so two children that loaded at the same time wrote to one file. And a child
forked while a thread removed the results of dead objects never removed any itself.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from programs import LIMIT, complete

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here"),
    pytest.mark.timeout(2 * LIMIT),
]

# The beginning of all programs.
HEAD = """
import ctypes, os, struct, sys, traceback
from cache import AsyncCache, AsyncLRU, DiskBackend

class Created:
    '''The names of the files that are created in a folder, by any process.'''

    def __init__(self, folder):
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self.libc.inotify_init1(os.O_NONBLOCK)
        assert self.fd >= 0
        assert self.libc.inotify_add_watch(self.fd, os.fsencode(folder), 0x100) >= 0  # IN_CREATE

    def temporary(self):
        '''Those of temporary files since the last call, each as often as it was created.'''
        names = []
        while True:
            try:
                events = os.read(self.fd, 65536)
            except BlockingIOError:
                return [name for name in names if name.endswith(".tmp")]
            while events:
                length = struct.unpack_from("iIII", events)[3]
                names.append(events[16 : 16 + length].rstrip(b"\\0").decode())
                events = events[16 + length :]

def in_child(work):
    pid = os.fork()
    if not pid:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
"""


@pytest.mark.skipif(sys.platform != "linux", reason="inotify, which shows the names, is Linux's")
@pytest.mark.parametrize("what", ["saves", "loads"])
def test_two_children_of_one_process_never_use_the_same_temporary_file(path: Path, what: str) -> None:
    folder = path.parent
    program = (
        HEAD
        + f"""
path, folder, what = {str(path)!r}, {str(folder)!r}, {what!r}

def filled(keys):
    cache = AsyncCache(maxsize=None, backup=DiskBackend(path))
    for key in keys:
        cache.set(key, key)
    cache.save_to_backup()

def cold_and_another_file(first):
    '''A cache whose entries are all cold, and another file at its path.'''
    filled(range(first, first + 100))
    cache = AsyncCache(maxsize=None, backup=DiskBackend(path))
    os.remove(path)
    filled(range(first + 200, first + 300))
    return cache

cold_and_another_file(1000).load_from_backup()  # so that the parent has a random state to inherit
os.remove(path)
mine = cold_and_another_file(0)

def work():
    if what == "loads":
        mine.load_from_backup()
        assert len(mine.cache) == 200
    else:
        mine.set("own", os.getpid())
        mine.save_to_backup()

created, names = Created(folder), []
for work_of in (lambda: in_child(work), lambda: in_child(work), lambda: in_child(lambda: in_child(work)), work):
    work_of()
    # A file that is written under a temporary name already has another one while it is written.
    new = {{name.partition(".tmp")[0] for name in created.temporary()}}
    assert new, "a temporary file is written"
    names += new
assert len(set(names)) == len(names), names
print("done")
"""
    )
    done = complete(program)
    assert (done.stdout, done.stderr) == ("done\n", "")


def test_a_child_that_is_forked_while_results_of_dead_objects_are_removed_removes_those_of_its_own() -> None:
    program = (
        HEAD
        + """
import asyncio

class Kept:
    @AsyncLRU(maxsize=None, per_instance=True)
    async def read(self):
        return Result()

class Result:
    on_end = None
    def __del__(self):
        if Result.on_end is not None:
            on_end, Result.on_end = Result.on_end, None
            on_end()

def size():
    return Kept.read.get_metrics()["size"]

def ask(count):
    objects = [Kept() for _ in range(count)]
    for one in objects:
        asyncio.run(awaited(one))
    return objects

async def awaited(one): return type(await one.read())

def child():
    more = ask(5)
    before = size()
    del more[:]
    assert size() == before - 5, (before, size())

objects = ask(3)
other = objects.pop()
# The fork comes in the middle of removing, from the finalizer of a result.
Result.on_end = lambda: in_child(child)
before = size()
del objects[:]
assert Result.on_end is None, "the result went"
assert size() == 1
del other
assert size() == 0
print("done")
"""
    )
    done = complete(program)
    assert (done.stdout, done.stderr) == ("done\n", "")
