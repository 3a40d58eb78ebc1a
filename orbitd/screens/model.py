"""A terminal's contents as plain values: no library, no I/O.

The emulator returns these; `repaint` and `render` turn them into bytes and text. A screen is rows, a row is
runs of neighbouring cells of one style, and a blank cell is a cell that nothing was written to.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from msgspec import Struct

Rgb = tuple[int, int, int]
Color = int | Rgb | None  # an index into the palette, red/green/blue, or the default


class TerminalError(Exception):
    """The base class of errors of terminals."""


class TerminalUnavailable(TerminalError):
    """This machine has no terminal emulation; the message says why."""


class StateCorrupt(TerminalError):
    """A saved state cannot be read: damaged, or of a version that this program does not know."""


class StateBusy(TerminalError):
    """The state cannot be saved now: an unfinished control string is longer than the limit, say. Try again later."""


class TooLarge(Exception):
    """What is to be drawn is more than a picture may have; the message says which."""


class Style(Struct, frozen=True, kw_only=True, cache_hash=True):
    """Attributes of text. `underline` is 0 none, 1 single, 2 double, 3 curly, 4 dotted, 5 dashed."""

    bold: bool = False
    faint: bool = False
    italic: bool = False
    underline: int = 0
    blink: bool = False
    inverse: bool = False
    invisible: bool = False
    strikethrough: bool = False
    overline: bool = False
    fg: Color = None
    bg: Color = None
    underline_color: Color = None


PLAIN = Style()


class Zone(enum.IntEnum):
    """What a cell is, by the marks of the shell (OSC 133), as libghostty numbers it."""

    OUTPUT = 0
    INPUT = 1
    PROMPT = 2


class RowMark(enum.IntEnum):
    """What a row is, by the marks of the shell, as libghostty numbers it."""

    NONE = 0
    PROMPT = 1
    CONTINUATION = 2


class Appearance(Struct, frozen=True, kw_only=True):
    """What questions about colours and graphics are answered with: those of the client that owns the size.

    Attributes:
        foreground: The default text colour; None for the emulator's own.
        background: As `foreground`.
        palette: The first colours of the palette; the others are the emulator's own.
        kitty_graphics: Whether images of the kitty protocol are shown.
    """

    foreground: Rgb | None = None
    background: Rgb | None = None
    palette: tuple[Rgb, ...] = ()
    kitty_graphics: bool = False


class Colors(Struct, frozen=True, kw_only=True):
    """The colours of a drawn screen, where the program has set none: None for the emulator's own.

    Attributes:
        cursor: That of the text where it is None.
        palette: The first colours of the palette; the others are the emulator's own.
    """

    foreground: Rgb | None = None
    background: Rgb | None = None
    cursor: Rgb | None = None
    palette: tuple[Rgb, ...] = ()


class Cut(Struct, frozen=True, kw_only=True):
    """Which lines of the history and the screen to draw.

    Attributes:
        first: The number of the first, from 0, the oldest of the history; negative from the end; None for the last
            `lines` of them.
        lines: How many at most; None for all behind `first`.
    """

    first: int | None = None
    lines: int | None = None


def divider_line(text: str, columns: int) -> str:
    """Return the line that Orbit draws between the outputs of two programs, as wide as the screen."""
    return f"{f'-- {text} ':-<{columns}}"


MAX_SCROLLBACK_LINES = 10_000
"""History that a picture keeps at least, where its bytes hold it."""


class Run(Struct, frozen=True, kw_only=True):
    """Neighbouring cells of one row with the same attributes.

    Attributes:
        column: Of the first cell, from 0.
        cells: The text of each cell; "" for the second cell of a wide character, and for a blank one.
        blank: Nothing was written here; only the background of `style` is visible.
        link: The target of a hyperlink (OSC 8).
        link_id: What joins the pieces of one link, and tells apart links with the same target; "" if it is not known.
        protected: Selective erase spares it (DECSCA).
        zone: Prompt, input or output.
    """

    column: int
    cells: tuple[str, ...]
    blank: bool = False
    style: Style = PLAIN
    link: str | None = None
    link_id: str = ""
    protected: bool = False
    zone: Zone = Zone.OUTPUT


class Row(Struct, frozen=True, kw_only=True):
    """One row. Blank cells without a background at its end are left out.

    Attributes:
        wraps: The line continues in the next row.
        mark: Whether a prompt begins or continues here.
    """

    runs: tuple[Run, ...] = ()
    wraps: bool = False
    mark: RowMark = RowMark.NONE


class DrawnMarks(Struct, frozen=True, kw_only=True):
    """The marks of a row that the library has drawn.

    Attributes:
        mark: Whether a prompt begins or continues here.
        zones: Where a zone begins, as the number of the character in the row, and which.
    """

    mark: RowMark
    zones: tuple[tuple[int, Zone], ...]


class DrawnRows(Struct, frozen=True, kw_only=True):
    """Rows that the library has drawn: their VT sequences, from a plain pen to a plain pen.

    Attributes:
        text: The rows, with a line end behind each but the last.
        first: The first row, or an empty one if the row before does not wrap.
        last: The last row, or an empty one if it does not wrap.
        wraps: Whether each row is to wrap into the next of them; empty where none does.
        marks: The marks of rows that have any, by the row's number from 0.
    """

    text: str
    first: Row = Row()
    last: Row = Row()
    wraps: tuple[bool, ...] = ()
    marks: dict[int, DrawnMarks] = {}


class Link(NamedTuple):
    """A hyperlink: its address, and what joins the pieces of one link and parts those of others with the address."""

    uri: str
    id: str


class PromptState(Struct, frozen=True, kw_only=True):
    """What OSC 133 has said last on a screen.

    Attributes:
        zone: Of the next character.
        until_line_end: The zone is input until the next line only.
        options: Of OSC 133;A, each with a semicolon before it: how the shell redraws prompts and takes clicks.
    """

    zone: Zone = Zone.OUTPUT
    until_line_end: bool = False
    options: str = ""


class Cursor(Struct, frozen=True, kw_only=True):
    """The position and the attributes of the next character.

    Attributes:
        column: From 0.
        row: From 0, at the top of the screen.
        pending_wrap: The last column has been written; the next character wraps first.
        visible: DECTCEM.
        shape: The parameter of DECSCUSR, 0 (the terminal's own) to 6.
        style: The pen: attributes of the next character.
    """

    column: int = 0
    row: int = 0
    pending_wrap: bool = False
    visible: bool = True
    shape: int = 0
    style: Style = PLAIN

    @property
    def block_underline_or_bar(self) -> int:
        """1, 2 or 3; a terminal's own shape is taken for a block."""
        return (max(self.shape, 1) + 1) // 2


class Screen(Struct, frozen=True, kw_only=True):
    """Everything that can be seen of a terminal at one moment, comparable with `==`.

    Attributes:
        modes: The numbers of the modes that are set, DEC private ones as `?N`.
        icon: The name for the window's icon.
        progress: The state and the percentage of a progress bar, -1 for no percentage; None for no progress.
        extras: Scroll region, charsets, protection, tab stops and the pen's link, as the sequences that set them.
        at_prompt: The cursor is in a prompt or in input.
    """

    cols: int
    rows: int
    alternate: bool
    lines: tuple[Row, ...]
    cursor: Cursor
    modes: frozenset[str]
    keyboard: int
    extras: bytes
    at_prompt: bool
    title: str
    icon: str
    cwd: str
    progress: tuple[int, int] | None
