"""`history.lines`: pages of lines out of the rows of a database."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from history_rows import BEGIN, ONE, Rows
from orbit_protocol.results import HistoryPage
from orbitd.history.lines import MAX_LINE_CHARACTERS, read_page
from orbitd.history.text_blocks import NO_NUMBER


@pytest.fixture
def rows(tmp_path: Path) -> Iterator[Rows]:
    """An empty database of histories."""
    rows = Rows(tmp_path)
    yield rows
    rows.connection.close()


def page(rows: Rows, *, first: int | None = None, since: int | None = None, limit: int = 1_000) -> HistoryPage:
    return read_page(rows.connection, ONE, first=first, since=since, limit=limit, note_damage=rows.note_damage)


def numbers(found: HistoryPage) -> list[int]:
    return [line.line for line in found.lines]


def test_the_newest_lines_come_without_a_first_one(rows: Rows) -> None:
    """Without `first` the newest `limit` lines come, oldest first, over the edges of blocks, the tail included."""
    rows.text(range(10))
    rows.text(range(10, 20))
    rows.text(range(20, 24), tail=True)
    found = page(rows, limit=7)
    assert numbers(found) == [17, 18, 19, 20, 21, 22, 23]
    assert (found.first, found.total, found.oldest) == (17, 24, 0)
    assert found.lines[0].text == "line 17"


def test_pages_follow_each_other(rows: Rows) -> None:
    """Pages that each begin behind the one before have every line once."""
    rows.text(range(100))
    rows.text(range(100, 130))
    rows.text(range(130, 140), tail=True)
    found: list[int] = []
    while numbers_of_page := numbers(page(rows, first=len(found), limit=9)):
        found += numbers_of_page
    assert found == list(range(140))


@pytest.mark.parametrize(("first", "expected"), [(-3, [22, 23, 24]), (-24, list(range(1, 25))), (-(2**53), range(25))])
def test_a_negative_first_line_counts_from_the_end(rows: Rows, first: int, expected: Any) -> None:
    """A negative `first` is counted from the last line, and stops at the oldest."""
    rows.text(range(20))
    rows.text(range(15, 25), tail=True, text="tail {}")
    found = page(rows, first=first)
    assert numbers(found) == list(expected)
    assert found.lines[-1].text == "tail 24"


def test_a_line_that_has_left_the_screen_counts_once(rows: Rows) -> None:
    """A number that is in the tail and in another row is one line, and the other row has its text."""
    rows.text(range(20), text="left {}")
    rows.text(range(15, 25), tail=True, text="tail {}")
    texts = [line.text for line in page(rows, first=18).lines]
    assert texts == ["left 18", "left 19", "tail 20", "tail 21", "tail 22", "tail 23", "tail 24"]


def test_what_the_limits_have_dropped_is_not_there(rows: Rows) -> None:
    """The numbers of lines stay when older ones were dropped, and a page begins with the oldest that is kept."""
    rows.text(range(1_000, 1_010))
    found = page(rows, first=3, limit=2)
    assert numbers(found) == [1_000, 1_001]
    assert (found.first, found.oldest, found.total) == (1_000, 1_000, 1_010)


def test_a_hole_is_skipped(rows: Rows) -> None:
    """Missing lines between two blocks are skipped, forwards and from the end, and those behind keep their numbers."""
    rows.text(range(10))
    rows.text(range(500, 505))
    assert numbers(page(rows, first=8, limit=4)) == [8, 9, 500, 501]
    assert numbers(page(rows, first=100, limit=2)) == [500, 501]
    assert numbers(page(rows, first=-7)) == [8, 9, 500, 501, 502, 503, 504]


def test_lines_without_a_number_are_none_of_the_history(rows: Rows) -> None:
    """What full-screen programs have shown is not among the lines, in a block of its own and among others."""
    rows.text([0, NO_NUMBER, 1, NO_NUMBER, 2])
    rows.text([NO_NUMBER] * 5)
    rows.text([3, 4])
    rows.text([NO_NUMBER], tail=True)
    found = page(rows, first=-4)
    assert numbers(found) == [1, 2, 3, 4]
    assert found.total == 5


def test_since_begins_at_a_moment(rows: Rows) -> None:
    """`since` takes the first line that was shown then or later: in a block, in the tail, or none."""
    rows.text(range(10), at=BEGIN)
    rows.text(range(10, 20), at=BEGIN + 1_000)
    rows.text(range(20, 22), at=BEGIN + 2_000, tail=True)
    assert numbers(page(rows, since=BEGIN - 5, limit=1)) == [0]
    assert numbers(page(rows, since=BEGIN + 4, limit=1)) == [4]
    assert numbers(page(rows, since=BEGIN + 500, limit=1)) == [10]
    assert numbers(page(rows, since=BEGIN + 2_001)) == [21]
    assert numbers(page(rows, since=BEGIN + 9_000)) == []
    assert page(rows, since=BEGIN + 9_000).first == 22
    assert page(rows, since=BEGIN + 4).lines[0].at.timestamp() * 1_000 == BEGIN + 4  # type: ignore[union-attr]


def test_a_damaged_block_costs_its_lines(rows: Rows) -> None:
    """A block that does not fit its checksum is left out and named; those around it come."""
    for start in (0, 10, 20):
        rows.text(range(start, start + 10))
    rows.damage("texts", 2)
    assert numbers(page(rows, first=8, limit=4)) == [8, 9, 20, 21]
    assert rows.damaged == ["row 2 of texts: its checksum is another"]


def test_impossible_numbers_are_ignored(rows: Rows) -> None:
    """A row whose numbers are damaged changes neither where the history ends nor where it begins."""
    rows.text(range(10))
    rows.text(range(10, 20))
    rows.connection.execute("UPDATE texts SET next_line = 1 << 60 WHERE seq = 2")
    found = page(rows, limit=3)
    assert (numbers(found), found.total) == ([7, 8, 9], 10)


def test_a_session_without_text_has_no_lines(rows: Rows) -> None:
    """A session of which nothing is kept has an empty page; where all was dropped it says how many there were."""
    assert page(rows) == HistoryPage(lines=[], first=0, total=0, oldest=0)
    rows.connection.execute("INSERT INTO films VALUES (?, 0, 77, 0, 0, 0)", (ONE,))
    assert page(rows, first=5) == HistoryPage(lines=[], first=77, total=77, oldest=77)


def test_an_answer_is_bounded(rows: Rows) -> None:
    """A page has at most 8 MiB as JSON, whatever is in its lines; the next page has the rest."""
    rows.text(range(40), text="\x01" * 100_000)
    first = page(rows)
    assert 1 < len(first.lines) < 40
    assert len(msgspec.json.encode(first)) < 8 << 20
    assert numbers(page(rows, first=len(first.lines), limit=1)) == [len(first.lines)]


def test_a_line_that_is_too_long_is_cut(rows: Rows) -> None:
    """A line that no answer holds is cut, and the page is one that every JSON parser reads."""
    rows.text([0], text="\x01" * (MAX_LINE_CHARACTERS + 5))
    answer = msgspec.json.encode(page(rows))
    assert len(answer) < 8 << 20
    assert len(json.loads(answer)["lines"][0]["text"]) == MAX_LINE_CHARACTERS
