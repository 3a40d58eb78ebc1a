"""What is done to a window before a picture is drawn on it; one emulator is the window, another the session's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from orbit_protocol.terminal_reset import RESET, RESET_IN_USE, TO_PRIMARY
from orbitctl.attach.connection import Notice
from orbitctl.attach.output_filter import OutputFilter
from orbitctl.attach.window import Window, rows_of_text, scroll_up
from orbitd.screens.emulator import Emulator

SIZE = (20, 6)


class Both:
    """A session, and a window that shows it."""

    def __init__(self, users: bytes = b"") -> None:
        self.session, self.shown = Emulator(*SIZE), Emulator(*SIZE)
        self.window = Window("`how`")
        self.filter = OutputFilter()
        self.shown.feed(users)

    def first(self, cursor: tuple[int, int] | None) -> None:
        picture = RESET + self.session.repaint()
        self.shown.feed(self.filter.receive(self.window.draw_first(picture, 0, self.shown.size, cursor)))

    def print(self, output: bytes) -> None:
        """Let the program print, and the window show it."""
        self.session.feed(output)
        was_alternate = bool(self.filter.alternate)
        shown = self.filter.receive(output)
        self.shown.feed(shown)
        self.window.count(shown, is_alternate=was_alternate)

    def resize(self, cols: int, rows: int, *, answers: bool) -> None:
        self.shown.resize(cols, rows)
        self.session.resize(cols, rows)
        cursor = self.shown.cursor
        self.repaint("resized", (cursor.row, cursor.column) if answers else None)

    def repaint(self, reason: str, cursor: tuple[int, int] | None = None, **more: Any) -> bytes:
        notice = Notice(
            data=RESET + self.session.repaint(),
            reason=reason,
            cursor_row=self.session.cursor.row,
            history_line=self.session.history_line,
            **more,
        )
        data = self.window.draw(notice, self.shown.size, cursor, self.filter.alternate)
        self.shown.feed(self.filter.receive(data))
        return data

    def text(self) -> list[str]:
        return self.shown.screen("text", scrollback=True).decode().rstrip("\n").split("\n")


@pytest.fixture
def both() -> Iterator[Both]:
    made = Both(b"mine 1\r\nmine 2\r\n$ orbitctl\r\n")
    yield made
    made.session.close()
    made.shown.close()


def printed(first: int, last: int) -> bytes:
    return b"".join(b"line %d\r\n" % number for number in range(first, last + 1))


def test_as_many_rows_go_up_as_the_users_text_takes(both: Both) -> None:
    """With the cursor known no blank line comes into the history, and no line of the user's is lost."""
    both.first((3, 0))
    both.print(b"hello")
    assert both.text() == ["mine 1", "mine 2", "$ orbitctl", "hello"]


def test_a_line_with_the_cursor_in_it_is_text(both: Both) -> None:
    """Where the cursor is not in the first column its row goes up, too."""
    both.shown.feed(b"half a line")
    both.first((3, 11))
    assert both.text()[:4] == ["mine 1", "mine 2", "$ orbitctl", "half a line"]


def test_without_an_answer_the_whole_screen_goes_up(both: Both) -> None:
    """Blank lines are better than lost ones."""
    both.first(None)
    both.print(b"hello")
    assert both.text() == ["mine 1", "mine 2", "$ orbitctl", "", "", "", "hello"]


@pytest.mark.parametrize("answers", [True, False])
@pytest.mark.parametrize("size", [(20, 3), (20, 12), (7, 6), (40, 9), (9, 14), (40, 3)])
def test_a_resize_loses_no_line(both: Both, size: tuple[int, int], answers: bool) -> None:
    """All lines are there after the window has rewrapped them, the user's own too, which come down into it."""
    both.first((3, 0))
    both.print(printed(1, 9))
    both.resize(*size, answers=answers)
    both.print(printed(10, 12))
    both.resize(*SIZE, answers=answers)
    lines = [line for line in both.text() if line]
    assert [line for line in lines if line in ("mine 1", "mine 2", "$ orbitctl")] == lines[:3]
    assert set(lines[3:]) == {f"line {number}" for number in range(1, 13)}
    if answers:
        assert len(lines) == 3 + 12


def test_the_hidden_screen_stays_as_it_is_until_it_is_shown(both: Both) -> None:
    """A resize under a full-screen program draws that alone; behind it the primary screen is drawn again."""
    both.first((3, 0))
    both.print(printed(1, 9) + b"\x1b[?1049h\x1b[2J\x1b[Hfull")
    both.resize(20, 9, answers=True)
    assert both.window.is_primary_stale
    assert both.shown.alternate
    assert both.shown.screen("text").decode().strip() == "full"
    both.session.feed(b"\x1b[?1049l" + printed(10, 12))
    both.shown.feed(both.filter.receive(b"\x1b[?1049l"))
    picture = RESET + both.session.repaint(1000, after_line=both.window.after_line)
    both.shown.feed(both.window.draw_again(picture, 0, (20, 9), is_alternate=False))
    lines = [line for line in both.text() if line]
    assert lines[:3] == ["mine 1", "mine 2", "$ orbitctl"]
    assert set(lines[3:]) == {f"line {number}" for number in range(1, 13)}
    assert not both.window.is_primary_stale


def test_a_resize_on_the_alternate_screen_does_not_leave_it(both: Both) -> None:
    """What is written then begins with the reset of the screen in use."""
    both.first((3, 0))
    both.print(b"\x1b[?1049hfull")
    data = both.repaint("resized")
    assert data.startswith(RESET_IN_USE)
    assert b"?1049" not in data


