"""The SessionManager's methods for the whole store."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from datetime import datetime
from functools import partial

from orbitd.store import backup, copies, upkeep
from orbitd.store.clock import file_stamp, now
from orbitd.store.core import Core
from orbitd.store.files import SIDE_FILES, make_folders
from protocol.errors import InvalidParams, StorageCorrupt
from protocol.reports import BackupResult, CheckReport, SessionStats
from protocol.types import Session

_CLEANUP_CHUNK = 64
_VACUUM_PAGES = 1_024
_SPARE_PAGES = 256
"""Free pages (1 MiB) that an idle store keeps for the next save, instead of moving others about."""


class UpkeepMethods:
    """Auto-save, cleanup, archive, vacuum, check, backup and statistics."""

    _core: Core

    async def auto_save_sessions(self) -> int:
        """Write what is in memory only; return how many sessions that were. Nothing new: nothing is written."""
        core, moment = self._core, now()
        touches = dict(core.cache.touched)

        def settle(saved: int) -> int:
            core.cache.saved(touches)
            return saved

        saved = 0
        if touches:
            work = partial(upkeep.write_touches, touches=touches, moment=moment)
            saved = await core.writer.run(work, settle)
        core.last_auto_save_at = moment
        return saved

    async def cleanup_old_snapshots(self, keep_last_n: int) -> int:
        """Delete all but the newest snapshots of each session; return how many. Raises: InvalidParams."""
        if keep_last_n < 1:
            raise InvalidParams("`keep_last_n` must be 1 or more")
        rows = await self._core.readers.fetch_all(upkeep.WITH_MORE_THAN, (keep_last_n,))
        deleted = 0
        for start in range(0, len(rows), _CLEANUP_CHUNK):
            ids = [row[0] for row in rows[start : start + _CLEANUP_CHUNK]]
            deleted += await self._core.write(partial(upkeep.cleanup, session_ids=ids, keep_last_n=keep_last_n))
        return deleted

    async def archive_sessions(self, terminated_before: datetime) -> int:
        """Archive terminated sessions that were last active before a moment; return how many. Raises: InvalidParams."""
        if terminated_before.tzinfo is None:
            raise InvalidParams("`terminated_before` must have a time zone")
        archived, moved = 0, upkeep.ARCHIVE_CHUNK
        while moved == upkeep.ARCHIVE_CHUNK:
            moved = await self._core.write(partial(upkeep.archive, before=terminated_before))
            archived += moved
        return archived

    async def restore_archived_session(self, session_id: str) -> Session:
        """Bring an archived session back, terminated. Raises: SessionNotFound."""
        return await self._core.change_session(partial(upkeep.restore_archived, session_id=session_id))

    async def vacuum(self) -> int:
        """Give all free pages back to the file system; return how many bytes that were."""
        freed = 0
        while step := await self._core.write(partial(upkeep.vacuum, pages=_VACUUM_PAGES)):
            freed += step
        if freed:
            await self._core.writer.run(upkeep.checkpoint, lambda _: None, alone=True)
        return freed

    async def vacuum_step(self) -> int:
        """Give some free pages back if nothing waits to be written; return how many bytes that were."""
        row = await self._core.readers.fetch_one("PRAGMA freelist_count")
        spare = 0 if row is None else row[0] - _SPARE_PAGES
        if spare <= 0 or not self._core.writer.is_idle:
            return 0
        return await self._core.write(partial(upkeep.vacuum, pages=min(spare, _VACUUM_PAGES)))

    async def check(self) -> CheckReport:
        """Check the whole database and every snapshot."""
        return await self._core.readers.in_thread(upkeep.check)

    async def backup(self, path: str) -> BackupResult:
        """Write a consistent copy of the database, mode 0600, while all goes on; a file at `path` is replaced.

        Raises:
            InvalidParams: `path` is no place for a file, or the database itself.
            StorageFull: There is no room for it.
            StorageReadOnly: The folder cannot be written.
        """
        size = await self._core.readers.in_thread(partial(_backup, live=self._core.path, path=path))
        return BackupResult(path=path, bytes=size)

    async def fingerprint(self) -> bytes:
        """Return a digest of all rows, to tell whether a backup is still current."""
        return await self._core.readers.in_thread(copies.fingerprint)

    async def get_stats(self) -> SessionStats:
        """Count and measure."""
        row = await self._core.readers.fetch_one(upkeep.STATS)
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
            last_auto_save_at=self._core.last_auto_save_at,
        )

    async def probe(self) -> None:
        """Read from the database, to show that it answers."""
        await self._core.readers.fetch_one("SELECT count(*) FROM meta")

    async def watch(self) -> None:
        """Find out whether what is saved now could be found later; writes only if the last write failed.

        Raises:
            StorageError: It could not. What SQLite still has open of a lost database is copied
                beside its place first.
        """
        try:
            self._core.identity.check()
        except StorageCorrupt:
            await self._rescue()  # its failure is told first: it is what can be helped
        self._core.identity.check()
        if self._core.writer.trouble is not None:
            await self._core.writer.run(upkeep.try_to_write, lambda _: None)

    async def _rescue(self) -> None:
        identity, path = self._core.identity, f"{self._core.path}.rescued-{file_stamp(now())}"
        if not identity.is_rescued:
            await asyncio.to_thread(make_folders, os.path.dirname(path))
            await self._core.writer.run(partial(backup.write, path=path), lambda _: None, alone=True)
            identity.rescued = path


def _backup(connection: sqlite3.Connection, live: str, path: str) -> int:
    target = os.path.realpath(path)
    if not os.path.isabs(path) or os.path.isdir(target) or not os.path.isdir(os.path.dirname(target)):
        raise InvalidParams(f"`path` must name a file in a folder that exists, from the root on; {path} does not")
    if target in {live + suffix for suffix in ("", ".lock", *SIDE_FILES)} or _same_file(target, live):
        raise InvalidParams(f"`path` is the database itself: {path}")
    if os.path.exists(target) and not os.path.isfile(target):
        raise InvalidParams(f"`path` is no file, and is not replaced: {path}")
    return backup.write(connection, target)


def _same_file(one: str, other: str) -> bool:
    return os.path.exists(one) and os.path.samefile(one, other)
