"""A client in a process of its own that pings a daemon all the time, and an echo server by turns.

    python benchmarks/pinger.py DAEMON ECHO

It pauses for two milliseconds between two pings. For each line on its standard input it prints the longest wait so
far for each, in milliseconds, and begins anew. A wait that goes on counts when it ends: the line waits for it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.client import LineClient, request

PAUSE_SECS = 0.002
MEASURE_SECS = 150.0
"""How long the worst wait may last before the benchmark gives up."""


class Worst(NamedTuple):
    """The longest waits, in milliseconds, and how many pings there were."""

    daemon: float
    echo: float
    pings: int


class Pinger:
    """A running pinger, seen from the benchmark.

    Args:
        process: It.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def worst(self) -> Worst:
        """Return the longest waits since the last call. Raises: TimeoutError, RuntimeError."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        if not select.select([self._process.stdout], [], [], MEASURE_SECS)[0]:
            raise TimeoutError("daemon.ping is not answered")
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the daemon has closed the connection")
        return Worst(*json.loads(line))


@contextlib.contextmanager
def pinging(daemon: Path, echo: Path) -> Iterator[Pinger]:
    """Run a pinger at a daemon and an echo server."""
    command = [sys.executable, str(Path(__file__).resolve()), str(daemon), str(echo)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            pinger = Pinger(process)
            pinger.worst()  # the first ones, with the connection
            yield pinger
        finally:
            process.kill()


def main(daemon: str, echo: str) -> None:
    """Ping until standard input ends."""
    line, worst, count = request("daemon.ping"), [0.0, 0.0], 0
    with LineClient(Path(daemon)) as first, LineClient(Path(echo)) as second:
        while True:
            for number, client in enumerate((first, second)):
                begun = time.perf_counter_ns()
                client.ask(line)
                worst[number] = max(worst[number], (time.perf_counter_ns() - begun) / 1_000_000)
            count += 1
            if select.select([sys.stdin], [], [], PAUSE_SECS)[0]:
                if not os.read(sys.stdin.fileno(), 1):
                    return
                print(json.dumps([*worst, count]), flush=True)
                worst, count = [0.0, 0.0], 0


if __name__ == "__main__":
    main(*sys.argv[1:])
