"""Writing a film: what a save brings is cut into chunks, compressed, and inserted; what is over the limits is dropped.

Everything here runs in threads, never on the event loop: `slices_of` in a pool's, `Save.write` in the writer's.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence

import msgspec
import zstandard
from msgspec import Struct

from orbitd.history import text_blocks
from orbitd.history.database import TEXT_COLUMNS, DamagedHistory, checksum, text_from_row, text_values
from orbitd.history.packed_records import Packed, pack
from orbitd.history.text_blocks import LONG, TextBlock
from orbitd.sessions.journal_file import FILE_HEADER_BYTES

SLICE_BYTES = 2 << 20
"""About how much of a journal is read, compressed and inserted at once: it is in memory about six times meanwhile."""

DICTIONARY_BYTES = 32 << 10
"""How much of what comes before a chunk in its group is its dictionary; twice as much saves half a percent of it."""

GROUP_BYTES = 4 << 20
GROUP_MS = 600_000
"""How much film, and how long, follows a key frame until the next save makes another one."""

MERGED_BYTES = 64 << 10
"""A block of text is joined with the next one of its session until it has so much."""

_LEVEL = 7
_LONG_FROM = 512 << 10
_DROPPED_AT_ONCE = 64

_DROPPED_BYTES = 4 << 20
"""About how much is dropped by one transaction: what is dropped is overwritten, and saves wait meanwhile."""


class Limits(Struct, frozen=True, kw_only=True):
    """How much is kept; see `HistorySettings`."""

    session_bytes: int
    total_bytes: int
    text_bytes: int


class Slice(Struct, frozen=True, kw_only=True):
    """Whole records of a journal, one behind the other.

    Attributes:
        start: The position of the first.
        records: They themselves.
    """

    start: int
    records: Packed

    @property
    def end(self) -> int:
        """The position behind the last record."""
        return self.start + self.records.raw_bytes


class Chunk(Struct, frozen=True, kw_only=True):
    """A slice, compressed."""

    slice: Slice
    dictionary_bytes: int
    data: bytes


def slices_of(files: Sequence[tuple[int, int]], start: int, end: int) -> Iterator[Slice]:
    """Yield the records between two positions, in slices; what no file has is left out.

    Args:
        files: A descriptor for reading of each file of the journal, and the position at which it begins, oldest first.
        start: Where a record begins.
        end: Where one ends.
    """
    position = start
    for index, (fd, base) in enumerate(files):
        until = min(end, files[index + 1][1]) if index + 1 < len(files) else end
        position = max(position, base)
        while position < until:
            data = os.pread(fd, min(SLICE_BYTES, until - position), FILE_HEADER_BYTES + position - base)
            records = pack(data)
            if not records.raw_bytes:  # damaged, since none is as long as a slice (PAYLOAD_MAX_BYTES)
                break
            yield Slice(start=position, records=records)
            position += records.raw_bytes


def compress(part: Slice, before: bytes) -> Chunk:
    """Compress a slice.

    Args:
        part: The slice.
        before: The end of what comes before it in its group, packed; b"" where that is not known.
    """
    records = part.records.data
    dictionary = before[-DICTIONARY_BYTES:]
    if len(records) < _LONG_FROM:
        compressor = zstandard.ZstdCompressor(level=_LEVEL, dict_data=raw_dictionary(dictionary))
    else:
        compressor = zstandard.ZstdCompressor(compression_params=LONG, dict_data=raw_dictionary(dictionary))
    data = compressor.compress(records)
    return Chunk(slice=part, dictionary_bytes=len(dictionary), data=data)


def raw_dictionary(data: bytes) -> zstandard.ZstdCompressionDict | None:
    """Return bytes as a dictionary; None for b""."""
    return zstandard.ZstdCompressionDict(data, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if data else None


class KeyFrame(Struct, frozen=True, kw_only=True):
    """The beginning of a group: a picture, or a blank screen."""

    position: int
    at: int
    line: int
    cols: int
    rows: int
    native: bytes = b""


class Film(Struct, frozen=True, kw_only=True):
    """What is recorded of a session: a row of `films`."""

    recorded_to: int = 0
    next_line: int = 0
    raw_bytes: int = 0
    film_bytes: int = 0
    text_bytes: int = 0


NO_FILM = Film()


def read_film(connection: sqlite3.Connection, session_id: str) -> Film:
    """Return what is recorded of a session."""
    row = connection.execute(
        "SELECT recorded_to, next_line, raw_bytes, film_bytes, text_bytes FROM films WHERE session_id = ?",
        (session_id,),
    ).fetchone()
    if row is None:
        return NO_FILM
    recorded_to, next_line, raw_bytes, film_bytes, text_bytes = row
    return Film(
        recorded_to=recorded_to,
        next_line=next_line,
        raw_bytes=raw_bytes,
        film_bytes=film_bytes,
        text_bytes=text_bytes,
    )


def write_film(connection: sqlite3.Connection, session_id: str, film: Film) -> None:
    """Replace the row of a session."""
    connection.execute(
        "INSERT OR REPLACE INTO films VALUES (?, ?, ?, ?, ?, ?)",
        (session_id, film.recorded_to, film.next_line, film.raw_bytes, film.film_bytes, film.text_bytes),
    )


def insert_group(connection: sqlite3.Connection, session_id: str, frame: KeyFrame) -> tuple[int, int]:
    """Insert a key frame; return its row, and how many bytes more are taken: one at the same position is replaced."""
    native = zstandard.ZstdCompressor(level=_LEVEL).compress(frame.native) if frame.native else None
    columns = (session_id, frame.position, frame.at, frame.line, frame.cols, frame.rows)
    stored = len(native or b"")
    (replaced,) = connection.execute(
        "SELECT total(stored_bytes) FROM groups WHERE session_id = ? AND position = ?", (session_id, frame.position)
    ).fetchone()
    cursor = connection.execute(
        "INSERT OR REPLACE INTO groups (session_id, position, at, line, cols, rows, checksum, to_position, to_at,"
        " stored_bytes, native) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*columns, checksum(*columns, native), frame.position, frame.at, stored, native),
    )
    assert cursor.lastrowid is not None
    return cursor.lastrowid, stored - int(replaced)


def insert_chunk(
    connection: sqlite3.Connection, session_id: str, group_seq: int, chunk: Chunk, times: tuple[int, int]
) -> int:
    """Insert a chunk, and move the end of its group; return the bytes that it takes, 0 where it is there already."""
    part, (from_at, to_at) = chunk.slice, times
    columns = (
        *(session_id, part.start, part.end, from_at, to_at, part.records.raw_bytes),
        *(group_seq, chunk.dictionary_bytes),
    )
    cursor = connection.execute(
        "INSERT OR IGNORE INTO chunks (session_id, from_position, to_position, from_at, to_at, bytes, group_seq,"
        " dictionary_bytes, checksum, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*columns, checksum(*columns, chunk.data), chunk.data),
    )
    if not cursor.rowcount:
        return 0
    connection.execute(
        "UPDATE groups SET to_position = ?, to_at = max(to_at, ?), stored_bytes = stored_bytes + ? WHERE seq = ?",
        (part.end, to_at, len(chunk.data), group_seq),
    )
    return len(chunk.data)


# Text


def insert_text(connection: sqlite3.Connection, session_id: str, blocks: Iterable[TextBlock]) -> int:
    """Add blocks behind those of a session; a small one is joined with the last. Return by how much it has grown."""
    grown = 0
    for block in blocks:
        joined, replaced = _joined(connection, session_id, block)
        if replaced is not None:
            seq, stored = replaced
            connection.execute("DELETE FROM texts WHERE seq = ?", (seq,))
            grown -= stored
        grown += _insert_text(connection, session_id, joined, is_tail=False)
    return grown


def without_known(
    connection: sqlite3.Connection, session_id: str, block: TextBlock, next_line: int
) -> TextBlock | None:
    """Return a block without the lines that are stored already, with the same number and text; None if all are.

    Args:
        connection: The database.
        session_id: Whose block it is.
        block: The block.
        next_line: No line has this number yet, or a higher one.
    """
    if block.first_line >= next_line:
        return block
    try:
        lines = text_blocks.unpack(block.text, block.runs)
    except (zstandard.ZstdError, ValueError):
        return block
    numbers = [line.number for line in lines if 0 <= line.number < next_line]
    if not numbers:
        return block
    known = _lines_between(connection, session_id, min(numbers), max(numbers))
    left = [line for line in lines if (line.number, line.text) not in known]
    return block if len(left) == len(lines) else text_blocks.pack(left, block.next_line)


def _lines_between(connection: sqlite3.Connection, session_id: str, first: int, last: int) -> set[tuple[int, str]]:
    """Return number and text of the stored lines of a session between two numbers."""
    rows = connection.execute(
        f"SELECT {TEXT_COLUMNS} FROM texts WHERE session_id = ? AND is_tail = 0 AND first_line <= ? AND next_line > ?",  # noqa: S608  # ours
        (session_id, last, first),
    )
    found = set[tuple[int, str]]()
    for row in rows:
        with contextlib.suppress(DamagedHistory, zstandard.ZstdError, ValueError):
            block = text_from_row(row).block
            lines = text_blocks.unpack(block.text, block.runs)
            found.update((line.number, line.text) for line in lines if first <= line.number <= last)
    return found


def _joined(
    connection: sqlite3.Connection, session_id: str, block: TextBlock
) -> tuple[TextBlock, tuple[int, int] | None]:
    """Return a block together with the last one of its session, and row and size of that, where both are small."""
    if block.raw_bytes >= MERGED_BYTES:
        return block, None
    # In the order of the index: in that of the rows, SQLite reads all of the session's text and sorts it.
    row = connection.execute(
        f"SELECT {TEXT_COLUMNS} FROM texts WHERE bytes < ? AND seq = (SELECT seq FROM texts"  # noqa: S608  # ours
        " WHERE session_id = ? AND is_tail = 0 ORDER BY first_line DESC, seq DESC LIMIT 1)",
        (MERGED_BYTES, session_id),
    ).fetchone()
    if row is None:
        return block, None
    try:
        last = text_from_row(row)
        joined = text_blocks.join(last.block, block)
    except (DamagedHistory, zstandard.ZstdError, msgspec.DecodeError, ValueError):
        return block, None  # what cannot be read stays as it is
    return joined, (last.seq, len(last.block.text) + len(last.block.runs))


def _insert_text(connection: sqlite3.Connection, session_id: str, block: TextBlock, *, is_tail: bool) -> int:
    connection.execute(
        "INSERT INTO texts (session_id, is_tail, first_line, next_line, from_at, to_at, bytes, stored_bytes,"
        " checksum, text, runs) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        text_values(session_id, block, is_tail=is_tail),
    )
    return len(block.text) + len(block.runs)


def replace_tail(connection: sqlite3.Connection, session_id: str, tail: TextBlock | None) -> int:
    """Replace the lines that stand on the screen; return by how much the text has grown."""
    row = connection.execute(
        "SELECT seq, stored_bytes FROM texts WHERE session_id = ? AND is_tail = 1", (session_id,)
    ).fetchone()
    grown = 0
    if row is not None:
        connection.execute("DELETE FROM texts WHERE seq = ?", (row[0],))
        grown -= row[1]
    if tail is not None:
        grown += _insert_text(connection, session_id, tail, is_tail=True)
    return grown


# Limits


def drop_groups(connection: sqlite3.Connection, rows: Sequence[tuple[int, str, int]]) -> int:
    """Drop groups with their chunks, each given as row, session and stored size; return how many bytes went."""
    dropped = 0
    for seq, session_id, stored in rows:
        (raw,) = connection.execute("SELECT total(bytes) FROM chunks WHERE group_seq = ?", (seq,)).fetchone()
        connection.execute("DELETE FROM chunks WHERE group_seq = ?", (seq,))
        connection.execute("DELETE FROM groups WHERE seq = ?", (seq,))
        connection.execute(
            "UPDATE films SET film_bytes = max(0, film_bytes - ?), raw_bytes = max(0, raw_bytes - ?)"
            " WHERE session_id = ?",
            (stored, int(raw), session_id),
        )
        dropped += stored
    return dropped


def oldest_of(rows: Sequence[tuple[int, str, int]]) -> Sequence[tuple[int, str, int]]:
    """Return the first of some groups for `drop_groups`, as many as one transaction should drop."""
    length = 0
    for count, (_, _, stored) in enumerate(rows, 1):
        length += stored
        if length >= _DROPPED_BYTES:
            return rows[:count]
    return rows


def limit_session(connection: sqlite3.Connection, session_id: str, most: int) -> int:
    """Drop the oldest groups of a session that has more film than it may; return how many bytes went."""
    dropped = 0
    while read_film(connection, session_id).film_bytes > most:
        rows = connection.execute(
            "SELECT seq, session_id, stored_bytes FROM groups WHERE session_id = ? ORDER BY seq LIMIT 1",
            (session_id,),
        ).fetchall()
        if not rows:
            break
        dropped += drop_groups(connection, rows)
    return dropped


def limit_total(connection: sqlite3.Connection, over: int) -> int:
    """Drop the oldest groups of all sessions until so many bytes went; return how many went."""
    dropped = 0
    while dropped < over:
        rows = connection.execute(
            "SELECT seq, session_id, stored_bytes FROM groups ORDER BY seq LIMIT ?", (_DROPPED_AT_ONCE,)
        ).fetchall()
        if not rows:
            break
        for row in rows:
            dropped += drop_groups(connection, [row])
            if dropped >= over:
                break
    return dropped


def limit_text(connection: sqlite3.Connection, over: int) -> int:
    """Drop the oldest text of the session that has most, until so many bytes went: no session fills another's share."""
    dropped = 0
    while dropped < over:
        heaviest = connection.execute(
            "SELECT session_id, text_bytes FROM films WHERE text_bytes > 0 ORDER BY text_bytes DESC LIMIT 1"
        ).fetchone()
        if heaviest is None:
            break
        rows = connection.execute(
            "SELECT seq, stored_bytes FROM texts WHERE session_id = ? ORDER BY is_tail, seq LIMIT ?",
            (heaviest[0], _DROPPED_AT_ONCE),
        ).fetchall()
        gone = 0
        for seq, stored in rows:
            connection.execute("DELETE FROM texts WHERE seq = ?", (seq,))
            gone += stored
            if dropped + gone >= over:
                break
        # Where rows and sum differ, since somebody has changed them, the sum follows: else this would not end.
        left = max(0, heaviest[1] - gone) if rows else 0
        connection.execute("UPDATE films SET text_bytes = ? WHERE session_id = ?", (left, heaviest[0]))
        dropped += gone or heaviest[1]
    return dropped


