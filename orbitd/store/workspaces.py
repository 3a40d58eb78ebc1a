"""Workspaces: the SessionManager's methods for them. Reading one never touches the disk.

Changes are made as in `sessions`: a function `work` decides inside the writer's transaction.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from msgspec.structs import replace

from orbit_protocol.errors import AmbiguousReference, NameTaken, SessionNotFound, WorkspaceNotFound
from orbit_protocol.types import Session, Workspace, WorkspaceLayout, WorkspacePage
from orbitd.store import events, pages, sessions, validation
from orbitd.store.cache import Change
from orbitd.store.damage import fetch_rows
from orbitd.store.events import NewEvent
from orbitd.store.files import hold_reserve
from orbitd.store.rows import (
    SESSION_COLUMNS,
    WORKSPACE_COLUMNS,
    DamagedRow,
    Stored,
    as_asked,
    delete_row,
    delete_session_row,
    find_session,
    find_workspace,
    in_workspace,
    insert_workspace,
    is_corrupt,
    next_seq,
    now,
    readable,
    session_from_row,
    update_session,
    update_workspace,
    workspace_from_row,
    workspace_not_found,
)
from orbitd.store.store import Store

_MAX_CANDIDATES = 20

_MEMBERS = f"""
    SELECT {SESSION_COLUMNS} FROM sessions
    WHERE {{sound}} AND seq IN (SELECT seq FROM sessions WHERE workspace_id = ?)
"""  # noqa: S608  # a constant of ours

_MEMBER_IDS = "SELECT id FROM sessions WHERE {sound} AND workspace_id = ?"
_ARCHIVED_MEMBERS = f"SELECT {SESSION_COLUMNS} FROM archived_sessions WHERE {{sound}} AND workspace_id = ?"  # noqa: S608  # likewise


class WorkspaceMethods:
    """Create, find, list, change and delete workspaces."""

    _store: Store
    live_fields: Callable[[str], Mapping[str, object]]

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
            refuse_taken_name(connection, workspace.name, workspace.id)
            stored = Stored(next_seq(connection, "workspaces"), workspace)
            insert_workspace(connection, stored)
            recorded = events.of_workspace("workspace.created", workspace)
            return Change(result=workspace, workspaces=(stored,), events=(recorded,))

        return await self._store.write(work)

    async def get_workspace(self, workspace_id: str) -> Workspace:
        """Return a workspace. Raises: WorkspaceNotFound."""
        found = self._store.cache.workspaces.get(workspace_id)
        if found is None:
            raise self._store.damage.workspace_missing(workspace_id)
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
            raise self._store.damage.named("workspaces", ref) or WorkspaceNotFound(f"No workspace answers to {ref!r}")
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
            return _update(connection, stored, replace(stored.item, layout=checked))

        return await self._store.write(work)

    async def rename_workspace(self, workspace_id: str, name: str) -> Workspace:
        """Give a workspace another name. Raises: WorkspaceNotFound, NameTaken, InvalidParams."""
        checked = validation.name(name)

        def work(connection: sqlite3.Connection) -> Change[Workspace]:
            stored = find_workspace(connection, workspace_id)
            refuse_taken_name(connection, checked, workspace_id)
            return _update(connection, stored, replace(stored.item, name=checked))

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
            return _update(connection, stored, replace(stored.item, active_session_id=session_id))

        return await self._store.write(work)

    async def _live_fields_of_members(self, workspace_id: str) -> dict[str, Mapping[str, object]]:
        """Return the fields of the running programs of a workspace's sessions."""
        rows = await self._store.fetch(("sessions",), _MEMBER_IDS, (workspace_id,))
        return {session_id: self.live_fields(session_id) for (session_id,) in rows}

    async def delete_workspace(self, workspace_id: str, delete_sessions: bool = False, *, purge: bool = True) -> None:
        """Delete a workspace, also one whose row cannot be read. Raises: WorkspaceNotFound.

        Args:
            workspace_id: Of the workspace.
            delete_sessions: Delete its sessions too; else they stay, in no workspace. Archived ones always stay, and
                those that cannot be read.
            purge: Delete them for good; else they are put into the trash.
        """
        damaged = self._store.damage.named("workspaces", workspace_id)
        touched = self._store.cache.touched.copy()
        live = await self._live_fields_of_members(workspace_id)

        def work(connection: sqlite3.Connection) -> Change[None]:
            seq = sessions.find_seq(connection, "workspaces", workspace_id, damaged)
            if seq is None:
                raise workspace_not_found(workspace_id)
            last_event = _event_of_deleted(connection, seq, workspace_id)
            members = _members(connection, "sessions", _MEMBERS, workspace_id)
            recorded: list[NewEvent] = []
            gone: tuple[str, ...] = ()
            workspaces: list[Stored[Workspace]] = []
            # Before the workspace goes: ON DELETE SET NULL would clear the column, not the
            # copy of the id in the JSON of `config`, and leave the checksum. Of those in the trash too.
            members = [Stored(each.seq, in_workspace(each.item, None)) for each in members]
            if delete_sessions:
                moment, remaining = now(), [each for each in members if each.item.deleted_at is None]
                for each in remaining:
                    workspaces += sessions.leave_front(connection, each.item.id)
                    if purge:
                        delete_session_row(connection, each.seq, each.item.id)
                        sessions.note_purged(connection, each.item.id)
                        recorded += events.purge_session(connection, each.item.id, each.item)
                    else:
                        deleted = sessions.put_into_trash(
                            connection, each, "sessions", moment, touched.get(each.item.id)
                        )
                        recorded.append(events.of_session("session.deleted", deleted))
                gone = tuple(each.item.id for each in remaining)
                members = [each for each in members if each.item.deleted_at is not None]
            for each in members:
                update_session(connection, each)
                if each.item.deleted_at is None:
                    recorded.append(events.of_session("session.updated", each.item, live.get(each.item.id)))
            kept = tuple(members)
            recorded += _leave_from_archive(connection, workspace_id)
            delete_row(connection, "workspaces", seq)
            others = tuple(each for each in workspaces if each.seq != seq)
            recorded += (events.of_workspace("workspace.updated", each.item) for each in others)
            recorded.append(last_event)
            return Change(
                result=None,
                gone_sessions=gone,
                sessions=kept,
                workspaces=others,
                gone_workspaces=(workspace_id,),
                events=tuple(recorded),
            )

        await self._store.write(work)
        if delete_sessions and not purge:
            await self._store.in_pool(partial(hold_reserve, self._store.path))
        await self._store.recheck_damaged()


