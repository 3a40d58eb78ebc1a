"""workspace.open of 20 shells, to the last picture <= 1 s.

The time runs from the call to when the last of 20 interactive shells has shown its prompt below the screen that it had
before, all of them attached to on one connection. The daemon has just said that it serves: no keeper, no terminal
library in any process yet, as after a reboot. For information: a daemon whose workspace was parked a moment before, and
the benchmark, the same shells on bare PTYs, to the last prompt.
"""

from __future__ import annotations

import base64
import os
import pty
import select
import shlex
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec

from benchmarks.bench import ORBITD, START_SECS, Bench, environment, served, socket_of
from benchmarks.client import LineClient
from benchmarks.results import Bar, Outcome, Result, summary
from benchmarks.rounds import by_turns
from benchmarks.windows import COLS, ROWS

PROMPT = b"prompt-is-here"
SHELL = ("bash", "--norc", "--noprofile", "-i")
PRINTED = "seq 1 500"
DIVIDER = b"started again"
COLD, WARM, BARE = "after a restart", "parked before", "bare PTYs"


def run(bench: Bench) -> Sequence[Outcome]:
    """Measure the figures."""
    count = bench.amount(20, 2)
    home = bench.new_home()
    _prepare(home, count)
    measures: dict[str, Callable[[], float]] = {
        COLD: partial(_cold, home),
        WARM: partial(_warm, home),
        BARE: partial(_bare, home, count),
    }
    found = by_turns(measures, bench.amount(7, 1), warm_up=bench.amount(1, 0))
    numbers = {name: summary(f"{count} shells, {name}", "ms", series) for name, series in found.items()}
    baseline = numbers[BARE]
    return [
        Result(figure="opens", number=numbers[COLD], baseline=baseline, bar=Bar(kind="<=", limit=1000, of_value=True)),
        Result(figure="opens", number=numbers[WARM], baseline=baseline),
    ]


def _prepare(home: Path, count: int) -> None:
    """Record a workspace whose shells have run, and have a screen and some history."""
    with served(home, ORBITD), LineClient(socket_of(home)) as client:
        layout = {"layout_type": "splits", "config": {}}
        workspace = client.call("workspace.create", name="bench", layout=layout)["id"]
        for number in range(count):
            config = {
                "session_type": "local",
                "command": shlex.join(SHELL),
                "cwd": str(home),
                "env": {"PS1": f"{PROMPT.decode()}$ "},
                "workspace_id": workspace,
            }
            client.call("session.create", config=config, name=f"shell{number}")
        _open(client, first=True)
        for session in client.call("session.list")["sessions"]:
            typed = base64.b64encode(f"{PRINTED}; exit\r".encode()).decode()
            client.call("session.send", id=session["id"], data=typed)
            client.call("session.wait", id=session["id"], timeout_secs=START_SECS)


def _cold(home: Path) -> float:
    """Open it at a daemon that has just been started."""
    with served(home, ORBITD), LineClient(socket_of(home)) as client:
        try:
            return _open(client)
        finally:
            _park(client)


def _warm(home: Path) -> float:
    """Open it at a daemon that had it open a moment ago."""
    with served(home, ORBITD), LineClient(socket_of(home)) as client:
        try:
            _open(client)
            _park(client)
            return _open(client)
        finally:
            _park(client)


def _park(client: LineClient) -> None:
    (workspace,) = client.call("workspace.list")["workspaces"]
    parked = client.call("workspace.park", id=workspace["id"])
    assert not parked["failed"]


def _open(client: LineClient, *, first: bool = False) -> float:
    """Open the workspace and attach to each session; return how long the last prompt took, in milliseconds."""
    (workspace,) = client.call("workspace.list")["workspaces"]
    begun = time.perf_counter_ns()
    opened = client.call("workspace.open", id=workspace["id"])
    if opened["failed"]:
        raise RuntimeError(f"not opened: {opened['failed']}")
    shown: dict[str, bytes] = {}
    for session in opened["sessions"]:
        shown[session["id"]] = b""
        client.send("session.attach", id=session["id"], attachment_id=session["id"], cols=COLS, rows=ROWS)
    waiting = set(shown)
    while waiting:
        message = msgspec.json.decode(client.read_line())
        found = message.get("result") or message["params"]
        if "attachment_id" not in found:
            continue
        session_id = found["attachment_id"]
        shown[session_id] += base64.b64decode(found.get("repaint") or found.get("data") or "")
        if _has_prompt(shown[session_id], first=first):
            waiting.discard(session_id)
    taken = (time.perf_counter_ns() - begun) / 1_000_000
    for session_id in shown:
        client.call("session.leave", attachment_id=session_id)
    return taken


def _has_prompt(data: bytes, *, first: bool) -> bool:
    return PROMPT in (data if first else data.rpartition(DIVIDER)[2] if DIVIDER in data else b"")


def _bare(home: Path, count: int) -> float:
    """Start the same shells on PTYs, and read them until the last has shown its prompt, in milliseconds."""
    variables = {**environment(home), "PS1": f"{PROMPT.decode()}$ "}
    begun = time.perf_counter_ns()
    masters = dict(_forked(variables, home) for _ in range(count))
    try:
        shown = dict.fromkeys(masters, b"")
        while waiting := [master for master, data in shown.items() if PROMPT not in data]:
            for master in select.select(waiting, [], [], START_SECS)[0]:
                shown[master] += os.read(master, 65_536)
        return (time.perf_counter_ns() - begun) / 1_000_000
    finally:
        for master, pid in masters.items():
            os.kill(pid, signal.SIGKILL)
            os.close(master)
            os.waitpid(pid, 0)


def _forked(variables: Mapping[str, str], home: Path) -> tuple[int, int]:
    pid, master = pty.fork()
    if pid == 0:
        try:
            os.chdir(home)
            os.execvpe(SHELL[0], SHELL, variables)
        finally:
            os._exit(127)
    return master, pid