def test_lines_that_were_left_out_are_told(both: Both) -> None:
    """What the window shows is kept, and one line in the history says how many are missing behind it."""
    both.first((3, 0))
    both.print(printed(1, 9))
    before = both.session.history_line
    both.session.feed(printed(10, 30))
    both.repaint("behind", lost_lines=both.session.history_line - before)
    lines = [line for line in both.text() if line]
    assert lines[3:12] == [f"line {number}" for number in range(1, 10)]
    assert "".join(lines[12:14]) == "[15 lines are not here; `how`]"
    assert lines[-5:] == [f"line {number}" for number in range(26, 31)]


def test_few_lines_that_were_left_out_are_all_there(both: Both) -> None:
    """Where all of them stand in the window still, nothing is said."""
    both.first((3, 0))
    both.print(printed(1, 9))
    before = both.session.history_line
    both.session.feed(printed(10, 12))
    both.repaint("behind", lost_lines=both.session.history_line - before)
    assert [line for line in both.text() if line][3:] == [f"line {number}" for number in range(1, 13)]


def test_frames_are_no_lines_of_the_session(both: Both) -> None:
    """The screen before the first frame is kept; frames are not, and the lines that passed behind them are told."""
    both.first((3, 0))
    both.print(printed(1, 4))
    frame = Notice(data=RESET + b"a part", reason="frame", history_line=0)
    both.shown.feed(both.window.draw(frame, SIZE, None, 0))
    assert both.window.is_frame
    difference = Notice(data=b"\x1b[?2026h\x1b[Hanother\x1b[?2026l", reason="frame", history_line=9)
    assert both.window.draw(difference, SIZE, None, 0) == difference.data
    both.session.feed(printed(5, 14))
    both.repaint("resized")
    lines = [line for line in both.text() if line]
    assert lines[3:7] == [f"line {number}" for number in range(1, 5)]
    assert "another" not in lines
    assert lines[7] == "[9 lines are not here; `how`]"[:20]
    assert not both.window.is_frame


def test_the_alternate_screen_is_left_only_where_it_is_in_use(both: Both) -> None:
    """Else tmux would move the cursor to where one was saved once."""
    both.first((3, 0))
    assert both.repaint("resized", (0, 0)).startswith(RESET)
    both.print(b"\x1b[?47h")
    both.session.feed(b"\x1b[?47l")
    assert both.repaint("refreshed").startswith(TO_PRIMARY)


def test_lines_shown_since_count_for_a_new_attachment(both: Both) -> None:
    """A new attachment asks for what may have left the screen since the last output, and not for all again."""
    both.first((3, 0))
    both.print(printed(1, 100))
    assert both.window.after_line == both.session.history_line == 95


def test_left_and_shown_again_counts_no_line_twice(both: Both) -> None:
    """The daemon tells where its history was at the leave; what was counted before is in that."""
    both.first((3, 0))
    both.print(printed(1, 100))
    assert both.window.leave(both.session.history_line) == 95
    assert both.window.after_line == 95


def test_no_more_rows_go_up_than_there_are() -> None:
    """A position beyond the screen is that of its last row."""
    assert scroll_up(100, 6).count(b"\n") == 6
    assert scroll_up(0, 6) == scroll_up(-1, 6) == b""


@pytest.mark.parametrize(
    ("text", "rows"), [("", 0), ("\n\n", 0), ("a", 1), ("a\n\nb\n\n", 3), ("x" * 20, 1), ("x" * 21, 2), ("好" * 11, 2)]
)
def test_rows_of_wrapped_lines_are_counted(text: str, rows: int) -> None:
    """The screen's text has a line that wraps as one; in the window it takes several rows."""
    assert rows_of_text(text, 20) == rows


def test_a_picture_in_a_window_that_was_smaller_already_is_drawn_again(both: Both) -> None:
    """What it had is all asked for once more, and nothing on the screen is taken for lines of it."""
    both.first((3, 0))
    both.print(printed(1, 9))
    both.shown.resize(20, 3)
    both.repaint("resized", (2, 0))  # for six rows, four of which are drawn over each other
    both.window.distrust(6)
    line = both.window.after_line
    assert line == both.window.leave(100) == 0
    both.session.resize(20, 3)
    picture = RESET + both.session.repaint(1000, after_line=line)
    both.shown.feed(both.window.draw_again(picture, line, (20, 3), is_alternate=False))
    lines = [text for text in both.text() if text]
    assert lines[:3] == ["mine 1", "mine 2", "$ orbitctl"]
    assert set(lines[3:]) == {f"line {number}" for number in range(1, 10)}


@pytest.mark.parametrize("cursor", [(3, 0), None])
def test_a_window_that_becomes_a_viewer_keeps_what_it_shows(cursor: tuple[int, int] | None) -> None:
    """Before the first frame what is on the screen moves up, as far as it goes; what has scrolled counts as shown."""
    both = Both()
    both.first((0, 0))
    both.print(b"".join(b"line %d\r\n" % number for number in range(20)))
    row = both.shown.cursor.row
    notice = Notice(data=RESET + b"part", reason="frame", history_line=0)
    assert both.window.asks_cursor(notice, is_alternate=False)
    data = both.window.draw(notice, SIZE, None if cursor is None else (row, 0), 0)
    assert data == scroll_up(SIZE[1] if cursor is None else row + 1, SIZE[1]) + notice.data
    assert both.window.history_line == both.session.history_line
    difference = Notice(data=b"\x1b[1;1Hmore", reason="frame", history_line=0)
    assert not both.window.asks_cursor(difference, is_alternate=False)
    assert both.window.draw(difference, SIZE, None, 0) == difference.data
