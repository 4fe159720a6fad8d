"""An MCP server whose tools are cached, and whose clients cannot run in circles.

    pip install mcp
    python agent_mcp.py

The server's lifespan is a session, so each connection has its own: files read by its tools are
cached for the one client, a write makes them stale, and a client that repeats a call again and
again gets the loop reported as data. The client here runs in the same process and follows a script;
with a client over stdio or HTTP the server is the same.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mcp import Client
from mcp.server.mcpserver import MCPServer

from agent_cache import AgentCache, AgentCacheInvalidator, AgentCacheSession, AgentLoopDetectedError


def make_server(folder: Path) -> tuple[MCPServer, list[str], list[AgentCacheSession]]:
    """The server, the paths read from the disk so far, and the sessions of the clients."""
    from_disk: list[str] = []
    sessions: list[AgentCacheSession] = []

    @asynccontextmanager
    async def lifespan(_: MCPServer) -> AsyncIterator[None]:
        async with AgentCacheSession(loop_detection=True, max_tool_repeats=3) as session:
            sessions.append(session)
            yield

    server = MCPServer("notes", lifespan=lifespan)

    @AgentCache(resource="notes", scope="session")
    async def read_note(name: str) -> str:
        """The text of a note."""
        from_disk.append(name)
        return await asyncio.to_thread((folder / name).read_text)

    @AgentCacheInvalidator(resource="notes", scope="session")
    async def write_note(name: str, text: str) -> str:
        """Replaces the text of a note."""
        await asyncio.to_thread((folder / name).write_text, text)
        return "written"

    async def read_or_tell(name: str) -> dict[str, Any]:
        """Reads a note."""
        try:
            return {"text": await read_note(name)}
        except AgentLoopDetectedError as loop:
            return loop.to_dict()

    server.tool(name="read_note")(read_or_tell)
    server.tool()(write_note)
    return server, from_disk, sessions


async def main() -> None:
    """A client that follows a script."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "todo").write_text("milk")
        server, from_disk, sessions = make_server(Path(folder))
        async with Client(server) as client:
            tools = await client.list_tools()
            print("tools:", ", ".join(tool.name for tool in tools.tools))

            async def read() -> Any:
                return (await client.call_tool("read_note", {"name": "todo"})).structured_content

            print("first:", (await read())["text"], "| again:", (await read())["text"])
            print("reads from the disk:", len(from_disk))
            await client.call_tool("write_note", {"name": "todo", "text": "bread"})
            print("after a write:", (await read())["text"])
            answers = [await read() for _ in range(4)]
            [told] = [answer for answer in answers if "error" in answer][:1]
            print("stuck:", told["message"])
        print("metrics:", sessions[0].get_metrics())


if __name__ == "__main__":
    asyncio.run(main())
