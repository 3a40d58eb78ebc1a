"""Open and park workspaces: start the programs of all of its sessions, or end them, a few at a time.

One call at a time opens, parks or deletes a workspace: an open that comes while it is parked begins when that is done.
What fails for one session is in the answer, and stops no other one. A session that was deleted, archived or moved to
another workspace meanwhile is left alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from orbit_protocol.errors import (
    AlreadyRunning,
    InternalError,
    InvalidParams,
    OrbitError,
    SessionNotFound,
    ShuttingDown,
    StorageError,
)
from orbit_protocol.params import WorkspaceOpen, check_size
from orbit_protocol.results import ErrorObject, NotOpened, WorkspaceSessions
from orbit_protocol.types import Session, SessionDocument, WorkspaceDocument
from orbitd.logs import event
from orbitd.manager import SessionManager
from orbitd.sessions.command_line import last_size
from orbitd.sessions.files import is_private
from orbitd.sessions.programs import Programs

log = logging.getLogger("orbitd.sessions")

OPENED_TOGETHER = 8
"""How many sessions of one call are started at the same time: more is not faster, and other clients are served
meanwhile."""
PARKED_TOGETHER = 16
"""How many programs of one call are ended at the same time: most of that is waiting for them."""
LOOKED_AT_ONCE = 20
"""Programs whose folders are looked up between two turns of the event loop."""


class Outcome(Struct, frozen=True, kw_only=True):
    """What became of one session."""

    session_id: str
    changed: bool = False
    error: OrbitError | None = None


class Workspaces:
    """Opens, parks and exports workspaces.

    Args:
        manager: The store.
        programs: What runs.
        terminate: Ends a session, and its program first.
        with_live_fields: Returns a session with the fields of its running program.
    """

    def __init__(
        self,
        manager: SessionManager,
        programs: Programs,
        terminate: Callable[[str], Awaitable[Session]],
        with_live_fields: Callable[[Session], Session],
    ) -> None:
        self._manager = manager
        self._programs = programs
        self._terminate = terminate
        self._with_live_fields = with_live_fields
        # Weak: a lock exists as long as somebody holds it or waits for it.
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    @contextlib.asynccontextmanager
    async def locked(self, workspace_id: str) -> AsyncIterator[None]:
        """Wait until no other call opens, parks or deletes a workspace, and keep others from it meanwhile."""
        lock = self._locks.get(workspace_id)
        if lock is None:
            lock = self._locks[workspace_id] = asyncio.Lock()
        async with lock:
            yield

    async def open(self, q: WorkspaceOpen) -> WorkspaceSessions:
        """Start every session of a workspace that does not run, but for those that an application hosts itself.

        Raises:
            WorkspaceNotFound: There is none with the id, or no longer.
            LiveUnavailable: What runs is not known, or no session can be started here.
        """
        env = q.environment

        async def start(session: Session) -> bool:
            if self._programs.closing.done():
                raise ShuttingDown("The daemon is shutting down", hint="Open the workspace again when it is back.")
            if await self._is_external(session) or self._has_run_privately(session):
                return False
            last_cols, last_rows = last_size(session)
            cols, rows = q.cols or last_cols, q.rows or last_rows
            try:
                check_size(cols, rows)  # where one of both is given
            except ValueError as error:
                raise InvalidParams(str(error)) from error
            with contextlib.suppress(AlreadyRunning, SessionNotFound):
                await self._programs.start(session.id, cols, rows, env, umask=q.umask, limits=q.limits, only_in=q.id)
                return True
            return False

        async with self.locked(q.id):
            members = await self._manager.list_members(q.id)
            await self._programs.keeper.require_known()
            todo = [each for each in members if self._programs.registry.running(each.id) is None]
            if todo:
                self._programs.require_emulation()
            return await self._answer(q.id, "workspace.opened", await _for_each(todo, start, OPENED_TOGETHER))

    async def park(self, workspace_id: str) -> WorkspaceSessions:
        """End the programs of a workspace's sessions; all else is kept.

        Raises:
            WorkspaceNotFound: There is none with the id, or no longer.
            LiveUnavailable: A session is recorded as running, and the keeper does not answer.
        """

        async def end(session: Session) -> bool:
            with contextlib.suppress(SessionNotFound):
                now = await self._manager.get_session(session.id)
                if now.workspace_id != workspace_id:
                    return False
                if now.config.auto_remove:  # it would be deleted when its program has ended
                    await self._manager.keep_ended(session.id)
                await self._terminate(session.id)
                return True
            return False

        async with self.locked(workspace_id):
            members = await self._manager.list_members(workspace_id)
            registry = self._programs.registry
            # One that waits for its next try to connect has no program, and would get one.
            todo = [each for each in members if each.live or registry.attachable(each.id) or registry.running(each.id)]
            if any(each.live for each in todo):
                await self._programs.keeper.require_restored()
            return await self._answer(workspace_id, "workspace.parked", await _for_each(todo, end, PARKED_TOGETHER))

    async def export(self, workspace_id: str) -> WorkspaceDocument:
        """Return a workspace as a document, with the sizes that terminals have now.

        Raises:
            WorkspaceNotFound, InvalidParams: As `SessionManager.export_workspace` does.
        """
        document = await self._manager.export_workspace(workspace_id)
        return replace(document, sessions=[self._with_size(each) for each in document.sessions])

    def _with_size(self, session: SessionDocument) -> SessionDocument:
        live = self._programs.registry.running(session.id)
        return session if live is None else replace(session, cols=live.size[0], rows=live.size[1])

    def _has_run_privately(self, session: Session) -> bool:
        """Return whether a session is private and cannot be started again: what it runs was in memory only."""
        return is_private(session) and self._manager.private_config(session.id) is None

    async def _is_external(self, session: Session) -> bool:
        """Return whether an application hosts a session itself: it saves its screen, and no program has run here."""
        if session.last_saved_at is None or session.exit_code is not None or session.exit_signal is not None:
            return False
        newest = (await self._manager.list_snapshots(session.id, limit=1)).snapshots
        return bool(newest) and newest[0].format == "opaque"

    async def _answer(
        self,
        workspace_id: str,
        kind: Literal["workspace.opened", "workspace.parked"],
        outcomes: Sequence[Outcome],
    ) -> WorkspaceSessions:
        if any(each.changed for each in outcomes):
            try:
                await self._manager.record_opened(workspace_id, kind)
            except StorageError as error:  # what was done is answered all the same
                event(log, logging.ERROR, "event not recorded", workspace=workspace_id, kind=kind, error=error.message)
        members = await self._manager.list_members(workspace_id)
        ids, sessions = {each.id for each in members}, []
        for place, each in enumerate(members):
            if place % LOOKED_AT_ONCE == LOOKED_AT_ONCE - 1:
                await asyncio.sleep(0)
            sessions.append(self._with_live_fields(each))
        return WorkspaceSessions(
            workspace=await self._manager.get_workspace(workspace_id),
            sessions=sessions,
            changed=[each.session_id for each in outcomes if each.changed and each.session_id in ids],
            failed=[
                NotOpened(session_id=each.session_id, error=_error_object(each.error))
                for each in outcomes
                if each.error is not None and each.session_id in ids
            ],
        )


async def _for_each(
    sessions: Sequence[Session], act: Callable[[Session], Awaitable[bool]], together: int
) -> list[Outcome]:
    """Do something to each of some sessions, so many at a time; return what became of each, in their order."""
    turns = asyncio.Semaphore(together)

    async def one(session: Session) -> Outcome:
        async with turns:
            try:
                return Outcome(session_id=session.id, changed=await act(session))
            except OrbitError as error:
                return Outcome(session_id=session.id, error=error)
            except Exception as error:  # noqa: BLE001  # one of many: no memory, a library's error
                reference = uuid.uuid4().hex[:12]
                kind = type(error).__name__
                event(
                    log,
                    logging.ERROR,
                    "session not opened or parked",
                    session=session.id,
                    reference=reference,
                    error=kind,
                    exc=error,
                )
                hidden = InternalError(f"Internal error (reference {reference})", data={"reference": reference})
                return Outcome(session_id=session.id, error=hidden)

    # A group: a request that is cancelled takes its starts with it, each of which undoes itself.
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(each)) for each in sessions]
    return [each.result() for each in tasks]


def _error_object(error: OrbitError) -> ErrorObject:
    return ErrorObject(code=error.code, message=error.message, data=error.data())
