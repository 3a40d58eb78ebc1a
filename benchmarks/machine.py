"""The facts of the machine that ratios hide: processor, kernel, versions, disk."""

from __future__ import annotations

import os
import platform
import sqlite3
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from benchmarks.bench import Bench, file_system
from benchmarks.peers import CMUX_RELEASE, PROGRAMS, find

LIBRARIES = ("jsonrpcserver", "msgspec", "click", "aiosqlite", "uvloop", "zstandard", "pyghostty")


def facts(bench: Bench) -> dict[str, str]:
    """Return what is worth knowing about this machine, in the order to print it."""
    return {
        "cpu": f"{_processor()}, {os.cpu_count()} cores",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "sqlite": sqlite3.sqlite_version,
        "libraries": ", ".join(f"{name} {_version(name)}" for name in LIBRARIES),
        "peers": ", ".join(f"{name} {_peer_version(command)}" for name, command in PROGRAMS.items())
        + f", cmux {_cmux_version()}",
        "file system": f"{file_system(str(bench.folder))} ({bench.folder.parent})",
        "fdatasync of 4 KiB": _sync_latency(bench.folder, bench.amount(300, 5)),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "-"


def _peer_version(command: Sequence[str]) -> str:
    program = find(command[0])
    if program is None:
        return "-"
    ran = subprocess.run([program, *command[1:]], capture_output=True, text=True, check=False)
    words = (ran.stdout + ran.stderr).split()
    numbers = [word for word in words if any(character.isdigit() for character in word)]
    return numbers[0].strip(",") if numbers else "?"


def _cmux_version() -> str:
    """Return the release of cmux that is here, else the one that a figure installs for itself."""
    return f"{CMUX_RELEASE} where a figure needs it" if find("cmux") is None else _peer_version(("cmux", "--version"))


def _sync_latency(folder: Path, count: int) -> str:
    """Append and sync as a log does; return the 10th, 50th and 90th percentile."""
    times = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(count):
            os.write(file.fileno(), b"x" * 4096)
            begun = time.perf_counter_ns()
            os.fsync(file.fileno()) if not hasattr(os, "fdatasync") else os.fdatasync(file.fileno())
            times.append((time.perf_counter_ns() - begun) / 1_000)
    cuts = statistics.quantiles(times, n=10)
    return f"{cuts[4]:.0f} us (p10 {cuts[0]:.0f}, p90 {cuts[8]:.0f})"
