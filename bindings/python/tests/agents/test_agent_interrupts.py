"""Ctrl-C at every line of entering and leaving a session of an agent.

The bug's story: a Ctrl-C between the line that entered a session and the line that made its frame
left the session open for ever, because Python does not leave a block that was not completely
entered. A Ctrl-C in the middle of leaving had the same effect. With an id, later code finds the
open session again, and gets results cached before.
"""

from __future__ import annotations

import pytest
from programs import LIMIT, complete

pytestmark = pytest.mark.timeout(3 * LIMIT)

PROGRAM = """
import asyncio, gc, os, sys
import agent_cache
from agent_cache import AgentCache, AgentCacheSession, stats

FOLDER = os.path.dirname(agent_cache.__file__) + os.sep

class Interrupt:
    '''Raises KeyboardInterrupt at the nth line of the package.'''

    def __init__(self, after):
        self.left, self.has_come = after, False

    def trace(self, frame, event, argument):
        if not frame.f_code.co_filename.startswith(FOLDER):
            return None
        if event == "line" and not self.has_come:
            self.left -= 1
            if self.left < 0:
                self.has_come = True
                raise KeyboardInterrupt
        return self.trace

@AgentCache("rows", scope="session")
async def rows():
    return object()

async def enter_and_leave(loop_detection, interrupt):
    try:
        sys.settrace(interrupt.trace)
        async with AgentCacheSession("one", loop_detection=loop_detection):
            sys.settrace(None)
            await rows()
            sys.settrace(interrupt.trace)
        sys.settrace(None)
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(None)

async def main():
    for loop_detection in (False, True):
        count = 0
        while True:
            interrupt = Interrupt(count)
            await asyncio.create_task(enter_and_leave(loop_detection, interrupt))
            gc.collect()
            assert stats()["sessions"] == 0, f"left open by an interrupt at line {count}"
            if not interrupt.has_come:
                break
            count += 1
        assert count > 20, count

asyncio.run(main())
"""


def test_a_session_that_is_interrupted_at_any_line_is_left() -> None:
    done = complete(PROGRAM)
    assert (done.returncode, done.stderr) == (0, "")
