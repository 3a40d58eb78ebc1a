"""What travels over the socket: sessions, snapshots, workspaces, statistics.

Every type is a frozen Struct. Results tolerate fields that they do not know, so that an
older client can read a newer daemon; the types that a client sends refuse them (they
end in `Input` here, or live in `orbit_protocol.params`), so that a typing error is answered
and not ignored. Bytes are base64 in JSON, times are RFC 3339 in UTC.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import force_setattr

from orbit_protocol import MAX_COLUMNS_OR_ROWS, MAX_SCREEN_CELLS
from orbit_protocol.json_text import MAX_LAYOUT_NESTING, one_line
from orbit_protocol.text import BytePairs, Companion, encodable, pairs_to_text, text_and_bytes

MAX_NAME_LENGTH = 256
MAX_PAGE_SIZE = 10_000
MAX_HOST_LENGTH = 255
_SSH_REFUSED = frozenset("'\"`$;&<>|(){}")
_SSH_REFUSED_IN_HOSTS = _SSH_REFUSED | frozenset("\\[]")
MAX_COMMAND_LENGTH = 65_536
MAX_PATH_LENGTH = 4_096
_LONGEST_ESCAPE = 4
r"""Characters of the text (`\xNN`) for a byte that is not UTF-8: what is as long as the limit in bytes can be read."""

SessionType = Literal["local", "ssh"]
SessionStatus = Literal["active", "detached", "terminated", "archived"]
SnapshotFormat = Literal["opaque", "vt"]
ScreenStatus = Literal["ok", "rebuilding", "damaged"]
ProgressState = Literal["normal", "error", "indeterminate", "paused"]
Urgency = Literal["low", "normal", "critical"]
Record = Literal["full", "screen", "none"]
HitSource = Literal["line", "screen"]
MarkKind = Literal["command", "started", "exited", "gap"]
LineFormat = Literal["text", "html", "vt"]
ExportFormat = Literal["asciicast", "text", "html", "vt"]

Id = Annotated[str, Meta(min_length=1, max_length=MAX_NAME_LENGTH, description="A full id (UUID4 text).")]
# Names count in NFC, so that their length is checked by `normal_name` and only described here.
_NAME_SCHEMA = {"minLength": 1, "maxLength": MAX_NAME_LENGTH}
Ref = Annotated[str, Meta(description="An id, a unique prefix of one (4+), or a name.", extra_json_schema=_NAME_SCHEMA)]
Name = Annotated[
    str,
    Meta(
        description="1 to 256 characters in NFC (Unicode Standard Annex 15), none of them a control character.",
        extra_json_schema=_NAME_SCHEMA,
    ),
]
Port = Annotated[int, Meta(ge=1, le=65_535)]
_SCREEN_CELLS = f"Columns or rows of a terminal; at most {MAX_SCREEN_CELLS:,} cells."
ScreenCells = Annotated[int, Meta(ge=1, le=MAX_COLUMNS_OR_ROWS, description=_SCREEN_CELLS)]
Cells = Annotated[int, Meta(ge=1, le=65_535, description="Columns or rows (an unsigned short, as in ioctl_tty(2)).")]
PageSize = Annotated[int, Meta(ge=1, le=MAX_PAGE_SIZE, description="The most entries to answer with.")]
Environment = Annotated[dict[str, str], Meta(max_length=10_000)]
# Not tuple[bytes, bytes]: its schema has `items: false`, which simple readers of schemas trip over.
EnvironmentBytes = Annotated[
    list[Annotated[tuple[bytes, ...], Meta(min_length=2, max_length=2, description="`[name, value]`")]],
    Meta(max_length=10_000),
]
Command = Annotated[
    str,
    Meta(
        max_length=_LONGEST_ESCAPE * MAX_COMMAND_LENGTH,
        description=f"At most {MAX_COMMAND_LENGTH} characters, unless it stands beside `command_bytes`.",
    ),
]
AbsolutePath = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=_LONGEST_ESCAPE * MAX_PATH_LENGTH,
        description=f"An absolute path of at most {MAX_PATH_LENGTH} characters, unless its bytes stand beside it.",
    ),
]
MAX_LABELS = 64
"""Of one session."""
LabelKey = Annotated[str, Meta(min_length=1, max_length=MAX_NAME_LENGTH, description="No control character, no `=`.")]
LabelValue = Annotated[str, Meta(max_length=MAX_NAME_LENGTH, description="No control character.")]
Timestamp = Annotated[datetime, Meta(tz=True)]
Cursor = Annotated[
    str, Meta(min_length=1, max_length=MAX_NAME_LENGTH, description="`next_cursor` of the page before this one.")
]


def has_control_characters(text: str) -> bool:
    """Return whether `text` holds a C0 or C1 control character or DEL (ECMA-48, 5.2 and 5.3)."""
    return any(ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0 for character in text)


def normal_name(text: str, field: str = "name") -> str:
    """Return a name, or a reference that may be one, in NFC: of two spellings of one name only this is kept.

    Raises:
        ValueError: It is empty, too long, or not UTF-8. The text names `field`.
    """
    if not text.isascii():
        if any("\ud800" <= character <= "\udfff" for character in text):
            # Bytes of a command line (PEP 383), which in a locale that is not UTF-8 may be UTF-8 all the same.
            try:
                text = text.encode("utf-8", "surrogateescape").decode()
            except UnicodeError as error:
                raise ValueError(f"`{field}` is not UTF-8: {encodable(text)}") from error
        # No character of NFC comes from more than four. What is longer is refused unread: normalizing takes time that
        # grows with the square of a run of combining marks.
        if len(text) <= 4 * MAX_NAME_LENGTH:
            from unicodedata import normalize  # its tables are a shared library, which ASCII does not need

            text = normalize("NFC", text)
    if not 1 <= len(text) <= MAX_NAME_LENGTH:
        raise ValueError(f"`{field}` must have 1 to {MAX_NAME_LENGTH} characters")
    return text


def check_name(text: str) -> str:
    """Return a new name in NFC. Raises: ValueError, as `normal_name` does, and for control characters."""
    name = normal_name(text)
    if has_control_characters(name):  # it is shown on terminals, and so may not steer one
        raise ValueError("`name` may not hold control characters")
    return name


def check_labels(labels: Mapping[str, str | None]) -> None:
    """Refuse labels that cannot be typed as KEY=VALUE, or that would steer a terminal. Raises: ValueError."""
    for key, value in labels.items():
        if not 1 <= len(key) <= MAX_NAME_LENGTH or len(value or "") > MAX_NAME_LENGTH:
            raise ValueError(f"`labels` may have {MAX_NAME_LENGTH} characters in a key or value, and no empty key")
        if "=" in key or has_control_characters(key) or has_control_characters(value or ""):
            raise ValueError("`labels` may hold no control characters, and no `=` in a key")


def check_environment(environment: dict[str, str] | None) -> None:
    """Refuse what execve(2) cannot take. Raises: ValueError."""
    for name, value in (environment or {}).items():
        if not name or "=" in name or "\0" in name or "\0" in value:
            raise ValueError("`env` may hold no empty name, no `=` in a name and no NUL")


def environment_from_bytes(pairs: BytePairs) -> tuple[dict[str, str], BytePairs | UnsetType]:
    """Return what `env` and `env_bytes` are for an environment in bytes. Raises: ValueError, as `check_environment`."""
    for name, value in pairs:
        if not name or b"=" in name or b"\0" in name or b"\0" in value:
            raise ValueError("`env_bytes` may hold no empty name, no `=` in a name and no NUL")
    return pairs_to_text(pairs)


class SessionConfig(Struct, frozen=True, kw_only=True):
    r"""What a session runs and where.

    `ssh` needs a host; `local` takes none of host, port and username. `command` is split
    as a POSIX shell would, without running one. `workspace_id` is where the session
    belongs now. `cwd` and `env` are for the program; `env` is stored and shown. After a reboot
    a program is started again if `restart` says so; `resume` is a command of its own for coming back
    (`vim -r`), run in the place of `command` then. `reconnect` starts ssh again when it has lost its
    connection. With `auto_remove` the session is deleted, into the trash, when its program has ended.

    `record` says what is kept of what it shows: all of it (`full`), the newest screens and the text (`screen`), or
    nothing on the disk (`none`, a private session). Of a private session `command`, `cwd` and `env` are kept in memory
    until its program is started, and shown to nobody: it is started once, and not again.

    `command_bytes` (the whole line), `cwd_bytes` and `env_bytes` (the whole environment, as a list of
    `[name, value]`) are there only where those are not UTF-8; the text then has `\xNN` for each byte
    that is not. Where one is given it wins, and the text beside it is ignored.
    """

    session_type: SessionType
    host: Annotated[str, Meta(min_length=1, max_length=MAX_HOST_LENGTH)] | None = None
    port: Port | None = None
    username: Annotated[str, Meta(min_length=1, max_length=MAX_NAME_LENGTH)] | None = None
    workspace_id: Id | None = None
    command: Command | None = None
    command_bytes: Annotated[bytes, Meta(max_length=MAX_COMMAND_LENGTH)] | UnsetType | None = UNSET
    cwd: AbsolutePath | None = None
    cwd_bytes: Annotated[bytes, Meta(min_length=1, max_length=MAX_PATH_LENGTH)] | UnsetType | None = UNSET
    env: Environment | None = None
    env_bytes: EnvironmentBytes | UnsetType | None = UNSET
    restart: bool = False
    reconnect: bool = False
    resume: Command | None = None
    auto_remove: bool = False
    record: Record = "full"

    def __post_init__(self) -> None:
        """Refuse what ssh or execve would misread. Raises: ValueError."""
        if self.session_type == "ssh" and self.host is None:
            raise ValueError("`host` is required where `session_type` is `ssh`")
        if self.session_type == "local":
            self._refuse_remote_fields()
        if self.command_bytes is not UNSET or self.cwd_bytes is not UNSET or self.env_bytes is not UNSET:
            self._set_text_from_bytes()
        for field, longest in (
            ("command", MAX_COMMAND_LENGTH),
            ("resume", MAX_COMMAND_LENGTH),
            ("cwd", MAX_PATH_LENGTH),
        ):
            text = getattr(self, field) or ""
            if "\0" in text:
                raise ValueError(f"`{field}` may not hold a NUL")
            if len(text) > longest and getattr(self, f"{field}_bytes", UNSET) is UNSET:
                raise ValueError(f"`{field}` may have {longest} characters at most")
        if self.cwd is not None and not self.cwd.startswith("/"):
            raise ValueError("`cwd` must be an absolute path")
        if self.record == "none" and (self.restart or self.reconnect or self.resume is not None):
            raise ValueError("a session whose `record` is `none` takes no `restart`, `reconnect` or `resume`")
        if self.reconnect and self.session_type != "ssh":
            raise ValueError("`reconnect` is for `session_type` `ssh` only")
        check_environment(self.env)

    def _set_text_from_bytes(self) -> None:
        """Set each text from the bytes where those are given, and remove bytes that are UTF-8: the text says it all."""
        for field in ("command", "cwd"):
            given = getattr(self, f"{field}_bytes")
            text, companion = text_and_bytes(given) if isinstance(given, bytes) else (getattr(self, field), UNSET)
            force_setattr(self, field, text)
            force_setattr(self, f"{field}_bytes", companion)
        pairs = self.env_bytes
        env, env_bytes = environment_from_bytes(pairs) if isinstance(pairs, list) else (self.env, UNSET)
        force_setattr(self, "env", env)
        force_setattr(self, "env_bytes", env_bytes)

    def _refuse_remote_fields(self) -> None:
        for field in ("host", "port", "username"):
            if getattr(self, field) is not None:
                raise ValueError(f"`{field}` is for `session_type` `ssh` only")


def check_ssh_words(host: str | None, username: str | None) -> None:
    r"""Refuse a host and a user name that ssh(1), or a shell that it runs, would read as something else.

    The one rule for both, wherever they come from. No word is empty or longer than its field, or

    - begins with `-` (it would be an option) or `ssh://` (a URI);
    - holds a blank, a control character or anything else that is not printable;
    - holds one of ' " ` $ ; & < > | ( ) { }, nor the host a backslash, nor the user one at the end: ssh puts them into
      ProxyCommand, which a shell runs, and refuses most of these by itself only since OpenSSH 9.6 (CVE-2023-51385).
      At the end of a user `$` expands to nothing there, and accounts of machines have it (Samba).

    A host may have a user in front of an `@`, as on ssh's own command line, which ends the user at the last one. It
    holds no brackets, which ssh does not take around an address of IPv6. `%` is a zone's sign there, and ssh expands
    it in its configuration only. Letters need not be ASCII.

    Raises:
        ValueError: The text names the field.
    """
    if host is not None and "@" in host:
        user, _, host = host.rpartition("@")
        username = user if username is None else f"{username}@{user}"
    if host is not None:
        _check_ssh_word("host", host, MAX_HOST_LENGTH, _SSH_REFUSED_IN_HOSTS.intersection(host))
    if username is not None:
        refused = _SSH_REFUSED.intersection(username.removesuffix("$"))
        _check_ssh_word("username", username, MAX_NAME_LENGTH, refused)
        if username.endswith("\\"):
            raise ValueError("`username` may not end in a backslash")


def _check_ssh_word(field: str, word: str, limit: int, refused: Set[str]) -> None:
    if not 1 <= len(word) <= limit:
        raise ValueError(f"`{field}` must have 1 to {limit} characters")
    if encodable(word) != word:
        raise ValueError(f"`{field}` is not UTF-8: {encodable(word)}")
    for start in ("-", "ssh://"):
        if word.startswith(start):
            raise ValueError(f"`{field}` may not begin with `{start}`")
    if " " in word or not word.isprintable():
        raise ValueError(f"`{field}` may not hold blanks or control characters")
    if refused:
        raise ValueError(f"`{field}` may not hold {min(refused)}")


class SessionConfigInput(SessionConfig, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A `SessionConfig` as a client sends it."""

    def __post_init__(self) -> None:
        """Refuse what ssh or execve would misread. Raises: ValueError."""
        SessionConfig.__post_init__(self)
        # Here and where ssh is started, not in what has been recorded: an older version recorded more, and such a
        # session must stay readable.
        check_ssh_words(self.host, self.username)


