"""Worst `daemon.ping` of another client while something heavy goes on: <= 20 ms each.

A client in a process of its own pings all the time, and a bare echo server by turns: the longest wait for the echo
stands beside the daemon's, since it says what the machine itself made both wait. Heavy is: the first start after
READY (a daemon of its own each round), an attach with 10,000 lines, `session.screen` as HTML with the history, a
resize with 50 clients attached, a save, and floods, of text from one and three sessions and of `CSI 65535 b`.
"""

from __future__ import annotations

import base64
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.bench import ORBITD, Bench, served, socket_of
from benchmarks.client import LineClient
from benchmarks.figures.first import first_paint
from benchmarks.figures.many import EAGER, shown
from benchmarks.figures.ping import ECHO
from benchmarks.floods import flowing, repeat_flood, text_flood
from benchmarks.hosts import KEEP_LINES, Place, end_programs, orbit
from benchmarks.pinger import Pinger, Worst, pinging
from benchmarks.results import Bar, Outcome, Result, worst
from benchmarks.windows import COLS, ROWS

BAR = Bar(kind="<=", limit=20, of_value=True)
ATTACHED = 50
SAVE_SECS = 20.0
REPAINT_SECS = 2.0


def run(bench: Bench) -> Sequence[Outcome]:
    """Measure the figures."""
    rounds, home = bench.amount(5, 1), bench.new_home()
    echo = home / "echo"
    with served(home, ECHO, str(echo)):
        found = {"the first start after READY": [_first(bench, echo) for _ in range(rounds)]}
        found |= dict(_others(bench, echo, rounds))
    return [_result(name, waits) for name, waits in found.items()]


def _result(name: str, waits: Sequence[Worst]) -> Result:
    return Result(
        figure="pings",
        number=worst(f"worst ping, {name}", "ms", [one.daemon for one in waits]),
        baseline=worst("worst echo meanwhile", "ms", [one.echo for one in waits]),
        bar=None if name == "idle" else BAR,
        note=f"{sum(one.pings for one in waits):,} pings",
    )


def _first(bench: Bench, echo: Path) -> Worst:
    """Ping a daemon that has just begun to serve while it starts its first session."""
    home = bench.new_home()
    with served(home, ORBITD), LineClient(socket_of(home)) as client:
        try:
            with pinging(socket_of(home), echo) as pinger:
                first_paint(client, home)
                return pinger.worst()
        finally:
            end_programs(home)


@dataclass(frozen=True)
class _Stage:
    """What the heavy things need.

    Args:
        client: A connection.
        talker: A session with 10,000 lines, that echoes.
        secs: How long a flood is measured.
    """

    client: LineClient
    talker: Place
    secs: float

    def wait(self) -> None:
        """Do nothing for a while, or let a flood flow."""
        time.sleep(self.secs)

    def attach(self) -> None:
        """Attach with the whole history, and leave."""
        found = self._attach(self.client, scrollback_lines=KEEP_LINES)
        self.client.call("session.leave", attachment_id=found)

    def render(self) -> None:
        """Ask for screen and history as HTML."""
        self.client.call("session.screen", id=self.talker.session_id, format="html", scrollback=True)

    def resize(self) -> None:
        """Change the size while 50 clients are attached, and wait until each that is sent something has got it."""
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(LineClient(socket_of(self.talker.home))) for _ in range(ATTACHED)]
            ids = [self._attach(client) for client in clients]
            clients[-1].call("session.resize", attachment_id=ids[-1], cols=COLS - 1, rows=ROWS - 1)
            with contextlib.suppress(TimeoutError):
                for client in clients[:-1]:
                    client.read_line(REPAINT_SECS)
            clients[-1].call("session.resize", attachment_id=ids[-1], cols=COLS, rows=ROWS)

    def save(self) -> None:
        """Have something to save, and wait until the daemon has saved it. Raises: TimeoutError."""
        before = self._saved_at()
        self.client.call("session.send", id=self.talker.session_id, data=base64.b64encode(b"changed\n").decode())
        deadline = time.monotonic() + SAVE_SECS
        while self._saved_at() == before:
            if time.monotonic() > deadline:
                raise TimeoutError("the session is not saved")
            time.sleep(0.05)

    def _saved_at(self) -> str | None:
        saved: str | None = self.client.call("session.get", id=self.talker.session_id)["last_saved_at"]
        return saved

    def _attach(self, client: LineClient, **options: int) -> str:
        found = client.call("session.attach", id=self.talker.session_id, cols=COLS, rows=ROWS, **options)
        return str(found["attachment_id"])


def _others(bench: Bench, echo: Path, rounds: int) -> Iterator[tuple[str, list[Worst]]]:
    """Yield the waits of all that happens in one daemon."""
    folder = bench.new_home()
    texts, repeats = [text_flood(folder, number) for number in range(3)], repeat_flood(folder, 3)
    others = [flood.script for flood in (*texts, repeats)]
    host = partial(orbit, settings=EAGER)
    with shown(bench, host, 1, KEEP_LINES, others) as places, LineClient(socket_of(places[0].home)) as client:
        stage = _Stage(client, places[0], bench.amount(3, 1))
        idle = contextlib.nullcontext
        kinds: dict[str, tuple[Callable[[], contextlib.AbstractContextManager[None]], Callable[[], None]]] = {
            "idle": (idle, stage.wait),
            "an attach with 10,000 lines": (idle, stage.attach),
            "screen --scrollback html": (idle, stage.render),
            f"a resize with {ATTACHED} clients": (idle, stage.resize),
            "a save": (idle, stage.save),
            "a flood": (partial(flowing, texts[:1]), stage.wait),
            "3 floods": (partial(flowing, texts), stage.wait),
            "a flood of CSI 65535 b": (partial(flowing, [repeats]), stage.wait),
        }
        with pinging(socket_of(places[0].home), echo) as pinger:
            for name, (around, work) in kinds.items():
                yield name, [_while(pinger, around, work) for _ in range(rounds)]


def _while(
    pinger: Pinger, around: Callable[[], contextlib.AbstractContextManager[None]], work: Callable[[], None]
) -> Worst:
    with around():
        pinger.worst()
        work()
        return pinger.worst()
