"""The child of a search, with real databases: what it finds, in which order, and how its cursors go on."""

from __future__ import annotations

import os
import random
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orbitd.history import search_child
from orbitd.history.search_messages import (
    MAX_FRAME,
    Done,
    Failed,
    Found,
    FromChild,
    Part,
    Position,
    Search,
    cursor_from_position,
    position_from_cursor,
)
from orbitd.history.text_blocks import BLOCK_BYTES, NO_NUMBER, Line
from orbitd.keeper.frames import Framer
from search_support import Filled

_decoder = msgspec.msgpack.Decoder(FromChild)


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[Filled]:
    """Return databases without sessions."""
    found = Filled(tmp_path)
    yield found
    found.connection.close()


@pytest.fixture
def ids(filled: Filled) -> list[str]:
    """Return the ids of three sessions."""
    return sorted(filled.session(f"s{number}") for number in range(3))


class Answered:
    """What a search has sent, and how it ended."""

    def __init__(self, parts: list[Part], end: Done | Failed) -> None:
        self.parts, self.end = parts, end
        self.hits: list[Found] = [hit for part in parts for hit in part.hits]
        self.texts = [hit.text for hit in self.hits]
        self.damaged = [each for part in parts for each in part.damaged]


def ask(filled: Filled, query: str, **how: Any) -> Answered:
    """Search, and return what comes."""
    options = {"regex": False, "case": "smart", "limit": 100, "seconds": 60.0, **how}
    search = Search(history=filled.history, sessions=filled.path, query=query, **options)
    ours, theirs = socket.socketpair()
    received: list[FromChild] = []

    def receive() -> None:
        framer = Framer(MAX_FRAME)
        while data := ours.recv(1 << 16):
            received.extend(_decoder.decode(payload) for payload in framer.receive(data))

    reader = threading.Thread(target=receive)
    reader.start()
    try:
        with theirs:
            end = search_child.answer(search, theirs)
    finally:
        reader.join()
        ours.close()
    return Answered([each for each in received if isinstance(each, Part)], end)


def all_pages(filled: Filled, query: str, **how: Any) -> list[Found]:
    """Return the hits of all pages; a cursor is passed on as clients have it."""
    found, before = [], None
    while True:
        page = ask(filled, query, before=before, **how)
        found += page.hits
        assert isinstance(page.end, Done)
        if page.end.position is None:
            return found
        before = position_from_cursor(cursor_from_position(page.end.position))


def numbered(texts: list[str], *, first: int = 0, at: int = 1000, step: int = 1) -> list[Line]:
    return [Line(number=first + index, at=at + index * step, text=text) for index, text in enumerate(texts)]


def screen(texts: list[str], at: int) -> list[Line]:
    return [Line(number=NO_NUMBER, at=at, text=text) for text in texts]


def test_hits_come_newest_first_over_all_sessions(filled: Filled) -> None:
    """The lines of two sessions come by their time, with number, name and time."""
    one, two = filled.session("one"), filled.session("two")
    filled.row(one, numbered(["x 1000", "no", "x 1020"], step=10))
    filled.row(two, numbered(["x 1005", "x 1015", "x 1025"], at=1005, step=10))
    found = ask(filled, "x")
    assert found.texts == ["x 1025", "x 1020", "x 1015", "x 1005", "x 1000"]
    hit = found.hits[1]
    assert (hit.session_id, hit.name, hit.at, hit.line) == (one, "one", 1020, 2)
    assert found.end == Done(position=None, complete=True)
    assert found.parts[-1].searched_bytes == len("x 1000\nno\nx 1020\n" + 3 * "x 1000\n")


def test_what_is_not_searched(filled: Filled) -> None:
    """Sessions in the trash, deleted ones, other sessions, labels and times are left out."""
    one, two = filled.session("one", labels={"team": "a"}), filled.session("two", labels={"team": "b"})
    gone = filled.session("gone", in_trash=True)
    for session_id in (one, two, gone, "unknown"):
        filled.row(session_id, numbered([f"x {session_id}", f"y {session_id}"]))
    assert {hit.session_id for hit in ask(filled, "x").hits} == {one, two}
    assert {hit.session_id for hit in ask(filled, "x", session_id=two).hits} == {two}
    assert {hit.session_id for hit in ask(filled, "x", labels={"team": "a"}).hits} == {one}
    assert ask(filled, "x", workspace_id="none").hits == []
    assert ask(filled, "x", since=1001).hits == []
    assert ask(filled, "x", until=1000).hits == []
    assert len(ask(filled, "x", since=1000, until=1001).hits) == 2


def test_a_line_of_the_tail_counts_once(filled: Filled) -> None:
    """A line that is in the tail and in a row of the history is found once; the rest of the tail too."""
    one = filled.session("one")
    filled.row(one, numbered(["x 0", "x 1", "x 2"]))
    filled.row(one, numbered(["x 2", "x 3"], first=2, at=5000), is_tail=True)
    assert [hit.line for hit in ask(filled, "x").hits] == [3, 2, 1, 0]
    assert [hit.line for hit in all_pages(filled, "x", limit=1)] == [3, 2, 1, 0]


