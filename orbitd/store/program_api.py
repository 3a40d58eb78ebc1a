"""The SessionManager's methods for what is known of programs; `orbitd.live` runs them."""

from __future__ import annotations

from functools import partial

from orbit_protocol.types import Session, SessionStatus
from orbitd.store import sessions
from orbitd.store.store import Store

_INTERRUPTED = """
    SELECT id FROM sessions
    WHERE status != 'terminated'
      AND (json_extract(program, '$.live') OR json_extract(program, '$.exit_code') IS NOT NULL)
    ORDER BY seq
"""


class ProgramMethods:
    """Note that programs start and end, and tell which were interrupted."""

    _store: Store

    async def list_interrupted(self) -> list[Session]:
        """Return the sessions whose program ran when last heard of, or ended but not the session."""
        rows = await self._store.readers.fetch_all(_INTERRUPTED)
        found = (self._store.cache.sessions.get(session_id) for (session_id,) in rows)
        return [session for session in found if session is not None]

    async def start_program(self, session_id: str, cols: int, rows: int) -> Session:
        """Note that a session's program runs, with nobody at it yet.

        Args:
            session_id: Of a session that is not archived.
            cols: The terminal's width in cells.
            rows: Its height.

        Raises:
            SessionNotFound: No session has the id.
            NameTaken: It was terminated, and another one has its name now.
        """
        work = partial(sessions.start_program, session_id=session_id, cols=cols, rows=rows)
        return await self._store.change_session(work)

    async def end_program(
        self, session_id: str, status: SessionStatus, exit_code: int | None = None, exit_signal: int | None = None
    ) -> Session:
        """Note that a session's program runs no more.

        Args:
            session_id: Of a session that is not archived.
            status: What it is from now on.
            exit_code: How the program ended, or
            exit_signal: what ended it; neither where nobody knows.

        Raises:
            SessionNotFound: No session has the id.
        """
        work = partial(
            sessions.end_program,
            session_id=session_id,
            status=status,
            exit_code=exit_code,
            exit_signal=exit_signal,
        )
        return await self._store.change_session(work)
