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
from orbitd.screens._ghostty_terminal import Terminal
from orbitd.screens.model import Row

_MORE_ROWS = 64
_LAST_ROWS = 4
_FEW_COLUMNS = 20
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

    def go_on_from(self, line: int) -> None:
        """Set the number of the line that the first row of the screen belongs to; the primary screen is in use."""
        self.line, self._line_feeds, self._cursor_row = line, 0, self._find_cursor_row()
        self._library.check(
            self._library.set_tracked(self._ref[0], self._terminal, self._top()), "a reference to a row"
        )

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


class LeftRows:
    """The rows that leave a terminal's primary screen, whose text is taken once.

    A reference is kept to the first cell that was not taken, at the top of the screen mostly. Close it before the
    terminal is freed.

    Args:
        terminal: Its primary screen is in use, also whenever one of the methods is called.
        row: The first row to take, 0 being the oldest of the history.
    """

    def __init__(self, terminal: Terminal, row: int) -> None:
        self._terminal, library = terminal, terminal.library
        self._ref = library.ffi.new("GhosttyTrackedGridRef *")
        library.check(library.track(terminal.pointer, self._point(row), self._ref), "a reference to a row")
        self._coordinate = library.ffi.new("GhosttyPointCoordinate *")
        self._unsure_rows = 0
        self.be_unsure()

    def be_unsure(self) -> None:
        """Count the lines of the rows that there are: the terminal was resized, or may have been."""
        self._unsure_rows = self._terminal.scrollback_rows + self._terminal.size[1]

    def close(self) -> None:
        """Free the reference; closing again does nothing."""
        if self._ref is not None:
            self._terminal.library.lib.ghostty_tracked_grid_ref_free(self._ref[0])
            self._ref = None

    def place(self) -> tuple[int, int] | None:
        """Return row and column of the first cell that was not taken; None where it was dropped."""
        lib = self._terminal.library.lib
        if lib.ghostty_tracked_grid_ref_point(self._ref[0], lib.GHOSTTY_POINT_TAG_SCREEN, self._coordinate) != 0:
            return None
        return int(self._coordinate.y), int(self._coordinate.x)

    def move(self, row: int) -> None:
        """Take what is from this row on."""
        set_ref, terminal = self._terminal.library.set_tracked, self._terminal
        terminal.library.check(set_ref(self._ref[0], terminal.pointer, self._point(row)), "a reference to a row")

    def take(self) -> bytes:
        """Return the text that has left the screen since the last call, with a line feed behind each line.

        Behind the last one there is none where it goes on, on the screen. Where the reference was dropped, it is all
        that there is.
        """
        terminal = self._terminal
        top = terminal.scrollback_rows
        row, column = self.place() or (0, 0)
        if row >= top:
            return b""
        text = self._text(row, column, top)
        self._unsure_rows -= top - row
        self.move(top)
        return text

    def rest(self) -> bytes:
        """Return the text that has not been taken, to the end of the screen; it is not taken by this."""
        terminal, (row, column) = self._terminal, self.place() or (0, 0)
        return self._text(row, column, terminal.scrollback_rows + terminal.size[1])

    def _text(self, row: int, column: int, end: int) -> bytes:
        terminal = self._terminal
        text = self._format(row, column, end)
        # Some empty rows wrap: of a line that is indented far, where a resize has narrowed the screen, or where a wide
        # character has no room behind. The formatter ends a line there. Counting takes longer than formatting, so it
        # is done where that may be.
        is_unsure = self._unsure_rows > 0 or terminal.size[0] < _FEW_COLUMNS
        if is_unsure or (not text.isascii() and (text.startswith(b"\n") or b"\n\n" in text)):
            ends = lines_between(terminal.library, terminal.pointer, row, end, terminal.size[1])
            if ends != text.count(b"\n"):
                return self._read(row, column, end)
        return text

    def _format(self, row: int, column: int, top: int) -> bytes:
        terminal = self._terminal
        # Behind such a cell the formatter writes the character that is in the next row, which comes with that.
        last, columns = top - 1, terminal.size[0]
        while last > row and columns == 1 and terminal.is_left_blank(last):
            last -= 1
        columns -= terminal.is_left_blank(last)
        text = terminal.whole_lines(row, last, columns, column) if columns and (last, columns) > (row, column) else b""
        # The formatter leaves out the empty rows at the end; each of the others that does not wrap ends a line.
        used = self._used_rows(row, top)
        if used == row or not terminal.wraps(used - 1):
            return text + b"\n" * (top - used + (used > row))
        if used < top:
            return text + b"\n" * (top - used)
        # And blank cells at the end, which are in the middle of this line.
        return text + b" " * self._blank_cells(top - 1)

    def _blank_cells(self, row: int) -> int:
        """Return how many blank cells are at the end of a row that wraps."""
        terminal, columns = self._terminal, self._terminal.size[0]
        is_short = terminal.is_left_blank(row)
        if columns == 1 or not terminal.is_blank(columns - 1 - is_short, row):
            return 0
        return columns - is_short - _used_cells(next(terminal.rows(row, row + 1)))

    def _read(self, row: int, column: int, top: int) -> bytes:
        """Return the same as `_format`, row by row, which takes a hundred times as long."""
        terminal, parts = self._terminal, list[str]()
        for number, each in enumerate(list(terminal.rows(row, top)), row):
            cells = [" "] * terminal.size[0]
            for run in each.runs:
                if not run.blank:
                    cells[run.column : run.column + len(run.cells)] = run.cells
            used = _used_cells(each) if not each.wraps else len(cells) - terminal.is_left_blank(number)
            parts.append("".join(cells[column:used]) + ("" if each.wraps else "\n"))
            column = 0
        return "".join(parts).encode("utf-8", "replace")

    def _used_rows(self, first: int, last: int) -> int:
        """Return where the empty rows at the end of some begin."""
        count, start = _LAST_ROWS, last
        while start > first:
            start = max(first, last - count)
            if used := self._terminal.text_rows(start, last):
                return min(start + used, last)
            count *= 8
        return first

    def _point(self, row: int) -> Any:
        point = self._terminal.library.ffi.new("OrbitPoint *")
        point.tag, point.value.y = self._terminal.library.lib.GHOSTTY_POINT_TAG_SCREEN, row
        return point[0]


def _used_cells(row: Row) -> int:
    return max((run.column + len(run.cells) for run in row.runs if not run.blank), default=0)


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
