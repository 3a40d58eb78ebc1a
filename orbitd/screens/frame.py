"""A frame: the part of a screen that a window of another size shows. No I/O, no emulator.

Its rows are drawn one by one, so that whoever has sent a frame sends only the rows that differ in the next one. A
frame has no colours of the palette, tab stops, margins or mouse modes: only what can be seen, and what a key sends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from orbitd.screens.model import Cursor, Row, Run
from orbitd.screens.repaint import MODES, cursor_shape, push_keyboard_flags
from orbitd.screens.vt_writer import VtWriter

_MODES = [mode for mode in MODES if mode.name in ("20", "?1", "?5", "?66", "?2004")]
_EMOJI = "\ufe0f"  # a selector: what it follows is an emoji
_KEYBOARD_OFF = "\x1b[<8u\x1b[>4m"


class Frame(Struct, frozen=True, kw_only=True):
    """What a window shows of a screen.

    Attributes:
        left: The first column of the screen that is shown.
        top: The first row.
        rows: What draws each row of the window, from its first column on: on a blank row, from a plain pen to a plain
            pen, with autowrap off.
        modes: Set the modes that decide what keys send, reverse video, and the cursor's shape.
        column: The cursor's, in the window.
        row: The cursor's, in the window.
        visible: Whether the cursor is shown.
        is_updating: The program has begun a synchronized update (mode 2026), and not ended it.
    """

    left: int
    top: int
    rows: list[bytes]
    modes: bytes
    column: int
    row: int
    visible: bool
    is_updating: bool


def make_frame(
    size: tuple[int, int],
    window: tuple[int, int],
    before: tuple[int, int],
    *,
    read_rows: Callable[[int, int], Sequence[Row]],
    cursor: Cursor,
    modes: bytes,
    is_updating: bool,
) -> Frame:
    """Return a frame that has the cursor in it.

    Args:
        size: Columns and rows of the screen.
        window: Columns and rows of the window.
        before: `left` and `top` of the frame before: the part that is shown moves no further than it has to, but to
            the left edge where the cursor allows it.
        read_rows: Returns the rows of the screen from one until before another.
        cursor: The screen's.
        modes: As `frame_modes` returns them.
        is_updating: As in `Frame`.
    """
    cols, rows = window
    left = _first(before[0], cursor.column, cols, size[0])
    if left < before[0] and cursor.column < cols:
        left = 0  # a line begins at the left: its beginning is worth more than to move as little as possible
    top = _first(before[1], cursor.row, rows, size[1])
    drawn = [draw_row(crop(row, left, cols), cols) for row in read_rows(top, min(top + rows, size[1]))]
    return Frame(
        left=left,
        top=top,
        rows=drawn + [b""] * (rows - len(drawn)),
        modes=modes,
        column=cursor.column - left,
        row=cursor.row - top,
        visible=cursor.visible,
        is_updating=is_updating,
    )


def _first(before: int, cursor: int, window: int, screen: int) -> int:
    """Return the first row, or column, that is shown."""
    first = max(min(before, cursor), cursor - window + 1)
    return max(0, min(first, screen - window))


def crop(row: Row, left: int, cols: int) -> Row:
    """Return the columns of a row from `left` on. Of a wide character that is cut, a space is left."""
    runs = []
    for run in row.runs:
        start, end = max(0, left - run.column), min(len(run.cells), left + cols - run.column)
        if start >= end:
            continue
        cells = run.cells[start:end]
        if not run.blank:
            if not cells[0]:  # its first half is outside
                cells = (" ", *cells[1:])
            if end < len(run.cells) and not run.cells[end]:  # its second half is
                cells = (*cells[:-1], " ")
        column = run.column + start - left
        runs.append(
            Run(column=column, cells=cells, blank=run.blank, style=run.style, link=run.link, link_id=run.link_id)
        )
    return Row(runs=tuple(runs))


def draw_row(row: Row, cols: int) -> bytes:
    """Return what draws a row where autowrap is off."""
    if not row.runs:
        return b""
    writer = VtWriter(cols)
    last = row.runs[-1]
    width = 2 if len(last.cells) > 1 and not last.cells[-1] else 1
    cluster = last.cells[-width]
    if last.blank or len(cluster) == 1 or last.column + len(last.cells) < cols:
        writer.write_row(row)
        return writer.getvalue()
    # Without autowrap the cursor stays in the last column, not behind it, and marks that follow go to the character
    # before. With it, a character that some terminals take for a wide one would wrap: such an emoji loses its mark.
    cells = (cluster.replace(_EMOJI, "") if width == 1 else cluster, *last.cells[len(last.cells) - width + 1 :])
    writer.write_row(crop(row, 0, cols - width))
    writer.write("\r\x1b[?7h")
    writer.write_row(Row(runs=(replace(last, column=cols - width, cells=cells),)))
    writer.write("\x1b[?7l")
    return writer.getvalue()


def frame_modes(modes: frozenset[str], keyboard: int, modify_other_keys: bytes, cursor: Cursor) -> bytes:
    """Return the sequences that set what a frame has of a terminal's modes, whatever they were.

    Args:
        modes: Those that are set.
        keyboard: The kitty keyboard flags.
        modify_other_keys: The sequence that sets xterm's modifyOtherKeys, or b"".
        cursor: For its shape.
    """
    switched = "".join(mode.sequence(on=mode.name in modes) for mode in _MODES)
    flags = push_keyboard_flags((keyboard,) if keyboard else ())
    shape = "\x1b[0 q" + cursor_shape(cursor, modes)
    return f"{_KEYBOARD_OFF}{modify_other_keys.decode()}{flags}{shape}{switched}".encode()
