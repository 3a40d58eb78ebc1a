r"""The lines of text in what a terminal is sent: a terminal that keeps letters alone.

A line is complete when the cursor leaves it downwards by a line feed, or when it leaves the screen at the top; rows
that the terminal itself has broken are one line. So a progress bar, which goes back with `\r`, is one line, and what is
drawn on the alternate screen is none. A row that is erased is a new one afterwards.

Only what moves letters is carried out, of ECMA-48 and of xterm's own: cursor moves, erasing, inserting and deleting,
the scroll region, tabs, and the alternate screen. Everything else is skipped.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable

from orbitctl.ui.text import width

_TOKEN = re.compile(
    "(?P<text>[^\x00-\x1f\x7f-\x9f]{1,4096})"
    "|\x1b\\[(?P<params>[0-?]*)[ -/]*(?P<final>[@-~])"
    "|\x1b[\\]PX^_][^\x1b\x07\x18\x1a]*(?:\x1b\\\\|\x07|\x18|\x1a|(?=\x1b[^\\\\]))"
    "|\x1b[ -/]+[0-~]"
    "|\x1b(?P<escape>[0-OQ-WYZ\\\\`-~])"
    "|(?P<control>[\x00-\x1a\x1c-\x1f\x7f-\x9f])",
    re.DOTALL,
)
_PLAIN_LINES = re.compile("(?:(?:[ -~]|\x1b\\[[0-9;:]*m)*\r\n)+")
_COLOURS = re.compile("\x1b\\[[0-9;:]*m")
_NUMBERS = re.compile("[0-9:;]*")
_MAX_UNFINISHED = 1 << 16
"""Characters of a sequence that has no end yet; a longer one is skipped, up to its end."""
_MAX_LINE = 1 << 18
"""Characters of a line that have left the screen; a longer line is broken there."""
_MAX_CELL = 64
"""Characters of a cell: more marks are left out, or a flood of them would take longer with each one."""
_ALTERNATE = frozenset(("47", "1047", "1049"))


def _joined(cell: str, mark: str) -> str:
    return cell + mark if len(cell) < _MAX_CELL else cell


class _Row:
    """One row of the screen: a character for each cell, "" behind a wide one."""

    __slots__ = ("cells", "is_printed", "wraps")

    def __init__(self) -> None:
        self.cells: list[str] = []
        self.wraps = False  # the line goes on in the row below
        self.is_printed = False


class TextLines:
    """Turns bytes for a terminal into lines.

    Args:
        cols: The terminal's columns.
        rows: Its rows.

    Attributes:
        scrolled: How many rows have left the screen at the top.
    """

    def __init__(self, cols: int, rows: int) -> None:
        self._cols, self._height = max(cols, 1), max(rows, 1)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._unfinished = ""
        self._rows = [_Row() for _ in range(self._height)]
        self._main: list[_Row] | None = None  # while the alternate screen is shown
        self._col = self._row = 0
        self._saved = self._main_cursor = (0, 0)
        self._ends: list[int] = []
        self._top, self._bottom = 0, self._height - 1
        self._is_picture = False
        self._last = " "
        self._head: list[str] = []  # cells that have left the screen, of a line that goes on
        self._lines: list[str] = []
        self.scrolled = 0

    def feed(self, data: bytes) -> list[str]:
        """Take output; return the lines that it has completed."""
        self._run(data)
        lines, self._lines = self._lines, []
        return lines

    def draw(self, picture: bytes) -> list[tuple[int, str]]:
        """Take what draws history and screen on an empty terminal.

        Returns:
            The lines that are complete, above the cursor's, each with the row that it ends in, from the first of the
            history on.
        """
        # Here a line feed only moves the cursor: rows that are pushed into the history are what is drawn.
        self._is_picture, self._ends = True, []
        self._run(picture)
        self._is_picture = False
        first = self._line_of(self._row)
        for index in range(first):
            if not self._rows[index].wraps:
                self._complete(index)
                self._ends.append(self.scrolled + index)
        lines, self._lines = self._lines, []
        return list(zip(self._ends, lines, strict=True))

    def next_row(self) -> int:
        """Return the number of the first row that belongs to no complete line, counted with those that have left."""
        rows = self._main or self._rows
        return self.scrolled + next((i for i, row in enumerate(rows) if not row.is_printed), len(rows))

    def finish(self) -> list[str]:
        """Return the lines on the screen that are not complete, when nothing more will come."""
        if self._main is not None:
            self._rows, self._main = self._main, None
        filled = [index for index, row in enumerate(self._rows) if "".join(row.cells).strip()]
        for index in range(filled[-1] + 1 if filled else 0):
            if not self._rows[index].wraps or index == filled[-1]:
                self._complete(index)
        lines, self._lines = self._lines, []
        return lines

    # Reading

    def _run(self, data: bytes) -> None:
        text = self._unfinished + self._decoder.decode(data)
        at = 0
        while at < len(text):
            if at == 0 or text[at - 1] == "\n":
                at += self._plain_lines(text, at)
            found = _TOKEN.match(text, at)
            if found is None:
                if at == len(text):
                    break
                # An escape sequence whose end has not come yet, or one that no rule knows.
                if self._may_go_on(text, at):
                    break
                at += 1
                continue
            at = found.end()
            kind = found.lastgroup
            if kind == "text":
                self._print(found["text"])
            elif kind == "final":
                self._control_sequence(found["params"], found["final"])
            elif kind == "escape":
                self._escape(found["escape"])
            elif kind == "control":
                self._control(found["control"])
        rest = text[at:]
        # Of a long one, how it began and what may be half of its end.
        self._unfinished = rest if len(rest) <= _MAX_UNFINISHED else rest[:2] + rest[-1]

    def _plain_lines(self, text: str, at: int) -> int:
        """Carry out lines that only scroll the screen, ten times as fast; return how many characters they have."""
        rows = self._rows
        is_scrolling = self._row == self._bottom == self._height - 1 and self._top == self._col == 0
        if not is_scrolling or self._is_picture or self._main is not None or rows[-1].cells:
            return 0
        if (found := _PLAIN_LINES.match(text, at)) is None or not all(row.is_printed for row in rows[:-1]):
            return 0
        lines = _COLOURS.sub("", found[0]).split("\r\n")[:-1]
        if max(map(len, lines)) > self._cols:
            return 0
        self._lines += map(str.rstrip, lines)
        for line in lines[-self._height :]:
            rows[-1].cells, rows[-1].is_printed = list(line), True
            del rows[0]
            rows.append(_Row())
        self.scrolled += len(lines)
        self._head.clear()
        return len(found[0])

    @staticmethod
    def _may_go_on(text: str, at: int) -> bool:
        return re.fullmatch("\x1b(?:\\[[0-?]*[ -/]*|[\\]PX^_][^\x1b]*\x1b?|[ -/]*)", text[at:]) is not None

    def _print(self, text: str) -> None:
        self._last = text[-1]
        while text and not text[0].isascii() and width(text[0]) == 0:  # a mark joins the letter before it
            before = self._rows[self._row].cells[: self._col]
            if at := next((i for i in range(len(before), 0, -1) if before[i - 1]), 0):
                self._rows[self._row].cells[at - 1] = _joined(before[at - 1], text[0])
            text = text[1:]
        while text:
            if self._col >= self._cols:
                self._rows[self._row].wraps = True
                self._index(is_wrap=True)
                self._col = 0
            room = self._cols - self._col
            if text.isascii():
                piece, text = list(text[:room]), text[room:]
            else:
                piece, text = self._cells(text, room)
                if not piece:  # a wide character in the last column goes to the next row
                    self._col = self._cols
                    continue
            cells = self._rows[self._row].cells
            if self._col > len(cells):
                cells += " " * (self._col - len(cells))
            cells[self._col : self._col + len(piece)] = piece
            self._col += len(piece)

    def _cells(self, text: str, room: int) -> tuple[list[str], str]:
        """Return cells for the beginning of a text, and the rest of it; a mark without a width joins its letter."""
        cells: list[str] = []
        for index, letter in enumerate(text):
            columns = width(letter)
            if columns == 0:
                if cells:
                    at = len(cells) - 1 if cells[-1] else len(cells) - 2  # "" stands behind a wide one
                    cells[at] = _joined(cells[at], letter)
                continue
            if len(cells) + columns > room:
                return (cells or ([" "] if columns > self._cols else [])), text[index + (columns > self._cols) :]
            cells += [letter, ""][:columns]
        return cells, ""

    def _control(self, letter: str) -> None:
        if letter in "\n\v\f\x84":
            self._index()
        elif letter == "\r":
            self._col = 0
        elif letter == "\b":
            self._col = max(0, self._at() - 1)
        elif letter == "\t":
            self._col = min((self._col // 8 + 1) * 8, self._cols - 1)
        elif letter == "\x85":
            self._index()
            self._col = 0

    def _escape(self, letter: str) -> None:
        if letter in "DE":
            self._index()
            self._col = 0 if letter == "E" else self._col
        elif letter == "M":
            if self._row == self._top:
                self._insert(self._top, 1)
            else:
                self._row = max(0, self._row - 1)
        elif letter == "7":
            self._save()
        elif letter == "8":
            self._restore()
        elif letter == "c":
            self._use_alternate(False)
            self._rows = [_Row() for _ in range(self._height)]
            self._row = self._col = 0
            self._top, self._bottom = 0, self._height - 1

    def _control_sequence(self, text: str, final: str) -> None:
        if text[:1] == "?" and final in "hl" and not _ALTERNATE.isdisjoint(text[1:].split(";")):
            self._use_alternate(final == "h")
        if text[:1] in ("<", "=", ">", "?") or not _NUMBERS.fullmatch(text):
            return
        numbers = [int(part.split(":")[0][:5] or 0) for part in text.split(";")]
        carry_out = _SEQUENCES.get(final)
        if carry_out is not None:
            carry_out(self, numbers[0], max(numbers[0], 1), numbers[1] if len(numbers) > 1 else 0)

    def _shift(self, at: int, count: int, *, inserts: bool) -> None:
        if self._top <= at <= self._bottom:
            (self._insert if inserts else self._delete)(at, count)

    def _scroll_by(self, count: int) -> None:
        for _ in range(min(count, self._height)):
            self._scroll()

    def _set_region(self, top: int, bottom: int) -> None:
        self._top, self._bottom = top - 1, min(bottom or self._height, self._height) - 1
        if self._top >= self._bottom:
            self._top, self._bottom = 0, self._height - 1
        self._move(0, 0)

    def _save(self) -> None:
        self._saved = self._row, self._col

    def _restore(self) -> None:
        self._row, self._col = self._saved

    def _at(self) -> int:
        """Return the cursor's column; behind the last one it is on the last, until something is printed."""
        return min(self._col, self._cols - 1)

    # The screen

    def _move(self, row: int, col: int) -> None:
        self._row, self._col = min(max(row, 0), self._height - 1), min(max(col, 0), self._cols - 1)

    def _index(self, *, is_wrap: bool = False) -> None:
        """Move the cursor down; at the bottom the screen scrolls. The line that it leaves is complete."""
        if not (is_wrap or self._is_picture or self._main is not None):
            self._rows[self._row].wraps = False
            self._complete(self._row)
        if self._row == self._bottom:
            self._scroll()
        elif self._row < self._height - 1:
            self._row += 1

    def _scroll(self) -> None:
        """Move the rows of the scroll region up by one; the topmost of the screen goes into the history."""
        if self._top == 0 and self._main is None:
            row = self._rows[0]
            if not row.wraps:
                self._complete(0)
                self._head.clear()
            elif not row.is_printed:
                self._head += row.cells
                if len(self._head) > _MAX_LINE:
                    self._lines.append("".join(self._head))
                    self._head.clear()
            if self._is_picture and len(self._ends) < len(self._lines):
                self._ends.append(self.scrolled)
            self.scrolled += 1
        self._delete(self._top, 1)

    def _complete(self, index: int) -> None:
        """Return the line that ends in a row with the next lines, unless that was done."""
        first = self._line_of(index)
        rows = self._rows[first : index + 1]
        if not rows[-1].is_printed:
            head = self._head if first == 0 else []
            self._lines.append("".join([*head, *(cell for row in rows for cell in row.cells)]).rstrip())
        for row in rows:
            row.is_printed = True

    def _line_of(self, index: int) -> int:
        """Return the row in which the line of a row begins."""
        while index > 0 and self._rows[index - 1].wraps:
            index -= 1
        return index

    def _insert(self, at: int, count: int) -> None:
        for _ in range(min(count, self._bottom - at + 1)):
            del self._rows[self._bottom]
            self._rows.insert(at, _Row())

    def _delete(self, at: int, count: int) -> None:
        for _ in range(min(count, self._bottom - at + 1)):
            del self._rows[at]
            self._rows.insert(self._bottom, _Row())

    def _erase_display(self, how: int) -> None:
        if how == 0:
            self._erase_line(0)
        elif how == 1:
            self._erase_line(1)
        rows = range(self._row + 1, self._height) if how == 0 else range(self._row) if how == 1 else ()
        for index in range(self._height) if how == 2 else rows:
            self._rows[index] = _Row()

    def _erase_line(self, how: int) -> None:
        row = self._rows[self._row]
        if how != 1:
            row.wraps = False
        if how == 2 or (how == 0 and self._col == 0):
            self._rows[self._row] = _Row()
        elif how == 0:
            del row.cells[self._col :]
        else:
            count = min(self._col + 1, len(row.cells))
            row.cells[:count] = " " * count

    def _edit_line(self, final: str, count: int) -> None:
        cells, col = self._rows[self._row].cells, self._at()
        if final == "P":
            del cells[col : col + count]
        elif col < len(cells):
            blanks = [" "] * min(count, self._cols - col)
            cells[col : col + len(blanks) if final == "X" else col] = blanks
            del cells[self._cols :]

    def _use_alternate(self, wanted: bool) -> None:
        if wanted and self._main is None:
            self._main, self._rows = self._rows, [_Row() for _ in range(self._height)]
            self._main_cursor = self._row, self._col
        elif not wanted and self._main is not None:
            self._rows, self._main = self._main, None
            self._row, self._col = self._main_cursor


