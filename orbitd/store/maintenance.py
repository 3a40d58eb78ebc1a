"""The SessionManager's methods for the whole store: auto-save, cleanup, archive, vacuum, check, backup, statistics.

What may take long is written in chunks, each a piece of work of its own: the writer's thread
then serves other callers in between. What only reads for long has a reading connection and a
thread of its own (`Readers.run_in_thread`).
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sqlite3
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial

from msgspec.structs import replace

from orbit_os.files import make_private_folders
from orbit_protocol.errors import InvalidParams, SessionNotFound, StorageCorrupt
from orbit_protocol.results import BackupResult, CheckReport, SessionStats
from orbit_protocol.text import path_and_bytes
from orbit_protocol.types import Session, Workspace
from orbitd.store import sessions
from orbitd.store.backup import copy
from orbitd.store.cache import Change
from orbitd.store.delta_chain import unpack_chain
from orbitd.store.files import SIDE_FILES, file_stamp
from orbitd.store.rows import (
    SESSION_COLUMNS,
    Stored,
    find_session,
    now,
    session_from_row,
    session_values,
    time_to_text,
)
from orbitd.store.snapshots import SNAPSHOT_COLUMNS, snapshot_from_row
from orbitd.store.store import Store

_ARCHIVE_CHUNK = 50
"""Sessions archived in one transaction."""

_CLEANUP_CHUNK = 64
"""Sessions whose snapshots are deleted in one transaction."""

_VACUUM_CHUNK = 1_024
"""Pages freed in one transaction (4 MiB)."""

_SPARE_PAGES = 256
"""Free pages (1 MiB) that `vacuum_step` leaves in the file: the next save uses them, instead of growing it again."""

_MAX_FINDINGS = 100

_STATS = """
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

_ARCHIVE = f"""
    INSERT INTO archived_sessions ({SESSION_COLUMNS})
    SELECT seq, id, name, session_type, created_at, last_active, 'archived', config, workspace_id, program
    FROM sessions WHERE id = ?
"""  # noqa: S608  # a constant of ours
_WITH_MORE_SNAPSHOTS = "SELECT session_id FROM session_snapshots GROUP BY session_id HAVING count(*) > ?"
_ARCHIVED = f"SELECT {SESSION_COLUMNS} FROM archived_sessions WHERE id = ?"  # noqa: S608  # a constant of ours
_REINSERT = f"INSERT INTO sessions ({SESSION_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608  # likewise


