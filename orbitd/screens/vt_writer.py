"""Rows to the VT sequences that print them: the inner loop of a repaint. No I/O, no emulator.

Blank cells are skipped, not filled with spaces, so that they stay blank. A blank cell with a background is erased in
its colour, which every terminal of type xterm-256color supports (terminfo's `bce`). After a cluster, and a run with
characters whose width terminals disagree about, what follows is placed by an absolute column.

Marks of prompts (OSC 133) are written where the zone changes, and at the beginning of rows. A terminal also marks rows
itself: a line feed or a wrap in a prompt or in input makes the next row continue the prompt, and `C` in the first
column takes that back. Shells count on it, and terminals that mark whole rows (kitty) need `C` there, and not behind
the input. So it is written on the next row here, too.
"""

from __future__ import annotations

import functools
import re
from bisect import bisect_right
from collections.abc import Iterable

from orbitd.screens.model import (
    PLAIN,
    Color,
    DrawnMarks,
    DrawnRows,
    Link,
    PromptState,
    Row,
    RowMark,
    Run,
    Style,
    Zone,
)

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


_SGR = re.compile(r"((?:\x1b\[[0-9;:]*m)+)")
# The beginning of a line of the formatter whose first character has a background, or reverse video.
_COLORED_START = re.compile(r"(?:\x1b\[[0-9;:]*m)*\x1b\[(?:48;[0-9;]*|7)m(?:\x1b\[[0-9;:]*m)*([^\x1b])")
_NO_MARKS = DrawnMarks(mark=RowMark.NONE, zones=())


# Characters that have the same width in every terminal, emoji and combining ones not among them: Latin, Greek and
# Cyrillic; punctuation, arrows, mathematics, boxes, Braille; Chinese, Japanese and Korean; the arrows of Powerline.
# Where each range begins and where it has ended, for `bisect`: as a regular expression it takes 3 ms to compile.
_AGREED_WIDTH = (
    *(0x20, 0x7F, 0xA1, 0xAD, 0xAE, 0x300, 0x370, 0x483, 0x48A, 0x530),
    *(0x2010, 0x2028, 0x2030, 0x205F, 0x20A0, 0x20C0, 0x2190, 0x2300, 0x2500, 0x25FD, 0x2713, 0x2719, 0x2758, 0x2776),
    *(0x2800, 0x2900, 0x3001, 0x302A, 0x3030, 0x303F, 0x3041, 0x3097, 0x30A1, 0x3100, 0x3400, 0x4DB6, 0x4E00, 0x9FF0),
    *(0xAC00, 0xD7A4, 0xE0A0, 0xE0B4, 0xF900, 0xFA6E, 0xFF01, 0xFF61),
)


def has_agreed_width(code: int) -> bool:
    """Return whether a character has the same width in every terminal."""
    return bisect_right(_AGREED_WIDTH, code) % 2 == 1


@functools.lru_cache(maxsize=4096)
def _is_agreed(cell: str) -> bool:
    return not cell or (len(cell) == 1 and has_agreed_width(ord(cell)))


