"""`history.timeline`: key frames, sizes and marks of a film."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from history_rows import BEGIN, ONE, Rows
from orbit_protocol.types import Event
from orbitd.history.timeline import read, without_film
from orbitd.sessions.journal_file import Output, Resize, Time


@pytest.fixture
def rows(tmp_path: Path) -> Iterator[Rows]:
    """An empty database of histories."""
    rows = Rows(tmp_path)
    yield rows
    rows.connection.close()


def moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp((BEGIN + milliseconds) / 1000, UTC)


def event(kind: str, milliseconds: int, **data: Any) -> Event:
    raw = msgspec.Raw(json.dumps(data).encode())
    return Event(seq=1, at=moment(milliseconds), kind=kind, session_id=ONE, workspace_id=None, data=raw)


EVENTS = [
    event("session.started", 0),
    event("command.finished", 40, command="make", exit_code=2),
    event("session.exited", 90, exit_code=3),
    event("session.exited", 95, exit_code="none that there is"),
]


def test_a_film_has_key_frames_sizes_and_marks(rows: Rows) -> None:
    """Key frames, each new size with its time, and what happened, in the order of time."""
    group = rows.group(0, BEGIN)
    data = rows.chunk(
        group, 0, [Resize(cols=80, rows=24), Output(data=b"a"), Time(milliseconds=BEGIN + 50), Resize(cols=90, rows=30)]
    )
    rows.chunk(rows.group(len(data), BEGIN + 60, (90, 30)), len(data), [Output(data=b"b")])
    found = read(rows.connection, ONE, EVENTS, rows.note_damage)
    assert [(one.at, one.cols, one.rows) for one in found.key_frames] == [(moment(0), 80, 24), (moment(60), 90, 30)]
    assert all(one.bytes > 0 for one in found.key_frames)
    assert [(one.at, one.cols, one.rows) for one in found.sizes] == [(moment(0), 80, 24), (moment(50), 90, 30)]
    assert [(one.at, one.kind, one.text, one.exit_code) for one in found.marks] == [
        (moment(0), "started", None, None),
        (moment(40), "command", "make", 2),
        (moment(90), "exited", None, 3),
    ]
    assert (found.since, found.until) == (moment(0), moment(60_000))


def test_missing_output_is_a_mark(rows: Rows) -> None:
    """Where a key frame begins behind output that is not recorded, or is damaged, the film has a gap."""
    group = rows.group(0, BEGIN)
    first = rows.chunk(group, 0, [Output(data=b"a")])
    second = rows.chunk(group, len(first), [Output(data=b"b")])
    position = len(first + second)
    third = rows.chunk(rows.group(position, BEGIN + 70_000), position, [Output(data=b"c")])
    rows.group(position + len(third) + 500, BEGIN + 80_000)
    kinds = [mark.kind for mark in read(rows.connection, ONE, [], rows.note_damage).marks]
    assert kinds == ["gap"]
    rows.damage("chunks", 2)
    kinds = [mark.kind for mark in read(rows.connection, ONE, [], rows.note_damage).marks]
    assert kinds == ["gap", "gap"]


def test_a_session_without_a_film_has_its_marks(rows: Rows) -> None:
    """Of a session that is not recorded the timeline has what happened, and no moments of a film."""
    found = read(rows.connection, ONE, EVENTS, rows.note_damage)
    assert (found.since, found.until, found.key_frames, found.sizes) == (None, None, [], [])
    assert found == without_film(EVENTS)
