"""`session.get` and `session.list` of 20: each <= 1.5x the ping.

Baseline: `daemon.ping` of the same daemon on the same connection. The store holds 20
sessions that differ as sessions do: names, commands, a few by ssh. Client and daemon are
kept on one processor.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.bench import ORBITD, Bench, on_one_processor, served, socket_of
from benchmarks.client import LineClient, request
from benchmarks.population import populate
from benchmarks.results import Bar, Outcome, Result, summary
from benchmarks.rounds import by_turns


def run(bench: Bench) -> Sequence[Outcome]:
    """Measure both figures."""
    home = bench.new_home()
    with on_one_processor(), served(home, ORBITD), LineClient(socket_of(home)) as client:
        ids = populate(client, 20)
        lines = {
            "daemon.ping": request("daemon.ping"),
            "session.get": request("session.get", id=ids[7]),
            "session.list of 20": request("session.list"),
        }
        assert len(client.call("session.list")["sessions"]) == len(ids)
        count = bench.amount(250, 20)
        measures = {name: (lambda line=line: client.round_trip(line, count)) for name, line in lines.items()}
        found = by_turns(measures, bench.amount(60, 2))
    numbers = {name: summary(name, "us", found[name]) for name in found}
    ping = numbers.pop("daemon.ping")
    return [
        Result(figure="reads", number=number, baseline=ping, bar=Bar(kind="<=", limit=1.5))
        for number in numbers.values()
    ]
