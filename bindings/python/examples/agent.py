"""An agent loop over real tools: a folder of Python files, and a SQLite database of findings about
them.

    python agent.py [--folder FOLDER]

The model is a script, so that the example runs anywhere: it looks into files, asks for some of them
twice, writes its findings, and then gets stuck. A framework works in the same way: the tools are
async functions, and their errors are returned to the model. A file is read from the disk once per
session, a write to the database makes results of earlier queries stale, and the loop is reported to
the model, which finishes.

The number of definitions in a file is the same for all sessions and never changes, so it is kept in
a global cache with a file: the second run does not count again.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import sqlite3
import tempfile
from collections.abc import Awaitable, Callable, Generator
from pathlib import Path
from typing import Any

from agent_cache import (
    AgentCache,
    AgentCacheInvalidator,
    AgentCacheSession,
    AgentLoopDetectedError,
    get_metrics,
)
from cache import DiskBackend

SOURCES = Path(ast.__file__).parent / "json"


class Tools:
    """The tools of the model, by name."""

    def __init__(self, folder: Path) -> None:
        self.ran = 0
        database = sqlite3.connect(folder / "findings.sqlite", check_same_thread=False)
        database.execute("CREATE TABLE IF NOT EXISTS findings (path TEXT PRIMARY KEY, definitions INTEGER)")

        @AgentCache(resource="sources", scope="session")
        async def list_files(pattern: str) -> list[str]:
            self.ran += 1
            return sorted(path.name for path in SOURCES.glob(pattern))

        @AgentCache(resource="sources", scope="session")
        async def read_file(path: str) -> str:
            self.ran += 1
            return await asyncio.to_thread((SOURCES / path).read_text)

        @AgentCache(resource="definitions", scope="global", backup=DiskBackend(folder / "definitions.cache"))
        async def count_definitions(path: str) -> int:
            self.ran += 1
            text = await read_file(path)
            kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
            return sum(isinstance(node, kinds) for node in ast.walk(ast.parse(text)))

        @AgentCache(resource="findings", scope="session")
        async def query(sql: str) -> list[Any]:
            self.ran += 1
            return [list(row) for row in database.execute(sql)]

        @AgentCacheInvalidator(resource="findings")
        async def note(path: str, definitions: int) -> str:
            self.ran += 1
            with database:
                database.execute("INSERT OR REPLACE INTO findings VALUES (?, ?)", (path, definitions))
            return "noted"

        self.count_definitions = count_definitions
        self.by_name: dict[str, Callable[..., Awaitable[Any]]] = {
            tool.__name__: tool for tool in (list_files, read_file, count_definitions, query, note)
        }


def model() -> Generator[tuple[str, dict[str, Any]], Any, Any]:
    """A model that follows a script: receives the result of its last call, and yields the next
    call.
    """
    files = yield "list_files", {"pattern": "*.py"}
    for path in files:
        definitions = yield "count_definitions", {"path": path}
        yield "note", {"path": path, "definitions": definitions}
        yield "query", {"sql": "SELECT count(*) FROM findings"}
    # The model forgot that it has read them.
    for path in files:
        yield "read_file", {"path": path}
        yield "read_file", {"path": path}
    # Now the model is stuck: it asks, checks, asks, checks.
    while True:
        answer = yield "query", {"sql": "SELECT sum(definitions) FROM findings"}
        if "error" in answer:
            return answer
        answer = yield "list_files", {"pattern": "*.py"}
        if "error" in answer:
            return answer


async def run_agent(tools: Tools) -> tuple[int, Any]:
    """Makes the calls of the model until the model has finished: the number of calls, and the last
    answer.
    """
    script = model()
    calls = 0
    name, arguments = next(script)
    while True:
        calls += 1
        try:
            result = await tools.by_name[name](**arguments)
        except AgentLoopDetectedError as loop:
            result = loop.to_dict()
        try:
            name, arguments = script.send(result)
        except StopIteration as done:
            return calls, done.value


async def main(folder: Path) -> None:
    """Two conversations, one after another."""
    tools = Tools(folder)
    for number in (1, 2):
        before = tools.ran
        async with AgentCacheSession(f"conversation {number}", loop_detection=True) as session:
            calls, last = await run_agent(tools)
        print(f"conversation {number}: {calls} calls, {tools.ran - before} of them ran a tool")
        print(
            f"  the model was told: {last['kind']} of {' -> '.join(call['tool'] for call in last['cycle'])}"
        )
        print(f"  {session.get_metrics()}")
    print(f"from the file: {tools.count_definitions.stats()['cold_hits']}")
    print(f"all in all: {get_metrics()}")
    tools.count_definitions.save_to_backup()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="An agent loop over real tools.")
    parser.add_argument("--folder", type=Path, help="where the database and the cache are kept")
    given = parser.parse_args().folder
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        asyncio.run(main(given))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            asyncio.run(main(Path(temporary)))
