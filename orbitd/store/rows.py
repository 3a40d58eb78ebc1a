"""Rows to Structs and back. A `Stored` thing is one with its sequence number, which orders lists."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct, structs
from msgspec.structs import replace

from orbit_protocol.types import Session, SessionConfig, Workspace, WorkspaceLayout
from orbitd.store.clock import from_text, to_text

T = TypeVar("T")
Row = tuple[Any, ...]

SESSION_COLUMNS = "seq, id, name, session_type, created_at, last_active, status, config, workspace_id, program"
WORKSPACE_COLUMNS = "seq, id, name, created_at, layout, active_session_id"

_config = msgspec.json.Decoder(SessionConfig)
_layout = msgspec.json.Decoder(WorkspaceLayout)


class Program(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is stored of a session's program; the fields of a Session that have these names."""

    live: bool = False
    exit_code: int | None = None
    exit_signal: int | None = None
    cols: int | None = None
    rows: int | None = None
    title: str | None = None
    cwd: str | None = None
    last_saved_at: datetime | None = None


_NO_PROGRAM = Program()
_PROGRAM_FIELDS = Program.__struct_fields__
_program = msgspec.json.Decoder(Program)


class Stored(Struct, Generic[T], frozen=True):
    """An item and the number that it keeps for life; oldest first is smallest first."""

    seq: int
    item: T


def to_json(value: Struct) -> str:
    """Encode a Struct for a TEXT column."""
    return msgspec.json.encode(value).decode()


def session_of(row: Row) -> Stored[Session]:
    """Read a row of SESSION_COLUMNS."""
    seq, session_id, name, session_type, created_at, last_active, status, config, workspace_id, program = row
    session = Session(
        id=session_id,
        name=name,
        session_type=session_type,
        created_at=from_text(created_at),
        last_active=from_text(last_active),
        status=status,
        config=_config.decode(config),
        workspace_id=workspace_id,
    )
    if program is not None:
        session = replace(session, **structs.asdict(_program.decode(program)))
    return Stored(seq, session)


def session_values(session: Session) -> Row:
    """Return what SESSION_COLUMNS hold for a session, but for seq."""
    created_at = to_text(session.created_at)
    return (
        session.id,
        session.name,
        session.session_type,
        created_at,
        created_at if session.last_active is session.created_at else to_text(session.last_active),
        session.status,
        to_json(session.config),
        session.workspace_id,
        _program_json(session),
    )


def _program_json(session: Session) -> str | None:
    program = Program(**{field: getattr(session, field) for field in _PROGRAM_FIELDS})
    return None if program == _NO_PROGRAM else to_json(program)


def workspace_of(row: Row) -> Stored[Workspace]:
    """Read a row of WORKSPACE_COLUMNS."""
    seq, workspace_id, name, created_at, layout, active_session_id = row
    workspace = Workspace(
        id=workspace_id,
        name=name,
        created_at=from_text(created_at),
        layout=_layout.decode(layout),
        active_session_id=active_session_id,
    )
    return Stored(seq, workspace)


def workspace_values(workspace: Workspace) -> Row:
    """Return what WORKSPACE_COLUMNS hold for a workspace, but for seq."""
    return (
        workspace.id,
        workspace.name,
        to_text(workspace.created_at),
        to_json(workspace.layout),
        workspace.active_session_id,
    )
