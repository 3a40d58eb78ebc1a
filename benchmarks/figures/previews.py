"""session.screen as SVG: a shell's screen <= 4 kB, a dense coloured one <= 25 kB, each in <= 4x the time of HTML.

The size is that of the picture, and the time that of the call, from the request to the answer's last byte, on 80x24
cells, by turns with the same screen as HTML.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.bench import ORBITD, START_SECS, Bench, served, socket_of
from benchmarks.client import LineClient
from benchmarks.hosts import end_programs
from benchmarks.results import Bar, Outcome, Result, exactly, summary
from benchmarks.rounds import by_turns
from benchmarks.windows import COLS, ROWS

END = "at-the-end"
SHELL = "\x1b[1;32mada@shop\x1b[m:\x1b[1;34m~/src\x1b[m$ ls\r\n" + "Makefile  README.md  src\r\n" * 20 + END
_WORDS = "\x1b[3{0}mdef\x1b[m \x1b[1;3{1}mname\x1b[m(\x1b[4{2}mself\x1b[m) -> \x1b[38;5;{3}mtuple\x1b[m, 'text here' "
DENSE = "\r\n".join(_WORDS.format(row % 8, row % 7, row % 5, row + 100) * 2 for row in range(ROWS - 1)) + f"\r\n{END}"
SCREENS = {"a shell's screen": (SHELL, 4_096), "a dense screen": (DENSE, 25_000)}
TIMES = 4
"""Of HTML's time, which the library draws mostly."""


def run(bench: Bench) -> Sequence[Outcome]:
    """Measure the figures."""
    home, outcomes = bench.new_home(), list[Outcome]()
    with served(home, ORBITD), LineClient(socket_of(home)) as client:
        try:
            for name, (text, limit) in SCREENS.items():
                outcomes += _picture(bench, client, home, name, text, limit)
        finally:
            end_programs(home)
    return outcomes


def _picture(bench: Bench, client: LineClient, home: Path, name: str, text: str, limit: int) -> list[Outcome]:
    """Measure the picture of one screen."""
    file = home / "screen"
    file.write_text(text)
    config = {"session_type": "local", "command": shlex.join(["sh", "-c", 'cat "$0"; read x', str(file)])}
    session = client.call("session.create", config=config)["id"]
    client.call("session.start", id=session, cols=COLS, rows=ROWS)
    client.call("session.wait", id=session, timeout_secs=START_SECS, **{"for": "text", "pattern": END})
    formats = ("svg", "html")
    found = by_turns({each: partial(_time, client, session, each) for each in formats}, bench.amount(50, 2), warm_up=3)
    times = {each: summary(f"{name} as {each}", "ms", series) for each, series in found.items()}
    sizes = {each: exactly(f"{name} as {each}", "bytes", len(_draw(client, session, each))) for each in formats}
    return [
        Result(
            figure="previews",
            number=sizes["svg"],
            baseline=sizes["html"],
            bar=Bar(kind="<=", limit=limit, of_value=True),
        ),
        Result(figure="previews", number=times["svg"], baseline=times["html"], bar=Bar(kind="<=", limit=TIMES)),
    ]


def _time(client: LineClient, session: str, how: str) -> float:
    """Return how long the call takes, in milliseconds."""
    begun = time.perf_counter_ns()
    _draw(client, session, how)
    return (time.perf_counter_ns() - begun) / 1_000_000


def _draw(client: LineClient, session: str, how: str) -> bytes:
    answer: dict[str, Any] = client.call("session.screen", id=session, format=how)
    return str(answer["data"]).encode()
