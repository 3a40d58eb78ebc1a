"""Rows as plain text and as HTML, for `session.screen`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import Any

from msgspec.structs import replace

from orbitd.screens.frame import crop
from orbitd.screens.model import PLAIN, Color, Cursor, DrawnRows, Rgb, Row, Run, Style, TooLarge

_UNDERLINES = {2: "double", 3: "wavy", 4: "dotted", 5: "dashed"}
_FLAGS = (
    ("bold", "font-weight:bold"),
    ("faint", "opacity:0.5"),
    ("italic", "font-style:italic"),
    ("invisible", "visibility:hidden"),
)


_STYLE_CHANGE = re.compile(r"((?:\x1b\[[0-9;:]*m)+)")
_SGR_FLAGS = {
    1: "bold",
    2: "faint",
    3: "italic",
    5: "blink",
    7: "inverse",
    8: "invisible",
    9: "strikethrough",
    53: "overline",
}
_SGR_COLORS = {38: "fg", 48: "bg", 58: "underline_color"}


MAX_STYLES = 20_000
"""Of one picture as HTML. A screen of 200x100 cells that all look different has as many; they take about a second."""


class Theme:
    """The colours that palette indexes and defaults stand for.

    Args:
        palette: 256 colours.
        foreground: The default text colour.
        background: The default background.
        cursor: The cursor's colour; that of the text if None.
    """

    def __init__(self, palette: list[Rgb], foreground: Rgb, background: Rgb, cursor: Rgb | None = None) -> None:
        self._palette = palette
        self.foreground, self.background, self.cursor = foreground, background, cursor or foreground
        self._rules: dict[Style, str] = {PLAIN: ""}
        self._rules_of_sgr: dict[str, str] = {}

    def rgb(self, color: Color, default: Rgb) -> Rgb:
        """Return a colour's parts."""
        return default if color is None else color if isinstance(color, tuple) else self._palette[color]

    def css(self, color: Color, default: Rgb) -> str:
        """Return a colour as `#rrggbb`."""
        return "#{:02x}{:02x}{:02x}".format(*self.rgb(color, default))

    def under_block(self, cell: Run) -> Run:
        """Return a cell as it is under a cursor that is a block: its text in the colour that was behind it."""
        style = cell.style
        behind = self.rgb(style.fg, self.foreground) if style.inverse else self.rgb(style.bg, self.background)
        return replace(cell, blank=False, style=replace(style, fg=behind, bg=self.cursor, inverse=False, faint=False))

    def rules(self, style: Style) -> str:
        """Return a style's CSS rules, "" for the plain style."""
        if style not in self._rules:
            self._rules[style] = self._css_rules(style)
        return self._rules[style]

    def rules_of_sgr(self, sequence: str) -> str:
        """Return the CSS rules of the style that SGR sequences set."""
        if sequence not in self._rules_of_sgr:
            if len(self._rules_of_sgr) >= MAX_STYLES:
                raise TooLarge("there are too many colours to draw as html")
            self._rules_of_sgr[sequence] = self.rules(style_of_sgr(sequence))
        return self._rules_of_sgr[sequence]

    def _css_rules(self, style: Style) -> str:
        colors = (self.css(style.fg, self.foreground), self.css(style.bg, self.background))
        fg, bg = reversed(colors) if style.inverse else colors
        rules = [css for name, css in _FLAGS if getattr(style, name)]
        if style.inverse or style.fg is not None:
            rules.append(f"color:{fg}")
        if style.inverse or style.bg is not None:
            rules.append(f"background:{bg}")
        lines = [("underline", style.underline), ("line-through", style.strikethrough), ("overline", style.overline)]
        if shown := " ".join(name for name, is_on in lines if is_on):
            rules.append(f"text-decoration:{shown} {_UNDERLINES.get(style.underline, 'solid')}")
        return ";".join(rules)


def cursor_cells(row: Row, column: int) -> tuple[Row, Run]:
    """Return a row in which the character at a column is a run of its own, and that run; a blank cell is a space."""
    for run in row.runs:
        # The cursor is on the first half of a wide character where it is on the second.
        index = column - run.column
        if 0 < index < len(run.cells) and not run.blank and not run.cells[index] and run.cells[index - 1]:
            column -= 1
    before, behind = crop(row, 0, column), crop(row, column + 1, sys.maxsize)
    cell = Run(column=column, cells=(" ",))
    for run in row.runs:
        index = column - run.column
        if 0 <= index < len(run.cells):
            cells = (" ",) if run.blank else run.cells[index : index + 1]
            if not run.blank and run.cells[index] and run.cells[index + 1 : index + 2] == ("",):
                cells = run.cells[index : index + 2]
                behind = crop(row, column + 2, sys.maxsize)
            cell = replace(run, column=column, cells=cells if cells[0] else (" ",), blank=False)
    first = column + len(cell.cells)
    shifted = (replace(run, column=run.column + first) for run in behind.runs)
    return Row(runs=(*before.runs, cell, *shifted)), cell


