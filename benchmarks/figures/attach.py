"""Attach with 10,000 lines of history, warm, to the last byte: <= 25 ms.

From the request `session.attach` to the last byte of its answer, whose repaint has the whole history before the
screen. For information: the same with the screen only, and the whole process, from the spawn of a client on a PTY,
which orbitctl asks for all of the history, to the last line on it, beside rivals with the same history; they draw
their screen only, and dtach has none.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec

from benchmarks.bench import Bench, socket_of
from benchmarks.client import LineClient
from benchmarks.figures.many import shown
from benchmarks.hosts import CMUX, DTACH, HOSTS, KEEP_LINES, ORBIT, SCREEN, TMUX, Place, beside, here
from benchmarks.results import Bar, Outcome, Result, summary
from benchmarks.rounds import by_turns
from benchmarks.windows import COLS, ROWS

SCREEN_ONLY, HISTORY = "session.attach, the screen", "session.attach, 10,000 lines"
LAST_LINE = b"%d:" % KEEP_LINES  # no blank, which cmux skips


def run(bench: Bench) -> Sequence[Outcome]:
    """Measure the figures."""
    with contextlib.ExitStack() as stack:
        measures: dict[str, Callable[[], float]] = {}
        for name in here(bench, (ORBIT, TMUX, CMUX, SCREEN)):
            (place,) = stack.enter_context(shown(bench, HOSTS[name][0], 1, KEEP_LINES))
            if name == ORBIT:
                client = stack.enter_context(LineClient(socket_of(place.home)))
                measures[HISTORY] = partial(_attach, client, place, KEEP_LINES)
                measures[SCREEN_ONLY] = partial(_attach, client, place, 0)
                place = replace(place, attach=[*place.attach, "--scrollback", str(KEEP_LINES)])
            measures[name] = partial(last_line, place)
        found = by_turns(measures, bench.amount(15, 2), warm_up=bench.amount(2, 0))
    numbers = {name: summary(name, "ms", series) for name, series in found.items()}
    return [
        Result(figure="attach", number=numbers[HISTORY], bar=Bar(kind="<=", limit=25)),
        Result(figure="attach", number=numbers[SCREEN_ONLY]),
        *beside("attach", numbers[ORBIT], numbers, {}, unable=[DTACH]),
    ]


def _attach(client: LineClient, place: Place, lines: int) -> float:
    """Return how long the answer to an attach takes, in milliseconds."""
    begun = time.perf_counter_ns()
    client.send("session.attach", id=place.session_id, cols=COLS, rows=ROWS, scrollback_lines=lines)
    answer: dict[str, Any] = {}
    while "result" not in answer:
        line = client.read_line()
        taken = (time.perf_counter_ns() - begun) / 1_000_000  # reading it as JSON is not the daemon's part
        answer = msgspec.json.decode(line)
    client.call("session.leave", attachment_id=answer["result"]["attachment_id"])
    return taken


def last_line(place: Place) -> float:
    """Return how long a client takes from spawn to the last line on its terminal, in milliseconds."""
    begun = time.perf_counter_ns()
    with place.window() as window:
        window.read_until(LAST_LINE)
        return (time.perf_counter_ns() - begun) / 1_000_000
