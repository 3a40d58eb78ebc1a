"""Rows of history.db, for tests: lines of text, and films, as the recorder writes them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from orbitd.history import database, recorder, text_blocks
from orbitd.history.packed_records import pack
from orbitd.history.recorder import KeyFrame
from orbitd.history.text_blocks import NO_NUMBER, Line
from orbitd.sessions.journal_file import Event, records_of

ONE = "one"
BEGIN = 1_790_000_000_000
"""A moment, in milliseconds since the epoch."""


class Rows:
    """A database of histories that a test fills.

    Args:
        folder: Where it is made.
    """

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "history.db")
        self.connection: sqlite3.Connection = database.open_writer(self.path)
        self.damaged: list[str] = []
        self._packed: dict[int, bytes] = {}  # of each group, what its chunks hold

    def note_damage(self, error: database.DamagedHistory) -> None:
        self.damaged.append(str(error))

    def text(self, numbers: Sequence[int], *, at: int = BEGIN, tail: bool = False, text: str = "line {}") -> None:
        """Add a block of lines with these numbers, a millisecond apart; those without one say so."""
        lines = [
            Line(number=number, at=at + index, text=text.format("?" if number == NO_NUMBER else number))
            for index, number in enumerate(numbers)
        ]
        block = text_blocks.pack(lines, 0)
        assert block is not None
        if tail:
            recorder.replace_tail(self.connection, ONE, block)
            return
        self.connection.execute(
            "INSERT INTO texts (session_id, is_tail, first_line, next_line, from_at, to_at, bytes, stored_bytes,"
            " checksum, text, runs) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            database.text_values(ONE, block, is_tail=False),
        )

    def group(self, position: int, at: int, size: tuple[int, int] = (80, 24), native: bytes = b"") -> int:
        """Begin a group with a key frame; return its row."""
        frame = KeyFrame(position=position, at=at, line=0, cols=size[0], rows=size[1], native=native)
        return recorder.insert_group(self.connection, ONE, frame)[0]

    def chunk(self, group: int, position: int, events: Sequence[Event]) -> bytes:
        """Add a chunk with some records behind those of its group; return them."""
        data = b"".join(record for event in events for record in records_of(event))
        part, before = recorder.Slice(start=position, records=pack(data)), self._packed.get(group, b"")
        recorder.insert_chunk(self.connection, ONE, group, recorder.compress(part, before), (BEGIN, BEGIN + 60_000))
        self._packed[group] = before + part.records.data
        return data

    def damage(self, table: str, seq: int) -> None:
        """Change a byte of what a row holds."""
        column = {"texts": "text", "chunks": "data"}[table]
        query = f"SELECT {column} FROM {table} WHERE seq = ?"
        (data,) = self.connection.execute(query, (seq,)).fetchone()
        changed = data[:-1] + bytes([data[-1] ^ 1])
        self.connection.execute(f"UPDATE {table} SET {column} = ? WHERE seq = ?", (changed, seq))