def to_text(rows: Iterable[Row]) -> str:
    """Return a line of text for each row, wrapped as on the screen, without trailing blanks and empty lines."""
    return without_blanks_at_the_end(
        "".join(" " * len(run.cells) if run.blank else "".join(run.cells) for run in row.runs) for row in rows
    )


def without_blanks_at_the_end(lines: Iterable[str]) -> str:
    """Return lines as text, without trailing blanks and empty lines."""
    stripped = [line.rstrip() for line in lines]
    while stripped and not stripped[-1]:
        stripped.pop()
    return "".join(f"{line}\n" for line in stripped)


def to_html(rows: Iterable[Row | DrawnRows], theme: Theme, cursor: tuple[int, Cursor] | None = None) -> str:
    """Return the rows as a `<pre>` element with inline styles; all text is escaped.

    Args:
        rows: The rows; a line end behind each that is drawn, also where it wraps.
        theme: The colours.
        cursor: Drawn if not None: which of `rows` has it, a `Row`.

    Raises:
        TooLarge: There are more than `MAX_STYLES`.
    """
    lines = list[str]()
    for number, row in enumerate(rows):
        if isinstance(row, DrawnRows):
            lines.append(_drawn_lines(row.text, theme))
        elif cursor is not None and cursor[0] == number:
            lines.append(_html_line_with_cursor(row, theme, cursor[1]))
        else:
            lines.append(_html_line(row, theme))
    body = "\n".join(lines).rstrip("\n")
    colors = f"color:{theme.css(None, theme.foreground)};background:{theme.css(None, theme.background)}"
    return f'<pre style="font-family:monospace;{colors}">{body}\n</pre>\n'


def _html_line_with_cursor(row: Row, theme: Theme, cursor: Cursor) -> str:
    row, cell = cursor_cells(row, cursor.column)
    before = _html_line(crop(row, 0, cell.column), theme)
    behind = _html_line(crop(row, cell.column + len(cell.cells), sys.maxsize), theme)
    width = sum(len(run.cells) for run in row.runs if run.column < cell.column)
    padding = " " * (cell.column - width)
    shape = cursor.block_underline_or_bar
    if shape == 1:
        return before + padding + _span("".join(cell.cells), theme.under_block(cell), theme) + behind
    shadow = f"box-shadow:inset {'0 -2px' if shape == 2 else '2px 0'} {theme.css(None, theme.cursor)}"
    return f'{before}{padding}<span style="{shadow}">{_span("".join(cell.cells), cell, theme)}</span>{behind}'


def _drawn_lines(drawn: str, theme: Theme) -> str:
    """Return the HTML of text with SGR sequences; there are no others, and each style begins with a reset."""
    # Escaping all at once is cheaper, and leaves the sequences as they are.
    text, *styled = _STYLE_CHANGE.split(escape(drawn.replace("\r\n", "\n")))
    parts = [text]
    for sequence, text in zip(styled[0::2], styled[1::2], strict=True):
        rules = theme.rules_of_sgr(sequence)
        parts.append(f'<span style="{rules}">{text}</span>' if rules and text else text)
    return "".join(parts)


def style_of_sgr(sequence: str) -> Style:
    """Return the style that SGR sequences set, as libghostty's formatter writes them: one attribute in each."""
    style = dict[str, Any]()
    for parameters in re.findall(r"\x1b\[([0-9;:]*)m", sequence):
        code, *values = (int(value) for value in re.split("[;:]+", parameters))
        if code == 0:
            style.clear()
        elif code == 4:
            style["underline"] = values[0] if values else 1
        elif code in _SGR_COLORS:
            style[_SGR_COLORS[code]] = values[1] if values[0] == 5 else tuple(values[1:])
        else:
            style[_SGR_FLAGS[code]] = True
    return Style(**style)


def escape(text: str) -> str:
    """Return what html.escape does, whose module loads a table of all entities into every screens process."""
    text = text.replace("&", "&amp;")  # first
    text = text.replace("<", "&lt;").replace(">", "&gt;")
    return text.replace('"', "&quot;").replace("'", "&#x27;")


def _html_line(row: Row, theme: Theme) -> str:
    parts, texts = list[str](), list[str]()
    for run, after in zip(row.runs, (*row.runs[1:], None), strict=False):
        texts.append(" " * len(run.cells) if run.blank else "".join(run.cells))
        # Runs that differ in what HTML does not show are one.
        if after is None or (run.style, run.link, run.blank) != (after.style, after.link, after.blank):
            parts.append(_span("".join(texts), run, theme))
            texts.clear()
    return "".join(parts)


def _span(text: str, run: Run, theme: Theme) -> str:
    text = escape(text)
    if rules := theme.rules(run.style):
        text = f'<span style="{rules}">{text}</span>'
    # The program chooses the address: others than these, javascript: for one, do not become links.
    if run.link is not None and run.link.startswith(("http://", "https://", "file://", "mailto:")):
        text = f'<a href="{escape(run.link)}">{text}</a>'
    return text
