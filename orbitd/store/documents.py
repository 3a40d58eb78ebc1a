"""Documents of workspaces: the SessionManager's methods that export one and import it.

A document has the layout of a workspace and the configurations of its sessions. Applications name sessions by their
ids in layouts, so an import keeps the ids where they are free; where one is not, the session gets a new id, and
the strings of the layout that are the old one are replaced.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Sequence, Set
from typing import Literal

from msgspec import Raw, Struct
from msgspec.structs import replace

from orbit_protocol.errors import InvalidParams
from orbit_protocol.json_text import replace_strings
from orbit_protocol.params import check_size
from orbit_protocol.types import (
    MAX_NAME_LENGTH,
    MAX_PAGE_SIZE,
    Session,
    SessionConfig,
    SessionDocument,
    SessionStatus,
    Workspace,
    WorkspaceDocument,
)
from orbitd.store import events, validation
from orbitd.store.cache import Change
from orbitd.store.rows import (
    Stored,
    find_workspace,
    insert_session,
    insert_workspace,
    next_seq,
    now,
    update_session,
    update_workspace,
)
from orbitd.store.rows import find_session as find_stored_session
from orbitd.store.sessions import SessionMethods, is_id_free, is_name_free, stored_config
from orbitd.store.workspaces import WorkspaceMethods, refuse_taken_name

FORMAT = 1
"""The version of documents."""

MEMBERS: tuple[SessionStatus, ...] = ("active", "detached", "terminated")
"""The sessions of a workspace that are opened and exported: archived ones are out of the way on purpose."""


class _Plan(Struct, frozen=True, kw_only=True):
    """What an import inserts if every id in it is free."""

    workspace: Workspace
    sessions: tuple[Session, ...]
    kept: tuple[str, ...]
    private: dict[str, SessionConfig]


class DocumentMethods(SessionMethods, WorkspaceMethods):
    """List the sessions of a workspace, export it, and import a document."""

    async def list_members(self, workspace_id: str) -> list[Session]:
        """Return a workspace's sessions, oldest first, without archived ones. Raises: WorkspaceNotFound."""
        found: list[Session] = []
        cursor = None
        while True:
            page = await self.list_sessions(status=MEMBERS, workspace_id=workspace_id, cursor=cursor)
            found += page.sessions
            if (cursor := page.next_cursor) is None:
                return found

    async def export_workspace(self, workspace_id: str) -> WorkspaceDocument:
        """Return a workspace as a document.

        Raises:
            WorkspaceNotFound: There is none with the id.
            InvalidParams: It has more sessions than a document may have.
        """
        members = await self.list_members(workspace_id)
        if len(members) > MAX_PAGE_SIZE:
            raise InvalidParams(
                f"Workspace {workspace_id} has {len(members)} sessions, and a document {MAX_PAGE_SIZE} at most",
                hint="Delete sessions that have ended, or move some to another workspace.",
            )
        workspace = await self.get_workspace(workspace_id)
        active = workspace.active_session_id
        return WorkspaceDocument(
            orbit_workspace=FORMAT,
            name=workspace.name,
            layout=workspace.layout,
            sessions=[
                SessionDocument(
                    id=each.id,
                    name=each.name,
                    config=replace(each.config, workspace_id=None),
                    labels=each.labels,
                    cols=each.cols,
                    rows=each.rows,
                )
                for each in members
            ],
            active_session_id=active if any(each.id == active for each in members) else None,
        )

    async def import_workspace(self, document: WorkspaceDocument, name: str | None = None) -> Workspace:
        """Record the workspace of a document and its sessions, in one transaction; no program is started.

        A session keeps its id where that is a UUID which is free; else it gets a new one, and the layout with it. One
        whose name a session that has not ended has, is named NAME-2 and so on.

        Args:
            document: The document.
            name: Of the workspace, in the place of the document's.

        Raises:
            NameTaken: Another workspace has the name.
            InvalidParams: The document cannot be recorded; the text names the place.
        """
        taken: frozenset[str] = frozenset()
        while True:
            # In the pool: thousands of configurations are checked, and megabytes of a layout may be searched. Which ids
            # are free is decided in the transaction; where one is not, nothing is written and the plan is made again.
            plan = await self._store.in_pool(lambda taken=taken: _plan(document, name, taken))  # type: ignore[misc]
            outcome = await self._store.write(lambda connection, plan=plan: _insert(connection, plan))  # type: ignore[misc]
            if isinstance(outcome, Workspace):
                for session_id, config in plan.private.items():
                    self._private.add(session_id, config)
                return outcome
            taken |= outcome

    async def keep_ended(self, session_id: str) -> Session:
        """Have a session stay when its program has ended, whatever its configuration says. Raises: SessionNotFound."""
        live = self.live_fields(session_id)

        def work(connection: sqlite3.Connection) -> Change[Session]:
            stored = find_stored_session(connection, session_id)
            kept = Stored(stored.seq, replace(stored.item, config=replace(stored.item.config, auto_remove=False)))
            if kept.item.config == stored.item.config:
                return Change(result=stored.item)
            update_session(connection, kept)
            recorded = events.of_session("session.updated", kept.item, live)
            return Change(result=kept.item, sessions=(kept,), events=(recorded,))

        return await self._store.change_session(work)

    async def record_opened(self, workspace_id: str, kind: Literal["workspace.opened", "workspace.parked"]) -> None:
        """Record that sessions of a workspace were started, or their programs ended. Raises: WorkspaceNotFound."""

        def work(connection: sqlite3.Connection) -> Change[None]:
            workspace = find_workspace(connection, workspace_id).item
            return Change(result=None, events=(events.of_workspace(kind, workspace),))

        await self._store.write(work)


