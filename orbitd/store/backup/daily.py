"""The automatic backup: at most one a day, none if nothing has changed, verified, the newest few kept.

They lie in the folder `backups` beside the database, with names of their own; other files
there are never touched. While a damaged database lies set aside, or a row is damaged, no backup is
deleted: the oldest one may be the last from before the damage.
"""

from __future__ import annotations

import asyncio
import contextlib
import glob
import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from msgspec import Struct

from orbit_os.files import private_folder
from orbit_protocol.errors import StorageCorrupt
from orbit_protocol.paths import backups_folder
from orbitd.logs import event
from orbitd.manager import SessionManager
from orbitd.store.backup import copy, recovery
from orbitd.store.files import AUTOMATIC_BACKUP, TEMPORARY_PREFIX, file_stamp

log = logging.getLogger("orbitd.store.backup.daily")

INTERVAL = timedelta(days=1)


class Backup(Struct, frozen=True, kw_only=True):
    """An automatic backup: its file and the time it was made."""

    path: str
    moment: datetime


class DailyBackups:
    """The automatic backups of an open store.

    Args:
        manager: The store.
        keep: How many are kept.
        now: Returns the current time.
    """

    def __init__(
        self, manager: SessionManager, keep: int, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._folder = backups_folder(manager.path)
        self._manager = manager
        self._keep = keep
        self._now = now
        self.last = next(iter(_list_backups(self._folder, now())), None)
        # Not the time of the last check, which is not stored, but a daemon that starts often makes no
        # backup more than once a day.
        self._last_check = self.last.moment if self.last is not None else None

    async def run(self) -> None:
        """Make a backup if a day has passed and something has changed.

        Raises:
            OrbitError: It could not be made, or is not good; older ones are still there.
            UnsafeFolder, OSError: The folder cannot be used.
        """
        now = self._now()
        # A last check in the future was made before the clock was set back: check again.
        if self._last_check is not None and self._last_check <= now < self._last_check + INTERVAL:
            return
        if await self._has_changed():
            await self._make(now)
        else:
            event(log, logging.INFO, "no backup needed, nothing has changed")
        self._last_check = now

    async def _has_changed(self) -> bool:
        """Return whether the rows differ from those of the newest backup; an empty store is never backed up."""
        current = await self._manager.fingerprint()
        if current == copy.NO_ROWS:
            return False
        return self.last is None or current != await asyncio.to_thread(copy.fingerprint_of, self.last.path)

    async def _make(self, now: datetime) -> None:
        # `manager.backup` runs a quick_check; `verify` reads the file that was renamed, all indexes too.
        private_folder(self._folder)
        path = os.path.join(self._folder, f"auto-{file_stamp(now)}.db")
        made = await self._manager.backup(path, automatic=True)
        try:
            has_damage = self._manager.has_damage()
            await asyncio.to_thread(copy.verify, path, with_damage=has_damage)
        except StorageCorrupt:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)  # else a restore would offer it as the newest good one
            raise
        self.last = Backup(path=path, moment=now.replace(microsecond=0))
        if not has_damage and not recovery.list_set_aside(self._manager.path):
            await asyncio.to_thread(self._prune, path)
        event(log, logging.INFO, "backup made", path=path, bytes=made.bytes)

    def _prune(self, newest: str) -> None:
        """Delete all but the newest backups; `newest` stays whatever the clock and so its name say."""
        others = [backup for backup in _list_backups(self._folder, self._now()) if backup.path != newest]
        for backup in others[self._keep - 1 :]:
            os.unlink(backup.path)


def remove_leftovers(database_path: str) -> None:
    """Delete the unfinished copies of backups that were killed; only while no backup runs, with the lock held."""
    for folder in (os.path.dirname(database_path), backups_folder(database_path)):
        for path in glob.glob(os.path.join(glob.escape(folder), TEMPORARY_PREFIX + "*")):
            try:
                os.unlink(path)
            except OSError as error:  # a folder, say
                event(log, logging.WARNING, "leftover of a backup not removed", path=path, error=error.strerror)
            else:
                event(log, logging.INFO, "leftover of a backup removed", path=path)


def _list_backups(folder: str, now: datetime) -> list[Backup]:
    """Return the automatic backups in a folder, newest first."""
    found: list[Backup] = []
    with contextlib.suppress(OSError):  # none yet, or something else is in its place: making a backup says so
        for name in os.listdir(folder):
            if match := AUTOMATIC_BACKUP.fullmatch(name):
                with contextlib.suppress(ValueError):  # digits that are no date
                    # strptime would do, but imports a module at its first use: it may be gone by then.
                    moment = datetime.fromisoformat(match[1])
                    found.append(Backup(path=os.path.join(folder, name), moment=moment))
    # One from the future was made before the clock was set back; it counts as the oldest.
    return sorted(found, key=lambda backup: (backup.moment <= now, backup.moment), reverse=True)
