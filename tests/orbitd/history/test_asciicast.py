"""Films as asciicasts: the events of a film, in one page or in many."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from history_rows import BEGIN, ONE, Rows
from orbitd.history.asciicast import Drawn, Mark, Place, read_page
from orbitd.history.export import from_cursor, to_cursor
from orbitd.history.film import groups_from, parts_of
from orbitd.screens.divider import print_divider
from orbitd.screens.emulator import Emulator
from orbitd.sessions.journal_file import Cwd, Divider, Event, Output, Resize, Time


@pytest.fixture
def rows(tmp_path: Path) -> Iterator[Rows]:
    """An empty database of histories."""
    rows = Rows(tmp_path)
    yield rows
    rows.connection.close()


def place(position: int = 0) -> Place:
    return Place(position, BEGIN, BEGIN, BEGIN - 1, 80, 24)


def read(rows: Rows, start: Place | None = None, **options: Any) -> list[list[Any]]:
    """Read all pages; each place goes through a cursor, as a client gives it back."""
    options = {"until": None, "marks": [], **options}
    found, here = "", start or place()
    while here is not None:
        # What the emulator would draw of a key frame is what the test has put there.
        group = next(groups_from(rows.connection, ONE, here.position, rows.note_damage), None)
        drawn = Drawn(group=group, data=group.native) if group is not None and here.is_behind_gap else None
        data, following = read_page(rows.connection, ONE, here, note_damage=rows.note_damage, drawn=drawn, **options)
        found += data
        here = following and from_cursor(to_cursor(following), is_film=True)  # type: ignore[assignment]
    return [json.loads(line) for line in found.splitlines()]


def film(rows: Rows, *events: Event) -> None:
    rows.chunk(rows.group(0, BEGIN), 0, events)


def at(milliseconds: int) -> Time:
    return Time(milliseconds=BEGIN + milliseconds)


def test_output_has_its_times(rows: Rows) -> None:
    """Output of one time is one event; each has seconds since the beginning, and folders are left out."""
    film(
        rows,
        Output(data=b"a"),
        at(100),
        Output(data=b"b"),
        Cwd(path=b"/"),
        Output(data=b"c"),
        at(1_500),
        Output(data=b"d"),
    )
    assert read(rows) == [[0.0, "o", "a"], [0.1, "o", "bc"], [1.5, "o", "d"]]


def test_a_clock_that_was_set_back_sets_no_recording_back(rows: Rows) -> None:
    """Times never go back in a recording, whatever the machine's clock did."""
    film(rows, at(5_000), Output(data=b"a"), at(200), Output(data=b"b"), at(6_000), Output(data=b"c"))
    assert read(rows) == [[5.0, "o", "ab"], [6.0, "o", "c"]]


def test_characters_that_are_split_are_joined(rows: Rows) -> None:
    """A character whose bytes are in two records, chunks or pages is one; bytes that are none become U+FFFD."""
    euro = "€".encode()
    group = rows.group(0, BEGIN)
    first = rows.chunk(group, 0, [at(0), Output(data=b"1" + euro[:1]), at(100), Output(data=euro[1:2])])
    rows.chunk(group, len(first), [Output(data=euro[2:] + b"2\xff"), at(200), Output(data=b"\xe2\x82")])
    assert read(rows) == [[0.0, "o", "1"], [0.1, "o", "€2\ufffd"], [0.2, "o", "\ufffd"]]
    pages = read(rows, page_bytes=1)
    assert "".join(event[2] for event in pages) == "1€2\ufffd\ufffd"


def test_pages_of_any_size_say_the_same(rows: Rows) -> None:
    """However short its pages are, a recording has the same output at the same times, with each mark once."""
    group, position = rows.group(0, BEGIN), 0
    for number in range(20):
        events = [at(number * 150), Output(data=b"%d \x1b[1m\xc3" % number * 3_000), Output(data=b"\xa4\r\n" * 9)]
        position += len(rows.chunk(group, position, events))
    marks = [Mark(at=BEGIN + moment, label=str(moment)) for moment in (0, 10, 10, 155, 400, 2_849, 2_850, 9_000)]
    whole = read(rows, marks=marks)
    for page_bytes in (1, 50_000, 200_000):
        pages = read(rows, marks=marks, page_bytes=page_bytes)
        assert _joined(pages) == _joined(whole)
        assert [event for event in pages if event[1] == "m"] == [event for event in whole if event[1] == "m"]


def _joined(events: Sequence[list[Any]]) -> dict[float, str]:
    found: dict[float, str] = {}
    for time, kind, data in events:
        if kind == "o":
            found[time] = found.get(time, "") + data
    return found


def test_resizes_are_events(rows: Rows) -> None:
    """Another size is an event of its own; the same size is none."""
    film(rows, Resize(cols=80, rows=24), Output(data=b"a"), Resize(cols=132, rows=50), Output(data=b"b"))
    assert read(rows) == [[0.0, "o", "a"], [0.0, "r", "132x50"], [0.0, "o", "b"]]