def mark(command: str) -> str:
    """Return the sequence that marks a prompt, input or output (OSC 133)."""
    return f"\x1b]133;{command}\x1b\\"


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
    """Collect sequences, and track the pen of the terminal that will execute them: style, link, protection, zone.

    Args:
        cols: Columns of that terminal.
        options: Of OSC 133;A.
    """

    def __init__(self, cols: int, options: str = "") -> None:
        self._cols, self._options = cols, options
        self._parts: list[str] = []
        self._style = PLAIN
        self._link: str | None = None
        self._link_id = ""
        self._protected = False
        self._zone = Zone.OUTPUT

    def write(self, *parts: str) -> None:
        """Add sequences as they are; they must not change the pen."""
        self._parts += parts

    def getvalue(self) -> bytes:
        """Return everything that was written."""
        return "".join(self._parts).encode()

    def set_style(self, style: Style) -> None:
        """Set the pen to a style, without link and protection."""
        self._set_pen(style, None, "", protected=False)

    def set_link(self, link: Link | None) -> None:
        """Set the link of the pen, and leave the style."""
        uri, link_id = link or (None, "")
        if (uri, link_id) != (self._link, self._link_id):
            parameters = f"id={link_id}" if link_id else ""
            self._parts.append(f"\x1b]8;{parameters};{uri or ''}\x1b\\")
            self._link, self._link_id = uri, link_id

    def _set_pen(self, style: Style, link: str | None, link_id: str, *, protected: bool) -> None:
        if style is not self._style and style != self._style:  # `is` first: mostly it is the same object
            self._parts.append(sgr(style))
            self._style = style
        if link != self._link or link_id != self._link_id:
            self.set_link(None if link is None else Link(link, link_id))
        if protected != self._protected:
            self._parts.append(f'\x1b[{int(protected)}"q')
            self._protected = protected

    def set_prompt(self, state: PromptState, row: Row) -> None:
        """Set the zone of the program's next output, at the cursor's place."""
        if state.zone == Zone.INPUT and state.until_line_end:
            self.write(mark("I"))
            self._zone = Zone.INPUT
        elif state.zone != self._zone:
            self.write(self._zone_change(state.zone, row.mark))

    def _zone_change(self, zone: Zone, row_mark: RowMark) -> str:
        """Return the sequence that sets the zone of the next character, and leaves the row's mark."""
        self._zone = zone
        if zone == Zone.PROMPT and row_mark == RowMark.PROMPT:
            return mark("P;k=i")
        if zone == Zone.PROMPT and row_mark == RowMark.CONTINUATION:
            return mark("P;k=s")
        if zone != Zone.OUTPUT:
            return mark("B")
        return mark("C" if row_mark == RowMark.NONE else "D")  # `C` takes back a row's mark, or is shown in its place

    def _start_row(self, wanted: RowMark, *, moved: bool = False, continues: bool = False) -> None:
        """Mark the row whose first column the cursor is in.

        Args:
            wanted: The row's mark.
            moved: The cursor was moved there, so that the terminal has not marked the row itself.
            continues: The row continues the one before. Each row of a prompt that a resize has wrapped has the mark of
                a first one; `P` is for libghostty, and most others, for which `A` were one more prompt, ignore it.
        """
        if moved or self._zone == Zone.OUTPUT:
            if wanted == RowMark.NONE:
                return
        elif wanted == RowMark.CONTINUATION:
            return
        if wanted == RowMark.NONE:
            self._zone = Zone.OUTPUT
            self.write(mark("C"))
        else:
            self._zone = Zone.PROMPT
            first = "P;k=i" if continues else f"A{self._options}"
            self.write(mark(first if wanted == RowMark.PROMPT else "P;k=s"))

    def _line_feed(self) -> None:
        self.set_style(PLAIN)  # a terminal fills a line that scrolls in with the pen's background
        self.write("\r\n")

    def print_run(self, run: Run, row: Row) -> None:
        """Print a run of a row at the cursor."""
        if run.zone != self._zone:
            self.write(self._zone_change(run.zone, row.mark))
        self._set_pen(run.style, run.link, run.link_id, protected=run.protected)
        self._parts.append("".join(run.cells))

    def write_row(self, row: Row) -> None:
        """Print a row by itself at the cursor, from a plain pen to a plain pen."""
        self._write_row(row)
        self.set_style(PLAIN)

    def write_screen(self, lines: tuple[Row, ...]) -> None:
        """Draw rows at their places on a cleared screen."""
        previous: Row | None = None
        for number, row in enumerate(lines):
            if not row.runs and row.mark == RowMark.NONE:
                previous = None
                continue
            # Where a line was wrapped, it is printed on so that it wraps again: the client's terminal then
            # joins the rows when it is resized, or when the user copies them. Moving the cursor would not.
            if previous is not None and self._wraps_into(previous, row):
                self._wrap_into(previous, row)
            else:
                self.write(cup(number, 0))
                self._start_row(row.mark, moved=True)
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
            row_mark = item.marks.get(0, _NO_MARKS).mark if isinstance(item, DrawnRows) else item.mark
            if previous is not None and self._wraps_into(previous, first):
                self._wrap_into(previous, first)
            else:
                if previous is not None:
                    self._line_feed()
                self._start_row(row_mark, moved=previous is None)
            if isinstance(item, DrawnRows):
                self._write_drawn(item)
            else:
                self._write_row(item)
            previous = last
        if previous is None:
            return
        if self._wraps_into(previous, below):
            self._wrap_into(previous, below)
            self._write_row(below)
            screen_rows -= 1
        if screen_rows:
            # A screenful of line feeds moves the last row into the history, too.
            self._line_feed()
            self._start_row(RowMark.NONE)
            self.write("\r\n" * (screen_rows - 1))
        self.set_style(PLAIN)

    def _write_drawn(self, drawn: DrawnRows) -> None:
        """Write rows that the library has drawn; the first is begun."""
        self.set_style(PLAIN)
        if not drawn.wraps and not drawn.marks and self._zone == Zone.OUTPUT:
            self.write(drawn.text)
            return
        marks, parts = drawn.marks, self._parts
        lines = drawn.text.split("\r\n")
        wraps = drawn.wraps or (False,) * len(lines)
        for number, line in enumerate(lines):
            of_row = marks.get(number, _NO_MARKS) if marks else _NO_MARKS
            if number and not wraps[number - 1]:
                parts.append("\r\n")
                if self._zone or of_row is not _NO_MARKS:
                    self._start_row(of_row.mark)
            elif number:
                colored = _COLORED_START.match(line)
                if colored or self._zone or of_row is not _NO_MARKS:
                    # As `_wrap_into` does it; each line ends with a plain pen.
                    parts += (colored[1] if colored else _SGR.sub("", line)[0], "\r")
                    self._start_row(of_row.mark, continues=True)
            parts.append(line if of_row is _NO_MARKS and not self._zone else self._with_zones(line, of_row))

    def _with_zones(self, line: str, marks: DrawnMarks) -> str:
        """Return a drawn line with the marks at the characters where its zones begin."""
        parts, done = list[str](), 0
        zones = [*(marks.zones or ((0, Zone.OUTPUT),)), (len(line), Zone.OUTPUT)]
        index = 0
        for part in _SGR.split(line):
            if part.startswith("\x1b"):
                parts.append(part)
                continue
            start = 0
            while part and zones[index][0] < done + len(part):
                at, zone = zones[index]
                if zone != self._zone:
                    parts += (part[start : at - done], self._zone_change(zone, marks.mark))
                    start = at - done
                index += 1
            parts.append(part[start:])
            done += len(part)
        return "".join(parts)

    def _wrap_into(self, row: Row, after: Row) -> None:
        """Move from the end of a row to the beginning of the next, so that the terminal joins both.

        To print on is what makes a line wrap. A terminal fills the row that scrolls in then with the background of the
        pen, and marks it as the zone of the pen has it. Where the row is to be otherwise, its first character is
        printed with another pen first, and then again.
        """
        first = after.runs[0]
        marked = RowMark.CONTINUATION if self._zone else RowMark.NONE
        if self._is_full(row):
            if first.style.bg is None and not first.style.inverse and (marked, self._zone) == (after.mark, first.zone):
                return
            self.set_style(PLAIN)
            self.write(first.cells[0])
        else:
            # The last column, which is blank, gets the pen of the wide character; most likely it has had it before.
            background = self._last_background(row)
            self.write(f"\x1b[{self._cols}G")
            if first.style.bg == background:
                self._set_pen(first.style, first.link, first.link_id, protected=False)
            else:
                self.set_style(Style(bg=background))
            self.write(first.cells[0])
            if background is not None and self._cols > 2:
                self.set_style(PLAIN)
                self.write("\x1b[K")
        self.write("\r")
        self._start_row(after.mark, continues=True)

    def _wraps_into(self, row: Row, after: Row) -> bool:
        """Return whether printing on wraps from a row into the next, as it once did."""
        if not row.wraps or not after.runs:
            return False
        first = after.runs[0]
        if first.column or first.blank or not first.cells[0]:
            return False
        # A wide character that does not fit into the last column leaves it blank, and goes to the next row.
        return self._is_full(row) or (len(first.cells) > 1 and not first.cells[1])

    def _is_full(self, row: Row) -> bool:
        """Return whether there is text in the last column."""
        if not row.runs or row.runs[-1].blank:
            return False
        return row.runs[-1].column + len(row.runs[-1].cells) == self._cols

    def _write_cells(self, run: Run) -> None:
        """Print a run in which widths are disputed: what follows a cluster at its own column, and the rest in one go.

        Regional indicators, and emoji joined to others, have to stay together to be drawn as one.
        """
        was_cluster = False
        for column, cell in enumerate(run.cells, run.column):
            if cell:
                is_joined = was_cluster and self._parts[-1].endswith("\u200d")
                self._parts.append(f"\x1b[{column + 1}G{cell}" if was_cluster and not is_joined else cell)
                was_cluster = len(cell) > 1

    def _last_background(self, row: Row) -> Color:
        """Return the background of a blank cell in the last column."""
        last = row.runs[-1] if row.runs else Run(column=0, cells=())
        return last.style.bg if last.column + len(last.cells) == self._cols else None

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
            if run.zone != self._zone:
                self.write(self._zone_change(run.zone, row.mark))
            text = "".join(run.cells)
            self._set_pen(run.style, run.link, run.link_id, protected=run.protected)
            # Terminals disagree about the width of many characters outside of ASCII (East Asian ambiguous ones,
            # emoji, clusters), so the column after the run is not known.
            if text.isascii() or all(map(_is_agreed, run.cells)):
                self._parts.append(text)
                column = run.column + len(run.cells)
            else:
                self._write_cells(run)
                column = None
