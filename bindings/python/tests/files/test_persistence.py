"""Entries that survive the process: saving, loading, damage, and a user's own backends."""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
import signal
import stat
import sys
import time
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from complaints import no_warning
from loops import Load, Run, outcome, task, turns
from programs import output_of, start
from stores import LoadFails, MemoryBackend, SaveFails

import cache as package
from cache import AsyncCache, AsyncLRU, AsyncTTL, CacheBackend, CacheWarning, DiskBackend


def returns(value: Any) -> Callable[[], Awaitable[Any]]:
    async def load() -> Any:
        return value

    return load


# The snippets of the documentation


def test_the_quick_start(run: Run, path: Path) -> None:
    async def main() -> None:
        backup = DiskBackend(str(path))
        cache = AsyncCache(maxsize=10000, default_ttl=3600, backup=backup)
        value = await cache.get("key", loader=lambda: returns("expensive")())
        cache.save_to_backup()

        again = AsyncCache(maxsize=10000, default_ttl=3600, backup=DiskBackend(str(path)))
        assert await again.get("key") == value == "expensive"
        assert again.get_metrics() == {"hits": 1, "misses": 0, "size": 1, "hit_rate": 1.0}

    run(main())


def test_the_snippet_with_decorators(run: Run, path: Path) -> None:
    queries: list[int] = []

    def application() -> Any:
        lru_backup = DiskBackend(path)

        @AsyncLRU(maxsize=1000, backup=lru_backup)
        async def get_product(product_id: int) -> dict[str, int]:
            queries.append(product_id)
            return {"id": product_id}

        return get_product

    get_product = application()
    assert run(get_product(7)) == {"id": 7}
    get_product.save_to_backup()
    get_product.clear_cache()
    get_product.load_from_backup()
    assert run(get_product(7)) == {"id": 7}
    assert queries == [7]


def test_the_snippet_with_atexit(path: Path) -> None:
    program = """
        import asyncio, atexit, sys
        from cache import AsyncCache, DiskBackend
        backup = DiskBackend(sys.argv[1])
        cache = AsyncCache(maxsize=5000, default_ttl=600, backup=backup)
        atexit.register(cache.save_to_backup)
        async def load():
            return "loaded"
        async def main():
            return "k" in cache.cache, await cache.get("k", loader=load)
        print(*asyncio.run(main()))
    """
    assert output_of(program, path) == "False loaded\n"
    assert output_of(program, path) == "True loaded\n"


# Every kind of value and key


