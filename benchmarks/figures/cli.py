"""`orbitctl session list`, the whole process: <= 1.5x `python -c "import click, msgspec, socket"`.

And faster than `supervisorctl status` against a real supervisord on a Unix socket, which
shows as many programs as the daemon has sessions. The programs run are the installed
console scripts, bytecode compiled; the bare import is by the same interpreter. tmux's
`list-sessions`, a C program, is printed beside it for the scale.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from functools import partial

from benchmarks.bench import ORBITD, Bench, environment, served, socket_of
from benchmarks.client import LineClient
from benchmarks.peers import find, supervised, tmux_server
from benchmarks.population import populate
from benchmarks.processes import run_time
from benchmarks.results import Bar, Number, Outcome, Result, Skipped, summary
from benchmarks.rounds import by_turns

SESSIONS = 20
OURS = "orbitctl session list"
IMPORT = "import click, msgspec, socket"
SUPERVISOR = "supervisorctl status"
TMUX = "tmux list-sessions"


def run(bench: Bench) -> Sequence[Outcome]:
    """Measure both figures."""
    home = bench.new_home()
    with contextlib.ExitStack() as stack:
        stack.enter_context(served(home, ORBITD))
        with LineClient(socket_of(home)) as client:
            populate(client, SESSIONS)
        commands = {OURS: _orbitctl(), IMPORT: [sys.executable, "-c", IMPORT]}
        if find("supervisord") and find("supervisorctl"):
            commands[SUPERVISOR] = stack.enter_context(supervised(bench.new_home(), SESSIONS))
        if find("tmux"):
            commands[TMUX] = stack.enter_context(tmux_server(bench.new_home(), SESSIONS))
        measures = {name: partial(run_time, command, environment(home)) for name, command in commands.items()}
        found = by_turns(measures, bench.amount(25, 1), warm_up=bench.amount(1, 0))
    return _results({name: summary(name, "ms", series) for name, series in found.items()}, commands)


def _orbitctl() -> Sequence[str]:
    """Return the installed script beside this interpreter, else the module."""
    script = find("orbitctl")
    command = [script] if script is not None else [sys.executable, "-m", "orbitctl"]
    return [*command, "--no-autostart", "session", "list"]


def _results(numbers: dict[str, Number], commands: dict[str, Sequence[str]]) -> list[Outcome]:
    ours = numbers[OURS]
    outcomes: list[Outcome] = [
        Result(figure="cli", number=ours, baseline=numbers[IMPORT], bar=Bar(kind="<=", limit=1.5)),
        Skipped(figure="cli", what=f"{OURS} / {SUPERVISOR}", reason="supervisor is not installed")
        if SUPERVISOR not in numbers
        else Result(
            figure="cli",
            number=ours,
            baseline=numbers[SUPERVISOR],
            bar=Bar(kind="<", limit=1),
            note=commands[SUPERVISOR][0],
        ),
    ]
    if TMUX in numbers:
        outcomes.append(Result(figure="cli", number=ours, baseline=numbers[TMUX]))
    return outcomes
