"""Fifty sessions at which nothing happens cost no disk write and next to no CPU."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from live.sessions import Terminal, keeper_of, resident, start, stat
from support import WAIT_SECS, DaemonProcess, RawClient

pytestmark = pytest.mark.slow

SESSIONS = 50
IDLE_SECS = float(os.environ.get("ORBIT_TEST_IDLE_SECS", "3"))
SETTLED_SECS = 15.0
"""Longer than a daemon has anything to do for a session that has become quiet."""
WAKEUPS_A_SECOND = 5
MIB = 1024 * 1024
DAEMON_BYTES = int((45 + 0.5 * SESSIONS) * MIB)
"""The daemon's floor, and what 300 lines of history and Python's objects take for each session."""
KEEPER_BYTES = 12 * MIB


@pytest.fixture
def sessions(daemon: DaemonProcess, client: RawClient) -> list[str]:
    """Sessions with some output, all of it saved, and nobody at them."""
    ids = [start(client, f"sh -c 'seq 300; echo session {number}; exec cat'") for number in range(SESSIONS)]
    for number, session_id in enumerate(ids):
        with daemon.client() as other:
            terminal = Terminal(other, session_id)
            terminal.follow_until(f"session {number}")
            other.call("session.leave", attachment_id=terminal.id)
            terminal.emulator.close()
    client.call("maintenance.auto_save")
    return ids


def written(pid: int) -> int:
    """Return how many bytes a process has sent towards a disk."""
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes:"))


def cpu_ticks(pid: int) -> int:
    """Return user and system time, in clock ticks."""
    return sum(map(int, stat(pid)[11:13]))


def wakeups(pid: int) -> int:
    """Return how often any thread has waited for something."""
    found = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        lines = (task / "status").read_text().splitlines()
        found += next(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches:"))
    return found


def files(home: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of change of every file of Orbit's."""
    found = [path for path in (home / ".local").rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


def idle(client: RawClient, session_id: str, secs: float) -> None:
    """Let the time pass, with the daemon waiting for something that does not come."""
    client.socket.settimeout(secs + WAIT_SECS)
    error: Any = client.error("session.wait", id=session_id, timeout_secs=secs)
    assert error["data"]["kind"] == "timeout"


@pytest.mark.timeout(120 + 4 * IDLE_SECS)
def test_idle_sessions_cost_nothing(sessions: list[str], daemon: DaemonProcess, client: RawClient) -> None:
    """No write to any file, hardly a wake-up, and memory within its bounds, of the daemon as of the keeper."""
    keeper = keeper_of(client.call("session.get", id=sessions[0])["pid"])
    # What the last client left behind is done, the log's last checkpoint after it, and pictures are freed.
    idle(client, sessions[0], SETTLED_SECS)
    pids = (daemon.pid, keeper)
    before = [(written(pid), cpu_ticks(pid), wakeups(pid)) for pid in pids]
    files_before = files(daemon.home)
    began = time.monotonic()
    idle(client, sessions[0], IDLE_SECS)
    passed = time.monotonic() - began  # on a machine that has other work it is longer
    after = [(written(pid), cpu_ticks(pid), wakeups(pid)) for pid in pids]
    assert files(daemon.home) == files_before
    assert client.call("stats.get")["total_snapshots"] == SESSIONS  # one each, when its client left
    for (bytes_before, ticks_before, woken_before), (bytes_after, ticks_after, woken_after) in zip(
        before, after, strict=True
    ):
        assert bytes_after == bytes_before
        assert ticks_after - ticks_before <= 2 + passed / 2
        assert woken_after - woken_before <= 20 + WAKEUPS_A_SECOND * passed
    assert after[1][1:] == before[1][1:]  # the keeper does nothing at all
    assert resident(daemon.pid) <= DAEMON_BYTES
    assert resident(keeper) <= KEEPER_BYTES