class MaintenanceMethods:
    """Auto-save, cleanup, archive, vacuum, check, backup and statistics."""

    _store: Store

    async def auto_save_sessions(self) -> int:
        """Write the touches that are in memory only, if there are any; return how many sessions that were."""
        store, moment = self._store, now()
        touches = dict(store.cache.touched)  # a copy: sessions are touched while this is written

        def work(connection: sqlite3.Connection) -> int:
            saved = 0
            for session_id, touched in touches.items():
                # max(): another transaction may have written a later time since.
                saved += connection.execute(
                    "UPDATE sessions SET last_active = max(last_active, ?) WHERE id = ?",
                    (time_to_text(touched), session_id),
                ).rowcount
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('last_auto_save_at', ?)", (time_to_text(moment),))
            return saved

        def on_commit(saved: int) -> int:
            store.cache.forget_touches(touches)
            return saved

        saved = await store.writer.run(work, on_commit) if touches else 0
        store.last_auto_save_at = moment
        return saved

    async def cleanup_old_snapshots(self, keep_last_n: int) -> int:
        """Delete all but the newest snapshots of each session; return how many. Raises: InvalidParams."""
        if keep_last_n < 1:
            raise InvalidParams("`keep_last_n` must be 1 or more")
        rows = await self._store.readers.fetch_all(_WITH_MORE_SNAPSHOTS, (keep_last_n,))

        def work(connection: sqlite3.Connection, session_ids: list[str]) -> Change[int]:
            deleted = 0
            for session_id in session_ids:
                # No other row is rewritten: snapshots depend on newer ones only (`delta_chain`).
                deleted += connection.execute(
                    "DELETE FROM session_snapshots WHERE session_id = :id AND seq <= (SELECT seq FROM session_snapshots"
                    " WHERE session_id = :id ORDER BY seq DESC LIMIT 1 OFFSET :keep)",
                    {"id": session_id, "keep": keep_last_n},
                ).rowcount
            return Change(result=deleted)

        deleted = 0
        for start in range(0, len(rows), _CLEANUP_CHUNK):
            ids = [session_id for (session_id,) in rows[start : start + _CLEANUP_CHUNK]]
            deleted += await self._store.write(partial(work, session_ids=ids))
        return deleted

    async def archive_sessions(self, terminated_before: datetime) -> int:
        """Archive terminated sessions that were last active before a moment; return how many. Raises: InvalidParams."""
        if terminated_before.tzinfo is None:
            raise InvalidParams("`terminated_before` must have a time zone")

        def work(connection: sqlite3.Connection) -> Change[int]:
            found = connection.execute(
                "SELECT id FROM sessions WHERE status = 'terminated' AND last_active < ? ORDER BY seq LIMIT ?",
                (time_to_text(terminated_before), _ARCHIVE_CHUNK),
            ).fetchall()
            workspaces: list[Stored[Workspace]] = []
            for (session_id,) in found:
                workspaces += sessions.leave_front(connection, session_id)
                connection.execute(_ARCHIVE, (session_id,))
                # Copied before the session is deleted: its snapshots go with it by the foreign key.
                connection.execute(
                    "INSERT INTO archived_snapshots SELECT * FROM session_snapshots WHERE session_id = ?", (session_id,)
                )
                connection.execute("DELETE FROM sessions WHERE id = ?", (session_id,))
            gone = tuple(session_id for (session_id,) in found)
            return Change(result=len(found), gone_sessions=gone, workspaces=tuple(workspaces))

        archived, moved = 0, _ARCHIVE_CHUNK
        while moved == _ARCHIVE_CHUNK:  # fewer: none are left
            moved = await self._store.write(work)
            archived += moved
        return archived

    async def restore_archived_session(self, session_id: str) -> Session:
        """Restore an archived session as terminated, out of its workspace if that is gone. Raises: SessionNotFound."""

        def work(connection: sqlite3.Connection) -> Change[Session]:
            row = connection.execute(_ARCHIVED, (session_id,)).fetchone()
            if row is None:
                find_session(connection, session_id)
                raise SessionNotFound(f"Session {session_id} is not archived", hint="It is where it should be.")
            stored = session_from_row(row)
            session = replace(stored.item, status="terminated")
            workspace = connection.execute("SELECT 1 FROM workspaces WHERE id = ?", (session.workspace_id,)).fetchone()
            if workspace is None:
                session = sessions.in_workspace(session, None)
            connection.execute(_REINSERT, (stored.seq, *session_values(session)))
            connection.execute(
                "INSERT INTO session_snapshots SELECT * FROM archived_snapshots WHERE session_id = ?", (session_id,)
            )
            connection.execute("DELETE FROM archived_sessions WHERE id = ?", (session_id,))
            return Change(result=session, sessions=(Stored(stored.seq, session),))

        return await self._store.change_session(work)

    async def vacuum(self) -> int:
        """Return all free pages to the file system; return how many bytes those were."""

        def checkpoint(connection: sqlite3.Connection) -> None:
            # Shortens the database and the WAL. TRUNCATE would wait for every reader in the busy
            # handler (sqlite.org/pragma.html#pragma_wal_checkpoint), and some stay for as long as
            # they run, as replicators do. Without a timeout it does what it can and returns.
            (timeout,) = connection.execute("PRAGMA busy_timeout").fetchone()
            connection.execute("PRAGMA busy_timeout = 0").fetchall()
            try:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            finally:
                connection.execute(f"PRAGMA busy_timeout = {timeout:d}").fetchall()

        freed = 0
        while step := await self._store.write(partial(_vacuum, pages=_VACUUM_CHUNK)):
            freed += step
        if freed:
            # A checkpoint fails inside a transaction (SQLITE_LOCKED), hence `alone`.
            await self._store.writer.run(checkpoint, lambda _: None, alone=True)
        return freed

    async def vacuum_step(self) -> int:
        """Return some free pages to the file system if no write waits; return how many bytes those were."""
        row = await self._store.readers.fetch_one("PRAGMA freelist_count")
        spare = 0 if row is None else row[0] - _SPARE_PAGES
        if spare <= 0 or not self._store.writer.is_idle:
            return 0
        return await self._store.write(partial(_vacuum, pages=min(spare, _VACUUM_CHUNK)))

    async def check(self) -> CheckReport:
        """Check the structure of the database, its references, and the bytes of every snapshot."""
        return await self._store.readers.run_in_thread(_check)

    async def backup(self, path: str) -> BackupResult:
        """Write a consistent copy of the database, mode 0600, while it is in use; a file at `path` is replaced.

        Raises:
            InvalidParams: `path` is no place for a file, or the database itself.
            StorageFull: There is no room for it.
            StorageReadOnly: The folder cannot be written.
        """
        database = self._store.path

        def work(connection: sqlite3.Connection) -> int:
            # Symbolic links are followed first: the copy is renamed onto the file that they lead to,
            # which must not be the database.
            target = os.path.realpath(path)
            if not os.path.isabs(path) or os.path.isdir(target) or not os.path.isdir(os.path.dirname(target)):
                raise InvalidParams(
                    f"`path` must name a file in a folder that exists, from the root on; {path} does not"
                )
            files_in_use = {database + suffix for suffix in ("", ".lock", *SIDE_FILES)}
            if target in files_in_use or (os.path.exists(target) and os.path.samefile(target, database)):
                raise InvalidParams(f"`path` is the database itself: {path}")
            if os.path.exists(target) and not os.path.isfile(target):
                raise InvalidParams(f"`path` is no file, and is not replaced: {path}")
            return copy.write(connection, target)

        size = await self._store.readers.run_in_thread(work)
        text, path_bytes = path_and_bytes(path)
        return BackupResult(path=text, path_bytes=path_bytes, bytes=size)

    async def fingerprint(self) -> bytes:
        """Return a digest of all rows; a backup with the same one is current."""
        return await self._store.readers.run_in_thread(copy.fingerprint)

    async def get_stats(self) -> SessionStats:
        """Count sessions, workspaces and snapshots, and measure the database."""
        row = await self._store.readers.fetch_one(_STATS)
        assert row is not None
        active, detached, terminated, archived, workspaces, snapshots, raw, stored, database = map(int, row)
        return SessionStats(
            total_sessions=active + detached + terminated + archived,
            active_sessions=active,
            detached_sessions=detached,
            terminated_sessions=terminated,
            archived_sessions=archived,
            total_workspaces=workspaces,
            total_snapshots=snapshots,
            snapshot_raw_bytes=raw,
            snapshot_stored_bytes=stored,
            database_bytes=database,
            last_auto_save_at=self._store.last_auto_save_at,
        )

    async def probe(self) -> None:
        """Read from the database, to show that it answers."""
        await self._store.readers.fetch_one("SELECT count(*) FROM meta")

    async def watch(self) -> None:
        """Check that the database is still at its path and, only if the last write failed, that it can be written.

        Raises:
            StorageError: It is not. If its file was deleted or replaced, the file that SQLite still has open is
                copied beside its path first.
        """
        store = self._store
        try:
            store.file_watch.check()
        except StorageCorrupt:
            # SQLite's descriptors still lead to the file that has lost its name, with all that was
            # answered in it; a backup through them gives it one. If that fails, its error is raised
            # instead of the first one, as it is the one that a user can do something about.
            if not store.file_watch.is_rescued:
                path = f"{store.path}.rescued-{file_stamp(now())}"
                await asyncio.to_thread(make_private_folders, os.path.dirname(path))
                await store.writer.run(partial(copy.write, path=path), lambda _: None, alone=True)
                store.file_watch.rescued = path
        store.file_watch.check()  # again, for an error that names the copy
        if store.writer.last_storage_error is not None:

            def write_something(connection: sqlite3.Connection) -> None:
                connection.execute("INSERT OR REPLACE INTO meta VALUES ('last_trouble_at', ?)", (time_to_text(now()),))

            await store.writer.run(write_something, lambda _: None)


