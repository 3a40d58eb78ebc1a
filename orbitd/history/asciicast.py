"""A film as an asciicast, version 2: https://docs.asciinema.org/manual/asciicast/v2/. In pages; for threads.

Where a page begins is all that is known of those before it, `Place`: it is the cursor that a client gets. What the
program has printed is there as it was printed. Orbit's own dividers, which the emulator draws and a player does not,
are sequences that do the same on the player's terminal (see `orbitd.screens.divider`).
"""

from __future__ import annotations

import codecs
import re
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from orbit_protocol import MAX_COLUMNS_OR_ROWS
from orbit_protocol.terminal_reset import RESET, RESTORE_BEHIND, RESTORE_COLORS, RESTORE_IN_PLACE
from orbitd.history import film
from orbitd.history.database import Group, NoteDamage
from orbitd.screens.model import divider_line
from orbitd.sessions.journal_file import Divider, Event, Output, Resize, Time

PAGE_BYTES = 1 << 20
"""About how long a page is."""

PIECE_BYTES = 64 << 10
"""The most output of one event."""

_CARRIED_BYTES = 16
"""Of the output before: a sequence that enters or leaves the alternate screen may be split between two records."""

_FOREVER = 1 << 62

_ALTERNATE = re.compile(rb"\x1b\[\?[0-9;]*(?<![0-9])(?:1049|1047|47)(?:;[0-9;]*)?([hl])|\x1bc")


Count = Annotated[int, Meta(ge=0, lt=1 << 53)]
Size = Annotated[int, Meta(ge=1, le=MAX_COLUMNS_OR_ROWS)]


class Mark(Struct, frozen=True, kw_only=True):
    """A moment with a label, in milliseconds since the epoch."""

    at: int
    label: str


class Place(Struct, frozen=True, array_like=True, tag="cast"):
    """Where a page begins.

    Attributes:
        position: Of the record in the session's journal.
        began_at: The recording's first moment, in milliseconds since the epoch.
        at: The time of what came last.
        marked_at: The marks up to this moment are in the pages before.
        cols: The size of the terminal.
        rows: Likewise.
        offset: How much of the record's output is in the pages before.
        unfinished: The beginning of a character.
        before: The end of the output before, for `alternate`.
        alternate: The alternate screen is in use.
        is_behind_gap: Output before it is missing: the page begins with the picture of the key frame at the position.
    """

    position: Count
    began_at: Count
    at: Count
    marked_at: Annotated[int, Meta(ge=-1, lt=1 << 53)]
    cols: Size
    rows: Size
    offset: Count = 0
    unfinished: bytes = b""
    before: bytes = b""
    alternate: bool = False
    is_behind_gap: bool = False


class Drawn(Struct, frozen=True, kw_only=True):
    """The picture of a key frame: what draws it, on a screen of its size."""

    group: Group
    data: bytes


def header(place: Place, title: str | None) -> str:
    """Return the first line of a recording that begins at a place."""
    fields = {
        "version": 2,
        "width": place.cols,
        "height": place.rows,
        "timestamp": place.began_at // 1000,
        "title": title,
        "env": {"TERM": "xterm-256color"},
    }
    return _json({name: value for name, value in fields.items() if value is not None})


def first_events(place: Place, picture: bytes) -> str:
    """Return the event that draws the screen as it is at the beginning, "" where it is blank."""
    return _json((0.0, "o", picture.decode("utf-8", "replace"))) if picture else ""


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode() + "\n"


def beginning_of(group: Group) -> Place:
    """Return the place at which a recording begins that begins with a group's key frame."""
    return Place(group.position, group.at, group.at, group.at - 1, group.cols, group.rows)


