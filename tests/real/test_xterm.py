"""What real programs draw, on xterm.js: as they drew it, and as orbit's repaint draws it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from attach_support import DETACH, SHELL, settled
from ctl_support import Orbitctl
from orbit_protocol.terminal_reset import ENTER, RESET
from orbitd.screens.emulator import Emulator
from orbitd.screens.messages import Framed
from orbitd.sessions.frames import draw
from real.capture import COLS, PROGRAMS, ROWS, furnish, record
from support import DaemonProcess
from terminal_support import frame_of
from xterm_support import Cell, XtermJs, XtermWindow

# Two are drawn in two ways: of bytes that are no UTF-8 xterm.js leaves out what libghostty shows as U+FFFD, and each
# half of a flag is one column wide for it and two for libghostty, whose columns a repaint keeps.
DRAWN_ALIKE = sorted(PROGRAMS.keys() - {"bytes that are no text", "wide characters and emoji"})


@pytest.mark.parametrize("name", DRAWN_ALIKE)
def test_a_repaint_is_what_the_program_drew(xterm: Callable[..., XtermJs], tmp_path: Path, name: str) -> None:
    """On xterm.js a repaint with its history has the same cells, wraps, cursor, margins and modes as the raw output."""
    furnish(tmp_path / "work")
    raw = record(PROGRAMS[name], tmp_path / "work")
    original, repainted = xterm(COLS, ROWS), xterm(COLS, ROWS)
    original.feed(raw)
    with Emulator(COLS, ROWS) as emulator:
        emulator.feed(raw)
        repainted.feed(b"text\x1b[?1049h\x1b[31m\x1b(0\x1b[5;9r\x1b[?6h\x1b[4h" + ENTER)
        repainted.feed(RESET + emulator.repaint(20_000))
    assert repainted.picture() == original.picture()


def test_wide_characters_are_drawn_alike(xterm: Callable[..., XtermJs]) -> None:
    """Characters of two columns, emoji and marks on characters are in the same cells, also at the edge of a row."""
    raw = "日本語 😀 e\u0301 ".encode() + b"x" * 14 + "한\u2713 👍|\r\nend".encode()
    original, repainted = xterm(30, 6), xterm(30, 6)
    original.feed(raw)
    with Emulator(30, 6) as emulator:
        emulator.feed(raw)
        repainted.feed(RESET + emulator.repaint())
    assert repainted.picture() == original.picture()


@pytest.mark.parametrize("name", DRAWN_ALIKE)
def test_frames_are_a_part_of_what_the_program_drew(xterm: Callable[..., XtermJs], tmp_path: Path, name: str) -> None:
    """A smaller window of xterm.js shows the cells of a part of the raw output on xterm.js, and scrolls nothing."""
    furnish(tmp_path / "work")
    raw = record(PROGRAMS[name], tmp_path / "work")
    original, window = xterm(COLS, ROWS), xterm(COLS // 2, ROWS // 2)
    original.feed(raw)
    shown: Framed | None = None
    with Emulator(COLS, ROWS) as emulator:
        window.feed(b"text\r\n" * 9 + b"\x1b[?1049h\x1b[31m\x1b(0\x1b[5;9r\x1b[?6h\x1b[4h")
        step = len(raw) // 20 + 1
        for start in range(0, len(raw), step):
            emulator.feed(raw[start : start + step])
            before, shown = shown, frame_of(emulator, COLS // 2, ROWS // 2, shown)
            window.feed(draw(shown, before))
    assert shown is not None
    assert [line.cells for line in window.cells()] == [
        cropped(line.cells, shown.left, COLS // 2)
        for line in original.cells()[-ROWS:][shown.top : shown.top + ROWS // 2]
    ]
    cursor = window.dump()["normal"]["cursor"]
    assert (cursor[0], cursor[1]) == (shown.column, shown.row)


def cropped(cells: tuple[Cell, ...], left: int, cols: int) -> tuple[Cell, ...]:
    """Return the columns of a row from `left` on; what is left of a wide character that is cut is a space."""
    part = list(cells[left : left + cols])
    if not part[0].width:
        part[0] = part[0]._replace(text=" ", width=1)
    if part[-1].width == 2:
        part[-1] = part[-1]._replace(text=" ", width=1)
    return tuple(part)


def test_a_question_is_answered_by_xterm(xterm: Callable[..., XtermJs]) -> None:
    """What xterm.js answers is handed out once, also where a question comes in pieces."""
    terminal = xterm(20, 5)
    terminal.feed(b"ab\x1b[6")
    assert terminal.answers() == b""
    terminal.feed(b"n\x1b[c")
    assert (terminal.answers(), terminal.answers()) == (b"\x1b[1;3R\x1b[?1;2c", b"")


def test_a_window_of_xterm_shows_a_session(xterm_modules: Path, daemon: DaemonProcess, home: Path) -> None:
    """What a shell prints is in the window, before and after a resize, and the history stays behind after a detach."""
    ctl = Orbitctl(home, daemon.environment)
    with XtermWindow(xterm_modules, ctl, "session", "run", "--", *SHELL) as window:
        settled(window)
        window.type("for i in {1..60}; do echo line $i; done; echo e''nd\r")
        window.until("end\r\n")
        assert [line for line in window.lines() if line.startswith("line ")] == [f"line {n}" for n in range(1, 61)]
        window.resize(100, 30)
        window.type("stty size; echo a''gain\r")
        window.until("30 100\r\nagain\r\n")
        window.type(DETACH)
        assert window.end() == 0
        assert window.xterm.dump()["size"] == [100, 30]
        assert "line 60" in window.lines()