def _vacuum(connection: sqlite3.Connection, pages: int) -> Change[int]:
    """Remove up to `pages` free pages; return by how many bytes the database became smaller."""
    (page_size,) = connection.execute("PRAGMA page_size").fetchone()
    (before,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA incremental_vacuum({pages:d})").fetchall()  # each step of the statement frees one page
    (after,) = connection.execute("PRAGMA page_count").fetchone()
    return Change(result=int((before - after) * page_size))


def _check(connection: sqlite3.Connection) -> CheckReport:
    """Check the whole database; slow."""
    integrity: list[str] = []
    references: list[str] = []
    snapshots: list[str] = []
    failures: list[str] = []
    checks: list[tuple[str, Callable[[sqlite3.Connection], Iterator[str]], list[str]]] = [
        ("integrity", _integrity_errors, integrity),
        ("references", _dangling_references, references),
        ("bad_snapshots", _bad_snapshots, snapshots),
    ]
    for name, check, findings in checks:
        try:
            findings.extend(check(connection))
        except sqlite3.DatabaseError as error:  # too damaged for this check to go on; the others may still work
            if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:  # `Readers.close` stopped it
                raise
            failures.append(f"{name}: {error}")
    integrity += failures
    return CheckReport(
        ok=not integrity and not references and not snapshots,
        integrity=integrity,
        foreign_keys=references,
        snapshots=snapshots,
    )


def _integrity_errors(connection: sqlite3.Connection) -> Iterator[str]:
    rows = connection.execute(f"PRAGMA integrity_check({_MAX_FINDINGS})")
    return (row[0] for row in rows if row[0] != "ok")


def _dangling_references(connection: sqlite3.Connection) -> Iterator[str]:
    rows = itertools.islice(connection.execute("PRAGMA foreign_key_check"), _MAX_FINDINGS)
    return (f"row {rowid} of {table} refers to a row of {parent} that is not there" for table, rowid, parent, _ in rows)


def _bad_snapshots(connection: sqlite3.Connection) -> Iterator[str]:
    for table in ("session_snapshots", "archived_snapshots"):
        # Backwards through the index on (session_id, seq): each session's newest first, as a chain
        # is unpacked, and without a sort, which would load every blob at once.
        query = f"SELECT {SNAPSHOT_COLUMNS} FROM {table} ORDER BY session_id DESC, seq DESC"  # noqa: S608  # constants
        rows = map(snapshot_from_row, connection.execute(query))
        for _, chain in itertools.groupby(rows, key=lambda row: row.session_id):
            yield from (unpacked.row.id for unpacked in unpack_chain(chain) if unpacked.verified() is None)
