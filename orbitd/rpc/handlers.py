"""Which call answers which method.

Handlers return a result or raise an `OrbitError`; `orbitd.rpc.dispatch` answers. Those that never
wait are plain functions and cost no task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

from orbit_protocol import methods as m
from orbit_protocol import params as p
from orbit_protocol import results as r
from orbit_protocol import types as t
from orbit_protocol.openrpc import document
from orbitd.events.methods import EventMethods
from orbitd.history.methods import HistoryMethods
from orbitd.manager import SessionManager
from orbitd.rpc.connection import Call, Connection
from orbitd.rpc.dispatch import Handlers
from orbitd.sessions import attachment
from orbitd.sessions.circles import program_name
from orbitd.sessions.methods import SessionMethods
from orbitd.sessions.session import LiveSession

P = TypeVar("P")


def add_daemon_handlers(
    handlers: Handlers[Call],
    *,
    info: Callable[[], r.DaemonInfo],
    connections: Callable[[], Coroutine[Any, Any, r.Connections]],
    stop: Callable[[], None],
) -> None:
    """Answer `daemon.*`, `rpc.discover`, `$/cancelRequest` and `$/watchProgress`.

    Args:
        handlers: Where they are added.
        info: Returns the answer of `daemon.info`.
        connections: Returns the answer of `daemon.connections`.
        stop: Starts a graceful stop and returns at once.
    """

    def ping(_: Call, __: p.Params) -> r.Pong:
        return r.Pong()

    def shutdown(_: Call, __: p.Params) -> r.Empty:
        stop()
        return r.Empty()

    def discover(_: Call, __: p.Params) -> dict[str, Any]:
        return document()

    def cancel(call: Call, params: p.CancelRequest) -> r.Empty:
        call.connection.cancel_waits(params.id)
        return r.Empty()

    def watch(call: Call, params: p.WatchProgress) -> r.Empty:
        call.connection.watch_progress(params.id)
        return r.Empty()

    handlers.add(m.DAEMON_PING, ping)
    handlers.add(m.DAEMON_INFO, lambda _, __: info())
    handlers.add(m.DAEMON_CONNECTIONS, lambda _, __: connections())
    handlers.add(m.DAEMON_SHUTDOWN, shutdown)
    handlers.add(m.RPC_DISCOVER, discover)
    handlers.add(m.CANCEL_REQUEST, cancel)
    handlers.add(m.WATCH_PROGRESS, watch)


async def connected(connections: list[Connection], sessions: Iterable[LiveSession]) -> r.Connections:
    """Return the answer of `daemon.connections`.

    Args:
        connections: Those of the server.
        sessions: All sessions of the daemon.
    """
    attachments: dict[Connection, list[r.ConnectionAttachment]] = {one: [] for one in connections}
    for live in sessions:
        for each in live.attachments:
            of_connection = attachments.setdefault(each.connection, [])
            of_connection.append(r.ConnectionAttachment(attachment_id=each.id, session_id=live.id))
    peers = [one.peer for one in connections]
    names: list[str | None]
    try:
        # In a thread: the files of hundreds of processes are read.
        names = await asyncio.to_thread(lambda: [None if peer is None else program_name(peer) for peer in peers])
    except RuntimeError:  # none can be started now; this is asked to find out why
        names = [None] * len(peers)
    return r.Connections(
        connections=[
            r.ConnectionInfo(
                pid=(one.peer.pid or None) if one.peer else None,
                program=name,
                since=one.since,
                attachments=attachments[one],
                reserved=one.in_reserve,
            )
            for one, name in zip(connections, names, strict=True)
        ]
    )


def add_session_handlers(handlers: Handlers[Call], manager: SessionManager, sessions: SessionMethods) -> None:
    """Answer the `session.*` methods of the store; a running program's fields are added to each Session."""

    def viewed(work: Callable[[P], Awaitable[t.Session]]) -> Callable[[Call, P], Coroutine[Any, Any, t.Session]]:
        async def handler(_: Call, params: P) -> t.Session:
            return sessions.with_live_fields(await work(params))

        return handler

    def get(_: Call, params: p.ById) -> t.Session | Coroutine[Any, Any, t.Session]:
        cached = manager.cached_session(params.id)
        return get_stored(params.id) if cached is None else sessions.with_live_fields(cached)

    def list_(_: Call, params: p.SessionList) -> t.SessionPage | Coroutine[Any, Any, t.SessionPage]:
        if (
            params.status is None
            and params.session_type is None
            and params.workspace_id is None
            and params.labels is None
            and params.cursor is None
        ):
            return sessions.page_with_live_fields(manager.first_page(params.limit))
        return list_some(params)

    async def list_some(params: p.SessionList) -> t.SessionPage:
        return sessions.page_with_live_fields(
            await manager.list_sessions(
                status=params.status,
                session_type=params.session_type,
                workspace_id=params.workspace_id,
                labels=params.labels,
                limit=params.limit,
                cursor=params.cursor,
            )
        )

    async def get_stored(session_id: str) -> t.Session:
        return sessions.with_live_fields(await manager.get_session(session_id))

    async def delete(_: Call, params: p.SessionDelete) -> r.Empty:
        await sessions.delete(params.id, purge=params.purge)
        return r.Empty()

    async def list_deleted(_: Call, params: p.SessionListDeleted) -> t.SessionPage:
        return await manager.list_deleted_sessions(limit=params.limit, cursor=params.cursor)

    handlers.add(m.SESSION_CREATE, viewed(lambda params: manager.create_session(params.config, params.name)))
    handlers.add(m.SESSION_GET, get)
    handlers.add(m.SESSION_FIND, viewed(lambda params: manager.find_session(params.ref)))
    handlers.add(m.SESSION_LIST, list_)
    handlers.add(m.SESSION_UPDATE_STATUS, viewed(lambda params: sessions.update_status(params.id, params.status)))
    handlers.add(m.SESSION_DETACH, viewed(lambda params: sessions.detach(params.id)))
    handlers.add(m.SESSION_TERMINATE, viewed(lambda params: sessions.terminate(params.id)))
    handlers.add(m.SESSION_DELETE, delete)
    handlers.add(m.SESSION_UNDELETE, viewed(lambda params: sessions.undelete(params.id)))
    handlers.add(m.SESSION_LIST_DELETED, list_deleted)
    handlers.add(m.SESSION_RENAME, viewed(lambda params: manager.rename_session(params.id, params.name)))
    handlers.add(m.SESSION_SET_LABELS, viewed(lambda params: manager.set_labels(params.id, params.labels)))
    handlers.add(m.SESSION_SET_RESUME, viewed(lambda params: manager.set_resume(params.id, params.command)))
    handlers.add(m.SESSION_MOVE, viewed(lambda params: manager.move_session(params.id, params.workspace_id)))
    handlers.add(m.SESSION_TOUCH, viewed(lambda params: manager.touch_session(params.id)))
    handlers.add(m.SESSION_RESTORE_ARCHIVED, viewed(lambda params: manager.restore_archived_session(params.id)))


