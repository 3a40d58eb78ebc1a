"""Which call of the manager answers which method.

Handlers return or raise; `orbitd.rpc.dispatch` answers. Each is one line where the manager
has the method already.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from orbit_protocol import methods as m
from orbit_protocol import params as p
from orbit_protocol import results as r
from orbit_protocol import types as t
from orbit_protocol.openrpc import document
from orbitd.live.service import Sessions
from orbitd.manager import SessionManager
from orbitd.rpc.connection import Call
from orbitd.rpc.dispatch import Handlers

Q = TypeVar("Q")


def add_daemon_handlers(
    handlers: Handlers[Call], *, info: Callable[[], r.DaemonInfo], stop: Callable[[], None]
) -> None:
    """Answer `daemon.*` and `rpc.discover`.

    Args:
        handlers: Where they are added.
        info: Tells about the daemon now.
        stop: Begins a graceful stop and returns at once.
    """

    def ping(_: Call, __: p.Params) -> r.Pong:
        return r.Pong()

    def shutdown(_: Call, __: p.Params) -> r.Empty:
        stop()
        return r.Empty()

    def discover(_: Call, __: p.Params) -> dict[str, Any]:
        return document()

    handlers.add(m.DAEMON_PING, ping)
    handlers.add(m.DAEMON_INFO, lambda _, __: info())
    handlers.add(m.DAEMON_SHUTDOWN, shutdown)
    handlers.add(m.RPC_DISCOVER, discover)


def add_session_handlers(handlers: Handlers[Call], manager: SessionManager, sessions: Sessions) -> None:
    """Answer `session.*` of the store; what is known of programs is laid over each Session."""

    def viewed(work: Callable[[Q], Awaitable[t.Session]]) -> Callable[[Call, Q], Coroutine[Any, Any, t.Session]]:
        async def handler(_: Call, q: Q) -> t.Session:
            return sessions.view(await work(q))

        return handler

    def get(_: Call, q: p.ById) -> t.Session | Coroutine[Any, Any, t.Session]:
        cached = manager.cached_session(q.id)
        return get_stored(q.id) if cached is None else sessions.view(cached)

    def list_(_: Call, q: p.SessionList) -> t.SessionPage | Coroutine[Any, Any, t.SessionPage]:
        if q.status is None and q.session_type is None and q.workspace_id is None and q.cursor is None:
            return sessions.view_page(manager.first_page(q.limit))
        return list_some(q)

    async def list_some(q: p.SessionList) -> t.SessionPage:
        return sessions.view_page(
            await manager.list_sessions(
                status=q.status,
                session_type=q.session_type,
                workspace_id=q.workspace_id,
                limit=q.limit,
                cursor=q.cursor,
            )
        )

    async def get_stored(session_id: str) -> t.Session:
        return sessions.view(await manager.get_session(session_id))

    async def delete(_: Call, q: p.ById) -> r.Empty:
        await sessions.delete(q.id)
        return r.Empty()

    handlers.add(m.SESSION_CREATE, viewed(lambda q: manager.create_session(q.config, q.name)))
    handlers.add(m.SESSION_GET, get)
    handlers.add(m.SESSION_FIND, viewed(lambda q: manager.find_session(q.ref)))
    handlers.add(m.SESSION_LIST, list_)
    handlers.add(m.SESSION_UPDATE_STATUS, viewed(lambda q: sessions.update_status(q.id, q.status)))
    handlers.add(m.SESSION_DETACH, viewed(lambda q: sessions.detach(q.id)))
    handlers.add(m.SESSION_TERMINATE, viewed(lambda q: sessions.terminate(q.id)))
    handlers.add(m.SESSION_DELETE, delete)
    handlers.add(m.SESSION_RENAME, viewed(lambda q: manager.rename_session(q.id, q.name)))
    handlers.add(m.SESSION_MOVE, viewed(lambda q: manager.move_session(q.id, q.workspace_id)))
    handlers.add(m.SESSION_TOUCH, viewed(lambda q: manager.touch_session(q.id)))
    handlers.add(m.SESSION_RESTORE_ARCHIVED, viewed(lambda q: manager.restore_archived_session(q.id)))


def add_live_handlers(handlers: Handlers[Call], sessions: Sessions) -> None:
    """Answer the methods that only sessions with a program have."""

    async def start(_: Call, q: p.SessionStart) -> t.Session:
        return sessions.view(await sessions.start(q))

    async def leave(call: Call, q: p.ByAttachment) -> r.Empty:
        await sessions.leave(call.connection, q.attachment_id)
        return r.Empty()

    def type_(call: Call, q: p.SessionInput) -> r.Empty:
        sessions.type(call.connection, q.attachment_id, q.data)
        return r.Empty()

    def resize(call: Call, q: p.SessionResize) -> r.Empty:
        sessions.resize(call.connection, q.attachment_id, q.cols, q.rows)
        return r.Empty()

    async def send(_: Call, q: p.SessionSend) -> r.Empty:
        await sessions.send(q.id, q.data)
        return r.Empty()

    async def signal(_: Call, q: p.SessionSignal) -> r.Empty:
        assert q.number is not None  # decoding has seen to it
        await sessions.signal(q.id, q.number)
        return r.Empty()

    handlers.add(m.SESSION_START, start)
    handlers.add(m.SESSION_ATTACH, sessions.attach)
    handlers.add(m.SESSION_LEAVE, leave)
    handlers.add(m.SESSION_INPUT, type_)
    handlers.add(m.SESSION_RESIZE, resize)
    handlers.add(m.SESSION_SEND, send)
    handlers.add(m.SESSION_SCREEN, lambda _, q: sessions.screen(q.id, q.format, scrollback=q.scrollback))
    handlers.add(m.SESSION_WAIT, lambda _, q: sessions.wait(q.id, q.timeout_secs))
    handlers.add(m.SESSION_SIGNAL, signal)


def add_snapshot_handlers(handlers: Handlers[Call], manager: SessionManager) -> None:
    """Answer `snapshot.*`."""

    async def save(_: Call, q: p.SnapshotSave) -> t.SnapshotInfo:
        return await manager.save_snapshot(q.session_id, q.terminal_buffer, q.scrollback, cols=q.cols, rows=q.rows)

    async def delete(_: Call, q: p.ById) -> r.Empty:
        await manager.delete_snapshot(q.id)
        return r.Empty()

    handlers.add(m.SNAPSHOT_SAVE, save)
    handlers.add(m.SNAPSHOT_LATEST, lambda _, q: manager.load_latest_snapshot(q.session_id))
    handlers.add(m.SNAPSHOT_GET, lambda _, q: manager.get_snapshot(q.id))
    handlers.add(m.SNAPSHOT_LIST, lambda _, q: manager.list_snapshots(q.session_id, limit=q.limit, cursor=q.cursor))
    handlers.add(m.SNAPSHOT_DELETE, delete)


def add_workspace_handlers(handlers: Handlers[Call], manager: SessionManager, sessions: Sessions) -> None:
    """Answer `workspace.*`."""

    async def delete(_: Call, q: p.WorkspaceDelete) -> r.Empty:
        await sessions.delete_workspace(q.id, delete_sessions=q.delete_sessions)
        return r.Empty()

    handlers.add(m.WORKSPACE_CREATE, lambda _, q: manager.create_workspace(q.name, q.layout))
    handlers.add(m.WORKSPACE_GET, lambda _, q: manager.get_workspace(q.id))
    handlers.add(m.WORKSPACE_FIND, lambda _, q: manager.find_workspace(q.ref))
    handlers.add(m.WORKSPACE_LIST, lambda _, q: manager.list_workspaces(limit=q.limit, cursor=q.cursor))
    handlers.add(m.WORKSPACE_UPDATE_LAYOUT, lambda _, q: manager.update_workspace_layout(q.id, q.layout))
    handlers.add(m.WORKSPACE_RENAME, lambda _, q: manager.rename_workspace(q.id, q.name))
    handlers.add(m.WORKSPACE_SET_ACTIVE_SESSION, lambda _, q: manager.set_active_session(q.id, q.session_id))
    handlers.add(m.WORKSPACE_DELETE, delete)


def add_maintenance_handlers(handlers: Handlers[Call], manager: SessionManager, sessions: Sessions) -> None:
    """Answer `maintenance.*` and `stats.get`."""

    async def auto_save(_: Call, __: p.Params) -> r.AutoSaveResult:
        return r.AutoSaveResult(saved=await sessions.auto_save())

    async def cleanup(_: Call, q: p.CleanupSnapshots) -> r.CleanupResult:
        return r.CleanupResult(deleted=await manager.cleanup_old_snapshots(q.keep_last_n))

    async def archive(_: Call, q: p.Archive) -> r.ArchiveResult:
        return r.ArchiveResult(archived=await manager.archive_sessions(q.terminated_before))

    async def vacuum(_: Call, __: p.Params) -> r.VacuumResult:
        return r.VacuumResult(bytes_freed=await manager.vacuum())

    handlers.add(m.MAINTENANCE_AUTO_SAVE, auto_save)
    handlers.add(m.MAINTENANCE_CLEANUP_SNAPSHOTS, cleanup)
    handlers.add(m.MAINTENANCE_ARCHIVE, archive)
    handlers.add(m.MAINTENANCE_VACUUM, vacuum)
    handlers.add(m.MAINTENANCE_CHECK, lambda _, __: manager.check())
    handlers.add(m.MAINTENANCE_BACKUP, lambda _, q: manager.backup(q.path))
    handlers.add(m.STATS_GET, lambda _, __: sessions.stats())


def add_store_handlers(handlers: Handlers[Call], manager: SessionManager, sessions: Sessions) -> None:
    """Answer every method of sessions and of the store."""
    add_session_handlers(handlers, manager, sessions)
    add_live_handlers(handlers, sessions)
    add_snapshot_handlers(handlers, manager)
    add_workspace_handlers(handlers, manager, sessions)
    add_maintenance_handlers(handlers, manager, sessions)
