r"""A terminal in memory, that of a film, and how it is drawn on a window of any size. No I/O.

It carries out what programs are written for: moves, erasing, inserting, margins, colours, tabs, line drawing, the
alternate screen (ECMA-48, and xterm's and DEC's own). Everything else is skipped. It rewraps no line where the size
changes: the player asks the daemon for the picture behind that.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from orbitctl.ui.text import width

_TOKEN = re.compile(
    "(?P<text>[^\x00-\x1f\x7f-\x9f]{1,4096})"
    "|\x1b\\[(?P<params>[0-?]*)(?P<between>[ -/]*)(?P<final>[@-~])"
    "|\x1b\\](?P<osc>[^\x1b\x07\x18\x1a]*)(?:\x1b\\\\|\x07|\x18|\x1a|(?=\x1b[^\\\\]))"
    "|\x1b[PX^_][^\x1b\x07\x18\x1a]*(?:\x1b\\\\|\x07|\x18|\x1a|(?=\x1b[^\\\\]))"
    "|\x1b(?P<designator>[ -/]+)(?P<charset>[0-~])"
    "|\x1b(?P<escape>[0-OQ-WYZ\\\\`-~])"
    "|(?P<control>[\x00-\x1a\x1c-\x1f\x7f-\x9f])",
    re.DOTALL,
)
_UNFINISHED = re.compile("\x1b(?:\\[[0-?]*[ -/]*|[\\]PX^_][^\x1b\x07\x18\x1a]*\x1b?|[ -/]*)")
_MAX_UNFINISHED = 1 << 16
"""Characters of a sequence that has no end yet; of a longer one, its beginning and end are kept."""
_MAX_CELL = 16
"""Characters of a cell: more marks are left out."""
_MAX_TITLE = 256
_NUMBERS = re.compile("[0-9:;]*")
_LINE_DRAWING = dict(zip(range(0x60, 0x7F), "◆▒␉␌␍␊°±␤␋┘┐┌└┼⎺⎻─⎼⎽├┤┴┬│≤≥π≠£·", strict=True))
_MAX_COLS, _MAX_ROWS = 1_000, 1_000
"""A film that says that it has more is drawn as if it had so many."""

_CHANGES: dict[int, tuple[tuple[str, str], ...]] = {
    **{code: ((str(code), str(code)),) for code in (1, 2, 3, 4, 5, 7, 8, 9, 21, 53)},
    6: (("5", "5"),),
    22: (("1", ""), ("2", "")),
    23: (("3", ""),),
    24: (("4", ""), ("21", "")),
    25: (("5", ""),),
    27: (("7", ""),),
    28: (("8", ""),),
    29: (("9", ""),),
    55: (("53", ""),),
    **{code: (("f", f"f{code}"),) for code in (*range(30, 38), *range(90, 98))},
    **{code: (("b", f"b{code}"),) for code in (*range(40, 48), *range(100, 108))},
    39: (("f", ""),),
    49: (("b", ""),),
}
"""What a parameter of SGR changes: parts of the pen, "" for none."""


@lru_cache(maxsize=4_096)
def next_pen(pen: str, params: str) -> str:
    """Return the pen behind an SGR sequence; a pen is the parameters of one that sets it on a plain one.

    Args:
        pen: The pen before: attributes, `f` and the foreground, `b` and the background, each behind a blank.
        params: The sequence's parameters.
    """
    parts = {part if part[0] not in "fb" else part[0]: part for part in pen.split()}
    groups = [group.split(":") for group in params.split(";")]
    while groups:
        group = groups.pop(0)
        code = _number(group[0])
        if code == 0:
            parts.clear()
        elif code in (38, 48, 58):  # of the underline, 58, it is taken and not drawn
            if (color := _color(group[1:], groups)) and code != 58:
                side = "f" if code == 38 else "b"
                parts[side] = f"{side}{code};{color}"
        else:
            is_none = code == 4 and len(group) > 1 and _number(group[1]) == 0
            parts.update(_CHANGES.get(24 if is_none else code, ()))
    return " ".join(filter(None, parts.values()))


def _color(inner: list[str], rest: list[list[str]]) -> str:
    """Return the parameters of an extended colour, of `38:5:N` or of `38;5;N`, whose own are taken from the rest."""
    if inner:
        kind, values = _number(inner[0]), [_number(value) for value in inner[1:]]
        if kind == 2 and len(values) > 3:
            values = values[1:4]  # the first is the colour space (ISO 8613-6)
    else:
        kind = _number(rest.pop(0)[0]) if rest else 0
        count = {5: 1, 2: 3}.get(kind, 0)
        values = [_number(group[0]) for group in rest[:count]]
        del rest[:count]
    if (kind, len(values)) not in ((5, 1), (2, 3)) or max(values) > 255:
        return ""
    return ";".join(map(str, (kind, *values)))


def _number(digits: str) -> int:
    return int(digits[:6] or 0) if digits.isascii() and (digits.isdigit() or not digits) else 0


class Line:
    """One row: a character for each cell, "" behind a wide one, and the pen of each."""

    __slots__ = ("cells", "pens")

    def __init__(self, cols: int, pen: str = "") -> None:
        self.cells = [" "] * cols
        self.pens = [pen] * cols


class FilmScreen:
    """The screen of a film.

    Args:
        cols: Columns.
        rows: Rows.

    Attributes:
        row: The cursor's, from 0.
        col: The cursor's; that of the last column also behind it.
        is_cursor_shown: Whether the program shows it.
        is_reverse: Whether the whole screen is in reverse video (DECSCNM).
        title: The window's title, as the program has set it.
    """

    def __init__(self, cols: int, rows: int) -> None:
        self.cols, self.rows = _within(cols, rows)
        self.title = ""
        self._unfinished = ""
        self._reset()

    def _reset(self) -> None:
        self._lines = [Line(self.cols) for _ in range(self.rows)]
        self._primary: list[Line] | None = None  # while the alternate screen is shown
        self._pen = ""
        self.row = self.col = 0
        self._is_behind = False  # the next character goes to the next row
        self.is_cursor_shown, self.is_reverse = True, False
        self._wraps, self._inserts, self._is_origin = True, False, False
        self._charsets, self._charset = ["B", "B"], 0
        self._top, self._bottom = 0, self.rows - 1
        self._tabs = set(range(0, _MAX_COLS, 8))
        self._last = " "
        self._saved: dict[bool, tuple[int, int, str, bool, list[str], int]] = {}

    def line(self, row: int) -> Line:
        """Return a row, from 0."""
        return self._lines[row]

    def text(self) -> list[str]:
        """Return the rows as text, without blanks at the end of each."""
        return ["".join(line.cells).rstrip() for line in self._lines]

    def resize(self, cols: int, rows: int) -> None:
        """Give it another size; rows go at the top where the cursor would be outside, and lines are cut off."""
        cols, rows = _within(cols, rows)
        for lines in (self._lines, self._primary or []):
            del lines[: max(0, min(self.row - rows + 1, len(lines) - rows))]
            del lines[rows:]
            lines += [Line(cols) for _ in range(rows - len(lines))]
            for line in lines:
                more = cols - len(line.cells)
                line.cells = line.cells[:cols] + [" "] * more
                line.pens = line.pens[:cols] + [""] * more
                if not more and width(line.cells[-1]) > 1:
                    line.cells[-1] = " "
        self.row = max(0, self.row - max(0, self.row - rows + 1))
        self.cols, self.rows = cols, rows
        self.col = min(self.col, cols - 1)
        self._is_behind = False
        self._top, self._bottom = 0, rows - 1

    # Reading

    def feed(self, text: str) -> None:
        """Carry out output; the beginning of a sequence waits for its end."""
        text, at = self._unfinished + text, 0
        self._unfinished = ""
        while at < len(text):
            found = _TOKEN.match(text, at)
            if found is None:
                if _UNFINISHED.fullmatch(text, at):
                    rest = text[at:]
                    self._unfinished = rest if len(rest) <= _MAX_UNFINISHED else rest[:_MAX_TITLE] + rest[-1]
                    return
                at += 1  # an ESC of a sequence that no rule knows
                continue
            at = found.end()
            kind = found.lastgroup
            if kind == "text":
                self._print(found["text"])
            elif kind == "final":
                self._control_sequence(found["params"], found["between"], found["final"])
            elif kind == "control":
                self._control(found["control"])
            elif kind == "escape":
                self._escape(found["escape"])
            elif kind == "charset":
                self._designate(found["designator"], found["charset"])
            elif kind == "osc" and found["osc"][:2] in ("0;", "2;"):
                self.title = found["osc"][2 : 2 + _MAX_TITLE]

    def _print(self, text: str) -> None:
        if self._charsets[self._charset] == "0":
            text = text.translate(_LINE_DRAWING)
        if text.isascii() and not self._inserts:
            self._print_ascii(text)
            return
        for letter in text:
            columns = width(letter)
            if columns == 0:
                self._join(letter)
            elif columns <= self.cols:
                self._put(letter, columns)

    def _print_ascii(self, text: str) -> None:
        self._last = text[-1]
        at = 0
        while at < len(text):
            if self._is_behind and self._wraps:
                self._next_line()
            if self.cols - self.col == 1:
                self._put(text[at] if self._wraps else text[-1], 1)
                at = at + 1 if self._wraps else len(text)
                continue
            line = self._lines[self.row]
            piece = text[at : at + self.cols - self.col]
            end = self.col + len(piece)
            self._split(line, self.col, end)
            line.cells[self.col : end] = piece
            line.pens[self.col : end] = [self._pen] * len(piece)
            at += len(piece)
            self._is_behind = end == self.cols
            self.col = min(end, self.cols - 1)

    def _put(self, letter: str, columns: int) -> None:
        """Print one character."""
        self._last = letter
        if self._wraps and (self._is_behind or self.col + columns > self.cols):
            self._next_line()
        col = min(self.col, self.cols - columns)
        line = self._lines[self.row]
        if self._inserts:
            self._edit("@", columns)
        self._split(line, col, col + columns)
        line.cells[col : col + columns] = [letter, ""][:columns]
        line.pens[col : col + columns] = [self._pen] * columns
        self._is_behind = col + columns >= self.cols
        self.col = min(col + columns, self.cols - 1)

    def _join(self, mark: str) -> None:
        """Add a mark without a width to the character before the cursor."""
        col = self.col if self._is_behind else self.col - 1
        cells = self._lines[self.row].cells
        if col > 0 and not cells[col]:
            col -= 1
        if col >= 0 and len(cells[col]) < _MAX_CELL:
            cells[col] += mark

    @staticmethod
    def _split(line: Line, start: int, end: int) -> None:
        """Leave no half of a wide character where cells are written."""
        if not line.cells[start] and start:
            line.cells[start - 1] = " "
        if end < len(line.cells) and not line.cells[end]:
            line.cells[end] = " "

    def _next_line(self) -> None:
        self._index()
        self.col = 0

    # Control characters and short sequences

    def _control(self, letter: str) -> None:
        if letter in "\n\v\f\x84":
            self._index()
        elif letter == "\r":
            self._move_to(self.row, 0)
        elif letter == "\b":
            self._move_to(self.row, self.col - 1)
        elif letter == "\t":
            self._tab(1)
        elif letter in "\x0e\x0f":
            self._charset = int(letter == "\x0e")
        elif letter == "\x85":
            self._next_line()
        elif letter == "\x8d":
            self._reverse_index()

    def _escape(self, letter: str) -> None:
        carry_out = _ESCAPES.get(letter)
        if carry_out is not None:
            carry_out(self)

    def _designate(self, designator: str, charset: str) -> None:
        if designator in ("(", ")"):
            self._charsets[designator == ")"] = charset
        elif designator + charset == "#8":
            for line in self._lines:
                line.cells, line.pens = ["E"] * self.cols, [""] * self.cols
            self._move_to(0, 0)

    def _tab(self, count: int) -> None:
        step = 1 if count > 0 else -1
        col = self.col
        for _ in range(min(abs(count), self.cols)):
            col += step
            while 0 < col < self.cols - 1 and col not in self._tabs:
                col += step
        self._move_to(self.row, col)

    def _index(self) -> None:
        self._is_behind = False
        if self.row == self._bottom:
            self._delete_lines(self._top, 1)
        elif self.row < self.rows - 1:
            self.row += 1

    def _reverse_index(self) -> None:
        self._is_behind = False
        if self.row == self._top:
            self._insert_lines(self._top, 1)
        elif self.row > 0:
            self.row -= 1

    def _save(self) -> None:
        state = self.row, self.col, self._pen, self._is_origin, list(self._charsets), self._charset
        self._saved[self._primary is not None] = state

    def _restore(self) -> None:
        start = 0, 0, "", False, ["B", "B"], 0
        row, col, self._pen, self._is_origin, charsets, self._charset = self._saved.get(
            self._primary is not None, start
        )
        self._charsets = list(charsets)
        self._move_to(row, col)

    # Control sequences

    def _control_sequence(self, params: str, between: str, final: str) -> None:
        if params[:1] == "?":
            if final in "hl" and not between:
                for number in params[1:].split(";"):
                    self._set_mode(_number(number), is_on=final == "h")
            elif final == "W":
                self._tabs = set(range(0, _MAX_COLS, 8))
            return
        if between == "!" and final == "p":  # DECSTR
            self._soft_reset()
        if between or not _NUMBERS.fullmatch(params):
            return
        if final == "m":
            self._pen = next_pen(self._pen, params[:256])
            return
        numbers = [_number(part.split(":")[0]) for part in params[:256].split(";")]
        carry_out = _SEQUENCES.get(final)
        if carry_out is not None:
            carry_out(self, numbers[0], max(numbers[0], 1), numbers[1] if len(numbers) > 1 else 0)

    def _soft_reset(self) -> None:
        self._pen, self._wraps, self._inserts, self._is_origin = "", True, False, False
        self.is_cursor_shown, self._charsets, self._charset = True, ["B", "B"], 0
        self._top, self._bottom = 0, self.rows - 1

    def _set_mode(self, number: int, *, is_on: bool) -> None:
        if number == 5:
            self.is_reverse = is_on
        elif number == 6:
            self._is_origin = is_on
            self._place(0, 0)
        elif number == 7:
            self._wraps = is_on
        elif number == 25:
            self.is_cursor_shown = is_on
        elif number == 1048:
            (self._save if is_on else self._restore)()
        elif number in (47, 1047, 1049):
            self._use_alternate(number, wanted=is_on)

    def _use_alternate(self, number: int, *, wanted: bool) -> None:
        if wanted and self._primary is None:
            if number == 1049:
                self._save()
            self._primary, self._lines = self._lines, [Line(self.cols) for _ in range(self.rows)]
        elif not wanted and self._primary is not None:
            self._lines, self._primary = self._primary, None
            if number == 1049:
                self._restore()
        self._is_behind = False

    def _set_ansi_mode(self, number: int, *, is_on: bool) -> None:
        if number == 4:
            self._inserts = is_on

    def _set_margins(self, top: int, bottom: int) -> None:
        bottom = min(bottom or self.rows, self.rows)
        if top < bottom:
            self._top, self._bottom = top - 1, bottom - 1
            self._place(0, 0)

    def _place(self, row: int, col: int) -> None:
        """Move the cursor to a place, which is counted from the margins in origin mode."""
        if self._is_origin:
            row = min(row + self._top, self._bottom)
        self._move_to(row, col)

    def _move_to(self, row: int, col: int) -> None:
        self.row, self.col = min(max(row, 0), self.rows - 1), min(max(col, 0), self.cols - 1)
        self._is_behind = False

    def _move_rows(self, count: int, *, to_start: bool = False) -> None:
        """Move the cursor up or down, not beyond a margin that it is within."""
        row = self.row + count
        if count < 0 and self.row >= self._top:
            row = max(row, self._top)
        elif count > 0 and self.row <= self._bottom:
            row = min(row, self._bottom)
        self._move_to(row, 0 if to_start else self.col)

    def _blank(self) -> Line:
        return Line(self.cols, self._background)

    @property
    def _background(self) -> str:
        """Return the pen of cells that are erased: the background alone."""
        return next((part for part in self._pen.split() if part[0] == "b"), "")

    def _erase_display(self, how: int) -> None:
        if how in (0, 1):
            self._erase_line(how)
        rows = {0: range(self.row + 1, self.rows), 1: range(self.row), 2: range(self.rows)}.get(how, range(0))
        for row in rows:
            self._lines[row] = self._blank()
        self._is_behind = False

    def _erase_line(self, how: int) -> None:
        start, end = {0: (self.col, self.cols), 1: (0, self.col + 1), 2: (0, self.cols)}.get(how, (0, 0))
        self._erase(start, end)

    def _erase(self, start: int, end: int) -> None:
        line, end = self._lines[self.row], min(end, self.cols)
        if start >= end:
            return
        self._split(line, start, end)
        line.cells[start:end] = [" "] * (end - start)
        line.pens[start:end] = [self._background] * (end - start)
        self._is_behind = False

    def _edit(self, final: str, count: int) -> None:
        """Insert blank cells at the cursor (`@`), or delete cells (`P`)."""
        line, col = self._lines[self.row], self.col
        count = min(count, self.cols - col)
        self._split(line, col, col)
        for cells, blank in ((line.cells, " "), (line.pens, self._background)):
            if final == "P":
                del cells[col : col + count]
                cells += [blank] * count
            else:
                cells[col:col] = [blank] * count
                del cells[self.cols :]
        if not line.cells[col]:
            line.cells[col] = " "
        if width(line.cells[-1]) > 1:
            line.cells[-1] = " "
        self._is_behind = False

    def _shift_lines(self, count: int, *, inserts: bool) -> None:
        if self._top <= self.row <= self._bottom:
            (self._insert_lines if inserts else self._delete_lines)(self.row, count)
            self._move_to(self.row, 0)

    def _insert_lines(self, at: int, count: int) -> None:
        for _ in range(min(count, self._bottom - at + 1)):
            del self._lines[self._bottom]
            self._lines.insert(at, self._blank())

    def _delete_lines(self, at: int, count: int) -> None:
        for _ in range(min(count, self._bottom - at + 1)):
            del self._lines[at]
            self._lines.insert(self._bottom, self._blank())

    def _clear_tabs(self, how: int) -> None:
        if how == 3:
            self._tabs.clear()
        elif how == 0:
            self._tabs.discard(self.col)

    def _full_reset(self) -> None:
        title = self.title
        self._reset()
        self.title = title


def _within(cols: int, rows: int) -> tuple[int, int]:
    return min(max(cols, 1), _MAX_COLS), min(max(rows, 1), _MAX_ROWS)


_ESCAPES: dict[str, Callable[[FilmScreen], None]] = {
    "D": FilmScreen._index,
    "E": FilmScreen._next_line,
    "M": FilmScreen._reverse_index,
    "7": FilmScreen._save,
    "8": FilmScreen._restore,
    "c": FilmScreen._full_reset,
    "H": lambda it: it._tabs.add(it.col),
}

_SEQUENCES: dict[str, Callable[[FilmScreen, int, int, int], None]] = {
    "A": lambda it, _, count, __: it._move_rows(-count),
    "B": lambda it, _, count, __: it._move_rows(count),
    "e": lambda it, _, count, __: it._move_rows(count),
    "C": lambda it, _, count, __: it._move_to(it.row, it.col + count),
    "a": lambda it, _, count, __: it._move_to(it.row, it.col + count),
    "D": lambda it, _, count, __: it._move_to(it.row, it.col - count),
    "E": lambda it, _, count, __: it._move_rows(count, to_start=True),
    "F": lambda it, _, count, __: it._move_rows(-count, to_start=True),
    "G": lambda it, _, col, __: it._move_to(it.row, col - 1),
    "`": lambda it, _, col, __: it._move_to(it.row, col - 1),
    "d": lambda it, _, row, __: it._place(row - 1, it.col),
    "H": lambda it, _, row, col: it._place(row - 1, max(col, 1) - 1),
    "f": lambda it, _, row, col: it._place(row - 1, max(col, 1) - 1),
    "I": lambda it, _, count, __: it._tab(count),
    "Z": lambda it, _, count, __: it._tab(-count),
    "J": lambda it, how, _, __: it._erase_display(how),
    "K": lambda it, how, _, __: it._erase_line(how),
    "X": lambda it, _, count, __: it._erase(it.col, it.col + count),
    "@": lambda it, _, count, __: it._edit("@", count),
    "P": lambda it, _, count, __: it._edit("P", count),
    "L": lambda it, _, count, __: it._shift_lines(count, inserts=True),
    "M": lambda it, _, count, __: it._shift_lines(count, inserts=False),
    "S": lambda it, _, count, __: it._delete_lines(it._top, count),
    "T": lambda it, _, count, __: it._insert_lines(it._top, count),
    "b": lambda it, _, count, __: it._print(it._last * min(count, it.cols * it.rows)),
    "g": lambda it, how, _, __: it._clear_tabs(how),
    "h": lambda it, mode, _, __: it._set_ansi_mode(mode, is_on=True),
    "l": lambda it, mode, _, __: it._set_ansi_mode(mode, is_on=False),
    "r": lambda it, _, top, bottom: it._set_margins(top, bottom),
    "s": lambda it, *_: it._save(),
    "u": lambda it, *_: it._restore(),
}
"""What is done for a control sequence with a final character: given its first number, 0 where there is none; that as a
count, 1 where there is none; and its second number."""


def draw_line(line: Line, left: int, cols: int, *, is_reverse: bool = False) -> bytes:
    """Return what draws the columns of a row from `left` on, from a plain pen to a plain pen, with autowrap off.

    Of a wide character that the edge cuts, a blank is left.

    Args:
        line: The row.
        left: The first column that is drawn.
        cols: The window's.
        is_reverse: Whether the screen is in reverse video.
    """
    cells, pens = line.cells[left : left + cols], line.pens[left : left + cols]
    if is_reverse:
        pens = [next_pen(pen, "27" if "7" in pen.split() else "7") for pen in pens]
    if cells and not cells[0]:
        cells[0] = " "
    if cells and left + cols < len(line.cells) and not line.cells[left + cols]:
        cells[-1] = " "
    end = len(cells)
    while end and cells[end - 1] == " " and not _is_seen_on_blank(pens[end - 1]):
        end -= 1
    drawn: list[str] = []
    pen = ""
    for col, cell in enumerate(cells[:end]):
        if pens[col] != pen:
            pen = pens[col]
            drawn.append("\x1b[0" + "".join(f";{part.lstrip('fb')}" for part in pen.split()) + "m")
        drawn.append(cell)
        # Terminals do not agree on how wide such a character is.
        if not cell.isascii() and (len(cell) > 1 or width(cell) > 1):
            columns = 1 + (cells[col + 1 : col + 2] == [""])
            drawn.append(f"\x1b[{min(col + columns, cols - 1) + 1}G")
    text = "".join(drawn) + ("\x1b[0m" if pen else "") + ("\x1b[K" if end < cols else "")
    return text.encode(errors="replace")


def _is_seen_on_blank(pen: str) -> bool:
    return any(part[0] == "b" or part in ("4", "7", "9", "21", "53") for part in pen.split())
