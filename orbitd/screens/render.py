"""Rows as plain text and as HTML, for `session.screen`."""

from __future__ import annotations

import html
from collections.abc import Iterable

from orbitd.screens.model import PLAIN, Color, Rgb, Row, Run, Style

_UNDERLINES = {2: "double", 3: "wavy", 4: "dotted", 5: "dashed"}
_FLAGS = (
    ("bold", "font-weight:bold"),
    ("faint", "opacity:0.5"),
    ("italic", "font-style:italic"),
    ("invisible", "visibility:hidden"),
)


class Theme:
    """The colours that palette indexes and defaults stand for.

    Args:
        palette: 256 colours.
        foreground: The default text colour.
        background: The default background.
    """

    def __init__(self, palette: list[Rgb], foreground: Rgb, background: Rgb) -> None:
        self._palette = palette
        self.foreground, self.background = foreground, background

    def css(self, color: Color, default: Rgb) -> str:
        """Return a colour as `#rrggbb`."""
        rgb = default if color is None else color if isinstance(color, tuple) else self._palette[color]
        return "#{:02x}{:02x}{:02x}".format(*rgb)


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


def to_html(rows: Iterable[Row], theme: Theme) -> str:
    """Return the rows as a `<pre>` element with inline styles; all text is escaped."""
    body = "\n".join("".join(_span(run, theme) for run in row.runs) for row in rows).rstrip("\n")
    colors = f"color:{theme.css(None, theme.foreground)};background:{theme.css(None, theme.background)}"
    return f'<pre style="font-family:monospace;{colors}">{body}\n</pre>\n'


def _span(run: Run, theme: Theme) -> str:
    text = " " * len(run.cells) if run.blank else html.escape("".join(run.cells))
    if run.style != PLAIN:
        text = f'<span style="{_css(run.style, theme)}">{text}</span>'
    # The program chooses the address: others than these, javascript: for one, do not become links.
    if run.link is not None and run.link.startswith(("http://", "https://", "file://", "mailto:")):
        text = f'<a href="{html.escape(run.link)}">{text}</a>'
    return text


def _css(style: Style, theme: Theme) -> str:
    colors = (theme.css(style.fg, theme.foreground), theme.css(style.bg, theme.background))
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
