"""How many lines have left a screen, by the output that was shown on it. No I/O.

It is never more than in truth. The cursor's row is not known, only how it moves: a line feed moves it down, and lines
leave the screen as soon as it has moved down by more than the screen has rows.
"""

from __future__ import annotations

import re

from orbitctl.attach.output_filter import ALTERNATE_MODES

_HOME_MODES = frozenset((6, 1048))  # that move the cursor as they are set or reset

# What moves the cursor up by a number of rows, or to any row; margins, which do that too; modes.
_MOVES = re.compile(
    rb"\x1b(?:\[(?:(?P<up>\d{0,5})[AF]|[\d;]*[Hfdu]|(?P<top>\d{0,5})[\d;]*r|\?(?P<modes>[\d;]+)(?P<set>[hl]))|[M8c])"
)


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

    def begin(self, height: int) -> None:
        """Begin at a picture of so many rows."""
        self.scrolled = self._line = 0
        self._height, self._is_within_margins = height, False

    def feed(self, output: bytes, *, is_alternate: bool) -> None:
        """Count the lines of output, which does not end within an escape sequence.

        Args:
            output: What is shown.
            is_alternate: It begins on the alternate screen, from which no lines leave.
        """
        at = 0
        for found in _MOVES.finditer(output):
            self._feed_lines(0 if is_alternate else output.count(b"\n", at, found.start()))
            at = found.end()
            if found["modes"] is not None:
                modes = {int(number[:6]) for number in found["modes"].split(b";") if number}
                if not modes.isdisjoint(ALTERNATE_MODES):
                    is_alternate = found["set"] == b"h"
                elif modes.isdisjoint(_HOME_MODES):
                    continue
            if found["top"] is not None:
                self._is_within_margins = int(found["top"] or 1) > 1
            rows = self._height if found["up"] is None else int(found["up"] or 1)
            self._line = max(self._line - rows, self.scrolled)
        self._feed_lines(0 if is_alternate else output.count(b"\n", at))

    def _feed_lines(self, count: int) -> None:
        if not self._is_within_margins:  # else they go up to the first margin, and no further
            self._line += count
            self.scrolled = max(self.scrolled, self._line - self._height + 1)
