"""Durable `session.create`, 64 clients at once: >= 4x one commit a call through the same stack.

Baseline: the same daemon - socket, dispatch, manager, writer - in which the writer takes
one piece of work a transaction (`benchmarks/one_commit.py`). Each client has a connection
of its own and asks again as soon as it is answered; an answer means that the session is
on disk. One process drives all 64, with the same code for both daemons.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.bench import ONE_COMMIT, ORBITD, Bench, served, socket_of
from benchmarks.client import CHUNK, request
from benchmarks.results import Bar, Outcome, Result, summary
from benchmarks.rounds import by_turns

CLIENTS = 64


def run(bench: Bench) -> Sequence[Outcome]:
    """Measure the figure."""
    count = bench.amount(3_000, 128)
    grouped, single = bench.new_home(), bench.new_home()
    with served(grouped, ORBITD), served(single, ONE_COMMIT):
        found = by_turns(
            {
                "grouped": lambda: creates_a_second(socket_of(grouped), count),
                "single": lambda: creates_a_second(socket_of(single), count),
            },
            bench.amount(7, 1),
        )
    return [
        Result(
            figure="creates",
            number=summary("session.create, 64 clients", "/s", found["grouped"]),
            baseline=summary("one commit a call", "/s", found["single"]),
            bar=Bar(kind=">=", limit=4),
        )
    ]


def creates_a_second(path: Path, count: int) -> float:
    """Return how many sessions a second 64 clients make together, each one call at a time."""
    line = request("session.create", config={"session_type": "local"})
    connections = [_connect(path) for _ in range(CLIENTS)]
    try:
        begun = time.perf_counter()
        _drive(connections, line, count)
        return count / (time.perf_counter() - begun)
    finally:
        for connection in connections:
            connection.close()


def _connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(str(path))
    return connection


def _drive(connections: list[socket.socket], line: bytes, count: int) -> None:
    """Ask on every connection, and again on each that was answered, `count` times in all."""
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection, selectors.EVENT_READ)
            connection.sendall(line)
        asked, answered = len(connections), 0
        while answered < count:
            for key, _ in selector.select():
                answer = key.fileobj.recv(CHUNK)  # type: ignore[union-attr]  # sockets were registered
                if b'"result"' not in answer or not answer.endswith(b"\n"):
                    raise RuntimeError(f"session.create: {answer!r}")
                answered += 1
                if asked < count:
                    key.fileobj.sendall(line)  # type: ignore[union-attr]  # as above
                    asked += 1
