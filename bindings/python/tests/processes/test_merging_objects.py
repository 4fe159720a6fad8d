"""Merging saves of caches whose keys are objects, and the warnings of saves about dropped entries.

Only Python can compare these keys, so their entries are merged by separate code (`src/eager.rs`),
whose results must equal those of the code for keys with canonical bytes. Three faults found by the
oracle (`test_merging_oracle.py`):

- a file taken in by a cache with entries was added as if no key was in both, so entries stayed out
  although there was room for them;
- a cache that had opened a file with object keys did not know that it had the whole file: entries
  that it evicted came back with its next save;
- a later entry with an object key that was dropped from the file for lack of room, or had expired,
  left no mark: an earlier entry of a third process came back.
"""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

import pytest
from stores import MemoryBackend
from test_merging_oracle import Object

from cache import AsyncCache, CacheBackend, CacheWarning, DiskBackend

# More deletes than a cache and a file can record.
MANY = 70_000


def cache_on(path: Path, maxsize: int | None = None, **options: Any) -> AsyncCache:
    return AsyncCache(maxsize=maxsize, backup=DiskBackend(path, **options))


def content(path: Path) -> dict[Any, Any]:
    return {key: value for key, (value, _) in DiskBackend(path).load().items()}


def save_silently(cache: AsyncCache) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache.save_to_backup()


def delete_many(cache: AsyncCache) -> None:
    for number in range(MANY):
        cache.delete(f"deleted {number}")


def test_keys_that_are_in_memory_and_in_the_file_take_room_once(path: Path) -> None:
    first = cache_on(path)
    cache = cache_on(path, maxsize=3)
    for key in "abc":
        first.set(key, "theirs")
    save_silently(first)
    cache.set("b", "ours")
    cache.set("c", "ours")
    cache.load_from_backup()
    assert [cache.contains(key) for key in "abc"] == [True, True, True]
    cache.set("d", "ours")
    assert [cache.contains(key) for key in "abcd"] == [False, True, True, True]


def test_what_does_not_fit_beside_what_is_in_memory_stays_away_the_coldest_first(path: Path) -> None:
    first = cache_on(path)
    for key in "abcd":
        first.set(key, "theirs")
    cache = cache_on(path, maxsize=3)
    save_silently(first)
    cache.set("x", "ours")
    cache.set("d", "ours")
    cache.load_from_backup()
    assert [cache.contains(key) for key in "abcdx"] == [False, False, True, True, True]


def test_what_a_cache_evicts_from_the_file_that_it_has_opened_does_not_come_back(path: Path) -> None:
    first = cache_on(path)
    for key in (Object(1), Object(2), "plain"):
        first.set(key, "old")
    save_silently(first)
    cache = cache_on(path, maxsize=3)
    for number in (3, 4):
        cache.set(Object(number), "new")
    cache.delete(Object(4))
    save_silently(cache)
    assert content(path) == {Object(2): "old", Object(3): "new"}
    assert cache.stats()["dropped"] == 0


def superseded(path: Path, **later: Any) -> tuple[AsyncCache, AsyncCache, AsyncCache]:
    """Three caches with values of one key. The second cache has room for two entries; the file has
    the third cache's value, the latest.
    """
    earliest, small, latest = cache_on(path), cache_on(path, maxsize=2), cache_on(path)
    earliest.set(Object(1), "earliest")
    small.set(Object(1, spelling=1), "earlier")
    small.set("kept", 0)
    latest.set("theirs", 0)
    latest.set(Object(1), "latest", **later)
    save_silently(latest)
    return earliest, small, latest


def test_a_later_value_that_had_to_make_room_keeps_earlier_ones_of_others_away(path: Path) -> None:
    earliest, small, _ = superseded(path)
    save_silently(small)
    assert small.stats()["dropped"] == 1
    assert content(path) == {"kept": 0, "theirs": 0}
    save_silently(earliest)
    assert content(path) == {"kept": 0, "theirs": 0}


def test_a_later_value_that_has_expired_keeps_earlier_ones_of_others_away(path: Path) -> None:
    earliest, small, latest = superseded(path, ttl=0.2)
    while latest.contains(Object(1)):
        time.sleep(0.001)
    save_silently(small)
    assert content(path) == {"kept": 0, "theirs": 0}
    save_silently(earliest)
    assert content(path) == {"kept": 0, "theirs": 0}


