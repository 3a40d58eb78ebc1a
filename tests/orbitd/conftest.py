"""Sessions for unit tests: journals are files, everything beyond is scripted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sessions_support import Sessions, scripted


@pytest.fixture
async def sessions(home: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sessions]:
    """The sessions of a daemon, with scripted screens processes."""
    with scripted(monkeypatch, home) as sessions:
        yield sessions
        await sessions.close()
