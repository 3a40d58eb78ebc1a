"""Rows of the tables as Structs and back: each has a checksum, and one that cannot be read is one error of ours.

SESSION_COLUMNS, WORKSPACE_COLUMNS      what the SELECTs of this package ask for, in the order that is read here
session_from_row, workspace_from_row    a row as a Struct, with its sequence number (`Stored`), or DamagedRow
SNAPSHOT_HEAD_COLUMNS, SnapshotHead     a snapshot without its bytes, likewise
session_row, workspace_row              a Struct as the values of its row, the checksum too
insert_*, update_*                      the only statements that write these tables, as each writes the checksum
delete_row, execute_mending             statements that work although a row and its index entries disagree
find_session, find_deleted,
find_workspace                          a row by its id, inside the writer's transaction
row_checksum, covered                   what a row's `checksum` column holds, and of which values
lenient_text                            how every connection decodes text
time_to_text, time_from_text            times as columns hold them
"""

from __future__ import annotations

import logging
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, Literal, NoReturn, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, structs
from msgspec.structs import replace

from orbit_protocol.errors import InvalidParams, SessionNotFound, StorageCorrupt, WorkspaceNotFound
from orbit_protocol.text import Companion, encodable
from orbit_protocol.types import (
    CommandFinished,
    Progress,
    Session,
    SessionConfig,
    SessionStatus,
    SessionType,
    SnapshotFormat,
    TerminalNotification,
    Timestamp,
    Workspace,
    WorkspaceLayout,
)
from orbitd.logs import event

T = TypeVar("T")
Row = tuple[Any, ...]

SESSION_COLUMNS = (
    "seq, id, name, session_type, created_at, last_active, status, config, workspace_id, program, checksum,"
    " labels, deleted_at"
)
WORKSPACE_COLUMNS = "seq, id, name, created_at, layout, active_session_id, checksum"
SNAPSHOT_HEAD_COLUMNS = (
    "seq, id, session_id, snapshot_at, format, cols, rows, cwd, ordinal, keyframe,"
    " buffer_bytes, scrollback_bytes, native_bytes, raw_bytes, stored_bytes, checksum"
)
"""All columns of a snapshot but its bytes, which stand behind them."""

# By the number that the index has, here and in other modules: where a query uses an index, SQLite takes the columns
# that are in it from there (`sqlite3WhereEnd`), and a row whose own column is damaged would look sound.
_SELECT_BY_ID = {
    table: f"SELECT {SESSION_COLUMNS} FROM {table} WHERE seq = (SELECT seq FROM {table} WHERE id = ?)"  # noqa: S608  # ours
    for table in ("sessions", "archived_sessions")
}
_SELECT_WORKSPACE = f"SELECT {WORKSPACE_COLUMNS} FROM workspaces WHERE seq = (SELECT seq FROM workspaces WHERE id = ?)"  # noqa: S608  # ours
# SQLite writes the index of each column that is set, whether its value changes or not. So those that have one are set
# only where one of them changes: most changes are of what stands beside them, and write a page instead of three.
_INSERT_SESSION, _UPDATE_BESIDE_INDEXES, _UPDATE_SESSION = (
    {table: statement.format(table=table) for table in ("sessions", "archived_sessions")}
    for statement in (
        f"INSERT INTO {{table}} ({SESSION_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608  # ours
        "UPDATE {table} SET created_at = :created_at, last_active = :last_active, config = :config, program = :program,"
        " checksum = :checksum, labels = :labels WHERE seq = :seq AND name IS :name AND status IS :status"
        " AND workspace_id IS :workspace_id AND deleted_at IS :deleted_at",
        "UPDATE {table} SET name = :name, created_at = :created_at, last_active = :last_active, status = :status,"
        " config = :config, workspace_id = :workspace_id, program = :program, checksum = :checksum, labels = :labels,"
        " deleted_at = :deleted_at WHERE seq = :seq",
    )
)
_INSERT_WORKSPACE = f"INSERT INTO workspaces ({WORKSPACE_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"  # noqa: S608  # ours
_UPDATE_WORKSPACE = """
    UPDATE workspaces SET name = ?, created_at = ?, layout = ?, active_session_id = ?, checksum = ? WHERE seq = ?
"""
# Not AUTOINCREMENT's own number, which is known only after the row is written, and the checksum covers it. One that
# damage made too large is passed over: AUTOINCREMENT fails at 2^63 - 1 with SQLITE_FULL.
_NEXT_SEQ = {
    table: f"""
        SELECT 1 + max(
            coalesce((SELECT max(seq) FROM {table}), 0),
            coalesce(
                (SELECT seq FROM sqlite_sequence
                    WHERE name = '{table}' AND typeof(seq) = 'integer' AND seq >> 50 = 0),
                (SELECT max(seq) FROM {other}),
                0
            )
        )
    """  # noqa: S608  # names of ours
    for table, other in (
        ("sessions", "archived_sessions"),
        ("session_snapshots", "archived_snapshots"),
        ("workspaces", "workspaces"),
        ("events", "events"),
    )
}