class Progress(Struct, frozen=True, kw_only=True):
    """The progress that a program shows (OSC 9;4): its state, and from 0 to 100 where it has a number."""

    state: ProgressState
    percent: int | None = None


class TerminalNotification(Struct, frozen=True, kw_only=True):
    """What a program wants the user to read (OSC 9, OSC 777, OSC 99)."""

    title: str
    body: str
    urgency: Urgency = "normal"


class CommandFinished(Struct, frozen=True, kw_only=True):
    """A command of a shell that prints OSC 133; each field is null where the shell does not tell it."""

    command: str | None = None
    exit_code: int | None = None
    duration_secs: float | None = None
    cwd: str | None = None


class Session(Struct, frozen=True, kw_only=True):
    r"""One terminal: `active` (a client is attached), `detached` (kept without one) or `terminated` (ended).

    `archived` is the status of a terminated session that was moved out of the way. `live` says
    that its program runs in a terminal of orbitd's; `pid`, `clients` and the size, title and
    folder are then those of now, else the last ones. Sizes are in cells. `screen` is `rebuilding`
    or `damaged` while its picture cannot be shown, since the terminal emulation has failed.
    `cwd_bytes` is there only where the folder's path is not UTF-8; `cwd` then has `\xNN` for
    each byte that is not. `last_output_at` and `last_input_at` are those of a live session; `deleted_at`
    is when it was put into the trash.

    `bell`, `notification` and `unseen_output` are what the program has done since the last client that may type
    left: rung, said, printed. `progress` is what it shows now, and `last_command` the last one of its shell.
    """

    id: str
    name: str | None
    session_type: SessionType
    created_at: Timestamp
    last_active: Timestamp
    status: SessionStatus
    config: SessionConfig
    workspace_id: str | None
    live: bool = False
    pid: int | None = None
    exit_code: int | None = None
    exit_signal: int | None = None
    cols: int | None = None
    rows: int | None = None
    title: str | None = None
    cwd: str | None = None
    cwd_bytes: Companion = UNSET
    clients: int = 0
    last_saved_at: Timestamp | None = None
    screen: ScreenStatus = "ok"
    labels: dict[str, str] = {}
    last_output_at: Timestamp | None = None
    last_input_at: Timestamp | None = None
    deleted_at: Timestamp | None = None
    bell: bool = False
    notification: TerminalNotification | None = None
    unseen_output: bool = False
    progress: Progress | None = None
    last_command: CommandFinished | None = None


