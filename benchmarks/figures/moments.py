"""`session.screen` at any moment of 10 MB of film: <= 300 ms; at 200 moments, cell by cell what was there: all.

A day of work happens in a session, with pauses at 200 random moments of it, at which an emulator of our own that sees
the same is asked for all that it shows. Then the session is asked for its screen at each of these moments, in another
random order. The worst answer counts; beside it stands the screen as it is now.
"""

from __future__ import annotations

import base64
import random
import time
from collections.abc import Sequence

from benchmarks.bench import ORBITD, Bench, configure, served, socket_of
from benchmarks.client import LineClient
from benchmarks.figures.many import EAGER
from benchmarks.hosts import end_programs
from benchmarks.processes import MEGABYTE
from benchmarks.results import Bar, Outcome, Result, exactly, summary, worst


def run(bench: Bench) -> Sequence[Outcome]:
    """Measure the figures."""
    from benchmarks.workday import Day, drawn, record_for

    home, path = bench.new_home(), record_for(bench)
    configure(home, EAGER)
    with served(home, ORBITD), LineClient(socket_of(home)) as client, Day(client, path, home) as day:
        moments = list(day.moments(bench.amount(200, 20)))
        random.Random(1).shuffle(moments)
        _screen(client, day.session_id)  # warm
        times, equal = [], 0
        for moment in moments:
            screen, taken = _screen(client, day.session_id, at=moment.at)
            shown = drawn(base64.b64decode(screen["data"]), (screen["cols"], screen["rows"]))
            times.append(taken)
            equal += shown == moment.screen
        now = [_screen(client, day.session_id)[1] for _ in moments]
        film = client.call("stats.get")["recording_raw_bytes"]
        end_programs(home)
    return [
        Result(
            figure="moments",
            number=worst("screen of a moment, worst", "ms", times),
            baseline=summary("screen as it is now", "ms", now),
            bar=Bar(kind="<=", limit=300, of_value=True),
            note=f"{len(times)} moments of {film / MEGABYTE:.1f} MB of film",
        ),
        Result(figure="moments", number=summary("screen of a moment, p50", "ms", times)),
        Result(
            figure="moments",
            number=exactly("moments equal, cell by cell", "moments", equal),
            baseline=exactly("moments", "moments", len(moments)),
            bar=Bar(kind=">=", limit=1),
        ),
    ]


def _screen(client: LineClient, session_id: str, **params: str) -> tuple[dict[str, str | int], float]:
    """Return a session's screen, and how long the answer took, in milliseconds."""
    begun = time.perf_counter_ns()
    screen = client.call("session.screen", id=session_id, format="vt", **params)
    return screen, (time.perf_counter_ns() - begun) / 1_000_000