SNAPSHOTS_OF = {"sessions": "session_snapshots", "archived_sessions": "archived_snapshots"}

_CHECKSUM_AT = {"sessions": 10, "archived_sessions": 10, "workspaces": 6}
"""Where the checksum stands in a row; behind it are the columns that later migrations have added."""

_config_decoder = msgspec.json.Decoder(SessionConfig)
_labels_decoder = msgspec.json.Decoder(dict[str, str])
_layout_decoder = msgspec.json.Decoder(WorkspaceLayout)
_MAX_SHOWN = 64

UNREADABLE = "its record cannot be decoded"

DIGEST_BYTES = 16
"""Of the digest of a snapshot's bytes, with which its checksum begins."""

log = logging.getLogger("orbitd.store")


class DamagedRow(StorageCorrupt):
    """A row that cannot be read, or whose checksum does not fit.

    Lists and whatever else looks at many rows leave it out; a caller that asked for this one is answered with it.

    Args:
        table: Its table.
        seq: Its sequence number.
        row_id: Its `id` column, whatever that holds.
        reason: What is wrong with it, without its contents.
        name: Its `name` column.
        fails_queries: Whether SQLite refuses to decode it, so that a query that reads it fails.
    """

    def __init__(
        self, table: str, seq: int, row_id: object, reason: str, name: object = None, *, fails_queries: bool = False
    ) -> None:
        self.fails_queries = fails_queries
        self.table = table
        self.seq = seq
        self.row_id = shown(row_id)
        self.name = shown(name)
        self.sentence = f"row {seq} of {table} (id {self.row_id}) cannot be read: {reason}"
        remove = _REMOVED_BY.get(table)
        super().__init__(
            f"{self.sentence[0].upper()}{self.sentence[1:]}. It is left out and kept as it is",
            hint="`orbitctl maintenance restore BACKUP` brings a backup back (`orbitctl doctor` names the newest)"
            + (f"; {remove} with this id removes the row." if remove else "."),
            data={"table": table, "seq": seq, "id": self.row_id},
        )

    def fresh(self) -> DamagedRow:
        """Return the same error, never raised: raising one twice makes its traceback longer."""
        found = DamagedRow.__new__(DamagedRow, *self.args)
        found.__dict__.update(self.__dict__)
        return found


_REMOVED_BY = {
    "sessions": "session.delete",
    "archived_sessions": "session.delete",
    "workspaces": "workspace.delete",
    "session_snapshots": "snapshot.delete",
}


class Stored(Struct, Generic[T], frozen=True):
    """An item with the sequence number of its row, which never changes; lists are sorted by it, oldest first."""

    seq: int
    item: T


