"""Counts the lines that have left a terminal's screen into its history, those that were dropped since included.

The library knows only how many rows there are now. But it can keep a reference to a row (a "tracked grid ref") that
moves with it, through new output, rewrapping and the dropping of older rows. So a row is kept whose line number is
known, and what lies between it and the screen is counted when somebody asks.

Lines are counted, not rows: a resize rewraps rows, and the numbers stay.
"""

from __future__ import annotations

from typing import Any

from orbitd.screens._ghostty import Library
from orbitd.screens._ghostty_rows import RowReader

_MORE_ROWS = 64
_KEPT_ROWS = 4096
"""Rows between the kept row and the screen after which it is moved up to the screen, before it may be dropped."""


class LineCounter:
    """The line counter of one terminal. Close it before the terminal is freed.

    Args:
        library: The loaded library.
        terminal: The native terminal, whose primary screen is in use.
        line: The number of the line at the top of the screen.

    Attributes:
        line: The number of the kept row's line.
    """

    def __init__(self, library: Library, terminal: Any, line: int = 0) -> None:
        self._library, self._terminal = library, terminal
        self.line = line
        self._ref = library.ffi.new("GhosttyTrackedGridRef *")
        library.check(library.track(terminal, self._top(), self._ref), "a reference to a row")
        self._coordinate = library.ffi.new("GhosttyPointCoordinate *")
        self._line_feeds = 0  # fed since the kept row was set
        self._cursor_row = self._find_cursor_row()  # then

    def fed(self, line_feeds: int) -> None:
        """Count line feeds that the primary screen was fed."""
        self._line_feeds += line_feeds

    def close(self) -> None:
        """Free the reference; closing again does nothing."""
        if self._ref is not None:
            self._library.lib.ghostty_tracked_grid_ref_free(self._ref[0])
            self._ref = None

    def keep(self, history_rows: int, screen_rows: int) -> None:
        """Move the kept row up to the screen where it is far away; the primary screen is in use."""
        row = self._row()
        if row is None or history_rows - row > _KEPT_ROWS:
            self.count(history_rows, screen_rows)

    def count(self, history_rows: int, screen_rows: int) -> int:
        """Return the number of the line that the first row of the screen belongs to; the primary screen is in use.

        Args:
            history_rows: How many rows the history has.
            screen_rows: The screen's height.
        """
        self.line = self.count_in(self._terminal, history_rows, screen_rows)
        self._line_feeds, self._cursor_row = 0, self._find_cursor_row()
        set_ref = self._library.set_tracked
        self._library.check(set_ref(self._ref[0], self._terminal, self._top(history_rows)), "a reference to a row")
        return self.line

    def count_in(self, terminal: Any, history_rows: int, screen_rows: int) -> int:
        """Return the same from a copy of the terminal that has left the alternate screen; nothing is kept."""
        row = self._row()
        if row is None:
            # The row was dropped, and all that was in the history with it: what is there now is newer. In a flood that
            # does so within a second, as many lines were fed as have left the screen, or fill it now.
            newer = 1 + lines_between(self._library, terminal, 0, history_rows, screen_rows)
            return self.line + max(self._line_feeds + self._cursor_row - self._find_cursor_row(), newer)
        if row > history_rows:  # a resize has brought lines back from the history
            return self.line - lines_between(self._library, terminal, history_rows, row, screen_rows)
        return self.line + lines_between(self._library, terminal, row, history_rows, screen_rows)

    def _row(self) -> int | None:
        """Return where the kept row is, from the oldest of the history; None where it was dropped."""
        ref, tag = self._ref[0], self._library.lib.GHOSTTY_POINT_TAG_SCREEN
        result = self._library.lib.ghostty_tracked_grid_ref_point(ref, tag, self._coordinate)
        return int(self._coordinate.y) if result == 0 else None

    def _find_cursor_row(self) -> int:
        row = self._library.ffi.new("uint16_t *")
        key = self._library.lib.GHOSTTY_TERMINAL_DATA_CURSOR_Y
        self._library.check(self._library.lib.ghostty_terminal_get(self._terminal, key, row), "the cursor")
        return int(row[0])

    def _top(self, row: int | None = None) -> Any:
        point = self._library.ffi.new("OrbitPoint *")
        lib = self._library.lib
        point.tag = lib.GHOSTTY_POINT_TAG_ACTIVE if row is None else lib.GHOSTTY_POINT_TAG_SCREEN
        point.value.y = row or 0
        return point[0]


def lines_between(library: Library, terminal: Any, first: int, last: int, screen_rows: int) -> int:
    """Return how many lines end in the rows from `first` until before `last`, 0 being the oldest of the history."""
    with RowReader(library, terminal) as reader:
        return reader.line_ends(first, last, screen_rows).count(1)


def rows_of_lines(library: Library, terminal: Any, lines: int, history_rows: int, screen_rows: int) -> int:
    """Return how many rows the newest `lines` lines of the history take, with those of a line that is not ended."""
    first = history_rows
    ends = b""
    while first and ends.count(1) <= lines:
        last, first = first, max(0, first - lines - len(ends) - _MORE_ROWS)
        with RowReader(library, terminal) as reader:
            ends = reader.line_ends(first, last, screen_rows) + ends
    found = len(ends)
    for _ in range(lines + 1):  # the end of the line before them
        found = ends.rfind(1, 0, found)
        if found < 0:
            return history_rows
    return len(ends) - found - 1