def test_a_line_without_number_is_left_out_where_it_was_sent(filled: Filled) -> None:
    """What a full-screen program has shown several times is found once in a session, the newest."""
    one, two = filled.session("one"), filled.session("two")
    filled.row(one, [*screen(["x", "x y"], 1000), *screen(["x"], 2000)])
    filled.row(one, screen(["x"], 3000))
    filled.row(two, screen(["x"], 500))
    assert [(hit.session_id, hit.text, hit.at) for hit in ask(filled, "x").hits] == [
        (one, "x", 3000),
        (one, "x y", 1000),
        (two, "x", 500),
    ]


def test_context_is_of_neighbouring_lines(filled: Filled) -> None:
    """The lines around a hit are those with the next numbers, from other rows too, and those of the same picture."""
    one = filled.session("one")
    filled.row(one, numbered(["a", "b"]))
    filled.row(one, [*numbered(["x", "d"], first=2), *screen(["e", "X s", "f"], 1500), *numbered(["g"], first=4)])
    filled.row(one, screen(["other"], 1600), next_line=5)
    filled.row(one, numbered(["h", "i"], first=5, at=2000), is_tail=True)
    found = {hit.text: (hit.before, hit.after) for hit in ask(filled, "x", context=4).hits}
    assert found == {"X s": (["e"], ["f"]), "x": (["a", "b"], ["d", "g", "h", "i"])}


def test_context_across_blocks_as_long_as_they_become(filled: Filled) -> None:
    """The lines around the first and the last of a block are found, and around those at the borders of its pieces."""
    one, padding, lines = filled.session("one"), "-" * 90, BLOCK_BYTES // 80
    for first in range(0, 3 * lines, lines):
        filled.row(one, numbered([f"{first + n} {padding}" for n in range(lines)], first=first, at=first))
    for number in (lines, 2 * lines - 1, 2 * lines):
        (hit,) = ask(filled, f"{number} -", context=1).hits
        assert [text.split()[0] for text in (*hit.before, *hit.after)] == [str(number - 1), str(number + 1)]
    found = all_pages(filled, "9 -", context=1, limit=1000)
    assert len(found) == 3 * lines // 10
    assert all(hit.before and hit.after for hit in found)


def test_a_long_line_is_cut_around_the_match(filled: Filled) -> None:
    """Of a line of a megabyte the part around the match is sent."""
    one = filled.session("one")
    filled.row(one, numbered(["ä" * 600_000 + "needle" + "b" * 600_000, "needle"]))
    last, long = ask(filled, "needle").hits
    assert (last.text, len(long.text)) == ("needle", search_child.MAX_LINE + 2)
    assert "needle" in long.text
    assert (long.text[0], long.text[-1]) == ("\u2026", "\u2026")


def test_an_answer_is_bounded_and_goes_on(filled: Filled) -> None:
    """More text than an answer may have comes in pages, each line once; a single one that is longer comes alone."""
    one = filled.session("one")
    filled.row(one, numbered([f"x {number} {'y' * 1000}" for number in range(50)]))
    assert len(ask(filled, "x", max_bytes=10_000).hits) == 7
    assert [hit.line for hit in all_pages(filled, "x", max_bytes=10_000)] == list(range(49, -1, -1))
    assert [hit.line for hit in all_pages(filled, "x", max_bytes=10)] == list(range(49, -1, -1))


def test_a_block_in_pieces(filled: Filled) -> None:
    """A block of many megabytes is searched in pieces, and the numbers of its lines are right."""
    one = filled.session("one")
    filled.row(one, numbered([f"{'x' * 100} {number}" for number in range(60_000)]))
    assert [hit.line for hit in ask(filled, " 59$", regex=True).hits] == [59]
    assert [hit.line for hit in ask(filled, " 30001").hits] == [30_001]


def test_a_damaged_row_is_named_and_the_others_are_searched(filled: Filled) -> None:
    """A row whose checksum, compression or runs are wrong is reported; the search goes on."""
    one = filled.session("one")
    rows = [filled.row(one, numbered([f"x {number}"], first=number, at=1000 + number)) for number in range(4)]
    filled.connection.execute("UPDATE texts SET text = x'00' WHERE seq = ?", (rows[1],))
    filled.connection.execute("UPDATE texts SET runs = zeroblob(9) WHERE seq = ?", (rows[2],))
    found = ask(filled, "x")
    assert found.texts == ["x 3", "x 0"]
    assert found.damaged == [f"row {seq} of texts: its checksum is another" for seq in (rows[2], rows[1])]


