"""What the tests of the terminal share: reproducible noise, and the comparison of two screens.

The noise follows shpool-vterm's fuzz.rs: fixed seeds, text, sequences with random parameters, raw bytes, resizes.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

from msgspec.structs import replace

from orbitd.screens.emulator import Emulator
from orbitd.screens.messages import Framed
from orbitd.screens.model import PLAIN, Row, Screen, Style

Operation = bytes | tuple[int, int]
Cell = tuple[str, Style, str | None]

BLANK: Cell = ("", PLAIN, None)
TAIL = "the second half"
"""The text of the second cell of a wide character."""

SIZES = ((80, 24), (10, 4), (1, 1), (2, 3), (40, 10))
_TEXT = [*"abcXYZ 0123~你好é😀ש☃ᄀ🇩🇪", "\u0301", "\u200d", "\ufe0f", "\u0085"]
_CONTROLS = [b"\r\n", b"\n", b"\r", b"\t", b"\b", b"\x0e", b"\x0f", b"\x07", b"\x0b"]
_STYLES = ["", "1", "4", "4:3", "31", "48;5;99", "38;2;1;200;3", "7", "9", "53", "58:2::1:2:3", "22", "8", "5", "2;3"]
_MODES = [1, 5, 6, 7, 12, 25, 45, 47, 66, 69, 1000, 1002, 1003, 1004, 1006, 1007, 1047, 1048, 1049, 2004, 2026, 2027]
_ESCAPES = [
    *(b"\x1b" + end for end in (b"7", b"8", b"D", b"M", b"E", b"H", b"=", b">", b"#8", b"n", b"~", b"(B", b"c")),
    *(b"\x1b[" + end for end in (b"3g", b"4h", b"4l", b"20h", b"!p", b'1"q', b'0"q', b">1u", b">5u", b"<u", b"=3;1u")),
    *(b"\x1b[" + end for end in (b">4;2m", b"?5W", b"2 q", b"5 q", b"0 q", b"6n", b"c", b"3;9s", b"?2048h", b"?2031h")),
    *(b"\x1b]" + end for end in (b"2;title\x07", b"7;file://host/tmp\x1b\\", b"8;;\x1b\\", b"4;7;rgb:1/2/3\x1b\\")),
    *(b"\x1b]" + end for end in (b"8;;http://x/1\x1b\\", b"8;id=a;http://y/\x07", b"10;#ff0000\x07", b"104\x07")),
    *(b"\x1b]133;" + end for end in (b"A\x07", b"B\x07", b"C\x07", b"D\x07", b"I\x07", b"A;k=s\x07", b"P;k=i\x07")),
    b"\x1bP$qm\x1b\\",
    b"\x1b_Gi=1\x1b\\",
]


def noise(seed: int, *, resizes: bool = True) -> Iterator[Operation]:
    """Yield a first size, and then what happens to the terminal: output and resizes."""
    rng = random.Random(seed)
    cols, rows = rng.choice(SIZES)
    yield cols, rows
    for _ in range(rng.randrange(5, 200)):
        if resizes and rng.random() < 0.03:
            cols, rows = 1 + rng.randrange(100), 1 + rng.randrange(40)
            yield cols, rows
        else:
            yield _piece(rng, cols, rows)


def _piece(rng: random.Random, cols: int, rows: int) -> bytes:
    kind = rng.randrange(9)
    if kind < 3:
        return "".join(rng.choices(_TEXT, k=rng.randrange(cols + 30))).encode()
    if kind == 3:
        return rng.choice(_CONTROLS)
    if kind == 4:
        return f"\x1b[{rng.choice(_STYLES)}m".encode()
    if kind == 5:
        final = rng.choice("ABCDJKLMP@XSTbIZGdr")
        return f"\x1b[{rng.randrange(rows + 3)};{rng.randrange(cols + 3)}{rng.choice([final, 'H'])}".encode()
    if kind == 6:
        return f"\x1b[?{rng.choice(_MODES)}{rng.choice('hl')}".encode()
    return rng.choice(_ESCAPES) if kind == 7 else rng.randbytes(rng.randrange(12))


def play(operations: Iterable[Operation]) -> Emulator:
    """Return a terminal to which all of it has happened."""
    remaining = iter(operations)
    size = next(remaining)
    assert isinstance(size, tuple)
    emulator = Emulator(*size)
    for operation in remaining:
        if isinstance(operation, tuple):
            emulator.resize(*operation)
        else:
            emulator.feed(operation)
    return emulator


def shown(screen: Screen) -> Screen:
    """Return a screen without what portable bytes cannot bring back, or spell differently.

    That is: an unfinished synchronized update, modes of a screen that is not in use, ASCII where it is the default,
    whether a blank line wraps, and that the cell under a pending wrap was blank.
    """
    lines = [replace(line, wraps=False) for line in screen.lines]
    if screen.cursor.pending_wrap:
        line = lines[screen.cursor.row]
        runs = list(line.runs)
        while runs and (runs[-1].blank or set(runs[-1].cells) <= {" "}):
            runs.pop()
        if runs and runs[-1].column + len(runs[-1].cells) >= screen.cols:
            runs[-1] = replace(runs[-1], cells=runs[-1].cells[:-1])
        lines[screen.cursor.row] = replace(line, runs=tuple(runs))
    return replace(
        screen,
        lines=tuple(lines),
        modes=screen.modes - {"?47", "?1047", "?1049", "?2026"},
        extras=screen.extras.replace(b"\x1b(B", b"").replace(b"\x1b)B", b""),
    )


def restored(screen: Screen) -> Screen:
    """Return a screen without what a native state loses: a pending wrap that a resize left away from the edge."""
    at_edge = screen.cursor.column == screen.cols - 1
    return replace(screen, cursor=replace(screen.cursor, pending_wrap=screen.cursor.pending_wrap and at_edge))


def cells(emulator: Emulator) -> list[list[Cell]]:
    """Return all cells of a screen: text, style and link."""
    return [list(_cells_of(row, emulator.size[0])) for row in emulator.dump().lines]


def _cells_of(row: Row, cols: int) -> Iterator[Cell]:
    column = 0
    for run in row.runs:
        yield from [BLANK] * (run.column - column)
        for text in run.cells:
            yield ("" if run.blank else text or TAIL, run.style, run.link)
        column = run.column + len(run.cells)
    yield from [BLANK] * (cols - column)


def part_of(screen: Emulator, window: tuple[int, int], left: int, top: int) -> list[list[Cell]]:
    """Return what a window shows of a screen, from a column and a row on; a wide character that is cut is a space."""
    cols, rows = window
    picture = []
    for row in cells(screen)[top : top + rows]:
        part = row[left : left + cols]
        if part and part[0][0] == TAIL:
            part[0] = (" ", *part[0][1:])
        if len(row) > left + cols and row[left + cols][0] == TAIL:
            part[-1] = (" ", *part[-1][1:])
        if len(part) == cols and part[-1][0] != TAIL:  # some terminals take such a character for a wide one
            part[-1] = (part[-1][0].replace("\ufe0f", ""), *part[-1][1:])
        picture.append(part + [BLANK] * (cols - len(part)))
    return picture + [[BLANK] * cols] * (rows - len(picture))


def frame_of(screen: Emulator, cols: int, rows: int, before: Framed | None) -> Framed:
    """Return the frame of a screen for a window of a size that shows another one, or none, as orbitd gets it."""
    frame = screen.frame(cols, rows, *((0, 0) if before is None else (before.left, before.top)))
    return Framed(
        request=1,
        position=0,
        left=frame.left,
        top=frame.top,
        rows=frame.rows,
        modes=frame.modes,
        column=frame.column,
        row=frame.row,
        visible=frame.visible,
        is_updating=frame.is_updating,
        title=screen.title,
        bells=screen.bells,
    )
