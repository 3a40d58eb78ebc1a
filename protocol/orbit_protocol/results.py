"""The results of methods that are not a session, snapshot or workspace. Sizes are in bytes."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, Struct, field

from orbit_protocol.text import Companion, path_from_text
from orbit_protocol.types import (
    CommandFinished,
    Event,
    ExportFormat,
    HitSource,
    MarkKind,
    Session,
    Timestamp,
    Workspace,
)


class SessionStats(Struct, frozen=True, kw_only=True):
    """Counts and sizes of the whole store; sizes are in bytes.

    `live_sessions` have a program that runs here; `scrollback_bytes` is about what their history
    takes in memory. What is in the trash is counted as `deleted_sessions` only. `recording_bytes` and `text_bytes` are
    what films and their text take in the database of histories, whose file has `history_bytes`.
    """

    total_sessions: int
    active_sessions: int
    detached_sessions: int
    terminated_sessions: int
    archived_sessions: int
    total_workspaces: int
    total_snapshots: int
    snapshot_raw_bytes: int
    snapshot_stored_bytes: int
    database_bytes: int
    last_auto_save_at: Timestamp | None
    live_sessions: int = 0
    deleted_sessions: int = 0
    scrollback_bytes: int = 0
    recorded_sessions: int = 0
    recording_raw_bytes: int = 0
    recording_bytes: int = 0
    text_bytes: int = 0
    history_bytes: int = 0


class Pong(Struct, frozen=True, kw_only=True):
    """The answer to a ping."""

    pong: bool = True


class Empty(Struct, frozen=True, kw_only=True):
    """An empty object: the call succeeded and has no result."""


class Limits(Struct, frozen=True, kw_only=True):
    """What this daemon takes; sizes are in bytes."""

    max_connections: int
    max_message_bytes: int
    max_in_flight: int
    max_batch: int
    max_name_length: int
    max_page_size: int


class MaintenanceStatus(Struct, frozen=True, kw_only=True):
    """The state of one maintenance task; `last_error` is null after a run that succeeded."""

    name: str
    interval_secs: float
    last_run_at: Timestamp | None
    last_success_at: Timestamp | None
    last_error: str | None
    overdue: bool


class DaemonInfo(Struct, frozen=True, kw_only=True):
    r"""The daemon: version, process, paths, features, limits, maintenance and warnings.

    `supervisor` is `systemd`, `launchd` or `none`. `warnings` are sentences for a person
    about problems that last. `last_backup_*` describe the newest automatic backup that was
    made and verified. `chores` is the state of each maintenance task. In a path each byte that is
    not UTF-8 is `\xNN`; only then its `..._bytes` is there, with the path's own bytes.
    """

    version: str
    protocol_version: int
    pid: int
    started_at: Timestamp
    socket_path: str
    database_path: str
    features: list[str]
    limits: Limits
    supervisor: str = "none"
    maintenance: list[MaintenanceStatus] = field(name="chores", default_factory=list)
    warnings: list[str] = []
    last_backup_at: Timestamp | None = None
    last_backup_path: str | None = None
    socket_path_bytes: Companion = UNSET
    database_path_bytes: Companion = UNSET
    last_backup_path_bytes: Companion = UNSET

    @property
    def socket_file(self) -> str:
        """The socket's path, as Python's functions take it."""
        return path_from_text(self.socket_path, self.socket_path_bytes)

    @property
    def database_file(self) -> str:
        """The database's path, likewise."""
        return path_from_text(self.database_path, self.database_path_bytes)


class ConnectionAttachment(Struct, frozen=True, kw_only=True):
    """An attachment of a client, and the session that it is of."""

    attachment_id: str
    session_id: str


class ConnectionInfo(Struct, frozen=True, kw_only=True):
    """One client.

    `pid` is that of the process that connected, and `program` its name; both are null where they are not known, as
    of a process that has ended. A `reserved` connection is one of those that are kept back for when all others are
    used, and serves only some methods.
    """

    pid: int | None
    program: str | None
    since: Timestamp
    attachments: list[ConnectionAttachment]
    reserved: bool = False


