"""A value cached in one session is never served in another, whatever the interleaving.

Tasks enter sessions with the same and different ids, nested and not, call tools, are cancelled,
write, and continue after the end of their session, at random. Every value names the session of its
load, and every caller checks the name.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
from dataclasses import dataclass
from typing import Any

import pytest
from loops import Run

from agent_cache import AgentCache, AgentCacheInvalidator, AgentCacheSession
from agent_cache._registry import registry
from cache import _native

ROUNDS = int(os.environ.get("ASYNC_CACHE_ROUNDS", "60"))
SEEDS = [int(os.environ["ASYNC_CACHE_SEED"])] if "ASYNC_CACHE_SEED" in os.environ else range(ROUNDS)


@dataclass(frozen=True)
class Value:
    """The result of a tool: its argument, the session of its load, and the number of writes
    before.
    """

    argument: int
    session: _native.AgentSession | None
    writes: int


class World:
    """Tools, and the known facts about them."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.writes = 0
        self.served = 0
        self.left_behind: list[asyncio.Task[Any]] = []

        @AgentCache(resource=f"world {seed}", scope="session", maxsize=self.dice.choice([1, 3, None]))
        async def read(argument: int) -> Value:
            writes = self.writes
            for _ in range(self.dice.randrange(4)):
                await asyncio.sleep(0)
            return Value(argument, here(), writes)

        @AgentCacheInvalidator(resource=f"world {seed}", scope="session")
        async def write() -> None:
            await asyncio.sleep(0)
            self.writes += 1
            await asyncio.sleep(0)

        self.read, self.write = read, write

    async def act(self, depth: int = 0) -> None:
        """One task, for some steps."""
        for _ in range(self.dice.randrange(2, 7)):
            step = self.dice.random()
            if step < 0.55:
                await self.call()
            elif step < 0.65:
                await self.write()
            elif step < 0.85 and depth < 3:
                name = self.dice.choice(["a", "b", None])
                async with AgentCacheSession(name, loop_detection=self.dice.random() < 0.5, on_loop="warn"):
                    await self.act(depth + 1)
            elif depth < 3:
                tasks = [asyncio.create_task(self.act(depth + 1)) for _ in range(2)]
                if self.dice.random() < 0.3:
                    await asyncio.sleep(0)
                    tasks[0].cancel()
                if self.dice.random() < 0.7:
                    await asyncio.gather(*tasks, return_exceptions=True)
                else:
                    self.left_behind += tasks
            await asyncio.sleep(0)

    async def call(self) -> None:
        argument = self.dice.randrange(4)
        session, writes = here(), self.writes
        known = session is not None and session.is_open
        value = await self.read(argument)
        self.served += 1
        assert value.argument == argument
        assert value.session is session, "a value of another session"
        if not known:
            assert value.writes >= writes, "outside of sessions nothing is kept"


def here() -> _native.AgentSession | None:
    """The session of the running code, ended or not."""
    frame = _native.current_agent_frame()
    return None if frame is None else frame.session


@pytest.mark.parametrize("seed", SEEDS)
def test_a_value_of_one_session_is_never_served_in_another(seed: int) -> None:
    run = Run("asyncio")
    world = World(seed)

    async def main() -> None:
        tasks = [asyncio.create_task(world.act()) for _ in range(6)]
        try:
            await asyncio.gather(*tasks)
            while world.left_behind:
                with contextlib.suppress(asyncio.CancelledError):
                    await world.left_behind.pop()
        finally:
            assert world.served > 0

    run(main())
    gc.collect()
    assert run.complaints == []
    assert registry.sessions() == []
    assert world.read.get_metrics()["size"] == 0


def test_the_random_programs_do_hit() -> None:
    """Otherwise the property above would hold for a tool that caches nothing."""
    cached = 0
    for seed in range(20):
        world = World(seed)

        async def main(world: World = world) -> None:
            await asyncio.gather(*(world.act() for _ in range(6)))
            await asyncio.gather(*world.left_behind, return_exceptions=True)

        Run("asyncio")(main())
        cached += int(world.read.get_metrics()["hits"])
    assert cached > 50
