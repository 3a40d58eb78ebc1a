"""The live sessions, running or reconnecting, and the lock of each session.

What is done to one session is done under its lock, so that a start, an exit and a deletion
never overlap; different sessions do not wait for each other.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Iterator

from orbit_protocol.errors import NotRunning, StorageError
from orbit_protocol.types import SessionStatus
from orbitd.background_tasks import BackgroundTasks
from orbitd.logs import event
from orbitd.manager import SessionManager
from orbitd.sessions.saver import Saver
from orbitd.sessions.screen import LiveScreen
from orbitd.sessions.scrollback_budget import ScrollbackBudget
from orbitd.sessions.session import LiveSession

log = logging.getLogger("orbitd.sessions")


class Registry:
    """The live sessions of a daemon.

    Args:
        manager: The store.
        saver: Saves sessions that change.
        tasks: Runs status updates in the background.
        total_scrollback_bytes: What the history of all may take in memory.

    Attributes:
        running: Sessions whose program runs.
        reconnecting: Sessions whose program has ended and will be started again.
    """

    def __init__(
        self, manager: SessionManager, saver: Saver, tasks: BackgroundTasks, total_scrollback_bytes: int
    ) -> None:
        self._manager = manager
        self._saver = saver
        self._tasks = tasks
        self.running: dict[str, LiveSession] = {}
        self.reconnecting: dict[str, LiveSession] = {}
        self._budget = ScrollbackBudget(total_scrollback_bytes, self)
        # A lock exists as long as somebody holds it or waits for it.
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    def __iter__(self) -> Iterator[LiveSession]:
        """Iterate over all live sessions; they may change meanwhile."""
        return iter([*self.running.values(), *self.reconnecting.values()])

    def lock(self, session_id: str) -> asyncio.Lock:
        """Return the lock under which a session is started, ended and deleted."""
        lock = self._locks.get(session_id)
        if lock is None:
            lock = self._locks[session_id] = asyncio.Lock()
        return lock

    async def require_running(self, session_id: str) -> LiveSession:
        """Return a session whose program runs. Raises: SessionNotFound, NotRunning."""
        live = self.running.get(session_id)
        if live is None:
            await self._manager.get_session(session_id)
            raise NotRunning(f"Session {session_id} has no program that runs here")
        return live

    def get(self, session_id: str) -> LiveSession | None:
        """Return a live session, running or reconnecting: one that clients can be attached to."""
        return self.running.get(session_id) or self.reconnecting.get(session_id)

    def create(self, session_id: str, screen: LiveScreen) -> LiveSession:
        """Return a new live session; `add_running` registers it."""
        return LiveSession(session_id, screen, on_clients=self._on_clients, on_output=self._on_output)

    def add_running(self, live: LiveSession) -> None:
        """Register a session whose program runs."""
        self.reconnecting.pop(live.id, None)
        self.running[live.id] = live
        self._budget.measure(live)

    def set_reconnecting(self, live: LiveSession) -> None:
        """Register a session whose program has ended and will be started again."""
        del self.running[live.id]
        self.reconnecting[live.id] = live

    def remove(self, live: LiveSession) -> None:
        """Remove a session that has ended."""
        self.running.pop(live.id, None)
        self.reconnecting.pop(live.id, None)
        self._saver.forget(live)
        self._budget.remove(live)

    async def update_status_from_clients(self, live: LiveSession) -> None:
        """Store a session's status: active with a client, else detached; a detached one is saved too."""
        async with self.lock(live.id):
            # While this waited for the lock the program may have ended, and clients come or gone: the
            # status is decided here, so that the last of several updates stores the right one.
            if self.running.get(live.id) is not live:
                return
            wanted: SessionStatus = "active" if live.attachments else "detached"
            session = await self._manager.get_session(live.id)
            if session.status != wanted:
                try:
                    await self._manager.update_session_status(live.id, wanted)
                except StorageError as error:  # the clients can work all the same
                    event(log, logging.ERROR, "status not stored", session=live.id, status=wanted, error=error.message)
        if wanted == "detached":
            await self._saver.save_all_changed([live])

    def scrollback_bytes(self) -> int:
        """Measure all sessions; return about what their history takes in memory."""
        for live in self:
            self._budget.measure(live)
        return self._budget.used_bytes

    def _on_output(self, live: LiveSession) -> None:
        self._saver.mark_changed(live)
        self._budget.on_output(live)

    def _on_clients(self, live: LiveSession) -> None:
        self._budget.measure(live)
        self._tasks.start(self.update_status_from_clients(live))
