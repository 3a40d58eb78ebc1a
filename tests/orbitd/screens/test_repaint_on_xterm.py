"""A repaint draws on xterm.js what the program's own output draws there, history, wraps and colours included.

The output is random, of what xterm.js and libghostty do alike: they differ in erasing what has wrapped, in scroll
regions, and in the widths of emoji and ambiguous characters. A blank cell has a background in the emulator, and no
other attribute.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from orbitd.screens.emulator import Emulator
from xterm_support import Cell, XtermJs

_STYLES = ["", "1", "4", "4:3", "31", "42", "48;5;99", "38;2;1;200;3", "48;2;9;9;9", "7", "7;41", "9", "53", "22", "3"]
_LINKS = ["\x1b]8;;http://x/1\x1b\\", "\x1b]8;id=a;http://y/\x07", "\x1b]8;;\x07"]
_PROMPTS = ["\r\n\x1b]133;A\x07$ \x1b]133;B\x07", "\r\n\x1b]133;C\x07", "\x1b]133;D\x07"]
PIECES: dict[str, Callable[[random.Random, int], str]] = {
    "text": lambda rng, cols: "".join(rng.choices("abXY ?~", k=rng.randrange(cols))),
    "long": lambda rng, cols: "".join(rng.choices("abXY", k=rng.randrange(3 * cols))),
    "wide": lambda rng, cols: "".join(rng.choices("a你好한あ", k=rng.randrange(cols))),
    "accents": lambda rng, cols: "".join(rng.choices(["é", "ж", "─", "e\u0301", "a"], k=rng.randrange(cols))),
    "style": lambda rng, _: f"\x1b[{rng.choice(_STYLES)}m",
    "link": lambda rng, _: rng.choice(_LINKS),
    "prompt": lambda rng, _: rng.choice(_PROMPTS),
    "right": lambda _rng, _: "\x1b[3C",
    "tab": lambda _rng, _: "a\tb",
    "erase": lambda _rng, _: "\r\na\x1b[K",
    "lines": lambda rng, _: "\r\n" * rng.randrange(1, 4),
}


def output(seed: int, cols: int) -> bytes:
    """Return output of some kinds, so that much of it scrolls away."""
    rng = random.Random(seed)
    kinds = [*rng.sample(list(PIECES), rng.randrange(3, 8)), "lines", "text", "style"]
    return "".join(PIECES[rng.choice(kinds)](rng, cols) for _ in range(rng.randrange(20, 120))).encode()


def shown(terminal: XtermJs) -> tuple[object, ...]:
    """Return the cursor, and the wrap and the cells of each row; not what is different for a reason."""
    state = terminal.dump()
    lines = [(line.wrapped, tuple(map(visible, line.cells))) for line in terminal.cells()]
    return state[state["active"]]["cursor"], lines


def visible(cell: Cell) -> tuple[object, ...]:
    """Return what can be seen of a cell; links have other ids where the program gave none."""
    if not cell.text.strip(" ") and cell.link is None:
        return cell.text, cell.background
    return (*cell[:-1], cell.link and cell.link[1])


@pytest.mark.parametrize("size", [(20, 5), (7, 3), (40, 10), (80, 24)])
def test_a_repaint_is_drawn_as_the_output_was(xterm: Callable[[int, int], XtermJs], size: tuple[int, int]) -> None:
    """All rows of screen and history are equal, and they are after a resize, which rewraps what had wrapped."""
    original, repainted = xterm(*size), xterm(*size)
    for seed in range(25):
        data = output(seed, size[0])
        with Emulator(*size) as emulator:
            emulator.feed(data)
            for terminal, drawn in ((original, data), (repainted, emulator.repaint(100_000))):
                terminal.resize(*size)
                terminal.feed(b"\x1bc\x1b[3J" + drawn)
        assert shown(repainted) == shown(original), seed
        for terminal in (original, repainted):
            terminal.resize(size[0] + 9, size[1])
        assert shown(repainted) == shown(original), seed


def test_tab_stops_are_set_on_the_alternate_screen(xterm: Callable[[int, int], XtermJs]) -> None:
    """They are each screen's own in xterm.js, and the program's there as well."""
    with Emulator(40, 5) as emulator:
        emulator.feed(b"\x1b[3g\x1b[5G\x1bH\x1b[12G\x1bH\x1b[?1049h\x1b[H")
        terminal = xterm(40, 5)
        terminal.feed(emulator.repaint() + b"\ta\tb")
        assert terminal.lines()[0] == "    a      b"
