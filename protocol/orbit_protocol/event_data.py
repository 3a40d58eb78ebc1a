"""What an event's `data` is, by its kind, and an example of each kind: for `rpc.discover` and what is made of it."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from orbit_protocol.event_kinds import LIVE_KINDS, ON_REQUEST, STORED_KINDS
from orbit_protocol.results import Empty
from orbit_protocol.text import Companion
from orbit_protocol.types import (
    CommandFinished,
    Progress,
    Session,
    SnapshotInfo,
    TerminalNotification,
    Timestamp,
    Workspace,
)


class SessionClient(Session, frozen=True, kw_only=True):
    """A session that a client has come to, or has left: with the process of the client, and whether it only watches."""

    client_pid: int | None = None
    read_only: bool = False
    reason: str | UnsetType = UNSET


class SessionEnded(Session, frozen=True, kw_only=True):
    """A session whose program has ended or was lost, and why, where it did not end by itself."""

    reason: Literal["connection_lost", "program_lost", "not_started", "terminated"] | UnsetType = UNSET


class Purged(Struct, frozen=True, kw_only=True):
    """What is left of the data where the session was deleted for good."""

    purged: Literal[True]


class Title(Struct, frozen=True, kw_only=True):
    """A session's new title."""

    title: str | None


class Folder(Struct, frozen=True, kw_only=True):
    """A session's new folder."""

    cwd: str | None
    cwd_bytes: Companion = UNSET


class ProgressChange(Struct, frozen=True, kw_only=True):
    """The progress that a session shows now; null where it shows none any more."""

    progress: Progress | None


class OutputSeen(Struct, frozen=True, kw_only=True):
    """When a session has printed last, and whether no client that may type was there."""

    last_output_at: Timestamp
    unseen_output: bool


class Dropped(Struct, frozen=True, kw_only=True):
    """How much of what a program says was not kept."""

    count: int


class DaemonVersion(Struct, frozen=True, kw_only=True):
    """The daemon's version."""

    version: str


class DaemonWarning(Struct, frozen=True, kw_only=True):
    """A problem that lasts, or did, as in `daemon.info`."""

    warning: str


EVENT_DATA: dict[str, type[Any] | tuple[type[Any], ...]] = {
    **{kind: Session for kind in STORED_KINDS if kind.startswith("session.")},
    "session.attached": SessionClient,
    "session.detached": SessionClient,
    "session.exited": SessionEnded,
    "session.disconnected": SessionEnded,
    "session.deleted": (Session, Purged),
    **{kind: Workspace for kind in STORED_KINDS if kind.startswith("workspace.")},
    "snapshot.saved": SnapshotInfo,
    "terminal.bell": Empty,
    "terminal.notification": TerminalNotification,
    "terminal.dropped": Dropped,
    "command.finished": CommandFinished,
    "daemon.started": DaemonVersion,
    "daemon.stopping": DaemonVersion,
    "daemon.warning": DaemonWarning,
    "daemon.cleared": DaemonWarning,
    "session.title": Title,
    "session.cwd": Folder,
    "session.progress": ProgressChange,
    "session.silent": Empty,
    "session.active": Empty,
    "session.output_seen": OutputSeen,
}
"""The Struct of each kind's `data`, or those that it may be."""

