"""The SessionManager: the one API over the store, with or without the daemon.

    async with SessionManager.open(path) as manager:
        session = await manager.create_session(SessionConfig(session_type="local"))

A call that changes something returns when the change is on disk; cancelling it does not undo
the change. Reads of sessions that are not terminated and of workspaces never touch the disk.
All errors are `orbit_protocol.errors.OrbitError`. A manager belongs to the event loop that
opened it. Its methods are in `orbitd.store`: sessions, snapshots, workspaces, documents,
event_methods, maintenance.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Generator
from typing import Any

from orbit_protocol.errors import StorageError
from orbitd.store.documents import DocumentMethods
from orbitd.store.event_methods import EventMethods
from orbitd.store.maintenance import MaintenanceMethods
from orbitd.store.sessions import PrivateConfigs, SessionMethods
from orbitd.store.snapshots import SnapshotMethods
from orbitd.store.store import Store, open_store
from orbitd.store.workspaces import WorkspaceMethods
from orbitd.store.writer import MAX_GROUP, MAX_WAITING

_log = logging.getLogger(__name__)


class SessionManager(
    DocumentMethods, SessionMethods, SnapshotMethods, WorkspaceMethods, EventMethods, MaintenanceMethods
):
    """Sessions, snapshots, workspaces and events of one database; made by `open`.

    Args:
        store: The open store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._private = PrivateConfigs()
        store.make_room = self.make_room

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        start_empty: bool = False,
        max_group: int = MAX_GROUP,
        max_waiting: int = MAX_WAITING,
    ) -> Opening:
        """Open the database at `path`: `await` the result and `close` later, or use `async with`.

        Args:
            path: The file; it and its folder are made if there is none.
            start_empty: Make a new database although a damaged one was set aside here, with what is whole in that one.
            max_group: The most changes in one commit; 1 commits each by itself.
            max_waiting: The most changes that wait to be written; then callers wait.

        Raises:
            StorageCorrupt: The database is damaged and was set aside; `data.set_aside` and
                `data.backup` (or null) are the paths of it and of the newest good backup.
            StorageReadOnly: It is another program's, a newer Orbit's, or cannot be written.
        """
        return Opening(cls, path, start_empty=start_empty, max_group=max_group, max_waiting=max_waiting)

    @property
    def path(self) -> str:
        """The database, absolute."""
        return self._store.path

    @property
    def descriptors(self) -> int:
        """How many descriptors the connections have open that read."""
        return self._store.readers.descriptors

    @property
    def repairs(self) -> list[str]:
        """Sentences about what was damaged in the database and was put right when it was opened."""
        return self._store.repairs

    @property
    def read_only(self) -> str | None:
        """Why nothing can be written, or None: the last resort where the database could not be opened as usual."""
        return self._store.read_only

    async def close(self) -> None:
        """Write what is in memory only, finish the calls that run, and checkpoint the WAL into the database."""
        try:
            await self.auto_save_sessions()
        except StorageError:  # closing goes on; only the times of last touches are lost
            _log.exception("the last auto-save failed")
        finally:
            await self._store.close()


class Opening:
    """A database about to be opened: awaitable, and an asynchronous context manager."""

    def __init__(self, kind: type[SessionManager], path: str | os.PathLike[str], **options: Any) -> None:
        self._kind = kind
        self._path = os.path.realpath(os.fspath(path))
        self._options = options
        self._manager: SessionManager | None = None

    def __await__(self) -> Generator[Any, None, SessionManager]:
        return self._open().__await__()

    async def __aenter__(self) -> SessionManager:
        self._manager = await self._open()
        return self._manager

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._manager is not None
        await self._manager.close()

    async def _open(self) -> SessionManager:
        return self._kind(await open_store(self._path, **self._options))
