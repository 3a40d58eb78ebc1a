"""Processes by the kernel's own figures: who descends from whom, and what they take; whole runs by the clock.

What belongs to a server is found from a process id that is known, by its children in /proc, never by a name.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

MEGABYTE = 1_000_000
HAS_PROC = Path("/proc/self/smaps_rollup").exists() and Path("/proc/self/io").exists()
NO_PROC = "this kernel has no /proc/PID/smaps_rollup and io"


def run_time(command: Sequence[str], environment: Mapping[str, str]) -> float:
    """Run a program that must succeed and return how long it took, in milliseconds.

    Raises:
        RuntimeError: It failed; what it wrote is in the text.
    """
    begun = time.perf_counter_ns()
    ran = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    taken = (time.perf_counter_ns() - begun) / 1_000_000
    if ran.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit {ran.returncode}\n{os.fsdecode(ran.stdout + ran.stderr)}")
    return taken


def parents() -> dict[int, int]:
    """Return the parent of every process, by process id; empty where there is no /proc."""
    found = {}
    for entry in filter(str.isdigit, os.listdir("/proc") if HAS_PROC else ()):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            found[int(entry)] = _parent(Path(f"/proc/{entry}/stat").read_text())
    return found


def parent_of(pid: int) -> int:
    """Return the parent of a process, 0 where it does not run or there is no /proc."""
    try:
        return _parent(Path(f"/proc/{pid}/stat").read_text())
    except OSError:
        return 0


def _parent(stat: str) -> int:
    return int(stat.rsplit(")", 1)[1].split()[1])  # the name in the parentheses may hold some itself


def end(pids: Iterable[int], secs: float) -> None:
    """Wait until processes have ended, of which none need be a child of ours; kill those that have not in time."""
    deadline = time.monotonic() + secs
    for pid in pids:
        while _is_running(pid) and time.monotonic() < deadline:
            time.sleep(0.02)
        if _is_running(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _is_running(pid: int) -> bool:
    """Return whether a process runs; one that has ended may wait for its parent for ever."""
    try:
        if not HAS_PROC:
            os.kill(pid, 0)
            return True
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def tree(roots: Iterable[int]) -> set[int]:
    """Return these processes and all that descend from them."""
    children: dict[int, list[int]] = {}
    for pid, parent in parents().items():
        children.setdefault(parent, []).append(pid)
    found: set[int] = set()
    waiting = [pid for pid in roots if pid > 0]
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting += children.get(pid, [])
    return found


def proportional_bytes(pids: Iterable[int]) -> int:
    """Return the PSS of processes together: what they share with others counts in part."""
    return _total(pids, "smaps_rollup", re.compile(r"^Pss:\s+(\d+) kB", re.MULTILINE)) * 1024


def resident_bytes(pids: Iterable[int]) -> int:
    """Return VmRSS of processes together."""
    return _total(pids, "status", re.compile(r"^VmRSS:\s+(\d+) kB", re.MULTILINE)) * 1024


def written_bytes(pids: Iterable[int]) -> int:
    """Return what processes have written to files, in pages that the kernel is to write to disk."""
    return _total(pids, "io", re.compile(r"^write_bytes: (\d+)", re.MULTILINE))


def unwritten_bytes(pids: Iterable[int]) -> int:
    """Return what of that never reached the disk, as its file was deleted or cut before (proc(5))."""
    return _total(pids, "io", re.compile(r"^cancelled_write_bytes: (\d+)", re.MULTILINE))


def _total(pids: Iterable[int], file: str, pattern: re.Pattern[str]) -> int:
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):  # it has ended
            found = pattern.search(Path(f"/proc/{pid}/{file}").read_text())
            total += int(found[1]) if found is not None else 0
    return total


def cpu_ns(pids: Iterable[int]) -> dict[int, int]:
    """Return what all threads of each process have run, in nanoseconds, from /proc/PID/task/TID/schedstat."""
    found = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
            found[pid] = sum(int(path.read_text().split()[0]) for path in tasks)
    return found


class Cpu:
    """What processes run from now on.

    Args:
        pids: Returns them; it is asked again at the end, since some may have been started meanwhile.
    """

    def __init__(self, pids: Callable[[], Iterable[int]]) -> None:
        self._pids = pids
        self._before = cpu_ns(pids())

    def spent_ms(self) -> float:
        """Return the CPU time since the beginning, in milliseconds."""
        after = cpu_ns(self._pids())
        return sum(now - self._before.get(pid, 0) for pid, now in after.items()) / 1_000_000