_AT = "2026-01-31T12:00:00.000001Z"
_SESSION_ID = "5e0c6f4e-58d5-4d3a-9f6e-3c3f0f1f7c11"
_WORKSPACE_ID = "0b7a2f6e-6f0e-4a39-8f0f-0d3f5a1c9b42"
EXAMPLE_SESSION: dict[str, Any] = {
    "id": _SESSION_ID,
    "name": "web",
    "session_type": "local",
    "created_at": _AT,
    "last_active": _AT,
    "status": "active",
    "config": {
        "session_type": "local",
        "command": "npm run dev",
        "cwd": "/home/ada/shop",
        "workspace_id": _WORKSPACE_ID,
    },
    "workspace_id": _WORKSPACE_ID,
    "live": True,
    "pid": 4242,
    "cols": 80,
    "rows": 24,
    "clients": 1,
}
_ENDED = {**EXAMPLE_SESSION, "status": "terminated", "live": False, "pid": None, "exit_code": 1, "clients": 0}
_RECORDED = {**EXAMPLE_SESSION, "live": False, "pid": None, "cols": None, "rows": None, "clients": 0}
_STARTED = {**EXAMPLE_SESSION, "status": "detached", "pid": None, "clients": 0}
_WORKSPACE = {
    "id": _WORKSPACE_ID,
    "name": "shop",
    "created_at": _AT,
    "layout": {"layout_type": "splits", "config": {"left": _SESSION_ID}},
    "active_session_id": _SESSION_ID,
}
_SNAPSHOT = {
    "id": "c1a7cdd2-7d43-4b5e-9a53-5b1c4e7f9a10",
    "session_id": _SESSION_ID,
    "snapshot_at": _AT,
    "format": "vt",
    "cols": 80,
    "rows": 24,
    "buffer_bytes": 2120,
    "scrollback_bytes": 0,
    "stored_bytes": 412,
}
_WARNING = {"warning": "The daily backup fails: No space left on device"}
_EXAMPLES: dict[str, dict[str, Any]] = {
    **{kind: EXAMPLE_SESSION for kind in STORED_KINDS if kind.startswith("session.")},
    "session.created": _RECORDED,
    "session.started": _STARTED,
    "session.reconnected": _STARTED,
    "session.attached": {**EXAMPLE_SESSION, "client_pid": 4711, "read_only": False},
    "session.detached": {**EXAMPLE_SESSION, "status": "detached", "clients": 0, "client_pid": 4711, "read_only": False},
    "session.exited": _ENDED,
    "session.terminated": _ENDED,
    "session.disconnected": {**_ENDED, "status": "detached", "exit_code": None, "reason": "program_lost"},
    "session.deleted": {**_ENDED, "deleted_at": _AT},
    "session.undeleted": _ENDED,
    "session.restored": _ENDED,
    "session.archived": {**_ENDED, "status": "archived"},
    **{kind: _WORKSPACE for kind in STORED_KINDS if kind.startswith("workspace.")},
    "snapshot.saved": _SNAPSHOT,
    "terminal.notification": {"title": "build", "body": "3 tests failed", "urgency": "normal"},
    "terminal.dropped": {"count": 1200},
    "command.finished": {"command": "make", "exit_code": 2, "duration_secs": 81.5, "cwd": "/home/ada/shop"},
    "daemon.started": {"version": "0.1.0"},
    "daemon.stopping": {"version": "0.1.0"},
    "daemon.warning": _WARNING,
    "daemon.cleared": _WARNING,
    "session.title": {"title": "vim notes.md"},
    "session.cwd": {"cwd": "/home/ada/shop"},
    "session.progress": {"progress": {"state": "normal", "percent": 40}},
    "session.output_seen": {"last_output_at": _AT, "unseen_output": True},
}


def example_of(kind: str) -> dict[str, Any]:
    """Return an event of a kind as the params of an `event` notification, as JSON has it."""
    is_stored, group = kind in STORED_KINDS, kind.partition(".")[0]
    return {
        "subscription_id": "1",
        "seq": 4711 if is_stored else None,
        "at": _AT,
        "kind": kind,
        "session_id": None if group in ("workspace", "daemon") else _SESSION_ID,
        "workspace_id": None if group == "daemon" else _WORKSPACE_ID,
        "data": _EXAMPLES.get(kind, {}),
        "cursor": "9f86d081-4711" if is_stored else None,
    }


def data_types() -> list[type[Any]]:
    """Return every Struct that an event's data may be."""
    found = (kind if isinstance(kind, tuple) else (kind,) for kind in EVENT_DATA.values())
    return [one for types in found for one in types]


def describe_kinds(reference: str) -> list[dict[str, Any]]:
    """Return every kind as `rpc.discover` describes it.

    Args:
        reference: Where the schema of a Struct is, with `{name}` for its name.
    """
    return [
        {
            "kind": kind,
            "summary": summary,
            "stored": kind in STORED_KINDS,
            "on_request": kind in ON_REQUEST,
            "data": _data_schema(kind, reference),
            "example": {"jsonrpc": "2.0", "method": "event", "params": example_of(kind)},
        }
        for kind, summary in (STORED_KINDS | LIVE_KINDS).items()
    ]


def _data_schema(kind: str, reference: str) -> dict[str, Any]:
    types = EVENT_DATA[kind]
    if isinstance(types, tuple):
        return {"anyOf": [{"$ref": reference.format(name=one.__name__)} for one in types]}
    return {"$ref": reference.format(name=types.__name__)}