class Connections(Struct, frozen=True, kw_only=True):
    """Who is connected."""

    connections: list[ConnectionInfo]


class AutoSaveResult(Struct, frozen=True, kw_only=True):
    """How many sessions were written."""

    saved: int


class CleanupResult(Struct, frozen=True, kw_only=True):
    """How many snapshots were deleted."""

    deleted: int


class ArchiveResult(Struct, frozen=True, kw_only=True):
    """How many sessions were moved to the archive."""

    archived: int


class VacuumResult(Struct, frozen=True, kw_only=True):
    """How much smaller the database is now."""

    bytes_freed: int


class BackupResult(Struct, frozen=True, kw_only=True):
    """Where the backup lies and its size; `path_bytes` is there only where the path is not UTF-8."""

    path: str
    bytes: int
    path_bytes: Companion = UNSET
    history_path: str | None = None
    history_bytes: int = 0


class CheckReport(Struct, frozen=True, kw_only=True):
    """What an integrity check found; every list is empty where `ok`.

    `integrity` and `foreign_keys` are SQLite's own findings, `snapshots` the ids of
    snapshots whose bytes do not match their checksum, and `more_snapshots` counts those beyond the first 10,000.
    `rows` are sentences about rows that cannot be read and are left out everywhere else. Where the time was over
    before everything was looked at, `complete` is false, and `ok` is of what was.
    """

    ok: bool
    integrity: list[str]
    foreign_keys: list[str]
    snapshots: list[str]
    rows: list[str] = []
    complete: bool = True
    checked_snapshots: int = 0
    total_snapshots: int = 0
    more_snapshots: int = 0


class Contents(Struct, frozen=True, kw_only=True):
    """What a backup holds and when it was written, as `orbitd --restore --dry-run` prints it."""

    path: str
    written_at: Timestamp
    bytes: int
    sessions: int
    snapshots: int
    workspaces: int


class Restored(Struct, frozen=True, kw_only=True):
    """What a restore did; `safety_copy` is the database that was there before, None where there was none.

    `carried_over` counts the sessions whose programs may still run, and whose newest screens were taken over from it;
    `not_carried_over` says why that failed, if it did. `history_path` is there where histories were brought back too.
    """

    database_path: str
    contents: Contents
    safety_copy: str | None
    carried_over: int = 0
    not_carried_over: str | None = None
    history_path: str | None = None


class Attached(Struct, frozen=True, kw_only=True):
    """What an attach gives.

    `repaint` draws the screen on a terminal in any state: it begins with the reset that it needs. It is drawn for the
    session's size, `session.cols` and `session.rows`. Where the window has another one it is a frame, drawn for the
    window, unless the attach says `frames: never`; with `always` it is one at any size.

    `history_line` counts the lines that have left the screen into the history since the session began; a window that
    is attached again passes it as `after_line`. With a frame it is the `after_line` of the attach, since frames bring
    no history.
    """

    attachment_id: str
    session: Session
    repaint: bytes
    history_line: int = 0


