"""Environments for imports: subinterpreters, free-threaded builds, and interrupted imports.

The bugs' story: in a second interpreter that shares the first interpreter's lock (mod_wsgi makes
one for each application), the first load hung, or failed with a class of the other interpreter. On
a free-threaded build with the lock turned off, the import only warned. And a Ctrl-C during the
first import of `collections.abc` or `datetime` from native code was a panic, after which the
callers of a batch waited for ever.
"""

from __future__ import annotations

import sys
import textwrap

import pytest
from programs import complete, run


@pytest.mark.parametrize("kind", ["legacy", "isolated"])
def test_a_subinterpreter_is_refused_and_the_first_one_goes_on(kind: str) -> None:
    program = """
        import asyncio, sys
        try:
            import _interpreters as interpreters
        except ImportError:
            import _xxsubinterpreters as interpreters
        import cache
        kind, = sys.argv[1:]
        if sys.version_info >= (3, 13):
            make = lambda: interpreters.create(kind)
        else:
            make = lambda: interpreters.create(isolated=kind == "isolated")
        code = '''
        for _ in range(2):
            try:
                import cache
            except ImportError as error:
                print("refused:", error)
        '''
        import textwrap
        async def load():
            return 5
        kept = cache.AsyncCache()
        for _ in range(2):
            other = make()
            failed = interpreters.run_string(other, textwrap.dedent(code))
            assert failed is None, failed
            interpreters.destroy(other)
            kept.clear()
            assert asyncio.run(kept.get("key", loader=load)) == 5
    """
    lines = [line for line in run(program, kind).splitlines() if line.startswith("refused:")]
    assert len(lines) == 4
    own_lock = kind == "isolated" and sys.version_info >= (3, 12)
    words = "does not support loading in subinterpreters" if own_lock else "works in the first interpreter"
    assert all(words in line for line in lines)


def test_an_interpreter_whose_lock_is_off_is_refused() -> None:
    """Simulated by a `sys` that reports a disabled lock, because not every machine has a
    free-threaded build.
    """
    program = """
        import sys
        ask = getattr(sys, "_is_gil_enabled", None)
        sys._is_gil_enabled = lambda: False
        try:
            import cache
        except ImportError as error:
            print(error)
        sys._is_gil_enabled = lambda: True
        import cache
        print(cache.AsyncCache().maxsize)
    """
    refused, works = run(program).splitlines()
    assert "needs Python's global interpreter lock" in refused
    assert "PYTHON_GIL=0" in refused
    assert works == "128"


SCENARIO = """
import asyncio, datetime, decimal, fractions, tempfile, uuid, os
import cache
from agent_cache import AgentCache, AgentCacheSession

values = [datetime.datetime.now(), datetime.date.today(), decimal.Decimal("1.5"), fractions.Fraction(1, 2),
          uuid.UUID(int=7), datetime.timezone.utc, datetime.timedelta(1), 2**100]
path = os.path.join(tempfile.mkdtemp(), "test.cache")

async def load():
    return 5

async def many(keys):
    return {key: key for key in keys}

class Object:
    async def many(self, keys):
        return keys

async def main():
    kept = cache.AsyncCache(backup=cache.DiskBackend(path))
    for number, value in enumerate(values):
        kept.set(number, value)
        kept.set(value, number)
    assert await kept.get("one", loader=load) == 5
    assert await kept.get("batch", batch_loader=many) == "batch"
    assert await kept.get("list", batch_loader=Object().many) == "list"

    async def recursive():
        return await kept.get("recursive", loader=recursive)

    try:
        await kept.get("recursive", loader=recursive)
    except cache.RecursiveLoadError:
        pass

    @cache.AsyncLRU()
    async def function(*args, **kwargs):
        return 7

    for value in values:
        assert await function(value, [value], {"x": Object}) == 7

    @AgentCache("resource")
    async def tool(x):
        return x

    async with AgentCacheSession(loop_detection=True):
        assert await tool(1) == 1
    assert await asyncio.wait_for(kept.get("slow", loader=load), 5) == 5

async def save():
    again = cache.AsyncCache(backup=cache.DiskBackend(path))
    for number, value in enumerate(values):
        again.set(number, value)
    again.save_to_backup()
    again = cache.AsyncCache(backup=cache.DiskBackend(path))
    for number, value in enumerate(values):
        assert await again.get(number) == value
"""


@pytest.mark.parametrize("raised", ["KeyboardInterrupt", "MemoryError"])
def test_an_import_that_is_interrupted_in_native_code_raises_and_can_be_done_again(raised: str) -> None:
    """Each import made by native code is interrupted in turn, in a fork of a fresh interpreter."""
    program = f"""
        import builtins, os, sys, traceback
        raised = getattr(builtins, sys.argv[1])
        exec({SCENARIO!r})
        real, count = builtins.__import__, 0
        while True:
            child = os.fork()
            if child == 0:
                left = [count]
                def stand_in(name, *others):
                    if sys._getframe(1).f_code.co_filename.startswith("<frozen"):
                        return real(name, *others)
                    left[0] -= 1
                    if left[0] == -1:
                        raise raised(name)
                    return real(name, *others)
                code = 1
                try:
                    builtins.__import__ = stand_in
                    try:
                        asyncio.run(main())
                    except raised:
                        pass
                    builtins.__import__ = real
                    asyncio.run(main())
                    asyncio.run(save())
                    code = 0 if left[0] < 0 else 2
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(code)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            assert status in (0, 2), (count, status)
            if status == 2:
                break
            count += 1
        print(count)
    """
    done = complete(textwrap.dedent(program), raised)
    # At least one import, or nothing would have been interrupted. Their number depends on the
    # library.
    assert int(done.stdout) > 0
    assert "panicked" not in done.stderr


def test_an_interrupted_import_of_the_package_can_be_done_again() -> None:
    """Each import made by the package is interrupted in turn, including imports by its native
    module.
    """
    program = """
        import asyncio, builtins, contextlib, decimal, hashlib, inspect, logging, os, pathlib, sys, traceback, uuid
        import warnings, weakref
        real, count = builtins.__import__, 0
        while True:
            child = os.fork()
            if child == 0:
                left = [count]
                def stand_in(name, *others):
                    # Those of the package's own modules, and those of its native module, which the
                    # import system calls. Others are as in any Python package.
                    asker = sys._getframe(1)
                    of_native = asker.f_code.co_name == "_call_with_frames_removed"
                    is_ours = asker.f_globals["__name__"].partition(".")[0] in ("cache", "agent_cache")
                    if not (of_native or (is_ours and len(others) > 3 and others[3] > 0)):
                        return real(name, *others)
                    # Asked for again by PyO3, which makes an ImportError of any other: but once it is
                    # imported, no Python code runs that could be interrupted.
                    if name == "datetime" and name in sys.modules:
                        return real(name, *others)
                    left[0] -= 1
                    if left[0] == -1:
                        raise KeyboardInterrupt(name)
                    return real(name, *others)
                code = 1
                try:
                    builtins.__import__ = stand_in
                    try:
                        import cache, agent_cache
                    except KeyboardInterrupt:
                        pass
                    builtins.__import__ = real
                    import cache, agent_cache
                    async def load():
                        return 5
                    assert asyncio.run(cache.AsyncCache().get("key", loader=load)) == 5
                    code = 0 if left[0] < 0 else 2
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(code)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            assert status in (0, 2), (count, status)
            if status == 2:
                break
            count += 1
        print(count)
    """
    done = complete(program)
    assert int(done.stdout) > 20
    assert "panicked" not in done.stderr
