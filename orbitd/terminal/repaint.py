"""Draws a terminal on any xterm-like one: portable bytes, without I/O and without the emulator.

`paint` draws on a cleared terminal of the same size whose modes are at their defaults; `RESET` brings a terminal
there, and `RESTORE` gives it back when the client leaves. Nothing here sets a palette or a colour that the program has
not set itself. What must not disturb the drawing (origin mode, margins, insert mode) is set after it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from msgspec import Struct

from orbitd.terminal.brush import Brush, cup
from orbitd.terminal.model import PLAIN, Cursor, Rgb, Row, Run


class Mode(Struct, frozen=True, kw_only=True):
    """A mode, its default, and whether a repaint may simply set it."""

    number: int
    ansi: bool = False
    default: bool = False
    plain: bool = True

    @property
    def name(self) -> str:
        """The number as sequences write it."""
        return str(self.number) if self.ansi else f"?{self.number}"

    def sequence(self, *, on: bool) -> str:
        """Return the sequence that sets or resets it."""
        return f"\x1b[{self.name}{'h' if on else 'l'}"


# 12 goes with the cursor's shape; 6, 69 and the alternate screen have their own places in `paint`; a client must not
# be left waiting in a synchronized update (2026).
MODES = (
    Mode(number=4, ansi=True),
    Mode(number=12, ansi=True, default=True),
    Mode(number=20, ansi=True),
    Mode(number=1),
    Mode(number=5),
    Mode(number=6, plain=False),
    Mode(number=7, default=True),
    Mode(number=9),
    Mode(number=12, plain=False),
    Mode(number=25, default=True),
    Mode(number=45),
    Mode(number=47, plain=False),
    Mode(number=66),
    Mode(number=69, plain=False),
    Mode(number=1000),
    Mode(number=1002),
    Mode(number=1003),
    Mode(number=1004),
    Mode(number=1005),
    Mode(number=1015),
    Mode(number=1006),
    Mode(number=1016),
    Mode(number=1007, default=True),
    Mode(number=1045),
    Mode(number=1047, plain=False),
    Mode(number=1049, plain=False),
    Mode(number=2004),
    Mode(number=2026, plain=False),
    Mode(number=2031),
    Mode(number=2048),
)
_ALTERNATE = ("?1049", "?1047", "?47")


class SavedCursor(Struct, frozen=True, kw_only=True):
    """What ESC 8 would bring back."""

    cursor: Cursor
    origin: bool = False


class Layer(Struct, frozen=True, kw_only=True):
    """One of the two screens.

    Attributes:
        keyboard: The stack of kitty keyboard flags, the oldest first.
    """

    lines: tuple[Row, ...]
    cursor: Cursor
    saved: SavedCursor | None = None
    keyboard: tuple[int, ...] = ()


class Picture(Struct, frozen=True, kw_only=True):
    """Everything that `paint` draws.

    Attributes:
        history: Rows that scroll through the screen first.
        alternate: The alternate screen, if the program uses it; `primary` is then what lies behind.
        margins: The sequences that set the scroll region.
        pen: The same for what the next character gets beside its style: link, protection, charsets.
        tab_stops: The same for tab stops; "" for one every eight columns.
        continuation: A sequence or character that is half read.
    """

    cols: int
    rows: int
    primary: Layer
    modes: frozenset[str]
    alternate: Layer | None = None
    history: Iterable[Row] = ()
    margins: str = ""
    pen: str = ""
    tab_stops: str = ""
    colors: dict[str, Rgb] = {}
    title: str = ""
    cwd: str = ""
    continuation: bytes = b""


def paint(picture: Picture) -> bytes:
    """Return the bytes that draw a picture on a cleared terminal of its size."""
    brush = Brush(picture.cols)
    brush.write(_colors(picture.colors), _titles(picture), picture.tab_stops)
    brush.scroll(picture.history, picture.rows)
    brush.screen(picture.primary.lines)
    top = picture.primary
    if picture.alternate is not None:
        _leave_behind(brush, picture.primary)
        mode = next((name for name in _ALTERNATE if name in picture.modes), _ALTERNATE[0])
        brush.write(f"\x1b[{mode}h")
        brush.style(PLAIN)
        brush.write("\x1b[2J")  # 47 and 1047 bring back what was there before, and some terminals have no such screen
        brush.screen(picture.alternate.lines)
        top = picture.alternate
    _finish(brush, picture, top)
    return brush.take() + picture.continuation


def _leave_behind(brush: Brush, layer: Layer) -> None:
    """Put the primary screen into the state that it is to have when the program comes back to it."""
    _save(brush, layer.saved, (0, 0))
    brush.write(_push(layer.keyboard), cup(layer.cursor.row, layer.cursor.column))
    brush.style(layer.cursor.style)


def _finish(brush: Brush, picture: Picture, layer: Layer) -> None:
    """Set everything that drawing would have suffered from, then the cursor."""
    if "?69" in picture.modes:
        brush.write("\x1b[?69h")
    brush.write(picture.margins)
    corner = _corner(picture.margins)
    _save(brush, layer.saved, corner)
    origin = "?6" in picture.modes
    if origin:
        brush.write("\x1b[?6h")
    _place(brush, layer, corner if origin else (0, 0))
    brush.style(layer.cursor.style)
    brush.write(picture.pen)
    for mode in MODES:
        if mode.plain and (mode.name in picture.modes) != mode.default:
            brush.write(mode.sequence(on=not mode.default))
    brush.write(_shape(layer.cursor, picture.modes), _push(layer.keyboard))


def _place(brush: Brush, layer: Layer, corner: tuple[int, int]) -> None:
    """Move to the cursor's place; a pending wrap comes back by printing the last character once more."""
    cursor = layer.cursor
    row, column = cursor.row - corner[0], cursor.column - corner[1]
    if not cursor.pending_wrap:
        brush.write(cup(row, column))
        return
    again = _run_at(layer.lines[cursor.row], cursor.column)
    brush.write(cup(row, again.column - corner[1]))
    brush.print(again)


