"""Draws a session in the user's terminal, so that nothing is lost that stands or stood there.

What has to be done before a picture (`Window` knows it) can depend on where the terminal's cursor is. So a picture may
wait until the terminal has answered that, and whatever comes behind it waits too: `is_waiting`. Each picture is drawn
for one size, and the terminal may have another one already, as in the middle of a drag. Where that is noticed before,
the picture waits until the kernel knows the size, and is dropped then, since another one comes. Where it is noticed
behind it, all that it had is drawn once more: `paint` and `settle` return True if a new attachment is needed.
"""

from __future__ import annotations

import os
import re
import select
import time
from collections import deque
from typing import NamedTuple

from orbit_protocol.terminal_reset import LINES_UP
from orbitctl.attach.connection import Notice
from orbitctl.attach.cursor_question import CursorQuestion, Place, Position
from orbitctl.attach.terminal import Terminal
from orbitctl.attach.window import Window

LAG_SECS = 0.3
"""A terminal may have had its new size for so long when it reports it: tmux does so after a quarter of a second."""

MAX_MEASURED_BYTES = 16 * 1024
"""Output beyond that takes as many rows as there are."""

RETRY_SECS = 0.1
"""After so long the terminal is asked again for its size."""

MAX_LATE = 5
"""So often in a row a picture is not drawn, or drawn once more, before a size is reported. Then it is drawn."""


class Expected(NamedTuple):
    """What a terminal should answer about a picture that has just been drawn.

    Attributes:
        size: The size that it had when the picture began.
        row: The cursor's row behind it; None for any.
    """

    size: tuple[int, int]
    row: int | None

    def is_met(self, place: Place) -> bool:
        """Return whether it has answered that."""
        return place.size == self.size and (self.row is None or place.cursor is None or place.cursor[0] == self.row)