_SEQUENCES: dict[str, Callable[[TextLines, int, int, int], None]] = {
    "A": lambda it, _, count, __: it._move(it._row - count, it._at()),
    "B": lambda it, _, count, __: it._move(it._row + count, it._at()),
    "e": lambda it, _, count, __: it._move(it._row + count, it._at()),
    "C": lambda it, _, count, __: it._move(it._row, it._at() + count),
    "a": lambda it, _, count, __: it._move(it._row, it._at() + count),
    "D": lambda it, _, count, __: it._move(it._row, it._at() - count),
    "E": lambda it, _, count, __: it._move(it._row + count, 0),
    "F": lambda it, _, count, __: it._move(it._row - count, 0),
    "G": lambda it, _, col, __: it._move(it._row, col - 1),
    "`": lambda it, _, col, __: it._move(it._row, col - 1),
    "d": lambda it, _, row, __: it._move(row - 1, it._at()),
    "H": lambda it, _, row, col: it._move(row - 1, max(col, 1) - 1),
    "f": lambda it, _, row, col: it._move(row - 1, max(col, 1) - 1),
    "J": lambda it, how, _, __: it._erase_display(how),
    "K": lambda it, how, _, __: it._erase_line(how),
    "X": lambda it, _, count, __: it._edit_line("X", count),
    "@": lambda it, _, count, __: it._edit_line("@", count),
    "P": lambda it, _, count, __: it._edit_line("P", count),
    "L": lambda it, _, count, __: it._shift(it._row, count, inserts=True),
    "M": lambda it, _, count, __: it._shift(it._row, count, inserts=False),
    "S": lambda it, _, count, __: it._scroll_by(count),
    "T": lambda it, _, count, __: it._insert(it._top, count),
    "b": lambda it, _, count, __: it._print(it._last * min(count, it._cols * it._height)),
    "r": lambda it, _, top, bottom: it._set_region(top, bottom),
    "s": lambda it, *_: it._save(),
    "u": lambda it, *_: it._restore(),
}
"""What is done for a control sequence with a final character: given its first number, 0 where there is none; that as a
count, 1 where there is none; and its second number."""


def lines_of(picture: bytes, cols: int, rows: int) -> list[str]:
    """Return all lines of a picture of history and screen."""
    lines = TextLines(cols, rows)
    return [line for _, line in lines.draw(picture)] + lines.finish()
