"""Attach to first paint with 10,000 lines of scrollback: <= 50 ms.

From the request `session.attach` to its answer with the repaint of the screen, as orbitctl
asks for it. For information: the same with the whole history before the screen, and the whole
process, from the spawn of a client on a PTY to the first byte that it paints there, beside
tmux with the same history.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from functools import partial

from benchmarks.bench import Bench, socket_of
from benchmarks.client import LineClient
from benchmarks.figures.many import shown
from benchmarks.figures.output import SKIPPED
from benchmarks.hosts import HOSTS, KEEP_LINES, ORBIT, TMUX, Place, is_here
from benchmarks.results import Bar, Outcome, Result, Skipped, summary
from benchmarks.rounds import by_turns
from benchmarks.windows import COLS, ROWS

SCREEN, HISTORY = "session.attach, the screen", "session.attach, screen and history"


def run(bench: Bench) -> Sequence[Outcome]:
    """Measure the figures."""
    names = [name for name in (ORBIT, TMUX) if is_here(name)]
    with contextlib.ExitStack() as stack:
        measures: dict[str, Callable[[], float]] = {}
        for name in names:
            (place,) = stack.enter_context(shown(bench, HOSTS[name][0], 1, KEEP_LINES))
            measures[name] = partial(_first_paint, place)
            if name == ORBIT:
                client = stack.enter_context(LineClient(socket_of(place.home)))
                measures[SCREEN] = partial(_attach, client, place, 0)
                measures[HISTORY] = partial(_attach, client, place, KEEP_LINES)
        found = by_turns(measures, bench.amount(15, 2), warm_up=bench.amount(2, 0))
    numbers = {name: summary(name, "ms", series) for name, series in found.items()}
    bar = Bar(kind="<=", limit=50)
    return [
        Result(figure="attach", number=numbers[SCREEN], bar=bar),
        Result(figure="attach", number=numbers[HISTORY]),
        Result(figure="attach", number=numbers[ORBIT], baseline=numbers[TMUX], note="whole processes")
        if TMUX in numbers
        else Skipped(figure="attach", what=f"{ORBIT} / {TMUX}", reason=SKIPPED),
    ]


def _attach(client: LineClient, place: Place, lines: int) -> float:
    """Return how long the answer to an attach takes, in milliseconds."""
    begun = time.perf_counter_ns()
    found = client.call("session.attach", id=place.session_id, cols=COLS, rows=ROWS, scrollback_lines=lines)
    taken = (time.perf_counter_ns() - begun) / 1_000_000
    client.call("session.leave", attachment_id=found["attachment_id"])
    return taken


def _first_paint(place: Place) -> float:
    """Return how long a client takes from spawn to the first byte on its terminal, in milliseconds."""
    begun = time.perf_counter_ns()
    with place.window() as window:
        window.read_something()
        return (time.perf_counter_ns() - begun) / 1_000_000
