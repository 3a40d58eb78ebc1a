"""What a person waits for, whole processes beside `python -c "import click, msgspec, socket"` in the same run.

`orbitctl ls` and `session list` of 20 sessions, in a pipe and on a terminal: <= 0.4x; one Tab in bash, by the command
line that its script runs: <= 0.5x; `orbitctl a` from the spawn to the last line of the picture, 10,000 lines of history
before it, the daemon warm: <= 1x. The list is also faster than `supervisorctl status` against a real supervisord on a
Unix socket, which shows as many programs as the daemon has sessions. The programs run are the installed console
scripts, bytecode compiled; the bare import is by the same interpreter. tmux's `list-sessions`, a C program, is printed
beside it for the scale.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from benchmarks.bench import ORBITD, Bench, environment, served, socket_of
from benchmarks.client import LineClient
from benchmarks.figures.attach import last_line
from benchmarks.figures.many import shown
from benchmarks.hosts import HOSTS, KEEP_LINES, ORBIT, orbitctl
from benchmarks.peers import find, supervised, tmux_server
from benchmarks.population import populate
from benchmarks.processes import run_time
from benchmarks.results import Bar, Number, Outcome, Result, Skipped, summary
from benchmarks.rounds import by_turns
from benchmarks.windows import Window

SESSIONS = 20
IMPORT = "import click, msgspec, socket"
LISTS = {"orbitctl session list": ["session", "list"], "orbitctl ls": ["ls"]}
TAB, ATTACH = "orbitctl completion, one Tab", "orbitctl a, 10,000 lines, to its paint"
SUPERVISOR = "supervisorctl status"
TMUX = "tmux list-sessions"
BARS = {
    **{f"{name}, {where}": 0.4 for name in LISTS for where in ("in a pipe", "on a terminal")},
    TAB: 0.5,
    ATTACH: 1.0,
}
"""What each is held to, as a multiple of the bare import."""
LIST = "orbitctl session list, in a pipe"


def run(bench: Bench) -> Sequence[Outcome]:
    """Measure the figures."""
    home = bench.new_home()
    with contextlib.ExitStack() as stack:
        stack.enter_context(served(home, ORBITD))
        with LineClient(socket_of(home)) as client:
            populate(client, SESSIONS)
        commands: dict[str, Sequence[str]] = {IMPORT: [sys.executable, "-c", IMPORT]}
        commands[TAB] = [*orbitctl(), "_complete", "bash", "orbitctl a ", " "]
        if find("supervisord") and find("supervisorctl"):
            commands[SUPERVISOR] = stack.enter_context(supervised(bench.new_home(), SESSIONS))
        if find("tmux"):
            commands[TMUX] = stack.enter_context(tmux_server(bench.new_home(), SESSIONS))
        for name, words in LISTS.items():
            commands[f"{name}, in a pipe"] = [*orbitctl(), *words]
        measures: dict[str, Callable[[], float]] = {
            name: partial(run_time, command, environment(home)) for name, command in commands.items()
        }
        for name, words in LISTS.items():
            measures[f"{name}, on a terminal"] = partial(_on_terminal, [*orbitctl(), *words], home)
        (place,) = stack.enter_context(shown(bench, HOSTS[ORBIT][0], 1, KEEP_LINES))
        measures[ATTACH] = partial(last_line, place)
        found = by_turns(measures, bench.amount(25, 1), warm_up=bench.amount(1, 0))
    return _results({name: summary(name, "ms", series) for name, series in found.items()}, commands)


def _on_terminal(command: Sequence[str], home: Path) -> float:
    """Return how long a program takes on a terminal, from its spawn to its end, in milliseconds."""
    begun = time.perf_counter_ns()
    with Window(command, environment(home), home) as window:
        window.finish(b"")
        return (time.perf_counter_ns() - begun) / 1_000_000


def _results(numbers: dict[str, Number], commands: dict[str, Sequence[str]]) -> list[Outcome]:
    ours = numbers[LIST]
    outcomes: list[Outcome] = [
        Result(figure="cli", number=numbers[name], baseline=numbers[IMPORT], bar=Bar(kind="<=", limit=limit))
        for name, limit in BARS.items()
    ]
    outcomes.append(
        Skipped(figure="cli", what=f"{LIST} / {SUPERVISOR}", reason="supervisor is not installed")
        if SUPERVISOR not in numbers
        else Result(
            figure="cli",
            number=ours,
            baseline=numbers[SUPERVISOR],
            bar=Bar(kind="<", limit=1),
            note=commands[SUPERVISOR][0],
        )
    )
    if TMUX in numbers:
        outcomes.append(Result(figure="cli", number=ours, baseline=numbers[TMUX]))
    return outcomes
