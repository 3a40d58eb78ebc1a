"""100,000 sessions and 1,000,000 snapshots: the first page, a cleanup and a backup <= 2x the time per item of a tenth.

Both stores are made of one session, saved through the manager and then copied inside SQLite under new
ids, so that a session's snapshots lie as far apart as where all sessions are saved by turns. Two in five
are terminated. The screens are small: what is measured is what each row costs.

The same calls are made of one daemon after the other. While one of them works, a second client reads
and a third one writes all the time, and the longest that each has waited is beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.bench import ORBITD, Bench, database_of, served, socket_of
from benchmarks.client import LineClient
from benchmarks.figures.startup import start_time
from benchmarks.population import make_one, multiply
from benchmarks.processes import HAS_PROC, MEGABYTE, proportional_bytes
from benchmarks.results import Bar, Outcome, Result, exactly, summary

SNAPSHOTS_EACH = 10
KEPT = 5
PAGE = 50
ROUNDS = 5
COLS, ROWS = 80, 24
LINES = ROWS + 3 * SNAPSHOTS_EACH
PAGE_BYTES = 4096
IDLE_SECS = 0.2
LONG_SECS = 900.0


@dataclass
class Store:
    """What was measured of one store.

    Attributes:
        starts: Milliseconds from spawn to ready.
        pss: The daemon's memory when it has served a list, in bytes.
        calls: By name: milliseconds of each round, and how many items each was for.
        waits: By name: the longest that another client waited for a read and for a write, in milliseconds.
    """

    sessions: int
    starts: list[float] = field(default_factory=list)
    pss: int = 0
    calls: dict[str, tuple[list[float], int]] = field(default_factory=dict)
    waits: dict[str, tuple[float, float]] = field(default_factory=dict)


def run(bench: Bench) -> Sequence[Outcome]:
    """Measure the figure."""
    small, large = (_measure(bench, sessions) for sessions in (bench.amount(10_000, 20), bench.amount(100_000, 40)))
    outcomes: list[Outcome] = [
        Result(
            figure="scale",
            number=summary(f"ready, {_size(large)}", "ms", large.starts),
            baseline=summary(f"ready, {_size(small)}", "ms", small.starts),
        )
    ]
    if HAS_PROC:
        outcomes.append(
            Result(
                figure="scale",
                number=exactly(f"memory (PSS), {_size(large)}", "MB", large.pss / MEGABYTE),
                baseline=exactly(f"memory (PSS), {_size(small)}", "MB", small.pss / MEGABYTE),
            )
        )
    bar = Bar(kind="<=", limit=2)
    for name, (rounds, items) in large.calls.items():
        few, few_items = small.calls[name]
        read, write = large.waits.get(name, (0.0, 0.0))
        waits = f"; others waited {read:.0f} ms at most for a read, {write:.0f} ms for a write" if read else ""
        each = ", an item" if items > 1 or few_items > 1 else ""
        outcomes.append(
            Result(
                figure="scale",
                number=summary(f"{name}{each}, {_size(large)}", "us", [1_000 * ms / max(1, items) for ms in rounds]),
                baseline=summary(f"{name}{each}, {_size(small)}", "us", [1_000 * ms / max(1, few_items) for ms in few]),
                bar=bar if name in ("first page", "cleanup", "backup") else None,
                note=f"{sum(rounds) / len(rounds):,.0f} ms for {items:,}{waits}" if each else "",
            )
        )
    return outcomes


def _size(store: Store) -> str:
    return f"{store.sessions:,} sessions"


def _measure(bench: Bench, sessions: int) -> Store:
    """Make a store, start it, call it, and take it away."""
    home, store = bench.new_home(), Store(sessions)
    path = database_of(home)
    asyncio.run(make_one(path, list(_screens()), COLS, ROWS))
    multiply(path, sessions, ended="n % 5 < 2")
    with served(home, ORBITD), LineClient(socket_of(home)) as client:
        _wait_until_idle(client)  # what a daemon does with a store that is new to it has been done
    store.starts = [start_time(home) for _ in range(bench.amount(ROUNDS, 1))]
    with served(home, ORBITD) as daemon, LineClient(socket_of(home)) as client:
        _wait_until_idle(client)
        _read(bench, client, store)
        store.pss = proportional_bytes([daemon.pid])
        _work(client, store, home)
    path.unlink()
    return store


def _wait_until_idle(client: LineClient) -> None:
    """Wait until the daemon has looked at every row, as it does after a start, and no other chore runs.

    Raises:
        RuntimeError: A chore has failed.
    """
    while not _is_idle(client.call("daemon.info")["chores"]):
        time.sleep(IDLE_SECS)


def _is_idle(chores: list[dict[str, Any]]) -> bool:
    """Return whether the first chore has been done and none runs. Raises: RuntimeError."""
    for each in chores:
        if each["last_error"] is not None:
            raise RuntimeError(f"{each['name']}: {each['last_error']}")
    return all(
        (each["last_success_at"] or "") >= each["last_run_at"] if each["last_run_at"] else each["name"] != "rows"
        for each in chores
    )


def _screens() -> Iterator[tuple[bytes, bytes | None]]:
    """Return small screens, each with three new lines at its end."""
    chance = random.Random(1)
    lines = [" ".join(f"{chance.getrandbits(16):x}" for _ in range(8)) for _ in range(LINES)]
    for number in range(SNAPSHOTS_EACH):
        yield "\r\n".join(lines[3 * number : 3 * number + ROWS]).encode(), None


def _read(bench: Bench, client: LineClient, store: Store) -> None:
    """Time what a client asks for all the time."""
    rounds = bench.amount(ROUNDS, 1)

    def timed(name: str, method: str, items: int = 1, **params: Any) -> Any:
        answers = [_timed(lambda: client.call(method, **params)) for _ in range(rounds)]
        store.calls[name] = ([taken for taken, _ in answers], items)
        return answers[-1][1]

    page = timed("first page", "session.list", limit=PAGE)
    timed("first page, active", "session.list", limit=PAGE, status=["active"])
    timed("first page, terminated", "session.list", limit=PAGE, status=["terminated"])
    timed("first page, archived", "session.list", limit=PAGE, status=["archived"])
    cursor, pages = page["next_cursor"], 1
    begun = time.perf_counter_ns()
    while page["next_cursor"] is not None:
        cursor = page["next_cursor"]
        page = client.call("session.list", limit=1_000, cursor=cursor)
        pages += 1
    store.calls["all pages"] = ([(time.perf_counter_ns() - begun) / 1e6], pages)
    timed("last page", "session.list", limit=1_000, cursor=cursor)
    found = page["sessions"][-1]["id"]
    timed("session.get", "session.get", id=found)
    timed("session.find by prefix", "session.find", ref=found[:12])
    timed("snapshot.list", "snapshot.list", session_id=found)
    timed("snapshot.latest", "snapshot.latest", session_id=found)
    timed("snapshot.save", "snapshot.save", session_id=found, terminal_buffer="aGVsbG8=", cols=COLS, rows=ROWS)
    timed("session.create", "session.create", config={"session_type": "local"})
    timed("stats.get", "stats.get")
    timed("daemon.info", "daemon.info")


def _work(client: LineClient, store: Store, home: Path) -> None:
    """Time what takes long, while others read and write."""

    def timed(name: str, method: str, items: Callable[[Any], int], **params: Any) -> None:
        with _others(home) as waits:
            client.send(method, **params)
            taken, line = _timed(lambda: client.read_line(LONG_SECS))
        store.calls[name] = ([taken], items(msgspec.json.decode(line)["result"]))
        store.waits[name] = (max(waits[0], default=0.0), max(waits[1], default=0.0))

    snapshots = store.sessions * SNAPSHOTS_EACH
    timed("backup", "maintenance.backup", lambda _: snapshots, path=str(home / "copy.db"))
    (home / "copy.db").unlink()
    timed("check", "maintenance.check", lambda _: snapshots)
    timed("cleanup", "maintenance.cleanup_snapshots", lambda done: int(done["deleted"]), keep_last_n=KEPT)
    timed("vacuum", "maintenance.vacuum", lambda done: int(done["bytes_freed"]) // PAGE_BYTES)
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    timed("archive", "maintenance.archive", lambda done: int(done["archived"]), terminated_before=tomorrow)


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return how long a call takes, in milliseconds, and what it returns."""
    begun = time.perf_counter_ns()
    answer = call()
    return (time.perf_counter_ns() - begun) / 1_000_000, answer


@contextlib.contextmanager
def _others(home: Path) -> Iterator[tuple[list[float], list[float]]]:
    """Have a client read and another one write while the block runs; yield how long each read and write took."""
    waits: tuple[list[float], list[float]] = ([], [])
    done = threading.Event()

    def read(client: LineClient, session_id: str) -> object:
        return client.call("snapshot.latest", session_id=session_id)

    def write(client: LineClient, session_id: str) -> object:
        return client.call("session.rename", id=session_id, name=f"{time.perf_counter_ns()}")

    def repeat(act: Callable[[LineClient, str], object], into: list[float]) -> None:
        with LineClient(socket_of(home)) as client:
            session_id = client.call("session.list", limit=1)["sessions"][0]["id"]
            while not done.is_set():
                into.append(_timed(lambda: act(client, session_id))[0])
                done.wait(0.002)

    with ThreadPoolExecutor(2) as pool:
        clients = [pool.submit(repeat, *args) for args in ((read, waits[0]), (write, waits[1]))]
        try:
            yield waits
        finally:
            done.set()
        for each in clients:
            each.result()  # raises what has ended it
