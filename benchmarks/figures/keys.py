"""Key to echo through an attached client, idle and beside a flooding neighbour: p50 <= 2x, p99 <= 3x tmux's.

The program is `cat` on a raw terminal. A key is written to the PTY of the attached client and
the time runs until it is shown there; 300 keys a round, one after the other. The neighbour is
a session of the same daemon (or server) that prints coloured text without end and has no
client; it is held while it is not measured. dtach and screen, idle, are for the scale.
"""

from __future__ import annotations

import contextlib
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

from benchmarks.bench import Bench
from benchmarks.figures.output import MEGABYTE, SKIPPED, coloured_text
from benchmarks.hosts import DTACH, HOSTS, ORBIT, SCREEN, TMUX, Place, Script, is_here
from benchmarks.results import Bar, Number, Outcome, Result, Skipped, summary
from benchmarks.rounds import by_turns
from benchmarks.windows import Window

ECHO = Script(text="stty raw -echo; exec cat")
FLOOD = 'while :; do cat "$1"; done'
KEYS = (b"#", b"|", b"~")
"""None of these is part of what terminals use to place a cursor."""
IDLE, FLOODED = "idle", "beside a flood"
PERCENTILES = {50: Bar(kind="<=", limit=2), 99: Bar(kind="<=", limit=3)}


def run(bench: Bench) -> Sequence[Outcome]:
    """Measure the figures."""
    text = coloured_text(bench.folder / "flood", 5 * MEGABYTE)
    scripts = [ECHO, Script(text=FLOOD, arguments=(str(text),))]
    names = [name for name in (ORBIT, TMUX, DTACH, SCREEN) if is_here(name)]
    times: dict[tuple[str, str], list[list[float]]] = {}
    with contextlib.ExitStack() as stack:
        measures: dict[str, Callable[[], float]] = {}
        for name in names:
            is_pair = name in (ORBIT, TMUX)
            places = stack.enter_context(HOSTS[name][0](bench, scripts if is_pair else scripts[:1]))
            for kind, work in _kinds(stack, places, bench.amount(300, 20)).items():
                series = times.setdefault((name, kind), [])
                measures[f"{name} {kind}"] = partial(_into, series, work)
        by_turns(measures, bench.amount(7, 1), warm_up=0)
    found = {
        (name, kind, p): summary(f"{name}, {kind}, p{p}", "us", [_percentile(one, p) for one in series])
        for (name, kind), series in times.items()
        for p in PERCENTILES
    }
    return [
        _outcome(found, name, kind, p)
        for name, kind in ((TMUX, IDLE), (TMUX, FLOODED), (DTACH, IDLE), (SCREEN, IDLE))
        for p in PERCENTILES
    ]


def _kinds(stack: contextlib.ExitStack, places: Sequence[Place], count: int) -> dict[str, Callable[[], list[float]]]:
    """Open a window at the echo; return how to measure it, idle and, where there is a neighbour, beside that."""
    window = stack.enter_context(places[0].window())
    window.greet(KEYS[-1], KEYS[-1])
    kinds: dict[str, Callable[[], list[float]]] = {IDLE: partial(_echoes, window, count)}
    for neighbour in places[1:]:
        neighbour.hold()
        kinds[FLOODED] = partial(_beside, neighbour, kinds[IDLE])
    return kinds


def _into(series: list[list[float]], work: Callable[[], list[float]]) -> float:
    series.append(work())
    return statistics.median(series[-1])


def _beside(neighbour: Place, work: Callable[[], list[float]]) -> list[float]:
    neighbour.go_on()
    try:
        return work()
    finally:
        neighbour.hold()


def _echoes(window: Window, count: int) -> list[float]:
    """Press so many keys; return how long each took to be shown, in microseconds."""
    times = []
    window.empty()
    for key in itertools.islice(itertools.cycle(KEYS), count):
        begun = time.perf_counter_ns()
        window.type(key)
        window.read_until(key)
        times.append((time.perf_counter_ns() - begun) / 1_000)
    return times


def _percentile(series: list[float], percent: int) -> float:
    return statistics.quantiles(series, n=100, method="inclusive")[percent - 1]


def _outcome(found: dict[tuple[str, str, int], Number], name: str, kind: str, percent: int) -> Outcome:
    number, baseline = found[ORBIT, kind, percent], found.get((name, kind, percent))
    if baseline is None:
        return Skipped(figure="keys", what=f"{number.name} / {name}", reason=SKIPPED)
    return Result(figure="keys", number=number, baseline=baseline, bar=PERCENTILES[percent] if name == TMUX else None)
