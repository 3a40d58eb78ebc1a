"""The daemon's memory, idle: PSS <= 45 MB.

Read from the kernel once the daemon has served calls of several kinds: PSS, in which what it
shares with other processes counts in part, and VmRSS beside it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from benchmarks.bench import ORBITD, Bench, served, socket_of
from benchmarks.client import LineClient
from benchmarks.population import populate
from benchmarks.results import Bar, Outcome, Result, Skipped, exactly

SESSIONS = 20
MEGABYTE = 1_000_000


def run(bench: Bench) -> Sequence[Outcome]:
    """Measure the figure."""
    if not Path("/proc/self/smaps_rollup").exists():
        return [Skipped(figure="memory", what="resident memory", reason="this kernel has no /proc/PID/smaps_rollup")]
    home = bench.new_home()
    with served(home, ORBITD) as daemon:
        with LineClient(socket_of(home)) as client:
            _use(client)
        resident, shared = resident_bytes(daemon.pid), proportional_bytes(daemon.pid)
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


def resident_bytes(pid: int) -> int:
    """Return VmRSS of a process."""
    return _field(Path(f"/proc/{pid}/status"), "VmRSS")


def proportional_bytes(pid: int) -> int:
    """Return the PSS of a process."""
    return _field(Path(f"/proc/{pid}/smaps_rollup"), "Pss")


def _field(path: Path, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", path.read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024
