"""Start of orbitd with 1,000 live sessions of 2,000 lines: <= 1.5x an empty start.

Measured from the spawn of `python -m orbitd` to the line on `--ready-fd`. Both daemons, the one whose sessions live
and the one that has none, are ended with -9 before each start, so that both open their store as a crash leaves it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from benchmarks.bench import ORBITD, START_SECS, Bench, served, socket_of
from benchmarks.client import LineClient
from benchmarks.figures.many import EAGER, LINES, shown, wait_until_saved
from benchmarks.hosts import all_sessions, end_programs, orbit
from benchmarks.results import Bar, Outcome, Result, summary
from benchmarks.rounds import by_turns


def run(bench: Bench) -> Sequence[Outcome]:
    """Measure the figure."""
    count = bench.amount(1_000, 5)
    empty = bench.new_home()
    with _left_alone(bench, count) as full:
        starts = {"full": partial(_start_time, full, count), "empty": partial(_start_time, empty, 0)}
        found = by_turns(starts, bench.amount(9, 1), warm_up=1)
    return [
        Result(
            figure="restart",
            number=summary(f"ready, {count:,} live sessions", "ms", found["full"]),
            baseline=summary("ready, empty store", "ms", found["empty"]),
            bar=Bar(kind="<=", limit=1.5),
        )
    ]


@contextlib.contextmanager
def _left_alone(bench: Bench, count: int) -> Iterator[Path]:
    """Yield the home of a daemon that was killed while so many sessions are live; end their programs afterwards."""
    host = partial(orbit, settings=EAGER, ends_programs=False)
    with shown(bench, host, count, LINES) as places:
        home = places[0].home
        wait_until_saved(home)
    try:
        yield home
    finally:
        with served(home, ORBITD):
            end_programs(home)


def _start_time(home: Path, live: int) -> float:
    """Return how long a daemon takes from spawn to ready, in milliseconds; end it with -9 after that.

    Raises:
        RuntimeError: It has not so many live sessions.
    """
    begun = time.perf_counter_ns()
    with served(home, ORBITD) as daemon:
        taken = (time.perf_counter_ns() - begun) / 1_000_000
        _wait_until_live(home, live)
        daemon.kill()
        daemon.wait()
    return taken


def _wait_until_live(home: Path, live: int) -> None:
    """Look until so many sessions are live: a daemon may serve before its keeper has answered."""
    deadline = time.monotonic() + START_SECS
    with LineClient(socket_of(home)) as client:
        while (found := sum(bool(one["live"]) for one in all_sessions(client))) != live:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{found} of {live} sessions are live after the start")
            time.sleep(0.05)
