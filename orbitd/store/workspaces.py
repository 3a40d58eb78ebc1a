"""Workspaces: the SessionManager's methods for them. Reading one never touches the disk.

Changes are made as in `sessions`: a function `work` decides inside the writer's transaction.
"""

from __future__ import annotations

import sqlite3
import uuid

from msgspec.structs import replace

from orbit_protocol.errors import AmbiguousReference, NameTaken, SessionNotFound, WorkspaceNotFound
from orbit_protocol.types import Session, Workspace, WorkspaceLayout, WorkspacePage
from orbitd.store import pages, sessions, validation
from orbitd.store.cache import Change
from orbitd.store.rows import (
    SESSION_COLUMNS,
    Stored,
    find_session,
    find_workspace,
    now,
    session_from_row,
    to_json,
    workspace_not_found,
    workspace_values,
)
from orbitd.store.store import Store

_MAX_CANDIDATES = 20

_MEMBERS = f"SELECT {SESSION_COLUMNS} FROM sessions WHERE workspace_id = ?"  # noqa: S608  # a constant of ours

_CLEAR_IN_ARCHIVE = """
    UPDATE archived_sessions SET workspace_id = NULL, config = json_replace(config, '$.workspace_id', NULL)
    WHERE workspace_id = ?
"""


class WorkspaceMethods:
    """Create, find, list, change and delete workspaces."""

    _store: Store

    async def create_workspace(self, name: str, layout: WorkspaceLayout) -> Workspace:
        """Record a new workspace. Raises: NameTaken, InvalidParams."""
        workspace = Workspace(
            id=str(uuid.uuid4()),
            name=validation.name(name),
            created_at=now(),
            layout=validation.layout(layout),
            active_session_id=None,
        )

        def work(connection: sqlite3.Connection) -> Change[Workspace]:
            _refuse_taken_name(connection, workspace.name, workspace.id)
            cursor = connection.execute(
                "INSERT INTO workspaces (id, name, created_at, layout, active_session_id) VALUES (?, ?, ?, ?, ?)",
                workspace_values(workspace),
            )
            assert cursor.lastrowid is not None
            return Change(result=workspace, workspaces=(Stored(cursor.lastrowid, workspace),))

        return await self._store.write(work)

    async def get_workspace(self, workspace_id: str) -> Workspace:
        """Return a workspace. Raises: WorkspaceNotFound."""
        found = self._store.cache.workspaces.get(workspace_id)
        if found is None:
            raise workspace_not_found(workspace_id)
        return found

    async def find_workspace(self, ref: str) -> Workspace:
        """Find a workspace by id, name or unique id prefix (4+).

        Raises:
            WorkspaceNotFound: Nothing fits.
            AmbiguousReference: More than one fits; `data.candidates` has ids.
            InvalidParams: Nothing can be named so.
        """
        index, ref = self._store.cache.workspaces, validation.reference(ref)
        exact = index.get(ref) or index.named(ref)
        if exact is not None:
            return exact
        prefix = validation.id_prefix(ref)
        found = [] if prefix is None else index.with_prefix(prefix)
        if not found:
            raise WorkspaceNotFound(f"No workspace answers to {ref!r}")
        if len(found) > 1:
            candidates = [workspace.id for workspace in found[:_MAX_CANDIDATES]]
            raise AmbiguousReference(f"{ref!r} fits {len(found)} workspaces", data={"candidates": candidates})
        return found[0]

    async def list_workspaces(self, *, limit: int | None = None, cursor: str | None = None) -> WorkspacePage:
        """Return a page of workspaces, oldest first. Raises: InvalidParams."""
        found = self._store.cache.workspaces.after(pages.start_of(cursor))
        page, next_cursor = pages.cut(found, limit, pages.workspace_bytes)
        return WorkspacePage(workspaces=page, next_cursor=next_cursor)

    async def update_workspace_layout(self, workspace_id: str, layout: WorkspaceLayout) -> Workspace:
        """Replace a workspace's layout. Raises: WorkspaceNotFound, InvalidParams."""
        checked = validation.layout(layout)

        def work(connection: sqlite3.Connection) -> Change[Workspace]:
            stored = find_workspace(connection, workspace_id)
            connection.execute("UPDATE workspaces SET layout = ? WHERE id = ?", (to_json(checked), workspace_id))
            return _changed(stored, replace(stored.item, layout=checked))

        return await self._store.write(work)

    async def rename_workspace(self, workspace_id: str, name: str) -> Workspace:
        """Give a workspace another name. Raises: WorkspaceNotFound, NameTaken, InvalidParams."""
        checked = validation.name(name)

        def work(connection: sqlite3.Connection) -> Change[Workspace]:
            stored = find_workspace(connection, workspace_id)
            _refuse_taken_name(connection, checked, workspace_id)
            connection.execute("UPDATE workspaces SET name = ? WHERE id = ?", (checked, workspace_id))
            return _changed(stored, replace(stored.item, name=checked))

        return await self._store.write(work)

    async def set_active_session(self, workspace_id: str, session_id: str | None) -> Workspace:
        """Set which of a workspace's own sessions is active, or none. Raises: WorkspaceNotFound, SessionNotFound."""

        def work(connection: sqlite3.Connection) -> Change[Workspace]:
            stored = find_workspace(connection, workspace_id)
            # The foreign key asks for a session that exists, not for one of this workspace.
            if session_id is not None and find_session(connection, session_id).item.workspace_id != workspace_id:
                raise SessionNotFound(
                    f"Session {session_id} is not in workspace {workspace_id}",
                    hint="Move it there first (session.move).",
                )
            connection.execute("UPDATE workspaces SET active_session_id = ? WHERE id = ?", (session_id, workspace_id))
            return _changed(stored, replace(stored.item, active_session_id=session_id))

        return await self._store.write(work)

    async def delete_workspace(self, workspace_id: str, delete_sessions: bool = False) -> None:
        """Delete a workspace. Raises: WorkspaceNotFound.

        Args:
            workspace_id: Of the workspace.
            delete_sessions: Delete its sessions too; else they stay, in no workspace. Archived ones always stay.
        """

        def work(connection: sqlite3.Connection) -> Change[None]:
            find_workspace(connection, workspace_id)
            members = [session_from_row(row) for row in connection.execute(_MEMBERS, (workspace_id,))]
            gone: tuple[str, ...] = ()
            kept: tuple[Stored[Session], ...] = ()
            if delete_sessions:
                connection.execute("DELETE FROM sessions WHERE workspace_id = ?", (workspace_id,))
                gone = tuple(each.item.id for each in members)
            else:
                # Before the workspace goes: ON DELETE SET NULL would clear the column, not the
                # copy of the id in the JSON of `config`.
                kept = tuple(Stored(each.seq, sessions.in_workspace(each.item, None)) for each in members)
                for each in kept:
                    sessions.update_row(connection, each.item)
            # The archive has no foreign key to `workspaces` (0001_initial.sql).
            connection.execute(_CLEAR_IN_ARCHIVE, (workspace_id,))
            connection.execute("DELETE FROM workspaces WHERE id = ?", (workspace_id,))
            return Change(result=None, gone_sessions=gone, sessions=kept, gone_workspaces=(workspace_id,))

        await self._store.write(work)


def _changed(stored: Stored[Workspace], workspace: Workspace) -> Change[Workspace]:
    return Change(result=workspace, workspaces=(Stored(stored.seq, workspace),))


def _refuse_taken_name(connection: sqlite3.Connection, name: str, workspace_id: str) -> None:
    row = connection.execute(
        "SELECT id FROM workspaces WHERE name IN (?, ?) AND id != ?", (*validation.spellings(name), workspace_id)
    ).fetchone()
    if row is not None:
        raise NameTaken(f"Workspace {row[0]} has the name {name!r}", data={"id": row[0]})