def _run_at(row: Row, column: int) -> Run:
    """Return the one character that covers a column as a run of its own; a blank cell becomes a space."""
    for run in row.runs:
        index = column - run.column
        if not 0 <= index < len(run.cells):
            continue
        if run.blank:
            return Run(column=column, cells=(" ",), style=run.style)
        while index and not run.cells[index]:
            index -= 1
        cells = run.cells[index : column - run.column + 1]
        return Run(column=run.column + index, cells=cells, style=run.style, link=run.link, protected=run.protected)
    return Run(column=column, cells=(" ",))


def _save(brush: Brush, saved: SavedCursor | None, corner: tuple[int, int]) -> None:
    """Fill the slot of ESC 7, unless nothing was ever saved there."""
    if saved is None:
        return
    row, column = saved.cursor.row, saved.cursor.column
    if saved.origin:
        brush.write("\x1b[?6h")
        row, column = row - corner[0], column - corner[1]
    brush.write(cup(row, column))
    brush.style(saved.cursor.style)
    brush.write("\x1b7")
    if saved.origin:
        brush.write("\x1b[?6l")
    brush.style(PLAIN)


def _corner(margins: str) -> tuple[int, int]:
    """Return the row and column that origin mode counts from."""
    top = re.search(r"\x1b\[(\d+);\d+r", margins)
    left = re.search(r"\x1b\[(\d+);\d+s", margins)
    return (int(top[1]) - 1 if top else 0, int(left[1]) - 1 if left else 0)


def _shape(cursor: Cursor, modes: frozenset[str]) -> str:
    if cursor.shape:
        return f"\x1b[{cursor.shape} q"
    return "\x1b[?12h" if "?12" in modes else ""


def _push(keyboard: tuple[int, ...]) -> str:
    return "".join(f"\x1b[>{flags}u" for flags in keyboard)


def _colors(colors: dict[str, Rgb]) -> str:
    codes = {"foreground": "10", "background": "11", "cursor": "12"}
    return "".join(
        "\x1b]{};rgb:{:02x}/{:02x}/{:02x}\x1b\\".format(codes.get(name, f"4;{name}"), *rgb)
        for name, rgb in colors.items()
    )


def _titles(picture: Picture) -> str:
    """Return title and folder; a control character in them would end the sequence early."""
    title, cwd = (re.sub(r"[\x00-\x1f\x7f-\x9f]", "", text) for text in (picture.title, picture.cwd))
    return (f"\x1b]2;{title}\x1b\\" if title else "") + (f"\x1b]7;{cwd}\x1b\\" if cwd else "")
