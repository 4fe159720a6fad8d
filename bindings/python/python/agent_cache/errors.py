"""The error for a detected loop, as data that a model can read."""

from __future__ import annotations

import json
from typing import Any

from cache.errors import CacheError

_SHOWN = 200


class AgentLoopDetectedError(CacheError, RuntimeError):
    """A call of a tool was refused, because it would have continued a loop. The tool did not run.

    `kind` is ``"repeat"`` (one call with one result, again and again), ``"oscillation"`` (a cycle
    of calls) or ``"depth"`` (tools that call tools that call tools). `tool` and `arguments` are
    those of the refused call. `count` is the number of repetitions that the call would have
    reached, the number of rounds of the cycle, or the depth of the call; `limit` is the limit set
    by the session. `cycle` lists the calls of the cycle, each a dict of ``tool`` and ``arguments``,
    in the order in which they were made. `session_id` is the session whose guard refused the call.
    """

    # A caller that waits for a call made by another caller does not get its loop; see `answered` in
    # the native part.
    _is_for_its_caller_only = True

    def __init__(
        self,
        kind: str,
        tool: str,
        arguments: dict[str, Any],
        count: int,
        limit: int,
        cycle: list[dict[str, Any]],
        session_id: str,
    ) -> None:
        super().__init__(kind, tool, arguments, count, limit, cycle, session_id)
        self.kind = kind
        self.tool = tool
        self.arguments = arguments
        self.count = count
        self.limit = limit
        self.cycle = cycle
        self.session_id = session_id

    def __str__(self) -> str:
        call = _shown_call(self.tool, self.arguments)
        if self.kind == "repeat":
            what = (
                f"{call} would be the same call {self.count} times in a row, with the same result each time"
            )
        elif self.kind == "oscillation":
            cycle = " -> ".join(_shown_call(one["tool"], one["arguments"]) for one in self.cycle)
            what = f"{cycle} was run {self.count} times in a row with the same results, and {call} goes on with it"
        else:
            what = f"{call} would be {self.count} calls of tools deep"
        advice = (
            "call fewer tools from within tools"
            if self.kind == "depth"
            else "change the arguments, use another tool, or finish with what is known"
        )
        return f"loop detected ({self.kind}): {what} (limit {self.limit}); {advice}"

    def to_dict(self) -> dict[str, Any]:
        """All attributes as JSON values; values that JSON does not have are converted to text."""
        return {
            "error": "loop_detected",
            "kind": self.kind,
            "tool": self.tool,
            "arguments": _jsonable(self.arguments),
            "count": self.count,
            "limit": self.limit,
            "cycle": [{"tool": one["tool"], "arguments": _jsonable(one["arguments"])} for one in self.cycle],
            "session_id": self.session_id,
            "message": str(self),
        }

    def to_json(self) -> str:
        """`to_dict` as text."""
        return json.dumps(self.to_dict())


def _jsonable(value: Any, depth: int = 8) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else repr(value)
    if depth and isinstance(value, dict):
        return {str(key): _jsonable(item, depth - 1) for key, item in value.items()}
    if depth and isinstance(value, list | tuple):
        return [_jsonable(item, depth - 1) for item in value]
    return _shown(value)


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:
        text = f"<{type(value).__qualname__} whose repr fails>"
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _shown_call(tool: str, arguments: dict[str, Any]) -> str:
    return f"{tool}({', '.join(f'{name}={_shown(value)}' for name, value in arguments.items())})"
