"""The numbers of lines: how many have left the screen, whatever was dropped, rewrapped or hidden since."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from orbitd.screens.emulator import Emulator, StateHeader


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """A terminal with a short history."""
    with Emulator(40, 10, max_scrollback_lines=1000) as emulator:
        yield emulator


def lines(first: int, last: int) -> bytes:
    return b"".join(b"line %d\r\n" % number for number in range(first, last))


def test_lines_that_leave_the_screen_are_counted(emulator: Emulator) -> None:
    """A screen of ten rows keeps nine lines and the cursor's empty one."""
    emulator.feed(lines(0, 5))
    assert emulator.history_line == 0
    emulator.feed(lines(5, 100))
    assert emulator.history_line == 91


def test_a_line_that_wraps_is_one(emulator: Emulator) -> None:
    """A resize rewraps rows; the number of the line at the top stays that of the same text."""
    emulator.feed(b"x" * 100 + b"\r\n" + lines(0, 50))
    assert emulator.history_line == 42
    rows = emulator.scrollback_rows
    emulator.resize(20, 10)
    assert (emulator.history_line, emulator.scrollback_rows > rows) == (42, True)


def test_lines_that_come_back_do_not_count(emulator: Emulator) -> None:
    """A taller screen takes lines out of the history again."""
    emulator.feed(lines(0, 50))
    emulator.resize(40, 20)
    assert emulator.history_line == 31
    emulator.resize(40, 10)
    assert emulator.history_line == 41


def test_dropped_lines_count(emulator: Emulator) -> None:
    """What was counted stays counted when the history drops its oldest rows, in one flood or in many."""
    for start in range(0, 200_000, 20_000):
        emulator.feed(lines(start, start + 20_000))
        assert emulator.history_line == start + 20_000 - 9
    assert emulator.scrollback_rows < 60_000


def test_erasing_the_history_goes_on_counting(emulator: Emulator) -> None:
    """The numbers only grow when a program erases the history or resets the terminal."""
    emulator.feed(lines(0, 100))
    before = emulator.history_line
    emulator.feed(b"\x1b[3J" + lines(0, 30))
    assert emulator.history_line >= before + 30
    before = emulator.history_line
    emulator.feed(b"\x1bc" + lines(0, 30))
    assert emulator.history_line >= before + 21


def test_the_alternate_screen_hides_the_numbers_only(emulator: Emulator) -> None:
    """A full-screen program has no history; the number is that of the screen behind it, also after a resize."""
    emulator.feed(lines(0, 100) + b"\x1b[?1049h" + lines(0, 300))
    assert emulator.history_line == 91
    emulator.feed(b"\x1b[?1049l" + lines(100, 200) + b"\x1b[?1049h")
    assert emulator.history_line == 191
    emulator.resize(40, 30)
    assert emulator.history_line == 171


@pytest.mark.parametrize("prefix", [b"", b"\x1b[?1049h"])
def test_a_repaint_has_what_follows_a_line(emulator: Emulator, prefix: bytes) -> None:
    """A window that has seen the history up to a line gets what follows; one that knows a later line gets all."""
    emulator.feed(lines(0, 100))
    seen = emulator.history_line
    emulator.feed(lines(100, 150) + prefix)

    def shown(after_line: int) -> list[str]:
        with Emulator(40, 10) as window:
            window.feed(emulator.repaint(1_000_000, after_line=after_line))
            window.feed(b"\x1b[?1049l")
            return window.screen("text", scrollback=True).decode().split("\n")

    assert shown(seen)[0] == f"line {seen}"
    assert shown(emulator.history_line)[0] == f"line {emulator.history_line}"
    assert shown(0)[0] == "line 0"
    assert shown(emulator.history_line + 1)[0] == "line 0"


def test_a_wrapped_line_is_seen_whole(emulator: Emulator) -> None:
    """What follows a line begins with a whole line, however many rows each takes."""
    emulator.feed(b"".join(b"%03d" % number + b"-" * 97 + b"\r\n" for number in range(50)))
    with Emulator(40, 10) as window:
        window.feed(emulator.repaint(1_000_000, after_line=40))
        assert window.screen("text", scrollback=True).decode().startswith("040-")


@pytest.mark.parametrize("prefix", [b"", b"\x1b[?1049h"])
def test_a_saved_state_goes_on_counting(emulator: Emulator, prefix: bytes) -> None:
    """The number is kept with a state, also of the screen behind an alternate one."""
    emulator.feed(lines(0, 100) + prefix)
    with Emulator.decode(emulator.encode()) as decoded:
        assert decoded.history_line == 91
        if prefix:
            decoded.feed(b"\x1b[?1049l")
        decoded.feed(lines(100, 200))
        assert decoded.history_line == 191


def test_no_line_gets_a_lower_number_again(emulator: Emulator) -> None:
    """A screen that goes on behind what could not be drawn counts from where that had come to."""
    emulator.count_from(500)
    emulator.feed(lines(0, 100))
    assert emulator.history_line == 591
    emulator.count_from(20)
    assert emulator.history_line == 591


def test_the_number_of_a_state_that_the_library_does_not_read() -> None:
    """It is in the header before the snapshot, so that the portable screen counts on."""
    assert StateHeader.of(StateHeader(history_line=7).to_bytes() + b"another version").history_line == 7
    assert StateHeader.of(b"GHOSTSNP of an older release").history_line == 0
    assert StateHeader.of(b"ORBIT\x01\0\0\0\x05nomap").history_line == 0
