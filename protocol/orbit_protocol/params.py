"""The params of every method, by name.

All are frozen and keyword-only and refuse fields that they do not know. What a field
may hold stands in its type, so that decoding is the only check there is.
"""

from __future__ import annotations

import signal
from datetime import datetime
from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field
from msgspec.structs import force_setattr

from orbit_protocol import MAX_SCREEN_CELLS
from orbit_protocol.environment import LIMITS
from orbit_protocol.settings import ShellIntegration
from orbit_protocol.text import pairs_from_text, path_from_text, text_and_bytes
from orbit_protocol.types import (
    MAX_COMMAND_LENGTH,
    MAX_LABELS,
    MAX_PAGE_SIZE,
    MAX_PATH_LENGTH,
    AbsolutePath,
    Cells,
    Cursor,
    Environment,
    EnvironmentBytes,
    ExportFormat,
    Id,
    LabelKey,
    LabelValue,
    LineFormat,
    Name,
    PageSize,
    Ref,
    ScreenCells,
    SessionConfigInput,
    SessionStatus,
    SessionType,
    Timestamp,
    WorkspaceDocumentInput,
    WorkspaceLayoutInput,
    check_environment,
    check_labels,
    check_name,
    environment_from_bytes,
    normal_name,
)

MAX_INPUT_BYTES = 1024 * 1024
MAX_LINE = 2**53
"""Of a `history_line`: what every JSON parser reads as it is."""
MAX_BEFORE = 16
"""Of the sessions that a window has shown."""
MAX_HITS = 10_000
"""Of one answer of a search."""
MAX_HISTORY_LINES = 100_000
"""Of one page of a history."""
SIGNALS = {one.name: int(one) for one in signal.Signals}
ScreenFormat = Literal["text", "vt", "html", "svg"]
WaitFor = Literal["exit", "output", "silence", "text", "command"]
FrameUse = Literal["auto", "never", "always"]
SearchCase = Literal["smart", "sensitive", "insensitive"]
Timeout = Annotated[float, Meta(ge=0, le=31_536_000)]
HistoryLines = Annotated[int, Meta(ge=0, le=1_000_000)]
HexColor = Annotated[str, Meta(pattern="^#[0-9a-fA-F]{6}$")]


