"""The SessionManager's methods for the whole store."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from datetime import datetime
from functools import partial

from orbit_os.files import make_private_folders
from orbit_protocol.errors import InvalidParams, StorageCorrupt
from orbit_protocol.results import BackupResult, CheckReport, SessionStats
from orbit_protocol.types import Session
from orbitd.store import maintenance
from orbitd.store.backup import copies, copy
from orbitd.store.clock import file_stamp, now
from orbitd.store.files import SIDE_FILES
from orbitd.store.store import Store

_CLEANUP_CHUNK = 64
_VACUUM_PAGES = 1_024
_SPARE_PAGES = 256
"""Free pages (1 MiB) that an idle store keeps for the next save, instead of moving others about."""


class UpkeepMethods:
    """Auto-save, cleanup, archive, vacuum, check, backup and statistics."""

    _store: Store

    async def auto_save_sessions(self) -> int:
        """Write what is in memory only; return how many sessions that were. Nothing new: nothing is written."""
        store, moment = self._store, now()
        touches = dict(store.cache.touched)

        def settle(saved: int) -> int:
            store.cache.saved(touches)
            return saved

        saved = 0
        if touches:
            work = partial(maintenance.write_touches, touches=touches, moment=moment)
            saved = await store.writer.run(work, settle)
        store.last_auto_save_at = moment
        return saved

    async def cleanup_old_snapshots(self, keep_last_n: int) -> int:
        """Delete all but the newest snapshots of each session; return how many. Raises: InvalidParams."""
        if keep_last_n < 1:
            raise InvalidParams("`keep_last_n` must be 1 or more")
        rows = await self._store.readers.fetch_all(maintenance.WITH_MORE_THAN, (keep_last_n,))
        deleted = 0
        for start in range(0, len(rows), _CLEANUP_CHUNK):
            ids = [row[0] for row in rows[start : start + _CLEANUP_CHUNK]]
            deleted += await self._store.write(partial(maintenance.cleanup, session_ids=ids, keep_last_n=keep_last_n))
        return deleted

    async def archive_sessions(self, terminated_before: datetime) -> int:
        """Archive terminated sessions that were last active before a moment; return how many. Raises: InvalidParams."""
        if terminated_before.tzinfo is None:
            raise InvalidParams("`terminated_before` must have a time zone")
        archived, moved = 0, maintenance.ARCHIVE_CHUNK
        while moved == maintenance.ARCHIVE_CHUNK:
            moved = await self._store.write(partial(maintenance.archive, before=terminated_before))
            archived += moved
        return archived

    async def restore_archived_session(self, session_id: str) -> Session:
        """Bring an archived session back, terminated. Raises: SessionNotFound."""
        return await self._store.change_session(partial(maintenance.restore_archived, session_id=session_id))

    async def vacuum(self) -> int:
        """Give all free pages back to the file system; return how many bytes that were."""
        freed = 0
        while step := await self._store.write(partial(maintenance.vacuum, pages=_VACUUM_PAGES)):
            freed += step
        if freed:
            await self._store.writer.run(maintenance.checkpoint, lambda _: None, alone=True)
        return freed

    async def vacuum_step(self) -> int:
        """Give some free pages back if nothing waits to be written; return how many bytes that were."""
        row = await self._store.readers.fetch_one("PRAGMA freelist_count")
        spare = 0 if row is None else row[0] - _SPARE_PAGES
        if spare <= 0 or not self._store.writer.is_idle:
            return 0
        return await self._store.write(partial(maintenance.vacuum, pages=min(spare, _VACUUM_PAGES)))

    async def check(self) -> CheckReport:
        """Check the whole database and every snapshot."""
        return await self._store.readers.in_thread(maintenance.check)

    async def backup(self, path: str) -> BackupResult:
        """Write a consistent copy of the database, mode 0600, while all goes on; a file at `path` is replaced.

        Raises:
            InvalidParams: `path` is no place for a file, or the database itself.
            StorageFull: There is no room for it.
            StorageReadOnly: The folder cannot be written.
        """
        size = await self._store.readers.in_thread(partial(_backup, live=self._store.path, path=path))
        return BackupResult(path=path, bytes=size)

    async def fingerprint(self) -> bytes:
        """Return a digest of all rows, to tell whether a backup is still current."""
        return await self._store.readers.in_thread(copies.fingerprint)

    async def get_stats(self) -> SessionStats:
        """Count and measure."""
        row = await self._store.readers.fetch_one(maintenance.STATS)
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
        """Find out whether what is saved now could be found later; writes only if the last write failed.

        Raises:
            StorageError: It could not. What SQLite still has open of a lost database is copied
                beside its place first.
        """
        try:
            self._store.file_watch.check()
        except StorageCorrupt:
            await self._rescue()  # its failure is told first: it is what can be helped
        self._store.file_watch.check()
        if self._store.writer.trouble is not None:
            await self._store.writer.run(maintenance.try_to_write, lambda _: None)

    async def _rescue(self) -> None:
        file_watch, path = self._store.file_watch, f"{self._store.path}.rescued-{file_stamp(now())}"
        if not file_watch.is_rescued:
            await asyncio.to_thread(make_private_folders, os.path.dirname(path))
            await self._store.writer.run(partial(copy.write, path=path), lambda _: None, alone=True)
            file_watch.rescued = path


def _backup(connection: sqlite3.Connection, live: str, path: str) -> int:
    target = os.path.realpath(path)
    if not os.path.isabs(path) or os.path.isdir(target) or not os.path.isdir(os.path.dirname(target)):
        raise InvalidParams(f"`path` must name a file in a folder that exists, from the root on; {path} does not")
    if target in {live + suffix for suffix in ("", ".lock", *SIDE_FILES)} or _same_file(target, live):
        raise InvalidParams(f"`path` is the database itself: {path}")
    if os.path.exists(target) and not os.path.isfile(target):
        raise InvalidParams(f"`path` is no file, and is not replaced: {path}")
    return copy.write(connection, target)


def _same_file(one: str, other: str) -> bool:
    return os.path.exists(one) and os.path.samefile(one, other)
