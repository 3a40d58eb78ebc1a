"""The SessionManager's methods for workspaces. Reading them never touches the disk."""

from __future__ import annotations

import uuid
from functools import partial

from orbit_protocol.errors import AmbiguousReference, WorkspaceNotFound
from orbit_protocol.types import Workspace, WorkspaceLayout, WorkspacePage
from orbitd.store import lookup, pages, validation, workspaces
from orbitd.store.clock import now
from orbitd.store.session_api import prefix_of
from orbitd.store.store import Store

_MOST_CANDIDATES = 20


class WorkspaceMethods:
    """Create, find, change and delete workspaces."""

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
        return await self._store.write(partial(workspaces.create, workspace=workspace))

    async def get_workspace(self, workspace_id: str) -> Workspace:
        """Return a workspace. Raises: WorkspaceNotFound."""
        found = self._store.cache.workspaces.get(workspace_id)
        if found is None:
            raise lookup.no_workspace(workspace_id)
        return found

    async def find_workspace(self, ref: str) -> Workspace:
        """Find a workspace by id, name or unique id prefix (4+). Raises: WorkspaceNotFound, AmbiguousReference."""
        index = self._store.cache.workspaces
        exact = index.get(ref) or index.named(ref)
        if exact is not None:
            return exact
        prefix = prefix_of(ref)
        found = [] if prefix is None else index.with_prefix(prefix)
        if not found:
            raise WorkspaceNotFound(f"No workspace answers to {ref!r}")
        if len(found) > 1:
            candidates = [workspace.id for workspace in found[:_MOST_CANDIDATES]]
            raise AmbiguousReference(f"{ref!r} fits {len(found)} workspaces", data={"candidates": candidates})
        return found[0]

    async def list_workspaces(self, *, limit: int | None = None, cursor: str | None = None) -> WorkspacePage:
        """Return a page of workspaces, oldest first. Raises: InvalidParams."""
        found = self._store.cache.workspaces.after(pages.after(cursor))
        page, next_cursor = pages.cut(found, limit, pages.workspace_bytes)
        return WorkspacePage(workspaces=page, next_cursor=next_cursor)

    async def update_workspace_layout(self, workspace_id: str, layout: WorkspaceLayout) -> Workspace:
        """Replace a workspace's layout. Raises: WorkspaceNotFound, InvalidParams."""
        work = partial(workspaces.update_layout, workspace_id=workspace_id, layout=validation.layout(layout))
        return await self._store.write(work)

    async def rename_workspace(self, workspace_id: str, name: str) -> Workspace:
        """Give a workspace another name. Raises: WorkspaceNotFound, NameTaken, InvalidParams."""
        return await self._store.write(
            partial(workspaces.rename, workspace_id=workspace_id, name=validation.name(name))
        )

    async def set_active_session(self, workspace_id: str, session_id: str | None) -> Workspace:
        """Put one of a workspace's own sessions in front, or none. Raises: WorkspaceNotFound, SessionNotFound."""
        work = partial(workspaces.set_active, workspace_id=workspace_id, session_id=session_id)
        return await self._store.write(work)

    async def delete_workspace(self, workspace_id: str, delete_sessions: bool = False) -> None:
        """Delete a workspace; its sessions stay without one, or go too. Raises: WorkspaceNotFound."""
        work = partial(workspaces.delete, workspace_id=workspace_id, delete_sessions=delete_sessions)
        await self._store.write(work)