def _plan(document: WorkspaceDocument, name: str | None, taken: frozenset[str]) -> _Plan:
    """Check a document, and return what is to be inserted. Raises: InvalidParams."""
    if document.orbit_workspace != FORMAT:
        raise InvalidParams(
            f"`document.orbit_workspace` is {document.orbit_workspace}, and {FORMAT} is what can be read here",
            hint="A newer Orbit has exported it; update this one.",
        )
    _refuse_doubles([each.id for each in document.sessions])
    ids = {each.id: _new_id(each.id, taken) for each in document.sessions}
    active = document.active_session_id
    if active is not None and active not in ids:
        raise InvalidParams("`document.active_session_id` is the id of none of the document's sessions")
    moment = now()
    layout = validation.layout(document.layout)
    changed = {old: new for old, new in ids.items() if old != new}
    workspace = Workspace(
        id=str(uuid.uuid4()),
        name=validation.name(document.name if name is None else name),
        created_at=moment,
        layout=replace(layout, config=Raw(replace_strings(bytes(layout.config), changed))) if changed else layout,
        active_session_id=None if active is None else ids[active],
    )
    sessions, private = [], {}
    for place, each in enumerate(document.sessions):
        try:
            config = validation.config(replace(each.config, workspace_id=workspace.id))
            labels = {key: text for key, text in sorted(validation.labels(each.labels).items()) if text is not None}
            check_size(each.cols or 80, each.rows or 24)
            session_name = None if each.name is None else validation.name(each.name)
        except (InvalidParams, ValueError) as error:
            raise InvalidParams(f"{error} - at `document.sessions[{place}]`") from error
        if config.record == "none":
            private[ids[each.id]] = config
        sessions.append(
            Session(
                id=ids[each.id],
                name=session_name,
                session_type=config.session_type,
                created_at=moment,
                last_active=moment,
                # As `session.create` records it: a session that has a size and is detached has run here.
                status="active",
                config=stored_config(config),
                workspace_id=workspace.id,
                cols=each.cols,
                rows=each.rows,
                labels=labels,
            )
        )
    kept = tuple(old for old, new in ids.items() if old == new)
    return _Plan(workspace=workspace, sessions=tuple(sessions), kept=kept, private=private)


def _refuse_doubles(ids: Sequence[str]) -> None:
    first: dict[str, int] = {}
    for place, session_id in enumerate(ids):
        if (before := first.setdefault(session_id, place)) != place:
            raise InvalidParams(f"`document.sessions[{place}].id` is also that of `document.sessions[{before}]`")


def _new_id(session_id: str, taken: frozenset[str]) -> str:
    """Return the id that a session gets: its own where that is free, and a UUID, since files are named so."""
    try:
        is_uuid = str(uuid.UUID(session_id)) == session_id
    except ValueError:
        is_uuid = False
    return session_id if is_uuid and session_id not in taken else str(uuid.uuid4())


def _insert(connection: sqlite3.Connection, plan: _Plan) -> Change[Workspace | frozenset[str]]:
    """Insert what is planned; where ids of it are taken, insert nothing and return them."""
    refuse_taken_name(connection, plan.workspace.name, plan.workspace.id)
    taken = frozenset(each for each in plan.kept if not is_id_free(connection, each))
    if taken:
        return Change(result=taken)
    names = _FreeNames(connection, {each.name for each in plan.sessions})
    seq, session_seq = next_seq(connection, "workspaces"), next_seq(connection, "sessions")
    # The foreign keys: a session's workspace has to be there, and so has the active session of a workspace.
    insert_workspace(connection, Stored(seq, replace(plan.workspace, active_session_id=None)))
    sessions = []
    for place, each in enumerate(plan.sessions):
        stored = Stored(session_seq + place, replace(each, name=names.find(each.name)))
        insert_session(connection, stored)
        sessions.append(stored)
    workspace = Stored(seq, plan.workspace)
    if plan.workspace.active_session_id is not None:
        update_workspace(connection, workspace)
    recorded = [events.of_workspace("workspace.created", plan.workspace)]
    recorded += (events.of_session("session.created", each.item) for each in sessions)
    return Change(result=plan.workspace, sessions=tuple(sessions), workspaces=(workspace,), events=tuple(recorded))


class _FreeNames:
    """Finds names that no session has which has not ended, in the transaction that inserts sessions with them.

    Args:
        connection: The writer's.
        reserved: Names of the sessions that come, which none of them is given in the place of its own.
    """

    def __init__(self, connection: sqlite3.Connection, reserved: Set[str | None]) -> None:
        self._connection = connection
        self._reserved = reserved
        self._tried: dict[str, int] = {}

    def find(self, name: str | None) -> str | None:
        """Return a name where it is free; else NAME-2, or the first free number from there on."""
        if name is None or is_name_free(self._connection, name):
            return name
        # From the number where the search for this name has ended before: thousands may have the same name.
        number = self._tried.get(name, 2)
        while True:
            suffix = f"-{number}"
            numbered = validation.normalized(name[: MAX_NAME_LENGTH - len(suffix)] + suffix)
            number += 1
            if numbered not in self._reserved and is_name_free(self._connection, numbered):
                self._tried[name] = number
                return numbered