class Marks(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The fields of a Session, by their names there, that tell what its program has said."""

    bell: bool = False
    notification: TerminalNotification | None = None
    unseen_output: bool = False
    progress: Progress | None = None
    last_command: CommandFinished | None = None


class Program(Marks, frozen=True, kw_only=True, omit_defaults=True):
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

# Decoding checks the types of a row's values: SQLite does not check those of a STRICT table when it reads, and a
# flipped bit in the header of a record turns text into a blob, a number or NULL
# (sqlite.org/fileformat.html#record_format). An id is a part of file names (journals).
_Id = Annotated[str, Meta(pattern="^[0-9A-Za-z-]{1,64}$")]


class _SessionRow(Struct, frozen=True, array_like=True):
    seq: int
    id: _Id
    name: str | None
    session_type: SessionType
    created_at: Timestamp
    last_active: Timestamp
    status: SessionStatus
    config: str
    workspace_id: str | None
    program: str | None
    checksum: int | None
    labels: str | None
    deleted_at: Timestamp | None


class SnapshotHead(Struct, frozen=True, array_like=True):
    """A row of SNAPSHOT_HEAD_COLUMNS."""

    seq: int
    id: _Id
    session_id: str
    snapshot_at: Timestamp
    format: SnapshotFormat
    cols: int | None
    rows: int | None
    cwd: str | None
    ordinal: int
    keyframe: Literal[0, 1]
    buffer_bytes: int
    scrollback_bytes: int | None
    native_bytes: int | None
    raw_bytes: int
    stored_bytes: int
    checksum: bytes


class _WorkspaceRow(Struct, frozen=True, array_like=True):
    seq: int
    id: _Id
    name: str
    created_at: Timestamp
    layout: str
    active_session_id: str | None
    checksum: int | None


# msgspec 0.22 inspects a Struct when it is first decoded to, and has the result on the class before it is complete: of
# two threads that begin at once, the second reads a null pointer, and the process ends. Here there is no other thread.
for _inspected in (_SessionRow, _WorkspaceRow, SnapshotHead):
    msgspec.json.Decoder(_inspected)


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


def lenient_text(raw: bytes) -> str:
    """Decode what SQLite returns as text; bytes that are no UTF-8 become lone surrogates (PEP 383).

    Without it the sqlite3 module raises OperationalError out of the fetch, and a whole list is lost with one row.
    `row_checksum` refuses such text.
    """
    return raw.decode("utf-8", "surrogateescape")


def shown(value: object) -> str:
    """Return a column's value for an error or warning, short."""
    if value is None:
        return "unknown"
    if not isinstance(value, str):
        return f"of type {type(value).__name__}"
    return encodable(value[:_MAX_SHOWN])


def row_checksum(values: Iterable[Any]) -> int:
    """Return the checksum of a row: the CRC-32 (zlib) of its values, without the checksum, as one MessagePack array.

    Args:
        values: Of every other column that it covers (`covered`), in the order of SESSION_COLUMNS or WORKSPACE_COLUMNS.

    Raises:
        UnicodeEncodeError: A text is no UTF-8 (`lenient_text`).
    """
    return zlib.crc32(_pack(values))


_pack = msgspec.msgpack.Encoder().encode


def covered(row: Row, table: str) -> Row:
    """Return the values of a row that its checksum covers.

    Those behind the checksum are left out while they and all after them are NULL: the row has the checksum then that
    an earlier Orbit gave it, which did not know these columns.
    """
    place, end = _CHECKSUM_AT[table], len(row)
    while end > place + 1 and row[end - 1] is None:
        end -= 1
    return row[:place] + row[place + 1 : end]


def stored_checksum(row: Row, table: str) -> Any:
    """Return a row's `checksum` column: None if an earlier Orbit wrote the row, and it is not filled in yet."""
    return row[_CHECKSUM_AT[table]]


def verify_row(row: Row, table: str) -> None:
    """Check a row's text and its checksum, if it has one already. Raises: DamagedRow."""
    try:
        computed = row_checksum(covered(row, table))
    except (UnicodeEncodeError, OverflowError):
        raise DamagedRow(table, row[0], row[1], "its text is not UTF-8", row[2]) from None
    if stored_checksum(row, table) not in (None, computed):
        raise DamagedRow(table, row[0], row[1], "its checksum does not fit", row[2])


def session_from_row(row: Row, table: str = "sessions") -> Stored[Session]:
    """Decode a row of SESSION_COLUMNS. Raises: DamagedRow."""
    verify_row(row, table)
    try:
        found = msgspec.convert(row, _SessionRow)
        session = Session(
            id=found.id,
            name=found.name,
            session_type=found.session_type,
            created_at=found.created_at,
            last_active=found.last_active,
            status=found.status,
            config=_config_decoder.decode(found.config),
            workspace_id=found.workspace_id,
            labels={} if found.labels is None else _labels_decoder.decode(found.labels),
            deleted_at=found.deleted_at,
        )
        if found.program is not None:  # NULL for a session that never had one (0002_programs.sql)
            session = replace(session, **structs.asdict(_program_decoder.decode(found.program)))
    except Exception as error:  # noqa: BLE001  # whatever a decoder says of planted text, RecursionError too
        raise_damaged(row, table, error)
    return Stored(found.seq, session)


def session_row(stored: Stored[Session]) -> Row:
    """Return the row of a session: the values of SESSION_COLUMNS."""
    session = stored.item
    program = Program(**{field: getattr(session, field) for field in _PROGRAM_FIELDS})
    created_at = time_to_text(session.created_at)
    values = (
        stored.seq,
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
    later = (
        msgspec.json.encode(session.labels).decode() if session.labels else None,
        None if session.deleted_at is None else time_to_text(session.deleted_at),
    )
    return (*values, row_checksum(covered((*values, None, *later), "sessions")), *later)


def insert_session(connection: sqlite3.Connection, stored: Stored[Session], table: str = "sessions") -> None:
    """Insert a session, archived ones into `archived_sessions`."""
    connection.execute(_INSERT_SESSION[table], session_row(stored))


def update_session(connection: sqlite3.Connection, stored: Stored[Session], table: str = "sessions") -> None:
    """Write all columns of a session that can change; created_at too, as the checksum is of its text."""
    values = dict(zip(SESSION_COLUMNS.split(", "), session_row(stored), strict=True))
    if not execute_mending(connection, table, _UPDATE_BESIDE_INDEXES[table], values):
        execute_mending(connection, table, _UPDATE_SESSION[table], values)


def in_workspace(session: Session, workspace_id: str | None) -> Session:
    """Return the session as a member of this workspace, or of none; its config has the same id."""
    return replace(session, workspace_id=workspace_id, config=replace(session.config, workspace_id=workspace_id))


def workspace_from_row(row: Row) -> Stored[Workspace]:
    """Decode a row of WORKSPACE_COLUMNS. Raises: DamagedRow."""
    verify_row(row, "workspaces")
    try:
        found = msgspec.convert(row, _WorkspaceRow)
        workspace = Workspace(
            id=found.id,
            name=found.name,
            created_at=found.created_at,
            layout=_layout_decoder.decode(found.layout),
            active_session_id=found.active_session_id,
        )
    except Exception as error:  # noqa: BLE001  # as above
        raise_damaged(row, "workspaces", error)
    return Stored(found.seq, workspace)


def workspace_row(stored: Stored[Workspace]) -> Row:
    """Return the row of a workspace: the values of WORKSPACE_COLUMNS."""
    workspace = stored.item
    values = (
        stored.seq,
        workspace.id,
        workspace.name,
        time_to_text(workspace.created_at),
        to_json(workspace.layout),
        workspace.active_session_id,
    )
    return (*values, row_checksum(values))


def insert_workspace(connection: sqlite3.Connection, stored: Stored[Workspace]) -> None:
    """Insert a workspace."""
    connection.execute(_INSERT_WORKSPACE, workspace_row(stored))


def update_workspace(connection: sqlite3.Connection, stored: Stored[Workspace]) -> None:
    """Write all columns of a workspace that can change; created_at too, as the checksum is of its text."""
    seq, _, *others = workspace_row(stored)
    execute_mending(connection, "workspaces", _UPDATE_WORKSPACE, (*others, seq))


def snapshot_head_from_row(row: Row, table: str = "session_snapshots") -> Stored[SnapshotHead]:
    """Decode a row of SNAPSHOT_HEAD_COLUMNS. Raises: DamagedRow."""
    verify_snapshot(row, table)
    try:
        head = msgspec.convert(row, SnapshotHead)
        if min(head.buffer_bytes, head.scrollback_bytes or 0, head.native_bytes or 0, head.stored_bytes) < 0:
            raise ValueError
    except Exception as error:  # noqa: BLE001  # as above
        raise_damaged(row, table, error)
    return Stored(head.seq, head)


def verify_snapshot(row: Row, table: str) -> None:
    """Check the text and the checksum of a row of SNAPSHOT_HEAD_COLUMNS. Raises: DamagedRow."""
    checksum = row[-1]
    if not isinstance(checksum, bytes) or len(checksum) not in (DIGEST_BYTES, DIGEST_BYTES + 4):
        raise DamagedRow(table, row[0], row[1], "its checksum is none")
    try:
        computed = snapshot_checksum(row[:-1], checksum[:DIGEST_BYTES])
    except (UnicodeEncodeError, OverflowError):
        raise DamagedRow(table, row[0], row[1], "its text is not UTF-8") from None
    if checksum not in (computed, computed[:DIGEST_BYTES]):  # the shorter one is of an earlier Orbit
        raise DamagedRow(table, row[0], row[1], "its checksum does not fit")


def snapshot_checksum(values: Row, digest: bytes) -> bytes:
    """Return what a snapshot's `checksum` column holds: the digest of its bytes, and a CRC-32 of the other columns.

    Args:
        values: Of SNAPSHOT_HEAD_COLUMNS without the checksum.
        digest: `screen_codec.checksum` of the screen, 16 bytes.
    """
    return digest + row_checksum((*values, digest)).to_bytes(4, "big")


def next_seq(connection: sqlite3.Connection, table: str) -> int:
    """Return the sequence number of the next row of a table, in the transaction that inserts it."""
    (seq,) = connection.execute(_NEXT_SEQ[table]).fetchone()
    assert isinstance(seq, int)
    return seq


def execute_mending(connection: sqlite3.Connection, table: str, sql: str, parameters: Row | dict[str, Any]) -> int:
    """Change or delete rows, also where an index entry of theirs is not what it should be; return how many.

    A changed byte in a column that has an index, or in the index, makes every UPDATE and DELETE of the row fail
    (SQLITE_CORRUPT_INDEX), which would keep a session from being saved, cleaned up or deleted for ever.
    """
    try:
        return connection.execute(sql, parameters).rowcount
    except sqlite3.DatabaseError as error:
        if not is_corrupt(error) or not connection.in_transaction:
            raise
    # With writable_schema SQLite passes over an index entry that is not there (OP_IdxDelete in vdbe.c). The entry
    # that does not fit stays, so the indexes are made again from the rows.
    event(log, logging.WARNING, "index entries do not fit a row, indexes are made again", table=table)
    connection.execute("PRAGMA writable_schema = ON")
    try:
        changed = connection.execute(sql, parameters).rowcount
    finally:
        connection.execute("PRAGMA writable_schema = OFF")
    connection.execute(f"REINDEX {table}")
    return changed


def delete_row(connection: sqlite3.Connection, table: str, seq: int) -> None:
    """Delete a row, one that is damaged too."""
    execute_mending(connection, table, f"DELETE FROM {table} WHERE seq = ?", (seq,))  # noqa: S608  # a name of ours


def delete_session_row(connection: sqlite3.Connection, seq: int, session_id: str, table: str = "sessions") -> None:
    """Delete a session and its snapshots, also where the row has another id than its index entry, and they have this.

    The foreign key would find the snapshots by the row's own id (0001_initial.sql).
    """
    snapshots = SNAPSHOTS_OF[table]
    execute_mending(connection, snapshots, f"DELETE FROM {snapshots} WHERE session_id = ?", (session_id,))  # noqa: S608  # ours
    delete_row(connection, table, seq)


def delete_oldest_snapshots(connection: sqlite3.Connection, session_id: str, table: str, most: int) -> int:
    """Delete so many snapshots of a session, which no other one needs: the rest can be read; return how many."""
    snapshots = SNAPSHOTS_OF[table]
    delete = f"DELETE FROM {snapshots} WHERE seq IN (SELECT seq FROM {snapshots} WHERE session_id = ? ORDER BY seq"  # noqa: S608  # ours
    return execute_mending(connection, snapshots, f"{delete} LIMIT {most:d})", (session_id,))


def readable(rows: Iterable[Row], decode: Callable[[Row], T]) -> Iterator[T]:
    """Decode rows; leave out those that cannot be read, with a line in the log."""
    for row in rows:
        try:
            yield decode(row)
        except DamagedRow as error:
            event(log, logging.WARNING, "damaged row left out", table=error.table, row=error.seq, reason=error.sentence)


def is_corrupt(error: sqlite3.Error) -> bool:
    """Return whether SQLite says that what it reads is malformed."""
    # An error of the sqlite3 module itself has no code.
    return bool(getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_CORRUPT)


def _fetch_exactly(connection: sqlite3.Connection, table: str, query: str, item_id: str) -> Row | None:
    try:
        row: Row | None = connection.execute(query, (item_id,)).fetchone()
    except sqlite3.DatabaseError as error:
        if not is_corrupt(error):
            raise
        found = connection.execute(f"SELECT seq FROM {table} WHERE id = ?", (item_id,)).fetchone()  # noqa: S608  # ours
        raise DamagedRow(table, found[0] if found else 0, item_id, UNREADABLE) from error
    return row


def find_session(connection: sqlite3.Connection, session_id: str) -> Stored[Session]:
    """Return a session that is neither archived nor in the trash. Raises: SessionNotFound, DamagedRow."""
    row = _fetch_exactly(connection, "sessions", _SELECT_BY_ID["sessions"], session_id)
    if row is not None:
        stored = as_asked(session_from_row(row), session_id, "sessions")
        if stored.item.deleted_at is None:
            return stored
    query = "SELECT 1 FROM archived_sessions WHERE id = ? AND deleted_at IS NULL"
    archived = connection.execute(query, (session_id,)).fetchone()
    raise session_is_archived(session_id) if archived else session_not_found(session_id)


def find_workspace(connection: sqlite3.Connection, workspace_id: str) -> Stored[Workspace]:
    """Return a workspace. Raises: WorkspaceNotFound, DamagedRow."""
    row = _fetch_exactly(connection, "workspaces", _SELECT_WORKSPACE, workspace_id)
    if row is None:
        raise workspace_not_found(workspace_id)
    return as_asked(workspace_from_row(row), workspace_id, "workspaces")


I = TypeVar("I", Session, Workspace)  # noqa: E741


def as_asked(stored: Stored[I], item_id: str, table: str) -> Stored[I]:
    """Return a row that was looked up by its id. Raises: DamagedRow if the row has another one than its index entry."""
    if stored.item.id != item_id:
        raise DamagedRow(table, stored.seq, item_id, "its index entry has another id", stored.item.name)
    return stored


def raise_damaged(row: Row, table: str, error: Exception) -> NoReturn:
    """Raise DamagedRow for values that a decoder refused."""
    if isinstance(error, MemoryError):
        raise error
    raise DamagedRow(table, row[0], row[1], "its values are not of the right types", row[2]) from error


def find_deleted(connection: sqlite3.Connection, session_id: str) -> tuple[str, Stored[Session]] | None:
    """Return a session in the trash and its table, `sessions` or `archived_sessions`. Raises: DamagedRow."""
    for table in ("sessions", "archived_sessions"):
        row = _fetch_exactly(connection, table, _SELECT_BY_ID[table], session_id)
        if row is not None:
            stored = as_asked(session_from_row(row, table), session_id, table)
            return None if stored.item.deleted_at is None else (table, stored)
    return None


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
