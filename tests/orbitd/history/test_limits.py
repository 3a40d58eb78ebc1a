"""What is kept of films and of text: the limits hold, and the oldest goes first."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from orbitd.history import recorder, text_blocks
from orbitd.history.database import open_writer
from orbitd.history.packed_records import Packed
from orbitd.history.recorder import Film, KeyFrame, Slice
from orbitd.history.text_blocks import Line


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A new database of histories."""
    with contextlib.closing(open_writer(str(tmp_path / "history.db"))) as connection:
        yield connection


def add_group(connection: sqlite3.Connection, session_id: str, position: int, data: bytes) -> None:
    """Record some film with a key frame of its own."""
    group, size = recorder.insert_group(
        connection, session_id, KeyFrame(position=position, at=position, line=0, cols=80, rows=24)
    )
    records = Packed(data=data, raw_bytes=len(data), from_at=position, to_at=position, size=None)
    part = Slice(start=position, records=records)
    size += recorder.insert_chunk(connection, session_id, group, recorder.compress(part, b""), (position, position))
    old = recorder.read_film(connection, session_id)
    new = Film(
        recorded_to=part.end,
        next_line=0,
        raw_bytes=old.raw_bytes + len(data),
        film_bytes=old.film_bytes + size,
        text_bytes=old.text_bytes,
    )
    recorder.write_film(connection, session_id, new)


def film_bytes(connection: sqlite3.Connection, session_id: str) -> int:
    """Return what a session's film takes, by its rows."""
    query = "SELECT total(length(data)) FROM chunks WHERE session_id = ?"
    return int(connection.execute(query, (session_id,)).fetchone()[0])


@pytest.mark.parametrize("limit", [0, 1_000_000])
def test_a_flood_keeps_to_its_limit(connection: sqlite3.Connection, limit: int) -> None:
    """Three times the limit of noise leaves no more than the limit, the newest, and others keep theirs."""
    add_group(connection, "other", 0, os.urandom(50_000))
    for number in range(30):
        add_group(connection, "flood", number * 100_000, os.urandom(100_000))
        recorder.limit_session(connection, "flood", limit)
        assert film_bytes(connection, "flood") <= limit
    assert film_bytes(connection, "other") >= 50_000
    assert recorder.read_film(connection, "flood").film_bytes == film_bytes(connection, "flood")


def test_the_total_limit_drops_the_oldest_of_all(connection: sqlite3.Connection) -> None:
    """With twenty sessions the oldest groups go, whosever they are, and the file grows no further."""
    pages = 0
    for number in range(200):
        add_group(connection, f"s{number % 20}", number * 20_000, os.urandom(20_000))
        (total,) = connection.execute("SELECT total(film_bytes) FROM films").fetchone()
        recorder.limit_total(connection, int(total) - 1_000_000)
        (count,) = connection.execute("PRAGMA page_count").fetchone()
        pages = count if number < 100 else pages
        assert number < 100 or count <= pages + 10
    (oldest,) = connection.execute("SELECT min(position) FROM groups").fetchone()
    assert oldest >= 140 * 20_000


def test_text_is_taken_from_whom_has_most(connection: sqlite3.Connection) -> None:
    """The limit of text is kept by the session that has most; the others keep theirs."""
    for session_id, blocks in (("large", 20), ("small", 1)):
        grown = 0
        for block in range(blocks):
            lines = [Line(number=block * 100 + each, at=1, text=os.urandom(500).hex()) for each in range(100)]
            packed = text_blocks.pack(lines, block * 100)
            assert packed is not None
            grown += recorder.insert_text(connection, session_id, [packed])
        recorder.write_film(
            connection, session_id, Film(recorded_to=0, next_line=0, raw_bytes=0, film_bytes=0, text_bytes=grown)
        )
    before = recorder.read_film(connection, "small").text_bytes
    recorder.limit_text(connection, recorder.read_film(connection, "large").text_bytes // 2)
    assert recorder.read_film(connection, "small").text_bytes == before
    rows = connection.execute("SELECT min(first_line), sum(stored_bytes) FROM texts WHERE session_id = 'large'")
    first, stored = rows.fetchone()
    assert first > 0
    assert stored == recorder.read_film(connection, "large").text_bytes


def test_what_stands_on_the_screen_goes_last(connection: sqlite3.Connection) -> None:
    """Of a session's text the lines that have left its screen go before those that stand there."""
    block = text_blocks.pack([Line(number=0, at=1, text=os.urandom(500).hex())], 0)
    assert block is not None
    grown = recorder.replace_tail(connection, "one", block) + recorder.insert_text(connection, "one", [block])
    film = Film(recorded_to=0, next_line=0, raw_bytes=0, film_bytes=0, text_bytes=grown)
    recorder.write_film(connection, "one", film)
    recorder.limit_text(connection, 1)
    assert connection.execute("SELECT is_tail FROM texts").fetchall() == [(1,)]


def test_old_groups_go(connection: sqlite3.Connection) -> None:
    """Retention drops the groups that ended before a moment, and no other."""
    for at in (1_000, 200_000, 400_000):
        add_group(connection, "one", at, b"x" * 100)
    assert recorder.drop_older(connection, 200_000) > 0
    assert recorder.drop_older(connection, 200_000) == 0
    assert connection.execute("SELECT min(position) FROM groups").fetchone() == (200_000,)


def test_the_last_block_is_found_at_once(connection: sqlite3.Connection) -> None:
    """However much text a session has, a save reads its last block only to join the next one with it."""
    for number in range(3):
        block = text_blocks.pack([Line(number=number, at=1000, text=os.urandom(40_000).hex())], number)
        assert block is not None
        recorder.insert_text(connection, "one", [block])
    queries: list[str] = []
    connection.set_trace_callback(queries.append)
    small = text_blocks.pack([Line(number=3, at=1000, text="three")], 3)
    assert small is not None
    recorder.insert_text(connection, "one", [small])
    connection.set_trace_callback(None)
    for query in queries:
        if query.startswith("SELECT"):
            plan = connection.execute(f"EXPLAIN QUERY PLAN {query}").fetchall()
            assert not any("TEMP B-TREE" in step for *_, step in plan), plan
