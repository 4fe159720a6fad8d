"""A program ends while a daemon thread with an event loop is inside the cache.

Up to Python 3.13 the interpreter ends the thread by unwinding its stack. Frames of the cache were
unwound too, and the process was aborted ("FATAL: exception not rethrown", exit code -6).
"""

from __future__ import annotations

import pytest
from programs import LIMIT, complete

pytestmark = pytest.mark.timeout(3 * LIMIT)

# `begun` is set when the daemon thread has reached the place chosen by the test.
HEAD = """
import asyncio, tempfile, threading
from fractions import Fraction
from pathlib import PurePosixPath
from agent_cache import AgentCache
from cache import AsyncCache, AsyncLRU, DiskBackend

cache = AsyncCache(batch_window_ms=0)
begun = threading.Event()

def spin(*_):
    begun.set()
    while True:
        pass

async def load(keys=()):
    spin()

class Key:
    def __init__(self, spins_in=""): self.spins_in = spins_in
    def __hash__(self):
        if self.spins_in == "hash": spin()
        return 1
    def __eq__(self, other):
        if "eq" in (self.spins_in, other.spins_in): spin()
        return False

class Value:
    def __del__(self): spin()

class Pickled:
    def __reduce__(self): spin()

class Says:
    def __init__(self, spins_in): self.spins_in = spins_in
    def __reduce_ex__(self, protocol):
        if self.spins_in == "__reduce_ex__": spin()
        return (Says, ("",), None, self.items())
    def items(self):
        spin()
        yield

class State:
    def __getstate__(self): spin()

class Awaitable:
    def __await__(self): spin()

class Stubborn:
    def __await__(self): return self
    def __iter__(self): return self
    def __next__(self): begun.set(); return None
    def throw(self, *_): spin()

class Mapping(dict):
    def get(self, key): spin()

class Third(Fraction):
    @property
    def numerator(self): spin()

class Path(PurePosixPath):
    def __str__(self): spin()

class Truth:
    def __bool__(self): spin()

class Rows:
    def __init__(self, spins_in): self.spins_in = spins_in
    def __len__(self):
        if self.spins_in == "len": spin()
        return 1
    def __iter__(self):
        if self.spins_in == "iter": spin()
        return self
    def __next__(self): spin()

class Refused(Exception):
    def with_traceback(self, _): spin()

async def rows(spins_in): return Rows(spins_in)

async def refuse(): raise Refused()

class Loop(asyncio.SelectorEventLoop):
    def get_task_factory(self): spin()

@AsyncLRU()
async def decorated(a): spin()

@AgentCache("rows")
async def tool(): spin()

async def main():
    await {what}

async def in_turn(*awaitables):
    for awaitable in awaitables:
        if awaitable is not None:
            await awaitable

async def mapping(): return Mapping()

async def saved():
    with tempfile.TemporaryDirectory() as folder:
        kept = AsyncCache(backup=DiskBackend(folder + "/x.cache"))
        kept.set("k", Pickled())
        kept.save_to_backup()

async def cancelled():
    async def ask(): await cache.get("k", loader=Stubborn)
    task = asyncio.ensure_future(ask())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(1000)

def run():
    loop = {loop}()
    loop.run_until_complete(main())

threading.Thread(target=run, daemon=True).start()
begun.wait()
"""

PLACES = {
    "a loader": 'cache.get("k", loader=load)',
    "a loader that is a plain function": 'cache.get("k", loader=spin)',
    "a loader's awaitable": 'cache.get("k", loader=Awaitable)',
    "a loader that is being cancelled": "cancelled()",
    "a batch loader": 'cache.get("k", batch_loader=load)',
    "a batch loader that is a plain function": 'cache.get("k", batch_loader=spin)',
    "a mapping that a batch loader returned": 'cache.get("k", batch_loader=lambda _: mapping())',
    "the length of what a batch loader returned": 'cache.get("k", batch_loader=lambda _: rows("len"))',
    "what a batch loader returned": 'cache.get("k", batch_loader=lambda _: rows("iter"))',
    "an item of what a batch loader returned": 'cache.get("k", batch_loader=lambda _: rows("next"))',
    "a result that is looked at": 'cache.get("k", loader=lambda: rows("iter"))',
    "a value that is set and looked at": 'cache.set("k", Rows("iter"))',
    "an exception that its callers get": 'cache.get("k", loader=refuse)',
    "a fraction of a class of its own": "decorated(Third(1, 3))",
    "a path of a class of its own": 'decorated(Path("a"))',
    "whether the cache is to be used": "decorated(1, use_cache=Truth())",
    "a decorated function": "decorated(1)",
    "a decorated function's argument": 'decorated(Key("hash"))',
    "what an argument says to pickle": 'decorated(Says("__reduce_ex__"))',
    "an argument's __getstate__": "decorated(State())",
    "the items that an argument tells pickle of": 'decorated(Says("an iterator"))',
    "a tool of an agent": "tool()",
    "a load inside of a load": 'cache.get("outer", loader=lambda: cache.get("inner", loader=load))',
    "the hash of a key": 'cache.get(Key("hash"), loader=load)',
    "the comparison of two keys": 'in_turn(cache.set(Key(), 1), cache.get(Key("eq"), loader=load))',
    "the comparison of two keys in a set": 'in_turn(cache.set(Key(), 1), cache.set(Key("eq"), 1))',
    "the finalizer of a value that is deleted": 'in_turn(cache.set("k", Value()), cache.delete("k"))',
    "pickle, of a value that is saved": "saved()",
    "the event loop": 'cache.get("k", loader=load)',
}


@pytest.mark.parametrize("place", PLACES)
def test_a_process_ends_though_a_daemon_thread_is_busy_in(place: str) -> None:
    loop = "Loop" if place == "the event loop" else "asyncio.new_event_loop"
    program = HEAD.replace("{what}", PLACES[place]).replace("{loop}", loop)
    done = complete(program)
    assert done.stderr == ""


@pytest.mark.parametrize(
    "traffic",
    ["cache.get(number, loader=load)", "cache.get(number, batch_loader=load)", "decorated(number)"],
    ids=["loads", "batches", "a decorated function"],
)
def test_a_process_ends_though_a_daemon_thread_loads_all_the_time(traffic: str) -> None:
    """The interruption hits any line of an event loop called by the cache, or the finalizer of a
    task.
    """
    program = f"""
        import asyncio, sys, threading
        from cache import AsyncCache, AsyncLRU
        cache = AsyncCache(batch_window_ms=0)
        begun = threading.Event()
        async def load(keys=()): return dict.fromkeys(keys)
        @AsyncLRU()
        async def decorated(a): return a
        async def main():
            number = 0
            while True:
                await asyncio.gather(*[awaited(number + at) for at in range(10)])
                number += 10
                begun.set()
        async def awaited(number): return await {traffic}
        sys.setswitchinterval(1e-6)
        threading.Thread(target=lambda: asyncio.run(main()), daemon=True).start()
        begun.wait()
    """
    for _ in range(5):
        assert complete(program).stderr == ""