class SnapshotInfo(Struct, frozen=True, kw_only=True):
    """A saved screen without its bytes; sizes are in bytes.

    `format` is `opaque` for what a client sent and `vt` for what orbitd made itself.
    `stored_bytes` is what it takes in the database.
    """

    id: str
    session_id: str
    snapshot_at: Timestamp
    format: SnapshotFormat
    cols: int | None
    rows: int | None
    buffer_bytes: int
    scrollback_bytes: int
    stored_bytes: int


class Snapshot(SnapshotInfo, frozen=True, kw_only=True):
    """A saved screen with its bytes."""

    terminal_buffer: bytes
    scrollback: bytes | None


class WorkspaceLayout(Struct, frozen=True, kw_only=True):
    """How a workspace is laid out. `config` is any JSON, nested 500 deep at most, and kept to the letter.

    In Python `config` may be given as plain objects; it is held as encoded JSON.
    """

    layout_type: Annotated[str, Meta(min_length=1, max_length=MAX_NAME_LENGTH)]
    config: msgspec.Raw

    def __post_init__(self) -> None:
        """Encode plain objects, and put raw JSON on one line, as every message has to be.

        Raises: ValueError if it is not JSON.
        """
        raw: Any = self.config
        encoded = bytes(raw) if isinstance(raw, msgspec.Raw) else msgspec.json.encode(raw)
        try:
            line = one_line(encoded, MAX_LAYOUT_NESTING)
        except ValueError as error:
            raise ValueError(f"`config` is {error}") from error
        force_setattr(self, "config", msgspec.Raw(line))

    def __eq__(self, other: object) -> bool:
        """Layouts are equal when their JSON is, letter by letter."""
        if not isinstance(other, WorkspaceLayout):
            return NotImplemented
        return (self.layout_type, bytes(self.config)) == (other.layout_type, bytes(other.config))

    __hash__ = None  # type: ignore[assignment]  # layouts are values to compare, not keys


