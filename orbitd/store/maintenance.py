"""The SessionManager's methods for the whole store: auto-save, cleanup, archive, vacuum, check, backup, statistics.

What may take long is written in slices of some milliseconds, each a piece of work of its own: the
writer's thread serves other callers in between. What only reads for long has a reading connection
and a thread of its own (`Readers.run_in_thread`). Both report how far they are, and end soon where
their caller is cancelled; what is written by then stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Protocol, TypeVar

from msgspec import UNSET, structs
from msgspec.structs import replace

from orbit_os.files import make_private_folders
from orbit_protocol.errors import (
    InvalidParams,
    NameTaken,
    OrbitError,
    SessionNotFound,
    ShuttingDown,
    StorageCorrupt,
    StorageError,
    StorageFull,
)
from orbit_protocol.results import BackupResult, CheckReport, SessionStats
from orbit_protocol.text import path_and_bytes
from orbit_protocol.types import Session, Workspace
from orbitd.logs import event
from orbitd.store import damage, events, sessions, validation, workspaces
from orbitd.store.backup import copy
from orbitd.store.cache import Change
from orbitd.store.checkpointer import checkpoint_log, truncate_log
from orbitd.store.delta_chain import unpack_chain
from orbitd.store.events import NewEvent
from orbitd.store.files import BACKSTOP_PAGES, file_stamp, free_reserve, hold_reserve, size
from orbitd.store.progress import Progress
from orbitd.store.rows import (
    SESSION_COLUMNS,
    SNAPSHOTS_OF,
    DamagedRow,
    Marks,
    Stored,
    covered,
    delete_oldest_snapshots,
    delete_row,
    delete_session_row,
    execute_mending,
    find_deleted,
    find_session,
    in_workspace,
    insert_session,
    now,
    row_checksum,
    session_from_row,
    session_not_found,
    shown,
    stored_checksum,
    time_to_text,
    update_session,
    update_workspace,
)
from orbitd.store.snapshots import rows_of_session
from orbitd.store.store import Store
from orbitd.store.writer import Writer

_SLICE_SECS = 0.008
"""Time for the statements of one transaction; to write its pages takes as long again."""

_CHECKPOINT_SECS = 0.25
"""How long slices are written before what they wrote is checkpointed."""

_BULK_CHECKPOINT_PAGES = 32_768
"""How many pages the log has (128 MiB) when a commit checkpoints it while slices are written."""

_LOG_BYTES = 64 * 1024 * 1024
_BULK_LOG_BYTES = 4 * 1024 * 1024
"""What is left of the log's file when it begins again, and, of slices, by how much it may grow before a checkpoint."""

_DELETED_AT_ONCE = 200
"""Snapshots of one session that are deleted by one statement."""

_SECURE_DELETE_FAST = 2
"""What the PRAGMA returns for FAST; 0 and 1 are OFF and ON (sqlite.org/pragma.html#pragma_secure_delete)."""

_MAKE_ROOM_SECS = 5.0
"""How long free pages are returned to a full disk, while callers wait."""

_VACUUM_CHUNK = 64
"""Pages freed between two looks at the clock (256 KiB)."""

_SPARE_PAGES = 256
"""Free pages (1 MiB) that `vacuum_step` leaves in the file: the next save uses them, instead of growing it again."""

_FILL_CHUNK = 200
"""Rows that get their checksum in one transaction."""

_MOST = (1 << 63) - 1

_MAX_FINDINGS = 100
_MAX_BAD_SNAPSHOTS = 10_000
"""Damaged snapshots that a report names: an answer has a limit."""

_LARGE_BYTES = 128 * 1024 * 1024
"""Of a database whose indexes a check with a limit compares last; up to that, it takes about a second."""

_STEPS_BETWEEN_LOOKS = 100_000
"""Instructions of SQLite's virtual machine, some milliseconds, after which a statement looks at the clock."""

_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_ERROR})
"""SQLite's codes for what `check` reports; any other error is raised."""

_REWRITTEN_IN_MEMORY = 64 * 1024 * 1024
"""Of a larger database the copy that a VACUUM makes is a file without a name (sqlite.org/tempfiles.html)."""

_TRUNCATE_TRIES, _TRUNCATE_RETRY_SECS = 20, 0.1
"""How often a log is tried to be emptied that a reader needs, and how long after each other."""

_MAX_WARNINGS = 10
"""Damaged rows that `daemon.info` names; `maintenance.check` names more."""

_ROW_REMEDY = (
    "It is left out and kept as it is; `orbitctl maintenance restore BACKUP` brings a backup back, and deleting it by "
    "its id ends this warning."
)
_CHECK_REMEDY = "`orbitctl maintenance check` names all; `orbitctl maintenance restore BACKUP` brings a backup back."

_STATS = """
    SELECT
        (SELECT count(*) FROM sessions WHERE status = 'active' AND seq NOT IN ({sessions})) - trash.active,
        (SELECT count(*) FROM sessions WHERE status = 'detached' AND seq NOT IN ({sessions})) - trash.detached,
        (SELECT count(*) FROM sessions WHERE status = 'terminated' AND seq NOT IN ({sessions})) - trash.terminated,
        (SELECT count(*) FROM archived_sessions WHERE seq NOT IN ({archived_sessions})) - archived_trash.sessions,
        (SELECT count(*) FROM workspaces WHERE seq NOT IN ({workspaces})),
        hot.number + old.number - hot_trash.number - old_trash.number,
        hot.raw + old.raw - hot_trash.raw - old_trash.raw,
        hot.stored + old.stored - hot_trash.stored - old_trash.stored,
        trash.active + trash.detached + trash.terminated + archived_trash.sessions,
        (SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size())
    FROM
        (SELECT total(status = 'active') AS active, total(status = 'detached') AS detached,
            total(status = 'terminated') AS terminated
            FROM sessions WHERE deleted_at IS NOT NULL AND seq NOT IN ({sessions})) AS trash,
        (SELECT count(*) AS sessions
            FROM archived_sessions WHERE deleted_at IS NOT NULL AND seq NOT IN ({archived_sessions})) AS archived_trash,
        (SELECT {sums} FROM session_snapshots) AS hot,
        (SELECT {sums} FROM archived_snapshots) AS old,
        (SELECT {sums} FROM session_snapshots
            WHERE session_id IN (SELECT id FROM sessions WHERE deleted_at IS NOT NULL)) AS hot_trash,
        (SELECT {sums} FROM archived_snapshots
            WHERE session_id IN (SELECT id FROM archived_sessions WHERE deleted_at IS NOT NULL)) AS old_trash
"""
# The trash has few sessions, which partial indexes lead to: all are counted in indexes, and its own are subtracted.
_SUMS = "count(*) AS number, total(raw_bytes) AS raw, total(stored_bytes) AS stored"

