"""The bytes that draw a terminal's contents on any xterm-like one: no I/O, no emulator.

`paint` draws on a cleared terminal of the same size whose modes are at their defaults (`orbit_protocol.terminal_reset`
has the sequences that bring a client's terminal there). Nothing here sets a palette or a colour that the program has
not set itself. What would change how the rest is drawn (origin mode, margins, insert mode) is set last.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from msgspec import Struct
from msgspec.structs import replace

from orbitd.screens.model import PLAIN, Cursor, DrawnRows, Link, PromptState, Rgb, Row, Run
from orbitd.screens.vt_writer import VtWriter, cup


class Mode(Struct, frozen=True, kw_only=True):
    """A terminal mode.

    Attributes:
        number: Of DECSET, or of SM where `ansi`.
        default: Its value after a reset.
        plain: A repaint sets it like any other; otherwise `paint` handles it in a place of its own, or not at all.
    """

    number: int
    ansi: bool = False
    default: bool = False
    plain: bool = True

    @property
    def name(self) -> str:
        """The number as it is written in sequences."""
        return str(self.number) if self.ansi else f"?{self.number}"

    def sequence(self, *, on: bool) -> str:
        """Return the sequence that sets or resets it."""
        if self.name == "?66":  # DECKPAM and DECKPNM, which more terminals know
            return "\x1b=" if on else "\x1b>"
        return f"\x1b[{self.name}{'h' if on else 'l'}"


# 12 is set with the cursor's shape; 6, 69 and the alternate screen have places of their own in `paint`; 2026 is never
# set: a client's terminal in a synchronized update would show nothing until the program ends it.
MODES = (
    Mode(number=4, ansi=True),  # IRM, insert
    Mode(number=12, ansi=True, default=True),  # SRM, local echo off
    Mode(number=20, ansi=True),  # LNM, line feed also returns
    Mode(number=1),  # DECCKM, cursor keys
    Mode(number=5),  # DECSCNM, reverse video
    Mode(number=6, plain=False),  # DECOM, origin
    Mode(number=7, default=True),  # DECAWM, autowrap
    Mode(number=9),  # mouse: X10
    Mode(number=12, plain=False),  # blinking cursor
    Mode(number=25, default=True),  # DECTCEM, cursor visible
    Mode(number=45),  # reverse wraparound
    Mode(number=47, plain=False),  # alternate screen
    Mode(number=66),  # DECNKM, keypad
    Mode(number=69, plain=False),  # DECLRMM, left and right margins
    Mode(number=1000),  # mouse: buttons
    Mode(number=1002),  # mouse: buttons and drags
    Mode(number=1003),  # mouse: all motion
    Mode(number=1004),  # focus reports
    Mode(number=1005),  # mouse reports in UTF-8
    Mode(number=1015),  # mouse reports as urxvt's
    Mode(number=1006),  # mouse reports as SGR
    Mode(number=1016),  # mouse reports as SGR in pixels
    Mode(number=1007, default=True),  # wheel sends cursor keys on the alternate screen
    Mode(number=1045),  # reverse wraparound into the history
    Mode(number=1047, plain=False),  # alternate screen, cleared on leaving
    Mode(number=1049, plain=False),  # alternate screen, with the cursor saved
    Mode(number=2004),  # bracketed paste
    Mode(number=2026, plain=False),  # synchronized update
    Mode(number=2031),  # reports of the colour scheme
    Mode(number=2048),  # reports of the size
)
_ALTERNATE = ("?1049", "?1047", "?47")


class SavedCursor(Struct, frozen=True, kw_only=True):
    """What ESC 8 (DECRC) would restore.

    Attributes:
        pen: The sequences for its protection and charsets.
    """

    cursor: Cursor
    origin: bool = False
    pen: str = ""


class ScreenBuffer(Struct, frozen=True, kw_only=True):
    """One of the two screen buffers, primary or alternate.

    Attributes:
        keyboard: The stack of kitty keyboard flags, the oldest first.
        prompt: What the shell has said last of its prompts (OSC 133).
        pen: The sequences for the protection and the charsets of the next character.
    """

    lines: tuple[Row, ...]
    cursor: Cursor
    saved: SavedCursor | None = None
    keyboard: tuple[int, ...] = ()
    prompt: PromptState = PromptState()
    pen: str = ""


class TerminalContents(Struct, frozen=True, kw_only=True):
    """Everything that `paint` draws.

    Attributes:
        history: Rows that scroll through the screen first.
        alternate: The alternate screen, if the program uses it; `primary` is then the one that it returns to.
        margins: The sequences that set the scroll region.
        key_encoding: The sequences for modifyOtherKeys.
        pen_link: The pen's link.
        tab_stops: The sequences that set the tab stops; "" for one every eight columns.
        icon: The name for the window's icon (OSC 1).
        progress: The state and the percentage of OSC 9;4, -1 for no percentage; None for no progress.
        continuation: The bytes of an unfinished sequence or character.
    """

    cols: int
    rows: int
    primary: ScreenBuffer
    modes: frozenset[str]
    alternate: ScreenBuffer | None = None
    history: Iterable[Row | DrawnRows] = ()
    margins: str = ""
    key_encoding: str = ""
    pen_link: Link | None = None
    tab_stops: str = ""
    colors: dict[str, Rgb] = {}
    title: str = ""
    icon: str = ""
    cwd: str = ""
    progress: tuple[int, int] | None = None
    continuation: bytes = b""


def paint(contents: TerminalContents) -> bytes:
    """Return the bytes that draw the contents on a cleared terminal of their size."""
    writer = VtWriter(contents.cols, contents.primary.prompt.options)
    writer.write(_colors(contents.colors), _set_titles(contents), contents.tab_stops)
    lines = contents.primary.lines
    writer.write_history(contents.history, lines[0] if lines else Row(), contents.rows)
    writer.write_screen(lines)
    top = contents.primary
    if contents.alternate is not None:
        _draw_behind_alternate(writer, contents.primary)
        mode = next((name for name in _ALTERNATE if name in contents.modes), _ALTERNATE[0])
        writer.write(f"\x1b[{mode}h", _reset_pen(contents.primary.pen))
        writer.set_style(PLAIN)
        # Tab stops are the terminal's here, and each screen's own in some others (xterm.js).
        writer.write(contents.tab_stops)
        # Modes 47 and 1047 show what the alternate screen held before; a terminal without one shows the primary.
        writer.write("\x1b[2J")
        writer.write_screen(contents.alternate.lines)
        top = contents.alternate
    _set_final_state(writer, contents, top)
    # The continuation comes last: the program's next output is sent behind this, and finishes it.
    return writer.getvalue() + contents.continuation


def _draw_behind_alternate(writer: VtWriter, buffer: ScreenBuffer) -> None:
    """Set what the program finds when it returns from the alternate screen: saved and current cursor, keyboard."""
    _save_cursor(writer, buffer.saved, (0, 0))
    writer.write(push_keyboard_flags(buffer.keyboard), cup(buffer.cursor.row, buffer.cursor.column))
    writer.set_style(buffer.cursor.style)
    _set_prompt(writer, buffer)
    writer.write(buffer.pen)


def _set_final_state(writer: VtWriter, contents: TerminalContents, buffer: ScreenBuffer) -> None:
    """Set what would have changed the drawing: margins, then the cursors, then modes."""
    if "?69" in contents.modes:
        writer.write("\x1b[?69h")
    writer.write(contents.margins)  # DECSTBM and DECSLRM move the cursor, so it is placed after them
    corner = _origin_corner(contents.margins)
    _save_cursor(writer, buffer.saved, corner)
    origin = "?6" in contents.modes
    if origin:
        writer.write("\x1b[?6h")
    _move_cursor(writer, buffer, corner if origin else (0, 0))
    _set_prompt(writer, buffer)
    writer.set_style(buffer.cursor.style)
    writer.set_link(contents.pen_link)
    writer.write(buffer.pen, contents.key_encoding)
    for mode in MODES:
        if mode.plain and (mode.name in contents.modes) != mode.default:
            writer.write(mode.sequence(on=not mode.default))
    writer.write(cursor_shape(buffer.cursor, contents.modes), push_keyboard_flags(buffer.keyboard))


def _move_cursor(writer: VtWriter, buffer: ScreenBuffer, corner: tuple[int, int]) -> None:
    """Move the cursor. No sequence sets a pending wrap, so the last character is printed last to get one."""
    cursor = buffer.cursor
    row, column = cursor.row - corner[0], cursor.column - corner[1]
    if not cursor.pending_wrap:
        writer.write(cup(row, column))
        return
    line = buffer.lines[cursor.row]
    last = _character_at(line, cursor.column)
    writer.write(cup(row, last.column - corner[1]))
    writer.print_run(last, line)


def _set_prompt(writer: VtWriter, buffer: ScreenBuffer) -> None:
    row = buffer.lines[buffer.cursor.row] if buffer.cursor.row < len(buffer.lines) else Row()
    writer.set_prompt(buffer.prompt, row)


def _character_at(row: Row, column: int) -> Run:
    """Return the character that covers a column, as a run of its own; a blank cell becomes a space."""
    for run in row.runs:
        index = column - run.column
        if not 0 <= index < len(run.cells):
            continue
        if run.blank:
            return Run(column=column, cells=(" ",), style=run.style)
        while index and not run.cells[index]:
            index -= 1
        return replace(run, column=run.column + index, cells=run.cells[index : column - run.column + 1])
    return Run(column=column, cells=(" ",))


def _save_cursor(writer: VtWriter, saved: SavedCursor | None, corner: tuple[int, int]) -> None:
    """Save a cursor with ESC 7 (DECSC), unless the program has saved none."""
    if saved is None:
        return
    row, column = saved.cursor.row, saved.cursor.column
    if saved.origin:
        writer.write("\x1b[?6h")
        row, column = row - corner[0], column - corner[1]
    writer.write(cup(row, column))
    writer.set_style(saved.cursor.style)
    writer.write(saved.pen, "\x1b7", _reset_pen(saved.pen))
    if saved.origin:
        writer.write("\x1b[?6l")
    writer.set_style(PLAIN)


def _reset_pen(pen: str) -> str:
    """Return what takes back the sequences of a pen's protection and charsets."""
    sets = "".join(f"\x1b{slot}B" for slot in re.findall(r"\x1b([()*+])", pen))
    left = "\x0f" if re.search(r"\x0e|\x1b[no]", pen) else ""
    right = "\x1b}" if re.search(r"\x1b[~|]", pen) else ""
    return sets + left + right + ('\x1b[0"q' if '"q' in pen else "")


