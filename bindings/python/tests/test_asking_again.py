"""A call that loads of others bring nothing again and again loads with its own loader in the end.

The story: a call that joins a load on another event loop asks again when that load is cancelled there. If another
load was running by then, the call joined that one, and so on without an end: as long as loads of the key were begun
and cancelled elsewhere, the call waited, and its own loader never ran.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from loops import Run, new_loop, turns, until

from cache import AsyncCache, AsyncLRU, CacheWarning, LoadCancelledError


class Elsewhere:
    """An event loop on a thread of its own, with loads of a key that go on until they are cancelled or told to end."""

    def __init__(self, kind: str) -> None:
        self.loop = new_loop(kind)
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self._task: asyncio.Task[Any] | None = None
        self._end: asyncio.Event | None = None

    def begin(self, get: Callable[[Any], Any]) -> Any:
        """Begins a load, and returns when its loader runs; the future of its call."""
        runs = threading.Event()

        async def load() -> str:
            self._task, self._end = asyncio.current_task(), asyncio.Event()
            runs.set()
            await self._end.wait()
            return "elsewhere"

        call = asyncio.run_coroutine_threadsafe(_awaited(get(load)), self.loop)
        assert runs.wait(30)
        return call

    def cancel(self, call: Any) -> None:
        """Cancels the load that runs."""
        self.loop.call_soon_threadsafe(self._task.cancel)  # type: ignore[union-attr]
        with pytest.raises(LoadCancelledError):
            call.result(30)

    def end(self, call: Any) -> Any:
        """Ends the load that runs, and returns what its call gets."""
        self.loop.call_soon_threadsafe(self._end.set)  # type: ignore[union-attr]
        return call.result(30)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(30)
        assert not self._thread.is_alive()
        self.loop.close()


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


@pytest.fixture
def elsewhere(run: Run) -> Iterator[Elsewhere]:
    one = Elsewhere(run.kind)
    yield one
    one.close()


@pytest.mark.parametrize("is_function", [True, False])
def test_loads_that_are_cancelled_on_another_loop_do_not_keep_a_call_from_loading(
    run: Run, elsewhere: Elsewhere, is_function: bool
) -> None:
    cache = AsyncCache()
    own: list[str] = []

    async def load_here() -> str:
        own.append("here")
        return "here"

    loader: list[Any] = [load_here]

    @AsyncLRU()
    async def function() -> Any:
        return await loader[0]()

    def get(load: Any) -> Any:
        if not is_function:
            return cache.get("key", load)
        loader[0] = load
        return function()

    def joined() -> int:
        stats = function.stats() if is_function else cache.stats()
        count: int = stats["joined"]
        return count

    async def main() -> None:
        theirs = elsewhere.begin(get)
        loader[0] = load_here
        mine = asyncio.ensure_future(_awaited(get(load_here)))
        await until(lambda: joined() == 1)
        for _ in range(20):
            assert not own and not mine.done()
            # The load is cancelled, and the next one runs, before this loop turns and the call asks again.
            so_far = joined()
            elsewhere.cancel(theirs)
            theirs = elsewhere.begin(get)
            loader[0] = load_here
            await until(lambda so_far=so_far: bool(own) or joined() > so_far)  # type: ignore[misc]
            if own:
                break
        assert await asyncio.wait_for(mine, 30) == "here"
        assert own == ["here"]
        # What was overtaken answers its own caller, and is not stored.
        assert elsewhere.end(theirs) == "elsewhere"
        assert await get(load_here) == "here"
        assert own == ["here"]

    run(main())


def test_calls_whose_results_are_read_once_all_load_and_are_all_answered(run: Run) -> None:
    """They share nothing, so each is answered by a load of its own, whoever joins whom."""

    async def main() -> None:
        runs: list[int] = []

        class Stream:
            def __init__(self) -> None:
                self.body_iterator = iter([b"a"])

        @AsyncLRU()
        async def stream() -> Stream:
            runs.append(1)
            await turns(2)
            return Stream()

        with pytest.warns(CacheWarning, match="stream"):
            results = await asyncio.wait_for(asyncio.gather(*(stream() for _ in range(12))), 30)
        assert [list(result.body_iterator) for result in results] == [[b"a"]] * 12
        assert len(runs) == 12
        assert stream.get_metrics()["size"] == 0

    run(main())
