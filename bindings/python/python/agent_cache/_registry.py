"""The sessions and resources of the process."""

from __future__ import annotations

from typing import Any

from cache import _native

registry = _native.AgentRegistry()


def check_resource(resource: Any, decorator: str) -> str:
    """The name of a resource, checked."""
    if callable(resource):
        raise TypeError(
            f"{decorator} takes its arguments first: write @{decorator}(resource=...) above the function"
        )
    if not isinstance(resource, str):
        raise TypeError(f"resource is the name (str) of what is read, not {type(resource).__qualname__}")
    if not resource:
        raise ValueError("resource is the name of what is read, and not empty")
    return resource


def check_scope(scope: Any) -> str:
    """A scope, checked."""
    if scope not in ("global", "session"):
        raise ValueError(f'scope is "global" or "session", not {scope!r}')
    return str(scope)


def active_session() -> _native.AgentSession | None:
    """The innermost session of the running code, unless it has ended."""
    frame = _native.current_agent_frame()
    return frame.session if frame is not None and frame.session.is_open else None
