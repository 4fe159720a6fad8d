"""The promises of the compatibility tables about `AsyncCache`, row by row."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from conftest import MakeCache
from loops import NEVER_MS, Load, Run, joined, outcome, returns, task

from cache import (
    AsyncCache,
    AsyncLRU,
    AsyncTTL,
    CacheError,
)


def test_the_original_names_are_where_they_were() -> None:
    import cache
    import cache.async_cache
    import cache.async_lru
    import cache.async_ttl
    import cache.backend
    import cache.key

    assert cache.async_cache.AsyncCache is cache.AsyncCache
    assert cache.async_lru.AsyncLRU is cache.AsyncLRU
    assert cache.async_ttl.AsyncTTL is cache.AsyncTTL
    assert cache.backend.CacheBackend is cache.CacheBackend
    assert cache.backend.DiskBackend is cache.DiskBackend
    assert callable(cache.key.KEY)
    assert callable(cache.key.make_key)
    assert callable(cache.key._to_hashable)


def test_the_errors_are_a_tree() -> None:
    import cache

    for error in (cache.RecursiveLoadError, cache.LoadCancelledError, cache.BackupError):
        assert issubclass(error, CacheError)
    assert issubclass(CacheError, Exception)
    assert issubclass(cache.CacheWarning, UserWarning)


# AsyncCache


def test_the_defaults_are_the_original_ones() -> None:
    cache = AsyncCache()
    assert (cache.maxsize, cache.default_ttl) == (128, None)
    assert (cache.batch_window_ms, cache.max_batch_size) == (5, 100)
    assert (cache.hits, cache.misses) == (0, 0)


def test_all_arguments_may_be_given_by_position() -> None:
    cache = AsyncCache(1, 2.5, 3, 4, None, None)
    assert (cache.maxsize, cache.default_ttl) == (1, 2.5)
    assert (cache.batch_window_ms, cache.max_batch_size) == (3, 4)


def test_get_without_a_loader_is_none_on_a_miss(run: Run, store: MakeCache) -> None:
    cache = store()
    assert run(cache.get("k")) is None
    assert cache.get_metrics() == {"hits": 0, "misses": 1, "size": 0, "hit_rate": 0.0}


def test_get_loads_once_and_then_hits(run: Run, store: MakeCache) -> None:
    async def main() -> None:
        cache, calls = store(), 0

        async def load() -> str:
            nonlocal calls
            calls += 1
            return "v"

        assert [await cache.get("k", load), await cache.get("k", loader=load)] == ["v", "v"]
        assert calls == 1
        assert (cache.hits, cache.misses) == (1, 1)
        assert cache.get_metrics() == {"hits": 1, "misses": 1, "size": 1, "hit_rate": 0.5}

    run(main())


def test_get_takes_a_plain_loader_that_returns_an_awaitable(run: Run) -> None:
    async def main() -> None:
        def future() -> asyncio.Future[int]:
            made: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            made.get_loop().call_soon(made.set_result, 2)
            return made

        cache = AsyncCache()
        assert await cache.get("coroutine", lambda: returns(1)()) == 1
        assert await cache.get("future", future) == 2
        assert await cache.get("task", lambda: task(returns(3)())) == 3

    run(main())


def test_get_stores_none_and_false_values_as_values(run: Run, store: MakeCache) -> None:
    async def main() -> None:
        cache = store()
        values: list[Any] = [None, False, 0, "", []]
        for number, value in enumerate(values):
            assert await cache.get(number, returns(value)) == value
            assert await cache.get(number, returns("loaded again")) == value

    run(main())


def test_get_prefers_the_loader_to_the_batch_loader(run: Run) -> None:
    async def main() -> None:
        batch = Load()
        assert await AsyncCache().get("k", loader=returns("single"), batch_loader=batch) == "single"
        assert batch.calls == []

    run(main())


def test_get_with_a_ttl_overrides_the_default(run: Run) -> None:
    async def main() -> None:
        cache = AsyncCache(default_ttl=3600)
        await cache.get("over", returns(1), ttl=0)
        await cache.get("default", returns(1), ttl=None)
        assert ("over" in cache.cache, "default" in cache.cache) == (False, True)
        cache = AsyncCache(default_ttl=0)
        await cache.get("default", returns(1), ttl=None)
        await cache.get("long", returns(1), ttl=3600)
        assert ("long" in cache.cache, "default" in cache.cache) == (True, False)

    run(main())


@pytest.mark.parametrize("mapping", [True, False], ids=["dict", "list"])
def test_a_batch_loader_returns_a_dict_or_a_list(run: Run, store: MakeCache, mapping: bool) -> None:
    async def main() -> None:
        async def load(keys: list[str]) -> dict[str, str] | list[str]:
            assert isinstance(keys, list)
            return {key: key * 2 for key in keys} if mapping else [key * 2 for key in keys]

        cache = store()
        got = await asyncio.gather(*(cache.get(key, batch_loader=load) for key in "abc"))
        assert got == ["aa", "bb", "cc"]
        assert await cache.get("b") == "bb"

    run(main())


def test_a_key_that_the_batch_loaders_mapping_lacks_is_none(run: Run) -> None:
    async def main() -> None:
        async def load(keys: list[str]) -> dict[str, int]:
            return {"a": 1}

        cache = AsyncCache()
        assert await asyncio.gather(*(cache.get(key, batch_loader=load) for key in "ab")) == [1, None]
        assert "b" in cache.cache

    run(main())


def test_seven_keys_in_batches_of_three_are_three_three_and_one(run: Run) -> None:
    async def main() -> None:
        batches: list[list[int]] = []

        async def load(keys: list[int]) -> list[int]:
            batches.append(list(keys))
            return keys

        cache = AsyncCache(max_batch_size=3)
        assert await asyncio.gather(*(cache.get(key, batch_loader=load) for key in range(7))) == list(
            range(7)
        )
        assert batches == [[0, 1, 2], [3, 4, 5], [6]]
        stats = cache.stats()
        assert (stats["batches"], stats["batched_keys"]) == (3, 7)

    run(main())


def test_batches_group_by_loader_identity(run: Run) -> None:
    async def main() -> None:
        one, two = Load(), Load()
        cache = AsyncCache(batch_window_ms=NEVER_MS, max_batch_size=2)
        callers = [
            task(cache.get(key, batch_loader=load))
            for key, load in (("a", one), ("b", two), ("c", one), ("d", two))
        ]
        await joined(*callers)
        assert (one.keys, two.keys) == ([["a", "c"]], [["b", "d"]])
        one.answer([1, 3])
        two.answer([2, 4])
        assert await asyncio.gather(*callers) == [1, 2, 3, 4]

    run(main())


def test_a_batch_does_not_ask_for_what_is_cached_or_in_flight(run: Run) -> None:
    async def main() -> None:
        cache, load = AsyncCache(batch_window_ms=NEVER_MS, max_batch_size=2), Load()
        cache.set("cached", 0)
        flying = [task(cache.get(key, batch_loader=load)) for key in "ab"]
        await load.called()
        more = [task(cache.get(key, batch_loader=load)) for key in ("cached", "a", "c", "d")]
        await load.called(2)
        assert load.keys == [["a", "b"], ["c", "d"]]
        load.answer([3, 4], 1)
        load.answer([1, 2], 0)
        assert await asyncio.gather(*flying, *more) == [1, 2, 0, 1, 3, 4]

    run(main())


def test_set_acts_at_once_and_may_be_awaited_or_not(run: Run, store: MakeCache) -> None:
    async def main() -> None:
        cache = store()
        cache.set("now", 1)
        assert "now" in cache.cache
        returned: Any = cache.set("awaited", 2)
        assert await returned is None
        await asyncio.create_task(cache.set("task", 3))
        await asyncio.gather(cache.set("gathered", 4), cache.set("too", 5))
        assert [await cache.get(key) for key in ("now", "awaited", "task", "gathered", "too")] == [
            1,
            2,
            3,
            4,
            5,
        ]

    run(main())


def test_delete_acts_at_once_and_may_be_awaited_or_not(run: Run, store: MakeCache) -> None:
    async def main() -> None:
        cache = store()
        for key in "abc":
            cache.set(key, key)
        cache.delete("a")
        assert "a" not in cache.cache
        returned: Any = cache.delete("b")
        assert await returned is None
        await asyncio.create_task(cache.delete("c"))
        await cache.delete("was never there")
        cache.delete("was never there")
        assert len(cache.cache) == 0

    run(main())


def test_set_works_without_an_event_loop(store: MakeCache) -> None:
    cache = store()
    cache.set("k", 1)
    assert "k" in cache.cache
    cache.delete("k")
    assert "k" not in cache.cache


def test_set_with_ttl_none_never_expires_and_without_uses_the_default() -> None:
    cache = AsyncCache(default_ttl=0)
    cache.set("default", 1)
    cache.set("never", 1, ttl=None)
    cache.set("by position", 1, 3600)
    cache.set("int", 1, ttl=3600)
    cache.set("float", 1, ttl=3600.5)
    found = [key in cache.cache for key in ("default", "never", "by position", "int", "float")]
    assert found == [False, True, True, True, True]


@pytest.mark.parametrize("ttl", [0, 0.0, -1, -0.5, -(10**400)])
def test_a_ttl_of_zero_or_less_expires_at_once(run: Run, ttl: float) -> None:
    cache = AsyncCache()
    cache.set("k", "old")
    cache.set("k", "v", ttl=ttl)
    assert "k" not in cache.cache
    assert run(cache.get("k")) is None
    assert cache.get_metrics()["size"] == 0


def test_an_entry_is_served_until_its_ttl_is_over_and_not_after(run: Run) -> None:
    cache = AsyncCache()
    before = time.monotonic()
    cache.set("k", "v", ttl=0.2)
    deadline = time.monotonic() + 0.2
    served, asked_at = 0, before
    while run(cache.get("k")) == "v":
        served += 1
        assert asked_at < deadline + 0.15
        asked_at = time.monotonic()
    assert served > 0
    assert time.monotonic() >= before + 0.2
    assert "k" not in cache.cache


@pytest.mark.parametrize("ttl", [float("nan"), float("inf"), -float("inf")])
def test_a_ttl_that_is_no_finite_number_is_a_value_error(run: Run, ttl: float) -> None:
    cache = AsyncCache()
    with pytest.raises(ValueError, match="ttl"):
        cache.set("k", 1, ttl=ttl)
    with pytest.raises(ValueError, match="ttl"):
        run(_call(lambda: cache.get("k", returns(1), ttl=ttl)))
    with pytest.raises(ValueError, match="ttl"):
        AsyncCache(default_ttl=ttl)
    with pytest.raises(ValueError, match="ttl|time_to_live"):
        AsyncTTL(time_to_live=ttl)
    assert "k" not in cache.cache


@pytest.mark.parametrize("ttl", ["1", True, False, [1], 1j])
def test_a_ttl_that_is_no_number_is_a_type_error(run: Run, ttl: Any) -> None:
    cache = AsyncCache()
    with pytest.raises(TypeError, match="ttl"):
        cache.set("k", 1, ttl=ttl)
    with pytest.raises(TypeError, match="ttl"):
        run(_call(lambda: cache.get("k", returns(1), ttl=ttl)))
    with pytest.raises(TypeError, match="ttl"):
        AsyncCache(default_ttl=ttl)
    assert "k" not in cache.cache


def test_a_negative_maxsize_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="maxsize"):
        AsyncCache(maxsize=-1)
    with pytest.raises(ValueError, match="maxsize"):
        AsyncLRU(maxsize=-1)


def test_a_loader_that_is_not_callable_is_a_type_error(run: Run) -> None:
    cache = AsyncCache()
    not_a_loader: Any = 7
    with pytest.raises(TypeError, match="loader"):
        run(_call(lambda: cache.get("k", not_a_loader)))
    with pytest.raises(TypeError, match="loader"):
        run(_call(lambda: cache.get("k", batch_loader=not_a_loader)))


def test_a_remote_cache_is_a_backend() -> None:
    something: Any = object()
    with pytest.raises(TypeError, match="remote_cache is a RedisBackend, or another RemoteCacheBackend"):
        AsyncCache(remote_cache=something)


def test_clear_removes_everything_and_resets_the_metrics(run: Run, store: MakeCache) -> None:
    async def main() -> None:
        cache = store()
        await cache.get("k", returns(1))
        await cache.get("k")
        cache.clear()
        assert cache.get_metrics() == {"hits": 0, "misses": 0, "size": 0, "hit_rate": 0.0}
        assert await cache.get("k") is None

    run(main())


def test_warmup_loads_what_is_missing(run: Run, store: MakeCache) -> None:
    async def main() -> None:
        cache, calls = store(), []

        def loader(key: str) -> Callable[[], Awaitable[str]]:
            async def load() -> str:
                calls.append(key)
                return key.upper()

            return load

        cache.set("b", "as it was")
        await cache.warmup({key: loader(key) for key in "abc"})
        assert sorted(calls) == ["a", "c"]
        assert [await cache.get(key) for key in "abc"] == ["A", "as it was", "C"]

    run(main())


def test_warmup_raises_the_error_of_a_loader(run: Run) -> None:
    async def main() -> None:
        error = ValueError("no")

        async def load() -> None:
            raise error

        assert await outcome(AsyncCache().warmup({"k": load})) is error

    run(main())


def test_without_a_backup_saving_and_loading_do_nothing(run: Run) -> None:
    async def main() -> None:
        cache = AsyncCache()
        cache.set("k", 1)
        cache.save_to_backup()
        await cache.save_to_backup_async()
        cache.load_from_backup()
        assert await cache.get("k") == 1

    run(main())


def test_in_does_not_promote_and_an_expired_entry_is_not_in(store: MakeCache) -> None:
    cache = store(maxsize=2)
    cache.set("a", 1)
    cache.set("b", 2)
    assert "a" in cache.cache
    cache.set("c", 3)
    assert ["a" in cache.cache, "b" in cache.cache, "c" in cache.cache] == [False, True, True]
    cache.set("b", 2, ttl=0)
    assert "b" not in cache.cache
    assert len(cache.cache) == 1


def test_the_least_recently_used_entry_makes_room(run: Run, store: MakeCache) -> None:
    async def main() -> None:
        cache = store(maxsize=3)
        for key in "abc":
            cache.set(key, key)
        await cache.get("a")
        cache.set("b", "again")
        cache.set("d", "d")
        assert [key in cache.cache for key in "abcd"] == [True, True, False, True]
        assert cache.stats()["evictions"] == 1

    run(main())


def test_a_maxsize_of_zero_keeps_nothing(run: Run) -> None:
    async def main() -> None:
        cache = AsyncCache(maxsize=0)
        assert await cache.get("k", returns(1)) == 1
        cache.set("s", 1)
        assert len(cache.cache) == 0
        assert await cache.get("k", returns(2)) == 2

    run(main())


def test_a_maxsize_of_none_keeps_everything() -> None:
    cache = AsyncCache(maxsize=None)
    for number in range(5_000):
        cache.set(number, number)
    assert len(cache.cache) == 5_000


def test_stats_has_all_counters(run: Run) -> None:
    cache = AsyncCache()
    run(cache.get("k", returns(1)))
    stats = cache.stats()
    assert set(stats) >= {
        *("hits", "misses", "size", "hit_rate", "loads", "load_errors", "load_time", "joined", "batches"),
        *("batched_keys", "evictions", "expirations", "fenced", "cold_hits", "undecodable", "saves", "cold"),
    }
    assert (stats["loads"], stats["load_errors"]) == (1, 0)
    assert isinstance(stats["load_time"], float)


async def _call(function: Callable[[], Awaitable[Any]]) -> Any:
    return await function()
