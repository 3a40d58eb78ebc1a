"""The automatic backup: one a day at most, none where nothing changed, verified, the newest few kept.

They lie in `backups` beside the database under names of their own; what anybody else put
there is never touched. While a damaged database lies set aside nothing is deleted either:
the backup that is wanted then may be the oldest.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from orbit_os.files import private_folder
from orbit_protocol.errors import StorageCorrupt
from orbitd.logs import event
from orbitd.manager import SessionManager
from orbitd.store.backup import copies, recovery
from orbitd.store.backup.copies import Copy

log = logging.getLogger("orbitd.store.backup.daily")

EVERY = timedelta(days=1)


class Backups:
    """The automatic backups of an open store.

    Args:
        manager: The store.
        keep: How many stay.
        now: Tells the time.
    """

    def __init__(
        self, manager: SessionManager, keep: int, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self.folder = folder_of(manager.path)
        self._manager = manager
        self._keep = keep
        self._now = now
        self.last = next(iter(copies.copies(self.folder, now())), None)
        self._looked_at = self.last.moment if self.last is not None else None

    async def run(self) -> None:
        """Make a backup if a day has passed and something has changed.

        Raises:
            OrbitError: It could not be made, or is not good; older ones are still there.
            UnsafeFolder, OSError: The folder cannot be used.
        """
        now = self._now()
        if self._looked_at is not None and self._looked_at <= now < self._looked_at + EVERY:
            return
        if await self._has_changed():
            await self._make(copies.new_copy(self.folder, now))
        else:
            event(log, logging.INFO, "no backup needed, nothing has changed")
        self._looked_at = now

    async def _has_changed(self) -> bool:
        """Tell whether the rows differ from the newest backup's; an empty store is never backed up."""
        present = await self._manager.fingerprint()
        if present == copies.NOTHING:
            return False
        return self.last is None or present != await asyncio.to_thread(copies.fingerprint_of, self.last.path)

    async def _make(self, copy: Copy) -> None:
        private_folder(self.folder)
        made = await self._manager.backup(copy.path)
        try:
            await asyncio.to_thread(copies.verify, copy.path)
        except StorageCorrupt:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(copy.path)  # it would be taken for the newest good one
            raise
        self.last = copy
        if not recovery.found_aside(self._manager.path):
            await asyncio.to_thread(copies.prune, self.folder, copy, self._now(), self._keep)
        event(log, logging.INFO, "backup made", path=copy.path, bytes=made.bytes)


def folder_of(database_path: str) -> str:
    """Return where a database's automatic backups lie."""
    return os.path.join(os.path.dirname(database_path), "backups")


def remove_leftovers(database_path: str) -> None:
    """Delete what killed backups left half done beside a database; its lock is held, and no backup runs yet."""
    for folder in (os.path.dirname(database_path), folder_of(database_path)):
        for path in copies.remove_leftovers(folder):
            event(log, logging.INFO, "leftover of a backup removed", path=path)