class Left(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An attachment has ended.

    A client that has attached with an `after_line` gets the `history_line` here, unless it is not known in time.
    """

    history_line: int | None = None


class Refreshed(Struct, frozen=True, kw_only=True):
    """The screen, as the `repaint` of an attach: a whole frame for a client that is sent frames."""

    repaint: bytes
    history_line: int = 0


class CursorPosition(Struct, frozen=True, kw_only=True):
    """Where the cursor is, from 0, and whether it is shown."""

    col: int
    row: int
    visible: bool


class Screen(Struct, frozen=True, kw_only=True):
    """A session's screen; `data` is plain text for the formats text, html and svg, and base64 for vt.

    `first_line` is the number of the first line that is returned, from 0, and `total_lines` how many there are with
    the history; they are there where only a part of the lines was asked for.
    """

    data: str
    cols: int
    rows: int
    cursor: CursorPosition
    title: str
    first_line: int | None = None
    total_lines: int | None = None


class Waited(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a wait has ended with: how the program ended, the line that holds the text, or the command that finished.

    After a command `exit_code` is the command's.
    """

    exit_code: int | None
    exit_signal: int | None
    line: str | None = None
    command: CommandFinished | None = None


class ErrorObject(Struct, frozen=True, kw_only=True):
    """An error, as in an answer."""

    code: int
    message: str
    data: dict[str, Any] | None = None


class NotOpened(Struct, frozen=True, kw_only=True):
    """A session that could not be started or ended, and why: the error as a call of its own would have it."""

    session_id: str
    error: ErrorObject


class WorkspaceSessions(Struct, frozen=True, kw_only=True):
    """A workspace and its sessions, oldest first; `failed` are those for which it did not work.

    `changed` has the ids of those that this call has started, or whose programs it has ended.
    """

    workspace: Workspace
    sessions: list[Session]
    failed: list[NotOpened] = []
    changed: list[str] = []


class Subscribed(Struct, frozen=True, kw_only=True):
    """A subscription; `cursor` is where it begins."""

    subscription_id: str
    cursor: str


class EventPage(Struct, frozen=True, kw_only=True):
    """Events, oldest first; `cursor` is behind the last of them, or the newest where there is none."""

    events: list[Event]
    cursor: str


class EventWaited(Struct, frozen=True, kw_only=True):
    """The event that was waited for; `cursor` is behind it."""

    event: Event
    cursor: str


class Exit(Struct, frozen=True, kw_only=True):
    """How a program ended: one of the two is null."""

    exit_code: int | None
    exit_signal: int | None


class Hit(Struct, frozen=True, kw_only=True):
    """A line that a search has found.

    `line` is its number in the session's history; -1 for one of a full-screen program, or of a screen that was
    cleared, which have none (`source` is `screen` then). `before` and `after` are the lines around it.
    """

    session_id: str
    name: str | None
    at: Timestamp
    line: int
    text: str
    before: list[str] = []
    after: list[str] = []
    source: HitSource = "line"


class SearchPage(Struct, frozen=True, kw_only=True):
    """What a search has found, newest first.

    `complete` is false where the time was not enough for everything; with `next_cursor` the search goes on from there.
    """

    hits: list[Hit]
    next_cursor: str | None
    searched_bytes: int
    complete: bool


class HistoryLine(Struct, frozen=True, kw_only=True):
    """A line of a history: its number, when it was shown, and its contents in the format that was asked for."""

    line: int
    at: Timestamp | None
    text: str


class HistoryPage(Struct, frozen=True, kw_only=True):
    """Lines of a history, oldest first.

    `first` is the number of the first of them, `total` how many there are; those before `oldest` are not kept any more.
    """

    lines: list[HistoryLine]
    first: int
    total: int
    oldest: int = 0


class KeyFrame(Struct, frozen=True, kw_only=True):
    """A moment of a film from which it can be played at once; `bytes` is the stored size up to the next one."""

    at: Timestamp
    cols: int
    rows: int
    bytes: int


class SizeChange(Struct, frozen=True, kw_only=True):
    """A terminal's size from a moment on."""

    at: Timestamp
    cols: int
    rows: int


class TimelineMark(Struct, frozen=True, kw_only=True):
    """Something that happened: a command has finished, a program has started or ended, or output is missing."""

    at: Timestamp
    kind: MarkKind
    text: str | None = None
    exit_code: int | None = None


class Timeline(Struct, frozen=True, kw_only=True):
    """What is recorded of a session, oldest first; `since` and `until` are null where there is no film."""

    since: Timestamp | None
    until: Timestamp | None
    key_frames: list[KeyFrame]
    sizes: list[SizeChange]
    marks: list[TimelineMark]
    recording_raw_bytes: int
    recording_bytes: int
    text_bytes: int


class Exported(Struct, frozen=True, kw_only=True):
    """A history that was exported: where the file is, or a page of its contents.

    `bytes` is the size of the file, or of this page; `data` is text, or base64 for vt.
    """

    format: ExportFormat
    bytes: int
    path: str | None = None
    path_bytes: Companion = UNSET
    data: str | None = None
    next_cursor: str | None = None


class Forgotten(Struct, frozen=True, kw_only=True):
    """What was erased, and the files that still hold it: backups, and databases that were set aside."""

    bytes: int
    backups: list[str] = []
