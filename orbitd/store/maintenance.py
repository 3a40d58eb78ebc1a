"""Work on the whole store: auto-save, cleanup, archive, vacuum, statistics, integrity.

What writes takes the writer's connection and runs inside a savepoint, in pieces small
enough that other callers need not wait long. What only reads takes a reading one.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

from msgspec.structs import replace

from orbit_protocol.errors import SessionNotFound
from orbit_protocol.results import CheckReport
from orbit_protocol.types import Session, Workspace
from orbitd.store import lookup, sessions
from orbitd.store.cache import Change
from orbitd.store.clock import now, to_text
from orbitd.store.delta_chain import unroll
from orbitd.store.rows import SESSION_COLUMNS, Stored, session_of, session_values
from orbitd.store.snapshots import ENTRY_COLUMNS, entry_of

ARCHIVE_CHUNK = 50
"""Sessions that are archived in one piece of work."""

STATS = """
    SELECT
        (SELECT count(*) FROM sessions WHERE status = 'active'),
        (SELECT count(*) FROM sessions WHERE status = 'detached'),
        (SELECT count(*) FROM sessions WHERE status = 'terminated'),
        (SELECT count(*) FROM archived_sessions),
        (SELECT count(*) FROM workspaces),
        hot.number + old.number, hot.raw + old.raw, hot.stored + old.stored,
        (SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size())
    FROM
        (SELECT count(*) AS number, total(raw_bytes) AS raw, total(stored_bytes) AS stored FROM session_snapshots)
            AS hot,
        (SELECT count(*) AS number, total(raw_bytes) AS raw, total(stored_bytes) AS stored FROM archived_snapshots)
            AS old
