"""Frames: what a window of another size shows of a screen, judged by an emulator that has the window's size."""

from __future__ import annotations

import random

import pytest

from orbitd.screens.emulator import Emulator
from orbitd.screens.messages import Framed
from orbitd.screens.model import PLAIN
from orbitd.sessions.frames import draw
from terminal_support import cells, frame_of, noise, part_of

SHAPE_AND_KEYS = ("20", "?1", "?5", "?66", "?2004", "?12", "?25")


class Viewer:
    """A window that is sent frames of a screen, and shows something else before."""

    def __init__(self, cols: int, rows: int) -> None:
        self.cols, self.rows = cols, rows
        self.emulator = Emulator(cols, rows)
        self.emulator.feed(
            b"\x1b[?1049h\x1b[?1003h\x1b[2;3r\x1b[?6h\x1b[4h\x1b[>5u\x1b[41mrubbish\x1b]2;left over\x07" * 9
        )
        self.frame: Framed | None = None

    def show(self, screen: Emulator) -> bytes:
        """Send it what differs, and return that."""
        frame = frame_of(screen, self.cols, self.rows, self.frame)
        data, self.frame = draw(frame, self.frame), frame
        self.emulator.feed(data)
        return data

    @property
    def offset(self) -> tuple[int, int]:
        """The first column and row that are shown."""
        assert self.frame is not None
        return self.frame.left, self.frame.top

    def text(self) -> list[str]:
        """Return the text of its rows."""
        return ["".join(text or " " for text, _, _ in row).rstrip() for row in cells(self.emulator)]


def assert_shows(viewer: Viewer, screen: Emulator) -> None:
    """Compare all that a window has of a screen."""
    assert cells(viewer.emulator) == part_of(screen, (viewer.cols, viewer.rows), *viewer.offset)
    cursor, own = screen.cursor, viewer.emulator.cursor
    assert (own.column + viewer.offset[0], own.row + viewer.offset[1]) == (cursor.column, cursor.row)
    assert (own.visible, own.shape, own.style) == (cursor.visible, cursor.shape, PLAIN)
    switched = screen.modes().intersection(SHAPE_AND_KEYS)
    assert viewer.emulator.modes() - {"12", "?7", "?1007"} == switched
    assert viewer.emulator.dump().keyboard == screen.dump().keyboard
    assert viewer.emulator.scrollback_rows == 0
    assert not viewer.emulator.alternate


@pytest.mark.parametrize("seed", range(20))
def test_frames_show_a_part_of_any_screen(seed: int) -> None:
    """Windows of any size show their part of any screen, cell by cell, where they skip frames too; nothing scrolls."""
    rng = random.Random(seed)
    operations = noise(seed)
    size = next(operations)
    assert isinstance(size, tuple)
    screen = Emulator(*size)
    viewers = [Viewer(*size) for size in ((1, 1), (7, 3), (30, 12), (79, 24), (150, 50))]
    for operation in operations:
        if isinstance(operation, tuple):
            screen.resize(*operation)
        else:
            screen.feed(operation.replace(b"\x1b[12", b""))
        for viewer in viewers:
            if rng.random() < 0.3:
                viewer.show(screen)
                assert_shows(viewer, screen)


def test_a_frame_without_changes_is_empty() -> None:
    """Nothing is sent for what looks the same, however it came about."""
    screen, viewer = Emulator(80, 24), Viewer(40, 10)
    screen.feed(b"hello")
    assert viewer.show(screen).startswith(b"\x18")
    screen.feed(b"\x1b[H\x1b[31m\x1b[mhel\x1b[;6H\x1b[?1003h\x1b]11;#ffffff\x07\x1b[20;70Hout of sight\x1b[;6H")
    assert viewer.show(screen) == b""


def test_a_difference_has_the_rows_that_differ() -> None:
    """One changed row is drawn by itself, inside a synchronized update; the first frame begins with the reset."""
    screen, viewer = Emulator(80, 24), Viewer(40, 10)
    screen.feed(b"one\r\ntwo\r\nthree")
    viewer.show(screen)
    screen.feed(b"\x1b[2;1Hsecond")
    data = viewer.show(screen)
    assert data.startswith(b"\x1b[?2026h")
    assert data.endswith(b"\x1b[?2026l")
    assert b"second" in data
    assert b"three" not in data
    assert viewer.text()[:3] == ["one", "second", "three"]


def test_the_part_follows_the_cursor_and_moves_no_further_than_it_has_to() -> None:
    """It stays while the cursor is in it, moves just so far otherwise, and never beyond the screen.

    To the left it moves as far as it can: a prompt is at the beginning of its line.
    """
    screen, viewer = Emulator(100, 30), Viewer(60, 15)
    offsets = []
    for place in (b"1;1", b"15;60", b"16;61", b"10;50", b"30;100", b"17;50", b"15;40", b"1;1", b"1;99", b"1;38"):
        screen.feed(b"\x1b[%bH" % place)
        viewer.show(screen)
        offsets.append(viewer.offset)
    assert offsets == [(0, 0), (0, 0), (1, 1), (1, 1), (40, 15), (40, 15), (0, 14), (0, 0), (39, 0), (0, 0)]


def test_a_screen_that_becomes_small_is_shown_whole() -> None:
    """A window that becomes larger than the session shows all of it at the top left, and nothing else."""
    screen, viewer = Emulator(100, 30), Viewer(60, 15)
    screen.feed(b"text" * 700)
    viewer.show(screen)
    screen.feed(b"\x1b[2J\x1b[Htext")
    screen.resize(20, 4)
    viewer.show(screen)
    assert viewer.offset == (0, 0)
    assert viewer.text() == ["text", *[""] * 14]


def test_title_and_bell_are_passed_on() -> None:
    """The title comes when it changes; the bell once for all that has rung in between, and not for what rang before."""
    screen, viewer = Emulator(80, 24), Viewer(40, 10)
    screen.feed(b"\a\x1b]2;a title\x07")
    first = viewer.show(screen)
    assert viewer.emulator.title == "a title"
    screen.feed(b"\a\a\a")
    rung, quiet = viewer.show(screen), viewer.show(screen)
    assert [first.count(b"\a"), rung.count(b"\a"), quiet] == [0, 1, b""]
    screen.feed(b"\x1b]2;\x07")
    viewer.show(screen)
    assert viewer.emulator.title == ""


def test_rows_are_read_once_for_all_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A screen that has not changed is read once, whichever windows ask for parts of it."""
    screen = Emulator(80, 24)
    screen.feed(b"text\r\n" * 10)
    read = list[tuple[int, int]]()
    rows = screen._terminal.rows
    monkeypatch.setattr(screen._terminal, "rows", lambda first, last: read.append((first, last)) or rows(first, last))
    for cols in (10, 20, 30):
        screen.frame(cols, 10)
        screen.frame(cols, 100)
    assert read == [(1, 11), (0, 24)]
    screen.feed(b"more")
    screen.frame(10, 10)
    assert read[2:] == [(1, 11)]
