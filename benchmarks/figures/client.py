"""One attached orbitctl, PSS: <= 8 MB.

The client is attached to `cat` and has shown what was typed. Beside it stand the clients of rivals. For information:
everything that hosts one session with its client, which is what somebody pays who has one.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.bench import Bench
from benchmarks.figures.keys import ECHO, KEYS
from benchmarks.hosts import HOSTS, ORBIT, beside, here, hosting
from benchmarks.processes import HAS_PROC, MEGABYTE, NO_PROC, proportional_bytes, tree
from benchmarks.results import Bar, Number, Outcome, Result, Skipped, exactly


def run(bench: Bench) -> Sequence[Outcome]:
    """Measure the figures."""
    if not HAS_PROC:
        return [Skipped(figure="client", what="memory of a client", reason=NO_PROC)]
    clients: dict[str, Number] = {}
    wholes: dict[str, Number] = {}
    for name in here(bench):
        with HOSTS[name][0](bench, [ECHO]) as places, places[0].window() as window:
            window.greet(KEYS[0], KEYS[0])
            pids = tree([window.pid])
            client, servers = proportional_bytes(pids), proportional_bytes(hosting(places))
        clients[name] = exactly(f"{name}, one client", "MB", client / MEGABYTE)
        wholes[name] = exactly(f"{name}, one session and client", "MB", (client + servers) / MEGABYTE)
    return [
        Result(figure="client", number=clients[ORBIT], bar=Bar(kind="<=", limit=8)),
        *beside("client", clients[ORBIT], clients, {}),
        *beside("client", wholes[ORBIT], wholes, {}),
    ]