"""

WITH_MORE_THAN = "SELECT session_id FROM session_snapshots GROUP BY session_id HAVING count(*) > ?"

_MOST_FINDINGS = 100

_ARCHIVED = f"SELECT {SESSION_COLUMNS} FROM archived_sessions WHERE id = ?"  # noqa: S608  # a constant of ours
_RESTORE = f"INSERT INTO sessions ({SESSION_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608  # likewise


def write_touches(connection: sqlite3.Connection, touches: dict[str, datetime], moment: datetime) -> int:
    """Write when sessions were last active, unless something later is there; return how many are there."""
    saved = 0
    for session_id, touched in touches.items():
        saved += connection.execute(
            "UPDATE sessions SET last_active = max(last_active, ?) WHERE id = ?", (to_text(touched), session_id)
        ).rowcount
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('last_auto_save_at', ?)", (to_text(moment),))
    return saved


def try_to_write(connection: sqlite3.Connection) -> None:
    """Write something that means nothing, to see whether it can be done."""
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('last_trouble_at', ?)", (to_text(now()),))


def cleanup(connection: sqlite3.Connection, session_ids: Sequence[str], keep_last_n: int) -> Change[int]:
    """Delete all but the newest snapshots of some sessions; nothing depends on what is older."""
    deleted = 0
    for session_id in session_ids:
        deleted += connection.execute(
            "DELETE FROM session_snapshots WHERE session_id = :id AND seq <= (SELECT seq FROM session_snapshots"
            " WHERE session_id = :id ORDER BY seq DESC LIMIT 1 OFFSET :keep)",
            {"id": session_id, "keep": keep_last_n},
        ).rowcount
    return Change(result=deleted)


def archive(connection: sqlite3.Connection, before: datetime) -> Change[int]:
    """Move some terminated sessions that were last active before a moment; fewer than a chunk if no more are left."""
    found = connection.execute(
        "SELECT id FROM sessions WHERE status = 'terminated' AND last_active < ? ORDER BY seq LIMIT ?",
        (to_text(before), ARCHIVE_CHUNK),
    ).fetchall()
    left: list[Stored[Workspace]] = []
    for (session_id,) in found:
        left += sessions.leave_front(connection, session_id)
        _move_away(connection, session_id)
    gone = tuple(session_id for (session_id,) in found)
    return Change(result=len(found), gone_sessions=gone, workspaces=tuple(left))


def restore_archived(connection: sqlite3.Connection, session_id: str) -> Change[Session]:
    """Bring an archived session back, terminated; without its workspace if that is gone. Raises: SessionNotFound."""
    row = connection.execute(_ARCHIVED, (session_id,)).fetchone()
    if row is None:
        lookup.session(connection, session_id)
        raise SessionNotFound(f"Session {session_id} is not archived", hint="It is where it should be.")
    stored = session_of(row)
    session = replace(_without_lost_workspace(connection, stored.item), status="terminated")
    connection.execute(_RESTORE, (stored.seq, *session_values(session)))
    connection.execute(
        "INSERT INTO session_snapshots SELECT * FROM archived_snapshots WHERE session_id = ?", (session_id,)
    )
    connection.execute("DELETE FROM archived_sessions WHERE id = ?", (session_id,))
    return Change(result=session, sessions=(Stored(stored.seq, session),))


def vacuum(connection: sqlite3.Connection, pages: int) -> Change[int]:
    """Give some free pages back; return how many bytes the database is smaller."""
    before = database_bytes(connection)
    connection.execute(f"PRAGMA incremental_vacuum({pages:d})").fetchall()  # it works row by row
    return Change(result=before - database_bytes(connection))


def checkpoint(connection: sqlite3.Connection) -> None:
    """Fold the WAL into the database and shorten both files; outside any transaction.

    Nobody is waited for: beside a reader that stays, as a replicator does, the files are shortened another time.
    """
    (patience,) = connection.execute("PRAGMA busy_timeout").fetchone()
    connection.execute("PRAGMA busy_timeout = 0").fetchall()
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        connection.execute(f"PRAGMA busy_timeout = {patience:d}").fetchall()


def database_bytes(connection: sqlite3.Connection) -> int:
    """Return the size of the database."""
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    return int(pages * size)


def check(connection: sqlite3.Connection) -> CheckReport:
    """Check the database's structure, its references, and every snapshot's bytes; takes long."""
    integrity: list[str] = []
    found = {
        what: _findings(integrity, part, connection)
        for what, part in (("integrity", _integrity), ("references", _references), ("snapshots", _bad_snapshots))
    }
    integrity[:0] = found["integrity"]
    return CheckReport(
        ok=not integrity and not found["references"] and not found["snapshots"],
        integrity=integrity,
        foreign_keys=found["references"],
        snapshots=found["snapshots"],
    )


def _findings(
    failures: list[str], part: Callable[[sqlite3.Connection], Iterator[str]], connection: sqlite3.Connection
) -> list[str]:
    """Collect what one part finds; where the database is too damaged to go on, that is a failure found."""
    found: list[str] = []
    try:
        found.extend(part(connection))
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            raise
        failures.append(f"{part.__name__.strip('_')}: {error}")
    return found


def _integrity(connection: sqlite3.Connection) -> Iterator[str]:
    rows = connection.execute(f"PRAGMA integrity_check({_MOST_FINDINGS})")
    return (row[0] for row in rows if row[0] != "ok")


def _references(connection: sqlite3.Connection) -> Iterator[str]:
    rows = itertools.islice(connection.execute("PRAGMA foreign_key_check"), _MOST_FINDINGS)
    return (f"row {rowid} of {table} refers to a row of {parent} that is not there" for table, rowid, parent, _ in rows)


def _bad_snapshots(connection: sqlite3.Connection) -> Iterator[str]:
    for table in ("session_snapshots", "archived_snapshots"):
        # Backwards through the index: each session's newest first, without a sort that would load every blob.
        query = f"SELECT {ENTRY_COLUMNS} FROM {table} ORDER BY session_id DESC, seq DESC"  # noqa: S608  # constants
        entries = map(entry_of, connection.execute(query))
        for _, of_session in itertools.groupby(entries, key=lambda entry: entry.session_id):
            yield from (opened.entry.id for opened in unroll(of_session) if opened.good() is None)


def _move_away(connection: sqlite3.Connection, session_id: str) -> None:
    connection.execute(
        "INSERT INTO archived_sessions SELECT seq, id, name, session_type, created_at, last_active, 'archived', config,"
        " workspace_id, program FROM sessions WHERE id = ?",
        (session_id,),
    )
    connection.execute(
        "INSERT INTO archived_snapshots SELECT * FROM session_snapshots WHERE session_id = ?", (session_id,)
    )
    connection.execute("DELETE FROM sessions WHERE id = ?", (session_id,))


def _without_lost_workspace(connection: sqlite3.Connection, session: Session) -> Session:
    found = connection.execute("SELECT 1 FROM workspaces WHERE id = ?", (session.workspace_id,)).fetchone()
    return session if found else sessions.in_workspace(session, None)