def test_a_value_that_was_refused_once_keeps_earlier_ones_away_also_from_another_file(path: Path) -> None:
    earliest, small, _ = superseded(path)
    save_silently(small)
    assert small.stats()["dropped"] == 1
    path.unlink()
    save_silently(earliest)
    assert content(path) == {Object(1): "earliest"}
    save_silently(small)
    save_silently(earliest)
    assert content(path) == {"kept": 0}


def test_objects_of_ours_that_are_not_written_take_no_room(path: Path) -> None:
    cache, other = cache_on(path, maxsize=2), cache_on(path)
    for number in (1, 2):
        cache.set(Object(number), "deleted")
    for number in (1, 2):
        other.delete(Object(number, spelling=1))
    for number in (3, 4):
        other.set(Object(number), "theirs")
    save_silently(other)
    save_silently(cache)
    assert content(path) == {Object(3): "theirs", Object(4): "theirs"}
    assert cache.stats()["dropped"] == 0


def test_objects_of_others_make_room_before_plain_keys_and_the_coldest_first(path: Path) -> None:
    cache, other = cache_on(path, maxsize=4), cache_on(path)
    cache.set(Object(0), "ours")
    for key in (Object(1), Object(2), Object(3), "plain", "plainer"):
        other.set(key, "theirs")
    save_silently(other)
    with pytest.warns(CacheWarning, match="dropped 2 entries that were there, for maxsize is 4 here"):
        cache.save_to_backup()
    left = {Object(0): "ours", Object(3): "theirs", "plain": "theirs", "plainer": "theirs"}
    assert content(path) == left
    assert cache.stats()["dropped"] == 2


def test_objects_of_others_are_dropped_if_more_was_deleted_since_than_a_cache_remembers(path: Path) -> None:
    cache, other = cache_on(path), cache_on(path)
    other.set(Object(1), "theirs")
    save_silently(other)
    delete_many(cache)
    cache.set(Object(2), "ours")
    with pytest.warns(
        CacheWarning,
        match="1 entries that other processes had saved there were dropped: this process has deleted",
    ):
        cache.save_to_backup()
    assert content(path) == {Object(2): "ours"}
    assert cache.stats()["dropped"] == 1


def test_an_object_that_others_may_have_deleted_is_not_saved_and_the_save_says_so(path: Path) -> None:
    cache, other = cache_on(path), cache_on(path)
    cache.set(Object(1), "before the deletes")
    delete_many(other)
    save_silently(other)
    cache.set(Object(2), "after them")
    with pytest.warns(
        CacheWarning,
        match="1 entries were not saved; the first one is one that another process may have deleted",
    ):
        cache.save_to_backup()
    assert content(path) == {Object(2): "after them"}


def test_own_deletes_however_many_cost_a_cache_no_object_of_its_own(path: Path) -> None:
    cache = cache_on(path)
    cache.set(Object(1), "saved before")
    save_silently(cache)
    cache.set(Object(2), "not saved before")
    delete_many(cache)
    for _ in range(2):
        save_silently(cache)
        assert content(path) == {Object(1): "saved before", Object(2): "not saved before"}


FIVE: dict[str, list[Any]] = {"plain": list("abcde"), "objects": [Object(number) for number in range(5)]}


@pytest.mark.parametrize("keys", FIVE.values(), ids=FIVE.keys())
@pytest.mark.parametrize("is_own", [False, True], ids=["merge=False", "a backend of the user's own"])
def test_without_merging_a_cache_with_less_room_warns_once_and_counts_each_time(
    path: Path, keys: list[Any], is_own: bool
) -> None:
    backend: CacheBackend = MemoryBackend() if is_own else DiskBackend(path, merge=False)
    large = AsyncCache(maxsize=None, backup=backend)
    for key in keys:
        large.set(key, 0)
    save_silently(large)
    small = AsyncCache(maxsize=2, backup=backend)
    with pytest.warns(
        CacheWarning, match="dropped 3 entries that were there, for maxsize is 2 here"
    ) as warned:
        small.save_to_backup()
    assert len(warned) == 1
    assert small.stats()["dropped"] == 3
    save_silently(small)
    assert small.stats()["dropped"] == 3, "the file has no more than it by now"
    save_silently(large)
    small.load_from_backup()
    save_silently(small)
    assert small.stats()["dropped"] == 6
    assert len(backend.load()) == 2
