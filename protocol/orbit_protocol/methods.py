"""The one table of methods; dispatch, the client, OpenRPC and the documents read it.

A method's name is typed once, here. Adding a method is adding a row: the daemon then
refuses to start until it has a handler, and the tests of bad input cover it at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from orbit_protocol import errors as e
from orbit_protocol import params as p
from orbit_protocol import results as r
from orbit_protocol import types as t
from orbit_protocol.errors import OrbitError

P = TypeVar("P", contravariant=True)
R = TypeVar("R", covariant=True)


@dataclass(frozen=True)
class Method(Generic[P, R]):
    """One method of the contract.

    Args:
        name: What stands in a request's `method`.
        params: The Struct that its params are decoded into.
        result: The type of its result (a Struct, or a union with None).
        summary: One sentence for people.
        errors: What it may answer beside the errors that every method may.
        can_wait: A call may wait for a program for ever, or work for long: it takes none of the places of those in
            flight, and `$/cancelRequest` and the end of the connection end it. What it has done by then stays.
        is_input: Its calls on one connection are carried out in the order in which they were sent.
        is_urgent: It is started also while others are held back, since the client has too many in flight or does not
            read; its answer is small.
        in_reserve: It is served on the connections that are kept back, too, when all others are used.
    """

    name: str
    params: type[Any]
    result: Any
    summary: str
    errors: tuple[type[OrbitError], ...] = ()
    can_wait: bool = False
    is_input: bool = False
    is_urgent: bool = False
    in_reserve: bool = False


ANY_METHOD: tuple[type[OrbitError], ...] = (e.InvalidParams, e.InternalError, e.Busy, e.ShuttingDown)
"""What every method may answer."""

READS = (e.StorageCorrupt,)
WRITES = (e.StorageFull, e.StorageCorrupt, e.StorageReadOnly)
_ONE = (e.SessionNotFound, *WRITES)
_SPACE = (e.WorkspaceNotFound, *WRITES)
_RUNNING = (e.SessionNotFound, e.NotRunning, e.LiveUnavailable)

DAEMON_PING: Method[p.Params, r.Pong] = Method("daemon.ping", p.Params, r.Pong, "Answer at once.", in_reserve=True)
DAEMON_INFO: Method[p.Params, r.DaemonInfo] = Method(
    "daemon.info", p.Params, r.DaemonInfo, "Return version, process, paths, features and limits.", in_reserve=True
)
DAEMON_CONNECTIONS: Method[p.Params, r.Connections] = Method(
    "daemon.connections", p.Params, r.Connections, "Return who is connected, the oldest first.", in_reserve=True
)
DAEMON_SHUTDOWN: Method[p.Params, r.Empty] = Method(
    "daemon.shutdown", p.Params, r.Empty, "Answer what is in flight, save, and exit 0.", in_reserve=True
)
RPC_DISCOVER: Method[p.Params, dict[str, Any]] = Method(
    "rpc.discover", p.Params, dict[str, Any], "Return this document (OpenRPC 1.3)."
)
CANCEL_REQUEST: Method[p.CancelRequest, r.Empty] = Method(
    "$/cancelRequest",
    p.CancelRequest,
    r.Empty,
    "End the calls of this connection that wait and have this id; an id that none has is ignored.",
    is_urgent=True,
    in_reserve=True,
)

WATCH_PROGRESS: Method[p.WatchProgress, r.Empty] = Method(
    "$/watchProgress",
    p.WatchProgress,
    r.Empty,
    "Send `$/progress` while the call of this connection that has this id works; an id that none has is ignored.",
    is_urgent=True,
    in_reserve=True,
)

SESSION_CREATE: Method[p.SessionCreate, t.Session] = Method(
    "session.create",
    p.SessionCreate,
    t.Session,
    "Record a new session.",
    (e.NameTaken, e.WorkspaceNotFound, *WRITES),
)
SESSION_GET: Method[p.ById, t.Session] = Method(
    "session.get", p.ById, t.Session, "Return a session, archived ones too.", (e.SessionNotFound, *READS)
)
SESSION_FIND: Method[p.ByRef, t.Session] = Method(
    "session.find",
    p.ByRef,
    t.Session,
    "Find a session by id, unique id prefix or name.",
    (e.SessionNotFound, e.AmbiguousReference, *READS),
)
SESSION_LIST: Method[p.SessionList, t.SessionPage] = Method(
    "session.list",
    p.SessionList,
    t.SessionPage,
    "List sessions, oldest first.",
    (e.WorkspaceNotFound, *READS),
    in_reserve=True,
)
SESSION_UPDATE_STATUS: Method[p.SessionUpdateStatus, t.Session] = Method(
    "session.update_status",
    p.SessionUpdateStatus,
    t.Session,
    "Change a session's status.",
    (e.InvalidTransition, e.NameTaken, e.LiveUnavailable, *_ONE),
)
SESSION_DETACH: Method[p.ById, t.Session] = Method(
    "session.detach", p.ById, t.Session, "Detach every client of a session, and keep it.", (e.InvalidTransition, *_ONE)
)
SESSION_TERMINATE: Method[p.ById, t.Session] = Method(
    "session.terminate",
    p.ById,
    t.Session,
    "End a session; its record and snapshots stay.",
    (e.InvalidTransition, e.LiveUnavailable, *_ONE),
    in_reserve=True,
)
SESSION_DELETE: Method[p.SessionDelete, r.Empty] = Method(
    "session.delete",
    p.SessionDelete,
    r.Empty,
    "Put a session and its snapshots into the trash, or delete them for good.",
    (e.LiveUnavailable, *_ONE),
)
SESSION_UNDELETE: Method[p.ById, t.Session] = Method(
    "session.undelete", p.ById, t.Session, "Take a session out of the trash.", (e.NameTaken, *_ONE)
)
SESSION_LIST_DELETED: Method[p.SessionListDeleted, t.SessionPage] = Method(
    "session.list_deleted",
    p.SessionListDeleted,
    t.SessionPage,
    "List the sessions in the trash, the one that was deleted last first.",
    READS,
)
SESSION_SET_LABELS: Method[p.SessionSetLabels, t.Session] = Method(
    "session.set_labels", p.SessionSetLabels, t.Session, "Set and remove labels of a session.", _ONE
)
SESSION_SET_RESUME: Method[p.SessionSetResume, t.Session] = Method(
    "session.set_resume",
    p.SessionSetResume,
    t.Session,
    "Set the command that starts a session again after a reboot, or remove it.",
    _ONE,
)
SESSION_RENAME: Method[p.SessionRename, t.Session] = Method(
    "session.rename", p.SessionRename, t.Session, "Give a session a name, or take it away.", (e.NameTaken, *_ONE)
)
SESSION_MOVE: Method[p.SessionMove, t.Session] = Method(
    "session.move",
    p.SessionMove,
    t.Session,
    "Move a session to a workspace or out of one.",
    (e.WorkspaceNotFound, *_ONE),
)
SESSION_TOUCH: Method[p.ById, t.Session] = Method(
    "session.touch", p.ById, t.Session, "Set last_active to now; written at the next auto-save.", _ONE
)
SESSION_RESTORE_ARCHIVED: Method[p.ById, t.Session] = Method(
    "session.restore_archived", p.ById, t.Session, "Bring an archived session back, terminated.", _ONE
)

SESSION_START: Method[p.SessionStart, t.Session] = Method(
    "session.start",
    p.SessionStart,
    t.Session,
    "Run a session's program on a terminal that the daemon owns.",
    (e.SessionNotFound, e.AlreadyRunning, e.SpawnFailed, e.LiveUnavailable, e.NameTaken, e.TooManySessions, *WRITES),
)
SESSION_ATTACH: Method[p.SessionAttach, r.Attached] = Method(
    "session.attach",
    p.SessionAttach,
    r.Attached,
    "Be sent a session's output from here on.",
    (*_RUNNING, e.SpawnFailed, e.NameTaken, e.WouldLoop, e.TooManySessions),
)
SESSION_SWITCH: Method[p.SessionSwitch, t.Session] = Method(
    "session.switch",
    p.SessionSwitch,
    t.Session,
    "Move the window that typed into a session last over to another session.",
    (*_RUNNING, e.WouldLoop),
)
SESSION_LEAVE: Method[p.ByAttachment, r.Left] = Method(
    "session.leave",
    p.ByAttachment,
    r.Left,
    "End an attachment, as closing the connection does.",
    (e.NotRunning,),
    is_urgent=True,
)
SESSION_INPUT: Method[p.SessionInput, r.Empty] = Method(
    "session.input",
    p.SessionInput,
    r.Empty,
    "Type into an attached session; answered once the program's terminal has taken all of it.",
    (e.NotRunning, e.Cancelled),
    can_wait=True,
    is_input=True,
    is_urgent=True,
)
SESSION_RESIZE: Method[p.SessionResize, r.Empty] = Method(
    "session.resize",
    p.SessionResize,
    r.Empty,
    "Set the size of the client's window, which becomes the session's unless the client only reads.",
    (e.NotRunning,),
    is_urgent=True,
)
SESSION_REFRESH: Method[p.SessionRefresh, r.Refreshed] = Method(
    "session.refresh",
    p.SessionRefresh,
    r.Refreshed,
    "Draw the screen again, for a window that has lost it or its history.",
    (e.NotRunning,),
)
SESSION_SEND: Method[p.SessionSend, r.Empty] = Method(
    "session.send",
    p.SessionSend,
    r.Empty,
    "Type into a session without attaching; answered as `session.input` is.",
    (*_RUNNING, e.Cancelled, e.TooManySessions),
    can_wait=True,
    is_input=True,
    is_urgent=True,
)
SESSION_SCREEN: Method[p.SessionScreen, r.Screen] = Method(
    "session.screen",
    p.SessionScreen,
    r.Screen,
    "Return a session's screen, as it is or as it was saved.",
    (e.SessionNotFound, e.SnapshotNotFound, e.SnapshotCorrupt, e.TooManySessions),
)
SESSION_WAIT: Method[p.SessionWait, r.Waited] = Method(
    "session.wait",
    p.SessionWait,
    r.Waited,
    "Wait until a session's program ends, prints, falls silent, shows a text or has run a command.",
    (*_RUNNING, e.RequestTimeout, e.Cancelled),
    can_wait=True,
)
SESSION_SIGNAL: Method[p.SessionSignal, r.Empty] = Method(
    "session.signal", p.SessionSignal, r.Empty, "Send a signal to a session's process group.", _RUNNING, is_urgent=True
)

SNAPSHOT_SAVE: Method[p.SnapshotSave, t.SnapshotInfo] = Method(
    "snapshot.save", p.SnapshotSave, t.SnapshotInfo, "Save a session's screen.", _ONE
)
SNAPSHOT_LATEST: Method[p.BySession, t.Snapshot | None] = Method(
    "snapshot.latest",
    p.BySession,
    t.Snapshot | None,
    "Return a session's newest snapshot, or null.",
    (e.SessionNotFound, e.SnapshotCorrupt, *READS),
)
SNAPSHOT_GET: Method[p.ById, t.Snapshot] = Method(
    "snapshot.get", p.ById, t.Snapshot, "Return one snapshot.", (e.SnapshotNotFound, e.SnapshotCorrupt, *READS)
)
SNAPSHOT_LIST: Method[p.SnapshotList, t.SnapshotPage] = Method(
    "snapshot.list",
    p.SnapshotList,
    t.SnapshotPage,
    "List a session's snapshots, newest first, without their bytes.",
    (e.SessionNotFound, *READS),
)
SNAPSHOT_DELETE: Method[p.ById, r.Empty] = Method(
    "snapshot.delete", p.ById, r.Empty, "Delete one snapshot.", (e.SnapshotNotFound, e.SnapshotCorrupt, *WRITES)
)

WORKSPACE_CREATE: Method[p.WorkspaceCreate, t.Workspace] = Method(
    "workspace.create", p.WorkspaceCreate, t.Workspace, "Record a new workspace.", (e.NameTaken, *WRITES)
)
WORKSPACE_GET: Method[p.ById, t.Workspace] = Method(
    "workspace.get", p.ById, t.Workspace, "Return a workspace.", (e.WorkspaceNotFound, *READS)
)
WORKSPACE_FIND: Method[p.ByRef, t.Workspace] = Method(
    "workspace.find",
    p.ByRef,
    t.Workspace,
    "Find a workspace by id, unique id prefix or name.",
    (e.WorkspaceNotFound, e.AmbiguousReference, *READS),
)
WORKSPACE_LIST: Method[p.WorkspaceList, t.WorkspacePage] = Method(
    "workspace.list", p.WorkspaceList, t.WorkspacePage, "List workspaces, oldest first.", READS
)
WORKSPACE_UPDATE_LAYOUT: Method[p.WorkspaceUpdateLayout, t.Workspace] = Method(
    "workspace.update_layout", p.WorkspaceUpdateLayout, t.Workspace, "Replace a workspace's layout.", _SPACE
)
WORKSPACE_RENAME: Method[p.WorkspaceRename, t.Workspace] = Method(
    "workspace.rename", p.WorkspaceRename, t.Workspace, "Give a workspace another name.", (e.NameTaken, *_SPACE)
)
WORKSPACE_SET_ACTIVE_SESSION: Method[p.WorkspaceSetActiveSession, t.Workspace] = Method(
    "workspace.set_active_session",
    p.WorkspaceSetActiveSession,
    t.Workspace,
    "Put one of a workspace's sessions in front.",
    (e.SessionNotFound, *_SPACE),
)
WORKSPACE_DELETE: Method[p.WorkspaceDelete, r.Empty] = Method(
    "workspace.delete",
    p.WorkspaceDelete,
    r.Empty,
    "Delete a workspace; its sessions stay unless `delete_sessions` is true.",
    (e.LiveUnavailable, *_SPACE),
)

WORKSPACE_OPEN: Method[p.WorkspaceOpen, r.WorkspaceSessions] = Method(
    "workspace.open",
    p.WorkspaceOpen,
    r.WorkspaceSessions,
    "Start every session of a workspace that does not run.",
    (e.LiveUnavailable, *_SPACE),
)
WORKSPACE_PARK: Method[p.ById, r.WorkspaceSessions] = Method(
    "workspace.park",
    p.ById,
    r.WorkspaceSessions,
    "End the programs of a workspace's sessions, and keep everything else.",
    (e.LiveUnavailable, *_SPACE),
)
WORKSPACE_EXPORT: Method[p.ById, t.WorkspaceDocument] = Method(
    "workspace.export",
    p.ById,
    t.WorkspaceDocument,
    "Return a workspace's layout and its sessions' configurations, without contents.",
    (e.WorkspaceNotFound, *READS),
)
WORKSPACE_IMPORT: Method[p.WorkspaceImport, t.Workspace] = Method(
    "workspace.import",
    p.WorkspaceImport,
    t.Workspace,
    "Record the workspace of a document and its sessions, which are not started.",
    (e.NameTaken, *WRITES),
)

_OF_EVENTS = (e.SessionNotFound, e.WorkspaceNotFound, e.CursorExpired, *READS)
EVENTS_SUBSCRIBE: Method[p.EventsSubscribe, r.Subscribed] = Method(
    "events.subscribe",
    p.EventsSubscribe,
    r.Subscribed,
    "Be sent `event` notifications: those after a cursor, then new ones.",
    _OF_EVENTS,
)
EVENTS_UNSUBSCRIBE: Method[p.EventsUnsubscribe, r.Empty] = Method(
    "events.unsubscribe", p.EventsUnsubscribe, r.Empty, "End a subscription of this connection.", is_urgent=True
)
EVENTS_LIST: Method[p.EventsList, r.EventPage] = Method(
    "events.list", p.EventsList, r.EventPage, "List stored events, oldest first.", _OF_EVENTS
)
EVENTS_WAIT: Method[p.EventsWait, r.EventWaited] = Method(
    "events.wait",
    p.EventsWait,
    r.EventWaited,
    "Wait for one event, and return it.",
    (*_OF_EVENTS, e.RequestTimeout, e.Cancelled),
    can_wait=True,
)

_OF_HISTORY = (e.SessionNotFound, e.SnapshotNotFound, *READS)
HISTORY_SEARCH: Method[p.HistorySearch, r.SearchPage] = Method(
    "history.search",
    p.HistorySearch,
    r.SearchPage,
    "Search everything that sessions have shown, newest first.",
    (e.SessionNotFound, e.WorkspaceNotFound, e.Cancelled, *READS),
    can_wait=True,
)
HISTORY_LINES: Method[p.HistoryLinesPage, r.HistoryPage] = Method(
    "history.lines", p.HistoryLinesPage, r.HistoryPage, "Return lines of a session's whole history.", _OF_HISTORY
)
HISTORY_TIMELINE: Method[p.HistoryOf, r.Timeline] = Method(
    "history.timeline", p.HistoryOf, r.Timeline, "Return what is recorded of a session, and when.", _OF_HISTORY
)
HISTORY_EXPORT: Method[p.HistoryExport, r.Exported] = Method(
    "history.export",
    p.HistoryExport,
    r.Exported,
    "Write a session's film or text as a file, or return it.",
    (*_OF_HISTORY, e.StorageFull, e.StorageReadOnly, e.Cancelled),
    can_wait=True,
)
HISTORY_FORGET: Method[p.HistoryForget, r.Forgotten] = Method(
    "history.forget",
    p.HistoryForget,
    r.Forgotten,
    "Erase what a session has shown.",
    (e.Cancelled, *_ONE),
    can_wait=True,
)

MAINTENANCE_AUTO_SAVE: Method[p.Params, r.AutoSaveResult] = Method(
    "maintenance.auto_save", p.Params, r.AutoSaveResult, "Write what has changed in memory only.", WRITES
)
MAINTENANCE_CLEANUP_SNAPSHOTS: Method[p.CleanupSnapshots, r.CleanupResult] = Method(
    "maintenance.cleanup_snapshots",
    p.CleanupSnapshots,
    r.CleanupResult,
    "Delete all but the newest snapshots of each session.",
    (*WRITES, e.Cancelled),
    can_wait=True,
)
MAINTENANCE_ARCHIVE: Method[p.Archive, r.ArchiveResult] = Method(
    "maintenance.archive",
    p.Archive,
    r.ArchiveResult,
    "Move old terminated sessions out of the hot tables.",
    (*WRITES, e.Cancelled),
    can_wait=True,
)
MAINTENANCE_VACUUM: Method[p.Params, r.VacuumResult] = Method(
    "maintenance.vacuum",
    p.Params,
    r.VacuumResult,
    "Give free pages back to the file system.",
    (*WRITES, e.Cancelled),
    can_wait=True,
)
MAINTENANCE_CHECK: Method[p.Check, r.CheckReport] = Method(
    "maintenance.check",
    p.Check,
    r.CheckReport,
    "Check the database and every snapshot.",
    (*READS, e.Cancelled),
    can_wait=True,
    in_reserve=True,
)
MAINTENANCE_BACKUP: Method[p.Backup, r.BackupResult] = Method(
    "maintenance.backup",
    p.Backup,
    r.BackupResult,
    "Write a consistent copy while the daemon goes on.",
    (*WRITES, e.Cancelled),
    can_wait=True,
)
STATS_GET: Method[p.Params, r.SessionStats] = Method("stats.get", p.Params, r.SessionStats, "Count and measure.", READS)


METHODS: dict[str, Method[Any, Any]] = {row.name: row for row in globals().copy().values() if isinstance(row, Method)}
"""Every method by name, in the order above."""
