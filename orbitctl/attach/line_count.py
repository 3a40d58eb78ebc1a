"""How many lines have left a screen, by the output that was shown on it. No I/O.

It is never more than in truth. The cursor's row is not known, only how it moves: a line feed moves it down, and lines
leave the screen as soon as it has moved down by more than the screen has rows.
"""

from __future__ import annotations

import re

from orbitctl.attach.output_filter import ALTERNATE_MODES

_HOME_MODES = frozenset((6, 1048))  # that move the cursor as they are set or reset

# What moves the cursor up by a number of rows, or to any row; margins, which do that too; modes; and strings.
_MOVES = re.compile(
    rb"\x1b(?:\[(?:(?P<up>\d*)[AF]|[\d;]*[Hfdu]|(?P<top>\d*)(?:;(?P<bottom>\d*))?[\d;]*r|\?(?P<modes>[\d;]+)(?P<set>[hl]))"
    rb"|[M8c]|(?P<string>[\]PX^_]))"
)
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
            if found["string"] is not None:
                self._string_end = _OSC_END if found["string"] == b"]" else _STRING_END
                continue
            if found["modes"] is not None:
                modes = {_number(digits) for digits in found["modes"].split(b";")}
                if not modes.isdisjoint(ALTERNATE_MODES):
                    is_alternate = found["set"] == b"h"
                elif modes.isdisjoint(_HOME_MODES):
                    continue
            if found["top"] is not None:
                self._is_within_margins = _number(found["top"]) > 1 or 0 < _number(found["bottom"]) < self._height
            rows = self._height if found["up"] is None else _number(found["up"]) or 1
            self._line = max(self._line - rows, self.scrolled)

    def _feed_lines(self, count: int) -> None:
        if not self._is_within_margins:  # else they may go up to the first margin, and no further
            self._line += count
            self.scrolled = max(self.scrolled, self._line - self._height + 1)


def _number(digits: bytes | None) -> int:
    """Return a parameter's value, 0 for none; one of more than nine digits is as large as any."""
    return int((digits or b"").lstrip(b"0")[:10] or b"0")
