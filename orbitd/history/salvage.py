"""Bring over what is whole in a damaged database of histories, and check one row by row.

The rows are read from the pages of the file, without SQLite (`orbitd.store.backup.raw_file`), and each is verified by
its checksum. They are inserted before those that the new database has by then, batch by batch: a salvage that is
stopped in between is repeated from the beginning, and inserts nothing twice.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

from msgspec import Struct

from orbitd.history.database import (
    CHUNK_COLUMNS,
    GROUP_COLUMNS,
    TEXT_COLUMNS,
    DamagedHistory,
    checksum,
    chunk_from_row,
    schema_roots,
    text_from_row,
    text_values,
    verify_group,
)
from orbitd.history.recorder import without_known
from orbitd.store.backup.raw_file import RawFile, Unreadable

_BATCH_BYTES = 4 << 20
_BATCH_ROWS = 256
_CHECKED_AT_ONCE = 64

Row = tuple[Any, ...]

_CHECKS: dict[str, tuple[str, Callable[[Row], object]]] = {
    "groups": (GROUP_COLUMNS, lambda row: verify_group(row)),
    "chunks": (CHUNK_COLUMNS, chunk_from_row),
    "texts": (TEXT_COLUMNS, text_from_row),
}


class Batch(Struct, frozen=True):
    """Sound rows of a table."""

    table: str
    rows: list[Row]


def batches(path: str) -> Iterator[Batch]:
    """Yield the sound rows of a damaged database: groups, then chunks, then text. Raises: OSError."""
    if not os.path.isfile(path):
        return
    with contextlib.closing(RawFile(path, schema_roots())) as raw:
        for table, (_, check) in _CHECKS.items():
            rows, length = list[Row](), 0
            for row in _sound_rows(raw, raw.roots[table], check):
                rows.append(row)
                length += sum(len(value) for value in row if isinstance(value, bytes))
                if length >= _BATCH_BYTES or len(rows) >= _BATCH_ROWS:
                    yield Batch(table, rows)
                    rows, length = [], 0
            if rows:
                yield Batch(table, rows)


def _sound_rows(raw: RawFile, root: int, check: Callable[[Row], object]) -> Iterator[Row]:
    for number, offset, _ in raw.locate(root):
        try:
            row = raw.row(number, offset)
            check(row)
        except (Unreadable, DamagedHistory, ValueError, TypeError):
            continue
        yield row


class Inserting:
    """Inserts the rows of one damaged database, in the writer's thread.

    Attributes:
        rows: How many were inserted.
        sessions: Whose they are.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.sessions: set[str] = set()
        self._groups: dict[int, tuple[str, int]] = {}
        self._next: dict[str, int] = {}

    def insert(self, connection: sqlite3.Connection, batch: Batch) -> None:
        """Insert a batch, what is there already aside."""
        insert = {"groups": self._insert_group, "chunks": self._insert_chunk, "texts": self._insert_text}[batch.table]
        for row in batch.rows:
            self.sessions.add(row[1])
            self.rows += insert(connection, row)

    def _seq(self, connection: sqlite3.Connection, table: str, seq: int) -> int:
        """Return a number below all of the table's, in the order of the damaged one: the oldest go first (limits)."""
        if table not in self._next:
            (least,) = connection.execute(f"SELECT min(0, coalesce(min(seq), 0)) FROM {table}").fetchone()  # noqa: S608  # ours
            self._next[table] = least - (1 << 40)
        return self._next[table] + seq

    def _insert_group(self, connection: sqlite3.Connection, row: Row) -> int:
        seq, session_id, position, at, line, cols, rows, check, _, _, _, native = row
        self._groups[seq] = session_id, position
        stored = len(native or b"")
        values = (session_id, position, at, line, cols, rows, check, position, at, stored, native)
        return _insert(connection, "groups", GROUP_COLUMNS, (self._seq(connection, "groups", seq), *values))

    def _insert_chunk(self, connection: sqlite3.Connection, row: Row) -> int:
        seq, session_id, start, end, from_at, to_at, raw, group, dictionary, _, data = row
        found = connection.execute(
            "SELECT seq FROM groups WHERE session_id = ? AND position = ?", self._groups.get(group, ("", -1))
        ).fetchone()
        if found is None:  # its key frame is lost: nobody can draw it
            return 0
        columns = (session_id, start, end, from_at, to_at, raw, found[0], dictionary)
        values = (self._seq(connection, "chunks", seq), *columns, checksum(*columns, data), data)
        if not _insert(connection, "chunks", CHUNK_COLUMNS, values):
            return 0
        connection.execute(
            "UPDATE groups SET to_position = max(to_position, ?), to_at = max(to_at, ?),"
            " stored_bytes = stored_bytes + ? WHERE seq = ?",
            (end, to_at, len(data), found[0]),
        )
        return 1

    def _insert_text(self, connection: sqlite3.Connection, row: Row) -> int:
        seq, session_id, is_tail, first_line = row[:4]
        query = (
            "SELECT 1 FROM texts WHERE session_id = ? AND is_tail = ? AND (is_tail OR first_line = ? AND checksum = ?)"
        )
        if connection.execute(query, (session_id, is_tail, first_line, row[9])).fetchone():
            return 0
        if not is_tail:  # at once: a save that brings these lines finds that they are stored
            connection.execute(_NEXT_LINE, (session_id, row[4]))
        values = row[1:]
        if not is_tail and connection.execute(_OVERLAPS, (session_id, row[4], first_line)).fetchone():
            # What still stood in a session's scrollback was recorded anew, if the daemon was started with the damage.
            block = text_from_row(row).block
            left = without_known(connection, session_id, block, block.next_line)
            if left is None:
                return 0
            values = values if left is block else text_values(session_id, left, is_tail=False)
        return _insert(connection, "texts", TEXT_COLUMNS, (self._seq(connection, "texts", seq), *values))

    def count(self, connection: sqlite3.Connection) -> None:
        """Compute the rows of `films` of the sessions again."""
        for session_id in self.sessions:
            connection.execute(_COUNT, {"id": session_id})


