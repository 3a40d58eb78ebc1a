r"""Ask a terminal where its cursor is (CPR, `CSI 6 n`), and take the answer out of what is typed. No I/O, no clock.

Some terminals do not answer, and some that are none answer always the same. So the first time two questions are asked,
the second at the bottom right corner, whose answer is known: only a terminal that gives it is asked again.
"""

from __future__ import annotations

import re

ANSWER_SECS = 0.1
"""How long an answer is waited for."""
_LATE_SECS = 2.0  # how long one that comes after all is taken out: `CSI 1;2R` is a key, too (Shift-F3)

_QUESTION = b"\x1b[6n"
_AT_CORNER = b"\x1b7\x1b[999;999H\x1b[6n\x1b8"
_ANSWER = re.compile(rb"\x1b\[(\d{1,5});(\d{1,5})R")
_PARTIAL = re.compile(rb"\x1b(?:\[(?:\d{0,5}(?:;\d{0,5})?)?)?\Z")

Position = tuple[int, int]


class CursorQuestion:
    """The questions to one terminal, one at a time.

    Attributes:
        deadline: When `give_up` is due, on the caller's clock; None while nothing is asked.
    """

    def __init__(self) -> None:
        self.deadline: float | None = None
        self._is_trusted = False
        self._corner: Position | None = None  # of the first question, until it is answered
        self._due = 0  # answers that have not come
        self._late_until = 0.0
        self._answers: list[Position] = []
        self._held = b""

    @property
    def is_trusted(self) -> bool:
        """Whether the terminal is known to answer truly."""
        return self._is_trusted

    def first(self, now: float, size: tuple[int, int]) -> bytes:
        """Return what asks for the first time; `size` is columns and rows."""
        self._is_trusted, self._corner = False, (size[1] - 1, size[0] - 1)
        return self._ask(now, _QUESTION + _AT_CORNER, 2)

    def again(self, now: float) -> bytes:
        """Return what asks a terminal that is trusted."""
        return self._ask(now, _QUESTION, 1)

    def _ask(self, now: float, question: bytes, answers: int) -> bytes:
        self._due, self._answers = self._due + answers, []
        self.deadline, self._late_until = now + ANSWER_SECS, now + _LATE_SECS
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
        self.deadline = self._corner = None
        self._answers = []
        return self._flush()

    def take(self) -> Position | None:
        """Return the answered position, row and column from 0; None where it cannot be trusted."""
        self.deadline = None
        answers, self._answers = self._answers, []
        if self._corner is not None:
            self._is_trusted = len(answers) >= 2 and answers[-1] == self._corner
            self._corner = None
            return answers[-2] if self._is_trusted else None
        return answers[-1] if self._is_trusted and answers else None  # those before it came too late

    def _flush(self) -> bytes:
        held, self._held = self._held, b""
        return held
