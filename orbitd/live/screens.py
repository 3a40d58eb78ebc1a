"""The screens of all sessions: opened for a program, looked at without one, removed.

A session's journal is opened once at a time: call these under the session's lock.
"""

from __future__ import annotations

import asyncio
import logging
import os

from orbit_os.files import UnsafeFolder, private_folder
from orbit_protocol.errors import SnapshotCorrupt, SnapshotNotFound, SpawnFailed
from orbit_protocol.types import Session
from orbitd.live.opening import Wanted, look_at, open_screen
from orbitd.live.screen import LiveScreen
from orbitd.logs import event
from orbitd.manager import SessionManager
from orbitd.store.snapshots import SavedScreen
from orbitd.terminal import journal
from orbitd.terminal.emulator import Emulator, unavailable_reason

log = logging.getLogger("orbitd.live")


class Screens:
    """What is known of screens outside of the memory.

    Args:
        manager: Has the snapshots.
        folder: Has the journals; made private when the first is needed.
        scrollback_max_bytes: The most history that one screen keeps in memory.
    """

    def __init__(self, manager: SessionManager, folder: str, scrollback_max_bytes: int) -> None:
        self._manager = manager
        self._folder = folder
        self._scrollback_max_bytes = scrollback_max_bytes

    async def open(self, session: Session) -> LiveScreen:
        """Return a session's last screen, or an empty one, to go on with.

        Raises:
            SessionNotFound: No session has its id any more.
            SpawnFailed: Its journal cannot be opened.
        """
        saved, path = await self._newest(session.id), self._journal(session.id)
        try:
            private_folder(os.path.dirname(self._folder))  # whoever could write there could replace the other
            private_folder(self._folder)
            opened = await asyncio.to_thread(open_screen, path, saved, self._wanted(session))
        except OSError as error:
            raise SpawnFailed(f"The session's journal cannot be opened: {path}: {error.strerror}") from error
        except UnsafeFolder as error:
            raise SpawnFailed(str(error)) from error
        if opened.loss:
            event(log, logging.WARNING, opened.loss, session=session.id)
        return opened.screen

    async def look(self, session: Session) -> Emulator:
        """Return a session's last screen for looking at; the caller closes it. Raises: SnapshotNotFound."""
        reason = unavailable_reason()
        if reason is not None:
            raise SnapshotNotFound(f"No screen can be drawn here: {reason}")
        saved = await self._newest(session.id)
        found = await asyncio.to_thread(look_at, self._journal(session.id), saved, self._wanted(session))
        if found is None:
            raise SnapshotNotFound(f"Nothing of the screen of session {session.id} was ever saved")
        return found

    def remove(self, session_id: str) -> None:
        """Remove the journal of a session: it is saved, or deleted."""
        journal.delete(self._journal(session_id))

    async def _newest(self, session_id: str) -> SavedScreen | None:
        """Return the newest good snapshot, and log where that is not the newest. Raises: SessionNotFound."""
        try:
            return await self._manager.load_latest_screen(session_id)
        except SnapshotCorrupt as error:
            good = error.extra.get("good_snapshot_id")
            event(log, logging.ERROR, "newest snapshot is damaged", session=session_id, used=good)
            return await self._manager.get_screen(good) if good else None

    def _wanted(self, session: Session) -> Wanted:
        return Wanted(cols=session.cols or 80, rows=session.rows or 24, scrollback_max_bytes=self._scrollback_max_bytes)

    def _journal(self, session_id: str) -> str:
        return os.path.join(self._folder, session_id)