_SEQUENCE = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-Z\\^_`a-~])")


class Painter:
    """Draws in one terminal.

    Args:
        terminal: The terminal, in raw mode.
        window: What it shows; the painter keeps it up to date.
    """

    def __init__(self, terminal: Terminal, window: Window) -> None:
        self._terminal, self._window = terminal, window
        self._cursor = CursorQuestion()
        self._is_users = True  # what the window shows is the user's
        self._users: Place | None = None
        self._waiting: Notice | None = None
        self._expected: Expected | None = None
        self._late = 0  # how often in a row the terminal has had another size than a picture
        self._retry_at: float | None = None  # when the one that waits is tried again
        self._shown: deque[tuple[float, bytes | None]] = deque()  # output of the last moment; None for much
        self._is_leaving = False
        self._is_behind = False  # a picture was dropped that had more than what was shown before it

    @property
    def is_waiting(self) -> bool:
        """Whether a picture waits for the terminal's answer: what comes behind it is not shown before."""
        return self._waiting is not None

    @property
    def is_stale(self) -> bool:
        """Whether the program is back on a primary screen that was resized while it was hidden.

        What it has printed there since was not shown, and comes with the picture of a new attachment.
        """
        return self._window.is_primary_stale and not (self._terminal.output_filter.alternate or self._is_leaving)

    # The user's terminal is asked

    def take_over(self) -> None:
        """Begin with a terminal that shows what is the user's: ask where its cursor is."""
        if self._expected is not None:
            self._window.distrust(self._terminal.size[1])
        self._window.leave_all()
        self._is_users, self._users = True, None
        self._waiting = self._expected = self._retry_at = None
        self._is_leaving = self._is_behind = False
        if os.environ.get("TERM", "dumb") != "dumb" and self._terminal.is_in_foreground:
            self._terminal.write(self._cursor.first(time.monotonic(), self._terminal.size))

    @property
    def deadline(self) -> float | None:
        """When `give_up` is due, on the monotonic clock; None while nothing is asked or waits."""
        return self._retry_at if self._cursor.deadline is None else self._cursor.deadline

    @property
    def is_answered(self) -> bool:
        """Whether the answer has come, so that `settle` is due."""
        return self._cursor.is_answered

    def receive(self, data: bytes, now: float) -> bytes:
        """Return what was typed of the terminal's input, without the answers to these questions."""
        return self._cursor.receive(data, now)

    def give_up(self) -> bytes:
        """Wait no longer for the answer; return what was typed and has been held. `settle` is due."""
        return self._cursor.give_up()

    def settle(self, *, can_attach: bool) -> bool:
        """Go on with the picture that has waited, and judge the one that was drawn last.

        Args:
            can_attach: There is an attachment, which can be replaced by a new one.

        Returns:
            Whether that is needed.
        """
        place = self._cursor.take()
        notice, self._waiting = self._waiting, None
        is_retried, self._retry_at = self._retry_at is not None, None
        if self._expected is not None:
            if self._judge(place) and can_attach:
                self._late += 1
                return True
            return notice is not None and self.paint(notice)
        if is_retried:
            return notice is not None and self.paint(notice)
        if self._is_users:
            self._users = place
        if notice is None:
            return False
        if place is not None and _is_late(notice, place.size):
            self._late += 1
            self._waiting, self._retry_at = notice, time.monotonic() + RETRY_SECS
            return False
        self._draw(notice, place.cursor if place is not None else None)
        return False

    def _judge(self, place: Place | None) -> bool:
        """Return whether the last picture was drawn wrongly, by what the terminal has answered behind it."""
        expected, self._expected = self._expected, None
        if expected is None:
            return False
        if place is None:
            self._window.is_known = True  # but not confirmed: it may have been drawn wrongly all the same
            return False
        if expected.is_met(place):
            self._window.confirm()
            self._late = 0
            return False
        self._window.distrust(max(place.size[1], self._terminal.size[1]))
        return True

    @property
    def _can_ask(self) -> bool:
        return self._cursor.is_trusted and self._late < MAX_LATE

    def drop_waiting(self) -> None:
        """Forget the picture that waits: another one will come."""
        self._waiting = self._retry_at = None

    def leave(self) -> None:
        """Draw what has waited, unless it is for another size: the window is about to be left."""
        self._is_leaving = True
        if self._retry_at is not None and self._waiting is not None:
            self._drop(self._waiting)
            self.drop_waiting()
        self.settle(can_attach=False)
        if self._waiting is not None:
            self._drop(self._waiting)
            self.drop_waiting()

    def take_answers(self) -> bytes:
        """Wait for the answer, or the user's shell would read it; return what else the terminal has sent."""
        return wait_for_position(self._terminal, self._cursor)

    # What is drawn

    def show(self, output: bytes) -> None:
        """Show some of the program's output; nothing behind a picture whose history is to come yet."""
        if self._is_behind:
            return
        terminal, filtered, window = self._terminal, self._terminal.output_filter, self._window
        was_alternate = bool(filtered.alternate)
        shown = terminal.show(output)
        if was_alternate and filtered.alternate:
            window.lose_place()
            return
        window.count(shown, is_alternate=was_alternate)
        if terminal.size != window.size or window.is_resized:
            window.add_uncertain(self._rows_of(shown))
        else:
            now = time.monotonic()
            self._forget_before(now - LAG_SECS)
            self._shown.append((now, shown if len(shown) <= MAX_MEASURED_BYTES else None))

    def note_resize(self) -> None:
        """Note that the terminal has reported a size: what was shown just now may have been shown at that one."""
        self._late = 0
        if self._cursor.deadline is None and not self._cursor.is_trusted and self._cursor.is_answering:
            # Its first answer was another size than the kernel knew, as where it was being resized at the time.
            self._terminal.write(self._cursor.first(time.monotonic(), self._terminal.size))
        self._forget_before(time.monotonic() - LAG_SECS)
        self._window.add_uncertain(sum(self._rows_of(output) for _, output in self._shown))
        self._shown.clear()
        if self._retry_at is not None:
            self._retry_at = time.monotonic()

    def _rows_of(self, output: bytes | None) -> int:
        cols, rows = self._terminal.size
        if output is None or len(output) > MAX_MEASURED_BYTES:
            return rows
        return rows_of_output(output, max(1, min(cols, self._window.size[0])), rows)

    def _forget_before(self, moment: float) -> None:
        while self._shown and self._shown[0][0] < moment:
            self._shown.popleft()

    def paint(self, notice: Notice) -> bool:
        """Draw a picture as soon as it is known where the terminal's cursor is, where that matters.

        Returns:
            Whether a new attachment is needed.
        """
        terminal, window = self._terminal, self._window
        if self.deadline is not None and not self._is_leaving:
            self._waiting = notice
        elif self._late < MAX_LATE and _is_late(notice, terminal.size):
            self._late += 1
            return self._drop(notice)
        elif self._is_leaving:
            self._draw(notice, None)
        elif self._is_users:
            if self._can_ask and self._users is not None and self._users.size != terminal.size:
                self._ask_before(notice)
            else:
                self._draw(notice, None if self._users is None else self._users.cursor)
        elif self._can_ask and window.asks_cursor(notice, is_alternate=bool(terminal.output_filter.alternate)):
            self._ask_before(notice)
        else:
            self._draw(notice, None)
        return False

    def skip(self) -> None:
        """Draw no picture of this attachment, and show no output: a new one brings all."""
        self._is_behind = True
        if not self._is_users:
            self._window.mark_missing()

    def _drop(self, notice: Notice) -> bool:
        if notice.reason == "resized":
            # What comes behind it is shown; another picture comes when the daemon has the size.
            self._window.follow_size(notice)
            return False
        self.skip()
        return True

    def _ask_before(self, notice: Notice) -> None:
        # What was shown before has been written before, so that the answer is about all of it.
        self._terminal.write(self._cursor.again(time.monotonic()))
        self._waiting = notice

    def _draw(self, notice: Notice, cursor: Position | None) -> None:
        terminal, window, size = self._terminal, self._window, self._terminal.size
        output = terminal.output_filter
        line = notice.history_line or 0
        if notice.reason:
            data = window.draw(notice, size, cursor, output.alternate)
        elif self._is_users:
            data = window.draw_first(notice.data, line, size, cursor)
        else:
            data = window.draw_again(notice.data, line, size, is_alternate=bool(output.alternate))
        self._is_users = self._is_behind = False
        # A primary screen that is left as it is has nothing to lose.
        is_checked = self._can_ask and not (self._is_leaving or notice.reason == "frame" or window.is_primary_stale)
        if is_checked:
            # Without margins and origin mode, in which the corner would be another one.
            terminal.write(LINES_UP + self._cursor.at_corner(time.monotonic()))
        terminal.enter()
        output.stop_at_primary = False
        terminal.show(data)
        output.stop_at_primary = window.is_primary_stale
        if not is_checked:
            window.confirm()
            if size == (notice.cols, notice.rows) and not self._cursor.is_trusted:
                self._late = 0
            return
        row = None
        if notice.reason and not (output.alternate or output.has_set_origin):
            row = notice.cursor_row  # which the answer to an attach does not have
            terminal.write(self._cursor.here_too())
        self._expected = Expected(size=(notice.cols, notice.rows), row=row)


def _is_late(notice: Notice, size: tuple[int, int]) -> bool:
    """Return whether a picture is not to be drawn in a window of this size."""
    # No row of a frame is a line of the session. The lines that one for a client that was behind tells of come once.
    return (notice.cols, notice.rows) != size and notice.reason not in ("frame", "behind")


def rows_of_output(output: bytes, cols: int, enough: int) -> int:
    """Return by how many rows output moves the cursor down at most, in a window of so many columns.

    Args:
        output: The output.
        cols: Columns, at least 1.
        enough: From so many rows on the number may be too low.
    """
    rows = output.count(b"\n")
    if rows < enough:
        texts = re.split(rb"[\r\n]", _SEQUENCE.sub(b"", output))
        rows += sum((len(text) - 1) // cols for text in texts if text)
    return rows


def ask_cursor(terminal: Terminal) -> Position | None:
    """Return where the cursor is, once; what is typed meanwhile is dropped, as the program has ended."""
    question = CursorQuestion()
    terminal.write(question.first(time.monotonic(), terminal.size))
    wait_for_position(terminal, question)
    place = question.take()
    return None if place is None else place.cursor


def wait_for_position(terminal: Terminal, question: CursorQuestion) -> bytes:
    """Wait until a question has been answered, or its time is up; return what else the terminal has sent."""
    typed = b""
    while question.deadline is not None and not question.is_answered:
        left = question.deadline - time.monotonic()
        if left <= 0 or not select.select([terminal.input_fd], [], [], left)[0]:
            break
        data = terminal.read()
        if data == b"":  # a hangup
            break
        typed += question.receive(data or b"", time.monotonic())
    return typed
