"""The line between two programs: after it a terminal is as a fresh one, but for its text."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from orbitd.screens.divider import print_divider
from orbitd.screens.emulator import Emulator
from orbitd.screens.model import Screen
from orbitd.screens.repaint import MODES
from terminal_support import noise, play

LEFT_BEHIND = {
    "graphic characters": b"\x1b(0",
    "another set locked in": b"\x1b)0\x0e",
    "sets on the right": b"\x1b*0\x1b+0\x1bo\x1b|",
    "rows of a scroll region": b"\x1b[2;3r",
    "columns of a scroll region": b"\x1b[?69h\x1b[3;9s",
    "a region without its mode": b"\x1b[?69h\x1b[3;9s\x1b[?69l",
    "origin mode in a region": b"\x1b[2;3r\x1b[?6h",
    "kitty keyboard flags": b"\x1b[>1u\x1b[>5u",
    "kitty keyboard flags of the alternate screen": b"\x1b[?1049h\x1b[>5u",
    "modified keys": b"\x1b[>4;2m",
    "a cursor shape": b"\x1b[4 q",
    "colours": b"\x1b]4;1;rgb:1/2/3\x07\x1b]10;#f00\x07\x1b]11;#f00\x07\x1b]12;#f00\x07",
    "title and folder": b"\x1b]2;title\x07\x1b]7;file://host/tmp\x07",
    "a pen": b"\x1b[31;1;4:3m",
    "a protected pen": b'\x1b[1"q',
    "an open link": b"\x1b]8;;http://x\x07",
    "no tab stops": b"\x1b[3g",
    "a tab stop": b"\x1bH",
    "a saved cursor": b"\x1b[2;3H\x1b[31m\x1b7",
    "an unfinished sequence": b"\x1b[1",
    "an unfinished string": b"\x1b]2;title",
    "an unfinished character": b"\xe2\x98",
    **{f"mode {mode.name} set": mode.sequence(on=True).encode() for mode in MODES},
    **{f"mode {mode.name} reset": mode.sequence(on=False).encode() for mode in MODES},
}


def settings(emulator: Emulator) -> tuple[Screen, dict[str, object]]:
    """Return what a terminal is set to: all but its text and the cursor's row."""
    screen = emulator.dump()
    cursor = replace(screen.cursor, row=0)
    # The library tells ASCII that was asked for from that of the beginning; both print the same.
    extras = screen.extras.replace(b"\x1b(B\x1b)B\x1b*B\x1b+B", b"")
    return replace(screen, lines=(), cursor=cursor, extras=extras), emulator._terminal.changed_colors()


@pytest.mark.parametrize("what", LEFT_BEHIND)
def test_nothing_is_left_behind(what: str) -> None:
    """The next program finds every mode, charset, margin, flag and colour as a fresh terminal has it."""
    with Emulator(40, 6) as fresh, Emulator(40, 6) as used:
        used.feed(b"text " + LEFT_BEHIND[what])
        used.replies()
        print_divider(used, "x")
        used.feed(b"\x1b8")  # as a program that has saved no cursor
        assert settings(used) == settings(fresh)
        assert used.at_ground
        assert used.replies() == b""


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_left_behind_by_noise(seed: int) -> None:
    """The same holds after random output."""
    with play(noise(seed)) as used, Emulator(*used.size) as fresh:
        used.replies()
        print_divider(used, "x")
        used.feed(b"\x1b8")
        assert settings(used) == settings(fresh)
        assert used.replies() == b""


def test_the_text_stays_above_the_line() -> None:
    """The line is as wide as the screen, below the cursor; the cursor is at the beginning of the next one."""
    with Emulator(10, 4) as emulator:
        emulator.feed(b"1\r\n2\r\n3")
        print_divider(emulator, "x")
        assert emulator.screen(scrollback=True).decode().splitlines() == ["1", "2", "3", "-- x -----"]
        assert (emulator.cursor.row, emulator.cursor.column) == (3, 0)


def test_the_alternate_screen_is_left() -> None:
    """The line stands on the primary screen, behind what was there before the program."""
    with Emulator(10, 4) as emulator:
        emulator.feed(b"shell\x1b[?1049h\x1b[2Jediting")
        print_divider(emulator, "x")
        assert emulator.screen().decode().splitlines() == ["shell", "-- x -----"]


@pytest.mark.parametrize("mode", ["47", "1047", "1049"])
def test_a_screen_that_was_left_by_another_mode_is_not_erased(mode: str) -> None:
    """The flag of the alternate screen is reset, though it is not shown any more, and the text stays."""
    with Emulator(10, 4) as emulator:
        emulator.feed(f"\x1b[?{mode}h\x1b[?47l\x1b[?1047l\x1b[?{mode}h\x1b[?47lshell".encode())
        print_divider(emulator, "x")
        assert emulator.screen().decode().splitlines() == ["shell", "-- x -----"]
        assert not emulator.modes() & {"?47", "?1047", "?1049"}


def test_the_same_picture_makes_the_same_line() -> None:
    """A divider that is replayed from the journal gives the same screen again."""
    states = []
    for _ in range(2):
        with Emulator(30, 4) as emulator:
            emulator.feed(b"\x1b[31mprogram\x1b[?1h")
            print_divider(emulator, "restarted")
            states.append(emulator.encode())
    assert states[0] == states[1]
