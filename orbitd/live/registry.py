"""Which sessions have a program, or are about to have one again, and the order of what is done to them.

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
from orbitd.live.background_tasks import BackgroundTasks
from orbitd.live.budget import Budget
from orbitd.live.saver import Saver
from orbitd.live.screen import LiveScreen
from orbitd.live.session import LiveSession
from orbitd.logs import event
from orbitd.manager import SessionManager

log = logging.getLogger("orbitd.live")


class Registry:
    """The live sessions of a daemon.

    Args:
        manager: The store.
        saver: Told of every change.
        held: Runs what nobody awaits.
        total_scrollback_bytes: What the history of all may take in memory.
    """

    def __init__(
        self, manager: SessionManager, saver: Saver, tasks: BackgroundTasks, total_scrollback_bytes: int
    ) -> None:
        self._manager = manager
        self._saver = saver
        self._tasks = tasks
        self.running: dict[str, LiveSession] = {}
        self.resting: dict[str, LiveSession] = {}
        self.budget = Budget(total_scrollback_bytes, self)
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    def __iter__(self) -> Iterator[LiveSession]:
        """Iterate over all of them."""
        return iter([*self.running.values(), *self.resting.values()])

    def lock(self, session_id: str) -> asyncio.Lock:
        """Return the lock that keeps what is done to a session in order."""
        lock = self._locks.get(session_id)
        if lock is None:
            lock = self._locks[session_id] = asyncio.Lock()
        return lock

    async def require(self, session_id: str) -> LiveSession:
        """Return a session whose program runs. Raises: SessionNotFound, NotRunning."""
        found = self.running.get(session_id)
        if found is None:
            await self._manager.get_session(session_id)
            raise NotRunning(f"Session {session_id} has no program that runs here")
        return found

    def shown(self, session_id: str) -> LiveSession | None:
        """Return a session that clients can be at: it runs or rests."""
        return self.running.get(session_id) or self.resting.get(session_id)

    def new(self, session_id: str, screen: LiveScreen) -> LiveSession:
        """Return a session that is on no list yet."""
        return LiveSession(session_id, screen, on_clients=self._clients_changed, on_output=self._changed)

    def put(self, live: LiveSession) -> None:
        """List a session whose program runs."""
        self.resting.pop(live.id, None)
        self.running[live.id] = live
        self.budget.measure(live)

    def rest(self, live: LiveSession) -> None:
        """List a session whose program has ended and will be started again."""
        del self.running[live.id]
        self.resting[live.id] = live

    def remove(self, live: LiveSession) -> None:
        """Take a session off the list: it has ended."""
        self.running.pop(live.id, None)
        self.resting.pop(live.id, None)
        self._saver.forget(live)
        self.budget.forget(live)

    async def settle_status(self, live: LiveSession) -> None:
        """Let a session's status follow its clients: active with one, detached without; then it is saved."""
        async with self.lock(live.id):
            if self.running.get(live.id) is not live:
                return
            wanted: SessionStatus = "active" if live.attachments else "detached"
            session = await self._manager.get_session(live.id)
            if session.status != wanted:
                await self._note_status(live.id, wanted)
        if wanted == "detached":
            await self._saver.save_all_changed([live])

    async def _note_status(self, session_id: str, status: SessionStatus) -> None:
        """Store a status; that it cannot be stored keeps nobody from the program."""
        try:
            await self._manager.update_session_status(session_id, status)
        except StorageError as error:
            event(log, logging.ERROR, "status not stored", session=session_id, status=status, error=error.message)

    def _changed(self, live: LiveSession) -> None:
        self._saver.changed(live)
        self.budget.changed(live)

    def scrollback_bytes(self) -> int:
        """Return about what the history of all takes in memory now."""
        for live in self:
            self.budget.measure(live)
        return self.budget.used_bytes

    def _clients_changed(self, live: LiveSession) -> None:
        self.budget.measure(live)
        self._tasks.start(self.settle_status(live))
