"""Stored events: what a change records of itself, rows of `events`, and cursors.

    NewEvent                          what is to be recorded, in the transaction of the change that it tells of
    of_session, of_workspace, ...     make one
    insert, purge_session             write them, in the writer's thread
    EventLog                          epoch, cursors, and the events that were committed, on the event loop

`seq` grows in the order of commits, and no number is given twice in an epoch. A disk that does not keep its word may
lose in a power cut what it has synced, and was published. So the first event after each start of the store leaves out
`LEFT_OUT` numbers: one that a client has seen stays its own.
"""

from __future__ import annotations

import contextlib
import logging
import re
import secrets
import sqlite3
from collections.abc import Callable, Mapping, Sequence

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from orbit_protocol.errors import CursorExpired, InvalidParams
from orbit_protocol.types import Event, Session, SnapshotInfo, Workspace
from orbitd.logs import event
from orbitd.store.rows import (
    DamagedRow,
    Row,
    Stored,
    execute_mending,
    next_seq,
    now,
    row_checksum,
    time_from_text,
    time_to_text,
)

EVENT_COLUMNS = "seq, at, kind, session_id, workspace_id, retention, position, size, checksum, data"
LISTED_COLUMNS = EVENT_COLUMNS.removesuffix("data") + "CAST(data AS BLOB)"
"""The same, without that each text is decoded only to be encoded again."""

SAID, SAVED = 1, 2
"""What the `retention` column holds for what programs say, and for snapshots; NULL for changes."""

SNAPSHOT_SAVED = "snapshot.saved"

LEFT_OUT = 1_000
"""The numbers that are left out after a start."""

EPOCH_KEY = "events_epoch"
FLOOR_KEY = "events_dropped"
"""The keys in `meta` of the epoch, and of the newest change that retention has dropped."""

_EPOCH = re.compile(r"[0-9a-f]{8}")
_CURSOR = re.compile(r"([0-9a-z]{1,32})-([0-9]{1,19})")
_HEAD, _SIZE_AT, _CHECKSUM_AT, _DATA_AT = 5, 7, 8, 9
_INSERT = f"INSERT INTO events ({EVENT_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608  # ours
_NEWEST_SEQ = "SELECT coalesce(max(seq), 0) FROM events"
_GIVEN_SEQ = "SELECT seq FROM sqlite_sequence WHERE name = 'events' AND typeof(seq) = 'integer' AND seq >> 50 = 0"
_OLDEST_CHANGE = "SELECT min(seq) FROM events WHERE retention IS NULL"
_NEWEST_DELETED = """
    SELECT seq, at, kind, session_id, workspace_id, retention, position FROM events
    WHERE session_id = ? AND kind = 'session.deleted' ORDER BY seq DESC LIMIT 1
"""
_DELETE_OF_SESSION = "DELETE FROM events WHERE session_id = :id AND seq != :kept"
_DROP_OF_SESSION = """
    DELETE FROM events WHERE seq IN (
        SELECT seq FROM events WHERE session_id = :id AND seq < (SELECT max(seq) FROM events WHERE session_id = :id)
            AND kind != 'session.deleted' ORDER BY seq LIMIT :most
    )
"""
_CLEAR = "UPDATE events SET size = ?, checksum = ?, data = ? WHERE seq = ?"
_PURGED_DATA = b'{"purged":true}'

log = logging.getLogger("orbitd.store")


class NewEvent(Struct, frozen=True, kw_only=True):
    """An event to be recorded.

    Args:
        kind: For example `session.created`.
        session_id: Whom it concerns, or None.
        workspace_id: The workspace that it concerns: a session's own, for example.
        data: Encoded JSON on one line.
        position: Where in the session's output a program said it.
    """

    kind: str
    session_id: str | None = None
    workspace_id: str | None = None
    data: bytes = b"{}"
    position: int | None = None


def retention_of(kind: str) -> int | None:
    """Return by which rule events of a kind are kept: None for changes."""
    if kind == SNAPSHOT_SAVED:
        return SAVED
    return SAID if kind.startswith(("terminal.", "command.")) else None


def of_session(kind: str, session: Session, live: Mapping[str, object] | None = None, **more: object) -> NewEvent:
    """Return the event of a change of a session; its data is the session.

    Args:
        kind: The event's.
        session: The session as it is from now on.
        live: The fields of its running program, as they were when the change was submitted.
        more: What is added to the data.
    """
    if live and session.live:
        stored = session.last_active  # of this change, and newer, unless the clock was set back
        session = replace(session, **live)
        session = session if session.last_active >= stored else replace(session, last_active=stored)
    data = msgspec.json.encode(session)
    if more:
        data = b"%b,%b" % (data[:-1], msgspec.json.encode(more)[1:])
    return NewEvent(kind=kind, session_id=session.id, workspace_id=session.workspace_id, data=data)


