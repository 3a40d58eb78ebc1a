"""Output through an attached client, 100 MB of coloured text: >= tmux's, and >= 1/2 of a bare PTY read loop.

A shell in a session prints a prepared file when a key asks for it; the time runs from the key to
the mark behind the file, on a PTY whose other end is read here as fast as Python can. The
bare loop reads the same shell's own terminal. All but dtach keep a screen and history, and
Orbit writes a journal; who falls behind may show the newest instead of everything, and how
much was shown is in the notes. dtach, which keeps no screen, and screen are there for
the scale, and get a fifth of the text.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.hosts import BARE, DTACH, HOSTS, ORBIT, SCREEN, TMUX, Place, Script, is_here
from benchmarks.results import Bar, Number, Outcome, Result, Skipped, summary
from benchmarks.rounds import by_turns
from benchmarks.windows import Window

MEGABYTE = 1_000_000
BARS: dict[str, Bar | None] = {
    TMUX: Bar(kind=">=", limit=1),
    BARE: Bar(kind=">=", limit=0.5),
    DTACH: None,
    SCREEN: None,
}
PRINTER = """
stty -echo
while read -r number; do
    [ "$number" = 0 ] || cat "$1"
    echo "run-$number-is-over"
done
"""
SKIPPED = "not installed"


def run(bench: Bench) -> Sequence[Outcome]:
    """Measure the figure."""
    long = coloured_text(bench.folder / "long", bench.amount(100, 5) * MEGABYTE)
    short = coloured_text(bench.folder / "short", bench.amount(20, 1) * MEGABYTE)
    names = [name for name in HOSTS if is_here(name)]
    with contextlib.ExitStack() as stack:
        measures, runs = {}, {}
        for name in names:
            text = short if BARS.get(name, True) is None else long
            script = Script(text=PRINTER, arguments=(str(text),))
            (place,) = stack.enter_context(HOSTS[name][0](bench, [script]))
            runs[name] = _Run(stack, place, text.stat().st_size)
            measures[name] = runs[name].measure
        found = by_turns(measures, bench.amount(3, 1), warm_up=0)
    numbers = {name: summary(name, "MB/s", series) for name, series in found.items()}
    shown = {name: runs[name].shown for name in names}
    return [_outcome(name, bar, numbers, shown) for name, bar in BARS.items()]


class _Run:
    """A window at the printing shell.

    Args:
        stack: Closes the window.
        place: Where the shell runs.
        size: How much it prints, in bytes.
    """

    def __init__(self, stack: contextlib.ExitStack, place: Place, size: int) -> None:
        self._size = size
        self._numbers = itertools.count(1)
        self._window: Window = stack.enter_context(place.window())
        self._window.greet(b"0\n", b"run-0-is-over")
        self.shown = 0.0

    def measure(self) -> float:
        """Print once; return the speed in MB/s."""
        number, before = next(self._numbers), self._window.read_bytes
        begun = time.perf_counter()
        self._window.type(b"%d\n" % number)
        self._window.read_until(b"run-%d-is-over" % number)
        taken = time.perf_counter() - begun
        self.shown = (self._window.read_bytes - before) / self._size
        return self._size / MEGABYTE / taken


def _outcome(name: str, bar: Bar | None, numbers: dict[str, Number], shown: dict[str, float]) -> Outcome:
    if name not in numbers:
        return Skipped(figure="output", what=f"{ORBIT} / {name}", reason=SKIPPED)
    note = f"bytes shown for each printed: {shown[ORBIT]:.2f}, {name} {shown[name]:.2f}"
    return Result(figure="output", number=numbers[ORBIT], baseline=numbers[name], bar=bar, note=note)


def coloured_text(path: Path, size: int) -> Path:
    """Write a file of about so many bytes of lines as compilers and tests print them; return its path."""
    dice = random.Random(1)
    words: Sequence[str] = ("compiling", "linking", "passed", "FAILED", "warning:", "src/main.c:42", "in 0.31 s", "->")
    looks = [f"\x1b[{weight};3{colour}m" for weight in (0, 1, 4) for colour in range(8)]
    lines = (
        " ".join(f"{dice.choice(looks)}{dice.choice(words)}\x1b[0m" for _ in range(dice.randrange(1, 8)))
        for _ in range(10_000)
    )
    block = "".join(f"{line}\n" for line in lines).encode()
    with path.open("wb") as file:
        for _ in range(max(1, round(size / len(block)))):
            file.write(block)
    return path
