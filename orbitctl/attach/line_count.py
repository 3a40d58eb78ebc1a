"""How many lines have left a screen, by the output that was shown on it. No I/O.

It is never more than in truth. The cursor's row is not known, only how it moves: a line feed moves it down, and lines
leave the screen as soon as it has moved down by more than the screen has rows.
"""

from __future__ import annotations

import re

from orbitctl.attach.output_filter import ALTERNATE_MODES

_HOME_MODES = frozenset((6, 1048))  # that move the cursor as they are set or reset

# What moves the cursor up, by a number of rows or to any row; margins, which do that too; modes; and strings. Colours,
# of which a flood is full, have to fail early: no group is captured, and nothing is tried twice (`*+`).
_MOVES = re.compile(rb"\x1b(?:\[[?\d;]*+[AFHfdurhl]|[M8c\]PX^_])")
_STRINGS = (b"]", b"P", b"X", b"^", b"_")
_OSC_END, _STRING_END = re.compile(rb"[\x07\x18\x1a\x1b]"), re.compile(rb"[\x18\x1a\x1b]")


class LineCount:
    """The count since a picture.

    Attributes:
        scrolled: How many lines have left the screen, at least.
    """

    def __init__(self) -> None:
        self.scrolled = 0
        self._height = 0
        self._line = 0  # of the cursor, at least, where the first row of the picture is 0
        self._is_within_margins = False
        self._string_end: re.Pattern[bytes] | None = None  # of the string that the output is in

    def begin(self, height: int) -> None:
        """Begin at a picture of so many rows."""
        self.scrolled = self._line = 0
        self._height, self._is_within_margins, self._string_end = height, False, None

    def feed(self, output: bytes, *, is_alternate: bool) -> None:
        """Count the lines of output, which does not end within an escape sequence but may end within a string.

        Args:
            output: What is shown.
            is_alternate: It begins on the alternate screen, from which no lines leave.
        """
        at = 0
        while True:
            if self._string_end is not None:
                end = self._string_end.search(output, at)
                if end is None:
                    return
                at, self._string_end = end.start(), None
            found = _MOVES.search(output, at)
            self._feed_lines(0 if is_alternate else output.count(b"\n", at, found.start() if found else len(output)))
            if found is None:
                return
            at = found.end()
            sequence = found[0]
            if sequence[1:] in _STRINGS:
                self._string_end = _OSC_END if sequence == b"\x1b]" else _STRING_END
            else:
                is_alternate = self._move(sequence[2:-1], sequence[-1:], is_alternate=is_alternate)

    def _move(self, parameters: bytes, final: bytes, *, is_alternate: bool) -> bool:
        """Move the cursor up as far as a sequence may do so; return whether the alternate screen is in use then."""
        rows = self._height
        if final in b"AF":
            rows = _number(parameters) or 1
        elif final in b"hl":
            modes = {_number(digits) for digits in parameters[1:].split(b";")} if parameters[:1] == b"?" else set()
            if not modes.isdisjoint(ALTERNATE_MODES):
                is_alternate = final == b"h"
            elif modes.isdisjoint(_HOME_MODES):
                return is_alternate
        elif final == b"r":
            top, _, bottom = parameters.partition(b";")
            self._is_within_margins = _number(top) > 1 or 0 < _number(bottom) < self._height
        self._line = max(self._line - rows, self.scrolled)
        return is_alternate

    def lose_place(self) -> None:
        """Take the cursor for anywhere on the screen."""
        self._line = self.scrolled

    def _feed_lines(self, count: int) -> None:
        if not self._is_within_margins:  # else they may go up to the first margin, and no further
            self._line += count
            self.scrolled = max(self.scrolled, self._line - self._height + 1)


def _number(parameters: bytes) -> int:
    """Return the first parameter's value, 0 for none; one of more than nine digits is as large as any."""
    digits = parameters.partition(b";")[0].lstrip(b"0")[:10]
    return int(digits) if digits.isdigit() else 0
