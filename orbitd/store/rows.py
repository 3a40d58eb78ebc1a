"""Rows of the tables as Structs and back, and the lookups that every transaction begins with.

SESSION_COLUMNS, WORKSPACE_COLUMNS      what the SELECTs of this package ask for, in the order that is read here
session_from_row, workspace_from_row    a row as a Struct, with its sequence number (`Stored`)
session_values, workspace_values        a Struct as the values of its row
find_session, find_workspace            a row by its id, inside the writer's transaction
row_checksum                            what a row's `checksum` column holds
time_to_text, time_from_text            times as columns hold them
"""

from __future__ import annotations

import sqlite3
import zlib
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import UNSET, Struct, structs
from msgspec.structs import replace

from orbit_protocol.errors import InvalidParams, SessionNotFound, WorkspaceNotFound
from orbit_protocol.text import Companion
from orbit_protocol.types import Session, SessionConfig, Workspace, WorkspaceLayout

T = TypeVar("T")
Row = tuple[Any, ...]

SESSION_COLUMNS = "seq, id, name, session_type, created_at, last_active, status, config, workspace_id, program"
WORKSPACE_COLUMNS = "seq, id, name, created_at, layout, active_session_id"

_SELECT_SESSION = f"SELECT {SESSION_COLUMNS} FROM sessions WHERE id = ?"  # noqa: S608  # a constant of ours
_SELECT_WORKSPACE = f"SELECT {WORKSPACE_COLUMNS} FROM workspaces WHERE id = ?"  # noqa: S608  # a constant of ours

_config_decoder = msgspec.json.Decoder(SessionConfig)
_layout_decoder = msgspec.json.Decoder(WorkspaceLayout)


class Stored(Struct, Generic[T], frozen=True):
    """An item with the sequence number of its row, which never changes; lists are sorted by it, oldest first."""

    seq: int
    item: T


class Program(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The `program` column: the fields of a Session, by their names there, that describe its program."""

    live: bool = False
    exit_code: int | None = None
    exit_signal: int | None = None
    cols: int | None = None
    rows: int | None = None
    title: str | None = None
    cwd: str | None = None
    cwd_bytes: Companion = UNSET
    last_saved_at: datetime | None = None


_NO_PROGRAM = Program()
_PROGRAM_FIELDS = Program.__struct_fields__
_program_decoder = msgspec.json.Decoder(Program)


def now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


def time_to_text(moment: datetime) -> str:
    """Return a time as RFC 3339 in UTC with microseconds. Raises: InvalidParams."""
    # Always the same width (isoformat() would leave out microseconds that are 0), so that
    # comparing texts, as SQLite does in ORDER BY, max() and <, compares times.
    try:
        utc = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    except OverflowError as error:  # year 1 or 9999 with an offset that leads out of datetime's range
        raise InvalidParams(f"{moment.isoformat()} is in no year from 1 to 9999 of UTC") from error
    return utc.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def time_from_text(text: str) -> datetime:
    """Return the time that `time_to_text` wrote."""
    return datetime.fromisoformat(text)


def to_json(value: Struct) -> str:
    """Encode a Struct for a TEXT column."""
    return msgspec.json.encode(value).decode()


def row_checksum(values: Row) -> int:
    """Return the checksum of a row: the CRC-32 (zlib) of its values, without the checksum, as one MessagePack array.

    Args:
        values: Of every other column, in the order of SESSION_COLUMNS or WORKSPACE_COLUMNS.
    """
    return zlib.crc32(msgspec.msgpack.encode(values))


def session_from_row(row: Row) -> Stored[Session]:
    """Decode a row of SESSION_COLUMNS."""
    seq, session_id, name, session_type, created_at, last_active, status, config, workspace_id, program = row
    session = Session(
        id=session_id,
        name=name,
        session_type=session_type,
        created_at=time_from_text(created_at),
        last_active=time_from_text(last_active),
        status=status,
        config=_config_decoder.decode(config),
        workspace_id=workspace_id,
    )
    if program is not None:  # NULL for a session that never had one (0002_programs.sql)
        session = replace(session, **structs.asdict(_program_decoder.decode(program)))
    return Stored(seq, session)


def session_values(session: Session) -> Row:
    """Return the values of SESSION_COLUMNS for a session, without seq."""
    program = Program(**{field: getattr(session, field) for field in _PROGRAM_FIELDS})
    created_at = time_to_text(session.created_at)
    return (
        session.id,
        session.name,
        session.session_type,
        created_at,
        created_at if session.last_active is session.created_at else time_to_text(session.last_active),
        session.status,
        to_json(session.config),
        session.workspace_id,
        None if program == _NO_PROGRAM else to_json(program),
    )


def workspace_from_row(row: Row) -> Stored[Workspace]:
    """Decode a row of WORKSPACE_COLUMNS."""
    seq, workspace_id, name, created_at, layout, active_session_id = row
    workspace = Workspace(
        id=workspace_id,
        name=name,
        created_at=time_from_text(created_at),
        layout=_layout_decoder.decode(layout),
        active_session_id=active_session_id,
    )
    return Stored(seq, workspace)


def workspace_values(workspace: Workspace) -> Row:
    """Return the values of WORKSPACE_COLUMNS for a workspace, without seq."""
    return (
        workspace.id,
        workspace.name,
        time_to_text(workspace.created_at),
        to_json(workspace.layout),
        workspace.active_session_id,
    )


def find_session(connection: sqlite3.Connection, session_id: str) -> Stored[Session]:
    """Return a session that is not archived. Raises: SessionNotFound."""
    row = connection.execute(_SELECT_SESSION, (session_id,)).fetchone()
    if row is not None:
        return session_from_row(row)
    archived = connection.execute("SELECT 1 FROM archived_sessions WHERE id = ?", (session_id,)).fetchone()
    raise session_is_archived(session_id) if archived else session_not_found(session_id)


def find_workspace(connection: sqlite3.Connection, workspace_id: str) -> Stored[Workspace]:
    """Return a workspace. Raises: WorkspaceNotFound."""
    row = connection.execute(_SELECT_WORKSPACE, (workspace_id,)).fetchone()
    if row is None:
        raise workspace_not_found(workspace_id)
    return workspace_from_row(row)


def session_not_found(session_id: str) -> SessionNotFound:
    """Return the error for an id that no session has."""
    return SessionNotFound(f"No session has the id {session_id}")


def session_is_archived(session_id: str) -> SessionNotFound:
    """Return the error for a change of an archived session."""
    return SessionNotFound(
        f"Session {session_id} is archived", hint="Bring it back with session.restore_archived, then try again."
    )


def workspace_not_found(workspace_id: str) -> WorkspaceNotFound:
    """Return the error for an id that no workspace has."""
    return WorkspaceNotFound(f"No workspace has the id {workspace_id}")
