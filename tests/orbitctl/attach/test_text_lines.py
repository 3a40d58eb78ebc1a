"""The lines of text in what a terminal is sent."""

from __future__ import annotations

import re

import pytest

from orbitctl.attach.text_lines import TextLines, lines_of

COLS, ROWS = 20, 4
CASES = {
    "lines": (b"a\r\nb\r\n\r\nc", ["a", "b", ""], ["c"]),
    "more lines than rows": (b"a\r\nb\r\nc\r\nd\r\ne\r\nf\r\n", ["a", "b", "c", "d", "e", "f"], []),
    "a row that is full": (b"x" * 20 + b"\r\ny\r\n", ["x" * 20, "y"], []),
    "a line of several rows": (b"x" * 50 + b"\r\ny\r\n", ["x" * 50, "y"], []),
    "a line longer than the screen": (b"x" * 130 + b"\r\ny\r\n", ["x" * 130, "y"], []),
    "wide letters and marks": ("日本語\r\nce\u0301x\r\n".encode(), ["日本語", "ce\u0301x"], []),
    "wide letters at the edge": (("日" * 11 + "\r\n").encode(), ["日" * 11], []),
    "a progress bar": (b"10%\r20%\r100%\r\n", ["100%"], []),
    "a spinner": (b"|\b/\b-\b\x1b[Kdone\r\n", ["done"], []),
    "colours and titles": (b"\x1b[1;31mred\x1b[m \x1b]0;a\r\ntitle\x07ok\x1b(B\r\n", ["red ok"], []),
    "strings of other kinds": (b"a\x1bP1$r0m\x1b\\b\x1b_G\n\x1b\\c\r\n", ["abc"], []),
    "an edited line": (b"ac\x1b[D\x1b[@b\x1b[5Gxx\x1b[2D\x1b[P\r\n", ["abc x"], []),
    "a full-screen program": (b"a\r\n\x1b[?1049h\x1b[2Jvim\r\n~\r\n\x1b[?1049lb\r\n", ["a", "b"], []),
    "a screen that was cleared": (b"a\r\nb\r\n\x1b[H\x1b[2Jc\r\n", ["a", "b", "c"], []),
    "a line that is drawn over": (b"a\r\nb\r\n\x1b[2Ac\r\n\r\nd", ["a", "b"], ["d"]),
    "a line that is written anew": (b"1/2\r\n\x1b[A\x1b[2K2/2\r\n", ["1/2", "2/2"], []),
    "a scroll region": (b"\x1b[1;3ra\r\nb\r\nc\r\nd\r\n\x1b[r", ["a", "b", "c", "d"], []),
    "bytes that are no text": (b"a\xffb\r\n", ["a\ufffdb"], []),
    "sequences that are none": (b"a\x1b[1<2mb\x1b[1?25hc\x1b[2=3Hd\r\n", ["abcd"], []),
    "a string that another sequence ends": (b"a\x1b]0;title\x1b[1mb\r\n", ["ab"], []),
    "a tab": (b"a\tb\r\n", ["a       b"], []),
    "a letter that is repeated": (b"a\x1b[3b\r\n", ["aaaa"], []),
}


@pytest.mark.parametrize(("data", "complete", "rest"), CASES.values(), ids=CASES)
def test_lines_are_those_that_a_terminal_shows(data: bytes, complete: list[str], rest: list[str]) -> None:
    """Whole, byte by byte, and behind lines that scroll: what is complete comes at once, what is not at the end."""
    whole, pieces, scrolling = TextLines(COLS, ROWS), TextLines(COLS, ROWS), TextLines(COLS, ROWS)
    assert whole.feed(data) == complete
    assert [line for byte in data for line in pieces.feed(bytes([byte]))] == complete
    assert whole.finish() == pieces.finish() == rest
    many = [f"{number}" for number in range(10)]
    assert scrolling.feed("\r\n".join([*many, ""]).encode()) == many
    if not {b"\x1b[H", b"\x1b[1;3r"} & set(re.findall(rb"\x1b\[[0-9;]*[Hr]", data)):  # what goes to a certain row
        assert scrolling.feed(data) == complete


def test_lines_that_only_scroll_are_those_of_the_long_way() -> None:
    """The quick way for plain lines yields what one byte at a time does, and numbers rows alike."""
    data = b"".join(b"\x1b[32mline %d\x1b[m%s\r\n" % (n, b"." * (n % 19)) for n in range(200)) + b"end"
    quick, slow = TextLines(COLS, ROWS), TextLines(COLS, ROWS)
    lines = quick.feed(data)
    assert [line for byte in data for line in slow.feed(bytes([byte]))] == lines
    assert len(lines) == 200
    assert (quick.scrolled, quick.next_row(), quick.finish()) == (slow.scrolled, slow.next_row(), slow.finish())


def test_marks_on_one_letter_are_kept_in_bounds() -> None:
    """A flood of them is left out behind some, in one piece and in many; the letters behind them are whole."""
    flood = ("a" + "\u0301" * 5_000).encode()
    for pieces in ([flood, b"b\r\n"], [*(flood[at : at + 1] for at in range(len(flood))), b"b\r\n"]):
        lines = TextLines(COLS, ROWS)
        [line] = [line for piece in pieces for line in lines.feed(piece)]
        assert (line[-1], line.count("\u0301")) == ("b", 63)
    assert TextLines(COLS, ROWS).feed("日\u0301x\r\n".encode()) == ["日\u0301x"]


@pytest.mark.parametrize("start", [b"\x1bPq", b"\x1b_Gf=100;", b"\x1b]1337;File=:"])
def test_a_picture_in_a_string_is_no_text(start: bytes) -> None:
    """A string of any length is skipped, however it is cut: to its end, or to the next sequence where it has none."""
    lines = TextLines(COLS, ROWS)
    pieces = [start, *[b"#0!255~-" * 1000] * 30, b"\x1b", b"\\ok\r\n", start, b"\r\nx" * 30_000, b"\x1b[31mred\r\n"]
    assert [line for piece in pieces for line in lines.feed(piece)] == ["ok", "red"]


def test_a_picture_holds_history_and_screen() -> None:
    """Lines above the cursor are complete, with the row that each ends in; the rows below it are drawn to be filled."""
    picture = b"\x1b[Ha\r\n" + b"x" * 30 + b"\r\n" + b"\r\n" * (ROWS - 1) + b"\x1b[1;1Hc\x1b[2;1Hd\x1b[3;1H$ "
    lines = TextLines(COLS, ROWS)
    assert lines.draw(picture) == [(0, "a"), (2, "x" * 30), (3, "c"), (4, "d")]
    assert (lines.scrolled, lines.next_row()) == (3, 5)
    assert lines.feed(b"ls\r\n") == ["$ ls"]
    assert lines_of(picture, COLS, ROWS) == ["a", "x" * 30, "c", "d", "$"]


def test_a_line_without_an_end_is_broken_at_last() -> None:
    """What a program prints without a line feed is kept in bounds, and all of it is there."""
    data = b"x" * (3 << 18)
    lines = TextLines(COLS, ROWS)
    found = lines.feed(data) + lines.finish()
    assert len(found) == 3
    assert "".join(found).encode() == data
