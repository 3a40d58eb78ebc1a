"""When live screens are saved, and how.

A session with output gets a timer, unless it has one; when it fires, the screen is saved
and the journal let go. So a session that is silent costs nothing, and the saves of many
are spread over the interval by when each began to change. A burst saves earlier.
"""

from __future__ import annotations

import asyncio
import logging
import random

from orbitd.live.session import LiveSession
from orbitd.logs import event
from orbitd.manager import SessionManager
from protocol.errors import OrbitError, SessionNotFound
from protocol.types import SnapshotInfo

log = logging.getLogger("orbitd.live")

BURST_BYTES = 4 * 1024 * 1024
BURST_SECS = 2.0
RETRY_SECS = 10.0


class Saver:
    """Saves the sessions that have changed.

    Args:
        manager: Where to.
        interval_secs: The longest that output stays in the journal only.
    """

    def __init__(self, manager: SessionManager, interval_secs: float) -> None:
        self._manager = manager
        self._interval = interval_secs
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._bursting: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.last_error: str | None = None

    def changed(self, session: LiveSession) -> None:
        """Take note that a session's screen is not the saved one any more."""
        if session.id not in self._timers:
            self._set(session, self._interval * random.uniform(0.5, 1.0))  # noqa: S311  # spreads, hides nothing
        elif session.id not in self._bursting and session.screen.journal_bytes > BURST_BYTES:
            self._bursting.add(session.id)
            self._timers[session.id].cancel()
            self._set(session, BURST_SECS)

    async def save(self, session: LiveSession) -> SnapshotInfo:
        """Save a session now.

        Raises:
            OrbitError: The store does not take it; the journal stays.
        """
        self.forget(session)
        async with session.saving:
            capture = await session.capture()
            info = await self._manager.save_snapshot(
                session.id,
                capture.repaint,
                cols=capture.cols,
                rows=capture.rows,
                format="vt",
                native_state=capture.native_state,
                title=capture.title or None,
                cwd=session.current_folder(),
            )
            session.screen.saved(capture)
            return info

    async def save_all_changed(self, sessions: list[LiveSession]) -> int:
        """Save those that have changed since they were saved last; return how many. Failures are logged."""
        waiting = [session for session in sessions if session.id in self._timers]
        results = await asyncio.gather(*(self.save(session) for session in waiting), return_exceptions=True)
        for session, result in zip(waiting, results, strict=True):
            if isinstance(result, BaseException):
                self._failed(session, result)
        return sum(not isinstance(result, BaseException) for result in results)

    def forget(self, session: LiveSession) -> None:
        """Plan no save for a session any more."""
        self._bursting.discard(session.id)
        timer = self._timers.pop(session.id, None)
        if timer is not None:
            timer.cancel()

    async def close(self) -> None:
        """Wait for the saves that run."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _set(self, session: LiveSession, delay: float) -> None:
        self._timers[session.id] = asyncio.get_running_loop().call_later(delay, self._due, session)

    def _due(self, session: LiveSession) -> None:
        task = asyncio.get_running_loop().create_task(self._save_when_due(session))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _save_when_due(self, session: LiveSession) -> None:
        try:
            await self.save(session)
            self.last_error = None
        except SessionNotFound:
            return  # deleted meanwhile
        except Exception as error:  # noqa: BLE001  # whatever went wrong, the journal has it and it is tried again
            self._failed(session, error)
            self._set(session, RETRY_SECS)

    def _failed(self, session: LiveSession, error: BaseException) -> None:
        self.last_error = error.message if isinstance(error, OrbitError) else type(error).__name__
        event(log, logging.ERROR, "screen not saved", session=session.id, error=self.last_error, exc=error)
