"""Rows to the VT sequences that print them: the inner loop of a repaint. No I/O, no emulator.

Blank cells are skipped, not filled with spaces, so that they stay blank. A blank cell with a background is erased in
its colour, which every terminal of type xterm-256color supports (terminfo's `bce`). After a character whose width
terminals disagree about, the next one is placed by an absolute column.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

from orbitd.screens.model import PLAIN, Color, DrawnRows, Row, Run, Style

_MAX_PARAMETERS = 16  # of one sequence: what the parsers of all terminals take
_FLAGS = (
    ("bold", "1"),
    ("faint", "2"),
    ("italic", "3"),
    ("blink", "5"),
    ("inverse", "7"),
    ("invisible", "8"),
    ("strikethrough", "9"),
    ("overline", "53"),
)


def cup(row: int, column: int) -> str:
    """Return the sequence that moves the cursor, both counted from 0."""
    return f"\x1b[{max(0, row) + 1};{max(0, column) + 1}H"


@functools.lru_cache(maxsize=4096)
def sgr(style: Style) -> str:
    """Return the SGR sequence that sets the pen to a style, whatever it was before: it begins with a reset."""
    flags = ["0", *(code for name, code in _FLAGS if getattr(style, name))]
    if style.underline:
        flags.append("4" if style.underline == 1 else f"4:{style.underline}")
    groups = [flags, _color(style.fg, 30, 90, "38"), _color(style.bg, 40, 100, "48"), _underline(style.underline_color)]
    codes = [";".join(group) for group in groups if group]
    if sum(len(re.split("[;:]", code)) for code in codes) > _MAX_PARAMETERS:
        return "".join(f"\x1b[{code}m" for code in codes)
    return f"\x1b[{';'.join(codes)}m"


def _underline(color: Color) -> list[str]:
    if color is None:
        return []
    return ["58:2::{}:{}:{}".format(*color) if isinstance(color, tuple) else f"58:5:{color}"]


def _color(color: Color, dark: int, bright: int, extended: str) -> list[str]:
    if color is None:
        return []
    if isinstance(color, tuple):
        return [f"{extended};2;{color[0]};{color[1]};{color[2]}"]
    if color < 8:
        return [str(dark + color)]
    return [str(bright + color - 8)] if color < 16 else [f"{extended};5;{color}"]


class VtWriter:
    """Collect sequences, and track the pen of the terminal that will execute them: style, link, protection.

    Args:
        cols: Columns of that terminal.
    """

    def __init__(self, cols: int) -> None:
        self._cols = cols
        self._parts: list[str] = []
        self._style = PLAIN
        self._link: str | None = None
        self._protected = False

    def write(self, *parts: str) -> None:
        """Add sequences as they are; they must not change the pen."""
        self._parts += parts

    def getvalue(self) -> bytes:
        """Return everything that was written."""
        return "".join(self._parts).encode()

    def set_style(self, style: Style) -> None:
        """Set the pen to a style, without link and protection."""
        self._set_pen(style, None, protected=False)

    def _set_pen(self, style: Style, link: str | None, *, protected: bool) -> None:
        if style is not self._style and style != self._style:  # `is` first: mostly it is the same object
            self._parts.append(sgr(style))
            self._style = style
        if link != self._link:
            self._parts.append(f"\x1b]8;;{link or ''}\x1b\\")
            self._link = link
        if protected != self._protected:
            self._parts.append(f'\x1b[{int(protected)}"q')
            self._protected = protected

    def print_run(self, run: Run) -> None:
        """Print a run at the cursor."""
        self._set_pen(run.style, run.link, protected=run.protected)
        self._parts.append("".join(run.cells))

    def write_screen(self, lines: tuple[Row, ...]) -> None:
        """Draw rows at their places on a cleared screen."""
        previous: Row | None = None
        for number, row in enumerate(lines):
            if not row.runs:
                previous = None
                continue
            # Where a line was wrapped, it is printed on so that it wraps again: the client's terminal then
            # joins the rows when it is resized, or when the user copies them. Moving the cursor would not.
            if previous is None or not self._wraps_into(previous, row):
                self.write(cup(number, 0))
            self._write_row(row)
            previous = row
        self.set_style(PLAIN)

    def write_history(self, history: Iterable[Row | DrawnRows], below: Row, screen_rows: int) -> None:
        """Print rows so that they scroll out of the top of a cleared screen.

        Args:
            history: The rows, the oldest first.
            below: The first row of the screen. If the last row wraps into it, it is printed on the screen's first row,
                for the terminal to join both; else the screen is left cleared.
            screen_rows: The screen's height.
        """
        previous: Row | None = None
        for item in history:
            first, last = (item.first, item.last) if isinstance(item, DrawnRows) else (item, item)
            if previous is not None and not self._wraps_into(previous, first):
                self.set_style(PLAIN)  # a terminal fills a line that scrolls in with the pen's background
                self.write("\r\n")
            if isinstance(item, DrawnRows):
                self.set_style(PLAIN)
                self.write(item.text)
            else:
                self._write_row(item)
            previous = last
        if previous is None:
            return
        if self._wraps_into(previous, below):
            self._write_row(below)
            screen_rows -= 1
        # A screenful of line feeds moves the last row into the history, too.
        self.set_style(PLAIN)
        self.write("\r\n" * screen_rows)

    def _wraps_into(self, row: Row, after: Row) -> bool:
        """Return whether printing on after a row's last character wraps into the next row, as it once did."""
        if not row.wraps or not row.runs or not after.runs:
            return False
        last, first = row.runs[-1], after.runs[0]
        if first.column or first.blank or not first.cells[0]:
            return False
        end = last.column + len(last.cells)
        if end == self._cols and not last.blank:
            return True
        # A wide character did not fit into the last column, which stays blank, and went to the next row.
        is_wide = len(first.cells) > 1 and not first.cells[1]
        fits = (end == self._cols and len(last.cells) == 1) if last.blank else end == self._cols - 1
        background = last.style.bg if last.blank else None  # the blank cell gets the pen's
        return is_wide and fits and first.style.bg == background

    def _write_row(self, row: Row) -> None:
        column: int | None = 0
        for run in row.runs:
            if run.blank and run.style == PLAIN:
                continue
            # CHA where the column is not known, else CUF, which is shorter.
            if column is None:
                self.write(f"\x1b[{run.column + 1}G")
            elif column < run.column:
                self.write(f"\x1b[{run.column - column}C")
            if run.blank:
                self.set_style(run.style)
                self.write(f"\x1b[{len(run.cells)}X")  # ECH erases with the pen's background, and moves nothing
                column = run.column
                continue
            text = "".join(run.cells)
            if len(text) < len(run.cells) and text.isascii():  # a wide cell may hold a narrow character
                text = "".join(cell or " " for cell in run.cells)
            self._set_pen(run.style, run.link, protected=run.protected)
            self._parts.append(text)
            # Terminals disagree about the width of many characters outside of ASCII (East Asian ambiguous ones,
            # emoji, clusters), so the column after them is not known.
            column = run.column + len(text) if text.isascii() else None
