"""Rows that cannot be read: which are known, how a list leaves them out, and the pass that looks at every row.

One damaged row is one row. Code that decodes rows for a list uses `DamagedRows.readable`, which leaves a damaged one
out and keeps it here, so that it is named (`daemon.info`, `maintenance.check`) until it is repaired or deleted.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from msgspec import Struct

from orbit_protocol.errors import OrbitError
from orbitd.store import pages, validation
from orbitd.store.events import EVENT_COLUMNS, event_from_row
from orbitd.store.rows import (
    SESSION_COLUMNS,
    SNAPSHOT_HEAD_COLUMNS,
    UNREADABLE,
    WORKSPACE_COLUMNS,
    DamagedRow,
    Row,
    Stored,
    is_corrupt,
    session_from_row,
    snapshot_head_from_row,
    stored_checksum,
    workspace_from_row,
    workspace_not_found,
)

T = TypeVar("T")

TABLES: dict[str, tuple[str, Callable[[Row], Stored[Any]]]] = {
    "sessions": (SESSION_COLUMNS, session_from_row),
    "workspaces": (WORKSPACE_COLUMNS, workspace_from_row),
    "archived_sessions": (SESSION_COLUMNS, partial(session_from_row, table="archived_sessions")),
    "session_snapshots": (SNAPSHOT_HEAD_COLUMNS, snapshot_head_from_row),
    "archived_snapshots": (SNAPSHOT_HEAD_COLUMNS, partial(snapshot_head_from_row, table="archived_snapshots")),
    "events": (EVENT_COLUMNS, event_from_row),
}
"""What is selected of each table, and how a row of it is decoded."""

WITH_NAMES = ("sessions", "workspaces", "archived_sessions")
"""The tables whose rows have a name and a `checksum` column that is filled later."""

_IDS = "SELECT id FROM {table} INDEXED BY sqlite_autoindex_{table}_1 WHERE +seq = ?"

# The sqlite3 module releases the GIL for each row that it fetches: the event loop waits for the decoding of one chunk
# at most: about a millisecond.
_CHUNK = 200
_MAX_NAMED = 1_000
_FIRST_SEQ = -(1 << 63)


class DamagedRows:
    """The rows of an open store that are known to be damaged; used on the event loop."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, int], DamagedRow] = {}

    def __iter__(self) -> Iterator[DamagedRow]:
        return iter(list(self._rows.values()))

    def add(self, error: DamagedRow) -> None:
        """Keep a row that could not be read."""
        self._rows[error.table, error.seq] = error.fresh()

    def forget(self, error: DamagedRow) -> None:
        """Remove a row that was repaired or is gone."""
        self._rows.pop((error.table, error.seq), None)

    def seqs(self, table: str) -> list[int]:
        """Return the sequence numbers of a table's damaged rows."""
        return [seq for name, seq in self._rows if name == table]

    def named(self, table: str, ref: str) -> DamagedRow | None:
        """Return the damaged row of a table, or of its archive, that is shown with this id or name."""
        tables = (table, f"archived_{table.removeprefix('session_')}")
        found = (error for error in self._rows.values() if error.table in tables and ref in (error.row_id, error.name))
        return next((error.fresh() for error in found), None)

    def workspace_missing(self, workspace_id: str) -> OrbitError:
        """Return the error for a workspace that is not in memory."""
        return self.named("workspaces", workspace_id) or workspace_not_found(workspace_id)

    def sound(self, tables: Iterable[str]) -> str:
        """Return the condition for `{sound}` in a query of these tables (`fetch_rows`)."""
        return _condition(error for error in self if error.table in tables and error.fails_queries)

    def sentences(self) -> list[str]:
        """Return a sentence for each row, and how many more there are."""
        return named_rows(self._rows.values())

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Keep the damaged row that the body raises."""
        try:
            yield
        except DamagedRow as error:
            self.add(error)
            raise

    def readable(self, rows: Iterable[Row], decode: Callable[[Row], T]) -> Iterator[T]:
        """Decode rows, and leave out those that cannot be read."""
        for row in rows:
            try:
                yield decode(row)
            except DamagedRow as error:
                self.add(error)

    async def readable_in_turns(self, rows: Sequence[Row], decode: Callable[[Row], T]) -> list[T]:
        """Do as `readable` does with the rows of a page, which may be many."""
        found: list[T] = []
        for first in range(0, len(rows), _CHUNK):
            if first:
                await asyncio.sleep(0)  # others are served between two chunks
            found += self.readable(rows[first : first + _CHUNK], decode)
        return found

    async def fetch_readable(
        self,
        fetch: Callable[[int, int], Awaitable[list[Row]]],
        decode: Callable[[Row], Stored[T]],
        start: int,
        limit: int | None,
        fits: Callable[[T], bool] = lambda _: True,
    ) -> list[Stored[T]]:
        """Return one item more than a page may have, if there are as many that can be read and are wanted.

        Args:
            fetch: Returns up to so many rows that come after a sequence number.
            decode: Makes an item of a row.
            start: The sequence number that the page starts after.
            limit: The most items of the page.
            fits: Whether an item is wanted.
        """
        wanted = pages.page_size(limit) + 1  # one more shows whether there is a next page
        found: list[Stored[T]] = []
        starts: set[int] = set()
        while start not in starts:  # the numbers of a damaged tree need not ascend
            starts.add(start)
            rows = await fetch(start, wanted)
            found += (each for each in await self.readable_in_turns(rows, decode) if fits(each.item))
            # A page that was short by what is damaged would look like the last one.
            if len(rows) < wanted or len(found) >= wanted:
                break
            start = rows[-1][0]
        return found[:wanted]


def named_rows(rows: Iterable[DamagedRow]) -> list[str]:
    """Return a sentence for each of some rows, and how many more there are."""
    sentences = [error.sentence for error in rows]
    more = len(sentences) - _MAX_NAMED
    return [*sentences[:_MAX_NAMED], f"and {more} more rows"] if more > 0 else sentences


class Verified(Struct, frozen=True, kw_only=True):
    """What a pass over all rows found.

    Args:
        damaged: Rows that cannot be read.
        unfilled: Table and sequence number of rows that have no checksum yet, or a name that is not in NFC.
    """

    damaged: list[DamagedRow]
    unfilled: list[tuple[str, int]]


def fetch_rows(
    connection: sqlite3.Connection,
    tables: Sequence[str],
    query: str,
    parameters: Sequence[Any] | dict[str, Any] = (),
    on_damage: Callable[[DamagedRow], None] = lambda _: None,
) -> list[Row]:
    """Return the rows of a query, without those whose records SQLite cannot decode.

    A changed byte in the head of a record, or in the chain of its overflow pages, is SQLITE_CORRUPT for the whole query
    (`OP_Column` in vdbe.c), as damage of a page is. If the tree itself can be walked, it is that one row.

    Args:
        connection: Reads.
        tables: All that the query reads.
        query: Has `{sound}` as the first condition, before a column of the row is read.
        parameters: Of the query.
        on_damage: Called with each row that was left out.

    Raises:
        sqlite3.DatabaseError: More is damaged than rows.
    """
    try:
        return connection.execute(query.replace("{sound}", "TRUE"), parameters).fetchall()
    except sqlite3.DatabaseError as error:
        if not is_corrupt(error):
            raise
        damaged = undecodable_rows(connection, tables)
        if not damaged:
            raise
    for each in damaged:
        on_damage(each)
    return connection.execute(query.replace("{sound}", _condition(damaged)), parameters).fetchall()


def undecodable_rows(connection: sqlite3.Connection, tables: Iterable[str]) -> list[DamagedRow]:
    """Return the rows of some tables whose records SQLite cannot decode; slow. Raises: sqlite3.DatabaseError."""
    damaged: list[DamagedRow] = []
    for table in tables:
        after: int | None = _FIRST_SEQ
        while after is not None:
            _, bad, after = _read_chunk(connection, table, after)
            damaged += bad
    return damaged


def _condition(damaged: Iterable[DamagedRow]) -> str:
    # No number is both in `sessions` and in its archive, so that one condition serves a query of the two.
    return f"seq NOT IN ({', '.join(str(error.seq) for error in damaged)})"


def columns_of(connection: sqlite3.Connection, table: str) -> str:
    """Return a table's columns for a query, with NULL for those that a database of an earlier Orbit has not."""
    names, _ = TABLES[table]
    found = {name for (name,) in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))}
    return ", ".join(name if name in found else "NULL" for name in names.split(", "))


