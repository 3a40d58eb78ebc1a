"""The lines of a history, in pages: `history.lines`, and what `history.export` writes as text.

Lines have numbers that never change. What the limits have dropped, or damage has taken, is missing between them. The
tail, which is what stood on the screen at the last save, goes on behind the other rows: of a line that has left the
screen since it was taken, the other row counts.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec
import zstandard
from msgspec import Struct

from orbit_protocol.results import HistoryLine, HistoryPage
from orbitd.history import text_blocks
from orbitd.history.database import TEXT_COLUMNS, DamagedHistory, NoteDamage, text_from_row
from orbitd.history.text_blocks import NO_NUMBER, Line

MAX_PAGE_BYTES = 7 << 20
"""Of the JSON of a page's lines; an answer may have 8 MiB."""

MAX_LINE_CHARACTERS = 1_000_000
"""Of a line in a page, which as JSON takes six bytes each at most; what is behind them is left out."""

LINE_BYTES = 80
"""What a line takes in a page beside its text."""

# Blocks without a numbered line have equal numbers. In a damaged row there may be any: a line takes a byte at least.
_NUMBERED = "session_id = ? AND is_tail = ? AND next_line > first_line AND next_line - first_line <= bytes"
_BEHIND = f"SELECT first_line, next_line FROM texts WHERE {_NUMBERED} ORDER BY first_line DESC, seq DESC"  # noqa: S608  # ours
_FIRST = f"SELECT first_line FROM texts WHERE {_NUMBERED} ORDER BY first_line, seq LIMIT 1"  # noqa: S608  # ours
_HOLDS = f"SELECT max(first_line) FROM texts WHERE {_NUMBERED} AND first_line <= ?"  # noqa: S608  # ours
_LATER = f"SELECT first_line FROM texts WHERE {_NUMBERED} AND to_at >= ? ORDER BY first_line, seq LIMIT 1"  # noqa: S608  # ours
_ROWS = f"SELECT {TEXT_COLUMNS} FROM texts WHERE {_NUMBERED} AND first_line >= ? ORDER BY first_line, seq"  # noqa: S608  # ours


class Extent(Struct, frozen=True, kw_only=True):
    """Which lines there are: from `oldest` until before `total`, but for those that are missing between them."""

    oldest: int
    total: int


def extent(connection: sqlite3.Connection, session_id: str) -> Extent:
    """Return which lines of a session there are."""
    ends = [row for tail in (0, 1) if (row := connection.execute(_BEHIND, (session_id, tail)).fetchone())]
    if not ends:
        row = connection.execute("SELECT next_line FROM films WHERE session_id = ?", (session_id,)).fetchone()
        return Extent(oldest=row[0], total=row[0]) if row else Extent(oldest=0, total=0)
    begins = [row[0] for tail in (0, 1) if (row := connection.execute(_FIRST, (session_id, tail)).fetchone())]
    return Extent(oldest=min(begins), total=max(next_line for _, next_line in ends))


def line_from_end(connection: sqlite3.Connection, session_id: str, count: int) -> int:
    """Return the number of the line that so many lines follow, itself included; the oldest where there are fewer."""
    found = before = extent(connection, session_id).total
    for is_tail in (1, 0):
        for first, behind in connection.execute(_BEHIND, (session_id, is_tail)):
            if is_tail:  # the other rows have those of its lines that have left the screen
                row = connection.execute(_BEHIND, (session_id, 0)).fetchone()
                first = max(first, row[1]) if row else first
            behind = min(behind, before)
            if behind <= first:
                continue
            if behind - first >= count:
                return int(behind - count)
            count -= behind - first
            found = before = first
    return int(found)


def line_since(connection: sqlite3.Connection, session_id: str, since: int, note_damage: NoteDamage) -> int:
    """Return the number of the first line that was shown at a moment or later; what follows the last where none was.

    Args:
        connection: To read.
        session_id: The session.
        since: Milliseconds since the epoch.
        note_damage: Is given what is damaged.
    """
    row = connection.execute(_LATER, (session_id, 0, since)).fetchone()
    known = extent(connection, session_id)
    if row is None:  # it is in the tail, if anywhere
        last = connection.execute(_BEHIND, (session_id, 0)).fetchone()
        row = (last[1] if last else known.oldest,)
    for line in lines_from(connection, session_id, row[0], note_damage):
        if line.at >= since:
            return line.number
    return known.total


def lines_from(connection: sqlite3.Connection, session_id: str, first: int, note_damage: NoteDamage) -> Iterator[Line]:
    """Yield the lines with a number from `first` on, each once, in their order; what cannot be read is left out."""
    expected = first
    for is_tail in (0, 1):
        (begin,) = connection.execute(_HOLDS, (session_id, is_tail, expected)).fetchone()
        rows = connection.execute(_ROWS, (session_id, is_tail, expected if begin is None else begin))
        for row in rows:
            for line in _unpack(row, note_damage):
                if line.number != NO_NUMBER and line.number >= expected:
                    expected = line.number + 1
                    yield line


def _unpack(row: tuple[object, ...], note_damage: NoteDamage) -> list[Line]:
    try:
        block = text_from_row(row).block
        return text_blocks.unpack(block.text, block.runs)
    except DamagedHistory as error:
        note_damage(error)
    except (zstandard.ZstdError, msgspec.DecodeError, ValueError) as error:
        note_damage(DamagedHistory(f"row {row[0]} of texts: {error}"))
    return []


def time_of(at: int) -> datetime | None:
    """Return a time that is stored in milliseconds; None for one that is not known, or that no calendar has."""
    try:
        return datetime.fromtimestamp(at / 1000, UTC) if at > 0 else None
    except (ValueError, OverflowError, OSError):
        return None


def read_page(
    connection: sqlite3.Connection,
    session_id: str,
    *,
    first: int | None,
    since: int | None,
    limit: int,
    note_damage: NoteDamage,
) -> HistoryPage:
    """Return a page of a history, as text.

    Args:
        connection: To read.
        session_id: The session.
        first: The number of the first line; a negative one counts lines from the end; None for the newest `limit`.
        since: In the place of `first`, the first line shown at this moment, in milliseconds since the epoch, or later.
        limit: The most lines.
        note_damage: Is given what is damaged.
    """
    known = extent(connection, session_id)
    if since is not None:
        start = line_since(connection, session_id, since, note_damage)
    elif first is None or first < 0:
        start = line_from_end(connection, session_id, limit if first is None else -first)
    else:
        start = min(max(first, known.oldest), known.total)
    lines: list[HistoryLine] = []
    room = MAX_PAGE_BYTES
    for line in lines_from(connection, session_id, start, note_damage):
        text = line.text[:MAX_LINE_CHARACTERS]
        room -= len(msgspec.json.encode(text)) + LINE_BYTES
        if len(lines) == limit or (lines and room < 0):
            break
        lines.append(HistoryLine(line=line.number, at=time_of(line.at), text=text))
    return HistoryPage(lines=lines, first=lines[0].line if lines else start, total=known.total, oldest=known.oldest)
