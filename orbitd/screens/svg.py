"""Rows as an SVG picture, for `session.screen`: no I/O, no emulator.

It shows the same as an `<img>` and inside a page: there are no scripts, no style sheet (a page's would get its rules),
no references and no fonts but the viewer's. Attributes are quoted with `'`, which JSON need not escape.

A character belongs into its cell, whatever font the viewer has. So text is cut where characters of another kind begin,
each piece begins at its column, and `textLength` gives it the width of its cells. Lines of boxes and block elements are
drawn, since few fonts have those that touch at every line height. Backgrounds, underlines and the cursor are drawn too:
viewers disagree about those of text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from orbitd.screens.boxes import box_shapes
from orbitd.screens.model import Cursor, Rgb, Row, Run, Style, TooLarge
from orbitd.screens.render import Theme, cursor_cells
from orbitd.screens.vt_writer import has_agreed_width

CELL_WIDTH, CELL_HEIGHT = 9, 18
"""Of the picture's own units: three fifths of the font's size, as most fonts for terminals have it."""

MAX_PIECES = 50_000
"""Of text and background. A screen of 300x160 cells that all look different has fewer; in the worst case they take
about a second, and some megabytes."""

_FONT_SIZE, _BASELINE = 15, 14
_FONTS = "ui-monospace,Menlo,Consolas,DejaVu Sans Mono,Liberation Mono,monospace"
# More than one blank begins another piece: viewers disagree about whether several are kept.
_WORDS = re.compile("[^ ]+(?: [^ ]+)*")
# What XML 1.0 does not allow, what ends a line, and what changes the direction of the text behind it.
FORBIDDEN = re.compile(
    "[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|[\t\n\r\x7f-\x9f\u2028-\u202e\u2066-\u2069]"
)
_SPECIAL = re.compile("[&<>]")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_FAINT = 0.5
_DASHES = {4: " stroke-dasharray='1.5'", 5: " stroke-dasharray='4.5 2.25'"}


def to_svg(rows: Iterable[Row], size: tuple[int, int], theme: Theme, cursor: Cursor | None = None) -> str:
    """Return rows as an SVG document.

    Args:
        rows: The rows.
        size: Columns, and how many rows there are.
        theme: The colours.
        cursor: Drawn if not None, where it is in these rows, and visible.

    Raises:
        TooLarge: There is more to draw than `MAX_PIECES`.
    """
    cols, count = size
    width, height = cols * CELL_WIDTH, count * CELL_HEIGHT
    picture = _Picture(theme)
    for number, row in enumerate(rows):
        here = cursor if cursor is not None and cursor.visible and cursor.row == number else None
        picture.add_row(number, row, here, cols)
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' viewBox='0 0 {width} {height}' "
        f"font-family='{_FONTS}' font-size='{_FONT_SIZE}' fill='{theme.css(None, theme.foreground)}' "
        f"direction='ltr'>"
        f"<path fill='{theme.css(None, theme.background)}' d='M0 0h{width}v{height}H0z'/>"
        f"{picture.backgrounds()}{picture.text()}{picture.lines()}</svg>\n"
    )


class _Picture:
    """What is drawn so far: rectangles and lines by their colours, and text row by row."""

    def __init__(self, theme: Theme) -> None:
        self._theme = theme
        self._pieces = 0
        # By colour, then by column and width: where the last rectangle begins, and behind which row it ends.
        self._open = dict[str, dict[tuple[int, int], tuple[int, int]]]()
        self._rectangles = dict[str, list[str]]()
        self._boxes = dict[str, list[str]]()
        self._strokes = dict[tuple[str, str], list[str]]()
        self._bars = dict[str, list[str]]()
        self._text = list[str]()
        self._looks = dict[Style, tuple[str, str, str]]()

    def add_row(self, number: int, row: Row, cursor: Cursor | None, cols: int) -> None:
        """Add a row, with the cursor in it if there is one. Raises: TooLarge."""
        if cursor is not None:
            row, cell = cursor_cells(row, cursor.column)
            x, width = cell.column, len(cell.cells)
            color = self._theme.css(None, self._theme.cursor)
            shape = cursor.block_underline_or_bar
            if shape == 1:
                cell = self._theme.under_block(cell)
            elif shape == 2:
                self._bar(color, x, number, f"m0 {CELL_HEIGHT - 2}h{width * CELL_WIDTH}v2h-{width * CELL_WIDTH}z")
            else:
                self._bar(color, x, number, f"h2v{CELL_HEIGHT}h-2z")
            row = Row(runs=tuple(cell if each.column == x else each for each in row.runs))
        background, start, end = "", 0, 0
        for run in row.runs:
            color = self._add_run(number, run)
            if color != background or run.column != end:
                self._fill(background, start, end, number)
                background, start = color, run.column
            end = run.column + len(run.cells)
        self._fill(background, start, end, number)

    def _bar(self, color: str, column: int, row: int, path: str) -> None:
        self._bars.setdefault(color, []).append(f"M{column * CELL_WIDTH} {row * CELL_HEIGHT}{path}")

    def _add_run(self, number: int, run: Run) -> str:
        """Add the text of a run, and the lines at it; return its background, "" for the picture's."""
        self._pieces += 1
        if self._pieces > MAX_PIECES:
            raise TooLarge("there is too much to draw as svg")
        style = run.style
        fill, background, attributes = self._look(style)
        if run.blank or style.invisible:
            return background
        for column, width, text, is_other in _pieces(run):
            if is_other and (shapes := box_shapes(text, column * CELL_WIDTH, number * CELL_HEIGHT)) is not None:
                for shape in shapes:
                    opacity = "" if shape.opacity == 4 else f"' fill-opacity='{shape.opacity / 4:g}"
                    self._boxes.setdefault(fill + opacity, []).append(shape.path)
                continue
            self._add_text(number, column, width, text, attributes, is_other=is_other)
        if style.underline or style.strikethrough or style.overline:
            self._add_lines(number, run, fill)
        return background

    def _look(self, style: Style) -> tuple[str, str, str]:
        """Return the text's colour, the background's or "", and the attributes of text."""
        if style not in self._looks:
            theme = self._theme
            fg, bg = theme.rgb(style.fg, theme.foreground), theme.rgb(style.bg, theme.background)
            if style.inverse:
                fg, bg = bg, fg
            background = _css(bg) if style.inverse or style.bg is not None else ""
            if style.faint:
                red, green, blue = (
                    round(of_bg + (of_fg - of_bg) * _FAINT) for of_fg, of_bg in zip(fg, bg, strict=True)
                )
                fg = (red, green, blue)
            attributes = "" if fg == theme.foreground else f" fill='{_css(fg)}'"
            attributes += " font-weight='bold'" * style.bold + " font-style='italic'" * style.italic
            self._looks[style] = (_css(fg), background, attributes)
        return self._looks[style]

    def _fill(self, color: str, column: int, behind: int, row: int) -> None:
        """Fill cells of a row, if it is with a colour; a rectangle is continued where the row above has the same."""
        if not color:
            return
        width = behind - column
        opened = self._open.setdefault(color, {})
        first, end = opened.get((column, width), (row, -1))
        if end != row:
            self._close(color, column, width, first, end)
            first = row
        opened[column, width] = (first, row + 1)

    def _close(self, color: str, column: int, width: int, first: int, end: int) -> None:
        if end > first:
            rectangle = f"M{column} {first}h{width}v{end - first}h-{width}z"
            self._rectangles.setdefault(color, []).append(rectangle)

    def _add_text(self, row: int, column: int, width: int, text: str, attributes: str, *, is_other: bool) -> None:
        self._pieces += 1
        text = FORBIDDEN.sub("\ufffd", text)
        if _SPECIAL.search(text):
            text = _SPECIAL.sub(lambda found: _ENTITIES[found[0]], text)
        length = f" textLength='{width * CELL_WIDTH}'" if width > 1 or is_other else ""
        fit = " lengthAdjust='spacingAndGlyphs'" if is_other else ""
        x, y = column * CELL_WIDTH, row * CELL_HEIGHT + _BASELINE
        self._text.append(f"<text x='{x}' y='{y}'{length}{fit}{attributes}>{text}</text>")

    def _add_lines(self, row: int, run: Run, fill: str) -> None:
        """Add the lines under, through and over the cells of a run."""
        style, width = run.style, len(run.cells) * CELL_WIDTH
        x, y = run.column * CELL_WIDTH, row * CELL_HEIGHT
        under = fill if style.underline_color is None else self._theme.css(style.underline_color, (0, 0, 0))
        line = f"h{width}"
        if style.underline == 3:
            wave = f"M{x} {y + 16}q2.25-3 4.5 0" + "t4.5 0" * (2 * len(run.cells) - 1)
            self._strokes.setdefault((under, ""), []).append(wave)
        elif style.underline == 2:
            self._strokes.setdefault((under, ""), []).append(f"M{x} {y + 15.5}{line}M{x} {y + 17.5}{line}")
        elif style.underline:
            dashes = _DASHES.get(style.underline, "")
            self._strokes.setdefault((under, dashes), []).append(f"M{x} {y + 16.5}{line}")
        if style.strikethrough:
            self._strokes.setdefault((fill, ""), []).append(f"M{x} {y + 9.5}{line}")
        if style.overline:
            self._strokes.setdefault((fill, ""), []).append(f"M{x} {y + 0.5}{line}")

    def backgrounds(self) -> str:
        """Return what is behind the text; its units are cells."""
        for color, opened in self._open.items():
            for (column, width), (first, end) in opened.items():
                self._close(color, column, width, first, end)
        self._open.clear()
        paths = _paths(self._rectangles)
        if not paths:
            return ""
        # Without antialiasing: a seam would show where rectangles of one colour meet.
        return f"<g transform='scale({CELL_WIDTH} {CELL_HEIGHT})' shape-rendering='crispEdges'>{paths}</g>"

    def text(self) -> str:
        """Return the text, in the order of reading."""
        return _paths(self._boxes) + "".join(self._text)

    def lines(self) -> str:
        """Return the lines at text, and a cursor that is no block."""
        strokes = "".join(
            f"<path fill='none' stroke='{color}'{dashes} d='{''.join(parts)}'/>"
            for (color, dashes), parts in self._strokes.items()
        )
        return strokes + _paths(self._bars)