def add_live_handlers(handlers: Handlers[Call], sessions: SessionMethods) -> None:
    """Answer the methods of live sessions."""

    async def start(_: Call, params: p.SessionStart) -> t.Session:
        return sessions.with_live_fields(await sessions.start(params))

    async def signal(_: Call, params: p.SessionSignal) -> r.Empty:
        assert params.number is not None  # decoding has seen to it
        await sessions.signal(params.id, params.number)
        return r.Empty()

    handlers.add(m.SESSION_START, start)
    handlers.add(m.SESSION_ATTACH, sessions.attach)
    handlers.add(m.SESSION_SWITCH, sessions.switch)
    handlers.add(m.SESSION_LEAVE, lambda call, params: sessions.end_attachment(call.connection, params.attachment_id))
    handlers.add(m.SESSION_INPUT, attachment.write_input)
    handlers.add(m.SESSION_RESIZE, attachment.resize)
    handlers.add(m.SESSION_REFRESH, attachment.refresh)
    handlers.add(m.SESSION_SEND, sessions.send_input)
    handlers.add(m.SESSION_WAIT, lambda _, params: sessions.wait(params))
    handlers.add(m.SESSION_SIGNAL, signal)


def add_snapshot_handlers(handlers: Handlers[Call], manager: SessionManager) -> None:
    """Answer `snapshot.*`."""

    async def save(_: Call, params: p.SnapshotSave) -> t.SnapshotInfo:
        return await manager.save_snapshot(
            params.session_id, params.terminal_buffer, params.scrollback, cols=params.cols, rows=params.rows
        )

    async def delete(_: Call, params: p.ById) -> r.Empty:
        await manager.delete_snapshot(params.id)
        return r.Empty()

    handlers.add(m.SNAPSHOT_SAVE, save)
    handlers.add(m.SNAPSHOT_LATEST, lambda _, params: manager.load_latest_snapshot(params.session_id))
    handlers.add(m.SNAPSHOT_GET, lambda _, params: manager.get_snapshot(params.id))
    handlers.add(
        m.SNAPSHOT_LIST,
        lambda _, params: manager.list_snapshots(params.session_id, limit=params.limit, cursor=params.cursor),
    )
    handlers.add(m.SNAPSHOT_DELETE, delete)


