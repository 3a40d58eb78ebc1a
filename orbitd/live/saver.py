"""When live screens are saved, and how.

A session with output gets a timer, unless it has one; when it fires, the screen is saved
and the journal let go. So a session that is silent costs nothing, and the saves of many
are spread over the interval by when each began to change. A burst saves earlier. What
cannot be saved stays in the journal, and is tried again until it can.
"""

from __future__ import annotations

import asyncio
import logging
import random

from orbit_protocol.errors import OrbitError, SessionNotFound
from orbitd.live.background_tasks import BackgroundTasks
from orbitd.live.screen import Capture, LiveScreen
from orbitd.live.session import LiveSession
from orbitd.logs import event
from orbitd.manager import SessionManager

log = logging.getLogger("orbitd.live")

BURST_BYTES = 4 * 1024 * 1024
BURST_SECS = 2.0
MAX_RETRY_SECS = 10.0
CLOSE_SECS = 10.0


class Saver:
    """Saves the sessions that have changed.

    Args:
        manager: Where to.
        interval_secs: The longest that output stays in the journal only.
    """

    def __init__(self, manager: SessionManager, interval_secs: float) -> None:
        self._manager = manager
        self._interval = interval_secs
        self.retry_secs = min(interval_secs, MAX_RETRY_SECS)
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._bursting: set[str] = set()
        self._tasks = BackgroundTasks()
        self.failing: dict[str, str] = {}

    def changed(self, session: LiveSession) -> None:
        """Take note that a session's screen is not the saved one any more."""
        if session.id not in self._timers:
            self._set(session, self._interval * random.uniform(0.5, 1.0))  # noqa: S311  # spreads, hides nothing
        elif session.id not in self._bursting and session.screen.journal_bytes > BURST_BYTES:
            self._bursting.add(session.id)
            self._timers[session.id].cancel()
            self._set(session, BURST_SECS)

    async def save(self, session: LiveSession) -> None:
        """Save a session now, unless it is saved.

        Raises:
            OrbitError, OSError: It could not be; the journal stays, and it is tried again.
        """
        self._plan_none(session)
        try:
            async with session.saving:
                if session.screen.is_closed or session.screen.is_saved:
                    return
                capture = await session.capture()
                await self._store(session.id, session.screen, capture, session.current_folder())
        except SessionNotFound:
            raise  # deleted meanwhile
        except Exception as error:
            self._failed(session, error)
            raise
        self.failing.pop(session.id, None)

    async def save_at_rest(self, session_id: str, screen: LiveScreen, folder: str | None) -> None:
        """Save the screen of a session whose program is gone, if its journal has anything. Raises: OrbitError."""
        if screen.journal_bytes:
            await self._store(session_id, screen, await asyncio.to_thread(screen.capture), folder)

    async def save_all_changed(self, sessions: list[LiveSession]) -> int:
        """Save those that have changed, and return how many. What fails is logged, and tried again."""
        waiting = [session for session in sessions if session.id in self._timers]
        return sum(await asyncio.gather(*(self._save_or_note(session) for session in waiting)))

    def forget(self, session: LiveSession) -> None:
        """Plan no save for a session any more: it has ended."""
        self._plan_none(session)
        self.failing.pop(session.id, None)

    async def close(self) -> None:
        """Wait for the saves that run."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        await self._tasks.finish(grace_secs=CLOSE_SECS)

    async def _store(self, session_id: str, screen: LiveScreen, capture: Capture, folder: str | None) -> None:
        await self._manager.save_snapshot(
            session_id,
            capture.repaint,
            cols=capture.cols,
            rows=capture.rows,
            format="vt",
            native_state=capture.native_state,
            title=capture.title or None,
            cwd=folder,
        )
        if not screen.is_closed:
            screen.saved(capture)

    def _plan_none(self, session: LiveSession) -> None:
        self._bursting.discard(session.id)
        timer = self._timers.pop(session.id, None)
        if timer is not None:
            timer.cancel()

    def _set(self, session: LiveSession, delay: float) -> None:
        self._timers[session.id] = asyncio.get_running_loop().call_later(delay, self._due, session)

    def _due(self, session: LiveSession) -> None:
        self._tasks.start(self._save_or_note(session))

    async def _save_or_note(self, session: LiveSession) -> bool:
        try:
            await self.save(session)
        except Exception:  # noqa: BLE001  # noted there; whatever went wrong, the journal has it
            return False
        return True

    def _failed(self, session: LiveSession, error: Exception) -> None:
        """Note a failure, log it once, and plan the next try."""
        told = error.message if isinstance(error, OrbitError) else type(error).__name__
        level = logging.DEBUG if self.failing.get(session.id) == told else logging.ERROR
        event(log, level, "screen not saved", session=session.id, error=told, exc=error)
        self.failing[session.id] = told
        if session.id not in self._timers and not session.screen.is_closed:
            self._set(session, self.retry_secs)