def of_workspace(kind: str, workspace: Workspace) -> NewEvent:
    """Return the event of a change of a workspace; its data is the workspace."""
    return NewEvent(kind=kind, workspace_id=workspace.id, data=msgspec.json.encode(workspace))


def of_snapshot(info: SnapshotInfo, workspace_id: str | None) -> NewEvent:
    """Return the event of a snapshot that was saved; its data is the SnapshotInfo."""
    data = msgspec.json.encode(info)
    return NewEvent(kind=SNAPSHOT_SAVED, session_id=info.session_id, workspace_id=workspace_id, data=data)


def event_from_row(row: Row, epoch: str = "") -> Stored[Event]:
    """Decode a row of EVENT_COLUMNS, or of LISTED_COLUMNS. Raises: DamagedRow."""
    data = _checked_data(row)
    # All other values are of the types that were written: the checksum is of their types too.
    seq, at, kind, session_id, workspace_id = row[:_HEAD]
    try:
        moment = time_from_text(at)
    except (TypeError, ValueError) as error:
        raise DamagedRow("events", seq, None, "its time is none") from error
    return Stored(
        seq,
        Event(
            seq=seq,
            at=moment,
            kind=kind,
            session_id=session_id,
            workspace_id=workspace_id,
            data=msgspec.Raw(data),
            cursor=f"{epoch}-{seq}",
        ),
    )


def json_from_row(row: Row, epoch: str) -> tuple[int, bytes]:
    """Return the number and the JSON of the event in a row of LISTED_COLUMNS; its data is as it was stored.

    A client that has missed thousands is sent them so: to decode each, only to encode it again, takes as long as to
    read it.

    Raises:
        DamagedRow: It cannot be read.
    """
    data = msgspec.Raw(_checked_data(row))
    seq, at, kind, session_id, workspace_id = row[:_HEAD]
    return seq, _encode(_StoredEvent(seq, at, kind, session_id, workspace_id, data, f"{epoch}-{seq}"))


class _StoredEvent(Struct, frozen=True, gc=False):
    """An Event as it stands in the database."""

    seq: int
    at: str
    kind: str
    session_id: str | None
    workspace_id: str | None
    data: msgspec.Raw
    cursor: str


_encode = msgspec.json.Encoder().encode


def _checked_data(row: Row) -> bytes:
    """Return the data of a row whose checksum fits. Raises: DamagedRow."""
    data = row[_DATA_AT]
    try:
        data = data if type(data) is bytes else data.encode()
        computed = row_checksum(row[:_CHECKSUM_AT] + (data,))  # noqa: RUF005  # a third quicker
    except AttributeError:
        raise DamagedRow("events", row[0], None, "its values are not of the right types") from None
    except (UnicodeEncodeError, OverflowError):
        raise DamagedRow("events", row[0], None, "its text is not UTF-8") from None
    if row[_CHECKSUM_AT] != computed:
        raise DamagedRow("events", row[0], None, "its checksum does not fit")
    return data


def insert(connection: sqlite3.Connection, events: Sequence[NewEvent], first_seq: int, epoch: str) -> list[Event]:
    """Insert events in their order, in the transaction of the change that they tell of; return them with their numbers.

    Args:
        connection: The writer's.
        events: What is recorded.
        first_seq: The lowest number that may be given.
        epoch: Of the store.
    """
    moment = now()
    at, first = time_to_text(moment), max(next_seq(connection, "events"), first_seq)
    found = []
    for seq, one in enumerate(events, first):
        data = one.data.decode()
        head = (seq, at, one.kind, one.session_id, one.workspace_id, retention_of(one.kind), one.position)
        connection.execute(_INSERT, (*head, len(one.data), row_checksum((*head, len(one.data), one.data)), data))
        found.append(
            Event(
                seq=seq,
                at=moment,
                kind=one.kind,
                session_id=one.session_id,
                workspace_id=one.workspace_id,
                data=msgspec.Raw(one.data),
                cursor=f"{epoch}-{seq}",
            )
        )
    return found


def drop_of_session(connection: sqlite3.Connection, session_id: str, most: int) -> int:
    """Delete so many of the oldest events of a session that is about to go, and return how many; not those of that."""
    return execute_mending(connection, "events", _DROP_OF_SESSION, {"id": session_id, "most": most})