def _pieces(run: Run) -> Iterator[tuple[int, int, str, bool]]:
    """Yield pieces of a run: column, width, text, and whether it is of characters that need not fit into their cells.

    Blanks between pieces are left out.
    """
    text = "".join(run.cells)
    if text.isascii():
        for word in _WORDS.finditer(text):
            yield run.column + word.start(), word.end() - word.start(), word[0], False
        return
    start, kind, piece = 0, "", list[str]()
    cells = (*run.cells, " ")
    for column, cell in enumerate(cells):
        if not cell:  # the second half of the one before
            continue
        is_wide = column + 1 < len(run.cells) and not run.cells[column + 1]
        here = "" if cell == " " else _kind(cell, is_wide=is_wide)
        if piece and (here != kind or here == "other"):
            yield run.column + start, column - start, "".join(piece), kind != "narrow"
            piece = []
        if here:
            if not piece:
                start, kind = column, here
            piece.append(cell)


def _kind(cell: str, *, is_wide: bool) -> str:
    code = ord(cell[0])
    if 0x2500 <= code < 0x25A0:
        return "box"
    if len(cell) > 1 or not has_agreed_width(code) or 0x2190 <= code < 0x3000 or 0xE000 <= code < 0xF900:
        return "other"
    return "wide" if is_wide else "narrow"


def _paths(by_color: dict[str, list[str]]) -> str:
    return "".join(f"<path fill='{color}' d='{''.join(parts)}'/>" for color, parts in by_color.items())


def _css(color: Rgb) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)
