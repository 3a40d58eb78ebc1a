"""A terminal in memory: what a film shows, and how it is drawn."""

from __future__ import annotations

import random

import pytest

from orbitctl.replay.screen import FilmScreen, draw_line, next_pen


def shown(text: str, cols: int = 10, rows: int = 4) -> list[str]:
    """Return the rows of a screen that was fed, without blank ones at the end."""
    screen = FilmScreen(cols, rows)
    screen.feed(text)
    lines = screen.text()
    while lines and not lines[-1]:
        lines.pop()
    return lines


CASES = {
    "text": ("ab\r\ncd", ["ab", "cd"]),
    "a line wraps at the edge": ("0123456789ab", ["0123456789", "ab"]),
    "and not before a character follows": ("0123456789\r\nab", ["0123456789", "ab"]),
    "nor without autowrap": ("\x1b[?7l0123456789ab", ["012345678b"]),
    "it scrolls": ("a\r\nb\r\nc\r\nd\r\ne", ["b", "c", "d", "e"]),
    "margins": ("a\r\nb\r\nc\r\nd\x1b[2;3r\x1b[3H\ne", ["a", "c", "e", "d"]),
    "origin mode": ("\x1b[2;3r\x1b[?6h\x1b[9;1Hx", ["", "", "x"]),
    "the cursor goes home": ("abc\x1b[HX", ["Xbc"]),
    "erased": ("abc\x1b[2;3Hd\x1b[1J\x1b[Hx", ["x"]),
    "to the end": ("abcdef\x1b[3D\x1b[K", ["abc"]),
    "inserted": ("abc\x1b[2G\x1b[2@", ["a  bc"]),
    "deleted": ("abcdef\x1b[2G\x1b[2P", ["adef"]),
    "cells erased": ("abcdef\x1b[2G\x1b[2X", ["a  def"]),
    "insert mode": ("abc\x1b[G\x1b[4hXY\x1b[4l", ["XYabc"]),
    "lines inserted": ("a\r\nb\x1b[H\x1b[L", ["", "a", "b"]),
    "lines deleted": ("a\r\nb\r\nc\x1b[H\x1b[M", ["b", "c"]),
    "tabs": ("a\tb", ["a       b"]),
    "repeated": ("a\x1b[3b", ["aaaa"]),
    "line drawing": ("\x1b(0lqk\x1b(B", ["┌─┐"]),
    "wide": ("日本", ["日本"]),
    "half of a wide one is overwritten": ("日本\x1b[2Gx", [" x本"]),
    "a wide one does not fit at the edge": ("012345678日", ["012345678", "日"]),
    "a mark joins its letter": ("e\u0301x", ["e\u0301x"]),
    "the alternate screen and back": ("main\x1b[?1049h\x1b[Halt\x1b[?1049l!", ["main!"]),
    "saved and restored": ("ab\x1b7\x1b[3;3Hc\x1b8d", ["abd", "", "  c"]),
    "reverse index": ("a\x1b[H\x1bMb", ["b", "a"]),
    "a full reset": ("abc\x1bcx", ["x"]),
    "a title is none of the text": ("\x1b]0;title\x07x", ["x"]),
    "nor the clipboard": ("\x1b]52;c;aGk=\x1b\\x", ["x"]),
    "nor a string that never ends": ("x\x1bPq#0;2;0;0;0", ["x"]),
    "nor a question": ("\x1b[c\x1b[6n\x1b[>q\x1b[?u\x1b[14tx", ["x"]),
}


@pytest.mark.parametrize("case", CASES)
def test_output_is_carried_out(case: str) -> None:
    """Whole, and character by character."""
    text, wanted = CASES[case]
    assert shown(text) == wanted
    screen = FilmScreen(10, 4)
    for character in text:
        screen.feed(character)
    assert screen.text()[: len(wanted)] == wanted


