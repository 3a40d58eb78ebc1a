"""Bring the rows of a damaged database that are whole into a new one.

Each row is taken by itself, so what is damaged costs the rows that it belongs to. A row counts
if its checksum fits, or, where an older Orbit wrote none, if it decodes. A snapshot counts if
it can be unpacked and its checksum fits; one whose newer neighbour is lost is packed by itself.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import sqlite3
from collections.abc import Callable, Iterator

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from orbitd.store import schema, screen_codec
from orbitd.store.backup.raw_file import RawFile, Unreadable, Values
from orbitd.store.delta_chain import HEAD_COLUMNS, SnapshotRow, snapshot_from_row, unpack_chain
from orbitd.store.rows import (
    DIGEST_BYTES,
    SNAPSHOT_HEAD_COLUMNS,
    Stored,
    in_workspace,
    session_from_row,
    session_row,
    snapshot_checksum,
    workspace_from_row,
    workspace_row,
)

_KEY = "salvaged"
_MAX_NAMED = 100
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_KEYFRAME = SNAPSHOT_HEAD_COLUMNS.split(", ").index("keyframe")

Place = tuple[int, int]


class Salvaged(Struct, frozen=True, kw_only=True):
    """What was brought over from a damaged database.

    Args:
        source: The damaged database.
        sessions: How many, archived ones too.
        snapshots: Likewise.
        workspaces: Likewise.
        lost_sessions: How many are known to be lost.
        lost_snapshots: Likewise.
        lost_workspaces: Likewise.
        lost_pages: How many pages of its log are lost; rows in them may be as they were before their last change.
        lost: Ids of what is lost, as far as they can be read; the first hundred.
    """

    source: str
    sessions: int = 0
    snapshots: int = 0
    workspaces: int = 0
    lost_sessions: int = 0
    lost_snapshots: int = 0
    lost_workspaces: int = 0
    lost_pages: int = 0
    lost: tuple[str, ...] = ()


_decoder = msgspec.json.Decoder(Salvaged)


class _Table:
    """The rows of one table: those that are whole, by seq, and what is known of the others."""

    def __init__(self) -> None:
        self.rows: dict[int, tuple[Values, Place]] = {}
        self.lost_ids: set[str] = set()
        self.damaged_cells = 0

    @property
    def lost(self) -> int:
        return max(len(self.lost_ids), self.damaged_cells)


def salvage(connection: sqlite3.Connection, source: str) -> Salvaged:
    """Copy what is whole in a damaged database into an empty one, in one transaction.

    Args:
        connection: Of the empty one, with today's schema.
        source: The damaged one, beside its WAL; neither is changed.
    """
    made = schema.template(schema.load_migrations())
    with contextlib.closing(RawFile(source, made.roots)) as raw:
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.execute("PRAGMA defer_foreign_keys = ON")  # sessions and workspaces refer to each other
            salvaged = _copy(connection, raw, source, {table: len(names) for table, names in made.columns.items()})
            connection.execute(
                "INSERT OR REPLACE INTO meta VALUES (?, ?)", (_KEY, msgspec.json.encode(salvaged).decode())
            )
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # SQLITE_FULL ends it by itself (sqlite.org/lang_transaction.html)
                connection.execute("ROLLBACK")
            raise
    return salvaged


def salvaged_into(connection: sqlite3.Connection) -> Salvaged | None:
    """Return what was brought over when this database was made, or None."""
    with contextlib.suppress(sqlite3.Error, msgspec.DecodeError):
        row = connection.execute("SELECT value FROM meta WHERE key = ?", (_KEY,)).fetchone()
        return None if row is None else _decoder.decode(row[0])
    return None


def _copy(connection: sqlite3.Connection, raw: RawFile, source: str, columns: dict[str, int]) -> Salvaged:
    sessions = _read(raw, "sessions", columns["sessions"], session_from_row)
    archived = _read(raw, "archived_sessions", columns["archived_sessions"], session_from_row)
    workspaces = _read(raw, "workspaces", columns["workspaces"], workspace_from_row)
    session_ids, workspace_ids = ({row[1] for row, _ in each.rows.values()} for each in (sessions, workspaces))
    _insert(connection, "sessions", sessions, lambda row: _leave_lost_workspace(row, workspace_ids))
    _insert(connection, "archived_sessions", archived, lambda row: row)
    _insert(connection, "workspaces", workspaces, lambda row: _leave_lost_session(row, session_ids))
    snapshots = _copy_snapshots(connection, raw, "session_snapshots", {row[1] for row, _ in sessions.rows.values()})
    old = _copy_snapshots(connection, raw, "archived_snapshots", {row[1] for row, _ in archived.rows.values()})
    tables = (sessions, archived, workspaces, snapshots, old)
    lost = itertools.chain.from_iterable(sorted(table.lost_ids) for table in tables)
    return Salvaged(
        source=source,
        sessions=len(sessions.rows) + len(archived.rows),
        snapshots=len(snapshots.rows) + len(old.rows),
        workspaces=len(workspaces.rows),
        lost_sessions=sessions.lost + archived.lost,
        lost_snapshots=snapshots.lost + old.lost,
        lost_workspaces=workspaces.lost,
        lost_pages=raw.lost_pages,
        lost=tuple(itertools.islice(lost, _MAX_NAMED)),
    )


def _read(raw: RawFile, table: str, columns: int, check: Callable[[Values], object]) -> _Table:
    """Read the rows of a table that are whole; those that `check` does not pass are lost."""
    # The index on id has what else there should be. It also decides on cells that may be the remains of
    # rows that were deleted. The columns go by their places: migrations add them at the end only, so that
    # rows of earlier schemas are those of today without the last ones.
    entries = set(_index_entries(raw, raw.roots[f"sqlite_autoindex_{table}_1"]))
    found = _Table()
    for number, offset, counts in raw.locate(raw.roots[table]):
        try:
            row = raw.row(number, offset, columns=columns)
            if not counts and row[1::-1] not in entries:
                continue
            row += (None,) * (columns - len(row))
            check(row)
        except Exception:  # noqa: BLE001  # whatever it is, the row is damaged
            found.damaged_cells += counts
        else:
            found.rows.setdefault(row[0], (row, (number, offset)))
    found.lost_ids = {each for each, _ in entries} - {row[1] for row, _ in found.rows.values()}
    return found


def _index_entries(raw: RawFile, root: int) -> Iterator[Values]:
    """Yield id and seq of the rows that an index on id has."""
    for number, offset, counts in raw.locate(root):
        with contextlib.suppress(Unreadable):
            entry = raw.entry(number, offset)
            if counts and len(entry) == 2 and _ID.fullmatch(str(entry[0])):
                yield entry


def _check_snapshot(row: Values) -> None:
    # No more than what is needed to unpack it: one whose other columns are damaged is not brought over, but
    # may be the base of others.
    if not (isinstance(row[1], str) and isinstance(row[2], str)):
        raise Unreadable


def _leave_lost_workspace(row: Values, workspace_ids: set[str]) -> Values:
    """Return a session's row without its workspace if that is lost."""
    stored = session_from_row(row)
    if stored.item.workspace_id is None or stored.item.workspace_id in workspace_ids:
        return row
    return session_row(Stored(stored.seq, in_workspace(stored.item, None)))