class Params(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The base of all params; by itself, the params of a method that takes none.

    What was not chosen is not sent, so that an older daemon is not asked for what it does not know.
    """


class _Named(Params, frozen=True, kw_only=True):
    """Params with a new name."""

    name: Name | None = None

    def __post_init__(self) -> None:
        """Check the name, and keep it in NFC. Raises: ValueError."""
        if self.name is not None:
            force_setattr(self, "name", check_name(self.name))


class ById(Params, frozen=True, kw_only=True):
    """One thing, by its full id."""

    id: Id


class ByRef(Params, frozen=True, kw_only=True):
    """One thing, by id, unique id prefix (4+ characters) or name."""

    ref: Ref

    def __post_init__(self) -> None:
        """Keep the reference in NFC, as names are. Raises: ValueError."""
        force_setattr(self, "ref", normal_name(self.ref, "ref"))


class SessionCreate(_Named, frozen=True, kw_only=True):
    """A new session, active from the start."""

    config: SessionConfigInput
    name: Name | None = None


class SessionList(Params, frozen=True, kw_only=True):
    """Which sessions to list; without `status`, those that are active or detached. All `labels` must be a session's."""

    status: Annotated[list[SessionStatus], Meta(min_length=1, max_length=16)] | None = None
    session_type: SessionType | None = None
    workspace_id: Id | None = None
    labels: Annotated[dict[LabelKey, LabelValue], Meta(max_length=MAX_LABELS)] | None = None
    limit: PageSize | None = None
    cursor: Cursor | None = None


class SessionDelete(ById, frozen=True, kw_only=True):
    """A session to put into the trash, or with `purge` to delete for good."""

    purge: bool = False


class SessionListDeleted(Params, frozen=True, kw_only=True):
    """A page of the sessions in the trash."""

    limit: PageSize | None = None
    cursor: Cursor | None = None


class SessionSetLabels(ById, frozen=True, kw_only=True):
    """Labels to set; null removes one, and those that are not named stay."""

    labels: Annotated[dict[LabelKey, LabelValue | None], Meta(max_length=MAX_LABELS)]

    def __post_init__(self) -> None:
        """Check the labels. Raises: ValueError."""
        check_labels(self.labels)


class SessionSetResume(ById, frozen=True, kw_only=True):
    """The command that starts the session after a reboot, in the place of its own; null for none."""

    command: Annotated[str, Meta(min_length=1, max_length=MAX_COMMAND_LENGTH)] | None

    def __post_init__(self) -> None:
        """Refuse what execve(2) cannot take. Raises: ValueError."""
        if "\0" in (self.command or ""):
            raise ValueError("`command` may not hold a NUL")


class SessionUpdateStatus(Params, frozen=True, kw_only=True):
    """The status that a session changes to."""

    id: Id
    status: Literal["active", "detached", "terminated"]


class SessionRename(_Named, frozen=True, kw_only=True):
    """A session's new name; null takes its name away."""

    id: Id
    name: Name | None


class SessionMove(Params, frozen=True, kw_only=True):
    """The workspace that a session moves to; null takes it out of its workspace."""

    id: Id
    workspace_id: Id | None


class SnapshotSave(Params, frozen=True, kw_only=True):
    """A screen to keep. Buffers are bytes (base64 in JSON) that the store does not look into."""

    session_id: Id
    terminal_buffer: bytes
    scrollback: bytes | None = None
    cols: Cells | None = None
    rows: Cells | None = None


class BySession(Params, frozen=True, kw_only=True):
    """What belongs to one session."""

    session_id: Id


class SnapshotList(BySession, frozen=True, kw_only=True):
    """A page of a session's snapshots."""

    limit: PageSize | None = None
    cursor: Cursor | None = None


class WorkspaceCreate(_Named, frozen=True, kw_only=True):
    """A new workspace."""

    name: Name
    layout: WorkspaceLayoutInput


class WorkspaceList(Params, frozen=True, kw_only=True):
    """A page of the workspaces."""

    limit: PageSize | None = None
    cursor: Cursor | None = None


class WorkspaceUpdateLayout(Params, frozen=True, kw_only=True):
    """A workspace's new layout."""

    id: Id
    layout: WorkspaceLayoutInput


class WorkspaceRename(_Named, frozen=True, kw_only=True):
    """A workspace's new name."""

    id: Id
    name: Name


class WorkspaceSetActiveSession(Params, frozen=True, kw_only=True):
    """The workspace's active session: one of its own, or null."""

    id: Id
    session_id: Id | None


class WorkspaceDelete(Params, frozen=True, kw_only=True):
    """A workspace to delete. Its sessions stay, without a workspace, unless `delete_sessions` is true."""

    id: Id
    delete_sessions: bool = False


class WorkspaceImport(_Named, frozen=True, kw_only=True):
    """An exported workspace, and the name that it gets in the place of its own."""

    document: WorkspaceDocumentInput
    name: Name | None = None


EventKinds = Annotated[list[Annotated[str, Meta(min_length=1, max_length=64)]], Meta(min_length=1, max_length=64)]
EventCursor = Annotated[str, Meta(min_length=1, max_length=64, description="A cursor of `events.*`: `EPOCH-seq`.")]


class EventsSubscribe(Params, frozen=True, kw_only=True):
    """Which events to be sent: those after `since`, else from now on.

    `kinds` are names, or groups (`session.*`); without them all but `snapshot.saved`. With `live`, those that are
    never stored, too. A client that shows what some kinds tell by itself names these as `handles`: while it is
    subscribed, the daemon shows no desktop notification of them.
    """

    since: EventCursor | None = None
    kinds: EventKinds | None = None
    session_id: Id | None = None
    workspace_id: Id | None = None
    live: bool = True
    handles: EventKinds | None = None


class EventsUnsubscribe(Params, frozen=True, kw_only=True):
    """A subscription of this connection."""

    subscription_id: Id


class EventsList(Params, frozen=True, kw_only=True):
    """A page of the stored events after `since`, oldest first, or of all that are kept; 0 gives the cursor alone."""

    since: EventCursor | None = None
    kinds: EventKinds | None = None
    session_id: Id | None = None
    workspace_id: Id | None = None
    limit: Annotated[int, Meta(ge=0, le=MAX_PAGE_SIZE)] | None = None


class EventsWait(Params, frozen=True, kw_only=True):
    """Which event to wait for: the first after `since`, else after now; without `timeout_secs`, for ever."""

    since: EventCursor | None = None
    kinds: EventKinds | None = None
    session_id: Id | None = None
    workspace_id: Id | None = None
    timeout_secs: Timeout | None = None


class CleanupSnapshots(Params, frozen=True, kw_only=True):
    """How many snapshots each session keeps, the newest ones."""

    keep_last_n: Annotated[int, Meta(ge=1, le=1_000_000)]


class Archive(Params, frozen=True, kw_only=True):
    """Terminated sessions that were last active before this time are archived."""

    terminated_before: Annotated[datetime, Meta(tz=True)]


class Check(Params, frozen=True, kw_only=True):
    """How long the check may take; without `limit_secs`, until it has looked at everything.

    With a limit the indexes of a large database are compared with its rows last, which takes long. Where other checks
    and backups let it not begin in that time, it is `busy`.
    """

    limit_secs: Annotated[float, Meta(gt=0, le=86_400)] | None = None


class Backup(Params, frozen=True, kw_only=True):
    """The file to write, an absolute path; an earlier backup or an empty file is replaced, any other file refused.

    `path_bytes` is for a path that is not UTF-8; where it is given, `path` is ignored.
    """

    path: AbsolutePath
    path_bytes: Annotated[bytes, Meta(min_length=1, max_length=MAX_PATH_LENGTH)] | UnsetType | None = UNSET
    with_history: bool = False

    def __post_init__(self) -> None:
        """Refuse a path that would depend on the daemon's folder. Raises: ValueError."""
        if isinstance(self.path_bytes, bytes):
            path, companion = text_and_bytes(self.path_bytes)
            force_setattr(self, "path", path)
            force_setattr(self, "path_bytes", companion)
        elif len(self.path) > MAX_PATH_LENGTH:
            raise ValueError(f"`path` may have {MAX_PATH_LENGTH} characters at most")
        if not self.path.startswith("/") or "\0" in self.path:
            raise ValueError("`path` must be an absolute path")

    @property
    def file(self) -> str:
        """The path, as Python's functions take it."""
        return path_from_text(self.path, self.path_bytes)


def check_size(cols: int, rows: int) -> None:
    """Refuse a screen of more than `MAX_SCREEN_CELLS` cells. Raises: ValueError."""
    if cols * rows > MAX_SCREEN_CELLS:
        raise ValueError(f"`cols` times `rows` is more than {MAX_SCREEN_CELLS}")


class _WithEnvironment(ById, frozen=True, kw_only=True):
    """Params with the client's environment: as text, or in bytes where some of it is not UTF-8."""

    env: Environment | None = None
    env_bytes: EnvironmentBytes | UnsetType | None = UNSET
    umask: Annotated[int, Meta(ge=0, le=0o777)] | None = None
    limits: Annotated[dict[str, Annotated[int, Meta(ge=-1, le=2**63 - 1)]], Meta(max_length=32)] | None = None

    def check(self, cols: int, rows: int) -> None:
        """Check a size and the environment, and keep the one form of it that counts. Raises: ValueError."""
        check_size(cols, rows)
        if isinstance(self.env_bytes, list):
            env, env_bytes = environment_from_bytes(self.env_bytes)
            force_setattr(self, "env", env if env_bytes is UNSET else None)  # what is ignored is not sent
            force_setattr(self, "env_bytes", env_bytes)
        check_environment(self.env)
        if unknown := set(self.limits or ()) - LIMITS:
            raise ValueError(f"`limits` has no {min(unknown)!r}; nofile, core and stack are, for example")

    @property
    def environment(self) -> dict[bytes, bytes] | None:
        """The client's environment, in bytes; None where it was not sent."""
        return pairs_from_text(self.env, self.env_bytes)


class SessionStart(_WithEnvironment, frozen=True, kw_only=True):
    """Run a session's program. `env` is its whole environment, but for what orbitd sets and the variables of a window.

    Without `env` it gets that of a fresh login; it is never stored. `umask` and `limits` are the client's: soft limits
    by the names of getrlimit(2) (`nofile`, `core`), -1 for no limit; without them it gets those of orbitd's start.

    A terminal has at most 4096 columns and rows; where more is asked for, it gets so many. `shell_integration` has
    bash and zsh print OSC 133 and OSC 7 (`auto`), or not (`off`); without it the setting of that name counts.
    `env_bytes`, a list of `[name, value]`, is for an environment that is not all UTF-8; where it is given,
    `env` is ignored.
    """

    cols: Cells = 80
    rows: Cells = 24
    shell_integration: ShellIntegration | None = None

    def __post_init__(self) -> None:
        """Check what no single type can. Raises: ValueError."""
        self.check(self.cols, self.rows)


class WorkspaceOpen(_WithEnvironment, frozen=True, kw_only=True):
    """Start every session of a workspace that does not run, at its last size where none is given.

    `env`, `umask` and `limits` are for the programs that are started, as in `session.start`.
    """

    cols: ScreenCells | None = None
    rows: ScreenCells | None = None

    def __post_init__(self) -> None:
        """Check what no single type can. Raises: ValueError."""
        self.check(self.cols or 80, self.rows or 24)


class Theme(Params, frozen=True, kw_only=True):
    """The colours of a drawn screen: `#rrggbb`; `palette` has those with an index of their own, from 0 on."""

    foreground: HexColor | None = None
    background: HexColor | None = None
    cursor: HexColor | None = None
    palette: Annotated[list[HexColor], Meta(max_length=256)] | None = None


class ClientTerminal(Params, frozen=True, kw_only=True):
    """What a client's terminal looks like: programs that ask the session's terminal are answered with it.

    Colours are `#rrggbb`; `palette` has those with an index of their own, from 0 on.
    """

    foreground: HexColor | None = None
    background: HexColor | None = None
    palette: Annotated[list[HexColor], Meta(max_length=256)] | None = None
    kitty_graphics: bool = False


class SessionAttach(_WithEnvironment, frozen=True, kw_only=True):
    """Be sent a session's output.

    The client owns the session's size, unless it is `read_only`, until another one attaches, resizes or types; when the
    owner leaves, the one that owned the size before does so again.

    `scrollback_lines` of history are drawn before the screen at most, and of these only what follows `after_line`, a
    `history_line` that this window was given before. `attachment_id` is the client's own name for the attachment,
    unique on its connection. With `start`, the program is run first where it does not run. `frames` says what is
    sent while the session has another size than the window: its part around the cursor (`auto`), or the whole
    (`never`); `always` sends frames at any size, and no output.

    Of `env`, or of `env_bytes` where that is given, only SSH_AUTH_SOCK is looked at, unless the program is started:
    the session's programs find the agent there.

    A client that gives `before`, the ids of the sessions that its window has shown, newest first, can be moved to
    another session by `session.switch`.
    """

    cols: ScreenCells
    rows: ScreenCells
    read_only: bool = False
    scrollback_lines: HistoryLines | None = None
    after_line: Annotated[int, Meta(ge=0, le=MAX_LINE)] | None = None
    attachment_id: Id | None = None
    terminal: ClientTerminal | None = None
    start: bool = False
    frames: FrameUse = "auto"
    before: Annotated[list[Id], Meta(max_length=MAX_BEFORE)] | None = None

    def __post_init__(self) -> None:
        """Check what no single type can. Raises: ValueError."""
        self.check(self.cols, self.rows)


class SessionSwitch(Params, frozen=True, kw_only=True):
    """The session whose window is moved, and the one that it shows then.

    Without `id` it is the session in whose terminal the caller runs; without `to`, the one that the window has shown
    before, or else the newest that runs.
    """

    id: Id | None = None
    to: Id | None = None


class ByAttachment(Params, frozen=True, kw_only=True):
    """One attachment of this connection."""

    attachment_id: Id


class SessionRefresh(ByAttachment, frozen=True, kw_only=True):
    """Draw the screen again, with so many lines of history before it; a frame has none."""

    scrollback_lines: HistoryLines | None = None


class CancelRequest(Params, frozen=True, kw_only=True):
    """The id of the call that is to end."""

    id: int | float | str


class WatchProgress(Params, frozen=True, kw_only=True):
    """The id of the call whose progress is to be sent."""

    id: int | float | str


class SessionInput(ByAttachment, frozen=True, kw_only=True):
    """What the user typed.

    What the client's terminal answers to questions of the program is dropped: the session has answered them. The client
    that types owns the session's size: keys and pastes count, reports of the mouse and of the focus do not.
    """

    data: Annotated[bytes, Meta(max_length=MAX_INPUT_BYTES)]


class SessionResize(ByAttachment, frozen=True, kw_only=True):
    """The size of the user's window now. A client that may type owns the session's size from here on."""

    cols: ScreenCells
    rows: ScreenCells

    def __post_init__(self) -> None:
        """Check what no single type can. Raises: ValueError."""
        check_size(self.cols, self.rows)


class SessionSend(ById, frozen=True, kw_only=True):
    """What to type into a session without attaching."""

    data: Annotated[bytes, Meta(max_length=MAX_INPUT_BYTES)]


class SessionScreen(ById, frozen=True, kw_only=True):
    """How to return the screen; with `scrollback`, the whole history before it.

    `first_line` and `lines` cut a part out of what is returned: lines are counted from 0, the first of the history, and
    a negative `first_line` is counted from the end. `html` and `svg` are drawn in the colours of `theme`, and with the
    cursor unless `cursor` is false. With `at` it is the screen as it was at that moment, out of the session's film.
    """

    format: ScreenFormat = "text"
    scrollback: bool = False
    first_line: Annotated[int, Meta(ge=-MAX_LINE, le=MAX_LINE)] | None = None
    lines: HistoryLines | None = None
    cursor: bool = True
    theme: Theme | None = None
    at: Timestamp | None = None


class SessionWait(ById, frozen=True, kw_only=True):
    """What to wait for, and how long; without `timeout_secs`, for ever.

    `exit`: the program has ended. `output`: it prints something. `silence`: it has printed nothing for `silence_secs`.
    `text`: a line of the screen, or one that has left it since the call, holds `pattern`, as plain text. `command`: a
    command of its shell has finished, as far as the shell prints OSC 133.
    """

    wait_for: WaitFor = field(name="for", default="exit")
    pattern: Annotated[str, Meta(min_length=1, max_length=4_096)] | None = None
    silence_secs: Annotated[float, Meta(gt=0, le=86_400)] | None = None
    timeout_secs: Timeout | None = None

    def __post_init__(self) -> None:
        """Check what no single type can. Raises: ValueError."""
        if (self.pattern is not None) != (self.wait_for == "text"):
            raise ValueError("`pattern` is for `for` `text`, which needs it")
        if self.silence_secs is not None and self.wait_for != "silence":
            raise ValueError("`silence_secs` is for `for` `silence` only")


class SessionSignal(ById, frozen=True, kw_only=True):
    """A signal by name (`TERM` or `SIGTERM`) or number, for the terminal's foreground process group."""

    signal: Annotated[str, Meta(min_length=1, max_length=16)] | Annotated[int, Meta(ge=1, le=64)]

    def __post_init__(self) -> None:
        """Refuse what is no signal here. Raises: ValueError."""
        if self.number is None:
            raise ValueError("`signal` is no signal; TERM, INT and HUP are, for example")

    @property
    def number(self) -> int | None:
        """The signal's number on this machine."""
        if isinstance(self.signal, int):
            return self.signal if self.signal in signal.valid_signals() else None
        name = self.signal.upper()
        return SIGNALS.get(name) or SIGNALS.get("SIG" + name)


class HistorySearch(Params, frozen=True, kw_only=True):
    """What to search for in everything that sessions have shown.

    `query` is plain text, or with `regex` a regular expression as Python's `re` has them, for one line at a time. With
    the case `smart` capital letters count where the query has any. Sessions are those that have all of what is given.
    Each hit has up to `context` lines before and behind it.
    """

    query: Annotated[str, Meta(min_length=1, max_length=4_096)]
    regex: bool = False
    case: SearchCase = "smart"
    session_id: Id | None = None
    workspace_id: Id | None = None
    labels: Annotated[dict[LabelKey, LabelValue], Meta(max_length=MAX_LABELS)] | None = None
    since: Timestamp | None = None
    until: Timestamp | None = None
    context: Annotated[int, Meta(ge=0, le=50)] = 0
    limit: Annotated[int, Meta(ge=1, le=MAX_HITS)] = 100
    cursor: Cursor | None = None


class HistoryLinesPage(Params, frozen=True, kw_only=True):
    """Lines of a session's whole history and its screen, from `first` on; a negative one is counted from the end.

    Without `first` the newest ones. Lines are counted from 0, the first that the session has shown; `since` takes the
    first that was shown at that moment or later, in the place of `first`.
    """

    session_id: Id
    first: Annotated[int, Meta(ge=-MAX_LINE, le=MAX_LINE)] | None = None
    since: Timestamp | None = None
    limit: Annotated[int, Meta(ge=1, le=MAX_HISTORY_LINES)] = 1_000
    format: LineFormat = "text"

    def __post_init__(self) -> None:
        """Check what no single type can. Raises: ValueError."""
        if self.first is not None and self.since is not None:
            raise ValueError("`since` takes the place of `first`")


class HistoryOf(Params, frozen=True, kw_only=True):
    """The session."""

    session_id: Id


class HistoryExport(Params, frozen=True, kw_only=True):
    """What to take away of a session, and as what.

    With `path` the daemon writes the file, which must not be there or be empty; without it the answer has the contents,
    in pages. `path_bytes` is for a path that is not UTF-8; where it is given, `path` is ignored.
    """

    session_id: Id
    format: ExportFormat = "asciicast"
    since: Timestamp | None = None
    until: Timestamp | None = None
    path: AbsolutePath | None = None
    path_bytes: Annotated[bytes, Meta(min_length=1, max_length=MAX_PATH_LENGTH)] | UnsetType | None = UNSET
    cursor: Cursor | None = None

    def __post_init__(self) -> None:
        """Refuse a path that would depend on the daemon's folder, and a time without length. Raises: ValueError."""
        if self.file is not None and (not self.file.startswith("/") or "\0" in self.file):
            raise ValueError("`path` must be an absolute path")
        if self.file is not None and self.cursor is not None:
            raise ValueError("`cursor` is for an answer in pages, not for a file")
        if self.since is not None and self.until is not None and self.until <= self.since:
            raise ValueError("`until` must be after `since`")

    @property
    def file(self) -> str | None:
        """The file, as Python's functions take it; None where the answer has the contents."""
        given = self.path_bytes if isinstance(self.path_bytes, bytes) else None
        return None if given is None and self.path is None else path_from_text(self.path or "", given)


class HistoryForget(Params, frozen=True, kw_only=True):
    """What to erase of a session: what it has shown before a moment, or without one all of it."""

    session_id: Id
    before: Timestamp | None = None