def _event_of_deleted(connection: sqlite3.Connection, seq: int, workspace_id: str) -> NewEvent:
    """Return the event of a workspace that is about to be deleted; without data where its row is damaged."""
    query = f"SELECT {WORKSPACE_COLUMNS} FROM workspaces WHERE seq = ?"  # noqa: S608  # a constant of ours
    try:
        row = connection.execute(query, (seq,)).fetchone()
        return events.of_workspace(
            "workspace.deleted", as_asked(workspace_from_row(row), workspace_id, "workspaces").item
        )
    except (DamagedRow, sqlite3.DatabaseError) as error:
        if isinstance(error, sqlite3.Error) and not is_corrupt(error):
            raise
        return NewEvent(kind="workspace.deleted", workspace_id=workspace_id)


def _leave_from_archive(connection: sqlite3.Connection, workspace_id: str) -> Iterator[NewEvent]:
    """Take archived sessions out of a workspace: their table has no foreign key to it; yield the events."""
    for each in _members(connection, "archived_sessions", _ARCHIVED_MEMBERS, workspace_id):
        left = Stored(each.seq, in_workspace(each.item, None))
        update_session(connection, left, "archived_sessions")
        if left.item.deleted_at is None:
            yield events.of_session("session.updated", left.item)


def _members(connection: sqlite3.Connection, table: str, query: str, workspace_id: str) -> list[Stored[Session]]:
    found = fetch_rows(connection, (table,), query, (workspace_id,))
    return list(readable(found, partial(session_from_row, table=table)))


def _update(connection: sqlite3.Connection, stored: Stored[Workspace], workspace: Workspace) -> Change[Workspace]:
    if workspace == stored.item:
        return Change(result=workspace)
    changed = Stored(stored.seq, workspace)
    update_workspace(connection, changed)
    recorded = events.of_workspace("workspace.updated", workspace)
    return Change(result=workspace, workspaces=(changed,), events=(recorded,))


def refuse_taken_name(connection: sqlite3.Connection, name: str, workspace_id: str) -> None:
    """Raise NameTaken if another workspace has the name."""
    row = connection.execute(
        "SELECT id FROM workspaces WHERE name IN (?, ?) AND id != ?", (*validation.spellings(name), workspace_id)
    ).fetchone()
    if row is not None:
        raise NameTaken(f"Workspace {row[0]} has the name {name!r}", data={"id": row[0]})
