"""kill -9 of orbitd to the picture shown again in an attached client: <= 400 ms.

A client is attached to a session whose screen has a mark; the time runs from the kill to the mark in its window
again. No supervisor is there, so that the client starts the daemon again by itself. For information: with a
supervisor that starts it at once, which is the benchmark here, and cmux, whose `server ensure` is called at once,
with a new client where the old one does not come back. The programs of the others end with their server.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from benchmarks.bench import ORBITD, START_SECS, Bench, environment, served, socket_of
from benchmarks.client import LineClient
from benchmarks.hosts import (
    CMUX,
    DTACH,
    SCREEN,
    TMUX,
    Script,
    beside,
    cmux,
    end_programs,
    is_here,
    orbitctl,
    start_session,
)
from benchmarks.results import Bar, Outcome, Result, summary
from benchmarks.rounds import by_turns
from benchmarks.windows import Window

MARK = b"picture-is-here"
SHOWN = Script(text='printf "%s-%s" picture is-here; stty raw -echo; exec cat')
BY_ITSELF, SUPERVISED = "the client starts orbitd", "a supervisor starts orbitd"


def run(bench: Bench) -> Sequence[Outcome]:
    """Measure the figures."""
    measures: dict[str, Callable[[], float]] = {
        BY_ITSELF: partial(_orbit, bench, supervised=False),
        SUPERVISED: partial(_orbit, bench, supervised=True),
    }
    if is_here(bench, CMUX):
        measures[CMUX] = partial(_cmux, bench)
    found = by_turns(measures, bench.amount(7, 1), warm_up=0)
    numbers = {name: summary(f"kill -9 to picture, {name}", "ms", series) for name, series in found.items()}
    return [
        Result(figure="recover", number=numbers[BY_ITSELF], bar=Bar(kind="<=", limit=400)),
        Result(figure="recover", number=numbers[SUPERVISED]),
        *beside("recover", numbers[BY_ITSELF], numbers, {}, unable=[TMUX, DTACH, SCREEN]),
    ]


def _orbit(bench: Bench, *, supervised: bool) -> float:
    """Kill a daemon under an attached client; return how long its picture was away, in milliseconds."""
    home = bench.new_home()
    with contextlib.ExitStack() as stack:
        stack.callback(end_daemon, home)
        daemon = stack.enter_context(served(home, ORBITD))
        with LineClient(socket_of(home)) as client:
            session_id, _ = start_session(client, SHOWN.command(home / "pid"), cwd=str(home))
        variables = {**environment(home), "ORBITCTL_NO_AUTOSTART": "1" if supervised else "0"}
        window = stack.enter_context(Window([*orbitctl(), "session", "attach", session_id], variables, home))
        window.read_until(MARK)
        window.empty()
        begun = time.perf_counter_ns()
        daemon.kill()
        daemon.wait()
        if supervised:
            stack.enter_context(served(home, ORBITD))
        window.read_until(MARK)
        taken = (time.perf_counter_ns() - begun) / 1_000_000
        end_programs(home)
        return taken


def end_daemon(home: Path) -> None:
    """End the daemon that a client may have started, whose process id only its socket knows."""
    with contextlib.suppress(OSError, RuntimeError), LineClient(socket_of(home)) as client:
        pid = client.call("daemon.info")["pid"]
        with contextlib.suppress(OSError, RuntimeError):
            end_programs(home)
        os.kill(pid, signal.SIGTERM)
        _wait_for_end(client)


def _wait_for_end(client: LineClient) -> None:
    """Wait until a daemon has closed a connection. Raises: RuntimeError: it has."""
    while True:
        client.read_line(START_SECS)


def _cmux(bench: Bench) -> float:
    """Do the same to cmux's server."""
    with cmux(bench, [SHOWN]) as places, contextlib.ExitStack() as stack:
        place = places[0]
        window = stack.enter_context(place.window())
        window.read_until(MARK)
        window.empty()
        program, socket = place.attach[0], place.attach[3]
        begun = time.perf_counter_ns()
        os.kill(place.server, signal.SIGKILL)
        ensure = [program, "server", "ensure", "--session", "bench", "--socket", socket]
        with _restarted(ensure, place.home):
            try:
                window.read_until(MARK)
            except EOFError:  # the old client has ended
                stack.enter_context(place.window()).read_until(MARK)
            return (time.perf_counter_ns() - begun) / 1_000_000


@contextlib.contextmanager
def _restarted(ensure: Sequence[str], home: Path) -> Iterator[None]:
    """Have cmux's server start again, and end that one at the end."""
    subprocess.run(ensure, env=environment(home), cwd=home, check=True, capture_output=True, timeout=START_SECS)
    status = [*ensure[:1], "server", "status", *ensure[3:]]
    ran = subprocess.run(status, env=environment(home), cwd=home, check=True, capture_output=True, text=True)
    pid = next(int(line.split()[1]) for line in ran.stdout.splitlines() if line.startswith("pid "))
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
