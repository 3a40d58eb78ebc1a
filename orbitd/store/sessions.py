"""Sessions in the database: what may be done to them is decided here, inside the transaction.

Every function takes the writer's connection and runs in its thread, inside a savepoint.
"""

from __future__ import annotations

import sqlite3
from datetime import datetime

from msgspec.structs import replace

from orbit_protocol.errors import InvalidTransition, NameTaken
from orbit_protocol.types import Session, SessionStatus, Workspace
from orbitd.store import lookup
from orbitd.store.cache import Change
from orbitd.store.clock import now
from orbitd.store.rows import SESSION_COLUMNS, WORKSPACE_COLUMNS, Stored, session_of, session_values, workspace_of

MOVES: frozenset[tuple[str, str]] = frozenset(
    {
        ("active", "detached"),
        ("detached", "active"),
        ("active", "terminated"),
        ("detached", "terminated"),
        ("terminated", "active"),
    }
)
"""The changes of status there are; every other pair is refused."""

_OF_WORKSPACE = f"SELECT {SESSION_COLUMNS} FROM sessions WHERE workspace_id = ?"  # noqa: S608  # a constant of ours
_IN_FRONT = f"SELECT {WORKSPACE_COLUMNS} FROM workspaces WHERE active_session_id = ?"  # noqa: S608  # a constant of ours


def create(connection: sqlite3.Connection, session: Session) -> Change[Session]:
    """Record a new session. Raises: NameTaken, WorkspaceNotFound."""
    _refuse_taken(connection, session.name, session.id)
    if session.workspace_id is not None:
        lookup.workspace(connection, session.workspace_id)
    cursor = connection.execute(
        "INSERT INTO sessions (id, name, session_type, created_at, last_active, status, config, workspace_id, program)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        session_values(session),
    )
    assert cursor.lastrowid is not None
    return Change(result=session, sessions=(Stored(cursor.lastrowid, session),))


def set_status(connection: sqlite3.Connection, session_id: str, status: SessionStatus) -> Change[Session]:
    """Change a status. Raises: SessionNotFound, InvalidTransition, NameTaken."""
    stored = lookup.session(connection, session_id)
    before = stored.item
    if (before.status, status) not in MOVES:
        raise InvalidTransition(f"Session {session_id} is {before.status} and cannot become {status}")
    if before.status == "terminated":
        _refuse_taken(connection, before.name, session_id)
    return _update(connection, stored, replace(before, status=status, last_active=now()))


def rename(connection: sqlite3.Connection, session_id: str, name: str | None) -> Change[Session]:
    """Change a name. Raises: SessionNotFound, NameTaken."""
    stored = lookup.session(connection, session_id)
    if stored.item.status != "terminated":
        _refuse_taken(connection, name, session_id)
    return _update(connection, stored, replace(stored.item, name=name))


def move(connection: sqlite3.Connection, session_id: str, workspace_id: str | None) -> Change[Session]:
    """Put a session into a workspace, or in none; the one it leaves has it in front no more.

    Raises: SessionNotFound, WorkspaceNotFound.
    """
    stored = lookup.session(connection, session_id)
    if workspace_id is not None:
        lookup.workspace(connection, workspace_id)
    left = () if workspace_id == stored.item.workspace_id else leave_front(connection, session_id)
    change = _update(connection, stored, in_workspace(stored.item, workspace_id))
    return replace(change, workspaces=left)


def touch(connection: sqlite3.Connection, session_id: str, moment: datetime) -> Change[Session]:
    """Set last_active of a session that is not in memory. Raises: SessionNotFound."""
    stored = lookup.session(connection, session_id)
    return _update(connection, stored, replace(stored.item, last_active=moment))


def delete(connection: sqlite3.Connection, session_id: str) -> Change[None]:
    """Delete a session; its snapshots go by the foreign key. Raises: SessionNotFound."""
    lookup.session(connection, session_id)
    left = leave_front(connection, session_id)
    connection.execute("DELETE FROM sessions WHERE id = ?", (session_id,))
    return Change(result=None, gone_sessions=(session_id,), workspaces=left)


def of_workspace(connection: sqlite3.Connection, workspace_id: str) -> list[Stored[Session]]:
    """Return the sessions that belong to a workspace."""
    return [session_of(row) for row in connection.execute(_OF_WORKSPACE, (workspace_id,))]


def in_workspace(session: Session, workspace_id: str | None) -> Session:
    """Return the session as one of this workspace, or of none; its config says the same."""
    return replace(session, workspace_id=workspace_id, config=replace(session.config, workspace_id=workspace_id))


def start_program(connection: sqlite3.Connection, session_id: str, cols: int, rows: int) -> Change[Session]:
    """Note that a session's program runs, with nobody at it. Raises: SessionNotFound, NameTaken."""
    stored = lookup.session(connection, session_id)
    if stored.item.status == "terminated":
        _refuse_taken(connection, stored.item.name, session_id)
    started = replace(stored.item, status="detached", live=True, cols=cols, rows=rows, last_active=now())
    return _update(connection, stored, replace(started, exit_code=None, exit_signal=None))


def end_program(
    connection: sqlite3.Connection,
    session_id: str,
    *,
    status: SessionStatus,
    exit_code: int | None,
    exit_signal: int | None,
) -> Change[Session]:
    """Note that a session's program runs no more, and how it ended. Raises: SessionNotFound."""
    stored = lookup.session(connection, session_id)
    ended = replace(stored.item, status=status, live=False, exit_code=exit_code, exit_signal=exit_signal)
    return _update(connection, stored, replace(ended, last_active=now()))


def mark_saved(
    connection: sqlite3.Connection, session_id: str, moment: datetime, **seen: int | str | None
) -> Stored[Session]:
    """Note that a session's screen was saved, and the size, title and folder that it had. Raises: SessionNotFound."""
    stored = lookup.session(connection, session_id)
    known = {field: value for field, value in seen.items() if value is not None}
    session = replace(stored.item, last_active=moment, last_saved_at=moment, **known)
    update_row(connection, session)
    return Stored(stored.seq, session)


def update_row(connection: sqlite3.Connection, session: Session) -> None:
    """Write all of a session that can change."""
    _, name, _, _, last_active, status, config, workspace_id, program = session_values(session)
    connection.execute(
        "UPDATE sessions SET name = ?, last_active = ?, status = ?, config = ?, workspace_id = ?, program = ?"
        " WHERE id = ?",
        (name, last_active, status, config, workspace_id, program, session.id),
    )


def leave_front(connection: sqlite3.Connection, session_id: str) -> tuple[Stored[Workspace], ...]:
    """Take a session from the front of its workspace; return what changed."""
    found = [workspace_of(row) for row in connection.execute(_IN_FRONT, (session_id,))]
    if found:
        connection.execute("UPDATE workspaces SET active_session_id = NULL WHERE active_session_id = ?", (session_id,))
    return tuple(Stored(each.seq, replace(each.item, active_session_id=None)) for each in found)


def _update(connection: sqlite3.Connection, stored: Stored[Session], session: Session) -> Change[Session]:
    update_row(connection, session)
    return Change(result=session, sessions=(Stored(stored.seq, session),))


def _refuse_taken(connection: sqlite3.Connection, name: str | None, session_id: str) -> None:
    if name is None:
        return
    row = connection.execute(
        "SELECT id FROM sessions WHERE name = ? AND status != 'terminated' AND id != ?", (name, session_id)
    ).fetchone()
    if row is not None:
        raise NameTaken(f"Session {row[0]} has the name {name!r}", data={"id": row[0]})
