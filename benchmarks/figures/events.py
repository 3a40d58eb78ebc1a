"""An event from its change to a subscriber, at 1,000 changes a second: p99 <= 5 ms; 10,000 events replayed: <= 100 ms.

A client changes sessions at a fixed pace, whatever is answered when; another one has subscribed. The time of an event
runs from when its change has been sent, on disk and all, to when its bytes are read from the subscriber's socket.
Baseline is the answer to the same change: no event can be there long before, since it is told of when it is on disk.

The replay runs from the call of `events.subscribe` with the cursor before 10,000 changes to the last event's bytes.
Baseline are the same bytes, sent by the bare echo server that they were sent to.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks.bench import ORBITD, Bench, served, socket_of
from benchmarks.client import CHUNK, LineClient
from benchmarks.figures.ping import ECHO
from benchmarks.population import populate
from benchmarks.results import Bar, Outcome, Result, summary
from benchmarks.rounds import by_turns

A_SECOND = 1_000
CLIENTS = 8
SESSIONS = 100
REPLAYED = 10_000
DONE_SECS = 60.0
EVENT_NUMBER, ANSWER_NUMBER = re.compile(rb'"n":"(\d+)"'), re.compile(rb'"id":(\d+)')


def run(bench: Bench) -> Sequence[Outcome]:
    """Measure the figures."""
    home = bench.new_home()
    echo = home / "echo"
    with served(home, ORBITD), served(home, ECHO, str(echo)), LineClient(socket_of(home)) as client:
        ids = populate(client, bench.amount(SESSIONS, 5))
        seconds, rounds = bench.amount(5, 1), bench.amount(7, 1)
        pace = bench.amount(A_SECOND, 100)
        waits = [_waits(socket_of(home), ids, pace, seconds) for _ in range(rounds + 1)][1:]
        count = bench.amount(REPLAYED, 200)
        since = client.call("events.list", limit=0)["cursor"]
        for number in range(count):
            client.call("session.set_labels", id=ids[number % len(ids)], labels={"n": str(number)})
        with LineClient(socket_of(home)) as subscriber:
            _, data = _replayed(subscriber, since, count)
        times = by_turns(
            {"replay": lambda: _replay(socket_of(home), since, count), "bare": lambda: _bare(echo, data)},
            rounds,
        )
    outcomes: list[Outcome] = []
    for percent, bar in ((50, None), (99, Bar(kind="<=", limit=5, of_value=True))):
        events, answers = (
            summary(f"{what}, {pace:,} changes a second, p{percent}", "ms", [_percentile(one, percent) for one in each])
            for what, each in (
                ("event to a subscriber", [events for events, _ in waits]),
                ("answer to the change", [answers for _, answers in waits]),
            )
        )
        outcomes.append(Result(figure="events", number=events, baseline=answers, bar=bar))
    replay = Result(
        figure="events",
        number=summary(f"{count:,} events replayed", "ms", times["replay"]),
        baseline=summary(f"the same {len(data) / 1e6:.1f} MB, echoed", "ms", times["bare"]),
        bar=Bar(kind="<=", limit=100, of_value=True),
    )
    return [*outcomes, replay]


def _percentile(series: Sequence[float], percent: int) -> float:
    return sorted(series)[min(len(series) - 1, len(series) * percent // 100)]


def _waits(path: Path, ids: Sequence[str], pace: int, seconds: int) -> tuple[list[float], list[float]]:
    """Change sessions at a pace; return how long each event, and each answer, has taken, in milliseconds."""
    count = pace * seconds
    sent, told, answered = [0] * count, [0] * count, [0] * count
    with contextlib.ExitStack() as stack:
        subscriber, *changing = (stack.enter_context(LineClient(path)) for _ in range(1 + CLIENTS))
        subscriber.call("events.subscribe", kinds=["session.updated"], live=False)
        streams = [_Stream(each) for each in changing]
        selector = stack.enter_context(selectors.DefaultSelector())
        selector.register(subscriber, selectors.EVENT_READ, (_Stream(subscriber), told, EVENT_NUMBER))
        for each in streams:
            selector.register(each.client, selectors.EVENT_READ, (each, answered, ANSWER_NUMBER))
        begun, at, left = time.perf_counter_ns(), 0, 2 * count
        deadline = time.monotonic() + seconds + DONE_SECS
        while left:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{left} answers and events are missing")
            while at < count and (now := time.perf_counter_ns()) - begun >= at * 1_000_000_000 // pace:
                sent[at] = now
                line = {"jsonrpc": "2.0", "id": at, "method": "session.set_labels"}
                params = {"id": ids[at % len(ids)], "labels": {"n": str(at)}}
                streams[at % CLIENTS].send(msgspec.json.encode({**line, "params": params}) + b"\n")
                at += 1
            due = (begun + at * 1_000_000_000 // pace - time.perf_counter_ns()) / 1e9 if at < count else 1.0
            for key, _ in selector.select(max(0.0, due)):
                source, times, number = key.data
                left -= source.read(times, number)
    events, answers = (
        [(end - start) / 1e6 for end, start in zip(each, sent, strict=True)] for each in (told, answered)
    )
    return events, answers


class _Stream:
    """What comes on a connection, by the numbers in its lines.

    Args:
        client: The connection.
    """

    def __init__(self, client: LineClient) -> None:
        self.client = client
        self._rest = b""

    def send(self, line: bytes) -> None:
        """Send a line."""
        os.write(self.client.fileno(), line)

    def read(self, times: list[int], number: re.Pattern[bytes]) -> int:
        """Note when the lines that are there have come; return how many they are."""
        data = os.read(self.client.fileno(), CHUNK)
        now = time.perf_counter_ns()
        if not data:
            raise RuntimeError("the connection has ended")
        complete, _, self._rest = (self._rest + data).rpartition(b"\n")
        found = [int(number.findall(line)[-1]) for line in complete.split(b"\n") if line]
        for each in found:
            times[each] = now
        return len(found)


def _replayed(client: LineClient, since: str, count: int) -> tuple[float, bytes]:
    """Subscribe, and return how long it takes until so many events have come, in milliseconds, and their bytes."""
    begun = time.perf_counter_ns()
    client.send("events.subscribe", since=since, kinds=["session.updated"], live=False)
    data, lines = [], -1  # one is the answer
    while lines < count:
        data.append(os.read(client.fileno(), CHUNK))
        lines += data[-1].count(b"\n")
    return (time.perf_counter_ns() - begun) / 1_000_000, b"".join(data)


def _replay(path: Path, since: str, count: int) -> float:
    with LineClient(path) as client:
        return _replayed(client, since, count)[0]


def _bare(path: Path, data: bytes) -> float:
    """Return how long the echo server takes to send so many bytes, in milliseconds."""
    with LineClient(path) as client:
        begun, left = time.perf_counter_ns(), len(data)
        sender = threading.Thread(target=client.send_bytes, args=(data,))
        sender.start()
        while left:
            left -= len(os.read(client.fileno(), CHUNK))
        taken = (time.perf_counter_ns() - begun) / 1_000_000
        sender.join()
        return taken