def _origin_corner(margins: str) -> tuple[int, int]:
    """Return the row and column that positions are counted from in origin mode (DECOM)."""
    top = re.search(r"\x1b\[(\d+);\d+r", margins)
    left = re.search(r"\x1b\[(\d+);\d+s", margins)
    return (int(top[1]) - 1 if top else 0, int(left[1]) - 1 if left else 0)


def cursor_shape(cursor: Cursor, modes: frozenset[str]) -> str:
    """Return the sequence that sets the cursor's shape on a terminal that has its own."""
    if cursor.shape:
        return f"\x1b[{cursor.shape} q"
    return "\x1b[?12h" if "?12" in modes else ""


def push_keyboard_flags(keyboard: tuple[int, ...]) -> str:
    """Return the sequences that push kitty keyboard flags, the first of them at the bottom of the stack."""
    return "".join(f"\x1b[>{flags}u" for flags in keyboard)


def _colors(colors: dict[str, Rgb]) -> str:
    codes = {"foreground": "10", "background": "11", "cursor": "12"}
    return "".join(
        "\x1b]{};rgb:{:02x}/{:02x}/{:02x}\x1b\\".format(codes.get(name, f"4;{name}"), *rgb)
        for name, rgb in colors.items()
    )


def _set_titles(contents: TerminalContents) -> str:
    """Return OSC 0 to 2, 7 and 9;4; control characters are removed, since one would end the sequence early."""
    title, icon, cwd = (_without_controls(text) for text in (contents.title, contents.icon, contents.cwd))
    values = [("0", title)] if title == icon else [("2", title), ("1", icon)]
    if contents.progress is not None:
        state, percentage = contents.progress
        values.append(("9;4", f"{state};{percentage}" if percentage >= 0 else str(state)))
    return "".join(f"\x1b]{code};{text}\x1b\\" for code, text in (*values, ("7", cwd)) if text)


def _without_controls(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", "", text)