@pytest.mark.parametrize(
    ("before", "params", "pen"),
    [
        ("", "1", "1"),
        ("1 f31", "0", ""),
        ("1", "", ""),
        ("", "31;44", "f31 b44"),
        ("f31", "39", ""),
        ("1 2", "22", ""),
        ("", "38;5;200", "f38;5;200"),
        ("", "48:2::1:2:3", "b48;2;1;2;3"),
        ("", "38;2;1;2;3;1", "f38;2;1;2;3 1"),
        ("", "58;5;3;1", "1"),
        ("4", "4:0", ""),
        ("", "38;5;999", ""),
        ("", "38", ""),
        ("", "\u0661", ""),
    ],
)
def test_a_pen_is_what_sets_it(before: str, params: str, pen: str) -> None:
    """Colours and attributes add up, and go one by one."""
    assert next_pen(before, params) == pen


def test_a_row_is_drawn_with_its_pens() -> None:
    """Each from a plain pen; the rest of the row is erased."""
    screen = FilmScreen(10, 1)
    screen.feed("a\x1b[1;31mb\x1b[mc")
    assert draw_line(screen.line(0), 0, 10) == b"a\x1b[0;1;31mb\x1b[0mc\x1b[K"
    assert draw_line(screen.line(0), 1, 2) == b"\x1b[0;1;31mb\x1b[0mc"


def test_a_wide_character_that_the_edge_cuts_is_a_blank() -> None:
    """On both sides, and the cursor is put where the next cell is."""
    screen = FilmScreen(6, 1)
    screen.feed("日本語")
    assert draw_line(screen.line(0), 1, 4).decode() == " 本\x1b[4G\x1b[K"


def test_a_background_is_drawn_on_blank_cells() -> None:
    """Erasing takes the background's colour."""
    screen = FilmScreen(3, 1)
    screen.feed("\x1b[41m\x1b[2K")
    assert draw_line(screen.line(0), 0, 3) == b"\x1b[0;41m   \x1b[0m"


def test_the_title_is_kept() -> None:
    """Of OSC 0 and 2, cut to what a line can show."""
    screen = FilmScreen(10, 1)
    screen.feed("\x1b]2;" + "t" * 1_000 + "\x07")
    assert screen.title == "t" * 256


def test_another_size_keeps_the_cursors_row() -> None:
    """Rows go at the top where the cursor would be outside; lines are cut off."""
    screen = FilmScreen(4, 4)
    screen.feed("a\r\nb\r\nc\r\ndddd")
    screen.resize(2, 2)
    assert (screen.text(), screen.row) == (["c", "dd"], 1)
    screen.resize(3, 3)
    assert screen.text() == ["c", "dd", ""]


@pytest.mark.parametrize("seed", range(20))
def test_no_output_breaks_it(seed: int) -> None:
    """Each row keeps its number of cells, whatever comes, and the cursor stays within."""
    rng = random.Random(seed)
    finals = "ABCDEFGHIJKLMPSTXZ@`abdefghlmrsu"
    screen = FilmScreen(rng.randrange(1, 12), rng.randrange(1, 6))
    for _ in range(400):
        number = rng.choice(("", "0", "1", "2", "3", "7", "99999999999", "3;2", "?6", "?7", "?1049", "4", "1:2:3"))
        text = rng.choice(("ab", "日本", "e\u0301", "\u0301", "\n", "\r", "\t", "\b", "\x1bM", "\x1b7", "\x1b8"))
        sequence = f"\x1b[{number}{rng.choice(finals)}"
        screen.feed(rng.choice((text, sequence, "\x1b[", "\x1b]0;", "\x1b(0", "\x1bP", "\x07", "\x0e")))
        if rng.random() < 0.02:
            screen.resize(rng.randrange(1, 12), rng.randrange(1, 6))
        assert 0 <= screen.row < screen.rows
        assert 0 <= screen.col < screen.cols
        for row in range(screen.rows):
            line = screen.line(row)
            assert len(line.cells) == len(line.pens) == screen.cols
            draw_line(line, 1, 3)
