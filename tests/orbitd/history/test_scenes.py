"""Pictures of the past: what becomes of those that nobody waits for any more."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from pathlib import Path

import pytest

from orbit_protocol.settings import HistorySettings
from orbitd.history.database import Group
from orbitd.history.history import History
from orbitd.history.scenes import Reel, read_reel
from support import WAIT_SECS

GROUP = Group(
    seq=1,
    session_id="one",
    position=0,
    at=0,
    line=0,
    cols=80,
    rows=24,
    native=b"",
    to_position=0,
    to_at=0,
    stored_bytes=0,
)


async def test_the_film_of_a_call_that_was_given_up_is_closed(tmp_path: Path) -> None:
    """The thread that reads it goes on: what it returns then, and the memory that it takes, is let go."""
    begun, ends = threading.Event(), threading.Event()
    reading_end, descriptor = os.pipe()

    def work(_: sqlite3.Connection) -> Reel:
        begun.set()
        ends.wait(WAIT_SECS)
        return Reel(group=GROUP, descriptor=descriptor, end=0, to_at=0)

    async with History(str(tmp_path / "history.db"), HistorySettings()) as history:
        await history.write(lambda _: None)
        asking = asyncio.ensure_future(read_reel(history, work))
        assert await asyncio.to_thread(begun.wait, WAIT_SECS)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        ends.set()
        async with asyncio.timeout(WAIT_SECS):
            assert await asyncio.to_thread(os.read, reading_end, 1) == b""  # the other end is closed
    os.close(reading_end)
