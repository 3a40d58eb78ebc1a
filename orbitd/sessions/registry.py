"""The sessions that are more than rows of the store: one dictionary, and the memory that their pictures share.

What is done to one session is done under its lock, so that a start, an exit and a deletion
never overlap; different sessions do not wait for each other.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

from orbit_protocol.errors import NotRunning
from orbitd.manager import SessionManager
from orbitd.sessions.session import LiveSession


class Registry:
    """The sessions of a daemon.

    Args:
        manager: The store.
        new: Returns a new session for an id.
        require_restored: Called with a session that is recorded as running and is not known here: returns once it is
            taken over or started again; raises LiveUnavailable where programs may run that are not known.
        total_scrollback_bytes: What the pictures of all may take in memory.
    """

    def __init__(
        self,
        manager: SessionManager,
        new: Callable[[str], LiveSession],
        require_restored: Callable[[str], Awaitable[None]],
        *,
        total_scrollback_bytes: int,
    ) -> None:
        self._manager = manager
        self._new = new
        self._require_restored = require_restored
        self._sessions: dict[str, LiveSession] = {}
        self._total_bytes = total_scrollback_bytes
        self._held: dict[str, int] = {}
        self._trimmed: dict[str, tuple[int, int]] = {}  # where it was, and what it was asked for
        self.held_bytes = 0

    def __iter__(self) -> Iterator[LiveSession]:
        """Iterate over the sessions of this moment."""
        return iter(list(self._sessions.values()))

    def get(self, session_id: str) -> LiveSession | None:
        """Return what is known of a session, None where it is a row of the store only."""
        return self._sessions.get(session_id)

    def running(self, session_id: str) -> LiveSession | None:
        """Return a session that has a program."""
        session = self._sessions.get(session_id)
        return session if session is not None and session.has_program else None

    def attachable(self, session_id: str) -> LiveSession | None:
        """Return a session that clients can be attached to: its program runs, or will be started again."""
        session = self._sessions.get(session_id)
        return session if session is not None and session.is_attachable else None

    @property
    def running_count(self) -> int:
        """How many sessions have a program."""
        return sum(session.has_program for session in self._sessions.values())

    async def require_running(self, session_id: str) -> LiveSession:
        """Return a session that has a program. Raises: SessionNotFound, NotRunning, LiveUnavailable."""
        session = self.running(session_id)
        if session is None and (await self._manager.get_session(session_id)).live:
            await self._require_restored(session_id)
            session = self.running(session_id)
        if session is None:
            raise NotRunning(f"Session {session_id} has no program that runs here")
        return session

    @contextlib.contextmanager
    def using(self, session_id: str) -> Iterator[LiveSession]:
        """Keep a session registered, without its lock; one that nobody needs any more is closed at the end."""
        session = self._sessions.get(session_id)
        if session is None:
            session = self._sessions[session_id] = self._new(session_id)
        session.users += 1
        try:
            yield session
        finally:
            session.users -= 1
            self.forget_if_idle(session)

    @contextlib.asynccontextmanager
    async def locked(self, session_id: str) -> AsyncIterator[LiveSession]:
        """Hold a session's lock: it is started, ended and deleted under it."""
        with self.using(session_id) as session:
            async with session.lock:
                yield session

    def forget_if_idle(self, session: LiveSession) -> None:
        """Forget a session that is a row of the store only, and that nobody uses."""
        if session.is_idle and not session.users and self._sessions.get(session.id) is session:
            del self._sessions[session.id]
            session.close()
            self.handle_held(session)

    def handle_held(self, session: LiveSession) -> None:
        """A picture takes another amount of memory: over the budget, drop the oldest history.

        First of the session that has been without a client for the longest, then of the next; those with clients come
        last. A sixteenth more than necessary is dropped, so that a program that goes on printing does not cause the
        next round with its next line.
        """
        held = session.picture.held
        if session.picture.is_trimming:
            # It has not come to that yet. Were it counted as it is, others would lose theirs for it.
            held = min(held, self._held.get(session.id, 0))
        self._set_held(session, held)
        if not session.picture.held:
            self._trimmed.pop(session.id, None)
        if self.held_bytes <= self._total_bytes:
            return
        goal = self._total_bytes - self._total_bytes // 16
        for one in sorted(self._sessions.values(), key=lambda each: (bool(each.attachments), each.detached_since)):
            if self.held_bytes <= goal:
                return
            held = self._held.get(one.id, 0)
            size = max(0, held - (self.held_bytes - goal))
            # Its answer says what it holds then, which may be more: a screen is not dropped. Until it has been fed more
            # it is not asked for as much again, or each answer would cause the next question, for ever.
            fed, asked = self._trimmed.get(one.id, (-1, 0))
            if held > size and (one.picture.fed != fed or size < asked):
                self._trimmed[one.id] = one.picture.fed, size
                one.picture.trim(size)
                self._set_held(one, size)

    def _set_held(self, session: LiveSession, held: int) -> None:
        self.held_bytes += held - self._held.pop(session.id, 0)
        if held:
            self._held[session.id] = held
