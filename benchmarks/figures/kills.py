"""orbitd killed with -9 in the middle of heavy output, then restarted: 100 % alive, 100 % of screens equal.

Each time a program begins to print a file, the daemon is killed at a random moment of it and
started again. Alive is a program that is the same process, live in the new daemon. Equal is
a screen that has, once everything is printed, every cell, style, mode and cursor, and every
line of its history, of an emulator that was fed the whole file without a break.
"""

from __future__ import annotations

import os
import random
import select
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.bench import START_SECS, Bench
from benchmarks.figures.output import MEGABYTE, coloured_text
from benchmarks.results import Bar, Outcome, Result, exactly
from benchmarks.windows import COLS, ROWS
from orbitd.screens.emulator import Emulator
from orbitd.screens.model import Screen

if TYPE_CHECKING:  # the tests' own harness; nobody needs it who runs other figures
    from benchmarks.harness import DaemonProcess, RawClient

FILE_MEGABYTES = 10
LONGEST_WAIT_SECS = 0.2
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


def run(bench: Bench) -> Sequence[Outcome]:
    """Measure both figures."""
    from benchmarks.harness import DaemonProcess

    count, dice = bench.amount(10, 2), random.Random(2)
    text = coloured_text(bench.folder / "printed", FILE_MEGABYTES * MEGABYTE)
    pipe = bench.folder / "reports"
    os.mkfifo(pipe)
    reports = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)  # ours is a writer too, so that it never ends
    daemon = DaemonProcess(bench.new_home()).start()
    try:
        command = shlex.join(["sh", "-c", PRINTER, "printer", str(pipe), str(text)])
        wanted = _unbroken(text)
        found = [_kill(daemon, command, reports, dice.uniform(0, LONGEST_WAIT_SECS), wanted) for _ in range(count)]
    finally:
        daemon.end()
        os.close(reports)
    alive, equal, midway = (100 * sum(column) / count for column in zip(*found, strict=True))
    note = f"{count} kills, {midway:.0f} % of them while the program was printing"
    bar = Bar(kind=">=", limit=100)
    return [
        Result(figure="kills", number=exactly("programs alive", "%", alive), bar=bar, note=note),
        Result(figure="kills", number=exactly("screens equal", "%", equal), bar=bar),
    ]


def _kill(daemon: DaemonProcess, command: str, reports: int, moment: float, wanted: tuple[Screen, list[str]]) -> Found:
    """Let a program print, kill the daemon so many seconds later, start it again and look."""
    from benchmarks.harness import create

    with daemon.client() as client:
        session_id = create(client, command)
        pid = client.call("session.start", id=session_id, cols=COLS, rows=ROWS)["pid"]
        assert _read_report(reports) == b"ready"
        client.call("session.send", id=session_id, data="Zw==")
        time.sleep(moment)
    daemon.kill()
    is_midway = not select.select([reports], [], [], 0)[0]
    with daemon.start().client() as client:
        session = client.call("session.get", id=session_id)
        is_alive = (session["live"], session["pid"]) == (True, pid)
        is_equal = is_alive and _read_report(reports) == b"shown" and _is_equal(client, session_id, wanted)
        client.call("session.signal", id=session_id, signal="KILL")
        client.call("session.wait", id=session_id, timeout_secs=START_SECS)
    return Found(is_alive, is_equal, is_midway)


def _read_report(reports: int) -> bytes:
    """Return what a program writes, b"" if nothing comes in time."""
    return os.read(reports, 64) if select.select([reports], [], [], START_SECS)[0] else b""


def _unbroken(text: Path) -> tuple[Screen, list[str]]:
    """Return the screen and the history of a terminal that was given the whole file, as a raw PTY passes it on."""
    from benchmarks.harness import shown

    with Emulator(COLS, ROWS) as emulator:
        emulator.feed(text.read_bytes())
        return shown(emulator.dump()), emulator.screen("text", scrollback=True).decode().split("\n")


def _is_equal(client: RawClient, session_id: str, wanted: tuple[Screen, list[str]]) -> bool:
    """Compare every cell of the screen, and every line of history as far as it reaches."""
    from benchmarks.harness import saved_screen

    screen, lines = wanted
    found = client.call("session.screen", id=session_id, scrollback=True)["data"].split("\n")
    reach = min(len(found), len(lines))
    return saved_screen(client, session_id) == screen and reach > LEAST_HISTORY and found[-reach:] == lines[-reach:]
