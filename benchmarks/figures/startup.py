"""Ready after start with 10,000 sessions and 100,000 snapshots stored: <= 1.5x an empty store.

Measured from the spawn of `python -m orbitd` to the line on `--ready-fd`, which is written
when clients are served. Both stores exist already and were closed well. The big one grows
from one session of a real shell, saved through the manager and then copied inside SQLite
under new ids; no session is terminated, so the daemon has to load every one.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.bench import ORBITD, Bench, database_of, served, socket_of
from benchmarks.client import LineClient
from benchmarks.corpus import COLS, ROWS, Screen, record
from benchmarks.population import config
from benchmarks.results import Bar, Outcome, Result, summary
from benchmarks.rounds import by_turns
from orbit_protocol.types import SessionConfig
from orbitd.manager import SessionManager
from orbitd.store.rows import SESSION_COLUMNS, row_checksum

SNAPSHOTS_EACH = 10
NEW_ID = (
    "lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-a'"
    " || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)))"
)


def run(bench: Bench) -> Sequence[Outcome]:
    """Measure the figure."""
    sessions = bench.amount(10_000, 50)
    empty, full = bench.new_home(), bench.new_home()
    with served(empty, ORBITD):
        pass
    screens = next(iter(record(bench.new_home(), 1, SNAPSHOTS_EACH)))
    database_of(full).parent.mkdir(parents=True, mode=0o700)
    asyncio.run(_template(database_of(full), screens))
    _multiply(database_of(full), sessions)
    with served(full, ORBITD), LineClient(socket_of(full)) as client:
        stats = client.call("stats.get")
        assert (stats["total_sessions"], stats["total_snapshots"]) == (sessions, sessions * SNAPSHOTS_EACH)
    found = by_turns(
        {"full": lambda: start_time(full), "empty": lambda: start_time(empty)},
        bench.amount(15, 1),
        warm_up=bench.amount(1, 0),
    )
    name = f"ready, {sessions:,} sessions and {sessions * SNAPSHOTS_EACH:,} snapshots"
    return [
        Result(
            figure="startup",
            number=summary(name, "ms", found["full"]),
            baseline=summary("ready, empty store", "ms", found["empty"]),
            bar=Bar(kind="<=", limit=1.5),
            note=f"database {database_of(full).stat().st_size / 1e6:.0f} MB",
        )
    ]


def start_time(home: Path) -> float:
    """Return how long a daemon takes from spawn to ready, in milliseconds."""
    begun = time.perf_counter_ns()
    with served(home, ORBITD):
        return (time.perf_counter_ns() - begun) / 1_000_000


async def _template(path: Path, screens: list[Screen]) -> None:
    """Make the schema and one session with its snapshots."""
    async with SessionManager.open(str(path)) as manager:
        session = await manager.create_session(SessionConfig(**config(0)))
        for screen in screens:
            await manager.save_snapshot(session.id, screen.terminal_buffer, screen.scrollback, cols=COLS, rows=ROWS)


def _multiply(path: Path, sessions: int) -> None:
    """Copy the one session and its snapshots until there are so many."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        counting = f"WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {sessions - 1})"
        _copy(connection, counting, "sessions", {"id": NEW_ID, "name": "'session ' || n"}, "n")
        others = "WITH others AS (SELECT id FROM sessions WHERE seq > 1)"
        # The checksum of an earlier Orbit, as the one of now covers the columns that are changed here.
        changed = {"id": NEW_ID, "session_id": "others.id", "checksum": "substr(checksum, 1, 16)"}
        _copy(connection, others, "session_snapshots", changed, "others")
        connection.create_function("row_checksum", -1, lambda *values: row_checksum(values))
        values = SESSION_COLUMNS.removesuffix(", checksum")
        connection.execute(f"UPDATE sessions SET checksum = row_checksum({values})")
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _copy(connection: sqlite3.Connection, ctes: str, table: str, changed: dict[str, str], by: str) -> None:
    """Insert into a table a copy of each of its rows for each row of `by`, some columns changed."""
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})") if row[1] != "seq"]
    values = [changed.get(column, f"{table}.{column}") for column in columns]
    connection.execute(
        f"INSERT INTO {table} ({', '.join(columns)}) {ctes} SELECT {', '.join(values)} FROM {by} CROSS JOIN {table}"
    )
