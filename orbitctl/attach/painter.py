"""Draws a session in the user's terminal, so that nothing is lost that stands or stood there.

What has to be done before a picture (`Window` knows it) can depend on where the terminal's cursor is. So a picture may
wait until the terminal has said that, and whatever comes behind it waits too: `is_waiting`. A picture after a resize is
checked behind it, since the window may have had another size again when it arrived, as in the middle of a drag, and
rows were drawn over others then. `settle` says whether the picture has to be drawn once more.
"""

from __future__ import annotations

import os
import select
import time

from orbitctl.attach.connection import Notice
from orbitctl.attach.cursor_question import CursorQuestion, Position
from orbitctl.attach.terminal import Terminal
from orbitctl.attach.window import Window


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
        self._users_cursor: Position | None = None
        self._waiting: Notice | None = None
        self._expected_row: int | None = None  # of the cursor, behind a picture that has just been drawn
        self._is_leaving = False

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
        self._window.leave_all()
        self._is_users, self._users_cursor, self._expected_row = True, None, None
        self._is_leaving = False
        if os.environ.get("TERM", "dumb") != "dumb" and self._terminal.is_in_foreground:
            self._terminal.write(self._cursor.first(time.monotonic(), self._terminal.size))

    @property
    def deadline(self) -> float | None:
        """Until when the answer is waited for, on the monotonic clock; None while nothing is asked."""
        return self._cursor.deadline

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

    def settle(self, *, can_redraw: bool) -> bool:
        """Go on with the picture that has waited.

        Args:
            can_redraw: There is an attachment, of which a new picture can be had.

        Returns:
            Whether the last picture was not drawn as it should, so that all that it had must be drawn once more.
        """
        position = self._cursor.take()
        expected, self._expected_row = self._expected_row, None
        notice, self._waiting = self._waiting, None
        if expected is None:
            if self._is_users:
                self._users_cursor = position
            if notice is not None:
                self._draw(notice, position)
        elif position is not None and position[0] != expected and can_redraw:
            self._window.distrust()
            return True
        elif notice is not None:
            self.paint(notice)
        return False

    def drop_waiting(self) -> None:
        """Forget the picture that waits: another one will come."""
        self._waiting = None

    def leave(self) -> None:
        """Wait for the terminal no longer, and draw what has waited: the window is about to be left."""
        self._is_leaving = True
        notice, self._waiting = self._waiting, None
        if notice is not None:
            self._draw(notice, None)

    def take_answers(self) -> bytes:
        """Wait for the answer, or the user's shell would read it; return what else the terminal has sent."""
        return wait_for_position(self._terminal, self._cursor)

    # What is drawn

    def show(self, output: bytes) -> None:
        """Show some of the program's output."""
        filtered = self._terminal.output_filter
        was_alternate = bool(filtered.alternate)
        self._terminal.show(output)
        self._window.count(output, is_alternate=was_alternate and bool(filtered.alternate))

    def paint(self, notice: Notice) -> None:
        """Draw a picture as soon as it is known where the terminal's cursor is, where that matters."""
        is_alternate = bool(self._terminal.output_filter.alternate)
        if self._is_leaving:
            self._draw(notice, None)
        elif self._cursor.deadline is not None:
            self._waiting = notice
        elif not notice.reason and self._is_users:
            self._draw(notice, self._users_cursor)
        elif notice.reason and self._cursor.is_trusted and self._window.asks_cursor(notice, is_alternate=is_alternate):
            # What was shown before has been written before, so that the answer is about all of it.
            self._terminal.write(self._cursor.again(time.monotonic()))
            self._waiting = notice
        else:
            self._draw(notice, None)

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
        self._is_users = False
        terminal.enter()
        output.stop_at_primary = False
        terminal.show(data)
        output.stop_at_primary = window.is_primary_stale
        is_checked = notice.reason not in ("", "frame") and not (output.alternate or output.has_set_origin)
        if is_checked and self._cursor.is_trusted and not self._is_leaving:
            self._expected_row = notice.cursor_row
            terminal.write(self._cursor.again(time.monotonic()))


def ask_cursor(terminal: Terminal) -> Position | None:
    """Return where the cursor is, once; what is typed meanwhile is dropped, as the program has ended."""
    question = CursorQuestion()
    terminal.write(question.first(time.monotonic(), terminal.size))
    wait_for_position(terminal, question)
    return question.take()


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