class WorkspaceLayoutInput(WorkspaceLayout, frozen=True, kw_only=True, forbid_unknown_fields=True, eq=False):
    """A `WorkspaceLayout` as a client sends it."""


class Workspace(Struct, frozen=True, kw_only=True):
    """A named layout that sessions belong to; `active_session_id` is one of them or null."""

    id: str
    name: str
    created_at: Timestamp
    layout: WorkspaceLayout
    active_session_id: str | None


class SessionPage(Struct, frozen=True, kw_only=True):
    """Sessions, oldest first; `next_cursor` is null on the last page."""

    sessions: list[Session]
    next_cursor: str | None


class SnapshotPage(Struct, frozen=True, kw_only=True):
    """Snapshots of one session, newest first; `next_cursor` is null on the last page."""

    snapshots: list[SnapshotInfo]
    next_cursor: str | None


class WorkspacePage(Struct, frozen=True, kw_only=True):
    """Workspaces, oldest first; `next_cursor` is null on the last page."""

    workspaces: list[Workspace]
    next_cursor: str | None


class Event(Struct, frozen=True, kw_only=True):
    """Something that has happened: `seq` and `cursor` are null of what is live only and never stored.

    `data` depends on the kind; `cursor` is what a client passes as `since` to hear what comes after this one.
    """

    seq: int | None
    at: Timestamp
    kind: str
    session_id: str | None
    workspace_id: str | None
    data: msgspec.Raw
    cursor: str | None = None


