"""-9 in the middle of heavy output, to orbitd and to its screens processes: 100 % alive, 100 % of screens equal.

Each time a program begins to print a file, orbitd is killed at a random moment of it and started again; then the
same is done to the screens processes, which orbitd replaces by itself. Alive is a program that is the same process,
live in the daemon that serves. Equal is a screen that has, once everything is printed, every cell, style, mode and
cursor, and every line of its history, of the same program's unbroken run.
"""

from __future__ import annotations

import base64
import contextlib
import os
import random
import select
import shlex
import signal
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.bench import START_SECS, Bench
from benchmarks.floods import coloured_text
from benchmarks.processes import HAS_PROC, MEGABYTE, parents
from benchmarks.results import Bar, Outcome, Result, Skipped, exactly
from benchmarks.windows import COLS, ROWS

if TYPE_CHECKING:  # the tests' own harness; nobody needs it who runs other figures
    from benchmarks.harness import DaemonProcess, RawClient
    from orbitd.screens.model import Screen

FILE_MEGABYTES = 10
LONGEST_WAIT_SECS = 0.1
ANSWER_SECS = 5.0
LEAST_HISTORY = 5_000
PRINTER = """
stty raw -echo
printf ready > "$1"
dd bs=1 count=1 of=/dev/null 2>/dev/null
cat "$2"
printf '\\033[5n'
dd bs=1 count=4 of=/dev/null 2>/dev/null
printf shown > "$1"
exec cat
"""


class Found(NamedTuple):
    """What one kill left: whether the program is alive, its screen is equal, and it was still printing."""

    alive: bool
    equal: bool
    midway: bool


class Picture(NamedTuple):
    """A screen, and the lines of history and screen."""

    screen: Screen
    lines: list[str]


def run(bench: Bench) -> Sequence[Outcome]:
    """Measure all figures."""
    from benchmarks.harness import DaemonProcess

    count = bench.amount(10, 2)
    text = coloured_text(bench.folder / "printed", FILE_MEGABYTES * MEGABYTE)
    pipe = bench.folder / "reports"
    os.mkfifo(pipe)
    reports = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)  # ours is a writer too, so that it never ends
    daemon = DaemonProcess(bench.new_home()).start()
    siege = _Siege(daemon, shlex.join(["sh", "-c", PRINTER, "printer", str(pipe), str(text)]), reports)
    try:
        siege.run_unbroken()
        broken = [siege.run_broken(siege.kill_daemon) for _ in range(count)]
        outcomes = _outcomes("orbitd", broken)
        if not HAS_PROC or not siege.screens_processes():
            reason = "no process below orbitd's template was found"
            return [*outcomes, Skipped(figure="kills", what="screens processes killed", reason=reason)]
        broken = [siege.run_broken(siege.kill_screens) for _ in range(count)]
        return [*outcomes, *_outcomes("screens processes", broken)]
    finally:
        daemon.end()
        os.close(reports)


def _outcomes(what: str, found: Sequence[Found]) -> list[Outcome]:
    alive, equal, midway = (100 * sum(column) / len(found) for column in zip(*found, strict=True))
    note = f"{len(found)} kills, {midway:.0f} % of them while the program was printing"
    bar = Bar(kind=">=", limit=100)
    return [
        Result(figure="kills", number=exactly(f"{what}: programs alive", "%", alive), bar=bar, note=note),
        Result(figure="kills", number=exactly(f"{what}: screens equal", "%", equal), bar=bar),
    ]


class _Siege:
    """A daemon whose sessions print, and which is killed meanwhile.

    Args:
        daemon: It.
        command: The program, which prints when it is sent a key, and reports when all is shown.
        reports: Where it reports.
    """

    def __init__(self, daemon: DaemonProcess, command: str, reports: int) -> None:
        self._daemon, self._command, self._reports = daemon, command, reports
        self._dice = random.Random(2)
        self._unbroken: Picture | None = None

    def run_unbroken(self) -> None:
        """Let the program print without a break, and keep its picture."""
        session_id, _ = self._start()
        assert self._report() == b"shown"
        with self._daemon.client() as client:
            self._unbroken = _picture(client, session_id)
        self._end(session_id)
        assert len(self._unbroken.lines) > LEAST_HISTORY

    def run_broken(self, kill: Callable[[], None]) -> Found:
        """Let it print, kill at a random moment, and look."""
        session_id, pid = self._start()
        time.sleep(self._dice.uniform(0, LONGEST_WAIT_SECS))
        kill()
        is_midway = not select.select([self._reports], [], [], 0)[0]
        if not self._daemon.is_running:
            self._daemon.start()
        with self._daemon.client() as client:
            session = client.call("session.get", id=session_id)
            is_alive = (session["live"], session["pid"]) == (True, pid)
            is_equal = is_alive and self._is_shown(client, session_id) and self._is_equal(client, session_id)
        self._end(session_id)
        return Found(is_alive, is_equal, is_midway)

    def kill_daemon(self) -> None:
        """Kill orbitd; its other processes end with it."""
        self._daemon.kill()

    def kill_screens(self) -> None:
        """Kill every screens process there is."""
        for pid in self.screens_processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def screens_processes(self) -> set[int]:
        """Return the forks of the template: orbitd's children are the template, and theirs are these."""
        parent = parents()
        children = {pid for pid, above in parent.items() if above == self._daemon.pid}
        return {pid for pid, above in parent.items() if above in children}

    def _start(self) -> tuple[str, int]:
        """Start the program and have it print; return the session's id and the program's process id."""
        from benchmarks.harness import create

        with self._daemon.client() as client:
            session_id = create(client, self._command)
            pid = client.call("session.start", id=session_id, cols=COLS, rows=ROWS)["pid"]
            assert self._report() == b"ready"
            client.call("session.send", id=session_id, data="Zw==")
        return session_id, pid

    def _end(self, session_id: str) -> None:
        with self._daemon.client() as client:
            client.call("session.signal", id=session_id, signal="KILL")
            client.call("session.wait", id=session_id, timeout_secs=START_SECS)

    def _report(self) -> bytes:
        """Return what a program writes, b"" if nothing comes in time."""
        return os.read(self._reports, 64) if select.select([self._reports], [], [], START_SECS)[0] else b""

    def _is_shown(self, client: RawClient, session_id: str) -> bool:
        """Wait until the program reports. It asks the terminal first; a killed orbitd may have left that unanswered."""
        if not select.select([self._reports], [], [], ANSWER_SECS)[0]:
            client.call("session.send", id=session_id, data=base64.b64encode(b"\x1b[0n").decode())
        return self._report() == b"shown"

    def _is_equal(self, client: RawClient, session_id: str) -> bool:
        """Compare every cell of the screen, and every line of history as far as it reaches."""
        wanted, found = self._unbroken, _picture(client, session_id)
        assert wanted is not None
        reach = min(len(found.lines), len(wanted.lines))
        is_long = reach > LEAST_HISTORY
        return is_long and found.screen == wanted.screen and found.lines[-reach:] == wanted.lines[-reach:]


def _picture(client: RawClient, session_id: str) -> Picture:
    """Return the picture of a session, its screen restored into a fresh terminal."""
    from benchmarks.harness import saved_screen

    lines = client.call("session.screen", id=session_id, scrollback=True)["data"].split("\n")
    return Picture(saved_screen(client, session_id), lines)
