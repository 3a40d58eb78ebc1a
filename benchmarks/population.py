"""Sessions as people have them, made through the daemon's own interface, and very many copied inside SQLite."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

from benchmarks.client import LineClient
from orbit_protocol.types import SessionConfig
from orbitd.manager import SessionManager
from orbitd.store.rows import SESSION_COLUMNS, SNAPSHOT_HEAD_COLUMNS, row_checksum, snapshot_checksum

COMMANDS = ("bash", "npm run dev", "htop", "vim src/main.py", "python -i", "tail -F /var/log/syslog")
NEW_ID = (
    "lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-a'"
    " || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)))"
)
CACHE_KIB = 400_000


def config(number: int) -> dict[str, Any]:
    """Return what the session of this number runs: every fourth is on another host."""
    if number % 4 == 3:
        return {"session_type": "ssh", "host": f"host{number}.example.org", "port": 22, "username": "deploy"}
    return {"session_type": "local", "command": COMMANDS[number % len(COMMANDS)]}


def populate(client: LineClient, count: int) -> list[str]:
    """Make sessions and return their ids."""
    made = [client.call("session.create", name=f"session {n}", config=config(n)) for n in range(count)]
    return [session["id"] for session in made]


async def make_one(path: Path, screens: list[tuple[bytes, bytes | None]], cols: int, rows: int) -> None:
    """Make a database that has one session.

    Args:
        path: Where it goes.
        screens: The session's snapshots, oldest first: buffer and scrollback.
        cols: Their width.
        rows: Their height.
    """
    path.parent.mkdir(parents=True, mode=0o700)
    async with SessionManager.open(str(path)) as manager:
        session = await manager.create_session(SessionConfig(**config(0)))
        for buffer, scrollback in screens:
            await manager.save_snapshot(session.id, buffer, scrollback, cols=cols, rows=rows)


def multiply(path: Path, sessions: int, *, ended: str = "0") -> None:
    """Copy the one session of a database with its snapshots until there are so many.

    The first snapshot of every session comes before the second of any, as where all are saved by turns.

    Args:
        path: The database; nobody has it open.
        sessions: How many there are in the end.
        ended: An SQL condition on the number n of a session: it is terminated.
    """
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        connection.create_function("row_checksum", -1, lambda *values: row_checksum(values))
        connection.create_function("snapshot_checksum", -1, lambda *row: snapshot_checksum(row[:-1], row[-1][:16]))
        connection.execute("BEGIN")
        counting = f"WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {sessions - 1})"
        changed = {"id": NEW_ID, "name": "'session ' || n", "status": f"iif({ended}, 'terminated', 'detached')"}
        _copy(connection, counting, "sessions", changed, "n")
        others = "WITH others AS MATERIALIZED (SELECT id FROM sessions WHERE seq > 1 ORDER BY seq)"
        _copy(connection, others, "session_snapshots", {"id": NEW_ID, "session_id": "others.id"}, "others")
        values = SESSION_COLUMNS.partition(", checksum")[0]  # what stands behind it is NULL
        connection.execute(f"UPDATE sessions SET checksum = row_checksum({values})")
        connection.execute(f"UPDATE session_snapshots SET checksum = snapshot_checksum({SNAPSHOT_HEAD_COLUMNS})")
        connection.execute("COMMIT")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _copy(connection: sqlite3.Connection, ctes: str, table: str, changed: dict[str, str], by: str) -> None:
    """Insert into a table a copy of each of its rows for each row of `by`, some columns changed."""
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})") if row[1] != "seq"]
    values = [changed.get(column, f"{table}.{column}") for column in columns]
    connection.execute(
        f"INSERT INTO {table} ({', '.join(columns)}) {ctes} SELECT {', '.join(values)} FROM {table} CROSS JOIN {by}"
    )
