"""Whole processes by the clock: from spawn to exit."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence


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