def _read_chunk(
    connection: sqlite3.Connection, table: str, after: int
) -> tuple[list[Row], list[DamagedRow], int | None]:
    """Read some rows after a sequence number; return them, those that cannot be decoded, and where to go on, if so."""
    columns = columns_of(connection, table)
    damaged: list[DamagedRow] = []
    query = f"SELECT {columns} FROM {table} WHERE seq > ? ORDER BY seq LIMIT {_CHUNK}"  # noqa: S608  # names of ours
    try:
        rows: list[Row] = connection.execute(query, (after,)).fetchall()
        seqs = [row[0] for row in rows]
    except sqlite3.DatabaseError as error:
        if not is_corrupt(error):
            raise
        rows = []
        # Of the table's tree, not of an index: keys only, no record is decoded.
        query = f"SELECT seq FROM {table} NOT INDEXED WHERE seq > ? ORDER BY seq LIMIT {_CHUNK}"  # noqa: S608  # ours
        seqs = [seq for (seq,) in connection.execute(query, (after,)).fetchall()]
        for seq in seqs:
            query = f"SELECT {columns} FROM {table} WHERE seq = ?"  # noqa: S608  # names of ours
            try:
                rows += connection.execute(query, (seq,)).fetchall()
            except sqlite3.DatabaseError as row_error:
                if not is_corrupt(row_error):
                    raise
                row_id = None if table == "events" else connection.execute(_IDS.format(table=table), (seq,)).fetchone()
                shown_id = None if row_id is None else row_id[0]
                damaged.append(DamagedRow(table, seq, shown_id, UNREADABLE, fails_queries=True))
    # Not further: the numbers of a damaged tree need not ascend, and the same rows would come for ever.
    more = len(seqs) == _CHUNK and seqs[-1] > after
    return rows, damaged, seqs[-1] if more else None