def purge_session(connection: sqlite3.Connection, session_id: str, session: Session | None) -> tuple[NewEvent, ...]:
    """Delete the events of a session that is deleted for good, in that transaction; return what is recorded of it.

    One `session.deleted` without contents stays, or comes: who replays events hears that the session is gone.

    Args:
        connection: The writer's.
        session_id: Of the session.
        session: The session as it was; None where its row cannot be read.
    """
    found = None
    if session is not None and session.deleted_at is not None:  # recorded when it was put into the trash
        found = connection.execute(_NEWEST_DELETED, (session_id,)).fetchone()
    kept = -1 if found is None else int(found[0])
    execute_mending(connection, "events", _DELETE_OF_SESSION, {"id": session_id, "kept": kept})
    if found is not None:
        head = (*found[:_SIZE_AT], len(_PURGED_DATA))
        checksum = row_checksum((*head, _PURGED_DATA))
        execute_mending(connection, "events", _CLEAR, (len(_PURGED_DATA), checksum, _PURGED_DATA.decode(), kept))
    if session is not None and session.deleted_at is not None:
        return ()  # without an event of it, an earlier Orbit has put it there, or retention has dropped the event
    workspace_id = None if session is None else session.workspace_id
    return (NewEvent(kind="session.deleted", session_id=session_id, workspace_id=workspace_id, data=_PURGED_DATA),)


class EventLog:
    """What is known of the stored events; used on the event loop, but for `insert`.

    Args:
        epoch: Of this store.
        newest_seq: The newest number that was given.
        floor: The newest change that retention has dropped; 0 if none was.

    Attributes:
        on_events: Called with the events of each commit, in the order of commits.
        is_dropping: Changes are being dropped: what is read may be without some that `floor` does not tell of yet.
    """

    def __init__(self, epoch: str, newest_seq: int, floor: int) -> None:
        self.epoch = epoch
        self.newest_seq = newest_seq
        self.floor = floor
        self.is_dropping = False
        self._first_seq = newest_seq + 1
        self.on_events: Callable[[Sequence[Event]], None] | None = None

    def insert(self, connection: sqlite3.Connection, events: Sequence[NewEvent]) -> list[Event]:
        """Insert events; in the writer's thread, in the transaction of their change."""
        return insert(connection, events, self._first_seq, self.epoch) if events else []

    def publish(self, events: Sequence[Event]) -> None:
        """Pass on events that were committed."""
        if not events:
            return
        newest = events[-1].seq
        assert newest is not None
        self.newest_seq = newest
        if self.on_events is not None:
            try:
                self.on_events(events)
            except Exception as error:  # noqa: BLE001  # the change is on disk, and its caller gets the answer
                event(log, logging.ERROR, "events not published", error=type(error).__name__, exc=error)

    def cursor(self, seq: int) -> str:
        """Return the cursor behind an event."""
        return f"{self.epoch}-{seq}"

    def parse_cursor(self, text: str) -> int:
        """Return the number that a cursor stands behind.

        Raises:
            InvalidParams: It is no cursor.
            CursorExpired: It is of another epoch, or older than what is kept.
        """
        found = _CURSOR.fullmatch(text)
        if found is None:
            raise InvalidParams("`since` is no cursor: it has to be one that an event or `events.list` gave")
        seq = int(found[2])
        if found[1] != self.epoch or seq > self.newest_seq:
            raise self._expired("The cursor is of another store, as after a backup was restored")
        self.require_kept(seq)
        return seq

    def require_kept(self, seq: int) -> None:
        """Raise CursorExpired where changes after this number have been dropped."""
        if seq < self.floor:
            raise self._expired("The cursor is older than the oldest event that is kept")

    def _expired(self, words: str) -> CursorExpired:
        return CursorExpired(words, data={"oldest": self.cursor(self.floor)})


def new_epoch() -> str:
    """Return an epoch that no other store has."""
    return secrets.token_hex(4)


def load(connection: sqlite3.Connection, inode: int, *, writable: bool = True) -> EventLog:
    """Read what is known of the events of a database; give it an epoch if it has none of its own.

    Args:
        connection: To the database.
        inode: Of the database's file: a copy that was put in its place goes on with the numbers of another one.
        writable: Whether a new epoch can be kept.
    """
    values = dict(connection.execute("SELECT key, value FROM meta WHERE key IN (?, ?)", (EPOCH_KEY, FLOOR_KEY)))
    epoch, _, made_for = str(values.get(EPOCH_KEY, "")).partition(" ")
    is_new = _EPOCH.fullmatch(epoch) is None or made_for != str(inode)
    if is_new:
        epoch = new_epoch()
        with contextlib.suppress(sqlite3.OperationalError):  # no room: then it is this one's until the next start
            if writable:
                connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (EPOCH_KEY, f"{epoch} {inode}"))
    (newest,) = connection.execute(_NEWEST_SEQ).fetchone()
    given = connection.execute(_GIVEN_SEQ).fetchone()
    newest = max(newest, given[0] if given else 0)
    floor = values.get(FLOOR_KEY, "0")
    if not (isinstance(floor, str) and floor.isascii() and floor.isdigit() and int(floor) <= newest):
        (oldest,) = connection.execute(_OLDEST_CHANGE).fetchone()  # damaged: at least what is gone is known so
        floor = 0 if oldest is None else oldest - 1
    # In a new epoch no client has seen a number. In an older one all events may be lost that were ever published.
    return EventLog(epoch, newest if is_new else newest + LEFT_OUT, int(floor))
