"""The SessionManager's methods for sessions."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from orbit_protocol.errors import AmbiguousReference, InvalidParams, SessionNotFound
from orbit_protocol.types import Session, SessionConfig, SessionPage, SessionStatus, SessionType
from orbitd.store import lookup, pages, sessions, validation
from orbitd.store.clock import now
from orbitd.store.rows import SESSION_COLUMNS, Stored, session_of
from orbitd.store.store import Store

_LIVE = frozenset({"active", "detached"})
_ALL = frozenset({"active", "detached", "terminated", "archived"})
_MOST_CANDIDATES = 20
_PREFIX_LENGTH = 4

_ANYWHERE = f"""
    SELECT {SESSION_COLUMNS} FROM sessions WHERE id = :id
    UNION ALL SELECT {SESSION_COLUMNS} FROM archived_sessions WHERE id = :id
"""  # noqa: S608  # constants of ours

_PAGE = """
    SELECT {columns} FROM {table}
    WHERE seq > :after AND status IN ({statuses})
      AND (:session_type IS NULL OR session_type = :session_type)
      AND (:workspace_id IS NULL OR workspace_id = :workspace_id)
"""

_TRIES = [
    f"SELECT {SESSION_COLUMNS} FROM {table} WHERE {condition} ORDER BY seq LIMIT {_MOST_CANDIDATES}"  # noqa: S608
    for table in ("sessions", "archived_sessions")
    for condition in ("id = :ref", "name = :ref AND status != 'terminated'", "id >= :low AND id < :high", "name = :ref")
]
"""How a reference is looked up: each way only where the one before found nothing."""


class SessionMethods:
    """Create, find, change and delete sessions."""

    _store: Store

    async def create_session(self, config: SessionConfig, name: str | None = None) -> Session:
        """Record a new session, active from the start.

        Raises:
            NameTaken: A session that is not terminated has the name.
            WorkspaceNotFound: `config.workspace_id` is unknown.
            InvalidParams: Name or configuration cannot be recorded.
        """
        moment, config = now(), validation.config(config)
        session = Session(
            id=str(uuid.uuid4()),
            name=None if name is None else validation.name(name),
            session_type=config.session_type,
            created_at=moment,
            last_active=moment,
            status="active",
            config=config,
            workspace_id=config.workspace_id,
        )
        return await self._store.change_session(partial(sessions.create, session=session))

    async def get_session(self, session_id: str) -> Session:
        """Return a session, archived ones too. Raises: SessionNotFound."""
        cached = self.cached_session(session_id)
        if cached is not None:
            return cached
        row = await self._store.readers.fetch_one(_ANYWHERE, {"id": session_id})
        if row is None:
            raise lookup.no_session(session_id)
        return session_of(row).item

    def cached_session(self, session_id: str) -> Session | None:
        """Return a session that is active or detached, from memory; None for any other."""
        return self._store.cache.sessions.get(session_id)

    async def find_session(self, ref: str) -> Session:
        """Find a session by id, by the name of one that is alive, by a unique id prefix (4+), or by an old name.

        Raises:
            SessionNotFound: Nothing fits.
            AmbiguousReference: More than one fits; `data.candidates` has ids.
        """
        cached = self._store.cache.sessions.get(ref) or self._store.cache.sessions.named(ref)
        if cached is not None:
            return cached
        prefix = prefix_of(ref)
        bounds = {"ref": ref, "low": prefix, "high": prefix and prefix + "g"}  # "g" is behind every digit
        for query in _TRIES:
            rows = await self._store.readers.fetch_all(query, bounds)
            if rows:
                return self._store.cache.as_touched(one_of(ref, [session_of(row).item for row in rows]))
        raise SessionNotFound(f"No session answers to {ref!r}")

    async def list_sessions(
        self,
        *,
        status: Sequence[SessionStatus] | None = None,
        session_type: SessionType | None = None,
        workspace_id: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> SessionPage:
        """Return a page of sessions, oldest first; without `status`, of those that are active or detached.

        Raises:
            WorkspaceNotFound: `workspace_id` is unknown.
            InvalidParams: The cursor or the limit is none.
        """
        wanted = _LIVE if status is None else frozenset(status)
        if not wanted <= _ALL:
            raise InvalidParams(f"`status` knows {', '.join(sorted(_ALL))}")
        if workspace_id is not None and self._store.cache.workspaces.get(workspace_id) is None:
            raise lookup.no_workspace(workspace_id)
        if wanted == _LIVE and session_type is None and workspace_id is None and cursor is None:
            return self.first_page(limit)
        start = pages.after(cursor)
        found: Iterable[Stored[Session]]
        if wanted <= _LIVE:
            found = self._live(start, wanted, session_type, workspace_id)
        else:
            found = await self._stored(start, wanted, session_type, workspace_id, pages.page_size(limit))
        page, next_cursor = pages.cut(found, limit, pages.session_bytes)
        return SessionPage(sessions=page, next_cursor=next_cursor)

    async def list_active_sessions(self) -> list[Session]:
        """Return every session that is active or detached, oldest first."""
        return [stored.item for stored in self._store.cache.sessions.after(0)]

    async def update_session_status(self, session_id: str, status: SessionStatus) -> Session:
        """Change a session's status. Raises: SessionNotFound, InvalidTransition, NameTaken."""
        return await self._store.change_session(partial(sessions.set_status, session_id=session_id, status=status))

    async def detach_session(self, session_id: str) -> Session:
        """Keep a session with nobody at it. Raises: SessionNotFound, InvalidTransition."""
        return await self.update_session_status(session_id, "detached")

    async def terminate_session(self, session_id: str) -> Session:
        """End a session; its record and snapshots stay. Raises: SessionNotFound, InvalidTransition."""
        return await self.update_session_status(session_id, "terminated")

    async def delete_session(self, session_id: str) -> None:
        """Delete a session and its snapshots. Raises: SessionNotFound."""
        await self._store.write(partial(sessions.delete, session_id=session_id))

    async def rename_session(self, session_id: str, name: str | None) -> Session:
        """Give a session a name, or take it away. Raises: SessionNotFound, NameTaken, InvalidParams."""
        checked = None if name is None else validation.name(name)
        return await self._store.change_session(partial(sessions.rename, session_id=session_id, name=checked))

    async def move_session(self, session_id: str, workspace_id: str | None) -> Session:
        """Move a session to a workspace, or out of one. Raises: SessionNotFound, WorkspaceNotFound."""
        work = partial(sessions.move, session_id=session_id, workspace_id=workspace_id)
        return await self._store.change_session(work)

    async def touch_session(self, session_id: str) -> Session:
        """Set last_active to now; written at the next auto-save. Raises: SessionNotFound."""
        moment = now()
        touched = self._store.cache.touch(session_id, moment)
        if touched is not None:
            return touched
        return await self._store.change_session(partial(sessions.touch, session_id=session_id, moment=moment))

    def first_page(self, limit: int | None) -> SessionPage:
        """Return the first page of active and detached sessions, from memory. Raises: InvalidParams.

        Clients ask for it often, so it is kept until a session changes.
        """
        index, kept = self._store.cache.sessions, self._store.first_page
        key = (index.changes, limit)
        if kept is None or kept[0] != key:
            kept = self._store.first_page = (key, *pages.cut(index.after(0), limit, pages.session_bytes))
        return SessionPage(sessions=kept[1].copy(), next_cursor=kept[2])

    def _live(
        self, start: int, wanted: frozenset[str], session_type: str | None, workspace_id: str | None
    ) -> Iterator[Stored[Session]]:
        for stored in self._store.cache.sessions.after(start):
            session = stored.item
            if (
                session.status in wanted
                and (session_type is None or session.session_type == session_type)
                and (workspace_id is None or session.workspace_id == workspace_id)
            ):
                yield stored

    async def _stored(
        self, start: int, wanted: frozenset[str], session_type: str | None, workspace_id: str | None, most: int
    ) -> list[Stored[Session]]:
        """Read a page and one more; where a session is alive, its last touch is in memory."""
        statuses = ", ".join(f"'{status}'" for status in sorted(wanted))  # words of _ALL only
        parts = [
            _PAGE.format(columns=SESSION_COLUMNS, table=table, statuses=statuses)
            for table in ("sessions", "archived_sessions")
            if table == "sessions" or "archived" in wanted
        ]
        rows = await self._store.readers.fetch_all(
            f"{' UNION ALL '.join(parts)} ORDER BY seq LIMIT :most",
            {"after": start, "session_type": session_type, "workspace_id": workspace_id, "most": most + 1},
        )
        found = [session_of(row) for row in rows]
        return [Stored(each.seq, self._store.cache.as_touched(each.item)) for each in found]


def prefix_of(ref: str) -> str | None:
    """Return a reference as the beginning of an id, or None where it cannot be one."""
    lower = ref.lower()
    fits = _PREFIX_LENGTH <= len(lower) <= len(str(uuid.UUID(int=0))) and not set(lower) - set("0123456789abcdef-")
    return lower if fits else None


def one_of(ref: str, found: list[Session]) -> Session:
    """Return the only one found. Raises: AmbiguousReference."""
    if len(found) == 1:
        return found[0]
    raise AmbiguousReference(
        f"{ref!r} fits {len(found)} sessions or more", data={"candidates": [session.id for session in found]}
    )
