"""100 MB of coloured text: attached >= 1.5x tmux's, >= 1/2 of a bare PTY loop, Node as fast; detached >= 2x tmux's.

Attached: a shell in a session prints a prepared file when a key asks for it; the time runs from the
key to the mark behind the file, on a PTY whose other end is read here as fast as Python can. The
bare loop reads the same shell's own terminal. Detached: the same with nobody attached, asked for
and reported through pipes. All but dtach keep a screen and history, and
Orbit writes a journal; who falls behind may show the newest instead of everything, and how
much was shown is in the notes. cmux, dtach, which keeps no screen, and screen are there for
the scale, and get a fifth of the text. Node is the client of examples/javascript, attached to a session of its
own, in the same turns: what it is sent it draws nowhere, as the windows here. CPU is that of all processes that
host, and of the client.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks.bench import HERE, Bench, environment
from benchmarks.floods import coloured_text
from benchmarks.hosts import BARE, HOSTS, NOT_INSTALLED, ORBIT, RIVALS, TMUX, Place, Script, beside, here, hosting
from benchmarks.peers import find
from benchmarks.processes import HAS_PROC, MEGABYTE, Cpu, tree
from benchmarks.results import Bar, Number, Outcome, Result, Skipped, summary
from benchmarks.rounds import by_turns
from benchmarks.windows import Window

PATIENCE_SECS = 120.0
NODE = "Node client"
CLIENT = HERE.parent / "examples" / "javascript" / "orbit.js"
SETTLE_SECS = 0.3
"""After the last byte: what is drawn behind the reading counts too."""
PRINTER = """
stty -echo
while read -r number; do
    [ "$number" = 0 ] || cat "$1"
    echo "run-$number-is-over"
done
"""
PIPED_PRINTER = """
stty -echo
while read -r number < "$2"; do
    cat "$1"
    echo "$number" > "$3"
