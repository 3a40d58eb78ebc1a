"""ssh sessions that have lost their connection are started again, with a growing pause.

A pause doubles with every try that did not last, up to a limit, and begins small again
after a connection that held. Whoever ends, deletes or starts the session meanwhile wins.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from msgspec import Struct

from orbitd.logs import event
from protocol.errors import OrbitError
from protocol.types import Session

log = logging.getLogger("orbitd.live")

FIRST_PAUSE_SECS = 1.0
LONGEST_PAUSE_SECS = 60.0
HELD_SECS = 30.0


class _Line(Struct):
    pause: float = FIRST_PAUSE_SECS
    started_at: float = 0.0
    timer: asyncio.TimerHandle | None = None


class Reconnector:
    """Starts lost sessions again.

    Args:
        start: Starts a session by its id; raises OrbitError where that is not to be.
        hold: Runs a coroutine as a held task.
    """

    def __init__(self, start: Callable[[str], Awaitable[object]], hold: Callable[..., None]) -> None:
        self._start = start
        self._hold = hold
        self._lines: dict[str, _Line] = {}

    def lost(self, session: Session) -> None:
        """Plan to start a session whose connection was lost, if it wants that."""
        if not session.config.reconnect:
            return
        loop = asyncio.get_running_loop()
        line = self._lines.setdefault(session.id, _Line())
        if line.started_at and loop.time() - line.started_at > HELD_SECS:
            line.pause = FIRST_PAUSE_SECS
        event(log, logging.INFO, "connection lost", session=session.id, retry_secs=line.pause)
        line.timer = loop.call_later(line.pause, lambda: self._hold(self._again(session.id, line)))
        line.pause = min(line.pause * 2, LONGEST_PAUSE_SECS)

    def forget(self, session_id: str) -> None:
        """Plan nothing for a session any more."""
        line = self._lines.pop(session_id, None)
        if line is not None and line.timer is not None:
            line.timer.cancel()

    def close(self) -> None:
        """Plan nothing any more."""
        for session_id in list(self._lines):
            self.forget(session_id)

    async def _again(self, session_id: str, line: _Line) -> None:
        line.started_at = asyncio.get_running_loop().time()
        try:
            await self._start(session_id)
        except OrbitError as error:
            event(log, logging.WARNING, "not started again", session=session_id, error=error.kind)
            self.forget(session_id)