@pytest.mark.parametrize(
    "output",
    [
        b"one\r\ntwo",
        b"\x1b[31mred",
        b"\x1b[5;10r\x1b[?25l\x1b[?7lmargins",
        b"text\x1b[?1049h\x1b[Hfull screen",
        b"text\r\n\x1b[?1049h\x1b[Hover\x1b[?1049l",
        b"unfinished \xe2\x82",
        b"\x1b]0;tit",
        b"line\r\n" * 40,
    ],
)
def test_dividers_are_drawn_as_the_emulator_draws_them(rows: Rows, output: bytes) -> None:
    """A player shows the divider, and what the next program prints, where the session's own screen has them."""
    half = len(output) // 2
    pieces = [Output(data=output[:half]), Output(data=output[half:])]
    film(rows, *pieces, Divider(text="started again"), Output(data=b"next\r\nprogram"))
    player, session = Emulator(80, 24), Emulator(80, 24)
    for _, kind, data in read(rows):
        assert kind == "o"
        player.feed(data.encode())
    session.feed(output)
    print_divider(session, "started again")
    session.feed(b"next\r\nprogram")
    assert player.screen("text") == session.screen("text")
    assert (player.cursor.row, player.cursor.column) == (session.cursor.row, session.cursor.column)


def test_a_gap_begins_again_with_a_key_frame(rows: Rows) -> None:
    """Where output is missing, the next key frame is drawn on a cleared screen, at its time and size."""
    rows.chunk(rows.group(0, BEGIN), 0, [Output(data=b"before \xe2")])
    group = rows.group(1_000, BEGIN + 9_000, (100, 30), b"key frame")
    rows.chunk(group, 1_000, [at(9_500), Output(data=b"!")])
    first, size, drawn, last = read(rows)
    assert first == [0.0, "o", "before \ufffd"]
    assert size == [9.0, "r", "100x30"]
    assert drawn[0] == 9.0
    assert drawn[2].endswith("key frame")
    assert last == [9.5, "o", "!"]
    player = Emulator(100, 30)
    player.feed((first[2] + drawn[2] + last[2]).encode())
    assert player.screen("text") == b"key frame!\n"


def test_groups_that_follow_each_other_are_not_drawn_again(rows: Rows) -> None:
    """A key frame behind which nothing is missing is not drawn."""
    data = rows.chunk(rows.group(0, BEGIN), 0, [Output(data=b"a")])
    rows.chunk(rows.group(len(data), BEGIN + 50, (80, 24), b"frame"), len(data), [Output(data=b"b")])
    assert read(rows) == [[0.0, "o", "ab"]]


def test_a_damaged_chunk_costs_the_rest_of_its_group(rows: Rows) -> None:
    """Behind a chunk that is damaged the recording goes on with the next key frame, and the damage is named."""
    group = rows.group(0, BEGIN)
    first = rows.chunk(group, 0, [Output(data=b"a" * 50)])
    second = rows.chunk(group, len(first), [Output(data=b"b" * 50)])
    third = rows.chunk(group, len(first + second), [Output(data=b"c" * 50)])
    end = len(first + second + third)
    rows.chunk(rows.group(end, BEGIN + 700, native=b"frame"), end, [Output(data=b"d")])
    rows.damage("chunks", 2)
    texts = "".join(event[2] for event in read(rows))
    assert texts.startswith("a" * 50)
    assert texts.endswith("framed")
    assert "bbb" not in texts
    assert "ccc" not in texts
    assert rows.damaged == ["row 2 of chunks: its checksum is another"]


def test_a_chunk_that_is_missing_costs_the_rest_of_its_group(rows: Rows) -> None:
    """What comes behind it was compressed with it as dictionary: it is not taken for what it is not."""
    group, position = rows.group(0, BEGIN), 0
    for letter in b"abc":
        position += len(rows.chunk(group, position, [Output(data=bytes([letter]) * 50)]))
    rows.connection.execute("DELETE FROM chunks WHERE seq = 2")
    assert read(rows) == [[0.0, "o", "a" * 50]]
    found = next(groups_from(rows.connection, ONE, 0, rows.note_damage))
    assert [part.start for part in parts_of(rows.connection, found, rows.note_damage)] == [0]
    assert rows.damaged == []


def test_until_ends_it(rows: Rows) -> None:
    """Output and marks behind `until` are left out."""
    film(rows, at(0), Output(data=b"a"), at(500), Output(data=b"b"), at(501), Output(data=b"c"))
    marks = [Mark(at=BEGIN + 400, label="in"), Mark(at=BEGIN + 600, label="out")]
    events = read(rows, until=BEGIN + 500, marks=marks)
    assert events == [[0.0, "o", "a"], [0.4, "m", "in"], [0.5, "o", "b"]]


def test_a_page_is_bounded(rows: Rows) -> None:
    """Of a record that is a mebibyte of control characters a page has only a part."""
    film(rows, Output(data=b"\x1b" * (1 << 20)))
    data, following = read_page(rows.connection, ONE, place(), until=None, marks=[], note_damage=rows.note_damage)
    assert len(data) < 2 << 20
    assert following is not None
    assert len(to_cursor(following)) < 200
    assert sum(len(event[2]) for event in read(rows)) == 1 << 20