done
"""


def run(bench: Bench) -> Sequence[Outcome]:
    """Measure all figures."""
    texts = _texts(bench)
    return [*_attached(bench, texts), *_detached(bench, texts)]


def _texts(bench: Bench) -> dict[str, Path]:
    """Return what each prints."""
    long = coloured_text(bench.folder / "long", bench.amount(100, 5) * MEGABYTE)
    short = coloured_text(bench.folder / "short", bench.amount(20, 1) * MEGABYTE)
    return {name: long if name in (ORBIT, TMUX, BARE) else short for name in HOSTS}


def _attached(bench: Bench, texts: Mapping[str, Path]) -> list[Outcome]:
    with contextlib.ExitStack() as stack:
        runs: dict[str, _Run | _NodeRun] = {}
        for name in here(bench, (ORBIT, *RIVALS, BARE)):
            script = Script(text=PRINTER, arguments=(str(texts[name]),))
            places = stack.enter_context(HOSTS[name][0](bench, [script]))
            runs[name] = _Run(stack, places, texts[name].stat().st_size)
        if (node := find("node")) is not None:
            places = stack.enter_context(HOSTS[ORBIT][0](bench, [Script(text=PRINTER, arguments=(str(texts[ORBIT]),))]))
            runs[NODE] = _NodeRun(stack, places, texts[ORBIT].stat().st_size, node)
        found = by_turns({name: one.measure for name, one in runs.items()}, bench.amount(3, 1), warm_up=0)
    numbers = {name: summary(f"{name}, attached", "MB/s", series) for name, series in found.items()}
    rivals = beside("output", numbers[ORBIT], numbers, {TMUX: Bar(kind=">=", limit=1.5)})
    note = "bytes shown for each printed: " + ", ".join(f"{name} {one.shown:.2f}" for name, one in runs.items())
    bar = Bar(kind=">=", limit=0.5)
    return [
        Result(figure="output", number=numbers[ORBIT], baseline=numbers[BARE], bar=bar, note=note),
        *rivals,
        _node_row(numbers),
        *_cpu_rows({name: one.cpu for name, one in runs.items() if name != BARE}, "attached"),
    ]


def _node_row(numbers: Mapping[str, Number]) -> Outcome:
    if NODE not in numbers:
        return Skipped(figure="output", what=f"{NODE} / {ORBIT}", reason=NOT_INSTALLED)
    return Result(figure="output", number=numbers[NODE], baseline=numbers[ORBIT], bar=Bar(kind=">=", limit=1))


def _detached(bench: Bench, texts: Mapping[str, Path]) -> list[Outcome]:
    with contextlib.ExitStack() as stack:
        runs = {name: _DetachedRun(stack, bench, name, texts[name]) for name in here(bench)}
        found = by_turns({name: one.measure for name, one in runs.items()}, bench.amount(3, 1), warm_up=0)
    numbers = {name: summary(f"{name}, detached", "MB/s", series) for name, series in found.items()}
    return [
        *beside("output", numbers[ORBIT], numbers, {TMUX: Bar(kind=">=", limit=2)}),
        *_cpu_rows({name: one.cpu for name, one in runs.items()}, "detached"),
    ]


def _cpu_rows(spent: Mapping[str, Sequence[float]], what: str) -> list[Outcome]:
    if not HAS_PROC:
        return []
    numbers = {name: summary(f"{name}, {what}, CPU a MB", "ms", series) for name, series in spent.items()}
    return beside("output", numbers[ORBIT], numbers, {})


class _Run:
    """A window at the printing shell.

    Args:
        stack: Closes the window.
        places: Where the shell runs; one.
        size: How much it prints, in bytes.

    Attributes:
        shown: Bytes shown in the window for each printed.
        cpu: Milliseconds a MB that what hosts and its client ran, of each round.
    """

    def __init__(self, stack: contextlib.ExitStack, places: Sequence[Place], size: int) -> None:
        self._size, self._places = size, places
        self._numbers = itertools.count(1)
        self._window: Window = stack.enter_context(places[0].window())
        self._window.greet(b"0\n", b"run-0-is-over")
        self.shown = 0.0
        self.cpu: list[float] = []

    def measure(self) -> float:
        """Print once; return the speed in MB/s."""
        number, before, used = next(self._numbers), self._window.read_bytes, Cpu(self._pids)
        begun = time.perf_counter()
        self._window.type(b"%d\n" % number)
        self._window.read_until(b"run-%d-is-over" % number)
        taken = time.perf_counter() - begun
        self.shown = (self._window.read_bytes - before) / self._size
        time.sleep(SETTLE_SECS)
        self.cpu.append(used.spent_ms() / self._size * MEGABYTE)
        return self._size / MEGABYTE / taken

    def _pids(self) -> Iterable[int]:
        return hosting(self._places) | tree([self._window.pid])


class _NodeRun:
    """The client of examples/javascript at the printing shell.

    Args:
        stack: Ends it.
        places: Where the shell runs; one.
        size: How much it prints, in bytes.
        node: The program.

    Attributes:
        shown, cpu: As of `_Run`.
    """

    def __init__(self, stack: contextlib.ExitStack, places: Sequence[Place], size: int, node: str) -> None:
        self._size, self._places = size, places
        self._numbers = itertools.count(1)
        place = places[0]
        self._client = subprocess.Popen(
            [node, str(HERE / "node_client.mjs"), str(CLIENT), place.session_id],
            env=environment(place.home),
            cwd=place.home,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        stack.callback(self._client.wait)
        stack.callback(self._client.kill)
        self._ask(0)
        self.shown = 0.0
        self.cpu: list[float] = []

    def measure(self) -> float:
        """Print once; return the speed in MB/s."""
        used = Cpu(lambda: hosting(self._places) | tree([self._client.pid]))
        taken, shown = self._ask(next(self._numbers))
        self.shown = shown / self._size
        time.sleep(SETTLE_SECS)
        self.cpu.append(used.spent_ms() / self._size * MEGABYTE)
        return self._size / MEGABYTE / taken

    def _ask(self, number: int) -> tuple[float, int]:
        """Have a number typed; return the seconds until its mark was shown, and the bytes that were."""
        assert self._client.stdin is not None
        assert self._client.stdout is not None
        print(number, file=self._client.stdin, flush=True)
        if not select.select([self._client.stdout], [], [], PATIENCE_SECS)[0]:
            raise TimeoutError(f"{NODE}: nothing is shown")
        taken, shown = self._client.stdout.readline().split()
        return float(taken), int(shown)


class _DetachedRun:
    """A printing shell that nobody is attached to, asked through pipes.

    Args:
        stack: Ends it.
        bench: The run.
        name: What hosts it.
        text: What it prints.

    Attributes:
        cpu: Milliseconds a MB that what hosts ran, of each round.
    """

    def __init__(self, stack: contextlib.ExitStack, bench: Bench, name: str, text: Path) -> None:
        self._size = text.stat().st_size
        home = bench.new_home()
        asked, done = home / "asked", home / "done"
        for pipe in (asked, done):
            os.mkfifo(pipe)
        self._done = os.open(done, os.O_RDWR | os.O_NONBLOCK)  # ours is a writer too, so that it never ends
        self._asked = os.open(asked, os.O_RDWR)
        for descriptor in (self._done, self._asked):
            stack.callback(os.close, descriptor)
        script = Script(text=PIPED_PRINTER, arguments=(str(text), str(asked), str(done)))
        self._places = stack.enter_context(HOSTS[name][0](bench, [script]))
        self.cpu: list[float] = []

    def measure(self) -> float:
        """Print once; return the speed in MB/s."""
        used = Cpu(lambda: hosting(self._places))
        begun = time.perf_counter()
        os.write(self._asked, b"1\n")
        if not select.select([self._done], [], [], PATIENCE_SECS)[0]:
            raise TimeoutError("nothing is printed")
        os.read(self._done, 64)
        taken = time.perf_counter() - begun
        time.sleep(SETTLE_SECS)
        self.cpu.append(used.spent_ms() / self._size * MEGABYTE)
        return self._size / MEGABYTE / taken
