"""The daemon's memory, idle: PSS <= 45 MB.

Read from the kernel once the daemon has served calls of several kinds: PSS, in which what it
shares with other processes counts in part, and VmRSS beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.bench import ORBITD, Bench, served, socket_of
from benchmarks.client import LineClient
from benchmarks.population import populate
from benchmarks.processes import HAS_PROC, MEGABYTE, NO_PROC, proportional_bytes, resident_bytes
from benchmarks.results import Bar, Outcome, Result, Skipped, exactly

SESSIONS = 20


def run(bench: Bench) -> Sequence[Outcome]:
    """Measure the figure."""
    if not HAS_PROC:
        return [Skipped(figure="memory", what="resident memory", reason=NO_PROC)]
    home = bench.new_home()
    with served(home, ORBITD) as daemon:
        with LineClient(socket_of(home)) as client:
            _use(client)
        resident, shared = resident_bytes([daemon.pid]), proportional_bytes([daemon.pid])
    return [
        Result(
            figure="memory",
            number=exactly("proportional (PSS)", "MB", shared / MEGABYTE),
            bar=Bar(kind="<=", limit=45),
        ),
        Result(figure="memory", number=exactly("resident (VmRSS)", "MB", resident / MEGABYTE)),
    ]


def _use(client: LineClient) -> None:
    """Call what people call; nothing big."""
    ids = populate(client, SESSIONS)
    for session_id in ids:
        client.call("session.get", id=session_id)
        client.call("snapshot.save", session_id=session_id, terminal_buffer="aGVsbG8=", cols=80, rows=24)
        client.call("snapshot.latest", session_id=session_id)
    for method in ("session.list", "workspace.list", "stats.get", "daemon.info", "daemon.ping"):
        client.call(method)
