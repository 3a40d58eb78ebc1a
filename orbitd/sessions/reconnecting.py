"""ssh sessions that have lost their connection are started again, with exponential back-off.

The delay doubles with every try that did not last, up to a limit, and is reset by a
connection that held. A session that is ended, deleted or started meanwhile is not retried.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from msgspec import Struct

from orbit_protocol.errors import OrbitError
from orbit_protocol.types import Session
from orbitd.logs import event
from orbitd.sessions.session import LiveSession, Retry

log = logging.getLogger("orbitd.sessions")

CONNECTION_LOST = 255  # ssh(1), EXIT STATUS


class Backoff(Struct, frozen=True, kw_only=True):
    """Delays before a try, in seconds; a connection that lasts longer than `reset_after_secs` resets them."""

    first_secs: float = 1.0
    max_secs: float = 60.0
    reset_after_secs: float = 30.0


class Reconnector:
    """Starts sessions again that have lost their connection.

    Args:
        start: Starts a session by its id; raises OrbitError where that fails, or is not to be.
        on_failed: Called with a session that will not be tried again.
        start_task: Runs a coroutine as a task and holds it.
        backoff: The delays.
    """

    def __init__(
        self,
        start: Callable[[str], Awaitable[object]],
        on_failed: Callable[[LiveSession], Awaitable[None]],
        start_task: Callable[[Coroutine[Any, Any, object]], None],
        backoff: Backoff | None = None,
    ) -> None:
        self._start = start
        self._on_failed = on_failed
        self._start_task = start_task
        self._backoff = backoff or Backoff()

    def schedule(self, live: LiveSession, session: Session) -> float | None:
        """Schedule a start of a session that has lost its connection; return the delay in seconds.

        Returns:
            None where the session does not want that, or has ended in another way.
        """
        if not session.config.reconnect or session.exit_code != CONNECTION_LOST:
            return None
        now = asyncio.get_running_loop().time()
        retry = live.retry
        if retry is None:
            retry = live.retry = Retry(delay_secs=self._backoff.first_secs)
        if retry.started_at is not None and now - retry.started_at > self._backoff.reset_after_secs:
            retry.delay_secs = self._backoff.first_secs
        return self._start_timer(live, retry)

    def cancel(self, live: LiveSession) -> None:
        """Cancel the next try of a session and reset its delay."""
        if live.retry is not None and live.retry.timer is not None:
            live.retry.timer.cancel()
        live.retry = None

    def _start_timer(self, live: LiveSession, retry: Retry) -> float:
        # The delay grows when a try is scheduled. If the connection lasts, `schedule` resets it.
        delay, retry.delay_secs = retry.delay_secs, min(retry.delay_secs * 2, self._backoff.max_secs)
        event(log, logging.INFO, "connection lost", session=live.id, retry_secs=delay)
        if retry.timer is not None:
            retry.timer.cancel()
        loop = asyncio.get_running_loop()
        retry.timer = loop.call_later(delay, lambda: self._start_task(self._try(live, retry)))
        return delay

    async def _try(self, live: LiveSession, retry: Retry) -> None:
        try:
            await self._start(live.id)
        except Exception as error:  # noqa: BLE001  # whatever it is, the session does not wait for ever
            kind = error.kind if isinstance(error, OrbitError) else type(error).__name__
            event(log, logging.WARNING, "session not started again", session=live.id, error=kind)
            # While this waited, the session may have been ended, and may even have a new Retry.
            if live.retry is not retry:
                return
            if isinstance(error, OrbitError) and error.retryable:
                self._start_timer(live, retry)
            else:
                self.cancel(live)
                await self._on_failed(live)
