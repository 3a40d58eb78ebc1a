"""Finding rows inside a transaction, and the errors for those that are not there."""

from __future__ import annotations

import sqlite3

from orbit_protocol.errors import SessionNotFound, WorkspaceNotFound
from orbit_protocol.types import Session, Workspace
from orbitd.store.rows import SESSION_COLUMNS, WORKSPACE_COLUMNS, Stored, session_of, workspace_of

_SESSION = f"SELECT {SESSION_COLUMNS} FROM sessions WHERE id = ?"  # noqa: S608  # a constant of ours
_WORKSPACE = f"SELECT {WORKSPACE_COLUMNS} FROM workspaces WHERE id = ?"  # noqa: S608  # a constant of ours


def session(connection: sqlite3.Connection, session_id: str) -> Stored[Session]:
    """Return a session of the hot table. Raises: SessionNotFound."""
    row = connection.execute(_SESSION, (session_id,)).fetchone()
    if row is not None:
        return session_of(row)
    archived = connection.execute("SELECT 1 FROM archived_sessions WHERE id = ?", (session_id,)).fetchone()
    raise is_archived(session_id) if archived else no_session(session_id)


def workspace(connection: sqlite3.Connection, workspace_id: str) -> Stored[Workspace]:
    """Return a workspace. Raises: WorkspaceNotFound."""
    row = connection.execute(_WORKSPACE, (workspace_id,)).fetchone()
    if row is None:
        raise no_workspace(workspace_id)
    return workspace_of(row)


def no_session(session_id: str) -> SessionNotFound:
    """Return the error for an id that no session has."""
    return SessionNotFound(f"No session has the id {session_id}")


def is_archived(session_id: str) -> SessionNotFound:
    """Return the error for what cannot be done to an archived session."""
    return SessionNotFound(
        f"Session {session_id} is archived", hint="Bring it back with session.restore_archived, then try again."
    )


def no_workspace(workspace_id: str) -> WorkspaceNotFound:
    """Return the error for an id that no workspace has."""
    return WorkspaceNotFound(f"No workspace has the id {workspace_id}")