class SessionDocument(Struct, frozen=True, kw_only=True):
    """A session of an exported workspace: its configuration, and none of its contents."""

    id: str
    name: str | None
    config: SessionConfig
    labels: dict[str, str] = {}
    cols: int | None = None
    rows: int | None = None


class WorkspaceDocument(Struct, frozen=True, kw_only=True):
    """An exported workspace; `orbit_workspace` is the version of this format."""

    orbit_workspace: int
    name: str
    layout: WorkspaceLayout
    sessions: list[SessionDocument]
    active_session_id: str | None = None


class SessionDocumentInput(SessionDocument, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A `SessionDocument` as a client sends it."""

    id: Id
    name: Name | None = None
    config: SessionConfigInput
    labels: Annotated[dict[LabelKey, LabelValue], Meta(max_length=MAX_LABELS)] = {}
    cols: ScreenCells | None = None
    rows: ScreenCells | None = None

    def __post_init__(self) -> None:
        """Check name and labels, and keep the name in NFC. Raises: ValueError."""
        if self.name is not None:
            force_setattr(self, "name", check_name(self.name))
        check_labels(self.labels)


class WorkspaceDocumentInput(WorkspaceDocument, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A `WorkspaceDocument` as a client sends it."""

    orbit_workspace: Annotated[int, Meta(ge=1, le=1)]
    name: Name
    layout: WorkspaceLayoutInput
    sessions: Annotated[list[SessionDocumentInput], Meta(max_length=MAX_PAGE_SIZE)]  # type: ignore[assignment]  # narrower
    active_session_id: Id | None = None

    def __post_init__(self) -> None:
        """Check the name, and keep it in NFC. Raises: ValueError."""
        force_setattr(self, "name", check_name(self.name))