def verify_rows(connection: sqlite3.Connection, look: Callable[[int], None] = lambda _: None) -> Verified:
    """Look at every row, but for the bytes of snapshots; in a thread.

    Args:
        connection: Reads.
        look: Called before each chunk with the count of the rows that were read. What it raises ends the pass.
    """
    verified = Verified(damaged=[], unfilled=[])
    verify_into(verified, connection, look)
    return verified


def verify_into(verified: Verified, connection: sqlite3.Connection, look: Callable[[int], None]) -> None:
    """Do as `verify_rows` does, and keep what was found before `look` raises."""
    count = 0
    for table, (_, decode) in TABLES.items():
        # A database of an earlier Orbit, which is looked at before it is migrated, has not all of them.
        has_table = connection.execute("SELECT 1 FROM pragma_table_info(?)", (table,)).fetchone() is not None
        after: int | None = _FIRST_SEQ if has_table else None
        while after is not None:
            look(count)
            rows, undecodable, after = _read_chunk(connection, table, after)
            count += len(rows)
            verified.damaged.extend(undecodable)
            for row in rows:
                try:
                    decode(row)
                except DamagedRow as error:
                    verified.damaged.append(error)
                else:
                    if table in WITH_NAMES and (
                        stored_checksum(row, table) is None or not validation.is_normalized(row[2])
                    ):
                        verified.unfilled.append((table, row[0]))