_OVERLAPS = """
    SELECT 1 FROM texts WHERE session_id = ? AND is_tail = 0 AND first_line < ? AND next_line > ? AND seq > 0 LIMIT 1
"""
_NEXT_LINE = """
    INSERT INTO films VALUES (?, 0, ?, 0, 0, 0) ON CONFLICT DO UPDATE SET next_line = max(next_line, excluded.next_line)
"""
_COUNT = """
    INSERT OR REPLACE INTO films SELECT
        :id,
        max(coalesce((SELECT recorded_to FROM films WHERE session_id = :id), 0),
            coalesce((SELECT max(to_position) FROM groups WHERE session_id = :id), 0)),
        max(coalesce((SELECT next_line FROM films WHERE session_id = :id), 0),
            coalesce((SELECT max(next_line) FROM texts WHERE session_id = :id AND NOT is_tail), 0)),
        coalesce((SELECT sum(bytes) FROM chunks WHERE session_id = :id), 0),
        coalesce((SELECT sum(stored_bytes) FROM groups WHERE session_id = :id), 0),
        coalesce((SELECT sum(stored_bytes) FROM texts WHERE session_id = :id), 0)
"""


def _insert(connection: sqlite3.Connection, table: str, columns: str, values: Row) -> int:
    marks = ", ".join("?" * len(values))
    return connection.execute(f"INSERT OR IGNORE INTO {table} ({columns}) VALUES ({marks})", values).rowcount  # noqa: S608  # ours


def damaged_rows(connection: sqlite3.Connection, look: Callable[[], None]) -> Iterator[DamagedHistory]:
    """Yield an error for each row that does not fit its checksum. Raises: whatever `look` raises; sqlite3.Error."""
    for table, (columns, check) in _CHECKS.items():
        last = -(1 << 62)
        while True:
            look()
            rows = connection.execute(
                f"SELECT {columns} FROM {table} WHERE seq > ? ORDER BY seq LIMIT {_CHECKED_AT_ONCE}",  # noqa: S608  # ours
                (last,),
            ).fetchall()
            if not rows:
                break
            for row in rows:
                try:
                    check(row)
                except DamagedHistory as error:
                    yield error
            last = rows[-1][0]
