"""`history.timeline`: what is recorded of a session, and when, for a scrubber."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from datetime import datetime

import msgspec
from msgspec import Struct

from orbit_protocol.results import KeyFrame, SizeChange, Timeline, TimelineMark
from orbit_protocol.types import CommandFinished, Event
from orbitd.history import film
from orbitd.history.database import Group, NoteDamage
from orbitd.history.lines import time_of
from orbitd.history.recorder import read_film
from orbitd.sessions.journal_file import Resize, Time

MARKED_KINDS = ("command.finished", "session.started", "session.exited", "session.disconnected")

MAX_MOMENTS = 10_000
"""Of each list of a timeline; the newest ones are kept."""


class _Exit(Struct, frozen=True, kw_only=True):
    """Of a session whose program has ended."""

    exit_code: int | None = None


_finished_decoder = msgspec.json.Decoder(CommandFinished)
_exit_decoder = msgspec.json.Decoder(_Exit)


def read(connection: sqlite3.Connection, session_id: str, events: Iterable[Event], note_damage: NoteDamage) -> Timeline:
    """Return the timeline of a session.

    Args:
        connection: To read.
        session_id: The session.
        events: Those of `MARKED_KINDS`, oldest first.
        note_damage: Is given what is damaged.
    """
    known, extent = read_film(connection, session_id), film.extent(connection, session_id)
    key_frames: list[KeyFrame] = []
    sizes: list[SizeChange] = []
    marks = list(_marks(events))
    position, last_at = None, 0
    for group in film.groups_from(connection, session_id, 0, note_damage):
        if (at := time_of(group.at)) is None:
            continue
        key_frames.append(KeyFrame(at=at, cols=group.cols, rows=group.rows, bytes=group.stored_bytes))
        _add_size(sizes, at, group.cols, group.rows)
        if position is not None and group.position > position and (since := time_of(last_at)) is not None:
            marks.append(TimelineMark(at=since, kind="gap"))
        position, last_at = _add_sizes(connection, group, sizes, note_damage)
        del key_frames[:-MAX_MOMENTS], sizes[:-MAX_MOMENTS]
    since, until = (None, None) if extent is None else (time_of(extent[0]), time_of(extent[1]))
    return Timeline(
        since=since,
        until=until,
        key_frames=key_frames,
        sizes=sizes,
        marks=sorted(marks, key=lambda mark: mark.at)[-MAX_MOMENTS:],
        recording_raw_bytes=known.raw_bytes,
        recording_bytes=known.film_bytes,
        text_bytes=known.text_bytes,
    )


def without_film(events: Iterable[Event]) -> Timeline:
    """Return the timeline of a session of which nothing is recorded."""
    return Timeline(
        since=None,
        until=None,
        key_frames=[],
        sizes=[],
        marks=list(_marks(events))[-MAX_MOMENTS:],
        recording_raw_bytes=0,
        recording_bytes=0,
        text_bytes=0,
    )


def _add_sizes(
    connection: sqlite3.Connection, group: Group, sizes: list[SizeChange], note_damage: NoteDamage
) -> tuple[int, int]:
    """Add the sizes that are set behind a key frame; return where the film of its group ends, and when."""
    position, last_at = group.position, group.at
    for part in film.parts_of(connection, group, note_damage):
        position, last_at = part.start + len(part.data), max(last_at, part.to_at)
        at = part.from_at
        for _, event in film.records_of(part.data):
            if isinstance(event, Time):
                at = event.milliseconds
            elif isinstance(event, Resize) and (moment := time_of(at)) is not None:
                _add_size(sizes, moment, event.cols, event.rows)
    return position, last_at


def _add_size(sizes: list[SizeChange], at: datetime, cols: int, rows: int) -> None:
    if not sizes or (sizes[-1].cols, sizes[-1].rows) != (cols, rows):
        sizes.append(SizeChange(at=at, cols=cols, rows=rows))


def _marks(events: Iterable[Event]) -> Iterator[TimelineMark]:
    for event in events:
        try:
            if event.kind == "command.finished":
                finished = _finished_decoder.decode(event.data)
                yield TimelineMark(at=event.at, kind="command", text=finished.command, exit_code=finished.exit_code)
            elif event.kind == "session.started":
                yield TimelineMark(at=event.at, kind="started")
            else:
                yield TimelineMark(at=event.at, kind="exited", exit_code=_exit_decoder.decode(event.data).exit_code)
        except msgspec.DecodeError:
            continue
