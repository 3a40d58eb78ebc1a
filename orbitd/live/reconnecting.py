"""ssh sessions that have lost their connection are started again, with a growing pause.

A pause doubles with every try that did not last, up to a limit, and begins small again
after a connection that held. Whoever ends, deletes or starts the session meanwhile wins.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from msgspec import Struct

from orbit_protocol.errors import OrbitError
from orbit_protocol.types import Session
from orbitd.logs import event

log = logging.getLogger("orbitd.live")

CONNECTION_LOST = 255  # ssh(1), EXIT STATUS


class Pauses(Struct, frozen=True, kw_only=True):
    """How long to wait before a try, in seconds; a connection that lasts for `held` has been a good one."""

    first: float = 1.0
    longest: float = 60.0
    held: float = 30.0


class _Line(Struct):
    pause: float
    started_at: float | None = None
    timer: asyncio.TimerHandle | None = None


class Reconnector:
    """Starts lost sessions again.

    Args:
        start: Starts a session by its id; raises OrbitError where that is not to be.
        give_up: Called with the id of a session that could not be started.
        hold: Runs a coroutine as a held task.
        pauses: How long to wait.
    """

    def __init__(
        self,
        start: Callable[[str], Awaitable[object]],
        give_up: Callable[[str], Awaitable[None]],
        start_task: Callable[..., None],
        pauses: Pauses | None = None,
    ) -> None:
        self._start = start
        self._give_up = give_up
        self._start_task = start_task
        self._pauses = pauses or Pauses()
        self._lines: dict[str, _Line] = {}

    def lost(self, session: Session) -> float | None:
        """Plan to start a session whose connection was lost, if it wants that; return in how many seconds."""
        if not session.config.reconnect or session.exit_code != CONNECTION_LOST:
            return None
        now = asyncio.get_running_loop().time()
        line = self._lines.setdefault(session.id, _Line(pause=self._pauses.first))
        if line.started_at is not None and now - line.started_at > self._pauses.held:
            line.pause = self._pauses.first
        return self._plan(session.id, line)

    def started(self, session_id: str) -> None:
        """Take note that a session is being started, by whomever."""
        line = self._lines.get(session_id)
        if line is not None:
            _cancel(line)
            line.started_at = asyncio.get_running_loop().time()

    def forget(self, session_id: str) -> None:
        """Plan nothing for a session any more."""
        line = self._lines.pop(session_id, None)
        if line is not None:
            _cancel(line)

    def close(self) -> None:
        """Plan nothing any more."""
        for session_id in list(self._lines):
            self.forget(session_id)

    def _plan(self, session_id: str, line: _Line) -> float:
        pause, line.pause = line.pause, min(line.pause * 2, self._pauses.longest)
        event(log, logging.INFO, "connection lost", session=session_id, retry_secs=pause)
        _cancel(line)
        loop = asyncio.get_running_loop()
        line.timer = loop.call_later(pause, lambda: self._start_task(self._again(session_id, line)))
        return pause

    async def _again(self, session_id: str, line: _Line) -> None:
        try:
            await self._start(session_id)
        except OrbitError as error:
            event(log, logging.WARNING, "not started again", session=session_id, error=error.kind)
            if self._lines.get(session_id) is not line:
                return
            if error.retryable:
                self._plan(session_id, line)
            else:
                self.forget(session_id)
                await self._give_up(session_id)


def _cancel(line: _Line) -> None:
    if line.timer is not None:
        line.timer.cancel()
        line.timer = None
