"""When live screens are saved, and how.

A session's first output after a save starts a timer; when it fires, the screen is saved and
the journal's records are discarded. So a silent session costs nothing, and the saves of many
are spread over the interval by when each began to change. A burst of output is saved earlier.
What cannot be saved stays in the journal, and is tried again until it can.
"""

from __future__ import annotations

import asyncio
import logging
import random

from orbit_protocol.errors import OrbitError, SessionNotFound
from orbitd.background_tasks import BackgroundTasks
from orbitd.logs import event
from orbitd.manager import SessionManager
from orbitd.sessions.screen import Capture, LiveScreen
from orbitd.sessions.session import LiveSession

log = logging.getLogger("orbitd.sessions")

BURST_BYTES = 4 * 1024 * 1024
BURST_SECS = 2.0
MAX_RETRY_SECS = 10.0
CLOSE_SECS = 10.0


class Saver:
    """Saves the sessions that have changed.

    Args:
        manager: The store.
        interval_secs: The longest that output is in the journal only.

    Attributes:
        failing: Session id -> why its last save failed.
    """

    def __init__(self, manager: SessionManager, interval_secs: float) -> None:
        self._manager = manager
        self._interval = interval_secs
        self.retry_secs = min(interval_secs, MAX_RETRY_SECS)
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._bursting: set[str] = set()
        self._tasks = BackgroundTasks(log, "live session task failed")
        self.failing: dict[str, str] = {}

    def mark_changed(self, session: LiveSession) -> None:
        """Start the timer of a session that has changed, or shorten it for a burst."""
        # Spread at random, so that sessions that began to write together are not saved together for ever.
        if session.id not in self._timers:
            self._start_timer(session, self._interval * random.uniform(0.5, 1.0))  # noqa: S311  # spreads, hides nothing
        elif session.id not in self._bursting and session.screen.journal_bytes > BURST_BYTES:
            self._bursting.add(session.id)
            self._timers[session.id].cancel()
            self._start_timer(session, BURST_SECS)

    async def save(self, session: LiveSession) -> None:
        """Save a session now, unless it is saved.

        Raises:
            OrbitError, OSError: It could not be saved; the journal stays, and it is tried again.
        """
        # Cancelled before the capture: output that comes while this waits starts a new timer, for it is
        # not in the capture.
        self._cancel_timer(session)
        try:
            # One save of a session at a time: a second one would commit its snapshot first, and then this one
            # would be the newest with an older screen. After the wait the first may have saved everything.
            async with session.save_lock:
                if session.screen.is_closed or session.screen.is_saved:
                    return
                capture = await session.capture()
                await self._store(session.id, session.screen, capture, session.current_cwd())
        except SessionNotFound:
            raise  # deleted meanwhile
        except Exception as error:
            self._handle_failure(session, error)
            raise
        self.failing.pop(session.id, None)

    async def save_stopped(self, session_id: str, screen: LiveScreen, cwd: bytes | None) -> None:
        """Save the screen of a session whose program is gone, if its journal has anything. Raises: OrbitError."""
        if screen.journal_bytes:
            await self._store(session_id, screen, await asyncio.to_thread(screen.capture), cwd)

    async def save_all_changed(self, sessions: list[LiveSession]) -> int:
        """Save those that have changed, and return how many. Failures are logged, and tried again."""
        changed = [session for session in sessions if session.id in self._timers]
        return sum(await asyncio.gather(*(self._try_save(session) for session in changed)))

    def forget(self, session: LiveSession) -> None:
        """Cancel the timer of a session that has ended."""
        self._cancel_timer(session)
        self.failing.pop(session.id, None)

    async def close(self) -> None:
        """Cancel all timers and wait for the saves that run."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        await self._tasks.finish(grace_secs=CLOSE_SECS)

    async def _store(self, session_id: str, screen: LiveScreen, capture: Capture, cwd: bytes | None) -> None:
        # Commit first, then discard the records: a crash in between leaves both, and the snapshot's
        # position makes the restore skip what it covers.
        await self._manager.save_snapshot(
            session_id,
            capture.repaint,
            cols=capture.cols,
            rows=capture.rows,
            format="vt",
            native_state=capture.native_state,
            title=capture.title or None,
            cwd=cwd,
        )
        if not screen.is_closed:
            screen.mark_saved(capture)

    def _cancel_timer(self, session: LiveSession) -> None:
        self._bursting.discard(session.id)
        timer = self._timers.pop(session.id, None)
        if timer is not None:
            timer.cancel()

    def _start_timer(self, session: LiveSession, delay: float) -> None:
        loop = asyncio.get_running_loop()
        self._timers[session.id] = loop.call_later(delay, lambda: self._tasks.start(self._try_save(session)))

    async def _try_save(self, session: LiveSession) -> bool:
        try:
            await self.save(session)
        except Exception:  # noqa: BLE001  # logged by `_handle_failure`; the journal has the output
            return False
        return True

    def _handle_failure(self, session: LiveSession, error: Exception) -> None:
        """Record a failure, log it if it is a new one, and schedule the next try."""
        reason = error.message if isinstance(error, OrbitError) else type(error).__name__
        level = logging.DEBUG if self.failing.get(session.id) == reason else logging.ERROR
        event(log, level, "screen not saved", session=session.id, error=reason, exc=error)
        self.failing[session.id] = reason
        if session.id not in self._timers and not session.screen.is_closed:
            self._start_timer(session, self.retry_secs)
