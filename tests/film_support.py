"""Reading the films that daemons have recorded, out of their databases."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from orbitd.history import film
from orbitd.history.database import DamagedHistory, open_reader
from orbitd.sessions.journal_file import Output


def history_of(database: Path) -> Path:
    """Return the database of histories beside a database of sessions."""
    return database.with_name("history.db")


def fail(error: DamagedHistory) -> None:
    """Fail: nothing is damaged."""
    raise error


def film_of(history: Path, session_id: str) -> tuple[int, bytes, int]:
    """Return where a session's film begins, its records, and where it ends; there may be no gap in it."""
    with contextlib.closing(open_reader(str(history))) as connection:
        return read_film(connection, session_id)


def read_film(connection: sqlite3.Connection, session_id: str, *, to_gap: bool = False) -> tuple[int, bytes, int]:
    """Do as `film_of`, with a connection; with `to_gap` as far as the first gap."""
    start: int | None = None
    records = b""
    for group in film.groups_from(connection, session_id, 0, fail):
        start = group.position if start is None else start
        if to_gap and group.position > start + len(records):
            break
        assert group.position == start + len(records)
        for part in film.parts_of(connection, group, fail):
            assert part.start == start + len(records)
            records += part.data
        assert group.to_position == start + len(records)
    return start or 0, records, (start or 0) + len(records)


def output_of(records: bytes) -> bytes:
    """Return what the program printed."""
    events = [event for _, event in film.records_of(records)]
    return b"".join(event.data for event in events if isinstance(event, Output))
