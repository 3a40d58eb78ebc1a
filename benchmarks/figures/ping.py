"""`daemon.ping`, one client: <= 2.5x a bare uvloop Unix-socket echo.

Baseline: a server in a process of its own, on the same kind of event loop, whose whole
protocol is `transport.write(data)` in `data_received`; it gets the very line that the
daemon gets. One blocking client asks both by turns; all are kept on one processor.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.bench import HERE, ORBITD, Bench, on_one_processor, served, socket_of
from benchmarks.client import LineClient, request
from benchmarks.results import Bar, Outcome, Result, summary
from benchmarks.rounds import by_turns

ECHO = (str(HERE / "echo.py"),)


def run(bench: Bench) -> Sequence[Outcome]:
    """Measure the figure."""
    count, rounds = bench.amount(250, 20), bench.amount(80, 2)
    line = request("daemon.ping")
    home, echo_home = bench.new_home(), bench.new_home()
    echo_path = echo_home / "echo"
    with (
        on_one_processor(),
        served(home, ORBITD),
        served(echo_home, ECHO, str(echo_path)),
        LineClient(socket_of(home)) as daemon,
        LineClient(echo_path) as echo,
    ):
        assert daemon.call("daemon.ping") == {"pong": True}
        found = by_turns(
            {"ping": lambda: daemon.round_trip(line, count), "echo": lambda: echo.round_trip(line, count)}, rounds
        )
    ping = summary("daemon.ping", "us", found["ping"])
    return [
        Result(figure="ping", number=ping, baseline=summary("echo", "us", found["echo"]), bar=Bar(kind="<=", limit=2.5))
    ]