def drop_older(connection: sqlite3.Connection, before: int) -> int:
    """Drop some of the groups that ended before a moment, in milliseconds; return how many bytes went, 0 if none."""
    rows = connection.execute(
        "SELECT seq, session_id, stored_bytes FROM groups WHERE to_at < ? ORDER BY seq LIMIT ?",
        (before, _DROPPED_AT_ONCE),
    ).fetchall()
    dropped = oldest_of(rows)
    drop_groups(connection, dropped)
    return sum(max(1, stored) for _, _, stored in dropped)


def drop_of_session(connection: sqlite3.Connection, session_id: str) -> bool:
    """Drop some of what is recorded of a session; return whether there was any."""
    rows = connection.execute(
        "SELECT seq, session_id, stored_bytes FROM groups WHERE session_id = ? ORDER BY seq LIMIT ?",
        (session_id, _DROPPED_AT_ONCE),
    ).fetchall()
    if rows:
        drop_groups(connection, oldest_of(rows))
        return True
    gone = 0
    for table in ("chunks", "texts"):  # chunks that belong to no group, too
        gone += connection.execute(
            f"DELETE FROM {table} WHERE seq IN (SELECT seq FROM {table} WHERE session_id = ? ORDER BY seq LIMIT ?)",  # noqa: S608  # ours
            (session_id, _DROPPED_AT_ONCE),
        ).rowcount
    if gone:
        return True
    connection.execute("DELETE FROM films WHERE session_id = ?", (session_id,))
    return False
