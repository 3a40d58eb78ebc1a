"""When a screen is saved again whose save has failed. Real timers, of a millisecond; a store that says no."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from orbit_protocol.errors import OrbitError, StorageFull
from orbitd.manager import SessionManager
from orbitd.sessions.saver import Saver
from orbitd.sessions.screen import Capture
from orbitd.sessions.session import LiveSession
from support import WAIT_SECS


class FakeStore:
    """Takes snapshots, once it has raised the errors that it was given."""

    def __init__(self, *errors: OrbitError) -> None:
        self.errors = list(errors)
        self.saved: asyncio.Queue[str] = asyncio.Queue()

    async def save_snapshot(self, session_id: str, data: bytes, **_: Any) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.saved.put_nowait(session_id)


class FakeSession:
    """A session with output that is not saved; it is its own screen."""

    id = "one"
    is_closed = False
    is_saved = False
    journal_bytes = 1

    def __init__(self) -> None:
        self.save_lock = asyncio.Lock()
        self.screen = self

    async def capture(self) -> Capture:
        return Capture(repaint=b"screen", native_state=b"", position=1, cols=80, rows=24, title="")

    def current_cwd(self) -> bytes:
        return b"/"

    def mark_saved(self, _: Capture) -> None:
        self.is_saved = True


@pytest.mark.parametrize("failures", [0, 1, 3])
async def test_what_could_not_be_saved_is_tried_again(failures: int) -> None:
    """A changed screen is saved by itself, after as many failures as it takes, and nothing warns then any more."""
    store, session = FakeStore(*[StorageFull("no room")] * failures), FakeSession()
    saver = Saver(cast(SessionManager, store), interval_secs=0.001)
    saver.mark_changed(cast(LiveSession, session))
    async with asyncio.timeout(WAIT_SECS):
        assert await store.saved.get() == "one"
    await saver.close()
    assert store.errors == []
    assert session.is_saved
    assert saver.failing == {}
