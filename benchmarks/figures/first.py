"""First session after READY, cold: from its start to its first paint <= 100 ms.

Each round has a daemon of its own, in a home of its own, that has just said that it serves: no keeper, no terminal
library in any process yet. The session is recorded; the time runs from `session.start`, over `session.attach`, to what
the program prints first. For information: whole processes in a window, `orbitctl session run` at such a daemon
beside rivals that have to start their server themselves. The homes are there before the clock runs.
"""

from __future__ import annotations

import base64
import shlex
import subprocess
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec

from benchmarks.bench import ORBITD, Bench, environment, served, socket_of
from benchmarks.client import LineClient
from benchmarks.hosts import CMUX, DTACH, RIVALS, SCREEN, TMUX, beside, end_programs, here, orbitctl
from benchmarks.peers import find
from benchmarks.results import Bar, Outcome, Result, summary
from benchmarks.rounds import by_turns
from benchmarks.windows import COLS, ROWS, Window

MARK = b"first-paint"
PROGRAM = ("sh", "-c", "printf '%s-%s' first paint; read -r line")
"""It prints the mark, which is in no command line, and ends with a line or its terminal."""
START, RUN = "session.start to first paint", "orbitctl session run"
FIRST = {
    TMUX: ("tmux", "-S", "{home}/t", "-f", "/dev/null", "new-session", "--", *PROGRAM),
    DTACH: ("dtach", "-c", "{home}/d", "-E", "-r", "none", *PROGRAM),
    SCREEN: ("screen", "-c", "{home}/screenrc", "-S", "first", *PROGRAM),
}
"""What starts a server and a program in it, and attaches; cmux takes three calls for that."""


def run(bench: Bench) -> Sequence[Outcome]:
    """Measure the figures."""
    measures: dict[str, Callable[[], float]] = {START: partial(_start, bench), RUN: partial(_run, bench)}
    measures |= {name: partial(_rival, bench, FIRST[name]) for name in here(bench, RIVALS) if name in FIRST}
    found = by_turns(measures, bench.amount(9, 1), warm_up=bench.amount(1, 0))
    labels = {TMUX: "tmux new-session", DTACH: "dtach -c", SCREEN: "screen -S"}
    numbers = {name: summary(f"{labels.get(name, name)}, cold", "ms", series) for name, series in found.items()}
    return [
        Result(figure="first", number=numbers[START], bar=Bar(kind="<=", limit=100)),
        *beside("first", numbers[RUN], numbers, {}, unable=[CMUX]),
    ]


def _start(bench: Bench) -> float:
    """Return how long the first session of a daemon takes to show what its program prints, in milliseconds."""
    home = bench.new_home()
    with served(home, ORBITD), LineClient(socket_of(home)) as client:
        try:
            return first_paint(client, home)
        finally:
            end_programs(home)


def first_paint(client: LineClient, home: Path) -> float:
    """Record a session, then start it; return how long it took to show its mark, in milliseconds."""
    config = {"session_type": "local", "command": shlex.join(PROGRAM), "cwd": str(home)}
    session_id = client.call("session.create", config=config)["id"]
    begun = time.perf_counter_ns()
    client.call("session.start", id=session_id, cols=COLS, rows=ROWS)
    client.send("session.attach", id=session_id, cols=COLS, rows=ROWS)
    shown = b""
    while MARK not in shown:
        message = msgspec.json.decode(client.read_line())
        drawn = message["result"]["repaint"] if "result" in message else message["params"].get("data", "")
        shown += base64.b64decode(drawn)
    return (time.perf_counter_ns() - begun) / 1_000_000


def _run(bench: Bench) -> float:
    """Return how long `orbitctl session run` takes in a window, in milliseconds."""
    home = bench.new_home()
    with served(home, ORBITD):
        try:
            return _window([*orbitctl(), "session", "run", "--", *PROGRAM], home)
        finally:
            end_programs(home)


def _rival(bench: Bench, command: Sequence[str]) -> float:
    """Return how long another one takes with a server that it has to start, in milliseconds."""
    home = bench.new_home()
    program = find(command[0])
    assert program is not None
    (home / "screenrc").write_text("startup_message off\n")
    taken = _window([program, *(part.format(home=home) for part in command[1:])], home, ends=True)
    if command[0] == "tmux":
        control = [program, "-S", str(home / "t"), "kill-server"]
        subprocess.run(control, env=environment(home), check=False, capture_output=True)
    return taken


def _window(command: Sequence[str], home: Path, *, ends: bool = False) -> float:
    """Run a command in a window until the mark is shown; then, if it has to end its program, type what ends that."""
    (home / "screens").mkdir(mode=0o700, exist_ok=True)
    variables = {**environment(home), "SCREENDIR": str(home / "screens")}
    begun = time.perf_counter_ns()
    with Window(command, variables, home) as window:
        window.read_until(MARK)
        taken = (time.perf_counter_ns() - begun) / 1_000_000
        if ends:
            window.finish(b"\r")
    return taken