VALUES: list[Any] = [
    *(None, True, 0, -1, 2**63, 2**64, -(10**40), 1.5, "", "ä\N{SNOWMAN}", b"\0\xff"),
    *(
        [],
        [1, [2]],
        (1, (2, [3])),
        {"a": {"b": 1}},
        {1: "int key", (1, 2): "tuple"},
        {1, 2},
        frozenset({"a"}),
    ),
    *(slice(1, 2), complex(1, 2), range(3)),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_comes_back_as_it_was(run: Run, path: Path, value: Any) -> None:
    with AsyncCache(backup=DiskBackend(path)) as cache:
        cache.set("k", value)
    again = AsyncCache(backup=DiskBackend(path))
    got = run(again.get("k", returns("a miss")))
    assert got == value
    assert type(got) is type(value)


def test_keys_of_every_kind_are_found_again(run: Run, path: Path) -> None:
    keys: list[Any] = [
        *("a", b"a", 1, 2.5, None, 10**40, (1, "a"), (1, ("b", None)), frozenset({1, 2}), "", (), -1, 2**64),
    ]
    with AsyncCache(backup=DiskBackend(path)) as cache:
        for number, key in enumerate(keys):
            cache.set(key, number)
    again = AsyncCache(backup=DiskBackend(path))
    assert [run(again.get(key)) for key in keys] == list(range(len(keys)))
    assert (run(again.get(True)), run(again.get(1.0))) == (2, 2)


def test_entries_are_found_in_a_process_with_another_hash_seed(path: Path) -> None:
    program = """
        import asyncio, sys
        from cache import AsyncLRU, AsyncCache, DiskBackend

        class Thing:
            def __init__(self, **attributes):
                self.__dict__.update(attributes)

        calls = 0

        @AsyncLRU(maxsize=None, backup=DiskBackend(sys.argv[1]))
        async def f(*args, **options):
            global calls
            calls += 1
            return "v"

        async def main():
            await f([1, {"a": 2}], x="y")
            await f({"b", "a", "c"}, frozenset({"x", "z"}))
            await f(Thing(a=1, b={"q": 2}))
            await f(b=[2], a={"y": 1, "x": 2})
            await f("text", None, 1.5)
            await f("text")
            await f()

        asyncio.run(main())
        f.save_to_backup()
        print(calls)
    """
    assert [output_of(program, path, PYTHONHASHSEED=seed) for seed in "123"] == ["7\n", "0\n", "0\n"]


class Here:
    """An argument compared by its attributes."""

    def __init__(self, number: int) -> None:
        self.number = number


def test_an_object_key_is_found_again_by_its_attributes(run: Run, path: Path) -> None:
    calls: list[int] = []

    @AsyncLRU(backup=DiskBackend(path))
    async def f(thing: Here) -> int:
        calls.append(thing.number)
        return thing.number

    run(f(Here(1)))
    f.save_to_backup()
    f.clear_cache()
    f.load_from_backup()
    assert run(f(Here(1))) == 1
    assert calls == [1]
    run(f(Here(2)))
    assert calls == [1, 2]


class Point:
    """A key compared by Python code."""

    def __init__(self, x: int) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and other.x == self.x

    def __hash__(self) -> int:
        return hash(self.x)


class Bare:
    """A key compared by identity."""


def test_keys_that_are_objects_are_found_again(run: Run, path: Path) -> None:
    cache = AsyncCache(maxsize=None, backup=DiskBackend(path))
    cache.set(Point(1), "one")
    cache.set((Point(2), "b"), "two", ttl=3600)
    cache.set(Point(3), "over", ttl=0)
    cache.set("plain", "text")
    cache.save_to_backup()
    for _ in range(2):
        again = AsyncCache(maxsize=None, backup=DiskBackend(path))
        assert run(again.get(Point(1))) == "one"
        assert run(again.get((Point(2), "b"))) == "two"
        assert run(again.get(Point(3))) is None
        assert run(again.get("plain")) == "text"
        assert len(again.cache) == 3
        again.save_to_backup()
    loaded = DiskBackend(path).load()
    assert {key: value for key, (value, _) in loaded.items()} == {
        Point(1): "one",
        (Point(2), "b"): "two",
        "plain": "text",
    }
    DiskBackend(path).save(loaded)
    assert run(AsyncCache(backup=DiskBackend(path)).get(Point(1))) == "one"


def test_what_was_set_since_is_newer_than_an_object_key_in_the_file(run: Run, path: Path) -> None:
    first = AsyncCache(backup=DiskBackend(path))
    first.set(Point(1), "old")
    first.save_to_backup()
    first.set(Point(1), "newer")
    first.load_from_backup()
    assert run(first.get(Point(1))) == "newer"


def test_a_key_that_nobody_could_ask_for_again_is_left_out_with_a_warning(run: Run, path: Path) -> None:
    cache = AsyncCache(backup=DiskBackend(path))
    cache.set(Bare(), "lost")
    cache.set("kept", 1)
    with pytest.warns(CacheWarning, match=r"1 entries were not saved.*Bare.*nobody could ask"):
        cache.save_to_backup()
    with no_warning():
        again = AsyncCache(backup=DiskBackend(path))
    assert len(again.cache) == 1
    assert run(again.get("kept")) == 1


def test_an_argument_of_a_class_that_was_replaced_since_is_not_saved_as_one_of_its_successor(
    run: Run, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules[__name__]
    old = Here

    @AsyncLRU(backup=DiskBackend(path))
    async def f(thing: Any) -> str:
        return f"{type(thing).kind}"

    monkeypatch.setattr(old, "kind", "old", raising=False)
    assert run(f(old(1))) == "old"
    new = type("Here", (), {"__module__": __name__, "__init__": old.__init__, "kind": "new"})
    monkeypatch.setattr(module, "Here", new)
    with pytest.warns(CacheWarning, match="were not saved"):
        f.save_to_backup()
    f.clear_cache()
    f.load_from_backup()
    assert run(f(new(1))) == "new"


def test_a_snapshot_of_which_nothing_is_cold_any_more_is_let_go(run: Run, path: Path) -> None:
    def is_open() -> bool:
        links = (link for link in Path("/proc/self/fd").iterdir() if link.is_symlink())
        return str(path) in [os.readlink(link) for link in links]

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("there is no list of open files to look at")
    cache = AsyncCache(backup=DiskBackend(path))
    for number in range(3):
        cache.set(number, number)
    cache.save_to_backup()
    again = AsyncCache(backup=DiskBackend(path))
    assert is_open()
    assert [run(again.get(number)) for number in range(3)] == [0, 1, 2]
    assert not is_open()
    assert again.stats()["cold_hits"] == 3
    again.save_to_backup()
    assert len(AsyncCache(backup=DiskBackend(path)).cache) == 3


# Time


def test_a_ttl_goes_on_over_save_and_load(run: Run, path: Path) -> None:
    first = AsyncCache(backup=DiskBackend(path))
    first.set("short", 1, ttl=0.3)
    over = time.monotonic() + 0.3
    first.set("long", 2, ttl=3600)
    first.set("never", 3, ttl=None)
    first.save_to_backup()
    again = AsyncCache(default_ttl=0, backup=DiskBackend(path))
    while run(again.get("short")) == 1:
        assert time.monotonic() < over + 0.15
    assert time.monotonic() >= over - 0.05
    assert [run(again.get(key)) for key in ("long", "never")] == [2, 3]
    left = DiskBackend(path).load()["long"][1]
    assert left is not None
    assert 3500 < left - time.monotonic() <= 3600


def test_what_is_over_is_not_saved(path: Path) -> None:
    cache = AsyncCache(backup=DiskBackend(path))
    cache.set("over", 1, ttl=0)
    cache.set("k", 1)
    cache.save_to_backup()
    assert set(DiskBackend(path).load()) == {"k"}


def test_the_order_of_use_and_maxsize_go_on_over_save_and_load(run: Run, path: Path) -> None:
    cache = AsyncCache(maxsize=4, backup=DiskBackend(path))
    for key in "abcd":
        cache.set(key, key)
    run(cache.get("a"))
    cache.save_to_backup()
    again = AsyncCache(maxsize=4, backup=DiskBackend(path))
    assert len(again.cache) == 4
    again.set("e", "e")
    again.set("f", "f")
    assert [key in again.cache for key in "abcdef"] == [True, False, False, True, True, True]
    smaller = AsyncCache(maxsize=2, backup=DiskBackend(path))
    assert [key in smaller.cache for key in "abcd"] == [True, False, False, True]


def test_what_was_deleted_or_replaced_does_not_come_back(run: Run, path: Path) -> None:
    cache = AsyncCache(backup=DiskBackend(path))
    for key in "abc":
        cache.set(key, "old")
    cache.save_to_backup()
    again = AsyncCache(backup=DiskBackend(path))
    again.delete("a")
    again.set("b", "new")
    again.save_to_backup()
    last = AsyncCache(backup=DiskBackend(path))
    assert [run(last.get(key)) for key in "abc"] == [None, "new", "old"]
    last.clear()
    assert len(last.cache) == 0
    last.save_to_backup()
    assert DiskBackend(path).load() == {}


def test_load_from_backup_does_not_undo_what_was_set_since(run: Run, path: Path) -> None:
    cache = AsyncCache(backup=DiskBackend(path))
    cache.set("k", "saved")
    cache.set("l", "saved")
    cache.save_to_backup()
    cache.set("k", "newer")
    cache.delete("l")
    cache.load_from_backup()
    assert [run(cache.get("k")), run(cache.get("l"))] == ["newer", "saved"]


# Damage


FOREIGN: dict[str, bytes] = {
    "text": b"this is somebody's diary\n" * 100,
    "pickle": pickle.dumps({"k": ("v", None)}),
    "zeros": bytes(10_000),
}


@pytest.mark.parametrize("name", list(FOREIGN))
def test_a_foreign_file_is_empty_with_a_warning_and_set_aside_by_the_save(path: Path, name: str) -> None:
    path.write_bytes(FOREIGN[name])
    with pytest.warns(CacheWarning, match=str(path)):
        cache = AsyncCache(backup=DiskBackend(path))
    assert len(cache.cache) == 0
    assert path.read_bytes() == FOREIGN[name]
    cache.set("k", "v")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheWarning)
        cache.save_to_backup()
    others = [other.read_bytes() for other in path.parent.iterdir() if other != path]
    assert FOREIGN[name] in others
    with no_warning():
        assert "k" in AsyncCache(backup=DiskBackend(path)).cache


def test_a_file_of_no_bytes_counts_as_no_file(path: Path) -> None:
    path.touch()
    with no_warning():
        cache = AsyncCache(backup=DiskBackend(path))
        cache.set("k", "v")
        cache.save_to_backup()
        assert "k" in AsyncCache(backup=DiskBackend(path)).cache
    assert sorted(other.name for other in path.parent.iterdir()) == [path.name, f"{path.name}.lock"]


def test_a_pickle_that_would_run_code_is_not_run(path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(path.parent / "attacked"),))

    path.write_bytes(pickle.dumps({"k": (Attack(), None)}))
    with pytest.warns(CacheWarning):
        AsyncCache(backup=DiskBackend(path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheWarning)
        assert DiskBackend(path).load() == {}
    assert not (path.parent / "attacked").exists()


def test_a_file_that_is_cut_or_changed_anywhere_never_gives_a_wrong_value(run: Run, path: Path) -> None:
    cache = AsyncCache(backup=DiskBackend(path))
    for number in range(5):
        cache.set(f"key {number}", [f"value {number}"])
    cache.save_to_backup()
    good = path.read_bytes()
    # About four hundred places of the file; the crate's own tests cover all of them.
    places = range(0, len(good), max(1, len(good) // 400) | 1)
    damaged = [good[:length] for length in places]
    damaged += [good[:at] + bytes([good[at] ^ 0x41]) + good[at + 1 :] for at in places]

    async def main() -> None:
        for content in damaged:
            path.write_bytes(content)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", CacheWarning)
                again = AsyncCache(backup=DiskBackend(path))
                for number in range(5):
                    assert await again.get(f"key {number}") in (None, [f"value {number}"])

    run(main())


def test_a_file_that_is_cut_under_a_running_cache_is_misses(run: Run, path: Path) -> None:
    async def main() -> None:
        with AsyncCache(maxsize=None, backup=DiskBackend(path)) as cache:
            for number in range(2_000):
                cache.set(number, "v" * 100)
        again = AsyncCache(maxsize=None, backup=DiskBackend(path))
        os.truncate(path, 4_096)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CacheWarning)
            found = [await again.get(number, returns("loaded")) for number in range(2_000)]
        assert set(found) <= {"v" * 100, "loaded"}
        assert "loaded" in found

    run(main())


def test_a_new_file_is_readable_by_its_owner_only(path: Path) -> None:
    AsyncCache(backup=DiskBackend(path)).save_to_backup()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_no_temporary_file_is_left(path: Path) -> None:
    cache = AsyncCache(backup=DiskBackend(path))
    for number in range(10):
        cache.set(number, number)
        cache.save_to_backup()
    unexpected = [other.name for other in path.parent.iterdir() if other != path and "lock" not in other.name]
    assert unexpected == []


# The process ends


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


# One file, one user


def test_two_functions_on_one_file_are_refused(path: Path) -> None:
    @AsyncLRU(backup=DiskBackend(path))
    async def one(x: int) -> int:
        return x

    async def another(x: int) -> int:
        return x

    with pytest.raises(ValueError) as refused:
        AsyncTTL(backup=DiskBackend(str(path)))(another)
    assert "one" in str(refused.value)
    assert "another" in str(refused.value)


def test_a_decorator_with_a_backup_decorates_one_function(path: Path) -> None:
    decorator = AsyncLRU(backup=DiskBackend(path))

    @decorator
    async def one(x: int) -> int:
        return x

    async def another(x: int) -> int:
        return x

    with pytest.raises(ValueError, match="another"):
        decorator(another)


def test_a_file_of_another_version_is_empty(run: Run, path: Path) -> None:
    cache = AsyncCache(backup=DiskBackend(path, version="v1"))
    cache.set("k", "v")
    cache.save_to_backup()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheWarning)
        assert run(AsyncCache(backup=DiskBackend(path, version="v2")).get("k")) is None
        assert run(AsyncCache(backup=DiskBackend(path)).get("k")) is None
        assert DiskBackend(path, version="v2").load() == {}
    assert run(AsyncCache(backup=DiskBackend(path, version="v1")).get("k")) == "v"


def test_version_is_given_by_name(path: Path) -> None:
    backend: Any = DiskBackend
    with pytest.raises(TypeError):
        backend(path, "v1")


# A user's own backends


def test_a_backend_that_raises_on_load_is_an_empty_cache_and_a_warning(run: Run) -> None:
    with pytest.warns(CacheWarning, match="the backend is away"):
        cache = AsyncCache(backup=LoadFails())
    assert len(cache.cache) == 0
    assert run(cache.get("k", returns(1))) == 1


def test_a_backend_that_raises_on_save_raises_to_the_caller(run: Run) -> None:
    cache = AsyncCache(backup=SaveFails())
    cache.set("k", 1)
    with pytest.raises((ConnectionError, package.BackupError)) as raised:
        cache.save_to_backup()
    causes = [raised.value, raised.value.__cause__]
    assert any(isinstance(cause, ConnectionError) for cause in causes)
    assert isinstance(run(outcome(cache.save_to_backup_async())), (ConnectionError, package.BackupError))
    assert run(cache.get("k")) == 1
    assert (cache.stats()["saves"], cache.stats()["save_errors"]) == (0, 2)


def test_a_backend_that_loads_something_else_is_an_empty_cache_and_a_warning() -> None:
    for nonsense in ([1, 2], {"k": "no tuple"}, {"k": (1, 2, 3)}, {"k": (1, "soon")}):
        backend = MemoryBackend()
        backend.load = lambda nonsense=nonsense: nonsense  # type: ignore[method-assign,misc]
        with pytest.warns(CacheWarning):
            cache = AsyncCache(backup=backend)
        assert len(cache.cache) == 0


def test_an_entry_that_is_malformed_is_left_out_alone(run: Run) -> None:
    """The load stopped at the first malformed entry, and the next save replaced all entries after
    it.
    """
    forever = float("inf")
    entries: Any = {
        "a": (1, None),
        "b": (2,),
        "c": (3, forever),
        "d": 4,
        "e": (5, "soon"),
        ("f", 1): [6, None],
    }
    entries["g"] = (7, time.monotonic() - 1)
    backend = MemoryBackend(entries)
    with pytest.warns(CacheWarning, match="3 of 7 entries could not be taken in; the first one is 'b'"):
        cache = AsyncCache(backup=backend)
    for key, value in (("a", 1), ("b", None), ("c", 3), ("d", None), ("e", None), (("f", 1), 6), ("g", None)):
        assert run(cache.get(key)) == value
    cache.save_to_backup()
    assert backend.data == {"a": (1, None), "c": (3, None), ("f", 1): (6, None)}


def test_a_backend_whose_load_returns_nothing_is_an_empty_cache(run: Run) -> None:
    class RedisBackend(CacheBackend):
        """The example of the documentation, unchanged except for the client."""

        def load(self) -> Any: ...
        def save(self, data: Any) -> None: ...
        def clear(self) -> None: ...

    with no_warning():
        cache = AsyncCache(backup=RedisBackend())
        cache.set("k", 1)
        cache.save_to_backup()
        cache.load_from_backup()
    assert run(cache.get("k")) == 1


def test_a_backend_of_the_users_own_serves_decorated_functions(run: Run) -> None:
    backend = MemoryBackend()

    def application() -> tuple[Any, list[Any]]:
        calls: list[Any] = []

        @AsyncTTL(time_to_live=100, backup=backend)
        async def f(*args: Any, **options: Any) -> str:
            calls.append(args)
            return "v"

        return f, calls

    async def use(f: Any) -> None:
        await f(1)
        await f([1, {"a": 2}], x="y")

    f, calls = application()
    run(use(f))
    assert len(calls) == 2
    f.save_to_backup()
    (saved,) = backend.saved
    assert [value for value, _ in saved.values()] == ["v", "v"]
    assert all(left is not None and 90 < left <= 100 for _, left in saved.values())
    # Entries passed to a backend can be pickled, as every Redis backend does.
    backend.data = pickle.loads(pickle.dumps(backend.data))
    again, calls = application()
    run(use(again))
    assert calls == []


def test_a_disk_backend_subclass_that_overrides_load_and_save_is_called(run: Run, path: Path) -> None:
    called: list[str] = []

    class Mine(DiskBackend):
        def load(self) -> dict[Any, tuple[Any, float | None]]:
            called.append("load")
            return {**super().load(), "extra": ("from load", None)}

        def save(self, data: dict[Any, tuple[Any, float | None]]) -> None:
            called.append("save")
            super().save({key: entry for key, entry in data.items() if key != "secret"})

    cache = AsyncCache(backup=Mine(path))
    assert called == ["load"]
    assert run(cache.get("extra")) == "from load"
    cache.set("secret", 1)
    cache.set("k", 2)
    cache.save_to_backup()
    run(cache.save_to_backup_async())
    assert called == ["load", "save", "save"]
    assert set(DiskBackend(path).load()) == {"k", "extra"}


def test_a_disk_backend_and_a_cache_agree_about_the_file(run: Run, path: Path) -> None:
    DiskBackend(path).save({"k": ("v", None), (1, "a"): ({"x": 1}, 100.0)})
    cache = AsyncCache(backup=DiskBackend(path))
    assert [run(cache.get("k")), run(cache.get((1, "a")))] == ["v", {"x": 1}]
    cache.set("l", "w")
    cache.save_to_backup()
    data = DiskBackend(path).load()
    assert {key: value for key, (value, _) in data.items()} == {"k": "v", (1, "a"): {"x": 1}, "l": "w"}


def test_a_disk_backend_is_thread_safe(run: Run, path: Path) -> None:
    async def main() -> None:
        backend = DiskBackend(path)
        entries: dict[Any, tuple[Any, float | None]] = {number: (number, None) for number in range(500)}
        backend.save(entries)
        await asyncio.gather(
            *(asyncio.to_thread(backend.save, entries) for _ in range(10)),
            *(asyncio.to_thread(_load_and_check, backend, entries) for _ in range(10)),
        )
        await turns()

    run(main())


def _load_and_check(backend: DiskBackend, entries: dict[Any, tuple[Any, float | None]]) -> None:
    assert backend.load() == entries


# Cold entries


def test_cold_entries_are_counted_and_become_hot_when_asked_for(run: Run, path: Path) -> None:
    with AsyncCache(maxsize=None, backup=DiskBackend(path)) as cache:
        for number in range(100):
            cache.set(number, number)
    again = AsyncCache(maxsize=None, backup=DiskBackend(path))
    assert len(again.cache) == 100
    assert again.stats()["cold"] == 100
    assert run(again.get(5)) == 5
    assert 6 in again.cache
    stats = again.stats()
    assert (stats["cold"], stats["cold_hits"], stats["size"]) == (99, 1, 100)


def test_an_entry_that_no_longer_decodes_is_a_miss_and_counted(run: Run, path: Path) -> None:
    import types

    module = types.ModuleType("a_module_that_will_be_gone")
    exec("class Gone:\n    pass", module.__dict__)
    sys.modules[module.__name__] = module
    try:
        with AsyncCache(backup=DiskBackend(path)) as cache:
            cache.set("gone", module.Gone())
            cache.set("k", "v")
    finally:
        del sys.modules[module.__name__]
    again = AsyncCache(backup=DiskBackend(path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheWarning)
        assert run(again.get("gone", returns("loaded anew"))) == "loaded anew"
    assert run(again.get("k")) == "v"
    assert again.stats()["undecodable"] == 1


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


def test_a_disk_backend_can_be_copied_and_pickled(path: Path) -> None:
    backend = DiskBackend(path, version="v1")
    backend.save({"k": (1, None)})
    for again in (copy.copy(backend), copy.deepcopy(backend), pickle.loads(pickle.dumps(backend))):
        assert again.load() == {"k": (1, None)}
        assert (again.path, again.version, repr(again)) == (backend.path, "v1", repr(backend))
        again.save({"k": (1, None)})


def test_a_secret_is_copied_and_not_pickled(path: Path) -> None:
    backend = DiskBackend(path, secret="not for everybody's eyes", compression="zstd")
    backend.save({"k": (1, None)})
    assert copy.deepcopy(backend).load() == {"k": (1, None)}
    with pytest.raises(TypeError, match="secret"):
        pickle.dumps(backend)