def test_the_time_is_up(filled: Filled) -> None:
    """A search whose time is up ends with a cursor; with no time at all each page gets on, until all was found."""
    one = filled.session("one")
    for number in range(20):
        filled.row(one, numbered([f"x {number}"], first=number, at=1000 + number))
    page = ask(filled, "x", seconds=0.0)
    assert isinstance(page.end, Done)
    assert not page.end.complete
    rest = ask(filled, "x", before=page.end.position)
    assert page.texts + rest.texts == [f"x {number}" for number in range(19, -1, -1)]
    assert [hit.text for hit in all_pages(filled, "x", seconds=0.0)] == rest.texts


def test_what_cannot_be_searched(filled: Filled) -> None:
    """A query that is none is refused; a file that is no database is damage."""
    assert ask(filled, "(", regex=True).end == Failed(
        message="`query` is no regular expression: missing ), unterminated subpattern at character 1", reason="query"
    )
    filled.session("one")
    filled.connection.close()
    with open(filled.history, "wb") as file:
        file.write(b"no database" * 1000)
    end = ask(filled, "x").end
    assert isinstance(end, Failed)
    assert end.reason == "damage"
    os.unlink(filled.history)
    assert ask(filled, "x").end == Done(position=None, complete=True)
    assert isinstance(ask(filled, "(", regex=True).end, Failed)


@pytest.mark.parametrize("cursor", ["", "a", "====", "ä", "AAAAAAAA", "lA" * 60])
def test_a_cursor_that_no_page_gave(cursor: str) -> None:
    """What is no cursor is refused."""
    with pytest.raises(ValueError):
        position_from_cursor(cursor)


_BLOCKS = st.lists(
    st.tuples(
        st.integers(0, 2),  # the session
        st.booleans(),  # with numbers
        st.lists(st.tuples(st.integers(0, 6), st.sampled_from(["x", "x y", "z", "xx"])), min_size=1, max_size=6),
    ),
    max_size=12,
)


@given(blocks=_BLOCKS, limit=st.integers(1, 7), seed=st.integers(0, 1000))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_order_and_the_cursors(filled: Filled, ids: list[str], blocks: Any, limit: int, seed: int) -> None:
    """Pages of any size have each line once, newest first, while rows are added, joined and dropped."""
    filled.connection.execute("DELETE FROM texts")
    clock, lines = [100, 100, 100], [0, 0, 0]
    expected: dict[tuple[int, str, int], str] = {}
    rows: list[int] = []
    shown: list[tuple[int, str, str]] = []
    for which, has_numbers, texts in blocks:
        block = []
        for wait, text in texts:
            clock[which] += wait
            number = lines[which] if has_numbers else NO_NUMBER
            lines[which] += has_numbers
            block.append(Line(number=number, at=clock[which], text=text))
            if "x" in text and has_numbers:
                expected[clock[which], ids[which], number] = text
            elif "x" in text:
                shown.append((clock[which], ids[which], text))
        rows.append(filled.row(ids[which], block, next_line=lines[which]))
    whole = ask(filled, "x").hits
    assert [hit.at for hit in whole] == sorted((hit.at for hit in whole), reverse=True)
    with_numbers = [(hit.at, hit.session_id, hit.line) for hit in whole if hit.line != NO_NUMBER]
    assert with_numbers == sorted(expected, reverse=True)
    assert {(hit.session_id, hit.text) for hit in whole if hit.line == NO_NUMBER} <= {each[1:] for each in shown}
    paged = [(hit.at, hit.session_id, hit.line) for hit in all_pages(filled, "x", limit=limit)]
    assert [each for each in paged if each[2] != NO_NUMBER] == with_numbers
    assert paged == sorted(paged, reverse=True)

    # Turn one page, change what is stored, and turn the others.
    first = ask(filled, "x", limit=limit)
    assert isinstance(first.end, Done)
    if first.end.position is None or not rows:
        return
    rng = random.Random(seed)
    dropped = rng.choice(rows)
    gone = {
        (at, session_id, number) for at, session_id, number in expected if _is_in(filled, dropped, session_id, number)
    }
    filled.drop(dropped)
    filled.row(ids[0], numbered(["x new"], first=10_000, at=10_000))
    rest = list(first.hits)
    position: Position | None = first.end.position
    while position is not None:
        page = ask(filled, "x", limit=limit, before=position)
        rest += page.hits
        assert isinstance(page.end, Done)
        position = page.end.position
    found = [(hit.at, hit.session_id, hit.line) for hit in rest if hit.line != NO_NUMBER]
    sent = {(hit.at, hit.session_id, hit.line) for hit in first.hits}
    assert found == [each for each in with_numbers if each not in gone or each in sent]


def _is_in(filled: Filled, seq: int, session_id: str, number: int) -> bool:
    query = "SELECT 1 FROM texts WHERE seq = ? AND session_id = ? AND first_line <= ? AND next_line > ?"
    return filled.connection.execute(query, (seq, session_id, number, number)).fetchone() is not None