class _Page:
    """Events of a page, as they are put together."""

    def __init__(self, place: Place, marks: Sequence[Mark], until: int | None) -> None:
        self.place = place
        self.bytes = 0
        self._lines: list[str] = []
        self._texts: list[str] = []  # of one event that is not complete
        self._text_bytes = 0
        self._marks = [mark for mark in marks if mark.at > place.marked_at and (until is None or mark.at <= until)]
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._decoder.decode(place.unfinished)
        self._before, self._alternate = place.before, place.alternate
        self._at = place.at

    def set_time(self, at: int) -> None:
        """Move on to a moment; the clock may have been set back meanwhile, a recording's never is."""
        if at > self._at:
            self._flush()
            self._add_marks(at)
            self._at = at

    def _add_marks(self, until: int) -> None:
        while self._marks and self._marks[0].at < until:
            mark = self._marks.pop(0)
            self._flush()
            self._at = max(self._at, mark.at)
            self._add("m", mark.label)

    def output(self, data: bytes) -> None:
        """Add what a program has printed."""
        for found in _ALTERNATE.finditer(self._before + data):
            self._alternate = found[1] == b"h"
        self._before = (self._before + data)[-_CARRIED_BYTES:]
        self._text(self._decoder.decode(data), len(data))

    def resize(self, cols: int, rows: int) -> None:
        """Add another size, unless it is the same."""
        if (cols, rows) != (self.place.cols, self.place.rows):
            self._flush()
            self._add("r", f"{cols}x{rows}")
            self.place = replace(self.place, cols=cols, rows=rows)

    def divide(self, text: str) -> None:
        """Add the line between the outputs of two programs, and what resets the terminal for the second."""
        restore = RESTORE_BEHIND if self._alternate else RESTORE_IN_PLACE
        line = f"\x1b]0;\x1b\\\r\n\x1b[2m{divider_line(text, self.place.cols)}\x1b[m\r\n"
        self._end_output()
        self._text((restore + RESTORE_COLORS).decode() + line, 0)

    def begin_again(self, drawn: Drawn) -> None:
        """Go on with a key frame, behind output that is missing."""
        self.set_time(drawn.group.at)
        self.resize(drawn.group.cols, drawn.group.rows)
        self._text((RESET + drawn.data).decode("utf-8", "replace"), len(drawn.data))
        self.place = replace(self.place, is_behind_gap=False)

    def _end_output(self) -> None:
        self._text(self._decoder.decode(b"", final=True), 0)
        self._before, self._alternate = b"", False

    def _text(self, text: str, size: int) -> None:
        self._texts.append(text)
        self._text_bytes += size
        if self._text_bytes >= PIECE_BYTES:
            self._flush()

    def _flush(self) -> None:
        text = "".join(self._texts)
        self._texts.clear()
        self._text_bytes = 0
        if text:
            self._add("o", text)

    def _add(self, kind: str, data: str) -> None:
        line = _json((max(0, self._at - self.place.began_at) / 1000, kind, data))
        self._lines.append(line)
        self.bytes += len(line)

    def end(self, *, is_last: bool) -> str:
        """Return the page. `is_last` adds what marks there are behind the last output."""
        self._flush()
        if is_last:
            self._text(self._decoder.decode(b"", final=True), 0)
            self._flush()
            self._add_marks(_FOREVER)
        return "".join(self._lines)

    def end_at_gap(self, group: Group) -> tuple[str, Place]:
        """Return the page, and where the next one begins: with a key frame, which has to be drawn before."""
        self._end_output()
        return self.end(is_last=False), replace(self.next_place(group.position, 0), is_behind_gap=True)

    def next_place(self, position: int, offset: int) -> Place:
        """Return where the next page begins."""
        return replace(
            self.place,
            position=position,
            offset=offset,
            at=self._at,
            marked_at=self._marks[0].at - 1 if self._marks else max(self._at - 1, self.place.marked_at),
            unfinished=self._decoder.getstate()[0],
            before=self._before,
            alternate=self._alternate,
        )


def read_page(
    connection: sqlite3.Connection,
    session_id: str,
    place: Place,
    *,
    until: int | None,
    marks: Sequence[Mark],
    note_damage: NoteDamage,
    drawn: Drawn | None = None,
    page_bytes: int = PAGE_BYTES,
) -> tuple[str, Place | None]:
    """Return the events behind a place, and where the next page begins; None behind the last.

    A page ends where output is missing, too.

    Args:
        connection: To read.
        session_id: The session.
        place: Where the page begins.
        until: Milliseconds since the epoch; None for the film's end.
        marks: In the order of their times.
        note_damage: Is given what is damaged.
        drawn: Of a place behind a gap: the key frame there.
        page_bytes: A page ends behind the event with which it has so many.
    """
    page = _Page(place, marks, until)
    if drawn is not None:
        page.begin_again(drawn)
    for start, event in _events(connection, session_id, place, until, note_damage):
        if isinstance(event, Group):
            return page.end_at_gap(event)
        if isinstance(event, Time):
            page.set_time(event.milliseconds)
        elif isinstance(event, Resize):
            page.resize(event.cols, event.rows)
        elif isinstance(event, Divider):
            page.divide(event.text)
        elif isinstance(event, Output):
            skipped = place.offset if start == place.position else 0
            for offset in range(skipped, len(event.data), PIECE_BYTES):
                if page.bytes >= page_bytes:
                    return page.end(is_last=False), page.next_place(start, offset)
                page.output(event.data[offset : offset + PIECE_BYTES])
    return page.end(is_last=True), None


def _events(
    connection: sqlite3.Connection, session_id: str, place: Place, until: int | None, note_damage: NoteDamage
) -> Iterator[tuple[int, Event | Group]]:
    """Yield the records from a place until a moment, each with its position; at a gap, the group behind it, and end."""
    end_at = _FOREVER if until is None else until
    (first,) = connection.execute(
        "SELECT max(position) FROM groups WHERE session_id = ? AND position <= ?", (session_id, place.position)
    ).fetchone()
    position = place.position
    for group in film.groups_from(connection, session_id, place.position if first is None else first, note_damage):
        if group.position > position:
            if group.at <= end_at:
                yield group.position, group
            return
        for part in film.parts_of(connection, group, note_damage):
            behind = part.start
            if behind + len(part.data) <= place.position:
                continue  # in the pages before
            for end, event in film.records_of(part.data):
                start, behind = behind, part.start + end
                if start < place.position:
                    continue
                if isinstance(event, Time) and event.milliseconds > end_at:
                    return
                yield start, event
            position = max(position, part.start + len(part.data))