# The index on status leads to candidates only: what is moved is decided by the row (`_ONE_TO_ARCHIVE`).
_TO_ARCHIVE = """
    SELECT seq FROM sessions
    WHERE {sound} AND status = 'terminated' AND last_active < ? AND deleted_at IS NULL
    AND (? OR workspace_id IS NULL) ORDER BY seq
"""
_ONE_TO_ARCHIVE = f"""
    SELECT {SESSION_COLUMNS} FROM sessions
    WHERE seq = ? AND +status = 'terminated' AND last_active < ? AND deleted_at IS NULL
    AND (? OR workspace_id IS NULL)
"""  # noqa: S608  # a constant of ours
# In the order of the table: what is deleted together lies on the same pages. In the order of the index, which is none,
# each page is written for each of its rows (measured with a million snapshots: 84 us a row, and 49).
_WITH_MORE_SNAPSHOTS = """
    SELECT session_id, count(*) FROM session_snapshots
    WHERE session_id NOT IN (SELECT id FROM sessions WHERE deleted_at IS NOT NULL)
    GROUP BY session_id HAVING count(*) > ? ORDER BY min(seq)
"""
# Oldest first, each with the count of its snapshots and events.
_TO_PURGE = " UNION ALL ".join(
    f"SELECT deleted_at, '{table}', seq, (SELECT count(*) FROM {snapshots} WHERE session_id = {table}.id)"  # noqa: S608
    f" + (SELECT count(*) FROM events WHERE session_id = {table}.id)"  # names of ours
    f" FROM {table} WHERE {{sound}} AND deleted_at < :before"  # names of ours
    for table, snapshots in SNAPSHOTS_OF.items()
)
_TO_PURGE = f"{_TO_PURGE} ORDER BY deleted_at, seq"
_COUNT_DELETED = (
    "SELECT (SELECT count(*) FROM sessions WHERE deleted_at IS NOT NULL)"
    " + (SELECT count(*) FROM archived_sessions WHERE deleted_at IS NOT NULL)"
)
_DELETED_LATER = " UNION ALL ".join(
    f"SELECT id FROM {table} WHERE {{sound}} AND deleted_at > :now"  # noqa: S608  # names of ours
    for table in SNAPSHOTS_OF
)
_ARCHIVED = f"""
    SELECT {SESSION_COLUMNS} FROM archived_sessions WHERE seq = (SELECT seq FROM archived_sessions WHERE id = ?)
"""  # noqa: S608  # a constant of ours


_BACKUP = "backup "
_BACKUP_KEYS = (_BACKUP, "backup!")
"""How keys in `meta` begin that name the files of backups, and the range of those."""

_REMEMBER_BACKUP = "INSERT OR REPLACE INTO meta VALUES (?, ?)"
_FORGET_BACKUPS = (
    "DELETE FROM meta WHERE key IN (SELECT key FROM meta WHERE key >= ? AND key < ?"
    " ORDER BY value DESC LIMIT -1 OFFSET 1000)"
)
"""Of more than that the oldest are forgotten."""

# The length is of what has held something that was shown: not of what an earlier `forget_shown` has left, a blank
# screen and the events of it, else one that finds nothing more would say that it has erased that.
_SHOWN = """
    SELECT count(*), total(length) FROM (
        SELECT iif(buffer_bytes > 0, stored_bytes, 0) AS length FROM session_snapshots
            WHERE session_id = :id AND seq < CASE :newest
            WHEN 1 THEN (SELECT max(seq) FROM session_snapshots WHERE session_id = :id) ELSE seq + 1 END
        UNION ALL SELECT iif(buffer_bytes > 0, stored_bytes, 0) FROM archived_snapshots WHERE session_id = :id
        UNION ALL SELECT iif(kind IN ('snapshot.saved', 'session.updated'), 0, size) FROM events
            WHERE session_id = :id AND at < :before
    )
"""

T = TypeVar("T")

log = logging.getLogger("orbitd.store")


class _Written(Protocol):
    """What is called after each slice."""

    async def __call__(self, *, checkpoint: bool = False) -> None:
        """Checkpoint the log if it is time, or at once."""


