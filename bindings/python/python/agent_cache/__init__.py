"""Caching for tools of AI agents: shared or kept to one session, invalidated by writes, loop-safe.

>>> from agent_cache import AgentCache, AgentCacheInvalidator, AgentCacheSession
>>> @AgentCache(resource="files", scope="session")
... async def read_file(path): ...
>>> @AgentCacheInvalidator(resource="files", scope="session")
... async def write_file(path, text): ...
>>> async with AgentCacheSession(loop_detection=True) as session:
...     await run_agent()
>>> session.get_metrics()
"""

from .errors import AgentLoopDetectedError
from .invalidator import AgentCacheInvalidator
from .metrics import get_metrics, stats
from .session import AgentCacheSession
from .tool import AgentCache

__all__ = [
    "AgentCache",
    "AgentCacheInvalidator",
    "AgentCacheSession",
    "AgentLoopDetectedError",
    "get_metrics",
    "stats",
]
