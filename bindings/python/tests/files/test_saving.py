"""Saves when the process ends, and saves while the service runs."""

from __future__ import annotations

import asyncio
import signal
import sys
import warnings
from pathlib import Path

import pytest
from complaints import no_warning
from loops import Load, Run, outcome, task
from programs import output_of, start

import cache as package
from cache import AsyncCache, CacheWarning, DiskBackend


def test_what_was_saved_survives_kill_9(run: Run, path: Path) -> None:
    program = """
        import sys, time
        from cache import AsyncCache, DiskBackend
        cache = AsyncCache(backup=DiskBackend(sys.argv[1]))
        cache.set("k", ["v"], ttl=1000)
        cache.save_to_backup()
        cache.set("not saved", 1)
        print("saved", flush=True)
        sys.stdin.read()
    """
    process = start(program, path)
    assert process.stdout is not None
    assert process.stdout.readline() == "saved\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    again = AsyncCache(backup=DiskBackend(path))
    assert run(again.get("k")) == ["v"]
    assert "not saved" not in again.cache


def test_kill_9_during_saves_leaves_the_old_or_the_new_entries(run: Run, path: Path) -> None:
    program = """
        import sys
        from cache import AsyncCache, DiskBackend
        cache = AsyncCache(maxsize=None, backup=DiskBackend(sys.argv[1]))
        generation = 0
        while True:
            generation += 1
            for key in range(300):
                cache.set(key, generation)
            cache.save_to_backup()
            print(generation, flush=True)
    """
    for saves in (1, 3, 7):
        process = start(program, path)
        assert process.stdout is not None
        for _ in range(saves):
            process.stdout.readline()
        process.kill()
        process.communicate()
        with no_warning():
            again = AsyncCache(maxsize=None, backup=DiskBackend(path))
        values = {run(again.get(key)) for key in range(300)}
        assert len(values) == 1
        assert values.pop() >= saves


def test_a_signal_handler_may_save(path: Path) -> None:
    program = """
        import asyncio, os, signal, sys
        from cache import AsyncCache, DiskBackend
        cache = AsyncCache(maxsize=None, backup=DiskBackend(sys.argv[1]))
        signal.signal(signal.SIGUSR1, lambda *_: cache.save_to_backup())
        async def load():
            os.kill(os.getpid(), signal.SIGUSR1)
            return "v"
        async def main():
            for number in range(200):
                await cache.get(number, load)
        asyncio.run(main())
        print(len(AsyncCache(maxsize=None, backup=DiskBackend(sys.argv[1])).cache) >= 199)
    """
    assert output_of(program, path) == "True\n"


def test_leaving_with_saves_and_so_does_leaving_it_by_an_error(run: Run, path: Path) -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="left"):
            async with AsyncCache(backup=DiskBackend(path)) as cache:
                cache.set("async", 1)
                raise ValueError("left")
        with AsyncCache(backup=DiskBackend(path)) as cache:
            cache.set("sync", 2)
        assert set(DiskBackend(path).load()) == {"async", "sync"}

    run(main())


# Saving while the service runs


def test_an_async_save_runs_beside_traffic_and_is_whole_for_every_entry(run: Run, path: Path) -> None:
    async def main() -> None:
        cache = AsyncCache(maxsize=None, backup=DiskBackend(path))
        for number in range(20_000):
            cache.set(number, (number, 0))
        save = task(cache.save_to_backup_async())
        rounds = 0
        while not save.done():
            rounds += 1
            for number in range(0, 20_000, 500):
                cache.set(number, (number, rounds))
            cache.delete(rounds * 500 + 1)
            assert (await cache.get(number))[0] == number
            await asyncio.sleep(0)
        await save
        assert rounds > 1
        found = DiskBackend(path).load()
        assert len(found) >= 20_000 - rounds
        for key, (value, deadline) in found.items():
            assert value[0] == key
            assert deadline is None
        assert cache.stats()["saves"] == 1

    run(main())


def test_saves_at_once_all_end_and_the_file_is_whole(run: Run, path: Path) -> None:
    async def main() -> None:
        cache = AsyncCache(maxsize=None, backup=DiskBackend(path))
        for number in range(1_000):
            cache.set(number, number)
        await asyncio.gather(
            *(cache.save_to_backup_async() for _ in range(5)),
            *(asyncio.to_thread(cache.save_to_backup) for _ in range(5)),
        )
        assert len(DiskBackend(path).load()) == 1_000

    run(main())


def test_a_load_that_runs_during_a_save_is_neither_lost_nor_disturbed(run: Run, path: Path) -> None:
    async def main() -> None:
        cache, load = AsyncCache(backup=DiskBackend(path)), Load()
        waits = task(cache.get("k", load))
        await load.called()
        cache.save_to_backup()
        await cache.save_to_backup_async()
        load.answer("v")
        assert await waits == "v"
        cache.save_to_backup()
        assert DiskBackend(path).load() == {"k": ("v", None)}

    run(main())


def test_a_save_to_where_nothing_can_be_written_raises_a_backup_error(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("not a folder")
    try:
        cache = AsyncCache(backup=DiskBackend(tmp_path / "a file" / "x.cache"))
    except CacheWarning:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CacheWarning)
            cache = AsyncCache(backup=DiskBackend(tmp_path / "a file" / "x.cache"))
    cache.set("k", 1)
    with pytest.raises(package.BackupError, match="a file"):
        cache.save_to_backup()
    assert isinstance(run(outcome(cache.save_to_backup_async())), package.BackupError)
    assert run(cache.get("k")) == 1


# Effects of a save


def test_a_save_makes_no_string_bigger(path: Path) -> None:
    """A string caches its UTF-8 form after the first request, so a save doubled the memory of
    non-ASCII text.
    """
    text, key = "é" * 2000, "ключ" * 100
    before = sys.getsizeof(text), sys.getsizeof(key)
    cache = AsyncCache(backup=DiskBackend(path))
    cache.set(key, [text])
    cache.save_to_backup()
    assert key in AsyncCache(backup=DiskBackend(path)).cache
    assert (sys.getsizeof(text), sys.getsizeof(key)) == before
    assert DiskBackend(path).load() == {key: ([text], None)}
