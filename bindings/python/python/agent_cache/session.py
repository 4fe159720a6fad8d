"""`AgentCacheSession`: the scope in which the tools of one agent or one conversation are called."""

from __future__ import annotations

import functools
import inspect
import logging
import operator
import uuid
from types import TracebackType
from typing import Any

from cache import _native

from . import metrics
from ._registry import registry
from .errors import AgentLoopDetectedError

logger = logging.getLogger("agent_cache")

_ON_LOOP = ("raise", "warn", "short_circuit")

_Asked = tuple[Any, tuple[Any, ...], dict[str, Any]]


class AgentCacheSession:
    """A session: ``async with AgentCacheSession() as session``. Applies to the code inside, and to
    tasks made there.

    Results of tools with scope "session" are cached in the session and end with it. The same
    `session_id` in several places at a time is one session, which ends when the last place leaves.
    Without an id, a session is separate from all others. If sessions are nested, the innermost
    session applies. Leaving never waits: a call that is still running answers its callers, and
    stores nothing.

    With `loop_detection`, calls of tools are checked for three kinds of loops: the same call with
    the same result more than `max_tool_repeats` times in a row; a cycle of 2 to 8 calls that
    continues after half as many rounds (3 for 5, and at least 2); tools called inside tools more
    than `max_execution_depth` deep. `on_loop` selects the reaction: ``"raise"`` raises an
    `AgentLoopDetectedError`, ``"warn"`` logs a warning and continues, ``"short_circuit"`` returns
    the cached result, or ``None``, without running the tool. The same call with a different result
    is progress, unless `consider_results` is false. A session without loop detection, nested in a
    session with loop detection, is checked by the outer session.
    """

    def __init__(
        self,
        session_id: str | None = None,
        loop_detection: bool = False,
        max_tool_repeats: int = 5,
        max_execution_depth: int = 50,
        on_loop: str = "raise",
        *,
        consider_results: bool = True,
    ) -> None:
        if session_id is not None and (not isinstance(session_id, str) or not session_id):
            raise TypeError(f"session_id is a non-empty str, or None for one of its own, not {session_id!r}")
        self.session_id = session_id if session_id is not None else str(uuid.uuid4())
        self.loop_detection = bool(loop_detection)
        self.max_tool_repeats = _limit("max_tool_repeats", max_tool_repeats)
        self.max_execution_depth = _limit("max_execution_depth", max_execution_depth)
        if on_loop not in _ON_LOOP:
            raise ValueError(f"on_loop is one of {', '.join(map(repr, _ON_LOOP))}, not {on_loop!r}")
        self.on_loop = on_loop
        self.consider_results = bool(consider_results)
        self._session: _native.AgentSession | None = None
        self._entered = False
        self._entry: _native.AgentEntry | None = None
        self._frame: _native.AgentFrame | None = None

    def __repr__(self) -> str:
        return f"AgentCacheSession({self.session_id!r})"

    async def __aenter__(self) -> AgentCacheSession:
        if self._entered:
            raise RuntimeError(
                f"this AgentCacheSession object is entered already; to be in the session {self.session_id!r} in "
                "several places, make an AgentCacheSession with that id in each"
            )
        # Wherever an interrupt hits, the session is left: here, or when the entry is dropped.
        self._entry = _native.AgentEntry(registry, self.session_id)
        try:
            self._session = session = self._entry.enter()
            self._entered = True
            guard = None
            if self.loop_detection:
                on_alarm = functools.partial(
                    _on_alarm, self.on_loop, self.max_tool_repeats, self.max_execution_depth
                )
                guard = _native.AgentGuard(
                    session, self.max_tool_repeats, self.max_execution_depth, self.consider_results, on_alarm
                )
            self._frame = _native.AgentFrame(session, guard, _native.current_agent_frame())
            _native.set_current_agent_frame(self._frame)
        except BaseException:
            self._leave()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._entered or self._frame is None:
            raise RuntimeError("this AgentCacheSession object was not entered, or was left already")
        self._leave()

    def _leave(self) -> None:
        frame, entry = self._frame, self._entry
        self._entry = self._frame = None
        self._entered = False
        if frame is not None:
            # The task that leaves may not be the task that entered; then its context has no frame
            # of ours.
            is_here = _native.current_agent_frame() is frame
            around = frame.leave()
            if is_here:
                _native.set_current_agent_frame(around)
        ended = None if entry is None else entry.leave()
        if ended is not None:
            for kept in ended.close():
                # Running loads are fenced: they answer their waiting callers, and store nothing.
                kept.cache.remove_all()

    def get_metrics(self) -> dict[str, int | float]:
        """`hits`, `misses`, `invalidations`, `loop_detections` and `hit_rate` of the session, even
        after its end.

        If several places shared the session's id, all of them are counted.
        """
        if self._session is None:
            return metrics.with_hit_rate({"hits": 0, "misses": 0, "invalidations": 0, "loop_detections": 0})
        return metrics.with_hit_rate(self._session.counts())

    def stats(self) -> dict[str, Any]:
        """`get_metrics`, and the current counters of the session's caches. At the end of the
        session the caches are removed.
        """
        kept = [] if self._session is None else self._session.functions()
        return {**metrics.summed(one.cache for one in kept), **self.get_metrics()}


def _limit(name: str, limit: Any) -> int:
    if isinstance(limit, bool):
        raise TypeError(f"{name} is a number, not a bool")
    number = operator.index(limit)
    if not 1 <= number < 2**32:
        raise ValueError(f"{name} is 1 or more, not {limit}")
    return number


def _on_alarm(
    on_loop: str,
    max_tool_repeats: int,
    max_execution_depth: int,
    session: _native.AgentSession,
    kind: str,
    count: int,
    asked: _Asked,
    cycle: list[_Asked],
    is_empty: bool,
) -> bool:
    """The reaction of a guard to a loop; returns whether the call is made nevertheless.

    `is_empty`: the call was to be short-circuited inside another tool, and no result is cached. The
    other tool would compute with a ``None`` that the called tool never returned, and the result
    would be cached, so it gets the error.
    """
    if on_loop == "short_circuit" and not is_empty:
        return False
    limits = {"repeat": max_tool_repeats, "depth": max_execution_depth}
    error = AgentLoopDetectedError(
        kind=kind,
        tool=_name(asked[0]),
        arguments=_arguments(*asked),
        count=count,
        limit=limits.get(kind, max(2, (max_tool_repeats + 1) // 2)),
        cycle=[{"tool": _name(one[0]), "arguments": _arguments(*one)} for one in cycle],
        session_id=session.session_id,
    )
    if on_loop != "warn":
        raise error
    logger.warning("session %s: %s", session.session_id, error)
    return True


def _name(tool: Any) -> str:
    return str(getattr(tool, "__name__", None) or tool)


def _arguments(tool: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments, by the names of the tool's parameters."""
    try:
        named = inspect.signature(tool).bind(*args, **kwargs).arguments
        skipped = list(named)[: getattr(tool, "skip_args", 0)]
        return {name: value for name, value in named.items() if name not in skipped}
    except (TypeError, ValueError):
        return {**{str(index): value for index, value in enumerate(args)}, **kwargs}
