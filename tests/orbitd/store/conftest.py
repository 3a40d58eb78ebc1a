"""A store in a folder of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orbitd.manager import SessionManager


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the database goes; neither it nor its folder is there yet."""
    return tmp_path / "orbit" / "sessions.db"


@pytest.fixture
async def manager(path: Path) -> AsyncIterator[SessionManager]:
    """An open, empty store."""
    async with SessionManager.open(str(path)) as opened:
        yield opened
