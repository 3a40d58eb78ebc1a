"""Key to echo through an attached client: idle p50 <= 4x tmux's, beside floods p50 and p99 <= tmux's.

The program is `cat` on a raw terminal. A key is written to the PTY of the attached client and
the time runs until it is shown there; 300 keys a round, one after the other. Idle, the server, its
client, the program and the one that measures are all kept on one processor, once what the floods before have left
to save is saved; beside floods none is.
A flood is a session of the same daemon (or server) that prints without end and has no client, held
back by a file while it is not measured. What stands beside `CSI 65535 b` is tmux's key beside one flood of text,
since tmux cuts that number down to a line: a rival's own flood of it is printed for the scale.
"""

from __future__ import annotations

import contextlib
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

from benchmarks.bench import Bench, on_one_processor
from benchmarks.floods import Flood, flowing, repeat_flood, text_flood
from benchmarks.hosts import CMUX, DTACH, HOSTS, ORBIT, SCREEN, TMUX, Place, Script, beside, everything, here, hosting
from benchmarks.processes import Cpu, tree
from benchmarks.results import Bar, Number, Outcome, Result, Skipped, summary
from benchmarks.rounds import by_turns
from benchmarks.windows import Window

ECHO = Script(text="stty raw -echo; exec cat")
KEYS = (b"#", b"|", b"~")
"""None of these is part of what terminals use to place a cursor."""
IDLE, ONE, THREE, REPEATS = "idle", "beside a flood", "beside 3 floods", "beside CSI 65535 b"
SERVERS_OF_MANY = (ORBIT, TMUX, CMUX)
"""Those with which a flood has anything to do: the others run a process a session."""
SETTLE_SECS = 4
"""A flood is saved two seconds after it has paused."""
PATIENCE_SECS = 20.0
"""How long one key may take, and all keys of one measurement; what takes longer counts as this long."""


def run(bench: Bench) -> Sequence[Outcome]:
    """Measure the figures."""
    names = here(bench)
    times: dict[tuple[str, str], list[list[float]]] = {}
    cpu: dict[str, list[float]] = {}
    with contextlib.ExitStack() as stack:
        measures: dict[str, Callable[[], float]] = {}
        for name in names:
            for kind, work in _kinds(stack, bench, name, cpu.setdefault(name, [])).items():
                measures[f"{name} {kind}"] = partial(_into, times.setdefault((name, kind), []), work)
        by_turns(measures, bench.amount(5, 1), warm_up=0)
    found = {
        (name, kind, p): summary(f"{name}, {kind}, p{p}", "us", [_percentile(one, p) for one in series])
        for (name, kind), series in times.items()
        for p in (50, 99)
    }
    spent = {name: summary(f"{name}, CPU a key", "us", series) for name, series in cpu.items() if series}
    return [
        *_beside_tmux(found),
        *(one for p in (50, 99) for name in (CMUX, DTACH, SCREEN) for one in _scale(found, name, IDLE, p)),
        *(one for p in (50, 99) for kind in (ONE, THREE, REPEATS) for one in _scale(found, CMUX, kind, p)),
        *(one for p in (50, 99) for one in _scale(found, TMUX, REPEATS, p)),
        *(beside("keys", spent[ORBIT], spent, {}) if spent else ()),
    ]


def _beside_tmux(found: dict[tuple[str, str, int], Number]) -> list[Outcome]:
    """Return what is promised: each with its bar."""
    rows = [(IDLE, IDLE, 50, 4.0), *((kind, kind, p, 1.0) for kind in (ONE, THREE) for p in (50, 99))]
    rows += [(REPEATS, ONE, p, 1.0) for p in (50, 99)]
    outcomes: list[Outcome] = []
    for ours, theirs, p, limit in rows:
        number, baseline = found[ORBIT, ours, p], found.get((TMUX, theirs, p))
        outcomes.append(
            Skipped(figure="keys", what=f"{number.name} / {TMUX}", reason="not installed")
            if baseline is None
            else Result(figure="keys", number=number, baseline=baseline, bar=Bar(kind="<=", limit=limit))
        )
    return outcomes


def _scale(found: dict[tuple[str, str, int], Number], name: str, kind: str, percent: int) -> list[Outcome]:
    """Return a rival's figure for the scale; a missing rival has its line of being skipped from the idle one."""
    number, baseline = found[ORBIT, kind, percent], found.get((name, kind, percent))
    if baseline is not None:
        return [Result(figure="keys", number=number, baseline=baseline)]
    is_told = kind == IDLE and percent == 50
    return [Skipped(figure="keys", what=f"{number.name} / {name}", reason="not installed")] if is_told else []


def _kinds(
    stack: contextlib.ExitStack, bench: Bench, name: str, cpu: list[float]
) -> dict[str, Callable[[], list[float]]]:
    """Host the echo and, where that is one server, floods; return how to measure each kind."""
    folder, count = bench.new_home(), bench.amount(300, 20)
    settle_secs = bench.amount(SETTLE_SECS, 0)
    texts = [text_flood(folder, number) for number in range(3)]
    floods = [*texts, repeat_flood(folder, 3)] if name in SERVERS_OF_MANY else []
    places = stack.enter_context(HOSTS[name][0](bench, [ECHO, *(flood.script for flood in floods)]))
    window = stack.enter_context(places[0].window())
    window.greet(KEYS[-1], KEYS[-1])
    kinds: dict[str, Callable[[], list[float]]] = {IDLE: partial(_idle, places, window, count, cpu, settle_secs)}
    if floods:
        for kind, some in ((ONE, texts[:1]), (THREE, texts), (REPEATS, floods[3:])):
            kinds[kind] = partial(_flooded, some, window, count)
    return kinds


def _into(series: list[list[float]], work: Callable[[], list[float]]) -> float:
    series.append(work())
    return statistics.median(series[-1])


def _idle(places: Sequence[Place], window: Window, count: int, cpu: list[float], settle_secs: float) -> list[float]:
    """Measure with everything on one processor; note what servers and client run for a key, in microseconds."""
    time.sleep(settle_secs)
    with on_one_processor(everything(places, window)):
        used = Cpu(lambda: hosting(places) | tree([window.pid]))
        times = _echoes(window, count)
        if spent := used.spent_ms():
            cpu.append(1000 * spent / len(times))
    return times


def _flooded(floods: Sequence[Flood], window: Window, count: int) -> list[float]:
    with flowing(floods):
        return _echoes(window, count)


def _echoes(window: Window, count: int) -> list[float]:
    """Press so many keys, or as many as there is time for; return how long each took to be shown, in microseconds."""
    times: list[float] = []
    window.empty()
    deadline = time.monotonic() + PATIENCE_SECS
    for key in itertools.islice(itertools.cycle(KEYS), count):
        begun = time.perf_counter_ns()
        window.type(key)
        try:
            window.read_until(key, PATIENCE_SECS)
        except TimeoutError:
            times.append(PATIENCE_SECS * 1_000_000)
            break
        times.append((time.perf_counter_ns() - begun) / 1_000)
        if time.monotonic() > deadline:
            break
    return times


def _percentile(series: list[float], percent: int) -> float:
    return statistics.quantiles(series, n=100, method="inclusive")[percent - 1] if len(series) > 1 else series[0]
