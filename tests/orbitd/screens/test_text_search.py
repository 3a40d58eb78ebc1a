"""Texts in a program's output, fed in pieces of every size."""

from __future__ import annotations

import re

import pytest

from orbitd.screens.messages import Unwatch, Watch
from orbitd.screens.text_search import MAX_LINE_BYTES, PrintedText, TextSearch, line_at
from terminal_support import noise

LINES = {
    "plain": (b"Listening on 127.0.0.1:80\r\n", "Listening on 127.0.0.1:80"),
    "coloured": (b"\x1b[1;32mListening\x1b[m on \x1b[38:2::1:2:3m127.0.0.1\x1b[0;1m:80\x1b[K\x1b[m\n", None),
    "in charsets": (b"\x1b(BListen\x0fing \x1b)0on 127.0.0.1:80\n", None),
    "beside modes": (b"\x1b[?2004lListening on\x1b[?25h 127.0.0.1:80\x1b[6n\n", None),
    "beside a title": (b"\x1b]0;title\x07Listening on \x1b]2;title\x1b\\127.0.0.1:80\n", None),
    "a link": (b"\x1b]8;;http://x\x1b\\Listening on 127.0.0.1:80\x1b]8;;\x1b\\\n", None),
    "beside strings": (b"\x1bP+q544e\x1b\\Listening on \x1b_Gdata\x1b\\127.0.0.1:80\n", None),
    "a tab": (b"Listening\ton\t127.0.0.1:80\n", None),
    "a bell": (b"Listening\x07 on\x00 127.0.0.1:80\n", None),
    "between lines": (b"before\r\nListening on 127.0.0.1:80\x1b[2J\x1b[Hbehind\n", None),
    "overwritten": (b"Listening on 127.0.0.1:80\rbehind   \n", None),
    "behind an aborted string": (b"\x1b]0;abc\x18Listening on 127.0.0.1:80\n", None),
    "behind two strings": (b"\x1b]0;abc\x1b]2;x\x07Listening on 127.0.0.1:80\n", None),
    "behind a string without an end": (b"\x1b]0;abc\x1b[mListening on 127.0.0.1:80\n", None),
}


def found(data: list[bytes], pattern: bytes = b"Listening on") -> str | None:
    """Return the line that a text is found in."""
    printed, line = PrintedText(), None
    for number, piece in enumerate(data):
        printed.feed(piece)
        line = line or printed.find([pattern], is_all=number == len(data) - 1).get(pattern)
    return line


@pytest.mark.parametrize("name", LINES)
def test_a_text_is_found_however_it_is_split(name: str) -> None:
    """In the line that it is printed in, without what only changes how it looks, whole and split at every byte."""
    data, line = LINES[name]
    expected = line or "Listening on 127.0.0.1:80"
    assert found([data]) == expected
    for cut in range(len(data)):
        assert found([data[:cut], data[cut:]]) == expected
    assert found([data[index : index + 1] for index in range(len(data))]) is not None


@pytest.mark.parametrize(
    "data",
    [b"Listening\non", b"Listening\x1b[5;5H on", b"Listening \x08on", b"\x1b]0;Listening on\x07", b"\x1bPListening on"],
)
def test_a_text_is_not_found_over_what_moves_the_cursor(data: bytes) -> None:
    """Pieces that do not stand beside each other are no text, and neither is what is in a title or another string."""
    for cut in range(len(data)):
        assert found([data[:cut], data[cut:], b"\n"]) is None


def test_noise_is_the_same_however_it_is_split() -> None:
    """Random bytes and sequences give the same text in one piece and byte by byte."""
    for seed in range(50):
        data = b"".join(each for each in noise(seed) if isinstance(each, bytes))
        whole, single = PrintedText(), PrintedText()
        whole.feed(data)
        for index in range(len(data)):
            single.feed(data[index : index + 1])
        assert re.sub(b"\n+", b"\n", whole._text) == re.sub(b"\n+", b"\n", single._text), seed


def test_a_line_is_answered_whole_if_it_comes() -> None:
    """A line whose end has not come yet waits for it while there is more output, and no longer."""
    printed = PrintedText()
    printed.feed(b"Listening on")
    assert printed.find([b"on"], is_all=False) == {}
    printed.feed(b" 80\nmore")
    assert printed.find([b"on", b"nothing"], is_all=False) == {b"on": "Listening on 80"}
    printed.feed(b" and mo")
    assert printed.find([b"more and"], is_all=True) == {b"more and": "more and mo"}


def test_a_line_without_an_end_is_bounded() -> None:
    """What is kept of it is as long as the longest text twice over; a text over the border of pieces is found."""
    printed = PrintedText()
    for _ in range(40):
        printed.feed(b"x" * 10_000)
        assert printed.find([b"xy"], is_all=False) == {}
        assert len(printed._text) <= MAX_LINE_BYTES
    printed.feed(b"y" * 60_000)
    line = printed.find([b"xy"], is_all=False)[b"xy"]
    assert len(line) <= 2 * MAX_LINE_BYTES
    printed.feed(b"\x1b]52;c;" + b"A" * 100_000)
    printed.feed(b"A" * 100_000)
    assert len(printed._text) + len(printed._unfinished) <= MAX_LINE_BYTES


def test_a_found_line_is_text() -> None:
    """Bytes that are no UTF-8 are replaced, and control characters of a screen's line left out."""
    assert line_at(b"one\ntwo \xff\xc2\x9b3  \nfour", 5) == "two \ufffd3"


def watch(number: int, pattern: str, since: int = 0) -> Watch:
    """Return a call that waits for a text."""
    return Watch(number=number, session="one", pattern=pattern, since=since)


def test_a_search_begins_at_its_position() -> None:
    """What is on the screen there counts, with the line that the cursor is in; what was printed before does not."""
    search = TextSearch()
    search.update(watch(1, "old"))
    assert search.look(0, b"", b"") == []
    assert search.feed(b"older\n", is_all=True) == [([1], "older")]
    assert not search
    search.update(watch(2, "old", since=10))
    assert (search.begins_at(9), search.begins_at(10), bool(search)) == (False, True, True)
    assert search.feed(b"old\n", is_all=True) == []
    assert search.look(10, b"new\nListen", b"Listen") == []
    search.update(watch(3, "Listening", since=10))
    assert search.look(10, b"new\nListen", b"Listen") == []
    assert search.feed(b"ing on 80\nold\n", is_all=True) == [([2], "old"), ([3], "Listening on 80")]


def test_one_search_serves_all_that_wait_for_a_text() -> None:
    """Calls that wait for the same are answered together, each once; one that is gone is answered no more."""
    search = TextSearch()
    for number in range(1, 6):
        search.update(watch(number, "x"))
    search.update(watch(9, "y"))
    search.update(Unwatch(session="one", number=2))
    search.look(0, b"", b"")
    search.update(Unwatch(session="one", number=4))
    assert search.is_due is False
    assert search.feed(b"x y", is_all=True) == [([1, 3, 5], "x y"), ([9], "x y")]
    search.update(watch(10, "z"))
    search.look(0, b"", b"")
    search.feed(b"a", is_all=True)
    assert search.is_due
    search.update(Unwatch(session="one", number=10))
    assert not search
    assert not search.is_due