class MaintenanceMethods:
    """Auto-save, cleanup, archive, vacuum, check, backup and statistics."""

    _store: Store
    live_fields: Callable[[str], Mapping[str, object]]

    on_purged: Callable[[], None] = staticmethod(lambda: None)
    """Called when sessions are gone for good, whose files may be left (`list_purged`); set by the daemon."""

    async def auto_save_sessions(self) -> int:
        """Write the touches that are in memory only, if there are any; return how many sessions that were."""
        store, moment = self._store, now()
        touches = dict(store.cache.touched)  # a copy: sessions are touched while this is written

        def work(connection: sqlite3.Connection) -> int:
            saved = 0
            for session_id, touched in touches.items():
                try:
                    stored = find_session(connection, session_id)
                except (SessionNotFound, DamagedRow):
                    continue
                # Another transaction may have written a later time since.
                if touched > stored.item.last_active:
                    update_session(connection, Stored(stored.seq, replace(stored.item, last_active=touched)))
                saved += 1
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('last_auto_save_at', ?)", (time_to_text(moment),))
            return saved

        def on_commit(saved: int) -> int:
            store.cache.forget_touches(touches)
            return saved

        saved = await store.run(work, on_commit) if touches else 0
        store.last_auto_save_at = moment
        return saved

    async def cleanup_old_snapshots(self, keep_last_n: int, progress: Progress | None = None) -> int:
        """Delete all but the newest snapshots of each session; return how many. Raises: InvalidParams."""
        if keep_last_n < 1:
            raise InvalidParams("`keep_last_n` must be 1 or more")
        rows = await self._store.readers.fetch_all(_WITH_MORE_SNAPSHOTS, (keep_last_n,))

        def work(connection: sqlite3.Connection, session_id: str) -> Change[int]:
            # No other row is rewritten: snapshots depend on newer ones only (`delta_chain`), and the oldest go first.
            deleted = execute_mending(
                connection,
                "session_snapshots",
                "DELETE FROM session_snapshots WHERE seq IN (SELECT seq FROM session_snapshots WHERE session_id = :id"
                " AND seq <= (SELECT seq FROM session_snapshots WHERE session_id = :id ORDER BY seq DESC LIMIT 1"
                " OFFSET :keep) ORDER BY seq LIMIT :most)",
                {"id": session_id, "keep": keep_last_n, "most": _DELETED_AT_ONCE},
            )
            return Change(result=deleted)

        # A session that has many too many comes once for each statement.
        items = [session_id for session_id, count in rows for _ in range(0, count - keep_last_n, _DELETED_AT_ONCE)]
        return await self._write_in_slices(items, work, "sessions", progress)

    async def archive_sessions(
        self, terminated_before: datetime, progress: Progress | None = None, *, of_workspaces: bool = True
    ) -> int:
        """Archive terminated sessions that were last active before a moment; return how many.

        Args:
            terminated_before: The moment.
            progress: Is told how far it is.
            of_workspaces: Whether those that belong to a workspace are archived, too.

        Raises:
            InvalidParams: The moment has no time zone.
        """
        if terminated_before.tzinfo is None:
            raise InvalidParams("`terminated_before` must have a time zone")
        before = time_to_text(terminated_before)
        rows = await self._store.fetch(("sessions",), _TO_ARCHIVE, (before, of_workspaces))

        def work(connection: sqlite3.Connection, seq: int) -> Change[int]:
            # One that cannot be moved as it is, as a row of its or of a snapshot's is damaged, stays.
            connection.execute("SAVEPOINT archive")
            try:
                row = connection.execute(_ONE_TO_ARCHIVE, (seq, before, of_workspaces)).fetchone()
                if row is None:  # it was started again, or deleted, since it was found
                    return Change(result=0)
                stored = session_from_row(row)
                left = sessions.leave_front(connection, stored.item.id)
                archived = _move_to_archive(connection, stored)
            except (DamagedRow, sqlite3.DatabaseError) as error:
                if isinstance(error, sqlite3.OperationalError):
                    raise  # of the disk, not of a row
                connection.execute("ROLLBACK TO archive")
                event(log, logging.WARNING, "session not archived", row=seq, error=type(error).__name__)
                return Change(result=0)
            finally:
                if connection.in_transaction:  # an error of the disk may have rolled everything back
                    connection.execute("RELEASE archive")
            recorded = [events.of_session("session.archived", archived)]
            recorded += (events.of_workspace("workspace.updated", each.item) for each in left)
            return Change(result=1, gone_sessions=(stored.item.id,), workspaces=tuple(left), events=tuple(recorded))

        return await self._write_in_slices([seq for (seq,) in rows], work, "sessions", progress)

    async def purge_deleted(self, before: datetime | None = None, progress: Progress | None = None) -> int:
        """Delete for good what was put into the trash before a moment, or all of it; return how many sessions.

        A row that cannot be read stays, as everywhere.
        """
        moment = "~" if before is None else time_to_text(before)
        rows = await self._store.fetch(tuple(SNAPSHOTS_OF), _TO_PURGE, {"before": moment})

        def work(connection: sqlite3.Connection, item: tuple[str, int]) -> Change[int]:
            table, seq = item
            query = f"SELECT {SESSION_COLUMNS} FROM {table} WHERE seq = ? AND deleted_at < ?"  # noqa: S608  # ours
            try:
                row = connection.execute(query, (seq, moment)).fetchone()
                if row is None:  # it was taken out of the trash since, or is gone
                    return Change(result=0)
                session = session_from_row(row, table).item
            except DamagedRow:
                return Change(result=0)
            # What is left of a purge that is stopped in between can be taken out of the trash.
            deleted = delete_oldest_snapshots(connection, session.id, table, _DELETED_AT_ONCE)
            dropped = events.drop_of_session(connection, session.id, _DELETED_AT_ONCE)
            if _DELETED_AT_ONCE in (deleted, dropped):
                return Change(result=0)
            delete_row(connection, table, seq)
            sessions.note_purged(connection, session.id)
            return Change(result=1, events=events.purge_session(connection, session.id, session))

        # A session that has many comes once for each statement.
        items = [(table, seq) for _, table, seq, count in rows for _ in range(count // _DELETED_AT_ONCE + 1)]
        purged = await self._write_in_slices(items, work, "sessions", progress)
        if purged:
            event(log, logging.INFO, "deleted sessions purged", sessions=purged)
            self.on_purged()
        return purged

    async def purge_expired(self, retention_secs: int) -> int:
        """Delete for good what has been in the trash for so long; return how many sessions."""
        moment = now()
        ahead = await self._store.fetch(tuple(SNAPSHOTS_OF), _DELETED_LATER, {"now": time_to_text(moment)})

        def work(connection: sqlite3.Connection, session_id: str) -> Change[int]:
            with contextlib.suppress(DamagedRow):
                found = find_deleted(connection, session_id)
                if found is not None:
                    table, stored = found
                    update_session(connection, Stored(stored.seq, replace(stored.item, deleted_at=moment)), table)
            return Change(result=0)

        # The clock was ahead when these were deleted: they would stay until that time comes. They stay as long as
        # those that are deleted now.
        await self._write_in_slices([session_id for (session_id,) in ahead], work, "sessions", None)
        purged = await self.purge_deleted(moment - timedelta(seconds=retention_secs))
        change_reserve = hold_reserve if await self._count_deleted() else free_reserve
        await self._store.in_pool(partial(change_reserve, self._store.path))
        return purged

    async def _count_deleted(self) -> int:
        row = await self._store.readers.fetch_one(_COUNT_DELETED)
        return 0 if row is None else int(row[0])

    async def make_room(self) -> bool:
        """Empty the trash, since the disk is full; return whether that may have made room."""
        store = self._store
        rounds = store.trash_emptied
        async with store.room_lock:
            if store.trash_emptied != rounds:  # by another caller, meanwhile
                return True
            before = await self._count_deleted()
            if not before:
                return False
            await store.in_pool(partial(free_reserve, store.path))
            # Builds of SQLite whose default it is write zeros to each page that becomes free, and so to the log.
            secure_delete = await store.writer.run(partial(_set_secure_delete, value="FAST"), lambda before: before)
            # A checkpoint would let the database grow, for pages that are free and about to go.
            store.is_making_room = True
            try:
                with contextlib.suppress(OrbitError):  # the caller's own error says more
                    await self.purge_deleted()
                purged = before - await self._count_deleted()
                if not purged:
                    return False
                store.trash_emptied += 1
                event(log, logging.WARNING, "disk is full, trash emptied", database=store.path, sessions=purged)
                # The pages that are free now serve the database alone: its log, and journals, need room on the disk.
                with contextlib.suppress(OrbitError, TimeoutError):
                    async with asyncio.timeout(_MAKE_ROOM_SECS):
                        await self.vacuum()
                return True
            finally:
                store.is_making_room = False
                restore = partial(_set_secure_delete, value=secure_delete)
                await asyncio.shield(store.writer.run(restore, lambda _: None))

    async def archive_ended(self, retention_secs: int) -> int:
        """Archive terminated sessions that were last active so long ago, and are of no workspace; return how many.

        What is parked in a workspace is opened again, however long that takes.
        """
        archived = await self.archive_sessions(now() - timedelta(seconds=retention_secs), of_workspaces=False)
        if archived:
            event(log, logging.INFO, "ended sessions archived", sessions=archived)
        return archived

    async def _write_in_slices(
        self,
        items: Sequence[T],
        work: Callable[[sqlite3.Connection, T], Change[int]],
        what: str,
        progress: Progress | None,
    ) -> int:
        """Do the work of each item, in transactions that are so short that other callers wait little.

        Returns:
            The sum of the results.
        """
        if not items:
            return 0
        progress = progress or Progress()

        def write_slice(connection: sqlite3.Connection, start: int) -> Change[tuple[int, int]]:
            end = time.monotonic() + _SLICE_SECS
            result, place = 0, start
            gone: list[str] = []
            recorded: list[NewEvent] = []
            changed: dict[int, Stored[Workspace]] = {}
            for place in range(start, len(items)):
                change = work(connection, items[place])
                result += change.result
                gone += change.gone_sessions
                recorded += change.events
                changed.update((each.seq, each) for each in change.workspaces)
                if time.monotonic() >= end:
                    break
            return Change(
                result=(result, place + 1),
                gone_sessions=tuple(gone),
                workspaces=tuple(changed.values()),
                events=tuple(recorded),
            )

        total = done = 0
        async with self._bulk() as written:
            while done < len(items):
                progress.report(what, done, len(items))
                result, done = await self._write_slice(partial(write_slice, start=done), written)
                total += result
        return total

    async def _write_slice(self, work: Callable[[sqlite3.Connection], Change[T]], written: _Written) -> T:
        """Write one slice, once more where there was no room for it."""
        try:
            result = await self._store.write_once(work)
        except StorageFull:
            # It may be the log that has no room to grow, and what is deleted here makes room.
            await written(checkpoint=True)
            result = await self._store.write_once(work)
        await written()
        return result

    @contextlib.asynccontextmanager
    async def _bulk(self) -> AsyncIterator[_Written]:
        """Let no commit checkpoint the log; what is yielded is called after each, and does it aside, now and then.

        A commit that finds `BACKSTOP_PAGES` in the log writes them to the database, syncs it, and everybody waits. One
        that finds eight times as many writes those once that were changed again and again (measured with a million
        snapshots: half the time of a cleanup), so nobody but the caller should wait for that. The log's file takes
        little more room than usual, as the disk may be nearly full.
        """
        store, begun, log_file = self._store, time.monotonic(), f"{self._store.path}-wal"
        length: int | None = None  # the file's after the first slice of the log: by then it was shortened

        async def written(*, checkpoint: bool = False) -> None:
            nonlocal begun, length
            now_long = size(log_file)
            length = now_long if length is None else length
            is_time = time.monotonic() - begun >= _CHECKPOINT_SECS or now_long - length >= _BULK_LOG_BYTES
            if checkpoint or (is_time and not store.is_making_room):
                # One that finds no room to let the database grow leaves all in the log, for a later one.
                with contextlib.suppress(StorageFull):
                    await store.in_checkpoint_thread(checkpoint_log)
                    # The log begins again only where nothing of it is left to write to the database, and others have
                    # written meanwhile. In the writer's thread nobody does; there is little left, and it is quick.
                    await store.writer.run(checkpoint_log, lambda _: None, alone=True)
                begun, length = time.monotonic(), None

        store.bulk_writers += 1
        try:
            await self._checkpoint_at(_BULK_CHECKPOINT_PAGES, _BULK_LOG_BYTES)
            yield written
            if not store.is_making_room:
                await written(checkpoint=True)
        except BaseException:  # a caller that has gone too: what was written is not left to the next commit
            with contextlib.suppress(OrbitError):  # ShuttingDown
                await asyncio.shield(written(checkpoint=True))
            raise
        finally:
            store.bulk_writers -= 1
            if not store.bulk_writers:
                with contextlib.suppress(OrbitError):  # as above
                    await asyncio.shield(self._checkpoint_at(BACKSTOP_PAGES, _LOG_BYTES))

    async def _checkpoint_at(self, pages: int, left_bytes: int) -> None:
        """Have commits checkpoint the log where it has so many pages; of its file so much is left when it begins."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(f"PRAGMA wal_autocheckpoint = {pages:d}").fetchall()
            connection.execute(f"PRAGMA journal_size_limit = {left_bytes:d}").fetchall()

        await self._store.writer.run(work, lambda _: None)

    async def restore_archived_session(self, session_id: str) -> Session:
        """Restore an archived session as terminated, out of its workspace if that is gone. Raises: SessionNotFound."""

        def work(connection: sqlite3.Connection) -> Change[Session]:
            row = connection.execute(_ARCHIVED, (session_id,)).fetchone()
            if row is None:
                find_session(connection, session_id)
                raise SessionNotFound(f"Session {session_id} is not archived", hint="It is where it should be.")
            stored = session_from_row(row, "archived_sessions")
            if stored.item.deleted_at is not None:
                raise session_not_found(session_id)
            session = replace(stored.item, status="terminated")
            workspace = connection.execute("SELECT 1 FROM workspaces WHERE id = ?", (session.workspace_id,)).fetchone()
            if workspace is None:
                session = in_workspace(session, None)
            recorded = events.of_session("session.restored", session)
            return sessions.move_from_archive(connection, Stored(stored.seq, session), recorded)

        return await self._store.change_session(work)

    async def forget_shown(
        self, session_id: str, before: datetime, *, keep_newest: bool, marks: bool, progress: Progress
    ) -> int:
        """Delete what a session has shown out of the database: its snapshots, and its events before a moment.

        `rewrite` then removes what is left of it in pages that are free.

        Args:
            session_id: The session.
            before: The moment.
            keep_newest: The newest snapshot stays.
            marks: Title, folder, and the marks of what its program has said go too.
            progress: Reports how far it is.

        Returns:
            How many stored bytes held something that was shown.

        Raises:
            SessionNotFound: There is no such session.
        """
        live = self.live_fields(session_id)
        sums = {"id": session_id, "before": time_to_text(before), "newest": int(keep_newest)}
        row = await self._store.readers.fetch_one(_SHOWN, sums)
        assert row is not None
        count, length = int(row[0]), int(row[1])
        secure_delete = await self._store.writer.run(partial(_set_secure_delete, value="ON"), lambda before: before)
        try:
            async with self._store.chain_lock(session_id):
                # As many times as there are pieces, and once more for what came since they were counted.
                steps = range(count // _DELETED_AT_ONCE + 2)
                await self._write_in_slices(steps, lambda one, _: _forget_some(one, sums), "rows", progress)
            if marks:
                await self._store.write(partial(_forget_marks, session_id=session_id, live=live))
        finally:
            restore = partial(_set_secure_delete, value=secure_delete)
            await asyncio.shield(self._store.writer.run(restore, lambda _: None))
        await self._store.recheck_damaged()
        return length

    async def has_said_since(self, session_id: str, kind: str, moment: datetime) -> bool:
        """Return whether an event of a session is stored that is of a kind and not older than a moment."""
        query = "SELECT 1 FROM events WHERE session_id = ? AND kind = ? AND at >= ? LIMIT 1"
        return await self._store.readers.fetch_one(query, (session_id, kind, time_to_text(moment))) is not None

    async def rewrite(self, progress: Progress) -> bool:
        """Write the whole database again (VACUUM), and empty its log: nothing that was deleted is left in free pages.

        Others wait meanwhile that write. A cancelled call ends it, and nothing has changed.

        Returns:
            Whether the log could be emptied: not while a reader needs it that stays.
        """
        progress.report("database")
        running = asyncio.ensure_future(
            self._store.writer.run(partial(rewrite_database, progress=progress), lambda _: None, alone=True)
        )
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            progress.cancel()
            raise
        return await empty_log(self._store.writer)

    async def backups(self) -> list[str]:
        """Return the paths of the backups that were written on request, as far as they are remembered."""
        rows = await self._store.readers.fetch_all("SELECT key FROM meta WHERE key >= ? AND key < ?", _BACKUP_KEYS)
        return [os.fsdecode(bytes.fromhex(str(key).removeprefix(_BACKUP))) for (key,) in rows]

    async def vacuum(self, progress: Progress | None = None) -> int:
        """Return all free pages to the file system; return how many bytes those were."""
        progress = progress or Progress()
        row = await self._store.readers.fetch_one("PRAGMA freelist_count")
        total = 0 if row is None else row[0]
        if not total:
            return 0
        freed = pages = 0
        async with self._bulk() as written:
            while True:
                progress.report("pages", pages, max(pages, total))
                bytes_freed, count = await self._write_slice(partial(_vacuum, most=_MOST), written)
                if not count:
                    break
                freed, pages = freed + bytes_freed, pages + count
        if freed:
            # A checkpoint fails inside a transaction (SQLITE_LOCKED), hence `alone`.
            await self._store.writer.run(truncate_log, lambda _: None, alone=True)
        return freed

    async def vacuum_step(self) -> int:
        """Return some free pages to the file system if no write waits; return how many bytes those were."""
        row = await self._store.readers.fetch_one("PRAGMA freelist_count")
        spare = 0 if row is None else row[0] - _SPARE_PAGES
        if spare <= 0 or not self._store.writer.is_idle:
            return 0
        freed, _ = await self._store.write(partial(_vacuum, most=spare))
        return freed

    async def check(self, limit_secs: float | None = None, progress: Progress | None = None) -> CheckReport:
        """Check the structure of the database, its references, every row, and the bytes of every snapshot.

        Args:
            limit_secs: How long it may take, and how long it may wait before for other long work; the report then says
                whether it is of everything.
            progress: Reports how far it is.

        Raises:
            Busy: Other checks and backups did not let it begin in that time.
        """
        store, progress = self._store, progress or Progress()
        check = _Check(progress, self._check_closing, limit_secs)
        report = await store.readers.run_in_thread(check.run, progress, wait_secs=limit_secs)
        await self._take_over(check.verified, is_all=check.has_verified_rows)
        # As they are now: a row that was deleted meanwhile is not named.
        rows = store.damage.sentences()
        report = replace(report, rows=rows, ok=report.ok and not rows)
        # What was found before is known until a whole check does not find it.
        if report.complete or store.last_check is None:
            store.last_check = report
        else:
            store.last_check = _with_more(store.last_check, report)
        return report

    async def verify_rows(self) -> None:
        """Look at every row once, and fill in the checksums that rows of an earlier Orbit have not.

        What cannot be read is named by `damage_warnings`. Names become NFC, but for one that is taken then.
        """
        work = partial(damage.verify_rows, look=lambda _: self._check_closing())
        unfilled = await self._take_over(await self._store.readers.run_in_thread(work))
        unusual: set[str] = set()
        for start in range(0, len(unfilled), _FILL_CHUNK):
            taken: set[str] = await self._store.write(partial(_fill, rows=unfilled[start : start + _FILL_CHUNK]))
            unusual |= taken
        self._store.unusual = frozenset(unusual)

    def has_damage(self) -> bool:
        """Return whether anything is known to be damaged."""
        report = self._store.last_check
        found = report is not None and (report.integrity or report.foreign_keys or report.snapshots)
        return bool(found or self._store.damage.sentences())

    def damage_warnings(self) -> list[str]:
        """Return sentences about damage, as far as it is known, each with its remedy."""
        store = self._store
        rows = store.damage.sentences()
        shown = [f"Damage in the database, {each}. {_ROW_REMEDY}" for each in rows[:_MAX_WARNINGS]]
        if len(rows) > _MAX_WARNINGS:
            shown.append(f"{len(rows) - _MAX_WARNINGS} more rows are damaged: `orbitctl maintenance check` names them.")
        report = store.last_check
        if report is not None and (other := [*report.integrity, *report.foreign_keys]):
            shown.append(f"Damage in the database, {len(other)} findings, the first: {other[0]}. {_CHECK_REMEDY}")
        if report is not None and report.snapshots:
            shown.append(
                f"{len(report.snapshots)} snapshots are damaged, the first: {report.snapshots[0]}. {_CHECK_REMEDY}"
            )
        return shown + [
            f"The name {name!r} of {kind} {item_id} is written in another way than usual (not in NFC), and another one "
            "has it in the usual way: rename one of them."
            for kind, item_id, name in store.unusual_names()
        ]

    async def _take_over(self, verified: damage.Verified, *, is_all: bool = True) -> list[tuple[str, int]]:
        """Replace what is known of damaged rows by what a pass found; return the rows that want a checksum or name.

        Of a pass that has not looked at all rows, what it found is added.
        """
        known = self._store.damage
        for error in known if is_all else ():
            known.forget(error)
        for error in verified.damaged:
            known.add(error)
        await self._store.recheck_damaged()  # some may have been deleted since they were read
        return verified.unfilled

    def _check_closing(self) -> None:
        """Raise ShuttingDown once the store is being closed: interrupting a connection ends one statement only."""
        if self._store.readers.closing.is_set():
            raise ShuttingDown("The store is being closed")

    def reserve(self, paths: Sequence[str]) -> None:
        """Have no backup written to these files, nor into these folders; they need not exist."""
        self._store.reserved = tuple(paths)

    def new_file(self, path: str) -> str:
        """Return the path, without links, of a file that is to be written: none of Orbit's own, and nothing is in it.

        Raises:
            InvalidParams: It is no place for a file.
        """
        return copy.check_new_file(path, self._store.path, self._store.reserved)

    async def backup(self, path: str, *, automatic: bool = False, progress: Progress | None = None) -> BackupResult:
        """Write a consistent copy of the database, mode 0600, while it is in use; an earlier one at `path` is replaced.

        Args:
            path: The file, absolute.
            automatic: It is one of the daily backups.
            progress: Reports how far it is.

        Raises:
            InvalidParams: `path` is no place for a file, or one of Orbit's own, or what is there is no backup.
            StorageFull: There is no room for it.
            StorageReadOnly: The folder cannot be written.
        """
        store, shared = self._store, progress or Progress()

        def report(what: str, done: int, total: int) -> None:
            self._check_closing()
            shared.report(what, done, total)

        def work(connection: sqlite3.Connection) -> int:
            copy.make_own_folder(path, store.path)
            target = copy.check_target(path, store.path, store.reserved, automatic=automatic)
            return copy.write(connection, target, report)

        length = await store.readers.run_in_thread(work, shared)
        if not automatic:
            with contextlib.suppress(OrbitError):  # the backup is there all the same
                await store.run(partial(_remember_backup, path=path), lambda _: None)
        text, path_bytes = path_and_bytes(path)
        return BackupResult(path=text, path_bytes=path_bytes, bytes=length)

    async def require_backup_target(self, path: str) -> None:
        """Raise InvalidParams for a path that is no place for a backup; see `backup`."""
        store = self._store

        def work() -> None:
            copy.make_own_folder(path, store.path)
            copy.check_target(path, store.path, store.reserved, automatic=False)

        await store.in_pool(work)

    async def fingerprint(self) -> bytes:
        """Return a digest of all rows; a backup with the same one is current."""
        return await self._store.readers.run_in_thread(copy.fingerprint)

    async def get_stats(self) -> SessionStats:
        """Count sessions, workspaces and snapshots, and measure the database.

        What is known to be damaged is not counted, and what is in the trash only as `deleted_sessions`.
        """
        damaged = {table: ", ".join(map(str, self._store.damage.seqs(table))) for table in damage.WITH_NAMES}
        row = await self._store.readers.fetch_one(_STATS.format(sums=_SUMS, **damaged))
        assert row is not None
        # A sum of sizes is infinite where a damaged row has such a size.
        counts = [int(max(0, min(number or 0, _MOST))) for number in row]
        active, detached, terminated, archived, workspaces, snapshots, raw, stored, deleted, database = counts
        return SessionStats(
            total_sessions=active + detached + terminated + archived,
            active_sessions=active,
            detached_sessions=detached,
            terminated_sessions=terminated,
            archived_sessions=archived,
            deleted_sessions=deleted,
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

    def is_database_in_place(self) -> bool:
        """Return whether the database that is open is still at its path."""
        try:
            self._store.file_watch.check()
        except StorageError:
            return False
        return True

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
        await store.recheck_damaged()
        store.file_watch.check()  # again, for an error that names the copy
        if store.writer.last_storage_error is not None:

            def write_something(connection: sqlite3.Connection) -> None:
                connection.execute("INSERT OR REPLACE INTO meta VALUES ('last_trouble_at', ?)", (time_to_text(now()),))

            await store.writer.run(write_something, lambda _: None)


def _remember_backup(connection: sqlite3.Connection, path: str) -> None:
    """Remember where a backup lies: what is forgotten later is still in it (`history.forget`)."""
    connection.execute(_REMEMBER_BACKUP, (f"{_BACKUP}{os.fsencode(os.path.realpath(path)).hex()}", time_to_text(now())))
    connection.execute(_FORGET_BACKUPS, _BACKUP_KEYS)


def _with_more(known: CheckReport, found: CheckReport) -> CheckReport:
    """Return what is known of damage with what a check has found that did not look at everything."""
    return replace(
        known,
        ok=known.ok and found.ok,
        integrity=list(dict.fromkeys([*known.integrity, *found.integrity])),
        foreign_keys=list(dict.fromkeys([*known.foreign_keys, *found.foreign_keys])),
        snapshots=list(dict.fromkeys([*known.snapshots, *found.snapshots])),
        more_snapshots=max(known.more_snapshots, found.more_snapshots),
        rows=found.rows,
    )


def _vacuum(connection: sqlite3.Connection, most: int) -> Change[tuple[int, int]]:
    """Remove free pages, at most so many, for the time of a slice; return how many bytes and pages those were."""
    end = time.monotonic() + _SLICE_SECS
    (page_size,) = connection.execute("PRAGMA page_size").fetchone()
    (before,) = connection.execute("PRAGMA page_count").fetchone()
    after = before
    while (left := min(_VACUUM_CHUNK, most - (before - after))) > 0:
        # One by one: each step of the statement frees one page, and the sqlite3 module takes no second step of a
        # statement that has no columns.
        for _ in range(left):
            connection.execute("PRAGMA incremental_vacuum(1)")
        last, (after,) = after, connection.execute("PRAGMA page_count").fetchone()
        if after == last or time.monotonic() >= end:
            break
    return Change(result=((before - after) * page_size, before - after))


def _forget_some(connection: sqlite3.Connection, sums: dict[str, Any]) -> Change[int]:
    """Delete some of the snapshots and events of `forget_shown`; return how many."""
    forgotten = 0
    for snapshots in SNAPSHOTS_OF.values():
        forgotten += execute_mending(
            connection,
            snapshots,
            f"DELETE FROM {snapshots} WHERE seq IN (SELECT seq FROM {snapshots} WHERE session_id = :id AND seq < "  # noqa: S608  # ours
            f"CASE :newest WHEN 1 THEN (SELECT max(seq) FROM {snapshots} WHERE session_id = :id) ELSE {_MOST} END "
            f"ORDER BY seq LIMIT {_DELETED_AT_ONCE})",
            sums,
        )
    forgotten += execute_mending(
        connection,
        "events",
        "DELETE FROM events WHERE seq IN (SELECT seq FROM events WHERE session_id = :id AND at < :before"  # noqa: S608  # ours
        f" ORDER BY seq LIMIT {_DELETED_AT_ONCE})",
        sums,
    )
    return Change(result=forgotten)


def _forget_marks(connection: sqlite3.Connection, session_id: str, live: Mapping[str, object]) -> Change[None]:
    """Clear title, folder and marks of a session, which may be archived. Raises: SessionNotFound."""
    row = connection.execute(_ARCHIVED, (session_id,)).fetchone()
    table = "sessions" if row is None else "archived_sessions"
    stored = find_session(connection, session_id) if row is None else session_from_row(row, table)
    cleared: dict[str, Any] = structs.asdict(Marks())
    session = replace(stored.item, **cleared, title=None, cwd=None, cwd_bytes=UNSET)
    new = Stored(stored.seq, session)
    update_session(connection, new, table)
    # What the caller saw of its program before may be what is to be forgotten.
    now_live = {field: value for field, value in live.items() if field not in cleared and field != "title"}
    recorded = (events.of_session("session.updated", session, now_live),)
    return Change(result=None, sessions=(new,) if table == "sessions" else (), events=recorded)


def rewrite_database(connection: sqlite3.Connection, progress: Progress) -> None:
    """Write a database again without a rest of what was deleted, in the writer's thread. Raises: Cancelled."""
    secure_delete = _set_secure_delete(connection, "ON")
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (page_size,) = connection.execute("PRAGMA page_size").fetchone()
    (store,) = connection.execute("PRAGMA temp_store").fetchone()
    if pages * page_size > _REWRITTEN_IN_MEMORY:
        connection.execute("PRAGMA temp_store = FILE")
    connection.set_progress_handler(lambda: progress.is_cancelled, _STEPS_BETWEEN_LOOKS)
    try:
        connection.execute("VACUUM")
    except sqlite3.OperationalError:
        progress.report("database")  # interrupted, if the caller has gone
        raise
    finally:
        connection.set_progress_handler(None, 0)
        connection.execute(f"PRAGMA temp_store = {store:d}")
        _set_secure_delete(connection, secure_delete)


async def empty_log(writer: Writer) -> bool:
    """Empty the log of a writer's database; return False where a reader needs it that stays."""
    for _ in range(_TRUNCATE_TRIES):
        if await writer.run(_truncate_log, lambda done: done, alone=True):
            return True
        await asyncio.sleep(_TRUNCATE_RETRY_SECS)  # a reader that is about to end
    return False


def _truncate_log(connection: sqlite3.Connection) -> bool:
    """Write the whole log into the database and make its file empty; return False while a reader needs it."""
    (timeout,) = connection.execute("PRAGMA busy_timeout").fetchone()
    connection.execute("PRAGMA busy_timeout = 0").fetchall()
    try:
        (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy
    finally:
        connection.execute(f"PRAGMA busy_timeout = {timeout:d}").fetchall()


def _set_secure_delete(connection: sqlite3.Connection, value: str) -> str:
    """Set `PRAGMA secure_delete`; return what it was, as it is set again."""
    (before,) = connection.execute("PRAGMA secure_delete").fetchone()
    connection.execute(f"PRAGMA secure_delete = {value}").fetchall()
    return "FAST" if before == _SECURE_DELETE_FAST else str(before)


def _move_to_archive(connection: sqlite3.Connection, stored: Stored[Session]) -> Session:
    archived = replace(stored.item, status="archived")
    insert_session(connection, Stored(stored.seq, archived), "archived_sessions")
    # Copied before the session is deleted: its snapshots go with it by the foreign key.
    connection.execute(
        "INSERT INTO archived_snapshots SELECT * FROM session_snapshots WHERE session_id = ?", (stored.item.id,)
    )
    delete_session_row(connection, stored.seq, stored.item.id)
    return archived


def _fill(connection: sqlite3.Connection, rows: list[tuple[str, int]]) -> Change[set[str]]:
    """Write the checksums of rows that have none, and names in NFC; return the ids of those whose name is taken then.

    What is damaged or gone meanwhile is left out.
    """
    unusual: set[str] = set()
    recorded: list[NewEvent] = []
    changed: dict[str, list[Stored[Any]]] = {"sessions": [], "workspaces": []}
    for table, seq in rows:
        columns, decode = damage.TABLES[table]
        row = connection.execute(f"SELECT {columns} FROM {table} WHERE seq = ?", (seq,)).fetchone()  # noqa: S608  # ours
        try:
            stored = None if row is None else decode(row)
        except DamagedRow:
            continue
        if stored is None:
            continue
        name = stored.item.name and validation.normalized(stored.item.name)
        is_taken = name != stored.item.name and _is_taken(connection, table, stored.item, name)
        if is_taken:
            unusual.add(stored.item.id)
        if name != stored.item.name and not is_taken:
            renamed = Stored(stored.seq, replace(stored.item, name=name))
            if table == "workspaces":
                update_workspace(connection, renamed)
                recorded.append(events.of_workspace("workspace.updated", renamed.item))
            else:
                update_session(connection, renamed, table)
                if renamed.item.deleted_at is None:
                    recorded.append(events.of_session("session.updated", renamed.item))
            if table in changed:
                changed[table].append(renamed)
        elif stored_checksum(row, table) is None:
            query = f"UPDATE {table} SET checksum = ? WHERE seq = ?"  # noqa: S608  # a name of ours
            connection.execute(query, (row_checksum(covered(row, table)), seq))
    return Change(
        result=unusual,
        sessions=tuple(changed["sessions"]),
        workspaces=tuple(changed["workspaces"]),
        events=tuple(recorded),
    )


def _is_taken(connection: sqlite3.Connection, table: str, item: Session | Workspace, name: str) -> bool:
    """Return whether another one has the name that this one would get."""
    try:
        if isinstance(item, Workspace):
            workspaces.refuse_taken_name(connection, name, item.id)
        elif item.status in ("active", "detached") and item.deleted_at is None:
            sessions.refuse_taken_name(connection, name, item.id)
    except NameTaken:
        return True
    return False


class _TimeIsOver(Exception):
    """A check has looked for as long as it may."""


class _Check:
    """A check of the whole database, in a thread.

    Args:
        progress: Reports how far it is.
        check_closing: Raises where the store is being closed.
        limit_secs: How long it may take.

    Attributes:
        verified: What the pass over the rows found.
        has_verified_rows: Whether it has come to the end.
    """

    def __init__(self, progress: Progress, check_closing: Callable[[], None], limit_secs: float | None) -> None:
        self._progress = progress
        self._check_closing = check_closing
        self._limit_secs = limit_secs
        self._deadline = math.inf
        self.verified = damage.Verified(damaged=[], unfilled=[])
        self.has_verified_rows = False
        self._snapshots: list[str] = []
        self._checked = self._total = self._more = 0

    def run(self, connection: sqlite3.Connection) -> CheckReport:
        """Check everything, or for as long as it may; what cannot be looked at stops no other check."""
        if self._limit_secs is not None:
            self._deadline = time.monotonic() + self._limit_secs
        integrity: list[str] = []
        references: list[str] = []
        failures: list[str] = []
        checks: list[tuple[str, Callable[[sqlite3.Connection], Iterator[str]], list[str]]] = [
            ("integrity", partial(_structural_errors, "integrity_check"), integrity),
            ("references", _dangling_references, references),
            ("rows", self._verify_rows, integrity),
            ("snapshots", self._bad_snapshots, self._snapshots),
        ]
        if self._limit_secs is not None and _is_large(connection):
            # Each entry of an index is compared with its row last: that takes most of the time of an integrity check.
            checks = [("structure", partial(_structural_errors, "quick_check"), integrity), *checks[1:], checks[0]]
        complete = True
        if self._limit_secs is not None:  # a statement that takes long ends too (SQLITE_INTERRUPT)
            connection.set_progress_handler(lambda: time.monotonic() >= self._deadline, _STEPS_BETWEEN_LOOKS)
        try:
            for name, check, findings in checks:
                self._look(name)
                try:
                    findings.extend(check(connection))
                except sqlite3.DatabaseError as error:  # too damaged for this check to go on; the others may still work
                    self._look(name)
                    # An error of the sqlite3 module itself has no code. Others are no damage: `Readers` stopped it
                    # (SQLITE_INTERRUPT), or there is no descriptor left (SQLITE_CANTOPEN).
                    if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF not in _DAMAGE:
                        raise
                    failures.append(f"{name}: {error}")
        except _TimeIsOver:
            complete = False
        integrity = list(dict.fromkeys([*integrity, *failures]))  # of both looks at the structure
        return CheckReport(
            ok=not integrity and not references and not self._snapshots,
            integrity=integrity,
            foreign_keys=references,
            snapshots=self._snapshots,
            complete=complete,
            checked_snapshots=self._checked,
            total_snapshots=self._total,
            more_snapshots=self._more,
        )

    def _look(self, what: str, done: int = 0, total: int = 0) -> None:
        """Report how far the check is. Raises: _TimeIsOver, Cancelled, ShuttingDown."""
        self._check_closing()
        self._progress.report(what, done, total)
        if time.monotonic() >= self._deadline:
            raise _TimeIsOver

    def _verify_rows(self, connection: sqlite3.Connection) -> Iterator[str]:
        damage.verify_into(self.verified, connection, partial(self._look, "rows"))
        self.has_verified_rows = True
        return iter(())

    def _bad_snapshots(self, connection: sqlite3.Connection) -> Iterator[str]:
        tables = ("session_snapshots", "archived_snapshots")
        counts = [connection.execute(f"SELECT count(*) FROM {table}").fetchone() for table in tables]  # noqa: S608  # ours
        self._total = sum(count for (count,) in counts)
        bad = 0
        for table in tables:
            # By the index's session, not the row's own, which may be what is damaged.
            query = f"SELECT DISTINCT session_id FROM {table} ORDER BY 1"  # noqa: S608  # ours
            for (session_id,) in connection.execute(query).fetchall():
                with contextlib.suppress(UnicodeEncodeError):  # an index entry that is no UTF-8: other checks name it
                    for unpacked in unpack_chain(rows_of_session(connection, table, session_id)):
                        self._look("snapshots", self._checked, self._total)
                        self._checked += 1
                        if unpacked.verified() is None:
                            bad += 1
                            if bad <= _MAX_BAD_SNAPSHOTS:
                                yield shown(unpacked.row.head.id)
                            else:
                                self._more += 1


def _is_large(connection: sqlite3.Connection) -> bool:
    query = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
    with contextlib.suppress(sqlite3.DatabaseError):  # the checks say what is damaged
        return bool(connection.execute(query).fetchone()[0] > _LARGE_BYTES)
    return False


def _structural_errors(pragma: str, connection: sqlite3.Connection) -> Iterator[str]:
    rows = connection.execute(f"PRAGMA {pragma}({_MAX_FINDINGS})")
    return (row[0] for row in rows if row[0] != "ok")


def _dangling_references(connection: sqlite3.Connection) -> Iterator[str]:
    rows = itertools.islice(connection.execute("PRAGMA foreign_key_check"), _MAX_FINDINGS)
    return (f"row {rowid} of {table} refers to a row of {parent} that is not there" for table, rowid, parent, _ in rows)
