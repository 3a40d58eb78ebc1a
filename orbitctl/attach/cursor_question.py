r"""Ask a terminal where its cursor is (CPR, `CSI 6 n`), and take the answers out of what is typed. No I/O, no clock.

Asked at the bottom right corner, the answer is the size that the terminal has at that moment, which may be another one
than the kernel knows: a terminal is resized first, and reports it later.

Some terminals do not answer, and some that are none answer always the same. So the first time the terminal is asked
at the corner, too, where the answer is known: only one that gives it is trusted.
"""

from __future__ import annotations

import re
from typing import NamedTuple

ANSWER_SECS = 0.1
"""How long the first answer is waited for."""
TRUSTED_SECS = 0.5
"""How long one of a terminal that has answered before."""
_LATE_SECS = 2.0  # how long one that comes after all is taken out: `CSI 1;2R` is a key, too (Shift-F3)

_HERE = b"\x1b[6n"
_CORNER = b"\x1b[999;999H" + _HERE
_AT_CORNER = b"\x1b7" + _CORNER + b"\x1b8"
_ANSWER = re.compile(rb"\x1b\[(\d{1,5});(\d{1,5})R")
_PARTIAL = re.compile(rb"\x1b(?:\[(?:\d{0,5}(?:;\d{0,5})?)?)?\Z")

Position = tuple[int, int]
"""Row and column, from 0."""


class Place(NamedTuple):
    """What a terminal has answered.

    Attributes:
        size: Its columns and rows.
        cursor: Where its cursor was; None where it was not asked.
    """

    size: tuple[int, int]
    cursor: Position | None


class CursorQuestion:
    """The questions to one terminal, one at a time.

    Attributes:
        is_trusted: Whether the terminal is known to answer truly.
        is_answering: Whether it has answered the last question.
        deadline: When `give_up` is due, on the caller's clock; None while nothing is asked.
    """

    def __init__(self) -> None:
        self.is_trusted = self.is_answering = False
        self.deadline: float | None = None
        self._known: tuple[int, int] | None = None  # the size, at the first question
        self._corner_at = 0  # which of the answers tells the size
        self._asked = 0  # how many answers the question has
        self._due = 0  # answers that have not come, to earlier questions too
        self._late_until = 0.0
        self._answers: list[Position] = []
        self._held = b""

    def first(self, now: float, size: tuple[int, int]) -> bytes:
        """Return what asks for the first time; `size` is columns and rows."""
        self.is_trusted = False
        question = self.again(now)
        self._known, self.deadline = size, now + ANSWER_SECS
        return question

    def again(self, now: float) -> bytes:
        """Return what asks where the cursor is, and for the size; it takes the place of a saved cursor (DECSC)."""
        self._corner_at = 1
        return self._ask(now, _HERE + _AT_CORNER, 2)

    def at_corner(self, now: float) -> bytes:
        """Return what asks for the size, and leaves the cursor in the corner."""
        self._corner_at = 0
        return self._ask(now, _CORNER, 1)

    def here_too(self) -> bytes:
        """Return what asks where the cursor is, behind `at_corner`, and whatever was written since."""
        self._asked, self._due = self._asked + 1, self._due + 1
        return _HERE

    def _ask(self, now: float, question: bytes, answers: int) -> bytes:
        if now > self._late_until:
            self._due = 0  # what has not come by now never will
        self._known = None
        self._asked, self._due, self._answers = answers, self._due + answers, []
        self.deadline, self._late_until = now + TRUSTED_SECS, now + _LATE_SECS
        return question

    def receive(self, data: bytes, now: float) -> bytes:
        """Return what was typed, without the answers in it."""
        if not self._due:
            return data
        if now > self._late_until:
            self._due = 0
            return self._flush() + data
        data = self._flush() + data
        while self._due and (found := _ANSWER.search(data)) is not None:
            self._due -= 1
            self._answers.append((int(found[1]) - 1, int(found[2]) - 1))
            data = data[: found.start()] + data[found.end() :]
        # Only while somebody waits: a lone ESC is a key.
        if self._due and self.deadline is not None and (found := _PARTIAL.search(data)) is not None:
            self._held, data = data[found.start() :], data[: found.start()]
        return data

    @property
    def is_answered(self) -> bool:
        """Whether all answers to the question have come."""
        return self.deadline is not None and not self._due

    def give_up(self) -> bytes:
        """Wait no longer; return what was typed and has been held."""
        self.deadline, self._answers = None, []
        return self._flush()

    def take(self) -> Place | None:
        """Return what the terminal has answered; None where it has not, or cannot be trusted."""
        self.deadline = None
        # Those before them are answers to earlier questions, and came too late.
        answers, self._answers = self._answers[-self._asked :], []
        known, self._known = self._known, None
        self.is_answering = len(answers) >= self._asked > 0
        if not self.is_answering:
            return None
        row, column = answers.pop(self._corner_at)
        place = Place((column + 1, row + 1), answers[0] if answers else None)
        if known is not None:
            self.is_trusted = place.size == known
        return place if self.is_trusted else None

    def _flush(self) -> bytes:
        held, self._held = self._held, b""
        return held