def _leave_lost_session(row: Values, session_ids: set[str]) -> Values:
    """Return a workspace's row without its active session if that is lost."""
    stored = workspace_from_row(row)
    if stored.item.active_session_id is None or stored.item.active_session_id in session_ids:
        return row
    return workspace_row(Stored(stored.seq, replace(stored.item, active_session_id=None)))


def _insert(connection: sqlite3.Connection, name: str, table: _Table, changed: Callable[[Values], Values]) -> None:
    """Insert the rows of a table in their order; what breaks a constraint is lost."""
    for seq, (row, _) in sorted(table.rows.items()):
        if not _insert_row(connection, name, changed(row)):
            del table.rows[seq]
            table.lost_ids.add(row[1])


def _insert_row(connection: sqlite3.Connection, name: str, row: Values) -> bool:
    places = ", ".join("?" * len(row))
    try:
        return connection.execute(f"INSERT INTO {name} VALUES ({places})", row).rowcount == 1  # noqa: S608  # a name of ours
    except sqlite3.IntegrityError:  # the statement alone is rolled back
        return False


def _copy_snapshots(connection: sqlite3.Connection, raw: RawFile, name: str, session_ids: set[str]) -> _Table:
    """Copy the snapshots of sessions that are there, one session after the other: their blobs may be large."""
    table = _read(raw, name, HEAD_COLUMNS, _check_snapshot)
    rows = sorted(table.rows.items(), key=lambda item: (item[1][0][2], -item[0]))  # newest first
    table.rows = {}
    for session_id, chain in itertools.groupby(rows, key=lambda item: item[1][0][2]):
        items = dict(chain)
        whole = _whole_snapshots(raw, items) if session_id in session_ids else ()
        for row in whole:
            if _insert_row(connection, name, row):
                table.rows[row[0]] = items.pop(row[0])
        table.lost_ids |= {row[1] for row, _ in items.values()}
    return table


def _whole_snapshots(raw: RawFile, items: dict[int, tuple[Values, Place]]) -> Iterator[Values]:
    """Yield the rows of a session's snapshots that are whole, newest first, each with all that it needs."""
    full: dict[int, Values] = {}

    def rows() -> Iterator[SnapshotRow]:
        for seq, (_, (number, offset)) in list(items.items()):  # the caller takes out what it has inserted
            with contextlib.suppress(Unreadable):
                full[seq] = raw.row(number, offset)
                yield snapshot_from_row(full[seq])

    has_base = False  # whether the one before was kept
    for unpacked in unpack_chain(rows()):
        values, screen = full.pop(unpacked.row.head.seq), unpacked.verified()
        if screen is not None and not unpacked.row.head.keyframe and not has_base:
            packed = screen_codec.pack(screen, None)
            head = (*values[:_KEYFRAME], 1, *values[_KEYFRAME + 1 : HEAD_COLUMNS - 2], packed.size)
            checksum = snapshot_checksum(head, values[HEAD_COLUMNS - 1][:DIGEST_BYTES])
            values = (*head, checksum, packed.terminal_buffer, packed.scrollback, packed.native_state)
        has_base = screen is not None
        if screen is not None:
            yield values