def add_workspace_handlers(handlers: Handlers[Call], manager: SessionManager, sessions: SessionMethods) -> None:
    """Answer `workspace.*`."""

    async def delete(_: Call, params: p.WorkspaceDelete) -> r.Empty:
        await sessions.delete_workspace(params.id, delete_sessions=params.delete_sessions)
        return r.Empty()

    handlers.add(m.WORKSPACE_CREATE, lambda _, params: manager.create_workspace(params.name, params.layout))
    handlers.add(m.WORKSPACE_GET, lambda _, params: manager.get_workspace(params.id))
    handlers.add(m.WORKSPACE_FIND, lambda _, params: manager.find_workspace(params.ref))
    handlers.add(m.WORKSPACE_LIST, lambda _, params: manager.list_workspaces(limit=params.limit, cursor=params.cursor))
    handlers.add(m.WORKSPACE_UPDATE_LAYOUT, lambda _, params: manager.update_workspace_layout(params.id, params.layout))
    handlers.add(m.WORKSPACE_RENAME, lambda _, params: manager.rename_workspace(params.id, params.name))
    handlers.add(
        m.WORKSPACE_SET_ACTIVE_SESSION, lambda _, params: manager.set_active_session(params.id, params.session_id)
    )
    handlers.add(m.WORKSPACE_DELETE, delete)
    handlers.add(m.WORKSPACE_OPEN, lambda _, params: sessions.workspaces.open(params))
    handlers.add(m.WORKSPACE_PARK, lambda _, params: sessions.workspaces.park(params.id))
    handlers.add(m.WORKSPACE_EXPORT, lambda _, params: sessions.workspaces.export(params.id))
    handlers.add(m.WORKSPACE_IMPORT, lambda _, params: manager.import_workspace(params.document, params.name))


def add_maintenance_handlers(handlers: Handlers[Call], manager: SessionManager, sessions: SessionMethods) -> None:
    """Answer `maintenance.*` and `stats.get`."""

    async def auto_save(_: Call, __: p.Params) -> r.AutoSaveResult:
        return r.AutoSaveResult(saved=await sessions.auto_save())

    async def cleanup(call: Call, params: p.CleanupSnapshots) -> r.CleanupResult:
        return r.CleanupResult(deleted=await manager.cleanup_old_snapshots(params.keep_last_n, call.progress))

    async def archive(call: Call, params: p.Archive) -> r.ArchiveResult:
        return r.ArchiveResult(archived=await manager.archive_sessions(params.terminated_before, call.progress))

    async def vacuum(call: Call, _: p.Params) -> r.VacuumResult:
        return r.VacuumResult(bytes_freed=await manager.vacuum(call.progress))

    handlers.add(m.MAINTENANCE_AUTO_SAVE, auto_save)
    handlers.add(m.MAINTENANCE_CLEANUP_SNAPSHOTS, cleanup)
    handlers.add(m.MAINTENANCE_ARCHIVE, archive)
    handlers.add(m.MAINTENANCE_VACUUM, vacuum)


def add_event_handlers(handlers: Handlers[Call], events: EventMethods) -> None:
    """Answer `events.*`."""
    handlers.add(m.EVENTS_SUBSCRIBE, events.subscribe)
    handlers.add(m.EVENTS_UNSUBSCRIBE, events.unsubscribe)
    handlers.add(m.EVENTS_LIST, events.list_events)
    handlers.add(m.EVENTS_WAIT, events.wait)


def add_history_handlers(handlers: Handlers[Call], sessions: SessionMethods, history: HistoryMethods) -> None:
    """Answer `history.*`, and what of other methods is about the past."""

    async def stats(_: Call, __: p.Params) -> r.SessionStats:
        return await history.stats(await sessions.stats())

    handlers.add(
        m.SESSION_SCREEN,
        lambda _, params: sessions.screen(params) if params.at is None else history.screen(params),
    )
    handlers.add(m.STATS_GET, stats)
    handlers.add(m.MAINTENANCE_CHECK, lambda call, params: history.check(params.limit_secs, call.progress))
    handlers.add(
        m.MAINTENANCE_BACKUP,
        lambda call, params: history.backup(params.file, with_history=params.with_history, progress=call.progress),
    )
    handlers.add(m.HISTORY_LINES, lambda _, params: history.lines(params))
    handlers.add(m.HISTORY_TIMELINE, lambda _, params: history.timeline(params))
    handlers.add(m.HISTORY_EXPORT, lambda call, params: history.export(params, call.progress))
    handlers.add(m.HISTORY_SEARCH, lambda _, params: history.searcher.search(params))
    handlers.add(m.HISTORY_FORGET, lambda call, params: history.forgetting.forget(params, call.progress))


def add_store_handlers(handlers: Handlers[Call], manager: SessionManager, sessions: SessionMethods) -> None:
    """Answer every method of sessions and of the store."""
    add_session_handlers(handlers, manager, sessions)
    add_live_handlers(handlers, sessions)
    add_snapshot_handlers(handlers, manager)
    add_workspace_handlers(handlers, manager, sessions)
    add_maintenance_handlers(handlers, manager, sessions)
