"""Real processes with a journal, killed under load (`killed_processes`; `make kill-python` kills
many more).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from killed_processes import MODES, kill_many

KILLS = int(os.environ.get("ASYNC_CACHE_KILLS", "6"))


@pytest.mark.timeout(60 + KILLS)
@pytest.mark.parametrize("mode", MODES)
def test_killed_processes_lose_no_write_that_had_returned(tmp_path: Path, mode: str) -> None:
    assert kill_many(tmp_path, mode, KILLS) > 0
