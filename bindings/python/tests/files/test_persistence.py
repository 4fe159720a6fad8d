"""Entries that survive the process: keys, values, lives, the order of use, and cold entries."""

from __future__ import annotations

import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
from complaints import no_warning
from loops import Run, returns
from programs import output_of

from cache import AsyncCache, AsyncLRU, CacheWarning, DiskBackend


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
    began = time.monotonic()
    first.set("short", 1, ttl=0.3)
    over = time.monotonic() + 0.3
    first.set("long", 2, ttl=3600)
    first.set("never", 3, ttl=None)
    first.save_to_backup()
    again = AsyncCache(default_ttl=0, backup=DiskBackend(path))
    asked_at = over - 0.3
    while run(again.get("short")) == 1:
        assert asked_at < over + 0.15
        asked_at = time.monotonic()
    assert time.monotonic() >= began + 0.25
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
