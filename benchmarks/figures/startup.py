"""Ready after start with 10,000 sessions and 100,000 snapshots stored: <= 1.5x an empty store.

Measured from the spawn of `python -m orbitd` to the line on `--ready-fd`, which is written
when clients are served. Both stores exist already and were closed well. The big one grows
from one session of a real shell, saved through the manager and then copied inside SQLite
under new ids; no session is terminated, so the daemon has to load every one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.bench import ORBITD, Bench, database_of, served, socket_of
from benchmarks.client import LineClient
from benchmarks.corpus import COLS, ROWS, record
from benchmarks.population import make_one, multiply
from benchmarks.results import Bar, Outcome, Result, summary
from benchmarks.rounds import by_turns

SNAPSHOTS_EACH = 10


def run(bench: Bench) -> Sequence[Outcome]:
    """Measure the figure."""
    sessions = bench.amount(10_000, 50)
    empty, full = bench.new_home(), bench.new_home()
    with served(empty, ORBITD):
        pass
    screens = next(iter(record(bench.new_home(), 1, SNAPSHOTS_EACH)))
    found = [(screen.terminal_buffer, screen.scrollback) for screen in screens]
    asyncio.run(make_one(database_of(full), found, COLS, ROWS))
    multiply(database_of(full), sessions)
    with served(full, ORBITD), LineClient(socket_of(full)) as client:
        stats = client.call("stats.get")
        assert (stats["total_sessions"], stats["total_snapshots"]) == (sessions, sessions * SNAPSHOTS_EACH)
    times = by_turns(
        {"full": lambda: start_time(full), "empty": lambda: start_time(empty)},
        bench.amount(15, 1),
        warm_up=bench.amount(1, 0),
    )
    name = f"ready, {sessions:,} sessions and {sessions * SNAPSHOTS_EACH:,} snapshots"
    return [
        Result(
            figure="startup",
            number=summary(name, "ms", times["full"]),
            baseline=summary("ready, empty store", "ms", times["empty"]),
            bar=Bar(kind="<=", limit=1.5),
            note=f"database {database_of(full).stat().st_size / 1e6:.0f} MB",
        )
    ]


def start_time(home: Path) -> float:
    """Return how long a daemon takes from spawn to ready, in milliseconds."""
    begun = time.perf_counter_ns()
    with served(home, ORBITD):
        return (time.perf_counter_ns() - begun) / 1_000_000
