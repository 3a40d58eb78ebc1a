"""Workspaces in the database, decided inside the transaction; the rules of `sessions` hold here too."""

from __future__ import annotations

import sqlite3

from msgspec.structs import replace

from orbit_protocol.errors import NameTaken, SessionNotFound
from orbit_protocol.types import Session, Workspace, WorkspaceLayout
from orbitd.store import lookup, sessions
from orbitd.store.cache import Change
from orbitd.store.rows import Stored, to_json, workspace_values

_LEAVE_ARCHIVED = """
    UPDATE archived_sessions SET workspace_id = NULL, config = json_replace(config, '$.workspace_id', NULL)
    WHERE workspace_id = ?
"""
"""The archive has no foreign keys into the hot tables, so it is told."""


def create(connection: sqlite3.Connection, workspace: Workspace) -> Change[Workspace]:
    """Record a new workspace. Raises: NameTaken."""
    _refuse_taken(connection, workspace.name, workspace.id)
    cursor = connection.execute(
        "INSERT INTO workspaces (id, name, created_at, layout, active_session_id) VALUES (?, ?, ?, ?, ?)",
        workspace_values(workspace),
    )
    assert cursor.lastrowid is not None
    return Change(result=workspace, workspaces=(Stored(cursor.lastrowid, workspace),))


def update_layout(connection: sqlite3.Connection, workspace_id: str, layout: WorkspaceLayout) -> Change[Workspace]:
    """Replace a layout. Raises: WorkspaceNotFound."""
    stored = lookup.workspace(connection, workspace_id)
    connection.execute("UPDATE workspaces SET layout = ? WHERE id = ?", (to_json(layout), workspace_id))
    return _changed(stored, replace(stored.item, layout=layout))


def rename(connection: sqlite3.Connection, workspace_id: str, name: str) -> Change[Workspace]:
    """Change a name. Raises: WorkspaceNotFound, NameTaken."""
    stored = lookup.workspace(connection, workspace_id)
    _refuse_taken(connection, name, workspace_id)
    connection.execute("UPDATE workspaces SET name = ? WHERE id = ?", (name, workspace_id))
    return _changed(stored, replace(stored.item, name=name))


def set_active(connection: sqlite3.Connection, workspace_id: str, session_id: str | None) -> Change[Workspace]:
    """Put one of the workspace's own sessions in front, or none. Raises: WorkspaceNotFound, SessionNotFound."""
    stored = lookup.workspace(connection, workspace_id)
    if session_id is not None and lookup.session(connection, session_id).item.workspace_id != workspace_id:
        raise SessionNotFound(
            f"Session {session_id} is not in workspace {workspace_id}", hint="Move it there first (session.move)."
        )
    connection.execute("UPDATE workspaces SET active_session_id = ? WHERE id = ?", (session_id, workspace_id))
    return _changed(stored, replace(stored.item, active_session_id=session_id))


def delete(connection: sqlite3.Connection, workspace_id: str, *, delete_sessions: bool) -> Change[None]:
    """Delete a workspace; its sessions stay without one, or go too; archived ones stay. Raises: WorkspaceNotFound."""
    lookup.workspace(connection, workspace_id)
    members = sessions.of_workspace(connection, workspace_id)
    gone: tuple[str, ...] = ()
    kept: tuple[Stored[Session], ...] = ()
    if delete_sessions:
        connection.execute("DELETE FROM sessions WHERE workspace_id = ?", (workspace_id,))
        gone = tuple(each.item.id for each in members)
    else:
        kept = tuple(Stored(each.seq, sessions.in_workspace(each.item, None)) for each in members)
        for each in kept:
            sessions.update_row(connection, each.item)
    connection.execute(_LEAVE_ARCHIVED, (workspace_id,))
    connection.execute("DELETE FROM workspaces WHERE id = ?", (workspace_id,))
    return Change(result=None, gone_sessions=gone, sessions=kept, gone_workspaces=(workspace_id,))


def _changed(stored: Stored[Workspace], workspace: Workspace) -> Change[Workspace]:
    return Change(result=workspace, workspaces=(Stored(stored.seq, workspace),))


def _refuse_taken(connection: sqlite3.Connection, name: str, workspace_id: str) -> None:
    row = connection.execute("SELECT id FROM workspaces WHERE name = ? AND id != ?", (name, workspace_id)).fetchone()
    if row is not None:
        raise NameTaken(f"Workspace {row[0]} has the name {name!r}", data={"id": row[0]})
