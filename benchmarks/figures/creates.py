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
    with (
        served(grouped, ORBITD),
        served(single, ONE_COMMIT),
        _Crowd(socket_of(grouped)) as grouping,
        _Crowd(socket_of(single)) as committing,
    ):
        found = by_turns(
            {"grouped": lambda: grouping.creates_a_second(count), "single": lambda: committing.creates_a_second(count)},
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


class _Crowd:
    """64 connected clients, each with one call at a time.

    Args:
        path: The socket of the daemon.
    """

    def __init__(self, path: Path) -> None:
        self._selector = selectors.DefaultSelector()
        self._line = request("session.create", config={"session_type": "local"})
        for _ in range(CLIENTS):
            client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            client.connect(str(path))
            self._selector.register(client, selectors.EVENT_READ, client)

    def __enter__(self) -> _Crowd:
        return self

    def __exit__(self, *_: object) -> None:
        for key in list(self._selector.get_map().values()):
            key.data.close()
        self._selector.close()

    def creates_a_second(self, count: int) -> float:
        """Make `count` sessions together and return how many that were a second."""
        begun = time.perf_counter()
        for key in self._selector.get_map().values():
            key.data.sendall(self._line)
        asked, answered = CLIENTS, 0
        while answered < count:
            for key, _ in self._selector.select():
                self._check(key.data.recv(CHUNK))
                answered += 1
                if asked < count:
                    key.data.sendall(self._line)
                    asked += 1
        return count / (time.perf_counter() - begun)

    def _check(self, answer: bytes) -> None:
        if b'"result"' not in answer or not answer.endswith(b"\n"):
            raise RuntimeError(f"session.create: {answer!r}")
