"""`per_instance=True`: the results of a method are kept for each object, by identity, as long as
the object lives.

The worst possible fault: a new object at the address of a dead object gets the dead object's
results.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from typing import Any

from per_instance import Base, Repository, run
from per_instance import nothing_is_left as nothing_is_left

from cache import AsyncLRU


def test_an_object_that_dies_takes_its_entries_along_and_no_others() -> None:
    async def calls() -> None:
        one, two = Repository("one"), Repository("two")
        for number in range(200):
            await one.row(number)
            await one.row(number, verbose=True)
            await Repository.row(self=one, number=number)
        await one.row([1, 2])  # type: ignore[call-overload]
        await two.row(1)
        assert Repository.row.get_metrics()["size"] == 602
        watched = weakref.ref(one)
        del one
        assert watched() is None
        assert Repository.row.get_metrics()["size"] == 1
        assert await two.row(1) == ("two", 1, 1)
        assert Repository.row.get_metrics()["hits"] == 1

    run(calls())


def test_a_result_that_refers_to_nothing_keeps_its_object_alive_no_longer_than_its_load() -> None:
    async def calls() -> None:
        gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        class Slow:
            @AsyncLRU(per_instance=True)
            async def get(self) -> str:
                await gate
                return "value"

        one = Slow()
        watched = weakref.ref(one)
        task = asyncio.ensure_future(one.get())
        del one
        await asyncio.sleep(0)
        assert watched() is not None
        gate.set_result(None)
        assert await task == "value"
        del task
        for _ in range(3):
            await asyncio.sleep(0)
        gc.collect()
        assert watched() is None
        assert Slow.get.get_metrics()["size"] == 0

    run(calls())


def test_a_new_object_at_a_reused_address_is_never_served_the_entries_of_a_dead_one() -> None:
    addresses = set()
    reused = 0

    async def calls() -> None:
        nonlocal reused
        for number in range(5000):
            one = Repository(str(number))
            reused += id(one) in addresses
            addresses.add(id(one))
            assert await one.row(7) == (str(number), 7, 1)
            assert await one.row(7) == (str(number), 7, 1)
            if number % 7 == 0:
                one.me = one  # type: ignore[attr-defined] # the collector's
            if number % 1000 == 0:
                gc.collect()

    run(calls())
    assert reused > 500
    gc.collect()
    assert Repository.row.get_metrics()["size"] <= 1


def test_an_object_that_is_brought_back_by_its_finalizer_is_right_or_new_and_never_another() -> None:
    saved: list[Any] = []

    class Phoenix(Base):
        @AsyncLRU(per_instance=True)
        async def get(self) -> str:
            return self.name

        def __del__(self) -> None:
            if len(saved) < 100:
                saved.append(self)

    async def calls() -> None:
        for number in range(200):
            one = Phoenix(str(number))
            if number % 2:
                one.me = one  # type: ignore[attr-defined]
            assert await one.get() == str(number)
            del one
            if number % 10 == 0:
                gc.collect()
            for back in saved:
                assert await back.get() == back.name

    run(calls())


def test_an_object_that_dies_in_a_cycle_takes_its_entries_along() -> None:
    async def calls() -> None:
        one = Repository()
        one.me = one  # type: ignore[attr-defined]
        await one.row(1)
        del one
        gc.collect()
        assert Repository.row.get_metrics()["size"] == 0

    run(calls())


def test_a_long_chain_of_objects_that_hold_each_other_through_results_goes_without_recursion() -> None:
    class Link:
        @AsyncLRU(maxsize=None, per_instance=True)
        async def next(self, link: Any) -> list[Any]:
            made: list[Any] = links.pop()
            return made

    links: list[Any] = []

    async def calls() -> None:
        first = link = Link()
        for _ in range(20_000):
            links.append([Link()])
            link = (await link.next(None))[0]
        assert Link.next.get_metrics()["size"] == 20_000
        del link, first
        assert Link.next.get_metrics()["size"] == 0

    run(calls())


def test_a_decorated_function_goes_while_its_objects_live_and_the_other_way_round() -> None:
    def make() -> Any:
        class Local:
            @AsyncLRU(per_instance=True)
            async def get(self) -> Any:
                return type(self)

        return Local

    async def calls() -> None:
        cls = make()
        one = cls()
        await one.get()
        watched = weakref.ref(cls.__dict__["get"])
        seen = weakref.ref(one)
        del cls, one
        gc.collect()
        assert watched() is None
        assert seen() is None

        function = AsyncLRU(per_instance=True)(loader)
        one = Base("a")
        await function(one)
        watched = weakref.ref(function)
        del function
        gc.collect()
        assert watched() is None
        del one

    async def loader(one: Base) -> str:
        return one.name

    run(calls())


def test_what_is_remembered_of_a_long_living_object_is_bounded() -> None:
    class Counter(Base):
        @AsyncLRU(maxsize=10, per_instance=True)
        async def get(self, number: int) -> int:
            return number

    async def calls() -> None:
        one = Counter()
        for number in range(2000):
            assert await one.get(number) == number
        assert Counter.get.get_metrics()["size"] == 10
        assert await one.get(1999) == 1999
        assert Counter.get.get_metrics()["hits"] == 1
        del one
        assert Counter.get.get_metrics()["size"] == 0

    run(calls())


def test_threads_with_objects_that_come_and_go_see_their_own_results_only() -> None:
    wrong: list[Any] = []
    shared = [Repository(str(number)) for number in range(5)]
    barrier = threading.Barrier(4)

    async def calls(thread: int) -> None:
        for number in range(1000):
            one = Repository(f"{thread} {number}")
            first = await one.row(number % 3)
            if first != (f"{thread} {number}", number % 3, 1) or await one.row(number % 3) != first:
                wrong.append(first)
            there = shared[number % 5]
            name, _, _ = await there.row(1)
            if name != there.name:
                wrong.append(name)

    def work(thread: int) -> None:
        barrier.wait(60)
        try:
            asyncio.run(calls(thread))
        except BaseException as error:
            wrong.append(error)
            raise

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    assert wrong == []
    gc.collect()
    assert Repository.row.get_metrics()["size"] == 5
    shared.clear()
    assert Repository.row.get_metrics()["size"] == 0
